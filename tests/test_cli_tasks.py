"""`stellwerk task` and `stellwerk user`: listed, shown, decided, handed over."""

from __future__ import annotations

import json

from database.helpers import run
from database.people import ADA, BEN, act_as, ask, asking, deciding, users

FORM = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}}


def test_tasks_are_listed_shown_and_completed(stellwerk, dsn, db, make_workflow, run_all):
    assert stellwerk("task", "list", dsn=dsn) == (0, "There are no such tasks.\n", "")
    users(db)
    run_id, task_id = ask(
        db, make_workflow(deciding("cli", {"role": "staff", "form": FORM, "due": "P2D"})), None, run_all
    )
    status, out, _ = stellwerk("task", "list")
    assert status == 0
    assert out.splitlines()[0].split() == ["task_id", "title", "state", "for", "due_at", "workflow", "run_id"]
    assert out.splitlines()[1].split()[:6] == [str(task_id), "Please", "decide", "open", "role", "staff"]
    (row,) = json.loads(stellwerk("task", "list", "--json")[1])
    assert (row["task_id"], row["run_id"], row["role"], row["overdue"]) == (str(task_id), str(run_id), "staff", False)
    assert stellwerk("task", "list", "--overdue")[1] == "There are no such tasks.\n"
    assert stellwerk("task", "list", "--user", ADA)[1] == "There are no such tasks.\n"
    act_as(db, ADA)
    db.execute(
        "select stellwerk.comment_task(%s, 'Hm.'), stellwerk.attach_to_task(%s, 'a.pdf', 'files/7')", (task_id, task_id)
    )
    status, out, _ = stellwerk("task", "show", str(task_id))
    assert out.splitlines()[0] == f"task {task_id}: Please decide"
    assert "  state: open" in out
    assert '  outcomes: ["approve", "reject"]' in out
    assert f"  {ADA} wrote: Hm." in out
    assert f"  {ADA} attached a.pdf: files/7" in out
    status, out, err = stellwerk("task", "complete", str(task_id), "--result", "{}", "--outcome", "approve")
    assert (status, out) == (1, "")
    assert err.splitlines() == [
        f"error: the result does not fit the form of task {task_id}",
        "  amount is required",
        "hint: The form is a JSON Schema: select form from stellwerk.my_task.",
    ]
    said = stellwerk("task", "complete", str(task_id), "--result", '{"amount": 3}', "--outcome", "approve")
    assert said == (0, f"Task {task_id} is completed.\n", "")
    status, _, err = stellwerk("task", "complete", str(task_id), "--result", '{"amount": 3}', "--outcome", "reject")
    assert (status, err.splitlines()[0]) == (
        1,
        f"error: task {task_id} is completed already: db:postgres decided approve",
    )
    run_all(db)
    assert run(db, run_id)["output"]["result"] == {"amount": 3}
    shown = json.loads(stellwerk("task", "show", str(task_id), "--json")[1])
    assert (shown["state"], shown["outcome"], shown["given"][0]["actor"]) == ("completed", "approve", "db:postgres")
    assert len(stellwerk("task", "list", "--state", "completed")[1].splitlines()) == 2
    assert stellwerk("task", "list", "--state", "lost")[0] == 2
    assert stellwerk("task", "show", "999")[2].startswith("error: there is no task 999\nhint: ")


def test_tasks_are_handed_over_and_approvals_counted(stellwerk, dsn, db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(asking("hand", {"role": "staff", "approvals": 2})), None, run_all)
    said = stellwerk("task", "reassign", str(task_id), "--to", BEN, dsn=dsn)
    assert said == (0, f"Task {task_id} is for {BEN} now.\n", "")
    assert str(task_id) in stellwerk("task", "list", "--user", BEN)[1]
    assert stellwerk("task", "complete", str(task_id))[1] == f"Task {task_id} waits for more approvals.\n"
    status, _, err = stellwerk("task", "reassign", str(task_id), "--to", "nobody@example.org")
    assert (status, err.splitlines()[0]) == (1, "error: there is no active user nobody@example.org")


