"""Users, tasks and the small steps that the tests of tasks share."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database.helpers import START, Connection, document, node, start, transform
from psycopg.types.json import Jsonb

ADA, BEN, CAT = "ada@example.org", "ben@example.org", "cat@example.org"


def asking(
    slug: str, config: dict[str, Any], *more: dict[str, Any], edges: tuple[str, ...] = (), **settings: Any
) -> Any:
    """A workflow that asks a person and hands on what was said."""
    nodes = [
        START,
        node("ask", "task.user", {"title": "Please decide", **config}, **settings),
        transform("e", "{{ steps.ask.output }}"),
    ]
    return document(slug, [*nodes, *more], ["start -> ask", "ask -> e", *edges])


APPROVAL = {"role": "staff", "outcomes": ["approve", "reject"]}


def deciding(
    slug: str, config: dict[str, Any], *more: dict[str, Any], edges: tuple[str, ...] = (), **settings: Any
) -> Any:
    """A workflow with a way for each of two outcomes."""
    ask = node("ask", "task.user", {"title": "Please decide", "outcomes": ["approve", "reject"], **config}, **settings)
    yes, no = transform("yes", "{{ steps.ask.output }}"), transform("no", "{{ steps.ask.output }}")
    return document(
        slug, [START, ask, yes, no, *more], ["start -> ask", "ask.approve -> yes", "ask.reject -> no", *edges]
    )


def users(db: Connection) -> None:
    """Two of staff and an admin."""
    for email, role in ((ADA, "staff"), (BEN, "staff"), (CAT, "admin")):
        db.execute("select stellwerk.add_user(%s, %s)", (email, role))


def act_as(db: Connection, actor: str | None) -> None:
    """Speak for a user from now on, as the web application does; None: as the database login."""
    db.execute("select set_config('stellwerk.actor', %s, false)", (actor or "",))


def ask(db: Connection, slug: str, payload: Any = None, run_all: Any = None) -> tuple[int, int]:
    """Start a run and carry it to its task; answers run and task."""
    run_id = start(db, slug, payload)
    run_all(db)
    row = db.execute(
        "select task_id from stellwerk.user_task where run_id = %s order by task_id desc", (run_id,)
    ).fetchone()
    assert row is not None, db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()
    return run_id, row[0]


def task(db: Connection, task_id: int) -> dict[str, Any]:
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute("select * from stellwerk.user_task where task_id = %s", (task_id,)).fetchone()
    assert row is not None
    return row


def complete(db: Connection, task_id: int, outcome: str | None = None, result: Any = None) -> str:
    row = db.execute(
        "select stellwerk.complete_task(%s, %s, %s)", (task_id, Jsonb(result if result is not None else {}), outcome)
    ).fetchone()
    assert row is not None
    return str(row[0])


def pass_time(db: Connection, run_id: int, interval: str) -> None:
    """Let an interval pass for one run: its timers, and what its tasks know of time, come nearer; then tick."""
    db.execute("update stellwerk.timer set due_at = due_at - %s::interval where run_id = %s", (interval, run_id))
    db.execute(
        "update stellwerk.user_task set due_at = due_at - %s::interval, created_at = created_at - %s::interval where run_id = %s",
        (interval, interval, run_id),
    )
    db.execute("select stellwerk.tick()")


def told(db: Connection) -> list[tuple[str, str]]:
    """Recipient and title of every notification so far, oldest first."""
    return db.execute("select recipient, title from stellwerk.notification order by notification_id").fetchall()


def refused(sqlstate: str, words: str | None = None) -> Any:
    """The database refuses, with this SQLSTATE and these words."""
    return pytest.raises(psycopg.Error, match=words, check=lambda error: error.sqlstate == sqlstate)
