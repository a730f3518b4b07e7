"""Runs: the list with its filters, and the page of one run with what can be done to it."""

from __future__ import annotations

import datetime
import json
from typing import Annotated, Any
from urllib.parse import urlencode

from litestar import Router
from litestar.datastructures import State
from litestar.enums import RequestEncodingType
from litestar.params import Body, Parameter

from stellwerk.engine import Row
from stellwerk.errors import InvalidPayload, StellwerkError, UnknownThing, UsageError
from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk
from stellwerk.web.run_view import node_names, read_run, read_steps, step_view, time_shown

STATES = ("pending", "running", "waiting", "paused", "completed", "failed", "cancelled")
FILTERS = ("workflow", "state", "text", "key", "since", "until")

LIST = """
  select x.run_id, x.found, r.workflow, w.name, r.version, r.state, r.idempotency_key, r.created_at,
         case when r.state = 'failed' then left(r.error ->> 'message', 200)
             when r.state = 'cancelled' then left(r.reason, 200) end as trouble,
         left(case when octet_length(r.payload::text) < 20000 then r.payload::text else '…' end, 160) as excerpt,
         extract(epoch from r.ended_at - coalesce(r.started_at, r.created_at))::float as seconds
    from stellwerk.look_for_runs(%(workflow)s::text, %(states)s::text[], %(since)s::timestamptz,
            %(until)s::timestamptz, %(key)s::text, %(text)s::text, %(before)s::bigint, %(limit)s::int) x
    left join stellwerk.run_overview r on r.run_id = x.run_id
    left join stellwerk.workflow w on w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = r.workflow
   order by x.run_id desc
"""
WORKFLOWS = """
  select w.slug, w.name from stellwerk.workflow w
   where w.tenant_id = (select stellwerk.current_tenant_id()) order by 2, 1 limit 500
"""
STEP = """
  select s.step_id, s.node_id, s.type, s.visit, s.scope_id, s.state, s.attempt, s.failures, s.port, s.error,
      s.output, s.reason,
         coalesce(s.input, n.config) as input, s.queued_at, s.started_at, s.ended_at, nullif(s.due_at,
             stellwerk.never()) as due_at,
         (select w.name from stellwerk.worker w where w.worker_id = s.worker_id) as worker, n.edges,
             r.state as run_state, v.document
    from stellwerk.step s
    join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
    join stellwerk.workflow_version v on v.tenant_id = r.tenant_id and v.workflow_id = r.workflow_id
        and v.version = s.version
    left join stellwerk.plan_node n on n.tenant_id = s.tenant_id and n.workflow_id = r.workflow_id
        and n.version = s.version and n.node_id = s.node_id
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s and s.step_id = %s
"""
VISITS = """
  select s.step_id, s.visit, s.state, (select x.position from stellwerk.scope x
           where x.tenant_id = s.tenant_id and x.run_id = s.run_id and x.scope_id = s.scope_id) as position
    from stellwerk.step s
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s and s.node_id = %s
   order by s.step_id desc limit 30
"""
# What expressions of a step could see: values of the scope and of those around it, nearest first.
CONTEXT_STEPS = """
  with recursive around (scope_id) as (
    select %(scope)s::bigint
    union
    select x.parent_scope_id from around a
      join stellwerk.scope x on x.tenant_id = (select stellwerk.current_tenant_id()) and x.run_id = %(run)s
          and x.scope_id = a.scope_id
  )
  select distinct on (s.node_id) s.node_id, s.output
    from stellwerk.step s
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %(run)s
     and s.scope_id = any (array(select a.scope_id from around a)) and s.state in ('completed', 'skipped')
     and s.output is not null and s.ended_at <= %(at)s and s.step_id <> %(step)s
   order by s.node_id, s.scope_id desc, s.step_id desc
   limit 50
"""
CONTEXT = """
  select r.payload, x.item, x.position
    from stellwerk.run r
    left join stellwerk.scope x on x.tenant_id = r.tenant_id and x.run_id = r.run_id and x.scope_id = %s
   where r.tenant_id = (select stellwerk.current_tenant_id()) and r.run_id = %s
"""
VARS = """
  select v.name, v.value from stellwerk.variable v
   where v.tenant_id = (select stellwerk.current_tenant_id()) and v.run_id = %s and v.scope_id in (0, %s)
   order by v.name limit 50
"""
VERSIONS = """
  select v.version from stellwerk.workflow_version v
    join stellwerk.workflow w on w.tenant_id = v.tenant_id and w.workflow_id = v.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s and v.published_at is not null
       and v.version <> %s
   order by v.version desc limit 50
"""

