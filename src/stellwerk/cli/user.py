"""`stellwerk user …`: who works with tasks, cases and workflows."""

from __future__ import annotations

import datetime
import sys

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say
from stellwerk.errors import UsageError
from stellwerk.settings import Settings

app = typer.Typer(
    help="The people who work with tasks, cases and workflows.", no_args_is_help=True, rich_markup_mode=None
)

ROLES = ("viewer", "staff", "designer", "operator", "admin")
EMAIL = typer.Argument(help="The user's e-mail address.")


@app.command()
def add(
    email: str = EMAIL,
    role: str = typer.Option(..., "--role", help=f"One of {', '.join(ROLES)}."),
    name: str | None = typer.Option(None, "--name", help="Name for people."),
    login: str | None = typer.Option(None, "--login", help="The database login that speaks for the user."),
    group: list[str] = typer.Option([], "--group", help="A further role for tasks; may be given several times."),
) -> None:
    """Add a user."""
    if role not in ROLES:
        raise UsageError(f"{role!r} is no role", hint=f"There are {', '.join(ROLES)}.")
    with engine() as stellwerk:
        stellwerk.add_user(email, role, name=name, login=login, groups=group)
    say(f"{email.lower()} is a user with the role {role}.")


@app.command()
def change(
    email: str = EMAIL,
    role: str | None = typer.Option(None, "--role", help=f"One of {', '.join(ROLES)}."),
    name: str | None = typer.Option(None, "--name", help="Name for people; an empty one is taken away."),
    login: str | None = typer.Option(None, "--login", help="The database login that speaks for the user; empty: none."),
    group: list[str] | None = typer.Option(None, "--group", help="All further roles for tasks; an empty one: none."),
    active: bool | None = typer.Option(None, "--active/--inactive", help="Whether the person is still here."),
    mails: bool | None = typer.Option(None, "--mails/--no-mails", help="Whether the person wants mails."),
) -> None:
    """Change what is given of a user, and leave the rest."""
    if role is not None and role not in ROLES:
        raise UsageError(f"{role!r} is no role", hint=f"There are {', '.join(ROLES)}.")
    groups = [each for each in group if each] if group else None
    with engine() as stellwerk:
        stellwerk.change_user(email, role=role, name=name, login=login, groups=groups, active=active, mails=mails)
    say(f"{email.lower()} is changed.")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the users."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select email, name, role, groups, login, active, mails, absent_from, absent_until, delegate, created_at"
            " from stellwerk.app_user where tenant_id = stellwerk.current_tenant_id() order by email"
        )
    listing(
        rows,
        as_json=as_json,
        empty="There are no users.",
        columns=["email", "name", "role", "groups", "active", "absent_until", "delegate"],
    )


@app.command()
def absence(
    email: str = EMAIL,
    until: datetime.datetime | None = typer.Option(
        None, "--until", help="Until when; without it, until further notice."
    ),
    to: str | None = typer.Option(None, "--to", help="Who does the tasks meanwhile."),
    over: bool = typer.Option(False, "--over", help="The user is back."),
) -> None:
    """Say that a user is away from now on, or back."""
    if over and (until is not None or to is not None):
        raise UsageError("--over goes without --until and --to")
    with engine() as stellwerk:
        if over:
            stellwerk.end_absence(email)
            say(f"{email.lower()} is back.")
        else:
            stellwerk.set_absence(email, until, to)
            say(f"{email.lower()} is away" + (f"; {to.lower()} does the tasks." if to else "."))


@app.command()
def invite(email: str = EMAIL) -> None:
    """Print a link with which a user chooses a password; it works once, for seven days."""
    from stellwerk.web.access import digest, new_secret

    with engine() as stellwerk:
        secret = new_secret(int(stellwerk.value("select stellwerk.current_tenant_id()")))
        stellwerk.invite_user(email, digest(secret))
    say(invitation_link(Settings.from_environment().base_url, secret))


@app.command()
def password(
    email: str = EMAIL,
    stdin: bool = typer.Option(False, "--stdin", help="Read it from standard input, without asking."),
) -> None:
    """Set a user's password, which is asked for; all of the user's sessions end."""
    from stellwerk.web.passwords import hash_password

    if stdin:
        chosen = sys.stdin.readline().rstrip("\r\n")
    else:
        chosen = typer.prompt("Password", hide_input=True, confirmation_prompt="Once more")
    hashed = hash_password(chosen)
    with engine() as stellwerk:
        stellwerk.set_password(email, hashed)
    say(f"{email.lower()} has a new password, and is logged out everywhere.")


@app.command()
def sessions(
    email: str = EMAIL,
    end: bool = typer.Option(False, "--end", help="End them all: the user is logged out everywhere."),
    as_json: bool = JSON,
) -> None:
    """List the browsers in which a user is logged in, or end their sessions."""
    with engine() as stellwerk:
        if end:
            count = stellwerk.end_sessions(email)
            say(f"{email.lower()} is logged out of {count} browser{'' if count == 1 else 's'}.")
            return
        rows = stellwerk.rows(
            "select s.session_id, s.address, s.agent, s.created_at, s.last_seen_at, s.expires_at"
            " from stellwerk.app_user u join stellwerk.user_session s using (tenant_id, user_id)"
            " where u.tenant_id = stellwerk.current_tenant_id() and u.email = lower(%s) order by s.session_id",
            [email],
        )
    listing(
        rows,
        as_json=as_json,
        empty=f"{email.lower()} is logged in nowhere.",
        columns=["session_id", "address", "agent", "created_at", "last_seen_at"],
    )


def invitation_link(base_url: str, secret: str) -> str:
    """Where an invited user chooses a password."""
    return f"{base_url.rstrip('/')}/welcome/{secret}"
