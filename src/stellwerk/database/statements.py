"""SQL text in single statements, so that an error can name its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<dollar>\$(?:[A-Za-z_][A-Za-z_0-9]*)?\$)
    | (?P<word>[A-Za-z_][A-Za-z_0-9$]*)
    | (?P<end>;)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Statement:
    """One statement and the line, counted from 1, on which its first word stands."""

    text: str
    line: int


def split(text: str) -> Iterator[Statement]:
    """The statements of a file, without the comments before them.

    Semicolons in quotes, dollar quotes, comments and `begin atomic … end` bodies do not end a statement.
    """
    start: int | None = None
    words: list[str] = []
    depth = position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # any character matches the last choice
        kind, position = match.lastgroup, match.end()
        if kind in ("space", "comment"):
            continue
        if kind == "block":
            position = _end_of_comment(text, position)
            continue
        if kind == "end" and depth == 0:
            if start is not None:
                yield Statement(text[start:position], text.count("\n", 0, start) + 1)
            start, words = None, []
            continue
        if start is None:
            start = match.start()
        if kind == "dollar":
            closing = text.find(match.group(), position)
            position = len(text) if closing < 0 else closing + len(match.group())
        elif kind == "word":
            word = match.group().lower()
            words.append(word)
            if words[:3] == ["create", "or", "replace"]:
                words = ["create"]
            depth = _depth(depth, words, word)
    if start is not None:
        yield Statement(text[start:], text.count("\n", 0, start) + 1)


def _depth(depth: int, words: list[str], word: str) -> int:
    """How deep the text stands in the `begin atomic` body of a function or procedure."""
    if words[0] != "create" or len(words) < 2 or words[1] not in ("function", "procedure"):
        return 0
    if word == "begin" or (word == "case" and depth > 0):
        return depth + 1
    return depth - 1 if word == "end" and depth > 0 else depth


def _end_of_comment(text: str, position: int) -> int:
    depth = 1
    while depth and position < len(text):
        if text.startswith("/*", position):
            depth, position = depth + 1, position + 2
        elif text.startswith("*/", position):
            depth, position = depth - 1, position + 2
        else:
            position += 1
    return position
