"""Bulk operations: which runs an order takes, and what each kind does to them."""

from __future__ import annotations

import psycopg
import pytest
from database.bulk import counts, operation, order, outcomes, state_of, tick, work
from database.helpers import PERMANENT, START, Worker, call, document, node, run, start, states, transform

# -- counting ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_counts_and_changes_nothing(db, waiting):
    db.execute("select stellwerk.pause_run(%s)", (waiting[0],))
    draft = operation(db, order(db, "cancel", {"workflow": "waits"}, dry_run=True))
    assert (draft["state"], draft["total"], draft["by_state"]) == ("draft", 10, {"waiting": 9, "paused": 1})
    tick(db)
    assert state_of(db, waiting) == ["paused", *["waiting"] * 9]
    assert outcomes(db, draft["operation_id"]) == {}
    assert draft["created_by"] == "db:" + db.info.user


def test_a_draft_is_begun_with_the_runs_that_fit_then(db, waits, waiting, run_all, wait_until):
    draft = order(db, "cancel", {"workflow": "waits"}, dry_run=True)
    late = start(db, waits, {"key": "late"})
    run_all(db)
    db.execute("select stellwerk.resume_bulk_operation(%s)", (draft,))
    after = start(db, waits, {"key": "after"})
    row = work(db, draft, wait_until)
    assert counts(row) == {"total": 11, "done": 11, "skipped": 0, "failed": 0}
    assert state_of(db, [*waiting, late]) == ["cancelled"] * 11
    assert run(db, after)["state"] != "cancelled"
    assert [(entry["state"], entry.get("by")) for entry in row["history"]] == [
        ("draft", row["created_by"]),
        ("running", row["created_by"]),
        ("completed", None),
    ]


def test_an_operation_without_runs_is_completed_at_once(db, waits):
    row = operation(db, order(db, "cancel", {"workflow": "waits"}))
    assert (row["state"], row["total"], row["by_state"]) == ("completed", 0, {})
    assert [entry["state"] for entry in row["history"]] == ["draft", "running", "completed"]


@pytest.mark.parametrize(
    ("filter_", "fitting"),
    [
        ({"workflow": "waits"}, range(10)),
        ({"workflow": ["waits", "ring"]}, range(12)),
        ({"workflow": "ring"}, [10, 11]),
        ({"payload": {"group": 1}}, [1, 3, 5, 7, 9]),
        ({"workflow": "waits", "payload": {"key": "k4"}}, [4]),
        ({"node": "hold"}, range(10)),
        ({"node": "ring"}, [10]),
        ({"version": 1, "workflow": "waits"}, range(10)),
        ({"version": [2, 3]}, []),
        ({"state": "waiting"}, range(10)),
        ({"state": ["running", "pending"]}, [10, 11]),
        ({"state": "pending"}, [11]),
        ({"created_before": "2001-01-01T00:00:00Z"}, []),
        ({"created_after": "2001-01-01T00:00:00Z"}, range(12)),
    ],
)
def test_a_filter_finds_what_all_its_keys_fit(db, ring, waiting, run_all, filter_, fitting):
    everything = [*waiting, start(db, ring)]
    run_all(db)
    everything.append(start(db, ring))
    row = operation(db, order(db, "cancel", filter_))
    assert sorted(outcomes(db, row["operation_id"])) == [everything[place] for place in fitting]
    assert row["total"] == len(fitting)


def test_runs_are_named_by_number_too_and_those_that_do_not_exist_are_no_matter(db, waiting):
    row = operation(db, order(db, "pause", {"run_ids": [waiting[2], str(waiting[5]), 999_999]}))
    assert sorted(outcomes(db, row["operation_id"])) == [waiting[2], waiting[5]]


