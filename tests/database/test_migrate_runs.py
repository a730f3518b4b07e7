"""Live runs move to another version and back; the runs' history says which version each step was on."""

from __future__ import annotations

import itertools
import threading

import psycopg
import pytest
from database.helpers import FAILURE, START, Worker, call, document, node, run, start, states, steps, transform


def version(*middle, slug="offer", **more):
    """start -> the given nodes in order -> end, which reads the first of them."""
    nodes = [START, *middle]
    names = [each["id"] for each in nodes]
    return document(slug, nodes, [f"{a} -> {b}" for a, b in itertools.pairwise(names)], **more)


@pytest.fixture
def migrate(engine):
    """Verdicts by run: (verdict, reason)."""

    def call_it(slug="offer", a=1, b=2, node_map=None, **more):
        return {
            row["run_id"]: (row["verdict"], row["reason"]) for row in engine.migrate_runs(slug, a, b, node_map, **more)
        }

    return call_it


@pytest.fixture
def worker(dsn):
    worker = Worker(dsn)
    yield worker
    worker.connection.close()


def facts(db, run_id):
    """Everything that a migration may change."""
    return db.execute(
        "select r.version, r.trigger_node, r.aliases, r.recount,"
        " (select jsonb_agg(jsonb_build_array(s.step_id, s.node_id, s.version, s.state, s.attempt, s.visit, s.arrived)"
        "                   order by s.step_id) from stellwerk.step s where s.run_id = r.run_id)"
        " from stellwerk.run r where r.run_id = %s",
        [run_id],
    ).fetchone()


def fails(db, sqlstate, query, *parameters):
    with pytest.raises(psycopg.Error) as raised:
        db.execute(query, parameters)
    assert raised.value.sqlstate == sqlstate, raised.value
    return raised.value.diag


# -- moving -------------------------------------------------------------------------------------------------------------


def test_a_waiting_run_goes_on_in_the_new_version(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(transform("first", 1), call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("first", 2), call("ask"), transform("last", "{{ steps.first.output * 10 }}")))
    assert migrate() == {run_id: ("ok", None)}
    assert run(db, run_id)["version"] == 1, "a dry run changes nothing"
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    worker.end(*worker.begin())
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 10)
    assert [(s["node_id"], s["version"]) for s in steps(db, run_id)] == [
        ("start", 1),
        ("first", 1),
        ("ask", 2),
        ("last", 2),
    ]


def test_two_versions_run_side_by_side(db, make_workflow, run_all, worker):
    make_workflow(version(call("ask"), transform("last", "old")))
    old = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", "new")))
    new = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin())
    assert [run(db, each)["output"] for each in (old, new)] == ["old", "new"]
    for run_id, number in ((old, 1), (new, 2)):
        assert {s["version"] for s in steps(db, run_id)} == {number}
    # A roll-back is a version of its own, and changes neither.
    assert db.execute("select stellwerk.rollback_workflow('offer', 1)").fetchone() == (3,)
    again = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin())
    assert (run(db, again)["output"], {s["version"] for s in steps(db, again)}) == ("old", {3})
    assert {s["version"] for s in steps(db, new)} == {2}


