"""What an outsider, or somebody with an account of little right, tries over HTTP: all of it is refused."""

from __future__ import annotations

import re
from typing import Any

import httpx2
import psycopg
import pytest
from web.desk import intake
from web.routing import FOREIGN, filled, routes_of, said
from web.serving import Serving
from web.tenants import FOREIGN_WORD, People, Tenant, everything_of, other_tenant

from stellwerk.web.app import CONTENT_SECURITY_POLICY

pytestmark = pytest.mark.one_server

ADA = "ada@example.org"
PAGE = {"accept": "text/html"}
FORM = {**PAGE, "content-type": "application/x-www-form-urlencoded", "hx-request": "true"}

Database = psycopg.Connection[Any]


def test_an_own_thing_does_not_lead_to_one_of_another_tenant(
    serving: Serving, outside: httpx2.Client, db: Database, own: Tenant, people: People
) -> None:
    """Every place of every route in turn is filled with an id of the other tenant, while all others are one's own.

    Tables are the database's: watching one is a matter of its privileges.
    """
    other = other_tenant(db)
    before = everything_of(db, other)
    wrong = []
    for route in routes_of(serving.app):
        places = [
            place
            for place in dict.fromkeys(route.places)
            if own.things[place] != other.things[place] and place != "table"
        ]
        if route.needs == "public" or len(places) < 2:
            continue
        for place in places:
            answer = route.call(
                outside,
                {**own.things, place: other.things[place]},
                people.session("admin", own) | {"hx-request": "true"},
            )
            if FOREIGN_WORD in said(answer):
                wrong.append((route.name, place, "is shown"))
            if answer.status_code < 400 and route.changes and route.name not in FOREIGN:
                wrong.append((route.name, place, answer.status_code))
    assert wrong == []
    assert everything_of(db, other) == before


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/workflows/executions/bulk", {"action": "cancel", "filter": {"run_ids": ["{run_id}"]}}),
        ("PATCH", "/api/backoffice/cases/{own}", {"assignee": "{email}"}),
        ("POST", "/api/user-tasks/{own_task}/reassign", {"to": "{email}"}),
        ("PUT", "/api/schemas/{table}/events", {"workflow": "{slug}"}),
        ("POST", "/api/workflows/{own_slug}/rollback", {"version": 99}),
    ],
)
def test_ids_within_a_body_are_of_the_own_tenant(
    outside: httpx2.Client, db: Database, own: Tenant, people: People, method: str, path: str, body: dict[str, Any]
) -> None:
    other = other_tenant(db)
    before = everything_of(db, other)
    mine = {"own": own.things["case_id"], "own_task": own.things["task_id"], "own_slug": own.things["slug"]}
    things = {**other.things, **mine}
    answer = outside.request(
        method, filled(path, things), json=filled(body, things), headers=people.session("admin", own)
    )
    if answer.status_code < 400:
        assert answer.json()["total"] == 0
    assert FOREIGN_WORD not in answer.text
    assert everything_of(db, other) == before


def test_the_task_of_another_person_is_theirs(
    serving: Serving, outside: httpx2.Client, db: Database, make_workflow: Any, run_all: Any, people: People
) -> None:
    """Page, form, draft, comments, files, claim, release, hand over, decide: by page and by API."""
    own = Tenant("default", 1, "plain", "plainness")
    eve = people.session("staff", own)
    db.execute("select stellwerk.add_user(%s, 'staff', 'Ada')", [ADA])
    intake(db, make_workflow, run_all, "Keller")
    db.execute(
        'update stellwerk.user_task set assignee = %s, role = null, drafts = jsonb_build_object(%s::text, \'{"pages": "umpteen"}\'::jsonb)',
        [ADA, ADA],
    )
    (task_id,) = db.execute("select task_id from stellwerk.user_task").fetchone() or (0,)
    before = everything_of(db, own)
    tried = 0
    for route in routes_of(serving.app):
        if "{task_id}" in route.path:
            answer = route.call(outside, {"task_id": str(task_id)}, eve)
            assert answer.status_code in (403, 404), (route.name, answer.text)
            assert "umpteen" not in answer.text
            tried += 1
    assert tried >= 12
    assert "Keller" not in outside.get("/tasks", headers=eve).text
    assert "Keller" not in outside.get("/api/user-tasks", headers=eve).text
    after = everything_of(db, own)
    after.pop("user_session")
    before.pop("user_session")
    assert after == before


