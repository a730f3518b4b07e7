-- Moving live runs to another version of their workflow.
--
-- A run moves when each of its live tokens finds the node of the new version on which it stands from then on, of the same
-- type and within the same loops. The token keeps its step, its attempt, its timer and its queue row; only the names
-- of node and version change. So an attempt that a worker is making while its run moves stays valid: it is fenced by its
-- number, and its result is taken for the node under its new name and goes on by the edges of the new version. Whoever ends
-- it locks the run first, so it sees the run as it was or as it is, never half of each.

create or replace function stellwerk.migrate_runs(
  slug text, from_version integer, to_version integer, node_map jsonb default '{}', dry_run boolean default true,
  batch integer default null, continue_with bigint default null)
returns table (run_id bigint, verdict text, reason text, mapping jsonb, migration_id bigint)
language plpgsql security definer  -- callers have no right to write the tables
-- Plans may be made while the tables are empty: they must not scan them for ever.
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  c_slice constant integer := 500;
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint := (stellwerk.find_workflow(v_tenant_id, slug)).workflow_id;
  v_plan        jsonb;
  v_move        stellwerk.version_move;
  v_run_ids     bigint[];
  v_slice       bigint[];
  v_verdicts    stellwerk.run_verdict[];
  v_left        integer := coalesce(batch, 10000);
  v_judged      integer := 0;
begin
  if batch < 1 then
    raise exception 'a batch has at least 1 run, not %', batch
      using errcode = 'SW008', hint = 'Leave it out for 10,000, and for all in a dry run.';
  end if;
  perform stellwerk.check_migration(v_tenant_id, v_workflow_id, from_version, to_version, node_map);
  v_plan := stellwerk.migration_plan(v_tenant_id, v_workflow_id, from_version, to_version, node_map);
  v_move := stellwerk.move_to_continue(v_tenant_id, v_workflow_id, from_version, to_version, node_map, continue_with);
  if dry_run then
    v_run_ids := stellwerk.live_runs_of(v_tenant_id, v_workflow_id, from_version, 0);
    return query
      select j.run_id, j.verdict, j.reason, j.mapping, null::bigint
        from stellwerk.judge_runs(v_tenant_id, v_run_ids[:coalesce(batch, cardinality(v_run_ids))], from_version, v_plan) j;
    return;
  end if;
  -- Before any run, so that two who continue the same one go one after the other.
  v_move := stellwerk.lock_move(v_tenant_id, v_move);
  v_run_ids := stellwerk.runs_to_move(v_tenant_id, v_workflow_id, from_version, v_move);
  if v_move.migration_id is null and cardinality(v_run_ids) > 0 then
    v_move := stellwerk.begin_move(v_tenant_id, v_workflow_id, from_version, to_version, node_map);
  end if;
  while v_judged < cardinality(v_run_ids) and v_left > 0 loop
    v_slice := v_run_ids[v_judged + 1 : least(v_judged + least(c_slice, v_left), cardinality(v_run_ids))];
    -- Runs that another transaction moves at this moment are passed over, so this never waits and cannot deadlock.
    v_verdicts := stellwerk.lock_and_judge(v_tenant_id, v_slice, from_version, v_plan);
    v_left := v_left - stellwerk.apply_migration(v_tenant_id, v_move, v_plan, v_verdicts);
    v_judged := v_judged + cardinality(v_slice);
    return query
      select v.run_id, v.verdict, v.reason, v.mapping, case v.verdict when 'ok' then v_move.migration_id end
        from unnest(v_verdicts) v order by v.run_id;
  end loop;
  update stellwerk.version_move m
     set last_run_id = coalesce(v_run_ids[v_judged], m.last_run_id),
         ended_at = case when v_judged = cardinality(v_run_ids) then stellwerk.clock() end
   where m.tenant_id = v_tenant_id and m.migration_id = v_move.migration_id;
