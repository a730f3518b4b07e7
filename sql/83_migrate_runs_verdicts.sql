-- What becomes of each node, and of each run, when runs move to another version.

-- The plan is made once and holds, for each node of the old version, whether a token may stand on it while its run moves.
create or replace function stellwerk.migration_plan(p_tenant_id bigint, p_workflow_id bigint, p_from integer, p_to integer, p_given jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_map     jsonb := stellwerk.match_nodes(p_tenant_id, p_workflow_id, p_from, p_to, p_given);
  v_node    stellwerk.plan_node;
  v_nodes   jsonb := '{}'::jsonb;
  v_problem text[];
  v_loop    text[];
begin
  for v_node in
    select * from stellwerk.plan_node n where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_from
     order by n.position
  loop
    v_problem := coalesce(stellwerk.token_problem(v_node, p_to, v_map), stellwerk.loops_problem(v_node, p_to, v_map));
    -- A loop that has begun must go on over the same items in the same body.
    v_loop := case when v_node.type = 'logic.loop' then coalesce(v_problem, stellwerk.loop_problem(v_node, p_to, v_map)) else v_problem end;
    v_nodes := v_nodes || jsonb_build_object(v_node.node_id, jsonb_strip_nulls(jsonb_build_object(
      'to', v_map -> v_node.node_id, 'verdict', v_problem[1], 'reason', v_problem[2],
      'loop_verdict', v_loop[1], 'loop_reason', v_loop[2])));
  end loop;
  return jsonb_build_object(
    'nodes', v_nodes,
    'aliases', (select coalesce(jsonb_object_agg(m.value, m.key), '{}') from jsonb_each_text(v_map) m where m.value <> m.key),
    -- New names that the old version gave to other nodes.
    'reused', (select coalesce(jsonb_agg(m.value), '[]') from jsonb_each_text(v_map) m where m.value <> m.key and v_nodes ? m.value),
    -- In any version: a run may have been on several.
    'compensates', exists (select from stellwerk.plan_node n
                            where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.compensate is not null));
end
$$;
comment on function stellwerk.migration_plan(bigint, bigint, integer, integer, jsonb) is 'What a migration does to each node of the old version: { nodes: { node: { to, verdict, reason, loop_verdict, loop_reason } }, aliases: { new: old }, reused: [new names that other nodes had], compensates }. A verdict is absent when it is ok; loop_* hold for a loop that has begun.';

create or replace function stellwerk.token_problem(p_node stellwerk.plan_node, p_to integer, p_map jsonb)
returns text[] language plpgsql stable set search_path = '' as $$
declare
  v_target     text := p_map ->> p_node.node_id;
  v_type       text;
  v_trigger    boolean;
  v_candidates text;
begin
  select n.type, n.runs_in = 'trigger' into v_type, v_trigger from stellwerk.plan_node n
   where n.tenant_id = p_node.tenant_id and n.workflow_id = p_node.workflow_id and n.version = p_to
     and n.node_id = coalesce(v_target, p_node.node_id);
  if v_target is not null then
    -- What started the run is past: any other trigger may stand for it.
    return case when v_type <> p_node.type and not (v_trigger and p_node.runs_in = 'trigger') then
             array['blocked', format('node %s is of type %s and %s of type %s; a token keeps the type of its node',
                                     p_node.node_id, p_node.type, v_target, v_type)] end;
  end if;
  select string_agg(n.node_id, ', ' order by n.position) into v_candidates
    from stellwerk.plan_node n
   where n.tenant_id = p_node.tenant_id and n.workflow_id = p_node.workflow_id and n.version = p_to
     and (n.type = p_node.type or (n.runs_in = 'trigger' and p_node.runs_in = 'trigger'))
     and not exists (select from jsonb_each_text(p_map) m where m.value = n.node_id);
  return case
    when v_candidates is not null then
      array['needs_map', format('node %s (%s) has no counterpart in version %s; it may be %s',
                              p_node.node_id, p_node.type, p_to, v_candidates)]
    when v_type is not null then
      array['blocked', format('node %s is %s in version %s and was %s, and no other node there can take its place',
                            p_node.node_id, v_type, p_to, p_node.type)]
    else
      array['blocked', format('node %s (%s) is gone in version %s, and no node there can take its place',
                            p_node.node_id, p_node.type, p_to)] end;
end
$$;
comment on function stellwerk.token_problem(stellwerk.plan_node, integer, jsonb) is 'Why a token on a node cannot move to a version: array of verdict and reason; null when it can, as far as its own node goes.';

-- The loops around a node, from the inside to the outside, must be those around its counterpart, unchanged.
create or replace function stellwerk.loops_problem(p_node stellwerk.plan_node, p_to integer, p_map jsonb)
returns text[] language plpgsql stable set search_path = '' as $$
declare
  v_new     text;
  v_loop    stellwerk.plan_node;
  v_problem text[];
begin
  select n.loop_node into v_new from stellwerk.plan_node n
   where n.tenant_id = p_node.tenant_id and n.workflow_id = p_node.workflow_id and n.version = p_to
     and n.node_id = p_map ->> p_node.node_id;
  if p_map ->> p_node.loop_node is distinct from v_new or (p_node.loop_node is null) <> (v_new is null) then
    return array['blocked', format('node %s stands %s in version %s and %s in version %s', p_node.node_id,
      coalesce('in loop ' || p_node.loop_node, 'in no loop'), p_node.version, coalesce('in loop ' || v_new, 'in no loop'), p_to)];
  end if;
  if p_node.loop_node is null then
    return null;
  end if;
  select * into v_loop from stellwerk.plan_node n
   where n.tenant_id = p_node.tenant_id and n.workflow_id = p_node.workflow_id and n.version = p_node.version
     and n.node_id = p_node.loop_node;
  v_problem := stellwerk.loop_problem(v_loop, p_to, p_map);
  return coalesce(v_problem, stellwerk.loops_problem(v_loop, p_to, p_map));
end
$$;
comment on function stellwerk.loops_problem(stellwerk.plan_node, integer, jsonb) is 'Why a token cannot move with the loops around it: array of verdict and reason; null when it can.';

create or replace function stellwerk.loop_problem(p_loop stellwerk.plan_node, p_to integer, p_map jsonb)
returns text[] language plpgsql stable set search_path = '' as $$
declare
  v_new stellwerk.plan_node;
begin
  select * into v_new from stellwerk.plan_node n
   where n.tenant_id = p_loop.tenant_id and n.workflow_id = p_loop.workflow_id and n.version = p_to
     and n.node_id = p_map ->> p_loop.node_id;
  if stellwerk.with_new_names(stellwerk.items_of(p_loop), p_map) is distinct from stellwerk.items_of(v_new) then
    return array['blocked', format('the items of loop %s changed in version %s', p_loop.node_id, p_to)];
  end if;
  if array(select p_map ->> e.node_id from jsonb_array_elements_text(p_loop.edges -> 'each') e (node_id) order by 1)
     is distinct from array(select e.node_id from jsonb_array_elements_text(v_new.edges -> 'each') e (node_id) order by 1) then
    return array['blocked', format('loop %s begins its iterations elsewhere in version %s', p_loop.node_id, p_to)];
  end if;
  return null;
end
$$;
comment on function stellwerk.loop_problem(stellwerk.plan_node, integer, jsonb) is 'Why a loop that has begun cannot go on in a version: array of verdict and reason; null when it can.';

create or replace function stellwerk.items_of(p_loop stellwerk.plan_node)
returns jsonb language sql immutable set search_path = '' as $$
  select jsonb_build_array(p_loop.config -> 'items',
                           (select jsonb_agg(d.value order by d.value -> 'at') from jsonb_array_elements(p_loop.dynamic) d (value)
                             where d.value -> 'at' ->> 0 = 'items'))
$$;
comment on function stellwerk.items_of(stellwerk.plan_node) is 'What a loop goes through, as compiled.';

create or replace function stellwerk.judge_runs(p_tenant_id bigint, p_run_ids bigint[], p_from integer, p_plan jsonb)
returns setof stellwerk.run_verdict language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  v_nodes  jsonb := p_plan -> 'nodes';
  v_undoes boolean := p_plan -> 'compensates' = 'true';
begin
  return query
    select r.run_id, coalesce(w.verdict, 'ok'), w.reason, coalesce(l.mapping, '{}'), coalesce(l.steps, '[]'), coalesce(u.undos, '[]'),
           coalesce(l.joining, false)
      from unnest(p_run_ids) x (run_id)
     cross join lateral (
       select o.run_id, o.state, o.version, o.ending, o.trigger_node, o.recount, o.aliases from stellwerk.run o
        where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
      left join lateral (
        select jsonb_object_agg(s.node_id, s.plan -> 'to') as mapping,
               jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                 'step', s.step_id, 'node', s.node_id, 'version', s.version, 'state', s.state, 'attempt', s.attempt, 'failures', s.failures,
                 'arrived', s.arrived)) order by s.step_id) as steps,
               bool_or(s.state = 'joining') as joining,
               (array_agg(array[s.problem[1], s.problem[2]] order by s.problem[1] = 'blocked' desc, s.step_id)
                  filter (where s.problem is not null))[1:1] as problem
          from (select o.*, p.plan, stellwerk.step_problem(o, p.plan) as problem
                  from stellwerk.step o
                 cross join lateral (select v_nodes -> o.node_id) p (plan)
                 where o.tenant_id = p_tenant_id and o.run_id = r.run_id
                   and o.state in ('queued', 'running', 'waiting', 'joining')) s) l on true
      left join lateral (
        select jsonb_agg(jsonb_build_object('step', s.step_id, 'undo', s.undo) order by s.step_id) as undos,
               min(s.undo) filter (where v_nodes -> s.undo ->> 'to' is null) as lost
          from stellwerk.step s
         where v_undoes and s.tenant_id = p_tenant_id and s.run_id = r.run_id and s.undo is not null) u on true
      left join lateral (
        select y.verdict, y.reason
         from (values
           (1, case when r.ending is not null then 'blocked' end, 'the run is being compensated'),
           (2, l.problem[1][1], l.problem[1][2]),
           (3, v_nodes -> r.trigger_node ->> 'verdict',
               'the run began at ' || r.trigger_node || ': ' || (v_nodes -> r.trigger_node ->> 'reason')),
           (4, case when u.lost is not null then 'needs_map' end,
               format('node %s, which would compensate a completed step, has no counterpart', u.lost)),
           (5, case when p_plan -> 'reused' <> '[]' or r.recount
                    then stellwerk.name_problem(p_tenant_id, r.run_id, r.recount, r.aliases, p_plan) end,
               'a renamed node would have the name of another one that the run has been on')) y (place, verdict, reason)
        where y.verdict is not null
        order by y.verdict = 'blocked' desc, y.place limit 1) w on true
     where r.version = p_from and r.state in ('pending', 'running', 'waiting', 'paused')
     order by r.run_id;
