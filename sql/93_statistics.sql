-- Figures over a period, as housekeeping counts them: hours that are over in run_hour and node_hour, days in run_day and node_day.

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
    with asked as materialized (
      select r.workflow_id, r.state, r.started_at, case when r.state = 'completed' then stellwerk.duration_bucket(extract(epoch from r.ended_at - r.started_at)) end as took,
             stellwerk.duration_bucket(extract(epoch from r.started_at - greatest(r.created_at, r.start_at))) as stood
        from stellwerk.run r
       where r.tenant_id = p_tenant_id and r.run_id >= v_first and r.run_id <= v_last
         and r.created_at >= p_hour and r.created_at < p_hour + interval '1 hour'),
    durations as (
      select x.workflow_id, jsonb_object_agg(x.took, x.count) as counts
        from (select a.workflow_id, a.took, count(*) as count from asked a where a.took is not null group by 1, 2) x group by 1),
    starts as (
      select x.workflow_id, jsonb_object_agg(x.stood, x.count) as counts
        from (select a.workflow_id, a.stood, count(*) as count from asked a where a.stood is not null group by 1, 2) x group by 1)
    select p_tenant_id, p_hour, b.workflow_id, b.runs, b.pending + b.running + b.waiting + b.paused, b.completed, b.failed, b.cancelled, coalesce(d.counts, '{}'),
           b.pending, b.running, b.waiting, b.paused, coalesce(s.counts, '{}'), b.last_started_at
      from (select a.workflow_id, count(*) as runs, count(*) filter (where a.state = 'pending') as pending, count(*) filter (where a.state = 'running') as running,
                   count(*) filter (where a.state = 'waiting') as waiting, count(*) filter (where a.state = 'paused') as paused,
                   count(*) filter (where a.state = 'completed') as completed, count(*) filter (where a.state = 'failed') as failed,
                   count(*) filter (where a.state = 'cancelled') as cancelled, max(a.started_at) as last_started_at
              from asked a group by 1) b
      left join durations d on d.workflow_id = b.workflow_id
      left join starts s on s.workflow_id = b.workflow_id;
end
$$;
comment on function stellwerk.count_runs(bigint, timestamptz) is 'The rows of run_hour for an hour, counted now.';

create or replace function stellwerk.count_nodes(p_tenant_id bigint, p_hour timestamptz, p_workflow_id bigint default null)
returns setof stellwerk.node_hour language plpgsql stable set search_path = '' set jit = off set plan_cache_mode = force_custom_plan as $$
declare
  v_first bigint := stellwerk.first_run_since(p_tenant_id, p_hour);
  v_last  bigint := stellwerk.first_run_since(p_tenant_id, p_hour + interval '1 hour') + 2000;
begin
  return query
    with reached as materialized (
      select r.workflow_id, s.node_id, s.version, s.type, s.state, s.attempt, s.failures, s.runs_in, s.queued_at, s.started_at, s.ended_at,
             stellwerk.duration_bucket(extract(epoch from s.ended_at - case s.runs_in when 'worker' then s.started_at else s.queued_at end)) as took,
             case when s.runs_in = 'worker' and s.attempt = 1 then stellwerk.duration_bucket(extract(epoch from s.started_at - s.queued_at)) end as stood
        from stellwerk.run r
        join stellwerk.step s on s.tenant_id = r.tenant_id and s.run_id = r.run_id
       where r.tenant_id = p_tenant_id and r.run_id >= v_first and r.run_id <= v_last
         and s.tenant_id = p_tenant_id and s.run_id >= v_first and s.run_id <= v_last
         and r.created_at >= p_hour and r.created_at < p_hour + interval '1 hour' and (p_workflow_id is null or r.workflow_id = p_workflow_id)),
    durations as (
      select x.workflow_id, x.node_id, x.version, jsonb_object_agg(x.took, x.count) as counts
        from (select a.workflow_id, a.node_id, a.version, a.took, count(*) as count from reached a where a.took is not null group by 1, 2, 3, 4) x group by 1, 2, 3),
    queues as (
      select x.workflow_id, x.node_id, x.version, jsonb_object_agg(x.stood, x.count) as counts
        from (select a.workflow_id, a.node_id, a.version, a.stood, count(*) as count from reached a where a.stood is not null group by 1, 2, 3, 4) x group by 1, 2, 3)
    select p_tenant_id, p_hour, b.workflow_id, b.node_id, b.type, b.visits, b.completed, b.failed, b.retries, b.work::double precision,
           b.wait::double precision, b.queue::double precision, coalesce(d.counts, '{}'), b.version, b.live, b.skipped, b.cancelled, b.attempts, b.failures,
           coalesce(q.counts, '{}')
      from (select s.workflow_id, s.node_id, s.version, min(s.type) as type, count(*) as visits, count(*) filter (where s.state = 'completed') as completed,
                   count(*) filter (where s.state = 'failed') as failed, sum(greatest(s.attempt - 1, 0)) as retries,
                   coalesce(sum(extract(epoch from s.ended_at - s.started_at)) filter (where s.runs_in = 'worker'), 0) as work,
                   coalesce(sum(extract(epoch from s.ended_at - s.queued_at)) filter (where s.runs_in = 'wait'), 0) as wait,
                   coalesce(sum(extract(epoch from s.started_at - s.queued_at)) filter (where s.runs_in = 'worker' and s.attempt = 1), 0) as queue,
                   count(*) filter (where s.ended_at is null) as live, count(*) filter (where s.state = 'skipped') as skipped,
                   count(*) filter (where s.state = 'cancelled') as cancelled, sum(s.attempt) as attempts, sum(s.failures) as failures
              from reached s group by 1, 2, 3) b
      left join durations d on d.workflow_id = b.workflow_id and d.node_id = b.node_id and d.version = b.version
      left join queues q on q.workflow_id = b.workflow_id and q.node_id = b.node_id and q.version = b.version;
