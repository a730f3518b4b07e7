"""Cases: what staff work through. Nothing here speaks of runs, steps or nodes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from litestar import Router
from litestar.response import Stream

from stellwerk.engine import Engine, Row
from stellwerk.errors import (
    Forbidden,
    InvalidPayload,
    StellwerkError,
    UnknownThing,
    UsageError,
    VersionConflict,
    WrongState,
)
from stellwerk.json_text import dumps
from stellwerk.web import cursors, routes, schema_forms
from stellwerk.web.desk import Desk
from stellwerk.web.pages.case_words import described, history_lines, outcome_of, shown_status
from stellwerk.web.pages.tasks import NAMES, PEOPLE, ZONE
from stellwerk.web.posted import Posted, number
from stellwerk.web.values import label, shape

MOST_AT_ONCE = 500
SEARCH = "select * from stellwerk.search_cases(%s, %s, %s, %s, %s, %s, still_open => %s)"
EXPORT = "select * from stellwerk.export_cases(%s, %s, %s, %s, still_open => %s)"
CASE = "select * from stellwerk.case_overview where case_id = %s"
STATUSES = "select status, label, color, final, next from stellwerk.case_statuses(%s) order by position"
HISTORY = """
  select h.history_id, h.changed_at, h.actor, h.kind, h.status, h.changes, h.remark
    from stellwerk.case_timeline h where h.case_id = %s order by h.history_id desc limit 200
"""
APPOINTMENTS = """
  select a.appointment_id, a.title, a.starts_at, a.ends_at, a.location, a.version
    from stellwerk.case_appointment a
   where a.tenant_id = (select stellwerk.current_tenant_id()) and a.case_id = %s
   order by a.starts_at limit 100
"""
APPOINTMENT = """
  select a.appointment_id from stellwerk.case_appointment a
   where a.tenant_id = (select stellwerk.current_tenant_id()) and a.case_id = %s and a.appointment_id = %s
"""
TASKS = """
  select k.task_id, k.title, k.state, k.assignee, k.role, k.claimed_by, k.completed_by, k.outcome, k.due_at, k.ended_at,
         coalesce(k.due_at < clock_timestamp(), false) as overdue
    from stellwerk.user_task k
   where k.tenant_id = (select stellwerk.current_tenant_id()) and k.run_id = %s
   order by k.task_id desc limit 50
"""
MESSAGES = """
  select m.message_id, m.recipient, m.subject, m.state, m.created_at
    from stellwerk.message m
   where m.tenant_id = (select stellwerk.current_tenant_id()) and m.run_id = %s
   order by m.message_id desc limit 50
"""
PROGRESS = """
  with named as (
    select e.node ->> 'id' as node_id, e.node ->> 'name' as name
      from stellwerk.run_overview r
      join stellwerk.workflow w on w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = r.workflow
      join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id
          and v.version = r.version
     cross join lateral jsonb_array_elements(v.document -> 'nodes') e (node)
     where r.run_id = %(run)s
  )
  select t.node_id, t.type, t.state, n.name from stellwerk.step_timeline t
    left join named n on n.node_id = t.node_id
   where t.run_id = %(run)s and t.scope = 0 order by t.step_id limit 60
