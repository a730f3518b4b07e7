-- Figures over a period, read from what housekeeping has counted; the present hour is counted each time.

create or replace function stellwerk.workflow_figures(since timestamptz default now() - interval '1 day', only_workflow text default null)
returns table (workflow text, name text, version integer, runs bigint, live bigint, completed bigint, failed bigint, cancelled bigint, success_share numeric,
               p50_seconds double precision, p95_seconds double precision, p99_seconds double precision,
               work_seconds double precision, wait_seconds double precision, queue_seconds double precision, retries bigint, bottleneck text,
               pending bigint, running bigint, waiting bigint, paused bigint, p95_start_seconds double precision, last_started_at timestamptz)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_from      timestamptz := date_trunc('hour', since, 'UTC');
  v_first     timestamptz := stellwerk.first_day(v_from);
  v_end       timestamptz := stellwerk.days_end(v_tenant_id, v_first);
  v_recent    timestamptz := stellwerk.clock() - interval '31 days';
  v_only      bigint := (select w.workflow_id from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.slug = only_workflow);
begin
  return query
    with counted as materialized (
      select * from stellwerk.periods_of_runs(v_tenant_id, v_from) h where only_workflow is null or h.workflow_id = v_only),
    durations as (
      select d.workflow_id, jsonb_object_agg(d.bucket, d.count) as durations
        from (select x.workflow_id, e.key as bucket, sum(e.value::bigint) as count
                from counted x cross join lateral jsonb_each_text(x.durations) e where x.hour >= v_recent group by 1, 2) d
       group by 1),
    starts as (
      select d.workflow_id, jsonb_object_agg(d.bucket, d.count) as durations
        from (select x.workflow_id, e.key as bucket, sum(e.value::bigint) as count
                from counted x cross join lateral jsonb_each_text(x.starts) e where x.hour >= v_recent group by 1, 2) d
       group by 1),
    nodes as (
      select n.workflow_id, n.node_id, sum(n.work_seconds) as work, sum(n.wait_seconds) as wait, sum(n.queue_seconds) as queue, sum(n.retries) as retries
        from (select h.workflow_id, h.node_id, h.work_seconds, h.wait_seconds, h.queue_seconds, h.retries from stellwerk.node_hour h
               where h.tenant_id = v_tenant_id and h.hour >= v_from and (v_end is null or h.hour < v_first or h.hour >= v_end)
                 and (only_workflow is null or h.workflow_id = v_only)
              union all
              select d.workflow_id, d.node_id, d.work_seconds, d.wait_seconds, d.queue_seconds, d.retries from stellwerk.node_day d
               where d.tenant_id = v_tenant_id and d.day >= v_first and d.day < v_end and (only_workflow is null or d.workflow_id = v_only)) n
       group by 1, 2)
    select w.slug, coalesce(nullif(w.name, ''), w.slug), w.active_version, c.runs, c.live, c.completed, c.failed, c.cancelled,
           round(c.completed::numeric / nullif(c.completed + c.failed, 0), 4),
           stellwerk.percentile_of(d.durations, 0.5), stellwerk.percentile_of(d.durations, 0.95), stellwerk.percentile_of(d.durations, 0.99),
           n.work, n.wait, n.queue, n.retries, n.bottleneck, c.pending, c.running, c.waiting, c.paused, stellwerk.percentile_of(s.durations, 0.95), c.last_started_at
      from (select x.workflow_id, sum(x.runs)::bigint as runs, sum(x.live)::bigint as live, sum(x.completed)::bigint as completed, sum(x.failed)::bigint as failed,
                   sum(x.cancelled)::bigint as cancelled, sum(x.pending)::bigint as pending, sum(x.running)::bigint as running,
                   sum(x.waiting)::bigint as waiting, sum(x.paused)::bigint as paused, max(x.last_started_at) as last_started_at
              from counted x group by 1) c
      left join durations d on d.workflow_id = c.workflow_id
      left join starts s on s.workflow_id = c.workflow_id
      join stellwerk.workflow w on w.tenant_id = v_tenant_id and w.workflow_id = c.workflow_id
      left join (select y.workflow_id, sum(y.work) as work, sum(y.wait) as wait, sum(y.queue) as queue, sum(y.retries)::bigint as retries,
                        (array_agg(y.node_id order by y.work + y.wait + y.queue desc, y.node_id) filter (where y.work + y.wait + y.queue > 0))[1] as bottleneck
                   from nodes y group by 1) n on n.workflow_id = c.workflow_id
     order by c.runs desc, w.slug;
