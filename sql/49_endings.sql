-- How runs end: failing, stopping, and compensating what was done before they do.

create or replace function stellwerk.finish_runs(
  p_tenant_id bigint, p_moves stellwerk.move[], out over bigint[], out tokens stellwerk.token[])
language plpgsql set search_path = '' as $$
declare
  v_end     record;
  v_stopped bigint[] := array[]::bigint[];
  v_outputs jsonb[] := array[]::jsonb[];
begin
  tokens := '{}';
  select array_agg(distinct m.run_id) into over
    from unnest(p_moves) m
   where (m.scope_id = 0 and m.state = 'failed' and m.port is null) or (m.type = 'logic.stop' and m.state = 'completed')
      or (m.ending and m.state <> 'queued');
  if over is null then
    over := '{}';
    return;
  end if;
  for v_end in
    select distinct on (m.run_id) m.run_id, m.ending,
           case when m.state = 'failed' or m.input ->> 'outcome' = 'failed' then 'failed' else 'completed' end as state,
           m.output, m.step_id, m.state = 'failed' and m.port is null as step_failed,
           case when m.state = 'failed' then m.error
                when m.input ->> 'outcome' = 'failed' then
                  jsonb_build_object('class', 'stopped', 'node', m.node_id, 'attempt', m.attempt, 'retryable', false,
                                     'message', coalesce(m.input ->> 'message', 'the workflow stopped the run as failed')) end as error
      from unnest(p_moves) m
     where (m.scope_id = 0 and m.state = 'failed' and m.port is null) or (m.type = 'logic.stop' and m.state = 'completed')
        or (m.ending and m.state <> 'queued')
     order by m.run_id, m.step_id
  loop
    if v_end.ending is not true and v_end.state = 'completed' then
      v_stopped := v_stopped || v_end.run_id;
      v_outputs := v_outputs || array[v_end.output];
      continue;
    end if;
    -- In the order of the runs, for in that order the runs that called them hear of it.
    perform stellwerk.stop_runs(p_tenant_id, v_stopped, v_outputs);
    v_stopped := array[]::bigint[];
    v_outputs := array[]::jsonb[];
    if v_end.ending then
      tokens := tokens || stellwerk.continue_ending(
        p_tenant_id, v_end.run_id, v_end.step_id, case when v_end.step_failed then v_end.error end);
    else
      tokens := tokens || stellwerk.begin_ending(p_tenant_id, v_end.run_id, 'failed', v_end.output, v_end.error, null);
    end if;
  end loop;
  perform stellwerk.stop_runs(p_tenant_id, v_stopped, v_outputs);
end
$$;
comment on function stellwerk.finish_runs(bigint, stellwerk.move[]) is 'Ends the runs in which a step of the outermost scope failed for good, or logic.stop was reached, and goes on with those that are being compensated. Answers these runs, whose tokens in memory are void, and tokens of steps that compensate.';

create or replace function stellwerk.stop_runs(p_tenant_id bigint, p_run_ids bigint[], p_outputs jsonb[])
returns void language plpgsql set search_path = '' as $$
begin
  if cardinality(p_run_ids) > 0 then
    perform stellwerk.end_runs(p_tenant_id, p_run_ids, array_fill('completed'::text, array[cardinality(p_run_ids)]), p_outputs, null, null);
  end if;
end
$$;
comment on function stellwerk.stop_runs(bigint, bigint[], jsonb[]) is 'Ends runs that have reached logic.stop as completed.';

create or replace function stellwerk.begin_ending(
  p_tenant_id bigint, p_run_id bigint, p_state text, p_output jsonb, p_error jsonb, p_reason text)
returns stellwerk.token[] language plpgsql set search_path = '' as $$
begin
  -- Something may have to be undone: a completed step, or one that a worker is carrying out now.
  if not exists (select from stellwerk.step s where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.undo is not null)
     and not exists (
       select from stellwerk.step s
        where s.tenant_id = p_tenant_id and s.run_id = p_run_id
          and s.state in ('queued', 'running', 'waiting', 'joining') and s.state = 'running'
          and exists (select from stellwerk.run r join stellwerk.plan_node n
                          on n.tenant_id = p_tenant_id and n.workflow_id = r.workflow_id and n.version = r.version and n.node_id = s.node_id
                       where r.tenant_id = p_tenant_id and r.run_id = p_run_id and n.compensate is not null)) then
    perform stellwerk.end_run(p_tenant_id, p_run_id, p_state, p_output, p_error, p_reason);
    return '{}'::stellwerk.token[];
  end if;
  perform stellwerk.mark_ending(p_tenant_id, p_run_id, p_state, p_output, p_error, p_reason);
  perform stellwerk.cancel_steps(p_tenant_id, p_run_id, array(
    select s.step_id from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = p_run_id
       and s.state in ('queued', 'running', 'waiting', 'joining') and s.state <> 'running'),
    case p_state when 'failed' then 'the run failed' else coalesce(p_reason, 'the run was cancelled') end, false);
  perform stellwerk.drop_timers(p_tenant_id, array[p_run_id]);
  return stellwerk.continue_ending(p_tenant_id, p_run_id, null, null);
