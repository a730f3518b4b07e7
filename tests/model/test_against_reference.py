"""The engine and an independent reference reach the same end of random workflows.

`pytest tests/model --full` plays 5,000 documents per PostgreSQL version; without it, 400. Which ones is fixed by the
number of the share, so a failure comes again; it prints the smallest document that still fails.
"""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from model.engine_side import EngineSide, Outcome, opinion
from model.graphs import play_through, publishable_and_finite, scenarios
from model.smaller import smallest

SHARES = 10
"""The documents are drawn in so many shares, which can run side by side."""
BATCH = 50
"""So many documents are played at a time."""

Scenario = tuple[dict[str, Any], int]


def drawn(seed: int, number: int) -> list[Scenario]:
    """So many different documents, always the same ones for a seed."""
    found: dict[str, Scenario] = {}

    @hypothesis.seed(seed)
    @settings(
        max_examples=2 * number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(scenarios())
    def collect(scenario: Scenario) -> None:
        if len(found) < number:
            found.setdefault(json.dumps(scenario), scenario)

    collect()
    assert len(found) == number, f"only {len(found)} different documents were drawn"
    return list(found.values())


def differences(reference: Outcome, engine: Outcome) -> list[str]:
    """Where the two differ, in words."""
    found = [
        f"run {name}: reference {ours!r}, engine {theirs!r}"
        for name, ours, theirs in (
            ("state", reference.state, engine.state),
            ("error", reference.error, engine.error),
            ("output", reference.output, engine.output),
        )
        if ours != theirs and not (name == "output" and reference.state == "failed")
    ]
    for key in sorted(reference.steps.keys() | engine.steps.keys()):
        ours, theirs = reference.steps.get(key), engine.steps.get(key)
        if ours != theirs:
            found.append(f"step {key}:\n    reference {ours}\n    engine    {theirs}")
    return found


def compared(side: EngineSide, batch: list[Scenario]) -> list[list[str]]:
    """The differences in each of some documents."""
    return [
        differences(opinion(play_through(*scenario)), engine)
        for scenario, engine in zip(batch, side.play(batch), strict=True)
    ]


def told(side: EngineSide, document: dict[str, Any], order: int) -> str:
    """A failing document, as small as it goes, and what is different in it."""

    def wrong(candidate: dict[str, Any]) -> bool:
        try:
            return publishable_and_finite(candidate) and bool(compared(side, [(candidate, order)])[0])
        except (KeyError, AssertionError):
            return False  # outside of what the reference understands

    small = smallest(document, wrong)
    found = compared(side, [(small, order)])[0]
    return f"worker's order {order}, document\n{json.dumps(small)}\n" + "\n".join(found)


@pytest.mark.parametrize("share", range(SHARES))
def test_engine_and_reference_agree(share: int, dsn: str, request: Any) -> None:
    number = (5000 if request.config.getoption("--full", default=False) else 400) // SHARES
    side = EngineSide(dsn)
    try:
        scenarios = drawn(share, number)
        for place in range(0, number, BATCH):
            batch = scenarios[place : place + BATCH]
            for scenario, found in zip(batch, compared(side, batch), strict=True):
                if found:
                    pytest.fail(told(side, *scenario), pytrace=False)
    finally:
        side.close()
