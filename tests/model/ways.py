"""What the reference needs to know about a document's ways: which lead back, which nodes lie upstream, which loop
surrounds a node. Written from the design alone and for small graphs: everything is found by plain search."""

from __future__ import annotations

from typing import Any, NamedTuple


class Way(NamedTuple):
    source: str
    port: str
    target: str


class Ways:
    """The ways of a document whose run begins at `trigger`."""

    def __init__(self, document: dict[str, Any], trigger: str) -> None:
        self.order = [node["id"] for node in document["nodes"]]
        types = {node["id"]: node["type"] for node in document["nodes"]}
        self.triggers = [name for name in self.order if types[name].startswith("trigger.")]
        self.all = [Way(edge["from"], edge.get("port", "next"), edge["to"]) for edge in document["edges"]]
        self.loop_of = self._innermost([name for name in self.order if types[name] == "logic.loop"])
        self.back = self._leading_back()
        alive = self._reached([trigger], self.all)
        self.forward = [way for way in self.all if way not in self.back and way.source in alive]
        self.joins = {
            name
            for name in self.order
            if types[name] == "logic.join" or sum(way.target == name for way in self.forward) > 1
        }
        self.upstream = {name: self._upstream(name) for name in self.joins}

    def leaving(self, node: str, port: str) -> list[Way]:
        """The ways out of a node by a port, in the document's order."""
        return [way for way in self.all if way.source == node and way.port == port]

    def _reached(self, starts: list[str], ways: list[Way], closed: str | None = None) -> set[str]:
        """What can be reached from the starts, themselves included; nothing goes through `closed`."""
        found = {start for start in starts if start != closed}
        waiting = list(found)
        while waiting:
            here = waiting.pop()
            for way in ways:
                if way.source == here and way.target != closed and way.target not in found:
                    found.add(way.target)
                    waiting.append(way.target)
        return found

    def _leading_back(self) -> set[Way]:
        """Ways whose target stands on every way from a start to their source; and in what is still knotted, those
        that a depth-first walk in the document's order finds returning."""
        reached = self._reached(self.triggers, self.all)
        back = {
            way
            for way in self.all
            if way.source in reached and way.source not in self._reached(self.triggers, self.all, closed=way.target)
        }
        place = {name: number for number, name in enumerate(self.order)}
        open_: list[str] = []
        done: set[str] = set()

        def walk(node: str) -> None:
            open_.append(node)
            ways = [way for way in self.all if way.source == node and way not in back]
            for way in sorted(ways, key=lambda way: place[way.target]):
                if way.target in open_:
                    back.add(way)
                elif way.target not in done:
                    walk(way.target)
            open_.pop()
            done.add(node)

        for start in [*self.triggers, *self.order]:
            if start not in done:
                walk(start)
        return back

    def _innermost(self, loops: list[str]) -> dict[str, str | None]:
        """The innermost loop around each node: the one with the smallest body that holds it."""
        bodies: dict[str, set[str]] = {}
        for loop in loops:
            first = [way.target for way in self.all if way.source == loop and way.port == "each"]
            bodies[loop] = self._reached(first, self.all, closed=loop)
        return {
            name: min(
                (loop for loop in loops if name in bodies[loop]), key=lambda loop: len(bodies[loop]), default=None
            )
            for name in self.order
        }

    def _upstream(self, node: str) -> set[str]:
        """The nodes of the same scope from which it can be reached going forward."""
        inside = [way for way in self.forward if self.loop_of[way.source] == self.loop_of[way.target]]
        turned = [Way(way.target, way.port, way.source) for way in inside]
        return self._reached([node], turned) - {node}
