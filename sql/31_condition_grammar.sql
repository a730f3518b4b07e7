-- The grammar of conditions (31_conditions.sql says what for): each function reads one kind of part from a token on and answers
-- { sql, family, next, place }: the part as SQL, what it may be compared with, the token after it, the token it began with.

-- or, and, not; below them predicates.
create or replace function stellwerk.read_condition(p_scope jsonb, p_place integer, p_level text, p_depth integer)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  c_max_depth constant integer := 40;
  v_below text := case p_level when 'or' then 'and' when 'and' then 'not' else 'predicate' end;
  v_tree  jsonb;
  v_right jsonb;
  v_parts text[];
begin
  if p_depth > c_max_depth then
    perform stellwerk.refuse_condition(p_scope, p_place, format('is nested more than %s levels deep', c_max_depth));
  end if;
  if p_level = 'not' then
    if not stellwerk.is_word(p_scope, p_place, 'not') then
      return stellwerk.read_predicate(p_scope, p_place, p_depth);
    end if;
    v_tree := stellwerk.read_condition(p_scope, p_place + 1, 'not', p_depth + 1);
    perform stellwerk.expect_truth(p_scope, v_tree);
    return stellwerk.truth(format('(not %s)', v_tree ->> 'sql'), p_place, (v_tree ->> 'next')::integer);
  end if;
  v_tree := stellwerk.read_condition(p_scope, p_place, v_below, p_depth);
  while stellwerk.is_word(p_scope, (v_tree ->> 'next')::integer, p_level) loop
    perform stellwerk.expect_truth(p_scope, v_tree);
    v_right := stellwerk.read_condition(p_scope, (v_tree ->> 'next')::integer + 1, v_below, p_depth);
    perform stellwerk.expect_truth(p_scope, v_right);
    v_parts := coalesce(v_parts, array[v_tree ->> 'sql']) || (v_right ->> 'sql');
    v_tree := stellwerk.truth('', p_place, (v_right ->> 'next')::integer);
  end loop;
  if v_parts is not null then
    v_tree := stellwerk.truth('(' || array_to_string(v_parts, ' ' || p_level || ' ') || ')', p_place, (v_tree ->> 'next')::integer);
  end if;
  return v_tree;
end
$$;
comment on function stellwerk.read_condition(jsonb, integer, text, integer) is 'Reads a part of a condition from a token on; answers its SQL, family and the next token.';

create or replace function stellwerk.is_word(p_scope jsonb, p_place integer, p_word text)
returns boolean language sql immutable set search_path = ''
return p_scope -> 'tokens' -> p_place ->> 'kind' in ('word', 'sign') and p_scope -> 'tokens' -> p_place ->> 'text' = p_word;
comment on function stellwerk.is_word(jsonb, integer, text) is 'Whether a token is this keyword or sign.';

create or replace function stellwerk.truth(p_sql text, p_place integer, p_next integer)
returns jsonb language sql immutable set search_path = ''
return jsonb_build_object('sql', p_sql, 'family', 'bool', 'place', p_place, 'next', p_next);
comment on function stellwerk.truth(text, integer, integer) is 'A part of a condition that is true or false.';

create or replace function stellwerk.read_predicate(p_scope jsonb, p_place integer, p_depth integer)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_left  jsonb := stellwerk.read_operand(p_scope, p_place, p_depth);
  v_place integer := (v_left ->> 'next')::integer;
  v_token jsonb := p_scope -> 'tokens' -> v_place;
  v_word  text := case when v_token ->> 'kind' in ('word', 'sign') then v_token ->> 'text' end;
  v_not   text := '';
  v_right jsonb;
  v_high  jsonb;
  v_parts text[] := '{}'::text[];
  v_sql   text;
