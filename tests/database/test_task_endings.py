"""The run goes another way while somebody is asked, and what is left of tasks later."""

from __future__ import annotations

from database.helpers import node, run, start, transform
from database.people import ADA, BEN, act_as, ask, asking, complete, deciding, refused, task, users
from psycopg.types.json import Jsonb

# -- the run goes another way ------------------------------------------------------------------------------------------


def test_a_run_that_is_cancelled_takes_its_task_back(db, make_workflow, run_all):
    run_id, task_id = ask(db, make_workflow(deciding("cancel", {"role": "staff"})), None, run_all)
    db.execute("select stellwerk.cancel_run(%s, 'no longer needed')", (run_id,))
    assert (task(db, task_id)["state"], task(db, task_id)["reason"]) == ("cancelled", "the run no longer waits for it")
    with refused("SW003", "is cancelled"):
        complete(db, task_id, "approve")
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    run_all(db)
    (again,) = db.execute("select task_id from stellwerk.user_task where state = 'open'").fetchone()
    complete(db, again, "approve")
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert task(db, task_id)["state"] == "cancelled"


def test_a_skipped_step_takes_its_task_back(db, make_workflow, run_all):
    run_id, task_id = ask(db, make_workflow(deciding("skip", {"role": "staff"})), None, run_all)
    (step_id,) = db.execute("select step_id from stellwerk.user_task").fetchone()
    db.execute("select stellwerk.skip_step(%s, %s, '{}', 'approve')", (run_id, step_id))
    run_all(db)
    assert (run(db, run_id)["state"], task(db, task_id)["state"]) == ("completed", "cancelled")


def test_another_branch_that_stops_the_run_takes_the_task_back(db, make_workflow, run_all):
    slug = make_workflow(
        asking(
            "stop",
            {"role": "staff"},
            node("w", "logic.wait", {"for": "PT1H"}),
            node("s", "logic.stop", {"result": 1}),
            edges=("start -> w", "w -> s"),
        )
    )
    run_id, task_id = ask(db, slug, None, run_all)
    db.execute("update stellwerk.timer set due_at = now()")
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert (run(db, run_id)["state"], task(db, task_id)["state"]) == ("completed", "cancelled")


def test_a_decision_in_a_paused_run_counts_when_it_is_resumed(db, make_workflow, run_all):
    run_id, task_id = ask(db, make_workflow(deciding("pause", {"role": "staff"})), None, run_all)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    complete(db, task_id, "approve")
    run_all(db)
    assert run(db, run_id)["state"] == "paused"
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    run_all(db)
    assert run(db, run_id)["output"]["outcome"] == "approve"


def test_tasks_in_a_loop_are_asked_one_per_item(db, make_workflow, run_all):
    from database.helpers import START, document

    slug = make_workflow(
        document(
            "loop",
            [
                START,
                node(
                    "l",
                    "logic.loop",
                    {
                        "items": "{{ trigger.payload.people }}",
                        "parallel": 5,
                        "collect": "{{ steps.ask.output.result.said }}",
                    },
                ),
                node("ask", "task.user", {"title": "For {{ item }}", "assignee": "{{ item }}"}),
                transform("e", "{{ steps.l.output.items }}"),
            ],
            ["start -> l", "l.each -> ask", "ask -> l", "l.done -> e"],
        )
    )
    run_id = start(db, slug, {"people": [ADA, BEN]})
    run_all(db)
    tasks = dict(db.execute("select assignee, task_id from stellwerk.user_task").fetchall())
    for who, said in ((BEN, "b"), (ADA, "a")):
        act_as(db, who)
        db.execute("update stellwerk.my_task set result = %s where id = %s", (Jsonb({"said": said}), tasks[who]))
    act_as(db, None)
    run_all(db)
    assert run(db, run_id)["output"] == ["a", "b"]


def test_why_names_the_person(db, make_workflow, run_all):
    users(db)
    why = "select stellwerk.why(%s)"
    run_id, task_id = ask(db, make_workflow(deciding("why", {"role": "staff", "title": "Sign it"})), None, run_all)
    assert (
        f"waits for somebody with the role staff to do task {task_id} (Sign it)"
        in db.execute(why, (run_id,)).fetchone()[0]
    )
    act_as(db, ADA)
    db.execute("select stellwerk.claim_task(%s)", (task_id,))
    assert f"waits for {ADA}, who works on it since" in db.execute(why, (run_id,)).fetchone()[0]
    (evidence,) = db.execute(
        "select evidence from stellwerk.explain_run(%s) where node_id = 'ask'", (run_id,)
    ).fetchone()
    assert (evidence["task_id"], evidence["claimed_by"]) == (str(task_id), ADA)
    complete(db, task_id, "approve")
    assert "was decided by ada@example.org (approve)" in str(
        db.execute("select reason from stellwerk.explain_run(%s)", (run_id,)).fetchall()
    )
    for who, words in (
        ({"assignee": "ghost@example.org"}, "ghost@example.org, who is no active user"),
        ({"role": "astronaut"}, "the role astronaut, which no active user has"),
    ):
        run_id, _ = ask(db, make_workflow(deciding(f"why-{len(who.get('role', ''))}", who)), None, run_all)
        assert words in db.execute(why, (run_id,)).fetchone()[0]
    assert db.execute("select count(*) from stellwerk.stuck_runs(interval '0')").fetchone() == (0,)


# -- history -----------------------------------------------------------------------------------------------------------


def test_a_persons_data_go_from_tasks_too(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(
        asking(
            "forget",
            {
                "title": "Call {{ trigger.payload.email }}",
                "instructions": "{{ trigger.payload.email }}",
                "assignee": BEN,
                "prefill": {"m": "{{ trigger.payload.email }}"},
            },
        )
    )
    _, task_id = ask(db, slug, {"email": "zoe@example.org"}, run_all)
    db.execute("select stellwerk.save_task_draft(%s, %s)", (task_id, Jsonb({"m": "zoe@example.org"})))
    db.execute("select stellwerk.comment_task(%s, 'zoe@example.org called')", (task_id,))
    db.execute("select stellwerk.attach_to_task(%s, 'zoe@example.org.pdf', 'x')", (task_id,))
    complete(db, task_id, None, {"m": "zoe@example.org"})
    run_all(db)
    tables = [
        "user_task",
        "user_task_decision",
        "user_task_comment",
        "user_task_attachment",
        "message",
        "notification",
        "step",
        "run",
    ]
    held = [
        name
        for name in tables
        if db.execute(f"select from stellwerk.{name} x where x::text like '%zoe@%'").fetchone() is not None
    ]
    assert held == tables
    found = db.execute(
        "select place from stellwerk.forget_subject('email', 'zoe@example.org', dry_run => false)"
    ).fetchall()
    assert {("user_task",), ("message",)} <= set(found)
    held = [
        name
        for name in tables
        if db.execute(f"select from stellwerk.{name} x where x::text like '%zoe@%'").fetchone() is not None
    ]
    assert held == []
    row = task(db, task_id)
    assert (row["state"], row["title"], row["result"]) == ("completed", "forgotten", {"forgotten": True})
    assert db.execute("select distinct state from stellwerk.message").fetchall() == [("suppressed",)]
