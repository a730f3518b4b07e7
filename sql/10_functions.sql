-- The functions and the arithmetic that expressions may use. A wrong type is null here, as in comparisons; what SQL itself
-- refuses at run time (division by zero, a cast that cannot be made, an unknown time zone, a bad format) raises.
-- Points in time are ISO 8601 text, read and written in UTC; durations are ISO 8601 text (PT3H, P1D).

create or replace function stellwerk.calculate(p_operation text, p_left jsonb, p_right jsonb)
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_left     numeric;
  v_right    numeric;
  v_at       timestamptz;
  v_other    timestamptz;
  v_duration interval;
begin
  if jsonb_typeof(p_left) = 'number' and jsonb_typeof(p_right) = 'number' then
    v_left := p_left::numeric;
    v_right := p_right::numeric;
    -- Numbers that nobody counts with would grow with every turn of a loop.
    if abs(v_left) >= 1e100 or abs(v_right) >= 1e100 or scale(v_left) > 100 or scale(v_right) > 100 then
      return null;
    end if;
    return to_jsonb(case p_operation
      when 'add' then v_left + v_right
      when 'sub' then v_left - v_right
      when 'mul' then case when scale(v_left) + scale(v_right) > 100 then round(v_left * v_right, 100) else v_left * v_right end
      when 'div' then trim_scale(v_left / v_right)
      when 'mod' then mod(v_left, v_right)
    end);
  elsif p_operation = 'mul' and jsonb_typeof(p_left) = 'string' and jsonb_typeof(p_right) = 'number' then
    v_right := p_right::numeric;
    v_duration := stellwerk.duration(p_left #>> '{}');
    if abs(v_right) > 10000 or abs(extract(epoch from v_duration)) > 1e9 then
      return null;
    end if;
    return to_jsonb(stellwerk.duration_text(v_duration * v_right::double precision));
  elsif p_operation not in ('add', 'sub') or jsonb_typeof(p_left) is distinct from 'string' then
    if p_operation = 'add' and jsonb_typeof(p_left) = 'number' and jsonb_typeof(p_right) = 'string' then
      return stellwerk.calculate('add', p_right, p_left);
    end if;
    return null;
  end if;

  v_at := stellwerk.instant(p_left #>> '{}');
  if jsonb_typeof(p_right) = 'number' then  -- a date and a number of days
    if length(p_left #>> '{}') <> 10 or abs(p_right::numeric) > 1000000 then
      return null;
    end if;
    v_duration := make_interval(days => trunc(p_right::numeric)::integer);
  elsif jsonb_typeof(p_right) = 'string' then
    v_duration := stellwerk.duration(p_right #>> '{}');
    if v_at is null then
      v_at := stellwerk.instant(p_right #>> '{}');
      if p_operation = 'add' and v_at is not null then
        return stellwerk.calculate('add', p_right, p_left);
      end if;
      v_duration := stellwerk.duration(p_left #>> '{}') + case p_operation when 'add' then v_duration else - v_duration end;
      return to_jsonb(stellwerk.duration_text(v_duration));
    elsif v_duration is null then
      v_other := stellwerk.instant(p_right #>> '{}');
      if p_operation = 'add' or v_other is null then
        return null;
      elsif length(p_left #>> '{}') = 10 and length(p_right #>> '{}') = 10 then
        return to_jsonb((extract(epoch from v_at - v_other) / 86400)::integer);
      end if;
      return to_jsonb(stellwerk.duration_text(v_at - v_other));
    end if;
  end if;
  return to_jsonb(stellwerk.moved(v_at, case p_operation when 'add' then v_duration else - v_duration end, length(p_left #>> '{}') = 10));
end
$$;

comment on function stellwerk.calculate(text, jsonb, jsonb) is
  'Arithmetic of expressions: numbers, and timestamps, dates and durations as ISO 8601 text. Other types are null; division by zero raises.';

create or replace function stellwerk.moved(p_at timestamptz, p_by interval, p_is_date boolean)
returns text language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_epoch numeric := extract(epoch from p_at) + extract(epoch from p_by);
  v_at    timestamp;
begin
  -- Estimated first, because the addition itself would raise far outside the calendar.
  if v_epoch is null or v_epoch not between -63000000000 and 254000000000 then
    return null;
  end if;
  v_at := (p_at at time zone 'UTC') + p_by;
  if v_at < timestamp '0001-01-01' or v_at >= timestamp '10000-01-01' then
    return null;
  elsif p_is_date and v_at = date_trunc('day', v_at) then
    return to_char(v_at, 'YYYY-MM-DD');
  end if;
  return stellwerk.instant_text(v_at at time zone 'UTC');
end
$$;

comment on function stellwerk.moved(timestamptz, interval, boolean) is
  'A point in time moved by a duration, as ISO 8601 text; a date moved by whole days stays a date. Null outside the years 1 to 9999.';

create or replace function stellwerk.instant(p_text text)
returns timestamptz language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_part text[] := regexp_match(p_text,
    '^(\d{4})-(0[1-9]|1[0-2])-([0-2]\d|3[01])(?:[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(Z|[+-](?:0\d|1[0-4])(?::?[0-5]\d)?)?)?$');
  v_month integer;
  v_day   integer;
begin
  if v_part is null or v_part[1] = '0000' or v_part[3] = '00' then
    return null;
  end if;
  v_month := v_part[2]::integer;
  v_day := v_part[3]::integer;
  if v_day > 28 and v_day > extract(day from make_date(v_part[1]::integer, v_month, 1) + interval '1 month' - interval '1 day') then
    return null;
  elsif v_part[4] is not null then
    return p_text::timestamptz;
  end if;
  return p_text::timestamp at time zone 'UTC';
end
$$;

comment on function stellwerk.instant(text) is
  'The point in time that an ISO 8601 date or timestamp names (UTC where it has no offset); null for any other text. Never raises.';

create or replace function stellwerk.instant_text(p_at timestamptz)
returns text language plpgsql immutable strict parallel safe set search_path = '' as $$
declare
  v_at timestamp := p_at at time zone 'UTC';
begin
  return to_char(v_at, 'YYYY-MM-DD"T"HH24:MI:SS') || rtrim(rtrim(to_char(v_at, '.US'), '0'), '.') || '+00:00';
end
$$;

comment on function stellwerk.instant_text(timestamptz) is 'A point in time as ISO 8601 text in UTC.';

create or replace function stellwerk.duration(p_text text)
returns interval language sql immutable strict parallel safe set search_path = ''
return case
  when p_text ~ '^P(?=[-\dT])(-?\d{1,4}Y)?(-?\d{1,6}M)?(-?\d{1,6}W)?(-?\d{1,7}D)?(T(?=[-\d])(-?\d{1,8}H)?(-?\d{1,9}M)?(-?\d{1,12}(\.\d{1,9})?S)?)?$'
  then p_text::interval
end;

comment on function stellwerk.duration(text) is 'The duration that an ISO 8601 text such as P1DT3H names; null for any other text. Never raises.';

create or replace function stellwerk.duration_text(p_duration interval)
returns text language plpgsql stable strict parallel safe set search_path = '' set intervalstyle = 'iso_8601' as $$
begin
  return p_duration::text;
end
$$;

comment on function stellwerk.duration_text(interval) is 'A duration as ISO 8601 text.';

create or replace function stellwerk.refuse_long_text()
returns void language plpgsql stable parallel safe set search_path = '' as $$
begin
  raise exception 'an expression made a text of more than 1 MB'
    using errcode = 'SW008', hint = 'Store large texts in a table and pass their id on.';
end
$$;

comment on function stellwerk.refuse_long_text() is 'Raises SW008: texts made by expressions and templates are limited to 1 MB.';

create or replace function stellwerk.call_function(p_name text, p_arguments jsonb[])
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_first   jsonb := p_arguments[1];
  v_type    text := jsonb_typeof(v_first);
  v_text    text;
  v_second  text := p_arguments[2] #>> '{}';
  v_third   text := p_arguments[3] #>> '{}';
  v_number  numeric;
  v_count   integer;
  v_value   jsonb;
begin
  if p_name in ('greatest', 'least') then
    foreach v_value in array p_arguments loop
      if v_value is not null then
        v_count := case when v_first is null then 1 else nullif(stellwerk.compare(v_value, v_first), 2) end;
        if v_count is null then
          return null;
        elsif (p_name = 'greatest' and v_count > 0) or (p_name = 'least' and v_count < 0) or v_first is null then
          v_first := v_value;
        end if;
      end if;
    end loop;
    return v_first;
  elsif p_name = 'concat' then
    v_text := '';
    foreach v_value in array p_arguments loop
      v_text := v_text || coalesce(v_value #>> '{}', '');
      if octet_length(v_text) > 1048576 then
        perform stellwerk.refuse_long_text();
      end if;
    end loop;
    return to_jsonb(v_text);
  elsif p_name = 'nullif' then
    return case when stellwerk.compare(v_first, p_arguments[2]) = 0 then null else v_first end;
  elsif v_first is null or (p_arguments[2] is null and cardinality(p_arguments) > 1) or (p_arguments[3] is null and cardinality(p_arguments) > 2) then
    return null;
  elsif p_name = 'length' then
    return case v_type when 'array' then to_jsonb(jsonb_array_length(v_first)) when 'object' then null else to_jsonb(length(v_first #>> '{}')) end;
  elsif p_name = 'jsonb_array_length' then
    return case v_type when 'array' then to_jsonb(jsonb_array_length(v_first)) end;
  elsif p_name = 'contains' then
    return to_jsonb(case v_type
      when 'string' then strpos(v_first #>> '{}', v_second) > 0
      when 'array' then exists (select from jsonb_array_elements(v_first) element where element = p_arguments[2])
      when 'object' then v_first ? v_second
    end);
  elsif p_name like 'cast\_%' then
    return stellwerk.cast_value(substr(p_name, 6), v_first);
  elsif p_name in ('to_char', 'date_trunc', 'extract', 'timezone', 'to_timestamp') then
    return stellwerk.call_time_function(p_name, v_first, v_second);
  elsif p_name in ('abs', 'round', 'ceil', 'floor', 'sign', 'trunc') then
    if v_type <> 'number' then
      return null;
    end if;
    v_number := v_first::numeric;
    if abs(v_number) >= 1e100 or scale(v_number) > 100 then
      return null;
    end if;
    v_count := case when jsonb_typeof(p_arguments[2]) = 'number' then greatest(least(v_second::numeric, 100), -100)::integer end;
    return to_jsonb(case p_name
      when 'abs' then abs(v_number)
      when 'round' then case when v_count is null then round(v_number) else round(v_number, v_count) end
      when 'trunc' then case when v_count is null then trunc(v_number) else trunc(v_number, v_count) end
      when 'ceil' then ceil(v_number)
      when 'floor' then floor(v_number)
      else sign(v_number)
    end);
  end if;

  -- Functions of text; numbers and booleans are taken as their text.
  if v_type in ('array', 'object') then
    return null;
  end if;
  v_text := v_first #>> '{}';
  if p_name in ('substr', 'left', 'right') and jsonb_typeof(p_arguments[2]) = 'number' then
    v_count := greatest(least(trunc(v_second::numeric), 100000000), -100000000)::integer;
    if p_name = 'substr' and cardinality(p_arguments) > 2 then
      if jsonb_typeof(p_arguments[3]) <> 'number' or v_third::numeric < 0 then
        return null;
      end if;
      return to_jsonb(substr(v_text, v_count, least(trunc(v_third::numeric), 100000000)::integer));
    end if;
    return to_jsonb(case p_name when 'substr' then substr(v_text, v_count) when 'left' then left(v_text, v_count) else right(v_text, v_count) end);
  elsif p_name = 'split_part' then
    v_number := case when jsonb_typeof(p_arguments[3]) = 'number' then v_third::numeric end;
    return case when v_number = trunc(v_number) and v_number <> 0 and abs(v_number) <= 1000000
                then to_jsonb(split_part(v_text, v_second, v_number::integer)) end;
  elsif p_name = 'replace' then
    if v_second <> '' and length(v_third) > length(v_second) then
      v_count := (length(v_text) - length(replace(v_text, v_second, ''))) / length(v_second);
      if octet_length(v_text)::bigint + v_count::bigint * (octet_length(v_third) - octet_length(v_second)) > 1048576 then
        perform stellwerk.refuse_long_text();
      end if;
    end if;
    return to_jsonb(replace(v_text, v_second, v_third));
  elsif p_name in ('starts_with', 'ends_with') then
    return to_jsonb(case p_name when 'starts_with' then starts_with(v_text, v_second) else right(v_text, length(v_second)) = v_second end);
  elsif p_name = 'strpos' then
    return to_jsonb(strpos(v_text, v_second));
  elsif p_name in ('upper', 'lower', 'trim', 'ltrim', 'rtrim') then
    return to_jsonb(case p_name
      when 'upper' then upper(v_text)
      when 'lower' then lower(v_text)
      when 'trim' then btrim(v_text, coalesce(v_second, E' \t\r\n'))
      when 'ltrim' then ltrim(v_text, coalesce(v_second, E' \t\r\n'))
      else rtrim(v_text, coalesce(v_second, E' \t\r\n'))
    end);
  elsif p_name in ('substr', 'left', 'right') then
    return null;
  end if;
  raise exception 'an expression tree calls the unknown function %', coalesce(quote_literal(p_name), 'null')
    using errcode = 'SW006', hint = 'Trees are written by the compiler; save the workflow again.';
end
$$;

comment on function stellwerk.call_function(text, jsonb[]) is
  'A function of expressions by name, over its evaluated arguments (SQL null for null). docs/expressions.md lists them.';

create or replace function stellwerk.call_time_function(p_name text, p_value jsonb, p_setting text)
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_text     text := p_value #>> '{}';
  v_at       timestamptz := stellwerk.instant(v_text);
  v_duration interval;
begin
  if p_name = 'to_char' and jsonb_typeof(p_value) = 'number' then
    return to_jsonb(to_char(p_value::numeric, p_setting));
  elsif p_name = 'to_timestamp' then
    return case when jsonb_typeof(p_value) = 'number' and p_value::numeric between -62135596800 and 253402300799
                then to_jsonb(stellwerk.instant_text(to_timestamp(p_value::double precision))) end;
  elsif jsonb_typeof(p_value) <> 'string' then
    return null;
  elsif p_name = 'extract' and v_at is null then
    v_duration := stellwerk.duration(v_text);
    return case when p_setting not in ('dow', 'isodow', 'doy', 'week', 'isoyear') then to_jsonb(trim_scale(case p_setting when 'epoch' then extract(epoch from v_duration) else date_part(p_setting, v_duration)::numeric end)) end;
  end if;
  if p_name = 'extract' then
    return to_jsonb(trim_scale(case p_setting when 'epoch' then extract(epoch from v_at) else date_part(p_setting, v_at at time zone 'UTC')::numeric end));
  elsif p_name = 'to_char' then
    return to_jsonb(to_char(v_at at time zone 'UTC', p_setting));
  elsif p_name = 'timezone' then
    return to_jsonb(to_char(v_at at time zone p_setting, 'YYYY-MM-DD"T"HH24:MI:SS'));
  elsif length(v_text) = 10 and p_setting not in ('hour', 'minute', 'second') then
    return to_jsonb(to_char(date_trunc(p_setting, v_at at time zone 'UTC'), 'YYYY-MM-DD'));
  end if;
  return to_jsonb(stellwerk.instant_text(date_trunc(p_setting, v_at at time zone 'UTC') at time zone 'UTC'));
end
$$;

comment on function stellwerk.call_time_function(text, jsonb, text) is
  'The functions of expressions that read points in time and durations: to_char, to_timestamp, date_trunc, extract, timezone.';

create or replace function stellwerk.cast_value(p_type text, p_value jsonb)
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_type   text := jsonb_typeof(p_value);
  v_text   text := p_value #>> '{}';
  v_number numeric;
  v_result jsonb;
begin
  if p_type = 'text' then
    return to_jsonb(v_text);
  elsif p_type in ('numeric', 'integer') then
    if v_type = 'number' then
      v_number := p_value::numeric;
    elsif v_type = 'boolean' then
      v_number := case v_text when 'true' then 1 else 0 end;
    elsif v_type = 'string' and v_text ~ '^\s*[+-]?(\d{1,40}(\.\d{0,40})?|\.\d{1,40})([eE][+-]?\d{1,2})?\s*$' then
      v_number := v_text::numeric;
    end if;
    v_result := to_jsonb(case p_type when 'integer' then round(v_number) else v_number end);
  elsif p_type = 'boolean' then
    v_result := case
      when v_type = 'boolean' then p_value
      when v_type = 'number' then to_jsonb(p_value <> '0')
      when lower(btrim(v_text)) in ('t', 'true', 'y', 'yes', 'on', '1') then 'true'
      when lower(btrim(v_text)) in ('f', 'false', 'n', 'no', 'off', '0') then 'false'
    end;
  elsif v_type = 'string' and p_type = 'date' then
    v_result := to_jsonb(to_char(stellwerk.instant(v_text) at time zone 'UTC', 'YYYY-MM-DD'));
  elsif v_type = 'string' and p_type = 'timestamptz' then
    v_result := to_jsonb(stellwerk.instant_text(stellwerk.instant(v_text)));
  elsif v_type = 'string' and p_type = 'interval' and length(v_text) <= 100 then
    v_result := to_jsonb(stellwerk.duration_text(v_text::interval));
  end if;
  if v_result is null then
    raise exception '% cannot be read as %', left(p_value::text, 60), p_type
      using errcode = '22P02', hint = 'Check the value with a condition before it is cast.';
  end if;
  return v_result;
end
$$;

comment on function stellwerk.cast_value(text, jsonb) is
  'value::type of expressions (text, numeric, integer, boolean, date, timestamptz, interval); raises where the value cannot be read so.';
