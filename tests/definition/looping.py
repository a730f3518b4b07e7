"""Small steps that the tests of loops in documents share."""

from __future__ import annotations

from typing import Any

from definition.helpers import document, node, plan

from stellwerk.definition.compile import compile_workflow


def loop(name: str, items: Any = "{{ trigger.payload.list }}", **more: Any) -> dict[str, Any]:
    return node(name, "logic.loop", items=items, **more)


def rows_of(*nodes: dict[str, Any], ways: str) -> dict[str, dict[str, Any]]:
    return plan(document(*nodes, ways=ways))


def column(rows: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """One field of all nodes for which it says anything."""
    return {node_id: row[name] for node_id, row in rows.items() if row[name]}


def told(value: dict[str, Any]) -> list[tuple[str, str, str]]:
    return sorted((item.path, item.code, item.severity) for item in compile_workflow(value).problems)
