-- What runs inside the application's own write: the functions behind the triggers of a watch.
--
-- The write must not fail, wait or run anybody's code because of us. So a trigger calls no function of the application,
-- takes no lock that another can hold for long, never names a column (columns are renamed and dropped), and keeps rows
-- as json: to_jsonb raises for a json column that holds \u0000. What cannot be kept becomes an event with a reason.
-- Only what makes storing the event impossible altogether, such as a full disk, fails the write: then neither the
-- change nor its event is there, and the application hears of it.

-- row_to_json calls a type's own cast to json, which may be anybody's function. It must not run with the rights of the
-- schema's owner, so where the role stellwerk_nobody exists (below), these functions belong to it.
-- The settings make the same row the same text in every session.
create or replace function stellwerk.row_as_json(p_row record)
returns json language plpgsql stable security definer  -- to have fewer rights than the caller, not more
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
set extra_float_digits = '1' as $$
begin
  return row_to_json(p_row);
end
$$;
comment on function stellwerk.row_as_json(record) is 'A row as json, the same in every session. Raises where it is too large for one value.';

create or replace function stellwerk.large_row_as_json(p_row record)
returns json language plpgsql stable set search_path = '' as $$
begin
  return stellwerk.row_as_json(p_row);
exception when program_limit_exceeded or out_of_memory then
  return null;
end
$$;
comment on function stellwerk.large_row_as_json(record) is 'row_as_json; null if the row is too large for one value.';

create or replace function stellwerk.next_rows_as_json(p_rows refcursor, p_pairs boolean, out p_changes json, out p_count integer)
language plpgsql security definer  -- to have fewer rights than the caller, not more
set search_path = '' set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' set bytea_output = 'hex'
set extra_float_digits = '1' as $$
declare
  c_max_rows  constant integer := 500;
  c_max_bytes constant integer := 16 * 1024 * 1024;
  v_row   record;
  v_rows  json[];
  v_at    integer := 0;
  v_bytes bigint := 0;
begin
  p_count := 0;
  while p_count < c_max_rows and v_bytes < c_max_bytes loop
    fetch p_rows into v_row;
    exit when not found;
    p_count := p_count + 1;
    v_at := v_at + 1;
    if p_pairs then
      v_rows[v_at] := row_to_json(v_row.old_row);
      v_bytes := v_bytes + octet_length(v_rows[v_at]::text);
      v_at := v_at + 1;
      v_rows[v_at] := row_to_json(v_row.new_row);
    else
      v_rows[v_at] := row_to_json(v_row);
    end if;
    v_bytes := v_bytes + octet_length(v_rows[v_at]::text);
  end loop;
  p_changes := array_to_json(v_rows);
end
$$;
comment on function stellwerk.next_rows_as_json(refcursor, boolean) is 'The next rows of a cursor as a json array, at most 500 and about 16 MB; of pairs the old and the new row in turn.';

do $$
begin
  if to_regrole('stellwerk_nobody') is not null and pg_has_role('stellwerk_nobody', 'usage') then
    grant usage, create on schema stellwerk to stellwerk_nobody;
    alter function stellwerk.row_as_json(record) owner to stellwerk_nobody;
    alter function stellwerk.next_rows_as_json(refcursor, boolean) owner to stellwerk_nobody;
    revoke all on schema stellwerk from stellwerk_nobody;
  end if;
end
$$;

-- Written for speed: the usual case is one test and one plain insert, with as few functions as can be, for each of them is
-- looked up and its rights are checked anew for every write of the application. Anybody may make a trigger that calls this
-- function on a table of his own, with any arguments; so the event names the table that it came from, and who processes it
-- looks whether that table is the watched one.
create or replace function stellwerk.capture_row()
returns trigger language plpgsql security definer  -- who writes to the watched table needs no right on ours
set search_path = '' as $$
declare
  c_large constant integer := 100000;
  v_old   json;
  v_new   json;
begin
  if tg_op = 'INSERT' and tg_argv[3] is null and pg_column_size(new) <= c_large and current_setting('stellwerk.cause', true) is null
     and current_setting('stellwerk.actor', true) is null and current_setting('stellwerk.traceparent', true) is null then
    insert into stellwerk.event (tenant_id, watch_id, source_oid, target, operation, new, traceparent)
    values (tg_argv[0]::bigint, tg_argv[1]::bigint, tg_relid, tg_argv[2], 'insert', stellwerk.row_as_json(new), null);
  else
    if tg_op <> 'INSERT' then
      v_old := case when pg_column_size(old) > c_large then stellwerk.large_row_as_json(old) else stellwerk.row_as_json(old) end;
    end if;
    if tg_op <> 'DELETE' then
      v_new := case when pg_column_size(new) > c_large then stellwerk.large_row_as_json(new) else stellwerk.row_as_json(new) end;
    end if;
    if tg_argv[3] is not null or current_setting('stellwerk.cause', true) <> '' or current_setting('stellwerk.actor', true) <> '' then
      perform stellwerk.capture_carefully(
        tg_argv[0]::bigint, tg_argv[1]::bigint, tg_argv[2], tg_argv[3] is not null, tg_relid, lower(tg_op), v_old, v_new);
      return null;
    end if;
    insert into stellwerk.event (tenant_id, watch_id, source_oid, target, operation, old, new)
    values (tg_argv[0]::bigint, tg_argv[1]::bigint, tg_relid, tg_argv[2], lower(tg_op), v_old, v_new);
  end if;
  -- ring_if_asleep, written out: a call more would be a tenth of all that capturing a row costs.
  if not pg_try_advisory_xact_lock_shared(stellwerk.bell_key()) then
    perform stellwerk.ring('event');
  end if;
  return null;
