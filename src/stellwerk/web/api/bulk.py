"""`/api/workflows/executions/bulk`: the same done to all runs that fit a filter."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from litestar import Response
from pydantic import Field

from stellwerk.engine import Engine
from stellwerk.errors import InvalidPayload, UnknownThing
from stellwerk.web import cursors, exchange
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Given, Id, Paged, Refused, Shown, Text, answer

Action = Literal["cancel", "pause", "resume", "retry", "skip", "migrate"]

PROGRESS = """
  select p.*, o.options, o.by_state, o.verdicts from stellwerk.bulk_progress p
    join stellwerk.bulk_operation o on o.tenant_id = (select stellwerk.current_tenant_id())
        and o.operation_id = p.operation_id
   where p.operation_id = %s
"""
LIST = """
  select p.*, o.options, o.by_state, o.verdicts from stellwerk.bulk_progress p
    join stellwerk.bulk_operation o on o.tenant_id = (select stellwerk.current_tenant_id())
        and o.operation_id = p.operation_id
   where %(before)s::bigint is null or p.operation_id < %(before)s
   order by p.operation_id desc limit %(limit)s
"""


class BulkOperation(Shown):
    """A bulk operation and how far it is."""

    operation_id: Id
    action: Action
    filter: Anything
    options: Anything
    state: Literal["draft", "running", "paused", "completed", "stopped", "cancelled"]
    reason: str | None
    total: int = Field(description="How many runs fit the filter.")
    by_state: Anything = Field(description="The same by the state that they were in.")
    verdicts: Anything | None = Field(
        description="For `migrate`, as counted: `counts` by verdict, and the first runs that cannot move in `left`."
    )
    handled: int
    done: int
    skipped: int
    failed: int
    rate: int | None
    expected_end_at: datetime.datetime | None
    created_at: datetime.datetime
    created_by: str
    started_at: datetime.datetime | None
    ended_at: datetime.datetime | None


class BulkFilter(Given):
    """All keys must fit; several values of one key are alternatives."""

    workflow: str | list[str] | None = None
    version: int | list[int] | None = None
    state: str | list[str] | None = None
    node: str | list[str] | None = Field(default=None, description="Runs with a live or failed step on this node.")
    error_class: str | list[str] | None = None
    created_after: str | None = None
    created_before: str | None = None
    payload: dict[str, Any] | None = Field(default=None, description="What the payload contains.")
    run_ids: list[str | int] | None = Field(default=None, max_length=100_000)


class BulkOrder(Given):
    """What is to be done with which runs."""

    action: Action
    filter: BulkFilter
    dry_run: bool = Field(default=True, description="Only count them; …/begin begins it.")
    rate: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(default=None, description="Runs a second at most.")
    stop_on_error: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Stop when a larger share of the runs failed."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="reason, compensate (cancel); from_node, version (retry); output, port (skip);"
        " version, node_map (migrate).",
    )


class Ending(Given):
    """Why."""

    reason: Text | None = None


BulkList = exchange.listed(BulkOperation, "BulkOperationList")


@exchange.get("/api/workflows/executions/bulk", "List bulk operations", BulkList, asks=Paged)
def list_bulk_operations(desk: Desk, asked: Paged) -> Response[bytes]:
    """The newest first."""
    key = cursors.read(asked.cursor, int)
    rows = desk.rows(LIST, {"before": key and key[0], "limit": asked.limit + 1})  # type: ignore[arg-type]
    return exchange.paged(BulkList, cursors.page(rows, asked.limit, "operation_id"))


@exchange.post(
    "/api/workflows/executions/bulk",
    "Order a bulk operation",
    BulkOperation,
    needs="operate",
    takes=BulkOrder,
    status=202,
    headers=("Idempotency-Key",),
    refuses=(409,),
    example={"action": "retry", "filter": {"workflow": "greet", "state": "failed"}},
)
def start_bulk_operation(desk: Desk, given: BulkOrder) -> Response[bytes]:
    """Counts the runs that fit, and begins only with `dry_run: false`."""
    key = exchange.idempotency_key(desk)
    wanted = given.filter.model_dump(exclude_none=True)
    try:
        with desk.engine() as engine:
            known = key and engine.begin_request("bulk", key, exchange.fingerprint(given.model_dump()))
            if known:
                return answer(BulkOperation, _progress(engine, int(known["operation_id"])), status=202)
            number = engine.start_bulk_operation(
                given.action,
                wanted,
                dry_run=given.dry_run,
                rate=given.rate,
                stop_on_error=given.stop_on_error,
                options=given.options,
            )
            if key:
                engine.end_request("bulk", key, {"operation_id": str(number)})
            return answer(BulkOperation, _progress(engine, number), status=202)
    except InvalidPayload as error:
        raise Refused(error.message, [{"path": "filter", "message": error.message, "hint": error.hint}]) from error


@exchange.get("/api/workflows/executions/bulk/{operation_id:str}", "Read a bulk operation", BulkOperation)
def get_bulk_operation(desk: Desk, operation_id: str) -> Response[bytes]:
    """How far it is."""
    with desk.engine() as engine:
        return answer(BulkOperation, _progress(engine, exchange.number(operation_id, "bulk operation")))


@exchange.post(
    "/api/workflows/executions/bulk/{operation_id:str}/begin",
    "Begin or go on",
    BulkOperation,
    needs="operate",
    status=202,
    refuses=(409,),
)
def begin_bulk_operation(desk: Desk, operation_id: str) -> Response[bytes]:
    """Begins one that was only counted, or goes on with a paused one."""
    number = exchange.number(operation_id, "bulk operation")
    with desk.engine() as engine:
        engine.resume_bulk_operation(number)
        return answer(BulkOperation, _progress(engine, number), status=202)


@exchange.post(
    "/api/workflows/executions/bulk/{operation_id:str}/pause",
    "Hold a bulk operation",
    BulkOperation,
    needs="operate",
    status=202,
    refuses=(409,),
)
def pause_bulk_operation(desk: Desk, operation_id: str) -> Response[bytes]:
    """It can go on later."""
    number = exchange.number(operation_id, "bulk operation")
    with desk.engine() as engine:
        engine.pause_bulk_operation(number)
        return answer(BulkOperation, _progress(engine, number), status=202)


@exchange.post(
    "/api/workflows/executions/bulk/{operation_id:str}/cancel",
    "End a bulk operation",
    BulkOperation,
    needs="operate",
    takes=Ending,
    takes_needed=False,
    status=202,
    refuses=(409,),
    example={"reason": "the wrong ones"},
)
def cancel_bulk_operation(desk: Desk, operation_id: str, given: Ending | None) -> Response[bytes]:
    """What it has done stays done."""
    number = exchange.number(operation_id, "bulk operation")
    with desk.engine() as engine:
        engine.cancel_bulk_operation(number, given.reason if given else None)
        return answer(BulkOperation, _progress(engine, number), status=202)


def _progress(engine: Engine, operation_id: int) -> dict[str, Any]:
    rows = engine.rows(PROGRESS, [operation_id])
    if not rows:
        raise UnknownThing(f"there is no bulk operation {operation_id}")
    return rows[0]


router = exchange.router(
    list_bulk_operations,
    start_bulk_operation,
    get_bulk_operation,
    begin_bulk_operation,
    pause_bulk_operation,
    cancel_bulk_operation,
)
