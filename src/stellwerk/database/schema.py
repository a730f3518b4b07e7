"""Brings a database to the state of this release: `migrations/` once each, then `sql/` whole, in one transaction."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from stellwerk import resources
from stellwerk.database import pg_cron, queue, roles
from stellwerk.database.statements import Statement, split
from stellwerk.errors import DatabaseUnavailable, MigrationFailed, SchemaOutdated

OLDEST_SERVER = 150000
LOCK_KEY = 0x57E11  # any fixed number: one migrator at a time in a database
LOCK_TIMEOUT = "2s"
ATTEMPTS = 5
WAIT_FOR_OTHERS_SECONDS = 120

Connection = psycopg.Connection[Any]
Report = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """A file of `migrations/` or `sql/`."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def concurrent(self) -> bool:
        """Runs outside the transaction, statement by statement, and may be repeated."""
        return self.name.endswith(".concurrent.sql")


@dataclass(frozen=True)
class Entry:
    """What `db status` says about one file."""

    name: str
    state: str  # applied, pending, changed, unknown
    applied_at: str | None


@dataclass(frozen=True)
class Plan:
    """What a database lacks."""

    queue: bool
    migrations: list[File]
    functions: list[File]

    @property
    def names(self) -> list[str]:
        return [*(["queue"] if self.queue else []), *(f.name for f in (*self.migrations, *self.functions))]


def migrate(
    dsn: str,
    *,
    dry_run: bool = False,
    force: bool = False,
    root: Path | None = None,
    report: Report = lambda text: None,
) -> list[str]:
    """Apply what is missing and return its names; `force` loads `sql/` also where nothing changed.

    A dry run does everything and takes it back, but for files named `….concurrent.sql`, which it only names.
    Raises `MigrationFailed` with file and line, and leaves the database as it was.
    """
    with psycopg.connect(dsn, autocommit=True, application_name="stellwerk-migrate") as connection:
        check_server(connection.info.server_version)
        with _one_at_a_time(connection, report):
            plan = _with_patience(lambda: _apply(connection, files(root), dry_run, force, report), report)
            for file in plan.migrations:
                if file.concurrent and not dry_run:
                    report(f"{file.name} (outside the transaction)")
                    _run_concurrently(connection, file)
            if not dry_run:
                pg_cron.set_up(connection, report)
    return plan.names


def status(dsn: str, root: Path | None = None) -> list[Entry]:
    """Every file, and whether the database has it."""
    with psycopg.connect(dsn, application_name="stellwerk-status") as connection:
        check_server(connection.info.server_version)
        return entries(connection, root)


def entries(connection: Connection, root: Path | None = None) -> list[Entry]:
    """As `status`, over an open connection."""
    have = _applied(connection)
    known = {"queue": queue.checksum()} | {f.name: f.checksum for f in files(root)}
    result = []
    for name in sorted(known.keys() | have.keys(), key=lambda n: (n != "queue", n)):
        checksum, at = have.get(name, (None, None))
        state = "applied" if checksum == known.get(name) else "changed"
        state = "unknown" if name not in known else "pending" if checksum is None else state
        result.append(Entry(name, state, at))
    return result


def require_current(connection: Connection) -> None:
    """Raise `SchemaOutdated` unless the database has everything that this release calls."""
    missing = [entry.name for entry in entries(connection) if entry.state in ("pending", "changed")]
    if missing:
        raise SchemaOutdated(
            f"the database lacks {len(missing)} of this release's files, {missing[0]} first",
            hint="Run `stellwerk db migrate`.",
        )


def check_server(version: int) -> None:
    """Refuse a server on which the functions would not load."""
    if version < OLDEST_SERVER:
        raise DatabaseUnavailable(
            f"the server is PostgreSQL {version // 10000}, and Stellwerk needs {OLDEST_SERVER // 10000} or later",
            hint="Point DATABASE_URL to a newer server, or leave it out to use the embedded one.",
        )


def files(root: Path | None = None) -> list[File]:
    """All files in the order in which they are applied."""
    found = []
    for name in ("migrations", "sql"):
        folder = root / name if root else resources.folder(name)
        found += [File(f"{name}/{path.name}", path.read_text("utf-8")) for path in sorted(folder.glob("*.sql"))]
    return found


# -- the transaction --------------------------------------------------------------------------------------------------


def _apply(connection: Connection, known: list[File], dry_run: bool, force: bool, report: Report) -> Plan:
    with connection.transaction(force_rollback=dry_run):
        connection.execute("set local statement_timeout = 0")
        connection.execute("set local client_min_messages = warning")
        connection.execute("set local check_function_bodies = on")
        connection.execute("set local search_path = ''")
        roles.become_owner(connection)
        connection.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        _ensure_register(connection)
        plan = _plan(_applied(connection), known, force)
        if plan.queue:
            report("queue")
            queue.install(connection)
            _record(connection, "queue", queue.checksum())
        for file in (*plan.migrations, *plan.functions):
            if not file.concurrent:
                report(file.name)
                _run(connection, file)
                _record(connection, file.name, file.checksum)
        if plan.functions:
            names = [file.name for file in plan.functions]
            connection.execute(
                "delete from stellwerk.migration where name like 'sql/%%' and not name = any(%s)", [names]
            )
    return plan


