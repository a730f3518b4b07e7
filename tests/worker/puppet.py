"""An executor that does what a step's script says, and a process that works with it.

Scripts: `ok`, `sleep S`, `block S` (in the way of everybody, were it not in a thread), `die` (kills its process),
`sink S` (writes the idempotency key to the file SINK, synced; the first attempt then sleeps), `fail`, `fail N`
(the first N attempts), `raise`, `clock` (answers the time of day, as this process sees it), `nan`, `nul`, `surrogate`, `deep`, `large`, `object`.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from stellwerk.executors import Call, Executor, ExecutorError


class Script(BaseModel):
    """Any settings."""

    model_config = ConfigDict(extra="allow")
    script: str | None = None
    subject: str | None = None


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class Puppet(Executor[Script, Any]):
    """Does what the script says, in the loop."""

    type = "action.fonio_call"

    async def execute(self, call: Call[Script]) -> Any:
        word, _, rest = (call.config.script or "ok").partition(" ")
        if word == "sleep":
            await asyncio.sleep(float(rest))
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "sink":
            write_to_sink(call)
            if rest and call.attempt == 1:
                await asyncio.sleep(float(rest))
        elif word == "fail" and (not rest or call.attempt <= int(rest)):
            raise ExecutorError("it did not work", error_class="told_to", retryable=True, detail={"n": call.attempt})
        elif word == "raise":
            raise KeyError("a secret: hunter2")
        return {
            "clock": {"clock": time.time(), "seen": datetime.datetime.now(datetime.UTC).timestamp()},
            "nan": float("nan"),
            "nul": "a\0b",
            "surrogate": "\ud800",
            "deep": _deep(70),
            "large": "x" * 1_100_000,
            "object": object(),
        }.get(word, {"word": word, "key": call.idempotency_key})


class Counted(Puppet):
    """How many it carries out at once, and all that it has carried out, in turn."""

    def __init__(self) -> None:
        self.now = self.most = self.begun = 0
        self.held = False
        self.done: list[str] = []

    async def execute(self, call: Call[Script]) -> Any:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            while self.held:  # noqa: ASYNC110 (another thread lets them go)
                await asyncio.sleep(0.01)
            return await super().execute(call)
        finally:
            self.now -= 1
            self.done.append(call.idempotency_key)


class BlockingPuppet(Executor[Script, Any]):
    """Blocks its thread."""

    type = "action.esign_request"

    def execute(self, call: Call[Script]) -> Any:
        word, _, rest = (call.config.subject or "ok").partition(" ")
        if word == "block":
            time.sleep(float(rest))
        return {"word": word}


def write_to_sink(call: Call[Script]) -> None:
    """The effect: one line in a file that survives this process and the database."""
    line = {"key": call.idempotency_key, "attempt": call.attempt, "node": call.node_id, "pid": os.getpid()}
    sink = os.open(os.environ["SINK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(sink, (json.dumps(line) + "\n").encode())
    os.fsync(sink)
    os.close(sink)


def puppets() -> dict[str, Executor[Any, Any]]:
    """By node type."""
    return {"action.fonio_call": Puppet(), "action.esign_request": BlockingPuppet()}


async def main() -> None:
    """A worker process."""
    from stellwerk.settings import Settings
    from stellwerk.worker.run import run_worker

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await run_worker(
        Settings(home=Path("/nonexistent")),
        dsn=sys.argv[1],
        stop=stop,
        executors=puppets(),
        concurrency=int(os.environ.get("CONCURRENCY", "100")),
        grace_seconds=float(os.environ.get("GRACE", "20")),
    )


if __name__ == "__main__":
    asyncio.run(main())
