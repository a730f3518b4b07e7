"""Small steps that the tests of flow control share."""

from __future__ import annotations

from typing import Any

from database.helpers import START, document, node, run, transform

KEYED = {"concurrency_key": "{{ trigger.payload.who }}"}


def gated(slug: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A workflow whose runs go on until they are told to end: signal go, with the run's payload.id."""
    hold = node("hold", "logic.wait", {"event": "go", "correlation": "{{ trigger.payload.id }}"})
    return document(
        slug, [START, hold, transform("done", {"ok": True})], ["start -> hold", "hold -> done"], settings=settings
    )


def release(db: Any, *ids: object) -> None:
    for each in ids:
        assert db.execute("select stellwerk.signal('go', %s)", (str(each),)).fetchone() == (1,)


def state(db: Any, *run_ids: int) -> list[str]:
    return [run(db, run_id)["state"] for run_id in run_ids]


def why(db: Any, run_id: int) -> str:
    return str(db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0])


def reason(db: Any, run_id: int) -> str:
    return str(db.execute("select reason from stellwerk.run where run_id = %s", (run_id,)).fetchone()[0])


def leftovers(db: Any) -> tuple[int, int]:
    """How many runs stand at a gate or hold a slot."""
    row = db.execute(
        "select (select count(*) from stellwerk.flow_wait), (select count(*) from stellwerk.flow_slot)"
    ).fetchone()
    return int(row[0]), int(row[1])


def pump_until(db: Any, run_all: Any, wait_until: Any, holds: Any, what: str) -> None:
    def looked() -> bool:
        db.execute("select stellwerk.tick()")
        run_all(db)
        return bool(holds())

    wait_until(looked, what=what)
