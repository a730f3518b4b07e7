"""Who may do what with a task: claim it, hand it over, talk about it."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import run
from database.people import ADA, BEN, CAT, act_as, ask, complete, deciding, pass_time, refused, task, told, users
from psycopg.types.json import Jsonb

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


def test_a_task_is_claimed_given_back_and_drafted_by_update(db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("view", {"role": "staff"})), None, run_all)
    act_as(db, ADA)
    change = "update stellwerk.my_task set %s where id = " + str(task_id)
    db.execute(change % "state = 'claimed', draft = '{\"note\": 1}'")
    row = task(db, task_id)
    assert (row["state"], row["claimed_by"], row["drafts"]) == ("claimed", ADA, {ADA: {"note": 1}})
    db.execute(change % "state = 'claimed'")  # twice is once
    act_as(db, BEN)
    assert db.execute(change % "state = 'claimed'").rowcount == 0
    act_as(db, ADA)
    db.execute(change % "state = 'open'")
    assert (task(db, task_id)["state"], task(db, task_id)["claimed_by"]) == ("open", None)
    for setting, words in (
        ("title = 'x'", "title cannot be set"),
        ("run_id = 7, assignee = 'ben@example.org'", "assignee, run_id cannot be set"),
        ("state = 'cancelled'", "cannot be made 'cancelled'"),
        ("state = null", "cannot be made null"),
        ("state = 'completed'", "needs an outcome"),
    ):
        with refused("SW002", words):
            db.execute(change % setting)
    db.execute(change % "outcome = 'approve', draft = '{\"note\": 2}'")
    assert task(db, task_id)["result"] == {"note": 2}


@pytest.mark.parametrize(
    "reference", ["javascript:alert(1)", " JavaScript:alert(1)", "data:text/html,x", "file:///etc/passwd", "a\nb", ""]
)
def test_an_attachment_is_a_plain_reference(db, make_workflow, run_all, reference):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("file", {"role": "staff"})), None, run_all)
    act_as(db, ADA)
    attach = "select stellwerk.attach_to_task(%s, %s, %s, %s)"
    for good in ("https://files.example.org/7", "files/7", "7", "c/d:e"):
        db.execute(attach, (task_id, "scan.pdf", good, "application/pdf"))
    with refused("SW002", "attachment"):
        db.execute(attach, (task_id, "scan.pdf", reference, None))
    with refused("SW002", "one line each"):
        db.execute(attach, (task_id, "a\r\nb", "7", None))
    assert db.execute("select count(*) from stellwerk.user_task_attachment").fetchone() == (4,)


@pytest.mark.parametrize("text", ["'; drop table stellwerk.run; --", "{{ run.id }}", "$$ %s %I \\", "\u202e\x01"])
def test_what_people_write_is_data(db, make_workflow, run_all, text):
    users(db)
    slug = make_workflow(
        deciding(
            "data", {"title": "{{ trigger.payload.t }}", "role": "staff", "prefill": {"a": "{{ trigger.payload.t }}"}}
        )
    )
    run_id, task_id = ask(db, slug, {"t": text}, run_all)
    act_as(db, ADA)
    db.execute(
        "select stellwerk.comment_task(%s, %s), stellwerk.save_task_draft(%s, %s)",
        (task_id, text, task_id, Jsonb(text)),
    )
    complete(db, task_id, "approve", {text: text})
    run_all(db)
    assert run(db, run_id)["output"]["result"] == {text: text}
    row = task(db, task_id)
    assert (row["title"], row["prefill"], row["state"]) == (text, {"a": text}, "completed")
    assert db.execute("select body from stellwerk.user_task_comment").fetchone() == (text,)


def test_a_result_of_more_than_eight_megabytes_is_refused(db, make_workflow, run_all):
    _, task_id = ask(db, make_workflow(deciding("huge", {"role": "staff"})), None, run_all)
    for call in ("complete_task(%s, %s, 'approve')", "save_task_draft(%s, %s)"):
        with refused("SW002", "more than the limit"):
            db.execute(f"select stellwerk.{call}", (task_id, Jsonb({"x": "x" * 9_000_000})))
        with refused("22P05"):
            db.execute(f"select stellwerk.{call}", (task_id, '{"x": "\\u0000"}'))
    assert task(db, task_id)["state"] == "open"


def test_everybody_is_told_once_of_each_thing(db, make_workflow, run_all):
    users(db)
    run_id, _ = ask(db, make_workflow(deciding("once", {"assignee": ADA, "due": "P5D"})), None, run_all)
    for interval in ("4 days 1 hour", "1 hour", "1 day", "10 days", "1 day"):
        pass_time(db, run_id, interval)
        db.execute("select stellwerk.tick()")
    assert told(db) == [(ADA, f"{what}: Please decide") for what in ("Task", "Due soon", "Overdue")]
    subjects = db.execute("select recipient, subject from stellwerk.message order by message_id").fetchall()
    assert subjects == told(db)


def test_each_person_keeps_a_draft_of_their_own(db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("shared", {"role": "staff"})), None, run_all)
    read = "select draft from stellwerk.my_task where id = %s"
    for person, note in ((ADA, 1), (BEN, 2)):
        act_as(db, person)
        db.execute("select stellwerk.save_task_draft(%s, %s)", (task_id, Jsonb({"note": note})))
    for person, note in ((ADA, 1), (BEN, 2)):
        act_as(db, person)
        assert db.execute(read, (task_id,)).fetchone() == ({"note": note},)
        assert db.execute("select draft from stellwerk.task_page(%s)", (task_id,)).fetchone() == ({"note": note},)
    db.execute("select stellwerk.save_task_draft(%s, null)", (task_id,))
    assert db.execute(read, (task_id,)).fetchone() == (None,)
    act_as(db, ADA)
    assert db.execute(read, (task_id,)).fetchone() == ({"note": 1},)
    db.execute("update stellwerk.my_task set outcome = 'approve' where id = %s", (task_id,))
    assert (task(db, task_id)["drafts"], task(db, task_id)["result"]) == (None, {"note": 1})
