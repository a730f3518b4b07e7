"""Loops: what their bodies hold, what ends an iteration, where ways meet within one, and what can be read there."""

from __future__ import annotations

import random
from typing import Any

import pytest
from definition.helpers import document, log, node, plan, when
from definition.looping import column, loop, rows_of, told

from stellwerk.definition.compile import compile_workflow

# The plan


def test_a_plain_loop() -> None:
    rows = rows_of(loop("l"), log("a"), log("b"), log("z"), ways="start>l l:each>a a>b b>l l:done>z")
    # The edge from b ends the iteration: its port stays, without a target.
    assert column(rows, "edges") == {
        "start": {"next": ["l"]},
        "l": {"each": ["a"], "done": ["z"]},
        "a": {"next": ["b"]},
        "b": {"next": []},
    }
    assert column(rows, "loop_node") == {"a": "l", "b": "l"}
    assert (column(rows, "cyclic"), column(rows, "joins")) == ({}, {})
    assert rows["l"]["executable"] is True
    assert rows["l"]["config"] == {"items": None, "parallel": 1, "collect": None, "on_item_error": "fail"}
    assert rows["l"]["dynamic"] == [{"at": ["items"], "path": ["trigger", "payload", "list"]}]


def test_an_iteration_may_also_end_without_an_edge() -> None:
    with_edge = rows_of(loop("l"), log("a"), log("z"), ways="start>l l:each>a a>l l:done>z")
    without = rows_of(loop("l"), log("a"), log("z"), ways="start>l l:each>a l:done>z")
    assert with_edge["a"].pop("edges") == {"next": []}
    assert without["a"].pop("edges") == {}
    assert with_edge == without


def test_an_edge_that_ends_the_iteration_goes_beside_others() -> None:
    rows = rows_of(
        loop("l"),
        when("a", "item.x"),
        log("b"),
        log("c"),
        ways="start>l l:each>a a:true>b a:true>l a:false>l b:error>l b>c",
    )
    assert rows["a"]["edges"] == {"true": ["b"], "false": []}
    # The error is routed, to the end of the iteration.
    assert (rows["b"]["edges"], rows["b"]["on_error"]) == ({"error": [], "next": ["c"]}, "route")


def test_nested_loops() -> None:
    rows = rows_of(
        loop("outer"),
        log("a"),
        loop("inner", "{{ item.parts }}"),
        log("b"),
        log("c"),
        log("z"),
        ways="start>outer outer:each>a a>inner inner:each>b b>inner inner:done>c c>outer outer:done>z",
    )
    assert column(rows, "loop_node") == {"a": "outer", "inner": "outer", "b": "inner", "c": "outer"}
    assert (rows["b"]["edges"], rows["c"]["edges"], rows["inner"]["edges"]) == (
        {"next": []},
        {"next": []},
        {"each": ["b"], "done": ["c"]},
    )
    assert (column(rows, "cyclic"), column(rows, "joins")) == ({}, {})
    assert rows["inner"]["reads"] == {"item": True}


def test_an_inner_loop_may_be_the_whole_body() -> None:
    rows = rows_of(loop("l"), loop("m", "{{ item }}"), log("a"), ways="start>l l:each>m m:each>a a>m m:done>l")
    assert column(rows, "loop_node") == {"m": "l", "a": "m"}
    assert rows["m"]["edges"] == {"each": ["a"], "done": []}
    assert rows["l"]["edges"] == {"each": ["m"]}


def test_a_loop_in_one_of_two_parallel_branches() -> None:
    rows = rows_of(loop("l"), log("a"), log("b"), log("j"), ways="start>l start>b l:each>a a>l l:done>j b>j")
    # The loop's own node stands for its iterations in the level around it.
    assert column(rows, "upstream") == {"j": {"start": ["start", "l", "b"]}}
    assert column(rows, "joins") == {"j": True}


def test_two_loops_side_by_side_meet() -> None:
    rows = rows_of(
        loop("l"),
        loop("m"),
        log("a"),
        log("b"),
        node("j", "logic.join", mode="count", count=1),
        ways="start>l start>m l:each>a m:each>b a>l b>m l:done>j m:done>j",
    )
    assert column(rows, "upstream") == {"j": {"start": ["start", "l", "m"]}}
    assert column(rows, "loop_node") == {"a": "l", "b": "m"}


