"""Whatever is done to runs, in whatever order: the laws hold after every move, and in the end every run ends.

Hypothesis makes up the moves: publishing, starting, pumping, workers that take steps, hand in results in time or too late,
or die; timers, signals, steering, retrying, moving to another version. `pytest tests/model --full` makes many more of them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import psycopg
import pytest
from database.helpers import Worker
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model.graphs import PAYLOAD, documents
from model.laws import broken, digests
from model.shapes import SHAPES
from psycopg.types.json import Jsonb

from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine

PLACES = st.integers(0, 20)
"""Which one of those that there are; counted round."""


class Moves(RuleBasedStateMachine):
    """One database; each example has workflows of its own."""

    dsn = ""
    db: psycopg.Connection[Any]
    examples: Iterator[int] = itertools.count(1)

    @initialize()
    def begin(self) -> None:
        self.name = f"m{next(self.examples)}"
        self.first = self.value("select coalesce(max(run_id), 0) + 1 from stellwerk.run")
        self.workers = [Worker(self.dsn), Worker(self.dsn)]
        self.taken: list[tuple[Worker, dict[str, Any]]] = []
        self.old: list[tuple[Worker, dict[str, Any]]] = []
        self.published: list[str] = []
        self.migrations: list[int] = []
        self.ended: dict[int, str] = {}
        self.pumped = False
        self.publish("line")

    # What it is done with

    def value(self, statement: str, *parameters: Any) -> Any:
        row = self.db.execute(statement, parameters).fetchone()
        return row[0] if row else None

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.db.execute(statement, parameters).fetchall()

    def pick(self, place: int, statement: str, *parameters: Any) -> tuple[Any, ...] | None:
        """One of the rows of a statement that has %s for the first run."""
        found = self.rows(statement, self.first, *parameters)
        return found[place % len(found)] if found else None

    def verb(self, statement: str, *parameters: Any) -> bool:
        """What people do may be refused, but only with the errors that say so."""
        try:
            self.db.execute(statement, parameters)
        except psycopg.Error as error:
            if error.sqlstate not in ("SW003", "SW005"):
                raise
            return False
        return True

    def pump_until_quiet(self) -> None:
        for _ in range(1000):
            answer = self.value("select stellwerk.pump()")
            if not answer["more"] and not answer["runs_advanced"]:
                return
        raise AssertionError("pump does not come to an end")

    # Moves

    @rule(shape=st.sampled_from(sorted(SHAPES)))
    def publish(self, shape: str) -> None:
        """A workflow, or one more version of it, and a run."""
        text = json.dumps(SHAPES[shape]).replace("CHILD", f"{self.name}-line")
        self.publish_document(f"{self.name}-{shape}", json.loads(text))

    @rule(which=st.integers(0, 1), drawn=documents())
    def publish_random(self, which: int, drawn: dict[str, Any]) -> None:
        self.publish_document(f"{self.name}-random-{which}", drawn)

    def publish_document(self, slug: str, made: dict[str, Any]) -> None:
        compiled = compile_workflow({**made, "slug": slug, "description": f"number {next(self.examples)}"})
        assert compiled.is_publishable, compiled.problems
        engine = Engine(self.db)
        slug, version = engine.save_workflow(compiled.document, compiled.plan, [])
        engine.publish_workflow(slug, version)
        if slug not in self.published:
            self.published.append(slug)
        self.start(self.published.index(slug))

    @rule(place=PLACES)
    def start(self, place: int) -> None:
        key = f"{self.name}-{place % 3}"
        slug = self.published[place % len(self.published)]
        self.db.execute("select stellwerk.start_run(%s, %s)", (slug, Jsonb({**PAYLOAD, "key": key})))

    @rule()
    def pump(self) -> None:
        before = self.still()
        self.pump_until_quiet()
        self.unmoved(before)
        self.pumped = True

    @rule(place=PLACES, which=st.integers(0, 1), loses_rows=st.booleans())
    def take(self, place: int, which: int, loses_rows: bool) -> None:
        """A worker takes a step; with its queue row others may be gone as well."""
        queued = (
            "select run_id, step_id, job_id from stellwerk.step where tenant_id = 1 and run_id >= %s "
            "and state = 'queued' and runs_in = 'worker' order by step_id"
        )
        step = self.pick(place, queued)
        if not step:
            self.pump()
            step = self.pick(place, queued)
        if step:
            worker = self.workers[which]
            self.taken += [(worker, taken) for taken in worker.begin([step[:2]])]
            if loses_rows:
                self.db.execute("delete from stellwerk_queue.pgqueuer where id = %s", (step[2],))

    @rule(place=PLACES)
    def complete(self, place: int) -> None:
        self.hand_in(place, output={"n": 1})

    @rule(place=PLACES, retryable=st.booleans())
    def fail(self, place: int, retryable: bool) -> None:
        self.hand_in(place, error={"class": "test", "message": "no", "retryable": retryable})

    def hand_in(self, place: int, **result: Any) -> None:
        if not self.taken:
            self.take(place, 0, False)
        if not self.taken:
            return
        worker, taken = self.taken.pop(place % len(self.taken))
        held = self.value(
            "select state = 'running' and attempt = %s and worker_id = %s from stellwerk.step where tenant_id = 1 and run_id = %s and step_id = %s",
            taken["attempt"], worker.worker_id, taken["run_id"], taken["step_id"],
        )  # fmt: skip
        before = digests(self.db, self.first)
        answer = worker.end(taken, **result)
        assert answer["accepted"] == int(held), (answer, held)
        if not held:
            assert answer["late"] == [[taken["run_id"], taken["step_id"]]]
            assert digests(self.db, self.first) == before, "a late result changed something"
        self.old.append((worker, taken))

    @precondition(lambda self: self.old)
    @rule(place=PLACES)
    def complete_again(self, place: int) -> None:
        """A result that was handed in already, or whose worker has died, changes nothing."""
        worker, taken = self.old[place % len(self.old)]
        before = digests(self.db, self.first)
        completion = {
            "run": str(taken["run_id"]),
            "step": str(taken["step_id"]),
            "attempt": taken["attempt"],
            "output": {"n": 2},
        }
        answer = self.value("select stellwerk.complete_steps(%s, 1, %s)", worker.worker_id, Jsonb([completion]))
        if answer["accepted"]:
            held = [
                t
                for w, t in self.taken
                if w is worker and (t["step_id"], t["attempt"]) == (taken["step_id"], taken["attempt"])
            ]
            assert held, "an attempt that had ended was ended again"
        else:
            assert digests(self.db, self.first) == before, "a late result changed something"

    @rule(which=st.integers(0, 1))
    def worker_dies(self, which: int) -> None:
        dead = self.workers[which]
        dead.vanish()
        while self.value("select stellwerk.is_present(%s)", dead.worker_id):
            pass
        self.workers[which] = Worker(self.dsn)
        self.tick()
        lost = self.rows(
            "select node_id from stellwerk.step where tenant_id = 1 and run_id >= %s and state = 'running' and worker_id = %s",
            self.first, dead.worker_id,
        )  # fmt: skip
        assert not lost, f"nobody has taken over {lost}"
        self.old += [pair for pair in self.taken if pair[0] is dead]
        self.taken = [pair for pair in self.taken if pair[0] is not dead]

    @rule(place=PLACES)
    def attempt_takes_too_long(self, place: int) -> None:
        step = self.pick(
            place,
            "select run_id, step_id from stellwerk.step where tenant_id = 1 and run_id >= %s and state = 'running' order by step_id",
        )
        if step:
            self.time_is_up(*step)

    def time_is_up(self, run_id: int, step_id: int) -> None:
        self.db.execute(
            "update stellwerk.step set timeout_at = now() - interval '1 hour' where tenant_id = 1 and run_id = %s and step_id = %s",
            (run_id, step_id),
        )
        self.tick()

    @rule(place=PLACES)
    def attempt_is_overtaken(self, place: int) -> None:
        """The attempt takes too long, the same worker begins another one, and then comes the first one's result."""
        before = len(self.taken)
        self.take(place, 0, False)
        if len(self.taken) > before:
            worker, taken = self.taken[-1]
            self.time_is_up(taken["run_id"], taken["step_id"])
            again = worker.begin([(taken["run_id"], taken["step_id"])])
            self.hand_in(len(self.taken) - 1, output={"n": 4})
            self.taken += [(worker, one) for one in again]

    @rule(place=PLACES)
    def time_passes(self, place: int) -> None:
        """One of the timers that run is due."""
        timer = self.pick(
            place,
            "select timer_id from stellwerk.timer where tenant_id = 1 and run_id >= %s and remaining is null order by timer_id",
        )
        if timer:
            self.db.execute(
                "update stellwerk.timer set due_at = now() - interval '1 second' where tenant_id = 1 and timer_id = %s",
                timer,
            )
            before = self.still()
            self.tick()
            self.unmoved(before)

    def tick(self) -> None:
        self.db.execute("select stellwerk.tick()")

    @rule(place=PLACES)
    def signal(self, place: int) -> None:
        """One that somebody waits for, if anybody does; else it is kept."""
        wait = self.pick(
            place,
            "select correlation from stellwerk.wait where tenant_id = 1 and run_id >= %s and event = 'news' order by step_id",
        )
        before = self.still()
        self.db.execute("select stellwerk.signal('news', %s)", wait or (f"{self.name}-{place % 3}",))
        self.unmoved(before)
        self.laws_hold()
        if place % 2:
            self.pump()

    @rule(place=PLACES, compensate=st.booleans())
    def cancel(self, place: int, compensate: bool) -> None:
        self.steer(place, "select stellwerk.cancel_run(%s, 'because', %s)", compensate)

    @rule(place=PLACES)
    def pause(self, place: int) -> None:
        self.steer(place, "select stellwerk.pause_run(%s)")

    @rule(place=PLACES)
    def resume(self, place: int) -> None:
        self.steer(place, "select stellwerk.resume_run(%s)", wanted=("paused",))

    @rule(place=PLACES)
    def skip(self, place: int) -> None:
        step = self.pick(
            place,
            "select run_id, step_id from stellwerk.step where tenant_id = 1 and run_id >= %s and state in ('queued', 'waiting') order by step_id",
        )
        if step:
            self.verb("select stellwerk.skip_step(%s, %s, '{\"n\": 3}')", *step)

    def steer(
        self,
        place: int,
        statement: str,
        *more: Any,
        wanted: tuple[str, ...] = ("pending", "running", "waiting", "paused"),
    ) -> None:
        run = self.pick(
            place,
            "select run_id from stellwerk.run where tenant_id = 1 and run_id >= %s and state = any(%s) order by run_id",
            list(wanted),
        )
        if run:
            self.verb(statement, run[0], *more)

    @rule(place=PLACES, earlier=st.booleans())
    def retry(self, place: int, earlier: bool) -> None:
        run = self.pick(
            place,
            "select r.run_id, (select min(s.node_id) from stellwerk.step s where s.tenant_id = 1 and s.run_id = r.run_id and s.scope_id = 0) "
            "from stellwerk.run r where r.tenant_id = 1 and r.run_id >= %s and r.state in ('failed', 'cancelled') order by r.run_id",
        )
        if run and self.verb("select stellwerk.retry_run(%s, %s)", run[0], run[1] if earlier else None):
            self.ended.pop(run[0], None)

    @rule(place=PLACES)
    def migrate(self, place: int) -> None:
        """Every run of a workflow that can moves to its newest version."""
        slug = self.published[place % len(self.published)]
        for version, newest in self.rows(
            "select distinct r.version, w.active_version from stellwerk.run r join stellwerk.workflow w using (tenant_id, workflow_id) "
            "where r.tenant_id = 1 and w.slug = %s and r.version < w.active_version order by r.version",
            slug,
        ):
            moved = self.rows(
                "select distinct migration_id from stellwerk.migrate_runs(%s, %s, %s, dry_run => false) where verdict = 'ok'",
                slug, version, newest,
            )  # fmt: skip
            self.migrations += [migration for (migration,) in moved if migration is not None]

    @precondition(lambda self: self.migrations)
    @rule(place=PLACES)
    def undo_migration(self, place: int) -> None:
        migration = self.migrations.pop(place % len(self.migrations))
        self.verb("select * from stellwerk.undo_migration(%s, dry_run => false)", migration)

    @rule()
    def queue_is_lost(self) -> None:
        self.db.execute("delete from stellwerk_queue.pgqueuer")
        self.queue_is_whole()

    # Laws

    def still(self) -> dict[int, str]:
        """Paused runs that nobody has asked to do anything else."""
        told = {
            run
            for (run,) in self.rows(
                "select run_id from stellwerk.run_message where tenant_id = 1 and kind in ('cancel', 'pause', 'resume')"
            )
        }
        return {
            run: digest
            for run, (state, digest) in digests(self.db, self.first).items()
            if state == "paused" and run not in told
        }

    def unmoved(self, before: dict[int, str]) -> None:
        after = digests(self.db, self.first)
        for run, digest in before.items():
            told = self.value("select parent_run_id from stellwerk.run where tenant_id = 1 and run_id = %s", run)
            assert after[run][1] == digest or told, f"paused run {run} has moved"

    def queue_is_whole(self) -> None:
        self.db.execute("select stellwerk.reconcile()")
        lost = self.rows(
            "select s.run_id, s.node_id from stellwerk.step s join stellwerk.run r using (tenant_id, run_id) where s.tenant_id = 1 and s.run_id >= %s "
            "and s.state = 'queued' and s.runs_in = 'worker' and r.state <> 'paused' "
            "and not exists (select from stellwerk.queue_state(array[s.job_id]))",
            self.first,
        )
        assert not lost, f"not in the queue: {lost}"

    @invariant()
    def laws_hold(self) -> None:
        found = broken(self.db, self.first, pumped=self.pumped)
        self.pumped = False
        assert not found, "\n".join(f"{law}: run {run}, {what}" for law, run, what in found)
        now = digests(self.db, self.first)
        for run, digest in self.ended.items():
            assert now[run][1] == digest, f"run {run} had ended, and has moved"
        self.ended = {
            run: digest for run, (state, digest) in now.items() if state in ("completed", "failed", "cancelled")
        }

    def teardown(self) -> None:
        if not hasattr(self, "first"):
            return
        try:
            self.come_to_an_end()
        finally:
            for worker in self.workers:
                worker.vanish()

    def come_to_an_end(self) -> None:
        """Whoever waits gets what it waits for; then every run has ended."""
        for worker, taken in self.taken:
            worker.end(taken)
        for _ in range(200):
            self.steer_all()
            self.pump_until_quiet()
            if not self.value(
                "select count(*) from stellwerk.run where tenant_id = 1 and run_id >= %s and ended_at is null",
                self.first,
            ):
                break
            self.workers[0].end(*self.workers[0].begin())
        left = self.rows(
            "select run_id, state from stellwerk.run where tenant_id = 1 and run_id >= %s and ended_at is null",
            self.first,
        )
        why = [self.value("select stellwerk.why(%s)", run) for run, _ in left]
        assert not left, f"these do not come to an end: {why}"
        self.pumped = True
        self.laws_hold()

    def steer_all(self) -> None:
        for (run,) in self.rows(
            "select run_id from stellwerk.run where tenant_id = 1 and run_id >= %s and state = 'paused'", self.first
        ):
            self.verb("select stellwerk.resume_run(%s)", run)
        self.db.execute(
            "update stellwerk.timer set due_at = now() - interval '1 second' where tenant_id = 1 and run_id >= %s and kind <> 'run_timeout'",
            (self.first,),
        )
        self.tick()
        for key in range(3):
            self.db.execute("select stellwerk.signal('news', %s)", (f"{self.name}-{key}",))


SHARES = 4


@pytest.mark.parametrize("share", range(SHARES))
def test_the_laws_hold_after_every_move(share: int, dsn: str, request: Any) -> None:
    full = request.config.getoption("--full", default=False)
    with psycopg.connect(dsn, autocommit=True) as db:
        machine = type("Moves", (Moves,), {"dsn": dsn, "db": db})
        run_state_machine_as_test(
            hypothesis.seed(share)(machine),
            settings=settings(
                max_examples=200 if full else 8,
                stateful_step_count=60 if full else 40,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
                print_blob=False,
            ),
        )