end
$$;
comment on function stellwerk.workflow_figures(timestamptz, text) is 'By workflow, or of one, over the runs that were asked for since the beginning of an hour: counts by state, share of success, durations of completed runs and how long runs waited for their first step (of the last 31 days at most), time of work, of waiting and in the queue, retries, and the node with the most time (these from hours that are over).';

create or replace function stellwerk.hours_of_runs(p_tenant_id bigint, p_from timestamptz)
returns setof stellwerk.run_hour language plpgsql stable set search_path = '' as $$
declare
  v_now  timestamptz := date_trunc('hour', stellwerk.clock(), 'UTC');
  v_hour timestamptz := greatest(coalesce((select max(h.hour) from stellwerk.run_hour h where h.tenant_id = p_tenant_id) + interval '1 hour', v_now - interval '2 hours'),
                                 v_now - interval '2 hours', p_from);
begin
  return query select * from stellwerk.run_hour h where h.tenant_id = p_tenant_id and h.hour >= p_from and h.hour < v_hour;
  -- The present one, and those that housekeeping has not come to yet.
  while v_hour <= v_now loop
    return query select * from stellwerk.count_runs(p_tenant_id, v_hour);
    v_hour := v_hour + interval '1 hour';
  end loop;
end
$$;
comment on function stellwerk.hours_of_runs(bigint, timestamptz) is 'The hours since a time, the present one counted now.';

create or replace function stellwerk.first_day(p_from timestamptz)
returns timestamptz language sql immutable parallel safe set search_path = ''
return date_trunc('day', p_from + interval '1 day - 1 microsecond', 'UTC');
comment on function stellwerk.first_day(timestamptz) is 'When the first day (UTC) begins that is wholly after a time.';

create or replace function stellwerk.days_end(p_tenant_id bigint, p_first timestamptz)
returns timestamptz language sql stable set search_path = '' as $$
  select x.day_end from (select max(d.day) + interval '1 day' as day_end from stellwerk.run_day d where d.tenant_id = p_tenant_id) x where x.day_end > p_first
$$;
comment on function stellwerk.days_end(bigint, timestamptz) is 'Up to when days are summed up, if any is from a time on; else null.';

create or replace function stellwerk.periods_of_runs(p_tenant_id bigint, p_from timestamptz)
returns setof stellwerk.run_hour language plpgsql stable set search_path = '' as $$
declare
  v_first timestamptz := stellwerk.first_day(p_from);
  v_end   timestamptz := stellwerk.days_end(p_tenant_id, v_first);
begin
  if v_end is not null then
    return query select * from stellwerk.run_hour h where h.tenant_id = p_tenant_id and h.hour >= p_from and h.hour < v_first;
    return query select * from stellwerk.run_day d where d.tenant_id = p_tenant_id and d.day >= v_first;
  end if;
  return query select * from stellwerk.hours_of_runs(p_tenant_id, coalesce(v_end, p_from));
end
$$;
comment on function stellwerk.periods_of_runs(bigint, timestamptz) is 'The hours since a time, whole days in one row where they are summed up; hour is when each begins.';

create or replace function stellwerk.periods_of_nodes(p_tenant_id bigint, p_from timestamptz, p_workflow_id bigint)
returns setof stellwerk.node_hour language plpgsql stable set search_path = '' as $$
declare
  v_first timestamptz := stellwerk.first_day(p_from);
  v_end   timestamptz := stellwerk.days_end(p_tenant_id, v_first);
begin
  if v_end is not null then
    return query select * from stellwerk.node_hour n where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.hour >= p_from and n.hour < v_first;
    return query select * from stellwerk.node_day d where d.tenant_id = p_tenant_id and d.workflow_id = p_workflow_id and d.day >= v_first;
  end if;
  return query select * from stellwerk.node_hour n where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.hour >= coalesce(v_end, p_from);
end
$$;
comment on function stellwerk.periods_of_nodes(bigint, timestamptz, bigint) is 'As periods_of_runs, of the nodes of a workflow, and only what is over.';

