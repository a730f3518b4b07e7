"""What is wrong with a workflow document: every problem at once, each with its place and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a document.

    `path` names the place (`nodes[2].config.condition`), `node` the node's id where there is one, and `position`
    the character, counted from 0, within the text that stands at `path`. An error keeps a document from being
    published, a warning does not.
    """

    path: str
    code: str
    message: str
    node: str | None = None
    position: int | None = None
    hint: str | None = None
    severity: Severity = "error"

    def as_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "node": self.node,
            "code": self.code,
            "message": self.message,
            "position": self.position,
            "hint": self.hint,
            "severity": self.severity,
        }


class Problems:
    """Collects problems; at most `limit` of them, so that a hopeless document does not answer with a book."""

    def __init__(self, limit: int = 200) -> None:
        self.found: list[Problem] = []
        self.limit = limit

    def add(
        self,
        path: str,
        code: str,
        message: str,
        *,
        node: str | None = None,
        position: int | None = None,
        hint: str | None = None,
        severity: Severity = "error",
    ) -> None:
        problem = Problem(path, code, message, node, position, hint, severity)
        if len(self.found) < self.limit and problem not in self.found:
            self.found.append(problem)

    @property
    def has_errors(self) -> bool:
        return any(problem.severity == "error" for problem in self.found)


def did_you_mean(name: str, known: Iterable[str], *, listing: str | None = None) -> str | None:
    """A hint with the known name that looks most like `name`, else with the known names themselves (`listing`
    introduces them)."""
    names = list(dict.fromkeys(known))
    folded = {candidate.casefold(): candidate for candidate in reversed(names)}
    close = difflib.get_close_matches(name[:80].casefold(), list(folded), n=1, cutoff=0.6)
    if close:
        return f"Did you mean {folded[close[0]]}?"
    if listing is None or not names:
        return None
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{listing}: {shown}."
