"""A real browser over the real application: what the tests of pages share.

`base_url` is an application over the test's database, served by uvicorn in a thread; `page` is the system's Chromium,
logged in there as an admin; `work` starts a worker. A test whose page wrote an error to the browser's console fails.
All of them run on one server only: mark them with `pytestmark = pytest.mark.one_server`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from browser.building import PASSWORD
from cryptography.fernet import Fernet
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from pytest_httpserver import HTTPServer
from web.serving import Serving
from worker.fixtures import WorkerThread, start_worker

from stellwerk.settings import Settings
from stellwerk.web import access, passwords
from stellwerk.web.app import make_app

__all__ = ["start_worker"]

PATIENCE = 30_000  # milliseconds that a page has for anything, on a machine that does other things too


expect.set_options(timeout=PATIENCE)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, secret_keys=(Fernet.generate_key().decode(),))


@pytest.fixture
def serving(dsn: str, settings: Settings) -> Iterator[Serving]:
    """The application over the test's database."""
    served = Serving(make_app(dsn, settings))
    yield served
    with contextlib.suppress(AssertionError):
        served.stop()


@pytest.fixture
def base_url(serving: Serving) -> str:
    """Where it answers."""
    return serving.url


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """One browser for the tests of a module: its event loop must be gone before another module's tests use theirs."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        missing = "no Chromium is installed: apt-get install chromium"
        if request.config.getoption("browser_required"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"],
        )
        yield browser
        browser.close()


@pytest.fixture
def log_in(db: psycopg.Connection[Any], base_url: str) -> Callable[..., None]:
    """Log a context in as a user of this role, who is made if there is none yet."""

    def enter(context: BrowserContext, role: str = "admin", email: str | None = None, tenant: str = "default") -> None:
        email = email or f"{role}@example.org"
        with psycopg.connect(db.info.dsn, autocommit=True) as own:
            own.execute("select set_config('stellwerk.tenant', %s, false)", [tenant])
            own.execute(
                "select stellwerk.add_user(%s, %s, %s) where not exists (select from stellwerk.app_user u"
                " where u.tenant_id = stellwerk.current_tenant_id() and u.email = %s)",
                [email, role, "Ada Byron", email],
            )
            row = own.execute(
                "select u.tenant_id, u.user_id from stellwerk.app_user u"
                " where u.tenant_id = stellwerk.current_tenant_id() and u.email = %s",
                [email],
            ).fetchone()
            assert row is not None
            secret = access.new_secret(row[0])
            own.execute("select stellwerk.open_session(%s, %s, %s)", [*row, access.digest(secret)])
        context.add_cookies([{"name": access.cookie_name(""), "value": secret, "url": base_url}])

    return enter


@pytest.fixture
def new_page(browser: Browser, base_url: str, log_in: Callable[..., None]) -> Iterator[Callable[..., Page]]:
    """Open further pages: `new_page("staff")`, `new_page("admin", width=390, language="de")`, `new_page(None)`.

    Every error in a console and every script that failed is collected in `page.problems` and fails the test at its
    end; a test that provokes one empties the list: `page.problems.clear()`.
    """
    opened: list[tuple[BrowserContext, list[str]]] = []

    def make(role: str | None = "admin", *, width: int = 1280, language: str = "en", theme: str = "light") -> Page:
        context = browser.new_context(base_url=base_url, viewport={"width": width, "height": 860}, locale=language)
        context.set_default_timeout(PATIENCE)
        problems: list[str] = []
        opened.append((context, problems))
        context.add_cookies(
            [
                {"name": name, "value": value, "url": base_url}
                for name, value in (("theme", theme), ("language", language))
            ]
        )
        if role is not None:
            log_in(context, role)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.problems = problems  # type: ignore[attr-defined]
        return page

    yield make
    found = [problem for _, problems in opened for problem in problems]
    for context, _ in opened:
        context.close()
    assert found == [], "the browser's console is not free of errors"


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page of an admin, in English; paths are enough for `page.goto`."""
    return new_page()


@pytest.fixture
def work(start_worker: Callable[..., WorkerThread]) -> Callable[..., WorkerThread]:
    """Start a worker that pumps, ticks and carries out worker steps, until the test ends.

    Worker node types are played by `worker.puppet.puppets()` unless executors are given.
    """
    return start_worker


@pytest.fixture
def worker_process(dsn: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`stellwerk worker` as a process of its own, with the executors that are installed."""
    environment = {
        **os.environ,
        "DATABASE_URL": dsn,
        "STELLWERK_HOME": str(tmp_path),
        "STELLWERK_ALLOWED_HOSTS": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stellwerk", "worker"], env=environment, stdout=log, stderr=log
        )
    yield process
    process.terminate()
    process.wait(30)


@pytest.fixture
def people(db: psycopg.Connection[Any]) -> None:
    """Grace designs and looks after runs; Petra is at the front desk."""
    hashed = passwords.hash_password(PASSWORD)
    for email, role, name in (("grace@example.org", "admin", "Grace"), ("petra@example.org", "staff", "Petra")):
        db.execute("select stellwerk.add_user(%s, %s, %s, groups => '{empfang}')", [email, role, name])
        db.execute("select stellwerk.set_password(%s, %s)", [email, hashed])


@pytest.fixture
def services(httpserver: HTTPServer) -> HTTPServer:
    """The voice agent answers; the signature service is out of order."""
    httpserver.expect_request("/call").respond_with_json({"call_id": "c-1"})
    httpserver.expect_request("/sign").respond_with_data("no such template", status=422)
    return httpserver
