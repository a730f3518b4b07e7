"""Which statements of the PL/pgSQL functions the tests have run: `pytest --sql-coverage 95`.

The profiler of plpgsql_check counts them on the system's PostgreSQL 15. After each test the counts of the databases that it
made are read; at the end the statements that were never run are listed, and the session fails if their share is too large.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import servers

FOLDER = "SQL_COVERAGE_FOLDER"

# A block is counted by the statements in it.
STATEMENTS = """
  select p.oid::regprocedure::text, s.lineno, s.stmtid, s.stmtname
    from pg_proc p
    join pg_language l on l.oid = p.prolang and l.lanname = 'plpgsql'
   cross join lateral plpgsql_profiler_function_statements_tb(p.oid) s
   where p.pronamespace = 'stellwerk'::regnamespace and s.stmtname <> 'statement block'
     and p.proname not in ('capture_statement', 'next_rows_as_json')  -- see servers.py
"""
RUN = """
  with called as materialized (
    select f.funcoid from plpgsql_profiler_functions_all() f
      join pg_proc p on p.oid = f.funcoid
     where p.pronamespace = 'stellwerk'::regnamespace and f.funcoid::text <> all (%s))
  select c.funcoid::text, s.stmtid
    from called c
   cross join lateral plpgsql_profiler_function_statements_tb(c.funcoid) s
   where s.exec_stmts + s.exec_stmts_err > 0
"""

_run: set[tuple[str, int]] = set()
_all: dict[tuple[str, int], tuple[int, str]] = {}


def pytest_configure(config: pytest.Config) -> None:
    if wanted(config) and not hasattr(config, "workerinput"):
        os.environ[FOLDER] = tempfile.mkdtemp(prefix="sql-coverage-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if wanted(config) and not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(FOLDER, ""), ignore_errors=True)


def wanted(config: pytest.Config) -> bool:
    return config.getoption("sql_coverage") is not None


def harvest(server: servers.Server) -> None:
    """Read what has been counted in the databases that the server has made since the last time, and forget it."""
    counted = False
    for dsn in server.fresh_databases():
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("set plpgsql_check.profiler = off")
            there = connection.execute(
                "select to_regnamespace('stellwerk') is null, to_regproc('plpgsql_profiler_functions_all') is null"
            ).fetchone()
            if there is None or there[0]:
                continue
            if there[1]:  # not made from the template
                connection.execute("create extension plpgsql_check")
            if not _all:
                for name, line, number, kind in connection.execute(STATEMENTS):
                    _all[name, number] = (line, kind)
            # Of functions whose statements have all been run nothing is read any more.
            whole = {name for name, _ in _all} - {name for name, _ in _all.keys() - _run}
            _run.update(connection.execute(RUN, [list(whole)]).fetchall())
            counted = True
    if counted:
        server.execute("select plpgsql_profiler_reset_all()")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Before the test's fixtures go: a server that is stopped has forgotten."""
    if wanted(item.config):
        for server in getattr(item, "funcargs", {}).get("running_servers", {}).values():
            if server.counts_statements:
                harvest(server)
    yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if not wanted(config):
        return
    folder = Path(os.environ[FOLDER])
    worker = getattr(config, "workerinput", {}).get("workerid", "main")
    ours = {"run": sorted(_run), "all": [[*key, *value] for key, value in _all.items()]}
    (folder / f"{worker}.json").write_text(json.dumps(ours))
    if hasattr(config, "workerinput"):
        return
    run, every = gathered(folder)
    if not every or 100 * len(run) / len(every) < float(config.getoption("sql_coverage")):
        session.exitstatus = max(session.exitstatus, pytest.ExitCode.TESTS_FAILED)


def gathered(folder: Path) -> tuple[set[tuple[str, int]], dict[tuple[str, int], tuple[int, str]]]:
    run: set[tuple[str, int]] = set()
    every: dict[tuple[str, int], tuple[int, str]] = {}
    for file in folder.glob("*.json"):
        found = json.loads(file.read_text())
        run.update((name, number) for name, number in found["run"])
        every.update({(name, number): (line, kind) for name, number, line, kind in found["all"]})
    return run & set(every), every


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not wanted(config):
        return
    run, every = gathered(Path(os.environ[FOLDER]))
    terminalreporter.section("statements of SQL functions")
    if not every:
        terminalreporter.line("None was counted: PostgreSQL 15 with plpgsql_check was not found.")
        return
    missing: dict[str, list[str]] = {}
    for key in sorted(every.keys() - run):
        line, kind = every[key]
        missing.setdefault(key[0], []).append(f"{line} {kind}")
    for name, lines in missing.items():
        terminalreporter.line(f"{name}: {', '.join(lines)}")
    terminalreporter.line(f"{len(run)} of {len(every)} statements were run: {100 * len(run) / len(every):.1f} %")
