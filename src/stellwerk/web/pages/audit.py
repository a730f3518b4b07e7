"""The audit log: who did what, and what was there before."""

from __future__ import annotations

from typing import Any

from litestar import Router

from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk

ENTRIES = """
  select a.audit_id, a.acted_at, a.actor, a.database_user, a.action, a.subject, a.subject_id, a.before, a.after
    from stellwerk.audit_log a
   where a.tenant_id = (select stellwerk.current_tenant_id())
     and (%(actor)s::text is null or a.actor = %(actor)s)
     and (%(subject)s::text is null or a.subject = %(subject)s)
     and (%(before)s::bigint is null or a.audit_id < %(before)s)
   order by a.audit_id desc
   limit %(limit)s
"""


@routes.get("/audit", needs="manage")
def show_audit(desk: Desk, actor: str = "", subject: str = "", cursor: str = "") -> Any:
    """The newest entries first; htmx asks for more rows at the end of the list."""
    page = entries(desk, actor or None, subject or None, cursor or None, cursors.DEFAULT)
    template = "audit/_entries.html" if desk.is_fragment else "audit/page.html"
    return desk.page(template, page=page, actor=actor, subject=subject)


def entries(desk: Desk, actor: str | None, subject: str | None, cursor: str | None, limit: int) -> cursors.Page:
    """A page of entries, newest first."""
    key = cursors.read(cursor, int)
    rows = desk.rows(ENTRIES, {"actor": actor, "subject": subject, "before": key and key[0], "limit": limit + 1})  # type: ignore[arg-type]
    return cursors.page(rows, limit, "audit_id")


router = Router("/", route_handlers=[show_audit])
