-- Which nodes follow: edges, visits, and where ways come together.
--
-- Why nothing can wait for ever: a token rests as 'joining' only while another live token of its scope stands on a node
-- from which its node can be reached going forward (plan_node.upstream, edges that lead back left out). Forward edges form
-- no cycle, so among the waiting tokens of a scope the one furthest upstream waits for none of the others; it waits for
-- a token that is queued, running or waiting for something named, and each of these ends. When it ends, routing looks again.
-- A loop's step is such a waiting token in the scope around the loop, and ends when its iterations have; an iteration's
-- tokens only wait for tokens of the same iteration, so the argument holds in each scope by itself. any and count only
-- shorten the waiting. An edge that leads back never delays anybody; how often it is taken is limited by max_visits.

create or replace function stellwerk.follow_edges(p_tenant_id bigint, p_moves stellwerk.move[], p_resting stellwerk.token[])
returns stellwerk.token[] language plpgsql set search_path = '' as $$
declare
  v_now    timestamptz := stellwerk.clock();
  v_tokens stellwerk.token[];
  v_cyclic boolean;
begin
  select array_agg(row(
           m.run_id, nextval('stellwerk.step_id_seq'), false, m.workflow_id, m.version, m.trigger_node, n.node_id, m.scope_id,
           -- 0 stands for a visit that must be counted.
           case when n.cyclic or m.recount then 0 else 1 end, 0, 0, case when n.joins then array[m.node_id] end, v_now, n.type,
           case when n.runs_in in ('trigger', 'wait') then 'sql' else n.runs_in end, n.alone, n.joins,
           m.recount, false)::stellwerk.token),
         bool_or(n.cyclic or m.recount)
    into v_tokens, v_cyclic
    from unnest(p_moves) m
   cross join lateral jsonb_array_elements_text(m.edges -> m.port) e (node_id)
   cross join lateral (
     select o.node_id, o.type, o.runs_in, o.alone, o.joins, o.cyclic from stellwerk.plan_node o
      where o.tenant_id = p_tenant_id and o.workflow_id = m.workflow_id and o.version = m.version and o.node_id = e.node_id offset 0) n
   where m.port is not null and not m.ending;
  return case when v_cyclic then stellwerk.count_visits(p_tenant_id, v_tokens, p_resting) else coalesce(v_tokens, '{}') end;
end
$$;
comment on function stellwerk.follow_edges(bigint, stellwerk.move[], stellwerk.token[]) is 'The tokens that go out along the edges of the ports that steps left by, in the order of the moves and of the document.';

create or replace function stellwerk.count_visits(p_tenant_id bigint, p_tokens stellwerk.token[], p_resting stellwerk.token[])
returns stellwerk.token[] language plpgsql set search_path = '' as $$
declare
  v_tokens stellwerk.token[] := p_tokens;
  v_token  stellwerk.token;
  v_visit  integer;
begin
  for i in 1 .. cardinality(v_tokens) loop
    v_token := v_tokens[i];
    continue when v_token.visit <> 0;
    -- The last visit may be stored, about to be stored, or among the tokens that go out with this one. Where ways meet
    -- those become one, and so count once.
    -- In this form there is one index that serves it; for max() another that reads the whole run seems as good.
    select s.visit into v_visit from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = v_token.run_id and s.node_id = v_token.node_id and s.scope_id = v_token.scope_id
     order by s.visit desc limit 1;
    select greatest(v_visit, max(t.visit)) into v_visit
      from unnest(p_resting || case when v_token.joins then '{}' else v_tokens[:i - 1] end) t
     where t.run_id = v_token.run_id and t.node_id = v_token.node_id and t.scope_id = v_token.scope_id;
    v_token.visit := coalesce(v_visit, 0) + 1;
    -- A worker node that is visited too often is run here, which comes to the error that says so.
    if v_token.runs_in = 'worker' and v_token.visit > 1 and exists (
         select from stellwerk.plan_node n
          where n.tenant_id = p_tenant_id and n.workflow_id = v_token.workflow_id and n.version = v_token.version and n.node_id = v_token.node_id
            and n.max_visits < v_token.visit) then
      v_token.runs_in := 'sql';
    end if;
    v_tokens[i] := v_token;
  end loop;
  return v_tokens;
end
$$;
comment on function stellwerk.count_visits(bigint, stellwerk.token[], stellwerk.token[]) is 'Counts the visits of tokens that stand on nodes of a cycle.';

