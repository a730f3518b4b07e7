"""Where nodes are drawn."""

from __future__ import annotations

import itertools
from typing import Any

from stellwerk.web.graph_layout import HEIGHT, WIDTH, Layout, lay_out


def draw(names: str, ways: str, **placed: tuple[int, int]) -> Layout:
    nodes: list[dict[str, Any]] = [
        {"id": name, **({"ui": {"x": placed[name][0], "y": placed[name][1]}} if name in placed else {})}
        for name in names
    ]
    return lay_out(nodes, [{"from": way[0], "to": way[1], "port": way[2:] or "next"} for way in ways.split()])


def at(layout: Layout) -> dict[str, tuple[int, int]]:
    return {box.node: (box.x, box.y) for box in layout.boxes}


def free_of_overlaps(layout: Layout) -> bool:
    places = list(at(layout).values())
    return not any(
        abs(x - other) < WIDTH and abs(y - below) < HEIGHT
        for number, (x, y) in enumerate(places)
        for other, below in places[number + 1 :]
    )


def test_a_node_stands_right_of_all_that_lead_to_it() -> None:
    places = at(draw("abcd", "ab ac bd cd ad"))
    assert places["a"][0] < places["b"][0] == places["c"][0] < places["d"][0]
    assert places["b"][1] != places["c"][1]


def test_a_way_back_does_not_push_nodes_away() -> None:
    layout = draw("abcd", "ab bc cb cd")
    places = at(layout)
    assert places["a"][0] < places["b"][0] < places["c"][0] < places["d"][0]
    assert len(layout.wires) == 4


def test_a_long_chain_is_broken_into_rows() -> None:
    names = "abcdefghijklm"
    layout = draw(names, " ".join(a + b for a, b in itertools.pairwise(names)))
    assert layout.width < 6 * (WIDTH + 60)
    assert len({y for _, y in at(layout).values()}) == 3
    assert free_of_overlaps(layout)


def test_placed_nodes_stay_where_the_designer_put_them() -> None:
    places = at(draw("abc", "ab bc", a=(100, 100), b=(500, 180)))
    assert (places["b"][0] - places["a"][0], places["b"][1] - places["a"][1]) == (400, 80)
    assert free_of_overlaps(draw("abc", "ab ac", a=(0, 0), b=(246, 0)))


def test_whatever_is_drawn_fits_the_drawing() -> None:
    for layout in (draw("", ""), draw("a", ""), draw("ab", "aa ab ba"), draw("abcdef", "ab ac ad ae af bf")):
        assert all(0 <= box.x <= layout.width - WIDTH and 0 <= box.y <= layout.height - HEIGHT for box in layout.boxes)


def test_edges_to_unknown_nodes_are_left_out() -> None:
    assert draw("ab", "ab ax").wires[0].target == "b"
    assert len(draw("ab", "ab ax").wires) == 1
