"""`stellwerk schedule` and `stellwerk calendar`: listed, shown, set, paused, run and made up for."""

from __future__ import annotations

import json

import pytest
from database.helpers import document, node, transform


@pytest.fixture
def schedules(make_workflow):
    """A workflow with one schedule, and one with two."""
    end = transform("e", "{{ trigger.payload.scheduled_at }}")
    make_workflow(
        document("report", [node("at", "trigger.schedule", {"cron": "30 7 * * MON-FRI", "time_zone": "Europe/Rome"}), end], ["at -> e"])
    )  # fmt: skip
    make_workflow(
        document("two", [node("a", "trigger.schedule", {"every": "PT45M"}), node("b", "trigger.schedule", {"cron": "0 * * * *"}), end],
                 ["a -> e", "b -> e"])
    )  # fmt: skip


def test_no_schedule(stellwerk, dsn):
    assert stellwerk("schedule", "list", dsn=dsn) == (0, "No published workflow has a schedule.\n", "")
    assert json.loads(stellwerk("schedule", "list", "--json")[1]) == []


def test_schedules_are_listed_and_shown(stellwerk, dsn, db, schedules):
    status, out, _ = stellwerk("schedule", "list", dsn=dsn)
    lines = [line.split() for line in out.splitlines()]
    assert (status, lines[1][:3], lines[2][:4]) == (0, ["report", "at", "30"], ["two", "a", "PT45M", "UTC"])
    rows = json.loads(stellwerk("schedule", "list", "--json")[1])
    assert [(row["workflow"], row["node"], row["cron"], row["every"], row["time_zone"]) for row in rows] == [
        ("report", "at", "30 7 * * MON-FRI", None, "Europe/Rome"),
        ("two", "a", None, "PT45M", "UTC"),
        ("two", "b", "0 * * * *", None, "UTC"),
    ]
    status, out, _ = stellwerk("schedule", "show", "report", "--times", "3")
    assert status == 0
    assert "time_zone:    Europe/Rome" in out
    assert len([line for line in out.splitlines() if line.startswith("  ")]) == 3
    shown = json.loads(stellwerk("schedule", "show", "two", "b", "--json")[1])
    expected = db.execute("select stellwerk.schedule_times('two', 5, 'b')").fetchall()
    assert [at[:19] for at in shown["next_times"]] == [at.isoformat()[:19] for (at,) in expected]


def test_a_schedule_is_paused_and_goes_on(stellwerk, dsn, db, schedules):
    assert stellwerk("schedule", "pause", "report", dsn=dsn)[:2] == (
        0,
        "The schedule of report starts no runs until it is resumed.\n",
    )
    [row] = [row for row in json.loads(stellwerk("schedule", "list", "--json")[1]) if row["workflow"] == "report"]
    assert (row["next_run"], row["paused_by"]) == (None, "db:postgres")
    assert "It is paused" in stellwerk("schedule", "show", "report")[1]
    assert stellwerk("schedule", "resume", "report")[1].startswith(
        "The schedule of report goes on, the next time at 20"
    )
    told = db.execute("select action, actor from stellwerk.audit_overview where subject = 'schedule'").fetchall()
    assert told == [("pause", "db:postgres"), ("update", "db:postgres")]


def test_a_run_now_and_runs_for_times_that_were_missed(stellwerk, dsn, db, schedules, run_all):
    status, out, _ = stellwerk("schedule", "run-now", "report", dsn=dsn)
    assert status == 0
    assert json.loads(stellwerk("schedule", "run-now", "report", "--json")[1]) == {"run_id": str(int(out) + 1)}
    status, out, _ = stellwerk("schedule", "backfill", "two", "b", "--since", "PT3H")
    assert (status, out) == (0, "3 runs started.\n")
    again = ("schedule", "backfill", "two", "b", "--since", "PT3H", "--until", "PT1H", "--json")
    assert json.loads(stellwerk(*again)[1]) == {"started": 0}
    run_all(db)
    assert db.execute("select state, source, count(*) from stellwerk.run group by 1, 2").fetchall() == [
        ("completed", "schedule", 5)
    ]
    rows = db.execute(
        "select action, after from stellwerk.audit_overview where subject = 'schedule' order by audit_id"
    ).fetchall()
    assert [action for action, _ in rows] == ["run_schedule", "run_schedule", "backfill_schedule", "backfill_schedule"]
    assert [row["started"] for _, row in rows[2:]] == [3, 0]


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (("show", "none"), 1, "error: there is no workflow 'none'"),
    (("pause", "two"), 1, "hint: Name one: a, b"),
    (("run-now", "two", "c"), 1, "has no schedule 'c'"),
    (("backfill", "two", "a", "--since", "PT1H"), 1, "has no set times"),
    (("backfill", "two", "b", "--since", "soon"), 2, "'soon' is no time"),
    (("backfill", "two", "b"), 2, "--since"),
])  # fmt: skip
def test_what_is_wrong_with_a_call_is_said(stellwerk, dsn, schedules, arguments, status, words):
    result = stellwerk("schedule", *arguments, dsn=dsn)
    assert (result[0], result[1]) == (status, "")
    assert words in result[2]


