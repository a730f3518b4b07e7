-- What people and pages may read. Each shows the current tenant's rows; a role with no tenant sees an error, never another's data.
--
-- The views of runs and steps read with the caller's rights: row-level security keeps tenants apart then, and the planner sees
-- through them. Behind a security barrier it would neither find a run of live_step by its key nor take an order from an index.

create or replace view stellwerk.run_overview with (security_invoker = true) as
select r.run_id, w.slug as workflow, r.version, r.state, r.source, r.payload, r.output, r.error, r.priority, r.parent_run_id,
       r.created_at, r.started_at, r.ended_at,
       (select count(*)::integer from stellwerk.step s
         where s.tenant_id = r.tenant_id and s.run_id = r.run_id and s.state in ('queued', 'running', 'waiting', 'joining')) as live_steps,
       r.event_id, r.idempotency_key, r.reason, r.start_at, r.caused_by_run_id, r.depth, r.created_by,
       r.held, r.ending, r.paused_at, r.paused_by, r.parent_step_id, r.traceparent
  from stellwerk.run r
  join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id
 where r.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.run_overview is 'Every run with its workflow, state, data and times.';
comment on column stellwerk.run_overview.run_id is 'The run.';
comment on column stellwerk.run_overview.workflow is 'Slug of its workflow.';
comment on column stellwerk.run_overview.version is 'The version it is pinned to.';
comment on column stellwerk.run_overview.state is 'pending, running, waiting, paused, completed, failed or cancelled.';
comment on column stellwerk.run_overview.source is 'What started it: sql, manual, row, form, …';
comment on column stellwerk.run_overview.payload is 'What it was started with.';
comment on column stellwerk.run_overview.output is 'What it came to.';
comment on column stellwerk.run_overview.error is 'Why it failed.';
comment on column stellwerk.run_overview.priority is 'Higher goes first.';
comment on column stellwerk.run_overview.parent_run_id is 'The run that called it.';
comment on column stellwerk.run_overview.created_at is 'When it was asked for.';
comment on column stellwerk.run_overview.started_at is 'When its first step was taken.';
comment on column stellwerk.run_overview.ended_at is 'When it ended.';
comment on column stellwerk.run_overview.live_steps is 'How many of its steps have not ended.';
comment on column stellwerk.run_overview.event_id is 'The row event that started it.';
comment on column stellwerk.run_overview.idempotency_key is 'The caller''s key.';
comment on column stellwerk.run_overview.reason is 'Why it was cancelled.';
comment on column stellwerk.run_overview.start_at is 'When it may start, if later than created_at.';
comment on column stellwerk.run_overview.caused_by_run_id is 'The run whose step changed the row that started it.';
comment on column stellwerk.run_overview.depth is 'How many runs stand in the chain of causes before it.';
comment on column stellwerk.run_overview.created_by is 'Who asked for it.';
comment on column stellwerk.run_overview.held is 'True while a pending run must not start yet.';
comment on column stellwerk.run_overview.ending is 'failed or cancelled while what it has done is being compensated.';
comment on column stellwerk.run_overview.paused_at is 'When it was paused.';
comment on column stellwerk.run_overview.paused_by is 'Who paused it.';
comment on column stellwerk.run_overview.parent_step_id is 'The step of the calling run.';
comment on column stellwerk.run_overview.traceparent is 'The trace that it belongs to, as W3C Trace Context writes it.';

create or replace view stellwerk.step_timeline with (security_invoker = true) as
select s.run_id, s.step_id, s.node_id, s.type, s.scope_id as scope, s.visit, s.state, s.attempt, s.port,
       coalesce(s.input, n.config) as input, s.output, s.error, s.queued_at, s.started_at, s.ended_at, s.version, s.reason, nullif(s.due_at, stellwerk.never()) as due_at, s.worker_id,
       s.failures, s.lease_until, s.timeout_at, s.arrived, s.undoes
  from stellwerk.step s
  join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
  left join stellwerk.plan_node n on n.tenant_id = s.tenant_id and n.workflow_id = r.workflow_id and n.version = s.version and n.node_id = s.node_id
 where s.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.step_timeline is 'Every step of every run; order by step_id for the order in which tokens set out.';
comment on column stellwerk.step_timeline.run_id is 'The run.';
comment on column stellwerk.step_timeline.step_id is 'The step.';
comment on column stellwerk.step_timeline.node_id is 'The node of the document.';
comment on column stellwerk.step_timeline.type is 'The node''s type.';
comment on column stellwerk.step_timeline.scope is 'The loop iteration; 0 outside loops.';
comment on column stellwerk.step_timeline.visit is 'Counts the node''s steps within the scope.';
comment on column stellwerk.step_timeline.state is 'queued, running, waiting, joining, completed, failed, skipped or cancelled.';
comment on column stellwerk.step_timeline.attempt is 'The last attempt''s number.';
comment on column stellwerk.step_timeline.port is 'The port it left by.';
comment on column stellwerk.step_timeline.input is 'The node''s settings as the step saw them.';
comment on column stellwerk.step_timeline.output is 'What it came to.';
comment on column stellwerk.step_timeline.error is 'Why it failed.';
comment on column stellwerk.step_timeline.queued_at is 'When the token reached the node.';
comment on column stellwerk.step_timeline.started_at is 'When the last attempt began.';
comment on column stellwerk.step_timeline.ended_at is 'When it ended.';
comment on column stellwerk.step_timeline.version is 'The workflow version it ran under.';
comment on column stellwerk.step_timeline.reason is 'Why it was cancelled or skipped.';
comment on column stellwerk.step_timeline.due_at is 'When the next attempt may begin.';
comment on column stellwerk.step_timeline.worker_id is 'The worker that took it last.';
comment on column stellwerk.step_timeline.failures is 'How many attempts ended in an error.';
comment on column stellwerk.step_timeline.lease_until is 'Until when a running step is the worker''s without a sign of life.';
comment on column stellwerk.step_timeline.timeout_at is 'When the running attempt ends by the node''s timeout.';
comment on column stellwerk.step_timeline.arrived is 'Where ways meet: the nodes whose tokens have arrived.';
comment on column stellwerk.step_timeline.undoes is 'The step that it compensates.';

