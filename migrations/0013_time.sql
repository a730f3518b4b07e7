-- Time: the zone of a tenant, calendars of working hours, timers that follow a row, schedules.
-- A check that knows one more kind of timer replaces the old one; the table holds only what is still to come.
-- squawk-ignore-file constraint-missing-not-valid, ban-drop-constraint

alter table stellwerk.tenant add column time_zone text not null default 'UTC';
comment on column stellwerk.tenant.time_zone is 'Where times without an offset, and days, are meant; schedules and calendars may name another zone.';

create table stellwerk.calendar (
  tenant_id   bigint      not null references stellwerk.tenant,
  name        text        not null,
  time_zone   text        not null,
  hours       jsonb       not null,
  holidays    date[]      not null default '{}',
  updated_at  timestamptz not null default clock_timestamp(),
  updated_by  text        not null,

  primary key (tenant_id, name),
  constraint calendar_name_shape check (name ~ '^[a-z][a-z0-9_-]{0,62}$'),
  constraint calendar_hours_by_weekday check (jsonb_typeof(hours) = 'object')
);

comment on table stellwerk.calendar is 'Working hours by name; waits count in them or are put off to them.';
comment on column stellwerk.calendar.tenant_id is 'The tenant that the calendar belongs to.';
comment on column stellwerk.calendar.name is 'The name that workflows use.';
comment on column stellwerk.calendar.time_zone is 'Where its hours and holidays are meant.';
comment on column stellwerk.calendar.hours is '{ "1": [["09:00", "13:00"], …], … }: the hours of each weekday, 1 is Monday, in order; a day that is missing is free.';
comment on column stellwerk.calendar.holidays is 'Days without working hours.';
comment on column stellwerk.calendar.updated_at is 'When it was last set.';
comment on column stellwerk.calendar.updated_by is 'Who set it.';

-- A column of the application's that waits follow: its triggers tell of changes.
create table stellwerk.followed_column (
  tenant_id    bigint      not null references stellwerk.tenant,
  slug         text        not null,
  column_name  text        not null,
  target       text        not null,
  key_column   text        not null,
  triggers     text[]      not null default '{}',
  trouble      text,
  followed_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, slug, column_name)
);

comment on table stellwerk.followed_column is 'Columns of registered tables that waits follow, and the triggers that tell of changes.';
comment on column stellwerk.followed_column.tenant_id is 'The tenant whose workflows follow it.';
comment on column stellwerk.followed_column.slug is 'The registered table.';
comment on column stellwerk.followed_column.column_name is 'The column that holds the time.';
comment on column stellwerk.followed_column.target is 'Schema-qualified, quoted name of the table.';
comment on column stellwerk.followed_column.key_column is 'The column of the primary key by which a row is named, besides the tenant''s.';
comment on column stellwerk.followed_column.triggers is 'Names of the triggers on the table.';
comment on column stellwerk.followed_column.trouble is 'Why it cannot be followed now; null while it can.';
comment on column stellwerk.followed_column.followed_at is 'Since when.';

create table stellwerk.row_timer (
  tenant_id    bigint      not null,
  run_id       bigint      not null,
  step_id      bigint      not null,
  slug         text        not null,
  column_name  text        not null,
  row_key      text        not null,
  shift        interval    not null,
  calendar     text,
  row_time     timestamptz,
  trouble      text,
  created_at   timestamptz not null default clock_timestamp(),

  primary key (tenant_id, run_id, step_id)
);
create index row_timer_of_row on stellwerk.row_timer (tenant_id, slug, column_name, row_key);

comment on table stellwerk.row_timer is 'Waiting steps whose time stands in a row of the application; their row in timer says when they are due, as long as that is known.';
comment on column stellwerk.row_timer.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.row_timer.run_id is 'The run.';
comment on column stellwerk.row_timer.step_id is 'The waiting step.';
comment on column stellwerk.row_timer.slug is 'The registered table.';
comment on column stellwerk.row_timer.column_name is 'The column that holds the time.';
comment on column stellwerk.row_timer.row_key is 'The row''s key.';
comment on column stellwerk.row_timer.shift is 'How long after the time in the row the step goes on; negative for before.';
comment on column stellwerk.row_timer.calendar is 'The calendar to whose working hours the time is put off.';
comment on column stellwerk.row_timer.row_time is 'The time that the row held when it was last read; null while it is empty.';
comment on column stellwerk.row_timer.trouble is 'Why the row cannot be followed now; null while it can.';
comment on column stellwerk.row_timer.created_at is 'Since when the step waits.';

