"""A person's data are found, shown and erased; nobody else's are."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import FAILURE, START, Worker, document, node, run, start, transform
from database.housekeeping import LINEAR, count
from database.watching import ORDERS, watch


@pytest.fixture
def persons(db, dsn, make_workflow, run_all):
    """Ada and Bob have each ordered something; runs, events, cases, signals and the audit log know of it."""
    make_workflow(
        document(
            "order",
            [
                node("row", "trigger.row"),
                node("keep", "logic.set", {"values": {"who": "{{ trigger.payload.customer }}"}}),
                node("note", "log.write", {"message": "order of {{ trigger.payload.customer }}"}),
                node("each", "logic.loop", {"items": ["{{ trigger.payload.customer }}"]}),
                transform("copy", "{{ item }}"),
                node("tell", "notification.create", {"recipient": "u", "title": "{{ trigger.payload.customer }}"}),
                node("push", "action.backoffice_push", {"field_map": {"customer": "{{ trigger.payload.customer }}"}}),
                node("ring", "action.fonio_call", {"phone": "{{ trigger.payload.customer }}"}, retry={"max_attempts": 2, "interval": "PT0S", "jitter": False}),
            ],
            [
                "row -> keep", "keep -> note", "note -> each", "each.each -> copy",
                "each.done -> tell", "tell -> push", "push -> ring",
            ],
        )
    )  # fmt: skip
    db.execute(ORDERS)
    watch(db, workflow="order", operations=["insert"])
    db.execute("insert into orders (customer) values ('ada@example.org'), ('bob@example.org')")
    run_all(db)
    worker = Worker(dsn)
    for taken in worker.begin():
        worker.end(taken, error={**FAILURE, "message": f"no answer from {taken}"})
    run_all(db)
    for name in ("ada", "bob"):
        db.execute("select stellwerk.signal('paid', %s)", (f"{name}@example.org",))
    db.execute("select stellwerk.pause_run(run_id) from stellwerk.run")
    db.execute("""
        select stellwerk.edit_run(run_id, payload || jsonb_build_object('old_mail', payload -> 'customer'),
                                  jsonb_build_object('again', payload -> 'customer')) from stellwerk.run""")
    db.execute(
        "update stellwerk.backoffice_case set note = payload ->> 'customer', payload = payload || jsonb_build_object('also', payload -> 'customer')"
    )
    db.execute("select stellwerk.resume_run(run_id) from stellwerk.run")
    run_all(db)
    for taken in worker.begin():
        worker.end(taken, output={"said": str(taken)})
    run_all(db)
    assert count(db, "run", "state <> 'completed'") == 0
    return db


def places_with(db, text):
    """Tables that hold the text in any column of any row."""
    names = db.execute("""
        select c.relname from pg_class c where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
         order by 1""").fetchall()
    return [name for (name,) in names if count(db, name, f"to_json({name})::text like '%{text}%'")]


def test_a_persons_data_are_found_shown_and_erased(persons):
    db = persons
    before = places_with(db, "ada@")
    assert {"run", "step", "scope", "variable", "run_log", "notification", "event_log", "backoffice_case", "signal", "audit_log"} <= set(before)  # fmt: skip
    bob = {name: count(db, name, f"to_json({name})::text like '%bob@%'") for name in before}
    rows = {name: count(db, name) for name in before}
    found = db.execute("select place, id, what from stellwerk.forget_subject('customer', 'ada@example.org')").fetchall()
    assert {place for place, _, _ in found} >= {"run", "step", "scope", "variable", "run_log", "notification", "event", "backoffice_case", "signal", "audit_log"}  # fmt: skip
    assert places_with(db, "ada@") == before  # only shown
    erased = db.execute(
        "select place, id, what from stellwerk.forget_subject('customer', 'ada@example.org', dry_run => false)"
    ).fetchall()
    assert erased == found
    assert places_with(db, "ada@") == []
    # Bob's are all there, and of Ada's runs still the states, times and numbers.
    assert {name: count(db, name, f"to_json({name})::text like '%bob@%'") for name in before} == bob
    rows["signal"] -= 1
    rows["audit_log"] += 1
    assert {name: count(db, name) for name in before} == rows
    assert count(db, "run", "state = 'completed' and ended_at is not null") == 2
    assert db.execute("select payload from stellwerk.run order by run_id").fetchone() == ({"forgotten": True},)
    last = db.execute(
        "select action, subject_id, after from stellwerk.audit_log order by audit_id desc limit 1"
    ).fetchone()
    assert last[:2] == ("forget_subject", None)
    assert last[2]["runs"] == 1
    assert db.execute("select * from stellwerk.forget_subject('customer', 'ada@example.org')").fetchall() == []


def test_a_subject_whose_run_lives_is_not_erased_by_mistake(db, make_workflow, run_all):
    make_workflow(document("slow", [START, node("wait", "logic.wait", {"for": "P1D"})], ["start -> wait"]))
    run_id = start(db, "slow", {"person": {"mail": "ada@example.org"}})
    run_all(db)
    forget = "select place, what from stellwerk.forget_subject('person.mail', 'ada@example.org', dry_run => false"
    with pytest.raises(psycopg.Error) as refused:
        db.execute(forget + ")")
    assert refused.value.sqlstate == "SW003"
    assert str(run_id) in str(refused.value)
    assert run(db, run_id)["payload"] == {"person": {"mail": "ada@example.org"}}
    db.execute(forget + ", include_live => true)")
    assert run(db, run_id)["payload"] == {"forgotten": True}
    db.execute("update stellwerk.timer set due_at = now()")
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert run(db, run_id)["state"] == "completed"


def test_a_child_that_got_the_data_is_found_through_its_parent(db, make_workflow, run_all):
    make_workflow(document("child", [START, transform("copy", "{{ trigger.payload }}")], ["start -> copy"]))
    make_workflow(
        document(
            "parent",
            [START, node("call", "logic.call", {"workflow": "child", "payload": {"x": "{{ trigger.payload.mail }}"}})],
            ["start -> call"],
        )
    )
    start(db, "parent", {"mail": "ada@example.org"}, key="order of ada@example.org")
    start(db, "parent", {"mail": "bob@example.org"})
    run_all(db)
    db.execute("select * from stellwerk.forget_subject('mail', 'ada@example.org', dry_run => false)")
    assert places_with(db, "ada@") == []
    assert count(db, "run", "payload = '{\"forgotten\": true}'") == 2


@pytest.mark.parametrize("place", ["arrived", "filed", "bulk"])
def test_an_event_that_is_still_to_be_processed_is_not_overlooked(db, make_workflow, run_all, place):
    make_workflow(document("order", [node("row", "trigger.row")], []))
    db.execute(ORDERS)
    watch(db, workflow="order", bulk=place == "bulk")
    db.execute("insert into orders (customer) values ('ada@example.org')")
    if place == "filed":
        db.execute("select stellwerk.file_arrivals(1, 10)")
    forget = "select place from stellwerk.forget_subject('customer', 'ada@example.org', dry_run => false)"
    with pytest.raises(psycopg.Error) as refused:
        db.execute(forget)
    assert refused.value.sqlstate == "SW003"
    assert "not been processed" in str(refused.value)
    run_all(db)
    assert {row[0] for row in db.execute(forget).fetchall()} >= {"run", "event"}
    assert places_with(db, "ada@") == []


@pytest.mark.parametrize("place", ["arrived", "filed", "bulk"])
def test_an_event_that_is_still_to_be_processed_is_erased_on_demand(db, make_workflow, run_all, place):
    make_workflow(document("order", [node("row", "trigger.row")], []))
    db.execute(ORDERS)
    watch(db, workflow="order", bulk=place == "bulk")
    db.execute("insert into orders (customer) values ('ada@example.org'), ('bob@example.org')")
    if place == "filed":
        db.execute("select stellwerk.file_arrivals(1, 10)")
    db.execute("select stellwerk.forget_subject('customer', 'ada@example.org', dry_run => false, include_live => true)")
    assert places_with(db, "ada@") == []
    run_all(db)
    payloads = [row[0] for row in db.execute("select payload from stellwerk.run order by run_id").fetchall()]
    assert payloads[0] == {"forgotten": True}
    assert payloads[1]["customer"] == "bob@example.org"


def test_a_field_and_a_value_must_be_named(db):
    for arguments in ("'', 'x'", "'mail', ''", "'mail', null"):
        with pytest.raises(psycopg.Error) as refused:
            db.execute(f"select stellwerk.forget_subject({arguments})")
        assert refused.value.sqlstate == "SW002"


def test_another_tenants_data_are_not_found(db, make_workflow, run_all):
    make_workflow(LINEAR)
    start(db, "linear", {"mail": "ada@example.org"})
    run_all(db)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other'); set stellwerk.tenant = 'other'")
    assert (
        db.execute("select * from stellwerk.forget_subject('mail', 'ada@example.org', dry_run => false)").fetchall()
        == []
    )
    assert "run" in places_with(db, "ada@")


def test_an_end_that_is_still_to_be_heard_of_keeps_whom_it_is_about(db, make_workflow, run_all):
    make_workflow(document("order", [START, node("wait", "logic.wait", {"for": "P1D"})], ["start -> wait"]))
    run_id = start(db, "order", {"customer": "ada@example.org"})
    run_all(db)
    db.execute(
        "insert into stellwerk.run_message (tenant_id, run_id, step_id, kind, data, held)"
        " select 1, s.run_id, s.step_id, 'complete', %s, true from stellwerk.step s where s.run_id = %s and s.node_id = 'wait'",
        ['{"child": 77, "task": 5, "port": "next", "output": {"customer": "ada@example.org"}}', run_id],
    )
    db.execute("select stellwerk.forget_subject('customer', 'ada@example.org', dry_run => false, include_live => true)")
    kept = db.execute("select data from stellwerk.run_message where run_id = %s", [run_id]).fetchone()
    assert kept == ({"child": 77, "task": 5, "port": "next", "output": {"forgotten": True}},)
