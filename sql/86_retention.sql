-- Housekeeping: what has expired is removed in small portions, log rows that nobody reads are pruned, partitions are made and dropped.
--
-- Each call does a bounded amount of work and says whether there is more. While there is nothing to do nothing is written.

create or replace function stellwerk.keep_house(at_once boolean default false, milliseconds integer default 100)
returns jsonb language plpgsql security definer  -- callers have no right to delete, nor to make tables
set search_path = '' as $$
declare
  v_start    timestamptz := clock_timestamp();
  v_deadline timestamptz := v_start + make_interval(secs => milliseconds / 1000.0);
  v_next     text := current_setting('stellwerk.next_housekeeping', true);
  v_tenant   bigint;
  v_swept    record;
  v_removed  jsonb := '{}'::jsonb;
  v_more     boolean := false;
  v_queue    bigint;
  v_ddl      text;
begin
  if milliseconds not between 1 and 600000 then
    raise exception 'housekeeping may take 1 to 600000 milliseconds, not %', milliseconds using errcode = 'SW008';
  end if;
  -- When this session looks again is kept in the session, for a row would be written each minute by a database that rests.
  if not at_once and v_next ~ '^[0-9]{1,15}$' and v_next::bigint > extract(epoch from v_start) then
    return null;
  end if;
  if not pg_try_advisory_xact_lock(6003366829153018467) then
    return null;
  end if;
  for v_tenant in select t.tenant_id from stellwerk.tenant t order by random() loop
    v_swept := stellwerk.sweep_tenant(v_tenant, v_deadline);
    v_more := v_more or v_swept.more or stellwerk.keep_statistics(v_tenant) > 0;
    select coalesce(jsonb_object_agg(k.key, coalesce((v_removed ->> k.key)::bigint, 0) + coalesce((v_swept.removed ->> k.key)::bigint, 0)), '{}') into v_removed
      from (select jsonb_object_keys(v_removed || v_swept.removed)) k (key);
  end loop;
  v_queue := stellwerk.prune_queue_log();
  v_more := v_more or v_queue >= 20000;
  -- Last, so that its locks are held for the shortest time.
  v_ddl := coalesce(stellwerk.keep_partitions(), stellwerk.unfollow_column(at_once));
  v_more := v_more or v_ddl is not null;
  perform set_config('stellwerk.next_housekeeping', (extract(epoch from clock_timestamp())::bigint + case when v_more then 1 else 60 end)::text, false);
  return jsonb_strip_nulls(jsonb_build_object('removed', v_removed, 'queue_log', nullif(v_queue, 0), 'partition', v_ddl, 'more', v_more,
                                              'milliseconds', round(extract(epoch from clock_timestamp() - v_start) * 1000)));
end
$$;
comment on function stellwerk.keep_house(boolean, integer) is 'Removes what has expired, for about so many milliseconds, prunes the queue''s log, and makes or drops at most one partition, or the triggers of a column that nobody follows any more. Called by tick; a session does it once a minute, or each second while there is more, unless at_once. Answers what was done; null when it was not its turn.';

create or replace function stellwerk.set_retention(runs interval default null, events interval default null, audit interval default null)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
begin
  if runs < interval '0' or events < interval '0' or audit < interval '0' then
    raise exception 'history cannot be kept for less than no time' using errcode = 'SW008', hint = 'Null keeps it for ever.';
  end if;
  insert into stellwerk.retention_policy as p (tenant_id, runs, events, audit)
  values (stellwerk.current_tenant_id(), set_retention.runs, set_retention.events, set_retention.audit)
  on conflict (tenant_id) do update set runs = excluded.runs, events = excluded.events, audit = excluded.audit;
end
$$;
comment on function stellwerk.set_retention(interval, interval, interval) is 'Says how long the tenant''s ended runs, processed events and audit rows are kept; null for ever. Replaces what was said before; a workflow''s settings.retention goes before runs.';

create or replace trigger retention_policy_audited after insert or update or delete on stellwerk.retention_policy
  for each row execute function stellwerk.audit_row('id:tenant_id');

