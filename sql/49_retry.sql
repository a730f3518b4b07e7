-- Retrying: a failed or cancelled run goes on in place. From where it failed, the same steps are reopened, with their keys;
-- what is done stays done. From an earlier node, the way from there is walked again in new visits, with new keys.

create or replace function stellwerk.retry_run(run_id bigint, from_node text default null, version integer default null)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.lock_run_in(run_id, array['failed', 'cancelled'], 'and cannot be retried',
    'Only a failed or cancelled run can be; cancel this one first, or start another.');
begin
  perform stellwerk.note_action(v_run.tenant_id, 'retry_run', 'run', v_run.run_id::text,
    jsonb_build_object('state', v_run.state, 'version', v_run.version), jsonb_strip_nulls(jsonb_build_object('from_node', from_node, 'version', coalesce(version, v_run.version))));
  perform stellwerk.reopen_run(v_run.tenant_id, v_run, from_node, coalesce(version, v_run.version));
  perform stellwerk.ring_if_asleep();
  return v_run.run_id;
end
$$;
comment on function stellwerk.retry_run(bigint, text, integer) is 'Sends a failed or cancelled run on again, from where it ended or from an earlier node, on its own or another published version; answers the same run. stellwerk.retry_plan says before what would be repeated. A run that another one called goes on by itself where its caller has gone on without it; otherwise its caller is the one to retry. Errors: SW007, SW003, SW005.';

-- A caller that failed with this run calls again when it is retried: were both retried, the work would be done twice.
create or replace function stellwerk.part_from_caller(p_run stellwerk.run)
returns stellwerk.run language plpgsql set search_path = '' as $$
declare
  v_run  stellwerk.run := p_run;
  v_call stellwerk.step;
begin
  select * into v_call from stellwerk.step s
   where s.tenant_id = p_run.tenant_id and s.run_id = p_run.parent_run_id and s.step_id = p_run.parent_step_id;
  if v_call.input ->> 'run_id' <> p_run.run_id::text then
    raise exception 'run % has been called again, as run %', p_run.run_id, v_call.input ->> 'run_id'
      using errcode = 'SW003', hint = format('Look at that one, or at run %s, which called both.', p_run.parent_run_id);
  elsif v_call.state not in ('completed', 'failed', 'cancelled') then
    raise exception 'run % was called by run %, which has not gone on without it yet', p_run.run_id, p_run.parent_run_id
      using errcode = 'SW003', hint = format('stellwerk explain %s says what it waits for.', p_run.parent_run_id);
  elsif v_call.was is not null or (v_call.state = 'failed' and v_call.port is null and v_call.scope_id = 0) then
    raise exception 'run % was called by run %, which would call again', p_run.run_id, p_run.parent_run_id
      using errcode = 'SW003', hint = format('Retry run %s instead.', p_run.parent_run_id);
  end if;
  update stellwerk.run r set parent_run_id = null, parent_step_id = null
   where r.tenant_id = p_run.tenant_id and r.run_id = p_run.run_id
  returning * into v_run;
  return v_run;
end
$$;
comment on function stellwerk.part_from_caller(stellwerk.run) is 'A run that was called, as one that stands for itself: nobody hears of its end any more, caused_by_run_id still names its caller. Errors: SW003 while its caller waits for it or would call again.';

create or replace function stellwerk.reopen_run(p_tenant_id bigint, p_run stellwerk.run, p_from_node text, p_version integer)
returns void language plpgsql set search_path = '' as $$
declare
  v_steps  bigint[];
  v_queued stellwerk.token[];
  v_bad    text;
