"""`stellwerk bulk …`: cancel, pause, resume, retry, skip or migrate many runs at once."""

from __future__ import annotations

import json
from typing import Any

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, cell, listing, say, to_json
from stellwerk.cli.run import read_json
from stellwerk.engine import Engine
from stellwerk.errors import UnknownThing, UsageError

app = typer.Typer(
    help="Cancel, pause, resume, retry, skip or migrate many runs at once.", no_args_is_help=True, rich_markup_mode=None
)

OPERATION = typer.Argument(help="The operation's number.", metavar="ID")
ACTIONS = ("cancel", "pause", "resume", "retry", "skip", "migrate")
COLUMNS = ["operation_id", "action", "state", "total", "done", "skipped", "failed", "share", "created_at", "created_by"]


@app.command()
def start(
    action: str = typer.Argument(help=f"{', '.join(ACTIONS[:-1])} or {ACTIONS[-1]}.", metavar="ACTION"),
    filter_: str = typer.Option("{}", "--filter", help="JSON, or @FILE: the keys below and more, such as payload."),
    workflow: str | None = typer.Option(None, "--workflow", help="Only runs of this workflow."),
    version: int | None = typer.Option(None, "--version", help="Only runs on this version."),
    state: str | None = typer.Option(None, "--state", help="Only runs in this state."),
    node: str | None = typer.Option(None, "--node", help="Only runs with a live or failed step on this node."),
    error_class: str | None = typer.Option(None, "--error-class", help="Only runs that failed with this class."),
    options: str = typer.Option(
        "{}", "--options", help="JSON, or @FILE: reason, compensate; from_node; output, port; version, node_map."
    ),
    rate: int | None = typer.Option(None, "--rate", help="At most so many runs per second.", min=1),
    stop_on_error: float | None = typer.Option(
        None, "--stop-on-error", help="Stop when more than this share of the runs failed.", min=0.0, max=1.0
    ),
    go: bool = typer.Option(False, "--go", help="Begin at once; without it the runs are only counted."),
    as_json: bool = JSON,
) -> None:
    """Order an operation for all runs that fit a filter; it is only counted until it is begun."""
    if action not in ACTIONS:
        raise UsageError(f"there is no bulk operation {action!r}", hint=f"There are {', '.join(ACTIONS)}.")
    named = {"workflow": workflow, "version": version, "state": state, "node": node, "error_class": error_class}
    wanted = _object(filter_, "--filter") | {key: value for key, value in named.items() if value is not None}
    with engine() as stellwerk:
        number = stellwerk.start_bulk_operation(
            action,
            wanted,
            dry_run=not go,
            rate=rate,
            stop_on_error=stop_on_error,
            options=_object(options, "--options"),
        )
        row = _progress(stellwerk, number)
    if as_json:
        say(to_json(row))
    elif go:
        say(f"Bulk operation {number} will {action} {_runs(row['total'])}.")
    else:
        say(f"Bulk operation {number} would {action} {_runs(row['total'])}: `stellwerk bulk begin {number}` begins it.")


@app.command("list")
def list_(
    limit: int = typer.Option(20, "--limit", help="How many, the newest first.", min=1, max=10000),
    as_json: bool = JSON,
) -> None:
    """List bulk operations and how far they have come, the newest first."""
    with engine() as stellwerk:
        rows = stellwerk.rows("select * from stellwerk.bulk_progress order by operation_id desc limit %s", [limit])
    listing(rows, as_json=as_json, empty="There is none.", columns=COLUMNS)


@app.command()
def show(operation: int = OPERATION, as_json: bool = JSON) -> None:
    """Show an operation, its history, and the runs at which it failed or that it passed over."""
    with engine() as stellwerk:
        row = _progress(stellwerk, operation)
        history = stellwerk.value("select history from stellwerk.bulk_operation where operation_id = %s", [operation])
        trouble = stellwerk.rows(
            "select run_id, outcome, error ->> 'class' as class, error ->> 'message' as message, handled_at"
            " from stellwerk.bulk_operation_run"
            " where operation_id = %s and outcome in ('failed', 'skipped') order by run_id limit 1000",
            [operation],
        )
    if as_json:
        say(to_json({**row, "history": history, "trouble": trouble}))
        return
    say(f"Bulk operation {operation}: {row['action']} {_runs(row['total'])}, {row['state']}")
    for name in ("filter", "reason", "handled", "done", "skipped", "failed", "rate", "per_second", "expected_end_at"):
        if row[name] is not None:
            say(f"  {name.replace('_', ' '):<15} {cell(row[name])}")
    for entry in history:
        by = f" by {entry['by']}" if "by" in entry else ""
        say(f"  {entry['at'][:19].replace('T', ' '):<19} {entry['state']}{by}")
    if trouble:
        say()
        listing(trouble, as_json=False, empty="", columns=["run_id", "outcome", "message"])


@app.command()
def begin(operation: int = OPERATION) -> None:
    """Begin an operation that was only counted; its runs are those that fit now."""
    with engine() as stellwerk:
        stellwerk.resume_bulk_operation(operation)
        _tell(stellwerk, operation)


@app.command()
def pause(operation: int = OPERATION) -> None:
    """Hold an operation after the portion that is being done."""
    with engine() as stellwerk:
        stellwerk.pause_bulk_operation(operation)
        _tell(stellwerk, operation)


@app.command()
def resume(operation: int = OPERATION) -> None:
    """Let a paused operation go on."""
    with engine() as stellwerk:
        stellwerk.resume_bulk_operation(operation)
        _tell(stellwerk, operation)


@app.command()
def stop(
    operation: int = OPERATION,
    reason: str | None = typer.Option(None, "--reason", help="Why; kept with the operation."),
) -> None:
    """End an operation for good; what it has done stays done."""
    with engine() as stellwerk:
        stellwerk.cancel_bulk_operation(operation, reason)
        _tell(stellwerk, operation)


def _object(text: str, option: str) -> dict[str, Any]:
    value = json.loads(str(read_json(text)))
    if not isinstance(value, dict):
        raise UsageError(f"{option} takes a JSON object", hint='For example {"workflow": "orders"}.')
    return value


def _progress(stellwerk: Engine, operation: int) -> dict[str, Any]:
    rows = stellwerk.rows("select * from stellwerk.bulk_progress where operation_id = %s", [operation])
    if not rows:
        raise UnknownThing(f"there is no bulk operation {operation}", hint="`stellwerk bulk list` shows them.")
    return rows[0]


def _tell(stellwerk: Engine, operation: int) -> None:
    row = _progress(stellwerk, operation)
    say(f"Bulk operation {operation} is {row['state']}, {row['handled']} of {_runs(row['total'])} handled.")


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
