"""Waits that follow a time in a row of the application."""

from __future__ import annotations

import psycopg
import pytest
from database.clock import shift, tick
from database.following import BEFORE, appointment, due_in, following, register, waiting_run, why
from database.helpers import START, document, node, run, start, states, steps, transform

from stellwerk.errors import StellwerkError

__all__ = ["appointment", "waiting_run"]


def test_the_wait_follows_the_row(db, waiting_run, run_all):
    for days in (20, 5):
        db.execute("update appointment set starts_at = now() + make_interval(days => %s) where id = 1", (days,))
        tick(db)
        assert due_in(db, waiting_run) == days - 1
    assert "following starts_at of row 1 in table appointment" in why(db, waiting_run)
    shift(db, "4 days 00:00:05")
    tick(db)
    run_all(db)
    assert (run(db, waiting_run)["state"], run(db, waiting_run)["output"]) == ("completed", "reminded")
    assert db.execute("select count(*) from stellwerk.row_timer").fetchone() == (0,)
    assert tick(db)["fired"] == 0


def test_a_row_that_is_moved_past_its_time_fires_at_once(db, waiting_run, run_all):
    db.execute("update appointment set starts_at = now() + interval '1 hour' where id = 1")
    run_all(db)  # pump takes changes up as well
    assert run(db, waiting_run)["state"] == "completed"


def test_the_row_is_read_again_before_the_timer_fires(db, waiting_run, run_all):
    """Even if nobody told of the change: never early."""
    db.execute("set session_replication_role = replica")
    db.execute("update appointment set starts_at = now() + interval '30 days' where id = 1")
    db.execute("set session_replication_role = origin")
    assert db.execute("select count(*) from stellwerk.timer_change where row_key = '1'").fetchone() == (0,)
    shift(db, "9 days 00:00:05")
    assert tick(db)["fired"] == 0
    assert (states(db, waiting_run)["w"], due_in(db, waiting_run)) == ("waiting", 29)
    shift(db, "29 days 00:00:05")
    assert tick(db)["fired"] == 1


def test_an_emptied_time_keeps_the_step_waiting(db, waiting_run, run_all):
    db.execute("update appointment set starts_at = null where id = 1")
    tick(db)
    assert (states(db, waiting_run)["w"], due_in(db, waiting_run)) == ("waiting", None)
    assert "waits for a time in starts_at of row 1 in table appointment, which is empty" in why(db, waiting_run)
    shift(db, "400 days")
    assert tick(db)["fired"] == 0
    shift(db, "0")
    db.execute("update appointment set starts_at = now() + interval '3 days' where id = 1")
    tick(db)
    assert due_in(db, waiting_run) == 2
    db.execute("update appointment set starts_at = 'infinity' where id = 1")
    tick(db)
    assert due_in(db, waiting_run) is None


def test_a_deleted_row_leaves_by_gone(db, appointment, make_workflow, run_all):
    slug = make_workflow(following("gone", BEFORE, transform("g", "no appointment"), edges=["w.gone -> g"]))
    run_id = start(db, slug, {"id": 1})
    run_all(db)
    db.execute("delete from appointment where id = 1")
    tick(db)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "no appointment")


@pytest.mark.parametrize("how", ["delete from appointment where id = 1", "truncate appointment",
                                 "update appointment set id = 7 where id = 1"])  # fmt: skip
def test_a_deleted_row_cancels_the_step_where_gone_leads_nowhere(db, waiting_run, run_all, how):
    db.execute(how)
    tick(db)
    run_all(db)
    [_, step] = steps(db, waiting_run)
    reason = db.execute("select reason from stellwerk.step where step_id = %s", (step["step_id"],)).fetchone()
    assert (step["state"], reason) == ("cancelled", ("row_deleted",))
    assert run(db, waiting_run)["state"] == "completed"
    assert db.execute("select count(*) from stellwerk.timer").fetchone() == (0,)


def test_a_row_that_is_deleted_and_written_anew_in_one_transaction_is_followed(db, waiting_run):
    with db.transaction():
        db.execute("delete from appointment where id = 1")
        db.execute("insert into appointment values (1, now() + interval '4 days')")
    tick(db)
    assert (states(db, waiting_run)["w"], due_in(db, waiting_run)) == ("waiting", 3)


def test_a_row_that_was_never_there_is_gone(db, appointment, make_workflow, run_all):
    slug = make_workflow(following("never", BEFORE, transform("g", "none"), edges=["w.gone -> g"]))
    run_id = start(db, slug, {"id": 99})
    run_all(db)
    tick(db)
    run_all(db)
    assert run(db, run_id)["output"] == "none"


def test_a_change_that_is_rolled_back_moves_nothing(dsn, db, waiting_run):
    with psycopg.connect(dsn) as other:
        other.execute("update appointment set starts_at = now() + interval '2 days' where id = 1")
        tick(db)
        other.rollback()
    tick(db)
    assert due_in(db, waiting_run) == 9


