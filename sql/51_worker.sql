-- What a worker process calls to take steps, to show that it is alive, and to give them back; 51_results.sql is for what
-- they came to. The queue row is only a wake-up; who holds a step, and which attempt counts, is decided here, in our own rows.

create or replace function stellwerk.register_worker(p_name text, p_host text, p_pid integer, p_types text[])
returns bigint language plpgsql security definer  -- workers have no right to write the table
set search_path = '' as $$
declare
  v_worker_id bigint;
begin
  insert into stellwerk.worker (name, host, pid, types) values (p_name, p_host, p_pid, p_types) returning worker_id into v_worker_id;
  return v_worker_id;
end
$$;
comment on function stellwerk.register_worker(text, text, integer, text[]) is 'Announces a worker process and the node types it carries out; answers its number. It must then hold its presence.';

-- 1398032723 is 'SWWS' as four bytes: the class of the presence locks.
create or replace function stellwerk.hold_presence(p_worker_id bigint)
returns void language plpgsql volatile set search_path = '' as $$
begin
  perform pg_advisory_lock(1398032723, p_worker_id::integer);
end
$$;
comment on function stellwerk.hold_presence(bigint) is 'Shows that a worker is alive for as long as the calling session lives: a session-level advisory lock.';

create or replace function stellwerk.is_present(p_worker_id bigint)
returns boolean language sql stable set search_path = '' as $$
  select exists (select 1 from pg_catalog.pg_locks l
                  where l.locktype = 'advisory' and l.classid = 1398032723 and l.objid = p_worker_id::oid and l.objsubid = 2 and l.granted
                    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database()))
$$;
comment on function stellwerk.is_present(bigint) is 'Whether a worker''s session still holds its presence lock.';

create or replace function stellwerk.leave_worker(p_worker_id bigint)
returns void language plpgsql security definer  -- workers have no right to write the table
set search_path = '' as $$
begin
  delete from stellwerk.worker w where w.worker_id = p_worker_id;
end
$$;
comment on function stellwerk.leave_worker(bigint) is 'A worker that stops takes its row away.';

create or replace function stellwerk.begin_steps(p_worker_id bigint, p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[])
returns table (run_id bigint, step_id bigint, attempt integer, node_id text, type text, visit integer, config jsonb, timeout_seconds double precision,
               idempotency_key text, failures integer, workflow text, traceparent text, tenant text)
language plpgsql security definer  -- workers have no right to write the tables
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_tokens stellwerk.token[];
  v_taken  record;
  v_within integer[];
  v_tenant text;
