"""The OpenAPI document, drawn from the routes and the shapes that they name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from stellwerk import __version__
from stellwerk.web.exchange import LARGEST_BODY, LONGEST_KEY, Operation, Problem

REF = "#/components/schemas/{model}"
NUMBERS = {"type": "string", "pattern": "^[0-9]{1,18}$"}
PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "slug": ({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,62}$"}, "The workflow."),
    "node_id": ({"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"}, "The node's id."),
    "table": ({"type": "string", "minLength": 1, "maxLength": 200}, "The table, as schema.name."),
    "email": ({"type": "string", "minLength": 3, "maxLength": 320}, "The user's e-mail address."),
    "run_id": (NUMBERS, "The run's number."),
    "task_id": (NUMBERS, "The task's number."),
    "case_id": (NUMBERS, "The case's number."),
    "token_id": (NUMBERS, "The token's number."),
    "operation_id": (NUMBERS, "The bulk operation's number."),
    "event_id": (NUMBERS, "The event's number."),
}
HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "If-Match": (
        {"type": "string", "maxLength": 200},
        "The ETag of what the change is made to; 412 if it is another by now.",
    ),
    "Idempotency-Key": (
        {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]+$"},
        "A text of your choice: the same request with the same key is done once, and answered alike.",
    ),
}
REFUSALS = {
    401: "Nobody is logged in, or the token is none (or no more).",
    403: "The role, or the token's scopes, do not hold the right that this needs.",
    404: "There is no such thing in this tenant.",
    409: "The thing is not in a state in which this can be done.",
    412: "It was changed in the meantime.",
    413: f"The body is larger than {LARGEST_BODY // 1024 // 1024} MB.",
    415: "The body is no JSON.",
    422: "Something that was sent cannot be used; `errors` says what.",
    428: "The header If-Match is needed here.",
    429: "Too many requests; Retry-After says when to come again.",
    503: "The database does not answer, or not in time; Retry-After says when to come again.",
}
ALWAYS = (401, 403, 404, 413, 415, 422, 429, 503)
INTRODUCTION = """Workflows, their runs, and what people do for them.

Programs send a token (`Authorization: Bearer …`, made by `stellwerk token create`), pages the cookie of their session.
Numbers of things are texts. Lists come in pages: `?limit=` and `?cursor=`, with `items` and `next_cursor`.
What is refused is a problem of RFC 9457 (`application/problem+json`) whose `errors` name the fields."""


def operations(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler, Operation]]:
    """Every route of the API: its path in braces, method, handler and description; sorted by path."""
    found: list[tuple[str, str, HTTPRouteHandler, Operation]] = []
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            operation = handler.opt.get("operation")
            if isinstance(operation, Operation):
                path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
                found.extend((path, method, handler, operation) for method in handler.http_methods - {"OPTIONS"})
    order = ("GET", "POST", "PUT", "PATCH", "DELETE")
    yield from sorted(found, key=lambda each: (each[0], order.index(each[1])))


def document(app: Litestar) -> dict[str, Any]:
    """The whole document, OpenAPI 3.1."""
    every = list(operations(app))
    models: set[type[BaseModel]] = {Problem}
    models |= {o.gives for *_, o in every if isinstance(o.gives, type)}
    given = {o.takes for *_, o in every if o.takes is not None}
    _, schemas = models_json_schema(
        [*((m, "serialization") for m in _sorted(models)), *((m, "validation") for m in _sorted(given))],
        ref_template=REF,
    )
    paths: dict[str, Any] = {}
    for path, method, handler, operation in every:
        paths.setdefault(path, {})[method.lower()] = _described(path, handler, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stellwerk", "version": __version__, "description": INTRODUCTION},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"session": []}],
        "tags": [{"name": name} for name in ORDER if any(tag(path) == name for path in paths)],
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "responses": {str(status): _refusal(status) for status in REFUSALS},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Made by `stellwerk token create`."},
                "session": {"type": "apiKey", "in": "cookie", "name": "stellwerk_session"},
            },
        },
    }


def tag(path: str) -> str:
    """What a path is about, for the contents of the page."""
    for part, name in TAGS.items():
        if part in path:
            return name
    return "definitions"


TAGS = {
    "/steps": "steps",
    "/trigger": "executions",
    "/executions": "executions",
    "/workflow-builder/": "executions",
    "/events": "row events",
    "/user-tasks": "tasks",
    "/analytics": "analytics",
    "/cases": "cases",
    "/audit": "accounts and audit",
    "/users": "accounts and audit",
    "/tokens": "accounts and audit",
}

ORDER = ("definitions", *dict.fromkeys(TAGS.values()))


def _described(path: str, handler: HTTPRouteHandler, operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": PLACES[name][0], "description": PLACES[name][1]}
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    if operation.asks is not None:
        parameters += _questions(operation.asks)
    for name in operation.headers:
        schema, text = HEADERS[name]
        needed = name == "If-Match" and 428 in operation.refuses
        parameters.append({"name": name, "in": "header", "required": needed, "schema": schema, "description": text})
    answers = {str(operation.status): _answer(operation, HTTPStatus(operation.status).phrase)}
    for status, text in operation.also.items():
        answers[str(status)] = _answer(operation, text)
    for status in sorted({*ALWAYS, *operation.refuses}):
        answers[str(status)] = {"$ref": f"#/components/responses/{status}"}
    described: dict[str, Any] = {
        "operationId": handler.opt["function"].__name__,
        "summary": operation.summary,
        "description": inspect.getdoc(handler.opt["function"]) or "",
        "tags": [tag(path)],
        "parameters": parameters,
        "responses": answers,
        "x-right": handler.opt["needs"],
    }
    if operation.takes is not None:
        content: dict[str, Any] = {"schema": {"$ref": REF.format(model=operation.takes.__name__)}}
        if operation.example is not None:
            content["example"] = operation.example
        described["requestBody"] = {
            "required": operation.takes_needed,
            "content": {"application/json": content},
        }
    return described


def _questions(asks: type[BaseModel]) -> list[dict[str, Any]]:
    schema = asks.model_json_schema(ref_template=REF)
    found = []
    for name, each in schema.get("properties", {}).items():
        text = each.pop("description", "")
        each.pop("title", None)
        # Null is said by leaving the parameter out.
        kinds = [kind for kind in each.pop("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:
            each = {**kinds[0], **each}
        if each.get("default", "") is None:
            each.pop("default")
        needed = name in schema.get("required", [])
        found.append({"name": name, "in": "query", "required": needed, "schema": each, "description": text})
    return found


def _answer(operation: Operation, text: str) -> dict[str, Any]:
    if operation.gives is None:
        return {"description": text}
    if isinstance(operation.gives, str):
        return {"description": text, "content": {operation.gives: {"schema": {"type": "string"}}}}
    content: dict[str, Any] = {"schema": {"$ref": REF.format(model=operation.gives.__name__)}}
    if operation.answer is not None:
        content["example"] = operation.answer
    return {"description": text, "content": {"application/json": content}}


def _refusal(status: int) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    described: dict[str, Any] = {"description": REFUSALS[status], "content": content}
    if status in (429, 503):
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return described


def _sorted(models: set[type[BaseModel]]) -> list[type[BaseModel]]:
    return sorted(models, key=lambda model: model.__name__)
