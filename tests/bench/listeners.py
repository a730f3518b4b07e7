"""Measure what open run pages cost the engine, from a checkout: python tests/bench/listeners.py --help."""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(
        Path(__file__).resolve().parent.parent
    )  # the package is called bench, whatever the current folder


from bench.documents import NODES, PAYLOAD, prepare, publish
from bench.figures import grouped
from bench.measures import START
from bench.place import Place, log_in, place, value, wait_until, web, worker

GOAL = 0.95
RESTLESS: dict[str, Any] = {
    "slug": "bench-restless",
    "name": "Moves five times a second",
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "count", "type": "logic.set", "config": {"values": {"n": "{{ coalesce(vars.n, 0) + 1 }}"}}, "max_visits": 1_000_000},
        {"id": "enough", "type": "logic.if", "config": {"condition": "vars.n >= 1000000"}, "max_visits": 1_000_000},
        {"id": "rest", "type": "logic.wait", "config": {"for": "PT0.2S"}, "max_visits": 1_000_000},
        {"id": "end", "type": "logic.transform", "config": {"output": 1}},
    ],
    "edges": [
        {"from": "start", "to": "count"},
        {"from": "count", "to": "enough"},
        {"from": "enough", "port": "false", "to": "rest"},
        {"from": "enough", "port": "true", "to": "end"},
        {"from": "rest", "to": "count"},
    ],
}  # fmt: skip
EVENTS = b"event: "


def listen(port: int, cookie: str, path: str, count: int, open_: Event, close: Event, read: Any) -> None:
    """So many browsers on one page, in a process of their own: what they read is counted and thrown away."""
    selector = selectors.DefaultSelector()
    request = (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncookie: {cookie}\r\naccept: text/event-stream\r\n\r\n".encode()
    )
    for _ in range(count):
        browser = socket.create_connection(("127.0.0.1", port), 30)
        browser.sendall(request)
        if b" 200 " not in browser.recv(200):
            raise RuntimeError("the page does not answer")
        browser.setblocking(False)
        selector.register(browser, selectors.EVENT_READ)
    open_.set()
    while not close.is_set():
        for key, _ in selector.select(0.1):
            with contextlib.suppress(BlockingIOError):
                data = key.fileobj.recv(1 << 18)  # type: ignore[union-attr]
                read[0] += len(data)
                read[1] += data.count(EVENTS)
        time.sleep(0.02)  # browsers are other machines: here they shall cost as little as they can


@contextlib.contextmanager
def listeners(port: int, cookie: str, path: str, count: int) -> Iterator[Any]:
    """While they listen; answers the bytes and events that they have read."""
    context = multiprocessing.get_context("spawn")
    open_, close, read = context.Event(), context.Event(), context.Array("q", 2)
    process = context.Process(target=listen, args=(port, cookie, path, count, open_, close, read))
    process.start()
    try:
        if count and not open_.wait(60):
            raise RuntimeError("the listeners could not connect")
        yield read
    finally:
        close.set()
        process.join(30)


def throughput(where: Place, runs: int, watched: int, slug: str) -> float:
    """Steps per second of the runs, while the watched run moves all the time."""
    with where.connect() as connection:
        began = time.perf_counter()
        connection.execute(START, [slug, PAYLOAD, runs])
        open_ = "select exists (select from stellwerk.run where tenant_id = 1 and run_id <> %s and state in ('pending', 'running'))"
        if slug == "bench-worker":
            wait_until(lambda: not value(connection, open_, watched), pause=0.02)
        else:
            while value(connection, "select stellwerk.pump(500)")["runs_advanced"]:
                pass
        return runs * NODES / (time.perf_counter() - began)


