"""A draft is tried on the runs of the past, with every effect off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node, start, transform
from litestar.testing import TestClient

pytestmark = pytest.mark.one_server


def larger_than(limit: int, **more: Any) -> dict[str, Any]:
    return document(
        "orders",
        [
            START,
            node("large", "logic.if", {"condition": f"trigger.payload.amount > {limit}"}),
            node("tell", "notification.create", {"title": "Large", "recipient": "role:staff"}),
            transform("small", {"small": True}),
        ],
        ["start -> large", "large.true -> tell", "large.false -> small"],
        **more,
    )


def test_a_draft_is_walked_with_the_payloads_of_the_past(
    client: TestClient[Any],
    log_in: Callable[..., dict[str, str]],
    db: psycopg.Connection[Any],
    make_workflow: Callable[..., str],
    run_all: Callable[..., int],
) -> None:
    make_workflow(larger_than(100))
    runs = [start(db, "orders", {"amount": amount}) for amount in (5, 150, 500)]
    run_all(db)
    headers = {**log_in("designer"), "accept": "application/json", "if-match": "*"}
    kept = db.execute("select count(*) from stellwerk.notification").fetchone()

    def tried(**asked: Any) -> dict[str, Any]:
        answer = client.post("/api/workflows/orders/backtest", json=asked, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    same = tried()
    assert (same["version"], same["runs"], same["same"]) == (1, 3, 3), same
    saved = client.put("/api/workflows/orders", json=larger_than(200), headers=headers)
    assert saved.status_code == 200, saved.text
    found = tried(since="P1D")
    assert (found["version"], found["runs"], found["same"]) == (2, 3, 2)
    (other,) = [each for each in found["items"] if not each["same"]]
    assert (other["run_id"], other["parted_at"], other["after"]) == (str(runs[1]), "large", "completed")
    assert tried(version=1)["same"] == 3
    schema = {"type": "object", "properties": {"amount": {"type": "integer", "maximum": 200}}}
    client.put("/api/workflows/orders", json=larger_than(100, input_schema=schema), headers=headers)
    refused = tried(limit=1)["items"]
    assert [(each["run_id"], each["after"]) for each in refused] == [(str(runs[2]), "refused")]
    assert db.execute("select count(*) from stellwerk.notification").fetchone() == kept
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (3,)
    assert client.post("/api/workflows/nothing/backtest", json={}, headers=headers).status_code == 404
    assert client.post("/api/workflows/orders/backtest", json={"limit": 51}, headers=headers).status_code == 422
