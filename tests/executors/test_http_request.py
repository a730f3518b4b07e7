"""http.request against a real server on the loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import ValidationError
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from stellwerk.executors import Answer, ExecutorError
from stellwerk.executors.http import HttpRequest, is_expected, read_body, retry_after
from stellwerk.worker.effects import Gate

EXECUTOR = HttpRequest()


async def failed(call: Any) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught:
        await EXECUTOR.execute(call)
    return caught.value


async def test_json_goes_out_and_comes_back(httpserver: HTTPServer, call_of: Any) -> None:
    def handler(request: Request) -> Response:
        return Response(
            json.dumps({"got": request.json, "q": request.args.to_dict(flat=False)}), 201, mimetype="application/json"
        )

    httpserver.expect_request("/orders", method="POST").respond_with_handler(handler)
    call = call_of(
        EXECUTOR,
        method="POST",
        url=httpserver.url_for("/orders?a=1"),
        headers={"X-Id": 5, "X-Text": "Zoë"},
        query={"b": [2, "x y"], "none": None, "t": True},
        json={"name": "Zoë", "n": 1.5},
    )
    answer = await EXECUTOR.execute(call)
    assert answer.status == 201
    assert answer.body == {"got": {"name": "Zoë", "n": 1.5}, "q": {"a": ["1"], "b": ["2", "x y"], "t": ["true"]}}
    request, _ = httpserver.log[0]
    assert request.headers["Idempotency-Key"] == "7:8:1"
    assert request.headers["X-Id"] == "5"
    assert request.headers["Content-Type"] == "application/json"
    assert answer.headers["content-type"] == "application/json"


async def test_text_goes_out_as_it_is(httpserver: HTTPServer, call_of: Any) -> None:
    httpserver.expect_request("/", data="a=1", headers={"Content-Type": "text/plain"}).respond_with_data("fine")
    call = call_of(
        EXECUTOR, method="PUT", url=httpserver.url_for("/"), body="a=1", headers={"Content-Type": "text/plain"}
    )
    assert (await EXECUTOR.execute(call)).body == "fine"


@pytest.mark.parametrize(
    ("status", "error_class", "retryable"),
    [
        (302, "http_3xx", False),
        (400, "http_4xx", False),
        (404, "http_4xx", False),
        (408, "http_4xx", True),
        (429, "http_4xx", True),
        (500, "http_5xx", True),
        (501, "http_5xx", False),
        (503, "http_5xx", True),
    ],
)
async def test_an_unexpected_status_is_an_error(
    status: int, error_class: str, retryable: bool, httpserver: HTTPServer, call_of: Any
) -> None:
    httpserver.expect_request("/").respond_with_json({"why": "so"}, status, {"Retry-After": "7"})
    error = await failed(call_of(EXECUTOR, url=httpserver.url_for("/")))
    assert (error.error_class, error.retryable) == (error_class, retryable)
    assert error.detail == {"status": status, "body": {"why": "so"}}
    assert error.retry_after == (7.0 if retryable else None)


@pytest.mark.parametrize(
    ("status", "expect", "fine"),
    [
        (204, "2xx", True),
        (404, "2xx", False),
        (404, "404", True),
        (404, ["2xx", 404], True),
        (201, "200", False),
        (200, 200, True),
    ],
)
def test_which_answers_are_expected(status: int, expect: Any, fine: bool) -> None:
    assert is_expected(status, expect) is fine


async def test_a_server_that_is_not_there(call_of: Any) -> None:
    error = await failed(call_of(EXECUTOR, url="http://127.0.0.1:9/secret-path?token=hunter2"))
    assert (error.error_class, error.retryable) == ("connection", True)
    assert "hunter2" not in error.message
    assert "secret-path" not in error.message


async def test_a_name_that_does_not_exist(call_of: Any) -> None:
    error = await failed(call_of(EXECUTOR, url="http://nobody.invalid/"))
    assert (error.error_class, error.retryable) == ("connection", True)


async def test_a_server_that_is_too_slow(httpserver: HTTPServer, gate: Gate) -> None:
    def handler(request: Request) -> Response:
        time.sleep(2)
        return Response("late")

    httpserver.expect_request("/").respond_with_handler(handler)
    began = time.monotonic()
    with pytest.raises(ExecutorError) as caught:
        await gate.request("GET", httpserver.url_for("/"), seconds=0.3)
    assert time.monotonic() - began < 1.5
    assert (caught.value.error_class, caught.value.retryable) == ("timeout", True)


async def test_a_server_that_drips_does_not_hold_us_for_ever(gate: Gate) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b"x")
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ExecutorError) as caught:
        await gate.request("GET", f"http://127.0.0.1:{port}/", seconds=0.4)
    assert caught.value.error_class == "timeout"
    server.close()


async def test_a_server_that_breaks_off(gate: Gate) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ExecutorError) as caught:
        await gate.request("GET", f"http://127.0.0.1:{port}/")
    assert (caught.value.error_class, caught.value.retryable) == ("connection", True)
    server.close()


@pytest.mark.parametrize("size", [999_999, 1_000_000, 1_000_001, 3_000_000])
async def test_an_answer_larger_than_the_limit_is_refused(size: int, httpserver: HTTPServer, call_of: Any) -> None:
    httpserver.expect_request("/").respond_with_data("x" * size)
    call = call_of(EXECUTOR, url=httpserver.url_for("/"))
    if size <= 1_000_000:
        assert len((await EXECUTOR.execute(call)).body) == size
    else:
        error = await failed(call)
        assert (error.error_class, error.retryable) == ("response_too_large", False)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_answers_are_read_and_bombs_are_not(
    encoding: str, httpserver: HTTPServer, call_of: Any
) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    httpserver.expect_request("/").respond_with_data(pack(b"hello"), headers={"Content-Encoding": encoding})
    httpserver.expect_request("/bomb").respond_with_data(
        pack(b"\0" * 50_000_000), headers={"Content-Encoding": encoding}
    )
    assert (await EXECUTOR.execute(call_of(EXECUTOR, url=httpserver.url_for("/")))).body == "hello"
    assert (await failed(call_of(EXECUTOR, url=httpserver.url_for("/bomb")))).error_class == "response_too_large"


async def test_an_encoding_that_was_not_asked_for_is_refused(httpserver: HTTPServer, call_of: Any) -> None:
    httpserver.expect_request("/").respond_with_data(b"x", headers={"Content-Encoding": "br"})
    assert (await failed(call_of(EXECUTOR, url=httpserver.url_for("/")))).error_class == "response_unreadable"


async def test_a_request_larger_than_the_limit_is_not_sent(httpserver: HTTPServer, call_of: Any) -> None:
    error = await failed(call_of(EXECUTOR, method="POST", url=httpserver.url_for("/"), body="x" * 1_000_001))
    assert (error.error_class, error.retryable) == ("request_too_large", False)
    assert httpserver.log == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "other.example"),
        ("host ", "x"),
        ("Content-Length", "3"),
        ("Transfer-Encoding", "chunked"),
        ("X-A", "b\r\nX-Evil: 1"),
        ("X-A\r\nX-Evil", "1"),
        ("X A", "1"),
        ("X-A", "b\0c"),
    ],
)
async def test_headers_that_mislead_are_refused(name: str, value: str, httpserver: HTTPServer, call_of: Any) -> None:
    error = await failed(call_of(EXECUTOR, url=httpserver.url_for("/"), headers={name: value}))
    assert (error.error_class, error.retryable) == ("invalid_request", False)
    assert httpserver.log == []


async def test_a_private_address_is_blocked(call_of: Any) -> None:
    error = await failed(call_of(EXECUTOR, url="http://169.254.169.254/latest/meta-data/"))
    assert (error.error_class, error.retryable) == ("blocked", False)


async def test_a_credential_is_refused_until_there_are_any(httpserver: HTTPServer, call_of: Any) -> None:
    error = await failed(call_of(EXECUTOR, url=httpserver.url_for("/"), credential="crm"))
    assert error.error_class == "not_available"
    assert httpserver.log == []


@pytest.mark.parametrize(
    ("kind", "body", "read"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/problem+json; charset=utf-8", b"[1]", [1]),
        ("application/json", b"{broken", "{broken"),
        ("application/json", b'{"a": NaN}', '{"a": NaN}'),
        ("application/json", b"[" * 100_000, "[" * 100_000),
        ("application/json", b"", None),
        ("text/plain; charset=ISO-8859-1", b"gr\xfc\xdf", "grüß"),
        ("text/plain; charset=made-up", b"ab", "YWI="),
        ("image/png", b"\x89PNG\x00", "iVBORwA="),
        ("text/plain", b"a\x00b", "YQBi"),
        ("", "ü".encode(), "ü"),
    ],
)
def test_what_becomes_of_a_body(kind: str, body: bytes, read: Any) -> None:
    assert read_body(Answer(200, {"content-type": kind}, body)) == read


def test_retry_after_is_understood_in_both_forms() -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=90), usegmt=True)
    assert retry_after(Answer(503, {"retry-after": "120"}, b"")) == 120
    assert retry_after(Answer(503, {"retry-after": later}, b""), now) == 90
    assert retry_after(Answer(503, {"retry-after": "9" * 30}, b"")) == 86400
    assert retry_after(Answer(503, {"retry-after": "soon"}, b"")) is None
    assert retry_after(Answer(503, {}, b"")) is None


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="either json or body"):
        EXECUTOR.config.model_validate({"url": "http://a.example/", "json": 1, "body": "x"})


async def test_nothing_secret_is_logged(httpserver: HTTPServer, call_of: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "stellwerk")
    httpserver.expect_request("/path-hunter2").respond_with_data("body-hunter2")
    call = call_of(
        EXECUTOR,
        url=httpserver.url_for("/path-hunter2"),
        headers={"Authorization": "Bearer hunter2"},
        query={"token": "hunter2"},
    )
    await EXECUTOR.execute(call)
    assert "answered 200" in caplog.text
    assert "hunter2" not in "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("stellwerk")
    )
    assert not [record for record in caplog.records if record.name.startswith(("httpx2", "httpcore2"))]
