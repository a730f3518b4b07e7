"""The list of workflows: what is published, what is being worked on, how the runs went lately; new ones begin here."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from litestar import Router
from litestar.enums import RequestEncodingType
from litestar.params import Body

from stellwerk import json_text
from stellwerk.definition.catalog import NODE_TYPES
from stellwerk.definition.compile import compile_workflow
from stellwerk.errors import InvalidDefinition, UsageError
from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk
from stellwerk.web.pages import builder

LATELY = 24

# Of each workflow the last few runs, by an index: what is shown does not depend on how many there were.
WORKFLOWS = """
  select w.slug, w.name, w.description, w.active_version, lower(w.name) as sort_name,
         p.published_at, p.published_by, d.version as draft, d.saved_at, d.saved_by,
         coalesce(d.errors, 0) as errors, coalesce(d.warnings, 0) as warnings, r.states, r.last_at
    from stellwerk.workflow w
    left join stellwerk.workflow_version p
      on p.tenant_id = w.tenant_id and p.workflow_id = w.workflow_id and p.version = w.active_version
    left join lateral (
      select v.version, v.saved_at, v.saved_by,
             x.errors, x.warnings
        from stellwerk.workflow_version v
       cross join lateral (
         select count(*) filter (where coalesce(p ->> 'severity', 'error') = 'error') as errors,
                count(*) filter (where p ->> 'severity' = 'warning') as warnings
           from jsonb_array_elements(v.problems) p) x
       where v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id and v.published_at is null) d on true
    left join lateral (
      select array_agg(x.state order by x.run_id) as states, max(x.created_at) as last_at
        from (select n.run_id, n.state, n.created_at from stellwerk.run n
               where n.tenant_id = w.tenant_id and n.workflow_id = w.workflow_id
               order by n.run_id desc limit %(lately)s) x) r on true
   where w.tenant_id = (select stellwerk.current_tenant_id())
     and (%(q)s::text is null or strpos(lower(w.name), lower(%(q)s)) > 0 or strpos(w.slug, lower(%(q)s)) > 0)
     and (%(only)s::text is null
          or (%(only)s = 'published' and w.active_version is not null)
          or (%(only)s = 'draft' and d.version is not null))
     and (%(name)s::text is null or (lower(w.name), w.slug) > (%(name)s, %(slug)s))
   order by lower(w.name), w.slug
   limit %(limit)s
"""

Form = Body(media_type=RequestEncodingType.URL_ENCODED)


@routes.get("/workflows")
def show_workflows(desk: Desk, q: str = "", only: str = "", cursor: str = "") -> Any:
    """By name; htmx asks for more rows at the end of the list."""
    key = cursors.read(cursor, str, str)
    rows = desk.rows(
        WORKFLOWS,
        {
            "q": q.strip() or None,
            "only": only if only in ("published", "draft") else None,
            "name": key and key[0],
            "slug": key and key[1],
            "limit": cursors.DEFAULT + 1,
            "lately": LATELY,
        },  # type: ignore[arg-type]
    )
    page = cursors.page(rows, cursors.DEFAULT, "sort_name", "slug")
    template = "workflows/_rows.html" if desk.is_fragment else "workflows/page.html"
    return desk.page(template, page=page, q=q, only=only)


@routes.get("/workflow-builder", needs="design")
def show_new(desk: Desk) -> Any:
    """Where a new workflow gets its name and its trigger, or a file is brought in."""
    return desk.page("workflows/new.html", triggers=triggers(), name="", document="", refusal=None)


@routes.post("/workflow-builder", needs="design", status_code=200)
def make_new(desk: Desk, data: Annotated[dict[str, str], Form]) -> Any:
    """A draft with a trigger, or with the document that was brought in; on to the builder."""
    text = data.get("document", "").strip()
    if text:
        document = json_text.decode(text, "the document")
        if not isinstance(document, dict):
            raise InvalidDefinition("a workflow document must be an object", hint='It begins with {"slug": …}.')
        document = dict(document)
        document.setdefault("slug", slug_from(str(document.get("name") or data.get("name") or "")))
    else:
        name = data.get("name", "").strip()
        if not name:
            raise UsageError(desk.t("The workflow needs a name."))
        kind = NODE_TYPES.get(data.get("trigger", ""))
        trigger = kind.type if kind is not None and kind.runs_in == "trigger" else "trigger.manual"
        document = {
            "slug": data.get("slug", "").strip() or slug_from(name),
            "name": name,
            "nodes": [{"id": "start", "type": trigger, "ui": {"x": 80, "y": 160}}],
            "edges": [],
        }
    compiled = compile_workflow(document)
    if not compiled.document:
        raise InvalidDefinition(compiled.problems[0].message, hint=compiled.problems[0].hint)
    with desk.engine() as engine:
        builder.store(engine, compiled, None)
    return desk.go(f"/workflow-builder/{document['slug']}")


def slug_from(name: str) -> str:
    """What stands in addresses, made from a name: `Über Nacht!` becomes `ueber-nacht`."""
    text = name.lower()
    for umlaut, letters in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
        text = text.replace(umlaut, letters)
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    text = re.sub(r"[^a-z0-9]+", "-", text).strip("-")
    return (text if text[:1].isalpha() else f"workflow-{text}".rstrip("-"))[:63].rstrip("-")


def triggers() -> list[Any]:
    """The node types by which a workflow can begin."""
    return [kind for kind in NODE_TYPES.values() if kind.runs_in == "trigger" and kind.executable]


router = Router("/", route_handlers=[show_workflows, show_new, make_new])
