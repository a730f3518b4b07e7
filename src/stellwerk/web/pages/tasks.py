"""Tasks: what people have to do, in their words. Nothing here speaks of runs, steps or workflows."""

from __future__ import annotations

from typing import Any

from litestar import Router

from stellwerk.engine import Row
from stellwerk.errors import Forbidden, InvalidPayload, StellwerkError, UnknownThing, WrongState
from stellwerk.json_text import dumps
from stellwerk.web import cursors, routes, schema_forms
from stellwerk.web.desk import Desk
from stellwerk.web.posted import Posted
from stellwerk.web.values import shape

LISTS = ("all", "mine", "group", "overdue")
TASK = "select * from stellwerk.task_page(%s)"
PEOPLE = """
  select u.email, coalesce(u.name, u.email) as name, u.role, u.groups
    from stellwerk.app_user u
   where u.tenant_id = (select stellwerk.current_tenant_id()) and u.active
   order by lower(coalesce(u.name, u.email)), u.user_id
   limit 1000
"""
NAMES = """
  select u.email, u.name from stellwerk.app_user u
   where u.tenant_id = (select stellwerk.current_tenant_id()) and u.email = any (%s) and u.name is not null
"""
COMMENTS = """
  select c.comment_id, c.actor, c.body, c.created_at from stellwerk.user_task_comment c
   where c.tenant_id = (select stellwerk.current_tenant_id()) and c.task_id = %s
   order by c.comment_id desc limit 200
"""
ATTACHMENTS = """
  select a.attachment_id, a.actor, a.name, a.reference, a.created_at from stellwerk.user_task_attachment a
   where a.tenant_id = (select stellwerk.current_tenant_id()) and a.task_id = %s
   order by a.attachment_id limit 200
"""
DECISIONS = """
  select d.actor, d.outcome, d.decided_at from stellwerk.user_task_decision d
   where d.tenant_id = (select stellwerk.current_tenant_id()) and d.task_id = %s
   order by d.decided_at
"""
ZONE = "select stellwerk.zone_of(stellwerk.current_tenant_id())"


@routes.get("/tasks", needs="work")
def show_tasks(desk: Desk, which: str = "all", words: str = "", cursor: str = "", done: str = "") -> Any:
    """My open tasks and those of my groups, the most urgent first."""
    which = which if which in LISTS else "all"
    key = cursors.read(cursor or None, str, int)
    with desk.engine() as engine:
        rows = engine.rows(
            "select * from stellwerk.list_my_tasks(%s, %s, %s::timestamptz, %s, %s)",
            [which, words or None, *(key or (None, None)), cursors.DEFAULT + 1],
        )
        names = _names(engine, rows)
    page = cursors.page(rows, cursors.DEFAULT, "sort_due", "id")
    template = "tasks/_list.html" if desk.is_fragment else "tasks/page.html"
    return desk.page(template, page=page, which=which, words=words, lists=LISTS, done=done, names=names)


@routes.get("/tasks/{task_id:int}", needs="work")
def show_task(desk: Desk, task_id: int) -> Any:
    """One task: what it is about, its form, and what was said."""
    return _page(desk, task_id)


@routes.post("/tasks/{task_id:int}/claim", needs="work", status_code=200)
def claim_task(desk: Desk, task_id: int, open: bool = False) -> Any:
    """I take it; from the list this opens it as well."""
    answer = _do(desk, task_id, lambda engine: engine.value("select stellwerk.claim_task(%s)", [task_id]))
    return desk.go(f"/tasks/{task_id}") if open and answer.status_code < 400 else answer


@routes.post("/tasks/{task_id:int}/release", needs="work", status_code=200)
def release_task(desk: Desk, task_id: int) -> Any:
    """I give it back."""
    return _do(desk, task_id, lambda engine: engine.value("select stellwerk.release_task(%s)", [task_id]))


