"""Pausing, resuming, skipping and editing: what people do to a run."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import FAILURE, START, Worker, call, document, node, refused, run, start, states, steps, transform
from psycopg.types.json import Jsonb

CHAIN = document(
    "chain",
    [START, call("a"), transform("b", "{{ steps.a.output }}"), call("c"), node("w", "logic.wait", {"for": "PT1H"})],
    ["start -> a", "a -> b", "b -> c", "start -> w"],
)


@pytest.fixture
def begun(db, make_workflow, run_all):
    def begin(value, payload=None):
        run_id = start(db, make_workflow(value), payload)
        run_all(db)
        return run_id

    return begin


def pause(db, run_id):
    db.execute("select stellwerk.pause_run(%s)", (run_id,))


def resume(db, run_id):
    db.execute("select stellwerk.resume_run(%s)", (run_id,))


def step_id(db, run_id, node_id):
    return next(s["step_id"] for s in steps(db, run_id) if s["node_id"] == node_id)


def test_a_paused_run_records_what_was_under_way_and_nothing_follows(dsn, db, run_all, begun):
    run_id = begun(CHAIN)
    worker = Worker(dsn)
    taken = worker.begin()
    pause(db, run_id)
    assert worker.end(*taken, output=7)["accepted"] == 1
    run_all(db)
    assert run(db, run_id)["state"] == "paused"
    assert states(db, run_id) == {"start": "completed", "a": "completed", "b": "queued", "w": "waiting"}
    resume(db, run_id)
    run_all(db)
    assert run(db, run_id)["state"] == "running"
    assert next(s for s in steps(db, run_id) if s["node_id"] == "b")["output"] == 7
    [taken] = worker.begin()
    assert taken["node_id"] == "c"


def test_a_queued_worker_step_of_a_paused_run_is_not_begun(dsn, db, begun):
    run_id = begun(CHAIN)
    worker = Worker(dsn)
    refs = worker.queued()
    pause(db, run_id)
    assert worker.begin(refs) == []
    resume(db, run_id)
    assert [t["node_id"] for t in worker.begin(refs)] == ["a"]


def test_timers_of_a_paused_run_keep_the_time_they_still_had(db, run_all, begun):
    run_id = begun(CHAIN)
    db.execute("update stellwerk.timer set due_at = now() + interval '10 min' where run_id = %s", (run_id,))
    pause(db, run_id)
    [due, remaining] = db.execute(
        "select due_at = stellwerk.never(), remaining between interval '9 min' and interval '10 min' from stellwerk.timer"
    ).fetchone()
    assert (due, remaining) == (True, True)
    # As if an hour went by: what is frozen is not due.
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert states(db, run_id)["w"] == "waiting"
    resume(db, run_id)
    [close] = db.execute(
        "select due_at - now() between interval '9 min' and interval '10 min' and remaining is null from stellwerk.timer"
    ).fetchone()
    assert close


def test_a_retry_that_waits_is_frozen_too(dsn, db, run_all, begun):
    again = {"retry": {"max_attempts": 3, "interval": "PT30M", "max_interval": "PT30M", "jitter": False}}
    run_id = begun(document("again", [START, call("a", **again)], ["start -> a"]))
    worker = Worker(dsn)
    worker.end(*worker.begin(), error=FAILURE)
    pause(db, run_id)
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert worker.begin() == []
    resume(db, run_id)
    [left] = db.execute(
        "select due_at - now() between interval '29 min' and interval '30 min' from stellwerk.step where state = 'queued'"
    ).fetchone()
    assert left


def test_a_signal_to_a_paused_run_is_kept(db, run_all, begun):
    wait = node("w", "logic.wait", {"event": "go", "correlation": "k"})
    run_id = begun(document("kept", [START, wait, transform("e", "{{ steps.w.output }}")], ["start -> w", "w -> e"]))
    pause(db, run_id)
    assert db.execute("select stellwerk.signal('go', 'k', '5')").fetchone() == (1,)
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["w"]) == ("paused", "waiting")
    resume(db, run_id)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 5)


def test_a_pending_run_can_be_paused(db, make_workflow, run_all):
    slug = make_workflow(document("early", [START, transform("e", 1)], ["start -> e"]))
    run_id = start(db, slug)
    pause(db, run_id)
    run_all(db)
    assert (run(db, run_id)["state"], steps(db, run_id)) == ("paused", [])
    resume(db, run_id)
    run_all(db)
    assert run(db, run_id)["state"] == "completed"


def test_the_timeout_of_a_paused_run_does_not_run(db, run_all, begun):
    run_id = begun({**CHAIN, "settings": {"timeout": "PT5M"}})
    pause(db, run_id)
    db.execute("select stellwerk.tick()")
    assert db.execute("select count(*) from stellwerk.timer where due_at < stellwerk.never()").fetchone() == (0,)
    resume(db, run_id)
    db.execute("update stellwerk.timer set due_at = now() where kind = 'run_timeout'")
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"]) == ("failed", "timeout")


def test_a_paused_run_that_comes_to_its_end_ends_on_resume(dsn, db, run_all, begun):
    run_id = begun(document("end", [START, call("a")], ["start -> a"]))
    worker = Worker(dsn)
    taken = worker.begin()
    pause(db, run_id)
    worker.end(*taken, output="x")
    run_all(db)
    assert run(db, run_id)["state"] == "paused"
    resume(db, run_id)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "x")


def test_a_paused_run_can_be_cancelled(db, run_all, begun):
    run_id = begun(CHAIN)
    pause(db, run_id)
    db.execute("select stellwerk.cancel_run(%s, 'enough')", (run_id,))
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["live_steps"]) == ("cancelled", 0)


def test_pausing_is_refused_where_it_makes_no_sense(db, run_all, begun):
    run_id = begun(CHAIN)
    refused(db, "SW003", "select stellwerk.resume_run(%s)", run_id)
    pause(db, run_id)
    refused(db, "SW003", "select stellwerk.pause_run(%s)", run_id)
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    refused(db, "SW003", "select stellwerk.pause_run(%s)", run_id)
    refused(db, "SW007", "select stellwerk.pause_run(4711)")
    refused(db, "SW007", "select stellwerk.resume_run(4711)")


def test_a_waiting_step_is_skipped_with_an_output(db, run_all, begun):
    wait = node("w", "logic.wait", {"event": "go", "correlation": "k", "timeout": "P1D"})
    value = document("skip", [START, wait, transform("e", "{{ steps.w.output.x }}")], ["start -> w", "w -> e"])
    run_id = begun(value)
    db.execute("select stellwerk.skip_step(%s, %s, %s)", (run_id, step_id(db, run_id, "w"), Jsonb({"x": 1})))
    assert states(db, run_id)["e"] == "queued"  # verbs write; nodes run in the pump
    run_all(db)
    assert (run(db, run_id)["output"], states(db, run_id)["w"]) == (1, "skipped")
    for table in ("wait", "timer"):
        assert db.execute(f"select count(*) from stellwerk.{table}").fetchone() == (0,)
    assert "db:postgres" in next(s for s in steps(db, run_id) if s["node_id"] == "w")["reason"]


def test_a_queued_worker_step_is_skipped_by_a_port(dsn, db, run_all, begun):
    value = document(
        "port",
        [START, call("a", on_error="route"), transform("e", "bad"), transform("f", "good")],
        ["start -> a", "a.error -> e", "a -> f"],
    )
    run_id = begun(value)
    refused(db, "SW003", "select stellwerk.skip_step(%s, %s, null, 'elsewhere')", run_id, step_id(db, run_id, "a"))
    db.execute("select stellwerk.skip_step(%s, %s, null, 'error')", (run_id, step_id(db, run_id, "a")))
    run_all(db)
    assert run(db, run_id)["output"] == "bad"
    assert Worker(dsn).begin() == []


def test_a_loop_is_skipped_with_its_iterations(dsn, db, run_all, begun):
    value = document(
        "loop",
        [
            START,
            node("l", "logic.loop", {"items": [1, 2, 3], "parallel": 2}),
            call("b"),
            transform("e", "{{ steps.l.output }}"),
        ],
        ["start -> l", "l.each -> b", "b -> l", "l.done -> e"],
    )
    run_id = begun(value)
    db.execute("select stellwerk.skip_step(%s, %s, %s, 'done')", (run_id, step_id(db, run_id, "l"), Jsonb("none")))
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "none")
    assert Worker(dsn).begin() == []


def test_skipping_is_refused_where_it_makes_no_sense(dsn, db, run_all, begun):
    run_id = begun(CHAIN)
    worker = Worker(dsn)
    worker.begin()
    refused(db, "SW003", "select stellwerk.skip_step(%s, %s)", run_id, step_id(db, run_id, "a"))  # running
    refused(db, "SW003", "select stellwerk.skip_step(%s, %s)", run_id, step_id(db, run_id, "start"))  # over
    refused(db, "SW007", "select stellwerk.skip_step(%s, 4711)", run_id)


def test_skipping_in_a_paused_run_moves_nothing_on(db, run_all, begun):
    run_id = begun(CHAIN)
    pause(db, run_id)
    db.execute("select stellwerk.skip_step(%s, %s, '3')", (run_id, step_id(db, run_id, "a")))
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["b"]) == ("paused", "queued")
    resume(db, run_id)
    run_all(db)
    assert next(s for s in steps(db, run_id) if s["node_id"] == "b")["output"] == 3


def test_a_paused_run_can_be_edited(db, run_all, begun):
    value = document(
        "edit",
        [
            START,
            node("s", "logic.set", {"values": {"k": 1}}),
            node("w", "logic.wait", {"for": "PT1H"}),
            transform("e", "{{ trigger.payload.n + vars.k }}"),
        ],
        ["start -> s", "s -> w", "w -> e"],
    )
    run_id = begun(value, {"n": 1})
    refused(db, "SW003", "select stellwerk.edit_run(%s, payload => '{}')", run_id)
    pause(db, run_id)
    db.execute("""select stellwerk.edit_run(%s, payload => '{"n": 10}', vars => '{"k": 100}')""", (run_id,))
    refused(db, "SW002", "select stellwerk.edit_run(%s, vars => '[1]')", run_id)
    resume(db, run_id)
    db.execute("select stellwerk.skip_step(%s, %s)", (run_id, step_id(db, run_id, "w")))
    run_all(db)
    assert run(db, run_id)["output"] == 110


def test_verbs_are_the_tenants_own(db, run_all, begun):
    run_id = begun(CHAIN)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    with db.transaction():
        db.execute("set local stellwerk.tenant = 'other'")
        for verb in ("cancel_run", "pause_run", "resume_run", "retry_run"):
            with pytest.raises(psycopg.Error) as told, db.transaction():
                db.execute(f"select stellwerk.{verb}(%s)", (run_id,))
            assert told.value.sqlstate in {"SW007", "SW004"}
    assert run(db, run_id)["state"] == "running"
