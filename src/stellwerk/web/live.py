"""Live pages: server-sent events from one listening connection, however many browsers look.

A process that has open streams sleeps at the bell of sql/52_live.sql. When it is told that something has moved it
looks: one query for all watched runs of a tenant says which of them have, and those are read and rendered once for each
language and set of rights, then handed to every stream. A stream holds the newest state of each part of its page and no
more, so a slow browser misses what was overtaken and costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import jinja2
import psycopg
from litestar.exceptions import ServiceUnavailableException
from psycopg import AsyncConnection

from stellwerk.errors import StellwerkError, UnknownThing
from stellwerk.logs import frames_of
from stellwerk.web import texts
from stellwerk.web.access import Entrance
from stellwerk.web.database import ROLE, Database
from stellwerk.web.figures import read_figures
from stellwerk.web.run_view import read_run

log = logging.getLogger(__name__)

CHANNEL = "stellwerk_live"
GAP_SECONDS = 0.25  # between two looks
AGAIN_SECONDS = 1.0  # after one that was asked for: a transaction that began before we slept may end meanwhile
POLL_SECONDS = 3.0  # without being told
SESSIONS_SECONDS = 5.0
OVERVIEW_SECONDS = 2.0
ROOMS_SECONDS = 1.0  # figures and lists are looked at no more often, however many browsers show them
FIGURES_SECONDS = 10.0  # figures without anything having moved: the oldest step in the queue grows older
PING_SECONDS = 15.0
MOST_STREAMS = 2000
MOST_OF_ONE = 500  # of one session or token
LINGER_SECONDS = 30.0  # how long the connection stays when nobody looks any more

PARTS = {"head": "runs/_head.html", "graph": "runs/_graph.html", "timeline": "runs/_timeline.html"}

View = tuple[str, tuple[str, ...]]  # language, rights
Room = Literal["dashboard", "tasks", "cases"]


class Stream:
    """What one browser has still to be sent."""

    def __init__(self, entrance: Entrance, view: View) -> None:
        self.entrance = entrance
        self.view = view
        self.sent: dict[str, str] = {}
        self.over = False
        self._waiting: dict[str, str] = {}
        self._ready = asyncio.Event()

    def give(self, parts: Mapping[str, str]) -> None:
        """These parts have a new state; what was not sent of them yet is forgotten."""
        for part, text in parts.items():
            if self.sent.get(part) != text:
                self._waiting[part] = self.sent[part] = text
                self._ready.set()

    def tell(self, event: str) -> None:
        """Something without a text of its own has happened."""
        self._waiting[event] = ""
        self._ready.set()

    def end(self) -> None:
        """No more is coming."""
        self.over = True
        self._ready.set()

    async def _is_over(self) -> bool:
        """Once there is something to send, or nothing for a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), PING_SECONDS)
        return self.over

    async def events(self) -> AsyncIterator[bytes]:
        """As a browser's EventSource reads them."""
        yield b"retry: 2000\n\n"
        while not await self._is_over():
            self._ready.clear()
            waiting, self._waiting = self._waiting, {}
            if not waiting:
                yield b": still here\n\n"
            for event, text in waiting.items():
                yield _written(event, text)


@lru_cache(maxsize=64)
def _written(event: str, text: str) -> bytes:
    """Once for all the streams that are given the same."""
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {event}\n{lines}\n".encode()


@dataclass
class Watched:
    """A run, or a room, that somebody looks at."""

    streams: set[Stream] = field(default_factory=set)
    pulse: str | None = None
    parts: dict[View, dict[str, str]] = field(default_factory=dict)


