"""From captured changes to runs: each starts one run or says why not, whatever else is in the batch."""

from __future__ import annotations

import re
import threading

import psycopg
import pytest
from database.watching import events, on_row, process, value, watch


def test_an_event_becomes_a_run_with_the_row_as_its_payload(orders, run_all):
    watch(orders, operations=["insert", "update", "delete"])
    orders.execute("insert into orders (customer, total) values ('Ada', 10.50)")
    orders.execute("update orders set customer = 'Grace'")
    orders.execute("delete from orders")
    assert process(orders) == 3
    assert events(orders, "operation, state, record_id, reason, run_id is not null, processed_at is not null") == [
        (operation, "processed", "1", None, True, True) for operation in ("insert", "update", "delete")
    ]
    runs = orders.execute(
        "select source, trigger_node, payload->>'customer', old->>'customer', event_id, version from stellwerk.run order by run_id"
    ).fetchall()
    ids = [row[0] for row in events(orders, "event_id")]
    assert runs == [
        ("row", "row", "Ada", None, ids[0], 1),
        ("row", "row", "Grace", "Ada", ids[1], 1),
        ("row", "row", "Grace", "Grace", ids[2], 1),
    ]
    run_all(orders)
    assert orders.execute("select state, output->>'customer' from stellwerk.run order by run_id").fetchall() == [
        ("completed", "Ada"),
        ("completed", "Grace"),
        ("completed", "Grace"),
    ]


def test_processing_twice_starts_one_run(orders):
    watch(orders)
    orders.execute("insert into orders select from generate_series(1, 5)")
    assert [process(orders), process(orders)] == [5, 0]
    assert value(orders, "select count(*) from stellwerk.run") == 5


def test_a_batch_takes_the_oldest_first_and_no_more_than_asked(orders):
    watch(orders)
    orders.execute("insert into orders select from generate_series(1, 5)")
    assert value(orders, "select stellwerk.process_events(1, 2)") == 2
    assert [state for (state,) in events(orders, "state")] == [
        "processed",
        "processed",
        "pending",
        "pending",
        "pending",
    ]


def test_two_at_once_share_the_work(orders, dsn):
    watch(orders)
    orders.execute("insert into orders select from generate_series(1, 400)")
    done = []

    def work() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            done.append(process(other, 50))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process(orders)
    assert value(orders, "select count(distinct event_id) from stellwerk.run") == 400
    assert value(orders, "select count(*) from stellwerk.run") == 400


@pytest.mark.slow
@pytest.mark.parametrize("bulk", [False, True], ids=["rows", "bulk"])
def test_one_percent_of_100000_copied_rows_start_exactly_1000_runs(orders, bulk):
    watch(orders, condition="new.total = 7", bulk=bulk)
    with orders.cursor() as cursor, cursor.copy("copy orders (customer, total) from stdin") as copy:
        for number in range(100_000):
            copy.write_row((f"customer {number}", number % 100))
    assert process(orders) == 1000
    assert value(orders, "select count(*) from stellwerk.run") == 1000
    assert orders.execute("select distinct payload->>'total', source from stellwerk.run").fetchall() == [("7", "row")]
    assert value(orders, "select count(distinct payload->>'id') from stellwerk.run") == 1000


@pytest.mark.parametrize("bulk", [False, True], ids=["rows", "bulk"])
def test_a_row_that_jsonb_cannot_hold_fails_alone(orders, bulk):
    watch(orders, bulk=bulk)
    orders.execute(
        r"""insert into orders (customer, data) values ('a', '{}'), ('b', '"\u0000"'), ('c', '"\ud800"'), ('d', '{"n": 1e131071}'), ('e', null)"""
    )
    deep = "[" * 3000 + "]" * 3000
    orders.execute("insert into orders (customer, data) values ('f', %s), ('g', '{}')", (deep,))
    process(orders)
    found = events(orders, "new::text, state, reason")
    assert [state for _, state, _ in found] == [
        "processed",
        "failed",
        "failed",
        "failed",
        "processed",
        "failed",
        "processed",
    ]
    assert all(reason for _, state, reason in found if state == "failed")
    assert value(orders, "select count(*) from stellwerk.run") == 3


