-- Carrying out bulk operations: which runs, in which portions, and what became of each.

-- Live runs are found by their live steps, by what waits to start and by what is held; failed runs by an index of their own.
-- So what is read follows what is live or has failed, not the history.
create or replace function stellwerk.bulk_population(p_tenant_id bigint, p_action text, p_filter jsonb)
returns table (run_id bigint, state text) language plpgsql stable set search_path = '' as $$
declare
  v_states    text[] := stellwerk.bulk_states(p_action, p_filter);
  v_by        text := case when p_filter ? 'run_ids' then 'number' when 'cancelled' = any (v_states) then 'all' when 'failed' = any (v_states) then 'failed' else 'live' end;
  v_numbers   bigint[] := array(select e.value::bigint from stellwerk.bulk_values(p_filter -> 'run_ids') e (value));
  v_workflows bigint[] := array(select w.workflow_id from stellwerk.workflow w
                                 where w.tenant_id = p_tenant_id and w.slug in (select e.value from stellwerk.bulk_values(p_filter -> 'workflow') e (value)));
  v_versions  integer[] := array(select e.value::integer from stellwerk.bulk_values(p_filter -> 'version') e (value));
  v_nodes     text[] := array(select e.value from stellwerk.bulk_values(p_filter -> 'node') e (value));
  v_classes   text[] := array(select e.value from stellwerk.bulk_values(p_filter -> 'error_class') e (value));
  v_after     timestamptz := stellwerk.bulk_time(p_filter -> 'created_after');
  v_before    timestamptz := stellwerk.bulk_time(p_filter -> 'created_before');
  v_payload   jsonb := p_filter -> 'payload';
begin
  return query
    with candidate as (
      select n.run_id from unnest(v_numbers) n (run_id) where v_by = 'number'
      union
      select s.run_id from stellwerk.step s
       where v_by = 'live' and s.tenant_id = p_tenant_id and s.state in ('queued', 'running', 'waiting', 'joining')
      union
      select r.run_id from stellwerk.run r where v_by = 'live' and r.tenant_id = p_tenant_id and r.state = 'pending' and not r.held
      union
      select r.run_id from stellwerk.run r where v_by = 'live' and r.tenant_id = p_tenant_id and r.state = 'pending' and r.held
      union
      select r.run_id from stellwerk.run r where v_by = 'live' and r.tenant_id = p_tenant_id and r.state = 'paused'
      union
      select r.run_id from stellwerk.run r where v_by = 'failed' and r.tenant_id = p_tenant_id and r.state = 'failed'
      union
      select r.run_id from stellwerk.run r
       where v_by = 'all' and r.tenant_id = p_tenant_id and (v_workflows = '{}' or r.workflow_id = any (v_workflows)) and r.state = any (v_states))
    select r.run_id, r.state
      from candidate c
      join stellwerk.run r on r.tenant_id = p_tenant_id and r.run_id = c.run_id
     where r.state = any (v_states)
       and (v_workflows = '{}' or r.workflow_id = any (v_workflows))
       and (v_versions = '{}' or r.version = any (v_versions))
       and (v_classes = '{}' or r.error ->> 'class' = any (v_classes))
       and (v_after is null or r.created_at >= v_after)
       and (v_before is null or r.created_at < v_before)
       and (v_payload is null or r.payload @> v_payload)
       and (v_nodes = '{}' or exists (
             select from stellwerk.step s
              where s.tenant_id = p_tenant_id and s.run_id = r.run_id and s.node_id = any (v_nodes)
                and s.state in ('queued', 'running', 'waiting', 'joining', 'failed')
                and (p_action <> 'skip' or s.state in ('queued', 'waiting') and s.undoes is null)));
end
$$;
comment on function stellwerk.bulk_population(bigint, text, jsonb) is 'The runs that fit a checked filter now, and their states. node fits a run with a live or failed step on it, for skip with a waiting or queued one.';

