"""`stellwerk schedule …`: when workflows start by themselves, and what people do about it."""

from __future__ import annotations

from typing import Any

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.explaining import read_time
from stellwerk.cli.output import JSON, cell, listing, say, to_json

app = typer.Typer(
    help="Look at the schedules of published workflows, pause, resume and run them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

WORKFLOW = typer.Argument(help="Slug of the workflow.")
NODE = typer.Argument(None, help="The trigger.schedule node; only needed where the workflow has several.")

SCHEDULES = (
    "select w.slug as workflow, s.node_id as node, coalesce(s.cron, stellwerk.duration_text(s.every)) as times,"
    " coalesce(s.time_zone, stellwerk.zone_of(s.tenant_id)) as time_zone, s.catch_up,"
    " case when s.paused_at is null then s.next_run end as next_run, s.last_run, s.last_run_id, s.paused_at,"
    " s.paused_by, s.trouble, s.cron, stellwerk.duration_text(s.every) as every"
    " from stellwerk.schedule s join stellwerk.workflow w using (tenant_id, workflow_id)"
    " where s.tenant_id = stellwerk.current_tenant_id()"
)


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the schedules: when each starts its next run, who paused it, why its last run could not be started."""
    with engine() as stellwerk:
        rows = stellwerk.rows(SCHEDULES + " order by w.slug, s.node_id")
    listing(
        rows,
        as_json=as_json,
        empty="No published workflow has a schedule.",
        columns=["workflow", "node", "times", "time_zone", "catch_up", "next_run", "last_run", "paused_by", "trouble"],
    )


@app.command()
def show(
    workflow: str = WORKFLOW,
    node: str | None = NODE,
    times: int = typer.Option(5, "--times", help="How many of the next times to name.", min=0, max=1000),
    as_json: bool = JSON,
) -> None:
    """Show a schedule and its next times."""
    with engine() as stellwerk:
        # Asked first, for it says what is wrong with the names.
        found = stellwerk.rows("select stellwerk.schedule_times(%s::text, %s, %s::text) as at", [workflow, times, node])
        row: dict[str, Any] = stellwerk.row(
            SCHEDULES + " and w.slug = %s and (%s::text is null or s.node_id = %s)", [workflow, node, node]
        )
    row["next_times"] = [time["at"] for time in found]
    if as_json:
        say(to_json(row))
        return
    for name, value in row.items():
        if value is not None and name not in ("cron", "every", "next_times"):
            say(f"{name + ':':<14}{cell(value)}")
    if row["paused_at"] is not None:
        say("It is paused; these would be its times:")
    for at in row["next_times"]:
        say(f"  {cell(at)}")


@app.command()
def pause(workflow: str = WORKFLOW, node: str | None = NODE) -> None:
    """Have a schedule start no runs until it is resumed."""
    with engine() as stellwerk:
        stellwerk.pause_schedule(workflow, node)
    say(f"The schedule of {workflow} starts no runs until it is resumed.")


@app.command()
def resume(workflow: str = WORKFLOW, node: str | None = NODE) -> None:
    """Have a paused schedule go on from now; the times of the pause are not made up for."""
    with engine() as stellwerk:
        at = stellwerk.resume_schedule(workflow, node)
    say(
        f"The schedule of {workflow} goes on" + (f", the next time at {cell(at)}." if at else ", but has no next time.")
    )


@app.command("run-now")
def run_now(workflow: str = WORKFLOW, node: str | None = NODE, as_json: bool = JSON) -> None:
    """Start a run of a schedule now, paused or not; its times stay as they are. Prints the run's number."""
    with engine() as stellwerk:
        number = stellwerk.run_schedule(workflow, node)
    say(to_json({"run_id": number}) if as_json else str(number))


@app.command()
def backfill(
    workflow: str = WORKFLOW,
    node: str | None = NODE,
    since: str = typer.Option(..., "--since", help="From when on: a time, or a duration such as P7D before now."),
    until: str = typer.Option("PT0S", "--until", help="Up to when; without it, up to now."),
    as_json: bool = JSON,
) -> None:
    """Start the runs of a cron schedule for past times, at most 1000, leaving out those that were started."""
    with engine() as stellwerk:
        count = stellwerk.backfill_schedule(workflow, read_time(since), read_time(until), node)
    say(to_json({"started": count}) if as_json else f"{count} {'run' if count == 1 else 'runs'} started.")
