"""`/api/workflows/…/executions`: starting runs, looking at them, steering one."""

from __future__ import annotations

import datetime
import time
from typing import Annotated, Any, Literal

from litestar import Response
from pydantic import AwareDatetime, Field

from stellwerk.engine import Engine
from stellwerk.errors import InvalidPayload, UnknownThing, UnknownWorkflow
from stellwerk.web import cursors, exchange
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Given, Id, Paged, Refused, Shown, Text, Version, answer

State = Literal["pending", "running", "waiting", "paused", "completed", "failed", "cancelled"]
STEPS_AT_ONCE = 200
LOOK_AGAIN_SECONDS = 0.05

LIST = """
  select x.run_id, x.found, r.workflow, r.version, r.state, r.source, r.priority, r.idempotency_key, r.parent_run_id,
         r.created_at, r.created_by, r.started_at, r.ended_at, r.reason, r.error
    from stellwerk.look_for_runs(%(slug)s::text, %(states)s::text[], before => %(before)s::bigint,
           most => %(limit)s::int) x
    left join stellwerk.run_overview r on r.run_id = x.run_id
   order by x.run_id desc
"""
STEPS = """
  select * from stellwerk.step_timeline
   where run_id = %(run)s and (%(after)s::bigint is null or step_id > %(after)s)
   order by step_id
   limit %(limit)s
"""
KNOWN = """
  select k.run_id, r.payload = %s::jsonb as same
    from stellwerk.workflow w
    join stellwerk.run_key k on k.tenant_id = w.tenant_id and k.workflow_id = w.workflow_id and k.idempotency_key = %s
    left join stellwerk.run r on r.tenant_id = k.tenant_id and r.run_id = k.run_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s
"""
WORKFLOW = """
  select w.slug from stellwerk.workflow w
   where w.tenant_id = (select stellwerk.current_tenant_id()) and (w.slug = %s or w.workflow_id = %s)
   order by w.slug <> %s limit 1
"""
OUTCOME = """
  select r.run_id, r.state, r.output, r.error, c.case_id,
         exists (select from stellwerk.worker_status s where s.present) as moved
    from stellwerk.run r
    left join stellwerk.backoffice_case c on c.tenant_id = r.tenant_id and c.run_id = r.run_id
   where r.tenant_id = (select stellwerk.current_tenant_id()) and r.run_id = %s
"""


class ExecutionSummary(Shown):
    """A run in a list."""

    run_id: Id
    workflow: str
    version: int
    state: State
    source: str = Field(description="What started it: sql, event, schedule, webhook, …")
    priority: int
    idempotency_key: str | None
    parent_run_id: Id | None
    created_at: datetime.datetime
    created_by: str
    started_at: datetime.datetime | None
    ended_at: datetime.datetime | None
    reason: str | None
    error: Anything


class ExecutionStep(Shown):
    """A step of a run."""

    step_id: Id
    node_id: str
    type: str
    scope: Id
    visit: int
    state: Literal["queued", "running", "waiting", "joining", "completed", "failed", "skipped", "cancelled"]
    attempt: int
    port: str | None
    input: Anything
    output: Anything
    error: Anything
    reason: str | None
    queued_at: datetime.datetime | None
    started_at: datetime.datetime | None
    ended_at: datetime.datetime | None


class Execution(ExecutionSummary):
    """A run with its steps."""

    payload: Anything
    output: Anything
    why: str = Field(description="In one sentence, what it waits for or how it ended.")
    steps: list[ExecutionStep] = Field(description=f"The first {STEPS_AT_ONCE}; …/steps has all.")
    more_steps: bool


class Started(Shown):
    """A run that was asked for."""

    run_id: Id
    state: State | None = Field(description="Null for the run of an old key that is kept no more.")
    href: str


class Steered(Shown):
    """The run as it is now; what was asked for happens with its next move."""

    run_id: Id
    state: State


class CaseLink(Shown):
    """The case that the run has made."""

    case_id: Id
    href: str


class BuilderRun(Shown):
    """How far a run from the builder has come."""

    run_id: Id
    status: State
    output: Anything
    error: Anything
    href: str
    case: CaseLink | None


class Order(Given):
    """What a run is started with."""

    payload: Anything = Field(default_factory=dict)
    run_at: Annotated[AwareDatetime | None, Field(strict=False, description="Not before this time.")] = None
    priority: Annotated[int, Field(ge=-1000, le=1000, description="Higher goes first.")] = 0


class BuilderOrder(Given):
    """What the builder runs."""

    workflow_id: Annotated[str | int, Field(description="The slug, or the number.")]
    payload: Anything = Field(default_factory=dict)
    wait: Annotated[float, Field(ge=0, le=10, description="How many seconds to wait for it to end or rest.")] = 1.0


