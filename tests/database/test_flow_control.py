"""What holds back runs of a workflow with max_running, concurrency_key, debounce, throttle and priority."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import psycopg
import pytest
from helpers import START, Worker, call, document, node, run, start, states, transform


def gated(slug: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A workflow whose runs go on until they are told to end: signal go, with the run's payload.id."""
    hold = node("hold", "logic.wait", {"event": "go", "correlation": "{{ trigger.payload.id }}"})
    return document(
        slug, [START, hold, transform("done", {"ok": True})], ["start -> hold", "hold -> done"], settings=settings
    )


def release(db: Any, *ids: object) -> None:
    for each in ids:
        assert db.execute("select stellwerk.signal('go', %s)", (str(each),)).fetchone() == (1,)


def state(db: Any, *run_ids: int) -> list[str]:
    return [run(db, run_id)["state"] for run_id in run_ids]


def why(db: Any, run_id: int) -> str:
    return str(db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0])


def reason(db: Any, run_id: int) -> str:
    return str(db.execute("select reason from stellwerk.run where run_id = %s", (run_id,)).fetchone()[0])


def leftovers(db: Any) -> tuple[int, int]:
    """How many runs stand at a gate or hold a slot."""
    row = db.execute(
        "select (select count(*) from stellwerk.flow_wait), (select count(*) from stellwerk.flow_slot)"
    ).fetchone()
    return int(row[0]), int(row[1])


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
    at = db.execute("select now() + interval '0.6 seconds'").fetchone()[0]
    later = start(db, "one", {"id": "later"}, run_at=at)
    now = start(db, "one", {"id": "now"})
    run_all(db)
    assert state(db, later, now) == ["pending", "waiting"]
    assert "waits for its start at" in why(db, later)

    def looked() -> bool:
        db.execute("select stellwerk.tick()")
        run_all(db)
        return "max_running of 1 is reached" in why(db, later)

    wait_until(looked)
    release(db, "now")
    run_all(db)
    assert state(db, later, now) == ["waiting", "completed"]


# -- concurrency_key ----------------------------------------------------------------------------------------------------


KEYED = {"concurrency_key": "{{ trigger.payload.who }}"}


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


# -- debounce and throttle ----------------------------------------------------------------------------------------------


def pump_until(db: Any, run_all: Any, wait_until: Any, holds: Any, what: str) -> None:
    def looked() -> bool:
        db.execute("select stellwerk.tick()")
        run_all(db)
        return bool(holds())

    wait_until(looked, what=what)


def test_debounce_lets_only_the_last_of_a_burst_start(db, make_workflow, run_all, wait_until):
    make_workflow(gated("calm", {**KEYED, "debounce": "PT0.5S"}))
    runs = [start(db, "calm", {"id": str(n), "who": "ann"}) for n in range(3)]
    other = start(db, "calm", {"id": "o", "who": "bob"})
    run_all(db)
    assert state(db, *runs, other) == ["cancelled", "cancelled", "pending", "pending"]
    assert reason(db, runs[0]) == f'replaced by run {runs[1]}, which came within PT0.5S with the same key "ann"'
    assert 'unless another run with the key "ann" comes before (debounce PT0.5S)' in why(db, runs[2])
    pump_until(db, run_all, wait_until, lambda: state(db, runs[2], other) == ["waiting"] * 2, "the last starts")
    waited = db.execute("select started_at - created_at from stellwerk.run where run_id = %s", (runs[2],)).fetchone()
    assert 0.5 <= waited[0].total_seconds() < 5


def test_debounce_without_a_key_holds_for_the_whole_workflow(db, make_workflow, run_all, wait_until):
    make_workflow(gated("calm", {"debounce": "PT0.3S"}))
    runs = [start(db, "calm", {"id": str(n)}) for n in range(2)]
    run_all(db)
    assert state(db, *runs) == ["cancelled", "pending"]
    assert reason(db, runs[0]) == f"replaced by run {runs[1]}, which came within PT0.3S"
    pump_until(db, run_all, wait_until, lambda: state(db, runs[1]) == ["waiting"], "the last starts")
    third = start(db, "calm", {"id": "3"})
    pump_until(db, run_all, wait_until, lambda: state(db, third) == ["waiting"], "the next starts beside it")
    assert leftovers(db) == (0, 0)


def test_throttle_spaces_out_the_starts_of_a_key(db, make_workflow, run_all, wait_until):
    doc = document("slow", [START, transform("a", 1)], ["start -> a"], settings={**KEYED, "throttle": "PT0.4S"})
    make_workflow(doc)
    start(db, "slow", {"who": "zoe"})
    run_all(db)  # the first one takes longer
    runs = [start(db, "slow", {"who": "ann"}) for _ in range(3)]
    other = start(db, "slow", {"who": "bob"})
    run_all(db)
    assert state(db, *runs, other) == ["completed", "pending", "pending", "completed"]
    assert 'waits: the throttle of PT0.4S lets the next run with the key "ann" start at' in why(db, runs[1])
    assert 'waits: it is number 2 in the line of the key "ann".' in why(db, runs[2])
    pump_until(db, run_all, wait_until, lambda: state(db, *runs) == ["completed"] * 3, "all have run")
    starts = [
        r for (r,) in db.execute("select started_at from stellwerk.run where run_id = any (%s) order by 1", (runs,))
    ]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(starts)]
    assert all(gap >= 0.3 for gap in gaps), gaps  # they start a moment after the gate has opened


