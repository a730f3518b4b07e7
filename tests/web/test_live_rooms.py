"""The dashboard and the lists of the desk are told of changes, at a cost that does not grow with those who look."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from database.helpers import start
from web.desk import intake
from web.test_live import Listening, application, cookies, waiting

pytestmark = pytest.mark.one_server

__all__ = ["application", "cookies", "waiting"]

Database = psycopg.Connection[Any]


def test_figures_arrive_when_a_run_moves_and_are_read_once_for_all(
    application: Any, cookies: Any, waiting: Any, db: Database, run_all: Any, wait_until: Any, monkeypatch: Any
) -> None:
    from stellwerk.web import live

    reads: list[float] = []
    read = live.read_figures
    monkeypatch.setattr(live, "read_figures", lambda engine: (reads.append(time.monotonic()), read(engine))[1])
    looking = [Listening(application, "/live/dashboard", cookies()) for _ in range(20)]
    wait_until(lambda: all(each.last("figures") for each in looking))
    began, before = time.monotonic(), len(reads)
    waiting()
    wait_until(lambda: all("patient" in each.last("figures") for each in looking), 10, "the figures")
    assert time.monotonic() - began < 4
    for _ in range(3):
        start(db, "patient")
        run_all(db)
    wait_until(lambda: len(reads) > before + 1)
    gaps = [second - first for first, second in pairwise(reads[1:])]
    assert all(gap > 0.9 for gap in gaps), gaps
    for each in looking:
        each.leave()
    wait_until(lambda: application.live.count == 0, 30)


def test_lists_are_told_only_of_what_is_theirs(
    application: Any, cookies: Any, waiting: Any, db: Database, make_workflow: Any, run_all: Any, wait_until: Any
) -> None:
    intake(db, make_workflow, run_all, "Ada")
    tasks, cases = (Listening(application, f"/live/{room}", cookies()) for room in ("tasks", "cases"))
    wait_until(lambda: application.live.looks >= 2)
    time_to_look(wait_until, application)
    waiting()
    time_to_look(wait_until, application)
    assert (tasks.seen, cases.seen) == ([], [])
    db.execute("select stellwerk.add_case_note(1, 'called')")
    wait_until(lambda: cases.seen)
    assert tasks.seen == []
    db.execute("select stellwerk.claim_task(1)")
    wait_until(lambda: tasks.seen)
    assert [event for _, event, _ in (*tasks.seen, *cases.seen)] == ["change", "change"]
    for each in (tasks, cases):
        each.leave()


def time_to_look(wait_until: Any, application: Any) -> None:
    """Wait until the lists were looked at twice more."""
    before = application.live.looks
    wait_until(lambda: application.live.looks >= before + 4, 15)
