"""Worker steps as the database sees them: claims, the fence, retries, lost workers, timeouts."""

from __future__ import annotations

import pytest
from database.helpers import (
    FAILURE,
    PERMANENT,
    START,
    Worker,
    call,
    document,
    node,
    run,
    start,
    states,
    steps,
    transform,
)
from psycopg.types.json import Jsonb

FAST = {"interval": "PT0S", "backoff": 1, "jitter": False}


@pytest.fixture
def waiting(db, make_workflow, run_all):
    """A run that stands on a worker node with three attempts."""
    slug = make_workflow(
        document(
            "call",
            [START, call("ring", retry={"max_attempts": 3, **FAST}), transform("end", 1)],
            ["start -> ring", "ring -> end"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    return run_id


@pytest.fixture
def worker(dsn):
    return Worker(dsn)


def test_a_taken_step_carries_its_key_settings_and_attempt(db, waiting, worker):
    (taken,) = worker.begin()
    assert taken["node_id"] == "ring"
    assert taken["attempt"] == 1
    assert taken["config"]["phone"] == "1"
    assert taken["idempotency_key"] == f"{waiting}:{taken['step_id']}:1"
    assert taken["workflow"] == "call"
    assert states(db, waiting)["ring"] == "running"
    assert worker.begin([(waiting, taken["step_id"])]) == []


def test_settings_are_rendered_from_the_context(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document(
            "render",
            [
                START,
                transform("a", {"tel": "030"}),
                node(
                    "ring",
                    "action.fonio_call",
                    {"phone": "+49 {{ steps.a.output.tel }}", "script": "{{ trigger.payload.text }}"},
                ),
            ],
            ["start -> a", "a -> ring"],
        )
    )
    run_id = start(db, slug, {"text": "{{ steps.a.output.tel }}"})
    run_all(db)
    (taken,) = worker.begin()
    assert taken["config"]["phone"] == "+49 030"
    assert taken["config"]["script"] == "{{ steps.a.output.tel }}", "what comes from outside is never evaluated"
    assert next(s for s in steps(db, run_id) if s["node_id"] == "ring")["input"]["phone"] == "+49 030"


def test_an_expression_that_raises_fails_only_its_own_step(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document(
            "div",
            [START, node("ring", "action.fonio_call", {"phone": "{{ 10 / trigger.payload.n }}"})],
            ["start -> ring"],
        )
    )
    bad, good = start(db, slug, {"n": 0}), start(db, slug, {"n": 5})
    run_all(db)
    taken = worker.begin()
    assert [t["run_id"] for t in taken] == [good]
    assert (run(db, bad)["state"], run(db, bad)["error"]["class"]) == ("failed", "22012")


def test_a_late_completion_changes_nothing(db, waiting, worker):
    (taken,) = worker.begin()
    late = dict(taken, attempt=0)
    answer = worker.end(late, output={"late": True})
    assert (answer["accepted"], answer["late"]) == (0, [[waiting, taken["step_id"]]])
    assert states(db, waiting)["ring"] == "running"
    assert worker.end(taken, output={"ok": True})["accepted"] == 1
    assert worker.end(taken, output={"ok": False})["accepted"] == 0
    assert [s["output"] for s in steps(db, waiting) if s["node_id"] == "ring"] == [{"ok": True}]


def test_another_workers_completion_changes_nothing(dsn, db, waiting, worker):
    (taken,) = worker.begin()
    assert Worker(dsn).end(taken)["accepted"] == 0
    assert states(db, waiting)["ring"] == "running"


def test_a_completion_after_the_cancel_changes_nothing(db, waiting, worker):
    (taken,) = worker.begin()
    db.execute("select stellwerk.cancel_run(%s)", (waiting,))
    assert worker.end(taken)["accepted"] == 0
    assert run(db, waiting)["state"] == "cancelled"
    assert states(db, waiting) == {"start": "completed", "ring": "cancelled"}


def test_attempts_end_after_max_attempts(db, waiting, worker):
    keys = set()
    for attempt in (1, 2, 3):
        (taken,) = worker.begin()
        assert taken["attempt"] == attempt
        keys.add(taken["idempotency_key"])
        worker.end(taken, error=FAILURE)
    assert len(keys) == 1
    ended = run(db, waiting)
    assert (ended["state"], ended["error"]["class"], ended["error"]["node"]) == ("failed", "test", "ring")
    history = db.execute("select attempt, outcome from stellwerk.attempt_history order by attempt").fetchall()
    assert history == [(1, "failed"), (2, "failed")]


def test_a_permanent_error_is_never_tried_again(db, waiting, worker):
    worker.end(*worker.begin(), error=PERMANENT)
    assert run(db, waiting)["state"] == "failed"


def test_the_pause_between_attempts_grows_and_is_in_the_queue(db, make_workflow, run_all, worker):
    retry = {"max_attempts": 5, "interval": "PT10S", "backoff": 3, "max_interval": "PT60S", "jitter": False}
    slug = make_workflow(document("pause", [START, call("ring", retry=retry)], ["start -> ring"]))
    start(db, slug)
    run_all(db)
    for expected in (10, 30, 60, 60):
        worker.end(*worker.begin(), error=FAILURE)
        (seconds, planned) = db.execute(
            "select extract(epoch from s.due_at - clock_timestamp())::float8, q.execute_after = s.due_at "
            "from stellwerk.step s join stellwerk_queue.pgqueuer q on q.id = s.job_id where s.state = 'queued'"
        ).fetchone()
        assert expected - 2 < seconds <= expected
        assert planned


def test_retry_after_sets_the_pause(db, waiting, worker):
    worker.end(*worker.begin(), error={**FAILURE, "retry_after": 77})
    (seconds,) = db.execute(
        "select extract(epoch from due_at - clock_timestamp())::float8 from stellwerk.step where state = 'queued'"
    ).fetchone()
    assert 70 < seconds <= 77
    assert "waits until" in db.execute("select stellwerk.why(%s)", (waiting,)).fetchone()[0]


@pytest.mark.parametrize(
    ("on_error", "edges", "state", "last"),
    [
        ("route", ["ring.error -> other"], "completed", "other"),
        ("continue", [], "completed", "end"),
        ("fail", [], "failed", "ring"),
    ],
)
def test_on_error_decides_after_the_last_attempt(db, make_workflow, run_all, worker, on_error, edges, state, last):
    nodes = [
        START,
        call("ring", on_error=on_error, retry={"max_attempts": 1}),
        transform("end", "{{ steps.ring.output }}"),
    ]
    if edges:
        nodes.append(transform("other", "{{ steps.ring.error.message }}"))
    slug = make_workflow(document("errors", nodes, ["start -> ring", "ring -> end", *edges]))
    run_id = start(db, slug)
    run_all(db)
    worker.end(*worker.begin(), error=FAILURE)
    ended = run(db, run_id)
    assert ended["state"] == state
    assert list(states(db, run_id))[-1] == last
    if on_error == "route":
        assert ended["output"] == "it did not work"
    if on_error == "continue":
        assert ended["output"]["error"]["class"] == "test"


def test_a_vanished_workers_step_goes_to_another(dsn, db, waiting, worker, wait_until):
    (taken,) = worker.begin()
    worker.vanish()
    wait_until(lambda: db.execute("select stellwerk.tick()").fetchone()[0]["recovered"] == 1, 5, "recovery")
    other = Worker(dsn)
    (again,) = other.begin()
    assert (again["attempt"], again["idempotency_key"]) == (2, taken["idempotency_key"])
    assert other.end(again)["accepted"] == 1
    assert run(db, waiting)["state"] == "completed"
    assert db.execute("select attempt, outcome from stellwerk.attempt_history").fetchall() == [(1, "lost")]


def test_a_step_that_kills_its_workers_ends_after_five_claims(dsn, db, waiting, wait_until):
    claims = 0
    while run(db, waiting)["state"] == "running":
        worker = Worker(dsn)
        (_taken,) = worker.begin()
        claims += 1
        worker.vanish()
        wait_until(lambda: db.execute("select stellwerk.tick()").fetchone()[0]["recovered"] == 1, 5, "recovery")
        assert claims <= 5
    assert claims == 5
    assert run(db, waiting)["error"]["class"] == "worker_lost"


def test_what_workers_gave_back_is_no_claim_against_the_step(dsn, db, waiting, worker, wait_until):
    for attempt in range(1, 7):
        (taken,) = worker.begin()
        assert taken["attempt"] == attempt
        worker.connection.execute(
            "select stellwerk.release_steps(%s, 1, %s, %s, %s)",
            (worker.worker_id, [waiting], [taken["step_id"]], [attempt]),
        )
    worker.begin()
    worker.vanish()
    wait_until(lambda: db.execute("select stellwerk.tick()").fetchone()[0]["recovered"] == 1, 5, "recovery")
    other = Worker(dsn)
    (again,) = other.begin()
    assert again["attempt"] == 8
    assert other.end(again)["accepted"] == 1
    assert run(db, waiting)["state"] == "completed"


def test_a_lease_that_ran_out_is_taken_over_and_the_slow_worker_is_late(db, waiting, worker):
    (taken,) = worker.begin()
    db.execute(
        "update stellwerk.step set lease_until = clock_timestamp() - interval '1 second' where state = 'running'"
    )
    assert db.execute("select stellwerk.tick()").fetchone()[0]["recovered"] == 1
    assert worker.connection.execute(
        "select stellwerk.extend_leases(%s, 1, %s, %s, %s)", (worker.worker_id, [waiting], [taken["step_id"]], [1])
    ).fetchone() == ([],)
    assert worker.end(taken)["accepted"] == 0


def test_a_sign_of_life_keeps_the_step(db, waiting, worker):
    (taken,) = worker.begin()
    db.execute(
        "update stellwerk.step set lease_until = clock_timestamp() + interval '1 second' where state = 'running'"
    )
    held = worker.connection.execute(
        "select stellwerk.extend_leases(%s, 1, %s, %s, %s)", (worker.worker_id, [waiting], [taken["step_id"]], [1])
    ).fetchone()
    assert held == ([taken["step_id"]],)
    (left,) = db.execute(
        "select extract(epoch from lease_until - clock_timestamp())::float8 from stellwerk.step where state = 'running'"
    ).fetchone()
    assert left > 10


def test_an_attempt_past_the_nodes_timeout_is_failed(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document("slow", [START, call("ring", timeout="PT1S", retry={"max_attempts": 1})], ["start -> ring"])
    )
    run_id = start(db, slug)
    run_all(db)
    (taken,) = worker.begin()
    assert taken["timeout_seconds"] == 1
    db.execute(
        "update stellwerk.step set timeout_at = clock_timestamp() - interval '2 seconds' where state = 'running'"
    )
    db.execute("select stellwerk.tick()")
    assert run(db, run_id)["error"]["class"] == "timeout"
    assert worker.end(taken)["accepted"] == 0


def test_a_lost_queue_row_is_put_back(db, waiting, worker):
    db.execute("delete from stellwerk_queue.pgqueuer")
    assert db.execute("select stellwerk.reconcile()").fetchone() == (1,)
    assert db.execute("select stellwerk.reconcile()").fetchone() == (0,)
    assert db.execute(
        "select count(*) from stellwerk_queue.pgqueuer q join stellwerk.step s on s.job_id = q.id"
    ).fetchone() == (1,)


def test_released_steps_go_back_one_by_one(db, waiting, worker):
    (taken,) = worker.begin()
    released = worker.connection.execute(
        "select stellwerk.release_steps(%s, 1, %s, %s, %s)", (worker.worker_id, [waiting], [taken["step_id"]], [1])
    ).fetchone()
    assert released == ([taken["step_id"]],)
    assert states(db, waiting)["ring"] == "queued"


def test_one_batch_holds_good_bad_and_late_results(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document(
            "mix",
            [START, call("ring", retry={"max_attempts": 1}), transform("end", "{{ steps.ring.output.n }}")],
            ["start -> ring", "ring -> end"],
        )
    )
    good, bad, late = (start(db, slug) for _ in range(3))
    run_all(db)
    taken = {t["run_id"]: t for t in worker.begin()}

    def result(run_id, **more):
        return {"run": str(run_id), "step": str(taken[run_id]["step_id"]), "attempt": 1, **more}

    (answer,) = worker.connection.execute(
        "select stellwerk.complete_steps(%s, 1, %s)",
        (worker.worker_id, Jsonb([result(good, output={"n": 7}), result(bad, error=FAILURE), result(late, attempt=9)])),
    ).fetchone()
    assert (answer["accepted"], answer["late"]) == (2, [[late, taken[late]["step_id"]]])
    assert (run(db, good)["output"], run(db, bad)["state"], run(db, late)["state"]) == (7, "failed", "running")


def test_a_result_that_is_handed_in_twice_counts_once(db, waiting, worker):
    (taken,) = worker.begin()
    assert worker.end(taken, taken)["accepted"] == 1
    assert run(db, waiting)["state"] == "completed"


def test_results_are_kept_when_what_follows_raises(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document("follow", [START, call("ring"), transform("boom", "x")], ["start -> ring", "ring -> boom"])
    )
    run_id = start(db, slug)
    run_all(db)
    db.execute(
        "create function pg_temp.break() returns trigger language plpgsql as $$ begin raise exception 'boom'; end $$"
    )
    db.execute(
        "create trigger boom before insert on stellwerk.step for each row when (new.node_id = 'boom' and new.state = 'completed') execute function pg_temp.break()"
    )
    # The trigger fires in the session that made it only because temporary functions live there: so complete on this one.
    worker.connection.close()
    worker.connection = db
    db.execute("select stellwerk.hold_presence(%s)", (worker.worker_id,))
    assert worker.end(*worker.begin(), output={"n": 1})["accepted"] == 1
    assert states(db, run_id) == {"start": "completed", "ring": "completed", "boom": "queued"}
    db.execute("drop trigger boom on stellwerk.step")
    run_all(db)
    assert run(db, run_id)["output"] == "x"
