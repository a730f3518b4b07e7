"""Server-sent events for pages that change by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from litestar import Router, get
from litestar.datastructures import State
from litestar.response import Stream

from stellwerk.errors import UnknownThing
from stellwerk.web.desk import Desk


@get("/live/runs/{run_id:int}", opt={"needs": "read"})
async def watch_run(desk: Desk, state: State, run_id: int) -> Stream:
    """The parts of a run's page: head, graph, timeline; each whenever it changes."""
    query = "select 1 as there from stellwerk.run_overview where run_id = %s"
    if not await asyncio.to_thread(desk.rows, query, [run_id]):
        raise UnknownThing(f"there is no run {run_id}")
    return _stream(state.live.watch_run(desk.who, desk.language, run_id))


@get("/live/overview", opt={"needs": "read"})
async def watch_overview(desk: Desk, state: State) -> Stream:
    """An event `change`, without content, when something has moved."""
    return _stream(state.live.watch_overview(desk.who, desk.language))


def _stream(events: AsyncIterator[bytes]) -> Stream:
    return Stream(
        events, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


router = Router("/", route_handlers=[watch_run, watch_overview])
