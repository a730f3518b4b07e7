"""How a case reads: who it is about, what status it has and may get, what happened to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stellwerk.engine import Row
from stellwerk.web.desk import Desk
from stellwerk.web.values import Shape, label, shape

NAMES = ("name", "full_name", "customer", "patient", "client", "contact", "title", "company", "subject")
CONTACTS = ("email", "e_mail", "mail", "phone", "telephone", "mobile", "tel", "contact", "whatsapp")
INSIDE = ("patient", "customer", "client", "contact", "person", "applicant", "lead", "buyer")


def described(desk: Desk, case: Row, possible: dict[str, list[Row]]) -> dict[str, Any]:
    """The case with its name, a way to reach the person, and the statuses that may follow."""
    payload = case["payload"] if isinstance(case["payload"], dict) else {}
    declared = possible.get(case["workflow"], [])
    now = next((each for each in declared if each["status"] == case["status"]), None)
    following = [
        each
        for each in declared
        if each["status"] == case["status"] or now is None or now["next"] is None or each["status"] in now["next"]
    ]
    return {
        **case,
        "name": case["summary"] or name_of(payload) or desk.t("Case {number}", number=case["case_id"]),
        "contact": contact_of(payload),
        "shown_status": shown_status(case),
        "declared": bool(declared),
        "following": following,
    }


def shown_status(case: Row) -> str:
    """The status as people read it."""
    return str(case.get("label") or case["status"] or "–")


def name_of(payload: dict[str, Any]) -> str | None:
    """Who, or what, it is about."""
    parts = [payload.get(key) for key in ("first_name", "last_name")]
    if any(isinstance(part, str) and part for part in parts):
        return " ".join(part for part in parts if isinstance(part, str) and part)
    return _first(payload, NAMES) or next(
        (found for key in INSIDE if isinstance(payload.get(key), dict) and (found := name_of(payload[key]))), None
    )


def contact_of(payload: dict[str, Any]) -> str | None:
    """An address or a number."""
    return _first(payload, CONTACTS) or next(
        (found for key in INSIDE if isinstance(payload.get(key), dict) and (found := contact_of(payload[key]))), None
    )


def outcome_of(desk: Desk, outcome: str | None) -> str | None:
    """A decision as the buttons of tasks name it."""
    from stellwerk.web.pages.tasks import outcome_label

    return outcome_label(desk, outcome) if outcome else None


@dataclass
class Change:
    """One line: what it was about, before and after."""

    what: str
    before: Shape
    after: Shape


def history_lines(desk: Desk, rows: list[Row], names: Any, labels: dict[str, str]) -> list[dict[str, Any]]:
    """What happened, newest first."""
    return [
        {
            "at": row["changed_at"],
            "actor": desk.t("automatically") if row["actor"].startswith("run:") else names(row["actor"]),
            "by_itself": row["actor"].startswith("run:"),
            "remark": row["remark"],
            "kind": row["kind"],
            "changes": _changes(desk, row, names, labels),
        }
        for row in rows
    ]


def _changes(desk: Desk, row: Row, names: Any, labels: dict[str, str]) -> list[Change]:
    changes = row["changes"] if isinstance(row["changes"], dict) else {}
    found = []
    for key, change in changes.items():
        if not isinstance(change, dict):
            continue
        before, after = change.get("from"), change.get("to")
        if key == "status":
            before, after = labels.get(str(before), before), labels.get(str(after), after)
        elif key == "assignee":
            before, after = (names(before) if before else None), (names(after) if after else None)
        found.append(Change(_what(desk, key), shape(before), shape(after)))
    order = [desk.t("Status"), desk.t("Note"), desk.t("In charge")]
    return sorted(found, key=lambda each: order.index(each.what) if each.what in order else len(order))


def _what(desk: Desk, key: str) -> str:
    known = {
        "status": desk.t("Status"),
        "note": desk.t("Note"),
        "summary": desk.t("Name"),
        "assignee": desk.t("In charge"),
        "appointment.title": desk.t("Appointment"),
        "appointment.starts_at": desk.t("Begins"),
        "appointment.ends_at": desk.t("Ends"),
        "appointment.location": desk.t("Place"),
    }
    return known.get(key) or label(key.removeprefix("payload."))


def _first(payload: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    return next(
        (payload[key][:200] for key in keys if isinstance(payload.get(key), str) and payload[key].strip()), None
    )
