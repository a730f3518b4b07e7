"""Outbound calls reach the public internet and what the operator allows, however the address is written."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from stellwerk.errors import UsageError
from stellwerk.executors import ExecutorError
from stellwerk.worker.addresses import AllowedHosts
from stellwerk.worker.effects import Gate, resolve

# What must never be connected to, as hosts in a URL.
PRIVATE_HOSTS = [
    # this machine
    "127.0.0.1",
    "127.1",
    "127.0.1.1",
    "127.255.255.254",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "0.0.0.0",
    "0",
    "0.1.2.3",
    "[::]",
    # the same in disguise
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "127.0x0.0.1",
    "0x7F.0x0.0x0.0x1",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
    "１２７.０.０.１",
    "127。0。0。1",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::1]",
    # the clouds' metadata
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    # private networks
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.254",
    "192.168.1.1",
    "100.64.0.1",
    "[fc00::1]",
    "[fd12:3456:789a::1]",
    "[fec0::1]",
    # nobody's, everybody's
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "[ff02::1]",
    "[2001:db8::1]",
    "[64:ff9b:1::1]",
    "[100::1]",
]

PUBLIC = "93.184.215.14"


class Dialled(Exception):
    """The gate wanted to open a connection to this address."""


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every address that the gate connects to; nothing is really opened."""
    import httpcore2

    seen: list[tuple[str, int]] = []

    async def connect_tcp(self: Any, host: str, port: int, *_: Any, **__: Any) -> Any:
        seen.append((host, port))
        raise httpcore2.ConnectError("not here")

    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", connect_tcp)
    return seen


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    gate = Gate()
    yield gate
    await gate.aclose()


async def refused(gate: Gate, url: str, **more: Any) -> ExecutorError:
    with pytest.raises(ExecutorError) as caught:
        await gate.request("GET", url, **more)
    return caught.value


def fixed(*addresses: str) -> Any:
    async def resolver(host: str, port: int) -> list[str]:
        return list(addresses)

    return resolver


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_private_host_is_never_connected_to(
    scheme: str, host: str, gate: Gate, dialled: list[tuple[str, int]]
) -> None:
    error = await refused(gate, f"{scheme}://{host}/latest/meta-data/")
    assert dialled == []
    # A spelling that the URL parser itself refuses is as good.
    assert error.error_class in ("blocked", "invalid_request")
    assert not error.retryable


def is_numeric(host: str) -> bool:
    """Whether it is an address as a resolver would answer it, or read it."""
    try:
        socket.getaddrinfo(host, 80, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        host
        for host in (host.strip("[]") for host in PRIVATE_HOSTS if "%" not in host and host[0] in "[12")
        if is_numeric(host)
    ],
)
async def test_a_name_that_resolves_to_a_private_address_is_refused(host: str, dialled: list[tuple[str, int]]) -> None:
    address = str(socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)[0][4][0])
    gate = Gate(resolver=fixed(address))
    error = await refused(gate, "http://innocent.example/")
    assert (error.error_class, error.retryable, dialled) == ("blocked", False, [])
    await gate.aclose()


async def test_one_private_address_among_public_ones_is_enough(dialled: list[tuple[str, int]]) -> None:
    gate = Gate(resolver=fixed(PUBLIC, "10.0.0.7"))
    assert (await refused(gate, "http://mixed.example/")).error_class == "blocked"
    assert dialled == []
    await gate.aclose()


async def test_the_checked_address_is_the_one_connected_to(dialled: list[tuple[str, int]]) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    gate = Gate(resolver=rebinding)
    first = await refused(gate, "http://rebind.example:8080/")
    assert first.error_class == "connection"
    assert dialled == [(PUBLIC, 8080)]  # by number: nobody asks the name server again
    second = await refused(gate, "http://rebind.example:8080/")
    assert second.error_class == "blocked"
    assert len(dialled) == 1
    await gate.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "unix:///var/run/docker.sock",
        "//example.com/",
        "example.com",
        "http:///path",
        "http://",
        "javascript:alert(1)",
        "http://user@example.com/",
        "http://user:secret@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1#@example.com/",
        "http://127.0.0.1\\@example.com/",
        "http://exam\nple.com/",
        "http://example.com:99999/",
        "http://[::1",
    ],
)
async def test_a_url_that_is_not_plain_is_refused(url: str, gate: Gate, dialled: list[tuple[str, int]]) -> None:
    error = await refused(gate, url)
    assert error.error_class in ("blocked", "invalid_request")
    assert not error.retryable
    assert dialled == []
    assert "secret" not in error.message


