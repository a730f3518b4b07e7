"""Steering many runs at once: counted first, then in portions, as fast as allowed, stopped where too much fails."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import PERMANENT, START, Worker, call, document, node, run, start, states, transform
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb


@pytest.fixture
def waits(make_workflow):
    """A workflow whose runs wait for a signal with their own key."""
    return make_workflow(
        document(
            "waits",
            [
                START,
                node("hold", "logic.wait", {"event": "paid", "correlation": "{{ trigger.payload.key }}"}),
                transform("end", {"got": "{{ steps.hold.output }}"}),
            ],
            ["start -> hold", "hold -> end"],
        )
    )


@pytest.fixture
def ring(make_workflow):
    return make_workflow(document("ring", [START, call("ring"), transform("end", 1)], ["start -> ring", "ring -> end"]))


@pytest.fixture
def waiting(db, waits, run_all):
    """Ten runs that wait."""
    run_ids = [start(db, waits, {"key": f"k{number}", "group": number % 2}) for number in range(10)]
    run_all(db)
    return run_ids


def order(db, action, filter_, **named):
    return db.execute(
        "select stellwerk.start_bulk_operation(%s, %s, dry_run => %s, rate => %s, stop_on_error => %s, options => %s)",
        (
            action,
            Jsonb(filter_),
            named.get("dry_run", False),
            named.get("rate"),
            named.get("stop_on_error"),
            Jsonb(named.get("options", {})),
        ),
    ).fetchone()[0]


def operation(db, operation_id):
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from stellwerk.bulk_operation where operation_id = %s", (operation_id,)
        ).fetchone()


def tick(db):
    return db.execute("select stellwerk.tick()").fetchone()[0]


def work(db, operation_id, wait_until):
    """Tick until it has ended."""
    wait_until(lambda: tick(db) and operation(db, operation_id)["ended_at"], what="the end of the bulk operation")
    return operation(db, operation_id)


def outcomes(db, operation_id):
    return dict(
        db.execute(
            "select run_id, outcome from stellwerk.bulk_operation_run where operation_id = %s order by run_id",
            (operation_id,),
        ).fetchall()
    )


def state_of(db, run_ids):
    return [run(db, run_id)["state"] for run_id in run_ids]


def counts(row):
    return {name: row[name] for name in ("total", "done", "skipped", "failed")}


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


# -- in portions ------------------------------------------------------------------------------------------------------


def test_a_run_that_moved_on_meanwhile_is_skipped_and_says_why(db, waiting, run_all, wait_until):
    number = order(db, "cancel", {"workflow": "waits"})
    db.execute("select stellwerk.signal('paid', 'k4')")
    run_all(db)
    row = work(db, number, wait_until)
    assert counts(row) == {"total": 10, "done": 9, "skipped": 1, "failed": 0}
    error = db.execute("select run_id, error from stellwerk.bulk_operation_run where outcome = 'skipped'").fetchone()
    assert error == (waiting[4], {"class": "SW003", "message": f"run {waiting[4]} is completed"})


def test_the_rate_is_kept(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=2)
    assert tick(db)["bulk"] == 0
    set_back(db, number, 1.1)
    answer = tick(db)
    assert answer["bulk"] == 2
    assert 0 < answer["next_due_seconds"] <= 0.5
    assert tick(db)["bulk"] == 0
    # What was not used for long is not made up for in one burst: ten seconds count at most.
    set_back(db, number, 3600)
    assert tick(db)["bulk"] == 8
    assert operation(db, number)["state"] == "completed"


def set_back(db, number, seconds):
    db.execute(
        "update stellwerk.bulk_operation set worked_at = worked_at - make_interval(secs => %s) where operation_id = %s",
        (seconds, number),
    )


def test_an_operation_can_be_paused_and_goes_on_where_it_was(db, waiting, wait_until):
    number = order(db, "cancel", {"workflow": "waits"}, rate=4)
    set_back(db, number, 1.1)
    assert tick(db)["bulk"] == 4
    db.execute("select stellwerk.pause_bulk_operation(%s)", (number,))
    set_back(db, number, 5)
    assert tick(db)["bulk"] == 0
    assert operation(db, number)["state"] == "paused"
    assert db.execute("select stellwerk.seconds_to_next_bulk_portion()").fetchone() == (None,)
    db.execute("select stellwerk.resume_bulk_operation(%s)", (number,))
    assert tick(db)["bulk"] == 0
    set_back(db, number, 5)
    row = work(db, number, wait_until)
    assert counts(row) == {"total": 10, "done": 10, "skipped": 0, "failed": 0}
    assert [entry["state"] for entry in row["history"]] == ["draft", "running", "paused", "running", "completed"]


def test_a_stopped_operation_leaves_the_rest_as_it_is(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=4)
    set_back(db, number, 1.1)
    tick(db)
    db.execute("select stellwerk.cancel_bulk_operation(%s, 'enough')", (number,))
    row = operation(db, number)
    assert (row["state"], row["reason"], row["ended_by"]) == ("cancelled", "enough", "db:" + db.info.user)
    set_back(db, number, 60)
    tick(db)
    assert state_of(db, waiting) == ["cancelled"] * 4 + ["waiting"] * 6
    assert list(outcomes(db, number).values()) == ["done"] * 4 + [None] * 6
    for verb in ("pause", "resume", "cancel"):
        with pytest.raises(psycopg.Error) as caught:
            db.execute(
                psycopg.sql.SQL("select stellwerk.{}(%s)").format(psycopg.sql.Identifier(f"{verb}_bulk_operation")),
                (number,),
            )
        assert caught.value.sqlstate == "SW003"


def test_an_unknown_operation_is_told(db):
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.pause_bulk_operation(7)")
    assert caught.value.sqlstate == "SW007"


@pytest.fixture
def trouble(db, ring, run_all, dsn):
    """Thirty failed runs, of which every second cannot be sent on."""
    worker = Worker(dsn)
    run_ids = [start(db, ring) for _ in range(30)]
    run_all(db)
    worker.end(*worker.begin(), error=PERMANENT)
    db.execute("""
        create function public.refuse() returns trigger language plpgsql as $$
        begin raise exception 'not this one'; end $$""")
    db.execute("""
        create trigger refuse before update on stellwerk.run for each row
        when (old.run_id % 2 = 0 and old.state = 'failed' and new.state <> 'failed') execute function public.refuse()""")
    return run_ids


def test_a_run_at_which_it_raises_does_not_stop_the_others(db, trouble, wait_until):
    number = order(db, "retry", {"workflow": "ring"})
    row = work(db, number, wait_until)
    assert (row["state"], counts(row)) == ("completed", {"total": 30, "done": 15, "skipped": 0, "failed": 15})
    assert state_of(db, trouble) == ["failed" if run_id % 2 == 0 else "running" for run_id in trouble]
    assert db.execute(
        "select distinct error from stellwerk.bulk_operation_run where outcome = 'failed'"
    ).fetchall() == [({"class": "P0001", "message": "not this one"},)]


def test_too_many_failures_stop_it(db, trouble, wait_until):
    number = order(db, "retry", {"workflow": "ring"}, stop_on_error=0.3)
    row = work(db, number, wait_until)
    assert (row["state"], row["failed"]) == (
        "stopped",
        7,
    )  # of fewer than 20 runs, none counts for more than a twentieth
    assert row["reason"] == f"7 of {row['done'] + 7} runs failed, more than the share of 0.3"
    assert list(outcomes(db, number).values()).count(None) == 30 - row["done"] - 7
    with pytest.raises(psycopg.Error):
        db.execute("select stellwerk.resume_bulk_operation(%s)", (number,))


def test_runs_that_somebody_holds_have_their_turn_later(db, dsn, waiting):
    number = order(db, "cancel", {"workflow": "waits"})
    with psycopg.connect(dsn) as other:
        other.execute("select stellwerk.lock_run(1, %s)", (waiting[3],))
        assert tick(db)["bulk"] == 9
        assert tick(db)["bulk"] == 0
        row = operation(db, number)
        assert (row["state"], row["done"]) == ("running", 9)
    tick(db)
    if operation(db, number)["state"] == "running":
        tick(db)
    assert operation(db, number)["state"] == "completed"
    assert state_of(db, waiting) == ["cancelled"] * 10


def test_two_sessions_do_not_work_on_one_operation_at_once(db, dsn, waiting):
    number = order(db, "cancel", {"workflow": "waits"})
    with psycopg.connect(dsn) as other:
        assert other.execute("select stellwerk.work_bulk_operations(1)").fetchone() == (10,)
        assert tick(db)["bulk"] == 0
        other.rollback()  # as if that session had been killed
    assert state_of(db, waiting) == ["waiting"] * 10
    assert tick(db)["bulk"] == 10
    assert operation(db, number)["state"] == "completed"


def test_a_killed_session_loses_nothing_and_does_nothing_twice(db, dsn, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=5)
    set_back(db, number, 1.1)
    assert tick(db)["bulk"] == 5
    set_back(db, number, 2)
    victim = psycopg.connect(dsn)
    pid = victim.info.backend_pid
    assert victim.execute("select stellwerk.tick()").fetchone()[0]["bulk"] == 5
    db.execute("select pg_terminate_backend(%s)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        victim.commit()
    assert counts(operation(db, number)) == {"total": 10, "done": 5, "skipped": 0, "failed": 0}
    while operation(db, number)["state"] == "running":
        set_back(db, number, 2)
        tick(db)
    assert counts(operation(db, number)) == {"total": 10, "done": 10, "skipped": 0, "failed": 0}
    ended = db.execute("select count(*) from stellwerk.run where state = 'cancelled'").fetchone()
    assert ended == (10,)


def test_a_large_operation_goes_in_portions(db, waits, run_all):
    db.execute(
        "select count(stellwerk.start_run('waits', jsonb_build_object('key', n::text))) from generate_series(1, 1200) n"
    )
    run_all(db)
    number = order(db, "pause", {"workflow": "waits"})
    first = tick(db)["bulk"]
    assert 0 < first <= 500
    while operation(db, number)["state"] == "running":
        assert tick(db)["bulk"] > 0
    assert counts(operation(db, number)) == {"total": 1200, "done": 1200, "skipped": 0, "failed": 0}
    assert db.execute("select count(*) from stellwerk.run where state = 'paused'").fetchone() == (1200,)


def test_a_worker_carries_operations_out_without_waiting_for_its_next_poll(db, waiting):
    order(db, "cancel", {"workflow": "waits"})
    assert db.execute("select stellwerk.pump()").fetchone()[0]["next_due_seconds"] == pytest.approx(0.01)


def test_every_order_is_in_the_audit_log(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, dry_run=True)
    for verb in ("resume", "pause", "cancel"):
        db.execute(
            psycopg.sql.SQL("select stellwerk.{}(%s)").format(psycopg.sql.Identifier(f"{verb}_bulk_operation")),
            (number,),
        )
    rows = db.execute(
        "select action, before ->> 'state' from stellwerk.audit_log"
        " where subject = 'bulk_operation' and subject_id = %s order by audit_id",
        (str(number),),
    ).fetchall()
    assert rows == [
        ("start_bulk_operation", None),
        ("resume_bulk_operation", "draft"),
        ("pause_bulk_operation", "running"),
        ("cancel_bulk_operation", "paused"),
    ]


# -- people -----------------------------------------------------------------------------------------------------------


def test_progress_is_a_view(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, rate=4)
    set_back(db, number, 1.1)
    tick(db)
    with db.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select * from stellwerk.bulk_progress").fetchone()
    assert (row["operation_id"], row["handled"], row["total"], float(row["share"]), row["rate"]) == (
        number,
        4,
        10,
        0.4,
        4,
    )


def test_another_tenants_runs_and_operations_are_out_of_reach(db, waiting):
    number = order(db, "cancel", {"workflow": "waits"}, dry_run=True)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    assert operation(db, order(db, "cancel", {"state": "waiting"}))["total"] == 0
    assert operation(db, order(db, "cancel", {"run_ids": waiting}))["total"] == 0
    assert (
        db.execute("select operation_id from stellwerk.bulk_progress where operation_id = %s", (number,)).fetchone()
        is None
    )
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.resume_bulk_operation(%s)", (number,))
    assert caught.value.sqlstate == "SW007"
