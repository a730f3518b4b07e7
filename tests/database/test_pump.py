"""What a call of pump hands out to the worker that makes it, and what it leaves behind in the tables."""

from __future__ import annotations

from functools import partial
from typing import Any

import psycopg
import pytest
from database.helpers import START, Worker, call, document, node, run, start, states, transform
from database.watching import events, on_row, value, watch


def pump_and_begin(worker: Worker, room: int = 10, types: tuple[str, ...] = ("action.fonio_call",)) -> dict[str, Any]:
    row = worker.connection.execute(
        "select stellwerk.pump_and_begin(500, %s, %s, %s)", (worker.worker_id, list(types), room)
    ).fetchone()
    assert row is not None
    answer: dict[str, Any] = row[0]
    return answer


def jobs(db: psycopg.Connection[Any]) -> int:
    return int(value(db, "select count(*) from stellwerk_queue.pgqueuer"))


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
    assert jobs(db) == 0
    assert worker.begin([(run_id, step_id)]) == []
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


# -- steps that follow results -------------------------------------------------------------------------------------------


def chain(make_workflow, phone: str = "1") -> str:
    return str(
        make_workflow(
            document(
                "calls",
                [START, call("first"), node("second", "action.fonio_call", {"phone": phone}), transform("done", 1)],
                ["start -> first", "first -> second", "second -> done"],
            )
        )
    )


def test_who_hands_in_a_result_may_take_what_follows_without_the_queue(db, make_workflow, worker):
    run_id = start(db, chain(make_workflow))
    first = pump_and_begin(worker)
    answer = worker.end(*begun(first), room=1)
    assert (answer["accepted"], answer["ready"]) == (1, [])
    assert [(entry[1], entry[4]) for entry in answer["begun"]] == [(run_id, "second")]
    assert states(db, run_id) == {"start": "completed", "first": "completed", "second": "running"}
    assert db.execute("select worker_id, attempt from stellwerk.step where node_id = 'second'").fetchone() == (
        worker.worker_id,
        1,
    )
    assert jobs(db) == 0
    assert worker.end(*begun(answer), room=1)["begun"] == []
    assert run(db, run_id)["state"] == "completed"


def test_settings_are_computed_for_a_step_that_is_taken_at_once(db, make_workflow, worker):
    run_id = start(db, chain(make_workflow, "{{ steps.first.output.number }}"))
    answer = worker.end(*begun(pump_and_begin(worker)), room=5, output={"number": "+39 1"})
    (entry,) = answer["begun"]
    assert entry[7]["phone"] == "+39 1"
    assert db.execute(
        "select input from stellwerk.step where run_id = %s and node_id = 'second'", (run_id,)
    ).fetchone() == (entry[7],)


def test_without_room_for_it_what_follows_goes_through_the_queue(db, make_workflow, worker):
    slug = chain(make_workflow)
    runs = [start(db, slug) for _ in range(3)]
    taken = begun(pump_and_begin(worker))
    answer = worker.end(*taken, room=2)
    assert len(answer["begun"]) == 2
    assert len(answer["ready"]) == 1
    assert sorted([entry[1] for entry in answer["begun"]] + [entry[2] for entry in answer["ready"]]) == runs
    assert jobs(db) == 1
    assert worker.end(*begun(answer), room=5, types=("bench.noop",))["begun"] == []
    assert len(worker.begin()) == 1


def test_what_may_raise_is_begun_from_the_queue_where_it_fails_alone(db, make_workflow, worker):
    run_id = start(db, chain(make_workflow, "{{ 10 % steps.first.output.n }}"))
    answer = worker.end(*begun(pump_and_begin(worker)), room=5, output={"n": 0})
    assert answer["begun"] == []
    assert worker.begin([(entry[2], entry[3]) for entry in answer["ready"]]) == []
    assert states(db, run_id)["second"] == "failed"


