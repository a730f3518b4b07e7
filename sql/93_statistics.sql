-- Figures over a period. Hours that are over come from run_hour and node_hour, which housekeeping writes; the present hour is counted.

-- Buckets grow by a fifth (the fourth root of two), so a percentile read from them is at most a tenth off.
create or replace function stellwerk.duration_bucket(p_seconds double precision)
returns integer language sql immutable parallel safe set search_path = ''
return case when p_seconds is null then null else floor(4 / ln(2::double precision) * ln(greatest(p_seconds, 0) * 1000 + 1))::integer end;
comment on function stellwerk.duration_bucket(double precision) is 'The bucket of a duration in seconds: 4 * log2(milliseconds + 1), rounded down.';

create or replace function stellwerk.duration_of_bucket(p_bucket integer)
returns double precision language sql immutable parallel safe set search_path = ''
return (power(2::double precision, (p_bucket + 0.5) / 4) - 1) / 1000;
comment on function stellwerk.duration_of_bucket(integer) is 'The middle of a bucket, in seconds.';

create or replace function stellwerk.percentile_of(p_durations jsonb, p_share double precision)
returns double precision language sql immutable parallel safe set search_path = ''
return (
  select stellwerk.duration_of_bucket(min(b.bucket))
    from (select e.key::integer as bucket, sum(e.value::bigint) over (order by e.key::integer) as reached, sum(e.value::bigint) over () as total
            from jsonb_each_text(p_durations) e) b
   where b.reached >= b.total * p_share);
comment on function stellwerk.percentile_of(jsonb, double precision) is 'The duration that a share of the counted ones does not exceed, in seconds, to about a tenth; null where none were counted.';

create or replace function stellwerk.count_runs(p_tenant_id bigint, p_hour timestamptz)
returns setof stellwerk.run_hour language plpgsql stable set search_path = '' set jit = off as $$
declare
  v_first bigint := stellwerk.first_run_since(p_tenant_id, p_hour);
  v_last  bigint := stellwerk.first_run_since(p_tenant_id, p_hour + interval '1 hour') + 2000;  -- numbers are given out a little out of order
begin
  return query
    select p_tenant_id, p_hour, b.workflow_id, sum(b.runs)::bigint, sum(b.live)::bigint, sum(b.completed)::bigint, sum(b.failed)::bigint,
           sum(b.cancelled)::bigint, coalesce(jsonb_object_agg(b.bucket, b.completed) filter (where b.bucket is not null and b.completed > 0), '{}')
      from (select r.workflow_id, stellwerk.duration_bucket(extract(epoch from r.ended_at - r.started_at)) as bucket, count(*) as runs,
                   count(*) filter (where r.ended_at is null) as live, count(*) filter (where r.state = 'completed') as completed,
                   count(*) filter (where r.state = 'failed') as failed, count(*) filter (where r.state = 'cancelled') as cancelled
              from stellwerk.run r
             where r.tenant_id = p_tenant_id and r.run_id >= v_first and r.run_id <= v_last
               and r.created_at >= p_hour and r.created_at < p_hour + interval '1 hour'
             group by 1, 2) b
     group by b.workflow_id;
end
$$;
comment on function stellwerk.count_runs(bigint, timestamptz) is 'The rows of run_hour for an hour, counted now.';

create or replace function stellwerk.count_nodes(p_tenant_id bigint, p_hour timestamptz)
returns setof stellwerk.node_hour language plpgsql stable set search_path = '' set jit = off as $$
declare
  v_first bigint := stellwerk.first_run_since(p_tenant_id, p_hour);
  v_last  bigint := stellwerk.first_run_since(p_tenant_id, p_hour + interval '1 hour') + 2000;
