"""What is measured, one function per part. Each is called once per round and adds to the figures."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import psycopg
from psycopg import sql

from bench.commits import Anchor, rate
from bench.documents import NODES, PAYLOAD
from bench.figures import COMMITS_16, Figures, percentile
from bench.place import Place, peak_memory, value, wait_until, worker

Connection = psycopg.Connection[Any]

BATCH = 500
START = "select count(stellwerk.start_run(%s, %s)) from generate_series(1, %s)"
ONE_ROW = "insert into {table} (customer, amount) values ('Ada Lovelace', 250)"
MANY_ROWS = "insert into {table} (customer, amount) select 'Customer ' || i, i from generate_series(1, 1000) as i"


@dataclass
class Bench:
    """Where to measure, how much, and where to put the figures."""

    where: Place
    anchor: Anchor
    figures: Figures
    seconds: float
    runs: int
    samples: int
    age: int = 1000
    history: int = 5_000_000
    items: int = 10_000

    @property
    def turns(self) -> int:
        """How often a round measures what takes a second or so: a shared machine's pace changes as fast."""
        return 3 if self.seconds >= 1 else 1


def sql_steps(bench: Bench) -> None:
    """Five SQL nodes: in sets by pump, and one run per call."""
    add = bench.figures.add
    for connections in (1, 2):
        name = "1 connection" if connections == 1 else f"{connections} connections"
        for (starting, pumping), commits in bench.anchor.between(
            16, partial(_in_sets, bench, connections), bench.turns
        ):
            steps = bench.runs * NODES / pumping
            add(f"sql_runs_{connections}", f"SQL runs/s, advanced in sets by {name}", "runs/s", bench.runs / pumping)
            add(f"sql_sets_{connections}", f"  steps/s, {name}", "steps/s", steps, steps / commits, COMMITS_16)
            whole = bench.runs * NODES / (starting + pumping)
            title = "  steps/s, starting in bulk included"
            add(f"sql_whole_{connections}", title, "steps/s", whole, whole / commits, COMMITS_16)
    statement = f"select stellwerk.advance(stellwerk.start_run('bench-sql', '{PAYLOAD}'))"
    for clients in (1, 16):
        name = "1 client" if clients == 1 else f"{clients} clients"
        beside = f"commits, {name}"
        runs, commits = bench.anchor.around(clients, lambda n=clients: rate(bench.where, statement, n, bench.seconds))
        add(f"sql_single_{clients}", f"SQL runs/s, started and advanced one per call, {name}", "runs/s", runs)
        add(f"sql_single_steps_{clients}", "  steps/s", "steps/s", runs * NODES, runs * NODES / commits, beside)


