"""`stellwerk demo`: an example application, from plain INSERTs to finished cases.

The application's side and Stellwerk's side are kept apart on purpose: the rows come in over an ordinary connection
that knows nothing of Stellwerk, and everything that is printed is read back in SQL.
"""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import socket
import sys
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from stellwerk import json_text
from stellwerk.cli.output import listing, progress, say
from stellwerk.cli.processes import run_until_stopped
from stellwerk.cli.trace import trace
from stellwerk.database import pool, queue, schema
from stellwerk.engine import Engine
from stellwerk.errors import InvalidDefinition, StellwerkError, UsageError
from stellwerk.resources import folder
from stellwerk.settings import Settings

DEFAULT_PORT = 8000
PATIENCE_SECONDS = 60.0
ENDED = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Example:
    """A folder of `examples`: tables.sql, data.sql, connect.sql, requests.sql and workflows."""

    name: str
    place: Path

    @classmethod
    def find(cls, name: str) -> Example:
        """The example with that name."""
        there = {place.name: place for place in folder("examples").iterdir() if (place / "requests.sql").exists()}
        if name not in there:
            raise UsageError(f"there is no example {name!r}", hint=f"There are: {', '.join(sorted(there))}.")
        return cls(name, there[name])

    def sql(self, name: str) -> bytes:
        """The statements of one of its files."""
        return (self.place / name).read_bytes()

    def documents(self) -> list[Path]:
        """Its workflows."""
        return sorted((self.place / "workflows").glob("*.json"))


def demo(name: str, once: bool, port: int) -> None:
    """Set the example up, run it, tell what happened; without `once`, stay."""
    _speak_utf8()
    _log_to_standard_error()
    example = Example.find(name)
    settings = Settings.from_environment()
    progress("The database …" if settings.database_url else f"PostgreSQL in {settings.home} …")
    dsn = pool.resolve(settings)
    if applied := schema.migrate(dsn):
        progress(f"The schema stellwerk: {len(applied)} files applied.")
    slugs = _set_up(example, settings, dsn)
    _run(example, settings, dsn, slugs, None if once else port)


def _set_up(example: Example, settings: Settings, dsn: str) -> list[str]:
    """The application's tables, then what ties them to workflows; what is there already is kept."""
    with _application(example, dsn) as application:
        application.execute("set client_min_messages = warning")
        application.execute(example.sql("tables.sql"))
        application.execute(example.sql("data.sql"))
    progress(f"The tables of {example.name}, with some rows that the application has already.")
    with pool.connect(settings, dsn=dsn) as connection:
        stellwerk = Engine(connection)
        connection.execute(example.sql("connect.sql"))
        return [_publish(stellwerk, path) for path in example.documents()]


def _publish(stellwerk: Engine, path: Path) -> str:
    from stellwerk.definition.compile import compile_workflow  # here, because the SQL parser takes a while to load

    compiled = compile_workflow(json_text.decode(path.read_bytes(), f"file {path.name}"))
    if errors := [problem for problem in compiled.problems if problem.severity == "error"]:
        raise InvalidDefinition(
            f"the workflow {path.name} has errors",
            "\n".join(f"{problem.path}: {problem.message}" for problem in errors),
        )
    slug = str(compiled.document["slug"])
    if version := _published_as_it_is(stellwerk, slug, compiled.document):
        progress(f"The workflow {slug}, version {version}.")
        return slug
    with stellwerk.connection.transaction():
        stellwerk.save_workflow(compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems])
        version = stellwerk.publish_workflow(slug)
    progress(f"The workflow {slug}, published as version {version}.")
    return slug


def _published_as_it_is(stellwerk: Engine, slug: str, document: object) -> int | None:
    """The active version, if it has this document and its watches stand."""
    rows = stellwerk.rows(
        "select v.version, v.document from stellwerk.workflow w join stellwerk.workflow_version v"
        " on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id and v.version = w.active_version"
        " where w.tenant_id = stellwerk.current_tenant_id() and w.slug = %s"
        " and exists (select from stellwerk.table_watch t"
        " join stellwerk.watch_trouble(w.tenant_id) x on x.watch_id = t.watch_id"
        " where t.tenant_id = w.tenant_id and t.workflow_id = w.workflow_id and x.trouble is null)",
        [slug],
    )
    return int(rows[0]["version"]) if rows and rows[0]["document"] == document else None