def test_a_rolled_back_version_takes_the_runs_of_the_bad_one(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask"), transform("last", "good")))
    make_workflow(version(call("ask"), transform("last", "bad")))
    run_id = start(db, "offer")
    run_all(db)
    db.execute("select stellwerk.rollback_workflow('offer', 1)")
    assert migrate(a=2, b=1) == {run_id: ("ok", None)}, "an older version is as good"
    assert migrate(a=2, b=3, dry_run=False) == {run_id: ("ok", None)}
    worker.end(*worker.begin())
    assert run(db, run_id)["output"] == "good"


def test_a_pending_run_simply_changes_its_version(db, make_workflow, run_all, migrate):
    make_workflow(version(transform("a", 1)))
    now = start(db, "offer")
    later = start(db, "offer", run_at="2100-01-01")
    make_workflow(document("offer", [node("begin", "trigger.manual"), transform("b", 2)], ["begin -> b"]))
    assert migrate(dry_run=False) == {now: ("ok", None), later: ("ok", None)}
    assert facts(db, later)[:4] == (2, "begin", {"begin": "start", "b": "a"}, True)
    run_all(db)
    assert (run(db, now)["output"], run(db, later)["state"]) == (2, "pending")


def test_ended_runs_and_runs_of_other_versions_are_left_alone(db, make_workflow, run_all, migrate):
    make_workflow(version(transform("a", 1)))
    start(db, "offer")
    run_all(db)
    make_workflow(version(call("a")))
    start(db, "offer")
    run_all(db)
    make_workflow(version(call("a"), slug="other"))
    start(db, "other")
    run_all(db)
    make_workflow(version(call("a"), transform("b", 1)))
    assert migrate(a=1, b=3) == {}
    assert migrate(a=1, b=3, dry_run=False) == {}


def test_a_node_that_was_put_in_is_run_if_it_lies_ahead(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(transform("a", 1), call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(
        version(
            transform("a", 1),
            transform("behind", 2),
            call("ask"),
            transform("ahead", 3),
            transform("last", {"behind": "{{ steps.behind.output }}", "ahead": "{{ steps.ahead.output }}"}),
        )
    )
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    worker.end(*worker.begin())
    assert "behind" not in states(db, run_id)
    assert run(db, run_id)["output"] == {"behind": None, "ahead": 3}


def test_a_node_that_was_taken_out_is_missed_only_where_a_token_stands(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("first"), call("second"), transform("note", 1), transform("last", "old")))
    before, on_it = start(db, "offer"), start(db, "offer")
    run_all(db)
    worker.end(*worker.begin([ref for ref in worker.queued() if ref[0] == on_it]))
    make_workflow(version(call("first"), transform("last", "new")))
    verdicts = migrate(dry_run=False)
    assert verdicts[before] == ("ok", None)
    assert verdicts[on_it] == (
        "blocked",
        "node second (action.fonio_call) is gone in version 2, and no node there can take its place",
    )
    while worker.queued():
        worker.end(*worker.begin())
    assert [run(db, each)["output"] for each in (before, on_it)] == ["new", "old"]
    assert sorted(states(db, before)) == ["first", "last", "start"]


def test_one_token_that_cannot_move_keeps_its_run(db, make_workflow, run_all, migrate):
    def fork(*calls):
        return document("offer", [START, *map(call, calls)], [f"start -> {each}" for each in calls])

    make_workflow(fork("left", "right"))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(fork("left"))
    [(verdict, reason)] = migrate(node_map={"right": None}).values()
    assert (verdict, reason.startswith("node right ")) == ("blocked", True)
    assert migrate(node_map={"left": None})[run_id][0] in ("blocked", "needs_map")
    assert {s["version"] for s in steps(db, run_id)} == {1}


def test_a_name_that_means_another_type_now_is_visited_once_more(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(transform("x", 1), call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(
        version(call("ask"), node("x", "log.write", {"message": "m"}), transform("last", "{{ steps.x.output }}"))
    )
    assert migrate(dry_run=False) == {run_id: ("ok", None)}
    worker.end(*worker.begin())
    assert run(db, run_id)["output"] == {}
    assert [(s["type"], s["visit"], s["version"]) for s in steps(db, run_id) if s["node_id"] == "x"] == [
        ("logic.transform", 1, 1),
        ("log.write", 2, 2),
    ]


# -- which node is which ------------------------------------------------------------------------------------------------


def test_a_renamed_node_is_recognised_and_earlier_outputs_are_known_by_their_new_names(
    db, make_workflow, run_all, engine
):
    make_workflow(version(transform("price", 7), call("ask"), transform("last", "{{ steps.price.output }}")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("amount", 7), call("phone"), transform("last", "{{ steps.amount.output }}")))
    [row] = engine.migrate_runs("offer", 1, 2)
    assert (row["verdict"], row["mapping"]) == ("ok", {"ask": "phone"})
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert facts(db, run_id)[2] == {"amount": "price", "phone": "ask"}
    assert [(s["node_id"], s["version"], s["state"]) for s in steps(db, run_id)] == [
        ("start", 1, "completed"),
        ("price", 1, "completed"),
        ("phone", 2, "queued"),
    ]


def test_a_node_without_a_counterpart_needs_a_map(db, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask"), transform("last", 1)))
    run_id = start(db, "offer")
    run_all(db)
    # Two calls, with other settings and other ways: neither can be guessed.
    make_workflow(
        document(
            "offer",
            [START, transform("pre", 1), node("x", "action.fonio_call", {"phone": "2"}), call("y"), transform("z", 2)],
            ["start -> pre", "pre -> x", "pre -> y", "x -> z", "y -> z"],
        )
    )
    assert migrate(node_map={"ask": None}) == {
        run_id: (
            "needs_map",
            "node ask (action.fonio_call) has no counterpart in version 2; it may be x, y",
        )
    }
    assert migrate(node_map={"ask": None}, dry_run=False)[run_id][0] == "needs_map"
    assert run(db, run_id)["version"] == 1
    assert migrate(node_map={"ask": "x"}, dry_run=False) == {run_id: ("ok", None)}
    worker.end(*worker.begin(), output={"said": "yes"})
    assert run(db, run_id)["output"] == 2
    assert states(db, run_id) == {"start": "completed", "x": "completed", "z": "completed"}


def test_a_map_wins_over_the_same_name(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), call("again")))
    assert migrate(node_map={"ask": "again"}, dry_run=False) == {run_id: ("ok", None)}
    assert states(db, run_id) == {"start": "completed", "again": "queued"}


def test_another_type_blocks(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("ask", 1)))
    [(verdict, reason)] = migrate().values()
    assert verdict == "blocked"
    assert reason == (
        "node ask is logic.transform in version 2 and was action.fonio_call, and no other node there can take its place"
    )
    [(verdict, reason)] = migrate(node_map={"ask": "start"}).values()
    assert (verdict, "a token keeps the type of its node" in reason) == ("blocked", True)
    assert migrate(dry_run=False)[run_id][0] == "blocked"
    assert run(db, run_id)["version"] == 1


def test_a_node_that_is_gone_blocks(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask")))
    start(db, "offer")
    run_all(db)
    make_workflow(version(transform("other", 1)))
    [(verdict, reason)] = migrate().values()
    assert (verdict, reason) == (
        "blocked",
        "node ask (action.fonio_call) is gone in version 2, and no node there can take its place",
    )


def test_another_trigger_stands_for_the_one_that_is_gone_if_told_so(db, make_workflow, run_all, migrate):
    make_workflow(version(transform("a", 1)))
    run_id = start(db, "offer")
    make_workflow(
        document("offer", [node("form", "trigger.form_submit", {"form": "f"}), transform("a", 1)], ["form -> a"])
    )
    [(verdict, reason)] = migrate().values()
    assert verdict == "needs_map"
    assert reason == (
        "the run began at start: node start (trigger.manual) has no counterpart in version 2; it may be form"
    )
    assert migrate(node_map={"start": "form"}, dry_run=False) == {run_id: ("ok", None)}
    run_all(db)
    assert states(db, run_id) == {"form": "completed", "a": "completed"}


def test_names_that_change_places_do_not_mix_up_what_has_been(db, make_workflow, run_all, migrate):
    make_workflow(version(transform("a", 1), transform("b", 2), call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("b", 1), transform("a", 2), call("ask")))
    assert migrate(node_map={"a": "b", "b": "a"}) == {
        run_id: ("blocked", "a renamed node would have the name of another one that the run has been on")
    }


def test_a_live_node_does_not_take_the_name_of_a_passed_one(db, make_workflow, run_all, migrate):
    make_workflow(version(call("x"), call("y")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("y")))
    assert migrate(node_map={"x": "y"})[run_id] == ("ok", None)
    worker = Worker(db.info.dsn)
    worker.end(*worker.begin())
    [(verdict, _)] = migrate(node_map={"x": None}).values()
    assert verdict == "ok"
    worker.connection.close()


def test_a_run_that_is_moved_twice_knows_its_first_names(db, make_workflow, run_all, migrate):
    make_workflow(version(transform("a", 1), call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("b", 1), call("ask")))
    make_workflow(version(transform("c", 1), call("ask")))
    migrate(dry_run=False)
    migrate(a=2, b=3, dry_run=False)
    assert facts(db, run_id)[2] == {"c": "a"}
    assert migrate(a=3, b=1, dry_run=False) == {run_id: ("ok", None)}
    assert facts(db, run_id)[2] is None


# -- tokens that wait for others ------------------------------------------------------------------------------------------


def diamond(second="right", join="both", **more):
    return document(
        "offer",
        [START, call("left"), call(second), transform(join, "joined"), transform("end", "done")],
        ["start -> left", f"start -> {second}", f"left -> {join}", f"{second} -> {join}", f"{join} -> end"],
        **more,
    )


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


# -- on two connections ---------------------------------------------------------------------------------------------------


def test_a_run_that_another_transaction_moves_is_passed_over(db, dsn, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask"), transform("last", "old")))
    busy, free = start(db, "offer"), start(db, "offer")
    run_all(db)
    taken = sorted(worker.begin(), key=lambda each: each["run_id"])
    make_workflow(version(call("ask"), transform("last", "new")))
    with worker.connection.transaction():
        worker.end(taken[0])
        verdicts = migrate(dry_run=False)
    assert verdicts[free] == ("ok", None)
    assert verdicts[busy] == ("blocked", "another transaction moves the run at this moment; ask again")
    assert migrate(dry_run=False) == {}
    worker.end(taken[1])
    assert [run(db, each)["output"] for each in (busy, free)] == ["old", "new"]


def test_a_completion_waits_for_the_migration_and_goes_on_in_the_new_version(
    db, dsn, make_workflow, run_all, worker, wait_until
):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    answers = []
    with psycopg.connect(dsn) as mover:
        verdict = mover.execute(
            "select verdict from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)"
        ).fetchall()
        assert verdict == [("ok",)]
        finishing = threading.Thread(target=lambda: answers.append(worker.end(*taken)))
        finishing.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [worker.connection.info.backend_pid]
            ).fetchone()
        )
        mover.commit()
    finishing.join()
    assert answers[0]["accepted"] == 1
    assert (run(db, run_id)["version"], run(db, run_id)["output"]) == (2, "new")


def test_a_sign_of_life_and_a_migration_do_not_wait_for_each_other(db, dsn, make_workflow, run_all, migrate, worker):
    make_workflow(version(call("ask")))
    held, free = start(db, "offer"), start(db, "offer")
    run_all(db)
    one, two = sorted(worker.begin(), key=lambda taken: taken["run_id"])
    make_workflow(version(call("ask"), transform("last", 1)))
    with worker.connection.transaction():
        worker.connection.execute(
            "select stellwerk.extend_leases(%s, 1, array[%s]::bigint[], array[%s]::bigint[], array[1])",
            [worker.worker_id, one["run_id"], one["step_id"]],
        )
        verdicts = migrate(dry_run=False)
    assert {each: verdicts[each][0] for each in (held, free)} == {held: "blocked", free: "ok"}
    assert migrate(dry_run=False) == {held: ("ok", None)}
    worker.end(one, two)
    assert {run(db, each)["output"] for each in (held, free)} == {1}


@pytest.mark.parametrize("ends_with", ["output", "error"])
def test_a_result_that_comes_first_keeps_its_run_on_the_old_version_until_asked_again(
    db, engine, make_workflow, run_all, worker, ends_with
):
    retry = {"max_attempts": 2, "interval": "PT0S"}
    make_workflow(version(call("ask", retry=retry), call("next"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone", retry=retry), call("next"), transform("last", "new")))
    with worker.connection.transaction():
        worker.end(*taken, **({"output": {}} if ends_with == "output" else {"error": FAILURE}))
        [row] = engine.migrate_runs("offer", 1, 2, dry_run=False)
        assert (row["verdict"], row["migration_id"]) == ("blocked", None)
    assert db.execute("select moved, blocked from stellwerk.migration_progress").fetchall() == [(0, 1)]
    # Once more through those that were left: the same migration.
    [row] = engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=1)
    assert (row["verdict"], row["migration_id"]) == ("ok", 1)
    assert db.execute("select moved, blocked from stellwerk.migration_progress").fetchall() == [(1, 0)]
    while worker.queued():
        worker.end(*worker.begin())
    assert (run(db, run_id)["output"], run(db, run_id)["version"]) == ("new", 2)


def test_a_cancellation_waits_for_the_migration(db, dsn, make_workflow, run_all, wait_until):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("phone"), transform("last", 1)))
    with psycopg.connect(dsn) as mover, psycopg.connect(dsn, autocommit=True) as other:
        mover.execute("select from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)")
        cancelling = threading.Thread(target=other.execute, args=("select stellwerk.cancel_run(%s)", [run_id]))
        cancelling.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [other.info.backend_pid]
            ).fetchone()
        )
        mover.commit()
        cancelling.join()
    assert (run(db, run_id)["state"], run(db, run_id)["version"]) == ("cancelled", 2)
    assert states(db, run_id) == {"start": "completed", "phone": "cancelled"}