Form = Annotated[dict[str, str], Body(media_type=RequestEncodingType.URL_ENCODED)]


# -- the list ---------------------------------------------------------------------------------------------------------


@routes.get("/runs")
def show_runs(
    desk: Desk,
    workflow: str = "",
    in_state: Annotated[str, Parameter(query="state")] = "",
    text: str = "",
    key: str = "",
    since: str = "",
    until: str = "",
    cursor: str = "",
) -> Any:
    """The newest first; htmx asks for more rows at the end of the list."""
    given = {"workflow": workflow, "state": in_state, "text": text, "key": key, "since": since, "until": until}
    before = cursors.read(cursor, int)
    rows = desk.rows(LIST, {**conditions(given), "before": before and before[0], "limit": cursors.DEFAULT + 1})  # type: ignore[arg-type]
    page = cursors.page(rows, cursors.DEFAULT, "run_id")
    values: dict[str, Any] = {
        "page": page,
        "filter": given,
        "filtered": any(given.values()),
        "first": before is None,
        "query": urlencode({name: value for name, value in given.items() if value}),
    }
    if desk.is_fragment:
        return desk.page("runs/_rows.html", **values)
    return desk.page("runs/page.html", states=STATES, workflows=desk.rows(WORKFLOWS), **values)


def conditions(given: dict[str, str]) -> dict[str, Any]:
    """The filter of a page as look_for_runs takes it."""
    state = given["state"]
    if state and state not in STATES:
        raise UsageError(f"there is no state {state}", hint=f"There are {', '.join(STATES)}.")
    return {
        "workflow": given["workflow"] or None,
        "states": [state] if state else None,
        "since": moment(given["since"]),
        "until": moment(given["until"]),
        "key": given["key"] or None,
        "text": given["text"] or None,
    }


def moment(text: str) -> datetime.datetime | None:
    """A time as a field of a form gives it; without an offset it is UTC."""
    if not text:
        return None
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text[:50]} is no time", hint="For example 2026-01-31T12:00.") from None
    return at if at.tzinfo else at.replace(tzinfo=datetime.UTC)


# -- one run ----------------------------------------------------------------------------------------------------------


@routes.get("/runs/{run_id:int}")
def show_run(desk: Desk, run_id: int) -> Any:
    """The graph with states, the timeline, and why the run stands where it stands."""
    with desk.engine() as engine:
        view = read_run(engine, run_id)
    return desk.page("runs/run.html", view=view)


@routes.get("/runs/{run_id:int}/data")
def show_data(desk: Desk, run_id: int) -> Any:
    """What went in and what came out."""
    with desk.engine() as engine:
        return desk.page("runs/_data.html", view=read_run(engine, run_id))


@routes.get("/runs/{run_id:int}/steps")
def show_earlier_steps(desk: Desk, run_id: int, before: int) -> Any:
    """Lines of the timeline above those that are shown."""
    with desk.engine() as engine:
        run = _run(engine.rows("select * from stellwerk.run_overview where run_id = %s", [run_id]), run_id)
        document = _document(engine.rows(DOCUMENT, [run["workflow"], run["version"]]))
        steps, earlier = read_steps(engine, run_id, before)
    begin, end = time_shown(run, steps)
    names = node_names(document)
    lines = [step_view(step, names, begin, end) for step in steps]
    return desk.page("runs/_earlier.html", run_id=run_id, lines=lines, earlier=earlier, begin=begin, end=end)


DOCUMENT = """
  select v.document from stellwerk.workflow w
    join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = %s and v.version = %s
"""


