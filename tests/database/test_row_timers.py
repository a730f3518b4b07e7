"""Waits that follow a time in a row of the application."""

from __future__ import annotations

import psycopg
import pytest
from database.clock import shift, tick
from database.helpers import START, document, node, run, start, states, steps, transform

from stellwerk.errors import StellwerkError

BEFORE = {"before": "P1D", "of": {"table": "appointment", "key": "{{ trigger.payload.id }}", "column": "starts_at"}}


def register(db, table, more=""):
    db.execute(f"grant all on {table} to stellwerk_owner".encode())
    db.execute(f"select stellwerk.register_table('{table}'{more})".encode())


@pytest.fixture
def appointment(db):
    """A registered table with an appointment ten days ahead."""
    db.execute("create table appointment (id int primary key, starts_at timestamptz, note text)")
    db.execute("insert into appointment values (1, now() + interval '10 days'), (2, now() + interval '10 days')")
    register(db, "appointment")


def following(slug="remind", config=BEFORE, *more, edges=(), type_="logic.wait"):
    nodes = [START, node("w", type_, config), transform("e", "reminded"), *more]
    return document(slug, nodes, ["start -> w", "w -> e", *edges])


def due_in(db, run_id):
    """Days until the run's timer, rounded; None without one."""
    row = db.execute(
        "select round(extract(epoch from due_at - now()) / 86400)::int from stellwerk.timer where run_id = %s",
        (run_id,),
    ).fetchone()
    return None if row is None else row[0]


def why(db, run_id):
    return db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]


@pytest.fixture
def waiting_run(db, appointment, make_workflow, run_all):
    slug = make_workflow(following())
    run_id = start(db, slug, {"id": 1})
    run_all(db)
    assert (states(db, run_id)["w"], due_in(db, run_id)) == ("waiting", 9)
    return run_id


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


# -- what stands in a row, and what is wrong with it ------------------------------------------------------------------


@pytest.mark.parametrize(("column", "value", "after"), [
    ("timestamptz", "294276-12-31", "P1D"), ("timestamptz", "4714-11-25 BC", "P-5D"), ("date", "5874897-12-31", "P1D"),
])  # fmt: skip
def test_a_time_beyond_all_reckoning_harms_no_other_timer(db, make_workflow, run_all, column, value, after):
    db.execute(f"create table appointment (id int primary key, starts_at {column})".encode())
    db.execute("insert into appointment values (1, now() + interval '10 days'), (2, now() + interval '10 days')")
    register(db, "appointment")
    of = BEFORE["of"]
    slug = make_workflow(following(config={"after": "{{ trigger.payload.after }}", "of": of}))
    odd, plain = start(db, slug, {"id": 1, "after": after}), start(db, slug, {"id": 2, "after": "P1D"})
    run_all(db)
    assert states(db, odd)["w"] == states(db, plain)["w"] == "waiting"
    db.execute("update appointment set starts_at = %s where id = 1", (value,))
    db.execute("update appointment set starts_at = now() + interval '20 days' where id = 2")
    tick(db)
    assert due_in(db, plain) in (20, 21)
    assert (states(db, odd)["w"], due_in(db, odd)) == ("waiting", None)
    assert "its time cannot be reckoned with" in why(db, odd)
    late = start(db, slug, {"id": 1, "after": after})
    run_all(db)
    assert states(db, late)["w"] == "waiting"
    db.execute("update appointment set starts_at = now() + interval '3 days' where id = 1")
    tick(db)
    assert all(due_in(db, one) is not None or states(db, one)["w"] == "completed" for one in (odd, late))


def test_a_locked_table_with_many_changes_is_waited_for_once(dsn, db, appointment, make_workflow, run_all):
    db.execute("insert into appointment select n, now() + interval '10 days' from generate_series(10, 60) n")
    slug = make_workflow(following())
    run_ids = [start(db, slug, {"id": n}) for n in range(10, 61)]
    run_all(db)
    db.execute("update appointment set starts_at = now() + interval '5 days' where id >= 10")
    with psycopg.connect(dsn) as application:
        application.execute("lock table appointment")
        db.execute("set statement_timeout = '5s'")  # 51 times 0.4 s would be longer
        tick(db)
    tick(db)
    assert {due_in(db, run_id) for run_id in run_ids} == {4}


