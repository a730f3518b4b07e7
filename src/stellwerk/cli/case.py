"""`stellwerk case …`: what the backoffice sees of runs, and what it writes down."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, cell, listing, say, to_json
from stellwerk.errors import StellwerkError, UnknownThing, UsageError

app = typer.Typer(
    help="Find cases, change them, note things down, hand them out.", no_args_is_help=True, rich_markup_mode=None
)

CASE = typer.Argument(help="The case's number.", metavar="ID")
WORDS = typer.Option(None, "--search", help="Words that summary, note or data have, or words beginning like them.")
STATUS = typer.Option([], "--status", help="Only cases with this status; may be given again.")
WORKFLOW = typer.Option(None, "--workflow", help="Only cases of this workflow.")
ASSIGNEE = typer.Option(None, "--assignee", help="Only cases that this user, or role:NAME, takes care of.")
SEEN = typer.Option(None, "--version", help="The version that was seen: refused if somebody has changed it meanwhile.")
SHOWN = ("status", "label", "workflow", "run_id", "assignee", "summary", "note", "version", "created_at", "updated_at")


@app.command("list")
def list_(
    search: str | None = WORDS,
    status: list[str] = STATUS,
    workflow: str | None = WORKFLOW,
    assignee: str | None = ASSIGNEE,
    before: int | None = typer.Option(None, "--before", help="Go on after this case: the last one of a page."),
    limit: int = typer.Option(50, "--limit", help="How many, newest first.", min=1, max=1000),
    as_json: bool = JSON,
) -> None:
    """List cases, newest first."""
    with engine() as stellwerk:
        rows = stellwerk.search_cases(search, status or None, workflow, assignee, before, limit)
    shown = [{**row, "name": row["payload"].get("name") or row["summary"]} for row in rows]
    listing(
        rows if as_json else shown,
        as_json=as_json,
        empty="There are no such cases.",
        columns=["case_id", "name", "status", "note", "assignee", "workflow", "run_id", "updated_at"],
    )
    if len(rows) == limit and not as_json:
        say(f"… go on with --before {rows[-1]['case_id']}")


@app.command()
def show(case: int = CASE, as_json: bool = JSON) -> None:
    """Show a case with its data, its appointments and everything that happened to it."""
    with engine() as stellwerk:
        rows = stellwerk.rows("select * from stellwerk.case_overview where case_id = %s", [case])
        more = {
            "appointments": stellwerk.rows(
                "select appointment_id, title, starts_at, ends_at, location, version, created_by"
                " from stellwerk.case_appointment"
                " where tenant_id = stellwerk.current_tenant_id() and case_id = %s order by starts_at",
                [case],
            ),
            "history": stellwerk.rows(
                "select changed_at, actor, kind, status, changes, remark, version, run_id, step_id, node_id"
                " from stellwerk.case_timeline where case_id = %s order by history_id",
                [case],
            ),
        }
    if not rows:
        raise UnknownThing(f"there is no case {case}", hint="`stellwerk case list` shows them.")
    row = rows[0]
    if as_json:
        say(to_json({**row, **more}))
        return
    say(f"case {row['case_id']}: {row['payload'].get('name') or row['summary'] or row['workflow']}")
    for name in SHOWN:
        if row[name] is not None:
            say(f"  {name.replace('_', ' ')}: {cell(row[name])}")
    for name, value in row["payload"].items():
        say(f"  {name}: {cell(value)}")
    for appointment in more["appointments"]:
        where = f", {appointment['location']}" if appointment["location"] else ""
        number, title, when = appointment["appointment_id"], appointment["title"], appointment["starts_at"]
        say(f"  appointment {number}: {cell(when)} {cell(title)}{where}")
    for entry in more["history"]:
        by = entry["actor"] + (f" ({entry['node_id']})" if entry["node_id"] else "")
        say(f"  {cell(entry['changed_at'])}  {by}: {_told(entry)}")


@app.command()
def status(
    case: int = CASE,
    to: str = typer.Argument(help="The new status.", metavar="STATUS"),
    note: str | None = typer.Option(None, "--note", help="The case's note from now on."),
    version: int | None = SEEN,
) -> None:
    """Set a case's status, and its note."""
    with engine() as stellwerk:
        now = stellwerk.set_case_status(case, to, note, version)
    say(f"Case {case} is {to} (version {now}).")


@app.command()
def note(case: int = CASE, text: str = typer.Argument(help="What to write down.", metavar="TEXT")) -> None:
    """Write a note into a case's history; the case itself does not change."""
    with engine() as stellwerk:
        stellwerk.add_case_note(case, text)
    say(f"Noted in case {case}.")


@app.command()
def assign(
    case: int = CASE,
    to: str | None = typer.Option(None, "--to", help="A user's e-mail address, or role:NAME."),
    nobody: bool = typer.Option(False, "--nobody", help="Nobody takes care of it any more."),
    version: int | None = SEEN,
) -> None:
    """Put somebody in charge of a case."""
    if (to is None) != nobody:
        raise UsageError("say either --to or --nobody")
    with engine() as stellwerk:
        now = stellwerk.assign_case(case, to, version)
    say(f"Case {case} is {'nobody' if to is None else to}'s (version {now}).")


@app.command()
def export(
    file: Path | None = typer.Argument(None, help="Where to; without it, standard output.", metavar="FILE"),
    search: str | None = WORDS,
    status: list[str] = STATUS,
    workflow: str | None = WORKFLOW,
    assignee: str | None = ASSIGNEE,
) -> None:
    """Write cases as CSV that no spreadsheet takes for formulas: UTF-8, a column for each field of the data."""
    with engine() as stellwerk:
        lines = stellwerk.export_cases(search, status or None, workflow, assignee)
    data = "".join(f"{line}\r\n" for line in lines).encode()
    if file is None:
        sys.stdout.buffer.write(data)
        return
    try:
        file.write_bytes(data)
    except OSError as error:
        raise StellwerkError(f"{file} could not be written: {error.strerror}") from None
    say(f"{len(lines) - 1} case{'' if len(lines) == 2 else 's'} in {file}")


def _told(entry: dict[str, Any]) -> str:
    """What a row of the history says, on one line."""
    if entry["kind"] == "note":
        return f"“{cell(entry['remark'])}”"
    changes = {name: change for name, change in entry["changes"].items() if isinstance(change, dict)}
    parts = [
        f"{name.removeprefix('payload.')} {cell(change['from']) or '–'} → {cell(change['to']) or '–'}"
        for name, change in sorted(changes.items())
    ]
    return cell(", ".join(parts) or "nothing changed") + (f" ({cell(entry['remark'])})" if entry["remark"] else "")