class Cancellation(Given):
    """Why, and whether what was done is undone."""

    reason: Text | None = None
    compensate: bool = Field(default=False, description="Undo what it has done first.")


class Retry(Given):
    """From where."""

    from_node: Annotated[str, Field(max_length=63)] | None = Field(default=None, description="From an earlier node.")
    version: Version | None = Field(default=None, description="On another version.")


class WhichExecutions(Paged):
    """Which runs."""

    state: State | None = None


ExecutionList = exchange.listed(ExecutionSummary, "ExecutionList")
StepList = exchange.listed(ExecutionStep, "ExecutionStepList")


@exchange.post(
    "/api/workflows/{slug:str}/trigger",
    "Start a run",
    Started,
    needs="start",
    takes=Order,
    takes_needed=False,
    status=202,
    also={200: "The key was used before: the run that it started then."},
    headers=("Idempotency-Key",),
    example={"payload": {"name": "Ada"}},
    answer={"run_id": "42", "state": "pending", "href": "/api/workflows/executions/42"},
)
def trigger_workflow(desk: Desk, slug: str, given: Order | None) -> Response[bytes]:
    """Answers at once; the payload has to fit the workflow's input schema."""
    order = given or Order()
    run_id, known = _start(desk, slug, order.payload, order.run_at, order.priority)
    with desk.engine() as engine:
        found = engine.rows(OUTCOME, [run_id])
    return answer(
        Started,
        {"run_id": run_id, "state": found[0]["state"] if found else None, "href": _href(run_id)},
        status=200 if known else 202,
        headers={"location": _href(run_id)},
    )


@exchange.post(
    "/workflow-builder/api/run",
    "Run from the builder",
    BuilderRun,
    needs="start",
    takes=BuilderOrder,
    status=200,
    headers=("Idempotency-Key",),
    example={"workflow_id": "greet", "payload": {"name": "Ada"}, "wait": 0},
)
def run_from_builder(desk: Desk, given: BuilderOrder) -> Response[bytes]:
    """A real run of the published version; waits a moment for its end, and answers its status and its case."""
    wanted = str(given.workflow_id)
    number = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) <= 18 else 0
    with desk.engine() as engine:
        found = engine.rows(WORKFLOW, [wanted, number, wanted]) if "\0" not in wanted else []
    if not found:
        raise UnknownWorkflow(f"there is no workflow {wanted[:100]!r}", hint="GET /api/workflows lists them.")
    run_id, _ = _start(desk, found[0]["slug"], given.payload, None, 0)
    until = time.monotonic() + given.wait
    while True:
        row = desk.rows(OUTCOME, [run_id])[0]
        if row["state"] not in ("pending", "running") or not row["moved"] or time.monotonic() >= until:
            break
        time.sleep(LOOK_AGAIN_SECONDS)
    case = row["case_id"] and {"case_id": row["case_id"], "href": f"/backoffice/{row['case_id']}"}
    return answer(BuilderRun, {**row, "status": row["state"], "href": f"/runs/{run_id}", "case": case})


@exchange.get(
    "/api/workflows/{slug:str}/executions", "List the runs of a workflow", ExecutionList, asks=WhichExecutions
)
def list_executions(desk: Desk, slug: str, asked: WhichExecutions) -> Response[bytes]:
    """The newest first."""
    key = cursors.read(asked.cursor, int)
    states = [asked.state] if asked.state else None
    more = {"slug": slug, "states": states, "before": key and key[0], "limit": asked.limit + 1}
    with desk.engine() as engine:
        if not engine.rows(WORKFLOW, [slug, 0, slug]):
            raise UnknownWorkflow(f"there is no workflow {slug[:100]!r}", hint="GET /api/workflows lists them.")
        rows = engine.rows(LIST, more)  # type: ignore[arg-type]
    return exchange.paged(ExecutionList, cursors.page(rows, asked.limit, "run_id"))


@exchange.get("/api/workflows/executions/{run_id:str}", "Read a run", Execution)
def get_execution(desk: Desk, run_id: str) -> Response[bytes]:
    """With its first steps, in the order in which they were reached."""
    number = exchange.number(run_id, "run")
    with desk.engine() as engine:
        row = overview(engine, number)
        steps = engine.rows(STEPS, {"run": number, "after": None, "limit": STEPS_AT_ONCE + 1})  # type: ignore[arg-type]
        row["why"] = engine.why(number)
    return answer(Execution, {**row, "steps": steps[:STEPS_AT_ONCE], "more_steps": len(steps) > STEPS_AT_ONCE})


