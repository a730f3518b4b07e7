"""The engine and an independent reference reach the same end of random workflows.

`pytest tests/model --full` plays 5,000 documents per PostgreSQL version; without it, 150.
"""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from model.engine_side import TIED, EngineSide, Outcome, opinion
from model.graphs import play_through, scenarios

SHARES = 10
"""The documents are drawn in so many shares, which can run side by side."""
BATCH = 10
"""So many documents are played at a time."""


def differences(reference: Outcome, engine: Outcome) -> list[str]:
    """Where the two differ, in words."""
    found = [
        f"run {name}: reference {ours!r}, engine {theirs!r}"
        for name, ours, theirs in (
            ("state", reference.state, engine.state),
            ("error", reference.error, engine.error),
            ("output", reference.output, engine.output),
        )
        if ours != theirs and not (name == "output" and (reference.state == "failed" or ours == TIED))
    ]
    for key in sorted(reference.steps.keys() | engine.steps.keys()):
        ours, theirs = reference.steps.get(key), engine.steps.get(key)
        if ours != theirs:
            found.append(f"step {key}:\n    reference {ours}\n    engine    {theirs}")
    return found


@pytest.mark.parametrize("share", range(SHARES))
def test_engine_and_reference_agree(share: int, dsn: str, request: Any) -> None:
    full = request.config.getoption("--full", default=False)
    number = (5000 if full else 150) // SHARES
    side = EngineSide(dsn)
    played = 0

    @hypothesis.seed(share)
    @settings(
        max_examples=max(1, number // BATCH),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
    )
    @given(st.lists(scenarios(), min_size=1, max_size=BATCH))
    def agree(batch: list[tuple[dict[str, Any], int]]) -> None:
        nonlocal played
        played += len(batch)
        for (document, order), engine in zip(batch, side.play(batch), strict=True):
            reference = opinion(play_through(document, order))
            if found := differences(reference, engine):
                text = json.dumps(document, indent=1)
                pytest.fail(f"order {order}, document {text}\n" + "\n".join(found), pytrace=False)

    try:
        agree()
    finally:
        side.close()
    print(f"{played} documents")
