"""Pages: one module each. A page answers with `page.html`, and with `_fragment.html` where htmx wants a part of it."""

from __future__ import annotations

from stellwerk.web.pages import (
    alerts,
    audit,
    backoffice,
    builder,
    bulk,
    dashboard,
    events,
    gallery,
    live,
    login,
    run_history,
    runs,
    schedules,
    tasks,
    users,
    versions,
    workflows,
)

ROUTERS = [
    alerts.router,
    audit.router,
    backoffice.router,
    builder.router,
    bulk.router,
    dashboard.router,
    events.router,
    gallery.router,
    live.router,
    login.router,
    run_history.router,
    runs.router,
    schedules.router,
    tasks.router,
    users.router,
    versions.router,
    workflows.router,
]