def memory(pid: int) -> float:
    """What a process holds, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def seconds_worked(pid: int) -> float:
    """Of all its threads."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def measure(where: Place, options: argparse.Namespace) -> dict[str, Any]:
    """In turns without and with listeners, so that what the machine does besides falls on both."""
    prepare(where)
    with where.connect() as connection:
        publish(connection, RESTLESS)
    found: dict[str, Any] = {"rounds": []}
    with web(where) as (pid, port), worker(where):
        cookie = _cookie(where, port)
        at_rest, descriptors = memory(pid), _descriptors(pid)
        for number in range(1, options.rounds + 1):
            turn: dict[str, Any] = {}
            for count in (0, options.listeners) if number % 2 else (options.listeners, 0):
                with where.connect() as connection:
                    watched = value(connection, "select stellwerk.start_run('bench-restless', %s)", PAYLOAD)
                    wait_until(
                        lambda w=watched, c=connection: value(
                            c, "select count(*) > 5 from stellwerk.step where tenant_id = 1 and run_id = %s", w
                        )
                    )
                    with listeners(port, cookie, f"/live/runs/{watched}", count) as read:
                        time.sleep(1.5)
                        throughput(where, 100, watched, options.workflow)
                        worked, events, began = seconds_worked(pid), read[1], time.perf_counter()
                        rate = throughput(where, options.runs, watched, options.workflow)
                        took = time.perf_counter() - began
                        turn[str(count)] = {
                            "steps_per_second": rate,
                            "web_cpu_share": (seconds_worked(pid) - worked) / took,
                            "events_per_listener_and_second": (read[1] - events) / max(count, 1) / took,
                            "web_memory_mb": memory(pid),
                            "listening_connections": value(
                                connection,
                                "select count(*) from pg_stat_activity where application_name = 'stellwerk-web-live' and datname = current_database()",
                            ),
                        }
                    connection.execute("select stellwerk.cancel_run(%s, 'measured')", [watched])
                    connection.execute("select stellwerk.pump()")
            turn["ratio"] = turn[str(options.listeners)]["steps_per_second"] / turn["0"]["steps_per_second"]
            found["rounds"].append(turn)
            print(f"round {number}: " + json.dumps(turn), file=sys.stderr, flush=True)
        wait_until(lambda: _descriptors(pid) <= descriptors + 40, 30)
        found.update(
            memory_at_rest_mb=at_rest,
            memory_after_mb=memory(pid),
            descriptors_before=descriptors,
            descriptors_after=_descriptors(pid),
        )
    found["ratio"] = median(turn["ratio"] for turn in found["rounds"])
    return found


def _cookie(where: Place, port: int) -> str:
    with where.connect() as connection:
        connection.execute("select set_config('stellwerk.tenant', 'default', false)")
        connection.execute("select stellwerk.add_user('listener@example.org', 'operator')")
    return log_in(where, port, "listener@example.org")


def _descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def main(arguments: list[str] | None = None) -> int:
    """Measure and print. The status is 1 where listeners slow the engine, or are not let go of."""
    parser = argparse.ArgumentParser(
        prog="listeners", description="How fast the engine is while browsers listen on one run page, beside none."
    )
    parser.add_argument("--dsn", help="a server to use, with the right to create a database; else one is started")
    parser.add_argument("--pg-bin", type=Path, metavar="DIR", help="binaries of the server to start, and of pgbench")
    parser.add_argument("--listeners", type=int, default=200, help="how many browsers (200)")
    parser.add_argument("--runs", type=int, default=1000, help="small runs of each turn (1000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns without and with (5)")
    parser.add_argument(
        "--workflow",
        choices=["bench-worker", "bench-sql"],
        default="bench-worker",
        help="five worker nodes, or five SQL nodes",
    )
    options = parser.parse_args(arguments)
    with place(options.dsn, options.pg_bin) as where:
        found = measure(where, options)
    many = [turn[str(options.listeners)] for turn in found["rounds"]]
    none = [turn["0"] for turn in found["rounds"]]
    print(f"steps/s without listeners: {', '.join(grouped(t['steps_per_second']) for t in none)}")
    print(f"steps/s with {options.listeners}: {', '.join(grouped(t['steps_per_second']) for t in many)}")
    print(
        f"ratios: {', '.join(format(turn['ratio'], '.2f') for turn in found['rounds'])}; median {found['ratio']:.2f} (goal {GOAL})"
    )
    print(
        f"web process with listeners: {median(t['web_cpu_share'] for t in many):.0%} of a core, {median(t['events_per_listener_and_second'] for t in many):.1f} events/s to each"
    )
    print(
        f"its memory: {found['memory_at_rest_mb']:.0f} MB at rest, {max(t['web_memory_mb'] for t in many):.0f} MB with listeners, {found['memory_after_mb']:.0f} MB afterwards"
    )
    print(
        f"its open files: {found['descriptors_before']} before, {found['descriptors_after']} afterwards; listening connections: {max(t['listening_connections'] for t in many)}"
    )
    return 0 if found["ratio"] >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
