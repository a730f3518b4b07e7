"""The pages about HTTP are true: their requests are sent, and their tables are drawn from the routes and the rights.

A block ```http run holds a request line, headers, a body, an empty line, the status, and what the answer holds at least;
`…` at the end of a text stands for anything. UPDATE_DOCS=1 draws the tables anew.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from litestar.testing import TestClient

from stellwerk.web import access, openapi

DOCS = Path(__file__).parent.parent.parent / "docs"
REQUEST = re.compile(r"^```http run\n(.*?)\n\n(\d{3})\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.one_server
def test_the_requests_of_the_page_are_answered_as_it_says(
    client: TestClient[Any], db: psycopg.Connection[Any], run_all: Callable[..., int]
) -> None:
    token = access.new_secret(1)
    db.execute("select stellwerk.create_token('reader', 'admin', %s)", [access.digest(token)])
    found = REQUEST.findall((DOCS / "http-api.md").read_text())
    assert len(found) > 6
    for request, status, expected in found:
        line, *rest = request.split("\n")
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        while rest and re.match(r"[\w-]+: ", rest[0]):
            name, _, value = rest.pop(0).partition(": ")
            headers[name] = value
        method, path = line.split(" ")
        answer = client.request(method, path, content="\n".join(rest).encode() or None, headers=headers)
        assert answer.status_code == int(status), (line, answer.text)
        assert holds(answer.json(), json.loads(expected)), (line, answer.text)
        run_all(db)


def holds(answer: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(answer, dict) and all(holds(answer.get(name, ...), expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(answer) == len(expected) and all(map(holds, answer, expected))
    if isinstance(expected, str) and expected.endswith("…"):
        return str(answer).startswith(expected[:-1])
    return bool(answer == expected)


@pytest.mark.one_server
def test_the_table_of_paths_is_that_of_the_routes(client: TestClient[Any]) -> None:
    lines = ["| | | needs |", "| --- | --- | --- |"]
    for path, method, handler, operation in openapi.operations(client.app):
        lines.append(f"| `{method} {path}` | {operation.summary} | {handler.opt['needs']} |")
    drawn("http-api.md", "paths", "\n".join(lines))


@pytest.mark.one_server
def test_the_table_of_roles_is_that_of_the_database(db: psycopg.Connection[Any]) -> None:
    lines = [f"| | {' | '.join(access.RIGHTS)} |", f"| --- |{' :-: |' * len(access.RIGHTS)}"]
    for role in access.ROLES:
        (rights,) = db.execute("select stellwerk.role_rights(%s)", [role]).fetchone() or ([],)
        lines.append(f"| {role} | {' | '.join('●' if right in rights else '' for right in access.RIGHTS)} |")
    drawn("accounts.md", "roles", "\n".join(lines))


def drawn(page: str, name: str, table: str) -> None:
    """Between its two marks the page has this table."""
    text = (DOCS / page).read_text()
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    present, _, after = rest.partition(end)
    if os.environ.get("UPDATE_DOCS"):
        (DOCS / page).write_text(f"{before}{begin}\n{table}\n\n{end}{after}")
        return
    assert present.strip() == table, "run the test again with UPDATE_DOCS=1"


@pytest.mark.one_server
def test_the_reference_shows_every_route(client: TestClient[Any], log_in: Any) -> None:
    page = client.get("/schema", headers=log_in("viewer"))
    assert page.status_code == 200
    document = client.get("/schema/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page.text
            assert operation["summary"]
            if "requestBody" in operation:
                assert "example" in operation["requestBody"]["content"]["application/json"], operation["operationId"]
    assert "://" not in page.text.replace("http://www.w3.org", "")
