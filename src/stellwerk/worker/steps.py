"""Steps in this worker's hands: begun many at once, carried out side by side, handed on as completions.

A job only says which steps might be ready. `stellwerk.begin_steps` says which of them are ours to run, with their
settings computed; those it does not name need nothing from us, and their job simply ends.

Calls that pump or hand in results may begin steps too: as many as places are kept for them while the call goes on.

A worker carries out as many steps at once as it has places. Of types that are so quick that calls of the database take
most of the time it has more in its hands, so that both go on at once and a call hands in many: these are begun, and
wait a moment for a place. If they do not get one soon, for they have become slow, they go back to the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from stellwerk.executors import Executor
from stellwerk.logs import frames_of
from stellwerk.worker.attempts import Attempt, run_attempt
from stellwerk.worker.completions import Beginning, Completion, Completions, GoesOn, failure
from stellwerk.worker.connections import RECONNECT_SECONDS, Connections, is_lost
from stellwerk.worker.effects import Gate
from stellwerk.worker.faults import crash_at
from stellwerk.worker.jobs import GivenBack, Room, StepKeys
from stellwerk.worker.tracing import PassOn, Tracing

log = logging.getLogger(__name__)

BEGIN = """
select run_id, step_id, attempt, node_id, type, visit, config, timeout_seconds, idempotency_key, failures, workflow,
       traceparent, tenant
  from stellwerk.begin_steps($1, $2, $3, $4)
"""
EXTEND_EVERY_SECONDS = 5.0
LONG_SECONDS = 4.0
STATEMENT_SECONDS = 45.0
AT_REST = 10
"""How many steps a worker that has nothing to do begins in the pump that makes them ready."""
HAND = 10
"""How many steps are in hand at most, for each place: waiting for one, carried out, or with their result on its way."""
FETCHED = 3
"""For how many steps jobs are fetched at most, for each place; what is fetched here no other worker gets."""
PATIENCE_SECONDS = 0.75
"""How long a step that was begun waits for a place. Its time limit runs meanwhile."""
STEPS_PER_SECOND = 4000
"""About what calls of the database hand on. Steps of a type are quick where the places could carry out more."""
FOR_THE_QUEUE = 10
"""While others wait, of so many steps that end one leaves its turn to the queue; the others' runs go on, if quickly."""

Key = tuple[int, int, int]


@dataclass(slots=True, eq=False)
class Ticket:
    """A job's steps that are still in our hands."""

    left: int
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    since: float = field(default_factory=lambda: asyncio.get_running_loop().time())

    def end(self, steps: int = 1) -> None:
        """So many of them are settled."""
        self.left -= steps
        if self.left <= 0 and not self.done.done():
            self.done.set_result(None)

    def give_back(self) -> None:
        """The job goes back to the queue, or stays there if it was not fetched; what was begun of it goes on."""
        if not self.done.done():
            self.done.set_exception(GivenBack())
            self.done.exception()  # looked at, also where nobody waits for it


@dataclass(slots=True, eq=False)
class Running:
    """A step that is being carried out, or whose result is on its way."""

    attempt: Attempt
    ticket: Ticket
    since: float
    task: asyncio.Task[None] | None = None
    waits: bool = True
    """It has been begun and has no place yet."""
    lost: bool = False


