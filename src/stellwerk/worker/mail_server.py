"""The operator's mail server, as STELLWERK_SMTP_URL names it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from stellwerk.errors import UsageError


@dataclass(frozen=True)
class MailServer:
    """Where mails are handed in, and who they are from."""

    host: str
    port: int
    sender: str
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    starttls: str = "offered"
    only_public: bool = False

    @classmethod
    def from_url(cls, url: str) -> MailServer:
        """Read `smtp://user:password@host:port?from=address&starttls=required&host=public`, or `smtps://…`; raises
        `UsageError`, without the password, for one that cannot be meant. A password goes over TLS unless starttls
        says otherwise."""
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
        given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if unknown := set(given) - {"from", "starttls", "host"}:
            raise UsageError(
                f"STELLWERK_SMTP_URL has the unknown parameter {sorted(unknown)[0]!r}",
                hint="There are from, starttls and host.",
            )
        starttls = given.get("starttls", "required" if user else "offered")
        if starttls not in ("required", "offered", "off") or given.get("host", "public") != "public":
            raise UsageError(
                "a parameter of STELLWERK_SMTP_URL cannot be meant",
                hint="starttls is required, offered or off; host=public refuses private addresses.",
            )
        sender = given.get("from", user if user and "@" in user else f"stellwerk@{host}")
        if "@" not in sender or any(letter in sender for letter in "\r\n"):
            raise UsageError("the from of STELLWERK_SMTP_URL is no address", hint=hint)
        password = unquote(parts.password) if parts.password else None
        port = port or (465 if tls else 587 if user else 25)
        return cls(host, port, sender, tls, user, password, starttls if not tls else "off", "host" in given)
