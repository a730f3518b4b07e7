"""The benchmark still runs. Its figures at this size say nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.commits import Anchor
from bench.figures import Figures
from bench.main import Again
from bench.place import Place

RUN = Path(__file__).parent / "run.py"
LEAST = ("--rounds", "1", "--seconds", "0.1", "--runs", "20", "--samples", "5", "--again", "0", "--quiet")
SMALL = ("--age", "5", "--history", "500", "--items", "150")


@pytest.mark.one_server
def test_the_benchmark_prints_its_figures_and_goals(server):
    done = subprocess.run(
        [sys.executable, RUN, "--dsn", server.dsn(), "--pg-bin", _with_pgbench(server), *LEAST, *SMALL, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    figures = {figure["key"]: figure["median"] for figure in found["figures"]}
    assert set(figures) >= {
        "commits_1",
        "commits_16",
        "sql_sets_2",
        "worker",
        "watch_16",
        "bulk_all_bulk",
        "age_worker",
        "history_sql",
        "loop_sql",
    }
    assert all(median > 0 for median in figures.values())
    assert len(found["goals"]) == 17


def test_what_was_measured_while_the_host_disturbed_does_not_count(monkeypatch):
    shares = iter([0.5, 0.02, 0.01, 0.03, 0.5, 0.5])
    monkeypatch.setattr("bench.main.Steal", lambda: SimpleNamespace(share=next(shares)))
    figures, anchor = Figures(), Anchor(Place("", Path()), 1)
    again = Again(figures, anchor, 2)
    for value in (1, 2):
        for _ in again.until_undisturbed():
            figures.add("key", "title", "1/s", value)
            anchor.rates.setdefault(1, []).append(value)
    assert again.times == 4
    assert figures.all["key"].values == anchor.rates[1] == [1, 2]


@pytest.mark.one_server
def test_every_page_is_asked_for(server):
    """With few runs: no route or filter is unknown to the benchmark, and none of them fails."""
    done = _run("pages.py", server, "--runs", "300", "--times", "1", "--depth", "1", "--small")
    assert "FAILED" not in done.stdout, done.stdout
    assert re.search(r"\d+ of \d+ reached their goal", done.stdout), done.stderr


@pytest.mark.one_server
def test_listeners_are_measured(server):
    done = _run("listeners.py", server, "--listeners", "3", "--runs", "20", "--rounds", "1")
    assert "listening connections: 1" in done.stdout, done.stderr


def _run(script: str, server, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, RUN.with_name(script), "--dsn", server.dsn(), "--pg-bin", _with_pgbench(server), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
    )


def _with_pgbench(server) -> Path:
    if not (server.binaries / "pgbench").exists():
        pytest.skip("there is no pgbench beside this server")
    return Path(server.binaries)