create or replace function stellwerk.count_bulk_runs(p_tenant_id bigint, p_operation_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  v_operation stellwerk.bulk_operation;
  v_by_state  jsonb;
  v_total     bigint;
begin
  select * into v_operation from stellwerk.bulk_operation o where o.tenant_id = p_tenant_id and o.operation_id = p_operation_id;
  select jsonb_object_agg(c.state, c.count), sum(c.count) into v_by_state, v_total
    from (select p.state, count(*) as count from stellwerk.bulk_population(p_tenant_id, v_operation.action, v_operation.filter) p group by p.state) c;
  update stellwerk.bulk_operation o
     set total = coalesce(v_total, 0), by_state = coalesce(v_by_state, '{}'),
         verdicts = case o.action when 'migrate' then stellwerk.judge_bulk_runs(v_operation) end
   where o.tenant_id = p_tenant_id and o.operation_id = p_operation_id;
end
$$;
comment on function stellwerk.count_bulk_runs(bigint, bigint) is 'Writes into a draft how many runs fit its filter now.';

create or replace function stellwerk.begin_bulk_operation(p_tenant_id bigint, p_operation_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  v_now       timestamptz := stellwerk.clock();
  v_operation stellwerk.bulk_operation;
  v_by_state  jsonb;
  v_total     bigint;
begin
  select * into v_operation from stellwerk.bulk_operation o where o.tenant_id = p_tenant_id and o.operation_id = p_operation_id;
  with fitting as materialized (
    select p.run_id, p.state from stellwerk.bulk_population(p_tenant_id, v_operation.action, v_operation.filter) p
  ), fixed as (
    insert into stellwerk.bulk_operation_run (tenant_id, operation_id, run_id)
    select p_tenant_id, p_operation_id, f.run_id from fitting f
  )
  select jsonb_object_agg(c.state, c.count), sum(c.count) into v_by_state, v_total
    from (select f.state, count(*) as count from fitting f group by f.state) c;
  update stellwerk.bulk_operation o
     set state = case when v_total > 0 then 'running' else 'completed' end, total = coalesce(v_total, 0), by_state = coalesce(v_by_state, '{}'),
         started_at = v_now, worked_at = v_now, ended_at = case when v_total > 0 then null else v_now end,
         history = o.history || stellwerk.bulk_history('running', stellwerk.actor())
                   || case when v_total > 0 then '[]' else stellwerk.bulk_history('completed', null) end
   where o.tenant_id = p_tenant_id and o.operation_id = p_operation_id;
  perform stellwerk.ring_if_asleep();
end
$$;
comment on function stellwerk.begin_bulk_operation(bigint, bigint) is 'Fixes the runs of a bulk operation; from now on tick works on it.';

-- Called by tick.
create or replace function stellwerk.work_bulk_operations(p_tenant_id bigint, p_limit integer default 500)
returns integer language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  c_longest constant interval := interval '10 seconds';  -- what was not used for longer is lost, so that no burst follows a standstill
  c_turn    constant interval := interval '1 second';
  c_all     constant interval := interval '10 seconds';
  v_begun     timestamptz := stellwerk.clock();
  v_operation stellwerk.bulk_operation;
  v_since     timestamptz;
  v_now       timestamptz;
  v_limit     integer;
  v_count     integer := 0;
begin
  for v_operation in
    select * from stellwerk.bulk_operation o
     where o.tenant_id = p_tenant_id and o.state = 'running' order by o.worked_at for no key update skip locked
  loop
    v_now := stellwerk.clock();
    -- They take turns, and leave time to whatever else a tick has to do.
    exit when v_now > v_begun + c_turn or v_now > statement_timestamp() + c_all;
    v_since := greatest(v_operation.worked_at, v_now - c_longest);
    v_limit := least(p_limit, floor(extract(epoch from v_now - v_since) * v_operation.rate));
    if v_limit > 0 then
      v_operation.worked_at := case when v_operation.rate is null then v_now else v_since + make_interval(secs => v_limit::double precision / v_operation.rate) end;
      v_count := v_count + stellwerk.work_bulk_operation(v_operation, v_limit);
    end if;
  end loop;
  return v_count;
end
$$;
comment on function stellwerk.work_bulk_operations(bigint, integer) is 'Does the next portion of each running bulk operation, as its rate allows; answers how many runs were handled.';

create or replace function stellwerk.work_bulk_operation(p_operation stellwerk.bulk_operation, p_limit integer)
returns integer language plpgsql set search_path = '' as $$
declare
  c_few      constant integer := 20;  -- a share of fewer says little
  c_longest  constant interval := interval '1 second';
  v_begun    timestamptz := stellwerk.clock();
  v_wanted   bigint[];
  v_free     bigint[];
  v_run_ids  bigint[] := '{}'::bigint[];
  v_outcomes text[] := '{}'::text[];
  v_errors   jsonb[] := '{}'::jsonb[];
  v_outcome  record;
  v_failed   integer := p_operation.failed;
  v_handled  integer := p_operation.done + p_operation.skipped + p_operation.failed;
  v_stopped  boolean := false;
  v_last     bigint;
begin
  select array_agg(x.run_id) into v_wanted
    from (select r.run_id from stellwerk.bulk_operation_run r
           where r.tenant_id = p_operation.tenant_id and r.operation_id = p_operation.operation_id and r.outcome is null
             and r.run_id > p_operation.last_run_id
           order by r.run_id limit p_limit) x;
  -- All locks at once and in order; runs that somebody else holds have their turn in the next round.
  v_free := stellwerk.lock_free_runs(p_operation.tenant_id, v_wanted);
  for i in 1 .. coalesce(cardinality(v_wanted), 0) loop
    exit when v_stopped or stellwerk.clock() > v_begun + c_longest;
    v_last := v_wanted[i];
    continue when v_last <> all (v_free)
              and exists (select from stellwerk.run r where r.tenant_id = p_operation.tenant_id and r.run_id = v_last);
    v_outcome := stellwerk.handle_bulk_run(p_operation, v_last);
    v_run_ids := v_run_ids || v_last;
    v_outcomes := v_outcomes || v_outcome.outcome;
    v_errors := v_errors || coalesce(v_outcome.error, 'null');
    v_handled := v_handled + 1;
    v_failed := v_failed + (v_outcome.outcome = 'failed')::integer;
    v_stopped := coalesce(v_outcome.outcome = 'failed' and v_failed > p_operation.stop_on_error * greatest(v_handled, least(c_few, p_operation.total)), false);
  end loop;
  update stellwerk.bulk_operation_run r
     set outcome = x.outcome, error = nullif(x.error, 'null'), handled_at = v_begun
    from unnest(v_run_ids, v_outcomes, v_errors) x (run_id, outcome, error)
   where r.tenant_id = p_operation.tenant_id and r.operation_id = p_operation.operation_id and r.run_id = x.run_id;
  update stellwerk.bulk_operation o
     set done = o.done + cardinality(array_positions(v_outcomes, 'done')), skipped = o.skipped + cardinality(array_positions(v_outcomes, 'skipped')),
         failed = v_failed, worked_at = p_operation.worked_at,
         -- A round that came to its end begins again with those that were held by others.
         last_run_id = coalesce(v_last, 0),
         state = case when v_stopped then 'stopped' when v_handled >= o.total then 'completed' else o.state end,
         reason = case when v_stopped then format('%s of %s runs failed, more than the share of %s', v_failed, v_handled, p_operation.stop_on_error) end,
         ended_at = case when v_stopped or v_handled >= o.total then stellwerk.clock() end,
         history = o.history || case when v_stopped then stellwerk.bulk_history('stopped', null)
                                     when v_handled >= o.total then stellwerk.bulk_history('completed', null) else '[]' end
   where o.tenant_id = p_operation.tenant_id and o.operation_id = p_operation.operation_id;
  perform stellwerk.ring_if_asleep();
  return cardinality(v_run_ids);
end
$$;
comment on function stellwerk.work_bulk_operation(stellwerk.bulk_operation, integer) is 'Does one portion of a locked bulk operation: at most so many runs, for about a second; answers how many runs were handled.';

create or replace function stellwerk.handle_bulk_run(p_operation stellwerk.bulk_operation, p_run_id bigint, out outcome text, out error jsonb)
language plpgsql set search_path = '' as $$
declare
  v_state   text;
  v_message text;
begin
  perform stellwerk.steer_run(p_operation, p_run_id);
  outcome := 'done';
exception when query_canceled or others then
  get stacked diagnostics v_state = returned_sqlstate, v_message = message_text;
  outcome := case when v_state in ('SW003', 'SW007') then 'skipped' else 'failed' end;
  error := jsonb_build_object('class', v_state, 'message', v_message);
end
$$;
comment on function stellwerk.handle_bulk_run(stellwerk.bulk_operation, bigint) is 'Applies a bulk operation to one run in a subtransaction; what it raises is the outcome.';

create or replace function stellwerk.steer_run(p_operation stellwerk.bulk_operation, p_run_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  v_run     stellwerk.run := stellwerk.lock_run(p_operation.tenant_id, p_run_id);
  v_options jsonb := p_operation.options;
begin
  if v_run.state <> all (stellwerk.bulk_states(p_operation.action, null)) then
    raise exception 'run % is %', p_run_id, v_run.state
      using errcode = 'SW003', hint = format('It was in another state when bulk operation %s began.', p_operation.operation_id);
  end if;
  case p_operation.action
    when 'cancel' then
      perform stellwerk.apply_order(p_operation.tenant_id, p_run_id, 'cancel', jsonb_build_object(
        'reason', format('%s (bulk operation %s)', coalesce(v_options ->> 'reason', 'cancelled by ' || p_operation.created_by), p_operation.operation_id),
        'compensate', coalesce(v_options -> 'compensate', 'false')));
    when 'retry' then
      perform stellwerk.reopen_run(p_operation.tenant_id, v_run, v_options ->> 'from_node', coalesce((v_options ->> 'version')::integer, v_run.version));
    when 'skip' then
      perform stellwerk.skip_steps_on(p_operation, v_run);
    when 'migrate' then
      perform stellwerk.migrate_bulk_run(p_operation, v_run);
    else
      perform stellwerk.apply_order(p_operation.tenant_id, p_run_id, p_operation.action,
        jsonb_build_object('by', format('%s (bulk operation %s)', p_operation.created_by, p_operation.operation_id)));
  end case;
end
$$;
comment on function stellwerk.steer_run(stellwerk.bulk_operation, bigint) is 'Does to one run what the verb for one run does, on behalf of whoever ordered the bulk operation.';

create or replace function stellwerk.skip_steps_on(p_operation stellwerk.bulk_operation, p_run stellwerk.run)
returns void language plpgsql set search_path = '' as $$
declare
  v_nodes text[] := array(select e.value from stellwerk.bulk_values(p_operation.filter -> 'node') e (value));
  v_steps bigint[];
  v_run   stellwerk.run := p_run;
begin
  v_steps := array(
    select s.step_id from stellwerk.step s
     where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.node_id = any (v_nodes) and s.state in ('waiting', 'queued') and s.undoes is null
     order by s.step_id);
  if v_steps = '{}' then
    raise exception 'run % has no step on % that waits', p_run.run_id, array_to_string(v_nodes, ', ')
      using errcode = 'SW003', hint = 'It has moved on since the bulk operation began.';
  end if;
  -- Skipping one may end the run, or others with it, and may not send a token back here: only those found above are meant.
  for i in 1 .. cardinality(v_steps) loop
    continue when not exists (
      select from stellwerk.step s where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.step_id = v_steps[i] and s.state in ('waiting', 'queued'));
    perform stellwerk.skip_locked_step(v_run, v_steps[i], p_operation.options -> 'output', coalesce(p_operation.options ->> 'port', 'next'),
                                       format('skipped by %s (bulk operation %s)', p_operation.created_by, p_operation.operation_id));
    v_run := stellwerk.lock_run(p_run.tenant_id, p_run.run_id);
  end loop;
end
$$;
comment on function stellwerk.skip_steps_on(stellwerk.bulk_operation, stellwerk.run) is 'Skips the waiting and queued steps of a locked run on the nodes that a bulk operation is about.';

create or replace function stellwerk.seconds_to_next_bulk_portion()
returns double precision language plpgsql stable set search_path = '' as $$
begin
  -- Never 0: that is for what a tick has just failed to do.
  return (select min(case when o.rate is null then 0.01
                          else greatest(0.01, extract(epoch from o.worked_at + make_interval(secs => 1.0 / o.rate) - clock_timestamp())) end)
            from stellwerk.tenant t
            join stellwerk.bulk_operation o on o.tenant_id = t.tenant_id and o.state = 'running');
end
$$;
comment on function stellwerk.seconds_to_next_bulk_portion() is 'Seconds until a running bulk operation may go on; null when none is running.';
