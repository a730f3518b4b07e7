"""Why a run stands where it stands, in the reader's language: `explain_run` gives code and values, here are the words.

A code that is not known here keeps the sentence of the database.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from stellwerk.engine import Row

Translate = Callable[..., str]  # Desk.t


def sentences(translate: Translate, run: Row, rows: list[Row], names: Mapping[str, str]) -> list[Markup]:
    """The reasons of a run, the first as a sentence that begins with the run."""
    teller = Teller(translate, run["run_id"], names)
    told = [teller.reason(row["code"], row["node_id"], row["evidence"] or {}, row["reason"]) for row in rows]
    if told and rows[0]["code"] not in OF_RUN and rows[0]["code"] in CLAUSES:
        told[0] = teller.t("Run {run} is {state}: {clause}", state=state_name(translate, run["state"]), clause=told[0])
        return [told[0], *map(_capital, told[1:])]
    return [_capital(each) for each in told]


def state_name(t: Translate, state: str) -> str:
    """A run's state within a sentence."""
    return {
        "pending": t("pending"),
        "running": t("running"),
        "waiting": t("waiting"),
        "paused": t("paused"),
        "completed": t("completed"),
        "failed": t("failed"),
        "cancelled": t("cancelled"),
    }.get(state, state)


class Teller:
    """Says reasons of one run."""

    def __init__(self, translate: Translate, run_id: int | str, names: Mapping[str, str]) -> None:
        self.translate = translate
        self.run_id = run_id
        self.names = names

    def t(self, text: str, **values: object) -> Markup:
        """The text in the reader's language; what is filled in is escaped, times become `time` elements."""
        filled = {"run": str(self.run_id), **values}
        return Markup(self.translate(text)).format(**filled)

    def reason(self, code: str | None, node: str | None, facts: dict[str, Any], english: str) -> Markup:
        """One reason: a sentence about the run, or a clause about a step."""
        words = CLAUSES.get(code or "")
        if words is None:
            return Markup("{}").format(english)
        return words(self, {**facts, "node": node})

    # -- parts of sentences

    def step(self, facts: dict[str, Any]) -> Markup:
        node = facts.get("node") or ""
        step = self.t("step “{name}”", name=self.names.get(node, node))
        if facts.get("index") is not None:
            step = self.t("{step}, item {number},", step=step, number=facts["index"] + 1)
        if facts.get("compensates"):
            other = self.names.get(facts["compensates"], facts["compensates"])
            step = self.t("{step}, which compensates “{name}”,", step=step, name=other)
        return step

    def at(self, value: Any) -> Markup:
        """A time as the page shows it; unknown is a dash."""
        if not value:
            return Markup("–")
        at = value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(str(value))
        text = at.astimezone(datetime.UTC)
        return Markup('<time class="exact" datetime="{}">{}</time>').format(
            text.isoformat(timespec="seconds"), text.strftime("%Y-%m-%d %H:%M:%S UTC")
        )

    def idle(self, workers: Any) -> Markup:
        return self.t("; no worker is running that would do it") if not workers else Markup("")

    def overdue(self, timer: dict[str, Any]) -> Markup:
        if not timer.get("overdue"):
            return Markup("")
        if not timer.get("workers"):
            return self.t("; that is overdue, for no worker is running")
        return self.t("; that is overdue and happens at once")

    def until(self, timer: dict[str, Any]) -> Markup:
        """`until …`, or how long still once a paused run goes on."""
        if timer.get("due_at"):
            return self.t("until {at}", at=self.at(timer["due_at"])) + self.overdue(timer)
        return self.t("another {duration} once the run is resumed", duration=timer.get("remaining") or "–")

    def cause(self, error: dict[str, Any] | None) -> str:
        return str((error or {}).get("message") or "").rstrip(".")


def _failed(teller: Teller, facts: dict[str, Any]) -> Markup:
    error = facts.get("error") or {}
    values = {"at": teller.at(facts.get("ended_at")), "cause": teller.cause(error), "kind": error.get("class") or ""}
    if error.get("node"):
        name = teller.names.get(error["node"], error["node"])
        return teller.t("Run {run} failed at {at} in step “{name}”: {cause} ({kind}).", name=name, **values)
    return teller.t("Run {run} failed at {at}: {cause} ({kind}).", **values)


def _compensating(teller: Teller, facts: dict[str, Any]) -> Markup:
    because = teller.cause(facts.get("error")) or str(facts.get("reason") or "").rstrip(".")
    text = teller.t(
        "Run {run} undoes what it has done and then ends as {state}: {left} steps are left.",
        state=state_name(teller.translate, str(facts.get("ending"))),
        left=facts.get("left"),
    )
    return text + (teller.t(" Because: {cause}.", cause=because) if because else "")


