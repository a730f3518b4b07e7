"""A run with its effects off: the engine walks a draft in a transaction that is taken back.

Steps that would touch anything outside the run (calls, messages, rows, cases, waits) are replaced by a node that gives
an example: what the step gave in a past run, what the caller chose, or a guess from the catalog. Everything else,
conditions, loops, joins and variables, is what the engine really does.
"""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from stellwerk.definition.catalog import node_type
from stellwerk.definition.compile import Compiled
from stellwerk.engine import Engine, Row
from stellwerk.errors import InvalidDefinition, InvalidPayload, UsageError

REAL = ("logic.if", "logic.switch", "logic.loop", "logic.join", "logic.set", "logic.transform", "logic.stop", "log.")
ROUNDS = 200
MOST_STEPS = 2000
SECONDS = 10

STEPS = """
  select s.step_id::text as step_id, s.node_id, s.scope_id::text as scope, s.visit, s.state, s.port, s.output, s.error,
         o.position as index
    from stellwerk.step s
    left join stellwerk.scope o on o.tenant_id = s.tenant_id and o.run_id = s.run_id and o.scope_id = s.scope_id
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s
   order by s.ended_at nulls last, s.step_id
   limit %s
"""
RUN = """
  select r.state, r.output, r.error from stellwerk.run r
   where r.tenant_id = (select stellwerk.current_tenant_id()) and r.run_id = %s
"""


