"""The web application: so far what an operator's probe asks for."""

from __future__ import annotations

import psycopg
from litestar import Litestar, Response, get
from litestar.datastructures import State

from stellwerk.database import schema
from stellwerk.errors import StellwerkError


def make_app(dsn: str) -> Litestar:
    """The application over one database."""
    return Litestar(
        route_handlers=[healthz, readyz],
        state=State({"dsn": dsn}),
        openapi_config=None,
        logging_config=None,  # the process has set its logging up already
    )


@get("/healthz", sync_to_thread=False)
def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@get("/readyz", sync_to_thread=True)
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
