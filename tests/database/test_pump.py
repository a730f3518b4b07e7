"""What a call of pump hands out to the worker that makes it, and what it leaves behind in the tables."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database.helpers import START, Worker, call, document, run, start, states, transform
from database.watching import events, on_row, value, watch


def pump_and_begin(worker: Worker, room: int = 10, types: tuple[str, ...] = ("action.fonio_call",)) -> dict[str, Any]:
    row = worker.connection.execute(
        "select stellwerk.pump_and_begin(500, %s, %s, %s)", (worker.worker_id, list(types), room)
    ).fetchone()
    assert row is not None
    answer: dict[str, Any] = row[0]
    return answer


def begun(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"run_id": run_id, "step_id": step, "attempt": attempt} for _, run_id, step, attempt, *_ in answer["begun"]]


# -- steps that a pump begins --------------------------------------------------------------------------------------------


def test_a_pump_begins_what_it_makes_ready_as_begin_steps_would(db, make_workflow, worker):
    slug = make_workflow(
        document(
            "calls", [START, call("ring", timeout="PT20S"), transform("done", 1)], ["start -> ring", "ring -> done"]
        )
    )
    run_id = start(db, slug)
    answer = pump_and_begin(worker)
    (step_id,) = db.execute("select step_id from stellwerk.step where node_id = 'ring'").fetchone()
    (settings,) = db.execute("select config from stellwerk.plan_node where node_id = 'ring'").fetchone()
    described = ["ring", "action.fonio_call", 1, settings, 20, f"{run_id}:{step_id}:1", 0, "calls", None, "default"]
    assert answer["begun"] == [[1, run_id, step_id, 1, *described]]
    assert answer["ready"] == []
    assert states(db, run_id)["ring"] == "running"
    assert worker.begin([(run_id, step_id)]) == []  # what its job in the queue finds
    assert worker.end(*begun(answer))["accepted"] == 1
    assert run(db, run_id)["state"] == "completed"


def test_a_pump_begins_no_more_than_there_is_room_for_and_names_the_others(db, make_workflow, worker):
    slug = make_workflow(document("calls", [START, call("ring")], ["start -> ring"]))
    runs = [start(db, slug) for _ in range(4)]
    answer = pump_and_begin(worker, room=3)
    assert len(answer["begun"]) == 3
    assert len(answer["ready"]) == 1
    assert sorted([entry[1] for entry in answer["begun"]] + [entry[2] for entry in answer["ready"]]) == runs
    assert len(worker.begin([(entry[2], entry[3]) for entry in answer["ready"]])) == 1


@pytest.mark.parametrize("given", [{"room": 0}, {"types": ("bench.noop",)}, {"types": ()}])
def test_a_pump_leaves_to_others_what_its_worker_cannot_take(db, make_workflow, worker, given):
    start(db, make_workflow(document("calls", [START, call("ring")], ["start -> ring"])))
    answer = pump_and_begin(worker, **given)
    assert answer["begun"] == []
    assert [entry[0] for entry in answer["ready"]] == ["action.fonio_call"]
    assert len(worker.begin()) == 1


def test_a_step_whose_beginning_raises_undoes_nothing_of_the_pump(db, make_workflow, worker):
    slug = make_workflow(document("calls", [START, call("ring")], ["start -> ring"]))
    run_id = start(db, slug)
    db.execute("alter table stellwerk.step add constraint no_steps_today check (state <> 'running') not valid")
    answer = pump_and_begin(worker)
    assert answer["begun"] == []
    assert [entry[2] for entry in answer["ready"]] == [run_id]
    assert run(db, run_id)["state"] == "running"
    db.execute("alter table stellwerk.step drop constraint no_steps_today")
    assert len(worker.begin()) == 1


# -- what it leaves behind -----------------------------------------------------------------------------------------------


def test_what_is_done_is_not_read_again(db, make_workflow, worker):
    """A row that is locked outside of the subtransaction that writes it keeps its dead entries in every index."""
    make_workflow(
        document(
            "intake",
            [{"id": "row", "type": "trigger.row"}, call("ring"), transform("done", 1)],
            ["row -> ring", "ring -> done"],
        )
    )
    db.execute("create table orders (id int primary key)")
    db.execute("alter table stellwerk.event_default set (autovacuum_enabled = off)")
    db.execute("alter table stellwerk.run_default set (autovacuum_enabled = off)")
    db.execute("alter table stellwerk.step_default set (autovacuum_enabled = off)")
    watch(db)
    rows = 120
    for number in range(rows):
        db.execute("insert into orders values (%s)", (number,))
        worker.end(*begun(pump_and_begin(worker)))
    assert value(db, "select count(*) from stellwerk.run where state = 'completed'") == rows
    assert entries_read(db, "select from stellwerk.event where tenant_id = 1 and event_id > 0") >= rows
    for look in (
        "select from stellwerk.event where tenant_id = 1 and state = 'pending'",
        "select from stellwerk.run where tenant_id = 1 and state = 'pending' and not held",
        "select from stellwerk.step where tenant_id = 1 and state = 'running'",
    ):
        entries_read(db, look)  # the first one to pass marks those that are dead
        assert entries_read(db, look) < 10, look


def entries_read(db: psycopg.Connection[Any], query: str) -> int:
    """How many entries a query reads in the indexes of the engine."""
    with db.transaction():
        db.execute("set local enable_seqscan = off")
        db.execute("set local enable_bitmapscan = off")
        before = entries_so_far(db)
        db.execute(query)
        return entries_so_far(db) - before


def entries_so_far(db: psycopg.Connection[Any]) -> int:
    return int(
        value(
            db,
            "select sum(pg_stat_get_xact_tuples_returned(i.indexrelid)) from pg_index i"
            " join pg_class c on c.oid = i.indrelid where c.relnamespace = 'stellwerk'::regnamespace",
        )
    )


def test_an_event_that_cannot_be_read_stops_no_other_of_its_batch(db, make_workflow, run_all):
    make_workflow(on_row())
    db.execute("create table orders (id int primary key, data json)")
    watch(db)
    db.execute(
        r"""insert into orders select i, case when i = 3 then '"\u0000"' else '"fine"' end::json from generate_series(1, 5) i"""
    )
    run_all(db)
    assert [state for (state,) in events(db, "state")] == ["processed", "processed", "failed", "processed", "processed"]
    assert value(db, "select count(*) from stellwerk.run where state = 'completed'") == 4
