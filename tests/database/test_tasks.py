"""Runs ask people; people answer once."""

from __future__ import annotations

import threading

import psycopg
import pytest
from database.helpers import node, run, start, states, transform
from database.people import ADA, APPROVAL, BEN, CAT, act_as, ask, asking, complete, deciding, task, told, users
from psycopg.types.json import Jsonb

FORM = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number", "minimum": 1}},
    "additionalProperties": False,
}


def refused(sqlstate, words=None):
    return pytest.raises(psycopg.Error, match=words, check=lambda error: error.sqlstate == sqlstate)


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
    assert task(db, task_id)["draft"] == {"note": 2}
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
        ({"amount": 1}, None, "cannot come to the outcome"),
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


# -- two at once -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["verb", "view"])
def test_two_who_decide_at_once_make_one_decision_each_time(dsn, db, make_workflow, run_all, way):
    users(db)
    slug = make_workflow(deciding("race", {"role": "staff"}))
    runs = [start(db, slug) for _ in range(50)]
    run_all(db)
    tasks = dict(db.execute("select run_id, task_id from stellwerk.user_task").fetchall())
    statement = {
        "verb": "select stellwerk.complete_task(%(task)s, '{}', %(outcome)s)",
        "view": "update stellwerk.my_task set outcome = %(outcome)s, result = '{}' where id = %(task)s",
    }[way]
    meet = threading.Barrier(2, timeout=60)
    answers: dict[str, list[object]] = {ADA: [], BEN: []}

    def decide(who, outcome):
        with psycopg.connect(dsn, autocommit=True) as connection:
            act_as(connection, who)
            for run_id in runs:
                meet.wait()
                try:
                    done = connection.execute(statement, {"task": tasks[run_id], "outcome": outcome})
                    # Whoever looks when all is over finds no such task in the own list.
                    answers[who].append("decided" if done.rowcount == 1 else "gone")
                except psycopg.Error as error:
                    answers[who].append((error.sqlstate, error.diag.message_primary))

    people = [threading.Thread(target=decide, args=each) for each in ((ADA, "approve"), (BEN, "reject"))]
    for person in people:
        person.start()
    for person in people:
        person.join(120)
    run_all(db)
    for number, run_id in enumerate(runs):
        said = {who: answers[who][number] for who in answers}
        winners = [who for who, answer in said.items() if answer == "decided"]
        assert len(winners) == 1, said
        (winner,) = winners
        lost = said[BEN if winner == ADA else ADA]
        outcome = "approve" if winner == ADA else "reject"
        assert lost == ("SW003", f"task {tasks[run_id]} is completed already: {winner} decided {outcome}") or (
            way == "view" and lost == "gone"
        )
        assert (run(db, run_id)["output"]["completed_by"], run(db, run_id)["output"]["outcome"]) == (winner, outcome)
    assert db.execute("select count(*) from stellwerk.user_task_decision").fetchone() == (50,)


def test_the_second_decision_waits_for_the_first_and_is_told(dsn, db, make_workflow, run_all):
    slug = make_workflow(deciding("second", {"role": "staff"}))
    run_id, task_id = ask(db, slug, None, run_all)
    with psycopg.connect(dsn) as first:
        complete(first, task_id, "approve")
        first.rollback()  # who changes his mind has decided nothing
    assert complete(db, task_id, "reject") == "completed"
    with refused("SW003", "completed already") as error:
        complete(db, task_id, "approve")
    assert error.value.diag.message_hint == "Nothing was changed."
    run_all(db)
    assert run(db, run_id)["output"]["outcome"] == "reject"


# -- who may -----------------------------------------------------------------------------------------------------------


def test_only_those_who_are_asked_may_decide(db, make_workflow, run_all):
    users(db)
    db.execute("select stellwerk.add_user('eve@example.org', 'staff'), stellwerk.add_user('vic@example.org', 'viewer')")
    slug = make_workflow(deciding("mine", {"assignee": ADA}))
    run_id, task_id = ask(db, slug, None, run_all)
    for other in ("eve@example.org", "vic@example.org", "stranger@example.org"):
        act_as(db, other)
        assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
        for verb in (
            "complete_task(%s, '{}', 'approve')",
            "claim_task(%s)",
            f"reassign_task(%s, '{other}')",
            "save_task_draft(%s, '{}')",
            "comment_task(%s, 'hm')",
        ):
            with refused("SW004"):
                db.execute(f"select stellwerk.{verb}", (task_id,))
    act_as(db, CAT)  # an admin may, for whoever fell ill
    assert complete(db, task_id, "approve") == "completed"
    run_all(db)
    assert run(db, run_id)["output"]["completed_by"] == CAT


def test_a_user_who_has_left_may_nothing(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("left", {"role": "staff"}))
    _, task_id = ask(db, slug, None, run_all)
    db.execute("select stellwerk.change_user(%s, active => false)", (ADA,))
    act_as(db, ADA)
    assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
    with refused("SW004"):
        complete(db, task_id, "approve")


