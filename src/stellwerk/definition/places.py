"""The dynamic places of a node's settings: which texts hold expressions, what they read, and what the plan says
about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from stellwerk.definition.conditions import ConditionError, condition_text
from stellwerk.definition.expressions import Expression, compile_expression
from stellwerk.definition.jsonpath import jsonpath_of
from stellwerk.definition.names import Reference
from stellwerk.definition.node_types import NodeType
from stellwerk.definition.problems import Problems
from stellwerk.definition.templates import normalise_text, read_template


@dataclass(frozen=True, slots=True)
class Found:
    """A place of the context that is read, with where in the document it is named."""

    reference: Reference
    place: str
    offset: int

    def position(self, part: int) -> int | None:
        at = self.reference.positions[part] if part < len(self.reference.positions) else None
        return None if at is None else at + self.offset


@dataclass
class Places:
    """Collects over one node's settings."""

    node: str | None
    problems: Problems
    found: list[Found] = field(default_factory=list)
    dynamic: list[dict[str, Any]] = field(default_factory=list)
    may_raise: bool = False

    def expression(self, text: str, place: str) -> Expression:
        """A condition or other expression without braces."""
        expression = compile_expression(text)
        for fault in expression.faults:
            self.problems.add(
                place, fault.code, fault.message, node=self.node, position=fault.position, hint=fault.hint
            )
        self.note(expression, place, 0)
        return expression

    def condition(self, text: str, place: str) -> dict[str, Any]:
        """A condition as the plan holds it."""
        tree = self.expression(text, place).tree
        return {"tree": tree, "jsonpath": jsonpath_of(tree)}

    def note(self, expression: Expression, place: str, offset: int) -> None:
        self.may_raise = self.may_raise or expression.may_raise
        self.found += [Found(reference, place, offset) for reference in expression.references]

    def template(self, text: str, place: str, at: list[str]) -> bool:
        """Notes a text's expressions; whether it has any."""
        template = read_template(text)
        for fault in template.faults:
            self.problems.add(
                place, fault.code, fault.message, node=self.node, position=fault.position, hint=fault.hint
            )
        for expression, offset in zip(template.expressions, template.offsets, strict=True):
            self.note(expression, place, offset)
        if not template.is_dynamic:
            return False
        whole = template.whole
        if whole is None:
            self.dynamic.append({"at": at, "text": template.trees()})
        elif whole.tree[0] == "path":
            self.dynamic.append({"at": at, "path": whole.tree[1:]})
        else:
            self.dynamic.append({"at": at, "expr": whole.tree})
        return True

    def walk(self, value: Any, place: str, at: list[str], literal: bool = False) -> Any:
        """A copy of a setting with null at its dynamic places."""
        if isinstance(value, str):
            if "{{" not in value:
                return value
            if literal:
                self.refuse_expression(place)
                return None
            return None if self.template(value, place, at) else value
        if isinstance(value, list):
            return [
                self.walk(item, f"{place}[{number}]", [*at, str(number)], literal) for number, item in enumerate(value)
            ]
        if isinstance(value, dict):
            for key in value:
                if "{{" in key:
                    self.refuse_expression(f"{place}.{key}")
            return {key: self.walk(item, f"{place}.{key}", [*at, key], literal) for key, item in value.items()}
        return value

    def refuse_expression(self, place: str) -> None:
        self.problems.add(
            place,
            "literal_only",
            "No expression may stand here; the value must be known when the workflow is saved.",
            node=self.node,
            position=0,
            hint="Write the value itself; a logic.switch in front can choose between several nodes.",
        )


def normalise_config(config: dict[str, Any], kind: NodeType, place: str, node: str | None, problems: Problems) -> None:
    """Puts the accepted spellings of conditions and places into their normal form, in the document itself."""
    conditions, literals = kind.fields("condition"), kind.fields("literal")
    for key, value in list(config.items()):
        if key in conditions:
            config[key] = normal_condition(value, f"{place}.{key}", node, problems)
        elif key == "cases" and kind.type == "logic.switch" and isinstance(value, list):
            for number, case in enumerate(value):
                if isinstance(case, dict) and "when" in case:
                    case["when"] = normal_condition(case["when"], f"{place}.cases[{number}].when", node, problems)
        elif key not in literals:
            config[key] = normal_value(value)


def normal_condition(value: Any, place: str, node: str | None, problems: Problems) -> Any:
    if value is None:
        return None
    try:
        return condition_text(value)
    except ConditionError as error:
        problems.add(place + error.path, "bad_condition", error.message, node=node, hint=error.hint)
        return "true"


def normal_value(value: Any) -> Any:
    if isinstance(value, str):
        return normalise_text(value)
    if isinstance(value, list):
        return [normal_value(item) for item in value]
    if isinstance(value, dict):
        return {key: normal_value(item) for key, item in value.items()}
    return value


def plain_settings(model: BaseModel | None, config: dict[str, Any]) -> dict[str, Any]:
    """A node's settings with defaults, under the names that documents use."""
    return config if model is None else {**model.model_dump(by_alias=True, mode="python", warnings=False), **config}


def reads_of(found: list[Found]) -> dict[str, Any]:
    """What the engine must put into the context for these references; parts that nobody reads are left out."""
    trigger: dict[str, None] = {}
    steps: dict[str, None] = {}
    reads: dict[str, Any] = {}
    for item in found:
        root, *rest = item.reference.path
        if root == "trigger":
            trigger[rest[0]] = None
        elif root == "steps":
            steps[rest[0]] = None
        else:
            reads["item" if root == "index" else root] = True
    return {**({"trigger": list(trigger)} if trigger else {}), **({"steps": list(steps)} if steps else {}), **reads}
