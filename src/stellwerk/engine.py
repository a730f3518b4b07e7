"""The verbs of the schema: one method per SQL function, and no logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from stellwerk.errors import UnknownThing, from_database
from stellwerk.json_text import JsonText, dumps

Row = dict[str, Any]


class Engine:
    """Calls the functions of schema `stellwerk` over one connection; database errors come out as `StellwerkError`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    # -- runs -------------------------------------------------------------------------------------------------------

    def start_run(
        self,
        workflow: str,
        payload: Any = None,
        *,
        idempotency_key: str | None = None,
        run_at: Any = None,
        priority: int = 0,
    ) -> int:
        """Order a run; with a key that was used before, the number of that earlier run."""
        return int(
            self.value(
                "select stellwerk.start_run(%s::text, %s::jsonb, %s::text, coalesce(%s::timestamptz, now()), %s::int)",
                [workflow, _json({} if payload is None else payload), idempotency_key, run_at, priority],
            )
        )

    def cancel_run(self, run_id: int, reason: str | None = None, *, compensate: bool = False) -> None:
        """End a run and everything that it was waiting for; with compensate, undo what it has done first."""
        self.value("select stellwerk.cancel_run(%s::bigint, %s::text, %s::boolean)", [run_id, reason, compensate])

    def pause_run(self, run_id: int) -> None:
        """Stop a run, and the runs that it called, where they stand."""
        self.value("select stellwerk.pause_run(%s::bigint)", [run_id])

    def resume_run(self, run_id: int) -> None:
        """Let a paused run go on."""
        self.value("select stellwerk.resume_run(%s::bigint)", [run_id])

    def retry_run(self, run_id: int, from_node: str | None = None, version: int | None = None) -> int:
        """Send a failed or cancelled run on again, from where it ended or from an earlier node; the same number."""
        return int(
            self.value("select stellwerk.retry_run(%s::bigint, %s::text, %s::int)", [run_id, from_node, version])
        )

    def retry_plan(self, run_id: int, from_node: str | None = None, version: int | None = None) -> list[Row]:
        """What retry_run would walk through: node_id, type, runs_in, times_done, repeats. Changes nothing."""
        query = "select * from stellwerk.retry_plan(%s::bigint, %s::text, %s::int)"
        return self.rows(query, [run_id, from_node, version])

    def skip_step(self, run_id: int, step_id: int, output: Any = None, port: str = "next") -> None:
        """End a waiting or queued step as skipped, with an output, by a port."""
        self.value(
            "select stellwerk.skip_step(%s::bigint, %s::bigint, %s::jsonb, %s::text)",
            [run_id, step_id, None if output is None else _json(output), port],
        )

    def edit_run(self, run_id: int, payload: Any = None, variables: Any = None) -> None:
        """Replace the payload of a failed, cancelled or paused run, or set some of its vars."""
        self.value(
            "select stellwerk.edit_run(%s::bigint, %s::jsonb, %s::jsonb)",
            [run_id, *(None if value is None else _json(value) for value in (payload, variables))],
        )

    def signal(self, event: str, correlation: str, payload: Any = None, dedupe_key: str | None = None) -> int:
        """Tell waiting steps that an event has happened; how many were woken. One that wakes none is kept."""
        return int(
            self.value(
                "select stellwerk.signal(%s::text, %s::text, %s::jsonb, %s::text)",
                [event, correlation, _json({} if payload is None else payload), dedupe_key],
            )
        )

    def why(self, run_id: int) -> str:
        """One sentence: what a run is waiting for, or how it ended."""
        return str(self.value("select stellwerk.why(%s::bigint)", [run_id]))

    def explain_run(self, run_id: int) -> list[Row]:
        """Every reason why a run stands where it stands: position, node_id, reason, evidence."""
        return self.rows("select * from stellwerk.explain_run(%s::bigint)", [run_id])

    def run_state_at(self, run_id: int, at: Any) -> list[Row]:
        """How a run (the first row, without a node) and its steps stood at a time."""
        return self.rows("select * from stellwerk.run_state_at(%s::bigint, %s::timestamptz)", [run_id, at])

    def diff_runs(self, a: int, b: int) -> list[Row]:
        """Where two runs differ: position, kind, node_id, path, a_value, b_value."""
        return self.rows("select * from stellwerk.diff_runs(%s::bigint, %s::bigint)", [a, b])

    def retry_event(self, event_id: int) -> None:
        """Have a failed event looked at again."""
        self.value("select stellwerk.retry_event(%s::bigint)", [event_id])

    def retry_export(self, export_id: int) -> None:
        """Have a case's file written again after it was given up."""
        self.value("select stellwerk.retry_export(%s::bigint)", [export_id])

    # -- from outside -----------------------------------------------------------------------------------------------

    def set_webhook_source(
        self, source: str, scheme: str, secrets: Sequence[str] | None = None, settings: Any = None
    ) -> None:
        """Set up a webhook source, or change it; the secrets are sealed, None leaves those that are there."""
        self.value(
            "select stellwerk.set_webhook_source(%s::text, %s::text, %s::text[], %s::jsonb)",
            [source, scheme, None if secrets is None else list(secrets), _json(settings or {})],
        )

    def remove_webhook_source(self, source: str) -> bool:
        """Remove a webhook source; says whether there was one."""
        return bool(self.value("select stellwerk.remove_webhook_source(%s::text)", [source]))

    def set_form(self, form: str, workflow: str, settings: Any = None) -> None:
        """Say which workflow a public form starts."""
        self.value("select stellwerk.set_form(%s::text, %s::text, %s::jsonb)", [form, workflow, _json(settings or {})])

    def remove_form(self, form: str) -> bool:
        """Remove a form; says whether there was one."""
        return bool(self.value("select stellwerk.remove_form(%s::text)", [form]))

    def replay_delivery(self, delivery_id: int) -> None:
        """Have a webhook, a form or an emitted event looked at again."""
        self.value("select stellwerk.replay_delivery(%s::bigint)", [delivery_id])

    def emit_event(self, name: str, payload: Any = None, dedupe_key: str | None = None) -> int:
        """Say that something has happened; workflows with a trigger.event of that name start. Its number."""
        return int(
            self.value(
                "select stellwerk.emit_event(%s::text, %s::jsonb, %s::text)",
                [name, _json({} if payload is None else payload), dedupe_key],
            )
        )

    # -- cases ------------------------------------------------------------------------------------------------------

    def search_cases(
        self,
        words: str | None = None,
        statuses: Sequence[str] | None = None,
        workflow: str | None = None,
        assignee: str | None = None,
        before: int | None = None,
        page: int = 50,
    ) -> list[Row]:
        """The tenant's cases, newest first, a page at a time; before is the last case that was seen."""
        return self.rows(
            "select * from stellwerk.search_cases(%s::text, %s::text[], %s::text, %s::text, %s::bigint, %s::int)",
            [words, None if statuses is None else list(statuses), workflow, assignee, before, page],
        )

    def export_cases(
        self,
        words: str | None = None,
        statuses: Sequence[str] | None = None,
        workflow: str | None = None,
        assignee: str | None = None,
    ) -> list[str]:
        """The tenant's cases as lines of CSV, the first with the names."""
        rows = self.rows(
            "select line from stellwerk.export_cases(%s::text, %s::text[], %s::text, %s::text) as x (line)",
            [words, None if statuses is None else list(statuses), workflow, assignee],
        )
        return [str(row["line"]) for row in rows]

    def case_statuses(self, workflow: str) -> list[Row]:
        """The statuses that a workflow declares: position, status, label, color, final, next."""
        return self.rows("select * from stellwerk.case_statuses(%s::text)", [workflow])

    def update_case(self, case_id: int, changes: Any, version: int | None = None, remark: str | None = None) -> int:
        """Change status, note, summary, assignee or fields of payload; the new version."""
        return int(
            self.value(
                "select stellwerk.update_case(%s::bigint, %s::jsonb, %s::int, %s::text)",
                [case_id, _json(changes), version, remark],
            )
        )

    def set_case_status(self, case_id: int, status: str, note: str | None = None, version: int | None = None) -> int:
        """Set a case's status, and its note if one is given; the new version."""
        query = "select stellwerk.set_case_status(%s::bigint, %s::text, %s::text, %s::int)"
        return int(self.value(query, [case_id, status, note, version]))

    def assign_case(self, case_id: int, assignee: str | None, version: int | None = None) -> int:
        """Put a user or role:NAME in charge of a case, None nobody; the new version."""
        query = "select stellwerk.assign_case(%s::bigint, %s::text, %s::int)"
        return int(self.value(query, [case_id, assignee, version]))

    def add_case_note(self, case_id: int, body: str) -> int:
        """Write a note into a case's history; its number."""
        return int(self.value("select stellwerk.add_case_note(%s::bigint, %s::text)", [case_id, body]))

    def add_case_appointment(
        self, case_id: int, title: str, starts_at: Any, ends_at: Any = None, location: str | None = None
    ) -> int:
        """Make an appointment of a case; its number."""
        query = (
            "select stellwerk.add_case_appointment(%s::bigint, %s::text, %s::timestamptz, %s::timestamptz, %s::text)"
        )
        return int(self.value(query, [case_id, title, starts_at, ends_at, location]))

    def move_case_appointment(
        self,
        appointment_id: int,
        starts_at: Any,
        ends_at: Any = None,
        location: str | None = None,
        version: int | None = None,
    ) -> int:
        """Move an appointment; the new version."""
        query = (
            "select stellwerk.move_case_appointment(%s::bigint, %s::timestamptz, %s::timestamptz, %s::text, %s::int)"
        )
        return int(self.value(query, [appointment_id, starts_at, ends_at, location, version]))

    def cancel_case_appointment(
        self, appointment_id: int, reason: str | None = None, version: int | None = None
    ) -> None:
        """Cancel an appointment; the case's history keeps it."""
        query = "select stellwerk.cancel_case_appointment(%s::bigint, %s::text, %s::int)"
        self.value(query, [appointment_id, reason, version])

    # -- many runs --------------------------------------------------------------------------------------------------

    def start_bulk_operation(
        self,
        action: str,
        filter: Any,  # the function's own name for it
        *,
        dry_run: bool = True,
        rate: int | None = None,
        stop_on_error: float | None = None,
        options: Any = None,
    ) -> int:
        """Order cancel, pause, resume, retry or skip for all runs that fit; a dry run only counts them."""
        return int(
            self.value(
                "select stellwerk.start_bulk_operation("
                "%s::text, %s::jsonb, %s::boolean, %s::int, %s::float8, %s::jsonb)",
                [action, _json(filter), dry_run, rate, stop_on_error, _json({} if options is None else options)],
            )
        )

    def resume_bulk_operation(self, operation_id: int) -> None:
        """Begin a bulk operation that was only counted, or go on with a paused one."""
        self.value("select stellwerk.resume_bulk_operation(%s::bigint)", [operation_id])

    def pause_bulk_operation(self, operation_id: int) -> None:
        """Hold a running bulk operation."""
        self.value("select stellwerk.pause_bulk_operation(%s::bigint)", [operation_id])

    def cancel_bulk_operation(self, operation_id: int, reason: str | None = None) -> None:
        """End a bulk operation; what it has done stays done."""
        self.value("select stellwerk.cancel_bulk_operation(%s::bigint, %s::text)", [operation_id, reason])

    # -- people -----------------------------------------------------------------------------------------------------

    def complete_task(self, task_id: int, result: Any, outcome: str | None = None) -> str:
        """Decide a task: `completed`, or `open` while more people must approve."""
        query = "select stellwerk.complete_task(%s::bigint, %s::jsonb, %s::text)"
        return str(self.value(query, [task_id, _json(result), outcome]))

    def claim_task(self, task_id: int) -> None:
        """Work on a task that is offered to a role."""
        self.value("select stellwerk.claim_task(%s::bigint)", [task_id])

    def release_task(self, task_id: int) -> None:
        """Give a claimed task back."""
        self.value("select stellwerk.release_task(%s::bigint)", [task_id])

    def reassign_task(self, task_id: int, assignee: str) -> None:
        """Hand a task to a user, or to `role:NAME`."""
        self.value("select stellwerk.reassign_task(%s::bigint, %s::text)", [task_id, assignee])

    def save_task_draft(self, task_id: int, draft: Any) -> None:
        """Keep what was filled in so far."""
        self.value("select stellwerk.save_task_draft(%s::bigint, %s::jsonb)", [task_id, _json(draft)])

    def comment_task(self, task_id: int, body: str) -> int:
        """Write a comment to a task; its number."""
        return int(self.value("select stellwerk.comment_task(%s::bigint, %s::text)", [task_id, body]))

    def attach_to_task(self, task_id: int, name: str, reference: str, media_type: str | None = None) -> int:
        """Note a file that belongs to a task; the note's number."""
        query = "select stellwerk.attach_to_task(%s::bigint, %s::text, %s::text, %s::text)"
        return int(self.value(query, [task_id, name, reference, media_type]))

    def add_user(
        self,
        email: str,
        role: str,
        *,
        name: str | None = None,
        login: str | None = None,
        groups: Sequence[str] = (),
    ) -> int:
        """Add a user of the tenant; the user's number."""
        query = "select stellwerk.add_user(%s::text, %s::text, %s::text, %s::text, %s::text[])"
        return int(self.value(query, [email, role, name, login, list(groups)]))

    def change_user(
        self,
        email: str,
        *,
        role: str | None = None,
        name: str | None = None,
        login: str | None = None,
        groups: Sequence[str] | None = None,
        active: bool | None = None,
        mails: bool | None = None,
    ) -> None:
        """Change what is given of a user and leave the rest."""
        self.value(
            "select stellwerk.change_user("
            "%s::text, %s::text, %s::text, %s::text, %s::text[], %s::boolean, %s::boolean)",
            [email, role, name, login, None if groups is None else list(groups), active, mails],
        )

    def set_absence(self, email: str, until: Any = None, delegate: str | None = None) -> None:
        """A user is away from now on, and the delegate does the tasks."""
        self.value("select stellwerk.set_absence(%s::text, %s::timestamptz, %s::text)", [email, until, delegate])

    def end_absence(self, email: str) -> None:
        """A user is back."""
        self.value("select stellwerk.set_absence(%s::text, absent_from => null)", [email])

    # -- workflows --------------------------------------------------------------------------------------------------

    def save_workflow(self, document: Any, plan: Any, problems: Any) -> tuple[str, int]:
        """Store a compiled document as the workflow's draft; returns slug and version."""
        row = self.row(
            "select slug, version from stellwerk.save_workflow(%s::jsonb, %s::jsonb, %s::jsonb)",
            [_json(document), _json(plan), _json(problems)],
        )
        return str(row["slug"]), int(row["version"])

    def publish_workflow(self, slug: str, version: int | None = None) -> int:
        """Make a version the one that new runs use; null publishes the draft."""
        return int(self.value("select stellwerk.publish_workflow(%s::text, %s::int)", [slug, version]))

    def rollback_workflow(self, slug: str, version: int) -> int:
        """Make an earlier published version the one that new runs use."""
        return int(self.value("select stellwerk.rollback_workflow(%s::text, %s::int)", [slug, version]))

    def diff_versions(self, slug: str, a: int, b: int) -> list[Row]:
        """What differs from one version of a workflow to another."""
        return self.rows("select * from stellwerk.diff_versions(%s::text, %s::int, %s::int)", [slug, a, b])

    def migrate_runs(
        self,
        slug: str,
        from_version: int,
        to_version: int,
        node_map: Mapping[str, str | None] | None = None,
        *,
        dry_run: bool = True,
        batch: int | None = None,
        continue_with: int | None = None,
    ) -> list[Row]:
        """Move live runs to another version, at most `batch` of them; a verdict per run."""
        return self.rows(
            "select * from stellwerk.migrate_runs("
            "%s::text, %s::int, %s::int, %s::jsonb, %s::boolean, %s::int, %s::bigint)",
            [slug, from_version, to_version, _json(dict(node_map or {})), dry_run, batch, continue_with],
        )

    def propose_node_map(
        self, slug: str, from_version: int, to_version: int, node_map: Mapping[str, str | None] | None = None
    ) -> list[Row]:
        """Which node of one version is taken for which of another, and how that was found."""
        return self.rows(
            "select * from stellwerk.propose_node_map(%s::text, %s::int, %s::int, %s::jsonb)",
            [slug, from_version, to_version, _json(dict(node_map or {}))],
        )

    def undo_migration(self, migration_id: int, *, dry_run: bool = True, batch: int | None = None) -> list[Row]:
        """Move the runs of a migration back, as long as they have not moved since; a verdict per run."""
        return self.rows(
            "select * from stellwerk.undo_migration(%s::bigint, %s::boolean, %s::int)", [migration_id, dry_run, batch]
        )

    # -- row events -------------------------------------------------------------------------------------------------

    def watch_table(
        self,
        target: str,
        workflow: str,
        *,
        operations: Sequence[str] = ("insert",),
        condition: str | None = None,
        columns: Sequence[str] | None = None,
        bulk: bool = False,
    ) -> int:
        """Have changes of a table start a workflow; returns the watch's number."""
        return int(
            self.value(
                "select stellwerk.watch_table(%s::regclass, %s::text, %s::text[], %s::text, %s::text[], %s::boolean)",
                [
                    self._table(target),
                    workflow,
                    list(operations),
                    condition,
                    None if columns is None else list(columns),
                    bulk,
                ],
            )
        )

    def unwatch_table(self, target: str, workflow: str) -> None:
        """Take the triggers of `watch_table` away."""
        self.value("select stellwerk.unwatch_table(%s::regclass, %s::text)", [self._table(target), workflow])

    def register_table(self, target: str, slug: str | None = None, tenant_column: str | None = None) -> None:
        """Let workflows read and write a table of the application."""
        self.value(
            "select stellwerk.register_table(%s::regclass, %s::text, %s::text)",
            [self._table(target), slug, tenant_column],
        )

    def unregister_table(self, slug: str) -> bool:
        """Close a table to workflows again; says whether it was registered."""
        return bool(self.value("select stellwerk.unregister_table(%s::text)", [slug]))

    def register_function(self, name: str, target: str) -> None:
        """Let workflows call a function `(input jsonb, context jsonb) → jsonb` of the application."""
        self.value("select stellwerk.register_function(%s::text, %s::regprocedure)", [name, target])

    # -- moving -----------------------------------------------------------------------------------------------------

    def set_rate_limit(self, kind: str, name: str, max_count: int, per: str) -> None:
        """Let so many worker steps of a type, or for a provider, begin within an interval."""
        self.value(
            "select stellwerk.set_rate_limit(%s::text, %s::text, %s::int, %s::interval)", [kind, name, max_count, per]
        )

    def remove_rate_limit(self, kind: str, name: str) -> bool:
        """Take a limit away; says whether there was one."""
        return bool(self.value("select stellwerk.remove_rate_limit(%s::text, %s::text)", [kind, name]))

    # -- time -------------------------------------------------------------------------------------------------------

    def set_time_zone(self, zone: str) -> None:
        """Set the tenant's time zone."""
        self.value("select stellwerk.set_time_zone(%s::text)", [zone])

    def set_calendar(self, name: str, hours: Any, holidays: Sequence[object] = (), zone: str | None = None) -> None:
        """Make or replace a calendar of working hours."""
        self.value(
            "select stellwerk.set_calendar(%s::text, %s::jsonb, %s::date[], %s::text)",
            [name, _json(hours), list(holidays), zone],
        )

    def remove_calendar(self, name: str) -> bool:
        """Remove a calendar; says whether there was one."""
        return bool(self.value("select stellwerk.remove_calendar(%s::text)", [name]))

    def pause_schedule(self, workflow: str, node: str | None = None) -> None:
        """Have a schedule start no runs until it is resumed."""
        self.value("select stellwerk.pause_schedule(%s::text, %s::text)", [workflow, node])

    def resume_schedule(self, workflow: str, node: str | None = None) -> Any:
        """Have a paused schedule go on from now; its next time."""
        return self.value("select stellwerk.resume_schedule(%s::text, %s::text)", [workflow, node])

    def run_schedule(self, workflow: str, node: str | None = None) -> int:
        """Start a run of a schedule now; its number."""
        return int(self.value("select stellwerk.run_schedule(%s::text, %s::text)", [workflow, node]))

    def backfill_schedule(self, workflow: str, since: str, until: str, node: str | None = None) -> int:
        """Start the runs of a schedule for past times that have none; how many were started."""
        return int(
            self.value(
                "select stellwerk.backfill_schedule(%s::text, %s::timestamptz, %s::timestamptz, %s::text)",
                [workflow, since, until, node],
            )
        )

    # -- the engine's own work --------------------------------------------------------------------------------------

    def pump(self, batch: int = 500) -> Row:
        """Turn pending events into runs and advance what is ready."""
        result: Row = self.value("select stellwerk.pump(%s::int)", [batch])
        return result

    def tick(self) -> Row:
        """Due timers and housekeeping."""
        result: Row = self.value("select stellwerk.tick()")
        return result

    def advance(self, run_id: int) -> None:
        """Drive one run in this connection's transaction."""
        self.value("select stellwerk.advance(%s::bigint)", [run_id])

    # -- reading ----------------------------------------------------------------------------------------------------

    def rows(self, query: str, parameters: Sequence[object] | None = None) -> list[Row]:
        """The rows of a query as dictionaries."""
        try:
            with self.connection.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query.encode(), parameters).fetchall()
        except psycopg.Error as error:
            raise from_database(error) from error

    def row(self, query: str, parameters: Sequence[object] | None = None) -> Row:
        """The only row of a query."""
        rows = self.rows(query, parameters)
        if not rows:
            raise UnknownThing("there is no such row")
        return rows[0]

    def value(self, query: str, parameters: Sequence[object] | None = None) -> Any:
        """The only value of a query."""
        return next(iter(self.row(query, parameters).values()))

    def _table(self, name: str) -> int:
        """The table's oid: a name is looked up as PostgreSQL does it, and is never part of a statement."""
        try:
            oid = self.value("select to_regclass(%s::text)::oid", [name])
        except Exception as error:
            raise UnknownThing(f"{name!r} is no name of a table", hint="Write it as schema.table.") from error
        if oid is None:
            raise UnknownThing(
                f"there is no table {name!r}, or not in the search path", hint="Write it as schema.table."
            )
        return int(oid)


def _json(value: Any) -> Any:
    return str(value) if isinstance(value, JsonText) else Jsonb(value, dumps=dumps)
