-- Watches: which changes of which application table start which workflow.
--
-- The triggers are made with the caller's own rights, so nobody can watch a table on which he lacks the privilege TRIGGER.
-- Our tables are written by inner functions with the owner's rights; each asks again what the session's role may do.

create or replace function stellwerk.watch_table(
  target regclass, workflow text, operations text[] default '{insert}', condition text default null, columns text[] default null,
  bulk boolean default false)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_place     record;
begin
  select * into v_place from stellwerk.find_row_trigger(v_tenant_id, workflow);
  return stellwerk.set_watch(v_tenant_id, target, v_place.workflow_id, v_place.trigger_node, operations, condition, columns, bulk);
end
$$;
comment on function stellwerk.watch_table(regclass, text, text[], text, text[], boolean) is 'Has changes of a table start a workflow, from now on, and answers the watch''s number; a second call for the same table and workflow replaces the first. workflow is a slug, or slug/node where a workflow has several trigger.row nodes. condition is over new.column and old.column; columns restricts updates to changes of these. Errors: SW001 unknown workflow, SW004 without the TRIGGER privilege, SW006 table, column or condition, SW003 when the table is locked.';

create or replace function stellwerk.unwatch_table(target regclass, workflow text)
returns void language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_watch_ids bigint[] := stellwerk.watches_of(v_tenant_id, target, workflow);
  v_watch_id  bigint;
begin
  foreach v_watch_id in array v_watch_ids loop
    perform stellwerk.remove_watch(v_tenant_id, v_watch_id);
  end loop;
end
$$;
comment on function stellwerk.unwatch_table(regclass, text) is 'Ends the watches of a table for a workflow (slug or slug/node). Owners of the table drop the triggers; for others, who may not, they stay without effect and the watch is shown as disarmed. Errors: SW001, SW004, SW007 when there is no such watch.';

create or replace function stellwerk.set_watch(
  p_tenant_id bigint, p_target regclass, p_workflow_id bigint, p_trigger_node text, p_operations text[], p_condition text, p_columns text[],
  p_bulk boolean, p_published boolean default false)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_plan    record;
  v_trigger jsonb;
  v_name    text;
begin
  select * into v_plan from stellwerk.plan_watch(p_tenant_id, p_target, p_workflow_id, p_trigger_node, p_operations, p_condition, p_columns, p_bulk, p_published);
  foreach v_name in array v_plan.superfluous loop
    perform stellwerk.take_trigger(p_target, v_name);
  end loop;
  for v_trigger in select t.made from jsonb_array_elements(v_plan.triggers) t (made) loop
    if v_trigger ? 'check' then
      perform stellwerk.make_trigger(p_target, v_trigger ->> 'check');
    end if;
    perform stellwerk.make_trigger(p_target, v_trigger ->> 'statement');
  end loop;
  perform stellwerk.confirm_watch(p_tenant_id, v_plan.watch_id);
  return v_plan.watch_id;
end
$$;
comment on function stellwerk.set_watch(bigint, regclass, bigint, text, text[], text, text[], boolean, boolean) is 'watch_table for a tenant: plans the watch, makes its triggers with the caller''s rights, and arms it. Published watches are removed when a later version no longer names them.';

create or replace function stellwerk.make_trigger(p_target regclass, p_statement text)
returns void language plpgsql
set search_path = '' set lock_timeout = '2s' set timezone = 'UTC' set datestyle = 'ISO, YMD' set intervalstyle = 'iso_8601' as $$
begin
  execute p_statement;
exception
  when lock_not_available then
    raise exception 'table % is in use: its lock was not free within 2 seconds', p_target
      using errcode = 'SW003', hint = 'A trigger needs a moment without writers. Try again, or look in pg_stat_activity for a long transaction.';
  when insufficient_privilege then
    raise exception 'no right to put a trigger on %: %', p_target, sqlerrm
      using errcode = 'SW004', hint = format('Its owner says: grant trigger on %s to %I; its schema and stellwerk''s need usage.', p_target, current_user);
  when others then
    if left(sqlstate, 2) in ('22', '42', '0A') then
      raise exception 'the watch of % cannot be set: %', p_target, sqlerrm
        using errcode = 'SW006', detail = p_statement, hint = 'A literal must be a value of the type of the column that it is compared with.';
    end if;
    raise;
