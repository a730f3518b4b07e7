"""What the dashboard shows: how it stands now, and how the last day went."""

from __future__ import annotations

from typing import Any

from stellwerk.engine import Engine
from stellwerk.web import charts

KINDS = ("completed", "cancelled", "live", "failed")
CLUSTERS = "select * from stellwerk.recent_failures() limit 6"
WORKERS = """
  select w.worker_id, w.name, w.host, w.started_at, w.running_steps from stellwerk.worker_status w
   where w.present order by w.worker_id limit 50
"""
OVERDUE = "select * from stellwerk.overdue_by_hour()"


def read_figures(engine: Engine) -> dict[str, Any]:
    """Everything that the template `dashboard/_figures.html` names."""
    now = engine.row("select * from stellwerk.live_figures()")
    hours = engine.rows("select * from stellwerk.hourly_figures(clock_timestamp() - interval '23 hours')")
    workflows = engine.rows("select * from stellwerk.workflow_figures(clock_timestamp() - interval '23 hours')")
    clusters, workers = engine.rows(CLUSTERS), engine.rows(WORKERS)
    overdue = engine.rows(OVERDUE)
    failing = [workflow for workflow in workflows if workflow["failed"]]
    return {
        "now": now,
        "sparks": {
            "running": charts.spark([hour["runs"] for hour in hours]),
            "waiting": charts.spark([hour["live"] for hour in hours]),
            "failed": charts.spark([hour["failed"] for hour in hours]),
            "overdue": charts.spark([hour["tasks"] for hour in overdue]),
        },
        "chart": charts.stack(hours, KINDS),
        "busiest": workflows[:8],
        "failing": sorted(failing, key=lambda w: (w["success_share"] or 0, -w["failed"]))[:5],
        "slowest": sorted((w for w in workflows if w["p95_seconds"]), key=lambda w: -w["p95_seconds"])[:5],
        "clusters": clusters,
        "workers": workers,
        "seconds": charts.seconds,
        "percent": charts.percent,
    }
