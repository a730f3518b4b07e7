"""`/api/users` and `/api/tokens`: who may come in."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from litestar import Response
from pydantic import AwareDatetime, Field

from stellwerk.engine import Engine
from stellwerk.errors import Forbidden, UnknownThing, UsageError
from stellwerk.web import cursors, exchange
from stellwerk.web.access import RIGHTS, digest, new_secret
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Given, Id, Name, Paged, Shown, answer

Role = Literal["viewer", "staff", "designer", "operator", "admin"]
Scope = Literal["read", "work", "design", "start", "operate", "manage"]
Email = Annotated[str, Field(min_length=3, max_length=320)]

USERS = """
  select u.email, u.name, u.role, u.groups, u.active, u.mails, u.absent_from, u.absent_until, u.delegate,
         u.created_at, u.created_by,
         exists (select from stellwerk.user_password p
                  where p.tenant_id = u.tenant_id and p.user_id = u.user_id) as has_password,
         exists (select from stellwerk.user_invitation i
                  where i.tenant_id = u.tenant_id and i.user_id = u.user_id
                    and i.expires_at > stellwerk.clock()) as invited,
         (select count(*)::integer from stellwerk.user_session s
           where s.tenant_id = u.tenant_id and s.user_id = u.user_id) as sessions
    from stellwerk.app_user u
   where u.tenant_id = (select stellwerk.current_tenant_id())
     and (%(email)s::text is null or u.email = lower(%(email)s))
     and (%(after)s::text is null or u.email > %(after)s)
   order by u.email
   limit %(limit)s
"""
TOKENS = """
  select token_id, name, role, scopes, created_at, created_by, expires_at, last_used_at, revoked_at
    from stellwerk.api_token
   where tenant_id = (select stellwerk.current_tenant_id())
     and (%(token)s::bigint is null or token_id = %(token)s)
     and (%(before)s::bigint is null or token_id < %(before)s)
   order by token_id desc
   limit %(limit)s
"""


class User(Shown):
    """Somebody who works here."""

    email: str
    name: str | None
    role: Role
    groups: list[str]
    active: bool
    mails: bool
    has_password: bool
    invited: bool
    sessions: int = Field(description="How many browsers are logged in.")
    absent_from: datetime.datetime | None
    absent_until: datetime.datetime | None
    delegate: str | None
    created_at: datetime.datetime
    created_by: str


class NewUser(Given):
    """Somebody new; an invitation lets them choose a password."""

    email: Email
    role: Role
    name: Name | None = None
    groups: Annotated[list[Name], Field(default_factory=list, max_length=100)]


class ChangedUser(Given):
    """What is given is changed, everything else stays."""

    role: Role | None = None
    name: Name | None = None
    groups: Annotated[list[Name], Field(max_length=100)] | None = None
    active: bool | None = None
    mails: bool | None = None


class Invitation(Shown):
    """A link that works once, for seven days; it is shown here and never again."""

    email: str
    link: str


class Ended(Shown):
    """How many sessions ended."""

    ended: int


class Token(Shown):
    """A program's way in."""

    token_id: Id
    name: str
    role: Role
    scopes: list[Scope]
    created_at: datetime.datetime
    created_by: str
    expires_at: datetime.datetime | None
    last_used_at: datetime.datetime | None
    revoked_at: datetime.datetime | None


