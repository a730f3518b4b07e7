"""The story of an example, played on a test clock: months in seconds, by the ways that everybody uses.

Forms and signed webhooks go through the web application's own handlers, rows in and out by plain SQL over a connection
that knows nothing of Stellwerk, tasks by `complete_task`. Only the clock is ours: the session that pumps and ticks, and
the worker, run under `stellwerk.clock_shift`. Such a clock would fire the timers of everything else in the database as
well, so a story is played only where there is nothing else; `trouble` says what there is.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import functools
import json
import re
import time
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import httpx2
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from stellwerk.database import pool
from stellwerk.engine import Engine
from stellwerk.errors import StellwerkError
from stellwerk.integrations import sealing, signatures
from stellwerk.settings import Settings

if TYPE_CHECKING:
    from litestar import Litestar

MOST_TURNS = 1000
WHO = 15
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What a clock that runs ahead would disturb, in the words of a refusal; null where the database is the story's alone.
TROUBLE = """
select case
  when w.slug is not null then 'it holds the workflow ' || w.slug
  when r.run_id is not null then 'run ' || r.run_id || ' is under way in it'
  when exists (select from stellwerk.event where state = 'pending') or exists (select from stellwerk.event_batch)
       or exists (select from stellwerk.webhook_delivery where state = 'pending')
       then 'something has come in that is still to be looked at'
  when exists (select from stellwerk.worker_status where present) then 'a worker is at work in it'
  when exists (select from stellwerk.cron_jobs() where active) then 'pg_cron ticks in it' end
  from (values (1)) always (one)
  left join lateral (select slug from stellwerk.workflow where slug <> all (%s) order by slug limit 1) w on true
  left join lateral (select run_id from stellwerk.run
                      where ended_at is null and run_id <= coalesce(%s, run_id) order by run_id limit 1) r on true