def _run(example: Example, settings: Settings, dsn: str, slugs: list[str], port: int | None) -> None:
    """Worker, web unless `port` is None, and the story, in one process."""
    queue.pin_environment()
    from stellwerk.web.server import serve
    from stellwerk.worker.run import run_worker

    listener = None if port is None else _listen(port)

    async def story(stop: asyncio.Event, ready: asyncio.Event) -> None:
        given_up = threading.Event()
        await _first(ready.wait(), stop.wait())
        telling = asyncio.create_task(asyncio.to_thread(_tell, example, settings, dsn, slugs, given_up))
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({telling, stopped}, return_when=asyncio.FIRST_COMPLETED)
        given_up.set()
        await telling
        if listener is not None:
            _invite(f"http://127.0.0.1:{listener.getsockname()[1]}")
            await stopped
        stopped.cancel()

    def parts(stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        ready = asyncio.Event()
        return [
            run_worker(settings, dsn=dsn, stop=stop, ready=ready),
            story(stop, ready),
            *([serve(dsn, listener, stop)] if listener is not None else []),
        ]

    run_until_stopped(parts)


def _tell(example: Example, settings: Settings, dsn: str, slugs: list[str], given_up: threading.Event) -> None:
    """Insert the rows as the application would, wait for the runs, print them."""
    with pool.connect(settings, dsn=dsn) as connection:
        stellwerk = Engine(connection)
        mark = stellwerk.value("select coalesce(max(event_id), 0) from stellwerk.event")
        progress("The application inserts its rows.")
        _insert(example, dsn)
        runs = _wait(stellwerk, slugs, mark, given_up)
        if given_up.is_set():
            return
        for run in runs:
            say()
            for line in trace(stellwerk, run["run_id"]):
                say(line)
        say()
        numbers = [run["run_id"] for run in runs]
        cases = stellwerk.rows(
            "select run_id as run, case_id as case, payload ->> 'name' as name, status, note"
            " from stellwerk.backoffice_case"
            " where tenant_id = stellwerk.current_tenant_id() and run_id = any (%s::bigint[]) order by run_id",
            [numbers],
        )
        listing(cases, as_json=False, empty="No case.")
        failed = [run for run in runs if run["state"] != "completed"]
        if failed:
            number = failed[0]["run_id"]
            raise StellwerkError(
                f"{len(failed)} of {len(runs)} runs did not complete",
                stellwerk.why(number),
                f"`stellwerk run show {number}` shows every step.",
            )


def _insert(example: Example, dsn: str) -> None:
    """Plain INSERTs over an ordinary connection: no tenant, no setting, no function of ours."""
    with _application(example, dsn) as application:
        application.execute(example.sql("requests.sql"))


def _application(example: Example, dsn: str) -> pool.Connection:
    return psycopg.connect(dsn, autocommit=True, application_name=example.name, client_encoding="UTF8")


def _wait(stellwerk: Engine, slugs: list[str], mark: int, given_up: threading.Event) -> list[dict[str, Any]]:
    """The runs that the new events started, once all of them have ended."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        # A new session's event numbers are higher than any before it, so the mark divides them.
        events = stellwerk.rows(
            "select e.event_id, e.state as event_state, e.reason, e.run_id, r.state from stellwerk.event e"
            " join stellwerk.table_watch w on w.tenant_id = e.tenant_id and w.watch_id = e.watch_id"
            " join stellwerk.workflow f on f.tenant_id = w.tenant_id and f.workflow_id = w.workflow_id"
            " left join stellwerk.run_overview r on r.run_id = e.run_id"
            " where e.tenant_id = stellwerk.current_tenant_id() and e.event_id > %s and f.slug = any (%s)"
            " order by e.event_id",
            [mark, slugs],
        )
        if not events:
            raise StellwerkError(
                "the new rows started nothing",
                hint="`stellwerk watches` shows which tables are watched, and what is wrong.",
            )
        for event in events:
            if event["event_state"] in ("failed", "ignored"):
                raise StellwerkError(
                    f"event {event['event_id']} started no run",
                    event["reason"],
                    "`stellwerk watches` shows the watched tables.",
                )
        late = [event for event in events if event["state"] not in ENDED]
        if not late or given_up.is_set():
            return events
        if time.monotonic() > until:
            number = late[0]["run_id"]
            raise StellwerkError(
                f"{len(late)} of {len(events)} runs have not ended after {PATIENCE_SECONDS:g} s",
                "the events have not become runs yet" if number is None else stellwerk.why(number),
                "`stellwerk doctor` says what may be wrong.",
            )
        given_up.wait(0.05)


def _invite(place: str) -> None:
    called = Path(sys.argv[0])
    program = str(called) if called.name == "stellwerk" and shutil.which("stellwerk") is None else "stellwerk"
    say()
    say("A worker is running. In another terminal:")
    say(f"  {program} run list")
    say(f"  {program} run show 1")
    say(f"  {program} db psql")
    say(f"The web process answers at {place}/healthz. Ctrl-C ends everything; the data stay.")
    sys.stdout.flush()


def _listen(port: int) -> socket.socket:
    """The port that was asked for; instead of the usual one, if that is taken, any that is free."""
    from stellwerk.web.server import listen

    try:
        return listen("127.0.0.1", port)
    except StellwerkError:
        if port != DEFAULT_PORT:
            raise
        progress(f"Port {port} is taken; the web takes another one.")
        return listen("127.0.0.1", 0)


async def _first(*things: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.ensure_future(thing) for thing in things]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _speak_utf8() -> None:
    """Cases and glyphs are not ASCII, whatever the terminal's language is."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def _log_to_standard_error() -> None:
    """What executors log is part of the story; of the worker only what went wrong is."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("  %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("stellwerk.step").setLevel(logging.INFO)
