"""`stellwerk run …`: start runs and look at them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import typer

from stellwerk import json_text
from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, cell, listing, one_line_progress, progress, say, to_json
from stellwerk.engine import Engine
from stellwerk.errors import StellwerkError, UnknownThing, UsageError

app = typer.Typer(help="Start runs, look at them, end them.", no_args_is_help=True, rich_markup_mode=None)

ENDED = ("completed", "failed", "cancelled")
STATES = ("pending", "running", "waiting", "paused", *ENDED)
RUN = typer.Argument(help="The run's number.", metavar="ID")


@app.command()
def start(
    slug: str = typer.Argument(help="The workflow."),
    payload: str = typer.Option("{}", "--payload", help="JSON, or @FILE to read it from a file (@- standard input)."),
    key: str | None = typer.Option(None, "--key", help="Idempotency key: the same key starts only one run."),
    wait: bool = typer.Option(False, "--wait", help="Wait for the end and print what happened."),
    timeout: float = typer.Option(300.0, "--timeout", help="Seconds to wait at most.", min=0.0),
    as_json: bool = JSON,
) -> None:
    """Start a run by hand."""
    text = read_json(payload)
    with engine() as stellwerk:
        number = stellwerk.start_run(slug, text, idempotency_key=key)
        if not wait:
            say(to_json({"run_id": number}) if as_json else str(number))
            return
        state = _wait(stellwerk, number, timeout)
        _show(stellwerk, number, as_json)
        if state != "completed":
            raise typer.Exit(1)


@app.command("list")
def list_(
    workflow: str | None = typer.Option(None, "--workflow", help="Only runs of this workflow."),
    state: str | None = typer.Option(None, "--state", help=f"Only runs in this state: {', '.join(STATES)}."),
    limit: int = typer.Option(50, "--limit", help="How many, the newest first.", min=1, max=10000),
    as_json: bool = JSON,
) -> None:
    """List runs, the newest first."""
    if state is not None and state not in STATES:
        raise UsageError(f"{state!r} is no state of a run", hint=f"There are {', '.join(STATES)}.")
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select run_id, workflow, version, state, source, live_steps, created_at, started_at, ended_at"
            " from stellwerk.run_overview"
            " where (%s::text is null or workflow = %s) and (%s::text is null or state = %s)"
            " order by run_id desc limit %s",
            [workflow, workflow, state, state, limit],
        )
    listing(
        rows,
        as_json=as_json,
        empty="There are no such runs.",
        columns=["run_id", "workflow", "version", "state", "source", "created_at", "ended_at"],
    )


@app.command()
def show(run: int = RUN, as_json: bool = JSON) -> None:
    """Show a run and every step of it."""
    with engine() as stellwerk:
        _show(stellwerk, run, as_json)


@app.command()
def why(run: int = RUN, as_json: bool = JSON) -> None:
    """Say in one sentence what a run is waiting for, or how it ended."""
    with engine() as stellwerk:
        sentence = stellwerk.why(run)
    say(to_json({"run_id": run, "why": sentence}) if as_json else sentence)


def read_json(text: str, what: str = "payload") -> json_text.JsonText:
    """JSON from the command line, from @FILE or, for @-, from standard input."""
    if not text.startswith("@"):
        return json_text.checked(text.encode("utf-8", "surrogateescape"), what)
    if text == "@-":
        return json_text.checked(sys.stdin.buffer.read(json_text.LARGEST_BYTES + 1), what)
    try:
        with Path(text[1:]).open("rb") as file:
            return json_text.checked(file.read(json_text.LARGEST_BYTES + 1), what)
    except OSError as error:
        raise StellwerkError(f"the file {text[1:]} cannot be read: {error.strerror}") from None


def _wait(stellwerk: Engine, run: int, timeout: float) -> str:
    until, told, pause = time.monotonic() + timeout, False, 0.02
    with one_line_progress() as report:
        while True:
            row = stellwerk.row(
                "select r.state, (select count(*) from stellwerk.worker_status) as workers"
                " from stellwerk.run_overview r where r.run_id = %s",
                [run],
            )
            if row["state"] in ENDED:
                return str(row["state"])
            if time.monotonic() > until:
                raise StellwerkError(
                    f"run {run} is still {row['state']} after {timeout:g} s",
                    stellwerk.why(run),
                    "It goes on by itself.",
                )
            if not told and not row["workers"]:
                progress("No worker is there to move it: start one with `stellwerk worker` or `stellwerk up`.")
                told = True
            if sys.stderr.isatty():
                report(f"run {run} is {row['state']} …")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)


def overview_of(stellwerk: Engine, run: int) -> dict[str, Any]:
    """The run's row of run_overview."""
    rows = stellwerk.rows("select * from stellwerk.run_overview where run_id = %s", [run])
    if not rows:
        raise UnknownThing(f"there is no run {run}", hint="`stellwerk run list` shows the newest runs.")
    return rows[0]


def _show(stellwerk: Engine, run: int, as_json: bool) -> None:
    overview = overview_of(stellwerk, run)
    steps = stellwerk.rows("select * from stellwerk.step_timeline where run_id = %s order by queued_at, step_id", [run])
    if as_json:
        say(to_json({**overview, "steps": steps}))
        return
    say(f"Run {run} of {overview['workflow']} version {overview['version']}: {overview['state']}")
    for name in ("source", "created_at", "started_at", "ended_at", "payload", "output", "error"):
        if overview[name] is not None:
            say(f"  {name.replace('_', ' '):<11} {cell(overview[name])}")
    if overview["state"] not in ENDED:
        say(f"  {'why':<11} {stellwerk.why(run)}")
    say()
    moved = any(step["version"] != overview["version"] for step in steps)
    listing(
        [{**step, "result": step["error"] or step["output"]} for step in steps],
        as_json=False,
        empty="No step yet.",
        # A run that was moved to another version has steps on more than one.
        columns=["step_id", "node_id", *(["version"] if moved else []), "type", "state", "attempt", "port", "result"],
    )
