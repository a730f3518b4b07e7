-- Rate limits: how many worker steps of a type, or for a provider, may begin within an interval; and turns between tenants.
--
-- A limit is kept where a worker takes a step (begin_steps), under the lock of one row per limit, so it holds for any number of
-- workers. What began is counted in twentieths of the interval, over the last 21 of them: so no interval, wherever it is laid,
-- sees more than the limit. A step over the limit stays queued, without an attempt being counted, and gets a queue row for the
-- time when its turn comes; those that were put off keep their order.

create or replace function stellwerk.set_rate_limit(kind text, name text, max_count integer, per interval)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  if kind is null or kind not in ('type', 'provider') then
    raise exception 'a rate limit is for a type or a provider, not for %', coalesce(quote_literal(kind), 'null')
      using errcode = 'SW008', hint = 'stellwerk.set_rate_limit(''provider'', ''slack'', 50, ''PT1M'')';
  elsif coalesce(lower(name), '') !~ (case kind when 'type' then '^[a-z][a-z0-9_]*([.][a-z][a-z0-9_]*)+$' else '^[a-z0-9][^ ]{0,199}$' end) then
    raise exception '% is no name of a %', coalesce(quote_literal(name), 'null'), case kind when 'type' then 'node type' else 'provider' end
      using errcode = 'SW008', hint = case kind when 'type' then 'Such as http.request.' else 'Such as slack, email, or http:api.example.com.' end;
  elsif max_count is null or max_count not between 1 and 1000000 then
    raise exception 'a rate limit lets 1 to 1000000 steps begin, not %', coalesce(max_count::text, 'null')
      using errcode = 'SW008', hint = 'remove_rate_limit takes a limit away; pause_run stops a run.';
  elsif per is null or per not between interval '0.1 seconds' and interval '31 days' then
    raise exception 'the interval of a rate limit lasts a tenth of a second to 31 days, not %', coalesce(per::text, 'null')
      using errcode = 'SW008', hint = 'Such as interval ''1 minute'', or ''PT1M''.';
  end if;
  insert into stellwerk.rate_limit (tenant_id, kind, name, max_count, per, set_by)
  values (v_tenant_id, set_rate_limit.kind, lower(set_rate_limit.name), set_rate_limit.max_count, set_rate_limit.per, stellwerk.actor())
  on conflict on constraint rate_limit_pkey do update
     set max_count = excluded.max_count, per = excluded.per, set_at = excluded.set_at, set_by = excluded.set_by;
  perform stellwerk.plan_anew(v_tenant_id, kind, lower(name));
end
$$;
comment on function stellwerk.set_rate_limit(text, text, integer, interval) is 'Lets at most max_count worker steps begin within any interval of length per: kind type with a node type, or kind provider with a name such as slack, email, http:api.example.com. Setting it again changes it, also for steps that wait. Error: SW008.';

create or replace function stellwerk.remove_rate_limit(kind text, name text)
returns boolean language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_removed   boolean;
begin
  delete from stellwerk.rate_limit l
   where l.tenant_id = v_tenant_id and l.kind = remove_rate_limit.kind and l.name = lower(remove_rate_limit.name);
  v_removed := found;
  perform stellwerk.plan_anew(v_tenant_id, kind, lower(name));
  return v_removed;
end
$$;
comment on function stellwerk.remove_rate_limit(text, text) is 'Takes a rate limit away; steps that wait for it begin. Answers whether there was one.';

create or replace function stellwerk.plan_anew(p_tenant_id bigint, p_kind text, p_name text)
returns void language plpgsql set search_path = '' as $$
declare
  v_runs  bigint[];
  v_steps bigint[];
begin
  select array_agg(w.run_id), array_agg(w.step_id) into v_runs, v_steps from stellwerk.rate_wait w
   where w.tenant_id = p_tenant_id and w.kind = p_kind and w.name = p_name;
  if v_steps is not null then
    perform stellwerk.hasten_steps(p_tenant_id, v_runs, v_steps);
  end if;
