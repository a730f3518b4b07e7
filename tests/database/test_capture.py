"""What the triggers of a watch write, and that they never hurt the application's own write."""

from __future__ import annotations

import os
import re
import subprocess

import psycopg
import pytest
from database.watching import acting_as, events, process, value, watch


def test_an_insert_writes_one_pending_event(orders):
    watch_id = watch(orders)
    orders.execute("insert into orders (customer, total) values ('Ada', 10.50)")
    assert events(
        orders, "watch_id, target, operation, state, old, new->>'customer', new->>'total', depth, caused_by_run_id"
    ) == [(watch_id, "public.orders", "insert", "pending", None, "Ada", "10.50", 0, None)]


def test_update_and_delete_keep_the_old_row(orders):
    watch(orders, operations=["update", "delete"])
    orders.execute("insert into orders (customer) values ('Ada')")
    orders.execute("update orders set customer = 'Grace'")
    orders.execute("delete from orders")
    assert events(orders, "operation, old->>'customer', new->>'customer'") == [
        ("update", "Ada", "Grace"),
        ("delete", "Grace", None),
    ]


def test_a_row_that_does_not_match_never_calls_the_trigger(orders):
    watch(orders, operations=["insert", "update"], condition="new.status = 'paid' and new.total > 100")

    def calls(statement: str) -> list[int]:
        plan = "\n".join(row[0] for row in orders.execute("explain (analyze, costs off, timing off) " + statement))
        return [int(count) for count in re.findall(r"Trigger stellwerk_\S+: .*?calls=(\d+)", plan)]

    assert sum(calls("insert into orders (status, total) select 'new', 500 from generate_series(1, 1000)")) == 0
    assert sum(calls("update orders set total = 600")) == 0
    assert calls("insert into orders (status, total) values ('paid', 500), ('paid', 5)") == [1]


def test_an_update_that_changes_nothing_writes_no_event(orders):
    """json has no equality, and still nothing raises."""
    watch(orders, operations=["update"])
    orders.execute("""insert into orders (customer, data, weight) values ('Ada', '{"a": 1}', 'NaN')""")
    orders.execute("update orders set customer = customer, data = data")
    assert events(orders) == []
    orders.execute("""update orders set data = '{"a":1}'""")
    assert len(events(orders)) == 1


def test_columns_restrict_updates_to_their_changes(orders):
    watch(orders, operations=["update"], columns=["status", "data"])
    orders.execute("""insert into orders (customer, data) values ('Ada', '{}')""")
    orders.execute("update orders set customer = 'Grace'")
    orders.execute("update orders set status = status, data = data, customer = 'Joan'")
    assert events(orders) == []
    orders.execute("update orders set status = 'paid'")
    orders.execute("""update orders set data = '{"x": 1}'""")
    assert len(events(orders)) == 2


def test_a_rolled_back_insert_leaves_nothing(orders, run_all):
    watch(orders)
    with orders.transaction(force_rollback=True):
        orders.execute("insert into orders (customer) values ('Ada')")
    run_all(orders)
    assert events(orders) == []
    assert value(orders, "select count(*) from stellwerk.run") == 0


def test_triggers_of_earlier_versions_go_on(orders):
    """They call one function for all watches, with arguments."""
    orders.execute("create table sale (id int, region text) partition by list (region)")
    orders.execute("create table sale_north partition of sale for values in ('north')")
    for table, more in (("orders", ""), ("sale", ", 'partitioned'")):
        watch_id = watch(orders, table, operations=["insert", "update", "delete"])
        for operation in ("insert", "update", "delete"):
            orders.execute(
                f"create or replace trigger stellwerk_{watch_id}_{operation[0]} after {operation} on {table} for each row"
                f" execute function stellwerk.capture_row('1', '{watch_id}', 'public.{table}'{more})"
            )
    orders.execute(
        "insert into orders (customer) values ('Ada'); update orders set customer = 'Bob'; delete from orders"
    )
    orders.execute("insert into sale values (1, 'north'); update sale_north set id = 2; delete from sale")
    process(orders)
    kept = events(orders, "target, operation, state, old ->> 'id', new ->> 'id'")
    assert kept == [
        ("public.orders", "insert", "processed", None, "1"),
        ("public.orders", "update", "processed", "1", "1"),
        ("public.orders", "delete", "processed", "1", None),
        ("public.sale", "insert", "processed", None, "1"),
        ("public.sale", "update", "processed", "1", "2"),
        ("public.sale", "delete", "processed", "2", None),
    ]


