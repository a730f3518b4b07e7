"""Expression text into sqlglot's tree: exactly one expression, no comments, bounded in size, never an exception but
`Fault`s."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ParseError, SqlglotError, TokenError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import Token, TokenType

MAX_CHARACTERS = 8000
MAX_TOKENS = 1000
MAX_DEPTH = 30

ROOTS = ("trigger", "steps", "vars", "item", "index", "run", "now")
WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9$]*\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an expression, and at which character of it."""

    code: str
    message: str
    position: int | None = None
    hint: str | None = None


class Expressions(Postgres):
    """PostgreSQL's grammar with every function left as it was written, and subscripts counted from 0 as in JSON."""

    INDEX_OFFSET = 0

    class Parser(PostgresParser):
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        ARRAY_CONSTRUCTORS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: parser
            for name, parser in PostgresParser.FUNCTION_PARSERS.items()
            if name in ("CAST", "EXTRACT", "SUBSTRING", "TRIM")
        }
        NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: parser for name, parser in PostgresParser.NO_PAREN_FUNCTION_PARSERS.items() if name in ("CASE", "ANY")
        }


DIALECT = Expressions()


def parse_expression(text: str, roots: tuple[str, ...] = ROOTS) -> exp.Expression | Fault:
    """The one expression that `text` holds. Words after a dot, and `roots`, are names even where SQL has them as
    keywords."""
    if not text.strip():
        return Fault(
            "empty_expression",
            "The expression is empty.",
            0,
            "Write an expression such as trigger.payload.total > 100.",
        )
    if len(text) > MAX_CHARACTERS:
        return Fault(
            "expression_too_long",
            f"The expression has {len(text)} characters; {MAX_CHARACTERS} are allowed.",
            hint="Split it over several nodes, or register an SQL function.",
        )
    try:
        tokens = DIALECT.tokenize(text)
    except TokenError:
        return Fault(
            "syntax",
            "A quotation in the expression is not closed.",
            unclosed_quote(text),
            "Close it with a single quote (').",
        )
    except (SqlglotError, ValueError, RecursionError):
        return Fault("syntax", "The expression cannot be read.")
    if not tokens:
        return Fault(
            "empty_expression",
            "The expression is empty.",
            0,
            "Write an expression such as trigger.payload.total > 100.",
        )
    if fault := refuse_tokens(tokens):
        return fault
    # Nothing is a keyword between quotation marks; only WHEN must know what was written with them.
    kind = TokenType.IDENTIFIER if roots == ROOTS else TokenType.VAR
    for place, token in enumerate(tokens):
        if is_name(tokens, place, roots):
            token.token_type = kind
    try:
        trees = [tree for tree in DIALECT.parser().parse(tokens, text) if tree is not None]
    except ParseError as error:
        return syntax_fault(error, text)
    except RecursionError:
        return Fault(
            "expression_too_complex", "The expression is nested too deeply.", hint="Split it over several nodes."
        )
    except (SqlglotError, ValueError, TypeError, AttributeError, KeyError, IndexError):
        return Fault("syntax", "The expression cannot be read.", hint="docs/expressions.md shows what may be written.")
    if len(trees) != 1:
        return Fault("syntax", "Exactly one expression is allowed.", 0)
    tree = trees[0]
    if not isinstance(tree, exp.Expression):
        return Fault("syntax", "The expression cannot be read.", 0)
    return tree


def refuse_tokens(tokens: list[Token]) -> Fault | None:
    """What can be refused before parsing: comments, a second statement, and sizes that no person writes."""
    if len(tokens) > MAX_TOKENS:
        return Fault(
            "expression_too_complex",
            f"The expression has {len(tokens)} parts; {MAX_TOKENS} are allowed.",
            hint="Split it over several nodes, or register an SQL function.",
        )
    depth = unary = 0
    for token in tokens:
        unary = unary + 1 if token.token_type in (TokenType.NOT, TokenType.DASH) else 0
        if token.comments:
            return Fault(
                "comment",
                "Comments are not allowed in expressions.",
                token.start,
                "Put the comment into the node's description.",
            )
        if token.token_type == TokenType.SEMICOLON:
            return Fault(
                "syntax",
                "Exactly one expression is allowed, without a semicolon.",
                token.start,
                "Remove the semicolon.",
            )
        if token.token_type in (TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.CASE):
            depth += 1
        elif token.token_type in (TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.END):
            depth -= 1
        if max(depth, unary) > MAX_DEPTH:
            return Fault(
                "expression_too_complex", f"The expression is nested deeper than {MAX_DEPTH} levels.", token.start
            )
    return None


def is_name(tokens: list[Token], place: int, roots: tuple[str, ...]) -> bool:
    """Whether a word is a name whatever SQL thinks of it: after a dot, or a root that is not called like a function."""
    token = tokens[place]
    if not WORD.match(token.text) or token.token_type in (TokenType.STRING, TokenType.IDENTIFIER):
        return False
    if place and tokens[place - 1].token_type == TokenType.DOT:
        return True
    is_called = place + 1 < len(tokens) and tokens[place + 1].token_type == TokenType.L_PAREN
    return token.text.lower() in roots and not is_called


def syntax_fault(error: ParseError, text: str) -> Fault:
    details = error.errors[0] if error.errors else {}
    line, column, highlight = details.get("line"), details.get("col"), str(details.get("highlight") or "")
    position = None
    if isinstance(line, int) and isinstance(column, int):
        starts = [0, *(at + 1 for at, character in enumerate(text) if character == "\n")]
        # sqlglot counts columns to the end of the word that it stumbled over.
        position = max(0, min(starts[min(line, len(starts)) - 1] + column - max(len(highlight), 1), len(text)))
    near = f" near {highlight[:40]!r}" if highlight.strip() else ""
    hint = "docs/expressions.md shows what may be written."
    if highlight.lower() in ("select", "from", "with"):
        hint = "Subqueries are not allowed; read the rows with record.query first."
    return Fault("syntax", f"The expression cannot be read{near}.", position, hint)


def unclosed_quote(text: str) -> int | None:
    """Where the quotation that is never closed begins."""
    at = 0
    while at < len(text):
        if text[at] in "'\"":
            end = text.find(text[at], at + 1)
            if end < 0:
                return at
            at = end
        at += 1
    return None


def position_of(node: exp.Expr) -> int | None:
    """The first character of a node, where sqlglot knows it of the node or of a part of it."""
    starts = [part.meta["start"] for part in node.walk() if "start" in part.meta]
    return min(starts) if starts else None
