"""Deliveries, and the workflows that they start and wake: what the tests of webhooks and events share."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from database.helpers import document, node, transform
from psycopg.types.json import Jsonb

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
