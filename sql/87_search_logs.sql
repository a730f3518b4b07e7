-- Finding row events, entries of the audit log and tasks, a page at a time.
--
-- No index is kept for every filter, for an event is written within an application's own transaction. What no index finds is looked at
-- row by row, so many for a page at most; a last row that is not found says where that stopped, to be gone on from.

create or replace function stellwerk.look_for_events(
  target text default null, operation text default null, state text default null, record text default null, before bigint default null,
  most integer default 50, depth integer default 10000)
returns table (event_id bigint, found boolean)
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_before    bigint := coalesce(before, 9223372036854775807);
  v_count     integer;
begin
  if look_for_events.state in ('pending', 'failed') then
    return query
      select x.event_id, true
        from (select e.event_id, e.target, e.operation, e.record_id from stellwerk.event e
               where e.tenant_id = v_tenant_id and e.state = look_for_events.state and e.event_id < v_before
               order by e.event_id desc limit look_for_events.depth) x
       where (look_for_events.target is null or x.target = look_for_events.target)
         and (look_for_events.operation is null or x.operation = look_for_events.operation)
         and (look_for_events.record is null or x.record_id = look_for_events.record)
       order by x.event_id desc limit most;
  else
    return query
      select x.event_id, true
        from (select e.event_id, e.target, e.operation, e.record_id, e.state from stellwerk.event e
               where e.tenant_id = v_tenant_id and e.event_id < v_before
               order by e.event_id desc limit look_for_events.depth) x
       where (look_for_events.target is null or x.target = look_for_events.target)
         and (look_for_events.operation is null or x.operation = look_for_events.operation)
         and (look_for_events.state is null or x.state = look_for_events.state)
         and (look_for_events.record is null or x.record_id = look_for_events.record)
       order by x.event_id desc limit most;
  end if;
  get diagnostics v_count = row_count;
  if v_count < most then
    return query
      select min(x.event_id), false
        from (select e.event_id from stellwerk.event e
               where e.tenant_id = v_tenant_id and e.event_id < v_before
                 and (look_for_events.state is null or look_for_events.state not in ('pending', 'failed') or e.state = look_for_events.state)
               order by e.event_id desc limit look_for_events.depth) x
      having count(*) = look_for_events.depth;
  end if;
end
$$;
comment on function stellwerk.look_for_events(text, text, text, text, bigint, integer, integer) is 'The numbers of the newest row events that fit everything given: table, operation, state, key of the row; before is the last number of the page before. Looks at depth events at most: a last row that is not found says where it stopped.';

create or replace function stellwerk.look_for_entries(
  actor text default null, subject text default null, before bigint default null, most integer default 50, depth integer default 10000)
returns table (audit_id bigint, found boolean)
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_before    bigint := coalesce(before, 9223372036854775807);
  v_both      boolean := actor is not null and subject is not null;
  v_count     integer;
begin
  if v_both then
    return query
      select x.audit_id, true
        from (select a.audit_id, a.subject from stellwerk.audit_log a
               where a.tenant_id = v_tenant_id and a.actor = look_for_entries.actor and a.audit_id < v_before order by a.audit_id desc limit look_for_entries.depth) x
       where x.subject = look_for_entries.subject
       order by x.audit_id desc limit most;
  else
    return query
      select a.audit_id, true from stellwerk.audit_log a
       where a.tenant_id = v_tenant_id and a.audit_id < v_before
         and (look_for_entries.actor is null or a.actor = look_for_entries.actor) and (look_for_entries.subject is null or a.subject = look_for_entries.subject)
       order by a.audit_id desc limit most;
  end if;
  get diagnostics v_count = row_count;
  if v_both and v_count < most then
    return query
      select min(x.audit_id), false
        from (select a.audit_id from stellwerk.audit_log a
               where a.tenant_id = v_tenant_id and a.actor = look_for_entries.actor and a.audit_id < v_before order by a.audit_id desc limit look_for_entries.depth) x
      having count(*) = look_for_entries.depth;
  end if;
end
$$;
comment on function stellwerk.look_for_entries(text, text, bigint, integer, integer) is 'The numbers of the newest entries of the audit log: of an actor, on a kind of thing; before is the last number of the page before. Of an actor''s entries it looks at depth at most for a kind: a last row that is not found says where it stopped.';

-- One list in the order of due times for each way in which a task can be somebody's, merged.
create or replace function stellwerk.look_for_tasks(
  state text default null, everybody boolean default false, workflow text default null, after_due timestamptz default null, after_id bigint default null,
  most integer default 50, depth integer default 2000)
