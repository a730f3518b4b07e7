-- Timers that follow a row of the application. A trigger on its table only writes a row into timer_change; tick and pump
-- take changes up, and tick reads the row again before it lets a step go on: never early.

create or replace function stellwerk.note_row_change()
returns trigger language plpgsql security definer  -- who writes to the followed table needs no right on ours
set search_path = '' as $$
declare
  v_key  text;
  v_gone boolean := tg_op = 'DELETE';
begin
  if tg_op <> 'TRUNCATE' then
    begin
      v_key := stellwerk.row_as_json(old) ->> tg_argv[3];
      v_gone := v_gone or stellwerk.row_as_json(new) ->> tg_argv[3] is distinct from v_key;
    exception when others then
      v_key := null;  -- the row holds what JSON cannot: all rows are looked at again
      v_gone := false;
    end;
  end if;
  insert into stellwerk.timer_change (tenant_id, slug, column_name, row_key, gone)
  values (tg_argv[0]::bigint, tg_argv[1], tg_argv[2], v_key, v_gone and v_key is not null);
  perform stellwerk.ring_if_asleep();
  return null;
end
$$;
comment on function stellwerk.note_row_change() is 'Trigger on a followed table: notes which row has changed, and nothing else. Arguments: tenant, registered table, column, key column.';

-- Beginning to follow: when a workflow is published, and when a table is registered again.

