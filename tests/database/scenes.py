"""Runs that stand where two moves can meet, and the moves: for the tests of what happens when both come at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from database.helpers import PERMANENT, START, Worker, call, document, node, start, transform
from model import laws
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
Publish = Callable[[dict[str, Any]], str]

ONCE = {"retry": {"max_attempts": 1}}


@dataclass
class Scene:
    """A run, a worker process with the steps that it has taken, and perhaps a child run."""

    db: Connection
    run_id: int
    worker: Worker
    child_id: int | None = None
    taken: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self) -> Scene:
        """The worker takes all steps that are queued for it."""
        for number, step in enumerate(sorted(self.worker.begin(), key=lambda s: s["step_id"])):
            name = step["node_id"]
            self.taken[name if name not in self.taken else f"{name}#{number}"] = step
        return self

    def step_id(self, name: str) -> int:
        row = self.db.execute(
            "select step_id from stellwerk.step where run_id = %s and node_id = %s order by step_id desc limit 1",
            (self.run_id, name),
        ).fetchone()
        assert row is not None
        return int(row[0])


def broken(db: Connection, *, at_rest: bool = False) -> list[Any]:
    """What breaks a law; some hold only when pump and tick have nothing left to do."""
    lost = db.execute(
        """
        select 'a worker step that is queued has a row in the queue', s.run_id, s.node_id from stellwerk.step s
          join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
         where s.state = 'queued' and s.runs_in = 'worker' and r.state <> 'paused'
           and not exists (select from stellwerk_queue.pgqueuer q where q.id = s.job_id)
        """
    ).fetchall()
    return lost + laws.broken(db, 0, pumped=at_rest)


# -- where runs stand -------------------------------------------------------------------------------------------------

Make = Callable[[Connection, str, Publish, Callable[..., int]], Scene]
SCENES: dict[str, Make] = {}


def scene(make: Make) -> Make:
    SCENES[make.__name__] = make
    return make


def after(earlier: Make) -> Callable[[Callable[[Scene], object]], Make]:
    """A scene that stands as an earlier one, and then something more has happened."""

    def decorate(happens: Callable[[Scene], object]) -> Make:
        def make(db: Connection, dsn: str, publish: Publish, run_all: Callable[..., int]) -> Scene:
            made = earlier(db, dsn, publish, run_all)
            happens(made)
            return made

        make.__name__, make.__doc__ = happens.__name__, happens.__doc__
        return scene(make)

    return decorate


def _begun(db: Connection, dsn: str, slug: str, run_all: Callable[..., int], payload: Any = None) -> Scene:
    run_id = start(db, slug, payload)
    run_all(db)
    return Scene(db, run_id, Worker(dsn))


@scene
def pending(db, dsn, publish, run_all):
    """Nobody has moved the run yet."""
    slug = publish(document("pending", [START, transform("a", 1), transform("b", 2)], ["start -> a", "a -> b"]))
    return Scene(db, start(db, slug), Worker(dsn))


@scene
def queued(db, dsn, publish, run_all):
    """A worker step that nobody has taken."""
    slug = publish(
        document("queued", [START, call("ring", **ONCE), transform("end", 1)], ["start -> ring", "ring -> end"])
    )
    return _begun(db, dsn, slug, run_all)


@scene
def ringing(db, dsn, publish, run_all):
    """A worker carries out a step; it and the run have time limits."""
    slug = publish(
        document(
            "ringing",
            [START, call("ring", timeout="PT1H", **ONCE), transform("end", 1), call("last", **ONCE)],
            ["start -> ring", "ring -> end", "end -> last"],
            settings={"timeout": "P1D"},
        )
    )
    return _begun(db, dsn, slug, run_all).take()


@after(ringing)
def overdue(made):
    """As ringing, and the attempt has lasted too long."""
    made.db.execute(
        "update stellwerk.step set timeout_at = clock_timestamp() - interval '1 minute' where state = 'running'"
    )


@after(ringing)
def out_of_time(made):
    """As ringing, and the run has lasted too long."""
    made.db.execute(
        "update stellwerk.timer set due_at = clock_timestamp() - interval '1 minute' where kind = 'run_timeout'"
    )


@after(ringing)
def silent(made):
    """As ringing, and the worker has shown no sign of life for too long."""
    made.db.execute(
        "update stellwerk.step set lease_until = clock_timestamp() - interval '1 minute' where state = 'running'"
    )


@after(ringing)
def paused(made):
    """As ringing, and the run is paused."""
    made.db.execute("select stellwerk.pause_run(%s)", (made.run_id,))


@scene
def failed(db, dsn, publish, run_all):
    """The run has failed while a second branch was being carried out."""
    slug = publish(
        document("failed", [START, call("ring", **ONCE), call("other", **ONCE), transform("end", 1)],
                 ["start -> ring", "start -> other", "ring -> end", "other -> end"])
    )  # fmt: skip
    made = _begun(db, dsn, slug, run_all).take()
    made.worker.end(made.taken["ring"], error=PERMANENT)
    return made


def _forked(name: str, mode: dict[str, Any], branches: str = "ab") -> Make:
    def make(db, dsn, publish, run_all):
        slug = publish(
            document(
                name.replace("_", "-"),
                [START, *(call(branch, **ONCE) for branch in branches), node("meet", "logic.join", mode), call("last", **ONCE)],
                [*(f"start -> {b}" for b in branches), *(f"{b} -> meet" for b in branches), "meet -> last"],
            )
        )  # fmt: skip
        return _begun(db, dsn, slug, run_all).take()

    make.__name__ = name
    return scene(make)


_forked("fork", {"mode": "all"})
_forked("fork_any", {"mode": "any"})
_forked("fork_count", {"mode": "count", "count": 2}, "abc")


@scene
def waiting(db, dsn, publish, run_all):
    """The run waits for a signal that has not come in time."""
    slug = publish(
        document(
            "waiting",
            [START, node("wait", "logic.wait", {"event": "paid", "correlation": "7"}, timeout="PT1H"),
             transform("came", 1), transform("late", 2)],
            ["start -> wait", "wait -> came", "wait.timeout -> late"],
        )
    )  # fmt: skip
    made = _begun(db, dsn, slug, run_all)
    db.execute("update stellwerk.timer set due_at = clock_timestamp() - interval '1 minute'")
    return made


@scene
def arriving(db, dsn, publish, run_all):
    """The run is about to wait for a signal."""
    slug = publish(
        document(
            "arriving", [START, node("wait", "logic.wait", {"event": "paid", "correlation": "7"})], ["start -> wait"]
        )
    )
    return Scene(db, start(db, slug), Worker(dsn))


@after(waiting)
def signalled(made):
    """As waiting, and the signal has been sent but not been applied."""
    made.db.execute("select stellwerk.signal('paid', '7')")


@after(signalled)
def in_time(made):
    """As signalled, and the signal had been sent before the time was up."""
    made.db.execute("update stellwerk.run_message set created_at = created_at - interval '1 hour'")


@scene
def calling(db, dsn, publish, run_all):
    """A parent waits for its child, longer than it should; the child is being carried out."""
    child = publish(
        document("child", [START, call("ring", **ONCE), transform("end", "c")], ["start -> ring", "ring -> end"])
    )
    slug = publish(
        document(
            "parent",
            [START, node("ask", "logic.call", {"workflow": child}, timeout="PT1H"), transform("after", "{{ steps.ask.output }}"),
             transform("late", 2)],
            ["start -> ask", "ask -> after", "ask.timeout -> late"],
        )
    )  # fmt: skip
    made = _begun(db, dsn, slug, run_all).take()
    (made.child_id,) = db.execute(
        "select run_id from stellwerk.run where parent_run_id = %s", (made.run_id,)
    ).fetchone()
    db.execute("update stellwerk.timer set due_at = clock_timestamp() - interval '1 minute'")
    return made


@after(calling)
def told(made):
    """As calling, and the child has ended, which the parent does not know yet."""
    made.worker.end(made.taken["ring"], output={"n": 1})


@after(calling)
def orphaned(made):
    """As calling, and the parent has been cancelled, which the child does not know yet."""
    made.db.execute("select stellwerk.cancel_run(%s)", (made.run_id,))


@scene
def looping(db, dsn, publish, run_all):
    """The last two iterations of a loop are carried out."""
    slug = publish(
        document(
            "looping",
            [START, node("each", "logic.loop", {"items": [1, 2], "parallel": 2}), call("ring", **ONCE), transform("end", "{{ steps.each.output.count }}")],
            ["start -> each", "each.each -> ring", "each.done -> end"],
        )
    )  # fmt: skip
    return _begun(db, dsn, slug, run_all).take()


@scene
def booked(db, dsn, publish, run_all):
    """A step that can be undone is done, a second one is being carried out."""
    slug = publish(
        document(
            "booked",
            [START, call("ring", compensate="undo", **ONCE), call("pay", compensate="refund", **ONCE), call("last", **ONCE),
             call("undo", **ONCE), call("refund", **ONCE)],
            ["start -> ring", "ring -> pay", "pay -> last"],
        )
    )  # fmt: skip
    made = _begun(db, dsn, slug, run_all).take()
    made.worker.end(made.taken["ring"])
    return made.take()


@after(paused)
def pausing(made):
    """As paused, and the step that was being carried out has ended meanwhile: what follows it is frozen."""
    made.worker.end(made.taken["ring"])


# -- the moves: each answers in a word ----------------------------------------------------------------------------------

Move = Callable[[Scene, Connection], str]


def _value(connection: Connection, statement: str, *arguments: object) -> Any:
    row = connection.execute(statement, arguments).fetchone()
    assert row is not None
    return row[0]


def _verb(statement: str) -> Move:
    def move(made: Scene, connection: Connection) -> str:
        connection.execute(statement, {"run": made.run_id, "child": made.child_id})
        return "done"

    return move


def _ends(name: str, **result: Any) -> Move:
    def move(made: Scene, connection: Connection) -> str:
        taken = made.taken[name]
        completion = {"run": str(taken["run_id"]), "step": str(taken["step_id"]), "attempt": taken["attempt"]}
        answer = _value(
            connection, "select stellwerk.complete_steps(%s, 1, %s)", made.worker.worker_id, Jsonb([completion | (result or {"output": {}})])
        )  # fmt: skip
        return "accepted" if answer["accepted"] else "late"

    return move


def _ref(function: str, attempts: bool) -> Move:
    def move(made: Scene, connection: Connection) -> str:
        taken = made.taken["ring"]
        given = [[taken["run_id"]], [taken["step_id"]], *([[taken["attempt"]]] if attempts else [])]
        answer = _value(connection, function, made.worker.worker_id, *given)
        return "held" if answer else "lost"

    return move


def _skip(name: str) -> Move:
    def move(made: Scene, connection: Connection) -> str:
        connection.execute("select stellwerk.skip_step(%s, %s, '{}')", (made.run_id, made.step_id(name)))
        return "done"

    return move


def _begin(made: Scene, connection: Connection) -> str:
    rows = connection.execute(
        "select run_id, step_id, attempt from stellwerk.begin_steps(%s, 1, array[%s]::bigint[], array[%s]::bigint[])",
        (made.worker.worker_id, made.run_id, made.step_id("ring")),
    ).fetchall()
    for run_id, step_id, attempt in rows:
        made.taken["ring"] = {"run_id": run_id, "step_id": step_id, "attempt": attempt}
    return "taken" if rows else "nothing"


def _tick(made: Scene, connection: Connection) -> str:
    answer = _value(connection, "select stellwerk.tick()")
    return "moved" if answer["fired"] or answer["recovered"] else "nothing"


def _pump(made: Scene, connection: Connection) -> str:
    before = _messages(connection)
    answer = _value(connection, "select stellwerk.pump()")
    return "moved" if answer["runs_advanced"] or _messages(connection) != before else "nothing"


def _messages(connection: Connection) -> list[Any]:
    return connection.execute("select message_id, held from stellwerk.run_message order by 1").fetchall()


MOVES: dict[str, Move] = {
    "cancel": _verb("select stellwerk.cancel_run(%(run)s, 'enough')"),
    "undo": _verb("select stellwerk.cancel_run(%(run)s, 'enough', true)"),
    "pause": _verb("select stellwerk.pause_run(%(run)s)"),
    "resume": _verb("select stellwerk.resume_run(%(run)s)"),
    "retry": _verb("select stellwerk.retry_run(%(run)s)"),
    "retry from start": _verb("select stellwerk.retry_run(%(run)s, 'start')"),
    "cancel child": _verb("select stellwerk.cancel_run(%(child)s, 'enough')"),
    "pause child": _verb("select stellwerk.pause_run(%(child)s)"),
    "signal": lambda made, connection: f"woke {_value(connection, 'select stellwerk.signal(%s, %s)', 'paid', '7')}",
    "complete": _ends("ring"),
    "complete second": _ends("ring#1"),
    "complete other": _ends("other"),
    "complete a": _ends("a"),
    "complete b": _ends("b"),
    "complete c": _ends("c"),
    "complete pay": _ends("pay"),
    "fail": _ends("ring", error=PERMANENT),
    "fail pay": _ends("pay", error=PERMANENT),
    "begin": _begin,
    "give back": _ref("select stellwerk.release_steps(%s, 1, %s::bigint[], %s::bigint[], %s::integer[])", True),
    "live": _ref("select stellwerk.extend_leases(%s, 1, %s::bigint[], %s::bigint[], %s::integer[])", True),
    "skip ring": _skip("ring"),
    "skip wait": _skip("wait"),
    "skip ask": _skip("ask"),
    "tick": _tick,
    "pump": _pump,
}
