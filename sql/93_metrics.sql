-- What monitoring asks for every few seconds: numbers and ages now, and totals that only grow. Everything is read by an index that
-- holds just what is counted; no statement here reads history.

create or replace function stellwerk.add_totals(p_tenant_id bigint, p_before stellwerk.run_hour[], p_after stellwerk.run_hour[])
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.run_total as t (tenant_id, workflow_id, completed, failed, cancelled, durations)
  select p_tenant_id, d.workflow_id, greatest(d.completed, 0), greatest(d.failed, 0), greatest(d.cancelled, 0), d.durations
    from (select coalesce(a.workflow_id, b.workflow_id) as workflow_id, coalesce(a.completed, 0) - coalesce(b.completed, 0) as completed,
                 coalesce(a.failed, 0) - coalesce(b.failed, 0) as failed, coalesce(a.cancelled, 0) - coalesce(b.cancelled, 0) as cancelled,
                 stellwerk.added_counts('{}', a.durations, b.durations) as durations
            from unnest(p_after) a
            full join unnest(p_before) b on b.workflow_id = a.workflow_id) d
  on conflict (tenant_id, workflow_id) do update
     set completed = t.completed + excluded.completed, failed = t.failed + excluded.failed, cancelled = t.cancelled + excluded.cancelled,
         durations = stellwerk.added_counts(t.durations, excluded.durations, '{}');
end
$$;
comment on function stellwerk.add_totals(bigint, stellwerk.run_hour[], stellwerk.run_hour[]) is 'An hour was counted, or counted anew: what has been added goes into the totals. What has gone, by retention or because a run was tried again, stays in them.';

create or replace function stellwerk.added_counts(p_counts jsonb, p_more jsonb, p_less jsonb)
returns jsonb language sql immutable parallel safe set search_path = ''
return (
  select coalesce(jsonb_object_agg(b.bucket, b.count), '{}')
    from (select c.bucket, sum(c.kept) + greatest(sum(c.added), 0) as count
            from (select e.key as bucket, e.value::bigint as kept, 0::bigint as added from jsonb_each_text(p_counts) e
                   union all
                  select e.key, 0, e.value::bigint from jsonb_each_text(p_more) e
                   union all
                  select e.key, 0, - e.value::bigint from jsonb_each_text(p_less) e) c
           group by c.bucket) b
   where b.count > 0);
comment on function stellwerk.added_counts(jsonb, jsonb, jsonb) is 'Counts by bucket, with those of the second more and those of the third less, but never less than they were.';

create or replace function stellwerk.run_totals()
returns table (workflow text, completed bigint, failed bigint, cancelled bigint, durations jsonb)
language plpgsql security definer  -- remembers what it told, which callers may not write
set search_path = '' set jit = off as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_now       timestamptz := date_trunc('hour', stellwerk.clock(), 'UTC');
  v_hour      timestamptz := greatest(coalesce((select max(h.hour) from stellwerk.run_hour h where h.tenant_id = v_tenant_id) + interval '1 hour',
                                               v_now - interval '24 hours'), v_now - interval '24 hours');
  v_recent    stellwerk.run_hour[] := '{}'::stellwerk.run_hour[];
begin
  while v_hour <= v_now loop
    v_recent := v_recent || array(select c from stellwerk.count_runs(v_tenant_id, v_hour) c);
    v_hour := v_hour + interval '1 hour';
  end loop;
  return query
    with recent as (
      select r.workflow_id, sum(r.completed)::bigint as completed, sum(r.failed)::bigint as failed, sum(r.cancelled)::bigint as cancelled,
             (select jsonb_object_agg(b.bucket, b.count)
                from (select e.key as bucket, sum(e.value::bigint) as count
                        from unnest(v_recent) x cross join lateral jsonb_each_text(x.durations) e where x.workflow_id = r.workflow_id group by 1) b) as durations
        from unnest(v_recent) r group by r.workflow_id),
    totals as (
      select w.slug, w.workflow_id, coalesce(t.told, '{}') as told,
             coalesce(t.completed, 0) + coalesce(r.completed, 0) as completed, coalesce(t.failed, 0) + coalesce(r.failed, 0) as failed,
             coalesce(t.cancelled, 0) + coalesce(r.cancelled, 0) as cancelled,
             case when r.durations is null then t.durations
                  else stellwerk.added_counts(coalesce(t.durations, '{}'), r.durations, '{}') end as durations
        from stellwerk.workflow w
        left join stellwerk.run_total t on t.tenant_id = w.tenant_id and t.workflow_id = w.workflow_id
        left join recent r on r.workflow_id = w.workflow_id
       where w.tenant_id = v_tenant_id and (t.workflow_id is not null or r.workflow_id is not null)),
    -- Only where it fell would anybody see a step back; so only what may fall is remembered, and written when it has grown.
    remembered as (
      insert into stellwerk.run_total as t (tenant_id, workflow_id, told)
      select v_tenant_id, x.workflow_id, jsonb_build_object('failed', x.failed, 'cancelled', x.cancelled)
        from totals x
       where x.failed > coalesce((x.told ->> 'failed')::bigint, 0) or x.cancelled > coalesce((x.told ->> 'cancelled')::bigint, 0)
      on conflict (tenant_id, workflow_id) do update
         set told = jsonb_build_object('failed', greatest((t.told ->> 'failed')::bigint, (excluded.told ->> 'failed')::bigint),
                                       'cancelled', greatest((t.told ->> 'cancelled')::bigint, (excluded.told ->> 'cancelled')::bigint)))
    select x.slug, x.completed, greatest(x.failed, (x.told ->> 'failed')::bigint), greatest(x.cancelled, (x.told ->> 'cancelled')::bigint), x.durations
      from totals x
     order by x.slug;
