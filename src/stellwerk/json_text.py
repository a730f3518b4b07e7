"""JSON from outside, read strictly: what PostgreSQL could not store, or nobody meant, is refused with a reason."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from stellwerk.errors import InvalidPayload, LimitExceeded

LARGEST_BYTES = 8 * 1024 * 1024
DEEPEST = 64
LONGEST_NUMBER = 40
LARGEST_EXPONENT = 400

_SURROGATE = re.compile("[\ud800-\udfff]")
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)  # never tries a place twice


class JsonText(str):
    """JSON that was checked; its text goes to the database as it is, so that no digit of a number is lost."""


def checked(source: str | bytes, what: str = "payload") -> JsonText:
    """The text, if it is JSON that can be stored; raises `InvalidPayload` or `LimitExceeded`."""
    text = _text(source, what)
    decode(text, what)
    return JsonText(text)


def decode(source: str | bytes, what: str = "payload") -> Any:
    """The value; raises `InvalidPayload` or `LimitExceeded` as `checked` does."""
    text = _text(source, what)
    _check_depth(text, what)
    try:
        value = json.loads(
            text,
            parse_constant=lambda name: _refuse(f"the {what} holds {name}, which is no JSON"),
            parse_int=lambda digits: int(_number(digits, what)),
            parse_float=lambda digits: _decimal(_number(digits, what)),
            object_pairs_hook=lambda pairs: _object(pairs, what),
        )
    except json.JSONDecodeError as error:
        raise InvalidPayload(
            f"the {what} is no JSON: {error.msg} in line {error.lineno}, column {error.colno}",
            hint="Names and texts stand in double quotes; @FILE reads from a file." if what == "payload" else None,
        ) from None
    _check_texts(value, what)
    return value


def dumps(value: Any) -> str:
    """A value as JSON; refuses NaN and infinities."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_float)


def _float(value: Any) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def _text(source: str | bytes, what: str) -> str:
    size = len(source) if isinstance(source, bytes) else len(source.encode("utf-8", "surrogatepass"))
    if size > LARGEST_BYTES:
        raise LimitExceeded(
            f"the {what} has more than the {LARGEST_BYTES:,} bytes that are allowed",
            hint="Store large data in a table or a file and pass its id on.",
        )
    if isinstance(source, str):
        return source.removeprefix("\ufeff")
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidPayload(f"the {what} is not UTF-8 (byte {error.start})", hint="Save the file as UTF-8.") from None


def _check_depth(text: str, what: str) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        if match.group() in "[{":
            depth += 1
            if depth > DEEPEST:
                raise LimitExceeded(f"the {what} is nested more than {DEEPEST} levels deep")
        elif match.group() in "]}":
            depth -= 1


def _check_texts(value: Any, what: str) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidPayload(f"the {what} holds the character U+0000, which PostgreSQL cannot store")
        if _SURROGATE.search(value):
            raise InvalidPayload(f"the {what} holds half of a surrogate pair, which is no character")
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, what)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_texts(name, what)
            _check_texts(item, what)


def _number(digits: str, what: str) -> str:
    exponent = re.search(r"[eE]([+-]?\d+)$", digits)
    if len(digits) > LONGEST_NUMBER or (exponent and abs(int(exponent[1])) > LARGEST_EXPONENT):
        raise LimitExceeded(f"the {what} holds a number of more than {LONGEST_NUMBER} characters or too large a power")
    return digits


def _decimal(digits: str) -> float | Decimal:
    number = float(digits)
    return number if Decimal(repr(number)) == Decimal(digits) else Decimal(digits)


def _object(pairs: list[tuple[str, Any]], what: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidPayload(f"the {what} holds the name {twice!r} twice in one object")
    return result


def _refuse(message: str) -> None:
    raise InvalidPayload(message)
