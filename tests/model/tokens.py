"""What the reference interpreter keeps of a run: its scopes, its steps, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LIVE = ("queued", "waiting", "joining")
MAX_STEPS = 400

Path = tuple[tuple[str, int, int], ...]
"""Where a scope hangs: (loop node, its visit, number of the item), from the outermost inwards."""


class Endless(Exception):
    """The document makes more than MAX_STEPS steps."""


@dataclass(eq=False)
class Scope:
    parent: Scope | None = None
    loop: Step | None = None
    index: int = 0
    item: Any = None
    vars: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    output: Any = None
    error: dict[str, Any] | None = None

    @property
    def path(self) -> Path:
        if self.parent is None or self.loop is None:
            return ()
        return (*self.parent.path, (self.loop.node, self.loop.visit, self.index))


@dataclass(eq=False)
class Step:
    node: str
    scope: Scope
    visit: int
    number: int
    """Steps are numbered in the order in which they come to be."""
    state: str = "queued"
    port: str | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    failures: int = 0
    arrived: list[str] = field(default_factory=list)
    iterations: list[Scope] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        return self.state in LIVE

    @property
    def key(self) -> tuple[str, Path, int]:
        return (self.node, self.scope.path, self.visit)


@dataclass
class Move:
    """What has become of a step: it left by a port with an output, it failed, or (a loop) it waits for its iterations."""

    step: Step
    port: str | None = "next"
    output: Any = None
    error: dict[str, Any] | None = None
    waits: bool = False


def failure(kind: str, retryable: bool = False, **more: Any) -> dict[str, Any]:
    return {"class": kind, "retryable": retryable, **more}
