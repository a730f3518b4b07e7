"""Small documents for the tests of the compiler."""

from __future__ import annotations

import itertools
from typing import Any

from stellwerk.definition.compile import Compiled, compile_workflow
from stellwerk.definition.problems import Problem

START = {"id": "start", "type": "trigger.manual"}


def log(name: str, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "log.write", "config": {"message": message}, **more}


def when(name: str, condition: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "logic.if", "config": {"condition": condition}, **more}


def node(name: str, kind: str, **config: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "config": config}


def edges(text: str) -> list[dict[str, Any]]:
    """`start>a a:true>b` as edges."""
    result = []
    for word in text.split():
        source, target = word.split(">")
        name, _, port = source.partition(":")
        result.append({"from": name, **({"port": port} if port else {}), "to": target})
    return result


def document(*nodes: dict[str, Any], ways: str | None = None, **more: Any) -> dict[str, Any]:
    """A document of a manual trigger and these nodes, in a row unless `ways` says otherwise."""
    names = ["start", *(node["id"] for node in nodes)]
    ways = " ".join(f"{a}>{b}" for a, b in itertools.pairwise(names)) if ways is None else ways
    return {"slug": "test", "nodes": [START, *nodes], "edges": edges(ways), **more}


def problem(compiled: Compiled, code: str) -> Problem:
    """The one problem with that code."""
    found = [item for item in compiled.problems if item.code == code]
    assert len(found) == 1, compiled.problems
    return found[0]


def plan(value: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The plan of a document without problems, by node."""
    compiled = compile_workflow(value)
    assert not compiled.problems, compiled.problems
    return {row["node_id"]: row for row in compiled.plan}
