"""Texts that may hold `{{ expressions }}`, and the spellings of places that are normalised when a document is saved."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from stellwerk.definition.expressions import Expression, compile_expression
from stellwerk.definition.names import Tree
from stellwerk.definition.parsing import Fault

MAX_EXPRESSIONS = 200

DOLLAR = re.compile(r"\$\{\s*([A-Za-z_][\w.\[\]]*?)\s*\}", re.ASCII)
STEP = re.compile(r"(?<![\w.\"'])step(?=\s*\.\s*[a-z])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Template:
    """A text cut into literal parts and expressions. `offsets` says where each expression begins in the text."""

    text: str
    parts: tuple[str | Expression, ...]
    offsets: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def expressions(self) -> tuple[Expression, ...]:
        return tuple(part for part in self.parts if isinstance(part, Expression))

    @property
    def is_dynamic(self) -> bool:
        return bool(self.faults) or any(isinstance(part, Expression) for part in self.parts)

    @property
    def whole(self) -> Expression | None:
        """The expression, if the text is nothing but one: its value keeps its JSON type."""
        spoken = [part for part in self.parts if isinstance(part, Expression) or part.strip()]
        return spoken[0] if len(spoken) == 1 and isinstance(spoken[0], Expression) else None

    def trees(self) -> list[str | Tree]:
        return [part if isinstance(part, str) else part.tree for part in self.parts]


@functools.lru_cache(maxsize=2048)
def read_template(text: str) -> Template:
    """Cuts a text at its {{ … }}; faults carry positions within the whole text."""
    parts: list[str | Expression] = []
    offsets: list[int] = []
    faults: list[Fault] = []
    at = 0
    while (begin := text.find("{{", at)) >= 0:
        end = closing(text, begin + 2)
        if end is None:
            hint = "Close it with }}; braces that are meant as text are written {{ '{{' }}."
            faults.append(Fault("unclosed_braces", "An expression is opened with {{ but never closed.", begin, hint))
            break
        if len(offsets) == MAX_EXPRESSIONS:
            hint = "Build the text in several steps, with logic.transform."
            faults.append(Fault("too_many", f"A text may hold {MAX_EXPRESSIONS} expressions.", begin, hint))
            break
        if text[at:begin]:
            parts.append(text[at:begin])
        inner = text[begin + 2 : end]
        lead = len(inner) - len(inner.lstrip())
        expression = compile_expression(inner.strip())
        offset = begin + 2 + lead
        parts.append(expression)
        offsets.append(offset)
        faults += [
            Fault(f.code, f.message, None if f.position is None else f.position + offset, f.hint)
            for f in expression.faults
        ]
        at = end + 2
    else:
        if text[at:]:
            parts.append(text[at:])
    return Template(text, tuple(parts), tuple(offsets), tuple(faults))


def closing(text: str, at: int) -> int | None:
    """Where the }} stands that closes an expression; quoted texts may hold braces."""
    quote = ""
    while at < len(text):
        character = text[at]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif text.startswith("}}", at):
            return at
        at += 1
    return None


def normalise_text(text: str) -> str:
    """`${ a.b }` becomes `{{ vars.a.b }}` and `step.x` within braces becomes `steps.x`; anything else stays as it
    is."""
    if "${" in text:
        text = DOLLAR.sub(lambda found: "{{ " + normalise_place(found.group(1)) + " }}", text)
    if "{{" not in text or "step" not in text:
        return text
    pieces: list[str] = []
    at = 0
    while (begin := text.find("{{", at)) >= 0 and (end := closing(text, begin + 2)) is not None:
        pieces += [text[at : begin + 2], normalise_expression(text[begin + 2 : end]), "}}"]
        at = end + 2
    return "".join([*pieces, text[at:]])


def normalise_place(place: str) -> str:
    """`${ x.y }` names a variable; a place that begins with another root of the context stays that."""
    root = place.split(".", 1)[0].split("[", 1)[0]
    if root == "step":
        return "steps" + place[4:]
    return place if root in ("trigger", "steps", "vars", "run", "item", "index", "now") else f"vars.{place}"


def normalise_expression(text: str) -> str:
    """The spelling `step.x` as `steps.x`, outside quotations."""
    if "step" not in text:
        return text
    pieces = re.split(r"('(?:[^']|'')*'|\"[^\"]*\")", text)
    return "".join(piece if piece[:1] in ("'", '"') else STEP.sub("steps", piece) for piece in pieces)


def normalise_condition(text: str) -> str:
    """A condition is an expression without braces; one that was written in braces loses them."""
    text = DOLLAR.sub(lambda found: normalise_place(found.group(1)), text) if "${" in text else text
    stripped = text.strip()
    if stripped.startswith("{{") and closing(stripped, 2) == len(stripped) - 2:
        text = stripped[2:-2].strip()
    return normalise_expression(text)
