"""The example application: its story on a test clock, the same by plain SQL, and the demo that plays and stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from database.clock import set_clock, shift, tick

from stellwerk.cli import story
from stellwerk.database import queue
from stellwerk.definition.compile import compile_workflow
from stellwerk.resources import folder
from stellwerk.settings import Settings

PRAXIS = folder("examples") / "praxis"
DOCUMENT = json.loads((PRAXIS / "workflows/patient-intake.json").read_text())
SCRIPT = json.loads((PRAXIS / "story.json").read_text())
BERLIN = ZoneInfo("Europe/Berlin")
ENDS = [
    ["Anna Berger", "vollständig"],
    ["Mira Kowalski", "nachreichen", "Überweisung und Unterschrift bringt sie am Montag."],
    ["Jonas Weber", "vollständig"],
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stellwerk", "demo", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def cases_of(output: str) -> list[list[str]]:
    """The rows of the table of cases: name, status, note."""
    table = output[output.index("run  case") :].strip().splitlines()
    return [re.split(r"\s{2,}", line)[2:] for line in table[1:]]


# -- the story --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clinic(db, dsn, make_workflow):
    """The application's own connection, after everything was set up."""
    with psycopg.connect(dsn, autocommit=True) as application:
        application.execute((PRAXIS / "tables.sql").read_bytes())
        application.execute((PRAXIS / "data.sql").read_bytes())
        db.execute((PRAXIS / "connect.sql").read_bytes())
        make_workflow(DOCUMENT)
        yield application


def ended(db, name, node):
    """When the steps of a node ended in the run of a patient, with their ports."""
    return db.execute(
        "select t.ended_at, t.port from stellwerk.step_timeline t join stellwerk.run_overview r using (run_id)"
        " where r.payload ->> 'name' = %s and t.node_id = %s and t.ended_at is not null order by t.step_id",
        (name, node),
    ).fetchall()


def happened(db, name, node, when, port="next"):
    """That it happened once, at that time: not before it, and no minute later."""
    ((ended_at, left_by),) = ended(db, name, node)
    assert timedelta(0) <= ended_at - at(when) < timedelta(minutes=1), f"{node} at {ended_at}"
    assert left_by == port


def test_the_story(db, dsn, clinic, tmp_path):
    """Played once, and looked at from all sides."""
    said = []
    queue.pin_environment()
    with story.Story(SCRIPT, [DOCUMENT], Settings(home=tmp_path), dsn, said.append) as stage:
        runs = stage.play()
    assert [run["state"] for run in runs] == ["completed"] * 3
    it_takes_its_whole_course(db)
    the_history_of_a_case_tells_who_and_when_by_which_node(db)
    everything_came_in_by_the_ways_that_everybody_uses(db, said)
    the_old_time_of_the_reminder_passes_in_silence(said)


def it_takes_its_whole_course(db):
    # Reminded once, a day before the time that the appointment was moved to; not a day before the first one.
    happened(db, "Anna Berger", "day_before", "2031-04-23T11:00")
    happened(db, "Mira Kowalski", "day_before", "2031-04-07T14:00")
    assert len(ended(db, "Anna Berger", "remind")) == 1
    # Documents are checked three hours before.
    happened(db, "Anna Berger", "three_hours_before", "2031-04-24T08:00")
    happened(db, "Mira Kowalski", "three_hours_before", "2031-04-08T11:00")
    # The one has all and signs; the other one does not within two hours, and a clerk decides.
    happened(db, "Anna Berger", "signed", "2031-04-24T08:20")
    happened(db, "Anna Berger", "complete", "2031-04-24T08:20", port="true")
    assert ended(db, "Anna Berger", "clerk") == []
    happened(db, "Mira Kowalski", "signed", "2031-04-08T13:00", port="timeout")
    happened(db, "Mira Kowalski", "clerk", "2031-04-08T13:10", port="nachreichen")
    # The third one, whose form was a plain INSERT, keeps his appointment.
    happened(db, "Jonas Weber", "day_before", "2031-03-19T10:00")
    happened(db, "Jonas Weber", "signed", "2031-03-20T07:25")
    cases = db.execute(
        "select payload ->> 'name', status, note, color, final from stellwerk.case_overview order by case_id"
    ).fetchall()
    assert cases == [
        ("Anna Berger", "vollständig", None, "green", True),
        ("Mira Kowalski", "nachreichen", "Überweisung und Unterschrift bringt sie am Montag.", "red", False),
        ("Jonas Weber", "vollständig", None, "green", True),
    ]