def test_a_result_waits_for_an_undo_and_goes_on_in_the_old_version(
    db, dsn, engine, make_workflow, run_all, worker, wait_until
):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    answers = []
    with psycopg.connect(dsn) as undoer:
        assert undoer.execute("select verdict from stellwerk.undo_migration(1, dry_run => false)").fetchall() == [
            ("ok",)
        ]
        finishing = threading.Thread(target=lambda: answers.append(worker.end(*taken)))
        finishing.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [worker.connection.info.backend_pid]
            ).fetchone()
        )
        undoer.commit()
    finishing.join()
    assert answers[0]["accepted"] == 1
    assert (run(db, run_id)["version"], run(db, run_id)["output"]) == (1, "old")


def test_a_migration_is_not_continued_while_it_is_being_undone(db, dsn, engine, make_workflow, run_all, wait_until):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(2)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False, batch=1)
    states_seen = []

    def go_on(connection):
        try:
            connection.execute("select from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)")
        except psycopg.Error as error:
            states_seen.append(error.sqlstate)

    with psycopg.connect(dsn) as undoer, psycopg.connect(dsn, autocommit=True) as other:
        undoer.execute("select from stellwerk.undo_migration(1, dry_run => false)")
        continuing = threading.Thread(target=go_on, args=(other,))
        continuing.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_locks where not granted and pid = %s", [other.info.backend_pid]
            ).fetchone()
        )
        undoer.commit()
        continuing.join()
    assert states_seen == ["SW003"]
    assert [run(db, each)["version"] for each in runs] == [1, 1]


