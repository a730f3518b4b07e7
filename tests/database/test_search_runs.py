"""Finding runs: every filter alone and together, page by page, and words that are written behind the runs."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node, start, transform

from stellwerk import errors


@pytest.fixture
def runs(db: Any, make_workflow: Any, run_all: Any) -> dict[str, int]:
    for slug in ("a", "b"):
        make_workflow(
            document(
                slug,
                [
                    START,
                    transform("price", "{{ 1 / trigger.payload.divisor }}"),
                    node("sure", "logic.wait", {"event": "sure", "correlation": "x"}),
                ],
                ["start -> price", "price -> sure"],
            )
        )
    found = {
        "waits": start(db, "a", {"name": "Maria Keller", "mail": "m.keller@example.org", "divisor": 1}, key="order-1"),
        "failed": start(db, "a", {"name": "Jan Roth", "divisor": 0, "number": 4711}),
        "other": start(db, "b", {"name": "Ina Keller-Roth", "divisor": 1}, key="order-1"),
        "gone": start(db, "b", {"name": "Ötzi Öl", "divisor": 1, "within": {"name": "hidden"}}),
    }
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s)", [found["gone"]])
    return found


def search(db: Any, **named: Any) -> list[int]:
    words = [f'"{name}" => %({name})s' for name in named]
    return [number for (number,) in db.execute(f"select stellwerk.search_runs({', '.join(words)})", named)]


def names(db: Any, runs: dict[str, int], **named: Any) -> list[str]:
    known = {number: name for name, number in runs.items()}
    return [known[number] for number in search(db, **named)]


def test_each_filter_alone(db: Any, runs: dict[str, int]) -> None:
    assert names(db, runs) == ["gone", "other", "failed", "waits"]
    assert names(db, runs, workflow="a") == ["failed", "waits"]
    assert names(db, runs, states=["failed"]) == ["failed"]
    assert names(db, runs, states=["failed", "cancelled"]) == ["gone", "failed"]
    assert names(db, runs, states=["waiting"]) == ["other", "waits"]
    assert names(db, runs, states=["running", "pending", "completed"]) == []
    assert names(db, runs, states=["waiting", "failed"]) == ["other", "failed", "waits"]
    assert names(db, runs, key="order-1") == ["other", "waits"]
    assert names(db, runs, until="2020-01-01") == []
    assert names(db, runs, since="2020-01-01", until="2999-01-01") == ["gone", "other", "failed", "waits"]
    with pytest.raises(psycopg.Error) as refused:
        search(db, workflow="nope")
    assert errors.from_database(refused.value).sqlstate == "SW001"


def test_filters_hold_together_and_pages_follow_each_other(db: Any, runs: dict[str, int]) -> None:
    assert names(db, runs, words="keller", workflow="b", states=["waiting"]) == ["other"]
    assert names(db, runs, key="order-1", states=["failed"]) == []
    assert names(db, runs, most=2) == ["gone", "other"]
    assert names(db, runs, most=2, before=runs["other"]) == ["failed", "waits"]
    assert names(db, runs, states=["waiting"], before=runs["other"]) == ["waits"]
    assert names(db, runs, words="keller", before=runs["other"]) == ["waits"]


@pytest.mark.parametrize("written", [False, True])
def test_words_are_found_before_and_after_they_are_written(db: Any, runs: dict[str, int], written: bool) -> None:
    if written:
        write(db)
        assert db.execute("select count(*) from stellwerk.run_text").fetchone() == (4,)
    assert names(db, runs, words="keller") == ["other", "waits"]
    assert names(db, runs, words="KELL mar") == ["waits"]
    assert names(db, runs, words="m.keller@example.org") == ["waits"]
    assert names(db, runs, words="4711") == ["failed"]
    assert names(db, runs, words="öl") == ["gone"]
    assert names(db, runs, words="hidden") == []
    assert names(db, runs, words="' & | ! <-> (") == ["gone", "other", "failed", "waits"]


def write(db: Any) -> None:
    """Two ticks: one sees how far there are runs, the next writes."""
    for _ in range(3):
        db.execute("select stellwerk.write_run_texts(1)")


def test_nothing_is_passed_over_that_is_committed_late(db: Any, dsn: str, runs: dict[str, int]) -> None:
    with psycopg.connect(dsn) as slow:
        late = start(slow, "a", {"name": "late", "divisor": 1})
        start(db, "a", {"name": "early", "divisor": 1})
        write(db)
        assert db.execute("select count(*) from stellwerk.run_text").fetchone() == (0,)
        slow.commit()
    write(db)
    assert db.execute("select count(*) from stellwerk.run_text").fetchone() == (6,)
    assert search(db, words="late") == [late]


def test_words_follow_an_edit_and_are_forgotten(db: Any, runs: dict[str, int]) -> None:
    write(db)
    db.execute('select stellwerk.edit_run(%s, \'{"name": "Weber", "divisor": 1}\')', [runs["failed"]])
    assert names(db, runs, words="weber") == ["failed"]
    assert names(db, runs, words="jan") == []
    db.execute("select count(*) from stellwerk.forget_subject('name', 'Weber', false)")
    assert search(db, words="weber") == []
    assert db.execute("select count(*) from stellwerk.run_text where words @@ 'weber'").fetchone() == (0,)


def test_writing_at_rest_writes_nothing(db: Any, runs: dict[str, int]) -> None:
    write(db)
    before = db.execute("select pg_current_xact_id_if_assigned(), stellwerk.write_run_texts(1)").fetchone()
    assert before == (None, 0)


def test_another_tenants_runs_are_not_found(db: Any, runs: dict[str, int]) -> None:
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("set stellwerk.tenant = 'other'")
    assert search(db) == []
    assert search(db, words="keller") == []
    assert search(db, key="order-1") == []


def test_a_time_is_found_without_reading_the_runs_before(db: Any, runs: dict[str, int]) -> None:
    db.execute("update stellwerk.run set created_at = '2026-01-01'::timestamptz + make_interval(days => run_id::int)")
    day = {name: f"2026-01-{number + 1:02d}" for name, number in runs.items()}
    assert names(db, runs, since=day["failed"]) == ["gone", "other", "failed"]
    assert names(db, runs, until=day["failed"]) == ["waits"]
    assert names(db, runs, since=day["failed"], until=day["gone"]) == ["other", "failed"]


def test_a_page_looks_at_so_many_runs_and_says_where_it_stopped(db: Any, runs: dict[str, int]) -> None:
    def look(**named: Any) -> list[tuple[int, bool]]:
        words = [f'"{name}" => %({name})s' for name in named]
        return db.execute(f"select * from stellwerk.look_for_runs({', '.join(words)})", named).fetchall()

    found = look(workflow="a", states=["waiting", "completed"], depth=1)
    assert found == [(runs["failed"], False)]
    assert look(workflow="a", states=["waiting", "completed"], depth=1, before=found[-1][0]) == [
        (runs["waits"], True),
        (runs["waits"], False),
    ]
    assert look(workflow="a", states=["waiting", "completed"], depth=1, before=runs["waits"]) == []
    assert search(db, workflow="a", states=["waiting", "completed"]) == [runs["waits"]]
    assert look(states=["waiting"], depth=2) == [(runs["other"], True), (runs["waits"], True), (runs["waits"], False)]


def test_events_and_entries_are_looked_through_in_portions(db: Any) -> None:
    db.execute(
        "insert into stellwerk.event_log (tenant_id, target, operation, record_id, state) select 1, 'public.t', 'insert', n::text, 'ignored' from generate_series(1, 5) n"
    )
    newest = db.execute("select max(event_id) from stellwerk.event").fetchone()[0]
    query = "select * from stellwerk.look_for_events(record => '1', before => %s, depth => 3)"
    assert db.execute(query, [None]).fetchall() == [(newest - 2, False)]
    assert db.execute(query, [newest - 2]).fetchall() == [(newest - 4, True)]
    db.execute(
        "select stellwerk.note_action(1, 'look', case n when 1 then 'sky' else 'sea' end, n::text, null, null) from generate_series(1, 5) n"
    )
    actor, last = db.execute(
        "select actor, audit_id from stellwerk.audit_log order by audit_id desc limit 1"
    ).fetchone()
    query = "select * from stellwerk.look_for_entries(%s, 'sky', %s, depth => 3)"
    assert db.execute(query, [actor, None]).fetchall() == [(last - 2, False)]
    assert db.execute(query, [actor, last - 2]).fetchall()[0] == (last - 4, True)
    assert db.execute("select count(*) from stellwerk.look_for_entries(null, 'sea')").fetchone() == (4,)
