"""The HTTP API's way of speaking: JSON that is checked before anything is done, answers that have a shape, and for each
route a description of both, from which the OpenAPI document is drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import litestar
from litestar import Request, Response, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import ClientException, HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ControllerRouterHandler
from psycopg.types.json import Jsonb
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from stellwerk import json_text
from stellwerk.errors import InvalidPayload, UnknownThing
from stellwerk.web import cursors
from stellwerk.web.desk import Desk
from stellwerk.web.routes import Needs

LARGEST_BODY = json_text.LARGEST_BYTES + 64 * 1024
LONGEST_KEY = 255

Id = Annotated[str, BeforeValidator(str), WithJsonSchema({"type": "string", "pattern": "^[0-9]+$", "examples": ["42"]})]
"""Numbers of things are texts in JSON, where large numbers lose digits."""
Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$", examples=["patient-intake"])]
Version = Annotated[int, Field(ge=1, le=2_147_483_647, examples=[2])]
Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Anything = Annotated[Any, WithJsonSchema({})]


class Given(BaseModel):
    """What a request may hold: no other fields, and no text where a number is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Asked(BaseModel):
    """What may stand after the question mark of an address."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Paged(Asked):
    """Lists come in pages."""

    limit: Annotated[int, Field(ge=1, le=cursors.LARGEST, description="How many at most.")] = cursors.DEFAULT
    cursor: Annotated[
        str | None, Field(max_length=500, description="`next_cursor` of the page before; without it, the first page.")
    ] = None


class Shown(BaseModel):
    """What an answer holds."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Fault(Shown):
    """What is wrong with one field."""

    path: str = Field(description="Where, such as nodes[2].config.condition; empty for the whole.")
    message: str
    code: str | None = None
    hint: str | None = None


class Problem(Shown):
    """What was refused, and why (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Unprocessable Content"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["some of the values cannot be used"])
    hint: str | None = Field(default=None, description="How to go on.")
    errors: list[Fault] | None = None
    request_id: str | None = Field(
        default=None, description="Names the request in the log; the header x-request-id too."
    )


@dataclass(frozen=True)
class Operation:
    """What the OpenAPI document says about a route."""

    summary: str
    gives: type[BaseModel] | str | None
    """The shape of the answer; a media type for what is no JSON; None for no content."""
    takes: type[BaseModel] | None = None
    takes_needed: bool = True
    asks: type[BaseModel] | None = None
    status: int = 200
    also: Mapping[int, str] = field(default_factory=dict)
    """Further statuses with an answer of the same shape."""
    refuses: Sequence[int] = ()
    """Statuses of refusals beside those that every route has."""
    headers: Sequence[str] = ()
    """Request headers that it looks at."""
    example: Any = None
    answer: Any = None


class Refused(ClientException):
    """A refusal with the places that are wrong."""

    def __init__(self, detail: str, faults: Sequence[Mapping[str, Any]], status_code: int = 422) -> None:
        super().__init__(detail=detail, status_code=status_code)
        self.faults = [
            {name: fault[name] for name in ("path", "message", "code", "hint", "node") if fault.get(name) is not None}
            for fault in faults
        ]


class PreconditionRequired(HTTPException):
    """428: the request must say which state it was made for."""

    status_code = 428


Handler = Callable[[Callable[..., Any]], HTTPRouteHandler]


def _route(method: Callable[..., Any], path: str, needs: Needs, operation: Operation) -> Handler:
    def made(function: Callable[..., Any]) -> HTTPRouteHandler:
        opt = {"needs": needs, "operation": operation, "function": function}
        handler: HTTPRouteHandler = method(path, opt=opt, sync_to_thread=True, status_code=operation.status)(function)
        return handler

    return made


def get(path: str, summary: str, gives: type[BaseModel] | str, *, needs: Needs = "read", **more: Any) -> Handler:
    """A thing or a list."""
    return _route(litestar.get, path, needs, Operation(summary, gives, **more))


def post(path: str, summary: str, gives: type[BaseModel] | None, *, needs: Needs, **more: Any) -> Handler:
    """Something that begins or is done."""
    return _route(litestar.post, path, needs, Operation(summary, gives, **more))


def put(path: str, summary: str, gives: type[BaseModel], *, needs: Needs, **more: Any) -> Handler:
    """Something that is replaced."""
    return _route(litestar.put, path, needs, Operation(summary, gives, **more))


def patch(path: str, summary: str, gives: type[BaseModel], *, needs: Needs, **more: Any) -> Handler:
    """Something of which parts are changed."""
    return _route(litestar.patch, path, needs, Operation(summary, gives, **more))


def delete(path: str, summary: str, gives: type[BaseModel] | None = None, *, needs: Needs, **more: Any) -> Handler:
    """Something that goes."""
    more.setdefault("status", 204 if gives is None else 200)
    return _route(litestar.delete, path, needs, Operation(summary, gives, **more))


def router(*handlers: ControllerRouterHandler) -> Router:
    """The routes of one resource. Handlers may take `given`, the body, and `asked`, what stands in the address."""
    return Router(
        "/",
        route_handlers=list(handlers),
        dependencies={"given": Provide(read_body), "asked": Provide(read_question, sync_to_thread=False)},
        before_request=refuse_what_can_be_no_name,
        request_max_body_size=LARGEST_BODY,
        signature_namespace={"Desk": Desk},
    )


async def refuse_what_can_be_no_name(request: Request[Any, Any, Any]) -> None:
    """No name holds the character U+0000, which PostgreSQL cannot take, or half a character."""
    if any(not _storable(str(value)) for value in request.path_params.values()):
        raise NotFoundException("there is nothing of this name")


async def read_body(request: Request[Any, Any, Any], state: State) -> Any:
    """The dependency `given`: the body as the route's model, or None where one may be left out and is."""
    operation: Operation = request.route_handler.opt["operation"]
    assert operation.takes is not None
    source = await request.body()
    if not source and not operation.takes_needed:
        return None
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if source and kind != "application/json":
        raise HTTPException(status_code=415, detail=f"this is read as application/json, not as {kind[:100]}")
    return operation.takes.model_validate(json_text.decode(source, "body"))


