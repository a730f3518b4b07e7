"""`stellwerk demo`: an example application, from plain INSERTs to finished cases.

The application's side and Stellwerk's side are kept apart on purpose: the rows come in over an ordinary connection
that knows nothing of Stellwerk, and everything that is printed is read back in SQL.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import shutil
import socket
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from stellwerk import json_text
from stellwerk.cli.output import listing, progress, say
from stellwerk.cli.processes import FIRST_ADMIN, first_invitation, run_until_stopped
from stellwerk.database import pool, queue, schema
from stellwerk.engine import Engine
from stellwerk.errors import InvalidDefinition, StellwerkError, UsageError
from stellwerk.resources import folder
from stellwerk.settings import Settings

DEFAULT_PORT = 8000
OWN_DATABASE = "stellwerk_demo"


@dataclass(frozen=True)
class Example:
    """A folder of `examples`: tables.sql, data.sql, connect.sql, story.json and workflows."""

    name: str
    place: Path

    @classmethod
    def find(cls, name: str) -> Example:
        """The example with that name."""
        there = {place.name: place for place in folder("examples").iterdir() if (place / "story.json").exists()}
        if name not in there:
            raise UsageError(f"there is no example {name!r}", hint=f"There are: {', '.join(sorted(there))}.")
        return cls(name, there[name])

    def sql(self, name: str) -> bytes:
        """The statements of one of its files."""
        return (self.place / name).read_bytes()

    def files(self) -> list[Path]:
        """The files of its workflows."""
        return sorted((self.place / "workflows").glob("*.json"))

    def documents(self) -> list[dict[str, Any]]:
        """Its workflows."""
        return [json.loads(path.read_bytes()) for path in self.files()]

    def admin(self) -> str:
        """Who of its people may do everything."""
        return next((user["email"] for user in self.script().get("users", []) if user["role"] == "admin"), FIRST_ADMIN)

    def script(self) -> dict[str, Any]:
        """Its story."""
        script: dict[str, Any] = json.loads((self.place / "story.json").read_bytes())
        return script


def demo(name: str, once: bool, port: int) -> None:
    """Set the example up and play its story; without `once`, stay."""
    _speak_utf8()
    _log_to_standard_error()
    example = Example.find(name)
    settings = Settings.from_environment()
    progress("The database …" if settings.database_url else f"PostgreSQL in {settings.home} …")
    dsn = pool.resolve(settings)
    _migrate(dsn)
    queue.pin_environment()
    reason = _trouble(example, dsn)
    if reason is not None and once:
        dsn = _own_database(settings, dsn, reason)
        _migrate(dsn)
        reason = None
    _set_up(example, settings, dsn)
    if reason is None:
        _tell(example, settings, dsn)
    else:
        progress(f"The story is not played here, for its clock runs ahead, and {reason}.")
        progress("`stellwerk demo --once` plays it in a database of its own.")
    if not once:
        _stay(example, settings, dsn, port)


def _migrate(dsn: str) -> None:
    if applied := schema.migrate(dsn):
        progress(f"The schema stellwerk: {len(applied)} files applied.")


def _trouble(example: Example, dsn: str) -> str | None:
    from stellwerk.cli import story

    with psycopg.connect(dsn, autocommit=True) as connection:
        return story.trouble(connection, [str(document["slug"]) for document in example.documents()])


def _own_database(settings: Settings, dsn: str, reason: str) -> str:
    """A fresh one beside the embedded server's usual one; on somebody else's server nothing is made."""
    if settings.database_url is not None:
        raise StellwerkError(
            f"the story is not played in this database: {reason}, and the story's clock would run ahead for that too",
            hint="Name an empty database in DATABASE_URL; without DATABASE_URL an embedded one starts by itself.",
        )
    progress(f"The usual database is left alone: {reason}. The story gets one of its own, {OWN_DATABASE}.")
    name = sql.Identifier(OWN_DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        try:
            connection.execute(sql.SQL("drop database if exists {}").format(name))
        except psycopg.errors.ObjectInUse:
            raise StellwerkError(
                f"the database {OWN_DATABASE} is in use",
                hint="Another demo is played there; try again when it is over.",
            ) from None
        connection.execute(sql.SQL("create database {}").format(name))
    return make_conninfo(dsn, dbname=OWN_DATABASE)


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
        return [_publish(stellwerk, path) for path in example.files()]


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


def _tell(example: Example, settings: Settings, dsn: str) -> None:
    """Play the story, then show what the backoffice sees."""
    from stellwerk.cli.story import Story

    with Story(example.script(), example.documents(), settings, dsn, say) as story:
        runs = story.play()
    with pool.connect(settings, dsn=dsn) as connection:
        stellwerk = Engine(connection)
        say()
        cases = stellwerk.rows(
            "select run_id as run, case_id as case, payload ->> 'name' as name, status, note"
            " from stellwerk.case_overview where run_id = any (%s::bigint[]) order by run_id",
            [[run["run_id"] for run in runs]],
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


def _stay(example: Example, settings: Settings, dsn: str, port: int) -> None:
    """Worker and web in one process, by the real clock, until told to end."""
    from stellwerk.web.server import serve
    from stellwerk.worker.run import run_worker

    listener = _listen(port)

    async def invite(stop: asyncio.Event, ready: asyncio.Event) -> None:
        await _first(ready.wait(), stop.wait())
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"
        admin = example.admin()
        _invite(place, admin, first_invitation(settings, dsn, place, admin))
        await stop.wait()

    def parts(stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        ready = asyncio.Event()
        return [
            run_worker(settings, dsn=dsn, stop=stop, ready=ready),
            invite(stop, ready),
            serve(dsn, listener, stop),
        ]

    run_until_stopped(parts)


def _application(example: Example, dsn: str) -> pool.Connection:
    return psycopg.connect(dsn, autocommit=True, application_name=example.name, client_encoding="UTF8")


def _invite(place: str, admin: str, link: str | None) -> None:
    called = Path(sys.argv[0])
    program = str(called) if called.name == "stellwerk" and shutil.which("stellwerk") is None else "stellwerk"
    say()
    say("From here on the clock is the real one; a worker and the pages are running.")
    if link is None:
        say(f"Log in at {place}/")
    else:
        say(f"Choose a password for {admin} and look around:")
        say(f"  {link}")
    say("Or in another terminal:")
    say(f"  {program} case list")
    say(f"  {program} run show 1")
    say(f"  {program} db psql")
    say(f"  curl -d name=Ada -d email=ada@example.org {place}/forms/default/kontakt")
    say("Ctrl-C ends everything; the data stay.")
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
    logging.getLogger("stellwerk.worker.mail").setLevel(logging.ERROR)  # no mail leaves a demo