def _pending(teller: Teller, facts: dict[str, Any]) -> Markup:
    higher, before = facts.get("of_higher_priority") or 0, facts.get("came_before") or 0
    values = {"since": teller.at(facts.get("since") or facts.get("created_at"))}
    if higher or before:
        text = teller.t(
            "Run {run} waits to be started since {since}; before it: {higher} of higher priority, {before} earlier",
            higher=higher,
            before=before,
            **values,
        )
    else:
        text = teller.t("Run {run} waits to be started since {since}", **values)
    return text + teller.idle(facts.get("workers")) + "."


def _attempt(teller: Teller, facts: dict[str, Any]) -> Markup:
    values = {
        "number": facts.get("attempt"),
        "name": teller.names.get(facts["node"] or "", facts["node"] or ""),
        "at": teller.at(facts.get("ended_at")),
        "cause": teller.cause(facts.get("error")),
    }
    if facts.get("outcome") == "lost":
        return teller.t("attempt {number} of step “{name}” was lost with its worker at {at}.", **values)
    if facts.get("outcome") != "failed":
        return teller.t("attempt {number} of step “{name}” was given back by its worker at {at}.", **values)
    return teller.t("attempt {number} of step “{name}” failed at {at}: {cause}.", **values)


def _message(teller: Teller, facts: dict[str, Any]) -> Markup:
    name = teller.names.get(facts["node"] or "", facts["node"] or "–")
    what = {
        "complete": teller.t("the result of step “{name}”", name=name),
        "fail": teller.t("the failure of step “{name}”", name=name),
        "cancel": teller.t("the request to cancel it"),
        "pause": teller.t("the request to pause it"),
        "resume": teller.t("the request to resume it"),
    }.get(str(facts.get("kind")), teller.t("a message of kind {kind}", kind=facts.get("kind")))
    values = {"what": what, "at": teller.at(facts.get("created_at"))}
    if facts.get("held"):
        return teller.t("{what} came at {at} and is kept until the run is resumed.", **values)
    return (
        teller.t("{what} came at {at} and is about to be applied", **values) + teller.idle(facts.get("workers")) + "."
    )


def _run_timeout(teller: Teller, facts: dict[str, Any]) -> Markup:
    timer = facts.get("timer") or {}
    if timer.get("due_at"):
        return (
            teller.t("the run fails by its time limit at {at}", at=teller.at(timer["due_at"]))
            + teller.overdue(timer)
            + "."
        )
    return teller.t("the run may take another {duration} once it is resumed.", duration=timer.get("remaining") or "–")


def _running(teller: Teller, facts: dict[str, Any]) -> Markup:
    worker = facts.get("worker") or {}
    who = f"{worker['name']} ({worker.get('host') or '–'})" if worker.get("name") else worker.get("worker_id") or "–"
    text = teller.t(
        "{step} runs in worker {worker} since {since}, attempt {attempt}",
        step=teller.step(facts),
        worker=who,
        since=teller.at(facts.get("started_at")),
        attempt=facts.get("attempt"),
    )
    lease, limit = teller.at(facts.get("lease_until")), teller.at(facts.get("timeout_at"))
    match facts.get("trouble"):
        case "vanished":
            text += teller.t("; that worker has vanished, and another takes over (held until {at})", at=lease)
        case "silent":
            text += teller.t("; that worker has given no sign of life since {at}, and another takes over", at=lease)
        case "too_long":
            text += teller.t("; its time limit was over at {at}, and the attempt ends at once", at=limit)
    return text + "."


def _retry(teller: Teller, facts: dict[str, Any]) -> Markup:
    timer = facts.get("timer") or {}
    due = facts.get("due_at") or timer.get("due_at")
    text = teller.t("{step} waits {until}", step=teller.step(facts), until=teller.until({**timer, "due_at": due}))
    if facts.get("failures"):
        text += teller.t(
            " for attempt {next} of {most}, after {failures} failed: {cause}",
            next=facts["failures"] + 1,
            most=facts.get("max_attempts") or "–",
            failures=facts["failures"],
            cause=teller.cause(facts.get("last_error")) or teller.t("it is not known why"),
        )
    return text + "."


def _queued(teller: Teller, facts: dict[str, Any]) -> Markup:
    text = teller.t(
        "{step} waits in the queue since {since} for a worker that carries out {type}",
        step=teller.step(facts),
        since=teller.at(facts.get("queued_at")),
        type=facts.get("type"),
    )
    if not facts.get("workers"):
        text += teller.t("; no such worker is running")
    elif not (facts.get("job") or {}).get("status"):
        text += teller.t("; its row in the queue is lost and is put back by itself")
    return text + "."


