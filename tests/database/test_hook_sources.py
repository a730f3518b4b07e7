"""Sources of webhooks: how bodies are read, which settings there are."""

from __future__ import annotations

import json
import re

import pytest
from database.coming_in import SEALED, deliver, last, runs, starting

from stellwerk.errors import StellwerkError


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
