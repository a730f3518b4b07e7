"""Runs to copy: workflows as people write them, each run by the engine itself into all the states that there are."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from stellwerk import gallery
from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine

Connection = psycopg.Connection[Any]

NAME, EMAIL = "Ada Lovelace", "ada@example.org"  # every copy has its own in their place
PAYLOAD = {"name": NAME, "email": EMAIL, "city": "Mouldstadt", "amount": 250, "kind": "standard", "items": [1, 2, 3]}
CUSTOMERS = """
create schema if not exists bench;
create table bench.customer (id bigint generated always as identity primary key, tenant text not null, name text not null, email text, amount integer);
grant usage on schema bench to stellwerk_web;
grant select, trigger on bench.customer to stellwerk_web;
"""


@dataclass(frozen=True)
class Mould:
    """A run to copy: how many copies it gets beside the others of its kind, and which runs are of its kind."""

    run_id: int
    weight: float
    kind: str
    """ended, resting (it may have been waiting for a month), or busy (only the newest runs are)."""


def node(name: str, kind: str, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, **({"config": config} if config else {}), **more}


def document(slug: str, name: str, nodes: list[dict[str, Any]], *edges: str, **more: Any) -> dict[str, Any]:
    """Edges are written `from -> to` or `from.port -> to`."""
    ways = []
    for edge in edges:
        (start, _, port), target = edge.split(" -> ")[0].partition("."), edge.split(" -> ")[1]
        ways.append({"from": start, "to": target, **({"port": port} if port else {})})
    return {"slug": slug, "name": name, "nodes": nodes, "edges": ways, **more}


def order(slug: str, name: str) -> dict[str, Any]:
    """SQL nodes and a call to another system, which sometimes fails."""
    return document(
        slug,
        name,
        [
            node("start", "trigger.manual"),
            node("order", "logic.set", {"values": {"customer": "{{ trigger.payload.name }}", "amount": "{{ trigger.payload.amount }}"}}),
            node("large", "logic.if", {"condition": "vars.amount > 100"}),
            node("price", "logic.transform", {"output": {"total": "{{ vars.amount * 2 }}", "for": "{{ upper(vars.customer) }}"}}),
            node("announce", "http.request", {"url": "https://shop.example.org/orders", "method": "POST"}, retry={"max_attempts": 2, "interval": "PT0.01S", "jitter": False}),
            node("note", "log.write", {"message": "Order of {{ trigger.payload.name }}"}),
        ],
        "start -> order", "order -> large", "large.true -> price", "price -> announce", "announce -> note",
    )  # fmt: skip


def intake(slug: str, name: str) -> dict[str, Any]:
    """A case, and a task for people."""
    form = {
        "type": "object",
        "required": ["state"],
        "properties": {
            "state": {"title": "State", "enum": ["legible", "illegible"]},
            "pages": {"title": "Pages", "type": "integer"},
        },
    }
    fields = {name: f"{{{{ trigger.payload.{name} }}}}" for name in ("name", "email", "city", "kind")}
    return document(
        slug,
        name,
        [
            node("start", "trigger.manual"),
            node("push", "action.backoffice_push", {"status": "new", "summary": "{{ trigger.payload.name }}", "field_map": fields, "appointment": {"title": "First visit", "starts_at": "2030-12-01T09:00:00Z"}}),
            node("review", "task.user", {"title": "Review of {{ trigger.payload.name }}", "role": "staff", "form": form, "outcomes": ["approve", "reject"], "due": "P1D"}),
            node("done", "action.backoffice_status_update", {"status": "complete"}),
            node("late", "action.backoffice_status_update", {"status": "missing"}),
        ],
        "start -> push", "push -> review", "review.approve -> done", "review.reject -> late",
        settings={"case_statuses": [{"status": "new", "label": "New", "color": "blue", "next": ["missing", "complete"]}, {"status": "missing", "label": "Papers missing", "color": "orange"}, {"status": "complete", "label": "Complete", "color": "green", "final": True}]},
    )  # fmt: skip


def reminder(slug: str, name: str) -> dict[str, Any]:
    """Waits for an event, and tells somebody."""
    return document(
        slug,
        name,
        [
            node("start", "trigger.manual"),
            node("answer", "logic.wait", {"event": "answered", "correlation": "{{ run.id }}", "timeout": "P30D"}),
            node("tell", "notification.create", {"recipient": "staff0@example.org", "title": "{{ trigger.payload.name }} has answered"}),
        ],
        "start -> answer", "answer -> tell",
    )  # fmt: skip


def parts(slug: str, name: str) -> dict[str, Any]:
    """A loop over three items."""
    return document(
        slug,
        name,
        [
            node("start", "trigger.manual"),
            node("each", "logic.loop", {"items": "{{ trigger.payload.items }}"}),
            node("part", "logic.transform", {"output": "{{ item + 1 }}"}),
            node("all", "logic.transform", {"output": "{{ steps.each.output.count }}"}),
        ],
        "start -> each", "each.each -> part", "each.done -> all",
    )  # fmt: skip


def customer(slug: str, name: str) -> dict[str, Any]:
    """Begins when a row of an application's table changes."""
    return document(
        slug,
        name,
        [
            node("row", "trigger.row"),
            node("seen", "logic.transform", {"output": {"customer": "{{ trigger.row.name }}"}}),
            node("large", "logic.if", {"condition": "trigger.row.amount > 100"}),
            node("note", "log.write", {"message": "{{ trigger.row.name }} is a new customer"}),
        ],
        "row -> seen", "seen -> large", "large.true -> note",
    )  # fmt: skip