def _plan(have: dict[str, tuple[str, str]], known: list[File], force: bool) -> Plan:
    migrations = [file for file in known if file.name.startswith("migrations/")]
    functions = [file for file in known if file.name.startswith("sql/")]
    for file in migrations:
        if file.name in have and have[file.name][0] != file.checksum and not file.concurrent:
            raise MigrationFailed(
                f"{file.name} was changed after it had been applied",
                hint="Put its text back as it was, and write what is new into a new migration.",
            )
    ahead = sorted(have.keys() - {file.name for file in migrations})
    ahead = [name for name in ahead if name.startswith("migrations/")]
    if ahead:
        raise MigrationFailed(
            f"the database has {ahead[-1]}, which this release does not know",
            hint="It was migrated by a newer Stellwerk: run that one, for this one would put older functions back.",
        )
    texts = {name: checksum for name, (checksum, _) in have.items() if name.startswith("sql/")}
    same = texts == {file.name: file.checksum for file in functions}
    pending = [file for file in migrations if file.name not in have]
    return Plan(
        queue=have.get("queue", ("", ""))[0] != queue.checksum(),
        migrations=pending,
        functions=functions if force or not same or any(not file.concurrent for file in pending) else [],
    )


def _ensure_register(connection: Connection) -> None:
    if connection.execute("select to_regclass('stellwerk.migration')").fetchone() != (None,):
        return
    connection.execute("create schema if not exists stellwerk")
    connection.execute("comment on schema stellwerk is 'Stellwerk: workflows that rows start and that SQL can read.'")
    connection.execute("""
        create table stellwerk.migration (
          name        text        not null primary key,
          checksum    text        not null,
          applied_at  timestamptz not null default clock_timestamp(),
          applied_by  text        not null default session_user
        );
        comment on table stellwerk.migration is
          'Which files of a release this database has: migrations once each, files of sql/ as last loaded.';
        comment on column stellwerk.migration.name is 'Folder and file name; queue stands for pgqueuer''s tables.';
        comment on column stellwerk.migration.checksum is 'SHA-256 of the text; an applied migration never changes.';
        comment on column stellwerk.migration.applied_at is 'When the file was applied, for sql/ the last time.';
        comment on column stellwerk.migration.applied_by is 'The login that applied it.';
    """)


def _applied(connection: Connection) -> dict[str, tuple[str, str]]:
    if connection.execute("select to_regclass('stellwerk.migration')").fetchone() == (None,):
        return {}
    rows = connection.execute(
        "select name, checksum, to_char(applied_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'"
        " from stellwerk.migration"
    )
    return {name: (checksum, at) for name, checksum, at in rows.fetchall()}


def _record(connection: Connection, name: str, checksum: str) -> None:
    connection.execute(
        "insert into stellwerk.migration (name, checksum) values (%s, %s) on conflict (name)"
        " do update set checksum = excluded.checksum, applied_at = clock_timestamp(), applied_by = session_user",
        [name, checksum],
    )


def _run_concurrently(connection: Connection, file: File) -> None:
    connection.execute("set statement_timeout = 0")
    roles.become_owner(connection, local=False)
    try:
        _run(connection, file)
        _record(connection, file.name, file.checksum)
    finally:
        connection.execute("reset role")


def _run(connection: Connection, file: File) -> None:
    for statement in split(file.text):
        try:
            connection.execute(statement.text.encode())
        except psycopg.Error as error:
            if _worth_a_retry(error):
                raise
            line = statement.line + _line_within(statement, error) - 1
            raise MigrationFailed(
                f"{file.name}, line {line}: {error.diag.message_primary or error}",
                error.diag.message_detail,
                error.diag.message_hint,
            ) from None


def _line_within(statement: Statement, error: psycopg.Error) -> int:
    """The line of the statement that the error is about, counted from 1; its first line where the server is silent."""
    if at := error.diag.statement_position:
        return statement.text.count("\n", 0, int(at) - 1) + 1
    inner = error.diag.internal_query
    if (at := error.diag.internal_position) and inner and (begin := statement.text.find(inner)) >= 0:
        return statement.text.count("\n", 0, begin + int(at) - 1) + 1
    if near := re.search(r"compilation of PL/pgSQL function .* near line (\d+)", error.diag.context or ""):
        body = re.search(r"\$\w*\$", statement.text)
        return statement.text.count("\n", 0, body.end() if body else 0) + int(near[1])
    return 1


# -- others who are there ---------------------------------------------------------------------------------------------


@contextmanager
def _one_at_a_time(connection: Connection, report: Report) -> Iterator[None]:
    """Hold the migrator's lock. Asked for again and again: to wait inside a statement would hold a snapshot, for
    which `create index concurrently` waits in turn."""
    until, told = time.monotonic() + WAIT_FOR_OTHERS_SECONDS, False
    while connection.execute("select pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone() != (True,):
        if time.monotonic() > until:
            raise MigrationFailed(
                "another process has been migrating this database for two minutes",
                hint="Wait for it, or find it in pg_stat_activity under the name stellwerk-migrate.",
            )
        if not told:
            report("waiting for another process that is migrating this database")
            told = True
        time.sleep(0.2)
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", [LOCK_KEY])


def _with_patience(attempt: Callable[[], Plan], report: Report) -> Plan:
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except psycopg.Error as error:
            if not _worth_a_retry(error):
                raise
            if number == ATTEMPTS:
                raise MigrationFailed(
                    f"the tables were in use, {ATTEMPTS} times in a row: {error.diag.message_primary}",
                    hint="Try again when the application is quieter, or look for a long transaction in"
                    " pg_stat_activity.",
                ) from None
            report(f"in use, trying again: {error.diag.message_primary}")
            time.sleep(number * 0.5)
    raise AssertionError("the loop above returns or raises")


def _worth_a_retry(error: psycopg.Error) -> bool:
    concurrently = error.sqlstate == "XX000" and "concurrently" in str(error)  # two databases, one role
    return concurrently or error.sqlstate in ("55P03", "40P01", "40001")
