"""What operators ask of all runs together: what stands still, what failed alike, what was given up, how long things take."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import (
    FAILURE,
    PERMANENT,
    START,
    Worker,
    call,
    document,
    node,
    start,
    transform,
    view,
)
from psycopg.types.json import Jsonb

VIEWS = (
    "run_overview",
    "step_timeline",
    "live_step",
    "stuck_run",
    "failure_cluster",
    "dead_letter",
    "workflow_statistics",
    "node_statistics",
    "bulk_progress",
)


# -- failure_cluster --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("order 17 not found", "order 4711 not found"),
        ("no answer from https://a.example/x?y=1", "no answer from http://b.example/"),
        ("ada@example.org refused", "bob.b@example.com refused"),
        ('relation "a b" missing', 'relation "c" missing'),
        ("Der Kunde „Meier“ fehlt", "Der Kunde „Huber, Anna“ fehlt"),
        ("token 9f8e7d6c-1b2a expired", "token 11aa22bb-33cc expired"),
        ("took 1,5 s", "took 22.75 s"),
    ],
)
def test_messages_that_differ_only_in_particulars_are_the_same(tx, a, b):
    first, second = tx.execute("select stellwerk.normal_message(%s), stellwerk.normal_message(%s)", (a, b)).fetchone()
    assert first == second
    assert "<" in first


def test_different_faults_stay_different(tx):
    messages = ["HTTP 429 from the server", "HTTP 503 from the server", "no such customer", "no such order"]
    assert (
        len({tx.execute("select stellwerk.normal_message(%s)", (message,)).fetchone()[0] for message in messages}) == 4
    )


def test_runs_that_failed_alike_fall_together(db, ring, make_workflow, run_all, dsn):
    worker = Worker(dsn)
    run_ids = [start(db, ring) for _ in range(4)]
    run_all(db)
    taken = sorted(worker.begin(), key=lambda step: step["run_id"])
    for number, step in enumerate(taken[:3]):
        worker.end(step, error={**PERMANENT, "message": f"order {number} not found"})
    worker.end(taken[3], error={**PERMANENT, "class": "other", "message": "order 7 not found"})
    clusters = view(db, "select * from stellwerk.failure_cluster order by failures desc")
    assert [
        (row["workflow"], row["version"], row["node_id"], row["error_class"], row["message"], row["failures"])
        for row in clusters
    ] == [
        ("ring", 1, "ring", "test", "order <number> not found", 3),
        ("ring", 1, "ring", "other", "order <number> not found", 1),
    ]
    assert clusters[0]["example_runs"] == run_ids[2::-1]
    assert clusters[0]["first_seen"] < clusters[0]["last_seen"]
    assert clusters[0]["example_message"] == "order 2 not found"
    # The same fault in the next version is another fingerprint; the old one keeps its own.
    make_workflow(document("ring", [START, call("ring"), transform("end", 2)], ["start -> ring", "ring -> end"]))
    start(db, ring)
    run_all(db)
    worker.end(*worker.begin(), error={**PERMANENT, "message": "order 9 not found"})
    again = view(
        db, "select fingerprint, version from stellwerk.failure_cluster where error_class = 'test' order by version"
    )
    assert [row["version"] for row in again] == [1, 2]
    assert again[0]["fingerprint"] == clusters[0]["fingerprint"] != again[1]["fingerprint"]
    # What is retried is no failure any more, and what is older than the window is not looked at.
    db.execute("select stellwerk.retry_run(%s)", (run_ids[3],))
    assert len(view(db, "select * from stellwerk.failure_cluster")) == 2
    db.execute(
        "update stellwerk.run set ended_at = now() - interval '3 days' where run_id = any (%s) and state = 'failed'",
        (run_ids,),
    )
    db.execute("set stellwerk.period = 'P1D'")
    assert [row["version"] for row in view(db, "select version from stellwerk.failure_cluster")] == [2]
    db.execute("set stellwerk.period = 'a while'")
    with pytest.raises(psycopg.Error) as caught:
        view(db, "select * from stellwerk.failure_cluster")
    assert caught.value.sqlstate == "SW002"


# -- dead_letter ------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_a_dead_letter_until_it_is_sent_on(db, ring, run_all, dsn):
    worker = Worker(dsn)
    run_id = start(db, ring)
    run_all(db)
    worker.end(*worker.begin(), error=FAILURE)
    assert view(db, "select * from stellwerk.dead_letter") == []
    db.execute("update stellwerk.step set due_at = null where state = 'queued'")
    worker.end(*worker.begin(), error=PERMANENT)
    (letter,) = view(db, "select * from stellwerk.dead_letter")
    assert (letter["kind"], letter["run_id"], letter["workflow"], letter["node_id"], letter["attempts"]) == (
        "run",
        run_id,
        "ring",
        "ring",
        2,
    )
    assert (letter["error_class"], letter["message"]) == ("test", "it will never work")
    db.execute(letter["retry"].encode())
    assert view(db, "select * from stellwerk.dead_letter") == []


def test_an_event_that_could_start_nothing_is_a_dead_letter_and_can_be_looked_at_again(db, make_workflow, run_all):
    db.execute("create table public.orders (id int primary key, total int)")
    slug = make_workflow(
        document(
            "intake",
            [node("start", "trigger.row"), transform("end", "{{ trigger.row.total }}")],
            ["start -> end"],
            input_schema={"type": "object", "required": ["missing"]},
        )
    )
    db.execute("select stellwerk.watch_table('public.orders', %s)", (slug,))
    db.execute("insert into public.orders values (1, 5)")
    run_all(db)
    (letter,) = view(db, "select * from stellwerk.dead_letter")
    assert (letter["kind"], letter["workflow"], letter["run_id"]) == ("event", "intake", None)
    assert "missing" in letter["message"]
    make_workflow(
        document(
            "intake", [node("start", "trigger.row"), transform("end", "{{ trigger.row.total }}")], ["start -> end"]
        )
    )
    db.execute(letter["retry"].encode())
    run_all(db)
    assert view(db, "select * from stellwerk.dead_letter") == []
    assert view(db, "select output from stellwerk.run_overview") == [{"output": 5}]
    with pytest.raises(psycopg.Error) as caught:
        db.execute(letter["retry"].encode())
    assert caught.value.sqlstate == "SW003"
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.retry_event(99)")
    assert caught.value.sqlstate == "SW007"


def test_an_event_without_a_row_cannot_be_looked_at_again(db):
    (event_id,) = db.execute("""
        insert into stellwerk.event_log (tenant_id, target, operation, state, reason, processed_at)
        values (1, 'public.gone', 'insert', 'failed', 'the row could not be read', now()) returning event_id""").fetchone()
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.retry_event(%s)", (event_id,))
    assert (caught.value.sqlstate, "holds no row" in caught.value.diag.message_primary) == ("SW003", True)


def test_a_file_that_was_given_up_is_a_dead_letter_and_can_be_written_again(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "push",
            [START, node("push", "action.backoffice_push", {"field_map": {"a": "b"}, "drop_folder": "out"})],
            ["start -> push"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    db.execute("update stellwerk.case_export set state = 'failed', error = 'disk full', attempts = 5, ended_at = now()")
    (letter,) = view(db, "select * from stellwerk.dead_letter")
    assert (letter["kind"], letter["run_id"], letter["node_id"], letter["message"], letter["attempts"]) == (
        "export",
        run_id,
        "push",
        "disk full",
        5,
    )
    db.execute(letter["retry"].encode())
    assert view(db, "select state, attempts, error from stellwerk.case_export") == [
        {"state": "queued", "attempts": 0, "error": None}
    ]
    with pytest.raises(psycopg.Error) as caught:
        db.execute(letter["retry"].encode())
    assert caught.value.sqlstate == "SW003"
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.retry_export(99)")
    assert caught.value.sqlstate == "SW007"


# -- figures ----------------------------------------------------------------------------------------------------------


def test_figures_of_workflows_and_nodes_follow_the_window(db, ring, run_all, dsn):
    worker = Worker(dsn)
    old = start(db, ring)
    run_ids = [start(db, ring) for _ in range(4)]
    run_all(db)
    taken = sorted(worker.begin(), key=lambda step: step["run_id"])
    worker.end(*taken[:3])
    worker.end(taken[3], error=PERMANENT)
    db.execute("update stellwerk.run set created_at = created_at - interval '2 days' where run_id = %s", (old,))
    (row,) = view(db, "select * from stellwerk.workflow_statistics")
    assert {name: row[name] for name in ("workflow", "runs", "running", "completed", "failed", "cancelled")} == {
        "workflow": "ring", "runs": 4, "running": 1, "completed": 2, "failed": 1, "cancelled": 0,
    }  # fmt: skip
    assert float(row["success_share"]) == pytest.approx(0.6667)
    assert 0 < row["p50_seconds"] <= row["p95_seconds"] <= row["p99_seconds"]
    nodes = {row["node_id"]: row for row in view(db, "select * from stellwerk.node_statistics")}
    assert {name: nodes["ring"][name] for name in ("visits", "live", "completed", "failed", "attempts", "failures")} == {
        "visits": 4, "live": 1, "completed": 2, "failed": 1, "attempts": 4, "failures": 1,
    }  # fmt: skip
    assert nodes["end"]["completed"] == 2
    assert nodes["ring"]["p95_queue_seconds"] > 0
    db.execute("set stellwerk.period = 'P7D'")
    assert view(db, "select runs from stellwerk.workflow_statistics") == [{"runs": 5}]
    assert len(run_ids) == 4


# -- many runs --------------------------------------------------------------------------------------------------------

HISTORY = """
with made as (
  insert into stellwerk.run (tenant_id, run_id, workflow_id, version, trigger_node, state, source, payload, created_at, started_at, ended_at, created_by)
  select 1, 100000 + n, w.workflow_id, 1, 'start', 'completed', 'api', '{}', now() - interval '30 days' + n * interval '1 second',
         now() - interval '30 days' + n * interval '1 second', now() - interval '30 days' + (n + 1) * interval '1 second', 'db:test'
    from generate_series(1, 10000) n cross join stellwerk.workflow w where w.slug = 'ring'
  returning run_id, created_at)
