"""The gallery's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from litestar.testing import TestClient

from stellwerk import gallery

LogIn = Callable[..., dict[str, str]]


def test_a_template_is_installed_as_a_draft_with_one_click_and_a_second_time_under_another_name(
    client: TestClient[Any], db: psycopg.Connection[Any], log_in: LogIn
) -> None:
    headers = log_in("designer")
    page = client.get("/templates", headers=headers)
    for template in gallery.templates().values():
        assert template.title["en"] in page.text
    for name in ("expense-approval", "expense-approval-2"):
        answer = client.post("/templates/expense-approval/installation", headers=headers, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/workflow-builder/{name}")
    drafts = db.execute(
        "select w.slug, v.published_at from stellwerk.workflow w"
        " join stellwerk.workflow_version v using (tenant_id, workflow_id) order by w.slug"
    ).fetchall()
    assert drafts == [("expense-approval", None), ("expense-approval-2", None)]


def test_only_designers_install(client: TestClient[Any], log_in: LogIn) -> None:
    headers = log_in("operator")
    assert "installation" not in client.get("/templates", headers=headers).text
    assert client.post("/templates/onboarding/installation", headers=headers).status_code == 403
    assert client.post("/templates/nothing/installation", headers=log_in("designer")).status_code == 404
