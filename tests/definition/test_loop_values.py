"""What expressions see within a loop, in what it collects, and outside it."""

from __future__ import annotations

from typing import Any

from definition.helpers import document, log, when
from definition.looping import loop, rows_of, told


def test_what_a_loop_collects_is_computed_within_the_iteration() -> None:
    rows = rows_of(
        loop("l", collect={"id": "{{ item.id }}", "no": "{{ index }}", "got": "{{ steps.a.output.x }}", "n": 1}),
        log("a"),
        log("z", "{{ steps.l.output.items[0].got }}"),
        ways="start>l l:each>a a>l l:done>z",
    )
    assert rows["l"]["config"]["collect"] == {"id": None, "no": None, "got": None, "n": 1}
    assert rows["l"]["dynamic"] == [
        {"at": ["items"], "path": ["trigger", "payload", "list"]},
        {"at": ["collect", "id"], "path": ["item", "id"]},
        {"at": ["collect", "no"], "path": ["index"]},
        {"at": ["collect", "got"], "path": ["steps", "a", "output", "x"]},
    ]
    assert rows["l"]["reads"] == {"trigger": ["payload"], "steps": ["a"], "item": True}


def test_collect_as_one_expression() -> None:
    row = rows_of(loop("l", [1, 2], collect="{{ item * 2 }}"), log("a"), ways="start>l l:each>a")["l"]
    assert row["config"]["items"] == [1, 2]
    assert row["dynamic"] == [{"at": ["collect"], "expr": ["mul", ["path", "item"], ["value", 2]]}]


def test_in_nested_loops_each_level_sees_what_is_around_it() -> None:
    ways = "start>l l:each>a a>m m:each>b b>m m:done>c c>l l:done>z"

    def inner(items: str, collect: Any = None, **texts: str) -> dict[str, Any]:
        names = {name: log(name, texts.get(name, "m")) for name in "abcz"}
        return document(
            loop("l", collect=texts.get("l")),
            names["a"],
            loop("m", items, collect=collect),
            *list(names.values())[1:],
            ways=ways,
        )

    good = inner(
        "{{ item.parts[0] or steps.a.output.parts }}",
        "{{ steps.b.output.x + item.n + steps.a.output.n }}",
        b="{{ steps.a.output }} {{ item }} {{ index }}",
        c="{{ steps.m.output.items }} {{ item }}",
        l="{{ steps.c.output }} {{ steps.m.output }}",
        z="{{ steps.l.output.items }}",
    )
    assert told(good) == []
    places = [f"nodes[{number}].config" for number in range(7)]  # start, l, a, m, b, c, z
    for bad, path in (
        (inner("{{ item }}", c="{{ steps.b.output }}"), f"{places[5]}.message"),
        (inner("{{ item }}", z="{{ steps.b.output }}"), f"{places[6]}.message"),
        (inner("{{ item }}", z="{{ steps.c.output }}"), f"{places[6]}.message"),
        (inner("{{ item }}", l="{{ steps.b.output }}"), f"{places[1]}.collect"),
        (inner("{{ steps.b.output }}"), f"{places[3]}.items"),
        (inner("{{ item }}", b="{{ steps.m.output }}"), f"{places[4]}.message"),
        (inner("{{ item }}", a="{{ steps.c.output }}"), f"{places[2]}.message"),
        (inner("{{ item }}", "{{ steps.c.output }}"), f"{places[3]}.collect"),
    ):
        assert told(bad) == [(path, "not_upstream", "warning")]


def test_beyond_collect_a_loop_stands_outside_itself() -> None:
    value = document(loop("l", "{{ item.x }}"), log("a"), log("z", "{{ item }}"), ways="start>l l:each>a l:done>z")
    assert told(value) == [
        ("nodes[1].config.items", "not_in_loop", "error"),
        ("nodes[3].config.message", "not_in_loop", "error"),
    ]


def test_a_name_that_begins_like_collect_is_not_collect() -> None:
    value = document(loop("l", [1], collected="{{ item }}"), log("a"), ways="start>l l:each>a")
    assert ("nodes[1].config.collected", "unknown_key", "error") in told(value)


def test_going_round_a_loop_again_it_has_an_earlier_output() -> None:
    value = document(
        loop("l"),
        log("b", "{{ steps.l.output.count }}"),
        when("again", "steps.l.output.count > 3"),
        ways="start>l l:each>b b>l l:done>again again:true>l",
    )
    assert told(value) == []
