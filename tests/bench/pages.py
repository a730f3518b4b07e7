"""Measure every page and list with a million runs, from a checkout: python tests/bench/pages.py --help."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import html
import http.client
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(
        Path(__file__).resolve().parent.parent
    )  # the package is called bench, whatever the current folder

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bench.addresses import LEFT_OUT, STREAMS, Place, Things, places, things
from bench.figures import percentile
from bench.filling import fill
from bench.place import Place as Where
from bench.place import log_in, place, value, web
from stellwerk.database.schema import migrate
from stellwerk.web.app import make_app

ROLES = {"admin": "admin0@example.org", "staff": "staff0@example.org"}
WARM = 3  # of each at most, not counted: connections are opened, statements planned, templates compiled


class Work:
    """For how long cores have worked for an answer, by the kernel's count: in the web process, in its connections' server processes and
    here. On a machine that does nothing else that is nearly the time of the answer; on a busy one, what the answer itself needs."""

    def __init__(self, where: Where, web_pid: int) -> None:
        self._connection = where.connect()
        self._web_pid = web_pid
        self._servers: list[int] = []

    def look(self) -> None:
        """See which connections there are."""
        rows = self._connection.execute(
            "select pid from pg_stat_activity where datname = current_database() and application_name like 'stellwerk-web%'"
        )
        self._servers = [pid for (pid,) in rows.fetchall()]

    def milliseconds(self) -> float:
        """Of all of them so far; where the system does not say, 0."""
        with contextlib.suppress(OSError):
            files = [
                *Path(f"/proc/{self._web_pid}/task").glob("*/schedstat"),
                *(Path(f"/proc/{pid}/schedstat") for pid in self._servers),
                Path("/proc/self/schedstat"),
            ]
            return sum(int(file.read_text().split()[0]) for file in files) / 1e6
        return 0.0


@dataclass
class Measured:
    """A place, how long its answers took, and for how long cores worked for them."""

    place: Place
    judged_by_work: bool
    times: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    cursor: str = ""
    start: str = ""

    @property
    def judged(self) -> float:
        """What 95 of 100 do not exceed."""
        return percentile(self.work if self.judged_by_work else self.times, 0.95) if self.times else float("inf")

    @property
    def holds(self) -> bool:
        return not self.wrong and self.judged < self.place.goal

    def line(self) -> str:
        if not self.times:
            return f"{'FAILED':8}{self.place.title}: {self.wrong[:1]}"
        word = "FAILED" if self.wrong else "ok" if self.holds else "MISSED"
        figures = "".join(
            f"{number:8.1f}"
            for number in (
                percentile(self.times, 0.5),
                percentile(self.times, 0.95),
                max(self.times),
                percentile(self.work, 0.5),
                percentile(self.work, 0.95),
            )
        )
        return f"{word:8}{figures}{sorted(self.sizes)[len(self.sizes) // 2] / 1024:8.1f}{len(self.sizes):6}  {self.place.title}"


class Browser:
    """Asks on one connection that is kept, as one person."""

    def __init__(self, port: int, cookie: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.headers = {"cookie": cookie, "accept-encoding": "gzip"}

    def ask(self, address: str, is_api: bool, fragment: bool) -> tuple[int, bytes, float, int]:
        """Status, body, milliseconds until the whole answer was there, and its size on the wire."""
        headers = {
            **self.headers,
            "accept": "application/json" if is_api else "text/html",
            **({"hx-request": "true"} if fragment else {}),
        }
        try:
            answer, body, took = self._exchange(address, headers)
        except ConnectionError:  # a server closes a connection that rests for some seconds
            self.connection.close()
            answer, body, took = self._exchange(address, headers)
        return (
            answer.status,
            gzip.decompress(body) if answer.getheader("content-encoding") == "gzip" else body,
            took,
            len(body),
        )

    def _exchange(self, address: str, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes, float]:
        began = time.perf_counter()
        self.connection.request("GET", address, headers=headers)
        answer = self.connection.getresponse()
        body = answer.read()
        return answer, body, (time.perf_counter() - began) * 1000


def measure(where: Where, times: int, depth: int, only: str | None, busy: bool) -> list[Measured]:
    """Everything so many times, in random order."""
    app = make_app(where.dsn)
    with where.connect() as connection:
        draw = things(connection)
    warm = min(WARM, times)
    measured = [Measured(p, busy) for p in places(app) if only is None or re.search(only, p.title)]
    with web(where) as (pid, port):
        work = Work(where, pid)
        browsers = {role: Browser(port, log_in(where, port, email)) for role, email in ROLES.items()}
        turns = [m for m in measured for _ in range((depth if m.place.pages else times) + warm)]
        random.shuffle(turns)
        asked: dict[int, int] = {}
        for one in turns:
            asked[id(one)] = asked.get(id(one), 0) + 1
            _ask(browsers[one.place.role], one, draw, work, counts=asked[id(one)] > warm)
    return measured


def _ask(browser: Browser, one: Measured, draw: Callable[[], Things], work: Work, counts: bool) -> None:
    if not one.cursor or not one.start:
        one.start = one.place.draw(draw())
    address = one.start + (("&" if "?" in one.start else "?") + "cursor=" + one.cursor if one.cursor else "")
    if one.place.pages and one.place.is_api and not one.cursor:
        address += ("&" if "?" in address else "?") + "limit=50"
    work.look()
    before = work.milliseconds()
    status, body, took, size = browser.ask(address, one.place.is_api, one.place.pages and not one.place.is_api)
    if status not in one.place.answers:
        one.wrong.append(f"{status} for {address}: {body[:300]!r}")
        return
    if counts:
        worked = max(work.milliseconds() - before, 0.0)
        one.times.append(took)
        one.work.append(worked)
        one.sizes.append(size)
        one.slowest = max(one.slowest, (worked if one.judged_by_work else took, address))
    one.cursor = _next(body, one.place) if one.place.pages else ""


def _next(body: bytes, place: Place) -> str:
    """The cursor of the following page; nothing at the end, and the list begins anew."""
    if place.is_api:
        return str(json.loads(body).get("next_cursor") or "")
    found = re.search(r"[?&]cursor=([\w-]+)", html.unescape(body.decode()))
    return found[1] if found else ""


@contextlib.contextmanager
def filled(options: argparse.Namespace) -> Iterator[Where]:
    """A full database: one that is kept under its name, or one for this time."""

    def tell(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if options.database is None:
        with place(options.dsn, options.pg_bin) as where:
            with where.connect() as connection:
                fill(connection, options.runs, tell, options.small)
            yield where
        return
    own = make_conninfo(**{**conninfo_to_dict(options.dsn or ""), "dbname": options.database})
    with psycopg.connect(options.dsn, autocommit=True) as connection:
        known = value(connection, "select exists (select from pg_database where datname = %s)", options.database)
        if not known:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(options.database)))
    if not known:
        migrate(own)
        with psycopg.connect(own, autocommit=True) as connection:
            fill(connection, options.runs, tell, options.small)
    yield Where(own, Path())


def main(arguments: list[str] | None = None) -> int:
    """Fill, measure, print. The status is 1 where a goal was missed or a page failed."""
    options = _options(arguments)
    with filled(options) as where:
        about = where.about()
        with where.connect() as connection:
            counts = {
                name: value(connection, f"select count(*) from stellwerk.{name} where tenant_id = 1")
                for name in ("run", "step", "backoffice_case", "user_task", "event", "audit_log")
            }
        measured = measure(where, options.times, options.depth, options.only, options.busy)
    print(
        "PostgreSQL {server}, {cores} cores, shared_buffers {shared_buffers}; ".format(**about)
        + ", ".join(f"{count:,} of {name}" for name, count in counts.items())
    )
    print(
        f"goal: p95 under {100} ms, the dashboard's under {200} ms; left out: {', '.join(sorted(LEFT_OUT))} ({STREAMS})\n"
    )
    print(
        f"{'':8}{'p50':>8}{'p95':>8}{'max':>8}{'work50':>8}{'work95':>8}{'KB':>8}{'times':>6}  milliseconds at the client; of cores' work"
    )
    for one in sorted(measured, key=lambda m: -m.judged):
        print(one.line())
    missed = [one for one in measured if not one.holds]
    for one in missed:
        print(
            f"\n{one.place.title}\n  slowest: {one.slowest[0]:.0f} ms {one.slowest[1]}"
            + "".join(f"\n  {line}" for line in one.wrong[:3])
        )
    print(f"\n{len(measured) - len(missed)} of {len(measured)} reached their goal")
    return 1 if missed else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="pages", description="Fill a database and measure every page, list and filter of the web application."
    )
    parser.add_argument("--dsn", help="a server to use, with the right to create a database; else one is started")
    parser.add_argument("--pg-bin", type=Path, metavar="DIR", help="binaries of the server to start")
    parser.add_argument(
        "--database", metavar="NAME", help="on the server of --dsn: fill and keep it, or use it if it is there"
    )
    parser.add_argument(
        "--runs", type=int, default=1_000_000, help="of the tenant that is looked at (1000000); another one has a tenth"
    )
    parser.add_argument("--times", type=int, default=50, help="how often each is asked for (50)")
    parser.add_argument("--depth", type=int, default=200, help="how many pages a list is followed (200)")
    parser.add_argument("--only", metavar="REGEX", help="only what looks like this, as printed")
    parser.add_argument(
        "--busy", action="store_true", help="the machine does other things: judge by the work of cores, not by the time"
    )
    parser.add_argument("--small", action="store_true", help="few workflows, to see that it works")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
