-- What time brings. tick() may be called by anybody, by any number at once: pg_cron, workers, psql.

create or replace function stellwerk.tick()
returns jsonb language plpgsql security definer  -- the engine's own session works on the engine's tables
set search_path = '' as $$
declare
  v_tenant_id bigint;
  v_fired     integer := 0;
  v_recovered integer := 0;
  v_broken    integer := 0;
  v_requeued  integer := 0;
  v_kept      jsonb;
  v_bulk      integer := 0;
  v_changes   integer := 0;
  v_scheduled integer := 0;
  v_alerts    boolean := stellwerk.alerts_are_due();
begin
  for v_tenant_id in select t.tenant_id from stellwerk.tenant t order by t.tenant_id loop
    v_changes := v_changes + stellwerk.check_follows(v_tenant_id) + stellwerk.apply_timer_changes(v_tenant_id);
    v_fired := v_fired + stellwerk.fire_timers(v_tenant_id) + stellwerk.fire_row_timers(v_tenant_id);
    v_scheduled := v_scheduled + stellwerk.start_scheduled(v_tenant_id);
    v_recovered := v_recovered + stellwerk.recover_steps(v_tenant_id);
    v_broken := v_broken + stellwerk.check_watches(v_tenant_id);
    v_bulk := v_bulk + stellwerk.work_bulk_operations(v_tenant_id);
    v_requeued := v_requeued + stellwerk.reconcile_tenant(v_tenant_id) + stellwerk.requeue_exports(v_tenant_id)
                  + stellwerk.requeue_messages(v_tenant_id) + stellwerk.settle_tasks(v_tenant_id);
    perform stellwerk.forget_flow(v_tenant_id);
    perform stellwerk.write_run_texts(v_tenant_id);
    if v_alerts then
      perform stellwerk.check_alerts(v_tenant_id);
    end if;
  end loop;
  -- Alone in its transaction, so that nobody waits behind it for a run that a timer has just moved; but not never.
  if v_changes + v_fired + v_scheduled + v_recovered + v_broken + v_requeued + v_bulk = 0 or random() < 0.02 then
    v_kept := stellwerk.keep_house();
  end if;
  if v_fired + v_scheduled + v_recovered + v_bulk > 0 then
    perform stellwerk.tell_watchers();
  end if;
  return jsonb_build_object('fired', v_fired, 'scheduled', v_scheduled, 'row_changes', v_changes, 'recovered', v_recovered, 'watches_broken', v_broken, 'requeued', v_requeued, 'bulk', v_bulk,
                            'next_due_seconds', stellwerk.seconds_to_next_timer(), 'housekeeping', v_kept);
end
$$;
comment on function stellwerk.tick() is 'Takes up what has changed in followed rows, fires due timers, starts the runs of schedules, takes over the steps of vanished workers, marks broken watches, puts lost queue rows back, goes on with bulk operations; when there was nothing of that, keeps house once a minute. Answers the counts, and the seconds until the next timer (null: none). Writes nothing when there is nothing to do.';

create or replace function stellwerk.seconds_to_next_timer()
returns double precision language plpgsql stable set search_path = '' as $$
begin
  return least(stellwerk.seconds_to_next_bulk_portion(), (
           select case when min(d.due_at) is not null then greatest(0, extract(epoch from min(d.due_at) - stellwerk.clock())) end
            from stellwerk.tenant t
           cross join lateral (
             (select x.due_at from stellwerk.timer x where x.tenant_id = t.tenant_id and x.due_at < stellwerk.never() order by x.due_at limit 1)
             union all
             (select s.next_run from stellwerk.schedule s where s.tenant_id = t.tenant_id and s.paused_at is null and s.next_run is not null
               order by s.next_run limit 1)) d));
end
$$;
comment on function stellwerk.seconds_to_next_timer() is 'Seconds until the next timer or schedule is due, 0 when one is, or the next portion of a bulk operation; null when there is none.';