"""


@routes.get("/backoffice")
def show_cases(
    desk: Desk,
    words: str = "",
    status: str = "",
    workflow: str = "",
    assignee: str = "",
    which: str = "",
    cursor: str = "",
) -> Any:
    """The newest cases first, those that are done with where they are asked for; htmx asks for more rows at the end."""
    return _list(desk, words, status, workflow, assignee, which, cursor)


@routes.get("/backoffice/cases.csv", media_type="text/csv")
def export_cases(
    desk: Desk, words: str = "", status: str = "", workflow: str = "", assignee: str = "", which: str = ""
) -> Any:
    """The same cases as a file for spreadsheets."""
    filters = _filters(desk, words, status, workflow, assignee)

    def lines() -> Iterator[str]:
        yield "\ufeff"  # so that spreadsheets take it for UTF-8
        with desk.engine() as engine, engine.connection.cursor(name="cases") as cursor:
            cursor.itersize = 500
            cursor.execute(EXPORT, [*filters, which != "all"])
            for (line,) in cursor:
                yield line + "\r\n"

    return Stream(
        lines(),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="cases.csv"'},
    )


@routes.post("/backoffice/status", needs="work", status_code=200)
def change_many(desk: Desk, body: bytes) -> Any:
    """One status for all the chosen cases; each that cannot have it says why."""
    posted = Posted(body)
    chosen, status = posted.numbers("case"), posted.text("to")
    if not chosen or not status:
        raise UsageError(desk.t("Choose some cases and a status."))
    if len(chosen) > MOST_AT_ONCE:
        raise UsageError(desk.t("At most {limit} cases at once.", limit=MOST_AT_ONCE))
    with desk.engine() as engine:
        rows = engine.set_case_statuses(chosen, status)
        refused = [(row["case_id"], _words(desk, engine, _error(row), row["case_id"])) for row in rows if row["code"]]
    words, chosen_status, workflow, assignee, which = (
        posted.text(name) for name in ("words", "status", "workflow", "assignee", "which")
    )
    told = {"done": len(rows) - len(refused), "refused": refused}
    return _list(desk, words, chosen_status, workflow, assignee, which, "", told)


def _error(row: Row) -> StellwerkError:
    return {"SW003": WrongState, "SW007": UnknownThing}.get(row["code"], InvalidPayload)(row["message"])


@routes.get("/backoffice/{case_id:int}")
def show_case(desk: Desk, case_id: int) -> Any:
    """One case: its data, what happened to it, and what belongs to it."""
    return _page(desk, case_id)


@routes.post("/backoffice/{case_id:int}/changes", needs="work", status_code=200)
def change_case(desk: Desk, case_id: int, body: bytes) -> Any:
    """Status, note, name or the person in charge: whatever the form holds."""
    posted = Posted(body)
    changes: dict[str, Any] = {
        name: posted.text(name) or None for name in ("status", "note", "summary", "assignee") if name in posted
    }
    changes |= {"payload": {name[8:]: text or None for name, text in posted.pairs if name.startswith("payload.")}}
    if not changes["payload"]:
        del changes["payload"]
    version = number(posted.text("version")) if posted.text("version") else None
    in_list = posted.text("from") == "list"
    try:
        with desk.engine() as engine:
            engine.value(
                "select stellwerk.update_case(%s, %s::jsonb, %s::integer, %s)",
                [case_id, dumps(changes), version, posted.text("remark") or None],
            )
    except StellwerkError as error:
        return _trouble(desk, case_id, error, in_list)
    return _row(desk, case_id) if in_list else _page(desk, case_id)


@routes.post("/backoffice/{case_id:int}/notes", needs="work", status_code=200)
def add_note(desk: Desk, case_id: int, body: bytes) -> Any:
    """Something to remember, in the case's history."""
    text = Posted(body).text("body")
    return _do(desk, case_id, "select stellwerk.add_case_note(%s, %s)", [case_id, text])


@routes.post("/backoffice/{case_id:int}/appointments", needs="work", status_code=200)
def add_appointment(desk: Desk, case_id: int, body: bytes) -> Any:
    """A new appointment."""
    posted = Posted(body)
    try:
        values = [case_id, posted.text("title"), *_times(desk, posted), posted.text("location") or None]
    except UsageError as error:
        return _refusal(desk, error.message, None, 422)
    return _do(desk, case_id, "select stellwerk.add_case_appointment(%s, %s, %s, %s, %s)", values)


@routes.post("/backoffice/{case_id:int}/appointments/{appointment_id:int}", needs="work", status_code=200)
def move_appointment(desk: Desk, case_id: int, appointment_id: int, body: bytes) -> Any:
    """An appointment at another time; whoever waits for it waits for the new one."""
    posted = Posted(body)
    try:
        starts_at, ends_at = _times(desk, posted)
    except UsageError as error:
        return _refusal(desk, error.message, None, 422)
    values = [
        appointment_id,
        starts_at,
        ends_at,
        posted.text("location") or None,
        number(posted.text("version") or "0"),
    ]
    return _do(
        desk, case_id, "select stellwerk.move_case_appointment(%s, %s, %s, %s, %s::integer)", values, appointment_id
    )


@routes.post("/backoffice/{case_id:int}/appointments/{appointment_id:int}/cancellation", needs="work", status_code=200)
def cancel_appointment(desk: Desk, case_id: int, appointment_id: int, body: bytes) -> Any:
    """An appointment that will not be; the history keeps it."""
    values = [appointment_id, Posted(body).text("reason") or None]
    return _do(desk, case_id, "select stellwerk.cancel_case_appointment(%s, %s)", values, appointment_id)


