-- Starting and cancelling runs. These verbs only write rows and ring; nodes are run by pump.

create or replace function stellwerk.start_run(
  workflow text, payload jsonb default '{}', idempotency_key text default null, run_at timestamptz default now(), priority integer default 0)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(v_tenant_id, workflow);
  v_order     stellwerk.run_order;
  v_run_id    bigint;
  v_known     bigint;
begin
  v_order := stellwerk.check_order(v_tenant_id, v_workflow, payload);
  v_order.source := 'sql';
  v_order.run_at := run_at;
  v_order.priority := nullif(priority, 0);  -- 0 leaves it to the workflow
  v_order.depth := 0;
  if idempotency_key is not null then
    if length(idempotency_key) not between 1 and 500 then
      raise exception 'an idempotency key has 1 to 500 characters, not %', length(idempotency_key)
        using errcode = 'SW002', hint = 'Hash longer ones.';
    end if;
    v_run_id := nextval('stellwerk.run_id_seq');
    insert into stellwerk.run_key (tenant_id, workflow_id, idempotency_key, run_id)
    values (v_tenant_id, v_workflow.workflow_id, start_run.idempotency_key, v_run_id)
    on conflict do nothing;
    if not found then
      select k.run_id into v_known from stellwerk.run_key k
       where k.tenant_id = v_tenant_id and k.workflow_id = v_workflow.workflow_id and k.idempotency_key = start_run.idempotency_key;
      return v_known;
    end if;
    v_order.idempotency_key := idempotency_key;
  end if;
  v_run_id := (stellwerk.insert_runs(v_tenant_id, array[v_order], array[v_run_id]))[1];
  perform stellwerk.ring_if_asleep();
  return v_run_id;
end
$$;
comment on function stellwerk.start_run(text, jsonb, text, timestamptz, integer) is 'Starts a run of a workflow''s active version and answers its number at once; a known idempotency key answers the first run. Errors: SW001 unknown or unpublished workflow, SW002 payload.';

create or replace function stellwerk.check_order(p_tenant_id bigint, p_workflow stellwerk.workflow, p_payload jsonb)
returns stellwerk.run_order language plpgsql stable set search_path = '' as $$
declare
  v_order    stellwerk.run_order;
  v_schema   jsonb;
  v_problems jsonb;
begin
  if p_workflow.active_version is null then
    raise exception 'workflow % has no published version', quote_literal(p_workflow.slug)
      using errcode = 'SW001', hint = format('stellwerk workflow publish %s', p_workflow.slug);
  end if;
  perform stellwerk.check_payload(p_payload);
  select d.input_schema into v_schema from stellwerk.workflow_version d
   where d.tenant_id = p_tenant_id and d.workflow_id = p_workflow.workflow_id and d.version = p_workflow.active_version;
  if v_schema is not null then
    v_problems := stellwerk.schema_problems(v_schema, p_payload);
    if jsonb_array_length(coalesce(v_problems, '[]')) > 0 then
      raise exception 'the payload does not fit the input_schema of workflow %', quote_literal(p_workflow.slug)
        using errcode = 'SW002',
              detail = (select string_agg(concat_ws(': ', nullif(p.value ->> 'path', ''), p.value ->> 'message'), E'\n')
                          from jsonb_array_elements(v_problems) p(value)),
              hint = format('stellwerk workflow show %s prints the schema.', p_workflow.slug);
    end if;
  end if;
  v_order.workflow_id := p_workflow.workflow_id;
  v_order.version := p_workflow.active_version;
  v_order.payload := p_payload;
  -- Started by hand, a run begins at the manual trigger if there is one, else at the first.
  select n.node_id into v_order.trigger_node from stellwerk.plan_node n
   where n.tenant_id = p_tenant_id and n.workflow_id = v_order.workflow_id and n.version = v_order.version and n.runs_in = 'trigger'
   order by n.type <> 'trigger.manual', n.position limit 1;
  return v_order;
