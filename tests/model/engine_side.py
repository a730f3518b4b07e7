"""Runs documents in the engine, many at a time, and reads back what became of them."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import psycopg
from database.helpers import Worker
from model.graphs import PAYLOAD, turn
from model.interpreter import Interpreter
from model.worker_script import play
from psycopg.types.json import Jsonb

from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine

Connection = psycopg.Connection[Any]
Key = tuple[str, tuple[tuple[str, int, int], ...], int]


class Fate(NamedTuple):
    """What became of one step."""

    state: str
    port: str | None
    output: Any
    error: Any
    failures: int


class Outcome(NamedTuple):
    """What became of a run, as far as the comparison goes."""

    state: str
    output: Any
    error: Any
    steps: dict[Key, Fate]


class EngineSide:
    """A database with a worker that the test plays."""

    def __init__(self, dsn: str) -> None:
        self.db = psycopg.connect(dsn, autocommit=True)
        self.engine = Engine(self.db)
        self.worker = Worker(dsn)
        self.numbers = itertools.count(1)

    def close(self) -> None:
        self.worker.vanish()
        self.db.close()

    def play(self, scenarios: list[tuple[dict[str, Any], int]]) -> list[Outcome]:
        """Every document as a run of its own, to the end; all of them side by side."""
        with self.db.transaction():
            runs = {self.begin(document): order for document, order in scenarios}
        self.pump()
        for _ in range(3000):
            chosen = self.choose(runs)
            if not chosen:
                break
            self.work(chosen)
            self.pump()
        else:
            raise AssertionError("the worker's part does not come to an end")
        return self.outcomes(list(runs))

    def begin(self, document: dict[str, Any]) -> int:
        compiled = compile_workflow({**document, "slug": f"model-{next(self.numbers)}"})
        slug, version = self.engine.save_workflow(compiled.document, compiled.plan, [])
        self.engine.publish_workflow(slug, version)
        row = self.db.execute("select stellwerk.start_run(%s, %s)", (slug, Jsonb(PAYLOAD))).fetchone()
        assert row is not None
        return int(row[0])

    def pump(self) -> None:
        for _ in range(1000):
            row = self.db.execute("select stellwerk.pump()").fetchone()
            assert row is not None
            moved = sum(row[0].get(key) or 0 for key in ("events", "runs_started", "runs_advanced", "steps"))
            if not row[0].get("more") and not moved:
                return
        raise AssertionError("pump does not come to an end")

    def choose(self, runs: dict[int, int]) -> list[tuple[int, int]]:
        """The next worker step of each run, in the run's order."""
        rows = self.db.execute(
            "select run_id, step_id, node_id, scope_id, visit from stellwerk.step "
            "where tenant_id = 1 and run_id = any(%s) and state = 'queued' and runs_in = 'worker'",
            (list(runs),),
        ).fetchall()
        paths = self.paths(sorted({row[0] for row in rows if row[3]}))
        chosen: dict[int, tuple[Any, int]] = {}
        for run_id, step_id, node, scope, visit in rows:
            place = (turn(runs[run_id], (node, paths[scope], visit)), step_id)
            if run_id not in chosen or place < chosen[run_id]:
                chosen[run_id] = place
        return [(run_id, step_id) for run_id, (_, step_id) in sorted(chosen.items())]

    def work(self, refs: list[tuple[int, int]]) -> None:
        """One attempt of each, as the node's script says."""
        completions = [
            {
                "run": str(taken["run_id"]),
                "step": str(taken["step_id"]),
                "attempt": taken["attempt"],
                **play(taken["config"]["script"], taken["failures"]),
            }
            for taken in self.worker.begin(refs)
        ]
        if completions:
            self.worker.connection.execute(
                "select stellwerk.complete_steps(%s, 1, %s)", (self.worker.worker_id, Jsonb(completions))
            )

    def paths(self, run_ids: list[int]) -> dict[int, Any]:
        """(loop node, its visit, number of the item) from the outermost inwards, by scope."""
        found: dict[int, Any] = {0: ()}
        if run_ids:
            rows = self.db.execute(
                "select c.scope_id, c.parent_scope_id, s.node_id, s.visit, c.position from stellwerk.scope c "
                "join stellwerk.step s on s.tenant_id = c.tenant_id and s.run_id = c.run_id and s.step_id = c.loop_step_id "
                "where c.tenant_id = 1 and c.run_id = any(%s) order by c.scope_id",
                (run_ids,),
            ).fetchall()
            for scope_id, parent, node, visit, position in rows:
                found[scope_id] = (*found[parent], (node, visit, position))
        return found

    def outcomes(self, run_ids: list[int]) -> list[Outcome]:
        paths = self.paths(run_ids)
        steps: dict[int, dict[Key, Fate]] = {run_id: {} for run_id in run_ids}
        for run_id, node, scope, visit, *fate in self.db.execute(
            "select run_id, node_id, scope_id, visit, state, port, output, error, failures "
            "from stellwerk.step where tenant_id = 1 and run_id = any(%s)",
            (run_ids,),
        ).fetchall():
            key = (node, paths[scope], visit)
            assert key not in steps[run_id], f"run {run_id} has two steps {key}"
            steps[run_id][key] = Fate(*map(essential, fate))
        runs = {
            run_id: rest
            for run_id, *rest in self.db.execute(
                "select run_id, state, output, error from stellwerk.run where tenant_id = 1 and run_id = any(%s)",
                (run_ids,),
            ).fetchall()
        }
        trigger = ("start", (), 1)  # its output is the run's payload, and is stored there only
        for found in steps.values():
            if trigger in found:
                found[trigger] = found[trigger]._replace(output=PAYLOAD)
        return [Outcome(*map(essential, runs[run_id]), steps[run_id]) for run_id in run_ids]


def essential(value: Any) -> Any:
    """A value in which errors are reduced to what the reference says about them: class and node."""
    if isinstance(value, list):
        return [essential(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "class" in value and "node" in value:
        return {"class": value["class"], "node": value["node"]}
    return {key: essential(part) for key, part in value.items()}


def opinion(reference: Interpreter) -> Outcome:
    """What became of the reference's run, in the same words."""
    return Outcome(
        reference.state,
        essential(reference.output),
        essential(reference.error),
        {
            step.key: Fate(step.state, step.port, essential(step.output), essential(step.error), step.failures)
            for step in reference.steps
        },
    )