def test_a_loop_may_be_where_ways_meet() -> None:
    rows = rows_of(log("x"), log("y"), loop("l"), log("a"), ways="start>x start>y x>l y>l l:each>a a>l")
    # The edge back from the body is none of the ways that are waited for.
    assert column(rows, "upstream") == {"l": {"start": ["start", "x", "y"]}}


def test_a_diamond_within_a_body() -> None:
    rows = rows_of(
        log("first"),
        loop("l"),
        log("a"),
        log("b"),
        log("c"),
        log("j"),
        ways="start>first first>l l:each>a a>b a>c b>j c>j j>l",
    )
    # Nodes outside the body are never waited for within it.
    assert column(rows, "upstream") == {"j": {"start": ["a", "b", "c"]}}


def test_a_join_within_a_body() -> None:
    rows = rows_of(
        loop("l"),
        log("a"),
        log("b"),
        node("j", "logic.join", mode="any"),
        log("c"),
        ways="start>l l:each>a l:each>b a>j b>j j>c c>l",
    )
    assert rows["l"]["edges"] == {"each": ["a", "b"]}
    assert column(rows, "upstream") == {"j": {"start": ["a", "b"]}}
    assert rows["j"]["config"] == {"mode": "any", "count": None}


def test_two_entries_of_which_one_leads_to_the_other() -> None:
    rows = rows_of(loop("l"), log("a"), log("b"), ways="start>l l:each>a l:each>b a>b b>l")
    # Both tokens stand in one iteration; the second waits for the first.
    assert column(rows, "upstream") == {"b": {"start": ["a"]}}


def test_a_join_with_one_way_into_it_is_still_a_join() -> None:
    rows = rows_of(loop("l"), log("a"), node("j", "logic.join"), ways="start>l l:each>a a>j")
    assert column(rows, "upstream") == {"j": {"start": ["a"]}}


def test_an_inner_loop_among_what_a_body_waits_for() -> None:
    rows = rows_of(
        loop("l"),
        log("a"),
        loop("m", "{{ item }}"),
        log("x"),
        log("j"),
        ways="start>l l:each>a a>m a>j m:each>x x>m m:done>j j>l",
    )
    assert column(rows, "upstream") == {"j": {"start": ["a", "m"]}}


def test_a_back_edge_within_a_body() -> None:
    rows = rows_of(loop("l"), log("a"), when("b", "item.ok"), ways="start>l l:each>a a>b b:false>a b:true>l")
    assert column(rows, "cyclic") == {"a": True, "b": True}
    assert column(rows, "joins") == {}
    assert rows["b"]["edges"] == {"false": ["a"], "true": []}


def test_a_back_edge_around_a_whole_loop() -> None:
    rows = rows_of(
        log("a"),
        loop("l"),
        log("b"),
        when("again", "steps.l.output.count > 3"),
        log("z"),
        ways="start>a a>l l:each>b b>l l:done>again again:true>a again:false>z",
    )
    # Each time round there are new iterations, so within its scope b is never visited twice. What lies behind a cycle may be.
    assert column(rows, "cyclic") == {"a": True, "l": True, "again": True, "z": True}
    assert column(rows, "joins") == {}
    assert rows["again"]["edges"] == {"true": ["a"], "false": ["z"]}


def test_a_back_edge_to_the_loop_itself() -> None:
    rows = rows_of(
        loop("l"),
        log("b"),
        when("again", "steps.l.output.count > 3"),
        ways="start>l l:each>b b>l l:done>again again:true>l",
    )
    assert column(rows, "cyclic") == {"l": True, "again": True}
    assert (rows["again"]["edges"], rows["b"]["edges"]) == ({"true": ["l"]}, {"next": []})
    assert column(rows, "joins") == {}


def test_upstream_in_a_body_is_told_per_trigger() -> None:
    value = document(loop("l"), log("a"), log("b"), log("j"), ways="start>l second>l l:each>a l:each>b a>j b>j")
    value["nodes"].insert(1, node("second", "trigger.form_submit"))
    rows = plan(value)
    assert column(rows, "upstream") == {"j": {"start": ["a", "b"], "second": ["a", "b"]}}