insert into stellwerk.step (tenant_id, run_id, step_id, node_id, visit, version, type, runs_in, state, port, attempt, queued_at, started_at, ended_at)
select 1, m.run_id, m.run_id * 10 + k, 'ring', k, 1, 'action.fonio_call', 'worker', 'completed', 'next', 1, m.created_at, m.created_at, m.created_at
  from made m cross join generate_series(1, 3) k
"""


def pages_read(db, query, *parameters):
    """How many pages a query touches, those of the functions that it calls included."""
    (plan,) = db.execute(b"explain (analyze, buffers, format json) " + query.encode(), parameters).fetchone()
    top = plan[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


@pytest.fixture
def history(db, ring, waits, run_all, dsn):
    """Some live and failed runs above 10,000 that have ended."""
    db.execute(HISTORY)
    db.execute("select setval('stellwerk.run_id_seq', 200000), setval('stellwerk.step_id_seq', 3000000)")
    worker = Worker(dsn)
    run_ids = [start(db, slug, {"key": "x"}) for slug in (ring, waits) for _ in range(5)]
    run_all(db)
    worker.end(*worker.begin()[:2], error=PERMANENT)
    db.execute("vacuum analyze")
    return worker, run_ids


QUERIES = [
    "select * from stellwerk.run_overview where run_id = %s",
    "select * from stellwerk.run_overview order by run_id desc limit 20",
    "select * from stellwerk.step_timeline where run_id = %s order by step_id",
    "select * from stellwerk.live_step",
    "select * from stellwerk.live_step where run_id = %s",
    "select * from stellwerk.stuck_run",
    "select * from stellwerk.stuck_runs('0 seconds')",
    "select * from stellwerk.failure_cluster",
    "select * from stellwerk.dead_letter",
    "select * from stellwerk.workflow_statistics",
    "select * from stellwerk.node_statistics",
    "select * from stellwerk.explain_run(%s)",
    "select * from stellwerk.run_state_at(%s, now())",
    "select stellwerk.start_bulk_operation('pause', '{\"workflow\": \"waits\"}')",
    "select stellwerk.start_bulk_operation('retry', '{\"workflow\": \"ring\"}')",
]


def test_no_view_reads_the_history(db, history):
    """Ten thousand ended runs and their thirty thousand steps fill more than a thousand pages."""
    _, run_ids = history
    assert pages_read(db, "select count(stellwerk.run.*) from stellwerk.run") > 150
    assert pages_read(db, "select count(stellwerk.step.*) from stellwerk.step") > 500
    read = {}
    for role in ("none", "stellwerk_dba"):
        db.execute(b"set role " + role.encode())
        for query in QUERIES:
            parameters = (run_ids[-1],) if "%s" in query else ()
            assert db.execute(query.encode(), parameters).fetchall() is not None
            read[role, query] = pages_read(db, query, *parameters)
    # The views of figures look at a thousand runs more than they need, for numbers are not given out quite in order.
    assert {
        query: pages for query, pages in read.items() if pages > (450 if "statistics" in query[1] else 300)
    } == {}, read


# -- who may look -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shows_its_own_tenant_alone(db, ring, run_all, dsn, name):
    worker = Worker(dsn)
    for _ in range(3):
        start(db, ring)
    run_all(db)
    worker.end(*worker.begin()[:2], error=PERMANENT)
    worker.vanish()
    db.execute(
        "update stellwerk.step set queued_at = queued_at - interval '1 hour', lease_until = lease_until - interval '1 hour'"
    )
    db.execute("select stellwerk.start_bulk_operation('cancel', %s)", (Jsonb({"workflow": "ring"}),))
    query = psycopg.sql.SQL("select * from stellwerk.{}").format(psycopg.sql.Identifier(name))
    assert db.execute(query).fetchall()
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    assert db.execute(query).fetchall() == []


@pytest.mark.parametrize("name", VIEWS)
def test_every_column_of_a_view_is_explained(tx, name):
    missing = tx.execute(
        "select attname from pg_attribute where attrelid = ('stellwerk.' || %s)::regclass and attnum > 0 and col_description(attrelid, attnum) is null",
        (name,),
    ).fetchall()
    assert missing == []


@pytest.mark.parametrize("name", VIEWS)
def test_a_dba_may_read_it(db, ring, name):
    db.execute("set role stellwerk_dba")
    assert (
        db.execute(psycopg.sql.SQL("select count(*) from stellwerk.{}").format(psycopg.sql.Identifier(name))).fetchone()
        is not None
    )
