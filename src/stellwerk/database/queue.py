"""pgqueuer's tables: where they lie, and how they get there and grow with its versions.

Its own NOTIFY trigger is dropped after each change: a commit that notifies takes a lock of the whole database, and
the function `stellwerk.ring` decides when that is worth it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

T = TypeVar("T")

SCHEMA = "stellwerk_queue"

# Spelled out one by one: pgqueuer reads each of them from the environment otherwise, even from a variable FUNCTION.
_NAMES: dict[str, Any] = {
    "prefix": "",
    "channel": "ch_pgqueuer",
    "function": "fn_pgqueuer_changed",
    "statistics_table": "pgqueuer_statistics",
    "queue_status_type": "pgqueuer_status",
    "queue_table": "pgqueuer",
    "queue_table_log": "pgqueuer_log",
    "trigger": "tg_pgqueuer_changed",
    "schedules_table": "pgqueuer_schedules",
    "durability": "durable",
}


def pin_environment() -> None:
    """Make pgqueuer use our names in this process; to be called before pgqueuer is imported."""
    os.environ["PGQUEUER_SCHEMA"] = SCHEMA
    os.environ.update({f"PGQUEUER_{name.upper()}": value for name, value in _NAMES.items()})


def checksum() -> str:
    """Changes with each release of pgqueuer, whose tables are then compared; cheap, for every command asks."""
    release = importlib.metadata.version("pgqueuer")
    return hashlib.sha256(repr([release, SCHEMA, _NAMES]).encode()).hexdigest()


def install(connection: psycopg.Connection[Any]) -> None:
    """Make the queue's tables, or bring those of an older release up to date, within the caller's transaction."""
    from pgqueuer.adapters.persistence.queries import Queries

    found = connection.execute("select to_regclass('stellwerk_queue.pgqueuer')").fetchone()
    if found is None or found[0] is None:
        connection.execute(_builder().build_install_query().encode())
        connection.execute(_builder().build_optimize_autovacuum_query().encode())
    else:
        queries = Queries(_Driver(connection), qbe=_builder())  # type: ignore[arg-type]
        for statement in _finish(queries.plan_upgrade()).statements:
            connection.execute(statement.encode())
    connection.execute("drop trigger if exists tg_pgqueuer_changed on stellwerk_queue.pgqueuer")


def _builder() -> Any:
    pin_environment()
    from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment
    from pgqueuer.domain.settings import DBSettings

    return QueryBuilderEnvironment(DBSettings(db_schema=SCHEMA, **_NAMES))


class _Driver:
    """Just enough of pgqueuer's driver to read the catalogs over a connection that does not wait."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    async def fetch(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        cursor = psycopg.RawCursor(self._connection, row_factory=dict_row)
        return cursor.execute(query.encode(), arguments or None).fetchall()


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits; an event loop may be running around us."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("pgqueuer waited for something while it compared its tables")
