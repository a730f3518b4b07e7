"""Expired history goes in small portions, and never too early."""

from __future__ import annotations

import re

import psycopg
import pytest
from database.helpers import FAILURE, START, Worker, call, document, node, run, start
from database.housekeeping import LINEAR, RICH, SIZE, count, house, many_ended_runs, use_numbers
from database.watching import ORDERS, on_row, watch

KEPT = {"event", "backoffice_case", "case_history", "notification"}
"""Tables with a run_id whose rows outlive the run."""


def with_runs(db):
    """Tables that hold rows of runs, but for partitions."""
    return [
        row[0]
        for row in db.execute("""
            select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'run_id'
             where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
             order by 1""")
    ]


def ended(db, run_id, ago):
    db.execute(
        "update stellwerk.run set created_at = now() - %s::interval, ended_at = now() - %s::interval where run_id = %s",
        (ago, ago, run_id),
    )


# -- what goes, and when ----------------------------------------------------------------------------------------------


def test_without_a_policy_everything_stays_for_ever(db, make_workflow, run_all):
    make_workflow(LINEAR)
    run_id = start(db, "linear")
    run_all(db)
    ended(db, run_id, "20 years")
    assert house(db)["removed"] == {}
    assert run(db, run_id)["state"] == "completed"


def test_runs_go_when_their_time_is_over_and_not_before(db, make_workflow, run_all):
    make_workflow(LINEAR)
    old, young = start(db, "linear"), start(db, "linear")
    run_all(db)
    ended(db, old, "31 days")
    ended(db, young, "29 days")
    db.execute("select stellwerk.set_retention(runs => '30 days')")
    assert house(db)["removed"] == {"runs": 1}
    assert db.execute("select run_id from stellwerk.run").fetchall() == [(young,)]
    assert db.execute("select distinct run_id from stellwerk.step").fetchall() == [(young,)]
    assert house(db)["removed"] == {}


def test_a_workflow_goes_by_its_own_retention_version_by_version(db, make_workflow, run_all):
    def version(**settings):
        return document("own", [START], [], settings=settings)

    make_workflow(LINEAR)
    make_workflow(version(retention="P10D"))
    short = start(db, "own")
    make_workflow(version(retention="P60D"))
    long = start(db, "own")
    make_workflow(version())
    default = start(db, "own")
    other = start(db, "linear")
    run_all(db)
    for run_id in (short, long, default, other):
        ended(db, run_id, "40 days")
    assert house(db)["removed"] == {"runs": 1}
    assert db.execute("select run_id from stellwerk.run order by 1").fetchall() == [(long,), (default,), (other,)]
    db.execute("select stellwerk.set_retention(runs => '30 days')")
    assert house(db)["removed"] == {"runs": 2}
    assert db.execute("select run_id from stellwerk.run order by 1").fetchall() == [(long,)]


def test_a_retention_that_cannot_be_read_keeps_for_ever(db):
    """The compiler checks it; a document that came another way must not stop housekeeping."""
    for settings, keep in (("{}", "1 day"), ('{"retention": null}', "1 day"), ('{"retention": "P2D"}', "2 days")):
        assert db.execute("select stellwerk.retention_of(%s, '1 day') = %s::interval", (settings, keep)).fetchone() == (
            True,
        )
    answer = db.execute("""select stellwerk.retention_of('{"retention": "for long"}', '1 day')""").fetchone()
    assert answer == (None,)


def test_a_run_that_lives_stays_however_old(db, make_workflow, run_all):
    make_workflow(document("slow", [START, node("wait", "logic.wait", {"for": "P1D"})], ["start -> wait"]))
    start(db, "slow")
    paused = start(db, "slow")
    run_all(db)
    db.execute("select stellwerk.pause_run(%s)", (paused,))
    db.execute("update stellwerk.run set created_at = now() - interval '10 years'")
    db.execute("select stellwerk.set_retention(runs => '1 day')")
    assert house(db)["removed"] == {}
    assert count(db, "run") == 2
    assert count(db, "timer") == 2


