"""Users and tokens: who may come in, and as what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from litestar import Router

from stellwerk.engine import Row
from stellwerk.errors import UnknownThing
from stellwerk.web import cursors, routes, schema_forms
from stellwerk.web.access import ROLES, digest, new_secret
from stellwerk.web.desk import Desk
from stellwerk.web.pages.tasks import ZONE
from stellwerk.web.posted import Posted, number

LONGEST_DAYS = 3650
# With the newest first, so that who was just added stands on top.
USERS = """
  select u.user_id, u.email, u.name, u.role, u.groups, u.active, u.mails, u.absent_from, u.absent_until, u.delegate,
         u.created_at, p.changed_at as password_at, i.expires_at as invited_until,
         coalesce(s.sessions, 0) as sessions, s.last_seen_at,
         coalesce(u.absent_from <= clock_timestamp(), false)
           and coalesce(u.absent_until, 'infinity') > clock_timestamp() as away
    from stellwerk.app_user u
    left join stellwerk.user_password p on p.tenant_id = u.tenant_id and p.user_id = u.user_id
    left join stellwerk.user_invitation i
      on i.tenant_id = u.tenant_id and i.user_id = u.user_id and i.expires_at > clock_timestamp()
    left join lateral (
      select count(*) as sessions, max(x.last_seen_at) as last_seen_at from stellwerk.user_session x
       where x.tenant_id = u.tenant_id and x.user_id = u.user_id and x.expires_at > clock_timestamp()) s on true
   where u.tenant_id = (select stellwerk.current_tenant_id())
     and (%(user)s::bigint is null or u.user_id = %(user)s)
     and (%(words)s::text is null or u.email ilike %(words)s or u.name ilike %(words)s)
     and (%(before)s::bigint is null or u.user_id < %(before)s)
   order by u.user_id desc
   limit %(limit)s
"""
TOKENS = """
  select t.token_id, t.name, t.role, t.scopes, t.created_at, t.created_by, t.expires_at, t.last_used_at,
         coalesce(t.expires_at < clock_timestamp(), false) as expired
    from stellwerk.api_token t
   where t.tenant_id = (select stellwerk.current_tenant_id()) and t.revoked_at is null
   order by t.token_id desc limit 200
