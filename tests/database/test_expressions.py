"""What expressions mean, asked of the database: `evaluate`, `truth`, `holds` and `render`."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stellwerk.definition.expressions import compile_expression
from stellwerk.definition.jsonpath import jsonpath_of
from stellwerk.definition.places import Places
from stellwerk.definition.problems import Problems

CASES = json.loads((Path(__file__).parent.parent / "cases" / "evaluation.json").read_text())
QUIET = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
]


def share(request: pytest.FixtureRequest, all_of_them: int) -> int:
    """Of a property's examples: all with --full, else a share."""
    return all_of_them if request.config.getoption("--full", default=False) else max(100, all_of_them // 40)


def evaluate(connection: psycopg.Connection[Any], text: str, context: Any = None) -> Any:
    expression = compile_expression(text)
    assert not expression.faults, expression.faults
    row = connection.execute(
        "select stellwerk.evaluate(%s, %s)", [json.dumps(expression.tree), json.dumps(context or {})]
    ).fetchone()
    assert row is not None
    return row[0]


def test_every_case_evaluates_as_written(tx: psycopg.Connection[Any]) -> None:
    wrong = []
    for text, expected in CASES["cases"]:
        found = evaluate(tx, text, CASES["context"])
        if found != expected or isinstance(found, bool) != isinstance(expected, bool):
            wrong.append((text, expected, found))
    assert not wrong


def test_truth_is_the_value_where_that_is_a_boolean(tx: psycopg.Connection[Any]) -> None:
    for text, expected in CASES["cases"]:
        row = tx.execute(
            "select stellwerk.truth(%s, %s)", [json.dumps(compile_expression(text).tree), json.dumps(CASES["context"])]
        ).fetchone()
        assert row is not None
        assert row[0] is (expected if isinstance(expected, bool) else None), text


@pytest.mark.parametrize("text", CASES["raises"])
def test_what_raises_is_known_to_raise(tx: psycopg.Connection[Any], text: str) -> None:
    assert compile_expression(text).may_raise
    with pytest.raises(psycopg.DataError), tx.transaction():
        evaluate(tx, text, CASES["context"])


def test_what_is_not_known_to_raise_does_not(tx: psycopg.Connection[Any], request: pytest.FixtureRequest) -> None:
    quiet = [text for text, _ in CASES["cases"] if not compile_expression(text).may_raise]

    @settings(max_examples=share(request, 2000), deadline=None, suppress_health_check=QUIET)
    @given(
        text=st.sampled_from(quiet),
        values=st.dictionaries(st.sampled_from(["n", "t", "b", "nul", "list", "obj", "d", "at", "bad", "num"]), VALUES),
    )
    def check(text: str, values: dict[str, Any]) -> None:
        context = {**CASES["context"], "trigger": {"payload": {**CASES["context"]["trigger"]["payload"], **values}}}
        evaluate(tx, text, context)

    check()


def test_unknown_is_false_for_holds(tx: psycopg.Connection[Any]) -> None:
    for text in ("vars.x = 1", "not vars.x = 1", "null", "vars.text"):
        tree = compile_expression(text).tree
        for condition in ({"tree": tree}, {"tree": tree, "jsonpath": jsonpath_of(tree)}):
            row = tx.execute(
                'select stellwerk.holds(%s, \'{"vars": {"text": "x"}}\')', [json.dumps(condition)]
            ).fetchone()
            assert row == (False,), text


# jsonpath means the same as the tree, or is not used.

KEYS = ["a", "b", "k x", 'q"', "ü😀", "0"]
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "A",
        "é",
        "z",
        "😀",
        "\uffff",
        "true",
        "5",
        "2026-01-31",
        "2026-01-31T10:00:00Z",
        "2026-01-31T08:00:00-02:00",
        "2026-02-30",
        "\\",
        '"',
    ]
)
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, -0.0, 1e15, 1.5e300, -1e-300, 10**39, 7.0]))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    TEXTS,
    st.text(max_size=3).filter(lambda text: "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)),
    max_leaves=6,
)
PATHS = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3).map(lambda names: ["path", *names])
LITERALS = SCALARS.map(lambda value: ["value", value])
OPERANDS = st.one_of(PATHS, PATHS, LITERALS)
LEAVES = st.one_of(
    PATHS,
    st.builds(lambda kind, a, b: [kind, a, b], st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]), PATHS, LITERALS),
    st.builds(
        lambda kind, a, b: [kind, a, b],
        st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "same"]),
        OPERANDS,
        OPERANDS,
    ),
    st.builds(lambda kind, a: [kind, a], st.sampled_from(["is_null", "is_true", "is_false"]), PATHS),
    st.builds(lambda a, items: ["in", a, *items], PATHS, st.lists(LITERALS, min_size=1, max_size=3)),
    st.builds(lambda a, low, high: ["between", a, low, high], PATHS, LITERALS, LITERALS),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda tree: ["not", tree]),
        st.builds(
            lambda kind, parts: [kind, *parts], st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)
        ),
    ),
    max_leaves=6,
)


