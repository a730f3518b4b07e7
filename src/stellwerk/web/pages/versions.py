"""The versions of a workflow: what is different between two, going back to one, moving running runs to one."""

from __future__ import annotations

import json
from typing import Annotated, Any

from litestar import Router
from litestar.enums import RequestEncodingType
from litestar.params import Body

from stellwerk.engine import Engine, Row
from stellwerk.errors import UsageError
from stellwerk.web import palette, rendering, routes, texts
from stellwerk.web.desk import Desk
from stellwerk.web.pages import builder

MOST_VERSIONS = 200
SHOWN_VERDICTS = 200

VERSIONS = """
  select v.version, v.published_at, v.published_by, v.saved_at, v.saved_by, v.version = w.active_version as is_active,
         (select count(*) from jsonb_array_elements(v.problems) p
           where coalesce(p ->> 'severity', 'error') = 'error') as errors,
         case when jsonb_typeof(v.document -> 'nodes') = 'array'
              then jsonb_array_length(v.document -> 'nodes') else 0 end as nodes
    from stellwerk.workflow w
    join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s
   order by v.version desc
   limit %s
"""

DOCUMENT = """
  select v.document from stellwerk.workflow w
    join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s and v.version = %s
"""

Form = Body(media_type=RequestEncodingType.URL_ENCODED)


@routes.get("/workflows/{slug:str}/versions")
def show_versions(desk: Desk, slug: str, a: int | None = None, b: int | None = None) -> Any:
    """The list, and two of them on one canvas: without a wish, the newest and the one before it."""
    with desk.engine() as engine:
        workflow = builder.find(engine, slug)
        versions = engine.rows(VERSIONS, [slug, MOST_VERSIONS])
        live = {row["version"]: row["runs"] for row in engine.rows(builder.LIVE_RUNS, [slug])}
        numbers = [version["version"] for version in versions]
        b = b if b is not None else numbers[0]
        a = a if a is not None else next((number for number in numbers if number < b), b)
        changes = engine.diff_versions(slug, a, b) if a != b else []
        documents = [engine.value(DOCUMENT, [slug, number]) for number in (a, b)]
    data = {
        "slug": slug,
        "a": a,
        "b": b,
        "before": documents[0],
        "after": documents[1],
        "changes": changes,
        "palette": palette.palette(desk.language),
        "texts": texts.area(desk.language, "builder"),
        "icons": rendering.asset("icons.svg"),
        "nodeIcons": rendering.asset("node-icons.svg"),
    }
    return desk.page(
        "versions/page.html",
        workflow=workflow,
        versions=versions,
        live=live,
        a=a,
        b=b,
        data=json.dumps(data, ensure_ascii=False, default=str),
        script=builder.module("builder", "compare.js"),
    )


@routes.post("/workflows/{slug:str}/rollback", needs="design", status_code=200)
def roll_back(desk: Desk, slug: str, data: Annotated[dict[str, str], Form]) -> Any:
    """Publishes an earlier version again, as a new one."""
    with desk.engine() as engine:
        engine.rollback_workflow(slug, number_of(data, "version"))
    return desk.go(f"/workflows/{slug}/versions")


@routes.post("/workflows/{slug:str}/discarded-draft", needs="design", status_code=200)
def discard(desk: Desk, slug: str) -> Any:
    """Throws the draft away; what is published stays."""
    with desk.engine() as engine:
        engine.value("select stellwerk.discard_draft(%s::text)", [slug])
    return desk.go(f"/workflows/{slug}/versions")


@routes.post("/workflows/{slug:str}/migration-plan", needs="operate", status_code=200)
def plan_migration(desk: Desk, slug: str, data: Annotated[dict[str, str], Form]) -> Any:
    """What would become of each run that is under way; nothing moves."""
    with desk.engine() as engine:
        return desk.page("versions/_migration.html", **planned(engine, slug, data), slug=slug, moved=None)


@routes.post("/workflows/{slug:str}/migration", needs="operate", status_code=200)
def migrate(desk: Desk, slug: str, data: Annotated[dict[str, str], Form]) -> Any:
    """Moves the runs whose verdict is ok."""
    with desk.engine() as engine:
        start, to, node_map = number_of(data, "from"), number_of(data, "to"), map_of(data)
        rows = engine.migrate_runs(slug, start, to, node_map, dry_run=False)
        return desk.page("versions/_migration.html", **told(rows, start, to, []), slug=slug, moved=True)


def planned(engine: Engine, slug: str, data: dict[str, str]) -> dict[str, Any]:
    """The verdicts of a dry run, and which node is taken for which."""
    start, to, node_map = number_of(data, "from"), number_of(data, "to"), map_of(data)
    if start == to:
        raise UsageError("the runs have that version already")
    rows = engine.migrate_runs(slug, start, to, node_map)
    nodes = [
        {**row, "choices": builder_nodes(engine, slug, to, row["type"])}
        for row in engine.propose_node_map(slug, start, to, node_map)
        if row["how"] != "same"
    ]
    return told(rows, start, to, nodes)


def told(rows: list[Row], start: int, to: int, nodes: list[dict[str, Any]]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    rows.sort(key=lambda row: (row["verdict"] == "ok", row["run_id"]))
    shown = rows[:SHOWN_VERDICTS]
    return {"rows": shown, "counts": counts, "total": len(rows), "start": start, "to": to, "nodes": nodes}


def builder_nodes(engine: Engine, slug: str, version: int, kind: str) -> list[str]:
    """The nodes of a version that have this type: a live token can only go to one of them."""
    document = engine.value(DOCUMENT, [slug, version])
    return [node["id"] for node in document.get("nodes") or [] if node.get("type") == kind]


def map_of(data: dict[str, str]) -> dict[str, str | None]:
    """`map.OLD` = NEW of the form; an empty one leaves it to the engine, a dash says that there is none."""
    return {
        key.removeprefix("map."): None if value == "-" else value
        for key, value in data.items()
        if key.startswith("map.") and value
    }


def number_of(data: dict[str, str], name: str) -> int:
    value = data.get(name, "")
    if not value.isdecimal():
        raise UsageError(f"{name} must be the number of a version")
    return int(value)


router = Router("/", route_handlers=[show_versions, roll_back, discard, plan_migration, migrate])
