-- Times as people mean them: in a zone, and in working hours.

create or replace function stellwerk.zone_of(p_tenant_id bigint)
returns text language sql stable set search_path = ''
return (select t.time_zone from stellwerk.tenant t where t.tenant_id = p_tenant_id);
comment on function stellwerk.zone_of(bigint) is 'The tenant''s time zone.';

create or replace function stellwerk.check_zone(p_zone text)
returns text language plpgsql stable set search_path = '' as $$
begin
  if p_zone is null or p_zone !~ '^[A-Za-z][A-Za-z0-9_+/-]*$' or not exists (select from pg_catalog.pg_timezone_names z where z.name = p_zone) then
    raise exception 'there is no time zone %', coalesce(quote_literal(left(p_zone, 100)), 'null')
      using errcode = 'SW008', hint = 'Such as Europe/Rome; select name from pg_timezone_names lists them.';
  end if;
  return p_zone;
end
$$;
comment on function stellwerk.check_zone(text) is 'A time zone that the server knows by name; SW008 otherwise.';

create or replace function stellwerk.set_time_zone(time_zone text)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_now       timestamptz := stellwerk.clock();
begin
  perform stellwerk.check_zone(time_zone);
  update stellwerk.tenant t set time_zone = set_time_zone.time_zone where t.tenant_id = v_tenant_id;
  update stellwerk.schedule s set next_run = stellwerk.next_time(s, v_now)
   where s.tenant_id = v_tenant_id and s.time_zone is null and s.cron is not null and s.next_run > v_now;
  perform stellwerk.reckon_anew(v_tenant_id);
end
$$;
comment on function stellwerk.set_time_zone(text) is 'Sets the tenant''s time zone, in which times without an offset, days, and schedules without a zone of their own are meant from now on; waits that follow a row are reckoned anew, other timers that are set keep their time. Errors: SW008.';

create or replace function stellwerk.reckon_anew(p_tenant_id bigint, p_calendar text default null)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.timer_change (tenant_id, slug, column_name)
  select distinct r.tenant_id, r.slug, r.column_name from stellwerk.row_timer r
   where r.tenant_id = p_tenant_id and (p_calendar is null or r.calendar = p_calendar);
  if found then
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.reckon_anew(bigint, text) is 'Has the waits that follow a row, all or those of a calendar, look at their rows again.';

create or replace function stellwerk.read_time(p_text text, p_zone text)
returns timestamptz language sql stable set search_path = '' set timezone = 'UTC' set datestyle = 'ISO, YMD' as $$
  select case when p_text ~* '\d\s*(z|[+-]\d\d(:?\d\d){0,2}|utc|gmt)$' and p_text ~ ':' then p_text::timestamptz
              else p_text::timestamp at time zone p_zone end
$$;
comment on function stellwerk.read_time(text, text) is 'A time as it is written; without an offset it is meant in the zone. Raises a data exception for what is none.';

-- timestamptz + interval would count days in the session's zone.
create or replace function stellwerk.shift_time(p_at timestamptz, p_by interval, p_zone text)
returns timestamptz language sql stable set search_path = '' as $$
  select ((p_at at time zone p_zone) + d.days) at time zone p_zone + (p_by - d.days)
    from (select make_interval(months => (extract(year from p_by) * 12 + extract(month from p_by))::integer, days => extract(day from p_by)::integer) as days) d
   where d.days <> interval '0'
  union all
  select p_at + p_by where extract(year from p_by) = 0 and extract(month from p_by) = 0 and extract(day from p_by) = 0
$$;
comment on function stellwerk.shift_time(timestamptz, interval, text) is 'A time moved by a duration: days, months and years by the calendar of the zone (the same time of day), hours and less as they pass.';

