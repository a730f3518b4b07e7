-- What a watch shall be: which table, which triggers, with which condition; and whether it still is so.

create or replace function stellwerk.plan_watch(
  p_tenant_id bigint, p_target regclass, p_workflow_id bigint, p_trigger_node text, p_operations text[], p_condition text, p_columns text[],
  p_bulk boolean, p_published boolean, out watch_id bigint, out triggers jsonb, out superfluous text[])
language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_bulk       boolean := coalesce(p_bulk, false);
  v_operations text[] := stellwerk.check_operations(p_operations);
  v_columns    text[] := nullif(p_columns, '{}');
  v_keys       text[];
begin
  perform stellwerk.check_watchable(p_target);
  perform stellwerk.demand_watch_right(p_tenant_id, p_target);
  if not exists (select from stellwerk.workflow w where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id) then
    raise exception 'there is no workflow number %', p_workflow_id using errcode = 'SW001';
  end if;
  perform stellwerk.check_watched_columns(p_target, v_columns, v_operations);
  v_keys := array(select a.attname from pg_index i cross join lateral unnest(i.indkey) with ordinality k (attnum, place)
                    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                   where i.indrelid = p_target and i.indisprimary order by k.place);
  if v_bulk then
    perform stellwerk.check_bulk(p_target, v_operations);
  end if;
  insert into stellwerk.table_watch as w (
    tenant_id, target, target_oid, workflow_id, trigger_node, operations, condition, columns, bulk, key_columns, triggers, state, reason,
    published, created_by)
  values (p_tenant_id, p_target::text, p_target, p_workflow_id, p_trigger_node, v_operations, nullif(btrim(p_condition), ''), v_columns, v_bulk,
          v_keys, '[]', 'broken', 'its triggers have not been made yet', p_published, stellwerk.actor())
  on conflict (tenant_id, target_oid, workflow_id, (coalesce(trigger_node, ''))) do update
     set target = excluded.target, operations = excluded.operations, condition = excluded.condition, columns = excluded.columns,
         bulk = excluded.bulk, key_columns = excluded.key_columns, state = 'broken', reason = excluded.reason,
         published = excluded.published, created_by = excluded.created_by
  returning w.watch_id into plan_watch.watch_id;
  -- A row trigger cannot be replaced by a statement trigger of another kind and be trusted to be the same on partitions: old ones go first.
  superfluous := array(select t.tgname::text from pg_trigger t
                        where t.tgrelid = p_target and t.tgname ~ format('^stellwerk_%s_[iud]$', plan_watch.watch_id) and not t.tgisinternal
                          and (not right(t.tgname, 1) = any (array(select left(o.name, 1) from unnest(v_operations) o (name)))));
  if not v_bulk then
    perform stellwerk.make_capture(p_tenant_id, plan_watch.watch_id, p_target, p_target::text, o.name) from unnest(v_operations) o (name);
  end if;
  triggers := (select jsonb_agg(stellwerk.plan_trigger(p_tenant_id, plan_watch.watch_id, p_target, o.name, p_condition, v_columns, v_bulk, v_keys) order by o.name)
                 from unnest(v_operations) o (name));
  update stellwerk.table_watch w set triggers = plan_watch.triggers
   where w.tenant_id = p_tenant_id and w.watch_id = plan_watch.watch_id;
end
$$;
comment on function stellwerk.plan_watch(bigint, regclass, bigint, text, text[], text, text[], boolean, boolean) is 'Checks what a watch is asked to be and stores it as broken, until confirm_watch finds its triggers; answers what triggers to make and which to take away.';

create or replace function stellwerk.check_operations(p_operations text[])
returns text[] language plpgsql immutable set search_path = '' as $$
declare
  v_operations text[] := array(select distinct lower(btrim(o.name)) from unnest(p_operations) o (name) order by 1);
  v_unknown    text := (select o.name from unnest(v_operations) o (name) where o.name is null or o.name not in ('insert', 'update', 'delete') limit 1);
begin
  if cardinality(v_operations) = 0 or v_unknown is not null or array_position(v_operations, null) is not null then
    raise exception 'operations cannot be %', coalesce(quote_literal(left(v_unknown, 60)), 'empty')
      using errcode = 'SW006', hint = 'There are insert, update and delete: operations => ''{insert,update}''.';
  end if;
  return v_operations;
