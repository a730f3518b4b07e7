"""Runs of a workflow with max_running and concurrency_key wait for each other, whichever way they came."""

from __future__ import annotations

import psycopg
import pytest
from database.clock import shift
from database.flowing import KEYED, gated, leftovers, pump_until, reason, release, state, why
from database.helpers import START, document, node, run, start, states, transform

# -- max_running --------------------------------------------------------------------------------------------------------


def test_no_more_than_max_running_go_on_and_all_come_to_their_turn(db, make_workflow, run_all):
    make_workflow(gated("few", {"max_running": 2}))
    runs = [start(db, "few", {"id": str(n)}) for n in range(5)]
    assert why(db, runs[0]).startswith(f"Run {runs[0]} waits: it is let in or lined up by a pump; no worker")
    run_all(db)
    assert state(db, *runs) == ["waiting", "waiting", "pending", "pending", "pending"]
    assert why(db, runs[4]) == (
        f"Run {runs[4]} waits: max_running of 2 is reached, by runs {runs[0]}, {runs[1]}; before it in the line: 2."
    )
    release(db, 1)
    run_all(db)
    assert state(db, *runs) == ["waiting", "completed", "waiting", "pending", "pending"]
    release(db, 0, 2)
    run_all(db)
    release(db, 3, 4)
    run_all(db)
    assert state(db, *runs) == ["completed"] * 5
    assert leftovers(db) == (0, 0)


def test_runs_of_a_workflow_without_limits_leave_no_trace_at_any_gate(db, make_workflow, run_all):
    make_workflow(gated("few", {"max_running": 1}))
    make_workflow(document("free", [START, transform("a", 1)], ["start -> a"]))
    start(db, "few", {"id": "x"}), start(db, "few", {"id": "y"})
    run_all(db)
    before = leftovers(db)
    free = [start(db, "free") for _ in range(3)]
    assert db.execute("select bool_or(held) from stellwerk.run where run_id = any (%s)", (free,)).fetchone() == (False,)
    run_all(db)
    assert state(db, *free) == ["completed"] * 3
    assert leftovers(db) == before == (1, 1)


@pytest.mark.parametrize("way", ["failed", "cancelled", "stopped", "timed out"])
def test_a_slot_is_given_back_however_a_run_ends(db, make_workflow, run_all, way):
    doc = gated("one", {"max_running": 1, **({"timeout": "PT0.3S"} if way == "timed out" else {})})
    if way == "failed":
        doc["nodes"][2] = transform("done", "{{ 1 / (trigger.payload.zero) }}")
    elif way == "stopped":
        doc["nodes"][2] = node("done", "logic.stop", {"outcome": "failed", "message": "no"})
    make_workflow(doc)
    first, second = start(db, "one", {"id": "1", "zero": 0}), start(db, "one", {"id": "2", "zero": 0})
    run_all(db)
    assert state(db, first, second) == ["waiting", "pending"]
    if way == "cancelled":
        db.execute("select stellwerk.cancel_run(%s)", (first,))
    elif way == "timed out":
        db.execute("select pg_sleep(0.4), 1")
        db.execute("select stellwerk.tick()")
    else:
        release(db, 1)
    run_all(db)
    assert state(db, first, second) == ["cancelled" if way == "cancelled" else "failed", "waiting"]


def test_a_run_that_is_cancelled_in_the_line_leaves_it(db, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    runs = [start(db, "one", {"id": str(n)}) for n in range(3)]
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s, 'not needed')", (runs[1],))
    release(db, 0)
    run_all(db)
    assert state(db, *runs) == ["completed", "cancelled", "waiting"]
    assert leftovers(db) == (0, 1)


def test_higher_priority_goes_first_and_the_settings_give_the_default(db, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1, "priority": 5}))
    runs = [start(db, "one", {"id": str(n)}, priority=p) for n, p in enumerate([0, 4, 0, 9, 6])]
    order = []
    for _ in runs:
        run_all(db)
        (current,) = [r for r in runs if run(db, r)["state"] == "waiting"]
        order.append(current)
        release(db, runs.index(current))
    # The first came before the gate was looked at, like all of them: it has the default, 5.
    assert order == [runs[3], runs[4], runs[0], runs[2], runs[1]]


