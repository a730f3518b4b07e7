"""Forms from JSON Schema: `fields` lays one out, `read` takes what was posted back, `faults` says what is wrong.

A field's name in the page is its JSON pointer, such as `/address/street` or `/items/0/name`, so that nothing else on
the page collides with it. templates/schema_form.html draws the fields. What the schema leaves open, or nests too
deeply to be drawn, is a field for JSON text. A value that cannot be read stays in the data as the text that was typed,
with an error at its place; so a draft loses nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stellwerk.definition.schemas import value_faults

DEEPEST = 6
MOST_ROWS = 200
LONG_TEXT = 200
ROW = "*"  # stands for the number of a row in the template of a list

WHOLE = re.compile(r"[+-]?[0-9]{1,30}\Z")
NUMBER = re.compile(r"[+-]?[0-9]{1,30}([.,][0-9]{1,30})?([eE][+-]?[0-9]{1,2})?\Z")

Translate = Callable[..., str]
Schema = Mapping[str, Any]


@dataclass
class Choice:
    """One value of several."""

    text: str
    label: str
    chosen: bool


@dataclass
class Field:
    """A place of the form; its kind is one of those that `kind_of` answers."""

    kind: str
    name: str
    path: str
    label: str
    help: str = ""
    required: bool = False
    value: str = ""
    checked: bool = False
    error: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    blank: Field | None = None

    @property
    def id(self) -> str:
        """For the label and the messages of the field."""
        return "field" + re.sub(r"[^A-Za-z0-9*]", "-", self.name)

    @property
    def has_error(self) -> bool:
        """Whether something is wrong here or inside."""
        return self.error is not None or any(part.has_error for part in self.fields)


@dataclass(frozen=True)
class Reading:
    """What was posted: the value, and what could not be read, by JSON pointer."""

    value: Any
    errors: dict[str, str]


def fields(
    schema: Any, value: Any = None, errors: Mapping[str, str] | None = None, zone: str | None = None
) -> list[Field]:
    """The form of an object; `errors` are messages by JSON pointer, `zone` is the one in which times are shown."""
    if not isinstance(schema, dict):
        return []
    return _Layout(schema, errors or {}, _zone(zone)).root(value)


def read(schema: Any, posted: Iterable[tuple[str, str]], zone: str | None = None, t: Translate = str.format) -> Reading:
    """The value that was filled in; empty places are left out."""
    texts: dict[str, list[str]] = {}
    for name, text in posted:
        if name.startswith("/"):
            texts.setdefault(name, []).append(text.replace("\x00", "").replace("\r\n", "\n"))
    if not isinstance(schema, dict):
        return Reading({}, {})
    reader = _Reader(schema, texts, _zone(zone), t)
    value = reader.group(schema, "", 0)
    return Reading({} if value is MISSING else value, reader.errors)


def faults(schema: Any, reading: Reading, t: Translate = str.format) -> dict[str, str]:
    """What is wrong with the value, by JSON pointer, in the words of the page."""
    found = dict(reading.errors)
    paths = {place.path: place.name for place in _flat(fields(schema, reading.value))}
    for fault in value_faults(schema, reading.value):
        name = paths.get(fault.path, "")
        if not any(name == known or name.startswith(known + "/") for known in reading.errors):
            found.setdefault(name, in_words(fault.message, t))
    return found


def in_words(message: str, t: Translate) -> str:
    """A message of the schema's validator as people who fill in a form read it."""
    if message == "is required":
        return t("Please fill this in.")
    if message == "must be an email address":
        return t("This is no e-mail address.")
    if message.startswith("must be a date"):
        return t("This is no date.")
    if message.startswith("must be a timestamp"):
        return t("This is no date with a time.")
    if message.startswith(("must be one of", "must be the given")):
        return t("Please choose one of the values.")
    if found := re.fullmatch(r"must be at least (\S+)", message):
        return t("Must be at least {limit}.", limit=found[1])
    if found := re.fullmatch(r"must be at most (\S+)", message):
        return t("Must be at most {limit}.", limit=found[1])
    if found := re.fullmatch(r"must have at least (\S+) characters", message):
        return t("Must have at least {limit} characters.", limit=found[1])
    if found := re.fullmatch(r"must have at most (\S+) characters", message):
        return t("Must have at most {limit} characters.", limit=found[1])
    if found := re.fullmatch(r"must have at least (\S+) items", message):
        return t("At least {limit} entries are needed.", limit=found[1])
    if found := re.fullmatch(r"must have at most (\S+) items", message):
        return t("At most {limit} entries are possible.", limit=found[1])
    return t("This value cannot be used here.")


