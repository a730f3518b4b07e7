"""Timers: each fires once, none early; through a night in which the clocks change, jumps and an hour of silence."""

from __future__ import annotations

import random
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from database.clock import set_clock, shift, tick
from database.helpers import START, document, node, run, start, states, transform


def timer_workflow(slug="timers", config=None, type_="logic.wait", **more):
    nodes = [START, node("w", type_, config or {"until": "{{ trigger.payload.at }}"}),
             node("l", "log.write", {"message": "fired"})]  # fmt: skip
    return document(slug, nodes, ["start -> w", "w -> l"], **more)


def start_many(db, slug, times, key="at"):
    """Runs of a workflow, one for each time."""
    db.execute(
        "select count(stellwerk.start_run(%s, jsonb_build_object(%s::text, t.at))) from unnest(%s::text[]) t (at)",
        (slug, key, times),
    )


# -- ten thousand timers ----------------------------------------------------------------------------------------------

ROME = ZoneInfo("Europe/Rome")
NIGHT = datetime(2030, 10, 26, 20, tzinfo=UTC)  # in Rome 22:00; at 01:00 UTC the clocks go from 03:00 back to 02:00


def test_ten_thousand_timers_through_a_night(dsn, db, make_workflow, run_all, request):
    """Wall-clock times of Rome, an hour in which nothing runs at all, and two processes that tick side by side while the
    clock of their machine jumps about: the database's clock alone counts."""
    count = 10_000 if request.config.getoption("full") else 1_500
    chosen = random.Random(7)
    db.execute("select stellwerk.set_time_zone('Europe/Rome')")
    set_clock(db, NIGHT)
    slug = make_workflow(timer_workflow())
    # A third each: moments in UTC, times on the wall (those between 02:00 and 03:00 come twice), whole hours.
    local = NIGHT.replace(tzinfo=None) + timedelta(hours=2)
    times = [
        (NIGHT + timedelta(seconds=chosen.randint(60, 9 * 3600))).isoformat()
        if number % 3 == 0
        else (local + timedelta(seconds=chosen.randint(60, 8 * 3600))).isoformat()
        if number % 3 == 1
        else (NIGHT + timedelta(hours=chosen.randint(1, 9))).isoformat()
        for number in range(count)
    ]
    start_many(db, slug, times)
    run_all(db, 100_000)
    assert db.execute("select count(*) from stellwerk.timer").fetchone() == (count,)
    due = dict(db.execute("select run_id, due_at from stellwerk.timer").fetchall())
    # What another library makes of the same times; of a time that comes twice the second is meant.
    meant = [datetime.fromisoformat(at) for at in times]
    meant = [at if at.tzinfo else at.replace(tzinfo=ROME, fold=1).astimezone(UTC) for at in meant]
    assert sorted(due.values()) == sorted(meant)
    twice = {at for at in meant if NIGHT + timedelta(hours=4) <= at < NIGHT + timedelta(hours=6)}
    assert len(twice) > count / 50, "nothing was due in the hour that comes twice"
    left = set(due)
    now = NIGHT
    with psycopg.connect(dsn, autocommit=True) as other:
        while now < NIGHT + timedelta(hours=11):
            # For an hour after the change nothing runs at all.
            now += timedelta(hours=1) if now.hour == 1 else timedelta(minutes=chosen.choice([7, 13, 30]))
            for connection in (db, other):
                set_clock(connection, now)
            beside = threading.Thread(target=tick, args=(other,))
            beside.start()
            while tick(db)["fired"]:
                pass
            beside.join()
            while tick(other)["fired"]:
                pass
            still = {row[0] for row in db.execute("select run_id from stellwerk.timer").fetchall()}
            latest = now + timedelta(minutes=1)  # the shifted clocks went on while that was done
            assert all(due[run_id] <= latest for run_id in left - still), "early"
            assert all(due[run_id] > now for run_id in still), "late"
            left = still
            assert run_all(db, 100_000)
    assert left == set()
    assert db.execute("select count(*), count(distinct run_id) from stellwerk.run_log").fetchone() == (count, count)
    assert db.execute("select state, count(*) from stellwerk.run group by 1").fetchall() == [("completed", count)]


