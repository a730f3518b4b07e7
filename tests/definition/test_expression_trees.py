"""The expression compiler: golden trees and jsonpaths, and what it refuses, where, and with which way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.definition.expressions import compile_expression
from stellwerk.definition.functions import FUNCTIONS, function_table
from stellwerk.definition.grammar import ARGUMENTS
from stellwerk.definition.jsonpath import jsonpath_of

ROOT = Path(__file__).resolve().parent.parent.parent
CASES = json.loads((ROOT / "tests" / "cases" / "expressions.json").read_text())
EVALUATED = json.loads((ROOT / "tests" / "cases" / "evaluation.json").read_text())


@pytest.mark.parametrize(
    ("text", "tree", "jsonpath", "may_raise"), CASES["good"], ids=[case[0] for case in CASES["good"]]
)
def test_an_expression_becomes_its_golden_tree(text: str, tree: Any, jsonpath: str | None, may_raise: bool) -> None:
    expression = compile_expression(text)
    assert not expression.faults
    assert expression.tree == tree
    assert jsonpath_of(expression.tree) == jsonpath
    assert expression.may_raise is may_raise


@pytest.mark.parametrize(
    ("text", "code", "position", "hint"), CASES["bad"], ids=[case[0][:40] for case in CASES["bad"]]
)
def test_what_is_not_on_the_list_is_refused(text: str, code: str, position: int | None, hint: str | None) -> None:
    fault = compile_expression(text).faults[0]
    assert (fault.code, fault.position, fault.hint) == (code, position, hint)
    assert fault.message.endswith(".")


def test_all_faults_of_an_expression_are_told() -> None:
    faults = compile_expression("uper(triger.x) = foo(1) and vars.a::regclass and steps.s.otput").faults
    assert [fault.code for fault in faults] == ["unknown_function", "unknown_function", "not_allowed", "unknown_name"]


def test_an_argument_that_is_not_understood_is_never_overlooked() -> None:
    """sqlglot marks NOT by flags on some nodes; each admitted node lists what is read, and nothing else may be set."""
    for text, turned in (("vars.a like 'x'", "vars.a not like 'x'"), ("vars.a is null", "vars.a is not null")):
        assert compile_expression(turned).tree == ["not", compile_expression(text).tree]
    assert all(isinstance(names, frozenset) for names in ARGUMENTS.values())


def test_references_tell_where_each_name_stands() -> None:
    expression = compile_expression("coalesce(steps.check.output.x, vars.total) > trigger.payload.n")
    assert [(reference.path, reference.positions) for reference in expression.references] == [
        (("steps", "check", "output", "x"), (9, 15, 21, 28)),
        (("vars", "total"), (31, 36)),
        (("trigger", "payload", "n"), (45, 53, 61)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "not " * 5_000 + "true",
        "- " * 900 + "1",
        "lower(" * 29 + "now" + ")" * 29,
        "1" + "+1" * 499,
        "a." * 900 + "b",
        "case when " * 200,
    ],
)
def test_no_text_is_too_deep_for_an_answer(text: str) -> None:
    expression = compile_expression(text)
    assert expression.faults or expression.tree


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(
            [
                "vars",
                ".",
                "a",
                "[",
                "0",
                "]",
                "(",
                ")",
                "'",
                '"',
                "and",
                "not",
                "in",
                "like",
                "is",
                "null",
                "=",
                "<",
                "+",
                "-",
                "*",
                "/",
                "::",
                "case",
                "when",
                "then",
                "end",
                ";",
                "--",
                "/*",
                "*/",
                ",",
                "select",
                "$1",
                "?",
                "@",
                ":",
                "{{",
                "}}",
                "\\",
            ]
        ),
        max_size=12,
    ).map(" ".join)
)
def test_any_text_is_compiled_or_refused_with_a_message(text: str) -> None:
    expression = compile_expression(text)
    for fault in expression.faults:
        assert fault.message
        assert fault.position is None or 0 <= fault.position <= len(text)
    json.dumps(expression.tree)


def test_every_function_is_evaluated_by_a_case_and_stands_in_the_docs() -> None:
    texts = " ".join(case[0] for case in EVALUATED["cases"])
    assert [name for name in FUNCTIONS if f"{name}(" not in texts] == []
    assert function_table() in (ROOT / "docs" / "expressions.md").read_text()
