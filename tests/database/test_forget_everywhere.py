"""A person's data are planted in every column that can hold them, and none is left after forget_subject.

The columns come from the catalogue, so a new table fails here until forget_subject looks into it, or until it is named below
with the reason why it need not.
"""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import START, call, document, node, start
from psycopg.types.json import Jsonb

SET_UP = "set up by those who build workflows or run the installation; the data of runs never get here"
ENGINE = "words, numbers and names of nodes, written by the engine alone"
TABLES = {
    "alert_rule": SET_UP,
    "api_token": "programs that call the API, named by those who run the installation",
    "app_user": "people who work with the tenant's tasks; they have verbs of their own",
    "calendar": SET_UP,
    "event_arrival": "it is filed in event_inbox, and treated like that: a test of its own",
    "event_inbox": "it becomes an event of the log; until then forget_subject refuses, or erases the row: a test of its own",
    "event_batch": "it becomes events; until then forget_subject refuses, or takes it apart first: a test of its own",
    "followed_column": SET_UP,
    "form": SET_UP,
    "login_failure": "addresses from which, and names with which, logging in failed; gone a day later",
    "loop": ENGINE,
    "migration": SET_UP,
    "node_day": ENGINE,
    "node_hour": ENGINE,
    "plan_node": SET_UP,
    "rate_limit": SET_UP,
    "rate_usage": ENGINE,
    "rate_wait": ENGINE,
    "registered_function": SET_UP,
    "registered_table": SET_UP,
    "request_count": "a digest of an address, counted for some minutes",
    "retention_progress": ENGINE,
    "request_key": "keys that programs chose for their requests, with digests; gone a day later",
    "run_day": ENGINE,
    "run_hour": ENGINE,
    "run_migration": ENGINE,
    "run_total": ENGINE,
    "schedule": SET_UP,
    "table_watch": SET_UP,
    "tenant": SET_UP,
    "tenant_role": SET_UP,
    "timer": ENGINE,
    "timer_change": "the key of a row that has changed, which is gone with the next tick",
    "user_invitation": "of app_user, and goes with it",
    "user_password": "of app_user, and goes with it",
    "user_session": "of app_user, and goes with it",
    "version_move": ENGINE,
    "webhook_source": SET_UP,
    "worker": SET_UP,
    "workflow": SET_UP,
    "workflow_version": SET_UP,
}
ACTOR = "who did it: that stays, with when"
COLUMNS = {
    "actor": ACTOR,
    "aliases": ENGINE,
    "arrived": ENGINE,
    "audit_log.action": ENGINE,
    "audit_log.database_user": ACTOR,
    "audit_log.subject": ENGINE,
    "backoffice_case.workflow": SET_UP,
    "bulk_operation.by_state": ENGINE,
    "bulk_operation.history": ENGINE,
    "bulk_operation.verdicts": ENGINE,
    "case_history.kind": ENGINE,
    "claimed_by": ACTOR,
    "completed_by": ACTOR,
    "created_by": ACTOR,
    "ended_by": ACTOR,
    "ending": ENGINE,
    "event_log.operation": ENGINE,
    "event_log.target": SET_UP,
    "node_id": SET_UP,
    "outcome": "one of the node's outcomes, or a word of the engine",
    "outcomes": "those of the node, or what a delivery led to",
    "paused_by": ACTOR,
    "port": SET_UP,
    "row_timer.calendar": SET_UP,
    "row_timer.column_name": SET_UP,
    "row_timer.slug": SET_UP,
    "run.source": ENGINE,
    "run_log.level": ENGINE,
    "run_message.kind": ENGINE,
    "runs_in": ENGINE,
    "signal.event": SET_UP,
    "state": ENGINE,
    "traceparent": "numbers of a trace",
    "trigger_node": SET_UP,
    "type": SET_UP,
    "undo": SET_UP,
    "variable.name": SET_UP,
    "wait.event": SET_UP,
    "wait.kind": ENGINE,
    "was": ENGINE,
    "webhook_delivery.digest": "a digest of the whole delivery",
    "webhook_delivery.source": SET_UP,
}