end
$$;
comment on function stellwerk.begin_ending(bigint, bigint, text, jsonb, jsonb, text) is 'Ends a run as failed or cancelled; if completed steps name a compensate node, these come first and the run stays running with its ending noted. Attempts under way may end, and are compensated too. Answers the token of the first.';

create or replace function stellwerk.undoes_another(p_tenant_id bigint, p_move stellwerk.move)
returns boolean language sql stable set search_path = '' as $$
  select exists (select from stellwerk.step s
                  where s.tenant_id = p_tenant_id and s.run_id = p_move.run_id and s.step_id = p_move.step_id and s.undoes is not null)
$$;
comment on function stellwerk.undoes_another(bigint, stellwerk.move) is 'Whether a step compensates another.';

create or replace function stellwerk.continue_ending(p_tenant_id bigint, p_run_id bigint, p_step_id bigint, p_error jsonb)
returns stellwerk.token[] language plpgsql set search_path = '' as $$
declare
  v_run  stellwerk.run;
  v_undo stellwerk.step;
begin
  select * into v_run from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_run_id;
  if v_run.ending is null or v_run.ended_at is not null then
    return '{}'::stellwerk.token[];
  end if;
  -- A step that was under way may fail; a compensation that fails for good is the run's failure.
  if p_error is not null and exists (select from stellwerk.step s
       where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id = p_step_id and s.undoes is not null) then
    perform stellwerk.end_run(p_tenant_id, p_run_id, 'failed', null,
      coalesce(v_run.error, jsonb_build_object('class', 'cancelled', 'message', v_run.reason, 'retryable', false))
      || jsonb_build_object('compensation', p_error), v_run.reason);
    return '{}'::stellwerk.token[];
  end if;
  if exists (select from stellwerk.step s
              where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.undoes is not null
                and s.state in ('queued', 'running', 'waiting', 'joining')) then
    return '{}'::stellwerk.token[];
  end if;
  select * into v_undo from stellwerk.step s
   where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.undo is not null
   order by s.ended_at desc, s.step_id desc limit 1;
  if v_undo.step_id is not null then
    return array[stellwerk.insert_undo(p_tenant_id, v_run, v_undo)];
  end if;
  if not exists (select from stellwerk.step s
                  where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.state in ('queued', 'running', 'waiting', 'joining')) then
    perform stellwerk.end_run(p_tenant_id, p_run_id, v_run.ending, null, v_run.error, v_run.reason);
  end if;
  return '{}'::stellwerk.token[];
end
$$;
comment on function stellwerk.continue_ending(bigint, bigint, bigint, jsonb) is 'The next step of a run that is being compensated, the latest completed first; the end of the run when nothing is left. p_error is that of a step that has just failed.';

create or replace function stellwerk.insert_undo(p_tenant_id bigint, p_run stellwerk.run, p_step stellwerk.step)
returns stellwerk.token language plpgsql set search_path = '' as $$
declare
  v_token stellwerk.token;
begin
  v_token := (
    select row(p_run.run_id, nextval('stellwerk.step_id_seq'), true, p_run.workflow_id, p_run.version, p_run.trigger_node, n.node_id,
               p_step.scope_id, 0, 0, 0, null, stellwerk.clock(), n.type, n.runs_in, n.alone, false, true, true)::stellwerk.token
      from stellwerk.plan_node n
     where n.tenant_id = p_tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_run.version and n.node_id = p_step.undo);
  v_token := (stellwerk.count_visits(p_tenant_id, array[v_token], '{}'))[1];
  perform stellwerk.write_undo(p_tenant_id, v_token, p_step.step_id);
  return v_token;
end
$$;
comment on function stellwerk.insert_undo(bigint, stellwerk.run, stellwerk.step) is 'The token of the step that compensates another, stored.';

create or replace function stellwerk.fail_run(p_tenant_id bigint, p_run_id bigint, p_state text, p_error jsonb, p_reason text)
returns void language plpgsql set search_path = '' as $$
declare
  v_tokens stellwerk.token[] := stellwerk.begin_ending(p_tenant_id, p_run_id, p_state, null, p_error, p_reason);
begin
  if cardinality(v_tokens) > 0 then
    perform stellwerk.rest_queued(p_tenant_id, v_tokens);
  end if;
end
$$;
comment on function stellwerk.fail_run(bigint, bigint, text, jsonb, text) is 'Ends a locked run as failed or cancelled from outside the waves, compensating first; nodes are only queued.';
