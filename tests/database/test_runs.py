"""Runs from start to end: start_run, run_request, states, output, cancel, why."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from database.helpers import START, call, document, node, run, start, states, steps, transform
from psycopg.types.json import Jsonb


@pytest.fixture
def linear(make_workflow):
    return make_workflow(
        document(
            "linear",
            [
                START,
                node("remember", "logic.set", {"values": {"n": "{{ trigger.payload.n }}"}}),
                transform("double", {"twice": "{{ vars.n * 2 }}", "text": "n is {{ vars.n }}"}),
                transform("end", "{{ steps.double.output.twice }}"),
            ],
            ["start -> remember", "remember -> double", "double -> end"],
        )
    )


def test_a_run_of_sql_nodes_finishes_without_any_worker_step(db, linear, run_all):
    run_id = start(db, linear, {"n": 21})
    assert run(db, run_id)["state"] == "pending"
    run_all(db)
    ended = run(db, run_id)
    assert (ended["state"], ended["output"], ended["live_steps"]) == ("completed", 42, 0)
    assert [(s["node_id"], s["state"], s["output"]) for s in steps(db, run_id)] == [
        ("start", "completed", None),
        ("remember", "completed", {"n": 21}),
        ("double", "completed", {"twice": 42, "text": "n is 21"}),
        ("end", "completed", 42),
    ]
    assert db.execute("select count(*) from stellwerk_queue.pgqueuer").fetchone() == (0,)


def test_many_runs_advance_in_one_call(db, linear):
    ids = [start(db, linear, {"n": n}) for n in range(300)]
    (answer,) = db.execute("select stellwerk.pump(500)").fetchone()
    assert answer["runs_advanced"] == 300
    assert answer["steps"] == 1200
    assert [run(db, i)["output"] for i in ids] == [n * 2 for n in range(300)]


def test_the_same_key_answers_the_first_run(db, linear):
    first = start(db, linear, {"n": 1}, key="a")
    assert start(db, linear, {"n": 2}, key="a") == first
    assert start(db, linear, {"n": 1}, key="b") != first
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (2,)


def test_the_same_key_from_many_sessions_at_once_is_one_run(dsn, db, linear):
    found: list[int] = []

    def ask() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            found.append(start(own, linear, {"n": 1}, key="only"))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) == 12
    assert len(set(found)) == 1


def test_run_request_is_start_run_by_insert(db, linear, run_all):
    (run_id,) = db.execute(
        "insert into stellwerk.run_request (workflow, payload, idempotency_key) values (%s, %s, 'k') returning run_id",
        (linear, Jsonb({"n": 4})),
    ).fetchone()
    run_all(db)
    assert run(db, run_id)["output"] == 8
    again = db.execute(
        "insert into stellwerk.run_request (workflow, idempotency_key) values (%s, 'k') returning run_id", (linear,)
    )
    assert again.fetchone() == (run_id,)


def test_a_rolled_back_start_starts_nothing(db, linear, run_all):
    with pytest.raises(ZeroDivisionError), db.transaction():
        start(db, linear, {"n": 1})
        raise ZeroDivisionError
    run_all(db)
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)


def test_a_later_start_waits_for_its_time(db, linear, run_all):
    later = datetime.now(UTC) + timedelta(hours=1)
    run_id = start(db, linear, {"n": 1}, run_at=later)
    run_all(db)
    assert run(db, run_id)["state"] == "pending"
    assert "waits for its start at" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    db.execute("update stellwerk.timer set due_at = now() - interval '1 second'")
    assert db.execute("select stellwerk.tick()").fetchone()[0]["fired"] == 1
    run_all(db)
    assert run(db, run_id)["state"] == "completed"


def test_higher_priority_goes_first(db, linear):
    low = start(db, linear, {"n": 1})
    high = start(db, linear, {"n": 1}, priority=5)
    db.execute("select stellwerk.pump(1)")
    assert (run(db, high)["state"], run(db, low)["state"]) == ("completed", "pending")


def test_unknown_workflows_are_named_with_those_there_are(db, linear):
    with pytest.raises(psycopg.Error) as caught:
        start(db, "linaer")
    assert caught.value.sqlstate == "SW001"
    assert "linear" in caught.value.diag.message_hint


@pytest.mark.parametrize("slug", ["'; drop table stellwerk.run; --", "a\\b", "ünïcode", "x" * 5000, "", None])
def test_odd_workflow_names_are_only_unknown(db, linear, slug):
    with pytest.raises(psycopg.Error) as caught:
        start(db, slug)
    assert caught.value.sqlstate == "SW001"


def test_an_unpublished_workflow_cannot_start(db, make_workflow):
    slug = make_workflow(document("draft", [START], []), publish=False)
    with pytest.raises(psycopg.Error, match="no published version"):
        start(db, slug)


def test_payloads_are_checked_against_the_input_schema(db, make_workflow):
    schema = {
        "type": "object",
        "required": ["patient"],
        "properties": {"patient": {"type": "object", "required": ["name"]}},
    }
    slug = make_workflow(document("strict", [START], [], input_schema=schema))
    with pytest.raises(psycopg.Error) as caught:
        start(db, slug, {"patient": {}})
    assert caught.value.sqlstate == "SW002"
    assert "name" in caught.value.diag.message_detail
    assert start(db, slug, {"patient": {"name": "x"}})


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ('"' + "x" * (9 * 1024 * 1024) + '"', "8 MB"),
        (nested(65), "64 levels"),
        ("1e131071", "40 characters"),
        ('{"deep": {"n": 12345678901234567890123456789012345678901234567890}}', "40 characters"),
    ],
)
def test_payloads_beyond_the_limits_are_refused(db, linear, payload, says):
    with pytest.raises(psycopg.Error, match=says) as caught:
        db.execute("select stellwerk.start_run(%s, %s::jsonb)", (linear, payload))
    assert caught.value.sqlstate == "SW002"
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)


@pytest.mark.parametrize("payload", [nested(10_000), '"\\u0000"', '"\\ud800"', "{bad", "NaN"])
def test_what_is_no_jsonb_never_gets_in(db, linear, payload):
    with pytest.raises(psycopg.Error):
        db.execute("select stellwerk.start_run(%s, %s::jsonb)", (linear, payload))
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)


def test_any_unicode_and_64_levels_pass_whole(db, make_workflow, run_all):
    slug = make_workflow(document("echo", [START, transform("end", "{{ trigger.payload }}")], ["start -> end"]))
    payload: object = "a\u00e4\u20ac\U0001f600\u202e\u0001\\\"'{{ x }}" * 100
    for _ in range(60):
        payload = {"k": payload}
    run_id = start(db, slug, payload)
    run_all(db)
    assert run(db, run_id)["output"] == payload


def test_stop_ends_the_run_and_its_other_tokens(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "stops",
            [START, call("slow"), node("stop", "logic.stop", {"outcome": "completed", "result": {"why": "enough"}})],
            ["start -> slow", "start -> stop"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", {"why": "enough"})
    assert states(db, run_id).get("slow") in (None, "cancelled")


def test_stop_may_fail_the_run(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "fails",
            [START, node("stop", "logic.stop", {"outcome": "failed", "message": "no {{ trigger.payload.x }}"})],
            ["start -> stop"],
        )
    )
    run_id = start(db, slug, {"x": "good"})
    run_all(db)
    ended = run(db, run_id)
    assert (ended["state"], ended["error"]["class"], ended["error"]["message"]) == ("failed", "stopped", "no good")


def test_a_run_is_cancelled_once(db, make_workflow, run_all):
    slug = make_workflow(document("waits", [START, call("slow")], ["start -> slow"]))
    run_id = start(db, slug)
    run_all(db)
    assert "waits in the queue" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    db.execute("select stellwerk.cancel_run(%s, 'asked to')", (run_id,))
    assert run(db, run_id)["state"] == "cancelled"
    assert states(db, run_id)["slow"] == "cancelled"
    assert "asked to" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    assert caught.value.sqlstate == "SW003"


def test_unknown_runs_are_said_to_be_unknown(db):
    for call_ in ("select stellwerk.why(99)", "select stellwerk.cancel_run(99)", "select stellwerk.advance(99)"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(call_)
        assert caught.value.sqlstate == "SW007"


def test_a_run_time_limit_fails_the_run(db, make_workflow, run_all):
    slug = make_workflow(document("slow", [START, call("slow")], ["start -> slow"], settings={"timeout": "PT1S"}))
    run_id = start(db, slug)
    run_all(db)
    db.execute("update stellwerk.timer set due_at = now() - interval '1 second' where kind = 'run_timeout'")
    db.execute("select stellwerk.tick()")
    ended = run(db, run_id)
    assert (ended["state"], ended["error"]["class"]) == ("failed", "timeout")
    assert states(db, run_id)["slow"] == "cancelled"
    assert db.execute("select count(*) from stellwerk.timer").fetchone() == (0,)


def test_advance_drives_one_run_in_the_callers_transaction(db, linear):
    with db.transaction(force_rollback=True):
        run_id = start(db, linear, {"n": 3})
        db.execute("select stellwerk.advance(%s)", (run_id,))
        assert run(db, run_id)["output"] == 6
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)


def test_two_pumps_side_by_side_run_each_step_once(dsn, db, linear):
    ids = [start(db, linear, {"n": n}) for n in range(400)]

    def pump() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            while own.execute("select stellwerk.pump(20)").fetchone()[0]["more"]:
                pass

    threads = [threading.Thread(target=pump) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert db.execute("select count(*), count(distinct (run_id, node_id)) from stellwerk.step").fetchone() == (
        1600,
        1600,
    )
    assert {run(db, i)["state"] for i in ids} == {"completed"}


def test_one_bad_run_never_stops_the_others(db, linear):
    good = [start(db, linear, {"n": n}) for n in range(20)]
    bad = start(db, linear, {"n": 1})
    # A plan row that cannot be read is a fault that no node catches.
    db.execute(
        "create function pg_temp.break() returns trigger language plpgsql as $$ begin raise exception 'boom'; end $$"
    )
    db.execute(
        f"create trigger boom before insert on stellwerk.step for each row when (new.run_id = {bad}) execute function pg_temp.break()"
    )
    for _ in range(5):
        db.execute("select stellwerk.pump()")
    assert {run(db, i)["state"] for i in good} == {"completed"}
    ended = run(db, bad)
    assert (ended["state"], ended["error"]["message"]) == ("failed", "boom")


def test_an_idle_pump_and_tick_write_nothing(db, linear, run_all):
    start(db, linear, {"n": 1})
    run_all(db)
    for _ in range(4):  # words to be searched for and figures of the hour come after the run
        db.execute("select stellwerk.tick()")
    before = db.execute("select pg_current_xact_id_if_assigned()").fetchone()
    with db.transaction():
        db.execute("select stellwerk.pump()")
        db.execute("select stellwerk.tick()")
        assert db.execute("select pg_current_xact_id_if_assigned()").fetchone() == (None,)
    assert before == (None,)
