-- Settings of a node with their dynamic places filled in. Values that come from outside are put in as they are:
-- nothing that render() writes is ever read as an expression again.

create or replace function stellwerk.render(p_config jsonb, p_dynamic jsonb, p_context jsonb)
returns jsonb language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_config jsonb := p_config;
  v_place  jsonb;
  v_path   jsonb;
  v_value  jsonb;
begin
  if p_dynamic is null then
    return v_config;
  end if;
  for v_index in 0 .. jsonb_array_length(p_dynamic) - 1 loop
    v_place := p_dynamic -> v_index;
    v_path := v_place -> 'path';
    if v_path is not null then
      v_value := case jsonb_array_length(v_path)
        when 1 then p_context -> (v_path ->> 0)
        when 2 then p_context -> (v_path ->> 0) -> (v_path ->> 1)
        when 3 then p_context -> (v_path ->> 0) -> (v_path ->> 1) -> (v_path ->> 2)
        when 4 then p_context -> (v_path ->> 0) -> (v_path ->> 1) -> (v_path ->> 2) -> (v_path ->> 3)
        else stellwerk.deep_context_value('["path"]' || v_path, p_context)
      end;
    elsif v_place ? 'expr' then
      v_value := stellwerk.evaluate(v_place -> 'expr', p_context);
    else
      v_value := to_jsonb(stellwerk.render_text(v_place -> 'text', p_context));
    end if;
    v_value := coalesce(v_value, 'null');
    v_path := v_place -> 'at';
    v_config := case jsonb_array_length(v_path)
      when 0 then v_value
      when 1 then jsonb_set(v_config, array[v_path ->> 0], v_value)
      when 2 then jsonb_set(v_config, array[v_path ->> 0, v_path ->> 1], v_value)
      else jsonb_set(v_config, stellwerk.text_array(v_path), v_value)
    end;
  end loop;
  return v_config;
end
$$;

comment on function stellwerk.render(jsonb, jsonb, jsonb) is
  'A node''s settings with the dynamic places [{"at", "path" | "expr" | "text"}] filled in from the context; null where a value is null.';

create or replace function stellwerk.render_text(p_parts jsonb, p_context jsonb)
returns text language plpgsql stable parallel safe set search_path = '' as $$
declare
  v_text text := '';
  v_part jsonb;
begin
  for v_index in 0 .. jsonb_array_length(p_parts) - 1 loop
    v_part := p_parts -> v_index;
    if jsonb_typeof(v_part) = 'string' then
      v_text := v_text || (v_part #>> '{}');
    else
      v_part := stellwerk.operand(v_part, p_context);
      v_text := v_text || coalesce(v_part #>> '{}', '');
    end if;
    if octet_length(v_text) > 1048576 then
      perform stellwerk.refuse_long_text();
    end if;
  end loop;
  return v_text;
end
$$;

comment on function stellwerk.render_text(jsonb, jsonb) is
  'A text of literal parts and expression trees put together: null becomes empty, objects and lists their JSON text. At most 1 MB.';

create or replace function stellwerk.text_array(p_list jsonb)
returns text[] language sql immutable strict parallel safe set search_path = ''
return array(select element from pg_catalog.jsonb_array_elements_text(p_list) with ordinality as item (element, place) order by place);

comment on function stellwerk.text_array(jsonb) is 'A JSON list of texts as an SQL array.';
