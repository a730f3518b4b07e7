-- Moving all runs that fit a filter to another version of their workflow, as a bulk operation: judged run by run, in portions.

create or replace function stellwerk.check_bulk_migration(p_tenant_id bigint, p_filter jsonb, p_options jsonb)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_slugs       text[] := array(select distinct e.value from stellwerk.bulk_values(p_filter -> 'workflow') e (value));
  v_workflow_id bigint;
  v_wrong       text;
begin
  if coalesce(cardinality(v_slugs), 0) <> 1 then
    raise exception 'the filter names no single workflow'
      using errcode = 'SW002', hint = 'Runs are moved between versions of one workflow: {"workflow": "orders"}.';
  end if;
  v_workflow_id := (stellwerk.find_workflow(p_tenant_id, v_slugs[1])).workflow_id;
  if not p_options ? 'version' then
    raise exception 'the options name no version to move to' using errcode = 'SW002', hint = 'For example {"version": 3}.';
  end if;
  perform stellwerk.version_document(p_tenant_id, v_workflow_id, (p_options ->> 'version')::integer);
  if exists (select from stellwerk.workflow_version d
              where d.tenant_id = p_tenant_id and d.workflow_id = v_workflow_id and d.version = (p_options ->> 'version')::integer
                and d.published_at is null) then
    raise exception 'runs move between published versions only, and % is a draft', p_options ->> 'version'
      using errcode = 'SW003', hint = format('stellwerk workflow publish %s', v_slugs[1]);
  end if;
  select coalesce(
      (select 'it is no object of node names' where exists (
         select from jsonb_each(p_options -> 'node_map') g where jsonb_typeof(g.value) not in ('string', 'null'))),
      (select format('it sends two nodes to %s', g.value) from jsonb_each_text(p_options -> 'node_map') g
        where g.value is not null group by g.value having count(*) > 1 limit 1),
      (select format('version %s has no node %s', p_options ->> 'version', g.value) from jsonb_each_text(p_options -> 'node_map') g
        where g.value is not null and not exists (
          select from stellwerk.plan_node n
           where n.tenant_id = p_tenant_id and n.workflow_id = v_workflow_id and n.version = (p_options ->> 'version')::integer and n.node_id = g.value)
        limit 1))
    into v_wrong where p_options ? 'node_map';
  if v_wrong is not null then
    raise exception 'the node map cannot be used: %', v_wrong using errcode = 'SW002', hint = 'Write it as {"old": "new", "gone": null}.';
  end if;
end
$$;
comment on function stellwerk.check_bulk_migration(bigint, jsonb, jsonb) is 'Raises when a bulk operation cannot move runs: no single workflow, no published version, a node map that cannot be used. Errors: SW001, SW002, SW003, SW005.';

-- The runs that are on the target version already do not belong to it; naming the others makes the filter say so itself.
create or replace function stellwerk.filter_to_migrate(p_tenant_id bigint, p_filter jsonb, p_options jsonb)
returns jsonb language sql stable set search_path = '' as $$
  select p_filter || jsonb_build_object('version', coalesce((
           select jsonb_agg(v.version order by v.version)
             from stellwerk.workflow w
             join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id and v.published_at is not null
            where w.tenant_id = p_tenant_id and w.slug in (select e.value from stellwerk.bulk_values(p_filter -> 'workflow') e (value))
              and v.version <> (p_options ->> 'version')::integer
              and (not p_filter ? 'version' or v.version::text in (select e.value from stellwerk.bulk_values(p_filter -> 'version') e (value)))),
           '[-1]'))
$$;
comment on function stellwerk.filter_to_migrate(bigint, jsonb, jsonb) is 'A filter with the published versions, other than the target, whose runs are to be moved.';

-- The map is given once for all versions; a version takes from it what it has nodes for.
create or replace function stellwerk.map_for_version(p_tenant_id bigint, p_workflow_id bigint, p_version integer, p_given jsonb)
returns jsonb language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(g.key, g.value), '{}')
    from jsonb_each(coalesce(p_given, '{}')) g
   where exists (select from stellwerk.plan_node n
                  where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.node_id = g.key)
$$;
comment on function stellwerk.map_for_version(bigint, bigint, integer, jsonb) is 'The part of a node map that names nodes of a version.';

create or replace function stellwerk.judge_bulk_runs(p_operation stellwerk.bulk_operation)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  c_told        constant integer := 50;
  v_to          integer := (p_operation.options ->> 'version')::integer;
  v_workflow_id bigint;
