"""`/api/workflows/…/analytics`: figures of a window of time."""

from __future__ import annotations

import datetime
from typing import Annotated

from litestar import Response
from pydantic import Field

from stellwerk.web import exchange
from stellwerk.web.api import definitions
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Asked, Shown, answer

DAYS = 1
# Long windows begin with a day: whole days are summed up.
SINCE = """
  select date_trunc(case when %(days)s > 7 then 'day' else 'hour' end,
                    clock_timestamp() - make_interval(days => %(days)s), 'UTC')
"""


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
    p50_seconds: float | None = Field(description="Durations are those of the last 31 days at most.")
    p95_seconds: float | None
    p99_seconds: float | None
    p95_start_seconds: float | None = Field(description="How long runs waited for their first step.")
    last_started_at: datetime.datetime | None


class NodeFigures(Shown):
    """Figures of a node in one version."""

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
    p50_seconds: float | None = Field(description="Durations are those of the last 31 days at most.")
    p95_seconds: float | None
    p99_seconds: float | None
    p95_queue_seconds: float | None


class WorkflowAnalytics(Shown):
    """A workflow and its nodes."""

    since: datetime.datetime = Field(
        description="The beginning of the hour, of more than 7 days of the day, in which the window begins."
    )
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

    since: datetime.datetime = Field(
        description="The beginning of the hour, of more than 7 days of the day, in which the window begins."
    )
    workflows: list[WorkflowFigures] = Field(description="The busiest first, at most 200.")
    failures: list[FailureCluster] = Field(description="The most frequent of the newest 1000, at most 20.")


class Window(Asked):
    """How far back."""

    days: Annotated[int, Field(ge=1, le=90, description="The window ends now.")] = DAYS


@exchange.get("/api/workflows/{slug:str}/analytics", "Figures of a workflow", WorkflowAnalytics, asks=Window)
def get_workflow_analytics(desk: Desk, slug: str, asked: Window) -> Response[bytes]:
    """Counts, shares and durations of the workflow and of each node."""
    with desk.engine() as engine:
        definitions.workflow_of(engine, slug)
        since = engine.value(SINCE, {"days": asked.days})  # type: ignore[arg-type]
        figures = engine.rows("select * from stellwerk.workflow_figures(%s, %s)", [since, slug])
        nodes = engine.rows(
            "select * from stellwerk.node_figures(%s, %s) order by version desc, visits desc, node_id", [slug, since]
        )
    return answer(WorkflowAnalytics, {"since": since, "workflow": figures[0] if figures else None, "nodes": nodes})


@exchange.get("/api/workflows/analytics/overview", "Figures of all workflows", Overview, asks=Window)
def get_analytics_overview(desk: Desk, asked: Window) -> Response[bytes]:
    """The busiest workflows, and what fails most."""
    with desk.engine() as engine:
        since = engine.value(SINCE, {"days": asked.days})  # type: ignore[arg-type]
        rows = engine.rows(
            "select * from stellwerk.workflow_figures(%s) order by runs desc, workflow limit 200", [since]
        )
        failures = engine.rows("select * from stellwerk.recent_failures(%s)", [since])
    return answer(Overview, {"since": since, "workflows": rows, "failures": failures})


router = exchange.router(get_workflow_analytics, get_analytics_overview)
