"""Forms from JSON Schema: what is posted comes back as data, and what is wrong is said at its field."""

from __future__ import annotations

from typing import Any

import pytest

from stellwerk.web import schema_forms

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["name", "lines"],
    "x-order": ["name", "age", "agreed", "lines"],
    "properties": {
        "age": {"type": "integer", "minimum": 18},
        "name": {"type": "string", "minLength": 2, "title": "Full name"},
        "agreed": {"type": "boolean"},
        "kind": {"enum": ["small", 7, True]},
        "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
        "call_at": {"type": "string", "format": "date-time"},
        "address": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}},
        "lines": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["sku"],
                "properties": {"sku": {"type": "string"}, "weight": {"type": "number"}},
            },
        },
        "extra": {},
    },
}


def english(text: str, **values: object) -> str:
    return text.format(**values) if values else text


def read(*pairs: tuple[str, str], schema: Any = ORDER) -> schema_forms.Reading:
    return schema_forms.read(schema, pairs, "Europe/Rome", english)


def faults(reading: schema_forms.Reading, schema: Any = ORDER) -> dict[str, str]:
    return schema_forms.faults(schema, reading, english)


def find(fields: list[schema_forms.Field], name: str) -> schema_forms.Field:
    found = [field for field in schema_forms._flat(fields) if field.name == name]
    assert len(found) == 1, name
    return found[0]


def test_texts_become_the_types_of_the_schema() -> None:
    reading = read(
        ("/name", "Ada"),
        ("/age", "36"),
        ("/agreed", "true"),
        ("/kind", "7"),
        ("/tags", "y"),
        ("/call_at", "2026-07-01T10:00"),
        ("/address/city", "Bolzano"),
        ("/lines/0/sku", "A-1"),
        ("/lines/0/weight", "1,5"),
        ("/extra", '{"a": [1]}'),
        ("outcome", "approve"),
    )
    assert reading.value == {
        "name": "Ada",
        "age": 36,
        "agreed": True,
        "kind": 7,
        "tags": ["y"],
        "call_at": "2026-07-01T10:00:00+02:00",
        "address": {"city": "Bolzano"},
        "lines": [{"sku": "A-1", "weight": 1.5}],
        "extra": {"a": [1]},
    }
    assert faults(reading) == {}


def test_what_is_left_empty_is_left_out_and_a_box_that_is_not_ticked_is_false() -> None:
    reading = read(("/name", ""), ("/age", " "), ("/address/city", ""), ("/lines/0", ""), ("/lines/0/sku", "A-1"))
    assert reading.value == {"agreed": False, "tags": [], "lines": [{"sku": "A-1"}]}
    assert faults(reading) == {"/name": "Please fill this in."}


def test_each_mistake_stands_at_its_field_and_what_was_typed_is_kept() -> None:
    reading = read(
        ("/name", "A"), ("/age", "old"), ("/lines/2/weight", "x"), ("/lines/9/sku", "B"), ("/call_at", "soon")
    )
    assert faults(reading) == {
        "/name": "Must have at least 2 characters.",
        "/age": "This is no whole number.",
        "/call_at": "This is no date with a time.",
        "/lines/0/weight": "This is no number.",
        "/lines/0/sku": "Please fill this in.",
    }
    again = schema_forms.fields(ORDER, reading.value, faults(reading), "Europe/Rome")
    assert find(again, "/age").value == "old"
    assert find(again, "/age").error == "This is no whole number."
    assert find(again, "/lines/1/sku").value == "B"
    assert find(again, "/lines").has_error


def test_a_form_shows_what_it_is_given_and_times_in_the_zone_of_the_page() -> None:
    fields = schema_forms.fields(
        ORDER, {"kind": True, "call_at": "2026-07-01T08:00:00Z", "tags": ["x"]}, {}, "Europe/Rome"
    )
    assert [field.label for field in fields][:3] == ["Full name", "Age", "Agreed"]
    assert find(fields, "/call_at").value == "2026-07-01T10:00"
    assert [choice.text for choice in find(fields, "/kind").choices if choice.chosen] == ["true"]
    assert [choice.text for choice in find(fields, "/tags").choices if choice.chosen] == ["x"]
    assert find(fields, "/name").required
    blank = find(fields, "/lines").blank
    assert blank is not None
    assert [field.name for field in blank.fields] == ["/lines/*/sku", "/lines/*/weight"]


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        "text",
        {"properties": []},
        {"properties": {"a": None}},
        {"type": ["string", "integer"], "properties": {"a": {"type": ["string", "integer"]}}},
        {"properties": {"a": {"type": "array", "items": []}}},
        {"properties": {"a": {"type": "object"}}},
        {"properties": {"a/b~c": {"type": "string"}, "": {}}},
    ],
)
def test_no_schema_breaks_the_page(schema: Any) -> None:
    reading = read(("/a", "1"), ("/a/0", "1"), ("/a~1b~0c", "x"), ("/", "y"), schema=schema)
    faults(reading, schema)
    schema_forms.fields(schema, reading.value, {}, "nowhere/at-all")


def test_a_schema_that_nests_too_deeply_becomes_a_field_for_json() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(12):
        schema = {"type": "object", "properties": {"a": schema}}
    deepest = "/a" * (schema_forms.DEEPEST + 1)
    fields = schema_forms.fields(schema, {})
    assert [field.kind for field in schema_forms._flat(fields)][-1] == "json"
    reading = read((deepest, "{"), schema=schema)
    assert reading.errors == {deepest: "This cannot be read as JSON."}


def test_rows_have_an_end_and_so_have_numbers() -> None:
    schema = {"properties": {"a": {"type": "array", "items": {"type": "string"}}, "n": {"type": "number"}}}
    reading = read(*((f"/a/{number}", "x") for number in range(5000)), ("/n", "1e999"), schema=schema)
    assert len(reading.value["a"]) == schema_forms.MOST_ROWS
    assert "/n" in reading.errors
    assert read(("/n", "9" * 500), schema=schema).errors
    assert read(("/a/0", "a\x00b"), schema=schema).value["a"] == ["ab"]
