"""The dashboard: how it stands now, and how the last day went."""

from __future__ import annotations

from typing import Any

from litestar import Router

from stellwerk.web import routes
from stellwerk.web.desk import Desk
from stellwerk.web.figures import read_figures


@routes.get("/")
def show_dashboard(desk: Desk) -> Any:
    """Figures, runs per hour, workflows, failures, workers; staff begin with their tasks."""
    if desk.who.role == "staff":
        return desk.go("/tasks")
    with desk.engine() as engine:
        figures = read_figures(engine)
    return desk.page("dashboard/_figures.html" if desk.is_fragment else "dashboard/page.html", **figures)


router = Router("/", route_handlers=[show_dashboard])
