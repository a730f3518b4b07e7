-- Steps that wait for a time in a row: beginning to wait, taking changes up, firing.

create or replace function stellwerk.begin_row_wait(
  p_tenant_id bigint, p_token stellwerk.token, p_config jsonb, p_of jsonb, p_shift interval, p_calendar text)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome := row('*wait', p_config, null, null);
  v_now     timestamptz := stellwerk.clock();
  v_timer   stellwerk.row_timer;
  v_row     record;
begin
  v_timer := row(p_tenant_id, p_token.run_id, p_token.step_id, p_of ->> 'table', p_of ->> 'column', p_of ->> 'key', p_shift, p_calendar, null, null, v_now);
  if coalesce(v_timer.row_key, '') = '' then
    v_outcome.port := null;
    v_outcome.error := stellwerk.step_error(p_token, 'no_key', format('the key of the row in table %s is empty', v_timer.slug), false);
    return v_outcome;
  end if;
  perform stellwerk.wish_to_follow(v_timer);
  v_row := stellwerk.read_row_time(v_timer);
  if v_row.state = 'locked' then
    v_outcome.port := '*later';
    return v_outcome;
  elsif v_row.state = 'bad_key' then
    v_outcome.port := null;
    v_outcome.error := stellwerk.step_error(p_token, 'bad_key', v_row.trouble, false);
    return v_outcome;
  elsif v_row.state = 'time' then
    if v_row.due <= v_now then
      return stellwerk.pass_by(p_token, p_config, v_row.due, v_now);
    end if;
    insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
    values (p_tenant_id, 'row', p_token.run_id, p_token.step_id, v_row.due);
  elsif v_row.state = 'gone' then
    -- The next tick ends the wait, by the same way as for a row that goes later.
    insert into stellwerk.timer_change (tenant_id, slug, column_name, row_key)
    values (p_tenant_id, v_timer.slug, v_timer.column_name, v_timer.row_key);
  end if;
  v_timer.row_key := coalesce(v_row.key, v_timer.row_key);
  v_timer.row_time := v_row.at;
  v_timer.trouble := v_row.trouble;
  insert into stellwerk.row_timer select v_timer.*;
  return v_outcome;
end
$$;
comment on function stellwerk.begin_row_wait(bigint, stellwerk.token, jsonb, jsonb, interval, text) is 'Begins to wait for a time in a row of a registered table, which is followed from then on.';

-- A version that was published long ago may come to its wait when the column is followed no more.
create or replace function stellwerk.wish_to_follow(p_timer stellwerk.row_timer)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.followed_column (tenant_id, slug, column_name, target, key_column, trouble)
  select t.tenant_id, t.slug, p_timer.column_name, t.target, stellwerk.row_key_column(to_regclass(t.target), t.tenant_column), 'its triggers have not been made'
    from stellwerk.registered_table t
   where t.tenant_id = p_timer.tenant_id and t.slug = p_timer.slug and stellwerk.row_key_column(to_regclass(t.target), t.tenant_column) is not null
     and not exists (select from stellwerk.followed_column f
                      where f.tenant_id = t.tenant_id and f.slug = t.slug and f.column_name = p_timer.column_name)
  on conflict do nothing;
end
$$;
comment on function stellwerk.wish_to_follow(stellwerk.row_timer) is 'Notes a column that a step follows, unless it is: registering its table again makes the triggers.';

-- Whatever stands in the row or is wrong with its table ends here, for the callers work for many runs. state: time, empty, gone,
-- hidden (gone, or not to be seen), locked (look again later), bad_key, broken.
create or replace function stellwerk.read_row_time(
  p_timer stellwerk.row_timer, out state text, out at timestamptz, out due timestamptz, out key text, out trouble text)
language plpgsql set search_path = '' set lock_timeout = '400ms' as $$
declare
  v_follow   stellwerk.followed_column;
  v_table    stellwerk.registered_table;
  v_calendar stellwerk.calendar;
  v_type     text;
  v_key_type text;
  v_zone     text := stellwerk.zone_of(p_timer.tenant_id);