def test_users_are_added_listed_and_away(stellwerk, dsn):
    assert stellwerk("user", "list", dsn=dsn) == (0, "There are no users.\n", "")
    said = stellwerk("user", "add", "Ada@Example.org", "--role", "staff", "--name", "Ada", "--group", "accounting")
    assert said == (0, "ada@example.org is a user with the role staff.\n", "")
    assert stellwerk("user", "add", BEN, "--role", "admin", "--login", "ben")[0] == 0
    assert stellwerk("user", "add", ADA, "--role", "staff")[2].startswith("error: ada@example.org is a user already\n")
    assert stellwerk("user", "add", "x@example.org", "--role", "king")[0] == 2
    assert (
        stellwerk("user", "absence", ADA, "--to", BEN, "--until", "2999-01-01")[1]
        == f"{ADA} is away; {BEN} does the tasks.\n"
    )
    ada, ben = json.loads(stellwerk("user", "list", "--json")[1])
    assert (ada["name"], ada["groups"], ada["delegate"], ada["absent_until"][:4]) == (
        "Ada",
        ["accounting"],
        BEN,
        "2999",
    )
    assert (ben["role"], ben["login"]) == ("admin", "ben")
    assert stellwerk("user", "absence", ADA, "--over")[1] == f"{ADA} is back.\n"
    assert json.loads(stellwerk("user", "list", "--json")[1])[0]["delegate"] is None
    assert stellwerk("user", "absence", ADA, "--over", "--to", BEN)[0] == 2


def test_tasks_are_claimed_released_and_talked_about(stellwerk, dsn, db, make_workflow, run_all):
    users(db)
    _, task_id = ask(db, make_workflow(deciding("claim", {"role": "staff"})), None, run_all)
    number = str(task_id)
    assert stellwerk("task", "claim", number, dsn=dsn) == (0, f"Task {number} is yours.\n", "")
    assert json.loads(stellwerk("task", "list", "--json")[1])[0]["claimed_by"] == "db:postgres"
    assert stellwerk("task", "comment", number, "Wait for the scan.")[0] == 0
    assert "  db:postgres wrote: Wait for the scan." in stellwerk("task", "show", number)[1]
    assert stellwerk("task", "comment", number, " ")[2].startswith("error: a comment has 1 to 10000 characters")
    assert stellwerk("task", "release", number)[0] == 0
    assert json.loads(stellwerk("task", "list", "--json")[1])[0]["state"] == "open"
    assert stellwerk("task", "claim", "999")[2].startswith("error: there is no task 999\nhint: ")


def test_results_that_cannot_be_stored_are_told_as_such(stellwerk, dsn, db, make_workflow, run_all, tmp_path):
    users(db)
    _, task_id = ask(db, make_workflow(asking("odd", {"role": "staff"})), None, run_all)
    huge = tmp_path / "huge.json"
    huge.write_text('{"x": "' + "x" * 9_000_000 + '"}')
    for text, said in (
        ('{"a": "\\u0000"}', "the result holds the character U+0000"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"a": NaN}', "the result holds NaN"),
        ('{"a": 1e999}', "too large a power"),
        ("nonsense", "the result is no JSON"),
        (f"@{huge}", "more than the 8,388,608 bytes that are allowed"),
        ("@/nowhere", "cannot be read"),
    ):
        status, out, err = stellwerk("task", "complete", str(task_id), "--result", text, dsn=dsn)
        assert (status, out, said in err, "Traceback" in err) == (1, "", True, False), err
    assert json.loads(stellwerk("task", "list", "--json")[1])[0]["state"] == "open"


def test_users_are_changed(stellwerk, dsn, db):
    users(db)
    change = ("user", "change", ADA)
    assert stellwerk(*change, "--role", "operator", "--name", "Ada", "--group", "a", "--group", "b", dsn=dsn)[0] == 0
    assert stellwerk(*change, "--inactive", "--no-mails")[1] == f"{ADA} is changed.\n"
    ada = json.loads(stellwerk("user", "list", "--json")[1])[0]
    assert (ada["role"], ada["name"], ada["groups"], ada["active"], ada["mails"]) == (
        "operator", "Ada", ["a", "b"], False, False
    )  # fmt: skip
    stellwerk(*change, "--active", "--name", "", "--group", "")
    ada = json.loads(stellwerk("user", "list", "--json")[1])[0]
    assert (ada["role"], ada["name"], ada["groups"], ada["active"]) == ("operator", None, [], True)
    assert stellwerk(*change, "--role", "king")[0] == 2
    status, _, err = stellwerk("user", "change", "nobody@example.org", "--role", "staff")
    assert (status, err.splitlines()[0]) == (1, "error: there is no user nobody@example.org")