def test_a_row_that_row_level_security_hides_is_not_gone(db, appointment, make_workflow, run_all):
    """The engine cannot know; it waits and says so. A deletion is told by the trigger all the same."""
    db.execute("alter table appointment enable row level security")
    slug = make_workflow(following("hidden", BEFORE, transform("g", "no appointment"), edges=["w.gone -> g"]))
    first, second = start(db, slug, {"id": 1}), start(db, slug, {"id": 2})
    run_all(db)
    tick(db)
    assert states(db, first)["w"] == states(db, second)["w"] == "waiting"
    assert "row-level security of table public.appointment hides it from stellwerk_owner" in why(db, first)
    db.execute("update appointment set starts_at = now() + interval '6 days' where id = 1")
    tick(db)
    assert states(db, first)["w"] == "waiting"
    db.execute("delete from appointment where id = 2")
    tick(db)
    run_all(db)
    assert run(db, second)["output"] == "no appointment"
    db.execute("create policy engine on appointment to stellwerk_owner using (true)")
    register(db, "appointment")
    tick(db)
    assert due_in(db, first) == 5
    db.execute("drop policy engine on appointment")
    shift(db, "5 days 00:00:05")
    assert tick(db)["fired"] == 0
    assert states(db, first)["w"] == "waiting"


def test_a_policy_that_raises_is_told(db, waiting_run):
    db.execute("alter table appointment enable row level security")
    db.execute("create policy by_user on appointment using (note = current_setting('app.user'))")
    db.execute("update appointment set starts_at = now() + interval '7 days' where id = 1")
    tick(db)
    assert 'cannot be read: unrecognized configuration parameter "app.user"' in why(db, waiting_run)


def test_keys_that_are_exchanged_are_followed(db, appointment, make_workflow, run_all):
    db.execute("alter table appointment drop constraint appointment_pkey, add primary key (id) deferrable")
    db.execute("update appointment set starts_at = now() + interval '20 days' where id = 2")
    register(db, "appointment")
    slug = make_workflow(following())
    first, second = start(db, slug, {"id": 1}), start(db, slug, {"id": 2})
    run_all(db)
    tick(db)
    db.execute("update appointment set id = 3 - id")
    tick(db)
    assert (due_in(db, first), due_in(db, second)) == (19, 9)


def test_what_is_undone_to_a_savepoint_moves_nothing_and_the_rest_does(db, waiting_run, appointment):
    with db.transaction():
        db.execute("create table other (n int)")
        with pytest.raises(psycopg.errors.DivisionByZero), db.transaction():
            db.execute("delete from appointment")
            db.execute("select 1 / 0")
        db.execute("update appointment set starts_at = now() + interval '50 days'")
        db.execute("update appointment set starts_at = null")
        db.execute("update appointment set starts_at = now() + interval '7 days', note = 'all in one'")
        db.execute("insert into other values (1)")
    tick(db)
    assert due_in(db, waiting_run) == 6


def test_a_partitioned_table_is_followed_also_into_another_partition(db, make_workflow, run_all):
    db.execute("create table visit (id int primary key, at timestamptz) partition by range (id)")
    db.execute("create table visit_low partition of visit for values from (0) to (100)")
    db.execute("create table visit_high partition of visit for values from (100) to (200)")
    db.execute("insert into visit values (1, now() + interval '10 days')")
    register(db, "visit")
    run_id = start(
        db,
        make_workflow(following(config={"before": "P1D", "of": {"table": "visit", "key": "1", "column": "at"}})),
    )
    run_all(db)
    assert due_in(db, run_id) == 9
    db.execute("update visit set at = now() + interval '4 days'")
    tick(db)
    assert due_in(db, run_id) == 3
    db.execute("update visit set id = 150")
    tick(db)
    assert states(db, run_id)["w"] == "cancelled"