def test_a_paused_run_goes_no_further_when_its_result_comes(db, make_workflow, worker):
    run_id = start(db, chain(make_workflow))
    taken = begun(pump_and_begin(worker))
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    answer = worker.end(*taken, room=5)
    assert (answer["accepted"], answer["begun"]) == (1, [])
    assert worker.begin([(entry[2], entry[3]) for entry in answer["ready"]]) == []
    assert run(db, run_id)["state"] == "paused"
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    assert len(worker.begin()) == 1


def test_steps_taken_at_once_by_a_worker_that_vanished_are_taken_over(db, make_workflow, worker, dsn, wait_until):
    run_id = start(db, chain(make_workflow))
    answer = worker.end(*begun(pump_and_begin(worker)), room=5)
    assert len(answer["begun"]) == 1
    worker.vanish()
    other = Worker(dsn)
    wait_until(lambda: db.execute("select stellwerk.tick()") and other.queued())
    (again,) = other.begin()
    assert (again["node_id"], again["attempt"]) == ("second", 2)
    assert other.end(again)["accepted"] == 1
    assert run(db, run_id)["state"] == "completed"


def test_a_join_of_two_branches_is_taken_at_once(db, make_workflow, worker):
    slug = make_workflow(
        document(
            "join",
            [
                START,
                call("a"),
                call("b"),
                node("both", "action.fonio_call", {"phone": "{{ steps.a.output.x }}-{{ steps.b.output.x }}"}),
            ],
            ["start -> a", "start -> b", "a -> both", "b -> both"],
        )
    )
    run_id = start(db, slug)
    a, b = sorted(pump_and_begin(worker)["begun"], key=lambda entry: entry[4])
    keys = ("tenant", "run_id", "step_id", "attempt")
    assert worker.end(dict(zip(keys, a, strict=False)), room=5, output={"x": "1"})["begun"] == []
    assert states(db, run_id)["both"] == "joining"
    answer = worker.end(dict(zip(keys, b, strict=False)), room=5, output={"x": "2"})
    ((_, _, step_id, attempt, name, _, _, config, *_),) = answer["begun"]
    assert (name, attempt, config["phone"]) == ("both", 1, "1-2")
    assert value(db, f"select cardinality(arrived) from stellwerk.step where step_id = {step_id}") == 2


# -- what it leaves behind -----------------------------------------------------------------------------------------------


def test_what_is_done_is_not_read_again(db, make_workflow, worker, wait_until):
    """A row that is locked outside of the subtransaction that writes it keeps its dead entries in every index."""
    make_workflow(
        document(
            "intake",
            [{"id": "row", "type": "trigger.row"}, call("ring"), transform("done", 1)],
            ["row -> ring", "ring -> done"],
        )
    )
    db.execute("create table orders (id int primary key)")
    db.execute("alter table stellwerk.event_inbox set (autovacuum_enabled = off)")
    db.execute("alter table stellwerk.run_default set (autovacuum_enabled = off)")
    db.execute("alter table stellwerk.step_default set (autovacuum_enabled = off)")
    watch(db)
    rows = 120
    for number in range(rows):
        db.execute("insert into orders values (%s)", (number,))
        worker.end(*begun(pump_and_begin(worker)))
    assert value(db, "select count(*) from stellwerk.run where state = 'completed'") == rows
    assert entries_read(db, "select from stellwerk.event_log where tenant_id = 1 and event_id > 0") >= rows
    for look in (
        "select from stellwerk.event_inbox where tenant_id = 1",
        "select from stellwerk.run where tenant_id = 1 and state = 'pending' and not held",
        "select from stellwerk.step where tenant_id = 1 and state = 'running'",
    ):
        # Who passes marks those that are dead; nobody can while another session, such as autovacuum's, might still see them.
        wait_until(partial(few_entries_read, db, look), what=f"few entries read by {look!r}")


def few_entries_read(db: psycopg.Connection[Any], query: str) -> bool:
    return entries_read(db, query) < 10


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
