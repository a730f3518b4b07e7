"""Waits, calls, compensation, and the settings of a whole workflow."""

from __future__ import annotations

from typing import Any

import pytest
from definition.helpers import document, log, node, plan

from stellwerk.definition.compile import compile_workflow


def told(value: dict[str, Any]) -> list[tuple[str, str, str]]:
    return sorted((item.path, item.code, item.severity) for item in compile_workflow(value).problems)


def wait(name: str, more: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """`for_` is written for `for`."""
    return {**node(name, "logic.wait", **{key.rstrip("_"): value for key, value in config.items()}), **(more or {})}


EVENT = {"event": "paid", "correlation": "{{ trigger.payload.order }}"}


# Waits


@pytest.mark.parametrize(
    ("config", "dynamic"),
    [
        ({"for_": "PT3H"}, []),
        ({"for_": "{{ trigger.payload.pause }}"}, [{"at": ["for"], "path": ["trigger", "payload", "pause"]}]),
        ({"until": "2030-05-31T09:30:00Z"}, []),
        ({"until": "2030-05-31"}, []),
        ({"until": "{{ trigger.payload.at }}"}, [{"at": ["until"], "path": ["trigger", "payload", "at"]}]),
        ({"before": "P1D", "of": "2030-05-31T09:30:00"}, []),
        ({"after": "P1D", "of": "{{ trigger.payload.at }}"}, [{"at": ["of"], "path": ["trigger", "payload", "at"]}]),
    ],
)
def test_a_wait_for_a_time(config: dict[str, Any], dynamic: list[Any]) -> None:
    row = plan(document(wait("w", **config), log("z")))["w"]
    assert (row["runs_in"], row["executable"], row["dynamic"], row["timeout"]) == ("wait", True, dynamic, None)
    given = {key.rstrip("_"): None if "{{" in value else value for key, value in config.items()}
    names = ("for", "until", "before", "after", "of", "event", "correlation", "timeout", "calendar")
    assert row["config"] == {**dict.fromkeys(names), "past": "fire", **given}
    assert row["edges"] == {"next": ["z"]}


@pytest.mark.parametrize(
    "waiting",
    [
        node("w", "logic.wait", **EVENT),
        node("w", "webhook.appointment_confirmed", correlation="{{ trigger.payload.order }}"),
        node("w", "webhook.esign_completed", correlation="{{ trigger.payload.order }}"),
    ],
    ids=lambda waiting: waiting["type"],
)
def test_a_timeout_stands_in_the_node_or_in_its_settings(waiting: dict[str, Any]) -> None:
    ways = "start>w w>a w:timeout>b"
    config = waiting["config"]
    inside = plan(document({**waiting, "config": {**config, "timeout": "P14D"}}, log("a"), log("b"), ways=ways))
    outside = plan(document({**waiting, "timeout": "P14D"}, log("a"), log("b"), ways=ways))
    assert (inside["w"]["timeout"], inside["w"]["config"]["timeout"]) == ("P14D", "P14D")
    assert inside == outside
    assert inside["w"]["edges"] == {"next": ["a"], "timeout": ["b"]}
    assert inside["w"]["max_attempts"] == 1
    # One that is computed is known to the settings alone.
    dynamic = plan(document({**waiting, "config": {**config, "timeout": "{{ trigger.payload.t }}"}}, log("a")))["w"]
    assert (dynamic["timeout"], dynamic["config"]["timeout"]) == (None, None)
    assert {"at": ["timeout"], "path": ["trigger", "payload", "t"]} in dynamic["dynamic"]
    both = {**waiting, "timeout": "P1D", "config": {**config, "timeout": "P2D"}}
    assert told(document(both, log("a"))) == [("nodes[1].timeout", "conflict", "error")]
    assert told(document(waiting, log("a"), log("b"), ways=ways)) == [("edges[2]", "unused_edge", "warning")]


def test_the_given_settings_keep_their_timeout() -> None:
    value = document({**node("w", "logic.wait", **EVENT), "timeout": "P14D"})
    assert compile_workflow(value).document["nodes"][1] == value["nodes"][1]


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (wait("w", for_="PT3H", timeout="P1D"), ("nodes[1].config.timeout", "not_applicable")),
        (wait("w", {"timeout": "P1D"}, until="2030-01-01"), ("nodes[1].timeout", "not_applicable")),
        (wait("w", {"timeout": "P1D"}, before="P1D", of="2030-01-01"), ("nodes[1].timeout", "not_applicable")),
        (wait("w", until="tomorrow"), ("nodes[1].config.until", "bad_value")),
        (wait("w", after="P1D", of="2030-02-30"), ("nodes[1].config.of", "bad_value")),
        (wait("w", for_="3 hours"), ("nodes[1].config.for", "bad_value")),
        (wait("w", for_="PT3H", until="2030-01-01"), ("nodes[1].config", "bad_value")),
        (wait("w"), ("nodes[1].config", "bad_value")),
        (wait("w", before="P1D"), ("nodes[1].config", "bad_value")),
        (wait("w", event="paid"), ("nodes[1].config", "bad_value")),
        (
            wait("w", before="P1D", of={"table": "{{ now }}", "key": "{{ trigger.payload.id }}", "column": "at"}),
            ("nodes[1].config.of", "bad_type"),
        ),
        (wait("w", calendar="office", **EVENT), ("nodes[1].config", "bad_value")),
        (node("w", "timer.reminder_call", at="soon"), ("nodes[1].config.at", "bad_value")),
        (node("w", "logic.call", workflow="Billing!"), ("nodes[1].config.workflow", "bad_name")),
        (node("w", "logic.call", workflow="{{ trigger.payload.w }}"), ("nodes[1].config.workflow", "literal_only")),
        (node("w", "webhook.esign_completed"), ("nodes[1].config.correlation", "missing_key")),
    ],
)
def test_a_wait_that_cannot_be_is_told(waiting: dict[str, Any], expected: tuple[str, str]) -> None:
    assert told(document(waiting)) == [(*expected, "error")]


