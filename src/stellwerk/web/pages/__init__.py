"""Pages: one module each. A page answers with `page.html`, and with `_fragment.html` where htmx wants a part of it."""

from __future__ import annotations

from stellwerk.web.pages import audit, builder, gallery, login, versions, workflows

ROUTERS = [
    audit.router,
    builder.router,
    gallery.router,
    login.router,
    versions.router,
    workflows.router,
]
