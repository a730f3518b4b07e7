"""What was refused: problem+json (RFC 9457) for programs, a page or a line at the place of the click for people."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from pydantic import ValidationError

from stellwerk.errors import (
    DatabaseUnavailable,
    Forbidden,
    InvalidDefinition,
    InvalidPayload,
    LimitExceeded,
    SchemaOutdated,
    StellwerkError,
    UnknownThing,
    UnknownWorkflow,
    UsageError,
    VersionConflict,
    WrongState,
)
from stellwerk.logs import current, frames_of
from stellwerk.web import texts
from stellwerk.web.access import login_path
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Refused

log = logging.getLogger(__name__)

STATUS: dict[type[StellwerkError], int] = {
    UnknownWorkflow: 404,
    InvalidPayload: 422,
    WrongState: 409,
    Forbidden: 403,
    VersionConflict: 412,
    InvalidDefinition: 422,
    UnknownThing: 404,
    LimitExceeded: 422,
    UsageError: 422,
    DatabaseUnavailable: 503,
    SchemaOutdated: 503,
}
RETRY_AFTER_SECONDS = "5"


def refuse(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    """The exception handler of the application."""
    if isinstance(error, HTTPException):
        return _answer(
            request, error.status_code, error.detail, None, _fields(error), dict(getattr(error, "headers", None) or {})
        )
    if isinstance(error, ValidationError):
        fields = [
            {"path": ".".join(map(str, e["loc"])), "message": e["msg"]}
            for e in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        return _answer(request, 422, "some of the values cannot be used", None, fields)
    if isinstance(error, StellwerkError):
        status = STATUS.get(type(error), 500)
        if status >= 500:
            log.error("%s %s: %s", request.method, _route(request), error.message)
        # Scripts of pages ask as programs do, and show the answer to people; only browsers have chosen a language.
        for_people = "language" in request.cookies or not for_program(request)
        language = Desk(request, request.app.state).language if for_people else texts.LANGUAGES[0]
        more = [texts.said(language, part).rstrip(".") for part in (error.detail, error.hint) if part]
        return _answer(request, status, texts.said(language, error.message), ". ".join(more) or None)
    log.error("%s %s failed: %s\n%s", request.method, _route(request), type(error).__qualname__, frames_of(error))
    return _answer(request, 500, "something went wrong here; the log says what")


def _answer(
    request: Request[Any, Any, Any],
    status: int,
    detail: str,
    hint: str | None = None,
    fields: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response[Any]:
    if status in (429, 503):
        headers = {"retry-after": RETRY_AFTER_SECONDS, **(headers or {})}
    if for_program(request):
        content: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "request_id": current("request_id"),
        }
        if hint:
            content["hint"] = hint
        if fields:
            content["errors"] = fields
        return Response(content, status_code=status, headers=headers, media_type="application/problem+json")
    desk = Desk(request, request.app.state)
    if status == 401:
        return desk.go(login_path(request.url.path))
    template = "_refusal.html" if desk.is_fragment else "refusal.html"
    page = desk.page(
        template, status=status, headers=headers, code=status, detail=detail, hint=hint, fields=fields or []
    )
    return page


def _route(request: Request[Any, Any, Any]) -> str:
    """What the path is like: the path itself may hold the secret of an invitation."""
    return str(request.scope.get("path_template") or "unknown")


def for_program(request: Request[Any, Any, Any]) -> bool:
    """Whether an answer in JSON is wanted: under the API's paths, or where no page is asked for."""
    path = request.url.path
    if path.startswith(("/api/", "/hooks/", "/forms/", "/workflow-builder/api/")):
        return True
    return "hx-request" not in request.headers and "text/html" not in request.headers.get("accept", "")


def _fields(error: HTTPException) -> list[dict[str, Any]]:
    if isinstance(error, Refused):
        return error.faults
    if not isinstance(error, ValidationException) or not isinstance(error.extra, list):
        return []
    return [
        {"path": str(each.get("key", "")), "message": str(each.get("message", ""))}
        for each in error.extra
        if isinstance(each, dict)
    ]