def _in_sets(bench: Bench, connections: int) -> tuple[float, float]:
    """Seconds that it takes to start the runs in one statement, and to pump them through."""
    with bench.where.connect() as connection:
        before = time.perf_counter()
        connection.execute(START, ["bench-sql", PAYLOAD, bench.runs])
        started = time.perf_counter()
        threads = [threading.Thread(target=_pump, args=(bench.where,)) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = time.perf_counter()
        if not _idle(connection):
            raise RuntimeError("pump left runs behind")
    return started - before, ended - started


def _pump(where: Place) -> None:
    with where.connect() as connection:
        while value(connection, f"select stellwerk.pump({BATCH})").get("more"):
            pass


def _idle(connection: Connection) -> bool:
    return not value(
        connection, "select exists (select from stellwerk.run where state in ('pending', 'running', 'waiting'))"
    )


def worker_steps(bench: Bench) -> None:
    """Five no-op nodes carried out by one worker process; the seconds are the database's."""

    def measure() -> float:
        with bench.where.connect() as connection:
            last = value(connection, "select coalesce(max(run_id), 0) from stellwerk.run")
            with connection.transaction():
                connection.execute(START, ["bench-worker", PAYLOAD, bench.runs])
                began = value(connection, "select clock_timestamp()")
            wait_until(lambda: _idle(connection), 600, 0.1)
            ended, failed = connection.execute(
                "select max(ended_at), count(*) filter (where state <> 'completed') from stellwerk.run where run_id > %s",
                [last],
            ).fetchone() or (began, 1)
            if failed:
                raise RuntimeError(f"{failed} runs did not complete")
        return float((ended - began).total_seconds())

    def with_worker() -> tuple[float, float | None]:
        with worker(bench.where) as pid:
            measured = measure()
            return measured, peak_memory(pid)

    for (seconds, memory), commits in bench.anchor.between(16, with_worker, bench.turns):
        steps = bench.runs * NODES / seconds
        bench.figures.add("worker_runs", "worker runs/s, 1 worker process", "runs/s", bench.runs / seconds)
        bench.figures.add("worker", "  steps/s", "steps/s", steps, steps / commits, COMMITS_16)
        if memory is not None:
            bench.figures.add("worker_memory", "  memory of the worker at most, MB", "MB", memory)


def latency(bench: Bench) -> None:
    """From an INSERT, just before it commits, to its first step, with one worker that has nothing else to do."""
    with worker(bench.where), bench.where.connect() as connection:
        for table, kind in (("bench.first_worker", "worker"), ("bench.first_sql", "SQL")):
            last = value(connection, "select coalesce(max(event_id), 0) from stellwerk.event")
            for _ in range(bench.samples):
                time.sleep(random.uniform(0.03, 0.2))
                connection.execute(ONE_ROW.format(table=table))
            wait_until(
                lambda: (
                    not value(connection, "select exists (select from stellwerk.event where state = 'pending')")
                    and _idle(connection)
                )
            )
            rows = connection.execute(
                """
                select 1000 * extract(epoch from s.started_at - e.created_at)::float8,
                       1000 * ((s.output ->> 'called_at')::float8 - extract(epoch from e.created_at)::float8)
                  from stellwerk.event e
                  join stellwerk.step s on s.run_id = e.run_id and s.node_id in ('n1', 'seen')
                 where e.event_id > %s
                """,
                [last],
            ).fetchall()
            if len(rows) != bench.samples:
                raise RuntimeError(f"{bench.samples} rows were inserted, but {len(rows)} steps ran")
            _add_latency(bench, kind.lower(), f"INSERT to first {kind} step", [row[0] for row in rows])
            if kind == "worker":
                _add_latency(bench, "call", "INSERT to the executor's call", [row[1] for row in rows])


def _add_latency(bench: Bench, key: str, title: str, milliseconds: list[float]) -> None:
    for part in (50, 95):
        measured = percentile(milliseconds, part / 100)
        bench.figures.add(f"latency_{key}_p{part}", f"{title}, idle, p{part}, ms", "ms", measured)


def watched_commits(bench: Bench) -> None:
    """16 clients that commit single rows into a watched table, each of which matches, beside the same without a watch.

    With a worker there is one in both cases; without a watch it has nothing to do, with one it runs what was captured.
    """
    title = "commits/s, 16 clients, every row matching, no worker"
    _compare(bench, "watch_16", title, ONE_ROW, "bench.watched", 16)
    title = "  the same, with a worker that runs them meanwhile"
    _compare(bench, "watch_16_worker", title, ONE_ROW, "bench.watched", 16, with_worker=True)


def bulk_inserts(bench: Bench) -> None:
    """1000-row INSERTs of one client, without a worker."""
    compare: list[tuple[str, str, str]] = [
        ("bulk_none", "1000-row INSERTs/s, nothing matching", "bench.none"),
        ("bulk_bulk_none", "  nothing matching, bulk mode", "bench.bulk_none"),
        ("bulk_all_bulk", "  all matching, bulk mode", "bench.bulk"),
        ("bulk_all_rows", "  all matching, row by row", "bench.rows"),
    ]
    for key, title, table in compare:
        _compare(bench, key, title, MANY_ROWS, table, 1)


def _compare(
    bench: Bench, key: str, title: str, statement: str, table: str, clients: int, with_worker: bool = False
) -> None:
    """Without a watch, with it, without, with …: short turns, since a machine's pace changes within seconds."""
    turns = 1 if with_worker else bench.turns
    seconds = bench.seconds if turns == 1 else max(1.0, bench.seconds / turns)
    before = _rate_of(bench, statement, "bench.plain", clients, seconds, with_worker)
    for _ in range(turns):
        watched = _rate_of(bench, statement, table, clients, seconds, with_worker)
        after = _rate_of(bench, statement, "bench.plain", clients, seconds, with_worker)
        bench.figures.add(key, title, "1/s", watched, watched / fmean([before, after]), "no watch")
        before = after


def _rate_of(bench: Bench, statement: str, table: str, clients: int, seconds: float, with_worker: bool) -> float:
    with bench.where.connect() as connection:
        connection.execute(sql.SQL("truncate {}").format(sql.Identifier(*table.split("."))))
        with worker(bench.where) if with_worker else contextlib.nullcontext():
            measured = rate(bench.where, statement.format(table=table), clients, seconds)
        # What was captured is not run to its end: the next figure would pay for it.
        connection.execute(
            "truncate stellwerk.event_log, stellwerk.event_inbox, stellwerk.event_arrival, stellwerk.event_batch"
        )
        connection.execute("select stellwerk.cancel_run(run_id) from stellwerk.run where state = 'pending'")
    return measured


PARTS: dict[str, Callable[[Bench], None]] = {
    "sql": sql_steps,
    "worker": worker_steps,
    "latency": latency,
    "watch": watched_commits,
    "bulk": bulk_inserts,
}
