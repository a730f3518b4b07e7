"""Runs that wait are moved to another version with what they wait for: loops, timers, signals, children, people's orders."""

from __future__ import annotations

import itertools

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


def version(*middle, slug="offer", **more):
    """start -> the given nodes in order."""
    names = ["start", *(each["id"] for each in middle)]
    return document(slug, [START, *middle], [f"{a} -> {b}" for a, b in itertools.pairwise(names)], **more)


@pytest.fixture
def migrate(engine):
    """Verdicts by run: (verdict, reason)."""

    def call_it(a=1, b=2, node_map=None, slug="offer", dry_run=False):
        rows = engine.migrate_runs(slug, a, b, node_map, dry_run=dry_run)
        return {row["run_id"]: (row["verdict"], row["reason"]) for row in rows}

    return call_it


def undo(engine, migration_id=1):
    return [(row["verdict"], row["reason"]) for row in engine.undo_migration(migration_id, dry_run=False)]


def left_over(db, run_id):
    """What must not be left over once a run has ended."""
    return db.execute(
        "select (select count(*) from stellwerk.timer where run_id = %(run)s),"
        " (select count(*) from stellwerk.wait where run_id = %(run)s),"
        " (select count(*) from stellwerk.live_step where run_id = %(run)s)",
        {"run": run_id},
    ).fetchone()


# -- loops ----------------------------------------------------------------------------------------------------------------


def looping(
    *, loop="each", body="ring", more="note", items="{{ trigger.payload.list }}", extra=(), edges=(), **settings
):
    """start -> loop; in it body -> more; then end."""
    return document(
        "offer",
        [
            START,
            node(loop, "logic.loop", {"items": items, **settings}),
            call(body),
            transform(more, {"item": "{{ item }}", "said": f"{{{{ steps.{body}.output.said }}}}"}),
            transform("end", f"{{{{ steps.{loop}.output.items }}}}"),
            *extra,
        ],
        edges or [f"start -> {loop}", f"{loop}.each -> {body}", f"{body} -> {more}", f"{loop}.done -> end"],
    )


def in_the_second_iteration(db, make_workflow, run_all, worker, **settings):
    make_workflow(looping(**settings))
    run_id = start(db, "offer", {"list": ["a", "b", "c"]})
    run_all(db)
    worker.end(*worker.begin(), output={"said": 1})
    return run_id


def test_a_loop_in_progress_goes_on_with_its_items_in_the_new_body(db, make_workflow, run_all, worker, migrate):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(looping(loop="all", body="phone", more="keep"))
    assert migrate() == {run_id: ("ok", None)}
    for said in (2, 3):
        worker.end(*worker.begin(), output={"said": said})
    assert run(db, run_id)["output"] == [
        {"item": item, "said": said} for item, said in zip("abc", (1, 2, 3), strict=True)
    ]
    assert [(s["node_id"], s["version"]) for s in steps(db, run_id)] == [
        ("start", 1),
        ("all", 2),
        ("ring", 1),
        ("note", 1),
        ("phone", 2),
        ("keep", 2),
        ("phone", 2),
        ("keep", 2),
        ("end", 2),
    ]


def test_what_a_loop_collects_may_change_between_items(db, make_workflow, run_all, worker, migrate):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(looping(collect="{{ index }}"))
    assert migrate() == {run_id: ("ok", None)}
    for _ in range(2):
        worker.end(*worker.begin())
    assert run(db, run_id)["output"] == [{"item": "a", "said": 1}, 1, 2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"items": "{{ trigger.payload.other }}"}, "the items of loop each changed in version 2"),
        (
            {"edges": ["start -> each", "each.each -> note", "note -> ring", "each.done -> end"]},
            "loop each begins its iterations elsewhere in version 2",
        ),
        (
            {"edges": ["start -> each", "each.each -> note", "each.done -> ring", "ring -> end"]},
            "loop each begins its iterations elsewhere in version 2",
        ),
    ],
    ids=["items", "each", "nesting"],
)
def test_a_loop_that_became_another_one_blocks_while_it_runs(
    db, make_workflow, run_all, worker, migrate, change, reason
):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(looping(**change))
    assert migrate() == {run_id: ("blocked", reason)}
    assert run(db, run_id)["version"] == 1
    for _ in range(2):
        worker.end(*worker.begin(), output={"said": 1})
    assert run(db, run_id)["state"] == "completed", "it ends on its own version"


