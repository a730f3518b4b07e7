"""What the ways through a workflow must fulfil: edges that lead somewhere, cycles that can be left, loops that keep
their body, compensation that can be done, and expressions that read what can have happened before."""

from __future__ import annotations

from dataclasses import dataclass, field

from stellwerk.definition.document import Edge, Node
from stellwerk.definition.graph import Graph, Way
from stellwerk.definition.node_types import NodeType
from stellwerk.definition.places import Found
from stellwerk.definition.problems import Problems, did_you_mean

# These steer the run or wait for something, and so cannot undo a step.
NO_UNDOING = ("logic.loop", "logic.join", "logic.stop", "logic.wait", "logic.call")


@dataclass
class Checks:
    """The nodes of one document by id, with their types (known ones only) and paths."""

    nodes: dict[str, Node]
    kinds: dict[str, NodeType]
    places: dict[str, str]
    problems: Problems
    undoes: dict[str, list[str]] = field(default_factory=dict)
    """The nodes that only compensation runs, with those that they undo."""

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
        graph = Graph(list(self.nodes), triggers, ways, loops)
        return self.without_undoing(graph) if triggers else graph

    def without_undoing(self, graph: Graph) -> Graph:
        """The graph without the ways out of nodes that only compensation runs: it goes from one undone step to the
        next, and follows no edges. Such a node runs in the scope of the step that it undoes."""
        alive = graph.reachable(graph.triggers)
        for name, node in self.nodes.items():
            if node.compensate in self.nodes and node.compensate not in alive and node.compensate != name:
                self.undoes.setdefault(node.compensate, []).append(name)
        ways = [way for way in graph.ways if way.source not in self.undoes]
        for way in graph.ways:
            if way.source in self.undoes:
                self.problems.add(
                    way.place,
                    "unused_edge",
                    f"The edge from {way.source} to {way.target} is never followed: {way.source} only compensates.",
                    node=way.source,
                    hint="Remove it.",
                    severity="warning",
                )
        if len(ways) < len(graph.ways):
            graph = Graph(graph.nodes, graph.triggers, ways, graph.loops)
        for name, undone in self.undoes.items():
            loops = {graph.around.get(other) for other in undone}
            loop = loops.pop()
            if loop is not None and not loops:
                graph.around[name] = loop
        return graph

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
        alive = graph.reachable(graph.triggers) | set(self.undoes)
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
        # The innermost first: an edge that leaves several loops at once is told with the one that it should lead to.
        told: set[str] = set()
        place = {name: number for number, name in enumerate(self.nodes)}
        for loop in sorted(graph.loops, key=lambda name: (len(graph.body(name)), place[name])):
            self.check_loop(graph, loop, told)
        for name, node in self.nodes.items():
            self.check_compensation(name, node)
            self.check_ports(graph, name, node)
            routed = any(way.port == "error" for way in graph.written[name])
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

    def check_compensation(self, name: str, node: Node) -> None:
        if node.compensate is None:
            return
        kind = self.kinds.get(node.compensate)
        message, hint = "", None
        code = "not_applicable"
        if node.compensate not in self.nodes:
            code, message = "unknown_node", f"There is no node {node.compensate[:60]!r}."
            hint = did_you_mean(node.compensate, self.nodes)
        elif node.compensate == name:
            message, hint = f"{name} cannot undo itself.", "Name another node."
        elif name in self.kinds and self.kinds[name].runs_in == "trigger":
            message, hint = f"{name} is a trigger and does nothing that could be undone.", "Remove compensate."
        elif kind is not None and (kind.runs_in not in ("sql", "worker") or kind.type in NO_UNDOING):
            message = f"{node.compensate} cannot undo a step: {kind.type} waits or steers."
            hint = "Name a node that acts at once, such as http.request, record.update or log.write."
        if message:
            self.problems.add(f"{self.places[name]}.compensate", code, message, node=name, hint=hint)

    def check_ports(self, graph: Graph, name: str, node: Node) -> None:
        kind = self.kinds.get(name)
        if kind is None:
            return
        if kind.runs_in == "wait" and node.timeout is None and node.config.get("timeout") is None:
            for way in graph.written[name]:
                if way.port == "timeout" and kind.type != "task.user":  # whose time limit is called due
                    self.problems.add(
                        way.place,
                        "unused_edge",
                        f"The edge from {name} by timeout is never taken, because {name} has no timeout.",
                        node=name,
                        hint=f"Give {name} a timeout, such as P14D.",
                        severity="warning",
                    )
        count = node.config.get("count")
        if kind.type == "logic.join" and isinstance(count, int):
            sources = {way.source for way in graph.into[name]}
            if count > len(sources):
                self.problems.add(
                    f"{self.places[name]}.config.count",
                    "join_unsatisfied",
                    f"{name} waits for tokens of {count} nodes, but edges from only {len(sources)} lead to it.",
                    node=name,
                    hint="Lower count, or lead more nodes to it.",
                    severity="warning",
                )

    def check_knot(self, graph: Graph, knot: list[str]) -> None:
        """A token in a knot must be able to leave: by a port of which no edge stays inside, or by one without any
        edge. What a loop does within its body leads nowhere else, and a timeout without an edge is a failure."""
        inside = set(knot)
        for name in knot:
            if name not in self.kinds:
                return
            staying = {way.port for way in graph.out[name] if way.target in inside}
            used = {way.port for way in graph.written[name]}
            for port in self.ports(name):
                goes_nowhere = (port == "each" and name in graph.loops) or (port == "timeout" and port not in used)
                if port not in staying and not goes_nowhere:
                    return
        self.problems.add(
            self.places[knot[0]],
            "endless_cycle",
            f"Nothing ever leaves the cycle {' → '.join([*knot[:8], *(['…'] if len(knot) > 8 else [])])}.",
            node=knot[0],
            hint="Let a logic.if in it decide when to go on.",
        )

    def check_loop(self, graph: Graph, loop: str, told: set[str]) -> None:
        body = graph.body(loop)
        if not body:
            self.problems.add(
                self.places[loop],
                "empty_loop",
                f"The loop {loop} has no body.",
                node=loop,
                hint=f'Add {{"from": "{loop}", "port": "each", "to": …}} to the node that each item goes to.',
            )
        entries = frozenset(way for way in graph.written[loop] if way.port == "each")
        outside = graph.reachable(graph.triggers, without=entries)
        for way in graph.ways:
            into_itself = way in entries and way.target == loop and body
            if way.place in told or not (into_itself or (way.target in body and way.target in outside)):
                continue
            if into_itself:
                message = f"The edge from {loop} by each leads to {loop} itself."
                hint = "Remove it: an iteration without work ends at once."
            elif way in entries:
                message = f"{way.target} stands in the body of the loop {loop}, but can be reached from outside it too."
                hint = f"Only the port each of {loop} may lead into its body; what comes after follows the port done."
            elif way.source in body and way.source not in outside:
                message = f"The edge from {way.source} to {way.target} leaves the loop {loop}."
                hint = f"Lead it back to {loop}, or end it; what comes after the loop follows the port done."
            else:
                continue
            told.add(way.place)
            self.problems.add(way.place, "leaves_loop", message, node=way.source, hint=hint)

    def check_references(self, graph: Graph, found: dict[str, list[Found]]) -> None:
        variables = self.variables()
        for name, items in found.items():
            before = graph.before(name)
            loops = graph.loops_around(name)
            # A node that undoes several others may read the item if all of them have one.
            in_loop = bool(loops) or (name in self.undoes and all(other in graph.around for other in self.undoes[name]))
            for item in items:
                root, *rest = item.reference.path
                # What a loop collects is computed at the end of each iteration, within it.
                inside = name in graph.loops and within(item.place, f"{self.places[name]}.config.collect")
                if root == "steps" and inside:
                    body = {other for other, loop in graph.around.items() if loop == name}
                    self.check_step(graph, name, rest[0], item, before | body, [name, *loops])
                elif root == "steps":
                    self.check_step(graph, name, rest[0], item, before, loops)
                elif root in ("item", "index") and not in_loop and not inside:
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

    def check_step(self, graph: Graph, name: str, step: str, item: Found, before: set[str], loops: list[str]) -> None:
        if step not in self.nodes:
            self.problems.add(
                item.place,
                "unknown_step",
                f"There is no node {step[:60]!r}.",
                node=name,
                position=item.position(1),
                hint=did_you_mean(step, self.nodes, listing="There are"),
            )
            return
        if name in self.undoes:  # its run is over, and anything may have run
            return
        loop = graph.around.get(step)
        if loop is not None and loop not in loops:
            message = f"{step} runs within the loop {loop}, so its output is always null here."
            hint = f"Read steps.{loop}.output.items; collect of {loop} says what stands in it."
        elif step not in before:
            message = f"{step} never runs before {name}, so its output is always null here."
            hint = f"Read a node that comes before {name}."
        else:
            return
        self.problems.add(
            item.place,
            "not_upstream",
            message,
            node=name,
            position=item.position(1),
            hint=hint,
            severity="warning",
        )

    def variables(self) -> set[str]:
        names: set[str] = set()
        for name, kind in self.kinds.items():
            values = self.nodes[name].config.get("values")
            if kind.type == "logic.set" and isinstance(values, dict):
                names |= set(values)
        return names


def within(place: str, root: str) -> bool:
    """Whether a path of the document is `root` or stands in it."""
    return place == root or place.startswith((f"{root}.", f"{root}["))
