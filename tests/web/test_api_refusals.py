"""What the HTTP API cannot take: bodies, addresses and guesses, each with its status and the reason."""

from __future__ import annotations

from typing import Any

import pytest
from litestar.testing import TestClient
from web.program import Api

pytestmark = pytest.mark.one_server


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"),
        (b"", "no JSON"),
        (b'{"payload": "\\u0000"}', "U+0000"),
        (b'{"payload": "\\ud800"}', "surrogate"),
        (b'{"payload": 1e999}', "too large a power"),
        (b'{"payload": NaN}', "NaN"),
        (b'{"payload": 1, "payload": 2}', "twice"),
        (b"[" * 100 + b"]" * 100, "nested"),
        (b'{"payload": ' + b"9" * 50 + b"}", "40 characters"),
        (b"\xff", "UTF-8"),
        (b"[]", "cannot be used"),
    ],
)
def test_bodies_that_cannot_be_stored(api: Api, greet: str, body: bytes, said: str) -> None:
    headers = {**api.headers, "content-type": "application/json"}
    answer = api.client.post("/workflow-builder/api/run", content=body, headers=headers)
    assert (answer.status_code, said in answer.text) == (422, True), answer.text


def test_bodies_that_are_too_large_or_no_json(api: Api, greet: str) -> None:
    headers = {**api.headers, "content-type": "application/json"}
    large = b'{"payload": {"name": "' + b"x" * 9_000_000 + b'"}}'
    assert api.client.post("/api/workflows/greet/trigger", content=large, headers=headers).status_code == 413
    text = {**api.headers, "content-type": "text/plain"}
    assert api.client.post("/api/workflows/greet/trigger", content=b"{}", headers=text).status_code == 415


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/workflows/executions/abc", 404),
        ("/api/workflows/executions/99999999999999999999", 404),
        ("/api/workflows/executions/-1", 404),
        ("/api/workflows/%00", 404),
        ("/api/workflows?limit=0", 422),
        ("/api/workflows?limit=1&limit=2", 422),
        ("/api/workflows?sort=x", 422),
        ("/api/workflows?cursor=%00", 422),
        ("/api/user-tasks?cursor=WyJ4IiwgMV0", 422),
        ("/api/nowhere", 404),
    ],
)
def test_addresses_that_lead_nowhere(api: Api, path: str, status: int) -> None:
    api(f"GET {path}", expect=status)


def test_who_is_to_come_later_is_told_when(client: TestClient[Any]) -> None:
    for number in range(6):
        answer = client.post("/login", data={"email": "ada@example.org", "password": f"guess {number}"})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
