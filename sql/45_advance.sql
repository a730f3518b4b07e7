-- Moving runs on. advance_runs takes a set of runs whose rows are locked and moves their tokens in waves: run the nodes of
-- all tokens at once, write their steps once, follow the edges, until every token has come to rest (on a worker node, on
-- one that must run alone, waiting for others) or has ended. A run row is written once, at the end.

create or replace function stellwerk.advance_runs(
  p_tenant_id bigint, p_run_ids bigint[], p_moves stellwerk.move[] default '{}', p_execute boolean default true, p_fresh boolean default false,
  p_taker stellwerk.taker default null)
returns integer language plpgsql
-- Planning anew would cost more than running, and plans are made while the tables are empty: they must not scan them for ever.
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  c_max_waves constant integer := 200;  -- then the tokens rest and the next call goes on, so that no call runs for ever
  v_wave       stellwerk.token[] := '{}'::stellwerk.token[];  -- run now
  v_later      stellwerk.token[] := '{}'::stellwerk.token[];  -- run in the next wave
  v_joining    stellwerk.token[] := '{}'::stellwerk.token[];  -- wait where ways meet
  v_resting    stellwerk.token[] := '{}'::stellwerk.token[];  -- to be stored: worker nodes, nodes that run alone
  v_next       stellwerk.token[] := '{}'::stellwerk.token[];  -- have just set out
  v_moves      stellwerk.move[] := p_moves;
  v_ended_runs bigint[] := '{}'::bigint[];           -- tokens that ended in the outermost scope, in order of time …
  v_outputs    jsonb[] := '{}'::jsonb[];            -- … and what they came to
  v_facts      record;
  v_finish     record;
  v_release    record;
  v_closing    boolean;                    -- a token has ended within a loop
  v_closed     record;
  v_steps      integer := 0;
  v_waves      integer := 0;
