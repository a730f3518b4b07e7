"""A workflow document compiled: the normalised document, all of its problems at once, and the plan that the engine
reads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from stellwerk.definition.catalog import node_type, type_names
from stellwerk.definition.checks import Checks
from stellwerk.definition.decoding import MAX_BYTES, check_values, decode
from stellwerk.definition.document import Draft, Node, Retry, collect, read_document
from stellwerk.definition.graph import Graph
from stellwerk.definition.node_checks import LATER, check_node, schedule_fields, timeout_of
from stellwerk.definition.node_types import NodeType
from stellwerk.definition.places import Found, Places, normalise_config, plain_settings, reads_of
from stellwerk.definition.problems import Problem, Problems, did_you_mean
from stellwerk.definition.schemas import schema_faults, with_order
from stellwerk.definition.trigger_when import when_faults
from stellwerk.definition.workflow_settings import KEY, ConcurrencyKey, StatusSet, check_case_statuses, check_settings

MAX_EXPRESSIONS = 5000


@dataclass(frozen=True, slots=True)
class Compiled:
    """What became of a document. With an error among the problems it can be saved as a draft, but not published."""

    document: dict[str, Any]
    problems: list[Problem]
    plan: list[dict[str, Any]]

    @property
    def is_publishable(self) -> bool:
        return not any(problem.severity == "error" for problem in self.problems)


def compile_workflow(document: dict[str, Any] | str | bytes) -> Compiled:
    """Compiles a document, given as a value or as JSON text. Never raises for what the document holds."""
    problems = Problems()
    value: Any = document
    if isinstance(document, (str, bytes)):
        value = decode(document, problems)
    else:
        check_values(value, problems)
    if not problems.found:
        check_size(json.dumps(value, ensure_ascii=False), problems)
    if problems.found:
        return Compiled({}, problems.found, [])
    draft = read_document(value, problems)
    compiler = Compiler(draft, problems)
    plan = compiler.compile()
    return Compiled(draft.raw, problems.found, plan)


def check_size(text: str, problems: Problems) -> None:
    if len(text.encode()) > MAX_BYTES:
        hint = "Keep data in tables; a document holds only the workflow."
        problems.add("", "too_large", "The document is larger than 1 MB.", hint=hint)
    elif text.count("{{") > MAX_EXPRESSIONS:
        message = f"The document has {text.count('{{')} expressions; {MAX_EXPRESSIONS} are allowed."
        problems.add("", "too_many", message, hint="Split it into several workflows.")


@dataclass
class Compiler:
    """Holds what the checks of one document share."""

    draft: Draft
    problems: Problems
    kinds: dict[str, NodeType] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    key: ConcurrencyKey | None = None
    """The concurrency key, which every trigger's row carries."""
    statuses: StatusSet = field(default_factory=StatusSet)

    def compile(self) -> list[dict[str, Any]]:
        self.check_settings()
        rows: dict[str, dict[str, Any]] = {}
        found: dict[str, list[Found]] = {}
        for number, (node, place, raw) in enumerate(
            zip(self.draft.nodes, self.draft.node_places, self.draft.raw_nodes, strict=True)
        ):
            if node.id in self.nodes:
                first = self.places[node.id]
                self.problems.add(
                    f"{place}.id",
                    "duplicate_id",
                    f"There are two nodes with the id {node.id}.",
                    node=node.id,
                    hint=f"The other one is {first}.",
                )
                continue
            self.nodes[node.id], self.places[node.id] = node, place
            kind = self.kind_of(node, place)
            if kind is None:
                continue
            self.kinds[node.id] = kind
            rows[node.id], found[node.id] = self.compile_node(number, node, raw, kind, place)
        checks = Checks(self.nodes, self.kinds, self.places, self.problems)
        graph = checks.graph(self.draft.edges, self.draft.edge_places)
        checks.check_graph(graph)
        checks.check_references(graph, found)
        return self.finish(rows, graph)

    # The document's own settings

    def check_settings(self) -> None:
        raw = self.draft.raw
        schema = raw.get("input_schema")
        if isinstance(schema, dict):
            for fault in schema_faults(schema):
                self.problems.add(
                    f"input_schema.{fault.path}".rstrip("."), "bad_schema", fault.message, hint=fault.hint
                )
        self.key = check_settings(raw.get("settings"), self.problems)
        self.statuses = check_case_statuses(raw.get("settings"), self.problems)

    # Nodes

    def kind_of(self, node: Node, place: str) -> NodeType | None:
        try:
            kind = node_type(node.type)
        except Exception as error:  # a third party's module, which may fail in any way
            self.problems.add(
                f"{place}.type", "broken_type", f"The node type {node.type} cannot be loaded: {error}.", node=node.id
            )
            return None
        if kind is None:
            self.problems.add(
                f"{place}.type",
                "unknown_type",
                f"There is no node type {node.type!r}.",
                node=node.id,
                hint=did_you_mean(node.type, type_names()) or "docs/workflow-document.md lists the node types.",
            )
        elif not kind.executable:
            self.problems.add(
                f"{place}.type",
                LATER,
                f"The node {node.id} cannot run yet: {node.type} is not available in this release.",
                node=node.id,
                hint="The document can be saved as a draft; publish it after an upgrade.",
            )
        return kind

    def compile_node(
        self, number: int, node: Node, raw: dict[str, Any], kind: NodeType, place: str
    ) -> tuple[dict[str, Any], list[Found]]:
        config = raw.get("config")
        config = config if isinstance(config, dict) else {}
        normalise_config(config, kind, f"{place}.config", node.id, self.problems)
        config |= {key: with_order(config[key]) for key in kind.fields("schema") if key in config}
        model = collect(
            kind.config, config, f"{place}.config", self.problems, node=node.id, context={"templates": True}
        )
        settings = dict(plain_settings(model, config))
        timeout = timeout_of(settings, kind, place, node, self.problems)
        places = Places(node.id, self.problems)
        static = self.static_settings(settings, kind, place, places)
        condition, cases = self.conditions(settings, kind, place, places)
        check_node(settings, kind, place, node, self.problems)
        if kind.group == "Backoffice":
            for name in ("status", "status_complete", "status_missing"):
                self.statuses.check(config.get(name), f"{place}.config.{name}", node.id, self.problems)
        retry = node.retry or Retry()
        reads = reads_of(places.found)
        if kind.type == "sql.function":  # its second argument is the context
            reads = {
                **reads,
                "trigger": list(dict.fromkeys([*reads.get("trigger", []), "payload", "source"])),
                "vars": True,
                "run": True,
            }
        if kind.type == "trigger.schedule":
            static = {**static, "fields": schedule_fields(settings)}
        if kind.runs_in == "trigger" and self.key is not None:
            static = {**static, KEY: self.key.static}
            places.dynamic += self.key.places.dynamic
            places.may_raise = places.may_raise or self.key.places.may_raise
            reads = reads_of([*places.found, *self.key.places.found])
        row = {
            "node_id": node.id,
            "position": number,
            "type": node.type,
            "runs_in": kind.runs_in,
            "executable": kind.executable,
            "config": static,
            "dynamic": places.dynamic,
            "condition": condition,
            "cases": cases,
            "reads": reads,
            "max_attempts": retry.max_attempts or kind.max_attempts,
            "retry": {
                "interval": retry.interval,
                "backoff": retry.backoff,
                "max_interval": retry.max_interval,
                "jitter": retry.jitter,
            },
            "timeout": timeout,
            "compensate": node.compensate,
            "max_visits": node.max_visits,
            "may_raise": kind.may_raise or kind.alone_for(settings) or places.may_raise,
            "alone": kind.alone_for(settings),
        }
        return row, places.found

    def static_settings(self, settings: dict[str, Any], kind: NodeType, place: str, places: Places) -> dict[str, Any]:
        """The settings with null at dynamic places; conditions stay as they are written, for people."""
        conditions, literals = kind.fields("condition"), kind.fields("literal")
        return {
            key: value
            if key in conditions
            else places.walk(value, f"{place}.config.{key}", [key], literal=key in literals)
            for key, value in settings.items()
        }

    def conditions(
        self, settings: dict[str, Any], kind: NodeType, place: str, places: Places
    ) -> tuple[dict[str, Any] | None, list[dict[str, Any]] | None]:
        if kind.type == "trigger.row":
            when = settings.get("when")
            operations = settings.get("on")
            if isinstance(when, str):
                for fault in when_faults(when, operations if isinstance(operations, list) else ()):
                    self.problems.add(
                        f"{place}.config.when",
                        fault.code,
                        fault.message,
                        node=places.node,
                        position=fault.position,
                        hint=fault.hint,
                    )
            return None, None
        if kind.type == "logic.switch":
            return None, self.cases(settings, place, places)
        for key in sorted(kind.fields("condition")):
            if isinstance(settings.get(key), str):
                return places.condition(settings[key], f"{place}.config.{key}"), None
        return None, None

    def cases(self, settings: dict[str, Any], place: str, places: Places) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = []
        given = settings.get("cases")
        for number, case in enumerate(given if isinstance(given, list) else []):
            if (
                not isinstance(case, dict)
                or not isinstance(case.get("port"), str)
                or not isinstance(case.get("when"), str)
            ):
                continue
            port = f"case:{case['port']}"
            at = f"{place}.config.cases[{number}]"
            if any(other["port"] == port for other in result):
                self.problems.add(
                    f"{at}.port",
                    "duplicate_port",
                    f"There are two cases with the port {case['port']}.",
                    node=places.node,
                    hint="Join their conditions with or.",
                )
            result.append({"port": port, **places.condition(case["when"], f"{at}.when")})
        return result

    # The plan

    def finish(self, rows: dict[str, dict[str, Any]], graph: Graph) -> list[dict[str, Any]]:
        """The rows with what the graph says about their nodes."""
        cyclic, loops = graph.cyclic(), graph.around
        for name, row in rows.items():
            edges: dict[str, list[str]] = {}
            for way in graph.written[name]:
                # A port of which edges only end the iteration stays there without targets: a token ends by it.
                targets = edges.setdefault(way.port, [])
                if way not in graph.ends:
                    targets.append(way.target)
            forward = {trigger: graph.forward_ways(name, trigger) for trigger in graph.triggers}
            joins = row["type"] == "logic.join" or any(count > 1 for count in forward.values())
            scope = {other for other in self.nodes if loops.get(other) == loops.get(name)} if loops else None
            row.update(
                edges=edges,
                joins=joins,
                upstream={trigger: graph.upstream(name, trigger, scope) for trigger, count in forward.items() if count}
                if joins
                else {},
                cyclic=name in cyclic,
                loop_node=loops.get(name),
                on_error=self.nodes[name].on_error or ("route" if "error" in edges else "fail"),
            )
        return list(rows.values())
