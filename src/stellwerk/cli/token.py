"""`stellwerk token …`: how programs come in over HTTP."""

from __future__ import annotations

import datetime

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say, to_json
from stellwerk.cli.user import ROLES
from stellwerk.errors import UnknownThing, UsageError

RIGHTS = ("read", "work", "design", "start", "operate", "manage")
app = typer.Typer(help="How programs come in over HTTP.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    name: str = typer.Argument(help="What it is for, such as website or ci-deploy."),
    role: str = typer.Option(..., "--role", help=f"One of {', '.join(ROLES)}."),
    scope: list[str] = typer.Option([], "--scope", help="Only this of the role's rights; may be given several times."),
    days: int | None = typer.Option(None, "--days", help="For how long; without it, until it is revoked.", min=1),
    as_json: bool = JSON,
) -> None:
    """Make a token and print it: once, for it is kept nowhere."""
    if role not in ROLES:
        raise UsageError(f"{role!r} is no role", hint=f"There are {', '.join(ROLES)}.")
    if unknown := [each for each in scope if each not in RIGHTS]:
        raise UsageError(f"{unknown[0]!r} is no right", hint=f"There are {', '.join(RIGHTS)}.")
    from stellwerk.web.access import digest, new_secret  # here, because the web framework takes a while to load

    until = None if days is None else datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    with engine() as stellwerk:
        secret = new_secret(int(stellwerk.value("select stellwerk.current_tenant_id()")))
        number = stellwerk.create_token(name, role, digest(secret), scope or None, until)
    say(to_json({"token_id": number, "name": name, "token": secret}) if as_json else secret)


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the tokens, without what is secret about them."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select token_id, name, role, scopes, created_at, created_by, expires_at, last_used_at, revoked_at"
            " from stellwerk.api_token where tenant_id = stellwerk.current_tenant_id() order by token_id"
        )
    listing(
        rows,
        as_json=as_json,
        empty="There are no tokens.",
        columns=["token_id", "name", "role", "scopes", "expires_at", "last_used_at", "revoked_at"],
    )


@app.command()
def revoke(name: str = typer.Argument(help="The token's name.")) -> None:
    """Take a token back; it works no more from the next request on."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select token_id from stellwerk.api_token"
            " where tenant_id = stellwerk.current_tenant_id() and name = %s and revoked_at is null",
            [name],
        )
        if not rows:
            raise UnknownThing(f"there is no token {name!r} that works", hint="`stellwerk token list` shows them.")
        stellwerk.revoke_token(rows[0]["token_id"])
    say(f"The token {name} works no more.")