begin
  state := 'broken';
  select * into v_follow from stellwerk.followed_column f
   where f.tenant_id = p_timer.tenant_id and f.slug = p_timer.slug and f.column_name = p_timer.column_name;
  trouble := case when v_follow.slug is null then format('column %s of table %s is not followed', p_timer.column_name, p_timer.slug)
                  else coalesce(v_follow.trouble, stellwerk.follow_trouble(v_follow)) end;
  if trouble is not null then
    return;
  end if;
  select * into v_table from stellwerk.registered_table t where t.tenant_id = p_timer.tenant_id and t.slug = p_timer.slug;
  v_type := stellwerk.column_type(v_follow.target::regclass, v_follow.column_name);
  v_key_type := stellwerk.column_type(v_follow.target::regclass, v_follow.key_column);
  begin
    perform set_config('search_path', v_table.search_path, true);
    execute format('select %s, to_json(t.%I) #>> ''{}'' from %s t where t.%I = $1::%s%s',
                   case v_type when 'timestamp with time zone' then format('t.%I', v_follow.column_name)
                               else format('t.%I::timestamp at time zone $3', v_follow.column_name) end,
                   v_follow.key_column, v_follow.target, v_follow.key_column, v_key_type,
                   case when v_table.tenant_column is not null then format(' and t.%I = $2', v_table.tenant_column) end)
       into at, key using p_timer.row_key, p_timer.tenant_id, v_zone;
    perform set_config('search_path', '', true);
    if p_timer.calendar is not null then
      v_calendar := stellwerk.find_calendar(p_timer.tenant_id, p_timer.calendar);
    end if;
    state := case when key is not null then case when at is null or not isfinite(at) then 'empty' else 'time' end
                  when row_security_active(v_follow.target) then 'hidden'
                  else 'gone' end;
    due := stellwerk.due_time(case when state = 'time' then at end, p_timer.shift, coalesce(v_calendar.time_zone, v_zone), v_calendar);
    trouble := case when state = 'hidden' then format('it is gone, or row-level security of table %s hides it from %s, to whom a policy has to show every row',
                                                      v_follow.target, current_user) end;
  exception
    when lock_not_available or deadlock_detected or query_canceled then
      state := 'locked';
    when data_exception then
      state := 'broken';
      trouble := format('its time cannot be reckoned with: %s', sqlerrm);
      if not stellwerk.is_value(p_timer.row_key, v_key_type) then
        state := 'bad_key';
        trouble := format('%s is no key of table %s: %s', quote_literal(left(p_timer.row_key, 100)), p_timer.slug, sqlerrm);
      end if;
    when sqlstate 'SW007' then
      state := 'broken';
      trouble := sqlerrm;
    when others then
      state := 'broken';
      trouble := format('table %s cannot be read: %s', v_follow.target, sqlerrm);
  end;
  if state <> 'time' then
    at := null;
    due := null;
  end if;
end
$$;
comment on function stellwerk.read_row_time(stellwerk.row_timer) is 'The time that stands in a followed row now, as the engine''s role may read it, and when the step goes on by it; waits for a lock no longer than 400 ms and never raises.';

create or replace function stellwerk.is_value(p_text text, p_type text)
returns boolean language plpgsql stable set search_path = '' as $$
begin
  execute format('select $1::%s', p_type::regtype) using p_text;
  return true;
exception when data_exception then
  return false;
end
$$;
comment on function stellwerk.is_value(text, text) is 'Whether a text is a value of a type, whose name comes from the catalog.';

create or replace function stellwerk.follow_row(p_timer stellwerk.row_timer, p_now timestamptz)
returns text language plpgsql set search_path = '' as $$
declare
  v_row record := stellwerk.read_row_time(p_timer);
