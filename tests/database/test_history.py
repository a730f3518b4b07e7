"""Looking back: how a run stood at an earlier time, and where two runs differ."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import FAILURE, PERMANENT, START, Worker, call, document, node, run, start, steps, transform
from psycopg.rows import dict_row


@pytest.fixture
def ring(make_workflow):
    return make_workflow(
        document(
            "ring",
            [START, transform("plan", 1), call("ring"), transform("end", 2)],
            ["start -> plan", "plan -> ring", "ring -> end"],
        )
    )


@pytest.fixture
def worker(dsn):
    return Worker(dsn)


def now(db):
    return db.execute("select clock_timestamp()").fetchone()[0]


def stood(db, run_id, at):
    """The run's own row, and { node: (state, attempt) } of its steps."""
    with db.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from stellwerk.run_state_at(%s, %s)", (run_id, at)).fetchall()
    assert [row["node_id"] is None for row in rows] == [True] + [False] * (len(rows) - 1) if rows else True
    assert all(row["since"] <= at for row in rows)
    return (rows[0] if rows else None), {row["node_id"]: (row["state"], row["attempt"]) for row in rows[1:]}


def differences(db, a, b):
    with db.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("select * from stellwerk.diff_runs(%s, %s)", (a, b)).fetchall()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    return [
        (row["kind"], row["node_id"], row["path"], row["a_value"], row["b_value"])
        for row in rows
        if row["kind"] != "seconds"
    ]


# -- run_state_at -----------------------------------------------------------------------------------------------------


def test_a_run_is_shown_as_it_was_at_each_moment(db, ring, run_all, worker):
    before = now(db)
    run_id = start(db, ring)
    ordered = now(db)
    run_all(db)
    queued = now(db)
    (taken,) = worker.begin()
    first = now(db)
    worker.end(taken, error=FAILURE)
    failed = now(db)
    db.execute("update stellwerk.step set due_at = null where state = 'queued'")
    (taken,) = worker.begin()
    second = now(db)
    worker.end(taken)
    done = now(db)

    assert stood(db, run_id, before) == (None, {})
    row, places = stood(db, run_id, ordered)
    assert (row["state"], places) == ("pending", {})
    row, places = stood(db, run_id, queued)
    assert row["state"] == "running"
    assert places == {"start": ("completed", 1), "plan": ("completed", 1), "ring": ("queued", 0)}
    assert stood(db, run_id, first)[1]["ring"] == ("running", 1)
    assert stood(db, run_id, failed)[1]["ring"] == ("queued", 1)
    assert stood(db, run_id, second)[1]["ring"] == ("running", 2)
    row, places = stood(db, run_id, done)
    assert (row["state"], row["since"]) == ("completed", run(db, run_id)["ended_at"])
    assert places == {
        "start": ("completed", 1),
        "plan": ("completed", 1),
        "ring": ("completed", 2),
        "end": ("completed", 1),
    }


