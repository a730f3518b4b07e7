"""Public forms: taken at once, whatever becomes of them; limited; and data for ever."""

from __future__ import annotations

import json

import psycopg
import pytest
from database.helpers import document, node, transform
from web.alike import said

from stellwerk.web.forms import network_of

URLENCODED = {"content-type": "application/x-www-form-urlencoded"}


def workflow(slug: str = "contact", form: str | None = "contact", **more) -> dict:
    config = {"form": form} if form else None
    nodes = [node("form", "trigger.form_submit", config), transform("seen", "{{ trigger.payload }}")]
    return document(slug, nodes, ["form -> seen"], **more)


@pytest.fixture
def form(engine, make_workflow):
    """Set up the form `contact` and its workflow; returns its address."""

    def make(**settings) -> str:
        make_workflow(workflow())
        engine.set_form("contact", "contact", settings)
        return "/forms/default/contact"

    return make


def outputs(db, run_all) -> list:
    run_all(db)
    return [row[0] for row in db.execute("select output from stellwerk.run_overview order by run_id").fetchall()]


def test_json_starts_the_workflow(client, form, db, run_all, deliveries):
    answer = client.post(form(), json={"name": "Ada", "n": 1.50, "tags": ["a"]})
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (0,)  # answered before any work
    assert outputs(db, run_all) == [{"name": "Ada", "n": 1.50, "tags": ["a"]}]
    assert db.execute("select source, trigger_node from stellwerk.run").fetchone() == ("form", "form")
    assert deliveries()[0]["state"] == "processed"


def test_an_html_form_starts_the_workflow_and_is_thanked(client, form, db, run_all):
    body = "name=J%C3%BCrg+M&topic=a&topic=b&empty="
    answer = client.post(form(), content=body, headers={**URLENCODED, "accept": "text/html,*/*"})
    assert answer.status_code == 202
    assert answer.headers["content-type"].startswith("text/html")
    assert "Thank you" in answer.text
    answer = client.post(form(), files={"name": (None, "Ada"), "topic": (None, "x")})
    assert answer.status_code == 202
    assert outputs(db, run_all) == [
        {"name": "Jürg M", "topic": ["a", "b"], "empty": ""},
        {"name": "Ada", "topic": "x"},
    ]


def test_which_workflow_a_form_starts_is_a_setting(client, form, engine, make_workflow, db, run_all):
    address = form()
    make_workflow(workflow("other", form=None))
    client.post(address, json={"n": 1})
    run_all(db)
    engine.set_form("contact", "other")
    client.post(address, json={"n": 2})
    run_all(db)
    runs = db.execute("select workflow, payload -> 'n' from stellwerk.run_overview order by run_id").fetchall()
    assert runs == [("contact", 1), ("other", 2)]


def test_what_is_sent_is_data_for_ever(client, form, db, run_all):
    nasty = {"a": "{{ run.id }}", "{{ now }}": "${ vars.x }", "b": "<script>", "c": "'; drop table stellwerk.run; --"}
    client.post(form(), json=nasty)
    assert outputs(db, run_all) == [nasty]


def test_a_form_that_its_workflow_refuses_says_why(client, engine, make_workflow, db, run_all, deliveries):
    make_workflow(workflow(input_schema={"type": "object", "required": ["email"]}))
    engine.set_form("contact", "contact")
    assert client.post("/forms/default/contact", json={}).status_code == 202
    assert outputs(db, run_all) == []
    assert "email" in deliveries()[0]["reason"]
    make_workflow(workflow(form="another"))
    client.post("/forms/default/contact", json={"email": "a"})
    assert outputs(db, run_all) == []
    assert deliveries()[1]["reason"] == (
        "workflow contact has no published version with a trigger.form_submit for form contact"
    )


