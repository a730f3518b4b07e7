"""The settings of a whole workflow: what they need of each other, the concurrency key, the statuses of its cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stellwerk.definition.places import Places, normal_value
from stellwerk.definition.problems import Problems, did_you_mean

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


@dataclass(frozen=True, slots=True)
class StatusSet:
    """The case statuses that a document declares; without any, each text will do."""

    declared: tuple[str, ...] = ()

    def check(self, value: Any, path: str, node: str, problems: Problems) -> None:
        """A status that stands in a node must be one of them; one that is computed is checked in the run."""
        if not self.declared or not isinstance(value, str) or "{{" in value or value in self.declared:
            return
        problems.add(
            path,
            "unknown_status",
            f"The workflow declares no case status {value[:60]!r}.",
            node=node,
            hint=did_you_mean(value, self.declared, listing="There are")
            or "settings.case_statuses lists the statuses.",
        )


def check_case_statuses(settings: Any, problems: Problems) -> StatusSet:
    """What the declared statuses need of each other: different names, and ways that lead to declared ones."""
    statuses = settings.get("case_statuses") if isinstance(settings, dict) else None
    if not isinstance(statuses, list):
        return StatusSet()
    names: list[str] = []
    for number, item in enumerate(statuses):
        name = item.get("status") if isinstance(item, dict) else None
        if isinstance(name, str) and name in names:
            problems.add(
                f"settings.case_statuses[{number}].status",
                "duplicate_status",
                f"The case status {name[:60]!r} is declared twice.",
                hint="Remove one of them.",
            )
        elif isinstance(name, str):
            names.append(name)
    for number, item in enumerate(statuses):
        following = item.get("next") if isinstance(item, dict) else None
        for place, name in enumerate(following if isinstance(following, list) else []):
            if isinstance(name, str) and name not in names:
                problems.add(
                    f"settings.case_statuses[{number}].next[{place}]",
                    "unknown_status",
                    f"The workflow declares no case status {name[:60]!r}.",
                    hint=did_you_mean(name, names, listing="There are"),
                )
    return StatusSet(tuple(names))
