"""Looking into a run: how it stood at an earlier moment, where it differs from another, and its loops item by item."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Annotated, Any

from litestar import Router
from litestar.params import Parameter

from stellwerk.engine import Engine, Row
from stellwerk.errors import UnknownThing, UsageError
from stellwerk.web import routes
from stellwerk.web.desk import Desk
from stellwerk.web.run_view import graph_of, node_names, read_run

MOST_MOMENTS = 400
ITERATIONS = 50

# Whenever a step was reached, began or ended; of very many moments every so many, and always the first and the last.
MOMENTS = """
  with moment as materialized (
    select distinct x.at from stellwerk.step s
     cross join lateral (values (s.queued_at), (s.started_at), (s.ended_at)) x (at)
     where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %(run)s and x.at is not null
    union
    select x.at from stellwerk.run r cross join lateral (values (r.created_at), (r.ended_at)) x (at)
     where r.tenant_id = (select stellwerk.current_tenant_id()) and r.run_id = %(run)s and x.at is not null
  )
  select m.at from (select m.at, row_number() over (order by m.at) as n, count(*) over () as many from moment m) m
   where m.n in (1, m.many) or m.n %% greatest(1, (m.many / %(most)s)::int) = 0
   order by m.at
"""
STOOD = """
  select x.node_id, x.state, x.port, count(*)::int as count, max(x.step_id) as last_step, max(x.since) as since
    from stellwerk.run_state_at(%s, %s) x
   group by x.node_id, x.state, x.port
   order by max(x.step_id) nulls first
"""
SIBLINGS = """
  select r.run_id, r.state, r.version, r.created_at from stellwerk.run r
   where r.tenant_id = (select stellwerk.current_tenant_id())
     and r.workflow_id = (select o.workflow_id from stellwerk.run o
                           where o.tenant_id = (select stellwerk.current_tenant_id()) and o.run_id = %(run)s)
     and r.run_id <> %(run)s
   order by r.run_id desc
   limit 12
"""
LOOP = """
  select l.step_id, l.item_count, l.started, l.ended, l.parallel, s.node_id, r.state as run_state, v.document
    from stellwerk.loop l
    join stellwerk.step s on s.tenant_id = l.tenant_id and s.run_id = l.run_id and s.step_id = l.step_id
    join stellwerk.run r on r.tenant_id = l.tenant_id and r.run_id = l.run_id
    join stellwerk.workflow_version v on v.tenant_id = r.tenant_id and v.workflow_id = r.workflow_id
        and v.version = s.version
   where l.tenant_id = (select stellwerk.current_tenant_id()) and l.run_id = %s and l.step_id = %s
"""
SCOPES = """
  select x.scope_id, x.position, x.state, x.error,
         left(case when octet_length(x.item::text) < 20000 then x.item::text else '…' end, 120) as item
    from stellwerk.scope x
   where x.tenant_id = (select stellwerk.current_tenant_id()) and x.run_id = %(run)s and x.loop_step_id = %(step)s
     and x.position >= %(first)s and (%(state)s::text is null or x.state = %(state)s)
   order by x.position
   limit %(limit)s
"""
STEPS_WITHIN = """
  select s.scope_id, s.step_id, s.node_id, s.state from stellwerk.step s
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s and s.scope_id = any (%s::bigint[])
   order by s.step_id
   limit 2000
"""
SCOPE_STATES = ("pending", "running", "completed", "failed", "skipped", "cancelled")


@routes.get("/runs/{run_id:int}/history")
def show_history(desk: Desk, run_id: int, moment: int | None = None) -> Any:
    """The graph as it stood at one of the run's moments; htmx asks for the part that a slider changes."""
    with desk.engine() as engine:
        view = read_run(engine, run_id)
        times = [row["at"] for row in engine.rows(MOMENTS, {"run": run_id, "most": MOST_MOMENTS})]  # type: ignore[arg-type]
        number = len(times) - 1 if moment is None else max(0, min(moment, len(times) - 1))
        at: datetime.datetime = times[number]
        rows = engine.rows(STOOD, [run_id, at])
    kinds = [row for row in rows if row["node_id"] is not None]
    nodes, wires = graph_of(view.run["document"], view.layout, kinds, {})
    values: dict[str, Any] = {
        "view": replace(view, nodes=nodes, wires=wires),
        "stood": next((row for row in rows if row["node_id"] is None), None),
        "kinds": kinds,
        "at": at,
        "begun": times[0],
        "moment": number,
        "last": len(times) - 1,
    }
    return desk.page("runs/_moment.html" if desk.is_fragment else "runs/history.html", **values)


@routes.get("/runs/{run_id:int}/diff")
def show_difference(desk: Desk, run_id: int, other: Annotated[str, Parameter(query="with")] = "") -> Any:
    """Where two runs differ; without another one, those of the same workflow to choose from."""
    rows: list[Row] = []
    with desk.engine() as engine:
        siblings = engine.rows(SIBLINGS, {"run": run_id})  # type: ignore[arg-type]
        if other:
            if not other.isdecimal() or len(other) > 18:
                raise UsageError(f"{other[:30]!r} is no number of a run")
            rows = engine.diff_runs(run_id, int(other))
        names = node_names(read_run(engine, run_id).run["document"])
    parted = next((row["position"] for row in rows if row["kind"] == "parted"), None)
    return desk.page(
        "runs/difference.html", run_id=run_id, other=other, rows=rows, siblings=siblings, names=names, parted=parted
    )


@routes.get("/runs/{run_id:int}/loops/{step_id:int}")
def show_iterations(
    desk: Desk, run_id: int, step_id: int, item: str = "", in_state: Annotated[str, Parameter(query="state")] = ""
) -> Any:
    """A loop's items, some at a time, from a given one on; each leads to its steps."""
    if in_state and in_state not in SCOPE_STATES:
        raise UsageError(f"there is no state {in_state}", hint=f"There are {', '.join(SCOPE_STATES)}.")
    first = int(item) - 1 if item.isdecimal() and 0 < len(item) < 10 else 0
    with desk.engine() as engine:
        loop = _loop(engine, run_id, step_id)
        asked = {
            "run": run_id,
            "step": step_id,
            "first": max(first, 0),
            "state": in_state or None,
            "limit": ITERATIONS + 1,
        }
        scopes = engine.rows(SCOPES, asked)  # type: ignore[arg-type]
        within: dict[int, list[Row]] = {}
        for row in engine.rows(STEPS_WITHIN, [run_id, [scope["scope_id"] for scope in scopes[:ITERATIONS]]]):
            within.setdefault(row["scope_id"], []).append(row)
        view = None if desk.is_fragment else read_run(engine, run_id)
    values: dict[str, Any] = {
        "run_id": run_id,
        "loop_step": loop,
        "names": node_names(loop["document"]),
        "scopes": scopes[:ITERATIONS],
        "within": within,
        "further": scopes[ITERATIONS]["position"] + 1 if len(scopes) > ITERATIONS else None,
        "first": first + 1,
        "in_state": in_state,
        "states": SCOPE_STATES,
    }
    if view is not None:
        return desk.page("runs/with_iterations.html", view=view, **values)
    return desk.page("runs/_iterations.html", **values)


def _loop(engine: Engine, run_id: int, step_id: int) -> Row:
    rows = engine.rows(LOOP, [run_id, step_id])
    if not rows:
        raise UnknownThing(f"run {run_id} has no loop {step_id}")
    return rows[0]


router = Router("/", route_handlers=[show_history, show_difference, show_iterations])
