"""Workers killed at every named place, and everything killed at once: nothing is lost, nothing happens twice."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from faults.checker import problems, read_sink, read_steps

from stellwerk.worker.faults import PLACES

pytestmark = [pytest.mark.slow, pytest.mark.one_server]

NODES = ("w1", "w2", "w3")


def publish(dsn: str, script: str) -> str:
    """Three steps in a row, each with an effect."""
    from stellwerk.definition.compile import compile_workflow
    from stellwerk.engine import Engine

    steps: list[dict[str, Any]] = [{"id": "start", "type": "trigger.manual", "config": {}}]
    steps += [{"id": node, "type": "action.fonio_call", "config": {"script": script}} for node in NODES]
    compiled = compile_workflow({"slug": "effects", "name": "effects", "steps": steps})
    with psycopg.connect(dsn, autocommit=True) as connection:
        engine = Engine(connection)
        engine.save_workflow(compiled.document, compiled.plan, [])
        engine.publish_workflow("effects", None)
    return "effects"


class Feeder(threading.Thread):
    """Starts runs all the while, as an application would."""

    def __init__(self, dsn: str) -> None:
        super().__init__(daemon=True)
        self.dsn = dsn
        self.runs: set[int] = set()
        self.enough = threading.Event()

    def run(self) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            while not self.enough.wait(0.02):
                row = connection.execute("select stellwerk.start_run('effects')").fetchone()
                assert row is not None
                self.runs.add(row[0])


def unfinished(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "select count(*) from stellwerk.run where state not in ('completed', 'failed', 'cancelled')"
        ).fetchone()
        assert row is not None
        return int(row[0])


def test_kills_at_every_named_place(
    dsn: str, spawn_worker: Callable[..., Any], wait_until: Callable[..., None], tmp_path: Path, request: Any
) -> None:
    kills = 60 if request.config.getoption("--full", default=False) else 10
    chance = random.Random(20261120)
    sink = tmp_path / "sink"
    publish(dsn, "sink")
    feeder = Feeder(dsn)
    feeder.start()
    spawn_worker(dsn=dsn, SINK=str(sink))  # takes over what the others leave behind
    deaths: dict[str, int] = dict.fromkeys(PLACES, 0)
    for number in range(kills):
        place = PLACES[number % len(PLACES)]
        worker = spawn_worker(dsn=dsn, SINK=str(sink), STELLWERK_CRASH=f"{place}:{chance.randint(1, 12)}")
        wait_until(lambda worker=worker: not worker.running, 60, f"the death at {place}")
        assert worker.process.returncode == -signal.SIGKILL, worker.said
        deaths[place] += 1
    feeder.enough.set()
    feeder.join()
    wait_until(lambda: unfinished(dsn) == 0, 60, "the end of all runs")
    effects = read_sink(sink)
    with psycopg.connect(dsn) as connection:
        steps = read_steps(connection)
    assert problems(feeder.runs, NODES, steps, effects) == []
    assert min(deaths.values()) >= kills // len(PLACES)
    repeated = len(effects) - len({effect["key"] for effect in effects})
    print(f"{sum(deaths.values())} kills, {len(feeder.runs)} runs, {len(effects)} effects, {repeated} of them repeated")
    assert repeated > 0, "no kill fell between an effect and its commit"


def test_everything_is_killed_and_goes_on_where_it_stopped(
    dsn: str, own_server: Any, spawn_worker: Callable[..., Any], wait_until: Callable[..., None], tmp_path: Path
) -> None:
    sink = tmp_path / "sink"
    slug = publish(dsn, "sink 0.05")
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute("select stellwerk.start_run(%s) from generate_series(1, 40)", [slug]).fetchall()
    runs = {row[0] for row in rows}
    for _ in range(3):
        workers = [spawn_worker(dsn=dsn, SINK=str(sink), CONCURRENCY="5") for _ in range(2)]
        before = len(read_sink(sink))
        wait_until(lambda before=before: len(read_sink(sink)) > before + 25, 60, "some work")
        for worker in workers:
            worker.process.kill()
        own_server._process.terminate(signal.SIGQUIT)
        for worker in workers:
            worker.process.wait()
        own_server._process.start()
    done = len({effect["key"] for effect in read_sink(sink)})
    assert 0 < done < 120
    spawn_worker(dsn=dsn, SINK=str(sink))
    began = time.monotonic()
    wait_until(lambda: unfinished(dsn) == 0, 60, "the end of all runs")
    print(f"{done} of 120 steps had happened; the rest took {time.monotonic() - began:.1f} s")
    with psycopg.connect(dsn) as connection:
        assert problems(runs, NODES, read_steps(connection), read_sink(sink)) == []