ROWS = {
    "audit_log": "actor = 'user {run}'",
    "bulk_operation": "operation_id = {run}",
    "case_appointment": "case_id in (select c.case_id from stellwerk.backoffice_case c where c.run_id = {run})",
    "case_export": "case_id in (select c.case_id from stellwerk.backoffice_case c where c.run_id = {run})",
    "case_history": "case_id in (select c.case_id from stellwerk.backoffice_case c where c.run_id = {run})",
    "event_log": "event_id = {run}",
    "flow_throttle": "workflow_id = {run}",
    "signal": "signal_id = {run}",
    "user_task_attachment": "task_id = {run}",
    "user_task_comment": "task_id = {run}",
    "user_task_decision": "task_id = {run}",
    "webhook_delivery": "delivery_id = {run}",
}
"""Which rows are a person's, where no run_id says it."""

SHOWN_AS = {"event_log": "event"}
"""Tables that people know by the view through which they read them."""

# Everything that a run can have, in the fewest words; a check that refuses the values below keeps them short.
SCENE = """
insert into stellwerk.event_log (tenant_id, event_id, watch_id, target, operation, record_id, old, new, state, run_id, reason) overriding system value
values (1, {run}, 1, 'public.orders', 'update', '1', '{{}}', '{{}}', 'processed', {run}, 'none');
update stellwerk.run set old = '{{}}', output = '{{}}', error = '{{}}', reason = '-', idempotency_key = '{run}', event_id = {run} where run_id = {run};
insert into stellwerk.run_key (tenant_id, workflow_id, idempotency_key, run_id) values (1, 1, '{run}', {run});
insert into stellwerk.run_text (tenant_id, run_id, words) values (1, {run}, to_tsvector('simple', '-'));
insert into stellwerk.scope (tenant_id, run_id, scope_id, parent_scope_id, loop_step_id, position, item, state)
values (1, {run}, 900000 + {run}, 0, 1, 0, '{{}}', 'completed');
insert into stellwerk.variable (tenant_id, run_id, scope_id, name, value) values (1, {run}, 0, 'who', '1');
insert into stellwerk.run_log (tenant_id, run_id, step_id, node_id, level, message, data) values (1, {run}, 1, 'n', 'info', 'm', '{{}}');
insert into stellwerk.step_attempt (tenant_id, run_id, step_id, attempt, outcome, error, worker_id, started_at, ended_at)
values (1, {run}, 1, 1, 'failed', '{{}}', 1, now(), now());
insert into stellwerk.run_message (tenant_id, run_id, step_id, kind, data, held) values (1, {run}, 1, 'complete', '{{}}', true);
insert into stellwerk.wait (tenant_id, run_id, step_id, kind, event, correlation) values (1, {run}, 1, 'event', 'paid', 'c');
insert into stellwerk.row_timer (tenant_id, run_id, step_id, slug, column_name, row_key, shift) values (1, {run}, 1, 's', 'c', 'k', '0');
insert into stellwerk.flow_wait (tenant_id, run_id, workflow_id, phase, key, exclusive, on_conflict, priority, arrived_at)
values (1, {run}, 1, 'behind', 'k', true, 'queue', 0, now());
insert into stellwerk.flow_slot (tenant_id, run_id, workflow_id, key) values (1, {run}, 1, 'k');
insert into stellwerk.flow_throttle (tenant_id, workflow_id, key, free_at) values (1, {run}, 'k', now());
insert into stellwerk.notification (tenant_id, recipient, title, body, link, run_id) values (1, 'u', 't', 'b', '/', {run});
insert into stellwerk.message (tenant_id, recipient, subject, body, link, error, run_id) values (1, 'u', 's', 'b', '/', 'e', {run});
insert into stellwerk.backoffice_case (tenant_id, case_id, run_id, workflow) overriding system value values (1, {run}, {run}, 'w');
insert into stellwerk.case_history (tenant_id, case_id, actor) values (1, {run}, 'u');
insert into stellwerk.case_appointment (tenant_id, case_id, title, starts_at, created_by) values (1, {run}, 't', now(), 'u');
insert into stellwerk.case_export (tenant_id, case_id, step_id, folder) values (1, {run}, 1, 'f');
insert into stellwerk.user_task (tenant_id, task_id, run_id, step_id, title, assignee) overriding system value values (1, {run}, {run}, 1, 't', 'u');
insert into stellwerk.user_task_comment (tenant_id, task_id, actor, body) values (1, {run}, 'u', 'b');
insert into stellwerk.user_task_attachment (tenant_id, task_id, actor, name, reference) values (1, {run}, 'u', 'n', 'r');
insert into stellwerk.user_task_decision (tenant_id, task_id, actor) values (1, {run}, 'u');
insert into stellwerk.signal (tenant_id, signal_id, event, correlation, kept, created_by) overriding system value values (1, {run}, 'paid', 'c', true, 'u');
insert into stellwerk.webhook_delivery (tenant_id, delivery_id, kind, source, created_by, run_ids, state, processed_at) overriding system value
values (1, {run}, 'webhook', 'shop', 'u', '{{{run}}}', 'processed', now());
insert into stellwerk.bulk_operation (tenant_id, operation_id, action, filter, created_by) overriding system value values (1, {run}, 'pause', '{{}}', 'u');
insert into stellwerk.bulk_operation_run (tenant_id, operation_id, run_id) values (1, {run}, {run});
insert into stellwerk.audit_log (tenant_id, actor, database_user, action, subject, subject_id) values (1, 'user {run}', 'u', 'edit_run', 'run', '{run}');
"""


