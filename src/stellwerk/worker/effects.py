"""The one gate through which bytes leave: outbound HTTP calls, mails and files.

A host is resolved once, every address it has is checked, and the connection goes to exactly the address that was
checked, so a name server that changes its answer gains nothing. Redirects are off; where a caller turns them on,
each hop passes the same gate. No proxies from the environment, no cookies, no decompression beyond the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import ssl
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from email.message import EmailMessage
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import aiosmtplib
import httpx2

from stellwerk.executors.base import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Answer, ExecutorError
from stellwerk.worker.addresses import AllowedHosts, is_ambiguous, literal, normal
from stellwerk.worker.dialing import (
    Addresses,
    Blocked,
    CheckedBackend,
    CheckedTransport,
    Resolver,
    refusal,
    resolve,
    trusted_tls,
)
from stellwerk.worker.mail_server import MailServer

CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
TOTAL_SECONDS = 60.0
MAIL_SECONDS = 30.0  # for each answer of a mail server; the whole mail has twice as long

# At INFO they log whole URLs, which may hold secrets.
for _chatty in ("httpx2", "httpcore2", "aiosmtplib"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)

# Set by us or able to mislead whoever reads the request after us.
_OUR_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer"}
    | {"proxy-authorization", "proxy-connection", "expect"}
)

# What may follow a redirect to another host; any other header could be a secret.
_HARMLESS_HEADERS = frozenset({"accept", "content-type", "idempotency-key"})


class Gate:
    """Makes the calls of a whole worker: one connection pool, one list of allowed hosts. Close it in the end."""

    def __init__(
        self,
        allowed_hosts: Iterable[str] = (),
        *,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        max_connections: int = 200,
    ) -> None:
        self.allowed = AllowedHosts.parse(allowed_hosts)
        self._addresses = Addresses(self.allowed, resolver)
        self._tls = tls
        trusted = tls if tls is not None else trusted_tls()
        self._client = httpx2.AsyncClient(
            transport=CheckedTransport(CheckedBackend(self._addresses), trusted, max_connections),
            verify=trusted,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": "stellwerk", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"},
        )
        # One client serves every workflow: it must not carry one's cookies into the other's calls.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    def for_step(self, idempotency_key: str, traceparent: str | None = None) -> StepEffects:
        """The gate as one step sees it: its calls carry its idempotency key, and the trace that they belong to."""
        return StepEffects(self, idempotency_key, traceparent)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        body: bytes | str | None = None,
        seconds: float | None = None,
        redirects: int = 0,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> Answer:
        """Make a call; raises `ExecutorError` (blocked, timeout, connection, response_too_large, invalid_request)."""
        target = self.check_url(url)
        if query:
            target = target.copy_merge_params(list(query.items()) if isinstance(query, Mapping) else list(query))
        sent = _checked_headers(headers)
        content = body.encode() if isinstance(body, str) else body
        if content is not None and len(content) > max_request_bytes:
            raise ExecutorError(
                f"the request's body has {len(content)} bytes, more than the {max_request_bytes} allowed",
                error_class="request_too_large",
                retryable=False,
            )
        where = _name(target)
        try:
            async with asyncio.timeout(seconds or TOTAL_SECONDS):
                for _ in range(redirects + 1):
                    answer, onward = await self._one(method, target, sent, content, max_response_bytes)
                    if redirects == 0 or onward is None:
                        return answer
                    method, target, sent, content = _follow(answer.status, method, target, onward, sent, content)
                    target = self.check_url(str(target))
                raise ExecutorError(
                    f"{where} redirected more than {redirects} times", error_class="redirects", retryable=False
                )
        except ExecutorError:
            raise
        except (TimeoutError, httpx2.TimeoutException):
            raise ExecutorError(f"{where} did not answer in time", error_class="timeout") from None
        except (
            httpx2.LocalProtocolError,
            httpx2.UnsupportedProtocol,
            httpx2.InvalidURL,
            UnicodeError,
            ValueError,
        ) as error:
            raise ExecutorError(
                f"the request to {where} cannot be sent: {type(error).__name__}",
                error_class="invalid_request",
                retryable=False,
            ) from None
        except (httpx2.HTTPError, OSError) as error:
            raise ExecutorError(f"{where} could not be reached: {_reason(error)}", error_class="connection") from None

    def check_url(self, url: str) -> httpx2.URL:
        """The URL parsed once, by the parser that will also connect; raises if it is of no allowed kind."""
        try:
            target = httpx2.URL(url)
            host, port = target.host, target.port
        except (httpx2.InvalidURL, UnicodeError, ValueError):
            raise ExecutorError("the URL cannot be read", error_class="invalid_request", retryable=False) from None
        if target.scheme not in ("http", "https") or not host:
            raise Blocked("only http:// and https:// URLs with a host are called")
        if target.userinfo:
            raise Blocked("a URL with a user name or password in it is not called; use a header or a credential")
        port = port or (443 if target.scheme == "https" else 80)
        if port > 65535:
            raise ExecutorError("the URL's port is no port", error_class="invalid_request", retryable=False)
        if is_ambiguous(host):
            raise Blocked(f"{host} is a number in disguise, not a host")
        local = f".{normal(host)}".endswith(".localhost") and not self.allowed.allow_host(host, port)
        if local and not self.allowed.allow_address(ipaddress.IPv4Address("127.0.0.1"), port):
            raise Blocked(refusal(host))
        address = literal(host)
        if address is not None and not self.allowed.allow_address(address, port):
            raise Blocked(refusal(host))
        return target

    async def _one(
        self, method: str, target: httpx2.URL, headers: list[tuple[str, str]], body: bytes | None, limit: int
    ) -> tuple[Answer, str | None]:
        timeouts = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        encoded = [(name.encode("ascii"), value.encode()) for name, value in headers]
        request = self._client.build_request(method, target, headers=encoded, content=body, timeout=timeouts)
        response = await self._client.send(request, stream=True)
        try:
            content = await _read(response, limit, _name(target))
        finally:
            await response.aclose()
        onward = response.headers.get("location") if 300 <= response.status_code < 400 else None
        return Answer(response.status_code, dict(response.headers), content), onward

    async def send_mail(self, server: MailServer, mail: EmailMessage) -> None:
        """Hand a mail in at the operator's mail server; raises `ExecutorError` (blocked, timeout, connection,
        mail_refused, mail_login, invalid_request). The operator named the host, so it may be private, unless the
        operator wants that checked too."""
        try:
            async with asyncio.timeout(2 * MAIL_SECONDS):
                await self._hand_in(server, mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _mail_refused(error.recipients) from None
        except aiosmtplib.SMTPAuthenticationError as error:
            raise ExecutorError(
                f"the mail server refuses the login: {error.code} {_line(error.message)}", error_class="mail_login"
            ) from None
        except aiosmtplib.SMTPResponseException as error:
            raise _mail_refused([error]) from None
        except aiosmtplib.SMTPNotSupported as error:
            raise ExecutorError(
                f"the mail server lacks what is needed: {_line(str(error))}",
                error_class="mail_refused",
                retryable="SMTPUTF8" not in str(error),  # an address is what it is; a server can be set up anew
            ) from None
        except (TimeoutError, aiosmtplib.SMTPTimeoutError):
            raise ExecutorError("the mail server did not answer in time", error_class="timeout") from None
        except (aiosmtplib.SMTPException, OSError) as error:
            reason = _line(str(error)) or type(error).__name__
            raise ExecutorError(f"the mail server cannot be reached: {reason}", error_class="connection") from None
        except ValueError as error:  # an address that cannot be sent to
            raise ExecutorError(
                f"the mail cannot be written: {_line(str(error))}", error_class="invalid_request", retryable=False
            ) from None

    async def _hand_in(self, server: MailServer, mail: EmailMessage) -> None:
        line = await self._addresses.connect(server.host, server.port, CONNECT_SECONDS, checked=server.only_public)
        client = aiosmtplib.SMTP(
            hostname=server.host,  # the name that the certificate must have
            sock=line,
            use_tls=server.tls,
            start_tls={"required": True, "offered": None, "off": False}[server.starttls],
            tls_context=self._tls,
            username=server.user,
            password=server.password,
            timeout=MAIL_SECONDS,
        )
        try:
            await client.connect()
            await client.send_message(mail)
            # It has the mail; what goes wrong from here on must not have it sent again.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=1)
        finally:
            client.close()
            line.close()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class StepEffects:
    """What an executor gets as `call.effects`."""

    def __init__(self, gate: Gate, idempotency_key: str, traceparent: str | None = None) -> None:
        self._gate = gate
        self._headers = {"Idempotency-Key": idempotency_key, **({"traceparent": traceparent} if traceparent else {})}

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | Sequence[tuple[str, Any]] | None = None,
        body: bytes | str | None = None,
        seconds: float | None = None,
        redirects: int = 0,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        max_request_bytes: int = MAX_REQUEST_BYTES,
    ) -> Answer:
        """As `Gate.request`, with the headers `Idempotency-Key` and `traceparent` unless the caller set them."""
        given = dict(headers or {})
        names = {name.lower() for name in given}
        given |= {name: value for name, value in self._headers.items() if name.lower() not in names}
        return await self._gate.request(
            method,
            url,
            headers=given,
            query=query,
            body=body,
            seconds=seconds,
            redirects=redirects,
            max_response_bytes=max_response_bytes,
            max_request_bytes=max_request_bytes,
        )

    async def write_file(self, folder: str | Path, name: str, content: bytes) -> Path:
        """Write a file at once: under a temporary name, synced, then renamed."""
        return await asyncio.to_thread(write_file, Path(folder), name, content)


def write_file(folder: Path, name: str, content: bytes) -> Path:
    """Write folder/name so that a reader sees all of it or nothing of it; a file of that name is replaced."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name or len(name.encode()) > 200:
        raise ExecutorError(f"{name[:80]!r} is no name for a file", error_class="invalid_file_name", retryable=False)
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o640)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        raise ExecutorError(
            f"{path} could not be written: {error.strerror or type(error).__name__}", error_class="file"
        ) from None
    return path


