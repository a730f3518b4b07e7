"""What a version would have done with the runs of the past: each is walked again with its own payload, effects off.

Steps that reach outside give what they gave then and leave as they left; what only the engine does is really done.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import psycopg

from stellwerk.definition.compile import Compiled
from stellwerk.engine import Engine, Row
from stellwerk.errors import StellwerkError
from stellwerk.web import samples, simulation

SECONDS = 20  # what has not been walked by then is left out

ENDED = """
  select r.run_id, r.state, r.output, r.error, r.payload, r.version, r.trigger_node
    from stellwerk.workflow w
   cross join lateral (
     select x.* from stellwerk.run x
      where x.tenant_id = w.tenant_id and x.workflow_id = w.workflow_id
        and x.ended_at is not null and x.state in ('completed', 'failed')
        and x.created_at >= now() - coalesce(%(since)s::interval, interval '100 years')
      order by x.run_id desc limit %(limit)s) r
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %(slug)s
   order by r.run_id desc
"""
WAY = """
  select s.node_id, s.port, s.state, coalesce(o.position, -1) as index
    from stellwerk.step s
    left join stellwerk.scope o on o.tenant_id = s.tenant_id and o.run_id = s.run_id and o.scope_id = s.scope_id
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s and s.ended_at is not null
     and s.undoes is null
   order by s.ended_at, s.step_id
   limit 2000
"""


def backtest(engine: Engine, slug: str, compiled: Compiled, *, since: str | None = None, limit: int = 20) -> list[Row]:
    """A row for each run that was walked, the newest first: how it ended, how it would, and where the ways part."""
    begun = time.monotonic()
    triggers = {row["node_id"] for row in compiled.plan if row["runs_in"] == "trigger"}
    found = []
    for run in engine.rows(ENDED, {"slug": slug, "since": since, "limit": limit}):  # type: ignore[arg-type]
        if time.monotonic() - begun > SECONDS:
            break
        found.append(walked(engine, slug, compiled, run, triggers))
    return found


def walked(engine: Engine, slug: str, compiled: Compiled, run: Row, triggers: set[str]) -> Row:
    """One run of the past, and what would become of it."""
    way = engine.rows(WAY, [run["run_id"]])
    past = samples.context_of_run(engine, slug, run["run_id"])
    outputs = {name: step["output"] for name, step in past["steps"].items() if step["output"] is not None}
    ports = {step["node_id"]: step["port"] for step in way if step["port"] not in (None, "next")}
    result: Row = {"run_id": run["run_id"], "version": run["version"], "before": run["state"], "parted_at": None}
    try:
        now = simulation.simulate(
            engine,
            compiled,
            run["payload"],
            trigger=run["trigger_node"] if run["trigger_node"] in triggers else None,
            ports=ports,
            recorded=outputs,
        )
    except (StellwerkError, psycopg.Error) as error:
        message = error.message if isinstance(error, StellwerkError) else error.diag.message_primary
        return {**result, "after": "refused", "same": False, "reason": message}
    after = [
        {**step, "index": -1 if step["index"] is None else step["index"]} for step in now["steps"] if step["state"]
    ]
    parted = first_difference(way, after)
    same = parted is None and run["state"] == now["state"] and run["output"] == now["output"]
    reason = (now["error"] or {}).get("message") if now["state"] == "failed" else None
    return {**result, "after": now["state"], "same": same, "parted_at": parted, "reason": reason}


def first_difference(before: list[Row], after: list[Row]) -> str | None:
    """The first step that only one of two ways has, or leaves by another port; steps side by side have no order."""
    left = Counter(_mark(step) for step in after)
    for step in before:
        if left[_mark(step)] == 0:
            return str(step["node_id"])
        left[_mark(step)] -= 1
    return next((str(step["node_id"]) for step in after if left[_mark(step)] > 0), None)


def _mark(step: Row) -> tuple[Any, ...]:
    return step["node_id"], step["index"], step["port"], step["state"] == "failed"