def test_the_answer_does_not_tell_whether_there_is_such_a_form(client, form, engine, make_workflow, deliveries):
    address = form(origins=["https://example.org"])
    make_workflow(workflow("off", form=None))
    engine.set_form("off", "off", {"enabled": False})
    answers = {}
    for where, headers, body in (
        (address, {"origin": "https://example.org"}, {"a": 1}),
        (address, {"origin": "https://evil.example"}, {"a": 1}),
        (address, {}, {"a": 1}),
        (address, {"origin": "https://example.org"}, {"a": 1, "website": "http://spam"}),
        ("/forms/default/off", {}, {"a": 1}),
        ("/forms/default/nothing", {}, {"a": 1}),
        ("/forms/nobody/contact", {}, {"a": 1}),
        ("/forms/nobody/%00", {}, {"a": 1}),
    ):
        answer = client.post(where, json=body, headers=headers)
        answers[where, str(headers), str(body)] = said(answer)
    assert len({str(answer) for answer in answers.values()}) == 1, answers
    assert next(iter(answers.values()))[0] == 202
    assert [(row["state"], row["payload"]) for row in deliveries()] == [("pending", {"a": 1}), ("ignored", {"a": 1})]


def test_the_same_is_written_whether_or_not_there_is_such_a_form(db, dsn, form):
    """Two counts and one row, so that the time it takes tells nothing; a row that nobody wants goes in the same breath."""
    form(origins=["https://example.org"])
    written = []
    for number, (tenant, name, origin) in enumerate(
        (
            ("default", "contact", "https://example.org"),
            ("default", "contact", "https://evil.example"),
            ("default", "nothing", "https://example.org"),
            ("nobody", "contact", None),
        )
    ):
        with psycopg.connect(dsn) as web:
            web.execute(
                "select stellwerk.take_submission(%s, %s, %s, %s, '192.0.2.1', %s)",
                [tenant, name, '{"a": "' + "x" * 9000 + '"}', origin, f"key {number}"],
            )
            written.append(
                web.execute(
                    "select relname, n_tup_ins + n_tup_upd from pg_stat_xact_user_tables"
                    " where schemaname = 'stellwerk' and n_tup_ins + n_tup_upd > 0 order by 1"
                ).fetchall()
            )
    assert written == [[("request_count", 2), ("webhook_delivery", 1)]] * 4
    assert db.execute("select tenant_id, state from stellwerk.webhook_delivery").fetchall() == [(1, "pending")]