def test_an_appointment_of_another_case_is_not_reached_through_ones_own(
    outside: httpx2.Client, db: Database, make_workflow: Any, run_all: Any, people: People
) -> None:
    intake(db, make_workflow, run_all, "Ada", "Ben")
    ids = db.execute("select case_id, appointment_id from stellwerk.case_appointment order by 1").fetchall()
    (first, _), (_, second) = ids
    headers = {**people.session("staff", Tenant("default", 1, "", "")), **FORM}
    for path in (
        f"/backoffice/{first}/appointments/{second}",
        f"/backoffice/{first}/appointments/{second}/cancellation",
    ):
        assert outside.post(path, content="starts_at=2027-01-01T10:00&version=1", headers=headers).status_code == 404
    assert db.execute("select case_id, appointment_id from stellwerk.case_appointment order by 1").fetchall() == ids


def test_every_answer_carries_the_headers_that_browsers_heed(
    serving: Serving, outside: httpx2.Client, own: Tenant, people: People
) -> None:
    """Pages, API, streams, files and refusals alike. No answer that is somebody's is kept by a cache, none leads away."""

    def check(answer: Any, name: str, *, public: bool = False) -> None:
        headers = answer.headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY, name
        assert headers["x-content-type-options"] == "nosniff", name
        assert headers["x-frame-options"] == "DENY", name
        assert headers["referrer-policy"] == "same-origin", name
        assert headers["cross-origin-opener-policy"] == "same-origin", name
        assert headers["permissions-policy"], name
        assert "server" not in headers or "uvicorn" in headers["server"], name
        assert headers["cache-control"] == "no-store" or (public and "public" in headers["cache-control"]), name
        assert headers.get("access-control-allow-origin") is None or name.startswith("POST /forms/"), name

    for word in ("unsafe-inline", "unsafe-eval", "http:", "https:", "*"):
        assert word not in CONTENT_SECURITY_POLICY
    assert "frame-ancestors 'none'" in CONTENT_SECURITY_POLICY
    sent = 0
    for route in routes_of(serving.app):
        public = route.path.startswith(("/static/", "/scripts/")) or route.name == "GET /schema/openapi.json"
        admin = people.session("admin", own)
        for headers in ({}, PAGE, {**PAGE, **admin}, {**admin, "hx-request": "true"}):
            answer = route.call(outside, own.things, headers)
            check(answer, route.name, public=public)
            for name in ("location", "hx-redirect", "hx-location", "hx-push-url", "hx-replace-url", "refresh"):
                if (place := answer.headers.get(name)) is not None:
                    assert re.match(r"/(?![/\\])", place), (route.name, place)
                    sent += 1
    assert sent > 50
    for method, path in (
        ("GET", "/nowhere"),
        ("GET", "/static/nowhere.js"),
        ("GET", "/static/../../etc/passwd"),
        ("PUT", "/runs"),
        ("TRACE", "/runs"),
        ("OPTIONS", "/runs"),
        ("POST", "/api/workflows"),
    ):
        check(outside.request(method, path), f"{method} {path}")
    check(outside.get("/workflows", params={"cursor": "\x00"}, headers=people.session("admin", own)), "a wrong cursor")
    big = outside.post("/hooks/default/x", content=b"x" * 1_200_000)
    assert big.status_code == 413
    check(big, "POST /hooks/ too large")


def test_figures_are_for_tokens_that_may_read_and_of_their_tenant_alone(
    outside: httpx2.Client, db: Database, own: Tenant, people: People
) -> None:
    other = other_tenant(db)
    assert outside.get("/metrics").status_code == 401
    assert outside.get("/metrics", headers={"authorization": "Bearer 1.guessed"}).status_code == 401
    assert outside.get("/metrics", headers=people.token("operator", own, {"start"})).status_code == 403
    mine = outside.get("/metrics", headers=people.token("viewer", own, {"read"}))
    assert mine.status_code == 200
    db.execute("select set_config('stellwerk.tenant', 'other', false)")
    for _ in range(3):
        db.execute("select stellwerk.start_run(%s)", [other.things["slug"]])
    db.execute("select stellwerk.pump()")
    db.execute("reset stellwerk.tenant")
    waiting = re.compile(r'^stellwerk_runs\{.*state="waiting".*\} (\S+)$', re.MULTILINE)
    again = outside.get("/metrics", headers=people.token("viewer", own, {"read"})).text
    assert waiting.findall(again) == waiting.findall(mine.text)
    assert len(waiting.findall(again)) == 1
