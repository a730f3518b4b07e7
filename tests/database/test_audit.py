"""The audit log: who did what, with what it was before and is now, and nobody can take it back."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import START, Worker, call, document, node, run, start, transform
from database.watching import ORDERS, on_row, watch
from psycopg.types.json import Jsonb

LINEAR = document("linear", [START, transform("done", "{{ trigger.payload.n }}")], ["start -> done"])
SLOW = document("slow", [START, node("wait", "logic.wait", {"for": "P1D"})], ["start -> wait"])


def log(db, *columns, where="true"):
    return db.execute(
        f"select {', '.join(columns)} from stellwerk.audit_overview where {where} order by audit_id"
    ).fetchall()


def of_run(db, run_id):
    return log(db, "action", "before", "after", where=f"subject = 'run' and subject_id = '{run_id}'")


@pytest.fixture
def person(db):
    """A login of its own, in groups that the test names."""
    names = []

    def become(*groups):
        name = f"auditor_{db.info.backend_pid}_{db.info.dbname}_{len(names)}"
        db.execute(f"create role {name} login")
        names.append(name)
        for group in groups:
            db.execute(f"grant {group} to {name}")
        db.execute(f"set session authorization {name}")
        return name

    yield become
    db.execute("reset session authorization")
    for name in names:
        db.execute(f"drop role {name}")


def test_saving_publishing_and_rolling_back_a_workflow_leave_their_rows(db, make_workflow):
    make_workflow(LINEAR)
    assert log(db, "action", "subject", "subject_id") == [
        ("insert", "workflow", "linear"),
        ("insert", "workflow_version", "1/1"),
        ("publish", "workflow_version", "1/1"),
        ("update", "workflow", "linear"),
    ]
    # A document can be large: it is kept in its version, the log tells that it is the same.
    inserted, published, activated = log(db, "before", "after", where="audit_id > 1")[:3]
    assert inserted[0] is None
    assert set(inserted[1]["document"]) == {"sha256", "bytes"}
    assert list(published[1]) == ["published_at"]
    assert activated == ({"active_version": None}, {"active_version": 1})
    db.execute("select stellwerk.rollback_workflow('linear', 1)")
    rolled = log(db, "action", "subject_id", where="audit_id > 4 and subject = 'workflow_version'")
    assert rolled == [("insert", "1/2"), ("publish", "1/2")]
    assert log(db, "before", "after", where="subject = 'workflow'")[-1] == (
        {"active_version": 1},
        {"active_version": 2},
    )


def test_only_what_changed_is_told(db, make_workflow):
    make_workflow(LINEAR)
    before = len(log(db, "1"))
    db.execute("update stellwerk.workflow set name = 'Other', updated_at = now()")
    db.execute("update stellwerk.workflow set updated_at = now()")
    assert log(db, "before", "after")[before:] == [({"name": "linear"}, {"name": "Other"})]


def test_watches_and_registrations_are_told(db, make_workflow):
    make_workflow(on_row())
    db.execute(ORDERS)
    watch(db, condition="new.total > 100")
    db.execute("select stellwerk.unwatch_table('orders', 'intake')")
    told = log(db, "action", "after", where="subject = 'table_watch'")
    assert [action for action, _ in told] == ["insert", "delete"]
    assert told[0][1]["condition"] == "new.total > 100"
    assert "triggers" not in told[0][1]
    db.execute("grant all on orders to stellwerk_owner; select stellwerk.register_table('orders', 'orders')")
    db.execute("create function public.f(jsonb, jsonb) returns jsonb language sql return $1")
    db.execute("select stellwerk.register_function('f', 'public.f(jsonb,jsonb)')")
    assert log(db, "subject", "action", "subject_id", where="subject like 'registered%%'") == [
        ("registered_table", "insert", "orders"),
        ("registered_function", "insert", "f"),
    ]


def test_a_watch_that_the_engine_finds_broken_is_nobodys_act(db, make_workflow):
    make_workflow(on_row())
    db.execute(ORDERS)
    watch(db)
    before = len(log(db, "1"))
    name = db.execute(
        "select tgname from pg_trigger where tgrelid = 'orders'::regclass and not tgisinternal"
    ).fetchone()
    db.execute(f"drop trigger {name[0]} on orders")
    db.execute("select stellwerk.tick()")
    assert db.execute("select state from stellwerk.table_watch").fetchone() == ("broken",)
    assert len(log(db, "1")) == before


def test_every_act_of_steering_leaves_one_row(db, make_workflow, run_all):
    make_workflow(SLOW)
    run_id = start(db, "slow", {"n": 1, "kept": None, "deep": {"x": None}})
    run_all(db)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    db.execute(
        "select stellwerk.edit_run(%s, %s, %s)",
        (run_id, Jsonb({"n": 2, "kept": None, "deep": {"x": None, "y": 1}}), Jsonb({"v": 1})),
    )
    db.execute("select stellwerk.resume_run(%s)", (run_id,))
    step_id = db.execute("select step_id from stellwerk.step where state = 'waiting'").fetchone()[0]
    db.execute("select stellwerk.cancel_run(%s, 'no longer needed')", (run_id,))
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    run_all(db)
    db.execute("select stellwerk.skip_step(%s, %s, %s)", (run_id, step_id, Jsonb({"a": 1})))
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert of_run(db, run_id) == [
        ("pause_run", {"state": "waiting"}, None),
        (
            "edit_run",
            {"payload": {"n": 1, "deep": {"x": None}}, "vars": {}},
            {"payload": {"n": 2, "deep": {"x": None, "y": 1}}, "vars": {"v": 1}},
        ),
        ("resume_run", {"state": "paused"}, None),
        ("cancel_run", {"state": "waiting"}, {"reason": "no longer needed", "compensate": False}),
        ("retry_run", {"state": "cancelled", "version": 1}, {"version": 1}),
        (
            "skip_step",
            {"state": "waiting"},
            {"step": str(step_id), "node": "wait", "port": "next", "output": {"a": 1}},
        ),
    ]


def test_an_edit_tells_a_large_payload_by_its_hash(db, make_workflow, run_all):
    make_workflow(SLOW)
    run_id = start(db, "slow", {"text": "x" * 9000})
    run_all(db)
    db.execute("select stellwerk.pause_run(%s)", (run_id,))
    db.execute("select stellwerk.edit_run(%s, '[1]')", (run_id,))
    before, after = of_run(db, run_id)[-1][1:]
    assert before["payload"]["bytes"] > 9000
    assert set(after["payload"]) == {"sha256", "bytes"}


def test_what_was_refused_or_taken_back_leaves_nothing(db, make_workflow, run_all):
    make_workflow(SLOW)
    run_id = start(db, "slow")
    run_all(db)
    with pytest.raises(psycopg.Error):
        db.execute("select stellwerk.resume_run(%s)", (run_id,))
    with db.transaction(force_rollback=True):
        db.execute("select stellwerk.pause_run(%s)", (run_id,))
    assert of_run(db, run_id) == []


def test_what_the_engine_does_itself_is_no_steering(db, dsn, make_workflow, run_all):
    make_workflow(document("work", [START, call("a")], ["start -> a"]))
    before = len(log(db, "1"))
    start(db, "work")
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin())
    run_all(db)
    assert len(log(db, "1")) == before


def test_a_case_that_a_person_changes_is_told_and_what_a_workflow_writes_is_not(db, make_workflow, run_all):
    make_workflow(
        document(
            "case",
            [
                START,
                node("push", "action.backoffice_push", {"field_map": {"name": "Ada"}, "status": "neu"}),
                node("set", "action.backoffice_status_update", {"status": "offen"}),
            ],
            ["start -> push", "push -> set"],
        )
    )
    start(db, "case")
    run_all(db)
    assert log(db, "1", where="subject = 'backoffice_case'") == []
    db.execute("update stellwerk.backoffice_case set status = 'erledigt', updated_at = now()")
    assert log(db, "action", "before", "after", where="subject = 'backoffice_case'") == [
        ("update", {"status": "offen"}, {"status": "erledigt"})
    ]


def test_the_log_names_the_login_and_the_application_user(db, make_workflow, run_all, person):
    make_workflow(SLOW)
    first, second = start(db, "slow"), start(db, "slow")
    run_all(db)
    dba = person("stellwerk_dba")
    db.execute("set stellwerk.actor = 'somebody else'")
    db.execute("select stellwerk.pause_run(%s)", (first,))
    db.execute("reset session authorization")
    web = person("stellwerk_web")
    db.execute("set stellwerk.actor = 'ada@example.org'")
    db.execute("select stellwerk.pause_run(%s)", (second,))
    db.execute("reset session authorization")
    assert log(db, "actor", "database_user", where="action = 'pause_run'") == [
        (f"db:{dba}", dba),
        ("ada@example.org", web),
    ]


def test_a_tenant_reads_its_own_log_only_and_writes_none(db, make_workflow, person):
    make_workflow(LINEAR)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    make_workflow(document("foreign", [START], []))
    assert {row[0] for row in log(db, "subject_id", where="subject = 'workflow'")} == {"foreign"}
    db.execute("reset stellwerk.tenant")
    person("stellwerk_dba")
    assert {row[0] for row in log(db, "subject_id", where="subject = 'workflow'")} == {"linear"}
    assert db.execute("select count(*) from stellwerk.audit_log where subject_id = 'foreign'").fetchone() == (0,)
    for statement in (
        "select stellwerk.note_action(1, 'cancel_run', 'run', '1')",
        "insert into stellwerk.audit_log (tenant_id, actor, database_user, action, subject) values (1, 'x', 'x', 'x', 'x')",
        "update stellwerk.audit_log set actor = 'x'",
        "delete from stellwerk.audit_log",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute(statement)


@pytest.mark.parametrize("table", ["audit_log", "audit_log_0"])
@pytest.mark.parametrize(
    "statement", ["update stellwerk.{} set actor = 'x'", "delete from stellwerk.{}", "truncate stellwerk.{}"]
)
def test_nobody_changes_the_log_not_even_its_owner(db, make_workflow, table, statement):
    make_workflow(LINEAR)
    before = log(db, "*")
    with pytest.raises(psycopg.Error) as refused:
        db.execute(statement.format(table))
    assert refused.value.sqlstate == "SW004"
    assert "append-only" in str(refused.value)
    assert log(db, "*") == before


def test_a_function_or_trigger_of_ones_own_is_no_way_round(db, make_workflow):
    make_workflow(LINEAR)
    before = log(db, "*")
    db.execute("""
        create function public.sweep_audit() returns void language plpgsql as $$
        begin delete from stellwerk.audit_log; end $$;
        create function public.erase() returns trigger language plpgsql as $$
        begin delete from stellwerk.audit_log; return new; end $$;
        create trigger erase after insert on stellwerk.audit_log for each row execute function public.erase();
    """)
    for statement in ("select public.sweep_audit()", "update stellwerk.workflow set name = 'x'"):
        with pytest.raises(psycopg.Error) as refused:
            db.execute(statement)
        assert refused.value.sqlstate == "SW004"
    assert log(db, "*") == before


def test_the_trigger_serves_any_table_and_masks_secrets(db):
    db.execute("""
        create table stellwerk.credential (
          tenant_id bigint not null, kind text not null, name text not null, secret text, used_at timestamptz,
          closed_at timestamptz, primary key (tenant_id, kind, name));
        create trigger credential_audited after insert or update or delete on stellwerk.credential
          for each row execute function stellwerk.audit_row('id:kind,name', 'omit:used_at', 'mask:secret', 'name:close=closed_at');
        insert into stellwerk.credential values (1, 'smtp', 'main', 'hunter2');
        update stellwerk.credential set secret = 'hunter3';
        update stellwerk.credential set used_at = now();
        update stellwerk.credential set secret = null;
        update stellwerk.credential set closed_at = '2030-01-01';
        delete from stellwerk.credential;
    """)
    assert log(db, "action", "subject_id", "before", "after") == [
        ("insert", "smtp/main", None, {"kind": "smtp", "name": "main", "secret": "***"}),
        ("update", "smtp/main", {"secret": "***"}, {"secret": "***"}),
        ("update", "smtp/main", {"secret": "***"}, {"secret": None}),
        ("close", "smtp/main", {"closed_at": None}, {"closed_at": "2030-01-01T00:00:00+00:00"}),
        ("delete", "smtp/main", {"kind": "smtp", "name": "main", "closed_at": "2030-01-01T00:00:00+00:00"}, None),
    ]
    assert "hunter" not in str(log(db, "*"))


def test_a_write_to_the_log_touches_one_partition(db, make_workflow):
    make_workflow(LINEAR)
    rows = db.execute("select tableoid::regclass::text, count(*) from stellwerk.audit_log group by 1").fetchall()
    assert [name for name, _ in rows] == ["stellwerk.audit_log_0"]
