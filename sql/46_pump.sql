-- The pump: pending events become runs, runs that can move are moved, in batches, any number of callers side by side.

create or replace function stellwerk.pump(batch integer default 500)
returns jsonb language plpgsql security definer  -- the engine's own session works on the engine's tables
set search_path = '' as $$
begin
  return stellwerk.pump_tenants(batch) || jsonb_build_object('ready', stellwerk.take_ready() || stellwerk.fair_turns(10));
end
$$;
comment on function stellwerk.pump(integer) is 'Turns pending events into runs and moves runs on, up to batch of each per tenant. Answers { events, runs_advanced, steps, more, next_due_seconds, ready }: more says that there is more to do now, next_due_seconds when the next timer is due (null: none), ready names worker steps that may begin, if they are few: [type, tenant, run, step] each.';

create or replace function stellwerk.pump_tenants(p_batch integer, p_taker stellwerk.taker default null)
returns jsonb language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint;
  v_done      record;
  v_events    integer := 0;
  v_runs      integer := 0;
  v_steps     integer := 0;
  v_more      boolean := false;
begin
  if p_batch not between 1 and 10000 then
    raise exception 'a batch has 1 to 10000 runs, not %', p_batch using errcode = 'SW008';
  end if;
  for v_tenant_id in select t.tenant_id from stellwerk.tenant t order by random() loop
    v_done := stellwerk.pump_tenant(v_tenant_id, p_batch, p_taker);
    v_events := v_events + v_done.events;
    v_runs := v_runs + v_done.runs;
    v_steps := v_steps + v_done.steps;
    v_more := v_more or v_done.more;
  end loop;
  v_more := v_more or stellwerk.gates_ask_again();
  if v_events + v_runs + v_steps > 0 then
    perform stellwerk.tell_watchers();
  end if;
  return jsonb_build_object('events', v_events, 'runs_advanced', v_runs, 'steps', v_steps, 'more', v_more,
                            'next_due_seconds', least(stellwerk.seconds_to_next_timer(), stellwerk.gate_busy_seconds()));
end
$$;
comment on function stellwerk.pump_tenants(integer, stellwerk.taker) is 'pump, but for the worker steps that have become ready: those that the taker has not taken are still to be announced.';

create or replace function stellwerk.pump_tenant(
  p_tenant_id bigint, p_batch integer, p_taker stellwerk.taker, out events integer, out runs integer, out steps integer, out more boolean)
language plpgsql
-- Planning anew would cost more than running, and plans are made while the tables are empty: they must not scan them for ever.
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_waiting  record;
  v_moved    record;
  v_alone    bigint;
  v_messages integer := 0;
begin
  events := 0;
  more := false;
  -- One look for what is seldom there.
  select exists (select 1 from stellwerk.event_batch b where b.tenant_id = p_tenant_id) as batches,
         exists (select 1 from stellwerk.event_inbox e where e.tenant_id = p_tenant_id) as events,
         (select a.ctid from stellwerk.event_arrival a where a.tenant_id = p_tenant_id limit 1) as arrival,
         exists (select 1 from stellwerk.webhook_delivery d where d.tenant_id = p_tenant_id and d.state = 'pending') as deliveries,
         exists (select 1 from stellwerk.timer_change c where c.tenant_id = p_tenant_id and c.seen_by is null) as timer_changes
    into v_waiting;
  if v_waiting.batches then
    more := stellwerk.unpack_event_batches(p_tenant_id, p_batch) > 0;
  end if;
  if v_waiting.events or v_waiting.batches or v_waiting.arrival is not null then
    events := stellwerk.process_events(p_tenant_id, p_batch, v_waiting.arrival);
  end if;
  if v_waiting.deliveries then
    events := events + stellwerk.process_deliveries(p_tenant_id, p_batch);
  end if;
  if v_waiting.timer_changes then
    perform stellwerk.apply_timer_changes(p_tenant_id);
  end if;
  -- What the above has done may have told a run something, or put one before a gate.
  select exists (select 1 from stellwerk.run_message m where m.tenant_id = p_tenant_id and not m.held) as messages,
         exists (select 1 from stellwerk.flow_wait w where w.tenant_id = p_tenant_id)
         or exists (select 1 from stellwerk.flow_slot s where s.tenant_id = p_tenant_id and s.released_at is not null) as gates
    into v_waiting;
  if v_waiting.messages then
    v_messages := stellwerk.apply_messages(p_tenant_id, p_batch);
  end if;
  if v_waiting.gates or v_messages > 0 then  -- who has heard something may have left its gate
    more := (stellwerk.open_gates(p_tenant_id, p_batch)).more or more;
  end if;
  v_moved := stellwerk.advance_some(p_tenant_id, p_batch, false, p_taker);
  runs := v_moved.runs;
  steps := v_moved.steps;
  if runs < p_batch then
    v_moved := stellwerk.advance_some(p_tenant_id, p_batch - runs, true, p_taker);
    runs := runs + v_moved.runs;
    steps := steps + v_moved.steps;
  end if;
  -- One run that touches other people's tables, last, so that their locks are held for the shortest time.
  v_alone := stellwerk.lock_alone_run(p_tenant_id);
  more := more or events >= p_batch or runs >= p_batch or v_alone is not null;
  if v_alone is not null then
    steps := steps + stellwerk.advance_alone(p_tenant_id, v_alone);
    runs := runs + 1;
  end if;
  -- Runs that were moved may have called others, or told them something.
  if not more and (runs > 0 or v_messages > 0) then
    more := exists (select 1 from stellwerk.run_message m where m.tenant_id = p_tenant_id and not m.held)
            or exists (select 1 from stellwerk.run r where r.tenant_id = p_tenant_id and r.state = 'pending' and not r.held);
  end if;
