"""Route decorators: each says which right it needs, and runs in a thread, for it waits for the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import litestar
from litestar.handlers import HTTPRouteHandler

from stellwerk.web.access import Right

Decorator = Callable[[Callable[..., Any]], HTTPRouteHandler]
Needs = Right | Literal["anybody", "public"]


def get(path: str | list[str], *, needs: Needs = "read", **more: Any) -> Decorator:
    """A page or a list."""
    return litestar.get(path, opt={"needs": needs}, sync_to_thread=True, **more)


def post(path: str | list[str], *, needs: Needs, **more: Any) -> Decorator:
    """Something that begins or is done."""
    return litestar.post(path, opt={"needs": needs}, sync_to_thread=True, **more)


def put(path: str | list[str], *, needs: Needs, **more: Any) -> Decorator:
    """Something that is replaced."""
    return litestar.put(path, opt={"needs": needs}, sync_to_thread=True, **more)


def patch(path: str | list[str], *, needs: Needs, **more: Any) -> Decorator:
    """Something of which parts are changed."""
    return litestar.patch(path, opt={"needs": needs}, sync_to_thread=True, **more)


def delete(path: str | list[str], *, needs: Needs, **more: Any) -> Decorator:
    """Something that goes."""
    return litestar.delete(path, opt={"needs": needs}, sync_to_thread=True, **more)
