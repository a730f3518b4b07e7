"""The command line: `stellwerk` and its sub-commands, one module per noun."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import psycopg
import typer
from typer.exceptions import TyperException

from stellwerk import __version__
from stellwerk.cli import (
    alert,
    bulk,
    calendar,
    case,
    db,
    doctor,
    explaining,
    form,
    hook,
    limit,
    processes,
    run,
    schedule,
    steering,
    task,
    token,
    user,
    watch,
    workflow,
)
from stellwerk.cli.output import complain
from stellwerk.errors import StellwerkError, UsageError, from_database

app = typer.Typer(
    name="stellwerk",
    help="Workflows that rows start and that SQL can read.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(db.app, name="db")
app.add_typer(workflow.app, name="workflow")
app.add_typer(run.app, name="run")
app.add_typer(limit.app, name="limit")
app.add_typer(task.app, name="task")
app.add_typer(user.app, name="user")
app.add_typer(case.app, name="case")
app.add_typer(token.app, name="token")
app.add_typer(bulk.app, name="bulk")
app.add_typer(schedule.app, name="schedule")
app.add_typer(calendar.app, name="calendar")
app.add_typer(hook.app, name="hook")
app.add_typer(form.app, name="form")
app.add_typer(alert.app, name="alert")
app.command()(hook.emit)
processes.register(app)
watch.register(app)
doctor.register(app)
steering.register(app, run.app)
explaining.register(run.app)


@app.callback(invoke_without_command=True)
def stellwerk(
    version: bool = typer.Option(False, "--version", help="Print the version and end.", is_eager=True),
) -> None:
    """Workflows that rows start and that SQL can read."""
    if version:
        typer.echo(f"stellwerk {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process: 0 done, 1 the thing asked for failed, 2 wrong use."""
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run a command; whatever goes wrong becomes one sentence and a hint on standard error."""
    try:
        result = app(args=arguments, prog_name="stellwerk", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f"`{context.command_path} --help` shows how it is called." if context else None
        if message := error.format_message():
            complain(message, hint=hint)
        return int(error.exit_code)
    except UsageError as error:
        complain(error.message, error.detail, error.hint)
        return 2
    except StellwerkError as error:
        complain(error.message, error.detail, error.hint)
        return 1
    except psycopg.Error as error:
        known = from_database(error)
        complain(known.message, known.detail, known.hint)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return 130
    except BrokenPipeError:  # `stellwerk … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if os.environ.get("STELLWERK_TRACEBACK"):
            raise
        said = " ".join(str(error).split())
        complain(
            f"unexpected {type(error).__name__}" + (f": {said}" if said else ""),
            hint="This is a fault of Stellwerk; STELLWERK_TRACEBACK=1 shows where it happened.",
        )
        return 1
