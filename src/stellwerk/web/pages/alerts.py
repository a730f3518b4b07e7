"""Alerts: what was raised, and the rules that do it."""

from __future__ import annotations

import re
from typing import Any

from litestar import Router

from stellwerk.errors import UsageError
from stellwerk.web import cursors, routes
from stellwerk.web.desk import Desk
from stellwerk.web.posted import Posted

KINDS = ("failed_share", "stuck", "queue_depth", "tasks_overdue", "no_worker")
PERIOD = re.compile(r"P(?=.)(\d+D)?(T(?=.)(\d+H)?(\d+M)?)?\Z", re.ASCII)
# The words of an alert are put together for those that are shown only.
ALERTS = """
  select a.*
    from (select x.alert_id from stellwerk.alert x
           where x.tenant_id = (select stellwerk.current_tenant_id())
             and x.alert_id < coalesce(%(before)s::bigint, 9223372036854775807)
           order by x.alert_id desc limit %(limit)s) n
   cross join lateral (select o.* from stellwerk.alert_overview o where o.alert_id = n.alert_id offset 0) a
   order by a.alert_id desc
"""
RULES = """
  select r.name, r.kind, r.workflow, r.threshold, r.period::text as period, r.recipients, r.enabled,
         exists (select from stellwerk.alert a
                  where a.tenant_id = r.tenant_id and a.rule_id = r.rule_id and a.resolved_at is null) as raised
    from stellwerk.alert_rule r
   where r.tenant_id = (select stellwerk.current_tenant_id())
   order by r.name limit 500
"""


@routes.get("/alerts")
def show_alerts(desk: Desk, cursor: str = "") -> Any:
    """The newest alerts first, and the rules."""
    key = cursors.read(cursor or None, int)
    rows = desk.rows(ALERTS, {"before": key[0] if key else None, "limit": cursors.DEFAULT + 1})  # type: ignore[arg-type]
    page = cursors.page(rows, cursors.DEFAULT, "alert_id")
    if desk.is_fragment:
        return desk.page("alerts/_alerts.html", page=page)
    return desk.page("alerts/page.html", page=page, rules=desk.rows(RULES), kinds=KINDS)


@routes.post("/alerts/rules", needs="manage", status_code=200)
def set_rule(desk: Desk, body: bytes) -> Any:
    """A new rule, or another one of the same name."""
    posted = Posted(body)
    try:
        threshold = float(posted.text("threshold").replace(",", "."))
    except ValueError:
        raise UsageError(desk.t("This is no number.")) from None
    period = posted.text("period", "PT1H")
    if not PERIOD.match(period):
        raise UsageError(desk.t("The period is written like PT30M, PT2H or P1D."))
    recipients = [part.strip() for part in posted.text("recipients").split(",") if part.strip()]
    with desk.engine() as engine:
        engine.value(
            "select stellwerk.set_alert_rule(name => %s, kind => %s, threshold => %s, workflow => %s,"
            " period => %s::interval, recipients => %s)",
            [
                posted.text("name"),
                posted.text("kind"),
                threshold,
                posted.text("workflow") or None,
                period,
                recipients or ["role:admin"],
            ],
        )
    return desk.page("alerts/_rules.html", rules=desk.rows(RULES))


@routes.post("/alerts/rules/{name:str}/removal", needs="manage", status_code=200)
def remove_rule(desk: Desk, name: str) -> Any:
    """The rule goes, with the alerts that it has raised."""
    with desk.engine() as engine:
        engine.value("select stellwerk.remove_alert_rule(%s)", [name])
    return desk.page("alerts/_rules.html", rules=desk.rows(RULES))


router = Router("/", route_handlers=[show_alerts, set_rule, remove_rule])
