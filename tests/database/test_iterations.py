"""Loops: iterations one by one and side by side, nested, and what becomes of an item that fails."""

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

DIVIDE = transform("b", "{{ 12 / item }}")
WITHIN = ["start -> l", "l.each -> b", "b -> l", "l.done -> e"]


def loop(node_id="l", items="{{ trigger.payload.items }}", **config):
    return node(node_id, "logic.loop", {"items": items, **config})


def looped(slug, body, edges, *more, **config):
    """A workflow that loops over its payload's items and ends with what the loop came to."""
    return document(
        slug, [START, loop(**config), *body, transform("e", "{{ steps.l.output }}"), *more], ["start -> l", *edges]
    )


def live(db, run_id):
    return db.execute(
        "select count(*) from stellwerk.live_step where run_id = %s and node_id <> 'l'", (run_id,)
    ).fetchone()[0]


def test_iterations_run_in_the_order_of_the_items(db, make_workflow, run_all):
    body = transform("b", "{{ item.n * 10 + index }}")
    slug = make_workflow(looped("each", [body], WITHIN[1:], collect="{{ item.n + steps.b.output }}"))
    run_id = start(db, slug, {"items": [{"n": 1}, {"n": 2}, {"n": 3}]})
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert run(db, run_id)["output"] == {"items": [11, 23, 35], "count": 3, "errors": []}
    assert [s["output"] for s in steps(db, run_id) if s["node_id"] == "b"] == [10, 21, 32]
    # Each iteration is a scope of its own, in which the visit is the first.
    inner = [s for s in steps(db, run_id) if s["node_id"] == "b"]
    assert len({s["scope"] for s in inner}) == 3
    assert {s["visit"] for s in inner} == {1}


def test_without_collect_the_last_steps_output_counts(db, make_workflow, run_all):
    body = [transform("b", "{{ item }}"), transform("c", "{{ steps.b.output + 1 }}")]
    slug = make_workflow(looped("last", body, ["l.each -> b", "b -> c", "c -> l", "l.done -> e"]))
    run_id = start(db, slug, {"items": [1, 2]})
    run_all(db)
    assert run(db, run_id)["output"]["items"] == [2, 3]


def test_no_items_are_done_at_once(db, make_workflow, run_all):
    slug = make_workflow(looped("none", [DIVIDE], WITHIN[1:]))
    run_id = start(db, slug, {"items": []})
    run_all(db)
    assert states(db, run_id) == {"start": "completed", "l": "completed", "e": "completed"}
    assert run(db, run_id)["output"] == {"items": [], "count": 0, "errors": []}


@pytest.mark.parametrize(
    ("payload", "settings", "error"),
    [
        ({}, {}, "not_a_list"),
        ({"items": {"a": 1}}, {}, "not_a_list"),
        ({"items": [1], "n": 0}, {"parallel": "{{ trigger.payload.n }}"}, "bad_parallel"),
        ({"items": [1], "n": "many"}, {"parallel": "{{ trigger.payload.n }}"}, "bad_parallel"),
    ],
)
def test_what_cannot_be_looped_over_fails_the_step(db, make_workflow, run_all, payload, settings, error):
    slug = make_workflow(looped("bad", [DIVIDE], WITHIN[1:], **settings))
    run_id = start(db, slug, payload)
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["error"]["class"], found["error"]["node"]) == ("failed", error, "l")


def test_at_most_n_iterations_run_at_once(dsn, db, make_workflow, run_all):
    slug = make_workflow(looped("three", [call("b")], WITHIN[1:], parallel=3, collect="{{ item }}"))
    run_id = start(db, slug, {"items": [0, 1, 2, 3, 4]})
    run_all(db)
    worker = Worker(dsn)
    first = worker.begin()
    assert len(first) == 3
    assert worker.queued() == []
    worker.end(first[1])
    [next_one] = worker.begin()
    worker.end(next_one)
    [last] = worker.begin()
    assert worker.queued() == []
    worker.end(last, first[0], first[2])
    run_all(db)
    assert run(db, run_id)["output"]["items"] == [0, 1, 2, 3, 4]


def test_one_by_one_is_the_default(dsn, db, make_workflow, run_all):
    slug = make_workflow(looped("single", [call("b")], WITHIN[1:]))
    run_id = start(db, slug, {"items": [0, 1, 2]})
    run_all(db)
    worker = Worker(dsn)
    for number in range(3):
        [taken] = worker.begin()
        worker.end(taken, output=number)
    assert run(db, run_id)["output"]["items"] == [0, 1, 2]