def planted(person, table, column, kind, before):
    """What a column might tell of a person: among other words, deep in a document, as a name of a field."""
    text = f"about {person}, again"
    everything = {"customer": person, "deep": [{"note": text, person: 1}]}
    if column == "error" and kind == "jsonb":
        failed = {"class": "test", "message": text, "detail": everything, "node": "n"}
        return Jsonb(failed | {"compensation": failed})
    if kind == "bytea":
        return text.encode()
    if kind == "tsvector":
        return person
    if kind == "text":
        return text
    return Jsonb([everything] if isinstance(before, list) else everything)


def columns(db):
    rows = db.execute("""
        select c.relname, a.attname, t.typname
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped join pg_type t on t.oid = a.atttypid
         where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
           and t.typname in ('text', '_text', 'varchar', 'bpchar', 'json', 'jsonb', '_jsonb', 'bytea', 'xml', 'hstore', 'tsvector')
         order by 1, a.attnum""").fetchall()
    return [
        row for row in rows if row[0] not in TABLES and row[1] not in COLUMNS and f"{row[0]}.{row[1]}" not in COLUMNS
    ]


def plant(db, person, run_id):
    """Writes the person into all columns of the rows of a run; columns whose check refuses hold no data from outside."""
    done = set()
    for table, column, kind in columns(db):
        where = ROWS.get(table, "run_id = {run}").format(run=run_id)
        before = db.execute(f"select {column} from stellwerk.{table} where {where}").fetchall()
        assert before, f"the scene has no row in {table}"
        try:
            with db.transaction():
                db.execute(
                    f"update stellwerk.{table} set {column} = %s where {where}",
                    (planted(person, table, column, kind, before[0][0]),),
                )
            done.add((table, column))
        except psycopg.errors.CheckViolation:
            continue
    return done


def mentioned(db, person):
    """Every row that tells of the person, whole, by table and column."""
    found = {}
    for table, column, kind in columns(db):
        shown = f"encode({column}, 'escape')" if kind == "bytea" else f"{column}::text"
        rows = db.execute(
            f"select {shown} from stellwerk.{table} where position(%s in {shown}) > 0 order by 1", (person,)
        ).fetchall()
        if rows:
            found[table, column] = rows
    return found


@pytest.fixture
def people(db, make_workflow, run_all):
    """A run of Ada's and one of Bob's, each with a row in every table that can have one."""
    make_workflow(
        document("order", [START, call("ring"), node("wait", "logic.wait", {"for": "P1D"})], ["start -> ring", "start -> wait"])
    )  # fmt: skip
    run_ids = [start(db, "order") for _ in range(2)]
    run_all(db)
    db.execute("set session_replication_role = replica")  # for the audit log, which lets nobody write
    for run_id in run_ids:
        db.execute(SCENE.format(run=run_id))
    return run_ids


