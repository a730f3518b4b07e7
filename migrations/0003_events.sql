-- What happened to the application's rows. Partitioned by event id from the first day, because a conversion
-- later would be a rewrite; there is one default partition until sizes are measured.

create table stellwerk.table_watch (
  tenant_id      bigint      not null references stellwerk.tenant,
  watch_id       bigint      not null generated always as identity,
  target         text        not null,
  target_oid     oid         not null,
  workflow_id    bigint      not null,
  trigger_node   text,
  operations     text[]      not null,
  condition      text,
  columns        text[],
  bulk           boolean     not null default false,
  key_columns    text[]      not null default '{}',
  triggers       jsonb       not null default '[]',
  state          text        not null default 'armed',
  reason         text,
  published      boolean     not null default false,
  created_at     timestamptz not null default clock_timestamp(),
  created_by     text        not null,
  checked_at     timestamptz,

  primary key (tenant_id, watch_id),
  foreign key (tenant_id, workflow_id) references stellwerk.workflow on delete cascade,
  constraint table_watch_state_known check (state in ('armed', 'disarmed', 'broken')),
  constraint table_watch_operations_known check (operations <@ array['insert', 'update', 'delete'] and cardinality(operations) > 0)
);

create unique index table_watch_once on stellwerk.table_watch (tenant_id, target_oid, workflow_id, coalesce(trigger_node, ''));

comment on table stellwerk.table_watch is 'Which changes of which application table start which workflow.';
comment on column stellwerk.table_watch.tenant_id is 'The tenant whose workflow is started.';
comment on column stellwerk.table_watch.watch_id is 'Opaque number; part of the trigger''s name.';
comment on column stellwerk.table_watch.target is 'Schema-qualified, quoted name of the table when the watch was set.';
comment on column stellwerk.table_watch.target_oid is 'The table''s oid; a dropped and re-created table is another one.';
comment on column stellwerk.table_watch.workflow_id is 'The workflow that starts.';
comment on column stellwerk.table_watch.trigger_node is 'The trigger.row node it starts at; null for the workflow''s only one.';
comment on column stellwerk.table_watch.operations is 'insert, update, delete: which of them are captured.';
comment on column stellwerk.table_watch.condition is 'The condition as written; null captures every row.';
comment on column stellwerk.table_watch.columns is 'For updates: only changes of these columns; null for all.';
comment on column stellwerk.table_watch.bulk is 'True: statement triggers that write one row per 500 matching rows.';
comment on column stellwerk.table_watch.key_columns is 'The columns whose values make record_id: the primary key when the watch was set.';
comment on column stellwerk.table_watch.triggers is 'Array of { name, operation, definition }: the triggers as they were made, to notice changes by others.';
comment on column stellwerk.table_watch.state is 'armed; disarmed (nothing is captured on purpose); broken (somebody''s DDL took the trigger or a column away).';
comment on column stellwerk.table_watch.reason is 'Why the watch is broken or disarmed, and how to mend it.';
comment on column stellwerk.table_watch.published is 'True when the watch comes from a published trigger.row node and is removed with it.';
comment on column stellwerk.table_watch.created_at is 'When the watch was set.';
comment on column stellwerk.table_watch.created_by is 'Who set it.';
comment on column stellwerk.table_watch.checked_at is 'When its state last changed by a check against the catalog.';

create sequence stellwerk.event_id_seq cache 32;
comment on sequence stellwerk.event_id_seq is 'Numbers of events; gaps are normal.';

-- No check constraints: PostgreSQL reads them anew for each insert, and each of these inserts is part of an application's write.
create table stellwerk.event (
  tenant_id         bigint      not null,
  event_id          bigint      not null default nextval('stellwerk.event_id_seq'),
  watch_id          bigint,
  target            text        not null,
  operation         text        not null,
  record_id         text,
  old               json,
  new               json,
  state             text        not null default 'pending',
  run_id            bigint,
  reason            text,
  caused_by_run_id  bigint,
  depth             integer     not null default 0,
  created_at        timestamptz not null default clock_timestamp(),
  processed_at      timestamptz,

  source_oid        oid,

  primary key (tenant_id, event_id)
) partition by range (event_id);

create table stellwerk.event_default partition of stellwerk.event default
  with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

create index event_pending on stellwerk.event (tenant_id, event_id) where state = 'pending';

comment on table stellwerk.event is 'One captured change of an application''s row, written in the application''s own transaction.';
comment on table stellwerk.event_default is 'All events until partitions by range are made.';
comment on column stellwerk.event.tenant_id is 'The tenant of the watch.';
comment on column stellwerk.event.event_id is 'Opaque number that follows time.';
comment on column stellwerk.event.watch_id is 'The watch that captured it.';
comment on column stellwerk.event.target is 'The watched table.';
comment on column stellwerk.event.operation is 'insert, update or delete.';
comment on column stellwerk.event.record_id is 'The row''s primary key as text; several columns are joined by a comma.';
comment on column stellwerk.event.old is 'The row before, as json (update, delete).';
comment on column stellwerk.event.new is 'The row after, as json (insert, update).';
comment on column stellwerk.event.state is 'pending, processed (run_id says what it started), ignored or failed (reason says why).';
comment on column stellwerk.event.run_id is 'The run that it started.';
comment on column stellwerk.event.reason is 'Why it started nothing.';
comment on column stellwerk.event.caused_by_run_id is 'The run whose step changed the row; null for a change from outside.';
comment on column stellwerk.event.depth is 'How many runs stand in the chain of causes before it; 0 for a change from outside.';
comment on column stellwerk.event.created_at is 'When the row was changed, by the database''s clock.';
comment on column stellwerk.event.source_oid is 'The table, or partition, whose trigger wrote it; must belong to the watch, for anybody can put our trigger function on a table of his own.';
comment on column stellwerk.event.processed_at is 'When the event left the state pending.';

create table stellwerk.event_batch (
  tenant_id         bigint      not null,
  batch_id          bigint      not null generated always as identity,
  watch_id          bigint      not null,
  target            text        not null,
  operation         text        not null,
  changes           json        not null,
  change_count      integer     not null,
  caused_by_run_id  bigint,
  depth             integer     not null default 0,
  created_at        timestamptz not null default clock_timestamp(),

  primary key (tenant_id, batch_id)
);

comment on table stellwerk.event_batch is 'Changes captured in bulk mode, up to 500 rows each, until they are unpacked into events and the batch is removed.';
comment on column stellwerk.event_batch.tenant_id is 'The tenant of the watch.';
comment on column stellwerk.event_batch.batch_id is 'Opaque number.';
comment on column stellwerk.event_batch.watch_id is 'The watch that captured the rows.';
comment on column stellwerk.event_batch.target is 'The watched table.';
comment on column stellwerk.event_batch.operation is 'insert, update or delete.';
comment on column stellwerk.event_batch.changes is 'Array of rows as json; of an update, the row before and the row after in turn.';
comment on column stellwerk.event_batch.change_count is 'How many changes it holds.';
comment on column stellwerk.event_batch.caused_by_run_id is 'The run whose step changed the rows; null for a change from outside.';
comment on column stellwerk.event_batch.depth is 'As in event.';
comment on column stellwerk.event_batch.created_at is 'When the rows were changed.';
