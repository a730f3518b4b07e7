"""The doorbell's sleeping side: a connection of its own that holds the duty, and the bell while the worker sleeps.

Capture triggers notify only when somebody sleeps, and they see that from a lock (see sql/50_queue.sql). Asking for
it blocks while a transaction is open that was begun when nobody slept; until then everybody else rings already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection

from stellwerk.worker.connections import Former, connect, hang_up

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0


class Bell:
    """Duty and bell of one worker. Losing the connection loses both, and harms nothing."""

    def __init__(self, conninfo: str, granted: Callable[[], None]) -> None:
        self._conninfo = conninfo
        self._granted = granted
        self._connection: AsyncConnection[Any] | None = None
        self._former = Former()
        self._asking: asyncio.Task[None] | None = None
        self.on_duty = False
        self.asleep = False

    @property
    def asking(self) -> bool:
        """Whether the bell was asked for and is not granted yet."""
        return self._asking is not None

    async def take_duty(self) -> bool:
        """Become the duty worker if there is none; answers whether we are it."""
        if self.on_duty and self._connection is not None and not self._connection.closed:
            return True
        self.on_duty = self.asleep = False
        try:
            if self._connection is None or self._connection.closed:
                self._connection = await connect(self._conninfo)
                await self._connection.execute("set statement_timeout = 0")
                await self._former.succeed(self._connection)
            self.on_duty = bool(await self._ask_for("select stellwerk.take_duty()"))
        except (psycopg.Error, OSError, TimeoutError) as error:
            self._lost(error)
        return self.on_duty

    def fall_asleep(self) -> None:
        """Ask for the bell; `granted` is called when we have it, and then one must look once more."""
        if not self.asleep and self._asking is None and self._connection is not None:
            self._asking = asyncio.create_task(self._wait_for_grant(self._connection))

    async def awaken(self, withdraw: bool = False) -> None:
        """Nobody needs to ring any more. A question that is still open stays so unless it shall be withdrawn."""
        if self._asking is not None:
            if not withdraw:
                return
            asking, connection = self._asking, self._connection
            if connection is not None:
                with contextlib.suppress(psycopg.Error, OSError):
                    await connection.cancel_safe(timeout=2.0)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({asking}, timeout=2.0)
        if self.asleep:
            self.asleep = False
            try:
                await self._ask_for("select stellwerk.awaken()")
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._lost(error)

    def hang_up(self) -> None:
        """Give the connection up: the network seems to have forgotten it."""
        if self._connection is not None:
            hang_up(self._connection)

    async def close(self) -> None:
        """Give up duty and bell with their session."""
        asking, connection = self._asking, self._connection
        self._connection, self.on_duty, self.asleep = None, False, False
        if connection is not None:
            hang_up(connection)
            if asking is not None:
                await asyncio.wait({asking}, timeout=2.0)
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    async def _wait_for_grant(self, connection: AsyncConnection[Any]) -> None:
        try:
            await connection.execute("select stellwerk.fall_asleep()")
            self.asleep = True
        except psycopg.errors.QueryCanceled:
            pass
        except (psycopg.Error, OSError) as error:
            self._lost(error)
        finally:
            self._asking = None
        self._granted()

    async def _ask_for(self, question: str) -> Any:
        connection = self._connection
        if connection is None:
            raise psycopg.OperationalError("there is no connection")
        alarm = asyncio.get_running_loop().call_later(ANSWER_SECONDS, hang_up, connection)
        try:
            row = await (await connection.execute(question.encode())).fetchone()
        finally:
            alarm.cancel()
        return row[0] if row else None

    def _lost(self, error: BaseException) -> None:
        if self.on_duty:
            log.warning("the duty is lost with its connection: %s", (str(error) or "timeout").splitlines()[0])
        connection, self._connection = self._connection, None
        self.on_duty = self.asleep = False
        if connection is not None and not connection.closed:
            hang_up(connection)
            connection.pgconn.finish()
