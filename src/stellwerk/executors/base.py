"""What an executor is: a settings model, an output model and one method.

An executor carries out the worker steps of one node type. It knows neither the database nor the engine: it gets a
`Call`, does its work through `call.effects`, and answers its output or raises. It may be called more than once for
one step (a worker can vanish after the effect), each time with the same `call.idempotency_key`: pass it on.
"""

from __future__ import annotations

import builtins
import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict

MAX_RESPONSE_BYTES = 1_000_000
MAX_REQUEST_BYTES = 1_000_000


def as_text(value: Any) -> Any:
    """A number or a truth value as the text that a template would have made of it."""
    return json.dumps(value) if isinstance(value, (bool, int, float)) else value


TextLike = Annotated[str, BeforeValidator(as_text)]
"""Text in a setting. `{{ … }}` alone keeps the type of its value, so a number may arrive where text is meant."""


class ExecutorConfig(BaseModel):
    """Base of an executor's settings. The model is the form in the builder: give fields titles and descriptions."""

    model_config = ConfigDict(extra="forbid")


class ExecutorError(Exception):
    """A failed attempt, told so that the engine can decide: class, message, whether to try again, detail.

    The message is stored and shown to people: no secrets in it.
    """

    def __init__(
        self,
        message: str,
        *,
        error_class: str = "failed",
        retryable: bool = True,
        detail: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_class = error_class
        self.retryable = retryable
        self.detail = dict(detail) if detail is not None else None
        self.retry_after = retry_after


@dataclass(frozen=True)
class Answer:
    """What came back from an outbound call, whole and within the size limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Effects(Protocol):
    """The one gate to the outside, as an executor sees it. Every method may raise `ExecutorError`."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        body: bytes | str | None = None,
        seconds: float | None = None,
        redirects: int = 0,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> Answer:
        """Make an HTTP call with the step's `Idempotency-Key`; private addresses are refused unless allowed."""
        ...

    async def write_file(self, folder: str | Path, name: str, content: bytes) -> Path:
        """Write a file under a folder at once: readers see the whole file or none. Answers its path."""
        ...


Config = TypeVar("Config", bound=BaseModel)
Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class Call(Generic[Config]):
    """One attempt at one step."""

    config: Config
    """The node's settings with every expression computed."""
    idempotency_key: str
    """`run:step:visit`, the same for every attempt at this step."""
    attempt: int
    """Counts from 1."""
    run_id: int
    step_id: int
    node_id: str
    workflow: str
    effects: Effects
    log: logging.LoggerAdapter[logging.Logger]
    traceparent: str | None = None
    """The trace that the attempt belongs to (W3C Trace Context); `effects.request` sends it on by itself."""


class Executor(Generic[Config, Output]):
    """Carries out one node type. Subclass with both models, set `type`, and write `execute`.

    `async def execute` runs in the worker's loop and must not block it; a plain `def execute` runs in a thread
    of its own (it cannot use `call.effects`, and a timeout abandons it without ending it).
    """

    config: ClassVar[builtins.type[BaseModel]]
    output: ClassVar[Any]
    type: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, builtins.type) and issubclass(origin, Executor):
                arguments = get_args(base)
                if "config" not in cls.__dict__ and isinstance(arguments[0], builtins.type):
                    cls.config = arguments[0]
                if "output" not in cls.__dict__ and len(arguments) > 1:
                    cls.output = arguments[1]

    def execute(self, call: Call[Config]) -> Awaitable[Output] | Output:
        """Do it and answer the output; raise `ExecutorError` to say what failed."""
        raise NotImplementedError
