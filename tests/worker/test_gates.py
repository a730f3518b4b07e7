"""Limits and a worker that keeps to them: what waits goes on by itself, without anybody calling pump."""

from __future__ import annotations

from itertools import pairwise
from typing import Any


def test_steps_over_a_rate_limit_begin_when_their_turn_comes(
    chain: Any, engine: Any, db: Any, start_worker: Any, wait_until: Any
) -> None:
    slug = chain("limited", "ok")
    (node_type,) = db.execute("select distinct type from stellwerk.plan_node where runs_in = 'worker'").fetchone()
    engine.set_rate_limit("type", node_type, 2, "PT0.5S")
    runs = [engine.start_run(slug) for _ in range(8)]
    start_worker()
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (8,))
    began = [
        float(at)
        for (at,) in db.execute(
            "select extract(epoch from started_at) from stellwerk.step where runs_in = 'worker' order by started_at"
        )
    ]
    assert all(later - earlier > 0.35 for earlier, later in zip(began, began[2:], strict=False)), began
    assert db.execute("select count(*), max(attempt) from stellwerk.step where runs_in = 'worker'").fetchone() == (8, 1)
    assert db.execute("select count(*) from stellwerk.rate_wait").fetchone() == (0,)


def test_a_line_of_runs_goes_on_by_itself(
    make_workflow: Any, chain: Any, engine: Any, db: Any, start_worker: Any, wait_until: Any
) -> None:
    slug = chain("line", "ok")
    (document,) = db.execute(
        "select d.document from stellwerk.workflow_version d join stellwerk.workflow w using (tenant_id, workflow_id)"
        " where w.slug = %s",
        [slug],
    ).fetchone()
    make_workflow({**document, "settings": {"max_running": 1, "throttle": "PT0.1S"}})
    start_worker()
    runs = [engine.start_run(slug) for _ in range(6)]
    done = "select count(*) from stellwerk.run where state = 'completed' and run_id = any(%s)"
    wait_until(lambda: db.execute(done, [runs]).fetchone() == (6,))
    times = db.execute("select started_at, ended_at from stellwerk.run order by started_at").fetchall()
    assert all(ended <= begun for (_, ended), (begun, _) in pairwise(times)), "one at a time"
