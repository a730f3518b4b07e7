"""Runs that wait are moved to another version with what they wait for: times, signals, children, people's orders."""

from __future__ import annotations

import pytest
from database.helpers import (
    START,
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

# -- times, signals, children ---------------------------------------------------------------------------------------------


def due(db):
    """As if all times had come."""
    db.execute("update stellwerk.timer set due_at = now() where due_at < stellwerk.never()")
    db.execute("select stellwerk.tick()")


def test_a_wait_for_a_time_keeps_the_time_that_it_began_with(db, make_workflow, run_all, move):
    make_workflow(version(node("sleep", "logic.wait", {"for": "P1D"}), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    before = db.execute("select timer_id, due_at, step_id from stellwerk.timer").fetchall()
    make_workflow(version(node("rest", "logic.wait", {"for": "P9D"}), transform("end", "{{ steps.rest.output }}")))
    assert move(node_map={"sleep": "rest"}) == {run_id: ("ok", None)}
    assert db.execute("select timer_id, due_at, step_id from stellwerk.timer").fetchall() == before
    assert steps(db, run_id)[1]["input"]["for"] == "P1D", "what it waits for is still to be read"
    due(db)
    run_all(db)
    assert (run(db, run_id)["state"], list(run(db, run_id)["output"])) == ("completed", ["fired_at"])


def test_a_wait_for_a_signal_is_woken_by_the_one_it_began_to_wait_for(db, make_workflow, run_all, move):
    wait = {"event": "paid", "correlation": "{{ trigger.payload.order }}"}
    make_workflow(version(node("money", "logic.wait", wait), transform("end", "old")))
    runs = [start(db, "offer", {"order": order}) for order in "ab"]
    run_all(db)
    make_workflow(
        version(
            node("payment", "logic.wait", wait | {"timeout": "P1D"}), transform("end", "{{ steps.payment.output }}")
        )
    )
    # This one is on its way already, as a message that has not been applied.
    assert db.execute("select stellwerk.signal('paid', 'a', '{\"n\": 1}')").fetchone() == (1,)
    assert move(node_map={"money": "payment"}) == dict.fromkeys(runs, ("ok", None))
    assert db.execute("select stellwerk.signal('paid', 'b', '{\"n\": 2}')").fetchone() == (1,)
    run_all(db)
    assert [run(db, each)["output"] for each in runs] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("drawn", [True, False], ids=["edge", "no edge"])
def test_a_timeout_leaves_by_the_edge_of_the_new_version(db, make_workflow, run_all, move, drawn):
    wait = node("money", "webhook.esign_completed", {"correlation": "c", "timeout": "P1D"})
    make_workflow(
        document("offer", [START, wait, transform("late", "old")], ["start -> money", "money.timeout -> late"])
    )
    run_id = start(db, "offer")
    run_all(db)
    edges = ["start -> money", "money.timeout -> late" if drawn else "money -> late"]
    make_workflow(document("offer", [START, wait, transform("late", "new")], edges))
    assert move() == {run_id: ("ok", None)}
    due(db)
    run_all(db)
    if drawn:
        assert run(db, run_id)["output"] == "new"
    else:
        assert run(db, run_id)["error"]["class"] == "timeout"


def test_a_parent_waits_for_the_child_that_it_called(db, make_workflow, run_all, worker, move):
    make_workflow(version(call("ask"), transform("out", "{{ steps.ask.output.said }}"), slug="part"))
    make_workflow(version(node("sub", "logic.call", {"workflow": "part"}), transform("end", "old")))
    parent = start(db, "offer")
    run_all(db)
    [(child,)] = db.execute("select run_id from stellwerk.run_overview where parent_run_id = %s", [parent]).fetchall()
    make_workflow(version(call("phone"), transform("out", "{{ steps.phone.output.said }}"), slug="part"))
    make_workflow(
        version(node("child", "logic.call", {"workflow": "part"}), transform("end", "{{ steps.child.output }}"))
    )
    # Each of the two moves by itself.
    assert move() == {parent: ("ok", None)}
    assert (run(db, parent)["version"], run(db, child)["version"]) == (2, 1)
    assert move(slug="part") == {child: ("ok", None)}
    worker.end(*worker.begin(), output={"said": "yes"})
    run_all(db)
    assert (run(db, child)["state"], run(db, parent)["output"]) == ("completed", "yes")


def test_a_child_ends_with_its_migrated_parent(db, make_workflow, run_all, move):
    make_workflow(version(call("ask"), slug="part"))
    make_workflow(version(node("sub", "logic.call", {"workflow": "part"})))
    parent = start(db, "offer")
    run_all(db)
    make_workflow(version(node("child", "logic.call", {"workflow": "part"}), transform("end", 1)))
    move()
    db.execute("select stellwerk.cancel_run(%s)", [parent])
    run_all(db)
    assert db.execute("select state from stellwerk.run_overview order by run_id").fetchall() == [("cancelled",)] * 2


def test_the_timeout_of_a_run_stays(db, make_workflow, run_all, move):
    make_workflow(version(call("ask"), settings={"timeout": "P1D"}))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("end", 1)))
    move()
    due(db)
    assert run(db, run_id)["error"]["class"] == "timeout"


# -- paused ---------------------------------------------------------------------------------------------------------------


def test_a_paused_run_is_moved_and_stays_paused(db, make_workflow, run_all, worker, move):
    make_workflow(version(call("ask"), node("sleep", "logic.wait", {"for": "P1D"}), transform("end", "old")))
    asking, sleeping = start(db, "offer"), start(db, "offer")
    run_all(db)
    worker.end(*worker.begin([ref for ref in worker.queued() if ref[0] == sleeping]))
    run_all(db)
    for each in (asking, sleeping):
        db.execute("select stellwerk.pause_run(%s)", [each])
    make_workflow(version(call("phone"), node("rest", "logic.wait", {"for": "P1D"}), transform("end", "new")))
    assert move(node_map={"sleep": "rest"}) == {asking: ("ok", None), sleeping: ("ok", None)}
    run_all(db)
    assert [run(db, each)["state"] for each in (asking, sleeping)] == ["paused", "paused"]
    assert db.execute("select due_at = stellwerk.never() from stellwerk.timer").fetchall() == [(True,)]
    for each in (asking, sleeping):
        db.execute("select stellwerk.resume_run(%s)", [each])
    worker.end(*worker.begin())
    run_all(db)
    due(db)
    run_all(db)
    assert [run(db, each)["output"] for each in (asking, sleeping)] == ["new", "new"]


def test_a_paused_join_that_has_nothing_left_to_wait_for_goes_on_when_resumed(db, make_workflow, run_all, worker, move):
    def diamond(*edges):
        nodes = [START, call("left"), call("right"), transform("both", "joined")]
        return document("offer", nodes, ["start -> left", "start -> right", "right -> both", *edges])

    make_workflow(diamond("left -> both"))
    run_id = start(db, "offer")
    run_all(db)
    left, right = worker.begin()
    worker.end(next(each for each in (left, right) if each["node_id"] == "right"))
    assert states(db, run_id)["both"] == "joining"
    db.execute("select stellwerk.pause_run(%s)", [run_id])
    make_workflow(diamond())
    assert move() == {run_id: ("ok", None)}
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["both"]) == ("paused", "queued")
    db.execute("select stellwerk.resume_run(%s)", [run_id])
    run_all(db)
    assert (states(db, run_id)["both"], run(db, run_id)["state"]) == ("completed", "running")


def test_an_undone_paused_run_is_as_it_was(db, make_workflow, run_all, engine, move, worker):
    make_workflow(version(call("ask"), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("phone"), transform("end", "new")))
    move()
    # Pausing and resuming is not moving.
    db.execute("select stellwerk.pause_run(%s)", [run_id])
    assert undo(engine) == [("ok", None)]
    db.execute("select stellwerk.resume_run(%s)", [run_id])
    worker.end(*worker.begin())
    assert (run(db, run_id)["output"], states(db, run_id)["ask"]) == ("old", "completed")
