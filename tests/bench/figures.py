"""What was measured, and how it is printed: figures with medians and spread, goals with reached or missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass
class Figure:
    """One thing that was measured once per round; `ratios` are to what was measured beside it in the same seconds."""

    key: str
    title: str
    unit: str
    values: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    beside: str = ""

    @property
    def value(self) -> float:
        """The median of all rounds."""
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios."""
        return median(self.ratios) if self.ratios else None

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return {
            "key": self.key,
            "title": self.title,
            "unit": self.unit,
            "median": self.value,
            "values": self.values,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "beside": self.beside or None,
        }


class Figures:
    """All figures, in the order in which they were first added."""

    def __init__(self) -> None:
        self.all: dict[str, Figure] = {}

    def add(self, key: str, title: str, unit: str, value: float, ratio: float | None = None, beside: str = "") -> None:
        """One more round's value."""
        figure = self.all.setdefault(key, Figure(key, title, unit, beside=beside))
        figure.values.append(value)
        if ratio is not None:
            figure.ratios.append(ratio)

    def number(self, key: str, what: str) -> float | None:
        """The median `value` or `ratio` of a figure; None if it was not measured."""
        figure = self.all.get(key)
        return getattr(figure, what) if figure is not None else None


@dataclass(frozen=True)
class Goal:
    """What a figure must come to, and what it should."""

    key: str
    what: str
    title: str
    must: float
    aim: float | None = None
    at_most: bool = False

    def as_json(self, figures: Figures) -> dict[str, Any] | None:
        """How it went; None if it was not measured."""
        found = figures.number(self.key, self.what)
        if found is None:
            return None
        return {
            "goal": self.title,
            "must": self.must,
            "aim": self.aim,
            "at_most": self.at_most,
            "measured": found,
            "reached": self._holds(found, self.must),
            "aim_reached": None if self.aim is None else self._holds(found, self.aim),
        }

    def _holds(self, found: float, bound: float) -> bool:
        return found <= bound if self.at_most else found >= bound

    def line(self, figures: Figures) -> str | None:
        """How it went, in one line."""
        found = self.as_json(figures)
        if found is None:
            return None
        sign = "≤" if self.at_most else "≥"
        aim = "" if self.aim is None else f", aim {sign} {self._show(self.aim)}"
        word = "reached" if found["reached"] else "MISSED"
        if found["aim_reached"]:
            word = "reached, and the aim"
        return f"{word:22}{self._show(found['measured']):>8}  {self.title} ({sign} {self._show(self.must)}{aim})"

    def _show(self, number: float) -> str:
        if self.what == "ratio":
            return f"{number * 100:.0f} %"
        return f"{number:.1f} ms" if self.at_most else grouped(number)


COMMITS_16 = "commits, 16 clients"

GOALS = [
    Goal("sql_sets_2", "ratio", f"SQL steps advanced in sets, 2 connections, to {COMMITS_16}", 1.0, 3.0),
    Goal("worker", "ratio", f"steps of 1 worker process, to {COMMITS_16}", 0.25),
    Goal("latency_worker_p50", "value", "INSERT to first worker step, idle, p50", 5.0, 3.0, at_most=True),
    Goal("latency_worker_p95", "value", "INSERT to first worker step, idle, p95", 10.0, 5.0, at_most=True),
    Goal("watch_16", "ratio", "16 clients, every row matching, no worker, to no watch", 0.60, 0.70),
    Goal("watch_16_worker", "ratio", "16 clients, every row matching, a worker running them, to no watch", 0.60, 0.70),
    Goal("bulk_none", "ratio", "1000-row INSERT, nothing matching, to no watch", 0.90, 0.95),
    Goal("bulk_all_bulk", "ratio", "1000-row INSERT, all matching, bulk mode, to no watch", 0.30, 0.40),
    Goal("age_sql", "ratio", "time of a late SQL step to the first", 1.5, at_most=True),
    Goal("age_worker", "ratio", "time of a late worker step to the first", 1.5, at_most=True),
    Goal("history_sql", "ratio", "time of SQL steps in sets, full tables to empty ones", 1.5, at_most=True),
    Goal("history_worker", "ratio", "time of worker steps, full tables to empty ones", 1.5, at_most=True),
    Goal("history_single", "ratio", "time of one run per call, full tables to empty ones", 1.5, at_most=True),
    Goal("loop_sql", "ratio", "time per item of a long loop in SQL to a short one", 1.5, at_most=True),
    Goal("loop_sql_reads", "ratio", "rows read per item of it", 1.5, at_most=True),
    Goal("loop_worker", "ratio", "time per item of a long loop in workers to a short one", 1.5, at_most=True),
    Goal("loop_worker_reads", "ratio", "rows read per item of it", 1.5, at_most=True),
]


def grouped(number: float) -> str:
    """A number as people read it: 12 345, 123, 1.23."""
    if abs(number) >= 100:
        return f"{number:,.0f}".replace(",", " ")
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def table(figures: Figures) -> str:
    """The figures, one per line."""
    lines = [f"{'':58}{'median':>10}  {'smallest .. largest':>21}  ratio"]
    for figure in figures.all.values():
        spread = f"{grouped(min(figure.values))} .. {grouped(max(figure.values))}"
        ratio = "" if figure.ratio is None else f"{figure.ratio * 100:5.0f} % of {figure.beside}"
        lines.append(f"{figure.title:58}{grouped(figure.value):>10}  {spread:>21}  {ratio}".rstrip())
    return "\n".join(lines)


def goal_lines(figures: Figures) -> list[str]:
    """One line for each goal that was measured."""
    return [line for goal in GOALS if (line := goal.line(figures)) is not None]


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]
