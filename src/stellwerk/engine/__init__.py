"""The verbs of the schema: one method per SQL function, and no logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stellwerk.engine.calls import Row, as_json
from stellwerk.engine.cases import Cases
from stellwerk.engine.people import People
from stellwerk.engine.time import Time

__all__ = ["Engine", "Row"]


class Engine(Cases, People, Time):
    """Calls the functions of schema `stellwerk` over one connection; database errors come out as `StellwerkError`."""

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
                [workflow, as_json({} if payload is None else payload), idempotency_key, run_at, priority],
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
            [run_id, step_id, None if output is None else as_json(output), port],
        )

    def edit_run(self, run_id: int, payload: Any = None, variables: Any = None) -> None:
        """Replace the payload of a failed, cancelled or paused run, or set some of its vars."""
        self.value(
            "select stellwerk.edit_run(%s::bigint, %s::jsonb, %s::jsonb)",
            [run_id, *(None if value is None else as_json(value) for value in (payload, variables))],
        )

    def signal(self, event: str, correlation: str, payload: Any = None, dedupe_key: str | None = None) -> int:
        """Tell waiting steps that an event has happened; how many were woken. One that wakes none is kept."""
        return int(
            self.value(
                "select stellwerk.signal(%s::text, %s::text, %s::jsonb, %s::text)",
                [event, correlation, as_json({} if payload is None else payload), dedupe_key],
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
            [source, scheme, None if secrets is None else list(secrets), as_json(settings or {})],
        )

    def remove_webhook_source(self, source: str) -> bool:
        """Remove a webhook source; says whether there was one."""
        return bool(self.value("select stellwerk.remove_webhook_source(%s::text)", [source]))

    def set_form(self, form: str, workflow: str, settings: Any = None) -> None:
        """Say which workflow a public form starts."""
        self.value(
            "select stellwerk.set_form(%s::text, %s::text, %s::jsonb)", [form, workflow, as_json(settings or {})]
        )

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
                [name, as_json({} if payload is None else payload), dedupe_key],
            )
        )

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
                [action, as_json(filter), dry_run, rate, stop_on_error, as_json({} if options is None else options)],
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

    # -- workflows --------------------------------------------------------------------------------------------------

    def save_workflow(self, document: Any, plan: Any, problems: Any) -> tuple[str, int]:
        """Store a compiled document as the workflow's draft; returns slug and version."""
        row = self.row(
            "select slug, version from stellwerk.save_workflow(%s::jsonb, %s::jsonb, %s::jsonb)",
            [as_json(document), as_json(plan), as_json(problems)],
        )
        return str(row["slug"]), int(row["version"])

    def publish_workflow(self, slug: str, version: int | None = None) -> int:
        """Make a version the one that new runs use; null publishes the draft."""
        return int(self.value("select stellwerk.publish_workflow(%s::text, %s::int)", [slug, version]))

    def rollback_workflow(self, slug: str, version: int) -> int:
        """Make an earlier published version the one that new runs use."""
        return int(self.value("select stellwerk.rollback_workflow(%s::text, %s::int)", [slug, version]))

    def claim_workflow(self, slug: str, tag: str | None = None) -> str | None:
        """Keep others from changing a workflow until the transaction ends; its tag, None if there is no such one."""
        found = self.value("select stellwerk.claim_workflow(%s::text, %s::text)", [slug, tag])
        return None if found is None else str(found)

    def delete_workflow(self, slug: str) -> None:
        """Remove a workflow that was never published."""
        self.value("select stellwerk.delete_workflow(%s::text)", [slug])

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
            [slug, from_version, to_version, as_json(dict(node_map or {})), dry_run, batch, continue_with],
        )

    def propose_node_map(
        self, slug: str, from_version: int, to_version: int, node_map: Mapping[str, str | None] | None = None
    ) -> list[Row]:
        """Which node of one version is taken for which of another, and how that was found."""
        return self.rows(
            "select * from stellwerk.propose_node_map(%s::text, %s::int, %s::int, %s::jsonb)",
            [slug, from_version, to_version, as_json(dict(node_map or {}))],
        )

    def undo_migration(self, migration_id: int, *, dry_run: bool = True, batch: int | None = None) -> list[Row]:
        """Move the runs of a migration back, as long as they have not moved since; a verdict per run."""
        return self.rows(
            "select * from stellwerk.undo_migration(%s::bigint, %s::boolean, %s::int)", [migration_id, dry_run, batch]
        )

    # -- requests ---------------------------------------------------------------------------------------------------

    def begin_request(self, action: str, key: str, digest: bytes) -> Any:
        """What a request with this key has answered before; None for a new one, which end_request keeps."""
        return self.value("select stellwerk.begin_request(%s::text, %s::text, %s::bytea)", [action, key, digest])

    def end_request(self, action: str, key: str, result: Any) -> None:
        """Keep what a request answered, in the transaction in which it was begun."""
        self.value("select stellwerk.end_request(%s::text, %s::text, %s::jsonb)", [action, key, as_json(result)])

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
