"""The node types that touch rows, registered functions, cases and notifications."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stellwerk.definition.node_types import Name, NodeConfig, NodeType, Values, condition, literal, textarea

Table = Annotated[Name, Field(**literal("Table", "Name under which the table is registered."))]
Where = Annotated[
    Values, Field(title="Where", description="Columns and the values they must have; null means is null.")
]


class RecordCreate(NodeConfig):
    table: Table
    values: Annotated[Values, Field(title="Values", description="Columns and their values.")] = Field(
        default_factory=dict
    )


class RecordUpdate(NodeConfig):
    table: Table
    where: Annotated[
        Values,
        Field(min_length=1, title="Where", description="Columns and the values they must have; null means is null."),
    ]
    values: Annotated[Values, Field(min_length=1, title="Values", description="Columns and their new values.")]


class RecordDelete(NodeConfig):
    table: Table
    where: Annotated[
        Values,
        Field(min_length=1, title="Where", description="Columns and the values they must have; null means is null."),
    ]


class RecordQuery(NodeConfig):
    table: Table
    where: Where = Field(default_factory=dict)
    columns: Annotated[
        list[Name] | None, Field(min_length=1, **literal("Columns", "Which columns to read; all if left out."))
    ] = None
    order_by: Annotated[
        str | list[Name] | None, Field(**literal("Order by", "column, or column desc; several with commas."))
    ] = None
    limit: Annotated[int, Field(ge=1, le=10000, title="Limit", description="At most so many rows.")] = 100


class SqlFunction(NodeConfig):
    function: Annotated[Name, Field(**literal("Function", "Name under which the function is registered."))]
    input: Annotated[Any, Field(title="Input", description="Its first argument.")] = Field(default_factory=dict)


class CaseAppointment(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, coerce_numbers_to_str=True)

    starts_at: str | None
    """A time; null cancels the appointment."""
    ends_at: str | None = None
    title: str | None = None
    location: str | None = None
    key: str | None = None


class BackofficePush(NodeConfig):
    field_map: Annotated[Values, Field(title="Fields", description="The case's fields and their values.")] = Field(
        default_factory=dict
    )
    status: Annotated[str | None, Field(title="Status", description="The case's status.")] = None
    summary: Annotated[str | None, Field(title="Summary", description="One line that lists show.")] = None
    appointment: Annotated[
        CaseAppointment | None,
        Field(title="Appointment", description="An appointment of the case; a later step with the same key moves it."),
    ] = None
    drop_folder: Annotated[
        str | None, Field(title="Drop folder", description="A folder into which the case is written as CSV.")
    ] = None


class BackofficeStatusUpdate(NodeConfig):
    status: Annotated[str | None, Field(title="Status", description="The new status.")] = None
    complete_when: Annotated[
        str | None, Field(**condition("Complete when", "Or a condition that decides between the two below."))
    ] = None
    status_complete: Annotated[
        str | None, Field(title="Status if complete", description="Where the condition is true.")
    ] = None
    status_missing: Annotated[str | None, Field(title="Status if missing", description="Where it is not.")] = None
    note: Annotated[str | None, Field(**textarea("Note", "What is missing, for the clerk."))] = None
    drop_folder: Annotated[
        str | None, Field(title="Drop folder", description="A folder into which the case is written as CSV.")
    ] = None

    @model_validator(mode="after")
    def check_together(self) -> BackofficeStatusUpdate:
        decided = (self.complete_when, self.status_complete, self.status_missing)
        if self.status is not None and any(part is not None for part in decided):
            raise ValueError("give either status, or complete_when with status_complete and status_missing")
        if self.status is None and any(part is None for part in decided):
            raise ValueError("status is missing, or else complete_when with status_complete and status_missing")
        return self


class NotificationCreate(NodeConfig):
    recipient: Annotated[str, Field(min_length=1, title="Recipient", description="A user, or a role.")]
    title: Annotated[str, Field(min_length=1, title="Title", description="One line.")]
    body: Annotated[str | None, Field(**textarea("Text", "May hold {{ expressions }}."))] = None
    link: Annotated[str | None, Field(title="Link", description="Where a click leads.")] = None
    mail: Annotated[bool, Field(title="By mail too", description="To users who want mails.")] = False


DATA = (
    NodeType(
        "record.create",
        "Create record",
        "Inserts a row into a registered table.",
        "Data",
        "plus",
        "sql",
        RecordCreate,
        "the row",
        executable=True,
        may_raise=True,
        alone=True,
    ),
    NodeType(
        "record.update",
        "Update records",
        "Changes rows of a registered table.",
        "Data",
        "edit",
        "sql",
        RecordUpdate,
        '{ "count", "rows" }',
        executable=True,
        may_raise=True,
        alone=True,
    ),
    NodeType(
        "record.delete",
        "Delete records",
        "Deletes rows of a registered table.",
        "Data",
        "trash",
        "sql",
        RecordDelete,
        '{ "count", "rows" }',
        executable=True,
        may_raise=True,
        alone=True,
    ),
    NodeType(
        "record.query",
        "Query records",
        "Reads rows of a registered table.",
        "Data",
        "search",
        "sql",
        RecordQuery,
        '{ "rows", "count" }',
        executable=True,
        may_raise=True,
        alone=True,
    ),
    NodeType(
        "sql.function",
        "SQL function",
        "Calls a registered function (input jsonb, context jsonb) returning jsonb.",
        "Data",
        "function",
        "sql",
        SqlFunction,
        "what it returns",
        executable=True,
        may_raise=True,
        alone=True,
    ),
    NodeType(
        "action.backoffice_push",
        "Push case",
        "Creates or updates the run's case.",
        "Backoffice",
        "inbox",
        "sql",
        BackofficePush,
        '{ "case_id", "created" }, with an appointment "appointment_id"',
        executable=True,
    ),
    NodeType(
        "action.backoffice_status_update",
        "Case status",
        "Sets status and note of the run's case.",
        "Backoffice",
        "flag",
        "sql",
        BackofficeStatusUpdate,
        '{ "case_id", "status" }',
        executable=True,
    ),
    NodeType(
        "notification.create",
        "Notification",
        "Shows a notification in the app.",
        "Messages",
        "bell",
        "sql",
        NotificationCreate,
        '{ "notification_id" }',
        executable=True,
    ),
)
