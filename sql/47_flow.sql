-- Flow control: the gate of a workflow decides which of its pending runs may start: max_running, concurrency_key with
-- on_conflict, debounce, throttle, priority.
--
-- Who starts a run only inserts a row into flow_wait and waits for nobody. Who ends a run only marks the rows of that run.
-- Everything that depends on other runs is decided here, when pump comes by, by one session per workflow at a time.
-- A gate reads what has changed (arrivals, times that have come, slots given back) and the runs that are next, never the whole
-- line, so a line of 100,000 costs no more than one of ten. It waits for no lock: rows held by others are left for the next time.

-- A body that can be inlined: for a run without such settings this is all that flow control costs.
create or replace function stellwerk.is_gated(p_settings jsonb)
returns boolean language sql immutable parallel safe
return coalesce(p_settings ->> 'max_running', p_settings ->> 'concurrency_key', p_settings ->> 'debounce', p_settings ->> 'throttle') is not null;
comment on function stellwerk.is_gated(jsonb) is 'Whether runs of a version with these settings pass a gate before they start.';

create or replace function stellwerk.wait_at_gates(p_tenant_id bigint, p_run_ids bigint[], p_at timestamptz default null)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.flow_wait (tenant_id, run_id, workflow_id, exclusive, on_conflict, debounce, throttle, priority, arrived_at)
  select p_tenant_id, r.run_id, r.workflow_id, d.settings ->> 'concurrency_key' is not null, coalesce(d.settings ->> 'on_conflict', 'queue'),
         (d.settings ->> 'debounce')::interval, (d.settings ->> 'throttle')::interval, r.priority, coalesce(p_at, r.start_at, r.created_at)
    from unnest(p_run_ids) x (run_id)
   cross join lateral (
     select o.run_id, o.workflow_id, o.version, o.priority, o.start_at, o.created_at from stellwerk.run o
      where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
   cross join lateral (
     select o.settings from stellwerk.workflow_version o
      where o.tenant_id = p_tenant_id and o.workflow_id = r.workflow_id and o.version = r.version offset 0) d
   where stellwerk.is_gated(d.settings)
  on conflict (tenant_id, run_id) do nothing;
end
$$;
comment on function stellwerk.wait_at_gates(bigint, bigint[], timestamptz) is 'Lines up those of some held runs whose workflow has a gate.';

-- Called for every run that ends, under its lock. Where nobody limits anything this is one statement that finds three empty tables.
-- Rows of flow_wait are changed by gates only, so that no gate ever meets one that is locked: who leaves a line puts up a mark instead.
create or replace function stellwerk.leave_gates(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_any   record;
  v_left  boolean := false;
begin
  select exists (select from stellwerk.flow_slot s where s.tenant_id = p_tenant_id) as slots,
         exists (select from stellwerk.flow_wait w where w.tenant_id = p_tenant_id) as waits,
         exists (select from stellwerk.rate_wait w where w.tenant_id = p_tenant_id) as rates
    into v_any;
  if v_any.slots then
    update stellwerk.flow_slot s set released_at = coalesce(s.released_at, v_now) where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids);
    v_left := found;
  end if;
  if v_any.waits then
    insert into stellwerk.flow_slot (tenant_id, run_id, workflow_id, released_at)
    select p_tenant_id, w.run_id, w.workflow_id, v_now
      from unnest(p_run_ids) x (run_id)
     cross join lateral (
       select o.run_id, o.workflow_id from stellwerk.flow_wait o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) w
    on conflict (tenant_id, run_id) do nothing;
    if found or v_left then
      perform set_config('stellwerk.slot_released', 'on', true);
      perform stellwerk.ring_if_asleep();
    end if;
  end if;
  if v_any.rates then
    delete from stellwerk.rate_wait w where w.tenant_id = p_tenant_id and w.run_id = any (p_run_ids);
  end if;
end
$$;
comment on function stellwerk.leave_gates(bigint, bigint[]) is 'Marks that runs which have ended hold and want nothing any more; the gate hands it on at the next pump, which is woken if somebody waits.';

create or replace function stellwerk.gate_key(p_tenant_id bigint, p_workflow_id bigint)
returns bigint language sql immutable parallel safe
return hashtextextended('stellwerk gate ' || p_workflow_id, p_tenant_id);
comment on function stellwerk.gate_key(bigint, bigint) is 'Key of the advisory lock under which one session at a time stands at the gate of a workflow.';

-- A run that is taken up again after its end: one that had never started waits as a new one does.
create or replace function stellwerk.return_to_gate(p_tenant_id bigint, p_run stellwerk.run, p_version integer)
returns void language plpgsql set search_path = '' as $$
declare
  v_settings jsonb;
  v_key      text;
  v_other    bigint;
begin
  select d.settings into v_settings from stellwerk.workflow_version d
   where d.tenant_id = p_tenant_id and d.workflow_id = p_run.workflow_id and d.version = p_version;
  if not stellwerk.is_gated(v_settings) then
    return;
  end if;
  if p_run.started_at is null then
    delete from stellwerk.flow_slot s where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id;
    update stellwerk.run r set held = true where r.tenant_id = p_tenant_id and r.run_id = p_run.run_id;
    perform stellwerk.wait_at_gates(p_tenant_id, array[p_run.run_id], stellwerk.clock());
    return;
  end if;
  if v_settings ->> 'concurrency_key' is not null then
    v_key := (stellwerk.flow_key(p_tenant_id, p_run.run_id)).key;
  end if;
  if v_key is not null then
    -- The one place where somebody waits for a gate, for as long as a pump takes.
    perform pg_advisory_xact_lock(stellwerk.gate_key(p_tenant_id, p_run.workflow_id));
    select s.run_id into v_other from stellwerk.flow_slot s
     where s.tenant_id = p_tenant_id and s.workflow_id = p_run.workflow_id and s.key = v_key and s.released_at is null and s.run_id <> p_run.run_id limit 1;
    if found then
      raise exception 'run % holds the concurrency_key % of run %', v_other, to_json(v_key), p_run.run_id
        using errcode = 'SW003', hint = format('Cancel run %s, or retry when it has ended.', v_other);
    end if;
  end if;
  if v_key is not null or v_settings ->> 'max_running' is not null then
    insert into stellwerk.flow_slot (tenant_id, run_id, workflow_id, key)
    values (p_tenant_id, p_run.run_id, p_run.workflow_id, v_key)
    on conflict (tenant_id, run_id) do update set key = excluded.key, since = excluded.since, replaced_by = null, released_at = null;
  end if;
end
$$;
comment on function stellwerk.return_to_gate(bigint, stellwerk.run, integer) is 'A run that is retried counts again at once, even where that is one more than max_running; one that had never started waits at its gate. Error: SW003 while another run holds its concurrency_key.';

create or replace function stellwerk.flow_key(p_tenant_id bigint, p_run_id bigint, out key text, out error jsonb)
language plpgsql set search_path = '' as $$
declare
  c_longest constant integer := 500;
  v_run     stellwerk.run;
  v_node    stellwerk.plan_node;
  v_message text;
  v_state   text;
begin
  select * into v_run from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_run_id;
  select * into v_node from stellwerk.plan_node n
   where n.tenant_id = p_tenant_id and n.workflow_id = v_run.workflow_id and n.version = v_run.version and n.node_id = v_run.trigger_node;
  begin
    key := stellwerk.render(
      jsonb_build_object('concurrency_key', v_node.config -> 'concurrency_key'),
      (select jsonb_agg(d.place) from jsonb_array_elements(v_node.dynamic) d (place) where d.place -> 'at' ->> 0 = 'concurrency_key'),
      jsonb_build_object(
        'trigger', jsonb_build_object('payload', v_run.payload, 'row', case when v_run.source = 'row' then v_run.payload end,
                                      'old', v_run.old, 'source', v_run.source),
        'run', jsonb_build_object('id', v_run.run_id::text, 'workflow', stellwerk.slug_of(p_tenant_id, v_run.workflow_id)),
        'now', to_jsonb(v_run.created_at))) ->> 'concurrency_key';
  exception when query_canceled or others then
    get stacked diagnostics v_message = message_text, v_state = returned_sqlstate;
    error := jsonb_build_object('class', v_state, 'message', 'the concurrency_key cannot be computed: ' || v_message, 'node', v_run.trigger_node,
                                'attempt', 0, 'retryable', false);
  end;
  key := nullif(key, '');
  if octet_length(key) > c_longest then
    key := left(key, 60) || '…' || md5(key);
  end if;
end
$$;
comment on function stellwerk.flow_key(bigint, bigint) is 'The concurrency_key of a run: null if it has no value, or an error for the run if it cannot be computed. Very long ones are shortened and told apart by a hash.';

-- Gates

create or replace function stellwerk.open_gates(p_tenant_id bigint, p_limit integer, out opened integer, out more boolean)
language plpgsql
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_workflow_id bigint := -1;
  v_now         timestamptz := stellwerk.clock();
  v_done        record;
begin
  opened := 0;
  more := false;
  loop
    -- The next workflow whose gate has something to look at: one probe into each of the partial indexes.
    v_workflow_id := least(
      (select min(w.workflow_id) from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.workflow_id > v_workflow_id and w.phase = 'arriving'),
      (select min(w.workflow_id) from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.workflow_id > v_workflow_id and w.until is not null),
      (select min(w.workflow_id) from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.workflow_id > v_workflow_id and w.phase = 'ready'),
      (select min(s.workflow_id) from stellwerk.flow_slot s where s.tenant_id = p_tenant_id and s.workflow_id > v_workflow_id and s.released_at is not null));
    exit when v_workflow_id is null;
    if pg_try_advisory_xact_lock(stellwerk.gate_key(p_tenant_id, v_workflow_id)) then
      -- What raises at one gate must not close the others.
      begin
        v_done := stellwerk.open_gate(p_tenant_id, v_workflow_id, v_now, p_limit);
        opened := opened + v_done.opened;
        more := more or v_done.more;
      exception when query_canceled or others then
        raise warning 'the gate of workflow % stays closed: %', stellwerk.slug_of(p_tenant_id, v_workflow_id), sqlerrm;
      end;
    else
      -- Whoever is at it may have looked before the last arrival: pump asks to be called again soon, not at once.
      perform set_config('stellwerk.gate_busy', 'on', true);
    end if;
  end loop;
end
$$;
comment on function stellwerk.open_gates(bigint, integer) is 'Lets the next runs of a tenant''s gated workflows start, as far as their settings allow. Answers how many, and whether there is more to do at once. Waits for nobody.';

create or replace function stellwerk.gates_ask_again()
returns boolean language plpgsql set search_path = '' as $$
declare
  v_asks boolean := current_setting('stellwerk.slot_released', true) = 'on';
begin
  perform set_config('stellwerk.slot_released', '', true);
  return coalesce(v_asks, false);
end
$$;
comment on function stellwerk.gates_ask_again() is 'Whether a slot was given back in this transaction while runs wait, so that pump should be called again; asks once.';

create or replace function stellwerk.gate_busy_seconds()
returns double precision language plpgsql set search_path = '' as $$
declare
  v_busy boolean := current_setting('stellwerk.gate_busy', true) = 'on';
begin
  perform set_config('stellwerk.gate_busy', '', true);
  return case when v_busy then 0.05 end;
end
$$;
comment on function stellwerk.gate_busy_seconds() is 'How soon pump should be called again because another session was at a gate; null when none was.';

create or replace function stellwerk.open_gate(
  p_tenant_id bigint, p_workflow_id bigint, p_now timestamptz, p_limit integer, out opened integer, out more boolean)
language plpgsql set search_path = '' as $$
declare
  v_keys text[];
  v_come record;
begin
  v_keys := stellwerk.clear_gate(p_tenant_id, p_workflow_id);
  v_come := stellwerk.admit_arrivals(p_tenant_id, p_workflow_id, p_now, p_limit);
  v_keys := v_keys || v_come.keys || stellwerk.admit_quiet(p_tenant_id, p_workflow_id, p_now, p_limit)
            || array(select w.key from stellwerk.flow_wait w
                      where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.until <= p_now and w.phase = 'timed'
                      order by w.until limit p_limit);
  perform stellwerk.settle_key(p_tenant_id, p_workflow_id, k.key, p_now) from (select distinct u.key from unnest(v_keys) u (key) where u.key is not null) k;
  opened := stellwerk.let_start(p_tenant_id, p_workflow_id, p_now, p_limit);
  more := v_come.more or opened >= p_limit;
end
$$;
comment on function stellwerk.open_gate(bigint, bigint, timestamptz, integer) is 'open_gates for one workflow, whose gate the caller has locked.';

create or replace function stellwerk.clear_gate(p_tenant_id bigint, p_workflow_id bigint)
returns text[] language plpgsql set search_path = '' as $$
declare
  v_runs bigint[];
  v_keys text[];
  v_more text[];
begin
  with released as (
    delete from stellwerk.flow_slot d
     where d.tenant_id = p_tenant_id and d.run_id = any (array(
             select s.run_id from stellwerk.flow_slot s
              where s.tenant_id = p_tenant_id and s.workflow_id = p_workflow_id and s.released_at is not null for update skip locked))
    returning d.run_id, d.key
  )
  select array_agg(r.run_id), array_agg(r.key) into v_runs, v_keys from released r;
  if v_runs is null then
    return '{}'::text[];
  end if;
  with gone as (
    delete from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.run_id = any (v_runs) returning w.key
  )
  select array_agg(g.key) into v_more from gone g;
  return v_keys || v_more;
end
$$;
comment on function stellwerk.clear_gate(bigint, bigint) is 'Takes away what runs that have ended held, and the places of those that ended while they waited; answers the keys that this concerns.';

create or replace function stellwerk.admit_arrivals(
  p_tenant_id bigint, p_workflow_id bigint, p_now timestamptz, p_limit integer, out keys text[], out more boolean)
language plpgsql set search_path = '' as $$
declare
  v_runs  bigint[];
  v_wait  stellwerk.flow_wait;
  v_quiet text[] := '{}'::text[];
begin
  keys := '{}';
  select array_agg(c.run_id) into v_runs
    from (select w.run_id from stellwerk.flow_wait w
           where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.phase = 'arriving' and w.arrived_at <= p_now
           order by w.arrived_at, w.run_id limit p_limit) c;
  more := coalesce(cardinality(v_runs), 0) >= p_limit;
  if v_runs is null then
    return;
  end if;
  v_runs := stellwerk.lock_waiting_runs(p_tenant_id, v_runs);
  more := more and cardinality(v_runs) > 0;
  -- Where only max_running counts, all at once.
  update stellwerk.flow_wait w set phase = 'ready'
   where w.tenant_id = p_tenant_id and w.run_id = any (v_runs)
     and coalesce(w.phase, '') = 'arriving' and not w.exclusive and w.debounce is null and w.throttle is null
     and (select r.parent_run_id is null from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = w.run_id);
  for v_wait in
    select w.* from unnest(v_runs) x (run_id)
     cross join lateral (select o.* from stellwerk.flow_wait o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) w
     where w.phase = 'arriving'
     order by w.arrived_at, w.run_id
  loop
    v_wait := stellwerk.identify(v_wait);
    continue when v_wait.run_id is null;
    if v_wait.key is not null and v_wait.debounce is not null then
      update stellwerk.flow_wait w
         set phase = 'quiet', key = v_wait.key, exclusive = v_wait.exclusive, nested = v_wait.nested, priority = v_wait.priority,
             until = w.arrived_at + w.debounce
       where w.tenant_id = p_tenant_id and w.run_id = v_wait.run_id;
      v_quiet := v_quiet || v_wait.key;
    elsif stellwerk.contend(v_wait, p_now) then
      keys := keys || v_wait.key;
    end if;
  end loop;
  if cardinality(v_quiet) > 0 then
    perform stellwerk.settle_quiet(p_tenant_id, p_workflow_id, v_quiet, v_runs);
  end if;
end
$$;
comment on function stellwerk.admit_arrivals(bigint, bigint, timestamptz, integer) is 'Gives runs that have come to the gate their key and their place. Answers the keys that this concerns, and whether more have come.';

-- A run that was called by one that holds a slot of the same workflow is carried by that slot: if it waited for its caller, both would for ever.
create or replace function stellwerk.identify(p_wait stellwerk.flow_wait)
returns stellwerk.flow_wait language plpgsql set search_path = '' as $$
declare
  c_max_depth constant integer := 100;
  v_wait      stellwerk.flow_wait := p_wait;
  v_found     record;
  v_parent    bigint;
begin
  if v_wait.exclusive then
    v_found := stellwerk.flow_key(v_wait.tenant_id, v_wait.run_id);
    if v_found.error is not null then
      perform stellwerk.end_run(v_wait.tenant_id, v_wait.run_id, 'failed', null, v_found.error, null);
      perform stellwerk.drop_places(v_wait.tenant_id, array[v_wait.run_id]);
      return null;
    end if;
    v_wait.key := v_found.key;
    v_wait.exclusive := v_wait.key is not null;
  elsif v_wait.debounce is not null or v_wait.throttle is not null then
    v_wait.key := '';
  end if;
  select r.parent_run_id into v_parent from stellwerk.run r where r.tenant_id = v_wait.tenant_id and r.run_id = v_wait.run_id;
  for i in 1 .. c_max_depth loop
    exit when v_parent is null;
    select s.run_id, s.key into v_found from stellwerk.flow_slot s
     where s.tenant_id = v_wait.tenant_id and s.run_id = v_parent and s.workflow_id = v_wait.workflow_id;
    if found then
      v_wait.nested := true;
      v_wait.priority := 2147483647;
      if v_wait.exclusive and v_found.key = v_wait.key then
        v_wait.key := null;
        v_wait.exclusive := false;
      end if;
    end if;
    select r.parent_run_id into v_parent from stellwerk.run r where r.tenant_id = v_wait.tenant_id and r.run_id = v_parent;
  end loop;
  return v_wait;
end
$$;
comment on function stellwerk.identify(stellwerk.flow_wait) is 'An arriving run with its key, and whether it is nested; null when the key could not be computed, in which case the run has failed.';

-- Of runs with one key that follow each other within the debounce time only the last goes on.
create or replace function stellwerk.settle_quiet(p_tenant_id bigint, p_workflow_id bigint, p_keys text[], p_new bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  v_late record;
begin
  select array_agg(q.run_id) as run_ids,
         array_agg(format('replaced by run %s, which came within %s%s', q.next_run, stellwerk.duration_text(q.debounce),
                          case when q.key <> '' then format(' with the same key %s', to_json(q.key)) end)) as reasons
    into v_late
    from (select w.run_id, w.key, w.debounce, w.arrived_at, lead(w.run_id) over line as next_run, lead(w.arrived_at) over line as next_at
            from (select distinct u.key from unnest(p_keys) u (key)) k
           cross join lateral (
             select o.* from stellwerk.flow_wait o
              where o.tenant_id = p_tenant_id and o.workflow_id = p_workflow_id and o.key = k.key and o.phase = 'quiet' offset 0) w
          window line as (partition by w.key order by w.arrived_at, w.run_id)) q
   where q.next_at < q.arrived_at + q.debounce;
  perform stellwerk.turn_away(p_tenant_id, v_late.run_ids, v_late.reasons);
  insert into stellwerk.timer (tenant_id, kind, run_id, due_at)
  select p_tenant_id, 'start', w.run_id, w.until
    from unnest(p_new) x (run_id)
   cross join lateral (select o.* from stellwerk.flow_wait o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) w
   where w.phase = 'quiet';
end
$$;
comment on function stellwerk.settle_quiet(bigint, bigint, text[], bigint[]) is 'Cancels debounced runs that a newer one with their key has followed too soon, and sets timers for new ones.';

create or replace function stellwerk.admit_quiet(p_tenant_id bigint, p_workflow_id bigint, p_now timestamptz, p_limit integer)
returns text[] language plpgsql set search_path = '' as $$
declare
  v_runs bigint[];
  v_keys text[] := '{}'::text[];
  v_wait stellwerk.flow_wait;
begin
  select array_agg(c.run_id), array_agg(distinct c.key) into v_runs, v_keys
    from (select w.run_id, w.key from stellwerk.flow_wait w
           where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id and w.until <= p_now and w.phase = 'quiet'
           order by w.until limit p_limit) c;
  if v_runs is null then
    return '{}'::text[];
  end if;
  -- Some that were followed too soon may have been held by others when that was looked at.
  perform stellwerk.settle_quiet(p_tenant_id, p_workflow_id, v_keys, '{}');
  v_keys := '{}';
  for v_wait in
    select w.* from unnest(stellwerk.lock_waiting_runs(p_tenant_id, v_runs)) x (run_id)
     cross join lateral (select o.* from stellwerk.flow_wait o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) w
     where w.phase = 'quiet'
     order by w.arrived_at, w.run_id
  loop
    if stellwerk.contend(v_wait, p_now) then
      v_keys := v_keys || v_wait.key;
    end if;
  end loop;
  return v_keys;
end
$$;
comment on function stellwerk.admit_quiet(bigint, bigint, timestamptz, integer) is 'Debounced runs whose key has been quiet long enough go on to their place; answers their keys.';
