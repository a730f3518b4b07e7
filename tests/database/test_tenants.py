"""Tenants never meet, and no role sees more than it was given."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import START, document, start


@pytest.fixture
def other(db, make_workflow, run_all):
    """A second tenant with a workflow of the same name and one run of its own."""
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    make_workflow(document("same", [START], []))
    start(db, "same", {"secret": "default"})
    db.execute("set stellwerk.tenant = 'other'")
    make_workflow(document("same", [START], []))
    start(db, "same", {"secret": "other"})
    run_all(db)
    db.execute("reset stellwerk.tenant")
    return db


def role(db, *groups):
    name = f"person_{db.info.backend_pid}_{db.info.dbname}"
    db.execute(f"drop role if exists {name}")
    db.execute(f"create role {name} login")
    for group in groups:
        db.execute(f"grant {group} to {name}")
    db.execute(f"set session authorization {name}")


def test_a_tenant_sees_only_its_own(other):
    for tenant, secret in (("default", "default"), ("other", "other")):
        other.execute("select set_config('stellwerk.tenant', %s, false)", (tenant,))
        assert other.execute("select payload from stellwerk.run_overview").fetchall() == [({"secret": secret},)]
    with pytest.raises(psycopg.Error) as caught:
        other.execute("select set_config('stellwerk.tenant', 'nobody', false)")
        other.execute("select * from stellwerk.run_overview")
    assert caught.value.sqlstate == "SW004"


def test_a_role_sees_the_tenants_it_was_given_and_no_other(other):
    role(other, "stellwerk_dba")
    assert other.execute("select payload from stellwerk.run").fetchall() == [({"secret": "default"},)]
    assert other.execute("select count(*) from stellwerk.step").fetchone() == (1,)
    other.execute("set stellwerk.tenant = 'other'")
    for query in (
        "select * from stellwerk.run",
        "select * from stellwerk.run_overview",
        "select stellwerk.start_run('same')",
        "select stellwerk.why(2)",
    ):
        with pytest.raises(psycopg.Error) as caught:
            other.execute(query)
        assert caught.value.sqlstate == "SW004", query


def test_a_partition_is_no_way_round(other):
    role(other, "stellwerk_dba")
    assert other.execute("select count(*) from stellwerk.run_0").fetchone() == (0,)


def test_a_dba_steers_by_verbs_and_cannot_write_tables(other):
    role(other, "stellwerk_dba")
    run_id = start(other, "same")
    other.execute("select stellwerk.why(%s)", (run_id,))
    for statement in (
        "update stellwerk.run set state = 'failed'",
        "delete from stellwerk.step",
        "insert into stellwerk.event (tenant_id, target, operation) values (1, 'x', 'insert')",
        "select stellwerk.end_runs(1, '{1}', '{failed}', '{null}', '{null}', '{x}')",
        "select stellwerk.insert_runs(1, '{}')",
        "select stellwerk.complete_steps(1, 1, '[]')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(statement)


def test_a_stranger_can_do_nothing(other):
    role(other)
    for statement in (
        "select stellwerk.start_run('same')",
        "select * from stellwerk.run",
        "select stellwerk.pump()",
        "select stellwerk.current_tenant_id()",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            other.execute(statement)


def test_nobody_can_claim_to_be_somebody_else(other):
    role(other, "stellwerk_dba")
    other.execute("set stellwerk.actor = 'boss@example.org'")
    run_id = start(other, "same")
    (by,) = other.execute("select created_by from stellwerk.run where run_id = %s", (run_id,)).fetchone()
    assert by.startswith("db:person_")


def test_pump_serves_all_tenants(other):
    assert other.execute("select tenant_id, state from stellwerk.run order by 1").fetchall() == [
        (1, "completed"),
        (2, "completed"),
    ]
