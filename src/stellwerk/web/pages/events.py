"""Row changes that were captured, what each started or why it started nothing."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Router
from litestar.datastructures import State
from litestar.params import Parameter

from stellwerk.engine import Row
from stellwerk.errors import UnknownThing, UsageError
from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk

STATES = ("pending", "processed", "ignored", "failed")
OPERATIONS = ("insert", "update", "delete")

LIST = """
  select x.event_id, x.found, e.target, e.operation, e.record_id, e.state, e.run_id, e.reason, e.created_at, e.depth,
      w.name, w.slug
    from stellwerk.look_for_events(%(target)s::text, %(operation)s::text, %(state)s::text, %(record)s::text,
           %(before)s::bigint, %(limit)s::int) x
    left join stellwerk.event e
      on e.tenant_id = (select stellwerk.current_tenant_id()) and e.event_id = x.event_id
    left join stellwerk.table_watch t on t.tenant_id = e.tenant_id and t.watch_id = e.watch_id
    left join stellwerk.workflow w on w.tenant_id = t.tenant_id and w.workflow_id = t.workflow_id
   order by x.event_id desc
"""
TARGETS = """
  select distinct t.target from stellwerk.table_watch t
   where t.tenant_id = (select stellwerk.current_tenant_id()) order by 1 limit 200
"""
ONE = """
  select e.event_id, e.target, e.operation, e.record_id, e.state, e.run_id, e.reason, e.created_at,
      e.processed_at, e.depth,
         e.caused_by_run_id, e.old, e.new, t.condition, w.name, w.slug
    from stellwerk.event e
    left join stellwerk.table_watch t on t.tenant_id = e.tenant_id and t.watch_id = e.watch_id
    left join stellwerk.workflow w on w.tenant_id = t.tenant_id and w.workflow_id = t.workflow_id
   where e.tenant_id = (select stellwerk.current_tenant_id()) and e.event_id = %s
"""


@routes.get("/events")
def show_events(
    desk: Desk,
    target: str = "",
    operation: str = "",
    in_state: Annotated[str, Parameter(query="state")] = "",
    record: str = "",
    cursor: str = "",
) -> Any:
    """The newest first."""
    if in_state and in_state not in STATES:
        raise UsageError(f"there is no state {in_state}", hint=f"There are {', '.join(STATES)}.")
    given = {"target": target, "operation": operation, "state": in_state, "record": record}
    key = cursors.read(cursor, int)
    wanted = {name: value or None for name, value in given.items()}
    rows = desk.rows(LIST, {**wanted, "before": key and key[0], "limit": cursors.DEFAULT + 1})  # type: ignore[arg-type]
    values: dict[str, Any] = {
        "page": cursors.page(rows, cursors.DEFAULT, "event_id"),
        "query": urlencode({name: value for name, value in given.items() if value}),
        "first": key is None,
    }
    if desk.is_fragment:
        return desk.page("events/_rows.html", **values)
    targets = [row["target"] for row in desk.rows(TARGETS)]
    return desk.page("events/page.html", filter=given, targets=targets, states=STATES, operations=OPERATIONS, **values)


@routes.get("/events/{event_id:int}")
def show_event(desk: Desk, event_id: int) -> Any:
    """The row before and after, field by field."""
    rows = desk.rows(ONE, [event_id])
    if not rows:
        raise UnknownThing(f"there is no event {event_id}")
    event = rows[0]
    return desk.page("events/event.html", event=event, fields=difference(event["old"], event["new"]))


@routes.post("/events/{event_id:int}/replay", needs="operate", status_code=200)
def replay(desk: Desk, state: State, event_id: int) -> Any:
    """Have it looked at again."""
    with desk.engine() as engine:
        engine.retry_event(event_id)
    state.live.nudge()
    return desk.go(f"/events/{event_id}")


def difference(old: Any, new: Any) -> list[Row]:
    """Each field with its value before and after."""
    before = old if isinstance(old, dict) else {}
    after = new if isinstance(new, dict) else {}
    return [
        {
            "name": name,
            "before": before.get(name),
            "after": after.get(name),
            "was": name in before,
            "is": name in after,
            "changed": bool(before) and bool(after) and before.get(name) != after.get(name),
        }
        for name in dict.fromkeys([*before, *after])
    ]


router = Router("/", route_handlers=[show_events, show_event, replay])
