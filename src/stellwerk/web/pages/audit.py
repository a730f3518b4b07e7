"""The audit log: who did what, and what was there before."""

from __future__ import annotations

from typing import Any

from litestar import Router

from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk

ENTRIES = """
  select x.audit_id, x.found, a.acted_at, a.actor, a.database_user, a.action, a.subject, a.subject_id, a.before, a.after
    from stellwerk.look_for_entries(%(actor)s::text, %(subject)s::text, %(before)s::bigint, %(limit)s::int) x
    left join stellwerk.audit_log a
      on a.tenant_id = (select stellwerk.current_tenant_id()) and a.audit_id = x.audit_id
   order by x.audit_id desc
"""


@routes.get("/audit", needs="manage")
def show_audit(desk: Desk, actor: str = "", subject: str = "", cursor: str = "") -> Any:
    """The newest entries first; htmx asks for more rows at the end of the list."""
    page = entries(desk, actor or None, subject or None, cursor or None, cursors.DEFAULT)
    template = "audit/_entries.html" if desk.is_fragment else "audit/page.html"
    return desk.page(template, page=page, actor=actor, subject=subject, first=not cursor)


def entries(desk: Desk, actor: str | None, subject: str | None, cursor: str | None, limit: int) -> cursors.Page:
    """A page of entries, newest first."""
    key = cursors.read(cursor, int)
    rows = desk.rows(ENTRIES, {"actor": actor, "subject": subject, "before": key and key[0], "limit": limit + 1})  # type: ignore[arg-type]
    return cursors.page(rows, limit, "audit_id")


router = Router("/", route_handlers=[show_audit])