def _filters(desk: Desk, words: str, status: str, workflow: str, assignee: str) -> list[Any]:
    mine = {"me": desk.who.actor}.get(assignee, assignee)
    return [words or None, [status] if status else None, workflow or None, mine or None]


def _list(
    desk: Desk,
    words: str,
    status: str,
    workflow: str,
    assignee: str,
    which: str,
    cursor: str,
    told: dict[str, Any] | None = None,
) -> Any:
    key = cursors.read(cursor or None, int)
    filters = _filters(desk, words, status, workflow, assignee)
    with desk.engine() as engine:
        rows = engine.rows(SEARCH, [*filters, key[0] if key else None, cursors.DEFAULT + 1, which != "all"])
        page = cursors.page(rows, cursors.DEFAULT, "case_id")
        workflows = {row["workflow"]: row["name"] for row in engine.rows("select * from stellwerk.case_workflows()")}
        statuses = engine.rows("select * from stellwerk.used_case_statuses()")
        possible = _possible(engine, {row["workflow"] for row in page.rows} | ({workflow} if workflow else set()))
    return desk.page(
        ("backoffice/_more.html" if cursor else "backoffice/_cases.html")
        if desk.is_fragment
        else "backoffice/page.html",
        page=page,
        cases=[described(desk, row, possible) for row in page.rows],
        words=words,
        chosen=status,
        workflow=workflow,
        assignee=assignee,
        which=which,
        workflows=workflows,
        statuses=statuses,
        targets=possible[workflow] if workflow and possible[workflow] else statuses,
        told=told,
        trouble=None,
    )


def _row(desk: Desk, case_id: int, trouble: str | None = None, status: int = 200) -> Any:
    with desk.engine() as engine:
        row = engine.row(CASE, [case_id])
        possible = _possible(engine, {row["workflow"]})
        workflows = {each["workflow"]: each["name"] for each in engine.rows("select * from stellwerk.case_workflows()")}
    return desk.page(
        "backoffice/_row.html",
        status=status,
        headers={"x-in-place": "true"} if trouble else None,
        case=described(desk, row, possible),
        workflows=workflows,
        trouble=trouble,
    )


def _page(desk: Desk, case_id: int, trouble: str | None = None, status: int = 200) -> Any:
    try:
        with desk.engine() as engine:
            row = _case(engine, case_id)
            possible = _possible(engine, {row["workflow"]})
            history, tasks = engine.rows(HISTORY, [case_id]), engine.rows(TASKS, [row["run_id"]])
            appointments = engine.rows(APPOINTMENTS, [case_id])
            messages = engine.rows(MESSAGES, [row["run_id"]])
            progress = engine.rows(PROGRESS, {"run": row["run_id"]})  # type: ignore[arg-type]
            zone = engine.value(ZONE)
            people = engine.rows(PEOPLE) if desk.may("work") else []
            names = _names(engine, [row, *history, *tasks])
            workflows = {
                each["workflow"]: each["name"] for each in engine.rows("select * from stellwerk.case_workflows()")
            }
    except UnknownThing:
        return desk.page(
            "refusal.html", status=404, code=404, detail=desk.t("There is no such case."), hint=None, fields=[]
        )
    labels = {each["status"]: each["label"] for each in possible[row["workflow"]]}
    return desk.page(
        "backoffice/_case.html" if desk.is_fragment else "backoffice/case.html",
        status=status,
        headers={"x-in-place": "true"} if trouble else None,
        case=described(desk, row, possible),
        data=[(label(key), shape(value)) for key, value in (row["payload"] or {}).items()],
        simple=[(key, label(key), value) for key, value in (row["payload"] or {}).items() if isinstance(value, str)],
        history=history_lines(desk, history, names, labels),
        appointments=[
            {
                **each,
                "starts_local": schema_forms.local_time(each["starts_at"], zone),
                "ends_local": schema_forms.local_time(each["ends_at"], zone),
            }
            for each in appointments
        ],
        tasks=[{**each, "outcome": outcome_of(desk, each["outcome"])} for each in tasks],
        messages=messages,
        progress=[
            {**each, "name": each["name"] or label(each["node_id"])}
            for each in progress
            if not each["type"].startswith("trigger.")
        ],
        people=people,
        groups=sorted({group for each in people for group in (each["role"], *each["groups"])}),
        names=names,
        workflows=workflows,
        zone=zone,
        trouble=trouble,
    )


