-- Conditions of watches: a small part of SQL, read word by word and written out anew for a trigger's WHEN.
--
-- A WHEN that raises would break the write of an application, so nothing is admitted that could: columns, literals,
-- comparison, and/or/not, in, between, is null, is true, is distinct from, like and ilike, lower, upper, coalesce, length.
-- Names are quoted, literals are typed by the column beside them when the trigger is made (never when it fires),
-- and only types of PostgreSQL itself and enums are compared, because operators of other types may be anybody's code.

create or replace function stellwerk.compile_condition(p_target regclass, p_operation text, p_condition text)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_scope jsonb;
  v_tree  jsonb;
begin
  v_scope := jsonb_build_object('operation', p_operation, 'table', p_target::text,
                                'tokens', stellwerk.condition_tokens(p_condition), 'columns', stellwerk.condition_columns(p_target));
  v_tree := stellwerk.read_condition(v_scope, 0, 'or', 0);
  if v_scope #>> array['tokens', v_tree ->> 'next', 'kind'] <> 'end' then
    perform stellwerk.refuse_condition(v_scope, (v_tree ->> 'next')::integer, 'is not expected here');
  end if;
  perform stellwerk.expect_truth(v_scope, v_tree);
  return v_tree ->> 'sql';
end
$$;
comment on function stellwerk.compile_condition(regclass, text, text) is 'The WHEN text of a condition for one operation (insert, update, delete) on a table. A bare column means the new row, for delete the old one. SW006 with the position for anything that is not admitted.';

create or replace function stellwerk.condition_tokens(p_condition text)
returns jsonb language plpgsql immutable set search_path = '' as $$
declare
  c_max_length constant integer := 4000;
  v_tokens jsonb[] := '{}'::jsonb[];
  v_at     integer := 1;
  v_rest   text;
  v_text   text;
  v_kind   text;
begin
  if length(p_condition) > c_max_length then
    raise exception 'the condition has % characters, more than the limit of %', length(p_condition), c_max_length
      using errcode = 'SW006', hint = 'Test the rest in the workflow, with logic.if.';
  end if;
  loop
    v_at := v_at + length(substring(substr(p_condition, v_at) from '^\s*'));
    v_rest := substr(p_condition, v_at);
    exit when v_rest = '';
    v_text := substring(v_rest from '^[[:alpha:]_][[:alnum:]_$]*');
    v_kind := 'word';
    if v_text is not null and substr(v_rest, length(v_text) + 1, 1) = '''' or v_rest ~* '^u&["'']' then
      perform stellwerk.refuse_at(v_at, 'texts with a prefix are not allowed in a condition', 'Write a plain text: ''it''''s''.');
    end if;
    if v_text is null then
      v_text := substring(v_rest from '^(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?(?![[:alnum:]_.])');
      v_kind := 'number';
    end if;
    if v_text is null then
      v_text := substring(v_rest from '^''(?:[^'']|'''')*''');
      v_kind := 'text';
    end if;
    if v_text is null then
      v_text := substring(v_rest from '^"(?:[^"]|"")+"');
      v_kind := 'name';
    end if;
    if v_text is null then
      v_text := substring(v_rest from '^(?:<=|>=|<>|!=|--|/\*|::|\|\||[=<>(),.-])');
      v_kind := 'sign';
    end if;
    if v_text is null or v_text in ('--', '/*', '::', '||') then
      perform stellwerk.refuse_at(v_at,
        case when v_text in ('--', '/*') then 'comments are not allowed in a condition'
             when v_text = '::' then 'casts are not allowed in a condition'
             when left(v_rest, 1) = '''' then 'this text has no end'
             when left(v_rest, 1) = ';' then 'a condition ends without a semicolon'
             when left(v_rest, 1) = '$' then 'dollar quotes and parameters are not allowed in a condition'
             when v_rest ~ '^[-+*/%^]' then 'arithmetic is not allowed in a condition'
             when v_rest ~ '^[0-9.]' then 'this is no number'
             else format('%L is not allowed in a condition', coalesce(v_text, left(v_rest, 1))) end,
        'A condition has columns, literals, = <> < <= > >=, and, or, not, in, between, is null, is distinct from, like, lower, upper, coalesce, length. What needs more belongs into the workflow, with logic.if.');
    end if;
    if v_kind = 'number' and length(v_text) > 40 then
      perform stellwerk.refuse_at(v_at, 'a number has at most 40 characters', null);
    end if;
    v_tokens := v_tokens || jsonb_build_object('kind', v_kind, 'at', v_at, 'written', v_text, 'text',
      case v_kind when 'word' then lower(v_text)
                  when 'text' then replace(substr(v_text, 2, length(v_text) - 2), '''''', '''')
                  when 'name' then replace(substr(v_text, 2, length(v_text) - 2), '""', '"')
                  else v_text end);
    v_at := v_at + length(v_text);
  end loop;
  if cardinality(v_tokens) = 0 then
    perform stellwerk.refuse_at(1, 'the condition is empty', 'Leave it out to capture every row.');
  end if;
  return to_jsonb(v_tokens || jsonb_build_object('kind', 'end', 'at', v_at, 'written', '', 'text', ''));
