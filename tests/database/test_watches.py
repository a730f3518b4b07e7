"""Setting and ending watches: what is refused and why, who may, what becomes of them under other people's DDL."""

from __future__ import annotations

import os
import threading

import psycopg
import pytest
from database.watching import acting_as, events, on_row, process, value, watch
from psycopg import sql


@pytest.fixture
def clerk(orders):
    """A role that may use Stellwerk, owns nothing and has no right on the table yet."""
    role = f"clerk_{os.getpid()}"
    orders.execute(
        f"drop role if exists {role}; create role {role} in role stellwerk_dba; grant insert on orders to {role}"
    )
    yield role
    orders.execute(f"reset role; drop owned by {role}; drop role {role}")


def triggers(db, table: str = "orders") -> list[str]:
    return [
        row[0]
        for row in db.execute(
            "select tgname from pg_trigger where tgrelid = to_regclass(%s) and not tgisinternal order by 1", (table,)
        )
    ]


def overview(db) -> list[tuple]:
    return db.execute(
        "select target, workflow, trigger_node, operations, condition, columns, bulk, state, reason from stellwerk.watch_overview order by watch_id"
    ).fetchall()


def refusal(db, **named) -> psycopg.Error:
    with pytest.raises(psycopg.DatabaseError) as caught:
        watch(db, **named)
    assert caught.value.diag.message_hint, caught.value
    return caught.value


def test_a_watch_makes_one_trigger_per_operation_and_is_listed(orders):
    watch_id = watch(orders, operations=["update", "insert", "insert"], condition="new.total > 100")
    assert triggers(orders) == [f"stellwerk_{watch_id}_i", f"stellwerk_{watch_id}_u"]
    assert overview(orders) == [
        ("public.orders", "intake", None, ["insert", "update"], "new.total > 100", None, False, "armed", None)
    ]


def test_watching_again_replaces_the_watch(orders):
    first = watch(orders, operations=["insert", "delete"])
    assert watch(orders, operations=["update"], columns=["status"]) == first
    assert triggers(orders) == [f"stellwerk_{first}_u"]
    assert watch(orders, operations=["update"], bulk=True) == first
    assert watch(orders, operations=["insert", "update"], bulk=False) == first
    orders.execute("insert into orders default values; update orders set total = 5")
    assert events(orders, "operation") == [("insert",), ("update",)]


def test_the_verb_takes_positions_and_names(orders):
    assert value(
        orders, "select stellwerk.watch_table('orders', 'intake', '{insert,update}', 'new.total > 1', null, false)"
    )
    assert value(orders, "select stellwerk.watch_table('orders', 'intake', operations => '{delete}', bulk => true)")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("stellwerk.run", "belongs to stellwerk"),
        ("stellwerk_queue.pgqueuer", "belongs to stellwerk_queue"),
        ("pg_catalog.pg_class", "belongs to pg_catalog"),
        ("information_schema.sql_features", "belongs to information_schema"),
        ("a_view", "is a view"),
        ("scratch", "belongs to one session only"),
        ("orders_id_seq", "is a sequence"),
    ],
)
def test_only_tables_of_the_application_can_be_watched(orders, table, message):
    orders.execute("create view a_view as select * from orders; create temp table scratch (id int)")
    error = refusal(orders, table=table)
    assert (error.sqlstate, message in str(error)) == ("SW006", True)


@pytest.mark.parametrize(
    ("named", "state", "message", "hint"),
    [
        ({"workflow": "intaek"}, "SW001", "there is no workflow 'intaek'", "intake"),
        ({"workflow": "intake'; drop table orders; --"}, "SW001", "there is no workflow", "intake"),
        ({"workflow": "intake/nowhere"}, "SW006", "has no trigger.row node 'nowhere'", "There are: row"),
        ({"operations": []}, "SW006", "operations cannot be empty", "insert, update and delete"),
        ({"operations": ["truncate"]}, "SW006", "'truncate'", "insert, update and delete"),
        ({"columns": ["status"]}, "SW006", "columns only make sense for updates", "update"),
        ({"operations": ["update"], "columns": ["statsu"]}, "SW006", "has no column 'statsu'", "Did you mean status?"),
        (
            {"operations": ["update"], "columns": ['status" on pg_class --']},
            "SW006",
            "has no column",
            "Did you mean status?",
        ),
        ({"condition": "new.totl > 5"}, "SW006", "totl is no column", "Did you mean total?"),
        ({"condition": "new.total > 'many'"}, "SW006", "invalid input syntax for type numeric", "A literal"),
        (
            {"condition": "new.total > 'many'", "bulk": True},
            "SW006",
            "invalid input syntax for type numeric",
            "A literal",
        ),
        ({"condition": "new.status = (select 'x')"}, "SW006", "select is not allowed", "logic.if"),
        ({"condition": "old.total > 5"}, "SW006", "does not exist for insert", "new row's"),
    ],
)
def test_bad_orders_are_refused_with_a_hint(orders, named, state, message, hint):
    error = refusal(orders, **named)
    assert error.sqlstate == state
    assert message in str(error.diag.message_primary)
    assert hint in str(error.diag.message_hint)
    assert triggers(orders) == []
    assert overview(orders) == []


