"""stuck_run tells of runs that nobody moves any more, why, and what to do; never of those that go well."""

from __future__ import annotations

import pytest
from database.helpers import (
    START,
    Worker,
    call,
    document,
    node,
    run,
    start,
    states,
    transform,
    unpumped,
    view,
)


@pytest.fixture
def waits(make_workflow):
    return make_workflow(
        document("waits", [START, node("hold", "logic.wait", {"event": "paid", "correlation": "x"})], ["start -> hold"])
    )


def stuck(db):
    """{ run: cause } of what has stood for any time at all."""
    return {row["run_id"]: row["cause"] for row in view(db, "select * from stellwerk.stuck_runs('0 seconds')")}


def test_runs_that_go_well_are_not_stuck(db, ring, waits, run_all, dsn):
    worker = Worker(dsn)
    start(db, ring)
    start(db, waits)
    start(db, waits, run_at="2100-01-01")
    run_all(db)
    worker.begin()
    start(db, ring)
    run_all(db)
    assert stuck(db) == {}
    assert view(db, "select * from stellwerk.stuck_run") == []


def test_each_cause_is_told_with_what_to_do(db, ring, waits, run_all, dsn):
    run_id = start(db, ring)
    (pending,) = view(db, "select * from stellwerk.stuck_runs('0 seconds')")
    assert (pending["cause"], pending["state"], pending["node_id"]) == ("not_pumped", "pending", None)
    run_all(db)
    (queued,) = view(db, "select * from stellwerk.stuck_runs('0 seconds')")
    assert (queued["cause"], queued["node_id"], queued["workflow"]) == ("no_worker", "ring", "ring")
    assert queued["mend"] == "Start a worker that carries out action.fonio_call."
    assert "no such worker is running" in queued["reason"]
    worker = Worker(dsn)
    db.execute("delete from stellwerk_queue.pgqueuer")
    assert stuck(db) == {run_id: "lost_job"}
    db.execute("select stellwerk.reconcile()")
    worker.begin()
    assert stuck(db) == {}
    db.execute("update stellwerk.step set lease_until = now() - interval '1 hour' where state = 'running'")
    assert stuck(db) == {run_id: "lost_worker"}
    assert view(db, "select * from stellwerk.stuck_run")[0]["mend"] == "Start a worker, or: select stellwerk.tick();"


def test_timers_that_nobody_fires_and_waits_for_nothing_are_stuck(db, make_workflow, waits, run_all, dsn):
    slug = make_workflow(document("later", [START, node("hold", "logic.wait", {"for": "PT1H"})], ["start -> hold"]))
    overdue, nothing, paused = start(db, slug), start(db, waits), start(db, waits)
    run_all(db)
    lost = start(db, slug, run_at="2100-01-01")
    db.execute("update stellwerk.timer set due_at = now() - interval '1 hour' where run_id = %s", (overdue,))
    db.execute("select stellwerk.pause_run(%s)", (paused,))
    db.execute("delete from stellwerk.wait where run_id = any (%s)", ([nothing, paused],))
    db.execute("delete from stellwerk.timer where run_id = %s", (lost,))
    db.execute("update stellwerk.run set start_at = now() - interval '1 hour' where run_id = %s", (lost,))
    assert stuck(db) == {overdue: "timer_overdue", nothing: "waits_for_nothing", lost: "timer_lost"}
    (row,) = view(db, "select * from stellwerk.stuck_runs('0 seconds') where run_id = %s", nothing)
    db.execute(row["mend"].partition(";")[0].encode())
    run_all(db)
    assert run(db, nothing)["state"] == "completed"


def test_a_message_that_nobody_applies_is_stuck(db, waits, run_all):
    run_id = start(db, waits)
    run_all(db)
    db.execute("select stellwerk.signal('paid', 'x')")
    assert stuck(db) == {run_id: "not_pumped"}


def test_a_sql_step_that_nobody_pumps_is_stuck(db, make_workflow):
    run_id = unpumped(db, make_workflow)
    assert states(db, run_id) == {"start": "completed", "count": "queued"}
    assert stuck(db) == {run_id: "not_pumped"}


def test_children_and_loops_and_joins_are_not_taken_for_stuck(db, make_workflow, waits, run_all, dsn):
    worker = Worker(dsn)
    calls = make_workflow(
        document("calls", [START, node("sub", "logic.call", {"workflow": "waits"})], ["start -> sub"])
    )
    loops = make_workflow(
        document(
            "loops",
            [
                START,
                node("each", "logic.loop", {"items": "{{ trigger.payload }}"}),
                call("ring"),
                call("slow"),
                node("meet", "logic.join", {"mode": "all"}),
                transform("fast", 1),
            ],
            ["start -> each", "each.each -> ring", "start -> slow", "start -> fast", "slow -> meet", "fast -> meet"],
        )
    )
    parent = start(db, calls)
    start(db, loops, [1, 2])
    run_all(db)
    worker.begin()
    assert stuck(db) == {}
    # A child that is gone will never answer.
    child = db.execute("select child_run_id from stellwerk.wait where child_run_id is not null").fetchone()[0]
    db.execute("select stellwerk.cancel_run(%s)", (child,))
    db.execute("delete from stellwerk.run_message")
    assert stuck(db)[parent] == "waits_for_nothing"
    # Nor a loop without an iteration, nor a join that nobody can reach any more.
    db.execute("update stellwerk.loop set ended = started")
    db.execute("delete from stellwerk.step where node_id = 'slow'")
    assert sorted(
        row["node_id"] for row in view(db, "select * from stellwerk.stuck_runs('0 seconds') where run_id <> %s", parent)
    ) == ["each", "meet"]
