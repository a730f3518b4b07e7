"""Throw-away servers for the tests: PostgreSQL 18 from the wheel, and 15 where its binaries are found."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import testing.postgresql
from psycopg import sql

from stellwerk.database import embedded
from stellwerk.database.schema import migrate

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "150",
    "max_locks_per_transaction": "256",
    "autovacuum_naptime": "60s",
    "max_wal_size": "256MB",
    "timezone": "UTC",
}

# Databases of some 700 files are made for each test: in memory, where there is enough, ten times as fast as on a slow disk.
MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 6 * 1024**3

# The profiler of plpgsql_check, which tests/sql_coverage.py reads.
COUNTING = {"plpgsql_check.profiler": "on", "plpgsql_check.profiler_max_shared_chunks": "50000"}


def found() -> dict[int, Path]:
    """The folders of binaries by major version, newest first."""
    oldest = Path(os.environ.get("PG15_BIN", "/usr/lib/postgresql/15/bin"))
    versions = {version_of(oldest): oldest} if (oldest / "initdb").exists() else {}
    versions[18] = _from_the_wheel()
    return dict(sorted(versions.items(), reverse=True))


def version_of(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\d+", said)[0])


def has_library(folder: Path, name: str) -> bool:
    """Whether the server with these binaries has an extension's library."""
    return (folder.parent / "lib" / f"{name}.so").exists()


def _from_the_wheel() -> Path:
    """As the embedded server finds them, copied where the account that runs PostgreSQL cannot read them."""
    shared = Path(tempfile.gettempdir()) / f"stellwerk-test-binaries-{os.geteuid()}"
    shared.mkdir(mode=0o755, exist_ok=True)
    given = os.environ.pop("STELLWERK_PG_BIN", None)
    try:
        return embedded.binaries(shared, embedded.account())
    finally:
        if given:
            os.environ["STELLWERK_PG_BIN"] = given


def data_folder() -> str:
    """A new folder for a server's files, which is removed with the server."""
    roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_NEEDED
    return tempfile.mkdtemp(prefix="stellwerk-test-server-", dir=MEMORY if roomy else None)


class _Process(testing.postgresql.Postgresql):
    """The package's server; as root it runs under an unprivileged account, for PostgreSQL refuses root."""

    def initialize(self) -> None:
        super().initialize()
        owner = embedded.account()
        self.prefix: list[str] = []
        if owner:
            self.prefix = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"]
            os.chown(self.base_dir, owner.pw_uid, owner.pw_gid)

    def initialize_database(self) -> None:
        owner = embedded.account()
        if owner:
            for folder in self.subdirectories:
                os.chown(Path(self.base_dir) / folder, owner.pw_uid, owner.pw_gid)
        data = self.get_data_directory()
        command = [*self.prefix, self.initdb, "-D", data, "--lc-messages=C", *self.settings["initdb_args"].split()]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)

    def cleanup(self) -> None:
        super().cleanup()
        if self.child_process is None:
            shutil.rmtree(self.base_dir, ignore_errors=True)

    def get_server_commandline(self) -> list[str]:
        return [*self.prefix, *super().get_server_commandline()]


class Server:
    """A running server with a migrated template database."""

    template = "stellwerk_template"

    def __init__(
        self, version: int, folder: Path, *, count_statements: bool = False, more: dict[str, str] | None = None
    ) -> None:
        self.version = version
        self.binaries = folder
        self._numbers = itertools.count(1)
        self._migrated = False
        self._superuser: psycopg.Connection[Any] | None = None
        self._fresh: list[str] = []
        self.shared: list[str] = []
        self.counts_statements = count_statements and self._has_library("plpgsql_check")
        preload = [name for name in ("pg_cron",) if self._has_library(name)]
        settings = SETTINGS | (more or {})
        if self.counts_statements:
            preload.append("plpgsql_check")
            settings |= COUNTING
        if preload:
            settings["shared_preload_libraries"] = ",".join(preload)
        self._process = _Process(
            base_dir=data_folder(),
            initdb=str(folder / "initdb"),
            postgres=str(folder / "postgres"),
            initdb_args="-U postgres -A trust -E UTF8 --no-sync --locale=C",
            postgres_args="-h 127.0.0.1 " + " ".join(f"-c {name}={value}" for name, value in settings.items()),
            boot_timeout=60.0,
        )
        if self.counts_statements:
            self.execute("create extension plpgsql_check")

    def _has_library(self, name: str) -> bool:
        return has_library(self.binaries, name)

    @property
    def pid(self) -> int:
        """The number of the server's main process."""
        return int((Path(self._process.get_data_directory()) / "postmaster.pid").read_text().split()[0])

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self._process.settings['port']}/{database}"

    def execute(self, statement: str | sql.Composed, parameters: Sequence[Any] | None = None) -> psycopg.Cursor[Any]:
        """A statement of the superuser, outside a transaction; all of them over one connection."""
        connection = self._connected()
        try:
            return connection.execute(statement, parameters)
        except psycopg.OperationalError:
            if not connection.closed:  # else the server was started anew, or threw out who was connected
                raise
        return self._connected().execute(statement, parameters)

    def _connected(self) -> psycopg.Connection[Any]:
        if self._superuser is None or self._superuser.closed:
            self._superuser = psycopg.connect(self.dsn(), autocommit=True)
        return self._superuser

    def database(self, *, migrated: bool = True, owner: str = "postgres") -> str:
        """A new database's connection string; it goes with the server, or with `drop`."""
        name = f"test_{next(self._numbers)}"
        make = sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(owner))
        if migrated:
            self.migrate_template()
            make += sql.SQL(" template {} strategy file_copy").format(sql.Identifier(self.template))
        self.execute(make)
        self._fresh.append(name)
        return self.dsn(name)

    def drop(self, dsn: str) -> None:
        """Remove a database, whoever is still connected to it."""
        if self._process.is_alive():
            name = dsn.rpartition("/")[2]
            self.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def fresh_databases(self) -> list[str]:
        """The databases that were made since the last call or are shared, as far as they are still there."""
        made, self._fresh = self._fresh, list(self.shared)
        rows = self.execute("select datname from pg_database where datname = any (%s)", [made]).fetchall()
        return [self.dsn(name) for (name,) in rows]

    def migrate_template(self) -> None:
        if not self._migrated:
            self.execute(f"create database {self.template}")
            migrate(self.dsn(self.template))
            if self.counts_statements:
                # The profiler cannot bear cursors on transition tables, which this function opens.
                with psycopg.connect(self.dsn(self.template), autocommit=True) as connection:
                    connection.execute("alter function stellwerk.capture_statement() set plpgsql_check.profiler = off")
                    connection.execute("create extension plpgsql_check")
            self._migrated = True

    def stop(self) -> None:
        if self._superuser is not None:
            self._superuser.close()
        self._process.stop(signal.SIGQUIT)  # at once: nothing of it is kept