def test_a_wait_for_a_time_has_no_port_timeout() -> None:
    value = document(wait("w", for_="PT3H"), log("a"), ways="start>w w:timeout>a w>a")
    assert told(value) == [("edges[1].port", "unknown_port", "error")]


def test_a_wait_may_fail_and_be_tried_again() -> None:
    more = {"retry": {"max_attempts": 3}, "on_error": "continue"}
    row = plan(document(wait("w", more, until="{{ trigger.payload.at }}")))["w"]
    assert (row["max_attempts"], row["on_error"]) == (3, "continue")


def test_waiting_again_and_again_must_end_some_day() -> None:
    value = document(node("w", "logic.wait", **EVENT), log("a"), ways="start>w w>a a>w")
    assert told(value) == [("nodes[1]", "endless_cycle", "error")]
    value["nodes"][1]["timeout"] = "P1D"
    assert told(value) == [("nodes[1]", "endless_cycle", "error")]  # a timeout without an edge is a failure
    value["nodes"].append(log("z"))
    value["edges"].append({"from": "w", "port": "timeout", "to": "z"})
    assert told(value) == []


# Calls


def test_a_call() -> None:
    call = {**node("c", "logic.call", workflow="billing", payload={"order": "{{ trigger.payload.order }}"})}
    row = plan(document({**call, "timeout": "P1D"}, log("a"), log("b"), ways="start>c c>a c:timeout>b c:error>b"))["c"]
    assert (row["runs_in"], row["executable"], row["timeout"]) == ("wait", True, "P1D")
    assert row["config"] == {"workflow": "billing", "payload": {"order": None}}
    assert row["dynamic"] == [{"at": ["payload", "order"], "path": ["trigger", "payload", "order"]}]
    assert row["edges"] == {"next": ["a"], "timeout": ["b"], "error": ["b"]}
    assert (row["on_error"], row["max_attempts"]) == ("route", 1)


# Compensation


