"""Runs within loops are moved to another version: their items go on in the new body."""

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
from database.migrating import left_over


def looping(
    *, loop="each", body="ring", more="note", items="{{ trigger.payload.list }}", extra=(), edges=(), **settings
):
    """start -> loop; in it body -> more; then end."""
    return document(
        "offer",
        [
            START,
            node(loop, "logic.loop", {"items": items, **settings}),
            call(body),
            transform(more, {"item": "{{ item }}", "said": f"{{{{ steps.{body}.output.said }}}}"}),
            transform("end", f"{{{{ steps.{loop}.output.items }}}}"),
            *extra,
        ],
        edges or [f"start -> {loop}", f"{loop}.each -> {body}", f"{body} -> {more}", f"{loop}.done -> end"],
    )


def in_the_second_iteration(db, make_workflow, run_all, worker, **settings):
    make_workflow(looping(**settings))
    run_id = start(db, "offer", {"list": ["a", "b", "c"]})
    run_all(db)
    worker.end(*worker.begin(), output={"said": 1})
    return run_id


def test_a_loop_in_progress_goes_on_with_its_items_in_the_new_body(db, make_workflow, run_all, worker, move):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(looping(loop="all", body="phone", more="keep"))
    assert move() == {run_id: ("ok", None)}
    for said in (2, 3):
        worker.end(*worker.begin(), output={"said": said})
    assert run(db, run_id)["output"] == [
        {"item": item, "said": said} for item, said in zip("abc", (1, 2, 3), strict=True)
    ]
    assert [(s["node_id"], s["version"]) for s in steps(db, run_id)] == [
        ("start", 1),
        ("all", 2),
        ("ring", 1),
        ("note", 1),
        ("phone", 2),
        ("keep", 2),
        ("phone", 2),
        ("keep", 2),
        ("end", 2),
    ]


def test_what_a_loop_collects_may_change_between_items(db, make_workflow, run_all, worker, move):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(looping(collect="{{ index }}"))
    assert move() == {run_id: ("ok", None)}
    for _ in range(2):
        worker.end(*worker.begin())
    assert run(db, run_id)["output"] == [{"item": "a", "said": 1}, 1, 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"items": "{{ trigger.payload.other }}"}, "the items of loop each changed in version 2"),
        (
            {"edges": ["start -> each", "each.each -> note", "note -> ring", "each.done -> end"]},
            "loop each begins its iterations elsewhere in version 2",
        ),
        (
            {"edges": ["start -> each", "each.each -> note", "each.done -> ring", "ring -> end"]},
            "loop each begins its iterations elsewhere in version 2",
        ),
    ],
    ids=["items", "each", "nesting"],
)
def test_a_loop_that_became_another_one_blocks_while_it_runs(db, make_workflow, run_all, worker, move, change, reason):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(looping(**change))
    assert move() == {run_id: ("blocked", reason)}
    assert run(db, run_id)["version"] == 1
    for _ in range(2):
        worker.end(*worker.begin(), output={"said": 1})
    assert run(db, run_id)["state"] == "completed", "it ends on its own version"


def test_a_token_does_not_leave_its_loop(db, make_workflow, run_all, worker, move):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(
        looping(
            extra=[call("again")],
            edges=["start -> each", "each.each -> again", "again -> note", "each.done -> ring", "ring -> end"],
        )
    )
    [(verdict, reason)] = move(node_map={"ring": "ring"}).values()
    assert verdict == "blocked"
    assert "loop" in reason
    assert run(db, run_id)["version"] == 1


def test_a_loop_that_has_not_begun_or_is_done_may_change(db, make_workflow, run_all, worker, move):
    def with_calls(**settings):
        new = looping(**settings)
        new["nodes"] += [call("first"), call("last")]
        new["edges"][0:1] = [{"from": "start", "to": "first"}, {"from": "first", "to": "each"}]
        new["edges"][-1:] = [
            {"from": "each", "port": "done", "to": "last"},
            {"from": "last", "to": "end"},
        ]
        return new

    make_workflow(with_calls(items=[1]))
    before = start(db, "offer")
    run_all(db)
    after = start(db, "offer")
    run_all(db)
    for _ in range(2):
        worker.end(*worker.begin([ref for ref in worker.queued() if ref[0] == after]))
    assert states(db, after)["last"] == "queued"
    make_workflow(with_calls(items=[1, 2, 3], parallel=3))
    assert move() == {before: ("ok", None), after: ("ok", None)}
    for _ in range(3):
        worker.end(*worker.begin())
    assert [len(run(db, each)["output"]) for each in (before, after)] == [3, 1]


def test_loops_in_loops_move_together(db, make_workflow, run_all, worker, move):
    def nested(outer="outer", inner="inner", body="ring"):
        return document(
            "offer",
            [
                START,
                node(outer, "logic.loop", {"items": [1, 2]}),
                node(inner, "logic.loop", {"items": ["x", "y"], "parallel": 2}),
                call(body),
                transform("end", f"{{{{ steps.{outer}.output.count }}}}"),
            ],
            [f"start -> {outer}", f"{outer}.each -> {inner}", f"{inner}.each -> {body}", f"{outer}.done -> end"],
        )

    make_workflow(nested())
    run_id = start(db, "offer")
    run_all(db)
    first, second = worker.begin()
    worker.end(first)
    make_workflow(nested("all", "pair", "phone"))
    assert move() == {run_id: ("ok", None)}
    assert worker.end(second)["accepted"] == 1
    worker.end(*worker.begin())
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 2)
    assert left_over(db, run_id) == (0, 0, 0)
