"""Coming in and going out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Request, Response, Router
from litestar.enums import RequestEncodingType
from litestar.exceptions import PermissionDeniedException
from litestar.params import Body

from stellwerk.errors import StellwerkError, UsageError
from stellwerk.web import routes
from stellwerk.web.access import cookie_name, digest, from_same_site, lookup, new_secret, safe_next
from stellwerk.web.desk import Desk
from stellwerk.web.forms import network_of
from stellwerk.web.passwords import hash_password, verify

DAYS = 30
CLOSE = "select stellwerk.close_session(%s, %s)"


@dataclass
class Credentials:
    """What the login form sends."""

    email: str = ""
    password: str = ""
    tenant: str = "default"
    next: str = "/"


@dataclass
class NewPassword:
    """What the page of an invitation sends."""

    password: str = ""
    again: str = ""


Form = Body(media_type=RequestEncodingType.URL_ENCODED)


@routes.get("/login", needs="public")
def show_login(desk: Desk, request: Request[Any, Any, Any], next: str = "/", tenant: str = "default") -> Any:
    """The login page; who is logged in already goes on."""
    if request.user is not None:
        return desk.go(safe_next(next))
    return desk.page("login/page.html", next=safe_next(next), tenant=tenant, email="", refusal=None)


@routes.post("/login", needs="public", status_code=200)
def log_in(desk: Desk, request: Request[Any, Any, Any], data: Annotated[Credentials, Form]) -> Any:
    """A new session for the right password; the answer does not tell whether there is such a user."""
    _require_same_site(request)
    address = _address(request)
    with desk.database.transaction() as engine:
        found = engine.row("select * from stellwerk.find_login(%s, %s, %s)", [data.tenant, data.email, address])
    if found["wait_seconds"]:
        return _again(
            desk,
            data,
            desk.t("Too many attempts. Please wait {seconds} seconds.", seconds=found["wait_seconds"]),
            429,
            {"retry-after": str(found["wait_seconds"])},
        )
    if not verify(found["hash"], data.password):
        return _again(desk, data, desk.t("This address and this password do not belong together."), 403)
    return _open_session(desk, request, found["tenant_id"], found["user_id"], safe_next(data.next))


@routes.post("/logout", needs="anybody", status_code=200)
def log_out(desk: Desk, request: Request[Any, Any, Any]) -> Any:
    """The session is over, in the database as well."""
    name = cookie_name(desk.base_url)
    with desk.database.transaction() as engine:
        engine.value(CLOSE, lookup(request.cookies.get(name, "")))
    answer = desk.go("/login")
    answer.delete_cookie(name, path="/")
    return answer


@routes.get("/welcome/{secret:str}", needs="public")
def show_invitation(desk: Desk, secret: str) -> Any:
    """Where an invited user chooses a password."""
    with desk.database.transaction() as engine:
        found = engine.rows("select email, tenant from stellwerk.find_invitation(%s, %s)", lookup(secret))
    return desk.page(
        "login/welcome.html", status=200 if found else 404, invited=found[0] if found else None, refusal=None
    )


@routes.post("/welcome/{secret:str}", needs="public", status_code=200)
def accept_invitation(
    desk: Desk, request: Request[Any, Any, Any], secret: str, data: Annotated[NewPassword, Form]
) -> Any:
    """The password is set, the link used up, the user logged in."""
    _require_same_site(request)
    with desk.database.transaction() as engine:
        found = engine.rows("select email, tenant from stellwerk.find_invitation(%s, %s)", lookup(secret))
    if not found:
        return desk.page("login/welcome.html", status=404, invited=None, refusal=None)
    try:
        if data.password != data.again:
            raise UsageError(desk.t("The two are not the same."))
        hashed = hash_password(data.password)
        with desk.database.transaction() as engine:
            user_id = engine.value("select stellwerk.accept_invitation(%s, %s, %s)", [*lookup(secret), hashed])
    except StellwerkError as error:
        return desk.page("login/welcome.html", status=422, invited=found[0], refusal=error.message)
    return _open_session(desk, request, lookup(secret)[0], user_id, "/")


def _open_session(
    desk: Desk, request: Request[Any, Any, Any], tenant_id: int, user_id: int, path: str
) -> Response[Any]:
    """Another one than the browser had, which is over: whoever knew that one is not let in with this one."""
    secret, name = new_secret(tenant_id), cookie_name(desk.base_url)
    with desk.database.transaction() as engine:
        engine.value(CLOSE, lookup(request.cookies.get(name, "")))
        engine.value(
            "select stellwerk.open_session(%s, %s, %s, %s, %s)",
            [tenant_id, user_id, digest(secret), _address(request), request.headers.get("user-agent")],
        )
    answer = desk.go(path)
    answer.set_cookie(
        name,
        secret,
        path="/",
        max_age=DAYS * 24 * 60 * 60,
        httponly=True,
        secure=desk.base_url.startswith("https://"),
        samesite="lax",
    )
    return answer


def _again(desk: Desk, data: Credentials, refusal: str, status: int, headers: dict[str, str] | None = None) -> Any:
    return desk.page(
        "login/page.html",
        status=status,
        headers=headers,
        next=safe_next(data.next),
        tenant=data.tenant,
        email=data.email,
        refusal=refusal,
    )


def _require_same_site(request: Request[Any, Any, Any]) -> None:
    if not from_same_site(request):
        raise PermissionDeniedException("this form was sent from another site")


def _address(request: Request[Any, Any, Any]) -> str:
    return network_of(request.client.host if request.client else "")


router = Router("/", route_handlers=[show_login, log_in, log_out, show_invitation, accept_invitation])
