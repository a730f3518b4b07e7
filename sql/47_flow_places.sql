-- The places at a gate: what happens between runs with the same key, who is next, and why a run still waits.

create or replace function stellwerk.contend(p_wait stellwerk.flow_wait, p_now timestamptz)
returns boolean language plpgsql set search_path = '' as $$
declare
  v_slot    stellwerk.flow_slot;
  v_other   bigint;
  v_free_at timestamptz;
  v_others  bigint[];
  v_lined   boolean := p_wait.key is not null and (p_wait.exclusive or p_wait.throttle is not null);
begin
  if p_wait.key is not null and p_wait.on_conflict <> 'queue' then
    select * into v_slot from stellwerk.flow_slot s
     where s.tenant_id = p_wait.tenant_id and s.workflow_id = p_wait.workflow_id and s.key = p_wait.key and s.released_at is null
     order by s.since limit 1;
    v_others := array(select w.run_id from stellwerk.flow_wait w
                       where w.tenant_id = p_wait.tenant_id and w.workflow_id = p_wait.workflow_id and w.key = p_wait.key
                         and w.phase in ('behind', 'timed', 'ready') and w.run_id <> p_wait.run_id
                       order by w.priority desc, w.run_id);
    if p_wait.on_conflict = 'skip' then
      select t.free_at into v_free_at from stellwerk.flow_throttle t
       where t.tenant_id = p_wait.tenant_id and t.workflow_id = p_wait.workflow_id and t.key = p_wait.key and t.free_at > p_now;
      v_other := coalesce(v_slot.run_id, v_others[1]);
      if v_other is not null or v_free_at is not null then
        perform stellwerk.turn_away(p_wait.tenant_id, array[p_wait.run_id], array[
          case when v_other is not null
               then format('skipped: run %s %s the same key %s', v_other, case when v_slot.run_id is null then 'waits with' else 'holds' end, to_json(p_wait.key))
               else format('skipped: the throttle of %s lets the next run with the key %s start at %s', stellwerk.duration_text(p_wait.throttle),
                           to_json(p_wait.key), stellwerk.at_text(v_free_at)) end]);
        return false;
      end if;
    else
      perform stellwerk.turn_away(p_wait.tenant_id, v_others, array_fill(
        format('replaced by run %s, which has the same key %s', p_wait.run_id, to_json(p_wait.key)), array[cardinality(v_others)]))
        where cardinality(v_others) > 0;
      perform stellwerk.ask_to_go(p_wait, v_slot) where v_slot.run_id is not null;
    end if;
  end if;
  update stellwerk.flow_wait w
     set phase = case when v_lined then 'behind' else 'ready' end, until = null, key = case when v_lined then p_wait.key end,
         exclusive = p_wait.exclusive, nested = p_wait.nested, priority = p_wait.priority
   where w.tenant_id = p_wait.tenant_id and w.run_id = p_wait.run_id;
  return v_lined;
end
$$;
comment on function stellwerk.contend(stellwerk.flow_wait, timestamptz) is 'Gives a run its place in the line of its key, or cancels it (skip), or those before it (replace). Answers whether who is first of its key must be looked at.';

create or replace function stellwerk.ask_to_go(p_wait stellwerk.flow_wait, p_slot stellwerk.flow_slot)
returns void language plpgsql set search_path = '' as $$
begin
  if p_slot.replaced_by is null then
    insert into stellwerk.run_message (tenant_id, run_id, kind, data)
    values (p_slot.tenant_id, p_slot.run_id, 'cancel',
            jsonb_build_object('reason', format('replaced by run %s, which has the same key %s', p_wait.run_id, to_json(p_wait.key))));
    perform set_config('stellwerk.slot_released', 'on', true);  -- so that pump comes back and applies it
  end if;
  -- Who holds the row is ending that run, and needs no note.
  perform from stellwerk.flow_slot s where s.tenant_id = p_slot.tenant_id and s.run_id = p_slot.run_id for update skip locked;
  if found then
    update stellwerk.flow_slot s set replaced_by = p_wait.run_id where s.tenant_id = p_slot.tenant_id and s.run_id = p_slot.run_id;
  end if;
