"""What the tests of the web share: an application over the test's database, and its secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from cryptography.fernet import Fernet
from litestar import Litestar
from litestar.testing import TestClient
from web.program import Api
from web.serving import Serving
from web.tenants import People, Tenant, own_tenant

from stellwerk.integrations import signatures
from stellwerk.integrations.sealing import Seals, hook_purpose
from stellwerk.settings import Settings
from stellwerk.web import access
from stellwerk.web.api.definitions import EXAMPLE
from stellwerk.web.app import make_app, use_database

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, secret_keys=(Fernet.generate_key().decode(),))


@pytest.fixture(scope="session")
def application() -> Litestar:
    """Made once, for that takes half a second; each test gives it its own database."""
    return make_app("", Settings(home=Path("never-used")))


@pytest.fixture
def client(application: Litestar, dsn: str, settings: Settings) -> Iterator[TestClient[Any]]:
    use_database(application, dsn, settings)
    with TestClient(application) as client:
        yield client


@pytest.fixture
def source(engine: Any, settings: Settings) -> Callable[..., str]:
    """Set up a webhook source of the tenant `default`; returns its address."""

    def make(name: str, scheme: str = "standard", *secrets: str, **more: Any) -> str:
        seals = Seals.from_settings(settings)
        sealed = [seals.seal(hook_purpose(1, name), secret) for secret in secrets or (SECRET,)]
        engine.set_webhook_source(name, scheme, sealed, more)
        return f"/hooks/default/{name}"

    return make


@pytest.fixture
def signed(db: psycopg.Connection[Any]) -> Callable[..., dict[str, str]]:
    """The headers of a genuine delivery; `age` in seconds makes it an old one."""

    def make(
        body: bytes, *, scheme: str = "standard", secret: str = SECRET, number: str = "msg_1", age: int = 0
    ) -> dict[str, str]:
        at = int(time.time()) - age
        headers = signatures.sign(scheme, secret, body, timestamp=at, number=number)
        return {**headers, "content-type": "application/json"}

    return make


@pytest.fixture
def deliveries(db: psycopg.Connection[Any]) -> Callable[[], list[dict[str, Any]]]:
    """All that came in, in order."""

    def read() -> list[dict[str, Any]]:
        with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute("select * from stellwerk.webhook_delivery order by delivery_id").fetchall()

    return read


@pytest.fixture
def log_in(client: TestClient[Any], db: psycopg.Connection[Any]) -> Callable[..., dict[str, str]]:
    """Log a user in, who is made with the role if there is none; returns the headers that its pages send."""

    def enter(role: str = "admin", email: str | None = None, tenant: str = "default") -> dict[str, str]:
        email = email or f"{role}@example.org"
        db.execute("select set_config('stellwerk.tenant', %s, false)", [tenant])
        db.execute(
            "select stellwerk.add_user(%s, %s) where not exists (select from stellwerk.app_user u"
            " where u.tenant_id = stellwerk.current_tenant_id() and u.email = %s)",
            [email, role, email],
        )
        (tenant_id,) = db.execute("select stellwerk.current_tenant_id()").fetchone() or (0,)
        secret = access.new_secret(tenant_id)
        db.execute(
            "select stellwerk.open_session(u.tenant_id, u.user_id, %s) from stellwerk.app_user u"
            " where u.tenant_id = stellwerk.current_tenant_id() and u.email = %s",
            [access.digest(secret), email],
        )
        db.execute("reset stellwerk.tenant")
        client.cookies.set("stellwerk_session", secret)
        return {access.CSRF_HEADER: access.csrf_token(secret), "accept": "text/html"}

    return enter


@pytest.fixture
def serving(application: Litestar, dsn: str, settings: Settings) -> Iterator[Serving]:
    """The application as it is served, for those who come over HTTP."""
    use_database(application, dsn, settings)
    served = Serving(application)
    yield served
    served.stop()


@pytest.fixture
def outside(serving: Serving) -> Iterator[httpx2.Client]:
    """Somebody out there."""
    with httpx2.Client(base_url=serving.url, timeout=30) as client:
        yield client


@pytest.fixture
def own(db: psycopg.Connection[Any]) -> Tenant:
    """The tenant `default`, with one of everything."""
    return own_tenant(db)


@pytest.fixture
def people(db: psycopg.Connection[Any]) -> People:
    return People(db)


@pytest.fixture
def api(client: TestClient[Any], db: psycopg.Connection[Any]) -> Api:
    """A program with an admin's token."""
    return Api(client, db)


@pytest.fixture
def greet(api: Api) -> str:
    """The workflow of the API's own examples, published; its slug."""
    api("POST /api/workflows", EXAMPLE, expect=201)
    api("POST /api/workflows/greet/publish")
    return "greet"
