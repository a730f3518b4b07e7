-- Moving migrated runs back, as long as they have not gone on.
--
-- A run has not moved since when it is still on the version that it was moved to, has not been moved again, and its live
-- steps are the same ones, each in the same state and attempt. A live token leaves its step only by ending it, so the same
-- live steps mean that no step was made, begun or ended in between. Pausing and resuming is not moving.

create or replace function stellwerk.undo_migration(migration_id bigint, dry_run boolean default true, batch integer default null)
returns table (run_id bigint, verdict text, reason text)
language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
declare
  c_slice constant integer := 500;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_run_ids   bigint[];
  v_slice     bigint[];
  v_free      bigint[];
  v_undone    integer := 0;
begin
  if batch < 1 then
    raise exception 'a batch has at least 1 run, not %', batch
      using errcode = 'SW008', hint = 'Leave it out for 10,000, and for all in a dry run.';
  end if;
  if not exists (select from stellwerk.version_move m where m.tenant_id = v_tenant_id and m.migration_id = undo_migration.migration_id) then
    raise exception 'there is no migration %', coalesce(undo_migration.migration_id::text, 'null')
      using errcode = 'SW007', hint = 'select * from stellwerk.migration_progress lists them.';
  end if;
  if not dry_run then
    -- It is not continued from now on; and whoever continues it at this moment is waited for.
    update stellwerk.version_move m
       set ended_at = coalesce(m.ended_at, stellwerk.clock()), undone_at = coalesce(m.undone_at, stellwerk.clock())
     where m.tenant_id = v_tenant_id and m.migration_id = undo_migration.migration_id;
  end if;
  v_run_ids := array(
    select m.run_id from stellwerk.run_migration m
     where m.tenant_id = v_tenant_id and m.migration_id = undo_migration.migration_id and m.verdict = 'ok' and m.undone_at is null
     order by m.run_id);
  if dry_run then
    return query
      select j.run_id, j.verdict, j.reason
        from stellwerk.judge_undo(v_tenant_id, undo_migration.migration_id, v_run_ids[:coalesce(batch, cardinality(v_run_ids))]) j;
    return;
  end if;
  for i in 0 .. (cardinality(v_run_ids) - 1) / c_slice loop
    v_slice := v_run_ids[i * c_slice + 1 : least((i + 1) * c_slice, cardinality(v_run_ids))];
    v_free := stellwerk.lock_free_runs(v_tenant_id, v_slice);
    for run_id, verdict, reason in
      select u.run_id, coalesce(j.verdict, 'blocked'),
             case when u.run_id = any (v_free) then j.reason else 'another transaction moves the run at this moment; ask again' end
        from unnest(v_slice) u (run_id)
        left join stellwerk.judge_undo(v_tenant_id, undo_migration.migration_id, v_free) j on j.run_id = u.run_id
       order by u.run_id
    loop
      if verdict = 'ok' then
        exit when v_undone >= coalesce(batch, 10000);
        if stellwerk.put_back(v_tenant_id, undo_migration.migration_id, undo_migration.run_id) then
          v_undone := v_undone + 1;
        else
          verdict := 'blocked';
          reason := 'another transaction moves the run at this moment; ask again';
        end if;
      end if;
      return next;
    end loop;
    exit when v_undone >= coalesce(batch, 10000);
  end loop;
end
$$;
comment on function stellwerk.undo_migration(bigint, boolean, integer) is 'Moves the runs of a migration back to the version, nodes and names that they had, if they have not moved since; without dry_run => false it only says which could be. Answers a row per run that has not been moved back yet: verdict ok or blocked, and the reason. At most batch runs in a call (10,000). Errors: SW007.';

