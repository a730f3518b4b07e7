"""One connection that does nothing but listen, and is known to be alive.

Notifications are hints: after every (re)connect the listener first LISTENs and then calls everybody once, since one
may have been missed. A connection that the network has forgotten looks like a quiet one, so it is asked every few
seconds; no answer means a new connection, and a word to those who hold others over the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg import AsyncConnection, sql

from stellwerk.worker.connections import RECONNECT_SECONDS, Former, connect, hang_up

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
ANSWER_SECONDS = 5.0

Callback = Callable[[str], None]


class Listener:
    """Hands notifications to callbacks, whatever happens to the server."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._callbacks: dict[str, list[Callback]] = {}
        self._connection: AsyncConnection[Any] | None = None
        self._former = Former()
        self._new_channel = False
        self._ignored: dict[str, Callable[[int], bool]] = {}
        self.on_connect: list[Callable[[AsyncConnection[Any]], Awaitable[None]]] = []
        """Called with each new connection before it listens: what must live in this session."""
        self.on_ready: list[Callable[[], None]] = []
        """Called when it listens again: whatever was notified meanwhile is lost, so look."""
        self.on_lost: list[Callable[[], None]] = []
        """Called when the connection was found dead."""
        self.listening = asyncio.Event()

    def add(self, channel: str, callback: Callback) -> None:
        """Call this for every notification on a channel."""
        if channel not in self._callbacks:
            self._callbacks[channel] = []
            self._new_channel = True
        self._callbacks[channel].append(callback)

    def remove(self, channel: str, callback: Callback) -> None:
        """Stop calling it. The session keeps listening to the channel, which costs nothing."""
        with contextlib.suppress(ValueError):
            self._callbacks.get(channel, []).remove(callback)

    def ignore(self, channel: str, sender: Callable[[int], bool]) -> None:
        """Say nothing about notifications on a channel whose sender (a backend's process id) this holds for."""
        self._ignored[channel] = sender

    async def run(self) -> None:
        """Listen until cancelled."""
        delay = RECONNECT_SECONDS
        while True:
            try:
                async with await connect(self._conninfo) as connection:
                    await self._prepare(connection)
                    delay = RECONNECT_SECONDS
                    try:
                        await self._listen(connection)
                    finally:
                        self._connection = None
                        self.listening.clear()
            except (psycopg.OperationalError, psycopg.InterfaceError, OSError, TimeoutError) as error:
                log.warning(
                    "the listening connection is lost, connecting again in %.1f s: %s", delay, _first_line(error)
                )
                for lost in self.on_lost:
                    lost()
                await asyncio.sleep(delay)
                delay = min(delay * 1.5, 2.0)

    async def _prepare(self, connection: AsyncConnection[Any]) -> None:
        alarm = asyncio.get_running_loop().call_later(2 * ANSWER_SECONDS, hang_up, connection)
        try:
            await connection.execute("set statement_timeout = 0")
            await self._former.succeed(connection)
            for prepare in self.on_connect:
                await prepare(connection)
            for channel in self._callbacks:
                await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        finally:
            alarm.cancel()
        self._new_channel = False
        self._connection = connection
        self.listening.set()
        for ready in self.on_ready:
            ready()

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        while True:
            async for notification in connection.notifies(timeout=HEARTBEAT_SECONDS):
                ignored = self._ignored.get(notification.channel)
                if ignored is not None and ignored(notification.pid):
                    continue
                for callback in list(self._callbacks.get(notification.channel, ())):
                    try:
                        callback(notification.payload)
                    except Exception:
                        log.exception("a listener to %s failed", notification.channel)
            alarm = asyncio.get_running_loop().call_later(ANSWER_SECONDS, hang_up, connection)
            try:
                if self._new_channel:
                    self._new_channel = False
                    for channel in self._callbacks:
                        await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                await connection.execute("select 1")
            finally:
                alarm.cancel()


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