async def _read(response: httpx2.Response, limit: int, where: str) -> bytes:
    """The body, decompressed piece by piece so that it never grows beyond the limit."""
    too_large = ExecutorError(
        f"the answer of {where} is larger than {limit} bytes", error_class="response_too_large", retryable=False
    )
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    content = bytearray()
    if encoding in ("", "identity"):
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > limit:
                raise too_large
        return bytes(content)
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ExecutorError(
            f"the answer of {where} is encoded as {encoding[:40]}, which was not asked for",
            error_class="response_unreadable",
            retryable=False,
        )
    unpacker = zlib.decompressobj(wbits=47 if encoding != "deflate" else 15)
    try:
        async for chunk in _pieces(response.aiter_raw()):
            content += unpacker.decompress(chunk, limit + 1 - len(content))
            if len(content) > limit:
                raise too_large
    except zlib.error:
        raise ExecutorError(f"the answer of {where} is damaged", error_class="response_unreadable") from None
    return bytes(content)


async def _pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        if chunk:
            yield chunk


def _checked_headers(headers: Mapping[str, str] | None) -> list[tuple[str, str]]:
    checked: list[tuple[str, str]] = []
    for name, value in (headers or {}).items():
        if name.strip().lower() in _OUR_HEADERS:
            raise ExecutorError(
                f"the header {name.strip()!r} is set by Stellwerk", error_class="invalid_request", retryable=False
            )
        if any(character in value for character in "\r\n\0") or any(character in name for character in "\r\n\0: "):
            raise ExecutorError(
                "a header holds a line break or another character that headers cannot hold",
                error_class="invalid_request",
                retryable=False,
            )
        checked.append((name, value))
    return checked