def test_a_limit_that_is_published_later_holds_for_those_who_wait(db, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    runs = [start(db, "one", {"id": str(n)}) for n in range(4)]
    run_all(db)
    make_workflow(gated("one", {"max_running": 3}))
    run_all(db)
    assert state(db, *runs) == ["waiting", "waiting", "waiting", "pending"]
    make_workflow(gated("one", {}))
    run_all(db)
    assert state(db, *runs) == ["waiting"] * 4


def test_a_paused_run_keeps_its_slot_and_a_paused_one_in_the_line_its_place(db, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    runs = [start(db, "one", {"id": str(n)}) for n in range(3)]
    run_all(db)
    db.execute("select stellwerk.pause_run(%s), stellwerk.pause_run(%s)", (runs[0], runs[1]))
    run_all(db)
    assert state(db, *runs) == ["paused", "paused", "pending"]
    db.execute("select stellwerk.cancel_run(%s)", (runs[0],))
    run_all(db)
    assert state(db, *runs) == ["cancelled", "paused", "waiting"]
    db.execute("select stellwerk.resume_run(%s)", (runs[1],))
    release(db, 2)
    run_all(db)
    assert state(db, *runs) == ["cancelled", "waiting", "completed"]


def test_a_start_in_the_future_lines_up_when_its_time_has_come(db, make_workflow, run_all, wait_until):
    make_workflow(gated("one", {"max_running": 1}))
    at = db.execute("select now() + interval '1 hour'").fetchone()[0]
    later = start(db, "one", {"id": "later"}, run_at=at)
    now = start(db, "one", {"id": "now"})
    run_all(db)
    assert state(db, later, now) == ["pending", "waiting"]
    assert "waits for its start at" in why(db, later)
    shift(db, "1 hour 1 minute")
    pump_until(db, run_all, wait_until, lambda: "max_running of 1 is reached" in why(db, later), "its time comes")
    release(db, "now")
    run_all(db)
    assert state(db, later, now) == ["waiting", "completed"]


# -- concurrency_key ----------------------------------------------------------------------------------------------------


def test_runs_of_one_key_go_one_after_the_other_and_other_keys_beside_them(db, make_workflow, run_all):
    make_workflow(gated("keyed", KEYED))
    runs = [start(db, "keyed", {"id": str(n), "who": who}) for n, who in enumerate(["ann", "bob", "ann", "ann"])]
    run_all(db)
    assert state(db, *runs) == ["waiting", "waiting", "pending", "pending"]
    assert f'waits: run {runs[0]} holds the same key "ann" since' in why(db, runs[3])
    assert why(db, runs[3]).endswith("; before it in the line: 1.")
    release(db, 0)
    run_all(db)
    assert state(db, *runs) == ["completed", "waiting", "waiting", "pending"]
    release(db, 1, 2)
    run_all(db)
    assert state(db, *runs) == ["completed", "completed", "completed", "waiting"]


def test_skip_ends_the_new_run_and_says_why(db, make_workflow, run_all):
    make_workflow(gated("keyed", {**KEYED, "on_conflict": "skip"}))
    runs = [start(db, "keyed", {"id": str(n), "who": who}) for n, who in enumerate(["ann", "ann", "bob"])]
    run_all(db)
    assert state(db, *runs) == ["waiting", "cancelled", "waiting"]
    assert reason(db, runs[1]) == f'skipped: run {runs[0]} waits with the same key "ann"'
    third = start(db, "keyed", {"id": "3", "who": "ann"})
    run_all(db)
    assert reason(db, third) == f'skipped: run {runs[0]} holds the same key "ann"'
    assert why(db, third).endswith(f'skipped: run {runs[0]} holds the same key "ann".')
    release(db, 0)
    run_all(db)
    fourth = start(db, "keyed", {"id": "4", "who": "ann"})
    run_all(db)
    assert state(db, fourth) == ["waiting"]
    assert leftovers(db) == (0, 2)


def test_replace_cancels_the_running_one_and_those_that_wait(db, make_workflow, run_all):
    make_workflow(gated("keyed", {**KEYED, "on_conflict": "replace"}))
    first = start(db, "keyed", {"id": "1", "who": "ann"})
    other = start(db, "keyed", {"id": "o", "who": "bob"})
    run_all(db)
    second = start(db, "keyed", {"id": "2", "who": "ann"})
    third = start(db, "keyed", {"id": "3", "who": "ann"})
    run_all(db)
    assert state(db, first, second, third, other) == ["cancelled", "cancelled", "waiting", "waiting"]
    assert reason(db, first) == f'replaced by run {second}, which has the same key "ann"'
    assert reason(db, second) == f'replaced by run {third}, which has the same key "ann"'
    assert states(db, first)["hold"] == "cancelled"


def test_a_key_without_a_value_limits_nothing_and_one_that_raises_fails_its_run_alone(db, make_workflow, run_all):
    make_workflow(gated("keyed", {"concurrency_key": "{{ trigger.payload.n / trigger.payload.m }}"}))
    runs = [start(db, "keyed", {"id": str(n), **more}) for n, more in enumerate([{}, {}, {"n": 1, "m": 0}])]
    good = start(db, "keyed", {"id": "good", "n": 4, "m": 2})
    run_all(db)
    assert state(db, *runs, good) == ["waiting", "waiting", "failed", "waiting"]
    assert "the concurrency_key cannot be computed: division by zero" in why(db, runs[2])
    assert leftovers(db) == (0, 1)


def test_a_fixed_key_and_a_key_with_text_around(db, make_workflow, run_all):
    make_workflow(gated("fixed", {"concurrency_key": "all"}))
    make_workflow(gated("mixed", {"concurrency_key": "{{ run.workflow }}/{{ trigger.payload.who }}"}))
    fixed = [start(db, "fixed", {"id": f"f{n}"}) for n in range(2)]
    mixed = [start(db, "mixed", {"id": f"m{n}", "who": "é" * 600}) for n in range(2)]
    run_all(db)
    assert state(db, *fixed, *mixed) == ["waiting", "pending"] * 2
    keys = [k for (k,) in db.execute("select key from stellwerk.flow_slot order by run_id")]
    assert keys[0] == "all"
    assert keys[1].startswith("mixed/é")
    assert len(keys[1]) < 100


def test_max_running_and_key_hold_together(db, make_workflow, run_all):
    make_workflow(gated("both", {**KEYED, "max_running": 2}))
    runs = [start(db, "both", {"id": str(n), "who": who}) for n, who in enumerate(["a", "a", "b", "c", "b"])]
    run_all(db)
    assert state(db, *runs) == ["waiting", "pending", "waiting", "pending", "pending"]
    assert "max_running of 2 is reached" in why(db, runs[3])
    release(db, 2)
    run_all(db)
    assert state(db, *runs) == ["waiting", "pending", "completed", "waiting", "pending"]
    release(db, 0, 3)
    run_all(db)
    assert state(db, *runs) == ["completed", "waiting", "completed", "completed", "waiting"]


def test_a_retry_waits_for_nobody_but_is_refused_while_another_holds_its_key(db, make_workflow, run_all):
    make_workflow(gated("keyed", {**KEYED, "max_running": 1}))
    first, second = start(db, "keyed", {"id": "1", "who": "a"}), start(db, "keyed", {"id": "2", "who": "a"})
    third = start(db, "keyed", {"id": "3", "who": "b"})
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s)", (first,))
    run_all(db)
    with pytest.raises(psycopg.Error, match=f'run {second} holds the concurrency_key "a" of run {first}') as refused:
        db.execute("select stellwerk.retry_run(%s)", (first,))
    assert refused.value.sqlstate == "SW003"
    release(db, 2)
    db.execute("select stellwerk.pump()")
    db.execute("select stellwerk.retry_run(%s)", (first,))
    run_all(db)
    assert state(db, first, second) == ["waiting", "completed"]
    release(db, 1)
    run_all(db)
    assert state(db, first, third) == ["completed", "waiting"]
    assert leftovers(db) == (0, 1)


def test_a_run_that_was_cancelled_in_the_line_and_is_retried_waits_again(db, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    first, second, third = (start(db, "one", {"id": str(n)}) for n in range(3))
    run_all(db)
    for pumped in (True, False):
        db.execute("select stellwerk.cancel_run(%s)", (second,))
        if pumped:
            run_all(db)
        db.execute("select stellwerk.retry_run(%s)", (second,))
        run_all(db)
        assert state(db, first, second, third) == ["waiting", "pending", "pending"]
    assert leftovers(db) == (2, 1)
    release(db, 0)
    run_all(db)
    assert state(db, first, second, third) == ["completed", "waiting", "pending"]


# -- every way in -------------------------------------------------------------------------------------------------------


def test_requests_row_events_and_calls_pass_the_same_gate(db, make_workflow, run_all):
    db.execute("create table public.orders (id int primary key)")
    doc = gated("one", {"max_running": 1})
    doc["nodes"].append(node("row", "trigger.row", {"table": "public.orders"}))
    doc["edges"].append({"from": "row", "to": "hold"})
    make_workflow(doc)
    make_workflow(
        document(
            "caller",
            [START, node("child", "logic.call", {"workflow": "one", "payload": {"id": "c"}})],
            ["start -> child"],
        )
    )
    first = start(db, "one", {"id": "1"})
    (asked,) = db.execute(
        "insert into stellwerk.run_request (workflow, payload) values ('one', '{\"id\": \"2\"}') returning run_id"
    ).fetchone()
    run_all(db)
    db.execute("insert into public.orders values (3)")
    start(db, "caller")
    run_all(db)
    rows = db.execute(
        "select run_id, source, state from stellwerk.run_overview where workflow = 'one' order by run_id"
    ).fetchall()
    assert [r[1:] for r in rows] == [
        ("sql", "waiting"),
        ("sql", "pending"),
        ("row", "pending"),
        ("workflow", "pending"),
    ]
    assert [r[0] for r in rows[:2]] == [first, asked]
    release(db, 1)
    run_all(db)
    release(db, 2)
    run_all(db)
    release(db, 3)
    run_all(db)
    release(db, "c")
    run_all(db)
    assert {s for (s,) in db.execute("select state from stellwerk.run")} == {"completed"}


def test_a_run_that_calls_its_own_workflow_does_not_wait_for_itself(db, make_workflow, run_all):
    make_workflow(
        document(
            "inward",
            [
                START,
                node("deep", "logic.if", {"condition": "trigger.payload.depth > 0"}),
                node("again", "logic.call",
                     {"workflow": "inward", "payload": {"depth": "{{ trigger.payload.depth - 1 }}", "who": "a"}}),
            ],
            ["start -> deep", "deep.true -> again"],
            settings={"max_running": 1, **KEYED},
        )
    )  # fmt: skip
    outer, other = start(db, "inward", {"depth": 3, "who": "a"}), start(db, "inward", {"depth": 0, "who": "a"})
    run_all(db)
    assert state(db, outer, other) == ["completed", "completed"]
    assert leftovers(db) == (0, 0)


def test_a_run_that_is_given_up_by_its_caller_leaves_the_line(db, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    make_workflow(
        document(
            "caller",
            [START, node("child", "logic.call", {"workflow": "one", "payload": {"id": "c"}})],
            ["start -> child"],
        )
    )
    start(db, "one", {"id": "1"})
    caller = start(db, "caller")
    run_all(db)
    assert leftovers(db) == (1, 1)
    db.execute("select stellwerk.cancel_run(%s)", (caller,))
    run_all(db)
    assert leftovers(db) == (0, 1)
