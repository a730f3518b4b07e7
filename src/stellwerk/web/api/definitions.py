"""What the modules about workflow documents share: their shapes, and saving one that was compiled."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, Literal

from litestar import Response
from pydantic import ConfigDict, Field, RootModel

from stellwerk.engine import Engine
from stellwerk.errors import UnknownWorkflow
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import (
    Anything,
    PreconditionRequired,
    Refused,
    Shown,
    Slug,
    answer,
)

# The API has these words in the place of a name.
RESERVED = ("executions", "events", "analytics")

NEWEST = """
  select w.slug, w.name, w.description, w.active_version, d.version, d.published_at is null as draft, d.saved_at,
         d.saved_by, d.published_at, d.published_by, d.document, d.problems,
         stellwerk.workflow_tag(w.tenant_id, w.workflow_id) as tag
    from stellwerk.workflow w
    join stellwerk.workflow_version d on d.tenant_id = w.tenant_id and d.workflow_id = w.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s and (%s::int is null or d.version = %s)
   order by d.version desc
   limit 1
"""

EXAMPLE: dict[str, Any] = {
    "slug": "greet",
    "name": "Greet",
    "input_schema": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "greet", "type": "logic.transform", "config": {"output": {"text": "Hello {{ trigger.payload.name }}"}}},
    ],
    "edges": [{"from": "start", "to": "greet"}],
}


class Document(RootModel[dict[str, Any]]):
    """A workflow document; docs/workflow-document.md describes it."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "type": "object",
            "required": ["slug"],
            "properties": {
                "slug": {"type": "string"},
                "name": {"type": ["string", "null"]},
                "description": {"type": ["string", "null"]},
                "input_schema": {"type": ["object", "null"]},
                "settings": {"type": "object"},
                "nodes": {"type": "array", "items": {"type": "object"}},
                "edges": {"type": "array", "items": {"type": "object"}},
                "steps": {"type": "array", "description": "A plain sequence in place of nodes and edges."},
            },
        },
    )


class DocumentProblem(Shown):
    """What the compiler says about a place of a document."""

    path: str
    code: str
    message: str
    severity: Literal["error", "warning"]
    node: str | None = None
    position: int | None = None
    hint: str | None = None


class Workflow(Shown):
    """A workflow and one version of its document, the newest unless another was asked for."""

    slug: Slug
    name: str
    description: str | None
    active_version: int | None = Field(description="What new runs use; null while none is published.")
    version: int = Field(description="The version of this document.")
    draft: bool = Field(description="Whether this version is not published yet.")
    saved_at: datetime.datetime
    saved_by: str
    published_at: datetime.datetime | None
    published_by: str | None
    document: dict[str, Any]
    problems: list[DocumentProblem]


class Value(Shown):
    """Anything."""

    value: Anything


def workflow_of(engine: Engine, slug: str, version: int | None = None) -> dict[str, Any]:
    """A workflow with its newest version, or the given one."""
    rows = engine.rows(NEWEST, [slug, version, version])
    if not rows:
        what = f"no version {version} of the workflow {slug!r}" if version else f"no workflow {slug!r}"
        raise UnknownWorkflow(f"there is {what}", hint="GET /api/workflows lists them.")
    return rows[0]


def shown(row: dict[str, Any], *, status: int | None = None) -> Response[bytes]:
    """The workflow with its ETag."""
    return answer(Workflow, row, status=status, headers={"etag": f'"{row["tag"]}"'})


def expected_tag(desk: Desk, *, needed: bool) -> str | None:
    """The tag in the header If-Match; `*` stands for whatever is there."""
    text = desk.request.headers.get("if-match", "").strip()
    if not text:
        if needed:
            raise PreconditionRequired(
                detail="the header If-Match is missing: send the ETag of the document that was changed, or * for any"
            )
        return None
    return None if text == "*" else text.removeprefix("W/").strip('"')


def saved(
    desk: Desk,
    slug: str,
    change: Callable[[dict[str, Any] | None], dict[str, Any]],
    *,
    tag: str | None = None,
    incomplete: bool = False,
) -> dict[str, Any]:
    """Compile and save what `change` makes of the newest document (None: there is none yet), while nobody else can."""
    from stellwerk.definition.compile import compile_workflow  # here, because the SQL parser takes a while to load

    with desk.engine() as engine:
        found = engine.claim_workflow(slug, tag)
        document = change(None if found is None else workflow_of(engine, slug)["document"])
        compiled = compile_workflow(document)
        problems = [problem.as_json() for problem in compiled.problems]
        if compiled.document.get("slug") != slug or (not compiled.is_publishable and not incomplete):
            refuse(problems)
            raise Refused("the slug is another", [{"path": "slug", "message": f"is {slug!r} in the address"}])
        engine.save_workflow(compiled.document, compiled.plan, problems)
        return workflow_of(engine, slug)


def refuse(problems: list[dict[str, Any]]) -> None:
    """Raise what is an error among a document's problems."""
    errors = [problem for problem in problems if problem["severity"] == "error"]
    if errors:
        count = f"{len(errors)} error{'s' if len(errors) > 1 else ''}"
        raise Refused(f"the document has {count}, and was not saved", errors)