begin
  return query
    select p_tenant_id, p_hour, b.workflow_id, b.node_id, min(b.type), sum(b.visits)::bigint, sum(b.completed)::bigint, sum(b.failed)::bigint,
           sum(b.retries)::bigint, coalesce(sum(b.work), 0)::double precision, coalesce(sum(b.wait), 0)::double precision,
           coalesce(sum(b.queue), 0)::double precision,
           coalesce(jsonb_object_agg(b.bucket, b.ended) filter (where b.bucket is not null and b.ended > 0), '{}')
      from (select r.workflow_id, s.node_id, min(s.type) as type, count(*) as visits, count(*) filter (where s.state = 'completed') as completed,
                   count(*) filter (where s.state = 'failed') as failed, sum(greatest(s.attempt - 1, 0)) as retries,
                   sum(extract(epoch from s.ended_at - s.started_at)) filter (where s.runs_in = 'worker') as work,
                   sum(extract(epoch from s.ended_at - s.queued_at)) filter (where s.runs_in = 'wait') as wait,
                   sum(extract(epoch from s.started_at - s.queued_at)) filter (where s.runs_in = 'worker' and s.attempt = 1) as queue,
                   count(*) filter (where s.ended_at is not null) as ended,
                   stellwerk.duration_bucket(extract(epoch from s.ended_at - case s.runs_in when 'worker' then s.started_at else s.queued_at end)) as bucket
              from stellwerk.run r
              join stellwerk.step s on s.tenant_id = r.tenant_id and s.run_id = r.run_id
             where r.tenant_id = p_tenant_id and r.run_id >= v_first and r.run_id <= v_last
               and s.tenant_id = p_tenant_id and s.run_id >= v_first and s.run_id <= v_last
               and r.created_at >= p_hour and r.created_at < p_hour + interval '1 hour'
             group by r.workflow_id, s.node_id, 12) b
     group by b.workflow_id, b.node_id;
end
$$;
comment on function stellwerk.count_nodes(bigint, timestamptz) is 'The rows of node_hour for an hour, counted now.';

-- Only what has changed is written, so that a database that rests stays at rest.
create or replace function stellwerk.write_hour(p_tenant_id bigint, p_hour timestamptz)
returns integer language plpgsql set search_path = '' as $$
declare
  v_counted stellwerk.run_hour[] := array(select c from stellwerk.count_runs(p_tenant_id, p_hour) c);
  v_before  stellwerk.run_hour[];
  v_new     stellwerk.run_hour[];
begin
  with changed as (
    delete from stellwerk.run_hour h
     where h.tenant_id = p_tenant_id and h.hour = p_hour and not exists (select from unnest(v_counted) c where c is not distinct from h)
    returning h)
  select array_agg(c.h) into v_before from changed c;
  with new as (
    insert into stellwerk.run_hour as h select c.* from unnest(v_counted) c on conflict do nothing
    returning h)
  select array_agg(n.h) into v_new from new n;
  if v_before is not null or v_new is not null then
    perform stellwerk.add_totals(p_tenant_id, v_before, v_new);
    delete from stellwerk.node_hour n where n.tenant_id = p_tenant_id and n.hour = p_hour;
    insert into stellwerk.node_hour select c.* from stellwerk.count_nodes(p_tenant_id, p_hour) c on conflict do nothing;
    return 1;
  end if;
  return 0;
end
$$;
comment on function stellwerk.write_hour(bigint, timestamptz) is 'Counts an hour that is over; answers 1 where something was written, 0 where all was so already.';

-- One hour each time: first the oldest that is over and was never counted, else one of those whose runs still live, recent ones more often.
create or replace function stellwerk.keep_statistics(p_tenant_id bigint, p_keep interval default '400 days')
returns integer language plpgsql set search_path = '' as $$
declare
  v_now    timestamptz := date_trunc('hour', stellwerk.clock(), 'UTC');
  v_last   timestamptz := coalesce((select max(h.hour) from stellwerk.run_hour h where h.tenant_id = p_tenant_id), v_now - interval '35 days');
  v_run_id bigint := stellwerk.first_run_since(p_tenant_id, v_last + interval '1 hour');
  v_hour   timestamptz;
  v_behind boolean;
