-- What went wrong or stands still, over all runs: stuck runs, fingerprints of failures, dead letters sent on again.

create or replace function stellwerk.stuck_runs(older_than interval default interval '1 minute')
returns table (run_id bigint, workflow text, state text, node_id text, step_id bigint, since timestamptz, cause text, reason text, mend text)
language plpgsql stable security definer  -- looks into the queue, which callers may not
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  return query
    select c.run_id, stellwerk.slug_of(v_tenant_id, r.workflow_id), r.state, s.node_id, c.step_id, c.since, c.cause,
           case when s.step_id is not null then (stellwerk.reason_of_step(r, s, 1)).text
                else (select x.text from stellwerk.reasons_of_run(r, 1) x limit 1) end,
           case c.cause when 'no_worker' then 'Start a worker that carries out ' || s.type || '.'
                        when 'lost_job' then 'select stellwerk.reconcile();'
                        when 'not_pumped' then 'Start a worker, or: select stellwerk.pump();'
                        when 'waits_for_nothing' then format('select stellwerk.skip_step(%s, %s); or cancel the run.', c.run_id, c.step_id)
                        else 'Start a worker, or: select stellwerk.tick();' end
      from stellwerk.stuck_places(v_tenant_id, stellwerk.clock() - older_than) c
      join stellwerk.run r on r.tenant_id = v_tenant_id and r.run_id = c.run_id
      left join stellwerk.step s on s.tenant_id = v_tenant_id and s.run_id = c.run_id and s.step_id = c.step_id
     where r.state in ('pending', 'running', 'waiting');
end
$$;
comment on function stellwerk.stuck_runs(interval) is 'Live runs that nothing will move, as the view stuck_run shows them, standing for longer than the duration given; at most 1,000 of each cause. Reads what is live now, not the history.';

create or replace function stellwerk.stuck_places(p_tenant_id bigint, p_before timestamptz)
returns table (run_id bigint, step_id bigint, since timestamptz, cause text)
language plpgsql stable set search_path = '' as $$
declare
  c_most    constant integer := 1000;
  v_types   text[] := array(select distinct t.type from stellwerk.worker w cross join lateral unnest(w.types) t (type) where stellwerk.is_present(w.worker_id));
  -- While workers are there, much work may only mean that they are busy.
  v_patient timestamptz := case when stellwerk.present_workers() = 0 then p_before else least(p_before, stellwerk.clock() - interval '15 minutes') end;
  v_jobs    bigint[];
begin
  v_jobs := array(select q.job_id from stellwerk.queue_state(array(
    select distinct s.job_id from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.state = 'queued' and s.runs_in = 'worker' and s.queued_at < p_before)) q);
  return query
    (select s.run_id, s.step_id, s.queued_at, 'no_worker' from stellwerk.step s
      where s.tenant_id = p_tenant_id and s.state = 'queued' and s.runs_in = 'worker' and greatest(s.queued_at, s.due_at) < p_before
        and s.type <> all (v_types) limit c_most)
    union all
    (select s.run_id, s.step_id, s.queued_at, 'lost_job' from stellwerk.step s
       left join unnest(v_jobs) j (job_id) on j.job_id = s.job_id
      where s.tenant_id = p_tenant_id and s.state = 'queued' and s.runs_in = 'worker' and greatest(s.queued_at, s.due_at) < p_before
        and s.type = any (v_types) and j.job_id is null limit c_most)
    union all
    (select s.run_id, s.step_id, s.queued_at, 'not_pumped' from stellwerk.step s
      where s.tenant_id = p_tenant_id and s.state = 'queued' and s.runs_in = 'sql' and s.due_at is null and s.queued_at < v_patient limit c_most)
    union all
    (select r.run_id, null::bigint, r.created_at, 'not_pumped' from stellwerk.run r
      where r.tenant_id = p_tenant_id and r.state = 'pending' and not r.held and greatest(r.created_at, r.start_at) < v_patient limit c_most)
    union all
    (select m.run_id, m.step_id, m.created_at, 'not_pumped' from stellwerk.run_message m
      where m.tenant_id = p_tenant_id and not m.held and m.created_at < v_patient limit c_most)
    union all
    (select s.run_id, s.step_id, s.lease_until, 'lost_worker' from stellwerk.step s
      where s.tenant_id = p_tenant_id and s.state = 'running' and s.lease_until < p_before limit c_most)
    union all
    (select t.run_id, t.step_id, t.due_at, 'timer_overdue' from stellwerk.timer t
      where t.tenant_id = p_tenant_id and t.due_at < p_before limit c_most)
    union all
    (select r.run_id, null, r.start_at, 'timer_lost' from stellwerk.run r
      where r.tenant_id = p_tenant_id and r.state = 'pending' and r.held and r.start_at < p_before
        and not exists (select from stellwerk.timer t where t.tenant_id = p_tenant_id and t.run_id = r.run_id) limit c_most)
    union all
    (select s.run_id, s.step_id, s.queued_at, 'waits_for_nothing' from stellwerk.step s
      where s.tenant_id = p_tenant_id and s.state in ('waiting', 'joining') and s.queued_at < p_before
        and stellwerk.waits_for_nothing(s) limit c_most);
