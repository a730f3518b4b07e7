"""One status for many cases, by the rules and with the history of the single change; and the cases that are still open."""

from __future__ import annotations

import psycopg
import pytest
from database.helpers import start, view
from database.people import ADA, act_as, users
from database.test_case_editing import pushing, refused

CASES = "select case_id, status, note, version from stellwerk.backoffice_case order by case_id"
HISTORY = "select case_id, kind, status, note, changes, remark, version, actor from stellwerk.case_history order by history_id"


@pytest.fixture
def four(db, make_workflow, run_all):
    """Cases 1 to 3 of a workflow with statuses, of which 2 is in work and 3 done; 4 is of one without."""
    make_workflow(pushing())
    make_workflow(pushing("free", statuses=None))
    for slug in ("intake", "intake", "intake", "free"):
        start(db, slug)
        run_all(db)
    users(db)
    act_as(db, ADA)
    for case_id, status in ((2, "offen"), (3, "offen"), (3, "fertig")):
        db.execute("select stellwerk.set_case_status(%s, %s)", (case_id, status))
    return db


def together(db, ids, status, note=None):
    return db.execute("select * from stellwerk.set_case_statuses(%s::bigint[], %s, %s)", (ids, status, note)).fetchall()


def test_each_goes_on_or_says_why_not(four):
    answers = together(four, [4, 3, 2, 1, 1, 99, None], "fertig", "erledigt")
    assert [(case_id, version, code) for case_id, version, code, _ in answers] == [
        (1, 1, "SW003"),
        (2, 3, None),
        (3, 4, None),
        (4, 2, None),
        (99, None, "SW007"),
    ]
    assert answers[0][3] == "the case is neu, from which it cannot become fertig"
    assert four.execute(CASES).fetchall() == [
        (1, "neu", None, 1),
        (2, "fertig", "erledigt", 3),
        (3, "fertig", "erledigt", 4),
        (4, "fertig", "erledigt", 2),
    ]
    # Nothing changes twice.
    before = view(four, HISTORY)
    assert [row[1] for row in together(four, [2, 3, 4], "fertig", "erledigt")] == [3, 4, 2]
    assert view(four, HISTORY) == before


def test_the_history_is_that_of_single_changes(four):
    with four.transaction(force_rollback=True):
        for case_id in (2, 4):
            four.execute("select stellwerk.set_case_status(%s, 'fertig', 'gut')", (case_id,))
        single = view(four, HISTORY)
    together(four, [2, 4], "fertig", "gut")
    assert view(four, HISTORY) == single


def test_a_status_that_is_none_and_too_many_are_refused(four):
    assert {row[2] for row in together(four, [1, 2], "unknown")} == {"SW002"}
    assert {row[2] for row in together(four, [1, 4], "")} == {"SW002"}
    assert refused(four, "stellwerk.set_case_statuses('{}', 'neu')")[0] == "SW002"
    assert refused(four, "stellwerk.set_case_statuses(array(select generate_series(1, 1001)), 'neu')")[0] == "SW002"


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("staff", True), ("designer", True), ("operator", True)])
def test_whoever_may_work_may_change_cases(four, role, may):
    act_as(four, "")
    four.execute("select stellwerk.add_user('r@example.org', %s)", (role,))
    act_as(four, "r@example.org")
    calls = (
        "stellwerk.set_case_statuses('{2}', 'fertig')",
        "stellwerk.add_case_note(2, 'x')",
        "stellwerk.assign_case(2, null)",
    )
    for call in calls:
        if may:
            four.execute(f"select {call}")
        else:
            assert refused(four, call)[0] == "SW004"


def test_two_who_change_the_same_cases_do_not_stop_each_other(four, dsn):
    with psycopg.connect(dsn) as other:
        act_as(other, ADA)
        together(other, [2, 4], "fertig")
        four.execute("set lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            together(four, [4, 2], "neu")
        other.commit()
    assert [row[2] for row in together(four, [4, 2], "fertig")] == [None, None]


def test_open_cases_are_those_that_are_not_done_with(four):
    def found(**filters):
        named = ", ".join(f"{name} => %({name})s" for name in filters)
        return [row[0] for row in four.execute(f"select case_id from stellwerk.search_cases({named})", filters)]

    together(four, [4], "fertig")  # which says nothing where nothing is declared
    assert found(still_open=True) == [4, 2, 1]
    assert found(still_open=True, workflow="intake") == [2, 1]
    assert found(still_open=True, page=1) == [4]
    assert found(still_open=True, page=1, before=4) == [2]
    assert found(still_open=True, statuses=["fertig"]) == [4, 3]
    assert found() == [4, 3, 2, 1]
    lines = four.execute("select * from stellwerk.export_cases(still_open => true)").fetchall()
    assert [line[0].split(",")[0] for line in lines] == ["case_id", "1", "2", "4"]
