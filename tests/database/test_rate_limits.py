"""How often worker steps may begin, and turns between tenants at the workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from helpers import START, Worker, call, document, node, start

TYPE = "action.fonio_call"


@pytest.fixture
def worker(dsn: str) -> Iterator[Worker]:
    worker = Worker(dsn, (TYPE, "http.request", "message.send"))
    yield worker
    worker.connection.close()


def limit(db: Any, kind: str, name: str, count: int, per: str) -> None:
    db.execute("select stellwerk.set_rate_limit(%s, %s, %s, %s)", (kind, name, count, per))


def why(db: Any, run_id: int) -> str:
    return str(db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0])


def waits(db: Any) -> list[tuple[int, float]]:
    """Steps that were put off, and for how long, in the order of their turns."""
    return [
        (int(run_id), float(seconds))
        for run_id, seconds in db.execute(
            "select run_id, extract(epoch from due_at - clock_timestamp()) from stellwerk.rate_wait order by due_at"
        )
    ]


def due(db: Any) -> list[tuple[int, int]]:
    """Steps whose queue row is due, as a worker would get them."""
    return [
        (run_id, step_id)
        for run_id, step_id in db.execute("""
            select s.run_id, s.step_id from stellwerk.step s join stellwerk_queue.pgqueuer q on q.id = s.job_id
             where s.state = 'queued' and q.execute_after <= now() order by s.step_id
        """)
    ]


@pytest.fixture
def calls(db: Any, make_workflow: Any, run_all: Any) -> Any:
    """Starts so many runs with one worker step each, up to that step."""
    make_workflow(document("calls", [START, call("a")], ["start -> a"]))

    def make(count: int) -> list[int]:
        runs = []
        for _ in range(count):  # one by one, so that their steps are in the same order
            runs.append(start(db, "calls"))
            run_all(db)
        return runs

    return make


def test_no_more_steps_of_a_type_begin_than_the_limit_lets(db, calls, worker):
    limit(db, "type", TYPE, 3, "PT1H")
    runs = calls(5)
    taken = worker.begin()
    assert [t["run_id"] for t in taken] == runs[:3]
    assert [t["attempt"] for t in taken] == [1, 1, 1]
    assert worker.begin() == [], "also not when it asks again"
    assert db.execute(
        "select state, attempt, failures from stellwerk.step where run_id = %s and runs_in = 'worker'", (runs[4],)
    ).fetchone() == ("queued", 0, 0)
    (first, in_seconds), (second, in_more) = waits(db)
    assert (first, second) == tuple(runs[3:])
    # What has begun counts for an hour and a twentieth; then they go at the pace of the limit.
    assert 3500 < in_seconds < 3800
    assert 1200 < in_more - in_seconds < 1300
    assert due(db) == []
    assert (
        f"Run {runs[4]} is running: step a ({TYPE}) waits: the rate limit of 3 in PT1H for steps of type {TYPE}"
        in why(db, runs[4])
    )
    assert why(db, runs[4]).endswith("; before it in the line: 1.")


def test_steps_that_were_put_off_begin_in_their_order_when_their_time_has_come(db, calls, worker, wait_until):
    limit(db, "type", TYPE, 2, "PT0.6S")
    runs = calls(6)
    began: dict[int, float] = {}

    def all_begun() -> bool:
        for taken in worker.begin(list(reversed(due(db)))):
            began[taken["run_id"]] = db.execute(
                "select extract(epoch from started_at) from stellwerk.step where step_id = %s", (taken["step_id"],)
            ).fetchone()[0]
            worker.end(taken)
        return len(began) == 6

    wait_until(all_begun)
    times = sorted(float(at) for at in began.values())
    for earlier, later in zip(times, times[2:], strict=False):
        # Counted is when the worker may have it, a moment before it is noted as begun.
        assert later - earlier >= 0.5, "no interval of the limit's length holds more than two"
    assert times[-1] - times[0] < 4
    assert sorted(began, key=lambda run_id: (began[run_id], run_id)) == runs
    assert db.execute("select count(*) from stellwerk.rate_wait").fetchone() == (0,)


def test_who_comes_later_does_not_overtake_who_waits(db, calls, worker):
    limit(db, "type", TYPE, 1, "PT0.5S")
    first, second, third = calls(3)
    refs = worker.queued()
    assert [t["run_id"] for t in worker.begin(refs[:2])] == [first]
    db.execute("select pg_sleep(0.55)")
    assert worker.begin(refs[2:]) == [], "there is room, but it belongs to the second"
    assert [run_id for run_id, _ in waits(db)] == [second, third]
    assert [t["run_id"] for t in worker.begin(due(db))] == [second]


def test_two_workers_at_once_share_a_limit(db, dsn, calls, worker, wait_until):
    limit(db, "type", TYPE, 3, "PT1H")
    calls(6)
    refs = worker.queued()
    other = Worker(dsn)
    worker.connection.autocommit = False
    assert len(worker.begin(refs[:2])) == 2
    other.connection.execute("set lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        other.begin(refs[2:4])
    worker.connection.commit()
    assert len(other.begin(refs[2:4])) == 1
    assert other.begin(refs[4:]) == []
    other.connection.close()


def test_each_provider_is_counted_by_itself(db, make_workflow, run_all, worker):
    def request(host: str) -> dict[str, Any]:
        return node("get", "http.request", {"url": "{{ trigger.payload.url }}", "method": "GET"})

    make_workflow(document("fetch", [START, request("x")], ["start -> get"]))
    make_workflow(document("calls", [START, call("a")], ["start -> a"]))
    limit(db, "provider", "http:api.example.com", 1, "PT1H")
    limit(db, "provider", "Fonio", 1, "PT1H")
    urls = ["https://api.example.com/a", "https://user:pw@API.example.com:8443/b", "https://other.example.com/c"]
    runs = []
    for slug, payload in [*(("fetch", {"url": url}) for url in urls), ("calls", {}), ("calls", {})]:
        runs.append(start(db, slug, payload))
        run_all(db)
    first, second, third, fourth, fifth = runs
    assert {t["run_id"] for t in worker.begin()} == {first, third, fourth}
    assert {run_id for run_id, _ in waits(db)} == {second, fifth}
    assert "the rate limit of 1 in PT1H for provider http:api.example.com lets it begin at" in why(db, second)
    assert "for provider fonio" in why(db, fifth)


@pytest.mark.parametrize(
    ("node_type", "config", "expected"),
    [
        ("slack.send_message", {}, {"type:slack.send_message", "provider:slack"}),
        ("message.send", {"channel": "WhatsApp"}, {"type:message.send", "provider:message", "provider:whatsapp"}),
        ("action.esign_request", {}, {"type:action.esign_request", "provider:action", "provider:esign"}),
        ("http.request", {"url": "http://[::1]:80/x"}, {"type:http.request", "provider:http", "provider:http:[::1]"}),
        ("http.request", {"url": "nonsense"}, {"type:http.request", "provider:http"}),
    ],
)
def test_what_a_step_counts_against(tx, node_type, config, expected):
    (found,) = tx.execute(
        "select stellwerk.limits_for(%s, %s)", (node_type, psycopg.types.json.Jsonb(config))
    ).fetchone()
    assert set(found) == expected


def test_a_step_under_two_limits_keeps_to_both(db, calls, worker):
    limit(db, "type", TYPE, 4, "PT1H")
    limit(db, "provider", "fonio", 2, "PT1M")
    calls(5)
    assert len(worker.begin()) == 2
    assert db.execute("select distinct name from stellwerk.rate_wait").fetchall() == [("fonio",)]


def test_a_limit_that_is_raised_or_removed_lets_those_who_wait_begin(db, calls, worker):
    limit(db, "type", TYPE, 1, "PT1H")
    runs = calls(4)
    assert len(worker.begin()) == 1
    assert due(db) == []
    limit(db, "type", TYPE, 3, "PT1H")
    assert len(due(db)) == 3
    assert why(db, runs[3]).startswith(f"Run {runs[3]} is running: step a waits in the queue")
    assert len(worker.begin(due(db))) == 2
    assert due(db) == []
    assert db.execute("select stellwerk.remove_rate_limit('type', %s)", (TYPE,)).fetchone() == (True,)
    assert len(worker.begin(due(db))) == 1
    db.execute("select stellwerk.tick()")
    assert waits(db) == []
    assert db.execute("select count(*) from stellwerk.rate_usage").fetchone() == (0,)
    assert db.execute("select stellwerk.remove_rate_limit('type', %s)", (TYPE,)).fetchone() == (False,)


def test_a_limit_with_another_interval_takes_over_what_has_begun(db, calls, worker):
    limit(db, "type", TYPE, 2, "PT1M")
    calls(3)
    assert len(worker.begin()) == 2
    limit(db, "type", TYPE, 3, "PT2H")
    assert len(worker.begin(due(db))) == 1
    assert calls(1)
    assert worker.begin(due(db)) == []


def test_whoever_sets_a_limit_and_does_not_commit_holds_up_no_worker(db, dsn, calls, worker):
    limit(db, "type", TYPE, 1, "PT1H")
    calls(2)
    refs = worker.queued()
    worker.connection.execute("set statement_timeout = '5s'")
    with psycopg.connect(dsn) as slow:
        limit(slow, "type", TYPE, 2, "PT1H")
        assert len(worker.begin(refs)) == 1
        slow.rollback()


def test_gaps_that_cancelled_runs_leave_are_closed(db, calls, worker):
    limit(db, "type", TYPE, 1, "PT10S")
    runs = calls(6)
    assert len(worker.begin()) == 1
    before = dict(waits(db))[runs[5]]
    for run_id in runs[1:5]:
        db.execute("select stellwerk.cancel_run(%s)", (run_id,))
    assert [run_id for run_id, _ in waits(db)] == [runs[5]]
    db.execute("select stellwerk.tick()")
    assert len(due(db)) == 1
    assert worker.begin(due(db)) == []
    assert dict(waits(db))[runs[5]] < before - 30


def test_a_skipped_step_is_no_longer_in_the_line(db, calls, worker):
    limit(db, "type", TYPE, 1, "PT0.2S")
    runs = calls(2)
    assert len(worker.begin()) == 1
    (step_id,) = db.execute("select step_id from stellwerk.rate_wait").fetchone()
    db.execute("select stellwerk.skip_step(%s, %s)", (runs[1], step_id))
    db.execute("update stellwerk.rate_wait set due_at = now() - interval '2 minutes'")
    db.execute("select stellwerk.tick()")
    assert waits(db) == []


def test_a_paused_run_asks_again_when_it_is_resumed(db, calls, worker):
    limit(db, "type", TYPE, 1, "PT1H")
    runs = calls(2)
    assert len(worker.begin()) == 1
    db.execute("select stellwerk.pause_run(%s)", (runs[1],))
    db.execute("select stellwerk.resume_run(%s)", (runs[1],))
    assert worker.begin() == []
    assert [run_id for run_id, _ in waits(db)] == [runs[1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("node", "http.request", 1, "PT1S"), "a rate limit is for a type or a provider, not for 'node'"),
        ((None, "http.request", 1, "PT1S"), "a rate limit is for a type or a provider, not for null"),
        (("type", "http", 1, "PT1S"), "'http' is no name of a node type"),
        (("type", None, 1, "PT1S"), "null is no name of a node type"),
        (("provider", "two words", 1, "PT1S"), "'two words' is no name of a provider"),
        (("provider", "slack", 0, "PT1S"), "a rate limit lets 1 to 1000000 steps begin, not 0"),
        (("provider", "slack", None, "PT1S"), "a rate limit lets 1 to 1000000 steps begin, not null"),
        (
            ("provider", "slack", 5, "PT0S"),
            "the interval of a rate limit lasts a tenth of a second to 31 days, not 00:00:00",
        ),
        (
            ("provider", "slack", 5, "P2M"),
            "the interval of a rate limit lasts a tenth of a second to 31 days, not 2 mons",
        ),
        (("provider", "slack", 5, None), "the interval of a rate limit lasts a tenth of a second to 31 days, not null"),
    ],
)
def test_bad_limits_are_refused(db, arguments, message):
    with pytest.raises(psycopg.Error) as refused:
        limit(db, *arguments)
    assert refused.value.sqlstate == "SW008"
    assert refused.value.diag.message_primary == message
    assert refused.value.diag.message_hint


def test_who_sets_a_limit_stands_in_the_audit_log(db):
    limit(db, "provider", "slack", 5, "PT1M")
    limit(db, "provider", "slack", 6, "PT1M")
    db.execute("select stellwerk.remove_rate_limit('provider', 'slack')")
    assert db.execute(
        "select action, subject_id, before -> 'max_count', after -> 'max_count' from stellwerk.audit_overview"
        " where subject = 'rate_limit' order by audit_id"
    ).fetchall() == [
        ("insert", "provider/slack", None, 5),
        ("update", "provider/slack", 5, 6),
        ("delete", "provider/slack", 6, None),
    ]


def test_limits_of_one_tenant_do_not_count_for_another(db, dsn, calls, worker):
    limit(db, "type", TYPE, 1, "PT1H")
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    runs = calls(2)
    assert [t["run_id"] for t in worker.begin()] == runs[:1]
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("set stellwerk.tenant = 'other'")
        assert other.execute("select stellwerk.remove_rate_limit('type', %s)", (TYPE,)).fetchone() == (False,)
    assert db.execute("select count(*) from stellwerk.rate_limit").fetchone() == (1,)


# -- turns between tenants ----------------------------------------------------------------------------------------------


@pytest.fixture
def two_tenants(db: Any, dsn: str, make_workflow: Any) -> Iterator[Any]:
    """Connections of two tenants, each with a workflow of one worker step."""
    from stellwerk.definition.compile import compile_workflow
    from stellwerk.engine import Engine

    compiled = compile_workflow(document("calls", [START, call("a")], ["start -> a"]))
    db.execute("insert into stellwerk.tenant (slug, name) values ('small', 'Small')")
    with psycopg.connect(dsn, autocommit=True) as small:
        small.execute("set stellwerk.tenant = 'small'")
        for connection in (db, small):
            slug, version = Engine(connection).save_workflow(compiled.document, compiled.plan, [])
            Engine(connection).publish_workflow(slug, version)
        yield db, small


def test_a_worker_is_named_steps_of_a_tenant_that_waits_behind_another(two_tenants, run_all, worker):
    big, small = two_tenants
    big.execute("select stellwerk.start_run('calls') from generate_series(1, 300)")
    run_all(big)
    small_runs = [row[0] for row in small.execute("select stellwerk.start_run('calls') from generate_series(1, 12)")]
    run_all(big)
    big.execute("select pg_sleep(0.25)")
    (answer,) = big.execute("select stellwerk.pump()").fetchone()
    (big_id,) = big.execute("select stellwerk.current_tenant_id()").fetchone()
    (small_id,) = small.execute("select stellwerk.current_tenant_id()").fetchone()
    named = [turn[1] for turn in answer["ready"]]
    assert named.count(small_id) == named.count(big_id) == 5, "each tenant has the same share"

    def other_turns() -> set[int]:
        taken = worker.begin(worker.connection.execute(
            "select run_id, step_id from stellwerk.step where tenant_id = %s and state = 'queued' order by 1 limit 8", (big_id,)
        ).fetchall())  # fmt: skip
        answer = worker.end(*taken)
        assert all(t[0] == TYPE and t[1] == small_id for t in answer["ready"])
        return {t[2] for t in answer["ready"]}

    turns = other_turns()
    assert len(turns) == 4
    assert turns <= set(small_runs)


def test_a_tenant_alone_is_named_nothing(db, calls, worker):
    calls(30)
    db.execute("select pg_sleep(0.25)")
    assert db.execute("select stellwerk.pump() -> 'ready'").fetchone() == ([],)
    assert worker.end(*worker.begin(worker.queued()[:4]))["ready"] == []


def test_steps_that_may_not_begin_are_not_named(two_tenants, run_all):
    big, small = two_tenants
    limit(small, "type", TYPE, 1, "PT1H")
    big.execute("select stellwerk.start_run('calls') from generate_series(1, 20)")
    small.execute("select stellwerk.start_run('calls') from generate_series(1, 20)")
    run_all(big)
    (small_id,) = small.execute("select stellwerk.current_tenant_id()").fetchone()
    (dsn,) = (big.info.dsn,)
    with psycopg.connect(dsn, autocommit=True) as connection:
        (worker_id,) = connection.execute(
            "select stellwerk.register_worker('test', 'here', 1, %s)", ([TYPE],)
        ).fetchone()
        refs = connection.execute(
            "select array_agg(run_id), array_agg(step_id) from stellwerk.step where tenant_id = %s and state = 'queued'",
            (small_id,),
        ).fetchone()
        begun = connection.execute(
            "select * from stellwerk.begin_steps(%s, %s, %s, %s)", (worker_id, small_id, *refs)
        ).fetchall()
    assert len(begun) == 1
    big.execute("select pg_sleep(0.25)")
    (ready,) = big.execute("select stellwerk.pump() -> 'ready'").fetchone()
    assert {turn[1] for turn in ready} == set() or small_id not in {turn[1] for turn in ready}


def test_a_pump_begins_steps_of_each_tenant_and_none_that_a_limit_puts_off(two_tenants, worker):
    big, small = two_tenants
    (small_id,) = small.execute("select stellwerk.current_tenant_id()").fetchone()
    limit(small, "type", TYPE, 1, "PT1H")
    for tenant in two_tenants:
        tenant.execute("select stellwerk.start_run('calls') from generate_series(1, 3)")
    (answer,) = worker.connection.execute(
        "select stellwerk.pump_and_begin(500, %s, %s, 10)", (worker.worker_id, [TYPE])
    ).fetchone()
    begun = [(tenant_id, tenant) for tenant_id, *_, tenant in answer["begun"]]
    assert begun == [(1, "default")] * 3
    refs = [(run_id, step_id) for _, tenant_id, run_id, step_id in answer["ready"] if tenant_id == small_id]
    assert len(refs) == len(answer["ready"]) == 3
    taken = worker.connection.execute(
        "select * from stellwerk.begin_steps(%s, %s, %s, %s)",
        (worker.worker_id, small_id, *map(list, zip(*refs, strict=True))),
    ).fetchall()
    assert len(taken) == 1
    assert small.execute("select count(*) from stellwerk.rate_wait").fetchone() == (2,)
    assert big.execute(
        "select tenant_id, count(*) from stellwerk.step where state = 'running' group by 1 order by 1"
    ).fetchall() == [(1, 3), (small_id, 1)]
