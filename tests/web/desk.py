"""Small steps that the tests of the desk's pages share: people, a workflow with a case and a task, forms as pages send them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import psycopg
from database.helpers import START, Connection, document, node, start
from litestar.testing import TestClient

Client = TestClient[Any]
LogIn = Callable[..., dict[str, str]]

STATUSES = [
    {"status": "new", "label": "New", "color": "blue", "next": ["missing", "complete"]},
    {"status": "missing", "label": "Papers missing", "color": "orange"},
    {"status": "complete", "label": "Complete", "color": "green", "final": True},
]
FORM = {
    "type": "object",
    "required": ["state", "pages"],
    "properties": {
        "state": {"title": "State", "enum": ["legible", "illegible"]},
        "pages": {"title": "Pages", "type": "integer", "minimum": 1},
        "seen": {"title": "Seen", "type": "boolean"},
    },
}
INTAKE = document(
    "intake",
    [
        START,
        node(
            "push",
            "action.backoffice_push",
            {
                "status": "new",
                "field_map": {"name": "{{ trigger.payload.name }}", "email": "{{ trigger.payload.email }}"},
                "appointment": {"title": "First visit", "starts_at": "2026-12-01T09:00:00Z"},
            },
        ),
        node(
            "review",
            "task.user",
            {
                "title": "Review of {{ trigger.payload.name }}",
                "instructions": "Look at the papers.",
                "role": "staff",
                "form": FORM,
                "show": [{"label": "Came from", "value": "{{ trigger.payload.email }}"}],
                "prefill": {"pages": 2},
                "outcomes": ["approve", "reject"],
                "due": "P1D",
            },
        ),
        node("done", "action.backoffice_status_update", {"status": "complete"}),
        node("late", "action.backoffice_status_update", {"status": "missing"}),
    ],
    ["start -> push", "push -> review", "review.approve -> done", "review.reject -> late"],
    name="Intake of patients",
    settings={"case_statuses": STATUSES},
)
ENGINE_WORDS = ("workflow", "node", "step ", "stellwerk.", "select ", " run ", "trigger", "payload")


def intake(db: Connection, make_workflow: Any, run_all: Any, *names: str) -> list[int]:
    """A case with a task for each name; answers the runs."""
    make_workflow(INTAKE)
    runs = [start(db, "intake", {"name": name, "email": f"p{n}@example.org"}) for n, name in enumerate(names)]
    run_all(db)
    return runs


def send(client: Client, path: str, headers: dict[str, str], *pairs: tuple[str, str], **fields: Any) -> Any:
    """Post a form as htmx does."""
    return client.post(
        path,
        content=urlencode([*pairs, *fields.items()]),
        headers={**headers, "hx-request": "true", "content-type": "application/x-www-form-urlencoded"},
        follow_redirects=False,
    )


def one(db: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    """The first column of the first row."""
    row = db.execute(query, values).fetchone()
    return None if row is None else row[0]
