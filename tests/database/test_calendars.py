"""Working hours, and times in zones."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
import pytest
from database.clock import set_clock
from database.helpers import START, document, node, run, start, states, transform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

OFFICE = {"mon-thu": [["09:00", "13:00"], ["14:00", "18:00"]], "fri": [["09:00", "13:00"]]}


@pytest.fixture
def office(db):
    db.execute("select stellwerk.set_calendar('office', %s, '{2030-05-01}', 'Europe/Rome')", (Jsonb(OFFICE),))


def rome(text):
    """A time of Rome in the summer of 2030; Monday is 29 April."""
    return datetime.fromisoformat(f"2030-{text}:00+02:00")


def working_time(db, at, duration="PT0S"):
    return db.execute(
        "select stellwerk.working_time(c, %s, %s::interval) from stellwerk.calendar c", (at, duration)
    ).fetchone()[0]


@pytest.mark.parametrize(("at", "duration", "until"), [
    ("04-29T10:00", "PT1H", "04-29T11:00"),
    ("04-29T12:00", "PT2H", "04-29T15:00"),  # lunch
    ("04-29T10:00", "PT8H", "04-30T10:00"),
    ("04-29T09:00", "PT8H", "04-29T18:00"),  # to the very end of the day
    ("04-29T20:00", "PT1H", "04-30T10:00"),
    ("04-30T17:00", "PT2H", "05-02T10:00"),  # over the holiday
    ("05-03T12:00", "PT2H", "05-06T10:00"),  # over the weekend
    ("05-04T12:00", "PT0S", "05-06T09:00"),
    ("04-29T10:00", "PT0S", "04-29T10:00"),
    ("04-29T18:00", "PT0S", "04-30T09:00"),  # the end is not working time any more
    ("04-29T10:30", "P1D", "04-30T10:30"),
    ("04-30T10:30", "P1D", "05-02T10:30"),
    ("05-02T17:00", "P1D", "05-06T09:00"),  # Friday is over by then
    ("05-02T10:00", "P2DT1H", "05-06T11:00"),
])  # fmt: skip
def test_working_time(db, office, at, duration, until):
    assert working_time(db, rome(at), duration) == rome(until)


@pytest.mark.parametrize("duration", ["P1M", "P1Y", "PT-1H"])
def test_a_calendar_counts_days_and_hours_only(db, office, duration):
    with pytest.raises(psycopg.Error, match="counts days"):
        working_time(db, rome("04-29T10:00"), duration)


def test_a_night_shift_lasts_as_long_as_the_clocks_say(db):
    """From 01:00 to 05:00 on the night in which the clocks go forward are three hours."""
    db.execute(
        "select stellwerk.set_calendar('night', '{\"sun\": [[\"01:00\", \"05:00\"]]}', time_zone => 'Europe/Rome')"
    )
    begin = datetime.fromisoformat("2030-03-31T01:00:00+01:00")
    assert working_time(db, begin, "PT3H") == datetime.fromisoformat("2030-03-31T05:00:00+02:00")
    assert working_time(db, begin, "PT4H") == datetime.fromisoformat("2030-04-07T02:00:00+02:00")


def test_working_time_adds_up(db, office):
    """So many minutes, and so many more, are both together; and what comes out is working time."""

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.integers(0, 60 * 24 * 20), st.integers(0, 3000), st.integers(1, 3000))
    def check(minutes, first, second):
        at = rome("04-25T00:00") + timedelta(minutes=minutes)
        middle = working_time(db, at, f"PT{first}M")
        end = working_time(db, middle, f"PT{second}M")
        assert end == working_time(db, at, f"PT{first + second}M")
        assert working_time(db, end - timedelta(seconds=1)) == end - timedelta(seconds=1)
        assert end - middle >= timedelta(minutes=second)

    check()


@pytest.mark.parametrize(("config", "until"), [
    ({"for": "PT8H", "calendar": "office"}, "04-30T12:00"),
    ({"for": "P2D", "calendar": "office"}, "05-02T12:00"),
    ({"until": "2030-05-04T10:00:00", "calendar": "office"}, "05-06T09:00"),
    ({"before": "P2D", "of": "2030-05-06T10:00:00", "calendar": "office"}, "05-06T09:00"),
    ({"after": "PT4H", "of": "2030-04-29T18:00:00+02:00", "calendar": "office"}, "04-30T09:00"),
    ({"until": "2030-04-30T10:15:00", "calendar": "office"}, "04-30T10:15"),
])  # fmt: skip
def test_waits_in_working_hours(db, office, make_workflow, run_all, config, until):
    set_clock(db, rome("04-29T12:00"))
    nodes = [START, node("w", "logic.wait", config), transform("e", 1)]
    run_id = start(db, make_workflow(document("work", nodes, ["start -> w", "w -> e"])))
    run_all(db)
    [due] = db.execute("select due_at from stellwerk.timer where run_id = %s", (run_id,)).fetchone()
    assert abs(due - rome(until)) < timedelta(seconds=10)


def test_a_calendar_that_is_not_there_fails_the_step(db, office, make_workflow, run_all):
    nodes = [START, node("w", "logic.wait", {"for": "PT1H", "calendar": "office"}), transform("e", 1)]
    slug = make_workflow(document("work", nodes, ["start -> w", "w -> e"]))
    assert db.execute("select stellwerk.remove_calendar('office')").fetchone() == (True,)
    assert db.execute("select stellwerk.remove_calendar('office')").fetchone() == (False,)
    run_id = start(db, slug)
    run_all(db)
    assert (states(db, run_id)["w"], run(db, run_id)["error"]["class"]) == ("failed", "no_calendar")


def test_a_row_that_is_followed_is_put_off_to_working_hours(db, office, make_workflow, run_all):
    set_clock(db, rome("04-29T12:00"))
    db.execute("create table visit (id int primary key, at timestamptz)")
    db.execute("grant all on visit to stellwerk_owner")
    db.execute("insert into visit values (1, %s)", (rome("05-05T12:00"),))
    db.execute("select stellwerk.register_table('visit')")
    config = {"before": "P1D", "of": {"table": "visit", "key": 1, "column": "at"}, "calendar": "office"}
    run_id = start(db, make_workflow(document("r", [START, node("w", "logic.wait", config)], ["start -> w"])))
    run_all(db)
    due = "select due_at from stellwerk.timer where run_id = %s"
    assert db.execute(due, (run_id,)).fetchone() == (rome("05-06T09:00"),)
    db.execute("update visit set at = %s", (rome("05-03T10:00"),))
    db.execute("select stellwerk.tick()")
    assert db.execute(due, (run_id,)).fetchone() == (rome("05-02T10:00"),)


@pytest.mark.parametrize("hours", [
    "[]", "{}", '{"someday": [["09:00", "17:00"]]}', '{"mon": [["17:00", "09:00"]]}', '{"mon": [["09:00"]]}', '{"mon": []}',
    '{"mon": [["nine", "five"]]}', '{"fri-mon": [["09:00", "17:00"]]}', '{"mon": "09:00"}',
])  # fmt: skip
def test_hours_are_checked(db, hours):
    with pytest.raises(psycopg.Error) as told:
        db.execute("select stellwerk.set_calendar('c', %s::jsonb)", (hours,))
    assert told.value.sqlstate == "SW008"


@pytest.mark.parametrize(
    ("name", "zone"), [("", "UTC"), (None, "UTC"), ("Office", "UTC"), ("c", "Nowhere/Land"), ("c", "UTC' or 1")]
)
def test_names_and_zones_are_checked(db, name, zone):
    with pytest.raises(psycopg.Error) as told:
        db.execute("select stellwerk.set_calendar(%s, %s, time_zone => %s)", (name, Jsonb(OFFICE), zone))
    assert told.value.sqlstate == "SW008"


def test_a_calendar_takes_the_tenants_zone_and_is_replaced(db):
    db.execute("select stellwerk.set_time_zone('Europe/Vienna')")
    for hours in (OFFICE, {"sat": [["10:00", "12:00"]]}):
        db.execute("select stellwerk.set_calendar('c', %s, null)", (Jsonb(hours),))
    rows = db.execute("select time_zone, hours, holidays, updated_by from stellwerk.calendar").fetchall()
    assert rows == [("Europe/Vienna", {"6": [["10:00:00", "12:00:00"]]}, [], "db:postgres")]


@pytest.mark.parametrize(("at", "by", "until"), [
    ("2030-03-30T12:00:00+01:00", "P1D", "2030-03-31T12:00:00+02:00"),  # the same time of day
    ("2030-03-30T12:00:00+01:00", "PT24H", "2030-03-31T13:00:00+02:00"),  # as long as it takes
    ("2030-03-31T12:00:00+02:00", "P-1D", "2030-03-30T12:00:00+01:00"),
    ("2030-01-31T12:00:00+01:00", "P1M", "2030-02-28T12:00:00+01:00"),
    ("2030-10-26T02:30:00+02:00", "P1DT1H", "2030-10-27T03:30:00+01:00"),
])  # fmt: skip
def test_days_are_days_of_the_zone(db, at, by, until):
    for zone in ("UTC", "America/New_York"):  # whatever the session's zone is
        db.execute("select set_config('timezone', %s, false)", (zone,))
        found = db.execute(
            "select stellwerk.shift_time(%s, %s::interval, 'Europe/Rome')", (datetime.fromisoformat(at), by)
        ).fetchone()[0]
        assert found == datetime.fromisoformat(until)


@pytest.mark.parametrize(("text", "utc"), [
    ("2030-07-01T10:00:00Z", "2030-07-01 10:00:00"), ("2030-07-01T10:00:00+05:30", "2030-07-01 04:30:00"),
    ("2030-07-01 10:00:00", "2030-07-01 08:00:00"), ("2030-07-01T10:00", "2030-07-01 08:00:00"),
    ("2030-01-15", "2030-01-14 23:00:00"), ("2030-07-01T10:00:00.5-02", "2030-07-01 12:00:00.5"),
])  # fmt: skip
def test_times_without_an_offset_are_meant_in_the_zone(db, text, utc):
    db.execute("set timezone = 'Asia/Tokyo'")
    row = db.execute("select (stellwerk.read_time(%s, 'Europe/Rome') at time zone 'UTC')::text", (text,)).fetchone()
    assert row == (utc,)