"""
RIGHTS = "select r.role, stellwerk.role_rights(r.role) as rights from unnest(%s::text[]) r (role)"


@routes.get("/settings/users", needs="manage")
def show_users(desk: Desk, words: str = "", cursor: str = "") -> Any:
    """All users, the newest first, and the tokens that programs come in with."""
    page = _users(desk, words, cursor)
    if desk.is_fragment:
        return desk.page("users/_users.html", page=page, words=words, roles=ROLES)
    return _page(desk, page, words)


@routes.post("/settings/users", needs="manage", status_code=200)
def add_user(desk: Desk, body: bytes) -> Any:
    """A new user, with a link that is shown once."""
    posted = Posted(body)
    email, secret = posted.text("email").lower(), new_secret(desk.who.tenant_id)
    with desk.engine() as engine:
        engine.value(
            "select stellwerk.add_user(email => %s, role => %s, name => %s, groups => %s)",
            [email, posted.text("role"), posted.text("name") or None, _groups(posted)],
        )
        engine.value("select stellwerk.invite_user(%s, %s)", [email, digest(secret)])
    return _shown_once(desk, desk.t("Link for {email}", email=email), f"{desk.base_url}/welcome/{secret}")


@routes.post("/settings/users/{user_id:int}/changes", needs="manage", status_code=200)
def change_user(desk: Desk, user_id: int, body: bytes) -> Any:
    """Name, role, groups, mails; or the end, or a new beginning, of the account."""
    posted = Posted(body)
    email = _email(desk, user_id)
    active = {"true": True, "false": False}.get(posted.text("active"))
    with desk.engine() as engine:
        engine.value(
            "select stellwerk.change_user("
            "email => %s, role => %s, name => %s, groups => %s, active => %s, mails => %s)",
            [
                email,
                posted.text("role") or None,
                posted.text("name") if "name" in posted else None,
                _groups(posted) if "groups" in posted else None,
                active,
                (posted.text("mails") == "true") if "name" in posted else None,
            ],
        )
    return _row(desk, user_id)


@routes.post("/settings/users/{user_id:int}/invitation", needs="manage", status_code=200)
def invite_user(desk: Desk, user_id: int) -> Any:
    """A new link, shown once; the one before works no more."""
    email, secret = _email(desk, user_id), new_secret(desk.who.tenant_id)
    with desk.engine() as engine:
        engine.value("select stellwerk.invite_user(%s, %s)", [email, digest(secret)])
    return _shown_once(desk, desk.t("Link for {email}", email=email), f"{desk.base_url}/welcome/{secret}")


@routes.post("/settings/users/{user_id:int}/absence", needs="manage", status_code=200)
def set_absence(desk: Desk, user_id: int, body: bytes) -> Any:
    """Away from, until, and who acts meanwhile; without a beginning the user is back."""
    posted = Posted(body)
    email = _email(desk, user_id)
    with desk.engine() as engine:
        zone = engine.value(ZONE)
        starts, ends = (schema_forms.moment(posted.text(name), zone) for name in ("absent_from", "absent_until"))
        engine.value(
            "select stellwerk.set_absence(email => %s, absent_until => %s, delegate => %s, absent_from => %s)",
            [email, ends if starts else None, (posted.text("delegate") or None) if starts else None, starts],
        )
    return _row(desk, user_id)


@routes.post("/settings/users/{user_id:int}/sessions/end", needs="manage", status_code=200)
def end_sessions(desk: Desk, user_id: int) -> Any:
    """Logged out everywhere."""
    email = _email(desk, user_id)
    with desk.engine() as engine:
        engine.value("select stellwerk.end_sessions(%s)", [email])
    return _row(desk, user_id)


@routes.post("/settings/tokens", needs="manage", status_code=200)
def create_token(desk: Desk, body: bytes) -> Any:
    """A token for a program, shown once."""
    posted = Posted(body)
    secret = new_secret(desk.who.tenant_id)
    days = posted.text("days")
    expires = datetime.now(UTC) + timedelta(days=min(number(days), LONGEST_DAYS)) if days else None
    with desk.engine() as engine:
        engine.value(
            "select stellwerk.create_token(%s, %s, %s, %s, %s)",
            [posted.text("name"), posted.text("role"), digest(secret), posted.all("scope") or None, expires],
        )
    return _shown_once(desk, desk.t("Token {name}", name=posted.text("name")), secret)


@routes.post("/settings/tokens/{token_id:int}/revocation", needs="manage", status_code=200)
def revoke_token(desk: Desk, token_id: int) -> Any:
    """It works no more, from the next request on."""
    with desk.engine() as engine:
        engine.value("select stellwerk.revoke_token(%s)", [token_id])
    return desk.page("users/_tokens.html", tokens=desk.rows(TOKENS))


def _page(desk: Desk, page: cursors.Page, words: str) -> Any:
    with desk.engine() as engine:
        tokens, zone = engine.rows(TOKENS), engine.value(ZONE)
        rights = {row["role"]: row["rights"] for row in engine.rows(RIGHTS, [list(ROLES)])}
    return desk.page(
        "users/page.html", page=page, words=words, tokens=tokens, roles=ROLES, rights=rights, zone=zone, shown=None
    )


def _users(desk: Desk, words: str, cursor: str, limit: int = cursors.DEFAULT) -> cursors.Page:
    key = cursors.read(cursor or None, int)
    pattern = "%" + words.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_") + "%" if words else None
    with desk.engine() as engine:
        zone = engine.value(ZONE)
        rows = engine.rows(
            USERS,
            {"user": None, "words": pattern, "before": key[0] if key else None, "limit": limit + 1},  # type: ignore[arg-type]
        )
    return cursors.page([_with_local(row, zone) for row in rows], limit, "user_id")


def _row(desk: Desk, user_id: int) -> Any:
    with desk.engine() as engine:
        zone = engine.value(ZONE)
        rows = engine.rows(USERS, {"user": user_id, "words": None, "before": None, "limit": 1})  # type: ignore[arg-type]
    return desk.page("users/_user.html", user=_with_local(rows[0], zone), roles=ROLES)


def _with_local(user: Row, zone: str) -> Row:
    return {
        **user,
        "from_local": schema_forms.local_time(user["absent_from"], zone),
        "until_local": schema_forms.local_time(user["absent_until"], zone),
    }


def _shown_once(desk: Desk, title: str, secret: str) -> Any:
    return desk.page(
        "users/_once.html", shown={"title": title, "secret": secret}, headers={"hx-trigger": "users-changed"}
    )


def _email(desk: Desk, user_id: int) -> str:
    rows = desk.rows(
        "select u.email from stellwerk.app_user u"
        " where u.tenant_id = (select stellwerk.current_tenant_id()) and u.user_id = %s",
        [user_id],
    )
    if not rows:
        raise UnknownThing(desk.t("There is no such user."))
    return str(rows[0]["email"])


def _groups(posted: Posted) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in posted.text("groups").split(",") if part.strip()))


router = Router(
    "/",
    route_handlers=[
        show_users,
        add_user,
        change_user,
        invite_user,
        set_absence,
        end_sessions,
        create_token,
        revoke_token,
    ],
)