begin
  if not p_fresh then
    v_joining := stellwerk.stored_tokens(p_tenant_id, p_run_ids, 'joining');
  end if;
  if cardinality(p_moves) = 0 then
    v_wave := stellwerk.first_tokens(p_tenant_id, p_run_ids);
    if not p_fresh then
      v_wave := v_wave || stellwerk.stored_tokens(p_tenant_id, p_run_ids, 'queued');
    end if;
  end if;
  loop
    if p_execute and cardinality(v_wave) > 0 and v_waves < c_max_waves then
      if cardinality(v_wave) > 1 then
        select w.now, w.later into v_wave, v_later from stellwerk.one_writer_per_run(v_wave) w;
      end if;
      v_moves := v_moves || stellwerk.run_wave(p_tenant_id, v_wave);
      v_steps := v_steps + cardinality(v_wave);
      v_wave := '{}';
    end if;
    v_closing := false;
    if cardinality(v_moves) > 0 then
      if exists (select 1 from unnest(v_moves) m where m.state in ('failed', 'queued')) then
        v_moves := stellwerk.settle_errors(p_tenant_id, v_moves);
      end if;
      perform stellwerk.write_moves(p_tenant_id, v_moves);
      -- A token has ended where no edge follows.
      select bool_or(m.type = 'logic.set') as sets,
             bool_or(m.type = 'logic.stop' or m.state = 'failed' and m.port is null or m.ending) as may_end,
             bool_or(m.edges -> m.port <> '[]') as goes_on,
             bool_or(m.type = 'logic.loop' and m.state = 'waiting') as loops,
             array_agg(m.run_id) filter (where m.scope_id = 0 and x.ended and m.state <> 'cancelled' and not m.ending) as ended_runs,
             array_agg(m.output) filter (where m.scope_id = 0 and x.ended and m.state <> 'cancelled' and not m.ending) as outputs,
             array_agg(m.run_id) filter (where m.scope_id <> 0 and x.ended and not m.ending) as scope_runs,
             array_agg(m.scope_id) filter (where m.scope_id <> 0 and x.ended and not m.ending) as scopes,
             array_agg(m.output) filter (where m.scope_id <> 0 and x.ended and not m.ending) as scope_outputs,
             array_agg(case when m.state = 'failed' and m.port is null then m.error end)
               filter (where m.scope_id <> 0 and x.ended and not m.ending) as scope_errors
        into v_facts
        from unnest(v_moves) m
       cross join lateral (select m.state in ('completed', 'failed', 'skipped', 'cancelled') and coalesce(m.edges -> m.port, '[]') = '[]' as ended) x;
      v_ended_runs := v_ended_runs || v_facts.ended_runs;
      v_outputs := v_outputs || v_facts.outputs;
      if v_facts.sets then
        perform stellwerk.write_variables(p_tenant_id, v_moves);
      end if;
      if v_facts.goes_on then
        v_next := v_next || stellwerk.follow_edges(p_tenant_id, v_moves, v_resting || v_wave || v_later);
      end if;
      if v_facts.loops then
        v_next := v_next || stellwerk.first_iterations(p_tenant_id, v_moves, v_resting);
      end if;
      if v_facts.may_end then
        select f.over, f.tokens into v_finish from stellwerk.finish_runs(p_tenant_id, v_moves) f;
        if cardinality(v_finish.over) > 0 then
          perform stellwerk.drop_tokens(p_tenant_id, v_finish.over,
            v_wave || v_later || v_resting || array(select t from unnest(v_next) t where not t.joins)
            || stellwerk.meet(v_joining, array(select t from unnest(v_next) t where t.joins)));
          select array_agg(u.run_id) as scope_runs, array_agg(u.scope_id) as scopes, array_agg(u.output) as scope_outputs,
                 array_agg(u.error) as scope_errors
            into v_facts
            from unnest(v_facts.scope_runs, v_facts.scopes, v_facts.scope_outputs, v_facts.scope_errors) with ordinality
                 u (run_id, scope_id, output, error, place)
           where u.run_id <> all (v_finish.over);
        end if;
        v_next := stellwerk.without(v_next, v_finish.over) || v_finish.tokens;
        v_wave := stellwerk.without(v_wave, v_finish.over);
        v_later := stellwerk.without(v_later, v_finish.over);
        v_joining := stellwerk.without(v_joining, v_finish.over);
        v_resting := stellwerk.without(v_resting, v_finish.over);
      end if;
      v_closing := v_facts.scopes is not null;
      v_moves := '{}';
    end if;
    loop
      select v_wave || v_later || coalesce(array_agg(t) filter (where not t.joins and t.runs_in = 'sql' and not t.alone), '{}'),
             v_resting || coalesce(array_agg(t) filter (where not t.joins and (t.runs_in <> 'sql' or t.alone)), '{}'),
             case when bool_or(t.joins) then stellwerk.meet(v_joining, array_agg(t) filter (where t.joins)) else v_joining end
        into v_wave, v_resting, v_joining
        from unnest(v_next) t;
      v_later := '{}';
      v_next := '{}';
      exit when cardinality(v_joining) = 0;
      select r.ready, r.waiting, r.early into v_release from stellwerk.release(p_tenant_id, v_joining, v_wave || v_resting || v_joining) r;
      v_joining := v_release.waiting;
      if v_release.early then
        select c.kept_ready, c.kept_wave, c.kept_joining, c.kept_resting into v_next, v_wave, v_joining, v_resting
          from stellwerk.cut_branches(p_tenant_id, v_release.ready, v_wave, v_joining, v_resting) c;
      else
        v_next := v_release.ready;
      end if;
      select v_wave || coalesce(array_agg(t) filter (where t.runs_in = 'sql' and not t.alone), '{}'),
             v_resting || coalesce(array_agg(t) filter (where t.runs_in <> 'sql' or t.alone), '{}')
        into v_wave, v_resting
        from unnest(v_next) t;
      v_next := '{}';
      -- What was cut may have been all that another one waited for.
      exit when not v_release.early or cardinality(v_joining) = 0;
    end loop;
    if v_closing then
      select c.tokens, c.moves, c.dropped into v_closed
        from stellwerk.close_scopes(p_tenant_id, v_facts.scope_runs, v_facts.scopes, v_facts.scope_outputs, v_facts.scope_errors,
                                    v_wave || v_joining || v_resting) c;
      if cardinality(v_closed.dropped) > 0 then
        perform stellwerk.write_cancelled(p_tenant_id, array(
          select t from unnest(v_wave || v_joining || v_resting) t where t.scope_id = any (v_closed.dropped)),
          'its iteration was cancelled', true);
        v_wave := stellwerk.without_scopes(v_wave, v_closed.dropped);
        v_joining := stellwerk.without_scopes(v_joining, v_closed.dropped);
        v_resting := stellwerk.without_scopes(v_resting, v_closed.dropped);
      end if;
      v_next := v_closed.tokens;
      v_moves := v_closed.moves;
    end if;
    v_waves := v_waves + 1;
    exit when cardinality(v_moves) = 0 and cardinality(v_next) = 0 and (cardinality(v_wave) = 0 or v_waves >= c_max_waves or not p_execute);
  end loop;
  if cardinality(v_joining) > 0 then
    perform stellwerk.rest_tokens(p_tenant_id, v_joining, 'joining');
  end if;
  if cardinality(v_resting) > 0 or cardinality(v_wave) > 0 then
    perform stellwerk.rest_queued(p_tenant_id, v_resting || v_wave, p_taker);
  end if;
  perform stellwerk.settle_runs(p_tenant_id, p_run_ids, v_ended_runs, v_outputs);
  return v_steps;
