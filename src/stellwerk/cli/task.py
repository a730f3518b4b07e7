"""`stellwerk task …`: what runs ask of people."""

from __future__ import annotations

import typer

from stellwerk.cli.connection import engine
from stellwerk.cli.output import JSON, cell, listing, say, to_json
from stellwerk.cli.run import read_json
from stellwerk.errors import UnknownThing, UsageError

app = typer.Typer(
    help="Look at people's tasks, decide them, hand them over.", no_args_is_help=True, rich_markup_mode=None
)

STATES = ("open", "claimed", "completed", "expired", "cancelled")
SHOWN = (
    *("state", "workflow", "run_id", "assignee", "role", "claimed_by", "due_at", "overdue", "instructions", "form"),
    *("prefill", "draft", "outcomes", "approvals", "decisions", "outcome", "result", "completed_by", "reason"),
    *("created_at", "ended_at"),
)
TASK = typer.Argument(help="The task's number.", metavar="ID")


@app.command("list")
def list_(
    state: str | None = typer.Option(None, "--state", help=f"Only tasks in this state: {', '.join(STATES)}."),
    user: str | None = typer.Option(None, "--user", help="Only tasks that this user is asked, or works on."),
    overdue: bool = typer.Option(False, "--overdue", help="Only tasks that should have been done by now."),
    limit: int = typer.Option(50, "--limit", help="How many, the most urgent first.", min=1, max=10000),
    as_json: bool = JSON,
) -> None:
    """List the tasks that are open or claimed, or those in another state."""
    if state is not None and state not in STATES:
        raise UsageError(f"{state!r} is no state of a task", hint=f"There are {', '.join(STATES)}.")
    with engine() as stellwerk:
        rows = stellwerk.rows(
            "select id as task_id, title, state, workflow, run_id, assignee, role, claimed_by, due_at, overdue,"
            " outcome, created_at from stellwerk.task_overview"
            " where (case when %s::text is null then state in ('open', 'claimed') else state = %s end)"
            " and (%s::text is null or lower(%s) in (assignee, claimed_by)) and (overdue or not %s)"
            " order by due_at nulls last, id limit %s",
            [state, state, user, user, overdue, limit],
        )
    shown = [{**row, "for": row["claimed_by"] or row["assignee"] or f"role {row['role']}"} for row in rows]
    listing(
        rows if as_json else shown,
        as_json=as_json,
        empty="There are no such tasks.",
        columns=["task_id", "title", "state", "for", "due_at", "workflow", "run_id"],
    )


@app.command()
def show(task: int = TASK, as_json: bool = JSON) -> None:
    """Show a task with its form, what people said to it, and what came of it."""
    with engine() as stellwerk:
        rows = stellwerk.rows("select * from stellwerk.task_overview where id = %s", [task])
        more = {
            "given": stellwerk.rows(
                "select actor, outcome, result, decided_at from stellwerk.user_task_decision"
                " where tenant_id = stellwerk.current_tenant_id() and task_id = %s order by decided_at",
                [task],
            ),
            "comments": stellwerk.rows(
                "select actor, body, created_at from stellwerk.user_task_comment"
                " where tenant_id = stellwerk.current_tenant_id() and task_id = %s order by comment_id",
                [task],
            ),
            "attachments": stellwerk.rows(
                "select actor, name, reference, media_type, created_at from stellwerk.user_task_attachment"
                " where tenant_id = stellwerk.current_tenant_id() and task_id = %s order by attachment_id",
                [task],
            ),
        }
    if not rows:
        raise UnknownThing(f"there is no task {task}", hint="`stellwerk task list` shows the open ones.")
    row = rows[0]
    if as_json:
        say(to_json({"task_id": row.pop("id"), **row, **more}))
        return
    say(f"task {row['id']}: {row['title']}")
    for name in SHOWN:
        if row[name] is not None and row[name] is not False:
            say(f"  {name.replace('_', ' ')}: {cell(row[name])}")
    for comment in more["comments"]:
        say(f"  {comment['actor']} wrote: {cell(comment['body'])}")
    for attachment in more["attachments"]:
        say(f"  {attachment['actor']} attached {cell(attachment['name'])}: {cell(attachment['reference'])}")


@app.command()
def complete(
    task: int = TASK,
    result: str = typer.Option("{}", "--result", help="JSON, or @FILE to read it from a file (@- standard input)."),
    outcome: str | None = typer.Option(None, "--outcome", help="One of the task's outcomes, if it has any."),
) -> None:
    """Decide a task; its run goes on."""
    text = read_json(result, "result")
    with engine() as stellwerk:
        if stellwerk.complete_task(task, text, outcome) == "completed":
            say(f"Task {task} is completed.")
        else:
            say(f"Task {task} waits for more approvals.")


@app.command()
def reassign(
    task: int = TASK,
    to: str = typer.Option(..., "--to", help="A user's e-mail address, or role:NAME."),
) -> None:
    """Hand a task to another user or role."""
    with engine() as stellwerk:
        stellwerk.reassign_task(task, to)
    say(f"Task {task} is for {to if to.startswith('role:') else to.lower()} now.")


@app.command()
def claim(task: int = TASK) -> None:
    """Work on a task of a role; nobody else can decide it meanwhile."""
    with engine() as stellwerk:
        stellwerk.claim_task(task)
    say(f"Task {task} is yours.")


@app.command()
def release(task: int = TASK) -> None:
    """Give a claimed task back."""
    with engine() as stellwerk:
        stellwerk.release_task(task)
    say(f"Task {task} is open to all whom it is offered to.")


@app.command()
def comment(task: int = TASK, text: str = typer.Argument(help="What to say, 1 to 10000 characters.")) -> None:
    """Write a comment to a task, also when it has ended."""
    with engine() as stellwerk:
        stellwerk.comment_task(task, text)
    say(f"Task {task} has your comment.")