begin
  if v_row.due <= p_now then
    return 'next';
  elsif v_row.state in ('gone', 'locked') then
    return v_row.state;
  end if;
  update stellwerk.row_timer r set row_time = v_row.at, trouble = v_row.trouble
   where r.tenant_id = p_timer.tenant_id and r.run_id = p_timer.run_id and r.step_id = p_timer.step_id
     and (r.row_time, r.trouble) is distinct from (v_row.at, v_row.trouble);
  delete from stellwerk.timer t
   where t.tenant_id = p_timer.tenant_id and t.run_id = p_timer.run_id and t.step_id = p_timer.step_id and t.kind = 'row'
     and t.due_at is distinct from v_row.due;
  if v_row.due is not null then
    insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
    select p_timer.tenant_id, 'row', p_timer.run_id, p_timer.step_id, v_row.due
     where not exists (select from stellwerk.timer t
                        where t.tenant_id = p_timer.tenant_id and t.run_id = p_timer.run_id and t.step_id = p_timer.step_id and t.kind = 'row');
  end if;
  return v_row.state;
end
$$;
comment on function stellwerk.follow_row(stellwerk.row_timer, timestamptz) is 'Reads a followed row again and sets the timer of a step of a locked run by it. Answers next when the step goes on now, gone when the row is gone, locked when the table could not be read; else what was found.';

create or replace function stellwerk.apply_timer_changes(p_tenant_id bigint, p_limit integer default 2000)
returns integer language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  v_now     timestamptz := stellwerk.clock();
  v_changes stellwerk.timer_change[];
  v_timers  stellwerk.row_timer[];
  v_timer   stellwerk.row_timer;
  v_runs    bigint[];
  v_left    bigint[] := '{}'::bigint[];  -- runs whose timers must be looked at again
  v_locked  text[] := '{}'::text[];
  v_ended   stellwerk.row_timer[] := array[]::stellwerk.row_timer[];
  v_ports   text[] := '{}'::text[];
  v_answer  text;
begin
  v_changes := array(
    select o from stellwerk.timer_change o where o.tenant_id = p_tenant_id and o.seen_by is null
     order by o.change_id limit p_limit for update skip locked);
  v_changes := v_changes || array(
    select o from stellwerk.timer_change o where o.tenant_id = p_tenant_id and o.seen_by < pg_snapshot_xmin(pg_current_snapshot())
     order by o.seen_by limit p_limit for update skip locked);
  if cardinality(v_changes) = 0 then
    return 0;
  end if;
  select array_agg(distinct r) into v_timers
    from (select distinct c.slug, c.column_name, c.row_key from unnest(v_changes) c) c
    join stellwerk.row_timer r on r.tenant_id = p_tenant_id and r.slug = c.slug and r.column_name = c.column_name
                              and (c.row_key is null or r.row_key = c.row_key);
  if v_timers is not null then
    v_runs := stellwerk.lock_free_runs(p_tenant_id, (select array_agg(t.run_id) from unnest(v_timers) t));
    v_left := array(select t.run_id from unnest(v_timers) t where t.run_id <> all (v_runs));
    for v_timer in
      select r.* from unnest(v_timers) t
        join stellwerk.row_timer r on r.tenant_id = p_tenant_id and r.run_id = t.run_id and r.step_id = t.step_id
       where t.run_id = any (v_runs)
         -- A paused run looks at its rows when it is resumed.
         and not exists (select from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = t.run_id and o.state = 'paused')
       order by t.run_id, t.step_id
    loop
      v_answer := case when v_timer.slug = any (v_locked) then 'locked' else stellwerk.follow_row(v_timer, v_now) end;
      -- What the engine's role may not see is gone when the trigger says so.
      if v_answer = 'hidden' and exists (select from unnest(v_changes) c
                                          where c.gone and (c.slug, c.column_name, c.row_key) = (v_timer.slug, v_timer.column_name, v_timer.row_key)) then
        v_answer := 'gone';
      end if;
      if v_answer = 'locked' then
        v_left := v_left || v_timer.run_id;
        v_locked := v_locked || v_timer.slug;  -- somebody alters the table: it is not waited for a second time
      elsif v_answer in ('next', 'gone') then
        v_ended := v_ended || v_timer;
        v_ports := v_ports || v_answer;
      end if;
    end loop;
    perform stellwerk.end_row_waits(p_tenant_id, v_ended, v_ports, v_now);
  end if;
  with done as (
    select c.change_id, c.seen_by from unnest(v_changes) c
     where not exists (select from unnest(v_timers) t
                        where t.run_id = any (v_left) and t.slug = c.slug and t.column_name = c.column_name and (c.row_key is null or t.row_key = c.row_key))),
  gone as (
    delete from stellwerk.timer_change o using done d where o.tenant_id = p_tenant_id and o.change_id = d.change_id and d.seen_by is not null)
  update stellwerk.timer_change o set seen_by = pg_current_xact_id()
    from done d where o.tenant_id = p_tenant_id and o.change_id = d.change_id and d.seen_by is null;
  return cardinality(v_changes);
