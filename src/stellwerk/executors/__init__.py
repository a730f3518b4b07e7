"""Executors: what carries out worker steps, found through the entry-point group `stellwerk.executors`."""

from __future__ import annotations

import logging
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import BaseModel

from stellwerk.executors.base import (
    Answer,
    Call,
    Effects,
    Executor,
    ExecutorConfig,
    ExecutorError,
)

__all__ = [
    "Answer",
    "Call",
    "Effects",
    "Executor",
    "ExecutorConfig",
    "ExecutorError",
    "find_executors",
    "load_executor",
]

GROUP = "stellwerk.executors"

log = logging.getLogger(__name__)


def find_executors() -> dict[str, Executor[Any, Any]]:
    """Every installed executor by node type. A broken one is logged and left out; the others go on."""
    found: dict[str, Executor[Any, Any]] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value)):
        executor = load_executor(entry)
        if executor is None:
            continue
        if executor.type in found:
            log.error("executor %s is left out: another one has the type %s already", entry.value, executor.type)
            continue
        found[executor.type] = executor
    return found


def load_executor(entry: EntryPoint) -> Executor[Any, Any] | None:
    """The executor behind an entry point, or None with a line in the log that says what is wrong with it."""
    try:
        loaded = entry.load()
        if not (isinstance(loaded, type) and issubclass(loaded, Executor)):
            raise TypeError("it is not a subclass of stellwerk.executors.Executor")
        node_type = getattr(loaded, "type", None)
        if node_type != entry.name:
            raise TypeError(f"its type is {node_type!r}, the entry point says {entry.name!r}")
        config = getattr(loaded, "config", None)
        if not (isinstance(config, type) and issubclass(config, BaseModel)):
            raise TypeError("it names no pydantic model of its settings")
        if loaded.execute is Executor.execute:
            raise TypeError("it has no method execute")
        return loaded()
    except Exception as error:  # whatever a stranger's module does while it is imported must not stop the worker
        log.error("executor %s (%s) is left out: %s: %s", entry.name, entry.value, type(error).__name__, error)
        return None
