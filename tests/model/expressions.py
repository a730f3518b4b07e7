"""The part of the expression language that the generated documents use, evaluated in plain Python.

Three values, as in SQL: what is missing is None, None compared or counted with is None, values of different kinds
compare as unknown. Numbers are whole here; a division by nothing is the one error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

TOKEN = re.compile(r"\s*(?:(\d+)|'((?:[^']|'')*)'|([a-z_][a-z0-9_.]*)|(<>|<=|>=|[-+*/%=<>(),]))")
TEMPLATE = re.compile(r"{{(.*?)}}")

Names = Callable[[list[str]], Any]
"""Finds what a path such as ["steps", "a", "output", "n"] stands for; None for what is missing."""


class ExpressionError(Exception):
    """An expression that raises; `code` is the SQLSTATE."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def evaluate(text: str, names: Names) -> Any:
    """The value of an expression."""
    parser = Parser(text, names)
    value = parser.either()
    assert parser.at == len(parser.tokens), f"cannot read {text!r} beyond token {parser.at}"
    return value


def render(value: Any, names: Names) -> Any:
    """A setting with every {{ expression }} computed; a text that is nothing but one keeps the value's kind."""
    if isinstance(value, dict):
        return {key: render(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [render(part, names) for part in value]
    if not isinstance(value, str) or "{{" not in value:
        return value
    whole = TEMPLATE.fullmatch(value.strip())
    if whole:
        return evaluate(whole.group(1), names)
    return TEMPLATE.sub(lambda found: written(evaluate(found.group(1), names)), value)


def written(value: Any) -> str:
    """A value inside a longer text; null is nothing."""
    assert value is None or isinstance(value, (str, int)), f"{value!r} inside a text"
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def dig(value: Any, path: list[str]) -> Any:
    """What stands at a path inside a JSON value."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


class Parser:
    """Reads and computes at once, by precedence: or, and, not, comparison, sum, product."""

    def __init__(self, text: str, names: Names) -> None:
        self.names = names
        self.tokens: list[tuple[str, Any]] = []
        self.at = 0
        place = 0
        text = text.strip()
        while place < len(text):
            found = TOKEN.match(text, place)
            assert found, f"cannot read {text[place:]!r}"
            number, string, word, sign = found.groups()
            if number is not None:
                self.tokens.append(("value", int(number)))
            elif string is not None:
                self.tokens.append(("value", string.replace("''", "'")))
            else:
                self.tokens.append(("word", word) if word else ("sign", sign))
            place = found.end()

    def takes(self, *words: str) -> str | None:
        """The next token, if it is one of these."""
        if self.at < len(self.tokens):
            kind, value = self.tokens[self.at]
            if kind != "value" and value in words:
                self.at += 1
                return str(value)
        return None

    def either(self) -> Any:
        value = self.both()
        while self.takes("or"):
            other = self.both()
            value = True if value is True or other is True else None if value is None or other is None else False
        return value

    def both(self) -> Any:
        value = self.negation()
        while self.takes("and"):
            other = self.negation()
            value = False if value is False or other is False else None if value is None or other is None else True
        return value

    def negation(self) -> Any:
        if self.takes("not"):
            value = self.negation()
            return None if value is None else not value
        return self.comparison()

    def comparison(self) -> Any:
        left = self.sum()
        if self.takes("is"):
            negated = self.takes("not")
            assert self.takes("null")
            return (left is not None) if negated else left is None
        sign = self.takes("=", "<>", "<", "<=", ">", ">=")
        if sign is None:
            return left
        right = self.sum()
        if left is None or right is None or type(left) is not type(right):
            return None
        return {
            "=": lambda: left == right,
            "<>": lambda: left != right,
            "<": lambda: left < right,
            "<=": lambda: left <= right,
            ">": lambda: left > right,
            ">=": lambda: left >= right,
        }[sign]()

    def sum(self) -> Any:
        value = self.product()
        while sign := self.takes("+", "-"):
            other = self.product()
            value = counted(sign, value, other)
        return value

    def product(self) -> Any:
        value = self.single()
        while sign := self.takes("*", "/", "%"):
            other = self.single()
            value = counted(sign, value, other)
        return value

    def single(self) -> Any:
        if self.takes("("):
            value = self.either()
            assert self.takes(")")
            return value
        kind, value = self.tokens[self.at]
        self.at += 1
        if kind == "value":
            return value
        if value in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[value]
        if value == "coalesce":
            assert self.takes("(")
            values = [self.either()]
            while self.takes(","):
                values.append(self.either())
            assert self.takes(")")
            return next((one for one in values if one is not None), None)
        assert kind == "word", f"{value!r} is no value"
        return self.names(value.split("."))


def counted(sign: str, left: Any, right: Any) -> Any:
    if left is None or right is None:
        return None
    assert type(left) is type(right) is int, f"{left!r} {sign} {right!r}"
    if sign in "/%":
        if right == 0:
            raise ExpressionError("22012")
        assert left % right == 0 or sign == "%", "halves are not compared"
        return left // right if sign == "/" else left - right * int(left / right)
    return {"+": left + right, "-": left - right, "*": left * right}[sign]