def test_a_token_does_not_leave_its_loop(db, make_workflow, run_all, worker, migrate):
    run_id = in_the_second_iteration(db, make_workflow, run_all, worker)
    make_workflow(
        looping(
            extra=[call("again")],
            edges=["start -> each", "each.each -> again", "again -> note", "each.done -> ring", "ring -> end"],
        )
    )
    [(verdict, reason)] = migrate(node_map={"ring": "ring"}).values()
    assert verdict == "blocked"
    assert "loop" in reason
    assert run(db, run_id)["version"] == 1


def test_a_loop_that_has_not_begun_or_is_done_may_change(db, make_workflow, run_all, worker, migrate):
    def with_calls(**settings):
        new = looping(**settings)
        new["nodes"] += [call("first"), call("last")]
        new["edges"][0:1] = [{"from": "start", "to": "first"}, {"from": "first", "to": "each"}]
        new["edges"][-1:] = [
            {"from": "each", "port": "done", "to": "last"},
            {"from": "last", "to": "end"},
        ]
        return new

    make_workflow(with_calls(items=[1]))
    before = start(db, "offer")
    run_all(db)
    after = start(db, "offer")
    run_all(db)
    for _ in range(2):
        worker.end(*worker.begin([ref for ref in worker.queued() if ref[0] == after]))
    assert states(db, after)["last"] == "queued"
    make_workflow(with_calls(items=[1, 2, 3], parallel=3))
    assert migrate() == {before: ("ok", None), after: ("ok", None)}
    for _ in range(3):
        worker.end(*worker.begin())
    assert [len(run(db, each)["output"]) for each in (before, after)] == [3, 1]


def test_loops_in_loops_move_together(db, make_workflow, run_all, worker, migrate):
    def nested(outer="outer", inner="inner", body="ring"):
        return document(
            "offer",
            [
                START,
                node(outer, "logic.loop", {"items": [1, 2]}),
                node(inner, "logic.loop", {"items": ["x", "y"], "parallel": 2}),
                call(body),
                transform("end", f"{{{{ steps.{outer}.output.count }}}}"),
            ],
            [f"start -> {outer}", f"{outer}.each -> {inner}", f"{inner}.each -> {body}", f"{outer}.done -> end"],
        )

    make_workflow(nested())
    run_id = start(db, "offer")
    run_all(db)
    first, second = worker.begin()
    worker.end(first)
    make_workflow(nested("all", "pair", "phone"))
    assert migrate() == {run_id: ("ok", None)}
    assert worker.end(second)["accepted"] == 1
    worker.end(*worker.begin())
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", 2)
    assert left_over(db, run_id) == (0, 0, 0)


# -- times, signals, children ---------------------------------------------------------------------------------------------


def due(db):
    """As if all times had come."""
    db.execute("update stellwerk.timer set due_at = now() where due_at < stellwerk.never()")
    db.execute("select stellwerk.tick()")