@routes.get("/runs/{run_id:int}/nodes/{node:str}")
def show_node(desk: Desk, run_id: int, node: str) -> Any:
    """The newest visit of a node, or that there is none."""
    visits = desk.rows(VISITS, [run_id, node])
    if not visits:
        return desk.page("runs/_unreached.html", node=node, run_id=run_id)
    return _step_page(desk, run_id, visits[0]["step_id"])


@routes.get("/runs/{run_id:int}/steps/{step_id:int}")
def show_step(desk: Desk, run_id: int, step_id: int) -> Any:
    """Input, output, error, attempts and what the step could see."""
    return _step_page(desk, run_id, step_id)


def _step_page(desk: Desk, run_id: int, step_id: int) -> Any:
    with desk.engine() as engine:
        step = _step(engine.rows(STEP, [run_id, step_id]), run_id, step_id)
        attempts = engine.rows(
            "select a.attempt, a.outcome, a.error, a.ended_at from stellwerk.attempt_history a"
            " where a.run_id = %s and a.step_id = %s order by a.attempt desc limit 50",
            [run_id, step_id],
        )
        visits = engine.rows(VISITS, [run_id, step["node_id"]])
        context = engine.row(CONTEXT, [step["scope_id"], run_id])
        at = step["started_at"] or step["queued_at"]
        context["steps"] = engine.rows(
            CONTEXT_STEPS,
            {"run": run_id, "scope": step["scope_id"], "step": step_id, "at": at},  # type: ignore[arg-type]
        )
        context["vars"] = engine.rows(VARS, [run_id, step["scope_id"]])
        view = None if desk.is_fragment else read_run(engine, run_id)
    values = {
        "run_id": run_id,
        "run_state": step["run_state"],
        "step": step,
        "name": node_names(step["document"]).get(step["node_id"], step["node_id"]),
        "attempts": attempts,
        "visits": visits[::-1],
        "context": context,
    }
    if view is not None:
        return desk.page("runs/with_step.html", view=view, **values)
    return desk.page("runs/_step.html", **values)


# -- what can be done to it -------------------------------------------------------------------------------------------


@routes.get("/runs/{run_id:int}/act/{action:str}", needs="operate")
def show_action(desk: Desk, run_id: int, action: str, node: str = "", step: int | None = None) -> Any:
    """The form of an action that needs words."""
    if action not in ("retry", "cancel", "edit", "skip", "signal"):
        raise UnknownThing(f"there is no action {action}")
    values: dict[str, Any] = {"run_id": run_id, "action": action, "node": node}
    with desk.engine() as engine:
        run = _run(engine.rows("select * from stellwerk.run_overview where run_id = %s", [run_id]), run_id)
        if action == "retry":
            document = _document(engine.rows(DOCUMENT, [run["workflow"], run["version"]]))
            values["nodes"] = node_names(document)
            values["version"] = run["version"]
            values["versions"] = [row["version"] for row in engine.rows(VERSIONS, [run["workflow"], run["version"]])]
        elif action == "edit":
            values["payload"] = run["payload"]
        elif action == "skip":
            row = _step(engine.rows(STEP, [run_id, step]), run_id, step)
            row["name"] = node_names(row["document"]).get(row["node_id"], row["node_id"])
            values["step"], values["ports"] = row, list(row["edges"] or {}) or ["next"]
        elif action == "signal":
            found = engine.rows(
                "select w.event, w.correlation from stellwerk.wait w"
                " where w.tenant_id = (select stellwerk.current_tenant_id())"
                " and w.run_id = %s and w.step_id = %s and w.event is not null",
                [run_id, step],
            )
            if not found:
                raise UnknownThing("this step waits for no event any more")
            values["wait"] = found[0]
    return desk.page("runs/_act.html", **values)


@routes.get("/runs/{run_id:int}/plan", needs="operate")
def show_plan(desk: Desk, run_id: int, from_node: str = "") -> Any:
    """What a retry would walk through, and what it would do a second time."""
    plan: list[Row] = []
    refusal = None
    try:
        with desk.engine() as engine:
            plan = engine.retry_plan(run_id, from_node or None)
    except StellwerkError as error:
        refusal = ". ".join(part for part in (error.message, error.hint) if part)
    return desk.page("runs/_plan.html", plan=plan, refusal=refusal)