create or replace function stellwerk.meet(p_joining stellwerk.token[], p_arriving stellwerk.token[])
returns stellwerk.token[] language plpgsql immutable set search_path = '' as $$
declare
  v_met stellwerk.token[];
begin
  -- One token per node and scope: the stored one if there is one, else the first that came.
  select array_agg(row(
           f.run_id, f.step_id, f.stored, f.workflow_id, f.version, f.trigger_node, f.node_id, f.scope_id, f.visit, f.attempt, f.failures,
           g.arrived, f.queued_at, f.type, f.runs_in, f.alone, f.joins,
           f.recount, f.ending)::stellwerk.token order by f.run_id, f.ordinality)
    into v_met
    from (select distinct on (t.run_id, t.scope_id, t.node_id) t.*
            from unnest(p_joining || p_arriving) with ordinality t (
                   run_id, step_id, stored, workflow_id, version, trigger_node, node_id, scope_id, visit, attempt, failures, arrived, queued_at,
                   type, runs_in, alone, joins, recount, ending, ordinality)
           order by t.run_id, t.scope_id, t.node_id, t.stored desc, t.ordinality) f
    join (select t.run_id, t.scope_id, t.node_id, array_agg(distinct a.node_id order by a.node_id) as arrived
            from unnest(p_joining || p_arriving) t
           cross join lateral unnest(t.arrived) a (node_id)
           group by t.run_id, t.scope_id, t.node_id) g
   using (run_id, scope_id, node_id);
  return coalesce(v_met, '{}');
end
$$;
comment on function stellwerk.meet(stellwerk.token[], stellwerk.token[]) is 'Tokens that arrive where others of their scope wait already become one with them.';

-- Splits joining tokens: those that may go on, and the others. logic.join with any or count goes on early.
create or replace function stellwerk.release(
  p_tenant_id bigint, p_joining stellwerk.token[], p_live stellwerk.token[],
  out ready stellwerk.token[], out waiting stellwerk.token[], out early boolean)
language plpgsql set search_path = '' as $$
begin
  select coalesce(array_agg(x.token) filter (where x.early or not x.expected), '{}'),
         coalesce(array_agg(x.token) filter (where not x.early and x.expected), '{}'),
         coalesce(bool_or(x.early), false)
    into ready, waiting, early
    from (select j as token,
                 j.type = 'logic.join' and case u.config ->> 'mode' when 'any' then true
                                                when 'count' then cardinality(j.arrived) >= (u.config ->> 'count')::integer else false end as early,
                 coalesce(u.nodes ?| l.nodes, false)
                 or exists (select 1 from stellwerk.step s
                             where s.tenant_id = p_tenant_id and s.run_id = j.run_id and s.scope_id = j.scope_id
                               and s.state in ('queued', 'running', 'waiting', 'joining') and u.nodes ? s.node_id) as expected
            from unnest(p_joining) j
           cross join lateral (
             select o.upstream -> j.trigger_node as nodes, o.config from stellwerk.plan_node o
              where o.tenant_id = p_tenant_id and o.workflow_id = j.workflow_id and o.version = j.version and o.node_id = j.node_id offset 0) u
            left join (select t.run_id, t.scope_id, array_agg(t.node_id) as nodes from unnest(p_live) t group by t.run_id, t.scope_id) l
              on l.run_id = j.run_id and l.scope_id = j.scope_id) x;
end
$$;
comment on function stellwerk.release(bigint, stellwerk.token[], stellwerk.token[]) is 'Which joining tokens may go on: those whose node no other live token of the scope, in memory or stored, can still reach going forward, and those of a logic.join that need not wait for all (early says that there is one).';

-- What could still have reached a join that goes on early is cancelled: stored steps, with the loops and children below
-- them, and tokens in memory, which are kept as cancelled steps.
create or replace function stellwerk.cut_branches(
  p_tenant_id bigint, p_ready stellwerk.token[], p_wave stellwerk.token[], p_joining stellwerk.token[], p_resting stellwerk.token[],
  out kept_ready stellwerk.token[], out kept_wave stellwerk.token[], out kept_joining stellwerk.token[], out kept_resting stellwerk.token[])
language plpgsql set search_path = '' as $$
declare
  c_reason constant text := 'another branch came first';
  v_join    stellwerk.token;
  v_nodes   jsonb;
  v_lost    bigint[];
  v_new     stellwerk.token[];
  v_stored  bigint[];
  v_scopes  bigint[];