end
$$;
comment on function stellwerk.migrate_runs(text, integer, integer, jsonb, boolean, integer, bigint) is 'Moves the live runs of a workflow from one version to another that is published; without dry_run => false it only says what would become of each. Answers a row per run: verdict ok, needs_map (a live token''s node has no counterpart: name one in node_map, { old: new }, null for none) or blocked, the reason, where its live tokens go, and the number that undo_migration takes. At most batch runs are moved in a call (10,000), the lowest numbers first; asked again for the same, it goes on behind the last run until all have been judged. continue_with => migration_id goes once more through those that were left. Errors: SW001, SW002 and SW007 for the map, SW003 and SW005 for the versions.';

create or replace function stellwerk.check_migration(p_tenant_id bigint, p_workflow_id bigint, p_from integer, p_to integer, p_given jsonb)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_wrong text;
begin
  perform stellwerk.version_document(p_tenant_id, p_workflow_id, p_from), stellwerk.version_document(p_tenant_id, p_workflow_id, p_to);
  if p_from = p_to then
    raise exception 'runs cannot be moved from version % to itself', p_from using errcode = 'SW003', hint = 'Name two versions.';
  end if;
  if exists (select from stellwerk.workflow_version d
              where d.tenant_id = p_tenant_id and d.workflow_id = p_workflow_id and d.version in (p_from, p_to)
                and d.published_at is null) then
    raise exception 'runs move between published versions only, and one of % and % is a draft', p_from, p_to
      using errcode = 'SW003', hint = format('stellwerk workflow publish %s', stellwerk.slug_of(p_tenant_id, p_workflow_id));
  end if;
  if p_given is null or jsonb_typeof(p_given) <> 'object'
     or exists (select from jsonb_each(p_given) g where jsonb_typeof(g.value) not in ('string', 'null')) then
    raise exception 'the node map is no object of node names' using errcode = 'SW002', hint = 'Write it as {"old": "new", "gone": null}.';
  end if;
  select g.value into v_wrong from jsonb_each_text(p_given) g where g.value is not null group by g.value having count(*) > 1 limit 1;
  if v_wrong is not null then
    raise exception 'the node map sends two nodes to %', v_wrong using errcode = 'SW002', hint = 'Two tokens cannot stand on one node.';
  end if;
  select format('version %s has no node %s', x.version, x.node_id) into v_wrong
    from (select p_from as version, g.key as node_id from jsonb_each_text(p_given) g
          union all
          select p_to, g.value from jsonb_each_text(p_given) g where g.value is not null) x
   where not exists (select from stellwerk.plan_node n
                      where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = x.version and n.node_id = x.node_id)
   limit 1;
  if v_wrong is not null then
    raise exception '%, which the node map names', v_wrong
      using errcode = 'SW007', hint = 'stellwerk workflow show prints the nodes of a version.';
  end if;
end
$$;
comment on function stellwerk.check_migration(bigint, bigint, integer, integer, jsonb) is 'Raises when runs cannot be moved between two versions, or when a node map names what does not exist.';

create or replace function stellwerk.move_to_continue(
  p_tenant_id bigint, p_workflow_id bigint, p_from integer, p_to integer, p_given jsonb, p_migration_id bigint)
returns stellwerk.version_move language plpgsql stable set search_path = '' as $$
declare
  v_move stellwerk.version_move;
begin
  if p_migration_id is null then
    -- One that was broken off, by a batch or by a crash.
    select * into v_move from stellwerk.version_move m
     where m.tenant_id = p_tenant_id and m.workflow_id = p_workflow_id and m.ended_at is null
       and m.from_version = p_from and m.to_version = p_to and m.node_map = p_given
     order by m.migration_id desc limit 1;
    return v_move;
  end if;
  select * into v_move from stellwerk.version_move m where m.tenant_id = p_tenant_id and m.migration_id = p_migration_id;
  if v_move.workflow_id is distinct from p_workflow_id or v_move.from_version <> p_from or v_move.to_version <> p_to then
    raise exception 'there is no migration % of these runs to continue', p_migration_id
      using errcode = 'SW007', hint = 'The call that it continues answered its number as migration_id.';
  elsif v_move.undone_at is not null then
    raise exception 'migration % has been undone', p_migration_id
      using errcode = 'SW003', hint = 'Leave out continue_with to begin another.';
  end if;
  if v_move.ended_at is not null then
    v_move.last_run_id := 0;  -- once more through all that are left
  end if;
  return v_move;
