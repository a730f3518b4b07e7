"""Small steps that the tests of the engine's SQL share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]


def document(slug: str, nodes: list[dict[str, Any]], edges: list[Any], **more: Any) -> dict[str, Any]:
    """A workflow document; edges may be written "a -> b", or "a.port -> b"."""
    parsed = []
    for edge in edges:
        if isinstance(edge, str):
            source, target = (part.strip() for part in edge.split("->"))
            node, _, port = source.partition(".")
            edge = {"from": node, "to": target, **({"port": port} if port else {})}
        parsed.append(edge)
    return {"slug": slug, "name": slug, "nodes": nodes, "edges": parsed, **more}


def node(node_id: str, type_: str, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "type": type_, **({"config": config} if config else {}), **more}


START = node("start", "trigger.manual")


def transform(node_id: str, output: Any, **more: Any) -> dict[str, Any]:
    return node(node_id, "logic.transform", {"output": output}, **more)


def call(node_id: str, **more: Any) -> dict[str, Any]:
    """A worker node; the tests play the worker."""
    return node(node_id, "action.fonio_call", {"phone": "1"}, **more)


def start(db: Connection, slug: str, payload: Any = None, **named: Any) -> int:
    row = db.execute(
        "select stellwerk.start_run(%s, %s, idempotency_key => %s, run_at => coalesce(%s, now()), priority => %s)",
        (
            slug,
            Jsonb({} if payload is None else payload),
            named.get("key"),
            named.get("run_at"),
            named.get("priority", 0),
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def unpumped(db: Connection, make_workflow: Callable[[dict[str, Any]], str]) -> int:
    """A run whose step in the database, count, is ready for a pump that does not come."""
    db.execute("create table public.things (id int primary key)")
    db.execute("grant select, insert, update, delete on public.things to stellwerk_owner")
    db.execute("select stellwerk.register_table('public.things')")
    slug = make_workflow(
        document("alone", [START, node("count", "record.query", {"table": "things"})], ["start -> count"])
    )
    run_id = start(db, slug)
    db.execute("select stellwerk.advance_runs(1, array[%s::bigint], p_fresh => true)", (run_id,))
    return run_id


def run(db: Connection, run_id: int) -> dict[str, Any]:
    """A row of run_overview as a dict."""
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute("select * from stellwerk.run_overview where run_id = %s", (run_id,)).fetchone()
    assert row is not None
    return row


def states(db: Connection, run_id: int) -> dict[str, str]:
    """The state of each node's last visit."""
    rows = db.execute(
        "select node_id, state from stellwerk.step_timeline where run_id = %s order by step_id", (run_id,)
    ).fetchall()
    return dict(rows)


def steps(db: Connection, run_id: int) -> list[dict[str, Any]]:
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(
            "select * from stellwerk.step_timeline where run_id = %s order by step_id", (run_id,)
        ).fetchall()


def refused(db: Connection, sqlstate: str, query: str, *arguments: Any) -> psycopg.errors.Diagnostic:
    """What a statement is told that is refused with this SQLSTATE; the engine's own refusals name the way out."""
    with pytest.raises(psycopg.Error) as told:
        db.execute(query, arguments)  # type: ignore[arg-type]
    assert told.value.sqlstate == sqlstate, told.value
    assert told.value.diag.message_hint or not sqlstate.startswith("SW")
    return told.value.diag


def view(db: Connection, query: str, *parameters: Any) -> list[dict[str, Any]]:
    """The rows of a query as dicts."""
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(query, parameters).fetchall()


class Worker:
    """Plays a worker process on a connection of its own, one call at a time."""

    def __init__(self, dsn: str, types: tuple[str, ...] = ("action.fonio_call",)) -> None:
        self.types = types
        self.connection = psycopg.connect(dsn, autocommit=True)
        row = self.connection.execute(
            "select stellwerk.register_worker('test', 'here', 1, %s)", (list(types),)
        ).fetchone()
        assert row is not None
        self.worker_id: int = row[0]
        self.connection.execute("select stellwerk.hold_presence(%s)", (self.worker_id,))

    def queued(self) -> list[tuple[int, int]]:
        return self.connection.execute(
            "select run_id, step_id from stellwerk.step where state = 'queued' and runs_in = 'worker' order by step_id"
        ).fetchall()

    def begin(self, refs: list[tuple[int, int]] | None = None) -> list[dict[str, Any]]:
        refs = self.queued() if refs is None else refs
        with self.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(
                "select * from stellwerk.begin_steps(%s, 1, %s::bigint[], %s::bigint[])",
                (self.worker_id, [r for r, _ in refs], [s for _, s in refs]),
            ).fetchall()

    def end(
        self, *taken: dict[str, Any], room: int = 0, types: tuple[str, ...] | None = None, **result: Any
    ) -> dict[str, Any]:
        """Hand in `output=…` or `error=…` for steps that begin() answered; with room, take as many of what follows."""
        result = result or {"output": {}}
        completions = [
            {"run": str(t["run_id"]), "step": str(t["step_id"]), "attempt": t["attempt"], **result} for t in taken
        ]
        row = self.connection.execute(
            "select stellwerk.complete_steps(%s, 1, %s, %s, %s)",
            (self.worker_id, Jsonb(completions), list(self.types if types is None else types), room),
        ).fetchone()
        assert row is not None
        answer: dict[str, Any] = row[0]
        return answer

    def vanish(self) -> None:
        """Die without a word, as kill -9 does: the connection is gone, the row stays."""
        self.connection.close()


FAILURE = {"class": "test", "message": "it did not work", "retryable": True}
PERMANENT = {"class": "test", "message": "it will never work", "retryable": False}
