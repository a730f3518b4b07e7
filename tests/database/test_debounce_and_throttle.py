"""Bursts of starts are waited out, or spaced out."""

from __future__ import annotations

import itertools

from database.clock import shift
from database.flowing import KEYED, gated, leftovers, pump_until, reason, state, why
from database.helpers import START, document, start, transform


def test_debounce_lets_only_the_last_of_a_burst_start(db, make_workflow, run_all, wait_until):
    make_workflow(gated("calm", {**KEYED, "debounce": "PT2S"}))
    runs = [start(db, "calm", {"id": str(n), "who": "ann"}) for n in range(3)]
    other = start(db, "calm", {"id": "o", "who": "bob"})
    run_all(db)
    assert state(db, *runs, other) == ["cancelled", "cancelled", "pending", "pending"]
    assert reason(db, runs[0]) == f'replaced by run {runs[1]}, which came within PT2S with the same key "ann"'
    assert 'unless another run with the key "ann" comes before (debounce PT2S)' in why(db, runs[2])
    pump_until(db, run_all, wait_until, lambda: state(db, runs[2], other) == ["waiting"] * 2, "the last starts")
    waited = db.execute("select started_at - created_at from stellwerk.run where run_id = %s", (runs[2],)).fetchone()
    assert 2 <= waited[0].total_seconds() < 10


def test_debounce_without_a_key_holds_for_the_whole_workflow(db, make_workflow, run_all, wait_until):
    make_workflow(gated("calm", {"debounce": "PT1H"}))
    runs = [start(db, "calm", {"id": str(n)}) for n in range(2)]
    run_all(db)
    assert state(db, *runs) == ["cancelled", "pending"]
    assert reason(db, runs[0]) == f"replaced by run {runs[1]}, which came within PT1H"
    shift(db, "1 hour")
    pump_until(db, run_all, wait_until, lambda: state(db, runs[1]) == ["waiting"], "the last starts")
    third = start(db, "calm", {"id": "3"})
    shift(db, "2 hours 1 minute")
    pump_until(db, run_all, wait_until, lambda: state(db, third) == ["waiting"], "the next starts beside it")
    assert leftovers(db) == (0, 0)


def one_more_each_hour(db, run_all, wait_until, runs):
    """Under a throttle of an hour, after the first one has run."""
    for place in range(1, len(runs)):
        shift(db, f"{place} hours 1 minute")
        pump_until(db, run_all, wait_until, lambda n=place: state(db, runs[n]) == ["completed"], "the next one runs")
        assert state(db, *runs[place:]) == ["completed"] + ["pending"] * (len(runs) - place - 1)


def test_throttle_spaces_out_the_starts_of_a_key(db, make_workflow, run_all, wait_until):
    doc = document("slow", [START, transform("a", 1)], ["start -> a"], settings={**KEYED, "throttle": "PT1H"})
    make_workflow(doc)
    start(db, "slow", {"who": "zoe"})
    run_all(db)  # the first one takes longer
    runs = [start(db, "slow", {"who": "ann"}) for _ in range(3)]
    other = start(db, "slow", {"who": "bob"})
    run_all(db)
    assert state(db, *runs, other) == ["completed", "pending", "pending", "completed"]
    assert 'waits: the throttle of PT1H lets the next run with the key "ann" start at' in why(db, runs[1])
    assert 'waits: it is number 2 in the line of the key "ann".' in why(db, runs[2])
    one_more_each_hour(db, run_all, wait_until, runs)
    starts = [
        r for (r,) in db.execute("select started_at from stellwerk.run where run_id = any (%s) order by 1", (runs,))
    ]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(starts)]
    assert all(gap >= 3600 for gap in gaps), gaps


def test_throttle_without_a_key_spaces_out_the_whole_workflow(db, make_workflow, run_all, wait_until):
    make_workflow(document("slow", [START, transform("a", 1)], ["start -> a"], settings={"throttle": "PT1H"}))
    runs = [start(db, "slow") for _ in range(3)]
    run_all(db)
    assert state(db, *runs) == ["completed", "pending", "pending"]
    assert "it is number 2 in the line of its throttled workflow" in why(db, runs[2])
    one_more_each_hour(db, run_all, wait_until, runs)


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
