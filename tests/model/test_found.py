"""Documents on which engine and reference differed once, or for which the engine was mended; each as small as it went."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node, run, start, states, transform
from model.engine_side import EngineSide
from model.test_against_reference import compared
from psycopg.types.json import Jsonb


def work(name: str, script: str = "ok", **more: Any) -> dict[str, Any]:
    return node(name, "action.fonio_call", {"script": script}, **more)


def loop(name: str, items: Any, **more: Any) -> dict[str, Any]:
    config = {key: more.pop(key) for key in ("parallel", "on_item_error", "collect") if key in more}
    return node(name, "logic.loop", {"items": items, **config}, **more)


STOP = node("stop", "logic.stop")
FOUND: dict[str, dict[str, Any]] = {
    "of two tokens that end at once the later step counts": document(
        "found", [START, transform("n1", 1), transform("n2", 2)], ["start -> n1", "start -> n2"]
    ),
    "a trigger alone gives its payload": document("found", [START], []),
    "stopping within a loop": document(
        "found", [START, loop("l", [1, 2]), STOP, work("w")], ["start -> l", "l.each -> stop", "l.done -> w"]
    ),
    "an iteration begins in the moment in which another one fails the loop": document(
        "found",
        [
            START,
            loop("l", [1, 2, 3], parallel=2, on_error="continue"),
            transform("x", "{{ 1 / (1 - index) }}"),
            work("after"),
        ],
        ["start -> l", "l.each -> x", "l.done -> after"],
    ),
    "stopping without a result": document(
        "found", [START, transform("t", 1), work("w"), STOP], ["start -> t", "start -> w", "w -> stop"]
    ),
    "what lies behind a cycle is visited as often as the cycle sends a token there": document(
        "found",
        [START, node("n1", "logic.join", {"mode": "count", "count": 3}), transform("n7", 1, max_visits=3)],
        ["start -> n1", "n1.error -> n7", "n1.error -> n1"],
    ),
    "tokens on their way when the run fails are kept": document(
        "found", [START, transform("x", "{{ 1 / trigger.payload.zero }}"), transform("t", 1), transform("u", 2)],
        ["start -> x", "start -> t", "t -> u"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_engine_and_reference_agree_on(name: str, dsn: str) -> None:
    side = EngineSide(dsn)
    try:
        (found,) = compared(side, [(FOUND[name], 0)])
    finally:
        side.close()
    assert not found, json.dumps(FOUND[name]) + "\n" + "\n".join(found)


def test_runs_that_end_in_one_call_keep_their_own_outputs(dsn: str) -> None:
    """One fails, one completes, in one call of complete_steps."""
    side = EngineSide(dsn)
    good = document("found", [START, work("a"), work("w", "ok 7")], ["start -> a", "a -> w"])
    bad = document("found", [START, work("a"), work("w", "broken")], ["start -> a", "a -> w"])
    try:
        assert compared(side, [(good, 0), (bad, 0)]) == [[], []]
        assert compared(side, [(bad, 0), (good, 0)]) == [[], []]
    finally:
        side.close()


def test_a_retried_run_goes_on_with_what_was_on_its_way(db: Any, make_workflow: Any, run_all: Any) -> None:
    """The other branch had just set out for its next step when the run failed."""
    slug = make_workflow(FOUND["tokens on their way when the run fails are kept"])
    run_id = start(db, slug, {"zero": 0})
    run_all(db)
    assert run(db, run_id)["state"] == "failed"
    assert states(db, run_id) == {"start": "completed", "x": "failed", "t": "completed", "u": "cancelled"}
    db.execute("select stellwerk.edit_run(%s, %s)", (run_id, Jsonb({"zero": 1})))
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert states(db, run_id) == {"start": "completed", "x": "completed", "t": "completed", "u": "completed"}


def test_a_loop_that_could_not_begin_is_begun_by_a_retry(db: Any, make_workflow: Any, run_all: Any) -> None:
    slug = make_workflow(
        document(
            "found", [START, loop("l", "{{ trigger.payload.list }}"), transform("t", 1)], ["start -> l", "l.each -> t"]
        )
    )
    run_id = start(db, slug, {"list": "none"})
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "not_a_list"
    db.execute("select stellwerk.edit_run(%s, %s)", (run_id, Jsonb({"list": [1, 2]})))
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == (
        "completed",
        {"items": [1, 1], "count": 2, "errors": []},
    )


def test_a_loop_whose_collect_raised_is_retried_from_its_node_only(db: Any, make_workflow: Any, run_all: Any) -> None:
    collecting = loop("l", [1, 2], collect="{{ 1 / trigger.payload.zero }}")
    slug = make_workflow(document("found", [START, collecting, transform("t", 1)], ["start -> l", "l.each -> t"]))
    run_id = start(db, slug, {"zero": 0})
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "item_failed"
    with pytest.raises(psycopg.Error, match="collect could not be computed") as raised:
        db.execute("select stellwerk.retry_run(%s)", (run_id,))
    assert raised.value.sqlstate == "SW003"
    db.execute("select stellwerk.edit_run(%s, %s)", (run_id, Jsonb({"zero": 1})))
    db.execute("select stellwerk.retry_run(%s, 'l')", (run_id,))
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]["items"]) == ("completed", [1, 1])