def the_history_of_a_case_tells_who_and_when_by_which_node(db):
    history = db.execute(
        "select t.node_id, t.kind, t.status, t.changed_at, t.actor = 'run:' || t.run_id from stellwerk.case_timeline t"
        " join stellwerk.backoffice_case c using (case_id) where c.payload ->> 'name' = 'Anna Berger'"
        " order by t.history_id"
    ).fetchall()
    assert [(node, kind, status) for node, kind, status, _, _ in history] == [
        ("open", "change", "neu"),
        ("book", "change", "termin"),
        ("book", "appointment", "termin"),
        ("keep", "change", "termin"),
        ("keep", "appointment", "termin"),
        ("accept", "change", "vollständig"),
    ]
    assert all(by_the_run for *_, by_the_run in history)
    assert [moment.astimezone(BERLIN).isoformat()[:16] for *_, moment, _ in history] == [
        *("2031-02-03T08:12", "2031-02-04T10:01", "2031-02-04T10:01"),
        *("2031-04-23T11:00", "2031-04-23T11:00", "2031-04-24T08:20"),
    ]
    assert db.execute(
        "select starts_at from stellwerk.case_appointment join stellwerk.backoffice_case c using (case_id)"
        " where c.payload ->> 'name' = 'Anna Berger'"
    ).fetchall() == [(at("2031-04-24T11:00"),)]


def everything_came_in_by_the_ways_that_everybody_uses(db, said):
    assert db.execute(
        "select kind, source, state, count(*) from stellwerk.webhook_delivery group by 1, 2, 3 order by 1, 2"
    ).fetchall() == [
        ("form", "kontakt", "processed", 2),
        ("webhook", "kalender", "processed", 3),
        ("webhook", "signatur", "processed", 2),
    ]
    assert db.execute("select target, state from stellwerk.event").fetchall() == [
        ("praxis.contact_request", "processed")
    ]
    assert db.execute("select completed_by, outcome from stellwerk.user_task").fetchall() == [
        ("petra@praxis.example", "nachreichen")
    ]
    assert sum("→ 202" in line for line in said) == 7


def the_old_time_of_the_reminder_passes_in_silence(said):
    place = next(number for number, line in enumerate(said) if "nothing happens" in line)
    assert said[place + 1 : place + 3] == ["", "Mon 7 Apr 2031"]


def test_who_is_taken_out_of_the_diary_is_not_reminded(db, dsn, clinic, tmp_path):
    """The story of the third patient, but that the front desk deletes his appointment."""
    scenes = [scene for scene in SCRIPT["scenes"] if "Jonas" in scene["says"] or "three appointments" in scene["says"]]
    cancels = {
        "at": "2031-03-14T09:00",
        "who": "Jonas Weber",
        "says": "calls and cancels",
        "sql": "delete from praxis.appointment where patient_email = 'jonas.weber@example.org'",
    }
    queue.pin_environment()
    with story.Story(
        {**SCRIPT, "scenes": [*scenes, cancels]}, [DOCUMENT], Settings(home=tmp_path), dsn, print
    ) as stage:
        assert [run["state"] for run in stage.play()] == ["completed"]
    happened(db, "Jonas Weber", "day_before", "2031-03-14T09:00", port="gone")
    assert ended(db, "Jonas Weber", "remind") == []
    assert db.execute("select status, note, color, final from stellwerk.case_overview").fetchall() == [
        ("abgesagt", "Der Termin steht nicht mehr im Kalender.", "grey", True)
    ]