create or replace function stellwerk.follow_published(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns void language plpgsql set search_path = '' as $$
declare
  v_column record;
begin
  for v_column in select f.* from stellwerk.columns_to_follow(p_tenant_id, p_workflow_id, p_version) f loop
    perform stellwerk.follow_column(p_tenant_id, v_column.slug, v_column.column_name, false);
  end loop;
end
$$;
comment on function stellwerk.follow_published(bigint, bigint, integer) is 'Puts triggers on the columns that the waits of a version follow. With the caller''s rights on the tables, else with the engine''s.';

create or replace function stellwerk.columns_to_follow(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns table (slug text, column_name text) language sql stable security definer  -- callers may not read plans
set search_path = ''
begin atomic
  select distinct o.place ->> 'table', o.place ->> 'column'
    from stellwerk.plan_node n
   cross join lateral (values (n.config -> 'of'), (n.config -> 'at')) o (place)
   where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.runs_in = 'wait'
     and jsonb_typeof(o.place) = 'object' and stellwerk.may_act_for(p_tenant_id)
   order by 1, 2;
end;
comment on function stellwerk.columns_to_follow(bigint, bigint, integer) is 'The columns of registered tables that the waits of a version follow.';

create or replace function stellwerk.follow_column(p_tenant_id bigint, p_slug text, p_column text, p_anew boolean)
returns void language plpgsql set search_path = '' as $$
declare
  v_plan      record;
  v_statement text;
begin
  select * into v_plan from stellwerk.plan_follow(p_tenant_id, p_slug, p_column);
  if v_plan.armed and not p_anew then
    return;
  elsif has_table_privilege(v_plan.target, 'trigger') then
    foreach v_statement in array v_plan.statements loop
      perform stellwerk.make_trigger(v_plan.target, v_statement);
    end loop;
  else
    perform stellwerk.follow_as_engine(p_tenant_id, p_slug, p_column);
  end if;
  perform stellwerk.confirm_follow(p_tenant_id, p_slug, p_column);
end
$$;
comment on function stellwerk.follow_column(bigint, text, text, boolean) is 'Has changes of a column told to the timers that follow it. Errors: SW004, SW006, SW003 when the table is locked.';

create or replace function stellwerk.follow_as_engine(p_tenant_id bigint, p_slug text, p_column text)
returns void language plpgsql security definer  -- its owner has opened the table to workflows, whoever publishes them
set search_path = '' as $$
declare
  v_plan      record;
  v_statement text;
begin
  select * into v_plan from stellwerk.plan_follow(p_tenant_id, p_slug, p_column);
  foreach v_statement in array v_plan.statements loop
    perform stellwerk.make_trigger(v_plan.target, v_statement);
  end loop;
end
$$;
comment on function stellwerk.follow_as_engine(bigint, text, text) is 'follow_column for callers who may not put triggers on a table that is registered.';

create or replace function stellwerk.plan_follow(p_tenant_id bigint, p_slug text, p_column text)
returns table (target regclass, armed boolean, statements text[]) language plpgsql security definer  -- callers may not read or write the tables
set search_path = '' as $$
declare
  v_table  stellwerk.registered_table;
  v_key    text;
  v_type   text;
  v_follow stellwerk.followed_column;
  v_mine   text;
  v_moved  text;
  v_call   text;
begin
  if not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  select * into v_table from stellwerk.registered_table t where t.tenant_id = p_tenant_id and t.slug = p_slug;
  if v_table.slug is null or to_regclass(v_table.target) is null then
    raise exception 'table % is not registered', quote_literal(p_slug)
      using errcode = 'SW006', hint = 'A wait follows rows of registered tables: select stellwerk.register_table(''schema.table'');';
  end if;
  target := v_table.target::regclass;
  v_type := stellwerk.column_type(target, p_column);
  if v_type is null or v_type not in ('timestamp with time zone', 'timestamp without time zone', 'date') then
    raise exception 'column % of table % is %', quote_literal(p_column), v_table.target, coalesce('of type ' || v_type, 'not there')
      using errcode = 'SW006', hint = 'A wait follows a column of type timestamptz, timestamp or date.';
  end if;
  v_key := stellwerk.row_key_column(target, v_table.tenant_column);
  if v_key is null then
    raise exception 'the rows of table % cannot be named by one key', v_table.target
      using errcode = 'SW006', hint = 'It needs a primary key of one column (besides the tenant''s) that is a number, a text or a uuid.';
  end if;
  insert into stellwerk.followed_column as f (tenant_id, slug, column_name, target, key_column, trouble)
  values (p_tenant_id, p_slug, p_column, v_table.target, v_key, 'its triggers have not been made')
  on conflict (tenant_id, slug, column_name) do update
     set target = excluded.target, key_column = excluded.key_column,
         trouble = case when (f.target, f.key_column) = (excluded.target, excluded.key_column) then f.trouble else excluded.trouble end
  returning f.* into v_follow;
  armed := v_follow.trouble is null and stellwerk.follow_trouble(v_follow) is null;
  v_mine := case when v_table.tenant_column is not null then format('old.%I = %s', v_table.tenant_column, p_tenant_id) end;
  v_moved := format('old.%1$I is distinct from new.%1$I or old.%2$I is distinct from new.%2$I', p_column, v_key)
             || case when v_table.tenant_column is not null then format(' or old.%1$I is distinct from new.%1$I', v_table.tenant_column) else '' end;
  v_call := format('execute function stellwerk.note_row_change(%L, %L, %L, %L)', p_tenant_id, p_slug, p_column, v_key);
  statements := array[
    format('create or replace trigger %I after update on %s for each row when ((%s)%s) %s', stellwerk.follow_trigger(v_follow, 'u'), target, v_moved, ' and ' || v_mine, v_call),
    format('create or replace trigger %I after delete on %s for each row %s %s', stellwerk.follow_trigger(v_follow, 'd'), target, 'when (' || v_mine || ')', v_call),
    format('create or replace trigger %I after truncate on %s for each statement %s', stellwerk.follow_trigger(v_follow, 't'), target, v_call)];
  return next;
end
$$;
comment on function stellwerk.plan_follow(bigint, text, text) is 'Notes a column to be followed and answers the statements that make its triggers; armed if they are there. Errors: SW004, SW006.';

create or replace function stellwerk.confirm_follow(p_tenant_id bigint, p_slug text, p_column text)
returns void language plpgsql security definer  -- callers may not write the table
set search_path = '' as $$
begin
  if not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  update stellwerk.followed_column f
     set followed_at = stellwerk.clock(), trouble = stellwerk.follow_trouble(f),
         triggers = array[stellwerk.follow_trigger(f, 'u'), stellwerk.follow_trigger(f, 'd'), stellwerk.follow_trigger(f, 't')]
   where f.tenant_id = p_tenant_id and f.slug = p_slug and f.column_name = p_column;
  insert into stellwerk.timer_change (tenant_id, slug, column_name) values (p_tenant_id, p_slug, p_column);
end
$$;
comment on function stellwerk.confirm_follow(bigint, text, text) is 'After the triggers were made: timers that follow the column already look at their rows again.';

create or replace function stellwerk.follow_again(p_tenant_id bigint, p_slug text)
returns void language plpgsql set search_path = '' as $$
declare
  v_column text;
begin
  foreach v_column in array stellwerk.followed_columns_of(p_tenant_id, p_slug) loop
    begin
      perform stellwerk.follow_column(p_tenant_id, p_slug, v_column, true);
    exception when sqlstate 'SW006' then
      raise notice 'column % cannot be followed: %', v_column, sqlerrm;
    end;
  end loop;
end
$$;
comment on function stellwerk.follow_again(bigint, text) is 'A table was registered anew: puts the triggers of its followed columns on it.';

create or replace function stellwerk.followed_columns_of(p_tenant_id bigint, p_slug text)
returns text[] language sql stable security definer  -- callers may not read the table
set search_path = ''
return array(select f.column_name from stellwerk.followed_column f
              where f.tenant_id = p_tenant_id and f.slug = p_slug and stellwerk.may_act_for(p_tenant_id) order by f.column_name);
comment on function stellwerk.followed_columns_of(bigint, text) is 'The followed columns of a registered table.';

create or replace function stellwerk.follow_trigger(p_follow stellwerk.followed_column, p_operation text)
returns text language sql immutable set search_path = ''
return format('stellwerk_follow_%s_%s_%s', (p_follow).tenant_id, left(md5((p_follow).slug || E'\x1f' || (p_follow).column_name), 8), p_operation);
comment on function stellwerk.follow_trigger(stellwerk.followed_column, text) is 'Name of a trigger on a followed table: u (update), d (delete), t (truncate).';

create or replace function stellwerk.column_type(p_target regclass, p_column text)
returns text language sql stable set search_path = ''
return (select a.atttypid::regtype::text from pg_catalog.pg_attribute a
         where a.attrelid = p_target and a.attname = p_column and a.attnum > 0 and not a.attisdropped);
comment on function stellwerk.column_type(regclass, text) is 'The type of a column; null when there is none.';

-- Types whose texts are the server's own: nobody else's code runs when a key is read.
create or replace function stellwerk.row_key_column(p_target regclass, p_tenant_column text)
returns text language sql stable set search_path = ''
return (select min(a.attname::text)
          from pg_catalog.pg_index i
          join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey) and a.attname is distinct from p_tenant_column
         where i.indrelid = p_target and i.indisprimary
        having count(*) = 1 and bool_and(a.atttypid = any (array['int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'bpchar', 'uuid']::regtype[])));
comment on function stellwerk.row_key_column(regclass, text) is 'The column of the primary key that names a row, besides the tenant''s; null if it is not one of a plain type.';

-- What is wrong

create or replace function stellwerk.follow_trouble(p_follow stellwerk.followed_column)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_target regclass := to_regclass(p_follow.target);
  v_table  stellwerk.registered_table;
begin
  select * into v_table from stellwerk.registered_table t
   where t.tenant_id = p_follow.tenant_id and t.slug = p_follow.slug and t.target = p_follow.target;
  if v_table.slug is null then
    return format('table %s is not registered any more', p_follow.slug);
  elsif v_target is null then
    return format('table %s is gone', p_follow.target);
  elsif stellwerk.column_type(v_target, p_follow.column_name) is null then
    return format('table %s has no column %s any more', p_follow.target, p_follow.column_name);
  elsif stellwerk.row_key_column(v_target, v_table.tenant_column) is distinct from p_follow.key_column then
    return format('rows of table %s are not named by %s any more', p_follow.target, p_follow.key_column);
  elsif (select count(*) from pg_catalog.pg_trigger t
          where t.tgrelid = v_target and t.tgenabled in ('O', 'A') and not t.tgisinternal
            and t.tgname in (stellwerk.follow_trigger(p_follow, 'u'), stellwerk.follow_trigger(p_follow, 'd'), stellwerk.follow_trigger(p_follow, 't'))) < 3 then
    return format('a trigger on table %s is gone or disabled', p_follow.target);
  end if;
  return null;
end
$$;
comment on function stellwerk.follow_trouble(stellwerk.followed_column) is 'Why a column cannot be followed; null when it can.';

create or replace function stellwerk.check_follows(p_tenant_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_follow  stellwerk.followed_column;
  v_changed integer := 0;
begin
  for v_follow in select * from stellwerk.followed_column f where f.tenant_id = p_tenant_id loop
    continue when v_follow.trouble is not distinct from stellwerk.follow_trouble(v_follow);
    update stellwerk.followed_column f set trouble = stellwerk.follow_trouble(f)
     where f.tenant_id = p_tenant_id and f.slug = v_follow.slug and f.column_name = v_follow.column_name;
    insert into stellwerk.timer_change (tenant_id, slug, column_name) values (p_tenant_id, v_follow.slug, v_follow.column_name);
    v_changed := v_changed + 1;
  end loop;
  return v_changed;
end
$$;
comment on function stellwerk.check_follows(bigint) is 'Compares followed columns with the catalog; where something has changed, their timers look again. Answers how many have; writes nothing where none has.';
