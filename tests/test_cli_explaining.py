"""The commands that say why runs are as they are, and that steer many at once, as one would type them."""

from __future__ import annotations

import json

import pytest
from database.helpers import PERMANENT, START, Worker, call, document, node, start, transform

pytestmark = pytest.mark.one_server


@pytest.fixture
def waits(make_workflow):
    return make_workflow(
        document(
            "waits",
            [
                START,
                node("hold", "logic.wait", {"event": "paid", "correlation": "{{ trigger.payload.key }}"}),
                transform("end", "{{ trigger.payload.key }}"),
            ],
            ["start -> hold", "hold -> end"],
        )
    )


@pytest.fixture
def waiting(db, waits, run_all):
    run_ids = [start(db, waits, {"key": f"k{number}"}) for number in range(3)]
    run_all(db)
    return run_ids


def test_explain_prints_reasons_and_on_request_what_they_follow_from(stellwerk, dsn, waiting):
    status, out, _ = stellwerk("run", "explain", str(waiting[0]), dsn=dsn)
    assert status == 0
    assert out.startswith(
        f" 1  Run {waiting[0]} is waiting: step hold (logic.wait) waits for the event paid with the correlation k0, since "
    )
    _, out, _ = stellwerk("run", "explain", str(waiting[0]), "--evidence")
    assert "      correlation: k0\n" in out
    rows = json.loads(stellwerk("run", "explain", str(waiting[0]), "--json")[1])
    assert (rows[0]["position"], rows[0]["node_id"], rows[0]["evidence"]["event"]) == (1, "hold", "paid")
    why = json.loads(stellwerk("run", "why", str(waiting[0]), "--json")[1])["why"]
    assert why == rows[0]["reason"]


def test_state_shows_an_earlier_time(stellwerk, db, dsn, waiting, run_all):
    (at,) = db.execute("select clock_timestamp()").fetchone()
    db.execute("select stellwerk.signal('paid', 'k0')")
    run_all(db)
    status, out, _ = stellwerk("run", "state", str(waiting[0]), "--at", at.isoformat(), dsn=dsn)
    assert status == 0
    lines = [line.split()[:2] for line in out.splitlines()]
    assert lines == [["node_id", "state"], ["(the", "run)"], ["start", "completed"], ["hold", "waiting"]]
    rows = json.loads(stellwerk("run", "state", str(waiting[0]), "--at", at.isoformat(), "--json")[1])
    assert [(row["node_id"], row["state"]) for row in rows] == [
        (None, "waiting"),
        ("start", "completed"),
        ("hold", "waiting"),
    ]
    assert (
        stellwerk("run", "state", str(waiting[0]), "--at", "P1DT2H3M4S")[1]
        == f"Run {waiting[0]} had not been asked for then.\n"
    )
    for wrong in ("soon", "P", "PT"):
        assert stellwerk("run", "state", str(waiting[0]), "--at", wrong)[0] == 2


def test_diff_shows_where_two_runs_differ(stellwerk, db, dsn, waiting, run_all):
    db.execute("select stellwerk.signal('paid', 'k0')")
    run_all(db)
    a, b = str(waiting[0]), str(waiting[1])
    status, out, _ = stellwerk("run", "diff", a, b, dsn=dsn)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["state", "payload", "parted", "step"]
    kinds = [row["kind"] for row in json.loads(stellwerk("run", "diff", a, b, "--json")[1])]
    assert kinds[:3] == ["state", "payload", "parted"]
    assert stellwerk("run", "diff", a, "99")[0] == 1


def test_trouble_is_listed(stellwerk, db, dsn, make_workflow, run_all):
    assert stellwerk("run", "stuck", dsn=dsn)[1] == "No run is stuck.\n"
    assert stellwerk("run", "failures")[1] == "No run has failed.\n"
    assert stellwerk("run", "dead-letters")[1] == "There is none.\n"
    slug = make_workflow(document("ring", [START, call("ring")], ["start -> ring"]))
    failed, stuck = start(db, slug), start(db, slug)
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin([ref for ref in worker.queued() if ref[0] == failed]), error=PERMANENT)
    worker.vanish()
    db.execute("update stellwerk.step set queued_at = queued_at - interval '1 hour' where run_id = %s", (stuck,))
    (row,) = json.loads(stellwerk("run", "failures", "--json")[1])
    assert (row["node_id"], row["failures"], row["message"]) == ("ring", 1, "it will never work")
    (row,) = json.loads(stellwerk("run", "dead-letters", "--json")[1])
    assert (row["run_id"], row["retry"]) == (str(failed), f"select stellwerk.retry_run({failed});")
    (row,) = json.loads(stellwerk("run", "stuck", "--json")[1])
    assert row["run_id"] == str(stuck)
    for command in ("stuck", "failures", "dead-letters"):
        assert "ring" in stellwerk("run", command)[1]