end
$$;
comment on function stellwerk.check_operations(text[]) is 'The operations of a watch in order, each once; SW006 for none or unknown ones.';

create or replace function stellwerk.check_watchable(p_target regclass)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_table record;
begin
  select c.relkind, c.relpersistence, n.nspname into v_table
    from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = p_target;
  if v_table.nspname in ('stellwerk', 'stellwerk_queue', 'information_schema') or v_table.nspname ~ '^pg_' or v_table.relpersistence = 't' then
    raise exception '% cannot be watched: it belongs to %', p_target,
                    case when v_table.relpersistence = 't' then 'one session only' else v_table.nspname end
      using errcode = 'SW006', hint = 'Tables of the application can be watched.';
  elsif v_table.relkind not in ('r', 'p') then
    raise exception '% cannot be watched: it is %', p_target,
                    case v_table.relkind when 'v' then 'a view' when 'm' then 'a materialized view' when 'f' then 'a foreign table'
                                         when 'S' then 'a sequence' when 'i' then 'an index' else 'no table' end
      using errcode = 'SW006', hint = 'Watch the table whose rows it shows.';
  elsif v_table.nspname is null then
    raise exception 'there is no table %', p_target using errcode = 'SW006';
  end if;
end
$$;
comment on function stellwerk.check_watchable(regclass) is 'Raises SW006 unless it is an ordinary or partitioned table of the application.';

create or replace function stellwerk.check_watched_columns(p_target regclass, p_columns text[], p_operations text[])
returns void language plpgsql stable set search_path = '' as $$
declare
  v_known   jsonb := stellwerk.condition_columns(p_target);
  v_unknown text;
begin
  if p_columns is null then
    return;
  end if;
  if 'update' <> all (p_operations) then
    raise exception 'columns only make sense for updates' using errcode = 'SW006', hint = 'operations => ''{update}''';
  end if;
  select c.name into v_unknown from unnest(p_columns) c (name) where c.name is null or not v_known ? c.name limit 1;
  if found then
    raise exception 'table % has no column %', p_target, coalesce(quote_literal(left(v_unknown, 100)), 'null')
      using errcode = 'SW006',
            hint = (select format('Did you mean %I?', k.name) from jsonb_object_keys(v_known) k (name)
                     order by stellwerk.likeness(k.name, v_unknown) desc, k.name limit 1);
  end if;
end
$$;
comment on function stellwerk.check_watched_columns(regclass, text[], text[]) is 'Raises SW006 for columns that the table lacks, or columns without update.';

-- A statement trigger sees what the statement names: one on a partitioned table is silent for a write to a partition.
create or replace function stellwerk.check_bulk(p_target regclass, p_operations text[])
returns void language plpgsql stable set search_path = '' as $$
declare
  v_kind "char" := (select c.relkind from pg_class c where c.oid = p_target);
begin
  if v_kind = 'p' or exists (select from pg_inherits i where p_target in (i.inhparent, i.inhrelid)) then
    raise exception '% has or is a partition (or child table) and cannot be watched in bulk mode', p_target
      using errcode = 'SW006', hint = 'A statement trigger is silent when a write names another table of the family. Watch it without bulk.';
  end if;
  if 'update' = any (p_operations) and not exists (select from pg_index i where i.indrelid = p_target and i.indisprimary) then
    raise exception '% has no primary key, which bulk mode needs to tell what an update changed', p_target
      using errcode = 'SW006', hint = 'Add a primary key, leave update out, or watch it without bulk.';
  end if;
  if 'update' = any (p_operations) and exists (
       select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
        where i.indrelid = p_target and i.indisprimary
          and stellwerk.condition_columns(p_target) -> a.attname ->> 'family' = 'opaque') then
    raise exception 'the primary key of % has a type that bulk mode cannot compare', p_target
      using errcode = 'SW006', hint = 'Watch it without bulk.';
  end if;
end
$$;
comment on function stellwerk.check_bulk(regclass, text[]) is 'Raises SW006 for a table whose changes statement triggers would miss or could not pair.';

