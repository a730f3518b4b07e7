-- What is different between two versions of a workflow, and which node of one is which node of the other.
--
-- Two settings are the same when they mean the same to the compiled plan: an expression that is only spelled differently,
-- a default that is written out or the place of a node on the drawing makes no difference.

create or replace function stellwerk.diff_versions(slug text, a integer, b integer)
returns table (kind text, node_id text, field text, before jsonb, after jsonb, was text)
language plpgsql stable set search_path = '' as $$
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint := (stellwerk.find_workflow(v_tenant_id, slug)).workflow_id;
  v_old         jsonb := stellwerk.version_document(v_tenant_id, v_workflow_id, a);
  v_new         jsonb := stellwerk.version_document(v_tenant_id, v_workflow_id, b);
  v_map         jsonb := stellwerk.match_nodes(v_tenant_id, v_workflow_id, a, b, '{}');
begin
  return query
    select * from stellwerk.diff_frames(v_old, v_new)
    union all
    (select d.kind, d.node_id, d.field, d.before, d.after, d.was
       from stellwerk.diff_nodes(v_tenant_id, v_workflow_id, a, b, v_map) d
      order by d.position, d.node_id, array_position(array['node_added', 'node_removed', 'node_renamed', 'type_changed'], d.kind), d.field)
    union all
    select * from stellwerk.diff_edges(v_old, v_new, v_map);
end
$$;
comment on function stellwerk.diff_versions(text, integer, integer) is 'What differs from version a to version b of a workflow, drafts included: kind (workflow, setting, input_schema, node_added, node_removed, node_renamed, type_changed, field, expression, layout, edge_added, edge_removed), the node (by its name in b, or in a if it is gone), the field, its value before and after, and what the node was called in a if b seems to have renamed it. An edge''s field is its port, before and after its target. Errors: SW001, SW005 for a version that does not exist.';

