-- trigger.schedule: a row per node of the published version says when the next run starts; tick starts it.

create or replace function stellwerk.set_schedules(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns void language plpgsql set search_path = '' as $$
declare
  v_now  timestamptz := stellwerk.clock();
  v_node stellwerk.plan_node;
  v_old  stellwerk.schedule;
  v_new  stellwerk.schedule;
begin
  delete from stellwerk.schedule s
   where s.tenant_id = p_tenant_id and s.workflow_id = p_workflow_id
     and not exists (select from stellwerk.plan_node n
                      where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.node_id = s.node_id
                        and n.type = 'trigger.schedule');
  for v_node in
    select * from stellwerk.plan_node n
     where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.type = 'trigger.schedule' order by n.position
  loop
    select * into v_old from stellwerk.schedule s where s.tenant_id = p_tenant_id and s.workflow_id = p_workflow_id and s.node_id = v_node.node_id;
    v_new := row(p_tenant_id, null, p_workflow_id, v_node.node_id, v_node.config ->> 'cron', nullif(v_node.config -> 'fields', 'null'),
                 (v_node.config ->> 'every')::interval, v_node.config ->> 'time_zone', coalesce(v_node.config ->> 'catch_up', 'last'),
                 null, null, null, null, null, null);
    if v_new.time_zone is not null then
      perform stellwerk.check_zone(v_new.time_zone);
    end if;
    if (v_old.cron, v_old.every, v_old.time_zone) is distinct from (v_new.cron, v_new.every, v_new.time_zone) or v_old.next_run is null then
      v_new.next_run := stellwerk.next_time(v_new, v_now);
    else
      v_new.next_run := v_old.next_run;
    end if;
    insert into stellwerk.schedule as s (tenant_id, workflow_id, node_id, cron, fields, every, time_zone, catch_up, next_run)
    values (v_new.tenant_id, v_new.workflow_id, v_new.node_id, v_new.cron, v_new.fields, v_new.every, v_new.time_zone, v_new.catch_up, v_new.next_run)
    on conflict on constraint schedule_one_per_node do update
       set cron = excluded.cron, fields = excluded.fields, every = excluded.every, time_zone = excluded.time_zone, catch_up = excluded.catch_up,
           next_run = excluded.next_run;
  end loop;
end
$$;
comment on function stellwerk.set_schedules(bigint, bigint, integer) is 'Sets the schedules of a version that is being published, and ends those that it no longer names. One that has not changed goes on; a paused one stays paused.';

create or replace function stellwerk.next_time(p_schedule stellwerk.schedule, p_after timestamptz)
returns timestamptz language plpgsql stable set search_path = '' as $$
declare
  v_zone text := coalesce(p_schedule.time_zone, stellwerk.zone_of(p_schedule.tenant_id));
begin
  if p_schedule.every is not null then
    return stellwerk.shift_time(p_after, p_schedule.every, v_zone);
  end if;
  return stellwerk.cron_next(p_schedule.fields, v_zone, p_after);
end
$$;
comment on function stellwerk.next_time(stellwerk.schedule, timestamptz) is 'The first time of a schedule after the given one; null when there is none.';

create or replace function stellwerk.start_scheduled(p_tenant_id bigint, p_limit integer default 100)
returns integer language plpgsql set search_path = '' as $$
declare
  v_now      timestamptz := stellwerk.clock();
  v_schedule stellwerk.schedule;
  v_due      record;
  v_at       timestamptz;
  v_run_id   bigint;
  v_trouble  text;
  v_started  integer := 0;
begin
  for v_schedule in
    select * from stellwerk.schedule s where s.tenant_id = p_tenant_id and s.paused_at is null and s.next_run <= v_now
     order by s.next_run limit p_limit for update skip locked
  loop
    v_due := stellwerk.due_times(v_schedule, v_now);
    v_run_id := null;
    v_trouble := null;
    begin
      foreach v_at in array v_due.starts loop
        v_run_id := stellwerk.start_for_time(v_schedule, v_at);
        v_started := v_started + 1;
      end loop;
    exception when query_canceled or others then
      v_run_id := null;
      v_trouble := sqlerrm;
    end;
    update stellwerk.schedule s
       set next_run = v_due.next, trouble = case when cardinality(v_due.starts) > 0 then v_trouble else s.trouble end,
           last_run = case when v_run_id is not null then v_at else s.last_run end, last_run_id = coalesce(v_run_id, s.last_run_id)
     where s.tenant_id = p_tenant_id and s.schedule_id = v_schedule.schedule_id;
  end loop;
  if v_started > 0 then
    perform stellwerk.ring_if_asleep();
  end if;
  return v_started;
end
$$;
comment on function stellwerk.start_scheduled(bigint, integer) is 'Starts the runs of schedules that are due, each time once, by any number of callers. One that cannot start says why in trouble and goes on with its next time. Answers how many were started.';

create or replace function stellwerk.due_times(p_schedule stellwerk.schedule, p_now timestamptz, out starts timestamptz[], out next timestamptz)
language plpgsql stable set search_path = '' as $$
declare
  c_most  constant integer := 100;
  c_late  constant interval := interval '5 minutes';  -- later than that, a time counts as missed
  v_last  timestamptz := p_schedule.next_run;
  v_since interval;
begin
  starts := '{}';
  next := p_schedule.next_run;
  if p_schedule.catch_up = 'all' then
    while next <= p_now and cardinality(starts) < c_most loop
      starts := starts || next;
      next := stellwerk.next_time(p_schedule, next);
    end loop;
    return;
  end if;
  -- The last of the times that are due; after a long while not all of them are counted through.
  if p_schedule.fields is not null then
    foreach v_since in array array['1 hour', '1 day', '31 days', '366 days']::interval[] loop
      exit when p_now - v_since <= p_schedule.next_run;
      next := stellwerk.next_time(p_schedule, p_now - v_since);
      if next <= p_now then
        v_last := next;
        exit;
      end if;
    end loop;
  end if;
  loop
    next := stellwerk.next_time(p_schedule, v_last);
    exit when next is null or next > p_now;
    v_last := next;
  end loop;
  if p_schedule.catch_up = 'last' or p_now - v_last <= c_late then
    starts := array[v_last];
  end if;
end
$$;
comment on function stellwerk.due_times(stellwerk.schedule, timestamptz) is 'For which of the times that are due runs start, by catch_up, at most 100 at once; and the next time.';

create or replace function stellwerk.start_for_time(p_schedule stellwerk.schedule, p_at timestamptz, p_by_hand boolean default false)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := p_schedule.tenant_id;
  v_workflow  stellwerk.workflow;
  v_order     stellwerk.run_order;
  v_run_id    bigint := nextval('stellwerk.run_id_seq');
  v_key       text;
begin
  select * into v_workflow from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.workflow_id = p_schedule.workflow_id;
  v_order := stellwerk.check_order(v_tenant_id, v_workflow, jsonb_build_object('scheduled_at', p_at, 'schedule', p_schedule.node_id));
  v_order.trigger_node := p_schedule.node_id;
  v_order.source := 'schedule';
  v_order.depth := 0;
  if not p_by_hand then
    -- The same time starts one run, whether tick or a backfill comes first.
    v_key := format('schedule:%s:%s', p_schedule.node_id, to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
    insert into stellwerk.run_key (tenant_id, workflow_id, idempotency_key, run_id)
    values (v_tenant_id, p_schedule.workflow_id, v_key, v_run_id) on conflict do nothing;
    if not found then
      return null;
    end if;
    v_order.idempotency_key := v_key;
  end if;
  return (stellwerk.insert_runs(v_tenant_id, array[v_order], array[v_run_id]))[1];
end
$$;
comment on function stellwerk.start_for_time(stellwerk.schedule, timestamptz, boolean) is 'Starts the run of a schedule for one of its times; null when that was started before. By hand it always starts one. Errors: SW001, SW002.';

-- What people do to a schedule

create or replace function stellwerk.find_schedule(p_tenant_id bigint, p_workflow text, p_node text)
returns stellwerk.schedule language plpgsql set search_path = '' as $$
declare
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(p_tenant_id, p_workflow);
  v_schedules stellwerk.schedule[];
begin
  v_schedules := array(
    select s from stellwerk.schedule s
     where s.tenant_id = p_tenant_id and s.workflow_id = v_workflow.workflow_id and (p_node is null or s.node_id = p_node) for update);
  if cardinality(v_schedules) = 0 then
    raise exception 'workflow % has no schedule%', quote_literal(p_workflow), coalesce(' ' || quote_literal(left(p_node, 100)), '')
      using errcode = 'SW007', hint = 'The trigger.schedule nodes of its published version are its schedules.';
  elsif cardinality(v_schedules) > 1 then
    raise exception 'workflow % has several schedules', quote_literal(p_workflow)
      using errcode = 'SW008', hint = 'Name one: ' || (select string_agg(s.node_id, ', ' order by s.node_id) from unnest(v_schedules) s);
  end if;
  return v_schedules[1];
end
$$;
comment on function stellwerk.find_schedule(bigint, text, text) is 'The schedule of a workflow, locked; the node need only be named where there are several. Errors: SW001, SW007, SW008.';

create or replace function stellwerk.pause_schedule(workflow text, node text default null)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_schedule stellwerk.schedule := stellwerk.find_schedule(stellwerk.current_tenant_id(), workflow, node);
begin
  update stellwerk.schedule s set paused_at = stellwerk.clock(), paused_by = stellwerk.actor()
   where s.tenant_id = v_schedule.tenant_id and s.schedule_id = v_schedule.schedule_id and s.paused_at is null;
end
$$;
comment on function stellwerk.pause_schedule(text, text) is 'Has a schedule start no runs until it is resumed. Errors: SW001, SW007, SW008.';

create or replace function stellwerk.resume_schedule(workflow text, node text default null)
returns timestamptz language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_schedule stellwerk.schedule := stellwerk.find_schedule(stellwerk.current_tenant_id(), workflow, node);
begin
  if v_schedule.paused_at is not null then
    v_schedule.next_run := stellwerk.next_time(v_schedule, stellwerk.clock());
    update stellwerk.schedule s set paused_at = null, paused_by = null, next_run = v_schedule.next_run
     where s.tenant_id = v_schedule.tenant_id and s.schedule_id = v_schedule.schedule_id;
  end if;
  return v_schedule.next_run;
end
$$;
comment on function stellwerk.resume_schedule(text, text) is 'Has a paused schedule go on from now; times of the pause are not made up for (backfill_schedule does that). Answers the next time. Errors: SW001, SW007, SW008.';

create or replace function stellwerk.run_schedule(workflow text, node text default null)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_schedule stellwerk.schedule := stellwerk.find_schedule(stellwerk.current_tenant_id(), workflow, node);
  v_run_id   bigint := stellwerk.start_for_time(v_schedule, stellwerk.clock(), true);
begin
  perform stellwerk.note_action(v_schedule.tenant_id, 'run_schedule', 'schedule', v_schedule.schedule_id::text, null, jsonb_build_object('run_id', v_run_id::text));
  perform stellwerk.ring_if_asleep();
  return v_run_id;
end
$$;
comment on function stellwerk.run_schedule(text, text) is 'Starts a run of a schedule now, paused or not; its times stay as they are. Answers the run. Errors: SW001, SW002, SW007, SW008.';

create or replace function stellwerk.backfill_schedule(workflow text, since timestamptz, until timestamptz, node text default null)
returns integer language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  c_most constant integer := 1000;
  v_schedule stellwerk.schedule := stellwerk.find_schedule(stellwerk.current_tenant_id(), workflow, node);
  v_at       timestamptz;
  v_count    integer := 0;
  v_started  integer := 0;
begin
  if v_schedule.cron is null then
    raise exception 'schedule % has no set times that could be made up for', quote_literal(v_schedule.node_id)
      using errcode = 'SW003', hint = 'It runs every so often; run_schedule starts one run now.';
  elsif since is null or until is null or until <= since or until > stellwerk.clock() then
    raise exception 'a backfill goes from a time to a later one that has passed' using errcode = 'SW008';
  end if;
  v_at := since - interval '1 microsecond';
  loop
    v_at := stellwerk.next_time(v_schedule, v_at);
    exit when v_at is null or v_at >= until;
    v_count := v_count + 1;
    if v_count > c_most then
      raise exception 'that would be more than % runs', c_most using errcode = 'SW008', hint = 'Make up for a shorter time at once.';
    end if;
    v_started := v_started + (stellwerk.start_for_time(v_schedule, v_at) is not null)::integer;
  end loop;
  perform stellwerk.note_action(v_schedule.tenant_id, 'backfill_schedule', 'schedule', v_schedule.schedule_id::text, null,
    jsonb_build_object('since', since, 'until', until, 'started', v_started));
  perform stellwerk.ring_if_asleep();
  return v_started;
end
$$;
comment on function stellwerk.backfill_schedule(text, timestamptz, timestamptz, text) is 'Starts the runs of a cron schedule for its times from since to before until, at most 1000, leaving out those that were started before. Answers how many. Errors: SW001, SW002, SW003, SW007, SW008.';

create or replace function stellwerk.schedule_times(workflow text, count integer default 10, node text default null)
returns setof timestamptz language plpgsql security definer  -- callers may not lock or read the tables
set search_path = '' as $$
declare
  v_schedule stellwerk.schedule := stellwerk.find_schedule(stellwerk.current_tenant_id(), workflow, node);
  v_at       timestamptz := v_schedule.next_run;
begin
  for v_number in 1 .. least(count, 1000) loop
    exit when v_at is null;
    return next v_at;
    v_at := stellwerk.next_time(v_schedule, v_at);
  end loop;
end
$$;
comment on function stellwerk.schedule_times(text, integer, text) is 'The next times of a schedule, at most 1000. Errors: SW001, SW007, SW008.';
