"""What can be known about the ways through a workflow before it runs: which node reaches which, where ways meet,
which edges lead back, what is inside a loop, and what can never end.

A loop's body and what is around the loop are two levels. An edge from the body to its loop ends the iteration, as a
token without an edge does, so it is no way on which a token walks: `out` and `into` leave it out, and a plain loop is
no cycle. The loop's node belongs to the level around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Way:
    """One edge between nodes that both exist; `place` is its path in the document."""

    source: str
    port: str
    target: str
    place: str


@dataclass
class Graph:
    """Nodes in document order, and the ways between them."""

    nodes: list[str]
    triggers: list[str]
    ways: list[Way]
    loops: frozenset[str] = frozenset()
    """Nodes whose port `each` leads into a body."""
    out: dict[str, list[Way]] = field(init=False)
    into: dict[str, list[Way]] = field(init=False)
    written: dict[str, list[Way]] = field(init=False)
    """All edges of each node, those that end an iteration included."""
    around: dict[str, str] = field(init=False)
    """The innermost loop around each node that stands in one."""
    ends: frozenset[Way] = field(init=False)
    """Ways from a loop's body to the loop: they end the iteration."""
    back: frozenset[Way] = field(init=False)
    """Ways that lead back; without them the graph has no cycle."""

    _alive: dict[str, set[str]] = field(init=False, default_factory=dict)
    _dominated: dict[str, set[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._connect(self.ways)
        self.written = self.out
        self.around = self._find_around()
        self.ends = self._find_ends()
        if self.ends:
            self._connect(way for way in self.ways if way not in self.ends)
            self._dominated.clear()
        self.back = self._find_back()

    def _connect(self, ways: Iterable[Way]) -> None:
        self.out = {node: [] for node in self.nodes}
        self.into = {node: [] for node in self.nodes}
        for way in ways:
            self.out[way.source].append(way)
            self.into[way.target].append(way)

    def _find_around(self) -> dict[str, str]:
        bodies = {loop: self.body(loop) for loop in self.loops}
        found: dict[str, str] = {}
        for loop in sorted(bodies, key=lambda name: (-len(bodies[name]), name)):
            found.update(dict.fromkeys(bodies[loop], loop))
        return found

    def _find_ends(self) -> frozenset[Way]:
        """In a sound document a body is entered by `each` alone; where it is not, the edge may be the only one that
        leads to the loop, and counts as any other."""
        return frozenset(
            way
            for way in self.ways
            if self.around.get(way.source) == way.target
            and not (way.port == "each" and way.source in self.loops)  # leads into a body, not out of one
            and self.dominates(way.target, way.source)
        )

    def reachable(self, starts: Iterable[str], without: frozenset[Way] = frozenset()) -> set[str]:
        """The nodes that can be reached from any of `starts`, themselves included."""
        seen = set(starts)
        stack = list(seen)
        while stack:
            for way in self.out[stack.pop()]:
                if way.target not in seen and way not in without:
                    seen.add(way.target)
                    stack.append(way.target)
        return seen

    def _find_back(self) -> frozenset[Way]:
        """Ways whose target stands on every way from a start to their source; in a knot that has none, those that a
        depth-first walk in document order finds returning."""
        # Only within a knot can a way lead back.
        knot_of = {node: number for number, knot in enumerate(self.knots()) for node in knot}
        back = {
            way
            for way in self.ways
            if way not in self.ends
            and knot_of.get(way.source, -1) == knot_of.get(way.target, -2)
            and self.dominates(way.target, way.source)
        }
        # What is left may still hold knots: walk each with the ways found so far taken out.
        place = {name: number for number, name in enumerate(self.nodes)}

        def ordered(node: str) -> Iterator[Way]:
            return iter(sorted(self.out[node], key=lambda way: place[way.target]))

        state: dict[str, int] = {}
        for start in [*self.triggers, *self.nodes]:
            if state.get(start):
                continue
            state[start] = 1
            stack = [(start, ordered(start))]
            while stack:
                node, ways = stack[-1]
                way = next(ways, None)
                if way is None:
                    state[node] = 2
                    stack.pop()
                elif way not in back:
                    if state.get(way.target) == 1:
                        back.add(way)
                    elif not state.get(way.target):
                        state[way.target] = 1
                        stack.append((way.target, ordered(way.target)))
        return frozenset(back)

    def dominates(self, above: str, below: str) -> bool:
        """Whether every way from a trigger to `below` passes `above` (a node dominates itself)."""
        if above not in self._dominated:
            seen = {start for start in self.triggers if start != above}
            stack = list(seen)
            while stack:
                for way in self.out[stack.pop()]:
                    if way.target != above and way.target not in seen:
                        seen.add(way.target)
                        stack.append(way.target)
            self._dominated[above] = self.reachable(self.triggers) - seen
        return below in self._dominated[above]

    def alive(self, trigger: str) -> set[str]:
        """The nodes that a run can reach which began at `trigger`."""
        if trigger not in self._alive:
            self._alive[trigger] = self.reachable([trigger])
        return self._alive[trigger]

    def forward_ways(self, node: str, trigger: str) -> int:
        """How many ways lead to `node` going forward in a run that began at `trigger`."""
        alive = self.alive(trigger)
        return sum(1 for way in self.into[node] if way not in self.back and way.source in alive)

    def knots(self) -> list[list[str]]:
        """The sets of nodes that can all reach each other (more than one node, or one with a way to itself), in
        document order."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        path: list[str] = []
        on_path: set[str] = set()
        found: list[list[str]] = []
        for start in self.nodes:
            if start in index:
                continue
            work = [(start, iter(self.out[start]))]
            index[start] = low[start] = len(index)
            path.append(start)
            on_path.add(start)
            while work:
                node, ways = work[-1]
                way = next(ways, None)
                if way is not None:
                    target = way.target
                    if target not in index:
                        index[target] = low[target] = len(index)
                        path.append(target)
                        on_path.add(target)
                        work.append((target, iter(self.out[target])))
                    elif target in on_path:
                        low[node] = min(low[node], index[target])
                    continue
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    knot: set[str] = set()
                    while node not in knot:
                        member = path.pop()
                        on_path.discard(member)
                        knot.add(member)
                    if len(knot) > 1 or any(way.target == node for way in self.out[node]):
                        found.append([name for name in self.nodes if name in knot])
        return found

    def cyclic(self) -> set[str]:
        """The nodes that a token can come to more than once within one scope."""
        seen = {node for knot in self.knots() for node in knot}
        stack = list(seen)
        while stack:  # each turn of a cycle may send a token to what lies behind it
            node = stack.pop()
            for way in self.out[node]:
                if way.target not in seen and self.around.get(way.target) == self.around.get(node):
                    seen.add(way.target)
                    stack.append(way.target)
        return seen

    def body(self, loop: str) -> set[str]:
        """The nodes of a loop's body: what its port `each` reaches without passing the loop itself."""
        seen = {way.target for way in self.out[loop] if way.port == "each" and way.target != loop}
        stack = list(seen)
        while stack:
            for way in self.out[stack.pop()]:
                if way.target != loop and way.target not in seen:
                    seen.add(way.target)
                    stack.append(way.target)
        return seen

    def loops_around(self, node: str) -> list[str]:
        """The loops in which a node stands, the innermost first."""
        found: list[str] = []
        while (loop := self.around.get(node)) is not None and loop not in found:
            found.append(loop)
            node = loop
        return found

    def upstream(self, node: str, trigger: str, scope: set[str] | None = None) -> list[str]:
        """The nodes from which `node` can be reached going forward in a run that began at `trigger`, itself excluded.

        `scope` limits them to the nodes of one loop body."""
        alive = self.alive(trigger)
        seen: set[str] = set()
        stack = [node]
        while stack:
            for way in self.into[stack.pop()]:
                if way in self.back or way.source in seen or way.source not in alive or way.source == node:
                    continue
                if scope is not None and way.source not in scope:
                    continue
                seen.add(way.source)
                stack.append(way.source)
        return [name for name in self.nodes if name in seen]

    def before(self, node: str) -> set[str]:
        """The nodes that may have ended before `node` begins: those that can reach it by any way, itself included if
        it lies on a cycle. While its body runs a loop has not ended, so of the loops around a node only what comes
        before them counts."""
        seen: set[str] = set()
        entered: set[str] = set()
        stack = [node]
        while stack:
            for way in self.into[stack.pop()]:
                found = entered if way.port == "each" and way.source in self.loops else seen
                if way.source not in found:
                    found.add(way.source)
                    stack.append(way.source)
        return seen
