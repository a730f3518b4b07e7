"""Webhooks over HTTP: stored and acknowledged when genuine, refused all alike when not."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import subprocess
import sys

import httpx2
import pytest
from database.helpers import document, node, transform
from litestar.testing import TestClient
from web.alike import said
from web.conftest import SECRET
from web.processes import web_processes

from stellwerk.integrations import signatures
from stellwerk.integrations.sealing import Seals, hook_purpose
from stellwerk.settings import Settings
from stellwerk.web.app import make_app

BODY = b'{"type": "order.paid",  "n": 1}'


def workflow(source: str) -> dict:
    nodes = [node("begin", "trigger.webhook", {"source": source}), transform("seen", "{{ trigger.payload }}")]
    return document("orders", nodes, ["begin -> seen"])


def test_a_genuine_webhook_is_stored_as_it_came(client, source, signed, deliveries):
    answer = client.post(source("shop"), content=BODY, headers={**signed(BODY), "x-other": "not kept"})
    assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    (row,) = deliveries()
    assert (row["kind"], row["source"], row["key"], row["state"]) == ("webhook", "shop", "msg_1", "pending")
    assert bytes(row["body"]) == BODY
    assert (row["content_type"], row["headers"]) == ("application/json", {"webhook-id": "msg_1"})
    assert (row["run_ids"], row["outcomes"]) == ([], [])  # acknowledged before any work


def test_it_starts_its_workflow(client, source, signed, db, make_workflow, run_all, deliveries):
    make_workflow(workflow("shop"))
    client.post(source("shop"), content=BODY, headers=signed(BODY))
    run_all(db)
    assert db.execute("select state, output from stellwerk.run_overview").fetchall() == [
        ("completed", {"type": "order.paid", "n": 1})
    ]
    assert deliveries()[0]["state"] == "processed"


@pytest.mark.parametrize("scheme", signatures.SCHEMES)
def test_every_scheme_works_over_http(client, source, signed, deliveries, scheme):
    secret = signatures.new_secret(scheme)
    address = source("shop", scheme, secret)
    headers = signed(BODY, scheme=scheme, secret=secret)
    assert client.post(address, content=BODY, headers=headers).status_code == 202
    assert client.post(address, content=BODY + b" ", headers=headers).status_code == (202 if scheme == "token" else 401)
    assert secret not in json.dumps([row["headers"] for row in deliveries()])


def test_resends_headers_are_taken(client, source, signed, deliveries):
    headers = {name.replace("webhook-", "svix-"): value for name, value in signed(BODY, number="msg_svix").items()}
    assert client.post(source("mail", kind="email"), content=BODY, headers=headers).status_code == 202
    assert deliveries()[0]["key"] == "msg_svix"


def test_the_former_secret_is_good_beside_the_new_one(client, source, signed):
    new = signatures.new_secret("standard")
    address = source("shop", "standard", new, signatures.new_secret("standard"))
    assert client.post(address, content=BODY, headers=signed(BODY)).status_code == 401
    address = source("shop", "standard", new, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert client.post(address, content=BODY, headers=signed(BODY)).status_code == 202
    assert client.post(address, content=BODY, headers=signed(BODY, secret=new, number="m2")).status_code == 202


def refusals(source, signed, engine) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """Every way of being refused: what is asked, and how."""
    good = signed(BODY)
    address = source("shop")
    source("off", enabled=False)
    engine.set_webhook_source("bare", "standard", [])
    engine.set_webhook_source("sealed-elsewhere", "standard", ["gAAAA" + "x" * 95])
    text = good["webhook-signature"]
    moved = engine.value("select secrets from stellwerk.webhook_source where source = 'shop'")
    engine.set_webhook_source("moved", "standard", moved)  # a sealed secret in another row opens nothing
    slack = source("slack", "slack", "a-slack-secret")
    ways = {
        "unknown tenant": ("/hooks/nobody/shop", BODY, good),
        "unknown source": ("/hooks/default/nothing", BODY, good),
        "both unknown": ("/hooks/nobody/nothing", BODY, good),
        "no name": ("/hooks/default/%00%0a", BODY, good),
        "a long name": ("/hooks/" + "x" * 500 + "/shop", BODY, good),
        "disabled": ("/hooks/default/off", BODY, good),
        "without a secret": ("/hooks/default/bare", BODY, good),
        "sealed with another key": ("/hooks/default/sealed-elsewhere", BODY, good),
        "sealed for another source": ("/hooks/default/moved", BODY, good),
        "wrong": (address, BODY, signed(BODY, secret=signatures.new_secret("standard"))),
        "another body": (address, BODY + b" ", good),
        "re-encoded body": (address, json.dumps(json.loads(BODY)).encode(), good),
        "missing": (address, BODY, {"content-type": "application/json"}),
        "old": (address, BODY, signed(BODY, age=301)),
        "from the future": (address, BODY, signed(BODY, age=-310)),
        "under another number": (address, BODY, {**good, "webhook-id": "msg_2"}),
        "re-encoded signature": (address, BODY, {**good, "webhook-signature": "v1," + base64.b64decode(text[3:]).hex()}),
        "without padding": (address, BODY, {**good, "webhook-signature": text.rstrip("=")}),
        "of another scheme": (slack, BODY, good),
        "a challenge without a signature": (slack, b'{"type": "url_verification", "challenge": "c"}', {}),
        "an empty body": (address, b"", good),
        "letters that are no ascii": (address, BODY, {**good, "webhook-signature": "v1,\xe9"}),
    }  # fmt: skip
    for part in ("id", "timestamp", "signature"):
        ways[f"without {part}"] = (address, BODY, {k: v for k, v in good.items() if k != f"webhook-{part}"})
    return ways


def test_every_refusal_is_the_same_to_the_last_byte(client, source, signed, engine, deliveries):
    answers = {}
    for way, (address, body, headers) in refusals(source, signed, engine).items():
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        answer = client.post(address, content=body, headers=raw)
        answers[way] = said(answer)
    assert {status for status, _, _ in answers.values()} == {401}, answers
    assert len({str(answer) for answer in answers.values()}) == 1
    assert answers["wrong"][1] == (
        b'{"type":"about:blank","title":"Unauthorized","status":401,"detail":"this delivery could not be verified",'
        b'"request_id":""}'
    )
    assert deliveries() == []
    # And the good one, which all of these are made of, is taken.
    assert client.post("/hooks/default/shop", content=BODY, headers=signed(BODY)).status_code == 202


def test_a_refusal_opens_as_many_secrets_and_digests_as_a_real_look(client, source, signed, monkeypatch):
    """The same steps in the same number, whatever is missing."""
    from stellwerk.integrations.sealing import Seals

    steps: list[str] = []
    digest, unseal = signatures.hmac.digest, Seals.unseal
    monkeypatch.setattr(signatures.hmac, "digest", lambda *a: (steps.append("digest"), digest(*a))[1])
    monkeypatch.setattr(Seals, "unseal", lambda *a: (steps.append("open"), unseal(*a))[1])
    seen = set()
    for address in (
        source("shop"),
        source("tok", "token", "a-fixed-token"),
        "/hooks/default/nothing",
        "/hooks/nobody/a",
    ):
        steps.clear()
        headers = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
        client.post(address, content=BODY, headers=headers)
        seen.add(tuple(steps))
    assert seen == {("open", "open", "digest", "digest")}


def test_other_methods_tell_nothing_either(client, source):
    address = source("shop")
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        real, none = client.request(method, address), client.request(method, "/hooks/nobody/nothing")
        assert said(real) == said(none)


def test_a_body_above_one_megabyte_is_refused_before_anything_is_looked_up(client, source, signed, deliveries):
    largest = b'"' + b"x" * (1024 * 1024 - 2) + b'"'
    address = source("shop")
    assert client.post(address, content=largest, headers=signed(largest)).status_code == 202
    over = largest + b" "
    answers = [client.post(where, content=over, headers=signed(over)) for where in (address, "/hooks/nobody/nothing")]
    assert [answer.status_code for answer in answers] == [413, 413]
    assert said(answers[0]) == said(answers[1])

    def chunks():  # without a content-length
        for _ in range(20):
            yield b"x" * 65536

    assert client.post(address, content=chunks(), headers=signed(b"")).status_code == 413
    assert len(deliveries()) == 1


def test_a_replayed_delivery_changes_nothing(client, source, signed, db, make_workflow, run_all, deliveries):
    make_workflow(workflow("shop"))
    address, headers = source("shop"), signed(BODY)
    for _ in range(3):
        assert client.post(address, content=BODY, headers=headers).status_code == 202
        run_all(db)
    # Signed anew by the sender, who heard no answer: still the same delivery.
    assert client.post(address, content=BODY, headers=signed(BODY, age=5)).status_code == 202
    run_all(db)
    assert len(deliveries()) == 1
    assert db.execute("select count(*) from stellwerk.run").fetchone() == (1,)


def test_a_number_that_is_not_signed_cannot_make_a_second_delivery(client, source, signed, deliveries):
    secret = signatures.new_secret("hmac")
    address = source("shop", "hmac", secret, key_at="header:x-delivery")
    headers = signed(BODY, scheme="hmac", secret=secret)
    for number in ("1", "2", "3"):
        assert client.post(address, content=BODY, headers={**headers, "x-delivery": number}).status_code == 202
    assert [row["key"] for row in deliveries()] == ["1"]


def test_slack_hears_its_challenge_again(client, source, signed, deliveries):
    body = b'{"token": "x", "challenge": "3eZbrw1aB10FEMAGAZd4FyFQ", "type": "url_verification"}'
    headers = signed(body, scheme="slack", secret="a-slack-secret")
    answer = client.post(source("slack", "slack", "a-slack-secret"), content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB10FEMAGAZd4FyFQ"})
    assert deliveries() == []


def test_secrets_stand_in_no_log(client, source, signed, engine, caplog, db):
    caplog.set_level(logging.DEBUG)
    secret = signatures.new_secret("token")
    address = source("shop", "token", secret)
    client.post(address, content=BODY, headers={"authorization": f"Bearer {secret}"})
    client.post(address, content=BODY, headers={"authorization": f"Bearer {secret}x"})
    assert "refused a webhook for 'shop' of tenant 'default': the signature is wrong" in caplog.text
    assert secret not in caplog.text
    dump = db.execute("""
        select jsonb_agg(to_jsonb(d))::text || (select jsonb_agg(to_jsonb(s))::text from stellwerk.webhook_source s)
               || (select jsonb_agg(to_jsonb(a))::text from stellwerk.audit_log a)
          from stellwerk.webhook_delivery d""").fetchone()[0]
    assert secret not in dump


def test_without_keys_everything_is_refused(dsn, source, signed, tmp_path):
    address = source("shop")
    (tmp_path / "file").write_text("")
    for settings in (
        Settings(home=tmp_path / "file" / "no-folder"),
        Settings(home=tmp_path, secret_keys=("nonsense",)),
    ):
        with TestClient(make_app(dsn, settings)) as client:
            assert client.post(address, content=BODY, headers=signed(BODY)).status_code == 401


def test_a_tenant_that_is_not_opened_to_the_web_is_unknown_to_it(client, source, signed, db):
    address = source("shop")
    db.execute("delete from stellwerk.tenant_role where role_name = 'stellwerk_web'")
    assert client.post(address, content=BODY, headers=signed(BODY)).status_code == 401


def test_a_new_tenant_is_open_to_the_web_by_itself(client, signed, db, engine, settings):
    (tenant_id,) = db.execute(
        "insert into stellwerk.tenant (slug, name) values ('other', 'Other') returning tenant_id"
    ).fetchone()
    opened = db.execute("select role_name from stellwerk.tenant_role where tenant_id = %s order by 1", [tenant_id])
    assert opened.fetchall() == [("stellwerk_web",), ("stellwerk_worker",)]
    db.execute("set stellwerk.tenant = 'other'")
    sealed = Seals.from_settings(settings).seal(hook_purpose(tenant_id, "shop"), SECRET)
    engine.set_webhook_source("shop", "standard", [sealed])
    assert client.post("/hooks/other/shop", content=BODY, headers=signed(BODY)).status_code == 202
    assert client.post("/hooks/default/shop", content=BODY, headers=signed(BODY)).status_code == 401


@pytest.mark.one_server
def test_without_a_database_the_sender_is_told_to_come_again(settings, signed, monkeypatch):
    monkeypatch.setattr("stellwerk.web.intake.WAIT_SECONDS", 0.2)
    with TestClient(make_app("host=127.0.0.1 port=1 dbname=none", settings)) as client:
        answer = client.post("/hooks/default/shop", content=BODY, headers=signed(BODY))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.headers["content-type"] == "application/problem+json"


# -- with processes ---------------------------------------------------------------------------------------------------


async def post_all(addresses: list[str], path: str, count: int, **more) -> list[int]:
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=count), timeout=30) as http:
        answers = await asyncio.gather(
            *(http.post(addresses[number % len(addresses)] + path, **more) for number in range(count))
        )
    return [answer.status_code for answer in answers]


def test_a_hundred_equal_deliveries_at_once_are_one_run(
    dsn, db, settings, source, signed, make_workflow, run_all, deliveries
):
    make_workflow(workflow("shop"))
    path, headers = source("shop"), signed(BODY)
    with web_processes(dsn, settings, 2) as addresses:
        statuses = asyncio.run(post_all(addresses, path, 100, content=BODY, headers=headers))
        assert statuses == [202] * 100
        forms = asyncio.run(post_all(addresses, "/forms/nobody/nothing", 30, json={"a": 1}))
    # The limit of an address is one for all processes.
    assert sorted(forms) == [202] * 20 + [429] * 10
    run_all(db)
    assert len(deliveries()) == 1
    assert db.execute("select count(*), min(state) from stellwerk.run").fetchone() == (1, "completed")


@pytest.mark.one_server
def test_a_worker_starts_the_run_within_a_moment(dsn, db, settings, source, signed, make_workflow, wait_until):
    make_workflow(workflow("shop"))
    path = source("shop")
    worker = subprocess.Popen(
        [sys.executable, "-m", "stellwerk", "worker"],
        env={**os.environ, "DATABASE_URL": dsn},
        stderr=subprocess.DEVNULL,
    )
    try:
        with web_processes(dsn, settings, 1) as addresses:
            statuses = asyncio.run(post_all(addresses, path, 1, content=BODY, headers=signed(BODY)))
            assert statuses == [202]
            done = "select 1 from stellwerk.run_overview where state = 'completed'"
            wait_until(lambda: db.execute(done).fetchone(), what="the run's end")
    finally:
        worker.terminate()
        worker.wait(timeout=30)


# -- the commands -----------------------------------------------------------------------------------------------------


def test_sources_are_set_up_on_the_command_line(stellwerk, dsn, tmp_path, monkeypatch, signed, db):
    monkeypatch.setenv("STELLWERK_HOME", str(tmp_path / "home"))
    file = tmp_path / "secret"
    file.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
    arguments = ["hook", "set", "shop", "--scheme", "standard", "--correlation", "body:data.id", "--signal", "a=b"]
    status, out, _ = stellwerk(*arguments, dsn=dsn)
    assert status == 0
    assert "every delivery is refused" in out
    status, out, _ = stellwerk(*arguments, "--secret", f"@{file}", dsn=dsn)
    assert (status, out) == (0, "Webhooks of shop come to http://127.0.0.1:8000/hooks/default/shop\n")
    with TestClient(make_app(dsn, Settings.from_environment())) as client:
        assert client.post("/hooks/default/shop", content=BODY, headers=signed(BODY)).status_code == 202
        status, out, _ = stellwerk(
            "hook", "set", "shop", "--scheme", "standard", "--generate", "--keep-former", "--json", dsn=dsn
        )
        made = json.loads(out)["secret"]
        for number, secret in (("m2", made), ("m3", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")):
            headers = signed(BODY, secret=secret, number=number)
            assert client.post("/hooks/default/shop", content=BODY, headers=headers).status_code == 202
    status, out, _ = stellwerk("hook", "list", "--json", dsn=dsn)
    (row,) = json.loads(out)
    assert (row["source"], row["scheme"], row["secrets"]) == ("shop", "standard", 2)
    assert made not in out
    status, out, _ = stellwerk("hook", "deliveries", "--json", dsn=dsn)
    assert [entry["key"] for entry in json.loads(out)] == ["m3", "m2", "msg_1"]
    db.execute("select stellwerk.pump()")
    number = json.loads(out)[0]["delivery_id"]
    assert stellwerk("hook", "replay", number, dsn=dsn)[0] == 0
    status, _, err = stellwerk("hook", "replay", number, dsn=dsn)
    assert (status, "has not been processed yet" in err) == (1, True)
    assert stellwerk("hook", "remove", "shop", dsn=dsn)[0] == 0
    assert stellwerk("hook", "remove", "shop", dsn=dsn)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scheme", "rot13"], "no signature scheme"),
        (["--scheme", "slack", "--secret", "on-the-line"], "seen by others"),
        (["--scheme", "slack", "--generate", "--secret", "@x"], "exclude each other"),
        (["--scheme", "slack", "--signal", "nothing"], "cannot be read"),
    ],
)
def test_wrong_use_is_named(stellwerk, dsn, arguments, said):
    status, _, err = stellwerk("hook", "set", "shop", *arguments, dsn=dsn)
    assert status == 2
    assert said in err


def test_an_event_is_emitted_on_the_command_line(stellwerk, dsn, deliveries):
    assert stellwerk("emit", "document.completed", "--payload", '{"id": 1}', "--key", "k", dsn=dsn)[0] == 0
    (row,) = deliveries()
    assert (row["kind"], row["source"], row["payload"], row["key"]) == ("event", "document.completed", {"id": 1}, "k")
