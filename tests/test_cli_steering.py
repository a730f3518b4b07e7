"""The commands with which people steer runs, as one would type them."""

from __future__ import annotations

import json

import pytest
from database.helpers import START, document, node, transform

pytestmark = pytest.mark.one_server


@pytest.fixture
def waiting(make_workflow):
    """A workflow that divides, waits for a signal, and can undo its first step."""
    return make_workflow(
        document(
            "steer",
            [
                START,
                transform("half", "{{ trigger.payload.n / vars.by }}", compensate="undo"),
                node("by", "logic.set", {"values": {"by": "{{ coalesce(trigger.payload.by, 2) }}"}}),
                node("answer", "logic.wait", {"event": "answer", "correlation": "{{ trigger.payload.key }}"}),
                transform("sum", "{{ steps.half.output + steps.answer.output.n }}"),
                transform("undo", "undone"),
            ],
            ["start -> by", "by -> half", "half -> answer", "answer -> sum"],
        )
    )


@pytest.fixture
def begun(stellwerk, db, dsn, run_all, waiting):
    """Start it with a payload; answers the run's number as text."""

    def begin(payload):
        status, out, err = stellwerk("run", "start", waiting, "--payload", json.dumps(payload), dsn=dsn)
        assert status == 0, err
        run_all(db)
        return out.strip()

    return begin


def shown(stellwerk, run_id):
    return json.loads(stellwerk("run", "show", run_id, "--json")[1])


def test_pause_signal_resume(stellwerk, db, run_all, begun):
    run_id = begun({"n": 4, "key": "k"})
    assert stellwerk("run", "pause", run_id)[:2] == (0, f"Run {run_id} is paused.\n")
    assert stellwerk("signal", "answer", "k", "--payload", '{"n": 5}')[1] == "1 run is woken.\n"
    run_all(db)
    assert shown(stellwerk, run_id)["state"] == "paused"
    assert stellwerk("run", "resume", run_id)[1].startswith(f"Run {run_id} is ")
    run_all(db)
    assert (shown(stellwerk, run_id)["state"], shown(stellwerk, run_id)["output"]) == ("completed", 7)
    assert json.loads(stellwerk("signal", "answer", "k", "--json")[1]) == {"woken": 0}
    assert "kept" in stellwerk("signal", "answer", "k2", "--dedupe-key", "d")[1]


def test_edit_and_retry(stellwerk, db, run_all, begun):
    run_id = begun({"n": 6, "by": 0, "key": "k"})
    assert shown(stellwerk, run_id)["state"] == "failed"
    status, plan, _ = stellwerk("run", "retry", run_id, "--dry-run", "--json")
    assert status == 0
    assert [row["node_id"] for row in json.loads(plan)] == ["half", "answer", "sum"]
    assert stellwerk("run", "edit", run_id, "--vars", '{"by": 3}', "--payload", '{"n": 6, "key": "k"}')[0] == 0
    assert stellwerk("run", "retry", run_id)[0] == 0
    run_all(db)
    assert shown(stellwerk, run_id)["state"] == "waiting"
    assert stellwerk("run", "cancel", run_id, "--reason", "enough", "--compensate")[0] == 0
    run_all(db)
    run = shown(stellwerk, run_id)
    assert (run["state"], [s["node_id"] for s in run["steps"]][-1]) == ("cancelled", "undo")
    assert stellwerk("run", "retry", run_id, "--from", "start")[0] == 0
    run_all(db)
    assert shown(stellwerk, run_id)["state"] == "waiting"


def test_skip(stellwerk, db, run_all, begun):
    run_id = begun({"n": 8, "key": "k"})
    step = next(s["step_id"] for s in shown(stellwerk, run_id)["steps"] if s["node_id"] == "answer")
    status, _, err = stellwerk("run", "skip", run_id, step, "--port", "nowhere")
    assert (status, "nowhere" in err) == (1, True)
    assert stellwerk("run", "skip", run_id, step, "--output", '{"n": 1}')[0] == 0
    run_all(db)
    assert shown(stellwerk, run_id)["output"] == 5


@pytest.mark.parametrize(
    "arguments", [["signal", "answer", ""], ["signal", "", "k"], ["signal", "a", "k", "--payload", "{"]]
)
def test_bad_signals_are_refused_in_one_sentence(stellwerk, dsn, arguments):
    status, out, err = stellwerk(*arguments, dsn=dsn)
    assert status in {1, 2}
    assert (out, "Traceback" in err, bool(err.strip())) == ("", False, True)