end
$$;
comment on function stellwerk.pump_tenant(bigint, integer, stellwerk.taker) is 'pump for one tenant.';

create or replace function stellwerk.lock_ready_runs(p_tenant_id bigint, p_limit integer)
returns bigint[] language plpgsql set search_path = '' as $$
declare
  v_ready bigint[];
begin
  -- Candidates without locks, then locks (those held by others are passed over), then a second look under the lock.
  select array_agg(c.run_id) into v_ready
    from (select distinct s.run_id
            from (select o.run_id from stellwerk.step o
                   where o.tenant_id = p_tenant_id and o.state = 'queued' and o.runs_in = 'sql' and o.due_at is null and not o.alone limit p_limit) s) c;
  if v_ready is null then
    return '{}'::bigint[];
  end if;
  return stellwerk.lock_again(p_tenant_id, v_ready, false);
end
$$;
comment on function stellwerk.lock_ready_runs(bigint, integer) is 'Locks runs with a stored SQL step that may run now and that nobody else holds.';

create or replace function stellwerk.lock_pending_runs(p_tenant_id bigint, p_limit integer)
returns bigint[] language plpgsql set search_path = '' as $$
declare
  v_pending bigint[];
begin
  select array_agg(x.run_id) into v_pending
    from (select r.run_id from stellwerk.run r
           where r.tenant_id = p_tenant_id and r.state = 'pending' and not r.held
           order by r.priority desc, r.run_id limit p_limit for no key update skip locked) x;
  return coalesce(v_pending, '{}');
end
$$;
comment on function stellwerk.lock_pending_runs(bigint, integer) is 'Locks runs that wait to be started and that nobody else holds, by priority.';

-- As with events, runs are locked in the subtransaction that moves them.
create or replace function stellwerk.advance_some(
  p_tenant_id bigint, p_limit integer, p_fresh boolean, p_taker stellwerk.taker, out runs integer, out steps integer)
language plpgsql set search_path = '' as $$
declare
  v_run_ids bigint[];
  v_message text;
  v_state   text;
begin
  begin
    v_run_ids := case when p_fresh then stellwerk.lock_pending_runs(p_tenant_id, p_limit) else stellwerk.lock_ready_runs(p_tenant_id, p_limit) end;
    runs := cardinality(v_run_ids);
    steps := case when runs > 0 then stellwerk.advance_runs(p_tenant_id, v_run_ids, p_fresh => p_fresh, p_taker => p_taker) else 0 end;
    return;
  exception when query_canceled or others then
    get stacked diagnostics v_message = message_text, v_state = returned_sqlstate;
    if v_run_ids is null then
      raise;
    end if;
  end;
  runs := cardinality(v_run_ids);
  steps := stellwerk.advance_in_halves(p_tenant_id, v_run_ids, p_fresh, v_state, v_message);
end
$$;
comment on function stellwerk.advance_some(bigint, integer, boolean, stellwerk.taker) is 'Locks up to so many runs that can move and moves them on: fresh ones, or those with a stored SQL step. One bad run never stops the others.';

create or replace function stellwerk.advance_in_halves(p_tenant_id bigint, p_run_ids bigint[], p_fresh boolean, p_sqlstate text, p_message text)
returns integer language plpgsql set search_path = '' as $$
declare
  v_half    integer := cardinality(p_run_ids) / 2;
  v_portion bigint[];
  v_steps   integer := 0;
  v_state   text;
  v_message text;
begin
  if v_half = 0 then
    if cardinality(stellwerk.lock_free_runs(p_tenant_id, p_run_ids)) = 1 then
      perform stellwerk.count_death(p_tenant_id, p_run_ids[1], p_sqlstate, p_message);
    end if;
    return 0;
  end if;
  for i in 1 .. 2 loop
    v_portion := case i when 1 then p_run_ids[:v_half] else p_run_ids[v_half + 1:] end;
    begin
      v_steps := v_steps + stellwerk.advance_runs(p_tenant_id, stellwerk.lock_again(p_tenant_id, v_portion, p_fresh), p_fresh => p_fresh);
    exception when query_canceled or others then
      get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
      v_steps := v_steps + stellwerk.advance_in_halves(p_tenant_id, v_portion, p_fresh, v_state, v_message);
    end;
  end loop;
  return v_steps;