def test_a_role_without_any_right_on_our_schema_can_write(orders):
    """The role owns nothing of ours, and its own search path and row security do not matter."""
    role = f"writer_{os.getpid()}"
    orders.execute(f"drop role if exists {role}; create role {role}; grant insert, select, update on orders to {role}")
    watch(orders, operations=["insert", "update"])
    try:
        with acting_as(orders, role):
            assert value(orders, "select has_schema_privilege('stellwerk', 'usage')") is False
            orders.execute("set search_path = ''; set row_security = off")
            orders.execute("insert into public.orders (customer) values ('Ada')")
            orders.execute("update public.orders set customer = 'Grace'")
            orders.execute("reset search_path; reset row_security")
        assert len(events(orders, where="state = 'pending'")) == 2
    finally:
        orders.execute(f"drop owned by {role}; drop role {role}")


def test_a_trigger_of_somebody_else_with_our_function_starts_nothing(orders, run_all):
    watch_id = watch(orders)
    orders.execute("create table bait (id int)")
    orders.execute(
        f"create trigger forged after insert on bait for each row execute function stellwerk.capture_row('1', '{watch_id}', 'public.orders')"
    )
    orders.execute(
        "create trigger forged2 after insert on bait referencing new table as new_rows for each statement"
        f" execute function stellwerk.capture_statement('1', '{watch_id}', 'public.orders')"
    )
    orders.execute("insert into bait values (1)")
    run_all(orders)
    assert events(orders, "state, reason") == [
        ("ignored", "captured by a trigger that belongs to no watch of this table")
    ]
    assert value(orders, "select count(*) from stellwerk.event_batch") == 0


def test_the_cause_of_a_change_is_kept_and_a_long_chain_is_suppressed(orders):
    watch(orders)
    for cause in ("7/0", "7/7", "7/8", "nonsense", "7/9999999", ""):
        orders.execute("select set_config('stellwerk.cause', %s, false)", (cause,))
        orders.execute("insert into orders default values")
    orders.execute("reset stellwerk.cause")
    chain = [(7, 1), (7, 8), (7, 9), (None, 0), (None, 0), (None, 0)]
    assert events(orders, "state, caused_by_run_id, depth") == [("pending", *link) for link in chain]
    process(orders)
    assert events(orders, "state, caused_by_run_id, depth") == [
        ("ignored" if depth == 9 else "processed", run, depth) for run, depth in chain
    ]
    assert "suppressed" in events(orders, "reason", "state = 'ignored'")[0][0]


def test_the_doorbell_rings_only_when_somebody_sleeps(orders, dsn):
    watch(orders)
    with psycopg.connect(dsn, autocommit=True) as sleeper, psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("listen stellwerk")
        orders.execute("insert into orders default values")
        assert list(listener.notifies(timeout=0.3)) == []
        sleeper.execute("select stellwerk.fall_asleep()")
        orders.execute("insert into orders select from generate_series(1, 50)")
        assert [note.payload for note in listener.notifies(timeout=2, stop_after=1)] == [""]
        assert list(listener.notifies(timeout=0.3)) == []


def test_partitions_are_watched_through_their_parent(orders):
    orders.execute(
        "create table sale (id int, region text, total numeric, primary key (id, region)) partition by list (region)"
    )
    orders.execute("create table sale_north partition of sale for values in ('north')")
    watch(orders, "sale", operations=["insert", "update", "delete"])
    # Another order of columns than its parent's, attached later.
    orders.execute(
        "create table sale_south (total numeric, gone int, region text not null, id int not null, primary key (id, region))"
    )
    orders.execute("alter table sale_south drop column gone")
    orders.execute("alter table sale attach partition sale_south for values in ('south')")
    orders.execute("insert into sale values (1, 'north', 5)")
    orders.execute("insert into sale_north values (2, 'north', 5)")
    orders.execute("insert into sale_south (id, region, total) values (3, 'south', 5)")
    orders.execute("update sale set total = 6 where id = 3")
    orders.execute("update sale_south set total = total")
    orders.execute("update sale set region = 'south' where id = 1")
    assert events(orders, "target, operation, coalesce(new, old) ->> 'id', state") == [
        ("public.sale", "insert", "1", "pending"),
        ("public.sale", "insert", "2", "pending"),
        ("public.sale", "insert", "3", "pending"),
        ("public.sale", "update", "3", "pending"),
        ("public.sale", "delete", "1", "pending"),  # a row that moves to another partition is deleted and inserted
        ("public.sale", "insert", "1", "pending"),
    ]
    process(orders)
    assert events(orders, "record_id")[0] == ("1,north",)


def test_customers_ddl_never_fails_their_writes(orders):
    watch(orders, operations=["insert", "update", "delete"], condition="status <> 'void'")
    ddl = [
        "alter table orders rename column customer to client",
        "alter table orders add column extra jsonb default '{}'",
        "alter table orders drop column weight",
        "alter table orders alter column pieces type text",
        "alter table orders rename column status to state",
        "alter table orders rename column id to number",
        "alter table orders rename to purchase",
        "alter table purchase rename to orders",
        "alter table orders drop column state cascade",
    ]
    for statement in ddl:
        orders.execute(statement)
        table = "purchase" if statement.endswith("purchase") else "orders"
        orders.execute(f"insert into {table} default values")
        orders.execute(f"update {table} set total = coalesce(total, 0) + 1")
        orders.execute(f"delete from {table}")
        process(orders)
    assert events(orders, "reason", "state = 'failed'") == []


