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

create or replace function stellwerk.captured_row(p_row record)
returns json language plpgsql stable set search_path = '' as $$
declare
  c_large constant integer := 100000;
begin
  if pg_column_size(p_row) > c_large then
    return stellwerk.large_row_as_json(p_row);
  end if;
  return stellwerk.row_as_json(p_row);
end
$$;
comment on function stellwerk.captured_row(record) is 'A row of any table as an event keeps it: as json, null if it is too large for one value.';

-- A row that cannot be kept leaves a json null in its place, one of another table than the watched that table's number (rows are objects).
create or replace function stellwerk.captured_with_care(p_row record, p_table oid, p_watched oid)
returns json language plpgsql stable set search_path = '' as $$
begin
  -- A partition belongs to the watched table, and may be gone when the event is processed.
  if p_table <> p_watched and stellwerk.watched_table(p_table, p_watched) <> p_watched then
    return to_json(p_table::text);
  end if;
  return coalesce(stellwerk.captured_row(p_row), 'null');
end
$$;
comment on function stellwerk.captured_with_care(record, oid, oid) is 'A row as its arrival keeps it, whatever its table is: as json, null in json if it is too large, the number of its table in json if that is not the watched one.';

create or replace function stellwerk.captured_with_care_and_ring(p_row record, p_table oid, p_watched oid)
returns json language plpgsql set search_path = '' as $$
begin
  perform stellwerk.ring_if_asleep();
  return stellwerk.captured_with_care(p_row, p_table, p_watched);
end
$$;
comment on function stellwerk.captured_with_care_and_ring(record, oid, oid) is 'captured_with_care, having rung if the duty worker sleeps: the part of a capture that is not written for speed.';

