"""Live runs move to another version; the runs' history says which version each step was on."""

from __future__ import annotations

from database.helpers import START, Worker, call, document, node, run, start, states, steps, transform
from database.migrating import facts, version

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
