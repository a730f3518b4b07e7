"""Bulk operations: one action for all runs that fit a filter, counted before anything happens."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Response, Router
from litestar.datastructures import State
from litestar.params import Parameter

from stellwerk.engine import Engine, Row
from stellwerk.errors import UnknownThing, UsageError
from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk
from stellwerk.web.pages import builder
from stellwerk.web.pages.runs import Form, conditions, moment, read_json
from stellwerk.web.pages.versions import builder_nodes, map_of
from stellwerk.web.posted import number
from stellwerk.web.run_view import node_names

MOST_FOUND = 20_000
ACTIONS = ("cancel", "retry", "pause", "resume", "skip", "migrate")

PUBLISHED = """
  select v.version from stellwerk.workflow_version v
    join stellwerk.workflow w on w.tenant_id = v.tenant_id and w.workflow_id = v.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s and v.published_at is not null
   order by v.version desc limit 50
"""

LIST = """
  select p.*, o.by_state, o.options, o.verdicts, o.stop_on_error from stellwerk.bulk_progress p
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


@routes.get("/bulk/order", needs="operate")
def show_order(
    desk: Desk,
    action: str = "",
    workflow: str = "",
    in_state: Annotated[str, Parameter(query="state")] = "",
    text: str = "",
    key: str = "",
    since: str = "",
    until: str = "",
) -> Any:
    """The form of an action for all runs that fit the list's filter; `none` takes it away again."""
    if action == "none":
        return Response("", media_type="text/html")
    if action not in ACTIONS:
        raise UnknownThing(f"there is no bulk operation {action}")
    given = {"workflow": workflow, "state": in_state, "text": text, "key": key, "since": since, "until": until}
    values: dict[str, Any] = {"action": action, "filter": given, "nodes": {}, "versions": [], "active": None}
    if workflow:
        with desk.engine() as engine:
            known = builder.find(engine, workflow)
            values["active"] = known["active_version"]
            values["nodes"] = node_names(known["document"])
            values["versions"] = [row["version"] for row in engine.rows(PUBLISHED, [workflow])]
    return desk.page("bulk/_order.html", missing=action in ("skip", "migrate") and not workflow, **values)


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
    if data.get("node"):
        chosen["node"] = data["node"]
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
        rate, stop = data.get("rate"), data.get("stop")
        begun = engine.start_bulk_operation(
            action,
            chosen,
            rate=number(rate) if rate else None,
            stop_on_error=number(stop) / 100 if stop else None,
            options=options_of(action, data),
        )
    return desk.go(f"/bulk/{begun}")


def options_of(action: str, data: dict[str, str]) -> dict[str, Any]:
    """What the form says beside the runs, as start_bulk_operation takes it."""
    given: dict[str, Any] = {name: data[name] for name in ("reason", "from_node", "port") if data.get(name)}
    if data.get("compensate"):
        given["compensate"] = True
    if data.get("version"):
        given["version"] = number(data["version"])
    if data.get("output", "").strip():
        given["output"] = read_json(data["output"], "the output")
    return given


@routes.post("/bulk/{operation_id:int}/map", needs="operate", status_code=200)
def map_nodes(desk: Desk, operation_id: int, data: Form) -> Any:
    """Counts a move again with counterparts that a person named; the draft before it is discarded."""
    with desk.engine() as engine:
        before = _operation(engine.rows(LIST, {"before": None, "one": operation_id, "limit": 1}), operation_id)  # type: ignore[arg-type]
        options = {**before["options"], "node_map": (before["options"].get("node_map") or {}) | map_of(data)}
        number = engine.start_bulk_operation(
            before["action"],
            before["filter"],
            rate=before["rate"],
            stop_on_error=before["stop_on_error"],
            options=options,
        )
        engine.cancel_bulk_operation(operation_id, f"counted again as bulk operation {number}")
    return desk.go(f"/bulk/{number}")


@routes.get("/bulk/{operation_id:int}", needs="operate")
def show_operation(desk: Desk, operation_id: int) -> Any:
    """How far it is."""
    with desk.engine() as engine:
        operation = _operation(engine.rows(LIST, {"before": None, "one": operation_id, "limit": 1}), operation_id)  # type: ignore[arg-type]
        trouble = engine.rows(TROUBLE, [operation_id])
        nodes = unmapped(engine, operation) if operation["state"] == "draft" and operation["verdicts"] else []
    template = "bulk/_progress.html" if desk.is_fragment else "bulk/operation.html"
    return desk.page(template, operation=operation, trouble=trouble, nodes=nodes)


def unmapped(engine: Engine, operation: Row) -> list[Row]:
    """The nodes of the old versions that are not simply themselves in the new one, and what each could be there."""
    slug = next(iter(bulk_values(operation["filter"]["workflow"])))
    to, node_map = operation["options"]["version"], operation["options"].get("node_map") or {}
    found: dict[str, Row] = {}
    for version in operation["verdicts"]["versions"]:
        for row in engine.propose_node_map(slug, version, to, {}):
            if row["how"] != "same":
                target = node_map.get(row["node_id"], row["to_node"])
                found[row["node_id"]] = {
                    **row,
                    "to_node": target,
                    "choices": builder_nodes(engine, slug, to, row["type"]),
                }
    return list(found.values())


def bulk_values(value: Any) -> list[Any]:
    """The alternatives of a filter's key: one value, or a list of them."""
    return value if isinstance(value, list) else [value]


def _operation(rows: list[Row], operation_id: int) -> Row:
    if not rows:
        raise UnknownThing(f"there is no bulk operation {operation_id}")
    return rows[0]


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


router = Router(
    "/", route_handlers=[show_operations, show_order, count_runs, map_nodes, show_operation, steer_operation]
)
