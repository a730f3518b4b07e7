"""Conditions of watches: what SQL admits, what it refuses and where, and that nothing admitted can raise."""

from __future__ import annotations

import psycopg
import pytest
from database.watching import value

TABLE = """
    create type mood as enum ('sad', 'ok', 'happy');
    create domain amount as numeric check (value > 0);
    create domain tiny_code as text check (value <> '');
    create table thing (
      id bigint primary key, name text, "Mixed Case" text, code varchar(10), fixed char(5), number integer, small smallint, total numeric(10,2),
      weight double precision, light real, active boolean, born date, at timestamptz, plain timestamp, span interval, token uuid, raw bytea,
      mood mood, amount amount, tiny tiny_code, data json, doc jsonb, tags text[], place point, german text collate "C", polish text collate "POSIX",
      "select" text, net inet
    );
"""


@pytest.fixture
def thing(tx):
    """A table with a column of every kind."""
    tx.execute(TABLE)
    try:
        with tx.transaction():
            tx.execute("create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
            tx.execute("alter table thing add vague text collate loose")
    except psycopg.errors.FeatureNotSupported:
        pass  # built without ICU
    return tx


def compiled(db, condition: str, operation: str = "update") -> str:
    return value(
        db,
        "select stellwerk.compile_condition('thing', %(operation)s, %(condition)s)",
        operation=operation,
        condition=condition,
    )


@pytest.mark.parametrize(
    ("condition", "sql"),
    [
        ("new.name = 'x'", "new.name = 'x'"),
        ("NAME = 'it''s'", "new.name = 'it''s'"),
        ("name = 'back\\slash'", "new.name = E'back\\\\slash'"),
        ("\"Mixed Case\" <> ''", "new.\"Mixed Case\" <> ''"),
        ("new.\"select\" = 'x'", "new.\"select\" = 'x'"),
        ("number > 5 and total <= 1.5", "(new.number > 5 and new.total <= 1.5)"),
        ("number > -5", "new.number > (-5)"),
        ("weight > 1.5", "new.weight > '1.5'"),
        ("weight between 1 and 2", "((new.weight >= '1' and new.weight <= '2'))"),
        ("weight > 1e300", "new.weight > '1e300'"),
        ("not (active or number is null)", "(not ((new.active or new.number is null)))"),
        ("not active and active is not true", "((not new.active) and new.active is not true)"),
        ("old.name is distinct from new.name", "old.name is distinct from new.name"),
        ("name in ('a', 'b')", "((new.name = 'a' or new.name = 'b'))"),
        ("name not in ('a')", "(not (new.name = 'a'))"),
        ("number not between 1 and 2.5", "(not (new.number >= 1 and new.number <= 2.5))"),
        ("name like 'A%'", "new.name like 'A%'"),
        ("lower(name) not ilike 'a_'", "pg_catalog.lower(new.name) not ilike 'a_'"),
        ("length(coalesce(name, code, '')) > 3", "pg_catalog.length(coalesce(new.name, new.code, '')) > 3"),
        ("coalesce(weight, 1.5) > number", "coalesce(new.weight, '1.5') > new.number"),
        ("data is null or tags is not null", "(new.data is null or new.tags is not null)"),
        ("mood = 'happy'", "new.mood = 'happy'"),
        ("amount > 100", "new.amount > 100"),
        ("at > '2026-01-01T00:00:00Z'", "new.at > '2026-01-01T00:00:00Z'"),
        ("at > plain and born < at", "(new.at > new.plain and new.born < new.at)"),
        ("active = (number > 5)", "new.active = (new.number > 5)"),
        ("name = null", "new.name = null"),
        ("true", "true"),
    ],
)
def test_a_condition_is_written_out_anew(thing, condition, sql):
    assert compiled(thing, condition) == sql


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "character 1: the condition is empty"),
        ("name", "character 1: name is not true or false"),
        ("name = 'x", "character 8: this text has no end"),
        ("name = E'x'", "character 8: texts with a prefix"),
        ("name = U&'x'", "character 8: texts with a prefix"),
        ("name = $$x$$", "character 8: dollar quotes"),
        ("number + 1 > 2", "character 8: arithmetic"),
        ("number > -small", "character 10: - can only stand before a number"),
        ("number::text = '1'", "character 7: casts"),
        ("cast(number as text) = '1'", "character 1: cast is no function"),
        ("name = 'x' -- comment", "character 12: comments"),
        ("name = 'x' /* comment */", "character 12: comments"),
        ("name = 'x'; drop table thing", "character 11: a condition ends without a semicolon"),
        ("name = (select 'x')", "character 9: select is not allowed"),
        ("exists (select 1)", "character 1: exists is no function"),
        ("name in (select 'x')", "character 10: select is not allowed"),
        ("pg_sleep(1) is null", "character 1: pg_sleep is no function"),
        ("pg_catalog.lower(name) = 'x'", "character 1: pg_catalog is neither new nor old"),
        ("nam = 'x'", "character 1: nam is no column of public.thing"),
        ("new.nam = 'x'", "character 5: nam is no column"),
        ("Mixed = 'x'", "character 1: Mixed is no column"),
        ("new.ctid is null", "character 5: ctid is no column"),
        ("name = 5", "character 8: 5 cannot be compared here: text and number"),
        ("number = name", "cannot be compared here"),
        ("total > weight", "cannot be compared here: double precision and numeric|cannot be compared here: numeric"),
        ("data = '{}'", "the type json is not"),
        ("doc = '{}'", "the type jsonb is not"),
        ("tags = '{}'", "the type text[] is not"),
        ("place = '(1,1)'", "the type point is not"),
        ("mood > number", "cannot be compared here"),
        ("german = polish", "has another collation"),
        ("coalesce(german, polish) = 'x'", "has another collation"),
        ("coalesce(born, at) is null", "cannot be compared here"),
        ("at > 'now'", "would mean the moment"),
        ("name like 'a\\'", "ends with a backslash"),
        ("name like code", "stands where like needs a text"),
        ("number like '1%'", "is no text"),
        ("lower(number) = '1'", "takes one text"),
        ("length() > 1", "stands where a column or a value is needed"),
        ("number = 1 = true", "is not expected here"),
        ("number = 1 2", "is not expected here"),
        ("number is 5", "cannot follow is"),
        ("number not 5", "cannot follow not here"),
        ("number between 1 or 2", "stands where between needs and"),
        ("number in ()", "stands where a column or a value is needed"),
        ("number > 1e4000", "this is no number|is not expected"),
        ("number > 1.2.3", "this is no number"),
        ("number > " + "1" * 41, "at most 40 characters"),
        ("name = 'x' || 'y'", "is not allowed in a condition"),
        ("name ~ 'x'", "is not allowed in a condition"),
        ("(" * 60 + "true" + ")" * 60, "nested more than 40 levels"),
        ("(" * 5000, "more than the limit of 4000"),
        ("not " * 60 + "active", "nested more than 40 levels"),
    ],
)
def test_what_could_raise_or_is_not_ours_is_refused(thing, condition, message):
    with pytest.raises(psycopg.DatabaseError) as caught:
        compiled(thing, condition)
    assert caught.value.sqlstate == "SW006"
    assert any(part in str(caught.value.diag.message_primary) for part in message.split("|")), caught.value
    assert caught.value.diag.message_hint


