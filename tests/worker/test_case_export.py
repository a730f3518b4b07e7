"""The CSV file of a case: written after the commit, once the worker gets to it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from worker.puppet import Counted


def test_a_pushed_case_becomes_a_file(
    make_workflow, engine, start_worker, state_of, wait_until, db, tmp_path: Path
) -> None:
    folder = tmp_path / "drop"
    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {
            "id": "push",
            "type": "action.backoffice_push",
            "config": {
                "field_map": {"name": "{{ trigger.payload.name }}", "sum": "{{ trigger.payload.sum }}"},
                "status": "neu",
                "drop_folder": str(folder),
            },
        },
    ]
    slug = make_workflow({"slug": "push", "name": "push", "steps": steps})
    start_worker()
    run_id = engine.start_run(slug, {"name": '=cmd|"x"', "sum": -5})
    wait_until(lambda: state_of(run_id) == "completed")
    wait_until(lambda: folder.exists() and [file for file in folder.iterdir() if file.suffix == ".csv"])
    (file,) = folder.iterdir()
    header, row = csv.reader(io.StringIO(file.read_text("utf-8"), newline=""))
    case = dict(zip(header, row, strict=True))
    assert case["name"] == '\'=cmd|"x"'
    assert case["sum"] == "-5"
    assert case["run_id"] == str(run_id)
    written = "select state, attempts, error from stellwerk.case_export"
    wait_until(lambda: db.execute(written).fetchone() == ("written", 1, None))


def test_files_are_written_while_steps_that_hang_have_every_place(
    make_workflow, chain, engine, start_worker, state_of, wait_until, tmp_path: Path
) -> None:
    folder = tmp_path / "drop"
    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {"id": "push", "type": "action.backoffice_push", "config": {"field_map": {}, "drop_folder": str(folder)}},
    ]
    slug = make_workflow({"slug": "push", "name": "push", "steps": steps})
    hanging = Counted()
    hanging.held = True
    start_worker({"action.fonio_call": hanging}, concurrency=1)
    calls = chain("calls", "ok")
    runs = [engine.start_run(calls) for _ in range(5)]
    wait_until(lambda: hanging.now == 1)
    engine.start_run(slug)
    wait_until(lambda: folder.exists() and [file for file in folder.iterdir() if file.suffix == ".csv"])
    assert hanging.begun == 1
    hanging.held = False
    wait_until(lambda: {state_of(run_id) for run_id in runs} == {"completed"})
    assert hanging.begun == 5


def test_a_folder_that_cannot_be_written_is_recorded(
    make_workflow, engine, start_worker, wait_until, db, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    config = {"field_map": {}, "drop_folder": str(tmp_path / "file" / "folder")}
    steps = [
        {"id": "start", "type": "trigger.manual", "config": {}},
        {"id": "push", "type": "action.backoffice_push", "config": config},
    ]
    slug = make_workflow({"slug": "push", "name": "push", "steps": steps})
    start_worker()
    engine.start_run(slug)
    error = "select error from stellwerk.case_export where attempts = 1"
    wait_until(lambda: "could not be written" in str(db.execute(error).fetchone()))