create or replace function stellwerk.node_figures(workflow text, since timestamptz default now() - interval '1 day')
returns table (node_id text, type text, visits bigint, completed bigint, failed bigint, success_share numeric, retries bigint,
               p50_seconds double precision, p95_seconds double precision, p99_seconds double precision,
               work_seconds double precision, wait_seconds double precision, queue_seconds double precision, bottleneck boolean,
               version integer, live bigint, skipped bigint, cancelled bigint, attempts bigint, failures bigint, p95_queue_seconds double precision)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint := (select w.workflow_id from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.slug = node_figures.workflow);
  v_from        timestamptz := date_trunc('hour', since, 'UTC');
  v_now         timestamptz := date_trunc('hour', stellwerk.clock(), 'UTC');
  v_recent      timestamptz := stellwerk.clock() - interval '31 days';
begin
  if v_workflow_id is null then
    raise exception 'there is no workflow %', quote_nullable(node_figures.workflow) using errcode = 'SW001', hint = 'stellwerk workflow list shows them.';
  end if;
  return query
    with counted as materialized (
      select * from stellwerk.periods_of_nodes(v_tenant_id, v_from, v_workflow_id)
       union all
      select * from stellwerk.count_nodes(v_tenant_id, v_now, v_workflow_id)),
    counts as (
      select d.node_id, d.version, d.sort, jsonb_object_agg(d.bucket, d.count) as durations
        from (select x.node_id, x.version, k.sort, e.key as bucket, sum(e.value::bigint) as count
                from counted x cross join lateral (values ('took', x.durations), ('stood', x.queues)) k (sort, counts) cross join lateral jsonb_each_text(k.counts) e
               where x.hour >= v_recent group by 1, 2, 3, 4) d
       group by 1, 2, 3)
    select c.node_id, c.type, c.visits, c.completed, c.failed, round(c.completed::numeric / nullif(c.completed + c.failed, 0), 4), c.retries,
           stellwerk.percentile_of(t.durations, 0.5), stellwerk.percentile_of(t.durations, 0.95), stellwerk.percentile_of(t.durations, 0.99),
           c.work, c.wait, c.queue, c.work + c.wait + c.queue > 0 and rank() over (order by c.work + c.wait + c.queue desc) = 1,
           c.version, c.live, c.skipped, c.cancelled, c.attempts, c.failures, stellwerk.percentile_of(q.durations, 0.95)
      from (select x.node_id, x.version, min(x.type) as type, sum(x.visits)::bigint as visits, sum(x.completed)::bigint as completed, sum(x.failed)::bigint as failed,
                   sum(x.retries)::bigint as retries, sum(x.work_seconds) as work, sum(x.wait_seconds) as wait, sum(x.queue_seconds) as queue,
                   sum(x.live)::bigint as live, sum(x.skipped)::bigint as skipped, sum(x.cancelled)::bigint as cancelled, sum(x.attempts)::bigint as attempts,
                   sum(x.failures)::bigint as failures
              from counted x group by 1, 2) c
      left join counts t on t.node_id = c.node_id and t.version = c.version and t.sort = 'took'
      left join counts q on q.node_id = c.node_id and q.version = c.version and q.sort = 'stood'
     order by c.work + c.wait + c.queue desc, c.version desc, c.node_id;
end
$$;
comment on function stellwerk.node_figures(text, timestamptz) is 'By node and version of a workflow, over the runs that were asked for since the beginning of an hour: counts, share of success, attempts, durations (of the last 31 days at most), and where the time goes; bottleneck marks the node with the most. Errors: SW001.';

-- Counting stops at two thousand: more is only said to be more.
create or replace function stellwerk.live_figures()
returns table (running bigint, waiting bigint, capped boolean, failed_24h bigint, tasks_overdue bigint, queued bigint, oldest_queued_at timestamptz, workers integer)
language plpgsql stable set search_path = '' set jit = off as $$
declare
  c_most      constant integer := 2000;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_since     timestamptz := stellwerk.clock() - interval '24 hours';
  v_now       timestamptz := stellwerk.clock();
