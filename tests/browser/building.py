"""What hands do in the builder, for the tests that build workflows."""

from __future__ import annotations

from typing import Any

import psycopg
from playwright.sync_api import FloatRect, Locator, Page, expect

Database = psycopg.Connection[Any]
PASSWORD = "a long password"  # of everybody in the stories


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


def open_builder(page: Page, slug: str) -> None:
    page.goto(f"/workflow-builder/{slug}")
    page.wait_for_selector("html[data-ready=builder]")


def box_of(element: Locator) -> FloatRect:
    """Where it is; a card that is just drawn anew is looked for again."""
    for _ in range(5):
        expect(element).to_be_visible()
        if (box := element.bounding_box()) is not None:
            return box
    raise AssertionError(f"{element} is nowhere")


def drag(page: Page, start: Locator, to: tuple[float, float]) -> None:
    """As a hand does it: press, move in a few steps, let go."""
    box = box_of(start)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 30, box["y"] + 20, steps=3)
    page.mouse.move(*to, steps=5)
    page.mouse.up()


def take(page: Page, kind: str, x: float, y: float) -> None:
    """Drag a node type from the palette to a place of the canvas."""
    entry = page.locator(f'.palette .kind[data-type="{kind}"]')
    entry.scroll_into_view_if_needed()
    box = box_of(page.locator("#canvas"))
    drag(page, entry, (box["x"] + x, box["y"] + y))


def connect(page: Page, source: str, port: str, target: str) -> None:
    """Draw an edge from a port to a node."""
    box = box_of(page.locator(f"#node-{target}"))
    drag(page, page.locator(f'#node-{source} .port[data-port="{port}"]'), (box["x"] + 30, box["y"] + 25))


def saved(page: Page) -> None:
    expect(page.locator(".saved")).to_have_text("Saved")