def test_an_undo_passes_over_a_run_that_is_being_moved(db, engine, make_workflow, run_all, worker):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    busy = {
        "run_id": run_id,
        "verdict": "blocked",
        "reason": "another transaction moves the run at this moment; ask again",
    }
    with worker.connection.transaction():
        worker.connection.execute(
            "select stellwerk.extend_leases(%s, 1, array[%s]::bigint[], array[%s]::bigint[], array[1])",
            [worker.worker_id, run_id, taken[0]["step_id"]],
        )
        assert engine.undo_migration(1, dry_run=False) == [busy], "a sign of life holds the step"
    with worker.connection.transaction():
        worker.end(*taken)
        assert engine.undo_migration(1, dry_run=False) == [busy], "the result holds the run"
    assert engine.undo_migration(1, dry_run=False)[0]["reason"] == "the run has ended as completed"
    assert run(db, run_id)["output"] == "new"


def test_pumping_and_migrating_at_once_moves_every_run_once(db, dsn, engine, make_workflow, run_all):
    make_workflow(version(transform("a", 1), call("ask"), transform("last", "old")))
    runs = [start(db, "offer") for _ in range(40)]
    make_workflow(version(transform("b", 1), call("phone"), transform("last", "{{ steps.b.output }}")))
    stop = threading.Event()

    def pumping():
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("select stellwerk.pump(3)")

    pumps = [threading.Thread(target=pumping) for _ in range(2)]
    for each in pumps:
        each.start()
    try:
        for _ in range(100):
            engine.migrate_runs("offer", 1, 2, dry_run=False, batch=5, continue_with=None)
            if db.execute("select count(*) from stellwerk.run where version = 1").fetchone() == (0,):
                break
    finally:
        stop.set()
        for each in pumps:
            each.join()
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin())
    worker.connection.close()
    assert {(run(db, each)["version"], run(db, each)["output"]) for each in runs} == {(2, 1)}
    mixed = db.execute(
        "select run_id from stellwerk.step_timeline where (version = 1) <> (node_id in ('a', 'ask')) and node_id <> 'start'"
    ).fetchall()
    assert mixed == []


