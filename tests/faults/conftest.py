"""What the fault tests share; `pytest tests/faults --full` kills 60 times instead of 10."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import servers
from worker.fixtures import spawn_worker

__all__ = ["spawn_worker"]


@pytest.fixture
def own_server() -> Iterator[servers.Server]:
    """A server that may be shot, and that loses nothing which it has acknowledged."""
    version, folder = next(iter(servers.found().items()))
    server = servers.Server(version, folder)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("alter system set synchronous_commit = on")
        connection.execute("select pg_reload_conf()")
    yield server
    server.stop()


@pytest.fixture
def dsn(own_server: servers.Server) -> str:
    """A fresh migrated database on it."""
    return own_server.database()