create or replace function stellwerk.set_calendar(name text, hours jsonb, holidays date[] default '{}', time_zone text default null)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_hours     jsonb := stellwerk.weekly_hours(hours);
begin
  if coalesce(name, '') !~ '^[a-z][a-z0-9_-]{0,62}$' then
    raise exception 'a calendar needs a name, not %', coalesce(quote_literal(left(name, 100)), 'null')
      using errcode = 'SW008', hint = 'Lower-case letters, digits, hyphens and underscores, starting with a letter.';
  end if;
  insert into stellwerk.calendar as c (tenant_id, name, time_zone, hours, holidays, updated_by)
  values (v_tenant_id, set_calendar.name, stellwerk.check_zone(coalesce(time_zone, stellwerk.zone_of(v_tenant_id))), v_hours,
          coalesce(array(select distinct d.day from unnest(holidays) d (day) where d.day is not null order by d.day), '{}'), stellwerk.actor())
  on conflict on constraint calendar_pkey do update
     set time_zone = excluded.time_zone, hours = excluded.hours, holidays = excluded.holidays, updated_at = excluded.updated_at, updated_by = excluded.updated_by;
  perform stellwerk.reckon_anew(v_tenant_id, name);
end
$$;
comment on function stellwerk.set_calendar(text, jsonb, date[], text) is 'Makes or replaces a calendar of working hours: { "mon-fri": [["09:00", "13:00"], ["14:00", "18:00"]], "sat": [["09:00", "12:00"]] }, days without hours, and a time zone (default: the tenant''s). Waits that follow a row are reckoned anew, other timers that are set keep their time. Errors: SW008.';

create or replace function stellwerk.remove_calendar(name text)
returns boolean language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  delete from stellwerk.calendar c where c.tenant_id = v_tenant_id and c.name = remove_calendar.name;
  if not found then
    return false;
  end if;
  perform stellwerk.reckon_anew(v_tenant_id, name);
  return true;
end
$$;
comment on function stellwerk.remove_calendar(text) is 'Removes a calendar; waits that name it fail from then on, and those that follow a row wait until there is one of that name again. Answers whether there was one.';