begin
  if v_word in ('=', '<>', '!=', '<', '<=', '>', '>=') then
    v_right := stellwerk.read_operand(p_scope, v_place + 1, p_depth);
    v_sql := stellwerk.comparison(p_scope, v_left, case v_word when '!=' then '<>' else v_word end, v_right);
    return stellwerk.truth(v_sql, p_place, (v_right ->> 'next')::integer);
  end if;
  if v_word = 'is' then
    v_place := v_place + 1;
    if stellwerk.is_word(p_scope, v_place, 'not') then
      v_not := 'not ';
      v_place := v_place + 1;
    end if;
    v_word := p_scope -> 'tokens' -> v_place ->> 'text';
    if v_word = 'null' then
      return stellwerk.truth(format('%s is %snull', stellwerk.operand_sql(p_scope, v_left, null), v_not), p_place, v_place + 1);
    elsif v_word in ('true', 'false') then
      perform stellwerk.expect_truth(p_scope, v_left);
      return stellwerk.truth(format('%s is %s%s', v_left ->> 'sql', v_not, v_word), p_place, v_place + 1);
    elsif v_word = 'distinct' and stellwerk.is_word(p_scope, v_place + 1, 'from') then
      v_right := stellwerk.read_operand(p_scope, v_place + 2, p_depth);
      v_sql := stellwerk.comparison(p_scope, v_left, format('is %sdistinct from', v_not), v_right);
      return stellwerk.truth(v_sql, p_place, (v_right ->> 'next')::integer);
    end if;
    perform stellwerk.refuse_condition(p_scope, v_place, 'cannot follow is', 'There are is null, is true, is false, is distinct from, each also with not.');
  end if;
  if v_word = 'not' then
    v_not := 'not ';
    v_place := v_place + 1;
    v_word := p_scope -> 'tokens' -> v_place ->> 'text';
    if coalesce(v_word, '') not in ('in', 'between', 'like', 'ilike') then
      perform stellwerk.refuse_condition(p_scope, v_place, 'cannot follow not here');
    end if;
  end if;
  if v_word in ('like', 'ilike') then
    return stellwerk.truth(stellwerk.like_sql(p_scope, v_left, v_not || v_word, v_place + 1), p_place, v_place + 2);
  elsif v_word = 'between' then
    v_right := stellwerk.read_operand(p_scope, v_place + 1, p_depth);
    v_place := (v_right ->> 'next')::integer;
    if not stellwerk.is_word(p_scope, v_place, 'and') then
      perform stellwerk.refuse_condition(p_scope, v_place, 'stands where between needs and');
    end if;
    v_high := stellwerk.read_operand(p_scope, v_place + 1, p_depth);
    v_sql := format('(%s(%s and %s))', v_not, stellwerk.comparison(p_scope, v_left, '>=', v_right), stellwerk.comparison(p_scope, v_left, '<=', v_high));
    return stellwerk.truth(v_sql, p_place, (v_high ->> 'next')::integer);
  elsif v_word = 'in' then
    if not stellwerk.is_word(p_scope, v_place + 1, '(') then
      perform stellwerk.refuse_condition(p_scope, v_place + 1, 'stands where in needs a list', 'Write in (''a'', ''b'').');
    end if;
    loop
      v_right := stellwerk.read_operand(p_scope, v_place + 2, p_depth);
      v_parts := v_parts || stellwerk.comparison(p_scope, v_left, '=', v_right);
      v_place := (v_right ->> 'next')::integer - 1;
      exit when not stellwerk.is_word(p_scope, v_place + 1, ',');
    end loop;
    if not stellwerk.is_word(p_scope, v_place + 1, ')') then
      perform stellwerk.refuse_condition(p_scope, v_place + 1, 'stands where the list of in should go on or end');
    end if;
    return stellwerk.truth(format('(%s(%s))', v_not, array_to_string(v_parts, ' or ')), p_place, v_place + 2);
  end if;
  return v_left;
end
$$;
comment on function stellwerk.read_predicate(jsonb, integer, integer) is 'Reads a comparison, an is, like, between or in, or a single operand.';

create or replace function stellwerk.read_operand(p_scope jsonb, p_place integer, p_depth integer)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_token jsonb := p_scope -> 'tokens' -> p_place;
  v_kind  text := v_token ->> 'kind';
  v_text  text := v_token ->> 'text';
  v_tree  jsonb;