# -- many -----------------------------------------------------------------------------------------------------------------


def test_runs_are_moved_in_batches_that_continue_each_other(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(7)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    first = engine.migrate_runs("offer", 1, 2, dry_run=False, batch=3)
    assert [row["run_id"] for row in first] == runs[:3]
    [number] = {row["migration_id"] for row in first}
    # It is not over, so the same order goes on with it; so does its number.
    second = engine.migrate_runs("offer", 1, 2, dry_run=False, batch=3)
    assert db.execute("select moved, ended_at from stellwerk.migration_progress").fetchall() == [(6, None)]
    third = engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=number)
    assert [row["run_id"] for row in second + third] == runs[3:]
    assert {row["migration_id"] for row in second + third} == {number}
    assert db.execute(
        "select workflow, from_version, to_version, moved, needs_map, blocked, undone, ended_at is null"
        " from stellwerk.migration_progress"
    ).fetchall() == [("offer", 1, 2, 7, 0, 0, 0, False)]
    assert engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=number) == []
    fails(db, "SW007", "select * from stellwerk.migrate_runs('offer', 2, 1, continue_with => %s)", number)


def test_a_thousand_runs_move_in_batches_and_back(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask"), transform("last", "old")))
    db.execute("select stellwerk.start_run('offer') from generate_series(1, 1000)")
    run_all(db)
    make_workflow(version(call("phone"), transform("last", "new")))
    sizes = []
    while rows := engine.migrate_runs("offer", 1, 2, dry_run=False, batch=300):
        assert {row["verdict"] for row in rows} == {"ok"}
        sizes.append(len(rows))
    assert sizes == [300, 300, 300, 100]
    assert db.execute("select count(*), min(version) from stellwerk.run").fetchone() == (1000, 2)
    assert db.execute("select moved from stellwerk.migration_progress").fetchall() == [(1000,)]
    undone = engine.undo_migration(1, dry_run=False, batch=600) + engine.undo_migration(1, dry_run=False)
    assert len({row["run_id"] for row in undone if row["verdict"] == "ok"}) == 1000
    assert db.execute("select max(version), max(recount::int) from stellwerk.run").fetchone() == (1, 0)
    assert db.execute(
        "select distinct node_id, version from stellwerk.live_step join stellwerk.step using (run_id, step_id, node_id)"
    ).fetchall() == [("ask", 1)]
    assert db.execute("select undone from stellwerk.migration_progress").fetchall() == [(1000,)]


def test_a_migration_that_was_killed_goes_on(db, dsn, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(5)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False, batch=2)
    dying = psycopg.connect(dsn)
    dying.execute("select from stellwerk.migrate_runs('offer', 1, 2, dry_run => false, batch => 2)")
    db.execute("select pg_terminate_backend(%s, 10000)", [dying.info.backend_pid])
    dying.close()
    assert [run(db, each)["version"] for each in runs] == [2, 2, 1, 1, 1], "a batch is moved whole or not at all"
    rest = engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert [(row["run_id"], row["migration_id"]) for row in rest] == [(each, 1) for each in runs[2:]]
    # What undoes it undoes all of it.
    assert [row["run_id"] for row in engine.undo_migration(1, dry_run=False)] == runs


def test_another_map_is_another_migration(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    for _ in range(2):
        start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), call("again")))
    first = engine.migrate_runs("offer", 1, 2, dry_run=False, batch=1)
    second = engine.migrate_runs("offer", 1, 2, {"ask": "again"}, dry_run=False, batch=1)
    assert [row["migration_id"] for row in first + second] == [1, 2]
    assert db.execute("select node_map from stellwerk.migration_progress order by migration_id").fetchall() == [
        ({},),
        ({"ask": "again"},),
    ]


