"""Two tenants with one of everything each, and their people: what tests of rights go at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg

from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine
from stellwerk.web import access

# What each role may do, independently of the code.
RIGHTS = {
    "viewer": {"read"},
    "staff": {"read", "work"},
    "designer": {"read", "work", "design", "start"},
    "operator": {"read", "work", "start", "operate"},
    "admin": {"read", "work", "design", "start", "operate", "manage"},
}
# What the other tenant's things are called, and what is written in them.
FOREIGN_NAME = "zebra"
FOREIGN_WORD = "zebrafish"

Database = psycopg.Connection[Any]


@dataclass
class Tenant:
    """A tenant; `things` are the values of the places in the paths of routes."""

    name: str
    number: int
    called: str
    word: str
    things: dict[str, str] = field(default_factory=dict)


def own_tenant(db: Database) -> Tenant:
    """The tenant that every database has, with one of everything."""
    return _fill(db, Tenant("default", 1, "plain", "plainness"))


def other_tenant(db: Database) -> Tenant:
    """Another one, whose things are all called FOREIGN_NAME and hold FOREIGN_WORD."""
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    (number,) = db.execute("select tenant_id from stellwerk.tenant where slug = 'other'").fetchone() or (0,)
    return _fill(db, Tenant("other", number, FOREIGN_NAME, FOREIGN_WORD))


def _fill(db: Database, tenant: Tenant) -> Tenant:
    called, word, table = tenant.called, tenant.word, f"public.{tenant.called}"
    db.execute(f"create table {table} (id bigint primary key, name text)")
    db.execute(f"grant select, trigger on {table} to stellwerk_web")
    db.execute("select set_config('stellwerk.tenant', %s, false)", [tenant.name])
    engine = Engine(db)
    document = {
        "slug": f"{called}-intake",
        "name": word,
        "nodes": [
            {"id": "start", "type": "trigger.manual"},
            {"id": "changed", "type": "trigger.row", "config": {"table": table}},
            {"id": "nightly", "type": "trigger.schedule", "config": {"cron": "0 3 * * *"}},
            {
                "id": "push",
                "type": "action.backoffice_push",
                "config": {
                    "field_map": {"word": word},
                    "appointment": {"title": word, "starts_at": "2026-12-01T09:00:00Z"},
                },
            },
            {"id": called, "type": "task.user", "config": {"title": word, "role": "staff"}},
        ],
        "edges": [
            {"from": "start", "to": "push"},
            {"from": "changed", "to": "push"},
            {"from": "nightly", "to": "push"},
            {"from": "push", "to": called},
        ],
    }
    compiled = compile_workflow(document)
    assert compiled.is_publishable, compiled.problems
    for _ in range(2):
        engine.save_workflow(compiled.document, compiled.plan, [])
        engine.publish_workflow(document["slug"])
    engine.save_workflow(compiled.document, compiled.plan, [])
    run_id = engine.start_run(document["slug"], {"word": word})
    for _ in range(3):
        engine.pump()
    task_id = engine.value("select id from stellwerk.task_overview")
    case_id = engine.value("select case_id from stellwerk.case_overview")
    db.execute(f"insert into {table} values (1, %s)", [word])
    email = f"{called}@example.org"
    user_id = engine.add_user(email, "staff", name=word)
    db.execute("select set_config('stellwerk.actor', %s, false)", [email])
    db.execute("select stellwerk.comment_task(%s, %s)", [task_id, word])
    db.execute("select stellwerk.attach_to_task(%s, %s, '/x')", [task_id, word])
    db.execute("select stellwerk.save_task_draft(%s, %s)", [task_id, f'{{"word": "{word}"}}'])
    db.execute("select stellwerk.add_case_note(%s, %s)", [case_id, word])
    db.execute("reset stellwerk.actor")
    db.execute("select stellwerk.set_alert_rule(%s, 'no_worker', 1)", [called])
    db.execute("select stellwerk.check_alerts(%s)", [tenant.number])
    tenant.things = {
        "slug": document["slug"],
        "node_id": called,
        "node": called,
        "run_id": str(run_id),
        "step_id": str(engine.value("select max(step_id) from stellwerk.step_timeline where run_id = %s", [run_id])),
        "task_id": str(task_id),
        "case_id": str(case_id),
        "appointment_id": str(_own(engine, "case_appointment", "appointment_id")),
        "operation_id": str(engine.start_bulk_operation("cancel", {"workflow": document["slug"]})),
        "token_id": str(engine.create_token(called, "viewer", access.digest(word))),
        "user_id": str(user_id),
        "email": email,
        "event_id": str(_own(engine, "event", "event_id")),
        "schedule_id": str(_own(engine, "schedule", "schedule_id")),
        "table": table,
        "name": called,
        "action": "cancel",
        "step": "pause",
        "tenant": tenant.name,
        "source": called,
        "form": called,
        "secret": f"{tenant.number}.{called}",
        "file_path": "icon.svg",
        "version": "1",
        "folder": "builder",
    }
    db.execute("reset stellwerk.tenant")
    return tenant


def _own(engine: Engine, table: str, column: str) -> Any:
    return engine.value(
        f"select max({column}) from stellwerk.{table} where tenant_id = stellwerk.current_tenant_id()"  # the tests' words
    )


class People:
    """Lets people and programs in: the headers that their requests carry."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self._users: dict[tuple[str, str], int] = {}
        self._tokens: dict[tuple[str, str, frozenset[str]], str] = {}

    def user(self, role: str, tenant: Tenant) -> int:
        """The one with this role."""
        if (role, tenant.name) not in self._users:
            self.db.execute("select set_config('stellwerk.tenant', %s, false)", [tenant.name])
            self._users[role, tenant.name] = Engine(self.db).add_user(f"{role}@{tenant.name}.example", role)
            self.db.execute("reset stellwerk.tenant")
        return self._users[role, tenant.name]

    def session(self, role: str, tenant: Tenant) -> dict[str, str]:
        """A new session of somebody with this role, and the token of their pages."""
        secret = access.new_secret(tenant.number)
        self.db.execute(
            "select stellwerk.open_session(%s, %s, %s)",
            [tenant.number, self.user(role, tenant), access.digest(secret)],
        )
        return {"cookie": f"stellwerk_session={secret}", access.CSRF_HEADER: access.csrf_token(secret)}

    def token(self, role: str, tenant: Tenant, scopes: set[str]) -> dict[str, str]:
        """A token of this role with these of its rights."""
        key = role, tenant.name, frozenset(scopes)
        if key not in self._tokens:
            self._tokens[key] = secret = access.new_secret(tenant.number)
            self.db.execute("select set_config('stellwerk.tenant', %s, false)", [tenant.name])
            Engine(self.db).create_token(f"token-{len(self._tokens)}", role, access.digest(secret), sorted(scopes))
            self.db.execute("reset stellwerk.tenant")
        return {"authorization": f"Bearer {self._tokens[key]}"}


def everything_of(db: Database, tenant: Tenant) -> dict[str, Any]:
    """A digest of each table's rows of the tenant, to see whether any was touched."""
    tables = db.execute(
        "select c.relname from pg_class c where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p')"
        " and not c.relispartition and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id')"
    ).fetchall()
    return {
        name: db.execute(
            f"select md5(coalesce(string_agg(x::text, ',' order by x::text), '')) from stellwerk.{name} x where tenant_id = %s",
            [tenant.number],
        ).fetchone()
        for (name,) in tables
    }