def test_calendars_are_set_changed_shown_and_removed(stellwerk, dsn, db, tmp_path):
    assert stellwerk("calendar", "list", dsn=dsn) == (0, "There is no calendar.\n", "")
    days = ("--day", "mon-thu=09:00-13:00,14:00-18:00", "--day", "fri=09:00-13:00")
    assert stellwerk("calendar", "set", "office", *days, "--zone", "Europe/Rome", "--holiday", "2030-05-01")[:2] == (
        0,
        "Calendar office is set.\n",
    )
    out = stellwerk("calendar", "list")[1]
    assert "mon-thu 09:00-13:00, 14:00-18:00; fri 09:00-13:00" in out
    # What is not named stays, holidays come together.
    assert stellwerk("calendar", "set", "office", "--holiday", "2030-12-25")[0] == 0
    shown = json.loads(stellwerk("calendar", "show", "office", "--json")[1])
    assert (shown["time_zone"], shown["holidays"]) == ("Europe/Rome", ["2030-05-01", "2030-12-25"])
    assert shown["hours"]["mon"] == [["09:00", "13:00"], ["14:00", "18:00"]]
    assert set(shown["hours"]) == {"mon", "tue", "wed", "thu", "fri"}
    (tmp_path / "hours.json").write_text('{"sat": [["10:00", "24:00"]]}')
    hours = f"@{tmp_path}/hours.json"
    assert stellwerk("calendar", "set", "office", "--hours", hours, "--no-holidays", "--zone", "UTC")[0] == 0
    out = stellwerk("calendar", "show", "office")[1]
    assert out.startswith("office, in UTC, set by db:postgres at ")
    assert "sat  10:00-24:00" in out
    assert "mon  free" in out
    assert "free as well" not in out
    assert stellwerk("calendar", "remove", "office")[1] == "Calendar office is gone.\n"
    assert stellwerk("calendar", "remove", "office")[1] == "There was no calendar office.\n"
    actions = db.execute(
        "select action, subject_id from stellwerk.audit_overview where subject = 'calendar' order by audit_id"
    ).fetchall()
    assert actions == [("insert", "office"), ("update", "office"), ("update", "office"), ("delete", "office")]


@pytest.mark.parametrize(("arguments", "status", "words"), [
    (("set", "office"), 2, "needs hours"),
    (("set", "office", "--hours", "{}", "--day", "mon=09:00-10:00"), 2, "exclude each other"),
    (("set", "office", "--day", "mon"), 1, "the hours of mon cannot be read"),
    (("set", "office", "--day", "monday=09:00-10:00"), 1, "there is no day 'monday'"),
    (("set", "office", "--hours", "{}"), 1, "needs hours on at least one day"),
    (("set", "office", "--day", "mon=09:00-10:00", "--holiday", "soon"), 2, "soon"),
    (("set", "Office", "--day", "mon=09:00-10:00"), 1, "a calendar needs a name"),
    (("show", "office"), 1, "there is no calendar 'office'"),
    (("zone", "Mars/Olympus"), 1, "there is no time zone 'Mars/Olympus'"),
])  # fmt: skip
def test_what_is_wrong_with_a_calendar_is_said(stellwerk, dsn, arguments, status, words):
    result = stellwerk("calendar", *arguments, dsn=dsn)
    assert (result[0], result[1]) == (status, "")
    assert words in result[2]


def test_the_tenants_zone(stellwerk, dsn, db):
    assert stellwerk("calendar", "zone", dsn=dsn)[1] == "UTC\n"
    assert stellwerk("calendar", "zone", "Europe/Rome")[1] == "Times are meant in Europe/Rome from now on.\n"
    assert stellwerk("calendar", "zone")[1] == "Europe/Rome\n"
    query = "select after from stellwerk.audit_overview where subject = 'tenant' and action = 'update'"
    assert db.execute(query).fetchall() == [({"time_zone": "Europe/Rome"},)]
