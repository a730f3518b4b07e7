"""The builder in a real browser: a workflow is built, mended and published, by mouse and by keyboard alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browser.building import Database, connect, document_of, edges_of, open_builder, saved, take
from playwright.sync_api import Page, expect

from stellwerk.definition.compile import compile_workflow
from stellwerk.engine import Engine

pytestmark = pytest.mark.one_server


def store(db: Database, document: dict[str, Any], *, publish: bool = True) -> None:
    compiled = compile_workflow(document)
    engine = Engine(db)
    engine.save_workflow(compiled.document, compiled.plan, [problem.as_json() for problem in compiled.problems])
    if publish:
        engine.publish_workflow(document["slug"])


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


ORDERS = {
    "slug": "orders",
    "name": "Orders",
    "input_schema": {"type": "object", "properties": {"total": {"type": "number", "title": "Total"}}},
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "big", "type": "logic.if", "name": "Big order?", "config": {"condition": "trigger.payload.total > 100"}},
        {"id": "ask", "type": "http.request", "config": {"url": "https://example.org/{{ trigger.payload.total }}"}},
        {"id": "note", "type": "log.write", "config": {"message": "small"}},
    ],
    "edges": [
        {"from": "start", "to": "big"},
        {"from": "big", "port": "true", "to": "ask"},
        {"from": "big", "port": "false", "to": "note"},
    ],
}


def test_live_values_simulation_and_a_real_run(page: Page, db: Database) -> None:
    store(db, ORDERS)
    run = Engine(db).start_run("orders", {"total": 40})
    db.execute("select stellwerk.advance(%s)", [run])
    runs = db.execute("select count(*) from stellwerk.run").fetchone()
    open_builder(page, "orders")
    page.locator("#node-big").click()
    expect(page.locator('[data-live="config.condition"]')).to_contain_text("false")
    page.get_by_label("Condition").fill("trigger.payload.total > 30")
    expect(page.locator('[data-live="config.condition"]')).to_contain_text("true")
    page.get_by_role("button", name="Simulate").click()
    page.locator("#field-payload-total").fill("500")
    page.locator("dialog").get_by_role("button", name="Simulate").click()
    # The way that was taken, and what the call would have asked for; nothing of it is kept.
    expect(page.locator("#node-ask")).to_have_attribute("data-state", "completed")
    expect(page.locator("#node-note")).to_have_class("node ghost")
    page.locator("#simulation summary").nth(2).click()
    expect(page.locator("#simulation")).to_contain_text("https://example.org/500")
    assert db.execute("select count(*) from stellwerk.run").fetchone() == runs
    assert db.execute("select count(*) from stellwerk.workflow").fetchone() == (1,)
    page.locator("#simulation").get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Run …").click()
    expect(page.locator("#field-payload-total")).to_have_value("500")
    with page.expect_request("**/runs/*") as asked:
        page.get_by_role("button", name="Start the run").click()
    started = int(asked.value.url.rsplit("/", 1)[1])
    assert db.execute("select payload from stellwerk.run where run_id = %s", [started]).fetchone() == ({"total": 500},)
    page.problems.clear()  # type: ignore[attr-defined]  # the page of runs is another's


def test_nobody_overwrites_what_somebody_else_has_saved(page: Page, db: Database) -> None:
    store(db, ORDERS, publish=False)
    open_builder(page, "orders")
    changed = json.loads(json.dumps(ORDERS))
    changed["nodes"][3]["config"]["message"] = "theirs"
    store(db, changed, publish=False)
    page.locator("#field-name").fill("Mine")
    expect(page.locator("#notices")).to_contain_text("in the meantime")
    assert document_of(db, "orders")["nodes"][3]["config"]["message"] == "theirs"
    page.problems.clear()  # type: ignore[attr-defined]  # the browser notes the refusal in its console
    page.get_by_role("button", name="Save over it").click()
    saved(page)
    assert document_of(db, "orders")["name"] == "Mine"


def test_versions_stand_side_by_side_and_one_goes_back(page: Page, db: Database) -> None:
    store(db, ORDERS)
    changed = json.loads(json.dumps(ORDERS))
    changed["nodes"][1]["config"]["condition"] = "trigger.payload.total > 200"
    changed["nodes"][3] = {"id": "end", "type": "logic.stop"}
    changed["edges"][2]["to"] = "end"
    store(db, changed)
    page.goto("/workflows/orders/versions")
    page.wait_for_selector("html[data-ready=compare]")
    expect(page.locator("#node-big")).to_have_class("node changed")
    expect(page.locator("#node-note")).to_have_class("node removed")
    expect(page.locator("#node-end")).to_have_class("node added")
    page.locator("#node-big").click()
    expect(page.locator("#changes")).to_contain_text("trigger.payload.total > 200")
    page.locator("#version-1").get_by_role("link", name="Roll back").click()
    expect(page.locator("#changes")).to_contain_text("trigger.payload.total > 200")
    page.get_by_role("button", name="Publish version 1 again").click()
    expect(page.locator("#version-3")).to_contain_text("new runs use it")
    assert document_of(db, "orders")["nodes"][1]["config"]["condition"] == "trigger.payload.total > 100"


def test_any_document_can_be_opened(page: Page, db: Database) -> None:
    """Unknown types, edges to nowhere, parts of a wrong kind: drawn as far as it goes, and kept as it is."""
    compiled = compile_workflow({"slug": "odd", "nodes": [{"id": "start", "type": "trigger.manual"}]})
    odd = {
        **compiled.document,
        "name": "<img src=x onerror=alert(1)>",
        "nodes": [
            {"id": "start", "type": "trigger.manual", "ui": {"x": "left"}},
            {
                "id": "what",
                "type": "acme.rocket",
                "name": "<script>alert(1)</script>",
                "config": {"fuel": [1, {"a": 2}]},
            },
            {"id": "what", "type": "log.write"},
            "nothing",
            {"type": "log.write"},
        ],
        "edges": [{"from": "start", "to": "what"}, {"from": "start", "to": "nowhere"}, 7],
    }
    Engine(db).save_workflow(odd, [], [])
    page.on("dialog", lambda dialog: pytest.fail("a script ran"))
    open_builder(page, "odd")
    expect(page.locator("#node-what")).to_have_class("node unknown has-errors")
    page.locator("#node-what").click()
    expect(page.get_by_label("Settings in JSON")).to_have_value(
        '{\n  "fuel": [\n    1,\n    {\n      "a": 2\n    }\n  ]\n}'
    )
    page.get_by_label("Name", exact=True).fill("Rocket")
    saved(page)
    kept = document_of(db, "odd")
    assert kept["nodes"][3] == "nothing"
    assert kept["edges"] == odd["edges"]
    assert kept["nodes"][1]["name"] == "Rocket"


def test_two_hundred_steps_stay_fluid(page: Page, db: Database) -> None:
    nodes: list[dict[str, Any]] = [{"id": "start", "type": "trigger.manual"}]
    nodes += [{"id": f"n{number}", "type": "log.write", "config": {"message": "x"}} for number in range(199)]
    edges = [{"from": "start" if number < 4 else f"n{number - 4}", "to": f"n{number}"} for number in range(199)]
    store(db, {"slug": "long", "nodes": nodes, "edges": edges}, publish=False)
    open_builder(page, "long")
    expect(page.locator(".node")).to_have_count(200)
    expect(page.locator(".minimap")).to_be_visible()
    took = page.evaluate(
        """() => {
          const canvas = document.getElementById('canvas');
          const card = canvas.querySelector('#node-n0');
          const box = card.getBoundingClientRect();
          const fire = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
            clientX: x, clientY: y, pointerId: 1, bubbles: true, button: 0 }));
          card.dispatchEvent(new PointerEvent('pointerdown', {
            clientX: box.left + 30, clientY: box.top + 10, pointerId: 1, bubbles: true, button: 0 }));
          const begin = performance.now();
          for (let step = 1; step <= 50; step += 1) fire('pointermove', box.left + 30 + step, box.top + 10 + step);
          const took = (performance.now() - begin) / 50;
          fire('pointerup', box.left + 80, box.top + 60);
          return took;
        }"""
    )
    assert took < 16, f"each move of the pointer took {took:.1f} ms"
    page.problems.clear()  # type: ignore[attr-defined]  # a made-up pointer cannot be captured
