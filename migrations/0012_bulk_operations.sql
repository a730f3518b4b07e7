-- Steering many runs at once, and what explanations and views for people need.
-- Migrations run in one transaction, and a partitioned table takes no index concurrently; the four here hold few rows, and are made by reading a table once.
-- squawk-ignore-file require-concurrent-index-creation

-- The order, its limits and how far it has come, in one row that anybody can read.
create table stellwerk.bulk_operation (
  tenant_id      bigint      not null references stellwerk.tenant,
  operation_id   bigint      not null generated always as identity,
  action         text        not null,
  filter         jsonb       not null,
  options        jsonb       not null default '{}',
  rate           integer,
  stop_on_error  double precision,
  state          text        not null default 'draft',
  reason         text,
  total          integer     not null default 0,
  by_state       jsonb       not null default '{}',
  done           integer     not null default 0,
  skipped        integer     not null default 0,
  failed         integer     not null default 0,
  last_run_id    bigint      not null default 0,
  created_at     timestamptz not null default clock_timestamp(),
  created_by     text        not null,
  started_at     timestamptz,
  worked_at      timestamptz,
  ended_at       timestamptz,
  ended_by       text,
  history        jsonb       not null default '[]',

  primary key (tenant_id, operation_id),
  constraint bulk_operation_action_known check (action in ('cancel', 'pause', 'resume', 'retry', 'skip')),
  constraint bulk_operation_state_known check (state in ('draft', 'running', 'paused', 'completed', 'stopped', 'cancelled')),
  constraint bulk_operation_ended_has_time check ((ended_at is not null) = (state in ('completed', 'stopped', 'cancelled'))),
  constraint bulk_operation_rate_positive check (rate > 0),
  constraint bulk_operation_share_is_a_share check (stop_on_error between 0 and 1)
);
create index bulk_operation_running on stellwerk.bulk_operation (tenant_id, operation_id) where state = 'running';

comment on table stellwerk.bulk_operation is 'Orders to cancel, pause, resume or retry all runs that fit a filter, or to skip steps of them; tick carries them out in portions.';
comment on column stellwerk.bulk_operation.tenant_id is 'The tenant whose runs it touches.';
comment on column stellwerk.bulk_operation.operation_id is 'Opaque number that follows time.';
comment on column stellwerk.bulk_operation.action is 'cancel, pause, resume, retry or skip.';
comment on column stellwerk.bulk_operation.filter is 'Which runs: { workflow, version, state, node, error_class, created_after, created_before, payload, run_ids }, all of which must fit.';
comment on column stellwerk.bulk_operation.options is 'For cancel { reason, compensate }, for retry { from_node, version }, for skip { output, port }.';
comment on column stellwerk.bulk_operation.rate is 'At most so many runs per second; null for as many as there is time for.';
comment on column stellwerk.bulk_operation.stop_on_error is 'Stops when more than this share of the runs handled so far failed; null never stops.';
comment on column stellwerk.bulk_operation.state is 'draft (only counted), running, paused, completed, stopped (too many failures) or cancelled.';
comment on column stellwerk.bulk_operation.reason is 'Why it was stopped or cancelled.';
comment on column stellwerk.bulk_operation.total is 'How many runs fitted the filter when it was counted; from its start on this is fixed.';
comment on column stellwerk.bulk_operation.by_state is 'The same by the state that the runs were in then.';
comment on column stellwerk.bulk_operation.done is 'To how many runs it has been done.';
comment on column stellwerk.bulk_operation.skipped is 'How many were in no state for it any more when their turn came.';
comment on column stellwerk.bulk_operation.failed is 'At how many it raised; bulk_operation_run says what.';
comment on column stellwerk.bulk_operation.last_run_id is 'How far the present round has come; runs that others held are left for the next round.';
comment on column stellwerk.bulk_operation.created_at is 'When it was ordered.';
comment on column stellwerk.bulk_operation.created_by is 'Who ordered it: an application user or db:<role>.';
comment on column stellwerk.bulk_operation.started_at is 'When its runs were fixed and work began.';
comment on column stellwerk.bulk_operation.worked_at is 'When the last portion was done; the rate counts from here.';
comment on column stellwerk.bulk_operation.ended_at is 'When it was completed, stopped or cancelled.';
comment on column stellwerk.bulk_operation.ended_by is 'Who cancelled it.';
comment on column stellwerk.bulk_operation.history is 'The states it went through: [{ at, state, by }], without by where it ended by itself; bulk_operation_run tells what became of each run.';

-- The runs are fixed when the work begins, so that what is still to come, what was done and what was not can be read back.
create table stellwerk.bulk_operation_run (
  tenant_id     bigint      not null,
  operation_id  bigint      not null,
  run_id        bigint      not null,
  outcome       text,
  error         jsonb,
  handled_at    timestamptz,

  primary key (tenant_id, operation_id, run_id),
  foreign key (tenant_id, operation_id) references stellwerk.bulk_operation on delete cascade,
  constraint bulk_operation_run_outcome_known check (outcome in ('done', 'skipped', 'failed')),
  constraint bulk_operation_run_outcome_has_time check ((outcome is null) = (handled_at is null))
);
create index bulk_operation_run_next on stellwerk.bulk_operation_run (tenant_id, operation_id, run_id) where outcome is null;
create index bulk_operation_run_of_run on stellwerk.bulk_operation_run (tenant_id, run_id);

comment on table stellwerk.bulk_operation_run is 'The runs of a bulk operation and what became of each: its history.';
comment on column stellwerk.bulk_operation_run.tenant_id is 'The tenant.';
comment on column stellwerk.bulk_operation_run.operation_id is 'The bulk operation.';
comment on column stellwerk.bulk_operation_run.run_id is 'The run.';
comment on column stellwerk.bulk_operation_run.outcome is 'done, skipped (its state did not allow it any more) or failed; null while it is still to come.';
comment on column stellwerk.bulk_operation_run.error is 'Why it was skipped or failed: { class, message }.';
comment on column stellwerk.bulk_operation_run.handled_at is 'When.';

-- Rows of these kinds are few, and people ask for them: failures, and runs that stand still without a live step to be found by.
-- Neither predicate occurs in a statement of the engine that looks a run up by its key.
create index run_failed on stellwerk.run (tenant_id, ended_at) where state = 'failed';
create index run_still on stellwerk.run (tenant_id, run_id) where state = 'paused' or (state = 'pending' and held);
create index event_failed on stellwerk.event (tenant_id, event_id) where state = 'failed';
create index case_export_failed on stellwerk.case_export (tenant_id, export_id) where state = 'failed';

-- explain_run says what it said, and more.
-- squawk-ignore ban-drop-function
drop function if exists stellwerk.why_step(stellwerk.step);

-- Why a run stands where it stands, before it is put into words.
create type stellwerk.reason as (
  rank      integer,
  node_id   text,
  text      text,
  evidence  jsonb
);
comment on type stellwerk.reason is 'One reason why a run stands where it stands.';
comment on column stellwerk.reason.rank is 'The lowest is told first.';
comment on column stellwerk.reason.node_id is 'The node that it is about; null for the run itself.';
comment on column stellwerk.reason.text is 'A sentence about the run, or in lower case a clause about one of its steps.';
comment on column stellwerk.reason.evidence is 'The rows that it follows from.';
