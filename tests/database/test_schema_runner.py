"""Migrations once, functions whole, one transaction; and the error messages of all that."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from stellwerk.database import schema
from stellwerk.database.statements import split
from stellwerk.errors import DatabaseUnavailable, MigrationFailed, SchemaOutdated


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small release: one table, one function."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "sql").mkdir()
    write(tmp_path, "migrations/0001_thing.sql", "create table stellwerk.thing (id int primary key);")
    write(tmp_path, "sql/10_double.sql", function("double", "p_n * 2"))
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    (root / name).write_text(text)


def function(name: str, body: str) -> str:
    return f"create or replace function stellwerk.{name}(p_n int) returns int language sql return {body};\n"


def one(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return row[0] if row else None


def test_migrations_run_once_and_functions_when_they_changed(empty_dsn, root):
    assert schema.migrate(empty_dsn, root=root) == ["queue", "migrations/0001_thing.sql", "sql/10_double.sql"]
    assert schema.migrate(empty_dsn, root=root) == []
    write(root, "sql/10_double.sql", function("double", "p_n + p_n + 1"))
    assert schema.migrate(empty_dsn, root=root) == ["sql/10_double.sql"]
    assert one(empty_dsn, "select stellwerk.double(4)") == 9
    assert schema.migrate(empty_dsn, root=root, force=True) == ["sql/10_double.sql"]


def test_a_new_function_file_loads_all_of_them_and_a_removed_one_is_forgotten(empty_dsn, root):
    schema.migrate(empty_dsn, root=root)
    write(root, "sql/20_triple.sql", function("triple", "stellwerk.double(p_n) + p_n"))
    assert schema.migrate(empty_dsn, root=root) == ["sql/10_double.sql", "sql/20_triple.sql"]
    (root / "sql/20_triple.sql").unlink()
    assert schema.migrate(empty_dsn, root=root) == ["sql/10_double.sql"]
    assert [entry.name for entry in schema.status(empty_dsn, root)][-1] == "sql/10_double.sql"


def test_a_changed_migration_stops_everything(empty_dsn, root):
    schema.migrate(empty_dsn, root=root)
    write(root, "migrations/0001_thing.sql", "create table stellwerk.thing (id bigint primary key);")
    write(root, "migrations/0002_more.sql", "create table stellwerk.more ();")
    with pytest.raises(MigrationFailed, match=r"0001_thing\.sql was changed after it had been applied"):
        schema.migrate(empty_dsn, root=root)
    assert one(empty_dsn, "select to_regclass('stellwerk.more')") is None
    assert [e.state for e in schema.status(empty_dsn, root)] == ["applied", "changed", "pending", "applied"]


def test_an_older_release_does_not_touch_a_newer_database(empty_dsn, root):
    write(root, "migrations/0002_more.sql", "create table stellwerk.more ();")
    schema.migrate(empty_dsn, root=root)
    (root / "migrations/0002_more.sql").unlink()
    with pytest.raises(MigrationFailed, match=r"0002_more\.sql, which this release does not know"):
        schema.migrate(empty_dsn, root=root)


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("migrations/0002_a.sql", "-- first\n\nselect 1;\ncreate table\n  stellwerk.b (id nope);", 5, "type"),
        ("migrations/0002_a.sql", "select 1;\n\ncreate table stellwerk.thing ();", 3, "already exists"),
        ("sql/20_a.sql", "select 1;\ncreate or replace function stellwerk.f()\nreturns int language sql as $$\n"
         "  select\n    nope\n$$;", 5, "nope"),
        ("sql/20_a.sql", "create or replace function stellwerk.f() returns int language plpgsql as $$\nbegin\n"
         "  if 1 = 1 then\n    return 1;\nend\n$$;", 6, "syntax error|missing"),
        ("sql/20_a.sql", "\ncreate or replace function stellwerk.f() returns int language plpgsql as $$\nbegin\n"
         "  v_unknown := 1;\nend\n$$;", 4, "v_unknown"),
        ("sql/20_a.sql", "do $$\nbegin\n  raise exception 'no' using errcode = 'SW003';\nend $$;", 1, "no"),
    ],
)  # fmt: skip
def test_an_error_names_file_and_line_and_leaves_nothing_behind(empty_dsn, root, name, text, line, said):
    write(root, name, text)
    with pytest.raises(MigrationFailed, match=f"^{name}, line {line}: .*({said})"):
        schema.migrate(empty_dsn, root=root)
    assert one(empty_dsn, "select to_regnamespace('stellwerk')") is None


def test_a_dry_run_tries_everything_and_changes_nothing(empty_dsn, root):
    assert len(schema.migrate(empty_dsn, root=root, dry_run=True)) == 3
    assert one(empty_dsn, "select to_regnamespace('stellwerk')") is None
    write(root, "sql/20_bad.sql", "select nonsense;")
    with pytest.raises(MigrationFailed, match="20_bad"):
        schema.migrate(empty_dsn, root=root, dry_run=True)


def test_a_concurrent_migration_runs_outside_the_transaction(empty_dsn, root):
    write(root, "migrations/0002_index.concurrent.sql",
          "drop index concurrently if exists stellwerk.thing_by_id;\n"
          "create index concurrently thing_by_id on stellwerk.thing (id desc);")  # fmt: skip
    assert "migrations/0002_index.concurrent.sql" in schema.migrate(empty_dsn, root=root)
    assert one(empty_dsn, "select indisvalid from pg_index where indexrelid = 'stellwerk.thing_by_id'::regclass")
    assert schema.migrate(empty_dsn, root=root) == []


def test_two_processes_at_once_migrate_one_after_the_other(empty_dsn, root):
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(schema.migrate(empty_dsn, root=root))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(len, results)) == [0, 0, 0, 3]


@pytest.mark.one_server
def test_a_table_in_use_is_tried_again(empty_dsn, root, monkeypatch):
    schema.migrate(empty_dsn, root=root)
    monkeypatch.setattr(schema, "LOCK_TIMEOUT", "200ms")
    write(root, "migrations/0002_column.sql", "alter table stellwerk.thing add column name text;")
    told: list[str] = []
    with psycopg.connect(empty_dsn) as application:
        application.execute("select * from stellwerk.thing")
        thread = threading.Thread(target=lambda: schema.migrate(empty_dsn, root=root, report=told.append))
        thread.start()
        time.sleep(0.6)
        application.rollback()
        thread.join()
    assert any(text.startswith("in use, trying again") for text in told)
    assert schema.status(empty_dsn, root)[2].state == "applied"


@pytest.mark.one_server
def test_a_table_that_stays_in_use_is_a_clear_error(empty_dsn, root, monkeypatch):
    schema.migrate(empty_dsn, root=root)
    monkeypatch.setattr(schema, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(schema, "ATTEMPTS", 2)
    write(root, "migrations/0002_column.sql", "alter table stellwerk.thing add column name text;")
    with psycopg.connect(empty_dsn) as application:
        application.execute("select * from stellwerk.thing")
        with pytest.raises(MigrationFailed, match="in use, 2 times in a row"):
            schema.migrate(empty_dsn, root=root)


def test_a_server_that_is_too_old_is_refused():
    with pytest.raises(DatabaseUnavailable, match="PostgreSQL 14, and Stellwerk needs 15"):
        schema.check_server(140012)
    schema.check_server(150000)


def test_the_queue_lies_in_its_own_schema_and_does_not_notify_by_itself(db):
    assert db.execute("select to_regclass('stellwerk_queue.pgqueuer') is not null").fetchone() == (True,)
    assert db.execute(
        "select count(*) from pg_trigger where tgrelid = 'stellwerk_queue.pgqueuer'::regclass and not tgisinternal"
    ).fetchone() == (0,)


def test_an_older_queue_is_brought_up_to_date(db, dsn):
    db.execute("alter table stellwerk_queue.pgqueuer drop column headers")
    db.execute("update stellwerk.migration set checksum = 'older' where name = 'queue'")
    assert schema.migrate(dsn) == ["queue"]
    assert db.execute(
        "select count(*) from information_schema.columns where table_schema = 'stellwerk_queue'"
        " and table_name = 'pgqueuer' and column_name = 'headers'"
    ).fetchone() == (1,)
    test_the_queue_lies_in_its_own_schema_and_does_not_notify_by_itself(db)


def test_a_database_that_lacks_something_is_said_to_be_outdated(db, dsn):
    schema.require_current(db)
    db.execute("delete from stellwerk.migration where name like 'sql/%'")
    with pytest.raises(SchemaOutdated, match="lacks"):
        schema.require_current(db)
    schema.migrate(dsn)
    schema.require_current(db)


# -- who may ----------------------------------------------------------------------------------------------------------


def test_for_a_superuser_the_schema_belongs_to_the_owner_role(db):
    assert owner(db) == "stellwerk_owner"
    assert db.execute("select count(*) from pg_roles where rolname like 'stellwerk\\_%'").fetchone() >= (4,)


@pytest.mark.parametrize("createrole", [False, True])
def test_no_superuser_is_needed(server, createrole):
    name = f"plain_{int(createrole)}_{time.monotonic_ns()}"
    server.execute(f"create role {name} login {'createrole' if createrole else ''}")
    dsn = server.database(migrated=False, owner=name).replace("postgres@", f"{name}@")
    assert schema.migrate(dsn, dry_run=True) == schema.migrate(dsn)
    assert schema.migrate(dsn) == []
    assert schema.migrate(dsn, force=True)


def test_a_role_that_may_not_create_a_schema_is_told_which_grant_is_missing(server, root):
    name = f"guest_{time.monotonic_ns()}"
    server.execute(f"create role {name} login")
    dsn = server.database(migrated=False).replace("postgres@", f"{name}@")
    with pytest.raises(MigrationFailed, match="may not create a schema") as caught:
        schema.migrate(dsn, root=root)
    assert "grant create on database" in str(caught.value.hint)


def test_a_schema_of_somebody_else_is_not_touched(server, empty_dsn, root):
    schema.migrate(empty_dsn, root=root)
    name = f"stranger_{time.monotonic_ns()}"
    server.execute(f"create role {name} login")
    with pytest.raises(MigrationFailed, match="belongs to stellwerk_owner"):
        schema.migrate(empty_dsn.replace("postgres@", f"{name}@"), root=root)


def owner(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "select r.rolname from pg_namespace n join pg_roles r on r.oid = n.nspowner where nspname = 'stellwerk'"
    ).fetchone()
    assert row is not None
    return str(row[0])


# -- statements -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("-- nothing; here\n/* nor; /* here; */ */", []),
        ("select 1; select 2", [("select 1;", 1), ("select 2", 1)]),
        (
            "select ';' || \"a;b\" || e'\\';' ;\n\nselect 2;",
            [("select ';' || \"a;b\" || e'\\';' ;", 1), ("select 2;", 3)],
        ),
        ("do $a$ x; $$ y; $a$;\nselect $1$;", [("do $a$ x; $$ y; $a$;", 1), ("select $1$;", 2)]),
        ("-- why\nselect 1 -- ;\n;", [("select 1 -- ;\n;", 2)]),
        (
            "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end;\n"
            "select 3;",
            [
                (
                    "create or replace function f() returns int begin atomic select case when true then 1 end;"
                    " select 2; end;",
                    1,
                ),
                ("select 3;", 2),
            ],
        ),
        ("begin; select 1; end;", [("begin;", 1), ("select 1;", 1), ("end;", 1)]),
    ],
)
def test_a_file_is_split_into_statements(text, expected):
    assert [(statement.text, statement.line) for statement in split(text)] == expected
