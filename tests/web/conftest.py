"""What the tests of the web share: an application over the test's database, and its secrets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from litestar.testing import TestClient

from stellwerk.integrations import signatures
from stellwerk.integrations.sealing import Seals, hook_purpose
from stellwerk.settings import Settings
from stellwerk.web.app import make_app

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, secret_keys=(Fernet.generate_key().decode(),))


@pytest.fixture
def client(dsn: str, settings: Settings) -> Iterator[TestClient[Any]]:
    with TestClient(make_app(dsn, settings)) as client:
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
