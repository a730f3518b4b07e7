"""The builder in a real browser: a workflow is built, mended and published, by mouse and by keyboard alone."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine

pytestmark = pytest.mark.one_server

Database = psycopg.Connection[Any]


def document_of(db: Database, slug: str) -> dict[str, Any]:
    """The newest version's document."""
    row = db.execute(
        "select d.document from stellwerk.workflow w join stellwerk.workflow_version d using (tenant_id, workflow_id)"
        " where w.slug = %s order by d.version desc limit 1",
        [slug],
    ).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0]
    return found


def edges_of(document: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(edge["from"], edge.get("port", "next"), edge["to"]) for edge in document["edges"]}


def store(db: Database, document: dict[str, Any], *, publish: bool = True) -> None:
    compiled = compile_workflow(document)
    engine = Engine(db)
    engine.save_workflow(compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems])
    if publish:
        engine.publish_workflow(document["slug"])


def open_builder(page: Page, slug: str) -> None:
    page.goto(f"/workflow-builder/{slug}")
    page.wait_for_selector("html[data-ready=builder]")


def drag(page: Page, start: Any, to: tuple[float, float]) -> None:
    """As a hand does it: press, move in a few steps, let go."""
    box = start.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 30, box["y"] + 20, steps=3)
    page.mouse.move(*to, steps=5)
    page.mouse.up()


def take(page: Page, kind: str, x: float, y: float) -> None:
    """Drag a node type from the palette to a place of the canvas."""
    entry = page.locator(f'.palette .kind[data-type="{kind}"]')
    entry.scroll_into_view_if_needed()
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    drag(page, entry, (box["x"] + x, box["y"] + y))


def connect(page: Page, source: str, port: str, target: str) -> None:
    """Draw an edge from a port to a node."""
    box = page.locator(f"#node-{target}").bounding_box()
    assert box is not None
    drag(page, page.locator(f'#node-{source} .port[data-port="{port}"]'), (box["x"] + 30, box["y"] + 25))


def saved(page: Page) -> None:
    expect(page.locator(".saved")).to_have_text("Saved")


def make(page: Page, name: str) -> None:
    """A new workflow with a manual start, from the list of workflows."""
    page.goto("/workflows")
    page.get_by_role("link", name="New workflow").first.click()
    page.get_by_role("textbox", name="Name").fill(name)
    page.get_by_role("button", name="Open the builder").click()
    page.wait_for_selector("html[data-ready=builder]")


def test_a_workflow_is_built_by_mouse(page: Page, db: Database) -> None:
    make(page, "Große Bestellung")
    expect(page.locator("#node-start")).to_be_visible()
    take(page, "logic.if", 180, 250)
    take(page, "log.write", 420, 120)
    take(page, "logic.stop", 420, 480)
    connect(page, "start", "next", "if")
    connect(page, "if", "true", "write")
    connect(page, "if", "false", "stop")
    # What is missing is marked on the card, in the foot and below the field.
    expect(page.locator("#node-if")).to_have_class("node has-errors")
    expect(page.locator("#foot")).to_contain_text("2 problems")
    page.locator("#node-if").click()
    expect(page.locator('[data-error="config.condition"]')).to_contain_text("condition is missing")
    condition = page.get_by_label("Condition")
    condition.fill("trigger.payload.total >")
    expect(page.locator('[data-error="config.condition"]')).to_contain_text("cannot be read")
    condition.fill("trigger.payload.total > 1000")
    expect(page.locator('[data-error="config.condition"]')).to_be_empty()
    page.locator("#foot .problem").first.click()
    expect(page.get_by_label("Message")).to_be_focused()
    page.get_by_label("Message").fill("{{ trigger.payload.total }} Euro")
    expect(page.locator("#foot")).to_contain_text("No problems")
    saved(page)
    document = document_of(db, "grosse-bestellung")
    assert edges_of(document) == {("start", "next", "if"), ("if", "true", "write"), ("if", "false", "stop")}
    page.get_by_role("button", name="Publish").click()
    page.get_by_role("button", name="Publish version 1").click()
    expect(page.locator("#notices")).to_contain_text("Version 1 is published")
    assert db.execute("select active_version from stellwerk.workflow").fetchone() == (1,)
    # Taking back and again.
    page.locator("#node-write").click()
    page.keyboard.press("Delete")
    expect(page.locator("#node-write")).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(page.locator("#node-write")).to_be_visible()
    assert edges_of(document_of(db, "grosse-bestellung")) == edges_of(document)


def test_the_same_by_keyboard_alone(page: Page, db: Database) -> None:
    page.goto("/workflow-builder")
    page.keyboard.type("Kleine Bestellung")  # the name has the focus
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-ready=builder]")
    page.locator("#canvas").focus()
    for words in ("logic.if", "log.write"):
        page.keyboard.press("/")
        page.keyboard.type(words)
        page.keyboard.press("Enter")
    expect(page.locator("#node-write")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")  # to its settings
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Message")).to_be_focused()
    page.keyboard.type("{{ trig")
    expect(page.locator("#completion")).to_be_visible()
    page.keyboard.press("Enter")  # trigger.
    page.keyboard.press("Enter")  # payload
    expect(page.get_by_label("Message")).to_have_value("{{ trigger.payload }}")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#canvas")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#node-if")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("trigger.payload.total > 5")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    # A third step, connected by its name.
    page.keyboard.press("a")
    page.keyboard.type("logic.stop")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("c")
    expect(page.get_by_label("Leaves by")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    page.keyboard.press("Control+s")
    saved(page)
    document = document_of(db, "kleine-bestellung")
    assert ("start", "next", "if") in edges_of(document)
    assert ("if", "true", "write") in edges_of(document)
    assert ("if", "false", "stop") in edges_of(document)
    expect(page.locator("#foot")).to_contain_text("No problems")
    page.get_by_role("button", name="Publish").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Publish version 1").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("Version 1 is published")
    assert json.dumps(document_of(db, "kleine-bestellung"))
