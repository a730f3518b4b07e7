"""Schedules, cron expressions and waits that follow a row, as they are compiled."""

from __future__ import annotations

from typing import Any

import pytest
from definition.helpers import document, log, node, plan

from stellwerk.definition.compile import compile_workflow
from stellwerk.definition.cron import cron_fields

ROW = {"table": "appointment", "key": "{{ trigger.payload.id }}", "column": "starts_at"}


def told(value: dict[str, Any]) -> list[tuple[str, str]]:
    return [(item.path, item.message) for item in compile_workflow(value).problems if item.severity == "error"]


def schedule(**config: Any) -> dict[str, Any]:
    nodes = [node("at", "trigger.schedule", **config), log("a")]
    return {"slug": "s", "name": "s", "nodes": nodes, "edges": [{"from": "at", "to": "a"}]}


@pytest.mark.parametrize(("expression", "fields"), [
    ("30 7 * * MON-FRI", {"minutes": [30], "hours": [7], "weekdays": [1, 2, 3, 4, 5], "both": True, "fixed": True}),
    ("*/20 * 1,L 1,JUN 7", {"minutes": [0, 20, 40], "days": [-1, 1], "months": [1, 6], "weekdays": [0], "both": False, "fixed": False}),
    ("0 0 LW * *", {"days": [-2], "both": True}),
    ("0 0 * * 5#2,1L", {"weekdays": [], "nth": [[1, -1], [5, 2]]}),
    ("0 * * * *", {"fixed": False}),
])  # fmt: skip
def test_cron_fields_become_sets(expression: str, fields: dict[str, Any]) -> None:
    found = cron_fields(expression)
    assert {name: found[name] for name in fields} == fields
    row = plan(schedule(cron=expression))["at"]
    assert (row["config"]["cron"], row["config"]["fields"]) == (expression, found)


@pytest.mark.parametrize(
    "expression",
    ["* * * *", "* * * * * *", "60 * * * *", "* * * * MONDAY", "0 0 31 2 *", "@daily", "5-1 * * * *", "*/0 * * * *"],
)
def test_what_is_no_cron_expression_is_told(expression: str) -> None:
    assert [path for path, _ in told(schedule(cron=expression))] == ["nodes[0].config.cron"]


@pytest.mark.parametrize(("config", "path", "words"), [
    ({}, "nodes[0].config", "either cron or every"),
    ({"cron": "* * * * *", "every": "PT5M"}, "nodes[0].config", "either cron or every"),
    ({"every": "PT30S"}, "nodes[0].config.every", "once a minute at most"),
    ({"every": "soon"}, "nodes[0].config.every", "duration"),
    ({"cron": "* * * * *", "time_zone": "Europe/Roma"}, "nodes[0].config.time_zone", "no time zone"),
    ({"cron": "* * * * *", "catch_up": "some"}, "nodes[0].config.catch_up", ""),
    ({"cron": "{{ vars.c }}"}, "nodes[0].config.cron", ""),
])  # fmt: skip
def test_a_schedule_that_cannot_be_is_told(config: dict[str, Any], path: str, words: str) -> None:
    found = told(schedule(**config))
    assert path in {place for place, _ in found}
    assert any(words in message for _, message in found)


def test_every_so_often_has_no_fields() -> None:
    row = plan(schedule(every="P1DT1S", time_zone="Europe/Rome", catch_up="all"))["at"]
    assert row["config"] == {
        "cron": None,
        "every": "P1DT1S",
        "time_zone": "Europe/Rome",
        "catch_up": "all",
        "fields": None,
    }
    assert row["executable"]


@pytest.mark.parametrize("waiting", [
    node("w", "logic.wait", before="P1D", of=ROW),
    node("w", "logic.wait", after="P1D", of=ROW, calendar="office"),
    node("w", "timer.reminder_call", at=ROW),
    node("w", "timer.precheck_docs", at=ROW, past="fail"),
])  # fmt: skip
def test_a_wait_that_follows_a_row_runs_alone_and_may_leave_by_gone(waiting: dict[str, Any]) -> None:
    row = plan(document(waiting, log("a"), log("b"), ways="start>w w>a w:gone>b"))["w"]
    assert (row["alone"], row["may_raise"], row["runs_in"], row["executable"]) == (True, True, "wait", True)
    place = "at" if "at" in waiting["config"] else "of"
    assert row["config"][place] == {**ROW, "key": None}
    assert row["dynamic"] == [{"at": [place, "key"], "path": ["trigger", "payload", "id"]}]
    assert row["edges"] == {"next": ["a"], "gone": ["b"]}


@pytest.mark.parametrize("waiting", [
    node("w", "logic.wait", for_="P1D"), node("w", "timer.reminder_call", at="{{ now }}"),
])  # fmt: skip
def test_a_plain_time_cannot_be_gone(waiting: dict[str, Any]) -> None:
    waiting["config"] = {key.rstrip("_"): value for key, value in waiting["config"].items()}
    row = plan(document(waiting, log("a")))["w"]
    assert not row["alone"]
    value = document(waiting, log("a"), log("b"), ways="start>w w>a w:gone>b")
    assert told(value)[0][0] == "edges[2].port"
