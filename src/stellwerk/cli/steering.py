"""`stellwerk run …` and `stellwerk signal`: what people do to runs that are under way or have failed."""

from __future__ import annotations

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say, to_json
from stellwerk.cli.run import RUN, overview_of, read_json
from stellwerk.engine import Engine


def register(app: typer.Typer, run_app: typer.Typer) -> None:
    """Add the commands of this module to the program and to `stellwerk run`."""
    for command in (cancel, pause, resume, retry, skip, edit):
        run_app.command()(command)
    app.command()(signal)


def cancel(
    run: int = RUN,
    reason: str | None = typer.Option(None, "--reason", help="Why; kept with the run."),
    compensate: bool = typer.Option(False, "--compensate", help="Undo first what its nodes say how to undo."),
) -> None:
    """End a run and everything that it was waiting for."""
    with engine() as stellwerk:
        stellwerk.cancel_run(run, reason, compensate=compensate)
        _tell(stellwerk, run)


def pause(run: int = RUN) -> None:
    """Stop a run where it stands: attempts under way may end, nothing follows, timers keep the time they had."""
    with engine() as stellwerk:
        stellwerk.pause_run(run)
        _tell(stellwerk, run)


def resume(run: int = RUN) -> None:
    """Let a paused run go on."""
    with engine() as stellwerk:
        stellwerk.resume_run(run)
        _tell(stellwerk, run)


def retry(
    run: int = RUN,
    from_node: str | None = typer.Option(None, "--from", help="Begin again at this node; else where it ended."),
    version: int | None = typer.Option(None, "--version", help="Go on with this version; else with the run's own."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say which nodes lie ahead and which effects repeat."),
    as_json: bool = JSON,
) -> None:
    """Send a failed or cancelled run on again; what it has done stays done."""
    with engine() as stellwerk:
        if dry_run:
            plan = stellwerk.retry_plan(run, from_node, version)
            listing(plan, as_json=as_json, empty="Nothing lies ahead.")
            return
        stellwerk.retry_run(run, from_node, version)
        if as_json:
            say(to_json({"run_id": run}))
        else:
            _tell(stellwerk, run)


def skip(
    run: int = RUN,
    step: int = typer.Argument(help="The step's number, as `run show` prints it.", metavar="STEP"),
    output: str | None = typer.Option(None, "--output", help="JSON, or @FILE: what the step is taken to have come to."),
    port: str = typer.Option("next", "--port", help="The port that it leaves by."),
) -> None:
    """End a step that waits, or that nobody has begun, as skipped."""
    with engine() as stellwerk:
        stellwerk.skip_step(run, step, None if output is None else read_json(output), port)
        _tell(stellwerk, run)


def edit(
    run: int = RUN,
    payload: str | None = typer.Option(None, "--payload", help="JSON, or @FILE: the new payload."),
    variables: str | None = typer.Option(None, "--vars", help="JSON, or @FILE: vars to set, by name."),
) -> None:
    """Change the payload or vars of a paused, failed or cancelled run."""
    with engine() as stellwerk:
        given = [None if text is None else read_json(text) for text in (payload, variables)]
        stellwerk.edit_run(run, *given)
        say(f"Run {run} is edited.")


def signal(
    event: str = typer.Argument(help="The event that has happened."),
    key: str = typer.Argument(help="The correlation by which waiting steps know that it is theirs."),
    payload: str = typer.Option("{}", "--payload", help="JSON, or @FILE: becomes the waiting step's output."),
    dedupe: str | None = typer.Option(None, "--dedupe-key", help="The same key counts only once."),
    as_json: bool = JSON,
) -> None:
    """Tell waiting runs that an event has happened; if none waits, the signal is kept for the next one."""
    with engine() as stellwerk:
        woken = stellwerk.signal(event, key, read_json(payload), dedupe)
    if as_json:
        say(to_json({"woken": woken}))
    else:
        say(
            {0: "No run waits for it; it is kept for 7 days.", 1: "1 run is woken."}.get(
                woken, f"{woken} runs are woken."
            )
        )


def _tell(stellwerk: Engine, run: int) -> None:
    say(f"Run {run} is {overview_of(stellwerk, run)['state']}.")
