"""A worker process on a machine whose clock goes astray: it shows as many seconds more as the file ASTRAY says.

What reads the time of day is replaced before anything else is imported; only the monotonic clock is left as it is, as
it is when somebody sets the clock of a machine.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from pathlib import Path

_time, _time_ns, _Datetime = time.time, time.time_ns, datetime.datetime


def astray() -> float:
    """By how many seconds the clock is wrong now."""
    return float(Path(os.environ["ASTRAY"]).read_text() or 0)


class _AstrayDatetime(_Datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> datetime.datetime:
        return cls.now(datetime.UTC).replace(tzinfo=None)


time.time = lambda: _time() + astray()
time.time_ns = lambda: _time_ns() + int(astray() * 1e9)
datetime.datetime = _AstrayDatetime  # type: ignore[misc]


if __name__ == "__main__":
    from worker.puppet import main

    asyncio.run(main())