def test_a_row_of_more_than_8_mb_is_a_failed_event(orders):
    watch(orders)
    orders.execute("insert into orders (customer) values (repeat('x', 9000000)), ('small')")
    process(orders)
    (large, small) = events(orders, "state, reason")
    assert large[0] == "failed"
    assert "limit" in large[1]
    assert small == ("processed", None)


def test_the_input_schema_decides_which_rows_start(orders, make_workflow):
    document = on_row("strict") | {
        "input_schema": {"type": "object", "required": ["customer"], "properties": {"customer": {"type": "string"}}}
    }
    make_workflow(document)
    watch(orders, workflow="strict")
    orders.execute("insert into orders (customer) values ('Ada'), (null)")
    process(orders)
    good, bad = events(orders, "state, reason")
    assert good == ("processed", None)
    assert bad[0] == "failed"
    assert "input_schema: customer" in bad[1]


def test_events_of_an_unpublished_workflow_are_ignored(orders, make_workflow):
    make_workflow(on_row("draft"), publish=False)
    watch(orders, workflow="draft")
    orders.execute("insert into orders default values")
    process(orders)
    assert events(orders, "state, reason, record_id") == [("ignored", "workflow draft has no published version", "1")]


def test_new_runs_take_the_version_that_is_active_now(orders, make_workflow):
    watch(orders)
    orders.execute("insert into orders default values")
    process(orders)
    make_workflow(on_row("intake", "renamed"))
    orders.execute("insert into orders default values")
    process(orders)
    assert orders.execute("select version, trigger_node from stellwerk.run order by run_id").fetchall() == [
        (1, "row"),
        (2, "renamed"),
    ]


def test_a_version_without_the_node_fails_the_event(orders, make_workflow):
    make_workflow(on_row("two", "one", "other"))
    watch(orders, workflow="two/other")
    make_workflow(on_row("two", "one"))
    orders.execute("insert into orders default values")
    process(orders)
    assert events(orders, "state, reason") == [("failed", "version 2 of workflow two has no trigger.row node other")]


def test_cause_and_depth_reach_the_run(orders):
    watch(orders)
    orders.execute("select set_config('stellwerk.cause', '41/2', false)")
    orders.execute("insert into orders default values")
    process(orders)
    assert orders.execute("select caused_by_run_id, depth from stellwerk.run").fetchall() == [(41, 3)]


def test_two_watches_of_one_table_start_two_workflows(orders, make_workflow):
    make_workflow(on_row("second"))
    watch(orders)
    watch(orders, workflow="second", condition="total > 5")
    orders.execute("insert into orders (total) values (1), (9)")
    process(orders)
    assert value(orders, "select count(*) from stellwerk.run") == 3


def test_a_batch_that_cannot_be_read_is_kept_whole(orders):
    watch_id = watch(orders, bulk=True)
    orders.execute(
        "insert into stellwerk.event_batch (tenant_id, watch_id, target, operation, changes, change_count)"
        " values (1, %s, 'public.orders', 'insert', '{\"no\": \"array\"}', 3)",
        (watch_id,),
    )
    orders.execute("insert into orders default values")
    process(orders)
    assert events(orders, "state") == [("failed",), ("processed",)]
    assert "3 changes" in events(orders, "reason")[0][0]


def test_the_pump_carries_rows_to_their_end(orders, run_all):
    watch(orders)
    watch(orders, bulk=True)
    orders.execute("insert into orders select from generate_series(1, 1200)")
    run_all(orders)
    assert orders.execute("select state, count(*) from stellwerk.run group by 1").fetchall() == [("completed", 1200)]
    assert orders.execute("select state, count(*) from stellwerk.event group by 1").fetchall() == [("processed", 1200)]