def test_nothing_of_an_expired_run_is_left(db, dsn, make_workflow, run_all):
    make_workflow(RICH)
    run_id = start(db, "rich", {"items": [1, 2, 3]}, key="once")
    run_all(db)
    worker = Worker(dsn)
    worker.end(*worker.begin(), error=FAILURE)
    run_all(db)
    worker.end(*worker.begin())
    run_all(db)
    assert run(db, run_id)["state"] == "completed"
    filled = {name for name in with_runs(db) if count(db, name)}
    assert filled >= {"run", "step", "step_attempt", "scope", "loop", "variable", "run_log", "run_key"}
    db.execute("select stellwerk.set_retention(runs => '0')")
    assert house(db)["removed"] == {"runs": 1}
    assert [name for name in with_runs(db) if count(db, name)] == []
    assert start(db, "rich", {"items": []}, key="once") != run_id


def test_every_table_with_rows_of_runs_is_known_to_retention(db):
    """A new one is named in remove_parts, or here as one whose rows outlive the run."""
    body = db.execute(
        "select string_agg(prosrc, '') from pg_proc where proname in ('remove_parts', 'remove_portion')"
    ).fetchone()[0]
    named = set(re.findall(r"delete from stellwerk\.(\w+)", body))
    assert sorted(set(with_runs(db)) - named - KEPT) == []


def test_a_case_outlives_its_run(db, make_workflow, run_all):
    make_workflow(
        document("case", [START, node("push", "action.backoffice_push", {"field_map": {"n": "1"}})], ["start -> push"])
    )
    start(db, "case")
    run_all(db)
    db.execute("select stellwerk.set_retention(runs => '0')")
    assert house(db)["removed"] == {"runs": 1}
    assert count(db, "backoffice_case") == 1


def test_events_go_with_their_runs_or_by_a_rule_of_their_own(db, make_workflow, run_all):
    make_workflow(on_row())
    make_workflow(document("never", [node("row", "trigger.row")], []), publish=False)
    db.execute(ORDERS)
    watch(db)
    watch(db, workflow="never")
    db.execute("insert into orders (total) values (20), (30)")
    run_all(db)
    assert count(db, "event", "state = 'processed'") == 2
    assert count(db, "event", "state = 'ignored'") == 2
    db.execute(
        "update stellwerk.event_log set created_at = now() - interval '5 days', processed_at = now() - interval '5 days'"
    )
    first = db.execute("select min(run_id) from stellwerk.run").fetchone()[0]
    ended(db, first, "5 days")
    db.execute("select stellwerk.set_retention(runs => '3 days')")
    assert house(db)["removed"] == {"runs": 1, "events": 2}
    assert db.execute("select state from stellwerk.event").fetchall() == [("processed",)]
    db.execute("select stellwerk.set_retention(events => '3 days')")
    assert house(db)["removed"] == {"events": 1}
    assert count(db, "run") == 1


def test_a_pending_event_is_never_removed(db, make_workflow):
    make_workflow(on_row())
    db.execute(ORDERS)
    watch(db)
    db.execute("insert into orders (total) values (20)")
    db.execute("update stellwerk.event_arrival set created_at = now() - interval '5 days'")
    db.execute("select stellwerk.set_retention(runs => '1 day', events => '1 day')")
    house(db)
    assert count(db, "event") == 1


def test_the_audit_log_and_old_signals_are_pruned(db, make_workflow):
    make_workflow(LINEAR)
    db.execute("select stellwerk.signal('paid', '1')")
    db.execute("select stellwerk.signal('paid', '2')")
    db.execute("update stellwerk.signal set created_at = now() - interval '8 days' where correlation = '1'")
    assert house(db)["removed"] == {"signals": 1}
    rows = count(db, "audit_log")
    db.execute("select stellwerk.set_retention(audit => '1 hour')")
    house(db)
    assert count(db, "audit_log") == rows + 1  # the policy itself
    db.execute("select stellwerk.set_retention(audit => '0')")
    assert house(db)["removed"]["audit"] == rows + 2
    assert db.execute("select action, subject from stellwerk.audit_log").fetchall() == []


