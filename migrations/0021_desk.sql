-- What the pages of tasks, figures and alerts ask for.
-- Migrations run in one transaction, so no index is made concurrently; those on tasks hold only the open ones.
-- squawk-ignore-file require-concurrent-index-creation

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

create table stellwerk.alert_rule (
  tenant_id   bigint           not null references stellwerk.tenant,
  rule_id     bigint           not null generated always as identity,
  name        text             not null,
  kind        text             not null,
  workflow    text,
  threshold   double precision not null,
  period      interval         not null default '1 hour',
  recipients  text[]           not null default '{role:admin}',
  enabled     boolean          not null default true,
  created_at  timestamptz      not null default clock_timestamp(),
  created_by  text             not null,

  primary key (tenant_id, rule_id),
  constraint alert_rule_name_unique unique (tenant_id, name),
  constraint alert_rule_name_plain check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  constraint alert_rule_kind_known check (kind in ('failed_share', 'stuck', 'queue_depth', 'tasks_overdue', 'no_worker')),
  constraint alert_rule_threshold_positive check (threshold > 0 and threshold < 'infinity'),
  constraint alert_rule_period_sane check (period between interval '1 minute' and interval '30 days')
);

comment on table stellwerk.alert_rule is 'When people are to be alerted. tick looks at most once a minute.';
comment on column stellwerk.alert_rule.tenant_id is 'The tenant.';
comment on column stellwerk.alert_rule.rule_id is 'Opaque number.';
comment on column stellwerk.alert_rule.name is 'What it is called.';
comment on column stellwerk.alert_rule.kind is 'failed_share (of the runs of the period that ended), stuck (places that should have moved for longer than the period), queue_depth (steps that wait for a worker), tasks_overdue, or no_worker (1 while none is running).';
comment on column stellwerk.alert_rule.workflow is 'failed_share: slug of the only workflow that counts; null for all.';
comment on column stellwerk.alert_rule.threshold is 'It is raised when what is measured reaches this; a share between 0 and 1.';
comment on column stellwerk.alert_rule.period is 'The period of failed_share, to whole hours, and the patience of stuck.';
comment on column stellwerk.alert_rule.recipients is 'Who is told: e-mail addresses of users, or role:<name>.';
comment on column stellwerk.alert_rule.enabled is 'False: nobody looks.';
comment on column stellwerk.alert_rule.created_at is 'When it was made.';
comment on column stellwerk.alert_rule.created_by is 'Who made it.';

create table stellwerk.alert (
  tenant_id    bigint           not null,
  alert_id     bigint           not null generated always as identity,
  rule_id      bigint           not null,
  value        double precision not null,
  raised_at    timestamptz      not null,
  resolved_at  timestamptz,

  primary key (tenant_id, alert_id),
  foreign key (tenant_id, rule_id) references stellwerk.alert_rule on delete cascade
);
-- A rule is raised once until it is resolved, whoever looks at the same moment.
create unique index alert_once on stellwerk.alert (tenant_id, rule_id) where resolved_at is null;

comment on table stellwerk.alert is 'Each time that a rule was raised, and when that was over.';
comment on column stellwerk.alert.tenant_id is 'The tenant.';
comment on column stellwerk.alert.alert_id is 'Opaque number that follows time.';
comment on column stellwerk.alert.rule_id is 'The rule.';
comment on column stellwerk.alert.value is 'What was measured when it was raised.';
comment on column stellwerk.alert.raised_at is 'When.';
comment on column stellwerk.alert.resolved_at is 'When it was no longer so; null until then.';
