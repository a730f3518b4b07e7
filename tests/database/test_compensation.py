"""What was done is undone, the latest first, before a run ends as failed or cancelled."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import (
    FAILURE,
    PERMANENT,
    START,
    Worker,
    call,
    document,
    node,
    run,
    start,
    states,
    steps,
    transform,
)

TRIP = document(
    "trip",
    [
        START,
        call("hotel", compensate="no_hotel"),
        call("flight", compensate="no_flight"),
        call("pay"),
        transform("no_hotel", "{{ steps.hotel.output }}"),
        transform("no_flight", "{{ steps.flight.output }}"),
    ],
    ["start -> hotel", "hotel -> flight", "flight -> pay"],
)


def order(db, run_id, *nodes):
    """The given nodes' steps in the order in which they ended, with outputs."""
    rows = db.execute(
        "select node_id, output from stellwerk.step where run_id = %s and node_id = any (%s) and ended_at is not null order by ended_at, step_id",
        (run_id, list(nodes)),
    )
    return rows.fetchall()


def cancel(db, run_id, compensate=True):
    db.execute("select stellwerk.cancel_run(%s, 'because', %s)", (run_id, compensate))


@pytest.fixture
def begun(dsn, db, make_workflow, run_all):
    def begin(value, *outputs):
        run_id = start(db, make_workflow(value))
        run_all(db)
        worker = Worker(dsn)
        for output in outputs:
            worker.end(*worker.begin(), output=output)
            run_all(db)
        return run_id, worker

    return begin


def test_on_failure_in_reverse_order(db, run_all, begun):
    run_id, worker = begun(TRIP, "h1", "f1")
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["error"]["node"], found["live_steps"]) == ("failed", "pay", 0)
    assert order(db, run_id, "no_hotel", "no_flight") == [("no_flight", "f1"), ("no_hotel", "h1")]


def test_on_cancel_if_asked_for(db, run_all, begun):
    run_id, worker = begun(TRIP, "h1", "f1")
    cancel(db, run_id)
    run_all(db)
    assert run(db, run_id)["state"] == "cancelled"
    assert [n for n, _ in order(db, run_id, "no_hotel", "no_flight")] == ["no_flight", "no_hotel"]
    assert worker.begin() == []


def test_not_on_a_plain_cancel(db, run_all, begun):
    run_id, _ = begun(TRIP, "h1")
    cancel(db, run_id, compensate=False)
    run_all(db)
    assert run(db, run_id)["state"] == "cancelled"
    assert order(db, run_id, "no_hotel") == []


def test_not_when_the_run_completes(db, run_all, begun):
    run_id, _ = begun(TRIP, "h1", "f1", "p1")
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert order(db, run_id, "no_hotel", "no_flight") == []


def test_when_logic_stop_fails_the_run(db, run_all, begun):
    value = document(
        "stop",
        [
            START,
            transform("a", 1, compensate="undo"),
            transform("undo", "undone {{ steps.a.output }}"),
            node("s", "logic.stop", {"outcome": "failed", "message": "no"}),
        ],
        ["start -> a", "a -> s"],
    )
    run_id, _ = begun(value)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["message"]) == ("failed", "no")
    assert order(db, run_id, "undo") == [("undo", "undone 1")]


WORKERS = document(
    "workers",
    [START, call("a", compensate="ua"), call("b", compensate="ub"), call("ua"), call("ub"), call("z")],
    ["start -> a", "start -> b", "a -> z"],
)


def test_an_effect_under_way_is_awaited_and_compensated_too(db, run_all, begun):
    run_id, worker = begun(WORKERS)
    taken = {t["node_id"]: t for t in worker.begin()}
    worker.end(taken["a"], output="A")
    cancel(db, run_id)
    assert run(db, run_id)["state"] == "running"  # ending is noted meanwhile
    assert states(db, run_id)["z"] == "cancelled"
    [undo] = worker.begin()
    assert undo["node_id"] == "ua"
    worker.end(taken["b"], output="B")  # was under way; is accepted, sends no token on
    worker.end(undo)
    [undo] = worker.begin()
    assert (undo["node_id"], run(db, run_id)["state"]) == ("ub", "running")
    worker.end(undo)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["live_steps"]) == ("cancelled", 0)


