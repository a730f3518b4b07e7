"""The example application, from three contact forms to three cases: by the command line, and by SQL alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import psycopg
import pytest

from stellwerk.resources import folder

PRAXIS = folder("examples") / "praxis"
MISSING = "Es fehlt noch: Versicherungskarte, Überweisung"


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


# -- by the command line ----------------------------------------------------------------------------------------------


def test_the_demo_prints_three_finished_runs_and_three_cases_again_and_again(private_home):
    for first in (1, 4):
        done = demo("praxis", "--once", LANG="C", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
        assert done.returncode == 0, done.stderr
        assert re.findall(r"^● Run (\d+) of patient-intake version 1: completed", done.stdout, re.MULTILINE) == [
            str(number) for number in range(first, first + 3)
        ]
        assert cases_of(done.stdout) == [
            ["Anna Berger", "vollständig"],
            ["Mira Kowalski", "nachreichen", MISSING],
            ["Jonas Weber", "vollständig"],
        ]
        assert "✕" not in done.stdout
        assert done.stdout.count("action.fonio_call") == 3
        assert done.stderr.count("Fonio-Anruf würde ausgeführt") == 3
    shown = [sys.executable, "-m", "stellwerk", "run", "list", "--json"]
    runs = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
    assert [run["state"] for run in runs] == ["completed"] * 6


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
        place = re.findall(r"http://\S+/healthz", "".join(lines))[0]
        with urllib.request.urlopen(place, timeout=10) as answer:
            assert json.load(answer) == {"status": "ok"}
        with psycopg.connect(dsn, autocommit=True) as application:
            application.execute((PRAXIS / "requests.sql").read_bytes())
            runs = application.execute("select count(*) from stellwerk.event").fetchone()
            assert runs == (6,)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()


@pytest.mark.one_server
def test_a_workflow_that_somebody_changed_is_put_back(dsn, make_workflow):
    assert demo("--once", DATABASE_URL=dsn).returncode == 0
    changed = json.loads((PRAXIS / "workflows/patient-intake.json").read_text())
    make_workflow({**changed, "name": "Somebody's own"})
    done = demo("--once", DATABASE_URL=dsn)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of patient-intake version 3: completed") == 3


@pytest.mark.one_server
def test_a_run_that_fails_is_shown_with_its_reason(db, dsn):
    db.execute("alter table stellwerk.backoffice_case add constraint nobody_waits check (status <> 'nachreichen')")
    done = demo("--once", DATABASE_URL=dsn)
    assert done.returncode == 1
    assert re.findall(r"^. Run", done.stdout, re.MULTILINE) == ["● Run", "✕ Run", "● Run"]
    assert "error: 1 of 3 runs did not complete\n" in done.stderr
    assert "nobody_waits" in done.stderr
    assert "`stellwerk run show 2` shows every step." in done.stderr


def test_an_unknown_example_is_wrong_use(private_home):
    done = demo("nonsense", "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: there is no example 'nonsense'\nhint: There are: praxis.\n"


# -- by SQL alone -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clinic(db, dsn, make_workflow):
    """The application's own connection, after everything was set up."""
    with psycopg.connect(dsn, autocommit=True) as application:
        application.execute((PRAXIS / "tables.sql").read_bytes())
        application.execute((PRAXIS / "data.sql").read_bytes())
        db.execute((PRAXIS / "connect.sql").read_bytes())
        make_workflow(json.loads((PRAXIS / "workflows/patient-intake.json").read_text()))
        yield application


def carry_out_calls(db: psycopg.Connection, answer: dict[str, object]) -> int:
    """What a worker does, by hand: take the queued calls and complete them."""
    tenant_id = db.execute("select stellwerk.current_tenant_id()").fetchone()[0]
    worker_id = db.execute("select stellwerk.register_worker('by hand', 'here', 1, '{action.fonio_call}')").fetchone()[
        0
    ]
    queued = db.execute("select run_id, step_id from stellwerk.step where state = 'queued' and runs_in = 'worker'")
    runs, steps = zip(*queued.fetchall(), strict=True)
    begun = db.execute(
        "select run_id, step_id, attempt, config from stellwerk.begin_steps(%s, %s, %s::bigint[], %s::bigint[])",
        [worker_id, tenant_id, list(runs), list(steps)],
    ).fetchall()
    assert all(config["phone"].startswith("+49 30 ") for *_, config in begun)
    completions = [
        {"run": str(run), "step": str(step), "attempt": attempt, "port": "next", "output": answer}
        for run, step, attempt, _ in begun
    ]
    row = db.execute(
        "select stellwerk.complete_steps(%s, %s, %s::jsonb)", [worker_id, tenant_id, json.dumps(completions)]
    ).fetchone()
    assert row[0]["accepted"] == len(completions)
    db.execute("select stellwerk.leave_worker(%s)", [worker_id])
    return len(begun)


def test_three_rows_become_three_cases_with_sql_alone(db, clinic, run_all):
    clinic.execute((PRAXIS / "requests.sql").read_bytes())
    assert (
        db.execute("select state, operation, target from stellwerk.event").fetchall()
        == [("pending", "insert", "praxis.contact_request")] * 3
    )
    run_all(db)
    waiting = db.execute("select stellwerk.why(run_id) from stellwerk.run_overview").fetchall()
    assert all("step call waits in the queue" in sentence for (sentence,) in waiting)

    assert carry_out_calls(db, {"reached": True}) == 3
    run_all(db)
    assert (
        db.execute("select state, source, live_steps from stellwerk.run_overview").fetchall()
        == [("completed", "row", 0)] * 3
    )
    cases = db.execute(
        "select payload ->> 'name', status, note, payload ->> 'wishes', (payload ->> 'appointment')::timestamptz is null"
        " from stellwerk.backoffice_case order by run_id"
    )
    assert cases.fetchall() == [
        ("Anna Berger", "vollständig", None, "vormittags", False),
        ("Mira Kowalski", "nachreichen", MISSING, None, True),
        ("Jonas Weber", "vollständig", None, "Donnerstag, wenn es geht", False),
    ]
    events = db.execute(
        "select e.state, e.record_id = r.payload ->> 'contact_request_id' from stellwerk.event e"
        " join stellwerk.run_overview r using (run_id)"
    )
    assert events.fetchall() == [("processed", True)] * 3


def test_the_history_of_a_case_names_the_run(db, clinic, run_all):
    clinic.execute((PRAXIS / "requests.sql").read_bytes())
    run_all(db)
    carry_out_calls(db, {})
    run_all(db)
    history = db.execute(
        "select h.status, h.note, h.actor = 'run:' || c.run_id, t.node_id from stellwerk.case_history h"
        " join stellwerk.backoffice_case c using (case_id) join stellwerk.step_timeline t on t.step_id = h.step_id"
        " where c.payload ->> 'name' = 'Mira Kowalski' order by h.history_id"
    )
    assert history.fetchall() == [(None, None, True, "push"), ("nachreichen", MISSING, True, "ask")]


def test_the_four_look_ups_go_side_by_side_and_come_together_once(db, clinic, run_all):
    clinic.execute((PRAXIS / "requests.sql").read_bytes())
    run_all(db)
    carry_out_calls(db, {})
    run_all(db)
    counts = db.execute(
        "select node_id, count(*) from stellwerk.step_timeline where state = 'completed' group by node_id"
    )
    expected = dict.fromkeys(("form", "call", "card", "referral", "consent", "appointment", "documents", "push"), 3)
    assert dict(counts.fetchall()) == {**expected, "complete": 3, "accept": 2, "ask": 1}


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
