"""One worker process, put together: listener, pump, queue, steps, completions; from registering to leaving."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Mapping
from typing import Any

import psycopg

from stellwerk.errors import DatabaseUnavailable, UsageError, from_database
from stellwerk.executors import Executor, find_executors
from stellwerk.settings import Settings
from stellwerk.worker.connections import Connections, connect, worker_conninfo
from stellwerk.worker.driver import CHANNEL, PoolDriver
from stellwerk.worker.effects import Gate
from stellwerk.worker.exports import ENTRYPOINT, CaseExports
from stellwerk.worker.jobs import Jobs
from stellwerk.worker.listener import Listener
from stellwerk.worker.mail import ENTRYPOINT as MAIL
from stellwerk.worker.mail import Mails
from stellwerk.worker.mail_server import MailServer
from stellwerk.worker.presence import Presence
from stellwerk.worker.pump import Pump
from stellwerk.worker.steps import Steps
from stellwerk.worker.tracing import Tracing, set_up

log = logging.getLogger(__name__)

DEFAULT_CONCURRENCY = 100
GRACE_SECONDS = 20.0
ROLE = "stellwerk_worker"
SOON_SECONDS = 5.0


async def run_worker(
    settings: Settings,
    *,
    dsn: str,
    concurrency: int = DEFAULT_CONCURRENCY,
    only: Collection[str] = (),
    drain: bool = False,
    stop: asyncio.Event | None = None,
    ready: asyncio.Event | None = None,
    executors: Mapping[str, Executor[Any, Any]] | None = None,
    grace_seconds: float = GRACE_SECONDS,
    as_login: bool = False,
    tracing: Tracing | None = None,
) -> None:
    """Work until `stop` is set; with `drain`, until nothing is left to do.

    `only` limits the node types that this worker carries out; it pumps in any case. `ready` is set once it listens.
    `as_login` leaves out the worker's role: only who owns the schema may go by a shifted clock, for tests and demos.
    Raises `DatabaseUnavailable` when there is no database at the start; later it waits for a lost one.
    """
    stop = stop or asyncio.Event()
    mail_server = MailServer.from_url(settings.smtp_url) if settings.smtp_url else None
    chosen = _choose(find_executors() if executors is None else executors, only)
    role = None if as_login else await _role(dsn)
    connections = Connections(worker_conninfo(dsn, "stellwerk-worker", role))
    listener = Listener(worker_conninfo(dsn, "stellwerk-listener", role))
    presence = Presence(sorted(chosen))
    listener.on_connect.append(presence.take)
    listener.on_lost.append(lambda: connections.doubt(2.0))
    driver = PoolDriver(connections, listener)
    gate = Gate(settings.allowed_hosts)
    tracing = tracing or set_up()
    steps = Steps(connections, chosen, gate, lambda: presence.worker_id, concurrency, driver.wake, tracing=tracing)
    jobs = Jobs(driver, steps.room.jobs)
    steps.made_room = jobs.made_room
    jobs.serve_steps(chosen, steps.handle)
    if not only:
        jobs.serve(ENTRYPOINT, CaseExports(connections).handle)
        jobs.serve(MAIL, Mails(connections, gate, settings.base_url, mail_server).handle)
    pump = Pump(connections, listener, worker_conninfo(dsn, "stellwerk-bell", role), driver.wake, steps)
    listener.ignore(CHANNEL, connections.knows)  # what our own statements enqueue is announced in the process

    async with _running(listener.run()) as listening:
        await _first_of(listener.listening.wait(), listening)
        if ready is not None:
            ready.set()
        log.info("carrying out %s, %d at a time", ", ".join(sorted(chosen)) or "nothing", concurrency)
        async with (
            _running(steps.completions.run()) as completing,
            _running(steps.run()) as beginning,
            _running(steps.keep_leases()) as leasing,
            _running(pump.run()) as pumping,
            _running(jobs.serve_until_shutdown()) as serving,
        ):
            ends = [stop.wait(), *([_drained(connections, pump, steps, [*chosen, ENTRYPOINT, MAIL])] if drain else [])]
            try:
                await _first_of(_any(ends), listening, completing, beginning, leasing, pumping, serving)
            finally:
                log.info("stopping: %d steps in hand", steps.in_hand)
                pump.stop()
                jobs.shutdown.set()
                steps.stop()
                driver.shutdown.set()
                await steps.finish(grace_seconds)
                await asyncio.wait({serving, pumping}, timeout=5.0)
                with contextlib.suppress(psycopg.Error, OSError, TimeoutError, RuntimeError):
                    await connections.tuples("select stellwerk.ring('job')")
                    await presence.leave(connections)
    await gate.aclose()
    await connections.close()
    await asyncio.to_thread(tracing.end)
    log.info("stopped")


def _choose(found: Mapping[str, Executor[Any, Any]], only: Iterable[str]) -> dict[str, Executor[Any, Any]]:
    wanted = list(only)
    unknown = [node_type for node_type in wanted if node_type not in found]
    if unknown:
        raise UsageError(
            f"no executor is installed for {', '.join(unknown)}", hint=f"There are: {', '.join(sorted(found))}."
        )
    return {node_type: executor for node_type, executor in found.items() if not wanted or node_type in wanted}


async def _role(dsn: str) -> str | None:
    """The role that workers act as, where it exists, may be taken and has been let in; else they act as the login."""
    try:
        async with await connect(worker_conninfo(dsn, "stellwerk-worker")) as connection:
            cursor = await connection.execute(
                "select r.rolname from pg_roles r where r.rolname = %s and pg_has_role(current_user, r.oid, 'member')"
                " and has_schema_privilege(r.oid, to_regnamespace('stellwerk')::oid, 'usage')"
                " and has_table_privilege(r.oid, to_regclass('stellwerk_queue.pgqueuer')::oid, 'update')",
                (ROLE,),
            )
            row = await cursor.fetchone()
            return str(row[0]) if row else None
    except (OSError, TimeoutError):
        raise DatabaseUnavailable("the database does not answer", hint="Check DATABASE_URL.") from None
    except psycopg.Error as error:
        raise from_database(error) from None


async def _drained(connections: Connections, pump: Pump, steps: Steps, types: list[str]) -> None:
    """Returns when a look at everything, twice in a row, found nothing to do now or within a few seconds."""
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(0.1)
        rows = await connections.tuples("select stellwerk.queue_holds($1, $2)", (types, SOON_SECONDS))
        busy = rows[0][0] or steps.in_hand or not pump.idle
        soon = pump.next_due is not None and pump.next_due < SOON_SECONDS
        quiet = 0 if busy or soon else quiet + 1
        pump.look()


@contextlib.asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=10.0)
        if task.done() and not task.cancelled():
            task.exception()  # seen by _first_of already, if it mattered


async def _first_of(awaited: Coroutine[Any, Any, Any], *supports: asyncio.Task[None]) -> None:
    """Wait for the first; one of the others that ends meanwhile brings its error here."""
    waiting = asyncio.ensure_future(awaited)
    try:
        done, _ = await asyncio.wait({waiting, *supports}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not waiting.done():
            waiting.cancel()
    for task in done:
        task.result()
    if waiting not in done:
        raise RuntimeError("a part of the worker ended by itself")


async def _any(endings: list[Coroutine[Any, Any, Any]]) -> None:
    tasks = [asyncio.ensure_future(ending) for ending in endings]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
