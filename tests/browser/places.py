"""Every page of the application with what has to stand in its path, in the furnished database.

The pages are drawn from the application's routes: one that is neither here nor among the others fails the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler

# Answers to GET that no one looks at alone: parts of pages, files, streams, and what is read by programs.
OTHERS = frozenset(
    {
        *("/healthz", "/readyz", "/metrics", "/schema/openapi.json", "/static/{file_path:path}"),
        *("/backoffice/cases.csv", "/scripts/{version:str}/{folder:str}/{name:str}"),
        *(f"/workflow-builder/{{slug:str}}/{part}" for part in ("document", "publishing", "context", "draft")),
        *("/live/runs/{run_id:int}", "/live/overview", "/live/dashboard", "/live/tasks", "/live/cases"),
        *("/schedules/{schedule_id:int}/times", "/bulk/order", "/runs/{run_id:int}/loops/{step_id:int}"),
        *(f"/runs/{{run_id:int}}/{part}" for part in ("data", "steps", "plan", "act/{action:str}")),
        *("/runs/{run_id:int}/nodes/{node:str}", "/runs/{run_id:int}/steps/{step_id:int}"),
    }
)

RUN = "select run_id from stellwerk.run_overview where workflow = 'patient-intake' and "


@dataclass(frozen=True)
class Place:
    """A page: its name, its route, and a query for what stands in the route's place."""

    name: str
    route: str
    query: str | None = None
    public: bool = False
    search: str = ""
    click: str | None = None  # what is chosen on the page before one looks

    def path(self, db: psycopg.Connection[Any]) -> str:
        head, opened, rest = self.route.partition("{")
        if not opened:
            return self.route + self.search
        assert self.query is not None, f"nothing says what stands in {self.route}"
        if not self.query.startswith("select"):
            return head + self.query + rest.partition("}")[2] + self.search
        row = db.execute(self.query.encode()).fetchone()
        assert row is not None, f"the furnished database has nothing for {self.name}"
        return f"{head}{row[0]}{rest.partition('}')[2]}{self.search}"


PLACES = (
    Place("login", "/login", public=True),
    Place("welcome", "/welcome/{secret:str}", "1.welcome", public=True),
    Place("dashboard", "/"),
    Place("workflows", "/workflows"),
    Place("workflow-new", "/workflow-builder"),
    Place("builder", "/workflow-builder/{slug:str}", "patient-intake"),
    Place("builder-node", "/workflow-builder/{slug:str}", "patient-intake", click="#node-confirmed"),
    Place("versions", "/workflows/{slug:str}/versions", "patient-intake"),
    Place("runs", "/runs"),
    Place("runs-failed", "/runs", search="?state=failed"),
    Place("run-waiting", "/runs/{run_id:int}", RUN + "state = 'waiting' order by run_id limit 1"),
    Place(
        "run-completed",
        "/runs/{run_id:int}",
        RUN + "state = 'completed' order by run_id desc limit 1",
        click='.place[data-node="documents"]',
    ),
    Place(
        "run-failed",
        "/runs/{run_id:int}",
        "select max(run_id) from stellwerk.run_overview where workflow = 'price-list' and state = 'failed'",
        click='.place[data-state="failed"]',
    ),
    Place("run-history", "/runs/{run_id:int}/history", RUN + "state = 'completed' order by run_id desc limit 1"),
    Place("run-diff", "/runs/{run_id:int}/diff", RUN + "state = 'completed' order by run_id desc limit 1"),
    Place("bulk", "/bulk"),
    Place("bulk-operation", "/bulk/{operation_id:int}", "select max(operation_id) from stellwerk.bulk_operation"),
    Place("events", "/events"),
    Place("event", "/events/{event_id:int}", "select max(event_id) from stellwerk.event"),
    Place("schedules", "/schedules"),
    Place("alerts", "/alerts"),
    Place("templates", "/templates"),
    Place("tasks", "/tasks"),
    Place(
        "task",
        "/tasks/{task_id:int}",
        "select task_id from stellwerk.user_task order by (claimed_by = 'admin@example.org') is true desc, task_id limit 1",
    ),
    Place("cases", "/backoffice"),
    Place(
        "case",
        "/backoffice/{case_id:int}",
        "select case_id from stellwerk.backoffice_case where assignee = 'petra@example.org' order by case_id limit 1",
    ),
    Place("users", "/settings/users"),
    Place("audit", "/audit"),
    Place("reference", "/schema"),
)


def unplaced(app: Litestar) -> set[str]:
    """The application's pages that are not here, and what is here and no page of it."""
    routes = {
        route.path
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        if isinstance(handler, HTTPRouteHandler)
        and "GET" in handler.http_methods
        and not route.path.startswith("/api/")
    }
    return routes.symmetric_difference({place.route for place in PLACES} | OTHERS)