create or replace function stellwerk.sweep_tenant(p_tenant_id bigint, p_deadline timestamptz, out removed jsonb, out more boolean)
language plpgsql set search_path = '' as $$
declare
  c_signal_days constant interval := '7 days'::interval;
  v_now      timestamptz := stellwerk.clock();  -- once: what is volatile finds no row by an index
  v_policy   stellwerk.retention_policy;
  v_workflow record;
  v_swept    record;
  v_runs     bigint := 0;
  v_events   bigint := 0;
  v_signals  bigint;
  v_audit    bigint := 0;
  v_deliveries bigint := 0;
  v_orders   bigint;
begin
  select * into v_policy from stellwerk.retention_policy p where p.tenant_id = p_tenant_id;
  more := false;
  -- In any order, so that one workflow with much to remove never keeps the others waiting.
  for v_workflow in
    select k.workflow_id, min(k.keep) as shortest, jsonb_object_agg(k.version, k.keep) as by_version
      from (select v.workflow_id, v.version, stellwerk.retention_of(v.settings, v_policy.runs) as keep
              from stellwerk.workflow_version v
             where v.tenant_id = p_tenant_id and (v_policy.runs is not null or v.settings ? 'retention')) k
     where k.keep is not null
     group by k.workflow_id
     order by random()
  loop
    v_swept := stellwerk.sweep_workflow(p_tenant_id, v_workflow.workflow_id, v_workflow.by_version, v_workflow.shortest,
                                        v_policy.events is null, p_deadline);
    v_runs := v_runs + v_swept.removed;
    more := more or v_swept.more;
  end loop;
  if coalesce(v_policy.events, v_policy.runs) is not null then
    v_swept := stellwerk.sweep_events(p_tenant_id, v_policy, p_deadline);
    v_events := v_swept.removed;
    more := more or v_swept.more;
  end if;
  delete from stellwerk.signal s
   where s.tenant_id = p_tenant_id and s.signal_id in (
           select o.signal_id from stellwerk.signal o
            where o.tenant_id = p_tenant_id and o.created_at < v_now - c_signal_days order by o.created_at limit 2000);
  get diagnostics v_signals = row_count;
  if coalesce(v_policy.events, v_policy.runs) is not null then
    v_deliveries := stellwerk.sweep_deliveries(p_tenant_id, v_now - coalesce(v_policy.events, v_policy.runs), v_policy.events is not null);
  end if;
  if v_policy.audit is not null then
    v_audit := stellwerk.sweep_audit(p_tenant_id, v_now - v_policy.audit);
  end if;
  v_orders := stellwerk.sweep_orders(p_tenant_id, v_policy.runs);
  more := more or v_signals >= 2000 or v_audit >= 2000 or v_deliveries >= 2000;
  removed := jsonb_strip_nulls(jsonb_build_object(
    'runs', nullif(v_runs, 0), 'events', nullif(v_events, 0), 'signals', nullif(v_signals, 0), 'deliveries', nullif(v_deliveries, 0),
    'orders', nullif(v_orders, 0), 'audit', nullif(v_audit, 0)));
end
$$;
comment on function stellwerk.sweep_tenant(bigint, timestamptz) is 'Removes what has expired of one tenant until the deadline; answers how many of each, and whether there is more.';

-- Written by the compiler, which checks it; a document that came another way must not stop housekeeping.
create or replace function stellwerk.retention_of(p_settings jsonb, p_default interval)
returns interval language plpgsql stable set search_path = '' as $$
begin
  if p_settings -> 'retention' is null or p_settings -> 'retention' = 'null' then
    return p_default;
  end if;
  return greatest((p_settings ->> 'retention')::interval, interval '0');
exception when data_exception then
  return null;
end
$$;
comment on function stellwerk.retention_of(jsonb, interval) is 'How long runs of a version are kept after their end: its settings.retention, else the tenant''s default; null for ever, also where it cannot be read.';

