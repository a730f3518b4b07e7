"""A second opinion: what a workflow document means, in plain Python and without a database.

It was written from the design pages and not from the engine's SQL. Where those pages leave something open, mostly the
order in which things happen at once, this is the reading that was chosen; the engine has to agree with it:

1.  *Turns.* All SQL tokens of a run that are ready move at once; each sees what was there when the turn began. Of several
    logic.set only the one that set out first moves, the others do in the turns that follow. A worker's result is a turn
    of its own, and is followed by turns until nothing moves.
2.  What a turn brought about is taken in the order in which the steps came to be, after the loops that came to their end
    with the turn before. So of several tokens that end at once, the last in that order counts as the last.
3.  Then, in this order: tokens go out; the run ends, if a step of the outermost scope has failed for good or logic.stop
    was reached (the first of several counts); meetings are decided; iterations end, in the order in which they came to be.
    What has gone out when the run ends is cancelled with it.
4.  A token that arrives at a node where ways meet takes its place there, or joins the step that waits there already. A
    token that comes by a way back to a node which is not waiting begins a new visit.
5.  A join `any` or `count` goes on as soon as tokens of so many nodes have arrived; it takes away what lives upstream of it
    in its scope, with all iterations that hang below.
6.  An iteration ends when its scope has no live token; its output is that of the token that ended last, or `collect`,
    computed in its scope at that moment. Then the next item begins. A loop that is done moves on with the next turn.
7.  A step that fails for good within an iteration, and neither continues nor routes, fails the iteration: its other
    tokens are cancelled. With `on_item_error` fail the other iterations are as well, and the loop step fails with the class
    `item_failed`; its own `on_error` decides (`continue` leaves by `done`). `skip` leaves the item out, `collect` puts null
    in its place and the error into `errors`; `count` is the number of all items.
8.  `steps.x.output` is that of the last visit of x that has ended (not: was cancelled), in the nearest scope outwards that
    has one.
9.  One visit more than `max_visits` makes a step that fails with the class `max_visits` instead of being carried out.
10. logic.stop's result is the run's output, also when it has none.
"""

from __future__ import annotations

from typing import Any