def test_a_node_that_only_undoes_needs_no_edge() -> None:
    rows = plan(
        document(
            log("book", compensate="cancel"),
            log("pay", compensate="cancel"),
            log("cancel", "{{ steps.book.output }} {{ steps.pay.error }}"),
            ways="start>book book>pay",
        )
    )
    assert [rows[name]["compensate"] for name in ("book", "pay", "cancel")] == ["cancel", "cancel", None]
    assert (rows["cancel"]["edges"], rows["cancel"]["joins"], rows["cancel"]["reads"]) == (
        {},
        False,
        {"steps": ["book", "pay"]},
    )


def test_what_undoes_a_step_of_a_loop_sees_the_item() -> None:
    ways = "start>l start>b l:each>a a>l"
    nodes = [
        node("l", "logic.loop", items=[1]),
        log("a", compensate="undo"),
        log("undo", "{{ item }} {{ index }} {{ steps.a.output }}"),
        log("b"),
    ]
    rows = plan(document(*nodes, ways=ways))
    assert (rows["undo"]["loop_node"], rows["undo"]["reads"]) == ("l", {"item": True, "steps": ["a"]})
    nodes[3] = log("b", compensate="undo")
    assert told(document(*nodes, ways=ways)) == [("nodes[3].config.message", "not_in_loop", "error")] * 2


def test_edges_out_of_a_node_that_only_undoes_are_never_followed() -> None:
    value = document(log("a", compensate="undo"), log("undo"), log("z"), ways="start>a a>z undo>z undo:error>z")
    assert told(value) == [("edges[2]", "unused_edge", "warning"), ("edges[3]", "unused_edge", "warning")]
    rows = {row["node_id"]: row for row in compile_workflow(value).plan}
    assert (rows["undo"]["edges"], rows["undo"]["on_error"], rows["z"]["joins"]) == ({}, "fail", False)
    alone = document(log("a", compensate="undo"), log("undo"), log("z"), ways="start>a undo>z")
    assert told(alone) == [("edges[1]", "unused_edge", "warning"), ("nodes[3]", "unreachable", "error")]


def test_a_node_of_the_flow_may_undo_another_one() -> None:
    rows = plan(document(log("a", compensate="b"), log("b"), log("c")))
    assert (rows["b"]["edges"], rows["a"]["compensate"]) == ({"next": ["c"]}, "b")


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (None, "unknown_node"),
        (node("undo", "trigger.form_submit"), "not_applicable"),
        (node("undo", "logic.join"), "not_applicable"),
        (node("undo", "logic.stop"), "not_applicable"),
        (node("undo", "logic.call", workflow="x"), "not_applicable"),
        (node("undo", "logic.wait", **{"for": "PT1S"}), "not_applicable"),
        (node("undo", "webhook.esign_completed", correlation="x"), "not_applicable"),
    ],
)
def test_what_cannot_undo_a_step_is_told(target: dict[str, Any] | None, code: str) -> None:
    targets = [target] if target else []
    value = document(log("a", compensate="undo"), *targets, ways="start>a")
    assert told(value) == [("nodes[1].compensate", code, "error")]


def test_a_loop_and_a_trigger_have_no_part_in_compensation() -> None:
    value = document(
        log("a", compensate="l"), node("l", "logic.loop", items=[1]), log("b"), ways="start>a a>l l:each>b"
    )
    assert told(value) == [("nodes[1].compensate", "not_applicable", "error")]
    value = document(log("a"))
    value["nodes"][0] = {**value["nodes"][0], "compensate": "a"}
    assert told(value) == [("nodes[0].compensate", "not_applicable", "error")]


# Settings


def test_settings_of_flow_control_can_be_published() -> None:
    settings = {
        "max_running": 100,
        "concurrency_key": "{{ trigger.payload.email }}",
        "on_conflict": "replace",
        "debounce": "PT5S",
        "throttle": "PT1M",
        "priority": 5,
        "timeout": "P7D",
        "retention": "P90D",
    }
    compiled = compile_workflow(document(log("a"), settings=settings))
    assert not compiled.problems
    assert compiled.document["settings"] == settings


