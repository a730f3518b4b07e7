"""Runs that move to another version with tokens that wait for others, or are under way."""

from __future__ import annotations

from database.helpers import FAILURE, START, call, document, node, run, start, states, steps, transform
from database.migrating import diamond, version

# -- tokens that wait for others ------------------------------------------------------------------------------------------


def test_a_waiting_join_keeps_who_has_arrived_under_the_new_names(db, make_workflow, run_all, migrate, worker):
    make_workflow(diamond())
    run_id = start(db, "offer")
    run_all(db)
    left, right = worker.begin()
    worker.end(right)
    make_workflow(diamond(second="other", join="meet"))
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    assert db.execute("select node_id, arrived from stellwerk.step where state = 'joining'").fetchone() == (
        "meet",
        ["other"],
    )
    worker.end(left)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "done")
    assert sorted(states(db, run_id)) == ["end", "left", "meet", "right", "start"]


def test_a_join_that_has_nothing_left_to_wait_for_goes_on(db, make_workflow, run_all, migrate, worker):
    make_workflow(diamond())
    run_id = start(db, "offer")
    run_all(db)
    _, right = worker.begin()
    worker.end(right)
    assert states(db, run_id)["both"] == "joining"
    alone = diamond()
    alone["edges"] = [edge for edge in alone["edges"] if (edge["from"], edge["to"]) != ("left", "both")]
    make_workflow(alone)
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    run_all(db)
    assert states(db, run_id)["end"] == "completed"
    assert run(db, run_id)["state"] == "running", "the call on the left is still being made"


def test_a_join_that_no_longer_waits_for_all_goes_on_and_that_is_a_move(
    db, engine, make_workflow, run_all, migrate, worker
):
    def joined(mode):
        new = diamond()
        new["nodes"][3] = node("both", "logic.join", {"mode": mode})
        return new

    make_workflow(joined("all"))
    run_id = start(db, "offer")
    run_all(db)
    left, right = sorted(worker.begin(), key=lambda each: each["node_id"])
    worker.end(right)
    make_workflow(joined("any"))
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    assert states(db, run_id)["left"] == "cancelled"
    [(verdict, reason)] = [(row["verdict"], row["reason"]) for row in engine.undo_migration(1)]
    assert (verdict, reason) == ("blocked", "node left was left since")
    assert worker.end(left)["accepted"] == 0
    run_all(db)
    assert run(db, run_id)["output"] == "done"


def test_two_tokens_keep_their_own_places(db, make_workflow, run_all, migrate):
    make_workflow(diamond())
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(diamond(second="other"))
    migrate(dry_run=False)
    assert states(db, run_id) == {"start": "completed", "left": "queued", "other": "queued"}


# -- what is under way ----------------------------------------------------------------------------------------------------


def test_an_attempt_that_began_before_ends_its_step_in_the_new_version(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    [taken] = worker.begin()
    make_workflow(version(call("phone"), transform("last", "{{ steps.phone.output.said }}")))
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    assert worker.end(taken, output={"said": "hello"})["accepted"] == 1
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", "hello")
    assert [(s["node_id"], s["version"], s["input"].get("phone")) for s in steps(db, run_id)][1] == ("phone", 2, "1")


def test_a_failed_attempt_is_followed_by_one_with_the_new_settings(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask", retry={"interval": "PT0S"})))
    run_id = start(db, "offer")
    run_all(db)
    [taken] = worker.begin()
    new = version(node("ask", "action.fonio_call", {"phone": "{{ trigger.payload.p }}"}, retry={"interval": "PT0S"}))
    make_workflow(new)
    migrate(dry_run=False)
    worker.end(taken, error=FAILURE)
    [again] = worker.begin()
    assert (again["attempt"], again["failures"]) == (2, 1)
    assert again["idempotency_key"] == taken["idempotency_key"]
    assert again["config"]["phone"] is None  # the payload has no p
    worker.end(again)
    assert run(db, run_id)["state"] == "completed"


def test_a_step_that_waits_for_its_next_attempt_keeps_its_timer(db, make_workflow, run_all, migrate):
    failing = transform("calc", "{{ to_number(trigger.payload.n) }}", retry={"max_attempts": 3, "interval": "PT1H"})
    flaky = node("calc", "sql.function", {"function": "flaky"}, retry={"max_attempts": 3, "interval": "PT1H"})
    assert failing
    db.execute("create schema app")
    db.execute(
        "create function app.flaky(jsonb, jsonb) returns jsonb language plpgsql as"
        " $$begin raise exception 'not now'; end$$"
    )
    db.execute(
        "do $$begin if to_regrole('stellwerk_owner') is not null then grant usage on schema app to stellwerk_owner;"
        " grant execute on function app.flaky(jsonb, jsonb) to stellwerk_owner; end if; end$$"
    )
    db.execute("select stellwerk.register_function('flaky', 'app.flaky(jsonb, jsonb)')")
    make_workflow(version(flaky))
    run_id = start(db, "offer")
    run_all(db)
    before = db.execute("select timer_id, due_at, step_id from stellwerk.timer where kind = 'retry'").fetchall()
    assert len(before) == 1
    make_workflow(version({**flaky, "id": "renamed"}, transform("end", 1)))
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    assert db.execute("select timer_id, due_at, step_id from stellwerk.timer where kind = 'retry'").fetchall() == before
    db.execute("create or replace function app.flaky(jsonb, jsonb) returns jsonb language sql as $$select '5'::jsonb$$")
    db.execute("update stellwerk.timer set due_at = now()")
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 1)


def test_a_node_on_a_cycle_goes_on_counting_its_visits(db, make_workflow, run_all, migrate, worker):
    def cycle(body):
        return document(
            "offer",
            [
                START,
                call(body),
                node("more", "logic.if", {"condition": f"steps.{body}.output.more"}),
                transform("end", 1),
            ],
            [f"start -> {body}", f"{body} -> more", f"more.true -> {body}", "more.false -> end"],
        )

    make_workflow(cycle("work"))
    run_id = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin(), output={"more": True})
    make_workflow(cycle("labour"))
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    worker.end(*worker.begin(), output={"more": True})
    worker.end(*worker.begin(), output={"more": False})
    assert run(db, run_id)["state"] == "completed"
    assert [(s["node_id"], s["visit"]) for s in steps(db, run_id) if s["type"] == "action.fonio_call"] == [
        ("work", 1),
        ("labour", 2),
        ("labour", 3),
    ]
