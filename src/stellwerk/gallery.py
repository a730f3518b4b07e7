"""The gallery: workflows to start from, each with a sample event and what comes of it (`examples/gallery`)."""

from __future__ import annotations

import datetime
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from stellwerk import resources
from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine
from stellwerk.errors import UnknownWorkflow

ALERT_NOTIFICATION = "alert-notification"
"""The workflow that tells people of alerts; the database knows it by this name."""

_DURATION = TypeAdapter(datetime.timedelta)


class Sample(BaseModel):
    """An event that starts the workflow, and what people, other systems and time do then."""

    model_config = ConfigDict(extra="forbid")

    payload: dict[str, Any]
    steps: list[dict[str, Any]] = Field(default_factory=list)

    def fresh_payload(self, now: datetime.datetime) -> dict[str, Any]:
        """The payload with times like `{ "in": "P10D" }` reckoned from now."""
        return {name: _moment(value, now) for name, value in self.payload.items()}


class Template(BaseModel):
    """A workflow of the gallery."""

    model_config = ConfigDict(extra="forbid")

    title: dict[str, str]
    summary: dict[str, str]
    group: str
    icon: str
    document: dict[str, Any]
    sample: Sample
    expect: dict[str, Any]

    @property
    def slug(self) -> str:
        """The name that the workflow gets where it is not taken."""
        return str(self.document["slug"])

    def document_as(self, taken: set[str]) -> dict[str, Any]:
        """The document, under a name that is free."""
        slug, number = self.slug, 2
        while slug in taken:
            slug, number = f"{self.slug}-{number}", number + 1
        return {**self.document, "slug": slug}


@cache
def templates() -> dict[str, Template]:
    """All of them by slug, in the order of their groups."""
    found = [
        Template.model_validate_json(file.read_text(encoding="utf-8"))
        for file in sorted((resources.folder("examples") / "gallery").glob("*.json"))
    ]
    return {template.slug: template for template in sorted(found, key=lambda each: (each.group, each.slug))}


def template(slug: str) -> Template:
    """One of them; raises `UnknownWorkflow`."""
    found = templates().get(slug)
    if found is None:
        raise UnknownWorkflow(f"the gallery has no {slug!r}", hint=f"There are {', '.join(templates())}.")
    return found


def publish_once(engine: Engine, slug: str) -> None:
    """Publish a template under its own name, where there is no workflow of that name: what people made of it stays."""
    if engine.rows(
        "select from stellwerk.workflow where tenant_id = stellwerk.current_tenant_id() and slug = %s", [slug]
    ):
        return
    compiled = compile_workflow(template(slug).document)
    saved, version = engine.save_workflow(
        compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems]
    )
    engine.publish_workflow(saved, version)


def _moment(value: Any, now: datetime.datetime) -> Any:
    if isinstance(value, dict) and set(value) == {"in"}:
        return (now + _DURATION.validate_python(value["in"])).isoformat(timespec="seconds")
    return value


def duration(text: str) -> datetime.timedelta:
    """An ISO 8601 duration of days and less."""
    return _DURATION.validate_python(text)
