"""Moved runs that fail: what was done is compensated, and where they failed they are retried."""

from __future__ import annotations

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
from database.migrating import undo, version

# -- compensation ---------------------------------------------------------------------------------------------------------


def compensated(work="work", refund="refund", **more):
    return document(
        "offer",
        [
            START,
            call(work, compensate=refund, retry={"max_attempts": 1}),
            call("next", retry={"max_attempts": 1}),
            transform(refund, "{{ trigger.payload.n }}"),
        ],
        [f"start -> {work}", f"{work} -> next"],
        **more,
    )


def test_what_was_done_in_the_old_version_is_compensated_in_the_new_one(db, make_workflow, run_all, worker, move):
    make_workflow(compensated())
    run_id = start(db, "offer", {"n": 5})
    run_all(db)
    worker.end(*worker.begin())
    make_workflow(compensated("labour", "give_back"))
    assert move(node_map={"refund": "give_back"}) == {run_id: ("ok", None)}
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert run(db, run_id)["state"] == "failed"
    assert [(s["node_id"], s["version"], s["output"]) for s in steps(db, run_id)][-1] == ("give_back", 2, 5)


def test_a_compensation_without_a_counterpart_needs_a_map(db, make_workflow, run_all, worker, move):
    make_workflow(compensated())
    run_id = start(db, "offer", {"n": 5})
    run_all(db)
    worker.end(*worker.begin())
    make_workflow(
        version(call("work"), call("next"), transform("other", 1), node("void", "log.write", {"message": "m"}))
    )
    assert move() == {run_id: ("needs_map", "node refund, which would compensate a completed step, has no counterpart")}
    assert move(node_map={"refund": "other"}) == {run_id: ("ok", None)}


def test_undoing_puts_back_what_would_compensate(db, make_workflow, run_all, worker, move, engine):
    make_workflow(compensated())
    run_id = start(db, "offer", {"n": 5})
    run_all(db)
    worker.end(*worker.begin())
    make_workflow(compensated("labour", "give_back"))
    move(node_map={"refund": "give_back"})
    assert undo(engine) == [("ok", None)]
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert states(db, run_id) == {"start": "completed", "work": "completed", "next": "failed", "refund": "completed"}


def test_a_run_that_is_being_compensated_is_blocked(db, make_workflow, run_all, worker, move):
    def slow(refund="refund"):
        return document(
            "offer",
            [START, call("work", compensate=refund), call("next", retry={"max_attempts": 1}), call(refund)],
            ["start -> work", "work -> next"],
        )

    make_workflow(slow())
    run_id = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin())
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert run(db, run_id)["state"] == "running"
    make_workflow(slow("give_back"))
    assert move() == {run_id: ("blocked", "the run is being compensated")}
    worker.end(*worker.begin())
    assert (run(db, run_id)["state"], run(db, run_id)["version"]) == ("failed", 1)


# -- retrying -------------------------------------------------------------------------------------------------------------


def test_a_migrated_run_that_fails_is_retried_where_it_failed(db, make_workflow, run_all, worker, move):
    make_workflow(version(transform("price", 7), call("ask", retry={"max_attempts": 1}), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(
        version(
            transform("amount", 7),
            call("phone", retry={"max_attempts": 1}),
            transform("end", "{{ steps.amount.output }}"),
        )
    )
    assert move() == {run_id: ("ok", None)}
    [first] = worker.begin()
    worker.end(first, error=FAILURE)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["node"]) == ("failed", "phone")
    db.execute("select stellwerk.retry_run(%s)", [run_id])
    [second] = worker.begin()
    assert second["idempotency_key"] == first["idempotency_key"]
    worker.end(second)
    assert (run(db, run_id)["output"], run(db, run_id)["version"]) == (7, 2)


def test_a_migrated_run_that_fails_is_retried_from_an_earlier_node(db, make_workflow, run_all, worker, move):
    make_workflow(version(call("price"), call("ask", retry={"max_attempts": 1})))
    run_id = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin(), output={"n": 1})
    make_workflow(
        version(
            call("amount"), call("phone", retry={"max_attempts": 1}), transform("end", "{{ steps.amount.output.n }}")
        )
    )
    assert move(node_map={"price": "amount", "ask": "phone"}) == {run_id: ("ok", None)}
    worker.end(*worker.begin(), error=PERMANENT)
    db.execute("select stellwerk.retry_run(%s, 'amount')", [run_id])
    worker.end(*worker.begin(), output={"n": 2})
    worker.end(*worker.begin())
    assert run(db, run_id)["output"] == 2
    assert [(s["node_id"], s["visit"]) for s in steps(db, run_id)] == [
        ("start", 1),
        ("price", 1),
        ("phone", 1),
        ("amount", 1),
        ("phone", 2),
        ("end", 1),
    ]


def test_an_attempt_shows_the_settings_that_it_had(db, make_workflow, run_all, worker, move):
    retry = {"interval": "PT0S"}
    make_workflow(version(node("ask", "action.fonio_call", {"phone": "1"}, retry=retry)))
    run_id = start(db, "offer")
    run_all(db)
    [taken] = worker.begin()
    make_workflow(version(node("ask", "action.fonio_call", {"phone": "2"}, retry=retry)))
    move()
    assert steps(db, run_id)[1]["input"]["phone"] == "1"
    worker.end(taken, error=FAILURE)
    [taken] = worker.begin()
    assert (taken["config"]["phone"], steps(db, run_id)[1]["input"]["phone"]) == ("2", "2")


def test_a_step_whose_worker_vanished_begins_anew_in_the_new_version(
    db, dsn, make_workflow, run_all, worker, move, wait_until
):
    make_workflow(version(call("ask"), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    dying = Worker(dsn)
    [taken] = dying.begin()
    make_workflow(version(call("phone"), transform("end", "new")))
    assert move() == {run_id: ("ok", None)}
    dying.vanish()
    wait_until(lambda: db.execute("select stellwerk.tick() ->> 'recovered'").fetchone() == ("1",))
    [again] = worker.begin()
    assert (again["node_id"], again["attempt"], again["idempotency_key"]) == ("phone", 2, taken["idempotency_key"])
    worker.end(again)
    assert run(db, run_id)["output"] == "new"