from model.expressions import ExpressionError, dig, evaluate, render
from model.tokens import MAX_STEPS, Endless, Move, Scope, Step, failure
from model.ways import Ways
from model.worker_script import play


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
        self.outermost = Scope()
        self.scopes: list[Scope] = []
        """The iterations, in the order in which they came to be."""
        self.ready: list[Step] = []
        """The tokens that move with the next turn."""
        self.gone_out: list[Step] = []
        """Tokens of iterations that begin: they take their places in the turn that comes."""
        self.arrive(trigger, self.outermost)
        self.turns([])

    # What drives it

    def at_worker(self) -> list[Step]:
        """The steps that wait for a worker."""
        return [step for step in self.steps if step.state == "queued" and self.runs_in_worker(step)]

    def work(self, step: Step) -> None:
        """One attempt of a worker, as the node's script says."""
        try:
            settings = render(self.nodes[step.node].get("config", {}), lambda path: self.look_up(path, step.scope))
        except ExpressionError as error:
            self.turns([Move(step, error=failure(error.code))])
        else:
            result = play(settings["script"], step.failures)
            self.turns([Move(step, output=result.get("output"), error=result.get("error"))])

    def runs_in_worker(self, step: Step) -> bool:
        return self.nodes[step.node]["type"] == "action.fonio_call" and not self.too_often(step)

    def too_often(self, step: Step) -> bool:
        return bool(step.visit > self.nodes[step.node].get("max_visits", 1000))

    def turns(self, moves: list[Move]) -> None:
        """What follows from some moves, until nothing moves any more."""
        self.take_places()
        while moves or self.ready or self.gone_out:
            if not (moves and moves[0].step.state == "queued" and self.runs_in_worker(moves[0].step)):
                moves = moves + self.carry_out_ready()
            for move in moves:
                self.write(move)
            for move in moves:
                self.send(move)
            for move in moves:
                if move.waits:
                    for _ in range(move.step.settings.get("parallel", 1)):
                        self.enter(self.begin_iteration(move.step))
            self.take_places()
            self.end_run(moves)
            while self.state == "running" and self.decide_meetings():
                pass
            moves = self.end_iterations(moves) if self.state == "running" else []
        if self.state == "running" and not any(step.live for step in self.steps):
            self.output = self.outermost.output
            self.end("completed")

    def carry_out_ready(self) -> list[Move]:
        """The ready tokens move, at most one logic.set among them."""
        ready = sorted((step for step in self.ready if step.state == "queued"), key=lambda step: step.number)
        setting = [step for step in ready if self.nodes[step.node]["type"] == "logic.set"]
        self.ready = setting[1:]
        return [self.carry_out(step) for step in ready if step not in self.ready]

    def take_places(self) -> None:
        """Tokens that have gone out come to stand on their nodes."""
        for step in self.gone_out:
            if step.node in self.ways.joins:
                step.state = "joining"
            elif not self.runs_in_worker(step):
                self.ready.append(step)
        self.gone_out = []

    # Coming together

    def decide_meetings(self) -> bool:
        """Which of the waiting tokens may go on; whether another look is worth while."""
        waiting = [step for step in self.steps if step.state == "joining"]
        early = [step for step in waiting if 0 < self.wanted(step) <= len(set(step.arrived))]
        going = [step for step in waiting if step in early or not self.upstream(step)]
        for step in going:
            if step.state == "joining":
                if self.wanted(step):
                    for other in self.upstream(step):
                        self.cancel(other)
                step.state = "queued"
                if not self.runs_in_worker(step):
                    self.ready.append(step)
        return bool(early)

    def wanted(self, step: Step) -> int:
        """How many have to arrive; 0 for all that can."""
        node = self.nodes[step.node]
        config = node.get("config", {}) if node["type"] == "logic.join" else {}
        return {"all": 0, "any": 1, "count": config.get("count", 0)}[config.get("mode", "all")]

    def upstream(self, step: Step) -> list[Step]:
        """The live tokens of its scope that can still reach it going forward."""
        nodes = self.ways.upstream[step.node]
        return [other for other in self.steps if other.live and other.scope is step.scope and other.node in nodes]

    # Loops

    def begin_iteration(self, loop: Step) -> Scope | None:
        """The next item has its turn, if there is one left."""
        index = len(loop.iterations)
        if index == len(loop.settings["items"]):
            return None
        scope = self.iterations_of(loop)[index]
        loop.iterations.append(scope)
        return scope

    def enter(self, scope: Scope | None) -> None:
        """The tokens with which an iteration begins."""
        if scope is not None and scope.loop is not None and scope.state == "running":
            for way in self.ways.leaving(scope.loop.node, "each"):
                if way.target != scope.loop.node:
                    self.arrive(way.target, scope, scope.loop.node)

    def end_iterations(self, moves: list[Move]) -> list[Move]:
        """The iterations in which a token has just ended, where it was the last or failed; what becomes of their loops."""
        brought: list[Move] = []
        begun: list[Scope | None] = []
        for scope in self.scopes:
            ended = [move for move in moves if move.step.scope is scope and self.has_ended(move)]
            errors = [move.error for move in ended if move.step.state == "failed" and move.port is None]
            loop = scope.loop
            if not ended or scope.state != "running" or loop is None:
                continue
            if errors:
                self.cancel_within(scope)
                scope.state, scope.error = "failed", errors[-1]
            elif any(step.live and step.scope is scope for step in self.steps):
                continue
            else:
                self.complete_iteration(scope, loop, ended[-1].output)
            if scope.error and loop.settings.get("on_item_error", "fail") == "fail":
                for other in loop.iterations:
                    if other.state == "running":
                        self.cancel_within(other)
                brought.append(Move(loop, error=failure("item_failed")))
            elif all(other.state in ("completed", "failed") for other in self.iterations_of(loop)):
                brought.append(Move(loop, "done", self.loop_output(loop)))
            else:
                begun.append(self.begin_iteration(loop))
        for next_scope in begun:
            self.enter(next_scope)  # unless another iteration has failed their loop meanwhile
        return [move for move in brought if move.step.live]

    def iterations_of(self, loop: Step) -> list[Scope]:
        return [scope for scope in self.scopes if scope.loop is loop]

    def has_ended(self, move: Move) -> bool:
        """Whether the token came to an end here: no way leads on, or only back to the loop around it."""
        if move.step.state not in ("completed", "failed"):
            return False
        around = move.step.scope.loop
        ways = self.ways.leaving(move.step.node, move.port) if move.port else []
        return all(around is not None and way.target == around.node for way in ways)

    def complete_iteration(self, scope: Scope, loop: Step, output: Any) -> None:
        scope.state, scope.output = "completed", output
        config = self.nodes[loop.node].get("config", {})
        if "collect" in config:
            try:
                scope.output = render(config["collect"], lambda path: self.look_up(path, scope))
            except ExpressionError as raised:
                scope.state, scope.error, scope.output = "failed", failure(raised.code, node=loop.node), None

    def loop_output(self, loop: Step) -> dict[str, Any]:
        scopes = self.iterations_of(loop)
        kept = loop.settings.get("on_item_error", "fail") == "collect"
        items = [scope.output for scope in scopes if scope.state == "completed" or kept]
        errors = [{"index": s.index, "error": s.error} for s in scopes if s.state == "failed" and kept]
        return {"items": items, "count": len(scopes), "errors": errors}

    # Nodes

    def carry_out(self, step: Step) -> Move:
        """What the node does; nothing of it is to be seen until the whole turn has been carried out."""
        if self.too_often(step):
            return Move(step, error=failure("max_visits"))
        node = self.nodes[step.node]
        kind, config = node["type"], node.get("config", {})

        def names(path: list[str]) -> Any:
            return self.look_up(path, step.scope)

        try:
            if kind.startswith("trigger."):
                return Move(step, output=self.payload)
            if kind == "logic.if":
                result = evaluate(config["condition"], names) is True
                return Move(step, "true" if result else "false", {"result": result})
            if kind == "logic.switch":
                ports = [f"case:{c['port']}" for c in config["cases"] if evaluate(c["when"], names) is True]
                port = [*ports, "default"][0]
                return Move(step, port, {"port": port})
            if kind == "logic.set":
                return Move(step, output=render(config["values"], names))
            if kind == "logic.transform":
                return Move(step, output=render(config["output"], names))
            if kind == "logic.join":
                arrived = sorted(set(step.arrived))
                return Move(step, output={"arrived": arrived}, error=self.unsatisfied(step, arrived))
            if kind == "logic.stop":
                step.settings = render(config, names)
                return Move(step, None, step.settings.get("result"))
            assert kind == "logic.loop", f"the reference does not know {kind}"
            step.settings = {**config, "items": render(config["items"], names)}
            return self.begin_loop(step, step.settings["items"])
        except ExpressionError as error:
            return Move(step, error=failure(error.code))

    def unsatisfied(self, step: Step, arrived: list[str]) -> dict[str, Any] | None:
        return failure("join_unsatisfied") if len(arrived) < self.wanted(step) else None

    def begin_loop(self, step: Step, items: Any) -> Move:
        if not isinstance(items, list):
            return Move(step, error=failure("not_a_list"))
        self.scopes += [Scope(step.scope, step, index, item) for index, item in enumerate(items)]
        return Move(step, waits=True) if items else Move(step, "done", {"items": [], "count": 0, "errors": []})

    # What follows

    def write(self, move: Move) -> None:
        """The step as it is after the move; an error may lead to another attempt, or to what on_error says."""
        step, node = move.step, self.nodes[move.step.node]
        if move.waits:
            step.state = "waiting"
            return
        if move.error is None:
            step.state, step.output, step.error, step.port = "completed", move.output, None, move.port
            if node["type"] == "logic.set":
                for name, value in move.output.items():
                    self.variables(name, step.scope)[name] = value
            return
        move.error.setdefault("node", step.node)
        move.output = None
        step.failures += 1
        most = (node.get("retry") or {}).get("max_attempts", 3 if self.runs_in_worker(step) else 1)
        if move.error["retryable"] and step.failures < most:
            step.state, move.port = "queued", None
        else:
            on_error = node.get("on_error") or ("route" if self.ways.leaving(step.node, "error") else "fail")
            onward = "done" if node["type"] == "logic.loop" else "next"
            move.port = {"fail": None, "route": "error", "continue": onward}[on_error]
            move.output = {"error": move.error} if on_error == "continue" else None
            step.state, step.output, step.port = "failed", move.output, move.port
        step.error = move.error

    def send(self, move: Move) -> None:
        """A token goes out along every way of the port, or comes to its end."""
        step = move.step
        if step.scope is self.outermost and self.has_ended(move):
            self.outermost.output = move.output
        around = step.scope.loop
        if step.state in ("completed", "failed") and move.port:
            for way in self.ways.leaving(step.node, move.port):
                if around is None or way.target != around.node:
                    self.arrive(way.target, step.scope, step.node)

    def arrive(self, node: str, scope: Scope, source: str | None = None) -> None:
        """A token sets out for a node: a new step, or one more at a step that waits where ways meet."""
        for step in self.steps if node in self.ways.joins else []:
            waits = step.state == "joining" or step in self.gone_out
            if step.node == node and step.scope is scope and waits:
                step.arrived += [source] if source else []
                return
        if len(self.steps) >= MAX_STEPS:
            raise Endless
        visit = 1 + sum(step.node == node and step.scope is scope for step in self.steps)
        step = Step(node, scope, visit, len(self.steps), arrived=[source] if source else [])
        self.steps.append(step)
        self.gone_out.append(step)

    # How it ends

    def end_run(self, moves: list[Move]) -> None:
        """A step of the outermost scope has failed for good, or logic.stop was reached."""
        for move in sorted(moves, key=lambda move: move.step.number):
            step = move.step
            if step.state == "failed" and move.port is None and step.scope is self.outermost:
                self.error = step.error
                self.end("failed")
                return
            if step.state == "completed" and self.nodes[step.node]["type"] == "logic.stop":
                outcome = step.settings.get("outcome", "completed")
                self.output = step.output
                self.error = failure("stopped", node=step.node) if outcome == "failed" else None
                self.end(outcome)
                return

    def end(self, state: str) -> None:
        self.state = state
        for step in self.steps:
            if step.live:
                step.state = "cancelled"

    def cancel_within(self, scope: Scope) -> None:
        if scope.state == "running":
            scope.state = "cancelled"
        for step in self.steps:
            if step.scope is scope and step.live:
                self.cancel(step)

    def cancel(self, step: Step) -> None:
        step.state = "cancelled"
        for iteration in self.iterations_of(step):
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
            ended = [
                s for s in self.steps if s.node == node and s.scope is found and s.state in ("completed", "failed")
            ]
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
