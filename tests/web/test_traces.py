"""A request's trace goes with what it starts: over the API, a webhook and a form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node
from web.desk import Client

from stellwerk.web import access

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Database = psycopg.Connection[Any]


def trace(db: Database) -> list[tuple[Any, ...]]:
    return db.execute("select traceparent from stellwerk.run_overview order by run_id").fetchall()


@pytest.mark.parametrize(("header", "kept"), [(TRACEPARENT, TRACEPARENT), ("nonsense", None)])
def test_the_api_hands_the_trace_on(
    client: Client, db: Database, make_workflow: Any, header: str, kept: str | None
) -> None:
    make_workflow(document("asked", [START], []))
    db.execute("select stellwerk.create_token('machine', 'operator', %s)", [access.digest("1.secret")])
    headers = {"authorization": "Bearer 1.secret", "traceparent": header}
    assert client.post("/api/workflows/asked/trigger", json={}, headers=headers).status_code < 300
    assert trace(db) == [(kept,)]
    # The next request on the same connection has no trace.
    assert (
        client.post("/api/workflows/asked/trigger", json={}, headers={**headers, "traceparent": ""}).status_code < 300
    )
    assert trace(db) == [(kept,), (None,)]


def test_a_webhook_and_a_form_hand_it_on(
    client: Client,
    db: Database,
    make_workflow: Any,
    run_all: Any,
    source: Callable[..., str],
    signed: Callable[..., dict[str, str]],
) -> None:
    path = source("shop")
    make_workflow(document("hooked", [node("hook", "trigger.webhook", {"source": "shop"})], []))
    make_workflow(document("filled", [node("form", "trigger.form_submit", {"form": "contact"})], []))
    db.execute("select stellwerk.set_form('contact', 'filled')")
    body = json.dumps({"n": 1}).encode()
    assert client.post(path, content=body, headers={**signed(body), "traceparent": TRACEPARENT}).status_code == 202
    answer = client.post("/forms/default/contact", json={"n": 2}, headers={"traceparent": TRACEPARENT})
    assert answer.status_code == 202
    run_all(db)
    assert trace(db) == [(TRACEPARENT,), (TRACEPARENT,)]