end
$$;
comment on function stellwerk.capture_row() is 'Trigger of a watch, for each matching row: writes one event. Arguments: tenant, watch, name of the table, and "partitioned" if it is.';

-- The engine sets stellwerk.cause to <run>/<depth> around the statements of its steps. Anybody may set it to anything.
create or replace function stellwerk.capture_carefully(
  p_tenant_id bigint, p_watch_id bigint, p_target text, p_partitioned boolean, p_table oid, p_operation text, p_old json, p_new json)
returns void language plpgsql set search_path = '' as $$
declare
  c_max_depth constant integer := 8;
  v_cause     text := current_setting('stellwerk.cause', true);
  v_run_id    bigint;
  v_depth     integer := 0;
  v_tables    oid[] := array[p_table];
  v_reason    text;
begin
  if v_cause ~ '^[0-9]{1,18}/[0-9]{1,6}$' then
    v_run_id := split_part(v_cause, '/', 1)::bigint;
    v_depth := split_part(v_cause, '/', 2)::integer + 1;
    if v_depth > c_max_depth then
      v_reason := 'suppressed: the chain of runs that cause each other is longer than 8';
    end if;
  end if;
  if p_partitioned then
    v_tables := array(select a.relid from pg_partition_ancestors(p_table) a (relid));
  end if;
  if not exists (select from stellwerk.table_watch w
                  where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id and w.target_oid = any (v_tables)) then
    v_reason := 'captured by a trigger that belongs to no watch of this table';
  end if;
  insert into stellwerk.event (tenant_id, watch_id, target, operation, old, new, state, reason, caused_by_run_id, depth, actor)
  values (p_tenant_id, p_watch_id, p_target, p_operation, p_old, p_new,
          case when v_reason is null then 'pending' else 'ignored' end, v_reason, v_run_id, v_depth,
          left(nullif(current_setting('stellwerk.actor', true), ''), 320));
  if v_reason is null then
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.capture_carefully(bigint, bigint, text, boolean, oid, text, json, json) is 'Writes the event of a change that a run made, that names its actor, or of a row of a partition, which is looked up now, for it may be gone later.';

-- A statement trigger sees all rows of the statement at once and writes up to 500 of them as one row. It fires for every
-- statement, so it may fail in more ways than a row trigger can; any error becomes one failed event.
create or replace function stellwerk.capture_statement()
returns trigger language plpgsql security definer  -- who writes to the watched table needs no right on ours
set search_path = '' set jit = off set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' as $$
declare
  v_cause     text := current_setting('stellwerk.cause', true);
  v_run_id    bigint;
  v_depth     integer := 0;
  v_operation text := lower(tg_op);
  v_pairs     boolean := tg_op = 'UPDATE';
  v_trigger   jsonb;
  v_rows      refcursor;
  v_changes   json;
  v_count     integer;
  v_captured  boolean := false;
begin
  begin
    if v_cause <> '' and v_cause ~ '^[0-9]{1,18}/[0-9]{1,6}$' then
      v_run_id := split_part(v_cause, '/', 1)::bigint;
      v_depth := split_part(v_cause, '/', 2)::integer + 1;
    end if;
    -- The condition comes from our table, never from the trigger's arguments, which anybody can choose on a table of his own.
    select t.made into v_trigger
      from stellwerk.table_watch w
     cross join lateral jsonb_array_elements(w.triggers) t (made)
     where w.tenant_id = tg_argv[0]::bigint and w.watch_id = tg_argv[1]::bigint and w.target_oid = tg_relid
       and t.made ->> 'operation' = v_operation;
    if v_trigger is null then
      return null;
    end if;
    open v_rows no scroll for execute v_trigger ->> 'query';
    loop
      select c.p_changes, c.p_count into v_changes, v_count from stellwerk.next_rows_as_json(v_rows, v_pairs) c;
      exit when v_count = 0;
      v_captured := true;
      insert into stellwerk.event_batch (tenant_id, watch_id, target, operation, changes, change_count, caused_by_run_id, depth, actor)
      values (tg_argv[0]::bigint, tg_argv[1]::bigint, tg_argv[2], v_operation, v_changes, v_count, v_run_id, v_depth,
              left(nullif(current_setting('stellwerk.actor', true), ''), 320));
    end loop;
    close v_rows;
  exception when others then
    insert into stellwerk.event (tenant_id, watch_id, target, operation, state, reason, caused_by_run_id, depth)
    values (tg_argv[0]::bigint, tg_argv[1]::bigint, tg_argv[2], v_operation, 'failed',
            format('the rows of one %s could not be captured: %s (%s)', v_operation, left(sqlerrm, 500), sqlstate), v_run_id, v_depth);
    return null;
  end;
  if v_captured then
    perform stellwerk.ring_if_asleep();
  end if;
  return null;
end
$$;
comment on function stellwerk.capture_statement() is 'Trigger of a watch in bulk mode, for each statement: writes one row per 500 matching rows. Arguments: tenant, watch, name of the table.';
