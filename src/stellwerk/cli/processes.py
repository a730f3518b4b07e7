"""`stellwerk up`, `worker`, `web`, `demo`: the commands that stay."""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import typer

from stellwerk import logs
from stellwerk.cli.output import progress, say
from stellwerk.database import pool, queue, schema
from stellwerk.settings import Settings

PORT = typer.Option(8000, "--port", help="Port of the web pages.", min=0, max=65535)
FIRST_ADMIN = "admin@stellwerk.local"
CONCURRENCY = typer.Option(100, "--concurrency", help="Steps carried out at the same time.", min=1, max=1000)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    if importlib.util.find_spec("stellwerk.cli.demo"):
        app.command()(demo)
    app.command()(up)
    app.command()(worker)
    app.command()(web)


def demo(
    name: str = typer.Argument("praxis", help="The example application."),
    once: bool = typer.Option(False, "--once", help="Run it, print what happened, and end."),
    port: int = PORT,
) -> None:
    """Run an example application with worker and web."""
    importlib.import_module("stellwerk.cli.demo").demo(name, once, port)


def up(
    port: int = PORT,
    workers: int = typer.Option(1, "--workers", help="Workers inside this process.", min=1, max=32),
) -> None:
    """Migrate, then run worker and web in one process."""
    settings = _prepared()
    dsn = pool.resolve(settings)
    schema.migrate(dsn, report=progress)
    from stellwerk.web.server import listen, serve

    listener = listen("127.0.0.1", port)
    place = f"http://127.0.0.1:{listener.getsockname()[1]}"
    say(f"Stellwerk is up: {place}/, {workers} worker{'s' if workers > 1 else ''}.")
    if link := first_invitation(settings, dsn, place):
        say(f"Nobody can log in yet. Choose the password of {FIRST_ADMIN} here, within a week: {link}")
    run_until_stopped(
        lambda stop: [
            serve(dsn, listener, stop),
            *(work(settings, dsn, WorkerOptions(), stop) for _ in range(workers)),
        ]
    )


def first_invitation(settings: Settings, dsn: str, place: str, admin: str = FIRST_ADMIN) -> str | None:
    """A link for the first admin, where nobody has a password yet and no other admin is there to invite people; an
    earlier link stops working."""
    from stellwerk.cli.user import invitation_link
    from stellwerk.engine import Engine
    from stellwerk.web.access import digest, new_secret

    with pool.connect(settings, dsn=dsn) as connection:
        engine = Engine(connection)
        users = engine.rows(
            "select u.email, u.role,"
            " exists (select from stellwerk.user_password p where p.tenant_id = u.tenant_id) as entered"
            " from stellwerk.app_user u where u.tenant_id = stellwerk.current_tenant_id()"
        )
        known = {user["email"] for user in users}
        if any(user["entered"] or (user["role"] == "admin" and user["email"] != admin) for user in users):
            return None
        if not engine.value("select (stellwerk.current_person(stellwerk.current_tenant_id())).admin"):
            return None  # whoever runs this may not manage users: somebody else lets the first one in
        if admin not in known:
            engine.add_user(admin, "admin")
        secret = new_secret(int(engine.value("select stellwerk.current_tenant_id()")))
        engine.invite_user(admin, digest(secret))
    return invitation_link(settings.base_url if os.environ.get("STELLWERK_BASE_URL") else place, secret)


def worker(
    concurrency: int = CONCURRENCY,
    only: list[str] = typer.Option([], "--only", help="Carry out this node type only; may be given again."),
    drain: bool = typer.Option(False, "--drain", help="End when there is nothing left to do."),
) -> None:
    """Carry out steps and keep runs moving."""
    settings = _prepared()
    dsn = _current(settings)
    options = WorkerOptions(concurrency, tuple(only), drain)
    run_until_stopped(lambda stop: [work(settings, dsn, options, stop)])


def web(
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on."),
    port: int = PORT,
) -> None:
    """Serve the web application."""
    settings = _prepared()
    dsn = _current(settings)
    from stellwerk.web.server import listen, serve

    listener = listen(host, port)
    say(f"Listening on {host} port {listener.getsockname()[1]}.")
    run_until_stopped(lambda stop: [serve(dsn, listener, stop)])


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker works."""

    concurrency: int = 100
    only: tuple[str, ...] = ()
    drain: bool = False


async def work(settings: Settings, dsn: str, options: WorkerOptions, stop: asyncio.Event) -> None:
    """A worker until `stop` is set, or, draining, until there is nothing left."""
    queue.pin_environment()
    from stellwerk.worker.run import run_worker

    _collect_garbage_seldom()
    await run_worker(
        settings,
        dsn=dsn,
        concurrency=options.concurrency,
        only=options.only,
        drain=options.drain,
        stop=stop,
    )


def run_until_stopped(parts: Callable[[asyncio.Event], list[Coroutine[Any, Any, None]]]) -> None:
    """Run coroutines until SIGTERM or SIGINT, or until the first of them ends; a second signal ends at once."""

    async def everything() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def asked() -> None:
            if stop.is_set():
                os._exit(130)
            progress("stopping; once more ends at once")
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked)
        tasks = [asyncio.create_task(part) for part in parts(stop)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    try:
        import uvloop
    except ImportError:
        asyncio.run(everything())
    else:
        uvloop.run(everything())


def _collect_garbage_seldom() -> None:
    """A worker makes hundreds of tasks at once that live for a moment, and few circles: to look for these less often
    saves it a quarter of its time. What has been loaded is not looked at again at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _prepared() -> Settings:
    settings = Settings.from_environment()
    form = settings.log_format or ("text" if sys.stderr.isatty() else "json")
    logs.set_up(form)
    return settings


def _current(settings: Settings) -> str:
    """The connection string of a database that has everything this release calls."""
    dsn = pool.resolve(settings)
    if settings.database_url is None:
        schema.migrate(dsn, report=progress)
    with pool.connect(settings, dsn=dsn) as connection:
        schema.check_server(connection.info.server_version)
        schema.require_current(connection)
    return dsn