def test_names_that_need_quotes_are_quoted(orders):
    orders.execute(
        """create schema "we ird"; create table "we ird"."ta""ble'; drop" ("Key ""x" int primary key, "sel'ect" text)"""
    )
    table = """"we ird"."ta""ble'; drop\""""
    watch(
        orders,
        table=table,
        operations=["insert", "update"],
        condition="""new."sel'ect" = 'it''s'""",
        columns=["sel'ect"],
    )
    orders.execute(f"""insert into {table} values (1, 'it''s')""")
    process(orders)
    assert events(orders, "target, record_id, state") == [(table, "1", "processed")]


def test_a_workflow_with_several_row_triggers_needs_a_name(orders, make_workflow):
    make_workflow(on_row("two", "one", "other"))
    error = refusal(orders, workflow="two")
    assert (error.sqlstate, "two/one, two/other" in str(error.diag.message_hint)) == ("SW006", True)
    first, second = watch(orders, workflow="two/one"), watch(orders, workflow="two/other", condition="total > 5")
    orders.execute("insert into orders (total) values (6)")
    process(orders)
    assert first != second
    assert orders.execute("select trigger_node from stellwerk.run order by run_id").fetchall() == [("one",), ("other",)]


def test_a_workflow_without_a_row_trigger_cannot_be_watched(orders, make_workflow):
    make_workflow(
        {
            "slug": "manual",
            "nodes": [
                {"id": "start", "type": "trigger.manual"},
                {"id": "end", "type": "log.write", "config": {"message": "x"}},
            ],
            "edges": [{"from": "start", "to": "end"}],
        }
    )
    error = refusal(orders, workflow="manual")
    assert (error.sqlstate, "trigger.row" in str(error)) == ("SW006", True)


def test_bulk_mode_is_refused_where_it_would_miss_changes(orders):
    orders.execute(
        "create table part (id int) partition by list (id); create table part_1 partition of part for values in (1)"
    )
    orders.execute("create table keyless (id int)")
    for table in ("part", "part_1"):
        assert "partition" in str(refusal(orders, table=table, bulk=True))
    assert "primary key" in str(refusal(orders, table="keyless", bulk=True, operations=["update"]))
    watch(orders, table="keyless", bulk=True, operations=["insert", "delete"])


# -- rights -----------------------------------------------------------------------------------------------------------


def test_without_the_privilege_trigger_the_missing_grant_is_named(orders, clerk):
    with acting_as(orders, clerk):
        error = refusal(orders)
    assert error.sqlstate == "SW004"
    assert f"grant trigger on public.orders to {clerk}" in str(error.diag.message_hint)


def test_the_privilege_trigger_is_enough_and_ending_the_watch_disarms_it(orders, clerk):
    orders.execute(f"grant trigger on orders to {clerk}")
    with acting_as(orders, clerk):
        watch_id = watch(orders, operations=["insert", "update"])
        orders.execute("insert into orders (customer) values ('Ada')")
        value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
        orders.execute("insert into orders (customer) values ('Grace')")
    assert [row[:1] + row[7:8] for row in overview(orders)] == [("public.orders", "disarmed")]
    assert len(triggers(orders)) == 2
    assert len(events(orders)) == 1
    process(orders)
    assert events(orders, "state, reason") == [("ignored", "the watch was disarmed")]
    assert value(orders, "select stellwerk.check_watches(1)") == 0
    with acting_as(orders, clerk):
        assert watch(orders) == watch_id
    assert overview(orders)[0][7] == "armed"
    value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
    assert (triggers(orders), overview(orders)) == ([], [])


def test_the_inner_functions_ask_for_rights_themselves(orders, clerk):
    watch_id = watch(orders)
    other = value(orders, "insert into stellwerk.tenant (slug, name) values ('other', 'Other') returning tenant_id")
    calls = [
        "select * from stellwerk.plan_watch(1, 'orders', 1, null, '{insert}', null, null, false, false)",
        f"select * from stellwerk.plan_watch({other}, 'orders', 1, null, '{{insert}}', null, null, false, false)",
        f"select stellwerk.forget_watch(1, {watch_id})",
        f"select stellwerk.confirm_watch(1, {watch_id})",
        "select stellwerk.watches_of(1, 'orders', 'intake')",
        f"select * from stellwerk.find_row_trigger({other}, 'intake')",
        f"select * from stellwerk.row_triggers({other}, 1, 1)",
        "update stellwerk.table_watch set bulk = true",
        "insert into stellwerk.event (tenant_id, target, operation) values (1, 'x', 'insert')",
    ]
    with acting_as(orders, clerk):
        for call in calls:
            with pytest.raises(psycopg.DatabaseError) as caught:
                orders.execute(call)
            assert caught.value.sqlstate in ("SW004", "42501"), (call, caught.value)


