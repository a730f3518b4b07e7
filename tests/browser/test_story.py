"""One story, from an empty canvas to a retried run, as a person tells it who uses the mouse."""

from __future__ import annotations

import datetime
import json
import re
import subprocess
from collections.abc import Callable

import pytest
from browser.building import PASSWORD, Database, connect, document_of, edges_of, saved, take
from playwright.sync_api import Locator, Page, expect
from pytest_httpserver import HTTPServer

pytestmark = pytest.mark.one_server

MAIL = "{{ trigger.payload.email }}"
EDGES = (
    ("form_submit", "next", "backoffice_push"),
    ("backoffice_push", "next", "fonio_call"),
    ("fonio_call", "next", "appointment_confirmed"),
    ("appointment_confirmed", "next", "reminder_call"),
    ("reminder_call", "next", "if"),
    ("if", "true", "esign_request"),
    ("if", "false", "user"),
    ("esign_request", "next", "backoffice_status_update"),
    ("user", "next", "backoffice_status_update"),
)


def log_in(page: Page, email: str) -> None:
    page.goto("/")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(re.compile(r"/(tasks)?$"))


def settings(page: Page, node: str) -> Locator:
    """Choose a step; its form."""
    page.locator(f"#node-{node}").click()
    inspector = page.locator("#inspector")
    expect(inspector.locator("code.tag").first).to_be_visible()
    return inspector


def write(form: Locator, label: str, text: str) -> None:
    """Fill the field with this label, which may be marked as needed."""
    form.get_by_label(re.compile(rf"^{label}( \*)?$")).first.fill(text)


def pair(form: Locator, legend: str, name: str, value: str) -> None:
    """A row of names and values."""
    group = form.get_by_role("group", name=legend)
    group.get_by_role("button", name="Add").click()
    group.get_by_label("Name", exact=True).last.fill(name)
    group.get_by_label("Name", exact=True).last.press("Tab")
    group.get_by_label(f"Value of {name}").fill(value)


def test_a_clinic_builds_runs_and_mends_its_intake(
    new_page: Callable[..., Page],
    db: Database,
    people: None,
    services: HTTPServer,
    worker_process: subprocess.Popen[bytes],
) -> None:
    page = new_page(None)
    log_in(page, "grace@example.org")
    build(page)
    configure(page, services)
    mend(page)
    publish(page, db)
    run(page)
    open_the_case(page, db)
    complete_the_task(new_page(None), page)
    change_compare_and_roll_back(page, db)
    retry_a_failed_run(page, db, services)


def build(page: Page) -> None:
    """Nine steps are dragged onto an empty canvas and connected."""
    page.get_by_role("link", name="Workflows").click()
    page.get_by_role("link", name="New workflow").first.click()
    page.get_by_role("textbox", name="Name").fill("Patient intake")
    page.get_by_role("button", name="Open the builder").click()
    page.wait_for_selector("html[data-ready=builder]")
    page.locator("#node-start").click()
    page.locator("#inspector").get_by_role("button", name="Delete").click()
    expect(page.locator(".node")).to_have_count(0)
    for kind, x, y in (
        ("trigger.form_submit", 40, 120),
        ("action.backoffice_push", 260, 120),
        ("action.fonio_call", 480, 120),
        ("webhook.appointment_confirmed", 40, 300),
        ("timer.reminder_call", 260, 300),
        ("logic.if", 480, 300),
        ("action.esign_request", 40, 480),
        ("task.user", 260, 480),
        ("action.backoffice_status_update", 480, 480),
    ):
        take(page, kind, x, y)
    expect(page.locator(".node")).to_have_count(9)
    for source, port, target in EDGES:
        connect(page, source, port, target)
    expect(page.locator(".edges .edge")).to_have_count(len(EDGES))
    page.get_by_role("button", name="Tidy up").first.click()


