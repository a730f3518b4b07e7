"""What differs between two versions: by meaning, not by spelling."""

from __future__ import annotations

import copy
import json

import psycopg
import pytest
from database.helpers import START, document, node, transform

from stellwerk.definition.compile import compile_workflow


def base():
    return document(
        "order",
        [
            START,
            transform("sum", {"total": "{{ trigger.payload.net + trigger.payload.tax }}"}),
            node("big", "logic.if", {"condition": "steps.sum.output.total > 1000"}),
            node("ask", "action.fonio_call", {"phone": "{{ trigger.payload.phone }}"}, timeout="PT30S"),
            node("note", "log.write", {"message": "total {{ steps.sum.output.total }}"}),
        ],
        ["start -> sum", "sum -> big", "big.true -> ask", "big.false -> note", "ask -> note"],
        settings={"priority": 1},
        input_schema={"type": "object", "required": ["net"], "properties": {"net": {"type": "number"}}},
    )


@pytest.fixture
def differences(db, engine):
    """Save two documents, the second as a draft, and answer the rows from one to the other."""

    def between(old, new):
        for number, each in enumerate((old, new)):
            compiled = compile_workflow(copy.deepcopy(each))
            problems = [problem.as_json() for problem in compiled.problems]
            slug, version = engine.save_workflow(compiled.document, compiled.plan, problems)
            if number == 0:
                engine.publish_workflow(slug, version)
        return [tuple(row.values()) for row in engine.diff_versions(old["slug"], 1, 2)]

    return between


def changed(**nodes):
    """The base document with some of its nodes changed by functions."""
    new = base()
    for each in new["nodes"]:
        if each["id"] in nodes:
            nodes[each["id"]](each)
    return new


def written(*replacements):
    """The base document with some of its text replaced."""
    text = json.dumps(base())
    for old, new in replacements:
        text = text.replace(old, new)
    return json.loads(text)


def test_the_same_document_has_no_difference(differences):
    assert differences(base(), base()) == []


def test_another_spelling_of_an_expression_is_no_difference(differences):
    def respell(each):
        each["config"] = {"output": {"total": "{{trigger.payload.net   +  ( trigger.payload.tax )}}"}}

    def structured(each):
        each["config"] = {"condition": {"op": "gt", "left": "{{ step.sum.output.total }}", "right": 1000}}

    assert differences(base(), changed(sum=respell, big=structured)) == []


def test_a_default_that_is_written_out_is_no_difference(differences):
    def explicit(each):
        each.update(on_error="fail", max_visits=1000, timeout="PT0M30S", retry={"max_attempts": 3, "interval": "PT2S"})

    assert differences(base(), changed(ask=explicit)) == []


def test_an_expression_is_shown_as_it_was_and_as_it_is(differences):
    def other(each):
        each["config"]["condition"] = "steps.sum.output.total >= 1000"

    assert differences(base(), changed(big=other)) == [
        (
            "expression",
            "big",
            "config.condition",
            "steps.sum.output.total > 1000",
            "steps.sum.output.total >= 1000",
            None,
        )
    ]


def test_every_field_of_a_node_is_compared(differences):
    def other(each):
        each.update(
            name="Ask them",
            description="by phone",
            timeout="PT1M",
            on_error="continue",
            max_visits=7,
            retry={"max_attempts": 5, "interval": "PT1S", "backoff": 3, "max_interval": "PT9M", "jitter": False},
            config={"phone": "110", "agent": "kim"},
        )

    rows = differences(base(), changed(ask=other))
    assert [(kind, field, before, after) for kind, _, field, before, after, _ in rows] == [
        ("field", "config.agent", None, "kim"),
        ("expression", "config.phone", "{{ trigger.payload.phone }}", "110"),
        ("field", "description", None, "by phone"),
        ("field", "max_visits", 1000, 7),
        ("field", "name", None, "Ask them"),
        ("field", "on_error", "fail", "continue"),
        ("field", "retry.backoff", 2, 3),
        ("field", "retry.interval", "PT2S", "PT1S"),
        ("field", "retry.jitter", True, False),
        ("field", "retry.max_attempts", 3, 5),
        ("field", "retry.max_interval", "PT5M", "PT9M"),
        ("field", "timeout", "PT30S", "PT1M"),
    ]


def test_the_timeout_of_a_wait_is_one_difference(differences):
    def waits(**config):
        wait = node("money", "logic.wait", {"event": "paid", "correlation": "c", **config})
        return document("waits", [START, wait], ["start -> money"])

    assert differences(waits(), waits(timeout="P1D")) == [("field", "money", "config.timeout", None, "P1D", None)]


def test_settings_and_schema_are_compared_part_by_part(differences):
    new = base()
    new["name"] = "Orders"
    new["settings"] = {"priority": 2, "timeout": "P1D"}
    new["input_schema"]["required"].append("tax")
    new["input_schema"]["properties"]["net"]["minimum"] = 0
    rows = differences(base(), new)
    assert [(kind, field, before, after) for kind, _, field, before, after, _ in rows] == [
        ("workflow", "name", "order", "Orders"),
        ("setting", "settings.priority", 1, 2),
        ("setting", "settings.timeout", None, "P1D"),
        ("input_schema", "input_schema.properties.net.minimum", None, 0),
        ("input_schema", "input_schema.required", ["net"], ["net", "tax"]),
    ]


