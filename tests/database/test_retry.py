"""retry_run: a run that failed or was cancelled goes on in place."""

from __future__ import annotations

import pytest
from database.helpers import (
    PERMANENT,
    START,
    Worker,
    call,
    document,
    node,
    refused,
    run,
    start,
    states,
    steps,
    transform,
)

CHAIN = document(
    "chain",
    [START, call("a"), call("b"), transform("c", "{{ steps.a.output + steps.b.output }}")],
    ["start -> a", "a -> b", "b -> c"],
)


@pytest.fixture
def failed(dsn, db, make_workflow, run_all):
    """A run of CHAIN that failed at b, and its worker."""
    run_id = start(db, make_workflow(CHAIN))
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin(), output=1)
    worker.end(*worker.begin(), error=PERMANENT)
    assert run(db, run_id)["state"] == "failed"
    return run_id, worker


def retry(db, run_id, *arguments):
    row = db.execute(f"select stellwerk.retry_run(%s{', %s' * len(arguments)})", (run_id, *arguments)).fetchone()
    assert row == (run_id,)


def ids(db, run_id, node_id):
    return [(s["step_id"], s["visit"]) for s in steps(db, run_id) if s["node_id"] == node_id]


def test_the_failed_step_is_reopened_and_what_is_done_stays_done(db, run_all, failed):
    run_id, worker = failed
    before = ids(db, run_id, "b")
    retry(db, run_id)
    run_all(db)
    [taken] = worker.begin()
    assert taken["node_id"] == "b"
    worker.end(taken, output=10)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"], run(db, run_id)["error"]) == ("completed", 11, None)
    assert ids(db, run_id, "b") == before  # the same step, so the same key
    assert len(ids(db, run_id, "a")) == 1
    # The failed attempt can still be read; the last one stands in the step itself.
    kept = db.execute(
        "select step_id, attempt, error ->> 'message' from stellwerk.step_attempt where run_id = %s", (run_id,)
    )
    assert kept.fetchall() == [(before[0][0], 1, PERMANENT["message"])]


def test_from_an_earlier_node_new_visits_are_made(db, run_all, failed):
    run_id, worker = failed
    plan = db.execute("select node_id, times_done, repeats from stellwerk.retry_plan(%s, 'a')", (run_id,)).fetchall()
    assert plan == [("a", 1, True), ("b", 0, False), ("c", 0, False)]
    retry(db, run_id, "a")
    run_all(db)
    worker.end(*worker.begin(), output=5)
    worker.end(*worker.begin(), output=6)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 11)
    assert [visit for _, visit in ids(db, run_id, "a")] == [1, 2]
    assert len(set(ids(db, run_id, "b"))) == 2


def test_a_run_goes_on_on_a_newer_version(db, make_workflow, run_all, failed):
    run_id, worker = failed
    newer = {**CHAIN, "nodes": [*CHAIN["nodes"][:3], transform("c", "{{ steps.a.output * 100 + steps.b.output }}")]}
    make_workflow(newer)
    retry(db, run_id, None, 2)
    run_all(db)
    worker.end(*worker.begin(), output=7)
    run_all(db)
    assert (run(db, run_id)["version"], run(db, run_id)["output"]) == (2, 107)
    versions = dict(db.execute("select node_id, version from stellwerk.step where run_id = %s", (run_id,)).fetchall())
    assert versions == {"start": 1, "a": 1, "b": 2, "c": 2}


def test_versions_that_do_not_fit_are_refused(db, make_workflow, failed):
    run_id, _ = failed
    make_workflow(document("chain", [START, call("a"), transform("c", 1)], ["start -> a", "a -> c"]))
    refused(db, "SW005", "select stellwerk.retry_run(%s, null, 2)", run_id)  # has no b
    refused(db, "SW005", "select stellwerk.retry_run(%s, null, 9)", run_id)
    refused(db, "SW007", "select stellwerk.retry_run(%s, 'b', 2)", run_id)
    refused(db, "SW007", "select stellwerk.retry_run(%s, 'nowhere')", run_id)
    refused(db, "SW007", "select stellwerk.retry_run(4711)")
    assert run(db, run_id)["state"] == "failed"


def test_the_context_can_be_edited_before(db, make_workflow, run_all):
    value = document(
        "edited",
        [START, node("s", "logic.set", {"values": {"k": 0}}), transform("d", "{{ trigger.payload.n / vars.k }}")],
        ["start -> s", "s -> d"],
    )
    run_id = start(db, make_workflow(value), {"n": 8})
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "22012"
    db.execute("""select stellwerk.edit_run(%s, vars => '{"k": 2}')""", (run_id,))
    retry(db, run_id)
    run_all(db)
    assert run(db, run_id)["output"] == 4


