"""Migrating, undoing and moving the same runs at the same time, on two connections."""

from __future__ import annotations

import threading

import psycopg
import pytest
from database.helpers import FAILURE, Worker, call, run, start, states, transform
from database.migrating import version

# -- on two connections ---------------------------------------------------------------------------------------------------


def test_a_run_that_another_transaction_moves_is_passed_over(db, dsn, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask"), transform("last", "old")))
    busy, free = start(db, "offer"), start(db, "offer")
    run_all(db)
    taken = sorted(worker.begin(), key=lambda each: each["run_id"])
    make_workflow(version(call("ask"), transform("last", "new")))
    with worker.connection.transaction():
        worker.end(taken[0])
        verdicts = migrate(dry_run=False)
    assert verdicts[free] == ("ok", None)
    assert verdicts[busy] == ("blocked", "another transaction moves the run at this moment; ask again")
    assert migrate(dry_run=False) == {}
    worker.end(taken[1])
    assert [run(db, each)["output"] for each in (busy, free)] == ["old", "new"]


def test_a_completion_waits_for_the_migration_and_goes_on_in_the_new_version(
    db, dsn, make_workflow, run_all, worker, wait_until
):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    answers = []
    with psycopg.connect(dsn) as mover:
        verdict = mover.execute(
            "select verdict from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)"
        ).fetchall()
        assert verdict == [("ok",)]
        finishing = threading.Thread(target=lambda: answers.append(worker.end(*taken)))
        finishing.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [worker.connection.info.backend_pid]
            ).fetchone()
        )
        mover.commit()
    finishing.join()
    assert answers[0]["accepted"] == 1
    assert (run(db, run_id)["version"], run(db, run_id)["output"]) == (2, "new")


def test_a_sign_of_life_and_a_migration_do_not_wait_for_each_other(db, dsn, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask")))
    held, free = start(db, "offer"), start(db, "offer")
    run_all(db)
    one, two = sorted(worker.begin(), key=lambda taken: taken["run_id"])
    make_workflow(version(call("ask"), transform("last", 1)))
    with worker.connection.transaction():
        worker.connection.execute(
            "select stellwerk.extend_leases(%s, 1, array[%s]::bigint[], array[%s]::bigint[], array[1])",
            [worker.worker_id, one["run_id"], one["step_id"]],
        )
        verdicts = migrate(dry_run=False)
    assert {each: verdicts[each][0] for each in (held, free)} == {held: "blocked", free: "ok"}
    assert migrate(dry_run=False) == {held: ("ok", None)}
    worker.end(one, two)
    assert {run(db, each)["output"] for each in (held, free)} == {1}


@pytest.mark.parametrize("ends_with", ["output", "error"])
def test_a_result_that_comes_first_keeps_its_run_on_the_old_version_until_asked_again(
    db, engine, make_workflow, run_all, worker, ends_with
):
    retry = {"max_attempts": 2, "interval": "PT0S"}
    make_workflow(version(call("ask", retry=retry), call("next"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone", retry=retry), call("next"), transform("last", "new")))
    with worker.connection.transaction():
        worker.end(*taken, **({"output": {}} if ends_with == "output" else {"error": FAILURE}))
        [row] = engine.migrate_runs("offer", 1, 2, dry_run=False)
        assert (row["verdict"], row["migration_id"]) == ("blocked", None)
    assert db.execute("select moved, blocked from stellwerk.migration_progress").fetchall() == [(0, 1)]
    # Once more through those that were left: the same migration.
    [row] = engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=1)
    assert (row["verdict"], row["migration_id"]) == ("ok", 1)
    assert db.execute("select moved, blocked from stellwerk.migration_progress").fetchall() == [(1, 0)]
    while worker.queued():
        worker.end(*worker.begin())
    assert (run(db, run_id)["output"], run(db, run_id)["version"]) == ("new", 2)


def test_a_cancellation_waits_for_the_migration(db, dsn, make_workflow, run_all, wait_until):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("phone"), transform("last", 1)))
    with psycopg.connect(dsn) as mover, psycopg.connect(dsn, autocommit=True) as other:
        mover.execute("select from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)")
        cancelling = threading.Thread(target=other.execute, args=("select stellwerk.cancel_run(%s)", [run_id]))
        cancelling.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [other.info.backend_pid]
            ).fetchone()
        )
        mover.commit()
        cancelling.join()
    assert (run(db, run_id)["state"], run(db, run_id)["version"]) == ("cancelled", 2)
    assert states(db, run_id) == {"start": "completed", "phone": "cancelled"}