@pytest.mark.parametrize(
    ("key", "config", "dynamic", "reads"),
    [
        ("one at a time", "one at a time", [], {}),
        (
            "{{ trigger.payload.email }}",
            None,
            [{"at": ["concurrency_key"], "path": ["trigger", "payload", "email"]}],
            {"trigger": ["payload"]},
        ),
        (
            "{{ lower(trigger.row.email) }}",
            None,
            [{"at": ["concurrency_key"], "expr": ["call", "lower", ["path", "trigger", "row", "email"]]}],
            {"trigger": ["row"]},
        ),
        (
            "{{ run.workflow }}/${ trigger.source }/{{ now }}",
            None,
            [
                {
                    "at": ["concurrency_key"],
                    "text": [["path", "run", "workflow"], "/", ["path", "trigger", "source"], "/", ["path", "now"]],
                }
            ],
            {"trigger": ["source"], "run": True, "now": True},
        ),
    ],
)
def test_every_trigger_carries_the_concurrency_key(
    key: str, config: str | None, dynamic: list[Any], reads: dict[str, Any]
) -> None:
    value = document(log("a"), ways="start>a form>a", settings={"concurrency_key": key})
    value["nodes"].insert(1, node("form", "trigger.form_submit", form="contact"))
    rows = plan(value)
    for name, own in (("start", {}), ("form", {"form": "contact"})):
        assert rows[name]["config"] == {**own, "concurrency_key": config}
        assert (rows[name]["dynamic"], rows[name]["reads"]) == (dynamic, reads)
    assert (rows["a"]["config"], rows["a"]["dynamic"]) == ({"message": "m", "data": None}, [])


def test_a_concurrency_key_that_may_raise_marks_the_trigger() -> None:
    rows = plan(document(log("a"), settings={"concurrency_key": "{{ trigger.payload.n / trigger.payload.m }}"}))
    assert (rows["start"]["may_raise"], rows["a"]["may_raise"]) == (True, False)


def test_without_a_concurrency_key_triggers_have_none() -> None:
    assert plan(document(log("a")))["start"]["config"] == {}


@pytest.mark.parametrize(
    ("settings", "path", "code", "position"),
    [
        ({"on_conflict": "skip"}, "settings.on_conflict", "missing_key", None),
        ({"on_conflict": "drop", "concurrency_key": "k"}, "settings.on_conflict", "bad_value", None),
        ({"concurrency_key": " "}, "settings.concurrency_key", "bad_value", None),
        ({"concurrency_key": 5}, "settings.concurrency_key", "bad_type", None),
        ({"concurrency_key": "x {{ steps.a.output.x }}"}, "settings.concurrency_key", "unknown_name", 5),
        ({"concurrency_key": "{{ vars.x }}"}, "settings.concurrency_key", "unknown_name", 3),
        ({"concurrency_key": "{{ item.x }}"}, "settings.concurrency_key", "unknown_name", 3),
        ({"concurrency_key": "{{ index }}"}, "settings.concurrency_key", "unknown_name", 3),
        ({"concurrency_key": "{{ trigger.payload.x"}, "settings.concurrency_key", "unclosed_braces", 0),
        ({"debounce": "5 seconds"}, "settings.debounce", "bad_value", None),
        ({"max_running": 0}, "settings.max_running", "bad_value", None),
        ({"max_running": 1_000_001}, "settings.max_running", "bad_value", None),
        ({"debounce": "PT0S"}, "settings.debounce", "bad_value", None),
        ({"throttle": "P13M"}, "settings.throttle", "bad_value", None),
        ({"throttle": "P1Y1D"}, "settings.throttle", "bad_value", None),
    ],
)
def test_a_setting_that_cannot_be_is_told(settings: dict[str, Any], path: str, code: str, position: int | None) -> None:
    found = compile_workflow(document(log("a"), settings=settings)).problems
    assert [(item.path, item.code, item.position) for item in found] == [(path, code, position)]