@dataclass(eq=False)
class Steps:
    """Everything between a job and its completions."""

    connections: Connections
    executors: Mapping[str, Executor[Any, Any]]
    gate: Gate
    worker_id: Callable[[], int]
    concurrency: int
    wake: Callable[[], None]
    made_room: Callable[[], None] = lambda: None
    tracing: Tracing = field(default_factory=PassOn)

    stopping: bool = False
    room: Room = field(init=False)
    completions: Completions = field(init=False)

    def __post_init__(self) -> None:
        self.room = Room(self._fetchable)
        self.completions = Completions(self.connections, lambda: self._executing, self.wake, self.take, self._after)
        self._pending: deque[tuple[int, int, int, Ticket]] = deque()
        self._running: dict[Key, Running] = {}
        self._places = asyncio.Semaphore(self.concurrency)
        self._executing = 0
        self._without_place = 0
        self._beginning = 0
        self._on_the_way = 0
        self._kept = 0
        self._turn = 0
        self._seconds: defaultdict[str, float] = defaultdict(lambda: 1.0)
        self._work = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._impatience: asyncio.TimerHandle | None = None

    async def handle(self, node_type: str, tenant_id: int, keys: StepKeys) -> None:
        """Settle the steps of one job until all are recorded; raises `GivenBack` for what gets no place here."""
        if self.stopping:
            raise GivenBack
        ticket = Ticket(len(keys))
        self.room.took(len(keys))
        try:
            self._pending.extend((tenant_id, run_id, step_id, ticket) for run_id, step_id in keys)
            self._work.set()
            self._watch()
            await ticket.done
        finally:
            self.room.ended(len(keys))
            self.made_room()

    def take(self, ready: Iterable[tuple[str, int, int, int]]) -> None:
        """Begin steps (type, tenant, run, step) that a call has just queued, before their job is seen.

        The job stays in the queue, for the case that we die before; when it comes, it finds nothing left to do.
        """
        if self.stopping:
            return
        for node_type, tenant_id, run_id, step_id in ready:
            if node_type in self.executors:
                self._pending.append((tenant_id, run_id, step_id, Ticket(1)))
                self._work.set()
                self._watch()

    @contextmanager
    def at_rest(self) -> Iterator[Beginning | None]:
        """What a pump may begin by itself: a few steps if this worker has nothing to do, else None."""
        if self.stopping or self._pending or self._executing or self._beginning or self.in_hand:
            yield None
            return
        room = min(AT_REST, self.concurrency)
        self._kept += room
        with self._call_that_begins(list(self.executors), room, room) as call:
            yield call

    def _after(self, completions: Sequence[Completion]) -> AbstractContextManager[Beginning]:
        """What the call that hands in these results may begin: a step for each that has kept its place or its turn."""
        places = turns = 0
        for completion in completions:
            places += completion.goes_on == "place"
            turns += completion.goes_on == "turn"
            completion.goes_on = None
        quick = self._quick_types() if turns else []
        room = places + turns if quick else places
        if self.stopping or completions[0].worker_id != self.worker_id():
            room = 0
        return self._call_that_begins(quick or list(self.executors), room, places)

    @contextmanager
    def _call_that_begins(self, types: list[str], room: int, kept: int) -> Iterator[Beginning]:
        """Room for what a call begins, and the places kept for it, until it has ended; then this is carried out."""
        self._on_the_way += room
        try:
            call = Beginning(self.worker_id(), types, room)
            yield call
        finally:
            self._on_the_way -= room
            self._kept -= kept
            self._work.set()
        if call.begun:
            crash_at("after_claim")
        for row in call.begun:
            self._start(Attempt(call.worker_id, *row), Ticket(1))

    def _quick_types(self) -> list[str]:
        """Those whose steps would rather wait for the database than for a place."""
        return [name for name, seconds in self._seconds.items() if seconds * STEPS_PER_SECOND < self.concurrency]

    @property
    def in_hand(self) -> int:
        """Steps that were begun and are not recorded."""
        return len(self._running)

    def _free_places(self) -> int:
        return self.concurrency - self._executing - self._without_place - self._beginning - self._kept

    def _fetchable(self) -> int:
        """For how many steps jobs may be fetched now: where all take long, for as many as can be begun."""
        if self._some_are_brief():
            return FETCHED * self.concurrency - self.room.in_hand
        return self._free_places() - len(self._pending)

    def _some_are_brief(self) -> bool:
        """Whether what is fetched beyond the places has a chance to get one soon."""
        return any(seconds * FETCHED < PATIENCE_SECONDS for seconds in self._seconds.values())

    async def run(self) -> None:
        """Begin steps as there is room for them, until cancelled."""
        while True:
            await self._work.wait()
            await asyncio.sleep(0)  # jobs that were fetched together are begun together
            free = self._free_places()
            if not self._pending or free <= 0 or self.in_hand + self._beginning >= HAND * self.concurrency:
                self._work.clear()
                continue
            batches: defaultdict[int, list[tuple[int, int, Ticket]]] = defaultdict(list)
            for _ in range(min(free, len(self._pending))):
                tenant_id, run_id, step_id, ticket = self._pending.popleft()
                if (tenant_id, run_id, step_id) in self._running:
                    ticket.end()  # the job came a second time while we are at its step
                    continue
                batches[tenant_id].append((run_id, step_id, ticket))
            for tenant_id, batch in batches.items():
                self._beginning += len(batch)
                self._keep(asyncio.create_task(self._begin(tenant_id, batch)))

    async def _begin(self, tenant_id: int, batch: list[tuple[int, int, Ticket]]) -> None:
        try:
            worker_id = self.worker_id()
            rows = await self._call_begin(
                worker_id, tenant_id, [run for run, _, _ in batch], [step for _, step, _ in batch]
            )
            crash_at("after_claim")
        except psycopg.Error as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._beginning += len(batch)
                await self._begin(tenant_id, batch[:middle])
                await self._begin(tenant_id, batch[middle:])
                return
            # tick and reconcile find the step again, and the claim limit ends it if this goes on.
            run_id, step_id, _ = batch[0]
            log.error(
                "run %s step %s cannot be begun: %s",
                run_id,
                step_id,
                str(error).splitlines()[0],
                extra={"tenant_id": tenant_id, "run_id": run_id, "step_id": step_id},
            )
            rows = []
        finally:
            self._beginning -= len(batch)
        tickets = {(run_id, step_id): ticket for run_id, step_id, ticket in batch}
        for row in rows:
            self._start(Attempt(worker_id, tenant_id, *row), tickets.pop((row[0], row[1])))
        for ticket in tickets.values():
            ticket.end()
        self._work.set()

    def _start(self, attempt: Attempt, ticket: Ticket) -> None:
        running = Running(attempt, ticket, asyncio.get_running_loop().time())
        self._running[(attempt.tenant_id, attempt.run_id, attempt.step_id)] = running
        self._without_place += 1
        running.task = asyncio.create_task(self._carry_out(running))
        self._watch()

    def _watch(self) -> None:
        """Have a look at what waits, soon and as long as anything does."""
        if self._impatience is None:
            after = asyncio.get_running_loop().call_later
            self._impatience = after(PATIENCE_SECONDS / 3, self._look_at_what_waits)

    def _look_at_what_waits(self) -> None:
        """Give back what has waited too long for a place here: another worker may have one."""
        self._impatience = None
        if self.stopping or not (self._without_place or self._pending):
            return
        before = asyncio.get_running_loop().time() - PATIENCE_SECONDS
        overdue = [running for running in self._running.values() if running.waits and running.since < before]
        for running in overdue:
            self._seconds[running.attempt.node_type] = max(self._seconds[running.attempt.node_type], PATIENCE_SECONDS)
        if overdue:
            self._keep(asyncio.create_task(self._give_back(overdue)))
        if self._free_places() <= 0 and not self._some_are_brief():
            left = [pending for pending in self._pending if pending[3].since < before]
            self._pending = deque(pending for pending in self._pending if pending[3].since >= before)
            for *_, ticket in left:
                ticket.give_back()
        self._watch()

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it has ended."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call_begin(
        self, worker_id: int, tenant_id: int, run_ids: list[int], step_ids: list[int]
    ) -> list[tuple[Any, ...]]:
        tries = 0
        while True:
            try:
                return await self.connections.tuples(
                    BEGIN, (worker_id, tenant_id, run_ids, step_ids), seconds=STATEMENT_SECONDS
                )
            except (psycopg.Error, OSError, TimeoutError) as error:
                tries += 1
                state = error.sqlstate if isinstance(error, psycopg.Error) else None
                if not is_lost(error) and (state not in ("40001", "40P01", "55P03") or tries > 10):
                    raise
                await asyncio.sleep(RECONNECT_SECONDS if is_lost(error) else 0.02 * tries)

    async def _carry_out(self, running: Running) -> None:
        attempt = running.attempt
        try:
            body = await self._run_in_place(running)
        except asyncio.CancelledError:
            if running.lost:
                log.warning(
                    "run %s step %s was taken away from this worker",
                    attempt.run_id,
                    attempt.step_id,
                    extra=attempt.fields,
                )
                self._settled(running)
                return
            raise
        except BaseException as error:  # our own fault; the step must end all the same
            log.error(
                "run %s step %s: the worker itself failed: %s\n%s",
                attempt.run_id,
                attempt.step_id,
                type(error).__name__,
                frames_of(error),
                extra=attempt.fields,
            )
            body = failure(type(error).__name__, "the worker failed while it carried out the step", retryable=True)
        self.completions.add(
            Completion(
                attempt.worker_id,
                attempt.tenant_id,
                attempt.run_id,
                attempt.step_id,
                attempt.attempt,
                body,
                lambda: self._settled(running),
                attempt.fields,
                self._goes_on(),
            )
        )

    async def _run_in_place(self, running: Running) -> str:
        """Wait for a place and carry out the attempt there; answer what it came to. Its type's mean time follows."""
        attempt = running.attempt
        try:
            await self._places.acquire()
        finally:
            self._waited(running)
        self._executing += 1
        clock = asyncio.get_running_loop().time
        since = clock()
        try:
            return await run_attempt(attempt, self.executors.get(attempt.node_type), self.gate, self.tracing)
        finally:
            mean = self._seconds[attempt.node_type]
            self._seconds[attempt.node_type] = mean + (clock() - since - mean) / 16
            self._executing -= 1
            self._places.release()
            self._work.set()
            self.made_room()

    def _waited(self, running: Running) -> None:
        self._without_place -= running.waits
        running.waits = False

    def _goes_on(self) -> GoesOn | None:
        """Whether the run of a step that has ended goes on with the call that records its result.

        It keeps the step's place for that, if no others wait for one. If they do, what stands in the queue comes first,
        and places are theirs; but quick steps need one for a moment only, so runs go on with these, and the queue gets
        its share.
        """
        if self.stopping:
            return None
        if not self._pending:
            self._kept += 1
            return "place"
        self._turn = (self._turn + 1) % FOR_THE_QUEUE
        return "turn" if self._turn else None

    def _settled(self, running: Running) -> None:
        attempt = running.attempt
        key = (attempt.tenant_id, attempt.run_id, attempt.step_id)
        if self._running.get(key) is running:
            del self._running[key]
        running.ticket.end()
        if self._pending:
            self._work.set()

    # -- leases -------------------------------------------------------------------------------------------------------

    async def keep_leases(self) -> None:
        """Extend the leases of steps that take long, until cancelled; a step that is no longer ours is stopped."""
        while True:
            await asyncio.sleep(EXTEND_EVERY_SECONDS)
            before = asyncio.get_running_loop().time() - LONG_SECONDS
            long: defaultdict[tuple[int, int], list[Running]] = defaultdict(list)
            for running in self._running.values():
                if running.since < before:
                    long[running.attempt.worker_id, running.attempt.tenant_id].append(running)
            for (worker_id, tenant_id), group in long.items():
                await self._extend(worker_id, tenant_id, group)

    async def _extend(self, worker_id: int, tenant_id: int, group: list[Running]) -> None:
        try:
            rows = await self.connections.tuples(
                "select unnest(stellwerk.extend_leases($1, $2, $3, $4, $5))",
                (worker_id, tenant_id, *_arrays(group)),
            )
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("the leases of %d steps could not be extended: %s", len(group), str(error).splitlines()[:1])
            return
        ours = {row[0] for row in rows}
        for running in group:
            still_there = self._running.get((tenant_id, running.attempt.run_id, running.attempt.step_id)) is running
            if running.attempt.step_id not in ours and still_there and running.task and not running.task.done():
                running.lost = True
                running.task.cancel()

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin nothing more; jobs whose steps are not all begun go back to the queue when the others have ended."""
        self.stopping = True
        while self._pending:
            *_, ticket = self._pending.popleft()
            ticket.give_back()

    async def finish(self, seconds: float) -> None:
        """After `stop`: let running steps end, for so long; give back the others. Results are recorded in any case."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # Calls under way may still begin some, which go back as well unless they find a place at once.
        while (self._executing or self._beginning or self._on_the_way or self._without_place) and loop.time() < until:
            await self._give_back([running for running in self._running.values() if running.waits])
            await asyncio.sleep(0.02)
        await self._give_back(
            [running for running in self._running.values() if running.task and not running.task.done()]
        )
        try:
            async with asyncio.timeout(max(5.0, until - loop.time())):
                await self.completions.drained()
        except TimeoutError:
            log.error("%d results could not be recorded; their steps will be taken up again", len(self._running))

    async def _give_back(self, steps: Iterable[Running]) -> None:
        given_back: defaultdict[tuple[int, int], list[Running]] = defaultdict(list)
        for running in steps:
            if running.task is not None:
                running.task.cancel()  # it may not even have begun to wait
            self._waited(running)
            given_back[running.attempt.worker_id, running.attempt.tenant_id].append(running)
        for (worker_id, tenant_id), group in given_back.items():
            await self._release(worker_id, tenant_id, group)

    async def _release(self, worker_id: int, tenant_id: int, group: list[Running]) -> None:
        log.warning("%d steps are given back to the queue", len(group))
        try:
            await self.connections.tuples(
                "select stellwerk.release_steps($1, $2, $3, $4, $5)",
                (worker_id, tenant_id, *_arrays(group)),
            )
        except (psycopg.Error, OSError, TimeoutError) as error:
            log.warning("they could not be given back, so others take them up later: %s", str(error).splitlines()[:1])
        for running in group:
            self._settled(running)


def _arrays(group: list[Running]) -> tuple[list[int], list[int], list[int]]:
    return (
        [running.attempt.run_id for running in group],
        [running.attempt.step_id for running in group],
        [running.attempt.attempt for running in group],
    )
