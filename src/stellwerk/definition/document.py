"""The workflow document: its shape, and reading it so that every problem is told and as much as possible is still
checked."""

from __future__ import annotations

import copy
import itertools
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stellwerk.definition.node_types import NODE_ID, SLUG, Duration
from stellwerk.definition.problems import Problems, did_you_mean

MAX_NODES = 500
MAX_EDGES = 2000


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Retry(Part):
    """How often and after what pauses a failed attempt is repeated."""

    max_attempts: Annotated[int, Field(ge=1, le=1000)] | None = None
    interval: Duration = "PT2S"
    backoff: Annotated[float, Field(ge=1, le=100)] = 2
    max_interval: Duration = "PT5M"
    jitter: bool = True


class Position(Part):
    """Where the builder draws a node."""

    x: float = 0
    y: float = 0


class Node(Part):
    """One place of a workflow. `config` is checked against the node type's own model."""

    id: Annotated[str, Field(pattern="^" + NODE_ID.pattern.replace(r"\Z", "$"))]
    type: Annotated[str, Field(min_length=1, max_length=100)]
    name: Annotated[str, Field(max_length=200)] | None = None
    description: Annotated[str, Field(max_length=10_000)] | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    retry: Retry | None = None
    timeout: Duration | None = None
    on_error: Literal["fail", "continue", "route"] | None = None
    compensate: str | None = None
    max_visits: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    ui: Position | None = None


class Edge(Part):
    """One way from a node's port to the next node."""

    from_: Annotated[str, Field(alias="from", max_length=100)]
    port: Annotated[str, Field(min_length=1, max_length=100)] = "next"
    to: Annotated[str, Field(max_length=100)]


_SECONDS = {"Y": 31_536_000, "W": 604_800, "D": 86_400, "H": 3_600, "S": 1}


def check_span(text: str) -> str:
    """A length of time between the starts of runs: more than nothing, at most a year."""
    date, _, clock = text.partition("T")
    units = {**_SECONDS, "M": 2_592_000}, {**_SECONDS, "M": 60}
    total = 0.0
    for part, by in zip((date, clock), units, strict=True):
        total += sum(float(number) * by[unit] for number, unit in _PARTS.findall(part))
    if not 0 < total <= _SECONDS["Y"]:
        raise ValueError("must be more than nothing and at most a year, such as PT30S or P1D")
    return text


_PARTS = re.compile(r"([0-9.]+)([YMWDHS])")
Span = Annotated[Duration, AfterValidator(check_span)]


class CaseStatus(Part):
    """A status that the workflow's cases may have."""

    status: Annotated[str, Field(min_length=1, max_length=100)]
    label: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    color: Literal["grey", "blue", "green", "yellow", "orange", "red", "purple"] = "grey"
    final: bool = False
    next: list[str] | None = None


class Settings(Part):
    """Settings of the whole workflow."""

    max_running: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    concurrency_key: str | None = None
    on_conflict: Literal["queue", "skip", "replace"] | None = None
    debounce: Span | None = None
    throttle: Span | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    timeout: Duration | None = None
    retention: Duration | None = None
    payment_days: Annotated[int, Field(ge=0, le=3650)] | None = None
    valid_days: Annotated[int, Field(ge=0, le=3650)] | None = None
    case_statuses: Annotated[list[CaseStatus], Field(min_length=1, max_length=50)] | None = None


class Workflow(Part):
    """A whole document with nodes and edges."""

    slug: Annotated[str, Field(pattern="^" + SLUG.pattern.replace(r"\Z", "$"))]
    name: Annotated[str, Field(max_length=200)] | None = None
    description: Annotated[str, Field(max_length=10_000)] | None = None
    input_schema: dict[str, Any] | None = None
    settings: Settings = Settings()
    nodes: list[Node]
    edges: list[Edge] = Field(default_factory=list)


@dataclass
class Draft:
    """A document as far as it could be read. `places` are the paths of the nodes and edges for messages."""

    raw: dict[str, Any]
    """The document with `steps` unfolded, otherwise as it was written."""
    nodes: list[Node] = field(default_factory=list)
    node_places: list[str] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    edge_places: list[str] = field(default_factory=list)
    raw_nodes: list[dict[str, Any]] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)


