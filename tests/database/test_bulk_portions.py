"""Bulk operations are carried out in portions, by whoever is there, and tell how far they are."""

from __future__ import annotations

import psycopg
import pytest
from database.bulk import counts, operation, order, outcomes, state_of, tick, work
from database.helpers import PERMANENT, Worker, start
from psycopg.rows import dict_row

# -- in portions ------------------------------------------------------------------------------------------------------


def test_a_run_that_moved_on_meanwhile_is_skipped_and_says_why(db, waiting, run_all, wait_until):
    number = order(db, "cancel", {"workflow": "waits"})
    db.execute("select stellwerk.signal('paid', 'k4')")
    run_all(db)
    row = work(db, number, wait_until)
    assert counts(row) == {"total": 10, "done": 9, "skipped": 1, "failed": 0}
    error = db.execute("select run_id, error from stellwerk.bulk_operation_run where outcome = 'skipped'").fetchone()
    assert error == (waiting[4], {"class": "SW003", "message": f"run {waiting[4]} is completed"})


def test_the_rate_is_kept(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=2)
    assert tick(db)["bulk"] == 0
    set_back(db, number, 1.1)
    answer = tick(db)
    assert answer["bulk"] == 2
    assert 0 < answer["next_due_seconds"] <= 0.5
    assert tick(db)["bulk"] == 0
    # What was not used for long is not made up for in one burst: ten seconds count at most.
    set_back(db, number, 3600)
    assert tick(db)["bulk"] == 8
    assert operation(db, number)["state"] == "completed"


def set_back(db, number, seconds):
    db.execute(
        "update stellwerk.bulk_operation set worked_at = worked_at - make_interval(secs => %s) where operation_id = %s",
        (seconds, number),
    )


def test_an_operation_can_be_paused_and_goes_on_where_it_was(db, waiting, wait_until):
    number = order(db, "cancel", {"workflow": "waits"}, rate=4)
    set_back(db, number, 1.1)
    assert tick(db)["bulk"] == 4
    db.execute("select stellwerk.pause_bulk_operation(%s)", (number,))
    set_back(db, number, 5)
    assert tick(db)["bulk"] == 0
    assert operation(db, number)["state"] == "paused"
    assert db.execute("select stellwerk.seconds_to_next_bulk_portion()").fetchone() == (None,)
    db.execute("select stellwerk.resume_bulk_operation(%s)", (number,))
    assert tick(db)["bulk"] == 0
    set_back(db, number, 5)
    row = work(db, number, wait_until)
    assert counts(row) == {"total": 10, "done": 10, "skipped": 0, "failed": 0}
    assert [entry["state"] for entry in row["history"]] == ["draft", "running", "paused", "running", "completed"]


