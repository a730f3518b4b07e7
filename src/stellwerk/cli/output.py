"""What commands print: tables for people, JSON for programs, complaints on standard error."""

from __future__ import annotations

import datetime
import decimal
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer

Row = Mapping[str, Any]

JSON = typer.Option(False, "--json", help="Print JSON.")
WIDEST = 60


def say(text: str = "") -> None:
    """A line of the result."""
    typer.echo(text)


def progress(text: str) -> None:
    """A line that tells a waiting person what happens; kept out of the result."""
    typer.echo(text, err=True)


def complain(message: str, detail: str | None = None, hint: str | None = None) -> None:
    """One sentence, what the database added, and how to go on."""
    typer.echo(f"error: {message}", err=True)
    if detail:
        typer.echo(f"  {detail.strip()}".replace("\n", "\n  "), err=True)
    if hint:
        typer.echo(f"hint: {hint}", err=True)


def listing(rows: Sequence[Row], *, as_json: bool, empty: str, columns: Sequence[str] | None = None) -> None:
    """Rows as a table, or as a JSON array with every column."""
    if as_json:
        say(to_json(rows))
        return
    if not rows:
        say(empty)
        return
    names = list(columns or rows[0])
    cells = [names, *([cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        say("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def to_json(value: Any) -> str:
    """JSON with times in ISO 8601; numbers of runs and the like are strings, as everywhere outside the database."""
    return json.dumps(_with_text_ids(value), ensure_ascii=False, indent=2, default=_plain)


def cell(value: Any) -> str:
    """A value on one line of a table."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False, default=_plain)
    text = " ".join(str(value).split())
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


@contextmanager
def one_line_progress() -> Iterator[Any]:
    """A line that is overwritten on a terminal, and plain lines elsewhere."""
    on_terminal = sys.stderr.isatty()

    def report(text: str) -> None:
        if on_terminal:
            typer.echo(f"\r\033[K{text}", nl=False, err=True)
        else:
            typer.echo(text, err=True)

    try:
        yield report
    finally:
        if on_terminal:
            typer.echo("\r\033[K", nl=False, err=True)


def _with_text_ids(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: str(item) if name.endswith("_id") and isinstance(item, int) else _with_text_ids(item)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_with_text_ids(item) for item in value]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return str(value)
