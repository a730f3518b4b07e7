"""Results on their way back: collected for a moment, then recorded many at once, one transaction per batch."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from stellwerk.worker.connections import RECONNECT_SECONDS, Connections, is_lost
from stellwerk.worker.faults import crash_at

log = logging.getLogger(__name__)

BATCH = 300
PAUSE_SECONDS = 0.0025
JOBS_LATER_SECONDS = 0.01
"""When to look at jobs whose steps were begun without them."""
MAX_OUTPUT_BYTES = 1_000_000
MAX_DEPTH = 64
STATEMENT_SECONDS = 45.0

_as_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


GoesOn = Literal["place", "turn"]


class UnusableResult(Exception):
    """A result that cannot be stored, with the sentence that says why."""


@dataclass(slots=True)
class Beginning:
    """What a call that may begin steps is told, and what it has begun: the tenant and what `begin_steps` answers."""

    worker_id: int
    types: list[str]
    room: int
    begun: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True)
class Completion:
    """One attempt's end: the JSON text to send, and whom to tell when it is recorded."""

    worker_id: int
    tenant_id: int
    run_id: int
    step_id: int
    attempt: int
    body: str
    recorded: Callable[[], None]
    fields: dict[str, Any]
    """What lines of the log about it have."""
    goes_on: GoesOn | None = None
    """Whether its run goes on in the call that hands it in, and whether its place is kept for that."""

    def log(self, level: int, message: str, *values: object) -> None:
        """A line about it."""
        log.log(level, f"run %s step %s: {message}", self.run_id, self.step_id, *values, extra=self.fields)

    def as_json(self) -> str:
        """One element of what stellwerk.complete_steps takes."""
        return f'{{"run":"{self.run_id}","step":"{self.step_id}","attempt":{self.attempt},{self.body}}}'


def success(output: Any) -> str:
    """The body of a completion; raises `UnusableResult` for what is no JSON, too large, too deep or holds NUL."""
    return f'"port":"next","output":{encode(output)}'


def failure(
    error_class: str, message: str, retryable: bool, detail: Any = None, retry_after: float | None = None
) -> str:
    """The body of a failed attempt. Whatever cannot be stored of it is left out, never the failure itself."""
    error: dict[str, Any] = {
        "class": clean(error_class, 100) or "failed",
        "message": clean(message, 2000),
        "retryable": bool(retryable),
        "retry_after": retry_after,
    }
    try:
        encoded = encode(detail)
    except UnusableResult:
        encoded = "null"
    return f'"error":{json.dumps(error, ensure_ascii=False)[:-1]},"detail":{encoded}}}'