def test_a_cancelled_run_goes_on_where_it_was(dsn, db, make_workflow, run_all):
    value = document(
        "cut",
        [
            START,
            call("a"),
            node("w", "logic.wait", {"event": "go", "correlation": "k"}),
            node("j", "logic.join", {"mode": "all"}),
            transform("b", 2),
        ],
        ["start -> a", "start -> w", "start -> b", "a -> j", "w -> j", "b -> j"],
    )
    run_id = start(db, make_workflow(value))
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    assert db.execute("select stellwerk.signal('go', 'other')").fetchone() == (0,)
    retry(db, run_id)
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin(), output=1)
    assert db.execute("select stellwerk.signal('go', 'k')").fetchone() == (1,)
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], sorted(found["output"]["arrived"])) == ("completed", ["a", "b", "w"])
    assert all(len(ids(db, run_id, n)) == 1 for n in ("a", "w", "j", "b"))


def test_a_failed_iteration_is_repeated_not_the_loop(db, make_workflow, run_all):
    value = document(
        "loop",
        [
            START,
            node("s", "logic.set", {"values": {"k": 2}}),
            node("l", "logic.loop", {"items": [1, 2, 3]}),
            transform("p", "{{ item }}"),
            transform("b", "{{ 12 / (vars.k - item) }}"),
            transform("e", "{{ steps.l.output.items }}"),
        ],
        ["start -> s", "s -> l", "l.each -> p", "p -> b", "b -> l", "l.done -> e"],
    )
    run_id = start(db, make_workflow(value))
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "item_failed"
    db.execute("""select stellwerk.edit_run(%s, vars => '{"k": 5}')""", (run_id,))
    retry(db, run_id)
    run_all(db)
    assert run(db, run_id)["output"] == [12, 4, 6]
    assert len(ids(db, run_id, "p")) == 3  # none was repeated


def test_a_node_within_a_loop_is_no_place_to_begin(db, make_workflow, run_all):
    value = document(
        "within",
        [START, node("l", "logic.loop", {"items": [0]}), transform("b", "{{ 1 / item }}")],
        ["start -> l", "l.each -> b", "b -> l"],
    )
    run_id = start(db, make_workflow(value))
    run_all(db)
    refused(db, "SW003", "select stellwerk.retry_run(%s, 'b')", run_id)
    retry(db, run_id, "l")
    run_all(db)
    assert run(db, run_id)["state"] == "failed"
    assert [visit for _, visit in ids(db, run_id, "l")] == [1, 2]


@pytest.mark.parametrize("state", ["running", "completed"])
def test_only_what_has_failed_or_was_cancelled_is_retried(dsn, db, make_workflow, run_all, state):
    run_id = start(db, make_workflow(document("one", [START, call("a")], ["start -> a"])))
    run_all(db)
    if state == "completed":
        worker = Worker(dsn)
        worker.end(*worker.begin())
    assert run(db, run_id)["state"] == state
    refused(db, "SW003", "select stellwerk.retry_run(%s)", run_id)


def test_a_run_that_was_cancelled_when_all_was_done_has_nothing_to_go_on_from(dsn, db, make_workflow, run_all):
    run_id = start(db, make_workflow(document("one", [START, call("a")], ["start -> a"])))
    run_all(db)
    worker = Worker(dsn)
    taken = worker.begin()
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    worker.end(*taken)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    refused(db, "SW003", "select stellwerk.retry_run(%s)", run_id)
    assert run(db, run_id)["state"] == "cancelled"
    retry(db, run_id, "a")
    run_all(db)
    assert [visit for _, visit in ids(db, run_id, "a")] == [1, 2]


def test_a_run_can_be_retried_again_and_again(db, run_all, failed):
    run_id, worker = failed
    for _ in range(3):
        retry(db, run_id)
        worker.end(*worker.begin(), error=PERMANENT)
        assert run(db, run_id)["state"] == "failed"
    retry(db, run_id)
    worker.end(*worker.begin(), output=1)
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert db.execute("select count(*) from stellwerk.step_attempt where run_id = %s", (run_id,)).fetchone() == (4,)


def test_parallel_branches_cancelled_by_a_failure_go_on(dsn, db, make_workflow, run_all):
    value = document(
        "fork",
        [START, call("a"), call("b"), transform("e", "{{ steps.a.output + steps.b.output }}")],
        ["start -> a", "start -> b", "a -> e", "b -> e"],
    )
    run_id = start(db, make_workflow(value))
    run_all(db)
    worker = Worker(dsn)
    taken = {t["node_id"]: t for t in worker.begin()}
    worker.end(taken["a"], error=PERMANENT)
    assert states(db, run_id)["b"] == "cancelled"
    retry(db, run_id)
    again = {t["node_id"]: t for t in worker.begin()}
    assert set(again) == {"a", "b"}
    # The first attempt at b belongs to the time before.
    assert worker.end(taken["b"], output=99)["accepted"] == 0
    worker.end(again["a"], output=1)
    worker.end(again["b"], output=2)
    run_all(db)
    assert run(db, run_id)["output"] == 3


def test_a_retried_run_has_its_timeout_again(db, make_workflow, run_all):
    value = {**document("slow", [START, call("a")], ["start -> a"]), "settings": {"timeout": "PT1H"}}
    run_id = start(db, make_workflow(value))
    run_all(db)
    db.execute("update stellwerk.timer set due_at = now()")
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "timeout"
    retry(db, run_id)
    run_all(db)
    assert db.execute(
        "select kind from stellwerk.timer where run_id = %s and due_at > now()", (run_id,)
    ).fetchall() == [("run_timeout",)]
