"""Coming in from outside: sessions, guesses, where one is sent afterwards, and secrets that stay secret."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psycopg
import pytest
from web.serving import Serving
from web.tenants import Tenant

from stellwerk.settings import Settings
from stellwerk.web import access, passwords
from stellwerk.web.app import make_app
from stellwerk.web.desk import Desk

pytestmark = pytest.mark.one_server

PASSWORD = "correct horse battery"
ADA, EVE = "ada@example.org", "eve@example.org"
PAGE = {"accept": "text/html"}
HOSTILE_PLACES = [
    "https://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r\nlocation: https://evil.example",
    " //evil.example",
    "http:evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "evil.example",
    "@evil.example",
    ":80",
    "",
]
PLACES_OF_OURS = [
    "/%2f/evil.example",
    "/%5cevil.example",
    "/%0d%0alocation:x",
    "/runs?text=a b",
    "/日本",
    "/a//b",
    "/.//evil.example",
]

Database = psycopg.Connection[Any]


@pytest.fixture
def ada(db: Database) -> str:
    """An admin with a password."""
    db.execute("select stellwerk.add_user(%s, 'admin', 'Ada')", [ADA])
    db.execute("select stellwerk.set_password(%s, %s)", [ADA, passwords.hash_password(PASSWORD)])
    return ADA


def enter(client: httpx2.Client, password: str = PASSWORD, *, email: str = ADA, address: str = "", **more: str) -> Any:
    headers = {**PAGE, **({"x-forwarded-for": address} if address else {})}
    return client.post("/login", data={"email": email, "password": password, **more}, headers=headers)


def cookie_of(answer: Any) -> str:
    found = re.match(r"stellwerk_session=([^;]+)", answer.headers["set-cookie"])
    assert found is not None
    return found[1]


def is_in(client: httpx2.Client, secret: str) -> bool:
    return bool(client.get("/audit", headers={"cookie": f"stellwerk_session={secret}"}).status_code == 200)


def test_a_session_changes_at_log_in_and_the_old_one_is_dead(outside: httpx2.Client, db: Database, ada: str) -> None:
    chosen = access.new_secret(1)
    outside.cookies.set("stellwerk_session", chosen)
    first = cookie_of(enter(outside))
    assert first != chosen
    assert not is_in(outside, chosen)
    assert is_in(outside, first)
    outside.cookies.set("stellwerk_session", first)
    second = cookie_of(enter(outside))
    assert is_in(outside, second)
    assert not is_in(outside, first)


@pytest.mark.parametrize(
    "change",
    [
        "select stellwerk.change_user('ada@example.org', role => 'operator')",
        "select stellwerk.change_user('ada@example.org', active => false), stellwerk.change_user('ada@example.org', active => true)",
        "select stellwerk.set_password('ada@example.org', '$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$x')",
        "select stellwerk.end_sessions('ada@example.org')",
    ],
)
def test_sessions_do_not_outlive_a_change_of_role_or_password(
    outside: httpx2.Client, db: Database, ada: str, change: str
) -> None:
    secret = cookie_of(enter(outside))
    assert is_in(outside, secret)
    db.execute("select stellwerk.change_user('ada@example.org', name => 'Ada B')")
    assert is_in(outside, secret)
    db.execute(change)
    outside.cookies.clear()
    headers = {"cookie": f"stellwerk_session={secret}"}
    assert outside.get("/workflows", headers=headers).status_code == 401


def test_the_cookie_is_kept_from_scripts_other_sites_and_open_lines(
    dsn: str, settings: Settings, outside: httpx2.Client, db: Database, ada: str
) -> None:
    parts = {part.strip().lower() for part in enter(outside).headers["set-cookie"].split(";")}
    assert {"httponly", "path=/", "samesite=lax"} <= parts
    assert not any(part.startswith("domain") for part in parts)
    secure = Serving(
        make_app(
            dsn, Settings(home=settings.home, secret_keys=settings.secret_keys, base_url="https://desk.example.org")
        )
    )
    try:
        with httpx2.Client(base_url=secure.url) as stranger:
            cookie = enter(stranger).headers["set-cookie"]
    finally:
        secure.stop()
    assert cookie.startswith("__Host-stellwerk=")
    assert {"httponly", "secure", "path=/", "samesite=lax"} <= {part.strip().lower() for part in cookie.split(";")}


def test_logging_in_is_slowed_down_for_an_account_and_for_an_address(
    outside: httpx2.Client, db: Database, ada: str
) -> None:
    db.execute("select stellwerk.add_user(%s, 'staff')", [EVE])
    db.execute("select stellwerk.set_password(%s, %s)", [EVE, passwords.hash_password(PASSWORD)])
    seen = [enter(outside, "wrong", address=f"192.0.2.{number}").status_code for number in range(6)]
    assert (seen[:4], 429 in seen[4:]) == ([403] * 4, True), "whatever the address"
    db.execute("update stellwerk.login_failure set failures = failures + 3, last_at = clock_timestamp()")
    told = enter(outside, address="192.0.2.99")
    assert (told.status_code, int(told.headers["retry-after"]) > 5) == (429, True)
    assert enter(outside, email=EVE, address="192.0.2.1").status_code == 303, "somebody else is not kept out"
    db.execute("delete from stellwerk.login_failure")
    for number in range(28):
        db.execute("select stellwerk.find_login('default', %s, '198.51.100.7')", [f"nobody{number}@example.org"])
    seen = [enter(outside, "x", email=f"n{n}@example.org", address="198.51.100.7").status_code for n in range(5)]
    assert (seen[:2], 429 in seen[2:]) == ([403, 403], True), "whatever the account"
    db.execute("update stellwerk.login_failure set failures = failures + 3, last_at = clock_timestamp()")
    assert enter(outside, email=EVE, address="198.51.100.7").status_code == 429
    assert enter(outside, email=EVE, address="203.0.113.5").status_code == 303


def test_many_attempts_at_once_are_no_way_around_the_waiting(outside: httpx2.Client, db: Database, ada: str) -> None:
    with ThreadPoolExecutor(12) as pool:
        seen = list(pool.map(lambda number: enter(outside, f"guess {number}").status_code, range(16)))
    assert seen.count(403) <= 8, "four, and one more for each second or two that it took"
    assert seen.count(429) >= 8


def test_whoever_types_the_right_password_is_not_counted(outside: httpx2.Client, db: Database, ada: str) -> None:
    for _ in range(35):
        db.execute("select stellwerk.find_login('default', 'ada@example.org', '192.0.2.1')")
        db.execute("select stellwerk.open_session(1, u.user_id, %s, '192.0.2.1') from stellwerk.app_user u where u.email = %s",
                   [access.digest(access.new_secret(1)), ADA])  # fmt: skip
    assert enter(outside, address="192.0.2.1").status_code == 303


@pytest.mark.parametrize("place", HOSTILE_PLACES)
def test_nobody_is_sent_to_another_site(outside: httpx2.Client, ada: str, place: str) -> None:
    answer = enter(outside, next=place)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "evil" not in str(answer.headers)
    page = outside.get("/login", params={"next": place}, headers=PAGE)
    assert page.headers.get("location", "/") == "/"
    outside.cookies.clear()
    page = outside.get("/login", params={"next": place}, headers=PAGE)
    assert "evil" not in page.text


@pytest.mark.parametrize("place", PLACES_OF_OURS)
def test_a_place_of_ours_is_gone_to_as_it_is(outside: httpx2.Client, ada: str, place: str) -> None:
    answer = enter(outside, next=place)
    assert answer.status_code == 303
    place = answer.headers["location"]
    assert (httpx2.URL("http://here.example").join(place).host, place[1] in "/\\") == ("here.example", False)


def test_forms_from_another_site_are_refused_where_nobody_is_logged_in(
    outside: httpx2.Client, db: Database, ada: str
) -> None:
    secret = access.new_secret(1)
    db.execute("select stellwerk.invite_user(%s, %s)", [ADA, access.digest(secret)])
    elsewhere = (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    )
    for headers in elsewhere:
        for path, data in (
            ("/login", {"email": ADA, "password": PASSWORD}),
            (f"/welcome/{secret}", {"password": PASSWORD, "again": PASSWORD}),
        ):
            answer = outside.post(path, data=data, headers=headers)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), (path, headers)


def test_no_password_and_no_secret_is_in_a_log_or_on_a_page(
    outside: httpx2.Client,
    db: Database,
    ada: str,
    own: Tenant,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    invitation, token = access.new_secret(1), access.new_secret(1)
    db.execute("select stellwerk.invite_user(%s, %s)", [own.things["email"], access.digest(invitation)])
    session = cookie_of(enter(outside))
    canaries = [PASSWORD, "wrong-canary-password", session, invitation, token, "argon2id"]
    enter(outside, "wrong-canary-password")
    headers = {"cookie": f"stellwerk_session={session}", access.CSRF_HEADER: access.csrf_token(session)}
    made = outside.post("/api/tokens", json={"name": "canary", "role": "viewer"}, headers=headers).json()
    canaries.append(made["token"])
    pages = [
        outside.get(path, headers={**PAGE, **headers}).text
        for path in (
            "/",
            "/audit",
            "/settings/users",
            "/api/users",
            "/api/tokens",
            "/api/audit",
            f"/api/users/{ADA}",
            "/welcome/wrong",
        )
    ]
    pages.append(outside.get("/welcome/" + invitation, headers=PAGE).text.replace(f'"/welcome/{invitation}"', ""))
    outside.get("/workflows", headers={"authorization": f"Bearer {made['token']}"})

    def break_down(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Desk, "page", break_down)
    assert outside.get("/welcome/" + invitation).status_code == 500
    assert outside.post("/login", data={"email": ADA, "password": PASSWORD}, headers={"origin": "x"}).status_code >= 400
    logged = "\n".join(
        record.getMessage() + str(record.exc_info or "") + str(record.args or "")
        for record in caplog.records
        if not record.name.startswith("http")
    )
    assert "broken on purpose" in logged
    for canary in canaries:
        assert canary not in logged, canary
        assert not any(canary in page for page in pages), canary
    stored = "".join(
        str(db.execute(f"select array_agg(x::text)::text from stellwerk.{table} x").fetchone())
        for table in ("audit_log", "api_token", "user_session", "user_invitation", "login_failure")
    )
    for canary in canaries[:-2]:
        assert canary not in stored