end
$$;
comment on function stellwerk.plan_anew(bigint, text, text) is 'Lets the steps that a limit has put off ask again now.';

create or replace function stellwerk.hasten_steps(p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  perform stellwerk.hasten_jobs(array(
    select s.job_id from unnest(p_run_ids, p_step_ids) x (run_id, step_id)
     cross join lateral (
       select o.job_id from stellwerk.step o where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.step_id = x.step_id offset 0) s
     where s.job_id is not null));
  perform stellwerk.ring('job');
end
$$;
comment on function stellwerk.hasten_steps(bigint, bigint[], bigint[]) is 'Makes the queue rows of steps due now.';

create or replace function stellwerk.limits_for(p_type text, p_config jsonb)
returns text[] language plpgsql immutable set search_path = '' as $$
begin
  return array_remove(array[
    'type:' || p_type,
    'provider:' || split_part(p_type, '.', 1),
    -- action.fonio_call talks to fonio, action.esign_request to esign.
    case when p_type like 'action.%' then 'provider:' || split_part(split_part(p_type, '.', 2), '_', 1) end,
    case when p_type = 'message.send' then 'provider:' || lower(p_config ->> 'channel') end,
    case when p_type = 'http.request'
         then 'provider:http:' || lower(substring(p_config ->> 'url' from '^[A-Za-z]+://(?:[^/?#@]*@)?(\[[^]/]*\]|[^/?#:]+)')) end], null);
end
$$;
comment on function stellwerk.limits_for(text, jsonb) is 'The limits that a worker step counts against, as kind:name: its node type; its provider, which is what stands before the point of the type (slack, fattureincloud, http), for action.* the first word (fonio, esign), for message.send the channel (email, whatsapp), for http.request also http:HOST.';

create or replace function stellwerk.limits_among(p_tenant_id bigint, p_limits text[])
returns setof stellwerk.rate_limit language plpgsql stable set search_path = '' as $$
begin
  return query
    select l.* from stellwerk.rate_limit l
     where l.tenant_id = p_tenant_id and l.kind || ':' || l.name = any (p_limits)
     order by l.kind, l.name;  -- in this order all workers lock them
end
$$;
comment on function stellwerk.limits_among(bigint, text[]) is 'Those of some limits, given as kind:name, that have been set.';

create or replace function stellwerk.lock_usage(p_tenant_id bigint, p_limit stellwerk.rate_limit)
returns stellwerk.rate_usage language plpgsql set search_path = '' as $$
declare
  v_usage stellwerk.rate_usage;
begin
  select * into v_usage from stellwerk.rate_usage u
   where u.tenant_id = p_tenant_id and u.kind = p_limit.kind and u.name = p_limit.name for update;
  if not found then
    insert into stellwerk.rate_usage (tenant_id, kind, name, per) values (p_tenant_id, p_limit.kind, p_limit.name, p_limit.per) on conflict do nothing;
    select * into v_usage from stellwerk.rate_usage u
     where u.tenant_id = p_tenant_id and u.kind = p_limit.kind and u.name = p_limit.name for update;
  end if;
  return v_usage;
end
$$;
comment on function stellwerk.lock_usage(bigint, stellwerk.rate_limit) is 'What has begun under a limit, locked until the end of the transaction: of workers that take steps under one limit, one goes at a time.';

create or replace function stellwerk.usage_at(
  p_usage stellwerk.rate_usage, p_limit stellwerk.rate_limit, p_now timestamptz,
  out usage stellwerk.rate_usage, out free integer, out free_at timestamptz)
language plpgsql immutable set search_path = '' as $$
declare
  c_portions constant integer := 21;
  v_seconds  double precision := extract(epoch from p_limit.per) / 20;
  v_portion  bigint := floor(extract(epoch from p_now) / v_seconds);
  v_passed   bigint := v_portion - p_usage.portion;
  v_sum      integer := 0;
begin
  usage := p_usage;
  if usage.per <> p_limit.per then
    usage.counts := array[(select coalesce(sum(u.count), 0) from unnest(usage.counts) u (count))];
    usage.per := p_limit.per;
    usage.tail := null;
  elsif v_passed >= c_portions then
    usage.counts := '{}';
  elsif v_passed > 0 then
    usage.counts := (array_fill(0, array[v_passed::integer]) || usage.counts)[:c_portions];
  end if;
  if usage.portion < v_portion or p_usage.per <> p_limit.per then
    usage.portion := v_portion;
  end if;
  free := p_limit.max_count - (select coalesce(sum(u.count), 0) from unnest(usage.counts) u (count));
  free_at := p_now;
  if free <= 0 then
    -- When so much of the oldest has passed that what is left is less than the limit.
    for i in 1 .. cardinality(usage.counts) loop
      v_sum := v_sum + usage.counts[i];
      if v_sum >= p_limit.max_count then
        free_at := to_timestamp((usage.portion - i + 1 + c_portions) * v_seconds);
        exit;
      end if;
    end loop;
  end if;
end
$$;
comment on function stellwerk.usage_at(stellwerk.rate_usage, stellwerk.rate_limit, timestamptz) is 'A usage brought up to a time, how many steps may begin then, and when the next one may if none.';

create or replace function stellwerk.within_rate_limits(p_tenant_id bigint, p_tokens stellwerk.token[], p_configs jsonb[])
returns integer[] language plpgsql set search_path = '' as $$
declare
  v_limits  stellwerk.rate_limit[];
  v_names   text[];
  v_usages  stellwerk.rate_usage[];
  v_free    integer[];
  v_reserved integer[];     -- how many of these belong to steps whose turn has just come
  v_next    timestamptz[];  -- when the next one that is put off again may come back
  v_pace    interval[];     -- how far the turns of those put off are apart
  v_usage   stellwerk.rate_usage;
  i         integer;
  v_now     timestamptz;
  v_at      record;
  v_place   record;
  v_over    integer;
  v_due     timestamptz;
  v_turn    timestamptz;
  v_kept    integer[] := '{}'::integer[];
  v_begun   bigint[] := '{}'::bigint[];
  v_off     stellwerk.rate_wait[] := '{}'::stellwerk.rate_wait[];
  v_types   text[] := '{}'::text[];
begin
  select array_agg(l order by l.kind, l.name) into v_limits
    from stellwerk.limits_among(p_tenant_id, array(
           select distinct m.name from generate_subscripts(p_tokens, 1) g (place)
            cross join lateral unnest(stellwerk.limits_for((p_tokens[g.place]).type, p_configs[g.place])) m (name))) l;
  for i in 1 .. coalesce(cardinality(v_limits), 0) loop
    v_usages[i] := stellwerk.lock_usage(p_tenant_id, v_limits[i]);
  end loop;
  v_now := clock_timestamp();
  for i in 1 .. coalesce(cardinality(v_limits), 0) loop
    v_at := stellwerk.usage_at(v_usages[i], v_limits[i], v_now);
    v_free[i] := v_at.free;
    v_next[i] := greatest(v_at.free_at, v_now);
    v_reserved[i] := stellwerk.turns_due(p_tenant_id, v_limits[i], p_tokens, v_now);
    v_names[i] := (v_limits[i]).kind || ':' || (v_limits[i]).name;
    v_pace[i] := (v_limits[i]).per * 1.05 / (v_limits[i]).max_count;
    v_usage := v_at.usage;
    if v_usage.limit_set_at is distinct from (v_limits[i]).set_at
       or not exists (select from stellwerk.rate_wait w where w.tenant_id = p_tenant_id and w.kind = (v_limits[i]).kind and w.name = (v_limits[i]).name) then
      v_usage.tail := null;
      v_usage.limit_set_at := (v_limits[i]).set_at;
    end if;
    v_usages[i] := v_usage;
  end loop;
  for v_place in
    select g.place, t.run_id, t.step_id, t.type, w.wait,
           array(select n.ordinality::integer from unnest(v_names) with ordinality n (name)
                  where n.name = any (stellwerk.limits_for(t.type, p_configs[g.place]))) as limits
      from generate_subscripts(p_tokens, 1) g (place)
     cross join lateral (select (p_tokens[g.place]).*) t
      left join lateral (
        select o as wait, o.since from stellwerk.rate_wait o
         where o.tenant_id = p_tenant_id and o.run_id = t.run_id and o.step_id = t.step_id offset 0) w on true
     -- Who was put off before comes before who has just come.
     order by w.since, t.queued_at, t.step_id
  loop
    -- A turn that was given holds, until the limit is set anew.
    if (v_place.wait).due_at > v_now and exists (
         select from unnest(v_limits) l
          where l.kind = (v_place.wait).kind and l.name = (v_place.wait).name and l.set_at = (v_place.wait).limit_set_at) then
      continue;
    end if;
    v_over := null;
    v_due := v_now;
    foreach i in array v_place.limits loop
      v_turn := case
        -- While others wait, who has just come goes behind them.
        when (v_place.wait).limit_set_at is distinct from (v_limits[i]).set_at and ((v_usages[i]).tail > v_now or v_free[i] <= v_reserved[i])
        then greatest((v_usages[i]).tail + v_pace[i], v_next[i], case when v_reserved[i] > 0 then v_now + v_pace[i] end)
        when v_free[i] <= 0 then v_next[i]
      end;
      if v_turn > v_due then
        v_over := i;
        v_due := v_turn;
      end if;
    end loop;
    if v_over is null then
      v_kept := v_kept || v_place.place;
      if (v_place.wait).step_id is not null then
        v_begun := v_begun || v_place.step_id;
      end if;
      foreach i in array v_place.limits loop
        v_usage := v_usages[i];
        v_usage.counts[1] := coalesce(v_usage.counts[1], 0) + 1;
        v_usages[i] := v_usage;
        v_free[i] := v_free[i] - 1;
        if v_free[i] <= 0 then
          v_next[i] := (stellwerk.usage_at(v_usage, v_limits[i], v_now)).free_at;
        end if;
      end loop;
    else
      v_off := v_off || row(p_tenant_id, v_place.run_id, v_place.step_id, (v_limits[v_over]).kind, (v_limits[v_over]).name, v_due,
                            (v_limits[v_over]).set_at, v_now)::stellwerk.rate_wait;
      v_types := v_types || v_place.type;
      v_usage := v_usages[v_over];
      v_usage.tail := greatest(v_usage.tail, v_due);
      v_usages[v_over] := v_usage;
      if v_due = v_next[v_over] then
        v_next[v_over] := v_next[v_over] + v_pace[v_over];
      end if;
    end if;
  end loop;
  perform stellwerk.write_usage(p_tenant_id, v_usages);
  delete from stellwerk.rate_wait w
   using unnest(v_begun) x (step_id), unnest(p_tokens) t
   where t.step_id = x.step_id and w.tenant_id = p_tenant_id and w.run_id = t.run_id and w.step_id = x.step_id;
  perform stellwerk.put_off(p_tenant_id, v_off, v_types) where cardinality(v_off) > 0;
  return v_kept;
end
$$;
comment on function stellwerk.within_rate_limits(bigint, stellwerk.token[], jsonb[]) is 'Which of some steps that a worker is about to take may begin now, as places in the arrays; the others are given a turn and a queue row for that time.';

create or replace function stellwerk.turns_due(p_tenant_id bigint, p_limit stellwerk.rate_limit, p_but stellwerk.token[], p_now timestamptz)
returns integer language plpgsql stable set search_path = '' as $$
declare
  c_while constant interval := interval '10 seconds';  -- then nobody seems to be there who would take them
begin
  return (select count(*)
            from (select from stellwerk.rate_wait w
                   where w.tenant_id = p_tenant_id and w.kind = p_limit.kind and w.name = p_limit.name and w.due_at <= p_now and w.due_at > p_now - c_while
                     and not exists (select from unnest(p_but) t where t.run_id = w.run_id and t.step_id = w.step_id)
                   limit p_limit.max_count) c);
end
$$;
comment on function stellwerk.turns_due(bigint, stellwerk.rate_limit, stellwerk.token[], timestamptz) is 'How many steps that were put off, other than the given ones, have their turn now and have not come yet.';

create or replace function stellwerk.write_usage(p_tenant_id bigint, p_usages stellwerk.rate_usage[])
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.rate_usage u
     set portion = x.portion, counts = x.counts, per = x.per, tail = x.tail, limit_set_at = x.limit_set_at
    from unnest(p_usages) x
   where u.tenant_id = p_tenant_id and u.kind = x.kind and u.name = x.name;
end
$$;
comment on function stellwerk.write_usage(bigint, stellwerk.rate_usage[]) is 'Writes usages that are locked.';

create or replace function stellwerk.put_off(p_tenant_id bigint, p_waits stellwerk.rate_wait[], p_types text[])
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.rate_wait select w.* from unnest(p_waits) w
  on conflict (tenant_id, run_id, step_id) do update
     set kind = excluded.kind, name = excluded.name, due_at = excluded.due_at, limit_set_at = excluded.limit_set_at;
  perform stellwerk.enqueue_again(p_tenant_id, array(select w.run_id from unnest(p_waits) w), array(select w.step_id from unnest(p_waits) w), p_types,
                                  array(select w.due_at from unnest(p_waits) w));
end
$$;
comment on function stellwerk.put_off(bigint, stellwerk.rate_wait[], text[]) is 'Steps that may not begin yet wait for their turns, each with a queue row for then.';

-- Turns that were given to steps which will not come leave gaps; then those behind move up.
create or replace function stellwerk.close_gaps(p_tenant_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  c_many  constant integer := 1000;
  v_now   timestamptz := clock_timestamp();
  v_usage stellwerk.rate_usage;
  v_limit stellwerk.rate_limit;
  v_pace  interval;
  v_runs  bigint[];
  v_steps bigint[];
begin
  for v_usage in select * from stellwerk.rate_usage u where u.tenant_id = p_tenant_id for update skip locked loop
    select * into v_limit from stellwerk.rate_limit l where l.tenant_id = p_tenant_id and l.kind = v_usage.kind and l.name = v_usage.name;
    if not found then
      delete from stellwerk.rate_usage u where u.tenant_id = p_tenant_id and u.kind = v_usage.kind and u.name = v_usage.name;
    end if;
    perform stellwerk.drop_rate_waits(p_tenant_id, v_usage.kind, v_usage.name, case when v_limit.name is null then 'infinity' else v_now - interval '1 minute' end);
    continue when v_limit.name is null;
    v_pace := v_limit.per * 1.05 / v_limit.max_count;
    if (select min(w.due_at) from stellwerk.rate_wait w where w.tenant_id = p_tenant_id and w.kind = v_limit.kind and w.name = v_limit.name)
       > greatest((stellwerk.usage_at(v_usage, v_limit, v_now)).free_at, v_now) + 2 * v_pace + interval '1 second' then
      select array_agg(c.run_id), array_agg(c.step_id) into v_runs, v_steps
        from (select w.run_id, w.step_id from stellwerk.rate_wait w
               where w.tenant_id = p_tenant_id and w.kind = v_limit.kind and w.name = v_limit.name
               order by w.due_at
               limit least(c_many, greatest(20, ceil(10 / extract(epoch from v_pace)))) for update skip locked) c;
      update stellwerk.rate_wait w set due_at = v_now
        from unnest(v_runs, v_steps) x (run_id, step_id)
       where w.tenant_id = p_tenant_id and w.run_id = x.run_id and w.step_id = x.step_id;
      perform stellwerk.hasten_steps(p_tenant_id, v_runs, v_steps);
      v_usage.tail := (select max(w.due_at) from stellwerk.rate_wait w where w.tenant_id = p_tenant_id and w.kind = v_limit.kind and w.name = v_limit.name);
      perform stellwerk.write_usage(p_tenant_id, array[v_usage]);
    end if;
  end loop;
end
$$;
comment on function stellwerk.close_gaps(bigint) is 'Called by tick: steps that were put off for longer than is needed ask again, and what is kept for limits and steps that are gone is removed.';

create or replace function stellwerk.drop_rate_waits(p_tenant_id bigint, p_kind text, p_name text, p_before timestamptz)
returns void language plpgsql set search_path = '' as $$
declare
  c_many constant integer := 1000;
begin
  delete from stellwerk.rate_wait d
   where d.tenant_id = p_tenant_id and (d.run_id, d.step_id) in (
           select c.run_id, c.step_id
             from (select w.run_id, w.step_id from stellwerk.rate_wait w
                    where w.tenant_id = p_tenant_id and w.kind = p_kind and w.name = p_name and w.due_at < p_before
                    order by w.due_at limit c_many for update skip locked) c
            cross join lateral (
              select o.state from stellwerk.step o where o.tenant_id = p_tenant_id and o.run_id = c.run_id and o.step_id = c.step_id offset 0) s
            where p_before = 'infinity' or s.state <> 'queued');
end
$$;
comment on function stellwerk.drop_rate_waits(bigint, text, text, timestamptz) is 'Removes turns before a time that belong to steps which wait no more; all of them when the time is infinity.';

create or replace function stellwerk.rate_reason(p_step stellwerk.step)
returns table (reason text, evidence jsonb) language plpgsql stable set search_path = '' as $$
declare
  c_many   constant integer := 1000;
  v_wait   stellwerk.rate_wait;
  v_limit  stellwerk.rate_limit;
  v_before integer;
begin
  select * into v_wait from stellwerk.rate_wait w
   where w.tenant_id = p_step.tenant_id and w.run_id = p_step.run_id and w.step_id = p_step.step_id and p_step.state = 'queued';
  select * into v_limit from stellwerk.rate_limit l where l.tenant_id = v_wait.tenant_id and l.kind = v_wait.kind and l.name = v_wait.name;
  if v_limit.name is null or v_limit.set_at <> v_wait.limit_set_at then
    return;
  end if;
  select count(*) into v_before
    from (select from stellwerk.rate_wait w
           where w.tenant_id = v_wait.tenant_id and w.kind = v_wait.kind and w.name = v_wait.name and w.due_at < v_wait.due_at limit c_many) c;
  reason := format('the rate limit of %s in %s for %s lets it begin at %s; before it in the line: %s', v_limit.max_count,
                   stellwerk.duration_text(v_limit.per), case v_limit.kind when 'type' then 'steps of type ' else 'provider ' end || v_limit.name,
                   stellwerk.at_text(v_wait.due_at), v_before);
  evidence := jsonb_build_object('table', 'rate_wait', 'kind', v_limit.kind, 'name', v_limit.name, 'max_count', v_limit.max_count,
                                 'per', stellwerk.duration_text(v_limit.per), 'due_at', v_wait.due_at, 'since', v_wait.since, 'before', v_before);
  return next;
end
$$;
comment on function stellwerk.rate_reason(stellwerk.step) is 'Why a rate limit puts a queued step off, with the rows that show it: a clause for a sentence. No row where none does.';
