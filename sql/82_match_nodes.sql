-- Which node of one version is which node of another.
--
-- What is given wins. Then a node is the node of the same id and type. What is left over on both sides is compared by type,
-- settings and neighbours: two nodes are taken for one that was renamed when they have the same settings (and there are
-- some), or the same ways in and out, or are triggers, and no other pair is as good. Each pair found may make its neighbours recognisable,
-- so this is repeated until nothing more is found; at most once per node.

create or replace function stellwerk.match_nodes(p_tenant_id bigint, p_workflow_id bigint, p_a integer, p_b integer, p_given jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_map   jsonb := p_given;
  v_found jsonb;
begin
  select v_map || coalesce(jsonb_object_agg(o.node_id, o.node_id), '{}') into v_map
    from stellwerk.version_nodes(p_tenant_id, p_workflow_id, p_a) o
    join stellwerk.version_nodes(p_tenant_id, p_workflow_id, p_b) n on n.node_id = o.node_id and n.type = o.type
   where not p_given ? o.node_id and not exists (select from jsonb_each_text(p_given) g where g.value = n.node_id);
  loop
    v_found := stellwerk.guess_renames(p_tenant_id, p_workflow_id, p_a, p_b, v_map);
    exit when v_found = '{}';
    v_map := v_map || v_found;
  end loop;
  return v_map;
end
$$;
comment on function stellwerk.match_nodes(bigint, bigint, integer, integer, jsonb) is 'Which node of version a is which of version b: { a''s node: b''s node }. What is given wins; null there says that a node has no counterpart.';

create or replace function stellwerk.guess_renames(p_tenant_id bigint, p_workflow_id bigint, p_a integer, p_b integer, p_map jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
begin
  return (
    with taken as materialized (select x.value as node_id from jsonb_each_text(p_map) x where x.value is not null),
         old as materialized (
           select o.node_id, o.type, s.settings, w.ins, w.outs
             from stellwerk.version_nodes(p_tenant_id, p_workflow_id, p_a) o
            cross join lateral stellwerk.settings_of(o.fields, p_map) s (settings)
             left join stellwerk.known_neighbours(stellwerk.version_document(p_tenant_id, p_workflow_id, p_a), p_map) w
               on w.node_id = o.node_id
            where not p_map ? o.node_id),
         new as materialized (
           select n.node_id, n.type, s.settings, w.ins, w.outs
             from stellwerk.version_nodes(p_tenant_id, p_workflow_id, p_b) n
            cross join lateral stellwerk.settings_of(n.fields, '{}') s (settings)
             left join stellwerk.known_neighbours(stellwerk.version_document(p_tenant_id, p_workflow_id, p_b),
                                                  (select coalesce(jsonb_object_agg(t.node_id, t.node_id), '{}') from taken t)) w
               on w.node_id = n.node_id
            where n.node_id not in (select t.node_id from taken t)),
         scored as (
           select o.node_id as old_id, n.node_id as new_id,
                  case when o.settings = n.settings then 2 else 0 end + case when o.ins = n.ins then 1 else 0 end
                  + case when o.outs = n.outs then 1 else 0 end
                  -- Triggers have few settings and nothing before them.
                  + case when o.type like 'trigger.%' then 2 else 0 end as score
             from old o join new n on n.type = o.type),
         ranked as (
           select s.*, count(*) filter (where s.score >= 2) over (partition by s.old_id, s.score) as as_good_for_old,
                  count(*) filter (where s.score >= 2) over (partition by s.new_id, s.score) as as_good_for_new,
                  max(s.score) over (partition by s.old_id) as best_for_old, max(s.score) over (partition by s.new_id) as best_for_new
             from scored s)
    select coalesce(jsonb_object_agg(r.old_id, r.new_id), '{}')
      from ranked r
     where r.score >= 2 and r.score = r.best_for_old and r.score = r.best_for_new and r.as_good_for_old = 1 and r.as_good_for_new = 1);
end
$$;
comment on function stellwerk.guess_renames(bigint, bigint, integer, integer, jsonb) is 'Nodes of version a that seem to have another name in version b, beyond those of a mapping: { a''s node: b''s node }.';

create or replace function stellwerk.settings_of(p_fields jsonb, p_map jsonb)
returns jsonb language sql immutable set search_path = '' as $$
  select jsonb_object_agg(f.key, stellwerk.with_new_names(f.value -> 0, p_map))
           filter (where f.key like 'config.%' and f.value -> 1 <> 'null')
    from jsonb_each(p_fields) f
$$;
comment on function stellwerk.settings_of(jsonb, jsonb) is 'What a node''s settings mean, under the names of a mapping; null when it has none.';

create or replace function stellwerk.known_neighbours(p_document jsonb, p_map jsonb)
returns table (node_id text, ins text[], outs text[]) language sql immutable set search_path = '' as $$
  -- Ways to nodes that are not known yet say nothing; a node with no known way in (or out) is like no other.
  select e.node_id, array_agg(e.way order by e.way) filter (where e.comes and e.way is not null),
         case when count(*) filter (where not e.comes) = 0 then '{}'
              else array_agg(e.way order by e.way) filter (where not e.comes and e.way is not null) end
    from (select d.target as node_id, true as comes, (p_map ->> d.source) || ' ' || d.port as way
            from stellwerk.document_edges(p_document) d
          union
          select d.source, false, d.port || ' ' || (p_map ->> d.target) from stellwerk.document_edges(p_document) d) e
   group by e.node_id
$$;
comment on function stellwerk.known_neighbours(jsonb, jsonb) is 'The ways into and out of each node, from and to nodes that a mapping knows, under its names.';

create or replace function stellwerk.propose_node_map(slug text, from_version integer, to_version integer, node_map jsonb default '{}')
returns table (node_id text, type text, to_node text, how text) language plpgsql stable set search_path = '' as $$
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint := (stellwerk.find_workflow(v_tenant_id, slug)).workflow_id;
  v_map         jsonb;
begin
  perform stellwerk.check_migration(v_tenant_id, v_workflow_id, from_version, to_version, node_map);
  v_map := stellwerk.match_nodes(v_tenant_id, v_workflow_id, from_version, to_version, node_map);
  return query
    select n.node_id, n.type, v_map ->> n.node_id,
           case when node_map ? n.node_id then 'given' when v_map ->> n.node_id = n.node_id then 'same'
                when v_map ->> n.node_id is not null then 'renamed' else 'none' end
      from stellwerk.plan_node n
     where n.tenant_id = v_tenant_id and n.workflow_id = v_workflow_id and n.version = from_version
     order by n.position;
end
$$;
comment on function stellwerk.propose_node_map(text, integer, integer, jsonb) is 'Which node of one version migrate_runs takes for which of another: a row per node of the old version, its node in the new one, and how that was found: given (in node_map), same (name and type), renamed (it seems to be), none. Errors: as migrate_runs.';
