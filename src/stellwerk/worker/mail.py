"""Mails from the outbox `stellwerk.message`, sent by SMTP after the commit that ordered them.

The mail server is the operator's choice (STELLWERK_SMTP_URL) and not a workflow's, so it passes no address check.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import aiosmtplib
import psycopg

from stellwerk.errors import UsageError
from stellwerk.worker.connections import Connections

log = logging.getLogger(__name__)

ENTRYPOINT = "mail.send"
SECONDS = 30.0
NO_SERVER = "no mail server is set: STELLWERK_SMTP_URL is empty"


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in, and who they are from."""

    host: str
    port: int
    sender: str
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str) -> MailServer:
        """Read `smtp://user:password@host:port?from=address`, or `smtps://…`; raises `UsageError`, without the
        password, for one that cannot be meant."""
        hint = "It looks like smtp://user:password@mail.example.org:587, or smtps://…"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UsageError("STELLWERK_SMTP_URL cannot be read", hint=hint) from None
        if parts.scheme not in ("smtp", "smtps") or not host:
            raise UsageError("STELLWERK_SMTP_URL names no mail server", hint=hint)
        tls = parts.scheme == "smtps"
        user = unquote(parts.username) if parts.username else None
        sender = parse_qs(parts.query).get("from", [user if user and "@" in user else f"stellwerk@{host}"])[0]
        if "@" not in sender or any(letter in sender for letter in "\r\n"):
            raise UsageError("the from of STELLWERK_SMTP_URL is no address", hint=hint)
        password = unquote(parts.password) if parts.password else None
        return cls(host, port or (465 if tls else 587 if user else 25), sender, tls, user, password)

    async def send(self, message: EmailMessage) -> None:
        """Hand one mail in. STARTTLS is used where the server offers it."""
        await aiosmtplib.send(
            message,
            hostname=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            use_tls=self.tls,
            timeout=SECONDS,
        )


def compose(order: tuple[int, int], row: tuple[str, str | None, str, str | None], sender: str, base_url: str) -> Any:
    """The mail of a row of the outbox. Its Message-ID is the same each time, so a repetition can be recognised."""
    recipient, subject, body, link = row
    mail = EmailMessage()
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = " ".join((subject or "").split())
    mail["Date"] = formatdate()
    mail["Message-ID"] = f"<{order[0]}.{order[1]}.stellwerk@{sender.rpartition('@')[2].strip('>')}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(body + (f"\n\n{base_url}{link}" if link else "") + "\n")
    return mail


class Mails:
    """Carries out the internal job `mail.send`."""

    def __init__(self, connections: Connections, base_url: str, server: MailServer | None) -> None:
        self._connections = connections
        self._base_url = base_url
        self._server = server

    async def handle(self, payload: dict[str, Any]) -> None:
        """Send one mail, if nobody else has; what becomes of it is recorded."""
        order = (int(payload["t"]), int(payload["message"]))
        rows = await self._connections.tuples(
            "select recipient, subject, body, link from stellwerk.begin_message($1, $2)", order
        )
        if not rows:
            return
        outcome, problem = await self._send(order, rows[0])
        if problem:
            log.warning("mail %d is %s: %s", order[1], "to be tried again" if outcome == "later" else outcome, problem)
        try:
            await self._connections.tuples("select stellwerk.end_message($1, $2, $3, $4)", (*order, outcome, problem))
        except psycopg.Error as error:
            log.warning("mail %d: its end could not be recorded: %s", order[1], str(error).splitlines()[0])
            raise

    async def _send(self, order: tuple[int, int], row: Any) -> tuple[str, str | None]:
        """What became of it, and why."""
        if self._server is None:
            return "suppressed", NO_SERVER
        try:
            await self._server.send(compose(order, row, self._server.sender, self._base_url))
        except aiosmtplib.SMTPRecipientsRefused as error:
            refusals = error.recipients
            for_good = all(refusal.code >= 500 for refusal in refusals)
            return "failed" if for_good else "later", "; ".join(f"{r.code} {r.message}" for r in refusals)
        except aiosmtplib.SMTPAuthenticationError as error:
            return "later", f"the mail server refuses the login: {error.code} {error.message}"
        except aiosmtplib.SMTPResponseException as error:
            return "failed" if error.code >= 500 else "later", f"{error.code} {error.message}"
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            return "later", f"the mail server cannot be reached: {error or type(error).__name__}"
        except ValueError as error:  # an address that cannot stand in a header
            return "failed", f"the mail cannot be written: {error}"
        return "sent", None