create or replace function stellwerk.judge_undo(p_tenant_id bigint, p_migration_id bigint, p_run_ids bigint[])
returns table (run_id bigint, verdict text, reason text) language plpgsql stable
set search_path = '' set plan_cache_mode = force_generic_plan set enable_seqscan = off set jit = off as $$
begin
  return query
    select x.run_id, case when z.reason is null then 'ok' else 'blocked' end, z.reason
      from unnest(p_run_ids) x (run_id)
     cross join lateral (
       select o.* from stellwerk.run_migration o
        where o.tenant_id = p_tenant_id and o.migration_id = p_migration_id and o.run_id = x.run_id offset 0) m
      left join lateral (
        select o.state, o.version, o.ending from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r on true
     cross join lateral (
       select case
         when m.undone_at is not null then 'it has been moved back already'
         when r.state is null then 'the run has been removed'
         when r.state not in ('pending', 'running', 'waiting', 'paused') then 'the run has ended as ' || r.state
         when r.version <> m.to_version or exists (
                select from stellwerk.run_migration o
                 where o.tenant_id = p_tenant_id and o.run_id = x.run_id and o.migration_id > m.migration_id and o.verdict = 'ok'
                   and o.undone_at is null)
           then 'the run has been moved to another version since'
         when r.ending is not null then 'the run is being compensated'
         else stellwerk.movement_since(m) end as reason offset 0) z
     order by x.run_id;
end
$$;
comment on function stellwerk.judge_undo(bigint, bigint, bigint[]) is 'Whether runs that were migrated can be moved back.';

create or replace function stellwerk.movement_since(p_migration stellwerk.run_migration)
returns text language plpgsql stable set search_path = '' set enable_seqscan = off as $$
begin
  return (
    select case when o.step_id is null then format('node %s was reached since', s.node_id)
                when s.step_id is null then format('node %s was left since', coalesce(p_migration.mapping ->> o.node, o.node))
                else format('node %s is %s, attempt %s, and was %s, attempt %s', s.node_id, s.state, s.attempt, o.state, o.attempt) end
      from (select x.step as step_id, x.node, x.state, x.attempt, x.failures
              from jsonb_to_recordset(p_migration.steps) x (step bigint, node text, state text, attempt integer, failures integer)) o
      full join (
        select l.step_id, l.node_id, l.state, l.attempt, l.failures from stellwerk.step l
         where l.tenant_id = p_migration.tenant_id and l.run_id = p_migration.run_id
            and l.state in ('queued', 'running', 'waiting', 'joining')) s
        on s.step_id = o.step_id
     where (o.state, o.attempt, o.failures) is distinct from (s.state, s.attempt, s.failures)
     order by coalesce(s.step_id, o.step_id) limit 1);
end
$$;
comment on function stellwerk.movement_since(stellwerk.run_migration) is 'What a run has done since it was migrated; null when nothing.';

create or replace function stellwerk.put_back(p_tenant_id bigint, p_migration_id bigint, p_run_id bigint)
returns boolean language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  v_migration stellwerk.run_migration;
  v_step      record;
begin
  select * into v_migration from stellwerk.run_migration m
   where m.tenant_id = p_tenant_id and m.migration_id = p_migration_id and m.run_id = p_run_id for update;
  if not stellwerk.lock_steps(p_tenant_id, p_run_id, v_migration.steps, v_migration.undos) then
    return false;
  end if;
  update stellwerk.run r
     set version = v_migration.from_version, trigger_node = v_migration.trigger_node, aliases = v_migration.aliases,
         recount = v_migration.recount
   where r.tenant_id = p_tenant_id and r.run_id = p_run_id;
  for v_step in
    select x.* from jsonb_to_recordset(v_migration.steps) x (step bigint, node text, version integer, arrived text[])
  loop
    update stellwerk.step s set node_id = v_step.node, version = v_step.version, arrived = v_step.arrived
     where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id = v_step.step;
  end loop;
  for v_step in select x.* from jsonb_to_recordset(v_migration.undos) x (step bigint, undo text) loop
    update stellwerk.step s set undo = v_step.undo where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.step_id = v_step.step;
  end loop;
  update stellwerk.run_migration m set undone_at = stellwerk.clock(), undone_by = stellwerk.actor()
   where m.tenant_id = p_tenant_id and m.migration_id = p_migration_id and m.run_id = p_run_id;
  perform stellwerk.note_action(p_tenant_id, 'undo_migration', 'run', p_run_id::text, jsonb_build_object('version', v_migration.to_version),
    jsonb_build_object('version', v_migration.from_version, 'migration_id', p_migration_id::text));
  return true;
end
$$;
comment on function stellwerk.put_back(bigint, bigint, bigint) is 'Moves a locked run back; false when a worker has locked one of its steps at this moment.';

create or replace view stellwerk.migration_progress with (security_barrier) as
select m.migration_id, w.slug as workflow, m.from_version, m.to_version, m.node_map, c.moved, c.needs_map, c.blocked, c.undone,
       m.started_at, m.started_by, m.ended_at, m.undone_at
  from stellwerk.version_move m
  join stellwerk.workflow w on w.tenant_id = m.tenant_id and w.workflow_id = m.workflow_id
 cross join lateral (
   select count(*) filter (where r.verdict = 'ok') as moved, count(*) filter (where r.verdict = 'needs_map') as needs_map,
          count(*) filter (where r.verdict = 'blocked') as blocked, count(r.undone_at) as undone
     from stellwerk.run_migration r where r.tenant_id = m.tenant_id and r.migration_id = m.migration_id) c
 where m.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.migration_progress is 'Every migration of live runs from one version to another: what it was told, and how far it has come. Each run''s verdict stands in run_migration.';
comment on column stellwerk.migration_progress.migration_id is 'The migration.';
comment on column stellwerk.migration_progress.workflow is 'Slug of the workflow.';
comment on column stellwerk.migration_progress.from_version is 'The version that its runs were on.';
comment on column stellwerk.migration_progress.to_version is 'The version that they were moved to.';
comment on column stellwerk.migration_progress.node_map is '{ old node: new node } as it was given.';
comment on column stellwerk.migration_progress.moved is 'How many runs it has moved, those included that were moved back.';
comment on column stellwerk.migration_progress.needs_map is 'How many runs stood on a node without a counterpart when they were last judged.';
comment on column stellwerk.migration_progress.blocked is 'How many runs could not be moved when they were last judged.';
comment on column stellwerk.migration_progress.undone is 'How many runs were moved back.';
comment on column stellwerk.migration_progress.started_at is 'When its first batch was moved.';
comment on column stellwerk.migration_progress.started_by is 'Who asked for it.';
comment on column stellwerk.migration_progress.ended_at is 'When the last run had been judged; null: asked for the same again, migrate_runs goes on.';
comment on column stellwerk.migration_progress.undone_at is 'When it was first undone.';
