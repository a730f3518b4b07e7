"""Fills a database as months of use would: copies of runs that the engine has run, with all that belongs to them.

Each copy has its own number, moment, person and words; numbers follow time. What housekeeping writes (words of runs, figures by
hour) is written by the functions that housekeeping calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bench.moulds import CUSTOMERS, EMAIL, NAME, Mould, make_moulds
from bench.place import value, wait_until

Connection = psycopg.Connection[Any]
Tell = Callable[[str], None]

DAYS = 90
PORTION = 100_000
OTHER = "other"

# The words of everybody: 60 first names, 400 last names, 50 towns; "standard" stands in every payload.
PEOPLE = """
create or replace function bench.person(p_number bigint) returns jsonb language sql immutable as $$
  select jsonb_build_object('name', n.first || ' ' || n.last, 'email', lower(n.first || '.' || n.last || p_number % 1000) || '@example.org',
                            'city', n.city, 'amount', 100 + abs(hashint8(p_number + 7)) % 900)
    from (select initcap(substr(translate(md5((abs(hashint8(p_number)) % 60)::text), '0123456789', 'aeiouaeiou'), 1, 5)) as first,
                 initcap(substr(translate(md5((abs(hashint8(p_number + 1)) % 400 + 100)::text), '0123456789', 'aeiouaeiou'), 1, 8)) as last,
                 initcap(substr(translate(md5((abs(hashint8(p_number + 2)) % 50 + 900)::text), '0123456789', 'aeiouaeiou'), 1, 6)) as city offset 0) n
$$;
create unlogged table bench.mould (
  run_id bigint primary key, weight float not null, kind text not null, tenant_id bigint, made_at timestamptz, lasted float, step_min bigint, scope_min bigint,
  task_id bigint, case_id bigint);
create unlogged table bench.copy (
  run_id bigint primary key, tenant_id bigint not null, mould bigint not null, at timestamptz not null, stretch float not null, step_base bigint not null,
  step_min bigint, scope_min bigint, task_id bigint, case_id bigint, made_at timestamptz not null, person jsonb not null, name text not null, ended boolean not null);
"""

MOULDS = """
update bench.mould m
   set tenant_id = r.tenant_id, made_at = r.created_at,
       lasted = greatest(extract(epoch from coalesce(r.ended_at, r.created_at) - r.created_at), 0.001),
       step_min = (select min(s.step_id) from stellwerk.step s where s.tenant_id = r.tenant_id and s.run_id = r.run_id),
       scope_min = (select min(s.scope_id) from stellwerk.scope s where s.tenant_id = r.tenant_id and s.run_id = r.run_id),
       task_id = (select t.task_id from stellwerk.user_task t where t.tenant_id = r.tenant_id and t.run_id = r.run_id),
       case_id = (select b.case_id from stellwerk.backoffice_case b where b.tenant_id = r.tenant_id and b.run_id = r.run_id)
  from stellwerk.run r where r.run_id = m.run_id
"""

# By day busier than by night. An ended copy takes longer than its mould, up to days, but is over by now.
COPIES = """
with kinds as (
  select k.kind, array_agg(k.run_id order by k.upto) as runs, array_agg(k.upto order by k.upto) as upto, max(k.upto) as total
    from (select m.kind, m.run_id, sum(m.weight) over (partition by m.kind order by m.run_id) as upto from bench.mould m where m.tenant_id = %(tenant)s) k
   group by k.kind),
chosen as (
  select n, now() - make_interval(secs => %(days)s * 86400.0 * (1 - d.day / %(days)s)) as at,
         case when n > %(runs)s - %(busy)s then 'busy'
              when d.day > %(days)s - 30 and random() < 0.03 then 'resting' else 'ended' end as kind, random() as chance, random() as slow
    from generate_series(%(first)s::bigint, %(last)s::bigint) n
   cross join lateral (select n * %(days)s::float / %(runs)s as x) x
   cross join lateral (select x.x + 0.11 * sin(2 * pi() * (x.x - floor(x.x))) as day) d)
insert into bench.copy
select %(base)s + c.n, %(tenant)s, m.run_id, least(c.at, now()),
       case when c.kind = 'ended' then least(1 + 500 * power(c.slow, 4), greatest(extract(epoch from now() - c.at) - 1, 0) / m.lasted) else 1 end,
       %(steps)s + c.n * 16, m.step_min, m.scope_min, m.task_id, m.case_id, m.made_at, p.person, p.person ->> 'name', c.kind = 'ended'
  from chosen c
  join kinds k on k.kind = c.kind
  join bench.mould m on m.run_id = k.runs[width_bucket(c.chance * k.total, k.upto) + 1]
 cross join lateral (select bench.person(c.n) as person offset 0) p