def moment(text: str, zone: str | None) -> datetime | None:
    """A time that was typed into a field of the page, in the zone of the page; None for what is no time."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=_zone(zone))


def local_time(at: datetime | None, zone: str | None) -> str:
    """A time as a field of the page takes it."""
    return "" if at is None else at.astimezone(_zone(zone)).replace(tzinfo=None).isoformat(timespec="minutes")


def kind_of(schema: Schema, depth: int = 0) -> str:
    """How a place is drawn."""
    types = _types(schema)
    widget = schema.get("widget", schema.get("x-widget"))
    if "const" in schema:
        return "fixed"
    if isinstance(schema.get("enum"), list):
        return "choice"
    if types == ["object"] or (not types and isinstance(schema.get("properties"), dict)):
        drawn = isinstance(schema.get("properties"), dict) and schema["properties"] and depth < DEEPEST
        return "group" if drawn else "json"
    if types == ["array"] or (not types and isinstance(schema.get("items"), dict)):
        items = schema.get("items")
        if not isinstance(items, dict) or depth >= DEEPEST:
            return "json"
        return "choices" if isinstance(items.get("enum"), list) else "list"
    if types == ["boolean"]:
        return "flag"
    if types == ["integer"]:
        return "whole"
    if types == ["number"] or set(types) == {"integer", "number"}:
        return "number"
    if types == ["string"]:
        given = {"email": "email", "date": "date", "date-time": "moment"}.get(str(schema.get("format")))
        long = widget in ("textarea", "code") or _count(schema.get("maxLength")) > LONG_TEXT
        return given or ("long" if long else "text")
    return "json"


def ordered(schema: Schema) -> list[tuple[str, Schema]]:
    """The properties in the order of `x-order`; without one, as they stand, what is required first."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return []
    order = schema.get("x-order") or schema.get("required")
    names = [name for name in order if isinstance(name, str)] if isinstance(order, list) else []
    names += [name for name in properties if name not in names]
    return [(n, properties[n] if isinstance(properties[n], dict) else {}) for n in names if n in properties]


MISSING: Any = object()


class _Layout:
    """Lays a form out around a value."""

    def __init__(self, schema: Schema, errors: Mapping[str, str], zone: ZoneInfo) -> None:
        self.schema, self.errors, self.zone = schema, errors, zone

    def root(self, value: Any) -> list[Field]:
        return self.members(self.schema, value, "", "", 0)

    def members(self, schema: Schema, value: Any, name: str, path: str, depth: int) -> list[Field]:
        required = schema.get("required")
        needed = set(required) if isinstance(required, list) else set()
        given = value if isinstance(value, dict) else {}
        return [
            self.place(
                part,
                given.get(key, MISSING),
                name=f"{name}/{_escaped(key)}",
                path=f"{path}.{key[:200]}" if path else key[:200],
                label=str(part.get("title") or _readable(key)),
                required=key in needed,
                depth=depth,
            )
            for key, part in ordered(schema)
        ]

    def place(
        self, schema: Schema, value: Any, *, name: str, path: str, label: str, required: bool, depth: int
    ) -> Field:
        kind = kind_of(schema, depth)
        if value is MISSING:
            value = schema.get("const", schema.get("default"))
        found = Field(
            kind, name, path, label, str(schema.get("description") or ""), required, error=self.errors.get(name)
        )
        if kind == "group":
            found.fields = self.members(schema, value, name, path, depth + 1)
        elif kind == "list":
            rows = value if isinstance(value, list) else []
            found.fields = [
                self.row(schema, row, name, path, number, depth) for number, row in enumerate(rows[:MOST_ROWS])
            ]
            found.blank = self.row(schema, MISSING, name, path, ROW, depth)
        elif kind == "choice":
            found.choices = [
                Choice(_text(each), _label(each), each == value) for each in schema["enum"] if each is not None
            ]
        elif kind == "choices":
            chosen = value if isinstance(value, list) else []
            found.choices = [Choice(_text(each), _label(each), each in chosen) for each in schema["items"]["enum"]]
        elif kind == "flag":
            found.checked = value is True
        else:
            found.value = self.shown(kind, value)
            found.limits = _limits(kind, schema)
        return found

    def row(self, schema: Schema, value: Any, name: str, path: str, number: int | str, depth: int) -> Field:
        items = schema["items"]
        return self.place(
            items,
            value,
            name=f"{name}/{number}",
            path=f"{path}[{number}]",
            label=str(items.get("title") or ""),
            required=False,
            depth=depth + 1,
        )

    def shown(self, kind: str, value: Any) -> str:
        if value is None:
            return ""
        if kind == "moment" and isinstance(value, str):
            return _local(value, self.zone)
        if kind == "json" and not isinstance(value, str):
            return json.dumps(value, ensure_ascii=False, indent=2)
        return _text(value)


