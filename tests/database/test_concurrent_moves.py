"""Two moves on the same run at the same moment, in both orders.

The first is made on a connection that keeps its transaction open until the second, on another connection, is seen to wait
for it, or has passed it over; then it commits. What the first has done counts, and the second must fit in: a worker's result
is late, a verb is refused, pump and tick look again later. Afterwards the laws hold, and everything can be driven to its end.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from database.helpers import START, Worker, call, document, run, start, states, transform
from database.scenes import MOVES, SCENES, Connection, Scene, broken


@dataclass
class Pair:
    """Two moves, what each answers, whether the second had to wait, and where the run is in the end."""

    scene: str
    first: str
    second: str
    answers: tuple[str, str]
    end: str
    nodes: dict[str, str] = field(default_factory=dict)
    waits: bool = True

    def __str__(self) -> str:
        return f"{self.scene}: {self.first}, {self.second}".replace(" ", "_")


PASSED = {"waits": False}  # pump and tick wait for nobody; a refused verb holds nothing

PAIRS = [
    # A worker's result and the end of its run.
    Pair("ringing", "complete", "cancel", ("accepted", "done"), "cancelled", {"ring": "completed", "last": "cancelled"}),
    Pair("ringing", "cancel", "complete", ("done", "late"), "cancelled", {"ring": "cancelled"}),
    Pair("ringing", "fail", "cancel", ("accepted", "SW003"), "failed", {"ring": "failed"}),
    Pair("ringing", "cancel", "fail", ("done", "late"), "cancelled", {"ring": "cancelled"}),
    Pair("ringing", "cancel", "cancel", ("done", "SW003"), "cancelled"),
    Pair("ringing", "complete", "complete", ("accepted", "late"), "completed"),
    Pair("ringing", "complete", "fail", ("accepted", "late"), "completed"),
    Pair("ringing", "fail", "complete", ("accepted", "late"), "failed"),
    Pair("looping", "cancel", "complete", ("done", "late"), "cancelled", {"each": "cancelled", "ring": "cancelled"}),
    Pair("looping", "complete", "cancel", ("accepted", "done"), "cancelled", {"each": "cancelled"}),
    # A result and time that is up: of the attempt, of the run, of the lease.
    Pair("overdue", "complete", "tick", ("accepted", "nothing"), "completed", **PASSED),
    Pair("overdue", "tick", "complete", ("moved", "late"), "failed", {"ring": "failed"}),
    Pair("out_of_time", "complete", "tick", ("accepted", "nothing"), "failed", {"ring": "completed", "last": "cancelled"}, **PASSED),
    Pair("out_of_time", "tick", "complete", ("moved", "late"), "failed", {"ring": "cancelled"}),
    Pair("silent", "complete", "tick", ("accepted", "nothing"), "completed", **PASSED),
    Pair("silent", "tick", "complete", ("moved", "late"), "completed"),
    Pair("silent", "live", "tick", ("held", "nothing"), "completed", **PASSED),
    Pair("silent", "tick", "live", ("moved", "lost"), "completed"),
    Pair("silent", "tick", "cancel", ("moved", "done"), "cancelled", {"ring": "cancelled"}),
    Pair("silent", "cancel", "tick", ("done", "nothing"), "cancelled", {"ring": "cancelled"}, **PASSED),
    Pair("ringing", "give back", "complete", ("held", "late"), "completed"),
    Pair("ringing", "complete", "give back", ("accepted", "lost"), "completed"),
    # Branches that end at once, where they meet.
    Pair("fork", "complete a", "complete b", ("accepted", "accepted"), "completed", {"a": "completed", "b": "completed", "meet": "completed"}),
    Pair("fork", "complete b", "complete a", ("accepted", "accepted"), "completed", {"a": "completed", "b": "completed", "meet": "completed"}),
    Pair("fork_any", "complete a", "complete b", ("accepted", "late"), "completed", {"a": "completed", "b": "cancelled", "meet": "completed"}),
    Pair("fork_any", "complete b", "complete a", ("accepted", "late"), "completed", {"a": "cancelled", "b": "completed", "meet": "completed"}),
    Pair("fork_count", "complete a", "complete c", ("accepted", "accepted"), "completed", {"a": "completed", "b": "cancelled", "c": "completed"}),
    Pair("fork_count", "complete c", "complete b", ("accepted", "accepted"), "completed", {"a": "cancelled", "b": "completed", "c": "completed"}),
    Pair("looping", "complete", "complete second", ("accepted", "accepted"), "completed", {"each": "completed", "end": "completed"}),
    Pair("looping", "complete second", "complete", ("accepted", "accepted"), "completed", {"each": "completed", "end": "completed"}),
    Pair("looping", "fail", "complete second", ("accepted", "late"), "failed", {"each": "failed"}),
    Pair("looping", "complete second", "fail", ("accepted", "accepted"), "failed", {"each": "failed"}),
    # Retrying.
    Pair("failed", "retry", "cancel", ("done", "done"), "cancelled", {"ring": "cancelled", "other": "cancelled"}),
    Pair("failed", "cancel", "retry", ("SW003", "done"), "completed", {"ring": "completed", "other": "completed"}, **PASSED),
    Pair("failed", "retry", "retry", ("done", "SW003"), "completed", {"ring": "completed", "other": "completed"}),
    Pair("failed", "retry", "retry from start", ("done", "SW003"), "completed"),
    Pair("failed", "retry from start", "retry", ("done", "SW003"), "completed"),
    Pair("failed", "retry", "complete other", ("done", "late"), "completed", {"ring": "completed", "other": "completed"}),
    Pair("failed", "complete other", "retry", ("late", "done"), "completed", {"ring": "completed", "other": "completed"}),
    Pair("failed", "retry", "pump", ("done", "nothing"), "completed", **PASSED),
    Pair("failed", "pump", "retry", ("nothing", "done"), "completed", **PASSED),
    # Pausing.
    Pair("ringing", "pause", "complete", ("done", "accepted"), "completed", {"ring": "completed", "last": "completed"}),
    Pair("ringing", "complete", "pause", ("accepted", "done"), "completed", {"ring": "completed", "last": "completed"}),
    Pair("ringing", "pause", "fail", ("done", "accepted"), "failed"),
    Pair("ringing", "fail", "pause", ("accepted", "SW003"), "failed"),
    Pair("ringing", "pause", "pause", ("done", "SW003"), "completed"),
    Pair("ringing", "pause", "cancel", ("done", "done"), "cancelled"),
    Pair("ringing", "cancel", "pause", ("done", "SW003"), "cancelled"),
    Pair("ringing", "pause", "give back", ("done", "held"), "completed"),
    Pair("ringing", "give back", "pause", ("held", "done"), "completed"),
    Pair("queued", "pause", "begin", ("done", "nothing"), "completed"),
    Pair("queued", "begin", "pause", ("taken", "done"), "completed"),
    Pair("overdue", "pause", "tick", ("done", "nothing"), "failed", {"ring": "failed"}, **PASSED),
    Pair("overdue", "tick", "pause", ("moved", "SW003"), "failed", {"ring": "failed"}),
    Pair("out_of_time", "pause", "tick", ("done", "nothing"), "failed", **PASSED),
    Pair("out_of_time", "tick", "pause", ("moved", "SW003"), "failed"),
    Pair("paused", "resume", "complete", ("done", "accepted"), "completed", {"ring": "completed", "last": "completed"}),
    Pair("paused", "complete", "resume", ("accepted", "done"), "completed", {"ring": "completed", "last": "completed"}),
    Pair("paused", "resume", "cancel", ("done", "done"), "cancelled"),
    Pair("paused", "cancel", "resume", ("done", "SW003"), "cancelled"),
    Pair("pausing", "resume", "pump", ("done", "nothing"), "completed", **PASSED),
    Pair("pausing", "pump", "resume", ("nothing", "done"), "completed", **PASSED),
    Pair("pausing", "resume", "undo", ("done", "done"), "cancelled"),
    # Starting.
    Pair("pending", "pump", "cancel", ("moved", "SW003"), "completed"),
    Pair("pending", "cancel", "pump", ("done", "nothing"), "cancelled", **PASSED),
    Pair("pending", "pause", "pump", ("done", "nothing"), "completed", **PASSED),
    Pair("pending", "pump", "pause", ("moved", "SW003"), "completed"),
    Pair("pending", "pump", "pump", ("moved", "nothing"), "completed", **PASSED),
    Pair("queued", "begin", "begin", ("taken", "nothing"), "completed"),
    Pair("queued", "begin", "cancel", ("taken", "done"), "cancelled", {"ring": "cancelled"}),
    Pair("queued", "cancel", "begin", ("done", "nothing"), "cancelled", {"ring": "cancelled"}),
    # Signals, and waits that end in another way.
    Pair("waiting", "signal", "tick", ("woke 1", "moved"), "completed", {"late": "completed"}, **PASSED),
    Pair("waiting", "tick", "signal", ("moved", "woke 1"), "completed", {"late": "completed"}, **PASSED),
    Pair("waiting", "signal", "cancel", ("woke 1", "done"), "cancelled", {"wait": "cancelled"}, **PASSED),
    Pair("waiting", "cancel", "signal", ("done", "woke 1"), "cancelled", {"wait": "cancelled"}, **PASSED),
    Pair("waiting", "signal", "signal", ("woke 1", "woke 0"), "completed", {"late": "completed"}),
    Pair("in_time", "pump", "tick", ("moved", "nothing"), "completed", {"came": "completed"}, **PASSED),
    Pair("in_time", "tick", "pump", ("nothing", "nothing"), "completed", {"came": "completed"}, **PASSED),
    Pair("in_time", "pause", "tick", ("done", "nothing"), "completed", {"came": "completed"}, **PASSED),
    Pair("waiting", "signal", "pause", ("woke 1", "done"), "completed", {"came": "completed"}, **PASSED),
    Pair("waiting", "pause", "signal", ("done", "woke 1"), "completed", {"came": "completed"}, **PASSED),
    Pair("signalled", "pump", "tick", ("moved", "nothing"), "completed", {"came": "completed"}, **PASSED),
    Pair("signalled", "tick", "pump", ("moved", "nothing"), "completed", {"late": "completed"}, **PASSED),
    Pair("signalled", "pump", "cancel", ("moved", "SW003"), "completed", {"came": "completed"}),
    Pair("signalled", "cancel", "pump", ("done", "nothing"), "cancelled", {"wait": "cancelled"}, **PASSED),
    Pair("signalled", "pump", "pause", ("moved", "SW003"), "completed", {"came": "completed"}),
    Pair("signalled", "pause", "pump", ("done", "nothing"), "completed", {"came": "completed"}, **PASSED),
    Pair("arriving", "signal", "pump", ("woke 0", "moved"), "completed", {"wait": "completed"}, **PASSED),
    Pair("arriving", "pump", "signal", ("moved", "woke 1"), "completed", {"wait": "completed"}),
    # Skipping.
    Pair("ringing", "skip ring", "complete", ("SW003", "accepted"), "completed", {"ring": "completed"}, **PASSED),
    Pair("ringing", "complete", "skip ring", ("accepted", "SW003"), "completed", {"ring": "completed"}),
    Pair("queued", "skip ring", "begin", ("done", "nothing"), "completed", {"ring": "skipped", "end": "completed"}),
    Pair("queued", "begin", "skip ring", ("taken", "SW003"), "completed", {"ring": "completed"}),
    Pair("queued", "skip ring", "cancel", ("done", "done"), "cancelled", {"ring": "skipped"}),
    Pair("queued", "cancel", "skip ring", ("done", "SW003"), "cancelled", {"ring": "cancelled"}),
    Pair("queued", "skip ring", "skip ring", ("done", "SW003"), "completed", {"ring": "skipped"}),
    Pair("waiting", "skip wait", "signal", ("done", "woke 1"), "completed", {"wait": "skipped", "came": "completed"}, **PASSED),
    Pair("waiting", "signal", "skip wait", ("woke 1", "done"), "completed", {"wait": "skipped", "came": "completed"}, **PASSED),
    Pair("waiting", "skip wait", "tick", ("done", "nothing"), "completed", {"wait": "skipped", "came": "completed"}, **PASSED),
    Pair("waiting", "tick", "skip wait", ("moved", "SW003"), "completed", {"wait": "completed", "late": "completed"}),
    Pair("signalled", "skip wait", "pump", ("done", "nothing"), "completed", {"wait": "skipped"}, **PASSED),
    Pair("signalled", "pump", "skip wait", ("moved", "SW003"), "completed", {"wait": "completed"}),
    # Parents and children.
    Pair("calling", "cancel", "complete", ("done", "accepted"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("calling", "complete", "cancel", ("accepted", "done"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("calling", "cancel", "fail", ("done", "accepted"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("calling", "pause", "complete", ("done", "accepted"), "completed", {"ask": "completed", "after": "completed"}, **PASSED),
    Pair("calling", "complete", "pause", ("accepted", "done"), "completed", {"ask": "completed", "after": "completed"}, **PASSED),
    Pair("calling", "tick", "complete", ("moved", "accepted"), "completed", {"ask": "completed", "late": "completed"}, **PASSED),
    Pair("calling", "complete", "tick", ("accepted", "moved"), "completed", {"ask": "completed", "late": "completed"}, **PASSED),
    Pair("calling", "cancel", "cancel child", ("done", "done"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("calling", "cancel child", "cancel", ("done", "done"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("calling", "pause child", "cancel", ("done", "done"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("calling", "skip ask", "complete", ("done", "accepted"), "completed", {"ask": "skipped", "after": "completed"}, **PASSED),
    Pair("calling", "complete", "skip ask", ("accepted", "done"), "completed", {"ask": "skipped", "after": "completed"}, **PASSED),
    Pair("told", "pump", "cancel", ("moved", "SW003"), "completed", {"ask": "completed", "after": "completed"}),
    Pair("told", "cancel", "pump", ("done", "nothing"), "cancelled", {"ask": "cancelled"}, **PASSED),
    Pair("told", "pump", "tick", ("moved", "nothing"), "completed", {"ask": "completed", "after": "completed"}, **PASSED),
    Pair("told", "tick", "pump", ("moved", "nothing"), "completed", {"ask": "completed", "late": "completed"}, **PASSED),
    Pair("orphaned", "pump", "complete", ("moved", "late"), "cancelled"),
    Pair("orphaned", "complete", "pump", ("accepted", "nothing"), "cancelled", **PASSED),
    # Compensation.
    Pair("booked", "undo", "complete pay", ("done", "accepted"), "cancelled", {"pay": "completed", "undo": "completed", "refund": "completed"}),
    Pair("booked", "complete pay", "undo", ("accepted", "done"), "cancelled", {"last": "cancelled", "undo": "completed", "refund": "completed"}),
    Pair("booked", "undo", "fail pay", ("done", "accepted"), "cancelled", {"pay": "failed", "undo": "completed"}),
    Pair("booked", "fail pay", "undo", ("accepted", "SW003"), "failed", {"pay": "failed", "undo": "completed"}),
    Pair("booked", "undo", "cancel", ("done", "done"), "cancelled"),
    Pair("booked", "cancel", "undo", ("done", "SW003"), "cancelled", {"pay": "cancelled"}),
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_two_moves_at_once_come_to_a_legal_end(pair, dsn, db, make_workflow, run_all, wait_until):
    made = SCENES[pair.scene](db, dsn, make_workflow, run_all)
    assert broken(db) == []
    answers, waited = both(pair, made, dsn, wait_until)
    assert answers == pair.answers
    assert waited == pair.waits
    assert broken(db) == []
    drive_to_the_end(made, run_all)
    assert broken(db, at_rest=True) == []
    ended = run(db, made.run_id)
    assert (ended["state"], ended["live_steps"]) == (pair.end, 0)
    if made.child_id is not None:
        assert run(db, made.child_id)["live_steps"] == 0
    found = states(db, made.run_id)
    assert {name: found.get(name) for name in pair.nodes} == pair.nodes


def both(pair: Pair, made: Scene, dsn: str, wait_until: Any) -> tuple[tuple[str, str], bool]:
    """Make the moves; answers what they answered, and whether the second has waited for the first."""
    answers: list[str] = []
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        for connection in (one, two):
            # Longer than a deadlock takes to be found, shorter than a test may take.
            connection.execute("set statement_timeout = '20s'")
            connection.commit()
        first = answer(pair.first, made, one)
        thread = threading.Thread(target=lambda: answers.append(answer(pair.second, made, two)))
        thread.start()

        def waits() -> bool:
            found = made.db.execute(
                "select %s = any (pg_blocking_pids(%s))", (one.info.backend_pid, two.info.backend_pid)
            ).fetchone()
            return found == (True,)

        waited = False

        def settled() -> bool:
            nonlocal waited
            waited = waited or waits()
            return waited or not thread.is_alive()

        wait_until(settled, 15, "waiting for the first move, or the end of the second")
        one.commit()
        thread.join(25)
        assert not thread.is_alive()
        two.commit()
    return (first, answers[0]), waited


def answer(move: str, made: Scene, connection: Connection) -> str:
    """What a move answers; a refusal is its SQLSTATE, and anything else that goes wrong is too, so that it is seen."""
    try:
        return MOVES[move](made, connection)
    except psycopg.Error as problem:
        connection.rollback()
        return str(problem.sqlstate)


def drive_to_the_end(made: Scene, run_all: Any) -> None:
    """Time passes, paused runs go on, and a worker does what there is to do, until nothing is left."""
    db = made.db
    for _ in range(20):
        db.execute(
            "update stellwerk.timer set due_at = clock_timestamp() where kind = 'retry' and due_at < stellwerk.never()"
        )
        db.execute("select stellwerk.tick()")
        run_all(db)
        assert broken(db, at_rest=True) == []
        stopped = db.execute("select run_id from stellwerk.run where state = 'paused' order by run_id").fetchall()
        for (run_id,) in stopped:
            if run(db, run_id)["state"] == "paused":  # the parent may have taken it along
                db.execute("select stellwerk.resume_run(%s)", (run_id,))
                run_all(db)
        running = [
            {"run_id": run_id, "step_id": step_id, "attempt": attempt}
            for run_id, step_id, attempt in db.execute(
                "select run_id, step_id, attempt from stellwerk.step where state = 'running'"
            ).fetchall()
        ]
        taken = [*running, *made.worker.begin()]
        if taken:
            made.worker.end(*taken)
        elif not stopped:
            return
    raise AssertionError("the runs do not come to an end")


@pytest.mark.parametrize("turn", [1, -1], ids=["upwards", "downwards"])
def test_batches_in_any_order_do_not_block_each_other_for_ever(turn, dsn, db, make_workflow, run_all, wait_until):
    """Runs are locked from the lowest number up, whatever the order in which results are handed in."""
    slug = make_workflow(
        document(
            "both",
            [START, call("a"), call("b"), transform("end", 1)],
            ["start -> a", "start -> b", "a -> end", "b -> end"],
        )
    )
    ids = [start(db, slug) for _ in range(5)]
    run_all(db)
    workers = [Worker(dsn), Worker(dsn)]
    queued = workers[0].queued()
    parts = [workers[0].begin(queued[0::2]), workers[1].begin(queued[1::2])]
    assert sorted(t["run_id"] for t in parts[0]) == sorted(t["run_id"] for t in parts[1]) == ids
    accepted: list[int] = []
    with psycopg.connect(dsn) as gate:
        gate.execute("select from stellwerk.run where run_id = %s for update", (ids[2],))
        threads = [
            threading.Thread(target=lambda w=worker, t=taken: accepted.append(w.end(*t)["accepted"]))
            for worker, taken in ((workers[0], parts[0]), (workers[1], parts[1][::turn]))
        ]
        for thread, worker in zip(threads, workers, strict=True):
            thread.start()
            pid = worker.connection.info.backend_pid
            wait_until(lambda p=pid: db.execute("select pg_blocking_pids(%s) <> '{}'", (p,)).fetchone()[0], 15)
    for thread in threads:
        thread.join(25)
    assert accepted == [5, 5]
    assert {run(db, run_id)["state"] for run_id in ids} == {"completed"}
    assert broken(db, at_rest=True) == []
