"""Users, and who stands in for them."""

from __future__ import annotations

import pytest
from database.people import ADA, BEN, CAT, act_as, ask, complete, deciding, refused, told, users


def test_who_is_away_is_stood_in_for(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("away", {"assignee": ADA}))
    _, before = ask(db, slug, None, run_all)
    act_as(db, ADA)
    db.execute("select stellwerk.set_absence(%s, now() + interval '3 days', %s)", (ADA, BEN))
    with refused("SW004", "may not say when ben"):
        db.execute("select stellwerk.set_absence(%s, null, null)", (BEN,))
    act_as(db, None)
    run_id, after = ask(db, slug, None, run_all)
    assert told(db)[-2:] == [(ADA, "Task: Please decide"), (BEN, "Task: Please decide")]
    assert "who is away, or ben" in db.execute("select stellwerk.why(%s)", (run_id,)).fetchone()[0]
    act_as(db, BEN)
    assert db.execute("select id from stellwerk.my_task order by id").fetchall() == [(before,), (after,)]
    assert complete(db, before, "approve") == "completed"
    act_as(db, ADA)
    db.execute("select stellwerk.set_absence(%s, absent_from => null)", (ADA,))
    act_as(db, BEN)
    with refused("SW004"):
        complete(db, after, "approve")


def test_a_stand_in_who_is_away_hands_on_and_circles_end(db, make_workflow, run_all):
    users(db)
    slug = make_workflow(deciding("chain", {"assignee": ADA}))
    for who, delegate in ((ADA, BEN), (BEN, CAT), (CAT, ADA)):
        db.execute("select stellwerk.set_absence(%s, null, %s)", (who, delegate))
    _, task_id = ask(db, slug, None, run_all)
    assert told(db)[-1] == (CAT, "Task: Please decide")
    act_as(db, BEN)
    assert complete(db, task_id, "approve") == "completed"


@pytest.mark.parametrize(
    ("call", "sqlstate"),
    [
        ("set_absence('ada@example.org', '2020-01-01', null, '2020-02-01')", "SW002"),
        ("set_absence('ada@example.org', null, 'Ada@example.org')", "SW002"),
        ("set_absence('ada@example.org', null, 'nobody@example.org')", "SW007"),
        ("set_absence('nobody@example.org')", "SW007"),
        ("add_user('ada@example.org', 'staff')", "SW003"),
        ("add_user('new@example.org', 'staff', login => 'taken')", "SW003"),
        ("add_user('new@example.org', 'king')", "SW002"),
        ("add_user('new@example.org', null)", "SW002"),
        ("add_user('new', 'staff')", "SW002"),
        ("add_user(null, 'staff')", "SW002"),
        ("change_user('nobody@example.org', 'staff')", "SW007"),
        ("change_user('ada@example.org', 'king')", "SW002"),
        ("change_user('ada@example.org', login => 'taken')", "SW003"),
    ],
)
def test_users_are_checked(db, call, sqlstate):
    users(db)
    db.execute("select stellwerk.change_user(%s, login => 'taken')", (CAT,))
    with refused(sqlstate):
        db.execute(f"select stellwerk.{call}")


def test_users_are_managed_by_admins(db):
    users(db)
    act_as(db, ADA)
    for call in ("add_user('new@example.org', 'admin')", f"change_user('{ADA}', 'admin')"):
        with refused("SW004", "may not manage users"):
            db.execute(f"select stellwerk.{call}")
    act_as(db, CAT)
    db.execute("select stellwerk.add_user('New@example.org', 'viewer', 'Nina New', groups => '{board}')")
    db.execute("select stellwerk.change_user('new@example.org', 'operator', name => '', mails => false)")
    found = db.execute(
        "select email, name, role, groups, mails, created_by from stellwerk.app_user where email like 'new%'"
    ).fetchone()
    assert found == ("new@example.org", None, "operator", ["board"], False, CAT)
    act_as(db, None)
    log = db.execute(
        "select actor, action from stellwerk.audit_log where subject = 'app_user' and subject_id = 'new@example.org' order by audit_id"
    ).fetchall()
    assert log == [(CAT, "insert"), (CAT, "update")]
