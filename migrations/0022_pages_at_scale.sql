-- What pages ask for where there are millions of runs.
-- Migrations run in one transaction, so no index is made concurrently; the tables that change hold a row per hour, and only the web reads them.
-- squawk-ignore-file require-concurrent-index-creation, ban-drop-constraint, constraint-missing-not-valid, adding-serial-primary-key-field, renaming-column, ban-drop-function

-- The runs that have not ended, by workflow and state: to be counted and listed without reading those that have.
create index run_live on stellwerk.run (tenant_id, workflow_id, state, run_id) where ended_at is null;

-- The audit log is read backwards, all of it, one person's entries, or those on one kind of thing.
create index audit_log_of_actor on stellwerk.audit_log (tenant_id, actor, audit_id);
create index audit_log_of_kind on stellwerk.audit_log (tenant_id, subject, audit_id);

-- Tasks in the order of lists, which is that of their due times: everybody's, and those that have ended, by whom they concerned.
create index user_task_live_by_due on stellwerk.user_task (tenant_id, coalesce(due_at, 'infinity'::timestamptz), task_id) where state in ('open', 'claimed');
create index user_task_ended_by_due on stellwerk.user_task (tenant_id, state, coalesce(due_at, 'infinity'::timestamptz), task_id)
  where state in ('completed', 'expired', 'cancelled');
create index user_task_completed_by on stellwerk.user_task (tenant_id, completed_by, state, coalesce(due_at, 'infinity'::timestamptz), task_id)
  where completed_by is not null;
create index user_task_was_claimed_by on stellwerk.user_task (tenant_id, claimed_by, state, coalesce(due_at, 'infinity'::timestamptz), task_id)
  where claimed_by is not null and state in ('completed', 'expired', 'cancelled');
create index user_task_was_of_assignee on stellwerk.user_task (tenant_id, assignee, state, coalesce(due_at, 'infinity'::timestamptz), task_id)
  where assignee is not null and state in ('completed', 'expired', 'cancelled');

-- Figures: all states of runs, how long runs waited for their beginning, and nodes by version.
alter table stellwerk.run_hour
  add column pending bigint not null default 0,
  add column running bigint not null default 0,
  add column waiting bigint not null default 0,
  add column paused bigint not null default 0,
  add column starts jsonb not null default '{}',
  add column last_started_at timestamptz;

comment on column stellwerk.run_hour.pending is 'How many have not begun.';
comment on column stellwerk.run_hour.running is 'How many run.';
comment on column stellwerk.run_hour.waiting is 'How many wait.';
comment on column stellwerk.run_hour.paused is 'How many are paused.';
comment on column stellwerk.run_hour.starts is 'How long they waited for their first step: counts by stellwerk.duration_bucket.';
comment on column stellwerk.run_hour.last_started_at is 'When the last of them began.';

alter table stellwerk.node_hour
  add column version integer not null default 0,
  add column live bigint not null default 0,
  add column skipped bigint not null default 0,
  add column cancelled bigint not null default 0,
  add column attempts bigint not null default 0,
  add column failures bigint not null default 0,
  add column queues jsonb not null default '{}';
alter table stellwerk.node_hour drop constraint node_hour_pkey;
alter table stellwerk.node_hour add primary key (tenant_id, hour, workflow_id, node_id, version);

comment on column stellwerk.node_hour.version is 'The version that the steps ran under.';
comment on column stellwerk.node_hour.live is 'How many have not ended.';
comment on column stellwerk.node_hour.skipped is 'How many were skipped.';
comment on column stellwerk.node_hour.cancelled is 'How many were cancelled.';
comment on column stellwerk.node_hour.attempts is 'How many attempts they took together.';
comment on column stellwerk.node_hour.failures is 'How many of these ended in an error.';
comment on column stellwerk.node_hour.queues is 'How long those waited for a worker whose first attempt was their last: counts by stellwerk.duration_bucket.';

