"""JSON text into values, strictly: what PostgreSQL's jsonb or another reader would refuse or change is a problem
here, never an exception."""

from __future__ import annotations

import json
import math
from typing import Any

from stellwerk.definition.problems import Problems

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_NUMBER = 40
MAX_EXPONENT = 100


class Refused(ValueError):
    """A value that stops the reading."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


def decode(source: str | bytes, problems: Problems) -> Any:
    """The value of a JSON text; None with a problem where it cannot be used."""
    if isinstance(source, bytes):
        try:
            source = source.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            problems.add("", "not_utf8", "The document is not UTF-8.", position=error.start, hint="Save it as UTF-8.")
            return None
    if len(source) > MAX_BYTES or len(source.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.add(
            "",
            "too_large",
            "The document is larger than 1 MB.",
            hint="Keep data in tables; a document holds only the workflow.",
        )
        return None
    if depth_of_text(source) > MAX_DEPTH:
        problems.add("", "too_deep", f"The document is nested deeper than {MAX_DEPTH} levels.")
        return None
    try:
        value = json.loads(
            source,
            parse_int=read_int,
            parse_float=read_float,
            parse_constant=refuse_constant,
            object_pairs_hook=refuse_duplicates,
        )
    except json.JSONDecodeError as error:
        message = f"The document is not JSON: {error.msg} in line {error.lineno}, column {error.colno}."
        problems.add(
            "",
            "not_json",
            message,
            position=error.pos,
            hint="Names and texts stand in double quotes, and no comma before a closing bracket.",
        )
        return None
    except Refused as error:
        problems.add("", error.code, error.message, hint=error.hint)
        return None
    except (RecursionError, ValueError):
        problems.add("", "not_json", "The document cannot be read as JSON.")
        return None
    return value if check_values(value, problems) else None


def check_values(value: Any, problems: Problems) -> bool:
    """Whether a value is JSON that jsonb can hold; adds a problem for each place that is not."""
    good = True
    stack: list[tuple[str, Any, int]] = [("", value, 1)]
    while stack:
        path, item, depth = stack.pop()
        fault: tuple[str, str] | None = None
        if isinstance(item, str):
            fault = text_fault(item)
        elif isinstance(item, (dict, list)):
            if depth > MAX_DEPTH:
                problems.add(path[:200], "too_deep", f"The document is nested deeper than {MAX_DEPTH} levels.")
                return False
            if isinstance(item, list):
                stack.extend((f"{path}[{place}]", part, depth + 1) for place, part in enumerate(item))
            else:
                for key, part in item.items():
                    if not isinstance(key, str) or text_fault(key):
                        fault = ("bad_text", "A name in this object holds a character that cannot be stored.")
                    else:
                        stack.append((member(path, key), part, depth + 1))
        elif isinstance(item, bool) or item is None:
            pass
        elif isinstance(item, int):
            if abs(item) >= 10**MAX_NUMBER:
                fault = ("bad_number", f"A number has more than {MAX_NUMBER} digits.")
        elif isinstance(item, float):
            if not math.isfinite(item):
                fault = ("bad_number", "NaN and infinity are no JSON numbers.")
        else:
            fault = ("not_json", f"A {type(item).__name__} is no JSON value.")
        if fault:
            good = False
            problems.add(path, fault[0], fault[1])
    return good


def text_fault(text: str) -> tuple[str, str] | None:
    if "\0" in text:
        return ("bad_text", "A text holds the character NUL, which PostgreSQL cannot store.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        return ("bad_text", "A text holds half of a surrogate pair.")
    return None


def member(path: str, key: str) -> str:
    return f"{path}.{key[:100]}" if path else key[:100]


def depth_of_text(text: str) -> int:
    """The deepest nesting of brackets outside of texts, counted without recursion."""
    deepest = depth = 0
    quoted = escaped = False
    for character in text:
        if quoted:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                quoted = False
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def read_int(text: str) -> int:
    if len(text) > MAX_NUMBER:
        raise Refused(
            "bad_number", f"The number {text[:20]}… is longer than {MAX_NUMBER} characters.", "Write it as a text."
        )
    return int(text)


def read_float(text: str) -> float:
    exponent = text.lower().partition("e")[2]
    if len(text) > MAX_NUMBER or (exponent and abs(int(exponent)) > MAX_EXPONENT):
        raise Refused("bad_number", f"The number {text[:20]} is too long or too large.", "Write it as a text.")
    return float(text)


def refuse_constant(name: str) -> Any:
    raise Refused("bad_number", f"{name} is no JSON number.", "Write null.")


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Refused("duplicate_key", f"The name {name[:60]!r} stands twice in one object.", "Remove one of them.")
    return result