create or replace view stellwerk.live_step with (security_invoker = true) as
select t.run_id, r.workflow, t.step_id, t.node_id, t.type, t.state, t.attempt, t.queued_at, t.started_at, t.due_at, t.worker_id,
       t.scope, t.visit, t.failures, t.lease_until, t.arrived, r.state as run_state
  from stellwerk.step_timeline t
  join stellwerk.run_overview r using (run_id)
 where t.state in ('queued', 'running', 'waiting', 'joining');
comment on view stellwerk.live_step is 'The steps that have not ended: where every train stands now.';
comment on column stellwerk.live_step.run_id is 'The run.';
comment on column stellwerk.live_step.workflow is 'Slug of its workflow.';
comment on column stellwerk.live_step.step_id is 'The step.';
comment on column stellwerk.live_step.node_id is 'The node of the document.';
comment on column stellwerk.live_step.type is 'The node''s type.';
comment on column stellwerk.live_step.state is 'queued, running, waiting or joining.';
comment on column stellwerk.live_step.attempt is 'The last attempt''s number.';
comment on column stellwerk.live_step.queued_at is 'When the token reached the node.';
comment on column stellwerk.live_step.started_at is 'When the last attempt began.';
comment on column stellwerk.live_step.due_at is 'When the next attempt may begin.';
comment on column stellwerk.live_step.worker_id is 'The worker that holds it.';
comment on column stellwerk.live_step.scope is 'The loop iteration; 0 outside loops.';
comment on column stellwerk.live_step.visit is 'Counts the node''s steps within the scope.';
comment on column stellwerk.live_step.failures is 'How many attempts ended in an error.';
comment on column stellwerk.live_step.lease_until is 'Until when a running step is the worker''s without a sign of life.';
comment on column stellwerk.live_step.arrived is 'Where ways meet: the nodes whose tokens have arrived.';
comment on column stellwerk.live_step.run_state is 'The state of its run.';

create or replace view stellwerk.worker_status as
select w.worker_id, w.name, w.host, w.pid, w.types, w.started_at, stellwerk.is_present(w.worker_id) as present,
       (select count(*)::integer from stellwerk.tenant t join stellwerk.step s on s.tenant_id = t.tenant_id
         where s.state = 'running' and s.worker_id = w.worker_id) as running_steps
  from stellwerk.worker w;
comment on view stellwerk.worker_status is 'The worker processes that have registered, and whether they are there.';
comment on column stellwerk.worker_status.worker_id is 'The worker.';
comment on column stellwerk.worker_status.name is 'Its name.';
comment on column stellwerk.worker_status.host is 'The machine it runs on.';
comment on column stellwerk.worker_status.pid is 'Its process number there.';
comment on column stellwerk.worker_status.types is 'The node types it carries out.';
comment on column stellwerk.worker_status.started_at is 'When it registered.';
comment on column stellwerk.worker_status.present is 'False: it vanished without a word; its steps are taken over.';
comment on column stellwerk.worker_status.running_steps is 'How many steps it holds now.';

create or replace view stellwerk.attempt_history with (security_invoker = true) as
select a.run_id, a.step_id, s.node_id, a.attempt, a.outcome, a.error, a.worker_id, a.started_at, a.ended_at, a.retry_at
  from stellwerk.step_attempt a
  join stellwerk.step s on s.tenant_id = a.tenant_id and s.run_id = a.run_id and s.step_id = a.step_id
 where a.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.attempt_history is 'Attempts that did not complete their step.';
comment on column stellwerk.attempt_history.run_id is 'The run.';
comment on column stellwerk.attempt_history.step_id is 'The step.';
comment on column stellwerk.attempt_history.node_id is 'The node of the document.';
comment on column stellwerk.attempt_history.attempt is 'The attempt''s number.';
comment on column stellwerk.attempt_history.outcome is 'failed, lost or released.';
comment on column stellwerk.attempt_history.error is 'What went wrong.';
comment on column stellwerk.attempt_history.worker_id is 'The worker that had taken it.';
comment on column stellwerk.attempt_history.started_at is 'When it began.';
comment on column stellwerk.attempt_history.ended_at is 'When it ended or was found lost.';
comment on column stellwerk.attempt_history.retry_at is 'When the next attempt may begin.';
