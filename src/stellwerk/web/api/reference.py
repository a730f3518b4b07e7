"""`/schema`: the OpenAPI document, and the same as a page."""

from __future__ import annotations

import json
from typing import Any

from litestar import Request, Response, Router

from stellwerk.web import openapi, routes
from stellwerk.web.desk import Desk


@routes.get("/schema/openapi.json", needs="public")
def get_openapi(request: Request[Any, Any, Any]) -> Response[bytes]:
    """What the API offers; the same for everybody."""
    return Response(
        json.dumps(_document(request), ensure_ascii=False).encode(),
        media_type="application/json",
        headers={"cache-control": "public, max-age=300"},
    )


@routes.get("/schema", needs="anybody")
def show_reference(desk: Desk, request: Request[Any, Any, Any]) -> Any:
    """The document as people read it."""
    document = _document(request)
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            groups[operation["tags"][0]].append({"path": path, "method": method.upper(), **operation})
    return desk.page("schema/page.html", document=document, groups=groups, shape=_shape(document))


def _document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    state = request.app.state
    if "openapi" not in state:
        state.openapi = openapi.document(request.app)
    found: dict[str, Any] = state.openapi
    return found


def _shape(document: dict[str, Any]) -> Any:
    """For the template: the name of a schema, and one line on the kind of a value."""
    schemas = document["components"]["schemas"]

    def kind(schema: dict[str, Any]) -> str:
        if "$ref" in schema:
            return str(schema["$ref"].rpartition("/")[2])
        if "const" in schema:
            return json.dumps(schema["const"])
        if "enum" in schema:
            return " | ".join(json.dumps(value) for value in schema["enum"])
        if "anyOf" in schema:
            return " | ".join(kind(each) for each in schema["anyOf"])
        if schema.get("type") == "array":
            return f"[{kind(schema.get('items', {}))}]"
        said = schema.get("format") or schema.get("type") or "anything"
        return " | ".join(said) if isinstance(said, list) else str(said)

    def fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
        whole = schemas.get(schema["$ref"].rpartition("/")[2], {}) if "$ref" in schema else schema
        return [
            {
                "name": name,
                "kind": kind(each),
                "needed": name in whole.get("required", []),
                "text": each.get("description", ""),
            }
            for name, each in whole.get("properties", {}).items()
        ]

    return {"kind": kind, "fields": fields}


router = Router("/", route_handlers=[get_openapi, show_reference])
