-- Turns between tenants at the workers. Runs are started and moved in batches per tenant, in random order, so nobody is passed over
-- there. The queue of worker steps is one line for all, by priority and age: a tenant with 100,000 steps in it would keep all
-- others waiting. So pump and complete_steps, which every worker calls all the time, also name to it some steps of other
-- tenants that have waited for a while, and the worker takes these directly. A step is taken once, however often it is named.

create or replace function stellwerk.fair_turns(p_count integer, p_tenant_id bigint default null)
returns jsonb language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  c_sample  constant integer := 50;  -- tenants that are looked at, from a random one on
  v_from    bigint;
  v_tenants bigint[];
begin
  if p_count < 1 or (select count(*) from (select from stellwerk.tenant t limit 2) c) < 2 then
    return '[]'::jsonb;
  end if;
  select min(t.tenant_id) + floor(random() * (max(t.tenant_id) - min(t.tenant_id) + 1))::bigint into v_from from stellwerk.tenant t;
  select array_agg(c.tenant_id) into v_tenants
    from (select t.tenant_id
            from ((select o.tenant_id from stellwerk.tenant o where o.tenant_id >= v_from order by o.tenant_id limit c_sample)
                  union all
                  (select o.tenant_id from stellwerk.tenant o where o.tenant_id < v_from order by o.tenant_id limit c_sample)) t
           where exists (select from stellwerk.step s where s.tenant_id = t.tenant_id and s.state = 'queued' and s.runs_in = 'worker')
           limit c_sample) c;
  -- Only where at least two want the workers.
  if v_tenants is null or p_tenant_id is null and cardinality(v_tenants) < 2 then
    return '[]'::jsonb;
  end if;
  return (select coalesce(jsonb_agg(jsonb_build_array(f.type, f.tenant_id, f.run_id, f.step_id)), '[]')
            from (select w.* from unnest(v_tenants) t (tenant_id)
                   cross join lateral stellwerk.waiting_steps(t.tenant_id, p_count) w
                   where t.tenant_id is distinct from p_tenant_id
                   order by w.place, random() limit p_count) f);
end
$$;
comment on function stellwerk.fair_turns(integer, bigint) is 'Worker steps whose turn it is although others stand before them in the queue: up to a number of them, as [type, tenant, run, step] each, from every tenant the same share; none of the given tenant, whose steps have just been worked on. Empty while only one tenant has steps waiting.';

create or replace function stellwerk.waiting_steps(p_tenant_id bigint, p_count integer)
returns table (place bigint, type text, tenant_id bigint, run_id bigint, step_id bigint)
language plpgsql stable set search_path = '' set enable_seqscan = off as $$
declare
  c_waited constant interval := interval '0.2 seconds';  -- a shorter wait is no wait
  v_now    timestamptz := clock_timestamp();
begin
  return query
    select row_number() over (order by s.run_id, s.step_id), s.type, p_tenant_id, s.run_id, s.step_id
      from (select o.* from stellwerk.step o
             where o.tenant_id = p_tenant_id and o.state = 'queued' and o.runs_in = 'worker'
             order by o.run_id limit 10 + 2 * p_count) s
     where s.queued_at < v_now - c_waited and (s.due_at is null or s.due_at <= v_now)
       and not exists (select from stellwerk.rate_wait w
                        where w.tenant_id = p_tenant_id and w.run_id = s.run_id and w.step_id = s.step_id and w.due_at > v_now offset 0);
end
$$;
comment on function stellwerk.waiting_steps(bigint, integer) is 'The oldest worker steps of a tenant that could be taken and have waited for a while, numbered.';

create or replace function stellwerk.turns_for(p_completed integer)
returns integer language sql volatile set search_path = '' as $$
  select least(10, floor(p_completed / 2.0 + random()))::integer
$$;
comment on function stellwerk.turns_for(integer) is 'How many steps of other tenants a worker is named that has just completed so many: about half of them, so that what comes this way and what comes through the queue balance.';
