"""What a node's settings must fulfil beyond the model of its type: names that end up in SQL, times, time limits, and
what only a later release understands."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import available_timezones

from stellwerk.definition.catalog import NODE_TYPES
from stellwerk.definition.cron import cron_fields
from stellwerk.definition.document import Node
from stellwerk.definition.literals import DURATION
from stellwerk.definition.node_types import SLUG, NodeType
from stellwerk.definition.problems import Problems, did_you_mean
from stellwerk.definition.schemas import format_fault, schema_faults
from stellwerk.definition.templates import read_template

LATER = "not_yet_available"
SECONDS = {"H": 3600, "M": 60, "S": 1}
TABLE_NAME = re.compile(r'(?:[^\W\d]\w*|"(?:[^"]|"")+")(?:\.(?:[^\W\d]\w*|"(?:[^"]|"")+"))?\Z')
PLAIN_NAME = re.compile(r"[^\W\d][\w.$-]{0,127}\Z")


def check_node(settings: dict[str, Any], kind: NodeType, place: str, node: Node, problems: Problems) -> None:
    check_names(settings, kind, place, node, problems)
    if kind.runs_in == "wait":
        check_times(settings, kind, place, node, problems)
    if kind.type == "trigger.schedule":
        check_schedule(settings, place, node, problems)
    items = settings.get("items")
    if kind.type == "logic.loop" and isinstance(items, str) and "{{" in items and read_template(items).whole is None:
        problems.add(
            f"{place}.config.items",
            "bad_value",
            "items must be a list, or nothing but one {{ expression }} that gives one.",
            node=node.id,
            hint="A text around the expression makes it a text.",
        )
    if kind.type in NODE_TYPES and kind.executable and settings.get("credential") is not None:
        problems.add(
            f"{place}.config.credential",
            LATER,
            "Stored credentials are not available in this release.",
            node=node.id,
            hint="Remove it to publish; a draft may keep it.",
        )
    for key in sorted(kind.fields("schema")):
        if isinstance(settings.get(key), dict):
            for fault in schema_faults(settings[key]):
                problems.add(
                    f"{place}.config.{key}.{fault.path}".rstrip("."),
                    "bad_schema",
                    fault.message,
                    node=node.id,
                    hint=fault.hint,
                )


def check_names(settings: dict[str, Any], kind: NodeType, place: str, node: Node, problems: Problems) -> None:
    def refuse(key: str, what: str, hint: str) -> None:
        message = f"{settings[key][:60]!r} is not {what}."
        problems.add(f"{place}.config.{key}", "bad_name", message, node=node.id, hint=hint)

    def given(key: str) -> str | None:
        value = settings.get(key)
        return value if isinstance(value, str) and value and "{{" not in value else None

    if kind.type == "trigger.row":
        if isinstance(settings.get("table"), str) and not TABLE_NAME.match(settings["table"]):
            refuse("table", "the name of a table", 'Write table, schema.table, or "Quoted"."Names".')
    elif kind.type.startswith("record."):
        if (name := given("table")) and not PLAIN_NAME.match(name):
            refuse("table", "the name of a registered table", "register_table gives a table its name.")
    elif kind.type == "sql.function":
        if (name := given("function")) and not PLAIN_NAME.match(name):
            refuse("function", "the name of a registered function", "register_function gives a function its name.")
    elif kind.type == "logic.call" and (name := given("workflow")) and not SLUG.match(name):
        refuse("workflow", "the slug of a workflow", "Slugs are lower-case letters, digits and hyphens.")


def check_times(settings: dict[str, Any], kind: NodeType, place: str, node: Node, problems: Problems) -> None:
    for key in {"logic.wait": ("until", "of")}.get(kind.type, ("at",) if kind.type.startswith("timer.") else ()):
        value = settings.get(key)
        if isinstance(value, str) and "{{" not in value and not is_time(value):
            problems.add(
                f"{place}.config.{key}",
                "bad_value",
                f"{key} must be a time such as 2026-05-31T09:30:00Z, or an {{{{ expression }}}} that gives one.",
                node=node.id,
                hint="A date, and a time without an offset, are meant in the tenant's time zone.",
            )


def check_schedule(settings: dict[str, Any], place: str, node: Node, problems: Problems) -> None:
    def refuse(key: str, message: str, hint: str) -> None:
        problems.add(f"{place}.config.{key}", "bad_value", message, node=node.id, hint=hint)

    cron, every, zone = settings.get("cron"), settings.get("every"), settings.get("time_zone")
    if isinstance(cron, str):
        try:
            cron_fields(cron)
        except ValueError as error:
            refuse("cron", f"{cron[:60]!r} is no cron expression: {error}.", "For example 30 7 * * MON-FRI.")
    if isinstance(every, str) and DURATION.match(every) and not is_a_minute(every):
        refuse("every", f"A schedule runs once a minute at most, not every {every}.", "Write PT1M or more.")
    if isinstance(zone, str) and zone not in available_timezones():
        hint = did_you_mean(zone, available_timezones()) or "Such as Europe/Rome."
        refuse("time_zone", f"There is no time zone {zone[:60]!r}.", hint)


def is_a_minute(duration: str) -> bool:
    """Whether a duration is a minute or longer."""
    days, _, rest = duration.partition("T")
    seconds = sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([HMS])", rest))
    return seconds >= 60 or any(float(number) > 0 for number in re.findall(r"[\d.]+", days))


def schedule_fields(settings: dict[str, Any]) -> dict[str, Any] | None:
    """The sets of a schedule's cron expression, for the plan; None where there is no valid one."""
    try:
        return cron_fields(settings["cron"]) if isinstance(settings.get("cron"), str) else None
    except ValueError:
        return None


def is_time(text: str) -> bool:
    """Whether a text is a time as expressions understand it: ISO 8601, of which the offset and the time of day may be
    missing."""
    return (
        format_fault("date", text) is None
        or format_fault("date-time", text) is None
        or format_fault("date-time", f"{text}Z") is None
    )


def timeout_of(settings: dict[str, Any], kind: NodeType, place: str, node: Node, problems: Problems) -> str | None:
    """The longest duration of one attempt, or of one wait. Nodes that wait may have it among their settings, where it
    may be computed; as far as it is known, both places of the plan name it."""

    def refuse(path: str, code: str, message: str, hint: str) -> None:
        problems.add(f"{place}.{path}", code, message, node=node.id, hint=hint)

    if kind.runs_in in ("sql", "trigger"):
        if node.timeout is not None:
            hint = "Remove it; SQL nodes run under the session's statement_timeout."
            refuse("timeout", "not_applicable", f"{node.type} has no timeout of its own.", hint)
        return node.timeout or kind.timeout
    if kind.runs_in == "worker":
        return node.timeout or kind.timeout
    own = settings.get("timeout")
    ports = kind.ports_for(settings)
    if "timeout" not in ports:
        for path, value in (("timeout", node.timeout), ("config.timeout", own)):
            if value is not None:
                message = f"{node.id} waits for a time, which always comes, so it has no timeout."
                refuse(path, "not_applicable", message, "Remove it; a timeout belongs to a wait for an event.")
        return None
    if node.timeout is not None and own is not None:
        refuse("timeout", "conflict", f"{node.id} has two timeouts, one of them in config.", "Remove one of them.")
    if node.timeout is not None and "timeout" in settings:
        settings["timeout"] = node.timeout
    return own if isinstance(own, str) and DURATION.match(own) else node.timeout