begin
  select date_trunc('hour', min(x.created_at), 'UTC') into v_hour
    from (select r.created_at from stellwerk.run r
           where r.tenant_id = p_tenant_id and r.run_id >= v_run_id and r.run_id <= v_run_id + 1000000 and r.created_at >= v_last + interval '1 hour'
           order by r.run_id limit 100) x;
  v_behind := coalesce(v_hour < v_now, false);
  if not v_behind then
    v_hour := null;
    select h.hour into v_hour from stellwerk.run_hour h
     where h.tenant_id = p_tenant_id and h.live > 0 and h.hour > v_now - interval '35 days'
     order by -ln(1 - random()) * extract(epoch from v_now - h.hour + interval '1 hour') limit 1;
  end if;
  delete from stellwerk.run_hour h where h.tenant_id = p_tenant_id and h.hour < v_now - p_keep;
  delete from stellwerk.node_hour n where n.tenant_id = p_tenant_id and n.hour < v_now - p_keep;
  if v_hour is not null then
    perform stellwerk.write_hour(p_tenant_id, v_hour);
  end if;
  return v_behind::integer;
end
$$;
comment on function stellwerk.keep_statistics(bigint, interval) is 'Counts one hour that is over, or one anew of which runs still live, and drops hours that are too old. Part of housekeeping; answers 1 where it was behind and there may be more.';

create or replace function stellwerk.workflow_figures(since timestamptz default now() - interval '1 day')
returns table (workflow text, name text, version integer, runs bigint, live bigint, completed bigint, failed bigint, cancelled bigint, success_share numeric,
               p50_seconds double precision, p95_seconds double precision, p99_seconds double precision,
               work_seconds double precision, wait_seconds double precision, queue_seconds double precision, retries bigint, bottleneck text)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_from      timestamptz := date_trunc('hour', since, 'UTC');
begin
  return query
    with counted as materialized (
      select h.workflow_id, h.runs, h.live, h.completed, h.failed, h.cancelled, h.durations
        from stellwerk.hours_of_runs(v_tenant_id, v_from) h),
    durations as (
      select d.workflow_id, jsonb_object_agg(d.bucket, d.count) as durations
        from (select x.workflow_id, e.key as bucket, sum(e.value::bigint) as count
                from counted x cross join lateral jsonb_each_text(x.durations) e group by 1, 2) d
       group by 1),
    nodes as (
      select n.workflow_id, n.node_id, sum(n.work_seconds) as work, sum(n.wait_seconds) as wait, sum(n.queue_seconds) as queue, sum(n.retries) as retries
        from stellwerk.node_hour n where n.tenant_id = v_tenant_id and n.hour >= v_from group by 1, 2)
    select w.slug, coalesce(nullif(w.name, ''), w.slug), w.active_version, c.runs, c.live, c.completed, c.failed, c.cancelled,
           round(c.completed::numeric / nullif(c.completed + c.failed, 0), 4),
           stellwerk.percentile_of(d.durations, 0.5), stellwerk.percentile_of(d.durations, 0.95), stellwerk.percentile_of(d.durations, 0.99),
           n.work, n.wait, n.queue, n.retries, n.bottleneck
      from (select x.workflow_id, sum(x.runs)::bigint as runs, sum(x.live)::bigint as live, sum(x.completed)::bigint as completed, sum(x.failed)::bigint as failed,
                   sum(x.cancelled)::bigint as cancelled
              from counted x group by 1) c
      left join durations d on d.workflow_id = c.workflow_id
      join stellwerk.workflow w on w.tenant_id = v_tenant_id and w.workflow_id = c.workflow_id
      left join (select y.workflow_id, sum(y.work) as work, sum(y.wait) as wait, sum(y.queue) as queue, sum(y.retries)::bigint as retries,
                        (array_agg(y.node_id order by y.work + y.wait + y.queue desc, y.node_id) filter (where y.work + y.wait + y.queue > 0))[1] as bottleneck
                   from nodes y group by 1) n on n.workflow_id = c.workflow_id
     order by c.runs desc, w.slug;
