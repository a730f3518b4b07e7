"""All that the page of one run shows, read in a handful of statements whose cost does not grow with its history."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from stellwerk.definition.catalog import node_type
from stellwerk.engine import Engine, Row
from stellwerk.errors import UnknownThing
from stellwerk.web.graph_layout import HEIGHT, WIDTH, Layout, lay_out

WINDOW = 200  # steps of the timeline that are shown at once

RUN = """
  select r.*, w.name, v.document,
         (select c.case_id from stellwerk.backoffice_case c
           where c.tenant_id = (select stellwerk.current_tenant_id()) and c.run_id = r.run_id) as case_id
    from stellwerk.run_overview r
    join stellwerk.workflow w on w.tenant_id = (select stellwerk.current_tenant_id()) and w.slug = r.workflow
    join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id
        and v.version = r.version
   where r.run_id = %s
"""
NODES = """
  select s.node_id, s.state, s.port, count(*)::int as count, max(s.step_id) as last_step,
         bool_or(s.undoes is not null) as undo
    from stellwerk.step s
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %s
   group by s.node_id, s.state, s.port
"""
LOOPS = """
  select s.node_id, sum(l.item_count)::int as items, sum(l.ended)::int as ended
    from stellwerk.loop l
    join stellwerk.step s on s.tenant_id = l.tenant_id and s.run_id = l.run_id and s.step_id = l.step_id
   where l.tenant_id = (select stellwerk.current_tenant_id()) and l.run_id = %s
   group by s.node_id
"""
STEPS = """
  select s.run_id, s.step_id, s.node_id, s.type, s.runs_in, s.scope_id as scope, s.visit, s.state, s.attempt,
      s.failures, s.port,
         s.queued_at, s.started_at, s.ended_at, nullif(s.due_at, stellwerk.never()) as due_at, s.undoes,
         coalesce((select jsonb_agg(jsonb_build_array(a.outcome, a.started_at, a.ended_at) order by a.attempt)
                     from stellwerk.step_attempt a
                    where a.tenant_id = s.tenant_id and a.run_id = s.run_id and a.step_id = s.step_id),
                        '[]') as attempts,
         (select x.position from stellwerk.scope x
           where x.tenant_id = s.tenant_id and x.run_id = s.run_id and x.scope_id = s.scope_id) as position
    from stellwerk.step s
   where s.tenant_id = (select stellwerk.current_tenant_id()) and s.run_id = %(run)s
     and (%(before)s::bigint is null or s.step_id < %(before)s)
   order by s.step_id desc
   limit %(limit)s
"""
WAITS = """
  select w.step_id, w.kind, w.event, w.correlation, w.child_run_id
    from stellwerk.wait w
   where w.tenant_id = (select stellwerk.current_tenant_id()) and w.run_id = %s
   order by w.step_id limit 50
"""
LINKS = """
  select (select jsonb_build_object('event_id', e.event_id::text, 'target', e.target, 'record_id', e.record_id,
      'operation', e.operation)
            from stellwerk.event e where e.tenant_id = t.tenant_id and e.event_id = %(event)s) as event,
         (select coalesce(jsonb_agg(jsonb_build_object('task_id', x.task_id::text, 'title', x.title, 'state',
             x.state)), '[]')
            from (select u.task_id, u.title, u.state from stellwerk.user_task u
                   where u.tenant_id = t.tenant_id
                       and u.run_id = %(run)s order by u.task_id desc limit 10) x) as tasks,
         (select coalesce(jsonb_agg(jsonb_build_object('run_id', x.run_id::text, 'state', x.state)), '[]')
            from (select c.run_id, c.state from stellwerk.run c
                   where c.tenant_id = t.tenant_id
                       and c.parent_run_id = %(run)s order by c.run_id desc limit 10) x) as children,
         (select count(*)::int from (select from stellwerk.message m
                   where m.tenant_id = t.tenant_id and m.run_id = %(run)s limit 1000) m) as messages
    from (select stellwerk.current_tenant_id() as tenant_id) t