end
$$;
comment on function stellwerk.advance_in_halves(bigint, bigint[], boolean, text, text) is 'What follows when moving a set of runs has raised: the same in halves, down to the one run that is to blame, whose deaths are counted.';

create or replace function stellwerk.lock_again(p_tenant_id bigint, p_run_ids bigint[], p_fresh boolean)
returns bigint[] language plpgsql set search_path = '' as $$
begin
  -- The lock first, then a look under it: another call may have moved them meanwhile.
  return array(select l.run_id
                 from unnest(stellwerk.lock_free_runs(p_tenant_id, p_run_ids)) l (run_id)
                cross join lateral (select o.state, o.held from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = l.run_id offset 0) r
                where case when p_fresh then r.state = 'pending' and not r.held else r.state in ('running', 'waiting') end);
end
$$;
comment on function stellwerk.lock_again(bigint, bigint[], boolean) is 'Locks those of some runs that nobody else holds and that can still move: fresh ones, or those under way.';

create or replace function stellwerk.count_death(p_tenant_id bigint, p_run_id bigint, p_sqlstate text, p_message text)
returns void language plpgsql set search_path = '' as $$
declare
  c_max_deaths constant integer := 5;
  v_deaths integer;
begin
  update stellwerk.run r set deaths = r.deaths + 1 where r.tenant_id = p_tenant_id and r.run_id = p_run_id returning r.deaths into v_deaths;
  if v_deaths >= c_max_deaths then
    perform stellwerk.end_run(p_tenant_id, p_run_id, 'failed', null,
      jsonb_build_object('class', p_sqlstate, 'message', p_message, 'retryable', false,
                         'detail', jsonb_build_object('reason', format('advancing the run raised %s times', v_deaths))), null);
  end if;
end
$$;
comment on function stellwerk.count_death(bigint, bigint, text, text) is 'Counts that advancing a run alone raised; the fifth time the run fails with that error.';

create or replace function stellwerk.lock_alone_run(p_tenant_id bigint)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_candidate bigint;
  v_run_id    bigint;
begin
  for v_candidate in
    select s.run_id from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.state = 'queued' and s.runs_in = 'sql' and s.due_at is null and s.alone
     order by s.run_id limit 20
  loop
    select r.run_id into v_run_id from stellwerk.run r
     where r.tenant_id = p_tenant_id and r.run_id = v_candidate and r.state in ('running', 'waiting') for no key update skip locked;
    exit when v_run_id is not null;
  end loop;
  return v_run_id;
end
$$;
comment on function stellwerk.lock_alone_run(bigint) is 'Locks one run whose next step touches other people''s tables; null when there is none that nobody holds.';

create or replace function stellwerk.advance_alone(p_tenant_id bigint, p_run_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_step_id bigint;
  v_wave    stellwerk.token[];
  v_message text;
  v_state   text;
begin
  select s.step_id into v_step_id from stellwerk.step s
   where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.state = 'queued' and s.runs_in = 'sql' and s.due_at is null and s.alone
   order by s.step_id limit 1;
  if v_step_id is null then
    return 0;
  end if;
  v_wave := stellwerk.tokens_of(p_tenant_id, array[p_run_id], array[v_step_id]);
  begin
    return 1 + stellwerk.advance_runs(p_tenant_id, array[p_run_id], stellwerk.run_wave(p_tenant_id, v_wave));
  exception when query_canceled or others then
    get stacked diagnostics v_message = message_text, v_state = returned_sqlstate;
    perform stellwerk.count_death(p_tenant_id, p_run_id, v_state, v_message);
    return 0;
  end;
end
$$;
comment on function stellwerk.advance_alone(bigint, bigint) is 'Runs one step that touches other people''s tables and moves its run on.';

create or replace function stellwerk.advance(run_id bigint)
returns void language plpgsql security definer  -- the engine's tables are its own
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_run       stellwerk.run := stellwerk.lock_run(v_tenant_id, run_id);
begin
  perform stellwerk.advance_runs(v_tenant_id, array[v_run.run_id]);
  while stellwerk.advance_alone(v_tenant_id, v_run.run_id) > 0 loop
    perform stellwerk.advance_runs(v_tenant_id, array[v_run.run_id]);
  end loop;
end
$$;
comment on function stellwerk.advance(bigint) is 'Moves one run on as far as it goes in SQL, in the caller''s own transaction: for tests, benchmarks and psql.';
