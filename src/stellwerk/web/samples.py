"""What expressions give with the data of a real past run: their live values in the builder."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from stellwerk.definition.expressions import compile_expression
from stellwerk.definition.places import normal_value
from stellwerk.definition.templates import normalise_condition, read_template
from stellwerk.engine import Engine, Row
from stellwerk.errors import UnknownThing, UsageError

MOST = 60
SHOWN_RUNS = 20
LARGEST_OUTPUT = 65_536

RUNS = """
  select r.run_id::text as id, r.state, r.source, r.version, r.created_at
    from stellwerk.workflow w
   cross join lateral (
     select x.* from stellwerk.run x
      where x.tenant_id = w.tenant_id and x.workflow_id = w.workflow_id
      order by x.run_id desc limit %s) r
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s
   order by r.run_id desc
"""

RUN = """
  select r.payload, r.old, r.source, r.run_id, w.slug
    from stellwerk.run r
    join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id
   where r.tenant_id = (select stellwerk.current_tenant_id()) and r.run_id = %s and w.slug = %s
"""

# Of a node that was visited several times the last visit counts, as it does in a run.
STEPS = """
  select distinct on (s.node_id) s.node_id, s.error,
         case when octet_length(s.output::text) <= %s then s.output end as output
    from stellwerk.step s
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s and s.ended_at is not null
   order by s.node_id, s.step_id desc
"""

VARIABLES = """
  select v.name, v.value from stellwerk.variable v
   where v.tenant_id = (select stellwerk.current_tenant_id()) and v.run_id = %s
   order by v.scope_id
"""

ITEMS = """
  select distinct on (l.node_id) l.node_id, s.item, s.position
    from stellwerk.scope s
    join stellwerk.step l on l.tenant_id = s.tenant_id and l.run_id = s.run_id and l.step_id = s.loop_step_id
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s
   order by l.node_id, s.scope_id
"""


def runs(engine: Engine, slug: str) -> list[Row]:
    """The newest runs of a workflow, to choose from."""
    return engine.rows(RUNS, [SHOWN_RUNS, slug])


def context_of_run(engine: Engine, slug: str, run_id: int) -> dict[str, Any]:
    """What the expressions of a run could see at its end; `items` has the first item of each loop."""
    found = engine.rows(RUN, [run_id, slug])
    if not found:
        raise UnknownThing(f"workflow {slug!r} has no run {run_id}")
    run = found[0]
    return {
        "trigger": {
            "payload": run["payload"],
            "row": run["payload"] if run["source"] == "row" else None,
            "old": run["old"],
            "source": run["source"],
        },
        "steps": {
            step["node_id"]: {"output": step["output"], "error": step["error"]}
            for step in engine.rows(STEPS, [LARGEST_OUTPUT, run_id])
        },
        "vars": {variable["name"]: variable["value"] for variable in engine.rows(VARIABLES, [run_id])},
        "run": {"id": str(run["run_id"]), "workflow": run["slug"]},
        "items": {
            loop["node_id"]: {"item": loop["item"], "index": loop["position"]} for loop in engine.rows(ITEMS, [run_id])
        },
    }


def context_at(context: dict[str, Any], loop: str | None) -> dict[str, Any]:
    """The context as a node sees it that stands in a loop, or in none."""
    seen = {name: context.get(name) for name in ("trigger", "steps", "vars", "run")}
    item = (context.get("items") or {}).get(loop) if loop else None
    return {**seen, **(item if isinstance(item, dict) else {})}


def values(engine: Engine, context: dict[str, Any], items: list[Any]) -> list[dict[str, Any]]:
    """What each text gives: `{"value": …}`, `{"error": …}`, or `{}` where it holds no expression or cannot be read.

    Evaluated by the database's own functions, as in a run, without any right to change something and for a second
    at most each.
    """
    if len(items) > MOST:
        raise UsageError(f"{len(items)} expressions are more than {MOST}")
    connection = engine.connection
    connection.execute("set local statement_timeout = '1s'")
    connection.execute("set transaction read only")
    (now,) = connection.execute("select to_jsonb(stellwerk.clock())").fetchone() or (None,)
    context = {**context, "now": now}
    return [value(connection, context, item) for item in items]


def value(connection: psycopg.Connection[Any], context: dict[str, Any], item: Any) -> dict[str, Any]:
    """What one text gives: `{"text": …, "condition": whether it is one}`."""
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        return {}
    if item.get("condition"):
        expression = compile_expression(normalise_condition(item["text"]))
        if expression.faults:
            return {}
        statement, tree = "select stellwerk.evaluate(%s, %s)", expression.tree
    else:
        template = read_template(normal_value(item["text"]))
        if not template.is_dynamic or template.faults:
            return {}
        whole = template.whole
        if whole is not None:
            statement, tree = "select stellwerk.evaluate(%s, %s)", whole.tree
        else:
            statement, tree = "select to_jsonb(stellwerk.render_text(%s, %s))", template.trees()
    try:
        with connection.transaction():
            row = connection.execute(statement, [Jsonb(tree), Jsonb(context)]).fetchone()
    except psycopg.Error as error:
        return {"error": error.diag.message_primary or "the value cannot be computed"}
    return {"value": row[0] if row else None}