begin
  if v_kind = 'sign' and v_text = '(' then
    v_tree := stellwerk.read_condition(p_scope, p_place + 1, 'or', p_depth + 1);
    if not stellwerk.is_word(p_scope, (v_tree ->> 'next')::integer, ')') then
      perform stellwerk.refuse_condition(p_scope, (v_tree ->> 'next')::integer, 'stands where ) is needed');
    end if;
    return v_tree || jsonb_build_object('next', (v_tree ->> 'next')::integer + 1, 'place', p_place)
                  || case when v_tree ? 'literal' then '{}' else jsonb_build_object('sql', '(' || (v_tree ->> 'sql') || ')') end;
  elsif v_kind = 'text' then
    return jsonb_build_object('family', 'string', 'literal', v_text, 'sql', quote_literal(v_text), 'place', p_place, 'next', p_place + 1);
  elsif v_kind = 'number' then
    return jsonb_build_object('family', 'number', 'literal', v_text, 'sql', v_text, 'place', p_place, 'next', p_place + 1);
  elsif v_kind = 'sign' and v_text = '-' then
    if p_scope -> 'tokens' -> p_place + 1 ->> 'kind' <> 'number' then
      perform stellwerk.refuse_condition(p_scope, p_place, 'can only stand before a number', 'Arithmetic is not allowed in a condition.');
    end if;
    v_text := '-' || (p_scope -> 'tokens' -> p_place + 1 ->> 'text');
    return jsonb_build_object('family', 'number', 'literal', v_text, 'sql', format('(%s)', v_text), 'place', p_place, 'next', p_place + 2);
  elsif v_kind = 'word' and v_text in ('true', 'false') then
    return stellwerk.truth(v_text, p_place, p_place + 1);
  elsif v_kind = 'word' and v_text = 'null' then
    return jsonb_build_object('family', 'null', 'sql', 'null', 'place', p_place, 'next', p_place + 1);
  elsif v_kind = 'word' and stellwerk.is_word(p_scope, p_place + 1, '(') then
    if v_text not in ('lower', 'upper', 'coalesce', 'length') then
      perform stellwerk.refuse_condition(p_scope, p_place, 'is no function that a condition may use',
        case when v_text in ('select', 'exists', 'any', 'all', 'some') then 'Subqueries are not allowed; ask for the other rows in the workflow.'
             else 'There are lower, upper, coalesce and length.' end);
    end if;
    return stellwerk.read_function(p_scope, p_place, p_depth + 1);
  elsif v_kind = 'word' and v_text in ('select', 'with', 'values', 'table', 'case', 'array', 'row', 'any', 'all', 'exists', 'cast') then
    perform stellwerk.refuse_condition(p_scope, p_place, 'is not allowed in a condition', 'What needs more than comparisons belongs into the workflow, with logic.if.');
  elsif v_kind in ('word', 'name') then
    return stellwerk.read_column(p_scope, p_place);
  end if;
  perform stellwerk.refuse_condition(p_scope, p_place, 'stands where a column or a value is needed');
  return null;
end
$$;
comment on function stellwerk.read_operand(jsonb, integer, integer) is 'Reads a column, a literal, a function or something in parentheses.';

create or replace function stellwerk.read_column(p_scope jsonb, p_place integer)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_token     jsonb := p_scope -> 'tokens' -> p_place;
  v_place     integer := p_place;
  v_operation text := p_scope ->> 'operation';
  v_row       text := case v_operation when 'delete' then 'old' else 'new' end;
  v_column    jsonb;
  v_name      text;
begin
  if stellwerk.is_word(p_scope, p_place + 1, '.') then
    v_row := v_token ->> 'text';
    if v_token ->> 'kind' <> 'word' or v_row not in ('new', 'old') then
      perform stellwerk.refuse_condition(p_scope, p_place, 'is neither new nor old', 'Write new.column or old.column.');
    end if;
    if (v_row, v_operation) in (('old', 'insert'), ('new', 'delete')) then
      perform stellwerk.refuse_condition(p_scope, p_place, format('does not exist for %s', v_operation),
        'A column without new or old is the new row''s, for delete the old row''s. A condition over both rows is for update alone: watch the operations from two trigger.row nodes.');
    end if;
    v_place := p_place + 2;
    v_token := p_scope -> 'tokens' -> v_place;
    if v_token ->> 'kind' not in ('word', 'name') then
      perform stellwerk.refuse_condition(p_scope, v_place, format('stands where a column of %s is needed', v_row));
    end if;
  end if;
  v_name := v_token ->> 'text';  -- without quotes in small letters, as everywhere in PostgreSQL
  v_column := p_scope -> 'columns' -> v_name;
  if v_column is null then
    perform stellwerk.refuse_condition(p_scope, v_place, format('is no column of %s', p_scope ->> 'table'),
      (select format('Did you mean %I?', k.name) from jsonb_object_keys(p_scope -> 'columns') k (name)
        order by stellwerk.likeness(k.name, v_token ->> 'text') desc, k.name limit 1));
  end if;
  if (v_column ->> 'virtual')::boolean then
    perform stellwerk.refuse_condition(p_scope, v_place, 'is computed when it is read, which may fail', 'Use the columns that it is computed from.');
  end if;
  return v_column || jsonb_build_object('sql', format('%s.%I', v_row, v_name), 'column', v_name, 'place', p_place, 'next', v_place + 1);
