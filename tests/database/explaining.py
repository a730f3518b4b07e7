"""Small steps that the tests of explanations share."""

from __future__ import annotations

import re
from functools import partial

import psycopg
from database.helpers import START, document, node, transform

from stellwerk.web.reasons import CLAUSES, sentences
from stellwerk.web.texts import translate

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+"

# What a German sentence about a run must not hold: words of the English one, and values that were not there.
LEFT = re.compile(r"\b(the|waits|since|None)\b")


def explain(db, run_id):
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        rows = cursor.execute("select * from stellwerk.explain_run(%s)", (run_id,)).fetchall()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["reason"] == db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    assert all(row["reason"].endswith(".") and row["evidence"] is not None for row in rows)
    run = {
        "run_id": run_id,
        "state": db.execute("select state from stellwerk.run where run_id = %s", (run_id,)).fetchone()[0],
    }
    german = [str(each) for each in sentences(partial(translate, "de"), run, rows, {})]
    for row, sentence in zip(rows, german, strict=True):
        assert row["code"] in CLAUSES, row
        assert sentence.endswith("."), sentence
        assert not LEFT.search(sentence), sentence
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
