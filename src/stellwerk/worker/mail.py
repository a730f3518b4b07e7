"""Mails from the outbox `stellwerk.message`, sent through the gate after the commit that ordered them."""

from __future__ import annotations

import logging
from email.message import EmailMessage
from email.utils import formatdate
from typing import Any

import psycopg

from stellwerk.executors.base import ExecutorError
from stellwerk.worker.connections import Connections
from stellwerk.worker.effects import Gate
from stellwerk.worker.mail_server import MailServer

log = logging.getLogger(__name__)

ENTRYPOINT = "mail.send"
NO_SERVER = "no mail server is set: STELLWERK_SMTP_URL is empty"


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

    def __init__(self, connections: Connections, gate: Gate, base_url: str, server: MailServer | None) -> None:
        self._connections = connections
        self._gate = gate
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
        fields = {"tenant_id": order[0], "message_id": order[1]}
        outcome, problem = await self._send(order, rows[0])
        if problem:
            log.warning(
                "mail %d is %s: %s",
                order[1],
                "to be tried again" if outcome == "later" else outcome,
                problem,
                extra=fields,
            )
        try:
            await self._connections.tuples("select stellwerk.end_message($1, $2, $3, $4)", (*order, outcome, problem))
        except psycopg.Error as error:
            log.warning(
                "mail %d: its end could not be recorded: %s", order[1], str(error).splitlines()[0], extra=fields
            )
            raise

    async def _send(self, order: tuple[int, int], row: Any) -> tuple[str, str | None]:
        """What became of it, and why."""
        if self._server is None:
            return "suppressed", NO_SERVER
        try:
            await self._gate.send_mail(self._server, compose(order, row, self._server.sender, self._base_url))
        except ExecutorError as error:
            return "later" if error.retryable else "failed", error.message
        except ValueError as error:  # an address that cannot stand in a header
            return "failed", f"the mail cannot be written: {error}"
        return "sent", None