def read_document(value: Any, problems: Problems) -> Draft:
    """Reads a decoded document part by part, so that one bad part does not hide the others."""
    if not isinstance(value, dict):
        problems.add(
            "", "bad_type", "A workflow document must be an object.", hint='It begins with {"slug": …, "nodes": […]}.'
        )
        return Draft({})
    raw = copy.deepcopy(value)
    unfold_steps(raw, problems)
    draft = Draft(raw)
    frame = {key: part for key, part in raw.items() if key not in ("nodes", "edges", "settings", "_places")}
    collect(Workflow, {**frame, "nodes": []}, "", problems)
    settings = collect(Settings, raw.get("settings", {}), "settings", problems)
    draft.settings = settings if isinstance(settings, Settings) else Settings()
    places = raw.pop("_places", None)
    read_nodes(raw, places, draft, problems)
    read_edges(raw, places, draft, problems)
    return draft


def read_nodes(raw: dict[str, Any], places: list[str] | None, draft: Draft, problems: Problems) -> None:
    nodes = raw.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        if "nodes" in raw and not isinstance(nodes, list):
            problems.add("nodes", "bad_type", "nodes must be a list.")
        else:
            problems.add(
                "nodes",
                "missing_key",
                "The document has no nodes.",
                hint='Begin with a trigger: {"id": "start", "type": "trigger.manual"}.',
            )
        return
    if len(nodes) > MAX_NODES:
        problems.add(
            "nodes",
            "too_many",
            f"The document has {len(nodes)} nodes; {MAX_NODES} are allowed.",
            hint="Split it into several workflows.",
        )
        return
    for number, item in enumerate(nodes):
        place = places[number] if places else f"nodes[{number}]"
        name = item.get("id") if isinstance(item, dict) and isinstance(item.get("id"), str) else None
        node = collect(Node, item, place, problems, node=name)
        if isinstance(node, Node):
            draft.nodes.append(node)
            draft.node_places.append(place)
            draft.raw_nodes.append(item)


def read_edges(raw: dict[str, Any], places: list[str] | None, draft: Draft, problems: Problems) -> None:
    if not draft.nodes:
        return  # told already, and every edge would be told again
    edges = raw.get("edges", [])
    if not isinstance(edges, list):
        problems.add("edges", "bad_type", "edges must be a list.")
        return
    if len(edges) > MAX_EDGES:
        problems.add("edges", "too_many", f"The document has {len(edges)} edges; {MAX_EDGES} are allowed.")
        return
    for number, item in enumerate(edges):
        place = places[number + 1] if places and number + 1 < len(places) else f"edges[{number}]"
        edge = collect(Edge, item, place, problems)
        if isinstance(edge, Edge):
            draft.edges.append(edge)
            draft.edge_places.append(place)


def unfold_steps(raw: dict[str, Any], problems: Problems) -> None:
    """`steps`, a plain sequence, as nodes and edges. Without a trigger in front, one for a manual start is put
    there."""
    if "steps" not in raw:
        return
    steps = raw.pop("steps")
    if "nodes" in raw or "edges" in raw:
        problems.add(
            "steps", "conflict", "A document has either steps, or nodes and edges.", hint="Remove one of them."
        )
        return
    if not isinstance(steps, list) or not steps:
        problems.add("steps", "bad_type", "steps must be a list with at least one step.")
        raw["nodes"], raw["edges"] = [], []
        return
    nodes = [
        {"id": f"step_{number + 1}", **step} if isinstance(step, dict) else step for number, step in enumerate(steps)
    ]
    places = [f"steps[{number}]" for number in range(len(steps))]
    kind = nodes[0].get("type") if isinstance(nodes[0], dict) else None
    if not (isinstance(kind, str) and kind.startswith("trigger.")):
        taken = {node.get("id") for node in nodes if isinstance(node, dict)}
        name = next(
            name
            for name in ("start", "started", "manual_start", *(f"start_{n}" for n in range(len(nodes))))
            if name not in taken
        )
        nodes.insert(0, {"id": name, "type": "trigger.manual"})
        places.insert(0, "steps")
    edges = []
    for before, after in itertools.pairwise(nodes):
        if isinstance(before, dict) and isinstance(after, dict):
            port = {"logic.if": "true", "logic.loop": "done"}.get(str(before.get("type")), "next")
            edges.append(
                {"from": before.get("id"), **({} if port == "next" else {"port": port}), "to": after.get("id")}
            )
    raw["nodes"], raw["edges"], raw["_places"] = nodes, edges, places


