"""`stellwerk calendar …`: working hours by name, and the tenant's time zone."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from typing import Any

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, cell, listing, say, to_json
from stellwerk.cli.run import read_json
from stellwerk.engine import Engine
from stellwerk.errors import UnknownThing, UsageError

app = typer.Typer(
    help="Set up the working hours that waits count in, and the tenant's time zone.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NAME = typer.Argument(help="The name that workflows use.")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the calendars."""
    with engine() as stellwerk:
        rows = _calendars(stellwerk)
    shown = (
        rows
        if as_json
        else [{**row, "hours": _in_short(row["hours"]), "holidays": len(row["holidays"])} for row in rows]
    )
    listing(
        shown,
        as_json=as_json,
        empty="There is no calendar.",
        columns=["name", "time_zone", "hours", "holidays", "updated_at", "updated_by"],
    )


@app.command()
def show(name: str = NAME, as_json: bool = JSON) -> None:
    """Show a calendar: its hours day by day, and its holidays."""
    with engine() as stellwerk:
        row = _calendar(stellwerk, name)
    if as_json:
        say(to_json(row))
        return
    say(f"{name}, in {row['time_zone']}, set by {row['updated_by']} at {cell(row['updated_at'])}")
    for day in DAYS:
        say(f"  {day}  {', '.join('-'.join(span) for span in row['hours'].get(day, [])) or 'free'}")
    if row["holidays"]:
        say(f"  free as well: {', '.join(day.isoformat() for day in row['holidays'])}")


@app.command("set")
def set_(
    name: str = NAME,
    hours: str | None = typer.Option(
        None, "--hours", help='JSON, or @FILE: {"mon-fri": [["09:00", "13:00"], ["14:00", "18:00"]]}.'
    ),
    day: list[str] = typer.Option(
        [], "--day", help="mon-fri=09:00-13:00,14:00-18:00; in place of --hours, repeatable."
    ),
    holiday: list[datetime.datetime] = typer.Option(
        [], "--holiday", formats=["%Y-%m-%d"], help="A day without working hours; may be given several times."
    ),
    no_holidays: bool = typer.Option(False, "--no-holidays", help="Forget the holidays so far."),
    zone: str | None = typer.Option(
        None, "--zone", help="Where the hours are meant; a new calendar takes the tenant's."
    ),
) -> None:
    """Make a calendar, or change one: hours and zone replace those so far, holidays are added to them."""
    if hours is not None and day:
        raise UsageError("--hours and --day exclude each other")
    wanted: Any = json.loads(str(read_json(hours))) if hours is not None else _hours(day) or None
    with engine() as stellwerk:
        former = next((row for row in _calendars(stellwerk) if row["name"] == name), None)
        if wanted is None and former is None:
            raise UsageError(f"a new calendar {name!r} needs hours", hint="For example --day mon-fri=09:00-17:00.")
        kept = former["holidays"] if former is not None and not no_holidays else []
        stellwerk.set_calendar(
            name,
            former["hours"] if wanted is None and former is not None else wanted,
            [*kept, *(at.date() for at in holiday)],
            zone or (former["time_zone"] if former is not None else None),
        )
    say(f"Calendar {name} is set.")


@app.command()
def remove(name: str = NAME) -> None:
    """Remove a calendar; steps that name it fail from then on."""
    with engine() as stellwerk:
        say(f"Calendar {name} is gone." if stellwerk.remove_calendar(name) else f"There was no calendar {name}.")


@app.command()
def zone(
    name: str | None = typer.Argument(None, help="The new zone, such as Europe/Rome; without it the zone is printed."),
) -> None:
    """Show or set the tenant's time zone: where times without an offset, days and schedules are meant."""
    with engine() as stellwerk:
        if name is None:
            say(str(stellwerk.value("select stellwerk.zone_of(stellwerk.current_tenant_id())")))
        else:
            stellwerk.set_time_zone(name)
            say(f"Times are meant in {name} from now on.")


def _calendars(stellwerk: Engine) -> list[dict[str, Any]]:
    rows = stellwerk.rows(
        "select name, time_zone, hours, holidays, updated_at, updated_by from stellwerk.calendar"
        " where tenant_id = stellwerk.current_tenant_id() order by name"
    )
    return [{**row, "hours": _by_day(row["hours"])} for row in rows]


def _calendar(stellwerk: Engine, name: str) -> dict[str, Any]:
    for row in _calendars(stellwerk):
        if row["name"] == name:
            return row
    raise UnknownThing(f"there is no calendar {name!r}", hint="`stellwerk calendar list` shows them.")


def _by_day(hours: dict[str, list[list[str]]]) -> dict[str, list[list[str]]]:
    """As people write them: named days, and no seconds where there are none."""
    return {
        DAYS[int(number) - 1]: [
            [time.removesuffix(":00") if time.count(":") == 2 else time for time in span] for span in spans
        ]
        for number, spans in sorted(hours.items())
    }


def _in_short(hours: dict[str, list[list[str]]]) -> str:
    """Days in a row with the same hours together: mon-fri 09:00-17:00; sat 09:00-12:00."""
    parts: list[tuple[str, str, str]] = []
    for day in DAYS:
        text = ", ".join("-".join(span) for span in hours.get(day, []))
        if parts and text == parts[-1][2] and DAYS.index(day) == DAYS.index(parts[-1][1]) + 1:
            parts[-1] = (parts[-1][0], day, text)
        elif text:
            parts.append((day, day, text))
    return "; ".join(f"{first if first == last else f'{first}-{last}'} {text}" for first, last, text in parts)


def _hours(days: Sequence[str]) -> dict[str, list[list[str]]]:
    hours = {}
    for day in days:
        name, _, spans = day.partition("=")
        hours[name.strip()] = [[time.strip() for time in span.split("-")] for span in spans.split(",")]
    return hours