# -- the test clock ---------------------------------------------------------------------------------------------------


def test_only_owners_of_the_schema_may_shift_the_clock(db):
    shift(db, "30 days")
    ahead = "select stellwerk.clock() > now() + interval '29 days'"
    assert db.execute(ahead).fetchone() == (True,)
    db.execute(
        "grant execute on function stellwerk.clock(), stellwerk.shifted_clock(), stellwerk.acts_as(text) to public"
    )
    db.execute("set role stellwerk_worker")
    assert db.execute(ahead).fetchone() == (False,)
    db.execute("reset role")
    shift(db, "0")
    assert db.execute(ahead).fetchone() == (False,)


# -- reminders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("type_", "config", "before"), [
    ("timer.reminder_call", {}, timedelta(days=1)),
    ("timer.precheck_docs", {}, timedelta(hours=3)),
    ("timer.reminder_call", {"offset": "PT2H"}, timedelta(hours=2)),
    ("timer.precheck_docs", {"offset": "{{ trigger.payload.offset }}"}, timedelta(minutes=90)),
])  # fmt: skip
def test_reminders_come_before_their_time(db, make_workflow, run_all, type_, config, before):
    slug = make_workflow(timer_workflow("r", {"at": "{{ trigger.payload.at }}", **config}, type_))
    at = datetime(2031, 3, 1, 9, tzinfo=UTC)
    set_clock(db, at - timedelta(days=40))
    run_id = start(db, slug, {"at": at.isoformat(), "offset": "PT90M"})
    run_all(db)
    assert db.execute("select due_at from stellwerk.timer where kind = 'wait'").fetchone() == (at - before,)
    set_clock(db, at - before - timedelta(seconds=5))
    assert tick(db)["fired"] == 0
    set_clock(db, at - before)
    assert tick(db)["fired"] == 1
    run_all(db)
    assert run(db, run_id)["state"] == "completed"


@pytest.mark.parametrize("type_", ["timer.reminder_call", "timer.precheck_docs"])
@pytest.mark.parametrize(("past", "state"), [("fire", "completed"), ("skip", "skipped"), ("fail", "failed")])
def test_an_offset_that_is_past_does_what_was_stated(db, make_workflow, run_all, type_, past, state):
    slug = make_workflow(timer_workflow("r", {"at": "{{ now }}", "past": past}, type_))
    run_id = start(db, slug)
    run_all(db)
    assert states(db, run_id)["w"] == state
    if past == "fail":
        assert run(db, run_id)["error"]["class"] == "past"


def test_the_same_time_of_day_across_the_change_of_clocks(db, make_workflow, run_all):
    db.execute("select stellwerk.set_time_zone('Europe/Rome')")
    set_clock(db, datetime(2030, 3, 1, tzinfo=UTC))
    start(db, make_workflow(timer_workflow("r", {"at": "2030-03-31T09:00:00"}, "timer.reminder_call")))
    run_all(db)
    assert db.execute("select due_at from stellwerk.timer").fetchone() == (datetime(2030, 3, 30, 8, tzinfo=UTC),)


# -- months in seconds ------------------------------------------------------------------------------------------------


def test_a_story_of_months_is_played_in_seconds(db, make_workflow, run_all):
    nodes = [
        START,
        node("a", "logic.wait", {"for": "P30D"}),
        node("b", "logic.wait", {"for": "P60D"}),
        transform("e", "{{ now }}"),
    ]
    run_id = start(db, make_workflow(document("months", nodes, ["start -> a", "a -> b", "b -> e"])))
    run_all(db)
    for days, place in ((30, "b"), (90, "e")):
        shift(db, f"{days} days 00:00:05")
        tick(db)
        run_all(db)
        assert place in states(db, run_id)
    ended = datetime.fromisoformat(run(db, run_id)["output"])
    assert timedelta(days=89) < ended - datetime.now(UTC) < timedelta(days=91)