end
$$;
comment on function stellwerk.advance_runs(bigint, bigint[], stellwerk.move[], boolean, boolean, stellwerk.taker) is 'Moves a set of locked runs on as far as they go in SQL, beginning with moves that were just made elsewhere, or with what is ready. Without p_execute nothing is run and successors are only stored; p_fresh says that none of the runs has a step yet; p_taker takes worker steps that become ready. Answers how many steps ran.';

create or replace function stellwerk.first_tokens(p_tenant_id bigint, p_run_ids bigint[])
returns stellwerk.token[] language plpgsql set search_path = '' as $$
declare
  v_now     timestamptz := stellwerk.clock();
  v_tokens  stellwerk.token[];
  v_limited bigint[];
  v_limits  interval[];
begin
  select array_agg(row(r.run_id, nextval('stellwerk.step_id_seq'), false, r.workflow_id, r.version, r.trigger_node, r.trigger_node,
                       0, 1, 0, 0, null, v_now, n.type, 'sql', false, false, r.recount, false)::stellwerk.token),
         array_agg(r.run_id) filter (where r.timeout is not null), array_agg(r.timeout) filter (where r.timeout is not null)
    into v_tokens, v_limited, v_limits
    from unnest(p_run_ids) x (run_id)
   cross join lateral (
     select o.run_id, o.workflow_id, o.version, o.trigger_node, o.state, o.held, o.timeout, o.recount from stellwerk.run o
      where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
   cross join lateral (
     select o.type from stellwerk.plan_node o
      where o.tenant_id = p_tenant_id and o.workflow_id = r.workflow_id and o.version = r.version and o.node_id = r.trigger_node offset 0) n
   where r.state = 'pending' and not r.held;
  if v_limited is not null then
    insert into stellwerk.timer (tenant_id, kind, run_id, due_at)
    select p_tenant_id, 'run_timeout', u.run_id, v_now + u.timeout from unnest(v_limited, v_limits) u (run_id, timeout);
  end if;
  return coalesce(v_tokens, '{}');
end
$$;
comment on function stellwerk.first_tokens(bigint, bigint[]) is 'A token on the trigger node of each pending run, and the timer of the workflow''s timeout.';

create or replace function stellwerk.stored_tokens(p_tenant_id bigint, p_run_ids bigint[], p_state text)
returns stellwerk.token[] language plpgsql stable set search_path = '' as $$
declare
  v_runs  bigint[];
  v_steps bigint[];
begin
  -- Two statements, so that each is served by its partial index.
  if p_state = 'queued' then
    select array_agg(s.run_id order by s.run_id, s.step_id), array_agg(s.step_id order by s.run_id, s.step_id) into v_runs, v_steps
      from unnest(p_run_ids) x (run_id)
     cross join lateral (
       select o.run_id, o.step_id from stellwerk.step o
        where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.state = 'queued' and o.runs_in = 'sql' and o.due_at is null and not o.alone
       offset 0) s;
  else
    select array_agg(s.run_id order by s.run_id, s.step_id), array_agg(s.step_id order by s.run_id, s.step_id) into v_runs, v_steps
      from unnest(p_run_ids) x (run_id)
     cross join lateral (
       select o.run_id, o.step_id from stellwerk.step o
        where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.state in ('queued', 'running', 'waiting', 'joining') and o.state = 'joining'
       offset 0) s;
  end if;
  return case when v_steps is null then '{}' else stellwerk.tokens_of(p_tenant_id, v_runs, v_steps) end;
end
$$;
comment on function stellwerk.stored_tokens(bigint, bigint[], text) is 'Tokens of runs that are stored as steps: queued (SQL steps that may run now) or joining.';

create or replace function stellwerk.tokens_of(
  p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_state text default null, p_attempts integer[] default null, p_worker_id bigint default null)
returns stellwerk.token[] language plpgsql stable set search_path = '' as $$
declare
  v_tokens stellwerk.token[];
begin
  select array_agg(row(s.run_id, s.step_id, true, r.workflow_id, r.version, r.trigger_node, s.node_id, s.scope_id, s.visit, s.attempt, s.failures,
                       s.arrived, s.queued_at, s.type, case s.runs_in when 'wait' then 'sql' else s.runs_in end, s.alone, n.joins,
                       r.recount, r.ending is not null)::stellwerk.token order by x.ordinality)
    into v_tokens
    from unnest(p_run_ids, p_step_ids) with ordinality x (run_id, step_id, ordinality)
   cross join lateral (
     select o.* from stellwerk.step o where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.step_id = x.step_id offset 0) s
   cross join lateral (
     select o.workflow_id, o.version, o.trigger_node, o.state, o.recount, o.ending from stellwerk.run o
      where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
   cross join lateral (
     select o.joins from stellwerk.plan_node o
      where o.tenant_id = p_tenant_id and o.workflow_id = r.workflow_id and o.version = r.version and o.node_id = s.node_id offset 0) n
   where p_state is null
      or (s.state = p_state and (r.state in ('running', 'waiting') or (r.state = 'paused' and p_state <> 'queued'))
          and (p_worker_id is null or (s.worker_id = p_worker_id and s.attempt = p_attempts[x.ordinality])));
  return coalesce(v_tokens, '{}');
end
$$;
comment on function stellwerk.tokens_of(bigint, bigint[], bigint[], text, integer[], bigint) is 'Stored steps as tokens, in the same order; with a state, only those in it whose run can move; with a worker, only those whose running attempt is the given one of that worker.';

-- Two branches of one run that set vars at the same moment go one after the other, so that vars.n + 1 loses nothing.
create or replace function stellwerk.one_writer_per_run(p_wave stellwerk.token[], out now stellwerk.token[], out later stellwerk.token[])
language plpgsql immutable set search_path = '' as $$
begin
  now := p_wave;
  later := '{}';
  if exists (select 1 from unnest(p_wave) t where t.type = 'logic.set' group by t.run_id having count(*) > 1) then
    select array_agg(x.token) filter (where x.place = 1), array_agg(x.token) filter (where x.place > 1) into now, later
      from (select t as token, case t.type when 'logic.set' then row_number() over (partition by t.run_id, t.type order by t.step_id) else 1 end as place
              from unnest(p_wave) t) x;
  end if;
end
$$;
comment on function stellwerk.one_writer_per_run(stellwerk.token[]) is 'Splits a wave so that at most one logic.set of a run is in it.';

create or replace function stellwerk.run_wave(p_tenant_id bigint, p_wave stellwerk.token[])
returns stellwerk.move[] language plpgsql set search_path = '' as $$
declare
  v_moves stellwerk.move[];
begin
  select array_agg(row(
           t.run_id, t.step_id, t.stored, t.workflow_id, t.version, t.trigger_node, t.node_id, t.scope_id, t.visit, t.attempt + 1, t.failures, t.arrived,
           t.queued_at, t.type, t.runs_in, t.alone, case when (t.result).error is not null then 'failed' when (t.result).port = '*wait' then 'waiting' when (t.result).port = '*later' then 'queued'
                when (t.result).port = '*skip' then 'skipped' else 'completed' end,
           case (t.result).port when '*wait' then null when '*later' then null when '*skip' then 'next' else (t.result).port end, (t.result).input, (t.result).output, (t.result).error,
           case when (t.result).port = '*later' then stellwerk.clock() + interval '1 second' end, t.edges, t.recount, t.ending, t.compensate)::stellwerk.move)
    into v_moves
    -- In the order in which they set out: who comes first is served first, and where two tokens end at once, the last one counts
    -- as the last. "offset 0" keeps the node from being run once for each of the fields above.
    from (select u.*, n.edges, n.compensate, stellwerk.run_node(p_tenant_id, u, n.node, c.context) as result
            from unnest(p_wave) u
            -- Each node is looked up once, however many tokens stand on it.
            join (select d.workflow_id, d.version, d.node_id, x.node, x.edges, x.compensate
                    from (select distinct o.workflow_id, o.version, o.node_id from unnest(p_wave) o) d
                   cross join lateral (
                     select o as node, o.edges, o.compensate from stellwerk.plan_node o
                      where o.tenant_id = p_tenant_id and o.workflow_id = d.workflow_id and o.version = d.version and o.node_id = d.node_id offset 0) x
                  offset 0) n on n.workflow_id = u.workflow_id and n.version = u.version and n.node_id = u.node_id
            left join stellwerk.contexts(p_tenant_id, p_wave) c on c.step_id = u.step_id
           order by u.step_id offset 0) t;
  return coalesce(v_moves, '{}');
end
$$;
comment on function stellwerk.run_wave(bigint, stellwerk.token[]) is 'Runs the nodes of a wave of tokens. Beside a port of its own a node answers *wait (it has written what it waits for), *later (try again in a second) or *skip (it has nothing to do, and leaves by next).';

-- What becomes of a step whose attempt ended in an error: another attempt, or what the node's on_error says.
create or replace function stellwerk.settle_errors(p_tenant_id bigint, p_moves stellwerk.move[])
returns stellwerk.move[] language plpgsql set search_path = '' as $$
declare
  v_moves stellwerk.move[] := p_moves;
  v_move  stellwerk.move;
  v_node  stellwerk.plan_node;
  v_limit integer;
begin
  for i in 1 .. cardinality(v_moves) loop
    v_move := v_moves[i];
    continue when v_move.error is null;
    if v_move.ending and not stellwerk.undoes_another(p_tenant_id, v_move) then
      v_move.state := 'failed';  -- it was under way when its run began to end, and is not tried again
      v_move.port := null;
      v_move.output := null;
      v_moves[i] := v_move;
      continue;
    end if;
    select * into v_node from stellwerk.plan_node n
     where n.tenant_id = p_tenant_id and n.workflow_id = v_move.workflow_id and n.version = v_move.version and n.node_id = v_move.node_id;
    v_move.failures := v_move.failures + 1;
    v_move.output := null;
    -- A lost lock or deadlock says nothing about the statement: it is tried again whatever the node says.
    v_limit := case when v_move.runs_in = 'sql' and v_move.error ->> 'class' in ('55P03', '40P01', '40001')
                    then greatest(v_node.max_attempts, 10) else v_node.max_attempts end;
    if v_move.failures < v_limit and coalesce((v_move.error ->> 'retryable')::boolean, true) then
      v_move.state := 'queued';
      v_move.port := null;
      v_move.due_at := stellwerk.clock() + coalesce(make_interval(secs => (v_move.error ->> 'retry_after')::double precision),
                                                    stellwerk.retry_delay(v_node.retry, v_move.failures));
      perform stellwerk.note_attempt(p_tenant_id, v_move, 'failed');
    else
      v_move.state := 'failed';
      v_move.port := case v_node.on_error when 'route' then 'error' when 'continue' then 'next' end;
      v_move.output := case v_node.on_error when 'continue' then jsonb_build_object('error', v_move.error) end;
      if v_move.type = 'logic.loop' and v_move.port = 'next' then
        v_move.port := 'done';
      end if;
    end if;
    v_moves[i] := v_move;
  end loop;
  perform stellwerk.queue_retries(p_tenant_id, v_moves);
  return v_moves;
end
$$;
comment on function stellwerk.settle_errors(bigint, stellwerk.move[]) is 'Decides for each move with an error: queued for another attempt, or failed, leaving by error (route), by next with the error as output (continue), or by no port, which fails the run.';

create or replace function stellwerk.note_attempt(p_tenant_id bigint, p_move stellwerk.move, p_outcome text)
returns void language sql volatile set search_path = '' as $$
  insert into stellwerk.step_attempt (tenant_id, run_id, step_id, attempt, outcome, error, worker_id, started_at, ended_at, retry_at)
  select p_tenant_id, p_move.run_id, p_move.step_id, p_move.attempt, p_outcome, p_move.error, s.worker_id, s.started_at, clock_timestamp(), p_move.due_at
    from (select 1) one
    left join stellwerk.step s on s.tenant_id = p_tenant_id and s.run_id = p_move.run_id and s.step_id = p_move.step_id
  on conflict do nothing
$$;
comment on function stellwerk.note_attempt(bigint, stellwerk.move, text) is 'Keeps an attempt that did not complete its step.';

-- A SQL step waits on a timer, a worker step in the queue.
create or replace function stellwerk.queue_retries(p_tenant_id bigint, p_moves stellwerk.move[])
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
  select p_tenant_id, 'retry', m.run_id, m.step_id, m.due_at from unnest(p_moves) m where m.state = 'queued' and m.runs_in = 'sql';
  if exists (select 1 from unnest(p_moves) m where m.state = 'queued' and m.runs_in = 'worker') then
    perform stellwerk.enqueue_again(p_tenant_id, array_agg(m.run_id), array_agg(m.step_id), array_agg(m.type), array_agg(m.due_at))
       from unnest(p_moves) m where m.state = 'queued' and m.runs_in = 'worker';
  end if;
end
$$;
comment on function stellwerk.queue_retries(bigint, stellwerk.move[]) is 'Timers and queue rows for steps that will be tried again.';

create or replace function stellwerk.enqueue_again(
  p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_types text[], p_due timestamptz[])
returns void language plpgsql set search_path = '' as $$
declare
  v_job_ids bigint[];
begin
  v_job_ids := stellwerk.enqueue_steps(p_tenant_id, p_run_ids, p_step_ids, p_types, stellwerk.priorities_of(p_tenant_id, p_run_ids), p_due);
  for i in 1 .. cardinality(p_step_ids) loop
    update stellwerk.step s set job_id = v_job_ids[i] where s.tenant_id = p_tenant_id and s.run_id = p_run_ids[i] and s.step_id = p_step_ids[i];
  end loop;
end
$$;
comment on function stellwerk.enqueue_again(bigint, bigint[], bigint[], text[], timestamptz[]) is 'New queue rows for stored worker steps.';

create or replace function stellwerk.priorities_of(p_tenant_id bigint, p_run_ids bigint[])
returns integer[] language plpgsql stable set search_path = '' as $$
begin
  return (select array_agg(r.priority order by x.ordinality)
            from unnest(p_run_ids) with ordinality x (run_id, ordinality)
           cross join lateral (select o.priority from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r);
end
$$;
comment on function stellwerk.priorities_of(bigint, bigint[]) is 'The priority of each run, in the same order.';

create or replace function stellwerk.write_variables(p_tenant_id bigint, p_moves stellwerk.move[])
returns void language plpgsql set search_path = '' as $$
declare
  v_value record;
begin
  insert into stellwerk.variable (tenant_id, run_id, scope_id, name, value)
  select p_tenant_id, m.run_id, 0, v.key, v.value
    from unnest(p_moves) m
   cross join lateral jsonb_each(m.output) v
   where m.type = 'logic.set' and m.state = 'completed' and m.scope_id = 0
  on conflict (tenant_id, run_id, scope_id, name) do update set value = excluded.value;
  -- In a loop a variable is written where it exists, from the inside out, else in the iteration.
  for v_value in
    select m.run_id, m.scope_id, v.key as name, v.value
      from unnest(p_moves) m
     cross join lateral jsonb_each(m.output) v
     where m.type = 'logic.set' and m.state = 'completed' and m.scope_id <> 0
  loop
    insert into stellwerk.variable (tenant_id, run_id, scope_id, name, value)
    values (p_tenant_id, v_value.run_id,
            coalesce((select c.scope_id from unnest(stellwerk.scope_chain(p_tenant_id, v_value.run_id, v_value.scope_id)) with ordinality c (scope_id, place)
                       where exists (select from stellwerk.variable o
                                      where o.tenant_id = p_tenant_id and o.run_id = v_value.run_id and o.scope_id = c.scope_id and o.name = v_value.name)
                       order by c.place limit 1), v_value.scope_id),
            v_value.name, v_value.value)
    on conflict (tenant_id, run_id, scope_id, name) do update set value = excluded.value;
  end loop;
end
$$;
comment on function stellwerk.write_variables(bigint, stellwerk.move[]) is 'Writes the vars that logic.set nodes of a wave have computed; at most one such node per run is in it.';

create or replace function stellwerk.rest_queued(p_tenant_id bigint, p_tokens stellwerk.token[], p_taker stellwerk.taker default null)
returns void language plpgsql set search_path = '' as $$
declare
  v_worker stellwerk.token[];
  v_sql    stellwerk.token[];
  v_jobs   bigint[];
begin
  select array_agg(t) filter (where t.runs_in = 'worker'), array_agg(t) filter (where t.runs_in <> 'worker') into v_worker, v_sql
    from unnest(p_tokens) t;
  if p_taker.room > 0 and v_worker is not null then
    v_worker := stellwerk.take_at_once(p_tenant_id, v_worker, p_taker);
  end if;
  if v_worker is not null then
    select stellwerk.enqueue_steps(p_tenant_id, array_agg(t.run_id), array_agg(t.step_id), array_agg(t.type),
                                   stellwerk.priorities_of(p_tenant_id, array_agg(t.run_id)), array_agg(null::timestamptz))
      into v_jobs from unnest(v_worker) t;
    perform stellwerk.rest_tokens(p_tenant_id, v_worker, 'queued', v_jobs);
  end if;
  if v_sql is not null then
    perform stellwerk.rest_tokens(p_tenant_id, v_sql, 'queued');
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.rest_queued(bigint, stellwerk.token[], stellwerk.taker) is 'Stores tokens that must be taken by somebody: worker steps with their queue rows, unless the taker takes them, SQL steps for pump, which is woken.';
