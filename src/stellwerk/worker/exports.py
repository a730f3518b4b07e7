"""A case as a CSV file in a drop folder, written after the commit that ordered it."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from stellwerk.executors import ExecutorError
from stellwerk.worker.attempts import in_thread
from stellwerk.worker.connections import Connections
from stellwerk.worker.effects import write_file

log = logging.getLogger(__name__)

ENTRYPOINT = "case.export"

# Their full-width forms are the same to some spreadsheets. stellwerk.csv_cell does it alike.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def cell(text: str | None) -> str:
    """A cell that no spreadsheet takes for a formula: a text that begins like one gets an apostrophe before it."""
    if text is None:
        return ""
    text = text.replace("\0", "")
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return "'" + text
    return text


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> bytes:
    """RFC 4180, UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8", "replace")


class CaseExports:
    """Carries out the internal job `case.export`."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def handle(self, payload: dict[str, Any]) -> None:
        """Write one ordered file. Repeating it replaces that file; a failure is recorded and tick tries again."""
        order = (int(payload["t"]), int(payload["export"]))
        rows = await self._connections.tuples(
            "select folder, file_name, columns, cells from stellwerk.begin_case_export($1, $2)", order
        )
        if not rows:
            return
        folder, name, columns, cells = rows[0]
        fields = {"tenant_id": order[0], "export_id": order[1]}
        problem: str | None = None
        try:
            path = await in_thread(lambda: write_file(Path(folder), name, as_csv(columns, [cells])))
            log.info("case export %d is written to %s", order[1], path, extra=fields)
        except ExecutorError as error:
            problem = error.message
            log.warning("case export %d failed: %s", order[1], problem, extra=fields)
        try:
            await self._connections.tuples("select stellwerk.end_case_export($1, $2, $3)", (*order, problem))
        except psycopg.Error as error:
            log.warning(
                "case export %d: its end could not be recorded: %s", order[1], str(error).splitlines()[0], extra=fields
            )
            raise
