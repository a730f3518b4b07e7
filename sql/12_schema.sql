-- The part of JSON Schema that Stellwerk knows, everywhere the same: type, required, properties, additionalProperties, items,
-- enum, const, minimum, maximum, minLength, maxLength, minItems, maxItems and the formats email, date and date-time.
-- A schema with any other keyword is refused when it is saved, so nothing is ignored in silence here. The same rules in
-- Python are definition/schemas.py; tests/cases/json_schema.json keeps the two equal.

create or replace function stellwerk.schema_problems_at(p_schema jsonb, p_value jsonb, p_path text, p_depth integer)
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_type    text := jsonb_typeof(p_value);
  v_types   jsonb := p_schema -> 'type';
  v_found   jsonb := '[]'::jsonb;
  v_limit   numeric;
  v_size    integer;
  v_key     text;
  v_part    jsonb;
  v_message text;
begin
  if p_depth > 64 then
    return jsonb_build_array(jsonb_build_object('path', p_path, 'message', 'is nested deeper than 64 levels'));
  elsif jsonb_typeof(p_schema) is distinct from 'object' then
    return v_found;
  end if;

  if v_types is not null then
    if jsonb_typeof(v_types) = 'string' then
      v_types := jsonb_build_array(v_types);
    end if;
    if not (v_types ? v_type or (v_type = 'number' and v_types ? 'integer' and p_value::numeric % 1 = 0)) then
      v_message := 'must be ' || stellwerk.schema_type_names(v_types) || ', but is ' || stellwerk.schema_type_names(jsonb_build_array(v_type));
      return jsonb_build_array(jsonb_build_object('path', p_path, 'message', v_message));
    end if;
  end if;
  if p_schema ? 'enum' and not exists (select from jsonb_array_elements(p_schema -> 'enum') element where element = p_value) then
    v_found := v_found || jsonb_build_object('path', p_path, 'message', 'must be one of ' || left((p_schema -> 'enum')::text, 200));
  end if;
  if p_schema ? 'const' and p_schema -> 'const' <> p_value then
    v_found := v_found || jsonb_build_object('path', p_path, 'message', 'must be ' || left((p_schema -> 'const')::text, 200));
  end if;

  if v_type = 'number' then
    v_limit := (p_schema ->> 'minimum')::numeric;
    if p_value::numeric < v_limit then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', format('must be at least %s', v_limit));
    end if;
    v_limit := (p_schema ->> 'maximum')::numeric;
    if p_value::numeric > v_limit then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', format('must be at most %s', v_limit));
    end if;
  elsif v_type = 'string' then
    v_size := length(p_value #>> '{}');
    v_limit := (p_schema ->> 'minLength')::numeric;
    if v_size < v_limit then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', format('must have at least %s characters', v_limit));
    end if;
    v_limit := (p_schema ->> 'maxLength')::numeric;
    if v_size > v_limit then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', format('must have at most %s characters', v_limit));
    end if;
    v_message := stellwerk.schema_format_problem(p_schema ->> 'format', p_value #>> '{}');
    if v_message is not null then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', v_message);
    end if;
  elsif v_type = 'array' then
    v_size := jsonb_array_length(p_value);
    v_limit := (p_schema ->> 'minItems')::numeric;
    if v_size < v_limit then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', format('must have at least %s items', v_limit));
    end if;
    v_limit := (p_schema ->> 'maxItems')::numeric;
    if v_size > v_limit then
      v_found := v_found || jsonb_build_object('path', p_path, 'message', format('must have at most %s items', v_limit));
    elsif p_schema ? 'items' then
      v_size := 0;
      for v_part in select element from jsonb_array_elements(p_value) with ordinality as item (element, place) order by place loop
        v_found := v_found || stellwerk.schema_problems_at(p_schema -> 'items', v_part, format('%s[%s]', p_path, v_size), p_depth + 1);
        exit when jsonb_array_length(v_found) >= 20;
        v_size := v_size + 1;
      end loop;
    end if;
  elsif v_type = 'object' then
    for v_key in select element from jsonb_array_elements_text(p_schema -> 'required') with ordinality as item (element, place) order by place loop
      if not p_value ? v_key then
        v_found := v_found || jsonb_build_object('path', stellwerk.schema_member(p_path, v_key), 'message', 'is required');
      end if;
    end loop;
    for v_key, v_part in select key, value from jsonb_each(p_value) loop
      if p_schema -> 'properties' ? v_key then
        v_found := v_found || stellwerk.schema_problems_at(p_schema -> 'properties' -> v_key, v_part, stellwerk.schema_member(p_path, v_key), p_depth + 1);
      elsif p_schema -> 'additionalProperties' = 'false' then
        v_found := v_found || jsonb_build_object('path', stellwerk.schema_member(p_path, v_key), 'message', 'is not expected here');
      elsif jsonb_typeof(p_schema -> 'additionalProperties') = 'object' then
        v_found := v_found || stellwerk.schema_problems_at(p_schema -> 'additionalProperties', v_part, stellwerk.schema_member(p_path, v_key), p_depth + 1);
      end if;
      exit when jsonb_array_length(v_found) >= 20;
    end loop;
  end if;
  return case when jsonb_array_length(v_found) > 20 then jsonb_path_query_array(v_found, '$[0 to 19]') else v_found end;
end
$$;

comment on function stellwerk.schema_problems_at(jsonb, jsonb, text, integer) is
  'Where a value at a path departs from its schema: up to 20 objects {"path", "message"}.';

create or replace function stellwerk.schema_problems(p_schema jsonb, p_value jsonb)
returns jsonb language sql stable parallel safe set search_path = ''
return case when p_schema is null or p_schema = '{}' then '[]'::jsonb
            else stellwerk.schema_problems_at(p_schema, coalesce(p_value, 'null'::jsonb), '', 0) end;

comment on function stellwerk.schema_problems(jsonb, jsonb) is
  'Where a value departs from a JSON schema (the subset in docs/workflow-document.md): up to 20 objects {"path", "message"}, an empty list if nowhere.';

create or replace function stellwerk.schema_member(p_path text, p_key text)
returns text language sql immutable parallel safe set search_path = ''
return case when p_path = '' then left(p_key, 200) else p_path || '.' || left(p_key, 200) end;

comment on function stellwerk.schema_member(text, text) is 'The path of an object''s member, as people write it.';

create or replace function stellwerk.schema_type_names(p_types jsonb)
returns text language sql immutable parallel safe set search_path = ''
return (
  select pg_catalog.string_agg(case element when 'array' then 'a list' when 'object' then 'an object' when 'string' then 'a text'
           when 'integer' then 'a whole number' when 'number' then 'a number' when 'boolean' then 'true or false' else element end, ' or ' order by place)
  from pg_catalog.jsonb_array_elements_text(p_types) with ordinality as item (element, place)
);

comment on function stellwerk.schema_type_names(jsonb) is 'JSON type names in the words of an error message.';

create or replace function stellwerk.schema_format_problem(p_format text, p_text text)
returns text language plpgsql immutable parallel safe set search_path = '' as $$
begin
  -- Which letters \s means depends on the database's locale; so blanks and control characters are named here one by one.
  if p_format = 'email' and (length(p_text) > 320
       or p_text ~ '[\u0001-\u0020\u007f-\u00a0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ufeff]'
       or p_text !~ '^[^@<>"(),:;]+@[^@<>"(),:;.]+(\.[^@<>"(),:;.]+)+$') then
    return 'must be an email address';
  elsif p_format = 'date' and (length(p_text) <> 10 or stellwerk.instant(p_text) is null) then
    return 'must be a date such as 2026-05-31';
  elsif p_format = 'date-time' and (p_text !~ '^.{10}T.*(Z|[+-]\d\d:\d\d)$' or stellwerk.instant(p_text) is null) then
    return 'must be a timestamp such as 2026-05-31T09:30:00Z';
  end if;
  return null;
end
$$;

comment on function stellwerk.schema_format_problem(text, text) is 'Why a text is not of a format (email, date, date-time); null if it is.';
