"""The part of JSON Schema that Stellwerk knows. `schema_problems` in SQL validates payloads; this module refuses
unknown schemas when they are saved and gives the same verdicts in Python. tests/cases/json_schema.json keeps the
two equal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from stellwerk.definition.problems import did_you_mean

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")
FORMATS = ("email", "date", "date-time")
COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
NOTES = ("title", "description", "default", "examples", "$schema", "$comment")
KEYWORDS = (
    "type",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "minimum",
    "maximum",
    *COUNTS,
    "format",
    *NOTES,
)
MAX_DEPTH = 32
LIMIT = 20

EMAIL = re.compile(r"[^@<>\"(),:;]+@[^@<>\"(),:;.]+(\.[^@<>\"(),:;.]+)+\Z")
# Named one by one, as in SQL, where \s depends on the database's locale.
BLANK = re.compile("[\0-\x20\x7f-\xa0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]")
INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T([01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)\Z",
    re.ASCII,
)
NAMES = {
    "array": "a list",
    "object": "an object",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """What is wrong at a place of a schema, or of a value that was held against one."""

    path: str
    message: str
    hint: str | None = None


def schema_faults(schema: Any, path: str = "", depth: int = 0) -> list[SchemaFault]:
    """Why a schema cannot be used: unknown keywords, wrong values."""
    if not isinstance(schema, dict):
        return [SchemaFault(path, "A schema must be an object.", "An empty object allows everything.")]
    if depth > MAX_DEPTH:
        return [SchemaFault(path, f"The schema is nested deeper than {MAX_DEPTH} levels.")]
    faults: list[SchemaFault] = []

    def refuse(key: str, message: str, hint: str | None = None) -> None:
        faults.append(SchemaFault(member(path, key), message, hint))

    for key, value in schema.items():
        if key not in KEYWORDS and not key.startswith("x-"):
            refuse(
                key,
                f"The keyword {key[:60]!r} is not supported in schemas.",
                did_you_mean(key, KEYWORDS, listing="There are"),
            )
        elif key == "type":
            names = value if isinstance(value, list) else [value]
            if not names or any(not isinstance(name, str) or name not in TYPES for name in names):
                refuse(
                    key, "A type must be one of the JSON types, or a list of them.", f"There are: {', '.join(TYPES)}."
                )
        elif key == "required":
            if not isinstance(value, list) or any(not isinstance(name, str) for name in value):
                refuse(key, "required must be a list of names.")
        elif key == "properties":
            if not isinstance(value, dict):
                refuse(key, "properties must be an object of schemas.")
            else:
                for name, part in value.items():
                    faults += schema_faults(part, member(member(path, key), name), depth + 1)
        elif key == "items" or (key == "additionalProperties" and not isinstance(value, bool)):
            faults += schema_faults(value, member(path, key), depth + 1)
        elif key == "enum":
            if not isinstance(value, list) or not value:
                refuse(key, "enum must be a list with at least one value.")
        elif key in ("minimum", "maximum"):
            if not is_number(value):
                refuse(key, f"{key} must be a number.")
        elif key in COUNTS:
            if not is_number(value) or value != int(value) or value < 0:
                refuse(key, f"{key} must be a whole number, 0 or more.")
        elif key == "format" and (not isinstance(value, str) or value not in FORMATS):
            refuse(key, f"The format {str(value)[:60]!r} is not supported.", f"There are: {', '.join(FORMATS)}.")
    return faults


def value_faults(schema: Any, value: Any, path: str = "", depth: int = 0) -> list[SchemaFault]:
    """Where a value departs from its schema: up to 20 places, in the words of SQL's schema_problems."""
    if depth > 64:
        return [SchemaFault(path, "is nested deeper than 64 levels")]
    if not isinstance(schema, dict):
        return []
    kinds = schema.get("type")
    if kinds is not None:
        kinds = kinds if isinstance(kinds, list) else [kinds]
        kind = type_of(value)
        if kind not in kinds and not (kind == "number" and "integer" in kinds and value == int(value)):
            wanted = " or ".join(NAMES.get(str(name), str(name)) for name in kinds)
            return [SchemaFault(path, f"must be {wanted}, but is {NAMES.get(kind, kind)}")]
    faults: list[SchemaFault] = []
    if "enum" in schema and not any(same(value, choice) for choice in schema["enum"]):
        faults.append(SchemaFault(path, "must be one of the listed values"))
    if "const" in schema and not same(value, schema["const"]):
        faults.append(SchemaFault(path, "must be the given value"))
    if is_number(value):
        if value < schema.get("minimum", value):
            faults.append(SchemaFault(path, f"must be at least {schema['minimum']}"))
        if value > schema.get("maximum", value):
            faults.append(SchemaFault(path, f"must be at most {schema['maximum']}"))
    elif isinstance(value, str):
        faults += count_faults(schema, len(value), "minLength", "maxLength", "characters", path)
        if message := format_fault(schema.get("format"), value):
            faults.append(SchemaFault(path, message))
    elif isinstance(value, list):
        faults += count_faults(schema, len(value), "minItems", "maxItems", "items", path)
        if "items" in schema and len(value) <= schema.get("maxItems", len(value)):
            for place, item in enumerate(value):
                faults += value_faults(schema["items"], item, f"{path}[{place}]", depth + 1)
                if len(faults) >= LIMIT:
                    break
    elif isinstance(value, dict):
        faults += [
            SchemaFault(member(path, name), "is required") for name in schema.get("required", ()) if name not in value
        ]
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name in sorted(value, key=lambda key: (len(key.encode()), key.encode())):
            if name in properties:
                faults += value_faults(properties[name], value[name], member(path, name), depth + 1)
            elif others is False:
                faults.append(SchemaFault(member(path, name), "is not expected here"))
            elif isinstance(others, dict):
                faults += value_faults(others, value[name], member(path, name), depth + 1)
            if len(faults) >= LIMIT:
                break
    return faults[:LIMIT]


