-- Whether a watch still is what it was made to be. Somebody's DDL may rename or drop a column, drop or disable a trigger,
-- or drop the table; none of this may fail because of us, so it is found out afterwards, by comparing with the catalog.

-- Of what a trigger does, everything but names and where in its text something stood. The rest of its condition differs between major versions of PostgreSQL, so
-- it is compared only on the version it was taken on.
create or replace function stellwerk.trigger_fingerprint(p_trigger pg_trigger)
returns text language sql stable set search_path = ''
return md5(concat_ws(' ', p_trigger.tgtype, p_trigger.tgfoid::regproc, p_trigger.tgattr, encode(p_trigger.tgargs, 'hex'),
                     p_trigger.tgoldtable, p_trigger.tgnewtable, regexp_replace(p_trigger.tgqual::text, ':location -?[0-9]+', '', 'g')));
comment on function stellwerk.trigger_fingerprint(pg_trigger) is 'A short text that changes when a trigger is replaced by another.';

-- Reads the catalog only: no lock on the watched table, which somebody may be rebuilding at this moment.
create or replace function stellwerk.watch_trouble(p_tenant_id bigint)
returns table (watch_id bigint, trouble text) language sql stable set search_path = ''
begin atomic
  select w.watch_id,
         coalesce(
           case when c.oid is null then format('table %s was dropped', w.target)
                when w.target <> c.full_name then format('table %s is called %s now', w.target, c.full_name) end,
           (select case when a.attnum is null or a.attisdropped then format('column %I was dropped', k.name)
                        else format('column %I is called %I now', k.name, a.attname) end
              from jsonb_each_text(w.triggers -> 0 -> 'columns') k (name, number)
              left join pg_attribute a on a.attrelid = w.target_oid and a.attnum = k.number::smallint
             where a.attname is distinct from k.name or a.attisdropped
             order by k.name limit 1),
           (select case when t.oid is null then format('trigger %s was dropped', m.made ->> 'name')
                        when t.tgenabled not in ('O', 'A') then format('trigger %s is disabled', m.made ->> 'name')
                        else format('trigger %s was changed', m.made ->> 'name') end
              from jsonb_array_elements(w.triggers) m (made)
              left join pg_trigger t on t.tgrelid = w.target_oid and t.tgname = m.made ->> 'name' and not t.tgisinternal
             where t.oid is null or t.tgenabled not in ('O', 'A')
                or m.made ->> 'version' = current_setting('server_version_num')
                   and m.made ->> 'fingerprint' is distinct from stellwerk.trigger_fingerprint(t)
             order by m.made ->> 'name' limit 1),
           case when w.triggers = '[]' then 'its triggers have not been made' end)
    from stellwerk.table_watch w
    left join (select r.oid, r.oid::regclass::text as full_name from pg_class r) c on c.oid = w.target_oid
   where w.tenant_id = p_tenant_id and w.state <> 'disarmed';
end;
comment on function stellwerk.watch_trouble(bigint) is 'For each watch of a tenant what has happened to its table, columns or triggers; null where all is as it was made.';