def test_throttle_without_a_key_spaces_out_the_whole_workflow(db, make_workflow, run_all, wait_until):
    make_workflow(document("slow", [START, transform("a", 1)], ["start -> a"], settings={"throttle": "PT0.3S"}))
    runs = [start(db, "slow") for _ in range(3)]
    run_all(db)
    assert state(db, *runs) == ["completed", "pending", "pending"]
    assert "it is number 2 in the line of its throttled workflow" in why(db, runs[2])
    pump_until(db, run_all, wait_until, lambda: state(db, *runs) == ["completed"] * 3, "all have run")


def test_throttle_with_skip_drops_what_comes_too_soon(db, make_workflow, run_all):
    settings = {**KEYED, "throttle": "PT1H", "on_conflict": "skip"}
    make_workflow(document("slow", [START, transform("a", 1)], ["start -> a"], settings=settings))
    first = start(db, "slow", {"who": "ann"})
    run_all(db)
    second = start(db, "slow", {"who": "ann"})
    run_all(db)
    assert state(db, first, second) == ["completed", "cancelled"]
    assert reason(db, second).startswith('skipped: the throttle of PT1H lets the next run with the key "ann" start at')


def test_past_throttles_are_forgotten(db, make_workflow, run_all, wait_until):
    make_workflow(
        document("slow", [START, transform("a", 1)], ["start -> a"], settings={**KEYED, "throttle": "PT0.1S"})
    )
    start(db, "slow", {"who": "ann"})
    run_all(db)
    pump_until(db, run_all, wait_until,
               lambda: db.execute("select count(*) from stellwerk.flow_throttle").fetchone() == (0,), "it is gone")  # fmt: skip


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


# -- two at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"max_running": 3}, {"concurrency_key": "one"}], ids=["max_running", "key"])
@pytest.mark.parametrize("second_first", [False, True], ids=["commits first", "commits second"])
def test_two_pumps_at_once_let_no_more_start_than_one(db, dsn, make_workflow, run_all, settings, second_first):
    make_workflow(gated("few", settings))
    runs = [start(db, "few", {"id": str(n)}) for n in range(8)]
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        one.execute("select stellwerk.pump()")
        busy = two.execute("select stellwerk.pump() -> 'next_due_seconds'").fetchone()[0]
        assert 0 < busy <= 0.05, "it asks to be called again soon"
        for each in (two, one) if second_first else (one, two):
            each.commit()
    run_all(db)
    limit = settings.get("max_running", 1)
    assert state(db, *runs) == ["waiting"] * limit + ["pending"] * (8 - limit)
    # Slots are given back while another pump is at the gate.
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        one.execute("select stellwerk.cancel_run(%s)", (runs[0],))
        two.execute("select stellwerk.pump()")
        for each in (two, one) if second_first else (one, two):
            each.commit()
    run_all(db)
    assert state(db, *runs[:2]) == ["cancelled", "waiting"]
    assert state(db, *runs).count("waiting") == limit


def test_many_pumps_never_exceed_the_limit(db, dsn, make_workflow, run_all):
    """Workers complete, start and pump side by side; at no moment do more run than may."""
    make_workflow(document("few", [START, call("a")], ["start -> a"], settings={"max_running": 4}))
    make_workflow(document("keyed", [START, call("a")], ["start -> a"], settings=KEYED))
    for n in range(60):
        start(db, "few")
        start(db, "keyed", {"who": str(n % 3)})
    most: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            worker = Worker(dsn)
            while not done.is_set():
                worker.connection.execute("select stellwerk.pump()")
                worker.end(*worker.begin(worker.queued()[:3]) or [])
                if worker.connection.execute(
                    "select not exists (select from stellwerk.run where ended_at is null)"
                ).fetchone()[0]:
                    done.set()
        except BaseException as error:
            errors.append(error)
            done.set()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not done.wait(0.005):
        most.append(
            db.execute("""
                select count(*) filter (where w.slug = 'few'), coalesce(max(k.n), 0)
                  from stellwerk.run r join stellwerk.workflow w using (tenant_id, workflow_id)
                  left join (select payload ->> 'who' as who, count(*) as n from stellwerk.run
                              where state in ('running', 'waiting') and payload ? 'who' group by 1) k on k.who = r.payload ->> 'who'
                 where r.state in ('running', 'waiting')
            """).fetchone()
        )
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    run_all(db)
    assert {s for (s,) in db.execute("select state from stellwerk.run")} == {"completed"}
    assert max(few for few, _ in most) <= 4
    assert max(keyed for _, keyed in most) <= 1
    assert leftovers(db) == (0, 0)