def test_what_could_not_be_moved_is_kept_with_its_reason(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("other", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert db.execute("select run_id, verdict, reason, steps is null from stellwerk.run_migration").fetchall() == [
        (
            run_id,
            "blocked",
            "node ask (action.fonio_call) is gone in version 2, and no node there can take its place",
            False,
        )
    ]
    assert engine.undo_migration(1) == []


def test_nothing_to_move_leaves_no_trace(db, engine, make_workflow):
    make_workflow(version(call("ask")))
    make_workflow(version(call("ask"), transform("last", 1)))
    assert engine.migrate_runs("offer", 1, 2, dry_run=False) == []
    assert db.execute("select count(*) from stellwerk.version_move").fetchone() == (0,)


def test_another_tenant_is_not_touched(db, engine, make_workflow, run_all):
    for tenant in ("default", "other"):
        if tenant == "other":
            db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
            db.execute("set stellwerk.tenant = 'other'")
        make_workflow(version(call("ask")))
        start(db, "offer")
        run_all(db)
        make_workflow(version(call("ask"), transform("last", 1)))
    assert len(engine.migrate_runs("offer", 1, 2, dry_run=False)) == 1
    assert db.execute("select count(*) from stellwerk.migration_progress").fetchone() == (1,)
    db.execute("reset stellwerk.tenant")
    assert db.execute("select version from stellwerk.run_overview").fetchall() == [(1,)]
    fails(db, "SW007", "select * from stellwerk.undo_migration(1)")


def test_a_proposal_says_how_each_node_was_found(db, make_workflow):
    make_workflow(version(transform("price", 7), call("ask"), node("gone", "log.write", {"message": "m"})))
    make_workflow(version(transform("amount", 7), call("ask"), call("again")))
    query = "select * from stellwerk.propose_node_map('offer', 1, 2"
    assert db.execute(query + ")").fetchall() == [
        ("start", "trigger.manual", "start", "same"),
        ("price", "logic.transform", "amount", "renamed"),
        ("ask", "action.fonio_call", "ask", "same"),
        ("gone", "log.write", None, "none"),
    ]
    assert db.execute(query + """, '{"ask": "again", "price": null}')""").fetchall()[1:3] == [
        ("price", "logic.transform", None, "given"),
        ("ask", "action.fonio_call", "again", "given"),
    ]
    fails(db, "SW007", query + """, '{"asked": "ask"}')""")


# -- undoing ---------------------------------------------------------------------------------------------------------------


def test_undoing_puts_everything_back(db, engine, make_workflow, run_all, worker):
    make_workflow(diamond())
    waiting, held = start(db, "offer"), start(db, "offer", run_at="2100-01-01")
    run_all(db)
    left, right = worker.begin()
    worker.end(right)
    before = [facts(db, each) for each in (waiting, held)]
    make_workflow(diamond(second="other", join="meet"))
    moved = engine.migrate_runs("offer", 1, 2, dry_run=False)
    number = moved[0]["migration_id"]
    assert facts(db, waiting) != before[0]
    expected = [{"run_id": each, "verdict": "ok", "reason": None} for each in (waiting, held)]
    assert engine.undo_migration(number) == expected
    assert facts(db, waiting)[0] == 2, "a dry run changes nothing"
    assert engine.undo_migration(number, dry_run=False, batch=1) == expected[:1]
    assert engine.undo_migration(number, dry_run=False) == expected[1:]
    assert engine.undo_migration(number, dry_run=False) == []
    assert [facts(db, each) for each in (waiting, held)] == before
    assert db.execute(
        "select count(*), count(undone_at), count(undone_by) from stellwerk.run_migration"
    ).fetchone() == (
        2,
        2,
        2,
    )
    worker.end(left)
    assert (run(db, waiting)["output"], "both" in states(db, waiting)) == ("done", True)


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (lambda db, worker, run_id: worker.begin(), "node phone is running, attempt 1, and was queued, attempt 0"),
        (lambda db, worker, run_id: worker.end(*worker.begin()), "node phone was left since"),
        (
            lambda db, worker, run_id: db.execute("select stellwerk.cancel_run(%s)", [run_id]),
            "the run has ended as cancelled",
        ),
        (
            lambda db, worker, run_id: db.execute(
                "select from stellwerk.migrate_runs('offer', 2, 1, dry_run => false)"
            ),
            "the run has been moved to another version since",
        ),
    ],
    ids=["begun", "ended", "cancelled", "moved again"],
)
def test_a_run_that_has_moved_since_stays(db, engine, make_workflow, run_all, worker, move, reason):
    make_workflow(version(call("ask"), call("next")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("phone"), call("next")))
    [row] = engine.migrate_runs("offer", 1, 2, dry_run=False)
    move(db, worker, run_id)
    after = facts(db, run_id)
    for dry_run in (True, False):
        assert engine.undo_migration(row["migration_id"], dry_run=dry_run) == [
            {"run_id": run_id, "verdict": "blocked", "reason": reason}
        ]
    assert facts(db, run_id) == after


