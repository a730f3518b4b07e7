"""Fixtures of the tests of migrated runs."""

from __future__ import annotations

import pytest
from database.helpers import Worker


@pytest.fixture
def migrate(engine):
    """Verdicts by run: (verdict, reason)."""

    def call_it(slug="offer", a=1, b=2, node_map=None, **more):
        return {
            row["run_id"]: (row["verdict"], row["reason"]) for row in engine.migrate_runs(slug, a, b, node_map, **more)
        }

    return call_it


@pytest.fixture
def worker(dsn):
    worker = Worker(dsn)
    yield worker
    worker.connection.close()
