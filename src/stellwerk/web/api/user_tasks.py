"""`/api/user-tasks`: what runs ask of people."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from litestar import Response
from pydantic import Field

from stellwerk.engine import Engine
from stellwerk.errors import Forbidden, InvalidPayload, UnknownThing
from stellwerk.web import cursors, exchange
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Given, Id, Paged, Refused, Shown, answer

LATE = "9999-12-31T00:00:00+00:00"  # tasks that are never due come last
# The own open tasks, and, for operators, all of the tenant's.
LIST = """
  select x.task_id, x.found, coalesce(nullif(x.due, 'infinity'), %(late)s::timestamptz) as key, k.*
    from stellwerk.look_for_tasks(%(state)s::text, %(all)s, %(workflow)s::text,
           case %(due)s::timestamptz when %(late)s::timestamptz then 'infinity' else %(due)s::timestamptz end,
           %(after)s::bigint, %(limit)s::int) x
    left join lateral (select * from stellwerk.task_overview o where o.id = x.task_id offset 0) k on true
   order by x.due, x.task_id
"""
ONE = """
  select k.*, k.id as task_id from stellwerk.task_overview k
   where k.id = %(task)s
     and (%(all)s or exists (select from stellwerk.my_task m where m.id = k.id)
          or %(me)s in (k.claimed_by, k.assignee, k.completed_by))
"""
State = Literal["open", "claimed", "completed", "expired", "cancelled"]


class TaskSummary(Shown):
    """A task in a list."""

    task_id: Id
    title: str
    state: State
    assignee: str | None
    role: str | None
    claimed_by: str | None
    due_at: datetime.datetime | None
    overdue: bool
    workflow: str
    run_id: Id
    outcome: str | None
    created_at: datetime.datetime
    ended_at: datetime.datetime | None


class Task(TaskSummary):
    """A task with its form."""

    instructions: str | None
    form: Anything = Field(description="JSON Schema of the result.")
    prefill: Anything
    outcomes: list[str] | None = Field(description="The decisions to choose from.")
    draft: Anything
    result: Anything
    completed_by: str | None
    approvals: int = Field(description="How many people have to agree.")
    decisions: int = Field(description="How many have decided so far.")
    reason: str | None


class WhichTasks(Paged):
    """Which tasks."""

    state: State | None = Field(default=None, description="Without it, those that are open or claimed.")
    scope: Literal["mine", "all"] = Field(default="mine", description="`all` needs the right to operate.")
    workflow: Annotated[str, Field(max_length=63)] | None = None


class Decision(Given):
    """What came of it."""

    result: dict[str, Any] = Field(default_factory=dict, description="What was filled in; it has to fit the form.")
    outcome: Annotated[str, Field(max_length=100)] | None = None


class HandOver(Given):
    """To whom."""

    assignee: Annotated[str, Field(min_length=1, max_length=320)] = Field(description="An e-mail address or role:NAME.")


TaskList = exchange.listed(TaskSummary, "TaskList")


@exchange.get("/api/user-tasks", "List tasks", TaskList, needs="work", asks=WhichTasks)
def list_tasks(desk: Desk, asked: WhichTasks) -> Response[bytes]:
    """Those that one can do: the own ones and those offered to one's role and groups. The most urgent first."""
    if asked.scope == "all" and not desk.may("operate"):
        raise Forbidden("the tasks of others are for operators", hint="Ask without scope=all.")
    due, after = cursors.read(asked.cursor, str, int) or [None, None]
    if due is not None:
        try:
            datetime.datetime.fromisoformat(due)
        except ValueError:
            raise Refused("the cursor cannot be read", [{"path": "cursor", "message": "is none of ours"}]) from None
    rows = desk.rows(
        LIST,
        {  # type: ignore[arg-type]
            **_whose(desk, asked.scope == "all"),
            "state": asked.state,
            "workflow": asked.workflow,
            "due": due,
            "after": after,
            "late": LATE,
            "limit": asked.limit + 1,
        },
    )
    return exchange.paged(TaskList, cursors.page(rows, asked.limit, "key", "task_id"))


@exchange.get("/api/user-tasks/{task_id:str}", "Read a task", Task, needs="work")
def get_task(desk: Desk, task_id: str) -> Response[bytes]:
    """With its form and what it begins with."""
    with desk.engine() as engine:
        return answer(Task, _task(desk, engine, exchange.number(task_id, "task")))


@exchange.post(
    "/api/user-tasks/{task_id:str}/complete",
    "Decide a task",
    Task,
    needs="work",
    takes=Decision,
    status=200,
    refuses=(409,),
    example={"result": {"note": "looks good"}, "outcome": "approve"},
)
def complete_task(desk: Desk, task_id: str, given: Decision) -> Response[bytes]:
    """The run goes on, unless more people have to agree."""
    number = exchange.number(task_id, "task")
    try:
        with desk.engine() as engine:
            _task(desk, engine, number)
            engine.complete_task(number, given.result, given.outcome)
            return answer(Task, _task(desk, engine, number, anyway=True))
    except InvalidPayload as error:
        raise Refused(error.message, exchange.faults_of(error, "result", " ")) from error


@exchange.post("/api/user-tasks/{task_id:str}/claim", "Claim a task", Task, needs="work", status=200, refuses=(409,))
def claim_task(desk: Desk, task_id: str) -> Response[bytes]:
    """Nobody else of the role does it then."""
    number = exchange.number(task_id, "task")
    with desk.engine() as engine:
        _task(desk, engine, number)
        engine.claim_task(number)
        return answer(Task, _task(desk, engine, number, anyway=True))


@exchange.post(
    "/api/user-tasks/{task_id:str}/reassign",
    "Hand a task over",
    Task,
    needs="work",
    takes=HandOver,
    status=200,
    refuses=(409,),
    example={"assignee": "role:staff"},
)
def reassign_task(desk: Desk, task_id: str, given: HandOver) -> Response[bytes]:
    """To another user, or to everybody of a role."""
    number = exchange.number(task_id, "task")
    with desk.engine() as engine:
        _task(desk, engine, number)
        engine.reassign_task(number, given.assignee)
        return answer(Task, _task(desk, engine, number, anyway=True))


def _whose(desk: Desk, everybody: bool) -> dict[str, Any]:
    return {"all": everybody, "me": desk.who.actor}


def _task(desk: Desk, engine: Engine, task_id: int, *, anyway: bool = False) -> dict[str, Any]:
    """A task that one may see: `anyway` for what one has just handed over."""
    rows = engine.rows(ONE, {"task": task_id, **_whose(desk, anyway or desk.may("operate"))})  # type: ignore[arg-type]
    if not rows:
        raise UnknownThing(f"there is no task {task_id}", hint="GET /api/user-tasks lists yours.")
    return rows[0]


router = exchange.router(list_tasks, get_task, complete_task, claim_task, reassign_task)
