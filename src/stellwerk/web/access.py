"""Who has come in, and what they may do. Every route says which right it needs."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from litestar.connection import ASGIConnection
from litestar.exceptions import (
    ImproperlyConfiguredException,
    NotAuthorizedException,
    NotFoundException,
    PermissionDeniedException,
)
from litestar.handlers import BaseRouteHandler
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

Right = Literal["read", "work", "design", "start", "operate", "manage"]
RIGHTS: tuple[Right, ...] = ("read", "work", "design", "start", "operate", "manage")
ROLES = ("viewer", "staff", "designer", "operator", "admin")

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
CSRF_HEADER = "x-csrf-token"
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Entrance:
    """Who has come in, by a session or a token: `stellwerk.entrance` in Python."""

    tenant_id: int
    tenant: str
    actor: str
    name: str
    role: str
    groups: list[str]
    rights: list[str]
    session_id: int | None

    def may(self, right: Right) -> bool:
        """Whether the right is among those of the role, or the token's scopes."""
        return right in self.rights


class Authentication(AbstractAuthenticationMiddleware):
    """Looks up the bearer token, or the session of the cookie; without either, nobody has come in."""

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """The entrance as `request.user`, None for nobody; the CSRF token as `request.auth` where a cookie was used."""
        intake = connection.app.state.intake
        kind, _, token = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            row = await intake.row("select (stellwerk.enter_token(%s, %s)).*", lookup(token.strip()))
            return AuthenticationResult(user=_entrance(row), auth=None)
        secret = connection.cookies.get(cookie_name(connection.app.state.settings.base_url))
        if not secret:
            return AuthenticationResult(user=None, auth=None)
        row = await intake.row("select (stellwerk.enter_session(%s, %s)).*", lookup(secret))
        return AuthenticationResult(user=_entrance(row), auth=csrf_token(secret))


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Runs before every handler, and before its body is read."""
    if connection.scope["method"] == "OPTIONS":  # type: ignore[typeddict-item]
        return  # says which methods there are, and touches nothing
    if any(isinstance(value, int) and value > LARGEST_ID for value in connection.path_params.values()):
        raise NotFoundException("there is nothing with this number")
    needs = needed_right(handler)
    if needs == "public":
        return
    entrance: Entrance | None = connection.user
    if entrance is None:
        raise NotAuthorizedException("please log in", headers={"www-authenticate": "Bearer"})
    if connection.auth is not None and connection.scope["method"] not in SAFE_METHODS:  # type: ignore[typeddict-item]
        given = connection.headers.get(CSRF_HEADER, "")
        if not secrets.compare_digest(given.encode(), connection.auth.encode()):
            raise PermissionDeniedException("the page is too old to do this; load it again")
    if needs != "anybody" and needs not in entrance.rights:
        raise PermissionDeniedException(f"this needs the right to {needs}, which {entrance.role} does not have")


def needed_right(handler: BaseRouteHandler) -> str:
    """What the route says: one of RIGHTS, `anybody` for everyone who is logged in, or `public`."""
    needs = handler.opt.get("needs")
    if needs not in (*RIGHTS, "anybody", "public"):
        raise ImproperlyConfiguredException(f"{handler} does not say which right it needs")
    return str(needs)


def from_same_site(connection: ASGIConnection[Any, Any, Any, Any]) -> bool:
    """Whether a form was sent from our own pages, for those that nobody has to be logged in for."""
    if (site := connection.headers.get("sec-fetch-site")) is not None:
        return site in ("same-origin", "none")
    if (origin := connection.headers.get("origin")) is not None:
        return urlsplit(origin).netloc == connection.headers.get("host")
    return True


def new_secret(tenant_id: int) -> str:
    """For a cookie, a link or a token: 256 bits, after the number of the tenant in which it is looked up."""
    return f"{tenant_id}.{secrets.token_urlsafe(32)}"


def lookup(secret: str) -> list[Any]:
    """The tenant's number and the digest, as the verbs that look a secret up take them."""
    tenant_id = secret.partition(".")[0]
    return [
        int(tenant_id) if tenant_id.isascii() and tenant_id.isdigit() and len(tenant_id) < 19 else 0,
        digest(secret),
    ]


def digest(secret: str) -> bytes:
    """What the database keeps of it; no salt, for nobody can guess what 256 bits are."""
    return hashlib.sha256(secret.encode()).digest()


def csrf_token(secret: str) -> str:
    """What a page of this session sends back: derived from the cookie's secret, which no other site can read."""
    return hashlib.sha256(b"csrf:" + secret.encode()).hexdigest()


def cookie_name(base_url: str) -> str:
    """Browsers keep __Host- cookies of HTTPS pages from neighbours on the same domain."""
    return "__Host-stellwerk" if base_url.startswith("https://") else "stellwerk_session"


def safe_next(path: str | None) -> str:
    """Where to go after logging in: a path of ours, never another site."""
    if not path or not path.startswith("/") or path.startswith(("//", "/\\")) or not path.isprintable():
        return "/"
    return path


def login_path(path: str) -> str:
    """The login page that leads back."""
    return "/login" if path in ("", "/") else f"/login?next={quote(path)}"


def _entrance(row: tuple[Any, ...]) -> Entrance | None:
    return None if row[0] is None else Entrance(*row)
