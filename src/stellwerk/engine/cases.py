"""What the backoffice sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stellwerk.engine.calls import Calls, Row, as_json


class Cases(Calls):
    """The verbs of cases and their appointments."""

    def search_cases(
        self,
        words: str | None = None,
        statuses: Sequence[str] | None = None,
        workflow: str | None = None,
        assignee: str | None = None,
        before: int | None = None,
        page: int = 50,
        still_open: bool = False,
    ) -> list[Row]:
        """The tenant's cases, newest first, a page at a time; before is the last case that was seen."""
        return self.rows(
            "select * from stellwerk.search_cases(%s::text, %s::text[], %s::text, %s::text, %s::bigint, %s::int, %s)",
            [words, None if statuses is None else list(statuses), workflow, assignee, before, page, still_open],
        )

    def export_cases(
        self,
        words: str | None = None,
        statuses: Sequence[str] | None = None,
        workflow: str | None = None,
        assignee: str | None = None,
        still_open: bool = False,
    ) -> list[str]:
        """The tenant's cases as lines of CSV, the first with the names."""
        rows = self.rows(
            "select line from stellwerk.export_cases(%s::text, %s::text[], %s::text, %s::text, %s) as x (line)",
            [words, None if statuses is None else list(statuses), workflow, assignee, still_open],
        )
        return [str(row["line"]) for row in rows]

    def case_statuses(self, workflow: str) -> list[Row]:
        """The statuses that a workflow declares: position, status, label, color, final, next."""
        return self.rows("select * from stellwerk.case_statuses(%s::text)", [workflow])

    def update_case(self, case_id: int, changes: Any, version: int | None = None, remark: str | None = None) -> int:
        """Change status, note, summary, assignee or fields of payload; the new version."""
        return int(
            self.value(
                "select stellwerk.update_case(%s::bigint, %s::jsonb, %s::int, %s::text)",
                [case_id, as_json(changes), version, remark],
            )
        )

    def set_case_status(self, case_id: int, status: str, note: str | None = None, version: int | None = None) -> int:
        """Set a case's status, and its note if one is given; the new version."""
        query = "select stellwerk.set_case_status(%s::bigint, %s::text, %s::text, %s::int)"
        return int(self.value(query, [case_id, status, note, version]))

    def set_case_statuses(self, case_ids: Sequence[int], status: str, note: str | None = None) -> list[Row]:
        """Set the status of many cases; for each case_id, version, and code and message where it stays as it was."""
        query = "select * from stellwerk.set_case_statuses(%s::bigint[], %s::text, %s::text)"
        return self.rows(query, [list(case_ids), status, note])

    def assign_case(self, case_id: int, assignee: str | None, version: int | None = None) -> int:
        """Put a user or role:NAME in charge of a case, None nobody; the new version."""
        query = "select stellwerk.assign_case(%s::bigint, %s::text, %s::int)"
        return int(self.value(query, [case_id, assignee, version]))

    def add_case_note(self, case_id: int, body: str) -> int:
        """Write a note into a case's history; its number."""
        return int(self.value("select stellwerk.add_case_note(%s::bigint, %s::text)", [case_id, body]))

    def add_case_appointment(
        self, case_id: int, title: str, starts_at: Any, ends_at: Any = None, location: str | None = None
    ) -> int:
        """Make an appointment of a case; its number."""
        query = (
            "select stellwerk.add_case_appointment(%s::bigint, %s::text, %s::timestamptz, %s::timestamptz, %s::text)"
        )
        return int(self.value(query, [case_id, title, starts_at, ends_at, location]))

    def move_case_appointment(
        self,
        appointment_id: int,
        starts_at: Any,
        ends_at: Any = None,
        location: str | None = None,
        version: int | None = None,
    ) -> int:
        """Move an appointment; the new version."""
        query = (
            "select stellwerk.move_case_appointment(%s::bigint, %s::timestamptz, %s::timestamptz, %s::text, %s::int)"
        )
        return int(self.value(query, [appointment_id, starts_at, ends_at, location, version]))

    def cancel_case_appointment(
        self, appointment_id: int, reason: str | None = None, version: int | None = None
    ) -> None:
        """Cancel an appointment; the case's history keeps it."""
        query = "select stellwerk.cancel_case_appointment(%s::bigint, %s::text, %s::int)"
        self.value(query, [appointment_id, reason, version])
