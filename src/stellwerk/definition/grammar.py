"""What of sqlglot's tree is admitted in expressions, and the words for what is not."""

from __future__ import annotations

from sqlglot import exp

COMPARISONS: dict[type[exp.Expression], str] = {
    exp.EQ: "eq",
    exp.NEQ: "ne",
    exp.GT: "gt",
    exp.GTE: "ge",
    exp.LT: "lt",
    exp.LTE: "le",
}
ARITHMETIC: dict[type[exp.Expression], str] = {
    exp.Add: "add",
    exp.Sub: "sub",
    exp.Mul: "mul",
    exp.Div: "div",
    exp.Mod: "mod",
}

# The arguments that are understood, per node type. Any other argument with a value is refused.
ARGUMENTS: dict[type[exp.Expression], frozenset[str]] = {
    **{
        kind: frozenset({"this", "expression"})
        for kind in (*COMPARISONS, exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.And, exp.Or)
    },
    exp.Div: frozenset({"this", "expression", "typed"}),
    exp.DPipe: frozenset({"this", "expression", "safe"}),
    exp.Not: frozenset({"this"}),
    exp.Neg: frozenset({"this"}),
    exp.Paren: frozenset({"this"}),
    exp.Is: frozenset({"this", "expression", "negate"}),
    exp.NullSafeEQ: frozenset({"this", "expression"}),
    exp.NullSafeNEQ: frozenset({"this", "expression"}),
    exp.In: frozenset({"this", "expressions"}),
    exp.Between: frozenset({"this", "low", "high"}),
    exp.Like: frozenset({"this", "expression", "negate"}),
    exp.ILike: frozenset({"this", "expression", "negate"}),
    exp.Literal: frozenset({"this", "is_string"}),
    exp.Boolean: frozenset({"this"}),
    exp.Null: frozenset(),
    exp.Column: frozenset({"this", "table", "db", "catalog"}),
    exp.Dot: frozenset({"this", "expression"}),
    exp.Bracket: frozenset({"this", "expressions"}),
    exp.Identifier: frozenset({"this", "quoted"}),
    exp.Anonymous: frozenset({"this", "expressions"}),
    exp.Case: frozenset({"this", "ifs", "default"}),
    exp.If: frozenset({"this", "true"}),
    exp.Cast: frozenset({"this", "to"}),
    exp.DataType: frozenset({"this"}),
    exp.Interval: frozenset({"this", "unit"}),
    exp.Extract: frozenset({"this", "expression"}),
    exp.Trim: frozenset({"this", "expression", "position"}),
    exp.Substring: frozenset({"this", "start", "length"}),
    exp.AtTimeZone: frozenset({"this", "zone"}),
    exp.CurrentTimestamp: frozenset(),
    exp.CurrentDate: frozenset(),
    exp.Any: frozenset({"this"}),
}

WORDS: dict[type[exp.Expression], str] = {
    exp.Select: "a subquery",
    exp.Subquery: "a subquery",
    exp.Exists: "a subquery",
    exp.Window: "a window function",
    exp.Star: "a star (*)",
    exp.RegexpLike: "a regular expression",
    exp.RegexpILike: "a regular expression",
    exp.Parameter: "a parameter",
    exp.Placeholder: "a parameter",
    exp.Pow: "a power (^)",
    exp.Escape: "LIKE … ESCAPE",
    exp.Alias: "an alias",
    exp.Array: "a list",
    exp.Tuple: "a row of values",
    exp.Concat: "two texts side by side",
    exp.JSONExtract: "the operator ->",
    exp.JSONExtractScalar: "the operator ->>",
    exp.ArrayOverlaps: "the operator &&",
    exp.Collate: "COLLATE",
    exp.Struct: "braces",
    exp.SimilarTo: "SIMILAR TO",
}

HINTS: dict[type[exp.Expression], str] = {
    exp.Select: "Read the rows with record.query first and use its output.",
    exp.Subquery: "Read the rows with record.query first and use its output.",
    exp.Exists: "Read the rows with record.query first and use its output.",
    exp.RegexpLike: "Use like, contains() or starts_with().",
    exp.RegexpILike: "Use ilike, or lower() with contains().",
    exp.JSONExtract: "Write a.b, or a['key'] for names with other characters.",
    exp.JSONExtractScalar: "Write a.b, or a['key'] for names with other characters.",
    exp.ArrayOverlaps: "Write and.",
    exp.Concat: "Join texts with ||.",
    exp.Escape: "Escape with a backslash.",
    exp.SimilarTo: "Use like, contains() or starts_with().",
    exp.Struct: "A condition is written without {{ }}; only texts have them.",
    exp.Array: "Lists can only be compared by x in (1, 2, 3).",
}