begin
  kept_ready := p_ready;
  kept_wave := p_wave;
  kept_joining := p_joining;
  kept_resting := p_resting;
  foreach v_join in array p_ready loop
    continue when v_join.type <> 'logic.join';
    select n.upstream -> v_join.trigger_node into v_nodes from stellwerk.plan_node n
     where n.tenant_id = p_tenant_id and n.workflow_id = v_join.workflow_id and n.version = v_join.version and n.node_id = v_join.node_id
       and n.config ->> 'mode' in ('any', 'count');
    continue when v_nodes is null or not exists (select from unnest(kept_ready) t where t.step_id = v_join.step_id);
    select array_agg(t.step_id), array_agg(t) filter (where not t.stored) into v_lost, v_new
      from unnest(kept_ready || kept_wave || kept_joining || kept_resting) t
     where t.run_id = v_join.run_id and t.scope_id = v_join.scope_id and v_nodes ? t.node_id;
    if v_new is not null then
      perform stellwerk.write_cancelled(p_tenant_id, v_new, c_reason, false);
    end if;
    v_stored := array(
      select s.step_id from stellwerk.step s
       where s.tenant_id = p_tenant_id and s.run_id = v_join.run_id and s.scope_id = v_join.scope_id
         and s.state in ('queued', 'running', 'waiting', 'joining') and v_nodes ? s.node_id);
    v_scopes := stellwerk.cancel_steps(p_tenant_id, v_join.run_id, v_stored, c_reason, false);
    if cardinality(v_scopes) > 0 then
      perform stellwerk.write_cancelled(p_tenant_id, array(
        select t from unnest(kept_ready || kept_wave || kept_joining || kept_resting) t where t.scope_id = any (v_scopes)), c_reason, false);
    end if;
    kept_ready := array(select t from unnest(kept_ready) t where t.step_id <> all (coalesce(v_lost, '{}')) and t.scope_id <> all (v_scopes));
    kept_wave := array(select t from unnest(kept_wave) t where t.step_id <> all (coalesce(v_lost, '{}')) and t.scope_id <> all (v_scopes));
    kept_joining := array(select t from unnest(kept_joining) t where t.step_id <> all (coalesce(v_lost, '{}')) and t.scope_id <> all (v_scopes));
    kept_resting := array(select t from unnest(kept_resting) t where t.step_id <> all (coalesce(v_lost, '{}')) and t.scope_id <> all (v_scopes));
  end loop;
end
$$;
comment on function stellwerk.cut_branches(bigint, stellwerk.token[], stellwerk.token[], stellwerk.token[], stellwerk.token[]) is 'For joins that go on early: cancels what could still have reached them, and answers the tokens that are left.';

-- A run that failed keeps everything, so that it can be retried: also where its tokens in memory stood.
create or replace function stellwerk.drop_tokens(p_tenant_id bigint, p_run_ids bigint[], p_tokens stellwerk.token[])
returns void language plpgsql set search_path = '' as $$
declare
  v_run    record;
  v_tokens stellwerk.token[];
begin
  for v_run in
    select r.run_id, r.state = 'completed' as stopped, r.state = 'failed' and r.ending is null as retryable
      from unnest(p_run_ids) x (run_id)
     cross join lateral (select o.run_id, o.state, o.ending from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
  loop
    v_tokens := array(select t from unnest(p_tokens) t where t.run_id = v_run.run_id);
    if cardinality(v_tokens) > 0 then
      perform stellwerk.write_cancelled(p_tenant_id, v_tokens, case when v_run.stopped then 'the run was stopped' else 'the run failed' end, v_run.retryable);
    end if;
  end loop;
end
$$;
comment on function stellwerk.drop_tokens(bigint, bigint[], stellwerk.token[]) is 'Keeps the tokens in memory of runs that have just ended as cancelled steps.';

create or replace function stellwerk.without(p_tokens stellwerk.token[], p_run_ids bigint[])
returns stellwerk.token[] language sql immutable set search_path = '' as $$
  select coalesce(array_agg(t), '{}') from unnest(p_tokens) t where t.run_id <> all (p_run_ids)
$$;
comment on function stellwerk.without(stellwerk.token[], bigint[]) is 'The tokens of all other runs.';

create or replace function stellwerk.without_scopes(p_tokens stellwerk.token[], p_scope_ids bigint[])
returns stellwerk.token[] language sql immutable set search_path = '' as $$
  select coalesce(array_agg(t), '{}') from unnest(p_tokens) t where t.scope_id <> all (p_scope_ids)
$$;
comment on function stellwerk.without_scopes(stellwerk.token[], bigint[]) is 'The tokens of all other scopes.';