create or replace function stellwerk.version_document(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_document jsonb;
begin
  select d.document into v_document from stellwerk.workflow_version d
   where d.tenant_id = p_tenant_id and d.workflow_id = p_workflow_id and d.version = p_version;
  if v_document is null then
    raise exception 'workflow % has no version %', quote_literal(stellwerk.slug_of(p_tenant_id, p_workflow_id)),
                    coalesce(p_version::text, 'null')
      using errcode = 'SW005', hint = 'select version, published_at from stellwerk.workflow_version lists them.';
  end if;
  return v_document;
end
$$;
comment on function stellwerk.version_document(bigint, bigint, integer) is 'The document of a version; SW005 when there is none.';

-- The document's frame: everything but nodes and edges.
create or replace function stellwerk.diff_frames(p_old jsonb, p_new jsonb)
returns table (kind text, node_id text, field text, before jsonb, after jsonb, was text)
language plpgsql immutable set search_path = '' as $$
begin
  return query
  select case when o.part = 'settings' or n.part = 'settings' then 'setting'
              when coalesce(o.part, n.part) = 'input_schema' then 'input_schema' else 'workflow' end,
         null::text, coalesce(o.label, n.label), o.value, n.value, null::text
    from (select p.part, f.* from unnest(array['name', 'description', 'settings', 'input_schema']) p (part)
           cross join lateral stellwerk.leaves(p_old -> p.part, p.part) f) o
    full join (
      select p.part, f.* from unnest(array['name', 'description', 'settings', 'input_schema']) p (part)
       cross join lateral stellwerk.leaves(p_new -> p.part, p.part) f) n on n.label = o.label
   where stellwerk.squeezed(o.value) is distinct from stellwerk.squeezed(n.value)
   order by array_position(array['name', 'description', 'settings', 'input_schema'], coalesce(o.part, n.part)), coalesce(o.label, n.label);
end
$$;
comment on function stellwerk.diff_frames(jsonb, jsonb) is 'What differs between two documents beside nodes and edges.';

create or replace function stellwerk.diff_nodes(p_tenant_id bigint, p_workflow_id bigint, p_a integer, p_b integer, p_map jsonb)
returns table (kind text, node_id text, field text, before jsonb, after jsonb, was text, "position" bigint)
language plpgsql stable set search_path = '' as $$
begin
  return query
    with old as materialized (select * from stellwerk.version_nodes(p_tenant_id, p_workflow_id, p_a)),
         new as materialized (select * from stellwerk.version_nodes(p_tenant_id, p_workflow_id, p_b)),
         pair as materialized (
           select o.node_id as old_id, n.node_id as new_id, o.type as old_type, n.type as new_type, o.fields as old_fields,
                  n.fields as new_fields, n.position
             from old o
             -- A node that keeps its name but not its type is still told as one.
             join new n on n.node_id = coalesce(p_map ->> o.node_id, case when not exists (
                                                  select from jsonb_each_text(p_map) x where x.value = o.node_id) then o.node_id end))
    select 'node_added', n.node_id, null, null, n.document, null, n.position from new n
     where not exists (select from pair p where p.new_id = n.node_id)
    union all
    select 'node_removed', o.node_id, null, o.document, null, null, o.position from old o
     where not exists (select from pair p where p.old_id = o.node_id)
    union all
    select 'node_renamed', p.new_id, null, to_jsonb(p.old_id), to_jsonb(p.new_id), p.old_id, p.position
      from pair p where p.old_id <> p.new_id
    union all
    select 'type_changed', p.new_id, 'type', to_jsonb(p.old_type), to_jsonb(p.new_type), null, p.position
      from pair p where p.old_type <> p.new_type
    union all
    select case when f.label = 'ui' then 'layout' when (f.old -> 2 = 'true') or (f.new -> 2 = 'true') then 'expression' else 'field' end,
           p.new_id, f.label, f.old -> 1, f.new -> 1, case when p.old_id <> p.new_id then p.old_id end, p.position
      from pair p
     cross join lateral (
       select coalesce(x.key, y.key) as label, x.value as old, y.value as new
         from jsonb_each(p.old_fields) x full join jsonb_each(p.new_fields) y on y.key = x.key
        where stellwerk.with_new_names(x.value -> 0, p_map) is distinct from y.value -> 0
          and not (coalesce(x.key, y.key) like '% (order)' and stellwerk.same_order(x.value -> 0, y.value -> 0))) f;
end
$$;
comment on function stellwerk.diff_nodes(bigint, bigint, integer, integer, jsonb) is 'What differs between the nodes of two versions, given which node is which.';

create or replace function stellwerk.same_order(p_old jsonb, p_new jsonb)
returns boolean language sql immutable set search_path = '' as $$
  select (select jsonb_agg(o.value order by o.ordinality) from jsonb_array_elements(p_old) with ordinality o
           where p_new @> jsonb_build_array(o.value))
         is not distinct from
         (select jsonb_agg(n.value order by n.ordinality) from jsonb_array_elements(p_new) with ordinality n
           where p_old @> jsonb_build_array(n.value))
$$;
comment on function stellwerk.same_order(jsonb, jsonb) is 'Whether what two arrays have in common has the same order in both.';

create or replace function stellwerk.diff_edges(p_old jsonb, p_new jsonb, p_map jsonb)
returns table (kind text, node_id text, field text, before jsonb, after jsonb, was text)
language plpgsql immutable set search_path = '' as $$
begin
  return query
  select case when o.source is null then 'edge_added' else 'edge_removed' end, coalesce(n.source, o.source), coalesce(n.port, o.port),
         to_jsonb(o.target), to_jsonb(n.target), null::text
    from (select distinct coalesce(p_map ->> e.source, e.source) as source, e.port, coalesce(p_map ->> e.target, e.target) as target
            from stellwerk.document_edges(p_old) e) o
    full join (select distinct e.* from stellwerk.document_edges(p_new) e) n
      on n.source = o.source and n.port = o.port and n.target = o.target
   where o.source is null or n.source is null
   order by 2, 3, 1 desc, 4, 5;
end
$$;
comment on function stellwerk.diff_edges(jsonb, jsonb, jsonb) is 'The edges that one of two documents has and the other has not; edges of renamed nodes count as the same.';

create or replace function stellwerk.document_edges(p_document jsonb)
returns table (source text, port text, target text) language sql immutable set search_path = '' as $$
  select e.value ->> 'from', coalesce(e.value ->> 'port', 'next'), e.value ->> 'to'
    from jsonb_array_elements(case when jsonb_typeof(p_document -> 'edges') = 'array' then p_document -> 'edges' else '[]' end) e (value)
   where jsonb_typeof(e.value) = 'object'
$$;
comment on function stellwerk.document_edges(jsonb) is 'The edges of a document, with the port that is meant where none is written.';

-- Objects are taken apart, lists of objects too, by their port where each has one of its own; lists of plain values are one value.
create or replace function stellwerk.leaves(p_value jsonb, p_label text, p_at text[] default '{}')
returns table (label text, at text[], value jsonb) language plpgsql immutable set search_path = '' as $$
declare
  v_by_port boolean;
begin
  if p_value is null or p_value = 'null' then
    return;
  end if;
  if jsonb_typeof(p_value) = 'object' and p_value <> '{}' then
    return query
      select l.* from jsonb_each(p_value) e
       cross join lateral stellwerk.leaves(e.value, concat_ws('.', p_label, e.key), p_at || e.key) l;
  elsif jsonb_typeof(p_value) = 'array' and jsonb_path_exists(p_value, 'strict $[*] ? (@.type() == "object" || @.type() == "array")') then
    select count(distinct e.value ->> 'port') = count(*) into v_by_port from jsonb_array_elements(p_value) e (value);
    return query
      select l.* from jsonb_array_elements(p_value) with ordinality e (value, number)
       cross join lateral stellwerk.leaves(
         e.value, p_label || '[' || case when v_by_port then e.value ->> 'port' else (e.number - 1)::text end || ']',
         p_at || (e.number - 1)::text) l;
    -- The first case that holds wins, so their order matters.
    if v_by_port then
      return query select p_label || ' (order)', p_at, jsonb_path_query_array(p_value, '$[*].port');
    end if;
  else
    return query select p_label, p_at, p_value;
  end if;
end
$$;
comment on function stellwerk.leaves(jsonb, text, text[]) is 'A JSON value as its innermost parts, each with a label for people and its path; null counts as absent.';

create or replace function stellwerk.squeezed(p_value jsonb)
returns jsonb language sql immutable parallel safe set search_path = '' as $$
  select case when jsonb_typeof(p_value) = 'string' and p_value #>> '{}' like '%{{%'
              then to_jsonb(btrim(regexp_replace(p_value #>> '{}', '\s+', ' ', 'g'))) else p_value end
$$;
comment on function stellwerk.squeezed(jsonb) is 'A text that holds an expression with its runs of white space as one space; any other value as it is.';

-- The condition of a trigger.row is not compiled with the plan: it is compared word by word.
create or replace function stellwerk.spelled_alike(p_condition jsonb)
returns jsonb language plpgsql immutable set search_path = '' as $$
begin
  return (select jsonb_agg(jsonb_build_array(t.value -> 'kind', t.value -> 'text') order by t.ordinality)
            from jsonb_array_elements(stellwerk.condition_tokens(p_condition #>> '{}')) with ordinality t (value, ordinality));
exception when others then
  return p_condition;  -- a draft's, with an error in it
end
$$;
comment on function stellwerk.spelled_alike(jsonb) is 'A condition as its words and signs, the same for all ways to space it; as it is when it cannot be read.';

-- Each node with its fields: { label: [what it means, what is written, whether it is an expression] }.
create or replace function stellwerk.version_nodes(p_tenant_id bigint, p_workflow_id bigint, p_version integer)
returns table (node_id text, type text, document jsonb, fields jsonb, "position" bigint) language plpgsql stable set search_path = '' as $$
begin
  return query
    select distinct on (e.value ->> 'id') e.value ->> 'id', e.value ->> 'type', e.value, coalesce(f.fields, '{}'), e.number
      from stellwerk.workflow_version d
     cross join lateral jsonb_array_elements(
                  case when jsonb_typeof(d.document -> 'nodes') = 'array' then d.document -> 'nodes' else '[]' end)
                with ordinality e (value, number)
      -- A draft may hold nodes that could not be compiled; those are compared as they are written.
      left join stellwerk.plan_node n
        on n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.node_id = e.value ->> 'id'
      left join lateral (
        select jsonb_object_agg(x.label, jsonb_build_array(x.meaning, x.shown, x.is_expression)) as fields
          from (select c.* from stellwerk.config_fields(e.value -> 'config', n) c
                union all
                select c.* from stellwerk.node_fields(e.value, n) c) x) f on true
     where d.tenant_id = p_tenant_id and d.workflow_id = p_workflow_id and d.version = p_version and jsonb_typeof(e.value) = 'object'
       and e.value ->> 'id' is not null
     order by e.value ->> 'id', e.number;
end
$$;
comment on function stellwerk.version_nodes(bigint, bigint, integer) is 'The nodes of a version: id, type, what is written, and every field with its meaning in the compiled plan.';

create or replace function stellwerk.config_fields(p_config jsonb, p_node stellwerk.plan_node)
returns table (label text, meaning jsonb, shown jsonb, is_expression boolean) language sql stable set search_path = '' as $$
  select l.label,
         coalesce(
           case when l.at[1] = 'cases' and l.at[3] = 'when' and p_node.cases is not null then
                  (select c.value -> 'tree' from jsonb_array_elements(p_node.cases) c (value)
                    where c.value ->> 'port' = 'case:' || (p_config -> 'cases' -> l.at[2]::integer ->> 'port'))
                when l.is_condition then coalesce(p_node.condition -> 'tree', stellwerk.spelled_alike(l.value)) end,
           case when l.dynamic is not null then jsonb_build_array(p_node.config #> l.at, l.dynamic) end,
           stellwerk.squeezed(l.value)),
         l.value, l.dynamic is not null or l.is_condition or l.value #>> '{}' like '%{{%'
    from (select f.*, d.dynamic, f.at[cardinality(f.at)] in ('condition', 'complete_when', 'when') as is_condition
            -- Defaults first, then what is written.
            from stellwerk.leaves(coalesce(p_node.config, '{}') || coalesce(nullif(p_config, 'null'), '{}'), 'config') f
           cross join lateral (
             select jsonb_agg(x.value order by x.value -> 'at') as dynamic
               from jsonb_array_elements(p_node.dynamic) x (value)
              where (array(select jsonb_array_elements_text(x.value -> 'at')))[:cardinality(f.at)] = f.at) d) l
$$;
comment on function stellwerk.config_fields(jsonb, stellwerk.plan_node) is 'The settings of a node as fields; without a compiled node they mean what is written.';

create or replace function stellwerk.node_fields(p_document jsonb, p_node stellwerk.plan_node)
returns table (label text, meaning jsonb, shown jsonb, is_expression boolean) language sql stable set search_path = '' as $$
  select f.label, coalesce(f.planned, f.written), coalesce(f.written, f.planned), false
    from (values
      ('name', null::jsonb, p_document -> 'name'),
      ('description', null, p_document -> 'description'),
      ('ui', null, p_document -> 'ui'),
      ('retry.max_attempts', to_jsonb(p_node.max_attempts), p_document -> 'retry' -> 'max_attempts'),
      ('retry.interval', p_node.retry -> 'interval', p_document -> 'retry' -> 'interval'),
      ('retry.backoff', p_node.retry -> 'backoff', p_document -> 'retry' -> 'backoff'),
      ('retry.max_interval', p_node.retry -> 'max_interval', p_document -> 'retry' -> 'max_interval'),
      ('retry.jitter', p_node.retry -> 'jitter', p_document -> 'retry' -> 'jitter'),
      -- A wait's timeout may stand among its settings, where it is compared already.
      ('timeout', case when p_document -> 'timeout' is not null or p_document -> 'config' -> 'timeout' is null
                       then to_jsonb(p_node.timeout) end,
       p_document -> 'timeout'),
      ('on_error', to_jsonb(p_node.on_error), p_document -> 'on_error'),
      -- Written as expressions name nodes, so that a new name is recognised.
      ('compensate', jsonb_build_array('steps', coalesce(p_node.compensate, p_document ->> 'compensate')), p_document -> 'compensate'),
      ('max_visits', to_jsonb(p_node.max_visits), p_document -> 'max_visits')) f (label, planned, written)
   where coalesce(nullif(f.written, 'null'), f.planned) is not null
     and (f.label <> 'compensate' or nullif(f.written, 'null') is not null)
$$;
comment on function stellwerk.node_fields(jsonb, stellwerk.plan_node) is 'What a node has beside its settings, as fields.';

-- Nodes are named in compiled expressions as "steps", "name".
create or replace function stellwerk.with_new_names(p_meaning jsonb, p_map jsonb)
returns jsonb language plpgsql immutable set search_path = '' as $$
declare
  v_text text := p_meaning::text;
  v_pair record;
begin
  if v_text is null or strpos(v_text, '"steps", "') = 0 then
    return p_meaning;
  end if;
  -- Marked first, so that two nodes may exchange their names.
  for v_pair in select m.key, m.value from jsonb_each_text(p_map) m where m.value <> m.key loop
    v_text := replace(v_text, '"steps", ' || to_json(v_pair.key), '"steps→", ' || to_json(v_pair.value));
  end loop;
  return replace(v_text, '"steps→", ', '"steps", ')::jsonb;
end
$$;
comment on function stellwerk.with_new_names(jsonb, jsonb) is 'What a compiled setting means when the nodes that it reads have the names of a mapping { old: new }.';
