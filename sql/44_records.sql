-- Nodes that touch other people's tables and functions. Each runs in a transaction with no other such run, waits for
-- a lock no longer than 400 ms (below deadlock_timeout, so that the engine and not the application loses a deadlock),
-- and under the search_path that was stored when the table or function was registered.

create or replace function stellwerk.register_table_as(target regclass, slug text, tenant_column text, p_search_path name[])
returns text language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_table     record;
  v_slug      text;
  v_missing   text;
begin
  select n.nspname, c.relname, c.relkind, format('%I.%I', n.nspname, c.relname) as full_name into v_table
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = target;
  if v_table.relkind not in ('r', 'p') or v_table.nspname like 'pg\_%' or v_table.nspname in ('information_schema', 'stellwerk', 'stellwerk_queue')
     and (v_table.full_name <> 'stellwerk.case_appointment' or tenant_column is distinct from 'tenant_id') then
    raise exception '% cannot be registered', target
      using errcode = 'SW006', hint = 'Only ordinary or partitioned tables of the application can be.';
  end if;
  -- Opening a table to workflows is the act of somebody who may change it.
  if not pg_has_role(current_user, (select c.relowner from pg_catalog.pg_class c where c.oid = target), 'member') then
    raise exception 'only the owner of % may register it', v_table.full_name
      using errcode = 'SW004', hint = format('Connect as a member of %s.', (select c.relowner::regrole from pg_catalog.pg_class c where c.oid = target));
  end if;
  if tenant_column is not null and not exists (
       select 1 from pg_catalog.pg_attribute a where a.attrelid = target and a.attname = tenant_column and a.attnum > 0 and not a.attisdropped) then
    raise exception 'table % has no column %', v_table.full_name, quote_literal(tenant_column) using errcode = 'SW006';
  end if;
  v_missing := stellwerk.missing_rights(target);
  if v_missing like 'grant usage%' or v_missing like 'grant select%' then
    raise exception 'the engine may not use table %', v_table.full_name
      using errcode = 'SW004', hint = v_missing;
  elsif v_missing is not null then
    raise notice 'workflows may read % but not do everything with it; to let them: %', v_table.full_name, v_missing;
  end if;
  v_slug := coalesce(slug, case v_table.nspname when 'public' then v_table.relname else v_table.nspname || '.' || v_table.relname end);
  perform stellwerk.store_registered_table(v_tenant_id, v_slug, v_table.full_name, tenant_column, stellwerk.path_text(p_search_path));
  perform stellwerk.follow_again(v_tenant_id, v_slug);
  return v_slug;
end
$$;
comment on function stellwerk.register_table_as(regclass, text, text, name[]) is 'register_table, with the search_path under which the table''s own triggers work.';

-- No pinned search_path: it must see the caller's. Its names were resolved when it was created.
create or replace function stellwerk.register_table(target regclass, slug text default null, tenant_column text default null)
returns text language sql
return stellwerk.register_table_as(target, slug, tenant_column, current_schemas(false));
comment on function stellwerk.register_table(regclass, text, text) is 'Opens a table to record.* nodes under a slug (default: its name), optionally with the column that holds the tenant''s number. The caller must own it; the engine''s role must be able to read it, SW004 names the GRANT that is missing. A notice names those for writing.';

create or replace function stellwerk.path_text(p_schemas name[])
returns text language sql immutable set search_path = '' as $$
  select array_to_string('pg_catalog'::text || array_agg(quote_ident(s.name::text) order by s.ordinality), ', ')
    from unnest(p_schemas) with ordinality s (name, ordinality) where s.name <> 'pg_catalog'
$$;
comment on function stellwerk.path_text(name[]) is 'Schemas as a search_path, pg_catalog first, so that nothing can stand before the built-in names.';

create or replace function stellwerk.missing_rights(p_target regclass)
returns text language plpgsql stable security definer  -- asks what the engine's own role may do
set search_path = '' as $$
declare
  v_rights text;
  v_schema name := (select c.relnamespace::regnamespace::name from pg_catalog.pg_class c where c.oid = p_target);