"""


def trouble(connection: psycopg.Connection[Any], slugs: Sequence[str], mark: int | None = None) -> str | None:
    """Why no story may be played in this database; None where nothing but the example is at work in it.

    With a mark, runs with higher numbers are the story's own.
    """
    row = connection.execute(TROUBLE.encode(), [list(slugs), mark]).fetchone()
    return None if row is None or row[0] is None else str(row[0])


class Story:
    """A stage with a clock: scenes are acted one after the other, and what came of each is told."""

    def __init__(
        self,
        script: Mapping[str, Any],
        documents: Sequence[Mapping[str, Any]],
        settings: Settings,
        dsn: str,
        say: Callable[[str], None],
    ) -> None:
        self._script = script
        self._slugs = [str(document["slug"]) for document in documents]
        self._names = {node["id"]: node.get("name", node["id"]) for document in documents for node in document["nodes"]}
        # No mail leaves: the people of a story are nobody.
        self._settings = dataclasses.replace(settings, smtp_url=None)
        self._dsn = dsn
        self._say = say
        self._zone = zoneinfo.ZoneInfo(script["time_zone"])
        self._connection = pool.connect(settings, dsn=dsn, name="stellwerk-story")
        self._engine = Engine(self._connection)
        self._application = psycopg.connect(dsn, autocommit=True, client_encoding="UTF8", row_factory=dict_row)
        self._runner = asyncio.Runner()
        self._secrets: dict[str, str] = {}
        self._mark = int(self._engine.value("select coalesce(max(run_id), 0) from stellwerk.run"))
        self._now = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self._said_at = self._now
        self._told_steps: set[tuple[int, int]] = set()
        self._told_waits: dict[int, str] = {}
        self._told_history = int(self._engine.value("select coalesce(max(history_id), 0) from stellwerk.case_history"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._runner.close()
        self._application.close()
        self._connection.close()

    def play(self) -> list[dict[str, Any]]:
        """All scenes, then whatever is still due; answers the runs."""
        begun = time.monotonic()
        self._set_up()
        self._say(f"{self._script['title']}. The clock is a test's; times are those of {self._zone.key}.")
        for scene in self._script["scenes"]:
            self._go_to(datetime.datetime.fromisoformat(scene["at"]).replace(tzinfo=self._zone))
            self._line(scene["who"], scene["says"])
            self._act(scene)
            self._settle()
        while (due := self._next_due()) is not None:
            self._go_to(due)
        runs = self._engine.rows(
            "select run_id, state, started_at, ended_at from stellwerk.run_overview where run_id > %s order by run_id",
            [self._mark],
        )
        self._finish(runs, time.monotonic() - begun)
        return runs

    # -- the stage --------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """The users, forms and webhook sources that the story speaks of; of a former play nothing is in the way."""
        self._application.execute(self._script["before"].encode())
        self._engine.value("select stellwerk.set_time_zone(%s)", [self._zone.key])
        there = {row["email"] for row in self._engine.rows("select email from stellwerk.app_user")}
        for user in self._script["users"]:
            if user["email"] not in there:
                self._engine.add_user(user["email"], user["role"], name=user["name"], groups=user["groups"])
        for form, slug in self._script["forms"].items():
            self._engine.set_form(form, slug)
        tenant = int(self._engine.value("select stellwerk.current_tenant_id()"))
        seals = sealing.Seals.from_settings(self._settings)
        for source, hook in self._script["hooks"].items():
            more = dict(hook)
            scheme = more.pop("scheme")
            self._secrets[source] = signatures.new_secret(scheme)
            sealed = seals.seal(sealing.hook_purpose(tenant, source), self._secrets[source])
            self._engine.set_webhook_source(source, scheme, [sealed], more)

    # -- the clock --------------------------------------------------------------------------------------------------

    def _go_to(self, at: datetime.datetime) -> None:
        """Let time pass until then; what is due on the way happens at its own time."""
        for _ in range(MOST_TURNS):
            due = self._next_due()
            if (why := trouble(self._connection, self._slugs, self._mark)) is not None:
                raise StellwerkError(
                    f"the story ends here: {why} now, and its clock would run ahead for that as well",
                    hint="Play it in a database where nothing else is.",
                )
            if due is None or due > at:
                self._set_clock(at)
                return
            self._set_clock(max(due, self._now))
            self._settle()
        raise StellwerkError("the story does not come to its end", hint="`stellwerk run list` shows what goes on.")

    def _next_due(self) -> datetime.datetime | None:
        due: datetime.datetime | None = self._engine.value(
            "select min(due_at) from stellwerk.timer where due_at < stellwerk.never()"
        )
        return due

    def _set_clock(self, at: datetime.datetime) -> None:
        self._now = at
        self._engine.value(
            "select set_config('stellwerk.clock_shift',"
            " 'PT' || round(extract(epoch from %s - clock_timestamp())::numeric, 3) || 'S', false)",
            [at],
        )
        if not self._engine.value("select abs(extract(epoch from stellwerk.clock() - %s)) < 60", [at]):
            raise StellwerkError(
                "this login may not set the clock of a story",
                hint="Only the owner of the schema stellwerk may: play it in a database of your own.",
            )

    def _settle(self) -> None:
        """Pump, tick and carry out until nothing moves any more, all at the story's time; then tell."""
        from stellwerk.worker.run import run_worker

        for _ in range(MOST_TURNS):
            pumped = self._engine.value("select stellwerk.pump()")
            ticked = self._engine.value("select stellwerk.tick()")
            moved = sum(pumped.get(key) or 0 for key in ("events", "runs_started", "runs_advanced", "steps"))
            moved += sum(ticked.get(key) or 0 for key in ("fired", "row_changes"))
            if self._engine.value(
                "select exists (select from stellwerk.step"
                " where state = 'queued' and runs_in = 'worker' and due_at is null)"
            ):
                self._runner.run(run_worker(self._settings, dsn=self._shifted_dsn(), drain=True, as_login=True))
            elif not moved and not pumped.get("more"):
                break
        self._tell()

    def _shifted_dsn(self) -> str:
        """What a worker connects with, so that it goes by the story's clock."""
        shift = self._engine.value("select current_setting('stellwerk.clock_shift')")
        given = conninfo_to_dict(self._dsn).get("options") or ""
        return make_conninfo(self._dsn, options=f"{given} -c stellwerk.clock_shift={shift}".strip())

    # -- the actors -------------------------------------------------------------------------------------------------

    def _act(self, scene: Mapping[str, Any]) -> None:
        found = self._look(scene["look"]) if "look" in scene else {}
        if "form" in scene:
            self._post(f"/forms/{self._settings.tenant}/{scene['form']}", json=scene["fields"])
        if "sql" in scene:
            self._application.execute(scene["sql"].encode())
        if "hook" in scene:
            body = json.dumps(_filled(scene["body"], found), ensure_ascii=False).encode()
            source = scene["hook"]
            scheme = self._script["hooks"][source]["scheme"]
            # Deliveries are signed by the world's clock: the story's is the engine's alone.
            at = int(self._engine.value("select extract(epoch from clock_timestamp())::bigint"))
            number = f"story-{self._mark}-{scene['at']}"
            headers = signatures.sign(scheme, self._secrets[source], body, timestamp=at, number=number)
            self._post(
                f"/hooks/{self._settings.tenant}/{source}",
                content=body,
                headers={**headers, "content-type": "application/json"},
            )
        if "task" in scene:
            self._engine.value("select set_config('stellwerk.actor', %s, false)", [scene["as"]])
            self._engine.complete_task(int(_filled(scene["task"], found)), scene["result"], scene["outcome"])
            self._engine.value("select set_config('stellwerk.actor', '', false)")

    def _look(self, query: str) -> dict[str, Any]:
        row = self._application.execute(query.encode()).fetchone()
        if row is None:
            raise StellwerkError("the story cannot go on: something that it looks for is not there", query)
        return dict(row)

    def _post(self, path: str, **request: Any) -> None:
        answer = self._runner.run(self._posted(path, request))
        self._line("", f"POST {path} → {answer.status_code}")
        if answer.status_code != 202:
            raise StellwerkError(f"POST {path} was answered {answer.status_code}", answer.text)

    @functools.cached_property
    def _web(self) -> Litestar:
        from stellwerk.web.app import make_app

        return make_app(self._dsn, self._settings)

    async def _posted(self, path: str, request: Mapping[str, Any]) -> httpx2.Response:
        """By the web application itself, in this process: there is no network between."""
        from stellwerk.web.app import use_database

        app = self._web
        use_database(app, self._dsn, self._settings)  # its connections end with each post
        transport = httpx2.ASGITransport(app=cast(Any, app))
        async with app.lifespan(), httpx2.AsyncClient(transport=transport, base_url="http://demo") as client:
            return await client.post(path, **request)

    # -- telling ----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        """What is new since it was told last, run by run."""
        steps = self._engine.rows(
            "select run_id, step_id, node_id, type, state, port from stellwerk.step_timeline where run_id > %s"
            " order by run_id, coalesce(ended_at, started_at, queued_at), step_id",
            [self._mark],
        )
        for run_id in sorted({row["run_id"] for row in steps}):
            done = [
                row
                for row in steps
                if row["run_id"] == run_id
                and row["state"] not in ("queued", "waiting", "running", "joining")
                and (run_id, row["step_id"]) not in self._told_steps
            ]
            self._told_steps |= {(run_id, row["step_id"]) for row in done}
            whose = str(self._engine.value("select payload ->> 'name' from stellwerk.run where run_id = %s", [run_id]))
            shown = [self._step(row) for row in done if not row["type"].startswith("trigger.")]
            if shown:
                self._line("workflow", f"{whose}: {', '.join(shown)}")
            self._tell_case(run_id)
            self._tell_wait(run_id, whose, bool(shown))
        self._told_history = int(self._engine.value("select coalesce(max(history_id), 0) from stellwerk.case_history"))

    def _step(self, step: Mapping[str, Any]) -> str:
        name = self._names.get(step["node_id"], step["node_id"])
        port = "" if step["port"] in (None, "next") else f" → {step['port']}"
        return f"{name}{port}" if step["state"] == "completed" else f"{name} ({step['state']})"

    def _tell_case(self, run_id: int) -> None:
        for row in self._engine.rows(
            "select h.* from stellwerk.case_timeline h where h.run_id = %s and h.history_id > %s order by h.history_id",
            [run_id, self._told_history],
        ):
            changes = row["changes"]
            if (status := changes.get("status")) is not None:
                was = f"{status['from']} → " if status["from"] else ""
                note = f" ({row['note']})" if row["note"] else ""
                self._line("", f"case {row['case_id']}: {was}{status['to']}{note}")
            elif row["kind"] == "appointment" and (moved := changes.get("appointment.starts_at")) and moved["from"]:
                self._line("", f"case {row['case_id']}: appointment moved to {self._local(moved['to'])}")

    def _tell_wait(self, run_id: int, whose: str, already: bool) -> None:
        sentence = self._engine.why(run_id)
        waits = re.search(r"step (\w+) \([\w.]+\) (.*)\.$", sentence, re.DOTALL)
        text = ""
        if waits is not None:
            what = self._local_times(waits[2].partition(", since ")[0])
            text = f"{self._names.get(waits[1], waits[1])} {what}"
        if text and self._told_waits.get(run_id) != text:
            self._line("" if already else "workflow", ("now " if already else f"{whose}: ") + text)
        self._told_waits[run_id] = text

    def _finish(self, runs: Sequence[Mapping[str, Any]], seconds: float) -> None:
        if runs and all(run["ended_at"] for run in runs):
            days = (max(run["ended_at"] for run in runs) - min(run["started_at"] for run in runs)).days
            self._say("")
            self._say(f"{len(runs)} runs over {days} days, played in {seconds:.1f} s.")

    def _line(self, who: str, what: str) -> None:
        now = self._now.astimezone(self._zone)
        if now.date() != self._said_at.date():
            self._say("")
            self._say(f"{DAYS[now.weekday()]} {now.day} {MONTHS[now.month - 1]} {now.year}")
        at = "" if now == self._said_at else f"{now:%H:%M}"
        self._said_at = now
        self._say(f"  {at:5}  {who:<{WHO}}  {what}")

    def _local(self, text: str) -> str:
        at = datetime.datetime.fromisoformat(text).astimezone(self._zone)
        return f"{DAYS[at.weekday()]} {at.day} {MONTHS[at.month - 1]} {at.year}, {at:%H:%M}"

    def _local_times(self, text: str) -> str:
        return re.sub(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", lambda found: self._local(found[1] + "+00:00"), text)


def _filled(value: Any, found: Mapping[str, Any]) -> Any:
    """A value of the script with what was looked up in place of $name."""
    if isinstance(value, str) and value.startswith("$"):
        item = found[value[1:]]
        return item.isoformat() if isinstance(item, datetime.datetime) else item
    if isinstance(value, dict):
        return {name: _filled(item, found) for name, item in value.items()}
    return value