begin
  perform stellwerk.lock_runs(p_tenant_id, p_run_ids);
  v_tokens := stellwerk.tokens_of(p_tenant_id, p_run_ids, p_step_ids, 'queued');
  if cardinality(v_tokens) = 0 then
    return;
  end if;
  select array_agg(s.token) as tokens, array_agg(s.config) as configs, array_agg(s.input) as inputs, array_agg(s.timeout) as timeouts,
         array_agg(s.slug) as slugs
    into v_taken
    from (select t as token, n.timeout, w.slug, m.config, case when n.dynamic <> '[]' then m.config end as input
            from unnest(v_tokens) t
           cross join lateral (
             select o as node, o.timeout, o.dynamic, o.config from stellwerk.plan_node o
              where o.tenant_id = p_tenant_id and o.workflow_id = t.workflow_id and o.version = t.version and o.node_id = t.node_id offset 0) n
           cross join lateral (
             select o.slug from stellwerk.workflow o where o.tenant_id = p_tenant_id and o.workflow_id = t.workflow_id offset 0) w
            left join stellwerk.contexts(p_tenant_id, v_tokens) c on c.step_id = t.step_id
           cross join lateral (
             select case when n.dynamic = '[]' then n.config else stellwerk.render_safely(p_tenant_id, t, n.node, c.context) end as config offset 0) m
           where m.config is not null) s;
  if v_taken.tokens is null then
    return;
  end if;
  if exists (select from stellwerk.rate_limit l where l.tenant_id = p_tenant_id) then
    v_within := stellwerk.within_rate_limits(p_tenant_id, v_taken.tokens, v_taken.configs);
    select array_agg(v_taken.tokens[k.place]) as tokens, array_agg(v_taken.configs[k.place]) as configs, array_agg(v_taken.inputs[k.place]) as inputs,
           array_agg(v_taken.timeouts[k.place]) as timeouts, array_agg(v_taken.slugs[k.place]) as slugs
      into v_taken from unnest(v_within) k (place);
    if v_taken.tokens is null then
      return;
    end if;
  end if;
  select t.slug into v_tenant from stellwerk.tenant t where t.tenant_id = p_tenant_id;
  perform stellwerk.take_steps(p_tenant_id, p_worker_id, v_taken.tokens, v_taken.inputs, v_taken.timeouts);
  perform stellwerk.tell_watchers();
  return query
    select u.run_id, u.step_id, u.attempt + 1, u.node_id, u.type, u.visit, v_taken.configs[u.ordinality],
           extract(epoch from v_taken.timeouts[u.ordinality])::double precision, u.run_id || ':' || u.step_id || ':' || u.visit, u.failures,
           v_taken.slugs[u.ordinality],
           (select r.traceparent from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = u.run_id), v_tenant
      from unnest(v_taken.tokens) with ordinality u (
             run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt, failures, arrived, queued_at, type,
             runs_in, alone, joins, recount, ending, ordinality);
end
$$;
comment on function stellwerk.begin_steps(bigint, bigint, bigint[], bigint[]) is 'Takes queued worker steps for a worker, 15 seconds at a time, and answers each with its settings computed. Steps that have ended, are held by another worker, whose settings cannot be computed or that a rate limit puts off are left out.';

-- A worker step whose expressions raise has failed before it began; the others of the batch go on.
create or replace function stellwerk.render_safely(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_context jsonb)
returns jsonb language plpgsql set search_path = '' as $$
declare
  v_message text;
  v_state   text;
begin
  if not p_node.may_raise then
    return stellwerk.render(p_node.config, p_node.dynamic, p_context);
  end if;
  begin
    return stellwerk.render(p_node.config, p_node.dynamic, p_context);
  exception when query_canceled or others then
    get stacked diagnostics v_message = message_text, v_state = returned_sqlstate;
  end;
  perform stellwerk.fail_step(p_tenant_id, p_token.run_id, p_token.step_id, stellwerk.step_error(p_token, v_state, v_message, false));
  return null;
