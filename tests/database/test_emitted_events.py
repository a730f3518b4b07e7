"""Events that the application says itself."""

from __future__ import annotations

import psycopg
import pytest
from database.coming_in import SEALED, deliver, last, runs, starting
from database.helpers import document, node


def test_an_emitted_event_starts_workflows_when_its_transaction_commits(db, dsn, engine, make_workflow, run_all):
    make_workflow(starting("archive", "trigger.event", {"event": "document.completed"}))
    make_workflow(starting("other", "trigger.event", {"event": "document.deleted"}))
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.emit_event('document.completed', '{\"id\": 1}')")
        run_all(db)
        assert runs(db) == []
        application.rollback()
        application.execute("select stellwerk.emit_event('document.completed', '{\"id\": 2}')")
    run_all(db)
    assert runs(db) == [("archive", "event", {"id": 2})]
    engine.emit_event("nobody.cares")
    run_all(db)
    assert last(db)["reason"] == "no published workflow has a trigger.event for nobody.cares"


def test_a_second_event_with_the_same_key_is_the_first(db, engine, make_workflow, run_all):
    make_workflow(starting("archive", "trigger.event", {"event": "e"}))
    first = engine.emit_event("e", {"n": 1}, "k")
    assert engine.emit_event("e", {"n": 2}, "k") == first
    assert engine.emit_event("e", {"n": 3}) != first
    run_all(db)
    assert engine.emit_event("e", {"n": 4}, "k") == first
    run_all(db)
    assert [payload["n"] for _, _, payload in runs(db)] == [1, 3]


@pytest.mark.parametrize("arguments", [("",), ("n" * 201,), ("e", {}, ""), ("e", {}, "k" * 501)])
def test_an_event_needs_a_name_and_a_short_key(engine, arguments):
    from stellwerk.errors import InvalidPayload

    with pytest.raises(InvalidPayload):
        engine.emit_event(*arguments)


def test_a_webhook_can_emit_an_event(db, engine, make_workflow, run_all):
    engine.set_webhook_source("sign", "standard", [SEALED], {"emits": {"envelope.done": "document.completed"}})
    make_workflow(starting("archive", "trigger.event", {"event": "document.completed"}))
    deliver(db, "sign", {"type": "envelope.done", "id": 7})
    run_all(db)
    assert runs(db) == [("archive", "event", {"type": "envelope.done", "id": 7})]


def test_a_workflow_that_emits_the_event_that_starts_it_ends(db, engine, make_workflow, run_all):
    db.execute("""
        create function public.emit(input jsonb, context jsonb) returns jsonb language sql as
        $$ select to_jsonb(stellwerk.emit_event('again', '{}')) $$""")
    engine.register_function("emit", "public.emit(jsonb,jsonb)")
    nodes = [node("begin", "trigger.event", {"event": "again"}), node("call", "sql.function", {"function": "emit"})]
    make_workflow(document("circle", nodes, ["begin -> call"]))
    engine.emit_event("again")
    run_all(db)
    assert len(runs(db)) == 9  # depth 0 to 8
    assert last(db)["reason"] == "suppressed: the chain of runs that cause each other is longer than 8"
    assert db.execute("select max(depth) from stellwerk.run").fetchone() == (8,)