def test_an_expression_does_not_choose_the_row(db, appointment, make_workflow, run_all):
    """What comes from outside is data: it does not make the engine read a table."""
    run_id = start(
        db,
        make_workflow(following(config={"before": "P1D", "of": "{{ trigger.payload.of }}"})),
        {"of": {"table": "appointment", "key": "1", "column": "starts_at"}},
    )
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"]) == ("failed", "bad_time")


def test_a_calendar_that_changes_moves_waits_that_follow_a_row(db, appointment, make_workflow, run_all):
    office = "select stellwerk.set_calendar('office', %s::jsonb, time_zone => 'UTC')"
    db.execute(office, ('{"mon-sun": [["00:00", "12:00"]]}',))
    db.execute("update appointment set starts_at = '2090-05-03 10:00Z' where id = 1")
    run_id = start(db, make_workflow(following(config={**BEFORE, "calendar": "office"})), {"id": 1})
    run_all(db)
    due = "select (due_at at time zone 'UTC')::text from stellwerk.timer where run_id = %s"
    assert db.execute(due, (run_id,)).fetchone() == ("2090-05-02 10:00:00",)
    db.execute(office, ('{"mon-sun": [["11:00", "12:00"]]}',))
    tick(db)
    assert db.execute(due, (run_id,)).fetchone() == ("2090-05-02 11:00:00",)
    db.execute("select stellwerk.remove_calendar('office')")
    tick(db)
    assert "there is no calendar 'office'" in why(db, run_id)
    db.execute(office, ('{"mon-sun": [["00:00", "24:00"]]}',))
    tick(db)
    assert db.execute(due, (run_id,)).fetchone() == ("2090-05-02 10:00:00",)


def test_a_zone_that_changes_moves_waits_for_times_without_one(db, make_workflow, run_all):
    db.execute("create table visit (id int primary key, at timestamp)")
    db.execute("insert into visit values (1, '2090-07-01 10:00')")
    register(db, "visit")
    config = {"before": "P1D", "of": {"table": "visit", "key": "1", "column": "at"}}
    run_id = start(db, make_workflow(following(config=config)))
    run_all(db)
    db.execute("select stellwerk.set_time_zone('Europe/Rome')")
    tick(db)
    due = db.execute("select (due_at at time zone 'UTC')::text from stellwerk.timer where run_id = %s", (run_id,))
    assert due.fetchone() == ("2090-06-30 08:00:00",)


# -- following no longer ----------------------------------------------------------------------------------------------

TRIGGERS = (
    "select count(*) from pg_trigger where tgrelid = to_regclass('appointment') and tgname like 'stellwerk_follow_%%'"
)
FOLLOWED = "select count(*) from stellwerk.followed_column"
HOUSE = "select stellwerk.keep_house(at_once => true) ->> 'partition'"
MANUAL = document("remind", [START, transform("e", 1)], ["start -> e"])


def test_triggers_that_nobody_needs_any_more_go(dsn, db, waiting_run, make_workflow, run_all):
    db.execute("alter table appointment owner to stellwerk_owner")
    assert db.execute(TRIGGERS).fetchone() == (3,)
    make_workflow(MANUAL)
    assert db.execute(HOUSE).fetchone() == (None,)  # a step of the old version still waits
    db.execute("update appointment set starts_at = now() where id = 1")
    tick(db)
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("update appointment set note = 'in a long transaction'")
        assert db.execute(HOUSE).fetchone() == (None,)
        assert db.execute(TRIGGERS).fetchone() == (3,)
    assert db.execute(HOUSE).fetchone() == ("starts_at of table appointment is followed no longer",)
    assert (db.execute(TRIGGERS).fetchone(), db.execute(FOLLOWED).fetchone()) == ((0,), (0,))
    assert db.execute(HOUSE).fetchone() == (None,)
    db.execute("delete from appointment")


def test_a_run_that_has_not_come_to_its_wait_keeps_the_triggers(db, appointment, make_workflow, run_all):
    slug = make_workflow(following())
    run_id = start(db, slug, {"id": 1}, run_at="2090-01-01")
    run_all(db)
    make_workflow({**MANUAL, "slug": slug})
    assert db.execute(HOUSE).fetchone() == (None,)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    run_all(db)
    assert db.execute(HOUSE).fetchone() != (None,)


