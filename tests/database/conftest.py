"""Fixtures that several of the tests of the database share."""

from __future__ import annotations

import pytest
from database.helpers import START, Worker, call, document, node, start, transform
from database.watching import ORDERS, on_row


@pytest.fixture
def orders(db, make_workflow):
    """A table and a published workflow; each test sets its own watch."""
    make_workflow(on_row())
    db.execute(ORDERS)
    return db


@pytest.fixture
def migrate(engine):
    """Verdicts by run: (verdict, reason)."""

    def call_it(slug="offer", a=1, b=2, node_map=None, **more):
        return {
            row["run_id"]: (row["verdict"], row["reason"]) for row in engine.migrate_runs(slug, a, b, node_map, **more)
        }

    return call_it


@pytest.fixture
def move(migrate):
    """As migrate, and the runs that can be are moved."""

    def call_it(a=1, b=2, node_map=None, slug="offer", dry_run=False):
        return migrate(slug, a, b, node_map, dry_run=dry_run)

    return call_it


@pytest.fixture
def worker(dsn):
    worker = Worker(dsn)
    yield worker
    worker.connection.close()


@pytest.fixture
def waits(make_workflow):
    """A workflow whose runs wait for a signal with their own key."""
    return make_workflow(
        document(
            "waits",
            [
                START,
                node("hold", "logic.wait", {"event": "paid", "correlation": "{{ trigger.payload.key }}"}),
                transform("end", {"got": "{{ steps.hold.output }}"}),
            ],
            ["start -> hold", "hold -> end"],
        )
    )


@pytest.fixture
def ring(make_workflow):
    """A workflow with one worker step of three attempts."""
    return make_workflow(document("ring", [START, call("ring"), transform("end", 1)], ["start -> ring", "ring -> end"]))


@pytest.fixture
def waiting(db, waits, run_all):
    """Ten runs that wait."""
    run_ids = [start(db, waits, {"key": f"k{number}", "group": number % 2}) for number in range(10)]
    run_all(db)
    return run_ids
