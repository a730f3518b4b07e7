"""The frame of all pages in a real browser."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from playwright.sync_api import Page, expect

from stellwerk.web import passwords

pytestmark = pytest.mark.one_server


def test_one_logs_in_and_out(new_page: Callable[..., Page], db: psycopg.Connection) -> None:
    db.execute("select stellwerk.add_user('grace@example.org', 'admin', 'Grace')")
    db.execute("select stellwerk.set_password('grace@example.org', %s)", [passwords.hash_password("a long password")])
    page = new_page(None)
    page.goto("/audit")
    page.get_by_label("E-mail address").fill("grace@example.org")
    page.get_by_label("Password").fill("a long password")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/audit")
    expect(page.get_by_role("heading", name="Audit log")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login*")


def test_language_and_theme_are_kept(page: Page) -> None:
    page.goto("/audit")
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Deutsch").click()
    expect(page.get_by_role("heading", name="Protokoll")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
