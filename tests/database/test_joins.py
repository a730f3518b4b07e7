"""logic.join: all, any and n of m, and what becomes of the ways that were not needed."""

from __future__ import annotations

import pytest
from database.helpers import PERMANENT, START, Worker, call, document, node, run, start, states, steps, transform


def joined(slug, mode, *, branches="abc", more=(), edges=(), **config):
    """Worker branches that come together in a join, after which `e` tells what arrived."""
    nodes = [START, *(call(b) for b in branches), node("j", "logic.join", {"mode": mode, **config})]
    nodes += [transform("e", "{{ steps.j.output.arrived }}"), *more]
    ways = [w for b in branches for w in (f"start -> {b}", f"{b} -> j")]
    return document(slug, nodes, [*ways, "j -> e", *edges])


@pytest.fixture
def begun(dsn, db, make_workflow, run_all):
    """Start a workflow and take its first worker steps, by node."""

    def begin(document_):
        run_id = start(db, make_workflow(document_))
        run_all(db)
        worker = Worker(dsn)
        return run_id, worker, {taken["node_id"]: taken for taken in worker.begin()}

    return begin


def test_all_waits_for_every_branch(db, run_all, begun):
    run_id, worker, taken = begun(joined("all", "all"))
    worker.end(taken["a"])
    worker.end(taken["c"])
    run_all(db)
    assert states(db, run_id)["j"] == "joining"
    worker.end(taken["b"])
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], sorted(found["output"])) == ("completed", ["a", "b", "c"])


def test_all_does_not_wait_for_a_branch_that_ended_elsewhere(db, run_all, begun):
    # c leaves by its error port, whose way does not lead to the join.
    value = joined("ended", "all", more=[transform("x", 0)], edges=["c.error -> x"])
    run_id, worker, taken = begun(value)
    worker.end(taken["a"], taken["b"])
    worker.end(taken["c"], error=PERMANENT)
    run_all(db)
    assert states(db, run_id) == dict.fromkeys(("start", "a", "b", "j", "e", "x"), "completed") | {"c": "failed"}
    assert sorted(next(s for s in steps(db, run_id) if s["node_id"] == "e")["output"]) == ["a", "b"]


def test_any_takes_the_first_and_cancels_the_rest(db, run_all, begun):
    run_id, worker, taken = begun(joined("any", "any"))
    worker.end(taken["b"])
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["output"], found["live_steps"]) == ("completed", ["b"], 0)
    assert states(db, run_id) | {"start": "completed"} == {
        "start": "completed", "a": "cancelled", "b": "completed", "c": "cancelled", "j": "completed", "e": "completed"
    }  # fmt: skip
    # The losers' attempts may end; nobody listens any more, and nothing moves.
    assert worker.end(taken["a"], taken["c"])["accepted"] == 0
    run_all(db)
    assert len([s for s in steps(db, run_id) if s["node_id"] == "j"]) == 1


def test_any_leaves_branches_that_do_not_lead_to_it(db, run_all, begun):
    value = joined("other", "any", branches="ab", more=[call("z")], edges=["start -> z"])
    run_id, worker, taken = begun(value)
    worker.end(taken["a"])
    run_all(db)
    assert states(db, run_id)["z"] == "running"
    assert run(db, run_id)["state"] == "running"
    worker.end(taken["z"], output="z")
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "z")


def test_any_cancels_what_the_losers_wait_for(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "race",
            [
                START,
                node("paid", "logic.wait", {"event": "paid", "correlation": "k"}),
                node("late", "logic.wait", {"for": "P3D"}),
                node("j", "logic.join", {"mode": "any"}),
                transform("e", "{{ steps.j.output.arrived }}"),
            ],
            ["start -> paid", "start -> late", "paid -> j", "late -> j", "j -> e"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    db.execute("select stellwerk.signal('paid', 'k')")
    run_all(db)
    assert run(db, run_id)["output"] == ["paid"]
    for table in ("timer", "wait", "run_message"):
        assert db.execute(f"select count(*) from stellwerk.{table}").fetchone() == (0,)


def test_count_takes_n_of_m(db, run_all, begun):
    run_id, worker, taken = begun(joined("two", "count", count=2))
    worker.end(taken["c"])
    run_all(db)
    assert states(db, run_id)["j"] == "joining"
    worker.end(taken["a"])
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], sorted(found["output"])) == ("completed", ["a", "c"])
    assert states(db, run_id)["b"] == "cancelled"


