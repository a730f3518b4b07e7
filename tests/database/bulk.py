"""Small steps that the tests of bulk operations share."""

from __future__ import annotations

from database.helpers import run
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb


def order(db, action, filter_, **named):
    return db.execute(
        "select stellwerk.start_bulk_operation(%s, %s, dry_run => %s, rate => %s, stop_on_error => %s, options => %s)",
        (
            action,
            Jsonb(filter_),
            named.get("dry_run", False),
            named.get("rate"),
            named.get("stop_on_error"),
            Jsonb(named.get("options", {})),
        ),
    ).fetchone()[0]


def operation(db, operation_id):
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from stellwerk.bulk_operation where operation_id = %s", (operation_id,)
        ).fetchone()


def tick(db):
    return db.execute("select stellwerk.tick()").fetchone()[0]


def work(db, operation_id, wait_until):
    """Tick until it has ended."""
    wait_until(lambda: tick(db) and operation(db, operation_id)["ended_at"], what="the end of the bulk operation")
    return operation(db, operation_id)


def outcomes(db, operation_id):
    return dict(
        db.execute(
            "select run_id, outcome from stellwerk.bulk_operation_run where operation_id = %s order by run_id",
            (operation_id,),
        ).fetchall()
    )


def state_of(db, run_ids):
    return [run(db, run_id)["state"] for run_id in run_ids]


def counts(row):
    return {name: row[name] for name in ("total", "done", "skipped", "failed")}