@routes.post("/tasks/{task_id:int}/assignee", needs="work", status_code=200)
def hand_over_task(desk: Desk, task_id: int, body: bytes) -> Any:
    """Somebody else is to do it."""
    to = Posted(body).text("to")
    try:
        with desk.engine() as engine:
            engine.value("select stellwerk.reassign_task(%s, %s)", [task_id, to])
            try:
                engine.rows(TASK, [task_id])
            except Forbidden:
                mine = False
            else:
                mine = True
    except StellwerkError as error:
        return _refusal(desk, task_id, error)
    return desk.go(f"/tasks/{task_id}" if mine else "/tasks?done=handed")


@routes.post("/tasks/{task_id:int}/draft", needs="work", status_code=200)
def save_draft(desk: Desk, task_id: int, body: bytes) -> Any:
    """What was filled in so far is kept."""
    try:
        with desk.engine() as engine:
            task = engine.row(TASK, [task_id])
            reading = schema_forms.read(task["form"], Posted(body).pairs, engine.value(ZONE), desk.t)
            engine.value("select stellwerk.save_task_draft(%s, %s::jsonb)", [task_id, dumps(reading.value)])
    except StellwerkError as error:
        return _refusal(desk, task_id, error)
    return desk.page("tasks/_saved.html")


@routes.post("/tasks/{task_id:int}/completion", needs="work", status_code=200)
def complete_task(desk: Desk, task_id: int, body: bytes) -> Any:
    """The form is handed in, with one of the outcomes; what is wrong is said at the field."""
    posted = Posted(body)
    try:
        with desk.engine() as engine:
            task, zone = engine.row(TASK, [task_id]), engine.value(ZONE)
        reading = schema_forms.read(task["form"], posted.pairs, zone, desk.t)
        errors = schema_forms.faults(task["form"], reading, desk.t)
        if errors and task["may_work"]:
            return _page(desk, task_id, reading.value, errors)
        with desk.engine() as engine:
            state = engine.value(
                "select stellwerk.complete_task(%s, %s::jsonb, %s)",
                [task_id, dumps(reading.value), posted.text("outcome") or None],
            )
    except StellwerkError as error:
        return _refusal(desk, task_id, error)
    return desk.go("/tasks?done=more" if state == "open" else "/tasks?done=yes")


@routes.post("/tasks/{task_id:int}/comments", needs="work", status_code=200)
def comment_task(desk: Desk, task_id: int, body: bytes) -> Any:
    """What somebody has to say to it."""
    text = Posted(body).text("body")
    return _do(
        desk, task_id, lambda engine: engine.value("select stellwerk.comment_task(%s, %s)", [task_id, text]), "talk"
    )


@routes.post("/tasks/{task_id:int}/attachments", needs="work", status_code=200)
def attach_to_task(desk: Desk, task_id: int, body: bytes) -> Any:
    """A file that belongs to it, by the address where it lies."""
    posted = Posted(body)
    values = [task_id, posted.text("name") or posted.text("reference")[-200:], posted.text("reference")]
    return _do(
        desk, task_id, lambda engine: engine.value("select stellwerk.attach_to_task(%s, %s, %s)", values), "talk"
    )


def _do(desk: Desk, task_id: int, act: Any, fragment: str = "task") -> Any:
    try:
        with desk.engine() as engine:
            act(engine)
    except StellwerkError as error:
        return _refusal(desk, task_id, error)
    return _page(desk, task_id, fragment=fragment)


