"""What the tests of migrated runs share."""

from __future__ import annotations

import itertools

from database.helpers import START, call, document, transform


def version(*middle, slug="offer", **more):
    """start -> the given nodes in order -> end, which reads the first of them."""
    nodes = [START, *middle]
    names = [each["id"] for each in nodes]
    return document(slug, nodes, [f"{a} -> {b}" for a, b in itertools.pairwise(names)], **more)


def facts(db, run_id):
    """Everything that a migration may change."""
    return db.execute(
        "select r.version, r.trigger_node, r.aliases, r.recount,"
        " (select jsonb_agg(jsonb_build_array(s.step_id, s.node_id, s.version, s.state, s.attempt, s.visit, s.arrived)"
        "                   order by s.step_id) from stellwerk.step s where s.run_id = r.run_id)"
        " from stellwerk.run r where r.run_id = %s",
        [run_id],
    ).fetchone()


def diamond(second="right", join="both", **more):
    return document(
        "offer",
        [START, call("left"), call(second), transform(join, "joined"), transform("end", "done")],
        ["start -> left", f"start -> {second}", f"left -> {join}", f"{second} -> {join}", f"{join} -> end"],
        **more,
    )


def undo(engine, migration_id=1):
    return [(row["verdict"], row["reason"]) for row in engine.undo_migration(migration_id, dry_run=False)]


def left_over(db, run_id):
    """What must not be left over once a run has ended."""
    return db.execute(
        "select (select count(*) from stellwerk.timer where run_id = %(run)s),"
        " (select count(*) from stellwerk.wait where run_id = %(run)s),"
        " (select count(*) from stellwerk.live_step where run_id = %(run)s)",
        {"run": run_id},
    ).fetchone()