def collect(
    model: type[BaseModel], value: Any, place: str, problems: Problems, *, node: str | None = None, context: Any = None
) -> BaseModel | None:
    """Validates a part; its faults become problems, and what is left without the faulty keys is validated again."""
    try:
        return model.model_validate(value, context=context)
    except ValidationError as error:
        faults = error.errors(include_url=False)
    tops: set[Any] = set()
    templates = bool((context or {}).get("templates"))
    for fault in faults:
        tops.add(fault["loc"][0] if fault["loc"] else None)
        # A value that is only known in a run cannot be judged now.
        if not (templates and fault["type"] != "extra_forbidden" and is_template(fault["input"])):
            tell(model, value, fault, place, problems, node)
    if not isinstance(value, dict) or None in tops:
        return None
    try:
        return model.model_validate({key: part for key, part in value.items() if key not in tops}, context=context)
    except ValidationError:
        return None


MESSAGES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}
HINTS = {
    "id": "Node ids are lower-case letters, digits and underscores, beginning with a letter.",
    "slug": "Slugs are lower-case letters, digits and hyphens, beginning with a letter.",
    "port": "Lower-case letters, digits and underscores, beginning with a letter.",
}


def tell(model: type[BaseModel], value: Any, fault: Any, place: str, problems: Problems, node: str | None) -> None:
    """One of pydantic's faults in our words."""
    kind, context = fault["type"], fault.get("ctx", {})
    location = written_location(fault["loc"], value, keep_last=kind == "missing")
    path = place
    for part in location:
        path = f"{path}[{part}]" if isinstance(part, int) else (f"{path}.{part}" if path else part)
    name = next((part for part in reversed(location) if isinstance(part, str)), "it")
    hint: str | None = None
    code = "bad_value"
    if kind == "extra_forbidden":
        known = [info.alias or key for key, info in model.model_fields.items()]
        if len(location) > 1:
            known = []
        code, message = "unknown_key", f"There is no setting {str(fault['loc'][-1])[:60]!r} here."
        hint = did_you_mean(str(fault["loc"][-1]), known, listing="There are") if known else "Remove it."
        path = (
            path
            if location and location[-1] == fault["loc"][-1]
            else f"{path}.{str(fault['loc'][-1])[:60]}".lstrip(".")
        )
    elif kind == "missing":
        code, message, hint = "missing_key", f"{name} is missing.", f"Add {name}."
    elif kind == "literal_error":
        message, hint = f"{name} cannot be {short(fault['input'])}.", f"It is one of {context.get('expected')}."
        hint = did_you_mean(str(fault["input"]), re.findall(r"'([^']*)'", str(context.get("expected")))) or hint
    elif kind == "string_pattern_mismatch":
        message, hint = (
            f"{name} cannot be {short(fault['input'])}.",
            HINTS.get(name, f"It must match {context.get('pattern')}."),
        )
    elif kind == "value_error":
        text = str(context.get("error", fault["msg"]))
        message = f"{name} {text}." if text.startswith("must ") else f"{text[:1].upper()}{text[1:]}."
    elif kind in MESSAGES:
        code, message = "bad_type", f"{name if location else 'It'} {MESSAGES[kind]}."
    elif kind in ("too_short", "string_too_short"):
        message = f"{name} must not be empty."
    else:
        text = fault["msg"].replace("Input should be ", "must be ").replace("Value should ", "must ")
        message = f"{name} {text[:1].lower()}{text[1:]}."
    problems.add(path, code, message, node=node, hint=hint)


def is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def written_location(location: tuple[int | str, ...], value: Any, keep_last: bool) -> list[int | str]:
    """The keys and numbers of pydantic's location that stand in the document; branches of a union do not."""
    found: list[int | str] = []
    for number, part in enumerate(location):
        inside = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if inside:
            value = value[part]
        if inside or (keep_last and number == len(location) - 1):
            found.append(part)
    return found


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
