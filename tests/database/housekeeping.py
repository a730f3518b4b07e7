"""Small steps that the tests of retention and partitions share."""

from __future__ import annotations

from database.helpers import START, call, document, node, transform

SIZE = 10_000_000
"""How many numbers a range takes."""

LINEAR = document("linear", [START, transform("done", "{{ trigger.payload.n }}")], ["start -> done"])
RICH = document(
    "rich",
    [
        START,
        node("vars", "logic.set", {"values": {"n": 1}}),
        node("note", "log.write", {"message": "hello"}),
        node("each", "logic.loop", {"items": "{{ trigger.payload.items }}"}),
        transform("item", "{{ item }}"),
        call("call", retry={"max_attempts": 2, "interval": "PT0S", "jitter": False}),
    ],
    ["start -> vars", "vars -> note", "note -> each", "each.each -> item", "each.done -> call"],
    settings={"timeout": "P7D"},
)


def house(db, milliseconds=10_000):
    return db.execute("select stellwerk.keep_house(true, %s)", (milliseconds,)).fetchone()[0]


def partitions(db, parent=None):
    rows = db.execute(
        "select parent, partition, lower, upper from stellwerk.partitions() order by 1, is_default, 3 nulls first"
    ).fetchall()
    return [row[1:] for row in rows if row[0] == parent] if parent else rows


def count(db, table, where="true"):
    return db.execute(f"select count(*) from stellwerk.{table} where {where}").fetchone()[0]


def use_numbers(db, sequence, number):
    db.execute("select setval(%s, %s)", (f"stellwerk.{sequence}", number))


def keep_partitions(db):
    """What is done until there is nothing left to do, one thing per call."""
    done = []
    while (answer := db.execute("select stellwerk.keep_partitions()").fetchone()[0]) is not None:
        done.append(answer)
        assert len(done) < 100
    return done


def many_ended_runs(db, number):
    db.execute("""
        insert into stellwerk.run (tenant_id, workflow_id, version, trigger_node, state, source, created_at, ended_at, created_by)
        select 1, 1, 1, 'start', 'completed', 'sql', now() - interval '1 day', now() - interval '1 day', 'db:x' from generate_series(1, %s)
    """, (number,))  # fmt: skip
    db.execute("""
        insert into stellwerk.step (tenant_id, run_id, node_id, version, type, runs_in, state, ended_at)
        select 1, r.run_id, 'n' || n, 1, 'logic.transform', 'sql', 'completed', now() from stellwerk.run r, generate_series(1, 3) n
    """)
