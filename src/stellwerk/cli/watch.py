"""`stellwerk watch`, `unwatch`, `watches`: which tables start which workflows."""

from __future__ import annotations

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, listing, say
from stellwerk.errors import UsageError

OPERATIONS = ("insert", "update", "delete")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.command()(watch)
    app.command()(unwatch)
    app.command()(watches)


def watch(
    table: str = typer.Argument(help="Table, as schema.name."),
    workflow: str = typer.Argument(help="Workflow that a change starts."),
    on: str = typer.Option("insert", "--on", help="Operations, with commas: insert, update, delete."),
    columns: str | None = typer.Option(None, "--columns", help="Only updates that name one of these columns."),
    when: str | None = typer.Option(None, "--when", help="Condition over new and old, such as new.total > 1000."),
    bulk: bool = typer.Option(False, "--bulk", help="For tables that are loaded in bulk: one trigger per statement."),
) -> None:
    """Have changes of a table start a workflow."""
    operations = _names(on)
    for operation in operations:
        if operation not in OPERATIONS:
            raise UsageError(f"{operation!r} is no operation", hint=f"There are {', '.join(OPERATIONS)}.")
    with engine() as stellwerk:
        number = stellwerk.watch_table(
            table, workflow, operations=operations, condition=when, columns=_names(columns) or None, bulk=bulk
        )
        say(f"Watch {number}: {' and '.join(operations)} on {table} starts {workflow}.")


def unwatch(
    table: str = typer.Argument(help="Table, as schema.name."),
    workflow: str = typer.Argument(help="Workflow that its changes start until now."),
) -> None:
    """Have changes of a table start a workflow no longer."""
    with engine() as stellwerk:
        stellwerk.unwatch_table(table, workflow)
        say(f"Changes of {table} start {workflow} no longer.")


def watches(as_json: bool = JSON) -> None:
    """List the watched tables; a broken watch says what is wrong with it."""
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select w.watch_id, w.target as table, f.slug as workflow, w.trigger_node, w.operations, w.condition,"
            " w.columns, w.bulk, w.state, w.reason from stellwerk.table_watch w"
            " join stellwerk.workflow f using (tenant_id, workflow_id)"
            " where w.tenant_id = stellwerk.current_tenant_id() order by w.target, f.slug"
        )
    listing(
        rows,
        as_json=as_json,
        empty="No table is watched.",
        columns=["table", "workflow", "operations", "condition", "bulk", "state", "reason"],
    )


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]
