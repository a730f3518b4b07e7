"""The checker finds what it is there for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults.checker import Effects, Step, problems

NODES = ("w1", "w2")


def history() -> tuple[list[Step], Effects]:
    """Two runs of two steps; one attempt was repeated."""
    steps: list[Step] = [(run, run * 10 + n, f"w{n}", 1, "completed", 1) for run in (1, 2) for n in (1, 2)]
    steps[0] = (1, 11, "w1", 1, "completed", 2)
    effects = [{"key": f"{run}:{step}:1", "attempt": 1} for run, step, *_ in steps]
    effects.append({"key": "1:11:1", "attempt": 2})
    return steps, effects


def test_a_good_history_has_no_problems() -> None:
    assert problems({1, 2}, NODES, *history()) == []


def lose_a_step(steps: list[Step], effects: Effects) -> None:
    steps.pop()
    effects[:] = [effect for effect in effects if effect["key"] != "2:22:1"]


def double_a_step(steps: list[Step], effects: Effects) -> None:
    steps.append((1, 99, "w1", 1, "completed", 1))
    effects.append({"key": "1:99:1", "attempt": 1})


def visit_twice(steps: list[Step], effects: Effects) -> None:
    steps[1] = (1, 12, "w2", 2, "completed", 1)
    effects[1] = {"key": "1:12:2", "attempt": 1}


def leave_one_running(steps: list[Step], effects: Effects) -> None:
    steps[1] = (1, 12, "w2", 1, "running", 1)


def lose_an_effect(steps: list[Step], effects: Effects) -> None:
    effects.pop(1)


def change_the_key(steps: list[Step], effects: Effects) -> None:
    effects.append({"key": "1:12:7", "attempt": 2})


def repeat_in_one_attempt(steps: list[Step], effects: Effects) -> None:
    effects.append({"key": "1:12:1", "attempt": 1})


def go_back_in_attempts(steps: list[Step], effects: Effects) -> None:
    effects.insert(0, {"key": "1:11:1", "attempt": 2})


def act_after_the_end(steps: list[Step], effects: Effects) -> None:
    effects.append({"key": "1:12:1", "attempt": 3})


def run_unasked(steps: list[Step], effects: Effects) -> None:
    steps += [(3, 31, "w1", 1, "completed", 1), (3, 32, "w2", 1, "completed", 1)]
    effects += [{"key": "3:31:1", "attempt": 1}, {"key": "3:32:1", "attempt": 1}]


@pytest.mark.parametrize(
    "fault",
    [
        lose_a_step,
        double_a_step,
        visit_twice,
        leave_one_running,
        lose_an_effect,
        change_the_key,
        repeat_in_one_attempt,
        go_back_in_attempts,
        act_after_the_end,
        run_unasked,
    ],
)
def test_every_fault_is_found(fault: Callable[[Any, Any], None]) -> None:
    steps, effects = history()
    fault(steps, effects)
    assert problems({1, 2}, NODES, steps, effects) != []