@routes.post("/runs/{run_id:int}/pause", needs="operate", status_code=200)
def pause(desk: Desk, state: State, run_id: int) -> Any:
    """Stop it where it stands."""
    with desk.engine() as engine:
        engine.pause_run(run_id)
    return _acted(desk, state, run_id, desk.t("The run is paused."))


@routes.post("/runs/{run_id:int}/resume", needs="operate", status_code=200)
def resume(desk: Desk, state: State, run_id: int) -> Any:
    """Let it go on."""
    with desk.engine() as engine:
        engine.resume_run(run_id)
    return _acted(desk, state, run_id, desk.t("The run goes on."))


@routes.post("/runs/{run_id:int}/cancel", needs="operate", status_code=200)
def cancel(desk: Desk, state: State, run_id: int, data: Form) -> Any:
    """End it."""
    with desk.engine() as engine:
        engine.cancel_run(run_id, data.get("reason") or None, compensate=bool(data.get("compensate")))
    return _acted(desk, state, run_id, desk.t("The run is being ended."))


@routes.post("/runs/{run_id:int}/retry", needs="operate", status_code=200)
def retry(desk: Desk, state: State, run_id: int, data: Form) -> Any:
    """Send it on again."""
    version = data.get("version") or None
    with desk.engine() as engine:
        engine.retry_run(run_id, data.get("from_node") or None, _number(version) if version else None)
    return _acted(desk, state, run_id, desk.t("The run goes on."))


@routes.post("/runs/{run_id:int}/edit", needs="operate", status_code=200)
def edit(desk: Desk, state: State, run_id: int, data: Form) -> Any:
    """Change what it goes on with."""
    payload = _json(data.get("payload", ""), "the payload")
    with desk.engine() as engine:
        before = _run(engine.rows("select * from stellwerk.run_overview where run_id = %s", [run_id]), run_id)
        engine.edit_run(
            run_id, payload if payload != before["payload"] else None, _json(data.get("vars", ""), "the variables")
        )
    return _acted(desk, state, run_id, desk.t("It is changed. Retry or resume the run to go on with it."))


@routes.post("/runs/{run_id:int}/skip", needs="operate", status_code=200)
def skip(desk: Desk, state: State, run_id: int, data: Form) -> Any:
    """End a step that waits."""
    with desk.engine() as engine:
        engine.skip_step(
            run_id,
            _number(data.get("step", "")),
            _json(data.get("output", ""), "the output"),
            data.get("port") or "next",
        )
    return _acted(desk, state, run_id, desk.t("The step is skipped."))


@routes.post("/runs/{run_id:int}/signal", needs="operate", status_code=200)
def send_signal(desk: Desk, state: State, run_id: int, data: Form) -> Any:
    """Tell the run what it waits for."""
    with desk.engine() as engine:
        woken = engine.signal(
            data.get("event", ""), data.get("correlation", ""), _json(data.get("payload", ""), "the payload")
        )
    return _acted(desk, state, run_id, desk.t("The event is sent; it woke {count}.", count=woken))


def _acted(desk: Desk, state: State, run_id: int, message: str) -> Any:
    state.live.nudge()
    with desk.engine() as engine:
        view = read_run(engine, run_id)
    return desk.page("runs/_acted.html", view=view, message=message)


def _json(text: str, what: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidPayload(f"{what} is no JSON: {error}") from None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(f"{text[:50]!r} is no number")
    return int(text)


def _run(rows: list[Row], run_id: int) -> Row:
    if not rows:
        raise UnknownThing(f"there is no run {run_id}", hint="The list of runs shows the latest.")
    return rows[0]


def _step(rows: list[Row], run_id: int, step_id: int | None) -> Row:
    if not rows:
        raise UnknownThing(f"run {run_id} has no step {step_id}")
    return rows[0]


def _document(rows: list[Row]) -> dict[str, Any]:
    return rows[0]["document"] if rows else {"nodes": [], "edges": []}


router = Router(
    "/",
    route_handlers=[
        show_runs,
        show_run,
        show_data,
        show_earlier_steps,
        show_node,
        show_step,
        show_action,
        show_plan,
        pause,
        resume,
        cancel,
        retry,
        edit,
        skip,
        send_signal,
    ],
)
