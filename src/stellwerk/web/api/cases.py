"""`/api/backoffice/cases`: what workflows hand over to people."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from litestar import Response
from pydantic import Field

from stellwerk.engine import Engine
from stellwerk.errors import InvalidPayload, UnknownThing
from stellwerk.web import cursors, exchange
from stellwerk.web.desk import Desk
from stellwerk.web.exchange import Anything, Asked, Given, Id, Paged, Refused, Shown, Text, Version, answer

HISTORY = """
  select history_id, changed_at, actor, kind, status, changes, remark, version, run_id from stellwerk.case_timeline
   where case_id = %s order by history_id desc limit 100
"""


class CaseSummary(Shown):
    """A case in a list."""

    case_id: Id
    run_id: Id
    workflow: str
    status: str | None
    label: str | None = Field(description="The status as people read it.")
    final: bool | None = Field(description="Whether the case is done with.")
    assignee: str | None
    summary: str | None
    note: str | None
    payload: Anything
    version: int
    created_at: datetime.datetime
    updated_at: datetime.datetime


class CaseEntry(Shown):
    """Something that happened to a case."""

    history_id: Id
    changed_at: datetime.datetime
    actor: str
    kind: str
    status: str | None
    changes: Anything = Field(description="name: { from, to }")
    remark: str | None
    version: int | None
    run_id: Id | None


class Case(CaseSummary):
    """A case and its latest history."""

    history: list[CaseEntry] = Field(description="The newest first, at most 100.")


class CaseFilter(Asked):
    """Which cases."""

    words: Annotated[str, Field(max_length=500, description="Words, or their beginnings, in the data.")] | None = None
    status: Annotated[str, Field(max_length=1000, description="One status, or several with commas.")] | None = None
    workflow: Annotated[str, Field(max_length=63)] | None = None
    assignee: Annotated[str, Field(max_length=320)] | None = None
    still_open: bool = Field(default=False, description="Only cases that are not done with.")


class WhichCases(CaseFilter, Paged):
    """Which cases, in pages."""


class CaseChange(Given):
    """What is given is changed; null takes a value away."""

    status: Annotated[str, Field(max_length=200)] | None = None
    note: Annotated[str, Field(max_length=100_000)] | None = None
    summary: Text | None = None
    assignee: Annotated[str, Field(max_length=320)] | None = None
    payload: dict[str, Any] | None = Field(default=None, description="Fields of the data.")
    remark: Text | None = Field(default=None, description="Why, for the history.")
    version: Version | None = Field(default=None, description="412 if the case is at another one by now.")


class CaseStatuses(Given):
    """One status for many cases."""

    cases: list[Id] = Field(min_length=1, max_length=1000)
    status: Annotated[str, Field(min_length=1, max_length=100)]
    note: Annotated[str, Field(max_length=100_000)] | None = Field(
        default=None, description="Replaces each one's note."
    )


class CaseVerdict(Shown):
    """What became of one of them."""

    case_id: Id
    version: int | None = Field(description="The version that it is at now; null where there is no such case.")
    code: str | None = Field(
        description="Why it stays as it was: SW002 no such status, SW003 cannot follow, SW007 no such case."
    )
    message: str | None


class CaseVerdicts(Shown):
    """What became of them, in the order of their numbers."""

    items: list[CaseVerdict]


CaseList = exchange.listed(CaseSummary, "CaseList")


@exchange.get("/api/backoffice/cases", "List cases", CaseList, asks=WhichCases)
def list_cases(desk: Desk, asked: WhichCases) -> Response[bytes]:
    """The newest first."""
    key = cursors.read(asked.cursor, int)
    with desk.engine() as engine:
        rows = engine.search_cases(*_filters(asked), key[0] if key else None, asked.limit + 1, asked.still_open)
    return exchange.paged(CaseList, cursors.page(rows, asked.limit, "case_id"))


@exchange.get("/api/backoffice/cases.csv", "Cases as CSV", "text/csv", asks=CaseFilter)
def export_cases(desk: Desk, asked: CaseFilter) -> Response[str]:
    """All that fit, a column for each field; no cell is taken for a formula by a spreadsheet."""
    with desk.engine() as engine:
        lines = engine.export_cases(*_filters(asked), asked.still_open)
    return Response(
        "\r\n".join(lines) + "\r\n",
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": 'attachment; filename="cases.csv"'},
    )


@exchange.get("/api/backoffice/cases/{case_id:str}", "Read a case", Case)
def get_case(desk: Desk, case_id: str) -> Response[bytes]:
    """With what happened to it."""
    with desk.engine() as engine:
        return answer(Case, _case(engine, exchange.number(case_id, "case")))


@exchange.patch(
    "/api/backoffice/cases/{case_id:str}",
    "Change a case",
    Case,
    needs="work",
    takes=CaseChange,
    refuses=(409, 412),
    example={"note": "called back", "remark": "by phone"},
)
def change_case(desk: Desk, case_id: str, given: CaseChange) -> Response[bytes]:
    """Status, note, person in charge, and fields of the data; the history says who and when."""
    number = exchange.number(case_id, "case")
    changes = given.model_dump(exclude_unset=True, exclude={"remark", "version"})
    if changes.get("payload", {}) is None:
        del changes["payload"]
    if not changes:
        raise Refused("nothing is to be changed", [{"path": "", "message": "names no field"}])
    try:
        with desk.engine() as engine:
            engine.update_case(number, changes, given.version, given.remark)
            return answer(Case, _case(engine, number))
    except InvalidPayload as error:
        raise Refused(error.message, [{"path": "", "message": error.message, "hint": error.hint}]) from error


@exchange.post(
    "/api/backoffice/cases/status",
    "Set the status of many cases",
    CaseVerdicts,
    needs="work",
    takes=CaseStatuses,
    example={"cases": ["1", "2"], "status": "done"},
)
def set_statuses(desk: Desk, given: CaseStatuses) -> Response[bytes]:
    """In one transaction; those that cannot have it stay as they are and say why."""
    numbers = [exchange.number(each, "case") for each in given.cases]
    with desk.engine() as engine:
        return answer(CaseVerdicts, {"items": engine.set_case_statuses(numbers, given.status, given.note)})


def _filters(asked: CaseFilter) -> tuple[str | None, list[str] | None, str | None, str | None]:
    statuses = [each.strip() for each in asked.status.split(",")] if asked.status else None
    return asked.words, statuses, asked.workflow, asked.assignee


def _case(engine: Engine, number: int) -> dict[str, Any]:
    rows = engine.rows("select * from stellwerk.case_overview where case_id = %s", [number])
    if not rows:
        raise UnknownThing(f"there is no case {number}", hint="GET /api/backoffice/cases lists them.")
    return {**rows[0], "history": engine.rows(HISTORY, [number])}


router = exchange.router(list_cases, export_cases, get_case, change_case, set_statuses)