"""


@dataclass(frozen=True)
class Copied:
    """A table whose rows are copied with their run."""

    name: str
    changed: dict[str, str]
    by: str = "run_id"
    """What its rows are found by: run_id, task_id or case_id."""
    unnumbered: str = ""
    """A column that numbers itself."""


STEP = "case when o.{0} is not null then c.step_base + o.{0} - c.step_min end"
SCOPE = "case when o.{0} > 0 then c.step_base + o.{0} - c.scope_min else o.{0} end"
RUN = {"run_id": "c.run_id"}
RUN_STEP = {**RUN, "step_id": STEP.format("step_id")}
WORDS = "replace({0}, %(name)s, c.name)"
JSON = "replace(replace(o.{0}::text, %(name)s, c.name), %(email)s, c.person ->> 'email')::jsonb"
# A run has at most one task, case and event here: they get its number, events every other one.
TABLES = (
    Copied("run", {**RUN, "payload": "o.payload || c.person", "event_id": "case when o.event_id is not null then c.run_id * 2 end"}),
    Copied("step", {**RUN_STEP, "scope_id": SCOPE.format("scope_id"), "undoes": STEP.format("undoes")}),
    Copied("step_attempt", RUN_STEP),
    Copied("scope", {**RUN, "scope_id": SCOPE.format("scope_id"), "parent_scope_id": SCOPE.format("parent_scope_id"), "loop_step_id": STEP.format("loop_step_id")}),
    Copied("loop", {**RUN_STEP, "parent_scope_id": SCOPE.format("parent_scope_id")}),
    Copied("variable", {**RUN, "scope_id": SCOPE.format("scope_id")}),
    Copied("timer", RUN_STEP, unnumbered="timer_id"),
    Copied("wait", {**RUN_STEP, "correlation": "case when o.correlation is not null then c.run_id::text end"}),
    Copied("run_log", {**RUN_STEP, "message": WORDS.format("o.message")}, unnumbered="log_id"),
    Copied("event_log", {**RUN, "event_id": "c.run_id * 2", "record_id": "c.run_id::text", "new": JSON.format("new") + "::json"}),
    Copied("user_task", {**RUN_STEP, "task_id": "c.run_id", "title": WORDS.format("o.title")}),
    Copied("user_task_comment", {"task_id": "c.run_id", "body": WORDS.format("o.body")}, "task_id", "comment_id"),
    Copied("user_task_decision", {"task_id": "c.run_id"}, "task_id"),
    Copied("backoffice_case", {**RUN, "case_id": "c.run_id", "payload": "o.payload || (c.person - 'amount')", "summary": "c.name", "assignee": "coalesce(o.assignee, case when c.run_id %% 3 = 0 then 'staff' || c.run_id %% 40 || '@example.org' end)"}),
    Copied("case_history", {**RUN_STEP, "case_id": "c.run_id", "changes": JSON.format("changes"), "actor": "case when starts_with(o.actor, 'run:') then 'run:' || c.run_id else o.actor end"}, "case_id", "history_id"),
    Copied("case_appointment", {"case_id": "c.run_id", "key": "c.run_id::text"}, "case_id", "appointment_id"),
    Copied("notification", {**RUN_STEP, "title": WORDS.format("o.title"), "link": "case when o.link is not null then '/tasks/' || c.run_id end", "read_at": "case when c.run_id %% 10 > 0 then c.at + interval '1 hour' end"}, unnumbered="notification_id"),
)  # fmt: skip
DUE = (
    "due_at",
    "retry_at",
    "start_at",
    "starts_at",
    "ends_at",
)  # moved, but not stretched: they say when, not how long


def fill(connection: Connection, runs: int, tell: Tell, small: bool = False) -> None:
    """So many runs in the tenant `default`, a tenth as many in another one, over the last 90 days."""
    began = time.monotonic()

    def note(text: str) -> None:
        tell(f"{time.monotonic() - began:5.0f} s  {text}")

    connection.execute("set synchronous_commit = off")
    connection.execute("set work_mem = '64MB'")
    connection.execute("insert into stellwerk.tenant (slug, name) values (%s, 'Another one')", [OTHER])
    connection.execute(
        "insert into stellwerk.tenant_role select t.tenant_id, 'stellwerk_web' from stellwerk.tenant t on conflict do nothing"
    )
    connection.execute(CUSTOMERS)
    connection.execute(PEOPLE)
    tenants = {"default": runs, OTHER: runs // 10}
    for tenant in tenants:
        note(f"workflows and runs to copy, tenant {tenant}")
        made = make_moulds(connection, tenant, 1 if small else None)
        _keep(connection, made)
    connection.execute(MOULDS)
    for table in TABLES:
        connection.execute(
            f"create unlogged table bench.of_{table.name} as select o.* from stellwerk.{table.name} o"
            f" join bench.mould m on m.tenant_id = o.tenant_id and m.{table.by} = o.{table.by}".encode()
        )
    while (done := value(connection, "select stellwerk.keep_partitions()")) is not None:
        note(done)
    for tenant, count in tenants.items():
        _copy(connection, tenant, count, note)
    note("what else there is")
    for statement in BESIDE:
        connection.execute(statement)
    _housekeeping(connection, list(tenants), note)
    note("vacuum and analyze")
    connection.execute("vacuum (analyze)")
    connection.execute("checkpoint")
    note("filled")


def _keep(connection: Connection, made: list[Mould]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into bench.mould (run_id, weight, kind) values (%s, %s, %s)",
            [(m.run_id, m.weight, m.kind) for m in made],
        )


def _copy(connection: Connection, tenant: str, runs: int, note: Tell) -> None:
    tenant_id = value(connection, "select tenant_id from stellwerk.tenant where slug = %s", tenant)
    base = value(connection, "select max(run_id) from stellwerk.run")
    steps = value(
        connection,
        "select greatest((select max(step_id) from stellwerk.step), (select max(scope_id) from stellwerk.scope))",
    )
    for table in ("backoffice_case", "user_task"):
        connection.execute(
            sql.SQL("alter table stellwerk.{0} disable trigger {1}").format(
                sql.Identifier(table), sql.Identifier(f"{table}_audited")
            )
        )
    for first in range(1, runs + 1, PORTION):
        last = min(first + PORTION - 1, runs)
        note(f"runs {first} to {last} of tenant {tenant}")
        connection.execute("truncate bench.copy")
        connection.execute(
            COPIES,
            {
                "tenant": tenant_id,
                "days": DAYS,
                "runs": runs,
                "busy": min(300, runs // 10),
                "first": first,
                "last": last,
                "base": base,
                "steps": steps,
            },
        )
        connection.execute("analyze bench.copy")
        for table in TABLES:
            _copy_rows(connection, table)
        connection.execute(KEYS)
    for table in ("backoffice_case", "user_task"):
        connection.execute(
            sql.SQL("alter table stellwerk.{0} enable trigger {1}").format(
                sql.Identifier(table), sql.Identifier(f"{table}_audited")
            )
        )
    connection.execute(
        "select setval('stellwerk.run_id_seq', x.run), setval('stellwerk.event_id_seq', x.run * 2 + 2), setval('stellwerk.step_id_seq', x.step),"
        " setval('stellwerk.scope_id_seq', x.step), setval(pg_get_serial_sequence('stellwerk.user_task', 'task_id'), x.run),"
        " setval(pg_get_serial_sequence('stellwerk.backoffice_case', 'case_id'), x.run)"
        " from (select (select max(run_id) from stellwerk.run) as run, (select max(step_id) from stellwerk.step) + 1000 as step) x"
    )


def _copy_rows(connection: Connection, table: Copied) -> None:
    columns = connection.execute(
        "select attname, format_type(atttypid, null) from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped and attname <> %s order by attnum",
        [f"stellwerk.{table.name}", table.unnumbered],
    ).fetchall()
    written = []
    for name, kind in columns:
        if name in table.changed:
            written.append(table.changed[name])
        elif kind == "timestamp with time zone":
            stretch = "" if name in DUE else " * c.stretch"
            written.append(
                f"case when isfinite(o.{name}) then c.at + (o.{name} - c.made_at){stretch} else o.{name} end"
            )
        else:
            written.append(f"o.{name}")
    names = ", ".join(name for name, _ in columns)
    connection.execute(
        f"insert into stellwerk.{table.name} ({names}) overriding system value select {', '.join(written)} from bench.copy c"
        f" join bench.of_{table.name} o on o.{table.by} = c.{'mould' if table.by == 'run_id' else table.by} order by c.run_id".encode(),
        {"name": NAME, "email": EMAIL},
    )


KEYS = """
with keyed as (
  update stellwerk.run r set idempotency_key = 'order-' || r.run_id from bench.copy c
   where r.tenant_id = c.tenant_id and r.run_id = c.run_id and c.run_id % 10 = 0 returning r.tenant_id, r.workflow_id, r.run_id, r.idempotency_key)
