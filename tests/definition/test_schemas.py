"""JSON Schema in Python: the same verdicts as the database, over the same cases; unknown keywords are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stellwerk.definition.schemas import schema_faults, value_faults

CASES = json.loads((Path(__file__).resolve().parent.parent / "cases" / "json_schema.json").read_text())


@pytest.mark.parametrize("case", CASES["values"], ids=lambda case: case["name"])
def test_python_tells_the_places_that_depart(case: dict[str, Any]) -> None:
    assert schema_faults(case["schema"]) == []
    for value, places in case["checks"]:
        assert sorted(fault.path for fault in value_faults(case["schema"], value)) == sorted(places), value


@pytest.mark.parametrize(
    ("schema", "places"), CASES["schemas"], ids=[json.dumps(case[0])[:40] for case in CASES["schemas"]]
)
def test_a_schema_that_cannot_be_kept_is_refused(schema: Any, places: list[str]) -> None:
    assert sorted(fault.path for fault in schema_faults(schema)) == sorted(places)


def test_a_schema_nested_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100):
        schema = {"items": schema}
    assert [fault.message for fault in schema_faults(schema)] == ["The schema is nested deeper than 32 levels."]