def test_a_group_is_a_role_for_tasks(db, make_workflow, run_all):
    users(db)
    db.execute("select stellwerk.change_user(%s, groups => '{accounting}')", (BEN,))
    _, task_id = ask(db, make_workflow(deciding("group", {"role": "accounting"})), None, run_all)
    act_as(db, ADA)
    with refused("SW004", "may not do task"):
        complete(db, task_id, "approve")
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"


def test_a_database_login_is_the_user_that_it_is_mapped_to(server, dsn, db, make_workflow, run_all):
    users(db)
    name = "clerk_" + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    db.execute(f"create role {name} login; grant stellwerk_dba to {name}")
    try:
        slug = make_workflow(deciding("login", {"role": "staff"}))
        run_id, task_id = ask(db, slug, None, run_all)
        own, other = (
            ask(db, slug, None, run_all)[1],
            ask(db, make_workflow(deciding("other", {"assignee": BEN})), None, run_all)[1],
        )
        db.execute("select stellwerk.change_user(%s, login => %s)", (ADA, name))
        with psycopg.connect(dsn, user=name, autocommit=True) as clerk:
            clerk.execute("set stellwerk.actor = 'cat@example.org'")  # not theirs to say
            assert clerk.execute("select id from stellwerk.my_task order by id").fetchall() == [(task_id,), (own,)]
            clerk.execute("update stellwerk.my_task set outcome = 'approve' where id = %s", (task_id,))
            with refused("SW004"):
                complete(clerk, other, "approve")
            with refused("42501"):
                clerk.execute("update stellwerk.user_task set state = 'open', ended_at = null")
        run_all(db)
        assert run(db, run_id)["output"]["completed_by"] == ADA
    finally:
        db.execute(f"drop owned by {name}; drop role {name}")


def test_tenants_never_meet(db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("ours", {"role": "staff"})), None, run_all)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    db.execute("select stellwerk.add_user(%s, 'staff')", (ADA,))
    act_as(db, ADA)
    assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
    with refused("SW007"):
        complete(db, task_id, "approve")


# -- claim, hand over, talk --------------------------------------------------------------------------------------------


def test_a_claimed_task_is_one_persons(db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("claim", {"role": "staff"})), None, run_all)
    act_as(db, ADA)
    db.execute("select stellwerk.claim_task(%s)", (task_id,))
    db.execute("select stellwerk.claim_task(%s)", (task_id,))  # twice is once
    act_as(db, BEN)
    assert db.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
    for verb in (
        "claim_task(%s)",
        "complete_task(%s, '{}', 'approve')",
        "save_task_draft(%s, '{}')",
        "release_task(%s)",
    ):
        with refused("SW003", "being worked on by ada"):
            db.execute(f"select stellwerk.{verb}", (task_id,))
    act_as(db, ADA)
    db.execute("select stellwerk.release_task(%s)", (task_id,))
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"


def test_a_task_is_handed_over(db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("hand", {"assignee": ADA})), None, run_all)
    act_as(db, ADA)
    with refused("SW007", "no active user"):
        db.execute("select stellwerk.reassign_task(%s, 'nobody@example.org')", (task_id,))
    with refused("SW007"):
        db.execute("select stellwerk.reassign_task(%s, 'role:astronaut')", (task_id,))
    db.execute("select stellwerk.reassign_task(%s, %s)", (task_id, BEN.upper()))
    assert told(db)[-1] == (BEN, "Task: Please decide")
    with refused("SW004"):
        complete(db, task_id, "approve")
    act_as(db, BEN)
    db.execute("select stellwerk.reassign_task(%s, 'role:staff')", (task_id,))
    act_as(db, ADA)
    assert complete(db, task_id, "approve") == "completed"
    act_as(db, None)
    log = db.execute(
        "select actor, before, after from stellwerk.audit_log where subject = 'user_task' and subject_id = %s order by audit_id",
        (str(task_id),),
    ).fetchall()
    assert [row[0] for row in log] == [ADA, BEN, ADA]
    assert log[0][1:] == ({"assignee": ADA}, {"assignee": BEN})
    assert log[2][2] == {"state": "completed", "outcome": "approve", "completed_by": ADA}


def test_an_operator_hands_over_what_is_not_his(db, make_workflow, run_all):
    users(db)
    db.execute("select stellwerk.add_user('op@example.org', 'operator')")
    _, task_id = ask(db, make_workflow(deciding("op", {"assignee": ADA})), None, run_all)
    act_as(db, "op@example.org")
    with refused("SW004"):
        complete(db, task_id, "approve")
    db.execute("select stellwerk.reassign_task(%s, %s)", (task_id, BEN))
    assert task(db, task_id)["assignee"] == BEN