def test_a_stopped_operation_leaves_the_rest_as_it_is(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=4)
    set_back(db, number, 1.1)
    tick(db)
    db.execute("select stellwerk.cancel_bulk_operation(%s, 'enough')", (number,))
    row = operation(db, number)
    assert (row["state"], row["reason"], row["ended_by"]) == ("cancelled", "enough", "db:" + db.info.user)
    set_back(db, number, 60)
    tick(db)
    assert state_of(db, waiting) == ["cancelled"] * 4 + ["waiting"] * 6
    assert list(outcomes(db, number).values()) == ["done"] * 4 + [None] * 6
    for verb in ("pause", "resume", "cancel"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(
                psycopg.sql.SQL("select stellwerk.{}(%s)").format(psycopg.sql.Identifier(f"{verb}_bulk_operation")),
                (number,),
            )
        assert caught.value.sqlstate == "SW003"


def test_an_unknown_operation_is_told(db):
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.pause_bulk_operation(7)")
    assert caught.value.sqlstate == "SW007"


@pytest.fixture
def trouble(db, ring, run_all, dsn):
    """Thirty failed runs, of which every second cannot be sent on."""
    worker = Worker(dsn)
    run_ids = [start(db, ring) for _ in range(30)]
    run_all(db)
    worker.end(*worker.begin(), error=PERMANENT)
    db.execute("""
        create function public.refuse() returns trigger language plpgsql as $$
        begin raise exception 'not this one'; end $$""")
    db.execute("""
        create trigger refuse before update on stellwerk.run for each row
        when (old.run_id % 2 = 0 and old.state = 'failed' and new.state <> 'failed') execute function public.refuse()""")
    return run_ids


def test_a_run_at_which_it_raises_does_not_stop_the_others(db, trouble, wait_until):
    number = order(db, "retry", {"workflow": "ring"})
    row = work(db, number, wait_until)
    assert (row["state"], counts(row)) == ("completed", {"total": 30, "done": 15, "skipped": 0, "failed": 15})
    assert state_of(db, trouble) == ["failed" if run_id % 2 == 0 else "running" for run_id in trouble]
    assert db.execute(
        "select distinct error from stellwerk.bulk_operation_run where outcome = 'failed'"
    ).fetchall() == [({"class": "P0001", "message": "not this one"},)]


def test_too_many_failures_stop_it(db, trouble, wait_until):
    number = order(db, "retry", {"workflow": "ring"}, stop_on_error=0.3)
    row = work(db, number, wait_until)
    assert (row["state"], row["failed"]) == (
        "stopped",
        7,
    )  # of fewer than 20 runs, none counts for more than a twentieth
    assert row["reason"] == f"7 of {row['done'] + 7} runs failed, more than the share of 0.3"
    assert list(outcomes(db, number).values()).count(None) == 30 - row["done"] - 7
    with pytest.raises(psycopg.Error):
        db.execute("select stellwerk.resume_bulk_operation(%s)", (number,))


def test_runs_that_somebody_holds_have_their_turn_later(db, dsn, waiting):
    number = order(db, "cancel", {"workflow": "waits"})
    with psycopg.connect(dsn) as other:
        other.execute("select stellwerk.lock_run(1, %s)", (waiting[3],))
        assert tick(db)["bulk"] == 9
        assert tick(db)["bulk"] == 0
        row = operation(db, number)
        assert (row["state"], row["done"]) == ("running", 9)
    tick(db)
    if operation(db, number)["state"] == "running":
        tick(db)
    assert operation(db, number)["state"] == "completed"
    assert state_of(db, waiting) == ["cancelled"] * 10


def test_two_sessions_do_not_work_on_one_operation_at_once(db, dsn, waiting):
    number = order(db, "cancel", {"workflow": "waits"})
    with psycopg.connect(dsn) as other:
        assert other.execute("select stellwerk.work_bulk_operations(1)").fetchone() == (10,)
        assert tick(db)["bulk"] == 0
        other.rollback()  # as if that session had been killed
    assert state_of(db, waiting) == ["waiting"] * 10
    assert tick(db)["bulk"] == 10
    assert operation(db, number)["state"] == "completed"


def test_a_killed_session_loses_nothing_and_does_nothing_twice(db, dsn, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=5)
    set_back(db, number, 1.1)
    assert tick(db)["bulk"] == 5
    set_back(db, number, 2)
    victim = psycopg.connect(dsn)
    pid = victim.info.backend_pid
    assert victim.execute("select stellwerk.tick()").fetchone()[0]["bulk"] == 5
    db.execute("select pg_terminate_backend(%s)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        victim.commit()
    assert counts(operation(db, number)) == {"total": 10, "done": 5, "skipped": 0, "failed": 0}
    while operation(db, number)["state"] == "running":
        set_back(db, number, 2)
        tick(db)
    assert counts(operation(db, number)) == {"total": 10, "done": 10, "skipped": 0, "failed": 0}
    ended = db.execute("select count(*) from stellwerk.run where state = 'cancelled'").fetchone()
    assert ended == (10,)


def test_a_large_operation_goes_in_portions(db, waits, run_all):
    db.execute(
        "select count(stellwerk.start_run('waits', jsonb_build_object('key', n::text))) from generate_series(1, 1200) n"
    )
    run_all(db)
    number = order(db, "pause", {"workflow": "waits"})
    first = tick(db)["bulk"]
    assert 0 < first <= 500
    while operation(db, number)["state"] == "running":
        assert tick(db)["bulk"] > 0
    assert counts(operation(db, number)) == {"total": 1200, "done": 1200, "skipped": 0, "failed": 0}
    assert db.execute("select count(*) from stellwerk.run where state = 'paused'").fetchone() == (1200,)


def test_a_worker_carries_operations_out_without_waiting_for_its_next_poll(db, waiting):
    order(db, "cancel", {"workflow": "waits"})
    assert db.execute("select stellwerk.pump()").fetchone()[0]["next_due_seconds"] == pytest.approx(0.01)


def test_every_order_is_in_the_audit_log(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, dry_run=True)
    for verb in ("resume", "pause", "cancel"):
        db.execute(
            psycopg.sql.SQL("select stellwerk.{}(%s)").format(psycopg.sql.Identifier(f"{verb}_bulk_operation")),
            (number,),
        )
    rows = db.execute(
        "select action, before ->> 'state' from stellwerk.audit_log"
        " where subject = 'bulk_operation' and subject_id = %s order by audit_id",
        (str(number),),
    ).fetchall()
    assert rows == [
        ("start_bulk_operation", None),
        ("resume_bulk_operation", "draft"),
        ("pause_bulk_operation", "running"),
        ("cancel_bulk_operation", "paused"),
    ]


# -- people -----------------------------------------------------------------------------------------------------------


def test_progress_is_a_view(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=4)
    set_back(db, number, 1.1)
    tick(db)
    with db.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select * from stellwerk.bulk_progress").fetchone()
    assert (row["operation_id"], row["handled"], row["total"], float(row["share"]), row["rate"]) == (
        number,
        4,
        10,
        0.4,
        4,
    )


def test_another_tenants_runs_and_operations_are_out_of_reach(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, dry_run=True)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    assert operation(db, order(db, "cancel", {"state": "waiting"}))["total"] == 0
    assert operation(db, order(db, "cancel", {"run_ids": waiting}))["total"] == 0
    assert (
        db.execute("select operation_id from stellwerk.bulk_progress where operation_id = %s", (number,)).fetchone()
        is None
    )
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.resume_bulk_operation(%s)", (number,))
    assert caught.value.sqlstate == "SW007"
