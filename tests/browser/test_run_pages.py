"""Runs in a real browser: one that goes green while one looks, one that has failed and is sent on again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node, start, transform
from playwright.sync_api import Page, Route, expect

pytestmark = pytest.mark.one_server


@pytest.fixture
def intake(make_workflow: Callable[..., str]) -> str:
    return make_workflow(
        document(
            "intake",
            [
                START,
                transform("price", "{{ 100 / trigger.payload.divisor }}", name="Price"),
                node("sure", "logic.wait", {"event": "confirmed", "correlation": "{{ run.id }}"}, name="Confirmed"),
                transform("end", {"ok": True}, name="Done"),
            ],
            ["start -> price", "price -> sure", "sure -> end"],
        )
    )


def test_a_run_goes_green_while_one_looks(
    page: Page, db: psycopg.Connection[Any], intake: str, work: Callable[..., Any]
) -> None:
    number = start(db, intake, {"name": "Keller", "divisor": 4})
    page.goto(f"/runs/{number}")
    expect(page.locator(".place.ghost")).to_have_count(4)
    expect(page.locator("[data-live]")).to_be_visible()
    work()
    expect(page.locator('.place[data-node="sure"]')).to_have_attribute("data-state", "waiting")
    expect(page.locator('.place[data-node="price"]')).to_have_attribute("data-state", "completed")
    page.get_by_role("button", name="Send “confirmed”").click()
    page.get_by_label("Payload, as a JSON object").fill('{"by": "phone"}')
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator('.place[data-state="completed"]')).to_have_count(4)
    expect(page.locator(".edges path.taken")).to_have_count(3)
    expect(page.locator("#run-head .why")).to_have_attribute("data-state", "completed")
    page.locator('.place[data-node="sure"]').click()
    expect(page.locator("#panel")).to_contain_text('"by": "phone"')
    expect(page.locator('.place[data-node="sure"]')).to_have_class("place chosen")


def test_a_failed_run_is_found_mended_and_sent_on(
    page: Page, db: psycopg.Connection[Any], intake: str, work: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    for divisor in (4, 0, 5):
        start(db, intake, {"name": "Roth" if divisor == 0 else "Keller", "divisor": divisor})
    work()
    failed = "select count(*) from stellwerk.run where state = 'failed'"
    wait_until(lambda: db.execute(failed).fetchone() == (1,))
    page.goto("/runs")
    expect(page.locator("#runs tr")).to_have_count(3)
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#runs tr")).to_have_count(1)
    page.get_by_label("Words in the payload").fill("roth")
    page.wait_for_url("**text=roth**")
    expect(page.locator("#runs")).to_contain_text("division by zero")
    page.locator("#runs a.mono").click()
    page.locator('.place[data-node="price"]').click()
    expect(page.locator("#panel [data-shown=price]")).to_be_visible()
    expect(page.locator("#panel")).to_contain_text("division by zero")
    page.get_by_role("button", name="Edit …").click()
    page.locator("#panel textarea[name=payload]").fill('{"name": "Roth", "divisor": "many"')
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#panel .refusal")).to_contain_text("no JSON")
    page.problems.clear()  # type: ignore[attr-defined]  # the refusal itself is one to the browser
    page.locator("#panel textarea[name=payload]").fill('{"name": "Roth", "divisor": 2}')
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#panel")).to_contain_text("It is changed")
    page.get_by_role("button", name="Retry …").click()
    expect(page.locator("#plan")).to_contain_text("price")
    page.get_by_role("button", name="Retry the run").click()
    expect(page.locator('.place[data-node="sure"]')).to_have_attribute("data-state", "waiting")
    expect(page.locator('.place[data-node="price"]')).to_have_attribute("data-state", "completed")


def test_the_panel_shows_what_was_asked_for_last(
    page: Page, db: psycopg.Connection[Any], intake: str, work: Callable[..., Any]
) -> None:
    """An answer that takes long does not cover the form that was opened after it was asked for."""
    number = start(db, intake, {"divisor": 4})
    work()
    page.goto(f"/runs/{number}")
    expect(page.locator('.place[data-node="sure"]')).to_have_attribute("data-state", "waiting")
    page.evaluate(
        """() => {
            window.asked = [];
            const open = XMLHttpRequest.prototype.open;
            XMLHttpRequest.prototype.open = function (method, url) { window.asked.push(url); open.apply(this, arguments); };
        }"""
    )
    held: list[Route] = []
    page.route("**/nodes/price", lambda route: held.append(route))
    with page.expect_request("**/nodes/price"):
        page.locator('.place[data-node="price"]').click()
    page.get_by_role("button", name="Send “confirmed”").click()
    assert page.evaluate("window.asked") == [f"/runs/{number}/nodes/price"]
    held[0].continue_()
    expect(page.get_by_label("Payload, as a JSON object")).to_be_visible()
    assert len(page.evaluate("window.asked")) == 2


def test_many_are_cancelled_at_once_with_the_keyboard(
    page: Page, db: psycopg.Connection[Any], intake: str, work: Callable[..., Any], wait_until: Callable[..., None]
) -> None:
    for _ in range(5):
        start(db, intake, {"divisor": 1})
    work()
    waiting = "select count(*) from stellwerk.run where state = 'waiting'"
    wait_until(lambda: db.execute(waiting).fetchone() == (5,))
    page.goto("/runs?workflow=intake")
    page.get_by_role("button", name="Cancel …").press("Enter")
    page.get_by_label("Reason").fill("the doctor is ill")
    page.get_by_role("button", name="Count the runs first").press("Enter")
    page.wait_for_url("**/bulk/*")
    page.get_by_role("button", name="Begin with 5 runs").press("Enter")
    expect(page.locator("#operation")).to_contain_text("5 of 5 runs handled: 5 done")
    page.goto("/runs")
    expect(page.locator('#runs [data-state="cancelled"]')).to_have_count(5)
