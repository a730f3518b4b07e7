"""The page of alerts."""

from __future__ import annotations

from typing import Any

import psycopg
from web.desk import Client, LogIn, one, send

Database = psycopg.Connection[Any]


def test_rules_are_made_and_removed_by_admins_and_alerts_are_seen_by_all(
    client: Client, db: Database, log_in: LogIn
) -> None:
    headers = log_in("admin")
    answer = send(client, "/alerts/rules", headers, name="alone", kind="no_worker", threshold="1", period="PT30M")
    assert (answer.status_code, "alone" in answer.text) == (200, True)
    db.execute("select stellwerk.check_alerts(1)")
    page = client.get("/alerts", headers=log_in("viewer"))
    assert (page.status_code, "no worker is running" in page.text) == (200, True)
    assert "hx-post" not in page.text[page.text.index('id="rules"') :]
    assert send(client, "/alerts/rules", log_in("operator"), name="x", kind="stuck", threshold="1").status_code == 403
    headers = log_in("admin")
    for wrong in ({"threshold": "many"}, {"period": "soon"}, {"kind": "nothing"}):
        fields = {"name": "x", "kind": "stuck", "threshold": "1", **wrong}
        assert send(client, "/alerts/rules", headers, **fields).status_code == 422
    assert "No rules yet" in send(client, "/alerts/rules/alone/removal", headers).text
    assert one(db, "select count(*) from stellwerk.alert") == 0
