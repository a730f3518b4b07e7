"""The same story with the keyboard alone: no pointer is ever moved, and nothing is given the focus from outside."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest
from browser.building import PASSWORD, Database, document_of, edges_of, saved
from playwright.sync_api import Locator, Page, expect
from pytest_httpserver import HTTPServer

pytestmark = pytest.mark.one_server


def reach(page: Page, target: Locator) -> None:
    """Go on with Tab until this has the focus."""
    expect(target).to_be_visible()
    for _ in range(120):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never comes to {target}")


def press(page: Page, target: Locator, key: str = "Enter") -> None:
    reach(page, target)
    page.keyboard.press(key)


def type_in(page: Page, target: Locator, text: str) -> None:
    reach(page, target)
    page.keyboard.press("Control+a")
    page.keyboard.type(text)


def choose(page: Page, target: Locator, value: str) -> None:
    """A list by its arrow keys."""
    reach(page, target)
    page.keyboard.press("Home")
    for _ in range(20):
        if target.input_value() == value:
            return
        page.keyboard.press("ArrowDown")
    raise AssertionError(f"{value} is not among the choices")


def enter(page: Page, email: str) -> None:
    page.goto("/")
    type_in(page, page.get_by_label("E-mail address"), email)
    type_in(page, page.get_by_label("Password"), PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/(tasks)?$"))


def labelled(form: Locator, label: str) -> Locator:
    return form.get_by_label(re.compile(rf"^{label}( \*)?$")).first


def test_an_intake_is_built_run_and_mended_with_the_keyboard_alone(
    new_page: Callable[..., Page],
    db: Database,
    people: None,
    services: HTTPServer,
    worker_process: subprocess.Popen[bytes],
) -> None:
    page = new_page(None)
    enter(page, "grace@example.org")
    compose(page, services)
    try_and_publish(page, db)
    begin(page, "Anna Berger", papers=False)
    page.evaluate("window.opened = true")
    expect(page.locator('.place[data-node="user"]')).to_have_attribute("data-state", "waiting")
    expect(page.locator('.place[data-node="backoffice_push"]')).to_have_attribute("data-state", "completed")
    work_on_the_case(page, new_page(None), db)
    change_and_return(page, db)
    find_and_retry(page, db, services)


def compose(page: Page, services: HTTPServer) -> None:
    """Five steps on the canvas, connected and configured."""
    keyboard = page.keyboard
    press(page, page.get_by_role("link", name="Workflows"))
    press(page, page.get_by_role("link", name="New workflow").first)
    expect(page.get_by_role("textbox", name="Name")).to_be_focused()
    keyboard.type("Small intake")
    keyboard.press("Enter")
    page.wait_for_selector("html[data-ready=builder]")
    canvas = page.locator("#canvas")
    reach(page, canvas)
    keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("settings of the workflow")
    keyboard.press("Escape")
    expect(canvas).to_be_focused()
    inspector = page.locator("#inspector")
    # What a payload holds.
    keyboard.press("w")
    for index, (name, kind) in enumerate((("name", "text"), ("papers", "yes or no"))):
        press(page, inspector.get_by_role("button", name="Add a field"))
        row = inspector.locator(".schema-row").nth(index)
        expect(row.get_by_label("Label")).to_be_focused()
        type_in(page, row.get_by_label("Name"), name)
        keyboard.press("Tab")
        choose(page, row.get_by_label("Kind"), kind)
    keyboard.press("Escape")
    expect(canvas).to_be_focused()
    # Each behind the one before, by the palette's search; the branch's second way by "connect to".
    for kind in ("backoffice_push", "logic.if", "esign_request"):
        keyboard.press("/")
        keyboard.type(kind)
        keyboard.press("Enter")
        expect(canvas).to_be_focused()
    keyboard.press("Enter")
    type_in(page, labelled(inspector, "Signer"), "{{ trigger.payload.name }}@example.org")
    type_in(page, labelled(inspector, "Document"), "consent.pdf")
    type_in(page, labelled(inspector, "URL"), services.url_for("/sign"))
    keyboard.press("Escape")
    keyboard.press("ArrowLeft")
    expect(page.locator("#node-if")).to_have_attribute("aria-selected", "true")
    keyboard.press("a")
    keyboard.type("task.user")
    keyboard.press("Enter")
    expect(page.locator("#node-user")).to_have_attribute("aria-selected", "true")
    keyboard.press("Enter")
    type_in(page, labelled(inspector, "Title"), "Papers of {{ trigger.payload.name }}")
    type_in(page, labelled(inspector, "Role"), "empfang")
    keyboard.press("Escape")
    keyboard.press("a")
    keyboard.type("status_update")
    keyboard.press("Enter")
    keyboard.press("Enter")
    type_in(page, labelled(inspector, "Status"), "complete")
    keyboard.press("Escape")
    go_to(page, "esign_request")
    keyboard.press("c")
    choose(page, page.get_by_label("Leads to"), "backoffice_status_update")
    keyboard.press("Enter")
    # A mistake.
    go_to(page, "if")
    keyboard.press("Enter")
    type_in(page, labelled(inspector, "Condition"), "steps.form.output.papers")
    keyboard.press("Escape")
    keyboard.press("Escape")


def go_to(page: Page, node: str) -> None:
    page.keyboard.press("g")
    choose(page, page.get_by_label("Step", exact=True), node)
    page.keyboard.press("Enter")
    expect(page.locator(f"#node-{node}")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#canvas")).to_be_focused()


def try_and_publish(page: Page, db: Database) -> None:
    """The mistake is marked, found and mended; checked, simulated, published."""
    keyboard = page.keyboard
    expect(page.locator("#node-if")).to_have_class(re.compile("has-errors"))
    expect(page.locator("#foot")).to_contain_text("1 problem")
    keyboard.press("p")
    condition = page.get_by_label("Condition")
    expect(condition).to_be_focused()
    type_in(page, condition, "trigger.payload.papers")
    keyboard.press("Escape")
    keyboard.press("Escape")
    expect(page.locator("#foot")).to_contain_text("No problems")
    keyboard.press("k")
    expect(page.locator("#notices")).to_contain_text("Everything is in order")
    keyboard.press("s")
    window = page.get_by_role("dialog", name="Simulate")
    type_in(page, labelled(window, "name"), "Anna")
    press(page, window.get_by_role("button", name="Simulate"))
    expect(page.locator("#node-user")).to_have_attribute("data-state", "completed")
    press(page, page.locator("#simulation").get_by_role("button", name="Close"))
    saved(page)
    assert edges_of(document_of(db, "small-intake")) == {
        ("start", "next", "backoffice_push"),
        ("backoffice_push", "next", "if"),
        ("if", "true", "esign_request"),
        ("if", "false", "user"),
        ("user", "next", "backoffice_status_update"),
        ("esign_request", "next", "backoffice_status_update"),
    }
    reach(page, page.locator("#canvas"))
    keyboard.press("u")
    press(page, page.get_by_role("button", name="Publish version 1"))
    expect(page.locator("#notices")).to_contain_text("Version 1 is published")


def begin(page: Page, name: str, *, papers: bool) -> None:
    reach(page, page.locator("#canvas"))
    page.keyboard.press("r")
    window = page.get_by_role("dialog", name="Start a run")
    type_in(page, labelled(window, "name"), name)
    box = window.get_by_label("papers")
    reach(page, box)
    if box.is_checked() != papers:
        page.keyboard.press("Space")
    press(page, window.get_by_role("button", name="Start the run"))
    page.wait_for_url("**/runs/*")


def work_on_the_case(page: Page, staff: Page, db: Database) -> None:
    """The case's status is changed; Petra does the task while Grace looks at the run."""
    press(page, page.get_by_role("link", name="Case 1"))
    status = page.get_by_label("Status of")
    type_in(page, status, "called")
    page.keyboard.press("Tab")
    expect(page.locator(".history")).to_contain_text("called")
    press(page, page.get_by_role("link", name=re.compile(r"^Run \d+$")))
    enter(staff, "petra@example.org")
    press(staff, staff.get_by_role("button", name="Take it"))
    press(staff, staff.get_by_role("button", name="Done"))
    expect(staff.get_by_text("Done. Thank you.")).to_be_visible()
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "completed")
    expect(page.locator('.place[data-state="completed"]')).to_have_count(5)