# -- the clock disturbs nothing ---------------------------------------------------------------------------------------


def test_a_story_is_refused_where_something_else_is_at_work(db, dsn, clinic, make_workflow, run_all):
    slugs = [DOCUMENT["slug"]]
    assert story.trouble(db, slugs) is None
    clinic.execute((PRAXIS / "requests.sql").read_bytes())
    assert story.trouble(db, slugs) == "something has come in that is still to be looked at"
    run_all(db)
    assert story.trouble(db, slugs) == "run 1 is under way in it"
    assert story.trouble(db, slugs, mark=0) is None, "runs after the mark are the story's own"
    db.execute("select stellwerk.cancel_run(run_id) from stellwerk.run")
    run_all(db)
    assert story.trouble(db, slugs) is None
    db.execute("select stellwerk.register_worker('here', 'here', 1, '{}')")
    db.execute("select stellwerk.hold_presence(max(worker_id)) from stellwerk.worker")
    assert story.trouble(db, slugs) == "a worker is at work in it"


@pytest.mark.one_server
def test_the_demo_leaves_a_database_alone_that_is_in_use(dsn, db, make_workflow):
    make_workflow({"slug": "theirs", "steps": [{"id": "start", "type": "trigger.manual"}]})
    done = demo("--once", DATABASE_URL=dsn)
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: the story is not played in this database: it holds the workflow theirs" in done.stderr
    assert db.execute("select to_regnamespace('praxis') is null").fetchone() == (True,)


@pytest.mark.one_server
def test_a_story_ends_when_somebody_else_comes(db, dsn, clinic, make_workflow, tmp_path):
    queue.pin_environment()
    with story.Story(SCRIPT, [DOCUMENT], Settings(home=tmp_path), dsn, lambda _: None) as stage:
        make_workflow({"slug": "theirs", "steps": [{"id": "start", "type": "trigger.manual"}]})
        with pytest.raises(story.StellwerkError, match="it holds the workflow theirs now"):
            stage.play()


# -- by the command line ----------------------------------------------------------------------------------------------


