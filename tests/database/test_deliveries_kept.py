"""Who sees what came in, who may say that it is genuine, and how long it is kept."""

from __future__ import annotations

import json

import psycopg
import pytest
from database.coming_in import SEALED, deliver, starting


def test_tenants_do_not_meet(db, engine, make_workflow, run_all):
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    make_workflow(starting("mine", "trigger.event", {"event": "e"}))
    db.execute("set stellwerk.tenant = 'other'")
    make_workflow(starting("theirs", "trigger.event", {"event": "e"}))
    number = engine.emit_event("e")
    db.execute("reset stellwerk.tenant")
    run_all(db)
    found = db.execute("""
        select w.slug from stellwerk.run r
          join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id""").fetchall()
    assert found == [("theirs",)]
    with pytest.raises(Exception, match="there is no delivery"):
        engine.replay_delivery(number)


def test_only_the_web_may_say_that_a_delivery_is_genuine(db):
    for verb, allowed in {
        "find_webhook_source(text, text)": {"stellwerk_web"},
        "take_delivery(bigint, text, bytea, text, jsonb, bytea)": {"stellwerk_web"},
        "take_submission(text, text, jsonb, text, text, text)": {"stellwerk_web"},
        "set_webhook_source(text, text, text[], jsonb)": {"stellwerk_web", "stellwerk_dba"},
        "emit_event(text, jsonb, text)": {"stellwerk_web", "stellwerk_dba"},
    }.items():
        may = {
            role
            for role in ("stellwerk_web", "stellwerk_dba", "stellwerk_worker", "stellwerk_nobody")
            if db.execute("select has_function_privilege(%s, %s, 'execute')", [role, f"stellwerk.{verb}"]).fetchone()[0]
        }
        assert may == allowed, verb


def test_what_came_in_goes_when_events_go(db, engine, run_all):
    old = engine.emit_event("a")
    engine.emit_event("b")
    run_all(db)
    pending = engine.emit_event("c")
    db.execute(
        "update stellwerk.webhook_delivery set received_at = now() - interval '8 days' where delivery_id = any (%s)",
        [[old, pending]],
    )
    db.execute("select stellwerk.set_retention(events => 'P30D')")
    db.execute("select stellwerk.keep_house(true)")
    assert db.execute("select count(*) from stellwerk.webhook_delivery").fetchone() == (3,)
    db.execute("select stellwerk.set_retention(events => 'P7D')")
    assert db.execute("select stellwerk.keep_house(true)").fetchone()[0]["removed"] == {"deliveries": 1}
    assert db.execute("select source from stellwerk.webhook_delivery order by 1").fetchall() == [("b",), ("c",)]


def test_what_started_runs_goes_with_the_last_of_them(db, engine, make_workflow, run_all):
    make_workflow(starting("one", "trigger.event", {"event": "e"}, settings={"retention": "P1D"}))
    make_workflow(starting("two", "trigger.event", {"event": "e"}, settings={"retention": "P30D"}))
    engine.emit_event("e")
    run_all(db)

    def age(days: int) -> tuple[int, int]:
        shift = "update stellwerk.run set created_at = created_at - %s * interval '1 day', ended_at = ended_at - %s * interval '1 day'"
        db.execute(shift, [days, days])
        db.execute("select stellwerk.keep_house(true)")
        counts = "select (select count(*) from stellwerk.run), (select count(*) from stellwerk.webhook_delivery)"
        return db.execute(counts).fetchone()

    assert age(2) == (1, 1)
    assert age(30) == (0, 0)


def test_a_persons_webhooks_are_found_and_erased(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "standard", [SEALED], {"key_at": "body:email", "correlation_at": "body:email"})
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    deliver(db, "shop", {"type": "x", "email": "ada@example.org", "note": "private"})
    with pytest.raises(psycopg.Error, match="have not been processed yet"):
        db.execute("select * from stellwerk.forget_subject('email', 'ada@example.org', dry_run => false)")
    deliver(db, "shop", {"type": "x", "email": "bob@example.org"})
    run_all(db)
    found = db.execute("select place, id from stellwerk.forget_subject('email', 'ada@example.org')").fetchall()
    assert [place for place, _ in found].count("webhook_delivery") == 1
    db.execute("select * from stellwerk.forget_subject('email', 'ada@example.org', dry_run => false)")
    ada, bob = db.execute("select to_jsonb(d) from stellwerk.webhook_delivery d order by delivery_id").fetchall()
    assert "ada" not in json.dumps(ada[0])
    assert ada[0]["body"] is None
    assert (ada[0]["state"], len(ada[0]["run_ids"])) == ("processed", 1)
    assert bob[0]["correlation"] == "bob@example.org"
    with pytest.raises(Exception, match="have been erased"):
        engine.replay_delivery(ada[0]["delivery_id"])
