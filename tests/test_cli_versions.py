"""Versions on the command line: what differs, and runs that move from one to another."""

from __future__ import annotations

import json

import pytest
from database.helpers import START, call, document, node, run, start, transform

from stellwerk.cli import execute


@pytest.fixture
def stellwerk(monkeypatch, capfd, dsn):
    """Run a command in this process; answers exit status, standard output and standard error."""
    monkeypatch.setenv("DATABASE_URL", dsn)

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        status = execute(list(arguments))
        out, err = capfd.readouterr()
        return status, out, err

    return run


def version(ask="ask", text="old", *more):
    nodes = [START, call(ask), transform("end", text), *more]
    return document("offer", nodes, [f"start -> {ask}", f"{ask} -> end"])


@pytest.mark.one_server
def test_differences_are_told_by_node_and_field(stellwerk, make_workflow):
    make_workflow(version())
    new = version("phone", "{{ steps.phone.output }}", node("note", "log.write", {"message": "m"}))
    new["settings"] = {"priority": 3}
    new["nodes"][1]["ui"] = {"x": 1, "y": 2}
    new["edges"].append({"from": "end", "to": "note"})
    make_workflow(new, publish=False)
    status, out, _ = stellwerk("workflow", "diff", "offer", "1", "2")
    assert (status, out) == (
        0,
        "workflow\n"
        "  + settings.priority: 3\n"
        "node phone, which seems to be what ask was\n"
        "node end\n"
        "  ~ config.output: old → {{ steps.phone.output }}\n"
        "+ node note (log.write)\n"
        "edges\n"
        "  + end → note\n"
        "drawn elsewhere: phone\n",
    )
    rows = json.loads(stellwerk("workflow", "diff", "offer", "1", "2", "--json")[1])
    assert [(row["kind"], row["node_id"], row["field"]) for row in rows] == [
        ("setting", None, "settings.priority"),
        ("node_renamed", "phone", None),
        ("layout", "phone", "ui"),
        ("expression", "end", "config.output"),
        ("node_added", "note", None),
        ("edge_added", "end", "next"),
    ]
    assert stellwerk("workflow", "diff", "offer", "1", "1")[1] == "offer versions 1 and 1 mean the same.\n"


@pytest.mark.one_server
def test_runs_are_moved_and_moved_back(stellwerk, db, make_workflow, run_all):
    make_workflow(version())
    runs = [start(db, "offer") for _ in range(3)]
    run_all(db)
    make_workflow(version("phone", "new"))
    status, out, _ = stellwerk("workflow", "migrate-runs", "offer", "1", "2")
    assert (status, out) == (
        0,
        "taken for renamed: ask → phone (--map says otherwise)\n3 ok\nNothing was changed: add --apply to move them.\n",
    )
    assert {run(db, each)["version"] for each in runs} == {1}
    status, out, err = stellwerk("workflow", "migrate-runs", "offer", "1", "2", "--apply", "--batch", "2")
    assert (status, out) == (
        0,
        "taken for renamed: ask → phone (--map says otherwise)\n"
        "3 moved\n"
        "Undo, while they have not moved on: stellwerk workflow undo-migration 1 --apply\n",
    )
    assert err == "2 runs moved\n3 runs moved\n"
    assert {run(db, each)["version"] for each in runs} == {2}
    again = stellwerk("workflow", "migrate-runs", "offer", "1", "2", "--apply")
    assert again[1].endswith("No live run of offer is on version 1.\n")
    db.execute("select stellwerk.cancel_run(%s)", [runs[1]])
    assert stellwerk("workflow", "undo-migration", "1")[1] == (
        f"2 ok, 1 blocked\nblocked: the run has ended as cancelled (run {runs[1]})\n"
        "Nothing was changed: add --apply to move them back.\n"
    )
    status, out, _ = stellwerk("workflow", "undo-migration", "1", "--apply", "--batch", "1")
    assert out == f"2 moved back, 1 blocked\nblocked: the run has ended as cancelled (run {runs[1]})\n"
    assert [run(db, each)["version"] for each in runs] == [1, 2, 1]


@pytest.mark.one_server
def test_verdicts_are_counted_and_each_reason_is_told_once(stellwerk, db, make_workflow, run_all):
    make_workflow(version())
    runs = [start(db, "offer") for _ in range(5)]
    run_all(db)
    new = version("phone", "new", call("fax"))
    new["edges"].append({"from": "end", "to": "fax"})
    make_workflow(new)
    status, out, _ = stellwerk("workflow", "migrate-runs", "offer", "1", "2", "--map", "ask=")
    assert (status, out) == (
        0,
        "5 needs map\n"
        "needs map: node ask (action.fonio_call) has no counterpart in version 2; it may be phone, fax"
        f" (runs {runs[0]}, {runs[1]}, {runs[2]} and 2 more)\n",
    )
    rows = json.loads(
        stellwerk("workflow", "migrate-runs", "offer", "1", "2", "--map", "ask=fax", "--apply", "--json")[1]
    )
    assert [(row["run_id"], row["verdict"], row["mapping"], row["migration_id"]) for row in rows] == [
        (str(each), "ok", {"ask": "fax"}, "1") for each in runs
    ]
    undone = json.loads(stellwerk("workflow", "undo-migration", "1", "--json")[1])
    assert [(row["run_id"], row["verdict"]) for row in undone] == [(str(each), "ok") for each in runs]


@pytest.mark.one_server
def test_wrong_use_is_said_in_a_sentence(stellwerk, make_workflow):
    make_workflow(version())
    for arguments, expected in (
        (["workflow", "diff", "offer", "1", "7"], 1),
        (["workflow", "diff", "nothing", "1", "2"], 1),
        (["workflow", "migrate-runs", "offer", "1", "1"], 1),
        (["workflow", "migrate-runs", "offer", "1", "2", "--map", "ask"], 2),
        (["workflow", "migrate-runs", "offer", "1"], 2),
        (["workflow", "undo-migration", "9"], 1),
    ):
        status, out, err = stellwerk(*arguments)
        assert (status, out) == (expected, ""), arguments
        assert err.startswith("error: "), arguments
        assert "Traceback" not in err
