"""Bad documents: every problem is told at once, with its place, a code, one sentence, and a hint."""

from __future__ import annotations

import json
from typing import Any

import pytest
from definition.helpers import document, log, node, when
from hypothesis import given, settings
from hypothesis import strategies as st

from stellwerk.definition.compile import compile_workflow

ROW = {
    "slug": "test",
    "nodes": [
        node(
            "start", "trigger.row", table="a; drop table b", on=["insert", "updat"], when="new.x::int = 1 and old.y = 2"
        )
    ],
}
LOOP = document(
    node("each", "logic.loop", items=[1]), log("a"), log("b"), ways="start>each each:each>a a>b each:done>b"
)

# (document, [(path, code, position, part of the hint)]); the order does not matter, and nothing else may be told.
TABLE: dict[str, tuple[Any, list[tuple[str, str, int | None, str | None]]]] = {
    "no object": ([], [("", "bad_type", None, "slug")]),
    "no JSON": ('{"slug": "x",', [("", "not_json", 13, "double quotes")]),
    "no UTF-8": (b'{"slug": "\xff"}', [("", "not_utf8", 10, "UTF-8")]),
    "NUL": ('{"slug":"a\\u0000"}', [("slug", "bad_text", None, None)]),
    "half a surrogate pair": ('{"slug":"\\ud800"}', [("slug", "bad_text", None, None)]),
    "NUL in a name": ('{"a":{"\\u0000":1}}', [("a", "bad_text", None, None)]),
    "NaN": ('{"slug":NaN}', [("", "bad_number", None, "null")]),
    "NaN as a value": ({"slug": float("nan")}, [("slug", "bad_number", None, None)]),
    "huge number": ('{"slug":1e131071}', [("", "bad_number", None, "text")]),
    "long number": ('{"slug":' + "1" * 41 + "}", [("", "bad_number", None, "text")]),
    "long number as a value": ({"slug": 10**40}, [("slug", "bad_number", None, None)]),
    "no JSON value": ({"slug": {1, 2}}, [("slug", "not_json", None, None)]),
    "name twice": ('{"slug":"a","slug":"b"}', [("", "duplicate_key", None, "Remove")]),
    "depth 10,000": ("[" * 10_000 + "]" * 10_000, [("", "too_deep", None, None)]),
    "depth 100,000, open": ('{"a":' * 100_000, [("", "too_deep", None, None)]),
    "large": (json.dumps({"slug": "x" * 1_000_001}), [("", "too_large", None, "tables")]),
    "large as a value": ({"slug": "x" * 1_000_001}, [("", "too_large", None, "tables")]),
    "empty": ({}, [("slug", "missing_key", None, "Add slug"), ("nodes", "missing_key", None, "trigger.manual")]),
    "bad slug": ({**document(), "slug": "X; drop"}, [("slug", "bad_value", None, "lower-case")]),
    "unknown key": (document(descripton="x"), [("descripton", "unknown_key", None, "Did you mean description?")]),
    "nodes no list": ({"slug": "x", "nodes": {}}, [("nodes", "bad_type", None, None)]),
    "node no object": (
        {"slug": "x", "nodes": [5, log("a")]},
        [("nodes[0]", "bad_type", None, None), ("nodes", "no_trigger", None, "trigger.manual")],
    ),
    "no trigger": ({"slug": "x", "nodes": [log("a")]}, [("nodes", "no_trigger", None, "trigger.manual")]),
    "too many nodes": (document(*(log(f"n{number}") for number in range(501))), [("nodes", "too_many", None, "Split")]),
    "bad id": (document(log("A b"), ways=""), [("nodes[1].id", "bad_value", None, "lower-case")]),
    "same id": (document(log("a"), log("a"), ways="start>a"), [("nodes[2].id", "duplicate_id", None, "nodes[1]")]),
    "unknown type": (
        document(node("a", "log.wrte")),
        [("nodes[1].type", "unknown_type", None, "Did you mean log.write?")],
    ),
    "dangling edges": (
        document(log("aa"), ways="start>aa ab>zz"),
        [("edges[1].from", "unknown_node", None, "aa"), ("edges[1].to", "unknown_node", None, "aa")],
    ),
    "edge with unknown key": (
        {**document(log("a")), "edges": [{"from": "start", "to": "a", "prot": "next"}]},
        [("edges[0].prot", "unknown_key", None, "Did you mean port?")],
    ),
    "edge without end": ({**document(), "edges": [{"from": "start"}]}, [("edges[0].to", "missing_key", None, None)]),
    "edge twice": (document(log("a"), ways="start>a start>a"), [("edges[1]", "duplicate_edge", None, "Remove")]),
    "edge to a trigger": (
        document(log("a"), ways="start>a a>start"),
        [("edges[1].to", "edge_to_trigger", None, "after the trigger")],
    ),
    "edge out of a stop": (
        document(node("a", "logic.stop"), log("b")),
        [("edges[1].port", "unknown_port", None, "Nothing follows"), ("nodes[2]", "unreachable", None, None)],
    ),
    "unknown port": (
        document(when("a", "true"), log("b"), ways="start>a a:true>b a:flase>b"),
        [("edges[2].port", "unknown_port", None, "Did you mean false?")],
    ),
    "case without its word": (
        document(
            node("a", "logic.switch", cases=[{"port": "vip", "when": "true"}]),
            log("b"),
            ways="start>a a:case:vip>b a:vip>b",
        ),
        [("edges[2].port", "unknown_port", None, "Write case:vip.")],
    ),
    "two cases alike": (
        document(node("a", "logic.switch", cases=[{"port": "x", "when": "true"}, {"port": "x", "when": "false"}])),
        [("nodes[1].config.cases[1].port", "duplicate_port", None, "or")],
    ),
    "unknown setting": (
        document(node("a", "log.write", mesage="x", message="y")),
        [("nodes[1].config.mesage", "unknown_key", None, "Did you mean message?")],
    ),
    "missing setting": (
        document(node("a", "log.write")),
        [("nodes[1].config.message", "missing_key", None, "Add message")],
    ),
    "wrong kind of setting": (
        document(node("a", "record.query", table="t", limit="5")),
        [("nodes[1].config.limit", "bad_type", None, None)],
    ),
    "expression where none may be": (
        document(node("a", "record.query", table="{{ trigger.payload.t }}")),
        [("nodes[1].config.table", "literal_only", 0, "logic.switch")],
    ),
    "expression as a name": (
        document(node("a", "logic.set", values={"{{ now }}": 1})),
        [("nodes[1].config.values.{{ now }}", "literal_only", 0, None)],
    ),
    "SQL as a table": (
        document(node("a", "record.query", table="t; drop table x")),
        [("nodes[1].config.table", "bad_name", None, "register_table")],
    ),
    "SQL as a function": (
        document(node("a", "sql.function", function="f(); --")),
        [("nodes[1].config.function", "bad_name", None, "register_function")],
    ),
    "record.update without where": (
        document(node("a", "record.update", table="t", where={}, values={"a": 1})),
        [("nodes[1].config.where", "bad_value", None, None)],
    ),
    "row trigger": (
        ROW,
        [
            ("nodes[0].config.table", "bad_name", None, "schema.table"),
            ("nodes[0].config.on[1]", "bad_value", None, "Did you mean update?"),
            ("nodes[0].config.when", "not_allowed", 0, "break the application's own write"),
            ("nodes[0].config.when", "unknown_name", 19, "Use new"),
        ],
    ),
    "http request": (
        document(node("a", "http.request", url="http://x", method="FETCH", expect=["2xx", 700], credential="c")),
        [
            ("nodes[1].config.method", "bad_value", None, None),
            ("nodes[1].config.expect", "bad_value", None, None),
            ("nodes[1].config.credential", "not_yet_available", None, "Remove"),
        ],
    ),
    "unknown step": (
        document(when("check", "true"), when("b", "steps.chek.output.x = 1"), ways="start>check check:true>b"),
        [("nodes[2].config.condition", "unknown_step", 6, "Did you mean check?")],
    ),
    "step that comes later": (
        document(log("a", "{{ steps.b.output }}"), log("b")),
        [("nodes[1].config.message", "not_upstream", 9, "comes before a")],
    ),
    "two faults in one text": (
        document(log("a", "Hi {{ trigger.paylod.x }} {{ uper(now) }}")),
        [
            ("nodes[1].config.message", "unknown_name", 14, "payload"),
            ("nodes[1].config.message", "unknown_function", 29, "upper"),
        ],
    ),
    "open braces": (document(log("a", "Hi {{ now ")), [("nodes[1].config.message", "unclosed_braces", 3, "}}")]),
    "braces in a condition": (
        document(when("a", "{{ now }} = 1")),
        [("nodes[1].config.condition", "not_allowed", 3, "without {{ }}")],
    ),
    "too many expressions in a text": (
        document(log("a", "{{ now }}" * 201)),
        [("nodes[1].config.message", "too_many", 1800, "logic.transform")],
    ),
    "too many expressions": (
        document(*(log(f"n{number}", "{{ now }}" * 200) for number in range(26))),
        [("", "too_many", None, "Split")],
    ),
    "unknown variable": (
        document(node("a", "logic.set", values={"total": 1}), log("b", "{{ vars.totl }}")),
        [("nodes[2].config.message", "unknown_variable", 8, "Did you mean total?")],
    ),
    "item outside a loop": (
        document(log("a", "{{ item.x }}")),
        [("nodes[1].config.message", "not_in_loop", 3, "logic.loop")],
    ),
    "cycle without a way out": (
        document(log("a"), log("b"), ways="start>a a>b b>a"),
        [("nodes[1]", "endless_cycle", None, "logic.if")],
    ),
    "node that follows itself": (
        document(log("a"), ways="start>a a>a"),
        [("nodes[1]", "endless_cycle", None, "logic.if")],
    ),
    "cycle that only forks": (
        document(log("a"), log("b"), log("c"), ways="start>a a>b b>a b>c"),
        [("nodes[1]", "endless_cycle", None, "logic.if")],
    ),
    "nothing leads there": (document(log("a"), log("b"), ways="start>a"), [("nodes[2]", "unreachable", None, "edge")]),
    "island with a cycle": (
        document(log("a"), when("b", "true"), ways="start>a b:true>b"),
        [("nodes[2]", "unreachable", None, "edge")],
    ),
    "route without an edge": (
        document(log("a", on_error="route")),
        [("nodes[1].on_error", "route_without_edge", None, "error")],
    ),
    "edge that is never taken": (
        document(log("a", on_error="fail"), log("b"), ways="start>a a:error>b"),
        [("nodes[1].on_error", "unused_edge", None, "route")],
    ),
    "edge out of a loop": (
        LOOP,
        [("edges[2]", "leaves_loop", None, "done")],
    ),
    "node type of a later release": (
        document(node("a", "client.display", title="a", content="b")),
        [("nodes[1].type", "not_yet_available", None, "draft")],
    ),
    "compensation by itself": (
        document(log("a", compensate="a")),
        [("nodes[1].compensate", "not_applicable", None, "another")],
    ),
    "settings": (
        document(
            settings={"max_running": 0, "priority": "high", "debounc": "PT1S", "retention": "P90D", "timeout": "7 days"}
        ),
        [
            ("settings.max_running", "bad_value", None, None),
            ("settings.priority", "bad_type", None, None),
            ("settings.debounc", "unknown_key", None, "Did you mean debounce?"),
            ("settings.timeout", "bad_value", None, None),
        ],
    ),
    "retry": (
        document(log("a", retry={"max_attempts": 0, "interval": "2s", "backof": 1})),
        [
            ("nodes[1].retry.max_attempts", "bad_value", None, None),
            ("nodes[1].retry.interval", "bad_value", None, None),
            ("nodes[1].retry.backof", "unknown_key", None, None),
        ],
    ),
    "timeout of an SQL node": (
        document(log("a", timeout="PT3S")),
        [("nodes[1].timeout", "not_applicable", None, "statement_timeout")],
    ),
    "schema": (
        document(input_schema={"type": "objekt", "properties": {"a": {"pattern": "x"}}}),
        [
            ("input_schema.type", "bad_schema", None, "object"),
            ("input_schema.properties.a.pattern", "bad_schema", None, None),
        ],
    ),
    "condition without a known operator": (
        document(when("a", {"op": "gtt", "left": 1, "right": 2})),
        [("nodes[1].config.condition.op", "bad_condition", None, "Did you mean gt?")],
    ),
    "steps beside nodes": (
        {"slug": "x", "steps": [log("a")], "nodes": []},
        [("steps", "conflict", None, "Remove"), ("nodes", "missing_key", None, None)],
    ),
    "bad step": (
        {"slug": "x", "steps": [{"type": "log.write", "config": {"mesage": "x"}}, 5]},
        [
            ("steps[0].config.mesage", "unknown_key", None, "message"),
            ("steps[0].config.message", "missing_key", None, None),
            ("steps[1]", "bad_type", None, None),
        ],
    ),
    "case status": (
        document(node("a", "action.backoffice_status_update", note="n")),
        [("nodes[1].config", "bad_value", None, None)],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_problem_is_told_with_its_place(name: str) -> None:
    source, expected = TABLE[name]
    compiled = compile_workflow(source)
    found = [(problem.path, problem.code, problem.position) for problem in compiled.problems]
    assert sorted(found, key=str) == sorted(((path, code, position) for path, code, position, _ in expected), key=str)
    for path, code, _, hint in expected:
        told = [item for item in compiled.problems if (item.path, item.code) == (path, code)]
        assert all(item.message.rstrip().endswith(".") for item in told)
        if hint is not None:
            assert any(hint in (item.hint or "") for item in told), told
    assert {row["node_id"] for row in compiled.plan} <= {
        item["id"] for item in compiled.document.get("nodes", []) if isinstance(item, dict)
    }


@pytest.mark.parametrize("name", ["step that comes later", "unknown variable", "edge that is never taken"])
def test_warnings_do_not_keep_from_publishing(name: str) -> None:
    compiled = compile_workflow(TABLE[name][0])
    assert compiled.is_publishable
    assert {problem.severity for problem in compiled.problems} == {"warning"}


def test_a_deep_value_is_a_problem_and_no_crash() -> None:
    value: dict[str, Any] = {}
    for _ in range(10_000):
        value = {"a": value}
    assert [problem.code for problem in compile_workflow(value).problems] == ["too_deep"]


def test_a_hopeless_document_does_not_answer_with_a_book() -> None:
    assert (
        len(compile_workflow(document(*(node(f"n{number}", "log.write", a=1, b=2) for number in range(400)))).problems)
        == 200
    )


def test_problems_have_the_shape_that_is_promised() -> None:
    compiled = compile_workflow(TABLE["unknown step"][0])
    assert compiled.problems[0].as_json() == {
        "path": "nodes[2].config.condition",
        "node": "b",
        "code": "unknown_step",
        "message": "There is no node 'chek'.",
        "position": 6,
        "hint": "Did you mean check?",
        "severity": "error",
    }


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["logic.if", "{{ vars.x }}", "next", "start", "trigger.manual"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "slug",
                    "name",
                    "nodes",
                    "edges",
                    "steps",
                    "id",
                    "type",
                    "config",
                    "condition",
                    "values",
                    "from",
                    "to",
                    "port",
                    "settings",
                    "retry",
                    "input_schema",
                    "on_error",
                    "op",
                    "left",
                    "right",
                    "all",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_value_makes_the_compiler_raise(value: Any) -> None:
    compiled = compile_workflow(value)
    json.dumps([problem.as_json() for problem in compiled.problems])


@settings(max_examples=200, deadline=None)
@given(
    config=JSON,
    kind=st.sampled_from(
        [
            "logic.if",
            "logic.switch",
            "logic.set",
            "trigger.row",
            "http.request",
            "record.update",
            "task.user",
            "logic.wait",
            "logic.loop",
            "logic.join",
            "logic.call",
            "webhook.esign_completed",
            "action.backoffice_status_update",
        ]
    ),
)
def test_no_config_makes_the_compiler_raise(config: Any, kind: str) -> None:
    compile_workflow(
        {
            "slug": "x",
            "nodes": [{"id": "start", "type": "trigger.manual"}, {"id": "a", "type": kind, "config": config}],
            "edges": [{"from": "start", "to": "a"}],
        }
    )


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_no_bytes_make_the_compiler_raise(source: bytes | str) -> None:
    compile_workflow(source)
