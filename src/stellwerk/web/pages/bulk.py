"""Bulk operations: one action for all runs that fit a filter, counted before anything happens."""

from __future__ import annotations

import json
from typing import Any

from litestar import Router
from litestar.datastructures import State

from stellwerk.errors import UnknownThing, UsageError
from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk
from stellwerk.web.pages.runs import Form, conditions, moment

MOST_FOUND = 20_000

LIST = """
  select p.*, o.by_state, o.options from stellwerk.bulk_progress p
    join stellwerk.bulk_operation o on o.tenant_id = (select stellwerk.current_tenant_id())
        and o.operation_id = p.operation_id
   where (%(before)s::bigint is null or p.operation_id < %(before)s)
     and (%(one)s::bigint is null or p.operation_id = %(one)s)
   order by p.operation_id desc
   limit %(limit)s
"""
TROUBLE = """
  select b.run_id, b.outcome, b.error from stellwerk.bulk_operation_run b
   where b.tenant_id = (select stellwerk.current_tenant_id()) and b.operation_id = %s and b.outcome in ('failed',
       'skipped')
   order by b.run_id limit 20
"""


@routes.get("/bulk", needs="operate")
def show_operations(desk: Desk, cursor: str = "") -> Any:
    """The newest first."""
    key = cursors.read(cursor, int)
    rows = desk.rows(LIST, {"before": key and key[0], "one": None, "limit": cursors.DEFAULT + 1})  # type: ignore[arg-type]
    page = cursors.page(rows, cursors.DEFAULT, "operation_id")
    return desk.page("bulk/_rows.html" if desk.is_fragment else "bulk/page.html", page=page)


@routes.post("/bulk", needs="operate", status_code=200)
def count_runs(desk: Desk, data: Form) -> Any:
    """Count the runs that fit; nothing happens to them yet."""
    action = data.get("action", "")
    given = {name: data.get(name, "") for name in ("workflow", "state", "text", "key", "since", "until")}
    chosen: dict[str, Any] = {}
    if given["workflow"]:
        chosen["workflow"] = given["workflow"]
    if given["state"]:
        chosen["state"] = given["state"]
    for name, field in (("since", "created_after"), ("until", "created_before")):
        if (at := moment(given[name])) is not None:
            chosen[field] = at.isoformat()
    with desk.engine() as engine:
        if given["text"] or given["key"]:
            found = engine.rows(
                "select stellwerk.search_runs(%(workflow)s::text, %(states)s::text[], %(since)s::timestamptz,"
                " %(until)s::timestamptz, %(key)s::text, %(text)s::text, null, %(limit)s) as run_id",
                {**conditions(given), "limit": MOST_FOUND},  # type: ignore[arg-type]
            )
            if not found:
                raise UsageError(desk.t("No run fits this search."))
            chosen["run_ids"] = [str(row["run_id"]) for row in found]
        if not chosen:
            raise UsageError(desk.t("Choose first which runs: a workflow, a state, a time or words."))
        number = engine.value(
            "select stellwerk.start_bulk_operation(%s, %s::jsonb, true)", [action, json.dumps(chosen)]
        )
    return desk.go(f"/bulk/{number}")


@routes.get("/bulk/{operation_id:int}", needs="operate")
def show_operation(desk: Desk, operation_id: int) -> Any:
    """How far it is."""
    rows = desk.rows(LIST, {"before": None, "one": operation_id, "limit": 1})  # type: ignore[arg-type]
    if not rows:
        raise UnknownThing(f"there is no bulk operation {operation_id}")
    trouble = desk.rows(TROUBLE, [operation_id])
    template = "bulk/_progress.html" if desk.is_fragment else "bulk/operation.html"
    return desk.page(template, operation=rows[0], trouble=trouble)


@routes.post("/bulk/{operation_id:int}/{step:str}", needs="operate", status_code=200)
def steer_operation(desk: Desk, state: State, operation_id: int, step: str) -> Any:
    """Begin or go on, hold, or stop for good."""
    verbs = {
        "begin": "select stellwerk.resume_bulk_operation(%s)",
        "pause": "select stellwerk.pause_bulk_operation(%s)",
        "stop": "select stellwerk.cancel_bulk_operation(%s)",
    }
    if step not in verbs:
        raise UnknownThing(f"a bulk operation cannot {step}")
    with desk.engine() as engine:
        engine.value(verbs[step], [operation_id])
    state.live.nudge()
    return show_operation.fn(desk, operation_id)


router = Router("/", route_handlers=[show_operations, count_runs, show_operation, steer_operation])
