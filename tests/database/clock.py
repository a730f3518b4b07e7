"""A clock that tests can set: a shift of the database's clock, for one session."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


def shift(db: Connection, by: timedelta | str) -> None:
    """Let the engine's clock, as this session sees it, be so far from the server's."""
    db.execute("select set_config('stellwerk.clock_shift', %s::interval::text, false)", (by,))


def set_clock(db: Connection, at: datetime) -> None:
    """Let it be a certain time now; time goes on from there."""
    db.execute("select set_config('stellwerk.clock_shift', (%s - clock_timestamp())::text, false)", (at,))


def tick(db: Connection) -> dict[str, Any]:
    row = db.execute("select stellwerk.tick()").fetchone()
    assert row is not None
    answer: dict[str, Any] = row[0]
    return answer