"""

LIVE = ("pending", "running", "waiting", "paused")
# What a node looks like whose steps are in several states: the first of these that one of them is in.
LOUDEST = ("failed", "running", "waiting", "joining", "queued", "completed", "skipped", "cancelled")


@dataclass(frozen=True)
class NodeView:
    """A node of the graph with what became of it in this run."""

    node: str
    name: str
    type: str
    state: str
    count: int
    last_step: int | None
    done: int | None
    items: int | None
    x: int
    y: int


@dataclass(frozen=True)
class WireView:
    """An edge; taken, now (its target is at work), or neither."""

    path: str
    state: str
    port: str
    x: int
    y: int


@dataclass(frozen=True)
class Segment:
    """A piece of a step's bar, in thousandths of the time shown."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class StepView:
    """A line of the timeline."""

    step: Row
    name: str
    segments: list[Segment]
    seconds: float | None


@dataclass(frozen=True)
class RunView:
    """The page's values."""

    run: Row
    layout: Layout
    nodes: list[NodeView]
    wires: list[WireView]
    steps: list[StepView]
    earlier: int | None
    begin: datetime.datetime
    end: datetime.datetime
    waits: list[Row]
    links: Row
    actions: list[str]
    reasons: list[Row]
    names: dict[str, str]
    width: int = WIDTH
    height: int = HEIGHT


def read_run(engine: Engine, run_id: int) -> RunView:
    """The run and the newest of its steps; `UnknownThing` where there is no such run."""
    found = engine.rows(RUN, [run_id])
    if not found:
        raise UnknownThing(f"there is no run {run_id}", hint="The list of runs shows the latest.")
    run = found[0]
    document = run["document"]
    layout = lay_out(document["nodes"], document.get("edges", []))
    kinds = engine.rows(NODES, [run_id])
    loops = {row["node_id"]: row for row in engine.rows(LOOPS, [run_id])}
    steps, earlier = read_steps(engine, run_id, None)
    names = node_names(document)
    begin, end = time_shown(run, steps)
    nodes, wires = graph_of(document, layout, kinds, loops)
    return RunView(
        run=run,
        layout=layout,
        nodes=nodes,
        wires=wires,
        steps=[step_view(step, names, begin, end) for step in steps],
        earlier=earlier,
        begin=begin,
        end=end,
        waits=engine.rows(WAITS, [run_id]) if run["state"] in LIVE else [],
        links=engine.row(LINKS, {"run": run_id, "event": run["event_id"]}),  # type: ignore[arg-type]
        actions=actions_of(run),
        reasons=engine.explain_run(run_id),
        names=names,
    )


def read_steps(engine: Engine, run_id: int, before: int | None) -> tuple[list[Row], int | None]:
    """The newest steps before the given one, in the order in which they began; and where to go on if there are more."""
    rows = engine.rows(STEPS, {"run": run_id, "before": before, "limit": WINDOW + 1})  # type: ignore[arg-type]
    shown = rows[:WINDOW]
    return shown[::-1], shown[-1]["step_id"] if len(rows) > WINDOW else None


def node_names(document: dict[str, Any]) -> dict[str, str]:
    """What the nodes are called on a page."""
    return {str(node["id"]): str(node.get("name") or node["id"]) for node in document["nodes"]}


def actions_of(run: Row) -> list[str]:
    """What makes sense to do with a run now."""
    state = run["state"]
    if state in ("failed", "cancelled"):
        return ["retry", "edit"]
    if state == "paused":
        return ["resume", "edit", "cancel"]
    if state in LIVE:
        return ["pause", "cancel"] if not run["ending"] else ["cancel"]
    return []


def time_shown(run: Row, steps: list[Row]) -> tuple[datetime.datetime, datetime.datetime]:
    """From the first step of the window to the run's end, or to now."""
    begin = min((step["queued_at"] for step in steps), default=run["created_at"])
    now = datetime.datetime.now(datetime.UTC)
    ends = [step["ended_at"] or now for step in steps]
    end = max([*ends, begin + datetime.timedelta(milliseconds=1)])
    return begin, end


