"""Differences between versions, and verdicts on runs, as lines for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from stellwerk.cli.output import Row, cell, say

FIRST = 3
"""How many runs are named per reason."""


def differences(rows: Sequence[Row]) -> Iterator[tuple[str, list[str]]]:
    """A heading and its lines per part of the document that differs; positions on the drawing come last, in short."""
    frame = [row for row in rows if row["kind"] in ("workflow", "setting", "input_schema")]
    if frame:
        yield "workflow", [_change(row) for row in frame]
    nodes: dict[str, list[Row]] = {}
    for row in rows:
        if row not in frame and row["kind"] != "layout" and not row["kind"].startswith("edge_"):
            nodes.setdefault(row["node_id"], []).append(row)
    for node, changes in nodes.items():
        first = changes[0]
        if first["kind"] == "node_added":
            yield f"+ node {node} ({first['after']['type']})", []
        elif first["kind"] == "node_removed":
            yield f"- node {node} ({first['before']['type']})", []
        elif first["kind"] == "node_renamed":
            yield f"node {node}, which seems to be what {first['was']} was", [_change(row) for row in changes[1:]]
        else:
            yield f"node {node}", [_change(row) for row in changes]
    edges = [row for row in rows if row["kind"].startswith("edge_")]
    if edges:
        yield "edges", [_edge(row) for row in edges]
    moved = [row["node_id"] for row in rows if row["kind"] == "layout"]
    if moved:
        yield f"drawn elsewhere: {', '.join(moved)}", []


def tell_proposal(rows: Sequence[Row]) -> None:
    """The nodes that were taken for others under a new name; nothing when there are none."""
    renamed = [f"{row['node_id']} → {row['to_node']}" for row in rows if row["how"] == "renamed"]
    if renamed:
        say(f"taken for renamed: {', '.join(renamed)} (--map says otherwise)")


def tell_verdicts(rows: Sequence[Row], *, done: str | None, empty: str) -> None:
    """How many runs have each verdict, and for each reason the first of them."""
    if not rows:
        say(empty)
        return
    names = {"ok": done or "ok", "needs_map": "needs map", "blocked": "blocked"}
    counts = Counter(row["verdict"] for row in rows)
    say(", ".join(f"{counts[verdict]} {name}" for verdict, name in names.items() if counts[verdict]))
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["verdict"] != "ok":
            reasons.setdefault((row["verdict"], row["reason"]), []).append(str(row["run_id"]))
    for (verdict, reason), runs in sorted(reasons.items(), key=lambda item: -len(item[1])):
        which = ", ".join(runs[:FIRST]) + (f" and {len(runs) - FIRST} more" if len(runs) > FIRST else "")
        say(f"{names[verdict]}: {reason} (run{'s' if len(runs) > 1 else ''} {which})")


def _change(row: Row) -> str:
    field = row["field"]
    if row["before"] is None:
        return f"+ {field}: {_value(row['after'])}"
    if row["after"] is None:
        return f"- {field}: {_value(row['before'])}"
    return f"~ {field}: {_value(row['before'])} → {_value(row['after'])}"


def _edge(row: Row) -> str:
    port = "" if row["field"] == "next" else f" by {row['field']}"
    return f"{'+' if row['kind'] == 'edge_added' else '-'} {row['node_id']} → {row['after'] or row['before']}{port}"


def _value(value: Any) -> str:
    return cell(value) if isinstance(value, str) else cell(json.dumps(value, ensure_ascii=False))
