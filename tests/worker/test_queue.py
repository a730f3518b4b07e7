"""The functions of the queue: jobs that stand for many steps, and a doorbell that is rung only when somebody sleeps."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

Db = psycopg.Connection[Any]


def enqueue(db: Db, steps: list[tuple[int, int, str, int, Any]]) -> list[int]:
    columns = [list(column) for column in zip(*steps, strict=True)]
    row = db.execute(
        "select stellwerk.enqueue_steps(1, %s::bigint[], %s::bigint[], %s::text[], %s::int[], %s::timestamptz[])",
        columns,
    ).fetchone()
    assert row is not None
    return list(row[0])


def jobs(db: Db) -> dict[int, tuple[str, int, list[list[int]]]]:
    rows = db.execute("select id, entrypoint, priority, payload from stellwerk_queue.pgqueuer order by id").fetchall()
    return {row[0]: (row[1], row[2], json.loads(row[3])["s"]) for row in rows}


def test_each_step_is_told_its_job_in_the_same_order(tx: Db) -> None:
    steps = [(10 + n, 100 + n, "http.request" if n % 3 else "action.fonio_call", n % 2, None) for n in range(120)]
    ids = enqueue(tx, steps)
    known = jobs(tx)
    assert len(ids) == 120
    for job_id, (run_id, step_id, node_type, priority, _) in zip(ids, steps, strict=True):
        assert known[job_id][:2] == (node_type, priority)
        assert [run_id, step_id] in known[job_id][2]
    assert sum(len(job[2]) for job in known.values()) == 120


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, 1), (2, 2), (4, 4), (5, 3), (40, 4), (200, 4), (201, 5), (1000, 20)]
)
def test_many_steps_share_a_job_and_few_are_spread(tx: Db, steps: int, expected: int) -> None:
    ids = enqueue(tx, [(1, n, "http.request", 0, None) for n in range(steps)])
    known = jobs(tx)
    assert len(known) == len(set(ids)) == expected
    assert max(len(job[2]) for job in known.values()) <= 50


def test_steps_that_are_due_later_wait_in_jobs_of_their_own(tx: Db) -> None:
    first, second, third = enqueue(
        tx,
        [
            (1, 1, "http.request", 0, "2100-01-01Z"),
            (1, 2, "http.request", 0, None),
            (1, 3, "http.request", 0, "2100-01-01Z"),
        ],
    )
    assert second not in (first, third)
    rows = dict(
        tx.execute("select id, execute_after > now() + interval '1 year' from stellwerk_queue.pgqueuer").fetchall()
    )
    assert (rows[first], rows[second]) == (True, False)
    assert tx.execute("select stellwerk.next_job_seconds(array['http.request'])").fetchone() == (0.0,)
    assert tx.execute("select stellwerk.next_job_seconds(array['other'])").fetchone() == (None,)


def test_no_steps_are_no_job(tx: Db) -> None:
    row = tx.execute("select stellwerk.enqueue_steps(1, '{}', '{}', '{}', '{}', '{}')").fetchone()
    assert row == ([],)
    assert jobs(tx) == {}


def test_the_queue_says_what_became_of_jobs(tx: Db) -> None:
    (job_id,) = enqueue(tx, [(1, 1, "http.request", 0, None)])
    row = tx.execute("select stellwerk.enqueue_job('case.export', %s)", [json.dumps({"t": 1})]).fetchone()
    assert row is not None
    state = "select * from stellwerk.queue_state(%s) order by 1"
    assert tx.execute(state, [[job_id, row[0], 999_999_999]]).fetchall() == [(job_id, "queued"), (row[0], "queued")]
    assert tx.execute("select stellwerk.queue_holds(array['case.export'], 0.1)").fetchone() == (True,)
    assert tx.execute("select stellwerk.queue_holds(array['slack.send_message'], 0.1)").fetchone() == (False,)


def test_old_log_rows_are_pruned_and_young_ones_stay(tx: Db) -> None:
    enqueue(tx, [(1, 1, "http.request", 0, None)])
    tx.execute(
        "insert into stellwerk_queue.pgqueuer_log (created, job_id, status, entrypoint, priority)"
        " select now() - interval '2 hours', n, 'successful', 'x', 0 from generate_series(1, 30) n"
    )
    assert tx.execute("select stellwerk.prune_queue_log()").fetchone() == (30,)
    assert tx.execute("select count(*) from stellwerk_queue.pgqueuer_log").fetchone() == (1,)


def test_pgqueuers_own_trigger_is_gone(tx: Db) -> None:
    triggers = (
        "select count(*) from pg_trigger where tgrelid = 'stellwerk_queue.pgqueuer'::regclass and not tgisinternal"
    )
    assert tx.execute(triggers).fetchone() == (0,)


def test_enqueuing_rings_once_per_transaction(dsn: str, db: Db) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("listen ch_pgqueuer")
        with db.transaction():
            for n in range(5):
                enqueue(db, [(1, n, "http.request", 0, None)])
        heard = list(listener.notifies(timeout=0.5))
    assert len(heard) == 1
    assert json.loads(heard[0].payload)["type"] == "table_changed_event"


def test_an_unknown_bell_is_refused(tx: Db) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="nobody listens for x"):
        tx.execute("select stellwerk.ring('x')")


def test_the_doorbell_is_silent_while_nobody_sleeps_and_rings_while_somebody_does(dsn: str, db: Db) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as sleeper:
        listener.execute("listen stellwerk")
        db.execute("select stellwerk.ring_if_asleep()")
        assert list(listener.notifies(timeout=0.2)) == []
        sleeper.execute("select stellwerk.fall_asleep()")
        with db.transaction():
            for _ in range(3):
                db.execute("select stellwerk.ring_if_asleep()")
        assert [note.payload for note in listener.notifies(timeout=0.3)] == [""]
        assert sleeper.execute("select stellwerk.awaken()").fetchone() == (True,)
        db.execute("select stellwerk.ring_if_asleep()")
        assert list(listener.notifies(timeout=0.2)) == []


def test_one_worker_has_the_duty(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as one, psycopg.connect(dsn, autocommit=True) as two:
        assert one.execute("select stellwerk.take_duty()").fetchone() == (True,)
        assert two.execute("select stellwerk.take_duty()").fetchone() == (False,)
        one.close()
        for _ in range(100):
            row = two.execute("select stellwerk.take_duty()").fetchone()
            if row == (True,):
                break
        assert row == (True,)