def configure(page: Page, services: HTTPServer) -> None:
    """The input of the workflow, the statuses of its cases, and each step in the inspector."""
    page.locator("#canvas").click(position={"x": 20, "y": 20})
    workflow = page.locator("#inspector")
    for name, kind, needed in (("name", "text", True), ("email", "email", True), ("papers", "yes or no", False)):
        workflow.get_by_role("button", name="Add a field").click()
        row = workflow.locator(".schema-row").last
        row.get_by_label("Name").fill(name)
        row.get_by_label("Name").press("Tab")
        row.get_by_label("Kind").select_option(kind)
        if needed:
            row.get_by_label("needed").check()
    workflow.get_by_text("Limits and times").click()
    statuses = workflow.get_by_role("group", name="Case statuses")
    for index, (status, color) in enumerate((("new", "blue"), ("called", "orange"), ("complete", "green"))):
        statuses.get_by_role("button", name="Add", exact=True).last.click()
        statuses.locator(f"#field-settings-case_statuses-{index}-status").fill(status)
        statuses.locator(f"#field-settings-case_statuses-{index}-color").select_option(color)
    form = settings(page, "form_submit")
    write(form, "Form", "contact")
    form = settings(page, "backoffice_push")
    pair(form, "Fields", "name", "{{ trigger.payload.name }}")
    pair(form, "Fields", "email", MAIL)
    write(form, "Status", "new")
    form = settings(page, "fonio_call")
    write(form, "Script", "Good morning {{ trigger.payload.name }}")
    write(form, "URL", services.url_for("/call"))
    form = settings(page, "appointment_confirmed")
    write(form, "Correlation", MAIL)
    form = settings(page, "reminder_call")
    write(form, "At", "{{ steps.appointment_confirmed.output.starts_at }}")
    form = settings(page, "if")
    write(form, "Name", "Papers there?")
    write(form, "Condition", "steps.form.output.papers")
    form = settings(page, "esign_request")
    write(form, "Signer", MAIL)
    write(form, "Document", "consent.pdf")
    write(form, "URL", services.url_for("/sign"))
    form = settings(page, "user")
    write(form, "Title", "Papers of {{ trigger.payload.name }}")
    write(form, "Role", "empfang")
    form = settings(page, "backoffice_status_update")
    write(form, "Status", "complete")


def mend(page: Page) -> None:
    """A mistake is marked at its step and in the foot, which leads to it; then everything is checked and simulated."""
    expect(page.locator("#node-if")).to_have_class(re.compile("has-errors"))
    expect(page.locator("#foot")).to_contain_text("1 problem")
    page.locator("#canvas").click(position={"x": 20, "y": 20})
    page.locator("#foot .problem").first.click()
    condition = page.get_by_label("Condition")
    expect(condition).to_be_focused()
    expect(page.locator('[data-error="config.condition"]')).to_contain_text("form")
    condition.fill("trigger.payload.papers")
    expect(page.locator("#node-if")).not_to_have_class(re.compile("has-errors"))
    page.locator("#tools").get_by_role("button", name="Check").click()
    expect(page.locator("#notices")).to_contain_text("Everything is in order")
    page.locator("#tools").get_by_role("button", name="Simulate").click()
    window = page.get_by_role("dialog", name="Simulate")
    write(window, "name", "Anna Berger")
    write(window, "email", "anna@example.org")
    window.get_by_label("papers").check()
    window.get_by_role("button", name="Simulate").click()
    expect(page.locator("#simulation")).to_contain_text("Signature request")
    expect(page.locator("#node-esign_request")).to_have_attribute("data-state", "completed")
    page.locator("#simulation").get_by_role("button", name="Close").click()


def publish(page: Page, db: Database) -> None:
    saved(page)
    assert edges_of(document_of(db, "patient-intake")) == set(EDGES)
    page.locator("#tools").get_by_role("button", name="Publish").click()
    expect(page.get_by_role("dialog", name="Publish")).to_contain_text("This is the first version")
    page.get_by_role("button", name="Publish version 1").click()
    expect(page.locator("#notices")).to_contain_text("Version 1 is published")


def run(page: Page) -> None:
    """The form made from the schema starts a run, whose page turns green by itself."""
    start(page, "Anna Berger", papers=False)
    page.evaluate("window.opened = true")  # gone, were the page loaded again
    state = lambda node: page.locator(f'.place[data-node="{node}"]')  # noqa: E731
    expect(state("fonio_call")).to_have_attribute("data-state", "completed")
    expect(state("appointment_confirmed")).to_have_attribute("data-state", "waiting")
    confirm(page)
    expect(state("reminder_call")).to_have_attribute("data-state", "completed")
    expect(state("user")).to_have_attribute("data-state", "waiting")
    expect(state("esign_request")).to_have_class(re.compile("ghost"))
    assert page.evaluate("window.opened"), "the page was loaded again"


