"""pgqueuer over our own connections: statements through a few, LISTEN on one of its own.

pgqueuer's driver for psycopg shares one connection between both and stalls for up to a second; and it ends the
process when the server restarts. This one tries again until the server is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import psycopg

from stellwerk.database.queue import pin_environment
from stellwerk.worker.connections import RECONNECT_SECONDS, Connections, is_lost
from stellwerk.worker.listener import Listener

pin_environment()

from pgqueuer.core.tm import TaskManager  # noqa: E402
from pgqueuer.ports.driver import Driver, NotifyCallback  # noqa: E402

log = logging.getLogger(__name__)

CHANNEL = "ch_pgqueuer"
WAKE = (
    '{"channel":"ch_pgqueuer","operation":"insert","sent_at":"2000-01-01T00:00:00Z",'
    '"table":"pgqueuer","type":"table_changed_event"}'
)

Result = TypeVar("Result")


class PoolDriver(Driver):
    """What pgqueuer needs of a database. Statements wait for a lost server instead of failing."""

    def __init__(self, connections: Connections, listener: Listener) -> None:
        self._connections = connections
        self._listener = listener
        self._shutdown = asyncio.Event()
        self._tm = TaskManager()
        self._callback: NotifyCallback | None = None
        self._woken = False
        listener.add(CHANNEL, self._heard)
        listener.on_ready.append(self.wake)

    @property
    def shutdown(self) -> asyncio.Event:
        """Set when the worker stops."""
        return self._shutdown

    @property
    def tm(self) -> TaskManager:
        """pgqueuer's place for the driver's own tasks; there are none."""
        return self._tm

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run a statement and answer its rows."""
        return await self._insist(lambda: self._connections.fetch(query, args))

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement and answer its command tag."""
        return await self._insist(lambda: self._connections.execute(query, args))

    async def notify(self, channel: str, payload: str) -> None:
        """Unused: all notifications of the engine go through stellwerk.ring()."""
        raise NotImplementedError("workers do not notify through pgqueuer")

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Take pgqueuer's callback; the listener has been on its channel from the start."""
        self._callback = callback
        self.wake()

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Forget the callback."""
        self._callback = None

    def wake(self) -> None:
        """Make the queue manager look into the queue at once. Several calls before it looks count as one."""
        if not self._woken and self._callback is not None:
            self._woken = True
            self._callback(WAKE)

    def looking(self) -> bool:
        """The queue manager looks now: a later call of wake counts again. Answers whether it had been woken."""
        woken, self._woken = self._woken, False
        return woken

    def _heard(self, payload: str) -> None:
        if "table_changed_event" in payload:
            self.wake()
        elif self._callback is not None:
            self._callback(payload)

    async def _insist(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                return await attempt()
            except (psycopg.Error, OSError, TimeoutError) as error:
                if not is_lost(error) or self._shutdown.is_set():
                    raise
                log.warning("no answer from the database, trying again: %s", (str(error) or "timeout").splitlines()[0])
            await asyncio.sleep(RECONNECT_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._callback = None