-- Runs are looked at in the order of their numbers, which follow time: the first that is younger than the shortest retention ends the pass.
-- An index by ended_at would find them at once, and be paid for by every run that ends.
create or replace function stellwerk.sweep_workflow(
  p_tenant_id bigint, p_workflow_id bigint, p_keep jsonb, p_shortest interval, p_with_events boolean, p_deadline timestamptz,
  out removed bigint, out more boolean)
language plpgsql
-- Seldom called: a plan that knows the tables is worth more than one that is there already.
set search_path = '' set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  c_page     constant integer := 500;
  v_now      timestamptz := stellwerk.clock();
  v_before   timestamptz := v_now - p_shortest;
  v_from     bigint := coalesce((select p.position from stellwerk.retention_progress p
                                  where p.tenant_id = p_tenant_id and p.kind = 'run' and p.workflow_id = p_workflow_id), 0);
  v_position bigint := v_from;
  v_page     record;
  v_done     record;
begin
  removed := 0;
  more := false;
  while clock_timestamp() < p_deadline loop
    select array_agg(x.run_id order by x.run_id) filter (where x.expired) as expired, max(x.run_id) as last,
           count(*) < c_page or bool_or(x.young) as ends
      into v_page
      from (select r.run_id, r.created_at >= v_before as young,
                   coalesce(r.ended_at < v_now - (p_keep ->> r.version::text)::interval, false) as expired
              from stellwerk.run r
             where r.tenant_id = p_tenant_id and r.workflow_id = p_workflow_id and r.run_id > v_position
             order by r.run_id limit c_page) x;
    if v_page.expired is not null then
      v_done := stellwerk.remove_runs(p_tenant_id, v_page.expired, v_before, p_with_events, p_deadline);
      removed := removed + v_done.removed;
      more := true;
      if v_done.last is distinct from v_page.expired[cardinality(v_page.expired)] then
        v_position := coalesce(v_done.last, v_position);
        exit;  -- the deadline came first
      end if;
    end if;
    v_position := case when v_page.ends then 0 else v_page.last end;
    if v_page.ends then
      more := false;
      exit;
    end if;
  end loop;
  perform stellwerk.note_progress(p_tenant_id, 'run', p_workflow_id, v_from, v_position);
end
$$;
comment on function stellwerk.sweep_workflow(bigint, bigint, jsonb, interval, boolean, timestamptz) is 'Removes expired runs of a workflow until the deadline. p_keep: { version: interval }. more: there are more of them to remove.';

create or replace function stellwerk.note_progress(p_tenant_id bigint, p_kind text, p_workflow_id bigint, p_from bigint, p_position bigint)
returns void language plpgsql set search_path = '' as $$
begin
  if p_position = p_from then
    return;
  elsif p_position = 0 then
    delete from stellwerk.retention_progress p where p.tenant_id = p_tenant_id and p.kind = p_kind and p.workflow_id = p_workflow_id;
  else
    insert into stellwerk.retention_progress as p (tenant_id, kind, workflow_id, position) values (p_tenant_id, p_kind, p_workflow_id, p_position)
    on conflict (tenant_id, kind, workflow_id) do update set position = excluded.position;
  end if;
end
$$;
comment on function stellwerk.note_progress(bigint, text, bigint, bigint, bigint) is 'Keeps where a pass over old rows goes on; 0 is the beginning and leaves no row.';

-- In portions of a hundred runs. What belongs to a run goes first and the run last, so nothing is left behind whenever this ends.
create or replace function stellwerk.remove_runs(
  p_tenant_id bigint, p_run_ids bigint[], p_ended_before timestamptz, p_with_events boolean, p_deadline timestamptz,
  out removed bigint, out last bigint)
language plpgsql set search_path = '' as $$
declare
  c_portion constant integer := 100;
  v_first integer := 1;
  v_done  integer;
begin
  removed := 0;
  while v_first <= cardinality(p_run_ids) loop
    v_done := stellwerk.remove_portion(p_tenant_id, p_run_ids[v_first:v_first + c_portion - 1], p_ended_before, p_with_events);
    if v_done is null then
      return;  -- one run was so large that only a part of it has gone
    end if;
    removed := removed + v_done;
    last := p_run_ids[least(v_first + c_portion - 1, cardinality(p_run_ids))];
    v_first := v_first + c_portion;
    exit when clock_timestamp() > p_deadline;
  end loop;