end
$$;
comment on function stellwerk.workflow_figures(timestamptz) is 'By workflow, over the runs that were asked for since the beginning of an hour: counts, share of success, durations of completed runs, time of work, of waiting and in the queue, retries, and the node with the most time (these from hours that are over).';

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

create or replace function stellwerk.node_figures(workflow text, since timestamptz default now() - interval '1 day')
returns table (node_id text, type text, visits bigint, completed bigint, failed bigint, success_share numeric, retries bigint,
               p50_seconds double precision, p95_seconds double precision, p99_seconds double precision,
               work_seconds double precision, wait_seconds double precision, queue_seconds double precision, bottleneck boolean)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint := (select w.workflow_id from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.slug = node_figures.workflow);
  v_from        timestamptz := date_trunc('hour', since, 'UTC');
  v_now         timestamptz := date_trunc('hour', stellwerk.clock(), 'UTC');
begin
  if v_workflow_id is null then
    raise exception 'there is no workflow %', quote_nullable(node_figures.workflow) using errcode = 'SW001', hint = 'stellwerk workflow list shows them.';
  end if;
  return query
    with counted as materialized (
      select * from stellwerk.node_hour n where n.tenant_id = v_tenant_id and n.workflow_id = v_workflow_id and n.hour >= v_from and n.hour < v_now
       union all
      select * from stellwerk.count_nodes(v_tenant_id, v_now) n where n.workflow_id = v_workflow_id),
    durations as (
      select d.node_id, jsonb_object_agg(d.bucket, d.count) as durations
        from (select x.node_id, e.key as bucket, sum(e.value::bigint) as count
                from counted x cross join lateral jsonb_each_text(x.durations) e group by 1, 2) d
       group by 1)
    select c.node_id, c.type, c.visits, c.completed, c.failed, round(c.completed::numeric / nullif(c.completed + c.failed, 0), 4), c.retries,
           stellwerk.percentile_of(d.durations, 0.5), stellwerk.percentile_of(d.durations, 0.95), stellwerk.percentile_of(d.durations, 0.99),
           c.work, c.wait, c.queue, c.work + c.wait + c.queue > 0 and rank() over (order by c.work + c.wait + c.queue desc) = 1
      from (select x.node_id, min(x.type) as type, sum(x.visits)::bigint as visits, sum(x.completed)::bigint as completed, sum(x.failed)::bigint as failed,
                   sum(x.retries)::bigint as retries, sum(x.work_seconds) as work, sum(x.wait_seconds) as wait, sum(x.queue_seconds) as queue
              from counted x group by x.node_id) c
      left join durations d on d.node_id = c.node_id
     order by c.work + c.wait + c.queue desc, c.node_id;
end
$$;
comment on function stellwerk.node_figures(text, timestamptz) is 'By node of a workflow, over the runs that were asked for since the beginning of an hour: counts, share of success, retries, durations, and where the time goes; bottleneck marks the node with the most. Errors: SW001.';

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
returns table (workflow text, version integer, node_id text, error_class text, message text, failures bigint, last_seen timestamptz, run_id bigint)
language plpgsql stable set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  return query
    select w.slug, f.version, f.node_id, f.error_class, f.example, f.failures, f.last_seen, f.run_id
      from (select x.workflow_id, x.version, x.node_id, x.error_class, count(*) as failures, max(x.ended_at) as last_seen,
                   max(x.run_id) as run_id, max(x.message) as example
              from (select r.run_id, r.workflow_id, r.version, r.ended_at, r.error ->> 'node' as node_id, r.error ->> 'class' as error_class,
                           left(r.error ->> 'message', 300) as message
                      from stellwerk.run r
                     where r.tenant_id = v_tenant_id and r.state = 'failed' and r.ended_at >= since
                     order by r.ended_at desc limit most) x
             group by x.workflow_id, x.version, x.node_id, x.error_class, stellwerk.normal_message(x.message)) f
      join stellwerk.workflow w on w.tenant_id = v_tenant_id and w.workflow_id = f.workflow_id
     order by f.failures desc, f.last_seen desc
     limit 10;
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
