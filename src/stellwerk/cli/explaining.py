"""`stellwerk run explain`, `state`, `diff`, `stuck`, `failures` and `dead-letters`: why runs are as they are."""

from __future__ import annotations

import datetime
import re

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, cell, listing, say, to_json
from stellwerk.cli.run import RUN, overview_of
from stellwerk.errors import UsageError


def register(run_app: typer.Typer) -> None:
    """Add the commands of this module to `stellwerk run`."""
    for command in (explain, state, diff, stuck, failures):
        run_app.command()(command)
    run_app.command("dead-letters")(dead_letters)


def explain(
    run: int = RUN,
    evidence: bool = typer.Option(False, "--evidence", help="Print below each reason what it follows from."),
    as_json: bool = JSON,
) -> None:
    """Say every reason why a run stands where it stands, the most pressing first."""
    with engine() as stellwerk:
        reasons = stellwerk.explain_run(run)
    if as_json:
        say(to_json(reasons))
        return
    for reason in reasons:
        say(f"{reason['position']:>2}  {reason['reason']}")
        if evidence:
            for name, value in reason["evidence"].items():
                say(f"      {name.replace('_', ' ')}: {cell(value)}")


def state(
    run: int = RUN,
    at: str = typer.Option(..., "--at", help="A time such as 2026-01-31T12:00Z, or so long ago: PT1H.", metavar="TIME"),
    as_json: bool = JSON,
) -> None:
    """Show how a run and its steps stood at an earlier time."""
    with engine() as stellwerk:
        overview_of(stellwerk, run)
        rows = stellwerk.run_state_at(run, read_time(at))
    listing(
        rows if as_json else [{**row, "node_id": row["node_id"] or "(the run)"} for row in rows],
        as_json=as_json,
        empty=f"Run {run} had not been asked for then.",
        columns=["node_id", "state", "attempt", "port", "since", "worker_id"],
    )


def diff(
    a: int = typer.Argument(help="A run's number.", metavar="A"),
    b: int = typer.Argument(help="Another's.", metavar="B"),
    as_json: bool = JSON,
) -> None:
    """Compare two runs: what they were given, where their ways part, what came out, how long it took."""
    with engine() as stellwerk:
        rows = stellwerk.diff_runs(a, b)
    listing(
        [_without_nulls(row) for row in rows] if not as_json else rows,
        as_json=as_json,
        empty="They do not differ.",
        columns=["kind", "node_id", "path", "a_value", "b_value"],
    )


def stuck(as_json: bool = JSON) -> None:
    """List the live runs that nothing will move, and what to do about each."""
    with engine() as stellwerk:
        rows = stellwerk.rows("select * from stellwerk.stuck_run order by since")
    columns = ["run_id", "workflow", "node_id", "since", "cause", "mend"]
    listing(rows, as_json=as_json, empty="No run is stuck.", columns=columns)


def failures(as_json: bool = JSON) -> None:
    """List the failures of the last seven days, those that are alike together, the most frequent first."""
    with engine() as stellwerk:
        rows = stellwerk.rows("select * from stellwerk.failure_cluster order by failures desc, last_seen desc")
    columns = ["failures", "workflow", "version", "node_id", "error_class", "message", "last_seen"]
    listing(rows, as_json=as_json, empty="No run has failed.", columns=columns)


def dead_letters(
    limit: int = typer.Option(50, "--limit", help="How many, the newest first.", min=1, max=10000),
    as_json: bool = JSON,
) -> None:
    """List what was given up and waits for somebody: runs, events, files; each with the statement to try it again."""
    with engine() as stellwerk:
        rows = stellwerk.rows("select * from stellwerk.dead_letter order by failed_at desc limit %s", [limit])
    columns = ["kind", "letter_id", "workflow", "node_id", "message", "failed_at", "retry"]
    listing(rows, as_json=as_json, empty="There is none.", columns=columns)


def read_time(text: str) -> str:
    """What PostgreSQL reads as a time; a duration is counted back from now."""
    if re.fullmatch(r"P(?=.)(\d+W|(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", text):
        weeks, days, hours, minutes, seconds = (
            int(found[1]) if (found := re.search(pattern, text)) else 0
            for pattern in (r"(\d+)W", r"(\d+)D", r"(\d+)H", r"(\d+)M", r"(\d+)S")
        )
        ago = datetime.timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        return (datetime.datetime.now(datetime.UTC) - ago).isoformat()
    try:
        read = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time", hint="Write 2026-01-31T12:00Z, or PT1H for one hour ago.") from None
    return read.astimezone().isoformat()


def _without_nulls(row: dict[str, object]) -> dict[str, object]:
    """The end of a step that did not happen is empty, not a word."""
    return {
        name: {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value
        for name, value in row.items()
    }
