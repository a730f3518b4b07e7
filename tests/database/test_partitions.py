"""Partitions are made and dropped beside all work, and nobody waits for them."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import psycopg
import pytest
from database.helpers import Worker, run, start, states
from database.housekeeping import (
    LINEAR,
    RICH,
    SIZE,
    count,
    house,
    keep_partitions,
    many_ended_runs,
    partitions,
    use_numbers,
)

MIGRATION = Path(__file__).parents[2] / "migrations" / "0010_retention.sql"
OF_RUNS = ("run", "step", "step_attempt", "scope", "loop")
PARTITIONED = (*OF_RUNS, "event_log", "audit_log")


# -- partitions -------------------------------------------------------------------------------------------------------


def test_the_next_range_is_made_half_a_range_ahead(db, make_workflow, run_all):
    assert partitions(db, "run") == [("run_0", None, SIZE), ("run_default", None, None)]
    use_numbers(db, "run_id_seq", SIZE // 2 - 1000)
    assert keep_partitions(db) == []
    use_numbers(db, "run_id_seq", SIZE // 2 + 1)
    assert house(db)["partition"] == f"made step_attempt_{SIZE}"
    assert len(keep_partitions(db)) == 4
    for table in OF_RUNS:
        assert (f"{table}_{SIZE}", SIZE, 2 * SIZE) in partitions(db, table)
    assert len(partitions(db, "event_log")) == 2
    use_numbers(db, "event_id_seq", SIZE // 2 + 1)
    use_numbers(db, "audit_id_seq", SIZE // 2 + 1)
    assert keep_partitions(db) == [f"made event_log_{SIZE}", f"made audit_log_{SIZE}"]
    # Runs go on over the border.
    make_workflow(RICH)
    use_numbers(db, "run_id_seq", SIZE - 2)
    runs = [start(db, "rich", {"items": [1]}) for _ in range(4)]
    assert runs == [SIZE - 1, SIZE, SIZE + 1, SIZE + 2]
    run_all(db)
    for table in ("run", "step", "scope", "loop"):
        where = db.execute(
            f"select distinct tableoid::regclass::text, run_id >= {SIZE} from stellwerk.{table}"
        ).fetchall()
        assert sorted(where) == [(f"stellwerk.{table}_0", False), (f"stellwerk.{table}_{SIZE}", True)]


def test_a_new_partition_is_like_the_others(db):
    use_numbers(db, "run_id_seq", SIZE // 2 + 1)
    use_numbers(db, "audit_id_seq", SIZE // 2 + 1)
    keep_partitions(db)
    shape = """
        select array_agg(replace(pg_get_indexdef(i.indexrelid), %(name)s, 'X') || i.indisvalid order by i.indexrelid),
               (select c.reloptions from pg_class c where c.oid = to_regclass(%(table)s)),
               (select c.relrowsecurity from pg_class c where c.oid = to_regclass(%(table)s)),
               (select array_agg(t.tgname order by 1) from pg_trigger t where t.tgrelid = to_regclass(%(table)s) and not t.tgisinternal),
               (select array_agg(pg_get_constraintdef(k.oid) order by k.conname) from pg_constraint k where k.conrelid = to_regclass(%(table)s) and contype = 'c')
          from pg_index i where i.indrelid = to_regclass(%(table)s)"""

    def of(name):
        return db.execute(shape, {"name": name, "table": f"stellwerk.{name}"}).fetchone()

    for table in (*OF_RUNS, "audit_log"):
        old, new, rest = of(f"{table}_0"), of(f"{table}_{SIZE}"), of(f"{table}_default")
        assert len(old[0]) == len(new[0]) == len(rest[0])
        assert old[1:] == new[1:] == rest[1:]
        assert new[2] is True
    for statement in (f"truncate stellwerk.audit_log_{SIZE}", "truncate stellwerk.audit_log_default"):
        with pytest.raises(psycopg.Error) as refused:
            db.execute(statement)
        assert refused.value.sqlstate == "SW004"


def test_partitions_are_dropped_whole_when_they_are_empty_and_behind(db, make_workflow, run_all):
    make_workflow(RICH)
    old = start(db, "rich", {"items": [1]})
    run_all(db)
    use_numbers(db, "run_id_seq", SIZE // 2 + 1)
    keep_partitions(db)
    use_numbers(db, "run_id_seq", SIZE + 1)
    live = start(db, "rich", {"items": [1]})
    run_all(db)
    db.execute("select stellwerk.cancel_run(%s)", (old,))
    assert keep_partitions(db) == []  # not empty
    db.execute("select stellwerk.set_retention(runs => '0')")
    answer = house(db)
    assert answer["removed"] == {"runs": 1}
    dropped = [answer["partition"], *keep_partitions(db)]
    assert dropped == [f"dropped {table}_0" for table in ("step_attempt", "scope", "loop", "step", "run")]
    assert [name for name, _, _ in partitions(db, "step")] == [f"step_{SIZE}", "step_default"]
    assert states(db, live)["call"] == "queued"
    assert keep_partitions(db) == []


def test_a_row_whose_range_was_dropped_finds_a_place(db, make_workflow, run_all):
    make_workflow(LINEAR)
    use_numbers(db, "run_id_seq", SIZE // 2 + 1)
    keep_partitions(db)
    use_numbers(db, "run_id_seq", SIZE + 1)
    assert len(keep_partitions(db)) == 5
    use_numbers(db, "run_id_seq", 5)
    run_id = start(db, "linear", {"n": 1})
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    assert db.execute("select tableoid::regclass::text from stellwerk.run").fetchone() == ("stellwerk.run_default",)


def test_nobody_waits_for_a_partition(db, dsn, make_workflow, run_all):
    """While a long transaction has the tables, DDL is put off at once, and whoever comes after is not kept waiting."""
    make_workflow(LINEAR)
    use_numbers(db, "run_id_seq", SIZE // 2 + 1)
    keep_partitions(db)
    use_numbers(db, "run_id_seq", SIZE + 1)
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn, autocommit=True) as writer:
        reader.execute("select count(*) from stellwerk.step")
        reader.execute("select count(*) from stellwerk.step_attempt")
        writer.execute("set lock_timeout = '80ms'")
        for _ in range(3):
            assert db.execute("select stellwerk.keep_partitions()").fetchone() == (None,)
            start(writer, "linear")
            run_all(writer)
        assert len(partitions(db, "step_attempt")) == 3
    assert len(keep_partitions(db)) == 5


def test_a_lock_that_comes_in_between_is_waited_for_a_tenth_of_a_second(db, dsn):
    """Between the look at who has the table and the request for its lock somebody may take it."""
    with psycopg.connect(dsn) as reader:
        reader.execute("select count(*) from stellwerk.step")
        before = db.execute("show lock_timeout").fetchone()
        answer = db.execute("""
            with t as materialized (select clock_timestamp() as at)
            select stellwerk.try_ddl('it', 'stellwerk.run_key', array['lock table stellwerk.step in access exclusive mode']),
                   extract(epoch from clock_timestamp() - t.at) from t
        """).fetchone()
        assert answer[0] is None
        assert answer[1] < 5
        assert db.execute("show lock_timeout").fetchone() == before


def test_what_cannot_be_done_is_taken_back_and_stops_nothing(db, make_workflow):
    make_workflow(LINEAR)
    start(db, "linear")
    notices = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    statements = ["create table stellwerk.half ()", "drop table stellwerk.nowhere"]
    assert db.execute("select stellwerk.try_ddl('made it', 'stellwerk.run', %s)", (statements,)).fetchone() == (None,)
    assert db.execute("select to_regclass('stellwerk.half')").fetchone() == (None,)
    assert notices == ['stellwerk: not made it: table "nowhere" does not exist']
    # A row that came after the look whether the partition is empty.
    drop = "select stellwerk.try_ddl('dropped it', 'stellwerk.run', array['drop table stellwerk.run_0'], 'run_0', 'run_id')"
    assert db.execute(drop).fetchone() == (None,)
    assert count(db, "run_0") == 1


def test_writers_never_notice_the_changes_of_partitions(db, dsn, make_workflow, run_all, wait_until):
    make_workflow(LINEAR)
    errors, finished, stop = [], [], threading.Event()

    def work():
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("set statement_timeout = '10s'")
            while not stop.is_set():
                try:
                    start(connection, "linear", {"n": 1})
                    connection.execute("select stellwerk.pump()")
                    finished.append(1)
                except psycopg.Error as error:
                    errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        for number in (SIZE // 2 + 1, SIZE + 1, 2 * SIZE + 1):
            use_numbers(db, "run_id_seq", number)
            wait_until(lambda top=number + SIZE // 4: house(db) is not None and all(
                any(upper and upper > top for _, _, upper in partitions(db, table)) for table in OF_RUNS), 60)  # fmt: skip
            seen = len(finished)
            wait_until(lambda seen=seen: len(finished) > seen, 60)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    assert errors == []
    run_all(db)
    assert count(db, "run", "state <> 'completed'") == 0


# -- databases that have been in use ----------------------------------------------------------------------------------


def into_one_partition(db):
    """As the tables were before there were ranges: everything in the default partition."""
    for table in PARTITIONED:
        db.execute(f"""
            drop table stellwerk.{table}_default;
            alter table stellwerk.{table} detach partition stellwerk.{table}_0;
            alter table stellwerk.{table}_0 rename to {table}_default;
            alter table stellwerk.{table} attach partition stellwerk.{table}_default default""")


def first_ranges():
    """The statement of the migration that made the first ranges, with the name that the log of events has now."""
    return re.search(r"do \$first\$.*?\$first\$;", MIGRATION.read_text(), re.DOTALL)[0].replace(
        "'event'", "'event_log'"
    )


def test_an_upgrade_loses_no_run_in_flight(db, dsn, make_workflow, run_all):
    make_workflow(RICH)
    into_one_partition(db)
    done, live = start(db, "rich", {"items": [1]}), start(db, "rich", {"items": [1, 2]})
    run_all(db)
    worker = Worker(dsn)
    first = [taken for taken in worker.begin() if taken["run_id"] == done]
    worker.end(*first)
    run_all(db)
    rows = {table: count(db, table) for table in PARTITIONED}
    db.execute(first_ranges())
    assert {table: count(db, f"{table}_0") for table in PARTITIONED} == rows
    assert {table: count(db, f"{table}_default") for table in PARTITIONED} == dict.fromkeys(PARTITIONED, 0)
    assert keep_partitions(db) == []
    taken = worker.connection.execute(
        "select s.run_id, s.step_id, s.attempt from stellwerk.step s where s.state = 'running'"
    ).fetchall()
    worker.end(*({"run_id": r, "step_id": s, "attempt": a} for r, s, a in taken))
    run_all(db)
    assert run(db, done)["state"] == run(db, live)["state"] == "completed"


def test_an_upgrade_puts_numbers_in_use_into_the_first_range(db):
    into_one_partition(db)
    use_numbers(db, "run_id_seq", 3 * SIZE + 7_000_000)
    db.execute(first_ranges())
    assert partitions(db, "step")[0] == ("step_0", None, 5 * SIZE)
    assert keep_partitions(db) == []


def test_a_large_table_gets_its_ranges_without_a_scan_under_a_lock(db, dsn, make_workflow, run_all):
    """The migration leaves it as it is; housekeeping checks a constraint first, which stops nobody."""
    make_workflow(LINEAR)
    into_one_partition(db)
    many_ended_runs(db, 8000)
    db.execute("alter table stellwerk.step_default alter column output set storage plain")
    db.execute("update stellwerk.step set output = to_jsonb(repeat(md5(step_id::text), 30))")
    db.execute("vacuum stellwerk.step")
    seen = []
    while (answer := db.execute("select stellwerk.keep_partitions()").fetchone()[0]) is not None:
        seen.append(answer)
        if answer.startswith("stellwerk.step_default ends before"):
            # Work goes on while the constraint stands there, and while it is checked.
            start(db, "linear", {"n": 1})
            run_all(db)
    of_step = [answer for answer in seen if re.search(r"\bstep_(default|0)", answer)]
    assert of_step == [
        f"stellwerk.step_default ends before {3 * SIZE}",
        f"checked that stellwerk.step_default ends before {3 * SIZE}",
        "made step_0 of step_default",
    ]
    assert partitions(db, "step") == [("step_0", None, 3 * SIZE), ("step_default", None, None)]
    assert count(db, "step_0") == 24_002
    assert count(db, "step_default") == 0
    checks = db.execute("select conname from pg_constraint where conname ~ '_ends_before_'").fetchall()
    assert checks == []
    start(db, "linear", {"n": 2})
    run_all(db)
    assert count(db, "run", "state <> 'completed'") == 0


def test_a_very_large_table_is_checked_by_sessions_that_have_the_time(db):
    for timeout, size, may in (("30s", 2**30, True), ("30s", 2**30 + 1, False), ("0", 2**40, True)):
        db.execute("select set_config('statement_timeout', %s, false)", (timeout,))
        assert db.execute("select stellwerk.may_scan(%s)", (size,)).fetchone() == (may,)


def test_a_constraint_goes_before_the_numbers_in_use_reach_it(db, make_workflow):
    make_workflow(LINEAR)
    into_one_partition(db)
    many_ended_runs(db, 8000)
    db.execute("alter table stellwerk.step_default alter column output set storage plain")
    db.execute("update stellwerk.step set output = to_jsonb(repeat(md5(step_id::text), 30))")
    while (
        db.execute("select stellwerk.keep_partitions()").fetchone()[0]
        != f"stellwerk.step_default ends before {3 * SIZE}"
    ):
        pass
    use_numbers(db, "run_id_seq", 2 * SIZE + 1)
    seen = keep_partitions(db)
    assert seen.index("stellwerk.step_default ends nowhere again") < seen.index(
        f"stellwerk.step_default ends before {5 * SIZE}"
    )
    assert partitions(db, "step")[0] == ("step_0", None, 5 * SIZE)


def test_ranges_that_come_too_late_begin_with_what_lies_in_the_default_partition(db, make_workflow, run_all):
    make_workflow(LINEAR)
    use_numbers(db, "run_id_seq", SIZE + 5)
    run_id = start(db, "linear", {"n": 1})
    run_all(db)
    assert count(db, "run_default") == 1
    keep_partitions(db)
    assert partitions(db, "run") == [(f"run_{SIZE}", SIZE, 4 * SIZE), ("run_default", None, None)]
    assert count(db, "run_default") == 0
    assert run(db, run_id)["state"] == "completed"


# -- plans ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spread(db, make_workflow, run_all):
    """Six ranges, and the numbers in use in the fifth."""
    make_workflow(RICH)
    for number in range(1, 5):
        use_numbers(db, "run_id_seq", number * SIZE - SIZE // 2 + 1)
        for _ in range(5):
            db.execute("select stellwerk.make_next_partition()")
    use_numbers(db, "run_id_seq", 4 * SIZE + 1)
    assert len(partitions(db, "run")) == 6
    start(db, "rich", {"items": [1]})
    run_all(db)
    return db


def touched(db, query, *arguments):
    """The partitions that a statement's generic plan reads: those that are executed."""
    db.execute("set plan_cache_mode = force_generic_plan")
    db.execute(f"prepare looked as {query}")
    given = ", ".join(str(argument) for argument in arguments)
    plan = db.execute(f"explain (analyze, costs off, timing off, summary off) execute looked({given})").fetchall()
    db.execute("deallocate looked")
    lines = [row[0] for row in plan]
    return {
        found[1]
        for line in lines
        if "never executed" not in line
        and (found := re.search(r"Scan.* on ((?:run|step|scope|loop|step_attempt)_\w+)", line))
    }


