"""The node types as the builder shows them: names and forms in the reader's language, from the catalog."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from stellwerk.definition.catalog import node_type, type_names
from stellwerk.definition.document import Settings
from stellwerk.definition.functions import FUNCTIONS
from stellwerk.definition.node_types import NodeType
from stellwerk.web import texts

Translate = Callable[[str], str]

GROUPS = ("Triggers", "Logic", "Time", "People", "Data", "Backoffice", "Messages", "Documents", "Services", "Client")


@cache
def palette(language: str) -> list[dict[str, Any]]:
    """All node types that are known here, in the order of their groups; a third party's that cannot be loaded is left
    out, and shown as unknown where a document uses it. Put together once for each language: nobody changes it."""
    kinds = []
    for name in type_names():
        try:
            kind = node_type(name)
        except Exception:  # a third party's module, which may fail in any way
            continue
        if kind is not None:
            kinds.append(kind)
    kinds.sort(key=lambda kind: GROUPS.index(kind.group))
    return [entry(kind, partial(texts.translate, language)) for kind in kinds]


def entry(kind: NodeType, t: Translate) -> dict[str, Any]:
    """One node type: what the palette, the card on the canvas and the form need."""
    return {
        "type": kind.type,
        "title": t(kind.title),
        "description": t(kind.description),
        "group": t(kind.group),
        "icon": kind.icon,
        "runsIn": kind.runs_in,
        "ports": list(kind.ports_for({})),
        "output": output_keys(kind),
        "outputText": kind.output,
        "executable": kind.executable,
        "maxAttempts": kind.max_attempts,
        "timeout": kind.timeout,
        "schema": translated(kind.form(), t),
    }


def output_keys(kind: NodeType) -> list[str]:
    """The names in an output such as `{ "rows", "count" }`, for completion; none where its shape is open."""
    return re.findall(r'"(\w+)"', kind.output)


def translated(schema: Any, t: Translate) -> Any:
    """A JSON Schema with titles and descriptions in another language; what stands in `properties` are names."""
    if isinstance(schema, list):
        return [translated(part, t) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("title", "description") and isinstance(value, str):
            result[key] = t(value)
        elif key in ("properties", "$defs"):
            result[key] = {name: translated(part, t) for name, part in value.items()}
        elif key in ("default", "enum", "const"):
            result[key] = value
        else:
            result[key] = translated(value, t)
    return result


# What the form of a whole workflow says about its settings.
SETTINGS = {
    "max_running": ("Runs at once", "How many may go at the same time; the others wait."),
    "concurrency_key": ("Concurrency key", "Runs with the same value do not go at the same time."),
    "on_conflict": ("On conflict", "What happens to a new run while one with its key is going."),
    "debounce": ("Debounce", "Begin only when nothing more has come for so long."),
    "throttle": ("Throttle", "At least so long between the starts of two runs."),
    "priority": ("Priority", "Higher goes first."),
    "timeout": ("Time limit", "How long a run may take."),
    "retention": ("Retention", "How long ended runs are kept."),
    "payment_days": ("Days to pay", "For quotes of this workflow."),
    "case_statuses": ("Case statuses", "Which statuses a case of this workflow can have."),
    "valid_days": ("Days of validity", "For quotes of this workflow."),
}


def settings_form(t: Translate) -> dict[str, Any]:
    """The settings of a whole workflow as JSON Schema."""
    form = Settings.model_json_schema()
    for name, part in form["properties"].items():
        # One that is new here keeps the name that it has; a test asks for its text.
        if name in SETTINGS:
            title, description = SETTINGS[name]
            part.update(title=t(title), description=t(description))
        if name != "concurrency_key":
            part["literal"] = True
    return form


def texts_of(kind: NodeType) -> Iterator[str]:
    """Every text of a node type that people read and that is translated."""
    seen: list[str] = []

    def note(text: str) -> str:
        seen.append(text)
        return text

    form = kind.form()
    # The name of the class is the title of the whole form, which nobody sees.
    form.pop("title", None)
    for definition in form.get("$defs", {}).values():
        definition.pop("title", None)
    translated(form, note)
    yield from (kind.title, kind.description, kind.group, *seen)


def functions() -> list[dict[str, str]]:
    """The functions of expressions, for completion."""
    return [{"name": each.name, "signature": each.signature, "title": each.title} for each in FUNCTIONS.values()]
