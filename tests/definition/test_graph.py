"""Ways through a workflow: where they meet, which lead back, what a loop holds."""

from __future__ import annotations

import itertools
import random

import pytest

from stellwerk.definition.graph import Graph, Way


def graph(text: str, *, triggers: str = "s", loops: str = "", order: str | None = None) -> Graph:
    """`s>a a>b a:each>c`; the nodes in order of appearance, or as `order` says."""
    ways = []
    for number, word in enumerate(text.split()):
        source, target = word.split(">")
        name, _, port = source.partition(":")
        ways.append(Way(name, port or "next", target, f"edges[{number}]"))
    names = list(dict.fromkeys(name for way in ways for name in (way.source, way.target)))
    return Graph(list(order or names), triggers.split(), ways, frozenset(loops.split()))


def back(value: Graph) -> set[str]:
    return {f"{way.source}>{way.target}" for way in value.back}


def ended(value: Graph) -> set[str]:
    return {f"{way.source}>{way.target}" for way in value.ends}


@pytest.mark.parametrize(
    ("text", "triggers", "expected"),
    [
        ("s>a a>b", "s", set()),
        ("s>a s>b a>c b>c", "s", set()),
        ("s>a a>b b>a b>c", "s", {"b>a"}),
        ("s>a a>a a>b", "s", {"a>a"}),
        ("s>a a>b b>c c>b c>a c>d", "s", {"c>b", "c>a"}),
        # A loop back within one of two parallel branches.
        ("s>a s>x a>b b>a b>j x>j", "s", {"b>a"}),
        # A knot that is entered at two places: no node stands on every way, so document order decides.
        ("s>a s>b a>b b>a b>c", "s", {"b>a"}),
        # Two triggers into one cycle.
        ("s>a t>b a>b b>a b>c", "s t", {"b>a"}),
        ("s>a t>a a>b b>a b>c", "s t", {"b>a"}),
    ],
)
def test_edges_that_lead_back_are_found(text: str, triggers: str, expected: set[str]) -> None:
    assert back(graph(text, triggers=triggers)) == expected


def test_without_the_edges_that_lead_back_nothing_is_cyclic() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        names = "abcdefgh"[: dice.randint(2, 8)]
        words = {f"{dice.choice(names)}>{dice.choice(names)}" for _ in range(dice.randint(1, 16))}
        value = graph(" ".join(["s>a", *sorted(words)]), order="s" + names)
        forward = [way for way in value.ways if way not in value.back]
        assert not Graph(value.nodes, value.triggers, forward).cyclic(), seed
        # An edge whose target stands on every way to its source leads back; one that is on no cycle never does.
        for way in value.ways:
            if value.dominates(way.target, way.source):
                assert way in value.back
            if way in value.back:
                assert way.source in value.reachable([way.target])


def test_a_dominator_stands_on_every_way() -> None:
    """Compared with the definition: without the node, the other one cannot be reached."""
    for seed in range(100):
        dice = random.Random(seed)
        names = "abcdef"
        words = {f"{dice.choice(names)}>{dice.choice(names)}" for _ in range(10)}
        value = graph(" ".join(["s>a", *sorted(words)]), order="s" + names)
        alive = value.reachable(["s"])
        for above, below in itertools.product(value.nodes, value.nodes):
            cut = frozenset(way for way in value.ways if above in (way.source, way.target))
            expected = below in alive and (
                above == below or below not in value.reachable(["s"], without=cut) or above == "s"
            )
            assert value.dominates(above, below) is expected, (seed, above, below)


def test_upstream_goes_forward_only() -> None:
    value = graph("s>a s>b a>c b>c c>d d>a d>e")
    assert value.upstream("c", "s") == ["s", "a", "b"]
    assert value.upstream("a", "s") == ["s"]
    assert value.forward_ways("c", "s") == 2
    assert value.forward_ways("a", "s") == 1


def test_upstream_is_computed_per_trigger() -> None:
    value = graph("s>a t>b a>j b>j", triggers="s t")
    assert value.upstream("j", "s") == ["s", "a"]
    assert value.upstream("j", "t") == ["b", "t"] or value.upstream("j", "t") == ["t", "b"]
    assert value.forward_ways("j", "s") == 1


def test_a_loop_s_body_is_what_its_each_reaches() -> None:
    value = graph("s>l l:each>a a>b b>l l:done>z", loops="l")
    assert value.body("l") == {"a", "b"}
    assert value.around == {"a": "l", "b": "l"}
    assert ended(value) == {"b>l"}
    assert value.cyclic() == set()


def test_loops_nest() -> None:
    value = graph("s>l l:each>m m:each>a a>m m:done>b b>l l:done>z", loops="l m")
    assert value.around == {"a": "m", "m": "l", "b": "l"}
    assert value.loops_around("a") == ["m", "l"]
    assert ended(value) == {"a>m", "b>l"}
    assert value.cyclic() == set()


def test_knots_are_told_in_document_order() -> None:
    assert graph("s>a a>b b>a b>c c>d d>d").knots() == [["d"], ["a", "b"]] or sorted(
        graph("s>a a>b b>a b>c c>d d>d").knots()
    ) == [["a", "b"], ["d"]]


def test_a_long_chain_needs_no_recursion() -> None:
    names = [f"n{number}" for number in range(5000)]
    value = Graph(names, ["n0"], [Way(a, "next", b, "") for a, b in itertools.pairwise(names)])
    assert not value.back
    assert len(value.upstream("n4999", "n0")) == 4999