end
$$;
comment on function stellwerk.judge_runs(bigint, bigint[], integer, jsonb) is 'Whether each of these runs can move by a migration plan, and what must be kept to move it back. Runs that have ended or are on another version are left out.';

create or replace function stellwerk.step_problem(p_step stellwerk.step, p_plan jsonb)
returns text[] language plpgsql stable set search_path = '' as $$
begin
  if p_plan is null then
    return array['blocked', format('step %s stands on node %s, which version %s does not have',
                                   p_step.step_id, p_step.node_id, p_step.version)];
  end if;
  if p_step.type = 'logic.loop' and p_step.state = 'waiting' then
    if p_plan ? 'loop_verdict' then
      return array[p_plan ->> 'loop_verdict', p_plan ->> 'loop_reason'];
    end if;
  elsif p_plan ? 'verdict' then
    return array[p_plan ->> 'verdict', p_plan ->> 'reason'];
  end if;
  if p_plan ->> 'to' <> p_step.node_id and exists (
       select from stellwerk.step s
        where s.tenant_id = p_step.tenant_id and s.run_id = p_step.run_id and s.node_id = p_plan ->> 'to' and s.scope_id = p_step.scope_id
          and s.visit = p_step.visit) then
    return array['blocked', format('node %s would be called %s, and the run has been on another node of that name',
                                   p_step.node_id, p_plan ->> 'to')];
  end if;
  return null;
end
$$;
comment on function stellwerk.step_problem(stellwerk.step, jsonb) is 'Why a live step cannot move, given what the plan says of its node: array of verdict and reason; null when it can.';

-- Earlier outputs are found by name, so a name must not come to mean another node than before.
create or replace function stellwerk.name_problem(p_tenant_id bigint, p_run_id bigint, p_moved boolean, p_aliases jsonb, p_plan jsonb)
returns text language plpgsql stable set search_path = '' as $$
begin
  return (
    select 'blocked' from jsonb_each_text(p_plan -> 'aliases') n (new_id, old_id)
     where (p_moved or p_plan -> 'reused' ? n.new_id)
       and p_aliases ->> n.old_id is distinct from n.new_id  -- it goes back to the name that it had
       and exists (select from stellwerk.step s where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.node_id = n.new_id)
     limit 1);
end
$$;
comment on function stellwerk.name_problem(bigint, bigint, boolean, jsonb, jsonb) is 'blocked when a new name is the one of another node that the run has passed; else null.';
