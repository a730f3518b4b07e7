"""What Prometheus reads: right whichever web process answers."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database.helpers import START, Worker, call, document, node, start
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families
from web.desk import Client, LogIn, intake

from stellwerk.settings import Settings
from stellwerk.web import access
from stellwerk.web.app import make_app

Database = psycopg.Connection[Any]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: Client) -> Samples:
    answer = client.get("/metrics", headers={"authorization": "Bearer 1.secret"})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name.removeprefix("stellwerk_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


@pytest.fixture
def token(db: Database) -> None:
    db.execute("select stellwerk.create_token('prometheus', 'viewer', %s)", [access.digest("1.secret")])


def test_figures_say_how_it_stands_and_what_has_ended(
    client: Client, db: Database, dsn: str, make_workflow: Any, run_all: Any, token: None, log_in: LogIn
) -> None:
    assert client.get("/metrics").status_code == 401
    intake(db, make_workflow, run_all, "Ada", "Ben")
    db.execute("update stellwerk.user_task set due_at = now() - interval '1 hour' where task_id = 1")
    db.execute("select stellwerk.claim_task(2)")
    make_workflow(document("fragile", [START, call("phone", retry={"max_attempts": 1})], ["start -> phone"]))
    for _ in range(3):
        start(db, "fragile")
    run_all(db)
    worker = Worker(dsn)
    first, second, *_ = worker.begin(worker.queued()[:2])
    worker.end(first, error={"class": "busy", "message": "busy", "retryable": False})
    run_all(db)
    samples = read(client)
    assert value(samples, "runs", workflow="intake", state="waiting") == 2
    assert value(samples, "runs", workflow="fragile", state="running") == 2
    assert value(samples, "runs_ended_total", workflow="fragile", state="failed") == 1
    assert value(samples, "queue_depth", type="action.fonio_call") == 1
    assert (value(samples, "queue_oldest_seconds", type="action.fonio_call") or 0) > 0
    assert value(samples, "steps_running", type="action.fonio_call") == 1
    assert value(samples, "workers") == 1
    assert (value(samples, "tasks", state="open"), value(samples, "tasks", state="claimed")) == (1, 1)
    assert value(samples, "tasks_overdue") == 1
    assert value(samples, "timers_overdue") == value(samples, "events_pending") == value(samples, "alerts") == 0
    worker.end(second)
    run_all(db)
    samples = read(client)
    assert value(samples, "runs_ended_total", workflow="fragile", state="completed") == 1
    assert value(samples, "run_duration_seconds_count", workflow="fragile") == 1
    assert value(samples, "run_duration_seconds_bucket", workflow="fragile", le="+Inf") == 1
    assert value(samples, "run_duration_seconds_bucket", workflow="fragile", le="32.767") == 1
    worker.vanish()


def test_figures_of_another_tenant_are_not_among_them(
    client: Client, db: Database, token: None, make_workflow: Any
) -> None:
    make_workflow(document("ours", [START, node("rest", "logic.wait", {"for": "PT1H"})], ["start -> rest"]))
    start(db, "ours")
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("select set_config('stellwerk.tenant', 'other', false)")
    db.execute("select stellwerk.create_token('prometheus', 'viewer', %s)", [access.digest("2.secret")])
    answer = client.get("/metrics", headers={"authorization": "Bearer 2.secret"})
    assert (answer.status_code, "ours" in answer.text) == (200, False)
    assert value(read(client), "runs", workflow="ours", state="pending") == 1


def test_two_processes_answer_the_same(
    client: Client, db: Database, dsn: str, settings: Settings, make_workflow: Any, run_all: Any, token: None
) -> None:
    make_workflow(document("quick", [START], []))
    with TestClient(make_app(dsn, settings)) as other:
        for _ in range(3):
            start(db, "quick")
            run_all(db)
            mine, others = read(client), read(other)
            assert mine == others
        assert value(mine, "runs_ended_total", workflow="quick", state="completed") == 3
