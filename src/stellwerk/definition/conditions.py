"""Structured conditions, `{"op": "gt", "left": "{{ … }}", "right": 10}`, written as the expressions that they mean."""

from __future__ import annotations

from typing import Any

from stellwerk.definition.problems import did_you_mean
from stellwerk.definition.templates import closing, normalise_condition, normalise_text

BINARY = {
    "eq": "=",
    "ne": "<>",
    "gt": ">",
    "gte": ">=",
    "ge": ">=",
    "lt": "<",
    "lte": "<=",
    "le": "<=",
    "like": "like",
    "not_like": "not like",
    "ilike": "ilike",
    "=": "=",
    "==": "=",
    "!=": "<>",
    "<>": "<>",
    ">": ">",
    ">=": ">=",
    "<": "<",
    "<=": "<=",
}
FUNCTIONS = {"contains": "contains", "starts_with": "starts_with", "ends_with": "ends_with"}
UNARY = {
    "is_null": "is null",
    "is_not_null": "is not null",
    "is_true": "is true",
    "is_false": "is false",
    "exists": "is not null",
}
LISTS = {"in": "in", "not_in": "not in"}
OPERATORS = (*BINARY, *FUNCTIONS, *UNARY, *LISTS, "between")


class ConditionError(ValueError):
    """A structured condition that cannot be written as an expression; `path` is the place within the condition."""

    def __init__(self, path: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.hint = hint


def condition_text(condition: Any, path: str = "", depth: int = 0) -> str:
    """The expression for a condition: a text, a boolean, or a structured one. Raises ConditionError."""
    if isinstance(condition, str):
        return normalise_condition(condition)
    if isinstance(condition, bool):
        return "true" if condition else "false"
    if not isinstance(condition, dict):
        raise ConditionError(
            path,
            "A condition is an expression or an object with op, left and right.",
            "For example: steps.check.output.ok",
        )
    if depth > 20:
        raise ConditionError(path, "The condition is nested deeper than 20 levels.", "Write it as one expression.")
    groups = [key for key in ("all", "any", "not") if key in condition]
    if groups:
        key = groups[0]
        if len(condition) > 1:
            raise ConditionError(
                path, f"Beside {key!r} nothing else may stand in a condition.", "Put the other condition into the list."
            )
        if key == "not":
            return f"not ({condition_text(condition['not'], f'{path}.not', depth + 1)})"
        parts = condition[key]
        if not isinstance(parts, list) or not parts:
            raise ConditionError(f"{path}.{key}", f"{key!r} takes a list of at least one condition.")
        texts = [condition_text(part, f"{path}.{key}[{place}]", depth + 1) for place, part in enumerate(parts)]
        return (" and " if key == "all" else " or ").join(f"({text})" for text in texts)
    return comparison_text(condition, path)


def comparison_text(condition: dict[str, Any], path: str) -> str:
    unknown = sorted(set(condition) - {"op", "left", "right"})
    if unknown:
        raise ConditionError(
            f"{path}.{unknown[0]}",
            f"A condition has no {unknown[0]!r}.",
            did_you_mean(unknown[0], ("op", "left", "right", "all", "any", "not")),
        )
    operator = condition.get("op")
    if not isinstance(operator, str) or operator not in OPERATORS:
        name = str(operator)[:40]
        raise ConditionError(
            f"{path}.op", f"There is no operator {name!r}.", did_you_mean(name, OPERATORS, listing="There are")
        )
    if "left" not in condition:
        raise ConditionError(path, "The condition has no left side.", 'Add "left": "{{ … }}".')
    left = operand_text(condition["left"], f"{path}.left")
    if operator in UNARY:
        if condition.get("right") is not None:
            raise ConditionError(f"{path}.right", f"{operator} takes no right side.", "Remove it.")
        return f"{left} {UNARY[operator]}"
    if "right" not in condition:
        raise ConditionError(path, "The condition has no right side.", 'Add "right": ….')
    right = condition["right"]
    if operator in LISTS:
        if isinstance(right, str):
            text = f"contains({operand_text(right, f'{path}.right')}, {left})"
            return text if operator == "in" else f"not {text}"
        if not isinstance(right, list) or not right:
            raise ConditionError(f"{path}.right", f"{operator} takes a list with at least one value.")
        items = ", ".join(operand_text(item, f"{path}.right[{place}]") for place, item in enumerate(right))
        return f"{left} {LISTS[operator]} ({items})"
    if operator == "between":
        if not isinstance(right, list) or len(right) != 2:
            raise ConditionError(f"{path}.right", "between takes a list of two values.")
        low, high = (operand_text(item, f"{path}.right[{place}]") for place, item in enumerate(right))
        return f"{left} between {low} and {high}"
    if operator in FUNCTIONS:
        return f"{FUNCTIONS[operator]}({left}, {operand_text(right, f'{path}.right')})"
    if right is None and operator in ("eq", "=", "==", "ne", "!=", "<>"):
        return f"{left} is {'' if BINARY[operator] == '=' else 'not '}null"
    return f"{left} {BINARY[operator]} {operand_text(right, f'{path}.right')}"


def operand_text(value: Any, path: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        text = normalise_text(value).strip()
        if text.startswith("{{") and closing(text, 2) == len(text) - 2:
            return f"({text[2:-2].strip()})" if not is_plain(text[2:-2]) else text[2:-2].strip()
        if "{{" in text:
            raise ConditionError(
                path,
                "A side of a condition is either one {{ expression }} or a plain value.",
                "Join texts with || inside the braces.",
            )
        return "'" + value.replace("'", "''") + "'"
    raise ConditionError(
        path,
        "A side of a condition must be a text, a number, true, false or null.",
        "Use in with a list, or write an expression.",
    )


def is_plain(text: str) -> bool:
    """Whether an operand is a mere name, which needs no parentheses."""
    return all(part.replace("_", "a").isalnum() for part in text.strip().split("."))
