"""What a node type is: one description that the compiler, the builder's palette and forms, and the docs are drawn
from."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)

from stellwerk.definition.literals import DURATION

RunsIn = Literal["trigger", "sql", "worker", "wait"]
Group = Literal[
    "Triggers", "Logic", "Time", "People", "Data", "Backoffice", "Messages", "Documents", "Services", "Client"
]


class NodeConfig(BaseModel):
    """Base of every node type's settings.

    While a document is compiled (validation context `templates`), a text with `{{ … }}` is taken at any place,
    because its value is only known in a run; fields marked `literal` take plain values alone, fields marked
    `condition` an expression without braces.
    """

    model_config = ConfigDict(extra="forbid", strict=True, coerce_numbers_to_str=True)

    @field_validator("*", mode="wrap")
    @classmethod
    def keep_templates(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if isinstance(value, str) and "{{" in value and (info.context or {}).get("templates"):
            return value
        return handler(value)


def check_duration(text: str) -> str:
    if not DURATION.match(text) or "-" in text:
        raise ValueError("must be a duration such as PT30S, PT3H or P1D")
    return text


Duration = Annotated[str, AfterValidator(check_duration), WithJsonSchema({"type": "string", "duration": True})]


def literal(title: str, description: str, **more: Any) -> dict[str, Any]:
    """Keywords of a Field whose value must be written out: no expressions."""
    return {"title": title, "description": description, "json_schema_extra": {"literal": True, **more}}


def condition(title: str, description: str) -> dict[str, Any]:
    """Keywords of a Field that holds a condition: an expression without braces."""
    return {"title": title, "description": description, "json_schema_extra": {"condition": True, "widget": "condition"}}


def textarea(title: str, description: str) -> dict[str, Any]:
    return {"title": title, "description": description, "json_schema_extra": {"widget": "textarea"}}


class NoConfig(NodeConfig):
    """Settings of a node type that has none."""


@dataclass(frozen=True, slots=True)
class NodeType:
    """One node type."""

    type: str
    title: str
    description: str
    group: Group
    icon: str
    runs_in: RunsIn
    config: builtins.type[BaseModel]
    output: str
    """The shape of the output, as people write it."""
    ports: tuple[str, ...] = ("next",)
    ports_of: Callable[[dict[str, Any]], tuple[str, ...]] | None = None
    """The ports where they depend on the settings; `ports` then only says so."""
    executable: bool = False
    """False: known and described, but its execution comes with a later release."""
    may_raise: bool = False
    alone: bool = False
    """True: touches tables or functions of the application."""
    alone_if: Callable[[dict[str, Any]], bool] | None = None
    """Whether it does, where that depends on the settings."""

    def ports_for(self, config: dict[str, Any]) -> tuple[str, ...]:
        """The ports that a node with these settings can leave by, without `error`."""
        return self.ports_of(config) if self.ports_of else self.ports

    def alone_for(self, config: dict[str, Any]) -> bool:
        """Whether a node with these settings touches tables or functions of the application."""
        return self.alone_if(config) if self.alone_if else self.alone

    def fields(self, mark: str) -> frozenset[str]:
        """The names (as in documents) of the fields marked `literal` or `condition`."""
        return frozenset(
            field.alias or name
            for name, field in self.config.model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get(mark)
        )

    @property
    def max_attempts(self) -> int:
        return 3 if self.runs_in == "worker" else 1

    @property
    def timeout(self) -> str | None:
        """Of one attempt. SQL nodes run under the statement_timeout of the session that advances them."""
        return "PT30S" if self.runs_in == "worker" else None

    def form(self) -> dict[str, Any]:
        """The settings as JSON Schema, for the builder."""
        return self.config.model_json_schema(by_alias=True)


SLUG = re.compile(r"[a-z][a-z0-9-]{0,62}\Z")
NODE_ID = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
Values = dict[str, Any]
Name = Annotated[str, Field(min_length=1, max_length=200)]
