"""Servers, databases and small helpers that all tests share.

`dsn` and `db` give every test a database of its own, made from a migrated template; `tx` gives a connection to a
shared one whose transaction is taken back: use it where nothing has to be committed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import servers
from logging_kept import logging_kept

for _name in [name for name in os.environ if name.startswith(("STELLWERK_", "PGQUEUER_"))] + ["DATABASE_URL"]:
    if _name != "STELLWERK_PG_BIN":
        os.environ.pop(_name, None)

VERSIONS = servers.found()

pytest_plugins = ("sql_coverage",)


@pytest.fixture(scope="session")
def running_servers() -> Iterator[dict[int, servers.Server]]:
    """The servers that this test process has started so far."""
    started: dict[int, servers.Server] = {}
    yield started
    for server in started.values():
        server.stop()


# The database's own tests all run on the oldest version, where statements are counted, and a third of them on the newest as
# well. What stands above it, on verbs and views that are tested there, runs on one version, half of it on each. With
# --full everything runs on all of them.
DATABASE = Path(__file__).parent / "database"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Run the long tests at their full length.")
    parser.addoption(
        "--browser-required",
        action="store_true",
        help="Fail where there is no Chromium, instead of skipping its tests.",
    )
    parser.addoption(
        "--sql-coverage",
        type=float,
        metavar="PERCENT",
        help="Count the statements of SQL functions that the tests run; fail if fewer than PERCENT of them are.",
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes more than there are cores: many of the slow tests wait for a clock, a browser or another process."""
    return (os.cpu_count() or 1) + 2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        versions = list(VERSIONS)
        if metafunc.definition.get_closest_marker("one_server"):
            versions = versions[:1]
        elif metafunc.definition.get_closest_marker("system_server"):
            versions = [version for version in versions if version < 18]
        elif not metafunc.config.getoption("full"):
            number = zlib.crc32(metafunc.definition.nodeid.encode())
            if metafunc.definition.path.parent != DATABASE:
                versions = [versions[number % len(versions)]]
            elif number % 3:
                versions = versions[-1:]
        metafunc.parametrize("server", versions, indirect=True, scope="session", ids=lambda version: f"pg{version}")


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, running_servers: dict[int, servers.Server]) -> servers.Server:
    """A running server; tests that use it, or anything below, run once per version that was found."""
    version: int = request.param
    if version not in running_servers:
        counting = version < 18 and request.config.getoption("sql_coverage") is not None
        running_servers[version] = servers.Server(version, VERSIONS[version], count_statements=counting)
    return running_servers[version]


@pytest.fixture
def dsn(server: servers.Server) -> Iterator[str]:
    """A fresh migrated database."""
    dsn = server.database()
    yield dsn
    server.drop(dsn)


@pytest.fixture
def empty_dsn(server: servers.Server) -> Iterator[str]:
    """A fresh database without our schema."""
    dsn = server.database(migrated=False)
    yield dsn
    server.drop(dsn)


@pytest.fixture
def db(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the fresh database, in autocommit mode."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


_shared: dict[int, str] = {}


@pytest.fixture
def tx(server: servers.Server) -> Iterator[psycopg.Connection[Any]]:
    """A connection inside a transaction that is taken back; the database is shared by such tests."""
    if server.version not in _shared:
        _shared[server.version] = server.database()
        server.shared.append(_shared[server.version].rpartition("/")[2])
    with psycopg.connect(_shared[server.version]) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def engine(db: psycopg.Connection[Any]) -> Any:
    """The engine's verbs over `db`."""
    from stellwerk.engine import Engine

    return Engine(db)


@pytest.fixture
def make_workflow(engine: Any) -> Callable[..., str]:
    """Compile, save and publish a document; returns its slug.

    `publish=False` leaves a draft. A document with problems fails the test with all of them.
    """
    from stellwerk.definition.compile import compile_workflow

    def make(document: dict[str, Any], *, publish: bool = True) -> str:
        compiled = compile_workflow(document)
        errors = [problem for problem in compiled.problems if problem.severity == "error"]
        assert not errors, errors
        slug, version = engine.save_workflow(
            compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems]
        )
        if publish:
            engine.publish_workflow(slug, version)
        return str(slug)

    return make


@pytest.fixture
def run_all() -> Callable[..., int]:
    """Pump until nothing moves any more; returns how many calls that took."""

    def run(connection: psycopg.Connection[Any], limit: int = 1000) -> int:
        for number in itertools.count(1):
            row = connection.execute("select stellwerk.pump()").fetchone()
            assert row is not None
            moved = sum(row[0].get(key) or 0 for key in ("events", "runs_started", "runs_advanced", "steps"))
            if not row[0].get("more") and not moved:
                return number
            assert number < limit, f"still busy after {limit} pumps: {row[0]}"
        raise AssertionError("unreachable")

    return run


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Look again and again until something holds, or fail after `seconds`."""

    def wait(holds: Callable[[], object], seconds: float = 20.0, what: str = "what was waited for") -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
            time.sleep(0.02)

    return wait


@pytest.fixture
def stellwerk(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process; answers exit status, standard output and standard error."""

    from stellwerk.cli import execute

    def run(*arguments: str, dsn: str | None = None) -> tuple[int, str, str]:
        if dsn is not None:
            monkeypatch.setenv("DATABASE_URL", dsn)
        capfd.readouterr()
        with logging_kept():
            status = execute(list(arguments))
        out, err = capfd.readouterr()
        return status, out, err

    return run


@pytest.fixture
def private_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A STELLWERK_HOME for an embedded server that is stopped after the test."""
    import shutil
    import tempfile

    home = Path(tempfile.mkdtemp(prefix="stellwerk-home-"))
    home.chmod(0o711)  # as root another account has to walk through it
    monkeypatch.setenv("STELLWERK_HOME", str(home))
    yield home
    from stellwerk.database.embedded import Embedded

    with contextlib.suppress(Exception):
        Embedded(home).stop()
    shutil.rmtree(home, ignore_errors=True)
