-- The next time of a cron expression, from the sets that the compiler made of its fields. No process outside the database is
-- needed for it. Where the minutes and hours are fixed, a time that the clocks skip is taken when they have been put forward,
-- and a time that comes twice is taken once; otherwise every real minute counts as the clocks on the wall show it.

create or replace function stellwerk.cron_next(p_fields jsonb, p_zone text, p_after timestamptz)
returns timestamptz language plpgsql stable set search_path = '' as $$
declare
  v_minutes integer[] := array(select m.value::integer from jsonb_array_elements_text(p_fields -> 'minutes') m (value) order by 1);
  v_hours   integer[] := array(select m.value::integer from jsonb_array_elements_text(p_fields -> 'hours') m (value));
  v_months  integer[] := array(select m.value::integer from jsonb_array_elements_text(p_fields -> 'months') m (value));
  v_fixed   boolean := (p_fields ->> 'fixed')::boolean;
  -- With fixed times the hands of a clock are moved that knows no change of time; else time itself.
  v_at      timestamptz := date_trunc('minute', p_after) + interval '1 minute';
  v_wall    timestamp := date_trunc('minute', p_after at time zone p_zone) + interval '1 minute';
  v_last    timestamp := (p_after at time zone p_zone) + interval '50 years';
  v_step    interval;
  v_minute  integer;
  v_found   timestamptz;
begin
  loop
    if not v_fixed then
      v_wall := v_at at time zone p_zone;
    end if;
    exit when v_wall > v_last;
    v_minute := extract(minute from v_wall);
    v_step := null;
    if extract(month from v_wall)::integer <> all (v_months) then
      v_wall := date_trunc('month', v_wall) + interval '1 month';
    elsif not stellwerk.cron_day(p_fields, v_wall::date) then
      v_wall := date_trunc('day', v_wall) + interval '1 day';
    elsif extract(hour from v_wall)::integer <> all (v_hours) then
      v_step := make_interval(mins => 60 - v_minute);
    elsif v_minute <> all (v_minutes) then
      v_step := make_interval(mins => coalesce((select min(m.value) from unnest(v_minutes) m (value) where m.value > v_minute), 60) - v_minute);
    elsif not v_fixed then
      return v_at;
    else
      v_found := stellwerk.wall_time(v_wall, p_zone);
      if v_found > p_after then
        return v_found;
      end if;
      v_step := interval '1 minute';
    end if;
    if v_fixed then
      v_wall := v_wall + coalesce(v_step, '0');
    elsif v_step is null then
      v_at := stellwerk.wall_time(v_wall, p_zone);
    else
      v_at := v_at + v_step;
    end if;
  end loop;
  return null;
end
$$;
comment on function stellwerk.cron_next(jsonb, text, timestamptz) is 'The first time after the given one at which a cron expression holds in a time zone; null when there is none within 50 years.';

create or replace function stellwerk.cron_day(p_fields jsonb, p_day date)
returns boolean language plpgsql immutable set search_path = '' as $$
declare
  v_last date := date_trunc('month', p_day::timestamp) + interval '1 month - 1 day';
  v_dow  integer := extract(dow from p_day);
  v_of_month boolean;
  v_of_week  boolean;
begin
  v_of_month := p_fields -> 'days' @> to_jsonb(extract(day from p_day)::integer)
                or (p_fields -> 'days' @> '-1' and p_day = v_last)
                -- The last of the month that is no Saturday or Sunday.
                or (p_fields -> 'days' @> '-2' and p_day = v_last - greatest(extract(isodow from v_last)::integer - 5, 0));
  v_of_week := p_fields -> 'weekdays' @> to_jsonb(v_dow)
               -- Pair by pair, for to jsonb [5, 2] contains [2, 5].
               or exists (select from jsonb_array_elements(p_fields -> 'nth') n (pair)
                           where (n.pair ->> 0)::integer = v_dow
                             and ((n.pair ->> 1)::integer = (extract(day from p_day)::integer + 6) / 7 or (n.pair ->> 1 = '-1' and p_day + 7 > v_last)));
  return case when (p_fields ->> 'both')::boolean then v_of_month and v_of_week else v_of_month or v_of_week end;
end
$$;
comment on function stellwerk.cron_day(jsonb, date) is 'Whether a cron expression holds on a day.';

-- "at time zone" takes the second of two moments that a clock shows twice, and one beside it for a time that it skips.
create or replace function stellwerk.wall_time(p_wall timestamp, p_zone text)
returns timestamptz language plpgsql stable set search_path = '' as $$
declare
  v_wall timestamp := p_wall;
  v_at   timestamptz := v_wall at time zone p_zone;
  v_back interval;
begin
  while v_at at time zone p_zone <> v_wall loop
    v_wall := v_wall + interval '1 minute';
    v_at := v_wall at time zone p_zone;
  end loop;
  foreach v_back in array array['3 hours', '2 hours', '1 hour', '30 minutes']::interval[] loop
    if (v_at - v_back) at time zone p_zone = v_wall then
      return v_at - v_back;
    end if;
  end loop;
  return v_at;
end
$$;
comment on function stellwerk.wall_time(timestamp, text) is 'The first moment at which the clocks of a zone show a time, or when they have been put forward past it.';
