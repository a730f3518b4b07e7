"""Connections that break, freeze and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from worker.proxy import Proxy

from stellwerk.worker import listener as listener_module
from stellwerk.worker.connections import Connections, Former, connect, is_lost, worker_conninfo
from stellwerk.worker.driver import CHANNEL, PoolDriver
from stellwerk.worker.listener import Listener

END_ALL = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and application_name like 'stellwerk-%'"
)


@pytest.fixture
async def connections(dsn: str) -> AsyncIterator[Connections]:
    connections = Connections(worker_conninfo(dsn, "stellwerk-worker"), size=3)
    yield connections
    await connections.close()


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    proxy = Proxy(dsn)
    yield proxy
    proxy.close()


@pytest.fixture
async def listening(dsn: str) -> AsyncIterator[Listener]:
    listener = Listener(worker_conninfo(dsn, "stellwerk-listener"))
    task = asyncio.create_task(listener.run())
    await asyncio.wait_for(listener.listening.wait(), 10)
    yield listener
    task.cancel()
    await asyncio.wait({task})


async def until(holds: Any, seconds: float = 15.0) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def test_statements_share_a_few_connections(connections: Connections) -> None:
    rows = await asyncio.gather(*(connections.tuples("select pg_backend_pid() from pg_sleep(0.02)") for _ in range(12)))
    assert len({row[0][0] for row in rows}) == 3
    assert all(connections.knows(row[0][0]) for row in rows)


async def test_a_connection_that_was_ended_is_replaced(connections: Connections, db: psycopg.Connection[Any]) -> None:
    await connections.tuples("select 1")
    assert db.execute(END_ALL).fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError) as caught:
        await connections.tuples("select 1")
    assert is_lost(caught.value)
    assert await connections.tuples("select 2") == [(2,)]


async def test_an_error_of_the_statement_is_no_lost_connection(connections: Connections) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero) as caught:
        await connections.tuples("select 1/0")
    assert not is_lost(caught.value)
    assert await connections.tuples("select 2") == [(2,)]


async def test_the_driver_insists_until_the_server_is_back(
    connections: Connections, listening: Listener, db: psycopg.Connection[Any]
) -> None:
    driver = PoolDriver(connections, listening)
    await driver.fetch("select 1")
    db.execute(END_ALL)
    assert await driver.fetch("select $1::int as n", 3) == [{"n": 3}]
    db.execute(END_ALL)
    assert await driver.execute("set statement_timeout = 0") == "SET"


async def test_several_wakes_count_as_one_until_somebody_looks(connections: Connections, listening: Listener) -> None:
    driver = PoolDriver(connections, listening)
    heard: list[Any] = []
    await driver.add_listener(CHANNEL, heard.append)
    driver.wake()
    driver.wake()
    assert len(heard) == 1
    assert driver.looking() is True
    assert driver.looking() is False
    driver.wake()
    assert len(heard) == 2


async def test_what_our_own_statements_ring_is_not_heard(
    dsn: str, connections: Connections, db: psycopg.Connection[Any]
) -> None:
    listener = Listener(worker_conninfo(dsn, "stellwerk-listener"))
    heard: list[str] = []
    listener.add(CHANNEL, heard.append)
    listener.ignore(CHANNEL, connections.knows)
    task = asyncio.create_task(listener.run())
    await asyncio.wait_for(listener.listening.wait(), 10)
    await connections.tuples("select stellwerk.ring('job')")
    await asyncio.sleep(0.2)
    assert heard == []
    db.execute("select stellwerk.ring('job')")
    await until(lambda: len(heard) == 1)
    task.cancel()
    await asyncio.wait({task})


async def test_the_listener_comes_back_and_calls_everybody_once(
    dsn: str, db: psycopg.Connection[Any], listening: Listener
) -> None:
    heard: list[str] = []
    looked: list[bool] = []
    listening.add("stellwerk", heard.append)
    listening.on_ready.append(lambda: looked.append(True))
    db.execute(END_ALL)
    await until(lambda: looked)
    db.execute("select stellwerk.ring('event')")
    await until(lambda: heard)


async def test_a_frozen_statement_ends_in_its_time(proxy: Proxy) -> None:
    connections = Connections(worker_conninfo(proxy.dsn, "stellwerk-worker"))
    await connections.tuples("select 1")
    assert proxy.freeze() == 1
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError) as caught:
        await connections.tuples("select 1", seconds=0.5)
    assert is_lost(caught.value)
    assert time.monotonic() - began < 2
    assert await connections.tuples("select 2") == [(2,)]
    await connections.close()


@pytest.mark.parametrize("waited", [0.0, 0.3], ids=["sent just now", "sent a while ago"])
async def test_in_doubt_a_statement_without_an_answer_is_given_up(proxy: Proxy, waited: float) -> None:
    connections = Connections(worker_conninfo(proxy.dsn, "stellwerk-worker"))
    await connections.tuples("select 1")
    proxy.freeze()
    waiting = asyncio.create_task(connections.tuples("select 1", seconds=60))
    await asyncio.sleep(waited)
    await asyncio.sleep(0)
    connections.doubt(0.2)
    with pytest.raises(psycopg.OperationalError):
        await asyncio.wait_for(waiting, 2)
    await connections.close()


async def test_in_doubt_a_statement_that_is_answered_goes_on(proxy: Proxy) -> None:
    connections = Connections(worker_conninfo(proxy.dsn, "stellwerk-worker"))
    waiting = asyncio.create_task(connections.tuples("select 1 from pg_sleep(0.1)"))
    await asyncio.sleep(0.05)
    assert connections._busy
    connections.doubt(1.0)
    assert await waiting == [(1,)]
    again = asyncio.create_task(connections.tuples("select 2 from pg_sleep(1.2)"))
    assert await again == [(2,)], "the doubt was about the statement before"
    await connections.close()


async def test_a_frozen_listener_is_noticed(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listener_module.HEARTBEAT_SECONDS + listener_module.ANSWER_SECONDS <= 12  # what is promised is 15
    monkeypatch.setattr(listener_module, "HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr(listener_module, "ANSWER_SECONDS", 0.3)
    listener = Listener(worker_conninfo(proxy.dsn, "stellwerk-listener"))
    lost: list[float] = []
    listener.on_lost.append(lambda: lost.append(time.monotonic()))
    task = asyncio.create_task(listener.run())
    await asyncio.wait_for(listener.listening.wait(), 10)
    froze = time.monotonic()
    proxy.freeze()
    await until(lambda: lost)
    assert lost[0] - froze < 2
    await until(listener.listening.is_set)
    task.cancel()
    await asyncio.wait({task})


async def test_what_a_former_session_held_is_free_once_it_is_succeeded(dsn: str) -> None:
    """Also where the session takes its time to end: else the duty would be asked for in vain, and again seconds later."""
    former = Former()
    before = await connect(dsn)
    await former.succeed(before)
    await before.execute("select pg_advisory_lock(4711)")
    held = before.info.backend_pid
    os.kill(held, signal.SIGSTOP)
    go_on = asyncio.get_running_loop().call_later(0.5, os.kill, held, signal.SIGCONT)
    try:
        async with await connect(dsn) as after:
            await former.succeed(after)
            cursor = await after.execute("select pg_try_advisory_lock(4711)")
            assert await cursor.fetchone() == (True,)
    finally:
        if go_on.when() > asyncio.get_running_loop().time():
            os.kill(held, signal.SIGCONT)
            go_on.cancel()
    await before.close()
