"""Schedules: the times of cron expressions, runs that start by them, and what people do to a schedule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim
from database.clock import set_clock, shift, tick
from database.helpers import document, node, run, transform
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from stellwerk.definition.cron import cron_fields

# -- times ------------------------------------------------------------------------------------------------------------

# Not where clocks are moved by half an hour: the library steps by whole ones there.
ZONES = ["UTC", "Europe/Rome", "America/New_York", "Australia/Sydney", "Asia/Kolkata", "America/St_Johns"]
NIGHTS = [  # around the changes of the clocks
    datetime(2026, 3, 28, 22, tzinfo=UTC),
    datetime(2026, 10, 24, 22, tzinfo=UTC),
    datetime(2026, 3, 8, 4, tzinfo=UTC),
    datetime(2026, 11, 1, 3, tzinfo=UTC),
    datetime(2026, 4, 4, 13, tzinfo=UTC),
    datetime(2026, 10, 3, 14, tzinfo=UTC),
    datetime(2028, 2, 28, 22, tzinfo=UTC),
]


def next_in_sql(db, expression, zone, after):
    row = db.execute("select stellwerk.cron_next(%s, %s, %s)", (Jsonb(cron_fields(expression)), zone, after)).fetchone()
    return row[0].astimezone(UTC) if row[0] else None


def next_by_library(expression, zone, after):
    """cronsim's next time that really lies after `after`: of an hour that comes twice it may tell the first."""
    for found in CronSim(expression, after.astimezone(ZoneInfo(zone))):
        if found.astimezone(UTC) > after:
            return found.astimezone(UTC)
    return None


