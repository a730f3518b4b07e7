"""Users and tokens: added, invited by a link that is shown once, changed, sent away."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from web.desk import Client, LogIn, one, send

Database = psycopg.Connection[Any]


def test_only_admins_manage_users(client: Client, log_in: LogIn) -> None:
    for role in ("viewer", "staff", "designer", "operator"):
        headers = log_in(role)
        assert client.get("/settings/users", headers=headers).status_code == 403
        assert send(client, "/settings/users", headers, email="x@example.org", role="admin").status_code == 403
        assert send(client, "/settings/tokens", headers, name="x", role="admin").status_code == 403


def test_a_new_user_gets_a_link_that_is_shown_once_and_works(client: Client, db: Database, log_in: LogIn) -> None:
    headers = log_in("admin")
    fields = {"email": "New@Example.org", "role": "staff", "name": "<b>New</b>", "groups": "desk, billing"}
    answer = send(client, "/settings/users", headers, **fields)
    link = re.search(r'value="http://127.0.0.1:8000(/welcome/[^"]+)"', answer.text)
    assert (answer.status_code, link is not None) == (200, True)
    assert link is not None
    row = db.execute("select role, name, groups from stellwerk.app_user where email = 'new@example.org'").fetchone()
    assert row == ("staff", "<b>New</b>", ["desk", "billing"])
    page = client.get("/settings/users", headers=headers).text
    assert "&lt;b&gt;New&lt;/b&gt;" in page
    assert link[1] not in page
    client.cookies.clear()
    assert "new@example.org" in client.get(link[1]).text
    twice = send(client, "/settings/users", log_in("admin"), email="new@example.org", role="staff")
    assert (twice.status_code, "is a user already" in twice.text) == (409, True)


def test_a_user_is_changed_and_sent_away(client: Client, db: Database, log_in: LogIn) -> None:
    log_in("operator")
    headers = log_in("admin")
    number = one(db, "select user_id from stellwerk.app_user where email = 'operator@example.org'")
    path = f"/settings/users/{number}"
    changed = send(client, f"{path}/changes", headers, name="Olga", role="designer", groups="a, b")
    assert (changed.status_code, "Olga" in changed.text) == (200, True)
    row = db.execute(
        "select name, role, groups, mails from stellwerk.app_user where user_id = %s", (number,)
    ).fetchone()
    assert row == ("Olga", "designer", ["a", "b"], False)
    away = send(client, f"{path}/absence", headers, absent_from="2020-01-01T00:00", delegate="admin@example.org")
    assert (away.status_code, "admin@example.org" in away.text) == (200, True)
    assert send(client, f"{path}/absence", headers, absent_from="").status_code == 200
    assert one(db, "select absent_from from stellwerk.app_user where user_id = %s", number) is None
    assert one(db, "select count(*) from stellwerk.user_session where user_id = %s", number) == 0, (
        "another role ends the sessions"
    )
    assert "deactivated" in send(client, f"{path}/changes", headers, active="false").text
    assert one(db, "select count(*) from stellwerk.user_session where user_id = %s", number) == 0
    assert one(db, "select name from stellwerk.app_user where user_id = %s", number) == "Olga"
    assert send(client, "/settings/users/99999/changes", headers, active="false").status_code == 404


def test_a_token_is_shown_once_works_and_is_revoked(client: Client, db: Database, log_in: LogIn) -> None:
    headers = log_in("admin")
    answer = send(client, "/settings/tokens", headers, ("scope", "read"), name="ci", role="operator", days="30")
    secret = re.search(r'value="(\d+\.[^"]+)"', answer.text)
    assert secret is not None
    assert secret[1] not in client.get("/settings/users", headers=headers).text
    assert one(db, "select scopes from stellwerk.api_token") == ["read"]
    client.cookies.clear()
    bearer = {"authorization": f"Bearer {secret[1]}", "accept": "text/html"}
    assert client.get("/backoffice", headers=bearer).status_code == 200
    assert client.get("/settings/users", headers=bearer).status_code == 403
    headers = log_in("admin")
    number = one(db, "select token_id from stellwerk.api_token")
    assert "No tokens" in send(client, f"/settings/tokens/{number}/revocation", headers).text
    client.cookies.clear()
    assert client.get("/backoffice", headers=bearer, follow_redirects=False).status_code == 303


def test_users_are_found_by_name_and_address(client: Client, db: Database, log_in: LogIn) -> None:
    headers = {**log_in("admin"), "hx-request": "true"}
    for number in range(60):
        db.execute("select stellwerk.add_user(%s, 'staff', %s)", (f"u{number}@example.org", f"Person 50%_{number}"))
    assert client.get("/settings/users?words=50%25_7", headers=headers).text.count("<tr id=") == 1
    first = client.get("/settings/users", headers=headers).text
    more = re.search(r'hx-get="(/settings/users\?[^"]*)"', first)
    assert more is not None
    rest = client.get(more[1].replace("&amp;", "&"), headers=headers).text
    assert first.count("<tr id=") + rest.count("<tr id=") == 61