end
$$;
comment on function stellwerk.read_column(jsonb, integer) is 'Reads a column, with or without new and old; SW006 with the nearest name for one that the table lacks.';

create or replace function stellwerk.read_function(p_scope jsonb, p_place integer, p_depth integer)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_name   text := p_scope -> 'tokens' -> p_place ->> 'text';
  v_next   integer := p_place + 1;
  v_all    jsonb[] := '{}'::jsonb[];
  v_part   jsonb;
  v_result jsonb;
begin
  loop
    v_part := stellwerk.read_operand(p_scope, v_next + 1, p_depth);
    v_all := v_all || v_part;
    v_next := (v_part ->> 'next')::integer;
    exit when not stellwerk.is_word(p_scope, v_next, ',');
  end loop;
  if not stellwerk.is_word(p_scope, v_next, ')') then
    perform stellwerk.refuse_condition(p_scope, v_next, format('stands where %s should go on or end', v_name));
  end if;
  if v_name <> 'coalesce' then
    if cardinality(v_all) <> 1 or v_part ->> 'family' not in ('text', 'string') then
      perform stellwerk.refuse_condition(p_scope, p_place, 'takes one text');
    end if;
    return jsonb_build_object('sql', format('pg_catalog.%s(%s)', v_name, v_part ->> 'sql'), 'place', p_place, 'next', v_next + 1,
                              'type_name', v_name || '()')
           || case v_name when 'length' then jsonb_build_object('family', 'int')
                          else jsonb_build_object('family', 'text', 'collation', v_part -> 'collation') end;
  end if;
  -- The widest of the families decides what literals among the values become.
  v_result := stellwerk.widest(v_all);
  foreach v_part in array v_all loop
    perform stellwerk.check_pair(p_scope, v_result, v_part, true);
    if v_part ->> 'family' = 'text' and coalesce((v_result ->> 'collation')::oid, 100) = 100 then
      v_result := v_result || jsonb_build_object('collation', v_part -> 'collation');
    end if;
  end loop;
  return v_result - 'literal' - 'column' || jsonb_build_object('place', p_place, 'next', v_next + 1, 'type_name', 'coalesce()',
    'family', case v_result ->> 'family' when 'string' then 'text' when 'number' then 'num' else v_result ->> 'family' end,
    'sql', format('coalesce(%s)', (select string_agg(stellwerk.operand_sql(p_scope, a.part, v_result), ', ' order by a.ordinality)
                                     from unnest(v_all) with ordinality a (part, ordinality))));
end
$$;
comment on function stellwerk.read_function(jsonb, integer, integer) is 'Reads lower, upper, length or coalesce with its values.';

create or replace function stellwerk.widest(p_parts jsonb[])
returns jsonb language sql immutable set search_path = '' as $$
  select p.part from unnest(p_parts) with ordinality p (part, ordinality)
   order by coalesce(array_position(array['null', 'string', 'number', 'int', 'num', 'float'], p.part ->> 'family'), 9) desc, p.ordinality
   limit 1
$$;
comment on function stellwerk.widest(jsonb[]) is 'The value whose type decides for all of a coalesce.';

create or replace function stellwerk.comparison(p_scope jsonb, p_left jsonb, p_operator text, p_right jsonb)
returns text language plpgsql immutable set search_path = '' as $$
begin
  perform stellwerk.check_pair(p_scope, p_left, p_right, false);
  return format('%s %s %s', stellwerk.operand_sql(p_scope, p_left, p_right), p_operator, stellwerk.operand_sql(p_scope, p_right, p_left));
end
$$;
comment on function stellwerk.comparison(jsonb, jsonb, text, jsonb) is 'The SQL of a comparison; SW006 where the two cannot be compared without the risk of an error.';

-- Excluded are pairs that PostgreSQL knows but may fail over when rows come: a numeric beyond a float's range,
-- texts of two collations (an error only when it runs), and times that mean another moment in each session.
create or replace function stellwerk.check_pair(p_scope jsonb, p_left jsonb, p_right jsonb, p_same boolean)
returns void language plpgsql immutable set search_path = '' as $$
declare
  v_a      text := least(p_left ->> 'family', p_right ->> 'family');
  v_b      text := greatest(p_left ->> 'family', p_right ->> 'family');
  v_names  text[] := array[coalesce(p_left ->> 'type_name', p_left ->> 'family'), coalesce(p_right ->> 'type_name', p_right ->> 'family')];
  v_column jsonb := case when p_left ? 'literal' then p_right else p_left end;
  v_text   text := coalesce(p_left ->> 'literal', p_right ->> 'literal');
