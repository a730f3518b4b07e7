"""The node types that choose, repeat, join and wait."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stellwerk.definition.node_types import Duration, Name, NodeConfig, NodeType, Values, condition, literal, textarea


class If(NodeConfig):
    condition: Annotated[str, Field(**condition("Condition", "An expression; unknown (null) leaves by false."))]


class Case(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    port: Annotated[
        str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", **literal("Port", "Name of the way; its port is case:NAME."))
    ]
    when: Annotated[str, Field(**condition("When", "An expression."))]


class Switch(NodeConfig):
    cases: Annotated[
        list[Case],
        Field(min_length=1, max_length=100, **literal("Cases", "Looked at in order; the first that is true is taken.")),
    ]


class Loop(NodeConfig):
    items: Annotated[Any, Field(title="Items", description="The list to go through.")]
    parallel: Annotated[int, Field(ge=1, le=1000, title="Parallel", description="How many iterations run at once.")] = 1
    collect: Annotated[
        Any,
        Field(
            title="Collect", description="What each iteration adds to the output; by default its last step's output."
        ),
    ] = None
    on_item_error: Annotated[
        Literal["fail", "skip", "collect"],
        Field(**literal("On item error", "What a failed iteration does to the loop.")),
    ] = "fail"

    @field_validator("items")
    @classmethod
    def check_items(cls, value: Any) -> Any:
        if not isinstance(value, list) and not (isinstance(value, str) and "{{" in value):
            raise ValueError("must be a list, or an {{ expression }} that gives one")
        return value


class Join(NodeConfig):
    mode: Annotated[Literal["all", "any", "count"], Field(**literal("Mode", "How many tokens to wait for."))] = "all"
    count: Annotated[int | None, Field(ge=1, **literal("Count", "With mode count: how many."))] = None

    @model_validator(mode="after")
    def check_together(self) -> Join:
        if (self.mode == "count") != (self.count is not None):
            raise ValueError("count and mode count belong together")
        return self


class Set(NodeConfig):
    values: Annotated[
        Values, Field(min_length=1, title="Values", description="Variables and their values, read as vars.NAME.")
    ]


class Transform(NodeConfig):
    output: Annotated[Any, Field(title="Output", description="Any JSON; texts may hold {{ expressions }}.")]


class Call(NodeConfig):
    workflow: Annotated[Name, Field(**literal("Workflow", "Slug of the workflow to run."))]
    payload: Annotated[Any, Field(title="Payload", description="What the child starts with.")] = None


class Stop(NodeConfig):
    outcome: Annotated[Literal["completed", "failed"], Field(**literal("Outcome", "How the run ends."))] = "completed"
    result: Annotated[Any, Field(title="Result", description="The run's output.")] = None
    message: Annotated[
        str | None, Field(title="Message", description="The error's message, where the outcome is failed.")
    ] = None


class RowTime(BaseModel):
    """A time that stands in a row and moves with it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    table: Name
    key: Any
    column: Name

    @field_validator("table", "column")
    @classmethod
    def check_written_out(cls, value: str) -> str:
        if "{{" in value:
            raise ValueError("must be written out: no expression may stand here")
        return value


Calendar = Annotated[
    Name | None,
    Field(title="Calendar", description="Name of a calendar: count in its working hours, or put off to them."),
]


