"""`/api/workflows/{slug}/backtest`: what a version would have done with the runs of the past."""

from __future__ import annotations

from typing import Annotated, Literal

from litestar import Response
from pydantic import Field

from stellwerk.web import exchange
from stellwerk.web.api import definitions
from stellwerk.web.backtest import backtest
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Given, Id, Shown, answer


class Backtest(Given):
    """Which version, and which of its workflow's runs."""

    version: Annotated[int, Field(ge=1, le=2_147_483_647)] | None = Field(
        default=None, description="The newest, a draft too, if left out."
    )
    since: Annotated[str, Field(pattern=r"^P(\d{1,4}D|T\d{1,4}[HM])$")] | None = Field(
        default=None, description="Only runs asked for since then, such as P7D or PT12H."
    )
    limit: Annotated[int, Field(ge=1, le=50)] = Field(default=20, description="The newest so many runs that ended.")


class Walked(Shown):
    """A run of the past, and what the version would have made of it."""

    run_id: Id
    version: int = Field(description="The version that it ran on.")
    before: Literal["completed", "failed"]
    after: str = Field(description="Its state, or `refused` where the version would not take the payload.")
    same: bool = Field(description="Whether it went the same way to the same output.")
    parted_at: str | None = Field(description="The first step at which the ways part.")
    reason: str | None = Field(default=None, description="Why it would fail or be refused.")


class Backtested(Shown):
    """All runs that were walked, the newest first."""

    version: int
    runs: int
    same: int
    items: list[Walked]


@exchange.post(
    "/api/workflows/{slug:str}/backtest",
    "Walk past runs again",
    Backtested,
    needs="design",
    takes=Backtest,
    takes_needed=False,
    status=200,
    example={"since": "P7D"},
)
def backtest_workflow(desk: Desk, slug: str, given: Backtest | None) -> Response[bytes]:
    """Walks runs that ended with their own payloads through a version, with every effect off; nothing of it stays."""
    from stellwerk.definition.compile import compile_workflow  # here, because the SQL parser takes a while to load

    asked = given or Backtest()
    with desk.engine() as engine:
        found = definitions.workflow_of(engine, slug, asked.version)
        compiled = compile_workflow(found["document"])
        definitions.refuse([problem.as_json() for problem in compiled.problems])
        rows = backtest(engine, slug, compiled, since=asked.since, limit=asked.limit)
    same = sum(row["same"] for row in rows)
    return answer(Backtested, {"version": found["version"], "runs": len(rows), "same": same, "items": rows})


router = exchange.router(backtest_workflow)
