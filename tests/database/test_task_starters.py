"""Nobody approves what he asked for himself, by whatever way he asked."""

from __future__ import annotations

import psycopg
import pytest
from database.coming_in import SEALED, deliver
from database.helpers import START, document, node, start
from database.people import ADA, BEN, CAT, act_as, complete, refused, users
from database.watching import ORDERS, watch

ASK = node("ask", "task.user", {"title": "Please decide", "role": "staff", "outcomes": ["yes"], "allow_self": False})


def approving(slug: str, *before: dict, edges: tuple[str, ...] = ()) -> dict:
    """A workflow that comes to a task which its starter may not decide."""
    nodes = [*(before or (START,)), ASK]
    return document(slug, nodes, [*edges, f"{nodes[-2]['id']} -> ask"])


@pytest.fixture
def clerk(dsn, db):
    """A connection of a login that is Ada, and may write orders."""
    users(db)
    name = "clerk_" + psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    db.execute(f"create role {name} login; grant stellwerk_dba to {name}")
    db.execute(ORDERS)
    db.execute(f"grant all on orders to {name}")
    db.execute("select stellwerk.change_user(%s, login => %s)", (ADA, name))
    try:
        with psycopg.connect(dsn, user=name, autocommit=True) as connection:
            yield connection
    finally:
        db.execute(f"drop owned by {name}; drop role {name}")


def only_task(db, run_all) -> int:
    run_all(db)
    ((task_id,),) = db.execute("select task_id from stellwerk.user_task").fetchall()
    return task_id


def may(db, run_all, *people: str) -> None:
    """Of the three, exactly these people may decide the only task; the last one does."""
    task_id = only_task(db, run_all)
    for who in {ADA, BEN, CAT} - set(people):
        act_as(db, who)
        with refused("SW004", f"{who} started run"):
            complete(db, task_id, "yes")
    act_as(db, people[-1])
    assert complete(db, task_id, "yes") == "completed"
    act_as(db, None)


@pytest.mark.parametrize("bulk", [False, True])
def test_who_changes_the_row_does_not_approve_the_run_that_it_starts(db, clerk, make_workflow, run_all, bulk):
    make_workflow(approving("orders", node("row", "trigger.row")))
    watch(db, workflow="orders", bulk=bulk)
    clerk.execute("insert into orders (customer) values ('Rossi')")
    may(db, run_all, CAT, BEN)
    (by,) = db.execute("select created_by from stellwerk.run").fetchone()
    assert by == "db:" + clerk.info.user


@pytest.mark.parametrize("bulk", [False, True])
def test_an_application_says_for_whom_it_changes_a_row(db, clerk, make_workflow, run_all, bulk):
    db.execute("select stellwerk.change_user(%s, login => '')", (ADA,))
    make_workflow(approving("orders", node("row", "trigger.row")))
    watch(db, workflow="orders", bulk=bulk)
    clerk.execute(f"set stellwerk.actor = '{BEN}'")
    clerk.execute("insert into orders (customer) values ('Rossi')")
    may(db, run_all, CAT, ADA)
    (by,) = db.execute("select created_by from stellwerk.run").fetchone()
    assert by == f"db:{clerk.info.user} for {BEN}"


def test_nobody_gets_round_it_by_naming_somebody_else(db, clerk, make_workflow, run_all):
    """A login that is a user stays that user, whatever name its session claims; and what it claims is refused too."""
    make_workflow(approving("orders", node("row", "trigger.row")))
    watch(db, workflow="orders")
    clerk.execute("set stellwerk.actor = 'ben@example.org'")
    clerk.execute("insert into orders (customer) values ('Rossi')")
    may(db, run_all, CAT)


def test_nobody_gets_round_it_by_naming_another_cause(db, clerk, make_workflow, run_all):
    make_workflow(document("harmless", [START], []))
    make_workflow(approving("orders", node("row", "trigger.row")))
    watch(db, workflow="orders")
    other = start(db, "harmless")
    clerk.execute(f"set stellwerk.cause = '{other}/0'")
    clerk.execute("insert into orders (customer) values ('Rossi')")
    may(db, run_all, CAT, BEN)


def test_who_started_the_run_whose_step_changed_the_row_does_not_either(db, clerk, make_workflow, run_all):
    db.execute("grant all on orders to stellwerk_owner; select stellwerk.register_table('orders', 'orders')")
    make_workflow(
        document(
            "writes",
            [START, node("put", "record.create", {"table": "orders", "values": {"customer": "Rossi"}})],
            ["start -> put"],
        )
    )
    make_workflow(approving("orders", node("row", "trigger.row")))
    watch(db, workflow="orders")
    act_as(db, BEN)
    start(db, "writes")
    act_as(db, None)
    may(db, run_all, CAT, ADA)


def test_who_emits_the_event_does_not_approve_it(db, clerk, make_workflow, run_all):
    make_workflow(approving("told", node("happened", "trigger.event", {"event": "e"})))
    clerk.execute("select stellwerk.emit_event('e')")
    may(db, run_all, CAT, BEN)


def test_who_started_a_run_through_an_application_does_not_approve_it(db, clerk, make_workflow, run_all):
    db.execute("select stellwerk.change_user(%s, login => '')", (ADA,))
    make_workflow(approving("plain"))
    clerk.execute(f"set stellwerk.actor = '{CAT}'")
    clerk.execute("select stellwerk.start_run('plain')")
    may(db, run_all, ADA, BEN)


def test_what_comes_from_outside_was_asked_for_by_nobody_here(db, engine, make_workflow, run_all):
    users(db)
    engine.set_webhook_source("shop", "token", [SEALED])
    make_workflow(approving("hooked", node("came", "trigger.webhook", {"source": "shop"})))
    deliver(db, "shop", {"n": 1})
    may(db, run_all, ADA, BEN, CAT)
    assert db.execute("select created_by from stellwerk.run").fetchone() == ("hook:shop",)


def test_a_run_that_is_called_was_asked_for_by_whoever_asked_for_its_caller(db, make_workflow, run_all):
    users(db)
    make_workflow(approving("child"))
    make_workflow(document("middle", [START, node("c", "logic.call", {"workflow": "child"})], ["start -> c"]))
    make_workflow(document("top", [START, node("c", "logic.call", {"workflow": "middle"})], ["start -> c"]))
    act_as(db, BEN)
    start(db, "top")
    act_as(db, None)
    may(db, run_all, ADA, CAT)
    assert db.execute("select distinct created_by from stellwerk.run").fetchall() == [(BEN,)]
