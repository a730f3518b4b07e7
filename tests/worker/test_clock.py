"""The database's clock is the clock: that of a worker's machine may say what it likes, and workers may be away.

Real worker processes and real time; `pytest --full` takes ten thousand timers.
"""

from __future__ import annotations

import time

import pytest
from database.helpers import START, document, node, start

FIRED = """
select count(*), count(distinct l.run_id), count(*) filter (where l.logged_at < d.due_at or (s.output ->> 'fired_at')::timestamptz < d.due_at),
       percentile_cont(0.95) within group (order by extract(epoch from (s.output ->> 'fired_at')::timestamptz - d.due_at))::float,
       percentile_cont(0.95) within group (order by extract(epoch from l.logged_at - d.due_at))::float,
       max(extract(epoch from l.logged_at - d.due_at))::float
  from due d join stellwerk.run_log l using (run_id)
  join stellwerk.step s on s.tenant_id = l.tenant_id and s.run_id = l.run_id and s.node_id = 'w'
"""


@pytest.fixture
def timers(db, make_workflow, run_all):
    """Runs that wait, each for a time so many seconds from now; the table `due` remembers it, whatever becomes of the timers."""

    def make(seconds):
        nodes = [
            START,
            node("w", "logic.wait", {"until": "{{ trigger.payload.at }}"}),
            node("l", "log.write", {"message": "fired"}),
        ]
        slug = make_workflow(document("timers", nodes, ["start -> w", "w -> l"]))
        db.execute(
            "select count(stellwerk.start_run(%s, jsonb_build_object('at', clock_timestamp() + make_interval(secs => t.after))))"
            " from unnest(%s::float[]) t (after)",
            (slug, seconds),
        )
        run_all(db, 100_000)
        db.execute("create table due as select run_id, due_at from stellwerk.timer where kind = 'wait'")
        assert db.execute("select count(*) from due").fetchone() == (len(seconds),)

    return make


def fired(db):
    return db.execute("select count(*) from stellwerk.run_log").fetchone()[0]


def figures(db, title, capsys):
    total, runs, early, fired_late, logged_late, latest = db.execute(FIRED).fetchone()
    with capsys.disabled():
        print(
            f"\n{title}: {total} timers, p95 {fired_late:.3f} s late when fired and {logged_late:.3f} s"
            f" when the next step was done, at most {latest:.3f} s"
        )
    return total, runs, early, max(fired_late, logged_late)


def test_the_clock_of_the_workers_machine_does_not_matter(
    db, timers, spawn_worker, make_workflow, wait_until, tmp_path, request, capsys
):
    """Two workers; the clocks of both jump by hours, forward and back, while they keep the time. Normal running otherwise:
    each timer fires once, none early, 95 of 100 within 2 seconds."""
    count, first = (10_000, 30.0) if request.config.getoption("full") else (600, 8.0)
    length = count / 100  # a hundred a second, and a third of them together on whole seconds
    asked = make_workflow(
        document("asked", [START, node("c", "action.fonio_call", {"script": "clock"})], ["start -> c"])
    )
    timers([first + (length * n / count if n % 3 else length * n // count) for n in range(count)])
    clock = tmp_path / "astray"
    clock.write_text("0")
    workers = [spawn_worker(module="worker.astray", ASTRAY=str(clock)) for _ in range(2)]
    query = "select output from stellwerk.run where run_id = %s and state = 'completed'"
    jumps = (7200.0, -7200.0, 86400.0, -400 * 86400.0)
    for number, jump in enumerate(jumps):
        wait_until(lambda number=number: fired(db) > count * number / (len(jumps) + 1), first + length + 30, "timers")
        clock.write_text(str(jump))
        run_id = start(db, asked)
        wait_until(lambda run_id=run_id: db.execute(query, (run_id,)).fetchone(), 20, "the worker's answer")
        [said] = db.execute(query, (run_id,)).fetchone()
        assert all(abs(said[kind] - time.time() - jump) < 60 for kind in ("clock", "seen")), "the clock did not jump"
    wait_until(lambda: fired(db) == count, length + 60, "all timers")
    assert all(worker.running for worker in workers)
    total, runs, early, p95 = figures(db, "clocks that jump", capsys)
    assert (total, runs, early) == (count, count, 0)
    assert p95 <= 2.0


def test_an_hour_without_any_process(db, timers, spawn_worker, wait_until, request, capsys):
    """What became due meanwhile fires at once when somebody is there again, each once, and what is not due yet waits."""
    count = 10_000 if request.config.getoption("full") else 1_500
    timers([3600.0 + 3600.0 * n / count for n in range(count)] + [7280.0])
    # Two hours go by in which nothing runs: all times but one lie behind us, from a minute to an hour.
    for table in ("due", "stellwerk.timer"):
        db.execute(f"update {table} set due_at = due_at - interval '2 hours 1 minute'".encode())
    began = time.monotonic()
    for _ in range(2):
        spawn_worker()
    wait_until(lambda: fired(db) >= count, 120, "all that were due")
    took = time.monotonic() - began
    wait_until(lambda: fired(db) == count + 1, 120, "the one that was not")
    total, runs, early, _ = figures(db, f"after an hour of silence, made up for in {took:.1f} s", capsys)
    assert (total, runs, early) == (count + 1, count + 1, 0)
    assert took < (60 if count > 2000 else 20)
