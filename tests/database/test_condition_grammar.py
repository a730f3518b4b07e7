"""Conditions of row triggers: the database admits what Python admits, and refuses what Python refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

CASES = json.loads((Path(__file__).resolve().parent.parent / "cases" / "trigger_conditions.json").read_text())


def compile_condition(connection: psycopg.Connection[Any], text: str) -> str:
    columns = ", ".join(f'"{name}" {kind}' for name, kind in CASES["columns"].items())
    connection.execute(f"create temporary table if not exists watched ({columns})")
    row = connection.execute("select stellwerk.compile_condition('watched', 'insert', %s)", [text]).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("text", CASES["good"])
def test_the_database_admits_what_python_admits(tx: psycopg.Connection[Any], text: str) -> None:
    assert compile_condition(tx, text)


@pytest.mark.parametrize("text", [case[0] for case in CASES["bad"]])
def test_the_database_refuses_what_python_refuses(tx: psycopg.Connection[Any], text: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        compile_condition(tx, text)
    assert error.value.sqlstate == "SW006"
