"""Workers as processes: killed, stopped, cut off, and a database that goes away and comes back."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import servers
from worker.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.one_server]


def seconds_until(wait_until: Any, holds: Any, seconds: float, what: str) -> float:
    began = time.monotonic()
    wait_until(holds, seconds, what)
    return time.monotonic() - began


def test_a_killed_workers_steps_are_taken_over_within_ten_seconds(
    chain, engine, spawn_worker, state_of, steps_of, wait_until, db, tmp_path
) -> None:
    sink = tmp_path / "sink"
    slug = chain("long", "sink 60", timeout="PT2M")
    first = spawn_worker(SINK=str(sink))
    runs = [engine.start_run(slug) for _ in range(5)]
    wait_until(lambda: sink.exists() and len(sink.read_text().splitlines()) == 5)
    spawn_worker(SINK=str(sink))
    wait_until(lambda: db.execute("select count(*) from stellwerk.worker").fetchone() == (2,))
    first.kill()
    took = seconds_until(wait_until, lambda: len(sink.read_text().splitlines()) == 10, 15, "taking over")
    print(f"taken over after {took:.1f} s")
    assert took <= 10
    wait_until(lambda: {state_of(run_id) for run_id in runs} == {"completed"})
    assert {step["attempt"] for run_id in runs for step in steps_of(run_id)} == {2}
    assert {step["failures"] for run_id in runs for step in steps_of(run_id)} == {0}


def test_a_step_that_kills_its_worker_is_ended_after_five_claims(
    chain, engine, spawn_worker, state_of, steps_of, wait_until
) -> None:
    chain("fine", "ok")
    poison = engine.start_run(chain("poison", "die"))
    workers = [spawn_worker()]
    began = time.monotonic()
    while state_of(poison) != "failed":
        assert time.monotonic() - began < 90
        if not workers[-1].running:
            workers.append(spawn_worker())
        time.sleep(0.05)
    (step,) = steps_of(poison)
    assert step["error"]["class"] == "worker_lost"
    assert step["attempt"] == 5
    assert sum(not worker.running for worker in workers) == 5
    fine = engine.start_run("fine")
    wait_until(lambda: state_of(fine) == "completed")


def test_sigterm_lets_running_steps_end_and_begins_no_other(
    chain, engine, spawn_worker, state_of, steps_of, wait_until, db
) -> None:
    slug = chain("drained", "sleep 1.5", "ok")
    worker = spawn_worker(CONCURRENCY="3")
    runs = [engine.start_run(slug) for _ in range(8)]
    running = "select count(*) from stellwerk.step where state = 'running'"
    wait_until(lambda: db.execute(running).fetchone() == (3,))
    worker.terminate()
    assert worker.process.wait(15) == 0, worker.said
    states = [step["state"] for run_id in runs for step in steps_of(run_id) if step["node_id"] == "w1"]
    assert states.count("completed") == 3
    assert states.count("queued") == 5
    assert db.execute("select count(*) from stellwerk.worker").fetchone() == (0,)
    spawn_worker()
    wait_until(lambda: {state_of(run_id) for run_id in runs} == {"completed"}, 15)
    assert {step["attempt"] for run_id in runs for step in steps_of(run_id)} == {1}


def test_what_does_not_end_in_time_is_given_back(chain, engine, spawn_worker, steps_of, wait_until, db) -> None:
    run_id = engine.start_run(chain("stubborn", "sleep 60", timeout="PT2M"))
    worker = spawn_worker(GRACE="1")
    wait_until(lambda: [step["state"] for step in steps_of(run_id)] == ["running"])
    worker.terminate()
    assert worker.process.wait(10) == 0, worker.said
    assert [step["state"] for step in steps_of(run_id)] == ["queued"]
    assert db.execute("select outcome from stellwerk.step_attempt").fetchall() == [("released",)]


def test_a_half_open_connection_is_noticed_within_fifteen_seconds(
    dsn, chain, engine, spawn_worker, state_of, wait_until, db
) -> None:
    slug = chain("cut", "ok")
    proxy = Proxy(dsn)
    worker = spawn_worker(dsn=proxy.dsn)
    before = engine.start_run(slug)
    wait_until(lambda: state_of(before) == "completed")
    assert proxy.freeze() >= 3
    frozen = time.monotonic()
    run_id = engine.start_run(slug)
    took = seconds_until(wait_until, lambda: state_of(run_id) == "completed", 25, "noticing")
    print(f"a run is through {took:.1f} s after everything froze")
    assert took <= 15
    # A call that happens to be under way when the connections freeze notices before the listener does, which has no more
    # time for that.
    wait_until(lambda: "is lost" in worker.said, 15 - took)

    def goes_through_at_once() -> bool:
        again = engine.start_run(slug)
        return seconds_until(wait_until, lambda: state_of(again) == "completed", 10, "the next run") < 3

    wait_until(goes_through_at_once, 10, "that no connection is missed any more")
    print(f"and at once again after {time.monotonic() - frozen:.1f} s")
    proxy.close()


@pytest.fixture
def own_server() -> Iterator[servers.Server]:
    """A server that may be shot."""
    version, folder = next(iter(servers.found().items()))
    server = servers.Server(version, folder)
    yield server
    server.stop()


def test_a_restart_of_the_database_needs_no_restart_of_the_worker(
    own_server: servers.Server, spawn_worker, wait_until, tmp_path: Path
) -> None:
    dsn = own_server.database()
    slug, start = "restarted", "select stellwerk.start_run(%s)"
    state = "select state from stellwerk.run where run_id = %s"

    def one(statement: str, *values: Any) -> Any:
        with psycopg.connect(dsn, autocommit=True) as connection:
            row = connection.execute(statement, values).fetchone()
            return row[0] if row else None

    publish(dsn, slug)
    worker = spawn_worker(dsn=dsn)
    first = one(start, slug)
    wait_until(lambda: one(state, first) == "completed")
    for mode, sign in (("immediate", signal.SIGQUIT), ("fast", signal.SIGINT)):
        accepts = restart(own_server, sign)
        run_id = one(start, slug)
        wait_until(lambda run_id=run_id: one(state, run_id) == "completed", 15)
        took = time.monotonic() - accepts
        print(f"{mode}: a run is through {took:.1f} s after the server accepts again")
        assert took <= 5
        assert worker.running, worker.said


def restart(server: servers.Server, sign: signal.Signals, pause: float = 2.0) -> float:
    """Stop the server in a way, wait, and start it; answers when it accepted connections again."""
    server._process.terminate(sign)
    time.sleep(pause)
    server._process.start()
    return time.monotonic()


def publish(dsn: str, slug: str) -> None:
    """A workflow of two worker steps."""
    from stellwerk.definition.compile import compile_workflow
    from stellwerk.engine import Engine

    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {"id": "w1", "type": "action.fonio_call", "config": {}},
        {"id": "w2", "type": "action.fonio_call", "config": {}},
    ]
    compiled = compile_workflow({"slug": slug, "name": slug, "steps": steps})
    with psycopg.connect(dsn, autocommit=True) as connection:
        engine = Engine(connection)
        engine.save_workflow(compiled.document, compiled.plan, [])
        engine.publish_workflow(slug, None)