end
$$;
comment on function stellwerk.condition_tokens(text) is 'A condition as an array of words, names, numbers, texts and signs with their positions (from 1).';

-- A column's family says what it may be compared with: int, num, float, text, time and bool know each other as PostgreSQL
-- does where that cannot raise; other types know only themselves; opaque ones can only be null or not.
create or replace function stellwerk.condition_columns(p_target regclass)
returns jsonb language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(a.attname, jsonb_build_object(
           'number', a.attnum, 'type', t.oid, 'type_name', format_type(a.atttypid, a.atttypmod), 'collation', a.attcollation,
           'virtual', a.attgenerated = 'v',
           'family', case when t.oid = any ('{int2,int4,int8}'::regtype[]) then 'int'
                          when t.oid = 'numeric'::regtype then 'num'
                          when t.oid = any ('{float4,float8}'::regtype[]) then 'float'
                          when t.oid = any ('{text,varchar,bpchar,name}'::regtype[]) then 'text'
                          when t.oid = any ('{date,timestamp,timestamptz}'::regtype[]) then 'time'
                          when t.oid = 'bool'::regtype then 'bool'
                          when t.typtype = 'e' or t.oid = any ('{uuid,time,timetz,interval,bytea,inet,cidr,macaddr,macaddr8,oid,money}'::regtype[])
                            then 'type ' || t.oid
                          else 'opaque' end)), '{}')
    from pg_attribute a
   cross join lateral (
     with recursive base (oid) as (
       select a.atttypid
       union all
       select d.typbasetype from base b join pg_type d on d.oid = b.oid and d.typtype = 'd')
     select y.oid, y.typtype from base b join pg_type y on y.oid = b.oid and y.typtype <> 'd') t
   where a.attrelid = p_target and a.attnum > 0 and not a.attisdropped
$$;
comment on function stellwerk.condition_columns(regclass) is 'The columns of a table by name, with number, type behind domains, collation and family.';

create or replace function stellwerk.refuse_at(p_at integer, p_message text, p_hint text)
returns void language plpgsql stable set search_path = '' as $$
begin
  raise exception 'condition, character %: %', p_at, p_message
    using errcode = 'SW006', hint = coalesce(p_hint, 'A condition compares columns with literals, such as new.status = ''paid'' and new.total > 100.');
end
$$;
comment on function stellwerk.refuse_at(integer, text, text) is 'Raises SW006 for a place of a condition.';

create or replace function stellwerk.refuse_condition(p_scope jsonb, p_place integer, p_message text, p_hint text default null)
returns void language plpgsql immutable set search_path = '' as $$
declare
  v_token jsonb := p_scope -> 'tokens' -> p_place;
begin
  perform stellwerk.refuse_at((v_token ->> 'at')::integer,
    format('%s %s', case v_token ->> 'kind' when 'end' then 'the end' else left(v_token ->> 'written', 60) end, p_message), p_hint);
end
$$;
comment on function stellwerk.refuse_condition(jsonb, integer, text, text) is 'Raises SW006 for a token of a condition.';

create or replace function stellwerk.expect_truth(p_scope jsonb, p_tree jsonb)
returns void language plpgsql immutable set search_path = '' as $$
begin
  if p_tree ->> 'family' not in ('bool', 'null') then
    perform stellwerk.refuse_condition(p_scope, (p_tree ->> 'place')::integer, 'is not true or false', 'Compare it with something.');
  end if;
end
$$;
comment on function stellwerk.expect_truth(jsonb, jsonb) is 'Raises SW006 for a part of a condition that is a value where true or false is needed.';