insert into stellwerk.run_key (tenant_id, workflow_id, idempotency_key, run_id)
select k.tenant_id, k.workflow_id, k.idempotency_key, k.run_id from keyed k
"""

# A fifth of the events started nothing; what people did stands in the audit log.
BESIDE = (
    """
    insert into stellwerk.event_log (tenant_id, event_id, watch_id, target, operation, record_id, old, new, state, reason, created_at, processed_at, source_oid)
    select e.tenant_id, e.event_id + 1, e.watch_id, e.target, 'update', e.record_id, e.new, e.new, x.state, x.reason, e.created_at + interval '1 minute', e.created_at + interval '1 minute', e.source_oid
      from stellwerk.event_log e
     cross join lateral (select case when e.event_id % 200 = 0 then 'failed' else 'ignored' end as state,
                                case when e.event_id % 200 = 0 then 'the payload does not fit the schema of the workflow' else 'no trigger takes it' end as reason) x
     where e.event_id % 8 = 0 order by e.event_id
    """,
    """
    insert into stellwerk.audit_log (tenant_id, acted_at, actor, database_user, action, subject, subject_id, before, after)
    select h.tenant_id, h.changed_at, 'staff' || h.case_id % 40 || '@example.org', 'stellwerk_web', 'update', 'backoffice_case', h.case_id::text,
           '{"status": "new"}', jsonb_build_object('status', h.status)
      from stellwerk.case_history h order by h.changed_at
    """,
    """
    insert into stellwerk.audit_log (tenant_id, acted_at, actor, database_user, action, subject, subject_id, before, after)
    select r.tenant_id, r.ended_at, 'operator' || r.run_id % 5 || '@example.org', 'stellwerk_web', 'cancel_run', 'run', r.run_id::text, null, '{"reason": "ordered twice"}'
      from stellwerk.run r where r.state = 'cancelled' order by r.ended_at
    """,
    """
    insert into stellwerk.user_session (tenant_id, user_id, digest, address, agent, created_at, last_seen_at, expires_at)
    select u.tenant_id, u.user_id, sha256(convert_to(u.tenant_id || '/' || u.user_id || '/' || n, 'UTF8')), '192.0.2.1', 'Browser', now() - interval '2 hours', now(), now() + interval '10 hours'
      from stellwerk.app_user u cross join generate_series(1, 20) n
    """,
    """
    insert into stellwerk.alert_rule (tenant_id, name, kind, threshold, created_by)
    select t.tenant_id, k.kind || '-' || n, k.kind, k.threshold, 'admin0@example.org'
      from stellwerk.tenant t cross join (values ('failed_share', 0.2), ('stuck', 10), ('queue_depth', 1000), ('tasks_overdue', 500)) k (kind, threshold) cross join generate_series(1, 5) n
    """,
    """
    insert into stellwerk.alert (tenant_id, rule_id, value, raised_at, resolved_at)
    select a.tenant_id, a.rule_id, 0.5, now() - make_interval(hours => n), now() - make_interval(hours => n) + interval '20 minutes'
      from stellwerk.alert_rule a cross join generate_series(1, 500) n order by n desc
    """,
)  # fmt: skip


HOURS = """
select count(stellwerk.write_hour(%(tenant)s, h.hour))
  from (select distinct date_trunc('hour', r.created_at, 'UTC') as hour from stellwerk.run r
         where r.tenant_id = %(tenant)s and r.created_at < date_trunc('hour', now(), 'UTC')
         order by 1) h