end
$$;
comment on function stellwerk.stuck_places(bigint, timestamptz) is 'Where nothing happens though something should have before a time: no_worker, lost_job, not_pumped, lost_worker, timer_overdue, timer_lost, waits_for_nothing.';

create or replace function stellwerk.waits_for_nothing(p_step stellwerk.step)
returns boolean language plpgsql stable set search_path = '' as $$
declare
  v_wait stellwerk.wait;
begin
  if p_step.state = 'waiting' and p_step.type = 'logic.loop' then
    return not exists (select from stellwerk.loop l
                        where l.tenant_id = p_step.tenant_id and l.run_id = p_step.run_id and l.step_id = p_step.step_id and l.started > l.ended);
  elsif p_step.state = 'waiting' then
    select * into v_wait from stellwerk.wait w where w.tenant_id = p_step.tenant_id and w.run_id = p_step.run_id and w.step_id = p_step.step_id;
    if v_wait.child_run_id is not null then
      -- A child that has ended has said so, or will never.
      return not exists (select from stellwerk.run r where r.tenant_id = p_step.tenant_id and r.run_id = v_wait.child_run_id and r.ended_at is null)
         and not exists (select from stellwerk.run_message m
                          where m.tenant_id = p_step.tenant_id and m.run_id = p_step.run_id and m.step_id = p_step.step_id);
    end if;
    return v_wait.step_id is null
       and not exists (select from stellwerk.timer t where t.tenant_id = p_step.tenant_id and t.run_id = p_step.run_id and t.step_id = p_step.step_id)
       and not exists (select from stellwerk.row_timer t
                        where t.tenant_id = p_step.tenant_id and t.run_id = p_step.run_id and t.step_id = p_step.step_id and t.trouble is null);
  elsif p_step.state = 'joining' then
    return not exists (
      select from stellwerk.run r
        join stellwerk.plan_node n on n.tenant_id = r.tenant_id and n.workflow_id = r.workflow_id and n.version = p_step.version and n.node_id = p_step.node_id
        join stellwerk.step s on s.tenant_id = r.tenant_id and s.run_id = r.run_id and s.scope_id = p_step.scope_id
                             and s.state in ('queued', 'running', 'waiting', 'joining') and s.step_id <> p_step.step_id
       where r.tenant_id = p_step.tenant_id and r.run_id = p_step.run_id and n.upstream -> r.trigger_node ? s.node_id);
  end if;
  return false;
end
$$;
comment on function stellwerk.waits_for_nothing(stellwerk.step) is 'Whether a waiting or joining step has no timer, event, child, iteration or other step that could end its wait.';

-- Texts that differ only in numbers, names and addresses tell of the same fault.
create or replace function stellwerk.normal_message(p_message text)
returns text language sql immutable parallel safe set search_path = '' as $$
  select regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(left(p_message, 1000),
           '[a-z][a-z0-9+.-]*://[^\s"''<>]+', '<url>', 'gi'),
           '[^\s@"''<>]+@[^\s@"''<>]+', '<address>', 'g'),
           '"[^"]*"|''[^'']*''|„[^“]*“|“[^”]*”|»[^«]*«|`[^`]*`', '<text>', 'g'),
           -- The status of an answer is what the fault is.
           '(?<!HTTP )\m\d+([.,:]\d+)*\M', '<number>', 'g'),
           '(?<!HTTP )\m[\w-]*\d[\w-]*', '<id>', 'g')
$$;
comment on function stellwerk.normal_message(text) is 'An error''s message with placeholders for addresses, quoted texts, numbers and ids, so that failures of one kind fall together; HTTP statuses stay.';

create or replace function stellwerk.window_start(p_default interval)
returns timestamptz language plpgsql stable set search_path = '' as $$
begin
  return now() - coalesce(nullif(current_setting('stellwerk.period', true), '')::interval, p_default);