def test_count_that_cannot_be_met_any_more_fails(db, run_all, begun):
    value = joined(
        "short", "count", count=2, more=[transform("x", 0), transform("y", 0)], edges=["a.error -> x", "b.error -> y"]
    )
    run_id, worker, taken = begun(value)
    worker.end(taken["c"])
    worker.end(taken["a"], error=PERMANENT)
    run_all(db)
    assert states(db, run_id)["j"] == "joining"  # b may still come
    worker.end(taken["b"], error=PERMANENT)
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["error"]["class"], found["error"]["node"]) == ("failed", "join_unsatisfied", "j")
    assert "2" in found["error"]["message"]


def test_a_join_that_cannot_be_met_may_leave_by_its_error_port(db, run_all, begun):
    more = [transform("x", 0), transform("few", "too few")]
    value = joined("few", "count", branches="ab", count=2, more=more, edges=["a.error -> x", "j.error -> few"])
    run_id, worker, taken = begun(value)
    worker.end(taken["a"], error=PERMANENT)
    worker.end(taken["b"])
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["few"]) == ("completed", "completed")


def test_joins_stand_behind_joins(db, run_all, begun):
    more = [node("k", "logic.join", {"mode": "all"}), call("d"), transform("last", "{{ steps.k.output.arrived }}")]
    value = joined("chain", "any", branches="ab", more=more, edges=["start -> d", "e -> k", "d -> k", "k -> last"])
    run_id, worker, taken = begun(value)
    worker.end(taken["b"])
    run_all(db)
    assert states(db, run_id)["k"] == "joining"
    worker.end(taken["d"])
    run_all(db)
    assert sorted(run(db, run_id)["output"]) == ["d", "e"]


def test_a_join_within_an_iteration_is_the_iterations_own(db, run_all, begun):
    loop = node("l", "logic.loop", {"items": [1, 2], "parallel": 2, "collect": "{{ steps.j.output.arrived }}"})
    value = document(
        "inner",
        [
            START,
            loop,
            call("a"),
            call("b"),
            node("j", "logic.join", {"mode": "any"}),
            transform("e", "{{ steps.l.output.items }}"),
        ],
        ["start -> l", "l.each -> a", "l.each -> b", "a -> j", "b -> j", "j -> l", "l.done -> e"],
    )
    run_id, worker, _ = begun(value)
    running = [s for s in steps(db, run_id) if s["state"] == "running"]
    assert len(running) == 4
    first_scope, second_scope = sorted({s["scope"] for s in running})
    pick = {(s["scope"], s["node_id"]): s for s in running}

    def end(scope, name):
        step = pick[(scope, name)]
        return worker.end({"run_id": run_id, "step_id": step["step_id"], "attempt": step["attempt"]})

    assert end(first_scope, "b")["accepted"] == 1
    run_all(db)
    after = {(s["scope"], s["node_id"]): s["state"] for s in steps(db, run_id)}
    assert after[(first_scope, "a")] == "cancelled"
    assert after[(second_scope, "a")] == "running"
    assert end(second_scope, "a")["accepted"] == 1
    run_all(db)
    assert run(db, run_id)["output"] == [["b"], ["a"]]


def test_a_join_in_a_circle_joins_anew_each_time(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "circle",
            [
                START,
                node("n", "logic.set", {"values": {"n": "{{ coalesce(vars.n, 0) + 1 }}"}}),
                transform("a", 1),
                transform("b", 2),
                node("j", "logic.join", {"mode": "all"}),
                node("again", "logic.if", {"condition": "vars.n < 3"}),
                transform("e", "{{ vars.n }}"),
            ],
            ["start -> n", "n -> a", "n -> b", "a -> j", "b -> j", "j -> again", "again.true -> n", "again.false -> e"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert run(db, run_id)["output"] == 3
    assert [s["visit"] for s in steps(db, run_id) if s["node_id"] == "j"] == [1, 2, 3]
    assert all(sorted(s["output"]["arrived"]) == ["a", "b"] for s in steps(db, run_id) if s["node_id"] == "j")