end
$$;
comment on function stellwerk.count_nodes(bigint, timestamptz, bigint) is 'The rows of node_hour for an hour, counted now; of one workflow, if it is given.';

-- Only what has changed is written, so that a database that rests stays at rest.
create or replace function stellwerk.write_hour(p_tenant_id bigint, p_hour timestamptz)
returns integer language plpgsql set search_path = '' as $$
declare
  v_counted stellwerk.run_hour[] := array(select c from stellwerk.count_runs(p_tenant_id, p_hour) c);
  v_changed integer;
begin
  delete from stellwerk.run_hour h
   where h.tenant_id = p_tenant_id and h.hour = p_hour
     and not exists (select from unnest(v_counted) c where c is not distinct from h);
  get diagnostics v_changed = row_count;
  insert into stellwerk.run_hour select c.* from unnest(v_counted) c on conflict do nothing;
  if v_changed > 0 or found then
    delete from stellwerk.node_hour n where n.tenant_id = p_tenant_id and n.hour = p_hour;
    insert into stellwerk.node_hour select c.* from stellwerk.count_nodes(p_tenant_id, p_hour) c on conflict do nothing;
    if exists (select from stellwerk.run_day d where d.tenant_id = p_tenant_id and d.day = date_trunc('day', p_hour, 'UTC')) then
      perform stellwerk.write_day(p_tenant_id, date_trunc('day', p_hour, 'UTC'));
    end if;
    return 1;
  end if;
  return 0;
end
$$;
comment on function stellwerk.write_hour(bigint, timestamptz) is 'Counts an hour that is over; answers 1 where something was written, 0 where all was so already.';

