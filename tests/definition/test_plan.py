"""The plan that the engine reads, and the document that is stored beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from definition.helpers import document, log, node, plan, when

from stellwerk.definition.compile import compile_workflow

FIELDS = {
    "node_id": str,
    "position": int,
    "type": str,
    "runs_in": str,
    "executable": bool,
    "config": dict,
    "dynamic": list,
    "condition": (dict, type(None)),
    "cases": (list, type(None)),
    "reads": dict,
    "edges": dict,
    "joins": bool,
    "upstream": dict,
    "cyclic": bool,
    "loop_node": (str, type(None)),
    "max_attempts": int,
    "retry": dict,
    "timeout": (str, type(None)),
    "on_error": str,
    "compensate": (str, type(None)),
    "max_visits": int,
    "may_raise": bool,
    "alone": bool,
}

INTAKE = {
    "slug": "patient-intake",
    "name": "Patient intake",
    "input_schema": {"type": "object", "required": ["patient"]},
    "settings": {"priority": 0, "timeout": "P7D", "payment_days": 14, "valid_days": 30},
    "nodes": [
        {"id": "form", "type": "trigger.form_submit", "config": {"form": "contact"}},
        {
            "id": "sign",
            "type": "action.esign_request",
            "config": {"signer": "{{ trigger.payload.patient.email }}"},
            "retry": {"max_attempts": 5, "interval": "PT2S", "backoff": 2, "max_interval": "PT5M", "jitter": True},
            "timeout": "PT45S",
            "on_error": "route",
            "ui": {"x": 320, "y": 80},
        },
        {"id": "ok", "type": "logic.if", "config": {"condition": "steps.sign.output.status = 'signed'"}},
        {
            "id": "push",
            "type": "action.backoffice_push",
            "config": {"field_map": {"name": "{{ trigger.payload.patient.name }}"}},
        },
        {
            "id": "late",
            "type": "action.backoffice_status_update",
            "config": {"status": "nachreichen", "note": "Unterschrift fehlt"},
        },
    ],
    "edges": [
        {"from": "form", "to": "sign"},
        {"from": "sign", "to": "ok"},
        {"from": "ok", "port": "true", "to": "push"},
        {"from": "ok", "port": "false", "to": "late"},
        {"from": "sign", "port": "error", "to": "late"},
    ],
}


def test_every_row_has_every_field() -> None:
    for row in plan(INTAKE).values():
        assert {name: isinstance(row[name], kind) for name, kind in FIELDS.items()} == dict.fromkeys(FIELDS, True)
        assert set(row) == set(FIELDS)
        json.dumps(row, allow_nan=False)


def test_a_whole_plan() -> None:
    rows = plan(INTAKE)
    assert list(rows) == ["form", "sign", "ok", "push", "late"]
    assert rows["sign"] == {
        "node_id": "sign",
        "position": 1,
        "type": "action.esign_request",
        "runs_in": "worker",
        "executable": True,
        "config": {"signer": None, "document": None, "subject": None, "context": None, "url": None, "credential": None},
        "dynamic": [{"at": ["signer"], "path": ["trigger", "payload", "patient", "email"]}],
        "condition": None,
        "cases": None,
        "reads": {"trigger": ["payload"]},
        "edges": {"next": ["ok"], "error": ["late"]},
        "joins": False,
        "upstream": {},
        "cyclic": False,
        "loop_node": None,
        "max_attempts": 5,
        "retry": {"interval": "PT2S", "backoff": 2, "max_interval": "PT5M", "jitter": True},
        "timeout": "PT45S",
        "on_error": "route",
        "compensate": None,
        "max_visits": 1000,
        "may_raise": False,
        "alone": False,
    }
    assert rows["ok"]["condition"] == {
        "tree": ["eq", ["path", "steps", "sign", "output", "status"], ["value", "signed"]],
        "jsonpath": 'strict ($."steps"."sign"."output"."status" == "signed")',
    }
    assert rows["ok"]["edges"] == {"true": ["push"], "false": ["late"]}
    assert rows["ok"]["reads"] == {"steps": ["sign"]}
    assert rows["push"]["dynamic"] == [{"at": ["field_map", "name"], "path": ["trigger", "payload", "patient", "name"]}]
    assert rows["late"]["joins"] is True
    assert rows["late"]["upstream"] == {"form": ["form", "sign", "ok"]}


def test_dynamic_places_are_paths_expressions_or_texts() -> None:
    output = {
        "p": "{{ now }}",
        "e": ["{{ now is null }}"],
        "t": "at {{ now }}!",
        "s": "plain",
        "i": "{{ trigger.payload['0'] }}",
    }
    row = plan(document(node("a", "logic.transform", output=output)))["a"]
    assert row["config"] == {"output": {"p": None, "e": [None], "t": None, "s": "plain", "i": None}}
    assert row["dynamic"] == [
        {"at": ["output", "p"], "path": ["now"]},
        {"at": ["output", "e", "0"], "expr": ["is_null", ["path", "now"]]},
        {"at": ["output", "t"], "text": ["at ", ["path", "now"], "!"]},
        {"at": ["output", "i"], "expr": ["get", ["path", "trigger", "payload"], "0"]},
    ]
    assert row["reads"] == {"trigger": ["payload"], "now": True}


def test_a_switch_has_cases_with_ports() -> None:
    cases = [
        {"port": "vip", "when": "trigger.payload.vip"},
        {"port": "big", "when": {"op": "gt", "left": "{{ trigger.payload.total }}", "right": 100}},
    ]
    row = plan(document(node("a", "logic.switch", cases=cases), log("b"), ways="start>a a:case:vip>b a:default>b"))["a"]
    assert [(case["port"], case["tree"][0]) for case in row["cases"]] == [("case:vip", "path"), ("case:big", "gt")]
    assert row["edges"] == {"case:vip": ["b"], "default": ["b"]}


def test_case_status_has_a_condition() -> None:
    row = plan(
        document(
            node(
                "a",
                "action.backoffice_status_update",
                complete_when="trigger.payload.ok",
                status_complete="x",
                status_missing="y {{ now }}",
            )
        )
    )["a"]
    assert row["condition"]["tree"] == ["path", "trigger", "payload", "ok"]
    assert row["dynamic"] == [{"at": ["status_missing"], "text": ["y ", ["path", "now"]]}]


def test_attempts_timeouts_and_errors_have_defaults() -> None:
    rows = plan(
        document(
            node("web", "http.request", url="http://x"),
            log("b"),
            node("rows", "record.query", table="t"),
            log("c"),
            ways="start>web web:error>b web>rows rows>c",
        )
    )
    assert (rows["web"]["max_attempts"], rows["web"]["timeout"], rows["web"]["on_error"]) == (3, "PT30S", "route")
    assert (rows["rows"]["max_attempts"], rows["rows"]["timeout"], rows["rows"]["on_error"]) == (1, None, "fail")
    assert rows["web"]["retry"] == {"interval": "PT2S", "backoff": 2, "max_interval": "PT5M", "jitter": True}
    assert rows["web"]["config"] == {
        "method": "GET",
        "url": "http://x",
        "headers": {},
        "query": {},
        "json": None,
        "body": None,
        "credential": None,
        "expect": "2xx",
    }
    assert (rows["rows"]["alone"], rows["rows"]["may_raise"], rows["c"]["alone"], rows["c"]["may_raise"]) == (
        True,
        True,
        False,
        False,
    )


def test_a_node_that_may_raise_is_marked() -> None:
    rows = plan(
        document(
            log("a", "{{ trigger.payload.n / trigger.payload.m }}"),
            log("b", "{{ trigger.payload.n / 2 }}"),
            when("c", "trigger.payload.n::int = 1"),
        )
    )
    assert [rows[name]["may_raise"] for name in "abc"] == [True, False, True]


def test_parallel_branches_join() -> None:
    rows = plan(document(log("a"), log("b"), log("j"), log("k"), ways="start>a start>b a>j b>j j>k"))
    assert (rows["j"]["joins"], rows["j"]["upstream"]) == (True, {"start": ["start", "a", "b"]})
    assert (rows["k"]["joins"], rows["k"]["upstream"]) == (False, {})


def test_a_loop_back_does_not_make_its_target_join() -> None:
    rows = plan(document(log("a"), when("b", "trigger.payload.x"), log("c"), ways="start>a a>b b:false>a b:true>c"))
    assert (rows["a"]["joins"], rows["a"]["cyclic"], rows["b"]["cyclic"], rows["c"]["cyclic"]) == (
        False,
        True,
        True,
        True,
    )


def test_a_join_counts_per_trigger() -> None:
    value = document(log("j"), ways="start>j second>j")
    value["nodes"].insert(1, node("second", "trigger.form_submit"))
    assert plan(value)["j"]["joins"] is False


def test_an_sql_function_gets_the_context() -> None:
    row = plan(document(log("a"), node("f", "sql.function", function="score", input={"x": "{{ steps.a.output }}"})))[
        "f"
    ]
    assert row["reads"] == {"steps": ["a"], "trigger": ["payload", "source"], "vars": True, "run": True}


# Spellings


def test_steps_are_a_sequence() -> None:
    compiled = compile_workflow(
        {"slug": "x", "steps": [log("a"), when("b", "true"), {"type": "log.write", "config": {"message": "m"}}]}
    )
    assert not compiled.problems
    assert "steps" not in compiled.document
    assert [item["id"] for item in compiled.document["nodes"]] == ["start", "a", "b", "step_3"]
    assert compiled.document["edges"] == [
        {"from": "start", "to": "a"},
        {"from": "a", "to": "b"},
        {"from": "b", "port": "true", "to": "step_3"},
    ]
    assert (
        compile_workflow({"slug": "x", "steps": [node("go", "trigger.form_submit"), log("a")]}).document["nodes"][0][
            "id"
        ]
        == "go"
    )


def test_accepted_spellings_are_normalised() -> None:
    value = document(
        node("a", "logic.set", values={"x": {"y": 1}}),
        log("b", "{{ step.a.output.x }} and ${ x.y } and ${ trigger.payload.z } but 'step.a' and $ { x }"),
        when("c", "step.a.output.x = 'step.a.x' and ${x.y} = 1"),
        when("d", "{{ steps.a.output.x }}"),
        ways="start>a a>b b>c c:true>d",
    )
    compiled = compile_workflow(value)
    assert not compiled.problems
    configs = [item.get("config") for item in compiled.document["nodes"]]
    assert configs[2] == {
        "message": "{{ steps.a.output.x }} and {{ vars.x.y }} and {{ trigger.payload.z }} but 'step.a' and $ { x }"
    }
    assert configs[3] == {"condition": "steps.a.output.x = 'step.a.x' and vars.x.y = 1"}
    assert configs[4] == {"condition": "steps.a.output.x"}
    assert compile_workflow(compiled.document).document == compiled.document
    assert compile_workflow(compiled.document).plan == compiled.plan


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ({"op": "gt", "left": "{{ vars.n }}", "right": 10}, "vars.n > 10"),
        ({"op": "eq", "left": "{{ vars.n }}", "right": "it's"}, "vars.n = 'it''s'"),
        ({"op": "eq", "left": "{{ vars.n }}", "right": None}, "vars.n is null"),
        ({"op": "ne", "left": "{{ vars.n }}", "right": None}, "vars.n is not null"),
        ({"op": "!=", "left": "{{ vars.n }}", "right": True}, "vars.n <> true"),
        ({"op": "in", "left": "{{ vars.n }}", "right": [1, "x"]}, "vars.n in (1, 'x')"),
        ({"op": "not_in", "left": "{{ vars.n }}", "right": ["x"]}, "vars.n not in ('x')"),
        ({"op": "in", "left": "{{ vars.n }}", "right": "{{ vars.list }}"}, "contains(vars.list, vars.n)"),
        ({"op": "between", "left": "{{ vars.n + 1 }}", "right": [1, 2.5]}, "(vars.n + 1) between 1 and 2.5"),
        ({"op": "contains", "left": "{{ vars.n }}", "right": "x"}, "contains(vars.n, 'x')"),
        ({"op": "like", "left": "{{ vars.n }}", "right": "x%"}, "vars.n like 'x%'"),
        ({"op": "is_null", "left": "${ n }"}, "vars.n is null"),
        (
            {"all": [{"op": "is_true", "left": "{{ vars.n }}"}, {"any": ["vars.a", {"not": "vars.b"}]}]},
            "(vars.n is true) and ((vars.a) or (not (vars.b)))",
        ),
        (True, "true"),
    ],
)
def test_a_structured_condition_means_its_expression(condition: Any, text: str) -> None:
    setting = node("s", "logic.set", values=dict.fromkeys(["n", "a", "b", "list"], 1))
    compiled = compile_workflow(document(setting, when("a", condition)))
    assert not compiled.problems, compiled.problems
    assert compiled.document["nodes"][2]["config"]["condition"] == text
    assert compiled.plan == compile_workflow(document(setting, when("a", text))).plan


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"op": "gt", "left": 1}, ""),
        ({"op": "gt", "right": 1}, ""),
        ({"left": 1, "right": 1}, ".op"),
        ({"op": "eq", "left": 1, "right": 1, "extra": 1}, ".extra"),
        ({"op": "eq", "left": "a {{ vars.n }}", "right": 1}, ".left"),
        ({"op": "eq", "left": {"a": 1}, "right": 1}, ".left"),
        ({"op": "in", "left": 1, "right": []}, ".right"),
        ({"op": "between", "left": 1, "right": [1]}, ".right"),
        ({"op": "is_null", "left": 1, "right": 1}, ".right"),
        ({"all": []}, ".all"),
        ({"all": [{"op": "x", "left": 1}]}, ".all[0].op"),
        ({"all": ["true"], "any": ["true"]}, ""),
        (5, ""),
        ([], ""),
    ],
)
def test_a_structured_condition_that_means_nothing_is_told(condition: Any, path: str) -> None:
    compiled = compile_workflow(document(when("a", condition)))
    assert [(problem.path, problem.code) for problem in compiled.problems] == [
        (f"nodes[1].config.condition{path}", "bad_condition")
    ]


def test_the_given_document_is_left_as_it_was() -> None:
    value = document(when("a", {"op": "eq", "left": 1, "right": 1}))
    before = json.dumps(value)
    compile_workflow(value)
    assert json.dumps(value) == before


def test_text_and_value_compile_alike() -> None:
    text = json.dumps(INTAKE)
    assert compile_workflow(text) == compile_workflow(INTAKE) == compile_workflow(b"\xef\xbb\xbf" + text.encode())


def test_the_example_of_the_docs_compiles() -> None:
    page = (Path(__file__).resolve().parent.parent.parent / "docs" / "workflow-document.md").read_text()
    examples = re.findall(r"```json[^\n]*\n(\{.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        if '"slug"' in example:
            assert compile_workflow(example).problems == []