def test_a_locked_table_is_told_apart_from_a_bad_order(orders, dsn):
    with psycopg.connect(dsn) as other:
        other.execute("insert into orders default values")
        error = refusal(orders)
    assert error.sqlstate == "SW003"
    assert "in use" in str(error.diag.message_primary)


# -- ending -----------------------------------------------------------------------------------------------------------


def test_ending_a_watch_takes_its_triggers_away(orders):
    watch(orders, operations=["insert", "update", "delete"])
    orders.execute("insert into orders default values")
    value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
    assert (triggers(orders), overview(orders)) == ([], [])
    process(orders)
    assert events(orders, "state, reason") == [("ignored", "the watch was removed")]


def test_the_functions_of_a_watch_go_with_it(orders):
    """But where somebody has put one on a table of his own, which nobody else may take away."""

    def functions():
        return [
            name
            for (name,) in orders.execute(
                "select proname from pg_proc where pronamespace = 'stellwerk'::regnamespace and proname ~ '^capture_[0-9]' order by 1"
            ).fetchall()
        ]

    one = watch(orders, operations=["insert", "update", "delete"])
    assert functions() == [f"capture_{one}_d", f"capture_{one}_i", f"capture_{one}_u"]
    value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
    assert functions() == []
    two = watch(orders)
    orders.execute("create table bait (id int)")
    orders.execute(
        f"create trigger mine after insert on bait for each row execute function stellwerk.capture_{two}_i()"
    )
    value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
    assert (overview(orders), functions()) == ([], [f"capture_{two}_i"])
    orders.execute("insert into bait values (1)")
    process(orders)
    assert events(orders, "state, reason") == [("ignored", "the watch was removed")]


def test_names_of_tables_are_data_in_the_functions_of_a_watch(orders):
    name = 'it\'s $body$ %s %1$s \\ "quoted"'
    quoted = '"' + name.replace('"', '""') + '"'
    orders.execute(sql.SQL("create table {} (id int primary key)").format(sql.Identifier(name)))
    watch(orders, quoted, operations=["insert", "update"])
    orders.execute(sql.SQL("insert into {} values (1)").format(sql.Identifier(name)))
    orders.execute(sql.SQL("update {} set id = 2").format(sql.Identifier(name)))
    assert events(orders, "target, operation") == [(f"public.{quoted}", "insert"), (f"public.{quoted}", "update")]


def test_ending_what_is_not_watched_is_an_error(orders):
    with pytest.raises(psycopg.DatabaseError, match="no watch of") as caught:
        value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
    assert caught.value.sqlstate == "SW007"


# -- other people's DDL -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ddl", "reason"),
    [
        ("alter table orders rename column status to state", "column status is called state now"),
        ("alter table orders rename column id to number", "column id is called number now"),
        ("alter table orders drop column status cascade", "column status was dropped"),
        ("drop trigger stellwerk_1_u on orders", "trigger stellwerk_1_u was dropped"),
        ("alter table orders disable trigger stellwerk_1_i", "trigger stellwerk_1_i is disabled"),
        ("alter table orders disable trigger all", "trigger stellwerk_1_i is disabled"),
        ("alter table orders rename to purchases", "table public.orders is called public.purchases now"),
        ("drop table orders cascade", "table public.orders was dropped"),
        (
            "create or replace trigger stellwerk_1_i after insert on orders for each row execute function nothing()",
            "trigger stellwerk_1_i was changed",
        ),
        (
            "create or replace trigger stellwerk_1_i after insert on orders for each row execute function stellwerk.capture_row('1', '1', 'public.orders')",
            "trigger stellwerk_1_i was changed",
        ),
    ],
)
def test_what_others_change_marks_the_watch_broken(orders, ddl, reason):
    orders.execute("create function nothing() returns trigger language plpgsql as 'begin return null; end'")
    watch(orders, operations=["insert", "update"], condition="status = 'paid'")
    assert value(orders, "select stellwerk.check_watches(1)") == 0
    orders.execute(ddl)
    assert value(orders, "select stellwerk.check_watches(1)") == 1
    ((*_, state, said),) = overview(orders)
    assert (state, said.split(". Set")[0]) == ("broken", reason)
    assert value(orders, "select stellwerk.check_watches(1)") == 0


