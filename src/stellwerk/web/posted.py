"""What a page's form sends: pairs of names and texts, in their order."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from stellwerk.errors import UsageError

MOST_FIELDS = 5000


class Posted:
    """The pairs, and single ones by name."""

    def __init__(self, body: bytes) -> None:
        try:
            self.pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
        except ValueError:
            raise UsageError("the form cannot be read", hint="Load the page again.") from None
        self._first = dict(reversed(self.pairs))

    def text(self, name: str, otherwise: str = "") -> str:
        """The text of a field without the white space around it; what PostgreSQL cannot store is left out."""
        return self._first.get(name, otherwise).replace("\x00", "").replace("\r\n", "\n").strip()

    def all(self, name: str) -> list[str]:
        """Every value of a field that can have several."""
        return [text for key, text in self.pairs if key == name]

    def numbers(self, name: str) -> list[int]:
        """The same as ids."""
        return [number(text) for text in self.all(name)]

    def __contains__(self, name: Any) -> bool:
        return name in self._first


def number(text: str) -> int:
    """An id; raises `UsageError` for what is none."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError(f"{text[:40]!r} is no number")
    return int(text)