@pytest.mark.parametrize(
    "query",
    [
        "select state from stellwerk.run where tenant_id = $1 and run_id = $2 for update",
        "select * from stellwerk.step where tenant_id = $1 and run_id = $2 and state in ('queued', 'running', 'waiting', 'joining')",
        "select * from stellwerk.scope where tenant_id = $1 and run_id = $2 and state = 'running'",
        "update stellwerk.step set reason = null where tenant_id = $1 and run_id = $2 and step_id = 1",
        "select s.state from unnest(array[$2]) x (run_id) "
        "cross join lateral (select o.state from stellwerk.step o where o.tenant_id = $1 and o.run_id = x.run_id offset 0) s",
    ],
)
def test_what_names_its_run_reads_one_partition(spread, query):
    run_id = spread.execute("select max(run_id) from stellwerk.run").fetchone()[0]
    query = query.replace("array[$2]", "array[$2::bigint]")
    tables = touched(spread, query, 1, run_id)
    assert len(tables) == 1
    assert tables.pop().endswith(f"_{4 * SIZE}")


@pytest.mark.parametrize(
    "query",
    [
        "select run_id from stellwerk.step where tenant_id = 1 and state = 'queued' and runs_in = 'sql' and due_at is null",
        "select run_id from stellwerk.run where tenant_id = 1 and state = 'pending' and not held order by priority desc, run_id limit 500",
        "select step_id from stellwerk.step where tenant_id = 1 and state = 'running' and lease_until < now()",
        "select event_id from stellwerk.event where tenant_id = 1 and state = 'failed' order by event_id desc limit 50",
    ],
)
def test_what_looks_for_work_uses_the_partial_index_of_each_partition(spread, query):
    spread.execute("set enable_seqscan = off")
    plan = "\n".join(row[0] for row in spread.execute(f"explain (costs off) {query}").fetchall())
    assert "Seq Scan" not in plan
    assert plan.count("Index") >= len(partitions(spread, "event_log" if "stellwerk.event" in query else "run"))
