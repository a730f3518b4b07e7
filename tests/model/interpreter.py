"""A second opinion: what a workflow document means, in plain Python and without a database.

It was written from the design pages and not from the engine's SQL. Where those pages leave something open, this is
the reading that was chosen; the engine has to agree with it:

1.  *Waves.* All SQL tokens of a run that are ready move at once, in the order in which their steps came to be; then it
    is decided which meetings are complete and which iterations have ended; then the next wave begins. A worker's
    result is one event, and is followed by waves until nothing moves.
2.  The tokens of a wave are carried out one after the other, each seeing the variables that those before it have set.
    Then follows what they bring about: first the endings, then the tokens that go out. So if one of them ends the run
    (or its iteration), the others of that wave have been carried out all the same, but nothing follows them.
3.  A token that arrives at a node where ways meet takes its place there, or joins the step that waits there already. A
    token that comes by a way back to a node which is not waiting begins a new visit.
4.  A join `any` or `count` looks at what has arrived at the end of a wave; then it takes away what lives upstream of it
    in its scope, with all iterations that hang below.
5.  An iteration ends when its scope has no live token; `collect` is computed in its scope at that moment. What the
    `each` port leads to begins anew per item, in the order of the items, at the moment at which a place becomes free.
6.  A step that fails for good within an iteration, and neither continues nor routes, fails the iteration: its other
    tokens are cancelled. With `on_item_error` fail, the loop step itself fails with that error, and its own `on_error`
    decides (`continue` leaves by `done`). With skip and collect the others go on; see `finish_loop` for the output.
7.  `steps.x.output` is that of the last visit of x that has ended, in the nearest scope outwards that has one.
8.  One visit more than `max_visits` makes a step that fails at once with the class `max_visits`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from model.expressions import ExpressionError, dig, evaluate, render
from model.worker_script import play
from model.ways import Ways

LIVE = ("queued", "running", "waiting", "joining")
MAX_STEPS = 400

Path = tuple[tuple[str, int, int], ...]
"""Where a scope hangs: (loop node, its visit, number of the item), from the outermost inwards."""


class Endless(Exception):
    """The document makes more than MAX_STEPS steps."""


@dataclass(eq=False)
class Scope:
    parent: Scope | None = None
    loop: Step | None = None
    index: int = 0
    item: Any = None
    vars: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    output: Any = None
    """The output of the step whose token came to an end last."""
    last_wave: int = 0
    tied: bool = False
    """Whether that output would be another one, had the tokens of the last wave moved in another order."""
    error: dict[str, Any] | None = None

    @property
    def path(self) -> Path:
        if self.parent is None or self.loop is None:
            return ()
        return (*self.parent.path, (self.loop.node, self.loop.visit, self.index))


@dataclass(eq=False)
class Step:
    node: str
    scope: Scope
    visit: int
    number: int
    state: str = "queued"
    port: str | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    failures: int = 0
    attempt: int = 0
    arrived: list[str] = field(default_factory=list)
    iterations: list[Scope] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def key(self) -> tuple[str, Path, int]:
        return (self.node, self.scope.path, self.visit)


class Interpreter:
    """One run of one document."""

    def __init__(self, document: dict[str, Any], payload: Any) -> None:
        self.nodes = {node["id"]: node for node in document["nodes"]}
        trigger = next(node["id"] for node in document["nodes"] if node["type"] == "trigger.manual")
        self.ways = Ways(document, trigger)
        self.payload = payload
        self.state = "running"
        self.output: Any = None
        self.error: dict[str, Any] | None = None
        self.steps: list[Step] = []
        self.wave = 1
        self.outermost = Scope()
        self.arrive(trigger, self.outermost)
        self.settle()

    # What drives it

    def at_worker(self) -> list[Step]:
        """The steps that wait for a worker."""
        return [step for step in self.steps if step.state == "queued" and self.runs_in_worker(step)]

    def work(self, step: Step) -> None:
        """One attempt of a worker, as the node's script says."""
        step.attempt += 1
        try:
            settings = render(self.nodes[step.node].get("config", {}), lambda path: self.look_up(path, step.scope))
        except ExpressionError as error:
            self.attempt_failed(step, failure(error.code, retryable=False))
        else:
            result = play(settings["script"], step.failures)
            if "error" in result:
                self.attempt_failed(step, result["error"])
            else:
                self.ends(step, result["output"])
        if step.state != "queued":
            self.follow([step])
        self.settle()

    def settle(self) -> None:
        """Waves until nothing moves."""
        self.look_around()
        self.wave += 1
        while wave := [step for step in self.steps if step.state == "queued" and not self.runs_in_worker(step)]:
            for step in wave:
                self.carry_out(step)
            self.follow(wave)
            self.look_around()
            self.wave += 1

    def runs_in_worker(self, step: Step) -> bool:
        return bool(self.nodes[step.node]["type"] == "action.fonio_call")

    # Coming together

    def look_around(self) -> None:
        """What has come together and what has come to its end, until neither is found."""
        while self.state == "running" and (self.decide_a_meeting() or self.end_an_iteration()):
            pass
        if self.state == "running" and not any(step.live for step in self.steps):
            self.output = self.outermost.output
            self.end("completed")

    def decide_a_meeting(self) -> bool:
        for step in self.steps:
            if step.state != "joining":
                continue
            config = self.nodes[step.node].get("config", {})
            is_join = self.nodes[step.node]["type"] == "logic.join"
            mode = config.get("mode", "all") if is_join else "all"
            above = [
                other
                for other in self.steps
                if other.live and other.scope is step.scope and other.node in self.ways.upstream[step.node]
            ]
            wanted = {"all": None, "any": 1, "count": config.get("count")}[mode]
            if wanted is not None and len(step.arrived) >= wanted:
                for other in above:
                    self.cancel(other)
                step.state = "queued"
                return True
            if not above:
                if wanted is None:
                    step.state = "queued"
                else:
                    self.fail(step, failure("join_unsatisfied"))
                    self.follow([step])
                return True
        return False

    # Loops

    def end_an_iteration(self) -> bool:
        for loop in self.steps:
            if loop.state != "waiting":
                continue
            for scope in loop.iterations:
                if scope.state == "running" and not any(step.live and step.scope is scope for step in self.steps):
                    self.end_iteration(scope, None)
                    return True
        return False

    def begin_iterations(self, loop: Step) -> None:
        """As many as there is room for."""
        while loop.state == "waiting":
            running = sum(scope.state == "running" for scope in loop.iterations)
            if running >= loop.settings.get("parallel", 1) or len(loop.iterations) == len(loop.settings["items"]):
                break
            index = len(loop.iterations)
            scope = Scope(loop.scope, loop, index, loop.settings["items"][index])
            loop.iterations.append(scope)
            for way in self.ways.leaving(loop.node, "each"):
                if way.target != loop.node:
                    self.arrive(way.target, scope, loop.node)

    def end_iteration(self, scope: Scope, error: dict[str, Any] | None) -> None:
        """An iteration has come to its end, or has failed; so has the run, if it is the outermost scope."""
        loop = scope.loop
        if loop is None:
            self.error = error
            self.end("failed")
            return
        if error is None and "collect" in self.nodes[loop.node].get("config", {}):
            try:
                collect = self.nodes[loop.node]["config"]["collect"]
                scope.output = render(collect, lambda path: self.look_up(path, scope))
            except ExpressionError as raised:
                error = failure(raised.code, retryable=False, node=loop.node)
        if error is not None:
            self.cancel_within(scope)
            scope.state, scope.error = "failed", error
            if loop.settings.get("on_item_error", "fail") == "fail":
                for other in loop.iterations:
                    self.cancel_within(other)
                self.fail(loop, error)
                self.follow([loop])
                return
        else:
            scope.state = "completed"
        self.begin_iterations(loop)
        self.finish_loop(loop)

    def finish_loop(self, loop: Step) -> None:
        """When all items are done: the outputs of the iterations that succeeded, in the items' order; how many those
        are; and, with collect, the errors of the others."""
        if loop.state != "waiting" or len(loop.iterations) < len(loop.settings["items"]):
            return
        if any(scope.state == "running" for scope in loop.iterations):
            return
        kept = loop.settings.get("on_item_error", "fail") == "collect"
        good = [scope.output for scope in loop.iterations if scope.state == "completed"]
        errors = [{"index": s.index, "error": s.error} for s in loop.iterations if s.state == "failed" and kept]
        self.ends(loop, {"items": good, "count": len(good), "errors": errors}, "done")
        self.follow([loop])

    # Nodes

    def carry_out(self, step: Step) -> None:
        """What the node does; what follows from it is decided when the whole wave has been carried out."""
        step.attempt += 1
        node = self.nodes[step.node]
        kind, config = node["type"], node.get("config", {})

        def names(path: list[str]) -> Any:
            return self.look_up(path, step.scope)

        try:
            if kind.startswith("trigger."):
                self.ends(step, self.payload)
            elif kind == "logic.if":
                result = evaluate(config["condition"], names) is True
                self.ends(step, {"result": result}, "true" if result else "false")
            elif kind == "logic.switch":
                ports = [f"case:{c['port']}" for c in config["cases"] if evaluate(c["when"], names) is True]
                port = [*ports, "default"][0]
                self.ends(step, {"port": port}, port)
            elif kind == "logic.set":
                values = render(config["values"], names)
                for name, value in values.items():
                    self.variables(name, step.scope)[name] = value
                self.ends(step, values)
            elif kind == "logic.transform":
                self.ends(step, render(config["output"], names))
            elif kind == "logic.join":
                self.ends(step, {"arrived": list(step.arrived)})
            elif kind == "logic.stop":
                step.settings = render(config, names)
                self.ends(step, step.settings.get("result"), None)
            else:
                assert kind == "logic.loop", f"the reference does not know {kind}"
                step.settings = {**config, "items": render(config["items"], names)}
                if isinstance(step.settings["items"], list):
                    step.state = "waiting"
                else:
                    self.attempt_failed(step, failure("no_list"))
        except ExpressionError as error:
            self.attempt_failed(step, failure(error.code))

    def ends(self, step: Step, output: Any, port: str | None = "next") -> None:
        step.state, step.output, step.error, step.port = "completed", output, None, port

    def attempt_failed(self, step: Step, error: dict[str, Any]) -> None:
        """One more attempt, or the end of the step: then the node's on_error decides."""
        step.failures += 1
        most = (self.nodes[step.node].get("retry") or {}).get("max_attempts", 3 if self.runs_in_worker(step) else 1)
        if error["retryable"] and step.failures < most:
            step.state, step.error = "queued", error
        else:
            self.fail(step, error)

    def fail(self, step: Step, error: dict[str, Any]) -> None:
        step.state, step.error, step.port = "failed", {**error, "node": error.get("node", step.node)}, None
        node = self.nodes[step.node]
        on_error = node.get("on_error") or ("route" if self.ways.leaving(step.node, "error") else "fail")
        if on_error == "route":
            step.port = "error"
        elif on_error == "continue":
            step.output = {"error": step.error}
            step.port = "done" if node["type"] == "logic.loop" else "next"

    # What follows

    def follow(self, wave: list[Step]) -> None:
        """What a wave brings about: first the endings, then the tokens that go out, in the order of the steps."""
        for step in wave:
            if step.state == "failed" and step.port is None and step.scope.state == "running":
                self.end_iteration(step.scope, step.error)
            elif self.nodes[step.node]["type"] == "logic.stop" and step.state == "completed":
                self.stop(step)
        for step in wave:
            if step.state == "waiting":
                self.begin_iterations(step)
                self.finish_loop(step)
            elif step.port and step.scope.state == "running":
                self.send(step)

    def send(self, step: Step) -> None:
        """A token goes out along every way of the port, or comes to its end."""
        if self.state != "running":
            return
        assert step.port
        scope, ways = step.scope, self.ways.leaving(step.node, step.port)
        own_loop = scope.loop.node if scope.loop else None
        if all(way.target == own_loop for way in ways):
            scope.tied = scope.last_wave == self.wave and scope.output != step.output
            scope.output, scope.last_wave = step.output, self.wave
        for way in ways:
            if way.target != own_loop:
                self.arrive(way.target, scope, step.node)

    def arrive(self, node: str, scope: Scope, source: str | None = None) -> None:
        """A token stands on a node: a new step, or one more at a step that waits where ways meet."""
        for step in self.steps if node in self.ways.joins else []:
            if step.node == node and step.scope is scope and step.state == "joining":
                step.arrived += [source] if source else []
                return
        if len(self.steps) >= MAX_STEPS:
            raise Endless
        visit = 1 + sum(step.node == node and step.scope is scope for step in self.steps)
        step = Step(node, scope, visit, len(self.steps), arrived=[source] if source else [])
        self.steps.append(step)
        if visit > self.nodes[node].get("max_visits", 1000):
            self.fail(step, failure("max_visits"))
            self.follow([step])
        elif node in self.ways.joins:
            step.state = "joining"

    def stop(self, step: Step) -> None:
        outcome = step.settings.get("outcome", "completed")
        if self.state == "running":
            self.output = step.output
            self.error = failure("stopped", node=step.node) if outcome == "failed" else None
            self.end(outcome)

    def end(self, state: str) -> None:
        self.state = state
        self.cancel_within(self.outermost)

    def cancel_within(self, scope: Scope) -> None:
        if scope.state == "running":
            scope.state = "cancelled"
        for step in self.steps:
            if step.scope is scope and step.live:
                self.cancel(step)

    def cancel(self, step: Step) -> None:
        step.state = "cancelled"
        for iteration in step.iterations:
            self.cancel_within(iteration)

    # Context

    def look_up(self, path: list[str], scope: Scope) -> Any:
        root, *rest = path
        if root == "trigger":
            assert rest[0] == "payload"
            return dig(self.payload, rest[1:])
        if root == "vars":
            return dig(self.variables(rest[0], scope).get(rest[0]), rest[1:])
        if root in ("item", "index"):
            return dig(scope.item, rest) if root == "item" else scope.index
        assert root == "steps"
        node, part, *rest = rest
        found: Scope | None = scope
        while found:
            ended = [s for s in self.steps if s.node == node and s.scope is found and s.state in ("completed", "failed")]
            if ended:
                last = max(ended, key=lambda s: s.visit)
                return dig(last.output if part == "output" else last.error, rest)
            found = found.parent
        return None

    def variables(self, name: str, scope: Scope) -> dict[str, Any]:
        """The variables among which the name is read and written: the nearest that have it, else the scope's own."""
        found: Scope | None = scope
        while found:
            if name in found.vars:
                return found.vars
            found = found.parent
        return scope.vars


def failure(kind: str, retryable: bool = False, **more: Any) -> dict[str, Any]:
    return {"class": kind, "retryable": retryable, **more}
