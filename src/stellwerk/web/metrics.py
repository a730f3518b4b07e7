"""`GET /metrics`: figures in Prometheus' text format, for whoever may read; as a rule that is a token."""

from __future__ import annotations

from typing import Any

from litestar import Response, Router

from stellwerk.web import routes
from stellwerk.web.desk import Desk

TEXT = "text/plain; version=0.0.4; charset=utf-8"
FIGURES = """
  select f.running, f.waiting, f.failed_24h, f.tasks_overdue, f.queued, f.workers,
         coalesce(extract(epoch from clock_timestamp() - f.oldest_queued_at), 0)::float8 as oldest_queued,
         coalesce((select extract(epoch from clock_timestamp() - min(t.due_at)) from stellwerk.timer t
                    where t.tenant_id = (select stellwerk.current_tenant_id()) and t.due_at < clock_timestamp()), 0)
           ::float8 as tick_lag,
         (select count(*) from stellwerk.alert a
           where a.tenant_id = (select stellwerk.current_tenant_id()) and a.resolved_at is null) as alerts
    from stellwerk.live_figures() f
"""
GAUGES = (
    ("stellwerk_runs", "Runs that have not ended, by state; counting ends at 2000.", ("running", "waiting")),
    ("stellwerk_runs_failed_24h", "Runs that failed in the last 24 hours; counting ends at 2000.", "failed_24h"),
    ("stellwerk_tasks_overdue", "Tasks of people that should be done; counting ends at 2000.", "tasks_overdue"),
    ("stellwerk_queue_depth", "Steps that wait for a worker; counting ends at 2000.", "queued"),
    ("stellwerk_queue_oldest_seconds", "How long the oldest of them has waited.", "oldest_queued"),
    ("stellwerk_workers", "Workers that are running.", "workers"),
    ("stellwerk_tick_lag_seconds", "How long the oldest due timer has waited to be fired.", "tick_lag"),
    ("stellwerk_alerts", "Alerts that are not resolved.", "alerts"),
)


@routes.get("/metrics")
def show_metrics(desk: Desk) -> Response[str]:
    """The figures of the tenant whose token, or session, asks."""
    figures = desk.rows(FIGURES)[0]
    return Response("".join(_gauge(figures, *gauge) for gauge in GAUGES), headers={"content-type": TEXT})


def _gauge(figures: dict[str, Any], name: str, text: str, what: str | tuple[str, ...]) -> str:
    head = f"# HELP {name} {text}\n# TYPE {name} gauge\n"
    if isinstance(what, str):
        return f"{head}{name} {figures[what]:g}\n"
    return head + "".join(f'{name}{{state="{state}"}} {figures[state]:g}\n' for state in what)


router = Router("/", route_handlers=[show_metrics])
