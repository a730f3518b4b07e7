-- Steering many runs at once. A bulk operation is a row: it is counted, then its runs are fixed, then tick carries it out in
-- portions. Each run has a subtransaction of its own and goes through the same function as the verb for one run.

create or replace function stellwerk.start_bulk_operation(
  action text, filter jsonb, dry_run boolean default true, rate integer default null, stop_on_error double precision default null, options jsonb default '{}')
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_id        bigint;
begin
  if action is null or action not in ('cancel', 'pause', 'resume', 'retry', 'skip', 'migrate') then
    raise exception 'there is no bulk operation %', coalesce(quote_literal(action), 'null')
      using errcode = 'SW002', hint = 'There are cancel, pause, resume, retry, skip and migrate.';
  end if;
  if rate <= 0 or stop_on_error not between 0 and 1 then
    raise exception 'rate % or stop_on_error % is out of range', rate, stop_on_error
      using errcode = 'SW002', hint = 'rate is a number of runs per second above 0, stop_on_error a share from 0 to 1; null sets no limit.';
  end if;
  perform stellwerk.check_bulk_filter(v_tenant_id, action, filter);
  perform stellwerk.check_bulk_options(action, coalesce(options, '{}'));
  if action = 'migrate' then
    perform stellwerk.check_bulk_migration(v_tenant_id, filter, coalesce(options, '{}'));
    filter := stellwerk.filter_to_migrate(v_tenant_id, filter, options);
  end if;
  insert into stellwerk.bulk_operation (tenant_id, action, filter, options, rate, stop_on_error, created_by, history)
  values (v_tenant_id, start_bulk_operation.action, start_bulk_operation.filter, coalesce(start_bulk_operation.options, '{}'),
          start_bulk_operation.rate, start_bulk_operation.stop_on_error, stellwerk.actor(), stellwerk.bulk_history('draft', stellwerk.actor()))
  returning operation_id into v_id;
  perform stellwerk.note_action(v_tenant_id, 'start_bulk_operation', 'bulk_operation', v_id::text, null, jsonb_build_object(
    'action', start_bulk_operation.action, 'filter', start_bulk_operation.filter, 'options', coalesce(start_bulk_operation.options, '{}'),
    'dry_run', coalesce(dry_run, true)));
  if coalesce(dry_run, true) then
    perform stellwerk.count_bulk_runs(v_tenant_id, v_id);
  else
    perform stellwerk.begin_bulk_operation(v_tenant_id, v_id);
  end if;
  return v_id;
end
$$;
comment on function stellwerk.start_bulk_operation(text, jsonb, boolean, integer, double precision, jsonb) is 'Orders cancel, pause, resume, retry, skip or migrate for all runs that fit a filter and answers the number of its row in bulk_operation. A dry run, the default, leaves a draft with the count in total; resume_bulk_operation begins it. skip ends the waiting or queued steps on the filter''s node; migrate moves runs of one workflow to options'' version, by its node_map. Errors: SW001, SW002, SW003, SW005.';

