"""`stellwerk case`: found, shown, changed, noted, handed out."""

from __future__ import annotations

import json

import pytest
from database.helpers import start
from database.people import ADA, users
from database.test_case_editing import pushing


@pytest.fixture
def case(db, make_workflow, run_all):
    make_workflow(pushing(config={"field_map": {"name": "{{ trigger.payload.name }}"}, "summary": "Anfrage"}))
    start(db, "intake", {"name": "=Anna"})
    run_all(db)
    users(db)
    return db


def test_cases_are_listed_shown_and_changed(stellwerk, dsn, case):
    status, out, _ = stellwerk("case", "list", dsn=dsn)
    assert status == 0
    assert out.splitlines()[0].split() == [
        *("case_id", "name", "status", "note", "assignee", "workflow", "run_id", "updated_at")
    ]
    assert out.splitlines()[1].split()[:4] == ["1", "=Anna", "neu", "intake"]
    assert stellwerk("case", "list", "--status", "offen")[1] == "There are no such cases.\n"
    assert stellwerk("case", "list", "--limit", "1")[1].endswith("… go on with --before 1\n")
    (row,) = json.loads(stellwerk("case", "list", "--search", "ann", "--json")[1])
    assert (row["case_id"], row["label"], row["version"]) == ("1", "Neu", 1)

    assert stellwerk("case", "status", "1", "offen", "--note", "ruft an", "--version", "1") == (
        0,
        "Case 1 is offen (version 2).\n",
        "",
    )
    status, _, err = stellwerk("case", "status", "1", "fertig", "--version", "1")
    assert (status, err.splitlines()[0]) == (1, "error: case 1 has changed meanwhile: it is version 2 now, not 1")
    status, _, err = stellwerk("case", "status", "1", "weg")
    assert (status, err.splitlines()[-1]) == (1, "hint: There are: neu, offen, fertig")
    assert stellwerk("case", "note", "1", "kommt morgen") == (0, "Noted in case 1.\n", "")
    assert stellwerk("case", "assign", "1", "--to", ADA)[1] == f"Case 1 is {ADA}'s (version 3).\n"
    assert stellwerk("case", "assign", "1", "--nobody")[1] == "Case 1 is nobody's (version 4).\n"
    assert stellwerk("case", "assign", "1")[0] == 2
    case.execute("select stellwerk.add_case_appointment(1, 'Besuch', '2031-05-01 10:00Z', null, 'Zimmer 3')")

    status, out, _ = stellwerk("case", "show", "1")
    lines = out.splitlines()
    assert (status, lines[0]) == (0, "case 1: =Anna")
    assert "  status: offen" in lines
    assert any(line.startswith("  appointment 1: 2031-05-01") and line.endswith("Besuch, Zimmer 3") for line in lines)
    assert any(line.endswith("db:postgres: “kommt morgen”") for line in lines)
    assert any(line.endswith("db:postgres: note – → ruft an, status neu → offen") for line in lines)
    assert any("run:1 (push): " in line for line in lines)
    shown = json.loads(stellwerk("case", "show", "1", "--json")[1])
    assert [entry["kind"] for entry in shown["history"]] == [
        *("change", "change", "note", "change", "change", "appointment")
    ]
    assert stellwerk("case", "show", "9")[0] == 1


def test_cases_are_handed_out_as_csv(stellwerk, dsn, case, tmp_path):
    file = tmp_path / "cases.csv"
    assert stellwerk("case", "export", str(file), dsn=dsn) == (0, f"1 case in {file}\n", "")
    head, row = file.read_bytes().decode().split("\r\n")[:2]
    assert head.endswith(",name")
    assert row.endswith(",'=Anna")
    status, _, err = stellwerk("case", "export", str(tmp_path / "none" / "cases.csv"))
    assert (status, err) == (
        1,
        f"error: {tmp_path / 'none' / 'cases.csv'} could not be written: No such file or directory\n",
    )
