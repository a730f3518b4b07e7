"""`stellwerk alert …`: the rules that alert people, and what they have raised."""

from __future__ import annotations

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say

app = typer.Typer(
    help="Look at alerts; set and remove the rules that raise them.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_(
    raised: bool = typer.Option(False, "--raised", help="Only those that are not resolved."),
    limit: int = typer.Option(50, "--limit", help="How many, the newest first.", min=1, max=10000),
    as_json: bool = JSON,
) -> None:
    """List alerts, the newest first."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select * from stellwerk.alert_overview where resolved_at is null or not %s"
            " order by alert_id desc limit %s",
            [raised, limit],
        )
    listing(
        rows,
        as_json=as_json,
        empty="There are no alerts.",
        columns=["alert_id", "rule", "message", "raised_at", "resolved_at"],
    )


@app.command()
def rules(as_json: bool = JSON) -> None:
    """List the rules."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select r.name, r.kind, r.workflow, r.threshold, r.period::text as period, r.recipients, r.enabled"
            " from stellwerk.alert_rule r where r.tenant_id = stellwerk.current_tenant_id() order by r.name"
        )
    listing(
        rows,
        as_json=as_json,
        empty="There are no rules.",
        columns=["name", "kind", "workflow", "threshold", "period", "recipients", "enabled"],
    )


@app.command("set")
def set_(
    name: str = typer.Argument(help="What the rule is called.", metavar="NAME"),
    kind: str = typer.Option(
        ..., "--kind", help="What is measured: failed_share, stuck, queue_depth, tasks_overdue or no_worker."
    ),
    threshold: float = typer.Option(1, "--threshold", help="Raised from here on; a share is between 0 and 1."),
    workflow: str | None = typer.Option(None, "--workflow", help="failed_share: only runs of this workflow."),
    period: str = typer.Option("PT1H", "--period", help="Period of failed_share, patience of stuck."),
    to: list[str] | None = typer.Option(None, "--to", help="Who is told: a user or role:NAME. May be repeated."),
    off: bool = typer.Option(False, "--off", help="Keep the rule, but do not look."),
) -> None:
    """Make a rule, or replace the one of that name."""
    from stellwerk import gallery  # here, because the compiler takes a while to load

    with engine() as stellwerk:
        stellwerk.value(
            "select stellwerk.set_alert_rule(name => %s, kind => %s, threshold => %s, workflow => %s,"
            " period => %s::interval, recipients => %s, enabled => %s)",
            [name, kind, threshold, workflow, period, to or ["role:admin"], not off],
        )
        gallery.publish_once(stellwerk, gallery.ALERT_NOTIFICATION)
    say(f"The rule {name} is {'off' if off else 'on'}.")


@app.command()
def remove(name: str = typer.Argument(help="The rule.", metavar="NAME")) -> None:
    """Remove a rule and the alerts that it has raised."""
    with engine() as stellwerk:
        stellwerk.value("select stellwerk.remove_alert_rule(%s)", [name])
    say(f"The rule {name} is gone.")
