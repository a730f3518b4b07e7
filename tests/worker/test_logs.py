"""What real processes log: every line about a run or step says which, every request has a name, and no line holds a secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from database.helpers import START, document, node
from pytest_httpserver import HTTPServer
from web.conftest import settings

from stellwerk.settings import Settings
from stellwerk.web import access

pytestmark = pytest.mark.one_server

__all__ = ["settings"]

SECRET = "geheim-4711"
ABOUT = {"tenant", "workflow", "run_id", "step_id", "node_id", "attempt", "type"}


@contextmanager
def process(command: list[str], dsn: str, home: Path, log: Path) -> Iterator[Any]:
    environment = {
        **os.environ,
        **{"DATABASE_URL": dsn, "STELLWERK_HOME": str(home), "STELLWERK_LOG": "json"},
        "STELLWERK_ALLOWED_HOSTS": "127.0.0.1,localhost",
    }
    with log.open("ab") as errors:
        running = subprocess.Popen(
            [sys.executable, "-u", "-m", "stellwerk", *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(20)


def lines(log: Path) -> list[dict[str, Any]]:
    text = log.read_text()
    assert SECRET not in text
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_workers_lines_about_a_step_say_which(
    db: psycopg.Connection[Any], dsn: str, make_workflow: Any, httpserver: HTTPServer, tmp_path: Path
) -> None:
    httpserver.expect_request("/fine").respond_with_json({})
    httpserver.expect_request("/bad").respond_with_data(SECRET, status=500)
    headers = {"authorization": f"Bearer {SECRET}"}
    once = {"max_attempts": 1}
    make_workflow(
        document(
            "speaking",
            [
                START,
                node("fine", "http.request", {"url": httpserver.url_for("/fine?key=" + SECRET), "headers": headers}),
                node("bad", "http.request", {"url": httpserver.url_for("/bad")}, retry=once),
            ],
            ["start -> fine", "fine -> bad"],
        )
    )
    row = db.execute("select stellwerk.start_run('speaking', %s)", [json.dumps({"password": SECRET})]).fetchone()
    assert row is not None
    log = tmp_path / "worker.log"
    with process(["worker", "--drain"], dsn, tmp_path, log) as worker:
        assert worker.wait(60) == 0
    about = [line for line in lines(log) if "run_id" in line]
    assert {line["node_id"] for line in about} == {"fine", "bad"}
    for line in about:
        assert line.keys() >= ABOUT
        assert (line["run_id"], line["tenant"], line["workflow"], line["attempt"]) == (
            str(row[0]),
            "default",
            "speaking",
            1,
        )
    assert not [line for line in lines(log) if "run " in line["message"] and "run_id" not in line]


def test_a_request_has_one_name_in_the_log_the_answer_and_the_refusal(
    db: psycopg.Connection[Any], dsn: str, tmp_path: Path, make_workflow: Any, settings: Settings
) -> None:
    make_workflow(document("asked", [START], []))
    db.execute("select stellwerk.create_token('machine', 'operator', %s)", [access.digest(f"1.{SECRET}")])
    log = tmp_path / "web.log"
    with process(["web", "--port", "0"], dsn, tmp_path, log) as web:
        base = "http://127.0.0.1:" + web.stdout.readline().rstrip(".\n").rpartition(" ")[2]
        with httpx2.Client(base_url=base, headers={"authorization": f"Bearer 1.{SECRET}"}) as client:
            refused = client.get("/api/workflows/executions/999", params={"secret": SECRET})
            nowhere = client.get("/api/nowhere")
            given = client.get("/api/workflows/executions/998", headers={"x-request-id": "from-the-proxy-1"})
            forged = client.get("/healthz", headers={"x-request-id": "a b\tc"})
            client.get(f"/welcome/1.{SECRET}")
    for answer in (refused, nowhere, given):
        assert answer.status_code == 404
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert given.headers["x-request-id"] == "from-the-proxy-1"
    assert len(forged.headers["x-request-id"]) == 32
    told = {line["request_id"]: line for line in lines(log) if "request_id" in line}
    line = told[refused.headers["x-request-id"]]
    assert (line["method"], line["status"], line["run_id"], line["tenant"]) == ("GET", 404, "999", "default")
    assert line["milliseconds"] > 0
    assert forged.headers["x-request-id"] not in told