def test_an_unknown_column_gets_the_nearest_name(thing):
    with pytest.raises(psycopg.DatabaseError) as caught:
        compiled(thing, "new.totl = 'x'")
    assert caught.value.diag.message_hint == "Did you mean total?"


@pytest.mark.parametrize(("operation", "condition"), [("insert", "old.name = 'x'"), ("delete", "new.name = 'x'")])
def test_a_row_that_an_operation_lacks_is_refused(thing, operation, condition):
    with pytest.raises(psycopg.DatabaseError, match=f"does not exist for {operation}") as caught:
        compiled(thing, condition, operation)
    assert "trigger.row nodes" in str(caught.value.diag.message_hint)


def test_a_bare_column_is_the_old_row_of_a_delete(thing):
    assert compiled(thing, "name = 'x'", "delete") == "old.name = 'x'"


@pytest.mark.system_server  # the embedded server is built without ICU
def test_like_needs_a_deterministic_collation(thing):
    assert compiled(thing, "lower(vague) = 'x'")
    with pytest.raises(psycopg.DatabaseError, match="nondeterministic"):
        compiled(thing, "lower(vague) like 'x%'")


def test_admitted_conditions_never_raise_over_odd_rows(thing):
    """Each column holds its type's most unpleasant values."""
    thing.execute("create table sink (n int)")
    thing.execute(
        "create function note() returns trigger language plpgsql as 'begin insert into sink values (1); return null; end'"
    )
    conditions = [
        "weight > 1.5 or weight < -1e300 or weight = light or number > weight",
        "total > 5 or total = number or amount > total or total in (1, 2.5)",
        "name like '%\\\\%' or name ilike '_%' or lower(name) = upper(code) or length(fixed) > 2 or name < fixed",
        "at > plain or born < at or plain = born or at > '2026-01-01' or born between '4713-01-01 BC' and '5874897-12-31'",
        "span > '1 day' or token = '00000000-0000-0000-0000-000000000000' or raw = '\\x00' or net = '10.0.0.0/8'",
        "mood > 'sad' or mood in ('ok', 'happy') or tiny <> 'x' or coalesce(tiny, name) is distinct from code",
        "data is null or doc is not null or tags is null or place is null",
    ]
    for number, condition in enumerate(conditions):
        when = compiled(thing, condition, "insert")
        thing.execute(
            f"create trigger t{number} after insert on thing for each row when ({when}) execute function note()"
        )
    thing.execute(r"""
        insert into thing (id, name, code, fixed, number, small, total, weight, light, active, born, at, plain, span, token, raw, mood, amount, data, net)
        select n, case n % 3 when 0 then '' when 1 then U&'\FFFD\+01F600' else repeat('\', 9) end, 'x', 'y', case n % 2 when 0 then 2147483647 else -2147483648 end,
               -32768, case n % 2 when 0 then 'NaN' else -99999999.99 end,
               (array['NaN', 'Infinity', '-Infinity', '1e-307', '1.7e308'])[1 + n % 5]::float8, 'NaN', null,
               (array['infinity', '-infinity', '4713-01-01 BC', '5874897-12-31'])[1 + n % 4]::date,
               (array['infinity', '-infinity', '4713-01-01 BC', '294276-12-31'])[1 + n % 4]::timestamptz,
               (array['infinity', '-infinity', '4713-01-01 BC', '294276-12-31'])[1 + n % 4]::timestamp,
               '-178000000 years', gen_random_uuid(), '\x00', 'sad', 1e300, '"\u0000"', '::/0'
          from generate_series(1, 60) n
    """)
    thing.execute("insert into thing (id) values (0)")
