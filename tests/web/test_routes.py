"""Every route, tried by everybody: nobody, each role, a token without the scope, and the admin of another tenant.

What is expected stands in ROUTES. A route that is not there fails the test, and so does an entry without a route.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import TestClient

from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine
from stellwerk.web import access

# What each role may do, once more and independently of the code.
RIGHTS = {
    "viewer": {"read"},
    "staff": {"read", "work"},
    "designer": {"read", "work", "design", "start"},
    "operator": {"read", "work", "start", "operate"},
    "admin": {"read", "work", "design", "start", "operate", "manage"},
}

# The right that a route needs; `anybody` is everybody who is logged in, `public` the whole world.
ROUTES = {
    "GET /healthz": "public",
    "GET /readyz": "public",
    "GET /static/{file_path}": "public",
    "HEAD /static/{file_path}": "public",
    "POST /hooks/{tenant}/{source}": "public",
    "POST /forms/{tenant}/{form}": "public",
    "GET /login": "public",
    "POST /login": "public",
    "POST /logout": "anybody",
    "GET /welcome/{secret}": "public",
    "POST /welcome/{secret}": "public",
    "GET /audit": "manage",
    "GET /templates": "read",
    "POST /templates/{slug}/installation": "design",
    "GET /schema": "anybody",
    "GET /schema/openapi.json": "public",
    "GET /api/audit": "manage",
    "GET /api/users": "manage",
    "POST /api/users": "manage",
    "GET /api/users/{email}": "manage",
    "PATCH /api/users/{email}": "manage",
    "POST /api/users/{email}/invitation": "manage",
    "DELETE /api/users/{email}/sessions": "manage",
    "GET /api/tokens": "manage",
    "POST /api/tokens": "manage",
    "DELETE /api/tokens/{token_id}": "manage",
    "GET /api/backoffice/cases": "read",
    "GET /api/backoffice/cases.csv": "read",
    "GET /api/backoffice/cases/{case_id}": "read",
    "POST /api/backoffice/cases/status": "work",
    "PATCH /api/backoffice/cases/{case_id}": "work",
    "GET /api/schemas/{table}/events": "read",
    "PUT /api/schemas/{table}/events": "design",
    "DELETE /api/schemas/{table}/events": "design",
    "GET /api/user-tasks": "work",
    "GET /api/user-tasks/{task_id}": "work",
    "POST /api/user-tasks/{task_id}/complete": "work",
    "POST /api/user-tasks/{task_id}/claim": "work",
    "POST /api/user-tasks/{task_id}/reassign": "work",
    "GET /api/workflows": "read",
    "POST /api/workflows": "design",
    "GET /api/workflows/{slug}": "read",
    "PUT /api/workflows/{slug}": "design",
    "DELETE /api/workflows/{slug}": "design",
    "GET /api/workflows/{slug}/analytics": "read",
    "GET /api/workflows/{slug}/diff": "read",
    "GET /api/workflows/{slug}/executions": "read",
    "POST /api/workflows/{slug}/migrate-runs": "operate",
    "POST /api/workflows/{slug}/publish": "design",
    "POST /api/workflows/{slug}/rollback": "design",
    "GET /api/workflows/{slug}/steps": "read",
    "POST /api/workflows/{slug}/steps": "design",
    "GET /api/workflows/{slug}/steps/{node_id}": "read",
    "PUT /api/workflows/{slug}/steps/{node_id}": "design",
    "DELETE /api/workflows/{slug}/steps/{node_id}": "design",
    "POST /api/workflows/{slug}/trigger": "start",
    "POST /api/workflows/{slug}/validate": "design",
    "GET /api/workflows/{slug}/versions": "read",
    "GET /api/workflows/analytics/overview": "read",
    "GET /api/workflows/events/log": "read",
    "GET /api/workflows/executions/bulk": "read",
    "POST /api/workflows/executions/bulk": "operate",
    "GET /api/workflows/executions/bulk/{operation_id}": "read",
    "POST /api/workflows/executions/bulk/{operation_id}/begin": "operate",
    "POST /api/workflows/executions/bulk/{operation_id}/cancel": "operate",
    "POST /api/workflows/executions/bulk/{operation_id}/pause": "operate",
    "GET /api/workflows/executions/{run_id}": "read",
    "POST /api/workflows/executions/{run_id}/cancel": "operate",
    "POST /api/workflows/executions/{run_id}/pause": "operate",
    "POST /api/workflows/executions/{run_id}/resume": "operate",
    "POST /api/workflows/executions/{run_id}/retry": "operate",
    "GET /api/workflows/executions/{run_id}/steps": "read",
    "POST /workflow-builder/api/run": "start",
}

# What is asked for besides the path, where the example of the API's document is not enough.
QUERIES = {
    "GET /api/workflows/{slug}/diff": "?from=1&to=1",
    "DELETE /api/schemas/{table}/events": "?workflow={slug}",
}
BODIES: dict[str, Any] = {
    "PUT /api/workflows/{slug}": {"slug": "{slug}", "nodes": [{"id": "start", "type": "trigger.manual"}]},
    "PUT /api/schemas/{table}/events": {"workflow": "{slug}"},
    "POST /workflow-builder/api/run": {"workflow_id": "{slug}", "wait": 0},
    "POST /api/workflows/executions/bulk": {"action": "cancel", "filter": {"workflow": "{slug}"}},
}
# Paths that hold nothing of a tenant's answer others than 404 to foreign values; without data all the same.
FOREIGN = {
    "GET /static/{file_path}": 404,
    "GET /api/schemas/{table}/events": 200,
    "POST /api/workflows/{slug}/validate": 200,
}

SECRET_WORD = "zebrafish"
THINGS = {
    *("slug", "node_id", "run_id", "task_id", "case_id", "operation_id", "token_id", "email", "table"),
    *("tenant", "source", "form", "secret", "file_path"),
}


@dataclass
class Tenant:
    """A tenant with one of everything; `things` are the values of the places in the paths."""

    name: str
    number: int
    things: dict[str, str] = field(default_factory=dict)


@dataclass
class Route:
    """A route of the application, and how it is called."""

    name: str
    example: Any

    def call(self, client: TestClient[Any], things: dict[str, str], headers: dict[str, str]) -> Any:
        method, _, path = self.name.partition(" ")
        body = BODIES.get(self.name, self.example)
        return client.request(
            method,
            filled(path + QUERIES.get(self.name, ""), things),
            json=filled(body, things) if body is not None else None,
            headers={"if-match": "*", **headers},
            follow_redirects=False,
        )

    @property
    def places(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", f"{self.name} {QUERIES.get(self.name, '')} {BODIES.get(self.name, '')}")


def filled(value: Any, things: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: filled(each, things) for name, each in value.items()}
    if not isinstance(value, str):
        return value
    return re.sub(r"\{(\w+)\}", lambda place: things.get(place[1], place[0]), value)


def routes(app: Litestar) -> Iterator[Route]:
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
            for handler in route.route_handlers:
                operation = handler.opt.get("operation")
                for method in sorted(handler.http_methods - {"OPTIONS"}):
                    yield Route(f"{method} {path}", getattr(operation, "example", None))


@pytest.fixture
def own(db: psycopg.Connection[Any]) -> Tenant:
    return one_of_everything(db, Tenant("default", 1))


@pytest.fixture
def other(db: psycopg.Connection[Any], own: Tenant) -> Tenant:
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    (number,) = db.execute("select tenant_id from stellwerk.tenant where slug = 'other'").fetchone() or (0,)
    return one_of_everything(db, Tenant("other", number))


def one_of_everything(db: psycopg.Connection[Any], tenant: Tenant) -> Tenant:
    """A workflow with runs, a task, a user, a token and so on; what the other tenant has is told by its word."""
    word = SECRET_WORD if tenant.name == "other" else "ordinary"
    db.execute("select set_config('stellwerk.tenant', %s, false)", [tenant.name])
    engine = Engine(db)
    document = {
        "slug": f"{word}-intake",
        "name": word,
        "nodes": [
            {"id": "start", "type": "trigger.manual"},
            {"id": "push", "type": "action.backoffice_push", "config": {"field_map": {"word": word}}},
            {"id": word, "type": "task.user", "config": {"title": word, "role": "staff"}},
        ],
        "edges": [{"from": "start", "to": "push"}, {"from": "push", "to": word}],
    }
    compiled = compile_workflow(document)
    assert compiled.is_publishable, compiled.problems
    for _ in range(2):
        engine.save_workflow(compiled.document, compiled.plan, [])
        engine.publish_workflow(document["slug"])
    engine.save_workflow(compiled.document, compiled.plan, [])
    run_id = engine.start_run(document["slug"], {"word": word})
    engine.pump()
    engine.pump()
    tenant.things = {
        "slug": document["slug"],
        "node_id": word,
        "run_id": str(run_id),
        "task_id": str(engine.value("select id from stellwerk.task_overview")),
        "case_id": str(engine.value("select case_id from stellwerk.case_overview")),
        "operation_id": str(engine.start_bulk_operation("cancel", {"workflow": document["slug"]})),
        "token_id": str(engine.create_token(word, "viewer", access.digest(word))),
        "email": f"{word}@example.org",
        "table": "public.matrix",
        "tenant": tenant.name,
        "source": word,
        "form": word,
        "secret": f"{tenant.number}.{word}",
        "file_path": "icon.svg" if tenant.name == "default" else "../secret",
    }
    engine.add_user(tenant.things["email"], "staff")
    db.execute("create table if not exists public.matrix (id bigint primary key, name text)")
    db.execute("grant select, trigger on public.matrix to stellwerk_web")
    db.execute("reset stellwerk.tenant")
    return tenant


@pytest.fixture
def enter(db: psycopg.Connection[Any]) -> Callable[..., dict[str, str]]:
    """The headers of a new session of a role, or of a token with these scopes."""

    def come_in(role: str, tenant: Tenant, scopes: set[str] | None = None) -> dict[str, str]:
        db.execute("select set_config('stellwerk.tenant', %s, false)", [tenant.name])
        engine, secret = Engine(db), access.new_secret(tenant.number)
        if scopes is not None:
            engine.create_token(f"t{access.digest(secret).hex()[:20]}", role, access.digest(secret), sorted(scopes))
            headers = {"authorization": f"Bearer {secret}"}
        else:
            email = f"{role}@{tenant.name}.example"
            known = engine.rows("select user_id from stellwerk.app_user where email = %s", [email])
            user_id = known[0]["user_id"] if known else engine.add_user(email, role)
            db.execute("select stellwerk.open_session(%s, %s, %s)", [tenant.number, user_id, access.digest(secret)])
            headers = {"cookie": f"stellwerk_session={secret}", access.CSRF_HEADER: access.csrf_token(secret)}
        db.execute("reset stellwerk.tenant")
        return headers

    return come_in


def is_refused(answer: Any) -> bool:
    """Whether it was the guard that said no; a verb may have its own reasons."""
    return answer.status_code in (401, 403) and bool(re.search("please log in|needs the right|too old", answer.text))


@pytest.mark.one_server
def test_every_route_stands_in_the_table(client: TestClient[Any]) -> None:
    found = {route.name for route in routes(client.app)}
    assert found - set(ROUTES) == set(), "add these to ROUTES, with the right that they should need"
    assert set(ROUTES) - found == set(), "there are no such routes"
    unknown = {place for route in routes(client.app) for place in route.places} - THINGS
    assert unknown == set(), "give both tenants one of these in one_of_everything"


@pytest.mark.one_server
def test_every_route_lets_in_whom_it_should(
    client: TestClient[Any], own: Tenant, enter: Callable[..., dict[str, str]]
) -> None:
    wrong = []
    for route in routes(client.app):
        needs = ROUTES.get(route.name, "")
        seen = {"nobody": not is_refused(route.call(client, own.things, {}))}
        expected = {"nobody": needs == "public"}
        for role, rights in RIGHTS.items():
            answer = route.call(client, own.things, enter(role, own))
            assert answer.status_code < 500, (route.name, role, answer.text)
            seen[role] = not is_refused(answer)
            expected[role] = needs in ("public", "anybody") or needs in rights
        without = RIGHTS["admin"] - {needs}
        seen["token"] = not is_refused(route.call(client, own.things, enter("admin", own, without)))
        expected["token"] = needs in ("public", "anybody")
        if seen != expected:
            wrong.append((route.name, {who: let_in for who, let_in in seen.items() if let_in != expected[who]}))
    assert wrong == []


@pytest.mark.one_server
def test_a_session_alone_changes_nothing(
    client: TestClient[Any], own: Tenant, enter: Callable[..., dict[str, str]]
) -> None:
    """Without the token of the page, which another site cannot read."""
    cookie = {"cookie": enter("admin", own)["cookie"]}
    for route in routes(client.app):
        if not route.name.startswith(("GET", "HEAD")) and ROUTES[route.name] != "public":
            answer = route.call(client, own.things, cookie)
            assert (answer.status_code, "too old" in answer.text) == (403, True), route.name


def test_nothing_of_another_tenant_is_shown_or_touched(
    client: TestClient[Any],
    db: psycopg.Connection[Any],
    own: Tenant,
    other: Tenant,
    enter: Callable[..., dict[str, str]],
) -> None:
    before = everything_of(db, other)
    for route in routes(client.app):
        if ROUTES[route.name] == "public":
            continue
        answer = route.call(client, other.things, enter("admin", own))
        if route.places:
            assert answer.status_code == FOREIGN.get(route.name, 404), (route.name, answer.text)
        sent = [value for value in other.things.values() if SECRET_WORD in value]
        said = answer.text
        for value in sorted(sent, key=len, reverse=True):
            said = said.replace(value, "")  # what was asked for may be named in the answer
        assert SECRET_WORD not in said, (route.name, answer.text)
    assert everything_of(db, other) == before


def everything_of(db: psycopg.Connection[Any], tenant: Tenant) -> dict[str, Any]:
    tables = db.execute(
        "select c.relname from pg_class c where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p')"
        " and not c.relispartition and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id')"
    ).fetchall()
    return {
        name: db.execute(
            f"select md5(coalesce(string_agg(x::text, ',' order by x::text), '')) from stellwerk.{name} x where tenant_id = %s",
            [tenant.number],
        ).fetchone()
        for (name,) in tables
    }