@pytest.mark.parametrize(
    "allowed", ["127.0.0.1", "127.0.0.0/8", "127.0.0.1:{port}", "0.0.0.0/0", "localhost, 127.0.0.1"]
)
async def test_what_the_operator_allows_is_reached(allowed: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("hello")
    entries = [entry.strip() for entry in allowed.format(port=httpserver.port).split(",")]
    gate = Gate(entries)
    answer = await gate.request("GET", f"http://127.0.0.1:{httpserver.port}/")
    assert (answer.status, answer.body) == (200, b"hello")
    await gate.aclose()


async def test_an_allowed_name_may_resolve_to_a_private_address(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/", headers={"Host": f"crm.internal:{httpserver.port}"}).respond_with_data("hello")
    gate = Gate([f"crm.internal:{httpserver.port}"], resolver=fixed("127.0.0.1"))
    answer = await gate.request("GET", f"http://crm.internal:{httpserver.port}/")
    assert answer.body == b"hello"  # and the Host header is the name, not the address
    other = Gate(["crm.internal:1"], resolver=fixed("127.0.0.1"))
    assert (await refused(other, f"http://crm.internal:{httpserver.port}/")).error_class == "blocked"
    for one in (gate, other):
        await one.aclose()


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "host:port", ":80", "x/y"])
def test_an_entry_that_cannot_be_meant_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="STELLWERK_ALLOWED_HOSTS"):
        AllowedHosts.parse([entry])


async def test_redirects_are_off(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data("", 302, {"Location": "http://169.254.169.254/"})
    gate = Gate(["127.0.0.1"])
    answer = await gate.request("GET", httpserver.url_for("/a"))
    assert answer.status == 302
    await gate.aclose()


@pytest.mark.parametrize("target", ["http://169.254.169.254/", "http://[::1]/", "file:///etc/passwd", "http://0x7f.1/"])
async def test_each_hop_of_a_redirect_passes_the_gate(target: str, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data("", 302, {"Location": "/b"})
    httpserver.expect_request("/b").respond_with_data("", 307, {"Location": target})
    gate = Gate(["127.0.0.1"])
    error = await refused(gate, httpserver.url_for("/a"), redirects=3)
    assert error.error_class == "blocked"
    assert [request.path for request, _ in httpserver.log] == ["/a", "/b"]
    await gate.aclose()


async def test_a_redirect_to_a_private_name_is_refused(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data(
        "", 302, {"Location": f"http://inner.example:{httpserver.port}/b"}
    )

    async def resolver(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    gate = Gate(["outer.example"], resolver=resolver)
    error = await refused(gate, f"http://outer.example:{httpserver.port}/a", redirects=3)
    assert error.error_class == "blocked"
    assert len(httpserver.log) == 1
    await gate.aclose()


async def test_a_redirect_to_another_host_carries_no_secrets(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data("", 302, {"Location": f"http://two.example:{httpserver.port}/b"})
    httpserver.expect_request("/b").respond_with_data("there")
    gate = Gate(["one.example", "two.example"], resolver=fixed("127.0.0.1"))
    answer = await gate.request(
        "GET",
        f"http://one.example:{httpserver.port}/a",
        headers={"Authorization": "Bearer t", "X-Api-Key": "k", "Accept": "text/plain"},
        redirects=1,
    )
    assert answer.body == b"there"
    first, second = (request for request, _ in httpserver.log)
    assert first.headers["Authorization"] == "Bearer t"
    assert "Authorization" not in second.headers
    assert "X-Api-Key" not in second.headers
    assert second.headers["Accept"] == "text/plain"
    await gate.aclose()


async def test_a_redirect_loop_ends(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/a").respond_with_data("", 302, {"Location": "/a"})
    gate = Gate(["127.0.0.1"])
    error = await refused(gate, httpserver.url_for("/a"), redirects=4)
    assert error.error_class == "redirects"
    assert len(httpserver.log) == 5
    await gate.aclose()


async def test_proxies_of_the_environment_are_not_used(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    httpserver.expect_request("/").respond_with_data("direct")
    gate = Gate(["127.0.0.1"])
    assert (await gate.request("GET", httpserver.url_for("/"))).body == b"direct"
    await gate.aclose()


async def test_no_cookie_of_one_workflow_reaches_another(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/").respond_with_data("x", headers={"Set-Cookie": "session=1; Path=/"})
    gate = Gate(["127.0.0.1"])
    for _ in range(2):
        await gate.request("GET", httpserver.url_for("/"))
    assert all("Cookie" not in request.headers for request, _ in httpserver.log)
    await gate.aclose()


async def test_the_system_resolver_answers_addresses() -> None:
    assert "127.0.0.1" in await resolve("localhost", 80)


async def test_bytes_never_reach_a_private_listener() -> None:
    """With a real listener on the loopback: every spelling that leads there, and not one byte."""
    reached: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(100))
        writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    gate = Gate()
    for host in PRIVATE_HOSTS:
        await refused(gate, f"http://{host}:{port}/")
    listener.close()
    assert reached == []
    await gate.aclose()