class Live:
    """The streams of this process and the connection that listens for them."""

    def __init__(self, dsn: str, database: Database, environment: jinja2.Environment) -> None:
        self._dsn = dsn
        self._database = database
        self._environment = environment
        self._runs: dict[tuple[int, int], Watched] = {}
        self._rooms: dict[tuple[int, Room], Watched] = {}
        self._overviews: set[Stream] = set()
        self._wake: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False
        self._told = False
        self._asked = False
        self._echo = False
        self._moved = False  # and the overviews have not been told yet
        self._rooms_moved = False  # and the figures have not been read yet
        self._sessions_at = self._overviews_at = self._rooms_at = self._figures_at = 0.0
        self.looks = 0
        """How often the database was asked, for tests and the curious."""

    # -- for the application ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """While the application runs."""
        self._loop, self._wake, self._stopped = asyncio.get_running_loop(), asyncio.Event(), False
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self.stop()
            task.cancel()
            await asyncio.wait({task})

    def stop(self) -> None:
        """End every stream: the server is about to stop, and would wait for them."""
        self._stopped = True
        for stream in self._streams():
            stream.end()

    def nudge(self) -> None:
        """Somebody has just changed something here: look, without waiting to be told. From any thread."""
        if self._loop is not None and not self._stopped:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._has_moved)

    @property
    def count(self) -> int:
        """How many streams are open."""
        return sum(1 for _ in self._streams())

    def require_room(self, entrance: Entrance) -> None:
        """Raises 503 where one more stream would be too many, for the process or for whoever has come in."""
        streams = self._streams()
        own = sum(1 for stream in streams if _name(stream.entrance) == _name(entrance))
        if self._stopped or len(streams) >= MOST_STREAMS or own >= MOST_OF_ONE:
            raise ServiceUnavailableException("too many pages are open here; this one does not change by itself")

    async def watch_run(self, entrance: Entrance, language: str, run_id: int) -> AsyncIterator[bytes]:
        """The parts of a run's page, each whenever it has changed."""
        stream = self._stream(entrance, language)
        key = (entrance.tenant_id, run_id)
        run = self._runs.setdefault(key, Watched())
        run.streams.add(stream)
        if (known := run.parts.get(stream.view)) is not None:
            stream.give(known)
        else:
            run.pulse = None
            self._look_soon()
        try:
            async for event in stream.events():
                yield event
        finally:
            run.streams.discard(stream)
            if not run.streams:
                self._runs.pop(key, None)

    async def watch_overview(self, entrance: Entrance, language: str) -> AsyncIterator[bytes]:
        """An event `change` without content, at most every two seconds, when something has moved anywhere."""
        stream = self._stream(entrance, language)
        self._overviews.add(stream)
        self._look_soon()  # so that somebody listens
        try:
            async for event in stream.events():
                yield event
        finally:
            self._overviews.discard(stream)

    async def watch_room(self, entrance: Entrance, language: str, room: Room) -> AsyncIterator[bytes]:
        """The dashboard's figures whenever they have changed; of lists of tasks and cases an event `change`."""
        stream = self._stream(entrance, language)
        key = (entrance.tenant_id, room)
        watched = self._rooms.setdefault(key, Watched())
        watched.streams.add(stream)
        if (known := watched.parts.get(stream.view)) is not None:
            stream.give(known)
        elif room == "dashboard":
            self._figures_at = 0.0
        self._look_soon()
        try:
            async for event in stream.events():
                yield event
        finally:
            watched.streams.discard(stream)
            if not watched.streams:
                self._rooms.pop(key, None)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _stream(self, entrance: Entrance, language: str) -> Stream:
        self.require_room(entrance)  # others may have come since it was asked for
        return Stream(entrance, (language, tuple(sorted(entrance.rights))))

    def _streams(self) -> list[Stream]:
        watched = [*self._runs.values(), *self._rooms.values()]
        return [*self._overviews, *(stream for each in watched for stream in each.streams)]

    def _has_moved(self) -> None:
        self._told = True
        self._look_soon()

    def _look_soon(self) -> None:
        self._asked = True
        if self._wake is not None:
            self._wake.set()

    async def _run(self) -> None:
        assert self._wake is not None
        while not self._stopped:
            if not self._streams():
                await self._wake.wait()
                self._wake.clear()
                continue
            try:
                async with await AsyncConnection.connect(
                    self._dsn, autocommit=True, application_name="stellwerk-web-live", connect_timeout=5
                ) as connection:
                    await self._prepare(connection)
                    await self._serve(connection)
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("live pages stand still, connecting again: %s", (str(error) or "timeout").splitlines()[0])
                await asyncio.sleep(1.0)
            except Exception as error:
                log.error("live pages stand still, beginning again: %s\n%s", type(error).__name__, frames_of(error))
                await asyncio.sleep(1.0)

    async def _prepare(self, connection: AsyncConnection[Any]) -> None:
        cursor = await connection.execute(
            "select pg_has_role(current_user, r.oid, 'member') from pg_roles r where r.rolname = %s", [ROLE]
        )
        if await cursor.fetchone() == (True,):
            await connection.execute("set role stellwerk_web")
        await connection.execute("set statement_timeout = '10s'")
        await connection.execute(f"listen {CHANNEL}".encode())

    async def _serve(self, connection: AsyncConnection[Any]) -> None:
        """Sleep at the bell, look, and again, until nobody looks any more."""
        at_the_bell = False
        while not self._stopped:
            if not self._streams():
                if at_the_bell:
                    await connection.execute("select stellwerk.end_watching()")
                    at_the_bell = False
                await self._sleep(connection, LINGER_SECONDS)
                if not self._streams():
                    return
            if not at_the_bell:
                await connection.execute("select stellwerk.begin_watching()")
                at_the_bell = True
            told, asked = self._told, self._asked
            self._told = self._asked = False
            await self._look(told)
            if not self._asked:
                await self._sleep(connection, AGAIN_SECONDS if told or asked else POLL_SECONDS)
            if self._told:  # awake: nobody need ring until we have looked
                await connection.execute("select stellwerk.end_watching()")
                at_the_bell = False
            await asyncio.sleep(GAP_SECONDS)
            await self._hear(connection)

    async def _hear(self, connection: AsyncConnection[Any]) -> None:
        async for _ in connection.notifies(timeout=0):
            self._told = True

    async def _sleep(self, connection: AsyncConnection[Any], seconds: float) -> None:
        """Until something was notified or asked for, or the time is over."""
        assert self._loop is not None
        assert self._wake is not None
        self._wake.clear()
        self._loop.add_reader(connection.fileno(), self._wake.set)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)
        finally:
            self._loop.remove_reader(connection.fileno())
        await self._hear(connection)

    async def _look(self, told: bool) -> None:
        now = time.monotonic()
        # What was rung for while we were awake was not heard: the look after one that was asked for counts as well.
        moved, self._echo = told or self._echo, told
        self._moved, self._rooms_moved = self._moved or moved, self._rooms_moved or moved
        if self._moved and now - self._overviews_at >= OVERVIEW_SECONDS:
            self._overviews_at, self._moved = now, False
            for stream in self._overviews:
                stream.tell("change")
        ask_rooms = now - self._rooms_at >= ROOMS_SECONDS
        ask_figures = ask_rooms and (self._rooms_moved or now - self._figures_at >= FIGURES_SECONDS)
        if ask_rooms:
            self._rooms_at = now
        if ask_figures:
            self._figures_at, self._rooms_moved = now, False
        ask_sessions = now - self._sessions_at >= SESSIONS_SECONDS
        if ask_sessions:
            self._sessions_at = now
        tenants: dict[int, list[Stream]] = {}
        for stream in self._streams():
            tenants.setdefault(stream.entrance.tenant_id, []).append(stream)
        for tenant_id, streams in tenants.items():
            watched = {run_id: run for (tenant, run_id), run in self._runs.items() if tenant == tenant_id}
            rooms = {room: each for (tenant, room), each in self._rooms.items() if tenant == tenant_id}
            pulses = {run_id: run.pulse for run_id, run in watched.items()}
            views = {run_id: {stream.view for stream in run.streams} for run_id, run in watched.items()}
            try:
                found, still_in = await asyncio.to_thread(
                    self._read, streams[0].entrance, pulses, views, streams if ask_sessions else []
                )
                if ask_rooms and rooms:
                    await self._look_at_rooms(streams[0].entrance, rooms, ask_figures)
            except StellwerkError as error:
                log.warning("live pages could not be brought up to date: %s", error.message)
                continue
            for run_id, (pulse, parts) in found.items():
                run = watched[run_id]
                run.pulse, run.parts = pulse, parts
                for stream in list(run.streams):
                    if stream.view in parts:
                        stream.give(parts[stream.view])
                    else:
                        run.pulse = None  # came meanwhile
                        self._asked = True
            for stream in streams if ask_sessions else []:
                if _name(stream.entrance) not in still_in:
                    stream.end()

    async def _look_at_rooms(self, entrance: Entrance, rooms: dict[Room, Watched], figures: bool) -> None:
        views = {stream.view for stream in rooms["dashboard"].streams} if figures and "dashboard" in rooms else set()
        pulses, shown = await asyncio.to_thread(self._read_rooms, entrance, "tasks" in rooms or "cases" in rooms, views)
        for room, pulse in pulses.items():
            if (watched := rooms.get(room)) is not None:
                if watched.pulse not in (None, pulse):
                    for stream in watched.streams:
                        stream.tell("change")
                watched.pulse = pulse
        if shown:
            rooms["dashboard"].parts = shown
            for stream in list(rooms["dashboard"].streams):
                stream.give(shown.get(stream.view, {}))

    def _read_rooms(
        self, entrance: Entrance, lists: bool, views: set[View]
    ) -> tuple[dict[Room, str], dict[View, dict[str, str]]]:
        """In a thread: what differs when a list has changed, and how the figures look now."""
        pulses: dict[Room, str] = {}
        self.looks += 1
        with self._database.transaction(entrance) as engine:
            if lists:
                row = engine.row("select tasks, cases from stellwerk.desk_pulse()")
                pulses = {"tasks": row["tasks"], "cases": row["cases"]}
            figures = read_figures(engine) if views else {}
        return pulses, {view: {"figures": self._render("dashboard/_figures.html", view, **figures)} for view in views}

    def _read(
        self,
        entrance: Entrance,
        pulses: dict[int, str | None],
        views: dict[int, set[View]],
        streams: list[Stream],
    ) -> tuple[dict[int, tuple[str, dict[View, dict[str, str]]]], set[int | str]]:
        """In a thread: which runs have moved, and how their pages look now."""
        found: dict[int, tuple[str, dict[View, dict[str, str]]]] = {}
        still_in: set[int | str] = set()
        self.looks += 1
        with self._database.transaction(entrance) as engine:
            for row in engine.rows("select * from stellwerk.run_pulse(%s::bigint[])", [list(pulses)]) if pulses else []:
                if row["pulse"] == pulses[row["run_id"]]:
                    continue
                with contextlib.suppress(UnknownThing):
                    view = read_run(engine, row["run_id"])
                    found[row["run_id"]] = (
                        row["pulse"],
                        {
                            key: {part: self._render(template, key, view=view) for part, template in PARTS.items()}
                            for key in views[row["run_id"]]
                        },
                    )
            if streams:
                sessions = [s.entrance.session_id for s in streams if s.entrance.session_id is not None]
                tokens = [_name(s.entrance) for s in streams if s.entrance.session_id is None]
                for row in engine.rows(
                    "select * from stellwerk.open_entrances(%s::bigint[], %s::text[])", [sessions, tokens]
                ):
                    still_in.add(row["session_id"] if row["session_id"] is not None else row["token"])
        return found, still_in

    def _render(self, template: str, looker: View, **values: Any) -> str:
        language, rights = looker
        return self._environment.get_template(template).render(
            language=language,
            t=lambda text, **more: texts.translate(language, text, **more),
            may=lambda right: right in rights,
            **values,
        )


def _name(entrance: Entrance) -> int | str:
    return entrance.session_id if entrance.session_id is not None else entrance.actor.removeprefix("token:")