def test_a_running_step_of_the_past_names_its_worker(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    taken = worker.begin()
    at = now(db)
    worker.end(*taken)
    rows = db.execute(
        "select state, worker_id from stellwerk.run_state_at(%s, %s) where node_id = 'ring'", (run_id, at)
    ).fetchall()
    assert rows == [("running", worker.worker_id)]


def test_waits_joins_and_pauses_are_seen(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document(
            "meet",
            [
                START,
                call("slow"),
                node("hold", "logic.wait", {"for": "PT1H"}),
                node("meet", "logic.join", {"mode": "all"}),
                transform("fast", 1),
            ],
            ["start -> slow", "start -> fast", "slow -> meet", "fast -> meet", "start -> hold"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    at = now(db)
    worker.end(*worker.begin())
    run_all(db)
    waiting = now(db)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    paused = now(db)
    row, places = stood(db, run_id, at)
    assert row["state"] == "running"
    assert places["slow"] == ("queued", 0)
    assert places["meet"] == ("joining", 0)
    assert places["hold"] == ("waiting", 1)
    row, places = stood(db, run_id, waiting)
    assert row["state"] == "waiting"
    assert places["meet"] == ("completed", 1)
    assert stood(db, run_id, paused)[0]["state"] == "paused"
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    row, places = stood(db, run_id, now(db))
    assert (row["state"], places["hold"]) == ("cancelled", ("cancelled", 1))
    assert stood(db, run_id, waiting)[1]["hold"] == ("waiting", 1)


def test_a_failure_that_was_retried_is_still_seen(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    worker.end(*worker.begin(), error=PERMANENT)
    failed = now(db)
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    reopened = now(db)
    worker.end(*worker.begin())
    row, places = stood(db, run_id, failed)
    assert (row["state"], places["ring"]) == ("failed", ("failed", 1))
    row, places = stood(db, run_id, reopened)
    assert (row["state"], places["ring"]) == ("running", ("queued", 1))
    assert stood(db, run_id, now(db))[0]["state"] == "completed"


def test_no_time_and_no_run_are_told(db, ring):
    run_id = start(db, ring)
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from stellwerk.run_state_at(%s, null)", (run_id,))
    assert caught.value.sqlstate == "SW002"
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from stellwerk.run_state_at(99, now())")
    assert caught.value.sqlstate == "SW007"


# -- diff_runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def price(make_workflow):
    return make_workflow(
        document(
            "price",
            [
                START,
                node("big", "logic.if", {"condition": "trigger.payload.total > 100"}),
                transform("check", {"checked": True}),
                transform("book", {"total": "{{ trigger.payload.total }}"}),
            ],
            ["start -> big", "big.true -> check", "big.false -> book"],
        )
    )


def test_runs_that_went_the_same_way_differ_in_values_alone(db, price, run_all):
    a = start(db, price, {"total": 5, "who": {"name": "Ada", "tags": [1, 2]}})
    b = start(db, price, {"total": 6, "who": {"name": "Ada", "tags": [1, 3, 4]}, "note": None})
    run_all(db)
    assert differences(db, a, b) == [
        ("payload", None, "note", None, None),
        ("payload", None, "total", 5, 6),
        ("payload", None, "who.tags.1", 2, 3),
        ("payload", None, "who.tags.2", None, 4),
        ("output", "book", "total", 5, 6),
        ("output", None, "total", 5, 6),
    ]
    assert differences(db, a, a) == []


def test_the_step_at_which_the_ways_part_is_named(db, price, run_all):
    a, b = start(db, price, {"total": 5}), start(db, price, {"total": 500})
    run_all(db)
    found = differences(db, a, b)
    parted = next(row for row in found if row[0] == "parted")
    assert parted[1] == "big"
    assert (parted[3]["port"], parted[4]["port"]) == ("false", "true")
    assert [(row[1], row[3] is None, row[4] is None) for row in found if row[0] == "step"] == [
        ("big", False, False),
        ("book", False, True),
        ("check", True, False),
    ]


def test_version_state_error_and_failures_are_compared(db, ring, make_workflow, run_all, worker):
    a = start(db, ring)
    run_all(db)
    (taken,) = worker.begin()
    worker.end(taken, error=PERMANENT)
    make_workflow(document("ring", [START, call("ring")], ["start -> ring"]))
    b = start(db, ring)
    run_all(db)
    worker.end(*worker.begin(), output={"ok": 1})
    found = differences(db, a, b)
    assert found[:2] == [("version", None, None, 1, 2), ("state", None, None, "failed", "completed")]
    assert ("step", "plan", None, {"state": "completed", "port": "next", "failures": 0}, None) in found
    assert ("error", None, "message", "it will never work", None) not in found  # b has no error at all: told in one
    assert [row[1] for row in found if row[0] == "error"] == ["ring", None]


def test_steps_in_loops_are_paired_by_item_and_not_by_number(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "loops",
            [
                START,
                node("outer", "logic.loop", {"items": "{{ trigger.payload }}"}),
                node("inner", "logic.loop", {"items": "{{ item }}"}),
                transform("twice", "{{ item * 2 }}"),
            ],
            ["start -> outer", "outer.each -> inner", "inner.each -> twice"],
        )
    )
    a = start(db, slug, [[1, 2], [3]])
    b = start(db, slug, [[1, 5], [3, 4]])
    run_all(db)
    found = differences(db, a, b)
    outputs = {row[1]: row[3:] for row in found if row[0] == "output" and row[1] and row[1].startswith("twice")}
    assert outputs == {"twice[0][1]": (4, 10)}
    assert [row[1] for row in found if row[0] == "step"] == ["twice[1][1]"]


def test_durations_are_compared_by_node(db, ring, run_all, worker):
    a, b = start(db, ring), start(db, ring)
    run_all(db)
    worker.end(*worker.begin())
    db.execute(
        "update stellwerk.step set ended_at = ended_at + interval '5 seconds' where run_id = %s and node_id = 'ring'",
        (b,),
    )
    rows = db.execute(
        "select node_id, b_value::numeric - a_value::numeric from stellwerk.diff_runs(%s, %s) where kind = 'seconds'",
        (a, b),
    ).fetchall()
    assert rows[0][0] is None
    assert rows[1][0] == "ring"
    assert 4.5 < rows[1][1] < 5.5


def test_very_large_values_are_compared_without_end(db, price, run_all):
    a = start(db, price, {"total": 1, "rows": list(range(5000))})
    b = start(db, price, {"total": 1, "rows": list(range(1, 5001))})
    run_all(db)
    assert len([row for row in differences(db, a, b) if row[0] == "payload"]) == 200


def test_a_run_that_does_not_exist_is_told(db, price):
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from stellwerk.diff_runs(%s, 99)", (start(db, price),))
    assert caught.value.sqlstate == "SW007"
    assert steps(db, 1) == []
