"""Workflows for the stateful test: between them they hold everything that a run can stand still at."""

from __future__ import annotations

from typing import Any

from database.helpers import START, document, node, transform

SLOW = {"max_attempts": 3, "interval": "PT1H", "jitter": False}
WORK = {"script": "ok"}


def work(name: str, **more: Any) -> dict[str, Any]:
    return node(name, "action.fonio_call", WORK, **{"retry": SLOW, **more})


def signal_wait(name: str, **more: Any) -> dict[str, Any]:
    return node(name, "logic.wait", {"event": "news", "correlation": "{{ trigger.payload.key }}"}, **more)


def time_wait(name: str) -> dict[str, Any]:
    return node(name, "logic.wait", {"for": "PT1H"})


def loop(name: str, items: Any = (1, 2, 3), **config: Any) -> dict[str, Any]:
    return node(name, "logic.loop", {"items": list(items) if isinstance(items, tuple) else items, **config})


def join(name: str, **config: Any) -> dict[str, Any]:
    return node(name, "logic.join", config)


SHAPES: dict[str, dict[str, Any]] = {
    "line": document("line", [START, work("a"), time_wait("b"), work("c")], ["start -> a", "a -> b", "b -> c"]),
    "branches": document(
        "branches",
        [START, work("a"), work("b"), signal_wait("c"), transform("meet", 1), work("d")],
        ["start -> a", "start -> b", "start -> c", "a -> meet", "b -> meet", "c -> meet", "meet -> d"],
    ),
    "first": document(
        "first",
        [START, work("a"), time_wait("b"), signal_wait("c"), join("any", mode="any"), work("d")],
        ["start -> a", "start -> b", "start -> c", "a -> any", "b -> any", "c -> any", "any -> d"],
    ),
    "two": document(
        "two",
        [
            START,
            work("a"),
            work("b"),
            loop("l", parallel=2),
            work("c"),
            join("two", mode="count", count=2),
            time_wait("d"),
        ],
        ["start -> a", "start -> b", "start -> l", "l.each -> c", "a -> two", "b -> two", "l.done -> two", "two -> d"],
    ),
    "loop": document(
        "loop",
        [
            START,
            loop("l", parallel=2, on_item_error="collect"),
            work("a"),
            time_wait("b"),
            signal_wait("c", timeout="P1D"),
            work("d"),
        ],
        ["start -> l", "l.each -> a", "a -> b", "a -> c", "l.done -> d"],
    ),
    "nested": document(
        "nested",
        [
            START,
            loop("outer", (1, 2), parallel=2),
            loop("inner", (1, 2)),
            work("a"),
            transform("b", 1),
            work("side"),
            transform("meet", 2),
            work("last"),
        ],
        [
            "start -> outer",
            "outer.each -> inner",
            "outer.each -> side",
            "inner.each -> a",
            "a -> b",
            "inner.done -> meet",
            "side -> meet",
            "outer.done -> last",
        ],
    ),
    "patient": document(
        "patient",
        [START, signal_wait("a", timeout="P1D"), work("told"), work("late"), work("broken", on_error="route")],
        ["start -> a", "a -> told", "a.timeout -> late", "told -> broken", "broken.error -> late"],
    ),
    "caller": document(
        "caller",
        [
            START,
            node(
                "child",
                "logic.call",
                {"workflow": "CHILD", "payload": {"key": "{{ trigger.payload.key }}"}},
                timeout="P1D",
            ),
            work("a"),
            work("b"),
        ],
        ["start -> child", "start -> a", "child -> b"],
    ),
    "undone": document(
        "undone",
        [
            START,
            work("a", compensate="undo_a"),
            work("b", compensate="undo_b"),
            work("c"),
            time_wait("d"),
            work("undo_a"),
            transform("undo_b", 0),
        ],
        ["start -> a", "start -> b", "a -> c", "b -> d"],
    ),
    "again": document(
        "again",
        [
            START,
            node("count", "logic.set", {"values": {"n": "{{ coalesce(vars.n, 0) + 1 }}"}}),
            work("a"),
            work("b"),
            node("more", "logic.if", {"condition": "vars.n < 3"}),
            transform("end", 1),
        ],
        [
            "start -> count",
            "count -> a",
            "count -> b",
            "a -> more",
            "b -> more",
            "more.true -> count",
            "more.false -> end",
        ],
    ),
    "limited": document(
        "limited",
        [
            START,
            work("a"),
            work("b", timeout="PT1H"),
            transform("x", "{{ 1 / trigger.payload.zero }}", on_error="route"),
            transform("y", 1),
        ],
        ["start -> a", "start -> x", "x.error -> b", "a -> y"],
        settings={"timeout": "P2D"},
    ),
}
