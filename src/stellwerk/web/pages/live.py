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
    state.live.require_room(desk.who)
    return _stream(state.live.watch_run(desk.who, desk.language, run_id))


@get("/live/overview", opt={"needs": "read"})
async def watch_overview(desk: Desk, state: State) -> Stream:
    """An event `change`, without content, when something has moved."""
    state.live.require_room(desk.who)
    return _stream(state.live.watch_overview(desk.who, desk.language))


@get("/live/dashboard", opt={"needs": "read"})
async def watch_dashboard(desk: Desk, state: State) -> Stream:
    """The dashboard's figures, at most once a second."""
    state.live.require_room(desk.who)
    return _stream(state.live.watch_room(desk.who, desk.language, "dashboard"))


@get("/live/cases", opt={"needs": "read"})
async def watch_cases(desk: Desk, state: State) -> Stream:
    """An event `change` when a case has been made or changed."""
    state.live.require_room(desk.who)
    return _stream(state.live.watch_room(desk.who, desk.language, "cases"))


@get("/live/tasks", opt={"needs": "work"})
async def watch_tasks(desk: Desk, state: State) -> Stream:
    """An event `change` when a task has come, gone or changed hands."""
    state.live.require_room(desk.who)
    return _stream(state.live.watch_room(desk.who, desk.language, "tasks"))


def _stream(events: AsyncIterator[bytes]) -> Stream:
    return Stream(
        events, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


router = Router("/", route_handlers=[watch_run, watch_overview, watch_dashboard, watch_cases, watch_tasks])
