"""What is asked for: every GET route of the application, with every filter that it takes. A route or filter unknown here stops the measurement."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from litestar import Litestar
from litestar.routes import HTTPRoute

Things = dict[str, Any]

PAGE_GOAL, DASHBOARD_GOAL = 100.0, 200.0
STREAMS = "streams and files, which end when they are read: /live/… is measured by listeners.py, files grow with what is asked for"
LIVE = {"/live/runs/{run_id}", "/live/overview", "/live/dashboard", "/live/tasks", "/live/cases"}  # never end
LEFT_OUT = {
    *LIVE,
    "/runs/{run_id}/loops/{step_id}",
    "/backoffice/cases.csv",
    "/api/backoffice/cases.csv",
}  # files, and items of loops, which none of these runs has
NOT_A_FILTER = {"desk", "state", "request", "asked", "cursor", "limit"}

# What a filter of that name is asked for with, drawn anew each time.
FILTERS: dict[str, Callable[[Things], Any]] = {
    "actor": lambda t: random.choice(["staff7@example.org", "operator2@example.org", "admin0@example.org", "nobody@example.org"]),
    "subject": lambda t: random.choice(["run", "backoffice_case", "workflow", "app_user", "nothing"]),
    "assignee": lambda t: random.choice(["me", "staff3@example.org", "staff30@example.org", "staff150@example.org"]),
    "workflow": lambda t: random.choice(t["workflows"]),
    "text": lambda t: random.choice(["standard", t["name"], t["name"].split()[0], t["city"], t["email"], f"{t['city']} standard", "xyzzy"]),
    "words": lambda t: random.choice(["standard", t["name"], t["name"].split()[0], t["city"], t["email"], "Review", "xyzzy"]),
    "q": lambda t: random.choice(["order", "branch 2", "xyzzy"]),
    "only": lambda t: random.choice(["published", "draft"]),
    "key": lambda t: f"order-{t['run_id'] // 10 * 10}",
    "since": lambda t: t["moment"].isoformat(),
    "until": lambda t: t["moment"].isoformat(),
    "target": lambda t: random.choice(["bench.customer", "public.nothing"]),
    "table": lambda t: random.choice(["bench.customer", "public.nothing"]),
    "operation": lambda t: random.choice(["insert", "update", "delete"]),
    "record": lambda t: random.choice([t["record"], "0"]),
    "which": lambda t: random.choice(["all", "mine", "group", "overdue"]),
    "scope": lambda t: random.choice(["mine", "all"]),
    "done": lambda t: "yes",
    "days": lambda t: random.choice([1, 7, 30, 90]),
    "version": lambda t: 1,
    "a": lambda t: 1, "b": lambda t: 2, "from": lambda t: 1, "to": lambda t: 2,
    "run": lambda t: t["run_id"],
    "before": lambda t: t["step_id"],
    "node": lambda t: t["node_id"],
    "step": lambda t: t["step_id"],
    "from_node": lambda t: "announce",
    "back": lambda t: 1,
    "still_open": lambda t: "true",
    "open": lambda t: "yes",
    "next": lambda t: "/runs",
    "tenant": lambda t: "default",
}  # fmt: skip
RUN_STATES = ("pending", "running", "waiting", "paused", "completed", "failed", "cancelled")
STATES = {
    "/runs": RUN_STATES,
    "/api/workflows/{slug}/executions": RUN_STATES,
    "/events": ("pending", "processed", "ignored", "failed"),
    "/api/workflows/events/log": ("pending", "processed", "ignored", "failed"),
    "/api/user-tasks": ("open", "claimed", "completed", "expired", "cancelled"),
}
CASE_STATUSES = ("new", "missing", "complete", "nothing")
# What cannot be drawn from the route alone, and what people combine.
NEEDED = {
    "/api/workflows/{slug}/diff": "from=1&to=2",
    "/runs/{run_id}/steps": "before={step_id}",
    "/workflow-builder/{slug}/context": "run={run_of_slug}",
}
ALSO = {
    "/runs": ("state=failed&workflow={slug}", "state=completed&workflow={slug}", "state=failed&text={city}", "state=completed&text=standard", "workflow={slug}&text=standard",
              "workflow={slug}&text={city}", "since={moment}&text=standard", "since={moment}&state=failed", "since={moment}&workflow={slug}", "text=standard&until={moment}"),
    "/backoffice": ("status=new&words=standard", "status=missing&words={city}", "status=complete&workflow={case_workflow}", "assignee=staff3@example.org&status=complete", "assignee=staff3@example.org&words=standard", "workflow={case_workflow}&words=standard", "workflow={case_workflow}&words={name}"),
    "/api/backoffice/cases": ("status=new,missing&words=standard", "status=complete&workflow={case_workflow}"),
    "/events": ("state=failed&operation=update", "state=failed&operation=insert", "target=public.nothing&state=processed", "record=0&state=failed"),
    "/audit": ("actor=nobody@example.org&subject=run", "actor=staff7@example.org&subject=backoffice_case"),
}  # fmt: skip
INSTEAD = {
    "/bulk/order": ("/bulk/order?action=cancel&workflow={slug}", "/bulk/order?action=retry&workflow={slug}&state=failed", "/bulk/order?action=migrate&workflow={slug}"),
    "/runs/{run_id}/history": ("/runs/{run_id}/history", "/runs/{run_id}/history?moment=3"),
    "/runs/{run_id}/diff": ("/runs/{run_id}/diff", "/runs/{run_id}/diff?with={failed_id}"),
    "/runs/{run_id}/act/{action}": ("/runs/{run_id}/act/cancel", "/runs/{run_id}/act/edit", "/runs/{failed_id}/act/retry", "/runs/{waiting_id}/act/skip?step={waiting_step}", "/runs/{waiting_id}/act/signal?step={waiting_step}"),
    "/runs/{run_id}/plan": ("/runs/{failed_id}/plan", "/runs/{failed_id}/plan?from_node=order"),
    "/runs/{run_id}": ("/runs/{run_id}", "/runs/{failed_id}", "/runs/{waiting_id}"),
    "/scripts/{version}/{folder}/{name}": ("/scripts/0/builder/main.js",),
    "/static/{file_path}": ("/static/stellwerk.css", "/static/icons.svg"),
    "/welcome/{secret}": ("/welcome/1.unknown",),
}  # fmt: skip
ANSWERS = {"/welcome/{secret}": (404,), "/login": (200, 303)}  # others than 200
STAFF_TOO = ("/tasks", "/backoffice", "/api/user-tasks", "/api/backoffice")


@dataclass(frozen=True)
class Place:
    """Something that is asked for again and again, each time with other values."""

    route: str
    pattern: str
    draw: Callable[[Things], str]
    role: str = "admin"
    pages: bool = False
    """Goes on from page to page of a list instead."""

    @property
    def goal(self) -> float:
        return DASHBOARD_GOAL if self.route == "/" else PAGE_GOAL

    @property
    def is_api(self) -> bool:
        return self.route.startswith("/api/")

    @property
    def answers(self) -> tuple[int, ...]:
        return ANSWERS.get(self.route, (200,))

    @property
    def title(self) -> str:
        return (
            self.pattern + (" (following pages)" if self.pages else "") + (" (staff)" if self.role == "staff" else "")
        )


def places(app: Litestar) -> Iterator[Place]:
    """All that is asked for."""
    for route in app.routes:
        if not isinstance(route, HTTPRoute):
            continue
        path = re.sub(r"\{(\w+):\w+\}", r"{\1}", route.path)
        for handler in route.route_handlers:
            if "GET" in handler.http_methods and path not in LEFT_OUT:
                found = list(_of_route(path, handler))
                yield from found
                if path.startswith(STAFF_TOO):
                    yield from (
                        Place(p.route, p.pattern, p.draw, "staff", p.pages) for p in found if "scope=" not in p.pattern
                    )


def _of_route(path: str, handler: Any) -> Iterator[Place]:
    for pattern in INSTEAD.get(path, (path + ("?" + NEEDED[path] if path in NEEDED else ""),)):
        yield Place(path, pattern, _filled(pattern))
    if path in INSTEAD:
        return
    operation = handler.opt.get("operation")
    asked = (
        [field.alias or name for name, field in operation.asks.model_fields.items()]
        if operation and operation.asks
        else []
    )
    taken = [*asked, *(name.removeprefix("in_") for name in handler.parsed_fn_signature.parameters)]
    takes_state = "state" in asked or "in_state" in handler.parsed_fn_signature.parameters
    for name in taken:
        if name in NOT_A_FILTER or "{" + name + "}" in path or f"{name}=" in NEEDED.get(path, ""):
            continue
        if name == "status":
            values: tuple[str, ...] = CASE_STATUSES
        elif name in FILTERS:
            yield Place(path, f"{path}?{name}=…", _with_filter(path, name))
            continue
        else:
            raise LookupError(f"{path} takes {name}: say in FILTERS what it is asked for with")
        yield from (Place(path, f"{path}?{name}={value}", _filled(f"{path}?{name}={value}")) for value in values)
    if takes_state:
        yield from (Place(path, f"{path}?state={value}", _filled(f"{path}?state={value}")) for value in STATES[path])
    yield from (Place(path, f"{path}?{query}", _filled(f"{path}?{query}")) for query in ALSO.get(path, ()))
    if "cursor" in taken:
        yield Place(path, path, _filled(path), pages=True)
        for query in ALSO.get(path, ())[:2]:
            yield Place(path, f"{path}?{query}", _filled(f"{path}?{query}"), pages=True)


def _filled(pattern: str) -> Callable[[Things], str]:
    names = re.findall(r"\{(\w+)\}", pattern)
    unknown = set(names) - NAMES
    if unknown:
        raise LookupError(f"{pattern}: say in things() what {', '.join(sorted(unknown))} may be")

    def fill(things: Things) -> str:
        return re.sub(r"\{(\w+)\}", lambda place: quote(str(things[place[1]]), safe=""), pattern)

    return fill


def _with_filter(path: str, name: str) -> Callable[[Things], str]:
    fill = _filled(path)
    return lambda things: f"{fill(things)}?{urlencode({name: FILTERS[name](things)})}"


NAMES = {
    *(
        "run_id",
        "slug",
        "step_id",
        "node_id",
        "node",
        "moment",
        "name",
        "city",
        "email",
        "failed_id",
        "waiting_id",
        "waiting_step",
        "case_id",
        "task_id",
    ),
    *("operation_id", "event_id", "schedule_id", "table", "run_of_slug", "case_workflow"),
}

# Old and new ones, in all states; each with what belongs to it.
RUNS = """
with picked as (
  select r.* from stellwerk.run r
   where r.tenant_id = 1 and r.run_id in (
     select (x.low + random() * (x.high - x.low))::bigint from (select min(run_id) as low, max(run_id) as high from stellwerk.run where tenant_id = 1) x cross join generate_series(1, 600)
     union select run_id from (select run_id from stellwerk.run where tenant_id = 1 order by run_id desc limit 100) n))