def test_an_open_transaction_holds_up_nobody_else_in_the_line(db, dsn, make_workflow, run_all):
    make_workflow(gated("keyed", KEYED))
    runs = [start(db, "keyed", {"id": str(n), "who": "a"}) for n in range(3)]
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.cancel_run(%s)", (runs[1],))
        release(db, 0)
        db.execute("set statement_timeout = '5s'")
        run_all(db)
        assert state(db, *runs) == ["completed", "pending", "pending"]
        application.rollback()
    run_all(db)
    assert state(db, *runs) == ["completed", "waiting", "pending"]
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.cancel_run(%s)", (runs[2],))
        run_all(db)
        release(db, 1)
        run_all(db)
        application.commit()
    run_all(db)
    assert state(db, *runs) == ["completed", "completed", "cancelled"]
    assert leftovers(db) == (0, 0)


def test_what_a_transaction_did_at_a_gate_goes_back_with_it(db, dsn, make_workflow, run_all):
    make_workflow(gated("few", {"max_running": 1}))
    runs = [start(db, "few", {"id": str(n)}) for n in range(2)]
    with psycopg.connect(dsn) as dying:
        dying.execute("select stellwerk.pump()")
        dying.rollback()
    assert leftovers(db) == (2, 0)
    run_all(db)
    assert state(db, *runs) == ["waiting", "pending"]


def test_a_debounced_run_that_somebody_held_is_replaced_all_the_same(db, dsn, make_workflow, run_all, wait_until):
    make_workflow(gated("calm", {"debounce": "PT0.4S"}))
    first = start(db, "calm", {"id": "1"})
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.cancel_run(%s)", (first,))
        second = start(db, "calm", {"id": "2"})
        run_all(db)
        application.rollback()
    assert state(db, first, second) == ["pending", "pending"]
    pump_until(db, run_all, wait_until, lambda: state(db, second) == ["waiting"], "the second starts")
    assert state(db, first) == ["cancelled"]
    assert reason(db, first) == f"replaced by run {second}, which came within PT0.4S"


def test_a_run_that_somebody_holds_when_its_turn_comes_starts_later(db, dsn, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    runs = [start(db, "one", {"id": str(n)}) for n in range(2)]
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.pause_run(%s)", (runs[1],))
        release(db, 0)
        run_all(db)
        application.rollback()
    run_all(db)
    assert state(db, *runs) == ["completed", "waiting"]


def test_a_gate_that_raises_keeps_no_other_closed(db, make_workflow, run_all):
    for slug in ("bad", "good"):
        make_workflow(gated(slug, {"max_running": 1}))
    bad, good = start(db, "bad", {"id": "b"}), start(db, "good", {"id": "g"})
    db.execute("alter table stellwerk.workflow_version disable trigger user")
    huge = "update stellwerk.workflow_version d set settings = %s from stellwerk.workflow w where w.slug = 'bad' and d.workflow_id = w.workflow_id"
    db.execute(huge, ('{"max_running": 99999999999}',))
    notices = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    run_all(db)
    assert state(db, bad, good) == ["pending", "waiting"]
    assert any(n.startswith("the gate of workflow bad stays closed: ") for n in notices)
    db.execute(huge, ('{"max_running": 1}',))
    run_all(db)
    assert state(db, bad) == ["waiting"]


# -- cost ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"max_running": 5}, {"concurrency_key": "one"}], ids=["max_running", "key"])
def test_a_long_line_costs_no_more_than_a_short_one(db, make_workflow, run_all, settings):
    make_workflow(gated("few", settings))

    def reads(count: int) -> float:
        """Rows and index entries read per run that passes the gate, with so many in the line."""
        db.execute(
            "select stellwerk.start_run('few', jsonb_build_object('id', g::text)) from generate_series(1, %s) g",
            (count,),
        )
        run_all(db)
        db.execute("vacuum analyze stellwerk.flow_wait, stellwerk.flow_slot")
        before = touched()
        for _ in range(10):
            going = db.execute(
                "select stellwerk.cancel_run(run_id) from stellwerk.run where state = 'waiting'"
            ).rowcount
            run_all(db)
        return (touched() - before) / 10 / max(going, 1)

    def touched() -> int:
        db.execute("select pg_stat_force_next_flush()")
        db.execute("select 1")
        db.execute("select pg_stat_clear_snapshot()")
        return int(
            db.execute("""
                select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) from pg_stat_user_tables
                 where relname in ('flow_wait', 'flow_slot') and schemaname = 'stellwerk'
            """).fetchone()[0]
        )

    short = reads(50)
    long = reads(2000)
    assert long < 3 * short + 20, (short, long)
