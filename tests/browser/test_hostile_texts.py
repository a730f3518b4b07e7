"""Every page of the application with hostile texts in all that it shows, in a real browser: nothing runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
import psycopg
import pytest
from playwright.sync_api import Browser, Dialog, Page, expect
from web.hostile import SHORT, TEXTS, fill
from web.routing import QUERIES, Route, filled, routes_of
from web.serving import Serving

pytestmark = pytest.mark.one_server

# What a browser finds if a text was taken for more than text.
LOOK = """() => {
  const found = window.ran ? ['ran'] : [];
  const roots = [document];
  for (const root of roots) {
    for (const element of root.querySelectorAll('*')) {
      if (element.content instanceof DocumentFragment) roots.push(element.content);
      for (const { name, value } of element.attributes) {
        if (name === 'xss' || name.startsWith('on') || name.startsWith('hx-on')) found.push(`<${element.localName} ${name}>`);
        if (['href', 'src', 'action'].includes(name) && /^\\s*(javascript|data|vbscript):/i.test(value)) found.push(`${name}=${value}`);
      }
    }
  }
  return found;
}"""


@pytest.fixture
def things(db: psycopg.Connection[Any], make_workflow: Any, run_all: Any) -> list[dict[str, str]]:
    return fill(db, make_workflow, run_all)


def addresses(route: Route, sets: list[dict[str, str]]) -> list[str]:
    """The route with each set of values; none for what is no page by its address."""
    if route.method != "GET" or route.path.startswith(("/static", "/scripts", "/live")):
        return []
    return [filled(route.path + QUERIES.get(route.name, ""), things) for things in sets]


class Watched:
    """A page that notes whatever would be a hostile text that runs."""

    def __init__(self, page: Page, base_url: str) -> None:
        self.page, self.base_url = page, base_url
        self.noted: list[str] = []
        page.on("dialog", self._dialog)
        page.on("request", self._request)
        page.on("console", lambda message: self.noted.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.noted.append(str(error)))
        page.on("download", lambda download: download.cancel())

    def _dialog(self, dialog: Dialog) -> None:
        self.noted.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base_url, "data:", "blob:", "about:")):
            self.noted.append(f"asked for {request.url}")

    def open(self, path: str, *, fragment: bool) -> list[str]:
        """The page, or a part of one put into a page by htmx, scrolled to its end with all that folds unfolded."""
        self.noted.clear()
        if fragment:
            self.page.goto("/alerts")
            self.page.evaluate("path => htmx.ajax('GET', path, { target: '#content', swap: 'innerHTML' })", path)
        else:
            self.page.goto(path, wait_until="load")
        self.page.evaluate(
            """async () => {
              for (const each of document.querySelectorAll('details')) each.open = true;
              for (const each of document.querySelectorAll('[data-add-row]')) each.click();
              for (const each of document.querySelectorAll('.node, .place')) each.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
              scrollTo(0, document.body.scrollHeight);
              await new Promise((done) => setTimeout(done, 150));
            }"""
        )
        return [*self.noted, *self.page.evaluate(LOOK)]


def test_nothing_runs_on_any_page(
    browser: Browser, serving: Serving, log_in: Callable[..., None], things: list[dict[str, str]]
) -> None:
    """The admin's browser keeps the content security policy and reports what breaks it; that of staff knows none."""
    wrong = []
    for role, sets, least in (("admin", things, 45), ("staff", things[:1], 18)):
        context = browser.new_context(base_url=serving.url, bypass_csp=role == "staff")
        context.set_default_timeout(20_000)
        log_in(context, role)
        watched = Watched(context.new_page(), serving.url)
        cookie = "; ".join(f"{each['name']}={each['value']}" for each in context.cookies())
        opened = 0
        with httpx2.Client(
            base_url=serving.url, headers={"cookie": cookie, "accept": "text/html"}, timeout=20
        ) as client:
            for path in sorted({path for route in routes_of(serving.app) for path in addresses(route, sets)}):
                answer = client.get(path)
                if answer.status_code >= 500:
                    wrong.append((role, path, [str(answer.status_code)]))
                if answer.status_code >= 400 or not answer.headers.get("content-type", "").startswith("text/html"):
                    continue
                opened += 1
                if found := watched.open(path, fragment="<html" not in answer.text):
                    wrong.append((role, path, found[:5]))
        context.close()
        assert opened >= least, "most pages could not be opened"
    assert wrong == []


@pytest.mark.parametrize(("slug", "node"), [("each", "ask"), ("drafted", None), ("fails", "break")])
def test_nothing_runs_in_the_windows_of_the_builder(
    slug: str, node: str | None, browser: Browser, serving: Serving, log_in: Callable[..., None], things: Any
) -> None:
    """Each window that a key opens, the settings of a step, a simulation with a hostile payload, and what is refused."""
    context = browser.new_context(base_url=serving.url)
    context.set_default_timeout(20_000)
    log_in(context, "admin")
    watched = Watched(context.new_page(), serving.url)
    page = watched.page
    wrong = {}

    def look(what: str) -> None:
        page.wait_for_load_state("networkidle")
        if found := [*watched.noted, *page.evaluate(LOOK)]:
            wrong[what] = found[:5]
        watched.noted.clear()

    page.goto(f"/workflow-builder/{slug}")
    page.wait_for_selector("html[data-ready=builder]")
    chosen = page.locator(f"#node-{node}" if node else "#canvas .node").first
    chosen.click()
    look("the settings of a step")
    for key in ("c", "g", "r", "s", "u", "?"):
        page.locator("#canvas").focus()
        page.keyboard.press(key)
        expect(page.locator("dialog[open]")).to_be_visible()
        look(f"the window of {key}")
        if key in ("s", "r"):
            as_json = page.locator("dialog").get_by_role("button", name="As JSON")
            if as_json.count():
                as_json.click()
            page.locator("#payload-json").fill(json.dumps({"title": SHORT, "list": TEXTS, "all": SHORT}))
        if key == "s":
            page.locator("dialog").get_by_role("button", name="Simulate").click()
            expect(page.locator("#simulation:visible, dialog .refusal").first).to_be_visible()
            if slug == "drafted":  # it is refused, which browsers write into the console
                watched.noted = [text for text in watched.noted if "status of 422" not in text]
            for each in page.locator("#simulation summary").all():
                each.click()
            look("a simulation")
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
    page.locator("#canvas").focus()
    page.keyboard.press("w")
    look("the settings of the workflow")
    page.locator("#tools").get_by_role("button", name="JSON").click()
    look("the document as JSON")
    context.close()
    assert wrong == {}
