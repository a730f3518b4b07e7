"""`POST /hooks/{tenant}/{source}`: genuine webhooks are stored and acknowledged, all others get the same answer."""

from __future__ import annotations

import json
import logging
from typing import Any

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from psycopg.types.json import Jsonb

from stellwerk.integrations import signatures
from stellwerk.integrations.sealing import Seals, hook_purpose
from stellwerk.web.database import trace_header
from stellwerk.web.intake import Intake, name_of, problem, refuse

log = logging.getLogger(__name__)

LARGEST_BYTES = 1024 * 1024
LONGEST_HEADER = 1000


@post(
    "/hooks/{tenant:str}/{source:str}",
    status_code=202,
    request_max_body_size=LARGEST_BYTES,
    opt={"needs": "public"},
    exception_handlers={HTTPException: refuse},
)
async def take_hook(tenant: str, source: str, request: Request[Any, Any, Any], state: State) -> Response[Any]:
    """Whether there is such a tenant, such a source, a secret, a right signature: whatever is missing, the same is
    done (one look-up, two secrets opened, two digests of the body) and the same is answered."""
    intake: Intake = state.intake
    tenant, source = name_of(tenant), name_of(source)
    body = await request.body()
    headers = signatures.with_standard_names({name.lower(): value for name, value in request.headers.items()})
    found = await intake.row("select * from stellwerk.find_webhook_source(%s, %s)", [tenant, source])
    tenant_id, scheme, sealed, signature_header, timestamp_header, kept, at = found
    verdict = signatures.verify(
        scheme,
        open_secrets(intake.seals, tenant_id, source, sealed or []),
        headers,
        body,
        at.timestamp(),
        signature_header=signature_header,
        timestamp_header=timestamp_header,
    )
    if not verdict.genuine:
        log.info("refused a webhook for %r of tenant %r: %s", source, tenant, verdict.reason)
        return problem(401, "Unauthorized", "this delivery could not be verified")
    if scheme == "slack" and (challenge := _challenge(body)) is not None:
        return Response({"challenge": challenge}, status_code=200)
    (fresh,) = await intake.row(
        "select stellwerk.take_delivery(%s, %s, %s, %s, %s, %s) from set_config('stellwerk.traceparent', %s, true)",
        [
            tenant_id,
            source,
            body,
            headers.get("content-type"),
            Jsonb({name: headers[name][:LONGEST_HEADER] for name in kept or [] if name in headers}),
            verdict.digest,
            trace_header(headers.get("traceparent")),
        ],
    )
    if not fresh:
        log.info("a webhook for %r of tenant %r came again", source, tenant)
    return Response({"status": "accepted"}, status_code=202)


def open_secrets(seals: Seals, tenant_id: int | None, source: str, sealed: list[str]) -> list[str]:
    """The secrets that open; as many are tried for a source that does not exist."""
    opened = []
    for number in range(signatures.ROUNDS):
        text = sealed[number] if number < len(sealed) else seals.nothing
        secret = seals.unseal(hook_purpose(tenant_id, source), text)
        if secret is not None:
            opened.append(secret)
    if sealed and not opened:
        log.error("no secret of webhook source %r opens: is STELLWERK_SECRET_KEYS the one it was sealed with?", source)
    return opened


def _challenge(body: bytes) -> str | None:
    """What Slack wants to hear again when an address is entered."""
    if b"url_verification" not in body:
        return None
    try:
        message = json.loads(body)
    except ValueError:
        return None
    if not isinstance(message, dict) or message.get("type") != "url_verification":
        return None
    return str(message.get("challenge", ""))[:LONGEST_HEADER]
