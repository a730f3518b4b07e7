"""logic.call: a run that starts another and waits for it."""

from __future__ import annotations

import psycopg
import pytest
from database.bulk import order, work
from database.helpers import PERMANENT, START, Worker, call, document, node, run, start, states, transform

CHILD = document("child", [START, transform("x", "{{ trigger.payload.n * 2 }}")], ["start -> x"])
SLOW_CHILD = document("child", [START, call("x")], ["start -> x"])


def parent(slug="parent", *, more=(), edges=(), settings=None, **config):
    config = {"workflow": "child", "payload": {"n": "{{ trigger.payload.n }}"}, **config}
    nodes = [START, node("c", "logic.call", config, **(settings or {})), transform("e", "{{ steps.c.output }}"), *more]
    return document(slug, nodes, ["start -> c", "c -> e", *edges])


# Goes on by its error port.
FORGIVING = parent(more=[transform("sorry", "{{ steps.c.error.class }}")], edges=["c.error -> sorry"])


def child_of(db, run_id):
    rows = db.execute(
        "select run_id from stellwerk.run_overview where parent_run_id = %s order by run_id", (run_id,)
    ).fetchall()
    assert rows
    return rows[-1][0]


def state(db, run_id):
    return run(db, run_id)["state"]


def test_the_childs_output_is_the_steps(db, make_workflow, run_all):
    make_workflow(CHILD)
    run_id = start(db, make_workflow(parent()), {"n": 21})
    run_all(db)
    assert (state(db, run_id), run(db, run_id)["output"]) == ("completed", 42)
    child = run(db, child_of(db, run_id))
    assert (child["state"], child["source"], child["payload"]) == ("completed", "workflow", {"n": 21})


def test_while_the_child_runs_the_parent_waits(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(parent()), {"n": 1})
    run_all(db)
    assert (state(db, run_id), states(db, run_id)["c"]) == ("waiting", "waiting")
    worker = Worker(dsn)
    worker.end(*worker.begin(), output="done")
    run_all(db)
    assert run(db, run_id)["output"] == "done"


def test_a_childs_failure_is_the_steps(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(parent()))
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["error"]["class"], found["error"]["node"]) == ("failed", "child_failed", "c")
    assert found["error"]["detail"]["run_id"] == str(child_of(db, run_id))
    assert found["error"]["detail"]["error"]["message"] == PERMANENT["message"]


def test_a_failed_child_may_be_called_again(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    retry = {"retry": {"max_attempts": 2, "interval": "PT0S", "jitter": False}}
    run_id = start(db, make_workflow(parent(settings=retry)))
    run_all(db)
    worker = Worker(dsn)
    for result in ({"error": PERMANENT}, {"output": "well"}):
        worker.end(*worker.begin(), **result)
        run_all(db)
        db.execute("update stellwerk.timer set due_at = now()")
        db.execute("update stellwerk.step set due_at = now() where due_at is not null")
        db.execute("select stellwerk.tick()")
        run_all(db)
    assert (state(db, run_id), run(db, run_id)["output"]) == ("completed", "well")


def test_a_failure_may_leave_by_the_error_port(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(FORGIVING))
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s, 'not today')", (child_of(db, run_id),))
    run_all(db)
    assert (state(db, run_id), run(db, run_id)["output"]) == ("completed", "child_cancelled")


def test_cancelling_the_parent_cancels_the_child(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(parent()))
    run_all(db)
    child = child_of(db, run_id)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    run_all(db)
    assert (state(db, run_id), state(db, child)) == ("cancelled", "cancelled")
    assert Worker(dsn).begin() == []
    assert db.execute("select count(*) from stellwerk.run_message").fetchone() == (0,)


def test_pausing_travels_down_and_resuming_too(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(parent()))
    run_all(db)
    child = child_of(db, run_id)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    run_all(db)
    assert (state(db, run_id), state(db, child)) == ("paused", "paused")
    worker = Worker(dsn)
    assert worker.begin() == []
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    run_all(db)
    assert (state(db, run_id), state(db, child)) == ("waiting", "running")
    worker.end(*worker.begin(), output=1)
    run_all(db)
    assert run(db, run_id)["output"] == 1


