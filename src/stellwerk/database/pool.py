"""From the environment to a connection: the database of DATABASE_URL, else the embedded server."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stellwerk.database.embedded import Embedded
from stellwerk.errors import DatabaseUnavailable, StellwerkError, UsageError
from stellwerk.settings import Settings

Connection = psycopg.Connection[Any]

# A connection whose other end vanished without a word is noticed in seconds, not after the system's two hours.
KEEPALIVE: dict[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "12000",
}

_embedded: dict[str, Embedded] = {}


def resolve(settings: Settings) -> str:
    """The connection string; starts the embedded server where no database is given, and stays its user."""
    if settings.database_url is not None:
        return with_keepalive(settings.database_url)
    server = _embedded.setdefault(str(settings.home), Embedded(settings.home))
    return server.start()


def connect(settings: Settings, *, dsn: str | None = None, name: str = "stellwerk") -> Connection:
    """A connection in autocommit mode that acts for the tenant of the settings."""
    where = dsn or resolve(settings)
    try:
        connection = psycopg.connect(where, autocommit=True, application_name=name)
    except psycopg.Error as error:
        raise unreachable(where, error) from None
    connection.execute("select set_config('stellwerk.tenant', %s, false)", [settings.tenant])
    return connection


def with_keepalive(dsn: str) -> str:
    """The connection string with our time limits, where it names none itself."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise UsageError(
            f"DATABASE_URL cannot be read: {' '.join(str(error).split())}",
            hint="It looks like postgresql://user:password@host:5432/name.",
        ) from None
    return make_conninfo(**{**KEEPALIVE, **given})  # type: ignore[arg-type]


def unreachable(dsn: str, error: psycopg.Error) -> StellwerkError:
    """What was tried, without the password, and what to do."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        parts = {}
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    place = f"{parts.get('dbname', 'the default database')} at {host}"
    said = " ".join(str(error).split()).split("failed: ", 1)[-1]
    return DatabaseUnavailable(
        f"no connection to {place} as {parts.get('user', 'the current user')}",
        detail=said or type(error).__name__,
        hint="Check DATABASE_URL and that the server runs; without DATABASE_URL an embedded one starts by itself.",
    )
