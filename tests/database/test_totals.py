"""Totals for monitoring only grow, whatever becomes of the runs that they counted."""

from __future__ import annotations

from typing import Any

from database.helpers import START, Connection, Worker, call, document, start, view


def totals(db: Connection) -> dict[str, Any]:
    (row,) = view(db, "select * from stellwerk.run_totals()")
    return row


def hours_ago(db: Connection, hours: int) -> None:
    for column in ("created_at", "started_at", "ended_at"):
        db.execute(f"update stellwerk.run set {column} = {column} - interval '{hours} hours'")


def fail_one(db: Connection, worker: Worker, run_all: Any) -> int:
    run_id = start(db, "fragile")
    run_all(db)
    worker.end(*worker.begin(), error={"class": "busy", "message": "busy", "retryable": False})
    run_all(db)
    return run_id


def fragile(make_workflow: Any) -> None:
    make_workflow(document("fragile", [START, call("phone", retry={"max_attempts": 1})], ["start -> phone"]))


def test_a_failed_run_that_is_tried_again_stays_counted(
    db: Connection, dsn: str, make_workflow: Any, run_all: Any
) -> None:
    fragile(make_workflow)
    worker = Worker(dsn)
    run_id = fail_one(db, worker, run_all)
    assert totals(db)["failed"] == 1
    db.execute("select stellwerk.retry_run(%s)", [run_id])
    run_all(db)
    assert totals(db)["failed"] == 1
    worker.end(*worker.begin())
    run_all(db)
    assert (totals(db)["failed"], totals(db)["completed"]) == (1, 1)
    worker.vanish()


def test_totals_outlast_the_hours_and_the_runs(db: Connection, dsn: str, make_workflow: Any, run_all: Any) -> None:
    fragile(make_workflow)
    worker = Worker(dsn)
    fail_one(db, worker, run_all)
    for _ in range(3):
        start(db, "fragile")
    run_all(db)
    worker.end(*worker.begin()[1:])
    run_all(db)
    before = totals(db)
    assert (before["completed"], before["failed"]) == (2, 1)
    assert sum(before["durations"].values()) == 2
    hours_ago(db, 5)
    db.execute("select stellwerk.keep_statistics(1)")
    assert view(db, "select completed, failed, live from stellwerk.run_hour") == [
        {"completed": 2, "failed": 1, "live": 1}
    ]
    assert totals(db) == before
    # The run that outlived its hour is counted when the hour is counted anew.
    worker.end(*worker.begin(worker_refs(db)), output={})
    run_all(db)
    db.execute("select stellwerk.write_hour(1, (select hour from stellwerk.run_hour))")
    assert (totals(db)["completed"], sum(totals(db)["durations"].values())) == (3, 3)
    db.execute("delete from stellwerk.step")
    db.execute("delete from stellwerk.run")
    db.execute("select stellwerk.write_hour(1, (select hour from stellwerk.run_hour))")
    db.execute("select stellwerk.keep_statistics(1, interval '1 hour')")
    assert view(db, "select from stellwerk.run_hour") == []
    assert (totals(db)["completed"], totals(db)["failed"]) == (3, 1)
    worker.vanish()


def worker_refs(db: Connection) -> list[tuple[int, int]]:
    db.execute("update stellwerk.step set state = 'queued', lease_until = null where state = 'running'")
    return db.execute("select run_id, step_id from stellwerk.step where state = 'queued'").fetchall()


def test_reading_totals_of_a_database_that_rests_writes_nothing(
    db: Connection, dsn: str, make_workflow: Any, run_all: Any
) -> None:
    fragile(make_workflow)
    worker = Worker(dsn)
    fail_one(db, worker, run_all)
    totals(db)
    before = db.execute("select xmin, ctid, told from stellwerk.run_total").fetchall()
    assert before[0][2] == {"failed": 1, "cancelled": 0}
    totals(db)
    assert db.execute("select xmin, ctid, told from stellwerk.run_total").fetchall() == before
    worker.vanish()
