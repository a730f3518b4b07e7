"""A third party's executor that does nothing. The worker finds it as it finds every other: by its entry point."""

from __future__ import annotations

import time
from typing import Any

from stellwerk.executors import Call, Executor, ExecutorConfig


class NoopConfig(ExecutorConfig):
    """There is nothing to set."""

    value: Any = None


class Noop(Executor[NoopConfig, dict[str, Any]]):
    """Puts out when it was called, by the clock of the worker's machine."""

    type = "bench.noop"

    async def execute(self, call: Call[NoopConfig]) -> dict[str, Any]:
        """Do nothing."""
        return {"called_at": time.time(), "value": call.config.value}