begin
  if not has_schema_privilege(current_user, v_schema, 'usage') then
    return format('grant usage on schema %I to %I', v_schema, current_user);
  end if;
  select string_agg(r.name, ', ') into v_rights
    from unnest(array['select', 'insert', 'update', 'delete']) r (name)
   where not has_table_privilege(current_user, p_target, r.name);
  return case when v_rights is not null then format('grant %s on %s to %I', v_rights, p_target, current_user) end;
end
$$;
comment on function stellwerk.missing_rights(regclass) is 'The GRANT that the engine''s role lacks to use a table; null when nothing is missing.';

create or replace function stellwerk.store_registered_table(p_tenant_id bigint, p_slug text, p_target text, p_tenant_column text, p_search_path text)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
begin
  if not stellwerk.may_act_for(p_tenant_id) or not stellwerk.owns(p_target::regclass) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  insert into stellwerk.registered_table as t (tenant_id, slug, target, tenant_column, search_path, registered_by)
  values (p_tenant_id, p_slug, p_target, p_tenant_column, p_search_path, stellwerk.actor())
  on conflict (tenant_id, slug) do update
     set target = excluded.target, tenant_column = excluded.tenant_column, search_path = excluded.search_path,
         registered_at = clock_timestamp(), registered_by = excluded.registered_by;
end
$$;
comment on function stellwerk.store_registered_table(bigint, text, text, text, text) is 'The part of register_table that writes; for sessions that own the table.';

create or replace function stellwerk.owns(p_target regclass)
returns boolean language plpgsql stable set search_path = '' as $$
declare
  v_owner name := (select c.relowner::regrole::text from pg_catalog.pg_class c where c.oid = p_target);
begin
  return stellwerk.acts_as(trim(both '"' from v_owner));
end
$$;
comment on function stellwerk.owns(regclass) is 'Whether the session''s role owns a table, directly or as a member.';

create or replace function stellwerk.register_function_as(name text, target regprocedure, p_search_path name[])
returns text language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_function  record;
begin
  select n.nspname, p.proname, p.proargtypes, p.prorettype, p.prokind, p.proretset, p.proowner, format('%I.%I', n.nspname, p.proname) as full_name
    into v_function
    from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace where p.oid = target;
  if v_function.nspname like 'pg\_%' or v_function.nspname in ('information_schema', 'stellwerk', 'stellwerk_queue')
     or v_function.prokind <> 'f' or v_function.proretset
     or v_function.proargtypes::text <> concat_ws(' ', 'jsonb'::regtype::oid, 'jsonb'::regtype::oid) or v_function.prorettype <> 'jsonb'::regtype then
    raise exception '% cannot be registered', target
      using errcode = 'SW006', hint = 'It must be a function of the application: (input jsonb, context jsonb) returns jsonb.';
  end if;
  if not pg_has_role(current_user, v_function.proowner, 'member') then
    raise exception 'only the owner of % may register it', v_function.full_name
      using errcode = 'SW004', hint = format('Connect as a member of %s.', v_function.proowner::regrole);
  end if;
  perform stellwerk.store_registered_function(v_tenant_id, name, v_function.full_name, stellwerk.path_text(p_search_path), target::oid);
  return name;
end
$$;
comment on function stellwerk.register_function_as(text, regprocedure, name[]) is 'register_function, with the search_path under which the function works.';

-- No pinned search_path: it must see the caller's. Its names were resolved when it was created.
create or replace function stellwerk.register_function(name text, target regprocedure)
returns text language sql
return stellwerk.register_function_as(name, target, current_schemas(false));
comment on function stellwerk.register_function(text, regprocedure) is 'Opens a function (input jsonb, context jsonb) returning jsonb to sql.function nodes. The caller must own it; the engine''s role needs EXECUTE.';