@pytest.mark.parametrize("live", [False, True])
def test_nothing_of_a_person_is_left_anywhere(db, people, live):
    ada, bob = people
    if not live:
        db.execute("update stellwerk.run set state = 'completed', ended_at = now(), held = false")
    done = plant(db, "ada@example.org", ada)
    assert plant(db, "bob@example.org", bob) == done
    assert len(done) > 75
    db.execute("insert into stellwerk.message (tenant_id, recipient, body) values (1, 'ada@example.org', 'Dear Ada')")
    db.execute(
        "insert into stellwerk.notification (tenant_id, recipient, title) values (1, 'ada@example.org', 'Dear Ada')"
    )
    db.execute("set session_replication_role = origin")
    assert set(mentioned(db, "ada@example.org")) == done
    others = mentioned(db, "bob@example.org")
    forget = "select distinct place from stellwerk.forget_subject('customer', 'ada@example.org', include_live => %s"
    places = {place for (place,) in db.execute(forget + ")", (live,)).fetchall()}
    assert set(mentioned(db, "ada@example.org")) == done  # only shown
    silent = {
        "run_key",
        "run_text",
        "case_history",
        "case_appointment",
        "case_export",
        "user_task_comment",
        "user_task_attachment",
        "user_task_decision",
    }
    assert (
        places >= {SHOWN_AS.get(table, table) for table, _ in done} - silent
    )  # these go with a run, a case, a task that is shown
    db.execute(forget + ", dry_run => false)", (live,))
    assert mentioned(db, "ada@example.org") == {}
    assert mentioned(db, "bob@example.org") == others
    assert db.execute("select count(*) from stellwerk.message where body = 'Dear Ada' or state = 'queued'").fetchone() == (1,)  # fmt: skip
    assert db.execute("select * from stellwerk.forget_subject('customer', 'ada@example.org')").fetchall() == []


def test_every_exception_is_still_there(db):
    names = {row[0] for row in db.execute("select relname from pg_class where relnamespace = 'stellwerk'::regnamespace")}  # fmt: skip
    assert set(TABLES) <= names
    known = db.execute("""
        select a.attname, c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
         where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p')""").fetchall()
    assert set(COLUMNS) <= {name for row in known for name in row}


def test_a_bulk_operation_that_names_a_person_ends_first(db, make_workflow, run_all):
    make_workflow(document("order", [START, node("wait", "logic.wait", {"for": "P1D"})], ["start -> wait"]))
    start(db, "order", {"customer": "bob@example.org"})
    run_all(db)
    by_payload = Jsonb({"payload": {"customer": "ada@example.org"}, "workflow": "order"})
    (draft,) = db.execute("select stellwerk.start_bulk_operation('pause', %s)", (by_payload,)).fetchone()
    (running,) = db.execute("select stellwerk.start_bulk_operation('pause', %s, dry_run => false)", (by_payload,)).fetchone()  # fmt: skip
    state = "select state, filter, ended_at is not null from stellwerk.bulk_operation where operation_id = %s"
    db.execute("update stellwerk.bulk_operation set state = 'running', ended_at = null where operation_id = %s", (running,))  # fmt: skip
    forget = "select place, id from stellwerk.forget_subject('customer', 'ada@example.org', dry_run => false"
    with pytest.raises(psycopg.Error) as refused:
        db.execute(forget + ")")
    assert refused.value.sqlstate == "SW003"
    assert "bulk operation" in str(refused.value)
    found = db.execute(forget + ", include_live => true)").fetchall()
    assert {("bulk_operation", str(draft)), ("bulk_operation", str(running))} <= set(found)
    for operation_id in (draft, running):
        assert db.execute(state, (operation_id,)).fetchone() == ("cancelled", {"forgotten": True}, True)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("ada@example.org", "ada@example.org", True),
        ("order of ada@example.org, again", "ada@example.org", True),
        ("nada@example.org", "ada@example.org", False),
        ("ada@example.orgs", "ada@example.org", False),
        ("adaXexample.org", "ada@example.org", False),
        ("7", "7", True),
        ("7 days", "7", False),
        ("a(b)[c].*", "a(b)[c].*", True),
        ("see a(b)[c].*!", "a(b)[c].*", True),
        (None, "7", None),
    ],
)
def test_a_short_value_counts_only_alone(tx, text, value, expected):
    assert tx.execute("select stellwerk.names(%s, %s)", (text, value)).fetchone() == (expected,)
    told = tx.execute("select stellwerk.tells(%s, %s)", (Jsonb({"a": [{"b": text}]}), value)).fetchone()
    assert told == (bool(expected),)
