"""Sleeping and waking: promptly with one worker and with four, and in peace while an application keeps a transaction open."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Db = psycopg.Connection[Any]


def calls_of(db: Db, name: str) -> int:
    row = db.execute(
        "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = %s", [name]
    ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def counted(dsn: str, db: Db) -> Db:
    """The server counts function calls in sessions that begin from now on."""
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    db.execute(
        psycopg.sql.SQL("alter database {} set track_functions = 'pl'").format(psycopg.sql.Identifier(str(name)))
    )
    return db


def took(wait_until: Callable[..., None], holds: Callable[[], object], seconds: float = 10.0) -> float:
    began = time.monotonic()
    wait_until(holds, seconds)
    return time.monotonic() - began


@pytest.mark.parametrize("workers", [1, 4])
def test_a_sleeping_worker_is_woken(workers, chain, engine, start_worker, state_of, wait_until, db) -> None:
    for _ in range(workers):
        start_worker()
    slug = chain("bell", "ok")
    sleeper = "select count(*) from pg_locks where locktype = 'advisory' and objsubid = 1 and mode = 'ExclusiveLock'"
    wait_until(lambda: db.execute(sleeper).fetchone() == (2,))  # the duty and the bell, held by one worker
    slow = 0
    for _ in range(8):
        time.sleep(0.1)
        run_id = engine.start_run(slug)
        slow += took(wait_until, lambda run_id=run_id: state_of(run_id) == "completed") > 1.5
    assert slow <= 1  # a poll would take seconds


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4])
def test_an_open_transaction_of_the_application_harms_nobody(
    workers, dsn, chain, engine, start_worker, state_of, wait_until, counted, request
) -> None:
    """What was written in it is processed when it commits; what others write meanwhile at once; and nobody spins."""
    seconds = 60.0 if request.config.getoption("--full", default=False) else 7.0
    slug = chain("bell", "ok")
    with psycopg.connect(dsn) as application:
        # Written while no worker sleeps, so without a ring; the transaction stays open.
        row = application.execute("select stellwerk.start_run(%s)", [slug]).fetchone()
        assert row is not None
        for _ in range(workers):
            start_worker()
        time.sleep(1.0)
        before, began = calls_of(counted, "pump"), time.monotonic()
        slow = 0
        while time.monotonic() - began < seconds:
            run_id = engine.start_run(slug)
            slow += took(wait_until, lambda run_id=run_id: state_of(run_id) == "completed") > 1.5
            time.sleep(0.5)
        runs = seconds / 0.5
        assert slow <= 1
        assert state_of(row[0]) == "unknown"
        application.commit()
        assert took(wait_until, lambda: state_of(row[0]) == "completed") < 2.5
    time.sleep(1.5)
    assert calls_of(counted, "pump") - before < 6 * runs + workers * (seconds / 3 + 5)


@pytest.mark.slow
@pytest.mark.one_server
def test_under_load_nobody_has_to_ring(dsn, chain, engine, start_worker, wait_until, db) -> None:
    """While there is much to do the duty worker holds no bell, so that commits need not notify."""
    slug = chain("busy", "ok")
    start_worker()
    heard = 0
    with psycopg.connect(dsn, autocommit=True) as ear:
        ear.execute("listen stellwerk")
        for _ in range(400):
            engine.start_run(slug)
        heard = len(list(ear.notifies(timeout=0.5)))
    wait_until(lambda: db.execute("select count(*) from stellwerk.run where state <> 'completed'").fetchone() == (0,))
    assert heard < 400


@pytest.mark.slow
@pytest.mark.one_server
def test_the_duty_passes_on_when_its_worker_is_killed(chain, engine, spawn_worker, state_of, wait_until, db) -> None:
    duty = "select count(*) from pg_locks where locktype = 'advisory' and objsubid = 1 and mode = 'ExclusiveLock'"
    first = spawn_worker()
    wait_until(lambda: db.execute(duty).fetchone() == (2,))
    spawn_worker()
    wait_until(lambda: db.execute("select count(*) from stellwerk.worker").fetchone() == (2,))
    first.kill()
    run_id = engine.start_run(chain("after", "ok"))
    assert took(wait_until, lambda: state_of(run_id) == "completed") < 8
    wait_until(lambda: db.execute(duty).fetchone() == (2,))
    second = engine.start_run("after")
    assert took(wait_until, lambda: state_of(second) == "completed") < 2
