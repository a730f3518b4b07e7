"""Users' passwords and sessions, and programs' tokens, on the command line."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from litestar.testing import TestClient

from stellwerk.settings import Settings
from stellwerk.web import passwords
from stellwerk.web.app import make_app

pytestmark = pytest.mark.one_server

PASSWORD = "correct horse battery"


@pytest.fixture
def web(dsn: str) -> Any:
    with TestClient(make_app(dsn, Settings.from_environment({}))) as client:
        yield client


def test_a_token_is_printed_once_and_works_until_it_is_revoked(stellwerk, dsn, db, web):
    status, printed, _ = stellwerk("token", "create", "website", "--role", "designer", "--scope", "read", dsn=dsn)
    token = printed.strip()
    assert status == 0
    headers = {"authorization": f"Bearer {token}"}
    assert web.get("/api/workflows", headers=headers).status_code == 200
    assert web.post("/api/workflows", json={}, headers=headers).status_code == 403
    assert token not in stellwerk("token", "list", "--json", dsn=dsn)[1]
    kept = db.execute("select t::text, encode(t.digest, 'escape') from stellwerk.api_token t").fetchone()
    assert token not in "".join(kept)
    assert stellwerk("token", "revoke", "website", dsn=dsn)[0] == 0
    assert web.get("/api/workflows", headers=headers).status_code == 401
    status, _, err = stellwerk("token", "revoke", "website", dsn=dsn)
    assert (status, "no token 'website'" in err) == (1, True)


def test_a_token_may_end_by_itself_and_says_its_number_in_json(stellwerk, dsn, db):
    made = json.loads(stellwerk("token", "create", "ci", "--role", "admin", "--days", "7", "--json", dsn=dsn)[1])
    row = db.execute(
        "select scopes, expires_at - now() between '6 days' and '7 days' from stellwerk.api_token where token_id = %s",
        [int(made["token_id"])],
    ).fetchone()
    assert row == (["read", "work", "design", "start", "operate", "manage"], True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x", "--role", "king"), "is no role"),
        (("create", "x", "--role", "viewer", "--scope", "fly"), "is no right"),
    ],
)
def test_tokens_that_cannot_be_meant(stellwerk, dsn, arguments, said):
    status, _, err = stellwerk("token", *arguments, dsn=dsn)
    assert (status, said in err) == (2, True)


def test_nobody_makes_a_token_with_more_than_its_role_may(stellwerk, dsn):
    status, _, err = stellwerk("token", "create", "x", "--role", "viewer", "--scope", "manage", dsn=dsn)
    assert (status, "no right to manage" in err) == (1, True)


def test_an_invitation_leads_to_the_page_where_a_password_is_chosen(stellwerk, dsn, web):
    stellwerk("user", "add", "ada@example.org", "--role", "staff", dsn=dsn)
    status, link, _ = stellwerk("user", "invite", "ada@example.org", dsn=dsn)
    assert status == 0
    found = re.fullmatch(r"http://127\.0\.0\.1:8000(/welcome/\S+)\n", link)
    assert found
    assert "ada@example.org" in web.get(found[1]).text


def test_a_password_comes_from_standard_input_and_ends_all_sessions(stellwerk, dsn, db, monkeypatch):
    stellwerk("user", "add", "ada@example.org", "--role", "staff", dsn=dsn)
    db.execute("select stellwerk.open_session(tenant_id, user_id, sha256('x')) from stellwerk.app_user")
    assert "sha" not in stellwerk("user", "sessions", "ada@example.org", dsn=dsn)[1]
    assert len(json.loads(stellwerk("user", "sessions", "ada@example.org", "--json", dsn=dsn)[1])) == 1
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    status, out, _ = stellwerk("user", "password", "ada@example.org", "--stdin", dsn=dsn)
    assert (status, PASSWORD in out) == (0, False)
    (kept,) = db.execute("select hash from stellwerk.user_password").fetchone()
    assert passwords.verify(kept, PASSWORD)
    assert "nowhere" in stellwerk("user", "sessions", "ada@example.org", dsn=dsn)[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    status, _, err = stellwerk("user", "password", "ada@example.org", "--stdin", dsn=dsn)
    assert (status, "at least 10 characters" in err) == (2, True)


def test_a_user_is_logged_out_everywhere(stellwerk, dsn, db):
    stellwerk("user", "add", "ada@example.org", "--role", "staff", dsn=dsn)
    db.execute("select stellwerk.open_session(tenant_id, user_id, sha256('x')) from stellwerk.app_user")
    out = stellwerk("user", "sessions", "ada@example.org", "--end", dsn=dsn)[1]
    assert out == "ada@example.org is logged out of 1 browser.\n"
    assert db.execute("select count(*) from stellwerk.user_session").fetchone() == (0,)


def test_the_first_admin_gets_a_link_and_nobody_else(dsn, db, web):
    from stellwerk.cli.processes import FIRST_ADMIN, first_invitation

    settings = Settings.from_environment({"DATABASE_URL": dsn})
    link = first_invitation(settings, dsn, "http://127.0.0.1:1")
    again = first_invitation(settings, dsn, "http://127.0.0.1:1")
    assert link
    assert again not in (None, link)
    path = again.removeprefix("http://127.0.0.1:1")
    assert web.get(link.removeprefix("http://127.0.0.1:1")).status_code == 404
    done = web.post(path, data={"password": PASSWORD, "again": PASSWORD}, follow_redirects=False)
    assert done.status_code == 303
    assert first_invitation(settings, dsn, "http://127.0.0.1:1") is None
    assert db.execute("select email, role from stellwerk.app_user").fetchall() == [(FIRST_ADMIN, "admin")]


def test_a_database_with_an_admin_gets_no_first_one(dsn, db):
    from stellwerk.cli.processes import first_invitation

    db.execute("select stellwerk.add_user('petra@example.org', 'staff')")
    settings = Settings.from_environment({"DATABASE_URL": dsn})
    assert first_invitation(settings, dsn, "http://127.0.0.1:1")
    db.execute("select stellwerk.add_user('ada@example.org', 'admin')")
    assert first_invitation(settings, dsn, "http://127.0.0.1:1") is None