def read_question(request: Request[Any, Any, Any]) -> Any:
    """The dependency `asked`: what stands in the address as the route's model."""
    operation: Operation = request.route_handler.opt["operation"]
    assert operation.asks is not None
    found: dict[str, Any] = {}
    for name, values in request.query_params.dict().items():
        if len(values) > 1:
            raise Refused("some of the values cannot be used", [{"path": name, "message": "is given more than once"}])
        if not _storable(name + values[0]):
            raise Refused("some of the values cannot be used", [{"path": name, "message": "holds no such characters"}])
        found[name] = values[0]
    return operation.asks.model_validate(found)


def answer(
    shape: type[BaseModel],
    value: Any,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:
    """A value in its shape."""
    shown = shape.model_validate(value).model_dump(mode="json", by_alias=True)
    text = json.dumps(shown, ensure_ascii=False, allow_nan=False)
    return Response(text.encode(), status_code=status, headers=dict(headers or {}), media_type="application/json")


def paged(shape: type[BaseModel], page: cursors.Page) -> Response[bytes]:
    """A page of a list, which has `items` and `next_cursor`."""
    return answer(shape, {"items": page.rows, "next_cursor": page.next})


def listed(item: type[BaseModel], name: str) -> type[BaseModel]:
    """The shape of a page of such items."""
    from pydantic import create_model

    return create_model(
        name,
        __base__=Shown,
        __doc__="One page of a list.",
        items=(list[item], ...),  # type: ignore[valid-type]
        next_cursor=(str | None, Field(description="The cursor of the next page; null on the last one.")),
    )


def number(text: str, what: str) -> int:
    """The number of a thing in an address; what can be none belongs to nothing."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise UnknownThing(f"there is no {what} {text[:40]!r}", hint="Numbers of things are digits and nothing else.")


def idempotency_key(desk: Desk) -> str | None:
    """The header Idempotency-Key."""
    key = desk.request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable() or not key.isascii():
        raise Refused(
            "the header Idempotency-Key cannot be used",
            [{"path": "Idempotency-Key", "message": f"has 1 to {LONGEST_KEY} plain characters"}],
        )
    return key


def fingerprint(*parts: Any) -> bytes:
    """Tells a request with a key from another one with the same key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).digest()


def jsonb(value: Any) -> Jsonb:
    """A value as a parameter of type jsonb."""
    return Jsonb(value, dumps=json_text.dumps)


def faults_of(error: InvalidPayload, prefix: str, mark: str = ": ") -> list[dict[str, str]]:
    """The places that the database names in the detail of its refusal, one a line, with `mark` behind each."""
    faults = []
    for line in (error.detail or "").splitlines():
        place, sign, message = line.partition(mark)
        if not sign or " " in place or line.startswith(f"the {prefix} "):
            place, message = "", line
        faults.append({"path": f"{prefix}.{place}".rstrip("."), "message": message})
    return faults or [{"path": prefix, "message": error.message}]


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
