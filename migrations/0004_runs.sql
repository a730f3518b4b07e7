-- Runs and their steps. Both are partitioned by the run's number, so that a look-up by id touches one partition
-- and history can be dropped in large pieces; there is one default partition until sizes are measured.

create sequence stellwerk.run_id_seq cache 1;
comment on sequence stellwerk.run_id_seq is 'Numbers of runs; gaps are normal.';

create table stellwerk.run (
  tenant_id         bigint      not null,
  run_id            bigint      not null default nextval('stellwerk.run_id_seq'),
  workflow_id       bigint      not null,
  version           integer     not null,
  trigger_node      text        not null,
  state             text        not null default 'pending',
  held              boolean     not null default false,
  priority          integer     not null default 0,
  source            text        not null,
  payload           jsonb       not null default '{}',
  old               jsonb,
  output            jsonb,
  error             jsonb,
  reason            text,
  event_id          bigint,
  idempotency_key   text,
  caused_by_run_id  bigint,
  depth             integer     not null default 0,
  parent_run_id     bigint,
  parent_step_id    bigint,
  deaths            integer     not null default 0,
  timeout           interval,
  created_at        timestamptz not null default clock_timestamp(),
  start_at          timestamptz,
  started_at        timestamptz,
  ended_at          timestamptz,
  created_by        text        not null,

  constraint run_state_known check (state in ('pending', 'running', 'waiting', 'paused', 'completed', 'failed', 'cancelled')),
  constraint run_ended_has_time check ((ended_at is not null) = (state in ('completed', 'failed', 'cancelled')))
) partition by range (run_id);

create table stellwerk.run_default partition of stellwerk.run default
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- What pump starts next.
create index run_pending on stellwerk.run (tenant_id, priority desc, run_id) where state = 'pending' and not held;
-- What people look at: the newest runs of a workflow.
create index run_of_workflow on stellwerk.run (tenant_id, workflow_id, run_id);
-- Last, on purpose: of indexes that seem equally good, as all do while a table is empty, the planner takes the newest,
-- and a plan made then may be kept for long.
alter table stellwerk.run add primary key (tenant_id, run_id);

comment on table stellwerk.run is 'One execution of one version of a workflow.';
comment on table stellwerk.run_default is 'All runs until partitions by range are made.';
comment on column stellwerk.run.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.run.run_id is 'Opaque number that follows time.';
comment on column stellwerk.run.workflow_id is 'The workflow.';
comment on column stellwerk.run.version is 'The version that the run is pinned to.';
comment on column stellwerk.run.trigger_node is 'The trigger node where it starts.';
comment on column stellwerk.run.state is 'pending, running, waiting, paused, completed, failed or cancelled; written by stellwerk''s transitions only.';
comment on column stellwerk.run.held is 'True while a pending run must not start yet: its start_at has not come.';
comment on column stellwerk.run.priority is 'Higher goes first.';
comment on column stellwerk.run.source is 'What started it: sql, manual, row, form, …';
comment on column stellwerk.run.payload is 'What it was started with; for a row event the new row, or the old one of a delete.';
comment on column stellwerk.run.old is 'For a row event: the row before the change.';
comment on column stellwerk.run.output is 'What it came to: the result of logic.stop, else of the step that ended last in the outermost scope.';
comment on column stellwerk.run.error is 'Why it failed: { class, message, node, attempt, retryable, detail }.';
comment on column stellwerk.run.reason is 'Why it was cancelled, as given.';
comment on column stellwerk.run.event_id is 'The row event that started it.';
comment on column stellwerk.run.idempotency_key is 'The caller''s key: starting again with it answers this run.';
comment on column stellwerk.run.caused_by_run_id is 'The run whose step changed the row that started this one.';
comment on column stellwerk.run.depth is 'How many runs stand in the chain of causes before it.';
comment on column stellwerk.run.parent_run_id is 'The run whose step called this one as a child.';
comment on column stellwerk.run.parent_step_id is 'That step.';
comment on column stellwerk.run.deaths is 'How often advancing it alone died as a whole; at 5 the run fails with that error.';
comment on column stellwerk.run.timeout is 'How long it may take from its start, if the workflow limits it.';
comment on column stellwerk.run.created_at is 'When it was asked for.';
comment on column stellwerk.run.start_at is 'When it may start, if later than created_at.';
comment on column stellwerk.run.started_at is 'When its first step was taken.';
comment on column stellwerk.run.ended_at is 'When it was completed, failed or cancelled.';
comment on column stellwerk.run.created_by is 'Who asked for it: an application user or db:<role>.';

