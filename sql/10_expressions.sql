-- What compiled expressions mean. The compiler turns an expression into a small tree of JSON arrays,
-- ["gt", ["path", "trigger", "payload", "total"], ["value", 100]]; the functions of this file evaluate it over a context.
--
-- One meaning everywhere: SQL's logic with three values over JSON. A missing place and a JSON null are null; comparing
-- values of different JSON types is unknown (null); numbers are numeric; text compares by code point, and as points in time
-- where both sides are ISO 8601 timestamps. Nothing in here depends on a setting of the session.
--
-- Every workflow step passes through here, so the common shapes (a path, a literal, a comparison of the two) are answered
-- without a further call.

create or replace function stellwerk.evaluate(p_tree jsonb, p_context jsonb)
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_op        text := p_tree ->> 0;
  v_argument  jsonb := p_tree -> 1;
  v_value     jsonb;
  v_other     jsonb;
  v_arguments jsonb[];
  v_last      integer;
  v_text      text;
begin
  if v_op = 'path' then
    return nullif(stellwerk.context_value(p_tree, p_context), 'null');
  elsif v_op = 'value' then
    return nullif(v_argument, 'null');
  elsif v_op = 'call' then
    v_last := jsonb_array_length(p_tree) - 1;
    if p_tree ->> 1 = 'coalesce' then
      for v_index in 2 .. v_last loop
        v_argument := p_tree -> v_index;
        v_value := nullif(stellwerk.operand(v_argument, p_context), 'null');
        exit when v_value is not null;
      end loop;
      return v_value;
    end if;
    for v_index in 2 .. v_last loop
      v_argument := p_tree -> v_index;
      v_arguments[v_index - 1] := nullif(stellwerk.operand(v_argument, p_context), 'null');
    end loop;
    return stellwerk.call_function(p_tree ->> 1, v_arguments);
  elsif v_op in ('add', 'sub', 'mul', 'div', 'mod') then
    v_value := stellwerk.operand(v_argument, p_context);
    v_argument := p_tree -> 2;
    v_other := stellwerk.operand(v_argument, p_context);
    return stellwerk.calculate(v_op, v_value, v_other);
  elsif v_op = 'neg' then
    v_value := stellwerk.operand(v_argument, p_context);
    return stellwerk.calculate('sub', '0', v_value);
  elsif v_op = 'concat' then
    v_text := '';
    for v_index in 1 .. jsonb_array_length(p_tree) - 1 loop
      v_argument := p_tree -> v_index;
      v_value := stellwerk.operand(v_argument, p_context);
      v_text := v_text || (v_value #>> '{}');
      exit when v_text is null;
      if octet_length(v_text) > 1048576 then
        perform stellwerk.refuse_long_text();
      end if;
    end loop;
    return to_jsonb(v_text);
  elsif v_op = 'get' then
    v_value := stellwerk.operand(v_argument, p_context);
    return nullif(case
      when jsonb_typeof(p_tree -> 2) = 'string' then v_value -> (p_tree ->> 2)
      when jsonb_typeof(v_value) = 'array' then v_value -> (p_tree ->> 2)::integer
    end, 'null');
  elsif v_op = 'case' then
    v_last := jsonb_array_length(p_tree) - 1;
    for v_index in 0 .. v_last / 2 - 1 loop
      v_argument := p_tree -> (2 * v_index + 1);
      if stellwerk.truth(v_argument, p_context) then
        return stellwerk.evaluate(p_tree -> (2 * v_index + 2), p_context);
      end if;
    end loop;
    return stellwerk.evaluate(p_tree -> v_last, p_context);
  end if;
  return case stellwerk.truth(p_tree, p_context) when true then 'true'::jsonb when false then 'false'::jsonb end;
end
$$;

comment on function stellwerk.evaluate(jsonb, jsonb) is
  'The value of a compiled expression over a context; SQL null stands for null and unknown. Division by zero, casts and date functions may raise.';

create or replace function stellwerk.truth(p_tree jsonb, p_context jsonb)
returns boolean language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_op       text := p_tree ->> 0;
  v_argument jsonb := p_tree -> 1;
  v_left     jsonb;
  v_right    jsonb;
  v_type     text;
  v_order    integer;
  v_result   boolean;
  v_part     boolean;
begin
  if v_op in ('eq', 'ne', 'gt', 'ge', 'lt', 'le') then
    v_left := stellwerk.operand(v_argument, p_context);
    v_argument := p_tree -> 2;
    v_right := stellwerk.operand(v_argument, p_context);
    v_type := jsonb_typeof(v_left);
    if v_type = jsonb_typeof(v_right) then
      if v_type = 'number' then
        return case v_op when 'eq' then v_left = v_right when 'gt' then v_left > v_right when 'ge' then v_left >= v_right
          when 'lt' then v_left < v_right when 'le' then v_left <= v_right else v_left <> v_right end;
      elsif v_type = 'array' or v_type = 'object' then  -- equal or not, but in no order
        return case v_op when 'eq' then v_left = v_right when 'ne' then v_left <> v_right end;
      end if;
      v_order := stellwerk.compare(v_left, v_right);
      return case v_op when 'eq' then v_order = 0 when 'ne' then v_order <> 0 when 'gt' then v_order > 0
        when 'ge' then v_order >= 0 when 'lt' then v_order < 0 else v_order <= 0 end;
    end if;
    return null;
  elsif v_op = 'and' then
    v_result := true;
    for v_index in 1 .. jsonb_array_length(p_tree) - 1 loop
      v_part := stellwerk.truth(p_tree -> v_index, p_context);
      if v_part is false then
        return false;
      end if;
      v_result := v_result and v_part;
    end loop;
    return v_result;
  elsif v_op = 'or' then
    v_result := false;
    for v_index in 1 .. jsonb_array_length(p_tree) - 1 loop
      v_part := stellwerk.truth(p_tree -> v_index, p_context);
      if v_part then
        return true;
      end if;
      v_result := v_result or v_part;
    end loop;
    return v_result;
  elsif v_op = 'not' then
    return not stellwerk.truth(v_argument, p_context);
  elsif v_op = 'is_true' then
    return stellwerk.truth(v_argument, p_context) is true;
  elsif v_op = 'is_false' then
    return stellwerk.truth(v_argument, p_context) is false;
  end if;

  if v_op = 'path' or v_op = 'value' then
    v_left := stellwerk.operand(p_tree, p_context);
    return case v_left when 'true'::jsonb then true when 'false'::jsonb then false end;
  elsif v_op in ('call', 'case', 'get', 'add', 'sub', 'mul', 'div', 'mod', 'neg', 'concat') then
    v_left := stellwerk.evaluate(p_tree, p_context);
    return case v_left when 'true'::jsonb then true when 'false'::jsonb then false end;
  elsif v_op is null or v_op not in ('is_null', 'same', 'in', 'between', 'like', 'ilike') then
    raise exception 'an expression tree holds the unknown operation %', coalesce(quote_literal(v_op), 'null')
      using errcode = 'SW006', hint = 'Trees are written by the compiler; save the workflow again.';
  end if;

  v_left := stellwerk.operand(v_argument, p_context);
  if v_op = 'is_null' then
    return coalesce(v_left = 'null', true);
  elsif v_op = 'same' then  -- is not distinct from: two nulls are the same
    v_argument := p_tree -> 2;
    v_left := nullif(v_left, 'null');
    v_right := nullif(stellwerk.operand(v_argument, p_context), 'null');
    if v_left is null or v_right is null then
      return v_left is null and v_right is null;
    end if;
    return coalesce(stellwerk.compare(v_left, v_right) = 0, false);
  elsif v_op = 'in' then
    v_result := false;
    for v_index in 2 .. jsonb_array_length(p_tree) - 1 loop
      v_argument := p_tree -> v_index;
      v_right := stellwerk.operand(v_argument, p_context);
      v_part := stellwerk.compare(v_left, v_right) = 0;
      if v_part then
        return true;
      end if;
      v_result := v_result or v_part;
    end loop;
    return v_result;
  elsif v_op = 'between' then
    if jsonb_typeof(v_left) in ('array', 'object') then
      return null;
    end if;
    v_argument := p_tree -> 2;
    v_right := stellwerk.operand(v_argument, p_context);
    v_result := stellwerk.compare(v_left, v_right) >= 0;
    v_argument := p_tree -> 3;
    v_right := stellwerk.operand(v_argument, p_context);
    return v_result and stellwerk.compare(v_left, v_right) <= 0;
  elsif v_op = 'like' then
    return case when jsonb_typeof(v_left) = 'string' then (v_left #>> '{}') like (p_tree ->> 2) end;
  end if;
  return case when jsonb_typeof(v_left) = 'string' then (v_left #>> '{}') ilike (p_tree ->> 2) end;
end
$$;

comment on function stellwerk.truth(jsonb, jsonb) is
  'The truth of a compiled expression over a context: true, false, or null for unknown. A value that is not a boolean is unknown.';

create or replace function stellwerk.holds(p_condition jsonb, p_context jsonb)
returns boolean language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_jsonpath text := p_condition ->> 'jsonpath';
begin
  if v_jsonpath is null then
    return coalesce(stellwerk.truth(p_condition -> 'tree', p_context), false);
  end if;
  return coalesce(jsonb_path_match(p_context, v_jsonpath::jsonpath, '{}', true), false);
end
$$;

comment on function stellwerk.holds(jsonb, jsonb) is
  'Whether a compiled condition {"tree", "jsonpath"} is true over a context; unknown counts as false. The jsonpath, where there is one, means the same as the tree.';

create or replace function stellwerk.compare(p_left jsonb, p_right jsonb)
returns integer language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_type  text := jsonb_typeof(p_left);
  v_left  text;
  v_right text;
  v_from  timestamptz;
  v_to    timestamptz;
begin
  if v_type <> jsonb_typeof(p_right) or v_type is null or p_right is null or v_type = 'null' then
    return null;
  elsif v_type = 'string' then
    v_left := p_left #>> '{}';
    v_right := p_right #>> '{}';
    if v_left like '____-__-__%' and v_right like '____-__-__%' then
      v_from := stellwerk.instant(v_left);
      v_to := stellwerk.instant(v_right);
      if v_from is not null and v_to is not null then
        return case when v_from = v_to then 0 when v_from < v_to then -1 else 1 end;
      end if;
    end if;
    return case when p_left = p_right then 0 when v_left collate "C" < v_right collate "C" then -1 else 1 end;
  elsif v_type = 'number' or v_type = 'boolean' then
    return case when p_left = p_right then 0 when p_left < p_right then -1 else 1 end;
  end if;
  return case when p_left = p_right then 0 else 2 end;
end
$$;

comment on function stellwerk.compare(jsonb, jsonb) is
  'Order of two JSON values of one type: -1, 0, 1; 2 for lists and objects that differ (they have no order); null where a side is null or the types differ.';

create or replace function stellwerk.deep_context_value(p_path jsonb, p_context jsonb)
returns jsonb language plpgsql immutable parallel safe set search_path = '' as $$
declare
  v_value jsonb := p_context;
begin
  for v_index in 1 .. jsonb_array_length(p_path) - 1 loop
    v_value := v_value -> (p_path ->> v_index);
    exit when v_value is null;
  end loop;
  return v_value;
end
$$;

comment on function stellwerk.deep_context_value(jsonb, jsonb) is 'What stands at a path ["path", name, …] of any length in a context.';

-- The two below are plain SQL without settings, so that they melt into the expressions that call them;
-- their names are resolved here, once.
create or replace function stellwerk.context_value(p_path jsonb, p_context jsonb)
returns jsonb language sql immutable parallel safe
return case pg_catalog.jsonb_array_length(p_path)
  when 2 then p_context -> (p_path ->> 1)
  when 3 then p_context -> (p_path ->> 1) -> (p_path ->> 2)
  when 4 then p_context -> (p_path ->> 1) -> (p_path ->> 2) -> (p_path ->> 3)
  when 5 then p_context -> (p_path ->> 1) -> (p_path ->> 2) -> (p_path ->> 3) -> (p_path ->> 4)
  when 6 then p_context -> (p_path ->> 1) -> (p_path ->> 2) -> (p_path ->> 3) -> (p_path ->> 4) -> (p_path ->> 5)
  else stellwerk.deep_context_value(p_path, p_context)
end;

comment on function stellwerk.context_value(jsonb, jsonb) is 'What stands at a path ["path", name, …] in a context; null where there is nothing.';

create or replace function stellwerk.operand(p_tree jsonb, p_context jsonb)
returns jsonb language sql stable parallel safe
return case p_tree ->> 0
  when 'path' then stellwerk.context_value(p_tree, p_context)
  when 'value' then p_tree -> 1
  else stellwerk.evaluate(p_tree, p_context)
end;

comment on function stellwerk.operand(jsonb, jsonb) is
  'The value of an operand: like evaluate, without a call for paths and literals, and with JSON null left as it is.';