create or replace function stellwerk.fire_timers(p_tenant_id bigint, p_limit integer default 500)
returns integer language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_runs  bigint[];
  v_timer stellwerk.timer;
  v_count integer := 0;
  v_ended stellwerk.timer[] := '{}'::stellwerk.timer[];  -- of steps that waited for them
begin
  -- Run first, then timer: candidates without locks, then the runs, then the timers that are still there.
  select array_agg(c.run_id) into v_runs
    from (select x.run_id from stellwerk.timer x where x.tenant_id = p_tenant_id and x.due_at <= v_now and x.kind <> 'row' order by x.due_at limit p_limit) c;
  if v_runs is null then
    return 0;
  end if;
  v_runs := stellwerk.lock_free_runs(p_tenant_id, v_runs);
  for v_timer in
    delete from stellwerk.timer x
     where x.tenant_id = p_tenant_id and x.run_id = any (v_runs) and x.due_at <= v_now and x.kind <> 'row'
       -- What came before the time was up counts, though pump has not got to it yet.
       and not exists (select from stellwerk.run_message m
                        where m.tenant_id = p_tenant_id and m.run_id = x.run_id and m.step_id = x.step_id and m.created_at <= x.due_at)
    returning x.*
  loop
    v_count := v_count + 1;
    case v_timer.kind
      when 'start' then
        update stellwerk.run r
           set held = exists (select from stellwerk.flow_wait w where w.tenant_id = p_tenant_id and w.run_id = v_timer.run_id)  -- the gate decides
         where r.tenant_id = p_tenant_id and r.run_id = v_timer.run_id and r.held;
      when 'retry' then
        update stellwerk.step s set due_at = null where s.tenant_id = p_tenant_id and s.run_id = v_timer.run_id and s.step_id = v_timer.step_id;
      when 'run_timeout' then
        perform stellwerk.fail_run(p_tenant_id, v_timer.run_id, 'failed',
          jsonb_build_object('class', 'timeout', 'message', 'the run took longer than the workflow''s timeout', 'retryable', false), null);
      when 'reminder', 'escalation' then
        perform stellwerk.fire_task_timer(v_timer);
      else
        v_ended := v_ended || v_timer;
    end case;
  end loop;
  v_ended := stellwerk.expire_tasks(p_tenant_id, v_ended);
  if cardinality(v_ended) > 0 then
    perform stellwerk.complete_waits(p_tenant_id, array_agg(e.run_id), array_agg(e.step_id),
              array_agg(case e.kind when 'wait' then 'next' else 'timeout' end),
              array_agg(case e.kind when 'wait' then jsonb_build_object('fired_at', v_now) else '{}' end), array_agg(null::jsonb))
       from (select distinct on (u.run_id, u.step_id) u.run_id, u.step_id, u.kind from unnest(v_ended) u order by u.run_id, u.step_id, u.due_at) e;
  end if;
  if v_count > 0 then
    perform stellwerk.ring_if_asleep();
  end if;
  return v_count;
end
$$;
comment on function stellwerk.fire_timers(bigint, integer) is 'Fires timers that are due, each once: the row is removed in the same transaction. Answers how many.';

create or replace function stellwerk.requeue_exports(p_tenant_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_count integer;
begin
  with lost as (
    select x.export_id from stellwerk.case_export x
     where x.tenant_id = p_tenant_id and x.state = 'queued' and x.created_at < stellwerk.clock() - interval '30 seconds'
       and not exists (select 1 from stellwerk.queue_state(array[x.job_id]) q)
     order by x.created_at limit 100 for update skip locked)
  update stellwerk.case_export x
     set job_id = stellwerk.enqueue_job('case.export', jsonb_build_object('t', p_tenant_id, 'export', x.export_id))
    from lost where x.tenant_id = p_tenant_id and x.export_id = lost.export_id;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function stellwerk.requeue_exports(bigint) is 'Orders for CSV files that have no queue row any more are enqueued again.';
