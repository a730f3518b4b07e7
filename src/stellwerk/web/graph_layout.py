"""Where the nodes of a workflow stand on a page, and how its edges run: layers from left to right, in rows that fit.

Nodes that a designer has placed stay where they are; the others are placed in layers (a node one after the last that
leads to it), within a layer in the order that crosses few edges. A long chain is broken into rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 190, 56
GAP_X, GAP_Y = 56, 28
MARGIN = 24
PORT_NAME = 56  # room for what a port is called
LAYERS_IN_A_ROW = 5
ROW_GAP = 56


@dataclass(frozen=True)
class Box:
    """A node's place."""

    node: str
    x: int
    y: int


@dataclass(frozen=True)
class Wire:
    """An edge's way, as the path of an SVG; its port is written at (x, y)."""

    source: str
    port: str
    target: str
    path: str
    x: int
    y: int


@dataclass(frozen=True)
class Layout:
    """A drawing and its size."""

    boxes: list[Box]
    wires: list[Wire]
    width: int
    height: int


def lay_out(nodes: Sequence[dict[str, Any]], edges: Sequence[dict[str, Any]]) -> Layout:
    """The drawing of a document's nodes and edges."""
    names = [node["id"] for node in nodes]
    known = set(names)
    ways = [(e["from"], e.get("port", "next"), e["to"]) for e in edges if e["from"] in known and e["to"] in known]
    back = _returning(names, ways)
    layers = _layers(names, [(a, b) for a, p, b in ways if (a, p, b) not in back])
    _straighten(layers, _with_room(layers, ways))
    places = {name: place for name, place in _places(layers).items() if name in known}
    tops = _row_tops(layers, places)
    _respect(places, nodes)
    for node in nodes:
        if node.get("ui"):
            tops[node["id"]] = places[node["id"]][1]
    left, top = min((x for x, _ in places.values()), default=0), min((y for _, y in places.values()), default=0)
    places = {name: (x - left + MARGIN, y - top + MARGIN) for name, (x, y) in places.items()}
    wires = _wires(places, ways, {name: y - top + MARGIN for name, y in tops.items()})
    width = max((x for x, _ in places.values()), default=0) + WIDTH + MARGIN + PORT_NAME
    height = max((y for _, y in places.values()), default=0) + HEIGHT + MARGIN
    if any(places[b][0] <= places[a][0] for a, _, b in ways):
        height += MARGIN  # a way back runs below
    return Layout([Box(name, *places[name]) for name in names], wires, width, height)


def _returning(names: list[str], ways: list[tuple[str, str, str]]) -> set[tuple[str, str, str]]:
    """The edges that lead back to where a walk from the beginning has come from."""
    out: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    targets = {b for _, _, b in ways}
    for way in ways:
        out[way[0]].append(way)
    state: dict[str, int] = {}
    back: set[tuple[str, str, str]] = set()
    for start in [n for n in names if n not in targets] + names:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(out[start]))]
        while stack:
            node, following = stack[-1]
            onward = next(following, None)
            if onward is None:
                state[node] = 2
                stack.pop()
            elif state.get(onward[2]) == 1:
                back.add(onward)
            elif onward[2] not in state:
                state[onward[2]] = 1
                stack.append((onward[2], iter(out[onward[2]])))
    return back


def _layers(names: list[str], ways: list[tuple[str, str]]) -> list[list[str]]:
    before: dict[str, set[str]] = {name: set() for name in names}
    after: dict[str, set[str]] = {name: set() for name in names}
    for a, b in ways:
        if a != b:
            before[b].add(a)
            after[a].add(b)
    level = dict.fromkeys(names, 0)
    left = {name: len(found) for name, found in before.items()}
    ready = [name for name in names if not left[name]]
    for name in ready:
        for following in sorted(after[name], key=names.index):
            level[following] = max(level[following], level[name] + 1)
            left[following] -= 1
            if not left[following]:
                ready.append(following)
    layers: list[list[str]] = [[] for _ in range(max(level.values(), default=-1) + 1)]
    for name in names:
        layers[level[name]].append(name)
    return layers


