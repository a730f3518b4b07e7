-- What the pages of tasks, figures and alerts ask for.

-- Lists of tasks are read in the order of their due times, one list for each way in which a task can be somebody's.
create index user_task_of_assignee_by_due on stellwerk.user_task (tenant_id, assignee, coalesce(due_at, 'infinity'::timestamptz), task_id) where state = 'open';
create index user_task_of_role_by_due on stellwerk.user_task (tenant_id, role, coalesce(due_at, 'infinity'::timestamptz), task_id)
  where state = 'open' and assignee is null;
create index user_task_claimed_by_due on stellwerk.user_task (tenant_id, claimed_by, coalesce(due_at, 'infinity'::timestamptz), task_id) where state = 'claimed';
create index user_task_by_due on stellwerk.user_task (tenant_id, due_at) where state in ('open', 'claimed') and due_at is not null;

-- Counted once an hour is over, so that figures over days cost little however many runs there are. Hours without runs have no row.
create table stellwerk.run_hour (
  tenant_id    bigint      not null references stellwerk.tenant,
  hour         timestamptz not null,
  workflow_id  bigint      not null,
  runs         bigint      not null,
  live         bigint      not null,
  completed    bigint      not null,
  failed       bigint      not null,
  cancelled    bigint      not null,
  durations    jsonb       not null default '{}',

  primary key (tenant_id, hour, workflow_id)
);
create index run_hour_unsettled on stellwerk.run_hour (tenant_id, hour) where live > 0;

comment on table stellwerk.run_hour is 'The runs that were asked for in an hour, by workflow, and what became of them. Written by housekeeping after the hour, and again while some of them still live.';
comment on column stellwerk.run_hour.tenant_id is 'The tenant.';
comment on column stellwerk.run_hour.hour is 'When the hour began.';
comment on column stellwerk.run_hour.workflow_id is 'The workflow.';
comment on column stellwerk.run_hour.runs is 'How many runs were asked for.';
comment on column stellwerk.run_hour.live is 'How many of them have not ended.';
comment on column stellwerk.run_hour.completed is 'How many have completed.';
comment on column stellwerk.run_hour.failed is 'How many have failed.';
comment on column stellwerk.run_hour.cancelled is 'How many were cancelled.';
comment on column stellwerk.run_hour.durations is 'How long the completed ones took from their start: counts by stellwerk.duration_bucket.';

create table stellwerk.node_hour (
  tenant_id      bigint           not null references stellwerk.tenant,
  hour           timestamptz      not null,
  workflow_id    bigint           not null,
  node_id        text             not null,
  type           text             not null,
  visits         bigint           not null,
  completed      bigint           not null,
  failed         bigint           not null,
  retries        bigint           not null,
  work_seconds   double precision not null,
  wait_seconds   double precision not null,
  queue_seconds  double precision not null,
  durations      jsonb            not null default '{}',

  primary key (tenant_id, hour, workflow_id, node_id)
);

comment on table stellwerk.node_hour is 'The steps of the runs of run_hour, by node.';
comment on column stellwerk.node_hour.tenant_id is 'The tenant.';
comment on column stellwerk.node_hour.hour is 'When the hour began in which the runs were asked for.';
comment on column stellwerk.node_hour.workflow_id is 'The workflow.';
comment on column stellwerk.node_hour.node_id is 'The node.';
comment on column stellwerk.node_hour.type is 'Its type.';
comment on column stellwerk.node_hour.visits is 'How many steps.';
comment on column stellwerk.node_hour.completed is 'How many have completed.';
comment on column stellwerk.node_hour.failed is 'How many have failed.';
comment on column stellwerk.node_hour.retries is 'How many attempts failed and were followed by another.';
comment on column stellwerk.node_hour.work_seconds is 'Time in which workers were at it, of the last attempts.';
comment on column stellwerk.node_hour.wait_seconds is 'Time in which steps waited for a time, a person, a signal or another run.';
comment on column stellwerk.node_hour.queue_seconds is 'Time in which steps were ready and nobody had taken them.';
comment on column stellwerk.node_hour.durations is 'How long the ended ones took: counts by stellwerk.duration_bucket.';
