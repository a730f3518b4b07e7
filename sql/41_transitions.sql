-- The only writer of run.state and step.state. Every function here expects its run rows to be locked by the caller,
-- in ascending order: run first, then step, then timer. Nothing here decides; it writes what was decided.

--
-- Rows are found by their whole primary key, and stored steps are written by "on conflict": the planner is given no choice
-- that could be wrong while the tables are empty and cached plans are made. In particular a look-up by key never names a
-- state beside it (that is tested outside, after "offset 0"): a partial index would seem cheaper, and reads all of its rows.

create or replace function stellwerk.write_moves(p_tenant_id bigint, p_moves stellwerk.move[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  -- A new step is not looked for first: that costs a third of its insert, and most steps are new.
  insert into stellwerk.step (
    tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, port, attempt, failures, arrived,
    input, output, error, due_at, queued_at, started_at, ended_at, undo, was)
  select p_tenant_id, m.run_id, m.step_id, m.node_id, m.scope_id, m.visit, m.version, m.type,
         case m.state when 'waiting' then 'wait' else m.runs_in end, m.alone, m.state, m.port, m.attempt, m.failures, m.arrived,
         m.input, m.output, m.error, m.due_at, m.queued_at, v_now, case when m.state not in ('queued', 'waiting') then v_now end,
         case m.state when 'completed' then m.undo end,
         -- From here retry_run goes on.
         case when m.state = 'failed' and m.port is null or m.type = 'logic.stop' and m.input ->> 'outcome' = 'failed' then 'failed' end
    from unnest(p_moves) m where not m.stored;
  if exists (select from unnest(p_moves) m where m.stored) then
    insert into stellwerk.step (
      tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, port, attempt, failures, arrived,
      input, output, error, due_at, queued_at, started_at, ended_at, undo, was)
    select p_tenant_id, m.run_id, m.step_id, m.node_id, m.scope_id, m.visit, m.version, m.type,
           case m.state when 'waiting' then 'wait' else m.runs_in end, m.alone, m.state, m.port, m.attempt, m.failures, m.arrived,
           m.input, m.output, m.error, m.due_at, m.queued_at, v_now, case when m.state not in ('queued', 'waiting') then v_now end,
           case m.state when 'completed' then m.undo end,
           case when m.state = 'failed' and m.port is null or m.type = 'logic.stop' and m.input ->> 'outcome' = 'failed' then 'failed' end
      from unnest(p_moves) m where m.stored
    on conflict (tenant_id, run_id, step_id) do update
       set runs_in = excluded.runs_in, was = excluded.was, undo = case when step.undoes is null then excluded.undo end, state = excluded.state, port = excluded.port, attempt = excluded.attempt, failures = excluded.failures, arrived = excluded.arrived,
           input = coalesce(excluded.input, step.input), output = excluded.output, error = excluded.error, due_at = excluded.due_at,
           lease_until = null, timeout_at = null, started_at = coalesce(step.started_at, excluded.started_at), ended_at = excluded.ended_at;
  end if;
end
$$;
comment on function stellwerk.write_moves(bigint, stellwerk.move[]) is 'Writes steps that have just been run, new and stored ones.';

create or replace function stellwerk.rest_tokens(p_tenant_id bigint, p_tokens stellwerk.token[], p_state text, p_job_ids bigint[] default null)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.step (
    tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, arrived, job_id, queued_at)
  select p_tenant_id, t.run_id, t.step_id, t.node_id, t.scope_id, t.visit, t.version, t.type, t.runs_in, t.alone, p_state, t.arrived,
         p_job_ids[t.ordinality], t.queued_at
    from unnest(p_tokens) with ordinality t (run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt,
                                             failures, arrived, queued_at, type, runs_in, alone, joins, recount, ending, ordinality)
  on conflict (tenant_id, run_id, step_id) do update
     set state = excluded.state, arrived = excluded.arrived, job_id = excluded.job_id
   where (step.state, step.arrived, step.job_id) is distinct from (excluded.state, excluded.arrived, excluded.job_id);
end
$$;
comment on function stellwerk.rest_tokens(bigint, stellwerk.token[], text, bigint[]) is 'Stores tokens that come to rest on their nodes: queued (with their queue rows), or joining.';

create or replace function stellwerk.take_steps(
  p_tenant_id bigint, p_worker_id bigint, p_tokens stellwerk.token[], p_inputs jsonb[], p_timeouts interval[])
returns void language plpgsql set search_path = '' as $$
declare
  c_lease constant interval := interval '15 seconds';
  v_now timestamptz := stellwerk.clock();
begin
  insert into stellwerk.step (
    tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, state, attempt, arrived, worker_id, input, queued_at, started_at,
    lease_until, timeout_at)
  select p_tenant_id, t.run_id, t.step_id, t.node_id, t.scope_id, t.visit, t.version, t.type, t.runs_in, 'running', t.attempt + 1, t.arrived, p_worker_id,
         p_inputs[t.ordinality], t.queued_at, v_now, v_now + c_lease, v_now + p_timeouts[t.ordinality]
    from unnest(p_tokens) with ordinality t (run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt,
                                             failures, arrived, queued_at, type, runs_in, alone, joins, recount, ending, ordinality)
   where not t.stored;
  if exists (select from unnest(p_tokens) t where t.stored) then
    insert into stellwerk.step (
      tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, state, attempt, arrived, worker_id, input, queued_at, started_at,
      lease_until, timeout_at)
    select p_tenant_id, t.run_id, t.step_id, t.node_id, t.scope_id, t.visit, t.version, t.type, t.runs_in, 'running', t.attempt + 1, t.arrived, p_worker_id,
           p_inputs[t.ordinality], t.queued_at, v_now, v_now + c_lease, v_now + p_timeouts[t.ordinality]
      from unnest(p_tokens) with ordinality t (run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt,
                                               failures, arrived, queued_at, type, runs_in, alone, joins, recount, ending, ordinality)
     where t.stored
    on conflict (tenant_id, run_id, step_id) do update
       set state = excluded.state, attempt = excluded.attempt, arrived = excluded.arrived, worker_id = excluded.worker_id, input = excluded.input,
           due_at = null, started_at = excluded.started_at, lease_until = excluded.lease_until, timeout_at = excluded.timeout_at;
  end if;
end
$$;
comment on function stellwerk.take_steps(bigint, bigint, stellwerk.token[], jsonb[], interval[]) is 'Steps that are queued, or not yet stored, become a worker''s for 15 seconds: the attempt is counted now, so that a crash counts.';

create or replace function stellwerk.free_step(p_tenant_id bigint, p_run_id bigint, p_step_id bigint, p_job_id bigint)
returns void language sql volatile set search_path = '' as $$
  update stellwerk.step s set state = 'queued', job_id = p_job_id, lease_until = null, timeout_at = null
   where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id = p_step_id
$$;
comment on function stellwerk.free_step(bigint, bigint, bigint, bigint) is 'A running step goes back to the queue, under a new queue row.';

-- What a run's state is follows from its live steps. Rows that would not change are not written.
create or replace function stellwerk.settle_runs(p_tenant_id bigint, p_run_ids bigint[], p_ended_runs bigint[], p_outputs jsonb[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now      timestamptz := stellwerk.clock();
  v_run_ids  bigint[];
  v_states   text[];
  v_ended    bigint[];
  v_children bigint[];
begin
  select array_agg(r.run_id), array_agg(l.state), array_agg(r.run_id) filter (where l.state = 'completed'),
         array_agg(r.run_id) filter (where l.state = 'completed' and o.parent_run_id is not null)
    into v_run_ids, v_states, v_ended, v_children
    from unnest(p_run_ids) r (run_id)
   cross join lateral (
     select o.state, o.parent_run_id from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = r.run_id offset 0) o
   cross join lateral (
     select case when o.state = 'paused' then 'paused'
                 when count(*) = 0 then 'completed'
                 when bool_or(s.state in ('queued', 'running')) then 'running'
                 else 'waiting' end as state
       from stellwerk.step s
      where s.tenant_id = p_tenant_id and s.run_id = r.run_id and s.state in ('queued', 'running', 'waiting', 'joining')) l
   where o.state in ('pending', 'running', 'waiting', 'paused') and (o.state <> l.state or r.run_id = any (p_ended_runs));
  if v_run_ids is null then
    return;
  end if;
  if cardinality(p_run_ids) = 1 then
    update stellwerk.run r
       set state = v_states[1],
           output = case when cardinality(p_ended_runs) > 0 then p_outputs[cardinality(p_outputs)] else r.output end,
           started_at = coalesce(r.started_at, v_now), ended_at = case when v_states[1] = 'completed' then v_now end
     where r.tenant_id = p_tenant_id and r.run_id = v_run_ids[1];
  else
    perform stellwerk.write_run_states(p_tenant_id, v_run_ids, v_states, p_ended_runs, p_outputs);
  end if;
  if v_ended is not null then
    perform stellwerk.drop_timers(p_tenant_id, v_ended);
    perform stellwerk.leave_gates(p_tenant_id, v_ended);
  end if;
  if v_children is not null then
    perform stellwerk.tell_parents(p_tenant_id, v_children);
  end if;
end
$$;
comment on function stellwerk.settle_runs(bigint, bigint[], bigint[], jsonb[]) is 'Gives runs the state that follows from their live steps, and the output of the token that ended last; a run without a live step is completed.';

create or replace function stellwerk.write_run_states(p_tenant_id bigint, p_run_ids bigint[], p_states text[], p_ended_runs bigint[], p_outputs jsonb[])
returns void language plpgsql
-- While the table has no statistics a nested loop would compare each run with each other.
set search_path = '' set enable_nestloop = off as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  update stellwerk.run r
     set state = x.state, output = case when x.has_output then x.output else r.output end,
         started_at = coalesce(r.started_at, v_now), ended_at = case when x.state = 'completed' then v_now end
    from (select u.run_id, u.state, e.run_id is not null as has_output, e.output
            from unnest(p_run_ids, p_states) u (run_id, state)
            left join (
              -- The token that ended last wins; arrays are in order of time.
              select distinct on (o.run_id) o.run_id, o.output
                from unnest(p_ended_runs, p_outputs) with ordinality o (run_id, output, ordinality)
               order by o.run_id, o.ordinality desc) e on e.run_id = u.run_id) x
   where r.tenant_id = p_tenant_id and r.run_id = any (p_run_ids) and r.run_id = x.run_id;
end
$$;
comment on function stellwerk.write_run_states(bigint, bigint[], text[], bigint[], jsonb[]) is 'Writes the states of many runs, and the output of those in which a token has ended.';

create or replace function stellwerk.drop_timers(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  v_timer_ids bigint[];
begin
  select array_agg(t.timer_id) into v_timer_ids
    from unnest(p_run_ids) x (run_id)
   cross join lateral (select t.timer_id from stellwerk.timer t where t.tenant_id = p_tenant_id and t.run_id = x.run_id offset 0) t;
  if v_timer_ids is not null then
    delete from stellwerk.timer t where t.tenant_id = p_tenant_id and t.timer_id = any (v_timer_ids);
  end if;
end
$$;
comment on function stellwerk.drop_timers(bigint, bigint[]) is 'Removes what was still to come for runs that have ended.';

create or replace function stellwerk.end_run(p_tenant_id bigint, p_run_id bigint, p_state text, p_output jsonb, p_error jsonb, p_reason text)
returns void language plpgsql set search_path = '' as $$
begin
  perform stellwerk.end_runs(p_tenant_id, array[p_run_id], array[p_state], array[p_output], array[p_error], array[p_reason]);
end
$$;
comment on function stellwerk.end_run(bigint, bigint, text, jsonb, jsonb, text) is 'end_runs for one run.';

-- "between" names the partition, which an array alone does not.
create or replace function stellwerk.end_runs(
  p_tenant_id bigint, p_run_ids bigint[], p_states text[], p_outputs jsonb[], p_errors jsonb[], p_reasons text[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_first bigint := p_run_ids[1];
  v_last  bigint := p_run_ids[cardinality(p_run_ids)];
begin
  update stellwerk.run r
     set held = false, ended_at = v_now,
         (state, output, error, reason, started_at) = (
           select u.state, case u.state when 'completed' then u.output else coalesce(u.output, r.output) end, u.error, u.reason,
                  case u.state when 'cancelled' then r.started_at else coalesce(r.started_at, v_now) end
             from unnest(p_run_ids, p_states, p_outputs, p_errors, p_reasons) u (run_id, state, output, error, reason)
            where u.run_id = r.run_id)
   where r.tenant_id = p_tenant_id and r.run_id between v_first and v_last and r.run_id = any (p_run_ids)
     and r.state in ('pending', 'running', 'waiting', 'paused');
  update stellwerk.step s
     set state = 'cancelled', lease_until = null, timeout_at = null, due_at = null, ended_at = v_now,
         (was, reason) = (
           select case when u.state <> 'completed' and s.undoes is null then s.state end,
                  case u.state when 'completed' then 'the run was stopped' when 'failed' then 'the run failed'
                               else coalesce(u.reason, 'the run was cancelled') end
             from unnest(p_run_ids, p_states, p_reasons) u (run_id, state, reason)
            where u.run_id = s.run_id)
   where s.tenant_id = p_tenant_id and s.run_id between v_first and v_last and s.run_id = any (p_run_ids)
     and s.state in ('queued', 'running', 'waiting', 'joining');
  perform stellwerk.drop_timers(p_tenant_id, p_run_ids);
  perform stellwerk.drop_waits(p_tenant_id, p_run_ids, null);
  perform stellwerk.leave_gates(p_tenant_id, p_run_ids);
  perform stellwerk.tell_parents(p_tenant_id, p_run_ids);
end
$$;
comment on function stellwerk.end_runs(bigint, bigint[], text[], jsonb[], jsonb[], text[]) is 'Ends runs, named once each and ascending, as completed, failed or cancelled whatever still lives in them; live steps are cancelled, timers and waits removed, children cancelled and parents told. Of outputs, errors and reasons null stands for none at all.';

create or replace function stellwerk.write_cancelled(p_tenant_id bigint, p_tokens stellwerk.token[], p_reason text, p_keep_state boolean)
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  insert into stellwerk.step (
    tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, arrived, reason, queued_at, ended_at, was)
  select p_tenant_id, t.run_id, t.step_id, t.node_id, t.scope_id, t.visit, t.version, t.type, t.runs_in, t.alone, 'cancelled', t.arrived, p_reason,
         t.queued_at, v_now, case when p_keep_state then t.rests end
    from (select u.*, case when u.joins then 'joining' else 'queued' end as rests from unnest(p_tokens) u) t
  on conflict (tenant_id, run_id, step_id) do update set arrived = excluded.arrived;
end
$$;
comment on function stellwerk.write_cancelled(bigint, stellwerk.token[], text, boolean) is 'Keeps tokens that were cancelled before they came to rest, and what had arrived at stored ones. With p_keep_state retry_run can put them back.';

create or replace function stellwerk.cancel_steps(p_tenant_id bigint, p_run_id bigint, p_step_ids bigint[], p_reason text, p_keep_state boolean)
returns bigint[] language plpgsql set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_loops bigint[];
begin
  if coalesce(cardinality(p_step_ids), 0) = 0 then
    return '{}'::bigint[];
  end if;
  v_loops := array(
    select c.scope_id
      from unnest(p_step_ids) x (step_id)
     cross join lateral (
       select s.type, s.scope_id from stellwerk.step s where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id = x.step_id offset 0) s
     cross join lateral (
       select o.scope_id from stellwerk.scope o
        where o.tenant_id = p_tenant_id and o.run_id = p_run_id and o.parent_scope_id = s.scope_id and o.state = 'running' and o.loop_step_id = x.step_id) c
     where s.type = 'logic.loop');
  update stellwerk.step s
     set state = 'cancelled', lease_until = null, timeout_at = null, due_at = null, ended_at = v_now, reason = p_reason,
         was = case when p_keep_state then s.state end
   where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id = any (p_step_ids);
  delete from stellwerk.timer t where t.tenant_id = p_tenant_id and t.run_id = p_run_id and t.step_id = any (p_step_ids);
  perform stellwerk.drop_waits(p_tenant_id, array[p_run_id], p_step_ids);
  return case when cardinality(v_loops) > 0 then stellwerk.cancel_scopes(p_tenant_id, p_run_id, v_loops, p_reason, p_keep_state) else '{}' end;
end
$$;
comment on function stellwerk.cancel_steps(bigint, bigint, bigint[], text, boolean) is 'Cancels live steps of a run with what they wait for and the iterations below them; answers the scopes of these. With p_keep_state retry_run can put them back.';

create or replace function stellwerk.cancel_scopes(p_tenant_id bigint, p_run_id bigint, p_scope_ids bigint[], p_reason text, p_keep_state boolean)
returns bigint[] language plpgsql set search_path = '' as $$
begin
  update stellwerk.scope o set state = 'cancelled'
   where o.tenant_id = p_tenant_id and o.run_id = p_run_id and o.scope_id = any (p_scope_ids) and o.state = 'running';
  -- Loops within are live steps of these scopes, so theirs follow.
  return p_scope_ids || stellwerk.cancel_steps(p_tenant_id, p_run_id, array(
    select s.step_id from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.scope_id = any (p_scope_ids)
       and s.state in ('queued', 'running', 'waiting', 'joining')), p_reason, p_keep_state);
end
$$;
comment on function stellwerk.cancel_scopes(bigint, bigint, bigint[], text, boolean) is 'Cancels iterations with everything below them; answers all scopes that are over by it.';

-- Locks run rows in ascending order: whoever needs several asks for all of them here, in one statement.
create or replace function stellwerk.lock_runs(p_tenant_id bigint, p_run_ids bigint[])
returns bigint[] language plpgsql set search_path = '' as $$
declare
  v_run_ids bigint[];
begin
  if cardinality(p_run_ids) = 1 then
    perform from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_run_ids[1] for no key update;
    return case when found then p_run_ids else '{}' end;
  end if;
  select array_agg(l.run_id) into v_run_ids
    from (select distinct u.run_id from unnest(p_run_ids) u (run_id) order by u.run_id) x
   cross join lateral (
     select r.run_id from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = x.run_id for no key update) l;
  return coalesce(v_run_ids, '{}');
end
$$;
comment on function stellwerk.lock_runs(bigint, bigint[]) is 'Locks runs against every other move, ascending by id, and answers those that exist.';

create or replace function stellwerk.lock_free_runs(p_tenant_id bigint, p_run_ids bigint[])
returns bigint[] language plpgsql set search_path = '' as $$
declare
  v_run_ids bigint[];
begin
  select array_agg(l.run_id) into v_run_ids
    from (select distinct u.run_id from unnest(p_run_ids) u (run_id) order by u.run_id) x
   cross join lateral (
     select r.run_id from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = x.run_id for no key update skip locked) l;
  return coalesce(v_run_ids, '{}');
end
$$;
comment on function stellwerk.lock_free_runs(bigint, bigint[]) is 'As lock_runs, passing over those that somebody else holds: never waits.';

create or replace function stellwerk.mark_ending(
  p_tenant_id bigint, p_run_id bigint, p_state text, p_output jsonb, p_error jsonb, p_reason text)
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  update stellwerk.run r
     set ending = p_state, state = 'running', output = coalesce(p_output, r.output), error = p_error, reason = p_reason, held = false,
         started_at = coalesce(r.started_at, v_now)
   where r.tenant_id = p_tenant_id and r.run_id = p_run_id;
end
$$;
comment on function stellwerk.mark_ending(bigint, bigint, text, jsonb, jsonb, text) is 'Notes how a run will end when its completed steps have been compensated.';

create or replace function stellwerk.write_undo(p_tenant_id bigint, p_token stellwerk.token, p_undoes bigint)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.step (tenant_id, run_id, step_id, node_id, scope_id, visit, version, type, runs_in, alone, state, undoes, queued_at)
  values (p_tenant_id, p_token.run_id, p_token.step_id, p_token.node_id, p_token.scope_id, p_token.visit, p_token.version, p_token.type,
          p_token.runs_in, p_token.alone, 'queued', p_undoes, p_token.queued_at);
  update stellwerk.step s set undo = null where s.tenant_id = p_tenant_id and s.run_id = p_token.run_id and s.step_id = p_undoes;
end
$$;
comment on function stellwerk.write_undo(bigint, stellwerk.token, bigint) is 'Stores a step that compensates another, which is thereby taken care of.';

-- Pausing: timers keep the time they still had; SQL steps that could run are never due, so that nobody looks at them.
create or replace function stellwerk.freeze_runs(p_tenant_id bigint, p_run_ids bigint[], p_by text)
returns void language plpgsql set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  update stellwerk.run r set state = 'paused', paused_at = v_now, paused_by = p_by
   where r.tenant_id = p_tenant_id and r.run_id = any (p_run_ids) and r.state in ('pending', 'running', 'waiting');
  update stellwerk.timer t set remaining = greatest(t.due_at - v_now, interval '0'), due_at = stellwerk.never()
   where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids) and t.remaining is null;
  perform stellwerk.freeze_steps(p_tenant_id, p_run_ids);
end
$$;
comment on function stellwerk.freeze_runs(bigint, bigint[], text) is 'Pauses runs with their timers and steps.';

create or replace function stellwerk.freeze_steps(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.step s set due_at = stellwerk.never()
   where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids) and s.state = 'queued' and s.runs_in = 'sql' and s.due_at is null;
  update stellwerk.timer t set remaining = greatest(t.due_at - stellwerk.clock(), interval '0'), due_at = stellwerk.never()
   where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids) and t.remaining is null;
end
$$;
comment on function stellwerk.freeze_steps(bigint, bigint[]) is 'Keeps what has become ready or was timed in a paused run from being taken.';

create or replace function stellwerk.thaw_runs(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_runs  bigint[];
  v_steps bigint[];
  v_types text[];
  v_due   timestamptz[];
begin
  perform stellwerk.shift_tasks(p_tenant_id, p_run_ids);
  update stellwerk.run r
     set state = case when r.started_at is null then 'pending' else 'running' end, paused_at = null, paused_by = null
   where r.tenant_id = p_tenant_id and r.run_id = any (p_run_ids) and r.state = 'paused';
  if not found then
    return;
  end if;
  insert into stellwerk.timer_change (tenant_id, slug, column_name, row_key)
  select t.tenant_id, t.slug, t.column_name, t.row_key from stellwerk.row_timer t where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids);
  update stellwerk.timer t set due_at = v_now + t.remaining, remaining = null
   where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids) and t.remaining is not null;
  update stellwerk.step s set due_at = null
   where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids) and s.state = 'queued' and s.runs_in = 'sql' and s.due_at = stellwerk.never();
  -- Their queue rows may have come up meanwhile.
  select array_agg(s.run_id), array_agg(s.step_id), array_agg(s.type), array_agg(s.due_at) into v_runs, v_steps, v_types, v_due
    from stellwerk.step s
   where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids) and s.state = 'queued' and s.runs_in = 'worker';
  if v_steps is not null then
    perform stellwerk.enqueue_again(p_tenant_id, v_runs, v_steps, v_types, v_due);
  end if;
  perform stellwerk.settle_runs(p_tenant_id, array(
    select r.run_id from unnest(p_run_ids) x (run_id)
     cross join lateral (select o.run_id, o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
     where r.state = 'running'), '{}', '{}');
end
$$;
comment on function stellwerk.thaw_runs(bigint, bigint[]) is 'Paused runs go on from their live steps; one without any has ended meanwhile.';

create or replace function stellwerk.reopen_steps(p_tenant_id bigint, p_run stellwerk.run, p_version integer, p_step_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_runs  bigint[];
  v_steps bigint[];
  v_types text[];
begin
  update stellwerk.run r
     set state = case when p_run.started_at is null then 'pending' else 'running' end, ended_at = null, error = null, reason = null, ending = null,
         deaths = 0, version = p_version, recount = r.recount or p_version <> r.version or cardinality(p_step_ids) = 0
   where r.tenant_id = p_tenant_id and r.run_id = p_run.run_id;
  perform stellwerk.return_to_gate(p_tenant_id, p_run, p_version);
  insert into stellwerk.step_attempt (tenant_id, run_id, step_id, attempt, outcome, error, worker_id, started_at, ended_at)
  select p_tenant_id, s.run_id, s.step_id, s.attempt, 'failed', s.error, s.worker_id, s.started_at, s.ended_at
    from stellwerk.step s
   where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id and s.step_id = any (p_step_ids) and s.error is not null
  on conflict do nothing;
  update stellwerk.step s
     set state = case when s.was = 'joining' then 'joining'
                      -- A loop that could not begin, for its items were no list, has no iterations: it is run again.
                      when s.was in ('waiting', 'failed') and s.type = 'logic.loop' and exists (
                        select from stellwerk.loop l where l.tenant_id = p_tenant_id and l.run_id = p_run.run_id and l.step_id = s.step_id) then 'waiting'
                      else 'queued' end,
         runs_in = case when s.type <> 'logic.loop' and s.runs_in = 'wait' then 'sql' else s.runs_in end,
         version = p_version, was = null, port = null, failures = 0, output = null, error = null, reason = null, due_at = null, ended_at = null,
         queued_at = v_now
   where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id and s.step_id = any (p_step_ids);
  update stellwerk.step s set was = null where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id and s.was is not null;
  update stellwerk.scope o set state = 'running', output = null, error = null
   where o.tenant_id = p_tenant_id and o.run_id = p_run.run_id and o.scope_id in (
           select s.scope_id from unnest(p_step_ids) x (step_id)
            cross join lateral (select i.scope_id from stellwerk.step i
                                 where i.tenant_id = p_tenant_id and i.run_id = p_run.run_id and i.step_id = x.step_id offset 0) s
            where s.scope_id <> 0);
  if p_run.timeout is not null and p_run.started_at is not null then
    insert into stellwerk.timer (tenant_id, kind, run_id, due_at) values (p_tenant_id, 'run_timeout', p_run.run_id, v_now + p_run.timeout);
  end if;
  select array_agg(s.run_id), array_agg(s.step_id), array_agg(s.type) into v_runs, v_steps, v_types
    from stellwerk.step s
   where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id and s.step_id = any (p_step_ids) and s.state = 'queued' and s.runs_in = 'worker';
  if v_steps is not null then
    perform stellwerk.enqueue_again(p_tenant_id, v_runs, v_steps, v_types, array_fill(null::timestamptz, array[cardinality(v_steps)]));
  end if;
end
$$;
comment on function stellwerk.reopen_steps(bigint, stellwerk.run, integer, bigint[]) is 'A run that has ended, and the given steps of it, live again; waits begin anew, loops go on where they stood.';