def test_a_child_that_ends_while_its_parent_is_paused_is_not_lost(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(parent()))
    run_all(db)
    worker = Worker(dsn)
    taken = worker.begin()
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    run_all(db)
    worker.end(*taken, output="late")  # the attempt was under way
    run_all(db)
    assert state(db, run_id) == "paused"
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    run_all(db)
    assert (state(db, run_id), run(db, run_id)["output"]) == ("completed", "late")


def test_a_call_that_takes_too_long_leaves_by_timeout_and_cancels_the_child(db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    value = parent(more=[transform("late", "late")], edges=["c.timeout -> late"], settings={"timeout": "PT1H"})
    run_id = start(db, make_workflow(value))
    run_all(db)
    db.execute("update stellwerk.timer set due_at = now() where run_id = %s", (run_id,))
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert (run(db, run_id)["output"], state(db, child_of(db, run_id))) == ("late", "cancelled")


def test_the_parents_timeout_reaches_the_child(db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow({**parent(), "settings": {"timeout": "P1D"}}))
    run_all(db)
    child = child_of(db, run_id)
    db.execute("update stellwerk.timer set due_at = now() where run_id = %s", (run_id,))
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert (state(db, run_id), run(db, run_id)["error"]["class"], state(db, child)) == (
        "failed",
        "timeout",
        "cancelled",
    )


def test_runs_cannot_call_each_other_for_ever(db, make_workflow, run_all):
    self_calling = document("self", [START, node("c", "logic.call", {"workflow": "self"})], ["start -> c"])
    run_id = start(db, make_workflow(self_calling))
    run_all(db)
    assert state(db, run_id) == "failed"
    assert db.execute("select count(*), count(*) filter (where state = 'failed') from stellwerk.run").fetchone() == (
        9,
        9,
    )
    [deepest] = db.execute("select error ->> 'class' from stellwerk.run order by depth desc limit 1").fetchone()
    assert deepest == "too_deep"


def test_unknown_workflows_and_bad_payloads_fail_the_step(db, make_workflow, run_all):
    make_workflow(
        {**CHILD, "input_schema": {"type": "object", "required": ["n"], "properties": {"n": {"type": "number"}}}}
    )
    bad = start(db, make_workflow(parent()), {"n": "seven"})
    unknown = start(db, make_workflow(parent("other", workflow="nowhere")))
    run_all(db)
    assert [run(db, r)["error"]["class"] for r in (bad, unknown)] == ["SW002", "SW001"]


@pytest.mark.parametrize("parallel", [1, 5])
def test_a_loop_of_calls(db, make_workflow, run_all, parallel):
    make_workflow(CHILD)
    value = document(
        "fan",
        [
            START,
            node("l", "logic.loop", {"items": [1, 2, 3, 4, 5, 6, 7], "parallel": parallel}),
            node("c", "logic.call", {"workflow": "child", "payload": {"n": "{{ item }}"}}),
            transform("e", "{{ steps.l.output.items }}"),
        ],
        ["start -> l", "l.each -> c", "c -> l", "l.done -> e"],
    )
    run_id = start(db, make_workflow(value))
    run_all(db)
    assert run(db, run_id)["output"] == [2, 4, 6, 8, 10, 12, 14]


def test_a_cancelled_tree_leaves_nothing_behind(db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    make_workflow(document("middle", [START, node("c", "logic.call", {"workflow": "child"})], ["start -> c"]))
    run_id = start(db, make_workflow(parent("top", workflow="middle")))
    run_all(db)
    assert db.execute("select count(*) from stellwerk.run where ended_at is null").fetchone() == (3,)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    run_all(db)
    for table in ("timer", "wait", "run_message"):
        assert db.execute(f"select count(*) from stellwerk.{table}").fetchone() == (0,), table
    assert db.execute("select distinct state from stellwerk.run").fetchall() == [("cancelled",)]


# -- retrying ----------------------------------------------------------------------------------------------------------


def end_child(dsn, db, run_all, **result):
    worker = Worker(dsn)
    worker.end(*worker.begin(), **result)
    run_all(db)


def failed_call(dsn, db, make_workflow, run_all, caller):
    """A run whose child has failed; answers both."""
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(caller))
    run_all(db)
    end_child(dsn, db, run_all, error=PERMANENT)
    return run_id, child_of(db, run_id)


def retry(db, run_id, *more):
    db.execute(f"select stellwerk.retry_run(%s{', %s' * len(more)})", (run_id, *more))


def refusal(db, run_id):
    with pytest.raises(psycopg.Error) as caught:
        retry(db, run_id)
    assert caught.value.sqlstate == "SW003"
    return caught.value.diag.message_primary, caught.value.diag.message_hint


def test_a_child_whose_caller_failed_with_it_is_retried_through_the_caller(dsn, db, make_workflow, run_all):
    run_id, first = failed_call(dsn, db, make_workflow, run_all, parent())
    assert refusal(db, first) == (
        f"run {first} was called by run {run_id}, which would call again",
        f"Retry run {run_id} instead.",
    )
    retry(db, run_id)
    assert "has not gone on without it yet" in refusal(db, first)[0]
    run_all(db)
    second = child_of(db, run_id)
    assert refusal(db, first)[0] == f"run {first} has been called again, as run {second}"
    end_child(dsn, db, run_all, output="well")
    assert run(db, run_id)["output"] == "well"
    assert refusal(db, first)[0] == f"run {first} has been called again, as run {second}"
    assert [state(db, child) for child in (first, second)] == ["failed", "completed"]


def test_a_child_whose_caller_begins_again_earlier_is_not_retried_beside_it(dsn, db, make_workflow, run_all):
    run_id, first = failed_call(dsn, db, make_workflow, run_all, parent())
    retry(db, run_id, "start")
    run_all(db)
    assert child_of(db, run_id) != first
    assert "would call again" in refusal(db, first)[0]


def test_a_child_whose_caller_went_on_without_it_goes_on_by_itself(dsn, db, make_workflow, run_all):
    run_id, first = failed_call(dsn, db, make_workflow, run_all, FORGIVING)
    before = run(db, run_id)
    assert (before["state"], before["output"]) == ("completed", "child_failed")
    retry(db, first)
    end_child(dsn, db, run_all, output="late, but well")
    child = run(db, first)
    assert (child["state"], child["output"], child["parent_run_id"]) == ("completed", "late, but well", None)
    assert run(db, run_id) == before
    assert db.execute("select caused_by_run_id from stellwerk.run where run_id = %s", (first,)).fetchone() == (run_id,)


def test_a_bulk_retry_does_the_work_of_a_call_once(dsn, db, make_workflow, run_all, wait_until):
    run_id, first = failed_call(dsn, db, make_workflow, run_all, parent())
    for slug in ("child", "parent", "child"):  # the child before its caller, and after it
        row = work(db, order(db, "retry", {"workflow": slug}), wait_until)
        assert (row["done"], row["total"]) == ((1, 1) if slug == "parent" else (0, 1)), slug
        run_all(db)
    assert state(db, first) == "failed"
    end_child(dsn, db, run_all, output="well")
    assert run(db, run_id)["output"] == "well"


def test_a_bulk_retry_sends_on_a_child_that_nobody_waits_for(dsn, db, make_workflow, run_all, wait_until):
    _, first = failed_call(dsn, db, make_workflow, run_all, FORGIVING)
    assert work(db, order(db, "retry", {"workflow": "child"}), wait_until)["done"] == 1
    end_child(dsn, db, run_all, output="late, but well")
    assert (state(db, first), run(db, first)["parent_run_id"]) == ("completed", None)


def test_the_end_of_an_old_child_is_not_the_end_of_the_new_one(dsn, db, make_workflow, run_all):
    make_workflow(SLOW_CHILD)
    run_id = start(db, make_workflow(parent()))
    run_all(db)
    first = child_of(db, run_id)
    db.execute("select stellwerk.cancel_run(%s, 'wait')", (run_id,))
    retry(db, run_id)  # before the first child has heard of it
    run_all(db)
    second = child_of(db, run_id)
    assert [state(db, each) for each in (first, second, run_id)] == ["cancelled", "running", "waiting"]
    end_child(dsn, db, run_all, output="the second")
    assert run(db, run_id)["output"] == "the second"
