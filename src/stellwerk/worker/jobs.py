"""pgqueuer's loop, and what its jobs mean to us: wake-ups for steps, and a few internal errands."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import Any

from stellwerk.worker.driver import CHANNEL, PoolDriver

# The driver has pinned pgqueuer's names in the environment; only now may pgqueuer be imported.
from pgqueuer.adapters.persistence.queries import Queries  # isort: skip
from pgqueuer.core.qm import QueueManager  # isort: skip
from pgqueuer.domain import models, types  # isort: skip
from pgqueuer.domain.errors import RetryRequested  # isort: skip
from pgqueuer.ports.repository import EntrypointExecutionParameter  # isort: skip

log = logging.getLogger(__name__)

BATCH = 50
ERRANDS = 5
"""How many errands are fetched at a time while there is no room for steps."""
POLL_SECONDS = 3.0
PROBE_SECONDS = 0.2
HEARTBEAT_TIMEOUT_SECONDS = 5.0

StepKeys = list[tuple[int, int]]


class GivenBack(Exception):
    """The worker stops, or has no place for it: the job goes back to the queue for another one."""


class Queue(Queries):
    """pgqueuer's statements, asked for no more jobs than there is room for. Errands need none."""

    def __init__(self, driver: PoolDriver, room: Callable[[], int]) -> None:
        super().__init__(driver)
        self._pool = driver
        self._room = room
        self._emptied = False
        self.hungry = False
        """There was no room when the queue was last looked at."""
        self.errands: set[str] = set()
        self._errands_at = 0.0

    async def dequeue(
        self,
        batch_size: int,
        entrypoints: dict[types.QueueEntrypoint, EntrypointExecutionParameter],
        queue_manager_id: types.QueueManagerId,
        global_concurrency_limit: int | None,
        heartbeat_timeout: timedelta,
    ) -> list[models.Job]:
        """Take jobs; none while there is no room, and without asking right after the queue was emptied."""
        woken = self._pool.looking()
        if self._emptied and not woken:
            self._emptied = False
            return []
        batch_size = min(batch_size, self._room())
        if batch_size < 1:
            self.hungry = True
            now = asyncio.get_running_loop().time()
            if not self.errands or now - self._errands_at < PROBE_SECONDS:
                return []
            self._errands_at = now
            errands = {name: how for name, how in entrypoints.items() if name in self.errands}
            return await super().dequeue(ERRANDS, errands, queue_manager_id, None, heartbeat_timeout)
        jobs = await super().dequeue(batch_size, entrypoints, queue_manager_id, None, heartbeat_timeout)
        self._emptied = 0 < len(jobs) < batch_size
        return jobs


class Jobs(QueueManager):
    """pgqueuer's queue manager, without what writes or notifies while nothing happens."""

    def __init__(self, driver: PoolDriver, room: Callable[[], int]) -> None:
        self._queue = Queue(driver, room)
        self._driver = driver
        self._probed_at = 0.0
        super().__init__(self._queue, types.Channel(CHANNEL))

    def serve_steps(self, node_types: Iterable[str], handle: Callable[[str, int, StepKeys], Awaitable[None]]) -> None:
        """Hand the steps of every job of these types to `handle(type, tenant_id, [(run_id, step_id), …])`."""
        for node_type in node_types:
            self.entrypoint(node_type)(_step_handler(node_type, handle))

    def serve(self, name: str, handle: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Hand the payload of every internal job of this name to `handle`."""

        async def errand(job: models.Job) -> None:
            try:
                await handle(json.loads(job.payload or b"{}"))
            except GivenBack:
                raise RetryRequested(timedelta(0)) from None

        self.entrypoint(name, accepts_context=False)(errand)
        self._queue.errands.add(name)

    def made_room(self) -> None:
        """Steps have ended: look again if the queue had more than there was room for."""
        if self._queue.hungry:
            self._queue.hungry = False
            self._driver.wake()

    async def serve_until_shutdown(self) -> None:
        """Work until `shutdown` is set and every job in hand has ended."""
        await self.run(
            dequeue_timeout=timedelta(seconds=POLL_SECONDS),
            batch_size=BATCH,
            heartbeat_timeout=timedelta(seconds=HEARTBEAT_TIMEOUT_SECONDS),
            log_aggregation_interval=timedelta(0),  # nobody reads pgqueuer's statistics; pump and tick count for us
        )

    async def _run_periodic_health_check(self, interval: timedelta = timedelta(seconds=10)) -> None:
        # pgqueuer would notify itself every ten seconds; our listener asks its connection without writing.
        await self.shutdown.wait()

    async def _effective_dequeue_timeout(self, dequeue_timeout: timedelta) -> timedelta:
        """How long the loop may sleep: until the next job is due, at most for the poll interval."""
        now = asyncio.get_running_loop().time()
        if now - self._probed_at < PROBE_SECONDS:
            return timedelta(seconds=PROBE_SECONDS)
        self._probed_at = now
        names = [str(name) for name in self.entrypoint_registry]
        rows = await self._driver.fetch("select stellwerk.next_job_seconds($1) as seconds", names)
        seconds = rows[0]["seconds"]
        longest = dequeue_timeout.total_seconds() * random.uniform(0.9, 1.0)
        due = longest if not isinstance(seconds, float) else min(longest, max(seconds, 0.1))
        return timedelta(seconds=due)


def _step_handler(
    node_type: str, handle: Callable[[str, int, StepKeys], Awaitable[None]]
) -> Callable[[models.Job], Awaitable[None]]:
    async def run_steps(job: models.Job) -> None:
        try:
            payload = json.loads(job.payload or b"")
            tenant_id = int(payload["t"])
            steps = [(int(run_id), int(step_id)) for run_id, step_id in payload["s"]]
        except (ValueError, KeyError, TypeError):
            log.error("job %s of %s holds no list of steps; dropped, reconciling finds its steps", job.id, node_type)
            return
        try:
            await handle(node_type, tenant_id, steps)
        except GivenBack:
            raise RetryRequested(timedelta(0)) from None

    return run_steps


class Room:
    """How many jobs may be fetched, seen from for how many steps there is room and how many a job holds."""

    def __init__(self, steps: Callable[[], int]) -> None:
        self._steps = steps
        self._per_job = 1.0
        self.in_hand = 0

    def took(self, steps: int) -> None:
        """A job with so many steps was taken."""
        self.in_hand += steps
        self._per_job += (steps - self._per_job) * 0.2

    def ended(self, steps: int = 1) -> None:
        """So many steps are done with."""
        self.in_hand -= steps

    def jobs(self) -> int:
        """How many jobs may be taken now."""
        return math.ceil(self._steps() / self._per_job)
