"""pg_cron keeps the time: no worker is needed, and one beside it does no harm."""

from __future__ import annotations

import pytest
import servers
from database.helpers import START, document, node, start
from worker.fixtures import start_worker

from stellwerk.database.schema import migrate

__all__ = ["start_worker"]

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
    # More than a tick fires at once: what is due must not wait for one minute after the other.
    db.execute("select count(stellwerk.start_run(%s)) from generate_series(1, 1200)", (waiting,))

    def lines():
        return dict(db.execute(
            "select w.slug, count(*) from stellwerk.run_log l join stellwerk.run r using (tenant_id, run_id)"
            " join stellwerk.workflow w using (tenant_id, workflow_id) group by 1").fetchall())  # fmt: skip

    wait_until(lambda: lines().get(every) and lines().get(waiting) == 1200, 200, "pg_cron's calls")
    states = "select state, count(*) from stellwerk.run where payload = '{}' group by 1"
    assert db.execute(states).fetchall() == [("completed", 1200)]
    # None early, and each with the next call that came when it was due; nobody else has moved anything.
    query = (
        "select count(distinct l.run_id), min(l.logged_at - s.queued_at) >= interval '1 second',"
        " max(l.logged_at - s.queued_at) < interval '85 seconds' from stellwerk.run_log l"
        " join stellwerk.step s on (s.tenant_id, s.run_id, s.node_id) = (l.tenant_id, l.run_id, 'w')"
    )
    assert db.execute(query).fetchone() == (1200, True, True)
    assert db.execute("select count(*) from stellwerk.worker").fetchone() == (0,)
    ended = "select distinct status from cron.job_run_details where status in ('failed', 'succeeded')"
    wait_until(
        lambda: db.execute(ended).fetchall(), 60, "the end of a call"
    )  # it goes on while there is anything to do
    assert db.execute(ended).fetchall() == [("succeeded",)]
    _, out, _ = stellwerk("doctor", dsn=dsn)
    assert "✓ pg_cron: calls stellwerk.tick()" in out
    assert "✓ workers: none at work; pg_cron moves what runs in SQL" in out


def test_workers_tick_beside_it_without_harm(dsn, make_workflow, db, start_worker, wait_until):
    log = node("l", "log.write", {"message": "done"})
    until = {"until": "{{ trigger.payload.at }}"}
    slug = make_workflow(document("both", [START, node("w", "logic.wait", until), log], ["start -> w", "w -> l"]))
    [at] = db.execute("select date_trunc('minute', now() + interval '65 s')::text").fetchone()
    for _ in range(300):
        start(db, slug, {"at": at})
    workers = [start_worker() for _ in range(2)]
    done = "select count(*) from stellwerk.run where state = 'completed' and payload ? 'at'"
    wait_until(lambda: db.execute(done).fetchone() == (300,), 200, "the end of all runs")
    for worker in workers:
        worker.stop()
    counts = db.execute(
        "select count(*), count(distinct l.run_id), min(l.logged_at) >= %s::timestamptz from stellwerk.run_log l"
        " join stellwerk.run r using (tenant_id, run_id) where r.payload ? 'at'", (at,)
    ).fetchone()  # fmt: skip
    assert counts == (300, 300, True)


def test_doctor_tells_what_pg_cron_does(dsn, db, stellwerk, make_workflow, run_all):
    """That it does not call, that its last call failed, and that it cannot do a worker's work."""
    jobs = "select jobid from cron.job where jobname = 'stellwerk-tick'"
    db.execute(
        "insert into cron.job_run_details (jobid, runid, status, return_message)"
        f" select ({jobs}), coalesce(max(runid), 0) + 1000000, 'failed', 'connection failed' from cron.job_run_details".encode()
    )
    try:
        status, out, _ = stellwerk("doctor", dsn=dsn)
        assert (status, "✗ pg_cron: its last call failed: connection failed" in out) == (1, True)
    finally:
        db.execute("delete from cron.job_run_details where return_message = 'connection failed'")
    start(db, make_workflow(document("calls", [START, node("c", "action.fonio_call", {"phone": "1"})], ["start -> c"])))
    run_all(db)
    assert "✗ workers: none at work, 1 worker steps wait" in stellwerk("doctor")[1]
    db.execute("select stellwerk.cancel_run(max(run_id)) from stellwerk.run")
    db.execute(f"select cron.alter_job(({jobs}), active := false)".encode())
    try:
        said = "✓ pg_cron: installed, but it does not call stellwerk.tick(); workers keep the time"
        assert said in stellwerk("doctor", dsn=dsn)[1]
    finally:
        db.execute(f"select cron.alter_job(({jobs}), active := true)".encode())