-- Uniqueness cannot live in a table that is partitioned by another column.
create table stellwerk.run_key (
  tenant_id        bigint not null,
  workflow_id      bigint not null,
  idempotency_key  text   not null,
  run_id           bigint not null,

  primary key (tenant_id, workflow_id, idempotency_key),
  constraint run_key_of_sane_length check (length(idempotency_key) between 1 and 500)
);

comment on table stellwerk.run_key is 'Which run an idempotency key has started.';
comment on column stellwerk.run_key.tenant_id is 'The tenant.';
comment on column stellwerk.run_key.workflow_id is 'The workflow within which the key is unique.';
comment on column stellwerk.run_key.idempotency_key is 'The caller''s key, 1 to 500 characters.';
comment on column stellwerk.run_key.run_id is 'The first run that was started with it.';

create sequence stellwerk.step_id_seq cache 1;
comment on sequence stellwerk.step_id_seq is 'Numbers of steps; gaps are normal.';

-- A node becomes a step the moment a token reaches it, never earlier:
-- what is not in this table has not been decided yet.
create table stellwerk.step (
  tenant_id    bigint      not null,
  run_id       bigint      not null,
  step_id      bigint      not null default nextval('stellwerk.step_id_seq'),
  node_id      text        not null,
  scope_id     bigint      not null default 0,
  visit        integer     not null default 1,
  version      integer     not null,
  type         text        not null,
  runs_in      text        not null,
  alone        boolean     not null default false,
  state        text        not null default 'queued',
  port         text,
  attempt      integer     not null default 0,
  failures     integer     not null default 0,
  arrived      text[],
  input        jsonb,
  output       jsonb,
  error        jsonb,
  reason       text,
  worker_id    bigint,
  job_id       bigint,
  due_at       timestamptz,
  lease_until  timestamptz,
  timeout_at   timestamptz,
  queued_at    timestamptz not null default clock_timestamp(),
  started_at   timestamptz,
  ended_at     timestamptz,

  constraint step_visit_once unique (tenant_id, run_id, node_id, scope_id, visit),
  constraint step_state_known check (state in ('queued', 'running', 'waiting', 'joining', 'completed', 'failed', 'skipped', 'cancelled')),
  constraint step_output_when_ended check (output is null or state in ('completed', 'failed', 'skipped')),
  constraint step_leased_while_running check ((lease_until is not null) = (state = 'running'))
) partition by range (run_id);

create table stellwerk.step_default partition of stellwerk.step default
  with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- What waits to be taken: SQL steps by pump, worker steps when their queue row has been lost.
create index step_queued on stellwerk.step (tenant_id, runs_in, run_id) where state = 'queued';
-- Whose worker may have vanished, and which attempt has lasted too long.
create index step_leased on stellwerk.step (tenant_id, lease_until) where state = 'running';
-- Late, as for run.
alter table stellwerk.step add primary key (tenant_id, run_id, step_id);
-- Where the live tokens of a run stand.
create index step_live on stellwerk.step (tenant_id, run_id, scope_id, node_id) where state in ('queued', 'running', 'waiting', 'joining');

