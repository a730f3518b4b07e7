"""Makes a document on which engine and reference differ as small as it goes.

Hypothesis draws the documents, and many of them are played in the engine at a time; when one of them fails, what is left
out of it step by step is the document itself, so that what remains can be put into a regression test as it stands.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

Document = dict[str, Any]


def smallest(document: Document, still_wrong: Callable[[Document], bool], tries: int = 400) -> Document:
    """The document without everything that can be left out while it is still wrong."""
    shrunk = True
    while shrunk:
        shrunk = False
        for candidate in simpler(document):
            tries -= 1
            if tries < 0:
                return document
            if still_wrong(candidate):
                document, shrunk = candidate, True
                break
    return document


def simpler(document: Document) -> Iterator[Document]:
    """Documents that are a little simpler, the boldest first."""
    for place, node in enumerate(document["nodes"]):
        if node["type"].startswith("trigger."):
            continue
        rest = [other for other in document["nodes"] if other is not node]
        edges = [edge for edge in document["edges"] if node["id"] not in (edge["from"], edge["to"])]
        yield {**document, "nodes": rest, "edges": edges}
        # What came before the node goes on to what came after it.
        after = [edge["to"] for edge in document["edges"] if edge["from"] == node["id"] and edge["to"] != node["id"]]
        before = [edge for edge in document["edges"] if edge["to"] == node["id"] and edge["from"] != node["id"]]
        joined = [{**edge, "to": target} for edge in before for target in after]
        yield {**document, "nodes": rest, "edges": edges + [edge for edge in joined if edge not in edges]}
        if node["type"] != "logic.transform":
            plain = {"id": node["id"], "type": "logic.transform", "config": {"output": 1}}
            nodes = [*document["nodes"]]
            nodes[place] = plain
            yield {**document, "nodes": nodes}
    for place in range(len(document["edges"])):
        yield {**document, "edges": document["edges"][:place] + document["edges"][place + 1 :]}
    for place, node in enumerate(document["nodes"]):
        for key in node.keys() - {"id", "type", "config"}:
            yield replaced(document, place, {other: value for other, value in node.items() if other != key})
        for key, value in node.get("config", {}).items():
            config = {other: kept for other, kept in node["config"].items() if other != key}
            yield replaced(document, place, {**node, "config": config})
            if isinstance(value, list) and value:
                yield replaced(document, place, {**node, "config": {**config, key: value[1:]}})
            if key == "output" and value != 1:
                yield replaced(document, place, {**node, "config": {"output": 1}})


def replaced(document: Document, place: int, node: dict[str, Any]) -> Document:
    changed = copy.copy(document["nodes"])
    changed[place] = node
    return {**document, "nodes": changed}
