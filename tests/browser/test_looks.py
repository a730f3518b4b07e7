"""How the pages look: all of them are opened, searched for what shuts people out, and kept as pictures.

    pytest tests/browser/test_looks.py -n 0

leaves a picture of every page in both languages and both themes, and of the German one on a narrow screen, whose words
are the longest, in build/screens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.furnished import furnish
from browser.places import PLACES, Place, unplaced
from playwright.sync_api import Page

from stellwerk.web.app import make_app

pytestmark = [pytest.mark.one_server, pytest.mark.slow]

SCREENS = Path(__file__).parents[2] / "build" / "screens"
WIDE = {"width": 1280, "height": 860}
NARROW = {"width": 390, "height": 844}
AXE = Axe()


def test_every_page_has_its_place(dsn: str) -> None:
    assert unplaced(make_app(dsn)) == set(), "say in places.py how these are opened"


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_page_is_fit_to_be_seen(
    language: str, new_page: Callable[..., Page], dsn: str, db: psycopg.Connection[Any]
) -> None:
    """No serious fault of accessibility, no error in the console, nothing wider than the screen."""
    furnish(dsn)
    SCREENS.mkdir(parents=True, exist_ok=True)
    inside, outside = new_page("admin", language=language), new_page(None, language=language)
    faults: list[str] = []
    for place in PLACES:
        page = outside if place.public else inside
        open_place(page, place, db)
        for theme in ("light", "dark"):
            dress(page, theme)
            page.screenshot(path=SCREENS / f"{place.name}-{language}-{theme}.png", full_page=True)
            if language == "en" and theme == "dark":
                faults += [f"{place.name}, {theme}: {fault}" for fault in axe(page)]
        if language == "en":
            continue
        dress(page, "light")
        page.set_viewport_size(NARROW)
        page.screenshot(path=SCREENS / f"{place.name}-narrow.png", full_page=True)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            faults.append(f"{place.name}, narrow: wider than the screen")
        faults += [f"{place.name}, narrow: {fault}" for fault in axe(page)]
        page.set_viewport_size(WIDE)
    assert not faults, "\n".join(faults)


def open_place(page: Page, place: Place, db: psycopg.Connection[Any]) -> None:
    answer = page.goto(place.path(db))
    assert answer is not None
    assert answer.status == 200, place.path(db)
    if place.route.startswith("/workflow-builder/"):
        page.wait_for_selector("html[data-ready=builder]")
    if place.click:
        page.locator(place.click).first.click()
        page.wait_for_load_state("networkidle")


def dress(page: Page, theme: str) -> None:
    """As the button does it, without a cookie."""
    page.evaluate("(theme) => { document.documentElement.dataset.theme = theme }", theme)


def axe(page: Page) -> list[str]:
    """What a screen reader, a keyboard or weak eyes would stumble over, if it is serious."""
    found = AXE.run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{violation['id']} ({violation['help']}): {node['target'][0]} {node['html'][:140]}"
        f" {' '.join(check['message'] for check in node['any'])[:200]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"][:4]
    ]
