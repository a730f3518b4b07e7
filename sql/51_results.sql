-- Results that come from outside SQL: of worker steps, and whatever else ends a stored step. The fence that an attempt must
-- pass, the moves that they make of runs, and that none is lost when what follows it raises.

create or replace function stellwerk.complete_steps(
  p_worker_id bigint, p_tenant_id bigint, p_completions jsonb, p_types text[] default '{}', p_room integer default 0)
returns jsonb language plpgsql security definer  -- workers have no right to write the tables
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_turns jsonb := stellwerk.fair_turns(stellwerk.turns_for(jsonb_array_length(p_completions)), p_tenant_id);
  v_taker stellwerk.taker := row(p_worker_id, p_types, p_room - jsonb_array_length(v_turns));
  v_moves stellwerk.move[];
  v_late  jsonb;
begin
  -- The results must not be lost when what follows them raises: then the successors are only stored, and pump goes on one by one.
  begin
    v_moves := stellwerk.record_results(p_worker_id, p_tenant_id, p_completions, true, v_taker);
  exception when query_canceled or others then
    null;  -- told again, with its cause, when pump runs the step that raised
  end;
  if v_moves is null then
    v_moves := stellwerk.record_results(p_worker_id, p_tenant_id, p_completions, false, null);
  end if;
  if cardinality(v_moves) > 0 then
    perform stellwerk.tell_watchers();
  end if;
  if cardinality(v_moves) < jsonb_array_length(p_completions) then
    select jsonb_agg(jsonb_build_array(c.run, c.step)) into v_late
      from jsonb_to_recordset(p_completions) c (run bigint, step bigint)
     where not exists (select 1 from unnest(v_moves) m where m.run_id = c.run and m.step_id = c.step);
  end if;
  return jsonb_build_object('accepted', cardinality(v_moves), 'late', coalesce(v_late, '[]'), 'begun', stellwerk.take_begun(),
                            'ready', stellwerk.take_ready() || v_turns);
end
$$;
comment on function stellwerk.complete_steps(bigint, bigint, jsonb, text[], integer) is 'Hands in results: array of { run, step, attempt, port, output } or { run, step, attempt, error: { class, message, retryable, detail, retry_after } }. A result of an attempt that is not the running one changes nothing and is named in late. The worker takes up to so many of the steps that become ready, of these types. Answers { accepted, late, begun, ready }; ready as in pump, begun as in pump_and_begin.';

create or replace function stellwerk.record_results(
  p_worker_id bigint, p_tenant_id bigint, p_completions jsonb, p_execute boolean, p_taker stellwerk.taker)
returns stellwerk.move[] language plpgsql set search_path = '' as $$
declare
  v_given   record;
  v_run_ids bigint[];
  v_moves   stellwerk.move[];
begin
  select array_agg(c.run) as runs, array_agg(c.step) as steps, array_agg(c.attempt) as attempts, array_agg(coalesce(c.port, 'next')) as ports,
         array_agg(c.output) as outputs, array_agg(c.error) as errors
    into v_given
    -- A step that is named twice has one result.
    from (select distinct on (x.run, x.step) x.*
            from jsonb_to_recordset(p_completions) x (run bigint, step bigint, attempt integer, port text, output jsonb, error jsonb)
           order by x.run, x.step, x.attempt desc) c;
  v_run_ids := stellwerk.lock_runs(p_tenant_id, v_given.runs);
  -- The fence: only the attempt that runs now, and only its worker, may end it.
  v_moves := stellwerk.ended_moves(p_tenant_id, v_given.runs, v_given.steps, v_given.ports, v_given.outputs, v_given.errors, v_given.attempts, p_worker_id);
  if cardinality(v_moves) > 0 then
    perform stellwerk.move_runs(p_tenant_id, v_run_ids, v_moves, p_execute, p_taker);
  end if;
  return v_moves;
end
$$;
comment on function stellwerk.record_results(bigint, bigint, jsonb, boolean, stellwerk.taker) is 'complete_steps in one go: locks the runs, writes the results that count and moves their runs on; without p_execute the successors are only stored. Answers the moves.';

create or replace function stellwerk.ended_moves(
  p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_ports text[], p_outputs jsonb[], p_errors jsonb[],
  p_attempts integer[] default null, p_worker_id bigint default null, p_state text default null)
returns stellwerk.move[] language plpgsql stable set search_path = '' as $$
declare
  v_moves stellwerk.move[];