def test_loops_stand_in_loops(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "nested",
            [
                START,
                loop("rows", parallel=2, collect="{{ steps.cells.output.items }}"),
                loop("cells", "{{ item.cells }}", collect="{{ vars.base + item * 10 + index }}"),
                node("base", "logic.set", {"values": {"base": "{{ index * 1000 }}"}}),
                transform("c", "{{ item }}"),
                transform("end", "{{ steps.rows.output.items }}"),
            ],
            [
                "start -> rows",
                "rows.each -> base",
                "base -> cells",
                "cells.each -> c",
                "c -> cells",
                "rows.done -> end",
            ],
        )
    )
    run_id = start(db, slug, {"items": [{"cells": [1, 2]}, {"cells": []}, {"cells": [3]}]})
    run_all(db)
    assert run(db, run_id)["output"] == [[10, 21], [], [2030]]


@pytest.mark.parametrize(
    ("policy", "items", "errors"),
    [("skip", [12, 4], []), ("collect", [12, None, 4], [1])],
)
def test_an_item_that_fails_may_be_left_out(db, make_workflow, run_all, policy, items, errors):
    slug = make_workflow(looped("policy", [DIVIDE], WITHIN[1:], on_item_error=policy))
    run_id = start(db, slug, {"items": [1, 0, 3]})
    run_all(db)
    output = run(db, run_id)["output"]
    assert (output["items"], output["count"]) == (items, 3)
    assert [e["index"] for e in output["errors"]] == errors
    for told in output["errors"]:
        assert (told["error"]["class"], told["error"]["node"]) == ("22012", "b")


def test_an_item_that_fails_fails_its_loop_by_default(db, make_workflow, run_all):
    slug = make_workflow(looped("fail", [DIVIDE], WITHIN[1:]))
    run_id = start(db, slug, {"items": [1, 0, 3]})
    run_all(db)
    found = run(db, run_id)
    assert (found["state"], found["error"]["class"], found["error"]["node"]) == ("failed", "item_failed", "l")
    assert found["error"]["detail"]["index"] == 1
    assert found["error"]["detail"]["error"]["class"] == "22012"
    assert found["live_steps"] == 0


def test_a_loop_that_fails_may_leave_by_its_error_port(dsn, db, make_workflow, run_all):
    sorry = transform("sorry", "{{ steps.l.error.detail.index }}")
    slug = make_workflow(looped("sorry", [call("b")], [*WITHIN[1:], "l.error -> sorry"], sorry, parallel=3))
    run_id = start(db, slug, {"items": [0, 1, 2]})
    run_all(db)
    worker = Worker(dsn)
    taken = sorted(worker.begin(), key=lambda t: t["step_id"])
    worker.end(taken[2], error=PERMANENT)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 2)
    assert live(db, run_id) == 0
    # The other iterations' attempts come too late.
    assert worker.end(taken[0], taken[1])["accepted"] == 0


def test_retries_and_error_ports_work_within_an_iteration(dsn, db, make_workflow, run_all):
    nodes = [
        call("b", retry={"max_attempts": 2, "interval": "PT0S", "jitter": False}, on_error="route"),
        transform("ok", "fine"),
        transform("mend", "mended"),
    ]
    edges = ["l.each -> b", "b -> ok", "b.error -> mend", "ok -> l", "mend -> l", "l.done -> e"]
    slug = make_workflow(looped("mend", nodes, edges))
    run_id = start(db, slug, {"items": ["x", "y"]})
    run_all(db)
    worker = Worker(dsn)
    for result in ({"error": FAILURE}, {"error": FAILURE}, {"output": 1}):
        db.execute("select stellwerk.tick()")
        [taken] = worker.begin()
        worker.end(taken, **result)
        run_all(db)
    assert run(db, run_id)["output"]["items"] == ["mended", "fine"]


def test_branches_within_an_iteration_come_together(db, make_workflow, run_all):
    body = [transform("a", "{{ item }}"), transform("b", "{{ item * 2 }}"), transform("c", "{{ item * 3 }}")]
    body.append(transform("sum", "{{ steps.a.output + steps.c.output }}"))
    edges = ["l.each -> a", "l.each -> b", "b -> c", "a -> sum", "c -> sum", "sum -> l", "l.done -> e"]
    slug = make_workflow(looped("together", body, edges, parallel=2))
    run_id = start(db, slug, {"items": [1, 2, 3]})
    run_all(db)
    assert run(db, run_id)["output"]["items"] == [4, 8, 12]
    assert len([s for s in steps(db, run_id) if s["node_id"] == "sum"]) == 3