exception when data_exception then
  raise exception 'the setting stellwerk.period is no duration: %', quote_literal(current_setting('stellwerk.period'))
    using errcode = 'SW002', hint = 'For example: set stellwerk.period = ''P30D''; an empty text takes each view''s own.';
end
$$;
comment on function stellwerk.window_start(interval) is 'From when the views of statistics look at runs: as long ago as the setting stellwerk.period says, else the view''s own default.';

-- Numbers follow time, so the window's first run is found in some forty look-ups, without an index on time.
create or replace function stellwerk.first_run_since(p_tenant_id bigint, p_at timestamptz)
returns bigint language plpgsql stable set search_path = '' as $$
declare
  c_margin constant bigint := 1000;  -- numbers are given out a little out of order
  v_low    bigint := (select r.run_id from stellwerk.run r where r.tenant_id = p_tenant_id order by r.run_id limit 1);
  v_high   bigint := (select r.run_id + 1 from stellwerk.run r where r.tenant_id = p_tenant_id order by r.run_id desc limit 1);
  v_middle bigint;
  v_found  record;
begin
  while v_low < v_high loop
    v_middle := v_low + (v_high - v_low) / 2;
    select r.run_id, r.created_at into v_found from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id >= v_middle order by r.run_id limit 1;
    if v_found.run_id is null or v_found.created_at >= p_at then
      v_high := v_middle;
    else
      v_low := v_found.run_id + 1;
    end if;
  end loop;
  return greatest(coalesce(v_low, 0) - c_margin, 0);
end
$$;
comment on function stellwerk.first_run_since(bigint, timestamptz) is 'A run number before which no run of the tenant was asked for since a time.';

create or replace function stellwerk.retry_event(event_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_event     stellwerk.event;
begin
  perform from stellwerk.event_log e where e.tenant_id = v_tenant_id and e.event_id = retry_event.event_id for update;
  select * into v_event from stellwerk.event e where e.tenant_id = v_tenant_id and e.event_id = retry_event.event_id;
  if v_event.event_id is null then
    raise exception 'there is no event %', coalesce(event_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk.dead_letter lists those that failed.';
  elsif v_event.state <> 'failed' then
    raise exception 'event % is %, not failed', event_id, v_event.state using errcode = 'SW003', hint = 'Only a failed event can be tried again.';
  elsif v_event.watch_id is null or coalesce(v_event.new, v_event.old) is null or json_typeof(coalesce(v_event.new, v_event.old)) <> 'object' then
    raise exception 'event % holds no row that could start a run', event_id
      using errcode = 'SW003', hint = 'Write the row again in the application, or start the workflow by hand.';
  end if;
  delete from stellwerk.event_log e where e.tenant_id = v_tenant_id and e.event_id = v_event.event_id;
  insert into stellwerk.event_inbox (tenant_id, event_id, watch_id, source_oid, target, operation, created_at, login, old, new, cause, actor, traceparent)
  values (v_tenant_id, v_event.event_id, v_event.watch_id, v_event.source_oid, v_event.target, v_event.operation, v_event.created_at, v_event.login,
          v_event.old, v_event.new, stellwerk.cause_text(v_event.caused_by_run_id, v_event.depth), v_event.actor, v_event.traceparent);
  perform stellwerk.ring_if_asleep();
end
$$;
comment on function stellwerk.retry_event(bigint) is 'Has a failed event looked at again, after what it failed at was mended. Errors: SW007, SW003.';

create or replace function stellwerk.retry_export(export_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_state     text;
begin
  select x.state into v_state from stellwerk.case_export x where x.tenant_id = v_tenant_id and x.export_id = retry_export.export_id for update;
  if v_state is null then
    raise exception 'there is no export %', coalesce(export_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk.dead_letter lists those that failed.';
  elsif v_state <> 'failed' then
    raise exception 'export % is %, not failed', export_id, v_state using errcode = 'SW003', hint = 'Only a failed export can be tried again.';
  end if;
  update stellwerk.case_export x
     set state = 'queued', attempts = 0, error = null, ended_at = null,
         job_id = stellwerk.enqueue_job('case.export', jsonb_build_object('t', v_tenant_id, 'export', x.export_id))
   where x.tenant_id = v_tenant_id and x.export_id = retry_export.export_id;
end
$$;
comment on function stellwerk.retry_export(bigint) is 'Has the CSV file of a case written again after it was given up. Errors: SW007, SW003.';
