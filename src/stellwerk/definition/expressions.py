"""SQL expressions over a run's context, compiled to the tree that `stellwerk.evaluate` reads.

sqlglot parses; this module admits what is on its lists and nothing else. Whatever it does not know, an argument of
a known node included, is refused: sqlglot marks `not like` by a flag, and a compiler that overlooks a flag turns a
condition round.
"""

from __future__ import annotations

import functools
import re
import zoneinfo
from dataclasses import dataclass

from sqlglot import exp

from stellwerk.definition.functions import CASTS, EXTRACT_FIELDS, FUNCTIONS, TRUNC_UNITS
from stellwerk.definition.grammar import ARGUMENTS, ARITHMETIC, COMPARISONS, HINTS, WORDS
from stellwerk.definition.literals import iso_duration, pattern_fault, read_number
from stellwerk.definition.names import Names, Reference, Tree
from stellwerk.definition.parsing import Fault, parse_expression, position_of
from stellwerk.definition.problems import did_you_mean

MAX_TREE_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression. With faults, the tree is not to be used."""

    text: str
    tree: Tree
    references: tuple[Reference, ...] = ()
    may_raise: bool = False
    faults: tuple[Fault, ...] = ()


@functools.lru_cache(maxsize=2048)
def compile_expression(text: str) -> Expression:
    """The tree of an expression, what it reads, whether it may raise, and every fault that was found."""
    parsed = parse_expression(text)
    if isinstance(parsed, Fault):
        return Expression(text, ["value", None], faults=(parsed,))
    builder = TreeBuilder()
    try:
        tree = builder.build(parsed)
    except RecursionError:
        tree = []
    if not tree or depth_of(tree) > MAX_TREE_DEPTH:
        fault = Fault(
            "expression_too_complex", "The expression is nested too deeply.", hint="Split it over several nodes."
        )
        return Expression(text, ["value", None], faults=(fault,))
    return Expression(text, tree, tuple(builder.references), builder.may_raise, tuple(builder.faults))


@dataclass
class TreeBuilder(Names):
    """Walks sqlglot's tree once; faults are collected and stand as null in the result."""

    may_raise: bool = False

    def build(self, node: exp.Expression) -> Tree:
        kind = type(node)
        if kind not in ARGUMENTS:
            return self.refuse_kind(node)
        unknown = {name for name, value in node.args.items() if value not in (None, False, [])} - ARGUMENTS[kind]
        if unknown:
            return self.refuse_argument(node, unknown)
        if kind in COMPARISONS:
            return self.comparison(node)
        if kind in ARITHMETIC:
            return self.arithmetic(node)
        return getattr(self, f"build_{kind.__name__.lower()}")(node)  # type: ignore[no-any-return]

    def refuse_kind(self, node: exp.Expression) -> Tree:
        kind = type(node)
        hint = HINTS.get(kind, "docs/expressions.md shows what may be written.")
        if kind not in WORDS:
            return self.refuse(node, "not_allowed", f"{kind.__name__} is not allowed in an expression.", hint)
        what = WORDS[kind]
        verb = "are" if what in ("two texts side by side", "braces") else "is"
        return self.refuse(
            node, "not_allowed", f"{what[0].upper()}{what[1:]} {verb} not allowed in an expression.", hint
        )

    def refuse_argument(self, node: exp.Expression, unknown: set[str]) -> Tree:
        name = type(node).__name__.upper()
        if "query" in unknown:
            return self.refuse(node, "not_allowed", "A subquery is not allowed in an expression.", HINTS[exp.Subquery])
        if "field" in unknown:
            return self.refuse(
                node,
                "not_allowed",
                "What follows IN must be a list in parentheses.",
                "Write x in (1, 2), or x = any(list) for a list of the context.",
            )
        return self.refuse(node, "not_allowed", f"{', '.join(sorted(unknown)).upper()} is not allowed with {name}.")

    # Logic

    def comparison(self, node: exp.Expression) -> Tree:
        for side in (node.this, node.expression):
            if type(side) in COMPARISONS:
                return self.refuse(
                    node, "not_allowed", "Comparisons cannot be chained.", "Write a < b and b < c, or use parentheses."
                )
        if isinstance(node.expression, exp.Any):
            if not isinstance(node, exp.EQ):
                return self.refuse(node, "not_allowed", "any() is only allowed after =.")
            return ["call", "contains", self.build(node.expression.this), self.build(node.this)]
        return [COMPARISONS[type(node)], self.build(node.this), self.build(node.expression)]

    def build_any(self, node: exp.Any) -> Tree:
        return self.refuse(node, "not_allowed", "any() is only allowed after =.", "Write x = any(list).")

    def build_and(self, node: exp.And) -> Tree:
        return self.chain("and", exp.And, node)

    def build_or(self, node: exp.Or) -> Tree:
        return self.chain("or", exp.Or, node)

    def chain(self, name: str, kind: type[exp.Expression], node: exp.Expression) -> Tree:
        """a and b and c as one list instead of a staircase."""
        parts: list[exp.Expression] = []
        current = node
        while type(current) is kind:
            parts.append(current.expression)
            current = current.this
        return [name, *(self.build(part) for part in (current, *reversed(parts)))]

    def build_not(self, node: exp.Not) -> Tree:
        return ["not", self.build(node.this)]

    def build_paren(self, node: exp.Paren) -> Tree:
        return self.build(node.this)

    def build_is(self, node: exp.Is) -> Tree:
        right = node.expression
        if isinstance(right, exp.Null):
            tree: Tree = ["is_null", self.build(node.this)]
        elif isinstance(right, exp.Boolean):
            tree = ["is_true" if right.this else "is_false", self.build(node.this)]
        else:
            return self.refuse(
                node, "not_allowed", "After IS only null, true, false and distinct from are allowed.", "Compare with =."
            )
        return ["not", tree] if node.args.get("negate") else tree

    def build_nullsafeeq(self, node: exp.NullSafeEQ) -> Tree:
        return ["same", self.build(node.this), self.build(node.expression)]

    def build_nullsafeneq(self, node: exp.NullSafeNEQ) -> Tree:
        return ["not", ["same", self.build(node.this), self.build(node.expression)]]

    def build_in(self, node: exp.In) -> Tree:
        return ["in", self.build(node.this), *(self.build(item) for item in node.expressions)]

    def build_between(self, node: exp.Between) -> Tree:
        return ["between", self.build(node.this), self.build(node.args["low"]), self.build(node.args["high"])]

    def build_like(self, node: exp.Like) -> Tree:
        return self.like("like", node)

    def build_ilike(self, node: exp.ILike) -> Tree:
        return self.like("ilike", node)

    def like(self, name: str, node: exp.Expression) -> Tree:
        pattern = node.expression
        if not (isinstance(pattern, exp.Literal) and pattern.is_string):
            return self.refuse(
                node,
                "not_allowed",
                f"What follows {name.upper()} must be a literal pattern.",
                "Use contains(), starts_with() or ends_with().",
            )
        if fault := pattern_fault(pattern.this):
            return self.refuse(pattern, "bad_pattern", fault, "Write two backslashes for one.")
        tree: Tree = [name, self.build(node.this), pattern.this]
        return ["not", tree] if node.args.get("negate") else tree

    # Values

    def build_literal(self, node: exp.Literal) -> Tree:
        if node.is_string:
            return ["value", node.this]
        number = read_number(node.this)
        if number is None:
            return self.refuse(
                node,
                "bad_number",
                f"The number {node.this[:50]} cannot be used.",
                "Up to 15 digits, and no exponent above 100.",
            )
        return ["value", number]

    def build_boolean(self, node: exp.Boolean) -> Tree:
        return ["value", bool(node.this)]

    def build_null(self, node: exp.Null) -> Tree:
        return ["value", None]

    def build_neg(self, node: exp.Neg) -> Tree:
        inner = self.build(node.this)
        if inner[0] == "value" and isinstance(inner[1], (int, float)) and not isinstance(inner[1], bool):
            return ["value", -inner[1]]
        return ["neg", inner]

    def build_dpipe(self, node: exp.DPipe) -> Tree:
        return self.chain("concat", exp.DPipe, node)

    def arithmetic(self, node: exp.Expression) -> Tree:
        name, left, right = ARITHMETIC[type(node)], self.build(node.this), self.build(node.expression)
        if name in ("div", "mod"):  # dividing by a number that is not zero cannot raise
            self.may_raise = self.may_raise or not (right[0] == "value" and right[1])
        return [name, left, right]

    def build_interval(self, node: exp.Interval) -> Tree:
        unit = node.args.get("unit")
        text = f"{node.this.this} {unit.this}" if unit is not None and isinstance(node.this, exp.Literal) else node.this
        if isinstance(text, exp.Expression):
            text = text.this if isinstance(text, exp.Literal) and text.is_string else ""
        duration = iso_duration(str(text))
        if duration is None:
            return self.refuse(
                node,
                "bad_interval",
                f"The interval {str(text)[:50]!r} cannot be read.",
                "Write interval '3 hours' or interval 'P1DT3H'.",
            )
        return ["value", duration]

    def build_cast(self, node: exp.Cast) -> Tree:
        to = node.args["to"]
        name = to.this.name if isinstance(to, exp.DataType) and hasattr(to.this, "name") else str(to)
        if not isinstance(to, exp.DataType) or name not in CASTS or to.expressions:
            return self.refuse(
                node,
                "not_allowed",
                "This cast is not allowed.",
                "There are text, numeric, integer, boolean, date, timestamptz and interval.",
            )
        kind = CASTS[name]
        self.may_raise = self.may_raise or kind != "text"
        return ["call", f"cast_{kind}", self.build(node.this)]

    def build_case(self, node: exp.Case) -> Tree:
        tree: Tree = ["case"]
        subject = self.build(node.this) if node.this else None
        for branch in node.args["ifs"]:
            condition = self.build(branch.this)
            tree += [condition if subject is None else ["eq", subject, condition], self.build(branch.args["true"])]
        default = node.args.get("default")
        return [*tree, self.build(default) if default is not None else ["value", None]]

    # Functions

    def build_anonymous(self, node: exp.Anonymous) -> Tree:
        name = str(node.this).lower()
        function = FUNCTIONS.get(name)
        if function is None:
            return self.refuse(
                node,
                "unknown_function",
                f"There is no function {name[:60]} in expressions.",
                did_you_mean(name, FUNCTIONS) or "docs/expressions.md lists them.",
            )
        arguments = node.expressions
        if not function.least <= len(arguments) <= function.most:
            return self.refuse(
                node,
                "wrong_arguments",
                f"{name} takes other arguments than these {len(arguments)}.",
                f"Write {function.signature}.",
            )
        if name == "now":
            return self.name_place(["now"], [position_of(node)])
        if function.literal is not None:
            literal = arguments[function.literal]
            if not (isinstance(literal, exp.Literal) and literal.is_string) or len(literal.this) > 100:
                return self.refuse(
                    node,
                    "wrong_arguments",
                    f"The setting of {name} must be a literal text.",
                    f"Write {function.signature}.",
                )
            if name == "date_trunc" and literal.this.lower() not in TRUNC_UNITS:
                return self.refuse(
                    literal,
                    "wrong_arguments",
                    f"date_trunc does not know the unit {literal.this!r}.",
                    did_you_mean(literal.this, TRUNC_UNITS, listing="There are"),
                )
            if name == "timezone":
                return self.zone(node, arguments[1], literal)
            if name == "date_trunc":
                return ["call", "date_trunc", self.build(arguments[1]), ["value", literal.this.lower()]]
        self.may_raise = self.may_raise or function.may_raise
        if name == "mod":
            return ["mod", *(self.build(argument) for argument in arguments)]
        return ["call", function.call or name, *(self.build(argument) for argument in arguments)]

    def build_extract(self, node: exp.Extract) -> Tree:
        unit = str(node.this.name).lower()
        if unit not in EXTRACT_FIELDS:
            return self.refuse(
                node,
                "wrong_arguments",
                f"extract does not know the field {unit[:40]}.",
                did_you_mean(unit, EXTRACT_FIELDS, listing="There are"),
            )
        return ["call", "extract", self.build(node.expression), ["value", unit]]

    def build_trim(self, node: exp.Trim) -> Tree:
        name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or ""), "trim")
        characters = [node.expression] if node.args.get("expression") else []
        return ["call", name, self.build(node.this), *(self.build(part) for part in characters)]

    def build_substring(self, node: exp.Substring) -> Tree:
        if node.args.get("start") is None:
            return self.refuse(
                node, "wrong_arguments", "substring needs a start.", "Write substring(text, from [, count])."
            )
        length = [node.args["length"]] if node.args.get("length") else []
        return ["call", "substr", self.build(node.this), *(self.build(part) for part in (node.args["start"], *length))]

    def build_attimezone(self, node: exp.AtTimeZone) -> Tree:
        zone = node.args["zone"]
        if not (isinstance(zone, exp.Literal) and zone.is_string):
            return self.refuse(
                node,
                "wrong_arguments",
                "The time zone must be a literal text.",
                "Write now at time zone 'Europe/Berlin'.",
            )
        return self.zone(node, node.this, zone)

    def zone(self, node: exp.Expression, time: exp.Expression, zone: exp.Literal) -> Tree:
        known = time_zones()
        if not re.fullmatch(r"[A-Za-z0-9_+\-/]{1,60}", zone.this) or (known and zone.this not in known):
            return self.refuse(
                zone,
                "unknown_time_zone",
                f"There is no time zone {zone.this[:60]!r}.",
                did_you_mean(zone.this, known) or "For example Europe/Berlin.",
            )
        self.may_raise = True
        return ["call", "timezone", self.build(time), ["value", zone.this]]

    def build_currenttimestamp(self, node: exp.CurrentTimestamp) -> Tree:
        return self.name_place(["now"], [position_of(node)])

    def build_currentdate(self, node: exp.CurrentDate) -> Tree:
        return ["call", "cast_date", self.name_place(["now"], [position_of(node)])]

    # Names

    def build_column(self, node: exp.Column) -> Tree:
        return self.place(node)

    def build_dot(self, node: exp.Dot) -> Tree:
        return self.place(node)

    def build_bracket(self, node: exp.Bracket) -> Tree:
        return self.place(node)


@functools.cache
def time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def depth_of(tree: Tree) -> int:
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [part for node in level for part in node if isinstance(part, list)]
    return depth
