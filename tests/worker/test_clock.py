"""The database's clock is the clock: that of a worker's machine may say what it likes."""

from __future__ import annotations

import time

from database.helpers import START, document, node


def fired(db):
    return db.execute("select count(*) from stellwerk.run_log").fetchone()[0]


def timers(slug):
    nodes = [
        START,
        node("w", "logic.wait", {"until": "{{ trigger.payload.at }}"}),
        node("l", "log.write", {"message": "fired"}),
    ]
    return document(slug, nodes, ["start -> w", "w -> l"])


def test_the_clock_of_the_workers_machine_does_not_matter(db, make_workflow, start_worker, monkeypatch, wait_until):
    """It jumps forward and back by hours while a worker keeps the time; nothing fires early or late."""
    slug = make_workflow(timers("timers"))
    real, jump = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: real() + jump[0])
    start_worker()
    times = db.execute(
        "select array_agg((clock_timestamp() + n * interval '40 ms' + interval '2 s')::text) from generate_series(1, 100) n"
    ).fetchone()[0]
    db.execute(
        "select count(stellwerk.start_run(%s, jsonb_build_object('at', t.at))) from unnest(%s::text[]) t (at)",
        (slug, times),
    )
    for jump[0] in (7200.0, -7200.0, 86400.0):
        seen = fired(db)
        wait_until(lambda seen=seen: fired(db) > min(seen, 99) or fired(db) == 100, what="timers")
    wait_until(lambda: fired(db) == 100, what="all timers")
    early, p95 = db.execute(
        "select min(l.logged_at - (r.payload ->> 'at')::timestamptz) < interval '0',"
        " percentile_cont(0.95) within group (order by extract(epoch from l.logged_at - (r.payload ->> 'at')::timestamptz))"
        " from stellwerk.run_log l join stellwerk.run r using (tenant_id, run_id)"
    ).fetchone()
    assert not early
    assert p95 <= 2.0