create or replace function stellwerk.weekly_hours(p_hours jsonb)
returns jsonb language plpgsql immutable set search_path = '' as $$
declare
  c_days constant text[] := array['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];
  v_result jsonb := '{}'::jsonb;
  v_entry  record;
  v_from   integer;
  v_to     integer;
  v_spans  jsonb;
begin
  if jsonb_typeof(p_hours) is distinct from 'object' then
    raise exception 'hours must be an object of days' using errcode = 'SW008', hint = 'For example {"mon-fri": [["09:00", "17:00"]]}.';
  end if;
  for v_entry in select lower(e.key) as days, e.value as spans from jsonb_each(p_hours) e (key, value) loop
    v_from := array_position(c_days, split_part(v_entry.days, '-', 1));
    v_to := array_position(c_days, coalesce(nullif(split_part(v_entry.days, '-', 2), ''), v_entry.days));
    if v_from is null or v_to is null or v_to < v_from then
      raise exception 'there is no day %', quote_literal(left(v_entry.days, 50))
        using errcode = 'SW008', hint = 'Days are mon, tue, wed, thu, fri, sat, sun, or from one to a later one: mon-fri.';
    end if;
    begin
      select jsonb_agg(jsonb_build_array(to_char(s.opens, 'HH24:MI:SS'), to_char(s.closes, 'HH24:MI:SS')) order by s.opens) into v_spans
        from (select (x.span ->> 0)::time::interval as opens, (x.span ->> 1)::time::interval as closes, jsonb_array_length(x.span) as parts
                from jsonb_array_elements(v_entry.spans) x (span)) s
      having bool_and(s.parts = 2 and s.opens < s.closes);
    exception when data_exception then
      v_spans := null;
    end;
    if v_spans is null then
      raise exception 'the hours of % cannot be read: %', v_entry.days, left(v_entry.spans::text, 200)
        using errcode = 'SW008', hint = 'Pairs of times of one day, the earlier one first: [["09:00", "13:00"], ["14:00", "18:00"]].';
    end if;
    for v_day in v_from .. v_to loop
      v_result := v_result || jsonb_build_object(v_day, v_spans);
    end loop;
  end loop;
  if v_result = '{}' then
    raise exception 'a calendar needs hours on at least one day' using errcode = 'SW008', hint = 'For example {"mon-fri": [["09:00", "17:00"]]}.';
  end if;
  return v_result;
end
$$;
comment on function stellwerk.weekly_hours(jsonb) is 'Working hours by number of the weekday, each day''s in order; SW008 for what is none.';

create or replace function stellwerk.find_calendar(p_tenant_id bigint, p_name text)
returns stellwerk.calendar language plpgsql stable set search_path = '' as $$
declare
  v_calendar stellwerk.calendar;
begin
  select * into v_calendar from stellwerk.calendar c where c.tenant_id = p_tenant_id and c.name = p_name;
  if v_calendar.name is null then
    raise exception 'there is no calendar %', coalesce(quote_literal(left(p_name, 100)), 'null')
      using errcode = 'SW007', hint = 'stellwerk.set_calendar makes one.';
  end if;
  return v_calendar;
end
$$;
comment on function stellwerk.find_calendar(bigint, text) is 'A calendar by name; SW007 when there is none.';

create or replace function stellwerk.is_working_day(p_calendar stellwerk.calendar, p_day date)
returns boolean language sql immutable set search_path = ''
return (p_calendar).hours ? extract(isodow from p_day)::integer::text and p_day <> all ((p_calendar).holidays);
comment on function stellwerk.is_working_day(stellwerk.calendar, date) is 'Whether a day has working hours.';

create or replace function stellwerk.working_time(p_calendar stellwerk.calendar, p_at timestamptz, p_duration interval default '0')
returns timestamptz language plpgsql stable set search_path = '' as $$
declare
  c_most_days constant integer := 3660;
  v_zone  text := p_calendar.time_zone;
  v_days  integer := extract(day from p_duration);
  v_left  interval := p_duration - make_interval(days => v_days);
  v_at    timestamptz := p_at;
  v_day   date := p_at at time zone v_zone;
  v_span  jsonb;
  v_opens timestamptz;
  v_closes timestamptz;
begin
  if extract(year from p_duration) <> 0 or extract(month from p_duration) <> 0 or p_duration < interval '0' then
    raise exception 'a calendar counts days, hours and minutes, not %', p_duration using errcode = '22023';
  end if;
  if v_days > 0 then
    for v_number in 1 .. c_most_days loop
      v_day := v_day + 1;
      v_days := v_days - stellwerk.is_working_day(p_calendar, v_day)::integer;
      exit when v_days = 0;
    end loop;
    v_at := (v_day + (p_at at time zone v_zone)::time) at time zone v_zone;
  end if;
  for v_number in 0 .. c_most_days loop
    if stellwerk.is_working_day(p_calendar, v_day) then
      for v_span in select s.value from jsonb_array_elements(p_calendar.hours -> extract(isodow from v_day)::integer::text) s (value) loop
        v_opens := greatest(v_at, (v_day + (v_span ->> 0)::interval) at time zone v_zone);
        v_closes := (v_day + (v_span ->> 1)::interval) at time zone v_zone;
        continue when v_closes <= v_opens;
        if v_closes - v_opens >= v_left then
          return v_opens + v_left;
        end if;
        v_left := v_left - (v_closes - v_opens);
      end loop;
    end if;
    v_day := v_day + 1;
  end loop;
  raise exception 'calendar % has not so much working time in ten years', p_calendar.name using errcode = '22023';
end
$$;
comment on function stellwerk.working_time(stellwerk.calendar, timestamptz, interval) is 'The moment when so much working time has passed; without a duration the time itself if work is done then, else when it begins again. Days are counted as working days, hours within the working hours.';
