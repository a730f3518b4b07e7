"""What explain_run says of runs that wait: for a time, an event, a child, a loop, a join."""

from __future__ import annotations

from database.explaining import explain, first, matches, wait_workflow
from database.helpers import START, Worker, call, document, node, start, steps, transform


def test_a_wait_for_a_time_says_until_when(db, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, **{"for": "PT1H"}))
    run_all(db)
    reason = first(db, run_id)
    matches(reason["reason"], rf"Run {run_id} is waiting: step hold \(logic.wait\) waits until TIME\.")
    assert reason["evidence"]["timer"]["kind"] == "wait"


def test_an_overdue_timer_without_a_worker_says_that_nothing_ticks(db, dsn, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, **{"for": "PT1H"}))
    run_all(db)
    db.execute("update stellwerk.timer set due_at = now() - interval '1 minute'")
    matches(
        first(db, run_id)["reason"],
        r".* waits until TIME; that is overdue, for no worker is running that fires timers .*",
    )
    worker = Worker(dsn)
    assert worker.worker_id
    matches(first(db, run_id)["reason"], r".* waits until TIME; that is overdue and happens with the next tick\.")


def test_a_wait_for_an_event_names_event_correlation_and_signals_that_came_with_another(db, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, event="paid", correlation="order-7", timeout="P1D"))
    run_all(db)
    db.execute("select stellwerk.signal('paid', 'order-8')")
    reason = first(db, run_id)
    matches(
        reason["reason"],
        rf"Run {run_id} is waiting: step hold \(logic.wait\) waits for the event paid with the correlation order-7, "
        r"no longer than until TIME, since TIME\.",
    )
    evidence = reason["evidence"]
    assert (evidence["event"], evidence["correlation"], evidence["timer"]["kind"]) == (
        "paid",
        "order-7",
        "wait_timeout",
    )
    assert evidence["signal"] == "select stellwerk.signal('paid', 'order-7');"
    assert [kept["correlation"] for kept in evidence["kept_signals"]] == ["order-8"]


def test_a_signal_that_nobody_has_applied_yet_comes_first(db, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, event="paid", correlation="order-7"))
    run_all(db)
    db.execute("select stellwerk.signal('paid', 'order-7')")
    reasons = explain(db, run_id)
    matches(
        reasons[0]["reason"],
        rf"Run {run_id} is waiting: the result of step hold was written at TIME and waits to be applied by a pump; .*",
    )
    assert (reasons[0]["node_id"], reasons[0]["evidence"]["kind"]) == ("hold", "complete")
    assert "waits for the event" in reasons[1]["reason"]


def test_a_call_names_the_child_and_why_that_one_waits(db, make_workflow, run_all):
    wait_workflow(make_workflow, slug="inner", event="paid", correlation="x")
    middle = document("middle", [START, node("sub", "logic.call", {"workflow": "inner"})], ["start -> sub"])
    make_workflow(middle)
    slug = make_workflow(
        document("outer", [START, node("sub", "logic.call", {"workflow": "middle"})], ["start -> sub"])
    )
    outer = start(db, slug)
    run_all(db)
    middle_id, inner_id = outer + 1, outer + 2
    reason = first(db, middle_id)
    matches(
        reason["reason"],
        rf"Run {middle_id} is waiting: step sub \(logic.call\) waits for child run {inner_id} \(inner\), which is waiting: "
        r"step hold \(logic.wait\) waits for the event paid with the correlation x, since TIME\.",
    )
    assert reason["evidence"]["child_run_id"] == str(inner_id)
    assert reason["evidence"]["child_evidence"]["correlation"] == "x"
    matches(
        first(db, outer)["reason"],
        rf"Run {outer} is waiting: step sub \(logic.call\) waits for child run {middle_id} \(middle\), which is waiting: "
        rf"step sub \(logic.call\) waits for child run {inner_id} \(inner\), which is waiting\.",
    )
    db.execute("select stellwerk.pause_run(%s)", (inner_id,))
    assert f"child run {inner_id} (inner), which is paused, and its timers" in first(db, middle_id)["reason"]


def test_a_loop_says_how_far_it_is_and_its_steps_their_index(db, make_workflow, run_all, worker):
    slug = make_workflow(
        document(
            "loop",
            [START, node("each", "logic.loop", {"items": "{{ trigger.payload }}", "parallel": 3}), call("ring")],
            ["start -> each", "each.each -> ring"],
        )
    )
    run_id = start(db, slug, list(range(10)))
    run_all(db)
    worker.end(*worker.begin())
    run_all(db)
    reasons = explain(db, run_id)
    assert "step ring at index 3 waits in the queue" in reasons[0]["reason"]
    matches(reasons[-1]["reason"], r"Step each \(logic.loop\) is at item 6 of 10 with 3 running, since TIME\.")
    assert reasons[-1]["evidence"]["ended"] == 3


def test_of_very_many_steps_the_first_are_told_and_the_others_counted(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "wide",
            [START, node("each", "logic.loop", {"items": "{{ trigger.payload }}", "parallel": 100}), call("ring")],
            ["start -> each", "each.each -> ring"],
        )
    )
    run_id = start(db, slug, list(range(100)))
    run_all(db)
    reasons = explain(db, run_id)
    assert len(reasons) == 26
    assert reasons[-1]["reason"] == "76 more steps are live; stellwerk.live_step lists them all."


def test_a_join_names_the_steps_it_waits_for(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "meet",
            [
                START,
                call("slow"),
                transform("fast", 1),
                transform("other", 1),
                node("meet", "logic.join", {"mode": "all"}),
            ],
            ["start -> slow", "start -> fast", "slow -> meet", "fast -> meet", "start -> other"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    reason = explain(db, run_id)[-1]
    assert reason["reason"] == "Step meet waits where ways meet for slow."
    assert reason["evidence"]["arrived"] == ["fast"]
    assert [waited["node_id"] for waited in reason["evidence"]["waits_for"]] == ["slow"]


def test_a_step_that_waits_for_nothing_is_said_to(db, make_workflow, run_all):
    run_id = start(db, wait_workflow(make_workflow, event="paid", correlation="x"))
    run_all(db)
    db.execute("delete from stellwerk.wait")
    matches(
        first(db, run_id)["reason"],
        r".*: step hold \(logic.wait\) is waiting, and nothing is known that would end that, since TIME\.",
    )


def test_trouble_comes_before_what_goes_well(db, make_workflow, run_all, dsn):
    slug = make_workflow(
        document(
            "two",
            [START, call("ring"), node("fetch", "http.request", {"url": "https://example.org"})],
            ["start -> ring", "start -> fetch"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    worker = Worker(dsn)
    worker.begin([(run_id, s["step_id"]) for s in steps(db, run_id) if s["node_id"] == "ring"])
    reasons = explain(db, run_id)
    assert "no such worker is running" in reasons[0]["reason"]
    assert (reasons[0]["node_id"], reasons[1]["node_id"]) == ("fetch", "ring")


def test_the_time_limit_of_a_run_is_told_last(db, make_workflow, run_all):
    slug = make_workflow(document("limited", [START, call("ring")], ["start -> ring"], settings={"timeout": "P7D"}))
    run_id = start(db, slug)
    run_all(db)
    matches(explain(db, run_id)[-1]["reason"], r"The run fails by its time limit at TIME\.")
