-- Looking back: how a run stood at an earlier time, and where two runs differ.

create or replace function stellwerk.run_state_at(run_id bigint, at timestamptz)
returns table (node_id text, step_id bigint, scope bigint, visit integer, state text, attempt integer, port text, since timestamptz, worker_id bigint)
language plpgsql stable security definer  -- callers see their own tenant's runs, not the engine's tables
set search_path = '' as $$
declare
  v_run     stellwerk.run := stellwerk.run_to_explain(stellwerk.current_tenant_id(), run_id);
  v_running boolean;
  v_live    boolean;
  v_failed  boolean;
  v_state   text;
  v_since   timestamptz;
begin
  if at is null then
    raise exception 'there is no time to look at' using errcode = 'SW002', hint = 'Pass a time, such as now() - interval ''1 hour''.';
  elsif at < v_run.created_at then
    return;
  end if;
  select bool_or(s.state in ('queued', 'running')), bool_or(s.state in ('queued', 'running', 'waiting', 'joining')),
         bool_or(s.reopened), max(s.since)
    into v_running, v_live, v_failed, v_since
    from stellwerk.steps_at(v_run, run_state_at.at) s;
  if v_run.ended_at <= at then
    v_state := v_run.state;
    v_since := v_run.ended_at;
  elsif v_run.started_at is null or v_run.started_at > at then
    v_state := 'pending';
    v_since := v_run.created_at;
  elsif v_run.state = 'paused' and v_run.paused_at <= at then
    v_state := 'paused';
    v_since := v_run.paused_at;
  elsif v_failed and not v_live then
    v_state := 'failed';
  else
    v_state := case when v_running or not v_live then 'running' else 'waiting' end;
  end if;
  return query select null::text, null::bigint, null::bigint, null::integer, v_state, null::integer, null::text, v_since, null::bigint;
  return query
    select s.node_id, s.step_id, s.scope, s.visit, s.state, s.attempt, s.port, s.since, s.worker_id from stellwerk.steps_at(v_run, run_state_at.at) s order by s.step_id;
end
$$;
comment on function stellwerk.run_state_at(bigint, timestamptz) is 'How a run stood at a time: first a row for the run itself (node_id null), then one for each step that existed; since says from when it stood so. No row before the run was asked for. Told from what is kept: a pause that is over leaves no trace, and of a step that was reopened before it ended only the attempts are known. Errors: SW007, SW002.';

-- A step that retry_run reopened has a new queued_at; that it was there before, and had failed, is known from its attempts.
create or replace function stellwerk.steps_at(p_run stellwerk.run, p_at timestamptz)
returns table (node_id text, step_id bigint, scope bigint, visit integer, state text, attempt integer, port text, since timestamptz, worker_id bigint,
               reopened boolean)
language plpgsql stable set search_path = '' as $$
begin
  return query
    select s.node_id, s.step_id, s.scope_id, s.visit,
           case when s.ended_at <= p_at then s.state
                when x.reopened then 'failed'
                when coalesce(n.runs_in, s.runs_in) = 'wait' or s.type = 'logic.loop' then 'waiting'
                when t.started_at is null and s.arrived is not null and s.failures = 0 then 'joining'
                when t.started_at is null or t.ended_at <= p_at then 'queued'
                when s.runs_in = 'worker' then 'running'
                else 'queued' end,
           coalesce(t.attempt, 0), case when s.ended_at <= p_at then s.port end,
           case when s.ended_at <= p_at then s.ended_at
                when t.ended_at <= p_at then case when s.queued_at <= p_at then greatest(t.ended_at, s.queued_at) else t.ended_at end
                else coalesce(t.started_at, s.queued_at) end,
           t.worker_id, x.reopened
      from stellwerk.step s
      left join stellwerk.plan_node n on n.tenant_id = s.tenant_id and n.workflow_id = p_run.workflow_id and n.version = s.version and n.node_id = s.node_id
      -- The last attempt that had begun by then: one of those that are kept, or the step's own last.
      left join lateral (
        select x.attempt, x.started_at, x.ended_at, x.worker_id
          from (select a.attempt, a.started_at, a.ended_at, a.worker_id from stellwerk.step_attempt a
                 where a.tenant_id = s.tenant_id and a.run_id = s.run_id and a.step_id = s.step_id
                union all
                select s.attempt, s.started_at, s.ended_at, s.worker_id
                 where s.attempt > 0 and not exists (
                         select from stellwerk.step_attempt a
                          where a.tenant_id = s.tenant_id and a.run_id = s.run_id and a.step_id = s.step_id and a.attempt = s.attempt)) x
         where x.started_at <= p_at
         order by x.attempt desc limit 1) t on true
     cross join lateral (
       select s.queued_at > p_at and t.ended_at <= p_at and not exists (
                select from stellwerk.step_attempt a
                 where a.tenant_id = s.tenant_id and a.run_id = s.run_id and a.step_id = s.step_id and a.attempt > t.attempt and a.started_at < s.queued_at
              ) as reopened) x
     where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and (s.queued_at <= p_at or t.started_at is not null);
