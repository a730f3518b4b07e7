"""Why a run stands where it stands: every kind of standing has its sentence and its evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from database.explaining import explain, first, matches, wait_workflow
from database.helpers import FAILURE, START, Worker, call, document, node, run, start, unpumped

# -- before and after -------------------------------------------------------------------------------------------------


def test_a_pending_run_names_who_stands_before_it_and_who_would_start_it(db, ring):
    early = start(db, ring)
    important = start(db, ring, priority=5)
    late = start(db, ring)
    matches(
        first(db, late)["reason"],
        rf"Run {late} waits behind 1 of higher priority and 1 that came before it, since TIME to be started by a pump; "
        r"no worker is running \(start one: stellwerk worker, or call stellwerk.pump\(\)\)\.",
    )
    evidence = first(db, late)["evidence"]
    assert (evidence["of_higher_priority"], evidence["came_before"], evidence["workers"]) == (1, 1, 0)
    matches(first(db, important)["reason"], rf"Run {important} waits since TIME to be started by a pump; .*")
    assert first(db, early)["evidence"]["of_higher_priority"] == 1


def test_a_pending_run_names_the_pump_of_a_worker_that_is_there(db, ring, worker):
    matches(
        first(db, start(db, ring))["reason"], r"Run \d+ waits since TIME to be started by the next pump of a worker\."
    )


def test_a_later_start_says_when(db, ring):
    run_id = start(db, ring, run_at=datetime.now(UTC) + timedelta(hours=1))
    reason = first(db, run_id)
    matches(reason["reason"], rf"Run {run_id} waits for its start at TIME\.")
    assert reason["evidence"]["timer"]["kind"] == "start"


def test_a_completed_run_says_when(db, make_workflow, run_all):
    run_id = start(db, make_workflow(document("short", [START], [])))
    run_all(db)
    (reason,) = explain(db, run_id)
    matches(reason["reason"], rf"Run {run_id} completed at TIME\.")
    assert reason["evidence"]["seconds"] >= 0


def test_a_failed_run_names_node_cause_and_earlier_attempts(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    for _ in range(3):
        worker.end(*worker.begin(), error=FAILURE)
    reasons = explain(db, run_id)
    matches(reasons[0]["reason"], rf"Run {run_id} failed at TIME in node ring: it did not work \(test\)\.")
    assert reasons[0]["node_id"] == "ring"
    assert reasons[0]["evidence"]["retry"] == f"select stellwerk.retry_run({run_id});"
    assert reasons[0]["evidence"]["error"]["attempt"] == 3
    matches(reasons[1]["reason"], r"Attempt 2 of step ring failed at TIME: it did not work\.")
    matches(reasons[2]["reason"], r"Attempt 1 of step ring failed at TIME: it did not work\.")


def test_a_cancelled_run_gives_the_reason(db, ring, run_all):
    run_id = start(db, ring)
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s, 'paid in cash.')", (run_id,))
    matches(first(db, run_id)["reason"], rf"Run {run_id} was cancelled at TIME: paid in cash\.")


# -- worker steps -----------------------------------------------------------------------------------------------------


def test_a_queued_step_says_that_no_worker_is_there(db, ring, run_all):
    run_id = start(db, ring)
    run_all(db)
    reason = first(db, run_id)
    matches(
        reason["reason"],
        rf"Run {run_id} is running: step ring waits in the queue since TIME for a worker that carries out action.fonio_call; "
        r"no such worker is running \(start one: stellwerk worker\)\.",
    )
    assert reason["evidence"]["workers"] == []
    assert reason["evidence"]["job"]["status"] == "queued"


def test_a_queued_step_names_the_workers_that_could_take_it(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    reason = first(db, run_id)
    matches(reason["reason"], r".* for a worker that carries out action.fonio_call\.")
    assert reason["evidence"]["workers"] == ["test on here"]
    db.execute("delete from stellwerk_queue.pgqueuer")
    assert "its row in the queue is lost" in first(db, run_id)["reason"]


def test_a_running_step_names_its_worker(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    worker.begin()
    reason = first(db, run_id)
    matches(
        reason["reason"],
        rf"Run {run_id} is running: step ring \(action.fonio_call\) runs in worker test on here since TIME, attempt 1\.",
    )
    assert reason["evidence"]["worker"]["worker_id"] == str(worker.worker_id)
    assert reason["evidence"]["lease_until"]


def test_a_lost_worker_is_said_to_be_lost_and_when_its_lease_runs_out(db, ring, run_all, worker, wait_until):
    run_id = start(db, ring)
    run_all(db)
    worker.begin()
    worker.vanish()
    wait_until(lambda: not db.execute("select stellwerk.is_present(%s)", (worker.worker_id,)).fetchone()[0])
    matches(
        first(db, run_id)["reason"],
        r".*, attempt 1; that worker has vanished, another takes .* its lease runs out at TIME\.",
    )


def test_a_worker_without_a_sign_of_life_and_an_attempt_past_its_time_are_told(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    worker.begin()
    db.execute(
        "update stellwerk.step set timeout_at = clock_timestamp() - interval '3 seconds' where state = 'running'"
    )
    matches(
        first(db, run_id)["reason"], r".*; its time limit was over at TIME and the attempt ends with the next tick\."
    )
    db.execute(
        "update stellwerk.step set lease_until = clock_timestamp() - interval '3 seconds' where state = 'running'"
    )
    matches(first(db, run_id)["reason"], r".*no sign of life.* its lease ran out at TIME\.")


def test_a_retry_says_which_attempt_of_how_many_when_and_after_what(db, ring, run_all, worker):
    run_id = start(db, ring)
    run_all(db)
    error = {"class": "http_4xx", "message": "HTTP 429 from api.example.org", "retryable": True, "retry_after": 90}
    worker.end(*worker.begin(), error=error)
    reason = first(db, run_id)
    matches(
        reason["reason"],
        rf"Run {run_id} is running: step ring \(action.fonio_call\) waits until TIME for attempt 2 of 3, after 1 failed: "
        r"HTTP 429 from api\.example\.org\.",
    )
    assert reason["evidence"]["last_error"]["class"] == "http_4xx"
    assert (reason["evidence"]["failures"], reason["evidence"]["max_attempts"]) == (1, 3)


def test_a_sql_step_that_nobody_pumps_says_so(db, make_workflow):
    slug = make_workflow(
        document("alone", [START, node("count", "record.query", {"table": "nothing"})], ["start -> count"]),
        publish=False,
    )
    db.execute("create table public.nothing (id int primary key)")
    db.execute("grant select, insert, update, delete on public.nothing to stellwerk_owner")
    db.execute("select stellwerk.register_table('public.nothing')")
    db.execute("select stellwerk.publish_workflow(%s)", (slug,))
    run_id = start(db, slug)
    db.execute("select stellwerk.advance_runs(1, array[%s::bigint])", (run_id,))
    matches(
        first(db, run_id)["reason"],
        rf"Run {run_id} is running: step count \(record.query\) is ready since TIME and waits for a pump; no worker is running .*\.",
    )


# -- steering ---------------------------------------------------------------------------------------------------------


def test_a_paused_run_names_who_paused_it_and_what_stands_still(db, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, **{"for": "P1DT1H"}))
    run_all(db)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    reasons = explain(db, run_id)
    matches(
        reasons[0]["reason"],
        rf"Run {run_id} is paused, and its timers stand still, until it is resumed: paused by db:\w+ at TIME\.",
    )
    assert reasons[0]["evidence"]["resume"] == f"select stellwerk.resume_run({run_id});"
    matches(reasons[1]["reason"], r"Step hold \(logic.wait\) waits another 1 days 00:59:\d\d once the run is resumed\.")
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    assert "waits until" in first(db, run_id)["reason"]


def test_a_signal_for_a_paused_run_is_kept_and_told(db, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, event="paid", correlation="x"))
    run_all(db)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    db.execute("select stellwerk.signal('paid', 'x')")
    run_all(db)
    assert "is kept until the run is resumed" in " ".join(reason["reason"] for reason in explain(db, run_id))


def test_compensation_is_told_with_what_is_left(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document(
            "undo",
            [
                START,
                call("book", compensate="unbook"),
                call("pay", compensate="refund"),
                call("send", retry={"max_attempts": 1}),
                call("unbook"),
                call("refund"),
            ],
            ["start -> book", "book -> pay", "pay -> send"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    for _ in range(2):
        worker.end(*worker.begin())
    worker.end(*worker.begin(), error=FAILURE)
    assert run(db, run_id)["ending"] == "failed"
    reasons = explain(db, run_id)
    matches(
        reasons[0]["reason"],
        rf"Run {run_id} is being compensated and then ends as failed: \d steps are left to compensate, because it did not work\.",
    )
    assert "step refund, which compensates pay, waits in the queue" in reasons[1]["reason"].replace("Step", "step")


def test_every_reason_of_a_run_is_for_its_tenant_alone(db, ring):
    run_id = start(db, ring)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select * from stellwerk.explain_run(%s)", (run_id,))
    assert caught.value.sqlstate == "SW007"


# -- what should not be, and is told all the same ---------------------------------------------------------------------


def test_a_ready_step_of_a_paused_run_goes_on_with_the_run(db, make_workflow):
    run_id = unpumped(db, make_workflow)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    assert explain(db, run_id)[1]["reason"] == "Step count (record.query) goes on once the run is resumed."


def test_a_run_that_is_held_without_a_timer_says_so(db, ring):
    run_id = start(db, ring)
    db.execute("update stellwerk.run set held = true where run_id = %s", (run_id,))
    matches(first(db, run_id)["reason"], rf"Run {run_id} is held back since TIME\.")


def test_a_run_without_a_live_step_says_so(db, ring, run_all):
    run_id = start(db, ring)
    run_all(db)
    db.execute("delete from stellwerk.step where state = 'queued'")
    assert first(db, run_id)["reason"] == f"Run {run_id} is running: it has no live step and ends with the next move."


def test_a_wait_of_an_unknown_kind_a_lost_child_and_a_loop_without_items_are_named(db, make_workflow, run_all):
    wait_workflow(make_workflow, slug="inner", event="paid", correlation="x")
    slug = make_workflow(
        document(
            "three",
            [
                START,
                node("sub", "logic.call", {"workflow": "inner"}),
                node("hold", "logic.wait", {"event": "paid", "correlation": "y"}),
                node("each", "logic.loop", {"items": "{{ trigger.payload }}"}),
                call("ring"),
            ],
            ["start -> sub", "start -> hold", "start -> each", "each.each -> ring"],
        )
    )
    run_id = start(db, slug, [1])
    run_all(db)
    db.execute("update stellwerk.wait set child_run_id = 99 where run_id = %s and kind = 'child'", (run_id,))
    db.execute(
        "update stellwerk.wait set kind = 'visitor', event = null, correlation = null"
        " where run_id = %s and kind = 'event'",
        (run_id,),
    )
    db.execute("delete from stellwerk.loop")
    told = {row["node_id"]: row["reason"] for row in explain(db, run_id)}
    assert "waits for child run 99, which does not exist" in told["sub"]
    matches(told["hold"], r"Step hold \(logic.wait\) waits for its visitor since TIME\.")
    assert "its items are not known" in told["each"]


def test_what_flow_control_says_comes_first(db, make_workflow, run_all):
    value = document("gated", [START, call("ring")], ["start -> ring"], settings={"max_running": 1})
    slug = make_workflow(value)
    holder, waiting = start(db, slug), start(db, slug)
    run_all(db)
    told = first(db, waiting)
    assert told["reason"].startswith(f"Run {waiting} waits: ")
    assert str(holder) in told["reason"] + str(told["evidence"])
    assert "max_running" in told["reason"] + str(told["evidence"])


def test_a_step_that_a_rate_limit_puts_off_names_the_limit(dsn, db, ring, run_all):
    db.execute("select stellwerk.set_rate_limit('type', 'action.fonio_call', 1, '1 hour')")
    start(db, ring)
    run_id = start(db, ring)
    run_all(db)
    Worker(dsn).begin()
    assert "the rate limit of 1 in PT1H" in first(db, run_id)["reason"]
    assert first(db, run_id)["evidence"]
