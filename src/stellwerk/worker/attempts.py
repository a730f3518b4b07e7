"""One attempt at one step: the executor's call, its time limit, and what every possible end is called."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from stellwerk.executors import Call, Executor, ExecutorError
from stellwerk.worker.completions import UnusableResult, failure, success
from stellwerk.worker.effects import Gate
from stellwerk.worker.faults import crash_at
from stellwerk.worker.tracing import Span, Tracing

log = logging.getLogger("stellwerk.step")


@dataclass(slots=True)
class Attempt:
    """A step as `stellwerk.begin_steps` hands it out, and under which worker's number."""

    worker_id: int
    tenant_id: int
    run_id: int
    step_id: int
    attempt: int
    node_id: str
    node_type: str
    visit: int
    config: Any
    timeout_seconds: float | None
    idempotency_key: str
    failures: int
    workflow: str
    traceparent: str | None
    tenant: str
    fields: dict[str, Any] = field(init=False)
    """What lines of the log about it have."""

    def __post_init__(self) -> None:
        self.fields = {
            "tenant": self.tenant,
            "workflow": self.workflow,
            "run_id": self.run_id,
            "step_id": self.step_id,
            "node_id": self.node_id,
            "type": self.node_type,
            "attempt": self.attempt,
        }


class StepLog(logging.LoggerAdapter[logging.Logger]):
    """Says in every line which run, step and node it is about."""

    def process(self, message: Any, kwargs: Any) -> tuple[Any, Any]:
        """Put run, step and node before the message, and as fields beside it."""
        extra = dict(self.extra or {})
        kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return f"run {extra['run_id']} step {extra['step_id']} ({extra['node_id']}): {message}", kwargs


async def run_attempt(attempt: Attempt, executor: Executor[Any, Any] | None, gate: Gate, tracing: Tracing) -> str:
    """Carry out a step and answer the body of its completion. Never raises but for a cancellation."""
    with tracing.attempt(attempt) as span:
        return await _outcome(attempt, executor, gate, span)


async def _outcome(attempt: Attempt, executor: Executor[Any, Any] | None, gate: Gate, span: Span) -> str:
    try:
        return success(await _execute(attempt, executor, gate, span.traceparent))
    except ExecutorError as error:
        span.fail(error.error_class)
        return failure(error.error_class, error.message, error.retryable, error.detail, error.retry_after)
    except UnusableResult as error:
        span.fail("invalid_result")
        return failure("invalid_result", f"the step's output cannot be stored: {error}", retryable=False)
    except Exception as error:
        # A stranger's exception may hold anything, also a secret: the log of the worker's machine gets where it
        # happened, the database only what it was.
        log.error(
            "run %s step %s (%s): %s at %s",
            attempt.run_id,
            attempt.step_id,
            attempt.node_id,
            type(error).__name__,
            _where(error),
        )
        name = type(error).__name__
        span.fail(name)
        return failure(name, f"{attempt.node_type} failed with {name}", retryable=True, detail={"at": _where(error)})


async def _execute(attempt: Attempt, executor: Executor[Any, Any] | None, gate: Gate, traceparent: str | None) -> Any:
    if executor is None:
        raise ExecutorError(
            f"this worker cannot carry out {attempt.node_type}", error_class="unknown_type", retryable=True
        )
    call = Call(
        config=_config(executor, attempt.config),
        idempotency_key=attempt.idempotency_key,
        attempt=attempt.attempt,
        run_id=attempt.run_id,
        step_id=attempt.step_id,
        node_id=attempt.node_id,
        workflow=attempt.workflow,
        effects=gate.for_step(attempt.idempotency_key, traceparent),
        log=StepLog(log, attempt.fields),
        traceparent=traceparent,
    )
    crash_at("before_effect")
    if attempt.timeout_seconds is None:
        output = await _call(executor, call)
    else:
        deadline = asyncio.timeout(attempt.timeout_seconds)
        try:
            async with deadline:
                output = await _call(executor, call)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise ExecutorError(
                f"the step did not end within {attempt.timeout_seconds:g} s", error_class="timeout"
            ) from None
    crash_at("after_effect")
    return output


async def _call(executor: Executor[Any, Any], call: Call[Any]) -> Any:
    if inspect.iscoroutinefunction(executor.execute):
        return await executor.execute(call)
    output = await in_thread(lambda: executor.execute(call))
    return await output if inspect.isawaitable(output) else output


async def in_thread(function: Callable[[], Any]) -> Any:
    """Run blocking code in a thread of its own. A thread that never ends does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)

    def run() -> None:
        value: Any = None
        failed: BaseException | None = None
        try:
            value = context.run(function)
        except StopIteration:
            failed = RuntimeError("StopIteration")  # a future cannot hold it
        except BaseException as error:
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=run, name="stellwerk-executor", daemon=True).start()
    return await result


def _config(executor: Executor[Any, Any], config: Any) -> BaseModel:
    try:
        return executor.config.model_validate(config)
    except ValidationError as error:
        # Only where and what, never the value: it may be a secret.
        problems = [
            {"at": ".".join(str(part) for part in problem["loc"]), "message": problem["msg"]}
            for problem in error.errors(include_input=False, include_url=False, include_context=False)
        ]
        first = problems[0]
        raise ExecutorError(
            f"the settings do not fit {executor.type}: {first['at'] or 'settings'}: {first['message']}",
            error_class="invalid_config",
            retryable=False,
            detail={"problems": problems},
        ) from None


def _where(error: BaseException) -> str:
    """File and line where an exception was raised, without its text."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
