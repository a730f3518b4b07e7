"""What the worker that the tests play does: the text in a worker node's `script`.

ok 7          succeeds with {"n": 7}
flaky 2       fails twice in a way that may be tried again, then succeeds with {"n": 0}
broken        fails for good
broken 1 = 1  fails for good where both numbers (which may come from expressions) are the same, else succeeds
"""

from __future__ import annotations

from typing import Any


def play(script: str, failures: int) -> dict[str, Any]:
    """The outcome of an attempt after so many failed ones: { output } or { error }."""
    word, *rest = script.split()
    if word == "flaky" and failures < int(rest[0]):
        return {"error": {"class": "flaky", "message": "not yet", "retryable": True}}
    if word == "broken" and (not rest or rest[0] == rest[-1]):
        return {"error": {"class": "broken", "message": "never", "retryable": False}}
    return {"output": {"n": int(rest[0]) if word == "ok" and rest else 0}}
