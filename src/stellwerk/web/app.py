"""The web application: pages, the HTTP API, and what comes in from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from litestar import Litestar, Response, get
from litestar.config.compression import CompressionConfig
from litestar.datastructures import CacheControlHeader, State
from litestar.di import Provide
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.static_files import create_static_files_router

from stellwerk.database import schema
from stellwerk.errors import StellwerkError
from stellwerk.settings import Settings
from stellwerk.web import access, api, metrics, pages, rendering
from stellwerk.web.database import Database
from stellwerk.web.desk import Desk, provide_desk
from stellwerk.web.forms import take_form
from stellwerk.web.hooks import take_hook
from stellwerk.web.intake import Intake
from stellwerk.web.live import Live
from stellwerk.web.problems import refuse
from stellwerk.web.requests import named

# Scripts and styles come from our own files only, nothing is evaluated, and nobody may frame a page.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def make_app(dsn: str, settings: Settings | None = None) -> Litestar:
    """The application over one database; without settings, with those of the environment."""
    app = Litestar(
        route_handlers=[
            healthz,
            readyz,
            take_hook,
            take_form,
            metrics.router,
            *pages.ROUTERS,
            *api.ROUTERS,
            create_static_files_router(
                "/static",
                [rendering.STATIC],
                opt={"needs": "public"},
                cache_control=CacheControlHeader(public=True, max_age=31536000, immutable=True),
            ),
        ],
        dependencies={"desk": Provide(provide_desk, sync_to_thread=False)},
        middleware=[
            DefineMiddleware(
                access.Authentication, exclude=["^/static/", "^/healthz", "^/readyz", "^/hooks/", "^/forms/"]
            )
        ],
        guards=[access.guard],
        exception_handlers={Exception: refuse},
        before_send=[add_security_headers],
        template_config=rendering.templates(),
        compression_config=CompressionConfig(backend="gzip", minimum_size=1000, exclude=["/live"]),
        lifespan=[connections],
        openapi_config=None,
        logging_config=None,  # the process has set its logging up already
        signature_namespace={"Desk": Desk},
    )
    for route in app.routes:
        for handler in getattr(route, "route_handlers", []):
            if isinstance(handler, HTTPRouteHandler) and handler.http_methods != {"OPTIONS"}:
                access.needed_right(handler)
    app.asgi_handler = named(app.asgi_handler)
    use_database(app, dsn, settings or Settings.from_environment())
    return app


def use_database(app: Litestar, dsn: str, settings: Settings) -> None:
    """Which database the application works on from its next start on."""
    database = Database(dsn)
    app.state.dsn, app.state.settings, app.state.database = dsn, settings, database
    app.state.intake = Intake(dsn, settings)
    app.state.live = Live(dsn, database, rendering.environment_of(rendering.templates()))


@asynccontextmanager
async def connections(app: Litestar) -> AsyncIterator[None]:
    """From its start to its end the application has its connections."""
    state = app.state
    async with state.intake.opened():
        with state.database.opened():
            async with state.live.opened():
                yield


async def add_security_headers(message: Any, scope: Any) -> None:
    """On every answer; pages that show data are kept by no cache."""
    if message["type"] != "http.response.start":
        return
    headers = message["headers"]
    given = {name.lower() for name, _ in headers}
    for name, value in SECURITY_HEADERS.items():
        if name.encode() not in given:
            headers.append((name.encode(), value.encode()))
    if b"cache-control" not in given:
        headers.append((b"cache-control", b"no-store"))


@get("/healthz", opt={"needs": "public"}, sync_to_thread=False)
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/readyz", opt={"needs": "public"}, sync_to_thread=True)
def readyz(state: State) -> Response[dict[str, str]]:
    """The process can do its work: the database answers and has this release's schema."""
    try:
        with psycopg.connect(state.dsn, connect_timeout=3, application_name="stellwerk-readyz") as connection:
            schema.require_current(connection)
    except psycopg.Error:
        return Response({"status": "unavailable", "reason": "the database does not answer"}, status_code=503)
    except StellwerkError as error:
        return Response({"status": "unavailable", "reason": error.message}, status_code=503)
    return Response({"status": "ok"})
