"""What the builder asks the server: checking, saving, live values, simulation, publishing, versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from litestar.testing import TestClient

Client = TestClient[Any]
Database = psycopg.Connection[Any]
LogIn = Callable[..., dict[str, str]]

DOCUMENT: dict[str, Any] = {
    "slug": "orders",
    "name": "Orders",
    "nodes": [
        {"id": "start", "type": "trigger.manual"},
        {"id": "big", "type": "logic.if", "config": {"condition": "trigger.payload.total > 100"}},
        {"id": "each", "type": "logic.loop", "config": {"items": "{{ trigger.payload.lines }}"}},
        {"id": "call", "type": "http.request", "config": {"url": "https://example.org/{{ item.sku }}"}},
        {"id": "done", "type": "logic.stop", "config": {"result": "{{ steps.each.output.count }}"}},
    ],
    "edges": [
        {"from": "start", "to": "big"},
        {"from": "big", "port": "true", "to": "each"},
        {"from": "each", "port": "each", "to": "call"},
        {"from": "each", "port": "done", "to": "done"},
    ],
}


@pytest.fixture
def designer(log_in: LogIn) -> dict[str, str]:
    return {**log_in("designer"), "accept": "application/json"}


@pytest.fixture
def tag(client: Client, designer: dict[str, str]) -> str:
    """The workflow stands as a draft; the mark of what was read."""
    form = {"document": json.dumps(DOCUMENT)}
    answer = client.post("/workflow-builder", data=form, headers=designer, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/workflow-builder/orders")
    saved = client.put("/workflow-builder/orders", json={"document": DOCUMENT, "over": True}, headers=designer)
    return str(saved.json()["tag"])


def test_a_document_is_checked_and_nothing_is_stored(client: Client, designer: dict[str, str], db: Database) -> None:
    broken = {**DOCUMENT, "nodes": [{"id": "big", "type": "logic.if", "config": {"condition": "trigger.payload."}}]}
    answer = client.post("/workflow-builder/orders/check", json={"document": broken}, headers=designer).json()
    assert "nodes[0].config.condition" in {problem["path"] for problem in answer["problems"]}
    assert answer["ports"] == {"big": ["true", "false"]}
    assert db.execute("select count(*) from stellwerk.workflow").fetchone() == (0,)


def test_ports_follow_the_settings(client: Client, designer: dict[str, str]) -> None:
    task = {"id": "task", "type": "task.user", "config": {"title": "?", "role": "staff", "outcomes": ["yes", "no"]}}
    document = {**DOCUMENT, "nodes": [task], "edges": []}
    answer = client.post("/workflow-builder/orders/check", json={"document": document}, headers=designer).json()
    assert answer["ports"] == {"task": ["next", "yes", "no", "timeout"]}


def test_of_two_who_have_read_the_same_only_one_saves(client: Client, designer: dict[str, str], tag: str) -> None:
    mine, theirs = {**DOCUMENT, "name": "Mine"}, {**DOCUMENT, "name": "Theirs"}
    first = client.put("/workflow-builder/orders", json={"document": theirs, "tag": tag}, headers=designer)
    assert first.status_code == 200
    second = client.put("/workflow-builder/orders", json={"document": mine, "tag": tag}, headers=designer)
    assert second.status_code == 412
    assert "designer@example.org" in second.json()["detail"]
    again = client.put(
        "/workflow-builder/orders", json={"document": mine, "tag": first.json()["tag"]}, headers=designer
    )
    assert again.status_code == 200


def test_a_new_workflow_does_not_take_the_place_of_another(client: Client, designer: dict[str, str], tag: str) -> None:
    answer = client.post("/workflow-builder", data={"name": "Orders", "slug": "orders"}, headers=designer)
    assert answer.status_code == 412
    assert "already" in answer.json()["detail"]


def test_expressions_are_shown_with_the_data_of_a_past_run(
    client: Client, designer: dict[str, str], tag: str, db: Database
) -> None:
    assert client.post("/workflow-builder/orders/publish", json={"version": 1}, headers=designer).json()["version"] == 1
    payload = {"total": 150, "lines": [{"sku": "a"}, {"sku": "b"}]}
    body = {"workflow_id": "orders", "payload": payload, "wait": 0}
    started = client.post("/workflow-builder/api/run", json=body, headers=designer).json()
    db.execute("select stellwerk.advance(%s)", [int(started["run_id"])])
    items = [
        {"text": "trigger.payload.total > 100", "condition": True},
        {"text": "{{ trigger.payload.lines[1].sku }}!"},
        {"text": "{{ item }}"},
        {"text": "{{ 1 / 0 }}"},
        {"text": "{{ oh"},
    ]
    question = {"run": started["run_id"], "loop": "each", "items": items}
    values = client.post("/workflow-builder/orders/values", json=question, headers=designer).json()["values"]
    assert values[:3] == [{"value": True}, {"value": "b!"}, {"value": {"sku": "a"}}]
    assert "value" in values[3] or "error" in values[3]
    assert values[4] == {}


def test_a_simulation_goes_the_real_way_and_leaves_nothing(
    client: Client, designer: dict[str, str], tag: str, db: Database
) -> None:
    counted = "select (select count(*) from stellwerk.run), (select count(*) from stellwerk.workflow_version)"
    before = db.execute(counted).fetchone()
    payload = {"total": 150, "lines": [{"sku": "a"}, {"sku": "b"}]}
    body = {"document": DOCUMENT, "payload": payload}
    result = client.post("/workflow-builder/orders/simulate", json=body, headers=designer).json()
    assert (result["state"], result["output"]) == ("completed", 2)
    visited = [step["node_id"] for step in result["steps"]]
    assert visited.count("call") == 2
    call = next(step for step in result["steps"] if step["node_id"] == "call")
    assert call["played"]
    assert call["output"]["status"] == 200
    assert db.execute(counted).fetchone() == before


def test_a_simulated_task_leaves_by_the_outcome_that_was_chosen(client: Client, designer: dict[str, str]) -> None:
    document = {
        "slug": "release",
        "nodes": [
            {"id": "row", "type": "trigger.row", "config": {"table": "public.orders"}},
            {
                "id": "ask",
                "type": "task.user",
                "config": {"title": "{{ trigger.row.id }}", "role": "staff", "outcomes": ["yes", "no"]},
            },
            {"id": "good", "type": "logic.transform", "config": {"output": "{{ trigger.row.id }}"}},
            {"id": "bad", "type": "logic.transform", "config": {"output": "bad"}},
        ],
        "edges": [
            {"from": "row", "to": "ask"},
            {"from": "ask", "port": "yes", "to": "good"},
            {"from": "ask", "port": "no", "to": "bad"},
        ],
    }
    body = {"document": document, "payload": {"id": 7}, "ports": {"ask": "yes"}}
    result = client.post("/workflow-builder/release/simulate", json=body, headers=designer).json()
    assert result["output"] == 7
    ask = next(step for step in result["steps"] if step["node_id"] == "ask")
    assert (ask["port"], ask["settings"]["title"]) == ("yes", 7)
    body["ports"] = {"ask": "no"}
    assert client.post("/workflow-builder/release/simulate", json=body, headers=designer).json()["output"] == "bad"


def test_a_broken_document_is_not_simulated(client: Client, designer: dict[str, str]) -> None:
    body = {"document": {"slug": "x", "nodes": []}, "payload": {}}
    assert client.post("/workflow-builder/x/simulate", json=body, headers=designer).status_code == 422


def test_only_designers_save_and_publish(client: Client, tag: str, log_in: LogIn) -> None:
    headers = {**log_in("viewer"), "accept": "application/json"}
    assert client.get("/workflow-builder/orders", headers=headers).status_code == 200
    assert client.put("/workflow-builder/orders", json={"document": DOCUMENT}, headers=headers).status_code == 403
    assert client.post("/workflow-builder/orders/publish", json={}, headers=headers).status_code == 403
    assert client.post("/workflow-builder/api/run", json={"workflow_id": "orders"}, headers=headers).status_code == 403
    assert client.get("/workflow-builder/nowhere", headers=headers).status_code == 404


def test_the_list_says_how_the_runs_went(client: Client, designer: dict[str, str], tag: str) -> None:
    page = {**designer, "accept": "text/html"}
    assert "1 error" not in client.get("/workflows", headers=page).text
    assert "Orders" in client.get("/workflows?q=ord", headers=page).text
    assert "Orders" not in client.get("/workflows?only=published", headers=page).text
    client.put("/workflow-builder/orders", json={"document": {**DOCUMENT, "nodes": []}, "over": True}, headers=designer)
    assert "1 error" in client.get("/workflows", headers=page).text


def test_runs_are_moved_after_a_look_at_the_verdicts(client: Client, tag: str, db: Database, log_in: LogIn) -> None:
    headers = {**log_in("admin"), "hx-request": "true"}
    client.post("/workflow-builder/orders/publish", json={}, headers=headers)
    run = {"workflow_id": "orders", "payload": {"total": 150, "lines": [{"sku": "a"}]}, "wait": 0}
    started = client.post("/workflow-builder/api/run", json=run, headers=headers).json()["run_id"]
    db.execute("select stellwerk.advance(%s)", [int(started)])
    client.put("/workflow-builder/orders", json={"document": {**DOCUMENT, "name": "2"}, "over": True}, headers=headers)
    client.post("/workflow-builder/orders/publish", json={}, headers=headers)
    versions = {"from": "1", "to": "2"}
    plan = client.post("/workflows/orders/migration-plan", data=versions, headers=headers)
    assert f"#{started}" in plan.text
    version = "select version from stellwerk.run where run_id = %s"
    assert db.execute(version, [int(started)]).fetchone() == (1,)
    moved = client.post("/workflows/orders/migration", data=versions, headers=headers)
    assert moved.status_code == 200
    assert db.execute(version, [int(started)]).fetchone() == (2,)


def test_scripts_are_kept_under_their_version(client: Client) -> None:
    answer = client.get("/scripts/abc/builder/main.js")
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    for path in ("/scripts/abc/builder/nothing.js", "/scripts/abc/vendor/x.js", "/scripts/abc/..%2Fbuilder/main.js"):
        assert client.get(path).status_code == 404
