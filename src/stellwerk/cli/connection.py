"""The engine that a command talks to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stellwerk.database import pool, schema
from stellwerk.engine import Engine
from stellwerk.errors import DatabaseUnavailable
from stellwerk.settings import Settings


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine over the database of the environment; the embedded one is migrated by itself, no other is."""
    settings = Settings.from_environment()
    dsn = pool.resolve(settings)
    with pool.connect(settings, dsn=dsn) as connection:
        schema.check_server(connection.info.server_version)
        if settings.database_url is None and any(
            entry.state in ("pending", "changed") for entry in schema.entries(connection)
        ):
            schema.migrate(dsn)
        elif connection.execute("select to_regclass('stellwerk.run')").fetchone() == (None,):
            raise DatabaseUnavailable(
                "this database has no Stellwerk yet", hint="Run `stellwerk db migrate` to install it."
            )
        yield Engine(connection)
