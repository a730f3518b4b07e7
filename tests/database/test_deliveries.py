"""What pump does with what came in: webhooks, forms, emitted events; once, in SQL, and noted on the row."""

from __future__ import annotations

import json
import re
from typing import Any

import psycopg
import pytest
from database.helpers import document, node, run, transform
from psycopg.types.json import Jsonb

from stellwerk.errors import StellwerkError

SEALED = "gAAAA" + "x" * 80


def deliver(
    db, source: str, body: Any, *, key: str | None = None, content_type="application/json", headers=None
) -> bool:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    digest = None if key is None else key.encode()
    return db.execute(
        "select stellwerk.take_delivery(1, %s, %s, %s, %s, %s)",
        [source, raw, content_type, Jsonb(headers or {}), digest],
    ).fetchone()[0]


def last(db) -> dict[str, Any]:
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute("select * from stellwerk.webhook_delivery order by delivery_id desc limit 1").fetchone()


def runs(db) -> list[tuple[Any, ...]]:
    return db.execute("select workflow, source, payload from stellwerk.run_overview order by run_id").fetchall()


def starting(slug: str, type_: str, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    nodes = [node("begin", type_, config), transform("seen", "{{ trigger.payload }}")]
    return document(slug, nodes, ["begin -> seen"], **more)


def waiting(slug: str, type_: str) -> dict[str, Any]:
    nodes = [
        node("begin", "trigger.manual"),
        node("told", type_, {"correlation": "{{ trigger.payload.key }}"}),
        transform("seen", "{{ steps.told.output }}"),
    ]
    return document(slug, nodes, ["begin -> told", "told -> seen"])


# -- webhooks ---------------------------------------------------------------------------------------------------------


def test_a_webhook_starts_the_workflows_that_name_its_source(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "token", [SEALED], {"event_at": "body:type"})
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    make_workflow(starting("paid", "trigger.webhook", {"source": "shop", "event": "order.paid"}))
    make_workflow(starting("other", "trigger.webhook", {"source": "elsewhere"}))
    make_workflow(starting("draft", "trigger.webhook", {"source": "shop"}), publish=False)
    deliver(db, "shop", {"type": "order.paid", "n": 1})
    deliver(db, "shop", {"type": "order.sent", "n": 2})
    assert runs(db) == []  # only a row so far
    run_all(db)
    assert [(slug, source, payload["n"]) for slug, source, payload in runs(db)] == [
        ("all", "webhook", 1),
        ("paid", "webhook", 1),
        ("all", "webhook", 2),
    ]
    row = last(db)
    assert (row["state"], row["event"], row["reason"]) == ("processed", "order.sent", None)
    assert row["outcomes"] == [{"workflow": "all", "node": "begin", "replay": 0, "run_id": str(row["run_ids"][0])}]


def test_what_comes_in_is_data_and_never_evaluated(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "token", [SEALED])
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    nasty = {"a": "{{ run.id }}", "b": "${ vars.x }", "c": "'; drop table stellwerk.run; --", "{{ now }}": 1}
    deliver(db, "shop", nasty)
    run_all(db)
    (row,) = db.execute("select payload, output from stellwerk.run_overview").fetchall()
    assert row == (nasty, nasty)


@pytest.mark.parametrize("type_", ["webhook.appointment_confirmed", "webhook.esign_completed"])
def test_a_webhook_wakes_the_run_that_waits_for_it(db, engine, make_workflow, run_all, type_):
    make_workflow(waiting("w", type_))
    signal = type_.removeprefix("webhook.")
    engine.set_webhook_source(
        "desk", "standard", [SEALED], {"correlation_at": "body:data.id", "signals": {"it.happened": signal}}
    )
    one, two = (engine.start_run("w", {"key": key}) for key in ("a-1", "a-2"))
    run_all(db)
    deliver(db, "desk", {"type": "it.happened", "data": {"id": "a-1", "at": "noon"}})
    run_all(db)
    assert (run(db, one)["state"], run(db, two)["state"]) == ("completed", "waiting")
    assert run(db, one)["output"]["data"]["at"] == "noon"
    row = last(db)
    assert (row["state"], row["correlation"]) == ("processed", "a-1")
    assert row["outcomes"] == [{"signal": signal, "correlation": "a-1", "woken": 1, "replay": 0}]


def test_a_webhook_that_comes_before_the_wait_is_found_by_it(db, engine, make_workflow, run_all):
    make_workflow(waiting("w", "webhook.esign_completed"))
    engine.set_webhook_source(
        "sign", "token", [SEALED], {"correlation_at": "body:id", "signals": {"*": "esign_completed"}}
    )
    deliver(db, "sign", {"id": "e-1", "status": "signed"})
    run_all(db)
    assert last(db)["outcomes"][0]["woken"] == 0
    number = engine.start_run("w", {"key": "e-1"})
    run_all(db)
    assert run(db, number)["output"]["status"] == "signed"


def test_a_signal_that_somebody_else_is_sending_is_sent_later(db, dsn, engine, make_workflow, run_all):
    make_workflow(waiting("w", "webhook.esign_completed"))
    engine.set_webhook_source(
        "sign", "token", [SEALED], {"correlation_at": "body:id", "signals": {"*": "esign_completed"}}
    )
    with psycopg.connect(dsn) as other:
        other.execute("select stellwerk.signal('esign_completed', 'e-1')")
        deliver(db, "sign", {"id": "e-1"})
        run_all(db)  # waits for nobody
        assert last(db)["state"] == "pending"
        other.rollback()
    run_all(db)
    assert last(db)["state"] == "processed"


@pytest.mark.parametrize(
    ("body", "settings", "said"),
    [
        ({"type": "x"}, {}, "no signal, internal event or published workflow with a trigger.webhook is there for event x"),
        ({"type": "x"}, {"kind": "email"}, "trigger.email_inbound"),
        ({"type": "x"}, {"signals": {"*": "s"}, "correlation_at": "body:id"}, "no correlation of 1 to 500 characters was found at body:id"),
        ({"type": "x", "id": "k" * 501}, {"signals": {"*": "s"}, "correlation_at": "body:id"}, "no correlation"),
        (b"{not json", {}, "22P02"),
        (b'{"a": "\\u0000"}', {}, "22P05"),
        (b"\xff", {}, "22021"),
        (b'{"a": 1e99999}', {}, "too large a power"),
        (b'{"a": ' + b"9" * 60 + b"}", {}, "a number of more than 40 characters"),
        (b"[" * 100 + b"]" * 100, {}, "nested more than 64"),
    ],
)  # fmt: skip
def test_a_webhook_that_does_nothing_says_why(db, engine, run_all, body, settings, said):
    engine.set_webhook_source("shop", "standard", [SEALED], settings)
    deliver(db, "shop", body)
    run_all(db)
    row = last(db)
    assert row["state"] == ("ignored" if "published workflow" in said or "email" in said else "failed")
    assert said in row["reason"]
    assert row["processed_at"] is not None


def test_one_bad_delivery_never_stops_the_others(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "token", [SEALED])
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    for body in ({"n": 1}, b"nonsense", {"n": 2}):
        deliver(db, "shop", body)
    run_all(db)
    assert [payload for _, _, payload in runs(db)] == [{"n": 1}, {"n": 2}]


def test_a_payload_that_one_workflow_refuses_still_starts_the_other(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "token", [SEALED])
    schema = {"type": "object", "required": ["total"]}
    make_workflow(starting("picky", "trigger.webhook", {"source": "shop"}, input_schema=schema))
    make_workflow(starting("relaxed", "trigger.webhook", {"source": "shop"}))
    deliver(db, "shop", {"n": 1})
    run_all(db)
    assert [slug for slug, _, _ in runs(db)] == ["relaxed"]
    row = last(db)
    assert row["state"] == "failed"
    assert "input_schema" in row["reason"]
    assert "total" in row["reason"]
    # Mended and replayed, it does what it had not done, and nothing twice.
    make_workflow(starting("picky", "trigger.webhook", {"source": "shop"}))
    engine.replay_delivery(row["delivery_id"])
    run_all(db)
    assert [slug for slug, _, _ in runs(db)] == ["relaxed", "picky"]
    assert (last(db)["state"], last(db)["reason"]) == ("processed", None)


def test_a_replay_does_everything_anew(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "token", [SEALED], {"signals": {"*": "s"}, "correlation_at": "body:n"})
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    deliver(db, "shop", {"n": 1})
    run_all(db)
    row = last(db)
    engine.replay_delivery(row["delivery_id"])
    with pytest.raises(Exception, match="has not been processed yet"):
        engine.replay_delivery(row["delivery_id"])
    run_all(db)
    assert len(runs(db)) == 2
    assert last(db)["replays"] == 1
    assert len(last(db)["run_ids"]) == 2
    assert db.execute("select count(*) from stellwerk.signal").fetchone() == (2,)
    acts = db.execute("select subject_id from stellwerk.audit_log where action = 'replay_delivery'").fetchall()
    assert acts == [(str(row["delivery_id"]),)]
    with pytest.raises(Exception, match="there is no delivery 999"):
        engine.replay_delivery(999)


def test_the_same_delivery_or_the_same_signed_bytes_count_once(db, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "hmac", [SEALED], {"key_at": "header:x-id"})
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    assert deliver(db, "shop", {"n": 1}, key="bytes-1", headers={"x-id": "d1"})
    assert not deliver(db, "shop", {"n": 1}, key="bytes-2", headers={"x-id": "d1"})  # sent again, signed again
    assert not deliver(db, "shop", {"n": 1}, key="bytes-1", headers={"x-id": "d2"})  # taken over, renamed
    assert deliver(db, "shop", {"n": 1}, key="bytes-3", headers={"x-id": "k" * 900})
    assert not deliver(db, "shop", {"n": 1}, key="bytes-4", headers={"x-id": "k" * 900})
    run_all(db)
    assert len(runs(db)) == 2


def test_many_pumps_at_once_start_one_run(db, dsn, engine, make_workflow, run_all):
    engine.set_webhook_source("shop", "token", [SEALED])
    make_workflow(starting("all", "trigger.webhook", {"source": "shop"}))
    deliver(db, "shop", {"n": 1})
    with psycopg.connect(dsn) as first, psycopg.connect(dsn) as second:
        first.execute("select stellwerk.pump()")
        second.execute("select stellwerk.pump()")  # passes over what the first one holds
        second.commit()
        first.rollback()  # its process died
    run_all(db)
    assert len(runs(db)) == 1


def test_fields_of_a_form_and_plain_text_are_read(db, engine, make_workflow, run_all):
    engine.set_webhook_source("slash", "slack", [SEALED])
    make_workflow(starting("all", "trigger.webhook", {"source": "slash"}))
    form = "application/x-www-form-urlencoded; charset=utf-8"
    deliver(db, "slash", b"command=%2Fgo&text=K%C3%B6ln+100%25&tag=a&tag=b&empty=", content_type=form)
    deliver(db, "slash", b"payload=%7B%22type%22%3A%22block_actions%22%7D", content_type=form)
    deliver(db, "slash", "grüezi".encode(), content_type="text/plain")
    deliver(db, "slash", b"", content_type="application/json")
    run_all(db)
    assert [payload for _, _, payload in runs(db)] == [
        {"command": "/go", "text": "Köln 100%", "tag": ["a", "b"], "empty": ""},
        {"type": "block_actions"},
        {"text": "grüezi"},
        {},
    ]


def test_mail_that_comes_in_starts_the_workflows_of_its_address(db, engine, make_workflow, run_all):
    engine.set_webhook_source("resend", "standard", [SEALED], {"kind": "email"})
    make_workflow(starting("any", "trigger.email_inbound"))
    make_workflow(starting("sales", "trigger.email_inbound", {"address": "Sales@example.org"}))
    make_workflow(starting("hr", "trigger.email_inbound", {"address": "hr@example.org"}))
    mail = {
        "email_id": "56761188-7520-42d8-8898-ff6fc54ce618",
        "created_at": "2026-02-22T23:41:11.894719+00:00",
        "from": "Ada <ada@example.com>",
        "to": ["Shop Sales <sales@EXAMPLE.org>"],
        "cc": [],
        "bcc": [],
        "message_id": "<1@example.com>",
        "subject": "An order",
        "attachments": [],
    }
    deliver(db, "resend", {"type": "email.received", "created_at": "2026-02-22T23:41:12.126Z", "data": mail})
    run_all(db)
    assert runs(db) == [("any", "email", mail), ("sales", "email", mail)]
    deliver(db, "resend", {"type": "email.bounced", "data": mail})
    run_all(db)
    assert last(db)["state"] == "ignored"
    assert len(runs(db)) == 2


def test_deliveries_of_a_removed_source_are_refused(db, engine, run_all):
    engine.set_webhook_source("shop", "token", [SEALED])
    deliver(db, "shop", {})
    assert engine.remove_webhook_source("shop")
    assert not engine.remove_webhook_source("shop")
    assert not deliver(db, "shop", {})
    run_all(db)
    assert last(db)["reason"] == "the source was removed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Shop", "token"), "no name"),
        (("shop", "rot13"), "no signature scheme"),
        (("shop", "token", ["in clear"]), "must be sealed"),
        (("shop", "token", [SEALED] * 3), "at most two"),
        (("shop", "token", None, {"colour": 1}), "unknown settings of a webhook source: colour"),
        (("shop", "token", None, {"kind": "fax"}), "webhook or email"),
        (("shop", "token", None, {"event_at": "data.id"}), "event_at cannot be 'data.id'"),
        (("shop", "token", None, {"key_at": "header:Authorization"}), "key_at cannot be"),
        (("shop", "token", None, {"event_at": "header:authorization"}), "would store a secret"),
        (("shop", "token", None, {"signature_header": "x-key", "event_at": "header:x-key"}), "would store a secret"),
        (("shop", "token", None, {"signature_header": "x key"}), "letters, digits and hyphens"),
        (("shop", "token", None, {"signals": ["a"]}), "objects"),
        (("shop", "token", None, {"emits": {"a": 1}}), "objects"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(engine, arguments, said):
    with pytest.raises(StellwerkError, match=re.escape(said)):
        engine.set_webhook_source(*arguments)


def test_the_audit_log_tells_that_a_secret_changed_but_not_the_secret(db, engine):
    engine.set_webhook_source("shop", "token", [SEALED])
    engine.set_webhook_source("shop", "token", [SEALED[:-1] + "y"])
    engine.set_webhook_source("shop", "token")  # leaves the secret
    rows = db.execute(
        "select action, before, after from stellwerk.audit_log where subject = 'webhook_source' order by audit_id"
    ).fetchall()
    assert [row[0] for row in rows] == ["insert", "update"]
    assert rows[1] == ("update", {"secrets": "***"}, {"secrets": "***"})
    assert "gAAAA" not in json.dumps([row[1:] for row in rows])


# -- events of one's own ----------------------------------------------------------------------------------------------


def test_an_emitted_event_starts_workflows_when_its_transaction_commits(db, dsn, engine, make_workflow, run_all):
    make_workflow(starting("archive", "trigger.event", {"event": "document.completed"}))
    make_workflow(starting("other", "trigger.event", {"event": "document.deleted"}))
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.emit_event('document.completed', '{\"id\": 1}')")
        run_all(db)
        assert runs(db) == []
        application.rollback()
        application.execute("select stellwerk.emit_event('document.completed', '{\"id\": 2}')")
    run_all(db)
    assert runs(db) == [("archive", "event", {"id": 2})]
    engine.emit_event("nobody.cares")
    run_all(db)
    assert last(db)["reason"] == "no published workflow has a trigger.event for nobody.cares"


def test_a_second_event_with_the_same_key_is_the_first(db, engine, make_workflow, run_all):
    make_workflow(starting("archive", "trigger.event", {"event": "e"}))
    first = engine.emit_event("e", {"n": 1}, "k")
    assert engine.emit_event("e", {"n": 2}, "k") == first
    assert engine.emit_event("e", {"n": 3}) != first
    run_all(db)
    assert engine.emit_event("e", {"n": 4}, "k") == first
    run_all(db)
    assert [payload["n"] for _, _, payload in runs(db)] == [1, 3]


@pytest.mark.parametrize("arguments", [("",), ("n" * 201,), ("e", {}, ""), ("e", {}, "k" * 501)])
def test_an_event_needs_a_name_and_a_short_key(engine, arguments):
    from stellwerk.errors import InvalidPayload

    with pytest.raises(InvalidPayload):
        engine.emit_event(*arguments)


def test_a_webhook_can_emit_an_event(db, engine, make_workflow, run_all):
    engine.set_webhook_source("sign", "standard", [SEALED], {"emits": {"envelope.done": "document.completed"}})
    make_workflow(starting("archive", "trigger.event", {"event": "document.completed"}))
    deliver(db, "sign", {"type": "envelope.done", "id": 7})
    run_all(db)
    assert runs(db) == [("archive", "event", {"type": "envelope.done", "id": 7})]


def test_a_workflow_that_emits_the_event_that_starts_it_ends(db, engine, make_workflow, run_all):
    db.execute("""
        create function public.emit(input jsonb, context jsonb) returns jsonb language sql as
        $$ select to_jsonb(stellwerk.emit_event('again', '{}')) $$""")
    engine.register_function("emit", "public.emit(jsonb,jsonb)")
    nodes = [node("begin", "trigger.event", {"event": "again"}), node("call", "sql.function", {"function": "emit"})]
    make_workflow(document("circle", nodes, ["begin -> call"]))
    engine.emit_event("again")
    run_all(db)
    assert len(runs(db)) == 9  # depth 0 to 8
    assert last(db)["reason"] == "suppressed: the chain of runs that cause each other is longer than 8"
    assert db.execute("select max(depth) from stellwerk.run").fetchone() == (8,)


# -- tenants, rights, time --------------------------------------------------------------------------------------------


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