def test_nodes_and_edges_come_and_go(differences):
    new = base()
    extra = node("extra", "log.error", {"message": "no answer"})
    new["nodes"] = [each for each in new["nodes"] if each["id"] != "big"] + [extra]
    new["edges"] = [each for each in new["edges"] if "big" not in (each["from"], each["to"])]
    new["edges"] += [{"from": "sum", "to": "ask"}, {"from": "ask", "port": "error", "to": "extra"}]
    rows = differences(base(), new)
    assert [row[:3] + row[5:] for row in rows if row[0].startswith("node")] == [
        ("node_removed", "big", None, None),
        ("node_added", "extra", None, None),
    ]
    assert [row[3]["type"] for row in rows if row[0] == "node_removed"] == ["logic.if"]
    assert [(*row[:3], row[3] or row[4]) for row in rows if "edge" in row[0]] == [
        ("edge_added", "ask", "error", "extra"),
        ("edge_removed", "big", "false", "note"),
        ("edge_removed", "big", "true", "ask"),
        ("edge_removed", "sum", "next", "big"),
        ("edge_added", "sum", "next", "ask"),
    ]
    # An error edge changes what an error does.
    assert ("field", "ask", "on_error", "fail", "route", None) in rows


def test_another_type_under_the_same_name_is_told_as_one(differences):
    def other(each):
        each.update(type="log.error")

    assert differences(base(), changed(note=other)) == [
        ("type_changed", "note", "type", "log.write", "log.error", None)
    ]


def test_a_renamed_node_is_recognised_with_its_edges_and_those_who_read_it(differences):
    rows = differences(base(), written(('"sum"', '"total"'), ("steps.sum.", "steps.total.")))
    assert rows == [("node_renamed", "total", None, "sum", "total", "sum")]


def test_a_renamed_node_with_other_settings_is_recognised_by_its_neighbours(differences):
    new = written(('"ask"', '"phone"'))
    next(each for each in new["nodes"] if each["id"] == "phone")["config"] = {"phone": "112"}
    rows = differences(base(), new)
    assert [row[:3] for row in rows] == [("node_renamed", "phone", None), ("expression", "phone", "config.phone")]


def test_two_candidates_that_are_equally_good_are_not_guessed(differences):
    old = document("twins", [START, transform("a", 1)], ["start -> a"])
    new = document("twins", [START, transform("b", 1), transform("c", 1)], ["start -> b", "start -> c"])
    assert {row[:2] for row in differences(old, new) if row[0].startswith("node")} == {
        ("node_removed", "a"),
        ("node_added", "b"),
        ("node_added", "c"),
    }


def test_positions_on_the_drawing_are_told_as_layout(differences):
    def place(each):
        each["ui"] = {"x": 10, "y": 20}

    assert differences(base(), changed(sum=place)) == [("layout", "sum", "ui", None, {"x": 10, "y": 20}, None)]


def test_cases_of_a_switch_are_compared_by_their_port(differences):
    def switch(*cases):
        nodes = [START, node("which", "logic.switch", {"cases": [{"port": p, "when": w} for p, w in cases]})]
        return document("switch", nodes, ["start -> which"])

    vip, big = ("vip", "trigger.payload.vip = true"), ("big", "trigger.payload.n > 10")
    rows = differences(
        switch(vip, big), switch(big, ("vip", "trigger.payload.vip=true"), ("new", "trigger.payload.n > 5"))
    )
    assert [(kind, field, before, after) for kind, _, field, before, after, _ in rows] == [
        ("field", "config.cases (order)", ["vip", "big"], ["big", "vip", "new"]),
        ("field", "config.cases[new].port", None, "new"),
        ("expression", "config.cases[new].when", None, "trigger.payload.n > 5"),
    ]


def test_a_draft_with_errors_is_compared_as_it_is_written(differences):
    def broken(each):
        each.update(type="no.such_type", config={"message": "{{ 1 + }}"})

    rows = differences(base(), changed(note=broken))
    assert [(row[0], row[2], row[4]) for row in rows][:2] == [
        ("type_changed", "type", "no.such_type"),
        ("expression", "config.message", "{{ 1 + }}"),
    ]


def test_the_condition_of_a_row_trigger_is_compared_word_by_word(db, differences):
    db.execute("create table public.orders (order_id bigint primary key, status text)")

    def watching(when, slug):
        config = {"table": "public.orders", "on": ["update"], "when": when}
        return document(slug, [node("row", "trigger.row", config), transform("end", 1)], ["row -> end"])

    paid = "new.status = 'paid'"
    assert differences(watching(paid, "spaces"), watching("new.status='paid'", "spaces")) == []
    assert differences(watching(paid, "words"), watching("new.status = 'sent'", "words")) == [
        ("expression", "row", "config.when", paid, "new.status = 'sent'", None)
    ]
    assert differences(watching(paid, "broken"), watching("new.status = 'paid", "broken")) == [
        ("expression", "row", "config.when", paid, "new.status = 'paid", None)
    ]


def test_unknown_versions_and_workflows_are_refused(db, make_workflow):
    make_workflow(base())
    for sqlstate, query in (
        ("SW005", "select * from stellwerk.diff_versions('order', 1, 9)"),
        ("SW001", "select * from stellwerk.diff_versions('ordre', 1, 1)"),
    ):
        with pytest.raises(psycopg.Error) as raised:
            db.execute(query)
        assert raised.value.sqlstate == sqlstate
