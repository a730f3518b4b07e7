"""What can go wrong, one class per SQLSTATE of class SW, and what the command line and the web say about it."""

from __future__ import annotations

from typing import ClassVar

import psycopg


class StellwerkError(Exception):
    """Something a caller can understand: one sentence, perhaps detail, and a hint that says how to go on."""

    sqlstate: ClassVar[str | None] = None

    def __init__(self, message: str, detail: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.hint = hint


class UnknownWorkflow(StellwerkError):
    """No workflow, or no published version of it, has this name in this tenant."""

    sqlstate = "SW001"


class InvalidPayload(StellwerkError):
    """The payload is no JSON that can be stored, or does not fit the workflow's input schema."""

    sqlstate = "SW002"


class WrongState(StellwerkError):
    """The thing exists, but not in a state in which this can be done to it."""

    sqlstate = "SW003"


class Forbidden(StellwerkError):
    """The tenant or the role may not do this."""

    sqlstate = "SW004"


class VersionConflict(StellwerkError):
    """Somebody else changed the thing in the meantime."""

    sqlstate = "SW005"


class InvalidDefinition(StellwerkError):
    """A workflow document, a condition, or a table or function that it names cannot be used."""

    sqlstate = "SW006"


class UnknownThing(StellwerkError):
    """No run, watch, table or task of this name or number."""

    sqlstate = "SW007"


class LimitExceeded(StellwerkError):
    """Larger, deeper or more than is allowed."""

    sqlstate = "SW008"


class DatabaseUnavailable(StellwerkError):
    """No connection to the database, or none that is of use."""


class SchemaOutdated(StellwerkError):
    """The database lacks objects that this version of the program calls."""


class MigrationFailed(StellwerkError):
    """A migration or a file of functions could not be applied; the database is as it was before."""


class UsageError(StellwerkError):
    """The program was called wrongly; the command line exits with 2."""


class EffectRefused(StellwerkError):
    """An outbound call to an address that is not allowed."""


BY_SQLSTATE: dict[str, type[StellwerkError]] = {
    error.sqlstate: error
    for error in (
        UnknownWorkflow,
        InvalidPayload,
        WrongState,
        Forbidden,
        VersionConflict,
        InvalidDefinition,
        UnknownThing,
        LimitExceeded,
    )
    if error.sqlstate is not None
}

_MISSING_OBJECT = {"3F000", "42P01", "42883", "42703", "42704"}


def from_database(error: psycopg.Error) -> StellwerkError:
    """The database's error as one of ours; what it does not know stays a plain `StellwerkError`."""
    state = error.sqlstate
    message = _sentence(error.diag.message_primary or str(error) or type(error).__name__)
    detail, hint = error.diag.message_detail, error.diag.message_hint
    if state in BY_SQLSTATE:
        return BY_SQLSTATE[state](message, detail, hint)
    if state is None and isinstance(error, psycopg.OperationalError):
        return DatabaseUnavailable(message, detail, "Is the server still running? `stellwerk doctor` looks.")
    if state == "42501":
        return Forbidden(message, detail, hint or "The role of this connection lacks a privilege.")
    if state in _MISSING_OBJECT and "stellwerk" in message:
        return SchemaOutdated(
            message, detail, "The schema is missing or older than this program: run `stellwerk db migrate`."
        )
    if state in {"22P05", "22P02", "22032", "22030", "22003", "22008"}:
        return InvalidPayload(message, detail, hint)
    if state == "57014":
        return StellwerkError(message, detail, hint or "The statement took longer than its timeout allows; try again.")
    return StellwerkError(message, detail, hint)


def _sentence(text: str) -> str:
    return " ".join(text.split())
