"""The HTTP API: one module per resource; all of it JSON, errors as problem+json."""

from __future__ import annotations

from litestar import Router

from stellwerk.web.api import (
    accounts,
    analytics,
    audit,
    backtests,
    bulk,
    cases,
    executions,
    reference,
    row_events,
    steps,
    user_tasks,
    workflows,
)

ROUTERS: list[Router] = [
    accounts.router,
    analytics.router,
    audit.router,
    backtests.router,
    bulk.router,
    cases.router,
    executions.router,
    reference.router,
    row_events.router,
    steps.router,
    user_tasks.router,
    workflows.router,
]
