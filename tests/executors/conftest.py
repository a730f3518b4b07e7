"""Calls for executors, without a worker and without a database."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from stellwerk.executors import Call, Executor
from stellwerk.worker.attempts import StepLog
from stellwerk.worker.effects import Gate


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """A gate that lets calls to this machine through."""
    gate = Gate(["127.0.0.1", "localhost"])
    yield gate
    await gate.aclose()


@pytest.fixture
def call_of(gate: Gate) -> Callable[..., Call[Any]]:
    """A call of an executor with these settings."""

    def make(executor: Executor[Any, Any], **config: Any) -> Call[Any]:
        return Call(
            config=executor.config.model_validate(config),
            idempotency_key="7:8:1",
            attempt=1,
            run_id=7,
            step_id=8,
            node_id="node",
            workflow="flow",
            effects=gate.for_step("7:8:1"),
            log=StepLog(logging.getLogger("stellwerk.step"), {"run_id": 7, "step_id": 8, "node_id": "node"}),
        )

    return make