comment on table stellwerk.step is 'A token standing on a node of a run: one visit of one node, with its result.';
comment on table stellwerk.step_default is 'All steps until partitions by range are made.';
comment on column stellwerk.step.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.step.run_id is 'The run.';
comment on column stellwerk.step.step_id is 'Opaque number; part of the idempotency key run:step:visit.';
comment on column stellwerk.step.node_id is 'The node of the workflow document.';
comment on column stellwerk.step.scope_id is 'The loop iteration that the token belongs to; 0 outside loops.';
comment on column stellwerk.step.visit is 'Counts the node''s steps within the scope, from 1.';
comment on column stellwerk.step.version is 'The workflow version that the step ran under.';
comment on column stellwerk.step.type is 'The node''s type.';
comment on column stellwerk.step.runs_in is 'sql, worker or wait.';
comment on column stellwerk.step.alone is 'True when the node touches other people''s tables, so that its run advances in a transaction of its own.';
comment on column stellwerk.step.state is 'queued, running, waiting, joining, completed, failed, skipped or cancelled; written by stellwerk''s transitions only.';
comment on column stellwerk.step.port is 'The port it left by; null while it lives, or when no edge followed an end.';
comment on column stellwerk.step.attempt is 'Counted when the step is taken; a completion that names another number is late and changes nothing.';
comment on column stellwerk.step.failures is 'How many attempts ended in an error; attempt - failures are those whose worker vanished, and the one that runs.';
comment on column stellwerk.step.arrived is 'At a node where ways meet: the nodes whose tokens have arrived.';
comment on column stellwerk.step.input is 'The node''s settings with every expression computed, as the last attempt saw them.';
comment on column stellwerk.step.output is 'What it came to.';
comment on column stellwerk.step.error is 'Why the last attempt failed: { class, message, node, attempt, retryable, detail }.';
comment on column stellwerk.step.reason is 'Why it was cancelled or skipped.';
comment on column stellwerk.step.worker_id is 'The worker that took it last.';
comment on column stellwerk.step.job_id is 'Its row in the queue, when it runs in a worker.';
comment on column stellwerk.step.due_at is 'When the next attempt may begin, if later than now.';
comment on column stellwerk.step.lease_until is 'Until when the worker holds it without a sign of life.';
comment on column stellwerk.step.timeout_at is 'When the running attempt ends by the node''s timeout.';
comment on column stellwerk.step.queued_at is 'When the token reached the node.';
comment on column stellwerk.step.started_at is 'When the last attempt began.';
comment on column stellwerk.step.ended_at is 'When it ended.';

-- The last attempt stands in the step itself; here are those before it, so that a step that succeeds
-- at once costs one row.
create table stellwerk.step_attempt (
  tenant_id   bigint      not null,
  run_id      bigint      not null,
  step_id     bigint      not null,
  attempt     integer     not null,
  outcome     text        not null,
  error       jsonb,
  worker_id   bigint,
  started_at  timestamptz,
  ended_at    timestamptz not null,
  retry_at    timestamptz,

  primary key (tenant_id, run_id, step_id, attempt),
  constraint step_attempt_outcome_known check (outcome in ('failed', 'lost', 'released'))
) partition by range (run_id);

create table stellwerk.step_attempt_default partition of stellwerk.step_attempt default;

comment on table stellwerk.step_attempt is 'Attempts of a step that did not complete it.';
comment on table stellwerk.step_attempt_default is 'All attempts until partitions by range are made.';
comment on column stellwerk.step_attempt.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.step_attempt.run_id is 'The run.';
comment on column stellwerk.step_attempt.step_id is 'The step.';
comment on column stellwerk.step_attempt.attempt is 'Its number, as the worker carried it.';
comment on column stellwerk.step_attempt.outcome is 'failed (it ended in an error), lost (its worker vanished), released (given back unstarted by a worker that stopped).';
comment on column stellwerk.step_attempt.error is 'What went wrong.';
comment on column stellwerk.step_attempt.worker_id is 'The worker that had taken it.';
comment on column stellwerk.step_attempt.started_at is 'When the attempt began.';
comment on column stellwerk.step_attempt.ended_at is 'When it ended or was found lost.';
comment on column stellwerk.step_attempt.retry_at is 'When the next attempt may begin; null when there is none.';