begin
  select w.workflow_id into v_workflow_id from stellwerk.workflow w
   where w.tenant_id = p_operation.tenant_id and w.slug in (select e.value from stellwerk.bulk_values(p_operation.filter -> 'workflow') e (value));
  return (
    with fitting as materialized (
      select p.run_id, r.version
        from stellwerk.bulk_population(p_operation.tenant_id, p_operation.action, p_operation.filter) p
       cross join lateral (select o.version from stellwerk.run o where o.tenant_id = p_operation.tenant_id and o.run_id = p.run_id offset 0) r
    ), judged as materialized (
      select j.run_id, j.verdict, j.reason
        from (select f.version, array_agg(f.run_id order by f.run_id) as run_ids from fitting f group by f.version) g
       cross join lateral stellwerk.judge_runs(p_operation.tenant_id, g.run_ids, g.version,
               stellwerk.migration_plan(p_operation.tenant_id, v_workflow_id, g.version, v_to,
                 stellwerk.map_for_version(p_operation.tenant_id, v_workflow_id, g.version, p_operation.options -> 'node_map'))) j
    )
    select jsonb_build_object(
      'counts', (select coalesce(jsonb_object_agg(c.verdict, c.count), '{}') from (select j.verdict, count(*) as count from judged j group by j.verdict) c),
      'versions', (select coalesce(jsonb_agg(distinct f.version), '[]') from fitting f),
      'left', (select coalesce(jsonb_agg(jsonb_build_object('run_id', x.run_id::text, 'verdict', x.verdict, 'reason', x.reason) order by x.run_id), '[]')
                 from (select j.* from judged j where j.verdict <> 'ok' order by j.verdict = 'blocked', j.run_id limit c_told) x)));
end
$$;
comment on function stellwerk.judge_bulk_runs(stellwerk.bulk_operation) is 'What would become of the runs that a bulk migration fits now: { counts: { verdict: number }, versions: [those that they are on], left: [the first runs that cannot move, each with its reason] }.';

create or replace function stellwerk.migrate_bulk_run(p_operation stellwerk.bulk_operation, p_run stellwerk.run)
returns void language plpgsql set search_path = '' as $$
declare
  v_to      integer := (p_operation.options ->> 'version')::integer;
  v_by      text := format('%s (bulk operation %s)', p_operation.created_by, p_operation.operation_id);
  v_map     jsonb := stellwerk.map_for_version(p_run.tenant_id, p_run.workflow_id, p_run.version, p_operation.options -> 'node_map');
  v_plan    jsonb;
  v_verdict stellwerk.run_verdict;
  v_move    stellwerk.version_move;
begin
  if p_run.version = v_to then
    raise exception 'run % is on version % already', p_run.run_id, v_to
      using errcode = 'SW003', hint = 'It was moved since the bulk operation began.';
  end if;
  v_plan := stellwerk.migration_plan(p_run.tenant_id, p_run.workflow_id, p_run.version, v_to, v_map);
  v_verdict := (stellwerk.lock_and_judge(p_run.tenant_id, array[p_run.run_id], p_run.version, v_plan))[1];
  if v_verdict.verdict <> 'ok' then
    raise exception '%', v_verdict.reason
      using errcode = 'SW003', hint = 'The dry run of migrate_runs says the same; a node map may help.';
  end if;
  -- One for all runs of a version, so that undo_migration takes them back together.
  select * into v_move from stellwerk.version_move m
   where m.tenant_id = p_run.tenant_id and m.workflow_id = p_run.workflow_id and m.from_version = p_run.version and m.to_version = v_to
     and m.started_by = v_by and m.undone_at is null
   order by m.migration_id desc limit 1;
  if v_move.migration_id is null then
    insert into stellwerk.version_move (tenant_id, workflow_id, from_version, to_version, node_map, started_by, ended_at)
    values (p_run.tenant_id, p_run.workflow_id, p_run.version, v_to, v_map, v_by, stellwerk.clock())
    returning * into v_move;
  end if;
  perform stellwerk.apply_migration(p_run.tenant_id, v_move, v_plan, array[v_verdict]);
  update stellwerk.run_migration m set judged_by = v_by
   where m.tenant_id = p_run.tenant_id and m.migration_id = v_move.migration_id and m.run_id = p_run.run_id;
end
$$;
comment on function stellwerk.migrate_bulk_run(stellwerk.bulk_operation, stellwerk.run) is 'Moves one locked run to the version of a bulk operation; SW003 with the reason where it cannot.';
