"""The settings of a whole workflow: what they need of each other, and the concurrency key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stellwerk.definition.places import Places, normal_value
from stellwerk.definition.problems import Problems

KEY = "concurrency_key"


@dataclass(frozen=True, slots=True)
class ConcurrencyKey:
    """The key, compiled like a setting of a node: its text (null if it is computed), and what computing it takes."""

    static: str | None
    places: Places


def check_settings(settings: Any, problems: Problems) -> ConcurrencyKey | None:
    """Puts the settings into their normal form, in the document itself; answers the concurrency key if there is one."""
    if not isinstance(settings, dict):
        return None
    text = settings.get(KEY)
    if settings.get("on_conflict") is not None and text is None:
        problems.add(
            "settings.on_conflict",
            "missing_key",
            "on_conflict says what happens to runs of the same concurrency_key, which is missing.",
            hint='Add "concurrency_key": "{{ trigger.payload.… }}", or remove on_conflict.',
        )
    if not isinstance(text, str):
        return None
    if not text.strip():
        problems.add(f"settings.{KEY}", "bad_value", f"{KEY} must not be empty.", hint="Remove it.")
        return None
    settings[KEY] = text = normal_value(text)
    places = Places(None, problems)
    dynamic = places.template(text, f"settings.{KEY}", [KEY])
    # The key is computed when a run is made: no step has run then, and there are no variables.
    for item in places.found:
        root = item.reference.path[0]
        if root not in ("trigger", "run", "now"):
            problems.add(
                f"settings.{KEY}",
                "unknown_name",
                f"{root} cannot be read here: the concurrency key is computed when the run is made.",
                position=item.position(0),
                hint="It may read trigger, run and now.",
            )
    return ConcurrencyKey(None if dynamic else text, places)