def _with_room(layers: list[list[str]], ways: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Keeps a place free in every layer that an edge passes, so that it runs beside the nodes and not behind them."""
    level = {name: number for number, layer in enumerate(layers) for name in layer}
    in_a_row = _in_a_row(layers)
    passing = []
    for source, port, target in ways:
        first, last = level[source], level[target]
        if last - first < 2 or first // in_a_row != last // in_a_row:
            passing.append((source, port, target))
            continue
        before = source
        for number in range(first + 1, last):
            room = f"{source}\n{target}\n{number}"
            if room not in layers[number]:
                layers[number].append(room)
            passing.append((before, port, room))
            before = room
        passing.append((before, port, target))
    return passing


def _in_a_row(layers: list[list[str]]) -> int:
    rows = -(-len(layers) // LAYERS_IN_A_ROW) or 1
    return -(-len(layers) // rows) or 1


def _straighten(layers: list[list[str]], ways: list[tuple[str, str, str]]) -> None:
    """Order each layer by the middle of its neighbours, forwards and back again."""
    neighbours: dict[str, list[str]] = defaultdict(list)
    for a, _, b in ways:
        neighbours[a].append(b)
        neighbours[b].append(a)
    for _ in range(3):
        for these, those in [*zip(layers[1:], layers, strict=False), *zip(layers[-2::-1], layers[::-1], strict=False)]:
            at = {name: position for position, name in enumerate(those)}
            middle = {}
            for position, name in enumerate(these):
                near = [at[other] for other in neighbours[name] if other in at]
                middle[name] = sum(near) / len(near) if near else float(position)
            these.sort(key=lambda name: middle[name])


def _places(layers: list[list[str]]) -> dict[str, tuple[int, int]]:
    in_a_row = _in_a_row(layers)
    places: dict[str, tuple[int, int]] = {}
    top = 0
    for first in range(0, len(layers), in_a_row):
        row = layers[first : first + in_a_row]
        height = max(len(layer) for layer in row) * (HEIGHT + GAP_Y) - GAP_Y
        for column, layer in enumerate(row):
            above = top + (height - (len(layer) * (HEIGHT + GAP_Y) - GAP_Y)) // 2
            for position, name in enumerate(layer):
                places[name] = (column * (WIDTH + GAP_X), above + position * (HEIGHT + GAP_Y))
        top += height + ROW_GAP
    return places


def _row_tops(layers: list[list[str]], places: dict[str, tuple[int, int]]) -> dict[str, int]:
    """Where the row of each node begins."""
    in_a_row = _in_a_row(layers)
    tops: dict[str, int] = {}
    for first in range(0, len(layers), in_a_row):
        row = [name for layer in layers[first : first + in_a_row] for name in layer if name in places]
        tops |= dict.fromkeys(row, min(places[name][1] for name in row))
    return tops


def _respect(places: dict[str, tuple[int, int]], nodes: Sequence[dict[str, Any]]) -> None:
    """Nodes that were placed by hand stand there; the others give way, downwards."""
    placed = {n["id"]: (int(n["ui"]["x"]), int(n["ui"]["y"])) for n in nodes if n.get("ui")}
    if not placed:
        return
    taken = list(placed.values())
    for name in places:
        if name in placed:
            places[name] = placed[name]
            continue
        x, y = places[name]
        while any(abs(x - other) < WIDTH + 10 and abs(y - below) < HEIGHT + 10 for other, below in taken):
            y += HEIGHT + GAP_Y
        places[name] = (x, y)
        taken.append((x, y))


def _wires(places: dict[str, tuple[int, int]], ways: list[tuple[str, str, str]], tops: dict[str, int]) -> list[Wire]:
    ports: dict[str, list[str]] = defaultdict(list)
    for source, port, _ in ways:
        if port not in ports[source]:
            ports[source].append(port)
    wires = []
    for source, port, target in ways:
        (x, y), (to_x, to_y) = places[source], places[target]
        number, count = ports[source].index(port), len(ports[source])
        start_x, start_y = x + WIDTH, y + HEIGHT * (number + 1) // (count + 1)
        end_x, end_y = to_x, to_y + HEIGHT // 2
        path = _path(start_x, start_y, end_x, end_y, y, min(tops[target], to_y))
        wires.append(Wire(source, port, target, path, start_x + 5, start_y - 5))
    return wires


def _path(x1: int, y1: int, x2: int, y2: int, top: int, row_top: int) -> str:
    below = row_top > top + HEIGHT  # in a row further down, whose nodes are not to be crossed
    if x2 > x1 and not (below and y2 - row_top > HEIGHT):
        bend = max(24, (x2 - x1) // 2)
        return f"M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}"
    # Back to the left: through the gap between two rows, or below both nodes where they stand in one.
    gutter = row_top - ROW_GAP // 2 if below else max(y1, y2) + HEIGHT // 2 + 16
    out, into, r = x1 + 18, x2 - 18, 10
    down1 = r if gutter > y1 else -r
    down2 = r if y2 > gutter else -r
    return (
        f"M{x1},{y1} H{out - r} Q{out},{y1} {out},{y1 + down1} V{gutter - down1} Q{out},{gutter} {out - r},{gutter} "
        f"H{into + r} Q{into},{gutter} {into},{gutter + down2} V{y2 - down2} Q{into},{y2} {into + r},{y2} H{x2}"
    )
