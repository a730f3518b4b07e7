"""What tests of waits for a time in a row of the application share: a table that is followed, a run that waits."""

from __future__ import annotations

import pytest
from database.helpers import START, document, node, start, states, transform

BEFORE = {"before": "P1D", "of": {"table": "appointment", "key": "{{ trigger.payload.id }}", "column": "starts_at"}}


def register(db, table, more=""):
    db.execute(f"grant all on {table} to stellwerk_owner".encode())
    db.execute(f"select stellwerk.register_table('{table}'{more})".encode())


@pytest.fixture
def appointment(db):
    """A registered table with an appointment ten days ahead."""
    db.execute("create table appointment (id int primary key, starts_at timestamptz, note text)")
    db.execute("insert into appointment values (1, now() + interval '10 days'), (2, now() + interval '10 days')")
    register(db, "appointment")


def following(slug="remind", config=BEFORE, *more, edges=(), type_="logic.wait"):
    nodes = [START, node("w", type_, config), transform("e", "reminded"), *more]
    return document(slug, nodes, ["start -> w", "w -> e", *edges])


def due_in(db, run_id):
    """Days until the run's timer, rounded; None without one."""
    row = db.execute(
        "select round(extract(epoch from due_at - now()) / 86400)::int from stellwerk.timer where run_id = %s",
        (run_id,),
    ).fetchone()
    return None if row is None else row[0]


def why(db, run_id):
    return db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]


@pytest.fixture
def waiting_run(db, appointment, make_workflow, run_all):
    slug = make_workflow(following())
    run_id = start(db, slug, {"id": 1})
    run_all(db)
    assert (states(db, run_id)["w"], due_in(db, run_id)) == ("waiting", 9)
    return run_id