def test_an_edge_back_within_an_iteration_counts_visits_per_iteration(db, make_workflow, run_all):
    body = [
        node("n", "logic.set", {"values": {"n": "{{ coalesce(vars.n, 0) + 1 }}"}}),
        node("again", "logic.if", {"condition": "vars.n < item"}),
    ]
    edges = ["l.each -> n", "n -> again", "again.true -> n", "again.false -> l", "l.done -> e"]
    slug = make_workflow(looped("again", body, edges, collect="{{ vars.n }}"))
    run_id = start(db, slug, {"items": [1, 3, 2]})
    run_all(db)
    # vars.n is made in the iteration, so it begins anew in each.
    assert run(db, run_id)["output"]["items"] == [1, 3, 2]
    assert max(s["visit"] for s in steps(db, run_id)) == 3


def test_max_visits_holds_per_iteration(db, make_workflow, run_all):
    body = [transform("n", 1, max_visits=3), node("again", "logic.if", {"condition": "true"})]
    edges = ["l.each -> n", "n -> again", "again.true -> n", "again.false -> l", "l.done -> e"]
    slug = make_workflow(looped("endless", body, edges, on_item_error="collect"))
    run_id = start(db, slug, {"items": [1, 2]})
    run_all(db)
    output = run(db, run_id)["output"]
    assert [e["error"]["class"] for e in output["errors"]] == ["max_visits", "max_visits"]


def test_vars_of_the_run_are_changed_by_iterations_without_loss(dsn, db, make_workflow, run_all):
    body = [call("b"), node("add", "logic.set", {"values": {"n": "{{ vars.n + item }}"}})]
    zero = node("zero", "logic.set", {"values": {"n": 0}})
    end = transform("n", "{{ vars.n }}")
    slug = make_workflow(
        document(
            "sum",
            [START, zero, loop(parallel=10), *body, end],
            ["start -> zero", "zero -> l", "l.each -> b", "b -> add", "add -> l", "l.done -> n"],
        )
    )
    run_id = start(db, slug, {"items": list(range(30))})
    run_all(db)
    worker = Worker(dsn)
    while taken := worker.begin():
        worker.end(*taken[::2])
        worker.end(*taken[1::2])
        run_all(db)
    assert run(db, run_id)["output"] == sum(range(30))


def test_stop_within_an_iteration_ends_the_run(dsn, db, make_workflow, run_all):
    body = [
        node("which", "logic.if", {"condition": "item = 'stop'"}),
        call("b"),
        node("s", "logic.stop", {"result": "{{ index }}"}),
    ]
    slug = make_workflow(
        looped("stopped", body, ["l.each -> which", "which.false -> b", "which.true -> s", "l.done -> e"], parallel=3)
    )
    run_id = start(db, slug, {"items": ["a", "b", "stop"]})
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 2)
    assert run(db, run_id)["live_steps"] == 0
    assert Worker(dsn).begin() == []


def test_a_body_may_wait_in_many_iterations_at_once(db, make_workflow, run_all):
    wait = node("b", "logic.wait", {"event": "answer", "correlation": "{{ item }}"})
    slug = make_workflow(looped("ask", [wait], WITHIN[1:], parallel=5))
    run_id = start(db, slug, {"items": ["x", "y", "z"]})
    run_all(db)
    for key in ("z", "x", "y"):
        assert db.execute("select stellwerk.signal('answer', %s, to_jsonb(%s::text))", (key, key * 2)).fetchone() == (
            1,
        )
    run_all(db)
    assert run(db, run_id)["output"]["items"] == ["xx", "yy", "zz"]


def test_cancelling_a_run_ends_its_iterations(db, make_workflow, run_all):
    slug = make_workflow(looped("cut", [call("b")], WITHIN[1:], parallel=2))
    run_id = start(db, slug, {"items": [1, 2, 3]})
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    assert run(db, run_id)["live_steps"] == 0
    assert states(db, run_id) == {"start": "completed", "l": "cancelled", "b": "cancelled"}


def test_thousands_of_items_are_split_once(db: psycopg.Connection, make_workflow, run_all):
    slug = make_workflow(looped("many", [transform("b", "{{ item * 2 }}")], WITHIN[1:], parallel=50))
    items = list(range(3000))
    run_id = start(db, slug, {"items": items})
    run_all(db)
    assert run(db, run_id)["output"]["items"] == [item * 2 for item in items]
    # The loop's own step keeps the number of items only.
    assert next(s for s in steps(db, run_id) if s["node_id"] == "l")["input"]["count"] == 3000
