"""The node types that start a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stellwerk.definition.node_types import Duration, Name, NoConfig, NodeConfig, NodeType, condition, literal

Operation = Literal["insert", "update", "delete"]


def default_operations() -> list[Operation]:
    return ["insert"]


class FormSubmit(NodeConfig):
    form: Annotated[
        Name | None, Field(**literal("Form", "Name of the form; without it, any form of this workflow."))
    ] = None


class Row(NodeConfig):
    table: Annotated[
        Name | None,
        Field(**literal("Table", "Table to watch, such as public.orders; without it, watch_table names it.")),
    ] = None
    on: Annotated[list[Operation], Field(min_length=1, **literal("On", "Which changes start a run."))] = Field(
        default_factory=default_operations
    )
    columns: Annotated[
        list[Name] | None, Field(min_length=1, **literal("Columns", "Only updates that name one of these columns."))
    ] = None
    when: Annotated[
        str | None,
        Field(**condition("When", "Condition over new.column and old.column, checked by the table's trigger.")),
    ] = None
    bulk: Annotated[
        bool, Field(**literal("Bulk", "For tables that are loaded in bulk: one trigger call per statement."))
    ] = False

    @model_validator(mode="after")
    def check_together(self) -> Row:
        if self.table is None and (self.columns is not None or self.when is not None or self.bulk):
            raise ValueError("columns, when and bulk need a table")
        if self.columns is not None and "update" not in self.on:
            raise ValueError("columns only make sense with update in on")
        return self


class Webhook(NodeConfig):
    source: Annotated[Name, Field(**literal("Source", "Name of the webhook source, the last part of its address."))]
    event: Annotated[
        Name | None,
        Field(**literal("Event", "Only deliveries of this event; without it, every delivery of the source.")),
    ] = None


class Schedule(NodeConfig):
    cron: Annotated[Name | None, Field(**literal("Cron", "Five fields: minute hour day month weekday."))] = None
    every: Annotated[Duration | None, Field(**literal("Every", "Or a duration, such as PT15M."))] = None
    time_zone: Annotated[
        Name | None, Field(**literal("Time zone", "In which the fields are read; by default the tenant's."))
    ] = None
    catch_up: Annotated[
        Literal["none", "last", "all"],
        Field(**literal("Catch up", "Which of the times that were missed start a run afterwards.")),
    ] = "last"

    @model_validator(mode="after")
    def check_together(self) -> Schedule:
        if (self.cron is None) == (self.every is None):
            raise ValueError("give either cron or every")
        return self


class Event(NodeConfig):
    event: Annotated[
        Name, Field(**literal("Event", "Name of the event, as emit_event says it, such as document.completed."))
    ]


class EmailInbound(NodeConfig):
    address: Annotated[
        Name | None,
        Field(**literal("Address", "Only messages to this address; without it, every message that arrives.")),
    ] = None


class Workflow(NodeConfig):
    workflow: Annotated[Name | None, Field(**literal("Workflow", "Only runs that are called by this workflow."))] = None


PAYLOAD = "the payload"

TRIGGERS = (
    NodeType(
        "trigger.manual",
        "Manual start",
        "Starts when a person or program calls start_run.",
        "Triggers",
        "play",
        "trigger",
        NoConfig,
        PAYLOAD,
        executable=True,
    ),
    NodeType(
        "trigger.form_submit",
        "Form",
        "Starts when a form is submitted.",
        "Triggers",
        "form",
        "trigger",
        FormSubmit,
        PAYLOAD,
        executable=True,
    ),
    NodeType(
        "trigger.row",
        "Row change",
        "Starts when a row of a table is inserted, updated or deleted.",
        "Triggers",
        "table",
        "trigger",
        Row,
        "the row",
        executable=True,
    ),
    NodeType(
        "trigger.webhook",
        "Webhook",
        "Starts when a signed webhook arrives.",
        "Triggers",
        "webhook",
        "trigger",
        Webhook,
        PAYLOAD,
        executable=True,
    ),
    NodeType(
        "trigger.schedule",
        "Schedule",
        "Starts at set times.",
        "Triggers",
        "clock",
        "trigger",
        Schedule,
        '{ "scheduled_at", "schedule" }',
        executable=True,
    ),
    NodeType(
        "trigger.event",
        "Event",
        "Starts when the application emits a named event.",
        "Triggers",
        "bolt",
        "trigger",
        Event,
        PAYLOAD,
        executable=True,
    ),
    NodeType(
        "trigger.email_inbound",
        "Email",
        "Starts when an email arrives.",
        "Triggers",
        "mail",
        "trigger",
        EmailInbound,
        PAYLOAD,
        executable=True,
    ),
    NodeType(
        "trigger.workflow",
        "Called by a workflow",
        "Starts when another workflow calls this one.",
        "Triggers",
        "branch",
        "trigger",
        Workflow,
        PAYLOAD,
    ),
)
