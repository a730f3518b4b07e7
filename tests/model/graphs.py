"""Random workflow documents for the model tests.

Most are built from parts that belong together (a series, an if whose ways meet or not, branches and their join, a
loop and its body, a way back with a counter), so that they go far; the others are edges thrown at random, mended until
the compiler accepts them. A document says everything: the worker's part stands in each worker node's `script`, and
every run gets the same PAYLOAD.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st
from model.interpreter import Endless, Interpreter

from stellwerk.definition.compile import compile_workflow

PAYLOAD = {"yes": True, "no": False, "two": 2, "zero": 0, "list": [1, 2], "text": "t"}
FAST = {"interval": "PT0S", "jitter": False}
CONDITIONS = (
    "trigger.payload.yes",
    "trigger.payload.no",
    "trigger.payload.missing",
    "trigger.payload.two > 1 and not trigger.payload.no",
)
ITEMS = ([1, 2], [], [1], [3, 1, 2], [1, 2, 3, 4], "{{ trigger.payload.list }}", "{{ trigger.payload.text }}")

End = tuple[str, str]
"""An open end: a node and the port by which the next one follows."""


class Builder:
    """Draws a document part by part."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []
        self.loops = 0
        """How many loops are open around the place where it builds."""
        self.left = 20
        """How many more parts there may be."""

    # Small pieces

    def choose(self, *choices: Any) -> Any:
        """One of these; the first is the simplest."""
        return choices[self.draw(st.integers(0, len(choices) - 1))]

    def node(self, name: str, kind: str, config: dict[str, Any] | None = None, ends: Any = (), **more: Any) -> str:
        """A node after the open ends."""
        name = f"{name}{len(self.nodes)}" if self.nodes else name
        self.nodes.append({"id": name, "type": kind, **({"config": config} if config else {}), **more})
        for source, port in ends:
            self.edge(source, port, name)
        return name

    def edge(self, source: str, port: str, target: str) -> None:
        edge = {"from": source, **({} if port == "next" else {"port": port}), "to": target}
        if edge not in self.edges:
            self.edges.append(edge)

    def condition(self, known: list[str]) -> str:
        options = [*CONDITIONS]
        if known:
            options.append(f"coalesce(steps.{self.choose(*known)}.output.n, 0) < 2")
        if self.loops:
            options += ["index = 0", "item <> 2"]
        return str(self.choose(*options))

    def value(self, known: list[str]) -> Any:
        number = self.draw(st.integers(0, 3))
        options: list[Any] = [{"n": number}, "{{ vars.sum }}"]
        if known:
            source = self.choose(*known)
            options += [
                {"n": f"{{{{ coalesce(steps.{source}.output.n, 0) + {number} }}}}"},
                f"{{{{ steps.{source}.output }}}}",
                {"class": f"{{{{ steps.{source}.error.class }}}}"},
            ]
        if self.loops:
            options += [{"item": "{{ item }}", "index": "{{ index }}"}, "{{ item }}"]
        return self.choose(*options)

    def script(self) -> str:
        options = ["ok 1", "ok 2", "flaky 1", "flaky 2", "ok 3", "broken"]
        if self.loops:
            options.append(f"broken {self.draw(st.integers(0, 3))} = {{{{ index }}}}")
        return str(self.choose(*options))

    # Parts: each follows open ends and answers those that it leaves; `known` are the nodes that ran before

    def series(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        for _ in range(self.draw(st.integers(1, 4))):
            if ends and self.left > 0:
                self.left -= 1
                ends = self.part(ends, known, depth)
        return ends

    def part(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        simple = [self.plain, self.worker, self.variable, self.worker, self.troubled]
        deep = [self.choice, self.branches, self.loop, self.again, self.cases, self.loop, self.branches, self.ending]
        return list(self.choose(*simple, *(deep if depth < 3 else []))(ends, known, depth))

    def plain(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        name = self.node("t", "logic.transform", {"output": self.value(known)}, ends)
        known.append(name)
        return [(name, "next")]

    def worker(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        more: dict[str, Any] = {"retry": {"max_attempts": self.choose(3, 1, 2), **FAST}}
        return self.may_fail("w", "action.fonio_call", {"script": self.script()}, ends, known, depth, more)

    def troubled(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        """A SQL node that raises, always or for one item."""
        divisor = self.choose("trigger.payload.zero", "index") if self.loops else "trigger.payload.zero"
        output = f"{{{{ 0 / {divisor} }}}}"
        return self.may_fail("x", "logic.transform", {"output": output}, ends, known, depth, {})

    def may_fail(
        self, letter: str, kind: str, config: Any, ends: list[End], known: list[str], depth: int, more: Any
    ) -> list[End]:
        on_error = self.choose(None, "continue", "route", "continue", "route")
        if on_error and on_error != "route":
            more = {**more, "on_error": on_error}
        name = self.node(letter, kind, config, ends, **more)
        known.append(name)
        left: list[End] = [(name, "next")]
        if on_error == "route":
            left += self.way([(name, "error")], known, depth)
        return left

    def way(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        """A way of its own: one that meets the others, one that comes to its end, or none at all."""
        shape = self.choose("meets", "direct", "ends")
        if shape == "direct":
            return ends
        left = self.series(ends, known, depth + 1)
        return left if shape == "meets" else []

    def variable(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        values = self.choose(
            {"sum": "{{ coalesce(vars.sum, 0) + 1 }}"}, {"sum": 5}, {"here": "{{ vars.here }}", "sum": 0}
        )
        name = self.node("set", "logic.set", values and {"values": values}, ends)
        known.append(name)
        return [(name, "next")]

    def choice(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        name = self.node("if", "logic.if", {"condition": self.condition(known)}, ends)
        known.append(name)
        return [*self.way([(name, "true")], known, depth), *self.way([(name, "false")], known, depth)]

    def cases(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        names = ["a", "b", "c"][: self.draw(st.integers(1, 3))]
        cases = [{"port": name, "when": self.condition(known)} for name in names]
        name = self.node("switch", "logic.switch", {"cases": cases}, ends)
        known.append(name)
        left: list[End] = []
        for port in [*(f"case:{case}" for case in names), "default"]:
            left += self.way([(name, port)], known, depth)
        return left

    def branches(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        name = self.node("fork", "logic.transform", {"output": {"n": 0}}, ends)
        known.append(name)
        number = self.draw(st.integers(2, 3))
        left: list[End] = []
        for _ in range(number):
            mine = list(known)
            left += self.series([(name, "next")], mine, depth + 1)
            known += [one for one in mine if one not in known]
        mode = self.choose("plain", "all", "any", "count", "open")
        if mode in ("plain", "open"):
            return left if mode == "plain" else left[:1]
        config: dict[str, Any] = {"mode": mode}
        if mode == "count":
            config["count"] = self.choose(2, 1, 3)
        return self.may_fail("join", "logic.join", config, left, known, depth, {}) if left else []

    def loop(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        config: dict[str, Any] = {"items": self.choose(*ITEMS)}
        parallel = self.choose(1, 2, 3)
        if parallel > 1:
            config["parallel"] = parallel
        policy = self.choose(None, "skip", "collect", "fail")
        if policy:
            config["on_item_error"] = policy
        on_error = self.choose(None, None, "continue", "route")
        more = {"on_error": on_error} if on_error == "continue" else {}
        name = self.node("loop", "logic.loop", config, ends, **more)
        mine = [*known]
        self.loops += 1
        left = self.series([(name, "each")], mine, depth + 1)
        if self.choose(True, False):
            for source, port in left:
                self.edge(source, port, name)
        collect = self.choose(None, "{{ index }}", {"n": f"{{{{ steps.{mine[-1]}.output.n }}}}"} if mine else None)
        if collect is not None:
            config["collect"] = collect
        self.loops -= 1
        known.append(name)
        after: list[End] = [(name, "done")]
        if on_error == "route":
            after += self.way([(name, "error")], known, depth)
        return after

    def again(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        """Some parts two or three times over: a way back that a counter guards."""
        counter = f"c{len(self.nodes)}"
        times = self.draw(st.integers(1, 3))
        zero = self.node("zero", "logic.set", {"values": {counter: 0}}, ends)
        limit = self.choose({}, {"max_visits": 2})
        count = self.node(
            "count", "logic.set", {"values": {counter: f"{{{{ vars.{counter} + 1 }}}}"}}, [(zero, "next")], **limit
        )
        known.append(count)
        left = self.series([(count, "next")], known, depth + 1)
        if not left:
            return []
        more = self.node("more", "logic.if", {"condition": f"vars.{counter} < {times}"}, left)
        self.edge(more, "true", count)
        return [(more, "false")]

    def ending(self, ends: list[End], known: list[str], depth: int) -> list[End]:
        """logic.stop, now and then."""
        which = self.node("if", "logic.if", {"condition": self.condition(known)}, ends)
        known.append(which)
        outcome = self.choose("completed", "failed")
        config = {"outcome": outcome, **({"result": self.value(known)} if self.choose(True, False) else {})}
        self.node("stop", "logic.stop", config, [(which, "true")])
        return [(which, "false")]

    def document(self) -> dict[str, Any]:
        return {"slug": "model", "nodes": self.nodes, "edges": self.edges}


@st.composite
def built(draw: st.DrawFn) -> dict[str, Any]:
    """A document made of parts that belong together."""
    builder = Builder(draw)
    start = builder.node("start", "trigger.manual")
    known: list[str] = []
    ends: list[End] = [(start, "next")]
    for _ in range(draw(st.integers(1, 4))):
        ends = builder.series(ends, known, 0)
    return builder.document()


PORTS = {
    "logic.transform": ("next", "error"),
    "logic.set": ("next",),
    "logic.if": ("true", "false"),
    "logic.switch": ("case:a", "default"),
    "action.fonio_call": ("next", "error"),
    "logic.join": ("next", "error"),
    "logic.loop": ("each", "done", "error"),
    "logic.stop": (),
}


@st.composite
def thrown(draw: st.DrawFn) -> dict[str, Any]:
    """A document of edges thrown at random."""
    builder = Builder(draw)
    builder.node("start", "trigger.manual")
    kinds = [*PORTS]
    for number in range(1, draw(st.integers(2, 9)) + 1):
        kind = kinds[draw(st.integers(0, len(kinds) - 1))]
        name = f"n{number}"
        config: dict[str, Any] = {
            "logic.transform": lambda n=number: {"output": builder.choose({"n": n}, "{{ 0 / trigger.payload.zero }}")},
            "logic.set": lambda n=name: {"values": {n: f"{{{{ coalesce(vars.{n}, 0) + 1 }}}}"}},
            "logic.if": lambda: {"condition": builder.choose("coalesce(vars.n1, 0) < 2", *CONDITIONS)},
            "logic.switch": lambda: {"cases": [{"port": "a", "when": builder.choose(*CONDITIONS)}]},
            "action.fonio_call": lambda: {"script": builder.choose("ok 1", "flaky 1", "broken")},
            "logic.join": lambda: builder.choose(
                {"mode": "all"}, {"mode": "any"}, {"mode": "count", "count": 2}, {"mode": "count", "count": 3}
            ),
            "logic.loop": lambda: {
                "items": builder.choose([1, 2], [], [1, 2, 3]),
                "parallel": builder.choose(1, 2),
                "on_item_error": builder.choose("fail", "skip", "collect"),
            },
            "logic.stop": lambda: {"outcome": builder.choose("completed", "failed")},
        }[kind]()
        more: dict[str, Any] = {"max_visits": builder.choose(3, 1, 2)}
        if kind == "action.fonio_call":
            more["retry"] = FAST
        if builder.choose(False, False, True):
            more["on_error"] = "continue"
        builder.nodes.append({"id": name, "type": kind, "config": config, **more})
    names = [node["id"] for node in builder.nodes]

    def throw(source: dict[str, Any], target: str) -> None:
        ports = PORTS.get(source["type"], ("next",))
        if ports:
            builder.edge(source["id"], ports[draw(st.integers(0, len(ports) - 1))], target)

    for number, name in enumerate(names[1:], 1):
        throw(builder.nodes[draw(st.integers(0, number - 1))], name)
    for _ in range(draw(st.integers(0, 2 * len(names)))):
        throw(builder.nodes[draw(st.integers(0, len(names) - 1))], names[draw(st.integers(1, len(names) - 1))])
    return mended(builder.document())


def mended(document: dict[str, Any]) -> dict[str, Any]:
    """Without what the compiler does not like."""
    for _ in range(20):
        bad = [problem for problem in compile_workflow(document).problems if problem.severity == "error"]
        if not bad:
            break
        edges = {
            number for number, _ in enumerate(document["edges"]) for p in bad if p.path.startswith(f"edges[{number}]")
        }
        nodes = {problem.node for problem in bad if problem.code == "unreachable"}
        assume(edges or nodes)
        document["edges"] = [
            edge
            for number, edge in enumerate(document["edges"])
            if number not in edges and not nodes & {edge["from"], edge["to"]}
        ]
        document["nodes"] = [node for node in document["nodes"] if node["id"] not in nodes]
    return document


def publishable_and_finite(document: dict[str, Any]) -> bool:
    """Whether the compiler accepts it, and the reference comes to an end of it."""
    if not compile_workflow(document).is_publishable:
        return False
    try:
        play_through(document, 0)
    except (Endless, RecursionError):
        return False
    return True


def play_through(document: dict[str, Any], order: int) -> Interpreter:
    """The reference's opinion, its worker taking the steps in the given order."""
    reference = Interpreter(document, PAYLOAD)
    while waiting := reference.at_worker():
        reference.work(min(waiting, key=lambda step: turn(order, step.key)))
    return reference


def turn(order: int, key: tuple[str, Any, int]) -> Any:
    """Where a worker step stands in one of several orders: 0 by name, the others mixed in a way that can be repeated."""
    text = json.dumps(key)
    return (sum((number + order) * ord(sign) for number, sign in enumerate(text)) % 7 if order else 0, text)


def documents() -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(built(), built(), built(), thrown()).filter(publishable_and_finite)


def scenarios() -> st.SearchStrategy[tuple[dict[str, Any], int]]:
    """A document, and the order in which its worker takes the steps."""
    return st.tuples(documents(), st.integers(0, 3))
