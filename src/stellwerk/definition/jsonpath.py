"""Condition trees as jsonpath, for the shapes that provably mean the same.

PostgreSQL evaluates `strict` jsonpath faster than our own tree as soon as a condition has more than one comparison.
Both are logics of three values, and in the end unknown counts as false; so a shape may be translated if no unknown
of one side can become true on the other. `not` is pushed down to the comparisons first, because under it unknown
and false differ. A missing place makes a comparison unknown in strict mode, as in the tree. What remains is: a path
compared with a literal that is neither null nor like a timestamp (those compare as points in time), `is [not]
null`, a bare path, `in` and `between` with such literals.
"""

from __future__ import annotations

import json
import re
from typing import Any

Tree = list[Any]

OPERATORS = {"eq": "==", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}
OPPOSITES = {"eq": "ne", "ne": "eq", "gt": "le", "le": "gt", "ge": "lt", "lt": "ge"}
MIRRORED = {"eq": "eq", "ne": "ne", "gt": "lt", "lt": "gt", "ge": "le", "le": "ge"}
LIKE_A_DATE = re.compile(r"....-..-..", re.DOTALL)


def jsonpath_of(tree: Tree) -> str | None:
    """The predicate for jsonb_path_match, or None where only the tree says it exactly."""
    predicate = translate(tree, negated=False)
    return None if predicate is None else f"strict {predicate}"


def translate(tree: Tree, negated: bool) -> str | None:
    kind = tree[0]
    if kind == "not":
        return translate(tree[1], not negated)
    if kind in ("and", "or"):
        parts = [translate(part, negated) for part in tree[1:]]
        if any(part is None for part in parts):
            return None
        operator = " && " if (kind == "and") != negated else " || "
        return "(" + operator.join(part for part in parts if part is not None) + ")"
    if kind in OPERATORS:
        return comparison(OPPOSITES[kind] if negated else kind, tree[1], tree[2])
    if kind == "is_null":
        place = path(tree[1])
        if place is None:
            return None
        return f"({place} != null)" if negated else f"({place} == null || ({place} == null) is unknown)"
    if kind == "is_true" and not negated:
        place = path(tree[1])
        return None if place is None else f"({place} == true)"
    if kind == "in":
        parts = [comparison("ne" if negated else "eq", tree[1], item) for item in tree[2:]]
        if not parts or any(part is None for part in parts):
            return None
        return "(" + (" && " if negated else " || ").join(part for part in parts if part is not None) + ")"
    if kind == "between":
        low, high = ("lt", "gt") if negated else ("ge", "le")
        left, right = comparison(low, tree[1], tree[2]), comparison(high, tree[1], tree[3])
        return None if left is None or right is None else f"({left} {'||' if negated else '&&'} {right})"
    if kind == "path":
        return f"({path(tree)} == {'false' if negated else 'true'})"
    return None


def comparison(kind: str, left: Tree, right: Tree) -> str | None:
    if left[0] == "value":
        left, right, kind = right, left, MIRRORED[kind]
    place, value = path(left), literal(right)
    if place is None or value is None:
        return None
    # null != 1 is true in jsonpath and unknown here.
    guard = f" && {place} != null" if kind == "ne" else ""
    return f"({place} {OPERATORS[kind]} {value}{guard})"


def path(tree: Tree) -> str | None:
    if tree[0] != "path" or len(tree) < 2:
        return None
    return "$" + "".join("." + json.dumps(name) for name in tree[1:])


def literal(tree: Tree) -> str | None:
    if tree[0] != "value":
        return None
    value = tree[1]
    if value is None or (isinstance(value, str) and LIKE_A_DATE.match(value)):
        return None
    return json.dumps(value)
