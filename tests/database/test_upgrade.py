"""A database of the release before loops, waits and calls, with runs in flight, is upgraded: none is lost, and each ends as
it would have ended on a database that was made anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from data.before_engine import DOCUMENTS, unpack
from database.helpers import Connection, Worker, start
from database.scenes import broken
from psycopg.types.json import Jsonb

from stellwerk.database.schema import migrate

APPLICATION = """
create schema shop;
create table shop.orders (id bigint generated always as identity primary key, name text not null);
create table shop.lead (id bigint generated always as identity primary key, name text not null);
create table shop.gate (open boolean);
create function shop.check(input jsonb, context jsonb) returns jsonb language plpgsql as $$
begin
  if not exists (select from shop.gate) then
    raise exception 'the gate is closed';
  end if;
  return jsonb_build_object('checked', input -> 'said');
end
$$;
"""

PHONE = {"phone": "1"}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("straight", PHONE),
    ("straight", {**PHONE, "fails": {"one": 1}}),
    ("straight", {**PHONE, "fails": {"one": 2}}),
    ("straight", {**PHONE, "breaks": ["three"]}),
    ("branches", PHONE),
    ("branches", {**PHONE, "breaks": ["b"]}),
    ("branches", {**PHONE, "breaks": ["b2"]}),
    ("nested", {**PHONE, "way": "x"}),
    ("nested", {**PHONE, "way": "y", "breaks": ["inner"]}),
    ("again", PHONE),
    ("again", {**PHONE, "breaks": ["try"]}),
    ("routed", PHONE),
    ("routed", {**PHONE, "fails": {"risky": 2}}),
    ("routed", {**PHONE, "fails": {"risky": 1}, "breaks": ["careless"]}),
    ("records", PHONE),
    ("stopping", PHONE),
]
MOST_CALLS = 5  # where a run stands is tried after 0 to so many calls of a worker


@dataclass
class Flight:
    """A run, and how far it goes before the upgrade: so many calls, and what then becomes of the next one."""

    slug: str
    payload: dict[str, Any]
    calls: int = 99
    then: str = "queued"  # taken: a worker that lives on has it; lost: one that vanishes
    run_id: int = 0


class Player:
    """Moves runs on, one call of a worker per run at a time, the earliest first."""

    def __init__(self, dsn: str, db: Connection, flights: list[Flight]) -> None:
        self.dsn, self.db, self.worker = dsn, db, Worker(dsn)
        self.flights = flights
        self.mended = False
        self.taken: list[dict[str, Any]] = []

    def begin(self) -> None:
        for flight in self.flights:
            flight.run_id = start(self.db, flight.slug, flight.payload)

    def pump(self) -> None:
        while self.db.execute("select stellwerk.pump()").fetchone()[0]["more"]:
            pass

    def result(self, step: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
        name = step["node_id"]
        if name in payload.get("breaks", []) and not self.mended:
            return {"error": {"class": "broken", "message": "it is broken", "retryable": False}}
        if step["failures"] < payload.get("fails", {}).get(name, 0):
            return {"error": {"class": "busy", "message": "try again", "retryable": True}}
        return {"output": {"said": f"{name} {step['visit']}"}}

    def end(self, steps: list[dict[str, Any]]) -> None:
        payloads = {flight.run_id: flight.payload for flight in self.flights}
        completions = [
            {
                "run": s["run_id"],
                "step": s["step_id"],
                "attempt": s["attempt"],
                **self.result(s, payloads.get(s["run_id"], {})),
            }
            for s in steps
        ]
        answer = self.db.execute(
            "select stellwerk.complete_steps(%s, 1, %s)", (self.worker.worker_id, Jsonb(completions))
        ).fetchone()[0]
        assert answer["accepted"] == len(steps)

    def next_of(self, run_ids: set[int]) -> list[tuple[int, int]]:
        """The earliest queued worker step of each of these runs."""
        found: dict[int, int] = {}
        for run_id, step_id in self.worker.queued():
            if run_id in run_ids:
                found.setdefault(run_id, step_id)
        return list(found.items())

    def fly(self) -> None:
        """As far as each run goes before the upgrade."""
        for number in range(MOST_CALLS + 1):
            self.pump()
            self.end(self.worker.begin(self.next_of({f.run_id for f in self.flights if f.calls > number})))
        self.pump()
        self.taken = self.worker.begin(self.next_of({f.run_id for f in self.flights if f.then == "taken"}))
        lost = Worker(self.dsn)
        lost.begin(lost_ones := self.next_of({f.run_id for f in self.flights if f.then == "lost"}))
        lost.vanish()
        assert self.taken
        assert lost_ones

    def land(self) -> None:
        """Everything to its end: what is taken is handed in, time passes, and the worker goes on."""
        self.end(self.taken)
        self.taken = []
        for _ in range(40):
            self.db.execute("update stellwerk.timer set due_at = clock_timestamp() where kind in ('retry', 'start')")
            self.db.execute("select stellwerk.tick()")
            self.pump()
            steps = self.worker.begin(self.next_of({run_id for run_id, _ in self.worker.queued()}))
            if steps:
                self.end(steps)
            elif self.db.execute(
                "select not exists (select from stellwerk.timer where kind in ('retry', 'start'))"
            ).fetchone()[0]:
                return
        raise AssertionError("the runs do not come to an end")

    def states(self) -> dict[int, str]:
        return dict(self.db.execute("select run_id, state from stellwerk.run").fetchall())


def outcome(db: Connection, run_id: int) -> dict[str, Any]:
    """What a run came to, without what is different each time."""
    state, output, error = db.execute(
        "select state, output, error ->> 'class' from stellwerk.run_overview where run_id = %s", (run_id,)
    ).fetchone()
    steps = db.execute(
        """
        select node_id, visit, state, port, case when type !~ '^(record|action.backoffice)' then output end, error ->> 'class'
          from stellwerk.step_timeline where run_id = %s order by node_id, visit
        """,
        (run_id,),
    ).fetchall()
    for step in steps:
        if step[2] == "failed" and step[4]:
            del step[4]["error"]["attempt"]  # lost ones count
    return {"state": state, "output": output, "error": error, "steps": steps}


def prepare(db: Connection, workflows: list[dict[str, Any]]) -> None:
    db.execute(APPLICATION)
    owner = db.execute("select nspowner::regrole::text from pg_namespace where nspname = 'stellwerk'").fetchone()[0]
    db.execute(f"grant usage on schema shop to {owner}; grant all on all tables in schema shop to {owner}")
    db.execute("select stellwerk.register_table('shop.orders', 'orders')")
    db.execute("select stellwerk.register_table('shop.lead', 'lead')")
    db.execute("select stellwerk.register_function('check', 'shop.check(jsonb, jsonb)')")
    for flow in workflows:
        db.execute(
            "select stellwerk.save_workflow(%s, %s, %s)",
            [Jsonb(flow[part]) for part in ("document", "plan", "problems")],
        )
        db.execute("select stellwerk.publish_workflow(%s)", (flow["document"]["slug"],))
    db.execute("select stellwerk.watch_table('shop.lead', 'by-row')")


@pytest.fixture
def old(empty_dsn, tmp_path):
    """A database of the earlier release with its workflows."""
    workflows = unpack(tmp_path)
    assert [flow["document"]["slug"] for flow in workflows] == [document["slug"] for document in DOCUMENTS]
    applied = migrate(empty_dsn, root=tmp_path)
    assert "migrations/0006_backoffice.sql" in applied
    with psycopg.connect(empty_dsn, autocommit=True) as db:
        prepare(db, workflows)
        yield db


@pytest.fixture
def expected(server):
    """What the runs come to on a database that was made anew, by the present compiler and engine."""
    from stellwerk.definition.compile import compile_workflow

    dsn = server.database()
    with psycopg.connect(dsn, autocommit=True) as db:
        compiled = [compile_workflow(document) for document in DOCUMENTS]
        prepare(
            db,
            [{"document": c.document, "plan": c.plan, "problems": [p.as_json() for p in c.problems]} for c in compiled],
        )
        db.execute("insert into shop.gate values (true)")
        found: dict[tuple[str, str, bool], dict[str, Any]] = {}
        for mended in (False, True):
            player = Player(dsn, db, [Flight(slug, payload) for slug, payload in CASES])
            player.mended = mended
            player.begin()
            player.land()
            for flight in player.flights:
                found[flight.slug, str(flight.payload), mended] = outcome(db, flight.run_id)
        db.execute("insert into shop.lead (name) values ('Ada')")
        player.land()
        (run_id,) = db.execute("select run_id from stellwerk.run_overview where workflow = 'by-row'").fetchone()
        found["by-row", "", False] = outcome(db, run_id)
        assert {result["state"] for result in found.values()} == {"completed", "failed"}
        return found


KEPT = {
    "run": "run_id, workflow_id, version, state, held, priority, source, payload, output, error, event_id, created_at, start_at, ended_at",
    "step": "run_id, step_id, node_id, visit, state, port, attempt, failures, arrived, output, error, worker_id, due_at, ended_at",
    "step_attempt": "run_id, step_id, attempt, outcome, error, retry_at",
    "timer": "kind, run_id, step_id, due_at",
    "event": "event_id, state, run_id",
    "variable": "run_id, name, value",
    "run_key": "workflow_id, idempotency_key, run_id",
    "plan_node": "workflow_id, version, node_id, config, edges, upstream",
    "table_watch": "watch_id",
}


def rows(db: Connection) -> dict[str, list[Any]]:
    return {
        table: sorted(db.execute(f"select ({columns})::text from stellwerk.{table}").fetchall())
        for table, columns in {t: f"row({c})" for t, c in KEPT.items()}.items()
    }


@pytest.mark.parametrize("then", ["go on", "pause", "cancel and retry"])
def test_runs_in_flight_end_as_they_would_have_ended(then, old, empty_dsn, expected):
    flights = [
        Flight(slug, payload, calls, what)
        for slug, payload in CASES
        for calls in range(MOST_CALLS)
        for what in ("queued", "taken", "lost")
    ]
    player = Player(empty_dsn, old, flights)
    player.begin()
    old.execute("insert into shop.lead (name) values ('Ada')")
    player.fly()
    # Some are only asked for: for now, for later, and by a row.
    late = [Flight("straight", PHONE), Flight("branches", PHONE)]
    player.flights = [*flights, *late]
    late[0].run_id = start(old, "straight", PHONE, key="once")
    late[1].run_id = start(old, "branches", PHONE, run_at="2100-01-01")
    old.execute("insert into shop.lead (name) values ('Ada')")

    standing = {state for (state,) in old.execute("select distinct state from stellwerk.step").fetchall()}
    assert standing >= {"queued", "running", "joining", "completed", "failed", "cancelled"}
    assert {*player.states().values()} >= {"pending", "running", "completed", "failed"}
    assert old.execute("select count(*) from stellwerk.timer where kind = 'retry'").fetchone() != (0,)
    assert old.execute("select count(*) from stellwerk.event where state = 'pending'").fetchone() == (1,)
    before, ended = rows(old), {run_id for run_id, state in player.states().items() if state in ("completed", "failed")}

    applied = migrate(empty_dsn)
    assert "migrations/0007_engine.sql" in applied
    assert rows(old) == before
    assert broken(old) == []

    # The watch was set by the earlier version, and its trigger is the one that it made then.
    old.execute("insert into shop.lead (name) values ('Ada')")
    numbers = [
        n for (n,) in old.execute("select event_id from stellwerk.event order by created_at, event_id").fetchall()
    ]
    assert numbers == sorted(set(numbers))
    old.execute("insert into shop.gate values (true)")
    live = [flight.run_id for flight in player.flights if flight.run_id not in ended]
    assert start(old, "straight", PHONE, key="once") == late[0].run_id
    if then == "pause":
        old.execute("select stellwerk.pause_run(r) from unnest(%s::bigint[]) r", (live,))
        assert broken(old) == []
        player.pump()
        old.execute("select stellwerk.resume_run(r) from unnest(%s::bigint[]) r", (live,))
    elif then == "cancel and retry":
        old.execute("select stellwerk.cancel_run(r) from unnest(%s::bigint[]) r", (live,))
        assert broken(old) == []
        old.execute("select stellwerk.retry_run(r) from unnest(%s::bigint[]) r", (live,))
        player.taken = []
    assert broken(old) == []
    player.land()

    assert broken(old, at_rest=True) == []
    for flight in player.flights:
        assert outcome(old, flight.run_id) == expected[flight.slug, str(flight.payload), False], flight
    leads = old.execute("select run_id from stellwerk.run_overview where workflow = 'by-row'").fetchall()
    assert [outcome(old, run_id) for (run_id,) in leads] == [expected["by-row", "", False]] * 3


@pytest.mark.parametrize("upgraded", ["after it failed", "while it ran"])
def test_a_run_that_failed_before_can_be_retried(upgraded, old, empty_dsn, expected):
    broken_ones = [(slug, payload) for slug, payload in CASES if "breaks" in payload and slug != "routed"]
    calls = 99 if upgraded == "after it failed" else 1
    player = Player(empty_dsn, old, [Flight(slug, payload, calls) for slug, payload in broken_ones])
    cancelled = [
        Flight(slug, payload, calls) for slug, payload in CASES if "breaks" not in payload for calls in range(1, 4)
    ]
    player.flights += [*cancelled, Flight("straight", PHONE, 1, "taken"), Flight("straight", PHONE, 1, "lost")]
    player.begin()
    player.fly()
    for flight in cancelled:
        if player.states()[flight.run_id] in ("running", "waiting"):
            old.execute("select stellwerk.cancel_run(%s, 'enough')", (flight.run_id,))
    migrate(empty_dsn)
    old.execute("insert into shop.gate values (true)")
    player.land()
    states = player.states()
    assert {states[flight.run_id] for flight in player.flights[: len(broken_ones)]} == {"failed"}

    player.mended = True
    retried = [flight for flight in player.flights if states[flight.run_id] in ("failed", "cancelled")]
    assert {flight.slug for flight in retried} >= {"straight", "branches", "nested", "again", "records", "stopping"}
    for flight in retried:
        assert old.execute("select stellwerk.retry_run(%s)", (flight.run_id,)).fetchone() == (flight.run_id,)
    assert broken(old) == []
    player.land()
    assert broken(old, at_rest=True) == []
    for flight in retried:
        assert outcome(old, flight.run_id) == expected[flight.slug, str(flight.payload), True], flight


def test_a_run_that_ended_before_can_go_back_to_an_earlier_node(old, empty_dsn):
    flights = [Flight("straight", {**PHONE, "breaks": ["three"]}), Flight("branches", {**PHONE, "breaks": ["b2"]})]
    player = Player(
        empty_dsn, old, [*flights, Flight("straight", PHONE, 1, "taken"), Flight("straight", PHONE, 1, "lost")]
    )
    player.begin()
    player.fly()
    migrate(empty_dsn)
    player.mended = True
    for flight in flights:
        old.execute("select stellwerk.retry_run(%s, 'start')", (flight.run_id,))
    player.land()
    assert broken(old, at_rest=True) == []
    for flight in flights:
        assert player.states()[flight.run_id] == "completed"
        again = old.execute(
            "select count(*) from stellwerk.step where run_id = %s and node_id = 'start'", (flight.run_id,)
        )
        assert again.fetchone() == (2,)


CATALOG = {
    "functions": """
        select p.oid::regprocedure::text, md5(p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '')),
               array(select c from unnest(p.proconfig) c where c !~ '^plpgsql_check'), p.prosecdef, p.provolatile,
               obj_description(p.oid), pg_get_function_result(p.oid), p.proacl::text
          from pg_proc p where p.pronamespace = 'stellwerk'::regnamespace""",
    "columns": """
        select c.relname, c.relkind, c.reloptions, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid),
               col_description(c.oid, a.attnum), a.attidentity, c.relrowsecurity, c.relacl::text
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p', 'v', 'c', 'S')""",
    "indexes": """
        select pg_get_indexdef(i.indexrelid), i.indisvalid from pg_index i join pg_class c on c.oid = i.indrelid
         where c.relnamespace = 'stellwerk'::regnamespace""",
    "constraints": """
        select k.conrelid::regclass::text, k.conname, pg_get_constraintdef(k.oid), k.convalidated from pg_constraint k
         where k.connamespace = 'stellwerk'::regnamespace""",
    "views": "select viewname, definition from pg_views where schemaname = 'stellwerk'",
    "triggers": """
        select pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
         where c.relnamespace = 'stellwerk'::regnamespace and not t.tgisinternal""",
    "policies": "select tablename, policyname, roles::text, cmd, qual, with_check from pg_policies where schemaname = 'stellwerk'",
}


def catalog(db: Connection) -> dict[str, set[str]]:
    return {what: {str(row) for row in db.execute(query).fetchall()} for what, query in CATALOG.items()}


def test_an_upgraded_schema_is_that_of_a_new_database(old, empty_dsn, db):
    migrate(empty_dsn)
    upgraded, new = catalog(old), catalog(db)
    for what in CATALOG:
        assert sorted(upgraded[what] - new[what]) == sorted(new[what] - upgraded[what]) == [], what
