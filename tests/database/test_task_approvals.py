"""Several must agree, and nobody approves what he asked for himself."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import run, start, states
from database.people import ADA, BEN, CAT, act_as, ask, asking, complete, deciding, refused, task, users


@pytest.fixture
def two(db, make_workflow, run_all):
    """A task that takes two of staff: run and task."""
    users(db)
    return ask(db, make_workflow(deciding("two", {"role": "staff", "approvals": 2})), None, run_all)


def test_it_takes_as_many_different_people_as_it_says(db, run_all, two):
    run_id, task_id = two
    act_as(db, ADA)
    assert complete(db, task_id, "approve", {"a": 1}) == "open"
    assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
    with refused("SW003", "ada@example.org has decided task . already"):
        complete(db, task_id, "approve")
    with refused("SW003", "has decided"):
        db.execute("select stellwerk.claim_task(%s)", (task_id,))
    run_all(db)
    assert run(db, run_id)["state"] == "waiting"
    assert "1 of 2 approvals given" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    assert db.execute("select decisions, approvals from stellwerk.task_overview").fetchone() == (1, 2)
    act_as(db, BEN)
    db.execute("update stellwerk.my_task set outcome = 'approve', result = '{\"b\": 2}' where id = %s", (task_id,))
    act_as(db, None)
    run_all(db)
    output = run(db, run_id)["output"]
    assert (output["outcome"], output["result"], output["completed_by"]) == ("approve", {"b": 2}, BEN)
    assert [(d["by"], d["outcome"], d["result"]) for d in output["decisions"]] == [
        (ADA, "approve", {"a": 1}),
        (BEN, "approve", {"b": 2}),
    ]
    assert "yes" in states(db, run_id)


@pytest.mark.parametrize("after", [0, 1])
def test_one_who_says_anything_else_decides(db, run_all, two, after):
    run_id, task_id = two
    if after:
        act_as(db, ADA)
        assert complete(db, task_id, "approve") == "open"
    act_as(db, BEN)
    assert complete(db, task_id, "reject") == "completed"
    act_as(db, None)
    run_all(db)
    assert run(db, run_id)["output"]["outcome"] == "reject"
    assert len(run(db, run_id)["output"]["decisions"]) == after + 1


def test_without_outcomes_it_takes_as_many_answers(db, make_workflow, run_all):
    users(db)
    run_id, task_id = ask(db, make_workflow(asking("answers", {"role": "staff", "approvals": 2})), None, run_all)
    for who, state in ((ADA, "open"), (BEN, "completed")):
        act_as(db, who)
        assert complete(db, task_id, None, {"said": who}) == state
    act_as(db, None)
    run_all(db)
    assert run(db, run_id)["output"]["result"] == {"said": BEN}


def test_a_claimed_task_is_given_back_after_an_approval(db, run_all, two):
    _, task_id = two
    act_as(db, ADA)
    db.execute("select stellwerk.claim_task(%s)", (task_id,))
    db.execute("select stellwerk.save_task_draft(%s, '{\"mine\": 1}')", (task_id,))
    assert complete(db, task_id, "approve") == "open"
    row = task(db, task_id)
    assert (row["state"], row["claimed_by"], row["drafts"]) == ("open", None, None)
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"


def test_a_task_that_one_approved_can_be_handed_to_another(db, run_all, two):
    _, task_id = two
    act_as(db, ADA)
    complete(db, task_id, "approve")
    db.execute("select stellwerk.reassign_task(%s, %s)", (task_id, CAT))
    act_as(db, BEN)
    with refused("SW004", "may not do task"):
        complete(db, task_id, "approve")
    act_as(db, CAT)
    assert complete(db, task_id, "approve") == "completed"


def test_approvals_at_once_are_both_counted(dsn, db, run_all, two):
    import threading

    run_id, task_id = two
    answers = []

    def approve(who):
        with psycopg.connect(dsn, autocommit=True) as connection:
            act_as(connection, who)
            answers.append(complete(connection, task_id, "approve"))

    people = [threading.Thread(target=approve, args=(who,)) for who in (ADA, BEN)]
    for person in people:
        person.start()
    for person in people:
        person.join(30)
    assert sorted(answers) == ["completed", "open"]
    run_all(db)
    assert run(db, run_id)["output"]["outcome"] == "approve"


# -- not one's own -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [False, True])
def test_who_started_the_run_does_not_approve_it(db, make_workflow, run_all, allowed):
    users(db)
    make_workflow(deciding("self", {"role": "staff", "allow_self": allowed}))
    act_as(db, ADA)
    run_id = start(db, "self")
    act_as(db, None)
    run_all(db)
    (task_id,) = db.execute("select task_id from stellwerk.user_task").fetchone()
    act_as(db, ADA)
    if allowed:
        assert complete(db, task_id, "approve") == "completed"
        return
    with refused("SW004", f"ada@example.org started run {run_id}"):
        complete(db, task_id, "approve")
    with refused("SW004", "may not decide about it"):
        db.execute("update stellwerk.my_task set outcome = 'approve' where id = %s", (task_id,))
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"


def test_who_started_it_by_another_name_or_through_a_parent_does_not_either(db, make_workflow, run_all):
    from database.helpers import START, document, node

    users(db)
    make_workflow(deciding("child", {"role": "staff", "allow_self": False}))
    make_workflow(document("parent", [START, node("c", "logic.call", {"workflow": "child"})], ["start -> c"]))
    (login,) = db.execute("select session_user::text").fetchone()
    start(db, "parent")  # by the database login
    run_all(db)
    db.execute("select stellwerk.change_user(%s, login => %s)", (ADA, login))
    (task_id,) = db.execute("select task_id from stellwerk.user_task").fetchone()
    with refused("SW004", "ada@example.org started run"):
        complete(db, task_id, "approve")  # the login is Ada now
    act_as(db, ADA)
    with refused("SW004", "ada@example.org started run"):
        complete(db, task_id, "approve")
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"