end
$$;
comment on function stellwerk.steps_at(stellwerk.run, timestamptz) is 'The steps that a run had at a time, each in the state in which it was then; reopened says that it had failed, and that retry_run sent it on again later.';

create or replace function stellwerk.diff_runs(a bigint, b bigint)
returns table ("position" integer, kind text, node_id text, path text, a_value jsonb, b_value jsonb)
language plpgsql stable security definer  -- callers see their own tenant's runs, not the engine's tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_a         stellwerk.run := stellwerk.run_to_explain(v_tenant_id, a);
  v_b         stellwerk.run := stellwerk.run_to_explain(v_tenant_id, b);
begin
  return query
    select row_number() over (order by d.part, d.place)::integer, d.kind, d.node_id, d.path, d.a_value, d.b_value
      from (
        select 1 as part, f.place, f.kind, null::text as node_id, null::text as path, f.a_value, f.b_value
          from (values (1, 'workflow', to_jsonb(stellwerk.slug_of(v_tenant_id, v_a.workflow_id)), to_jsonb(stellwerk.slug_of(v_tenant_id, v_b.workflow_id))),
                       (2, 'version', to_jsonb(v_a.version), to_jsonb(v_b.version)),
                       (3, 'trigger', to_jsonb(v_a.trigger_node), to_jsonb(v_b.trigger_node)),
                       (4, 'state', to_jsonb(v_a.state), to_jsonb(v_b.state))) f (place, kind, a_value, b_value)
         where f.a_value is distinct from f.b_value
        union all
        select 2, v.ordinality, 'payload', null, v.path, v.a_value, v.b_value
          from stellwerk.differing_values(v_a.payload, v_b.payload) with ordinality v (path, a_value, b_value, ordinality)
        union all
        select 2, 1000 + v.ordinality, 'old', null, v.path, v.a_value, v.b_value
          from stellwerk.differing_values(v_a.old, v_b.old) with ordinality v (path, a_value, b_value, ordinality)
        union all
        select 3, s.ordinality, s.kind, s.node_id, s.path, s.a_value, s.b_value
          from stellwerk.differing_steps(v_a, v_b) with ordinality s (kind, node_id, path, a_value, b_value, ordinality)
        union all
        select 4, v.ordinality, 'output', null, v.path, v.a_value, v.b_value
          from stellwerk.differing_values(v_a.output, v_b.output) with ordinality v (path, a_value, b_value, ordinality)
        union all
        select 4, 1000 + v.ordinality, 'error', null, v.path, v.a_value, v.b_value
          from stellwerk.differing_values(v_a.error, v_b.error) with ordinality v (path, a_value, b_value, ordinality)
        union all
        select 5, 0, 'seconds', null, null, to_jsonb(stellwerk.seconds_between(v_a.started_at, v_a.ended_at)), to_jsonb(stellwerk.seconds_between(v_b.started_at, v_b.ended_at))
        union all
        select 5, n.ordinality, 'seconds', n.node_id, null, n.a_value, n.b_value
          from stellwerk.differing_durations(v_a, v_b) with ordinality n (node_id, a_value, b_value, ordinality)) d;
end
$$;
comment on function stellwerk.diff_runs(bigint, bigint) is 'Where two runs differ: kind is workflow, version, trigger, state, payload, old, parted (the first step at which they do), step (taken by one only, or with another end), output and error (of a step, or of the run), seconds (the run, and the ten nodes that differ most). A step in a loop is named by its items: node[2]. Errors: SW007.';

-- Scopes have other numbers in every run; which items they are for is the same.
create or replace function stellwerk.placed_steps(p_run stellwerk.run)
returns table (place bigint, node_id text, items text, visit integer, state text, port text, failures integer, output jsonb, error jsonb, seconds numeric)
language plpgsql stable set search_path = '' as $$
begin
  return query
    with recursive scope_items as (
      select c.scope_id, '[' || c.position || ']' as items
        from stellwerk.scope c where c.tenant_id = p_run.tenant_id and c.run_id = p_run.run_id and c.parent_scope_id = 0
      union all
      select c.scope_id, i.items || '[' || c.position || ']'
        from scope_items i
        join stellwerk.scope c on c.tenant_id = p_run.tenant_id and c.run_id = p_run.run_id and c.parent_scope_id = i.scope_id)
    select row_number() over (order by s.step_id), s.node_id, coalesce(i.items, ''), s.visit, s.state, s.port, s.failures, s.output, s.error,
           stellwerk.seconds_between(s.queued_at, s.ended_at)
      from stellwerk.step s
      left join scope_items i on i.scope_id = s.scope_id
     where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id;
end
$$;
comment on function stellwerk.placed_steps(stellwerk.run) is 'The steps of a run in the order in which tokens set out, each with the items of the loops around it, such as [2][0].';

