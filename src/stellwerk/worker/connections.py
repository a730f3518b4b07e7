"""The worker's connections for statements: few, opened when needed, given up as soon as they are doubtful.

psycopg's pool waits longer and longer between attempts to reconnect, and waits for ever on a connection whose
other end is gone without a word. A worker must be back within seconds, so this one tries at once, bounds every
statement by a time of its own, and can drop everything that has been silent for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row, tuple_row

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5
STATEMENT_SECONDS = 10.0
RECONNECT_SECONDS = 0.5
ENDING_SECONDS = 2.0
"""How long one waits for a former session to end: whoever asked for its locks too early would come again much later."""

Row = dict[str, Any]


def worker_conninfo(dsn: str, name: str, role: str | None = None) -> str:
    """The DSN with what every connection of a worker needs: liveness by the kernel, a timeout, a name, its role."""
    options = [
        "-c statement_timeout=30s",
        "-c idle_in_transaction_session_timeout=60s",
        "-c enable_seqscan=off",  # plans are made while tables are empty; on a queue they must not stay so
        "-c jit=off",
        # The server, too, must notice soon that we are gone: our locks say that we live.
        "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 -c tcp_user_timeout=10000",
    ]
    if role:
        options.append(f"-c role={role}")
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    if given.get("options"):
        options.insert(0, str(given["options"]))
    return make_conninfo(
        dsn,
        application_name=name,
        options=" ".join(options),
        connect_timeout=CONNECT_SECONDS,
        keepalives=1,
        keepalives_idle=5,
        keepalives_interval=3,
        keepalives_count=3,
        tcp_user_timeout=10_000,
    )


async def connect(conninfo: str) -> AsyncConnection[Any]:
    """Open a connection in autocommit mode; raises `psycopg.OperationalError`."""
    async with asyncio.timeout(CONNECT_SECONDS * 2):
        return await AsyncConnection.connect(conninfo, autocommit=True)


def hang_up(connection: AsyncConnection[Any]) -> None:
    """Cut a connection from outside: whoever waits for an answer on it gets an OperationalError at once."""
    with contextlib.suppress(OSError, psycopg.Error):
        with socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)


class Former:
    """Our last session of a kind, which the server may still believe to be alive, with the locks it holds."""

    def __init__(self) -> None:
        self._session: tuple[int, str] | None = None

    async def succeed(self, connection: AsyncConnection[Any]) -> None:
        """End the former session, and remember this one. Unless that takes long, what the former held is free then."""
        if self._session is not None:
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                await connection.execute(
                    "select pg_terminate_backend(pid, %s) from pg_stat_activity"
                    " where pid = %s and backend_start::text = %s and pid <> pg_backend_pid()",
                    (round(1000 * ENDING_SECONDS), *self._session),
                )
        cursor = await connection.execute(
            "select pid, backend_start::text from pg_stat_activity where pid = pg_backend_pid()"
        )
        self._session = await cursor.fetchone()


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the server or the way to it is gone, so that trying again may help."""
    if isinstance(error, (TimeoutError, OSError)):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    if isinstance(error, psycopg.errors.QueryCanceled):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
    return state.startswith(("08", "57P")) or state in ("53300", "55000", "25006")


class Connections:
    """A handful of connections for short statements."""

    def __init__(self, conninfo: str, size: int = 6) -> None:
        self.conninfo = conninfo
        self._free: list[AsyncConnection[Any]] = []
        self._busy: dict[AsyncConnection[Any], float] = {}
        self._room = asyncio.Semaphore(size)
        self._pids: set[int] = set()

    async def fetch(
        self, statement: str, arguments: Sequence[object] = (), *, seconds: float = STATEMENT_SECONDS
    ) -> list[Row]:
        """Run one statement with $1, $2 … and answer its rows. Raises psycopg.Error; never waits longer than told."""
        rows: list[Row] = await self._run(statement, arguments, seconds, dict_row)
        return rows

    async def tuples(
        self, statement: str, arguments: Sequence[object] = (), *, seconds: float = STATEMENT_SECONDS
    ) -> list[tuple[Any, ...]]:
        """As `fetch`, with plain tuples."""
        rows: list[tuple[Any, ...]] = await self._run(statement, arguments, seconds, tuple_row)
        return rows

    async def execute(
        self, statement: str, arguments: Sequence[object] = (), *, seconds: float = STATEMENT_SECONDS
    ) -> str:
        """Run one statement and answer its command tag."""
        async with self._one(seconds) as connection:
            cursor = AsyncRawCursor(connection)
            await cursor.execute(statement, arguments or None)
            return cursor.statusmessage or ""

    async def _run(self, statement: str, arguments: Sequence[object], seconds: float, rows: Any) -> Any:
        async with self._one(seconds) as connection:
            cursor = AsyncRawCursor(connection, row_factory=rows)
            await cursor.execute(statement, arguments or None)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _one(self, seconds: float) -> AsyncIterator[AsyncConnection[Any]]:
        async with self._room:
            connection = self._take() or await self._open()
            loop = asyncio.get_running_loop()
            self._busy[connection] = loop.time()
            alarm = loop.call_later(seconds, hang_up, connection)
            try:
                yield connection
            except BaseException:
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    await connection.close()
                raise
            finally:
                alarm.cancel()
                self._busy.pop(connection, None)
                if not connection.closed:
                    self._free.append(connection)

    async def _open(self) -> AsyncConnection[Any]:
        connection = await connect(self.conninfo)
        self._pids = {one.info.backend_pid for one in (*self._free, *self._busy, connection) if not one.closed}
        return connection

    def knows(self, pid: int) -> bool:
        """Whether this is the server process of one of our connections."""
        return pid in self._pids

    def _take(self) -> AsyncConnection[Any] | None:
        while self._free:
            connection = self._free.pop()
            if not connection.closed:
                return connection
        return None

    def doubt(self, patience: float) -> None:
        """The network may have forgotten us: give up idle connections, and those whose answer does not come.

        A statement that was sent before now has `patience` seconds in all; then its connection is cut.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, since in list(self._busy.items()):
            loop.call_later(max(0.0, since + patience - now), self._cut, connection, since)
        for connection in self._free:
            hang_up(connection)
        self._free.clear()

    def _cut(self, connection: AsyncConnection[Any], since: float) -> None:
        if self._busy.get(connection) == since:  # still the same statement
            hang_up(connection)

    async def close(self) -> None:
        """Close what is idle; busy ones close when their statement ends."""
        while (connection := self._take()) is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()
        for connection in list(self._busy):
            hang_up(connection)
