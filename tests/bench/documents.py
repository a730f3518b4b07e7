"""The workflows and tables that the benchmark works on."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import psycopg

from bench.place import PLUGIN, Place

Connection = psycopg.Connection[Any]

TABLES = """
create schema bench;
create table bench.commit (id bigint generated always as identity primary key, amount integer not null);

-- An application's table in several copies: one without a watch, one for each kind of watch.
create table bench.plain (
  id bigint generated always as identity primary key, customer text not null, amount integer not null,
  status text not null default 'new', created_at timestamptz not null default now());
create table bench.watched (like bench.plain including all);
create table bench.none    (like bench.plain including all);
create table bench.rows    (like bench.plain including all);
create table bench.bulk    (like bench.plain including all);
create table bench.bulk_none (like bench.plain including all);
create table bench.first_sql    (like bench.plain including all);
create table bench.first_worker (like bench.plain including all);
"""

# Five nodes after the trigger; only these are counted. What the expressions ask for is what people write.
SQL_FIVE: dict[str, Any] = {
    "slug": "bench-sql",
    "name": "Five SQL nodes",
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {
            "id": "order",
            "type": "logic.set",
            "config": {
                "values": {"customer": "{{ trigger.payload.customer }}", "amount": "{{ trigger.payload.amount }}"}
            },
        },
        {"id": "large", "type": "logic.if", "config": {"condition": "vars.amount > 100"}},
        {
            "id": "offer",
            "type": "logic.transform",
            "config": {
                "output": {
                    "text": "Hello {{ vars.customer }}, your order is worth {{ vars.amount }}.",
                    "customer": "{{ upper(trigger.payload.customer) }}",
                }
            },
        },
        {"id": "note", "type": "logic.set", "config": {"values": {"text": "{{ steps.offer.output.text }}"}}},
        {
            "id": "result",
            "type": "logic.transform",
            "config": {"output": {"text": "{{ vars.text }}", "large": "{{ steps.large.output.result }}"}},
        },
    ],
    "edges": [
        {"from": "start", "to": "order"},
        {"from": "order", "to": "large"},
        {"from": "large", "port": "true", "to": "offer"},
        {"from": "offer", "to": "note"},
        {"from": "note", "to": "result"},
    ],
}
PAYLOAD = '{"customer": "Ada Lovelace", "amount": 250}'
NODES = 5


def chain(slug: str, trigger: dict[str, Any], count: int) -> dict[str, Any]:
    """A trigger and so many no-op worker nodes, one after the other."""
    nodes = [{"id": f"n{number}", "type": "bench.noop"} for number in range(1, count + 1)]
    nodes[0]["config"] = {"value": "{{ trigger.payload.customer }}"}
    ids = [trigger["id"], *(node["id"] for node in nodes)]
    return {
        "slug": slug,
        "name": slug,
        "nodes": [trigger, *nodes],
        "edges": [{"from": a, "to": b} for a, b in itertools.pairwise(ids)],
    }


# Round and round: for what a late step costs.
SQL_ROUND: dict[str, Any] = {
    "slug": "bench-round",
    "name": "SQL nodes in a circle",
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "count", "type": "logic.set", "config": {"values": {"n": "{{ coalesce(vars.n, 0) + 1 }}"}}, "max_visits": 1_000_000},
        {"id": "enough", "type": "logic.if", "config": {"condition": "steps.count.output.n >= 1000000"}, "max_visits": 1_000_000},
        {"id": "end", "type": "logic.transform", "config": {"output": 1}},
    ],
    "edges": [
        {"from": "start", "to": "count"},
        {"from": "count", "to": "enough"},
        {"from": "enough", "port": "false", "to": "count"},
        {"from": "enough", "port": "true", "to": "end"},
    ],
}  # fmt: skip
WORKER_ROUND: dict[str, Any] = {
    "slug": "bench-worker-round",
    "name": "A worker node in a circle",
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "work", "type": "bench.noop", "max_visits": 1_000_000},
        {"id": "enough", "type": "logic.if", "config": {"condition": "steps.work.output.called_at > 1"}, "max_visits": 1_000_000},
        {"id": "end", "type": "logic.transform", "config": {"output": 1}},
    ],
    "edges": [
        {"from": "start", "to": "work"},
        {"from": "work", "to": "enough"},
        {"from": "enough", "port": "false", "to": "work"},
        {"from": "enough", "port": "true", "to": "end"},
    ],
}  # fmt: skip


def loop(slug: str, body: dict[str, Any], parallel: int) -> dict[str, Any]:
    """A loop over the items of the payload."""
    return {
        "slug": slug,
        "name": slug,
        "nodes": [
            {"id": "start", "type": "trigger.manual"},
            {"id": "each", "type": "logic.loop", "config": {"items": "{{ trigger.payload.items }}", "parallel": parallel}},
            {"id": "body", **body},
            {"id": "end", "type": "logic.transform", "config": {"output": "{{ steps.each.output.count }}"}},
        ],
        "edges": [
            {"from": "start", "to": "each"},
            {"from": "each", "port": "each", "to": "body"},
            {"from": "each", "port": "done", "to": "end"},
        ],
    }  # fmt: skip


SQL_LOOP = loop("bench-loop", {"type": "logic.transform", "config": {"output": "{{ item + 1 }}"}}, 1)
WORKER_LOOP = loop("bench-worker-loop", {"type": "bench.noop", "config": {"value": "{{ item }}"}}, 50)
WORKER_FIVE = chain("bench-worker", {"id": "start", "type": "trigger.manual"}, NODES)
ROW = {"id": "row", "type": "trigger.row"}
ROW_WORKER = chain("bench-row-worker", ROW, 1)
ROW_SQL: dict[str, Any] = {
    "slug": "bench-row-sql",
    "name": "One SQL node per row",
    "nodes": [
        ROW,
        {"id": "seen", "type": "logic.transform", "config": {"output": {"customer": "{{ trigger.row.customer }}"}}},
    ],
    "edges": [{"from": "row", "to": "seen"}],
}


def prepare(where: Place) -> None:
    """Make the tables, publish the workflows, set the watches."""
    if str(PLUGIN) not in sys.path:
        sys.path.insert(0, str(PLUGIN))  # the compiler finds the no-op's type by its entry point as well
    from stellwerk.engine import Engine

    with where.connect() as connection:
        connection.execute(TABLES)
        engine = Engine(connection)
        for document in (SQL_FIVE, WORKER_FIVE, SQL_ROUND, WORKER_ROUND, SQL_LOOP, WORKER_LOOP, ROW_WORKER, ROW_SQL):
            publish(connection, document)
        engine.watch_table("bench.watched", "bench-row-sql")
        engine.watch_table("bench.rows", "bench-row-sql")
        engine.watch_table("bench.none", "bench-row-sql", condition="new.amount < 0")
        engine.watch_table("bench.bulk", "bench-row-sql", bulk=True)
        engine.watch_table("bench.bulk_none", "bench-row-sql", condition="new.amount < 0", bulk=True)
        engine.watch_table("bench.first_sql", "bench-row-sql")
        engine.watch_table("bench.first_worker", "bench-row-worker")


def publish(connection: Connection, document: dict[str, Any]) -> None:
    """Make it the version that runs start with."""
    from stellwerk.definition.compile import compile_workflow
    from stellwerk.engine import Engine

    compiled = compile_workflow(document)
    if not compiled.is_publishable:
        raise RuntimeError(f"{document['slug']}: {compiled.problems}")
    engine = Engine(connection)
    slug, version = engine.save_workflow(
        compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems]
    )
    engine.publish_workflow(slug, version)