Maker = Callable[["Workshop", str], Iterator[Mould]]


class Workshop:
    """Runs workflows one at a time in one tenant, and plays their worker."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self.connection = connection
        self.tenant = tenant
        connection.execute("select set_config('stellwerk.tenant', %s, false)", [tenant])
        self.engine = Engine(connection)
        self.tenant_id = self.engine.value("select stellwerk.current_tenant_id()")
        for role in ("admin", "operator", "designer", "staff", "viewer"):
            for number in range(200 if role == "staff" else 5):
                self.engine.add_user(f"{role}{number}@example.org", role, name=f"{role.title()} {number}")
        self.worker_id = self.engine.value(
            "select stellwerk.register_worker('moulds', 'bench', 0, %s)", [["http.request"]]
        )
        connection.execute("select stellwerk.hold_presence(%s)", [self.worker_id])

    def publish(self, made: dict[str, Any], versions: int = 2, draft: bool = False) -> None:
        """Two versions, so that there is something to compare."""
        for version in range(versions + draft):
            compiled = compile_workflow({**made, "description": f"Version {version + 1}"})
            if not compiled.is_publishable:
                raise RuntimeError(f"{made['slug']}: {compiled.problems}")
            self.engine.save_workflow(
                compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems]
            )
            if version < versions:
                self.engine.publish_workflow(made["slug"])

    def start(self, slug: str) -> int:
        run_id = self.engine.start_run(slug, PAYLOAD)
        self.pump()
        return int(run_id)

    def pump(self) -> None:
        while (did := self.engine.pump())["more"] or did["runs_advanced"]:
            pass

    def step(self, run_id: int) -> int:
        """The run's step that waits."""
        return int(
            self.engine.value(
                "select max(s.step_id) from stellwerk.step s where s.tenant_id = %s and s.run_id = %s and s.ended_at is null",
                [self.tenant_id, run_id],
            )
        )

    def task(self, run_id: int) -> int:
        return int(
            self.engine.value(
                "select t.task_id from stellwerk.user_task t where t.tenant_id = %s and t.run_id = %s",
                [self.tenant_id, run_id],
            )
        )

    def take(self, run_id: int) -> int:
        step = self.step(run_id)
        rows = self.engine.rows(
            "select attempt from stellwerk.begin_steps(%s, %s, %s, %s)",
            [self.worker_id, self.tenant_id, [run_id], [step]],
        )
        return int(rows[0]["attempt"]) if rows else 0

    def hand_in(self, run_id: int, **result: Any) -> None:
        """The result of its next attempt; waits for the moment of a retry."""
        step, attempt = self.step(run_id), 0
        while not attempt:
            self.engine.tick()
            self.pump()
            attempt = self.take(run_id)
        answer = self.engine.value(
            "select stellwerk.complete_steps(%s, %s, %s)",
            [self.worker_id, self.tenant_id, Jsonb([{"run": run_id, "step": step, "attempt": attempt, **result}])],
        )
        if answer["accepted"] != 1:
            raise RuntimeError(f"the step of run {run_id} was not accepted")
        self.pump()


def orders(shop: Workshop, slug: str) -> Iterator[Mould]:
    answer = {"output": {"status": 201, "body": {"id": 7}}}
    for weight, failures in ((100, 0), (6, 1)):
        run_id = shop.start(slug)
        for _ in range(failures):
            shop.hand_in(run_id, error={"class": "http", "message": "503 Service Unavailable", "retryable": True})
        shop.hand_in(run_id, **answer)
        yield Mould(run_id, weight, "ended")
    for weight, message in (
        (2, "the server answered 422: the order has no street"),
        (1, "timeout after 20 s"),
        (1, "connection refused by 10.0.3.7:443"),
    ):
        run_id = shop.start(slug)
        shop.hand_in(run_id, error={"class": "http", "message": message, "retryable": False})
        yield Mould(run_id, weight, "ended")
    run_id = shop.start(slug)
    shop.engine.cancel_run(run_id, "ordered twice")
    shop.pump()
    yield Mould(run_id, 1, "ended")
    run_id = shop.start(slug)
    shop.engine.pause_run(run_id)
    shop.pump()
    yield Mould(run_id, 1, "resting")
    yield Mould(shop.start(slug), 4, "busy")
    run_id = shop.start(slug)
    shop.take(run_id)
    yield Mould(run_id, 2, "busy")
    yield Mould(
        shop.engine.start_run(slug, PAYLOAD, run_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)),
        1,
        "resting",
    )


