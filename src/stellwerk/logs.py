"""Log lines: text for people or JSON for machines, each with fields that say which request, run or step it is about.

Whoever begins something says so once, `with about(run_id=…)`: every line that is logged inside, also by a library and
also in a thread that was begun there, has the fields. Only what stands in `FIELDS` is written: what somebody hangs on a
line by another name stays out of the log.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

FIELDS = (
    *("request_id", "trace_id", "tenant", "tenant_id", "workflow", "run_id", "step_id", "node_id", "type", "attempt"),
    *("task_id", "case_id", "message_id", "export_id", "worker_id", "method", "route", "status", "milliseconds"),
)

_about: ContextVar[Mapping[str, Any] | None] = ContextVar("stellwerk_about", default=None)


class about:
    """Lines that are logged inside have these fields as well. A class since every step has one: it is quicker so."""

    __slots__ = ("_before", "_fields")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._before = _about.set({**(_about.get() or {}), **self._fields})

    def __exit__(self, *_: object) -> None:
        _about.reset(self._before)


def current(field: str) -> Any:
    """A field of the lines that are logged here; None without."""
    return (_about.get() or {}).get(field)


def set_up(form: str) -> None:
    """Log to standard error as `text` or `json`, for the whole process."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else TextLines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("pgqueuer", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line is about: what it says itself goes before what was said around it."""
    known = {**(_about.get() or {}), **record.__dict__}
    return {name: known[name] for name in FIELDS if known.get(name) is not None}


def frames_of(error: BaseException) -> str:
    """Where an exception came from, without its text: that may hold anything, also a row's values."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip() or "  at an unknown place"


class JsonLines(logging.Formatter):
    """One object per line; numbers of runs and the like are strings, as everywhere outside the database."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = fields_of(record)
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: str(value) if name.endswith("_id") else value for name, value in fields.items()},
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """The message, and which request it belongs to; messages about steps name them themselves."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        text = super().format(record)
        request_id = fields_of(record).get("request_id")
        return f"{text} [{request_id}]" if request_id else text