create or replace function stellwerk.plan_trigger(
  p_tenant_id bigint, p_watch_id bigint, p_target regclass, p_operation text, p_condition text, p_columns text[], p_bulk boolean, p_keys text[])
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_name      text := format('stellwerk_%s_%s', p_watch_id, left(p_operation, 1));
  v_row       text := case p_operation when 'delete' then 'old' else 'new' end;
  v_condition text := case when nullif(btrim(p_condition), '') is not null then stellwerk.compile_condition(p_target, p_operation, p_condition) end;
  v_changed   text := case when p_operation = 'update' then stellwerk.changed_sql(p_target, p_columns) end;
  v_tenant    text := (select min(format('%s.%I = %L', v_row, r.tenant_column, p_tenant_id)) from stellwerk.registered_table r
                        where r.tenant_id = p_tenant_id and to_regclass(r.target) = p_target and r.tenant_column is not null);
  v_when      text := concat_ws(' and ', v_tenant, v_condition, v_changed);
  v_statement text;
  v_query     text;
  v_check     text;
begin
  if p_bulk then
    v_query := case p_operation
      when 'insert' then 'select new.* from new_rows as new'
      when 'delete' then 'select old.* from old_rows as old'
      else format('select old as old_row, new as new_row from old_rows as old join new_rows as new on (%s)',
                  (select string_agg(format('old.%1$I = new.%1$I', k.name), ' and ') from unnest(p_keys) k (name)))
      end || case when v_when <> '' then ' where ' || v_when else '' end;
    v_statement := format('create or replace trigger %I after %s on %s referencing %s for each statement execute function stellwerk.capture_statement(%L, %L, %L)',
      v_name, p_operation, p_target,
      case p_operation when 'insert' then 'new table as new_rows' when 'delete' then 'old table as old_rows'
                       else 'old table as old_rows new table as new_rows' end, p_tenant_id, p_watch_id, p_target);
    -- For a row trigger PostgreSQL compares literals with their columns' types when it makes the trigger; here a query that finds nothing does.
    v_check := format('select from (select null::%1$s) o (old_row) cross join (select null::%1$s) n (new_row) cross join lateral (select (o.old_row).*) old'
                      ' cross join lateral (select (n.new_row).*) new where %2$s', p_target, coalesce(nullif(v_when, ''), 'true'));
  else
    v_statement := format('create or replace trigger %I after %s%s on %s for each row %sexecute function stellwerk.%I()',
      v_name, p_operation,
      case when p_operation = 'update' and p_columns is not null
           then ' of ' || (select string_agg(quote_ident(c.name), ', ') from unnest(p_columns) c (name)) else '' end,
      p_target, case when v_when <> '' then format('when (%s) ', v_when) else '' end, stellwerk.capture_name(p_watch_id, p_operation));
  end if;
  return jsonb_strip_nulls(jsonb_build_object('name', v_name, 'operation', p_operation, 'statement', v_statement, 'check', v_check, 'query', v_query));
end
$$;
comment on function stellwerk.plan_trigger(bigint, bigint, regclass, text, text, text[], boolean, text[]) is 'One trigger of a watch: { name, operation, statement, check, query }. check raises where a literal does not fit; query is what a statement trigger asks of its transition tables.';

-- An update that changes nothing starts nothing. *<> (record_image_ne) compares what is stored, byte by byte: it knows every type
-- and never fails, where "is distinct from" raises for json. The whole row is named where that is possible, because a trigger that
-- names a column forbids to drop it.
create or replace function stellwerk.changed_sql(p_target regclass, p_columns text[])
returns text language sql stable set search_path = '' as $$
  select case when p_columns is null and not exists (
                     select from pg_attribute a where a.attrelid = p_target and a.attgenerated = 'v' and not a.attisdropped)
              then 'old.* operator(pg_catalog.*<>) new.*'
              else format('pg_catalog.record_image_ne(row(%s), row(%s))',
                          string_agg(format('old.%I', a.attname), ', ' order by a.attnum), string_agg(format('new.%I', a.attname), ', ' order by a.attnum)) end
    from pg_attribute a
   where a.attrelid = p_target and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'
     and (p_columns is null or a.attname = any (p_columns))
$$;
comment on function stellwerk.changed_sql(regclass, text[]) is 'The condition that an update changed one of these columns, or any column.';

-- Watches that are there get their functions as this file has them now.
select stellwerk.make_capture(w.tenant_id, w.watch_id, w.target_oid, w.target, o.name)
  from stellwerk.table_watch w
 cross join lateral unnest(w.operations) o (name)
 where to_regproc('stellwerk.' || stellwerk.capture_name(w.watch_id, o.name)) is not null;