end
$$;
comment on function stellwerk.remove_runs(bigint, bigint[], timestamptz, boolean, timestamptz) is 'Removes ended runs with all that belongs to them, ascending, until the deadline. Answers how many, and the last that was dealt with.';

create or replace function stellwerk.remove_portion(p_tenant_id bigint, p_run_ids bigint[], p_ended_before timestamptz, p_with_events boolean)
returns integer language plpgsql set search_path = '' set enable_seqscan = off set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  c_large constant integer := 20000;
  v_ids    bigint[];
  v_events bigint[];
  v_steps  integer;
  v_half   integer;
begin
  -- Candidates were found without locks: those that somebody holds, or that have been sent back to work, stay.
  select array_agg(r.run_id order by r.run_id), array_agg(r.event_id) filter (where r.event_id is not null) into v_ids, v_events
    from unnest(stellwerk.lock_free_runs(p_tenant_id, p_run_ids)) l (run_id)
   cross join lateral (select o.run_id, o.event_id, o.ended_at from stellwerk.run o
                        where o.tenant_id = p_tenant_id and o.run_id = l.run_id offset 0) r
   where r.ended_at < p_ended_before;
  if v_ids is null then
    return 0;
  end if;
  select count(*) into v_steps
    from (select from stellwerk.step s
           where s.tenant_id = p_tenant_id and s.run_id between v_ids[1] and v_ids[cardinality(v_ids)] and s.run_id = any (v_ids) limit c_large + 1) s;
  if v_steps > c_large then
    v_half := cardinality(v_ids) / 2;
    if v_half = 0 then
      perform stellwerk.trim_run(p_tenant_id, v_ids[1]);
      return null;
    end if;
    return stellwerk.remove_portion(p_tenant_id, v_ids[:v_half], p_ended_before, p_with_events)
         + stellwerk.remove_portion(p_tenant_id, v_ids[v_half + 1:], p_ended_before, p_with_events);
  end if;
  perform stellwerk.remove_parts(p_tenant_id, v_ids, v_ids[1], v_ids[cardinality(v_ids)]);
  if p_with_events then
    -- What came in goes with the last run that it started.
    delete from stellwerk.webhook_delivery d
     where d.tenant_id = p_tenant_id and d.run_ids && v_ids and d.state <> 'pending'
       and not exists (select from unnest(d.run_ids) u (run_id)
                         join stellwerk.run r on r.tenant_id = p_tenant_id and r.run_id = u.run_id
                        where u.run_id <> all (v_ids));
  end if;
  if p_with_events and v_events is not null then
    delete from stellwerk.event_log e where e.tenant_id = p_tenant_id and e.event_id = any (v_events);
  end if;
  delete from stellwerk.run r
   where r.tenant_id = p_tenant_id and r.run_id between v_ids[1] and v_ids[cardinality(v_ids)] and r.run_id = any (v_ids);
  return cardinality(v_ids);
end
$$;
comment on function stellwerk.remove_portion(bigint, bigint[], timestamptz, boolean) is 'Removes some ended runs in one go; answers how many went, or null when one was so large that only a part of it has gone.';