begin
  if p_run.parent_run_id is not null then
    p_run := stellwerk.part_from_caller(p_run);
  end if;
  if not exists (select from stellwerk.workflow_version d where d.tenant_id = p_tenant_id and d.workflow_id = p_run.workflow_id
                                                           and d.version = p_version and d.published_at is not null) then
    raise exception 'the workflow of run % has no published version %', p_run.run_id, p_version
      using errcode = 'SW005', hint = 'stellwerk.workflow_version lists them.';
  end if;
  if p_from_node is null then
    if p_run.ending is not null then
      raise exception 'run % was compensated: what it had done is undone', p_run.run_id
        using errcode = 'SW003', hint = 'Retry it from an earlier node, for example from its trigger.';
    end if;
    v_steps := stellwerk.resumable_steps(p_tenant_id, p_run.run_id);
    if cardinality(v_steps) = 0 and p_run.started_at is not null then
      perform stellwerk.recall_steps(p_tenant_id, p_run);
      v_steps := stellwerk.resumable_steps(p_tenant_id, p_run.run_id);
      if cardinality(v_steps) = 0 then
        raise exception 'run % has no step from which it could go on', p_run.run_id
          using errcode = 'SW003', hint = 'Retry it from an earlier node, for example from its trigger.';
      end if;
    end if;
    select string_agg(distinct s.node_id, ', ') into v_bad
      from unnest(v_steps) x (step_id)
     cross join lateral (select o.* from stellwerk.step o where o.tenant_id = p_tenant_id and o.run_id = p_run.run_id and o.step_id = x.step_id offset 0) s
     where not exists (select from stellwerk.plan_node n where n.tenant_id = p_tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_version
                                                           and n.node_id = s.node_id and n.type = s.type);
    if v_bad is not null then
      raise exception 'version % has no node % of the same type', p_version, v_bad
        using errcode = 'SW005', hint = 'Retry from a node that is in that version, or on the run''s own version.';
    end if;
    -- A loop goes on with its iterations; one whose collect raised has none that could go on.
    select string_agg(distinct l.node_id, ', ') into v_bad
      from unnest(v_steps) x (step_id)
     cross join lateral (
       select o.node_id, o.step_id from stellwerk.step o
        where o.tenant_id = p_tenant_id and o.run_id = p_run.run_id and o.step_id = x.step_id and o.type = 'logic.loop' offset 0) l
     where exists (select from stellwerk.loop b where b.tenant_id = p_tenant_id and b.run_id = p_run.run_id and b.step_id = l.step_id)
       and not exists (
         select from unnest(v_steps) y (step_id)
           join stellwerk.step i on i.tenant_id = p_tenant_id and i.run_id = p_run.run_id and i.step_id = y.step_id
           join stellwerk.scope o on o.tenant_id = p_tenant_id and o.run_id = p_run.run_id and o.scope_id = i.scope_id
          where o.loop_step_id = l.step_id);
    if v_bad is not null then
      raise exception 'no step of loop % can be tried again: its collect could not be computed', v_bad
        using errcode = 'SW003', hint = format('Retry from node %s, or from an earlier one.', v_bad);
    end if;
    perform stellwerk.reopen_steps(p_tenant_id, p_run, p_version, v_steps);
  else
    v_queued := array[stellwerk.restart_token(p_tenant_id, p_run, p_from_node, p_version)];
    perform stellwerk.reopen_steps(p_tenant_id, p_run, p_version, '{}');
    perform stellwerk.rest_queued(p_tenant_id, v_queued);
  end if;
end
$$;
comment on function stellwerk.reopen_run(bigint, stellwerk.run, text, integer) is 'retry_run on a locked run.';

create or replace function stellwerk.restart_token(p_tenant_id bigint, p_run stellwerk.run, p_node_id text, p_version integer)
returns stellwerk.token language plpgsql set search_path = '' as $$
declare
  v_node  stellwerk.plan_node;
  v_token stellwerk.token;
begin
  select * into v_node from stellwerk.plan_node n
   where n.tenant_id = p_tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_version and n.node_id = p_node_id;
  if v_node.node_id is null then
    raise exception 'version % has no node %', p_version, quote_literal(p_node_id)
      using errcode = 'SW007', hint = 'Its nodes are: ' || coalesce((select string_agg(n.node_id, ', ' order by n.position) from stellwerk.plan_node n
        where n.tenant_id = p_tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_version), 'none') || '.';
  elsif v_node.loop_node is not null then
    raise exception 'node % stands in loop %, and a run cannot begin again within one', p_node_id, v_node.loop_node
      using errcode = 'SW003', hint = format('Retry from %s.', v_node.loop_node);
  end if;
  v_token := row(p_run.run_id, nextval('stellwerk.step_id_seq'), false, p_run.workflow_id, p_version, p_run.trigger_node, v_node.node_id, 0, 0, 0, 0,
                 null, stellwerk.clock(), v_node.type, case v_node.runs_in when 'worker' then 'worker' else 'sql' end, v_node.alone, false, true,
                 false)::stellwerk.token;
  return (stellwerk.count_visits(p_tenant_id, array[v_token], '{}'))[1];
end
$$;
comment on function stellwerk.restart_token(bigint, stellwerk.run, text, integer) is 'The token with which a run begins again at an earlier node. Errors: SW007, SW003 for a node within a loop.';

-- Steps of the outermost scope, and of iterations whose loop is reopened itself.
create or replace function stellwerk.resumable_steps(p_tenant_id bigint, p_run_id bigint)
returns bigint[] language plpgsql stable set search_path = '' as $$
declare
  v_steps bigint[];
  v_new   bigint[];
