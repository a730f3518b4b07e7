"""Two who answer at once, and people who hold a task while its run goes on."""

from __future__ import annotations

import threading

import psycopg
import pytest
from database.helpers import node, run, start, states
from database.people import ADA, BEN, act_as, ask, complete, deciding, refused, task, users


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


def test_who_comes_second_waits_for_the_first_and_is_told_who_it_was(dsn, db, make_workflow, run_all, wait_until):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("wait", {"role": "staff"})), None, run_all)
    told: list[str | None] = []

    def come_second():
        with psycopg.connect(dsn, autocommit=True) as second:
            act_as(second, BEN)
            with refused("SW003") as error:
                complete(second, task_id, "reject")
            told.append(error.value.diag.message_primary)

    with psycopg.connect(dsn) as first:
        act_as(first, ADA)
        complete(first, task_id, "approve")
        person = threading.Thread(target=come_second)
        person.start()
        wait_until(
            lambda: db.execute(
                "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            ).fetchone(),
            what="the second to wait",
        )
        assert told == []
        first.commit()
    person.join(30)
    assert told == [f"task {task_id} is completed already: {ADA} decided approve"]


# -- the engine waits for nobody's open transaction --------------------------------------------------------------------


@pytest.fixture
def held(dsn, db, make_workflow, run_all):
    """A task whose row a clerk's open transaction holds: run, task and the clerk's connection."""
    users(db)
    slug = make_workflow(
        deciding(
            "held",
            {"role": "staff", "due": "P2D"},
            node("w", "logic.wait", {"event": "go", "correlation": "on"}),
            node("s", "logic.stop", {"result": "stopped"}),
            edges=("start -> w", "w -> s"),
        )
    )
    run_id, task_id = ask(db, slug, None, run_all)
    db.execute("set statement_timeout = '5 s'")  # whoever waits for the clerk fails here
    with psycopg.connect(dsn) as clerk:
        act_as(clerk, ADA)
        clerk.execute("select stellwerk.claim_task(%s)", (task_id,))
        yield run_id, task_id, clerk


ENDING = {
    "cancel": "select stellwerk.cancel_run(%(run)s)",
    "cancel asked of the pump": "insert into stellwerk.run_message (tenant_id, run_id, kind) values (1, %(run)s, 'cancel')",
    "another branch stops the run": "select stellwerk.signal('go', 'on')",
    "skip": "select stellwerk.skip_step(%(run)s, (select step_id from stellwerk.user_task), '{}', 'approve')",
}


@pytest.mark.parametrize("way", ENDING)
def test_a_run_ends_while_a_clerk_holds_its_task(db, run_all, held, way):
    run_id, task_id, clerk = held
    db.execute(ENDING[way], {"run": run_id})
    run_all(db)
    assert states(db, run_id)["ask"] in ("cancelled", "skipped")
    db.execute("select stellwerk.tick()")
    assert task(db, task_id)["state"] == "open"  # the engine has not waited for the clerk's claim
    clerk.commit()
    assert clerk.execute("select count(*) from stellwerk.my_task").fetchone() == (0,)
    with refused("SW003", f"task {task_id} is cancelled"):
        complete(clerk, task_id, "approve")
    clerk.rollback()
    db.execute("select stellwerk.tick()")
    row = task(db, task_id)
    assert (row["state"], row["reason"]) == ("cancelled", "the run no longer waits for it")
    assert db.execute("select count(*) from stellwerk.user_task_change").fetchone() == (0,)


def test_a_decision_that_meets_the_end_of_its_run_stands_and_moves_nothing(db, run_all, held):
    run_id, task_id, clerk = held
    complete(clerk, task_id, "approve")
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    clerk.commit()
    run_all(db)
    db.execute("select stellwerk.tick()")
    assert (run(db, run_id)["state"], task(db, task_id)["state"]) == ("cancelled", "completed")
    assert db.execute("select count(*) from stellwerk.run_message").fetchone() == (0,)
    assert db.execute("select count(*) from stellwerk.user_task_change").fetchone() == (0,)


def test_a_step_that_is_retried_asks_anew_though_a_clerk_holds_the_task_before(db, run_all, held):
    run_id, task_id, clerk = held
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    run_all(db)
    clerk.commit()
    db.execute("select stellwerk.tick()")
    tasks = db.execute("select task_id, state from stellwerk.user_task order by task_id").fetchall()
    assert [state for _, state in tasks] == ["cancelled", "open"]
    assert clerk.execute("select id from stellwerk.my_task").fetchall() == [(tasks[1][0],)]
    complete(db, tasks[1][0], "approve")
    run_all(db)
    assert "yes" in states(db, run_id)
    assert task(db, task_id)["state"] == "cancelled"


def test_a_decision_about_the_task_before_is_not_one_about_the_task_of_the_retry(db, run_all, held):
    run_id, task_id, clerk = held
    complete(clerk, task_id, "approve")
    db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    run_all(db)
    clerk.commit()
    run_all(db)
    tasks = db.execute("select task_id, state from stellwerk.user_task order by task_id").fetchall()
    assert [state for _, state in tasks] == ["completed", "open"]
    assert states(db, run_id)["ask"] == "waiting"
    complete(db, tasks[1][0], "reject")
    run_all(db)
    assert "no" in states(db, run_id)


def test_a_run_is_resumed_while_a_clerk_holds_its_task(db, held):
    run_id, task_id, clerk = held
    due = task(db, task_id)["due_at"]
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    db.execute("update stellwerk.run set paused_at = paused_at - interval '3 days' where run_id = %s", (run_id,))
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    db.execute("select stellwerk.tick()")
    assert task(db, task_id)["due_at"] == due
    clerk.commit()
    db.execute("select stellwerk.tick()")
    assert 3 <= (task(db, task_id)["due_at"] - due).total_seconds() / 86400 < 3.01
    assert task(db, task_id)["claimed_by"] == ADA


def test_other_branches_of_the_run_go_on_while_a_clerk_decides(db, run_all, held):
    run_id, task_id, clerk = held
    complete(clerk, task_id, "approve")
    db.execute("select stellwerk.signal('go', 'on')")
    run_all(db)
    assert run(db, run_id)["output"] == "stopped"


def test_a_comment_in_an_open_transaction_holds_nobody_up(dsn, db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("talk", {"role": "staff"})), None, run_all)
    db.execute("set statement_timeout = '5 s'")
    with psycopg.connect(dsn) as writer:
        act_as(writer, ADA)
        writer.execute("select stellwerk.comment_task(%s, 'I am thinking')", (task_id,))
        act_as(db, BEN)
        assert complete(db, task_id, "approve") == "completed"
