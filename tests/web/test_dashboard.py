"""The dashboard shows what is so, and staff begin with their tasks."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from database.helpers import START, Worker, call, document, start
from web.desk import Client, LogIn, intake

Database = psycopg.Connection[Any]


def test_the_dashboard_counts_runs_failures_tasks_and_queue(
    client: Client, db: Database, dsn: str, make_workflow: Any, run_all: Any, log_in: LogIn
) -> None:
    intake(db, make_workflow, run_all, "Ada", "Ben")
    db.execute("update stellwerk.user_task set due_at = now() - interval '1 hour' where task_id = 1")
    make_workflow(document("fragile", [START, call("phone", retry={"max_attempts": 1})], ["start -> phone"]))
    start(db, "fragile")
    run_all(db)
    worker = Worker(dsn)
    error = {"class": "busy", "message": "<b>the line</b> is busy", "retryable": False}
    worker.end(*worker.begin(), error=error)
    start(db, "fragile")
    run_all(db)
    page = client.get("/", headers=log_in("viewer"))
    assert page.status_code == 200
    figures = re.findall(r'class="small muted">([^<]+)</span><strong>([^<]+)</strong>', page.text)
    assert dict(figures) == {"Running": "1", "Waiting": "2", "Failed in 24 h": "1", "Tasks overdue": "1"}
    assert "&lt;b&gt;the line&lt;/b&gt; is busy" in page.text
    assert "Intake of patients" in page.text
    fragment = client.get("/", headers={**log_in("viewer"), "hx-request": "true"}).text
    assert fragment.lstrip().startswith("<div")
    worker.vanish()


def test_staff_begin_with_their_tasks(client: Client, log_in: LogIn) -> None:
    answer = client.get("/", headers=log_in("staff"), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks")


def test_an_empty_dashboard_says_what_to_do_next(client: Client, log_in: LogIn) -> None:
    text = client.get("/", headers=log_in("admin")).text
    assert "No runs yet" in text
    assert "Nothing failed" in text
    assert "No worker is running" in text
