"""Who this worker is, and that it is there: an advisory lock that lives and dies with the listening connection."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection

from stellwerk.worker.connections import Connections

log = logging.getLogger(__name__)


class Presence:
    """The worker's number. Others see from its lock that it lives, so that being idle writes nothing."""

    def __init__(self, types: Sequence[str], name: str | None = None) -> None:
        self._types = list(types)
        self._host = socket.gethostname()
        self.name = name or f"{self._host}:{os.getpid()}"
        self._worker_id: int | None = None

    @property
    def worker_id(self) -> int:
        """The number under which steps are begun."""
        if self._worker_id is None:
            raise RuntimeError("the worker has not registered yet")
        return self._worker_id

    async def take(self, connection: AsyncConnection[Any]) -> None:
        """Be present in this session: under the number of before if it is still free, else under a new one."""
        if self._worker_id is not None:
            try:
                await self._hold(connection, self._worker_id)
                return
            except psycopg.errors.LockNotAvailable:
                log.warning("the server still believes in this worker's former session; it goes on under a new number")
        row = await (
            await connection.execute(
                "select stellwerk.register_worker(%s, %s, %s, %s)", (self.name, self._host, os.getpid(), self._types)
            )
        ).fetchone()
        assert row is not None
        self._worker_id = int(row[0])
        await self._hold(connection, self._worker_id)
        log.info("worker %s is here as number %d", self.name, self._worker_id)

    async def _hold(self, connection: AsyncConnection[Any], worker_id: int) -> None:
        await connection.execute("set lock_timeout = '3s'")
        await connection.execute("select stellwerk.hold_presence(%s)", (worker_id,))
        await connection.execute("set lock_timeout = 0")

    async def leave(self, connections: Connections) -> None:
        """Say goodbye; the lock goes with the connection."""
        if self._worker_id is not None:
            await connections.tuples("select stellwerk.leave_worker($1)", (self._worker_id,))
