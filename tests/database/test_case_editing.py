"""Cases in the hands of staff: statuses, edits that see each other, notes, appointments, who may, what stays."""

from __future__ import annotations

import psycopg
import pytest
from database.clock import set_clock, tick
from database.helpers import START, document, node, run, start, steps
from database.people import ADA, act_as, users
from psycopg.types.json import Jsonb

STATUSES = [
    {"status": "neu", "label": "Neu", "color": "blue", "next": ["offen"]},
    {"status": "offen", "label": "In Arbeit"},
    {"status": "fertig", "label": "Fertig", "color": "green", "final": True},
]


def pushing(slug="intake", config=None, statuses=STATUSES, **more):
    push = node("push", "action.backoffice_push", {"status": "neu", **(config or {})})
    return {
        **document(slug, [START, push, *more.pop("nodes", [])], ["start -> push", *more.pop("edges", [])]),
        "settings": {"case_statuses": statuses} if statuses else {},
    }


@pytest.fixture
def case(db, make_workflow, run_all):
    """A case with a status of its workflow's set; speaking as one of staff."""
    make_workflow(pushing(config={"field_map": {"name": "{{ trigger.payload.name }}"}, "summary": "Anfrage"}))
    start(db, "intake", {"name": "Anna"})
    run_all(db)
    users(db)
    act_as(db, ADA)
    return db.execute("select case_id from stellwerk.backoffice_case").fetchone()[0]


def value(db, query, *parameters):
    return db.execute(f"select {query}", parameters).fetchone()[0]


def refused(db, query, *parameters):
    with pytest.raises(psycopg.Error) as raised:
        value(db, query, *parameters)
    return raised.value.sqlstate, raised.value.diag.message_primary, raised.value.diag.message_hint


def history(db, *columns):
    found = db.execute(f"select {', '.join(columns)} from stellwerk.case_timeline order by history_id").fetchall()
    return found[1:]  # the first is the workflow's


# -- statuses ---------------------------------------------------------------------------------------------------------


def test_a_workflow_declares_the_statuses_of_its_cases(db, case):
    assert db.execute("select * from stellwerk.case_statuses('intake')").fetchall() == [
        (1, "neu", "Neu", "blue", False, ["offen"]),
        (2, "offen", "In Arbeit", "grey", False, None),
        (3, "fertig", "Fertig", "green", True, []),
    ]
    assert db.execute("select status, label, color, final from stellwerk.case_overview").fetchall() == [
        ("neu", "Neu", "blue", False)
    ]
    assert db.execute("select * from stellwerk.case_statuses('none')").fetchall() == []


def test_staff_go_from_one_status_to_the_next_and_no_other_way(db, case):
    assert refused(db, "stellwerk.set_case_status(%s, 'fertig')", case) == (
        "SW003",
        f"case {case} is neu, from which it cannot become fertig",
        "From here it can become: offen",
    )
    assert refused(db, "stellwerk.set_case_status(%s, 'erledigt')", case) == (
        "SW002",
        "cases of intake have no status 'erledigt'",
        "There are: neu, offen, fertig",
    )
    assert value(db, "stellwerk.set_case_status(%s, 'offen', 'ruft zurück')", case) == 2
    assert value(db, "stellwerk.set_case_status(%s, 'fertig')", case) == 3
    assert refused(db, "stellwerk.set_case_status(%s, 'neu')", case)[::2] == ("SW003", "That status is final.")
    assert value(db, "stellwerk.set_case_status(%s, 'fertig')", case) == 3, "nothing changed"
    assert db.execute("select status, note from stellwerk.backoffice_case").fetchone() == ("fertig", "ruft zurück")


def test_a_workflow_without_a_set_takes_any_status(db, make_workflow, run_all):
    make_workflow(pushing(statuses=None))
    start(db, "intake")
    run_all(db)
    assert value(db, "stellwerk.set_case_status(1, 'irgendwas')") == 2
    assert refused(db, "stellwerk.set_case_status(1, '')")[0] == "SW002"


