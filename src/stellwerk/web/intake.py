"""What comes from outside: webhooks and forms. One row each, written and acknowledged; everything else is pump's.

`stellwerk.web.app.make_app` mounts the handlers of `hooks` and `forms` and opens an `Intake` for them; a larger
application does the same.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cached_property
from typing import Any

import psycopg
from litestar import Response
from litestar.exceptions import HTTPException
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from stellwerk.errors import StellwerkError
from stellwerk.integrations.sealing import Seals
from stellwerk.logs import current
from stellwerk.settings import Settings

log = logging.getLogger(__name__)

ROLE = "stellwerk_web"
POOL_SIZE = 8
WAIT_SECONDS = 5.0


class Intake:
    """The connections and the keys that the handlers share."""

    def __init__(self, dsn: str, settings: Settings) -> None:
        self._settings = settings
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=POOL_SIZE,
            timeout=WAIT_SECONDS,
            open=False,
            kwargs={"autocommit": True, "application_name": "stellwerk-web"},
            configure=_act_as_web,
            check=AsyncConnectionPool.check_connection,
        )

    @cached_property
    def seals(self) -> Seals:
        """The keys; without any every webhook is refused."""
        try:
            return Seals.from_settings(self._settings)
        except StellwerkError as error:
            log.error("webhooks are refused: %s", error.message)
            return Seals.that_open_nothing()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """While the application runs; a database that is away comes back by itself."""
        await self.pool.open(wait=False)
        try:
            yield
        finally:
            await self.pool.close(timeout=WAIT_SECONDS)

    async def row(self, query: str, parameters: list[Any]) -> tuple[Any, ...]:
        """The one row of a call; 503 where the database does not answer."""
        try:
            async with self.pool.connection() as connection:
                row = await (await connection.execute(query.encode(), parameters)).fetchone()
        except (PoolTimeout, psycopg.OperationalError) as error:
            log.error("the database does not answer: %s", type(error).__name__)
            raise HTTPException(status_code=503, detail="try again in a moment", headers={"retry-after": "5"}) from None
        assert row is not None
        return tuple(row)


def problem(status: int, title: str, detail: str | None = None, headers: dict[str, str] | None = None) -> Response[Any]:
    """An error as RFC 9457 has it."""
    content = {"type": "about:blank", "title": title, "status": status, **({"detail": detail} if detail else {})}
    content["request_id"] = current("request_id")
    return Response(content, status_code=status, headers=headers, media_type="application/problem+json")


def refuse(_: Any, error: HTTPException) -> Response[Any]:
    """Exception handler: what the framework refuses (size, method, form) in the same shape."""
    titles = {400: "Bad Request", 413: "Content Too Large", 415: "Unsupported Media Type", 503: "Service Unavailable"}
    title = titles.get(error.status_code, "Refused")
    return problem(error.status_code, title, error.detail, dict(error.headers or {}))


def name_of(text: str) -> str:
    """A part of the path as it may be looked up; what can be no name becomes one that nothing has."""
    return text if text.isprintable() and len(text) <= 63 else "-"


async def _act_as_web(connection: AsyncConnection[Any]) -> None:
    await connection.execute("set statement_timeout = '10s'")
    cursor = await connection.execute(
        "select pg_has_role(current_user, r.oid, 'member') from pg_roles r where r.rolname = %s", [ROLE]
    )
    if await cursor.fetchone() == (True,):
        await connection.execute("set role stellwerk_web")