end
$$;
comment on function stellwerk.check_order(bigint, stellwerk.workflow, jsonb) is 'Checks a payload against limits and input_schema and answers the order for a run of the active version. Errors: SW001, SW002.';

create or replace function stellwerk.insert_runs(p_tenant_id bigint, p_orders stellwerk.run_order[], p_run_ids bigint[] default null)
returns bigint[] language plpgsql security definer  -- callers have no right to write the tables
-- Planning an insert into a partitioned table anew costs more than the insert.
set search_path = '' set plan_cache_mode = force_generic_plan as $$
declare
  v_now     timestamptz := stellwerk.clock();
  v_asker   text := stellwerk.asker();
  v_trace   text := stellwerk.trace_of(current_setting('stellwerk.traceparent', true));
  v_run_ids bigint[];
  v_held    boolean;
begin
  select array_agg(coalesce(p_run_ids[o.ordinality], nextval('stellwerk.run_id_seq')) order by o.ordinality) into v_run_ids
    from unnest(p_orders) with ordinality o;
  with inserted as (
  insert into stellwerk.run (
    tenant_id, run_id, workflow_id, version, trigger_node, held, priority, source, payload, old, event_id, idempotency_key,
    caused_by_run_id, depth, parent_run_id, parent_step_id, created_at, start_at, created_by, timeout, traceparent)
  select p_tenant_id, v_run_ids[o.ordinality], o.workflow_id, o.version, o.trigger_node, coalesce(o.run_at > v_now, false) or stellwerk.is_gated(d.settings),
         coalesce(o.priority, (d.settings ->> 'priority')::integer, 0), o.source, coalesce(o.payload, '{}'), o.old, o.event_id, o.idempotency_key,
         o.caused_by_run_id, coalesce(o.depth, 0), o.parent_run_id, o.parent_step_id, v_now, case when o.run_at > v_now then o.run_at end,
         -- Asked only where there is one: who stands behind the caller or the cause stands behind this run.
         case when o.parent_run_id is not null or o.caused_by_run_id is not null
              then stellwerk.asked_by(p_tenant_id, coalesce(o.created_by, v_asker), o.parent_run_id, o.caused_by_run_id)
              else coalesce(o.created_by, v_asker) end,
         (d.settings ->> 'timeout')::interval,
         coalesce(stellwerk.trace_of(o.traceparent),
                  case when o.parent_run_id is not null or o.caused_by_run_id is not null
                       then (select x.traceparent from stellwerk.run x
                              where x.tenant_id = p_tenant_id and x.run_id = coalesce(o.parent_run_id, o.caused_by_run_id)) end,
                  -- Whoever looks at row events is not the one who changed the rows.
                  case when o.event_id is null then v_trace end)
    from unnest(p_orders) with ordinality o (workflow_id, version, trigger_node, payload, old, source, event_id, idempotency_key, run_at, priority,
                                             caused_by_run_id, depth, parent_run_id, parent_step_id, created_by, traceparent, ordinality)
   cross join lateral (
     select x.settings from stellwerk.workflow_version x
      where x.tenant_id = p_tenant_id and x.workflow_id = o.workflow_id and x.version = o.version offset 0) d
  returning held)
  select bool_or(i.held) into v_held from inserted i;
  if v_held then
    insert into stellwerk.timer (tenant_id, kind, run_id, due_at)
    select p_tenant_id, 'start', v_run_ids[o.ordinality], o.run_at
      from unnest(p_orders) with ordinality o (workflow_id, version, trigger_node, payload, old, source, event_id, idempotency_key, run_at, priority,
                                               caused_by_run_id, depth, parent_run_id, parent_step_id, created_by, traceparent, ordinality)
     where o.run_at > v_now;
    perform stellwerk.wait_at_gates(p_tenant_id, v_run_ids);
  end if;
  return v_run_ids;