def test_a_result_waits_for_an_undo_and_goes_on_in_the_old_version(
    db, dsn, engine, make_workflow, run_all, worker, wait_until
):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    answers = []
    with psycopg.connect(dsn) as undoer:
        assert undoer.execute("select verdict from stellwerk.undo_migration(1, dry_run => false)").fetchall() == [
            ("ok",)
        ]
        finishing = threading.Thread(target=lambda: answers.append(worker.end(*taken)))
        finishing.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [worker.connection.info.backend_pid]
            ).fetchone()
        )
        undoer.commit()
    finishing.join()
    assert answers[0]["accepted"] == 1
    assert (run(db, run_id)["version"], run(db, run_id)["output"]) == (1, "old")


def test_a_migration_is_not_continued_while_it_is_being_undone(db, dsn, engine, make_workflow, run_all, wait_until):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(2)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False, batch=1)
    states_seen = []

    def go_on(connection):
        try:
            connection.execute("select from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)")
        except psycopg.Error as error:
            states_seen.append(error.sqlstate)

    with psycopg.connect(dsn) as undoer, psycopg.connect(dsn, autocommit=True) as other:
        undoer.execute("select from stellwerk.undo_migration(1, dry_run => false)")
        continuing = threading.Thread(target=go_on, args=(other,))
        continuing.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [other.info.backend_pid]
            ).fetchone()
        )
        undoer.commit()
        continuing.join()
    assert states_seen == ["SW003"]
    assert [run(db, each)["version"] for each in runs] == [1, 1]


def test_an_undo_passes_over_a_run_that_is_being_moved(db, engine, make_workflow, run_all, worker):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    busy = {
        "run_id": run_id,
        "verdict": "blocked",
        "reason": "another transaction moves the run at this moment; ask again",
    }
    with worker.connection.transaction():
        worker.connection.execute(
            "select stellwerk.extend_leases(%s, 1, array[%s]::bigint[], array[%s]::bigint[], array[1])",
            [worker.worker_id, run_id, taken[0]["step_id"]],
        )
        assert engine.undo_migration(1, dry_run=False) == [busy], "a sign of life holds the step"
    with worker.connection.transaction():
        worker.end(*taken)
        assert engine.undo_migration(1, dry_run=False) == [busy], "the result holds the run"
    assert engine.undo_migration(1, dry_run=False)[0]["reason"] == "the run has ended as completed"
    assert run(db, run_id)["output"] == "new"


def test_pumping_and_migrating_at_once_moves_every_run_once(db, dsn, engine, make_workflow, run_all):
    make_workflow(version(transform("a", 1), call("ask"), transform("last", "old")))
    runs = [start(db, "offer") for _ in range(40)]
    make_workflow(version(transform("b", 1), call("phone"), transform("last", "{{ steps.b.output }}")))
    stop = threading.Event()

    def pumping():
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("select stellwerk.pump(3)")

    pumps = [threading.Thread(target=pumping) for _ in range(2)]
    for each in pumps:
        each.start()
    try:
        for _ in range(100):
            engine.migrate_runs("offer", 1, 2, dry_run=False, batch=5, continue_with=None)
            if db.execute("select count(*) from stellwerk.run where version = 1").fetchone() == (0,):
                break
    finally:
        stop.set()
        for each in pumps:
            each.join()
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin())
    worker.connection.close()
    assert {(run(db, each)["version"], run(db, each)["output"]) for each in runs} == {(2, 1)}
    mixed = db.execute(
        "select run_id from stellwerk.step_timeline where (version = 1) <> (node_id in ('a', 'ask')) and node_id <> 'start'"
    ).fetchall()
    assert mixed == []
