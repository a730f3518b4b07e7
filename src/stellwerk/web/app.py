"""The web application: what comes in from outside, and what an operator's probe asks for."""

from __future__ import annotations

import psycopg
from litestar import Litestar, Response, get
from litestar.datastructures import State

from stellwerk.database import schema
from stellwerk.errors import StellwerkError
from stellwerk.settings import Settings
from stellwerk.web.forms import take_form
from stellwerk.web.hooks import take_hook
from stellwerk.web.intake import Intake


def make_app(dsn: str, settings: Settings | None = None) -> Litestar:
    """The application over one database; without settings, with those of the environment."""
    intake = Intake(dsn, settings or Settings.from_environment())
    return Litestar(
        route_handlers=[healthz, readyz, take_hook, take_form],
        state=State({"dsn": dsn, "intake": intake}),
        lifespan=[lambda _: intake.opened()],
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