begin
  v_new := array(select s.step_id from stellwerk.step s
                  where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.was is not null and s.scope_id = 0);
  v_steps := v_new;
  while cardinality(v_new) > 0 loop
    v_new := array(
      select s.step_id from stellwerk.step s
        join stellwerk.scope o on o.tenant_id = p_tenant_id and o.run_id = p_run_id and o.scope_id = s.scope_id
        join stellwerk.loop l on l.tenant_id = p_tenant_id and l.run_id = p_run_id and l.step_id = o.loop_step_id
       where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.was is not null and o.loop_step_id = any (v_new)
         and (o.state = 'running' or (l.on_item_error = 'fail' and o.state in ('failed', 'cancelled'))));
    v_steps := v_steps || v_new;
  end loop;
  return v_steps;
end
$$;
comment on function stellwerk.resumable_steps(bigint, bigint) is 'The steps with which a run that has ended can go on: those that failed for good and those that it was cancelled with.';

-- Runs that ended before steps kept what they were (was): what was live is known by its end, which is the run's to the
-- microsecond. A token with others on their way to it waited for them; anything else is simply due again.
create or replace function stellwerk.recall_steps(p_tenant_id bigint, p_run stellwerk.run)
returns void language plpgsql set search_path = '' as $$
begin
  with live as (
    select s.step_id, s.node_id, s.arrived, s.state = 'cancelled' and s.attempt = 0 and s.job_id is null as untouched, s.state <> 'cancelled' as failed
      from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id and s.scope_id = 0
       and ((s.state = 'cancelled' and s.ended_at = p_run.ended_at) or (s.state = 'failed' and s.port is null)
            or (s.type = 'logic.stop' and s.state = 'completed' and s.input ->> 'outcome' = 'failed')))
  update stellwerk.step s
     set was = case when l.failed then 'failed'
                    when l.untouched and l.arrived is not null and exists (
                           select from live o
                            where n.upstream -> p_run.trigger_node ? o.node_id and o.step_id <> l.step_id) then 'joining'
                    else 'queued' end
    from live l
    left join stellwerk.plan_node n
      on n.tenant_id = p_tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_run.version and n.node_id = l.node_id
   where s.tenant_id = p_tenant_id and s.run_id = p_run.run_id and s.step_id = l.step_id;
end
$$;
comment on function stellwerk.recall_steps(bigint, stellwerk.run) is 'Finds out where a run stood that ended under an earlier release, as if its steps had kept it.';

create or replace function stellwerk.retry_plan(run_id bigint, from_node text default null, version integer default null)
returns table (node_id text, type text, runs_in text, times_done bigint, repeats boolean)
language plpgsql stable security definer  -- callers have no right to read the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_run       stellwerk.run;
  v_version   integer;
begin
  select * into v_run from stellwerk.run r where r.tenant_id = v_tenant_id and r.run_id = retry_plan.run_id;
  if v_run.run_id is null then
    raise exception 'there is no run %', coalesce(run_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk run list shows the latest.';
  end if;
  v_version := coalesce(version, v_run.version);
  return query
    with recursive ahead (node_id) as (
      select x.node_id
        from (select from_node as node_id where from_node is not null
              union
              select s.node_id from stellwerk.step s
               where from_node is null and s.tenant_id = v_tenant_id and s.run_id = v_run.run_id and s.was is not null) x
      union
      select e.target
        from ahead a
        join stellwerk.plan_node n on n.tenant_id = v_tenant_id and n.workflow_id = v_run.workflow_id and n.version = v_version and n.node_id = a.node_id
       cross join lateral jsonb_each(n.edges) p (port, targets)
       cross join lateral jsonb_array_elements_text(p.targets) e (target))
    select n.node_id, n.type, n.runs_in, count(s.step_id),
           count(s.step_id) > 0 and (n.runs_in = 'worker' or n.alone or n.type = 'logic.call')
      from (select distinct h.node_id from ahead h) a
      join stellwerk.plan_node n on n.tenant_id = v_tenant_id and n.workflow_id = v_run.workflow_id and n.version = v_version and n.node_id = a.node_id
      left join stellwerk.step s on s.tenant_id = v_tenant_id and s.run_id = v_run.run_id and s.node_id = n.node_id and s.state = 'completed'
     group by n.node_id, n.type, n.runs_in, n.alone, n.position
     order by n.position;
end
$$;
comment on function stellwerk.retry_plan(bigint, text, integer) is 'What retry_run with the same arguments would walk through: nodes, how often each was completed before, and whether that was an effect outside which would be repeated. Changes nothing.';