def test_a_status_that_is_computed_must_be_declared_too(db, make_workflow, run_all):
    make_workflow(pushing(config={"status": "{{ trigger.payload.status }}"}))
    good, bad = start(db, "intake", {"status": "offen"}), start(db, "intake", {"status": "weg"})
    run_all(db)
    assert (run(db, good)["state"], run(db, bad)["state"]) == ("completed", "failed")
    error = run(db, bad)["error"]
    assert (error["class"], error["retryable"]) == ("unknown_status", False)
    assert "declares no case status 'weg': there are neu, offen, fertig" in error["message"]
    assert db.execute("select run_id from stellwerk.backoffice_case").fetchall() == [(good,)]


# -- edits ------------------------------------------------------------------------------------------------------------


def test_who_edits_what_somebody_else_has_changed_is_told(db, case):
    assert value(db, 'stellwerk.update_case(%s, \'{"note": "a"}\', 1)', case) == 2
    state, message, hint = refused(db, 'stellwerk.update_case(%s, \'{"note": "b"}\', 1)', case)
    assert (state, message) == ("SW005", f"case {case} has changed meanwhile: it is version 2 now, not 1")
    assert hint == "Look at it again, then decide."
    assert db.execute("select note, version from stellwerk.backoffice_case").fetchone() == ("a", 2)


def test_a_change_by_the_workflow_counts_as_well(db, make_workflow, run_all):
    more = node("more", "action.backoffice_status_update", {"status": "offen"})
    make_workflow(pushing(nodes=[more], edges=["push -> more"]))
    start(db, "intake")
    run_all(db)
    assert refused(db, 'stellwerk.update_case(1, \'{"note": "b"}\', 1)')[0] == "SW005"