-- Written by triggers on the application's tables, which must not wait: so no key is shared and nothing is updated.
create table stellwerk.timer_change (
  tenant_id    bigint      not null,
  change_id    bigint      not null generated always as identity,
  slug         text        not null,
  column_name  text        not null,
  row_key      text,
  gone         boolean     not null default false,
  seen_by      xid8,
  changed_at   timestamptz not null default clock_timestamp(),

  primary key (tenant_id, change_id)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index timer_change_new on stellwerk.timer_change (tenant_id, change_id) where seen_by is null;
create index timer_change_seen on stellwerk.timer_change (tenant_id, seen_by) where seen_by is not null;

comment on table stellwerk.timer_change is 'Changes of followed rows that timers have yet to take up. Each is applied at once, and a second time when every transaction of the first time has ended: a wait that began meanwhile may have read the row as it was before.';
comment on column stellwerk.timer_change.tenant_id is 'The tenant whose timers may follow the row.';
comment on column stellwerk.timer_change.change_id is 'Opaque number.';
comment on column stellwerk.timer_change.slug is 'The registered table.';
comment on column stellwerk.timer_change.column_name is 'The column that holds the time.';
comment on column stellwerk.timer_change.row_key is 'The row''s key; null for all rows.';
comment on column stellwerk.timer_change.gone is 'Whether the row was deleted, or has another key now.';
comment on column stellwerk.timer_change.seen_by is 'The transaction that applied it the first time.';
comment on column stellwerk.timer_change.changed_at is 'When it was written.';

alter table stellwerk.timer drop constraint timer_kind_known;
alter table stellwerk.timer add constraint timer_kind_known
  check (kind in ('start', 'retry', 'run_timeout', 'wait', 'wait_timeout', 'reminder', 'escalation', 'row'));
comment on column stellwerk.timer.kind is 'start (a run''s start_at), retry (a SQL step''s next attempt), run_timeout (the workflow''s timeout), wait (a waiting step goes on), wait_timeout (it leaves by timeout), row (as wait, for a time in a row, which is read again first), reminder, escalation.';

create table stellwerk.schedule (
  tenant_id    bigint      not null references stellwerk.tenant,
  schedule_id  bigint      not null generated always as identity,
  workflow_id  bigint      not null,
  node_id      text        not null,
  cron         text,
  fields       jsonb,
  every        interval,
  time_zone    text,
  catch_up     text        not null,
  next_run     timestamptz,
  last_run     timestamptz,
  last_run_id  bigint,
  paused_at    timestamptz,
  paused_by    text,
  trouble      text,

  primary key (tenant_id, schedule_id),
  foreign key (tenant_id, workflow_id) references stellwerk.workflow on delete cascade,
  constraint schedule_one_per_node unique (tenant_id, workflow_id, node_id),
  constraint schedule_cron_or_every check ((cron is null) = (fields is null) and (cron is null) <> (every is null)),
  constraint schedule_catch_up_known check (catch_up in ('none', 'last', 'all')),
  constraint schedule_paused_by_somebody check ((paused_at is null) = (paused_by is null))
);
create index schedule_due on stellwerk.schedule (tenant_id, next_run) where paused_at is null;

comment on table stellwerk.schedule is 'When the trigger.schedule nodes of published workflows start runs.';
comment on column stellwerk.schedule.tenant_id is 'The tenant.';
comment on column stellwerk.schedule.schedule_id is 'Opaque number.';
comment on column stellwerk.schedule.workflow_id is 'The workflow that it starts.';
comment on column stellwerk.schedule.node_id is 'Its trigger.schedule node.';
comment on column stellwerk.schedule.cron is 'The five fields as they were written; null where every is given.';
comment on column stellwerk.schedule.fields is 'The fields as sets: { minutes, hours, days, months, weekdays, nth, both, fixed }.';
comment on column stellwerk.schedule.every is 'The pause between two runs, where it is no cron expression.';
comment on column stellwerk.schedule.time_zone is 'Where the fields are read; null for the tenant''s zone.';
comment on column stellwerk.schedule.catch_up is 'What becomes of times at which nothing was there to start a run: none, last (one run for all of them), all.';
comment on column stellwerk.schedule.next_run is 'When it starts the next run, kept while it is paused; null when there is no such time.';
comment on column stellwerk.schedule.last_run is 'The time for which it last started a run.';
comment on column stellwerk.schedule.last_run_id is 'That run.';
comment on column stellwerk.schedule.paused_at is 'When it was paused.';
comment on column stellwerk.schedule.paused_by is 'Who paused it.';
comment on column stellwerk.schedule.trouble is 'Why the last run could not be started.';
