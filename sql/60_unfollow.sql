-- Following no longer: a table that is closed to workflows, and columns that no wait follows any more.

create or replace function stellwerk.unregister_table(slug text)
returns boolean language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_target    text := stellwerk.target_to_unregister(v_tenant_id, slug);
  v_trigger   text;
begin
  if v_target is null then
    return false;
  end if;
  -- With the caller's own rights, like everything that is done to his table.
  if to_regclass(v_target) is not null then
    foreach v_trigger in array stellwerk.follow_triggers_of(v_tenant_id, slug) loop
      perform stellwerk.take_trigger(v_target::regclass, v_trigger);
    end loop;
  end if;
  perform stellwerk.forget_registered_table(v_tenant_id, slug);
  return true;
end
$$;
comment on function stellwerk.unregister_table(text) is 'Closes a table to workflows again: record.* nodes that name it fail from now on, waits that follow its rows keep waiting and say why until it is registered again, and the triggers that told of its changes go. The caller must own it, if it is still there. Answers whether it was registered. Errors: SW003 when the table is locked, SW004.';

create or replace function stellwerk.target_to_unregister(p_tenant_id bigint, p_slug text)
returns text language plpgsql stable security definer  -- callers may not read the table
set search_path = '' as $$
declare
  v_target text := (select t.target from stellwerk.registered_table t where t.tenant_id = p_tenant_id and t.slug = p_slug);
begin
  if not stellwerk.may_act_for(p_tenant_id) then
    raise exception 'not allowed' using errcode = 'SW004';
  elsif to_regclass(v_target) is not null and not stellwerk.owns(v_target::regclass) then
    raise exception 'only the owner of % may close it to workflows', v_target
      using errcode = 'SW004', hint = format('Connect as a member of %s.', (select c.relowner::regrole from pg_catalog.pg_class c where c.oid = v_target::regclass));
  end if;
  return v_target;
end
$$;
comment on function stellwerk.target_to_unregister(bigint, text) is 'The table of a slug; null when none is registered. Errors: SW004 unless the session''s role owns it.';

create or replace function stellwerk.follow_triggers_of(p_tenant_id bigint, p_slug text)
returns text[] language sql stable security definer  -- callers may not read the table
set search_path = ''
return array(select t.name from stellwerk.followed_column f cross join unnest(f.triggers) t (name)
              where f.tenant_id = p_tenant_id and f.slug = p_slug and stellwerk.may_act_for(p_tenant_id) order by t.name);
comment on function stellwerk.follow_triggers_of(bigint, text) is 'Names of the triggers that tell of changes in the followed columns of a registered table.';

create or replace function stellwerk.forget_registered_table(p_tenant_id bigint, p_slug text)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
begin
  if stellwerk.target_to_unregister(p_tenant_id, p_slug) is null then
    return;
  end if;
  delete from stellwerk.registered_table t where t.tenant_id = p_tenant_id and t.slug = p_slug;
  update stellwerk.followed_column f set triggers = '{}', trouble = stellwerk.follow_trouble(f) where f.tenant_id = p_tenant_id and f.slug = p_slug;
  insert into stellwerk.timer_change (tenant_id, slug, column_name)
  select f.tenant_id, f.slug, f.column_name from stellwerk.followed_column f where f.tenant_id = p_tenant_id and f.slug = p_slug;
end
$$;
comment on function stellwerk.forget_registered_table(bigint, text) is 'The part of unregister_table that writes; for sessions that own the table.';

-- Housekeeping

create or replace function stellwerk.unfollow_column(p_at_once boolean)
returns text language plpgsql set search_path = '' as $$
declare
  c_seconds  constant integer := 600;  -- to look whether old runs may still come to a wait reads every live step
  v_next     text := current_setting('stellwerk.next_unfollowing', true);
  v_follow   stellwerk.followed_column;
  v_done     text;
