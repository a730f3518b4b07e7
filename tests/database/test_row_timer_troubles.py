"""What stands in a followed row, or is wrong with its table, harms neither the writer nor other timers."""

from __future__ import annotations

import psycopg
import pytest
from database.clock import shift, tick
from database.following import BEFORE, appointment, due_in, following, register, waiting_run, why
from database.helpers import run, start, states, transform

__all__ = ["appointment", "waiting_run"]


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