def test_the_demo_plays_again_beside_changes_and_runs_of_ones_own(private_home, tmp_path):
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({**DOCUMENT, "name": "Somebody's own"}))
    for first in (1, 4):
        if first > 1:  # somebody has changed the workflow: it is put back
            apply = [sys.executable, "-m", "stellwerk", "workflow", "apply", str(changed), "--publish"]
            subprocess.run(apply, capture_output=True, check=True)
        done = demo("praxis", "--once", LANG="C", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
        assert done.returncode == 0, done.stderr
        assert cases_of(done.stdout) == ENDS
        assert re.search(rf"^{first} +{first} +Anna Berger", done.stdout, re.MULTILINE)
        assert done.stderr.count("Fonio-Anruf würde ausgeführt") == 6
        assert done.stderr.count("Signaturanfrage würde gesendet") == 3
        assert ("published as version 3" in done.stderr) == (first > 1)
    shown = [sys.executable, "-m", "stellwerk", "run", "list", "--json"]
    runs = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
    assert [run["state"] for run in runs] == ["completed"] * 6
    # Something is under way: the story gets a database of its own, and that run keeps its clock.
    started = [sys.executable, "-m", "stellwerk", "run", "start", "patient-intake"]
    payload = ["--payload", '{"name": "Ada", "email": "ada@example.org"}']
    subprocess.run([*started, *payload], capture_output=True, check=True)
    done = demo("praxis", "--once")
    assert done.returncode == 0, done.stderr
    assert "run 7 is under way in it. The story gets one of its own, stellwerk_demo." in done.stderr
    assert cases_of(done.stdout) == ENDS
    runs = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
    assert [run["state"] for run in runs if run["run_id"] == "7"] == ["pending"]


@pytest.mark.one_server
def test_the_demo_stays_until_it_is_told_to_end(dsn):
    process = subprocess.Popen(
        [sys.executable, "-m", "stellwerk", "demo", "--port", "0"],
        env={**os.environ, "DATABASE_URL": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        link = re.findall(r"http://\S+/welcome/\S+", "".join(lines))[0]
        with urllib.request.urlopen(link, timeout=10) as answer:
            assert "leitung@praxis.example" in answer.read().decode()
        form = re.findall(r"http://\S+/forms/default/kontakt", "".join(lines))[0]
        with urllib.request.urlopen(form, data=b"name=Ada&email=ada@example.org", timeout=10) as answer:
            assert answer.status == 202
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()


@pytest.mark.one_server
def test_a_run_that_fails_is_shown_with_its_reason(db, dsn):
    db.execute("alter table stellwerk.backoffice_case add constraint nobody_waits check (status <> 'nachreichen')")
    done = demo("--once", DATABASE_URL=dsn)
    assert done.returncode == 1
    assert "error: 1 of 3 runs did not complete\n" in done.stderr
    assert "nobody_waits" in done.stderr
    assert "`stellwerk run show 2` shows every step." in done.stderr


def test_an_unknown_example_is_wrong_use(private_home):
    done = demo("nonsense", "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no example 'nonsense'\nhint: There are: praxis.\n"


# -- by SQL alone -----------------------------------------------------------------------------------------------------


def carry_out(db: psycopg.Connection, node_type: str, *, error: bool = False) -> int:
    """What a worker does, by hand: take the queued steps of a type and complete or fail them."""
    tenant_id = db.execute("select stellwerk.current_tenant_id()").fetchone()[0]
    worker_id = db.execute("select stellwerk.register_worker('by hand', 'here', 1, %s)", ([node_type],)).fetchone()[0]
    queued = db.execute(
        "select run_id, step_id from stellwerk.step where state = 'queued' and runs_in = 'worker' and type = %s",
        (node_type,),
    )
    runs, steps = zip(*queued.fetchall(), strict=True)
    begun = db.execute(
        "select run_id, step_id, attempt, config from stellwerk.begin_steps(%s, %s, %s::bigint[], %s::bigint[])",
        [worker_id, tenant_id, list(runs), list(steps)],
    ).fetchall()
    failure = {"class": "http", "message": "nobody answers", "retryable": False}
    what = {"error": failure} if error else {"port": "next", "output": {"envelope_id": "env_1"}}
    completions = [{"run": str(run), "step": str(step), "attempt": attempt, **what} for run, step, attempt, _ in begun]
    row = db.execute(
        "select stellwerk.complete_steps(%s, %s, %s::jsonb)", [worker_id, tenant_id, json.dumps(completions)]
    ).fetchone()
    assert row[0]["accepted"] == len(completions)
    db.execute("select stellwerk.leave_worker(%s)", [worker_id])
    return len(begun)


def confirm(db, clinic, email, starts_at):
    """What the diary does: an appointment, and word of it."""
    row = clinic.execute(
        "insert into praxis.appointment (patient_email, starts_at, status) values (%s, %s, 'bestätigt')"
        " returning appointment_id",
        (email, starts_at),
    ).fetchone()
    data = {"data": {"appointment_id": row[0], "starts_at": starts_at.isoformat()}}
    db.execute("select stellwerk.signal('appointment_confirmed', %s, %s)", (email, json.dumps(data)))
    return row[0]


def statuses(db):
    return dict(db.execute("select payload ->> 'name', status from stellwerk.backoffice_case").fetchall())


def test_three_rows_become_three_cases_with_sql_alone(db, clinic, run_all):
    clinic.execute((PRAXIS / "requests.sql").read_bytes())
    assert (
        db.execute("select state, operation, target from stellwerk.event").fetchall()
        == [("pending", "insert", "praxis.contact_request")] * 3
    )
    run_all(db)
    waiting = db.execute("select stellwerk.why(run_id) from stellwerk.run_overview").fetchall()
    assert all("step call waits in the queue" in sentence for (sentence,) in waiting)
    assert statuses(db) == dict.fromkeys(("Anna Berger", "Mira Kowalski", "Jonas Weber"), "neu")
    assert carry_out(db, "action.fonio_call") == 3
    run_all(db)
    confirm(db, clinic, "anna.berger@example.org", datetime.now(BERLIN) + timedelta(days=30))
    run_all(db)
    assert statuses(db)["Anna Berger"] == "termin"


def test_a_call_that_fails_and_a_date_that_never_comes(db, clinic, run_all):
    clinic.execute((PRAXIS / "requests.sql").read_bytes())
    run_all(db)
    assert carry_out(db, "action.fonio_call", error=True) == 3
    run_all(db)
    assert set(statuses(db).values()) == {"rückruf"}
    assert db.execute("select distinct note from stellwerk.backoffice_case").fetchall() == [
        ("Der Anruf ist nicht zustande gekommen: nobody answers",)
    ]
    shift(db, "31 days")
    tick(db)
    run_all(db)
    assert set(statuses(db).values()) == {"ohne termin"}
    assert db.execute("select distinct state from stellwerk.run").fetchall() == [("completed",)]


def test_a_task_that_nobody_does_goes_up_and_then_decides_itself(db, clinic, run_all):
    for email, role, group in (("p@example.org", "staff", "empfang"), ("l@example.org", "admin", "leitung")):
        db.execute("select stellwerk.add_user(%s, %s, groups => %s)", (email, role, [group]))
    clinic.execute(
        "insert into praxis.contact_request (name, email, phone, consent) values ('Mo', 'mo@example.org', '1', true)"
    )
    run_all(db)
    carry_out(db, "action.fonio_call")
    run_all(db)
    visit = datetime.now(BERLIN) + timedelta(days=20)
    confirm(db, clinic, "mo@example.org", visit)
    run_all(db)
    set_clock(db, visit - timedelta(days=1))
    tick(db)
    run_all(db)
    carry_out(db, "action.fonio_call")
    run_all(db)
    set_clock(db, visit - timedelta(hours=3))
    tick(db)
    run_all(db)
    carry_out(db, "action.esign_request", error=True)  # the signature service is away: straight to the front desk
    run_all(db)
    task = "select title, role, state, instructions from stellwerk.user_task"
    title, role, state, instructions = db.execute(task).fetchone()
    assert (title, role, state) == ("Unterlagen von Mo klären", "empfang", "open")
    assert "es fehlt Versicherungskarte, Überweisung. Unterschrift: fehlt" in instructions
    shift(db, visit - timedelta(hours=3) - datetime.now(BERLIN) + timedelta(minutes=31))
    for _ in range(2):  # the reminder, then the next rung
        tick(db)
        run_all(db)
    assert db.execute("select role from stellwerk.user_task").fetchone() == ("leitung",)
    shift(db, visit - timedelta(hours=3) - datetime.now(BERLIN) + timedelta(minutes=61))
    tick(db)
    run_all(db)
    assert db.execute("select status, note from stellwerk.backoffice_case").fetchone() == (
        "nachreichen",
        "Es fehlt noch: Versicherungskarte, Überweisung",
    )


def test_a_form_without_consent_or_address_and_one_taken_back_start_nothing(db, clinic, run_all):
    clinic.execute(
        "insert into praxis.contact_request (name, email, consent) values"
        " ('A', 'a@example.org', false), ('B', 'no address', true)"
    )
    with clinic.transaction(force_rollback=True):
        clinic.execute("insert into praxis.contact_request (name, email, consent) values ('C', 'c@example.org', true)")
    run_all(db)
    assert db.execute("select count(*) from stellwerk.event").fetchone() == (0,)
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)


def test_the_document_is_without_a_blemish():
    assert compile_workflow(DOCUMENT).problems == []
    assert all(node.get("name") for node in DOCUMENT["nodes"])
