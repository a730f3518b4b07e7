"""Templates: what they may use beside their own values, and where their assets lie."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from litestar.contrib.jinja import JinjaTemplateEngine
from litestar.template.config import TemplateConfig
from markupsafe import Markup, escape

from stellwerk import resources
from stellwerk.definition.catalog import NODE_TYPES
from stellwerk.web.reasons import sentences
from stellwerk.web.texts import said

STATIC = Path(__file__).with_name("static")

GLYPHS = {
    "pending": "○", "queued": "○", "open": "○", "draft": "○",
    "running": "◐", "claimed": "◐", "joining": "◐",
    "waiting": "◷",
    "completed": "●", "processed": "●", "sent": "●", "published": "●",
    "failed": "✕", "expired": "✕",
    "cancelled": "⊘", "ignored": "⊘", "suppressed": "⊘", "skipped": "⤼", "paused": "⏸",
}  # fmt: skip


@cache
def templates() -> TemplateConfig[JinjaTemplateEngine]:
    """Everything is escaped; a name that is not given is an error, not an empty place. Compiled once in a process."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.folder("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(asset=asset, glyph=glyph, sentences=sentences, said=said)
    environment.filters.update(
        pretty=pretty, iso=iso, exact=exact, count=count, span=span, node_icon=node_icon, run_links=run_links
    )
    return TemplateConfig(instance=JinjaTemplateEngine.from_environment(environment))


def environment_of(config: TemplateConfig[JinjaTemplateEngine]) -> jinja2.Environment:
    """For parts of pages that are made where there is no request."""
    assert isinstance(config.instance, JinjaTemplateEngine)
    return config.instance.engine


@cache
def asset(name: str) -> str:
    """The address of a file in `static/`; it changes with the content, so that browsers may keep it for ever."""
    content = (STATIC / name).read_bytes()
    return f"/static/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def glyph(state: str) -> str:
    """The sign of a state, for colour alone never means anything."""
    return GLYPHS.get(state, "○")


def pretty(value: Any) -> str:
    """A JSON value as people read it."""
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


def iso(at: datetime.datetime) -> str:
    """For the attribute of a `time` element, whose text the page keeps relative."""
    return at.astimezone(datetime.UTC).isoformat(timespec="seconds")


def exact(at: datetime.datetime | None) -> str:
    """The time to the second, in UTC, as it is before the page makes it relative and local."""
    return "" if at is None else at.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(number: int) -> str:
    """A number with thin spaces between the thousands."""
    return f"{number:,}".replace(",", "\u202f")


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    if seconds < 0.001:
        return "0 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(number for number, (_, length) in enumerate(units) if seconds >= length)
    name, length = units[first]
    below, smaller = units[first + 1]
    rest = int(seconds % length / smaller)
    return f"{int(seconds / length)} {name} {rest} {below}" if rest else f"{int(seconds / length)} {name}"


RUN = re.compile(r"\b([Rr]un|Lauf) (\d{1,18})\b")


def run_links(text: str) -> Markup:
    """A sentence in which the runs that it names can be opened."""
    return Markup(RUN.sub(r'\1 <a class="link" href="/runs/\2">\2</a>', str(escape(text))))


# What the catalog calls icons that the sprite knows by another name.
SAME_ICON = {
    "repeat": "loop", "edit": "json", "shuffle": "branch", "switch": "branch", "split": "branch", "merge": "join",
    "hourglass": "timer", "clock": "timer", "calendar": "schedule", "person": "user", "form": "task", "table": "data",
    "save": "data", "list": "data", "bolt": "event", "webhook": "signal", "inbox": "case", "archive": "case",
    "signature": "sign", "chat": "mail", "send": "mail", "reply": "mail", "function": "code",
}  # fmt: skip


@cache
def node_icon(node_type: str) -> str:
    """The sign of a node type in the sprite."""
    kind = NODE_TYPES.get(node_type)
    drawn = (STATIC / "icons.svg").read_text(encoding="utf-8")
    for name in (kind.icon, SAME_ICON.get(kind.icon, "")) if kind else ():
        if f'id="{name}"' in drawn:
            return name
    return "gear"