def intakes(shop: Workshop, slug: str) -> Iterator[Mould]:
    for weight, outcome in ((80, "approve"), (20, "reject")):
        run_id = shop.start(slug)
        shop.engine.comment_task(shop.task(run_id), f"{NAME} will send the rest tomorrow.")
        shop.engine.complete_task(shop.task(run_id), {"state": "legible", "pages": 2}, outcome)
        shop.pump()
        yield Mould(run_id, weight, "ended")
    run_id = shop.start(slug)
    shop.engine.cancel_run(run_id, "withdrawn")
    shop.pump()
    yield Mould(run_id, 2, "ended")
    yield Mould(shop.start(slug), 30, "resting")
    for person in ("staff0@example.org", "staff1@example.org"):
        run_id = shop.start(slug)
        case_id = shop.engine.value(
            "select c.case_id from stellwerk.backoffice_case c where c.tenant_id = %s and c.run_id = %s",
            [shop.tenant_id, run_id],
        )
        shop.engine.reassign_task(shop.task(run_id), person)
        shop.engine.assign_case(case_id, person)
        shop.engine.set_case_status(case_id, "missing", "The card is missing")
        yield Mould(run_id, 10, "resting")


def reminders(shop: Workshop, slug: str) -> Iterator[Mould]:
    run_id = shop.start(slug)
    shop.engine.signal("answered", str(run_id), {"yes": True})
    shop.pump()
    yield Mould(run_id, 100, "ended")
    yield Mould(shop.start(slug), 20, "resting")


def loops(shop: Workshop, slug: str) -> Iterator[Mould]:
    yield Mould(shop.start(slug), 100, "ended")


def customers(shop: Workshop, slug: str) -> Iterator[Mould]:
    last = shop.engine.value(
        "select coalesce(max(r.run_id), 0) from stellwerk.run r where r.tenant_id = %s", [shop.tenant_id]
    )
    shop.connection.execute(
        "insert into bench.customer (tenant, name, email, amount) values (%s, %s, %s, 250)",
        [f"{shop.tenant}/{slug}", NAME, EMAIL],
    )
    shop.pump()
    yield Mould(
        shop.engine.value(
            "select max(r.run_id) from stellwerk.run r where r.tenant_id = %s and r.run_id > %s", [shop.tenant_id, last]
        ),
        100,
        "ended",
    )


# How many workflows of each sort there are, and which part of all ended runs is theirs.
SORTS: tuple[tuple[str, Callable[[str, str], dict[str, Any]], Maker, int, float], ...] = (
    ("order", order, orders, 12, 0.56),
    ("intake", intake, intakes, 4, 0.20),
    ("reminder", reminder, reminders, 6, 0.07),
    ("parts", parts, loops, 3, 0.07),
    ("customer", customer, customers, 3, 0.10),
)


def make_moulds(connection: Connection, tenant: str, most: int | None = None) -> list[Mould]:
    """Publishes all workflows in a tenant, those of the gallery as well, and runs what is to be copied; `most` of each sort."""
    shop = Workshop(connection, tenant)
    for template in gallery.templates().values():
        shop.publish(template.document, versions=1, draft=True)
    made: list[Mould] = []
    for sort, write, run, count, part in SORTS:
        for number in range(1, min(count, most or count) + 1):
            slug = f"{sort}-{number}"
            shop.publish(write(slug, f"{sort.title()} of branch {number}"), draft=number % 2 == 0)
            if sort == "customer":
                shop.engine.watch_table("bench.customer", slug, condition=f"new.tenant = '{tenant}/{slug}'")
            moulds = list(run(shop, slug))
            ended = sum(mould.weight for mould in moulds if mould.kind == "ended")
            made += [
                Mould(mould.run_id, mould.weight * part / min(count, most or count) / ended if mould.kind == "ended" else mould.weight, mould.kind)
                for mould in moulds
            ]  # fmt: skip
    made.append(Mould(shop.engine.start_run("order-1", PAYLOAD), 20, "busy"))  # the last one: nothing pumps any more
    connection.execute("reset stellwerk.tenant")
    return made
