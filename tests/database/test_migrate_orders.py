"""Migrations of many runs as orders: batches, going on, undoing, who may, wrong use."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import call, node, refused, run, start, states, transform
from database.migrating import diamond, facts, version

# -- many -----------------------------------------------------------------------------------------------------------------


def test_runs_are_moved_in_batches_that_continue_each_other(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(7)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    first = engine.migrate_runs("offer", 1, 2, dry_run=False, batch=3)
    assert [row["run_id"] for row in first] == runs[:3]
    [number] = {row["migration_id"] for row in first}
    # It is not over, so the same order goes on with it; so does its number.
    second = engine.migrate_runs("offer", 1, 2, dry_run=False, batch=3)
    assert db.execute("select moved, ended_at from stellwerk.migration_progress").fetchall() == [(6, None)]
    third = engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=number)
    assert [row["run_id"] for row in second + third] == runs[3:]
    assert {row["migration_id"] for row in second + third} == {number}
    assert db.execute(
        "select workflow, from_version, to_version, moved, needs_map, blocked, undone, ended_at is null"
        " from stellwerk.migration_progress"
    ).fetchall() == [("offer", 1, 2, 7, 0, 0, 0, False)]
    assert engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=number) == []
    refused(db, "SW007", "select * from stellwerk.migrate_runs('offer', 2, 1, continue_with => %s)", number)


def test_a_thousand_runs_move_in_batches_and_back(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask"), transform("last", "old")))
    db.execute("select stellwerk.start_run('offer') from generate_series(1, 1000)")
    run_all(db)
    make_workflow(version(call("phone"), transform("last", "new")))
    sizes = []
    while rows := engine.migrate_runs("offer", 1, 2, dry_run=False, batch=300):
        assert {row["verdict"] for row in rows} == {"ok"}
        sizes.append(len(rows))
    assert sizes == [300, 300, 300, 100]
    assert db.execute("select count(*), min(version) from stellwerk.run").fetchone() == (1000, 2)
    assert db.execute("select moved from stellwerk.migration_progress").fetchall() == [(1000,)]
    undone = engine.undo_migration(1, dry_run=False, batch=600) + engine.undo_migration(1, dry_run=False)
    assert len({row["run_id"] for row in undone if row["verdict"] == "ok"}) == 1000
    assert db.execute("select max(version), max(recount::int) from stellwerk.run").fetchone() == (1, 0)
    assert db.execute(
        "select distinct node_id, version from stellwerk.live_step join stellwerk.step using (run_id, step_id, node_id)"
    ).fetchall() == [("ask", 1)]
    assert db.execute("select undone from stellwerk.migration_progress").fetchall() == [(1000,)]


def test_a_migration_that_was_killed_goes_on(db, dsn, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(5)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False, batch=2)
    dying = psycopg.connect(dsn)
    dying.execute("select from stellwerk.migrate_runs('offer', 1, 2, dry_run => false, batch => 2)")
    db.execute("select pg_terminate_backend(%s, 10000)", [dying.info.backend_pid])
    dying.close()
    assert [run(db, each)["version"] for each in runs] == [2, 2, 1, 1, 1], "a batch is moved whole or not at all"
    rest = engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert [(row["run_id"], row["migration_id"]) for row in rest] == [(each, 1) for each in runs[2:]]
    # What undoes it undoes all of it.
    assert [row["run_id"] for row in engine.undo_migration(1, dry_run=False)] == runs


def test_another_map_is_another_migration(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    for _ in range(2):
        start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), call("again")))
    first = engine.migrate_runs("offer", 1, 2, dry_run=False, batch=1)
    second = engine.migrate_runs("offer", 1, 2, {"ask": "again"}, dry_run=False, batch=1)
    assert [row["migration_id"] for row in first + second] == [1, 2]
    assert db.execute("select node_map from stellwerk.migration_progress order by migration_id").fetchall() == [
        ({},),
        ({"ask": "again"},),
    ]


def test_what_could_not_be_moved_is_kept_with_its_reason(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(transform("other", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert db.execute("select run_id, verdict, reason, steps is null from stellwerk.run_migration").fetchall() == [
        (
            run_id,
            "blocked",
            "node ask (action.fonio_call) is gone in version 2, and no node there can take its place",
            False,
        )
    ]
    assert engine.undo_migration(1) == []


def test_nothing_to_move_leaves_no_trace(db, engine, make_workflow):
    make_workflow(version(call("ask")))
    make_workflow(version(call("ask"), transform("last", 1)))
    assert engine.migrate_runs("offer", 1, 2, dry_run=False) == []
    assert db.execute("select count(*) from stellwerk.version_move").fetchone() == (0,)


def test_another_tenant_is_not_touched(db, engine, make_workflow, run_all):
    for tenant in ("default", "other"):
        if tenant == "other":
            db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
            db.execute("set stellwerk.tenant = 'other'")
        make_workflow(version(call("ask")))
        start(db, "offer")
        run_all(db)
        make_workflow(version(call("ask"), transform("last", 1)))
    assert len(engine.migrate_runs("offer", 1, 2, dry_run=False)) == 1
    assert db.execute("select count(*) from stellwerk.migration_progress").fetchone() == (1,)
    db.execute("reset stellwerk.tenant")
    assert db.execute("select version from stellwerk.run_overview").fetchall() == [(1,)]
    refused(db, "SW007", "select * from stellwerk.undo_migration(1)")


def test_a_proposal_says_how_each_node_was_found(db, make_workflow):
    make_workflow(version(transform("price", 7), call("ask"), node("gone", "log.write", {"message": "m"})))
    make_workflow(version(transform("amount", 7), call("ask"), call("again")))
    query = "select * from stellwerk.propose_node_map('offer', 1, 2"
    assert db.execute(query + ")").fetchall() == [
        ("start", "trigger.manual", "start", "same"),
        ("price", "logic.transform", "amount", "renamed"),
        ("ask", "action.fonio_call", "ask", "same"),
        ("gone", "log.write", None, "none"),
    ]
    assert db.execute(query + """, '{"ask": "again", "price": null}')""").fetchall()[1:3] == [
        ("price", "logic.transform", None, "given"),
        ("ask", "action.fonio_call", "again", "given"),
    ]
    refused(db, "SW007", query + """, '{"asked": "ask"}')""")


# -- undoing ---------------------------------------------------------------------------------------------------------------


def test_undoing_puts_everything_back(db, engine, make_workflow, run_all, worker):
    make_workflow(diamond())
    waiting, held = start(db, "offer"), start(db, "offer", run_at="2100-01-01")
    run_all(db)
    left, right = worker.begin()
    worker.end(right)
    before = [facts(db, each) for each in (waiting, held)]
    make_workflow(diamond(second="other", join="meet"))
    moved = engine.migrate_runs("offer", 1, 2, dry_run=False)
    number = moved[0]["migration_id"]
    assert facts(db, waiting) != before[0]
    expected = [{"run_id": each, "verdict": "ok", "reason": None} for each in (waiting, held)]
    assert engine.undo_migration(number) == expected
    assert facts(db, waiting)[0] == 2, "a dry run changes nothing"
    assert engine.undo_migration(number, dry_run=False, batch=1) == expected[:1]
    assert engine.undo_migration(number, dry_run=False) == expected[1:]
    assert engine.undo_migration(number, dry_run=False) == []
    assert [facts(db, each) for each in (waiting, held)] == before
    assert db.execute(
        "select count(*), count(undone_at), count(undone_by) from stellwerk.run_migration"
    ).fetchone() == (
        2,
        2,
        2,
    )
    worker.end(left)
    assert (run(db, waiting)["output"], "both" in states(db, waiting)) == ("done", True)


@pytest.mark.parametrize(
    ("move", "reason"),
    [
        (lambda db, worker, run_id: worker.begin(), "node phone is running, attempt 1, and was queued, attempt 0"),
        (lambda db, worker, run_id: worker.end(*worker.begin()), "node phone was left since"),
        (
            lambda db, worker, run_id: db.execute("select stellwerk.cancel_run(%s)", [run_id]),
            "the run has ended as cancelled",
        ),
        (
            lambda db, worker, run_id: db.execute(
                "select from stellwerk.migrate_runs('offer', 2, 1, dry_run => false)"
            ),
            "the run has been moved to another version since",
        ),
    ],
    ids=["begun", "ended", "cancelled", "moved again"],
)
def test_a_run_that_has_moved_since_stays(db, engine, make_workflow, run_all, worker, move, reason):
    make_workflow(version(call("ask"), call("next")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("phone"), call("next")))
    [row] = engine.migrate_runs("offer", 1, 2, dry_run=False)
    move(db, worker, run_id)
    after = facts(db, run_id)
    for dry_run in (True, False):
        assert engine.undo_migration(row["migration_id"], dry_run=dry_run) == [
            {"run_id": run_id, "verdict": "blocked", "reason": reason}
        ]
    assert facts(db, run_id) == after


def test_an_attempt_that_goes_on_all_the_while_does_not_keep_a_run_from_going_back(
    db, engine, make_workflow, run_all, worker
):
    make_workflow(version(call("ask"), transform("last", "old")))
    run_id = start(db, "offer")
    run_all(db)
    taken = worker.begin()
    make_workflow(version(call("phone"), transform("last", "new")))
    [row] = engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert [each["verdict"] for each in engine.undo_migration(row["migration_id"], dry_run=False)] == ["ok"]
    worker.end(*taken)
    assert (run(db, run_id)["output"], states(db, run_id)["ask"]) == ("old", "completed")


def test_what_was_undone_is_not_continued(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    runs = [start(db, "offer") for _ in range(2)]
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False, batch=1)
    engine.undo_migration(1, dry_run=False)
    diag = refused(
        db, "SW003", "select * from stellwerk.migrate_runs('offer', 1, 2, dry_run => false, continue_with => 1)"
    )
    assert "undone" in diag.message_primary
    again = engine.migrate_runs("offer", 1, 2, dry_run=False)
    assert [(row["run_id"], row["migration_id"]) for row in again] == [(each, 2) for each in runs]
    assert {row["verdict"] for row in engine.undo_migration(2, dry_run=False)} == {"ok"}


def test_what_another_migration_has_moved_back_is_not_moved_again_by_the_same(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    engine.migrate_runs("offer", 2, 1, dry_run=False)
    assert engine.migrate_runs("offer", 1, 2, dry_run=False, continue_with=1) == []
    assert run(db, run_id)["version"] == 1
    assert engine.undo_migration(1)[0]["reason"] == "the run has been moved to another version since"
    assert [row["verdict"] for row in engine.undo_migration(2, dry_run=False)] == ["ok"]
    assert [row["verdict"] for row in engine.undo_migration(1, dry_run=False)] == ["ok"], (
        "one after the other, the last first"
    )
    assert (run(db, run_id)["version"], facts(db, run_id)[3]) == (1, False)


def test_the_audit_log_says_who_moved_which_run_and_what_is_kept_goes_with_the_run(db, engine, make_workflow, run_all):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    engine.migrate_runs("offer", 1, 2, dry_run=False)
    engine.undo_migration(1, dry_run=False)
    assert db.execute(
        "select actor, action, before, after from stellwerk.audit_log"
        " where subject = 'run' and subject_id = %s order by audit_id",
        [str(run_id)],
    ).fetchall() == [
        ("db:postgres", "migrate_run", {"version": 1}, {"version": 2, "migration_id": "1"}),
        ("db:postgres", "undo_migration", {"version": 2}, {"version": 1, "migration_id": "1"}),
    ]
    db.execute("select stellwerk.remove_parts(1, array[%(run)s]::bigint[], %(run)s, %(run)s)", {"run": run_id})
    assert db.execute("select count(*) from stellwerk.run_migration").fetchone() == (0,)
    assert db.execute("select moved from stellwerk.migration_progress").fetchall() == [(0,)]


# -- who may --------------------------------------------------------------------------------------------------------------


def test_a_dba_may_move_runs_and_a_worker_may_not(db, make_workflow, run_all):
    make_workflow(version(call("ask")))
    start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    for group, sqlstate in (("stellwerk_worker", "42501"), ("stellwerk_dba", None)):
        name = f"{group}_of_{db.info.dbname}"
        db.execute(f"drop role if exists {name}")
        db.execute(f"create role {name} login in role {group}")
        db.execute(f"set session authorization {name}")
        query = "select verdict from stellwerk.migrate_runs('offer', 1, 2, dry_run => false)"
        if sqlstate:
            refused(db, sqlstate, query)
        else:
            assert db.execute(query).fetchall() == [("ok",)]
            assert db.execute("select judged_by from stellwerk.run_migration").fetchall() == [(f"db:{name}",)]
            assert db.execute("select moved from stellwerk.migration_progress").fetchall() == [(1,)]
            refused(db, "42501", "update stellwerk.run_migration set undone_at = now()")
            assert db.execute("select verdict from stellwerk.undo_migration(1, dry_run => false)").fetchall() == [
                ("ok",)
            ]
        db.execute("reset session authorization")


# -- wrong use ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("'nothing', 1, 2", "SW001", "no workflow"),
        ("'offer', 1, 9", "SW005", "no version 9"),
        ("'offer', 9, 1", "SW005", "no version 9"),
        ("'offer', 1, 1", "SW003", "to itself"),
        ("'offer', 1, 3", "SW003", "draft"),
        ("'offer', 1, 2, '[]'", "SW002", "no object"),
        ("'offer', 1, 2, '{\"ask\": 1}'", "SW002", "no object"),
        ('\'offer\', 1, 2, \'{"start": "ask", "ask": "ask"}\'', "SW002", "two nodes"),
        ("'offer', 1, 2, '{\"asked\": \"ask\"}'", "SW007", "version 1 has no node asked"),
        ("'offer', 1, 2, '{\"ask\": \"phone\"}'", "SW007", "version 2 has no node phone"),
        ("'offer', 1, 2, batch => 0", "SW008", "at least 1"),
        ("'offer', 1, 2, continue_with => 77", "SW007", "no migration 77"),
    ],
)
def test_wrong_use_is_refused(db, make_workflow, arguments, sqlstate, words):
    make_workflow(version(call("ask")))
    make_workflow(version(call("ask"), transform("last", 1)))
    make_workflow(version(call("ask"), transform("last", 2)), publish=False)
    # The arguments are literals of this file.
    diag = refused(db, sqlstate, "select * from stellwerk.migrate_runs(" + arguments + ")")
    assert words in diag.message_primary
    assert diag.message_hint


def test_undoing_what_never_was_is_refused(db):
    assert "no migration 5" in refused(db, "SW007", "select * from stellwerk.undo_migration(5)").message_primary


def test_an_undo_of_no_run_at_all_is_refused(db):
    diag = refused(db, "SW008", "select * from stellwerk.undo_migration(5, batch => 0)")
    assert "at least 1" in diag.message_primary


def test_a_step_on_a_node_that_its_version_does_not_have_is_left_alone(db, make_workflow, run_all, migrate):
    make_workflow(version(call("ask")))
    run_id = start(db, "offer")
    run_all(db)
    make_workflow(version(call("ask"), transform("last", 1)))
    db.execute("update stellwerk.step set node_id = 'ghost' where node_id = 'ask'")
    [(verdict, reason)] = migrate(dry_run=False).values()
    assert verdict == "blocked"
    assert reason.endswith("stands on node ghost, which version 1 does not have")
    assert run(db, run_id)["version"] == 1
