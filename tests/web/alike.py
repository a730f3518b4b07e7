"""What an answer says, for tests that two answers must not differ by anything."""

from __future__ import annotations

import re
from typing import Any

NAME = re.compile(rb"x-request-id: ([0-9a-f]{32})", re.IGNORECASE)


def said(answer: Any) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Status, body and headers, but for the name that each request has of its own."""
    name = answer.headers["x-request-id"]
    headers = sorted((key, value.replace(name, "")) for key, value in answer.headers.items())
    return answer.status_code, answer.content.replace(name.encode(), b""), headers


def without_name(lines: list[bytes], body: bytes) -> tuple[list[bytes], bytes]:
    """The same of an answer as it comes over the line; one that was refused before it had a name has none."""
    found = next((match[1] for line in lines if (match := NAME.match(line))), None)
    if found is None:
        return lines, body
    return [line.replace(found, b"") for line in lines], body.replace(found, b"")
