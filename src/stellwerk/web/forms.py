"""`POST /forms/{tenant}/{form}`: what a website's visitors send starts a workflow; the answer is 202 in any case."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import parse_qsl

import psycopg
from litestar import Request, Response, route
from litestar.datastructures import State, UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import HTTPException

from stellwerk import json_text
from stellwerk.errors import StellwerkError, from_database
from stellwerk.json_text import JsonText
from stellwerk.web.database import trace_header
from stellwerk.web.intake import Intake, name_of, problem, refuse

LARGEST_BYTES = 256 * 1024
MOST_FIELDS = 200
LONGEST_KEY = 500

# Any page may send and nobody is logged in here; which pages are listened to is the form's list of origins.
CORS = {"access-control-allow-origin": "*"}
PREFLIGHT = {
    **CORS,
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "content-type, idempotency-key",
    "access-control-max-age": "86400",
}
PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    "<title>Thank you</title><p>Thank you. What you sent has arrived.</p></html>"
)


@route(
    "/forms/{tenant:str}/{form:str}",
    http_method=["POST", "OPTIONS"],
    status_code=202,
    request_max_body_size=LARGEST_BYTES,
    opt={"needs": "public"},
    exception_handlers={HTTPException: refuse},
)
async def take_form(tenant: str, form: str, request: Request[Any, Any, Any], state: State) -> Response[Any]:
    """A form that does not exist, a wrong origin, a filled honeypot: all answered as if it had been taken.

    Browsers ask before they send JSON from another website; that answer, too, is the same for every form.
    """
    if request.method == "OPTIONS":
        return Response(None, status_code=204, headers=PREFLIGHT)
    intake: Intake = state.intake
    try:
        fields = await _fields(request)
    except StellwerkError as error:
        return problem(400, "Bad Request", error.message, CORS)
    key = request.headers.get("idempotency-key")
    try:
        (wait,) = await intake.row(
            "select stellwerk.take_submission(%s, %s, %s::jsonb, %s, %s, %s)"
            " from set_config('stellwerk.traceparent', %s, true)",
            [
                name_of(tenant),
                name_of(form),
                str(fields),
                request.headers.get("origin"),
                network_of(request.client.host if request.client else ""),
                key[:LONGEST_KEY] if key else None,
                trace_header(request.headers.get("traceparent")),
            ],
        )
    except psycopg.Error as error:
        known = from_database(error)
        if known.sqlstate is None and not isinstance(error, psycopg.DataError):
            raise
        return problem(400, "Bad Request", known.message, CORS)
    if wait is not None:
        return problem(429, "Too Many Requests", "please wait a moment", {**CORS, "retry-after": str(int(wait))})
    if "text/html" in request.headers.get("accept", ""):
        return Response(PAGE, status_code=202, media_type="text/html", headers=CORS)
    return Response({"status": "accepted"}, status_code=202, headers=CORS)


def network_of(address: str) -> str:
    """The address that is counted: of IPv6 the network, for one household has as many addresses as it likes."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(number, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((number, 64), strict=False))
    return str(number)


async def _fields(request: Request[Any, Any, Any]) -> JsonText:
    kind, _ = request.content_type
    if kind == "application/json":
        body = await request.body()
        if not isinstance(json_text.decode(body, "form"), dict):
            raise HTTPException(status_code=400, detail="the form is no JSON object", headers=CORS)
        return json_text.checked(body, "form")
    if kind == RequestEncodingType.URL_ENCODED:
        pairs = _pairs(await request.body())
    elif kind == RequestEncodingType.MULTI_PART:
        pairs = list((await request.form()).multi_items())
        if any(isinstance(value, UploadFile) for _, value in pairs):
            raise HTTPException(status_code=415, detail="files are not taken here", headers=CORS)
    else:
        raise HTTPException(status_code=415, detail="send JSON or an HTML form", headers=CORS)
    if len(pairs) > MOST_FIELDS:
        raise HTTPException(status_code=400, detail=f"the form has more than {MOST_FIELDS} fields", headers=CORS)
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = str(value)
        elif isinstance(fields[name], list):
            fields[name].append(str(value))
        else:
            fields[name] = [fields[name], str(value)]
    return json_text.checked(json_text.dumps(fields), "form")


def _pairs(body: bytes) -> list[tuple[str, Any]]:
    try:
        return list(parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS))
    except ValueError:
        raise HTTPException(status_code=400, detail="the form cannot be read", headers=CORS) from None