def test_random_workflows_of_branches_and_loops_are_sound() -> None:
    """Documents that are put together from sequences, branches, parallel ways and loops have no problems, nothing in
    them is cyclic, and what a node waits for stands in its level, at the other end of a way."""
    for seed in range(120):
        dice = random.Random(seed)
        nodes: list[dict[str, Any]] = []
        ways: list[str] = []

        def grow(end: str, depth: int, dice=dice, nodes=nodes, ways=ways) -> str:
            """Adds a piece after a node's port; answers where the next piece goes on."""
            name = f"n{len(nodes)}"
            kind = dice.choice(["log", "log", "branch", "parallel", "loop"]) if depth else "log"
            if kind == "loop":
                nodes.append(loop(name))
                ways.append(f"{end}>{name}")
                inner = f"{name}:each"
                for _ in range(dice.randint(1, 2)):
                    inner = grow(inner, depth - 1)
                if dice.random() < 0.7:
                    ways.append(f"{inner}>{name}")
                return f"{name}:done"
            nodes.append(when(name, "true") if kind == "branch" else log(name))
            ways.append(f"{end}>{name}")
            if kind == "log":
                return name
            sides = (f"{name}:true", f"{name}:false") if kind == "branch" else (name, name)
            ends = [grow(side, depth - 1) for side in sides]
            meeting = f"n{len(nodes)}"
            nodes.append(log(meeting))
            ways.extend(f"{side}>{meeting}" for side in ends)
            return meeting

        at = "start"
        for _ in range(dice.randint(1, 3)):
            at = grow(at, 3)
        rows = rows_of(*nodes, ways=" ".join(ways))
        assert not column(rows, "cyclic"), seed
        for name, row in rows.items():
            level = {other for other, it in rows.items() if it["loop_node"] == row["loop_node"]}
            # By the definition: who reaches this node along edges of the plan, without leaving the level.
            reaching: set[str] = set()
            while True:
                more = {
                    other
                    for other in level - reaching
                    if {name, *reaching} & {to for targets in rows[other]["edges"].values() for to in targets}
                }
                if not more:
                    break
                reaching |= more
            assert name not in reaching, seed
            into = sum(name in targets for it in rows.values() for targets in it["edges"].values())
            assert row["joins"] is (into > 1), seed
            assert row["upstream"] == ({"start": [other for other in rows if other in reaching]} if into > 1 else {})


def test_any_edges_between_loops_are_judged() -> None:
    """Edges drawn by chance: the compiler never raises, and what it lets through is sound."""
    sound = 0
    for seed in range(400):
        dice = random.Random(seed)
        nodes = [loop("l", [1]), loop("m", [1]), when("a", "true"), when("b", "true"), log("c"), log("d")]
        ports = {"l": ("each", "done"), "m": ("each", "done"), "a": ("true", "false"), "b": ("true", "false")}
        names = [item["id"] for item in nodes]
        drawn = {f"start>{dice.choice(names)}", "l:each>a", f"m:each>{dice.choice('bd')}"}
        for _ in range(dice.randint(3, 9)):
            source = dice.choice(names)
            drawn.add(f"{source}:{dice.choice(ports.get(source, ('next',)))}>{dice.choice(names)}")
        value = document(*nodes, ways=" ".join(sorted(drawn)))
        lost = {item.node for item in compile_workflow(value).problems if item.code == "unreachable"}
        value["nodes"] = [item for item in value["nodes"] if item["id"] not in lost]
        value["edges"] = [edge for edge in value["edges"] if not lost & {edge["from"], edge["to"]}]
        compiled = compile_workflow(value)
        if not compiled.is_publishable:
            continue
        sound += 1
        rows = {row["node_id"]: row for row in compiled.plan}
        for name, row in rows.items():
            targets = {(port, to) for port, ends in row["edges"].items() for to in ends}
            for port, to in targets:
                # Into a body goes each; everything else stays in its level.
                entered = name if (port, row["type"]) == ("each", "logic.loop") else row["loop_node"]
                assert rows[to]["loop_node"] == entered, seed
            for other in row["upstream"].get("start", ()):
                assert rows[other]["loop_node"] == row["loop_node"], seed
                assert name not in rows[other]["upstream"].get("start", ()), seed
    assert sound > 100