def test_a_change_that_commits_while_the_wait_begins_is_not_lost(dsn, db, appointment, make_workflow):
    """The wait reads the row before the change is there, and is there itself only after the change was taken up."""
    slug = make_workflow(following())
    run_id = start(db, slug, {"id": 1})
    with psycopg.connect(dsn) as engine:
        engine.execute("select stellwerk.advance(%s)", (run_id,))
        engine.execute("select stellwerk.pump()")
        db.execute("update appointment set starts_at = now() + interval '3 days' where id = 1")
        tick(db)
        engine.commit()
    assert due_in(db, run_id) in (9, 2)
    tick(db)
    assert due_in(db, run_id) == 2
    tick(db)
    assert db.execute("select count(*) from stellwerk.timer_change").fetchone() == (0,)


def test_changes_of_other_columns_and_rows_cost_nothing(db, waiting_run):
    tick(db)
    tick(db)
    db.execute("update appointment set note = 'x'")
    db.execute("update appointment set starts_at = starts_at")
    assert db.execute("select count(*) from stellwerk.timer_change").fetchone() == (0,)
    db.execute("update appointment set starts_at = now() where id = 2")
    tick(db)
    assert due_in(db, waiting_run) == 9


def test_the_trigger_waits_for_no_lock_of_the_run(dsn, db, waiting_run):
    with psycopg.connect(dsn) as engine:
        engine.execute("select from stellwerk.run for update")
        engine.execute("select from stellwerk.timer for update")
        db.execute("set lock_timeout = '200ms'")
        db.execute("update appointment set starts_at = now() + interval '5 days' where id = 1")
        tick(db)  # the run is held: its change is taken up later
        assert due_in(db, waiting_run) == 9
    tick(db)
    assert due_in(db, waiting_run) == 4


def test_a_paused_run_looks_at_its_row_when_it_is_resumed(db, waiting_run, run_all):
    db.execute("select stellwerk.pause_run(%s)", (waiting_run,))
    db.execute("update appointment set starts_at = now() + interval '5 days' where id = 1")
    tick(db)
    tick(db)
    assert run(db, waiting_run)["state"] == "paused"
    assert "paused" in why(db, waiting_run)
    db.execute("select stellwerk.resume_run(%s)", (waiting_run,))
    tick(db)
    assert due_in(db, waiting_run) == 4
    shift(db, "4 days 00:00:05")
    tick(db)
    run_all(db)
    assert run(db, waiting_run)["state"] == "completed"


def test_a_cancelled_run_follows_no_longer(db, waiting_run):
    db.execute("select stellwerk.cancel_run(%s)", (waiting_run,))
    assert db.execute("select count(*) from stellwerk.row_timer").fetchone() == (0,)
    assert db.execute("select count(*) from stellwerk.timer").fetchone() == (0,)


BREAKS = {
    "alter table appointment drop column starts_at cascade": "has no column starts_at any more",
    "alter table appointment rename column starts_at to begins": "has no column starts_at any more",
    "drop table appointment": "is gone",
    "delete from stellwerk.registered_table": "is not registered any more",
    "alter table appointment disable trigger user": "is gone or disabled",
}


@pytest.mark.parametrize("how", BREAKS)
def test_what_cannot_be_followed_is_told_and_hurts_nobody(db, waiting_run, run_all, how):
    db.execute(how)
    tick(db)
    assert states(db, waiting_run)["w"] == "waiting"
    assert "cannot follow starts_at of row 1 in table appointment" in why(db, waiting_run)
    assert BREAKS[how] in why(db, waiting_run)
    if "drop table" not in how:
        db.execute("update appointment set note = 'still works'")
        db.execute("delete from appointment where id = 2")
    shift(db, "400 days")
    assert tick(db)["fired"] == 0
    stuck = db.execute("select run_id from stellwerk.stuck_run").fetchall()
    assert (waiting_run,) in stuck


def test_a_mended_table_is_followed_again(db, waiting_run):
    db.execute("alter table appointment rename column starts_at to begins")
    tick(db)
    db.execute("update appointment set begins = now() + interval '6 days' where id = 1")
    db.execute("alter table appointment rename column begins to starts_at")
    tick(db)
    tick(db)
    assert due_in(db, waiting_run) == 5
    db.execute("create table keep as table appointment")
    db.execute("drop table appointment")
    tick(db)
    assert "is gone" in why(db, waiting_run)
    db.execute("create table appointment (id int primary key, starts_at timestamptz, note text)")
    db.execute("insert into appointment select * from keep")
    tick(db)
    assert "trigger on table" in why(db, waiting_run)
    register(db, "appointment")
    tick(db)
    assert due_in(db, waiting_run) == 5
    db.execute("update appointment set starts_at = now() + interval '8 days' where id = 1")
    tick(db)
    assert due_in(db, waiting_run) == 7


def test_a_key_that_has_another_name_is_told_and_mended(db, waiting_run):
    db.execute("alter table appointment rename column id to nr")
    db.execute("update appointment set starts_at = now() + interval '7 days' where nr = 1")
    tick(db)
    assert "rows of table public.appointment are not named by id any more" in why(db, waiting_run)
    register(db, "appointment")
    tick(db)
    assert due_in(db, waiting_run) == 6