def test_columns_that_a_watch_does_not_name_may_change(orders):
    watch(orders, operations=["insert", "update"], condition="status = 'paid'")
    orders.execute(
        "alter table orders rename column customer to client; alter table orders drop column weight; alter table orders add column note text"
    )
    assert value(orders, "select stellwerk.check_watches(1)") == 0


def test_an_idle_check_writes_nothing(orders):
    watch(orders)
    before = orders.execute("select xmin::text, ctid::text from stellwerk.table_watch").fetchall()
    value(orders, "select stellwerk.check_watches(1)")
    assert orders.execute("select xmin::text, ctid::text from stellwerk.table_watch").fetchall() == before


def test_a_check_waits_for_no_lock(orders, dsn):
    watch(orders, condition="total > 1")
    with psycopg.connect(dsn) as other:
        other.execute("lock table orders in access exclusive mode")
        orders.execute("set statement_timeout = '2s'")
        assert value(orders, "select stellwerk.check_watches(1)") == 0


def test_a_mended_watch_is_armed_again(orders):
    watch(orders, condition="status = 'paid'")
    orders.execute("alter table orders rename column status to state")
    value(orders, "select stellwerk.check_watches(1)")
    watch(orders, condition="state = 'paid'")
    assert overview(orders)[0][7:] == ("armed", None)
    orders.execute("alter table orders disable trigger stellwerk_1_i")
    assert value(orders, "select stellwerk.check_watches(1)") == 1
    orders.execute("alter table orders enable trigger stellwerk_1_i")
    assert value(orders, "select stellwerk.check_watches(1)") == 1
    assert overview(orders)[0][7:] == ("armed", None)


def test_the_watch_of_a_dropped_table_can_be_removed(orders):
    watch_id = watch(orders)
    orders.execute("drop table orders")
    value(orders, "select stellwerk.check_watches(1)")
    value(orders, f"select stellwerk.remove_watch(1, {watch_id})")
    assert overview(orders) == []


# -- publishing -------------------------------------------------------------------------------------------------------


def test_publishing_sets_the_watches_that_the_document_names(orders, make_workflow, engine):
    orders.execute("create table visit (id int primary key, kind text)")
    make_workflow(
        on_row("shop", table="orders", on=["insert", "update"], columns=["status"], when="new.status = 'paid'")
    )
    assert overview(orders) == [
        ("public.orders", "shop", None, ["insert", "update"], "new.status = 'paid'", ["status"], False, "armed", None)
    ]
    make_workflow(on_row("shop", table="public.visit", bulk=True))
    assert overview(orders) == [("public.visit", "shop", None, ["insert"], None, None, True, "armed", None)]
    assert triggers(orders) == []
    engine.rollback_workflow("shop", 1)
    assert [row[0] for row in overview(orders)] == ["public.orders"]
    make_workflow(on_row("shop"))
    assert overview(orders) == []


def test_publishing_leaves_watches_that_people_set(orders, make_workflow):
    watch(orders)
    make_workflow(on_row("intake"))
    assert len(overview(orders)) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"table": "nowhere"}, "there is no table 'nowhere'"),
        ({"table": "x; drop table orders"}, "is not the name of a table"),
        ({"table": "orders", "when": "new.totl > 1"}, "totl is no column"),
    ],
)
def test_publishing_what_cannot_be_watched_is_refused_whole(orders, make_workflow, config, message):
    with pytest.raises(Exception, match=message):
        make_workflow(on_row("shop", **config))
    assert overview(orders) == []
    assert value(orders, "select active_version from stellwerk.workflow where slug = 'shop'") is None


def test_a_registered_tables_tenant_column_is_part_of_every_condition(orders):
    orders.execute("create table shared (id int primary key, owner bigint, note text)")
    orders.execute("grant all on shared to stellwerk_owner; grant usage on schema public to stellwerk_owner")
    value(orders, "select stellwerk.register_table('shared', tenant_column => 'owner')")
    for bulk in (False, True):
        watch(orders, table="shared", operations=["insert", "delete"], bulk=bulk, condition="note = 'a' or note = 'b'")
        orders.execute("insert into shared values (1, 1, 'a'), (2, 2, 'b'), (3, 1, 'c')")
        orders.execute("delete from shared")
        process(orders)
        assert events(orders, "operation, coalesce(new, old) ->> 'id'") == [("insert", "1"), ("delete", "1")]
        orders.execute("truncate stellwerk.event_log")


def test_two_callers_at_once_make_one_watch(orders, dsn):
    results = []

    def call() -> None:
        with psycopg.connect(dsn, autocommit=True) as other:
            results.append(watch(other))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert len(results) == 4
