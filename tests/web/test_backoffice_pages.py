"""Cases as staff see them: found, changed in place without losing what others did, many at once, as a file."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import psycopg
import pytest
from web.desk import ENGINE_WORDS, Client, LogIn, intake, one, send

Database = psycopg.Connection[Any]


@pytest.fixture
def cases(db: Database, make_workflow: Any, run_all: Any) -> list[int]:
    """Three cases, oldest first."""
    intake(db, make_workflow, run_all, "Ada Lovelace", "=1+1", "<i>Carl</i>")
    return [row[0] for row in db.execute("select case_id from stellwerk.backoffice_case order by 1").fetchall()]


def version(db: Database, case_id: int) -> str:
    return str(one(db, "select version from stellwerk.backoffice_case where case_id = %s", case_id))


def test_the_list_shows_names_contacts_and_statuses_and_is_searched(
    client: Client, cases: list[int], log_in: LogIn
) -> None:
    headers = log_in("staff")
    page = client.get("/backoffice", headers=headers).text
    assert "&lt;i&gt;Carl&lt;/i&gt;" in page
    assert "p0@example.org" in page
    assert "Intake of patients" in page
    assert 'data-color="blue"' in page
    found = client.get("/backoffice?words=lovel", headers=headers).text
    assert ("Ada Lovelace" in found, "Carl" in found) == (True, False)
    assert "Ada" not in client.get("/backoffice?status=complete", headers=headers).text
    assert "Ada" in client.get("/backoffice?status=new&workflow=intake", headers=headers).text
    assert "No cases here" in client.get("/backoffice?assignee=me", headers=headers).text


def test_pages_of_cases_follow_each_other(
    client: Client, db: Database, make_workflow: Any, run_all: Any, log_in: LogIn
) -> None:
    intake(db, make_workflow, run_all, *(f"Person {number:03}" for number in range(60)))
    headers = {**log_in("viewer"), "hx-request": "true"}
    seen: list[str] = []
    path = "/backoffice?words=person"
    while path:
        text = client.get(path, headers=headers).text
        seen += re.findall(r'class="title"[^>]*>Person (\d{3})', text)
        more = re.search(r'hx-get="(/backoffice\?[^"]*cursor[^"]*)"', text)
        path = more[1].replace("&amp;", "&") if more else ""
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 60


def test_status_and_note_change_in_place(client: Client, db: Database, cases: list[int], log_in: LogIn) -> None:
    headers = log_in("staff")
    seen = version(db, cases[0])
    path = f"/backoffice/{cases[0]}/changes"
    row = send(client, path, headers, status="missing", version=seen, **{"from": "list"})
    assert (row.status_code, row.text.strip().startswith("<tr")) == (200, True)
    assert 'data-color="orange"' in row.text
    send(client, path, headers, note="Card is missing", version=version(db, cases[0]), **{"from": "list"})
    assert db.execute(
        "select status, note from stellwerk.backoffice_case where case_id = %s", (cases[0],)
    ).fetchone() == ("missing", "Card is missing")


def test_nobody_overwrites_what_somebody_else_has_changed(
    client: Client, db: Database, cases: list[int], log_in: LogIn
) -> None:
    seen = version(db, cases[0])
    first = log_in("staff", "first@example.org")
    db.execute("select stellwerk.change_user('first@example.org', name => 'First Fred')")
    path = f"/backoffice/{cases[0]}/changes"
    assert send(client, path, first, note="mine", version=seen, **{"from": "list"}).status_code == 200
    second = log_in("staff", "second@example.org")
    answer = send(client, path, second, note="no, mine", version=seen, **{"from": "list"})
    assert (answer.status_code, answer.headers["x-in-place"]) == (409, "true")
    assert "First Fred has changed this meanwhile" in answer.text
    assert ">mine</textarea>" in answer.text
    assert one(db, "select note from stellwerk.backoffice_case where case_id = %s", cases[0]) == "mine"


def test_a_status_that_cannot_follow_is_refused_in_plain_words(
    client: Client, db: Database, cases: list[int], log_in: LogIn
) -> None:
    db.execute("select stellwerk.set_case_status(%s, 'complete')", (cases[0],))
    headers = log_in("staff")
    answer = send(client, f"/backoffice/{cases[0]}/changes", headers, status="new", version=version(db, cases[0]))
    assert (answer.status_code, "From the status Complete this one cannot follow." in answer.text) == (409, True)
    unknown = send(client, f"/backoffice/{cases[1]}/changes", headers, status="lost", version=version(db, cases[1]))
    assert (unknown.status_code, "There is no such status here." in unknown.text) == (422, True)
    assert client.get("/backoffice/99999", headers=headers).status_code == 404


def test_one_status_for_many_says_which_could_not_have_it(
    client: Client, db: Database, cases: list[int], log_in: LogIn
) -> None:
    db.execute("select stellwerk.set_case_status(%s, 'complete')", (cases[0],))
    chosen = [("case", str(case_id)) for case_id in cases]
    answer = send(client, "/backoffice/status", log_in("staff"), *chosen, to="missing")
    assert answer.status_code == 200
    assert "2 changed. 1 not:" in " ".join(re.sub(r"<[^>]*>", " ", answer.text).split())
    states = db.execute("select status from stellwerk.backoffice_case order by case_id").fetchall()
    assert [row[0] for row in states] == ["complete", "missing", "missing"]
    assert send(client, "/backoffice/status", log_in("staff"), to="missing").status_code == 422


def test_whoever_may_only_read_cannot_change(client: Client, db: Database, cases: list[int], log_in: LogIn) -> None:
    headers = log_in("viewer")
    page = client.get("/backoffice", headers=headers).text
    assert "hx-post" not in page[page.index('id="cases"') :]
    for path in (f"{cases[0]}/changes", f"{cases[0]}/notes", f"{cases[0]}/appointments", "status"):
        assert send(client, f"/backoffice/{path}", headers, note="x", body="x").status_code == 403
    # Nor is anybody offered what would be refused.
    assert 'href="/tasks"' not in page
    assert client.get("/tasks", headers=headers).status_code == 403
    headers = log_in("designer")
    assert send(client, f"/backoffice/{cases[0]}/notes", headers, body="x").status_code == 200
    assert 'href="/tasks"' in client.get("/backoffice", headers=headers).text
    assert client.get("/tasks", headers=headers).status_code == 200


def test_a_case_shows_data_history_appointments_and_tasks(
    client: Client, db: Database, cases: list[int], log_in: LogIn
) -> None:
    headers = log_in("staff")
    send(
        client,
        f"/backoffice/{cases[0]}/changes",
        headers,
        assignee="staff@example.org",
        version="1",
        **{"from": "page"},
    )
    send(client, f"/backoffice/{cases[0]}/notes", headers, body="Called, comes later.")
    page = client.get(f"/backoffice/{cases[0]}", headers=headers).text
    for text in ("Ada Lovelace", "p0@example.org", "First visit", "Review of Ada Lovelace", "Called, comes later."):
        assert text in page
    assert "automatically" in page
    plain = re.sub(r"<[^>]*>", " ", page[page.index('id="content"') :]).lower()
    assert [word for word in ENGINE_WORDS if word in plain] == []
    assert "/runs/" not in page
    assert "/runs/" in client.get(f"/backoffice/{cases[0]}", headers=log_in("operator")).text


def test_appointments_are_made_moved_and_cancelled(
    client: Client, db: Database, cases: list[int], log_in: LogIn
) -> None:
    headers = log_in("staff")
    path = f"/backoffice/{cases[1]}/appointments"
    db.execute("select stellwerk.set_time_zone('Europe/Rome')")
    made = send(client, path, headers, title="Talk", starts_at="2026-07-01T10:00", ends_at="", location="Room 2")
    assert (made.status_code, "Talk" in made.text) == (200, True)
    query = (
        "select to_char(starts_at at time zone 'UTC', 'HH24:MI') from stellwerk.case_appointment where title = 'Talk'"
    )
    assert one(db, query) == "08:00"
    number = one(db, "select appointment_id from stellwerk.case_appointment where title = 'Talk'")
    assert send(client, f"{path}/{number}", headers, starts_at="2026-07-01T12:00", version="1").status_code == 200
    assert one(db, query) == "10:00"
    assert send(client, f"{path}/{number}", headers, starts_at="2026-07-01T13:00", version="1").status_code == 409
    assert send(client, path, headers, title="", starts_at="2026-07-01T10:00").status_code == 422
    assert send(client, path, headers, title="No time", starts_at="soon").status_code == 422
    assert send(client, f"{path}/{number}/cancellation", headers, reason="ill").status_code == 200
    assert one(db, query) is None


def test_the_file_holds_the_filtered_cases_and_no_formulas(client: Client, cases: list[int], log_in: LogIn) -> None:
    headers = log_in("staff")
    answer = client.get("/backoffice/cases.csv", headers=headers)
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == ["Ada Lovelace", "'=1+1", "<i>Carl</i>"]
    some = client.get("/backoffice/cases.csv?words=ada", headers=headers).content.decode("utf-8-sig")
    assert len(list(csv.DictReader(io.StringIO(some)))) == 1


def test_the_list_begins_with_the_cases_that_are_open(
    client: Client, db: Database, cases: list[int], log_in: LogIn
) -> None:
    headers = log_in("staff")
    first, second, third = cases
    db.execute("select stellwerk.set_case_status(%s, 'complete')", [second])
    rows = {
        address: {case for case in cases if f'/backoffice/{case}"' in client.get(address, headers=headers).text}
        for address in ("/backoffice", "/backoffice?which=all", "/backoffice?status=complete")
    }
    assert list(rows.values()) == [{first, third}, {first, second, third}, {second}]
    csv = client.get("/backoffice/cases.csv", headers=headers).text.splitlines()
    assert len(csv) == 3


def test_the_api_sets_a_status_for_many(client: Client, db: Database, cases: list[int], log_in: LogIn) -> None:
    first, second, third = cases
    db.execute("select stellwerk.set_case_status(%s, 'complete')", [second])
    ask = {"cases": [str(case) for case in (*cases, 999)], "status": "missing", "note": "card"}
    answer = client.post("/api/backoffice/cases/status", json=ask, headers=log_in("staff"))
    assert answer.status_code in (200, 201)
    assert [(item["case_id"], item["code"]) for item in answer.json()["items"]] == [
        *((str(first), None), (str(second), "SW003"), (str(third), None)),
        ("999", "SW007"),
    ]
    listed = client.get("/api/backoffice/cases?still_open=true", headers=log_in("viewer")).json()["items"]
    assert [(item["case_id"], item["note"]) for item in listed] == [(str(third), "card"), (str(first), "card")]
    assert client.post("/api/backoffice/cases/status", json=ask, headers=log_in("viewer")).status_code == 403