@pytest.mark.parametrize("table", ["event_inbox", "event_batch", "timer_change", "run_message"])
def test_vacuum_never_locks_applications_out_of_what_they_write(db, table):
    """Cutting off a table's empty end takes the strongest lock, and whoever writes would wait for it.

    Only the end of event_arrival is cut off, where there is most: each pump reads that table from its beginning to its end.
    """
    options = db.execute(
        "select c.reloptions, t.reloptions from pg_class c left join pg_class t on t.oid = c.reltoastrelid"
        " where c.oid = to_regclass(%s)",
        (f"stellwerk.{table}",),
    ).fetchone()
    assert all("vacuum_truncate=false" in of_one for of_one in options)


def test_replicated_changes_fire_no_triggers(orders):
    watch(orders)
    orders.execute("set session_replication_role = replica")
    orders.execute("insert into orders default values")
    orders.execute("reset session_replication_role")
    assert events(orders) == []


# -- bulk mode --------------------------------------------------------------------------------------------------------


def test_bulk_mode_writes_one_row_per_500_matches(orders):
    watch(orders, operations=["insert", "update", "delete"], bulk=True, condition="total > 0")
    orders.execute("insert into orders (total) select n % 4 from generate_series(1, 1600) n")
    assert orders.execute("select change_count from stellwerk.event_batch order by batch_id").fetchall() == [
        (500,),
        (500,),
        (200,),
    ]
    orders.execute("update orders set customer = 'x' where id <= 8")
    orders.execute("update orders set customer = customer")
    orders.execute("delete from orders where id <= 4")
    orders.execute("delete from orders where id = 0")
    process(orders)
    assert orders.execute("select operation, count(*) from stellwerk.event group by 1 order by 1").fetchall() == [
        ("delete", 3),
        ("insert", 1200),
        ("update", 6),
    ]
    assert (
        events(orders, "old->>'customer', new->>'customer', old->>'id' = new->>'id'", "operation = 'update'")
        == [(None, "x", True)] * 6
    )
    assert value(orders, "select count(*) from stellwerk.event_batch") == 0


def test_bulk_mode_respects_columns_and_odd_rows(orders):
    watch(orders, operations=["insert", "update"], bulk=True, columns=["data"])
    orders.execute(
        r"""insert into orders (customer, data, weight) values (repeat('ü', 100000), '{"x": "\u0000"}', 'NaN'), ('b', '{}', '1')"""
    )
    orders.execute("update orders set customer = 'c'")
    orders.execute("""update orders set data = '{"y": 1}'""")
    value(orders, "select stellwerk.unpack_event_batches(1, 100)")
    assert [row[0] for row in events(orders, "operation")] == ["insert", "insert", "update", "update"]
    assert len(events(orders, "new::text")[0][0]) > 100_000


def test_an_error_in_bulk_mode_is_one_failed_event_and_the_write_stands(orders):
    watch(orders, bulk=True, condition="status = 'new'")
    orders.execute("alter table orders rename column status to state")
    orders.execute("insert into orders select from generate_series(1, 3)")
    assert value(orders, "select count(*) from orders") == 3
    ((state, reason),) = events(orders, "state, reason")
    assert state == "failed"
    assert "could not be captured" in reason


def test_a_suppressed_batch_becomes_ignored_events(orders):
    watch(orders, bulk=True)
    orders.execute("select set_config('stellwerk.cause', '9/8', false)")
    orders.execute("insert into orders select from generate_series(1, 3)")
    process(orders)
    assert events(orders, "state, caused_by_run_id, depth") == [("ignored", 9, 9)] * 3


def test_the_watch_survives_dump_and_restore_as_ddl(orders, server, dsn):
    """What pg_dump writes of the triggers can be read again."""
    watch(
        orders,
        operations=["insert", "update"],
        columns=["data", "status"],
        condition="total > 1.5 or customer like 'A%'",
    )
    dumped = subprocess.run(
        [server.binaries / "pg_dump", "--schema-only", "--table=orders", dsn],
        capture_output=True,
        text=True,
        check=False,
    )
    assert dumped.returncode == 0, dumped.stderr
    triggers = re.findall(r"^CREATE TRIGGER .*?;$", dumped.stdout, flags=re.MULTILINE | re.DOTALL)
    assert len(triggers) == 2
    orders.execute("drop trigger stellwerk_1_i on orders; drop trigger stellwerk_1_u on orders")
    orders.execute("set search_path = ''")
    for statement in triggers:
        orders.execute(statement)
    orders.execute("""insert into public.orders (total) values (2)""")
    orders.execute("""update public.orders set data = '{}'""")
    assert len(events(orders)) == 2
    assert value(orders, "select stellwerk.check_watches(1)") == 0