-- Called in the conditions of capturing functions with the number of a table, which stands in the same condition as it is. So the answer
-- becomes a part of the plan, and the plan depends on the table: PostgreSQL makes it anew, asking again, after any change of the table.
create or replace function stellwerk.has_plain_columns(p_table oid)
returns boolean language plpgsql immutable set search_path = '' as $$
begin
  return not exists (
    select from pg_attribute a
      join pg_type t on t.oid = a.atttypid
     where a.attrelid = p_table and a.attnum > 0 and not a.attisdropped
       and case when t.typelem <> 0 and t.typlen = -1 then t.typelem else t.oid end <> all (array[
             'bool', 'int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'bpchar', '"char"', 'name', 'uuid', 'json', 'jsonb',
             'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'inet', 'cidr', 'macaddr', 'bit', 'varbit', 'oid']::regtype[]::oid[]));
end
$$;
comment on function stellwerk.has_plain_columns(oid) is 'Whether all columns have types of PostgreSQL itself (or arrays of them) whose text no setting changes but the time zone: their json needs no care.';

-- Each operation of a watch has a trigger function of its own, written for speed: one plain insert and no other expression, with as few
-- functions as can be, for each of them is looked up and its rights are checked anew for every write of the application. What does not
-- change is written into it. Anybody may put the function on a table of his own. So only the watched table's own rows are made json with
-- the owner's rights, if its columns are plain. One condition asks for all that makes a capture quick, that nobody has to be woken (see
-- ring_if_asleep) as the last. The operation is told from which of the two rows there are.
create or replace function stellwerk.make_capture(p_tenant_id bigint, p_watch_id bigint, p_table oid, p_target text, p_operation text)
returns void language plpgsql set search_path = '' as $$
declare
  c_body constant text := '
begin
  insert into stellwerk.event_arrival (tenant_id, watch_id, %1$s, cause, actor, traceparent)
  values (%2$s, %3$s,
          %4$s,
          current_setting(''stellwerk.cause'', true), current_setting(''stellwerk.actor'', true), current_setting(''stellwerk.traceparent'', true));
  return null;
end
';
  c_row constant text := 'case when tg_relid = %2$L::oid and stellwerk.has_plain_columns(%2$L) and pg_column_size(%1$s) <= 100000%3$s
               then row_to_json(%1$s) else stellwerk.captured_with_care%4$s(%1$s, tg_relid, %2$L) end';
  c_awake constant text := ' and pg_try_advisory_xact_lock_shared(stellwerk.bell_key())';
  v_name text := stellwerk.capture_name(p_watch_id, p_operation);
  v_rows text[] := string_to_array(case p_operation when 'insert' then 'new' when 'delete' then 'old' else 'old,new' end, ',');
  v_role text;
begin
  execute format(
    'create or replace function stellwerk.%I() returns trigger language plpgsql security definer set search_path = '''' set timezone = ''UTC'' as %L', v_name,
    format(c_body, array_to_string(v_rows, ', '), p_tenant_id, p_watch_id,
           (select string_agg(format(c_row, r.name, p_table, case when r.place = cardinality(v_rows) then c_awake end,
                                     case when r.place = cardinality(v_rows) then '_and_ring' end), E',\n          ' order by r.place)
              from unnest(v_rows) with ordinality r (name, place))));
  execute format('comment on function stellwerk.%I() is %L', v_name,
    format('Trigger of watch %s: writes one event for each %s of %s that matches.', p_watch_id, p_operation, p_target));
  execute format('revoke all on function stellwerk.%I() from public', v_name);
  foreach v_role in array array['stellwerk_dba', 'stellwerk_web'] loop
    if to_regrole(v_role) is not null then
      execute format('grant execute on function stellwerk.%I() to %I', v_name, v_role);
    end if;
  end loop;
end
$$;
comment on function stellwerk.make_capture(bigint, bigint, oid, text, text) is 'Makes the trigger function of a watch for one operation, or makes it anew.';

create or replace function stellwerk.drop_capture(p_watch_id bigint, p_operation text)
returns void language plpgsql set search_path = '' set client_min_messages = 'warning' as $$
begin
  execute format('drop function if exists stellwerk.%I()', stellwerk.capture_name(p_watch_id, p_operation));
exception when dependent_objects_still_exist then
  return;  -- somebody has put it on a table of his own; without the watch it does no harm
end
$$;
comment on function stellwerk.drop_capture(bigint, text) is 'Drops the trigger function of a watch for one operation, if it is there and no trigger calls it.';

create or replace function stellwerk.capture_name(p_watch_id bigint, p_operation text)
returns text language sql immutable set search_path = ''
return format('capture_%s_%s', p_watch_id, left(p_operation, 1));
comment on function stellwerk.capture_name(bigint, text) is 'The name of the trigger function of a watch for one operation.';

create or replace function stellwerk.watched_table(p_table oid, p_watched oid)
returns oid language plpgsql stable set search_path = '' as $$
begin
  return case when exists (select from pg_partition_ancestors(p_table) a (relid) where a.relid = p_watched) then p_watched else p_table end;
end
$$;
comment on function stellwerk.watched_table(oid, oid) is 'The watched table if the table is a partition of it, else the table itself.';

-- Not in use any more but by triggers that were made before each watch had functions of its own. These go on as they are.
create or replace function stellwerk.capture_row()
returns trigger language plpgsql security definer  -- who writes to the watched table needs no right on ours
set search_path = '' as $$
begin
  insert into stellwerk.event_inbox (tenant_id, watch_id, source_oid, target, operation, old, new, cause, actor, traceparent)
  values (tg_argv[0]::bigint, tg_argv[1]::bigint,
          case when tg_argv[3] is null then tg_relid
               else coalesce((select stellwerk.watched_table(tg_relid, w.target_oid) from stellwerk.table_watch w
                               where w.tenant_id = tg_argv[0]::bigint and w.watch_id = tg_argv[1]::bigint), tg_relid) end,
          tg_argv[2], lower(tg_op), case when tg_op <> 'INSERT' then stellwerk.captured_row(old) end,
          case when tg_op <> 'DELETE' then stellwerk.captured_row(new) end,
          current_setting('stellwerk.cause', true), current_setting('stellwerk.actor', true), current_setting('stellwerk.traceparent', true));
  perform stellwerk.ring_if_asleep();
  return null;
end
$$;
comment on function stellwerk.capture_row() is 'Trigger of a watch that was set before watches had functions of their own, for each matching row: writes one event. Arguments: tenant, watch, name of the table, and "partitioned" if it is.';

-- The engine sets stellwerk.cause to <run>/<depth> around the statements of its steps. Anybody may set it to anything.
create or replace function stellwerk.causing_run(p_cause text)
returns bigint language sql immutable parallel safe
return case when p_cause ~ '^[0-9]{1,18}/[0-9]{1,6}$' then split_part(p_cause, '/', 1)::bigint end;
comment on function stellwerk.causing_run(text) is 'The run that a cause names; null for what names none.';

create or replace function stellwerk.depth_after(p_cause text)
returns integer language sql immutable parallel safe
return case when p_cause ~ '^[0-9]{1,18}/[0-9]{1,6}$' then split_part(p_cause, '/', 2)::integer + 1 else 0 end;
comment on function stellwerk.depth_after(text) is 'How many runs stand in the chain of causes before a change with this cause.';

create or replace function stellwerk.cause_text(p_run_id bigint, p_depth integer)
returns text language sql immutable parallel safe
return p_run_id || '/' || p_depth - 1;
comment on function stellwerk.cause_text(bigint, integer) is 'The cause of a change from which causing_run and depth_after read these; null for a change from outside.';

create or replace function stellwerk.actor_told(p_setting text)
returns text language sql immutable parallel safe
return left(nullif(p_setting, ''), 320);
comment on function stellwerk.actor_told(text) is 'Whom the setting stellwerk.actor names, null if nobody.';

create or replace function stellwerk.traceparent_told(p_setting text)
returns text language sql immutable parallel safe
return nullif(left(p_setting, 55), '');
comment on function stellwerk.traceparent_told(text) is 'The trace that the setting stellwerk.traceparent names, null if none.';

-- A statement trigger sees all rows of the statement at once and writes up to 500 of them as one row. It fires for every
-- statement, so it may fail in more ways than a row trigger can; any error becomes one failed event.
create or replace function stellwerk.capture_statement()
returns trigger language plpgsql security definer  -- who writes to the watched table needs no right on ours
set search_path = '' set jit = off set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' as $$
declare
  v_run_id    bigint := stellwerk.causing_run(current_setting('stellwerk.cause', true));
  v_depth     integer := stellwerk.depth_after(current_setting('stellwerk.cause', true));
  v_operation text := lower(tg_op);
  v_pairs     boolean := tg_op = 'UPDATE';
  v_trigger   jsonb;
  v_rows      refcursor;
  v_changes   json;
  v_count     integer;
  v_captured  boolean := false;
begin
  begin
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
              stellwerk.actor_told(current_setting('stellwerk.actor', true)));
    end loop;
    close v_rows;
  exception when others then
    insert into stellwerk.event_log (tenant_id, watch_id, target, operation, state, reason, caused_by_run_id, depth)
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
