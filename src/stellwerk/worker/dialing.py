"""Opens the connections of `effects`: a host is resolved once, every address it has is checked, and the connection goes
to exactly the address that was checked. Nothing else may use this module."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from typing import Any

import httpcore2
import httpx2

from stellwerk.executors.base import ExecutorError
from stellwerk.worker.addresses import Address, AllowedHosts, is_ambiguous, literal, normal

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class Blocked(ExecutorError):
    """An outbound call that must not be made."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_class="blocked", retryable=False)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system's resolver knows them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Addresses:
    """Where a host may be reached."""

    def __init__(self, allowed: AllowedHosts, resolver: Resolver) -> None:
        self._allowed = allowed
        self._resolver = resolver

    async def of(self, host: str, port: int, seconds: float | None, *, checked: bool = True) -> list[Address]:
        """The addresses of a host that may be called; unchecked those of one that the operator named. Raises `Blocked`,
        `TimeoutError` or another `OSError`."""
        written = literal(host)
        if written is not None:
            texts: Sequence[str] = [str(written)]
        elif is_ambiguous(host):
            raise Blocked(f"{host} is a number in disguise, not a host")
        else:
            try:
                async with asyncio.timeout(seconds):
                    texts = await self._resolver(host, port)
            except TimeoutError:
                raise TimeoutError("the host's address was not found in time") from None
            except (OSError, UnicodeError):
                raise OSError("the host's address was not found") from None
        addresses = [ipaddress.ip_address(text) for text in texts]
        if checked and not self._allowed.allow_host(host, port):
            for address in addresses:
                # One private address among public ones is enough: which one is tried is not the caller's choice.
                if not self._allowed.allow_address(address, port):
                    raise Blocked(refusal(normal(host)))
        return addresses

    async def connect(self, host: str, port: int, seconds: float, *, checked: bool = True) -> socket.socket:
        """A socket that is connected to one of them; raises as `of` does."""
        last: OSError | None = None
        for address in await self.of(host, port, seconds, checked=checked):
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            connection = socket.socket(family, socket.SOCK_STREAM)
            connection.setblocking(False)
            try:
                async with asyncio.timeout(seconds):
                    await asyncio.get_running_loop().sock_connect(connection, (str(address), port))
                return connection
            except OSError as error:  # a timeout is one
                last = error
                connection.close()
            except BaseException:
                connection.close()
                raise
        raise last or OSError("the host has no address")


class CheckedBackend(httpcore2.AsyncNetworkBackend):
    """Opens every TCP connection of the gate: resolve once, check every address, connect to a checked one."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (httpcore's signature)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a host whose every address may be reached."""
        last: Exception | None = None
        try:
            addresses = await self._addresses.of(host, port, timeout)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from None
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last or httpcore2.ConnectError("the host has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise Blocked("outbound calls go over TCP only")

    async def sleep(self, seconds: float) -> None:
        """Pause."""
        await asyncio.sleep(seconds)


@cache
def trusted_tls() -> ssl.SSLContext:
    """Trusts the usual authorities; read once, for that takes some 50 ms."""
    return httpx2.create_ssl_context(trust_env=False)


class CheckedTransport(httpx2.AsyncHTTPTransport):
    """httpx's own transport over a pool whose connections are opened by the checking backend."""

    def __init__(self, backend: httpcore2.AsyncNetworkBackend, tls: ssl.SSLContext, connections: int) -> None:
        super().__init__(verify=tls, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=connections,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=backend,
        )


def refusal(host: str) -> str:
    return f"{host} is not on the public internet; STELLWERK_ALLOWED_HOSTS does not name it"
