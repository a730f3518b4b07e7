"""Literals of expressions: numbers that JSON carries without loss, LIKE patterns, intervals."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation


def read_number(text: str) -> int | float | None:
    """A literal number, if JSON and Python carry it without loss."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    if len(text) > 40 or not number.is_finite() or (number and abs(number.adjusted()) > 100):
        return None
    if number == number.to_integral_value() and number.adjusted() < 40:
        return int(number)
    return float(number) if Decimal(repr(float(number))) == number else None


def pattern_fault(pattern: str) -> str | None:
    """Why a LIKE pattern cannot be used: PostgreSQL raises where a pattern ends with its escape character."""
    trailing = len(pattern) - len(pattern.rstrip("\\"))
    return "The pattern ends with a single backslash." if trailing % 2 else None


UNITS = {
    "year": "Y",
    "month": "M",
    "week": "W",
    "day": "D",
    "hour": "TH",
    "minute": "TM",
    "second": "TS",
    "min": "TM",
    "sec": "TS",
    "mon": "M",
}
DURATION = re.compile(
    r"P(?=[-\dT])(-?\d{1,4}Y)?(-?\d{1,6}M)?(-?\d{1,6}W)?(-?\d{1,7}D)?(T(?=[-\d])(-?\d{1,8}H)?(-?\d{1,9}M)?(-?\d{1,12}(\.\d{1,9})?S)?)?\Z",
    re.ASCII,
)


def iso_duration(text: str) -> str | None:
    """An interval as people write it ('3 hours', '1 day 2 hours', 'P1D') as an ISO 8601 duration; None if it is
    none."""
    text = text.strip()
    if DURATION.match(text):
        return text
    words = re.findall(r"([+-]?\d{1,6}(?:\.\d{1,6})?)\s*([A-Za-z]+)", text)
    if not words or "".join("".join(pair) for pair in words) != re.sub(r"\s+", "", text):
        return None
    parts: dict[str, str] = {}
    for number, word in words:
        unit = UNITS.get(word.lower().removesuffix("s"))
        if unit is None or unit in parts or ("." in number and unit != "TS"):
            return None
        parts[unit] = number.lstrip("+")
    date = "".join(parts[unit] + unit for unit in "YMWD" if unit in parts)
    time = "".join(parts[unit] + unit[1] for unit in ("TH", "TM", "TS") if unit in parts)
    duration = f"P{date}{'T' + time if time else ''}"
    return duration if DURATION.match(duration) else None
