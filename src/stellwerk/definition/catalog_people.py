"""The node types that wait for a person: tasks in the backoffice, and steps that a client app shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stellwerk.definition.node_types import Duration, Name, NodeConfig, NodeType, Values, literal, textarea

Outcome = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Escalation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    after: Duration
    do: Literal["remind", "reassign", "outcome"]
    to: str | None = None
    outcome: str | None = None


class Shown(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    label: Annotated[str, Field(min_length=1, max_length=200)]
    value: Any = None


class UserTask(NodeConfig):
    title: Annotated[str, Field(min_length=1, title="Title", description="One line that lists show.")]
    instructions: Annotated[str | None, Field(**textarea("Instructions", "What the person should do."))] = None
    assignee: Annotated[str | None, Field(title="Assignee", description="The user who does it.")] = None
    role: Annotated[str | None, Field(title="Role", description="Or the role whose members may.")] = None
    form: Annotated[Values | None, Field(**literal("Form", "JSON Schema of the result.", schema=True))] = None
    prefill: Annotated[Any, Field(title="Prefill", description="Values that the form begins with.")] = None
    show: Annotated[
        list[Shown], Field(title="Shown", description="What the person sees beside the form: labels and values.")
    ] = Field(default_factory=list)
    outcomes: Annotated[
        list[Outcome] | None, Field(min_length=1, **literal("Outcomes", "Ways to end it; each is a port."))
    ] = None
    due: Annotated[
        Duration | None,
        Field(
            title="Due",
            description="How long it may take. Then it leaves by timeout, where an edge leads on; else it is overdue.",
        ),
    ] = None
    escalate: Annotated[
        list[Escalation], Field(title="Escalation", description="What happens meanwhile, and when.")
    ] = Field(default_factory=list)
    approvals: Annotated[
        int, Field(ge=1, le=20, title="Approvals", description="How many must choose the first outcome.")
    ] = 1
    allow_self: Annotated[bool, Field(title="Allow self", description="Whether who started the run may do it.")] = True

    @model_validator(mode="after")
    def check_together(self) -> UserTask:
        if (self.assignee is None) == (self.role is None):
            raise ValueError("give either assignee or role")
        if isinstance(self.approvals, int) and self.approvals > 1 and self.role is None:
            raise ValueError("several approvals take a role: one assignee cannot give them")
        if {"next", "timeout", "error"} & set(self.outcomes or ()):
            raise ValueError("next, timeout and error are ports already and cannot be outcomes")
        if len(set(self.outcomes or ())) < len(self.outcomes or ()):
            raise ValueError("an outcome is named twice")
        for escalation in self.escalate:
            if (escalation.do == "reassign") != (escalation.to is not None):
                raise ValueError("an escalation reassigns with to, and only then")
            if escalation.do == "outcome" and escalation.outcome not in (self.outcomes or []):
                raise ValueError("an escalation's outcome must be one of outcomes")
        return self


class ClientStep(NodeConfig):
    title: Annotated[Name, Field(title="Title", description="What the client app shows.")]
    timeout: Annotated[Duration | None, Field(title="Timeout", description="How long to wait for the client.")] = None


class ClientForm(ClientStep):
    form: Annotated[Values, Field(**literal("Form", "JSON Schema of the input.", schema=True))]
    prefill: Annotated[Any, Field(title="Prefill", description="Values that the form begins with.")] = None


class ClientConfirmation(ClientStep):
    text: Annotated[str, Field(**textarea("Text", "What is to be confirmed."))]


class ClientDisplay(ClientStep):
    content: Annotated[Any, Field(title="Content", description="What is shown.")]


class ClientValidation(ClientStep):
    rules: Annotated[Values, Field(**literal("Rules", "JSON Schema that the input must fit.", schema=True))]


class ClientApiCall(ClientStep):
    request: Annotated[Any, Field(title="Request", description="What the client app calls on its own.")]


def task_ports(config: dict[str, Any]) -> tuple[str, ...]:
    outcomes = config.get("outcomes")
    names = tuple(name for name in outcomes if isinstance(name, str)) if isinstance(outcomes, list) else ()
    return ("next", *names, "timeout")


INPUT = "the client's input"
WAITS = ("next", "timeout")

PEOPLE = (
    NodeType(
        "task.user",
        "Task",
        "A person fills in a form or decides.",
        "People",
        "person",
        "wait",
        UserTask,
        '{ "outcome", "result", "completed_by" }',
        ports=("next", "one per outcome", "timeout"),
        ports_of=task_ports,
        executable=True,
        may_raise=True,
    ),
    NodeType(
        "client.form",
        "Client form",
        "The client app shows a form.",
        "Client",
        "form",
        "wait",
        ClientForm,
        INPUT,
        ports=WAITS,
    ),
    NodeType(
        "client.confirmation",
        "Client confirmation",
        "The client app asks for a confirmation.",
        "Client",
        "check",
        "wait",
        ClientConfirmation,
        INPUT,
        ports=WAITS,
    ),
    NodeType(
        "client.display",
        "Client display",
        "The client app shows something.",
        "Client",
        "eye",
        "wait",
        ClientDisplay,
        INPUT,
        ports=WAITS,
    ),
    NodeType(
        "client.validation",
        "Client validation",
        "The client app checks an input.",
        "Client",
        "shield",
        "wait",
        ClientValidation,
        INPUT,
        ports=WAITS,
    ),
    NodeType(
        "client.api_call",
        "Client API call",
        "The client app calls an API on its own.",
        "Client",
        "globe",
        "wait",
        ClientApiCall,
        INPUT,
        ports=WAITS,
    ),
)
