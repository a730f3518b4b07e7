"""A run as people read it: its steps in order, each with its state, where it ran, how long, and what came out."""

from __future__ import annotations

import datetime
import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from stellwerk.cli.output import Row
from stellwerk.engine import Engine

GLYPHS = {
    "pending": "○",
    "queued": "○",
    "joining": "○",
    "running": "◐",
    "waiting": "◷",
    "completed": "●",
    "failed": "✕",
    "cancelled": "⊘",
    "skipped": "⤼",
    "paused": "⏸",
}
WIDTH = 120
LEAST_RESULT = 24


def trace(stellwerk: Engine, run_id: int) -> list[str]:
    """The lines that tell a run."""
    run = stellwerk.row(
        "select r.*, e.target, e.operation, e.record_id from stellwerk.run_overview r"
        " left join stellwerk.event e on e.event_id = r.event_id and e.tenant_id = stellwerk.current_tenant_id()"
        " where r.run_id = %s",
        [run_id],
    )
    steps = stellwerk.rows(
        "select * from stellwerk.step_timeline where run_id = %s"
        " order by coalesce(ended_at, started_at, queued_at), step_id",
        [run_id],
    )
    return [_headline(run), _cause(run), *table([_cells(step, run) for step in steps])]


def table(lines: Sequence[Sequence[str]]) -> list[str]:
    """Cells side by side; the last column takes what is left of the line."""
    if not lines:
        return []
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]) - 1)]
    room = max(_line_width() - sum(widths) - 2 * len(widths) - 2, LEAST_RESULT)
    return [
        "  "
        + "  ".join(
            [*(text.ljust(width) for text, width in zip(line[:-1], widths, strict=True)), _cut(line[-1], room)]
        ).rstrip()
        for line in lines
    ]


def _headline(run: Row) -> str:
    took = _duration(run["created_at"], run["ended_at"])
    ending = f"{run['state']} after {took}" if took else run["state"]
    return (
        f"{GLYPHS.get(run['state'], '·')} Run {run['run_id']} of {run['workflow']} version {run['version']}: {ending}"
    )


def _cause(run: Row) -> str:
    if run["target"] is None:
        return f"  started by {run['source']}"
    record = f", record {run['record_id']}" if run["record_id"] else ""
    return f"  started by {run['operation']} on {run['target']}{record}"


def _cells(step: Row, run: Row) -> list[str]:
    took = _duration(step["started_at"], step["ended_at"])
    if step["type"].startswith("trigger."):
        place = ""
    elif step["worker_id"] is not None:
        place = f"worker {step['worker_id']}" + (f", {took}" if took else "")
    else:
        place = "in SQL"
    ended = _duration(run["created_at"], step["ended_at"])
    port = f"→ {step['port']}" if step["port"] not in (None, "next") else ""
    tries = f"attempt {step['attempt']}" if step["attempt"] > 1 else ""
    version = f"version {step['version']}" if step["version"] != run["version"] else ""
    result = step["error"] if step["output"] is None else step["output"]
    return [
        GLYPHS.get(step["state"], "·"),
        step["node_id"],
        step["type"],
        place,
        f"+{ended}" if ended else "",
        " ".join(part for part in (version, tries, port, _plain(result)) if part),
    ]


def _duration(begin: datetime.datetime | None, end: datetime.datetime | None) -> str:
    if begin is None or end is None:
        return ""
    seconds = (end - begin).total_seconds()
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else str(datetime.timedelta(seconds=round(seconds)))


def _plain(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"count", "rows"}:
        return " ".join([f"{value['count']} row{'' if value['count'] == 1 else 's'}", *map(_plain, value["rows"])])
    return "" if value in (None, {}, []) else json.dumps(value, ensure_ascii=False, default=str)


def _cut(text: str, room: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= room else text[: room - 1] + "…"


def _line_width() -> int:
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, 60) if sys.stdout.isatty() else WIDTH