end
$$;
comment on function stellwerk.insert_runs(bigint, stellwerk.run_order[], bigint[]) is 'Inserts pending runs for orders that have been checked; answers their numbers in the same order. Numbers may be given.';

create or replace function stellwerk.trace_of(p_traceparent text)
returns text language sql immutable parallel safe set search_path = ''
return case when p_traceparent ~ '^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$' then p_traceparent end;
comment on function stellwerk.trace_of(text) is 'A traceparent (W3C Trace Context, version 00) as it was given, if it is well formed; else null.';

create or replace function stellwerk.asker()
returns text language sql stable set search_path = ''
return stellwerk.actor() || coalesce(' for ' || nullif(left(nullif(current_setting('stellwerk.actor', true), ''), 320), stellwerk.actor()), '');
comment on function stellwerk.asker() is 'Who asks for a run: actor(), and for whom the session says to act where that is not to be believed as it stands.';

create or replace function stellwerk.asked_by(p_tenant_id bigint, p_created_by text, p_parent_run_id bigint, p_caused_by_run_id bigint)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_before text := (select r.created_by from stellwerk.run r
                     where r.tenant_id = p_tenant_id and r.run_id = coalesce(p_parent_run_id, p_caused_by_run_id));
begin
  -- Only the engine names a parent; anybody can name a cause, so who did the deed stays in the list.
  if v_before is null or p_parent_run_id is not null then
    return coalesce(v_before, p_created_by);
  elsif v_before = p_created_by or starts_with(v_before, p_created_by || ' for ') then
    return v_before;
  end if;
  return p_created_by || ' for ' || v_before;
end
$$;
comment on function stellwerk.asked_by(bigint, text, bigint, bigint) is 'Who asked for a run that another one called or caused.';

-- The same for any SQL client: insert into stellwerk.run_request (workflow, payload) values (…) returning run_id.
create or replace view stellwerk.run_request with (security_barrier) as
select r.run_id, w.slug as workflow, r.payload, r.idempotency_key, r.start_at as run_at, r.priority
  from stellwerk.run r
  join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id
 where r.tenant_id = stellwerk.current_tenant_id();
comment on view stellwerk.run_request is 'Insert a row to start a run; returning run_id tells its number.';
comment on column stellwerk.run_request.run_id is 'The run; filled in by the insert.';
comment on column stellwerk.run_request.workflow is 'Slug of the workflow to start.';
comment on column stellwerk.run_request.payload is 'What it is started with.';
comment on column stellwerk.run_request.idempotency_key is 'A second insert with the same key answers the first run.';
comment on column stellwerk.run_request.run_at is 'Start no earlier than this; null is now.';
comment on column stellwerk.run_request.priority is 'Higher goes first.';

create or replace function stellwerk.take_run_request()
returns trigger language plpgsql set search_path = '' as $$
begin
  new.payload := coalesce(new.payload, '{}');
  new.priority := coalesce(new.priority, 0);
  new.run_id := stellwerk.start_run(new.workflow, new.payload, new.idempotency_key, coalesce(new.run_at, now()), new.priority);
  return new;
end
$$;
comment on function stellwerk.take_run_request() is 'Trigger: an insert into run_request is start_run.';

create or replace trigger run_request_starts instead of insert on stellwerk.run_request
  for each row execute function stellwerk.take_run_request();

create or replace function stellwerk.lock_run(p_tenant_id bigint, p_run_id bigint)
returns stellwerk.run language plpgsql set search_path = '' as $$
declare
  v_run stellwerk.run;
begin
  select * into v_run from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_run_id for update;
  if v_run.run_id is null then
    raise exception 'there is no run %', coalesce(p_run_id::text, 'null')
      using errcode = 'SW007', hint = 'stellwerk run list shows the latest.';
  end if;
  return v_run;
end
$$;
comment on function stellwerk.lock_run(bigint, bigint) is 'A run, locked against every other move; SW007 when there is none.';
