"""Drafts, publishing, rolling back; published versions never change."""

from __future__ import annotations

import pytest
from database.helpers import START, document, refused, run, start, transform
from psycopg.types.json import Jsonb


def linear(output):
    return document("linear", [START, transform("end", output)], ["start -> end"])


def test_saving_makes_one_draft_and_publishing_freezes_it(db, make_workflow):
    make_workflow(linear(1), publish=False)
    make_workflow(linear(2), publish=False)
    assert db.execute("select version, published_at is null from stellwerk.workflow_version").fetchall() == [(1, True)]
    assert db.execute("select stellwerk.publish_workflow('linear')").fetchone() == (1,)
    make_workflow(linear(3), publish=False)
    assert db.execute("select version, published_at is null from stellwerk.workflow_version order by 1").fetchall() == [
        (1, False),
        (2, True),
    ]


def test_a_published_version_never_changes(db, make_workflow):
    make_workflow(linear(1))
    for statement in (
        "update stellwerk.workflow_version set document = '{}'",
        "delete from stellwerk.workflow_version",
        "update stellwerk.plan_node set type = 'logic.stop'",
        "delete from stellwerk.plan_node",
    ):
        refused(db, "SW003", statement)


def test_runs_keep_the_version_they_started_with(db, make_workflow, run_all):
    make_workflow(linear(1))
    old = start(db, "linear")
    make_workflow(linear(2))
    new = start(db, "linear")
    run_all(db)
    assert [(run(db, r)["version"], run(db, r)["output"]) for r in (old, new)] == [(1, 1), (2, 2)]


def test_rolling_back_publishes_the_old_document_as_a_new_version(db, make_workflow, run_all):
    make_workflow(linear(1))
    make_workflow(linear(2))
    assert db.execute("select stellwerk.rollback_workflow('linear', 1)").fetchone() == (3,)
    run_id = start(db, "linear")
    run_all(db)
    assert (run(db, run_id)["version"], run(db, run_id)["output"]) == (3, 1)


def test_wrong_moves_are_refused_with_the_way_out(db, make_workflow):
    make_workflow(linear(1))
    assert "no draft" in refused(db, "SW003", "select stellwerk.publish_workflow('linear')").message_primary
    make_workflow(linear(2), publish=False)
    refused(db, "SW005", "select stellwerk.publish_workflow('linear', 7)")
    refused(db, "SW003", "select stellwerk.rollback_workflow('linear', 1)")
    assert db.execute("select stellwerk.discard_draft('linear')").fetchone() == (True,)
    refused(db, "SW005", "select stellwerk.rollback_workflow('linear', 9)")
    assert "linear" in refused(db, "SW001", "select stellwerk.publish_workflow('liner')").message_hint


def test_a_document_with_errors_is_a_draft_that_cannot_be_published(db, engine):
    from stellwerk.definition.compile import compile_workflow

    compiled = compile_workflow(
        document(
            "bad",
            [START, {"id": "x", "type": "logic.if", "config": {"condition": "steps.nope.output = 1"}}],
            ["start -> x"],
        )
    )
    problems = [p.as_json() for p in compiled.problems]
    assert problems
    engine.save_workflow(compiled.document, compiled.plan, problems)
    diag = refused(db, "SW006", "select stellwerk.publish_workflow('bad')")
    assert "nodes[1].config.condition" in diag.message_detail


def test_node_types_of_a_later_release_are_never_half_run(db, engine):
    from stellwerk.definition.compile import compile_workflow

    compiled = compile_workflow(document("later", [START, {"id": "w", "type": "trigger.workflow"}], []))
    # Even without the compiler's word for it.
    engine.save_workflow(compiled.document, compiled.plan, [])
    diag = refused(db, "SW006", "select stellwerk.publish_workflow('later')")
    assert "trigger.workflow is not available" in diag.message_detail
    refused(db, "SW001", "select stellwerk.start_run('later')")


@pytest.mark.parametrize("slug", ["", "Upper", "a b", "x'; drop schema stellwerk cascade; --", "1st", None])
def test_odd_slugs_are_refused(db, slug):
    refused(db, "SW006", "select * from stellwerk.save_workflow(%s, '[]', '[]')", Jsonb({"slug": slug}))
