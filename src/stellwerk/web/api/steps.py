"""`/api/workflows/{slug}/steps`: the nodes of a document one by one, for whoever does not want to send all of it."""

from __future__ import annotations

from typing import Any

from litestar import Response
from pydantic import Field

from stellwerk.errors import UnknownThing, UnknownWorkflow
from stellwerk.web import exchange
from stellwerk.web.api import definitions
from stellwerk.web.api.definitions import Workflow
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Asked, Given, Refused, Shown, answer


class Step(Shown):
    """A node of the document and where it leads."""

    id: str
    type: str
    name: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    then: list[dict[str, Any]] = Field(description="The edges that leave it: port and to.")


class Steps(Shown):
    """The nodes of the newest document, in its order."""

    version: int
    items: list[Step]


class NewStep(Given):
    """A node to be put in."""

    id: str = Field(max_length=63)
    type: str = Field(max_length=100)
    name: str | None = Field(default=None, max_length=200)
    config: dict[str, Any] = Field(default_factory=dict)
    after: str | None = Field(default=None, max_length=63, description="Behind this node; without it, at the end.")
    port: str = Field(default="next", max_length=100, description="By which port of that node.")


class ChangedStep(Given):
    """What a node is from now on; its edges stay."""

    type: str = Field(max_length=100)
    name: str | None = Field(default=None, max_length=200)
    config: dict[str, Any] = Field(default_factory=dict)


class Saving(Asked):
    """How the document is saved."""

    incomplete: bool = Field(default=False, description="Keep a draft that has errors; it cannot be published.")


CALL = {"type": "log.write", "config": {"message": "greeted {{ trigger.payload.name }}"}}


@exchange.get("/api/workflows/{slug:str}/steps", "List the steps of a document", Steps)
def list_steps(desk: Desk, slug: str) -> Response[bytes]:
    """The nodes of the newest document; the ETag is the document's."""
    with desk.engine() as engine:
        row = definitions.workflow_of(engine, slug)
    edges = row["document"].get("edges", [])
    items = [{**node, "then": _then(edges, node["id"])} for node in _nodes(row["document"])]
    return answer(Steps, {"version": row["version"], "items": items}, headers={"etag": f'"{row["tag"]}"'})


@exchange.get("/api/workflows/{slug:str}/steps/{node_id:str}", "Read a step", Step)
def get_step(desk: Desk, slug: str, node_id: str) -> Response[bytes]:
    """One node of the newest document."""
    with desk.engine() as engine:
        row = definitions.workflow_of(engine, slug)
    found = {**_find(row["document"], node_id), "then": _then(row["document"].get("edges", []), node_id)}
    return answer(Step, found, headers={"etag": f'"{row["tag"]}"'})


@exchange.post(
    "/api/workflows/{slug:str}/steps",
    "Put a step in",
    Workflow,
    needs="design",
    takes=NewStep,
    asks=Saving,
    status=201,
    headers=("If-Match",),
    refuses=(412,),
    example={"id": "note", **CALL, "after": "greet"},
)
def add_step(desk: Desk, slug: str, given: NewStep, asked: Saving) -> Response[bytes]:
    """The node comes behind another one, and what followed that one follows it."""

    def change(document: dict[str, Any]) -> None:
        edges = document.setdefault("edges", [])
        after = given.after or _last(document)
        _find(document, after)
        for edge in edges:
            if edge.get("from") == after and edge.get("port", "next") == given.port:
                edge["from"] = given.id
                edge.pop("port", None)
        edges.append({"from": after, "to": given.id, **({} if given.port == "next" else {"port": given.port})})
        document["nodes"].append(given.model_dump(include={"id", "type", "name", "config"}, exclude_none=True))

    return _changed(desk, slug, change, asked, needed=False, status=201)


@exchange.put(
    "/api/workflows/{slug:str}/steps/{node_id:str}",
    "Replace a step",
    Workflow,
    needs="design",
    takes=ChangedStep,
    asks=Saving,
    headers=("If-Match",),
    refuses=(412, 428),
    example=CALL,
)
def replace_step(desk: Desk, slug: str, node_id: str, given: ChangedStep, asked: Saving) -> Response[bytes]:
    """The node's type, name and settings are these from now on; retries, timeouts and edges stay."""

    def change(document: dict[str, Any]) -> None:
        node = _find(document, node_id)
        node.pop("name", None)
        node.update(given.model_dump(exclude_none=True))

    return _changed(desk, slug, change, asked, needed=True)


@exchange.delete(
    "/api/workflows/{slug:str}/steps/{node_id:str}",
    "Take a step out",
    Workflow,
    needs="design",
    asks=Saving,
    headers=("If-Match",),
    refuses=(412, 428),
)
def remove_step(desk: Desk, slug: str, node_id: str, asked: Saving) -> Response[bytes]:
    """What led to the node leads to what followed it by `next`."""

    def change(document: dict[str, Any]) -> None:
        document["nodes"].remove(_find(document, node_id))
        edges = document.get("edges", [])
        following = [e["to"] for e in edges if e.get("from") == node_id and e.get("port", "next") == "next"]
        kept = [edge for edge in edges if node_id not in (edge.get("from"), edge.get("to"))]
        for edge in edges:
            if edge.get("to") == node_id and edge.get("from") != node_id:
                kept += [{**edge, "to": to} for to in following if to != node_id]
        document["edges"] = [edge for place, edge in enumerate(kept) if edge not in kept[:place]]

    return _changed(desk, slug, change, asked, needed=True)


def _changed(
    desk: Desk, slug: str, change: Any, asked: Saving, *, needed: bool, status: int | None = None
) -> Response[bytes]:
    def next_(present: dict[str, Any] | None) -> dict[str, Any]:
        if present is None:
            raise UnknownWorkflow(f"there is no workflow {slug!r}", hint="GET /api/workflows lists them.")
        change(present)
        return present

    tag = definitions.expected_tag(desk, needed=needed)
    row = definitions.saved(desk, slug, next_, tag=tag, incomplete=asked.incomplete)
    return definitions.shown(row, status=status)


def _nodes(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in document.get("nodes", []) if isinstance(node, dict) and "id" in node and "type" in node]


def _find(document: dict[str, Any], node_id: str) -> dict[str, Any]:
    for node in _nodes(document):
        if node["id"] == node_id:
            return node
    raise UnknownThing(f"there is no step {node_id!r} in this document", hint="GET …/steps lists them.")


def _then(edges: list[dict[str, Any]], node_id: str) -> list[dict[str, Any]]:
    return [{"port": edge.get("port", "next"), "to": edge["to"]} for edge in edges if edge.get("from") == node_id]


def _last(document: dict[str, Any]) -> str:
    leaving = {edge.get("from") for edge in document.get("edges", [])}
    ends = [node["id"] for node in _nodes(document) if node["id"] not in leaving]
    if len(ends) != 1:
        said = f"is needed: the document ends in {', '.join(ends) or 'a circle'}"
        raise Refused("it is not clear where the step belongs", [{"path": "after", "message": said}])
    return str(ends[0])


router = exchange.router(list_steps, get_step, add_step, replace_step, remove_step)