def test_fields_are_merged_and_null_removes_one(db, case):
    db.execute("select stellwerk.update_case(%s, %s)", (case, Jsonb({"payload": {"phone": "030", "name": None}})))
    assert db.execute("select payload, summary from stellwerk.backoffice_case").fetchone() == (
        {"phone": "030"},
        "Anfrage",
    )


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ("[]", "SW002"),
        ('{"run_id": 5}', "SW002"),
        ('{"note": 5}', "SW002"),
        ('{"payload": []}', "SW002"),
        ('{"status": null}', "SW002"),
        ('{"assignee": "nobody@example.org"}', "SW007"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(db, case, changes, state):
    assert refused(db, "stellwerk.update_case(%s, %s)", case, changes)[0] == state
    assert db.execute("select version from stellwerk.backoffice_case").fetchone() == (1,)
    assert refused(db, "stellwerk.update_case(99, '{}')")[0] == "SW007"


def test_somebody_is_in_charge(db, case):
    assert value(db, "stellwerk.assign_case(%s, %s)", case, ADA.upper()) == 2
    assert db.execute("select case_id from stellwerk.search_cases(assignee => %s)", (ADA,)).fetchall() == [(case,)]
    assert value(db, "stellwerk.assign_case(%s, 'role:staff')", case) == 3
    assert value(db, "stellwerk.assign_case(%s, null)", case) == 4
    assert db.execute("select assignee from stellwerk.case_overview").fetchone() == (None,)


def test_the_history_has_every_change_with_who_and_what(db, case):
    db.execute(
        "select stellwerk.update_case(%s, %s, 1, 'am Telefon')",
        (case, Jsonb({"status": "offen", "payload": {"phone": "030"}})),
    )
    db.execute("select stellwerk.add_case_note(%s, '  ruft morgen an ')", (case,))
    assert history(db, "actor", "kind", "status", "changes", "remark", "version", "run_id") == [
        (
            ADA,
            "change",
            "offen",
            {"status": {"from": "neu", "to": "offen"}, "payload.phone": {"from": None, "to": "030"}},
            "am Telefon",
            2,
            None,
        ),
        (ADA, "note", "offen", {}, "ruft morgen an", 2, None),
    ]
    first = db.execute("select changes, node_id from stellwerk.case_timeline order by history_id").fetchone()
    assert first == (
        {
            "status": {"from": None, "to": "neu"},
            "summary": {"from": None, "to": "Anfrage"},
            "payload.name": {"from": None, "to": "Anna"},
        },
        "push",
    )
    assert refused(db, "stellwerk.add_case_note(%s, '  ')", case)[0] == "SW002"


def test_what_staff_change_is_audited(db, case):
    db.execute("select stellwerk.set_case_status(%s, 'offen')", (case,))
    number = value(db, "stellwerk.add_case_appointment(%s, 'Termin', now())", case)
    assert db.execute(
        "select actor, action, subject, subject_id, after from stellwerk.audit_overview"
        " where subject in ('backoffice_case', 'case_appointment') order by audit_id"
    ).fetchall()[0] == (ADA, "update", "backoffice_case", str(case), {"status": "offen"})
    assert value(db, "subject_id from stellwerk.audit_overview where subject = 'case_appointment'") == str(number)


def test_only_staff_may(db, case):
    act_as(db, None)
    db.execute("select stellwerk.add_user('v@example.org', 'viewer')")
    for somebody in ("v@example.org", "stranger@example.org"):
        act_as(db, somebody)
        for call in ("set_case_status(1, 'offen')", "add_case_note(1, 'x')", "add_case_appointment(1, 'x', now())"):
            state, message, _ = refused(db, f"stellwerk.{call}")
            assert (state, message) == ("SW004", f"{somebody} may not change cases")


# -- appointments -----------------------------------------------------------------------------------------------------


def test_appointments_are_made_moved_and_cancelled(db, case):
    number = value(
        db,
        "stellwerk.add_case_appointment(%s, 'Gespräch', '2031-05-01 10:00Z', '2031-05-01 10:30Z', 'Zimmer 3')",
        case,
    )
    assert value(db, "stellwerk.move_case_appointment(%s, '2031-05-02 09:00Z', version => 1)", number) == 2
    assert db.execute(
        "select starts_at = '2031-05-02 09:00Z', ends_at = '2031-05-02 09:30Z', location, created_by"
        " from stellwerk.case_appointment"
    ).fetchone() == (True, True, "Zimmer 3", ADA)
    move = "stellwerk.move_case_appointment(%s, '2031-05-03 09:00Z', version => 1)"
    assert refused(db, move, number)[0] == "SW005"
    assert refused(db, "stellwerk.move_case_appointment(%s, null)", number)[0] == "SW002"
    db.execute("select stellwerk.cancel_case_appointment(%s, 'krank')", (number,))
    assert refused(db, "stellwerk.cancel_case_appointment(%s)", number)[0] == "SW007"
    told = history(db, "kind", "actor", "remark", "changes -> 'appointment.starts_at'")
    assert [entry[:3] for entry in told] == [
        ("appointment", ADA, None),
        ("appointment", ADA, None),
        ("appointment", ADA, "krank"),
    ]
    assert [(bool(change["from"]), bool(change["to"])) for *_, change in told] == [
        (False, True),
        (True, True),
        (True, False),
    ]


def test_a_workflow_keeps_one_appointment_under_a_key(db, make_workflow, run_all):
    at = {"title": "Besuch", "starts_at": "{{ trigger.payload.at }}", "ends_at": None}
    again = node("again", "action.backoffice_push", {"appointment": {"starts_at": "{{ trigger.payload.then }}"}})
    make_workflow(pushing(config={"appointment": at}, nodes=[again], edges=["push -> again"]))
    moved = start(db, "intake", {"at": "2031-05-01T10:00:00Z", "then": "2031-05-02T10:00:00Z"})
    gone = start(db, "intake", {"at": "2031-05-01T10:00:00Z"})
    wrong = start(db, "intake", {"at": "soon"})
    run_all(db)
    assert db.execute(
        "select c.run_id, a.starts_at = '2031-05-02 10:00Z', a.created_by from stellwerk.case_appointment a"
        " join stellwerk.backoffice_case c using (case_id)"
    ).fetchall() == [(moved, True, f"run:{moved}")]
    outputs = {step["node_id"]: step["output"] for step in steps(db, moved)}
    assert outputs["push"]["appointment_id"] == outputs["again"]["appointment_id"]
    assert {step["node_id"]: step["output"] for step in steps(db, gone)}["again"]["appointment_id"] is None
    assert "is no time" in run(db, wrong)["error"]["message"]


def test_a_wait_follows_an_appointment_that_staff_move_and_cancel(db, make_workflow, run_all):
    db.execute("select stellwerk.register_table('stellwerk.case_appointment', 'case_appointment', 'tenant_id')")
    wait = node(
        "before",
        "timer.reminder_call",
        {
            "at": {
                "table": "case_appointment",
                "key": "{{ steps.push.output.appointment_id }}",
                "column": "starts_at",
            }
        },
    )
    off = node("off", "action.backoffice_status_update", {"status": "fertig"})
    make_workflow(
        pushing(
            config={"appointment": {"starts_at": "{{ trigger.payload.at }}"}},
            nodes=[wait, off],
            edges=["push -> before", "before.gone -> off"],
        )
    )
    for _ in range(2):
        start(db, "intake", {"at": "2091-05-03T10:00:00Z"})
    run_all(db)
    users(db)
    act_as(db, ADA)
    first, second = (row[0] for row in db.execute("select appointment_id from stellwerk.case_appointment order by 1"))
    db.execute("select stellwerk.move_case_appointment(%s, '2091-06-03 10:00Z')", (first,))
    db.execute("select stellwerk.cancel_case_appointment(%s)", (second,))
    run_all(db)
    tick(db)
    assert value(db, "due_at = '2091-06-02 10:00Z' from stellwerk.timer") is True
    assert value(db, "count(*) from stellwerk.backoffice_case where status = 'fertig'") == 1
    set_clock(db, value(db, "timestamptz '2091-06-02 10:00Z'"))
    tick(db)
    run_all(db)
    assert [row[0] for row in db.execute("select state from stellwerk.run")] == ["completed"] * 2


def test_no_other_table_of_ours_can_be_registered(db):
    assert refused(db, "stellwerk.register_table('stellwerk.backoffice_case')")[0] == "SW006"
    assert refused(db, "stellwerk.register_table('stellwerk.case_appointment', 'a')")[0] == "SW006"


# -- a person's data, tenants -----------------------------------------------------------------------------------------


def test_a_forgotten_person_stands_nowhere_in_the_case(db, case):
    db.execute("select stellwerk.update_case(%s, %s, null, 'Anna rief an')", (case, Jsonb({"note": "Anna ist krank"})))
    db.execute("select stellwerk.add_case_note(%s, 'Anna kommt')", (case,))
    number = value(db, "stellwerk.add_case_appointment(%s, 'Anna', now(), null, 'bei Anna')", case)
    gone = value(db, "stellwerk.add_case_appointment(%s, 'Anna', now())", case)
    db.execute("select stellwerk.cancel_case_appointment(%s, 'Anna will nicht')", (gone,))
    act_as(db, None)
    db.execute("select * from stellwerk.forget_subject('name', 'Anna', false)")
    for table in ("backoffice_case", "case_history", "case_appointment", "audit_log"):
        rows = db.execute(f"select row_to_json(t)::text from stellwerk.{table} t").fetchall()
        assert not [row for (row,) in rows if "Anna" in row or "anna" in row], table
    assert value(db, "count(*) from stellwerk.case_history where case_id = %s", case) == 6
    assert value(db, "title from stellwerk.case_appointment where appointment_id = %s", number) == "forgotten"


def test_tenants_never_meet(db, case, make_workflow, run_all):
    act_as(db, None)
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute("select set_config('stellwerk.tenant', 'other', false)")
    assert db.execute("select * from stellwerk.search_cases()").fetchall() == []
    assert db.execute("select * from stellwerk.case_overview").fetchall() == []
    assert db.execute("select * from stellwerk.case_timeline").fetchall() == []
    assert db.execute("select count(*) from stellwerk.export_cases()").fetchone() == (1,)
    assert refused(db, "stellwerk.set_case_status(%s, 'offen')", case)[0] == "SW007"
