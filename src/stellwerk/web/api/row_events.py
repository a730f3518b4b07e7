"""`/api/schemas/{table}/events`: which changes of a table start workflows; and the log of what was captured."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from litestar import Response
from pydantic import Field

from stellwerk.engine import Engine
from stellwerk.errors import UnknownThing
from stellwerk.web import cursors, exchange
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Asked, Given, Id, Paged, Shown, Slug, answer

WATCHES = """
  select w.watch_id, w.target as table, f.slug as workflow, w.trigger_node, w.operations, w.condition,
         w.columns, w.bulk,
         w.state, w.reason, w.published, w.created_at, w.created_by
    from stellwerk.table_watch w
    join stellwerk.workflow f on f.tenant_id = w.tenant_id and f.workflow_id = w.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.target_oid = to_regclass(%(table)s::text)::oid
     and (%(watch)s::bigint is null or w.watch_id = %(watch)s)
   order by w.watch_id
"""
# Rows may have megabytes; the log shows small ones.
LOG = """
  select x.event_id, x.found, e.target as table, e.operation, e.record_id, e.state, e.reason, e.run_id,
         e.caused_by_run_id, e.depth, e.created_at, e.processed_at, w.slug as workflow,
         case when octet_length(e.old::text) <= 20000 then e.old end as old,
         case when octet_length(e.new::text) <= 20000 then e.new end as new,
         coalesce(greatest(octet_length(e.old::text), octet_length(e.new::text)) > 20000, false) as shortened
    from stellwerk.look_for_events(%(table)s::text, null, %(state)s::text, null, %(before)s::bigint,
           %(limit)s::int) x
    left join stellwerk.event e
      on e.tenant_id = (select stellwerk.current_tenant_id()) and e.event_id = x.event_id
    left join stellwerk.table_watch t on t.tenant_id = e.tenant_id and t.watch_id = e.watch_id
    left join stellwerk.workflow w on w.tenant_id = t.tenant_id and w.workflow_id = t.workflow_id
   order by x.event_id desc
"""
Operation = Literal["insert", "update", "delete"]


class Watch(Shown):
    """Changes of a table start a workflow."""

    watch_id: Id
    table: str
    workflow: str
    trigger_node: str | None
    operations: list[Operation]
    condition: str | None
    columns: list[str] | None
    bulk: bool
    state: Literal["armed", "disarmed", "broken"]
    reason: str | None
    published: bool = Field(description="Set by a trigger.row node, and gone when that one goes.")
    created_at: datetime.datetime
    created_by: str


class Watches(Shown):
    """The watches of a table."""

    items: list[Watch]


class WatchOrder(Given):
    """Which changes start which workflow."""

    workflow: Slug
    operations: Annotated[list[Operation], Field(default_factory=lambda: ["insert"], min_length=1, max_length=3)]
    condition: Annotated[str, Field(max_length=4000)] | None = None
    columns: Annotated[list[str], Field(max_length=1600)] | None = None
    bulk: bool = False


class WhichWatch(Asked):
    """Whose watch."""

    workflow: Slug


class RowEvent(Shown):
    """A change that was captured."""

    event_id: Id
    table: str
    operation: str
    record_id: str | None
    workflow: str | None
    state: str
    reason: str | None = Field(description="Why nothing started.")
    run_id: Id | None = Field(description="The run that it started.")
    caused_by_run_id: Id | None
    depth: int
    old: Anything
    new: Anything
    shortened: bool = Field(description="True: the row is too large for the log, and left out.")
    created_at: datetime.datetime
    processed_at: datetime.datetime | None


class WhichEvents(Paged):
    """Which events."""

    state: Literal["pending", "processed", "ignored", "failed"] | None = None
    table: Annotated[str, Field(max_length=200)] | None = None


EventList = exchange.listed(RowEvent, "RowEventList")


@exchange.get("/api/schemas/{table:str}/events", "List the watches of a table", Watches)
def list_watches(desk: Desk, table: str) -> Response[bytes]:
    """Those set by hand and those of published trigger.row nodes."""
    with desk.engine() as engine:
        return answer(Watches, {"items": _watches(engine, table)})


@exchange.put(
    "/api/schemas/{table:str}/events",
    "Watch a table",
    Watch,
    needs="design",
    takes=WatchOrder,
    refuses=(409,),
    example={"workflow": "greet", "operations": ["insert"], "condition": "new.name is not null"},
)
def watch_table(desk: Desk, table: str, given: WatchOrder) -> Response[bytes]:
    """From now on these changes start the workflow; an earlier watch of the two is replaced."""
    with desk.engine() as engine:
        number = engine.watch_table(
            table,
            given.workflow,
            operations=given.operations,
            condition=given.condition,
            columns=given.columns,
            bulk=given.bulk,
        )
        return answer(Watch, _watches(engine, table, number)[0])


@exchange.delete("/api/schemas/{table:str}/events", "Unwatch a table", needs="design", asks=WhichWatch, refuses=(409,))
def unwatch_table(desk: Desk, table: str, asked: WhichWatch) -> None:
    """Changes of the table start this workflow no longer."""
    with desk.engine() as engine:
        engine.unwatch_table(table, asked.workflow)


@exchange.get("/api/workflows/events/log", "List captured changes", EventList, asks=WhichEvents)
def list_events(desk: Desk, asked: WhichEvents) -> Response[bytes]:
    """The newest first: what changed, and what it started or why not."""
    key = cursors.read(asked.cursor, int)
    more = {"state": asked.state, "table": asked.table, "before": key and key[0], "limit": asked.limit + 1}
    rows = desk.rows(LOG, more)  # type: ignore[arg-type]
    return exchange.paged(EventList, cursors.page(rows, asked.limit, "event_id"))


def _watches(engine: Engine, table: str, watch_id: int | None = None) -> list[dict[str, Any]]:
    try:
        known = engine.value("select to_regclass(%s::text) is not null", [table])
    except Exception as error:
        raise UnknownThing(f"{table[:100]!r} is no name of a table", hint="Write it as schema.table.") from error
    if not known:
        raise UnknownThing(f"there is no table {table[:100]!r}", hint="Write it as schema.table.")
    return engine.rows(WATCHES, {"table": table, "watch": watch_id})  # type: ignore[arg-type]


router = exchange.router(list_watches, watch_table, unwatch_table, list_events)