@pytest.mark.parametrize("address", ["/forms/default/contact", "/forms/nobody/nothing"])
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"a": 1, "a": 2}', "application/json", 400),
        (b'{"a": "\\u0000"}', "application/json", 400),
        (b'{"a": "\\ud800"}', "application/json", 400),
        (b'{"a": 1e999}', "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "application/json", 400),
        (b"a=%00", "application/x-www-form-urlencoded", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % number for number in range(201)), "application/x-www-form-urlencoded", 400),
        (b"x", "text/plain", 415),
        (b"--b\r\n\r\n", "multipart/form-data", 400),
        (b"x" * (256 * 1024 + 1), "application/json", 413),
    ],
)
def test_what_cannot_be_read_is_refused_alike_everywhere(client, form, deliveries, address, body, kind, status):
    form()
    answer = client.post(address, content=body, headers={"content-type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert deliveries() == []


def test_files_are_not_taken(client, form, deliveries):
    answer = client.post(form(), files={"cv": ("cv.pdf", b"%PDF")}, data={"name": "Ada"})
    assert (answer.status_code, answer.json()["detail"]) == (415, "files are not taken here")
    assert deliveries() == []


def test_a_filled_honeypot_starts_nothing_and_can_be_replayed(client, form, engine, db, run_all, deliveries):
    address = form(honeypot="fax")
    client.post(address, json={"name": "Bot", "fax": "1"})
    client.post(address, json={"name": "Ada", "fax": ""})
    assert outputs(db, run_all) == [{"name": "Ada"}]
    assert deliveries()[0]["reason"] == "the hidden field 'fax' was filled in"
    engine.replay_delivery(deliveries()[0]["delivery_id"])  # a person looked, and it was none
    assert outputs(db, run_all) == [{"name": "Ada"}, {"name": "Bot"}]


def test_an_address_may_send_twenty_times_a_minute_to_a_form_that_exists_or_not(client, form):
    real, none = form(), "/forms/nobody/nothing"
    seen = {where: [client.post(where, json={}).status_code for _ in range(22)] for where in (real, none)}
    assert seen == {real: [202] * 20 + [429] * 2, none: [202] * 20 + [429] * 2}
    answers = [client.post(where, json={}) for where in (real, none)]
    assert answers[0].headers["retry-after"] == "60"
    assert said(answers[0]) == said(answers[1])


def test_a_form_above_its_own_limit_keeps_what_comes_and_starts_nothing(client, form, db, run_all, deliveries):
    address = form(max_count=2, per="PT1H")
    for number in range(4):
        assert client.post(address, json={"n": number}).status_code == 202
    assert outputs(db, run_all) == [{"n": 0}, {"n": 1}]
    assert [row["state"] for row in deliveries()] == ["processed", "processed", "ignored", "ignored"]
    assert "more than 2 submissions within" in deliveries()[2]["reason"]
    db.execute("update stellwerk.request_count set begun_at = begun_at - interval '1 hour'")
    client.post(address, json={"n": 9})
    assert outputs(db, run_all)[-1] == {"n": 9}


def test_a_flood_is_not_even_kept(client, form, db, deliveries):
    address = form(max_count=1)
    for _ in range(15):
        assert client.post(address, json={}).status_code == 202
    assert len(deliveries()) == 10


def test_a_form_that_is_sent_twice_with_one_key_starts_one_run(client, form, db, run_all):
    address = form()
    for key in ("k1", "k1", "k2"):
        answer = client.post(address, json={"key": key}, headers={"idempotency-key": key})
        assert answer.status_code == 202
    assert outputs(db, run_all) == [{"key": "k1"}, {"key": "k2"}]


def test_browsers_may_ask_first(client, form):
    asks = {"origin": "https://a.example", "access-control-request-method": "POST"}
    real, none = client.options(form(), headers=asks), client.options("/forms/nobody/nothing", headers=asks)
    assert said(real) == said(none)
    assert (real.status_code, real.headers["access-control-allow-origin"]) == (204, "*")


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_what_is_counted_of_an_address(address, counted):
    assert network_of(address) == counted


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Contact", "contact"), "no name for a form"),
        (("contact", "nothing"), "there is no workflow"),
        (("contact", "contact", {"colour": 1}), "unknown settings of a form"),
        (("contact", "contact", {"origins": ["example.org/contact"]}), "an origin is a scheme and a host"),
        (("contact", "contact", {"max_count": 0}), "at least one"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(engine, make_workflow, arguments, said):
    from stellwerk.errors import StellwerkError

    make_workflow(workflow())
    with pytest.raises(StellwerkError, match=said):
        engine.set_form(*arguments)


def test_forms_are_set_up_on_the_command_line(stellwerk, dsn, make_workflow, client):
    make_workflow(workflow())
    arguments = ["form", "set", "contact", "contact", "--origin", "https://Example.org", "--count", "5"]
    status, out, _ = stellwerk(*arguments, dsn=dsn)
    assert (status, out) == (0, "What is sent to http://127.0.0.1:8000/forms/default/contact starts contact.\n")
    status, out, _ = stellwerk("form", "list", "--json", dsn=dsn)
    (row,) = json.loads(out)
    assert (row["workflow"], row["origins"], row["max_count"], row["per"]) == (
        "contact", ["https://example.org"], 5, "PT1M"
    )  # fmt: skip
    assert stellwerk("form", "remove", "contact", dsn=dsn)[0] == 0
    assert stellwerk("form", "remove", "contact", dsn=dsn)[0] == 1
