"""A trace goes with a row into its run, through every attempt and out again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node
from database.watching import ORDERS
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pytest_httpserver import HTTPServer
from worker.puppet import puppets

from stellwerk.executors.http import HttpRequest
from stellwerk.worker.tracing import OpenTelemetry, set_up

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
Database = psycopg.Connection[Any]


def order(db: Database, traceparent: str | None, table: str = "orders") -> None:
    with db.transaction():
        if traceparent is not None:
            db.execute("select set_config('stellwerk.traceparent', %s, true)", [traceparent])
        db.execute(f"insert into {table} (customer) values ('Ada')".encode())


def traces(db: Database) -> list[tuple[str, str | None]]:
    return db.execute("select workflow, traceparent from stellwerk.run_overview order by run_id").fetchall()


@pytest.fixture
def watched(db: Database, make_workflow: Any) -> Database:
    db.execute(ORDERS)
    make_workflow(document("child", [START], []))
    make_workflow(
        document(
            "intake",
            [node("row", "trigger.row"), node("more", "logic.call", {"workflow": "child"})],
            ["row -> more"],
        )
    )
    db.execute("select stellwerk.watch_table('orders', 'intake')")
    return db


def test_the_inserting_transactions_trace_is_kept_with_event_run_and_child(watched: Database, run_all: Any) -> None:
    order(watched, TRACEPARENT)
    order(watched, None)
    assert watched.execute("select traceparent from stellwerk.event order by event_id").fetchall() == [
        (TRACEPARENT,),
        (None,),
    ]
    run_all(watched)
    assert sorted(traces(watched), key=str) == [
        ("child", TRACEPARENT),
        ("child", None),
        ("intake", TRACEPARENT),
        ("intake", None),
    ]


@pytest.mark.parametrize(
    "wrong", ["x" * 1000, "00-" + "0" * 32 + f"-{PARENT}-01", f"01-{TRACE}-{PARENT}-01", "'; --", "\n"]
)
def test_what_is_no_trace_harms_neither_row_nor_run(watched: Database, run_all: Any, wrong: str) -> None:
    order(watched, wrong)
    run_all(watched)
    assert {trace for _, trace in traces(watched)} == {None}
    assert watched.execute("select count(*) from stellwerk.run").fetchone() == (2,)


def test_in_bulk_mode_every_row_has_the_trace(watched: Database, run_all: Any) -> None:
    watched.execute("select stellwerk.watch_table('orders', 'intake', bulk => true)")
    with watched.transaction():
        watched.execute("select set_config('stellwerk.traceparent', %s, true)", [TRACEPARENT])
        watched.execute("insert into orders (customer) select 'c' || g from generate_series(1, 3) g")
    run_all(watched)
    assert [trace for workflow, trace in traces(watched) if workflow == "intake"] == [TRACEPARENT] * 3


def test_a_run_asked_for_and_an_event_emitted_have_the_trace(db: Database, make_workflow: Any, run_all: Any) -> None:
    make_workflow(document("asked", [START], []))
    make_workflow(document("told", [node("event", "trigger.event", {"event": "said"})], []))
    with db.transaction():
        db.execute("select set_config('stellwerk.traceparent', %s, true)", [TRACEPARENT])
        db.execute("select stellwerk.start_run('asked'), stellwerk.emit_event('said')")
    run_all(db)
    assert traces(db) == [("asked", TRACEPARENT), ("told", TRACEPARENT)]


def test_what_a_run_changes_belongs_to_its_trace(watched: Database, make_workflow: Any, run_all: Any) -> None:
    watched.execute("create table notes (id int generated always as identity, customer text)")
    watched.execute("grant select, insert, update, delete on notes to stellwerk_owner")
    watched.execute("select stellwerk.register_table('notes')")
    insert = node("write", "record.create", {"table": "notes", "values": {"customer": "x"}})
    make_workflow(document("writes", [START, insert], ["start -> write"]))
    make_workflow(document("noted", [node("row", "trigger.row")], []))
    watched.execute("select stellwerk.watch_table('notes', 'noted')")
    with watched.transaction():
        watched.execute("select set_config('stellwerk.traceparent', %s, true)", [TRACEPARENT])
        watched.execute("select stellwerk.start_run('writes')")
    run_all(watched)
    run_all(watched)
    assert traces(watched) == [("writes", TRACEPARENT), ("noted", TRACEPARENT)]


def test_each_attempt_is_a_span_below_the_transaction_and_calls_name_it(
    db: Database, make_workflow: Any, start_worker: Any, wait_until: Any, httpserver: HTTPServer
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    httpserver.expect_request("/").respond_with_json({})
    make_workflow(
        document(
            "traced",
            [
                START,
                node(
                    "phone",
                    "action.fonio_call",
                    {"script": "fail 1"},
                    retry={"max_attempts": 2, "interval": "PT0.1S", "jitter": False},
                ),
                node("web", "http.request", {"url": httpserver.url_for("/")}),
            ],
            ["start -> phone", "phone -> web"],
        )
    )
    start_worker({**puppets(), "http.request": HttpRequest()}, tracing=OpenTelemetry(provider))
    with db.transaction():
        db.execute("select set_config('stellwerk.traceparent', %s, true)", [TRACEPARENT])
        db.execute("select stellwerk.start_run('traced')")
    wait_until(lambda: db.execute("select state from stellwerk.run").fetchone() == ("completed",))
    first, second, web = sorted(spans.get_finished_spans(), key=lambda span: span.start_time or 0)
    for span in (first, second, web):
        assert span.parent is not None
        assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
        assert span.attributes is not None
        assert (span.attributes["stellwerk.workflow"], span.attributes["stellwerk.tenant"]) == ("traced", "default")
    assert [span.attributes["stellwerk.attempt"] for span in (first, second, web)] == [1, 2, 1]
    assert [span.status.status_code.name for span in (first, second, web)] == ["ERROR", "UNSET", "UNSET"]
    assert first.attributes["error.type"] == "told_to"
    request, _ = httpserver.log[0]
    assert request.headers["traceparent"] == f"00-{TRACE}-{web.context.span_id:016x}-01"


def test_spans_are_sent_where_the_environment_says(
    db: Database,
    make_workflow: Any,
    start_worker: Any,
    wait_until: Any,
    httpserver: HTTPServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    httpserver.expect_request("/v1/traces", method="POST").respond_with_data(b"")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", httpserver.url_for("").rstrip("/"))
    make_workflow(document("sent", [START, node("phone", "action.fonio_call", {"script": "ok"})], ["start -> phone"]))
    worker = start_worker(puppets(), tracing=set_up())
    with db.transaction():
        db.execute("select set_config('stellwerk.traceparent', %s, true)", [TRACEPARENT])
        db.execute("select stellwerk.start_run('sent')")
    wait_until(lambda: db.execute("select state from stellwerk.run").fetchone() == ("completed",))
    worker.stop()  # sends what it still holds
    received = [ExportTraceServiceRequest.FromString(request.get_data()) for request, _ in httpserver.log]
    spans = [
        (resource, span)
        for each in received
        for resource in each.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [(span.name, span.trace_id.hex(), span.parent_span_id.hex()) for _, span in spans] == [
        ("action.fonio_call phone", TRACE, PARENT)
    ]
    about = {each.key: each.value.string_value for each in spans[0][0].resource.attributes}
    assert about["service.name"] == "stellwerk-worker"


def test_without_the_extra_calls_name_the_trace_itself(
    db: Database, make_workflow: Any, start_worker: Any, wait_until: Any, httpserver: HTTPServer
) -> None:
    httpserver.expect_request("/").respond_with_json({})
    request = node("web", "http.request", {"url": httpserver.url_for("/")})
    make_workflow(document("plain", [START, request], ["start -> web"]))
    start_worker({"http.request": HttpRequest()})
    for traceparent in (TRACEPARENT, ""):
        with db.transaction():
            db.execute("select set_config('stellwerk.traceparent', %s, true)", [traceparent])
            db.execute("select stellwerk.start_run('plain')")
        wait_until(lambda: db.execute("select bool_and(state = 'completed') from stellwerk.run").fetchone() == (True,))
    assert [request.headers.get("traceparent") for request, _ in httpserver.log] == [TRACEPARENT, None]


@pytest.mark.one_server
def test_nothing_of_opentelemetry_is_imported_unasked() -> None:
    program = (
        "import sys, stellwerk.cli, stellwerk.web.app, stellwerk.worker.run as run;"
        "from stellwerk.worker.tracing import PassOn, set_up;"
        "assert isinstance(set_up(), PassOn);"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
