"""Schedules: what starts when, and holding, starting and making up for it."""

from __future__ import annotations

from typing import Any

from litestar import Router
from litestar.datastructures import State

from stellwerk.errors import UnknownThing, UsageError
from stellwerk.web import routes
from stellwerk.web.desk import Desk
from stellwerk.web.pages.runs import Form, moment

# A tenant has as many rows as its published workflows have trigger.schedule nodes.
LIST = """
  select s.schedule_id, s.node_id, s.cron, s.every::text as every, coalesce(s.time_zone,
      t.time_zone) as time_zone, s.catch_up, s.next_run, s.last_run,
         s.last_run_id, s.paused_at, s.paused_by, s.trouble, w.slug, w.name, r.state as last_state
    from stellwerk.schedule s
    join stellwerk.tenant t on t.tenant_id = s.tenant_id
    join stellwerk.workflow w on w.tenant_id = s.tenant_id and w.workflow_id = s.workflow_id
    left join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.last_run_id
   where s.tenant_id = (select stellwerk.current_tenant_id()) and (%(one)s::bigint is null or s.schedule_id = %(one)s)
   order by s.paused_at is not null, s.next_run nulls last, s.schedule_id
   limit 1000
"""


@routes.get("/schedules")
def show_schedules(desk: Desk) -> Any:
    """The next first."""
    return desk.page("schedules/page.html", schedules=desk.rows(LIST, {"one": None}), notice=None)  # type: ignore[arg-type]


@routes.get("/schedules/{schedule_id:int}/times")
def show_times(desk: Desk, schedule_id: int) -> Any:
    """When it starts next, and the form that makes up for the past."""
    with desk.engine() as engine:
        schedule = _find(engine.rows(LIST, {"one": schedule_id}), schedule_id)  # type: ignore[arg-type]
        times = engine.rows(
            "select x as at from stellwerk.schedule_times(%s, 10, %s) x", [schedule["slug"], schedule["node_id"]]
        )
    return desk.page("schedules/_times.html", schedule=schedule, times=[row["at"] for row in times])


@routes.post("/schedules/{schedule_id:int}/{step:str}", needs="operate", status_code=200)
def steer_schedule(desk: Desk, state: State, schedule_id: int, step: str, data: Form) -> Any:
    """Hold it, let it go on, start a run now, or make up for times that have passed."""
    notice = None
    with desk.engine() as engine:
        schedule = _find(engine.rows(LIST, {"one": schedule_id}), schedule_id)  # type: ignore[arg-type]
        which = [schedule["slug"], schedule["node_id"]]
        if step == "pause":
            engine.value("select stellwerk.pause_schedule(%s, %s)", which)
        elif step == "resume":
            engine.value("select stellwerk.resume_schedule(%s, %s)", which)
        elif step == "run":
            run_id = engine.value("select stellwerk.run_schedule(%s, %s)", which)
            notice = {"text": desk.t("Run {number} is started.", number=run_id), "run_id": run_id}
        elif step == "backfill":
            since, until = moment(data.get("since", "")), moment(data.get("until", ""))
            if since is None or until is None:
                raise UsageError(desk.t("Say from when until when."))
            count = engine.value(
                "select stellwerk.backfill_schedule(%s, %s, %s, %s)", [which[0], since, until, which[1]]
            )
            notice = {"text": desk.t("{count} runs are started.", count=count), "run_id": None}
        else:
            raise UnknownThing(f"a schedule cannot {step}")
        schedules = engine.rows(LIST, {"one": None})  # type: ignore[arg-type]
    state.live.nudge()
    return desk.page("schedules/_list.html", schedules=schedules, notice=notice)


def _find(rows: list[dict[str, Any]], schedule_id: int) -> dict[str, Any]:
    if not rows:
        raise UnknownThing(f"there is no schedule {schedule_id}")
    return rows[0]


router = Router("/", route_handlers=[show_schedules, show_times, steer_schedule])