class Wait(NodeConfig):
    for_: Annotated[Duration | None, Field(alias="for", title="For", description="A duration, such as PT3H.")] = None
    until: Annotated[str | None, Field(title="Until", description="A point in time.")] = None
    before: Annotated[Duration | None, Field(title="Before", description="So long before the time in of.")] = None
    after: Annotated[Duration | None, Field(title="After", description="So long after the time in of.")] = None
    of: Annotated[
        str | RowTime | None, Field(title="Of", description="A time, or table, key and column of a row to follow.")
    ] = None
    event: Annotated[Name | None, Field(title="Event", description="Name of the signal to wait for.")] = None
    correlation: Annotated[
        str | None, Field(title="Correlation", description="The key that the signal must carry.")
    ] = None
    timeout: Annotated[Duration | None, Field(title="Timeout", description="How long to wait for the event.")] = None
    calendar: Calendar = None
    past: Annotated[
        Literal["fire", "skip", "fail"], Field(**literal("Past", "What to do when the time has passed already."))
    ] = "fire"

    @model_validator(mode="after")
    def check_together(self) -> Wait:
        ways = [name for name in ("for_", "until", "before", "after", "event") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError("exactly one of for, until, before, after and event must be given")
        if (ways[0] in ("before", "after")) != (self.of is not None):
            raise ValueError("before and after need of, and only they")
        if (ways[0] == "event") != (self.correlation is not None):
            raise ValueError("event needs correlation, and only it")
        if ways[0] == "event" and self.calendar is not None:
            raise ValueError("calendar belongs to a time, not to an event")
        return self


class BeforeTime(NodeConfig):
    at: Annotated[
        str | RowTime,
        Field(title="At", description="The time that this comes before, or table, key and column of a row to follow."),
    ]
    offset: Annotated[Duration, Field(title="Offset", description="How long before.")]
    calendar: Calendar = None
    past: Annotated[
        Literal["fire", "skip", "fail"], Field(**literal("Past", "What to do when the time has passed already."))
    ] = "fire"


class ReminderCall(BeforeTime):
    offset: Annotated[Duration, Field(title="Offset", description="How long before.")] = "P1D"


class PrecheckDocs(BeforeTime):
    offset: Annotated[Duration, Field(title="Offset", description="How long before.")] = "PT3H"


class WebhookWait(NodeConfig):
    correlation: Annotated[str, Field(title="Correlation", description="The key that the event must carry.")]
    timeout: Annotated[Duration | None, Field(title="Timeout", description="How long to wait.")] = None


class LogConfig(NodeConfig):
    message: Annotated[str, Field(**textarea("Message", "May hold {{ expressions }}."))]
    data: Annotated[Any, Field(title="Data", description="Any JSON to keep beside it.")] = None


def switch_ports(config: dict[str, Any]) -> tuple[str, ...]:
    cases = config.get("cases")
    names = (
        [case["port"] for case in cases if isinstance(case, dict) and isinstance(case.get("port"), str)]
        if isinstance(cases, list)
        else []
    )
    return (*(f"case:{name}" for name in names), "default")


def wait_ports(config: dict[str, Any]) -> tuple[str, ...]:
    """A wait for a time ends at that time; only an event can fail to come."""
    if isinstance(config.get("of"), dict):
        return ("next", "gone")
    times = any(config.get(name) is not None for name in ("for", "until", "before", "after"))
    return ("next",) if times and config.get("event") is None else ("next", "timeout")


def before_ports(config: dict[str, Any]) -> tuple[str, ...]:
    """A row that is followed can be deleted."""
    return ("next", "gone") if isinstance(config.get("at"), dict) else ("next",)


def follows_row(config: dict[str, Any]) -> bool:
    return isinstance(config.get("of"), dict) or isinstance(config.get("at"), dict)


SIGNAL = "the signal's payload"

LOGIC = (
    NodeType(
        "logic.if",
        "If",
        "Leaves by true or false.",
        "Logic",
        "split",
        "sql",
        If,
        '{ "result" }',
        ports=("true", "false"),
        executable=True,
    ),
    NodeType(
        "logic.switch",
        "Switch",
        "Leaves by the first case that is true, else by default.",
        "Logic",
        "switch",
        "sql",
        Switch,
        '{ "port" }',
        ports=("case:NAME", "default"),
        ports_of=switch_ports,
        executable=True,
    ),
    NodeType(
        "logic.loop",
        "Loop",
        "Runs its body for each item.",
        "Logic",
        "repeat",
        "sql",
        Loop,
        '{ "items", "count", "errors" }',
        ports=("each", "done"),
        executable=True,
    ),
    NodeType(
        "logic.join",
        "Join",
        "Waits for all, any or some of the tokens that can reach it.",
        "Logic",
        "merge",
        "sql",
        Join,
        '{ "arrived" }',
        executable=True,
    ),
    NodeType(
        "logic.set",
        "Set variables",
        "Sets variables of the run.",
        "Logic",
        "pencil",
        "sql",
        Set,
        "the values",
        executable=True,
    ),
    NodeType(
        "logic.transform",
        "Transform",
        "Maps data into a new shape.",
        "Logic",
        "shuffle",
        "sql",
        Transform,
        "the value",
        executable=True,
    ),
    NodeType(
        "logic.call",
        "Call workflow",
        "Runs another workflow and waits for its output.",
        "Logic",
        "branch",
        "wait",
        Call,
        "the child's output",
        ports=("next", "timeout"),
        executable=True,
    ),
    NodeType(
        "logic.stop", "Stop", "Ends the run.", "Logic", "stop", "sql", Stop, "the result", ports=(), executable=True
    ),
    NodeType(
        "logic.wait",
        "Wait",
        "Waits for a time or an event.",
        "Time",
        "hourglass",
        "wait",
        Wait,
        '{ "fired_at" }, or the signal\'s payload',
        ports=("next", "timeout", "gone"),
        ports_of=wait_ports,
        executable=True,
        alone_if=follows_row,
    ),
    NodeType(
        "timer.reminder_call",
        "Reminder call",
        "Waits until the given time before an appointment.",
        "Time",
        "bell",
        "wait",
        ReminderCall,
        '{ "fired_at" }',
        ports=("next", "gone"),
        ports_of=before_ports,
        executable=True,
        alone_if=follows_row,
    ),
    NodeType(
        "timer.precheck_docs",
        "Precheck documents",
        "Waits until the given time before an appointment.",
        "Time",
        "clock",
        "wait",
        PrecheckDocs,
        '{ "fired_at" }',
        ports=("next", "gone"),
        ports_of=before_ports,
        executable=True,
        alone_if=follows_row,
    ),
    NodeType(
        "webhook.appointment_confirmed",
        "Appointment confirmed",
        "Waits for the confirmation of an appointment.",
        "Time",
        "calendar",
        "wait",
        WebhookWait,
        SIGNAL,
        ports=("next", "timeout"),
        executable=True,
    ),
    NodeType(
        "webhook.esign_completed",
        "Signature completed",
        "Waits for a completed signature.",
        "Time",
        "signature",
        "wait",
        WebhookWait,
        SIGNAL,
        ports=("next", "timeout"),
        executable=True,
    ),
    NodeType(
        "log.write", "Log", "Writes a line into the run's log.", "Data", "note", "sql", LogConfig, "{}", executable=True
    ),
    NodeType(
        "log.error",
        "Log an error",
        "Writes an error into the run's log.",
        "Data",
        "alert",
        "sql",
        LogConfig,
        "{}",
        executable=True,
    ),
)
