"""The builder: its page, and what the canvas asks the server while one works on it."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from litestar import Response, Router
from litestar.exceptions import NotFoundException
from psycopg.types.json import Jsonb

from stellwerk.definition.catalog import node_type
from stellwerk.definition.compile import Compiled, compile_workflow
from stellwerk.engine import Engine, Row
from stellwerk.errors import InvalidDefinition, UnknownThing, UsageError
from stellwerk.json_text import dumps
from stellwerk.web import palette, rendering, routes, samples, simulation, texts
from stellwerk.web.desk import Desk

WORKFLOW = """
  select w.workflow_id, w.slug, w.name, w.active_version, d.version, d.document, d.problems, d.saved_at, d.saved_by,
         d.published_at is null as is_draft, stellwerk.draft_tag(w.tenant_id, w.workflow_id) as tag
    from stellwerk.workflow w
    join lateral (
      select v.* from stellwerk.workflow_version v
       where v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id
       order by v.version desc limit 1) d on true
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s
"""

# Enough to say how many; counting a hundred thousand would keep the page waiting.
LIVE_RUNS = """
  select v.version, count(*) as runs
    from stellwerk.workflow w
   cross join unnest(array['pending', 'running', 'waiting', 'paused']) s (state)
   cross join lateral (
     select r.version from stellwerk.run r
      where r.tenant_id = w.tenant_id and r.workflow_id = w.workflow_id and r.state = s.state and r.ended_at is null
      order by r.run_id desc limit 1000) v
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s
   group by v.version order by v.version desc
"""

NAMES = """
  with mine as materialized (select stellwerk.current_tenant_id() as tenant_id)
  select 'table' as kind, t.slug as name from mine join stellwerk.registered_table t using (tenant_id)
  union all
  select 'function', f.name from mine join stellwerk.registered_function f using (tenant_id)
  union all
  select 'workflow', w.slug from mine join stellwerk.workflow w using (tenant_id)
  union all
  select 'calendar', c.name from mine join stellwerk.calendar c using (tenant_id)
  union all
  select 'source', s.source from mine join stellwerk.webhook_source s using (tenant_id)
  union all
  select 'user', u.email from mine join stellwerk.app_user u using (tenant_id) where u.active
  union all
  select distinct 'role', g from mine join stellwerk.app_user u using (tenant_id)
   cross join unnest(u.groups || u.role) g
  order by 1, 2
  limit 2000