def test_an_attempt_that_goes_on_all_the_while_does_not_keep_a_run_from_going_back(
    db, engine, make_workflow, run_all, worker
):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    [row] = engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert [each["verdict"] for each in engine.undo_migration(row["migration_id"], dry_run=False)] == ["ok"]
    worker.end(*taken)
    assert (run(db, run_id)["output"], states(db, run_id)["ask"]) == ("old", "completed")


def test_what_was_undone_is_not_continued(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(2)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False, batch=1)
    engine.undo_migration(1, dry_run=False)
    diag = fails(
        db, "SW003", "select * from stellwerk.migrate_runs('offer', 1, 2, dry_run => false, continue_with => 1)"
    )
    assert "undone" in diag.message_primary
    again = engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert [(row["run_id"], row["migration_id"]) for row in again] == [(each, 2) for each in runs]
    assert {row["verdict"] for row in engine.undo_migration(2, dry_run=False)} == {"ok"}


def test_what_another_migration_has_moved_back_is_not_moved_again_by_the_same(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    engine.migrate_runs("offer", 2, 1, dry_run=False)
    assert engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=1) == []
    assert run(db, run_id)["version"] == 1
    assert engine.undo_migration(1)[0]["reason"] == "the run has been moved to another version since"
    assert [row["verdict"] for row in engine.undo_migration(2, dry_run=False)] == ["ok"]
    assert [row["verdict"] for row in engine.undo_migration(1, dry_run=False)] == ["ok"], (
        "one after the other, the last first"
    )
    assert (run(db, run_id)["version"], facts(db, run_id)[3]) == (1, False)


