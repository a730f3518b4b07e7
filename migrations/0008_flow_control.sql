-- Flow control: which runs may go on at the same time, and how often worker steps may begin.

-- A run that has to pass a gate stands here from its insert until it may start. Who starts a run only inserts this row;
-- everything else is decided by the gate, in the engine's own session.
create table stellwerk.flow_wait (
  tenant_id    bigint      not null,
  run_id       bigint      not null,
  workflow_id  bigint      not null,
  phase        text        not null default 'arriving',
  key          text,
  exclusive    boolean     not null,
  on_conflict  text        not null,
  debounce     interval,
  throttle     interval,
  priority     integer     not null,
  nested       boolean     not null default false,
  arrived_at   timestamptz not null,
  until        timestamptz,

  constraint flow_wait_phase_known check (phase in ('arriving', 'quiet', 'behind', 'timed', 'ready')),
  constraint flow_wait_on_conflict_known check (on_conflict in ('queue', 'skip', 'replace')),
  constraint flow_wait_until_when_timed check ((until is not null) = (phase in ('quiet', 'timed')))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- What a gate looks for: who has come, whose time has come, who is next, who is first of a key and whether it stands so.
create index flow_wait_arriving on stellwerk.flow_wait (tenant_id, workflow_id, arrived_at, run_id) where phase = 'arriving';
create index flow_wait_until on stellwerk.flow_wait (tenant_id, workflow_id, until) where until is not null;
create index flow_wait_ready on stellwerk.flow_wait (tenant_id, workflow_id, priority desc, run_id) where phase = 'ready';
create index flow_wait_of_key on stellwerk.flow_wait (tenant_id, workflow_id, key, priority desc, run_id) where phase in ('behind', 'timed', 'ready') and key is not null;
create index flow_wait_first on stellwerk.flow_wait (tenant_id, workflow_id, key) where phase in ('timed', 'ready') and key is not null;
create index flow_wait_quiet on stellwerk.flow_wait (tenant_id, workflow_id, key, arrived_at, run_id) where phase = 'quiet';
alter table stellwerk.flow_wait add primary key (tenant_id, run_id);

comment on table stellwerk.flow_wait is 'Pending runs that the settings of their workflow do not let start yet: max_running, concurrency_key, debounce, throttle.';
comment on column stellwerk.flow_wait.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.flow_wait.run_id is 'The run that waits.';
comment on column stellwerk.flow_wait.workflow_id is 'Its workflow: each has a gate of its own.';
comment on column stellwerk.flow_wait.phase is 'arriving (the gate has not looked at it yet), quiet (debounce), behind (another run of its key goes first), timed (throttle), ready (next when max_running allows).';
comment on column stellwerk.flow_wait.key is 'Its concurrency_key; empty where debounce or throttle hold for the whole workflow; null when no key matters, or the key had no value.';
comment on column stellwerk.flow_wait.exclusive is 'True when only one run with the key may run at a time: the workflow has a concurrency_key.';
comment on column stellwerk.flow_wait.on_conflict is 'queue, skip or replace, as the version that it was started with says.';
comment on column stellwerk.flow_wait.debounce is 'How long its key must have been quiet.';
comment on column stellwerk.flow_wait.throttle is 'How far two starts of its key must be apart.';
comment on column stellwerk.flow_wait.priority is 'As run.priority: higher goes first; the highest number for a nested run.';
comment on column stellwerk.flow_wait.nested is 'True when a run that called it, however far up, holds a slot of the same workflow: max_running does not hold it up, else both would wait for ever.';
comment on column stellwerk.flow_wait.arrived_at is 'When it came to the gate: when it was asked for, or its start_at.';
comment on column stellwerk.flow_wait.until is 'When a quiet or timed run may go on.';

create table stellwerk.flow_slot (
  tenant_id    bigint      not null,
  run_id       bigint      not null,
  workflow_id  bigint      not null,
  key          text,
  since        timestamptz not null default clock_timestamp(),
  replaced_by  bigint,
  released_at  timestamptz
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- How many of a workflow run, who holds a key, and what has been given back since the gate looked last.
create index flow_slot_held on stellwerk.flow_slot (tenant_id, workflow_id) where released_at is null;
create index flow_slot_key on stellwerk.flow_slot (tenant_id, workflow_id, key) where released_at is null and key is not null;
create index flow_slot_released on stellwerk.flow_slot (tenant_id, workflow_id) where released_at is not null;
alter table stellwerk.flow_slot add primary key (tenant_id, run_id);

comment on table stellwerk.flow_slot is 'Runs that count against max_running or hold a concurrency_key, from their start to their end; a paused run keeps its slot. A run that ends while it waits leaves a row with released_at, so that the gate hears of it.';
comment on column stellwerk.flow_slot.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.flow_slot.run_id is 'The run that holds the slot.';
comment on column stellwerk.flow_slot.workflow_id is 'Its workflow.';
comment on column stellwerk.flow_slot.key is 'The concurrency_key that it holds; null when only max_running counts.';
comment on column stellwerk.flow_slot.since is 'Since when it holds the slot.';
comment on column stellwerk.flow_slot.replaced_by is 'The newer run that has asked it to cancel (on_conflict: replace).';
comment on column stellwerk.flow_slot.released_at is 'When its run ended; the gate hands the slot on and removes the row.';

create table stellwerk.flow_throttle (
  tenant_id    bigint      not null,
  workflow_id  bigint      not null,
  key          text        not null,
  free_at      timestamptz not null,

  primary key (tenant_id, workflow_id, key)
);
create index flow_throttle_past on stellwerk.flow_throttle (tenant_id, free_at);

comment on table stellwerk.flow_throttle is 'When the next run of a throttled key may start; rows are removed when that time is past.';
comment on column stellwerk.flow_throttle.tenant_id is 'The tenant that the workflow belongs to.';
comment on column stellwerk.flow_throttle.workflow_id is 'The workflow.';
comment on column stellwerk.flow_throttle.key is 'The concurrency_key; empty for the whole workflow.';
comment on column stellwerk.flow_throttle.free_at is 'No run of the key starts before this.';

-- How often worker steps may begin.
create table stellwerk.rate_limit (
  tenant_id  bigint      not null references stellwerk.tenant,
  kind       text        not null,
  name       text        not null,
  max_count  integer     not null,
  per        interval    not null,
  set_at     timestamptz not null default clock_timestamp(),
  set_by     text        not null,

  primary key (tenant_id, kind, name),
  constraint rate_limit_kind_known check (kind in ('type', 'provider')),
  constraint rate_limit_lets_some_through check (max_count between 1 and 1000000),
  constraint rate_limit_of_sane_length check (per between interval '0.1 seconds' and interval '31 days')
);

comment on table stellwerk.rate_limit is 'How many worker steps of a node type, or for a provider, may begin within any interval of a given length.';
comment on column stellwerk.rate_limit.tenant_id is 'The tenant whose steps are counted.';
comment on column stellwerk.rate_limit.kind is 'type (a node type) or provider (whom the step talks to).';
comment on column stellwerk.rate_limit.name is 'A node type such as http.request, or a provider such as slack, email or http:api.example.com.';
comment on column stellwerk.rate_limit.max_count is 'How many steps may begin within the interval.';
comment on column stellwerk.rate_limit.per is 'Length of the interval.';
comment on column stellwerk.rate_limit.set_at is 'When the limit was set.';
comment on column stellwerk.rate_limit.set_by is 'Who set it.';

-- Apart from the limit, because it is written with every claim, and by claims only: whoever sets a limit and is slow to commit
-- must not make a worker wait.
create table stellwerk.rate_usage (
  tenant_id     bigint    not null,
  kind          text      not null,
  name          text      not null,
  portion       bigint    not null default 0,
  counts        integer[] not null default '{}',
  per           interval  not null,
  tail          timestamptz,
  limit_set_at  timestamptz,

  primary key (tenant_id, kind, name)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);

comment on table stellwerk.rate_usage is 'What has begun under each rate limit lately: the last 21 twentieths of its interval, so that no interval ever sees more than the limit.';
comment on column stellwerk.rate_usage.tenant_id is 'The tenant.';
comment on column stellwerk.rate_usage.kind is 'As in rate_limit.';
comment on column stellwerk.rate_usage.name is 'As in rate_limit.';
comment on column stellwerk.rate_usage.portion is 'Number of the twentieth that counts[1] belongs to, counted from 1970.';
comment on column stellwerk.rate_usage.counts is 'Steps begun in that twentieth, in the one before it, and so on.';
comment on column stellwerk.rate_usage.per is 'The interval that was counted by; when the limit''s has changed, all of it counts as of now.';
comment on column stellwerk.rate_usage.tail is 'The latest turn that was given to a step put off; the next one comes after it.';
comment on column stellwerk.rate_usage.limit_set_at is 'rate_limit.set_at when the turns were given; once the limit has been set anew, they hold no longer.';

create table stellwerk.rate_wait (
  tenant_id     bigint      not null,
  run_id        bigint      not null,
  step_id       bigint      not null,
  kind          text        not null,
  name          text        not null,
  due_at        timestamptz not null,
  limit_set_at  timestamptz not null,
  since         timestamptz not null default clock_timestamp()
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index rate_wait_of_limit on stellwerk.rate_wait (tenant_id, kind, name, due_at);
create index rate_wait_past on stellwerk.rate_wait (tenant_id, due_at);
alter table stellwerk.rate_wait add primary key (tenant_id, run_id, step_id);

comment on table stellwerk.rate_wait is 'Worker steps that a rate limit has put off; the row is removed when the step begins.';
comment on column stellwerk.rate_wait.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.rate_wait.run_id is 'The run.';
comment on column stellwerk.rate_wait.step_id is 'The step.';
comment on column stellwerk.rate_wait.kind is 'The limit that put it off.';
comment on column stellwerk.rate_wait.name is 'The limit that put it off.';
comment on column stellwerk.rate_wait.due_at is 'When its turn comes.';
comment on column stellwerk.rate_wait.limit_set_at is 'rate_limit.set_at when the turn was given; once the limit has been set anew, it holds no longer.';
comment on column stellwerk.rate_wait.since is 'When it was put off first.';