def _follow(
    status: int, method: str, target: httpx2.URL, onward: str, headers: list[tuple[str, str]], body: bytes | None
) -> tuple[str, httpx2.URL, list[tuple[str, str]], bytes | None]:
    """The next request of a redirect. Another host gets no credentials; 303, and 301/302 after POST, become GET."""
    following = target.join(onward)
    if (following.scheme, following.host, following.port) != (target.scheme, target.host, target.port):
        headers = [(name, value) for name, value in headers if name.lower() in _HARMLESS_HEADERS]
    if status == 303 or (status in (301, 302) and method.upper() == "POST"):
        return "GET", following, [(name, value) for name, value in headers if name.lower() != "content-type"], None
    return method, following, headers, body


def _mail_refused(answers: Sequence[aiosmtplib.SMTPResponseException]) -> ExecutorError:
    """5… is for good, anything else may pass."""
    return ExecutorError(
        "; ".join(f"{answer.code} {_line(answer.message)}" for answer in answers),
        error_class="mail_refused",
        retryable=any(answer.code < 500 for answer in answers),
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:500]


def _name(target: httpx2.URL) -> str:
    """How messages call the other side. Path and query may hold secrets, so they are left out."""
    return target.host if target.port is None else f"{target.host}:{target.port}"


def _reason(error: BaseException) -> str:
    return {
        "ConnectError": "no connection",
        "ReadError": "the connection broke",
        "WriteError": "the connection broke",
        "RemoteProtocolError": "it broke off or spoke no HTTP",
    }.get(type(error).__name__, type(error).__name__)