create or replace function stellwerk.resume_bulk_operation(operation_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_operation stellwerk.bulk_operation := stellwerk.lock_bulk_operation(v_tenant_id, operation_id, array['draft', 'paused']);
begin
  perform stellwerk.note_action(v_tenant_id, 'resume_bulk_operation', 'bulk_operation', operation_id::text, jsonb_build_object('state', v_operation.state), null);
  if v_operation.state = 'draft' then
    perform stellwerk.begin_bulk_operation(v_tenant_id, operation_id);
    return;
  end if;
  update stellwerk.bulk_operation o
     set state = 'running', worked_at = stellwerk.clock(), history = o.history || stellwerk.bulk_history('running', stellwerk.actor())
   where o.tenant_id = v_tenant_id and o.operation_id = resume_bulk_operation.operation_id;
  perform stellwerk.ring_if_asleep();
end
$$;
comment on function stellwerk.resume_bulk_operation(bigint) is 'Begins a draft, fixing its runs now, or goes on with a paused bulk operation. Errors: SW007, SW003.';

create or replace function stellwerk.pause_bulk_operation(operation_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  perform stellwerk.lock_bulk_operation(v_tenant_id, operation_id, array['running']);
  perform stellwerk.note_action(v_tenant_id, 'pause_bulk_operation', 'bulk_operation', operation_id::text, '{"state": "running"}', null);
  update stellwerk.bulk_operation o set state = 'paused', history = o.history || stellwerk.bulk_history('paused', stellwerk.actor())
   where o.tenant_id = v_tenant_id and o.operation_id = pause_bulk_operation.operation_id;
end
$$;
comment on function stellwerk.pause_bulk_operation(bigint) is 'Holds a running bulk operation after the portion that is being done. Errors: SW007, SW003.';

create or replace function stellwerk.cancel_bulk_operation(operation_id bigint, reason text default null)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_operation stellwerk.bulk_operation := stellwerk.lock_bulk_operation(v_tenant_id, operation_id, array['draft', 'running', 'paused']);
begin
  perform stellwerk.note_action(v_tenant_id, 'cancel_bulk_operation', 'bulk_operation', operation_id::text,
    jsonb_build_object('state', v_operation.state), jsonb_build_object('reason', reason));
  update stellwerk.bulk_operation o
     set state = 'cancelled', reason = cancel_bulk_operation.reason, ended_at = stellwerk.clock(), ended_by = stellwerk.actor(),
         history = o.history || stellwerk.bulk_history('cancelled', stellwerk.actor())
   where o.tenant_id = v_tenant_id and o.operation_id = cancel_bulk_operation.operation_id;
end
$$;
comment on function stellwerk.cancel_bulk_operation(bigint, text) is 'Ends a bulk operation; what it has done stays done, and the runs that were still to come stay as they are. Errors: SW007, SW003.';

create or replace function stellwerk.lock_bulk_operation(p_tenant_id bigint, p_operation_id bigint, p_states text[])
returns stellwerk.bulk_operation language plpgsql set search_path = '' as $$
declare
  v_operation stellwerk.bulk_operation;
begin
  select * into v_operation from stellwerk.bulk_operation o
   where o.tenant_id = p_tenant_id and o.operation_id = p_operation_id for no key update;
  if v_operation.operation_id is null then
    raise exception 'there is no bulk operation %', coalesce(p_operation_id::text, 'null')
      using errcode = 'SW007', hint = 'select operation_id, action, state from stellwerk.bulk_operation lists them.';
  elsif v_operation.state <> all (p_states) then
    raise exception 'bulk operation % is %', p_operation_id, v_operation.state
      using errcode = 'SW003', hint = 'This can be done to one that is ' || array_to_string(p_states, ' or ') || '.';
  end if;
  return v_operation;
end
$$;
comment on function stellwerk.lock_bulk_operation(bigint, bigint, text[]) is 'A bulk operation in one of the states given, locked; SW007 when there is none, SW003 in another state.';

create or replace function stellwerk.bulk_history(p_state text, p_by text)
returns jsonb language sql volatile set search_path = '' as $$
  select jsonb_build_array(jsonb_strip_nulls(jsonb_build_object('at', stellwerk.clock(), 'state', p_state, 'by', p_by)))
$$;
comment on function stellwerk.bulk_history(text, text) is 'An entry for the history of a bulk operation: from now on it is in this state, by somebody''s order or, without a name, by itself.';

-- What a filter may hold. It is data throughout: keys are fixed, values are compared and never evaluated.

create or replace function stellwerk.check_bulk_filter(p_tenant_id bigint, p_action text, p_filter jsonb)
returns void language plpgsql stable set search_path = '' as $$
declare
  c_keys constant text[] := array['workflow', 'version', 'state', 'node', 'error_class', 'created_after', 'created_before', 'payload', 'run_ids'];
  v_allowed text[] := stellwerk.bulk_states(p_action, null);
  v_key     text;
  v_value   jsonb;
  v_kind    text;
begin
  if p_filter is null or jsonb_typeof(p_filter) <> 'object' or p_filter = '{}' then
    raise exception 'the filter is no object with at least one key'
      using errcode = 'SW002', hint = 'Keys are ' || array_to_string(c_keys, ', ') || '; {"state": …} alone takes all runs in that state.';
  end if;
  for v_key, v_value in select f.key, f.value from jsonb_each(p_filter) f loop
    v_kind := case
      when v_key <> all (c_keys) then 'unknown'
      when v_key = 'payload' and jsonb_typeof(v_value) <> 'object' then 'a JSON object that the payload contains'
      when v_key = 'run_ids' and (jsonb_typeof(v_value) <> 'array' or jsonb_array_length(v_value) not between 1 and 100000
           or v_value @? '$[*] ? (@.type() != "number" && @.type() != "string")'
           or exists (select from jsonb_array_elements_text(v_value) e (value) where e.value !~ '^\d{1,18}$')) then 'an array of 1 to 100,000 numbers of runs'
      when v_key = 'version' and exists (select from stellwerk.bulk_values(v_value) e (value) where e.value !~ '^\d{1,9}$') then 'a version or an array of versions'
      when v_key in ('created_after', 'created_before') and stellwerk.bulk_time(v_value) is null then 'a time, such as 2026-01-31T12:00:00Z'
      when v_key in ('workflow', 'version', 'state', 'node', 'error_class')
           and not exists (select from stellwerk.bulk_values(v_value) e (value) where e.value is not null) then 'a text or an array of texts' end;
    if v_kind = 'unknown' then
      raise exception 'the filter has the unknown key %', quote_literal(v_key)
        using errcode = 'SW002', hint = 'Keys are ' || array_to_string(c_keys, ', ') || '.';
    elsif v_kind is not null then
      raise exception 'the filter''s % is not %', v_key, v_kind
        using errcode = 'SW002', detail = format('It is %s.', left(v_value::text, 200)), hint = 'Several values of one key are alternatives; all keys must fit.';
    end if;
  end loop;
  if p_action = 'skip' and not p_filter ? 'node' then
    raise exception 'the filter names no node to skip'
      using errcode = 'SW002', hint = 'For example {"workflow": "orders", "node": "confirmed"}: the steps that wait on it are skipped.';
  end if;
  if exists (select from stellwerk.bulk_values(p_filter -> 'state') e (value) where e.value <> all (v_allowed)) then
    raise exception 'the filter''s state is none to %', p_action
      using errcode = 'SW002', hint = format('One can %s runs that are %s.', p_action, array_to_string(v_allowed, ', '));
  end if;
  perform stellwerk.find_workflow(p_tenant_id, e.value) from stellwerk.bulk_values(p_filter -> 'workflow') e (value);
end
$$;
comment on function stellwerk.check_bulk_filter(bigint, text, jsonb) is 'Raises SW002 for a filter with unknown keys, wrong values or none at all, and SW001 for an unknown workflow.';

create or replace function stellwerk.bulk_values(p_value jsonb)
returns setof text language sql immutable set search_path = '' as $$
  select e.value #>> '{}'
    from jsonb_array_elements(case jsonb_typeof(p_value) when 'array' then p_value when 'string' then jsonb_build_array(p_value)
                                                         when 'number' then jsonb_build_array(p_value) else '[]' end) e (value)
   where jsonb_typeof(e.value) in ('string', 'number')
$$;
comment on function stellwerk.bulk_values(jsonb) is 'The alternatives of a filter''s key: a text, a number, or an array of them.';

create or replace function stellwerk.bulk_states(p_action text, p_filter jsonb)
returns text[] language sql stable set search_path = '' as $$
  select case when p_filter ? 'state' then array(select e.value from stellwerk.bulk_values(p_filter -> 'state') e (value))
              when p_action in ('cancel', 'migrate') then array['pending', 'running', 'waiting', 'paused']
              when p_action = 'pause' then array['pending', 'running', 'waiting']
              when p_action = 'skip' then array['running', 'waiting', 'paused']
              when p_action = 'resume' then array['paused']
              -- Cancelled runs are retried only by those who say so.
              when p_filter is null then array['failed', 'cancelled']
              else array['failed'] end
$$;
comment on function stellwerk.bulk_states(text, jsonb) is 'The states of the runs that a bulk operation takes; without a filter those that it may take.';

create or replace function stellwerk.bulk_time(p_value jsonb)
returns timestamptz language plpgsql stable set search_path = '' as $$
begin
  return case when jsonb_typeof(p_value) = 'string' then (p_value #>> '{}')::timestamptz end;
exception when data_exception then
  return null;
end
$$;
comment on function stellwerk.bulk_time(jsonb) is 'A time of a filter; null if it is none.';

create or replace function stellwerk.check_bulk_options(p_action text, p_options jsonb)
returns void language plpgsql immutable set search_path = '' as $$
declare
  v_known text[] := case p_action when 'cancel' then array['reason', 'compensate'] when 'retry' then array['from_node', 'version']
                                    when 'skip' then array['output', 'port'] when 'migrate' then array['version', 'node_map'] else '{}' end;
  v_wrong text;
begin
  if jsonb_typeof(p_options) <> 'object' then
    raise exception 'the options are no JSON object' using errcode = 'SW002', hint = 'Use ''{}'' for none.';
  end if;
  select string_agg(quote_literal(o.key), ', ') into v_wrong from jsonb_each(p_options) o
   where o.key <> all (v_known)
      or o.key <> 'output' and jsonb_typeof(o.value) <> case o.key when 'compensate' then 'boolean' when 'version' then 'number' when 'node_map' then 'object' else 'string' end;
  if v_wrong is not null then
    raise exception 'bulk operation % cannot use the options %', p_action, v_wrong
      using errcode = 'SW002', hint = coalesce('It has ' || nullif(array_to_string(v_known, ', '), '') || '.', 'It has none.');
  end if;
end
$$;
comment on function stellwerk.check_bulk_options(text, jsonb) is 'Raises SW002 for options that an action does not have.';
