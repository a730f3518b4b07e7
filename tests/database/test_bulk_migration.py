"""Moving all runs that fit a filter to another version: counted with verdicts, carried out in portions, undone together."""

from __future__ import annotations

import psycopg
import pytest
from database.bulk import counts, operation, order, outcomes, work
from database.helpers import call, run, start, transform
from database.migrating import version


@pytest.fixture
def moving(db, make_workflow, run_all):
    """Four runs on version 1, each at a step that version 2 has too."""
    make_workflow(version(call("ask"), transform("last", "old")))
    runs = [start(db, "offer", {"number": number}) for number in range(4)]
    run_all(db)
    make_workflow(version(call("check"), call("ask"), transform("last", "new")))
    return runs


def test_a_dry_run_says_how_many_could_move(db, moving):
    draft = operation(db, order(db, "migrate", {"workflow": "offer"}, dry_run=True, options={"version": 2}))
    assert (draft["state"], draft["total"], draft["filter"]) == ("draft", 4, {"workflow": "offer", "version": [1]})
    assert draft["verdicts"] == {"counts": {"ok": 4}, "left": [], "versions": [1]}
    assert {run(db, number)["version"] for number in moving} == {1}


def test_the_runs_are_moved_and_moved_back_together(db, moving, wait_until, engine):
    row = work(
        db, order(db, "migrate", {"run_ids": moving[:3], "workflow": "offer"}, options={"version": 2}), wait_until
    )
    assert counts(row) == {"total": 3, "done": 3, "skipped": 0, "failed": 0}
    assert [run(db, number)["version"] for number in moving] == [2, 2, 2, 1]
    found = db.execute("select migration_id, started_by, ended_at is not null from stellwerk.version_move").fetchall()
    assert [each[1:] for each in found] == [(f"{row['created_by']} (bulk operation {row['operation_id']})", True)]
    assert [each["verdict"] for each in engine.undo_migration(found[0][0], dry_run=False)] == ["ok"] * 3
    assert [run(db, number)["version"] for number in moving] == [1, 1, 1, 1]


def test_a_run_that_cannot_move_is_left_with_the_reason(db, make_workflow, run_all, wait_until):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("check"), call("other"), transform("last", "new")))
    draft = operation(db, order(db, "migrate", {"workflow": "offer"}, dry_run=True, options={"version": 2}))
    assert draft["verdicts"]["counts"] == {"needs_map": 1}
    (left,) = draft["verdicts"]["left"]
    assert (left["run_id"], left["verdict"]) == (str(run_id), "needs_map")
    assert "it may be check, other" in left["reason"]
    row = work(db, order(db, "migrate", {"workflow": "offer"}, options={"version": 2}), wait_until)
    assert counts(row) == {"total": 1, "done": 0, "skipped": 1, "failed": 0}
    chosen = {"version": 2, "node_map": {"ask": "other"}}
    mapped = work(db, order(db, "migrate", {"workflow": "offer"}, options=chosen), wait_until)
    assert outcomes(db, mapped["operation_id"]) == {run_id: "done"}
    assert run(db, run_id)["version"] == 2


@pytest.mark.parametrize(
    ("filter_", "options", "state"),
    [
        ({"state": "waiting"}, {"version": 2}, "SW002"),
        ({"workflow": "offer"}, {}, "SW002"),
        ({"workflow": "offer"}, {"version": 9}, "SW005"),
        ({"workflow": "offer"}, {"version": 2, "node_map": {"ask": "nowhere"}}, "SW002"),
        ({"workflow": "offer"}, {"version": 2, "node_map": {"ask": 1}}, "SW002"),
        ({"workflow": "offer"}, {"version": 2, "node_map": []}, "SW002"),
        ({"workflow": "offer", "state": "failed"}, {"version": 2}, "SW002"),
    ],
)
def test_what_cannot_be_moved_is_refused(db, moving, filter_, options, state):
    with pytest.raises(psycopg.Error) as refused:
        order(db, "migrate", filter_, dry_run=True, options=options)
    assert refused.value.sqlstate == state
