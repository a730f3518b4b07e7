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
  v_begun  jsonb := coalesce(nullif(current_setting('stellwerk.begun', true), '')::jsonb, '[]');
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
         jsonb_agg(c.answer) filter (where c.taken) as answers
    into v_taken
    from (select x.token, x.timeout, x.input,
                 x.able and (v_limits is null or not stellwerk.limits_for((x.token).type, coalesce(x.input, x.config)) && v_limits) as taken,
                 jsonb_build_array(
                   p_tenant_id, x.run_id, x.step_id, x.attempt + 1, x.node_id, x.type, x.visit, coalesce(x.input, x.config),
                   extract(epoch from x.timeout)::double precision, x.run_id || ':' || x.step_id || ':' || x.visit, x.failures, x.workflow,
                   x.traceparent, x.tenant) as answer
            from (select t as token, t.run_id, t.step_id, t.attempt, t.node_id, t.type, t.visit, t.failures, n.timeout, n.config, a.able,
                         w.slug as workflow, r.traceparent, o.slug as tenant,
                         case when a.able and n.dynamic <> '[]' then stellwerk.render(n.config, n.dynamic, c.context) end as input
                    from unnest(v_first) t
                   cross join lateral (
                     select o.timeout, o.config, o.dynamic, o.may_raise from stellwerk.plan_node o
                      where o.tenant_id = p_tenant_id and o.workflow_id = t.workflow_id and o.version = t.version and o.node_id = t.node_id offset 0) n
                   cross join lateral (select t.type = any (p_taker.types) and (n.dynamic = '[]' or not n.may_raise) as able) a
                   cross join lateral (
                     select o.slug from stellwerk.workflow o where o.tenant_id = p_tenant_id and o.workflow_id = t.workflow_id offset 0) w
                   cross join lateral (
                     select o.traceparent from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = t.run_id offset 0) r
                   cross join (select o.slug from stellwerk.tenant o where o.tenant_id = p_tenant_id offset 0) o
                    left join lateral (
                     select f.context from stellwerk.contexts(p_tenant_id, v_first) f where f.step_id = t.step_id and n.dynamic <> '[]' offset 0) c on true) x) c;
  if v_taken.tokens is null then
    return p_tokens;
  end if;
  begin
    perform stellwerk.take_steps(p_tenant_id, p_taker.worker_id, v_taken.tokens, v_taken.inputs, v_taken.timeouts);
  exception when others then
    return p_tokens;  -- told when they are begun from the queue, one by one
  end;
  perform set_config('stellwerk.begun', (v_begun || v_taken.answers)::text, true);
  return nullif(v_taken.others || p_tokens[v_room + 1:], '{}');
end
$$;
comment on function stellwerk.take_at_once(bigint, stellwerk.token[], stellwerk.taker) is 'Gives a worker as many of these tokens of locked runs as it has room for, and answers the others, null if there are none. What it has got in this transaction is kept for take_begun.';

create or replace function stellwerk.take_begun()
returns jsonb language plpgsql set search_path = '' as $$
declare
  v_begun text := current_setting('stellwerk.begun', true);
begin
  if coalesce(v_begun, '') = '' then
    return '[]'::jsonb;
  end if;
  perform set_config('stellwerk.begun', '', true);
  return v_begun::jsonb;
end
$$;
comment on function stellwerk.take_begun() is 'The steps that take_at_once has given away in this transaction, as [tenant, …] with the columns of begin_steps for each, and forgets them.';