def test_the_audit_log_says_who_moved_which_run_and_what_is_kept_goes_with_the_run(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    engine.undo_migration(1, dry_run=False)
    assert db.execute(
        "select actor, action, before, after from stellwerk.audit_log"
        " where subject = 'run' and subject_id = %s order by audit_id",
        [str(run_id)],
    ).fetchall() == [
        ("db:postgres", "migrate_run", {"version": 1}, {"version": 2, "migration_id": "1"}),
        ("db:postgres", "undo_migration", {"version": 2}, {"version": 1, "migration_id": "1"}),
    ]
    db.execute("select stellwerk.remove_parts(1, array[%(run)s]::bigint[], %(run)s, %(run)s)", {"run": run_id})
    assert db.execute("select count(*) from stellwerk.run_migration").fetchone() == (0,)
    assert db.execute("select moved from stellwerk.migration_progress").fetchall() == [(0,)]


# -- who may --------------------------------------------------------------------------------------------------------------


def test_a_dba_may_move_runs_and_a_worker_may_not(db, make_workflow, run_all):
    make_workflow(version(call("ask")))
    start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    for group, sqlstate in (("stellwerk_worker", "42501"), ("stellwerk_dba", None)):
        name = f"{group}_of_{db.info.dbname}"
        db.execute(f"drop role if exists {name}")
        db.execute(f"create role {name} login in role {group}")
        db.execute(f"set session authorization {name}")
        query = "select verdict from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)"
        if sqlstate:
            fails(db, sqlstate, query)
        else:
            assert db.execute(query).fetchall() == [("ok",)]
            assert db.execute("select judged_by from stellwerk.run_migration").fetchall() == [(f"db:{name}",)]
            assert db.execute("select moved from stellwerk.migration_progress").fetchall() == [(1,)]
            fails(db, "42501", "update stellwerk.run_migration set undone_at = now()")
            assert db.execute("select verdict from stellwerk.undo_migration(1, dry_run => false)").fetchall() == [
                ("ok",)
            ]
        db.execute("reset session authorization")


# -- wrong use ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("'nothing', 1, 2", "SW001", "no workflow"),
        ("'offer', 1, 9", "SW005", "no version 9"),
        ("'offer', 9, 1", "SW005", "no version 9"),
        ("'offer', 1, 1", "SW003", "to itself"),
        ("'offer', 1, 3", "SW003", "draft"),
        ("'offer', 1, 2, '[]'", "SW002", "no object"),
        ("'offer', 1, 2, '{\"ask\": 1}'", "SW002", "no object"),
        ('\'offer\', 1, 2, \'{"start": "ask", "ask": "ask"}\'', "SW002", "two nodes"),
        ("'offer', 1, 2, '{\"asked\": \"ask\"}'", "SW007", "version 1 has no node asked"),
        ("'offer', 1, 2, '{\"ask\": \"phone\"}'", "SW007", "version 2 has no node phone"),
        ("'offer', 1, 2, batch => 0", "SW008", "at least 1"),
        ("'offer', 1, 2, continue_with => 77", "SW007", "no migration 77"),
    ],
)
def test_wrong_use_is_refused(db, make_workflow, arguments, sqlstate, words):
    make_workflow(version(call("ask")))
    make_workflow(version(call("ask"), transform("last", 1)))
    make_workflow(version(call("ask"), transform("last", 2)), publish=False)
    # The arguments are literals of this file.
    diag = fails(db, sqlstate, "select * from stellwerk.migrate_runs(" + arguments + ")")
    assert words in diag.message_primary
    assert diag.message_hint


def test_undoing_what_never_was_is_refused(db):
    assert "no migration 5" in fails(db, "SW007", "select * from stellwerk.undo_migration(5)").message_primary


def test_an_undo_of_no_run_at_all_is_refused(db):
    diag = fails(db, "SW008", "select * from stellwerk.undo_migration(5, batch => 0)")
    assert "at least 1" in diag.message_primary


def test_a_step_on_a_node_that_its_version_does_not_have_is_left_alone(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    db.execute("update stellwerk.step set node_id = 'ghost' where node_id = 'ask'")
    [(verdict, reason)] = migrate(dry_run=False).values()
    assert verdict == "blocked"
    assert reason.endswith("stands on node ghost, which version 1 does not have")
    assert run(db, run_id)["version"] == 1