def test_an_effect_under_way_that_fails_need_not_be_compensated(db, run_all, begun):
    run_id, worker = begun(WORKERS)
    taken = {t["node_id"]: t for t in worker.begin()}
    cancel(db, run_id)
    worker.end(taken["a"], error=PERMANENT)
    worker.end(taken["b"], error=FAILURE)  # not tried again either
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["live_steps"]) == ("cancelled", 0)
    assert order(db, run_id, "ua", "ub") == []


def test_a_compensation_is_retried_and_its_failure_is_told_with_the_first(db, run_all, begun):
    value = document(
        "both",
        [
            START,
            call("a", compensate="ua"),
            call("ua", retry={"max_attempts": 2, "interval": "PT0S", "jitter": False}),
            call("x"),
        ],
        ["start -> a", "a -> x"],
    )
    run_id, worker = begun(value, "A")
    worker.end(*worker.begin(), error={**PERMANENT, "message": "first"})
    worker.end(*worker.begin(), error={**FAILURE, "message": "second"})
    db.execute("select stellwerk.tick()")
    worker.end(*worker.begin(), error={**FAILURE, "message": "third"})
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["live_steps"]) == ("failed", 0)
    assert (found["error"]["message"], found["error"]["compensation"]["message"]) == ("first", "third")


def test_every_visit_and_iteration_is_compensated_with_its_own_item(db, run_all, begun):
    value = document(
        "items",
        [
            START,
            node("l", "logic.loop", {"items": ["x", "y", "z"]}),
            transform("a", "{{ item }}", compensate="ua"),
            transform("ua", "no {{ item }}"),
            node("s", "logic.stop", {"outcome": "failed"}),
        ],
        ["start -> l", "l.each -> a", "a -> l", "l.done -> s"],
    )
    run_id, _ = begun(value)
    assert [output for _, output in order(db, run_id, "ua")] == ["no z", "no y", "no x"]


def test_a_compensated_run_is_retried_only_from_an_earlier_node(db, run_all, begun):
    run_id, worker = begun(TRIP, "h1", "f1")
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    with pytest.raises(psycopg.Error, match="undone") as told:
        db.execute("select stellwerk.retry_run(%s)", (run_id,))
    assert told.value.sqlstate == "SW003"
    db.execute("select stellwerk.retry_run(%s, 'hotel')", (run_id,))
    run_all(db)
    for output in ("h2", "f2"):
        worker.end(*worker.begin(), output=output)
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    # Only what was done anew is undone now.
    assert [o for _, o in order(db, run_id, "no_hotel", "no_flight")] == ["f1", "h1", "f2", "h2"]
    assert run(db, run_id)["state"] == "failed"


def test_a_compensated_child_tells_its_parent_when_it_is_over(db, make_workflow, run_all, begun):
    make_workflow({**TRIP, "slug": "child"})
    value = document(
        "parent",
        [START, node("c", "logic.call", {"workflow": "child"}), transform("sorry", "{{ steps.c.error.class }}")],
        ["start -> c", "c.error -> sorry"],
    )
    run_id, worker = begun(value, "h", "f")
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "child_failed")
    child = db.execute("select run_id from stellwerk.run where parent_run_id = %s", (run_id,)).fetchone()[0]
    assert [n for n, _ in order(db, child, "no_hotel", "no_flight")] == ["no_flight", "no_hotel"]


def test_a_run_that_is_being_compensated_can_be_cancelled_at_once(db, run_all, begun):
    run_id, worker = begun(WORKERS)
    taken = {t["node_id"]: t for t in worker.begin()}
    worker.end(taken["a"], output="A")
    cancel(db, run_id)
    cancel(db, run_id, compensate=False)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["live_steps"]) == ("cancelled", 0)
    assert worker.end(taken["b"])["accepted"] == 0
    assert all(s["state"] in {"completed", "cancelled"} for s in steps(db, run_id))
