"""`http.request`: an outbound HTTP call."""

from __future__ import annotations

import base64
import email.utils
import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from stellwerk.definition.catalog import HttpRequestConfig
from stellwerk.executors.base import Answer, Call, Effects, Executor, ExecutorError

EXCERPT_CHARACTERS = 1000
# Statuses of the 4xx range that say "not now" rather than "not like this".
LATER = frozenset({408, 409, 423, 425, 429})
NEVER = frozenset({501, 505})


class HttpAnswer(BaseModel):
    """What `http.request` puts out."""

    status: int = Field(title="Status")
    headers: dict[str, str] = Field(title="Headers", description="Names in lower case.")
    body: Any = Field(title="Body", description="Parsed when it is JSON; text; Base64 when it is neither.")


class HttpRequest(Executor[HttpRequestConfig, HttpAnswer]):
    """Call a URL and put out status, headers and body. Private addresses are refused unless allowed."""

    type = "http.request"

    async def execute(self, call: Call[HttpRequestConfig]) -> HttpAnswer:
        """Make the call; a status that is not expected is an error of class http_4xx, http_5xx …"""
        config = call.config
        refuse_credential(config.credential)
        headers = {name: _text(value) for name, value in config.headers.items() if value is not None}
        body = _body(config, headers)
        answer = await call.effects.request(
            config.method, config.url, headers=headers, query=_query(config.query), body=body
        )
        call.log.info("%s answered %d", config.method, answer.status)
        if not is_expected(answer.status, config.expect):
            raise unexpected(answer)
        return HttpAnswer(status=answer.status, headers=dict(answer.headers), body=read_body(answer))


def refuse_credential(credential: str | None) -> None:
    """Better an error than a call without the credential that was asked for."""
    if credential is not None:
        raise ExecutorError(
            "credentials cannot be used yet; leave out the setting credential",
            error_class="not_available",
            retryable=False,
        )


async def order(effects: Effects, url: str, document: dict[str, Any]) -> dict[str, Any]:
    """POST a JSON document and answer the JSON object that comes back, or {} if it is something else."""
    answer = await effects.request(
        "POST",
        url,
        headers={"Content-Type": "application/json"},
        body=json.dumps({name: value for name, value in document.items() if value is not None}, ensure_ascii=False),
    )
    if not is_expected(answer.status, "2xx"):
        raise unexpected(answer)
    body = read_body(answer)
    return body if isinstance(body, dict) else {}


def is_expected(status: int, expect: Any) -> bool:
    """Whether a status is among those expected: `2xx`, `200`, or a list of such."""
    wanted = expect if isinstance(expect, list) else str(expect).split(",")
    return any(str(item).strip() in (str(status), f"{status // 100}xx") for item in wanted)


def read_body(answer: Answer) -> Any:
    """The body as JSON where its type says so, else as text, else as Base64."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not answer.body:
        return None
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return json.loads(answer.body, parse_constant=_refuse)
        except (ValueError, RecursionError):
            pass  # it says so and is not: the text is better than nothing
    try:
        text = answer.body.decode(_charset(answer))
        return text if "\0" not in text else base64.b64encode(answer.body).decode()
    except (UnicodeDecodeError, LookupError):
        return base64.b64encode(answer.body).decode()


def retry_after(answer: Answer, now: datetime | None = None) -> float | None:
    """The seconds that the other side asks us to wait, from either form of the header Retry-After."""
    value = answer.headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(min(int(value), 86400))
    try:
        at = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    seconds = (at.replace(tzinfo=at.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), 86400.0)


def unexpected(answer: Answer) -> ExecutorError:
    """The error that a status stands for: its class, whether to try again and when, and the beginning of the body."""
    status = answer.status
    retryable = status in LATER or (status >= 500 and status not in NEVER)
    body = read_body(answer)
    return ExecutorError(
        f"the other side answered {status}",
        error_class=f"http_{status // 100}xx",
        retryable=retryable,
        detail={"status": status, "body": body if _is_short(body) else _text(body)[:EXCERPT_CHARACTERS]},
        retry_after=retry_after(answer) if retryable else None,
    )


def _body(config: HttpRequestConfig, headers: dict[str, str]) -> bytes | str | None:
    if config.json_body is None:
        return None if config.body is None else _text(config.body)
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = "application/json"
    return json.dumps(config.json_body, ensure_ascii=False).encode()


def _query(query: dict[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in query.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                pairs.append((name, _text(item)))
    return pairs


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _charset(answer: Answer) -> str:
    _, _, charset = answer.headers.get("content-type", "").lower().partition("charset=")
    return charset.split(";")[0].strip(" \"'") or "utf-8"


def _is_short(body: Any) -> bool:
    return len(_text(body)) <= EXCERPT_CHARACTERS


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