def test_who_does_not_own_the_table_makes_triggers_that_never_fire(db, waiting_run, make_workflow, run_all):
    db.execute("create role keeper nologin")
    try:
        db.execute("alter table appointment owner to keeper")
        make_workflow(MANUAL)
        db.execute("delete from appointment")
        tick(db)
        run_all(db)
        assert db.execute(HOUSE).fetchone() != (None,)
        db.execute("insert into appointment values (1, now())")
        db.execute("update appointment set starts_at = now() + interval '1 day'")
        db.execute("truncate appointment")
        tick(db)
        assert db.execute("select count(*) from stellwerk.timer_change").fetchone() == (0,)
        # A version that follows again makes them work again.
        db.execute("insert into appointment values (1, now() + interval '10 days')")
        again = start(db, make_workflow(following()), {"id": 1})
        run_all(db)
        db.execute("update appointment set starts_at = now() + interval '4 days'")
        tick(db)
        assert due_in(db, again) == 3
    finally:
        db.execute("drop table appointment")
        db.execute("drop role keeper")


def test_a_table_is_closed_and_opened_again(db, waiting_run):
    assert db.execute("select stellwerk.unregister_table('appointment')").fetchone() == (True,)
    assert db.execute(TRIGGERS).fetchone() == (0,)
    tick(db)
    assert "is not registered any more" in why(db, waiting_run)
    db.execute("update appointment set starts_at = now() + interval '6 days' where id = 1")
    assert db.execute("select stellwerk.unregister_table('appointment')").fetchone() == (False,)
    register(db, "appointment")
    tick(db)
    assert (db.execute(TRIGGERS).fetchone(), due_in(db, waiting_run)) == ((3,), 5)
    db.execute("drop table appointment")
    assert db.execute("select stellwerk.unregister_table('appointment')").fetchone() == (True,)


def test_only_the_owner_closes_a_table(db, waiting_run):
    db.execute("set role stellwerk_web")
    with pytest.raises(psycopg.Error, match="only the owner of") as told:
        db.execute("select stellwerk.unregister_table('appointment')")
    assert told.value.sqlstate == "SW004"


def test_an_old_version_that_comes_to_its_wait_late_says_what_to_do(db, appointment, make_workflow, run_all):
    slug = make_workflow(following())
    run_id = start(db, slug, {"id": 1}, run_at="2090-01-01")
    run_all(db)
    db.execute("delete from stellwerk.followed_column")
    db.execute("update stellwerk.timer set due_at = now()")
    tick(db)
    run_all(db)
    assert "its triggers have not been made" in why(db, run_id)
    register(db, "appointment")
    tick(db)
    assert due_in(db, run_id) == 9


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_who_writes_to_the_table_needs_no_right_on_anything_else(dsn, db, waiting_run, isolation):
    db.execute("create role clerk login")
    try:
        db.execute("grant select, insert, update, delete, truncate on appointment to clerk")
        with psycopg.connect(dsn, user="clerk") as clerk:
            clerk.execute(f"set transaction isolation level {isolation}".encode())
            clerk.execute("update appointment set starts_at = now() + interval '6 days' where id = 1")
            tick(db)
            clerk.execute("insert into appointment values (5, now())")
        tick(db)
        assert due_in(db, waiting_run) == 5
    finally:
        db.execute("drop owned by clerk")
        db.execute("drop role clerk")


def test_a_workflow_moves_a_row_that_another_follows(db, waiting_run, make_workflow, run_all):
    where = {"table": "appointment", "where": {"id": 1}}
    move = node("m", "record.update", {**where, "values": {"starts_at": "{{ trigger.payload.at }}"}})
    slug = make_workflow(document("move", [START, move], ["start -> m"]))
    at = db.execute("select (now() + interval '3 days')::text").fetchone()[0]
    run_id = start(db, slug, {"at": at})
    run_all(db)
    assert (run(db, run_id)["state"], due_in(db, waiting_run)) == ("completed", 2)