begin
  select array_agg(row(
           t.run_id, t.step_id, true, t.workflow_id, t.version, t.trigger_node, t.node_id, t.scope_id, t.visit, t.attempt, t.failures, t.arrived,
           t.queued_at, t.type, t.runs_in, t.alone, case when x.error is null then 'completed' else 'failed' end,
           case when x.error is null then x.port end, null, x.output,
           x.error || jsonb_build_object('node', t.node_id, 'attempt', t.attempt), null, n.edges, t.recount, t.ending, n.compensate)::stellwerk.move
         order by t.run_id, t.step_id)
    into v_moves
    from unnest(stellwerk.tokens_of(p_tenant_id, p_run_ids, p_step_ids, case when p_worker_id is not null then 'running' else p_state end, p_attempts, p_worker_id)) t
    join unnest(p_step_ids, p_ports, p_outputs, p_errors) x (step_id, port, output, error) on x.step_id = t.step_id
   cross join lateral (
     select o.edges, o.compensate from stellwerk.plan_node o
      where o.tenant_id = p_tenant_id and o.workflow_id = t.workflow_id and o.version = t.version and o.node_id = t.node_id offset 0) n;
  return coalesce(v_moves, '{}');
end
$$;
comment on function stellwerk.ended_moves(bigint, bigint[], bigint[], text[], jsonb[], jsonb[], integer[], bigint, text) is 'Moves for stored steps that have ended elsewhere, with their ports and outputs, or errors; with a worker, only for attempts that it is running; with a state, only for steps in it.';

-- In a paused run the successors of results are only stored, and freeze with it.
create or replace function stellwerk.move_runs(
  p_tenant_id bigint, p_run_ids bigint[], p_moves stellwerk.move[], p_execute boolean, p_taker stellwerk.taker default null)
returns void language plpgsql set search_path = '' as $$
declare
  v_paused bigint[];
  v_runs   bigint[] := p_run_ids;
  v_moves  stellwerk.move[] := p_moves;
begin
  select array_agg(r.run_id) into v_paused
    from unnest(p_run_ids) x (run_id)
   cross join lateral (select o.run_id, o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
   where r.state = 'paused';
  if v_paused is not null then
    perform stellwerk.advance_runs(p_tenant_id, v_paused, array(select m from unnest(p_moves) m where m.run_id = any (v_paused)), p_execute => false);
    perform stellwerk.freeze_steps(p_tenant_id, v_paused);
    v_runs := array(select u.run_id from unnest(p_run_ids) u (run_id) where u.run_id <> all (v_paused));
    v_moves := array(select m from unnest(p_moves) m where m.run_id <> all (v_paused));
  end if;
  if cardinality(v_moves) > 0 then
    perform stellwerk.advance_runs(p_tenant_id, v_runs, v_moves, p_execute => p_execute, p_taker => p_taker);
  end if;
end
$$;
comment on function stellwerk.move_runs(bigint, bigint[], stellwerk.move[], boolean, stellwerk.taker) is 'Writes moves made outside SQL and moves their locked runs on; without p_execute successors are only stored.';

create or replace function stellwerk.apply_moves(p_tenant_id bigint, p_run_ids bigint[], p_moves stellwerk.move[])
returns void language plpgsql set search_path = '' as $$
begin
  begin
    perform stellwerk.move_runs(p_tenant_id, p_run_ids, p_moves, true);
    return;
  exception when query_canceled or others then
    null;  -- told again, with its cause, when pump runs the step that raised
  end;
  perform stellwerk.move_runs(p_tenant_id, p_run_ids, p_moves, false);
end
$$;
comment on function stellwerk.apply_moves(bigint, bigint[], stellwerk.move[]) is 'move_runs, so that no result is lost when what follows it raises: then the successors are only stored, and pump goes on one by one.';

create or replace function stellwerk.fail_step(p_tenant_id bigint, p_run_id bigint, p_step_id bigint, p_error jsonb)
returns void language plpgsql set search_path = '' as $$
begin
  perform stellwerk.apply_moves(p_tenant_id, array[p_run_id],
                                stellwerk.ended_moves(p_tenant_id, array[p_run_id], array[p_step_id], array[null], array[null::jsonb], array[p_error]));
end
$$;
comment on function stellwerk.fail_step(bigint, bigint, bigint, jsonb) is 'Ends the present attempt of a live step with an error; the run must be locked.';
