"""The dashboard."""

from __future__ import annotations

from typing import Any

from litestar import Router

from stellwerk.web import routes
from stellwerk.web.desk import Desk


@routes.get("/")
def show_dashboard(desk: Desk) -> Any:
    """Staff begin with their tasks."""
    return desk.go("/tasks")


router = Router("/", route_handlers=[show_dashboard])
