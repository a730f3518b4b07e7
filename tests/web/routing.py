"""Every route of the application, with the right that it needs, and how it is called.

ROUTES is written by hand and independently of the code: a route that is not there fails tests/web/test_routes.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from litestar import Litestar
from litestar.routes import HTTPRoute

# The right that a route needs; `anybody` is everybody who is logged in, `public` the whole world.
ROUTES = {
    "GET /": "read",
    "GET /alerts": "read",
    "POST /alerts/rules": "manage",
    "POST /alerts/rules/{name}/removal": "manage",
    "GET /api/audit": "manage",
    "GET /api/backoffice/cases": "read",
    "GET /api/backoffice/cases.csv": "read",
    "POST /api/backoffice/cases/status": "work",
    "GET /api/backoffice/cases/{case_id}": "read",
    "PATCH /api/backoffice/cases/{case_id}": "work",
    "GET /api/schemas/{table}/events": "read",
    "PUT /api/schemas/{table}/events": "design",
    "DELETE /api/schemas/{table}/events": "design",
    "GET /api/tokens": "manage",
    "POST /api/tokens": "manage",
    "DELETE /api/tokens/{token_id}": "manage",
    "GET /api/user-tasks": "work",
    "GET /api/user-tasks/{task_id}": "work",
    "POST /api/user-tasks/{task_id}/complete": "work",
    "POST /api/user-tasks/{task_id}/claim": "work",
    "POST /api/user-tasks/{task_id}/reassign": "work",
    "GET /api/users": "manage",
    "POST /api/users": "manage",
    "GET /api/users/{email}": "manage",
    "PATCH /api/users/{email}": "manage",
    "POST /api/users/{email}/invitation": "manage",
    "DELETE /api/users/{email}/sessions": "manage",
    "GET /api/workflows": "read",
    "POST /api/workflows": "design",
    "GET /api/workflows/{slug}": "read",
    "PUT /api/workflows/{slug}": "design",
    "DELETE /api/workflows/{slug}": "design",
    "GET /api/workflows/{slug}/analytics": "read",
    "GET /api/workflows/{slug}/diff": "read",
    "GET /api/workflows/{slug}/executions": "read",
    "POST /api/workflows/{slug}/backtest": "design",
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
    "GET /audit": "manage",
    "GET /backoffice": "read",
    "GET /backoffice/cases.csv": "read",
    "POST /backoffice/status": "work",
    "GET /backoffice/{case_id}": "read",
    "POST /backoffice/{case_id}/appointments": "work",
    "POST /backoffice/{case_id}/appointments/{appointment_id}": "work",
    "POST /backoffice/{case_id}/appointments/{appointment_id}/cancellation": "work",
    "POST /backoffice/{case_id}/changes": "work",
    "POST /backoffice/{case_id}/notes": "work",
    "GET /bulk": "operate",
    "POST /bulk": "operate",
    "GET /bulk/order": "operate",
    "GET /bulk/{operation_id}": "operate",
    "POST /bulk/{operation_id}/map": "operate",
    "POST /bulk/{operation_id}/{step}": "operate",
    "GET /events": "read",
    "GET /events/{event_id}": "read",
    "POST /events/{event_id}/replay": "operate",
    "POST /forms/{tenant}/{form}": "public",
    "GET /healthz": "public",
    "POST /hooks/{tenant}/{source}": "public",
    "GET /live/cases": "read",
    "GET /live/dashboard": "read",
    "GET /live/overview": "read",
    "GET /live/runs/{run_id}": "read",
    "GET /live/tasks": "work",
    "GET /login": "public",
    "POST /login": "public",
    "POST /logout": "anybody",
    "GET /metrics": "read",
    "GET /readyz": "public",
    "GET /runs": "read",
    "GET /runs/{run_id}": "read",
    "GET /runs/{run_id}/act/{action}": "operate",
    "POST /runs/{run_id}/cancel": "operate",
    "GET /runs/{run_id}/data": "read",
    "GET /runs/{run_id}/diff": "read",
    "POST /runs/{run_id}/edit": "operate",
    "GET /runs/{run_id}/history": "read",
    "GET /runs/{run_id}/loops/{step_id}": "read",
    "GET /runs/{run_id}/nodes/{node}": "read",
    "POST /runs/{run_id}/pause": "operate",
    "GET /runs/{run_id}/plan": "operate",
    "POST /runs/{run_id}/resume": "operate",
    "POST /runs/{run_id}/retry": "operate",
    "POST /runs/{run_id}/signal": "operate",
    "POST /runs/{run_id}/skip": "operate",
    "GET /runs/{run_id}/steps": "read",
    "GET /runs/{run_id}/steps/{step_id}": "read",
    "GET /schedules": "read",
    "GET /schedules/{schedule_id}/times": "read",
    "POST /schedules/{schedule_id}/{step}": "operate",
    "GET /schema": "anybody",
    "GET /schema/openapi.json": "public",
    "GET /scripts/{version}/{folder}/{name}": "public",
    "POST /settings/tokens": "manage",
    "POST /settings/tokens/{token_id}/revocation": "manage",
    "GET /settings/users": "manage",
    "POST /settings/users": "manage",
    "POST /settings/users/{user_id}/absence": "manage",
    "POST /settings/users/{user_id}/changes": "manage",
    "POST /settings/users/{user_id}/invitation": "manage",
    "POST /settings/users/{user_id}/sessions/end": "manage",
    "GET /static/{file_path}": "public",
    "HEAD /static/{file_path}": "public",
    "GET /tasks": "work",
    "GET /tasks/{task_id}": "work",
    "POST /tasks/{task_id}/assignee": "work",
    "POST /tasks/{task_id}/attachments": "work",
    "POST /tasks/{task_id}/claim": "work",
    "POST /tasks/{task_id}/comments": "work",
    "POST /tasks/{task_id}/completion": "work",
    "POST /tasks/{task_id}/draft": "work",
    "POST /tasks/{task_id}/release": "work",
    "GET /templates": "read",
    "POST /templates/{slug}/installation": "design",
    "GET /welcome/{secret}": "public",
    "POST /welcome/{secret}": "public",
    "GET /workflow-builder": "design",
    "POST /workflow-builder": "design",
    "POST /workflow-builder/api/run": "start",
    "GET /workflow-builder/{slug}": "read",
    "PUT /workflow-builder/{slug}": "design",
    "POST /workflow-builder/{slug}/check": "read",
    "GET /workflow-builder/{slug}/context": "read",
    "GET /workflow-builder/{slug}/document": "read",
    "GET /workflow-builder/{slug}/draft": "read",
    "POST /workflow-builder/{slug}/publish": "design",
    "GET /workflow-builder/{slug}/publishing": "read",
    "POST /workflow-builder/{slug}/simulate": "read",
    "POST /workflow-builder/{slug}/values": "read",
    "GET /workflows": "read",
    "POST /workflows/{slug}/discarded-draft": "design",
    "POST /workflows/{slug}/migration": "operate",
    "POST /workflows/{slug}/migration-plan": "operate",
    "POST /workflows/{slug}/migration-undo": "operate",
    "POST /workflows/{slug}/rollback": "design",
    "GET /workflows/{slug}/versions": "read",
}

# What is asked for besides the path.
QUERIES = {
    "DELETE /api/schemas/{table}/events": "?workflow={slug}",
    "GET /api/backoffice/cases": "?workflow={slug}&words={node_id}",
    "GET /api/backoffice/cases.csv": "?workflow={slug}",
    "GET /api/workflows/{slug}/diff": "?from=1&to=1",
    "GET /backoffice": "?workflow={slug}&words={node_id}",
    "GET /backoffice/cases.csv": "?workflow={slug}",
    "GET /events": "?target={table}",
    "GET /runs": "?workflow={slug}&text={node_id}",
    "GET /runs/{run_id}/steps": "?before={step_id}",
    "GET /workflow-builder/{slug}/context": "?run={run_id}",
    "GET /workflows": "?q={slug}",
}
# What is sent, where the example of the API's document is not enough.
DOCUMENT = {"slug": "{slug}", "nodes": [{"id": "start", "type": "trigger.manual"}]}
BODIES: dict[str, Any] = {
    "PUT /api/workflows/{slug}": DOCUMENT,
    "PUT /api/schemas/{table}/events": {"workflow": "{slug}"},
    "POST /workflow-builder/api/run": {"workflow_id": "{slug}", "wait": 0},
    "POST /api/workflows/executions/bulk": {"action": "cancel", "filter": {"workflow": "{slug}"}},
    "PUT /workflow-builder/{slug}": {"document": DOCUMENT, "over": True},
    "POST /workflow-builder/{slug}/check": {"document": DOCUMENT},
    "POST /workflow-builder/{slug}/publish": {},
    "POST /workflow-builder/{slug}/simulate": {"document": DOCUMENT, "run": "{run_id}"},
    "POST /workflow-builder/{slug}/values": {"run": "{run_id}", "items": [{"text": "{{ trigger.payload }}"}]},
}
# What a page's form sends.
FORMS: dict[str, dict[str, str]] = {
    "POST /alerts/rules": {"name": "x", "kind": "stuck", "threshold": "1", "workflow": "{slug}"},
    "POST /backoffice/status": {"case": "{case_id}", "to": "done"},
    "POST /backoffice/{case_id}/appointments": {"title": "x", "starts_at": "2027-01-01T10:00"},
    "POST /backoffice/{case_id}/appointments/{appointment_id}": {"starts_at": "2027-01-01T10:00", "version": "1"},
    "POST /backoffice/{case_id}/appointments/{appointment_id}/cancellation": {},
    "POST /backoffice/{case_id}/changes": {"note": "x"},
    "POST /backoffice/{case_id}/notes": {"body": "x"},
    "POST /bulk": {"action": "cancel", "workflow": "{slug}"},
    "POST /login": {"email": "{email}", "password": "wrong"},
    "POST /runs/{run_id}/cancel": {"reason": "x"},
    "POST /runs/{run_id}/edit": {"payload": '{"a": 1}'},
    "POST /runs/{run_id}/retry": {},
    "POST /runs/{run_id}/signal": {"event": "x", "correlation": "y"},
    "POST /runs/{run_id}/skip": {"step": "{step_id}"},
    "POST /schedules/{schedule_id}/{step}": {},
    "POST /settings/tokens": {"name": "new", "role": "viewer"},
    "POST /settings/users": {"email": "new@example.org", "role": "viewer"},
    "POST /settings/users/{user_id}/absence": {},
    "POST /settings/users/{user_id}/changes": {"name": "x"},
    "POST /tasks/{task_id}/assignee": {"to": "role:staff"},
    "POST /tasks/{task_id}/attachments": {"name": "x", "reference": "/x"},
    "POST /tasks/{task_id}/comments": {"body": "x"},
    "POST /tasks/{task_id}/completion": {},
    "POST /tasks/{task_id}/draft": {},
    "POST /welcome/{secret}": {"password": "x", "again": "y"},
    "POST /workflow-builder": {"name": "A new one"},
    "POST /workflows/{slug}/migration": {"from": "1", "to": "2"},
    "POST /workflows/{slug}/migration-plan": {"from": "1", "to": "2"},
    "POST /workflows/{slug}/rollback": {"version": "1"},
}
# Whoever names things of another tenant meets 404, as for things that do not exist; lists and what needs no data answer alike.
FOREIGN = {
    "GET /api/backoffice/cases": 200,
    "GET /api/backoffice/cases.csv": 200,
    "GET /api/schemas/{table}/events": 200,
    "POST /api/workflows/{slug}/validate": 200,
    "GET /backoffice": 200,
    "GET /backoffice/cases.csv": 200,
    "POST /backoffice/status": 200,
    "GET /events": 200,
    "POST /workflow-builder/{slug}/check": 200,
    "GET /workflows": 200,
}
PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Route:
    """A route of the application; `example` is the body that the API's document shows."""

    name: str
    example: Any = None

    @property
    def method(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.name.partition(" ")[2]

    @property
    def needs(self) -> str:
        return ROUTES.get(self.name, "")

    @property
    def changes(self) -> bool:
        """Whether it may change something, by its method."""
        return self.method not in ("GET", "HEAD")

    @property
    def places(self) -> list[str]:
        """What `things` have to be known to call it."""
        sent = [QUERIES.get(self.name, ""), BODIES.get(self.name, ""), FORMS.get(self.name, "")]
        return PLACE.findall(" ".join([self.name, *map(str, sent)]))

    def call(self, client: httpx2.Client, things: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        """The answer; of a stream that never ends only its beginning."""
        sent: dict[str, Any] = {}
        headers = {"if-match": "*", **(headers or {})}
        if self.name in FORMS:
            sent["content"] = urlencode({name: filled(value, things) for name, value in FORMS[self.name].items()})
            headers["content-type"] = "application/x-www-form-urlencoded"
        elif (body := BODIES.get(self.name, self.example)) is not None:
            sent["json"] = filled(body, things)
        path = PLACE.sub(lambda place: quote(things.get(place[1], place[0]), safe=""), self.path)
        query = filled(QUERIES.get(self.name, ""), things)
        answer = client.send(client.build_request(self.method, path + query, headers=headers, **sent), stream=True)
        try:
            if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                answer.read()
        finally:
            answer.close()
        return answer


def said(answer: Any) -> str:
    """The text of an answer; of a stream nothing is read."""
    return str(answer.text) if answer.is_stream_consumed else ""


def filled(value: Any, things: dict[str, str]) -> Any:
    """The value with `things` in its places."""
    if isinstance(value, dict):
        return {name: filled(each, things) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, things) for each in value]
    if not isinstance(value, str):
        return value
    return PLACE.sub(lambda place: things.get(place[1], place[0]), value)


def routes_of(app: Litestar) -> Iterator[Route]:
    """All of them, as the application knows them."""
    for route in app.routes:
        assert isinstance(route, HTTPRoute), "sockets would need a test of their own"
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for handler in route.route_handlers:
            operation = handler.opt.get("operation")
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                yield Route(f"{method} {path}", getattr(operation, "example", None))
