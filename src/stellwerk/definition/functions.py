"""The functions that expressions may use, each described once: the compiler checks with this table and the docs are
drawn from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Function:
    """One function: how many arguments it takes, which must be literal text, and whether it may raise at run time."""

    name: str
    signature: str
    title: str
    least: int
    most: int
    call: str | None = None
    """The name in the compiled tree, where it differs."""
    literal: int | None = None
    """The argument (from 0) that must be a literal text."""
    may_raise: bool = False
    in_when: bool = False
    """Whether the condition of a row trigger may use it too."""


MANY = 50

FUNCTIONS: dict[str, Function] = {
    function.name: function
    for function in (
        Function("upper", "upper(text)", "the text in capital letters", 1, 1, in_when=True),
        Function("lower", "lower(text)", "the text in small letters", 1, 1, in_when=True),
        Function("trim", "trim(text [, characters])", "without blanks (or those characters) at both ends", 1, 2),
        Function("btrim", "btrim(text [, characters])", "the same as trim", 1, 2, call="trim"),
        Function("ltrim", "ltrim(text [, characters])", "the same, at the beginning only", 1, 2),
        Function("rtrim", "rtrim(text [, characters])", "the same, at the end only", 1, 2),
        Function("length", "length(text or list)", "number of characters, or of items", 1, 1, in_when=True),
        Function("char_length", "char_length(text)", "the same as length", 1, 1, call="length"),
        Function(
            "jsonb_array_length", "jsonb_array_length(list)", "number of items of a list, null for anything else", 1, 1
        ),
        Function("substr", "substr(text, from [, count])", "a part of the text; the first character is number 1", 2, 3),
        Function("substring", "substring(text, from [, count])", "the same as substr", 2, 3, call="substr"),
        Function("left", "left(text, count)", "the first characters", 2, 2),
        Function("right", "right(text, count)", "the last characters", 2, 2),
        Function("replace", "replace(text, old, new)", "every occurrence of old replaced", 3, 3),
        Function("split_part", "split_part(text, separator, n)", "the n-th part, counted from 1", 3, 3),
        Function("strpos", "strpos(text, part)", "where the part begins, 0 if nowhere", 2, 2),
        Function("starts_with", "starts_with(text, part)", "whether the text begins so", 2, 2),
        Function("ends_with", "ends_with(text, part)", "whether the text ends so", 2, 2),
        Function(
            "contains",
            "contains(text, part), contains(list, item)",
            "whether the part, the item or the key is in it",
            2,
            2,
        ),
        Function("concat", "concat(value, …)", "all values as one text, nulls left out", 1, MANY),
        Function("coalesce", "coalesce(value, …)", "the first value that is not null", 1, MANY, in_when=True),
        Function("nullif", "nullif(value, other)", "null if both are equal, else the value", 2, 2),
        Function("greatest", "greatest(value, …)", "the greatest value, nulls left out", 1, MANY),
        Function("least", "least(value, …)", "the least value, nulls left out", 1, MANY),
        Function("abs", "abs(number)", "without its sign", 1, 1),
        Function("sign", "sign(number)", "-1, 0 or 1", 1, 1),
        Function("round", "round(number [, digits])", "rounded, halves away from zero", 1, 2),
        Function("trunc", "trunc(number [, digits])", "cut off", 1, 2),
        Function("ceil", "ceil(number)", "the next whole number upwards", 1, 1),
        Function("ceiling", "ceiling(number)", "the same as ceil", 1, 1, call="ceil"),
        Function("floor", "floor(number)", "the next whole number downwards", 1, 1),
        Function("mod", "mod(number, number)", "the rest of a division, the same as %", 2, 2, may_raise=True),
        Function(
            "to_char",
            "to_char(time or number, 'format')",
            "as text in PostgreSQL's format, for example 'DD.MM.YYYY'; times in UTC",
            2,
            2,
            literal=1,
            may_raise=True,
        ),
        Function("to_timestamp", "to_timestamp(seconds)", "the time so many seconds after 1970-01-01", 1, 1),
        Function(
            "date_trunc",
            "date_trunc('unit', time)",
            "the beginning of the year, quarter, month, week, day, hour or minute",
            2,
            2,
            literal=0,
        ),
        Function(
            "timezone",
            "timezone('zone', time)",
            "local time there, the same as time at time zone 'zone'",
            2,
            2,
            literal=0,
            may_raise=True,
        ),
        Function("now", "now()", "the time of evaluation, the same as now", 0, 0),
    )
}

TRUNC_UNITS = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")
EXTRACT_FIELDS = (
    "epoch",
    "year",
    "quarter",
    "month",
    "week",
    "day",
    "hour",
    "minute",
    "second",
    "dow",
    "isodow",
    "doy",
    "isoyear",
)

CASTS: dict[str, str] = {
    "TEXT": "text",
    "VARCHAR": "text",
    "DECIMAL": "numeric",
    "DOUBLE": "numeric",
    "FLOAT": "numeric",
    "INT": "integer",
    "BIGINT": "integer",
    "SMALLINT": "integer",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamptz",
    "TIMESTAMPTZ": "timestamptz",
    "INTERVAL": "interval",
}


def function_table() -> str:
    """The functions as rows of a Markdown table, as docs/expressions.md shows them."""
    rows = [f"| `{function.signature}` | {function.title} |" for function in FUNCTIONS.values()]
    return "\n".join(["| function | gives |", "| --- | --- |", *rows])
