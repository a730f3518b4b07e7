"""The HTTP API from end to end: definitions, runs, row events, tasks, accounts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import psycopg
from litestar.testing import TestClient
from web.program import Api

from stellwerk.web.api.definitions import EXAMPLE

Database = psycopg.Connection[Any]


def changed(**more: Any) -> dict[str, Any]:
    return {**copy.deepcopy(EXAMPLE), **more}


# -- definitions ------------------------------------------------------------------------------------------------------


def test_a_workflow_from_its_first_draft_to_going_back(api: Api) -> None:
    made = api("POST /api/workflows", EXAMPLE, expect=201)
    assert (made["version"], made["draft"], made["active_version"]) == (1, True, None)
    assert api.last.headers["location"] == "/api/workflows/greet"
    assert api("POST /api/workflows/greet/publish") == {"slug": "greet", "version": 1}
    api("GET /api/workflows/greet")
    tag = api.last.headers["etag"]
    assert api("PUT /api/workflows/greet", changed(name="Greetings"), if_match=tag)["version"] == 2
    api("POST /api/workflows/greet/publish", {"version": 2})
    differences = api("GET /api/workflows/greet/diff?from=1&to=2")["items"]
    assert [(d["field"], d["before"], d["after"]) for d in differences] == [("name", "Greet", "Greetings")]
    assert api("POST /api/workflows/greet/rollback", {"version": 1})["version"] == 3
    versions = api("GET /api/workflows/greet/versions")["items"]
    assert [(v["version"], v["active"]) for v in versions] == [(3, True), (2, False), (1, False)]
    assert api("GET /api/workflows/greet?version=2")["document"]["name"] == "Greetings"
    api("DELETE /api/workflows/greet", expect=409)


def test_of_two_people_who_change_a_document_the_second_is_told(api: Api) -> None:
    api("POST /api/workflows", EXAMPLE, expect=201)
    tag = api.last.headers["etag"]
    api("PUT /api/workflows/greet", changed(name="Mine"), if_match=tag)
    api("PUT /api/workflows/greet", changed(name="Yours"), if_match=tag, expect=412)
    assert api("PUT /api/workflows/greet", changed(name="Yours"), expect=428)["detail"].startswith(
        "the header If-Match"
    )
    assert api("GET /api/workflows/greet")["name"] == "Mine"
    api("POST /api/workflows/greet/publish", if_match=tag, expect=412)
    api("DELETE /api/workflows/greet", if_match=tag, expect=412)
    api("DELETE /api/workflows/greet", expect=204)
    api("GET /api/workflows/greet", expect=404)
    api("PUT /api/workflows/greet", EXAMPLE, if_match="*", expect=404)


def test_a_document_with_errors_is_not_saved_and_all_of_them_are_named(api: Api, db: Database) -> None:
    wrong = changed(nodes=[{"id": "start", "type": "trigger.manual"}, {"id": "x", "type": "no.such"}], colour="red")
    told = api("POST /api/workflows", wrong, expect=422)
    assert {"colour", "nodes[1].type"} <= {error["path"] for error in told["errors"]}
    assert db.execute("select count(*) from stellwerk.workflow").fetchone() == (0,)
    kept = api("POST /api/workflows?incomplete=true", changed(edges=[{"from": "start", "to": "nowhere"}]), expect=201)
    assert [p["severity"] for p in kept["problems"]].count("error") >= 1
    api("POST /api/workflows/greet/publish", expect=422)
    told = api("POST /api/workflows/greet/validate", EXAMPLE)
    assert told == {"publishable": True, "problems": []}
    assert api("POST /api/workflows/greet/validate")["publishable"] is False


def test_slugs_that_cannot_be_used(api: Api) -> None:
    api("POST /api/workflows", EXAMPLE, expect=201)
    assert "PUT" in api("POST /api/workflows", EXAMPLE, expect=409)["hint"]
    for slug in ("executions", "events", "analytics", "Big", None, 7):
        assert api("POST /api/workflows", changed(slug=slug), expect=422)["errors"][0]["path"] == "slug"
    told = api("PUT /api/workflows/greet", changed(slug="other"), if_match="*", expect=422)
    assert told["errors"][0]["path"] == "slug"


def test_steps_are_put_in_replaced_and_taken_out(api: Api) -> None:
    api("POST /api/workflows", EXAMPLE, expect=201)
    note = {"id": "note", "type": "log.write", "config": {"message": "hello"}}
    api("POST /api/workflows/greet/steps", {**note, "after": "start"}, expect=201)
    steps = api("GET /api/workflows/greet/steps")["items"]
    assert {step["id"]: [way["to"] for way in step["then"]] for step in steps} == {
        "start": ["note"],
        "note": ["greet"],
        "greet": [],
    }
    api("PUT /api/workflows/greet/steps/note", {"type": "log.error", "config": {"message": "oh"}}, expect=428)
    tag = api.client.get("/api/workflows/greet/steps/note", headers=api.headers).headers["etag"]
    api("PUT /api/workflows/greet/steps/note", {"type": "log.error", "config": {"message": "oh"}}, if_match=tag)
    assert api("GET /api/workflows/greet/steps/note")["type"] == "log.error"
    api("DELETE /api/workflows/greet/steps/note", if_match=tag, expect=412)
    after = api("DELETE /api/workflows/greet/steps/note", if_match="*")["document"]
    assert after["edges"] == EXAMPLE["edges"]
    api("POST /api/workflows/greet/steps", {**note, "type": "no.such"}, expect=422)
    api("DELETE /api/workflows/greet/steps/nobody", if_match="*", expect=404)


def test_runs_are_moved_to_another_version_after_saying_what_becomes_of_each(
    api: Api, db: Database, run_all: Callable[..., int]
) -> None:
    waits = changed(
        nodes=[
            {"id": "start", "type": "trigger.manual"},
            {"id": "rest", "type": "logic.wait", "config": {"for": "P1D"}},
        ],
        edges=[{"from": "start", "to": "rest"}],
        input_schema=None,
    )
    for number in (1, 2):
        api("PUT /api/workflows/greet" if number > 1 else "POST /api/workflows", {**waits, "name": f"v{number}"},
            if_match="*", expect=200 if number > 1 else 201)  # fmt: skip
        api("POST /api/workflows/greet/publish")
        if number == 1:
            run_id = api("POST /api/workflows/greet/trigger", expect=202)["run_id"]
            run_all(db)
    move = {"from_version": 1, "to_version": 2}
    judged = api("POST /api/workflows/greet/migrate-runs", move)
    assert [(run["run_id"], run["verdict"]) for run in judged["runs"]] == [(run_id, "ok")]
    assert api(f"GET /api/workflows/executions/{run_id}")["version"] == 1
    api("POST /api/workflows/greet/migrate-runs", {**move, "dry_run": False})
    assert api(f"GET /api/workflows/executions/{run_id}")["version"] == 2


# -- runs -------------------------------------------------------------------------------------------------------------


def test_a_run_from_its_order_to_its_steps(api: Api, db: Database, greet: str, run_all: Callable[..., int]) -> None:
    started = api("POST /api/workflows/greet/trigger", {"payload": {"name": "Ada"}}, expect=202)
    assert started["state"] == "pending"
    run_all(db)
    run = api(f"GET {started['href']}")
    assert (run["state"], run["output"], run["more_steps"]) == ("completed", {"text": "Hello Ada"}, False)
    assert [step["node_id"] for step in run["steps"]] == ["start", "greet"]
    assert run["created_by"].startswith("token:")
    first = api(f"GET {started['href']}/steps?limit=1")
    second = api(f"GET {started['href']}/steps?limit=1&cursor={first['next_cursor']}")
    assert [first["items"][0]["node_id"], second["items"][0]["node_id"], second["next_cursor"]] == [
        "start",
        "greet",
        None,
    ]


def test_the_same_key_starts_one_run(api: Api, db: Database, greet: str) -> None:
    order = {"payload": {"name": "Ada"}}
    first = api("POST /api/workflows/greet/trigger", order, idempotency_key="k", expect=202)
    assert api("POST /api/workflows/greet/trigger", order, idempotency_key="k")["run_id"] == first["run_id"]
    told = api("POST /api/workflows/greet/trigger", {"payload": {"name": "Eve"}}, idempotency_key="k", expect=422)
    assert told["errors"][0]["path"] == "Idempotency-Key"
    run = {"workflow_id": "greet", **order, "wait": 0}
    assert api("POST /workflow-builder/api/run", run, idempotency_key="k")["run_id"] == first["run_id"]
    bulk = {"action": "cancel", "filter": {"workflow": "greet"}, "dry_run": False}
    one = api("POST /api/workflows/executions/bulk", bulk, idempotency_key="k", expect=202)
    assert api("POST /api/workflows/executions/bulk", bulk, idempotency_key="k", expect=202) == one
    bulk["filter"] = {"state": "pending"}
    api("POST /api/workflows/executions/bulk", bulk, idempotency_key="k", expect=422)
    assert db.execute(
        "select (select count(*) from stellwerk.run), (select count(*) from stellwerk.bulk_operation)"
    ).fetchone() == (1, 1)
    other = Api(api.client, db)
    bulk["dry_run"] = True
    assert other("POST /api/workflows/executions/bulk", bulk, idempotency_key="k", expect=202) != one
    api("POST /api/workflows/greet/trigger", order, idempotency_key="", expect=422)


def test_a_payload_that_does_not_fit_is_refused_field_by_field(api: Api, db: Database, greet: str) -> None:
    told = api("POST /api/workflows/greet/trigger", {"payload": {"name": 7}}, expect=422)
    assert [error["path"] for error in told["errors"]] == ["payload.name"]
    told = api("POST /api/workflows/greet/trigger", {"payloads": {}}, expect=422)
    assert [error["path"] for error in told["errors"]] == ["payloads"]
    api("POST /api/workflows/nowhere/trigger", {"payload": {}}, expect=404)
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)


def test_a_run_is_paused_resumed_cancelled_and_retried(
    api: Api, db: Database, greet: str, run_all: Callable[..., int]
) -> None:
    run = api("POST /api/workflows/greet/trigger", {"payload": {"name": "Ada"}}, expect=202)["href"]
    for verb, state in (("pause", "paused"), ("resume", "completed")):
        api(f"POST {run}/{verb}", expect=202)
        run_all(db)
        assert api(f"GET {run}")["state"] == state
    api(f"POST {run}/cancel", expect=409)
    late = {"payload": {"name": "Ada"}, "run_at": "2999-01-01T00:00:00Z"}
    run = api("POST /api/workflows/greet/trigger", late, expect=202)["href"]
    api(f"POST {run}/cancel", {"reason": "asked twice"}, expect=202)
    run_all(db)
    ended = api(f"GET {run}")
    assert (ended["state"], "asked twice" in ended["why"]) == ("cancelled", True)
    api(f"POST {run}/retry", idempotency_key="again", expect=202)
    run_all(db)
    assert api(f"GET {run}")["state"] == "completed"
    api(f"POST {run}/retry", idempotency_key="again", expect=202)
    api(f"POST {run}/retry", expect=409)


def test_runs_are_listed_in_pages(api: Api, greet: str) -> None:
    numbers = [
        api("POST /api/workflows/greet/trigger", {"payload": {"name": "Ada"}}, expect=202)["run_id"] for _ in range(5)
    ]
    seen, cursor = [], ""
    while cursor is not None:
        page = api(f"GET /api/workflows/greet/executions?limit=2&state=pending&cursor={cursor}")
        seen += [run["run_id"] for run in page["items"]]
        cursor = page["next_cursor"]
    assert seen == numbers[::-1]
    assert api("GET /api/workflows/greet/executions?state=failed")["items"] == []
    api("GET /api/workflows/greet/executions?limit=1000", expect=422)
    api("GET /api/workflows/greet/executions?cursor=xxx", expect=422)
    api("GET /api/workflows/nowhere/executions", expect=404)


def test_a_bulk_operation_counts_before_it_begins(
    api: Api, db: Database, greet: str, run_all: Callable[..., int]
) -> None:
    for _ in range(3):
        api("POST /api/workflows/greet/trigger", {"payload": {"name": "Ada"}}, expect=202)
    order = {"action": "cancel", "filter": {"workflow": "greet"}, "options": {"reason": "enough"}}
    counted = api("POST /api/workflows/executions/bulk", order, expect=202)
    assert (counted["state"], counted["total"], counted["done"]) == ("draft", 3, 0)
    place = f"/api/workflows/executions/bulk/{counted['operation_id']}"
    api(f"POST {place}/begin", expect=202)
    api(f"POST {place}/pause", expect=202)
    api(f"POST {place}/begin", expect=202)
    db.execute("select stellwerk.tick()")
    run_all(db)
    assert api(f"GET {place}")["done"] == 3
    told = api(
        "POST /api/workflows/executions/bulk", {"action": "cancel", "filter": {"state": "completed"}}, expect=422
    )
    assert told["errors"][0]["path"] == "filter"
    assert api("POST /api/workflows/executions/bulk", {"action": "cancel", "filter": {"stat": "x"}}, expect=422)


def test_the_builder_gets_the_status_of_its_run_and_the_case(
    api: Api, db: Database, run_all: Callable[..., int]
) -> None:
    document = changed(
        nodes=[
            {"id": "start", "type": "trigger.manual"},
            {
                "id": "push",
                "type": "action.backoffice_push",
                "config": {"field_map": {"name": "{{ trigger.payload.name }}"}},
            },
        ],
        edges=[{"from": "start", "to": "push"}],
    )
    api("POST /api/workflows", document, expect=201)
    api("POST /api/workflows/greet/publish")
    order = {"workflow_id": "greet", "payload": {"name": "Ada"}}
    ran = api("POST /workflow-builder/api/run", order, idempotency_key="b")
    assert (ran["status"], ran["case"]) == ("pending", None)
    run_all(db)
    ran = api("POST /workflow-builder/api/run", order, idempotency_key="b")
    assert ran["status"] == "completed"
    assert ran["case"]["href"] == f"/backoffice/{ran['case']['case_id']}"
    (number,) = db.execute("select workflow_id from stellwerk.workflow").fetchone() or (0,)
    assert api("POST /workflow-builder/api/run", {**order, "workflow_id": number})["status"] == "pending"
    api("POST /workflow-builder/api/run", {**order, "workflow_id": "nowhere"}, expect=404)


# -- row events, tasks, figures ---------------------------------------------------------------------------------------


def test_a_watched_table_starts_runs_and_the_log_shows_what_it_caught(
    api: Api, db: Database, greet: str, run_all: Callable[..., int]
) -> None:
    row = changed(nodes=[*EXAMPLE["nodes"], {"id": "row", "type": "trigger.row"}])
    row["edges"] = [*EXAMPLE["edges"], {"from": "row", "to": "greet"}]
    api("PUT /api/workflows/greet", row, if_match="*")
    api("POST /api/workflows/greet/publish")
    db.execute("create table public.person (id bigint primary key, name text)")
    api("PUT /api/schemas/public.person/events", {"workflow": "greet"}, expect=403)
    db.execute("grant select, trigger on public.person to stellwerk_web")
    condition = "new.name <> 'Eve'"
    watch = api("PUT /api/schemas/public.person/events", {"workflow": "greet", "condition": condition})
    assert (watch["operations"], watch["state"]) == (["insert"], "armed")
    assert len(api("GET /api/schemas/public.person/events")["items"]) == 1
    db.execute("insert into public.person values (1, 'Ada'), (2, 'Eve')")
    run_all(db)
    (event,) = api("GET /api/workflows/events/log?state=processed")["items"]
    assert (event["new"], event["workflow"]) == ({"id": 1, "name": "Ada"}, "greet")
    assert api(f"GET /api/workflows/executions/{event['run_id']}")["state"] == "completed"
    told = api("PUT /api/schemas/public.person/events", {"workflow": "greet", "condition": "drop table x"}, expect=422)
    assert told["detail"]
    api("DELETE /api/schemas/public.person/events?workflow=greet", expect=204)
    assert [watch["state"] for watch in api("GET /api/schemas/public.person/events")["items"]] == ["disarmed"]
    api("GET /api/schemas/public.nowhere/events", expect=404)
    api("GET /api/schemas/%27%3B--/events", expect=404)


def test_a_task_is_seen_and_done_by_those_it_is_for(
    api: Api, client: TestClient[Any], db: Database, log_in: Any, run_all: Callable[..., int]
) -> None:
    form = {"type": "object", "required": ["note"], "properties": {"note": {"type": "string"}}}
    node = {"title": "Check", "role": "staff", "form": form, "outcomes": ["approve", "reject"]}
    document = changed(
        nodes=[{"id": "start", "type": "trigger.manual"}, {"id": "check", "type": "task.user", "config": node}],
        edges=[{"from": "start", "to": "check"}],
    )
    api("POST /api/workflows", document, expect=201)
    api("POST /api/workflows/greet/publish")
    run_id = api("POST /api/workflows/greet/trigger", {"payload": {"name": "Ada"}}, expect=202)["run_id"]
    run_all(db)
    (task,) = api("GET /api/user-tasks?scope=all")["items"]
    place = f"/api/user-tasks/{task['task_id']}"
    headers = {**log_in("designer"), "accept": "application/json"}
    assert client.get("/api/user-tasks", headers=headers).json()["items"] == []
    assert client.get("/api/user-tasks?scope=all", headers=headers).status_code == 403
    assert client.get(place, headers=headers).status_code == 404
    assert client.post(f"{place}/claim", headers=headers).status_code == 404
    headers = {**log_in("staff"), "accept": "application/json"}
    assert [each["task_id"] for each in client.get("/api/user-tasks", headers=headers).json()["items"]] == [
        task["task_id"]
    ]
    assert client.get(place, headers=headers).json()["form"] == form
    assert client.post(f"{place}/claim", headers=headers).json()["claimed_by"] == "staff@example.org"
    refused = client.post(f"{place}/complete", json={"result": {}, "outcome": "approve"}, headers=headers)
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "result.note")
    done = client.post(f"{place}/complete", json={"result": {"note": "ok"}, "outcome": "approve"}, headers=headers)
    assert (done.status_code, done.json()["state"], done.json()["completed_by"]) == (
        200,
        "completed",
        "staff@example.org",
    )
    assert client.post(f"{place}/complete", json={"outcome": "approve"}, headers=headers).status_code == 409
    run_all(db)
    assert api(f"GET /api/workflows/executions/{run_id}")["state"] == "completed"


def test_figures_of_a_workflow_and_of_all(api: Api, db: Database, greet: str, run_all: Callable[..., int]) -> None:
    for _ in range(3):
        api("POST /api/workflows/greet/trigger", {"payload": {"name": "Ada"}}, expect=202)
    run_all(db)
    figures = api("GET /api/workflows/greet/analytics?days=7")
    assert (figures["workflow"]["runs"], figures["workflow"]["success_share"]) == (3, 1.0)
    assert {node["node_id"]: node["visits"] for node in figures["nodes"]} == {"start": 3, "greet": 3}
    assert [each["workflow"] for each in api("GET /api/workflows/analytics/overview")["workflows"]] == ["greet"]
    api("GET /api/workflows/nowhere/analytics", expect=404)


def test_cases_are_found_changed_and_handed_out(api: Api, db: Database, run_all: Callable[..., int]) -> None:
    fields = {"name": "{{ trigger.payload.name }}"}
    document = changed(
        nodes=[
            {"id": "start", "type": "trigger.manual"},
            {"id": "push", "type": "action.backoffice_push", "config": {"field_map": fields, "status": "new"}},
        ],
        edges=[{"from": "start", "to": "push"}],
    )
    api("POST /api/workflows", document, expect=201)
    api("POST /api/workflows/greet/publish")
    for name in ("Ada", "=1+1"):
        api("POST /api/workflows/greet/trigger", {"payload": {"name": name}}, expect=202)
    run_all(db)
    first = api("GET /api/backoffice/cases?limit=1")
    (case,) = api(f"GET /api/backoffice/cases?limit=1&cursor={first['next_cursor']}")["items"]
    assert [each["case_id"] for each in api("GET /api/backoffice/cases?words=ada")["items"]] == [case["case_id"]]
    assert api("GET /api/backoffice/cases?status=done,lost")["items"] == []
    place = f"/api/backoffice/cases/{case['case_id']}"
    after = api(f"PATCH {place}", {"note": "called", "payload": {"phone": "1"}, "version": case["version"]})
    assert (after["note"], after["payload"]) == ("called", {"name": "Ada", "phone": "1"})
    assert after["history"][0]["actor"].startswith("token:")
    api(f"PATCH {place}", {"note": "me too", "version": case["version"]}, expect=412)
    api(f"PATCH {place}", {}, expect=422)
    api(f"PATCH {place}", {"colour": "red"}, expect=422)
    api("GET /api/backoffice/cases/999", expect=404)
    sheet = api.client.get("/api/backoffice/cases.csv", headers=api.headers)
    assert sheet.headers["content-type"].startswith("text/csv")
    assert "attachment" in sheet.headers["content-disposition"]
    assert "'=1+1" in sheet.text


# -- accounts ---------------------------------------------------------------------------------------------------------


def test_users_and_tokens_are_managed(api: Api, client: TestClient[Any], db: Database) -> None:
    api("POST /api/users", {"email": "Grace@example.org", "role": "staff"}, expect=201)
    api("POST /api/users", {"email": "grace@example.org", "role": "staff"}, expect=409)
    assert api("PATCH /api/users/grace@example.org", {"role": "operator"})["role"] == "operator"
    link = api("POST /api/users/grace@example.org/invitation", expect=201)["link"]
    assert "grace@example.org" in client.get(link.removeprefix("http://127.0.0.1:8000")).text
    assert api("GET /api/users/grace@example.org")["invited"] is True
    assert api("DELETE /api/users/grace@example.org/sessions") == {"ended": 0}
    api("PATCH /api/users/nobody@example.org", {"role": "operator"}, expect=404)
    made = api("POST /api/tokens", {"name": "site", "role": "designer", "scopes": ["read"]}, expect=201)
    headers = {"authorization": f"Bearer {made['token']}"}
    assert client.get("/api/workflows", headers=headers).status_code == 200
    assert client.post("/api/workflows", json=EXAMPLE, headers=headers).status_code == 403
    assert made["token"] not in json.dumps(api("GET /api/tokens"))
    api(f"DELETE /api/tokens/{made['token_id']}", expect=204)
    assert client.get("/api/workflows", headers=headers).status_code == 401
    actions = {entry["action"] for entry in api("GET /api/audit")["items"]}
    assert {"invite_user", "insert"} <= actions


def test_nobody_gives_away_rights_that_they_do_not_have(client: TestClient[Any], db: Database) -> None:
    manager = Api(client, db, scopes=["manage"])
    told = manager("POST /api/tokens", {"name": "more", "role": "admin"}, expect=403)
    assert "operate" in told["detail"]
    manager("POST /api/tokens", {"name": "same", "role": "admin", "scopes": ["manage"]}, expect=201)