def _page(
    desk: Desk, task_id: int, value: Any = None, errors: dict[str, str] | None = None, fragment: str = "task"
) -> Any:
    try:
        with desk.engine() as engine:
            task = engine.row(TASK, [task_id])
            zone = engine.value(ZONE)
            comments, files = engine.rows(COMMENTS, [task_id]), engine.rows(ATTACHMENTS, [task_id])
            decisions = engine.rows(DECISIONS, [task_id])
            people = engine.rows(PEOPLE) if task["may_hand_over"] else []
            names = _names(engine, [task, *comments, *files, *decisions])
    except StellwerkError as error:
        return _refusal(desk, task_id, error, whole=True)
    filled = value if value is not None else task["draft"] if task["draft"] is not None else task["prefill"]
    shown = task["shown"] if isinstance(task["shown"], list) else []
    return desk.page(
        f"tasks/_{fragment}.html" if desk.is_fragment else "tasks/task.html",
        status=422 if errors else 200,
        headers={"x-in-place": "true"} if errors else None,
        task=task,
        fields=schema_forms.fields(task["form"], filled, errors, zone),
        shown=[(str(each.get("label", "")), shape(each.get("value"))) for each in shown if isinstance(each, dict)],
        result=shape(task["result"]),
        outcomes=[(outcome, outcome_label(desk, outcome)) for outcome in task["outcomes"] or []],
        outcome=outcome_label(desk, task["outcome"]) if task["outcome"] else None,
        comments=comments,
        files=files,
        decisions=[{**each, "label": outcome_label(desk, each["outcome"] or "")} for each in decisions],
        people=people,
        groups=sorted({group for each in people for group in (each["role"], *each["groups"])}),
        names=names,
    )


def _refusal(desk: Desk, task_id: int, error: StellwerkError, *, whole: bool = False) -> Any:
    """Why it was refused, in the words of somebody who does tasks."""
    detail, hint, status = desk.t("This could not be done."), None, 422
    if isinstance(error, UnknownThing) and "no task" not in error.message:
        detail, status = desk.t("There is nobody of this name. Choose somebody from the list."), 404
    elif isinstance(error, UnknownThing):
        detail, status = desk.t("There is no such task."), 404
    elif isinstance(error, Forbidden):
        detail, status = desk.t("This task is not for you."), 403
        if "may not decide about it" in error.message:
            detail = desk.t("You asked for this yourself, so somebody else has to decide about it.")
    elif isinstance(error, WrongState):
        detail, hint, status = _faster(desk, task_id), desk.t("Nothing of yours was changed."), 409
    elif isinstance(error, InvalidPayload):
        detail = desk.t("Something in the form is missing or cannot be used.")
    else:
        raise error
    template = "_refusal.html" if desk.is_fragment or not whole else "refusal.html"
    return desk.page(template, status=status, code=status, detail=detail, hint=hint, fields=[])


def _faster(desk: Desk, task_id: int) -> str:
    """Who was faster, and with what."""
    try:
        with desk.engine() as engine:
            task = engine.row(TASK, [task_id])
            names = _names(engine, [task])
    except StellwerkError:
        return desk.t("This task is no longer open.")
    if task["state"] == "claimed" and not task["claimed_by_me"]:
        return desk.t("{name} is working on this task now.", name=names(task["claimed_by"]))
    if task["state"] == "completed":
        return desk.t("{name} was faster: the task is done.", name=names(task["completed_by"]))
    if task["has_decided"]:
        return desk.t("You have decided already; now somebody else has to.")
    return desk.t("This task is no longer open.")


def outcome_label(desk: Desk, outcome: str) -> str:
    """The button of an outcome; what designers write most is translated."""
    known = {
        "approve": desk.t("Approve"),
        "reject": desk.t("Reject"),
        "accept": desk.t("Accept"),
        "decline": desk.t("Decline"),
        "done": desk.t("Done"),
        "yes": desk.t("Yes"),
        "no": desk.t("No"),
        "later": desk.t("Later"),
        "cancel": desk.t("Cancel"),
    }
    return known.get(outcome) or outcome.replace("_", " ").capitalize()


def _names(engine: Any, rows: list[Row]) -> Any:
    """A function from the address of a user to the name that people know."""
    wanted = {
        str(row[key])
        for row in rows
        for key in ("assignee", "claimed_by", "completed_by", "actor")
        if row.get(key) and "@" in str(row[key])
    }
    known = {row["email"]: row["name"] for row in engine.rows(NAMES, [list(wanted)])} if wanted else {}
    return lambda email: known.get(email, email)


router = Router(
    "/",
    route_handlers=[
        show_tasks,
        show_task,
        claim_task,
        release_task,
        hand_over_task,
        save_draft,
        complete_task,
        comment_task,
        attach_to_task,
    ],
)
