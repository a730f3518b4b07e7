"""`stellwerk user …`: who works with tasks, cases and workflows."""

from __future__ import annotations

import datetime

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say
from stellwerk.errors import UsageError

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
