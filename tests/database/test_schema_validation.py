"""JSON Schema: SQL and Python give the same verdicts over the shared cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

CASES = json.loads((Path(__file__).parent.parent / "cases" / "json_schema.json").read_text())["values"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_sql_tells_the_places_that_depart(tx: psycopg.Connection[Any], case: dict[str, Any]) -> None:
    for value, places in case["checks"]:
        row = tx.execute(
            "select stellwerk.schema_problems(%s, %s)", [json.dumps(case["schema"]), json.dumps(value)]
        ).fetchone()
        assert row is not None
        assert sorted(problem["path"] for problem in row[0]) == sorted(places), (value, row[0])
        assert all(problem["message"] for problem in row[0])


def test_no_schema_allows_everything(tx: psycopg.Connection[Any]) -> None:
    assert tx.execute(
        "select stellwerk.schema_problems(null, '1'), stellwerk.schema_problems('{}', null)"
    ).fetchone() == ([], [])


def test_at_most_twenty_places_are_told(tx: psycopg.Connection[Any]) -> None:
    schema = '{"items": {"type": "string"}, "additionalProperties": false}'
    for value in ([1] * 100_000, {f"k{number}": 1 for number in range(1000)}):
        row = tx.execute(
            "select jsonb_array_length(stellwerk.schema_problems(%s, %s))", [schema, json.dumps(value)]
        ).fetchone()
        assert row == (20,)


def test_a_deep_value_under_a_recursive_looking_schema_is_bounded(tx: psycopg.Connection[Any]) -> None:
    schema: dict[str, Any] = {"type": "array"}
    value: list[Any] = []
    for _ in range(70):
        schema, value = {"type": "array", "items": schema}, [value]
    row = tx.execute("select stellwerk.schema_problems(%s, %s)", [json.dumps(schema), json.dumps(value)]).fetchone()
    assert row is not None
    assert row[0][0]["message"] == "is nested deeper than 64 levels"
