"""Lists change by themselves, and never under somebody's hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect
from web.desk import intake

pytestmark = pytest.mark.one_server


def test_lists_of_tasks_and_cases_follow_without_taking_what_is_typed(
    new_page: Callable[..., Page], db: psycopg.Connection[Any], make_workflow: Any, run_all: Any
) -> None:
    intake(db, make_workflow, run_all, "Ada", "Ben")
    page = new_page("staff")
    page.goto("/backoffice")
    note = page.get_by_label("Note on Ada")
    note.click()
    note.press_sequentially("Card is")
    db.execute("select stellwerk.set_case_status(2, 'missing')")
    expect(page.locator("[data-live-list]")).to_have_attribute("data-stale", "true")
    expect(note).to_be_focused()
    note.press_sequentially(" missing")
    expect(note).to_have_value("Card is missing")
    expect(page.get_by_label("Status of Ben")).to_have_value("new")
    note.blur()  # sends the note; then the list follows
    expect(page.get_by_label("Status of Ben")).to_have_value("missing")
    expect(page.get_by_label("Note on Ada")).to_have_value("Card is missing")

    page.goto("/tasks")
    expect(page.locator("#tasks tr")).to_have_count(2)
    words = page.get_by_placeholder("Search the titles")
    words.fill("review")
    intake(db, make_workflow, run_all, "Cleo")
    expect(page.locator("#tasks tr")).to_have_count(3)
    expect(words).to_have_value("review")
    expect(words).to_be_focused()


def test_the_dashboard_follows(
    new_page: Callable[..., Page], db: psycopg.Connection[Any], make_workflow: Any, run_all: Any
) -> None:
    page = new_page("operator")
    page.goto("/")
    expect(page.get_by_text("No runs yet")).to_be_visible()
    intake(db, make_workflow, run_all, "Ada")
    expect(page.get_by_role("link", name="Intake of patients")).to_be_visible()