def test_orders_go_after_the_runs_that_they_were_for(db, make_workflow, run_all):
    slow = [START, node("wait", "logic.wait", {"for": "P1D"})]
    make_workflow(document("slow", slow, ["start -> wait"]))
    make_workflow(document("slow", slow, ["start -> wait"], name="Slow"))
    run_id = start(db, "slow")
    run_all(db)
    db.execute("update stellwerk.run set version = 1")
    db.execute("update stellwerk.step set version = 1")
    assert db.execute("select verdict from stellwerk.migrate_runs('slow', 1, 2, dry_run => false)").fetchall() == [("ok",)]  # fmt: skip
    db.execute("""select stellwerk.start_bulk_operation('cancel', '{"workflow": "slow"}', dry_run => false)""")
    while db.execute("select stellwerk.tick() -> 'more'").fetchone() == (True,):
        pass
    run_all(db)
    assert run(db, run_id)["state"] == "cancelled"
    assert (count(db, "version_move"), count(db, "bulk_operation", "ended_at is not null")) == (1, 1)
    db.execute(
        "update stellwerk.version_move set started_at = now() - interval '40 days', ended_at = now() - interval '40 days'"
    )
    db.execute("update stellwerk.bulk_operation set ended_at = now() - interval '40 days'")
    db.execute("select stellwerk.set_retention(runs => '30 days')")
    assert house(db)["removed"] == {}  # the run is younger than they are
    ended(db, run_id, "31 days")
    assert house(db)["removed"] == {"runs": 1, "orders": 2}
    assert (count(db, "version_move"), count(db, "bulk_operation"), count(db, "run_migration")) == (0, 0, 0)


def test_young_orders_and_those_without_a_policy_stay(db, make_workflow):
    make_workflow(LINEAR)
    make_workflow({**LINEAR, "name": "Again", "settings": {"retention": "P10D"}})
    db.execute("""
        insert into stellwerk.version_move (tenant_id, workflow_id, from_version, to_version, started_by, started_at)
        select 1, 1, 1, 2, 'u', now() - ago from unnest(array[interval '9 days', '11 days', '40 days']) ago""")
    db.execute("""
        insert into stellwerk.bulk_operation (tenant_id, action, filter, created_by, state, created_at, started_at)
        select 1, 'cancel', '{}', 'u', state, now() - interval '40 days', now() from unnest(array['draft', 'running']) state""")
    assert house(db)["removed"] == {"orders": 2}  # by the workflow's own retention
    db.execute("select stellwerk.set_retention(runs => '30 days')")
    assert house(db)["removed"] == {"orders": 1}
    assert db.execute("select state from stellwerk.bulk_operation").fetchall() == [("running",)]
    assert count(db, "version_move") == 1


def test_a_policy_is_a_tenants_own(db, make_workflow, run_all):
    make_workflow(LINEAR)
    start(db, "linear")
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other'); set stellwerk.tenant = 'other'")
    make_workflow(LINEAR)
    start(db, "linear")
    run_all(db)
    db.execute("select stellwerk.set_retention(runs => '0')")
    db.execute("reset stellwerk.tenant")
    assert house(db)["removed"] == {"runs": 1}
    assert db.execute("select tenant_id from stellwerk.run").fetchall() == [(1,)]
    with pytest.raises(psycopg.Error) as refused:
        db.execute("select stellwerk.set_retention(runs => '-1 day')")
    assert refused.value.sqlstate == "SW008"


def test_the_queues_log_is_pruned(db, dsn, make_workflow, run_all):
    make_workflow(document("work", [START, call("a")], ["start -> a"]))
    start(db, "work")
    run_all(db)
    db.execute("update stellwerk_queue.pgqueuer_log set created = now() - interval '2 hours'")
    assert house(db)["queue_log"] == 1
    assert db.execute("select count(*) from stellwerk_queue.pgqueuer_log").fetchone() == (0,)


# -- how it goes ------------------------------------------------------------------------------------------------------


def test_much_is_removed_in_calls_of_bounded_length(db, make_workflow):
    make_workflow(LINEAR)
    many_ended_runs(db, 6000)
    db.execute("analyze stellwerk.run, stellwerk.step")
    db.execute("select stellwerk.set_retention(runs => '1 hour')")
    answers = [house(db, 20)]
    while answers[-1]["more"]:
        answers.append(house(db, 20))
        assert len(answers) < 500
    assert sum(answer["removed"].get("runs", 0) for answer in answers) == 6000
    assert len(answers) > 3
    assert count(db, "run") == count(db, "step") == count(db, "retention_progress") == 0


def test_one_run_with_very_many_steps_goes_in_pieces(db, make_workflow):
    make_workflow(LINEAR)
    many_ended_runs(db, 1)
    db.execute("""
        insert into stellwerk.step (tenant_id, run_id, node_id, visit, version, type, runs_in, state, ended_at)
        select 1, (select run_id from stellwerk.run), 'again', n, 1, 'logic.transform', 'sql', 'completed', now() from generate_series(1, 25000) n
    """)
    db.execute("select stellwerk.set_retention(runs => '1 hour')")
    first = house(db)
    assert (first["removed"], first["more"]) == ({}, True)
    assert 0 < count(db, "step") < 25_003
    while house(db)["more"]:
        pass
    assert count(db, "run") == count(db, "step") == 0


