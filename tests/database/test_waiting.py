"""Waiting for a time and for a signal."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import START, document, node, run, start, states, steps, transform
from psycopg.types.json import Jsonb


def waiting(slug, config, *more, edges=(), **settings):
    nodes = [START, node("w", "logic.wait", config, **settings), transform("e", "{{ steps.w.output }}"), *more]
    return document(slug, nodes, ["start -> w", "w -> e", *edges])


def signal(db, event, key, payload=None, dedupe=None):
    row = db.execute("select stellwerk.signal(%s, %s, %s, %s)", (event, key, Jsonb(payload), dedupe)).fetchone()
    assert row is not None
    return row[0]


def pass_time(db, run_id):
    """Make the run's timers due."""
    db.execute("update stellwerk.timer set due_at = clock_timestamp() - interval '1 s' where run_id = %s", (run_id,))
    db.execute("select stellwerk.tick()")


PAID = {"event": "paid", "correlation": "{{ trigger.payload.id }}"}


@pytest.mark.parametrize(
    ("config", "lies_ahead"),
    [
        ({"for": "PT2H"}, "2 hours"),
        ({"until": "{{ trigger.payload.at }}"}, "3 days"),
        ({"before": "P1D", "of": "{{ trigger.payload.at }}"}, "2 days"),
        ({"after": "PT12H", "of": "{{ trigger.payload.at }}"}, "3 days 12:00"),
    ],
)
def test_a_time_to_come_is_waited_for(db, make_workflow, run_all, config, lies_ahead):
    slug = make_workflow(waiting("time", config))
    [at] = db.execute("select to_jsonb(now() + interval '3 days')").fetchone()
    run_id = start(db, slug, {"at": at})
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["w"]) == ("waiting", "waiting")
    [close] = db.execute(
        "select due_at - now() - %s::interval between interval '-10 s' and interval '10 s' from stellwerk.timer",
        (lies_ahead,),
    ).fetchone()
    assert close
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert run(db, run_id)["state"] == "waiting"  # never early
    pass_time(db, run_id)
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert "fired_at" in run(db, run_id)["output"]
    assert db.execute("select count(*) from stellwerk.timer").fetchone() == (0,)


@pytest.mark.parametrize(
    ("past", "state", "w"),
    [("fire", "completed", "completed"), ("skip", "completed", "skipped"), ("fail", "failed", "failed")],
)
def test_a_time_that_is_past(db, make_workflow, run_all, past, state, w):
    slug = make_workflow(waiting("past", {"until": "2020-01-01T00:00:00Z", "past": past}))
    run_id = start(db, slug)
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["w"]) == (state, w)


@pytest.mark.parametrize(
    ("at", "error"), [("the day after tomorrow", "bad_time"), (None, "no_time"), ("infinity", "no_time")]
)
def test_a_time_that_is_none_fails_the_step(db, make_workflow, run_all, at, error):
    slug = make_workflow(waiting("none", {"until": "{{ trigger.payload.at }}"}))
    run_id = start(db, slug, {"at": at})
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"]) == ("failed", error)


def test_a_signal_wakes_every_wait_that_matches_and_is_spent(db, make_workflow, run_all):
    slug = make_workflow(waiting("paid", PAID))
    first, second, other = (start(db, slug, {"id": key}) for key in ("A", "A", "B"))
    run_all(db)
    assert signal(db, "paid", "A", {"n": 7}) == 2
    assert signal(db, "shipped", "B") == 0
    run_all(db)
    assert [run(db, r)["output"] for r in (first, second)] == [{"n": 7}, {"n": 7}]
    assert run(db, other)["state"] == "waiting"
    late = start(db, slug, {"id": "A"})
    run_all(db)
    assert run(db, late)["state"] == "waiting"


def test_an_early_signal_is_kept_for_exactly_one_wait(db, make_workflow, run_all):
    slug = make_workflow(waiting("early", PAID))
    assert signal(db, "paid", "A", {"n": 1}) == 0
    assert signal(db, "paid", "A", {"n": 2}) == 0
    first, second, third = (start(db, slug, {"id": "A"}) for _ in range(3))
    run_all(db)
    assert [run(db, r)["state"] for r in (first, second, third)] == ["completed", "completed", "waiting"]
    assert sorted(run(db, r)["output"]["n"] for r in (first, second)) == [1, 2]


def test_a_signal_is_kept_seven_days(db, make_workflow, run_all):
    slug = make_workflow(waiting("old", PAID))
    signal(db, "paid", "A", {"n": 1})
    db.execute("update stellwerk.signal set created_at = now() - interval '7 days 1 minute'")
    run_id = start(db, slug, {"id": "A"})
    run_all(db)
    assert run(db, run_id)["state"] == "waiting"


def test_a_dedupe_key_makes_a_signal_count_once(db, make_workflow, run_all):
    slug = make_workflow(waiting("once", PAID))
    first, second = (start(db, slug, {"id": "A"}) for _ in range(2))
    run_all(db)
    assert signal(db, "paid", "A", {"n": 1}, "message-1") == 2
    assert signal(db, "paid", "A", {"n": 2}, "message-1") == 2  # says what the first did
    run_all(db)
    assert [run(db, r)["output"] for r in (first, second)] == [{"n": 1}, {"n": 1}]
    third = start(db, slug, {"id": "A"})
    run_all(db)
    assert run(db, third)["state"] == "waiting"