begin
  select count(*) filter (where r.state = 'running'), count(*) filter (where r.state = 'waiting'), count(*) >= c_most
    into running, waiting, capped
    from (select distinct s.run_id from stellwerk.step s
           where s.tenant_id = v_tenant_id and s.state in ('queued', 'running', 'waiting', 'joining') limit c_most) l
    join stellwerk.run r on r.tenant_id = v_tenant_id and r.run_id = l.run_id;
  select count(*) into failed_24h
    from (select from stellwerk.run r where r.tenant_id = v_tenant_id and r.state = 'failed' and r.ended_at >= v_since limit c_most) f;
  select count(*) into tasks_overdue
    from (select from stellwerk.user_task k where k.tenant_id = v_tenant_id and k.state in ('open', 'claimed') and k.due_at < v_now limit c_most) k;
  select count(*), min(q.queued_at) into queued, oldest_queued_at
    from (select s.queued_at from stellwerk.step s
           where s.tenant_id = v_tenant_id and s.state = 'queued' and s.runs_in = 'worker' limit c_most) q;
  workers := stellwerk.present_workers();
  return next;
end
$$;
comment on function stellwerk.live_figures() is 'How it stands now: runs that run and wait (capped: there are more), runs failed in 24 hours, overdue tasks, steps in the queue and since when the oldest, and workers. Counts end at 2000.';

create or replace function stellwerk.hourly_figures(since timestamptz default now() - interval '24 hours')
returns table (hour timestamptz, runs bigint, completed bigint, failed bigint, cancelled bigint, live bigint)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_from      timestamptz := date_trunc('hour', since, 'UTC');
begin
  return query
    select h.hour, coalesce(sum(x.runs), 0)::bigint, coalesce(sum(x.completed), 0)::bigint, coalesce(sum(x.failed), 0)::bigint,
           coalesce(sum(x.cancelled), 0)::bigint, coalesce(sum(x.live), 0)::bigint
      from generate_series(v_from, date_trunc('hour', stellwerk.clock(), 'UTC'), interval '1 hour') h (hour)
      left join stellwerk.hours_of_runs(v_tenant_id, v_from) x on x.hour = h.hour
     group by h.hour
     order by h.hour;
end
$$;
comment on function stellwerk.hourly_figures(timestamptz) is 'For each hour since a time: the runs that were asked for in it, and what became of them so far.';

create or replace function stellwerk.recent_failures(since timestamptz default now() - interval '1 day', most integer default 1000)
returns table (workflow text, version integer, node_id text, error_class text, message text, failures bigint, last_seen timestamptz, run_id bigint,
               fingerprint text, first_seen timestamptz)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  return query
    select w.slug, f.version, f.node_id, f.error_class, f.example, f.failures, f.last_seen, f.run_id,
           md5(concat_ws(E'\x1f', f.workflow_id, f.version, f.node_id, f.error_class, f.message)), f.first_seen
      from (select x.workflow_id, x.version, x.node_id, x.error_class, stellwerk.normal_message(x.message) as message, count(*) as failures,
                   min(x.ended_at) as first_seen, max(x.ended_at) as last_seen, max(x.run_id) as run_id, left(max(x.message), 300) as example
              from (select r.run_id, r.workflow_id, r.version, r.ended_at, r.error ->> 'node' as node_id, r.error ->> 'class' as error_class,
                           r.error ->> 'message' as message
                      from stellwerk.run r
                     where r.tenant_id = v_tenant_id and r.state = 'failed' and r.ended_at >= since
                     order by r.ended_at desc limit most) x
             group by x.workflow_id, x.version, x.node_id, x.error_class, stellwerk.normal_message(x.message)) f
      join stellwerk.workflow w on w.tenant_id = v_tenant_id and w.workflow_id = f.workflow_id
     order by f.failures desc, f.last_seen desc
     limit 20;
end
$$;
comment on function stellwerk.recent_failures(timestamptz, integer) is 'What the newest failures since a time have in common, the most frequent first: as failure_cluster, over so many failed runs at most.';

create or replace function stellwerk.overdue_by_hour()
returns table (hour timestamptz, tasks bigint)
language sql stable set search_path = ''
begin atomic
  select h.hour, count(k.task_id)
    from generate_series(date_trunc('hour', stellwerk.clock(), 'UTC') - interval '23 hours', date_trunc('hour', stellwerk.clock(), 'UTC'), interval '1 hour') h (hour)
    left join lateral (
      select k.task_id from stellwerk.user_task k
       where k.tenant_id = (select stellwerk.current_tenant_id()) and k.state in ('open', 'claimed')
         and k.due_at >= h.hour and k.due_at < least(h.hour + interval '1 hour', stellwerk.clock()) limit 1000) k on true
   group by h.hour
   order by h.hour;
end;
comment on function stellwerk.overdue_by_hour() is 'The open tasks that were due in each of the last 24 hours, a thousand at most in each.';