def test_people_comment_and_attach(db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("talk", {"role": "staff"})), None, run_all)
    act_as(db, ADA)
    db.execute("select stellwerk.comment_task(%s, ' What is this? ')", (task_id,))
    db.execute("select stellwerk.attach_to_task(%s, 'scan.pdf', 'files/7', 'application/pdf')", (task_id,))
    complete(db, task_id, "approve")
    act_as(db, BEN)
    db.execute("select stellwerk.comment_task(%s, 'Too late for me.')", (task_id,))
    with refused("SW002"):
        db.execute("select stellwerk.comment_task(%s, '  ')", (task_id,))
    with refused("SW002"):
        db.execute("select stellwerk.attach_to_task(%s, 'scan.pdf', '')", (task_id,))
    assert db.execute("select actor, body from stellwerk.user_task_comment order by comment_id").fetchall() == [
        (ADA, "What is this?"),
        (BEN, "Too late for me."),
    ]
    assert db.execute("select actor, name, reference, media_type from stellwerk.user_task_attachment").fetchall() == [
        (ADA, "scan.pdf", "files/7", "application/pdf")
    ]


# -- away --------------------------------------------------------------------------------------------------------------


def test_who_is_away_is_stood_in_for(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("away", {"assignee": ADA}))
    _, before = ask(db, slug, None, run_all)
    act_as(db, ADA)
    db.execute("select stellwerk.set_absence(%s, now() + interval '3 days', %s)", (ADA, BEN))
    with refused("SW004", "may not say when ben"):
        db.execute("select stellwerk.set_absence(%s, null, null)", (BEN,))
    act_as(db, None)
    run_id, after = ask(db, slug, None, run_all)
    assert told(db)[-2:] == [(ADA, "Task: Please decide"), (BEN, "Task: Please decide")]
    assert "who is away, or ben" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    act_as(db, BEN)
    assert db.execute("select id from stellwerk.my_task order by id").fetchall() == [(before,), (after,)]
    assert complete(db, before, "approve") == "completed"
    act_as(db, ADA)
    db.execute("select stellwerk.set_absence(%s, absent_from => null)", (ADA,))
    act_as(db, BEN)
    with refused("SW004"):
        complete(db, after, "approve")


def test_a_stand_in_who_is_away_hands_on_and_circles_end(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("chain", {"assignee": ADA}))
    for who, delegate in ((ADA, BEN), (BEN, CAT), (CAT, ADA)):
        db.execute("select stellwerk.set_absence(%s, null, %s)", (who, delegate))
    _, task_id = ask(db, slug, None, run_all)
    assert told(db)[-1] == (CAT, "Task: Please decide")
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("set_absence('ada@example.org', '2020-01-01', null, '2020-02-01')", "SW002"),
        ("set_absence('ada@example.org', null, 'Ada@example.org')", "SW002"),
        ("set_absence('ada@example.org', null, 'nobody@example.org')", "SW007"),
        ("set_absence('nobody@example.org')", "SW007"),
        ("add_user('ada@example.org', 'staff')", "SW003"),
        ("add_user('new@example.org', 'staff', login => 'taken')", "SW003"),
        ("add_user('new@example.org', 'king')", "SW002"),
        ("add_user('new@example.org', null)", "SW002"),
        ("add_user('new', 'staff')", "SW002"),
        ("add_user(null, 'staff')", "SW002"),
        ("change_user('nobody@example.org', 'staff')", "SW007"),
        ("change_user('ada@example.org', 'king')", "SW002"),
        ("change_user('ada@example.org', login => 'taken')", "SW003"),
    ],
)
def test_users_are_checked(db, call, sqlstate):
    users(db)
    db.execute("select stellwerk.change_user(%s, login => 'taken')", (CAT,))
    with refused(sqlstate):
        db.execute(f"select stellwerk.{call}")


def test_users_are_managed_by_admins(db):
    users(db)
    act_as(db, ADA)
    for call in ("add_user('new@example.org', 'admin')", f"change_user('{ADA}', 'admin')"):
        with refused("SW004", "may not manage users"):
            db.execute(f"select stellwerk.{call}")
    act_as(db, CAT)
    db.execute("select stellwerk.add_user('New@example.org', 'viewer', 'Nina New', groups => '{board}')")
    db.execute("select stellwerk.change_user('new@example.org', 'operator', name => '', mails => false)")
    found = db.execute(
        "select email, name, role, groups, mails, created_by from stellwerk.app_user where email like 'new%'"
    ).fetchone()
    assert found == ("new@example.org", None, "operator", ["board"], False, CAT)
    act_as(db, None)
    log = db.execute(
        "select actor, action from stellwerk.audit_log where subject = 'app_user' and subject_id = 'new@example.org' order by audit_id"
    ).fetchall()
    assert log == [(CAT, "insert"), (CAT, "update")]


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
