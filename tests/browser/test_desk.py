"""A day at the desk: somebody of staff finds a task, fills it in, works through cases, and meets a colleague."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect
from web.desk import intake

pytestmark = pytest.mark.one_server


def test_a_task_is_found_filled_in_and_done(
    new_page: Callable[..., Page], db: psycopg.Connection[Any], make_workflow: Any, run_all: Any
) -> None:
    intake(db, make_workflow, run_all, "Ada", "Ben")
    page = new_page("staff")
    page.goto("/")
    expect(page).to_have_url(re.compile("/tasks$"))
    page.get_by_placeholder("Search the titles").fill("ben")
    expect(page.locator("#tasks tr")).to_have_count(1)
    page.get_by_role("button", name="Take it").click()
    expect(page.get_by_role("heading", name="Review of Ben")).to_be_visible()
    expect(page.get_by_text("with you")).to_be_visible()

    page.wait_for_load_state()  # what is typed before the scripts are there is seen with the next key only
    page.get_by_label("Pages").fill("many")
    expect(page.get_by_text("Your draft was kept.")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Pages")).to_have_value("many")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("This is no whole number.")).to_be_visible()
    expect(page.get_by_text("Please fill this in.")).to_be_visible()
    page.problems.clear()  # type: ignore[attr-defined]  # the browser notes that the form was refused
    page.get_by_label("Pages").fill("3")
    page.get_by_label("State").select_option("legible")
    page.get_by_label("Seen").check()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("Done. Thank you.")).to_be_visible()
    expect(page.locator("#tasks tr")).to_have_count(1)
    assert db.execute("select result from stellwerk.user_task where state = 'completed'").fetchone() == (
        {"pages": 3, "seen": True, "state": "legible"},
    )


def test_a_press_right_after_a_search_is_not_lost(
    new_page: Callable[..., Page], db: psycopg.Connection[Any], make_workflow: Any, run_all: Any
) -> None:
    """To leave the field does not load the list again, which would take the button away under the finger."""
    intake(db, make_workflow, run_all, "Ada", "Ben")
    page = new_page("staff")
    page.goto("/tasks")
    page.get_by_placeholder("Search the titles").press_sequentially("ben")
    page.wait_for_url("**words=ben**")
    expect(page.locator("#tasks tr")).to_have_count(1)
    page.evaluate(
        """() => {
            window.asked = [];
            const open = XMLHttpRequest.prototype.open;
            XMLHttpRequest.prototype.open = function (method, url) { window.asked.push(url); open.apply(this, arguments); };
        }"""
    )
    page.get_by_role("button", name="Take it").hover()
    page.mouse.down()
    assert page.evaluate("[window.asked, document.activeElement.textContent]") == [[], "Take it"]
    page.mouse.up()
    expect(page.get_by_role("heading", name="Review of Ben")).to_be_visible()


def test_a_colleague_was_faster(
    new_page: Callable[..., Page], db: psycopg.Connection[Any], make_workflow: Any, run_all: Any
) -> None:
    intake(db, make_workflow, run_all, "Ada")
    page = new_page("staff")
    page.goto("/tasks/1")
    db.execute("select stellwerk.add_user('ben@example.org', 'staff', 'Ben')")
    with psycopg.connect(db.info.dsn, autocommit=True) as other:
        other.execute("select set_config('stellwerk.actor', 'ben@example.org', false)")
        other.execute("select stellwerk.claim_task(1)")
    page.get_by_role("button", name="Take it").click()
    expect(page.get_by_text("Ben is working on this task now.")).to_be_visible()
    page.problems.clear()  # type: ignore[attr-defined]


def test_cases_are_changed_in_place_and_many_at_once(
    new_page: Callable[..., Page], db: psycopg.Connection[Any], make_workflow: Any, run_all: Any
) -> None:
    intake(db, make_workflow, run_all, "Ada", "Ben", "Cleo")
    page = new_page("staff")
    page.goto("/backoffice")
    page.get_by_label("Status of Ada").select_option("missing")
    expect(page.locator("tr", has_text="Ada").locator("select")).to_have_attribute("data-color", "orange")
    note = page.get_by_label("Note on Ada")
    note.fill("Card is missing")
    note.blur()
    expect(page.get_by_label("Note on Ada")).to_have_value("Card is missing")
    page.get_by_label("Choose Ben").check()
    page.get_by_label("Choose Cleo").check()
    expect(page.get_by_text("2 chosen")).to_be_visible()
    page.get_by_label("New status").select_option("complete")
    page.get_by_role("button", name="Set for the chosen ones").click()
    expect(page.get_by_text("2 changed.")).to_be_visible()

    page.get_by_role("link", name="Ada").click()
    expect(page.get_by_role("heading", name="Ada")).to_be_visible()
    page.get_by_placeholder("Write something down").fill("Called.")
    page.get_by_role("button", name="Write down").click()
    expect(page.locator(".history")).to_contain_text("Called.")
    page.get_by_text("New appointment").click()
    page.get_by_label("Title").fill("Second visit")
    page.get_by_label("Begins").last.fill("2027-01-05T09:30")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".appointment", has_text="Second visit")).to_be_visible()
    rows = db.execute("select status, note from stellwerk.backoffice_case order by case_id").fetchall()
    assert rows == [("missing", "Card is missing"), ("complete", None), ("complete", None)]
