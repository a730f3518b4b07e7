"""Where the benchmark runs: a server that it starts, or one that is given; in either case a database of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from stellwerk.database.embedded import Embedded
from stellwerk.database.schema import migrate
from stellwerk.web.passwords import hash_password

PLUGIN = Path(__file__).resolve().parent / "plugin"
SHOWN = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
PASSWORD = "long enough for a benchmark"


@dataclass(frozen=True)
class Place:
    """A migrated database, and the pgbench that fits its server."""

    dsn: str
    pgbench: Path

    def connect(self) -> psycopg.Connection[Any]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.dsn, autocommit=True, application_name="stellwerk-bench")

    def about(self) -> dict[str, str]:
        """The server's version and the settings that say how durable its commits are."""
        with self.connect() as connection:
            version = str(connection.info.parameter_status("server_version")).split(" ")[0]
            settings = {name: str(value(connection, "select current_setting(%s)", name)) for name in SHOWN}
        return {"server": version, **settings, "cores": str(os.cpu_count())}


@contextlib.contextmanager
def place(dsn: str | None, pg_bin: Path | None) -> Iterator[Place]:
    """A fresh migrated database; it goes in the end, and so does the server that was started for it."""
    with contextlib.ExitStack() as stack:
        if dsn is None:
            dsn, binaries = stack.enter_context(_server(pg_bin))
        else:
            binaries = pg_bin or _with_pgbench()
        yield stack.enter_context(database(dsn, binaries / "pgbench"))


@contextlib.contextmanager
def _server(pg_bin: Path | None) -> Iterator[tuple[str, Path]]:
    """The embedded server in a folder of its own, with the settings that it always has: durable commits."""
    home = Path(tempfile.mkdtemp(prefix="stellwerk-bench-"))
    before = os.environ.get("STELLWERK_PG_BIN")
    if pg_bin is not None:
        os.environ["STELLWERK_PG_BIN"] = str(pg_bin)
    server: Embedded | None = None
    try:
        server = Embedded(home)
        yield server.start(), server.binaries
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)
        os.environ.pop("STELLWERK_PG_BIN", None)
        if before is not None:
            os.environ["STELLWERK_PG_BIN"] = before


def _with_pgbench() -> Path:
    found = shutil.which("pgbench")
    if found is None:
        raise FileNotFoundError("there is no pgbench on the path: name its folder with --pg-bin")
    return Path(found).parent


@contextlib.contextmanager
def database(dsn: str, pgbench: Path, suffix: str = "") -> Iterator[Place]:
    """A fresh migrated database on a server; it goes in the end."""
    name = "_".join(filter(None, ("stellwerk_bench", str(os.getpid()), suffix)))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        own = make_conninfo(**{**conninfo_to_dict(dsn), "dbname": name})
        try:
            migrate(own)
            yield Place(own, pgbench)
        finally:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextlib.contextmanager
def worker(where: Place) -> Iterator[int]:
    """One worker process as anybody would start it; answers its process id once it is there."""
    environment = {**os.environ, "DATABASE_URL": where.dsn, "STELLWERK_LOG": "text", "PYTHONPATH": _python_path()}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stellwerk", "worker"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            with where.connect() as connection:
                wait_until(
                    lambda: (
                        process.poll() is not None
                        or value(connection, "select exists (select from stellwerk.worker where pid = %s)", process.pid)
                    )
                )
            time.sleep(0.5)
            if process.poll() is not None:
                log.seek(0)
                raise RuntimeError("the worker did not start: " + log.read()[-2000:])
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def web(where: Place) -> Iterator[tuple[int, int]]:
    """One web process as anybody would start it; answers its process id and its port."""
    environment = {
        **os.environ,
        "DATABASE_URL": where.dsn,
        "STELLWERK_LOG": "text",
        "STELLWERK_BASE_URL": "http://127.0.0.1",
    }
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "stellwerk", "web", "--port", "0"],
            env={**environment, "STELLWERK_HOME": home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout is not None
            found = re.search(r"port (\d+)", process.stdout.readline())
            if found is None:
                log.seek(0)
                raise RuntimeError("the web process did not start: " + log.read()[-2000:])
            yield process.pid, int(found[1])
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def log_in(where: Place, port: int, email: str) -> str:
    """A user's session, by the login page; answers the cookie."""
    with where.connect() as connection:
        connection.execute("select set_config('stellwerk.tenant', 'default', false)")
        connection.execute("select stellwerk.set_password(%s, %s)", [email, hash_password(PASSWORD)])
    page = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    page.request(
        "POST",
        "/login",
        urlencode({"email": email, "password": PASSWORD}),
        {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"},
    )
    answer = page.getresponse()
    answer.read()
    cookie = answer.getheader("set-cookie")
    if cookie is None:
        raise RuntimeError(f"{email} could not log in: {answer.status}")
    return cookie.partition(";")[0]


def _python_path() -> str:
    return os.pathsep.join([str(PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])])


def peak_memory(pid: int) -> float | None:
    """The most memory that a process has held so far, in MB; None where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


class Steal:
    """How much of the cores' time a virtual machine's host has kept back since this was made."""

    def __init__(self) -> None:
        self._before = self._read()

    @property
    def share(self) -> float | None:
        """Between 0 and 1; None where the system does not say."""
        now = self._read()
        if self._before is None or now is None:
            return None
        spent = [late - early for early, late in zip(self._before, now, strict=True)]
        return spent[7] / sum(spent) if sum(spent) else 0.0

    @staticmethod
    def _read() -> list[int] | None:
        """The kernel's first eight counts: user, nice, system, idle, iowait, irq, softirq, steal."""
        with contextlib.suppress(OSError):
            counts = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
            return [int(count) for count in counts] if len(counts) == 8 else None
        return None


def anonymous_memory(pid: int) -> float | None:
    """The memory that a process holds for itself alone now, in MB; None where the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return None


def value(connection: psycopg.Connection[Any], statement: str, *arguments: object) -> Any:
    """The one value that a statement answers."""
    row = connection.execute(statement, arguments or None).fetchone()
    assert row is not None
    return row[0]


def wait_until(holds: Any, seconds: float = 300.0, pause: float = 0.05) -> None:
    """Look again and again until something holds."""
    until = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > until:
            raise TimeoutError(f"what was waited for did not happen within {seconds:g} s")
        time.sleep(pause)
