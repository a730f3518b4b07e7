"""Names in expressions: places of a run's context, with their beginning checked against what a context holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from stellwerk.definition.parsing import ROOTS, Fault, position_of
from stellwerk.definition.problems import did_you_mean

Tree = list[Any]

# What may follow the roots whose members are fixed.
MEMBERS = {"trigger": ("payload", "row", "old", "source"), "run": ("id", "workflow")}
STEP_MEMBERS = ("output", "error")


@dataclass(frozen=True, slots=True)
class Reference:
    """A place of the context that an expression reads: its path, and where in the text it is named."""

    path: tuple[str, ...]
    positions: tuple[int | None, ...]


@dataclass
class Names:
    """Collects the places that an expression reads, and its faults."""

    references: list[Reference] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def refuse(self, node: exp.Expression, code: str, message: str, hint: str | None = None) -> Tree:
        self.faults.append(Fault(code, message, position_of(node), hint))
        return ["value", None]

    def place(self, node: exp.Expression) -> Tree:
        """A name such as steps.check.output.items[0].price: the path of names first, then what follows the first
        subscript."""
        steps: list[tuple[str | int, int | None]] = []
        if not self.collect(node, steps):
            return ["value", None]
        names: list[str] = []
        positions: list[int | None] = []
        rest: list[str | int] = []
        for step, position in steps:
            # A name of digits would be taken for a subscript by the operators of JSON paths.
            if rest or isinstance(step, int) or step.lstrip("-").isdigit():
                rest.append(step)
            else:
                names.append(step)
                positions.append(position)
        tree = self.name_place(names, positions, more=bool(rest))
        for part in rest:
            tree = ["get", tree, part]
        return tree

    def collect(self, node: exp.Expression, steps: list[tuple[str | int, int | None]]) -> bool:
        """Flattens a dotted name; False if it holds anything but names and subscripts (the fault is noted)."""
        if isinstance(node, exp.Identifier):
            steps.append((node.name, position_of(node)))
            return True
        if isinstance(node, exp.Column) and all(isinstance(part, exp.Identifier) for part in node.parts):
            steps.extend((part.name, position_of(part)) for part in node.parts)
            return True
        if isinstance(node, exp.Dot):
            if isinstance(node.expression, exp.Identifier):
                return self.collect(node.this, steps) and self.collect(node.expression, steps)
            if isinstance(node.expression, exp.Anonymous):
                self.refuse(
                    node,
                    "unknown_function",
                    f"There is no function {node.sql()[:60]!r} in expressions.",
                    "Write the function's plain name.",
                )
                return False
        if isinstance(node, exp.Bracket) and len(node.expressions) == 1 and self.collect(node.this, steps):
            key = node.expressions[0]
            if isinstance(key, exp.Literal) and (key.is_string or re.fullmatch(r"\d{1,6}", key.this)):
                steps.append((key.this if key.is_string else int(key.this), position_of(key)))
                return True
            if (
                isinstance(key, exp.Neg)
                and isinstance(key.this, exp.Literal)
                and re.fullmatch(r"\d{1,6}", key.this.this)
            ):
                steps.append((-int(key.this.this), position_of(key)))
                return True
            self.refuse(
                node,
                "not_allowed",
                "In brackets only a whole number or a quoted key may stand.",
                "Write a[0] or a['key'].",
            )
            return False
        if not self.faults:
            self.refuse(
                node, "not_allowed", "This is not a name of the context.", "Write names such as trigger.payload.total."
            )
        return False

    def name_place(self, names: list[str], positions: list[int | None], more: bool = False) -> Tree:
        """["path", …] of names, after their beginning was checked."""
        root = names[0] if names else ""
        at = positions[0] if positions else None
        listing = "Expressions can read"
        if root not in ROOTS:
            hint = did_you_mean(root, ROOTS, listing=listing)
            if len(names) == 1 and root and not (hint or "").startswith("Did"):
                hint = f"Texts stand in single quotes: '{root[:40]}'. {hint}"
            self.faults.append(Fault("unknown_name", f"There is no {root[:60]!r} in the context.", at, hint))
            return ["value", None]
        members = MEMBERS.get(root)
        if members is not None and (len(names) < 2 or names[1] not in members):
            what = names[1][:60] if len(names) > 1 else ""
            self.faults.append(
                Fault(
                    "unknown_name",
                    f"{root} has no member {what!r}." if what else f"{root} is not a value itself.",
                    positions[1] if what else at,
                    did_you_mean(what, members, listing=f"{root} has"),
                )
            )
            return ["value", None]
        if root == "steps" and (len(names) < 3 or names[2] not in STEP_MEMBERS):
            name = names[1][:60] if len(names) > 1 else "id"
            position = positions[2] if len(names) > 2 else at
            what = f"A step has no member {names[2][:60]!r}." if len(names) > 2 else "A step is not a value itself."
            self.faults.append(
                Fault("unknown_name", what, position, f"Write steps.{name}.output or steps.{name}.error.")
            )
            # The step's name is still checked by the compiler, so that both faults are reported at once.
            if len(names) > 1:
                self.references.append(Reference(tuple(names), tuple(positions)))
            return ["value", None]
        if root in ("index", "now") and (len(names) > 1 or more):
            self.faults.append(
                Fault(
                    "unknown_name",
                    f"{root} has no members.",
                    positions[1] if len(names) > 1 else at,
                    f"Write {root} alone.",
                )
            )
            return ["value", None]
        self.references.append(Reference(tuple(names), tuple(positions)))
        return ["path", *names]
