"""How captured rows become json: whole, the same whatever the session has set, and never with the engine's rights."""

from __future__ import annotations

import json

import pytest
from database.watching import events, value, watch


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
    forged = events(orders, "state, reason, new", "source_oid = 'bait'::regclass")
    assert forged == [("ignored", "captured by a trigger that belongs to no watch of this table", None)] * 12
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
