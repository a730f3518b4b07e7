"""Paging by a key: `?limit=&cursor=`. A page costs the same however far down it is, and none is seen twice."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stellwerk.errors import UsageError

DEFAULT = 50
LARGEST = 200


@dataclass(frozen=True)
class Page:
    """One page of a list: its rows, and the cursor of the next one, if there is one."""

    rows: list[dict[str, Any]]
    next: str | None


def size(limit: int | None) -> int:
    """How many rows a page may have."""
    if limit is None:
        return DEFAULT
    if not 1 <= limit <= LARGEST:
        raise UsageError(f"limit is {limit}", hint=f"It is a number from 1 to {LARGEST}.")
    return limit


def write(values: Sequence[Any]) -> str:
    """The key of the last row as it stands in an address."""
    return base64.urlsafe_b64encode(json.dumps(values, default=str).encode()).decode().rstrip("=")


def read(cursor: str | None, *kinds: type) -> list[Any] | None:
    """The key again; raises `UsageError` for what was not made by `write`."""
    if not cursor:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(values, list) or len(values) != len(kinds):
            raise ValueError
        return [kind(value) for kind, value in zip(kinds, values, strict=True)]
    except (ValueError, TypeError, binascii.Error):
        raise UsageError(
            "the cursor cannot be read", hint="Use the one of the page before, or none for the first page."
        ) from None


def page(rows: list[dict[str, Any]], limit: int, *key: str) -> Page:
    """A page of rows of which one more than `limit` was asked for.

    Where a search looks at so many rows at most, its last row may be one that is not `found`, and says where it
    stopped: the page is not full then, but another one may follow.
    """
    if rows and not rows[-1].get("found", True):
        return Page(rows[:-1], write([rows[-1][name] for name in key]))
    shown = rows[:limit]
    following = write([shown[-1][name] for name in key]) if len(rows) > limit else None
    return Page(shown, following)