end
$$;
comment on function stellwerk.move_to_continue(bigint, bigint, integer, integer, jsonb, bigint) is 'The migration with a number, or one to the same end that was broken off; null when there is none. Errors: SW007, SW003.';

create or replace function stellwerk.lock_move(p_tenant_id bigint, p_move stellwerk.version_move)
returns stellwerk.version_move language plpgsql set search_path = '' as $$
declare
  v_move stellwerk.version_move;
begin
  select * into v_move from stellwerk.version_move m
   where m.tenant_id = p_tenant_id and m.migration_id = p_move.migration_id for no key update;
  if v_move.undone_at is not null then
    raise exception 'migration % has been undone', v_move.migration_id using errcode = 'SW003', hint = 'Ask again to begin another.';
  end if;
  -- Another session may have come further meanwhile.
  if v_move.migration_id is not null and p_move.ended_at is not null and v_move.ended_at is not distinct from p_move.ended_at then
    v_move.last_run_id := 0;
  end if;
  return v_move;
end
$$;
comment on function stellwerk.lock_move(bigint, stellwerk.version_move) is 'The migration as it is now, locked against others who continue or undo it.';

create or replace function stellwerk.begin_move(p_tenant_id bigint, p_workflow_id bigint, p_from integer, p_to integer, p_given jsonb)
returns stellwerk.version_move language plpgsql set search_path = '' as $$
declare
  v_move stellwerk.version_move;
begin
  insert into stellwerk.version_move (tenant_id, workflow_id, from_version, to_version, node_map, started_by)
  values (p_tenant_id, p_workflow_id, p_from, p_to, p_given, stellwerk.actor())
  returning * into v_move;
  return v_move;
end
$$;
comment on function stellwerk.begin_move(bigint, bigint, integer, integer, jsonb) is 'A new migration.';

create or replace function stellwerk.runs_to_move(p_tenant_id bigint, p_workflow_id bigint, p_from integer, p_move stellwerk.version_move)
returns bigint[] language plpgsql stable set search_path = '' as $$
begin
  -- What this migration has moved and another has moved back stays where it is.
  return array(
    select u.run_id from unnest(stellwerk.live_runs_of(p_tenant_id, p_workflow_id, p_from, coalesce(p_move.last_run_id, 0))) u (run_id)
     where not exists (select from stellwerk.run_migration m
                        where m.tenant_id = p_tenant_id and m.migration_id = p_move.migration_id and m.run_id = u.run_id
                          and m.verdict = 'ok')
     order by u.run_id);
end
$$;
comment on function stellwerk.runs_to_move(bigint, bigint, integer, stellwerk.version_move) is 'The runs that a migration has still to judge, ascending.';

