"""Whether cost follows work: late steps beside first ones, a full history beside an empty one, long loops beside short ones.

What is compared runs in turns, seconds apart, so that the machine's pace hits both alike."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bench.documents import NODES, PAYLOAD, prepare
from bench.measures import BATCH, START, Bench
from bench.place import Place, anonymous_memory, database, value

Connection = psycopg.Connection[Any]
TURNS = 5
FEW_ITEMS = 100


def later_steps(bench: Bench) -> None:
    """Step 1 and step `age` of runs that go round in a circle: SQL steps 200 at a time, worker steps one by one."""
    with bench.where.connect() as connection, _Hand(connection) as hand:
        young, old = _sql_ages(connection, bench.age)
        title = f"200 SQL steps of one run from step {bench.age}, ms"
        bench.figures.add("age_sql", title, "ms", old, old / young, "its first 200")
        young, old = _worker_ages(connection, hand, bench.age)
        title = f"worker step {bench.age} of 20 runs, begun and handed in, ms"
        bench.figures.add("age_worker", title, "ms", old, old / young, "step 1")


def _sql_ages(connection: Connection, age: int) -> tuple[float, float]:
    young, old = [], []
    for _ in range(2 * TURNS):
        run_id = value(connection, "select stellwerk.start_run('bench-round', '{}')")
        advance = lambda r=run_id: value(connection, "select stellwerk.advance(%s)", r)  # noqa: E731
        young.append(_timed(advance))  # each call goes 200 waves
        for _ in range(max(0, age // 200 - 1)):
            advance()
        old.append(_timed(advance))
        value(connection, "select stellwerk.cancel_run(%s)", run_id)
    return 1000 * median(young), 1000 * median(old)


def _worker_ages(connection: Connection, hand: _Hand, age: int) -> tuple[float, float]:
    young, old = [], []
    aged = _started(connection, "bench-worker-round", 20)
    for _ in range(age - 1):
        hand.work(aged)
    for _ in range(4 * TURNS):
        fresh = _started(connection, "bench-worker-round", 20)
        young.append(hand.work(fresh))
        old.append(hand.work(aged))
        connection.execute("select stellwerk.cancel_run(r) from unnest(%s::bigint[]) r", [fresh])
    connection.execute("select stellwerk.cancel_run(r) from unnest(%s::bigint[]) r", [aged])
    return 1000 * median(young), 1000 * median(old)


def full_history(bench: Bench) -> None:
    """The same moves in a database with millions of finished steps, and in one with none."""
    with _copied(bench.where, "full") as full, _copied(bench.where, "empty") as empty:
        fill(full, bench.history)
        count = f"{bench.history:,}".replace(",", " ")
        with full.connect() as one, empty.connect() as other, _Hand(one) as hand, _Hand(other) as other_hand:
            # The first turn fills caches, and statistics as they soon are in any database that is used; it is not counted.
            _moves(one, hand, bench), _moves(other, other_hand, bench)
            other.execute("vacuum (analyze)")
            turns = [(_moves(one, hand, bench), _moves(other, other_hand, bench)) for _ in range(TURNS)]
        for position, (key, title) in enumerate(
            [
                ("history_sql", f"SQL steps/s in sets, beside {count} finished steps"),
                ("history_worker", "  worker steps/s, begun and handed in by 50"),
                ("history_single", "  SQL steps/s, one run per call"),
            ]
        ):
            rates = median(1 / a[position] for a, _ in turns)
            ratio = median(a[position] / b[position] for a, b in turns)
            bench.figures.add(key, title, "steps/s", rates, ratio, "the time with none")


def _moves(connection: Connection, hand: _Hand, bench: Bench) -> tuple[float, float, float]:
    """Seconds per step: SQL steps in sets, worker steps, SQL steps of one run per call."""
    runs = max(20, bench.runs // 4)
    connection.execute(START, ["bench-sql", PAYLOAD, runs])
    in_sets = _timed(lambda: _pump_all(connection)) / (runs * NODES)
    started = _started(connection, "bench-worker", 50)
    by_worker = sum(hand.work(started) for _ in range(NODES)) / (50 * NODES)
    advance = f"select stellwerk.advance(stellwerk.start_run('bench-sql', '{PAYLOAD}'))"
    single = median(_timed(lambda: value(connection, advance)) for _ in range(max(10, runs // 10))) / NODES
    return in_sets, by_worker, single


def fill(where: Place, steps: int) -> None:
    """Copies a completed run of SQL nodes and one of worker nodes until there are so many finished steps."""
    with where.connect() as connection, _Hand(connection) as hand:
        run_id = value(connection, "select stellwerk.start_run('bench-sql', %s)", PAYLOAD)
        _pump_all(connection)
        (worker_run,) = _started(connection, "bench-worker", 1)
        for _ in range(NODES):
            hand.work([worker_run])
        each = value(connection, "select count(*) from stellwerk.step where run_id in (%s, %s)", run_id, worker_run)
        copies = -(-steps // each)
        for table in ("run", "step"):
            _copy_rows(connection, table, [run_id, worker_run], copies)
        connection.execute(
            "select setval('stellwerk.run_id_seq', (select max(run_id) from stellwerk.run)),"
            " setval('stellwerk.step_id_seq', (select max(step_id) from stellwerk.step))"
        )
        connection.execute("vacuum (freeze, analyze) stellwerk.run")
        connection.execute("vacuum (freeze, analyze) stellwerk.step")
        connection.execute("checkpoint")


def _copy_rows(connection: Connection, table: str, run_ids: list[int], copies: int) -> None:
    """Each copy of a run has the next number that is free, each copy of a step too: ids follow time, as ever."""
    columns = [
        name
        for (name,) in connection.execute(
            "select column_name from information_schema.columns where table_schema = 'stellwerk' and table_name = %s"
            " and is_generated = 'NEVER' order by ordinal_position",
            [table],
        ).fetchall()
    ]
    new = {
        "run_id": sql.SQL("(select max(x) from unnest(%(runs)s::bigint[]) x) + (n - 1) * 2 + array_position(%(runs)s::bigint[], o.run_id)"),
        "step_id": sql.SQL("(select max(step_id) from stellwerk.step) + (n - 1) * 1000 + o.step_id"),
    }  # fmt: skip
    connection.execute(
        sql.SQL(
            "insert into stellwerk.{} ({}) select {} from generate_series(1, %(copies)s) n cross join stellwerk.{} o"
            " where o.run_id = any (%(runs)s::bigint[]) order by n, o.run_id"
        ).format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(new.get(name, sql.SQL("o.{}").format(sql.Identifier(name))) for name in columns),
            sql.Identifier(table),
        ),
        {"runs": run_ids, "copies": copies},
    )


def long_loops(bench: Bench) -> None:
    """A loop over many items beside loops over few: time, rows read and memory for each item."""
    for key, title, slug in (
        ("loop_sql", f"time per item of a loop of {bench.items} items in SQL, ms", "bench-loop"),
        ("loop_worker", f"  of {bench.items} items in workers, 50 at once, ms", "bench-worker-loop"),
    ):
        turns = []
        for _ in range(2):
            few = [_loop(bench.where, slug, FEW_ITEMS) for _ in range(5)]
            many = _loop(bench.where, slug, bench.items)
            turns.append((_Loop(*(median(part) for part in zip(*map(_parts, few), strict=True))), many))
        per_item = median(many.seconds for _, many in turns)
        time_ratio = median(many.seconds / few.seconds for few, many in turns)
        reads = median(many.reads for _, many in turns)
        read_ratio = median(many.reads / few.reads for few, many in turns)
        beside = f"a loop of {FEW_ITEMS}"
        bench.figures.add(key, title, "ms", 1000 * per_item, time_ratio, beside)
        bench.figures.add(f"{key}_reads", "    rows read per item", "rows", reads, read_ratio, beside)
        memory = max(many.memory for _, many in turns)
        if memory:
            bench.figures.add(f"{key}_memory", "    memory of its backend at most, MB", "MB", memory)


@dataclass
class _Loop:
    """One loop: seconds and rows read for each item, MB of its backend at most (0 where the system does not say)."""

    seconds: float
    reads: float
    memory: float


def _parts(loop: _Loop) -> tuple[float, float, float]:
    return loop.seconds, loop.reads, loop.memory


def _loop(where: Place, slug: str, items: int) -> _Loop:
    with where.connect() as connection, _Hand(connection) as hand:
        payload = Jsonb({"items": list(range(items))})
        run_id = value(connection, "select stellwerk.start_run(%s, %s)", slug, payload)
        before = _rows_read(connection)
        with _watched_memory(connection.info.backend_pid) as memory:
            began = time.perf_counter()
            _pump_all(connection)
            while hand.work([run_id]):
                pass
            seconds = time.perf_counter() - began
        state = value(connection, "select state from stellwerk.run where run_id = %s", run_id)
        if state != "completed":
            raise RuntimeError(f"the loop of {items} items is {state}")
        return _Loop(seconds / items, (_rows_read(connection) - before) / items, max(memory))


def _rows_read(connection: Connection) -> int:
    connection.execute("select pg_stat_force_next_flush()")
    return int(
        value(
            connection,
            "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint from pg_stat_user_tables"
            " where schemaname = 'stellwerk'",
        )
    )


@contextlib.contextmanager
def _watched_memory(pid: int) -> Iterator[list[float]]:
    """What a process holds for itself, looked at all the time; the list grows meanwhile."""
    seen, over = [anonymous_memory(pid) or 0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            seen.append(anonymous_memory(pid) or 0.0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


class _Hand:
    """Plays a worker: takes the queued steps of given runs and hands them in at once."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        types = ["bench.noop"]
        self.worker_id = value(connection, "select stellwerk.register_worker('hand', 'bench', 0, %s)", types)
        connection.execute("select stellwerk.hold_presence(%s)", [self.worker_id])

    def __enter__(self) -> _Hand:
        return self

    def __exit__(self, *problem: object) -> None:
        self.connection.execute("select stellwerk.leave_worker(%s)", [self.worker_id])

    def work(self, run_ids: list[int]) -> float:
        """The next steps of these runs, at most 500; answers the seconds of the two calls, 0 when there was none."""
        steps = self.connection.execute(
            "select run_id, step_id from stellwerk.step where tenant_id = 1 and run_id = any (%s) and state = 'queued'"
            " and runs_in = 'worker' order by step_id limit 500",
            [run_ids],
        ).fetchall()
        if not steps:
            return 0.0
        began = time.perf_counter()
        taken = self.connection.execute(
            "select run_id, step_id, attempt from stellwerk.begin_steps(%s, 1, %s, %s)",
            [self.worker_id, [r for r, _ in steps], [s for _, s in steps]],
        ).fetchall()
        results = [{"run": r, "step": s, "attempt": a, "output": {"called_at": 0, "value": None}} for r, s, a in taken]
        answer = value(self.connection, "select stellwerk.complete_steps(%s, 1, %s)", self.worker_id, Jsonb(results))
        seconds = time.perf_counter() - began
        if answer["accepted"] != len(steps):
            raise RuntimeError(f"of {len(steps)} steps {answer['accepted']} were accepted")
        # The queue's rows are the queue's business; left alone they would pile up.
        self.connection.execute("truncate stellwerk_queue.pgqueuer, stellwerk_queue.pgqueuer_log")
        return seconds


def _started(connection: Connection, slug: str, count: int) -> list[int]:
    rows = connection.execute(
        "select stellwerk.start_run(%s, %s) from generate_series(1, %s)", [slug, PAYLOAD, count]
    ).fetchall()
    _pump_all(connection)
    return [run_id for (run_id,) in rows]


def _pump_all(connection: Connection) -> None:
    while True:
        answer = value(connection, f"select stellwerk.pump({BATCH})")
        if not answer["more"] and not answer["runs_advanced"]:
            return


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


@contextlib.contextmanager
def _copied(where: Place, name: str) -> Iterator[Place]:
    """Another database on the same server, with the same workflows."""
    with database(where.dsn, where.pgbench, name) as place:
        prepare(place)
        yield place