end
$$;
comment on function stellwerk.apply_timer_changes(bigint, integer) is 'Takes up what has changed in followed rows: timers are moved, emptied, or end with their row. Answers how many changes were looked at.';

create or replace function stellwerk.end_row_waits(p_tenant_id bigint, p_timers stellwerk.row_timer[], p_ports text[], p_now timestamptz)
returns void language plpgsql set search_path = '' as $$
begin
  if cardinality(p_timers) > 0 then
    perform stellwerk.complete_waits(p_tenant_id, array_agg(t.run_id), array_agg(t.step_id), array_agg(t.port),
              array_agg(case t.port when 'next' then jsonb_build_object('fired_at', p_now) else '{}' end), array_agg(null::jsonb))
       from (select u.run_id, u.step_id, p.port
               from unnest(p_timers) with ordinality u (tenant_id, run_id, step_id, slug, column_name, row_key, shift, calendar, row_time, trouble, created_at, place)
               join unnest(p_ports) with ordinality p (port, place) using (place)) t;
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.end_row_waits(bigint, stellwerk.row_timer[], text[], timestamptz) is 'Ends waits that followed a row: by next when their time has come, by gone when the row is gone.';

create or replace function stellwerk.fire_row_timers(p_tenant_id bigint, p_limit integer default 500)
returns integer language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  v_now    timestamptz := stellwerk.clock();
  v_runs   bigint[];
  v_timer  stellwerk.row_timer;
  v_ended  stellwerk.row_timer[] := array[]::stellwerk.row_timer[];
  v_ports  text[] := '{}'::text[];
  v_locked text[] := '{}'::text[];
  v_answer text;
begin
  select array_agg(c.run_id) into v_runs
    from (select x.run_id from stellwerk.timer x
           where x.tenant_id = p_tenant_id and x.kind = 'row' and x.due_at <= v_now order by x.due_at limit p_limit) c;
  if v_runs is null then
    return 0;
  end if;
  v_runs := stellwerk.lock_free_runs(p_tenant_id, v_runs);
  for v_timer in
    select r.* from stellwerk.timer x
      join stellwerk.row_timer r on r.tenant_id = p_tenant_id and r.run_id = x.run_id and r.step_id = x.step_id
     where x.tenant_id = p_tenant_id and x.run_id = any (v_runs) and x.kind = 'row' and x.due_at <= v_now
     order by x.due_at
  loop
    v_answer := case when v_timer.slug = any (v_locked) then 'locked' else stellwerk.follow_row(v_timer, v_now) end;
    if v_answer = 'locked' then
      -- Somebody alters the table: others need not wait behind these.
      v_locked := v_locked || v_timer.slug;
      update stellwerk.timer t set due_at = v_now + interval '1 second'
       where t.tenant_id = p_tenant_id and t.run_id = v_timer.run_id and t.step_id = v_timer.step_id and t.kind = 'row';
    elsif v_answer in ('next', 'gone') then
      v_ended := v_ended || v_timer;
      v_ports := v_ports || v_answer;
    end if;
  end loop;
  perform stellwerk.end_row_waits(p_tenant_id, v_ended, v_ports, v_now);
  return cardinality(v_ended);
end
$$;
comment on function stellwerk.fire_row_timers(bigint, integer) is 'Fires due timers that follow a row, each after its row was read again; one that has moved meanwhile is set anew. Answers how many steps go on.';