end
$$;
comment on function stellwerk.render_safely(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'The settings of a worker step; null when an expression raised, in which case the step has been failed.';

create or replace function stellwerk.extend_leases(p_worker_id bigint, p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_attempts integer[])
returns bigint[] language plpgsql security definer  -- workers have no right to write the table
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_step stellwerk.step;
  v_held bigint[] := '{}'::bigint[];
begin
  for i in 1 .. cardinality(p_step_ids) loop
    select * into v_step from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = p_run_ids[i] and s.step_id = p_step_ids[i] for no key update;
    continue when v_step.step_id is null or v_step.state <> 'running' or v_step.attempt <> p_attempts[i] or v_step.worker_id <> p_worker_id;
    update stellwerk.step s set lease_until = clock_timestamp() + interval '15 seconds'
     where s.tenant_id = p_tenant_id and s.run_id = p_run_ids[i] and s.step_id = p_step_ids[i];
    v_held := v_held || v_step.step_id;
  end loop;
  return v_held;
end
$$;
comment on function stellwerk.extend_leases(bigint, bigint, bigint[], bigint[], integer[]) is 'A sign of life for steps that take long; answers those that the worker still holds. The others were taken over, timed out or cancelled.';

create or replace function stellwerk.release_steps(p_worker_id bigint, p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_attempts integer[])
returns bigint[] language plpgsql security definer  -- workers have no right to write the tables
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_runs  bigint[];
  v_steps bigint[];
  v_types text[];
begin
  perform stellwerk.lock_runs(p_tenant_id, p_run_ids);
  select array_agg(s.run_id), array_agg(s.step_id), array_agg(s.type) into v_runs, v_steps, v_types
    from unnest(p_run_ids, p_step_ids, p_attempts) x (run_id, step_id, attempt)
   cross join lateral (
     select o.* from stellwerk.step o where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.step_id = x.step_id offset 0) s
   where s.state = 'running' and s.attempt = x.attempt and s.worker_id = p_worker_id;
  if v_steps is null then
    return '{}'::bigint[];
  end if;
  perform stellwerk.give_back(p_tenant_id, v_runs, v_steps, v_types, 'released');
  return v_steps;
end
$$;
comment on function stellwerk.release_steps(bigint, bigint, bigint[], bigint[], integer[]) is 'A worker that stops gives back steps that it had taken; answers those that went back to the queue.';

create or replace function stellwerk.give_back(p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_types text[], p_outcome text)
returns void language plpgsql set search_path = '' as $$
declare
  v_job_ids bigint[];
begin
  for i in 1 .. cardinality(p_step_ids) loop
    insert into stellwerk.step_attempt (tenant_id, run_id, step_id, attempt, outcome, worker_id, started_at, ended_at)
    select p_tenant_id, s.run_id, s.step_id, s.attempt, p_outcome, s.worker_id, s.started_at, clock_timestamp()
      from stellwerk.step s where s.tenant_id = p_tenant_id and s.run_id = p_run_ids[i] and s.step_id = p_step_ids[i]
    on conflict do nothing;
    -- One queue row each: if one of them kills its worker, the others do not share its fate again.
    v_job_ids := stellwerk.enqueue_steps(p_tenant_id, p_run_ids[i:i], p_step_ids[i:i], p_types[i:i],
                                         stellwerk.priorities_of(p_tenant_id, p_run_ids[i:i]), array[null::timestamptz]);
    perform stellwerk.free_step(p_tenant_id, p_run_ids[i], p_step_ids[i], v_job_ids[1]);
  end loop;
end
$$;
comment on function stellwerk.give_back(bigint, bigint[], bigint[], text[], text) is 'Running steps go back to the queue; the attempt is kept as lost or released.';

-- Steps whose worker has vanished, whose lease ran out or whose time is up. Called by tick.
create or replace function stellwerk.recover_steps(p_tenant_id bigint, p_limit integer default 500)
returns integer language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  c_max_claims constant integer := 5;
  v_now    timestamptz := stellwerk.clock();
  v_absent bigint[];
  v_runs   bigint[];
  v_step   record;
  v_count  integer := 0;
begin
  select array_agg(w.worker_id) into v_absent
    -- "offset 0": asked once for each worker, not for each step.
    from (select distinct s.worker_id from stellwerk.step s where s.tenant_id = p_tenant_id and s.state = 'running' offset 0) w
   where not stellwerk.is_present(w.worker_id);
  select array_agg(c.run_id) into v_runs
    from (select distinct s.run_id from stellwerk.step s
           where s.tenant_id = p_tenant_id and s.state = 'running'
             and (s.lease_until < v_now or s.timeout_at < v_now - interval '1 second' or s.worker_id = any (v_absent)) limit p_limit) c;
  if v_runs is null then
    return 0;
  end if;
  v_runs := stellwerk.lock_free_runs(p_tenant_id, v_runs);
  for v_step in
    select s.run_id, s.step_id, s.type, s.node_id, s.attempt, s.failures, s.timeout_at < v_now - interval '1 second' as timed_out
      from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = any (v_runs) and s.state = 'running'
       and (s.lease_until < v_now or s.timeout_at < v_now - interval '1 second' or s.worker_id = any (v_absent))
     order by s.run_id, s.step_id
       -- A sign of life locks only the step: one that comes at this very moment counts.
       for no key update skip locked
  loop
    v_count := v_count + 1;
    if v_step.timed_out then
      perform stellwerk.fail_step(p_tenant_id, v_step.run_id, v_step.step_id, jsonb_build_object(
        'class', 'timeout', 'message', 'the attempt took longer than the node''s timeout', 'node', v_step.node_id, 'attempt', v_step.attempt, 'retryable', true));
    -- What a worker gave back by itself does not speak against the step.
    elsif v_step.attempt - v_step.failures >= c_max_claims + (
      select count(*) from stellwerk.step_attempt a
       where a.tenant_id = p_tenant_id and a.run_id = v_step.run_id and a.step_id = v_step.step_id and a.outcome = 'released')
    then
      perform stellwerk.fail_step(p_tenant_id, v_step.run_id, v_step.step_id, jsonb_build_object(
        'class', 'worker_lost', 'message', format('%s workers vanished while they ran this step', c_max_claims), 'node', v_step.node_id,
        'attempt', v_step.attempt, 'retryable', false));
    else
      perform stellwerk.give_back(p_tenant_id, array[v_step.run_id], array[v_step.step_id], array[v_step.type], 'lost');
    end if;
  end loop;
  return v_count;
end
$$;
comment on function stellwerk.recover_steps(bigint, integer) is 'Steps of vanished workers go back to the queue, at most 5 times; attempts past the node''s timeout end with class timeout. Answers how many.';

-- The queue holds nothing that step does not know: what it has lost is put back.
create or replace function stellwerk.reconcile_tenant(p_tenant_id bigint, p_age interval default interval '30 seconds')
returns integer language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_runs  bigint[];
  v_steps bigint[];
  v_types text[];
  v_due   timestamptz[];
  v_before timestamptz := stellwerk.clock() - p_age;
begin
  select array_agg(s.run_id), array_agg(s.step_id), array_agg(s.type), array_agg(s.due_at) into v_runs, v_steps, v_types, v_due
    from (select x.* from stellwerk.step x
           where x.tenant_id = p_tenant_id and x.state = 'queued' and x.runs_in = 'worker' and x.queued_at < v_before
           order by x.run_id limit 500) s
   where not exists (select 1 from stellwerk.queue_state(array[s.job_id]) q)
     and exists (select 1 from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = s.run_id and r.state in ('running', 'waiting') offset 0);
  if v_steps is null then
    return 0;
  end if;
  -- Locked and looked at again: somebody may have taken them in between.
  perform stellwerk.lock_runs(p_tenant_id, v_runs);
  select array_agg(x.run_id), array_agg(x.step_id), array_agg(x.type), array_agg(x.due) into v_runs, v_steps, v_types, v_due
    from unnest(v_runs, v_steps, v_types, v_due) x (run_id, step_id, type, due)
   cross join lateral (
     select o.* from stellwerk.step o where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.step_id = x.step_id offset 0) s
   where s.state = 'queued' and not exists (select 1 from stellwerk.queue_state(array[s.job_id]) q);
  if v_steps is not null then
    perform stellwerk.enqueue_again(p_tenant_id, v_runs, v_steps, v_types, v_due);
  end if;
  return coalesce(cardinality(v_steps), 0);
end
$$;
comment on function stellwerk.reconcile_tenant(bigint, interval) is 'Enqueues again worker steps and file orders that have waited longer than an age and have no queue row. Answers how many.';

create or replace function stellwerk.reconcile()
returns integer language plpgsql security definer  -- works on the engine's tables
set search_path = '' as $$
declare
  v_tenant_id bigint;
  v_count     integer := 0;
begin
  for v_tenant_id in select t.tenant_id from stellwerk.tenant t loop
    v_count := v_count + stellwerk.reconcile_tenant(v_tenant_id, interval '0 seconds');
  end loop;
  return v_count;
end
$$;
comment on function stellwerk.reconcile() is 'Rebuilds the queue from the steps that wait for a worker, at once; answers how many rows were missing.';
