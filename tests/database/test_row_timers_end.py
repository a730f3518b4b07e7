"""Rows are followed no longer than somebody waits for them; tables are closed again."""

from __future__ import annotations

import psycopg
import pytest
from database.clock import tick
from database.following import appointment, due_in, following, register, waiting_run, why
from database.helpers import START, document, node, run, start, transform

__all__ = ["appointment", "waiting_run"]

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