end
$$;
comment on function stellwerk.ask_to_go(stellwerk.flow_wait, stellwerk.flow_slot) is 'Asks the run that holds a key to cancel, once, because a newer one replaces it.';

-- At most one run of a key is ready or timed: the first in its line, and only while nobody holds the key.
create or replace function stellwerk.settle_key(p_tenant_id bigint, p_workflow_id bigint, p_key text, p_now timestamptz)
returns void language plpgsql set search_path = '' as $$
declare
  v_first   stellwerk.flow_wait;
  v_free_at timestamptz;
begin
  if not exists (select from stellwerk.flow_slot s
                  where s.tenant_id = p_tenant_id and s.workflow_id = p_workflow_id and s.key = p_key and s.released_at is null) then
    select * into v_first from stellwerk.flow_wait w
     where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.key = p_key and w.phase in ('behind', 'timed', 'ready')
     order by w.priority desc, w.run_id limit 1;
  end if;
  update stellwerk.flow_wait w set phase = 'behind', until = null
   where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.key = p_key and w.phase in ('timed', 'ready')
     and w.run_id is distinct from v_first.run_id;
  if v_first.run_id is null then
    return;
  end if;
  if v_first.throttle is not null then
    select t.free_at into v_free_at from stellwerk.flow_throttle t
     where t.tenant_id = p_tenant_id and t.workflow_id = p_workflow_id and t.key = p_key and t.free_at > p_now;
  end if;
  if v_free_at is null and v_first.phase <> 'ready' then
    update stellwerk.flow_wait w set phase = 'ready', until = null where w.tenant_id = p_tenant_id and w.run_id = v_first.run_id;
  elsif v_free_at is not null and v_first.until is distinct from v_free_at then
    update stellwerk.flow_wait w set phase = 'timed', until = v_free_at where w.tenant_id = p_tenant_id and w.run_id = v_first.run_id;
    insert into stellwerk.timer (tenant_id, kind, run_id, due_at) values (p_tenant_id, 'start', v_first.run_id, v_free_at);
  end if;
end
$$;
comment on function stellwerk.settle_key(bigint, bigint, text, timestamptz) is 'Makes the first run in the line of a key ready, or timed while the throttle holds it, and all others of the key wait behind it.';

-- The limit is that of the active version, so that publishing a version changes it for those who wait already.
create or replace function stellwerk.free_slots(p_tenant_id bigint, p_workflow_id bigint, out max_running integer, out free integer)
language plpgsql stable set search_path = '' as $$
begin
  select (d.settings ->> 'max_running')::integer into max_running
    from stellwerk.workflow w
    join stellwerk.workflow_version d on d.tenant_id = p_tenant_id and d.workflow_id = w.workflow_id and d.version = w.active_version
   where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id;
  if max_running is not null then
    select greatest(0, max_running - count(*)) into free
      from (select from stellwerk.flow_slot s
             where s.tenant_id = p_tenant_id and s.workflow_id = p_workflow_id and s.released_at is null limit max_running) c;
  end if;
end
$$;
comment on function stellwerk.free_slots(bigint, bigint) is 'The max_running of a workflow''s active version and how many more runs it lets start; both null without such a limit.';

create or replace function stellwerk.let_start(p_tenant_id bigint, p_workflow_id bigint, p_now timestamptz, p_limit integer)
returns integer language plpgsql set search_path = '' as $$
declare
  v_slots  record;
  v_free   integer;
  v_nested integer;
  v_runs   bigint[];
  v_keys   text[];
