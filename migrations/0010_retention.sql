-- How long things are kept, and the first partitions by range.

create table stellwerk.retention_policy (
  tenant_id  bigint   not null references stellwerk.tenant,
  runs       interval,
  events     interval,
  audit      interval,

  primary key (tenant_id),
  constraint retention_policy_not_negative check (runs >= interval '0' and events >= interval '0' and audit >= interval '0')
);

comment on table stellwerk.retention_policy is 'How long a tenant''s history is kept; a tenant without a row, and a column without a value, keep it for ever.';
comment on column stellwerk.retention_policy.tenant_id is 'The tenant.';
comment on column stellwerk.retention_policy.runs is 'Ended runs and all that belongs to them, counted from their end; a workflow version''s settings.retention goes before it.';
comment on column stellwerk.retention_policy.events is 'Events, counted from when they were processed. Null: those that started a run go with it, the others after "runs".';
comment on column stellwerk.retention_policy.audit is 'Rows of the audit log.';

-- Only written while a pass over old rows takes more than one call.
create table stellwerk.retention_progress (
  tenant_id    bigint not null,
  kind         text   not null,
  workflow_id  bigint not null,
  position     bigint not null,

  primary key (tenant_id, kind, workflow_id),
  constraint retention_progress_kind_known check (kind in ('run', 'event'))
);

comment on table stellwerk.retention_progress is 'How far housekeeping has come in looking for expired rows, where one call was not enough.';
comment on column stellwerk.retention_progress.tenant_id is 'The tenant.';
comment on column stellwerk.retention_progress.kind is 'run or event.';
comment on column stellwerk.retention_progress.workflow_id is 'The workflow whose runs are looked at; 0 for events.';
comment on column stellwerk.retention_progress.position is 'The last run or event that was looked at; the next call goes on after it.';

-- What the tables hold so far becomes the first range, and the default partition is empty from now on: a new range beside an
-- empty default is made in a moment, beside a full one only after a scan. The scan is done here for tables that are small;
-- housekeeping does it for large ones, without standing in anybody's way.
do $first$
declare
  c_small constant bigint := 256 * 1024 * 1024;
  c_size  constant bigint := 10000000;
  v_part  record;
  v_index record;
  v_upper bigint;
  v_options text;
begin
  for v_part in
    select t.name, t.key, t.sequence
      from (values ('run', 'run_id', 'run_id_seq'), ('step', 'run_id', 'run_id_seq'), ('step_attempt', 'run_id', 'run_id_seq'),
                   ('loop', 'run_id', 'run_id_seq'), ('scope', 'run_id', 'run_id_seq'), ('event', 'event_id', 'event_id_seq'),
                   ('audit_log', 'audit_id', 'audit_id_seq')) t (name, key, sequence)
  loop
    continue when pg_total_relation_size(format('stellwerk.%I', v_part.name || '_default')::regclass) > c_small;
    -- At least half a range ahead of the numbers that are in use.
    v_upper := ((coalesce(pg_sequence_last_value(format('stellwerk.%I', v_part.sequence)::regclass), 0) + c_size / 2) / c_size + 1) * c_size;
    v_options := (select 'with (' || array_to_string(c.reloptions, ', ') || ')' from pg_catalog.pg_class c
                   where c.oid = format('stellwerk.%I', v_part.name || '_default')::regclass);
    execute format('alter table stellwerk.%I detach partition stellwerk.%I', v_part.name, v_part.name || '_default');
    execute format('alter table stellwerk.%I rename to %I', v_part.name || '_default', v_part.name || '_0');
    for v_index in select i.indexrelid::regclass as id, c.relname as name from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
                    where i.indrelid = format('stellwerk.%I', v_part.name || '_0')::regclass and starts_with(c.relname, v_part.name || '_default') loop
      execute format('alter index %s rename to %I', v_index.id, replace(v_index.name, v_part.name || '_default', v_part.name || '_0'));
    end loop;
    execute format('alter table stellwerk.%I attach partition stellwerk.%I for values from (minvalue) to (%s)', v_part.name, v_part.name || '_0', v_upper);
    execute format('create table stellwerk.%I partition of stellwerk.%I default %s', v_part.name || '_default', v_part.name, v_options);
    execute format('comment on table stellwerk.%I is %L', v_part.name || '_0', format('Part of %s: %s below %s.', v_part.name, v_part.key, v_upper));
    execute format('comment on table stellwerk.%I is %L', v_part.name || '_default', format('Part of %s: what no range takes; empty as long as ranges are made in time.', v_part.name));
  end loop;
end
$first$;
