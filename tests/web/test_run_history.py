"""Looking into a run: its moments, its differences from another, its loops item by item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node, start, transform
from litestar.testing import TestClient

pytestmark = pytest.mark.one_server

Client = TestClient[Any]
Database = psycopg.Connection[Any]
PART = {"hx-request": "true"}


@pytest.fixture
def looping(make_workflow: Callable[..., str], db: Database, run_all: Callable[..., int]) -> list[int]:
    """Two runs of a loop over 120 items, of which one fails at its third item and goes on."""
    each = node(
        "each", "logic.loop", {"items": "{{ trigger.payload.items }}", "parallel": 100, "on_item_error": "collect"}
    )
    one = transform("one", "{{ 100 / item }}")
    make_workflow(document("loops", [START, each, one], ["start -> each", "each.each -> one", "one -> each"]))
    runs = [start(db, "loops", {"items": [1, 2, third, *[1] * 117]}) for third in (4, 0)]
    run_all(db)
    return runs


def test_a_loops_items_are_shown_some_at_a_time(client: Client, log_in: Any, db: Database, looping: list[int]) -> None:
    headers = {**log_in("viewer"), **PART}
    (step,) = db.execute("select step_id from stellwerk.loop where run_id = %s", [looping[1]]).fetchone() or (0,)
    place = f"/runs/{looping[1]}/loops/{step}"
    assert place in client.get(f"/runs/{looping[1]}/nodes/each", headers=headers).text
    first = client.get(place, headers=headers).text
    assert first.count("<tr><td") == 50
    assert "120 of 120 items" in first
    assert f"{place}?item=51" in first
    failed = client.get(place, params={"state": "failed"}, headers=headers).text
    assert failed.count("<tr><td") == 1
    assert "division by zero" in failed
    assert ">120<" in client.get(place, params={"item": "118"}, headers=headers).text
    assert client.get(place, params={"state": "odd"}, headers=headers).status_code == 422
    assert client.get(f"/runs/{looping[1]}/loops/1", headers=headers).status_code == 404
    assert 'id="run-graph"' in client.get(place, headers=log_in("viewer")).text


def test_a_run_is_shown_as_it_stood(client: Client, log_in: Any, looping: list[int]) -> None:
    headers = log_in("viewer")
    page = client.get(f"/runs/{looping[0]}/history", headers=headers).text
    assert 'type="range"' in page
    assert page.count('class="place"') == 3
    begun = client.get(f"/runs/{looping[0]}/history", params={"moment": 0}, headers={**headers, **PART}).text
    assert begun.count('class="place"') == 0
    assert 'data-state="pending"' in begun
    assert client.get(f"/runs/{looping[0]}/history", params={"moment": 10**6}, headers=headers).status_code == 200
    assert client.get("/runs/999999/history", headers=headers).status_code == 404


def test_two_runs_are_compared(client: Client, log_in: Any, looping: list[int]) -> None:
    headers = log_in("viewer")
    a, b = looping
    assert f'href="/runs/{a}/diff?with={b}"' in client.get(f"/runs/{a}/diff", headers=headers).text
    page = client.get(f"/runs/{a}/diff", params={"with": b}, headers=headers).text
    assert "Here their ways part" in page
    assert page.count('class="changed"') == 1
    assert client.get(f"/runs/{a}/diff", params={"with": "x"}, headers=headers).status_code == 422
    assert client.get(f"/runs/{a}/diff", params={"with": "999999"}, headers=headers).status_code == 404
