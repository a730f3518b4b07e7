"""`/api/audit`: who did what, and what was there before."""

from __future__ import annotations

import datetime
from typing import Annotated

from litestar import Response
from pydantic import Field

from stellwerk.web import exchange
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Id, Paged, Shown
from stellwerk.web.pages.audit import entries


class AuditEntry(Shown):
    """One thing that somebody did."""

    audit_id: Id
    acted_at: datetime.datetime
    actor: str
    database_user: str
    action: str
    subject: str
    subject_id: str | None
    before: Anything
    after: Anything


class WhichEntries(Paged):
    """Which entries."""

    actor: Annotated[str, Field(max_length=400)] | None = None
    subject: Annotated[str, Field(max_length=100)] | None = Field(default=None, description="The kind of thing.")


AuditList = exchange.listed(AuditEntry, "AuditList")


@exchange.get("/api/audit", "List the audit log", AuditList, needs="manage", asks=WhichEntries)
def list_audit(desk: Desk, asked: WhichEntries) -> Response[bytes]:
    """The newest first."""
    return exchange.paged(AuditList, entries(desk, asked.actor, asked.subject, asked.cursor, asked.limit))


router = exchange.router(list_audit)