class _Reader:
    """Puts a value together from the texts that were posted."""

    def __init__(self, schema: Schema, texts: dict[str, list[str]], zone: ZoneInfo, t: Translate) -> None:
        self.schema, self.texts, self.zone, self.t = schema, texts, zone, t
        self.errors: dict[str, str] = {}

    def group(self, schema: Schema, name: str, depth: int) -> Any:
        required = schema.get("required")
        needed = set(required) if isinstance(required, list) else set()
        value, filled = {}, False
        for key, part in ordered(schema):
            place = f"{name}/{_escaped(key)}"
            found = self.place(part, place, key in needed, depth)
            if found is not MISSING:
                value[key] = found
                filled = filled or not (found is False or found == [] or kind_of(part, depth) == "fixed")
        return value if filled or depth == 0 else MISSING

    def place(self, schema: Schema, name: str, required: bool, depth: int) -> Any:
        kind = kind_of(schema, depth)
        if kind == "fixed":
            return schema["const"]
        if kind == "group":
            found = self.group(schema, name, depth + 1)
            return {} if found is MISSING and required else found
        if kind == "list":
            return self.rows(schema, name, required, depth)
        if kind == "flag":
            return name in self.texts
        if kind == "choices":
            texts = self.texts.get(name, [])
            return [each for each in schema["items"]["enum"] if _text(each) in texts]
        text = self.texts.get(name, [""])[0]
        if kind == "choice":
            if text == "":
                return MISSING
            return next((each for each in schema["enum"] if _text(each) == text), text)
        if not text.strip() and not (kind == "json" and required):
            return MISSING
        return self.single(kind, schema, text, name)

    def rows(self, schema: Schema, name: str, required: bool, depth: int) -> Any:
        start = len(name) + 1
        numbers = {n[start:].partition("/")[0] for n in self.texts if n.startswith(name + "/")}
        places = sorted(int(n) for n in numbers if n.isascii() and n.isdigit() and len(n) < 7)
        value: list[Any] = []
        for number in places[:MOST_ROWS]:
            before = len(value)
            found = self.place(schema["items"], f"{name}/{number}", False, depth + 1)
            if found is MISSING and kind_of(schema["items"], depth + 1) == "group":
                found = {}
            if found is MISSING:
                continue
            self.renumber(f"{name}/{number}", f"{name}/{before}")
            value.append(found)
        return MISSING if not value and not required and schema.get("minItems") else value

    def renumber(self, old: str, new: str) -> None:
        """Rows that were taken away leave gaps; an error follows its row."""
        if old != new:
            for place in [p for p in self.errors if p == old or p.startswith(old + "/")]:
                self.errors[new + place[len(old) :]] = self.errors.pop(place)

    def single(self, kind: str, schema: Schema, text: str, name: str) -> Any:
        plain = text.strip()
        if kind in ("whole", "number"):
            if kind == "whole" and WHOLE.match(plain):
                return int(plain)
            if kind == "number" and NUMBER.match(plain):
                return int(plain) if WHOLE.match(plain) else float(plain.replace(",", "."))
            words = self.t("This is no whole number.") if kind == "whole" else self.t("This is no number.")
            self.errors[name] = words
            return text
        if kind == "moment":
            return self.moment(plain, name)
        if kind == "json":
            try:
                return json.loads(text, parse_constant=_no_constant)
            except (ValueError, RecursionError):
                if _types(schema) or "properties" in schema or "items" in schema:
                    self.errors[name] = self.t("This cannot be read as JSON.")
                return text
        return plain if kind in ("email", "date") else text

    def moment(self, text: str, name: str) -> str:
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.errors[name] = self.t("This is no date with a time.")
            return text
        return (at if at.tzinfo else at.replace(tzinfo=self.zone)).isoformat()


def _flat(places: list[Field]) -> Iterable[Field]:
    for place in places:
        yield place
        yield from _flat(place.fields)


def _types(schema: Schema) -> list[str]:
    given = schema.get("type")
    types = given if isinstance(given, list) else [given]
    return [each for each in types if isinstance(each, str) and each != "null"]


def _limits(kind: str, schema: Schema) -> dict[str, Any]:
    names = {
        "whole": {"minimum": "min", "maximum": "max"},
        "number": {"minimum": "min", "maximum": "max"},
        "text": {"minLength": "minlength", "maxLength": "maxlength"},
        "long": {"minLength": "minlength", "maxLength": "maxlength"},
        "email": {"maxLength": "maxlength"},
    }.get(kind, {})
    return {attribute: schema[key] for key, attribute in names.items() if isinstance(schema.get(key), (int, float))}


def _count(value: Any) -> float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _label(value: Any) -> str:
    return _readable(value) if isinstance(value, str) else _text(value)


def _readable(key: str) -> str:
    """`first_name` as First name; what holds capitals or spaces stays as it was written."""
    if re.fullmatch(r"[a-z0-9_]+", key):
        return key.replace("_", " ").strip().capitalize() or key
    return key


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def _local(text: str, zone: ZoneInfo) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (at.astimezone(zone) if at.tzinfo else at).replace(tzinfo=None).isoformat(timespec="minutes")


def _no_constant(name: str) -> Any:
    raise ValueError(name)