# -- the view that shows the inbox and the log as one ----------------------------------------------------------------------


def test_an_event_stays_the_same_while_it_moves_between_inbox_and_log(orders, make_workflow, run_all):
    """Captured, processed, failed and tried again: what was known of the change is known ever after."""
    make_workflow(
        on_row() | {"input_schema": {"type": "object", "properties": {"total": {"type": "number", "minimum": 5}}}}
    )
    watch(orders, operations=["update"])
    orders.execute("insert into orders (total) values (7)")
    orders.execute("""
        set stellwerk.cause = '7/2';
        set stellwerk.actor = 'ada@example.org';
        set stellwerk.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
        update orders set total = 1;
        reset stellwerk.cause""")
    same = "event_id, watch_id, target, operation, old::text, new::text, caused_by_run_id, depth, created_at, source_oid, login, actor, traceparent"
    (captured,) = events(orders, same, "state = 'pending' and record_id is null and processed_at is null")
    assert captured[6:8] == (7, 3)
    assert captured[-2:] == ("ada@example.org", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    run_all(orders)
    assert events(orders, same, "state = 'failed' and record_id = '1' and processed_at is not null") == [captured]
    value(orders, "select stellwerk.retry_event(%(event)s)", event=captured[0])
    assert events(orders, same, "state = 'pending' and reason is null and processed_at is null") == [captured]
    assert value(orders, "select count(*) from stellwerk.event_log") == 0
    make_workflow(on_row())
    run_all(orders)
    assert events(orders, same, "state = 'processed' and run_id is not null") == [captured]


def test_nobody_writes_to_the_view(orders):
    watch(orders)
    orders.execute("insert into orders default values")
    for statement in (
        "insert into stellwerk.event (tenant_id, target, operation) values (1, 'x', 'insert')",
        "update stellwerk.event set state = 'processed'",
        "delete from stellwerk.event",
    ):
        with pytest.raises(psycopg.DatabaseError, match="alone") as caught:
            orders.execute(statement)
        assert caught.value.sqlstate == "SW004"
        with orders.transaction():
            orders.execute("set local role stellwerk_dba")
            with pytest.raises(psycopg.errors.InsufficientPrivilege), orders.transaction():
                orders.execute(statement)
    assert events(orders, "state") == [("pending",)]


def test_what_is_pending_is_read_from_the_inbox_alone_and_what_is_not_from_the_log(orders):
    """Arrivals are few, for every pump files them: they are read whole, and sorted alone."""

    def plan(query: str) -> str:
        lines = [
            row[0] for row in orders.execute(f"explain (costs off) select event_id from stellwerk.event where {query}")
        ]
        arrivals = [at for at, line in enumerate(lines) if "Seq Scan on event_arrival" in line]
        for at in arrivals:
            lines[at] = ""
            sort = max((above for above in range(at) if "->  Sort" in lines[above]), default=at)
            lines[sort] = ""
        return "\n".join(lines)

    orders.execute("set enable_seqscan = off")
    pending = plan("tenant_id = 1 and state = 'pending' order by event_id limit 50")
    assert "event_inbox" in pending
    assert "event_log" not in pending
    failed = plan("tenant_id = 1 and state = 'failed' order by event_id desc limit 50")
    assert "event_inbox" not in failed
    assert "Seq Scan" not in failed
    newest = plan("tenant_id = 1 order by event_id desc limit 50")
    assert "->  Sort" not in newest
    assert "Seq Scan" not in newest
    one = plan("tenant_id = 1 and event_id = 5")
    # The inbox, and the one range of the log that the number belongs to.
    indexes = [line.split(" using ")[1].split()[0] for line in one.splitlines() if "Scan using" in line]
    assert sorted(re.sub("_(0|default)_", "_", name) for name in indexes if name.startswith("event_")) == [
        "event_inbox_pkey",
        "event_log_pkey",
    ]
