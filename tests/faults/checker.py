"""Compares what the database says happened with what the outside saw."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg

Effects = list[dict[str, Any]]
Step = tuple[int, int, str, int, str, int]  # run, step, node, visit, state, attempt


def read_sink(path: Path) -> Effects:
    """The effects in the order in which they happened. A line that a kill cut short was not an effect."""
    lines = path.read_text().split("\n") if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def read_steps(connection: psycopg.Connection[Any]) -> list[Step]:
    """Every worker step."""
    return connection.execute(
        "select run_id, step_id, node_id, visit, state, attempt from stellwerk.step where runs_in = 'worker'"
    ).fetchall()


def problems(runs: set[int], nodes: tuple[str, ...], steps: list[Step], effects: Effects) -> list[str]:
    """What is wrong: nothing, when no transition was lost or doubled and every effect belongs to a completed step."""
    found: list[str] = []
    by_run: defaultdict[int, list[str]] = defaultdict(list)
    for run_id, _, node, visit, state, _ in steps:
        by_run[run_id].append(node)
        if state != "completed":
            found.append(f"run {run_id}: {node} is {state}")
        if visit != 1:
            found.append(f"run {run_id}: {node} was visited {visit} times")
    for run_id in runs:
        if sorted(by_run.get(run_id, [])) != sorted(nodes):
            found.append(f"run {run_id}: went through {by_run.get(run_id)}, not {list(nodes)}")
    found += [f"run {run_id}: nobody asked for it" for run_id in by_run.keys() - runs]

    keys = {f"{run_id}:{step_id}:{visit}": attempt for run_id, step_id, _, visit, _, attempt in steps}
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for effect in effects:
        seen[effect["key"]].append(effect["attempt"])
    found += [f"{key}: completed without an effect" for key in keys.keys() - seen.keys()]
    found += [f"{key}: an effect of no step" for key in seen.keys() - keys.keys()]
    for key, attempts in seen.items():
        if attempts != sorted(set(attempts)):
            found.append(f"{key}: attempts {attempts} are not each a later one")
        if attempts[-1] > keys.get(key, attempts[-1]):
            found.append(f"{key}: an effect of attempt {attempts[-1]}, and the step says {keys[key]}")
    return found