-- Every table with rows of a run stands here. "between" names the partition, which an array alone does not.
create or replace function stellwerk.remove_parts(p_tenant_id bigint, p_run_ids bigint[], p_first bigint, p_last bigint)
returns void language plpgsql set search_path = '' set enable_seqscan = off set plan_cache_mode = force_custom_plan set jit = off as $$
begin
  delete from stellwerk.run_key k
   using (select o.workflow_id, o.idempotency_key, o.run_id from stellwerk.run o
           where o.tenant_id = p_tenant_id and o.run_id between p_first and p_last and o.run_id = any (p_run_ids)
             and o.idempotency_key is not null offset 0) r
   where k.tenant_id = p_tenant_id and k.workflow_id = r.workflow_id and k.idempotency_key = r.idempotency_key and k.run_id = r.run_id;
  delete from stellwerk.timer x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.user_task_change x
   using stellwerk.user_task k
   where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids) and x.tenant_id = p_tenant_id and x.task_id = k.task_id;
  delete from stellwerk.user_task x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.message x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.wait x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.row_timer x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.run_message x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.run_log x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.run_migration x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.flow_wait x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.flow_slot x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.rate_wait x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.bulk_operation_run x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.run_text x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.variable x where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  delete from stellwerk.scope x where x.tenant_id = p_tenant_id and x.run_id between p_first and p_last and x.run_id = any (p_run_ids);
  delete from stellwerk.loop x where x.tenant_id = p_tenant_id and x.run_id between p_first and p_last and x.run_id = any (p_run_ids);
  delete from stellwerk.step_attempt x where x.tenant_id = p_tenant_id and x.run_id between p_first and p_last and x.run_id = any (p_run_ids);
  delete from stellwerk.step x where x.tenant_id = p_tenant_id and x.run_id between p_first and p_last and x.run_id = any (p_run_ids);
end
$$;
comment on function stellwerk.remove_parts(bigint, bigint[], bigint, bigint) is 'Removes everything that belongs to runs, but not the runs; p_first and p_last are the least and greatest of them.';

create or replace function stellwerk.trim_run(p_tenant_id bigint, p_run_id bigint, p_rows integer default 10000)
returns void language plpgsql set search_path = '' set enable_seqscan = off set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  v_step_id  bigint := (select max(x.step_id) from (select s.step_id from stellwerk.step s
                          where s.tenant_id = p_tenant_id and s.run_id = p_run_id order by s.step_id limit p_rows) x);
  v_scope_id bigint := (select max(x.scope_id) from (select s.scope_id from stellwerk.scope s
                          where s.tenant_id = p_tenant_id and s.run_id = p_run_id order by s.scope_id limit p_rows) x);
  v_log_id   bigint := (select max(x.log_id) from (select l.log_id from stellwerk.run_log l
                          where l.tenant_id = p_tenant_id and l.run_id = p_run_id order by l.log_id limit p_rows) x);
begin
  delete from stellwerk.run_log l where l.tenant_id = p_tenant_id and l.run_id = p_run_id and l.log_id <= v_log_id;
  delete from stellwerk.variable v where v.tenant_id = p_tenant_id and v.run_id = p_run_id and v.scope_id <= v_scope_id;
  delete from stellwerk.scope s where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.scope_id <= v_scope_id;
  delete from stellwerk.step_attempt a where a.tenant_id = p_tenant_id and a.run_id = p_run_id and a.step_id <= v_step_id;
  delete from stellwerk.step s where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id <= v_step_id;
end
$$;
comment on function stellwerk.trim_run(bigint, bigint, integer) is 'Removes the oldest steps, iterations and log lines of an expired run that has too many to go at once.';

create or replace function stellwerk.sweep_events(p_tenant_id bigint, p_policy stellwerk.retention_policy, p_deadline timestamptz, out removed bigint, out more boolean)
language plpgsql set search_path = '' set enable_seqscan = off set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  c_page     constant integer := 1000;
  v_before   timestamptz := stellwerk.clock() - coalesce(p_policy.events, p_policy.runs);
  v_from     bigint := coalesce((select p.position from stellwerk.retention_progress p
                                  where p.tenant_id = p_tenant_id and p.kind = 'event' and p.workflow_id = 0), 0);
  v_position bigint := v_from;
  v_page     record;
begin
  removed := 0;
  more := false;
  while clock_timestamp() < p_deadline loop
    -- Without a rule of their own, events that started a run stay until it goes.
    select array_agg(x.event_id) filter (where x.expired) as expired, min(x.event_id) as first, max(x.event_id) as last,
           count(*) < c_page or bool_or(x.created_at >= v_before) as ends
      into v_page
      from (select e.event_id, e.created_at,
                   coalesce(e.processed_at, e.created_at) < v_before
                     and (p_policy.events is not null or e.state <> 'processed') as expired
              from stellwerk.event_log e
             where e.tenant_id = p_tenant_id and e.event_id > v_position
             order by e.event_id limit c_page) x;
    if v_page.expired is not null then
      delete from stellwerk.event_log e
       where e.tenant_id = p_tenant_id and e.event_id between v_page.first and v_page.last and e.event_id = any (v_page.expired);
      removed := removed + cardinality(v_page.expired);
      more := true;
    end if;
    v_position := case when v_page.ends then 0 else v_page.last end;
    if v_page.ends then
      more := false;
      exit;
    end if;
  end loop;
  perform stellwerk.note_progress(p_tenant_id, 'event', 0, v_from, v_position);