@pytest.mark.parametrize(
    ("action", "filter_", "options", "said"),
    [
        ("erase", {"workflow": "waits"}, {}, "no bulk operation 'erase'"),
        ("cancel", {}, {}, "no object with at least one key"),
        ("cancel", [], {}, "no object with at least one key"),
        ("cancel", {"workflw": "waits"}, {}, "unknown key 'workflw'"),
        ("cancel", {"workflow": 1.5, "payload": 3}, {}, "payload is not a JSON object"),
        ("cancel", {"run_ids": []}, {}, "run_ids is not an array"),
        ("cancel", {"run_ids": ["x"]}, {}, "run_ids is not an array"),
        ("cancel", {"version": "one"}, {}, "version is not a version"),
        ("cancel", {"created_after": "soon"}, {}, "created_after is not a time"),
        ("cancel", {"node": {}}, {}, "node is not a text"),
        ("cancel", {"state": "failed"}, {}, "state is none to cancel"),
        ("resume", {"state": "waiting"}, {}, "state is none to resume"),
        ("skip", {"workflow": "waits"}, {}, "names no node to skip"),
        ("pause", {"workflow": "waits"}, {"reason": "x"}, "cannot use the options 'reason'"),
        ("cancel", {"workflow": "waits"}, {"compensate": "yes"}, "cannot use the options 'compensate'"),
        ("cancel", {"workflow": "waits"}, [], "options are no JSON object"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(db, waits, action, filter_, options, said):
    with pytest.raises(psycopg.Error) as caught:
        order(db, action, filter_, options=options)
    assert caught.value.sqlstate == "SW002"
    assert said in caught.value.diag.message_primary
    assert caught.value.diag.message_hint
    assert db.execute("select count(*) from stellwerk.bulk_operation").fetchone() == (0,)


@pytest.mark.parametrize("limits", [{"rate": 0}, {"stop_on_error": 1.5}, {"stop_on_error": -0.1}])
def test_limits_out_of_range_are_refused(db, waits, limits):
    with pytest.raises(psycopg.Error) as caught:
        order(db, "cancel", {"workflow": "waits"}, **limits)
    assert caught.value.sqlstate == "SW002"


def test_an_unknown_workflow_is_told(db):
    with pytest.raises(psycopg.Error) as caught:
        order(db, "cancel", {"workflow": "nowhere"})
    assert caught.value.sqlstate == "SW001"


# -- the five kinds ---------------------------------------------------------------------------------------------------


def test_cancel_gives_every_run_the_reason_and_the_operation(db, waiting, wait_until):
    number = order(db, "cancel", {"payload": {"group": 0}}, options={"reason": "the shop is closed"})
    assert counts(work(db, number, wait_until)) == {"total": 5, "done": 5, "skipped": 0, "failed": 0}
    assert state_of(db, waiting) == ["cancelled", "waiting"] * 5
    assert run(db, waiting[0])["reason"] == f"the shop is closed (bulk operation {number})"


def test_cancel_can_compensate(db, make_workflow, run_all, dsn, wait_until):
    slug = make_workflow(
        document(
            "undo",
            [START, call("book", compensate="unbook"), call("send"), transform("unbook", 1)],
            ["start -> book", "book -> send"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin())
    work(db, order(db, "cancel", {"workflow": slug}, options={"compensate": True}), wait_until)
    run_all(db)
    assert run(db, run_id)["state"] == "cancelled"
    assert states(db, run_id)["unbook"] == "completed"


def test_pause_and_resume_name_who_ordered_them(db, waiting, run_all, wait_until):
    number = order(db, "pause", {"node": "hold"})
    work(db, number, wait_until)
    assert state_of(db, waiting) == ["paused"] * 10
    assert run(db, waiting[3])["paused_by"] == f"db:{db.info.user} (bulk operation {number})"
    work(db, order(db, "resume", {"workflow": "waits"}), wait_until)
    assert state_of(db, waiting) == ["waiting"] * 10
    db.execute("select stellwerk.signal('paid', 'k3', '{\"sum\": 7}')")
    run_all(db)
    assert run(db, waiting[3])["output"] == {"got": {"sum": 7}}


def test_retry_takes_failed_runs_by_class_and_sends_them_on(db, ring, run_all, dsn, wait_until):
    worker = Worker(dsn)
    run_ids = [start(db, ring) for _ in range(4)]
    run_all(db)
    taken = sorted(worker.begin(), key=lambda step: step["run_id"])
    worker.end(*taken[:3], error=PERMANENT)
    worker.end(*taken[3:], error={**PERMANENT, "class": "other"})
    assert state_of(db, run_ids) == ["failed"] * 4
    row = work(db, order(db, "retry", {"workflow": "ring", "error_class": "test"}), wait_until)
    assert counts(row) == {"total": 3, "done": 3, "skipped": 0, "failed": 0}
    worker.end(*worker.begin())
    run_all(db)
    assert state_of(db, run_ids) == ["completed"] * 3 + ["failed"]


def test_cancelled_runs_are_retried_only_when_the_filter_says_so(db, waiting, run_all, wait_until):
    work(db, order(db, "cancel", {"run_ids": waiting[:2]}), wait_until)
    assert operation(db, order(db, "retry", {"workflow": "waits"}))["total"] == 0
    work(db, order(db, "retry", {"workflow": "waits", "state": "cancelled"}), wait_until)
    run_all(db)
    assert state_of(db, waiting) == ["waiting"] * 10


def test_retry_begins_at_a_node_when_told(db, ring, run_all, dsn, wait_until):
    worker = Worker(dsn)
    run_id = start(db, ring)
    run_all(db)
    worker.end(*worker.begin(), error=PERMANENT)
    work(db, order(db, "retry", {"workflow": "ring"}, options={"from_node": "start"}), wait_until)
    run_all(db)
    visits = db.execute(
        "select node_id, visit from stellwerk.step_timeline where run_id = %s order by step_id", (run_id,)
    ).fetchall()
    assert visits == [("start", 1), ("ring", 1), ("start", 2), ("ring", 2)]


def test_skip_ends_the_steps_that_wait_on_a_node(db, waiting, run_all, wait_until):
    db.execute("select stellwerk.pause_run(%s)", (waiting[0],))
    number = order(db, "skip", {"workflow": "waits", "node": "hold"}, options={"output": {"by": "hand"}})
    assert counts(work(db, number, wait_until)) == {"total": 10, "done": 10, "skipped": 0, "failed": 0}
    run_all(db)
    assert state_of(db, waiting) == ["paused"] + ["completed"] * 9
    assert run(db, waiting[1])["output"] == {"got": {"by": "hand"}}
    assert states(db, waiting[1])["hold"] == "skipped"
    db.execute("select stellwerk.resume_run(%s)", (waiting[0],))
    run_all(db)
    assert run(db, waiting[0])["output"] == {"got": {"by": "hand"}}


def test_skip_ends_every_iteration_that_waits_on_the_node(db, make_workflow, run_all, wait_until):
    slug = make_workflow(
        document(
            "many",
            [
                START,
                node("each", "logic.loop", {"items": "{{ trigger.payload }}", "parallel": 3}),
                node("hold", "logic.wait", {"event": "paid", "correlation": "{{ item }}"}),
            ],
            ["start -> each", "each.each -> hold"],
        )
    )
    run_id = start(db, slug, ["a", "b", "c", "d"])
    run_all(db)
    work(db, order(db, "skip", {"node": "hold"}, options={"output": 0}), wait_until)
    run_all(db)
    rows = db.execute(
        "select state from stellwerk.step_timeline where run_id = %s and node_id = 'hold' order by step_id", (run_id,)
    )
    assert rows.fetchall() == [("skipped",)] * 3 + [("waiting",)]


def test_a_port_that_does_not_exist_fails_at_every_run(db, waiting, wait_until):
    row = work(db, order(db, "skip", {"node": "hold"}, options={"port": "nowhere"}), wait_until)
    assert counts(row) == {"total": 10, "done": 0, "skipped": 10, "failed": 0}
    (error,) = db.execute("select distinct error from stellwerk.bulk_operation_run").fetchone()
    assert error["class"] == "SW003"
    assert "no edge leaves node hold" in error["message"]


def test_skip_passes_over_a_run_whose_step_is_gone(db, make_workflow, run_all, wait_until):
    waits_for = [node(name, "logic.wait", {"event": name, "correlation": "x"}) for name in ("one", "two")]
    slug = make_workflow(document("both", [START, *waits_for], ["start -> one", "start -> two"]))
    run_id = start(db, slug)
    run_all(db)
    number = order(db, "skip", {"node": "one"})
    db.execute("select stellwerk.signal('one', 'x')")
    run_all(db)
    assert counts(work(db, number, wait_until)) == {"total": 1, "done": 0, "skipped": 1, "failed": 0}
    (error,) = db.execute("select error from stellwerk.bulk_operation_run").fetchone()
    assert error == {"class": "SW003", "message": f"run {run_id} has no step on one that waits"}
    assert run(db, run_id)["state"] == "waiting"