def simulate(
    engine: Engine,
    compiled: Compiled,
    payload: Any,
    *,
    trigger: str | None = None,
    outputs: dict[str, Any] | None = None,
    ports: dict[str, str] | None = None,
    recorded: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Walks the document; answers the run's end and its steps. Nothing of it stays in the database."""
    if not compiled.is_publishable:
        first = next(problem for problem in compiled.problems if problem.severity == "error")
        raise InvalidDefinition(f"{first.path or 'the document'}: {first.message}", hint="Mend the errors first.")
    triggers = [row["node_id"] for row in compiled.plan if row["runs_in"] == "trigger"]
    begin = trigger or triggers[0]
    if begin not in triggers:
        raise UsageError(f"{begin!r} is no trigger of this workflow")
    kinds = {row["node_id"]: row["type"] for row in compiled.plan}
    chosen = dict(ports or {})
    plan = [
        play(row, {**(recorded or {}), **(outputs or {})}, chosen.get(row["node_id"]))
        for row in compiled.plan
        if row["runs_in"] != "trigger" or row["node_id"] == begin
    ]
    slug = f"simulation-{secrets.token_hex(6)}"
    document: dict[str, Any] = {
        "slug": slug,
        "name": slug,
        "input_schema": compiled.document.get("input_schema"),
        "nodes": [],
    }
    connection = engine.connection
    with connection.transaction(force_rollback=True):
        connection.execute("select set_config('statement_timeout', %s, true)", [f"{SECONDS}s"])
        engine.save_workflow(document, plan, [])
        engine.rows("select * from stellwerk.publish_draft(%s::text, null)", [slug])
        try:
            run_id = engine.start_run(slug, payload)
        except InvalidPayload as error:
            raise InvalidPayload("the payload does not fit the workflow's input", error.detail) from error
        run = walk(engine, run_id)
        steps = engine.rows(STEPS, [run_id, MOST_STEPS])
        played = {row["node_id"] for row in compiled.plan if not real(row)}
        wishes = rendered(connection, compiled.plan, steps, payload, run_id) if steps else {}
        for step in steps:
            name = step["node_id"]
            step["type"] = kinds.get(name)
            step["played"] = name in played
            if name in chosen and step["port"] == "next":
                step["port"] = chosen[name]
            if name in wishes and step["played"]:
                step["settings"] = wishes[name]
    return {"state": run["state"], "output": run["output"], "error": run["error"], "steps": steps}


def walk(engine: Engine, run_id: int) -> Row:
    """Drives the run to its end, as far as it goes."""
    before = None
    for _ in range(ROUNDS):
        engine.value("select stellwerk.advance(%s)", [run_id])
        run = engine.row(RUN, [run_id])
        if run["state"] in ("completed", "failed", "cancelled"):
            return run
        now = engine.value(
            "select count(*) from stellwerk.step s where s.tenant_id = (select stellwerk.current_tenant_id())"
            " and s.run_id = %s and s.ended_at is not null",
            [run_id],
        )
        if now == before:
            return run
        before = now
    return run


def real(row: dict[str, Any]) -> bool:
    """Whether the engine itself carries the node out: it touches nothing but the run."""
    return row["runs_in"] == "trigger" or str(row["type"]).startswith(REAL)


def play(row: dict[str, Any], outputs: dict[str, Any], port: str | None) -> dict[str, Any]:
    """The node as it is simulated."""
    row = row_as_payload(row)
    if row["runs_in"] == "trigger":
        return {**row, "type": "trigger.manual", "config": {}, "dynamic": []}
    if real(row):
        return row
    edges = dict(row["edges"])
    edges["next"] = edges.get(port or default_port(row), [])
    config, dynamic = {"output": None}, []
    if row["node_id"] in outputs:
        config["output"] = outputs[row["node_id"]]
    elif (kind := node_type(row["type"])) is not None and kind.output.startswith("the context"):
        config["output"] = row["config"].get("context")
        dynamic = [
            {**place, "at": ["output", *place["at"][1:]]} for place in row["dynamic"] if place["at"][:1] == ["context"]
        ]
    else:
        config["output"] = example(row["type"])
    return {
        **row,
        "type": "logic.transform",
        "runs_in": "sql",
        "executable": True,
        "config": config,
        "dynamic": dynamic,
        "condition": None,
        "cases": None,
        "edges": edges,
        "timeout": None,
        "compensate": None,
        "alone": False,
    }


def default_port(row: dict[str, Any]) -> str:
    """By which port a step leaves that is not carried out: next, else the first that leads on."""
    edges = row["edges"]
    if edges.get("next"):
        return "next"
    return next((port for port, targets in edges.items() if targets and port not in ("error", "timeout")), "next")


GUESSES: dict[str, Any] = {
    "count": 0,
    "rows": [],
    "items": [],
    "invoices": [],
    "headers": {},
    "body": {},
    "result": {},
    "created": True,
    "size": 0,
}


def example(name: str) -> Any:
    """An output of this type's shape, made up."""
    kind = node_type(name)
    if kind is None or not kind.output.startswith("{"):
        return {}
    keys = [part.strip(' "') for part in kind.output.partition("}")[0].strip("{ ").split(",")]
    made = {key: GUESSES.get(key, f"example {key}") for key in keys if key.isidentifier()}
    if name == "http.request":
        made["status"] = 200
    return made


def row_as_payload(row: dict[str, Any]) -> dict[str, Any]:
    """A simulated run has a payload and no row: what reads `trigger.row` reads the payload."""
    reads = dict(row["reads"])
    if "row" in reads.get("trigger", []):
        reads["trigger"] = list({("payload" if name == "row" else name): None for name in reads["trigger"]})
    return {
        **row,
        "reads": reads,
        **{key: without_row(row[key]) for key in ("dynamic", "condition", "cases")},
    }


def without_row(tree: Any) -> Any:
    """The same in a compiled expression; its jsonpath is left out, for the tree says all."""
    if isinstance(tree, dict):
        return {key: None if key == "jsonpath" else without_row(value) for key, value in tree.items()}
    if isinstance(tree, list):
        begin = 1 if tree[:1] == ["path"] else 0
        if tree[begin : begin + 2] == ["trigger", "row"]:
            return [*tree[:begin], "trigger", "payload", *tree[begin + 2 :]]
        return [without_row(item) for item in tree]
    return tree


def rendered(
    connection: psycopg.Connection[Any], plan: list[dict[str, Any]], steps: list[Row], payload: Any, run_id: int
) -> dict[str, Any]:
    """The settings that each step would have worked with, expressions filled in."""
    variables = dict(
        connection.execute(
            "select v.name, v.value from stellwerk.variable v"
            " where v.tenant_id = (select stellwerk.current_tenant_id()) and v.run_id = %s order by v.scope_id",
            [run_id],
        ).fetchall()
    )
    context = {
        "trigger": {"payload": payload, "row": payload, "old": None, "source": "manual"},
        "steps": {step["node_id"]: {"output": step["output"], "error": step["error"]} for step in steps},
        "vars": variables,
    }
    visited = {step["node_id"] for step in steps}
    found: dict[str, Any] = {}
    for row in plan:
        if row["node_id"] not in visited or real(row):
            continue
        try:
            with connection.transaction():
                answer = connection.execute(
                    "select stellwerk.render(%s, %s, %s)",
                    [Jsonb(row["config"]), Jsonb(row["dynamic"]), Jsonb(context)],
                ).fetchone()
        except psycopg.Error:
            continue
        found[row["node_id"]] = {key: each for key, each in (answer[0] if answer else {}).items() if each is not None}
    return found
