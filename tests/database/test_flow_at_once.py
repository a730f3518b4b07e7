"""Several sessions at one gate: none lets in too many, none waits for another, and a long line costs no more."""

from __future__ import annotations

import threading

import psycopg
import pytest
from database.clock import shift
from database.flowing import KEYED, gated, leftovers, pump_until, reason, release, state
from database.helpers import START, Worker, call, document, start

# -- two at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"max_running": 3}, {"concurrency_key": "one"}], ids=["max_running", "key"])
@pytest.mark.parametrize("second_first", [False, True], ids=["commits first", "commits second"])
def test_two_pumps_at_once_let_no_more_start_than_one(db, dsn, make_workflow, run_all, settings, second_first):
    make_workflow(gated("few", settings))
    runs = [start(db, "few", {"id": str(n)}) for n in range(8)]
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        one.execute("select stellwerk.pump()")
        busy = two.execute("select stellwerk.pump() -> 'next_due_seconds'").fetchone()[0]
        assert 0 < busy <= 0.05, "it asks to be called again soon"
        for each in (two, one) if second_first else (one, two):
            each.commit()
    run_all(db)
    limit = settings.get("max_running", 1)
    assert state(db, *runs) == ["waiting"] * limit + ["pending"] * (8 - limit)
    # Slots are given back while another pump is at the gate.
    with psycopg.connect(dsn) as one, psycopg.connect(dsn) as two:
        one.execute("select stellwerk.cancel_run(%s)", (runs[0],))
        two.execute("select stellwerk.pump()")
        for each in (two, one) if second_first else (one, two):
            each.commit()
    run_all(db)
    assert state(db, *runs[:2]) == ["cancelled", "waiting"]
    assert state(db, *runs).count("waiting") == limit


def test_many_pumps_never_exceed_the_limit(db, dsn, make_workflow, run_all):
    """Workers complete, start and pump side by side; at no moment do more run than may."""
    make_workflow(document("few", [START, call("a")], ["start -> a"], settings={"max_running": 4}))
    make_workflow(document("keyed", [START, call("a")], ["start -> a"], settings=KEYED))
    for n in range(60):
        start(db, "few")
        start(db, "keyed", {"who": str(n % 3)})
    most: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        try:
            worker = Worker(dsn)
            while not done.is_set():
                worker.connection.execute("select stellwerk.pump()")
                worker.end(*worker.begin(worker.queued()[:3]) or [])
                if worker.connection.execute(
                    "select not exists (select from stellwerk.run where ended_at is null)"
                ).fetchone()[0]:
                    done.set()
        except BaseException as error:
            errors.append(error)
            done.set()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    while not done.wait(0.005):
        most.append(
            db.execute("""
                select count(*) filter (where w.slug = 'few'), coalesce(max(k.n), 0)
                  from stellwerk.run r join stellwerk.workflow w using (tenant_id, workflow_id)
                  left join (select payload ->> 'who' as who, count(*) as n from stellwerk.run
                              where state in ('running', 'waiting') and payload ? 'who' group by 1) k on k.who = r.payload ->> 'who'
                 where r.state in ('running', 'waiting')
            """).fetchone()
        )
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    run_all(db)
    assert {s for (s,) in db.execute("select state from stellwerk.run")} == {"completed"}
    assert max(few for few, _ in most) <= 4
    assert max(keyed for _, keyed in most) <= 1
    assert leftovers(db) == (0, 0)


def test_an_open_transaction_holds_up_nobody_else_in_the_line(db, dsn, make_workflow, run_all):
    make_workflow(gated("keyed", KEYED))
    runs = [start(db, "keyed", {"id": str(n), "who": "a"}) for n in range(3)]
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.cancel_run(%s)", (runs[1],))
        release(db, 0)
        db.execute("set statement_timeout = '5s'")
        run_all(db)
        assert state(db, *runs) == ["completed", "pending", "pending"]
        application.rollback()
    run_all(db)
    assert state(db, *runs) == ["completed", "waiting", "pending"]
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.cancel_run(%s)", (runs[2],))
        run_all(db)
        release(db, 1)
        run_all(db)
        application.commit()
    run_all(db)
    assert state(db, *runs) == ["completed", "completed", "cancelled"]
    assert leftovers(db) == (0, 0)


