"""Conditions of row triggers: `new.status = 'paid' and new.total > 1000`.

They become the WHEN clause of a trigger on somebody else's table, where anything that raises would break the
application's own write. So the grammar is smaller than that of other expressions: columns, literals, comparison,
and/or/not, in, between, is null, is distinct from, like, and lower, upper, coalesce, length. The database checks
the same by a list of its own when the watch is set; here it is checked earlier, with positions and hints.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from stellwerk.definition.functions import FUNCTIONS
from stellwerk.definition.grammar import ARGUMENTS, COMPARISONS, HINTS, WORDS
from stellwerk.definition.literals import pattern_fault, read_number
from stellwerk.definition.parsing import Fault, parse_expression, position_of
from stellwerk.definition.problems import did_you_mean

ADMITTED: frozenset[type[exp.Expression]] = frozenset(
    (
        *COMPARISONS,
        exp.And,
        exp.Or,
        exp.Not,
        exp.Paren,
        exp.Is,
        exp.Null,
        exp.Boolean,
        exp.Literal,
        exp.NullSafeEQ,
        exp.NullSafeNEQ,
        exp.In,
        exp.Between,
        exp.Like,
        exp.ILike,
        exp.Column,
        exp.Identifier,
        exp.Anonymous,
        exp.Neg,
    )
)
MAX_CHARACTERS = 4000
ROWS = {"insert": ("new",), "update": ("new", "old"), "delete": ("old",)}
CALLS = tuple(name for name, function in FUNCTIONS.items() if function.in_when)


def when_faults(text: str, operations: Collection[str], columns: Collection[str] | None = None) -> list[Fault]:
    """What is wrong with the condition of a trigger for these operations; with the table's columns, names are
    checked too."""
    if len(text) > MAX_CHARACTERS:
        message = f"The condition has {len(text)} characters; {MAX_CHARACTERS} are allowed."
        return [Fault("expression_too_long", message, hint="Check the rest in a logic.if after the trigger.")]
    parsed = parse_expression(text, roots=("new", "old"))
    if isinstance(parsed, Fault):
        return [parsed]
    faults: list[Fault] = []
    try:
        look(parsed, tuple(operations), columns, faults)
    except RecursionError:
        return [Fault("expression_too_complex", "The condition is nested too deeply.")]
    if not faults and isinstance(parsed, exp.Literal):
        faults.append(Fault("not_allowed", "The condition is no comparison.", 0, "For example: new.status = 'paid'."))
    return faults


def look(
    node: exp.Expression, operations: tuple[str, ...], columns: Collection[str] | None, faults: list[Fault]
) -> None:
    kind = type(node)
    at = position_of(node)
    if kind not in ADMITTED:
        faults.append(
            Fault("not_allowed", f"{describe(node)} is not allowed in a trigger's condition.", at, hint_for(node))
        )
        return
    unknown = {name for name, value in node.args.items() if value not in (None, False, [])} - ARGUMENTS[kind]
    if unknown:
        what = "A subquery" if "query" in unknown else f"{', '.join(sorted(unknown)).upper()}"
        faults.append(Fault("not_allowed", f"{what} is not allowed in a trigger's condition.", at))
        return
    if isinstance(node, exp.Column):
        column_fault(node, operations, columns, faults)
        return
    if isinstance(node, exp.Neg):
        inner = node.this
        if not (isinstance(inner, exp.Literal) and not inner.is_string):
            faults.append(
                Fault("not_allowed", "A minus may only stand before a number.", at, "Compare the column itself.")
            )
        return
    if isinstance(node, exp.Literal) and not node.is_string and read_number(node.this) is None:
        faults.append(
            Fault(
                "bad_number",
                f"The number {node.this[:50]} cannot be used.",
                at,
                "Up to 15 digits, and no exponent above 100.",
            )
        )
    if isinstance(node, (exp.Like, exp.ILike)):
        pattern = node.expression
        if not (isinstance(pattern, exp.Literal) and pattern.is_string):
            faults.append(Fault("not_allowed", "What follows LIKE must be a literal pattern.", at))
        elif message := pattern_fault(pattern.this):
            faults.append(Fault("bad_pattern", message, position_of(pattern), "Write two backslashes for one."))
    if isinstance(node, exp.Is) and not isinstance(node.expression, (exp.Null, exp.Boolean)):
        faults.append(Fault("not_allowed", "After IS only null, true, false and distinct from are allowed.", at))
    if type(node) in COMPARISONS and any(type(side) in COMPARISONS for side in (node.this, node.expression)):
        faults.append(
            Fault("not_allowed", "Comparisons cannot be chained.", at, "Write a < b and b < c, or use parentheses.")
        )
    if isinstance(node, exp.Anonymous):
        call_fault(node, at, faults)
    for part in node.iter_expressions():
        look(part, operations, columns, faults)


def column_fault(
    node: exp.Column, operations: tuple[str, ...], columns: Collection[str] | None, faults: list[Fault]
) -> None:
    at = position_of(node)
    parts = [part for part in node.parts if isinstance(part, exp.Identifier)]
    bare = len(parts) == 1 and (parts[0].name.lower() not in ("new", "old") or bool(parts[0].args.get("quoted")))
    if len(parts) != len(node.parts) or not (bare or (len(parts) == 2 and parts[0].name.lower() in ("new", "old"))):
        first = parts[0].name if parts else ""
        hint = "Columns are written new.column or old.column."
        faults.append(Fault("unknown_name", f"{first[:60]!r} is not a column of the new or old row.", at, hint))
        return
    # A bare column means the new row, on delete the old one.
    row, column = ("new", parts[0]) if bare else (parts[0].name.lower(), parts[1])
    missing = [operation for operation in operations if operation in ROWS and row not in ROWS[operation]]
    if missing and not bare:
        other = "old" if row == "new" else "new"
        hint = f"Use {other}, or watch {missing[0]} by a trigger of its own."
        faults.append(Fault("unknown_name", f"There is no {row} row on {missing[0]}.", at, hint))
    # An identifier without quotes means its small letters, as everywhere in PostgreSQL.
    name = column.name if column.args.get("quoted") else column.name.lower()
    if columns is not None and name not in columns:
        quoted = next((known for known in columns if known.lower() == name and known != name), None)
        advice = f'Write {row}."{quoted}".' if quoted else did_you_mean(name, columns, listing="There are")
        faults.append(Fault("unknown_column", f"The table has no column {name[:60]!r}.", position_of(column), advice))


def call_fault(node: exp.Anonymous, at: int | None, faults: list[Fault]) -> None:
    name = str(node.this).lower()
    function = FUNCTIONS.get(name)
    if function is None or not function.in_when:
        hint = (
            did_you_mean(name, CALLS)
            or f"Only {', '.join(CALLS)} are; check anything else in a logic.if after the trigger."
        )
        faults.append(
            Fault("unknown_function", f"The function {name[:60]} is not allowed in a trigger's condition.", at, hint)
        )
    elif not function.least <= len(node.expressions) <= function.most:
        faults.append(
            Fault(
                "wrong_arguments",
                f"{name} takes other arguments than these {len(node.expressions)}.",
                at,
                f"Write {function.signature}.",
            )
        )


def describe(node: exp.Expression) -> str:
    if isinstance(node, exp.Cast):
        return "A cast"
    if isinstance(node, (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.DPipe)):
        return "Arithmetic" if not isinstance(node, exp.DPipe) else "The operator ||"
    if type(node) in WORDS:
        what = WORDS[type(node)]
        return what[0].upper() + what[1:]
    return (
        f"The function {node.sql_name().lower()}"
        if isinstance(node, exp.Func)
        else f"Something in it ({type(node).__name__})"
    )


def hint_for(node: exp.Expression) -> str:
    if isinstance(node, (exp.Cast, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.DPipe)):
        return "It could raise and break the application's own write; check it in a logic.if after the trigger."
    if isinstance(node, exp.Dot):
        return "Columns are written new.column or old.column."
    hint = HINTS.get(type(node))
    return (
        hint if hint and isinstance(node, (exp.RegexpLike, exp.Escape)) else "Check it in a logic.if after the trigger."
    )