def _do(desk: Desk, case_id: int, statement: str, values: list[Any], appointment_id: int | None = None) -> Any:
    try:
        with desk.engine() as engine:
            if appointment_id is not None and not engine.rows(APPOINTMENT, [case_id, appointment_id]):
                raise UnknownThing(f"case {case_id} has no appointment {appointment_id}")
            engine.value(statement, values)
    except StellwerkError as error:
        return _trouble(desk, case_id, error, False)
    return _page(desk, case_id)


def _trouble(desk: Desk, case_id: int, error: StellwerkError, in_list: bool) -> Any:
    """Why it was refused, in the words of staff; with what the case has become meanwhile, where that is the reason."""
    status = {VersionConflict: 409, WrongState: 409, Forbidden: 403, UnknownThing: 404}.get(type(error), 422)
    with desk.engine() as engine:
        words = _words(desk, engine, error, case_id)
    if isinstance(error, VersionConflict) and desk.is_fragment:
        return _row(desk, case_id, words, status) if in_list else _page(desk, case_id, words, status)
    return _refusal(desk, words, None, status)


def _refusal(desk: Desk, detail: str, hint: str | None, status: int) -> Any:
    template = "_refusal.html" if desk.is_fragment else "refusal.html"
    return desk.page(template, status=status, code=status, detail=detail, hint=hint, fields=[])


def _words(desk: Desk, engine: Engine, error: StellwerkError, case_id: int) -> str:
    if isinstance(error, VersionConflict):
        rows = engine.rows(HISTORY.replace("limit 200", "limit 1"), [case_id])
        name = shown_actor(desk, rows[0]["actor"], _names(engine, rows)) if rows else "?"
        return desk.t("{name} has changed this meanwhile. Please look at it again.", name=name)
    if isinstance(error, WrongState):
        rows = engine.rows(CASE, [case_id])
        now = shown_status(rows[0]) if rows else ""
        return desk.t("From the status {status} this one cannot follow.", status=now)
    if isinstance(error, Forbidden):
        return desk.t("You may look at cases, but not change them.")
    if isinstance(error, UnknownThing):
        if "user" in error.message:
            return desk.t("There is nobody of this name. Choose somebody from the list.")
        if "appointment" in error.message:
            return desk.t("There is no such appointment.")
        return desk.t("There is no such case.")
    if isinstance(error, InvalidPayload):
        if "no status" in error.message:
            return desk.t("There is no such status here.")
        if "start" in error.message:
            return desk.t("An appointment needs a time at which it starts, and ends after that.")
        if "title" in error.message:
            return desk.t("An appointment needs a title.")
        return desk.t("This is too long, or empty.")
    raise error


def _case(engine: Engine, case_id: int) -> Row:
    rows = engine.rows(CASE, [case_id])
    if not rows:
        raise UnknownThing(f"there is no case {case_id}")
    return rows[0]


def _possible(engine: Engine, workflows: set[str]) -> dict[str, list[Row]]:
    return {slug: engine.rows(STATUSES, [slug]) for slug in sorted(workflows)}


def _times(desk: Desk, posted: Posted) -> tuple[datetime | None, datetime | None]:
    with desk.engine() as engine:
        zone = engine.value(ZONE)
    found = [
        schema_forms.moment(posted.text(name), zone) if posted.text(name) else None for name in ("starts_at", "ends_at")
    ]
    if posted.text("starts_at") and found[0] is None:
        raise UsageError(desk.t("This is no date with a time."))
    return found[0], found[1]


def _names(engine: Engine, rows: list[Row]) -> Any:
    wanted = {
        str(row[key])
        for row in rows
        for key in ("assignee", "claimed_by", "completed_by", "actor")
        if row.get(key) and "@" in str(row[key])
    }
    wanted |= {
        str(change.get(side))
        for row in rows
        for change in [(row.get("changes") or {}).get("assignee") or {}]
        for side in ("from", "to")
        if change.get(side)
    }
    known = {row["email"]: row["name"] for row in engine.rows(NAMES, [list(wanted)])} if wanted else {}
    return lambda email: known.get(email, email)


def shown_actor(desk: Desk, actor: str, names: Any) -> str:
    """Who did it, in the words of staff."""
    return desk.t("automatically") if actor.startswith("run:") else str(names(actor))


router = Router(
    "/",
    route_handlers=[
        show_cases,
        export_cases,
        change_many,
        show_case,
        change_case,
        add_note,
        add_appointment,
        move_appointment,
        cancel_appointment,
    ],
)