def _joining(teller: Teller, facts: dict[str, Any]) -> Markup:
    found = dict.fromkeys(row["node_id"] for row in facts.get("waits_for") or [])
    if not found:
        return teller.t("{step} waits where ways meet, and goes on at once.", step=teller.step(facts))
    others = ", ".join(f"“{teller.names.get(node, node)}”" for node in found)
    return teller.t("{step} waits where ways meet for {others}.", step=teller.step(facts), others=others)


def _event(teller: Teller, facts: dict[str, Any]) -> Markup:
    text = teller.t(
        "{step} waits for the event {event} with the correlation {correlation} since {since}",
        step=teller.step(facts),
        event=facts.get("event"),
        correlation=facts.get("correlation"),
        since=teller.at(facts.get("since")),
    )
    if facts.get("timer"):
        text += teller.t(", no longer than {until}", until=teller.until(facts["timer"]))
    return text + "."


def _child(teller: Teller, facts: dict[str, Any]) -> Markup:
    number, state = facts.get("child_run_id") or "", str(facts.get("child_state"))
    link = Markup('<a class="link" href="/runs/{0}">{0}</a>').format(number)
    text = teller.t(
        "{step} waits for run {child} of {workflow}, which is {state}",
        step=teller.step(facts),
        child=link,
        workflow=facts.get("workflow"),
        state=state_name(teller.translate, state),
    )
    code = facts.get("child_code")
    if code not in CLAUSES or code in ENDINGS:
        return text + "."
    child = Teller(teller.translate, number, {})
    return text + ": " + child.reason(code, facts.get("child_node"), facts.get("child_evidence") or {}, "")


def _task(teller: Teller, facts: dict[str, Any]) -> Markup:
    if facts.get("claimed_by"):
        who = teller.t(
            "{name}, who works on it since {since},", name=facts["claimed_by"], since=teller.at(facts.get("claimed_at"))
        )
    elif facts.get("assignee"):
        who = teller.t("{name}", name=facts["assignee"])
        if facts.get("stand_in"):
            who = teller.t("{name}, who is away, or {other}", name=who, other=facts["stand_in"])
        if facts.get("nobody"):
            who = teller.t("{name}, who is no active user,", name=who)
    elif facts.get("nobody"):
        who = teller.t("somebody with the role {role}, which no active user has,", role=facts.get("role"))
    else:
        who = teller.t("somebody with the role {role}", role=facts.get("role"))
    number = facts.get("task_id") or ""
    task = Markup('<a class="link" href="/tasks/{}">{}</a>').format(number, facts.get("title") or number)
    text = teller.t("{step} waits for {who} to do the task {task}", step=teller.step(facts), who=who, task=task)
    if approvals := facts.get("approvals"):
        text += teller.t(", {given} of {needed} approvals given", given=approvals["given"], needed=approvals["needed"])
    if facts.get("due_at"):
        due = teller.at(facts["due_at"])
        text += teller.t(", overdue since {at}", at=due) if facts.get("overdue") else teller.t(", due at {at}", at=due)
    return text + "."


def _row(teller: Teller, facts: dict[str, Any]) -> Markup:
    row = facts.get("row") or {}
    values = {
        "column": row.get("column"),
        "key": row.get("key"),
        "table": row.get("table"),
        "trouble": row.get("trouble"),
    }
    step = teller.step(facts)
    if row.get("trouble"):
        return teller.t("{step} cannot follow {column} of row {key} in table {table}: {trouble}.", step=step, **values)
    if not facts.get("timer"):
        return teller.t(
            "{step} waits for a time in {column} of row {key} in table {table}, which is empty.", step=step, **values
        )
    until = teller.until(facts["timer"])
    return teller.t(
        "{step} waits {until}, following {column} of row {key} in table {table}.", step=step, until=until, **values
    )


def _key(teller: Teller, facts: dict[str, Any]) -> Markup:
    link = Markup('<a class="link" href="/runs/{0}">{0}</a>').format(facts.get("holder_run_id") or "")
    text = teller.t(
        "Run {run} waits: run {holder} holds the same key “{key}” since {since}",
        holder=link,
        key=facts.get("key") or "",
        since=teller.at(facts.get("since")),
    )
    if facts.get("asked_to_cancel"):
        return text + teller.t(" and has been asked to cancel.")
    if facts.get("before"):
        return text + teller.t("; before it in the line: {before}.", before=facts["before"])
    return text + "."


def _full(teller: Teller, facts: dict[str, Any]) -> Markup:
    links = Markup(", ").join(
        Markup('<a class="link" href="/runs/{0}">{0}</a>').format(number)
        for number in (facts.get("holder_run_ids") or [])[:3]
    )
    return teller.t(
        "Run {run} waits: {most} at once are allowed, under way are {holders}; before it in the line: {before}.",
        most=facts.get("max_running"),
        holders=links,
        before=facts.get("before") or 0,
    )


