"""Figures: what is counted by the hour is what is there, and reading it writes nothing."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database.helpers import START, Connection, Worker, call, document, node, start, transform


@pytest.fixture
def history(db: Connection, dsn: str, make_workflow: Any, run_all: Any) -> Connection:
    """Six runs of five hours ago, of which one failed and one waits, and one run of now."""
    make_workflow(
        document(
            "deliver",
            [
                START,
                transform("a", "{{ trigger.payload.n }}"),
                call("send"),
                node("rest", "logic.wait", {"for": "PT1H"}),
            ],
            ["start -> a", "a -> send", "send -> rest"],
        )
    )
    for number in range(6):
        start(db, "deliver", {"n": number})
    run_all(db)
    worker = Worker(dsn)
    taken = worker.begin()
    worker.end(*taken[1:])
    worker.end(taken[0], error={"class": "busy", "message": "busy", "retryable": False})
    run_all(db)
    db.execute(
        "update stellwerk.timer set due_at = now() - interval '1 second' where run_id <> (select max(run_id) from stellwerk.run)"
    )
    db.execute("select stellwerk.tick()")
    run_all(db)
    for table, columns in (
        ("run", ("created_at", "started_at", "ended_at")),
        ("step", ("queued_at", "started_at", "ended_at")),
    ):
        changes = ", ".join(f"{column} = {column} - interval '5 hours'" for column in columns)
        db.execute(f"update stellwerk.{table} set {changes}".encode())
    db.execute(
        "update stellwerk.step set queued_at = ended_at - interval '10 seconds', started_at = ended_at - interval '10 seconds'"
        " where node_id = 'send' and state = 'completed'"
    )
    start(db, "deliver", {"n": 7})
    run_all(db)
    worker.vanish()
    return db


def figures(db: Connection) -> dict[str, Any]:
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute("select * from stellwerk.workflow_figures()").fetchone()
    assert row is not None
    return row


def keep(db: Connection) -> int:
    row = db.execute("select stellwerk.keep_statistics(1)").fetchone()
    assert row is not None
    return int(row[0])


def test_counts_are_exact_once_the_hour_is_written(history: Connection) -> None:
    assert keep(history) == 1
    found = figures(history)
    assert (found["runs"], found["completed"], found["failed"], found["live"]) == (7, 4, 1, 2)
    assert float(found["success_share"]) == pytest.approx(0.8)
    assert found["bottleneck"] == "send"
    assert found["work_seconds"] == pytest.approx(50, rel=0.05)
    hours = history.execute("select runs from stellwerk.hourly_figures() where runs > 0 order by hour").fetchall()
    assert [row[0] for row in hours] == [6, 1]


def test_an_hour_is_written_again_only_when_something_changed(history: Connection, run_all: Any) -> None:
    assert keep(history) == 1
    before = history.execute("select xmin, live from stellwerk.run_hour").fetchall()
    assert [row[1] for row in before] == [1]
    keep(history)  # soon after midnight its day is over, and is summed up
    assert keep(history) == 0
    assert history.execute("select xmin, live from stellwerk.run_hour").fetchall() == before
    history.execute("update stellwerk.timer set due_at = now() - interval '1 second'")
    history.execute("select stellwerk.tick()")
    run_all(history)
    keep(history)
    assert history.execute("select live, completed from stellwerk.run_hour").fetchall() == [(0, 5)]


def test_days_say_what_their_hours_say(history: Connection) -> None:
    """Summed up once all their hours are counted, and again with an hour that has changed."""
    history.execute(
        "update stellwerk.run set created_at = created_at - interval '2 days', started_at = started_at - interval '2 days'"
    )
    while keep(history):
        pass
    since = "now() - interval '4 days'"
    nodes = f"select * from stellwerk.node_figures('deliver', {since}) order by node_id"

    def both() -> list[Any]:
        return [
            history.execute(query.encode()).fetchall()
            for query in (f"select * from stellwerk.workflow_figures({since})", nodes)
        ]

    def of_days() -> Any:
        return history.execute("select sum(runs), sum(live), sum(cancelled) from stellwerk.run_day").fetchone()

    with_days = both()
    assert of_days() == (7, 2, 0)
    with history.transaction(force_rollback=True):
        history.execute("delete from stellwerk.run_day")
        assert both() == with_days
    history.execute("update stellwerk.run set state = 'cancelled', ended_at = now() where ended_at is null")
    for _ in range(3):  # an hour each time
        keep(history)
    assert of_days() == (7, 0, 2)
    assert history.execute(f"select live, cancelled from stellwerk.workflow_figures({since})").fetchone() == (0, 2)


def test_percentiles_from_buckets_are_a_tenth_off_at_most(tx: Connection) -> None:
    row = tx.execute(
        "select array_agg(stellwerk.percentile_of(d.durations, p) order by p), min(e.exact)"
        "  from (select jsonb_object_agg(b, n) as durations"
        "          from (select stellwerk.duration_bucket(g * 0.01) as b, count(*) as n from generate_series(1, 10000) g group by 1) x) d"
        " cross join (select percentile_cont(array[0.5, 0.95, 0.99]) within group (order by g * 0.01) as exact from generate_series(1, 10000) g) e"
        " cross join unnest(array[0.5, 0.95, 0.99]) p"
    ).fetchone()
    assert row is not None
    assert row[0] == pytest.approx(row[1], rel=0.1)
    empty = tx.execute("select stellwerk.percentile_of('{}', 0.5), stellwerk.duration_bucket(-3)").fetchone()
    assert empty == (None, 0)


def test_nodes_say_where_the_time_goes(history: Connection) -> None:
    keep(history)
    rows = history.execute(
        "select node_id, visits, failed, bottleneck, p50_seconds from stellwerk.node_figures('deliver')"
    ).fetchall()
    by_node = {row[0]: row[1:] for row in rows}
    assert by_node["send"][:3] == (7, 1, True)
    assert by_node["send"][3] == pytest.approx(10, rel=0.1)
    assert by_node["a"][:3] == (7, 0, False)
    with pytest.raises(psycopg.errors.DatabaseError, match="there is no workflow 'nothing'"):
        history.execute("select * from stellwerk.node_figures('nothing')")


def test_a_wait_that_is_over_counts_as_waiting(history: Connection) -> None:
    history.execute(
        "update stellwerk.step set queued_at = ended_at - interval '2 hours' where node_id = 'rest' and state = 'completed'"
    )
    keep(history)
    assert figures(history)["wait_seconds"] == pytest.approx(4 * 7200, rel=0.05)


def test_what_stands_now_is_counted_now(history: Connection) -> None:
    row = history.execute(
        "select running, waiting, failed_24h, tasks_overdue, queued, capped from stellwerk.live_figures()"
    ).fetchone()
    assert row == (1, 1, 1, 0, 1, False)
    failures = history.execute(
        "select workflow, node_id, error_class, failures from stellwerk.recent_failures()"
    ).fetchall()
    assert failures == [("deliver", "send", "busy", 1)]