def encode(value: Any) -> str:
    """A value as the JSON text that will be stored."""
    try:
        dump = getattr(value, "model_dump_json", None)
        text: str = dump() if dump is not None else _as_text(value)
        size = len(text.encode())
    except UnicodeEncodeError:
        raise UnusableResult("it holds half of a surrogate pair, which is no text") from None
    except RecursionError:
        raise UnusableResult(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except (TypeError, ValueError) as error:
        if "surrogate" in str(error):
            raise UnusableResult("it holds half of a surrogate pair, which is no text") from None
        if "JSON compliant" in str(error):
            raise UnusableResult("it holds NaN or an infinite number, which JSON does not know") from None
        raise UnusableResult(f"it is no JSON: {clean(str(error), 200)}") from None
    if size > MAX_OUTPUT_BYTES:
        raise UnusableResult(f"it has {size} bytes, more than the {MAX_OUTPUT_BYTES} that a step may put out")
    if "\\u0000" in text and _NUL.search(text):
        raise UnusableResult("it holds the character NUL, which PostgreSQL cannot store")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise UnusableResult(f"it is nested more than {MAX_DEPTH} levels deep")
    return text


def clean(text: str, limit: int) -> str:
    """Text that PostgreSQL can store, cut to a length."""
    return text[:limit].replace("\0", "�").encode("utf-8", "replace").decode()


def _depth(text: str) -> int:
    """How deep JSON text is nested, brackets within its strings not counted."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{\]}]', text):
        sign = token[0]
        if sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


class Completions:
    """Groups what steps came to, and keeps each until the database has it."""

    def __init__(
        self,
        connections: Connections,
        busy: Callable[[], int],
        wake: Callable[[], None],
        take: Callable[[Iterable[tuple[str, int, int, int]]], None],
        after: Callable[[Sequence[Completion]], AbstractContextManager[Beginning]],
    ) -> None:
        self._after = after
        self._take = take
        self._connections = connections
        self._busy = busy
        self._wake = wake
        self._waiting: list[Completion] = []
        self._news = asyncio.Event()
        self._full = asyncio.Event()
        self._writers: set[asyncio.Task[None]] = set()

    def add(self, completion: Completion) -> None:
        """Have a completion recorded; its `recorded` is called when the database has answered."""
        self._waiting.append(completion)
        self._news.set()
        if len(self._waiting) >= BATCH:
            self._full.set()

    async def run(self) -> None:
        """Record until cancelled."""
        while True:
            await self._news.wait()
            await asyncio.sleep(0)  # those that end in this same moment come along
            if self._busy() and len(self._waiting) < BATCH:
                try:
                    async with asyncio.timeout(PAUSE_SECONDS):
                        await self._full.wait()
                except TimeoutError:
                    pass
            while len(self._writers) >= 2:
                await asyncio.wait(self._writers, return_when=asyncio.FIRST_COMPLETED)
            batch, self._waiting = self._waiting[: 2 * BATCH], self._waiting[2 * BATCH :]
            if not self._waiting:
                self._news.clear()
            if len(self._waiting) < BATCH:
                self._full.clear()
            together: defaultdict[tuple[int, int], list[Completion]] = defaultdict(list)
            for completion in batch:
                together[completion.worker_id, completion.tenant_id].append(completion)
            for completions in together.values():
                writer = asyncio.create_task(self._record(completions))
                self._writers.add(writer)
                writer.add_done_callback(self._writers.discard)

    async def drained(self) -> None:
        """Wait until nothing is left to record."""
        while self._waiting or self._writers:  # noqa: ASYNC110 (the end of a process, a few times)
            await asyncio.sleep(0.005)

    async def _record(self, batch: list[Completion]) -> None:
        """One call for all; where it fails as a whole, each half by itself, so that one bad result harms no other."""
        deadlocks = 0
        while True:
            try:
                answer = await self._call(batch)
            except (psycopg.Error, OSError, TimeoutError) as error:
                if is_lost(error):
                    log.warning("%d results wait for the database: %s", len(batch), _first_line(error))
                    await asyncio.sleep(RECONNECT_SECONDS)
                    continue
                state = error.sqlstate if isinstance(error, psycopg.Error) else None
                if state in ("40001", "40P01", "55P03") and deadlocks < 10:
                    deadlocks += 1
                    await asyncio.sleep(0.02 * deadlocks)
                    continue
                if len(batch) > 1:
                    middle = len(batch) // 2
                    await self._record(batch[:middle])
                    await self._record(batch[middle:])
                    return
                await self._refused(batch[0], error)
                return
            late = {(int(run_id), int(step_id)) for run_id, step_id in answer.get("late") or ()}
            for completion in batch:
                if (completion.run_id, completion.step_id) in late:
                    completion.log(logging.INFO, "the result came late and changes nothing")
                completion.recorded()
            if answer.get("ready") or answer.get("begun"):
                self._take(answer["ready"])
                asyncio.get_running_loop().call_later(JOBS_LATER_SECONDS, self._wake)
            elif answer.get("accepted"):
                self._wake()
            return

    async def _call(self, batch: list[Completion]) -> dict[str, Any]:
        crash_at("before_commit")
        with self._after(batch) as call:
            rows = await self._connections.tuples(
                "select stellwerk.complete_steps($1, $2, $3::jsonb, $4, $5)",
                (
                    batch[0].worker_id,
                    batch[0].tenant_id,
                    "[" + ",".join(completion.as_json() for completion in batch) + "]",
                    call.types,
                    call.room,
                ),
                seconds=STATEMENT_SECONDS,
            )
            crash_at("after_commit")
            answer: dict[str, Any] = rows[0][0] or {}
            call.begun = answer.get("begun") or []
        return answer

    async def _refused(self, completion: Completion, error: BaseException) -> None:
        """The database refuses this one result: the step fails with that reason, so that it is not lost."""
        reason = _first_line(error)
        completion.log(logging.ERROR, "its result was refused: %s", reason)
        completion.body = failure("result_refused", f"the database refused the result: {reason}", retryable=False)
        try:
            await self._call([completion])
        except (psycopg.Error, OSError, TimeoutError) as again:
            # Its lease runs out, and the step is taken up again: at most five times.
            completion.log(logging.ERROR, "nor can it be failed: %s", _first_line(again))
        completion.recorded()


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
