"""Named places where a test can kill this process; without the variable STELLWERK_CRASH they do nothing."""

from __future__ import annotations

import os
import signal

PLACES = ("after_claim", "before_effect", "after_effect", "before_commit", "after_commit")

_place, _, _nth = os.environ.get("STELLWERK_CRASH", "").partition(":")
_passes_left = int(_nth) if _nth.isdigit() else 1


def crash_at(place: str) -> None:
    """Die here by SIGKILL if STELLWERK_CRASH names this place; `place:N` means the N-th time it is passed."""
    if place != _place:
        return
    global _passes_left
    _passes_left -= 1
    if _passes_left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