-- Cost follows what lives: no index holds all runs of a version, and the finished ones may be many millions.
create or replace function stellwerk.live_runs_of(p_tenant_id bigint, p_workflow_id bigint, p_version integer, p_after bigint default 0)
returns bigint[] language plpgsql stable set search_path = '' set enable_seqscan = off as $$
begin
  return coalesce((
    select array_agg(r.run_id order by r.run_id)
      from (select s.run_id from stellwerk.step s
             where s.tenant_id = p_tenant_id and s.run_id > p_after and s.state in ('queued', 'running', 'waiting', 'joining')
            union
            select o.run_id from stellwerk.run o
             where o.tenant_id = p_tenant_id and o.run_id > p_after and o.state = 'pending' and not o.held
            union
            select o.run_id from stellwerk.run o
             where o.tenant_id = p_tenant_id and o.workflow_id = p_workflow_id and o.run_id > p_after
               and (o.state = 'paused' or (o.state = 'pending' and o.held))) x
     cross join lateral (
       select o.run_id, o.workflow_id, o.version, o.state from stellwerk.run o
        where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
     where r.workflow_id = p_workflow_id and r.version = p_version and r.state in ('pending', 'running', 'waiting', 'paused')), '{}');
end
$$;
comment on function stellwerk.live_runs_of(bigint, bigint, integer, bigint) is 'The runs of a version that have not ended, ascending, beyond a given one.';

create or replace function stellwerk.lock_and_judge(p_tenant_id bigint, p_run_ids bigint[], p_from integer, p_plan jsonb)
returns stellwerk.run_verdict[] language plpgsql set search_path = '' as $$
declare
  v_free     bigint[] := stellwerk.lock_free_runs(p_tenant_id, p_run_ids);
  v_held     bigint[];
  v_verdicts stellwerk.run_verdict[];
begin
  select array_agg(j order by j.run_id) into v_verdicts from stellwerk.judge_runs(p_tenant_id, v_free, p_from, p_plan) j;
  v_held := array(
    select v.run_id from unnest(v_verdicts) v where v.verdict = 'ok' and not stellwerk.lock_steps(p_tenant_id, v.run_id, v.steps, v.undos));
  return array(
    select x.v
      from (select v from unnest(v_verdicts) v where v.run_id <> all (v_held)
            union all
            select row(u.run_id, 'blocked', 'another transaction moves the run at this moment; ask again', '{}', '[]', '[]',
                       false)::stellwerk.run_verdict
              from (select unnest(p_run_ids) except select unnest(v_free) union all select unnest(v_held)) u (run_id)) x
     order by (x.v).run_id);
end
$$;
comment on function stellwerk.lock_and_judge(bigint, bigint[], integer, jsonb) is 'Locks runs that nobody holds and judges them; the others are blocked for the moment.';

-- A worker's sign of life locks steps without their run, several of them in its own order: waiting for it could be a deadlock.
create or replace function stellwerk.lock_steps(p_tenant_id bigint, p_run_id bigint, p_steps jsonb, p_undos jsonb)
returns boolean language plpgsql set search_path = '' as $$
declare
  v_locked integer;
begin
  with taken as (
    select from stellwerk.step s
     where s.tenant_id = p_tenant_id and s.run_id = p_run_id
       and s.step_id = any (array(select (x.value ->> 'step')::bigint from jsonb_array_elements(p_steps || p_undos) x (value)))
       for no key update skip locked)
  select count(*) into v_locked from taken;
  return v_locked = jsonb_array_length(p_steps) + jsonb_array_length(p_undos);
end
$$;
comment on function stellwerk.lock_steps(bigint, bigint, jsonb, jsonb) is 'Locks the steps that a migration writes; false, without waiting, when somebody else has locked one of them.';

create or replace function stellwerk.apply_migration(
  p_tenant_id bigint, p_move stellwerk.version_move, p_plan jsonb, p_verdicts stellwerk.run_verdict[])
returns integer language plpgsql set search_path = '' as $$
declare
  v_now     timestamptz := stellwerk.clock();
  v_actor   text := stellwerk.actor();
  v_verdict stellwerk.run_verdict;
  v_count   integer := 0;
  v_joining bigint[];
begin
  insert into stellwerk.run_migration (
    tenant_id, migration_id, run_id, from_version, to_version, verdict, reason, mapping, trigger_node, aliases, recount, steps, undos,
    judged_at, judged_by)
  select p_tenant_id, p_move.migration_id, v.run_id, p_move.from_version, p_move.to_version, v.verdict, v.reason, v.mapping, r.trigger_node,
         r.aliases, r.recount, v.steps, v.undos, v_now, v_actor
    from unnest(p_verdicts) v
    left join lateral (
      select o.trigger_node, o.aliases, o.recount from stellwerk.run o
       where v.verdict = 'ok' and o.tenant_id = p_tenant_id and o.run_id = v.run_id offset 0) r on true
  on conflict (tenant_id, migration_id, run_id) do update
     set verdict = excluded.verdict, reason = excluded.reason, mapping = excluded.mapping, trigger_node = excluded.trigger_node,
         aliases = excluded.aliases, recount = excluded.recount, steps = excluded.steps, undos = excluded.undos,
         judged_at = excluded.judged_at, judged_by = excluded.judged_by;
  -- One by one, each by its key: a join over many would be planned by what the tables held when it was planned first.
  foreach v_verdict in array p_verdicts loop
    continue when v_verdict.verdict <> 'ok';
    v_count := v_count + 1;
    update stellwerk.run r
       set version = p_move.to_version, recount = true, trigger_node = p_plan -> 'nodes' -> r.trigger_node ->> 'to',
           aliases = case when r.aliases is null then nullif(p_plan -> 'aliases', '{}') else stellwerk.aliases_after(r, p_plan) end
     where r.tenant_id = p_tenant_id and r.run_id = v_verdict.run_id;
    update stellwerk.step s
       set node_id = p_plan -> 'nodes' -> s.node_id ->> 'to', version = p_move.to_version,
           -- What a running attempt was given stays readable, also where it stood in the plan only.
           input = case when s.state = 'running'
                        then coalesce(s.input, stellwerk.config_of(p_tenant_id, p_move.workflow_id, p_move.from_version, s.node_id))
                        else s.input end,
           arrived = case when s.arrived is not null then
                       array(select coalesce(p_plan -> 'nodes' -> a.node_id ->> 'to', a.node_id)
                               from unnest(s.arrived) with ordinality a (node_id, number) order by a.number) end
     where s.tenant_id = p_tenant_id and s.run_id = v_verdict.run_id and s.state in ('queued', 'running', 'waiting', 'joining');
    if v_verdict.undos <> '[]' then
      update stellwerk.step s set undo = p_plan -> 'nodes' -> s.undo ->> 'to'
       where s.tenant_id = p_tenant_id and s.run_id = v_verdict.run_id and s.undo is not null;
    end if;
    perform stellwerk.note_action(p_tenant_id, 'migrate_run', 'run', v_verdict.run_id::text, jsonb_build_object('version', p_move.from_version),
      jsonb_build_object('version', p_move.to_version, 'migration_id', p_move.migration_id::text));
  end loop;
  -- Where ways meet in another manner, what a token waits for may not come any more: look again, without running anything.
  v_joining := array(select v.run_id from unnest(p_verdicts) v where v.verdict = 'ok' and v.joining order by v.run_id);
  if cardinality(v_joining) > 0 then
    perform stellwerk.advance_runs(p_tenant_id, v_joining, p_execute => false);
    perform stellwerk.freeze_steps(p_tenant_id, array(
      select r.run_id from unnest(v_joining) x (run_id)
       cross join lateral (select o.run_id, o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
       where r.state = 'paused'));
  end if;
  return v_count;
end
$$;
comment on function stellwerk.apply_migration(bigint, stellwerk.version_move, jsonb, stellwerk.run_verdict[]) is 'Keeps the verdicts on locked runs and moves those that were found ok, with what undo_migration needs. Answers how many it moved.';

create or replace function stellwerk.config_of(p_tenant_id bigint, p_workflow_id bigint, p_version integer, p_node_id text)
returns jsonb language plpgsql stable set search_path = '' as $$
begin
  return (select n.config from stellwerk.plan_node n
           where n.tenant_id = p_tenant_id and n.workflow_id = p_workflow_id and n.version = p_version and n.node_id = p_node_id
             and n.dynamic = '[]');
end
$$;
comment on function stellwerk.config_of(bigint, bigint, integer, text) is 'The settings of a node that have no expression in them; null when they have.';

-- A run that is moved again may know a node by a name from two versions ago: the one under which it came by last is kept.
create or replace function stellwerk.aliases_after(p_run stellwerk.run, p_plan jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
begin
  return (
    select nullif(coalesce(jsonb_object_agg(x.new_id, x.known_as) filter (where x.known_as <> x.new_id), '{}'), '{}')
      from (select n.value ->> 'to' as new_id,
                   case when not p_run.aliases ? n.key
                             or exists (select from stellwerk.step s
                                         where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.node_id = n.key) then n.key
                        else p_run.aliases ->> n.key end as known_as
              from jsonb_each(p_plan -> 'nodes') n
             where n.value ->> 'to' is not null) x);
end
$$;
comment on function stellwerk.aliases_after(stellwerk.run, jsonb) is 'run.aliases after another migration: { new name: the name under which the run has that node''s steps }.';
