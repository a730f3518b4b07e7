"""What pump does with what came in: once, in SQL, and noted on the row."""

from __future__ import annotations

import psycopg
import pytest
from database.coming_in import SEALED, deliver, last, runs, starting, waiting
from database.helpers import run


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
