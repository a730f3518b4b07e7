"""`stellwerk db …`: the database and its schema."""

from __future__ import annotations

import shutil
import subprocess

import psycopg
import typer

from stellwerk.cli.output import JSON, listing, progress, say, to_json
from stellwerk.database import pool, schema
from stellwerk.database.embedded import Embedded
from stellwerk.errors import UsageError
from stellwerk.settings import Settings

app = typer.Typer(help="The database and its schema.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def migrate(
    dry_run: bool = typer.Option(False, "--dry-run", help="Apply everything and take it back: shows what is missing."),
    force: bool = typer.Option(False, "--force", help="Load all functions and views again, changed or not."),
) -> None:
    """Bring the database to the state of this release."""
    dsn = pool.resolve(Settings.from_environment())
    try:
        names = schema.migrate(dsn, dry_run=dry_run, force=force, report=progress)
    except psycopg.OperationalError as error:
        if error.sqlstate is None:
            raise pool.unreachable(dsn, error) from None
        raise
    if not names:
        say("The database is up to date.")
    elif dry_run:
        say(f"{len(names)} files would be applied; they were tried and taken back.")
    else:
        say(f"{len(names)} files applied.")


@app.command()
def status(as_json: bool = JSON) -> None:
    """Which files of this release the database has; exits with 1 if any is missing."""
    dsn = pool.resolve(Settings.from_environment())
    try:
        entries = schema.status(dsn)
    except psycopg.OperationalError as error:
        raise pool.unreachable(dsn, error) from None
    rows = [{"file": entry.name, "state": entry.state, "applied_at": entry.applied_at} for entry in entries]
    listing(rows, as_json=as_json, empty="This release has no files.")
    if any(entry.state != "applied" for entry in entries):
        raise typer.Exit(1)


@app.command()
def url() -> None:
    """Print the connection string; starts the embedded server if there is no DATABASE_URL."""
    settings = Settings.from_environment()
    dsn = pool.resolve(settings)
    say(settings.database_url or dsn)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(context: typer.Context) -> None:
    """Open psql on the database; what follows is handed to it, such as -c 'select 1'."""
    settings = Settings.from_environment()
    dsn = pool.resolve(settings)
    program = shutil.which("psql")
    if settings.database_url is None:
        beside = Embedded(settings.home).binaries / "psql"
        program = str(beside) if beside.exists() else program
    if program is None:
        raise UsageError("there is no psql on this machine", hint="Install PostgreSQL's client tools.")
    raise typer.Exit(subprocess.run([program, settings.database_url or dsn, *context.args], check=False).returncode)


@app.command()
def start() -> None:
    """Start the embedded server and keep it up until `db stop`."""
    say(_embedded().start(stay=True))


@app.command()
def stop() -> None:
    """Stop the embedded server, whoever uses it."""
    say("The server has been stopped." if _embedded().stop() else "The server did not run.")


@app.command()
def reset(
    yes: bool = typer.Option(False, "--yes", help="Really delete all workflows, runs and cases."),
    as_json: bool = JSON,
) -> None:
    """Delete the schema with everything in it, the triggers on watched tables included, and make it anew."""
    if not yes:
        raise UsageError(
            "this deletes every workflow, run and case of the database", hint="Say it again with --yes if you mean it."
        )
    settings = Settings.from_environment()
    dsn = pool.resolve(settings)
    with pool.connect(settings, dsn=dsn) as connection, connection.transaction():
        connection.execute("set local client_min_messages = warning")
        connection.execute("drop schema if exists stellwerk cascade")
        connection.execute("drop schema if exists stellwerk_queue cascade")
    names = schema.migrate(dsn)
    say(to_json({"files": len(names)}) if as_json else f"The schema is new: {len(names)} files applied.")


def _embedded() -> Embedded:
    settings = Settings.from_environment()
    if settings.database_url is not None:
        raise UsageError(
            "DATABASE_URL names a database, and its server is not ours to start or stop",
            hint="Leave DATABASE_URL out to speak of the embedded server.",
        )
    return Embedded(settings.home)
