"""What the triggers of a watch write, and that they never hurt the application's own write."""

from __future__ import annotations

import json
import os
import re
import subprocess

import psycopg
import pytest
from database.watching import ORDERS, acting_as, events, on_row, process, value, watch


@pytest.fixture
def orders(db, make_workflow):
    """A table and a published workflow; each test sets its own watch."""
    make_workflow(on_row())
    db.execute(ORDERS)
    return db


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


def test_large_and_odd_rows_are_captured_whole(orders):
    orders.execute("""
        create type parts as (a int, b text);
        create type colour as enum ('red', 'grün');
        create domain even as int check (value % 2 = 0);
        create table odd (id int primary key, body text, data json, weight float8, light real, raw bytea, span tstzrange, numbers int[], part parts,
                          parts parts[], colour colour, even even, pause interval, moment timestamptz, day date, tags text[], bits bit(3), place point,
                          amount numeric, doc jsonb, markup xml, search tsvector, net inet, multi int4multirange, doubled int generated always as (even * 2) stored)
    """)
    watch(orders, "odd", operations=["insert", "update", "delete"])
    every = "".join(chr(c) for c in (*range(1, 0xD800, 7), *range(0xE000, 0x11_0000, 11)))
    body = (every * 2)[:100_000]
    orders.execute(
        r"""insert into odd values (1, %s, '{"nul": "\u0000", "half": "\ud800"}', 'NaN', '-Infinity', '\x00ff', '[2026-01-01 00:00Z,infinity)', '{1,null}', '(1,"a,b")',
            '{"(2,c)"}', 'grün', 4, '1 day 2 hours', 'infinity', '-infinity', '{ä,"b c"}', '101', '(1,2)', 'NaN', '{"a": [1]}', null, 'a:1', '::1', '{[1,3)}')""",
        (body,),
    )
    orders.execute("update odd set weight = 'Infinity'")
    orders.execute("delete from odd")
    rows = events(orders, "operation, state, new::text, old::text")
    assert [(operation, state) for operation, state, *_ in rows] == [
        ("insert", "pending"),
        ("update", "pending"),
        ("delete", "pending"),
    ]
    new = json.loads(rows[0][2])
    assert new["body"] == body
    assert new["weight"] == "NaN"
    assert new["raw"] == "\\x00ff"
    assert new["span"] == '["2026-01-01 00:00:00+00",infinity)'
    assert new["part"] == {"a": 1, "b": "a,b"}
    assert new["pause"] == "P1DT2H"
    assert new["moment"] == "infinity"
    assert new["doubled"] == 8


@pytest.mark.parametrize("bulk", [False, True], ids=["rows", "bulk"])
def test_the_settings_of_the_session_change_nothing(orders, bulk):
    orders.execute(
        "create table times (id int primary key, at timestamptz, span interval, raw bytea, x float8, during tstzrange)"
    )
    watch(orders, "times", bulk=bulk)
    orders.execute(
        "set timezone = 'America/New_York'; set datestyle = 'German'; set intervalstyle = 'sql_standard'; set bytea_output = 'escape'; set extra_float_digits = 0"
    )
    orders.execute(
        r"insert into times values (1, '2026-06-01T12:00:00Z', '1 day 3 hours', '\x01', 0.1::float8 + 0.2, '[2026-06-01T12:00:00Z,)')"
    )
    value(orders, "select stellwerk.unpack_event_batches(1, 10)")
    assert events(orders, "new") == [
        (
            {
                "id": 1,
                "at": "2026-06-01T12:00:00+00:00",
                "span": "P1DT3H",
                "raw": "\\x01",
                "x": 0.30000000000000004,
                "during": '["2026-06-01 12:00:00+00",)',
            },
        )
    ]


TELLTALE = """
    create type telltale as enum ('a');
    create table told (who text);
    create function tell(telltale) returns json language plpgsql as $$
      begin
        begin
          insert into public.told values (current_user);
        exception when insufficient_privilege then null;
        end;
        return to_json(current_user::text);
      end $$;
    create cast (telltale as json) with function tell(telltale) as implicit;
"""
"""A type whose way to json is a function of the application: it says for whom it was called, and writes where it may."""


def test_a_type_of_the_application_never_runs_with_the_engines_rights(orders):
    """Also when a column of it comes later, in a session whose plans are made: they depend on the table."""
    orders.execute(TELLTALE)
    orders.execute("create table plain (id int primary key, at timestamptz)")
    watch(orders, "plain", operations=["insert", "update", "delete"])
    value(orders, "select stellwerk.has_plain_columns('plain'::regclass)")
    for number in range(12):
        orders.execute("insert into plain values (%s)", (number,))
        orders.execute("update plain set at = now() where id = %s", (number,))
    orders.execute("alter table plain add column mark telltale")
    orders.execute("insert into plain values (20, null, 'a')")
    orders.execute("update plain set at = now() where id = 20")
    orders.execute("delete from plain where id = 20")
    assert events(orders, "operation, coalesce(new, old) ->> 'mark'", "coalesce(new, old) ->> 'id' = '20'") == [
        ("insert", "stellwerk_nobody"),
        ("update", "stellwerk_nobody"),
        ("delete", "stellwerk_nobody"),
    ]
    assert value(orders, "select count(*) from told") == 0
    orders.execute("alter table plain drop column mark")
    orders.execute("insert into plain values (21)")
    assert events(orders, "new::text", "new ->> 'id' = '21'") == [('{"id":21,"at":null}',)]


def test_rows_of_another_table_never_become_json_with_the_engines_rights(orders, run_all):
    """Somebody may put the function of a watch on a table of his own."""
    orders.execute(TELLTALE)
    orders.execute("create table plain (id int primary key)")
    watch_id = watch(orders, "plain")
    orders.execute("create table bait (id int, mark telltale)")
    orders.execute(
        f"create trigger forged after insert on bait for each row execute function stellwerk.capture_{watch_id}_i()"
    )
    for number in range(12):
        orders.execute("insert into plain values (%s)", (number,))
        orders.execute("insert into bait values (%s, 'a')", (number,))
    run_all(orders)
    assert value(orders, "select count(*) from told") == 0
    assert events(orders, "state, reason, count(*)", "new ->> 'mark' = 'stellwerk_nobody' group by 1, 2, event_id")[
        :1
    ] == [("ignored", "captured by a trigger that belongs to no watch of this table", 1)]
    assert value(orders, "select count(*) from stellwerk.run") == 12


@pytest.mark.parametrize(
    ("column", "plain"),
    [
        ("text[]", True),
        ("timestamptz", True),
        ("numeric(10, 2)", True),
        ("jsonb", True),
        ("float8", False),  # extra_float_digits
        ("interval", False),  # intervalstyle
        ("bytea", False),  # bytea_output
        ("tstzrange", False),  # datestyle
        ("regclass", False),  # search_path
        ("money", False),  # lc_monetary
        ("bytea[]", False),
        ("pair", False),
        ("pair[]", False),
        ("kind", False),
        ("kind[]", False),
        ("small", False),
        ("small[]", False),
    ],
)
def test_only_types_whose_text_no_setting_changes_are_plain(tx, column, plain):
    tx.execute("""
        create type pair as (a int, b int);
        create type kind as enum ('a');
        create domain small as int;
    """)
    tx.execute(f"create table t (id int, gone float8, x {column})")
    tx.execute("alter table t drop column gone")
    assert value(tx, "select stellwerk.has_plain_columns('t'::regclass)") is plain


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
