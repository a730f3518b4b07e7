"""The command line: what it prints, how it ends, and that its page in the docs tells the truth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import typer.main

from stellwerk import __version__, json_text
from stellwerk.cli import app
from stellwerk.errors import InvalidPayload, LimitExceeded, UsageError
from stellwerk.settings import Settings

PAGE = Path(__file__).parent.parent / "docs/command-line.md"
BEGIN, END = "<!-- commands: begin -->", "<!-- commands: end -->"


# -- wrong use and bad luck -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "nonsense"],
        ["run", "start"],
        ["run", "show", "twelve"],
        ["run", "list", "--nonsense"],
        ["run", "list", "--state", "sleeping"],
        ["run", "list", "--limit", "0"],
        ["watch", "t", "w", "--on", "truncate"],
        ["workflow", "rollback", "w"],
        ["db", "reset"],
        ["worker", "--concurrency", "0"],
        ["limit", "set", "node", "slack", "1", "PT1S"],
    ],
)
def test_wrong_use_ends_with_two_a_sentence_and_a_hint(stellwerk, arguments):
    status, out, err = stellwerk(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "\nhint: " in err
    assert "Traceback" not in err


def test_no_database_is_said_in_one_sentence_without_the_password(stellwerk):
    status, _, err = stellwerk("run", "list", dsn="postgresql://me:secret@127.0.0.1:1/office")
    assert status == 1
    assert err.startswith("error: no connection to office at 127.0.0.1 as me\n")
    assert "hint: " in err
    assert "secret" not in err


def test_an_address_that_cannot_be_read_is_wrong_use(stellwerk):
    status, _, err = stellwerk("run", "list", dsn="postgresql://[")
    assert status == 2
    assert "DATABASE_URL cannot be read" in err


def test_a_fault_of_ours_is_one_sentence_too(stellwerk, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("by design")

    monkeypatch.setattr("stellwerk.database.pool.resolve", broken)
    status, _, err = stellwerk("run", "list")
    assert status == 1
    assert err.startswith("error: unexpected ZeroDivisionError: by design\n")


@pytest.mark.one_server
def test_a_database_without_the_schema_says_what_to_do(stellwerk, empty_dsn):
    status, _, err = stellwerk("run", "list", dsn=empty_dsn)
    assert status == 1
    assert "stellwerk db migrate" in err
    status, out, _ = stellwerk("doctor")
    assert status == 1
    assert "✗ schema" in out


def test_settings_are_checked():
    assert Settings.from_environment({"STELLWERK_HOME": "~/x", "STELLWERK_ALLOWED_HOSTS": "a, b:1,"}).allowed_hosts == (
        "a",
        "b:1",
    )
    with pytest.raises(UsageError, match="STELLWERK_LOG"):
        Settings.from_environment({"STELLWERK_LOG": "loud"})


# -- the database -----------------------------------------------------------------------------------------------------


def test_the_schema_is_made_shown_and_made_anew(stellwerk, empty_dsn):
    assert stellwerk("db", "status", dsn=empty_dsn)[0] == 1
    status, out, _ = stellwerk("db", "migrate", "--dry-run")
    assert status == 0
    assert "tried and taken back" in out
    status, out, err = stellwerk("db", "migrate")
    assert (status, "migrations/0001_tenancy.sql" in err) == (0, True)
    assert stellwerk("db", "migrate")[1] == "The database is up to date.\n"
    status, out, _ = stellwerk("db", "status", "--json")
    assert status == 0
    assert {row["state"] for row in json.loads(out)} == {"applied"}
    assert stellwerk("db", "reset", "--yes")[0] == 0
    assert stellwerk("db", "url")[1].strip() == empty_dsn
    assert stellwerk("db", "start")[0] == 2


def test_a_healthy_database_passes_the_doctor(stellwerk, dsn):
    status, out, err = stellwerk("doctor", dsn=dsn)
    assert (status, err) == (0, ""), out
    assert out.count("✓") >= 10
    findings = json.loads(stellwerk("doctor", "--json")[1])
    assert all(finding["good"] for finding in findings)


def test_the_doctor_finds_a_broken_watch_and_a_trigger_that_came_back(stellwerk, db, dsn):
    db.execute(
        "create trigger tg_pgqueuer_changed after insert on stellwerk_queue.pgqueuer"
        " execute function stellwerk_queue.fn_pgqueuer_changed()"
    )
    status, out, _ = stellwerk("doctor", dsn=dsn)
    assert status == 1
    assert "✗ queue: it notifies on each change" in out


# -- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["run", "list"], ["workflow", "list"], ["watches"]])
@pytest.mark.one_server
def test_empty_listings_say_so(stellwerk, dsn, arguments):
    status, out, _ = stellwerk(*arguments, dsn=dsn)
    assert status == 0
    assert out.strip()
    assert json.loads(stellwerk(*arguments, "--json")[1]) == []


def test_unknown_things_end_with_one(stellwerk, dsn):
    for arguments in (
        ["run", "show", "99"],
        ["run", "why", "99"],
        *(["run", verb, "99"] for verb in ("cancel", "pause", "resume", "retry", "edit")),
        ["run", "retry", "99", "--dry-run"],
        ["run", "skip", "99", "1"],
        ["run", "start", "nothing"],
        ["workflow", "show", "nothing"],
        ["workflow", "export", "nothing"],
        ["workflow", "publish", "nothing"],
        ["workflow", "rollback", "nothing", "1"],
        ["watch", "nothing", "nothing"],
        ["watch", "pg_class; drop table x", "nothing"],
        ["unwatch", "nothing", "nothing"],
        ["workflow", "validate", "/nowhere.json"],
        ["run", "start", "nothing", "--payload", "@/nowhere.json"],
    ):
        status, out, err = stellwerk(*arguments, dsn=dsn)
        assert (status, out) == (1, ""), arguments
        assert err.startswith("error: "), arguments
        assert "Traceback" not in err


WORKFLOW = {
    "slug": "greet",
    "name": "Greet",
    "input_schema": {"type": "object", "required": ["name"]},
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "row", "type": "trigger.row"},
        {"id": "hello", "type": "logic.transform", "config": {"output": {"text": "Hello {{ trigger.payload.name }}"}}},
    ],
    "edges": [{"from": "start", "to": "hello"}, {"from": "row", "to": "hello"}],
}


def test_a_workflow_is_applied_run_watched_and_rolled_back(stellwerk, db, dsn, tmp_path, run_all):
    path = tmp_path / "greet.json"
    path.write_text(json.dumps(WORKFLOW))
    assert stellwerk("workflow", "validate", str(path), dsn=dsn)[0] == 0
    assert stellwerk("workflow", "apply", str(tmp_path), "--publish")[1] == "greet version 1 published\n"
    status, out, _ = stellwerk("run", "start", "greet", "--payload", '{"name": "Ada"}', "--key", "once")
    assert status == 0
    assert stellwerk("run", "start", "greet", "--payload", '{"name": "Ada"}', "--key", "once")[1] == out
    run_all(db)
    status, shown, _ = stellwerk("run", "show", out.strip(), "--json")
    assert status == 0
    run = json.loads(shown)
    assert (run["run_id"], run["state"], run["output"]) == (out.strip(), "completed", {"text": "Hello Ada"})
    assert [step["node_id"] for step in run["steps"]][-1] == "hello"
    assert "completed" in stellwerk("run", "show", out.strip())[1]
    assert stellwerk("run", "why", out.strip())[1].strip()
    assert [row["run_id"] for row in json.loads(stellwerk("run", "list", "--json")[1])] == [out.strip()]
    assert stellwerk("run", "cancel", out.strip())[0] == 1
    status, _, err = stellwerk("run", "start", "greet", "--payload", "{}")
    assert (status, "name" in err) == (1, True)

    path.write_text(json.dumps(WORKFLOW | {"description": "kinder"}))
    assert stellwerk("workflow", "apply", str(path), "--publish")[0] == 0
    assert json.loads(stellwerk("workflow", "list", "--json")[1])[0]["active_version"] == 2
    assert stellwerk("workflow", "rollback", "greet", "1")[0] == 0
    assert "description" not in json.loads(stellwerk("workflow", "export", "greet")[1])
    assert "hello" in stellwerk("workflow", "show", "greet")[1]

    db.execute("create table letter (id int primary key, name text)")
    assert stellwerk("watch", "letter", "greet", "--on", "insert,update", "--when", "new.name = 'Ada'")[0] == 0
    watch = json.loads(stellwerk("watches", "--json")[1])[0]
    assert (watch["workflow"], watch["operations"]) == ("greet", ["insert", "update"])
    db.execute("insert into letter values (1, 'Ada'), (2, 'Bob')")
    run_all(db)
    assert len(json.loads(stellwerk("run", "list", "--json")[1])) == 2
    assert stellwerk("unwatch", "letter", "greet")[0] == 0
    assert json.loads(stellwerk("watches", "--json")[1]) == []


@pytest.mark.one_server
def test_documents_with_errors_are_listed_and_none_is_saved(stellwerk, dsn, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(WORKFLOW))
    (tmp_path / "b.json").write_text(json.dumps({"slug": "b", "steps": [{"id": "x", "type": "logic.nonsense"}]}))
    (tmp_path / "c.json").write_text("{ no json")
    status, out, err = stellwerk("workflow", "apply", str(tmp_path), "--publish", dsn=dsn)
    assert status == 1
    assert "logic.nonsense" in out
    assert "c.json" in out
    assert "nothing was saved" in err
    assert json.loads(stellwerk("workflow", "list", "--json")[1]) == []
    status, out, _ = stellwerk("workflow", "validate", str(tmp_path / "b.json"), "--json")
    assert status == 1
    assert json.loads(out)[0]["problems"]


@pytest.mark.one_server
def test_waiting_without_a_worker_says_so_and_ends(stellwerk, dsn, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(WORKFLOW))
    stellwerk("workflow", "apply", str(tmp_path), "--publish", dsn=dsn)
    status, _, err = stellwerk("run", "start", "greet", "--payload", '{"name": "A"}', "--wait", "--timeout", "0.3")
    assert status == 1
    assert "No worker is there" in err
    assert "still pending" in err


# -- JSON from outside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("{", InvalidPayload, "no JSON"),
        ("", InvalidPayload, "no JSON"),
        ("{'a': 1}", InvalidPayload, "no JSON"),
        ('{"a": NaN}', InvalidPayload, "NaN"),
        ("[Infinity]", InvalidPayload, "Infinity"),
        (r'{"a": "\u0000"}', InvalidPayload, r"U\+0000"),
        (r'{"\ud800": 1}', InvalidPayload, "surrogate"),
        (r'["\udc00\ud800"]', InvalidPayload, "surrogate"),
        (b'"\xff"', InvalidPayload, "UTF-8"),
        ('{"a": 1, "a": 2}', InvalidPayload, "twice"),
        ("[" * 65 + "]" * 65, LimitExceeded, "64 levels"),
        ("[" * 10_000 + "]" * 10_000, LimitExceeded, "64 levels"),
        ("1" * 41, LimitExceeded, "number"),
        ("1e999999", LimitExceeded, "number"),
        ('"' + "x" * json_text.LARGEST_BYTES + '"', LimitExceeded, "8,388,608"),
        ('"' + r"\"" * 1_000_000, InvalidPayload, "no JSON"),
    ],
)
def test_json_that_cannot_be_stored_is_refused(text, error, said):
    with pytest.raises(error, match=said):
        json_text.checked(text)


@pytest.mark.parametrize(
    "text", ["{}", '{"a": "😀 [[[["}', "[" * 64 + "]" * 64, "0.12345678901234567890123", '"]"', "null"]
)
def test_json_that_can_be_stored_is_kept_as_it_is(text):
    assert json_text.checked(text) == text


@pytest.mark.one_server
def test_a_payload_comes_from_a_file_and_is_refused_before_the_database_is_asked(stellwerk, tmp_path):
    path = tmp_path / "payload.json"
    path.write_text('{"a": NaN}')
    status, _, err = stellwerk("run", "start", "x", "--payload", f"@{path}", dsn="postgresql://127.0.0.1:1/x")
    assert status == 1
    assert "NaN" in err


# -- processes --------------------------------------------------------------------------------------------------------


def test_it_runs_as_a_program():
    done = subprocess.run([sys.executable, "-m", "stellwerk", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"stellwerk {__version__}\n"


@pytest.mark.one_server
def test_up_serves_and_works_until_it_is_told_to_stop(stellwerk, empty_dsn, tmp_path, wait_until):
    environment = os.environ | {"DATABASE_URL": empty_dsn}
    with (tmp_path / "out").open("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stellwerk", "up", "--port", "0"], stdout=out, stderr=out, env=environment
        )
        try:
            wait_until(lambda: "Stellwerk is up" in (tmp_path / "out").read_text(), what="the start")
            found = re.search(r"http://[\d.:]+", (tmp_path / "out").read_text())
            assert found is not None
            wait_until(lambda: answer(f"{found[0]}/readyz") == 200, what="readiness")
            assert answer(f"{found[0]}/healthz") == 200
            (tmp_path / "a.json").write_text(json.dumps(WORKFLOW))
            stellwerk("workflow", "apply", str(tmp_path), "--publish", dsn=empty_dsn)
            status, text, err = stellwerk("run", "start", "greet", "--payload", '{"name": "Ada"}', "--wait")
            assert (status, "Hello Ada" in text, "No worker" in err) == (0, True, False)
            assert "1 at work" in stellwerk("doctor")[1]
            taken = stellwerk("web", "--port", found[0].rsplit(":", 1)[1])
            assert (taken[0], "Address already in use" in taken[2]) == (1, True)
            process.terminate()
            assert process.wait(15) == 0
            assert "Traceback" not in (tmp_path / "out").read_text()
        finally:
            process.kill()
            process.wait()


def answer(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return int(response.status)
    except OSError:
        return None


@pytest.mark.one_server
def test_a_worker_refuses_a_database_that_lacks_something(stellwerk, empty_dsn):
    status, _, err = stellwerk("worker", "--drain", dsn=empty_dsn)
    assert status == 1
    assert "stellwerk db migrate" in err


# -- the page of the docs ---------------------------------------------------------------------------------------------


def reference() -> str:
    """Every command with its arguments and options, as the page lists them."""
    lines: list[str] = []

    def describe(command: typer.core.TyperCommand | typer.core.TyperGroup, name: str) -> None:
        if isinstance(command, typer.core.TyperGroup):
            for part in sorted(command.commands):
                describe(command.commands[part], f"{name} {part}")
            return
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        metavars = [p.metavar or str(p.name).upper() for p in arguments]
        usage = " ".join([name, *(m if p.required else f"[{m}]" for m, p in zip(metavars, arguments, strict=True))])
        lines.extend([f"### `{usage}`", "", (command.help or "").strip(), ""])
        rows = [
            (", ".join(f"`{option}`" for option in p.opts), (p.help or "").strip(), default(p))
            for p in command.params
            if p.param_type_name == "option" and p.name != "help"
        ]
        if rows:
            lines.extend(["| option | | default |", "| --- | --- | --- |"])
            lines.extend(f"| {names} | {text} | {value} |" for names, text, value in rows)
            lines.append("")

    def default(parameter: typer.core.TyperOption) -> str:
        value = parameter.default
        return "" if value in (None, False, [], ()) or callable(value) else f"`{value}`"

    describe(typer.main.get_command(app), "stellwerk")
    return "\n".join(lines).strip()


def test_the_page_of_commands_tells_the_truth():
    text = PAGE.read_text()
    current = re.search(f"{BEGIN}\n\n(.*)\n\n{END}", text, re.DOTALL)
    assert current is not None
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(text[: current.start(1)] + reference() + text[current.end(1) :])
        return
    assert current[1] == reference(), "run the test again with UPDATE_DOCS=1"


def test_every_command_and_option_has_a_help_text():
    for line in reference().splitlines():
        if line.startswith("| `"):
            assert line.split("|")[2].strip(), line
