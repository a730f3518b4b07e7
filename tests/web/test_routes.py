"""Every route, tried over HTTP by everybody: nobody, each role, a token without the right, the admin of another tenant.

What is expected stands in web/routing.py. A route that is not there fails the test, and so does an entry without a route.
"""

from __future__ import annotations

import re
from typing import Any

import httpx2
import psycopg
import pytest
from web.routing import BODIES, FOREIGN, FORMS, QUERIES, ROUTES, Route, routes_of, said
from web.serving import Serving
from web.tenants import (
    FOREIGN_NAME,
    FOREIGN_WORD,
    RIGHTS,
    People,
    Tenant,
    everything_of,
    other_tenant,
)

from stellwerk.web import access

pytestmark = pytest.mark.one_server


@pytest.fixture
def routes(serving: Serving) -> list[Route]:
    return list(routes_of(serving.app))


def is_refused(answer: Any) -> bool:
    """Whether it was the guard that said no; a verb may have its own reasons."""
    return answer.status_code in (401, 403) and bool(re.search("please log in|needs the right|too old", said(answer)))


def test_every_route_stands_in_the_table(routes: list[Route], own: Tenant) -> None:
    found = {route.name for route in routes}
    assert found - set(ROUTES) == set(), "add these to ROUTES, with the right that they should need"
    assert set(ROUTES) - found == set(), "there are no such routes"
    assert (set(QUERIES) | set(BODIES) | set(FORMS) | set(FOREIGN)) - found == set(), "there are no such routes"
    unknown = {place for route in routes for place in route.places} - set(own.things)
    assert unknown == set(), "give both tenants one of these in web/tenants.py"


def test_every_route_lets_in_whom_it_should(
    routes: list[Route], outside: httpx2.Client, own: Tenant, people: People
) -> None:
    wrong = []
    for route in routes:
        seen = {"nobody": not is_refused(route.call(outside, own.things))}
        expected = {"nobody": route.needs == "public"}
        for role, rights in RIGHTS.items():
            answer = route.call(outside, own.things, people.session(role, own))
            assert answer.status_code < 500, (route.name, role, said(answer))
            seen[role] = not is_refused(answer)
            expected[role] = route.needs in ("public", "anybody") or route.needs in rights
        without = people.token("admin", own, RIGHTS["admin"] - {route.needs})
        seen["token"] = not is_refused(route.call(outside, own.things, without))
        expected["token"] = route.needs in ("public", "anybody")
        if seen != expected:
            wrong.append((route.name, {who: let_in for who, let_in in seen.items() if let_in != expected[who]}))
    assert wrong == []


def test_nothing_of_another_tenant_is_shown_or_touched(
    routes: list[Route], outside: httpx2.Client, db: psycopg.Connection[Any], own: Tenant, people: People
) -> None:
    other = other_tenant(db)
    before = everything_of(db, other)
    wrong = []
    for route in routes:
        if route.needs == "public":
            continue
        answer = route.call(outside, other.things, people.session("admin", own))
        if route.places and answer.status_code != FOREIGN.get(route.name, 404):
            wrong.append((route.name, answer.status_code, said(answer)[:300]))
        # What was asked for may be named in the answer, and nothing else.
        text = said(answer)
        for asked in sorted((other.things[place] for place in route.places), key=len, reverse=True):
            text = text.replace(asked, "")
        if FOREIGN_WORD in said(answer) or FOREIGN_NAME in text:
            wrong.append((route.name, answer.status_code, "says what is not its own"))
    assert wrong == []
    assert everything_of(db, other) == before


def test_a_session_alone_changes_nothing(
    routes: list[Route], outside: httpx2.Client, own: Tenant, people: People
) -> None:
    """Without the token of the page, which another site cannot read, with a wrong one, or with one of another session."""
    headers, others = people.session("admin", own), people.session("admin", own)
    for route in routes:
        if not route.changes or route.needs == "public":
            continue
        for token in (None, "", "0" * 64, others[access.CSRF_HEADER]):
            sent = {"cookie": headers["cookie"], **({access.CSRF_HEADER: token} if token is not None else {})}
            answer = route.call(outside, own.things, sent)
            assert (answer.status_code, "too old" in said(answer)) == (403, True), (route.name, token)
