"""The HTTP API as a program with a token sees it."""

from __future__ import annotations

from typing import Any

import psycopg
from litestar.testing import TestClient

from stellwerk.web import access


class Api:
    """Called with a request's first line and a body; fails the test at another status than the one expected."""

    def __init__(
        self, client: TestClient[Any], db: psycopg.Connection[Any], role: str = "admin", scopes: list[str] | None = None
    ):
        self.client, token = client, access.new_secret(1)
        name = f"t{access.digest(token).hex()[:20]}"
        db.execute("select stellwerk.create_token(%s, %s, %s, %s)", [name, role, access.digest(token), scopes])
        self.headers = {"authorization": f"Bearer {token}"}

    def __call__(self, request: str, body: Any = None, *, expect: int = 200, **headers: str) -> Any:
        method, path = request.split(" ", 1)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.last = self.client.request(method, path, json=body, headers={**self.headers, **given})
        assert self.last.status_code == expect, self.last.text
        if expect >= 400:
            assert self.last.headers["content-type"].startswith("application/problem+json")
        return self.last.json() if self.last.content else None
