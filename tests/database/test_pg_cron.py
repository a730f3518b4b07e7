"""pg_cron keeps the time: no worker is needed, and one beside it does no harm."""

from __future__ import annotations

import threading

import psycopg
import pytest
import servers
from database.helpers import START, document, node, start

from stellwerk.database.schema import migrate

VERSIONS = {version: folder for version, folder in servers.found().items() if servers.has_library(folder, "pg_cron")}


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: f"pg{version}")
def timed(request):
    """A database of a server on which pg_cron may run."""
    more = {"cron.database_name": "timed", "cron.use_background_workers": "on"}
    server = servers.Server(request.param, VERSIONS[request.param], more=more)
    try:
        server.execute("create database timed")
        yield server.dsn("timed")
    finally:
        server.stop()


@pytest.fixture
def dsn(timed):
    said = []
    migrate(timed, force=True, report=said.append)
    assert said[-1] == "pg_cron calls stellwerk.tick()"
    return timed


def test_timers_schedules_and_sql_workflows_go_on_without_a_worker(dsn, make_workflow, db, stellwerk, wait_until):
    log = node("l", "log.write", {"message": "done"})
    waiting = make_workflow(
        document("waits", [START, node("w", "logic.wait", {"for": "PT1S"}), log], ["start -> w", "w -> l"])
    )
    every = make_workflow(document("every", [node("at", "trigger.schedule", {"cron": "* * * * *"}), log], ["at -> l"]))
    run_ids = [start(db, waiting) for _ in range(200)]

    def lines():
        return dict(db.execute(
            "select w.slug, count(*) from stellwerk.run_log l join stellwerk.run r using (tenant_id, run_id)"
            " join stellwerk.workflow w using (tenant_id, workflow_id) group by 1").fetchall())  # fmt: skip

    wait_until(lambda: lines().get(every) and lines().get(waiting) == 200, 200, "pg_cron's calls")
    assert db.execute("select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)",
                      (run_ids,)).fetchone() == (200,)  # fmt: skip
    done = db.execute(
        "select distinct status from cron.job_run_details where status in ('failed', 'succeeded')"
    ).fetchall()
    assert done == [("succeeded",)]
    _, out, _ = stellwerk("doctor", dsn=dsn)
    assert "✓ pg_cron: calls stellwerk.tick()" in out


def test_workers_tick_beside_it_without_harm(dsn, make_workflow, db, wait_until):
    log = node("l", "log.write", {"message": "done"})
    until = {"until": "{{ trigger.payload.at }}"}
    slug = make_workflow(document("both", [START, node("w", "logic.wait", until), log], ["start -> w", "w -> l"]))
    [at] = db.execute("select date_trunc('minute', now() + interval '65 s')::text").fetchone()
    for _ in range(300):
        start(db, slug, {"at": at})
    over = threading.Event()

    def keep_ticking():
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not over.is_set():
                connection.execute("select stellwerk.pump(), stellwerk.tick()")
                over.wait(0.2)

    other = threading.Thread(target=keep_ticking)
    other.start()
    try:
        wait_until(
            lambda: (
                db.execute("select count(*) from stellwerk.run where state = 'completed' and payload ? 'at'").fetchone()
                == (300,)
            ),
            200,
            "the end of all runs",
        )
    finally:
        over.set()
        other.join()
    counts = db.execute(
        "select count(*), count(distinct l.run_id), min(l.logged_at) >= %s::timestamptz from stellwerk.run_log l"
        " join stellwerk.run r using (tenant_id, run_id) where r.payload ? 'at'", (at,)
    ).fetchone()  # fmt: skip
    assert counts == (300, 300, True)