"""


def _housekeeping(connection: Connection, tenants: list[str], note: Tell) -> None:
    for tenant in tenants:
        connection.execute("select set_config('stellwerk.tenant', %s, false)", [tenant])
        tenant_id = value(connection, "select stellwerk.current_tenant_id()")
        note(f"some operations on many runs, tenant {tenant}")
        for number in range(1, 31):
            slug = f"reminder-{number % 3 + 1}" if number % 3 == 0 else "reminder-1"
            connection.execute(
                "select stellwerk.start_bulk_operation('cancel', %s)", [Jsonb({"workflow": slug, "state": "waiting"})]
            )
        note(f"words of the runs, tenant {tenant}")
        wait_until(lambda number=tenant_id: _words_written(connection, number), 3600)
        note(f"figures of each hour, tenant {tenant}")
        connection.execute("analyze stellwerk.run")
        connection.execute("analyze stellwerk.step")
        connection.execute(HOURS, {"tenant": tenant_id})
        while value(connection, "select stellwerk.sum_up_day(%s, date_trunc('hour', now(), 'UTC'))", tenant_id):
            pass
    connection.execute("reset stellwerk.tenant")
    connection.execute("select stellwerk.reconcile()")


def _words_written(connection: Connection, tenant_id: int) -> bool:
    """Whether all are; it goes on with them, unless an older transaction is still under way somewhere."""
    while value(connection, "select stellwerk.write_run_texts(%s, 20000)", tenant_id):
        pass
    newest = "select max(r.run_id) from stellwerk.run r where r.tenant_id = p.tenant_id"
    done = f"select p.done_run_id >= ({newest}) from stellwerk.run_text_progress p where p.tenant_id = %s"
    return bool(value(connection, done, tenant_id))
