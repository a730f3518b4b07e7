"""Nodes that touch other people's tables and functions."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import START, document, node, run, start, states, transform

TABLE = """
create schema shop;
create table shop.customer (id bigint generated always as identity primary key, name text not null unique, "Odd ""Name" int,
  born date, tags text[], data jsonb, tenant_id bigint);
create function shop.touch() returns trigger language plpgsql as $$ begin insert into log values (new.name); return new; end $$;
create table shop.log (line text);
create trigger touch before insert on shop.customer for each row execute function shop.touch();
"""


@pytest.fixture
def shop(db):
    """A customer's table with a trigger that only works under the customer's search_path."""
    db.execute(TABLE)
    owner = db.execute("select nspowner::regrole::text from pg_namespace where nspname = 'stellwerk'").fetchone()[0]
    db.execute(
        f"grant usage on schema shop to {owner}; grant all on all tables in schema shop to {owner}; grant all on all sequences in schema shop to {owner}"
    )
    db.execute("set search_path = shop, public")
    db.execute("select stellwerk.register_table('shop.customer', 'customer')")
    return db


def play(db, make_workflow, run_all, node_, payload=None, **more):
    slug = make_workflow(
        document(
            "records",
            [START, node_, transform("end", f"{{{{ steps.{node_['id']}.output }}}}")],
            [f"start -> {node_['id']}", f"{node_['id']} -> end"],
            **more,
        )
    )
    run_id = start(db, slug, payload)
    run_all(db)
    return run(db, run_id)


def test_create_inserts_typed_values_and_answers_the_row(shop, make_workflow, run_all):
    values = {
        "name": "{{ trigger.payload.name }}",
        "born": "2001-02-03",
        "tags": ["a", "b"],
        "data": {"x": [1]},
        'Odd "Name': 5,
    }
    ended = play(
        shop,
        make_workflow,
        run_all,
        node("add", "record.create", {"table": "customer", "values": values}),
        {"name": "O'Hara; drop table shop.customer"},
    )
    assert ended["state"] == "completed", ended["error"]
    assert ended["output"] == {
        "id": 1,
        "name": "O'Hara; drop table shop.customer",
        "born": "2001-02-03",
        "tags": ["a", "b"],
        "data": {"x": [1]},
        'Odd "Name': 5,
        "tenant_id": None,
    }
    assert shop.execute("select line from shop.log").fetchall() == [("O'Hara; drop table shop.customer",)]


def test_query_update_and_delete(shop, make_workflow, run_all):
    shop.execute("insert into shop.customer (name, born) values ('a', '2000-01-01'), ('b', '2000-01-02'), ('c', null)")
    found = play(
        shop,
        make_workflow,
        run_all,
        node("find", "record.query", {"table": "customer", "columns": ["name"], "order_by": "name desc", "limit": 2}),
    )
    assert found["output"] == {"rows": [{"name": "c"}, {"name": "b"}], "count": 2}
    found = play(
        shop,
        make_workflow,
        run_all,
        node("find", "record.query", {"table": "customer", "where": {"born": None}, "columns": ["name"]}),
    )
    assert found["output"]["rows"] == [{"name": "c"}]
    changed = play(
        shop,
        make_workflow,
        run_all,
        node(
            "change",
            "record.update",
            {"table": "customer", "where": {"name": "a"}, "values": {"born": "{{ trigger.payload.born }}"}},
        ),
        {"born": "1999-09-09"},
    )
    assert (changed["output"]["count"], changed["output"]["rows"][0]["born"]) == (1, "1999-09-09")
    gone = play(
        shop,
        make_workflow,
        run_all,
        node("drop", "record.delete", {"table": "customer", "where": {"name": "{{ trigger.payload.name }}"}}),
        {"name": "b"},
    )
    assert gone["output"]["count"] == 1
    assert shop.execute("select name from shop.customer order by 1").fetchall() == [("a",), ("c",)]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"table": "costumer", "values": {"name": "x"}}, "is not registered"),
        ({"table": "customer", "values": {"nmae": "x"}}, "has no column 'nmae'"),
        ({"table": "customer", "values": {"name); drop table shop.log; --": "x"}}, "has no column"),
        ({"table": "customer", "values": {"name": None}}, "null value"),
        ({"table": "customer", "values": {"name": "x", "born": "never"}}, "invalid input syntax"),
    ],
)
def test_what_the_table_refuses_is_the_steps_error(shop, make_workflow, run_all, config, says):
    ended = play(shop, make_workflow, run_all, node("add", "record.create", config))
    assert ended["state"] == "failed"
    assert says in ended["error"]["message"]
    assert ended["error"]["node"] == "add"
    assert shop.execute("select to_regclass('shop.log') is not null, count(*) from shop.customer").fetchone() == (
        True,
        0,
    )


def test_a_failing_record_step_takes_back_only_its_own_change(shop, make_workflow, run_all):
    shop.execute("insert into shop.customer (name) values ('taken')")
    slug = make_workflow(
        document(
            "two",
            [
                START,
                node("good", "record.create", {"table": "customer", "values": {"name": "new"}}),
                node("bad", "record.create", {"table": "customer", "values": {"name": "taken"}}, on_error="continue"),
            ],
            ["start -> good", "good -> bad"],
        )
    )
    run_id = start(shop, slug)
    run_all(shop)
    assert states(shop, run_id) == {"start": "completed", "good": "completed", "bad": "failed"}
    assert run(shop, run_id)["state"] == "completed"
    assert run(shop, run_id)["output"]["error"]["class"] == "23505"
    assert shop.execute("select count(*) from shop.customer").fetchone() == (2,)


def test_a_deferred_constraint_speaks_in_the_step(shop, make_workflow, run_all):
    shop.execute(
        "alter table shop.customer add constraint lone foreign key (tenant_id) references shop.customer (id) deferrable initially deferred"
    )
    ended = play(
        shop,
        make_workflow,
        run_all,
        node("add", "record.create", {"table": "customer", "values": {"name": "x", "tenant_id": 77}}),
    )
    assert (ended["state"], ended["error"]["class"]) == ("failed", "23503")


def test_a_lock_of_the_application_is_waited_for_briefly_and_tried_again(dsn, shop, make_workflow, run_all):
    shop.execute("insert into shop.customer (name) values ('a')")
    slug = make_workflow(
        document(
            "lock",
            [
                START,
                node(
                    "change",
                    "record.update",
                    {"table": "customer", "where": {"name": "a"}, "values": {"born": "2000-01-01"}},
                ),
            ],
            ["start -> change"],
        )
    )
    run_id = start(shop, slug)
    with psycopg.connect(dsn) as application:
        application.execute("select from shop.customer for update")
        run_all(shop)
        assert states(shop, run_id)["change"] == "queued"
        assert shop.execute("select error ->> 'class' from stellwerk.step where node_id = 'change'").fetchone() == (
            "55P03",
        )
    shop.execute("update stellwerk.timer set due_at = now() - interval '1 second'")
    shop.execute("select stellwerk.tick()")
    run_all(shop)
    assert run(shop, run_id)["state"] == "completed"


def test_the_tenant_column_is_part_of_every_statement(shop, make_workflow, run_all):
    shop.execute("select stellwerk.register_table('shop.customer', 'mine', 'tenant_id')")
    shop.execute("insert into shop.customer (name, tenant_id) values ('theirs', 2), ('ours', 1)")
    found = play(shop, make_workflow, run_all, node("find", "record.query", {"table": "mine", "columns": ["name"]}))
    assert found["output"]["rows"] == [{"name": "ours"}]
    gone = play(
        shop, make_workflow, run_all, node("drop", "record.delete", {"table": "mine", "where": {"name": "theirs"}})
    )
    assert gone["output"]["count"] == 0
    made = play(
        shop,
        make_workflow,
        run_all,
        node("add", "record.create", {"table": "mine", "values": {"name": "new", "tenant_id": 2}}),
    )
    assert made["output"]["tenant_id"] == 1


def test_a_registered_function_runs_with_input_and_context(shop, make_workflow, run_all):
    shop.execute(
        "create function shop.greet(input jsonb, context jsonb) returns jsonb language sql as $$ select jsonb_build_object('hello', input ->> 'who', 'key', context ->> 'idempotency_key') $$"
    )
    shop.execute("select stellwerk.register_function('greet', 'shop.greet(jsonb, jsonb)')")
    ended = play(
        shop,
        make_workflow,
        run_all,
        node("f", "sql.function", {"function": "greet", "input": {"who": "{{ trigger.payload.who }}"}}),
        {"who": "you"},
    )
    assert ended["output"]["hello"] == "you"
    assert ended["output"]["key"].startswith(f"{ended['run_id']}:")


def test_a_function_that_raises_or_takes_too_long_fails_its_step_only(shop, make_workflow, run_all):
    shop.execute(
        "create function shop.slow(input jsonb, context jsonb) returns jsonb language sql as $$ select to_jsonb(pg_sleep(5)::text) $$"
    )
    shop.execute("select stellwerk.register_function('slow', 'shop.slow(jsonb, jsonb)')")
    slug = make_workflow(document("slow", [START, node("f", "sql.function", {"function": "slow"})], ["start -> f"]))
    run_id = start(shop, slug)
    shop.execute("set statement_timeout = '300ms'")
    run_all(shop)
    shop.execute("reset statement_timeout")
    ended = run(shop, run_id)
    assert (ended["state"], ended["error"]["class"]) == ("failed", "57014")


@pytest.mark.parametrize("target", ["stellwerk.run", "pg_catalog.pg_class", "information_schema.sql_features"])
def test_only_tables_of_the_application_can_be_registered(db, target):
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.register_table(%s)", (target,))
    assert caught.value.sqlstate == "SW006"


def test_registering_names_the_missing_grant(db):
    if db.execute(
        "select nspowner::regrole::text = current_user from pg_namespace where nspname = 'stellwerk'"
    ).fetchone()[0]:
        raise AssertionError("the test database should belong to a role of its own")
    db.execute("create table public.closed (id int)")
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select stellwerk.register_table('public.closed')")
    assert caught.value.sqlstate == "SW004"
    assert "grant select, insert, update, delete on public.closed to stellwerk_owner" in caught.value.diag.message_hint


def test_a_table_may_be_opened_for_reading_only(db, make_workflow, run_all):
    db.execute("create table public.readable (id int); grant select on public.readable to stellwerk_owner")
    notices = []
    db.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    db.execute("select stellwerk.register_table('public.readable')")
    assert "grant insert, update, delete on public.readable" in notices[0]
    assert play(db, make_workflow, run_all, node("read", "record.query", {"table": "readable"}))["output"]["count"] == 0
    slug = make_workflow(
        document("writes", [START, node("add", "record.create", {"table": "readable"})], ["start -> add"])
    )
    run_id = start(db, slug)
    run_all(db)
    assert run(db, run_id)["error"]["class"] == "42501"


def test_only_the_owner_may_register(db):
    db.execute("create table public.theirs (id int)")
    db.execute("create role reg_%s login; grant stellwerk_dba to reg_%s" % ((db.info.backend_pid,) * 2))
    db.execute(f"set session authorization reg_{db.info.backend_pid}")
    try:
        with pytest.raises(psycopg.Error) as caught:
            db.execute("select stellwerk.register_table('public.theirs')")
        assert caught.value.sqlstate == "SW004"
        with pytest.raises(psycopg.Error):
            db.execute("select stellwerk.store_registered_table(1, 'x', 'public.theirs', null, '')")
    finally:
        db.execute("reset session authorization")