end
$$;
comment on function stellwerk.make_trigger(regclass, text) is 'Runs a statement about a trigger with the caller''s rights, waiting at most 2 seconds for the table, and says in our words what went wrong.';

-- Dropping a trigger takes the table's owner; replacing one takes the privilege TRIGGER.
create or replace function stellwerk.take_trigger(p_target regclass, p_name text)
returns void language plpgsql set search_path = '' as $$
declare
  v_owner name := (select pg_get_userbyid(c.relowner) from pg_class c where c.oid = p_target);
begin
  if not exists (select from pg_trigger t where t.tgrelid = p_target and t.tgname = p_name and not t.tgisinternal) then
    return;
  end if;
  if pg_has_role(v_owner, 'usage') then
    perform stellwerk.make_trigger(p_target, format('drop trigger %I on %s', p_name, p_target));
  else
    perform stellwerk.make_trigger(p_target, format(
      'create or replace trigger %I after insert on %s for each row when (false) execute function stellwerk.capture_row()', p_name, p_target));
  end if;
end
$$;
comment on function stellwerk.take_trigger(regclass, text) is 'Drops a trigger of ours, or makes it one that never fires where the caller does not own the table.';

create or replace function stellwerk.remove_watch(p_tenant_id bigint, p_watch_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  v_trigger record;
begin
  for v_trigger in select t.target, t.name from stellwerk.triggers_of_watch(p_tenant_id, p_watch_id) t loop
    perform stellwerk.take_trigger(v_trigger.target, v_trigger.name);
  end loop;
  perform stellwerk.forget_watch(p_tenant_id, p_watch_id);
end
$$;
comment on function stellwerk.remove_watch(bigint, bigint) is 'Ends one watch, also that of a table that is gone.';

-- The inner part: everything below reads or writes our tables with the owner's rights.

create or replace function stellwerk.session_role()
returns name language sql stable set search_path = ''
return case when current_setting('role', true) in ('', 'none') then session_user else current_setting('role', true)::name end;
comment on function stellwerk.session_role() is 'The role that the session acts as: set role, else the login; also inside functions that run with their owner''s rights.';

create or replace function stellwerk.demand_watch_right(p_tenant_id bigint, p_target regclass)
returns void language plpgsql stable set search_path = '' as $$
begin
  if not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'role % may not act for tenant %', stellwerk.session_role(), p_tenant_id
      using errcode = 'SW004', hint = 'The owner opens it: insert into stellwerk.tenant_role (tenant_id, role_name) values (…).';
  end if;
  if not has_table_privilege(stellwerk.session_role(), p_target, 'trigger') then
    raise exception 'role % has no right to watch %', stellwerk.session_role(), p_target
      using errcode = 'SW004', hint = format('Its owner says: grant trigger on %s to %I', p_target, stellwerk.session_role());
  end if;
end
$$;
comment on function stellwerk.demand_watch_right(bigint, regclass) is 'Raises SW004 unless the session''s role may act for the tenant and put triggers on the table.';

create or replace function stellwerk.find_row_trigger(p_tenant_id bigint, p_workflow text)
returns table (workflow_id bigint, trigger_node text) language plpgsql stable security definer  -- callers may not read plans
set search_path = '' as $$
declare
  v_workflow stellwerk.workflow;
  v_node     text := nullif(split_part(p_workflow, '/', 2), '');
  v_version  integer;
  v_nodes    text[];
begin
  if not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  v_workflow := stellwerk.find_workflow(p_tenant_id, split_part(p_workflow, '/', 1));
  v_version := coalesce(v_workflow.active_version, (
    select max(d.version) from stellwerk.workflow_version d where d.tenant_id = p_tenant_id and d.workflow_id = v_workflow.workflow_id));
  v_nodes := array(select n.node_id from stellwerk.plan_node n
                    where n.tenant_id = p_tenant_id and n.workflow_id = v_workflow.workflow_id and n.version = v_version and n.type = 'trigger.row'
                    order by n.position);
  if cardinality(v_nodes) = 0 then
    raise exception 'workflow % has no node of type trigger.row at which a row could start it', quote_literal(v_workflow.slug)
      using errcode = 'SW006', hint = 'Add one to the document, such as { "id": "row", "type": "trigger.row" }, and save it.';
  elsif v_node is not null and v_node <> all (v_nodes) then
    raise exception 'workflow % has no trigger.row node %', quote_literal(v_workflow.slug), quote_literal(left(v_node, 100))
      using errcode = 'SW006', hint = 'There are: ' || array_to_string(v_nodes, ', ');
  elsif v_node is null and cardinality(v_nodes) > 1 then
    raise exception 'workflow % has several trigger.row nodes', quote_literal(v_workflow.slug)
      using errcode = 'SW006', hint = format('Name one: %s', (select string_agg(v_workflow.slug || '/' || n.id, ', ') from unnest(v_nodes) n (id)));
  end if;
  -- The only one is kept as null, so that it may be renamed in a later version.
  return query select v_workflow.workflow_id, case when cardinality(v_nodes) > 1 then v_node end;
end
$$;
comment on function stellwerk.find_row_trigger(bigint, text) is 'The workflow and trigger.row node that slug or slug/node means; the node is null where there is only one.';

create or replace function stellwerk.watches_of(p_tenant_id bigint, p_target regclass, p_workflow text)
returns bigint[] language plpgsql stable security definer  -- callers may not read the tables
set search_path = '' as $$
declare
  v_workflow  stellwerk.workflow;
  v_node      text := nullif(split_part(p_workflow, '/', 2), '');
  v_watch_ids bigint[];
begin
  perform stellwerk.demand_watch_right(p_tenant_id, p_target);
  v_workflow := stellwerk.find_workflow(p_tenant_id, split_part(p_workflow, '/', 1));
  v_watch_ids := array(select w.watch_id from stellwerk.table_watch w
                        where w.tenant_id = p_tenant_id and w.target_oid = p_target and w.workflow_id = v_workflow.workflow_id
                          and (v_node is null or w.trigger_node = v_node)
                        order by w.watch_id);
  if cardinality(v_watch_ids) = 0 then
    raise exception 'no watch of % starts workflow %', p_target, quote_literal(p_workflow)
      using errcode = 'SW007', hint = 'select * from stellwerk.watch_overview lists the watches.';
  end if;
  return v_watch_ids;
end
$$;
comment on function stellwerk.watches_of(bigint, regclass, text) is 'The watches of a table for a workflow (slug or slug/node); SW007 when there is none.';

create or replace function stellwerk.triggers_of_watch(p_tenant_id bigint, p_watch_id bigint)
returns table (target regclass, name text) language sql stable security definer  -- callers may not read the tables
set search_path = ''
begin atomic
  select t.tgrelid::regclass, t.tgname::text
    from stellwerk.table_watch w
    join pg_trigger t on t.tgrelid = w.target_oid and t.tgname ~ format('^stellwerk_%s_[iud]$', w.watch_id) and not t.tgisinternal
   where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id and stellwerk.may_act_for(p_tenant_id)
   order by t.tgname;
end;
comment on function stellwerk.triggers_of_watch(bigint, bigint) is 'The triggers of a watch that are there.';

create or replace function stellwerk.forget_watch(p_tenant_id bigint, p_watch_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_watch stellwerk.table_watch;
begin
  select * into v_watch from stellwerk.table_watch w where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id for update;
  if v_watch.watch_id is null then
    raise exception 'there is no watch %', p_watch_id
      using errcode = 'SW007', hint = 'select * from stellwerk.watch_overview lists the watches.';
  end if;
  if exists (select from pg_class c where c.oid = v_watch.target_oid) then
    perform stellwerk.demand_watch_right(p_tenant_id, v_watch.target_oid);
  elsif not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'not allowed' using errcode = 'SW004';
  end if;
  perform stellwerk.drop_capture(p_watch_id, o.name) from unnest('{insert,update,delete}'::text[]) o (name);
  if exists (select from stellwerk.triggers_of_watch(p_tenant_id, p_watch_id)) then
    update stellwerk.table_watch w
       set state = 'disarmed', checked_at = stellwerk.clock(), triggers = '[]', published = false,
           reason = 'ended by somebody who may not drop its triggers; they never fire. The table''s owner removes them: unwatch_table again'
     where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id;
  else
    -- What it has captured is filed under the name of its table as long as that is known.
    perform stellwerk.file_arrivals(p_tenant_id, 2147483647);
    delete from stellwerk.table_watch w where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id;
  end if;
end
$$;
comment on function stellwerk.forget_watch(bigint, bigint) is 'Removes the row of a watch whose triggers are gone; marks it disarmed while triggers are left that never fire.';
