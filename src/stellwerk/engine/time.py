"""Calendars and schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stellwerk.engine.calls import Calls, as_json


class Time(Calls):
    """The verbs of time zones, calendars and schedules."""

    def set_time_zone(self, zone: str) -> None:
        """Set the tenant's time zone."""
        self.value("select stellwerk.set_time_zone(%s::text)", [zone])

    def set_calendar(self, name: str, hours: Any, holidays: Sequence[object] = (), zone: str | None = None) -> None:
        """Make or replace a calendar of working hours."""
        self.value(
            "select stellwerk.set_calendar(%s::text, %s::jsonb, %s::date[], %s::text)",
            [name, as_json(hours), list(holidays), zone],
        )

    def remove_calendar(self, name: str) -> bool:
        """Remove a calendar; says whether there was one."""
        return bool(self.value("select stellwerk.remove_calendar(%s::text)", [name]))

    def pause_schedule(self, workflow: str, node: str | None = None) -> None:
        """Have a schedule start no runs until it is resumed."""
        self.value("select stellwerk.pause_schedule(%s::text, %s::text)", [workflow, node])

    def resume_schedule(self, workflow: str, node: str | None = None) -> Any:
        """Have a paused schedule go on from now; its next time."""
        return self.value("select stellwerk.resume_schedule(%s::text, %s::text)", [workflow, node])

    def run_schedule(self, workflow: str, node: str | None = None) -> int:
        """Start a run of a schedule now; its number."""
        return int(self.value("select stellwerk.run_schedule(%s::text, %s::text)", [workflow, node]))

    def backfill_schedule(self, workflow: str, since: str, until: str, node: str | None = None) -> int:
        """Start the runs of a schedule for past times that have none; how many were started."""
        return int(
            self.value(
                "select stellwerk.backfill_schedule(%s::text, %s::timestamptz, %s::timestamptz, %s::text)",
                [workflow, since, until, node],
            )
        )
