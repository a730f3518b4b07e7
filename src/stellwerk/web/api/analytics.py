"""`/api/workflows/…/analytics`: figures of a window of time."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from litestar import Response
from pydantic import Field

from stellwerk.engine import Engine
from stellwerk.web import exchange
from stellwerk.web.api import definitions
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Asked, Shown, answer

DAYS = 1


class WorkflowFigures(Shown):
    """Figures of a workflow over the runs asked for in the window."""

    workflow: str
    runs: int
    pending: int
    running: int
    waiting: int
    paused: int
    completed: int
    failed: int
    cancelled: int
    success_share: float | None = Field(description="completed / (completed + failed)")
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    p95_start_seconds: float | None = Field(description="How long runs waited for their first step.")
    last_started_at: datetime.datetime | None


class NodeFigures(Shown):
    """Figures of a node."""

    version: int
    node_id: str
    type: str
    visits: int
    live: int
    completed: int
    failed: int
    skipped: int
    cancelled: int
    attempts: int
    failures: int
    p50_seconds: float | None
    p95_seconds: float | None
    p99_seconds: float | None
    p95_queue_seconds: float | None


class WorkflowAnalytics(Shown):
    """A workflow and its nodes."""

    since: datetime.datetime
    workflow: WorkflowFigures | None = Field(description="Null: no run was asked for in the window.")
    nodes: list[NodeFigures]


class FailureCluster(Shown):
    """Runs that failed alike."""

    fingerprint: str
    workflow: str
    version: int
    node_id: str | None
    error_class: str | None
    message: str | None
    failures: int
    first_seen: datetime.datetime
    last_seen: datetime.datetime


class Overview(Shown):
    """All workflows."""

    since: datetime.datetime
    workflows: list[WorkflowFigures] = Field(description="The busiest first, at most 200.")
    failures: list[FailureCluster] = Field(description="The most frequent first, at most 20.")


class Window(Asked):
    """How far back."""

    days: Annotated[int, Field(ge=1, le=90, description="The window ends now.")] = DAYS


@exchange.get("/api/workflows/{slug:str}/analytics", "Figures of a workflow", WorkflowAnalytics, asks=Window)
def get_workflow_analytics(desk: Desk, slug: str, asked: Window) -> Response[bytes]:
    """Counts, shares and durations of the workflow and of each node."""
    with desk.engine() as engine:
        definitions.workflow_of(engine, slug)
        since = _look_back(engine, asked.days)
        figures = engine.rows("select * from stellwerk.workflow_statistics where workflow = %s", [slug])
        nodes = engine.rows(
            "select * from stellwerk.node_statistics where workflow = %s order by version desc, visits desc, node_id",
            [slug],
        )
    return answer(WorkflowAnalytics, {"since": since, "workflow": figures[0] if figures else None, "nodes": nodes})


@exchange.get("/api/workflows/analytics/overview", "Figures of all workflows", Overview, asks=Window)
def get_analytics_overview(desk: Desk, asked: Window) -> Response[bytes]:
    """The busiest workflows, and what fails most."""
    with desk.engine() as engine:
        since = _look_back(engine, asked.days)
        rows = engine.rows("select * from stellwerk.workflow_statistics order by runs desc, workflow limit 200")
        failures = engine.rows("select * from stellwerk.failure_cluster order by failures desc, fingerprint limit 20")
    return answer(Overview, {"since": since, "workflows": rows, "failures": failures})


def _look_back(engine: Engine, days: int) -> Any:
    engine.value("select set_config('stellwerk.period', %s, true)", [f"P{days}D"])
    return engine.value("select stellwerk.window_start('P1D')")


router = exchange.router(get_workflow_analytics, get_analytics_overview)
