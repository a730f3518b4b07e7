"""Cases found and handed out: what a search finds, that a page stays cheap, and CSV that is no program."""

from __future__ import annotations

import csv
import io

import pytest
from database.test_case_editing import refused, value

from stellwerk.worker.exports import as_csv

NAMES = ["Anna Berger", "Mira Kowalski", "Jonas O'Weber", "Annette Berg"]
CELLS = [
    *(("-5", "-5"), ("-5.25", "-5.25"), ("7", "7"), ("", ""), ("plain", "plain")),
    *(("=1+1", "'=1+1"), ("+49 30", "'+49 30"), ("@x", "'@x"), ("-x", "'-x"), ("-5-5", "'-5-5"), ("-", "'-")),
    *(
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\nx", "'\nx"),
        ("＝1", "'＝1"),
        ("＋1", "'＋1"),
        ("－1", "'－1"),
        ("＠x", "'＠x"),
    ),
    *(('a,"b"', 'a,"b"'), ('=a,"b"', '\'=a,"b"'), ("two\nlines", "two\nlines"), ("-٥", "'-٥"), ("x=1", "x=1")),
]


@pytest.fixture
def cases(db):
    for number, name in enumerate(NAMES, 1):
        db.execute(
            "insert into stellwerk.backoffice_case (tenant_id, run_id, workflow, payload, summary, status)"
            " values (1, %s, %s, jsonb_build_object('name', %s::text, 'email', %s::text, 'nr', %s::int), %s, %s)",
            (
                number,
                "intake" if number < 4 else "other",
                name,
                f"p{number}@example.org",
                100 + number,
                f"Anfrage {number}",
                "neu" if number % 2 else "offen",
            ),
        )
    return db


def found(db, **filters):
    named = ", ".join(f"{name} => %({name})s" for name in filters)
    return [row[0] for row in db.execute(f"select case_id from stellwerk.search_cases({named})", filters)]


def test_words_are_found_by_their_beginning_in_data_and_texts(cases):
    assert found(cases, words="ann") == [4, 1]
    assert found(cases, words="ANNA berg") == [1]
    assert found(cases, words="103") == [3]
    assert found(cases, words="p2@exa") == [2]
    assert found(cases, words="anfrage 2") == [2]
    assert found(cases, words="o'weber") == [3]
    assert found(cases, words="nowhere") == []
    for odd in ("'", "& | !", "a:*", "\\", "   ", "%", "((", "' & anna"):
        found(cases, words=odd)  # whatever is typed is words, and no query language
    cases.execute('select stellwerk.update_case(2, \'{"note": "ruft zurück"}\')')
    assert found(cases, words="zurück") == [2]


def test_filters_go_together(cases):
    assert found(cases, statuses=["neu"]) == [3, 1]
    assert found(cases, statuses=["neu", "offen"], workflow="intake") == [3, 2, 1]
    assert found(cases, words="ann", workflow="other") == [4]
    assert found(cases, words="ann", statuses=["offen"]) == [4]
    assert found(cases, statuses=[]) == []


def test_pages_hold_every_case_once(cases):
    pages = [found(cases, page=3)]
    while pages[-1]:
        pages.append(found(cases, page=3, before=pages[-1][-1]))
    assert pages == [[4, 3, 2], [1], []]
    assert refused(cases, "stellwerk.search_cases(page => 0)")[0] == "SW002"


@pytest.mark.one_server
def test_a_page_costs_the_same_among_200000_cases(db):
    db.execute("alter table stellwerk.backoffice_case disable trigger user")
    db.execute("""
        insert into stellwerk.backoffice_case (tenant_id, run_id, workflow, payload, summary, status, assignee, search)
        select 1, g, case when g % 50 = 0 then 'rare' else 'intake' end, '{}', 'S', (array['neu', 'offen', 'fertig'])[1 + g % 3],
               case when g % 1000 = 0 then 'ada@example.org' end, to_tsvector('simple', 'name' || g || ' common')
          from generate_series(1, 200000) g""")
    db.execute("alter table stellwerk.backoffice_case enable trigger user")
    db.execute("analyze stellwerk.backoffice_case")
    for filters in (
        "",
        "before => 100000",
        "statuses => '{fertig}', before => 100",
        "statuses => '{fertig,neu}'",
        "statuses => '{nix}'",
        "workflow => 'rare', statuses => '{neu}'",
        "assignee => 'ada@example.org'",
        "words => 'name1999'",
        "words => 'common'",
        "words => 'common name777'",
        "words => 'nowhere'",
    ):
        query = f"explain (analyze, buffers, format json) select * from stellwerk.search_cases({filters})"
        db.execute(query)  # once, for the catalogue's own pages
        ((plan,),) = db.execute(query).fetchall()
        pages = plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        assert pages < 600, f"{filters}: {pages} pages"


# -- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "cell"), CELLS)
def test_a_cell_is_no_formula_and_a_number_stays_one(tx, text, cell):
    written = tx.execute("select stellwerk.csv_cell(%s)", (text,)).fetchone()[0]
    assert next(csv.reader(io.StringIO(f"{written},", newline="")))[0] == cell
    _, row = csv.reader(io.StringIO(as_csv(["x", "y"], [[text, ""]]).decode(), newline=""))
    assert row[0] == cell, "the worker's file is the same"


def test_an_export_has_a_column_for_each_field(cases):
    cases.execute('select stellwerk.update_case(1, \'{"payload": {"=x": "=1", "more, yet": [1]}}\')')
    lines = [row[0] for row in cases.execute("select stellwerk.export_cases(workflow => 'intake')")]
    head, *rows = csv.reader(io.StringIO("\r\n".join(lines), newline=""))
    assert head[:7] == ["case_id", "run_id", "workflow", "status", "assignee", "note", "summary"]
    assert head[7:] == ["created_at", "updated_at", "'=x", "email", "more, yet", "name", "nr"]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert dict(zip(head, rows[0], strict=True)) | {"created_at": "", "updated_at": ""} == {
        **{"case_id": "1", "run_id": "1", "workflow": "intake", "status": "neu", "assignee": "", "note": ""},
        **{"summary": "Anfrage 1", "created_at": "", "updated_at": "", "'=x": "'=1", "email": "p1@example.org"},
        **{"more, yet": "[1]", "name": "Anna Berger", "nr": "101"},
    }
    assert len(rows[1]) == len(head)
    assert value(cases, "count(*) from stellwerk.export_cases('ann')") == 3