create or replace function stellwerk.store_registered_function(p_tenant_id bigint, p_name text, p_target text, p_search_path text, p_oid oid)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_owner name := (select p.proowner::regrole::text from pg_catalog.pg_proc p where p.oid = p_oid);
begin
  if not stellwerk.may_act_for(p_tenant_id) or not stellwerk.acts_as(trim(both '"' from v_owner)) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  if not has_function_privilege(current_user, p_oid, 'execute') then
    raise exception 'the engine may not call function %', p_target
      using errcode = 'SW004', hint = format('grant execute on function %s to %I', p_oid::regprocedure, current_user);
  end if;
  insert into stellwerk.registered_function as f (tenant_id, name, target, search_path, registered_by)
  values (p_tenant_id, p_name, p_target, p_search_path, stellwerk.actor())
  on conflict (tenant_id, name) do update
     set target = excluded.target, search_path = excluded.search_path, registered_at = clock_timestamp(), registered_by = excluded.registered_by;
end
$$;
comment on function stellwerk.store_registered_function(bigint, text, text, text, oid) is 'The part of register_function that writes; for sessions that own the function.';

create or replace function stellwerk.run_alone(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_context jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome;
  v_config  jsonb := p_node.config;
  v_depth   integer;
  v_lock_timeout text := current_setting('lock_timeout');
  v_search_path  text := current_setting('search_path');
begin
  if p_node.dynamic <> '[]' then
    v_config := stellwerk.render(p_node.config, p_node.dynamic, p_context);
  end if;
  select r.depth into v_depth from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_token.run_id;
  perform set_config('lock_timeout', '400ms', true), set_config('stellwerk.cause', p_token.run_id || '/' || v_depth, true);
  if p_node.type = 'sql.function' then
    v_outcome.output := stellwerk.call_function(p_tenant_id, p_token, v_config, p_context);
  elsif p_node.runs_in = 'wait' then
    v_outcome := stellwerk.begin_wait(p_tenant_id, p_token, p_node, v_config);
    perform set_config('lock_timeout', v_lock_timeout, true), set_config('stellwerk.cause', '', true);
    return v_outcome;
  else
    v_outcome.output := stellwerk.run_record(p_tenant_id, p_node.type, v_config);
  end if;
  -- A deferred constraint of the application's table must speak here, not at a commit that others share.
  set constraints all immediate;
  perform set_config('lock_timeout', v_lock_timeout, true), set_config('stellwerk.cause', '', true), set_config('search_path', v_search_path, true);
  v_outcome.port := 'next';
  v_outcome.input := v_config;
  return v_outcome;
end
$$;
comment on function stellwerk.run_alone(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'Runs record.* and sql.function; what the statement raises goes to the caller''s subtransaction, which takes the settings back as well.';

create or replace function stellwerk.call_function(p_tenant_id bigint, p_token stellwerk.token, p_config jsonb, p_context jsonb)
returns jsonb language plpgsql set search_path = '' as $$
declare
  v_function stellwerk.registered_function;
  v_output   jsonb;
begin
  select * into v_function from stellwerk.registered_function f where f.tenant_id = p_tenant_id and f.name = p_config ->> 'function';
  if v_function.name is null then
    raise exception 'function % is not registered', coalesce(quote_literal(p_config ->> 'function'), 'null')
      using errcode = 'SW007', hint = 'select stellwerk.register_function(name, ''schema.function(jsonb, jsonb)'');';
  end if;
  perform set_config('search_path', v_function.search_path, true);
  execute format('select %s($1, $2)', v_function.target) into v_output
    using coalesce(p_config -> 'input', '{}'),
          p_context || jsonb_build_object('run_id', p_token.run_id::text, 'step_id', p_token.step_id::text, 'node', p_token.node_id,
                                          'idempotency_key', p_token.run_id || ':' || p_token.step_id || ':' || p_token.visit);
  return v_output;
end
$$;
comment on function stellwerk.call_function(bigint, stellwerk.token, jsonb, jsonb) is 'sql.function: calls a registered function with the node''s input and the context that it reads.';

create or replace function stellwerk.run_record(p_tenant_id bigint, p_type text, p_config jsonb)
returns jsonb language plpgsql set search_path = '' as $$
declare
  v_table  stellwerk.registered_table;
  v_values jsonb := coalesce(nullif(p_config -> 'values', 'null'), '{}');
  v_where  jsonb := coalesce(nullif(p_config -> 'where', 'null'), '{}');
  v_sql    text;
  v_rows   jsonb;
begin
  select * into v_table from stellwerk.registered_table t where t.tenant_id = p_tenant_id and t.slug = p_config ->> 'table';
  if v_table.slug is null then
    raise exception 'table % is not registered', coalesce(quote_literal(p_config ->> 'table'), 'null')
      using errcode = 'SW007', hint = 'select stellwerk.register_table(''schema.table'');';
  end if;
  if to_regclass(v_table.target) is null then
    raise exception 'table % is gone', v_table.target using errcode = 'SW007', hint = 'Register the table again when it is back.';
  end if;
  if v_table.tenant_column is not null and (p_type = 'record.create' or v_values ? v_table.tenant_column) then
    v_values := v_values || jsonb_build_object(v_table.tenant_column, p_tenant_id);
  end if;
  v_sql := stellwerk.record_statement(p_type, v_table, p_config, v_values, v_where);
  perform set_config('search_path', v_table.search_path, true);
  execute v_sql into v_rows using v_values, v_where, p_tenant_id, least(coalesce((p_config ->> 'limit')::integer, 100), 10000);
  perform set_config('search_path', '', true);
  if p_type = 'record.create' then
    return v_rows -> 0;
  end if;
  return jsonb_build_object('count', jsonb_array_length(v_rows), 'rows', v_rows);
end
$$;
comment on function stellwerk.run_record(bigint, text, jsonb) is 'record.create, .update, .delete, .query on a registered table, under the search_path stored with it.';

create or replace function stellwerk.record_statement(
  p_type text, p_table stellwerk.registered_table, p_config jsonb, p_values jsonb, p_where jsonb)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_where  text := stellwerk.record_condition(p_table, p_where);
  v_result text := 'select coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c)), ''[]'') from changed c';
begin
  if p_type in ('record.update', 'record.delete') and p_where = '{}' then
    raise exception '% has no where', p_type
      using errcode = 'SW006', hint = 'Name at least one column; changing every row of a table is not done by a workflow.';
  end if;
  if p_type = 'record.update' and p_values = '{}' then
    raise exception 'record.update has no values to set' using errcode = 'SW006', hint = 'Give at least one column in values.';
  end if;
  case p_type
    when 'record.create' then
      if p_values = '{}' then
        return format('with changed as (insert into %s as t default values returning t.*) %s', p_table.target, v_result);
      end if;
      return format('with changed as (insert into %1$s as t (%2$s) select %3$s from pg_catalog.jsonb_populate_record(null::%1$s, $1) v returning t.*) %4$s',
                    p_table.target, stellwerk.column_list(p_table, p_values, ''), stellwerk.column_list(p_table, p_values, 'v.'), v_result);
    when 'record.update' then
      return format('with changed as (update %1$s as t set (%2$s) = (select %3$s from pg_catalog.jsonb_populate_record(null::%1$s, $1) v) where %4$s returning t.*) %5$s',
                    p_table.target, stellwerk.column_list(p_table, p_values, ''), stellwerk.column_list(p_table, p_values, 'v.'), v_where, v_result);
    when 'record.delete' then
      return format('with changed as (delete from %s as t where %s returning t.*) %s', p_table.target, v_where, v_result);
    when 'record.query' then
      return format('with changed as (select %s from %s as t where %s%s limit $4) %s',
                    stellwerk.query_columns(p_table, nullif(p_config -> 'columns', 'null')), p_table.target, v_where,
                    stellwerk.query_order(p_table, nullif(p_config -> 'order_by', 'null')), v_result);
    else
      raise exception 'unknown record node %', p_type using errcode = 'SW006';
  end case;
end
$$;
comment on function stellwerk.record_statement(text, stellwerk.registered_table, jsonb, jsonb, jsonb) is 'The statement of a record node: names are checked against the catalog and quoted; $1 values, $2 where, $3 tenant, $4 limit.';

create or replace function stellwerk.record_condition(p_table stellwerk.registered_table, p_where jsonb)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_condition text;
begin
  select string_agg(case when w.value = 'null' then format('t.%I is null', stellwerk.column_of(p_table, w.key))
                         else format('t.%1$I = (pg_catalog.jsonb_populate_record(null::%2$s, $2)).%1$I', stellwerk.column_of(p_table, w.key), p_table.target) end,
                    ' and ' order by w.key)
    into v_condition from jsonb_each(p_where) w;
  if p_table.tenant_column is not null then
    v_condition := concat_ws(' and ', format('t.%I = $3', p_table.tenant_column), v_condition);
  end if;
  return coalesce(v_condition, 'true');
end
$$;
comment on function stellwerk.record_condition(stellwerk.registered_table, jsonb) is 'The WHERE of a record node: each column equals its value (null: is null), and the tenant''s column the tenant.';

create or replace function stellwerk.column_of(p_table stellwerk.registered_table, p_column text)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_near text;
begin
  if exists (select 1 from pg_catalog.pg_attribute a
              where a.attrelid = p_table.target::regclass and a.attname = p_column and a.attnum > 0 and not a.attisdropped) then
    return p_column;
  end if;
  select a.attname into v_near from pg_catalog.pg_attribute a
   where a.attrelid = p_table.target::regclass and a.attnum > 0 and not a.attisdropped
   order by stellwerk.likeness(a.attname, p_column) desc, a.attnum limit 1;
  raise exception 'table % has no column %', p_table.target, coalesce(quote_literal(left(p_column, 100)), 'null')
    using errcode = 'SW006', hint = format('Did you mean %s?', v_near);
end
$$;
comment on function stellwerk.column_of(stellwerk.registered_table, text) is 'A column''s name, if the table has it; SW006 with the nearest name otherwise.';

create or replace function stellwerk.column_list(p_table stellwerk.registered_table, p_values jsonb, p_prefix text)
returns text language sql stable set search_path = '' as $$
  select string_agg(p_prefix || format('%I', stellwerk.column_of(p_table, k.key)), ', ' order by k.key) from jsonb_object_keys(p_values) k (key)
$$;
comment on function stellwerk.column_list(stellwerk.registered_table, jsonb, text) is 'The keys of an object as a list of quoted columns, in order of name.';

create or replace function stellwerk.query_columns(p_table stellwerk.registered_table, p_columns jsonb)
returns text language sql stable set search_path = '' as $$
  select coalesce(string_agg(format('t.%I', stellwerk.column_of(p_table, c.name)), ', ' order by c.ordinality), 't.*')
    from jsonb_array_elements_text(coalesce(p_columns, '[]')) with ordinality c (name, ordinality)
$$;
comment on function stellwerk.query_columns(stellwerk.registered_table, jsonb) is 'The select list of record.query: the named columns, or all.';

create or replace function stellwerk.query_order(p_table stellwerk.registered_table, p_order jsonb)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_parts text[] := case jsonb_typeof(p_order) when 'array' then array(select jsonb_array_elements_text(p_order))
                                               when 'string' then string_to_array(p_order #>> '{}', ',') else '{}' end;
  v_order text;
begin
  select string_agg(format('t.%I%s', stellwerk.column_of(p_table, split_part(o.part, ' ', 1)),
                           case lower(split_part(o.part, ' ', 2)) when 'desc' then ' desc' else '' end), ', ' order by o.ordinality)
    into v_order
    from (select trim(x.part) as part, x.ordinality from unnest(v_parts) with ordinality x (part, ordinality)) o;
  return case when v_order is null then '' else ' order by ' || v_order end;
end
$$;
comment on function stellwerk.query_order(stellwerk.registered_table, jsonb) is 'The order of record.query: "column" or "column desc", a text with commas or an array.';
