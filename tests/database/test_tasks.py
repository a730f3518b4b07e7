"""Runs ask people; people answer, and the answer fits."""

from __future__ import annotations

import pytest
from database.helpers import run, start, states, transform
from database.people import ADA, APPROVAL, BEN, act_as, ask, asking, complete, deciding, refused, task, told, users

FORM = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number", "minimum": 1}},
    "additionalProperties": False,
}


# -- asking and answering ----------------------------------------------------------------------------------------------


def test_a_run_waits_for_a_person_and_goes_on_with_the_answer(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(
        asking(
            "ask",
            {
                "title": "Check {{ trigger.payload.name }}",
                "instructions": "Look twice.",
                "assignee": ADA,
                "form": FORM,
                "prefill": {"amount": "{{ trigger.payload.amount }}"},
            },
        )
    )
    run_id, task_id = ask(db, slug, {"name": "Rossi", "amount": 7}, run_all)
    assert (run(db, run_id)["state"], states(db, run_id)["ask"]) == ("waiting", "waiting")
    row = task(db, task_id)
    assert (row["state"], row["title"], row["instructions"], row["assignee"], row["prefill"]) == (
        "open",
        "Check Rossi",
        "Look twice.",
        ADA,
        {"amount": 7},
    )
    assert told(db) == [(ADA, "Task: Check Rossi")]
    act_as(db, ADA)
    assert complete(db, task_id, result={"amount": 8}) == "completed"
    assert run(db, run_id)["state"] == "waiting"  # the verb only writes rows
    run_all(db)
    output = {"outcome": None, "result": {"amount": 8}, "completed_by": ADA, "task_id": str(task_id)}
    assert (run(db, run_id)["state"], run(db, run_id)["output"]) == ("completed", output)
    row = task(db, task_id)
    assert (row["state"], row["completed_by"], row["result"]) == ("completed", ADA, {"amount": 8})
    assert db.execute("select count(*) from stellwerk.wait").fetchone() == (0,)


@pytest.mark.parametrize(("outcome", "way"), [("approve", "yes"), ("reject", "no")])
def test_an_outcome_is_a_port(db, make_workflow, run_all, outcome, way):
    slug = make_workflow(deciding("decide", {"role": "staff"}))
    run_id, task_id = ask(db, slug, None, run_all)
    assert complete(db, task_id, outcome, {"note": "n"}) == "completed"
    run_all(db)
    assert way in states(db, run_id)
    assert len(states(db, run_id)) == 3
    assert run(db, run_id)["output"]["outcome"] == outcome


def test_an_outcome_without_a_way_of_its_own_goes_by_the_common_one(db, make_workflow, run_all):
    slug = make_workflow(asking("common", APPROVAL))
    run_id, task_id = ask(db, slug, None, run_all)
    complete(db, task_id, "reject")
    run_all(db)
    assert run(db, run_id)["output"]["outcome"] == "reject"


def test_a_task_is_decided_by_update(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("update", {"role": "staff"}))
    run_id, task_id = ask(db, slug, None, run_all)
    act_as(db, BEN)
    assert db.execute("select id, title, state, outcomes, role from stellwerk.my_task").fetchall() == [
        (task_id, "Please decide", "open", ["approve", "reject"], "staff")
    ]
    changed = db.execute(
        "update stellwerk.my_task set outcome = 'approve', result = '{\"note\": 1}' where id = %s", (task_id,)
    )
    assert changed.rowcount == 1
    run_all(db)
    assert run(db, run_id)["output"] == {
        "outcome": "approve",
        "result": {"note": 1},
        "completed_by": BEN,
        "task_id": str(task_id),
    }
    assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
    # With a draft before it, the decision alone is enough.
    run_id, task_id = ask(db, slug, None, run_all)
    db.execute("update stellwerk.my_task set draft = '{\"note\": 2}' where id = %s", (task_id,))
    assert list(task(db, task_id)["drafts"].values()) == [{"note": 2}]
    db.execute("update stellwerk.my_task set outcome = 'reject' where id = %s", (task_id,))
    run_all(db)
    assert run(db, run_id)["output"]["result"] == {"note": 2}


@pytest.mark.parametrize(
    ("result", "outcome", "words"),
    [
        ({}, "approve", "does not fit"),
        ({"amount": 0}, "approve", "does not fit"),
        ({"amount": 1, "more": 2}, "approve", "does not fit"),
        ([1], "approve", "does not fit"),
        ({"amount": 1}, "perhaps", "cannot come to the outcome"),
        ({"amount": 1}, None, "needs an outcome"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(db, make_workflow, run_all, result, outcome, words):
    slug = make_workflow(deciding("fit", {"role": "staff", "form": FORM}))
    _, task_id = ask(db, slug, None, run_all)
    with refused("SW002", words) as error:
        complete(db, task_id, outcome, result)
    assert "does not fit" not in words or error.value.diag.message_detail
    assert task(db, task_id)["state"] == "open"
    assert db.execute("select count(*) from stellwerk.user_task_decision").fetchone() == (0,)


def test_the_detail_names_every_place_that_does_not_fit(db, make_workflow, run_all):
    slug = make_workflow(asking("places", {"role": "staff", "form": FORM}))
    _, task_id = ask(db, slug, None, run_all)
    with refused("SW002") as error:
        complete(db, task_id, None, {"amount": "much", "more": 1})
    assert sorted(error.value.diag.message_detail.splitlines()) == [
        "amount must be a number, but is a text",
        "more is not expected here",
    ]


def test_an_outcome_that_nobody_asked_for_is_refused(db, make_workflow, run_all):
    slug = make_workflow(asking("none", {"role": "staff"}))
    _, task_id = ask(db, slug, None, run_all)
    with refused("SW002", "no outcomes"):
        complete(db, task_id, "approve")
    with refused("SW007", "there is no task 999"):
        complete(db, 999)


@pytest.mark.parametrize("who", [{"assignee": "{{ trigger.payload.who }}"}, {"role": "{{ trigger.payload.who }}"}])
def test_a_task_for_nobody_fails_the_step(db, make_workflow, run_all, who):
    slug = make_workflow(asking("nobody", who))
    run_id = start(db, slug, {"who": None})
    run_all(db)
    assert (run(db, run_id)["state"], run(db, run_id)["error"]["class"]) == ("failed", "no_assignee")


def test_the_assignee_may_be_computed(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(asking("computed", {"assignee": "{{ trigger.payload.who }}"}))
    assert task(db, ask(db, slug, {"who": "Ada@Example.org"}, run_all)[1])["assignee"] == ADA
    row = task(db, ask(db, slug, {"who": "role:staff"}, run_all)[1])
    assert (row["assignee"], row["role"]) == (None, "staff")


# -- roles and versions ------------------------------------------------------------------------------------------------


def test_the_web_role_speaks_for_users_and_for_nobody_else(db, make_workflow, run_all):
    users(db)
    run_id, task_id = ask(db, make_workflow(deciding("web", {"role": "staff"})), None, run_all)
    db.execute("set session authorization default; set role stellwerk_web")
    act_as(db, None)
    with refused("SW004"):
        complete(db, task_id, "approve")
    act_as(db, BEN)
    assert db.execute("select id from stellwerk.my_task").fetchall() == [(task_id,)]
    with refused("SW004"):
        db.execute("select stellwerk.add_user('eve@example.org', 'admin')")
    for statement in (
        "update stellwerk.app_user set role = 'admin'",
        "update stellwerk.my_task set title = 'x'",
        "insert into stellwerk.message (tenant_id, recipient, body) values (1, 'a@b.org', 'x')",
        "select stellwerk.decide_task(k, 'approve', '{}', 'me') from stellwerk.user_task k",
    ):
        with refused("42501"):
            db.execute(statement)
    db.execute("update stellwerk.my_task set outcome = 'approve' where id = %s", (task_id,))
    db.execute("reset role")
    run_all(db)
    assert run(db, run_id)["output"]["completed_by"] == BEN


def test_a_task_moves_with_its_run_to_another_version(db, make_workflow, run_all):
    slug = make_workflow(deciding("move", {"role": "staff"}))
    run_id, task_id = ask(db, slug, None, run_all)
    changed = deciding("move", {"role": "staff", "title": "Please decide well"})
    changed["nodes"][2] = transform("yes", "of version 2")
    make_workflow(changed)
    verdicts = db.execute("select verdict from stellwerk.migrate_runs('move', 1, 2, '{}', false)").fetchall()
    assert len(verdicts) == 1
    assert (run(db, run_id)["version"], task(db, task_id)["state"]) == (2, "open")
    complete(db, task_id, "approve")
    run_all(db)
    assert run(db, run_id)["output"] == "of version 2"
