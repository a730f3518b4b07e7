"""Tasks as staff see them: found, taken, filled in, handed over, decided once, and never in the engine's words."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from web.desk import ENGINE_WORDS, Client, LogIn, intake, one, send

Database = psycopg.Connection[Any]


@pytest.fixture
def task(db: Database, make_workflow: Any, run_all: Any) -> int:
    """An open task for staff."""
    intake(db, make_workflow, run_all, "Ada <b>Lovelace</b>")
    return int(one(db, "select task_id from stellwerk.user_task"))


def test_the_list_shows_what_is_asked_of_me_and_my_groups(client: Client, task: int, log_in: LogIn) -> None:
    headers = log_in("staff")
    page = client.get("/tasks", headers=headers)
    assert page.status_code == 200
    assert "Review of Ada &lt;b&gt;Lovelace&lt;/b&gt;" in page.text
    assert "Review of" not in client.get("/tasks?which=mine", headers=headers).text
    assert "Review of" not in client.get("/tasks?words=nobody", headers=headers).text
    assert "Review of" in client.get("/tasks?words=LOVELACE&which=group", headers=headers).text
    assert "Review of" not in client.get("/tasks", headers=log_in("operator")).text
    assert client.get("/tasks", headers=log_in("viewer")).status_code == 403


def test_pages_of_tasks_follow_each_other_by_due_time(
    client: Client, db: Database, make_workflow: Any, run_all: Any, log_in: LogIn
) -> None:
    intake(db, make_workflow, run_all, *(f"Person {number:03}" for number in range(60)))
    db.execute(
        "update stellwerk.user_task set due_at = case when task_id %% 3 = 0 then null else now() - task_id * interval '1 hour' end",
        [],
    )
    headers = {**log_in("staff"), "hx-request": "true"}
    seen: list[str] = []
    path = "/tasks"
    while path:
        text = client.get(path, headers=headers).text
        seen += re.findall(r"Person (\d{3})", text)
        more = re.search(r'hx-get="(/tasks[^"]*)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert len(seen) == len(set(seen)) == 60
    expected = db.execute(
        "select right(title, 3) from stellwerk.user_task order by due_at nulls last, task_id"
    ).fetchall()
    assert seen == [row[0] for row in expected]


def test_a_task_shows_its_form_prefilled_and_what_the_designer_chose(client: Client, task: int, log_in: LogIn) -> None:
    page = client.get(f"/tasks/{task}", headers=log_in("staff")).text
    assert 'name="/pages" value="2"' in page
    assert "Came from" in page
    assert "p0@example.org" in page
    assert ">Approve<" in page
    assert ">Reject<" in page
    content = page[page.index('id="content"') :].lower()
    plain = re.sub(r"<[^>]*>", " ", content)
    assert [word for word in ENGINE_WORDS if word in plain] == []


def test_mistakes_stand_at_their_fields_and_nothing_is_decided(
    client: Client, db: Database, task: int, log_in: LogIn
) -> None:
    answer = send(client, f"/tasks/{task}/completion", log_in("staff"), ("/pages", "none"), outcome="approve")
    assert answer.status_code == 422
    assert answer.headers["x-in-place"] == "true"
    assert "This is no whole number." in answer.text
    assert 'value="none"' in answer.text
    assert "Please fill this in." in answer.text
    assert one(db, "select state from stellwerk.user_task") == "open"


def test_a_task_is_done_and_the_case_moves_on(
    client: Client, db: Database, task: int, log_in: LogIn, run_all: Any
) -> None:
    headers = log_in("staff")
    filled = (("/pages", "3"), ("/state", "legible"), ("/seen", "true"))
    answer = send(client, f"/tasks/{task}/completion", headers, *filled, outcome="approve")
    assert (answer.status_code, answer.headers["hx-redirect"]) == (204, "/tasks?done=yes")
    row = db.execute("select state, outcome, result, completed_by from stellwerk.user_task").fetchone()
    assert row == ("completed", "approve", {"pages": 3, "seen": True, "state": "legible"}, "staff@example.org")
    run_all(db)
    assert one(db, "select status from stellwerk.backoffice_case") == "complete"
    assert "staff@example.org" in client.get(f"/tasks/{task}", headers=headers).text


def test_a_draft_is_kept_as_it_is_and_comes_back(client: Client, task: int, log_in: LogIn) -> None:
    headers = log_in("staff")
    answer = send(client, f"/tasks/{task}/draft", headers, ("/pages", "two"), ("/state", "illegible"))
    assert (answer.status_code, "Your draft was kept." in answer.text) == (200, True)
    page = client.get(f"/tasks/{task}", headers=headers).text
    assert 'name="/pages" value="two"' in page
    assert '<option value="illegible" selected>' in page


def test_who_comes_too_late_is_told_who_was_faster(client: Client, db: Database, task: int, log_in: LogIn) -> None:
    late = log_in("staff", "late@example.org")
    db.execute("select stellwerk.change_user('late@example.org', name => 'Late Larry')")
    fast = log_in("staff", "fast@example.org")
    db.execute("select stellwerk.change_user('fast@example.org', name => 'Fast Fanny')")
    assert send(client, f"/tasks/{task}/claim", fast).status_code == 200
    late = log_in("staff", "late@example.org")
    for path in ("claim", "draft", "completion"):
        answer = send(client, f"/tasks/{task}/{path}", late, ("/pages", "1"), ("/state", "legible"), outcome="approve")
        assert answer.status_code == 409
        assert "Fast Fanny is working on this task now." in answer.text
        assert "stellwerk." not in answer.text
    fast = log_in("staff", "fast@example.org")
    send(client, f"/tasks/{task}/completion", fast, ("/pages", "1"), ("/state", "legible"), outcome="reject")
    answer = send(client, f"/tasks/{task}/claim", log_in("staff", "late@example.org"))
    assert (answer.status_code, "Fast Fanny was faster" in answer.text) == (409, True)


@pytest.mark.parametrize("due", ["12025-01-01", "infinity", "0044-03-15 BC"])
def test_a_time_that_no_calendar_shows_hides_no_list(
    client: Client, db: Database, task: int, log_in: LogIn, due: str
) -> None:
    db.execute("update stellwerk.user_task set due_at = %s::timestamptz", [due])
    log_in("staff")
    for path in ("/tasks", f"/tasks/{task}", "/"):
        assert client.get(path, headers={"accept": "text/html"}).status_code == 200, path


def test_a_task_is_taken_given_back_and_handed_over(client: Client, db: Database, task: int, log_in: LogIn) -> None:
    headers = log_in("staff")
    assert "Give it back" in send(client, f"/tasks/{task}/claim", headers).text
    assert "Take it" in send(client, f"/tasks/{task}/release", headers).text
    db.execute("select stellwerk.add_user('ben@example.org', 'operator', 'Ben')")
    answer = send(client, f"/tasks/{task}/assignee", headers, to="ben@example.org")
    assert answer.headers["hx-redirect"].startswith("/tasks")
    assert one(db, "select assignee from stellwerk.user_task") == "ben@example.org"
    nobody = send(client, f"/tasks/{task}/assignee", log_in("admin"), to="ghost@example.org")
    assert (nobody.status_code, "nobody of this name" in nobody.text) == (404, True)


def test_a_task_of_others_is_not_shown(client: Client, db: Database, task: int, log_in: LogIn) -> None:
    db.execute("select stellwerk.add_user('ben@example.org', 'admin', 'Ben')")
    db.execute("update stellwerk.user_task set assignee = 'ben@example.org', role = null")
    headers = log_in("staff")
    assert client.get(f"/tasks/{task}", headers=headers).status_code == 403
    for path in ("claim", "release", "draft", "completion", "comments", "attachments", "assignee"):
        answer = send(client, f"/tasks/{task}/{path}", headers, body="x", reference="y", to="staff@example.org")
        assert answer.status_code == 403, path
    assert client.get("/tasks/99999", headers=headers).status_code == 404


def test_comments_and_files_are_kept_and_cannot_become_scripts(client: Client, task: int, log_in: LogIn) -> None:
    headers = log_in("staff")
    said = send(client, f"/tasks/{task}/comments", headers, body="<script>alert(1)</script>").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in said
    plan = {"name": "Plan", "reference": "https://example.org/plan.pdf"}
    assert 'href="https://example.org/plan.pdf"' in send(client, f"/tasks/{task}/attachments", headers, **plan).text
    bad = send(client, f"/tasks/{task}/attachments", headers, name="Bad", reference="javascript:alert(1)")
    assert (bad.status_code, "Bad" in client.get(f"/tasks/{task}").text) == (422, False)
    assert send(client, f"/tasks/{task}/comments", headers, body="  ").status_code == 422
