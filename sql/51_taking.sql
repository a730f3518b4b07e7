-- Steps that a worker takes in the call that makes them ready: it pumps, or hands in results, says how many it has places for,
-- and is answered with the steps themselves. They are stored once, as running, and never queued. If the worker dies, or its
-- answer is lost, they are taken over like all others that a worker holds.

create or replace function stellwerk.pump_and_begin(p_batch integer, p_worker_id bigint, p_types text[], p_room integer)
returns jsonb language plpgsql security definer  -- workers have no right to write the tables
set search_path = '' as $$
declare
  v_answer jsonb := stellwerk.pump_tenants(p_batch, row(p_worker_id, p_types, p_room)::stellwerk.taker);
begin
  return v_answer || jsonb_build_object('begun', stellwerk.take_begun(), 'ready', stellwerk.take_ready() || stellwerk.fair_turns(10));
end
$$;
comment on function stellwerk.pump_and_begin(integer, bigint, text[], integer) is 'pump, in which a worker takes up to so many of the steps that become ready, of these types. Answers as pump does, and begun: [tenant, …] with the columns of begin_steps for each; ready names the others.';

-- What may raise, or has a rate limit, goes through the queue: there one step can fail, or be put off, by itself.
create or replace function stellwerk.take_at_once(p_tenant_id bigint, p_tokens stellwerk.token[], p_taker stellwerk.taker)
returns stellwerk.token[] language plpgsql set search_path = '' as $$
declare
  v_begun  jsonb := coalesce(nullif(current_setting('stellwerk.begun', true), ''), '[]');
  v_room   integer := p_taker.room - jsonb_array_length(v_begun);
  v_first  stellwerk.token[] := p_tokens[:v_room];
  v_limits text[];
  v_taken  record;
begin
  if v_room <= 0 then
    return p_tokens;
  end if;
  select array_agg(l.kind || ':' || l.name) into v_limits from stellwerk.rate_limit l where l.tenant_id = p_tenant_id;
  select array_agg(c.token) filter (where c.taken) as tokens, array_agg(c.input) filter (where c.taken) as inputs,
         array_agg(c.timeout) filter (where c.taken) as timeouts, array_agg(c.token) filter (where not c.taken) as others,
         jsonb_agg(jsonb_build_array(p_tenant_id, (c.token).run_id, (c.token).step_id)) filter (where c.taken) as keys
    into v_taken
    from (select x.token, x.timeout, x.input,
                 x.able and (v_limits is null or not stellwerk.limits_for((x.token).type, coalesce(x.input, x.config)) && v_limits) as taken
            from (select t as token, n.timeout, n.config, a.able,
                         case when a.able and n.dynamic <> '[]' then stellwerk.render(n.config, n.dynamic, c.context) end as input
                    from unnest(v_first) t
                   cross join lateral (
                     select o.timeout, o.config, o.dynamic, o.may_raise from stellwerk.plan_node o
                      where o.tenant_id = p_tenant_id and o.workflow_id = t.workflow_id and o.version = t.version and o.node_id = t.node_id offset 0) n
                   cross join lateral (select t.type = any (p_taker.types) and (n.dynamic = '[]' or not n.may_raise) as able) a
                    left join stellwerk.contexts(p_tenant_id, v_first) c on c.step_id = t.step_id) x) c;
  if v_taken.tokens is null then
    return p_tokens;
  end if;
  begin
    perform stellwerk.take_steps(p_tenant_id, p_taker.worker_id, v_taken.tokens, v_taken.inputs, v_taken.timeouts);
  exception when others then
    return p_tokens;  -- told when they are begun from the queue, one by one
  end;
  perform set_config('stellwerk.begun', (v_begun || v_taken.keys)::text, true);
  return nullif(v_taken.others || p_tokens[v_room + 1:], '{}');
end
$$;
comment on function stellwerk.take_at_once(bigint, stellwerk.token[], stellwerk.taker) is 'Gives a worker as many of these tokens of locked runs as it has room for, and answers the others, null if there are none. What it has got in this transaction is kept for take_begun.';

create or replace function stellwerk.take_begun()
returns jsonb language plpgsql set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off as $$
declare
  v_begun text := current_setting('stellwerk.begun', true);
begin
  if coalesce(v_begun, '') = '' then
    return '[]'::jsonb;
  end if;
  perform set_config('stellwerk.begun', '', true);
  return (
    select jsonb_agg(jsonb_build_array(
             t.tenant_id, s.run_id, s.step_id, s.attempt, s.node_id, s.type, s.visit, coalesce(s.input, n.config), extract(epoch from n.timeout)::double precision,
             s.run_id || ':' || s.step_id || ':' || s.visit, s.failures, w.slug, r.traceparent, t.slug) order by k.place)
      from jsonb_array_elements(v_begun::jsonb) with ordinality k (key, place)
     cross join lateral (select o.tenant_id, o.slug from stellwerk.tenant o where o.tenant_id = (k.key ->> 0)::bigint offset 0) t
     cross join lateral (
       select o.* from stellwerk.step o
        where o.tenant_id = t.tenant_id and o.run_id = (k.key ->> 1)::bigint and o.step_id = (k.key ->> 2)::bigint offset 0) s
     cross join lateral (
       select o.workflow_id, o.traceparent from stellwerk.run o where o.tenant_id = t.tenant_id and o.run_id = s.run_id offset 0) r
     cross join lateral (select o.slug from stellwerk.workflow o where o.tenant_id = t.tenant_id and o.workflow_id = r.workflow_id offset 0) w
     cross join lateral (
       select o.config, o.timeout from stellwerk.plan_node o
        where o.tenant_id = t.tenant_id and o.workflow_id = r.workflow_id and o.version = s.version and o.node_id = s.node_id offset 0) n);
end
$$;
comment on function stellwerk.take_begun() is 'The steps that take_at_once has given away in this transaction, as [tenant, …] with the columns of begin_steps for each, and forgets them.';