# What is wrong


@pytest.mark.parametrize(
    ("ways", "path", "code"),
    [
        # No body at all, or only the loop itself.
        ("start>l l:done>a a>b b>z", "nodes[1]", "empty_loop"),
        ("start>l l:each>l l:done>a a>b b>z", "nodes[1]", "empty_loop"),
        ("start>l l:each>l l:each>z l:done>a a>b", "edges[1]", "leaves_loop"),
        # Out of the body.
        ("start>l l:each>a a>z l:done>b b>z", "edges[2]", "leaves_loop"),
        ("start>l l:each>a l:done>b b>z a>b", "edges[4]", "leaves_loop"),
        # Into the body, before the loop, after it, and to its middle.
        ("start>l start>a l:each>a a>b l:done>z", "edges[2]", "leaves_loop"),
        ("start>l l:each>a l:done>b b>a b>z", "edges[1]", "leaves_loop"),
        ("start>l start>b l:each>a a>b l:done>z", "edges[3]", "leaves_loop"),
        # By both ports.
        ("start>l l:each>a l:done>a a>b b>z", "edges[1]", "leaves_loop"),
    ],
)
def test_a_body_is_entered_by_each_and_left_by_the_end_of_the_iteration(ways: str, path: str, code: str) -> None:
    assert told(document(loop("l"), log("a"), log("b"), log("z"), ways=ways)) == [(path, code, "error")]


def test_an_edge_out_of_two_loops_is_told_once() -> None:
    value = document(
        loop("l"),
        loop("m"),
        log("a"),
        log("z"),
        ways="start>l l:each>m m:each>a a>z m:done>l l:done>z",
    )
    compiled = compile_workflow(value)
    assert [(item.path, item.code) for item in compiled.problems] == [("edges[3]", "leaves_loop")]
    assert compiled.problems[0].hint is not None
    assert "back to m" in compiled.problems[0].hint


def test_an_inner_body_cannot_end_the_outer_iteration() -> None:
    value = document(loop("l"), loop("m"), log("a"), ways="start>l l:each>m m:each>a a>l")
    assert told(value) == [("edges[3]", "leaves_loop", "error")]


def test_two_loops_cannot_stand_in_each_other() -> None:
    value = document(loop("l"), loop("m"), log("a"), log("b"), ways="start>m m:each>l m:each>b l:each>a l:each>m")
    assert told(value) == [("edges[4]", "leaves_loop", "error")]


@pytest.mark.parametrize(
    ("ways", "path"),
    [
        # Within the body: no way to the end of the iteration.
        ("start>l l:each>a a>b b>a l:done>z", "nodes[2]"),
        # Around the loop: the body is no way out.
        ("start>l l:each>a a>l l:done>b b>l a>z", "nodes[1]"),
    ],
)
def test_a_cycle_must_be_left_in_its_own_level(ways: str, path: str) -> None:
    assert told(document(loop("l"), log("a"), log("b"), log("z"), ways=ways)) == [(path, "endless_cycle", "error")]


@pytest.mark.parametrize("items", [None, 5, {"a": 1}, "a text", "a {{ trigger.payload.x }}", "{{ now }}{{ now }}"])
def test_items_are_a_list_or_one_expression(items: Any) -> None:
    assert told(document(loop("l", items), log("a"), ways="start>l l:each>a")) == [
        ("nodes[1].config.items", "bad_value", "error")
    ]


def test_items_must_be_given() -> None:
    assert told(document(node("l", "logic.loop"), log("a"), ways="start>l l:each>a")) == [
        ("nodes[1].config.items", "missing_key", "error")
    ]


def test_a_join_that_waits_for_more_than_can_come() -> None:
    value = document(log("a"), log("b"), node("j", "logic.join", mode="count", count=3), ways="start>a start>b a>j b>j")
    assert told(value) == [("nodes[3].config.count", "join_unsatisfied", "warning")]
