"""What the ways through a workflow must fulfil: edges that lead somewhere, cycles that can be left, loops that keep
their body, and expressions that read what can have happened before."""

from __future__ import annotations

from dataclasses import dataclass

from stellwerk.definition.document import Edge, Node
from stellwerk.definition.graph import Graph, Way
from stellwerk.definition.node_types import NodeType
from stellwerk.definition.places import Found
from stellwerk.definition.problems import Problems, did_you_mean


@dataclass
class Checks:
    """The nodes of one document by id, with their types (known ones only) and paths."""

    nodes: dict[str, Node]
    kinds: dict[str, NodeType]
    places: dict[str, str]
    problems: Problems

    def graph(self, edges: list[Edge], places: list[str]) -> Graph:
        """The graph of the edges that make sense; the others are told."""
        ways: list[Way] = []
        taken: set[tuple[str, str, str]] = set()
        for edge, place in zip(edges, places, strict=True):
            good = True
            for end, name in (("from", edge.from_), ("to", edge.to)):
                if name not in self.nodes:
                    good = False
                    self.problems.add(
                        f"{place}.{end}",
                        "unknown_node",
                        f"The edge {'begins' if end == 'from' else 'ends'} at {name[:60]!r}, which is not a node.",
                        hint=did_you_mean(name, self.nodes, listing="There are"),
                    )
            if edge.to in self.kinds and self.kinds[edge.to].runs_in == "trigger":
                good = False
                self.problems.add(
                    f"{place}.to",
                    "edge_to_trigger",
                    f"The edge leads to {edge.to}, which is a trigger.",
                    node=edge.to,
                    hint="Lead it to the node after the trigger.",
                )
            if edge.from_ in self.kinds:
                good = self.check_port(edge.from_, edge.port, place) and good
            if (edge.from_, edge.port, edge.to) in taken:
                good = False
                self.problems.add(
                    place,
                    "duplicate_edge",
                    f"There are two edges from {edge.from_} by {edge.port} to {edge.to}.",
                    node=edge.from_,
                    hint="Remove one of them.",
                )
            taken.add((edge.from_, edge.port, edge.to))
            if good:
                ways.append(Way(edge.from_, edge.port, edge.to, place))
        triggers = [name for name in self.nodes if name in self.kinds and self.kinds[name].runs_in == "trigger"]
        loops = frozenset(name for name, kind in self.kinds.items() if kind.type == "logic.loop")
        return Graph(list(self.nodes), triggers, ways, loops)

    def ports(self, name: str) -> tuple[str, ...]:
        kind = self.kinds[name]
        return kind.ports_for(self.nodes[name].config)

    def check_port(self, name: str, port: str, place: str) -> bool:
        kind = self.kinds[name]
        ports = self.ports(name)
        known = ports if kind.runs_in == "trigger" or kind.type == "logic.stop" else (*ports, "error")
        if port in known:
            return True
        if kind.type == "logic.switch" and f"case:{port}" in known:
            hint: str | None = f"Write case:{port}."
        else:
            hint = did_you_mean(port, known, listing="Its ports are") or "Nothing follows a logic.stop."
        what = "no port" if kind.ports or kind.ports_of else "no ports, so not"
        self.problems.add(f"{place}.port", "unknown_port", f"{name} has {what} {port[:60]}.", node=name, hint=hint)
        return False

    def check_graph(self, graph: Graph) -> None:
        if self.nodes and not graph.triggers and len(self.kinds) == len(self.nodes):
            self.problems.add(
                "nodes",
                "no_trigger",
                "No node starts a run.",
                hint='Add {"id": "start", "type": "trigger.manual"} and an edge from it.',
            )
        undone = {
            node.compensate
            for node in self.nodes.values()
            if node.compensate in self.nodes and node.compensate is not None
        }
        alive = graph.reachable([*graph.triggers, *undone])
        for name in self.nodes:
            if name not in alive and graph.triggers:
                self.problems.add(
                    self.places[name],
                    "unreachable",
                    f"No way leads from a trigger to {name}.",
                    node=name,
                    hint="Add an edge to it, or remove it.",
                )
        for knot in graph.knots():
            self.check_knot(graph, knot)
        for loop in graph.loops:
            self.check_loop(graph, loop)
        for name, node in self.nodes.items():
            routed = any(way.port == "error" for way in graph.out[name])
            if node.on_error == "route" and not routed:
                self.problems.add(
                    f"{self.places[name]}.on_error",
                    "route_without_edge",
                    f"{name} routes its errors, but no edge leaves it by the port error.",
                    node=name,
                    hint=f'Add {{"from": "{name}", "port": "error", "to": …}}, or choose fail or continue.',
                )
            elif node.on_error in ("fail", "continue") and routed:
                self.problems.add(
                    f"{self.places[name]}.on_error",
                    "unused_edge",
                    f"The edge from {name} by error is never taken, because on_error is {node.on_error}.",
                    node=name,
                    hint="Set on_error to route, or remove the edge.",
                    severity="warning",
                )

    def check_knot(self, graph: Graph, knot: list[str]) -> None:
        """A token in a knot must be able to leave: by a port of which no edge stays inside, or by one without any
        edge."""
        inside = set(knot)
        for name in knot:
            if name not in self.kinds:
                return
            staying = {way.port for way in graph.out[name] if way.target in inside}
            if any(port not in staying for port in self.ports(name)):
                return
        self.problems.add(
            self.places[knot[0]],
            "endless_cycle",
            f"Nothing ever leaves the cycle {' → '.join([*knot[:8], *(['…'] if len(knot) > 8 else [])])}.",
            node=knot[0],
            hint="Let a logic.if in it decide when to go on.",
        )

    def check_loop(self, graph: Graph, loop: str) -> None:
        body = graph.body(loop)
        entries = frozenset(way for way in graph.out[loop] if way.port == "each")
        outside = graph.reachable(graph.triggers, without=entries)
        for way in graph.ways:
            if (
                way.target in body
                and way.target in outside
                and (way in entries or (way.source in body and way.source not in outside))
            ):
                self.problems.add(
                    way.place,
                    "leaves_loop",
                    f"The edge from {way.source} to {way.target} leaves the loop {loop}.",
                    node=way.source,
                    hint=f"Lead it back to {loop}, or end it; what comes after the loop follows the port done.",
                )

    def check_references(self, graph: Graph, found: dict[str, list[Found]]) -> None:
        variables = self.variables()
        loops = graph.innermost_loops()
        undone = {node.compensate for node in self.nodes.values()}
        for name, items in found.items():
            before = graph.before(name)
            for item in items:
                root, *rest = item.reference.path
                if root == "steps":
                    self.check_step(name, rest[0], item, before, name in undone)
                elif root in ("item", "index") and name not in loops:
                    self.problems.add(
                        item.place,
                        "not_in_loop",
                        f"{root} exists only within a loop.",
                        node=name,
                        position=item.position(0),
                        hint="Lead the port each of a logic.loop to this node.",
                    )
                elif root == "vars" and rest and rest[0] not in variables:
                    self.problems.add(
                        item.place,
                        "unknown_variable",
                        f"No node sets the variable {rest[0][:60]}.",
                        node=name,
                        position=item.position(1),
                        hint=did_you_mean(rest[0], variables) or "Set it with logic.set; until then it is null.",
                        severity="warning",
                    )

    def check_step(self, name: str, step: str, item: Found, before: set[str], is_undo: bool) -> None:
        if step not in self.nodes:
            self.problems.add(
                item.place,
                "unknown_step",
                f"There is no node {step[:60]!r}.",
                node=name,
                position=item.position(1),
                hint=did_you_mean(step, self.nodes, listing="There are"),
            )
        elif step not in before and not is_undo:
            self.problems.add(
                item.place,
                "not_upstream",
                f"{step} never runs before {name}, so its output is always null here.",
                node=name,
                position=item.position(1),
                hint=f"Read a node that comes before {name}.",
                severity="warning",
            )

    def variables(self) -> set[str]:
        names: set[str] = set()
        for name, kind in self.kinds.items():
            values = self.nodes[name].config.get("values")
            if kind.type == "logic.set" and isinstance(values, dict):
                names |= set(values)
        return names
