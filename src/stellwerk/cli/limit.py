"""`stellwerk limit …`: how often worker steps of a type, or for a provider, may begin."""

from __future__ import annotations

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say
from stellwerk.errors import UsageError

app = typer.Typer(
    help="Limit how often worker steps of a type, or for a provider, may begin.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

KINDS = ("type", "provider")
KIND = typer.Argument(help="type or provider.")
NAME = typer.Argument(help="A node type such as http.request, or a provider such as slack or http:api.example.com.")


@app.command("set")
def set_(
    kind: str = KIND,
    name: str = NAME,
    count: int = typer.Argument(help="How many steps may begin within the interval."),
    per: str = typer.Argument(help="Length of the interval, such as PT1M or '1 minute'."),
) -> None:
    """Set or change a limit; steps over it wait for their turn. PER is a duration such as PT1M."""
    _check(kind)
    with engine() as stellwerk:
        stellwerk.set_rate_limit(kind, name, count, per)
        say(f"At most {count} steps of {kind} {name.lower()} begin within {per}.")


@app.command()
def remove(kind: str = KIND, name: str = NAME) -> None:
    """Take a limit away; steps that wait for it begin."""
    _check(kind)
    with engine() as stellwerk:
        if stellwerk.remove_rate_limit(kind, name):
            say(f"Steps of {kind} {name.lower()} begin without a limit.")
        else:
            say(f"There was no limit for {kind} {name.lower()}.")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the limits, how far each is used, and how many steps wait for it."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select kind, name, max_count, stellwerk.duration_text(per) as per, begun, waiting, next_at, set_at, set_by"
            " from stellwerk.rate_limit_status order by kind, name"
        )
    listing(
        rows,
        as_json=as_json,
        empty="No limit is set.",
        columns=["kind", "name", "max_count", "per", "begun", "waiting", "next_at"],
    )


def _check(kind: str) -> None:
    if kind not in KINDS:
        raise UsageError(f"{kind!r} is no kind of limit", hint=f"There are {' and '.join(KINDS)}.")
