"""The HTTP API: one module per resource; all of it JSON, errors as problem+json."""

from __future__ import annotations

from litestar import Router

ROUTERS: list[Router] = []
