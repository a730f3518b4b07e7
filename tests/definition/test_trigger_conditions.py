"""Conditions of row triggers: what may stand in a WHEN, and what is said about the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stellwerk.definition.trigger_when import when_faults

CASES = json.loads((Path(__file__).resolve().parent.parent / "cases" / "trigger_conditions.json").read_text())
COLUMNS = tuple(CASES["columns"])


@pytest.mark.parametrize("text", CASES["good"])
def test_the_grammar_of_when_is_admitted(text: str) -> None:
    assert when_faults(text, ["insert", "update"], COLUMNS) == []


@pytest.mark.parametrize(("text", "code", "position", "hint"), CASES["bad"], ids=[case[0] for case in CASES["bad"]])
def test_anything_else_is_refused_with_its_place(text: str, code: str, position: int | None, hint: str | None) -> None:
    faults = when_faults(text, ["insert"], COLUMNS)
    assert faults, text
    assert faults[0].code == code, faults
    if position is not None:
        assert faults[0].position == position, faults
    if hint is not None:
        assert faults[0].hint == hint


def test_rows_must_exist_for_every_operation() -> None:
    assert when_faults("old.status <> new.status", ["update"]) == []
    assert [fault.message for fault in when_faults("old.status <> new.status", ["update", "delete"])] == [
        "There is no new row on delete."
    ]
    assert when_faults("old.status = 'x'", ["delete", "update"]) == []


def test_without_columns_only_the_grammar_is_checked() -> None:
    assert when_faults("new.anything = 1", ["insert"]) == []
