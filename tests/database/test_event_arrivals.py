"""What triggers write is filed in the inbox by whoever pumps: once, in order, and whoever else is at work."""

from __future__ import annotations

import psycopg
from database.watching import events, on_row, process, value, watch

INBOX = "select count(*) from stellwerk.event_inbox"
ARRIVALS = "select count(*) from stellwerk.event_arrival"


def test_an_arrival_shows_what_it_will_be(orders):
    watch(orders, operations=["insert", "update", "delete"])
    orders.execute("set stellwerk.actor = 'ada@example.org'")
    orders.execute("insert into orders (customer) values ('Ada')")
    orders.execute("update orders set customer = 'Grace'")
    orders.execute("delete from orders")
    shown = (
        "event_id, operation, target, source_oid::regclass::text, new ->> 'customer', old ->> 'customer', login, actor"
    )
    arrived = events(orders, shown, "state = 'pending'")
    assert [row[1:6] for row in arrived] == [
        ("insert", "public.orders", "orders", "Ada", None),
        ("update", "public.orders", "orders", "Grace", "Ada"),
        ("delete", "public.orders", "orders", None, "Grace"),
    ]
    assert value(orders, ARRIVALS) == 3
    value(orders, "select stellwerk.file_arrivals(1, 10)")
    assert (value(orders, ARRIVALS), value(orders, INBOX)) == (0, 3)
    assert events(orders, shown, "state = 'pending'") == arrived
    assert process(orders) == 3
    assert events(orders, shown, "state = 'processed'") == arrived


def test_what_another_session_files_is_passed_over_and_filed_once(orders, dsn):
    watch(orders)
    orders.execute("insert into orders select from generate_series(1, 3)")
    with psycopg.connect(dsn) as other:
        assert value(other, "select cardinality(event_ids) from stellwerk.file_arrivals(1, 2)") == 2
        orders.execute("insert into orders default values")
        assert process(orders) == 2
        other.rollback()
    assert process(orders) == 2
    assert value(orders, "select count(distinct event_id) from stellwerk.run") == 4
    assert value(orders, "select count(*) from stellwerk.run") == 4


def test_what_waits_in_the_inbox_comes_before_what_arrives(orders):
    watch(orders)
    orders.execute("insert into orders select from generate_series(1, 4)")
    value(orders, "select stellwerk.file_arrivals(1, 3)")
    orders.execute("insert into orders default values")
    for left in (3, 1):
        assert value(orders, "select stellwerk.process_events(1, 2)") == 2
        waiting = [int(id_) for (id_,) in events(orders, "new ->> 'id'", "state = 'pending'")]
        assert waiting == list(range(6 - left, 6))
    assert value(orders, "select stellwerk.process_events(1, 2)") == 1


def test_a_tenant_files_its_own(orders, make_workflow):
    watch(orders)
    orders.execute(
        "insert into stellwerk.tenant (slug, name) values ('other', 'Other'); set stellwerk.tenant = 'other'"
    )
    make_workflow(on_row())
    orders.execute("create table theirs (id int primary key)")
    watch(orders, "theirs")
    orders.execute("reset stellwerk.tenant")
    orders.execute("insert into theirs values (1)")
    orders.execute("insert into orders default values")
    assert process(orders) == 1
    assert events(orders, "target, state") == [("public.theirs", "pending"), ("public.orders", "processed")]
    value(orders, "select stellwerk.pump()")
    assert events(orders, "target, state") == [("public.theirs", "processed"), ("public.orders", "processed")]


def test_an_ended_watch_leaves_the_name_of_its_table(orders):
    watch(orders)
    orders.execute("insert into orders default values")
    value(orders, "select stellwerk.unwatch_table('orders', 'intake')")
    assert events(orders, "target, operation, state") == [("public.orders", "insert", "pending")]
    process(orders)
    assert events(orders, "target, state, reason") == [("public.orders", "ignored", "the watch was removed")]


def test_an_arrival_of_an_ended_watch_is_filed_all_the_same(orders):
    watch_id = watch(orders)
    orders.execute("insert into orders default values")
    orders.execute("delete from stellwerk.table_watch")
    process(orders)
    assert events(orders, "target, state, reason") == [(f"(watch {watch_id})", "ignored", "the watch was removed")]


def test_a_function_that_was_made_before_arrivals_goes_on(orders):
    """A session may be in the middle of one while the schema is upgraded."""
    watch_id = watch(orders)
    orders.execute("insert into orders default values")
    orders.execute(
        """insert into stellwerk.event_inbox (tenant_id, watch_id, source_oid, target, operation, new, cause, actor, traceparent)
           values (1, %s, 'orders'::regclass, 'orders', 'insert', '{"id": 7}', '', '', '')""",
        (watch_id,),
    )
    assert process(orders) == 2
    assert events(orders, "new ->> 'id', state") == [("1", "processed"), ("7", "processed")]


def test_a_publication_of_all_tables_stops_nothing(orders):
    watch(orders)
    orders.execute("create publication everything for all tables")
    orders.execute("insert into orders default values")
    assert process(orders) == 1
