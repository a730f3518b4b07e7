-- pg_cron keeps the time where it is installed. tick() does not know who calls it.

create or replace function stellwerk.use_pg_cron()
returns text language plpgsql set search_path = '' as $$
declare
  -- A block, for each part may commit by itself. It goes on as long as timers fire, for at most 50 seconds: a tick fires no more than so
  -- many, and where the grain is a minute, what is due must not wait for the next one.
  c_command constant text := $job$do $body$
declare
  v_until timestamptz := clock_timestamp() + interval '50 seconds';
  v_tick  jsonb;
  v_more  boolean;
begin
  loop
    v_tick := stellwerk.tick();
    commit;
    v_more := (v_tick ->> 'fired')::integer + (v_tick ->> 'scheduled')::integer > 0;
    for v_number in 1 .. 10 loop
      exit when not coalesce((stellwerk.pump() ->> 'more')::boolean, false);
      v_more := true;
      commit;
    end loop;
    commit;
    exit when not v_more or clock_timestamp() > v_until;
  end loop;
end $body$
$job$;
  c_prune constant text := $job$delete from cron.job_run_details d using cron.job j
 where j.jobid = d.jobid and j.jobname like 'stellwerk-%' and d.end_time < now() - interval '3 days'$job$;
  v_grain    text := '5 seconds';
  v_schedule text := format('select %I.schedule($1, $2, $3)', 'cron');  -- put together, as it cannot be checked where it is not there
begin
  if to_regprocedure('cron.schedule(text, text, text)') is null then
    return null;
  end if;
  begin
    execute v_schedule using 'stellwerk-tick', v_grain, c_command;
  exception when others then  -- before 1.5 it knows no seconds
    v_grain := '* * * * *';
    execute v_schedule using 'stellwerk-tick', v_grain, c_command;
  end;
  execute v_schedule using 'stellwerk-prune', '17 3 * * *', c_prune;
  return v_grain;
end
$$;
comment on function stellwerk.use_pg_cron() is 'Has pg_cron call tick and pump, as the caller, every 5 seconds (before version 1.5: every minute), and forget its own notes after 3 days. Answers the schedule; null where pg_cron is not installed. Repeatable.';

create or replace function stellwerk.cron_jobs()
returns table (schedule text, active boolean, failure text) language plpgsql stable set search_path = '' as $$
begin
  if to_regclass('cron.job') is null then
    return;
  end if;
  return query execute format($q$
    select j.schedule::text, j.active, (
             select case when l.status = 'failed' then coalesce(l.return_message, 'without a message') end
               from (select d.status, d.return_message from %1$I.job_run_details d where d.jobid = j.jobid order by d.runid desc limit 1) l)
      from %1$I.job j where position('stellwerk.tick' in j.command) > 0 and j.database = current_database()$q$, 'cron');
exception when insufficient_privilege then
  return;
end
$$;
comment on function stellwerk.cron_jobs() is 'The jobs of pg_cron that call tick, and what the last call failed of; none where they cannot be seen.';