def start(page: Page, name: str, *, papers: bool) -> None:
    page.locator("#tools").get_by_role("button", name="Run …").click()
    window = page.get_by_role("dialog", name="Start a run")
    write(window, "name", name)
    write(window, "email", f"{name.split()[0].lower()}@example.org")
    window.get_by_label("papers").set_checked(papers)
    window.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/runs/*")


def confirm(page: Page) -> None:
    """The diary confirms the appointment: tomorrow, so that the reminder is due in a moment."""
    page.get_by_role("button", name="Send “appointment_confirmed”").click()
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1, seconds=1)
    page.get_by_label("Payload, as a JSON object").fill(json.dumps({"starts_at": tomorrow.isoformat()}))
    page.get_by_role("button", name="Send", exact=True).click()


def open_the_case(page: Page, db: Database) -> None:
    page.get_by_role("link", name="Case 1").click()
    expect(page.get_by_role("heading", name="Anna Berger")).to_be_visible()
    page.get_by_label("Status of Anna Berger").select_option("called")
    expect(page.locator(".history")).to_contain_text("called")
    assert db.execute("select status from stellwerk.backoffice_case").fetchall() == [("called",)]


def complete_the_task(staff: Page, page: Page) -> None:
    """Petra does it while Grace looks at the run."""
    page.go_back()
    log_in(staff, "petra@example.org")
    staff.get_by_role("button", name="Take it").click()
    expect(staff.get_by_role("heading", name="Papers of Anna Berger")).to_be_visible()
    staff.get_by_role("button", name="Done").click()
    expect(staff.get_by_text("Done. Thank you.")).to_be_visible()
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "completed")
    expect(page.locator('.place[data-state="completed"]')).to_have_count(8)


def change_compare_and_roll_back(page: Page, db: Database) -> None:
    """A second version is published with its difference; both are seen on one canvas; the first comes back."""
    page.get_by_role("link", name="Open the builder").click()
    page.wait_for_selector("html[data-ready=builder]")
    form = settings(page, "reminder_call")
    write(form, "Offset", "2")
    saved(page)
    page.locator("#tools").get_by_role("button", name="Publish").click()
    window = page.get_by_role("dialog", name="Publish")
    expect(window.locator('tr[data-change="field"]')).to_contain_text("offset")
    window.get_by_role("button", name="Publish version 2").click()
    expect(page.locator("#notices")).to_contain_text("Version 2 is published")
    page.get_by_role("link", name="History").click()
    page.locator("#version-2").get_by_role("link", name="What changed").click()
    expect(page.locator("#changes")).to_contain_text("offset")
    expect(page.locator("#node-reminder_call")).to_have_class(re.compile("changed"))
    page.locator("#version-1").get_by_role("link", name="Roll back to it").click()
    page.locator("#roll-back").click()
    expect(page.locator("#version-3")).to_contain_text("new runs use it")
    remind = next(n for n in document_of(db, "patient-intake")["nodes"] if n["id"] == "reminder_call")
    assert remind["config"].get("offset", "P1D") == "P1D"


def retry_a_failed_run(page: Page, db: Database, services: HTTPServer) -> None:
    """The signature service refuses; the run is found among the others; once the service is mended it is retried."""
    page.get_by_role("link", name="Open the builder").click()
    page.wait_for_selector("html[data-ready=builder]")
    start(page, "Jonas Weber", papers=True)
    expect(page.get_by_role("button", name="Send “appointment_confirmed”")).to_be_visible()
    confirm(page)
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "failed")
    page.get_by_role("link", name="Runs").first.click()
    expect(page.locator("#runs tr")).to_have_count(2)
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#runs")).to_contain_text("422")
    page.locator("#runs a.mono").click()
    page.locator('.place[data-state="failed"]').click()
    expect(page.locator("#panel")).to_contain_text("422")
    services.clear()
    services.expect_request("/sign").respond_with_json({"envelope_id": "e-1"})
    page.get_by_role("button", name="Retry from here …").click()
    page.get_by_role("button", name="Retry the run").click()
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "completed")
    assert db.execute("select status from stellwerk.backoffice_case order by case_id").fetchall() == [("complete",)] * 2