def step_view(step: Row, names: dict[str, str], begin: datetime.datetime, end: datetime.datetime) -> StepView:
    """A line of the timeline: waiting for a worker or for the world, then attempts one after the other."""
    whole = (end - begin).total_seconds()

    def part(kind: str, since: datetime.datetime, until: datetime.datetime) -> Segment:
        x = max(0.0, min(1000.0, (since - begin).total_seconds() / whole * 1000))
        width = max(3.0, min(1000.0 - x, (until - since).total_seconds() / whole * 1000))
        return Segment(kind, round(min(x, 997.0), 2), round(width, 2))

    now = max(end, step["queued_at"])
    until = step["ended_at"] or now
    segments = []
    at = step["queued_at"]
    for outcome, since, ended in step["attempts"]:
        started = _time(since) or at
        if started > at:
            segments.append(part("hatch", at, started))
        segments.append(part("lost" if outcome != "failed" else "missed", started, _time(ended) or started))
        at = _time(ended) or at
    kind = node_type(step["type"])  # a wait that is over runs in SQL
    waits = (kind and kind.runs_in == "wait") or step["state"] in ("waiting", "joining", "queued")
    started = step["started_at"]
    if waits or started is None:
        segments.append(part("hatch", at, until))
    elif step["runs_in"] == "sql":
        segments.append(part("solid", at, until))
    else:
        if started > at:
            segments.append(part("hatch", at, started))
        segments.append(part("solid", max(at, started), until))
    seconds = (step["ended_at"] - step["queued_at"]).total_seconds() if step["ended_at"] else None
    return StepView(step, names.get(step["node_id"], str(step["node_id"])), segments, seconds)


def _time(value: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(value) if value else None


def graph_of(
    document: dict[str, Any], layout: Layout, kinds: list[Row], loops: dict[str, Row]
) -> tuple[list[NodeView], list[WireView]]:
    """Nodes and wires of a drawing, given how many steps of each node are in which state and left by which port."""
    return _nodes(document, layout, kinds, loops, node_names(document)), _wires(layout, kinds)


def _nodes(
    document: dict[str, Any], layout: Layout, kinds: list[Row], loops: dict[str, Row], names: dict[str, str]
) -> list[NodeView]:
    by_node: dict[str, list[Row]] = {}
    for row in kinds:
        by_node.setdefault(row["node_id"], []).append(row)
    types = {node["id"]: node["type"] for node in document["nodes"]}
    shown = []
    for box in layout.boxes:
        rows = by_node.get(box.node, [])
        states = {row["state"] for row in rows}
        last = max(rows, key=lambda row: row["last_step"], default=None)
        alive = [state for state in LOUDEST if state in states and state not in ("completed", "skipped", "cancelled")]
        state = alive[0] if alive else last["state"] if last else ""
        if state == "failed" and last and last["state"] != "failed":
            state = last["state"]  # it was tried again
        loop = loops.get(box.node)
        shown.append(
            NodeView(
                node=box.node,
                name=names[box.node],
                type=types[box.node],
                state=state,
                count=sum(row["count"] for row in rows),
                last_step=last["last_step"] if last else None,
                done=loop["ended"] if loop else None,
                items=loop["items"] if loop else None,
                x=box.x,
                y=box.y,
            )
        )
    return shown


def _wires(layout: Layout, kinds: list[Row]) -> list[WireView]:
    left = {
        (row["node_id"], row["port"])
        for row in kinds
        if row["port"] and row["state"] in ("completed", "failed", "skipped")
    }
    reached = {row["node_id"] for row in kinds}
    at_work = {row["node_id"] for row in kinds if row["state"] in ("queued", "running", "waiting", "joining")}
    wires = []
    for wire in layout.wires:
        taken = (wire.source, wire.port) in left and wire.target in reached
        state = ("now" if wire.target in at_work else "taken") if taken else ""
        wires.append(WireView(wire.path, state, "" if wire.port == "next" else wire.port, wire.x, wire.y))
    # What lies above is drawn last.
    return sorted(wires, key=lambda wire: ("", "taken", "now").index(wire.state))