def test_runs_with_many_steps_go_in_halves(db, make_workflow):
    make_workflow(LINEAR)
    many_ended_runs(db, 3)
    db.execute("""
        insert into stellwerk.step (tenant_id, run_id, node_id, visit, version, type, runs_in, state, ended_at)
        select 1, r.run_id, 'again', n, 1, 'logic.transform', 'sql', 'completed', now() from stellwerk.run r, generate_series(1, 9000) n
    """)
    db.execute("select stellwerk.set_retention(runs => '1 hour')")
    assert house(db)["removed"] == {"runs": 3}
    assert count(db, "step") == 0


def test_a_run_that_somebody_holds_is_passed_over(db, dsn, make_workflow, run_all):
    make_workflow(LINEAR)
    held, free = start(db, "linear"), start(db, "linear")
    run_all(db)
    db.execute("select stellwerk.set_retention(runs => '0')")
    with psycopg.connect(dsn) as other:
        other.execute("select from stellwerk.run where run_id = %s for update", (held,))
        assert house(db)["removed"] == {"runs": 1}
        assert db.execute("select run_id from stellwerk.run").fetchall() == [(held,)]
        assert free != held
    assert house(db)["removed"] == {"runs": 1}


def test_a_run_that_is_retried_meanwhile_stays(db, make_workflow, run_all):
    """Candidates are looked for without locks; under the lock it is looked again."""
    make_workflow(document("fails", [START, node("no", "logic.stop", {"outcome": "failed"})], ["start -> no"]))
    run_id = start(db, "fails")
    run_all(db)
    db.execute("select stellwerk.retry_run(%s)", (run_id,))
    removed = db.execute(
        "select removed from stellwerk.remove_runs(1, array[%s]::bigint[], now(), true, now() + interval '1 minute')",
        (run_id,),
    ).fetchone()
    assert removed == (0,)
    run_all(db)
    assert run(db, run_id)["state"] == "failed"


def test_two_do_not_keep_house_at_once_and_a_session_does_it_seldom(db, dsn):
    with psycopg.connect(dsn) as other:
        assert other.execute("select stellwerk.keep_house(true)").fetchone()[0] is not None
        assert house(db) is None
    assert db.execute("select stellwerk.keep_house()").fetchone()[0] is not None
    assert db.execute("select stellwerk.keep_house()").fetchone()[0] is None
    assert db.execute("select stellwerk.tick() -> 'housekeeping'").fetchone()[0] is None
    with psycopg.connect(dsn, autocommit=True) as other:
        kept = other.execute("select stellwerk.tick() -> 'housekeeping'").fetchone()[0]
        assert kept["more"] is False
    with pytest.raises(psycopg.Error) as refused:
        house(db, 0)
    assert refused.value.sqlstate == "SW008"


def test_a_worker_and_a_dba_may_keep_house_with_the_owners_rights(db, make_workflow, run_all):
    make_workflow(LINEAR)
    start(db, "linear", {"mail": "ada@example.org"})
    run_all(db)
    use_numbers(db, "event_id_seq", SIZE // 2 + 1)
    for group in ("stellwerk_dba", "stellwerk_worker"):
        db.execute(f"set role {group}")
        if group == "stellwerk_dba":
            db.execute("select stellwerk.forget_subject('mail', 'ada@example.org', dry_run => false)")
            db.execute("select stellwerk.set_retention(runs => '0')")
        answer = house(db)
        assert answer.get("partition") == {"stellwerk_dba": f"made event_log_{SIZE}"}.get(group)
        db.execute("reset role")
    assert count(db, "run") == 0


def test_housekeeping_at_rest_writes_nothing(db, make_workflow, run_all):
    make_workflow(LINEAR)
    start(db, "linear")
    run_all(db)
    db.execute("select stellwerk.set_retention(runs => '1 day', events => '1 day', audit => '1 day')")
    house(db)
    with db.transaction():
        house(db)
        assert db.execute("select pg_current_xact_id_if_assigned()").fetchone() == (None,)
