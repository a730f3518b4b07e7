"""The pages of runs, bulk operations, events and schedules: what they show, and what can be done there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from database.helpers import START, document, node, run, start, transform
from litestar.testing import TestClient

pytestmark = pytest.mark.one_server

Client = TestClient[Any]
Database = psycopg.Connection[Any]
PART = {"hx-request": "true"}


@pytest.fixture
def intake(make_workflow: Callable[..., str], db: Database, run_all: Callable[..., int]) -> list[int]:
    """Three runs: one waits, one has failed, one of them holds markup."""
    make_workflow(
        document(
            "intake",
            [
                START,
                transform("price", "{{ 100 / trigger.payload.divisor }}"),
                node("sure", "logic.wait", {"event": "confirmed", "correlation": "{{ trigger.payload.name }}"}),
                transform("end", {"ok": True}),
            ],
            ["start -> price", "price -> sure", "sure -> end"],
        )
    )
    runs = [
        start(db, "intake", {"name": "keller", "divisor": 4}, key="order-1"),
        start(db, "intake", {"name": "roth", "divisor": 0}),
        start(db, "intake", {"name": "<script>alert(1)</script>", "divisor": 1}),
    ]
    run_all(db)
    return runs


def test_the_list_filters_by_state_key_words_and_time(client: Client, log_in: Any, intake: list[int]) -> None:
    headers = log_in()

    def listed(**query: str) -> list[int]:
        page = client.get("/runs", params=query, headers={**headers, **PART})
        assert page.status_code == 200, page.text
        return [number for number in intake if f'id="run-{number}"' in page.text]

    first, second, third = intake
    assert listed() == intake
    assert listed(state="failed") == [second]
    assert listed(state="waiting") == [first, third]
    assert listed(key="order-1") == [first]
    assert listed(text="kell") == [first]
    assert listed(text="roth 0", state="failed") == [second]
    assert listed(since="2020-01-01T00:00", workflow="intake") == intake
    assert listed(until="2020-01-01T00:00") == []
    assert client.get("/runs", params={"state": "odd"}, headers=headers).status_code == 422


def test_what_came_from_outside_is_escaped(client: Client, log_in: Any, intake: list[int]) -> None:
    headers = log_in()
    for path in ("/runs", f"/runs/{intake[2]}", f"/runs/{intake[2]}/nodes/price"):
        page = client.get(path, headers=headers)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert 'style="' not in page.text


def test_a_run_shows_its_graph_its_timeline_and_why(client: Client, log_in: Any, intake: list[int]) -> None:
    headers = log_in()
    page = client.get(f"/runs/{intake[0]}", headers=headers).text
    assert "waits for the event confirmed" in page
    assert page.count('class="place"') == 3
    assert 'class="place ghost"' in page
    assert page.count('class="taken"') == 1
    assert page.count('class="now"') == 1
    assert page.count('id="step-') == 3
    failed = client.get(f"/runs/{intake[1]}/nodes/price", headers={**headers, **PART}).text
    assert "division by zero" in failed
    assert "Retry from here" in failed
    assert "trigger.payload" in failed
    assert client.get("/runs/999999", headers=headers).status_code == 404
    assert client.get(f"/runs/{intake[0]}/steps/999999", headers=headers).status_code == 404


def test_a_run_is_steered_from_its_page(
    client: Client, log_in: Any, db: Database, intake: list[int], run_all: Callable[..., int]
) -> None:
    headers = {**log_in("operator"), **PART}
    waiting, failed, other = intake

    def do(path: str, **data: str) -> Any:
        answer = client.post(path, data=data, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.text

    assert "is paused" in do(f"/runs/{waiting}/pause")
    assert run(db, waiting)["state"] == "paused"
    do(f"/runs/{waiting}/resume")
    step = db.execute("select step_id from stellwerk.wait where run_id = %s", [waiting]).fetchone()
    assert step
    form = client.get(f"/runs/{waiting}/act/signal?step={step[0]}", headers=headers).text
    assert 'value="keller"' in form
    do(f"/runs/{waiting}/signal", event="confirmed", correlation="keller", payload="{}")
    assert "divisor" in client.get(f"/runs/{failed}/act/edit", headers=headers).text
    assert client.post(f"/runs/{failed}/edit", data={"payload": "{"}, headers=headers).status_code == 422
    do(f"/runs/{failed}/edit", payload='{"name": "roth", "divisor": 2}')
    assert '<option value="price">' in client.get(f"/runs/{failed}/act/retry", headers=headers).text
    assert 'name="reason"' in client.get(f"/runs/{waiting}/act/cancel", headers=headers).text
    assert client.get(f"/runs/{waiting}/act/odd", headers=headers).status_code == 404
    assert "price" in client.get(f"/runs/{failed}/plan", headers=headers).text
    do(f"/runs/{failed}/retry", from_node="", version="")
    step = db.execute("select step_id from stellwerk.wait where run_id = %s", [other]).fetchone()
    assert step
    assert "<option>next" in client.get(f"/runs/{other}/act/skip?step={step[0]}", headers=headers).text
    do(f"/runs/{other}/skip", step=str(step[0]), output='{"by": "hand"}', port="next")
    run_all(db)
    assert [run(db, number)["state"] for number in intake] == ["completed", "waiting", "completed"]
    do(f"/runs/{failed}/cancel", reason="not needed")
    assert run(db, failed)["reason"] == "not needed"
    assert client.post(f"/runs/{failed}/cancel", data={}, headers=headers).status_code == 409


def test_who_may_not_steer_is_not_offered_it(client: Client, log_in: Any, intake: list[int]) -> None:
    headers = log_in("viewer")
    page = client.get(f"/runs/{intake[0]}", headers=headers).text
    assert "act-cancel" not in page
    assert "/act/signal" not in page
    assert client.post(f"/runs/{intake[0]}/pause", headers=headers).status_code == 403
    assert client.get("/bulk", headers=headers).status_code == 403


def test_another_tenants_runs_are_not_there(client: Client, log_in: Any, db: Database, intake: list[int]) -> None:
    db.execute("insert into stellwerk.tenant (slug, name) values ('other', 'Other')")
    db.execute(
        "insert into stellwerk.tenant_role (tenant_id, role_name)"
        " select t.tenant_id, 'stellwerk_web' from stellwerk.tenant t where t.slug = 'other' on conflict do nothing"
    )
    headers = log_in(tenant="other", email="eve@example.org")
    assert client.get(f"/runs/{intake[0]}", headers=headers).status_code == 404
    assert client.get(f"/live/runs/{intake[0]}", headers=headers).status_code == 404
    assert "keller" not in client.get("/runs", headers=headers).text


def test_a_bulk_operation_is_counted_begun_and_watched(
    client: Client, log_in: Any, db: Database, intake: list[int]
) -> None:
    headers = {**log_in("operator"), **PART}
    assert client.post("/bulk", data={"action": "cancel"}, headers=headers).status_code == 422
    counted = client.post("/bulk", data={"action": "cancel", "state": "waiting", "text": "keller"}, headers=headers)
    place = counted.headers["hx-redirect"]
    assert "1 runs fit" in client.get(place, headers=headers).text
    assert run(db, intake[0])["state"] == "waiting"
    assert "load delay:1s" in client.post(f"{place}/begin", headers=headers).text
    db.execute("select stellwerk.tick()")
    page = client.get(place, headers=headers).text
    assert "1 of 1 runs handled: 1 done" in page
    assert "load delay:1s" not in page
    assert [run(db, number)["state"] for number in intake] == ["cancelled", "failed", "waiting"]
    other = client.post("/bulk", data={"action": "retry", "workflow": "intake"}, headers=headers).headers["hx-redirect"]
    client.post(f"{other}/stop", headers=headers)
    assert client.post(f"{other}/begin", headers=headers).status_code == 409
    assert place in client.get("/bulk", headers=headers).text


def test_ten_thousand_steps_are_shown_a_window_at_a_time(
    client: Client, log_in: Any, db: Database, make_workflow: Callable[..., str], run_all: Callable[..., int]
) -> None:
    make_workflow(
        document(
            "many",
            [
                START,
                node("each", "logic.loop", {"items": "{{ trigger.payload.items }}", "parallel": 100}),
                transform("one", "{{ item }}"),
            ],
            ["start -> each", "each.each -> one", "one -> each"],
        )
    )
    number = start(db, "many", {"items": list(range(500))})
    run_all(db)
    headers = log_in()
    page = client.get(f"/runs/{number}", headers=headers).text
    assert page.count('id="step-') == 200
    assert "500 of 500 items" in page
    earlier = page.partition("/steps?before=")[2].partition('"')[0]
    part = client.get(f"/runs/{number}/steps?before={earlier}", headers={**headers, **PART}).text
    assert part.count('id="step-') == 200
    assert set(_steps(part)).isdisjoint(_steps(page))


def _steps(page: str) -> list[str]:
    return [piece.partition('"')[0] for piece in page.split('id="step-')[1:]]


def test_events_show_the_difference_and_are_replayed(
    client: Client, log_in: Any, db: Database, make_workflow: Callable[..., str], run_all: Callable[..., int]
) -> None:
    db.execute("create table public.orders (id int primary key, status text, note text)")
    db.execute(
        "do $$ begin if to_regrole('stellwerk_owner') is not null then"
        " grant select, trigger on public.orders to stellwerk_owner; end if; end $$"
    )
    db.execute("select stellwerk.register_table('public.orders')")
    make_workflow(
        document(
            "paid",
            [
                node("row", "trigger.row", {"table": "public.orders", "on": ["update"], "when": "new.status = 'paid'"}),
                transform("end", 1),
            ],
            ["row -> end"],
        )
    )
    db.execute("select stellwerk.watch_table('public.orders', 'paid', '{update}', $$new.status = 'paid'$$)")
    db.execute("insert into public.orders values (7, 'new', '<b>bold</b>')")
    db.execute("update public.orders set status = 'paid'")
    run_all(db)
    headers = log_in()
    found = db.execute("select event_id, run_id from stellwerk.event").fetchone()
    assert found
    event, started = found
    page = client.get("/events", params={"state": "processed", "record": "7"}, headers=headers).text
    assert f'id="event-{event}"' in page
    assert f"/runs/{started}" in page
    assert f'id="event-{event}"' not in client.get("/events", params={"operation": "delete"}, headers=headers).text
    page = client.get(f"/events/{event}", headers=headers).text
    assert page.count('class="changed"') == 1
    assert "<b>bold" not in page
    assert f'href="/events/{event}"' in client.get(f"/runs/{started}", headers=headers).text
    assert client.post(f"/events/{event}/replay", headers=headers).status_code == 409
    db.execute("update stellwerk.event_log set state = 'failed', run_id = null, reason = 'broken'")
    assert client.post(f"/events/{event}/replay", headers={**headers, **PART}).status_code == 204
    run_all(db)
    assert db.execute("select state from stellwerk.event").fetchone() == ("processed",)


def test_schedules_are_held_started_and_made_up_for(
    client: Client, log_in: Any, db: Database, make_workflow: Callable[..., str]
) -> None:
    make_workflow(
        document(
            "nightly", [node("at", "trigger.schedule", {"cron": "30 2 * * *"}), transform("end", 1)], ["at -> end"]
        )
    )
    headers = {**log_in("operator"), **PART}
    assert "30 2 * * *" in client.get("/schedules", headers=headers).text
    (number,) = db.execute("select schedule_id from stellwerk.schedule").fetchone() or (0,)
    place = f"/schedules/{number}"
    assert client.get(f"{place}/times", headers=headers).text.count("<li>") == 10
    assert "/resume" in client.post(f"{place}/pause", headers=headers).text
    assert "/pause" in client.post(f"{place}/resume", headers=headers).text
    assert "is started" in client.post(f"{place}/run", headers=headers).text
    past = {"since": "2026-01-01T00:00:00.000Z", "until": "2026-01-04T00:00:00.000Z"}
    assert "3 runs are started" in client.post(f"{place}/backfill", data=past, headers=headers).text
    assert client.post(f"{place}/backfill", data={}, headers=headers).status_code == 422
    assert client.get("/schedules/999/times", headers=headers).status_code == 404


def test_runs_that_fit_a_filter_are_moved_to_another_version(
    client: Client,
    log_in: Any,
    db: Database,
    intake: list[int],
    make_workflow: Callable[..., str],
) -> None:
    asked, paid = (node(name, "logic.wait", {"event": name, "correlation": "x"}) for name in ("asked", "paid"))
    make_workflow(document("intake", [START, asked, paid], ["start -> asked", "asked -> paid"]))
    headers = {**log_in("operator"), **PART}
    wish = {"action": "migrate", "workflow": "intake", "state": "waiting"}
    form = client.get("/bulk/order", params=wish, headers=headers).text
    assert '<option value="2">2 · active' in form
    assert "Choose a workflow" in client.get("/bulk/order", params={"action": "migrate"}, headers=headers).text
    assert client.get("/bulk/order", params={"action": "odd"}, headers=headers).status_code == 404
    place = client.post("/bulk", data={**wish, "version": "2"}, headers=headers).headers["hx-redirect"]
    draft = client.get(place, headers=headers).text
    assert "2 need a counterpart" in draft
    assert 'name="map.sure"' in draft
    client.cookies.set("language", "de")
    assert "hat in Version 2 keine Entsprechung; möglich wäre asked, paid" in client.get(place, headers=headers).text
    client.cookies.set("language", "en")
    again = client.post(f"{place}/map", data={"map.sure": "asked"}, headers=headers).headers["hx-redirect"]
    assert "2 can move" in client.get(again, headers=headers).text
    assert client.post(f"{place}/begin", headers=headers).status_code == 409, "the draft before is discarded"
    client.post(f"{again}/begin", headers=headers)
    db.execute("select stellwerk.tick()")
    assert [run(db, number)["version"] for number in intake] == [2, 1, 2]


def test_a_refused_retry_leads_to_the_caller(
    client: Client, log_in: Any, db: Database, make_workflow: Callable[..., str], run_all: Callable[..., int]
) -> None:
    make_workflow(document("inner", [START, transform("price", "{{ 1 / 0 }}")], ["start -> price"]))
    call = node("ask", "logic.call", {"workflow": "inner"})
    make_workflow(document("outer", [START, call], ["start -> ask"]))
    outer = start(db, "outer")
    run_all(db)
    (inner,) = db.execute("select run_id from stellwerk.run where parent_run_id = %s", [outer]).fetchone() or (0,)
    headers = {**log_in("operator"), **PART}
    assert f'href="/runs/{outer}"' in client.get(f"/runs/{inner}/act/retry", headers=headers).text
    refused = client.post(f"/runs/{inner}/retry", data={}, headers=headers)
    assert refused.status_code == 409
    assert f'Retry run <a class="link" href="/runs/{outer}">{outer}</a> instead' in refused.text
    client.cookies.set("language", "de")
    refused = client.post(f"/runs/{inner}/retry", data={}, headers=headers)
    client.cookies.delete("language")
    assert f'Wiederholen Sie stattdessen Lauf <a class="link" href="/runs/{outer}">' in refused.text
    # What is refused to one run is refused to it among many.
    place = client.post("/bulk", data={"action": "retry", "workflow": "inner"}, headers=headers).headers["hx-redirect"]
    client.post(f"{place}/begin", headers=headers)
    db.execute("select stellwerk.tick()")
    assert "0 done, 1 skipped" in client.get(place, headers=headers).text
