"""Coming in and going out: passwords, sessions, invitations, tokens, and what each role may."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from litestar.testing import TestClient

from stellwerk.web import access, passwords

PASSWORD = "correct horse battery"
PAGE = {"accept": "text/html"}

Client = TestClient[Any]
Database = psycopg.Connection[Any]
LogIn = Callable[..., dict[str, str]]


@pytest.fixture
def ada(db: Database) -> str:
    """An admin with a password."""
    db.execute("select stellwerk.add_user('ada@example.org', 'admin', 'Ada')")
    db.execute("select stellwerk.set_password('ada@example.org', %s)", [passwords.hash_password(PASSWORD)])
    return "ada@example.org"


def enter(client: Client, email: str, password: str = PASSWORD, **more: str) -> Any:
    return client.post("/login", data={"email": email, "password": password, **more}, follow_redirects=False)


def test_the_right_password_opens_a_session_and_goes_where_one_wanted_to(client: Client, ada: str) -> None:
    refused = client.get("/audit", headers=PAGE, follow_redirects=False)
    assert (refused.status_code, refused.headers["location"]) == (303, "/login?next=/audit")
    answer = enter(client, ada, next="/audit")
    assert (answer.status_code, answer.headers["location"]) == (303, "/audit")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "Ada" in client.get("/audit", headers=PAGE).text


@pytest.mark.parametrize(
    "place", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_nobody_is_sent_to_another_site_after_logging_in(client: Client, ada: str, place: str) -> None:
    assert enter(client, ada, next=place).headers["location"] == "/"


def test_a_wrong_password_and_a_stranger_get_the_same_answer(client: Client, ada: str) -> None:
    wrong, stranger = enter(client, ada, "wrong"), enter(client, "nobody@example.org", "wrong")
    assert wrong.status_code == stranger.status_code == 403
    assert wrong.text.replace(ada, "") == stranger.text.replace("nobody@example.org", "")
    assert "set-cookie" not in wrong.headers


def test_guessing_makes_one_wait_and_the_right_password_too(client: Client, ada: str) -> None:
    answers = [enter(client, ada, f"guess {number}").status_code for number in range(6)]
    assert answers[:4] == [403] * 4
    assert answers[-1] == 429
    assert enter(client, ada).status_code == 429


def test_a_session_has_a_new_secret_each_time(client: Client, ada: str) -> None:
    client.cookies.set("stellwerk_session", "chosen by somebody else")
    enter(client, ada)
    first = client.cookies.get("stellwerk_session", domain="testserver.local")
    assert first
    assert first != "chosen by somebody else"


def test_a_login_from_another_site_is_refused(client: Client, ada: str) -> None:
    for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
        answer = client.post(
            "/login", data={"email": ada, "password": PASSWORD}, headers=headers, follow_redirects=False
        )
        assert answer.status_code == 403


def test_going_out_ends_the_session_in_the_database(client: Client, log_in: LogIn) -> None:
    headers = log_in("viewer")
    secret = client.cookies["stellwerk_session"]
    assert client.post("/logout", headers=headers, follow_redirects=False).status_code == 303
    client.cookies.set("stellwerk_session", secret)
    assert client.get("/audit", headers=PAGE, follow_redirects=False).status_code == 303


def test_what_changes_something_needs_the_token_of_the_page(client: Client, log_in: LogIn) -> None:
    headers = log_in("viewer")
    assert client.post("/logout").status_code == 403
    assert client.post("/logout", headers={access.CSRF_HEADER: "0" * 64}).status_code == 403
    assert client.post("/logout", headers=headers, follow_redirects=False).status_code == 303


def test_a_role_without_the_right_is_refused(client: Client, log_in: LogIn) -> None:
    assert client.get("/audit", headers=log_in("operator")).status_code == 403
    assert client.get("/audit", headers=log_in("admin")).status_code == 200


def test_whoever_has_left_is_out_at_once(client: Client, db: Database, log_in: LogIn) -> None:
    headers = log_in("admin")
    assert client.get("/audit", headers=headers).status_code == 200
    db.execute("select stellwerk.change_user('admin@example.org', active => false)")
    assert client.get("/audit", headers=headers, follow_redirects=False).status_code == 303


def test_an_invitation_works_once(client: Client, db: Database) -> None:
    db.execute("select stellwerk.add_user('new@example.org', 'admin')")
    secret = access.new_secret(1)
    db.execute("select stellwerk.invite_user('new@example.org', %s)", [access.digest(secret)])
    assert "new@example.org" in client.get(f"/welcome/{secret}").text
    short = client.post(f"/welcome/{secret}", data={"password": "short", "again": "short"})
    assert short.status_code == 422
    assert re.search("at least 10 characters", short.text)
    done = client.post(f"/welcome/{secret}", data={"password": PASSWORD, "again": PASSWORD}, follow_redirects=False)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert client.get("/audit", headers=PAGE).status_code == 200
    assert client.get(f"/welcome/{secret}").status_code == 404
    assert enter(client, "new@example.org").status_code == 303


def test_a_token_has_the_rights_of_its_scopes_and_ends_when_it_is_revoked(client: Client, db: Database) -> None:
    secret = access.new_secret(1)
    bearer = {"authorization": f"Bearer {secret}", **PAGE}
    row = db.execute("select stellwerk.create_token('ci', 'admin', %s, '{manage}')", [access.digest(secret)]).fetchone()
    assert row is not None
    assert client.get("/audit", headers=bearer).status_code == 200
    db.execute("select stellwerk.revoke_token(%s)", row)
    assert client.get("/audit", headers=bearer, follow_redirects=False).status_code == 303
    db.execute("select stellwerk.create_token('ci', 'viewer', %s)", [access.digest("1.another")])
    viewer = {"authorization": "Bearer 1.another", **PAGE}
    assert client.get("/audit", headers=viewer).status_code == 403


def test_no_secret_is_kept_or_shown(client: Client, db: Database, ada: str) -> None:
    enter(client, ada)
    secret = client.cookies.get("stellwerk_session", domain="testserver.local")
    page = client.get("/audit", headers=PAGE).text
    assert secret not in page
    assert "argon2" not in page
    with pytest.raises(psycopg.errors.InsufficientPrivilege), db.transaction():
        db.execute("set local role stellwerk_dba")
        db.execute("select hash from stellwerk.user_password")


def test_every_answer_has_the_headers_that_keep_strangers_out(client: Client, ada: str) -> None:
    for path in ("/login", "/healthz", "/nowhere"):
        headers = client.get(path, headers=PAGE).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
