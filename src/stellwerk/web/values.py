"""Data as people read it: values get a shape that templates/values.html draws, without braces or quotes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

DEEPEST = 5
MOST = 100
LONGEST = 4000
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)\Z", re.ASCII)
DAY = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)


@dataclass
class Shape:
    """kind: nothing, text, yes, no, moment, day, mail, link, list, group."""

    kind: str
    text: str = ""
    at: datetime | None = None
    parts: list[tuple[str, Shape]] = field(default_factory=list)
    more: int = 0


def shape(value: Any, depth: int = 0) -> Shape:
    """How a value is shown."""
    if value is None or value == "" or value == [] or value == {}:
        return Shape("nothing")
    if isinstance(value, bool):
        return Shape("yes" if value else "no")
    if isinstance(value, dict):
        if depth >= DEEPEST:
            return Shape("text", "…")
        parts = [(label(key), shape(part, depth + 1)) for key, part in list(value.items())[:MOST]]
        return Shape("group", parts=parts, more=max(len(value) - MOST, 0))
    if isinstance(value, list):
        if depth >= DEEPEST:
            return Shape("text", "…")
        if all(isinstance(part, (str, int, float)) for part in value) and len(value) <= 12:
            return Shape("text", ", ".join(map(str, value)))
        return Shape(
            "list", parts=[("", shape(part, depth + 1)) for part in value[:MOST]], more=max(len(value) - MOST, 0)
        )
    if isinstance(value, str):
        return _text(value)
    return Shape("text", str(value))


def label(key: str) -> str:
    """`first_name` as First name; what was written with capitals or spaces stays."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).replace("_", " ").strip()
    return plain[:1].upper() + plain[1:] if plain else key


def _text(value: str) -> Shape:
    if MOMENT.match(value):
        try:
            # Shown in UTC, which the first and the last hours of the calendar do not have.
            return Shape("moment", value, at=datetime.fromisoformat(value).astimezone(UTC))
        except (ValueError, OverflowError):
            pass
    if DAY.match(value):
        try:
            date.fromisoformat(value)
        except ValueError:
            return Shape("text", value)
        return Shape("day", value)
    if re.fullmatch(r"https?://[^\s<>\"']{1,2000}", value):
        return Shape("link", value)
    if re.fullmatch(r"[^\s@<>\"(),:;?&]{1,200}@[^\s@<>\"(),:;?&]+\.[^\s@<>\"(),:;?&.]+", value):
        return Shape("mail", value)
    return Shape("text", value[:LONGEST] + ("…" if len(value) > LONGEST else ""))