returns table (task_id bigint, due timestamptz, found boolean)
language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_me        stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_states    text[] := case when look_for_tasks.state is null then '{open,claimed}' else array[look_for_tasks.state] end;
  v_due       timestamptz := coalesce(after_due, '-infinity');
  v_id        bigint := coalesce(after_id, 0);
  v_scan      integer := case when look_for_tasks.workflow is null then most else depth end;
  v_workflow_id bigint := (select w.workflow_id from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.slug = look_for_tasks.workflow);
  v_tasks     bigint[];
  v_dues      timestamptz[];
  v_count     integer;
begin
  if everybody or v_me.admin and v_me.email is null then
    if v_states <@ array['open', 'claimed'] then
      select array_agg(x.task_id order by x.due, x.task_id), array_agg(x.due order by x.due, x.task_id) into v_tasks, v_dues
        from (select k.task_id, coalesce(k.due_at, 'infinity'::timestamptz) as due from stellwerk.user_task k
               where k.tenant_id = v_tenant_id and k.state in ('open', 'claimed') and k.state = any (v_states)
                 and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_due, v_id)
               order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit v_scan) x;
    else
      select array_agg(x.task_id order by x.due, x.task_id), array_agg(x.due order by x.due, x.task_id) into v_tasks, v_dues
        from (select k.task_id, coalesce(k.due_at, 'infinity'::timestamptz) as due from stellwerk.user_task k
               where k.tenant_id = v_tenant_id and k.state in ('completed', 'expired', 'cancelled') and k.state = v_states[1]
                 and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_due, v_id)
               order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit v_scan) x;
    end if;
  elsif v_states <@ array['open', 'claimed'] then
    select array_agg(y.task_id order by y.due, y.task_id), array_agg(y.due order by y.due, y.task_id) into v_tasks, v_dues
      from (
        select x.task_id, x.due
          from (
            select l.id as task_id, coalesce(l.due_at, 'infinity'::timestamptz) as due, l.state
              from stellwerk.list_my_tasks('all', null, v_due, v_id, least(v_scan, 1000)) l
             where not exists (select from stellwerk.user_task_change c where c.tenant_id = v_tenant_id and c.task_id = l.id and c.cancels)
            union
            select k.task_id, coalesce(k.due_at, 'infinity'::timestamptz), k.state from stellwerk.user_task k
             where k.tenant_id = v_tenant_id and k.state in ('open', 'claimed') and k.assignee = v_me.name
               and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_due, v_id)) x
         where x.state = any (v_states)
         order by x.due, x.task_id limit v_scan) y;
  else
    select array_agg(y.task_id order by y.due, y.task_id), array_agg(y.due order by y.due, y.task_id) into v_tasks, v_dues
      from (
        select x.task_id, x.due
          from (
            (select k.task_id, coalesce(k.due_at, 'infinity'::timestamptz) as due from stellwerk.user_task k
              where k.tenant_id = v_tenant_id and k.completed_by = v_me.name and k.state = v_states[1]
                and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_due, v_id)
              order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit v_scan)
            union
            (select k.task_id, coalesce(k.due_at, 'infinity'::timestamptz) from stellwerk.user_task k
              where k.tenant_id = v_tenant_id and k.claimed_by = v_me.name and k.state in ('completed', 'expired', 'cancelled') and k.state = v_states[1]
                and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_due, v_id)
              order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit v_scan)
            union
            (select k.task_id, coalesce(k.due_at, 'infinity'::timestamptz) from stellwerk.user_task k
              where k.tenant_id = v_tenant_id and k.assignee = v_me.name and k.state in ('completed', 'expired', 'cancelled') and k.state = v_states[1]
                and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_due, v_id)
              order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit v_scan)) x
         order by x.due, x.task_id limit v_scan) y;
  end if;
  if look_for_tasks.workflow is null then
    return query select t.task_id, t.due, true from unnest(v_tasks, v_dues) with ordinality t (task_id, due, place) order by t.place limit most;
    return;
  end if;
  return query
    select t.task_id, t.due, true
      from unnest(v_tasks, v_dues) with ordinality t (task_id, due, place)
     cross join lateral (select o.run_id from stellwerk.user_task o where o.tenant_id = v_tenant_id and o.task_id = t.task_id offset 0) k
     cross join lateral (select o.workflow_id from stellwerk.run o where o.tenant_id = v_tenant_id and o.run_id = k.run_id offset 0) r
     where r.workflow_id = v_workflow_id
     order by t.place limit most;
  get diagnostics v_count = row_count;
  if v_count < most and v_count < cardinality(v_tasks) and cardinality(v_tasks) >= v_scan then
    return query select v_tasks[cardinality(v_tasks)], v_dues[cardinality(v_dues)], false;
  end if;
end
$$;
comment on function stellwerk.look_for_tasks(text, boolean, text, timestamptz, bigint, integer, integer) is 'Tasks of whoever asks (those to be done, or of a state that has ended) or of everybody, by due time, a page at a time: after_due and after_id are those of the last one seen. For those of a workflow it looks at depth tasks at most: a last row that is not found says where it stopped.';