"""


@routes.get("/workflow-builder/{slug:str}")
def show_builder(desk: Desk, slug: str) -> Any:
    """The draft on its canvas, or the newest version where there is no draft."""
    with desk.engine() as engine:
        workflow = find(engine, slug)
        names: dict[str, list[str]] = {}
        for row in engine.rows(NAMES):
            names.setdefault(row["kind"], []).append(row["name"])
        recent = samples.runs(engine, slug)
    compiled = compile_workflow(workflow["document"])
    data = {
        "slug": slug,
        "document": workflow["document"],
        "tag": workflow["tag"],
        "version": workflow["version"],
        "active": workflow["active_version"],
        "isDraft": workflow["is_draft"],
        "savedAt": workflow["saved_at"].isoformat(),
        **verdict(compiled),
        "palette": palette.palette(desk.language),
        "functions": [{**each, "title": desk.t(each["title"])} for each in palette.functions()],
        "settingsSchema": palette.settings_form(desk.t),
        "names": names,
        "samples": [{**run, "created_at": run["created_at"].isoformat()} for run in recent],
        "may": {"design": desk.may("design"), "start": desk.may("start")},
        "texts": texts.area(desk.language, "builder"),
        "icons": rendering.asset("icons.svg"),
        "nodeIcons": rendering.asset("node-icons.svg"),
    }
    return desk.page(
        "builder/page.html",
        workflow=workflow,
        data=json.dumps(data, ensure_ascii=False, default=str),
        script=module("builder", "main.js"),
    )


@routes.post("/workflow-builder/{slug:str}/check", needs="read", status_code=200)
def check(slug: str, data: dict[str, Any]) -> dict[str, Any]:
    """Compiles the document as it stands on the canvas; nothing is stored."""
    return verdict(compile_workflow(own(data.get("document"), slug)))


@routes.put("/workflow-builder/{slug:str}", needs="design")
def save(desk: Desk, slug: str, data: dict[str, Any]) -> dict[str, Any]:
    """Stores the document as the draft, unless somebody else has saved since it was read."""
    compiled = compile_workflow(own(data.get("document"), slug))
    if not compiled.document:
        raise InvalidDefinition(compiled.problems[0].message, hint=compiled.problems[0].hint)
    with desk.engine() as engine:
        tag = data.get("tag")
        if data.get("over"):
            tag = find(engine, slug)["tag"]
        saved = store(engine, compiled, tag)
    return {**saved, **verdict(compiled)}


@routes.get("/workflow-builder/{slug:str}/document")
def show_document(desk: Desk, slug: str) -> Response[Any]:
    """The document as a file."""
    with desk.engine() as engine:
        workflow = find(engine, slug)
    return Response(
        rendering.pretty(workflow["document"]),
        media_type="application/json",
        headers={"content-disposition": f'attachment; filename="{slug}.json"'},
    )


@routes.get("/workflow-builder/{slug:str}/publishing")
def show_publishing(desk: Desk, slug: str) -> dict[str, Any]:
    """What publishing would change, and what becomes of the runs that are under way."""
    with desk.engine() as engine:
        workflow = find(engine, slug)
        active = workflow["active_version"]
        changes = engine.diff_versions(slug, active, workflow["version"]) if active and workflow["is_draft"] else []
        live = engine.rows(LIVE_RUNS, [slug])
    return {
        "version": workflow["version"],
        "active": active,
        "isDraft": workflow["is_draft"],
        "changes": changes,
        "live": live,
        "triggers": triggers_of(workflow["document"], desk),
    }


@routes.post("/workflow-builder/{slug:str}/publish", needs="design", status_code=200)
def publish(desk: Desk, slug: str, data: dict[str, Any]) -> dict[str, Any]:
    """Makes the draft the version that new runs use; `version` is the one that was looked at."""
    version = data.get("version")
    with desk.engine() as engine:
        published = engine.publish_workflow(slug, version if isinstance(version, int) else None)
        tag = find(engine, slug)["tag"]
    return {"version": published, "tag": tag}


@routes.get("/workflow-builder/{slug:str}/context")
def show_context(desk: Desk, slug: str, run: int) -> dict[str, Any]:
    """What the expressions of a past run could see, for completion and live values."""
    with desk.engine() as engine:
        return samples.context_of_run(engine, slug, run)


@routes.post("/workflow-builder/{slug:str}/values", needs="read", status_code=200)
def show_values(desk: Desk, slug: str, data: dict[str, Any]) -> dict[str, Any]:
    """What expressions give with a past run, or with a context that is sent along."""
    items = data.get("items")
    with desk.engine() as engine:
        run = str(data.get("run") or "")
        context = data.get("context")
        if not isinstance(context, dict):
            context = samples.context_of_run(engine, slug, int(run)) if run.isdecimal() else {}
        seen = samples.context_at(context, data.get("loop"))
        return {"values": samples.values(engine, seen, items if isinstance(items, list) else [])}


@routes.post("/workflow-builder/{slug:str}/simulate", needs="read", status_code=200)
def simulate(desk: Desk, slug: str, data: dict[str, Any]) -> dict[str, Any]:
    """Walks the document as it stands on the canvas, with every effect off."""
    compiled = compile_workflow(own(data.get("document"), slug))
    run = str(data.get("run") or "")
    with desk.engine() as engine:
        recorded: dict[str, Any] = {}
        if run.isdecimal():
            past = samples.context_of_run(engine, slug, int(run))
            recorded = {name: step["output"] for name, step in past["steps"].items() if step["output"] is not None}
        return simulation.simulate(
            engine,
            compiled,
            data.get("payload") if data.get("payload") is not None else {},
            trigger=data.get("trigger"),
            outputs=data.get("outputs"),
            ports=data.get("ports"),
            recorded=recorded,
        )


@routes.get("/scripts/{version:str}/{folder:str}/{name:str}", needs="public")
def script(version: str, folder: str, name: str) -> Response[bytes]:
    """A module of a page's script. The version stands in the path, so that what a module imports has it too."""
    path = modules(folder).get(name)
    if path is None:
        raise NotFoundException("there is no such script")
    return Response(
        path,
        media_type="text/javascript; charset=utf-8",
        headers={"cache-control": "public, max-age=31536000, immutable"},
    )