end
$$;
comment on function stellwerk.sweep_events(bigint, stellwerk.retention_policy, timestamptz) is 'Removes expired events until the deadline. Those that are pending always stay.';

-- Orders are few, so they are looked at one by one; one that somebody works on at this moment stays.
create or replace function stellwerk.sweep_orders(p_tenant_id bigint, p_runs interval)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_moves bigint;
  v_bulk  bigint;
begin
  -- The rows that tell of single runs go with these, whichever version they are on.
  delete from stellwerk.version_move m
   where m.tenant_id = p_tenant_id and m.migration_id = any (array(
           select o.migration_id from stellwerk.version_move o
            where o.tenant_id = p_tenant_id
              and coalesce(o.undone_at, o.ended_at, o.started_at) < v_now - (
                    select min(stellwerk.retention_of(v.settings, p_runs)) from stellwerk.workflow_version v
                     where v.tenant_id = p_tenant_id and v.workflow_id = o.workflow_id and v.version in (o.from_version, o.to_version))
              and not exists (select from stellwerk.run_migration r where r.tenant_id = p_tenant_id and r.migration_id = o.migration_id)
              for update skip locked));
  get diagnostics v_moves = row_count;
  delete from stellwerk.bulk_operation b
   where b.tenant_id = p_tenant_id and b.operation_id = any (array(
           select o.operation_id from stellwerk.bulk_operation o
            where o.tenant_id = p_tenant_id and coalesce(o.ended_at, case when o.state = 'draft' then o.created_at end) < v_now - p_runs
              and not exists (select from stellwerk.bulk_operation_run r where r.tenant_id = p_tenant_id and r.operation_id = o.operation_id)
              for update skip locked));
  get diagnostics v_bulk = row_count;
  return v_moves + v_bulk;
end
$$;
comment on function stellwerk.sweep_orders(bigint, interval) is 'Removes orders whose time is up and whose runs have all gone: migrations after the retention of the versions they name, ended bulk operations and drafts after p_runs.';

create or replace function stellwerk.sweep_deliveries(p_tenant_id bigint, p_before timestamptz, p_with_runs boolean)
returns bigint language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  v_count bigint;
begin
  delete from stellwerk.webhook_delivery d
   where d.tenant_id = p_tenant_id and d.delivery_id = any (array(
           select o.delivery_id from stellwerk.webhook_delivery o
            where o.tenant_id = p_tenant_id and o.received_at < p_before and o.state <> 'pending'
              and (p_with_runs or o.run_ids = '{}') order by o.received_at limit 2000));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function stellwerk.sweep_deliveries(bigint, timestamptz, boolean) is 'Removes up to 2000 processed webhooks, forms and emitted events that are older; with p_with_runs also those that started runs.';

create or replace function stellwerk.sweep_audit(p_tenant_id bigint, p_before timestamptz)
returns bigint language plpgsql set search_path = '' set plan_cache_mode = force_custom_plan set jit = off as $$
declare
  v_last  bigint;
  v_count bigint;
begin
  select max(x.audit_id) filter (where x.acted_at < p_before) into v_last
    from (select a.audit_id, a.acted_at from stellwerk.audit_log a where a.tenant_id = p_tenant_id order by a.audit_id limit 2000) x;
  delete from stellwerk.audit_log a where a.tenant_id = p_tenant_id and a.audit_id <= v_last and a.acted_at < p_before;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function stellwerk.sweep_audit(bigint, timestamptz) is 'Removes up to 2000 rows of the audit log that are older. The only function besides forget_subject that may touch it.';
