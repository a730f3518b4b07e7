"""Live pages: streams that tell of changes soon, cost little, and end when they should."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest
from database.helpers import START, document, node, start, transform
from web.serving import Serving

from stellwerk.settings import Settings
from stellwerk.web import access
from stellwerk.web.app import make_app

pytestmark = pytest.mark.one_server

Database = psycopg.Connection[Any]


class Application(Serving):
    """`live` is what its streams hang on."""

    def __init__(self, dsn: str, settings: Settings) -> None:
        super().__init__(make_app(dsn, settings))
        self.live = self.app.state.live


@pytest.fixture
def application(dsn: str, settings: Settings) -> Iterator[Application]:
    served = Application(dsn, settings)
    yield served
    served.stop()


@pytest.fixture
def cookies(db: Database) -> Callable[..., dict[str, str]]:
    def enter(tenant: int = 1, email: str = "ada@example.org") -> dict[str, str]:
        db.execute(
            "select set_config('stellwerk.tenant', (select slug from stellwerk.tenant where tenant_id = %s), false)",
            [tenant],
        )
        db.execute(
            "select stellwerk.add_user(%s, 'operator') where not exists (select from stellwerk.app_user u where u.tenant_id = %s and u.email = %s)",
            [email, tenant, email],
        )
        secret = access.new_secret(tenant)
        db.execute(
            "select stellwerk.open_session(u.tenant_id, u.user_id, %s) from stellwerk.app_user u where u.tenant_id = %s and u.email = %s",
            [access.digest(secret), tenant, email],
        )
        db.execute("reset stellwerk.tenant")
        return {"stellwerk_session": secret}

    return enter


@pytest.fixture
def waiting(make_workflow: Callable[..., str], db: Database, run_all: Callable[..., int]) -> Callable[[], int]:
    make_workflow(
        document(
            "patient",
            [START, node("sure", "logic.wait", {"event": "sure", "correlation": "{{ run.id }}"}), transform("end", 1)],
            ["start -> sure", "sure -> end"],
        )
    )

    def make() -> int:
        number = start(db, "patient")
        run_all(db)
        return number

    return make


class Listening:
    """A browser that listens, in a thread."""

    def __init__(self, application: Application, path: str, cookies: dict[str, str]) -> None:
        self.seen: list[tuple[float, str, str]] = []
        self.ended = threading.Event()
        self.answered = threading.Event()
        self.status = 0
        self._client = httpx2.Client(base_url=application.url, cookies=cookies, timeout=30)
        self._response: Any = None
        self._path = path
        threading.Thread(target=self._read, daemon=True).start()
        assert self.answered.wait(10)

    def _read(self) -> None:
        with contextlib.suppress(Exception):
            with self._client.stream("GET", self._path) as response:
                self._response = response
                self.status = response.status_code
                self.answered.set()
                event, data = "", []
                for line in response.iter_lines():
                    if line.startswith("event: "):
                        event = line[7:]
                    elif line.startswith("data: "):
                        data.append(line[6:])
                    elif not line and event:
                        self.seen.append((time.monotonic(), event, "\n".join(data)))
                        event, data = "", []
        self.ended.set()

    def last(self, event: str) -> str:
        return next((text for _, name, text in reversed(self.seen) if name == event), "")

    def leave(self) -> None:
        self._client.close()


def test_a_change_arrives_within_two_seconds(
    application: Application, cookies: Any, waiting: Any, db: Database, engine: Any, run_all: Any, wait_until: Any
) -> None:
    number = waiting()
    listening = Listening(application, f"/live/runs/{number}", cookies())
    wait_until(lambda: listening.last("graph"))
    assert 'data-state="waiting"' in listening.last("head")
    wait_until(lambda: watched(db))
    began = time.monotonic()
    engine.signal("sure", str(number))
    run_all(db)
    wait_until(lambda: 'data-state="completed"' in listening.last("head"), what="the change")
    assert time.monotonic() - began < 2
    assert "ghost" not in listening.last("graph")
    assert {event for _, event, _ in listening.seen} == {"head", "graph", "timeline"}


def watched(db: Database) -> bool:
    """Whether somebody waits at the bell."""
    row = db.execute(
        "select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted"
        " and database = (select oid from pg_database where datname = current_database())"
    ).fetchone()
    return bool(row and row[0])


def test_nobody_is_notified_unless_somebody_looks(
    application: Application, cookies: Any, waiting: Any, db: Database, dsn: str, wait_until: Any
) -> None:
    with psycopg.connect(dsn, autocommit=True) as ear:
        ear.execute("listen stellwerk_live")
        number = waiting()
        assert not watched(db)
        assert list(ear.notifies(timeout=0.2)) == []
        listening = Listening(application, f"/live/runs/{number}", cookies())
        wait_until(lambda: listening.last("graph"))
        wait_until(lambda: watched(db))
        waiting()
        told = list(ear.notifies(timeout=1.0, stop_after=1))
        assert [note.payload for note in told] == [""]


def test_two_hundred_streams_cost_one_query_and_go_with_their_browsers(
    application: Application, cookies: Any, waiting: Any, db: Database, engine: Any, run_all: Any, wait_until: Any
) -> None:
    number = waiting()
    cookie = cookies()

    async def listen_all() -> tuple[int, int]:
        async with httpx2.AsyncClient(
            base_url=application.url,
            cookies=cookie,
            timeout=30,
            limits=httpx2.Limits(max_connections=300, max_keepalive_connections=0),
        ) as client:
            done: list[int] = []

            async def one() -> None:
                async with client.stream("GET", f"/live/runs/{number}") as response:
                    assert response.status_code == 200
                    text = ""
                    async for piece in response.aiter_text():
                        text += piece
                        if 'class="why" data-state="completed"' in text:
                            done.append(1)
                            return

            tasks = [asyncio.create_task(one()) for _ in range(200)]
            while application.live.count < 200:
                await asyncio.sleep(0.05)
                assert not any(task.done() for task in tasks)
            await asyncio.sleep(1.5)
            before = application.live.looks
            began = time.monotonic()
            await asyncio.to_thread(engine.signal, "sure", str(number))
            await asyncio.to_thread(run_all, db)
            await asyncio.gather(*tasks)
            took = time.monotonic() - began
            assert took < 10
            return len(done), application.live.looks - before

    done, looks = asyncio.run(listen_all())
    assert done == 200
    assert looks < 20
    wait_until(lambda: application.live.count == 0, what="the streams' end")


def test_a_browser_that_goes_away_frees_its_stream(
    application: Application, cookies: Any, waiting: Any, db: Database, wait_until: Any
) -> None:
    """Also one that says nothing more and resets its connection; whoever stays is still told, by the one connection that listens."""
    number = waiting()
    cookie = cookies()
    stays = Listening(application, f"/live/runs/{number}", cookie)
    wait_until(lambda: stays.last("graph"))
    address = urlsplit(application.url)
    request = f"GET {{}} HTTP/1.1\r\nhost: x\r\ncookie: stellwerk_session={cookie['stellwerk_session']}\r\n\r\n"
    for path in (f"/live/runs/{number}", "/live/overview"):
        for linger in (struct.pack("ii", 0, 0), struct.pack("ii", 1, 0)):  # a farewell, and a reset
            with socket.create_connection((address.hostname, address.port), 10) as browser:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                browser.sendall(request.format(path).encode())
                assert b"200 OK" in browser.recv(100)
                wait_until(lambda: application.live.count == 2, what="its stream")
                assert listening_connections(db) == 1
            wait_until(lambda: application.live.count == 1, what="the end of its stream")
    assert listening_connections(db) == 1
    stays.leave()
    wait_until(lambda: application.live.count == 0, what="the end of the last stream")
    assert listening_connections(db) == 1  # it lingers for a while: who reloads a page comes back


def test_who_opens_too_many_is_told_at_once(
    application: Application, cookies: Any, waiting: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a refusal, not as a stream that breaks; others still have room."""
    monkeypatch.setattr("stellwerk.web.live.MOST_OF_ONE", 2)
    path = f"/live/runs/{waiting()}"
    cookie = cookies()
    open_ones = [Listening(application, path, cookie) for _ in range(2)]
    wait_until(lambda: application.live.count == 2)
    for refused in (path, "/live/overview", "/live/dashboard"):
        answer = httpx2.get(application.url + refused, cookies=cookie)
        assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True), refused
    assert Listening(application, path, cookies(email="ben@example.org")).status == 200
    assert all(not each.ended.is_set() for each in open_ones)


