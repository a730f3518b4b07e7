"""Pending events into runs, runs forward, timers fired: calls `stellwerk.pump` and `stellwerk.tick` at the right time.

Every worker pumps; one of them, the duty worker, also sleeps at the doorbell and ticks for all. When it dies the
next one takes the duty within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from typing import Any

import psycopg

from stellwerk.worker.bell import Bell
from stellwerk.worker.completions import JOBS_LATER_SECONDS
from stellwerk.worker.connections import Connections, is_lost
from stellwerk.worker.listener import Listener
from stellwerk.worker.steps import Steps

log = logging.getLogger(__name__)

CHANNEL = "stellwerk"
BATCH = 500
POLL_SECONDS = 5.0
TICK_SECONDS = 5.0
SHORTEST_SECONDS = 0.05
LONGEST_TICK_PAUSE = 1.0  # seconds
BUSY = 5
GATHER_SECONDS = 0.01
HOUSE_SECONDS = 60.0
STATEMENT_SECONDS = 40.0  # more than the session's statement_timeout, so the server speaks first
LONGEST_BACKOFF_SECONDS = 10.0


class Pump:
    """The loop of one worker."""

    def __init__(
        self,
        connections: Connections,
        listener: Listener,
        bell_conninfo: str,
        wake: Callable[[], None],
        steps: Steps,
    ) -> None:
        self._steps = steps
        self._connections = connections
        self._wake_jobs = wake
        self._look = asyncio.Event()
        self._stopping = False
        self._failures = 0
        self._tick_at = 0.0
        self._vain = 0  # ticks in a row that left what was due as it was
        self._house_at = 0.0
        self.idle = False
        """True when the last look found nothing to do."""
        self.next_due: float | None = None
        """Seconds to the next timer, as the last call said."""
        self.bell = Bell(bell_conninfo, self._look.set)
        listener.add(CHANNEL, self._heard)
        listener.on_ready.append(self.look)
        listener.on_lost.append(self.bell.hang_up)

    def stop(self) -> None:
        """End the loop after the call that is running."""
        self._stopping = True
        self._look.set()

    def look(self) -> None:
        """Look for work now."""
        self._look.set()

    async def run(self) -> None:
        """Pump and tick until stopped."""
        try:
            while not self._stopping:
                self._look.clear()
                try:
                    found = await self._work()
                    self._failures = 0
                except (psycopg.Error, OSError, TimeoutError) as error:
                    await self._back_off(error)
                    continue
                if found >= BUSY and not self._stopping:
                    # While we are awake nobody has to ring, which would slow every commit down; so stay awake until
                    # little is left, and let some more come together meanwhile.
                    await self.bell.awaken(withdraw=True)
                    await asyncio.sleep(GATHER_SECONDS)
                else:
                    await self._sleep()
        finally:
            await self.bell.close()

    async def _work(self) -> int:
        """Tick if it is time, then pump until there is nothing left; answers how much the last call found."""
        loop = asyncio.get_running_loop()
        busy = False
        answer: dict[str, Any] = {}
        while not self._stopping:
            # Also between two calls of pump: timers do not wait for the end of other work.
            if self.bell.on_duty and loop.time() >= self._tick_at:
                answer = await self._call("select stellwerk.tick()")
                self._tick_at = loop.time() + TICK_SECONDS
                self._ticked(answer)
                self._wake_for(answer)
            answer = await self._pump()
            self._due_in(answer.get("next_due_seconds"))
            self._wake_for(answer)
            if not answer.get("more"):
                break
            self.idle = False
            if not busy:
                await self.bell.awaken(withdraw=True)
            busy = True
            await asyncio.sleep(0)
        self.idle = not any(answer.get(count) for count in ("events", "runs_started", "runs_advanced", "more"))
        if self.bell.on_duty and loop.time() >= self._house_at:
            kept = await self._call("select stellwerk.keep_house()")
            self._house_at = loop.time() + (TICK_SECONDS if kept.get("more") else HOUSE_SECONDS)
        return max(answer.get("events") or 0, answer.get("runs_advanced") or 0)

    async def _pump(self) -> dict[str, Any]:
        """Pump; where the worker has nothing to do, what becomes ready is begun in the same call."""
        with self._steps.at_rest() as call:
            if call is None:
                return await self._call("select stellwerk.pump($1)", BATCH)
            answer = await self._call(
                "select stellwerk.pump_and_begin($1, $2, $3, $4)", BATCH, call.worker_id, call.types, call.room
            )
            call.begun = answer.get("begun", [])
            return answer

    def _wake_for(self, answer: dict[str, Any]) -> None:
        """The queue manager need not wait for a notification of what was enqueued through this process."""
        if answer.get("ready") or answer.get("begun"):
            self._steps.take(answer["ready"])
            asyncio.get_running_loop().call_later(JOBS_LATER_SECONDS, self._wake_jobs)
        elif any(count for count in answer.values() if isinstance(count, int)):
            self._wake_jobs()

    def _ticked(self, answer: dict[str, Any]) -> None:
        """A tick fires so many timers and no more: where it fired any, those that are left are asked for at once."""
        fired, due = bool(answer.get("fired") or answer.get("scheduled")), answer.get("next_due_seconds")
        self._vain = self._vain + 1 if due == 0 and not fired else 0
        self._due_in(due, shortest=0.0 if fired else SHORTEST_SECONDS)
        if answer.get("recovered"):
            self._tick_at = 0.0  # a worker that vanished may have held more than one tick gives back

    def _due_in(self, seconds: Any, *, shortest: float = SHORTEST_SECONDS) -> None:
        """Tick when the next timer is due; the more ticks could not fire one that is, the later it is tried again."""
        self.next_due = float(seconds) if seconds is not None else None
        if self.next_due is None:
            return
        least = SHORTEST_SECONDS if self.next_due > 0 else min(LONGEST_TICK_PAUSE, shortest * 2 ** min(self._vain, 10))
        self._tick_at = min(self._tick_at, asyncio.get_running_loop().time() + max(self.next_due, least))

    async def _sleep(self) -> None:
        if self._stopping or not await self._has_duty():
            await self._wait(POLL_SECONDS * random.uniform(0.8, 1.2))
            return
        # A short look leaves the bell with us: whoever writes meanwhile rings, and is heard.
        self.bell.fall_asleep()
        loop = asyncio.get_running_loop()
        await self._wait(min(POLL_SECONDS, max(self._tick_at - loop.time(), 0.0)))

    async def _has_duty(self) -> bool:
        had = self.bell.on_duty
        has = await self.bell.take_duty()
        if has and not had:
            log.info("this worker has the duty now")
            self._tick_at = 0.0
            self._look.set()
        return has

    async def _wait(self, seconds: float) -> None:
        """Wait until there is reason to look, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look.wait()

    def _heard(self, payload: str) -> None:
        if self.bell.on_duty:
            self._look.set()

    async def _call(self, statement: str, *arguments: object) -> dict[str, Any]:
        rows = await self._connections.tuples(statement, arguments, seconds=STATEMENT_SECONDS)
        answer = rows[0][0]
        return answer if isinstance(answer, dict) else {}

    async def _back_off(self, error: BaseException) -> None:
        self._failures += 1
        seconds = 0.5 if is_lost(error) else min(LONGEST_BACKOFF_SECONDS, 0.25 * 2**self._failures)
        log.log(
            logging.WARNING if is_lost(error) else logging.ERROR,
            "pumping failed, again in %.1f s: %s",
            seconds,
            (str(error) or type(error).__name__).splitlines()[0],
        )
        await self._wait(seconds)
        if self._look.is_set() and not self._stopping:
            await asyncio.sleep(min(seconds, 0.5))  # rings must not turn failures into a tight loop
