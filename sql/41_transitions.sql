-- The only writer of run.state and step.state. Every function here expects its run rows to be locked by the caller,
-- in ascending order: run first, then step, then timer. Nothing here decides; it writes what was decided.

-- States in which a token lives: the partial index step_live serves exactly these.
create or replace function stellwerk.write_moves(p_tenant_id bigint, p_moves stellwerk.move[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  insert into stellwerk.step (
    tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, port, attempt, failures, arrived,
    input, output, error, due_at, queued_at, started_at, ended_at)
  select p_tenant_id, m.run_id, m.step_id, m.node_id, m.scope_id, m.visit, m.version, m.type, m.runs_in, m.alone, m.state, m.port, m.attempt,
         m.failures, m.arrived, m.input, m.output, m.error, m.due_at, m.queued_at, v_now, case when m.state <> 'queued' then v_now end
    from unnest(p_moves) m
   where not m.stored;
  if exists (select 1 from unnest(p_moves) m where m.stored) then
    update stellwerk.step s
       set state = m.state, port = m.port, attempt = m.attempt, failures = m.failures, arrived = m.arrived,
           input = coalesce(m.input, s.input), output = m.output, error = m.error, due_at = m.due_at, lease_until = null, timeout_at = null,
           started_at = coalesce(s.started_at, v_now), ended_at = case when m.state <> 'queued' then v_now end
      from unnest(p_moves) m
     where m.stored and s.tenant_id = p_tenant_id and s.run_id = m.run_id and s.step_id = m.step_id;
  end if;
end
$$;
comment on function stellwerk.write_moves(bigint, stellwerk.move[]) is 'Writes steps that have just been run: new rows in one insert, stored ones in one update.';

create or replace function stellwerk.rest_tokens(p_tenant_id bigint, p_tokens stellwerk.token[], p_state text, p_job_ids bigint[] default null)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.step (
    tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, arrived, job_id, queued_at)
  select p_tenant_id, t.run_id, t.step_id, t.node_id, t.scope_id, t.visit, t.version, t.type, t.runs_in, t.alone, p_state, t.arrived,
         p_job_ids[t.ordinality], t.queued_at
    from unnest(p_tokens) with ordinality t (run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt,
                                             failures, arrived, queued_at, type, runs_in, alone, joins, ordinality)
   where not t.stored;
  update stellwerk.step s
     set state = p_state, arrived = t.arrived, job_id = coalesce(p_job_ids[t.ordinality], s.job_id)
    from unnest(p_tokens) with ordinality t (run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt,
                                             failures, arrived, queued_at, type, runs_in, alone, joins, ordinality)
   where t.stored and s.tenant_id = p_tenant_id and s.run_id = t.run_id and s.step_id = t.step_id
     and (s.state, s.arrived) is distinct from (p_state, t.arrived);
end
$$;
comment on function stellwerk.rest_tokens(bigint, stellwerk.token[], text, bigint[]) is 'Stores tokens that come to rest on their nodes: queued (with their queue rows), or joining.';

create or replace function stellwerk.take_steps(
  p_tenant_id bigint, p_worker_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_inputs jsonb[], p_timeouts interval[], p_lease interval)
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  update stellwerk.step s
     set state = 'running', attempt = s.attempt + 1, worker_id = p_worker_id, input = coalesce(x.input, s.input), due_at = null,
         started_at = v_now, lease_until = v_now + p_lease, timeout_at = v_now + x.timeout
    from unnest(p_run_ids, p_step_ids, p_inputs, p_timeouts) x (run_id, step_id, input, timeout)
   where s.tenant_id = p_tenant_id and s.run_id = x.run_id and s.step_id = x.step_id;
end
$$;
comment on function stellwerk.take_steps(bigint, bigint, bigint[], bigint[], jsonb[], interval[], interval) is 'Queued steps become a worker''s: the attempt is counted now, so that a crash counts.';

create or replace function stellwerk.free_steps(p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_job_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.step s
     set state = 'queued', job_id = x.job_id, lease_until = null, timeout_at = null
    from unnest(p_run_ids, p_step_ids, p_job_ids) x (run_id, step_id, job_id)
   where s.tenant_id = p_tenant_id and s.run_id = x.run_id and s.step_id = x.step_id;
end
$$;
comment on function stellwerk.free_steps(bigint, bigint[], bigint[], bigint[]) is 'Running steps go back to the queue, under a new queue row each.';

-- What a run's state is follows from its live steps. Rows that would not change are not written.
create or replace function stellwerk.settle_runs(p_tenant_id bigint, p_run_ids bigint[], p_ended_runs bigint[], p_outputs jsonb[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
  v_ended bigint[];
begin
  with settled as (
    select r.run_id, l.state, e.run_id is not null as has_output, e.output
      from unnest(p_run_ids) r (run_id)
     cross join lateral (
       select case when count(*) = 0 then 'completed'
                   when bool_or(s.state in ('queued', 'running')) then 'running'
                   else 'waiting' end as state
         from stellwerk.step s
        where s.tenant_id = p_tenant_id and s.run_id = r.run_id and s.state in ('queued', 'running', 'waiting', 'joining')) l
      left join (
        -- The token that ended last wins; arrays are in order of time.
        select distinct on (x.run_id) x.run_id, x.output
          from unnest(p_ended_runs, p_outputs) with ordinality x (run_id, output, ordinality)
         order by x.run_id, x.ordinality desc) e on e.run_id = r.run_id
  ), written as (
    update stellwerk.run r
       set state = x.state,
           output = case when x.has_output then x.output else r.output end,
           started_at = coalesce(r.started_at, v_now),
           ended_at = case when x.state = 'completed' then v_now end
      from settled x
     where r.tenant_id = p_tenant_id and r.run_id = x.run_id and r.state in ('pending', 'running', 'waiting')
       and (r.state <> x.state or x.has_output)
    returning r.run_id, r.state
  )
  select array_agg(w.run_id) filter (where w.state = 'completed') into v_ended from written w;
  if v_ended is not null then
    delete from stellwerk.timer t where t.tenant_id = p_tenant_id and t.run_id = any (v_ended);
  end if;
end
$$;
comment on function stellwerk.settle_runs(bigint, bigint[], bigint[], jsonb[]) is 'Gives runs the state that follows from their live steps, and the output of the token that ended last; a run without a live step is completed.';

create or replace function stellwerk.end_runs(
  p_tenant_id bigint, p_run_ids bigint[], p_states text[], p_outputs jsonb[], p_errors jsonb[], p_reasons text[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  update stellwerk.run r
     set state = x.state, output = coalesce(x.output, r.output), error = x.error, reason = x.reason, held = false,
         started_at = case when x.state = 'cancelled' then r.started_at else coalesce(r.started_at, v_now) end, ended_at = v_now
    from unnest(p_run_ids, p_states, p_outputs, p_errors, p_reasons) x (run_id, state, output, error, reason)
   where r.tenant_id = p_tenant_id and r.run_id = x.run_id and r.state in ('pending', 'running', 'waiting', 'paused');
  update stellwerk.step s
     set state = 'cancelled', lease_until = null, timeout_at = null, due_at = null, ended_at = v_now,
         reason = case x.state when 'completed' then 'the run was stopped' when 'failed' then 'the run failed' else coalesce(x.reason, 'the run was cancelled') end
    from unnest(p_run_ids, p_states, p_reasons) x (run_id, state, reason)
   where s.tenant_id = p_tenant_id and s.run_id = x.run_id and s.state in ('queued', 'running', 'waiting', 'joining');
  delete from stellwerk.timer t where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids);
end
$$;
comment on function stellwerk.end_runs(bigint, bigint[], text[], jsonb[], jsonb[], text[]) is 'Ends runs as completed, failed or cancelled whatever still lives in them; live steps are cancelled, timers removed.';
