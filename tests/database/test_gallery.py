"""Every workflow of the gallery does with its sample event what it promises."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from database import clock
from database.helpers import Worker

from stellwerk import gallery, resources
from stellwerk.definition.compile import compile_workflow

Connection = psycopg.Connection[Any]

ACTORS = ("one@example.org", "two@example.org")


@pytest.mark.parametrize("slug", gallery.templates())
def test_a_template_runs_with_its_sample_to_the_end_that_it_promises(
    slug: str, dsn: str, db: Connection, make_workflow: Callable[..., str], run_all: Callable[..., int]
) -> None:
    template = gallery.template(slug)
    make_workflow(template.document)
    for actor in ACTORS:
        db.execute("select stellwerk.add_user(%s, 'admin')", [actor])
    payload = template.sample.fresh_payload(datetime.datetime.now(datetime.UTC))
    run_id = value(db, "select stellwerk.start_run(%s, %s::jsonb)", [slug, psycopg.types.json.Jsonb(payload)])
    worker = Worker(dsn, types=("action.fonio_call", "action.esign_request", "http.request"))
    turns = itertools.cycle(ACTORS)
    settle(db, worker, run_all)
    shift = datetime.timedelta()
    for step in template.sample.steps:
        if "task" in step:
            complete_a_task(dsn, next(turns), step)
        elif "signal" in step:
            db.execute(
                "select stellwerk.signal(%s, %s, %s::jsonb)",
                [step["signal"], step["correlation"], psycopg.types.json.Jsonb(step.get("payload", {}))],
            )
        else:
            shift += gallery.duration(step["pass"])
            clock.shift(db, shift)
            clock.shift(worker.connection, shift)
            clock.tick(db)
        settle(db, worker, run_all)
    state, why = row(
        db, "select r.state, stellwerk.why(r.run_id) from stellwerk.run_overview r where r.run_id = %s", [run_id]
    )
    assert state == template.expect["state"], why
    nodes = [node for (node,) in db.execute(
        "select node_id from stellwerk.step_timeline where run_id = %s and state <> 'cancelled' order by step_id", [run_id])]  # fmt: skip
    if "nodes" in template.expect:
        assert sorted(nodes) == sorted(template.expect["nodes"])
    if "case" in template.expect:
        assert (
            value(db, "select status from stellwerk.backoffice_case where run_id = %s", [run_id])
            == template.expect["case"]
        )


def test_there_are_templates_of_many_kinds_in_both_languages() -> None:
    found = gallery.templates().values()
    assert len(found) >= 10
    assert len({template.group for template in found}) >= 5
    for template in found:
        assert set(template.title) == set(template.summary) == {"en", "de"}
        assert not compile_workflow(template.document).problems, template.slug


def test_the_page_about_the_gallery_names_every_template() -> None:
    page = (resources.folder("examples").parent / "docs" / "gallery.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \|", page, re.MULTILINE)
    assert rows == [(template.slug, template.group) for template in gallery.templates().values()]


def test_a_name_that_is_taken_gets_a_number() -> None:
    template = gallery.template("onboarding")
    assert template.document_as(set())["slug"] == "onboarding"
    assert template.document_as({"onboarding", "onboarding-2"})["slug"] == "onboarding-3"


def settle(db: Connection, worker: Worker, run_all: Callable[..., int]) -> None:
    """Until nothing moves: effects succeed, but for calls to addresses that do not exist."""
    run_all(db)
    while taken := worker.begin():
        for each in taken:
            if each["type"] == "http.request":
                worker.end(each, error={"class": "connection", "message": "no such host", "retryable": False})
            else:
                worker.end(each, output={"logged": True})
        run_all(db)


def complete_a_task(dsn: str, actor: str, step: dict[str, Any]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("set role stellwerk_web")
        connection.execute("select set_config('stellwerk.actor', %s, false)", [actor])
        task_id = value(
            connection, "select task_id from stellwerk.user_task where state in ('open', 'claimed') order by task_id"
        )
        connection.execute(
            "select stellwerk.complete_task(%s, %s::jsonb, %s)",
            [task_id, psycopg.types.json.Jsonb(step.get("result", {})), step["task"]],
        )


def row(db: Connection, query: str, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    found = db.execute(query, parameters).fetchone()
    assert found is not None
    return found


def value(db: Connection, query: str, parameters: list[Any] | None = None) -> Any:
    return row(db, query, parameters)[0]