def test_what_a_transaction_did_at_a_gate_goes_back_with_it(db, dsn, make_workflow, run_all):
    make_workflow(gated("few", {"max_running": 1}))
    runs = [start(db, "few", {"id": str(n)}) for n in range(2)]
    with psycopg.connect(dsn) as dying:
        dying.execute("select stellwerk.pump()")
        dying.rollback()
    assert leftovers(db) == (2, 0)
    run_all(db)
    assert state(db, *runs) == ["waiting", "pending"]


def test_a_debounced_run_that_somebody_held_is_replaced_all_the_same(db, dsn, make_workflow, run_all, wait_until):
    make_workflow(gated("calm", {"debounce": "PT1H"}))
    first = start(db, "calm", {"id": "1"})
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.cancel_run(%s)", (first,))
        second = start(db, "calm", {"id": "2"})
        run_all(db)
        application.rollback()
    assert state(db, first, second) == ["pending", "pending"]
    shift(db, "1 hour")
    pump_until(db, run_all, wait_until, lambda: state(db, second) == ["waiting"], "the second starts")
    assert state(db, first) == ["cancelled"]
    assert reason(db, first) == f"replaced by run {second}, which came within PT1H"


def test_a_run_that_somebody_holds_when_its_turn_comes_starts_later(db, dsn, make_workflow, run_all):
    make_workflow(gated("one", {"max_running": 1}))
    runs = [start(db, "one", {"id": str(n)}) for n in range(2)]
    run_all(db)
    with psycopg.connect(dsn) as application:
        application.execute("select stellwerk.pause_run(%s)", (runs[1],))
        release(db, 0)
        run_all(db)
        application.rollback()
    run_all(db)
    assert state(db, *runs) == ["completed", "waiting"]


def test_a_gate_that_raises_keeps_no_other_closed(db, make_workflow, run_all):
    for slug in ("bad", "good"):
        make_workflow(gated(slug, {"max_running": 1}))
    bad, good = start(db, "bad", {"id": "b"}), start(db, "good", {"id": "g"})
    db.execute("alter table stellwerk.workflow_version disable trigger user")
    huge = "update stellwerk.workflow_version d set settings = %s from stellwerk.workflow w where w.slug = 'bad' and d.workflow_id = w.workflow_id"
    db.execute(huge, ('{"max_running": 99999999999}',))
    notices = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    run_all(db)
    assert state(db, bad, good) == ["pending", "waiting"]
    assert any(n.startswith("the gate of workflow bad stays closed: ") for n in notices)
    db.execute(huge, ('{"max_running": 1}',))
    run_all(db)
    assert state(db, bad) == ["waiting"]


# -- cost ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{"max_running": 5}, {"concurrency_key": "one"}], ids=["max_running", "key"])
def test_a_long_line_costs_no_more_than_a_short_one(db, make_workflow, run_all, settings):
    make_workflow(gated("few", settings))

    def reads(count: int) -> float:
        """Rows and index entries read per run that passes the gate, with so many in the line."""
        db.execute(
            "select stellwerk.start_run('few', jsonb_build_object('id', g::text)) from generate_series(1, %s) g",
            (count,),
        )
        run_all(db)
        db.execute("vacuum analyze stellwerk.flow_wait, stellwerk.flow_slot")
        before = touched()
        for _ in range(10):
            going = db.execute(
                "select stellwerk.cancel_run(run_id) from stellwerk.run where state = 'waiting'"
            ).rowcount
            run_all(db)
        return (touched() - before) / 10 / max(going, 1)

    def touched() -> int:
        db.execute("select pg_stat_force_next_flush()")
        db.execute("select 1")
        db.execute("select pg_stat_clear_snapshot()")
        return int(
            db.execute("""
                select sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) from pg_stat_user_tables
                 where relname in ('flow_wait', 'flow_slot') and schemaname = 'stellwerk'
            """).fetchone()[0]
        )

    short = reads(50)
    long = reads(2000)
    assert long < 3 * short + 20, (short, long)