create or replace function stellwerk.differing_steps(p_a stellwerk.run, p_b stellwerk.run)
returns table (kind text, node_id text, path text, a_value jsonb, b_value jsonb)
language plpgsql stable set search_path = '' as $$
begin
  return query
    with pair as materialized (
      select coalesce(a.node_id, b.node_id) || coalesce(a.items, b.items)
             || case when coalesce(a.visit, b.visit) > 1 then ' visit ' || coalesce(a.visit, b.visit) else '' end as name,
             coalesce(a.place, b.place) as place, a.place as a_place, b.place as b_place,
             case when a.place is not null then jsonb_build_object('state', a.state, 'port', a.port, 'failures', a.failures) end as a_end,
             case when b.place is not null then jsonb_build_object('state', b.state, 'port', b.port, 'failures', b.failures) end as b_end,
             a.output as a_output, b.output as b_output, a.error as a_error, b.error as b_error
        from stellwerk.placed_steps(p_a) a
        full join stellwerk.placed_steps(p_b) b on b.node_id = a.node_id and b.items = a.items and b.visit = a.visit
    ), ended as (
      select p.name, p.place, p.a_end, p.b_end, (p.a_end ->> 'state', p.a_end ->> 'port') is distinct from (p.b_end ->> 'state', p.b_end ->> 'port') as other_way
        from pair p where p.a_end is distinct from p.b_end
    )
    (select 'parted', e.name, null::text, e.a_end, e.b_end from ended e where e.other_way
      -- Before a step that only one of them has stands the one that left by another port.
      order by (e.a_end is null or e.b_end is null), e.place, e.a_end is null limit 1)
    union all
    (select 'step', e.name, null, e.a_end, e.b_end from ended e order by e.place, e.a_end is null limit 1000)
    union all
    (select 'output', p.name, v.path, v.a_value, v.b_value
       from (select * from pair where a_end is not null and b_end is not null and a_output is distinct from b_output order by place limit 200) p
      cross join lateral stellwerk.differing_values(p.a_output, p.b_output, 20) v
      order by p.place)
    union all
    (select 'error', p.name, v.path, v.a_value, v.b_value
       from (select * from pair where a_end is not null and b_end is not null and a_error is distinct from b_error order by place limit 200) p
      cross join lateral stellwerk.differing_values(p.a_error, p.b_error, 20) v
      order by p.place);
end
$$;
comment on function stellwerk.differing_steps(stellwerk.run, stellwerk.run) is 'Which steps of two runs differ: the one where their ways part, then each with another end or taken by one only, then outputs and errors.';

create or replace function stellwerk.differing_durations(p_a stellwerk.run, p_b stellwerk.run)
returns table (node_id text, a_value jsonb, b_value jsonb)
language plpgsql stable set search_path = '' as $$
begin
  return query
    select x.node_id, to_jsonb(x.a_seconds), to_jsonb(x.b_seconds)
      from (select coalesce(a.node_id, b.node_id) as node_id, a.seconds as a_seconds, b.seconds as b_seconds
              from (select s.node_id, sum(s.seconds) as seconds from stellwerk.placed_steps(p_a) s group by s.node_id) a
              full join (select s.node_id, sum(s.seconds) as seconds from stellwerk.placed_steps(p_b) s group by s.node_id) b using (node_id)) x
     where abs(coalesce(x.a_seconds, 0) - coalesce(x.b_seconds, 0)) >= 0.1
     order by abs(coalesce(x.a_seconds, 0) - coalesce(x.b_seconds, 0)) desc limit 10;
end
$$;
comment on function stellwerk.differing_durations(stellwerk.run, stellwerk.run) is 'The ten nodes in which two runs spent the most different time, by at least a tenth of a second.';

-- Objects are compared key by key and arrays place by place, layer by layer: no recursion, whatever the depth.
create or replace function stellwerk.differing_values(p_a jsonb, p_b jsonb, p_limit integer default 200)
returns table (path text, a_value jsonb, b_value jsonb)
language plpgsql stable set search_path = '' as $$
begin
  return query
    with recursive pair as (
      select '{}'::text[] as at, p_a as a, p_b as b where p_a is distinct from p_b
      union all
      select p.at || c.key, c.a, c.b
        from pair p
       cross join lateral (select case when jsonb_typeof(p.a) = jsonb_typeof(p.b) then jsonb_typeof(p.a) end as both) t
       cross join lateral (
         select coalesce(x.key, y.key) as key, x.value as a, y.value as b
           from jsonb_each(case when t.both = 'object' then p.a else '{}' end) x
           full join jsonb_each(case when t.both = 'object' then p.b else '{}' end) y using (key)
         union all
         select (coalesce(x.place, y.place) - 1)::text, x.value, y.value
           from jsonb_array_elements(case when t.both = 'array' then p.a else '[]' end) with ordinality x (value, place)
           full join jsonb_array_elements(case when t.both = 'array' then p.b else '[]' end) with ordinality y (value, place) using (place)) c
       where c.a is distinct from c.b)
    select array_to_string(p.at, '.'), p.a, p.b
      from pair p
     where jsonb_typeof(p.a) is distinct from jsonb_typeof(p.b) or jsonb_typeof(p.a) not in ('object', 'array')
     order by p.at limit p_limit;
end
$$;
comment on function stellwerk.differing_values(jsonb, jsonb, integer) is 'The places at which two JSON values differ, as dotted paths, with both values; null stands for a place that is missing.';