def _capital(text: Markup) -> Markup:
    return Markup(text[:1].upper()) + text[1:]


Words = Callable[[Teller, dict[str, Any]], Markup]
CLAUSES: dict[str, Words] = {
    "completed": lambda x, f: x.t("Run {run} completed at {at}.", at=x.at(f.get("ended_at"))),
    "failed": _failed,
    "cancelled": lambda x, f: x.t(
        "Run {run} was cancelled at {at}: {reason}.",
        at=x.at(f.get("ended_at")),
        reason=str(f.get("reason") or "–").rstrip("."),
    ),
    "paused": lambda x, f: x.t(
        "Run {run} is paused by {name} since {at}; its timers stand still until it is resumed.",
        name=f.get("paused_by") or "–",
        at=x.at(f.get("paused_at")),
    ),
    "compensating": _compensating,
    "starts_later": lambda x, f: (
        x.t("Run {run} waits for its start at {at}", at=x.at(f.get("start_at"))) + x.overdue(f.get("timer") or {}) + "."
    ),
    "held": lambda x, f: x.t("Run {run} is held back since {at}.", at=x.at(f.get("created_at"))),
    "pending": _pending,
    "earlier_attempt": _attempt,
    "message": _message,
    "run_timeout": _run_timeout,
    "no_live_step": lambda x, f: x.t("it has no step under way and ends at once."),
    "more_steps": lambda x, f: x.t("{more} more steps are under way.", more=f.get("more")),
    "flow_arriving": lambda x, f: x.t("Run {run} waits to be let in or lined up") + x.idle(f.get("workers")) + ".",
    "flow_quiet": lambda x, f: x.t(
        "Run {run} starts at {at} unless another comes before (debounce {duration}).",
        at=x.at(f.get("until")),
        duration=f.get("debounce"),
    ),
    "flow_key": _key,
    "flow_throttle": lambda x, f: x.t(
        "Run {run} waits: its workflow's throttle of {duration} lets the next one start at {at}.",
        duration=f.get("throttle"),
        at=x.at(f.get("until")),
    ),
    "flow_line": lambda x, f: x.t(
        "Run {run} waits: it is number {number} in the line.", number=(f.get("before") or 0) + 1
    ),
    "flow_full": _full,
    "flow_next": lambda x, f: x.t("Run {run} is let in next") + x.idle(f.get("workers")) + ".",
    "step_running": _running,
    "step_rate_limited": lambda x, f: x.t(
        "{step} waits: the rate limit of {most} in {per} for {name} lets it begin at {at}; before it: {before}.",
        step=x.step(f),
        most=f.get("max_count"),
        per=f.get("per"),
        name=f.get("name"),
        at=x.at(f.get("due_at")),
        before=f.get("before") or 0,
    ),
    "step_retry": _retry,
    "step_queued": _queued,
    "step_ready": lambda x, f: (
        x.t("{step} is ready since {since}", step=x.step(f), since=x.at(f.get("queued_at")))
        + x.idle(f.get("workers"))
        + "."
    ),
    "step_joining": _joining,
    "step_loop": lambda x, f: x.t(
        "{step} is at item {started} of {items} with {running} under way.",
        step=x.step(f),
        started=f.get("started"),
        items=f.get("items"),
        running=f.get("running"),
    ),
    "loop_unknown": lambda x, f: x.t("{step} waits, and its items are not known.", step=x.step(f)),
    "step_event": _event,
    "step_child": _child,
    "child_missing": lambda x, f: x.t(
        "{step} waits for run {child}, which does not exist.", step=x.step(f), child=f.get("child_run_id")
    ),
    "step_task": _task,
    "task_decided": lambda x, f: x.t(
        "{step} was decided by {name} ({outcome}) and goes on at once.",
        step=x.step(f),
        name=f.get("completed_by") or "–",
        outcome=f.get("outcome") or "–",
    ),
    "step_row": _row,
    "row_empty": _row,
    "row_unreadable": _row,
    "step_timer": lambda x, f: x.t("{step} waits {until}.", step=x.step(f), until=x.until(f.get("timer") or {})),
    "step_wait": lambda x, f: x.t(
        "{step} waits for {kind} since {since}.", step=x.step(f), kind=f.get("kind"), since=x.at(f.get("since"))
    ),
    "waits_for_nothing": lambda x, f: x.t(
        "{step} waits since {since}, and nothing is known that would end that.",
        step=x.step(f),
        since=x.at(f.get("queued_at")),
    ),
}
ENDINGS = {"completed", "failed", "cancelled"}
# Sentences about the run; the others are clauses about a step.
OF_RUN = (
    {code for code in CLAUSES if code.startswith("flow_")}
    | ENDINGS
    | {"paused", "compensating", "starts_later", "held", "pending"}
)
