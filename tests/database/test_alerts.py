"""Alerts: raised once, resolved once, told to people and to workflows."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database.helpers import START, Connection, call, document, node, start, transform
from database.people import ADA, CAT, told, users

from stellwerk import gallery


def check(db: Connection) -> int:
    row = db.execute("select stellwerk.check_alerts(1)").fetchone()
    assert row is not None
    return int(row[0])


def test_an_alert_is_raised_once_and_resolved_once(db: Connection, make_workflow: Any, run_all: Any) -> None:
    users(db)
    db.execute(
        "select stellwerk.set_alert_rule('queue', 'queue_depth', 2, recipients => '{role:admin,ada@example.org}')"
    )
    make_workflow(document("calls", [START, call("a")], ["start -> a"]))
    start(db, "calls")
    run_all(db)
    assert check(db) == 0
    start(db, "calls")
    run_all(db)
    assert [check(db), check(db)] == [1, 0]
    db.execute("select stellwerk.cancel_run(run_id) from stellwerk.run")
    run_all(db)
    assert [check(db), check(db)] == [1, 0]
    assert told(db) == [
        ("role:admin", "Alert raised: queue"),
        (ADA, "Alert raised: queue"),
        ("role:admin", "Alert resolved: queue"),
        (ADA, "Alert resolved: queue"),
    ]
    mails = db.execute("select distinct recipient, subject from stellwerk.message order by 1, 2").fetchall()
    assert mails == [(who, f"Alert {what}: queue") for who in (ADA, CAT) for what in ("raised", "resolved")]
    assert db.execute("select count(*), count(resolved_at) from stellwerk.alert").fetchone() == (1, 1)


def test_a_workflow_takes_an_alert(db: Connection, make_workflow: Any, run_all: Any) -> None:
    trigger = node("start", "trigger.event", {"event": "alert.raised"})
    make_workflow(
        document(
            "tell",
            [trigger, transform("a", "{{ trigger.payload.rule }}: {{ trigger.payload.message }}")],
            ["start -> a"],
        )
    )
    db.execute("select stellwerk.set_alert_rule('alone', 'no_worker', 1)")
    assert check(db) == 1
    run_all(db)
    assert db.execute("select output from stellwerk.run_overview").fetchone() == ("alone: no worker is running",)


def test_tick_looks_and_a_rule_that_is_off_resolves(db: Connection) -> None:
    db.execute("select stellwerk.set_alert_rule('alone', 'no_worker', 1)")
    db.execute("select stellwerk.tick()")
    assert db.execute("select count(*) from stellwerk.alert where resolved_at is null").fetchone() == (1,)
    db.execute("select stellwerk.set_alert_rule('alone', 'no_worker', 1, enabled => false)")
    assert check(db) == 1
    assert db.execute("select count(*) from stellwerk.alert where resolved_at is null").fetchone() == (0,)


@pytest.mark.parametrize("kind", ["failed_share", "stuck", "tasks_overdue"])
def test_each_kind_is_measured(db: Connection, make_workflow: Any, run_all: Any, kind: str) -> None:
    users(db)
    db.execute(
        "select stellwerk.set_alert_rule('rule', %s, %s, period => '1 hour')",
        (kind, 0.5 if kind == "failed_share" else 1),
    )
    make_workflow(
        document("ask", [START, node("a", "task.user", {"title": "T", "role": "staff", "due": "PT1H"})], ["start -> a"])
    )
    make_workflow(
        document("fail", [START, node("a", "logic.stop", {"outcome": "failed", "message": "no"})], ["start -> a"])
    )
    make_workflow(document("call", [START, call("a")], ["start -> a"]))
    assert check(db) == 0
    start(db, {"failed_share": "fail", "stuck": "call", "tasks_overdue": "ask"}[kind])
    run_all(db)
    db.execute("update stellwerk.user_task set due_at = now() - interval '1 minute'")
    db.execute("update stellwerk.step set queued_at = queued_at - interval '2 hours' where state = 'queued'")
    assert check(db) == 1


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        ("'x', 'nothing', 1", "SW002"),
        ("'x', 'stuck', 0", "SW002"),
        ("'x', 'failed_share', 2", "SW002"),
        ("'Bad Name', 'stuck', 1", "SW002"),
        ("'x', 'failed_share', 1, 'nowhere'", "SW001"),
        ("'x', 'stuck', 1, recipients => '{ghost@example.org}'", "SW007"),
        ("'x', 'stuck', 1, period => '1 second'", "SW002"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(tx: Connection, arguments: str, state: str) -> None:
    with pytest.raises(psycopg.errors.DatabaseError) as refused:
        tx.execute(f"select stellwerk.set_alert_rule({arguments})".encode())
    assert refused.value.sqlstate == state


def test_the_notification_is_a_workflow_once_it_is_published(db: Connection, make_workflow: Any, run_all: Any) -> None:
    users(db)
    make_workflow(gallery.template(gallery.ALERT_NOTIFICATION).document)
    db.execute("select stellwerk.set_alert_rule('alone', 'no_worker', 1, recipients => '{role:admin,ada@example.org}')")
    assert check(db) == 1
    assert told(db) == []
    run_all(db)
    assert sorted(told(db)) == [(ADA, "Alert raised: alone"), ("role:admin", "Alert raised: alone")]
    mails = db.execute("select recipient, subject, run_id is not null from stellwerk.message order by 1").fetchall()
    assert mails == [(ADA, "Alert raised: alone", True), (CAT, "Alert raised: alone", True)]
    db.execute("update stellwerk.alert_rule set enabled = false")
    assert check(db) == 1
    run_all(db)
    assert len(told(db)) == 4
    assert db.execute("select count(*) from stellwerk.run where state = 'completed'").fetchone() == (2,)


def test_the_first_rule_publishes_it_and_what_people_made_of_it_stays(db: Connection, engine: Any) -> None:
    query = "select slug, active_version from stellwerk.workflow"
    gallery.publish_once(engine, gallery.ALERT_NOTIFICATION)
    assert db.execute(query).fetchall() == [("alert-notification", 1)]
    gallery.publish_once(engine, gallery.ALERT_NOTIFICATION)
    assert db.execute(query).fetchall() == [("alert-notification", 1)]


def test_a_notification_by_mail_reaches_those_who_want_mails(db: Connection, make_workflow: Any, run_all: Any) -> None:
    users(db)
    tell = node("tell", "notification.create", {"recipient": "role:admin", "title": "Hello", "mail": True})
    make_workflow(document("hello", [START, tell], ["start -> tell"]))
    start(db, "hello")
    run_all(db)
    assert db.execute("select recipient, subject from stellwerk.message").fetchall() == [(CAT, "Hello")]
