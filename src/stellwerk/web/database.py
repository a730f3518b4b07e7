"""The application's connections: a request's statements run in a transaction that belongs to one tenant and actor."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.abc import Buffer
from psycopg.types.datetime import TimestamptzLoader
from psycopg_pool import ConnectionPool, PoolTimeout

from stellwerk.engine import Engine
from stellwerk.errors import DatabaseUnavailable, from_database
from stellwerk.web.access import Entrance

log = logging.getLogger(__name__)

ROLE = "stellwerk_web"
SIZE = 16
WAIT_SECONDS = 5.0
STATEMENT_SECONDS = 30
# A day from Python's own ends, so that they exist in every time zone.
FIRST = datetime.datetime(1, 1, 2, tzinfo=datetime.UTC)
LAST = datetime.datetime(9999, 12, 30, tzinfo=datetime.UTC)


class AnyTime(TimestamptzLoader):
    """Times that Python has no number for, which people may have written, are shown as the last or first it has: one of
    them must not keep a whole list from being shown."""

    def load(self, data: Buffer) -> datetime.datetime:
        """The time, or the nearest there is."""
        try:
            return super().load(data)
        except psycopg.DataError:
            text = bytes(data)
            return FIRST if text.endswith(b"BC") or text == b"-infinity" else LAST


class Database:
    """A pool of connections that act as the web role."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._pool: ConnectionPool[psycopg.Connection[Any]] = ConnectionPool(
            dsn,
            min_size=1,
            max_size=SIZE,
            timeout=WAIT_SECONDS,
            open=False,
            kwargs={"application_name": "stellwerk-web"},
            configure=act_as_web,
            check=ConnectionPool.check_connection,
        )

    @contextmanager
    def opened(self) -> Iterator[None]:
        """While the application runs; a database that is away comes back by itself."""
        self._pool.open(wait=False)
        try:
            yield
        finally:
            self._pool.close(timeout=WAIT_SECONDS)

    @contextmanager
    def transaction(self, entrance: Entrance | None = None, traceparent: str | None = None) -> Iterator[Engine]:
        """The engine in a transaction that is committed at the end, for whoever has come in or, without, for nobody;
        what it starts belongs to the trace."""
        try:
            with self._pool.connection() as connection:
                if entrance is not None:
                    connection.execute(
                        "select set_config('stellwerk.tenant', %s, true), set_config('stellwerk.actor', %s, true),"
                        " set_config('stellwerk.traceparent', %s, true)",
                        [entrance.tenant, entrance.actor, trace_header(traceparent)],
                    )
                yield Engine(connection)
        except PoolTimeout as error:
            raise DatabaseUnavailable(
                "the database does not answer", hint="Try again in a moment; `stellwerk doctor` looks what is wrong."
            ) from error
        except psycopg.Error as error:
            raise from_database(error) from error


def trace_header(value: str | None) -> str:
    """A header traceparent as a setting takes it; the database looks whether it is well formed."""
    return (value or "")[:55].replace("\0", "")


def act_as_web(connection: psycopg.Connection[Any]) -> None:
    """Give up every right but the web role's, also where the login has more, so that the policies hold."""
    connection.adapters.register_loader("timestamptz", AnyTime)
    connection.execute(f"set statement_timeout = '{STATEMENT_SECONDS}s'")
    row = connection.execute(
        "select pg_has_role(current_user, r.oid, 'member') from pg_roles r where r.rolname = %s", [ROLE]
    ).fetchone()
    if row == (True,):
        connection.execute("set role stellwerk_web")
    connection.commit()