end
$$;
comment on function stellwerk.run_totals() is 'For each workflow of the tenant: how many runs have ended since it was made, and how long the completed ones took, as counts by duration_bucket. Never less than it answered before. A run that outlives the hour in which it was asked for is counted some minutes after its end.';

create or replace function stellwerk.current_figures()
returns table (figure text, label text, state text, value double precision)
language plpgsql stable set search_path = '' set jit = off as $$
declare
  c_most      constant integer := 100000;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_now       timestamptz := stellwerk.clock();
begin
  return query
    select 'runs', w.slug, r.state, r.count::double precision
      from (select x.workflow_id, x.state, count(*) as count from stellwerk.run x
             where x.tenant_id = v_tenant_id and x.ended_at is null group by 1, 2) r
      join stellwerk.workflow w on w.tenant_id = v_tenant_id and w.workflow_id = r.workflow_id;
  return query
    with queued as materialized (
      select s.type, s.queued_at, s.due_at from stellwerk.step s
       where s.tenant_id = v_tenant_id and s.state = 'queued' and s.runs_in = 'worker' limit c_most)
    select f.figure, q.type, null::text, case f.figure when 'queue_depth' then q.depth else q.age end
      from (select x.type, count(*)::double precision as depth,
                   greatest(extract(epoch from v_now - min(greatest(x.queued_at, x.due_at))), 0)::double precision as age
              from queued x where coalesce(x.due_at <= v_now, true) group by 1) q
     cross join (values ('queue_depth'), ('queue_oldest_seconds')) f (figure);
  return query
    select 'steps_running', s.type, null::text, count(*)::double precision
      from (select x.type from stellwerk.step x where x.tenant_id = v_tenant_id and x.state = 'running' limit c_most) s group by 1, 2;
  return query select 'workers', null::text, null::text, stellwerk.present_workers()::double precision;
  return query
    select f.figure, null::text, null::text, case f.figure when 'timers_overdue' then x.count else x.age end
      from (select count(*)::double precision as count, coalesce(extract(epoch from v_now - min(t.due_at)), 0)::double precision as age
              from (select o.due_at from stellwerk.timer o where o.tenant_id = v_tenant_id and o.due_at < v_now order by o.due_at limit c_most) t) x
     cross join (values ('timers_overdue'), ('tick_lag_seconds')) f (figure);
  return query
    select f.figure, null::text, null::text, case f.figure when 'events_pending' then x.count else x.age end
      from (select count(*)::double precision as count, coalesce(greatest(extract(epoch from v_now - min(e.created_at)), 0), 0)::double precision as age
              from (select o.created_at from stellwerk.event_inbox o where o.tenant_id = v_tenant_id
                    union all select o.created_at from stellwerk.event_arrival o where o.tenant_id = v_tenant_id limit c_most) e) x
     cross join (values ('events_pending'), ('events_oldest_seconds')) f (figure);
  return query
    select 'tasks', null::text, s.state, (select count(*) from stellwerk.user_task k where k.tenant_id = v_tenant_id and k.state = s.state
                                             and k.state in ('open', 'claimed'))::double precision
      from (values ('open'), ('claimed')) s (state);
  return query
    select 'tasks_overdue', null::text, null::text, count(*)::double precision
      from stellwerk.user_task k where k.tenant_id = v_tenant_id and k.state in ('open', 'claimed') and k.due_at < v_now;
  return query
    select 'alerts', null::text, null::text, count(*)::double precision
      from stellwerk.alert a where a.tenant_id = v_tenant_id and a.resolved_at is null;
end
$$;
comment on function stellwerk.current_figures() is 'How it stands now, for monitoring: live runs by workflow and state, steps that wait and run by type, workers, what is overdue and pending, tasks and alerts. Steps, timers and events are counted up to 100000.';