begin
  if 'opaque' in (v_a, v_b) then
    perform stellwerk.refuse_condition(p_scope, (p_right ->> 'place')::integer,
      format('cannot be compared: the type %s is not one of PostgreSQL''s own simple types',
             case when p_left ->> 'family' = 'opaque' then v_names[1] else v_names[2] end),
      'Of such a column a condition can only ask is null or is not null.');
  end if;
  if v_a = v_b and v_a = 'time' and p_same and p_left ->> 'type' <> p_right ->> 'type' or not (
       v_a = v_b or 'null' in (v_a, v_b) or 'string' in (v_a, v_b)
       or (v_a, v_b) in (('int', 'num'), ('float', 'int'), ('int', 'number'), ('num', 'number'), ('float', 'number'))) then
    perform stellwerk.refuse_condition(p_scope, (p_right ->> 'place')::integer,
      format('cannot be compared here: %s and %s', v_names[1], v_names[2]),
      case when 'number' in (v_a, v_b) then 'Write the value as a text: ''5''.'
           else 'Compare columns of the same type; what needs a cast belongs into the workflow, with logic.if.' end);
  end if;
  if p_left ->> 'family' = 'text' and p_right ->> 'family' = 'text'
     and coalesce((p_left ->> 'collation')::oid, 100) not in (0, 100) and coalesce((p_right ->> 'collation')::oid, 100) not in (0, 100)
     and p_left ->> 'collation' <> p_right ->> 'collation' then
    perform stellwerk.refuse_condition(p_scope, (p_right ->> 'place')::integer, 'has another collation than what it is compared with');
  end if;
  if 'string' in (v_a, v_b) and v_column ->> 'family' = 'time' and v_text ~* '(now|today|tomorrow|yesterday)' then
    perform stellwerk.refuse_condition(p_scope, (p_right ->> 'place')::integer, 'would mean the moment at which the watch was set',
      'Give a date, or compare with now in the workflow.');
  end if;
end
$$;
comment on function stellwerk.check_pair(jsonb, jsonb, jsonb, boolean) is 'Raises SW006 for two values that cannot be compared, or (same) not be values of one coalesce.';

-- Beside a float column a number is written as a text, so that it becomes a float when the trigger is made.
create or replace function stellwerk.operand_sql(p_scope jsonb, p_operand jsonb, p_partner jsonb)
returns text language sql immutable set search_path = ''
return case when p_operand ->> 'family' = 'number' and p_partner ->> 'family' in ('float', 'string') then quote_literal(p_operand ->> 'literal')
            else p_operand ->> 'sql' end;
comment on function stellwerk.operand_sql(jsonb, jsonb, jsonb) is 'An operand as SQL, a literal so that it takes the type of its partner.';

create or replace function stellwerk.like_sql(p_scope jsonb, p_left jsonb, p_like text, p_place integer)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_pattern jsonb := p_scope -> 'tokens' -> p_place;
begin
  if v_pattern ->> 'kind' <> 'text' then
    perform stellwerk.refuse_condition(p_scope, p_place, 'stands where like needs a text', 'The pattern is a literal: new.name like ''A%''.');
  end if;
  if length(substring(v_pattern ->> 'text' from '\\*$')) % 2 = 1 then
    perform stellwerk.refuse_condition(p_scope, p_place, 'ends with a backslash that escapes nothing', 'Double the backslash to mean itself.');
  end if;
  if p_left ->> 'family' not in ('text', 'string') then
    perform stellwerk.refuse_condition(p_scope, (p_left ->> 'place')::integer, 'is no text, as like needs');
  end if;
  if exists (select from pg_collation c where c.oid = (p_left ->> 'collation')::oid and not c.collisdeterministic) then
    perform stellwerk.refuse_condition(p_scope, (p_left ->> 'place')::integer, 'has a nondeterministic collation, for which like may fail');
  end if;
  return format('%s %s %L', p_left ->> 'sql', p_like, v_pattern ->> 'text');
end
$$;
comment on function stellwerk.like_sql(jsonb, jsonb, text, integer) is 'The SQL of a like or ilike, whose pattern is a literal that cannot fail.';