-- The hours of whole days, summed up, so that a season costs no more than a week.
create table stellwerk.run_day (like stellwerk.run_hour including defaults);
alter table stellwerk.run_day rename column hour to day;
alter table stellwerk.run_day add primary key (tenant_id, day, workflow_id), add foreign key (tenant_id) references stellwerk.tenant;

comment on table stellwerk.run_day is 'The sums of run_hour over days (UTC) of which all hours are counted. Written by housekeeping, and again with an hour that has changed.';
comment on column stellwerk.run_day.tenant_id is 'The tenant.';
comment on column stellwerk.run_day.day is 'When the day began.';
comment on column stellwerk.run_day.workflow_id is 'The workflow.';
comment on column stellwerk.run_day.runs is 'How many runs were asked for.';
comment on column stellwerk.run_day.live is 'How many of them have not ended.';
comment on column stellwerk.run_day.completed is 'How many have completed.';
comment on column stellwerk.run_day.failed is 'How many have failed.';
comment on column stellwerk.run_day.cancelled is 'How many were cancelled.';
comment on column stellwerk.run_day.durations is 'How long the completed ones took from their start: counts by stellwerk.duration_bucket.';
comment on column stellwerk.run_day.pending is 'How many have not begun.';
comment on column stellwerk.run_day.running is 'How many run.';
comment on column stellwerk.run_day.waiting is 'How many wait.';
comment on column stellwerk.run_day.paused is 'How many are paused.';
comment on column stellwerk.run_day.starts is 'How long they waited for their first step: counts by stellwerk.duration_bucket.';
comment on column stellwerk.run_day.last_started_at is 'When the last of them began.';

create table stellwerk.node_day (like stellwerk.node_hour including defaults);
alter table stellwerk.node_day rename column hour to day;
alter table stellwerk.node_day add primary key (tenant_id, day, workflow_id, node_id, version);

comment on table stellwerk.node_day is 'The sums of node_hour over the days of run_day.';
comment on column stellwerk.node_day.tenant_id is 'The tenant.';
comment on column stellwerk.node_day.day is 'When the day began on which the runs were asked for.';
comment on column stellwerk.node_day.workflow_id is 'The workflow.';
comment on column stellwerk.node_day.node_id is 'The node.';
comment on column stellwerk.node_day.type is 'Its type.';
comment on column stellwerk.node_day.visits is 'How many steps.';
comment on column stellwerk.node_day.completed is 'How many have completed.';
comment on column stellwerk.node_day.failed is 'How many have failed.';
comment on column stellwerk.node_day.retries is 'How many attempts failed and were followed by another.';
comment on column stellwerk.node_day.work_seconds is 'Time in which workers were at it, of the last attempts.';
comment on column stellwerk.node_day.wait_seconds is 'Time in which steps waited for a time, a person, a signal or another run.';
comment on column stellwerk.node_day.queue_seconds is 'Time in which steps were ready and nobody had taken them.';
comment on column stellwerk.node_day.durations is 'How long the ended ones took: counts by stellwerk.duration_bucket.';
comment on column stellwerk.node_day.version is 'The version that the steps ran under.';
comment on column stellwerk.node_day.live is 'How many have not ended.';
comment on column stellwerk.node_day.skipped is 'How many were skipped.';
comment on column stellwerk.node_day.cancelled is 'How many were cancelled.';
comment on column stellwerk.node_day.attempts is 'How many attempts they took together.';
comment on column stellwerk.node_day.failures is 'How many of these ended in an error.';
comment on column stellwerk.node_day.queues is 'How long those waited for a worker whose first attempt was their last: counts by stellwerk.duration_bucket.';

-- These answer more columns now.
drop function if exists stellwerk.workflow_figures(timestamptz), stellwerk.node_figures(text, timestamptz), stellwerk.recent_failures(timestamptz, integer),
  stellwerk.count_nodes(bigint, timestamptz), stellwerk.runs_with_words(bigint, tsquery, bigint, bigint, integer),
  stellwerk.live_runs(bigint, text[], bigint, bigint);
