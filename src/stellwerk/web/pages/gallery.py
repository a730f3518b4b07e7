"""The gallery: ready workflows, installed as drafts with one click."""

from __future__ import annotations

import itertools
from typing import Any

from litestar import Router

from stellwerk import gallery
from stellwerk.definition.compile import compile_workflow
from stellwerk.web import routes
from stellwerk.web.desk import Desk

SLUGS = "select w.slug from stellwerk.workflow w where w.tenant_id = (select stellwerk.current_tenant_id())"


@routes.get("/templates")
def show_gallery(desk: Desk) -> Any:
    """All templates, by group."""
    groups = [
        (name, list(templates))
        for name, templates in itertools.groupby(gallery.templates().values(), key=lambda template: template.group)
    ]
    return desk.page("gallery/page.html", groups=groups)


@routes.post("/templates/{slug:str}/installation", needs="design", status_code=200)
def install(desk: Desk, slug: str) -> Any:
    """The template as a draft, under its own name or the next one that is free; the builder opens it."""
    template = gallery.template(slug)
    with desk.engine() as engine:
        taken = {row["slug"] for row in engine.rows(SLUGS)}
        compiled = compile_workflow(template.document_as(taken))
        saved, _ = engine.save_workflow(
            compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems]
        )
    return desk.go(f"/workflow-builder/{saved}")


router = Router("/", route_handlers=[show_gallery, install])
