-- Captured changes become runs: arrivals are filed, batches unpacked into events, pending events start runs or say why they do not.
-- An event leaves the inbox in the transaction that inserts its run, so it starts one run, whatever dies when.

create or replace function stellwerk.as_filed(p_arrival stellwerk.event_arrival, p_watch stellwerk.table_watch)
returns setof stellwerk.event_inbox language sql stable
begin atomic
  select p_arrival.tenant_id, p_arrival.event_id, p_arrival.watch_id,
         case json_typeof(coalesce(p_arrival.new, p_arrival.old))
           when 'string' then (coalesce(p_arrival.new, p_arrival.old) #>> '{}')::oid else p_watch.target_oid end,
         coalesce(p_watch.target, format('(watch %s)', p_arrival.watch_id)),
         case when p_arrival.old is null then 'insert' when p_arrival.new is null then 'delete' else 'update' end,
         p_arrival.created_at, p_arrival.login,
         case when json_typeof(p_arrival.old) = 'object' then p_arrival.old end,
         case when json_typeof(p_arrival.new) = 'object' then p_arrival.new end,
         p_arrival.cause, p_arrival.actor, p_arrival.traceparent;
end;
comment on function stellwerk.as_filed(stellwerk.event_arrival, stellwerk.table_watch) is 'What a trigger wrote, as the inbox keeps it; the watch is null if it was removed.';

create or replace view stellwerk.event with (security_invoker = true) as
select i.tenant_id, i.event_id, i.watch_id, i.target, i.operation, null::text as record_id, i.old, i.new, 'pending'::text as state,
       null::bigint as run_id, null::text as reason, stellwerk.causing_run(i.cause) as caused_by_run_id, stellwerk.depth_after(i.cause) as depth,
       i.created_at, null::timestamptz as processed_at, i.source_oid, i.login, stellwerk.actor_told(i.actor) as actor,
       stellwerk.traceparent_told(i.traceparent) as traceparent
  from stellwerk.event_inbox i
union all
select f.tenant_id, f.event_id, f.watch_id, f.target, f.operation, null, f.old, f.new, 'pending', null, null, stellwerk.causing_run(f.cause),
       stellwerk.depth_after(f.cause), f.created_at, null, f.source_oid, f.login, stellwerk.actor_told(f.actor), stellwerk.traceparent_told(f.traceparent)
  from stellwerk.event_arrival a
  left join stellwerk.table_watch w on w.tenant_id = a.tenant_id and w.watch_id = a.watch_id
 cross join lateral stellwerk.as_filed(a, w) f
union all
select e.tenant_id, e.event_id, e.watch_id, e.target, e.operation, e.record_id, e.old, e.new, e.state, e.run_id, e.reason, e.caused_by_run_id,
       e.depth, e.created_at, e.processed_at, e.source_oid, e.login, e.actor, e.traceparent
  from stellwerk.event_log e;
comment on view stellwerk.event is 'Every captured change of an application''s row: pending until it is processed, then with what it started, or why nothing.';
comment on column stellwerk.event.tenant_id is 'The tenant of the watch.';
comment on column stellwerk.event.event_id is 'Opaque number that follows time.';
comment on column stellwerk.event.watch_id is 'The watch that captured it.';
comment on column stellwerk.event.target is 'The watched table.';
comment on column stellwerk.event.operation is 'insert, update or delete.';
comment on column stellwerk.event.record_id is 'The row''s primary key as text; several columns are joined by a comma. Null while it is pending.';
comment on column stellwerk.event.old is 'The row before, as json (update, delete).';
comment on column stellwerk.event.new is 'The row after, as json (insert, update).';
comment on column stellwerk.event.state is 'pending, processed (run_id says what it started), ignored or failed (reason says why).';
comment on column stellwerk.event.run_id is 'The run that it started.';
comment on column stellwerk.event.reason is 'Why it started nothing.';
comment on column stellwerk.event.caused_by_run_id is 'The run whose step changed the row; null for a change from outside.';
comment on column stellwerk.event.depth is 'How many runs stand in the chain of causes before it; 0 for a change from outside.';
comment on column stellwerk.event.created_at is 'When the row was changed, by the database''s clock.';
comment on column stellwerk.event.processed_at is 'When it was processed.';
comment on column stellwerk.event.source_oid is 'The table, or partition, whose trigger wrote it.';
comment on column stellwerk.event.login is 'The database login that changed the row.';
comment on column stellwerk.event.actor is 'For whom it said to do so: the setting stellwerk.actor of its session; null if it named nobody.';
comment on column stellwerk.event.traceparent is 'The trace (W3C traceparent) that the transaction named in the setting stellwerk.traceparent.';

create or replace function stellwerk.refuse_event_change()
returns trigger language plpgsql set search_path = '' as $$
begin
  raise exception 'events are written by the triggers of watches and by pump alone'
    using errcode = 'SW004', hint = 'stellwerk.retry_event has a failed one looked at again, stellwerk.forget_subject erases a person''s data; whoever owns the schema finds the rows in event_inbox and event_log.';
end
$$;
comment on function stellwerk.refuse_event_change() is 'Trigger: nobody writes to the view event.';

create or replace trigger event_stays instead of insert or update or delete on stellwerk.event
  for each row execute function stellwerk.refuse_event_change();

-- Rows have no index until here. Those of other tenants are read past, which each of these keeps short by doing the same.
create or replace function stellwerk.file_arrivals(p_tenant_id bigint, p_limit integer, p_first tid default '(0,0)', out event_ids bigint[], out sizes bigint[])
language plpgsql set search_path = '' as $$
begin
  with gone as (
    delete from stellwerk.event_arrival a
     where a.ctid = any (array(select o.ctid from stellwerk.event_arrival o
                                where o.ctid >= p_first and o.tenant_id = p_tenant_id limit p_limit for update skip locked))
    returning a.*
  ), filed as (
    insert into stellwerk.event_inbox (tenant_id, event_id, watch_id, source_oid, target, operation, created_at, login, old, new, cause, actor, traceparent)
    select f.tenant_id, f.event_id, f.watch_id, f.source_oid, f.target, f.operation, f.created_at, f.login, f.old, f.new, f.cause, f.actor, f.traceparent
      from gone g
      left join stellwerk.table_watch w on w.tenant_id = g.tenant_id and w.watch_id = g.watch_id
     cross join lateral stellwerk.as_filed(g, w) f
    returning event_id, coalesce(octet_length(new::text), 0)::bigint + coalesce(octet_length(old::text), 0) as size
  )
  select array_agg(f.event_id order by f.event_id), array_agg(f.size order by f.event_id) into event_ids, sizes from filed f;
end
$$;
comment on function stellwerk.file_arrivals(bigint, integer, tid) is 'Files up to so many captured changes of a tenant in the inbox; p_first is a place before which there are none. Answers their numbers, in order, and their sizes in bytes; null if there were none. Those that another call files are passed over.';

create or replace function stellwerk.unpack_event_batches(p_tenant_id bigint, p_limit integer)
returns integer language plpgsql set search_path = '' as $$
declare
  v_done  integer := 0;
  v_batch stellwerk.event_batch;
begin
  while v_done < p_limit loop
    delete from stellwerk.event_batch b
     where b.tenant_id = p_tenant_id and b.batch_id = (
             select n.batch_id from stellwerk.event_batch n
              where n.tenant_id = p_tenant_id order by n.batch_id limit 1 for update skip locked)
    returning * into v_batch;
    exit when not found;
    v_done := v_done + greatest(v_batch.change_count, 1);
    begin
      perform stellwerk.unpack_event_batch(v_batch);
    exception when others then
      -- What cannot be taken apart is kept whole, to be read by a person.
      insert into stellwerk.event_log (
        tenant_id, watch_id, target, operation, new, state, reason, caused_by_run_id, depth, created_at, login, actor, traceparent, processed_at)
      values (p_tenant_id, v_batch.watch_id, v_batch.target, v_batch.operation, v_batch.changes, 'failed',
              format('%s changes of one statement could not be read: %s', v_batch.change_count, left(sqlerrm, 500)),
              v_batch.caused_by_run_id, v_batch.depth, v_batch.created_at, v_batch.login, v_batch.actor, v_batch.traceparent, stellwerk.clock());
    end;
  end loop;
  return v_done;
end
$$;
comment on function stellwerk.unpack_event_batches(bigint, integer) is 'Turns batches of bulk mode into events, one per row change, until at least so many changes are unpacked. Answers how many were.';

-- json_array_elements takes an array apart without looking into its texts; -> would raise for one that holds \u0000.
create or replace function stellwerk.unpack_event_batch(p_batch stellwerk.event_batch)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.event_inbox (tenant_id, watch_id, target, operation, old, new, cause, created_at, login, actor, traceparent)
  select p_batch.tenant_id, p_batch.watch_id, p_batch.target, p_batch.operation,
         case p_batch.operation when 'delete' then r.element when 'update' then r.before end,
         case when p_batch.operation <> 'delete' then r.element end,
         stellwerk.cause_text(p_batch.caused_by_run_id, p_batch.depth), p_batch.created_at, p_batch.login, p_batch.actor, p_batch.traceparent
    from (select e.element, e.ordinality, lag(e.element) over (order by e.ordinality) as before
            from json_array_elements(p_batch.changes) with ordinality e (element, ordinality)) r
   where p_batch.operation <> 'update' or r.ordinality % 2 = 0
   order by r.ordinality;
end
$$;
comment on function stellwerk.unpack_event_batch(stellwerk.event_batch) is 'Inserts the events of one batch.';

-- Locks are taken in the subtransaction that does the work: a row that is locked outside of one and written within gets a
-- multixact, which every later reader of the row must look up.
create or replace function stellwerk.process_events(p_tenant_id bigint, p_limit integer, p_arrival tid default '(0,0)')
returns integer language plpgsql set search_path = '' as $$
declare
  c_portion_bytes constant bigint := 32 * 1024 * 1024;
  v_waiting  boolean := p_arrival is null or exists (select from stellwerk.event_inbox e where e.tenant_id = p_tenant_id);
  v_ids      bigint[];
  v_sizes    bigint[];
  v_first    integer := 1;
  v_sum      bigint := 0;
  v_event_id bigint;
begin
  if p_arrival is not null then
    select f.event_ids, f.sizes into v_ids, v_sizes from stellwerk.file_arrivals(p_tenant_id, p_limit, p_arrival) f;
  end if;
  begin
    if v_waiting then  -- the oldest, whichever they are
      select array_agg(e.event_id), array_agg(e.size) into v_ids, v_sizes
        from (select v.event_id, coalesce(octet_length(v.new::text), 0)::bigint + coalesce(octet_length(v.old::text), 0) as size
                from stellwerk.event_inbox v
               where v.tenant_id = p_tenant_id
               order by v.event_id limit p_limit for update skip locked) e;
    end if;
    -- Large rows in small portions, so that memory stays bounded.
    for i in 1 .. coalesce(cardinality(v_ids), 0) loop
      v_sum := v_sum + v_sizes[i];
      if v_sum >= c_portion_bytes or i = cardinality(v_ids) then
        perform stellwerk.start_event_runs(p_tenant_id, v_ids[v_first:i]);
        v_first := i + 1;
        v_sum := 0;
      end if;
    end loop;
    return coalesce(cardinality(v_ids), 0);
  exception when query_canceled or others then
    if v_ids is null then
      raise;
    end if;
  end;
  -- One of them holds what jsonb cannot: find it, so that it does not stop the others.
  foreach v_event_id in array v_ids loop
    perform stellwerk.process_event(p_tenant_id, v_event_id);
  end loop;
  return cardinality(v_ids);
end
$$;
comment on function stellwerk.process_events(bigint, integer, tid) is 'Turns up to so many pending events of a tenant into runs, or notes on them why nothing starts: in one set, and if that raises one by one. Answers how many it has looked at. Events that another call holds are passed over. p_arrival is a place in event_arrival before which there is nothing of the tenant; null if there is nothing at all.';

create or replace function stellwerk.process_event(p_tenant_id bigint, p_event_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  v_reason text;
begin
  begin
    perform from stellwerk.event_inbox e where e.tenant_id = p_tenant_id and e.event_id = p_event_id for update skip locked;
    if found then
      perform stellwerk.start_event_runs(p_tenant_id, array[p_event_id]);
    end if;
    return;
  exception when others then
    v_reason := format('%s (%s)', left(sqlerrm, 500), sqlstate);
  end;
  perform stellwerk.log_events(p_tenant_id, array_agg(e.event_id), '{null}', '{failed}', array[v_reason], null)
     from (select o.event_id from stellwerk.event_inbox o
            where o.tenant_id = p_tenant_id and o.event_id = p_event_id for update skip locked) e
   having count(*) > 0;
end
$$;
comment on function stellwerk.process_event(bigint, bigint) is 'Turns one pending event into a run, or notes why it starts none; what it raises becomes the reason of a failed event. Does nothing while another call holds it.';

create or replace function stellwerk.start_event_runs(p_tenant_id bigint, p_event_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  c_max_depth constant integer := 8;
  v_plans   jsonb;
  v_ids     bigint[];
  v_records text[];
  v_states  text[];
  v_reasons text[];
  v_orders  stellwerk.run_order[];
  v_run_ids bigint[];
begin
  select jsonb_object_agg(w.watch_id, stellwerk.event_plan(p_tenant_id, w.watch_id)) into v_plans
    from (select distinct e.watch_id from stellwerk.event_inbox e
           where e.tenant_id = p_tenant_id and e.event_id = any (p_event_ids) and e.watch_id is not null) w;
  with found as materialized (
    select e.event_id, e.operation, stellwerk.causing_run(e.cause) as caused_by_run_id, stellwerk.depth_after(e.cause) as depth,
           stellwerk.traceparent_told(e.traceparent) as traceparent,
           'db:' || e.login || coalesce(' for ' || stellwerk.actor_told(e.actor), '') as created_by, p.plan,
           -- Not even looked at where it is too large: to take 100 MB apart costs a gigabyte.
           case when s.size <= 8 * 1024 * 1024 then e.old::jsonb end as old,
           case when s.size <= 8 * 1024 * 1024 then e.new::jsonb end as new, s.size,
           case e.operation when 'delete' then e.old else e.new end::text as source,
           p.plan ? 'workflow_id' and case e.operation when 'delete' then e.old else e.new end is not null as ready
      from stellwerk.event_inbox e
     cross join lateral (
       select case when stellwerk.depth_after(e.cause) > c_max_depth
                   then '{"state": "ignored", "reason": "suppressed: the chain of runs that cause each other is longer than 8"}'
                   when e.source_oid::text <> v_plans -> e.watch_id::text ->> 'table'
                   then '{"state": "ignored", "reason": "captured by a trigger that belongs to no watch of this table"}'
                   else v_plans -> e.watch_id::text end as plan) p
     cross join lateral (select greatest(octet_length(e.old::text), octet_length(e.new::text)) as size) s
     where e.tenant_id = p_tenant_id and e.event_id = any (p_event_ids)
  ), judged as materialized (
    select f.*, case f.operation when 'delete' then f.old else f.new end as payload,
           -- Most rows are small and plain and go to a workflow without a schema: the full look is for the others. Whether a number
           -- may be too long, or the row too deep, is told from the text as the trigger wrote it.
           case when f.ready and f.size < 4000 and f.plan ->> 'schema' is null and f.source !~ '[0-9.]{41}|[0-9][eE][0-9+-]'
                     and length(f.source) - length(translate(f.source, '[{', '')) <= 64
                then null
                else stellwerk.event_objection(f.plan, f.size, case f.operation when 'delete' then f.old else f.new end) end as objection
      from found f
  ), sorted as (
    select j.*, (select string_agg(coalesce(j.payload ->> k.name, ''), ',' order by k.place)
                   from jsonb_array_elements_text(j.plan -> 'keys') with ordinality k (name, place)) as record_id
      from judged j
     order by (j.objection is null) desc, j.event_id
  )
  select array_agg(s.event_id), array_agg(s.record_id), array_agg(s.objection ->> 'state'), array_agg(s.objection ->> 'reason'),
         array_agg(row((s.plan ->> 'workflow_id')::bigint, (s.plan ->> 'version')::integer, s.plan ->> 'node_id', s.payload,
                       case when s.operation <> 'insert' then s.old end, 'row', s.event_id, null, null, null, s.caused_by_run_id, s.depth,
                       null, null, s.created_by, s.traceparent)::stellwerk.run_order) filter (where s.objection is null)
    into v_ids, v_records, v_states, v_reasons, v_orders
    from sorted s;
  if v_orders is not null then
    v_run_ids := stellwerk.insert_runs(p_tenant_id, v_orders);
  end if;
  -- Those that start a run stand first, in the order of the runs.
  perform stellwerk.log_events(p_tenant_id, v_ids, v_records, v_states, v_reasons, v_run_ids);
end
$$;
comment on function stellwerk.start_event_runs(bigint, bigint[]) is 'Inserts the runs of pending events and notes on each what became of it. Raises where a row cannot be read as jsonb.';

create or replace function stellwerk.log_events(
  p_tenant_id bigint, p_event_ids bigint[], p_records text[], p_states text[], p_reasons text[], p_run_ids bigint[])
returns void language plpgsql
-- While the table has no statistics a nested loop would compare each event with each other.
set search_path = '' set enable_nestloop = off as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  with gone as (
    delete from stellwerk.event_inbox i where i.tenant_id = p_tenant_id and i.event_id = any (p_event_ids) returning i.*
  )
  insert into stellwerk.event_log (
    tenant_id, event_id, watch_id, target, operation, record_id, old, new, state, run_id, reason, caused_by_run_id, depth, created_at,
    processed_at, source_oid, login, actor, traceparent)
  select g.tenant_id, g.event_id, g.watch_id, g.target, g.operation, u.record_id, g.old, g.new, coalesce(u.state, 'processed'), u.run_id, u.reason,
         stellwerk.causing_run(g.cause), stellwerk.depth_after(g.cause), g.created_at, v_now, g.source_oid, g.login,
         stellwerk.actor_told(g.actor), stellwerk.traceparent_told(g.traceparent)
    from gone g
    join unnest(p_event_ids, p_records, p_states, p_reasons, p_run_ids) u (event_id, record_id, state, reason, run_id) on u.event_id = g.event_id;
end
$$;
comment on function stellwerk.log_events(bigint, bigint[], text[], text[], text[], bigint[]) is 'Moves events from the inbox to the log with what became of them: processed with their run, or the state and reason given.';

create or replace function stellwerk.event_plan(p_tenant_id bigint, p_watch_id bigint)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_watch    stellwerk.table_watch;
  v_workflow stellwerk.workflow;
  v_nodes    text[];
begin
  select * into v_watch from stellwerk.table_watch w where w.tenant_id = p_tenant_id and w.watch_id = p_watch_id;
  if v_watch.watch_id is null then
    return null;
  elsif v_watch.state = 'disarmed' then
    return jsonb_build_object('state', 'ignored', 'reason', 'the watch was disarmed', 'keys', v_watch.key_columns, 'table', v_watch.target_oid::text);
  end if;
  select * into v_workflow from stellwerk.workflow f where f.tenant_id = p_tenant_id and f.workflow_id = v_watch.workflow_id;
  if v_workflow.active_version is null then
    return jsonb_build_object('state', 'ignored', 'reason', format('workflow %s has no published version', v_workflow.slug), 'keys', v_watch.key_columns,
      'table', v_watch.target_oid::text);
  end if;
  v_nodes := array(select n.node_id from stellwerk.plan_node n
                    where n.tenant_id = p_tenant_id and n.workflow_id = v_watch.workflow_id and n.version = v_workflow.active_version
                      and n.type = 'trigger.row' and (v_watch.trigger_node is null or n.node_id = v_watch.trigger_node));
  if cardinality(v_nodes) <> 1 then
    return jsonb_build_object('state', 'failed', 'keys', v_watch.key_columns, 'table', v_watch.target_oid::text, 'reason',
      format('version %s of workflow %s has %s', v_workflow.active_version, v_workflow.slug,
             case when v_watch.trigger_node is not null then format('no trigger.row node %s', v_watch.trigger_node)
                  when cardinality(v_nodes) = 0 then 'no trigger.row node' else 'several trigger.row nodes; watch the table again as slug/node' end));
  end if;
  return jsonb_build_object('workflow_id', v_watch.workflow_id, 'version', v_workflow.active_version, 'node_id', v_nodes[1],
    'keys', v_watch.key_columns, 'table', v_watch.target_oid::text,
    'schema', (select d.input_schema from stellwerk.workflow_version d
                where d.tenant_id = p_tenant_id and d.workflow_id = v_watch.workflow_id and d.version = v_workflow.active_version));
end
$$;
comment on function stellwerk.event_plan(bigint, bigint) is 'What the events of a watch start now: workflow, version, node, keys, schema; or state and reason if nothing. Null when the watch is gone.';

create or replace function stellwerk.event_objection(p_plan jsonb, p_size bigint, p_payload jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  c_max_bytes constant bigint := 8 * 1024 * 1024;
  v_problems  jsonb;
begin
  if p_plan is null or p_plan = 'null' then
    return '{"state": "ignored", "reason": "the watch was removed"}'::jsonb;
  elsif p_plan ? 'state' then
    return jsonb_build_object('state', p_plan -> 'state', 'reason', p_plan -> 'reason');
  elsif p_size > c_max_bytes then
    return jsonb_build_object('state', 'failed', 'reason', format('the row has %s bytes as JSON, more than the limit of %s (8 MB)', p_size, c_max_bytes));
  elsif p_payload is null then
    return '{"state": "failed", "reason": "the row was too large to be captured"}'::jsonb;
  end if;
  perform stellwerk.check_payload(p_payload, 'row');
  if jsonb_typeof(p_plan -> 'schema') = 'object' then
    v_problems := stellwerk.schema_problems(p_plan -> 'schema', p_payload);
    if jsonb_array_length(coalesce(v_problems, '[]')) > 0 then
      return jsonb_build_object('state', 'failed', 'reason', 'the row does not fit the workflow''s input_schema: ' || (
        select string_agg(concat_ws(': ', nullif(p.value ->> 'path', ''), p.value ->> 'message'), '; ') from jsonb_array_elements(v_problems) p (value)));
    end if;
  end if;
  return null;
end
$$;
comment on function stellwerk.event_objection(jsonb, bigint, jsonb) is 'Why an event starts nothing, as { state, reason }; null if it may start a run. Raises SW002 for a row that is nested too deeply or holds too long a number.';