@exchange.get("/api/workflows/executions/{run_id:str}/steps", "List the steps of a run", StepList, asks=Paged)
def list_execution_steps(desk: Desk, run_id: str, asked: Paged) -> Response[bytes]:
    """In the order in which they were reached."""
    number, key = exchange.number(run_id, "run"), cursors.read(asked.cursor, int)
    with desk.engine() as engine:
        overview(engine, number)
        rows = engine.rows(STEPS, {"run": number, "after": key and key[0], "limit": asked.limit + 1})  # type: ignore[arg-type]
    return exchange.paged(StepList, cursors.page(rows, asked.limit, "step_id"))


@exchange.post(
    "/api/workflows/executions/{run_id:str}/cancel",
    "Cancel a run",
    Steered,
    needs="operate",
    takes=Cancellation,
    takes_needed=False,
    status=202,
    refuses=(409,),
    example={"reason": "asked twice", "compensate": True},
)
def cancel_execution(desk: Desk, run_id: str, given: Cancellation | None) -> Response[bytes]:
    """Ends the run and everything that it waits for."""
    number, wish = exchange.number(run_id, "run"), given or Cancellation()
    with desk.engine() as engine:
        engine.cancel_run(number, wish.reason, compensate=wish.compensate)
        return answer(Steered, overview(engine, number), status=202)


@exchange.post(
    "/api/workflows/executions/{run_id:str}/pause", "Pause a run", Steered, needs="operate", status=202, refuses=(409,)
)
def pause_execution(desk: Desk, run_id: str) -> Response[bytes]:
    """The run stops where it stands, and its timers with it."""
    number = exchange.number(run_id, "run")
    with desk.engine() as engine:
        engine.pause_run(number)
        return answer(Steered, overview(engine, number), status=202)


@exchange.post(
    "/api/workflows/executions/{run_id:str}/resume",
    "Resume a run",
    Steered,
    needs="operate",
    status=202,
    refuses=(409,),
)
def resume_execution(desk: Desk, run_id: str) -> Response[bytes]:
    """A paused run goes on."""
    number = exchange.number(run_id, "run")
    with desk.engine() as engine:
        engine.resume_run(number)
        return answer(Steered, overview(engine, number), status=202)


@exchange.post(
    "/api/workflows/executions/{run_id:str}/retry",
    "Retry a run",
    Steered,
    needs="operate",
    takes=Retry,
    takes_needed=False,
    status=202,
    headers=("Idempotency-Key",),
    refuses=(409, 412),
    example={"from_node": "greet"},
)
def retry_execution(desk: Desk, run_id: str, given: Retry | None) -> Response[bytes]:
    """A failed or cancelled run goes on from where it ended, or from an earlier node."""
    number, wish = exchange.number(run_id, "run"), given or Retry()
    key = exchange.idempotency_key(desk)
    action = f"retry/{number}"
    with desk.engine() as engine:
        known = key and engine.begin_request(action, key, exchange.fingerprint(wish.model_dump()))
        if not known:
            engine.retry_run(number, wish.from_node, wish.version)
            if key:
                engine.end_request(action, key, {"run_id": str(number)})
        return answer(Steered, overview(engine, number), status=202)


def overview(engine: Engine, run_id: int) -> dict[str, Any]:
    """The run's row of run_overview."""
    rows = engine.rows("select * from stellwerk.run_overview where run_id = %s", [run_id])
    if not rows:
        raise UnknownThing(f"there is no run {run_id}", hint="GET /api/workflows/{slug}/executions lists them.")
    return rows[0]


def _start(desk: Desk, slug: str, payload: Any, run_at: datetime.datetime | None, priority: int) -> tuple[int, bool]:
    """The run's number, and whether it is that of a key which was used before."""
    key = exchange.idempotency_key(desk)
    try:
        with desk.engine() as engine:
            if key is not None:
                found = engine.rows(KNOWN, [exchange.jsonb(payload), key, slug])
                if found and found[0]["same"] is False:
                    said = "was used for a run with another payload"
                    raise Refused(f"the Idempotency-Key {said}", [{"path": "Idempotency-Key", "message": said}])
                if found:
                    return found[0]["run_id"], True
            number = engine.start_run(slug, payload, idempotency_key=key, run_at=run_at, priority=priority)
            return number, False
    except InvalidPayload as error:
        raise Refused(error.message, exchange.faults_of(error, "payload")) from error


def _href(run_id: int) -> str:
    return f"/api/workflows/executions/{run_id}"


router = exchange.router(
    trigger_workflow,
    run_from_builder,
    list_executions,
    get_execution,
    list_execution_steps,
    cancel_execution,
    pause_execution,
    resume_execution,
    retry_execution,
)