def test_a_signal_that_is_rolled_back_never_was(dsn, db, make_workflow, run_all):
    slug = make_workflow(waiting("back", PAID))
    run_id = start(db, slug, {"id": "A"})
    run_all(db)
    with psycopg.connect(dsn) as sender:
        assert signal(sender, "paid", "A") == 1
        sender.rollback()
    run_all(db)
    assert run(db, run_id)["state"] == "waiting"
    assert signal(db, "paid", "A", "yes") == 1
    run_all(db)
    assert run(db, run_id)["output"] == "yes"


def test_a_wait_that_begins_while_its_signal_is_being_sent_misses_nothing(dsn, db, make_workflow, run_all):
    slug = make_workflow(waiting("same", PAID))
    with psycopg.connect(dsn) as sender:
        assert signal(sender, "paid", "A", 1) == 0
        run_id = start(db, slug, {"id": "A"})
        run_all(db)  # the engine does not wait for the sender's transaction; the token does
        assert (run(db, run_id)["state"], states(db, run_id)["w"]) == ("running", "queued")
        sender.commit()
    db.execute("update stellwerk.timer set due_at = now() where run_id = %s", (run_id,))
    db.execute("update stellwerk.step set due_at = now() where run_id = %s and due_at is not null", (run_id,))
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 1)


def test_a_wait_may_leave_by_timeout(db, make_workflow, run_all):
    late = transform("late", "nobody came")
    slug = make_workflow(waiting("timeout", {**PAID, "timeout": "P2D"}, late, edges=["w.timeout -> late"]))
    run_id = start(db, slug, {"id": "A"})
    run_all(db)
    pass_time(db, run_id)
    run_all(db)
    assert run(db, run_id)["output"] == "nobody came"
    assert signal(db, "paid", "A") == 0


def test_a_timeout_that_nobody_drew_fails_the_step(db, make_workflow, run_all):
    slug = make_workflow(waiting("undrawn", {**PAID, "timeout": "P2D"}))
    run_id = start(db, slug, {"id": "A"})
    run_all(db)
    pass_time(db, run_id)
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"]) == ("failed", "timeout")
    assert db.execute("select count(*) from stellwerk.wait").fetchone() == (0,)


@pytest.mark.parametrize("correlation", [None, ""])
def test_a_correlation_that_is_empty_fails_the_step(db, make_workflow, run_all, correlation):
    slug = make_workflow(waiting("empty", PAID))
    run_id = start(db, slug, {"id": correlation})
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "no_correlation"


@pytest.mark.parametrize("type_", ["webhook.esign_completed", "webhook.appointment_confirmed"])
def test_webhook_nodes_wait_for_their_event(db, make_workflow, run_all, type_):
    slug = make_workflow(
        document(
            "hook",
            [
                START,
                node("h", type_, {"correlation": "{{ trigger.payload.id }}", "timeout": "P14D"}),
                transform("e", "{{ steps.h.output.status }}"),
            ],
            ["start -> h", "h -> e"],
        )
    )
    run_id = start(db, slug, {"id": "env-1"})
    run_all(db)
    assert signal(db, type_.removeprefix("webhook."), "env-1", {"status": "signed"}) == 1
    run_all(db)
    assert run(db, run_id)["output"] == "signed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", "k", None), "name of an event"),
        (("e" * 201, "k", None), "name of an event"),
        (("e", "", None), "correlation"),
        (("e", None, None), "correlation"),
        (("e", "k" * 501, None), "correlation"),
        (("e", "k", "d" * 501), "dedupe"),
    ],
)
def test_signals_are_checked(db, arguments, words):
    with pytest.raises(psycopg.Error, match=words) as told:
        db.execute("select stellwerk.signal(%s, %s, '{}', %s)", arguments)
    assert told.value.sqlstate == "SW002"


def test_the_first_of_two_signals_counts(db, make_workflow, run_all):
    slug = make_workflow(waiting("twice", PAID))
    run_id = start(db, slug, {"id": "A"})
    run_all(db)
    assert (signal(db, "paid", "A", 1), signal(db, "paid", "A", 2)) == (1, 0)
    run_all(db)
    assert run(db, run_id)["output"] == 1
    # The second one found nobody waiting any more, so it is kept for the next.
    later = start(db, slug, {"id": "A"})
    run_all(db)
    assert run(db, later)["output"] == 2


def test_a_sleeping_run_costs_nothing_while_it_waits(db, make_workflow, run_all):
    slug = make_workflow(waiting("sleep", {"for": "P30D"}))
    run_ids = [start(db, slug) for _ in range(20)]
    run_all(db)
    before = db.execute("select pg_current_xact_id_if_assigned()").fetchone()
    assert before == (None,)
    [answer] = db.execute("select stellwerk.pump()").fetchone()
    assert (answer["runs_advanced"], answer["steps"], answer["more"]) == (0, 0, False)
    assert answer["next_due_seconds"] > 29 * 86400
    assert all(len(steps(db, run_id)) == 2 for run_id in run_ids)
