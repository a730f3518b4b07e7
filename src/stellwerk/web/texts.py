"""Pages in German and English. The English text is the key; the files in `texts/de` hold the German ones, one an area.

A test sees to it that every text of a template or a module has its translation.
"""

from __future__ import annotations

import json
import re
import string
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "de")


def translate(language: str, text: str, **values: object) -> str:
    """The text in a language, with `{name}` filled in; one that has no translation stays as it is."""
    found = _texts(language).get(text, text)
    return found.format(**values) if values else found


def said(language: str, text: str | None) -> str:
    """A sentence of the database in a language: found by what it has in common with a known one, else as it is.

    Pages ask for it where the engine answers in words of its own, such as a refusal or a verdict on a run.
    """
    if not text:
        return ""
    for pattern, translation in _sentences(language):
        if found := pattern.fullmatch(text):
            return translation.format(**found.groupdict())
    return text


def choose(wanted: str | None, accepted: str | None) -> str:
    """The language that was set, else the first that the browser asks for and we have."""
    if wanted in LANGUAGES:
        return wanted
    for part in (accepted or "").split(","):
        language = part.split(";")[0].strip().lower()[:2]
        if language in LANGUAGES:
            return language
    return LANGUAGES[0]


@cache
def area(language: str, name: str) -> dict[str, str]:
    """The texts of one file, for a page whose script shows them; nothing in English, for each is its own key."""
    file = Path(__file__).with_name("texts") / language / f"{name}.json"
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


@cache
def _sentences(language: str) -> list[tuple[re.Pattern[str], str]]:
    known = area(language, "sentences") | area(language, "problems")
    # Those with the most words of their own first, so that a short one does not swallow a longer one.
    ordered = sorted(known.items(), key=lambda each: -len(re.sub(r"{\w+}", "", each[0])))
    return [(_pattern(text), translation) for text, translation in ordered]


def _pattern(text: str) -> re.Pattern[str]:
    parts = [
        re.escape(words) + (f"(?P<{name}>.+?)" if name else "") for words, name, _, _ in string.Formatter().parse(text)
    ]
    return re.compile("".join(parts), re.DOTALL)


@cache
def _texts(language: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted((Path(__file__).with_name("texts") / language).glob("*.json")):
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found
