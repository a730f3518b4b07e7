"""What happens while nobody decides: reminders, the due date, the ladder."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import node, run, start, states, transform
from database.people import (
    ADA,
    APPROVAL,
    BEN,
    CAT,
    act_as,
    ask,
    asking,
    complete,
    deciding,
    pass_time,
    task,
    told,
    users,
)

LADDER = [
    {"after": "P3D", "do": "outcome", "outcome": "reject"},
    {"after": "P1D", "do": "remind"},
    {"after": "P2D", "do": "reassign", "to": "{{ trigger.payload.boss }}"},
]


def timers(db):
    return [kind for (kind,) in db.execute("select kind from stellwerk.timer order by due_at, kind").fetchall()]


def test_the_ladder_reminds_reassigns_and_decides(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("ladder", {"assignee": ADA, "escalate": LADDER}))
    run_id, task_id = ask(db, slug, {"boss": CAT}, run_all)
    assert timers(db) == ["escalation"]
    pass_time(db, run_id, "23 hours")
    assert told(db) == [(ADA, "Task: Please decide")]
    pass_time(db, run_id, "1 hour")
    assert told(db)[1:] == [(ADA, "Reminder: Please decide")]
    assert task(db, task_id)["assignee"] == ADA
    pass_time(db, run_id, "1 day")
    assert told(db)[2:] == [(CAT, "Task: Please decide")]
    assert task(db, task_id)["assignee"] == CAT
    assert timers(db) == ["escalation"]
    pass_time(db, run_id, "1 day")
    run_all(db)
    row = task(db, task_id)
    assert (row["state"], row["outcome"], row["completed_by"], row["rung"]) == ("completed", "reject", "escalation", 3)
    assert "no" in states(db, run_id)
    assert run(db, run_id)["output"]["completed_by"] == "escalation"
    assert len(told(db)) == 3


def test_rungs_that_were_missed_are_taken_one_after_another_each_once(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("missed", {"assignee": ADA, "escalate": LADDER}))
    run_id, task_id = ask(db, slug, {"boss": "role:staff"}, run_all)
    pass_time(db, run_id, "10 days")
    for _ in range(5):
        db.execute("select stellwerk.tick()")
    run_all(db)
    assert [title.split(":")[0] for _, title in told(db)] == ["Task", "Reminder", "Task"]
    assert told(db)[2][0] == "role:staff"
    assert (task(db, task_id)["role"], task(db, task_id)["outcome"]) == ("staff", "reject")
    assert run(db, run_id)["state"] == "completed"


def test_a_decision_ends_the_ladder(db, make_workflow, run_all):
    users(db)
    run_id, task_id = ask(
        db, make_workflow(deciding("ends", {"assignee": ADA, "due": "P1D", "escalate": LADDER})), {"boss": BEN}, run_all
    )
    complete(db, task_id, "approve")
    # The pump has not seen it yet, and time goes on.
    pass_time(db, run_id, "10 days")
    run_all(db)
    assert timers(db) == []
    assert len(told(db)) == 1
    assert run(db, run_id)["output"]["outcome"] == "approve"


def test_a_rung_without_anybody_reminds(db, make_workflow, run_all):
    users(db)
    run_id, task_id = ask(
        db, make_workflow(deciding("empty", {"assignee": ADA, "escalate": LADDER[1:]})), {"boss": None}, run_all
    )
    pass_time(db, run_id, "2 days")
    db.execute("select stellwerk.tick()")
    assert [name for name, _ in told(db)] == [ADA, ADA, ADA]
    assert task(db, task_id)["assignee"] == ADA


# -- due ---------------------------------------------------------------------------------------------------------------


def test_a_due_date_with_a_way_for_it_ends_the_task(db, make_workflow, run_all):
    users(db)
    late = transform("late", "nobody came")
    slug = make_workflow(deciding("due", {"assignee": ADA, "due": "P5D"}, late, edges=("ask.timeout -> late",)))
    run_id, task_id = ask(db, slug, None, run_all)
    assert timers(db) == ["reminder", "wait_timeout"]
    pass_time(db, run_id, "4 days 1 hour")
    assert told(db)[1:] == [(ADA, "Due soon: Please decide")]
    pass_time(db, run_id, "1 day")
    run_all(db)
    assert run(db, run_id)["output"] == "nobody came"
    assert (task(db, task_id)["state"], task(db, task_id)["reason"]) == ("expired", "its time was up")
    assert len(told(db)) == 2
    with pytest.raises(psycopg.Error, match="is expired") as told_so:
        complete(db, task_id, "approve")
    assert told_so.value.sqlstate == "SW003"


def test_a_due_date_without_a_way_makes_the_task_overdue_and_it_stays(db, make_workflow, run_all):
    users(db)
    run_id, task_id = ask(
        db,
        make_workflow(deciding("overdue", {"role": "staff", "due": "{{ trigger.payload.due }}"})),
        {"due": "PT10H"},
        run_all,
    )
    pass_time(db, run_id, "8 hours")
    assert told(db)[1:] == [("role:staff", "Due soon: Please decide")]
    pass_time(db, run_id, "2 hours")
    assert told(db)[2:] == [("role:staff", "Overdue: Please decide")]
    assert timers(db) == []
    assert db.execute("select overdue from stellwerk.my_task where id = %s", (task_id,)).fetchone() == (True,)
    assert "overdue since" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    complete(db, task_id, "approve")
    run_all(db)
    assert run(db, run_id)["state"] == "completed"


def test_after_a_long_silence_only_the_later_notice_is_given(db, make_workflow, run_all):
    users(db)
    run_id, _ = ask(db, make_workflow(deciding("silence", {"assignee": ADA, "due": "PT10H"})), None, run_all)
    pass_time(db, run_id, "3 days")
    db.execute("select stellwerk.tick()")
    assert told(db)[1:] == [(ADA, "Overdue: Please decide")]


def test_the_time_limit_of_a_node_fails_the_step_where_no_way_is_drawn(db, make_workflow, run_all):
    run_id, task_id = ask(db, make_workflow(asking("limit", APPROVAL, timeout="P2D")), None, run_all)
    pass_time(db, run_id, "2 days")
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"], task(db, task_id)["state"]) == (
        "failed",
        "timeout",
        "expired",
    )


@pytest.mark.parametrize("due", ["tomorrow", "P1X"])
def test_a_due_date_that_is_none_fails_the_step(db, make_workflow, run_all, due):
    slug = make_workflow(asking("none", {"role": "staff", "due": "{{ trigger.payload.due }}"}))
    run_id = start(db, slug, {"due": due})
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "bad_time"


def test_a_due_date_may_be_a_day(db, make_workflow, run_all):
    slug = make_workflow(asking("day", {"role": "staff", "due": "{{ trigger.payload.due }}"}))
    _, task_id = ask(db, slug, {"due": "2999-05-01T09:00:00Z"}, run_all)
    assert task(db, task_id)["due_at"].isoformat()[:10] == "2999-05-01"


def test_a_pause_stops_the_clock_of_a_task(db, make_workflow, run_all):
    users(db)
    run_id, task_id = ask(
        db,
        make_workflow(deciding("pause", {"assignee": ADA, "due": "PT10H", "escalate": LADDER})),
        {"boss": BEN},
        run_all,
    )
    due = task(db, task_id)["due_at"]
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    db.execute("update stellwerk.run set paused_at = paused_at - interval '30 days' where run_id = %s", (run_id,))
    db.execute("select stellwerk.tick()")
    assert len(told(db)) == 1
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    moved = task(db, task_id)["due_at"] - due
    assert 30 <= moved.total_seconds() / 86400 < 30.01
    db.execute("select stellwerk.tick()")
    assert len(told(db)) == 1
    assert timers(db) == ["reminder", "escalation"]


# -- the time is up while somebody decides -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["due", "ladder"])
@pytest.mark.parametrize("decides", [True, False])
def test_who_decides_while_the_time_runs_out_is_not_overruled(dsn, db, make_workflow, run_all, kind, decides):
    config = {"role": "staff", "due": "PT1H"} if kind == "due" else {"role": "staff", "escalate": LADDER[:1]}
    late = [transform("late", "nobody came")] if kind == "due" else []
    slug = make_workflow(deciding("edge", config, *late, edges=("ask.timeout -> late",) if late else ()))
    run_id, task_id = ask(db, slug, None, run_all)
    db.execute("update stellwerk.timer set due_at = now() - interval '1 minute'")
    with psycopg.connect(dsn) as clerk:
        complete(clerk, task_id, "approve")
        db.execute("set statement_timeout = '5 s'; select stellwerk.tick()")  # the engine does not wait for the clerk
        assert task(db, task_id)["state"] == "open"
        if decides:
            clerk.commit()
        else:
            clerk.rollback()
    db.execute("update stellwerk.timer set due_at = now() - interval '1 minute'")
    db.execute("select stellwerk.tick()")
    run_all(db)
    row = task(db, task_id)
    if decides:
        assert (row["state"], row["outcome"], run(db, run_id)["output"]["outcome"]) == (
            "completed",
            "approve",
            "approve",
        )
    elif kind == "due":
        assert (row["state"], run(db, run_id)["output"]) == ("expired", "nobody came")
    else:
        assert (row["completed_by"], run(db, run_id)["output"]["outcome"]) == ("escalation", "reject")
    assert timers(db) == []


def test_a_decision_made_after_the_time_but_before_the_tick_counts(db, make_workflow, run_all):
    late = transform("late", "nobody came")
    slug = make_workflow(deciding("after", {"role": "staff", "due": "PT1H"}, late, edges=("ask.timeout -> late",)))
    run_id, task_id = ask(db, slug, None, run_all)
    db.execute("update stellwerk.timer set due_at = now() - interval '1 minute'")
    complete(db, task_id, "approve")
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert run(db, run_id)["output"]["outcome"] == "approve"


def test_other_waits_run_out_beside_tasks(db, make_workflow, run_all):
    users(db)
    late = transform("late", 1)
    slug = make_workflow(
        asking(
            "beside",
            {"role": "staff", "due": "PT1H"},
            node("w", "logic.wait", {"event": "x", "correlation": "y", "timeout": "PT1H"}),
            late,
            edges=("start -> w", "w.timeout -> late", "ask.timeout -> late"),
        )
    )
    run_id, task_id = ask(db, slug, None, run_all)
    pass_time(db, run_id, "2 hours")
    run_all(db)
    assert (run(db, run_id)["state"], task(db, task_id)["state"]) == ("completed", "expired")
    act_as(db, ADA)
    assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