@cache
def module(folder: str, name: str) -> str:
    """The address of a module; it changes whenever one of its folder does."""
    digest = hashlib.sha256()
    for content in modules(folder).values():
        digest.update(content)
    return f"/scripts/{digest.hexdigest()[:12]}/{folder}/{name}"


@cache
def modules(folder: str) -> dict[str, bytes]:
    """The modules in a folder of `static/`."""
    if not folder.isidentifier():
        return {}
    return {path.name: path.read_bytes() for path in sorted((rendering.STATIC / folder).glob("*.js"))}


def find(engine: Engine, slug: str) -> Row:
    """The workflow with its newest version; SW001 with similar names when there is none."""
    rows = engine.rows(WORKFLOW, [slug])
    if not rows:
        engine.value("select stellwerk.find_workflow(stellwerk.current_tenant_id(), %s::text)", [slug])
        raise UnknownThing(f"workflow {slug!r} has no version")
    return rows[0]


def own(document: Any, slug: str) -> dict[str, Any]:
    """The document under the slug of its address: another one would be another workflow."""
    if not isinstance(document, dict):
        raise UsageError("the document must be an object")
    return {**document, "slug": slug}


def store(engine: Engine, compiled: Compiled, tag: Any) -> dict[str, Any]:
    """Saves a compiled document as the draft that follows the one with this tag; null for a new workflow."""
    problems = [problem.as_json() for problem in compiled.problems]
    return engine.row(
        "select version, tag from stellwerk.save_draft(%s::jsonb, %s::jsonb, %s::jsonb, %s::text)",
        [
            *(Jsonb(part, dumps=dumps) for part in (compiled.document, compiled.plan, problems)),
            tag if isinstance(tag, str) else None,
        ],
    )


def verdict(compiled: Compiled) -> dict[str, Any]:
    """What the canvas shows of a compiled document: its problems, and the ports of its nodes."""
    ports: dict[str, list[str]] = {}
    for node in compiled.document.get("nodes") or []:
        if not isinstance(node, dict) or not isinstance(node.get("id"), str) or not isinstance(node.get("type"), str):
            continue
        try:
            kind = node_type(node["type"])
        except Exception:  # a third party's module; the compiler has told it
            continue
        if kind is not None:
            config = node.get("config")
            ports[node["id"]] = list(kind.ports_for(config if isinstance(config, dict) else {}))
    return {"problems": [problem.as_json() for problem in compiled.problems], "ports": ports}


def triggers_of(document: Any, desk: Desk) -> list[dict[str, Any]]:
    """By what new runs would be started."""
    found = []
    for node in document.get("nodes") or []:
        if isinstance(node, dict) and str(node.get("type", "")).startswith("trigger."):
            kind = node_type(str(node["type"]))
            config = node.get("config")
            table = config.get("table") if isinstance(config, dict) else None
            found.append({"title": desk.t(kind.title) if kind else node["type"], "table": table})
    return found


router = Router(
    "/",
    route_handlers=[
        show_builder,
        check,
        save,
        show_document,
        show_publishing,
        publish,
        show_context,
        show_values,
        simulate,
        script,
    ],
)