def change_and_return(page: Page, db: Database) -> None:
    press(page, page.get_by_role("link", name="Open the builder"))
    page.wait_for_selector("html[data-ready=builder]")
    reach(page, page.locator("#canvas"))
    go_to(page, "user")
    page.keyboard.press("Enter")
    type_in(page, labelled(page.locator("#inspector"), "Title"), "Documents of {{ trigger.payload.name }}")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    saved(page)
    page.keyboard.press("u")
    window = page.get_by_role("dialog", name="Publish")
    expect(window).to_contain_text("Documents of")
    press(page, window.get_by_role("button", name="Publish version 2"))
    expect(page.locator("#notices")).to_contain_text("Version 2 is published")
    press(page, page.get_by_role("link", name="History"))
    press(page, page.locator("#version-2").get_by_role("link", name="What changed"))
    expect(page.locator("#changes")).to_contain_text("Documents of")
    expect(page.locator("#node-user")).to_have_class(re.compile("changed"))
    press(page, page.locator("#version-1").get_by_role("link", name="Roll back to it"))
    press(page, page.locator("#roll-back"))
    expect(page.locator("#version-3")).to_contain_text("new runs use it")


def find_and_retry(page: Page, db: Database, services: HTTPServer) -> None:
    press(page, page.get_by_role("link", name="Open the builder"))
    page.wait_for_selector("html[data-ready=builder]")
    begin(page, "Jonas Weber", papers=True)
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "failed")
    press(page, page.get_by_role("link", name="Runs").first)
    choose(page, page.get_by_label("State"), "failed")
    expect(page.locator("#runs tr")).to_have_count(1)
    press(page, page.locator("#runs a.mono"))
    press(page, page.locator('.place[data-state="failed"]'))
    expect(page.locator("#panel")).to_contain_text("422")
    services.clear()
    services.expect_request("/sign").respond_with_json({"envelope_id": "e-1"})
    press(page, page.get_by_role("button", name="Retry from here …"))
    press(page, page.get_by_role("button", name="Retry the run"))
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "completed")
    assert db.execute("select count(*) from stellwerk.run where state = 'completed'").fetchone() == (2,)