create table stellwerk.variable (
  tenant_id  bigint not null,
  run_id     bigint not null,
  scope_id   bigint not null default 0,
  name       text   not null,
  value      jsonb  not null,

  primary key (tenant_id, run_id, scope_id, name)
);

comment on table stellwerk.variable is 'The vars of a run: set by logic.set, read from the nearest scope outwards.';
comment on column stellwerk.variable.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.variable.run_id is 'The run.';
comment on column stellwerk.variable.scope_id is 'The loop iteration it was set in; 0 outside loops.';
comment on column stellwerk.variable.name is 'Name, as in vars.name.';
comment on column stellwerk.variable.value is 'Its value now.';

create table stellwerk.timer (
  tenant_id  bigint      not null,
  timer_id   bigint      not null generated always as identity,
  kind       text        not null,
  run_id     bigint      not null,
  step_id    bigint,
  due_at     timestamptz not null,

  primary key (tenant_id, timer_id),
  constraint timer_kind_known check (kind in ('start', 'retry', 'run_timeout'))
);

create index timer_due on stellwerk.timer (tenant_id, due_at);
create index timer_of_run on stellwerk.timer (tenant_id, run_id);

comment on table stellwerk.timer is 'What happens later: a row is removed when it fires, so the table holds only what is still to come.';
comment on column stellwerk.timer.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.timer.timer_id is 'Opaque number.';
comment on column stellwerk.timer.kind is 'start (a run''s start_at), retry (a SQL step''s next attempt), run_timeout (the workflow''s timeout).';
comment on column stellwerk.timer.run_id is 'The run.';
comment on column stellwerk.timer.step_id is 'The step, for retry.';
comment on column stellwerk.timer.due_at is 'It fires at the first tick after this time, never before.';

-- The order for a new run, as callers hand it to stellwerk.insert_runs.
create type stellwerk.run_order as (
  workflow_id       bigint,
  version           integer,
  trigger_node      text,
  payload           jsonb,
  old               jsonb,
  source            text,
  event_id          bigint,
  idempotency_key   text,
  run_at            timestamptz,
  priority          integer,
  caused_by_run_id  bigint,
  depth             integer,
  parent_run_id     bigint,
  parent_step_id    bigint
);
comment on type stellwerk.run_order is 'What is needed to insert a run.';

-- A token on its way: the node that it stands on, with what the engine must know of that node.
-- Kept in memory while a set of runs advances; a token that comes to rest is stored as a step.
create type stellwerk.token as (
  run_id        bigint,
  step_id       bigint,
  stored        boolean,
  workflow_id   bigint,
  version       integer,
  trigger_node  text,
  node_id       text,
  scope_id      bigint,
  visit         integer,
  attempt       integer,
  failures      integer,
  arrived       text[],
  queued_at     timestamptz,
  type          text,
  runs_in       text,
  alone         boolean,
  joins         boolean
);
comment on type stellwerk.token is 'A live token: the node of a run that it stands on; stored when it has a row in step.';

create type stellwerk.outcome as (
  port    text,
  input   jsonb,
  output  jsonb,
  error   jsonb
);
comment on type stellwerk.outcome is 'What running a node came to: the port to leave by and an output, or an error; input is what it saw.';

-- A token that has just moved: its step as it will be written, and the edges that it may leave by.
create type stellwerk.move as (
  run_id        bigint,
  step_id       bigint,
  stored        boolean,
  workflow_id   bigint,
  version       integer,
  trigger_node  text,
  node_id       text,
  scope_id      bigint,
  visit         integer,
  attempt       integer,
  failures      integer,
  arrived       text[],
  queued_at     timestamptz,
  type          text,
  runs_in       text,
  alone         boolean,
  state         text,
  port          text,
  input         jsonb,
  output        jsonb,
  error         jsonb,
  due_at        timestamptz,
  edges         jsonb
);
comment on type stellwerk.move is 'A step that has ended or failed, before its effects on the run are written.';