def test_a_table_that_is_locked_delays_only_its_own_timers(dsn, db, waiting_run, make_workflow, run_all):
    other = start(
        db, make_workflow(document("plain", [START, node("w", "logic.wait", {"for": "P9D"})], ["start -> w"]))
    )
    run_all(db)
    shift(db, "9 days 00:00:05")
    with psycopg.connect(dsn) as application:
        application.execute("lock table appointment")
        tick(db)
        assert states(db, waiting_run)["w"] == "waiting"
        assert run(db, other)["state"] == "completed"
    shift(db, "9 days 00:01:00")
    tick(db)
    assert states(db, waiting_run)["w"] == "completed"


@pytest.mark.parametrize(("key", "error"), [(None, "no_key"), ("", "no_key"), ("one", "bad_key")])
def test_a_key_that_is_none_fails_the_step(db, appointment, make_workflow, run_all, key, error):
    run_id = start(db, make_workflow(following()), {"id": key})
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"]) == ("failed", error)


@pytest.mark.parametrize(("past", "state"), [("fire", "completed"), ("skip", "skipped"), ("fail", "failed")])
def test_a_time_that_is_past_when_the_wait_begins(db, appointment, make_workflow, run_all, past, state):
    db.execute("update appointment set starts_at = now()")
    run_id = start(db, make_workflow(following(config={**BEFORE, "past": past})), {"id": 1})
    run_all(db)
    assert states(db, run_id)["w"] == state


@pytest.mark.parametrize(("type_", "days"), [("timer.reminder_call", 9), ("timer.precheck_docs", 10)])
def test_reminders_follow_rows_too(db, appointment, make_workflow, run_all, type_, days):
    run_id = start(db, make_workflow(following(config={"at": BEFORE["of"]}, type_=type_)), {"id": 1})
    run_all(db)
    assert due_in(db, run_id) == days
    db.execute("delete from appointment")
    tick(db)
    assert states(db, run_id)["w"] == "cancelled"


@pytest.mark.parametrize(("type_", "value", "due"), [
    ("date", "2030-07-01", "2030-06-29 22:00:00+00"),
    ("timestamp", "2030-01-15 09:30", "2030-01-14 08:30:00+00"),
])  # fmt: skip
def test_times_without_a_zone_are_the_tenants(db, make_workflow, run_all, type_, value, due):
    db.execute(f"create table visit (code uuid primary key, day {type_})".encode())
    db.execute("insert into visit values ('a0000000-0000-4000-8000-00000000000A', %s)", (value,))
    register(db, "visit")
    db.execute("select stellwerk.set_time_zone('Europe/Rome')")
    config = {"before": "P1D", "of": {"table": "visit", "key": "{{ trigger.payload.id }}", "column": "day"}}
    run_id = start(db, make_workflow(following(config=config)), {"id": "A0000000-0000-4000-8000-00000000000a"})
    run_all(db)
    db.execute("set timezone = 'UTC'")
    assert db.execute("select due_at::text from stellwerk.timer where run_id = %s", (run_id,)).fetchone() == (due,)
    db.execute("delete from visit")
    tick(db)
    assert states(db, run_id)["w"] == "cancelled"


def test_the_tenants_column_keeps_tenants_apart(db, make_workflow, run_all):
    db.execute("create table shared (tenant_id bigint, id int, at timestamptz, primary key (tenant_id, id))")
    db.execute("insert into shared values (1, 5, now() + interval '10 days'), (2, 5, now() + interval '20 days')")
    register(db, "shared", ", tenant_column => 'tenant_id'")
    config = {"after": "P1D", "of": {"table": "shared", "key": "{{ trigger.payload.id }}", "column": "at"}}
    run_id = start(db, make_workflow(following(config=config)), {"id": 5})
    run_all(db)
    assert due_in(db, run_id) == 11
    for _ in range(2):
        tick(db)
    db.execute("update shared set at = now() where tenant_id = 2")
    assert db.execute("select count(*) from stellwerk.timer_change").fetchone() == (0,)
    db.execute("update shared set tenant_id = 3 where tenant_id = 1")
    tick(db)
    assert states(db, run_id)["w"] == "cancelled"


@pytest.mark.parametrize(("make", "words"), [
    ("create table appointment (id int primary key, starts_at text)", "of type text"),
    ("create table appointment (id int primary key)", "not there"),
    ("create table appointment (id int, starts_at timestamptz)", "one key"),
    ("create table appointment (id int, part int, starts_at timestamptz, primary key (id, part))", "one key"),
    ("create table appointment (id jsonb primary key, starts_at timestamptz)", "one key"),
])  # fmt: skip
def test_what_cannot_be_followed_is_refused_when_it_is_published(db, make_workflow, make, words):
    db.execute(make.encode())
    register(db, "appointment")
    with pytest.raises(StellwerkError, match=words) as told:
        make_workflow(following())
    assert told.value.sqlstate == "SW006"


def test_a_table_must_be_registered(db, make_workflow):
    with pytest.raises(StellwerkError, match="is not registered"):
        make_workflow(following())
