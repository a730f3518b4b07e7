"""Steps through a worker: carried out, failed, timed out, given back; and what must not stand in each other's way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from worker.puppet import Counted

from stellwerk.errors import UsageError

Steps = Callable[[int], list[dict[str, Any]]]


def test_a_run_of_worker_steps_is_carried_out(chain, engine, start_worker, state_of, steps_of, wait_until) -> None:
    start_worker()
    run_id = engine.start_run(chain("three", "ok", "ok", "ok"))
    wait_until(lambda: state_of(run_id) == "completed")
    steps = steps_of(run_id)
    assert [step["node_id"] for step in steps] == ["w1", "w2", "w3"]
    assert {step["attempt"] for step in steps} == {1}
    assert len({step["output"]["key"] for step in steps}) == 3


def test_a_worker_with_nothing_else_to_do_takes_a_whole_run_past_the_queue(
    chain, engine, db, start_worker, state_of, wait_until
) -> None:
    start_worker()
    run_id = engine.start_run(chain("quick", *["ok"] * 10))
    wait_until(lambda: state_of(run_id) == "completed")
    assert db.execute("select count(*) from stellwerk_queue.pgqueuer_log").fetchone() == (0,)


def test_concurrency_bounds_also_what_is_begun_past_the_queue(chain, engine, db, start_worker, wait_until) -> None:
    slug = chain("bounded", *["sleep 0.02"] * 5)
    runs = [engine.start_run(slug) for _ in range(20)]
    began = time.monotonic()
    start_worker(concurrency=3)
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (20,))
    assert time.monotonic() - began >= 20 * 5 * 0.02 / 3
    assert db.execute("select max(attempt) from stellwerk.step where runs_in = 'worker'").fetchone() == (1,)


def test_quick_steps_are_in_hand_before_they_have_a_place(chain, engine, db, start_worker, wait_until) -> None:
    """No more are carried out at once for that, and none twice."""
    slug = chain("quick", *["ok"] * 8)
    runs = [engine.start_run(slug) for _ in range(150)]
    counted = Counted()
    start_worker({"action.fonio_call": counted}, concurrency=20)
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (150,))
    assert counted.most <= 20
    assert len(counted.done) == len(set(counted.done)) == 150 * 8
    assert db.execute("select max(attempt) from stellwerk.step where runs_in = 'worker'").fetchone() == (1,)


def test_runs_that_go_on_leave_the_queue_its_share(chain, engine, start_worker, wait_until) -> None:
    """More long runs than a worker holds go on step by step; one that is asked for last is through long before them."""
    slug = chain("long", *["ok"] * 25)
    for _ in range(70):
        engine.start_run(slug)
    counted = Counted()
    start_worker({"action.fonio_call": counted}, concurrency=20)
    wait_until(lambda: len(counted.done) > 200)
    last = engine.start_run(chain("short", "ok"))
    wait_until(lambda: len(counted.done) == 70 * 25 + 1)
    (place,) = (n for n, key in enumerate(counted.done) if key.startswith(f"{last}:"))
    assert place < 70 * 25 * 0.75


def test_steps_that_get_no_place_soon_go_back_to_the_queue(chain, engine, db, start_worker, wait_until) -> None:
    """Begun while they were quick, and now their type is stuck in this worker: another one carries them out meanwhile."""
    slug = chain("stuck", *["ok"] * 30)
    runs = [engine.start_run(slug) for _ in range(70)]
    stuck, other = Counted(), Counted()
    start_worker({"action.fonio_call": stuck}, concurrency=20)
    wait_until(lambda: len(stuck.done) > 500)
    stuck.held = True
    running = "select count(*) from stellwerk.step where runs_in = 'worker' and state = 'running'"
    released = "select count(*) from stellwerk.step_attempt where outcome = 'released'"
    wait_until(lambda: stuck.now == 20 and db.execute(running).fetchone() == (20,))
    wait_until(lambda: db.execute(released).fetchone() > (0,))
    start_worker({"action.fonio_call": other}, concurrency=20)
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (50,))
    stuck.held = False
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (70,))
    carried_out = stuck.done + other.done
    assert len(carried_out) == len(set(carried_out)) == 70 * 30


def test_a_worker_whose_places_are_all_taken_leaves_the_rest_to_others(chain, engine, start_worker, wait_until) -> None:
    slug = chain("slow", "ok")
    hanging, other = Counted(), Counted()
    hanging.held = True
    start_worker({"action.fonio_call": hanging}, concurrency=2)
    for _ in range(40):
        engine.start_run(slug)
    wait_until(lambda: hanging.now == 2)
    start_worker({"action.fonio_call": other}, concurrency=2)
    wait_until(lambda: len(other.done) == 38)
    hanging.held = False
    wait_until(lambda: len(hanging.done) == 2)


def test_steps_that_wait_for_a_place_go_back_when_the_worker_stops(
    chain, engine, db, start_worker, wait_until, monkeypatch
) -> None:
    """Begun while they were quick, and not carried out when they have become slow: whoever comes next has them at once."""
    monkeypatch.setattr("stellwerk.worker.steps.PATIENCE_SECONDS", 60.0)
    slug = chain("slower", *["ok"] * 30)
    runs = [engine.start_run(slug) for _ in range(70)]
    counted = Counted()
    worker = start_worker({"action.fonio_call": counted}, concurrency=20)
    wait_until(lambda: len(counted.done) > 500)
    counted.held = True
    wait_until(lambda: counted.now == 20)
    running = "select count(*) from stellwerk.step where runs_in = 'worker' and state = 'running'"
    # Those that had ended before are recorded, and their runs have gone on: what runs now has a place, or waits for one.
    wait_until(lambda: db.execute(running).fetchone() > (20,))
    begun = counted.begun
    worker.ask_to_stop()
    wait_until(lambda: db.execute(running).fetchone() == (20,))
    counted.held = False
    worker.join()
    assert counted.begun == begun
    assert db.execute(running).fetchone() == (0,)
    assert len(counted.done) == len(set(counted.done)) == begun
    start_worker({"action.fonio_call": counted}, concurrency=20)
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (70,))
    assert len(counted.done) == len(set(counted.done)) == 70 * 30


def test_all_that_a_vanished_worker_held_is_taken_over_at_once(
    chain, engine, db, start_worker, wait_until, monkeypatch
) -> None:
    """More than one tick gives back: the next does not wait for its time."""
    monkeypatch.setattr("stellwerk.worker.pump.TICK_SECONDS", 3600.0)
    runs = "select count(stellwerk.start_run(%s)) from generate_series(1, 1200)"
    db.execute(runs, [chain("held", "ok")])
    held = 0
    while held < 1200:
        ((answer,),) = db.execute(
            "select stellwerk.pump_and_begin(500, 999999, array['action.fonio_call'], 500)"
        ).fetchall()
        held += len(answer["begun"])
    start_worker()
    done = "select count(*) from stellwerk.run where state = 'completed'"
    wait_until(lambda: db.execute(done).fetchone() == (1200,))
    assert db.execute("select min(attempt), max(attempt) from stellwerk.step where runs_in = 'worker'").fetchone() == (
        2,
        2,
    )


def test_a_hundred_runs_at_once(chain, engine, db, start_worker, wait_until) -> None:
    slug = chain("many", "ok", "ok")
    runs = [engine.start_run(slug) for _ in range(100)]
    start_worker()
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (100,))
    assert db.execute("select count(*), max(attempt) from stellwerk.step where runs_in = 'worker'").fetchone() == (
        200,
        1,
    )
    wait_until(lambda: db.execute("select count(*) from stellwerk_queue.pgqueuer").fetchone() == (0,))


def test_a_failed_attempt_is_tried_again_with_the_same_key(
    chain, engine, start_worker, state_of, steps_of, wait_until
) -> None:
    start_worker()
    retry = {"max_attempts": 3, "interval": "PT0.2S", "backoff": 1, "jitter": False}
    run_id = engine.start_run(chain("again", "fail 2", retry=retry))
    wait_until(lambda: state_of(run_id) == "completed")
    (step,) = steps_of(run_id)
    assert (step["attempt"], step["failures"]) == (3, 2)
    assert step["output"]["key"].endswith(":1")


def test_a_step_that_keeps_failing_fails_the_run_with_its_error(
    chain, engine, db, start_worker, state_of, wait_until
) -> None:
    start_worker()
    retry = {"max_attempts": 2, "interval": "PT0.1S", "backoff": 1, "jitter": False}
    run_id = engine.start_run(chain("never", "fail", retry=retry))
    wait_until(lambda: state_of(run_id) == "failed")
    row = db.execute("select error from stellwerk.run where run_id = %s", [run_id]).fetchone()
    assert row is not None
    assert row[0]["class"] == "told_to"
    assert row[0]["message"] == "it did not work"
    assert row[0]["detail"] == {"n": 2}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("nan", "NaN"),
        ("nul", "NUL"),
        ("surrogate", "surrogate"),
        ("deep", "64 levels"),
        ("large", "more than the 1000000"),
        ("object", "no JSON"),
    ],
)
def test_a_result_that_cannot_be_stored_is_a_clear_permanent_error(
    script, said, chain, engine, start_worker, state_of, steps_of, wait_until
) -> None:
    start_worker()
    run_id = engine.start_run(chain(f"bad-{script}", script))
    wait_until(lambda: state_of(run_id) == "failed")
    (step,) = steps_of(run_id)
    assert step["attempt"] == 1
    assert step["error"]["class"] == "invalid_result"
    assert said in step["error"]["message"]


def test_an_unknown_exception_names_its_type_and_not_its_text(
    chain, engine, start_worker, state_of, steps_of, wait_until, caplog
) -> None:
    start_worker()
    run_id = engine.start_run(chain("raises", "raise", retry={"max_attempts": 1}))
    wait_until(lambda: state_of(run_id) == "failed")
    (step,) = steps_of(run_id)
    assert step["error"]["class"] == "KeyError"
    assert step["error"]["retryable"] is True
    assert "hunter2" not in str(step["error"]) + caplog.text


def test_an_attempt_that_takes_too_long_ends_with_class_timeout(
    chain, engine, start_worker, state_of, steps_of, wait_until
) -> None:
    start_worker()
    run_id = engine.start_run(chain("slow", "sleep 30", timeout="PT0.3S", retry={"max_attempts": 1}))
    wait_until(lambda: state_of(run_id) == "failed")
    assert steps_of(run_id)[0]["error"]["class"] == "timeout"


def test_settings_that_do_not_fit_are_told_without_their_values(
    make_workflow, engine, start_worker, state_of, steps_of, wait_until
) -> None:
    from stellwerk.executors.http import HttpRequest

    start_worker({"http.request": HttpRequest()})
    config = {"url": "{{ trigger.payload.url }}", "body": "{{ trigger.payload.secret }}"}
    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {"id": "a", "type": "http.request", "config": config},
    ]
    run_id = engine.start_run(
        make_workflow({"slug": "unfit", "name": "unfit", "steps": steps}), {"url": 7, "secret": ["hunter2"]}
    )
    wait_until(lambda: state_of(run_id) == "failed")
    error = steps_of(run_id)[0]["error"]
    assert error["class"] == "invalid_config"
    assert error["retryable"] is False
    assert "hunter2" not in str(error)


def test_blocking_code_does_not_stop_the_others(
    make_workflow, chain, engine, start_worker, state_of, wait_until
) -> None:
    start_worker()
    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {"id": "a", "type": "action.esign_request", "config": {"subject": "block 6"}},
    ]
    slug = make_workflow({"slug": "blocking", "name": "blocking", "steps": steps})
    blocked = engine.start_run(slug)
    quick = engine.start_run(chain("quick", "ok"))
    wait_until(lambda: state_of(quick) == "completed", 5)
    wait_until(lambda: state_of(blocked) == "completed")


def test_concurrency_bounds_what_runs_at_once(chain, engine, start_worker, db, wait_until) -> None:
    start_worker(concurrency=2)
    slug = chain("bounded", "sleep 0.3")
    began = time.monotonic()
    for _ in range(6):
        engine.start_run(slug)
    wait_until(lambda: db.execute("select count(*) from stellwerk.run where state = 'completed'").fetchone() == (6,))
    assert time.monotonic() - began >= 0.9


def test_only_limits_the_types(make_workflow, chain, engine, start_worker, state_of, wait_until) -> None:
    start_worker(only=["action.esign_request"])
    other = engine.start_run(chain("other", "ok"))
    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {"id": "a", "type": "action.esign_request", "config": {}},
    ]
    ours = engine.start_run(make_workflow({"slug": "ours", "name": "ours", "steps": steps}))
    wait_until(lambda: state_of(ours) == "completed")
    assert state_of(other) == "running"
    with pytest.raises(UsageError, match=r"no executor is installed for no\.such"):
        start_worker(only=["no.such"])


def test_a_draining_worker_ends_when_nothing_is_left(chain, engine, start_worker, state_of, db) -> None:
    slug = chain("drained", "ok", "fail 1", retry={"max_attempts": 2, "interval": "PT0.5S", "jitter": False})
    runs = [engine.start_run(slug) for _ in range(20)]
    start_worker(drain=True).join()
    assert {state_of(run_id) for run_id in runs} == {"completed"}
    assert db.execute("select count(*) from stellwerk.worker").fetchone() == (0,)


def test_a_cancelled_run_stops_its_long_step(chain, engine, start_worker, state_of, steps_of, wait_until, db) -> None:
    start_worker()
    run_id = engine.start_run(chain("cancelled", "sleep 60", "ok", timeout="PT2M"))
    wait_until(lambda: [step["state"] for step in steps_of(run_id)] == ["running"])
    engine.cancel_run(run_id, "no longer wanted")
    assert state_of(run_id) == "cancelled"
    gone = "select count(*) from stellwerk_queue.pgqueuer"
    wait_until(lambda: db.execute(gone).fetchone() == (0,), 12, "the executor's end")


def test_the_lease_of_a_long_step_is_extended(chain, engine, start_worker, db, steps_of, wait_until) -> None:
    start_worker()
    run_id = engine.start_run(chain("long", "sleep 8", timeout="PT1M"))
    lease = "select lease_until from stellwerk.step where run_id = %s and state = 'running'"
    wait_until(lambda: db.execute(lease, [run_id]).fetchone())
    first = db.execute(lease, [run_id]).fetchone()
    wait_until(lambda: db.execute(lease, [run_id]).fetchone() not in (first, None), 12)
    assert steps_of(run_id)[0]["attempt"] == 1


@pytest.mark.slow
@pytest.mark.one_server
def test_idle_is_free(chain, engine, db: psycopg.Connection[Any], start_worker, state_of, wait_until) -> None:
    start_worker()
    start_worker()
    run_id = engine.start_run(chain("one", "ok"))
    wait_until(lambda: state_of(run_id) == "completed")
    time.sleep(12)  # the job is deleted, and idle sessions have reported their statistics
    before = _written(db)
    time.sleep(12)
    assert _written(db) == before


def _written(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute(
        "select relname, n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables"
        " where schemaname in ('stellwerk', 'stellwerk_queue') order by 1"
    ).fetchall()