begin
  if not p_at_once and v_next ~ '^[0-9]{1,15}$' and v_next::bigint > extract(epoch from clock_timestamp()) then
    return null;
  end if;
  for v_follow in
    select * from stellwerk.followed_column f
     where not exists (select from stellwerk.row_timer r where r.tenant_id = f.tenant_id and r.slug = f.slug and r.column_name = f.column_name)
     order by f.tenant_id, f.slug, f.column_name
  loop
    -- Who publishes a workflow that follows it writes this row first: one of the two waits for the other, and then looks again.
    perform from stellwerk.followed_column f
      where f.tenant_id = v_follow.tenant_id and f.slug = v_follow.slug and f.column_name = v_follow.column_name for update skip locked;
    continue when not found or stellwerk.may_be_followed(v_follow)
                  or not has_table_privilege(to_regclass(v_follow.target), 'trigger');  -- then they stay, and write for nobody
    if cardinality(v_follow.triggers) = 0 or to_regclass(v_follow.target) is null then
      v_done := format('%s of table %s is followed no longer', v_follow.column_name, v_follow.slug);
    else
      v_done := stellwerk.try_ddl(format('%s of table %s is followed no longer', v_follow.column_name, v_follow.slug), v_follow.target::regclass,
                                  stellwerk.statements_to_unfollow(v_follow));
    end if;
    if v_done is not null then
      delete from stellwerk.followed_column f where f.tenant_id = v_follow.tenant_id and f.slug = v_follow.slug and f.column_name = v_follow.column_name;
      return v_done;
    end if;
  end loop;
  perform set_config('stellwerk.next_unfollowing', (extract(epoch from clock_timestamp())::bigint + c_seconds)::text, false);
  return null;
end
$$;
comment on function stellwerk.unfollow_column(boolean) is 'Takes the triggers of one column away that no wait follows, nor could: no published version names it, and no run that has not ended is of a version that does. Looks every ten minutes, unless at once. Answers what was done; null for nothing, or when the table''s lock was not free.';

create or replace function stellwerk.may_be_followed(p_follow stellwerk.followed_column)
returns boolean language plpgsql stable set search_path = '' as $$
begin
  return exists (
    select from (
      select distinct n.workflow_id, n.version
        from stellwerk.plan_node n
       where n.tenant_id = (p_follow).tenant_id and n.runs_in = 'wait'
         and ((n.config -> 'of') @> jsonb_build_object('table', (p_follow).slug, 'column', (p_follow).column_name)
              or (n.config -> 'at') @> jsonb_build_object('table', (p_follow).slug, 'column', (p_follow).column_name))) v
      join stellwerk.workflow w on w.tenant_id = (p_follow).tenant_id and w.workflow_id = v.workflow_id
     where v.version = w.active_version or cardinality(stellwerk.live_runs_of((p_follow).tenant_id, v.workflow_id, v.version)) > 0);
end
$$;
comment on function stellwerk.may_be_followed(stellwerk.followed_column) is 'Whether a run that has not ended, or a new one, may come to a wait that follows the column.';

create or replace function stellwerk.statements_to_unfollow(p_follow stellwerk.followed_column)
returns text[] language sql stable set search_path = ''
return array(
  select case when pg_has_role(c.relowner, 'usage') then format('drop trigger %I on %s', t.tgname, c.oid::regclass)
              else format('create or replace trigger %I after insert on %s for each row when (false) execute function stellwerk.note_row_change()', t.tgname, c.oid::regclass) end
    from pg_catalog.pg_trigger t
    join pg_catalog.pg_class c on c.oid = t.tgrelid
   where c.oid = to_regclass((p_follow).target) and not t.tgisinternal and t.tgname = any ((p_follow).triggers)
   order by t.tgname);
comment on function stellwerk.statements_to_unfollow(stellwerk.followed_column) is 'What takes the triggers of a followed column away: owners drop them, others make them ones that never fire.';