def test_a_wait_for_a_time_keeps_the_time_that_it_began_with(db, make_workflow, run_all, migrate):
    make_workflow(version(node("sleep", "logic.wait", {"for": "P1D"}), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    before = db.execute("select timer_id, due_at, step_id from stellwerk.timer").fetchall()
    make_workflow(version(node("rest", "logic.wait", {"for": "P9D"}), transform("end", "{{ steps.rest.output }}")))
    assert migrate(node_map={"sleep": "rest"}) == {run_id: ("ok", None)}
    assert db.execute("select timer_id, due_at, step_id from stellwerk.timer").fetchall() == before
    assert steps(db, run_id)[1]["input"]["for"] == "P1D", "what it waits for is still to be read"
    due(db)
    run_all(db)
    assert (run(db, run_id)["state"], list(run(db, run_id)["output"])) == ("completed", ["fired_at"])


def test_a_wait_for_a_signal_is_woken_by_the_one_it_began_to_wait_for(db, make_workflow, run_all, migrate):
    wait = {"event": "paid", "correlation": "{{ trigger.payload.order }}"}
    make_workflow(version(node("money", "logic.wait", wait), transform("end", "old")))
    runs = [start(db, "offer", {"order": order}) for order in "ab"]
    run_all(db)
    make_workflow(
        version(
            node("payment", "logic.wait", wait | {"timeout": "P1D"}), transform("end", "{{ steps.payment.output }}")
        )
    )
    # This one is on its way already, as a message that has not been applied.
    assert db.execute("select stellwerk.signal('paid', 'a', '{\"n\": 1}')").fetchone() == (1,)
    assert migrate(node_map={"money": "payment"}) == dict.fromkeys(runs, ("ok", None))
    assert db.execute("select stellwerk.signal('paid', 'b', '{\"n\": 2}')").fetchone() == (1,)
    run_all(db)
    assert [run(db, each)["output"] for each in runs] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("drawn", [True, False], ids=["edge", "no edge"])
def test_a_timeout_leaves_by_the_edge_of_the_new_version(db, make_workflow, run_all, migrate, drawn):
    wait = node("money", "webhook.esign_completed", {"correlation": "c", "timeout": "P1D"})
    make_workflow(
        document("offer", [START, wait, transform("late", "old")], ["start -> money", "money.timeout -> late"])
    )
    run_id = start(db, "offer")
    run_all(db)
    edges = ["start -> money", "money.timeout -> late" if drawn else "money -> late"]
    make_workflow(document("offer", [START, wait, transform("late", "new")], edges))
    assert migrate() == {run_id: ("ok", None)}
    due(db)
    run_all(db)
    if drawn:
        assert run(db, run_id)["output"] == "new"
    else:
        assert run(db, run_id)["error"]["class"] == "timeout"


def test_a_parent_waits_for_the_child_that_it_called(db, make_workflow, run_all, worker, migrate):
    make_workflow(version(call("ask"), transform("out", "{{ steps.ask.output.said }}"), slug="part"))
    make_workflow(version(node("sub", "logic.call", {"workflow": "part"}), transform("end", "old")))
    parent = start(db, "offer")
    run_all(db)
    [(child,)] = db.execute("select run_id from stellwerk.run_overview where parent_run_id = %s", [parent]).fetchall()
    make_workflow(version(call("phone"), transform("out", "{{ steps.phone.output.said }}"), slug="part"))
    make_workflow(
        version(node("child", "logic.call", {"workflow": "part"}), transform("end", "{{ steps.child.output }}"))
    )
    # Each of the two moves by itself.
    assert migrate() == {parent: ("ok", None)}
    assert (run(db, parent)["version"], run(db, child)["version"]) == (2, 1)
    assert migrate(slug="part") == {child: ("ok", None)}
    worker.end(*worker.begin(), output={"said": "yes"})
    run_all(db)
    assert (run(db, child)["state"], run(db, parent)["output"]) == ("completed", "yes")


def test_a_child_ends_with_its_migrated_parent(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask"), slug="part"))
    make_workflow(version(node("sub", "logic.call", {"workflow": "part"})))
    parent = start(db, "offer")
    run_all(db)
    make_workflow(version(node("child", "logic.call", {"workflow": "part"}), transform("end", 1)))
    migrate()
    db.execute("select stellwerk.cancel_run(%s)", [parent])
    run_all(db)
    assert db.execute("select state from stellwerk.run_overview order by run_id").fetchall() == [("cancelled",)] * 2


def test_the_timeout_of_a_run_stays(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask"), settings={"timeout": "P1D"}))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("end", 1)))
    migrate()
    due(db)
    assert run(db, run_id)["error"]["class"] == "timeout"


# -- paused ---------------------------------------------------------------------------------------------------------------


def test_a_paused_run_is_moved_and_stays_paused(db, make_workflow, run_all, worker, migrate):
    make_workflow(version(call("ask"), node("sleep", "logic.wait", {"for": "P1D"}), transform("end", "old")))
    asking, sleeping = start(db, "offer"), start(db, "offer")
    run_all(db)
    worker.end(*worker.begin([ref for ref in worker.queued() if ref[0] == sleeping]))
    run_all(db)
    for each in (asking, sleeping):
        db.execute("select stellwerk.pause_run(%s)", [each])
    make_workflow(version(call("phone"), node("rest", "logic.wait", {"for": "P1D"}), transform("end", "new")))
    assert migrate(node_map={"sleep": "rest"}) == {asking: ("ok", None), sleeping: ("ok", None)}
    run_all(db)
    assert [run(db, each)["state"] for each in (asking, sleeping)] == ["paused", "paused"]
    assert db.execute("select due_at = stellwerk.never() from stellwerk.timer").fetchall() == [(True,)]
    for each in (asking, sleeping):
        db.execute("select stellwerk.resume_run(%s)", [each])
    worker.end(*worker.begin())
    run_all(db)
    due(db)
    run_all(db)
    assert [run(db, each)["output"] for each in (asking, sleeping)] == ["new", "new"]


def test_a_paused_join_that_has_nothing_left_to_wait_for_goes_on_when_resumed(
    db, make_workflow, run_all, worker, migrate
):
    def diamond(*edges):
        nodes = [START, call("left"), call("right"), transform("both", "joined")]
        return document("offer", nodes, ["start -> left", "start -> right", "right -> both", *edges])

    make_workflow(diamond("left -> both"))
    run_id = start(db, "offer")
    run_all(db)
    left, right = worker.begin()
    worker.end(next(each for each in (left, right) if each["node_id"] == "right"))
    assert states(db, run_id)["both"] == "joining"
    db.execute("select stellwerk.pause_run(%s)", [run_id])
    make_workflow(diamond())
    assert migrate() == {run_id: ("ok", None)}
    run_all(db)
    assert (run(db, run_id)["state"], states(db, run_id)["both"]) == ("paused", "queued")
    db.execute("select stellwerk.resume_run(%s)", [run_id])
    run_all(db)
    assert (states(db, run_id)["both"], run(db, run_id)["state"]) == ("completed", "running")


def test_an_undone_paused_run_is_as_it_was(db, make_workflow, run_all, engine, migrate, worker):
    make_workflow(version(call("ask"), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("phone"), transform("end", "new")))
    migrate()
    # Pausing and resuming is not moving.
    db.execute("select stellwerk.pause_run(%s)", [run_id])
    assert undo(engine) == [("ok", None)]
    db.execute("select stellwerk.resume_run(%s)", [run_id])
    worker.end(*worker.begin())
    assert (run(db, run_id)["output"], states(db, run_id)["ask"]) == ("old", "completed")


# -- compensation ---------------------------------------------------------------------------------------------------------


def compensated(work="work", refund="refund", **more):
    return document(
        "offer",
        [
            START,
            call(work, compensate=refund, retry={"max_attempts": 1}),
            call("next", retry={"max_attempts": 1}),
            transform(refund, "{{ trigger.payload.n }}"),
        ],
        [f"start -> {work}", f"{work} -> next"],
        **more,
    )


def test_what_was_done_in_the_old_version_is_compensated_in_the_new_one(db, make_workflow, run_all, worker, migrate):
    make_workflow(compensated())
    run_id = start(db, "offer", {"n": 5})
    run_all(db)
    worker.end(*worker.begin())
    make_workflow(compensated("labour", "give_back"))
    assert migrate(node_map={"refund": "give_back"}) == {run_id: ("ok", None)}
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert run(db, run_id)["state"] == "failed"
    assert [(s["node_id"], s["version"], s["output"]) for s in steps(db, run_id)][-1] == ("give_back", 2, 5)


def test_a_compensation_without_a_counterpart_needs_a_map(db, make_workflow, run_all, worker, migrate):
    make_workflow(compensated())
    run_id = start(db, "offer", {"n": 5})
    run_all(db)
    worker.end(*worker.begin())
    make_workflow(
        version(call("work"), call("next"), transform("other", 1), node("void", "log.write", {"message": "m"}))
    )
    assert migrate() == {
        run_id: ("needs_map", "node refund, which would compensate a completed step, has no counterpart")
    }
    assert migrate(node_map={"refund": "other"}) == {run_id: ("ok", None)}


def test_undoing_puts_back_what_would_compensate(db, make_workflow, run_all, worker, migrate, engine):
    make_workflow(compensated())
    run_id = start(db, "offer", {"n": 5})
    run_all(db)
    worker.end(*worker.begin())
    make_workflow(compensated("labour", "give_back"))
    migrate(node_map={"refund": "give_back"})
    assert undo(engine) == [("ok", None)]
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert states(db, run_id) == {"start": "completed", "work": "completed", "next": "failed", "refund": "completed"}


def test_a_run_that_is_being_compensated_is_blocked(db, make_workflow, run_all, worker, migrate):
    def slow(refund="refund"):
        return document(
            "offer",
            [START, call("work", compensate=refund), call("next", retry={"max_attempts": 1}), call(refund)],
            ["start -> work", "work -> next"],
        )

    make_workflow(slow())
    run_id = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin())
    worker.end(*worker.begin(), error=PERMANENT)
    run_all(db)
    assert run(db, run_id)["state"] == "running"
    make_workflow(slow("give_back"))
    assert migrate() == {run_id: ("blocked", "the run is being compensated")}
    worker.end(*worker.begin())
    assert (run(db, run_id)["state"], run(db, run_id)["version"]) == ("failed", 1)


# -- retrying -------------------------------------------------------------------------------------------------------------


def test_a_migrated_run_that_fails_is_retried_where_it_failed(db, make_workflow, run_all, worker, migrate):
    make_workflow(version(transform("price", 7), call("ask", retry={"max_attempts": 1}), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(
        version(
            transform("amount", 7),
            call("phone", retry={"max_attempts": 1}),
            transform("end", "{{ steps.amount.output }}"),
        )
    )
    assert migrate() == {run_id: ("ok", None)}
    [first] = worker.begin()
    worker.end(first, error=FAILURE)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["node"]) == ("failed", "phone")
    db.execute("select stellwerk.retry_run(%s)", [run_id])
    [second] = worker.begin()
    assert second["idempotency_key"] == first["idempotency_key"]
    worker.end(second)
    assert (run(db, run_id)["output"], run(db, run_id)["version"]) == (7, 2)


def test_a_migrated_run_that_fails_is_retried_from_an_earlier_node(db, make_workflow, run_all, worker, migrate):
    make_workflow(version(call("price"), call("ask", retry={"max_attempts": 1})))
    run_id = start(db, "offer")
    run_all(db)
    worker.end(*worker.begin(), output={"n": 1})
    make_workflow(
        version(
            call("amount"), call("phone", retry={"max_attempts": 1}), transform("end", "{{ steps.amount.output.n }}")
        )
    )
    assert migrate(node_map={"price": "amount", "ask": "phone"}) == {run_id: ("ok", None)}
    worker.end(*worker.begin(), error=PERMANENT)
    db.execute("select stellwerk.retry_run(%s, 'amount')", [run_id])
    worker.end(*worker.begin(), output={"n": 2})
    worker.end(*worker.begin())
    assert run(db, run_id)["output"] == 2
    assert [(s["node_id"], s["visit"]) for s in steps(db, run_id)] == [
        ("start", 1),
        ("price", 1),
        ("phone", 1),
        ("amount", 1),
        ("phone", 2),
        ("end", 1),
    ]


def test_an_attempt_shows_the_settings_that_it_had(db, make_workflow, run_all, worker, migrate):
    retry = {"interval": "PT0S"}
    make_workflow(version(node("ask", "action.fonio_call", {"phone": "1"}, retry=retry)))
    run_id = start(db, "offer")
    run_all(db)
    [taken] = worker.begin()
    make_workflow(version(node("ask", "action.fonio_call", {"phone": "2"}, retry=retry)))
    migrate()
    assert steps(db, run_id)[1]["input"]["phone"] == "1"
    worker.end(taken, error=FAILURE)
    [taken] = worker.begin()
    assert (taken["config"]["phone"], steps(db, run_id)[1]["input"]["phone"]) == ("2", "2")


def test_a_step_whose_worker_vanished_begins_anew_in_the_new_version(
    db, dsn, make_workflow, run_all, worker, migrate, wait_until
):
    make_workflow(version(call("ask"), transform("end", "old")))
    run_id = start(db, "offer")
    run_all(db)
    dying = Worker(dsn)
    [taken] = dying.begin()
    make_workflow(version(call("phone"), transform("end", "new")))
    assert migrate() == {run_id: ("ok", None)}
    dying.vanish()
    wait_until(lambda: db.execute("select stellwerk.tick() ->> 'recovered'").fetchone() == ("1",))
    [again] = worker.begin()
    assert (again["node_id"], again["attempt"], again["idempotency_key"]) == ("phone", 2, taken["idempotency_key"])
    worker.end(again)
    assert run(db, run_id)["output"] == "new"