def field(low, high):
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(sorted)
    return st.one_of(
        st.just("*"),
        st.integers(2, max(2, (high - low) // 2)).map(lambda step: f"*/{step}"),
        number.map(str),
        st.lists(number, min_size=2, max_size=4, unique=True).map(lambda some: ",".join(map(str, some))),
        spans.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(spans, st.integers(2, 7)).map(lambda two: f"{two[0][0]}-{two[0][1]}/{two[1]}"),
    )


DAYS = st.one_of(field(1, 28), st.just("*"), st.sampled_from(["L", "LW", "1,L", "30", "31"]))
WEEKDAYS = st.one_of(
    field(0, 7), st.just("*"), st.sampled_from(["MON-FRI", "5#2", "MON#1,FRI#3", "5L", "0", "7", "SUN"])
)
EXPRESSIONS = st.tuples(
    field(0, 59), st.one_of(field(0, 23), field(1, 3)), DAYS, st.one_of(st.just("*"), field(1, 12)), WEEKDAYS
).map(" ".join)


@pytest.fixture(scope="module")
def clockwork(server):
    with psycopg.connect(server.database(), autocommit=True) as connection:
        yield connection


def test_next_times_are_those_of_the_library(clockwork, request):
    """Many expressions in many zones, above all in the nights in which the clocks are changed."""

    @settings(
        max_examples=20000 if request.config.getoption("full") else 400,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=not request.config.getoption("full"),
    )
    @given(
        expression=EXPRESSIONS,
        zone=st.sampled_from(ZONES),
        night=st.sampled_from(NIGHTS),
        minutes=st.one_of(st.integers(0, 8 * 60), st.integers(-400 * 1440, 400 * 1440)),
        seconds=st.sampled_from([0, 0, 17]),
    )
    def compare(expression, zone, night, minutes, seconds):
        try:
            cron_fields(expression)
        except ValueError:  # the 31st of months that have none
            return
        at = night + timedelta(minutes=minutes, seconds=seconds)
        for _ in range(3):
            expected = next_by_library(expression, zone, at)
            found = next_in_sql(clockwork, expression, zone, at)
            assert found == expected, (expression, zone, at)
            if found is None:
                return
            at = found

    compare()


@pytest.mark.parametrize(("expression", "zone", "after", "times"), [
    # 02:30 does not exist on 29 March in Rome: it is taken when the clocks have been put forward.
    ("30 2 * * *", "Europe/Rome", "2026-03-28T12:00+01:00",
     ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
    # 02:30 comes twice on 25 October: it counts once.
    ("30 2 * * *", "Europe/Rome", "2026-10-24T12:00+02:00",
     ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
    # Every hour is every real hour.
    ("0 * * * *", "Europe/Rome", "2026-10-25T01:30+02:00",
     ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]),
    ("0 * * * *", "Europe/Rome", "2026-03-29T01:30+01:00", ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]),
    # Half an hour: from 02:00 back to 01:30, and from 02:00 on to 02:30.
    ("*/30 1,2 * * *", "Australia/Lord_Howe", "2026-04-05T01:30+11:00",
     ["2026-04-05T01:30+10:30", "2026-04-05T02:00+10:30", "2026-04-05T02:30+10:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00+10:30", ["2026-10-04T02:30+11:00"]),
    ("0 9 LW * *", "UTC", "2026-05-01T00:00+00:00", ["2026-05-29T09:00+00:00", "2026-06-30T09:00+00:00"]),
    # The second Friday, and not the fifth Tuesday too; the last Friday of a month with five and of one with four.
    ("0 0 * * 5#2", "UTC", "2026-03-28T00:00+00:00", ["2026-04-10T00:00+00:00", "2026-05-08T00:00+00:00"]),
    ("0 0 * * 2#2,3#5", "UTC", "2026-08-31T00:00+00:00",
     ["2026-09-08T00:00+00:00", "2026-09-30T00:00+00:00", "2026-10-13T00:00+00:00"]),
    ("0 0 * * 5L", "UTC", "2026-01-01T00:00+00:00", ["2026-01-30T00:00+00:00", "2026-02-27T00:00+00:00"]),
    ("0 0 29 2 *", "UTC", "2026-05-01T00:00+00:00", ["2028-02-29T00:00+00:00", "2032-02-29T00:00+00:00"]),
])  # fmt: skip
def test_nights_in_which_the_clocks_are_changed(clockwork, expression, zone, after, times):
    at, found = datetime.fromisoformat(after), []
    for _ in times:
        at = next_in_sql(clockwork, expression, zone, at)
        found.append(at)
    assert found == [datetime.fromisoformat(time) for time in times]


def test_a_time_that_never_comes(clockwork):
    fields = {**cron_fields("0 0 * * *"), "days": [31], "months": [2], "both": True}
    assert clockwork.execute("select stellwerk.cron_next(%s, 'Europe/Rome', now())", (Jsonb(fields),)).fetchone() == (
        None,
    )


# -- starting runs ----------------------------------------------------------------------------------------------------

NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)


def scheduled(slug="nightly", **config):
    config = config or {"cron": "30 7 * * *"}
    nodes = [node("at", "trigger.schedule", config), transform("e", "{{ trigger.payload.scheduled_at }}")]
    return document(slug, nodes, ["at -> e"])


def runs(db):
    """For which times runs were started."""
    rows = db.execute(
        "select payload ->> 'scheduled_at' from stellwerk.run where source = 'schedule' order by 1"
    ).fetchall()
    return [datetime.fromisoformat(at) for (at,) in rows]


def next_run(db):
    return db.execute("select next_run from stellwerk.schedule").fetchone()[0]


def test_a_schedule_starts_a_run_at_its_time_and_once(db, make_workflow, run_all):
    set_clock(db, NOON)
    make_workflow(scheduled(cron="30 7 * * *", time_zone="Europe/Rome"))
    due = datetime(2030, 5, 2, 5, 30, tzinfo=UTC)
    assert next_run(db) == due
    set_clock(db, due - timedelta(seconds=2))
    assert 0 < tick(db)["next_due_seconds"] <= 2
    assert runs(db) == []
    set_clock(db, due)
    assert [tick(db)["scheduled"] for _ in range(3)] == [1, 0, 0]
    run_all(db)
    assert (runs(db), next_run(db)) == ([due], due + timedelta(days=1))
    [run_id] = db.execute("select last_run_id from stellwerk.schedule").fetchone()
    found = run(db, run_id)
    assert (found["state"], found["source"], datetime.fromisoformat(found["output"])) == ("completed", "schedule", due)


@pytest.mark.parametrize(("catch_up", "hours"), [("none", []), ("last", [18]), ("all", [12, 15, 18])])
def test_times_that_were_missed(db, make_workflow, catch_up, hours):
    set_clock(db, NOON - timedelta(minutes=1))
    make_workflow(scheduled(cron="0 */3 * * *", catch_up=catch_up))
    set_clock(db, NOON + timedelta(hours=6, minutes=30))
    tick(db)
    tick(db)
    assert runs(db) == [NOON.replace(hour=hour) for hour in hours]
    assert next_run(db) == NOON.replace(hour=21)


def test_none_means_missed_and_not_a_little_late(db, make_workflow):
    set_clock(db, NOON - timedelta(minutes=1))
    make_workflow(scheduled(cron="0 12 * * *", catch_up="none"))
    set_clock(db, NOON + timedelta(minutes=2))
    tick(db)
    assert runs(db) == [NOON]


def test_after_years_the_last_time_is_found_at_once(db, make_workflow):
    set_clock(db, NOON)
    make_workflow(scheduled(cron="*/5 * * * *"))
    set_clock(db, NOON.replace(year=2035))
    tick(db)
    assert runs(db) == [NOON.replace(year=2035)]


def test_all_of_very_many_are_started_in_portions(db, make_workflow):
    set_clock(db, NOON)
    make_workflow(scheduled(cron="* * * * *", catch_up="all"))
    set_clock(db, NOON + timedelta(minutes=250, seconds=1))
    assert [tick(db)["scheduled"] for _ in range(4)] == [100, 100, 50, 0]
    assert runs(db) == [NOON + timedelta(minutes=n) for n in range(1, 251)]


def test_every_so_often(db, make_workflow):
    set_clock(db, NOON)
    make_workflow(scheduled(every="PT45M"))
    first = next_run(db)
    assert timedelta(0) <= first - NOON - timedelta(minutes=45) < timedelta(seconds=10)
    set_clock(db, first + timedelta(minutes=100))
    tick(db)
    assert runs(db) == [first + timedelta(minutes=90)]
    assert next_run(db) == first + timedelta(minutes=135)


def test_several_processes_start_each_time_once(dsn, db, make_workflow):
    set_clock(db, NOON)
    make_workflow(scheduled(cron="*/5 * * * *", catch_up="all"))
    with psycopg.connect(dsn, autocommit=False) as other:
        for connection in (db, other):
            set_clock(connection, NOON + timedelta(minutes=31))
        assert tick(other)["scheduled"] == 6
        assert tick(db)["scheduled"] == 0
        other.rollback()
    assert tick(db)["scheduled"] == 6
    assert len(runs(db)) == 6


# -- versions ---------------------------------------------------------------------------------------------------------


def test_publishing_keeps_what_has_not_changed(db, make_workflow):
    set_clock(db, NOON)
    make_workflow(scheduled(every="P1D"))
    before = next_run(db)
    shift(db, "0")
    set_clock(db, NOON + timedelta(hours=5))
    make_workflow({**scheduled(every="P1D"), "name": "renamed"})
    assert next_run(db) == before
    make_workflow(scheduled(every="P2D"))
    assert next_run(db) > before
    make_workflow(document("nightly", [node("start", "trigger.manual"), transform("e", 1)], ["start -> e"]))
    assert db.execute("select count(*) from stellwerk.schedule").fetchone() == (0,)


def test_a_tenants_zone_moves_schedules_without_one(db, make_workflow):
    set_clock(db, NOON)
    make_workflow(scheduled(cron="30 7 * * *"))
    assert next_run(db).astimezone(UTC).hour == 7
    db.execute("select stellwerk.set_time_zone('Europe/Rome')")
    assert next_run(db).astimezone(UTC).hour == 5
    with pytest.raises(psycopg.Error) as told:
        db.execute("select stellwerk.set_time_zone('Mars/Olympus')")
    assert told.value.sqlstate == "SW008"


def test_a_run_that_cannot_start_says_why_and_the_schedule_goes_on(db, make_workflow):
    set_clock(db, NOON - timedelta(minutes=1))
    make_workflow({**scheduled(cron="0 * * * *"), "input_schema": {"type": "object", "required": ["patient"]}})
    set_clock(db, NOON)
    assert tick(db)["scheduled"] == 0
    trouble, at = db.execute("select trouble, next_run from stellwerk.schedule").fetchone()
    assert "input_schema" in trouble
    assert at == NOON + timedelta(hours=1)


# -- verbs ------------------------------------------------------------------------------------------------------------


def test_pause_resume_and_run_now(db, make_workflow):
    set_clock(db, NOON - timedelta(minutes=1))
    slug = make_workflow(scheduled(cron="0 * * * *", catch_up="all"))
    db.execute("select stellwerk.pause_schedule(%s)", (slug,))
    set_clock(db, NOON + timedelta(hours=3, minutes=30))
    assert tick(db)["scheduled"] == 0
    assert db.execute("select paused_by from stellwerk.schedule").fetchone() == ("db:postgres",)
    [run_id] = db.execute("select stellwerk.run_schedule(%s)", (slug,)).fetchone()
    assert run(db, run_id)["source"] == "schedule"
    [at] = db.execute("select stellwerk.resume_schedule(%s)", (slug,)).fetchone()
    assert at == NOON + timedelta(hours=4)
    assert tick(db)["scheduled"] == 0


def test_backfill_starts_what_was_not_started(db, make_workflow):
    set_clock(db, NOON - timedelta(minutes=1))
    slug = make_workflow(scheduled(cron="0 * * * *"))
    set_clock(db, NOON)
    tick(db)
    set_clock(db, NOON + timedelta(hours=5))
    backfill = "select stellwerk.backfill_schedule(%s, %s, %s)"
    assert db.execute(backfill, (slug, NOON - timedelta(hours=2), NOON + timedelta(hours=3))).fetchone() == (4,)
    assert runs(db) == [NOON + timedelta(hours=n) for n in range(-2, 3)]
    assert db.execute(backfill, (slug, NOON - timedelta(hours=2), NOON + timedelta(hours=3))).fetchone() == (0,)
    for since, until in ((NOON, NOON), (NOON, NOON + timedelta(days=1)), (NOON - timedelta(days=90), NOON)):
        with pytest.raises(psycopg.Error) as told:
            db.execute(backfill, (slug, since, until))
        assert told.value.sqlstate == "SW008"
    assert len(runs(db)) == 5


def test_what_comes_next_can_be_asked(db, make_workflow):
    set_clock(db, NOON)
    slug = make_workflow(scheduled(cron="0 9 * * MON"))
    rows = db.execute("select stellwerk.schedule_times(%s, 3)", (slug,)).fetchall()
    assert [at.astimezone(UTC).date().isoformat() for (at,) in rows] == ["2030-05-06", "2030-05-13", "2030-05-20"]


def test_verbs_say_what_is_missing(db, make_workflow):
    plain = make_workflow(document("plain", [node("start", "trigger.manual"), transform("e", 1)], ["start -> e"]))
    two = make_workflow(
        document(
            "two",
            [
                node("a", "trigger.schedule", {"every": "PT1M"}),
                node("b", "trigger.schedule", {"cron": "* * * * *"}),
                transform("e", 1),
            ],
            ["a -> e", "b -> e"],
        )
    )
    for arguments, state in (((plain,), "SW007"), (("none",), "SW001"), ((two,), "SW008"), ((two, "c"), "SW007")):
        with pytest.raises(psycopg.Error) as told:
            places = ", ".join(["%s"] * len(arguments))
            db.execute(f"select stellwerk.pause_schedule({places})".encode(), arguments)
        assert told.value.sqlstate == state
    db.execute("select stellwerk.pause_schedule(%s, 'b')", (two,))
    with pytest.raises(psycopg.Error) as told:
        db.execute("select stellwerk.backfill_schedule(%s, now() - interval '1 hour', now(), 'a')", (two,))
    assert told.value.sqlstate == "SW003"
