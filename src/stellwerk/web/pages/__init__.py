"""Pages: one module each. A page answers with `page.html`, and with `_fragment.html` where htmx wants a part of it."""

from __future__ import annotations

from stellwerk.web.pages import audit, bulk, events, gallery, live, login, runs, schedules

ROUTERS = [
    audit.router,
    bulk.router,
    events.router,
    gallery.router,
    live.router,
    login.router,
    runs.router,
    schedules.router,
]