def listening_connections(db: Database) -> int:
    row = db.execute(
        "select count(*) from pg_stat_activity where application_name = 'stellwerk-web-live' and datname = current_database()"
    ).fetchone()
    return int(row[0]) if row else 0


def test_a_stop_with_open_streams_is_quick(
    application: Application, cookies: Any, waiting: Any, wait_until: Any
) -> None:
    number = waiting()
    cookie = cookies()
    several = [Listening(application, f"/live/runs/{number}", cookie) for _ in range(3)]
    several.append(Listening(application, "/live/overview", cookie))
    wait_until(lambda: application.live.count == 4)
    assert application.stop() < 3
    assert all(each.ended.wait(5) for each in several)


def test_the_overview_tells_that_something_moved(
    application: Application, cookies: Any, waiting: Any, db: Database, wait_until: Any
) -> None:
    listening = Listening(application, "/live/overview", cookies())
    wait_until(lambda: watched(db))
    assert listening.seen == []
    waiting()
    wait_until(lambda: listening.seen, seconds=5)
    assert listening.seen[0][1:] == ("change", "")


def test_a_stream_ends_with_its_session(
    application: Application, cookies: Any, waiting: Any, db: Database, wait_until: Any
) -> None:
    number = waiting()
    listening = Listening(application, f"/live/runs/{number}", cookies())
    wait_until(lambda: listening.last("graph"))
    db.execute("select stellwerk.end_sessions('ada@example.org')")
    assert listening.ended.wait(12)
    wait_until(lambda: application.live.count == 0)


def test_streams_of_two_tenants_see_their_own(
    application: Application, cookies: Any, waiting: Any, db: Database, wait_until: Any
) -> None:
    number = waiting()
    (other,) = db.execute(
        "insert into stellwerk.tenant (slug, name) values ('other', 'Other') returning tenant_id"
    ).fetchone() or (0,)
    db.execute(
        "insert into stellwerk.tenant_role (tenant_id, role_name) values (%s, 'stellwerk_web') on conflict do nothing",
        [other],
    )
    theirs = cookies(other, "eve@example.org")
    refused = Listening(application, f"/live/runs/{number}", theirs)
    assert refused.status == 404
    listening = Listening(application, f"/live/runs/{number}", cookies())
    overview = Listening(application, "/live/overview", theirs)
    wait_until(lambda: listening.last("graph"))
    wait_until(lambda: watched(db))
    waiting()
    wait_until(lambda: overview.seen, seconds=5)
    assert all(text == "" for _, _, text in overview.seen)
    assert Listening(application, f"/live/runs/{number}", {}).status in (303, 401)