def count_faults(schema: dict[str, Any], size: int, least: str, most: str, what: str, path: str) -> list[SchemaFault]:
    faults = []
    if size < schema.get(least, 0):
        faults.append(SchemaFault(path, f"must have at least {schema[least]} {what}"))
    if size > schema.get(most, size):
        faults.append(SchemaFault(path, f"must have at most {schema[most]} {what}"))
    return faults


def format_fault(name: Any, text: str) -> str | None:
    if name == "email" and (len(text) > 320 or BLANK.search(text) or not EMAIL.match(text)):
        return "must be an email address"
    if name == "date" and not is_date(text):
        return "must be a date such as 2026-05-31"
    if name == "date-time" and (not INSTANT.match(text) or not is_date(text[:10])):
        return "must be a timestamp such as 2026-05-31T09:30:00Z"
    return None


def is_date(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII)) and isinstance(
            datetime.strptime(text, "%Y-%m-%d").date(), date
        )
    except ValueError:
        return False


def with_order(schema: Any, depth: int = 0) -> Any:
    """The schema with `x-order` wherever the order of the properties is not the one that jsonb gives them.

    A form shows its fields in the order in which they were written, and jsonb forgets that.
    """
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return schema
    found = {key: with_order(part, depth + 1) if key == "items" else part for key, part in schema.items()}
    properties = schema.get("properties")
    if isinstance(properties, dict):
        found["properties"] = {name: with_order(part, depth + 1) for name, part in properties.items()}
        forgotten = sorted(properties, key=lambda name: (len(name.encode()), name.encode()))
        if "x-order" not in schema and list(properties) != forgotten:
            found["x-order"] = list(properties)
    return found


def type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 equals 1.0, but true does not equal 1."""
    if type_of(left) != type_of(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(part, right[key]) for key, part in left.items())
    return bool(left == right)


def member(path: str, key: str) -> str:
    return f"{path}.{key[:200]}" if path else key[:200]