create or replace function stellwerk.write_day(p_tenant_id bigint, p_day timestamptz)
returns void language plpgsql set search_path = '' set jit = off as $$
begin
  delete from stellwerk.run_day d where d.tenant_id = p_tenant_id and d.day = p_day;
  delete from stellwerk.node_day d where d.tenant_id = p_tenant_id and d.day = p_day;
  insert into stellwerk.run_day
  with hours as (select * from stellwerk.run_hour h where h.tenant_id = p_tenant_id and h.hour >= p_day and h.hour < p_day + interval '1 day'),
  counts as (
    select x.workflow_id, x.sort, jsonb_object_agg(x.bucket, x.count) as counts
      from (select h.workflow_id, k.sort, e.key as bucket, sum(e.value::bigint) as count
              from hours h cross join lateral (values ('took', h.durations), ('stood', h.starts)) k (sort, counts) cross join lateral jsonb_each_text(k.counts) e
             group by 1, 2, 3) x
     group by 1, 2)
  select p_tenant_id, p_day, b.*, coalesce(t.counts, '{}'), s.pending, s.running, s.waiting, s.paused, coalesce(c.counts, '{}'), s.last_started_at
    from (select h.workflow_id, sum(h.runs)::bigint, sum(h.live)::bigint, sum(h.completed)::bigint, sum(h.failed)::bigint, sum(h.cancelled)::bigint from hours h group by 1) b
    join (select h.workflow_id, sum(h.pending)::bigint as pending, sum(h.running)::bigint as running, sum(h.waiting)::bigint as waiting,
                 sum(h.paused)::bigint as paused, max(h.last_started_at) as last_started_at from hours h group by 1) s using (workflow_id)
    left join counts t on t.workflow_id = s.workflow_id and t.sort = 'took'
    left join counts c on c.workflow_id = s.workflow_id and c.sort = 'stood';
  insert into stellwerk.node_day
  with hours as (select * from stellwerk.node_hour h where h.tenant_id = p_tenant_id and h.hour >= p_day and h.hour < p_day + interval '1 day'),
  counts as (
    select x.workflow_id, x.node_id, x.version, x.sort, jsonb_object_agg(x.bucket, x.count) as counts
      from (select h.workflow_id, h.node_id, h.version, k.sort, e.key as bucket, sum(e.value::bigint) as count
              from hours h cross join lateral (values ('took', h.durations), ('stood', h.queues)) k (sort, counts) cross join lateral jsonb_each_text(k.counts) e
             group by 1, 2, 3, 4, 5) x
     group by 1, 2, 3, 4)
  select p_tenant_id, p_day, b.workflow_id, b.node_id, b.type, b.visits, b.completed, b.failed, b.retries, b.work, b.wait, b.queue, coalesce(t.counts, '{}'), b.version,
         b.live, b.skipped, b.cancelled, b.attempts, b.failures, coalesce(q.counts, '{}')
    from (select h.workflow_id, h.node_id, h.version, min(h.type) as type, sum(h.visits)::bigint as visits, sum(h.completed)::bigint as completed,
                 sum(h.failed)::bigint as failed, sum(h.retries)::bigint as retries, sum(h.work_seconds) as work, sum(h.wait_seconds) as wait,
                 sum(h.queue_seconds) as queue, sum(h.live)::bigint as live, sum(h.skipped)::bigint as skipped, sum(h.cancelled)::bigint as cancelled,
                 sum(h.attempts)::bigint as attempts, sum(h.failures)::bigint as failures
            from hours h group by 1, 2, 3) b
    left join counts t on t.workflow_id = b.workflow_id and t.node_id = b.node_id and t.version = b.version and t.sort = 'took'
    left join counts q on q.workflow_id = b.workflow_id and q.node_id = b.node_id and q.version = b.version and q.sort = 'stood';
end
$$;
comment on function stellwerk.write_day(bigint, timestamptz) is 'Sums up the hours of a day (UTC).';

-- One day each time: the oldest of which all hours are counted and that is not summed up.
create or replace function stellwerk.sum_up_day(p_tenant_id bigint, p_counted_to timestamptz)
returns integer language plpgsql set search_path = '' as $$
declare
  v_after timestamptz := coalesce((select max(d.day) + interval '1 day' from stellwerk.run_day d where d.tenant_id = p_tenant_id), '-infinity');
  v_day   timestamptz := (select date_trunc('day', min(h.hour), 'UTC') from stellwerk.run_hour h where h.tenant_id = p_tenant_id and h.hour >= v_after);
begin
  if v_day is null or v_day + interval '1 day' > p_counted_to then
    return 0;
  end if;
  perform stellwerk.write_day(p_tenant_id, v_day);
  return 1;
end
$$;
comment on function stellwerk.sum_up_day(bigint, timestamptz) is 'Sums up the next day that ended before the time up to which hours are counted; answers 1, or 0 where there is none.';

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
  delete from stellwerk.run_day d where d.tenant_id = p_tenant_id and d.day < v_now - p_keep;
  delete from stellwerk.node_day d where d.tenant_id = p_tenant_id and d.day < v_now - p_keep;
  if v_hour is not null then
    perform stellwerk.write_hour(p_tenant_id, v_hour);
  end if;
  return greatest(v_behind::integer, stellwerk.sum_up_day(p_tenant_id, case when v_behind then v_hour else v_now end));
end
$$;
comment on function stellwerk.keep_statistics(bigint, interval) is 'Counts one hour that is over, or one anew of which runs still live, sums up a day, and drops what is too old. Part of housekeeping; answers 1 where it was behind and there may be more.';