create or replace function stellwerk.check_watches(p_tenant_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_now     timestamptz := stellwerk.clock();
  v_changed integer;
begin
  update stellwerk.table_watch w
     set state = case when t.trouble is null then 'armed' else 'broken' end, checked_at = v_now,
         reason = t.trouble || '. Set the watch again: stellwerk.watch_table, or publish the workflow'
    from stellwerk.watch_trouble(p_tenant_id) t
   where w.tenant_id = p_tenant_id and w.watch_id = t.watch_id and w.state <> 'disarmed'
     and (w.state = 'armed') is distinct from (t.trouble is null);
  get diagnostics v_changed = row_count;
  return v_changed;
end
$$;
comment on function stellwerk.check_watches(bigint) is 'Compares a tenant''s watches with the catalog and marks those whose table, columns or triggers were changed as broken, mended ones as armed. Answers how many changed; writes nothing where none did.';

create or replace function stellwerk.confirm_watch(p_tenant_id bigint, p_watch_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_watch   stellwerk.table_watch;
  v_known   jsonb;
  v_columns jsonb;
begin
  select * into v_watch from stellwerk.table_watch w where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id;
  if v_watch.watch_id is null then
    raise exception 'there is no watch %', p_watch_id using errcode = 'SW007';
  end if;
  perform stellwerk.demand_watch_right(p_tenant_id, v_watch.target_oid);
  v_known := stellwerk.condition_columns(v_watch.target_oid);
  -- The columns that the condition means, and those that identify a row: a workflow knows them by these names.
  select coalesce(jsonb_object_agg(k.name, k.value -> 'number'), '{}') into v_columns
    from jsonb_each(v_known) k (name, value)
   where k.name = any (v_watch.key_columns || coalesce(v_watch.columns, '{}'))
      or v_watch.condition is not null and exists (
           select from jsonb_array_elements(stellwerk.condition_tokens(v_watch.condition)) t (token)
            where t.token ->> 'kind' in ('word', 'name') and k.name in (t.token ->> 'text', t.token ->> 'written'));
  update stellwerk.table_watch w
     set triggers = (select jsonb_agg(m.made - 'check' || jsonb_build_object(
                              'fingerprint', stellwerk.trigger_fingerprint(t), 'version', current_setting('server_version_num'), 'columns', v_columns)
                            order by m.ordinality)
                       from jsonb_array_elements(w.triggers) with ordinality m (made, ordinality)
                       left join pg_trigger t on t.tgrelid = w.target_oid and t.tgname = m.made ->> 'name' and not t.tgisinternal),
         state = 'broken', checked_at = stellwerk.clock()
   where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id;
  perform stellwerk.check_watches(p_tenant_id);
end
$$;
comment on function stellwerk.confirm_watch(bigint, bigint) is 'Takes down how the triggers of a watch look now and arms it if they are all there.';

create or replace function stellwerk.watch_published(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns void language plpgsql set search_path = '' as $$
declare
  v_node     record;
  v_watch_id bigint;
  v_kept     bigint[] := '{}'::bigint[];
begin
  for v_node in select n.* from stellwerk.row_triggers(p_tenant_id, p_workflow_id, p_version) n loop
    if v_node.target is null then
      raise exception 'node %: there is no table %', quote_literal(v_node.node_id), quote_literal(v_node.table_name)
        using errcode = 'SW006', hint = 'Create it first, or write its schema too: public.orders.';
    end if;
    begin
      v_watch_id := stellwerk.set_watch(p_tenant_id, v_node.target, p_workflow_id, v_node.trigger_node, v_node.operations, v_node.condition,
                                        v_node.columns, v_node.bulk, true);
    exception when sqlstate 'SW006' then
      raise exception 'node %: %', quote_literal(v_node.node_id), sqlerrm using errcode = 'SW006';
    end;
    v_kept := v_kept || v_watch_id;
  end loop;
  for v_watch_id in select o.watch_id from stellwerk.outdated_watches(p_tenant_id, p_workflow_id, v_kept) o (watch_id) loop
    perform stellwerk.remove_watch(p_tenant_id, v_watch_id);
  end loop;
end
$$;
comment on function stellwerk.watch_published(bigint, bigint, integer) is 'Sets the watches that the trigger.row nodes of a version name, and ends those that an earlier version had named. With the caller''s rights on the tables.';

create or replace function stellwerk.row_triggers(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns table (node_id text, trigger_node text, table_name text, target regclass, operations text[], condition text, columns text[], bulk boolean)
language plpgsql stable security definer  -- callers may not read plans
set search_path = '' as $$
declare
  v_several boolean;
  v_path    text := (select s.reset_val from pg_settings s where s.name = 'search_path');
  v_node    record;
begin
  if not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  v_several := (select count(*) > 1 from stellwerk.plan_node n
                 where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.type = 'trigger.row');
  for v_node in
    select n.node_id as id, n.config from stellwerk.plan_node n
     where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.type = 'trigger.row'
       and n.config ->> 'table' is not null
     order by n.position
  loop
    node_id := v_node.id;
    trigger_node := case when v_several then v_node.id end;
    table_name := v_node.config ->> 'table';
    -- A registered table by its slug, else a name as the session would find it.
    target := stellwerk.find_table(coalesce((select r.target from stellwerk.registered_table r
                                              where r.tenant_id = p_tenant_id and r.slug = table_name), table_name), v_path);
    operations := array(select jsonb_array_elements_text(coalesce(nullif(v_node.config -> 'on', 'null'), '["insert"]')));
    condition := v_node.config ->> 'when';
    columns := (select array_agg(c.name) from jsonb_array_elements_text(coalesce(nullif(v_node.config -> 'columns', 'null'), '[]')) c (name));
    bulk := coalesce((v_node.config ->> 'bulk')::boolean, false);
    return next;
  end loop;
end
$$;
comment on function stellwerk.row_triggers(bigint, bigint, integer) is 'The trigger.row nodes of a version that name a table, with what they say; target is null for a table that is not there.';

create or replace function stellwerk.find_table(p_name text, p_search_path text)
returns regclass language plpgsql stable set search_path = '' as $$
declare
  v_parts text[];
begin
  v_parts := parse_ident(p_name);
  if cardinality(v_parts) > 2 then
    return null;
  elsif cardinality(v_parts) = 2 then
    return to_regclass(p_name);
  end if;
  -- "$user" stands for the schema that is called like the role.
  return (select to_regclass(format('%I.%I', s.name, v_parts[1]))
            from (select case btrim(x.part, ' "') when '$user' then stellwerk.session_role()::text else btrim(x.part, ' "') end as name, x.ordinality
                    from unnest(string_to_array(p_search_path, ',')) with ordinality x (part, ordinality)) s
           where s.name <> '' and to_regclass(format('%I.%I', s.name, v_parts[1])) is not null
           order by s.ordinality limit 1);
exception when invalid_parameter_value or invalid_name then
  return null;
end
$$;
comment on function stellwerk.find_table(text, text) is 'A table by its name, looked for in the schemas of a search_path if the name has none; null when there is none.';

create or replace function stellwerk.outdated_watches(p_tenant_id bigint, p_workflow_id bigint, p_kept bigint[])
returns table (watch_id bigint) language sql stable security definer  -- callers may not read the table
set search_path = ''
begin atomic
  select w.watch_id from stellwerk.table_watch w
   where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.published and w.watch_id <> all (p_kept)
     and stellwerk.may_act_for(p_tenant_id)
   order by w.watch_id;
end;
comment on function stellwerk.outdated_watches(bigint, bigint, bigint[]) is 'The watches that earlier versions of a workflow have set and that are not among those kept.';

create or replace view stellwerk.watch_overview with (security_barrier) as
select w.watch_id, w.target, f.slug as workflow, w.trigger_node, w.operations, w.condition, w.columns, w.bulk, w.state, w.reason, w.created_at
  from stellwerk.table_watch w
  join stellwerk.workflow f on f.tenant_id = w.tenant_id and f.workflow_id = w.workflow_id
 where w.tenant_id = stellwerk.current_tenant_id();
comment on view stellwerk.watch_overview is 'Which changes of which tables start which workflow, and whether that works.';
comment on column stellwerk.watch_overview.watch_id is 'Number of the watch; part of its triggers'' names.';
comment on column stellwerk.watch_overview.target is 'The watched table.';
comment on column stellwerk.watch_overview.workflow is 'Slug of the workflow that starts.';
comment on column stellwerk.watch_overview.trigger_node is 'The trigger.row node it starts at; null for the workflow''s only one.';
comment on column stellwerk.watch_overview.operations is 'insert, update, delete: which of them are captured.';
comment on column stellwerk.watch_overview.condition is 'The condition as written; null captures every row.';
comment on column stellwerk.watch_overview.columns is 'For updates: only changes of these columns; null for all.';
comment on column stellwerk.watch_overview.bulk is 'Whether statement triggers capture up to 500 rows at once.';
comment on column stellwerk.watch_overview.state is 'armed, disarmed or broken.';
comment on column stellwerk.watch_overview.reason is 'Why it is broken or disarmed, and how to mend it.';
comment on column stellwerk.watch_overview.created_at is 'When it was set.';
