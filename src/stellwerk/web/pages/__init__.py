"""Pages: one module each. A page answers with `page.html`, and with `_fragment.html` where htmx wants a part of it."""

from __future__ import annotations

from stellwerk.web.pages import alerts, audit, backoffice, dashboard, gallery, login, tasks, users

ROUTERS = [
    alerts.router,
    audit.router,
    backoffice.router,
    dashboard.router,
    gallery.router,
    login.router,
    tasks.router,
    users.router,
]
