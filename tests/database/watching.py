"""Small steps that the tests of row events share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import psycopg
from database.helpers import document, node, transform

ORDERS = """
    create table orders (
      id         bigint generated always as identity primary key,
      customer   text,
      status     text not null default 'new',
      total      numeric,
      weight     double precision,
      pieces     integer,
      urgent     boolean,
      data       json,
      ordered_at timestamptz
    )
"""


def on_row(slug: str = "intake", *trigger_nodes: str, **config: Any) -> dict[str, Any]:
    """A workflow that a row starts and that passes its payload on."""
    names = trigger_nodes or ("row",)
    return document(
        slug,
        [*(node(name, "trigger.row", config) for name in names), transform("done", "{{ trigger.payload }}")],
        [f"{name} -> done" for name in names],
    )


def watch(db: psycopg.Connection[Any], table: str = "orders", workflow: str = "intake", **named: Any) -> int:
    arguments = "".join(f", {name} => %({name})s" for name in named)
    return value(
        db, f"select stellwerk.watch_table(%(table)s, %(workflow)s{arguments})", table=table, workflow=workflow, **named
    )


def value(db: psycopg.Connection[Any], statement: str, **named: Any) -> Any:
    row = db.execute(statement, named or None).fetchone()
    return None if row is None else row[0]


def events(db: psycopg.Connection[Any], columns: str = "operation, new ->> 'id'", where: str = "true") -> list[Any]:
    return db.execute(f"select {columns} from stellwerk.event where {where} order by event_id").fetchall()


def process(db: psycopg.Connection[Any], limit: int = 1000) -> int:
    """Batches unpacked and pending events turned into runs; returns how many events."""
    value(db, "select stellwerk.unpack_event_batches(1, 1000000)")
    done = 0
    while moved := value(db, "select stellwerk.process_events(1, %(limit)s)", limit=limit):
        done += moved
    return done


@contextmanager
def acting_as(db: psycopg.Connection[Any], role: str) -> Any:
    db.execute(f"set role {role}")
    try:
        yield db
    finally:
        db.execute("reset role")
