"""A database that has been in use for a day, for looking at pages: workflows, runs in every state, cases, tasks, people.

Everything comes about by the ways that everybody uses; only the clock is shifted, hour by hour from yesterday to now.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import random
from typing import Any

import psycopg
from database import clock
from database.helpers import Worker

from stellwerk import gallery, resources
from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine

Connection = psycopg.Connection[Any]

PEOPLE = (
    *("Anna Berger", "Mira Kowalski", "Jonas Weber", "Maria Keller", "Ben Okafor", "Elif Yılmaz", "Tim Braun"),
    *("Carla Rossi", "Jan Nowak", "Ada Lindqvist", "Peter Schulze-Wagenknecht", "Sophie Marchand", "Ole Hansen"),
)
USERS = (
    ("admin@example.org", "admin", "Ada Byron", ["leitung", "empfang"]),
    ("petra@example.org", "staff", "Petra Sommer", ["empfang"]),
    ("dario@example.org", "designer", "Dario Conti", []),
    ("olga@example.org", "operator", "Olga Petrowa", []),
    ("vera@example.org", "viewer", None, []),
)
PRICES = {
    "slug": "price-list",
    "name": "Preisliste übernehmen",
    "input_schema": {
        "type": "object",
        "properties": {"item": {"type": "string"}, "total": {"type": "number"}, "pieces": {"type": "integer"}},
    },
    "nodes": [
        {"id": "start", "type": "trigger.manual", "name": "Neue Liste"},
        {
            "id": "each",
            "type": "logic.transform",
            "name": "Preis je Stück",
            "config": {"output": {"price": "{{ trigger.payload.total / trigger.payload.pieces }}"}},
        },
        {
            "id": "send",
            "type": "http.request",
            "name": "An den Katalog senden",
            "config": {"url": "https://catalog.example.org/prices", "method": "POST"},
            "retry": {"max_attempts": 2, "interval": "PT1S"},
        },
        {"id": "done", "type": "log.write", "name": "Vermerken", "config": {"message": "{{ trigger.payload.item }}"}},
    ],
    "edges": [{"from": "start", "to": "each"}, {"from": "each", "to": "send"}, {"from": "send", "to": "done"}],
}
UNREACHABLE = {"class": "http", "message": "catalog.example.org answered 503 Service Unavailable", "retryable": True}


class House:
    """The database while it is furnished."""

    def __init__(self, dsn: str) -> None:
        self.db = psycopg.connect(dsn, autocommit=True)
        self.engine = Engine(self.db)
        self.worker = Worker(dsn, types=("action.fonio_call", "action.esign_request", "http.request"))
        self.random = random.Random(7)
        self.luck = random.Random(8)  # of services; how often one is called changes with how fast the machine is
        self.callers = 0

    def close(self) -> None:
        self.worker.connection.close()
        self.db.close()

    def store(self, document: dict[str, Any], *, publish: bool = True) -> None:
        compiled = compile_workflow(document)
        slug, version = self.engine.save_workflow(
            compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems]
        )
        if publish:
            self.engine.publish_workflow(slug, version)

    def at(self, ago: datetime.timedelta) -> None:
        """Let it be so long ago."""
        for connection in (self.db, self.worker.connection):
            clock.shift(connection, -ago)

    def settle(self) -> None:
        """Until nothing moves: the engine, and a worker whose services answer, most of the time."""
        for _ in range(40):
            moved = self.engine.pump()
            taken = self.worker.begin()
            for step in taken:
                if step["type"] == "http.request" and self.luck.random() < 0.4:
                    self.worker.end(step, error=UNREACHABLE)
                else:
                    self.worker.end(
                        step, output={"call_id": f"c-{step['step_id']}", "envelope_id": f"e-{step['step_id']}"}
                    )
            if not taken and not any(moved.get(key) for key in ("events", "runs_started", "runs_advanced", "steps")):
                return

    def caller(self) -> tuple[str, str, str]:
        name = PEOPLE[self.callers % len(PEOPLE)]
        self.callers += 1
        mail = name.lower().replace(" ", ".").translate(str.maketrans("ıüö", "iuo")) + "@example.org"
        return name, mail, f"+49 30 5550{self.callers:03}"

    def contact(self, ago: datetime.timedelta) -> None:
        """Somebody writes to the clinic; most of them get an appointment."""
        name, mail, phone = self.caller()
        self.db.execute(
            "insert into praxis.contact_request (name, email, phone, message, wishes, consent, created_at)"
            " values (%s, %s, %s, %s, 'vormittags', %s, stellwerk.clock())",
            [name, mail, phone, self.random.choice(["Rückenschmerzen seit zwei Wochen", "Nachkontrolle", "Ich brauche ein neues Rezept und hätte gern einen Termin am Vormittag."]), self.callers % 9 != 4],
        )  # fmt: skip
        self.settle()
        if self.callers % 4 == 3:
            return
        until = self.random.choice(
            [datetime.timedelta(hours=2), datetime.timedelta(hours=20), datetime.timedelta(days=3)]
        )
        (number, at), *_ = self.db.execute(
            "insert into praxis.appointment (patient_email, starts_at, status)"
            " values (%s, date_trunc('hour', stellwerk.clock()) + %s, 'bestätigt')"
            " on conflict (patient_email, starts_at) do update set status = 'bestätigt' returning appointment_id, starts_at",
            [mail, until],
        ).fetchall()
        self.engine.signal(
            "appointment_confirmed",
            mail,
            {"data": {"patient": mail, "appointment_id": number, "starts_at": at.isoformat()}},
        )
        self.settle()

    def others(self) -> None:
        """What else begins in an hour."""
        name, mail, phone = self.caller()
        for slug, payload in (
            ("webhook-relay", {"order": f"S-{self.callers}", "customer": name, "total": 40 * self.callers, "country": "DE", "card_country": self.random.choice(["DE", "DE", "BR"])}),
            ("expense-approval", {"employee": name, "purpose": "Fahrt nach München", "amount": self.random.choice([18, 64, 180])}),
            ("inquiry-routing", {"from": mail, "to": "office@example.org", "subject": self.random.choice(["Rechnung 4711", "Beschwerde über die Wartezeit", "Frage zu den Öffnungszeiten"]), "text": "Guten Tag, …"}),
            ("price-list", {"item": f"Artikel {self.callers}", "total": 100, "pieces": self.random.choice([4, 5, 10, 0])}),
            ("contact-to-case", {"name": name, "email": mail, "phone": phone, "message": "Could you call me back tomorrow?"}),
        ):  # fmt: skip
            if self.random.random() < 0.55:
                self.engine.start_run(slug, payload)
        self.settle()

    def as_user(self, email: str) -> None:
        self.db.execute("select set_config('stellwerk.actor', %s, false)", [email])


def furnish(dsn: str, hours: int = 20) -> None:
    """Fill the database."""
    house = House(dsn)
    db, engine = house.db, house.engine
    house.at(datetime.timedelta(hours=hours + 1))
    for email, role, name, groups in USERS:
        db.execute("select stellwerk.add_user(%s, %s, %s, groups => %s)", [email, role, name, groups])
    house.as_user("admin@example.org")
    praxis = resources.folder("examples") / "praxis"
    for file in ("tables.sql", "data.sql", "connect.sql"):
        db.execute((praxis / file).read_text(encoding="utf-8").encode())
    for template in gallery.templates().values():
        house.store(template.document)
        engine.start_run(template.slug, template.sample.fresh_payload(datetime.datetime.now(datetime.UTC)))
    house.store(PRICES)
    intake = json.loads((praxis / "workflows" / "patient-intake.json").read_text(encoding="utf-8"))
    for node in intake["nodes"]:
        if node["id"] == "clerk":  # whose hour would be over
            node["config"] |= {"due": "PT6H", "escalate": [{"after": "PT3H", "do": "remind"}]}
    house.store(intake)
    for ago in range(hours, 0, -1):
        house.at(datetime.timedelta(hours=ago, minutes=-7))
        for _ in range(house.random.choice([0, 1, 1, 2])):
            house.contact(datetime.timedelta(hours=ago))
        house.others()
        engine.tick()
        house.settle()
    house.at(datetime.timedelta(minutes=4))
    people_at_work(house, intake)
    house.at(datetime.timedelta())
    engine.tick()
    house.settle()
    while engine.value("select stellwerk.keep_statistics(1)"):
        pass
    house.close()


def people_at_work(house: House, intake: dict[str, Any]) -> None:
    """Tasks are taken and done, cases spoken about, a version published and another drafted, an alert set up."""
    db, engine = house.db, house.engine
    house.as_user("petra@example.org")
    tasks = [task for (task,) in db.execute("select id from stellwerk.task_overview where state = 'open' and title like 'Unterlagen%' order by id").fetchall()]  # fmt: skip
    for task in tasks[:1]:
        engine.complete_task(task, {"bemerkung": "Bringt die Überweisung am Montag mit."}, "nachreichen")
    for task in tasks[1:2]:
        engine.claim_task(task)
        engine.comment_task(task, "Ich habe auf die Mailbox gesprochen und rufe morgen früh noch einmal an.")
    cases = [case for (case,) in db.execute("select case_id from stellwerk.backoffice_case where status = 'neu' order by case_id").fetchall()]  # fmt: skip
    for case in cases[:2]:
        engine.set_case_status(case, "rückruf", "Hat angerufen; bitte noch heute zurückrufen.")
    # What is new at this hour changes with the hour; one case is spoken about in any case.
    for case in cases[:1] or [engine.value("select max(case_id) from stellwerk.backoffice_case")]:
        engine.add_case_note(case, "Kommt in Begleitung ihrer Tochter.")
        engine.assign_case(case, "petra@example.org")
    house.as_user("admin@example.org")
    for task in tasks[2:3]:
        engine.claim_task(task)
    changed = json.loads(json.dumps(intake))
    for node in changed["nodes"]:
        if node["id"] == "signed":
            node["config"]["timeout"] = "PT4H"
    house.store(changed)
    house.store(
        {**changed, "nodes": [*changed["nodes"], {"id": "tell", "type": "log.write", "name": "Empfang verständigen", "config": {"message": ""}}],
         "edges": [*changed["edges"], {"from": "ask", "to": "tell"}]}, publish=False)  # fmt: skip
    db.execute("select stellwerk.set_alert_rule('too-many-failures', 'failed_share', 0.05, 'price-list', '24 hours')")
    db.execute("select stellwerk.set_alert_rule('nobody-works', 'no_worker', 1)")
    db.execute("select stellwerk.create_token('website', 'staff', %s)", [hashlib.sha256(b"website").digest()])
    db.execute("select stellwerk.invite_user('vera@example.org', %s)", [hashlib.sha256(b"1.welcome").digest()])
    engine.start_bulk_operation("cancel", {"workflow": "payment-dunning"}, dry_run=True)
    house.settle()


if __name__ == "__main__":
    import sys

    furnish(sys.argv[1])
