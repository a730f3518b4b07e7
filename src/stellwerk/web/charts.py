"""Charts as SVG from the server: shapes with numbers, which templates draw and style sheets colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A part of a column."""

    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass
class Column:
    """What happened in one hour, from the ground up."""

    at: datetime
    x: float
    width: float
    total: int
    parts: dict[str, int]
    bars: list[Bar] = field(default_factory=list)


@dataclass(frozen=True)
class Stack:
    """Columns of stacked bars over a line, with the number that reaches to the top."""

    columns: list[Column]
    width: float
    height: float
    top: int


def spark(numbers: Sequence[float], width: float = 120, height: float = 34) -> str:
    """The path of a small line; a flat one lies on the ground."""
    if not numbers:
        return ""
    top = max(*numbers, 1)
    step = width / max(len(numbers) - 1, 1)
    points = [
        f"{index * step:.1f},{height - 3 - number / top * (height - 6):.1f}" for index, number in enumerate(numbers)
    ]
    return "M" + " L".join(points)


def stack(rows: Sequence[dict[str, Any]], kinds: Sequence[str], width: float = 720, height: float = 170) -> Stack:
    """One column for each row, in the order of `kinds` from the ground up; `hour` says when."""
    top = nice(max((sum(row[kind] for kind in kinds) for row in rows), default=0))
    slot = width / max(len(rows), 1)
    columns = []
    for index, row in enumerate(rows):
        parts = {kind: int(row[kind]) for kind in kinds}
        column = Column(row["hour"], round(index * slot, 2), round(slot, 2), sum(parts.values()), parts)
        ground = height
        for kind, count in parts.items():
            if count:
                tall = max(count / top * height, 1)
                ground -= tall
                column.bars.append(
                    Bar(
                        kind,
                        round(index * slot + slot * 0.12, 2),
                        round(max(ground, 0), 2),
                        round(slot * 0.76, 2),
                        round(tall, 2),
                    )
                )
        columns.append(column)
    return Stack(columns, width, height, top)


def nice(number: float) -> int:
    """The next number that people like on an axis."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if factor * size >= number:
                return factor * size
        size *= 10


def seconds(value: float | None) -> str:
    """A duration as people read it."""
    if value is None:
        return "–"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if value >= 2 * size:
            return f"{value / size:.0f} {unit}" if value >= 10 * size else f"{value / size:.1f} {unit}"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def percent(share: Any) -> str:
    """A share; what is not quite everything never reads as everything."""
    if share is None:
        return "–"
    value = float(share) * 100
    return "100 %" if value == 100 else f"{min(value, 99.9):.1f} %"
