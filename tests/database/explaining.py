"""Small steps that the tests of explanations share."""

from __future__ import annotations

import re

import psycopg
from database.helpers import START, document, node, transform

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+"


def explain(db, run_id):
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute("select * from stellwerk.explain_run(%s)", (run_id,)).fetchall()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["reason"] == db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    assert all(row["reason"].endswith(".") and row["evidence"] is not None for row in rows)
    return rows


def first(db, run_id):
    return explain(db, run_id)[0]


def matches(text, pattern):
    assert re.fullmatch(pattern.replace("TIME", TIME), text), text


def wait_workflow(make_workflow, slug="waits", **config):
    return make_workflow(
        document(
            slug, [START, node("hold", "logic.wait", config), transform("end", 1)], ["start -> hold", "hold -> end"]
        )
    )