class NewToken(Given):
    """What a program may do."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$", examples=["ci-deploy"])]
    role: Role
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=6)] | None = Field(
        default=None, description="Which of the role's rights; without it, all of them."
    )
    expires_at: Annotated[AwareDatetime | None, Field(strict=False)] = None


class SecretToken(Token):
    """The token itself is shown here and never again."""

    token: str


UserList = exchange.listed(User, "UserList")
TokenList = exchange.listed(Token, "TokenList")


@exchange.get("/api/users", "List users", UserList, needs="manage", asks=Paged)
def list_users(desk: Desk, asked: Paged) -> Response[bytes]:
    """In the order of their addresses."""
    key = cursors.read(asked.cursor, str)
    rows = desk.rows(USERS, {"email": None, "after": key and key[0], "limit": asked.limit + 1})  # type: ignore[arg-type]
    return exchange.paged(UserList, cursors.page(rows, asked.limit, "email"))


@exchange.post(
    "/api/users",
    "Add a user",
    User,
    needs="manage",
    takes=NewUser,
    status=201,
    refuses=(409,),
    example={"email": "grace@example.org", "role": "staff", "name": "Grace"},
)
def add_user(desk: Desk, given: NewUser) -> Response[bytes]:
    """They come in once they have an invitation, and with it a password."""
    with desk.engine() as engine:
        engine.add_user(given.email, given.role, name=given.name, groups=given.groups)
        return answer(User, _user(engine, given.email), status=201)


@exchange.get("/api/users/{email:str}", "Read a user", User, needs="manage")
def get_user(desk: Desk, email: str) -> Response[bytes]:
    """By the e-mail address."""
    with desk.engine() as engine:
        return answer(User, _user(engine, email))


@exchange.patch(
    "/api/users/{email:str}",
    "Change a user",
    User,
    needs="manage",
    takes=ChangedUser,
    refuses=(409,),
    example={"role": "operator"},
)
def change_user(desk: Desk, email: str, given: ChangedUser) -> Response[bytes]:
    """`active: false` closes the account: whoever is logged in is out with the next request."""
    with desk.engine() as engine:
        _user(engine, email)
        engine.change_user(email, **given.model_dump(exclude_none=True))
        return answer(User, _user(engine, email))


@exchange.post(
    "/api/users/{email:str}/invitation", "Invite a user", Invitation, needs="manage", status=201, refuses=(409,)
)
def invite_user(desk: Desk, email: str) -> Response[bytes]:
    """A link with which the user chooses a password; an earlier one stops working."""
    secret = new_secret(desk.who.tenant_id)
    with desk.engine() as engine:
        user = _user(engine, email)
        engine.invite_user(email, digest(secret))
    link = f"{desk.base_url.rstrip('/')}/welcome/{secret}"
    return answer(Invitation, {"email": user["email"], "link": link}, status=201)


@exchange.delete("/api/users/{email:str}/sessions", "Log a user out", Ended, needs="manage")
def end_sessions(desk: Desk, email: str) -> Response[bytes]:
    """Everywhere, at once."""
    with desk.engine() as engine:
        _user(engine, email)
        return answer(Ended, {"ended": engine.end_sessions(email)})


@exchange.get("/api/tokens", "List tokens", TokenList, needs="manage", asks=Paged)
def list_tokens(desk: Desk, asked: Paged) -> Response[bytes]:
    """The newest first; the tokens themselves are kept nowhere."""
    key = cursors.read(asked.cursor, int)
    rows = desk.rows(TOKENS, {"token": None, "before": key and key[0], "limit": asked.limit + 1})  # type: ignore[arg-type]
    return exchange.paged(TokenList, cursors.page(rows, asked.limit, "token_id"))


@exchange.post(
    "/api/tokens",
    "Make a token",
    SecretToken,
    needs="manage",
    takes=NewToken,
    status=201,
    refuses=(409,),
    example={"name": "website", "role": "designer", "scopes": ["read", "start"]},
)
def create_token(desk: Desk, given: NewToken) -> Response[bytes]:
    """A program sends it as `Authorization: Bearer …`. Nobody can give away rights that they do not have."""
    with desk.engine() as engine:
        granted = given.scopes or engine.value("select stellwerk.role_rights(%s)", [given.role])
        missing = [right for right in RIGHTS if right in granted and not desk.may(right)]
        if missing:
            raise Forbidden(f"this token would have rights that you do not have: {', '.join(missing)}")
        secret = new_secret(desk.who.tenant_id)
        number = engine.create_token(given.name, given.role, digest(secret), given.scopes, given.expires_at)
        return answer(SecretToken, {**_token(engine, number), "token": secret}, status=201)


@exchange.delete("/api/tokens/{token_id:str}", "Revoke a token", needs="manage")
def revoke_token(desk: Desk, token_id: str) -> None:
    """It works no more, from the next request on."""
    with desk.engine() as engine:
        engine.revoke_token(exchange.number(token_id, "token"))


def _user(engine: Engine, email: str) -> dict[str, Any]:
    rows = engine.rows(USERS, {"email": email, "after": None, "limit": 1})  # type: ignore[arg-type]
    if not rows:
        raise UnknownThing(f"there is no user {email[:320]!r}", hint="GET /api/users lists them.")
    return rows[0]


def _token(engine: Engine, number: int) -> dict[str, Any]:
    rows = engine.rows(TOKENS, {"token": number, "before": None, "limit": 1})  # type: ignore[arg-type]
    if not rows:
        raise UsageError(f"there is no token {number}")
    return rows[0]


router = exchange.router(
    list_users,
    add_user,
    get_user,
    change_user,
    invite_user,
    end_sessions,
    list_tokens,
    create_token,
    revoke_token,
)