def test_a_jsonpath_holds_exactly_when_its_tree_does(
    tx: psycopg.Connection[Any], request: pytest.FixtureRequest
) -> None:
    compared = 0

    @settings(max_examples=share(request, 10_000), deadline=None, suppress_health_check=QUIET)
    @given(tree=TREES, context=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
    def check(tree: list[Any], context: dict[str, Any]) -> None:
        nonlocal compared
        jsonpath = jsonpath_of(tree)
        if jsonpath is None:
            return
        compared += 1
        row = tx.execute(
            "select stellwerk.holds(jsonb_build_object('tree', t), c), stellwerk.holds(jsonb_build_object('tree', t, 'jsonpath', p), c)"
            " from (select %s::jsonb t, %s::jsonb c, %s::text p) x",
            [json.dumps(tree), json.dumps(context), jsonpath],
        ).fetchone()
        assert row is not None
        assert row[0] == row[1], (tree, context, jsonpath)

    check()
    assert compared > share(request, 10_000) / 4


# Parsing: where PostgreSQL reads a text without parentheses, ours has the same meaning or is refused.


def number_text(dice: random.Random, depth: int) -> str:
    if depth <= 0 or dice.random() < 0.3:
        return dice.choice(["1.0", "2.0", "3.5", "0.0", "1.0", "2.0", "null::numeric"])
    a, b = number_text(dice, depth - 1), number_text(dice, depth - 2)
    return dice.choice(
        [
            f"{a} {dice.choice('+-*/%')} {b}",
            f"{b} {dice.choice('+-*/%')} {a}",
            f"- {a}",
            f"case when {truth_text(dice, depth - 2)} then {a} else {b} end",
        ]
    )


def truth_text(dice: random.Random, depth: int) -> str:
    if depth <= 0:
        return dice.choice(["true", "false", "null::boolean"])
    a, b = number_text(dice, depth - 1), number_text(dice, depth - 2)
    x, y = truth_text(dice, depth - 1), truth_text(dice, depth - 2)
    no = dice.choice(["", "not "])
    return dice.choice(
        [
            f"{a} {dice.choice(['=', '<>', '<', '<=', '>', '>=', 'is distinct from', 'is not distinct from'])} {b}",
            f"{x} {dice.choice(['and', 'or', '='])} {y}",
            f"{y} {dice.choice(['and', 'or', '='])} {x}",
            f"not {x}",
            f"{x} {dice.choice(['is null', 'is not null', 'is true', 'is not false', 'isnull', 'notnull'])}",
            f"{a} {no}between {b} and {number_text(dice, depth - 2)}",
            f"{a} {no}in ({b}, 2.0)",
            f"'a' || {b}::text || 'b' = 'a' || {b}::text || 'b'",
            f"'abc' {no}like 'a' || 'bc' = {y}",
        ]
    )


def test_a_text_is_read_as_postgresql_reads_it(tx: psycopg.Connection[Any], request: pytest.FixtureRequest) -> None:
    compared, wanted = 0, share(request, 20_000)
    for seed in range(wanted):
        dice = random.Random(seed)
        text = dice.choice([truth_text, number_text])(dice, dice.randint(1, 5))
        expression = compile_expression(text)
        if expression.faults or len(text) > 1000:
            continue
        expected = native(tx, text)
        if expected is psycopg.errors.SyntaxError:
            continue
        compared += 1
        try:
            with tx.transaction():
                found = evaluate(tx, text)
        except psycopg.errors.DivisionByZero:
            found = psycopg.errors.DivisionByZero
        # AND and OR may look at their sides in any order in PostgreSQL; ours stop from left to right.
        if psycopg.errors.DivisionByZero not in (expected, found):
            assert same_value(found, expected), (text, expression.tree, found, expected)
    assert compared > wanted / 4


def native(connection: psycopg.Connection[Any], text: str) -> Any:
    try:
        with connection.transaction():
            row = connection.execute(f"select {text}").fetchone()  # our own generated text
    except psycopg.errors.DivisionByZero:
        return psycopg.errors.DivisionByZero
    except (psycopg.ProgrammingError, psycopg.errors.NumericValueOutOfRange):
        return psycopg.errors.SyntaxError
    assert row is not None
    return row[0]


def same_value(found: Any, expected: Any) -> bool:
    if isinstance(expected, Decimal) and isinstance(found, (int, float)):
        return abs(float(expected) - found) <= 1e-9 * max(1.0, abs(found))
    return found is expected if isinstance(expected, bool) or expected is None else bool(found == expected)


# Limits


def test_a_text_cannot_grow_beyond_a_megabyte(tx: psycopg.Connection[Any]) -> None:
    context = {"vars": {"long": "x" * 700_000}}
    for text in (
        "vars.long || vars.long",
        "concat(vars.long, vars.long)",
        "replace(vars.long, 'x', 'yyyy')",
        "replace(vars.long, 'x', vars.long)",
    ):
        with pytest.raises(psycopg.Error) as error, tx.transaction():
            evaluate(tx, text, context)
        assert error.value.sqlstate == "SW008"
        assert error.value.diag.message_hint
    places = Places(None, Problems())
    places.template("{{ vars.long }} {{ vars.long }}", "x", ["x"])
    with pytest.raises(psycopg.Error) as error, tx.transaction():
        tx.execute(
            "select stellwerk.render('{\"x\": null}', %s, %s)", [json.dumps(places.dynamic), json.dumps(context)]
        )
    assert error.value.sqlstate == "SW008"


def test_numbers_that_nobody_counts_with_are_null_in_arithmetic(tx: psycopg.Connection[Any]) -> None:
    context = '{"vars": {"big": 1e131071, "small": 1e-16000}}'
    for text in (
        "vars.big * vars.big",
        "vars.big + 1",
        "vars.small * 2",
        "-vars.big",
        "round(vars.big)",
        "abs(vars.small)",
    ):
        tree = json.dumps(compile_expression(text).tree)
        assert tx.execute("select stellwerk.evaluate(%s, %s)", [tree, context]).fetchone() == (None,), text
    tree = json.dumps(compile_expression("vars.big > 5 and vars.small < 1").tree)
    assert tx.execute("select stellwerk.evaluate(%s, %s)", [tree, context]).fetchone() == (True,)


def test_the_deepest_expression_that_compiles_can_be_evaluated(tx: psycopg.Connection[Any]) -> None:
    assert evaluate(tx, "1" + " + 1" * 97) == 98
    assert compile_expression("1" + " + 1" * 200).faults[0].code == "expression_too_complex"
    assert evaluate(tx, " and ".join(["true"] * 400)) is True


def test_a_foreign_tree_is_refused(tx: psycopg.Connection[Any]) -> None:
    for tree in (
        '["frobnicate", ["value", 1]]',
        "[]",
        "null",
        '"x"',
        '{"a": 1}',
        '["call", "pg_sleep", ["value", 1]]',
        '[["eq"]]',
    ):
        with pytest.raises(psycopg.Error) as error, tx.transaction():
            tx.execute("select stellwerk.evaluate(%s, '{}')", [tree])
        assert error.value.sqlstate == "SW006"


# Templates


def render(connection: psycopg.Connection[Any], config: Any, context: Any) -> Any:
    problems = Problems()
    places = Places(None, problems)
    static = places.walk(config, "config", [])
    assert not problems.found
    row = connection.execute(
        "select stellwerk.render(%s, %s, %s)", [json.dumps(static), json.dumps(places.dynamic), json.dumps(context)]
    ).fetchone()
    assert row is not None
    return row[0]


def test_render_keeps_types_and_joins_texts(tx: psycopg.Connection[Any]) -> None:
    context = {"vars": {"n": 5, "o": {"a": [1, None]}, "b": False, "t": "Ada", "nul": None}}
    config = {
        "whole": "{{ vars.n }}",
        "spaced": "  {{ vars.o }} ",
        "text": "{{ vars.t }}: {{ vars.n + 1 }}{{ vars.nul }}{{ vars.missing }}!",
        "object": "o={{ vars.o }}",
        "list": ["{{ vars.b }}", {"deep": {"deeper": "{{ upper(vars.t) }}"}}, 7],
        "nothing": "{{ vars.missing }}",
        "plain": "no { braces } here }}",
        "braces": "{{ '{{ x }}' }}",
    }
    assert render(tx, config, context) == {
        "whole": 5,
        "spaced": {"a": [1, None]},
        "text": "Ada: 6!",
        "object": 'o={"a": [1, null]}',
        "list": [False, {"deep": {"deeper": "ADA"}}, 7],
        "nothing": None,
        "plain": "no { braces } here }}",
        "braces": "{{ x }}",
    }


def test_values_from_outside_are_never_evaluated_again(tx: psycopg.Connection[Any]) -> None:
    evil = "{{ vars.secret }} ${ secret } ' || '"
    context = {"vars": {"evil": evil, "secret": "s"}, "trigger": {"payload": {"list": [evil]}}}
    assert render(
        tx, {"a": "{{ vars.evil }}", "b": "x{{ vars.evil }}", "c": "{{ trigger.payload.list }}"}, context
    ) == {
        "a": evil,
        "b": "x" + evil,
        "c": [evil],
    }


def test_the_session_s_settings_do_not_matter(tx: psycopg.Connection[Any]) -> None:
    for setting in (
        "timezone = 'Asia/Tokyo'",
        "intervalstyle = 'postgres_verbose'",
        "datestyle = 'SQL, DMY'",
        "extra_float_digits = 0",
    ):
        tx.execute(f"set local {setting}")
    for text, expected in CASES["cases"]:
        assert evaluate(tx, text, CASES["context"]) == expected, text