begin
  if not exists (select from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.phase = 'ready') then
    return 0;
  end if;
  v_slots := stellwerk.free_slots(p_tenant_id, p_workflow_id);
  v_free := least(coalesce(v_slots.free, p_limit), p_limit);
  -- Nested ones stand first and need no room.
  select count(*) into v_nested
    from (select from stellwerk.flow_wait w
           where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.phase = 'ready' and w.priority = 2147483647 limit p_limit) c;
  if v_free + v_nested = 0 then
    return 0;
  end if;
  select array_agg(c.run_id) into v_runs
    from (select w.run_id from stellwerk.flow_wait w
           cross join lateral (select o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = w.run_id offset 0) r
           where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.phase = 'ready' and r.state = 'pending'
             -- A run that was taken up again may have got its key back.
             and not (w.exclusive and exists (
               select from stellwerk.flow_slot s
                where s.tenant_id = p_tenant_id and s.workflow_id = p_workflow_id and s.key = w.key and s.released_at is null))
           order by w.priority desc, w.run_id limit v_free + v_nested) c;
  if v_runs is null then
    return 0;
  end if;
  -- Looked at again under the lock of the run.
  select array_agg(c.run_id) into v_runs
    from (select w.run_id, w.nested, row_number() over (partition by w.nested order by w.priority desc, w.run_id) as place
            from unnest(stellwerk.lock_free_runs(p_tenant_id, v_runs)) x (run_id)
           cross join lateral (select o.* from stellwerk.flow_wait o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) w
           cross join lateral (select o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
           where w.phase = 'ready' and r.state = 'pending') c
   where c.nested or c.place <= v_free;
  if v_runs is null then
    return 0;
  end if;
  update stellwerk.run r set held = false where r.tenant_id = p_tenant_id and r.run_id = any (v_runs);
  with started as (
    delete from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.run_id = any (v_runs) returning w.*
  ), held as (
    insert into stellwerk.flow_slot (tenant_id, run_id, workflow_id, key, since)
    select s.tenant_id, s.run_id, s.workflow_id, case when s.exclusive then s.key end, p_now
      from started s where s.exclusive or (v_slots.max_running is not null and not s.nested)
    on conflict do nothing
  ), timed as (
    insert into stellwerk.flow_throttle (tenant_id, workflow_id, key, free_at)
    select s.tenant_id, s.workflow_id, s.key, p_now + max(s.throttle) from started s where s.throttle is not null and s.key is not null
     group by s.tenant_id, s.workflow_id, s.key
    on conflict (tenant_id, workflow_id, key) do update set free_at = excluded.free_at
  )
  select array_agg(s.key) into v_keys from started s where s.throttle is not null and s.key is not null and not s.exclusive;
  perform stellwerk.settle_key(p_tenant_id, p_workflow_id, u.key, p_now) from unnest(v_keys) u (key);
  return cardinality(v_runs);
end
$$;
comment on function stellwerk.let_start(bigint, bigint, timestamptz, integer) is 'Lets the ready runs of a workflow start, by priority and age, as far as there are free slots. Answers how many.';

create or replace function stellwerk.turn_away(p_tenant_id bigint, p_run_ids bigint[], p_reasons text[])
returns void language plpgsql set search_path = '' as $$
declare
  v_free    bigint[];
  v_reasons text[];
begin
  if p_run_ids is null then
    return;
  end if;
  v_free := stellwerk.lock_free_runs(p_tenant_id, p_run_ids);
  if cardinality(v_free) = 0 then
    return;
  end if;
  select array_agg(u.reason order by array_position(v_free, u.run_id)) into v_reasons
    from unnest(p_run_ids, p_reasons) u (run_id, reason) where u.run_id = any (v_free);
  perform stellwerk.end_runs(p_tenant_id, v_free, array_fill('cancelled'::text, array[cardinality(v_free)]), null, null, v_reasons);
  perform stellwerk.drop_places(p_tenant_id, v_free);
end
$$;
comment on function stellwerk.turn_away(bigint, bigint[], text[]) is 'Cancels waiting runs with a reason; those that somebody else holds are left as they are.';

create or replace function stellwerk.lock_waiting_runs(p_tenant_id bigint, p_run_ids bigint[])
returns bigint[] language plpgsql set search_path = '' as $$
begin
  return array(
    select r.run_id from unnest(stellwerk.lock_free_runs(p_tenant_id, p_run_ids)) x (run_id)
     cross join lateral (select o.run_id, o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
     where r.state in ('pending', 'paused'));
end
$$;
comment on function stellwerk.lock_waiting_runs(bigint, bigint[]) is 'Locks those of some runs that have not begun and that nobody else holds.';

create or replace function stellwerk.drop_places(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  delete from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.run_id = any (p_run_ids);
  -- And the marks that end_runs has just put up.
  delete from stellwerk.flow_slot d
   where d.tenant_id = p_tenant_id and d.run_id = any (array(
           select s.run_id from stellwerk.flow_slot s
            where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids) for update skip locked));
end
$$;
comment on function stellwerk.drop_places(bigint, bigint[]) is 'Takes runs that have just been ended out of the line, called at their gate.';

create or replace function stellwerk.flow_reason(p_run stellwerk.run)
returns table (reason text, evidence jsonb) language plpgsql stable set search_path = '' as $$
declare
  c_many   constant integer := 1000;
  v_wait   stellwerk.flow_wait;
  v_slot   stellwerk.flow_slot;
  v_slots  record;
  v_before integer;
  v_held   bigint[];
begin
  select * into v_wait from stellwerk.flow_wait w where w.tenant_id = p_run.tenant_id and w.run_id = p_run.run_id;
  if v_wait.run_id is null or v_wait.phase = 'arriving' and v_wait.arrived_at > stellwerk.clock() then
    return;
  end if;
  if v_wait.key is not null then
    select count(*) into v_before
      from (select from stellwerk.flow_wait w
             where w.tenant_id = v_wait.tenant_id and w.workflow_id = v_wait.workflow_id and w.key = v_wait.key and w.phase in ('behind', 'timed', 'ready')
               and (w.priority > v_wait.priority or w.priority = v_wait.priority and w.run_id < v_wait.run_id) limit c_many) c;
    select * into v_slot from stellwerk.flow_slot s
     where s.tenant_id = v_wait.tenant_id and s.workflow_id = v_wait.workflow_id and s.key = v_wait.key and s.released_at is null
     order by s.since limit 1;
  end if;
  case
    when v_wait.phase = 'arriving' then
      reason := format('it is let in or lined up by %s', stellwerk.who_pumps());
      evidence := jsonb_build_object('gate', 'arriving', 'arrived_at', v_wait.arrived_at, 'workers', stellwerk.present_workers());
    when v_wait.phase = 'quiet' then
      reason := format('it starts at %s unless another run%s comes before (debounce %s)', stellwerk.at_text(v_wait.until),
                       case when v_wait.key <> '' then format(' with the key %s', to_json(v_wait.key)) else '' end, stellwerk.duration_text(v_wait.debounce));
      evidence := jsonb_build_object('gate', 'quiet', 'setting', 'debounce', 'debounce', stellwerk.duration_text(v_wait.debounce), 'until', v_wait.until);
    when v_slot.run_id is not null then
      reason := format('run %s holds the same key %s since %s%s', v_slot.run_id, to_json(v_wait.key), stellwerk.at_text(v_slot.since),
                       case when v_slot.replaced_by = v_wait.run_id then ' and has been asked to cancel'
                            when v_before > 0 then format('; before it in the line: %s', v_before) else '' end);
      evidence := jsonb_build_object('gate', 'key', 'setting', 'concurrency_key', 'holder_run_id', v_slot.run_id::text, 'since', v_slot.since, 'before', v_before,
                                     'asked_to_cancel', v_slot.replaced_by is not distinct from v_wait.run_id);
    when v_wait.phase = 'timed' then
      reason := format('the throttle of %s lets the next run%s start at %s', stellwerk.duration_text(v_wait.throttle),
                       case when v_wait.key <> '' then format(' with the key %s', to_json(v_wait.key)) else '' end, stellwerk.at_text(v_wait.until));
      evidence := jsonb_build_object('gate', 'throttle', 'setting', 'throttle', 'throttle', stellwerk.duration_text(v_wait.throttle), 'until', v_wait.until);
    when v_wait.phase = 'behind' then
      reason := format('it is number %s in the line%s', v_before + 1,
                       case when v_wait.key <> '' then format(' of the key %s', to_json(v_wait.key)) else ' of its throttled workflow' end);
      evidence := jsonb_build_object('gate', 'line', 'setting', case when v_wait.exclusive then 'concurrency_key' else 'throttle' end, 'before', v_before);
    else
      v_slots := stellwerk.free_slots(v_wait.tenant_id, v_wait.workflow_id);
      select count(*) into v_before
        from (select from stellwerk.flow_wait w
               where w.tenant_id = v_wait.tenant_id and w.workflow_id = v_wait.workflow_id and w.phase = 'ready'
                 and (w.priority > v_wait.priority or w.priority = v_wait.priority and w.run_id < v_wait.run_id) limit c_many) c;
      v_held := array(select s.run_id from stellwerk.flow_slot s
                       where s.tenant_id = v_wait.tenant_id and s.workflow_id = v_wait.workflow_id and s.released_at is null
                       order by s.since, s.run_id limit 20);
      if v_slots.free = 0 then
        reason := format('max_running of %s is reached, by run%s %s%s; before it in the line: %s', v_slots.max_running,
                         case when v_slots.max_running > 1 then 's' else '' end, array_to_string(v_held[:3], ', '),
                         case when v_slots.max_running > 3 then ' …' else '' end, v_before);
      else
        reason := format('it is let in by %s', stellwerk.who_pumps());
      end if;
      evidence := jsonb_build_object('gate', case when v_slots.free = 0 then 'full' else 'next' end, 'workers', stellwerk.present_workers(),
                                     'setting', 'max_running', 'max_running', v_slots.max_running, 'before', v_before,
                                     'holder_run_ids', (select jsonb_agg(u.run_id::text) from unnest(v_held) u (run_id)));
  end case;
  evidence := jsonb_strip_nulls(jsonb_build_object('table', 'flow_wait', 'phase', v_wait.phase, 'key', nullif(v_wait.key, ''), 'priority', v_wait.priority) || evidence);
  return next;
end
$$;
comment on function stellwerk.flow_reason(stellwerk.run) is 'Why flow control does not let a pending run start, with the rows that show it: a clause for a sentence such as "Run 5 waits: …". No row for a run that waits at no gate.';

create or replace function stellwerk.forget_flow(p_tenant_id bigint)
returns void language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  c_many constant integer := 1000;
  v_now  timestamptz := stellwerk.clock();
begin
  if exists (select from stellwerk.flow_throttle t where t.tenant_id = p_tenant_id and t.free_at < v_now) then
    delete from stellwerk.flow_throttle t
     where t.tenant_id = p_tenant_id and (t.workflow_id, t.key) in (
             select o.workflow_id, o.key from stellwerk.flow_throttle o
              where o.tenant_id = p_tenant_id and o.free_at < v_now order by o.free_at limit c_many for update skip locked);
  end if;
  if exists (select from stellwerk.rate_usage u where u.tenant_id = p_tenant_id) then
    perform stellwerk.close_gaps(p_tenant_id);
  end if;
end
$$;
comment on function stellwerk.forget_flow(bigint) is 'Housekeeping, called by tick: throttles that are past, and what close_gaps does.';
