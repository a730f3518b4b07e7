"""Each request has a name of its own: in every line that is logged meanwhile, in the answer, and in what is refused."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from stellwerk.logs import about

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
GIVEN = re.compile(rb"[A-Za-z0-9._:-]{8,64}")
PARTS_OF_PATHS = {"run_id", "step_id", "task_id", "case_id"}
QUIET = ("/static/", "/healthz", "/readyz")


def named(app: ASGIApp) -> ASGIApp:
    """The application, whose requests have names and leave a line each.

    A name that is given, by a proxy as a rule, is kept. The line has the route and not the path, which may hold the
    secret of an invitation, and nothing of query, headers and body.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name.lower() == HEADER), b"")
        request_id = given if GIVEN.fullmatch(given) else uuid.uuid4().hex.encode()
        began, status = time.perf_counter(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (HEADER, request_id)]
            await send(message)

        with about(request_id=request_id.decode()):
            try:
                await app(scope, receive, send_named)
            finally:
                _note(scope, status, time.perf_counter() - began)

    return answer


def _note(scope: Any, status: int, seconds: float) -> None:
    if status < 500 and scope["path"].startswith(QUIET):
        return
    route = scope.get("path_template") or "unknown"
    who = scope.get("user")
    parts = {name: value for name, value in (scope.get("path_params") or {}).items() if name in PARTS_OF_PATHS}
    log.info(
        "%s %s answered %d",
        scope["method"],
        route,
        status,
        extra={
            **parts,
            "method": scope["method"],
            "route": route,
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "tenant": who.tenant if who is not None else None,
        },
    )
