"""The backoffice case, notifications and log lines that workflows leave behind."""

from __future__ import annotations

import pytest
from database.helpers import START, document, node, run, start, steps


def case_of(db, run_id):
    return db.execute(
        "select payload, status, note, summary from stellwerk.backoffice_case where run_id = %s", (run_id,)
    ).fetchone()


def test_a_run_has_one_case_that_grows(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "case",
            [
                START,
                node(
                    "push",
                    "action.backoffice_push",
                    {
                        "field_map": {"name": "{{ trigger.payload.name }}"},
                        "status": "neu",
                        "summary": "Anfrage von {{ trigger.payload.name }}",
                    },
                ),
                node("more", "action.backoffice_push", {"field_map": {"phone": "030"}}),
                node("done", "action.backoffice_status_update", {"status": "vollständig", "note": "alles da"}),
            ],
            ["start -> push", "push -> more", "more -> done"],
        )
    )
    run_id = start(db, slug, {"name": "Ada"})
    run_all(db)
    assert case_of(db, run_id) == ({"name": "Ada", "phone": "030"}, "vollständig", "alles da", "Anfrage von Ada")
    outputs = {s["node_id"]: s["output"] for s in steps(db, run_id)}
    assert outputs["push"]["created"] is True
    assert outputs["more"] == {"case_id": outputs["push"]["case_id"], "created": False}
    assert outputs["done"] == {"case_id": outputs["push"]["case_id"], "status": "vollständig"}
    history = db.execute("select status, actor from stellwerk.case_history order by history_id").fetchall()
    assert history == [("neu", f"run:{run_id}"), ("neu", f"run:{run_id}"), ("vollständig", f"run:{run_id}")]


@pytest.mark.parametrize(
    ("documents", "status"), [(["a", "b"], "vollständig"), (["a"], "nachreichen"), (None, "nachreichen")]
)
def test_a_condition_chooses_between_complete_and_missing(db, make_workflow, run_all, documents, status):
    config = {
        "complete_when": "length(trigger.payload.documents) >= 2",
        "status_complete": "vollständig",
        "status_missing": "nachreichen",
    }
    slug = make_workflow(
        document("status", [START, node("set", "action.backoffice_status_update", config)], ["start -> set"])
    )
    run_id = start(db, slug, {"documents": documents})
    run_all(db)
    assert case_of(db, run_id)[1] == status


def test_a_drop_folder_is_an_order_for_a_worker(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "drop",
            [
                START,
                node(
                    "push", "action.backoffice_push", {"field_map": {"b": "=1+1", "a": 5}, "drop_folder": "/somewhere"}
                ),
            ],
            ["start -> push"],
        )
    )
    run_id = start(db, slug)
    run_all(db)
    assert run(db, run_id)["state"] == "completed", "the run does not wait for the file"
    (export_id,) = db.execute("select export_id from stellwerk.case_export where state = 'queued'").fetchone()
    assert db.execute("select count(*) from stellwerk_queue.pgqueuer where entrypoint = 'case.export'").fetchone() == (
        1,
    )
    folder, name, columns, cells = db.execute(
        "select * from stellwerk.begin_case_export(1, %s)", (export_id,)
    ).fetchone()
    assert folder == "/somewhere"
    assert name == f"case-1-{export_id}.csv"
    assert dict(zip(columns, cells, strict=True))["b"] == "=1+1"
    assert columns[-2:] == ["a", "b"]
    db.execute("select stellwerk.end_case_export(1, %s, 'disk full')", (export_id,))
    assert db.execute("select state, error from stellwerk.case_export").fetchone() == ("queued", "disk full")
    db.execute("select stellwerk.end_case_export(1, %s, null)", (export_id,))
    assert db.execute("select state from stellwerk.case_export").fetchone() == ("written",)
    assert db.execute("select count(*) from stellwerk.begin_case_export(1, %s)", (export_id,)).fetchone() == (0,)


def test_logs_and_notifications_are_rows(db, make_workflow, run_all):
    slug = make_workflow(
        document(
            "notes",
            [
                START,
                node("line", "log.write", {"message": "hello {{ trigger.payload.who }}", "data": {"n": 1}}),
                node("bad", "log.error", {"message": "oh"}),
                node(
                    "tell",
                    "notification.create",
                    {"recipient": "role:staff", "title": "Neu", "body": "{{ trigger.payload.who }}"},
                ),
            ],
            ["start -> line", "line -> bad", "bad -> tell"],
        )
    )
    start(db, slug, {"who": "<script>"})
    run_all(db)
    assert db.execute("select level, message, data from stellwerk.run_log order by log_id").fetchall() == [
        ("info", "hello <script>", {"n": 1}),
        ("error", "oh", None),
    ]
    assert db.execute("select recipient, title, body from stellwerk.notification").fetchall() == [
        ("role:staff", "Neu", "<script>")
    ]
