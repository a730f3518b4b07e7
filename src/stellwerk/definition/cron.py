"""Cron expressions as the database reads them: every field a set.

cronsim parses and checks the expression; the next times are computed in SQL from the sets, so that schedules go on
where no process runs but the database.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cronsim import CronSim, CronSimError

FIELDS = 5
LAST_DAY, LAST_WEEKDAY = -1, -2  # in days
LAST = -1  # in nth: the last such weekday of a month


def cron_fields(expression: str) -> dict[str, Any]:
    """`{ minutes, hours, days, months, weekdays, nth, both, fixed }`.

    `nth` holds pairs such as [5, 2], the second Friday. `both`: the day of the month and the weekday must fit, else one
    of them is enough. `fixed`: minutes and hours do not begin with a star, so a time that the clocks skip is made up
    for, and one that comes twice counts once. Raises ValueError for what is no cron expression of five fields.
    """
    parts = expression.split()
    if len(parts) != FIELDS:
        raise ValueError(f"it has {len(parts)} fields, and {FIELDS} are needed: minute hour day month weekday")
    try:
        parsed = CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        message = str(error)
        raise ValueError(message[:1].lower() + message[1:]) from None
    special = {CronSim.LAST: LAST_DAY, CronSim.LAST_WEEKDAY: LAST_WEEKDAY}
    nth = {item for item in parsed.weekdays if isinstance(item, tuple)}
    return {
        "minutes": sorted(parsed.minutes),
        "hours": sorted(parsed.hours),
        "days": sorted(special.get(day, day) for day in parsed.days),
        "months": sorted(parsed.months),
        "weekdays": sorted({item % 7 for item in parsed.weekdays if isinstance(item, int)}),
        "nth": sorted([day % 7, LAST if number == CronSim.LAST else number] for day, number in nth),
        "both": parsed.day_and,
        "fixed": not parts[0].startswith("*") and not parts[1].startswith("*"),
    }