select p.run_id, s.step_id, s.node_id, p.created_at as moment, p.payload ->> 'name' as name, p.payload ->> 'city' as city, w.slug
  from picked p
  join stellwerk.workflow w on w.tenant_id = p.tenant_id and w.workflow_id = p.workflow_id
 cross join lateral (select o.step_id, o.node_id from stellwerk.step o where o.tenant_id = p.tenant_id and o.run_id = p.run_id order by random() limit 1) s
"""
LISTS = {
    "failed_id": "select run_id from stellwerk.run where tenant_id = 1 and state = 'failed' order by random() limit 200",
    "case_id": "select case_id from stellwerk.backoffice_case where tenant_id = 1 order by random() limit 500",
    "event_id": "select event_id from stellwerk.event where tenant_id = 1 order by random() limit 300",
    "record": "select record_id from stellwerk.event where tenant_id = 1 order by random() limit 300",
    "operation_id": "select operation_id from stellwerk.bulk_operation where tenant_id = 1",
    "schedule_id": "select schedule_id from stellwerk.schedule where tenant_id = 1",
    "slugs": "select slug from stellwerk.workflow where tenant_id = 1",
    "workflows": "select slug from stellwerk.workflow w where tenant_id = 1 and active_version > 1",
    "case_workflow": "select distinct workflow from stellwerk.backoffice_case where tenant_id = 1",
    "email": "select email from stellwerk.app_user where tenant_id = 1",
    "task_id": "select task_id from stellwerk.user_task where tenant_id = 1 and state in ('open', 'claimed') and (assignee = 'staff0@example.org' or assignee is null and claimed_by is null and role = 'staff') order by random() limit 300",
}  # fmt: skip
WAITING = """
select w.run_id, w.step_id from stellwerk.wait w join stellwerk.run r on r.tenant_id = w.tenant_id and r.run_id = w.run_id
 where w.tenant_id = 1 and w.event is not null and r.state = 'waiting' order by random() limit 200
"""


def things(connection: psycopg.Connection[Any]) -> Callable[[], Things]:
    """Answers something of everything, each time something else, that belongs together."""
    with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        runs = cursor.execute(RUNS).fetchall()
        waiting = cursor.execute(WAITING).fetchall()
    lists = {name: [row[0] for row in connection.execute(query.encode()).fetchall()] for name, query in LISTS.items()}
    empty = [name for name, values in lists.items() if not values]
    if empty or not runs or not waiting:
        raise LookupError(f"the database has none of these: {empty}")

    def draw() -> Things:
        run, wait = random.choice(runs), random.choice(waiting)
        one = {name: random.choice(values) for name, values in lists.items()}
        return {
            **one,
            **run,
            "workflows": lists["workflows"],
            "slug": run["slug"],
            "node": run["node_id"],
            "table": "bench.customer",
            "run_of_slug": run["run_id"],
            "waiting_id": wait["run_id"],
            "waiting_step": wait["step_id"],
        }

    return draw
