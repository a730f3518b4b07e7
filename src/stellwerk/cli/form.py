"""`stellwerk form …`: which workflow a public form starts."""

from __future__ import annotations

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say, to_json
from stellwerk.errors import UnknownThing
from stellwerk.settings import Settings

app = typer.Typer(help="Say which workflow a public form starts.", no_args_is_help=True, rich_markup_mode=None)

FORM = typer.Argument(help="Name of the form, the last part of its address.")


@app.command("set")
def set_(
    form: str = FORM,
    workflow: str = typer.Argument(help="Slug of the workflow that it starts, at its trigger.form_submit."),
    origin: list[str] = typer.Option(
        [], "--origin", help="A website that may send it, such as https://example.org; may be given again. Else any."
    ),
    honeypot: str = typer.Option("website", "--honeypot", help="The field that people do not see and machines fill."),
    count: int = typer.Option(60, "--count", min=1, help="How many submissions may start runs within an interval."),
    per: str = typer.Option("PT1M", "--per", help="Length of that interval."),
    disable: bool = typer.Option(False, "--disable", help="Drop what is sent until it is set again without this."),
    as_json: bool = JSON,
) -> None:
    """Set up a form, or replace its settings."""
    given = {"origins": origin, "honeypot": honeypot, "max_count": count, "per": per, "enabled": not disable}
    with engine() as stellwerk:
        stellwerk.set_form(form, workflow, given)
    settings = Settings.from_environment()
    address = f"{settings.base_url}/forms/{settings.tenant}/{form}"
    say(to_json({"form": form, "address": address}) if as_json else f"What is sent to {address} starts {workflow}.")


@app.command("list")
def list_(as_json: bool = JSON) -> None:
    """List the forms."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select f.form, w.slug as workflow, f.origins, f.honeypot, f.max_count,"
            " stellwerk.duration_text(f.per) as per, f.enabled, f.created_at, f.created_by"
            " from stellwerk.form f"
            " join stellwerk.workflow w on w.tenant_id = f.tenant_id and w.workflow_id = f.workflow_id"
            " where f.tenant_id = stellwerk.current_tenant_id() order by f.form"
        )
    listing(
        rows,
        as_json=as_json,
        empty="There is no form.",
        columns=["form", "workflow", "origins", "honeypot", "max_count", "per", "enabled"],
    )


@app.command()
def remove(form: str = FORM) -> None:
    """Remove a form; what was submitted stays."""
    with engine() as stellwerk:
        if not stellwerk.remove_form(form):
            raise UnknownThing(f"there is no form {form!r}", hint="stellwerk form list shows them.")
    say(f"Removed {form}; what is sent to it is dropped from now on.")
