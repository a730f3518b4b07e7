"""Every node type, described once.

The builder's palette and forms, the compiler's checks, the API's schema and the docs' table are drawn from here.
Node types of third parties are found by the name of their entry point in the group `stellwerk.executors`; nothing
is loaded before a document uses such a type. `python -m stellwerk.definition.catalog` prints the table of
docs/workflow-document.md.
"""

from __future__ import annotations

import functools
import importlib.metadata
from typing import Any

from pydantic import BaseModel

from stellwerk.definition.catalog_data import DATA
from stellwerk.definition.catalog_logic import LOGIC
from stellwerk.definition.catalog_people import PEOPLE
from stellwerk.definition.catalog_triggers import TRIGGERS
from stellwerk.definition.catalog_worker import SERVICES, EsignRequestConfig, FonioCallConfig, HttpRequestConfig
from stellwerk.definition.node_types import NoConfig, NodeConfig, NodeType

__all__ = [
    "ENTRY_POINTS",
    "NODE_TYPES",
    "EsignRequestConfig",
    "FonioCallConfig",
    "HttpRequestConfig",
    "NoConfig",
    "NodeConfig",
    "NodeType",
    "catalog_table",
    "node_type",
    "register",
    "type_names",
]

ENTRY_POINTS = "stellwerk.executors"

NODE_TYPES: dict[str, NodeType] = {kind.type: kind for kind in (*TRIGGERS, *LOGIC, *PEOPLE, *DATA, *SERVICES)}

_registered: dict[str, NodeType] = {}


def node_type(name: str) -> NodeType | None:
    """The node type of that name: a built-in one, a registered one, or a third party's executor; None if there is
    none."""
    return NODE_TYPES.get(name) or _registered.get(name) or _third_party(name)


def register(kind: NodeType) -> None:
    """Adds a node type for this process. A built-in type cannot be replaced."""
    if kind.type in NODE_TYPES:
        raise ValueError(f"the node type {kind.type} is built in")
    _registered[kind.type] = kind


def type_names() -> list[str]:
    """The names of all node types that are known here, third parties' included."""
    return [*NODE_TYPES, *_registered, *(name for name in _entry_points() if name not in NODE_TYPES)]


def catalog_table() -> str:
    """The built-in node types as rows of a Markdown table."""
    rows = []
    for kind in NODE_TYPES.values():
        settings = ", ".join(
            f"`{field.alias or name}`" + ("" if not field.is_required() else "*")
            for name, field in kind.config.model_fields.items()
        )
        state = "" if kind.executable else " *(later)*"
        where = "–" if kind.runs_in == "trigger" else kind.runs_in
        output = f"`{kind.output}`" if "{" in kind.output else kind.output
        ports = ", ".join(kind.ports) or "–"
        rows.append(f"| `{kind.type}`{state} | {where} | {ports} | {kind.description} | {settings or '–'} | {output} |")
    return "\n".join(
        [
            "| type | runs in | ports | what it does | settings | output |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
        ]
    )


@functools.cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}


@functools.cache
def _third_party(name: str) -> NodeType | None:
    point = _entry_points().get(name)
    if point is None or "." not in name:
        return None
    executor: Any = point.load()
    config = getattr(executor, "config", None)
    output = getattr(executor, "output", None)
    return NodeType(
        type=name,
        title=str(getattr(executor, "title", name)),
        description=(executor.__doc__ or name).strip().splitlines()[0],
        group="Services",
        icon=str(getattr(executor, "icon", "plug")),
        runs_in="worker",
        config=config if isinstance(config, type) and issubclass(config, BaseModel) else NoConfig,
        output=getattr(output, "__name__", "any JSON"),
        executable=True,
    )


if __name__ == "__main__":
    print(catalog_table())