def test_a_bulk_operation_is_counted_begun_held_and_stopped(stellwerk, db, dsn, waiting):
    assert stellwerk("bulk", "list", dsn=dsn)[1] == "There is none.\n"
    status, out, _ = stellwerk("bulk", "start", "cancel", "--workflow", "waits", "--rate", "1")
    assert (status, out) == (0, "Bulk operation 1 would cancel 3 runs: `stellwerk bulk begin 1` begins it.\n")
    assert stellwerk("bulk", "begin", "1")[1] == "Bulk operation 1 is running, 0 of 3 runs handled.\n"
    assert stellwerk("bulk", "pause", "1")[1] == "Bulk operation 1 is paused, 0 of 3 runs handled.\n"
    assert stellwerk("bulk", "resume", "1")[1] == "Bulk operation 1 is running, 0 of 3 runs handled.\n"
    db.execute("update stellwerk.bulk_operation set worked_at = worked_at - interval '1.5 seconds'")
    db.execute("select stellwerk.tick()")
    assert (
        stellwerk("bulk", "stop", "1", "--reason", "enough")[1]
        == "Bulk operation 1 is cancelled, 1 of 3 runs handled.\n"
    )
    status, out, err = stellwerk("bulk", "resume", "1")
    assert (status, out) == (1, "")
    assert err.startswith("error: bulk operation 1 is cancelled\n")
    assert "cancel" in stellwerk("bulk", "list")[1]
    row = json.loads(stellwerk("bulk", "show", "1", "--json")[1])
    assert (row["state"], row["reason"], row["done"], row["trouble"]) == ("cancelled", "enough", 1, [])
    assert [entry["state"] for entry in row["history"]] == ["draft", "running", "paused", "running", "cancelled"]


def test_a_bulk_operation_shows_what_it_passed_over(stellwerk, db, dsn, waiting, run_all):
    status, out, _ = stellwerk(
        "bulk", "start", "skip", "--filter", json.dumps({"run_ids": waiting}), "--node", "hold", "--options", '{"port": "gone"}', "--stop-on-error", "0.5", "--go",
        dsn=dsn,
    )  # fmt: skip
    assert (status, out) == (0, "Bulk operation 1 will skip 3 runs.\n")
    db.execute("select stellwerk.tick()")
    out = stellwerk("bulk", "show", "1")[1]
    assert out.startswith("Bulk operation 1: skip 3 runs, completed\n")
    assert "no edge leaves node hold by port 'gone'" in out
    (row,) = json.loads(stellwerk("bulk", "list", "--json")[1])
    assert (row["operation_id"], row["skipped"], row["action"]) == ("1", 3, "skip")
    status, out, _ = stellwerk("bulk", "start", "pause", "--workflow", "waits", "--json")
    assert json.loads(out)["state"] == "draft"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["bulk", "start", "erase"], 2),
        (["bulk", "start", "cancel", "--filter", "[]"], 2),
        (["bulk", "start", "cancel"], 1),
        (["bulk", "start", "cancel", "--rate", "0", "--workflow", "waits"], 2),
        (["bulk", "show", "9"], 1),
        (["bulk", "begin", "9"], 1),
        (["run", "explain", "99"], 1),
        (["run", "state", "99", "--at", "PT1H"], 1),
    ],
)
def test_what_makes_no_sense_is_told_in_a_sentence(stellwerk, dsn, arguments, status):
    result = stellwerk(*arguments, dsn=dsn)
    assert (result[0], result[1]) == (status, "")
    assert result[2].startswith("error: ")
    assert "Traceback" not in result[2]
