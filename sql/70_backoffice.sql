-- The run's case: handed over by action.backoffice_push, its status set by action.backoffice_status_update or by people.

-- The run is locked, so nobody else makes its case between the update and the insert.
create or replace function stellwerk.push_case(p_tenant_id bigint, p_token stellwerk.token, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_case    stellwerk.backoffice_case;
  v_fields  jsonb := coalesce(nullif(p_config -> 'field_map', 'null'), '{}');
  v_created boolean;
begin
  update stellwerk.backoffice_case c
     set payload = c.payload || v_fields, summary = coalesce(p_config ->> 'summary', c.summary), status = coalesce(p_config ->> 'status', c.status),
         updated_at = clock_timestamp()
   where c.tenant_id = p_tenant_id and c.run_id = p_token.run_id
  returning * into v_case;
  v_created := not found;
  if v_created then
    insert into stellwerk.backoffice_case (tenant_id, run_id, workflow, payload, summary, status)
    values (p_tenant_id, p_token.run_id, stellwerk.slug_of(p_tenant_id, p_token.workflow_id), v_fields, p_config ->> 'summary', p_config ->> 'status')
    returning * into v_case;
  end if;
  perform stellwerk.note_case_change(v_case, p_token);
  perform stellwerk.order_case_export(v_case, p_token.step_id, p_config ->> 'drop_folder');
  return row('next', p_config, jsonb_build_object('case_id', v_case.case_id::text, 'created', v_created), null)::stellwerk.outcome;
end
$$;
comment on function stellwerk.push_case(bigint, stellwerk.token, jsonb) is 'action.backoffice_push: creates the run''s case or adds to it; field_map is its data.';

create or replace function stellwerk.update_case_status(
  p_tenant_id bigint, p_token stellwerk.token, p_config jsonb, p_has_condition boolean, p_complete boolean)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_status text := case when not p_has_condition then p_config ->> 'status'
                        when p_complete then p_config ->> 'status_complete'
                        else p_config ->> 'status_missing' end;
  v_case   stellwerk.backoffice_case;
begin
  update stellwerk.backoffice_case c
     set status = coalesce(v_status, c.status), note = coalesce(p_config ->> 'note', c.note), updated_at = clock_timestamp()
   where c.tenant_id = p_tenant_id and c.run_id = p_token.run_id
  returning * into v_case;
  if not found then
    insert into stellwerk.backoffice_case (tenant_id, run_id, workflow, status, note)
    values (p_tenant_id, p_token.run_id, stellwerk.slug_of(p_tenant_id, p_token.workflow_id), v_status, p_config ->> 'note')
    returning * into v_case;
  end if;
  perform stellwerk.note_case_change(v_case, p_token);
  perform stellwerk.order_case_export(v_case, p_token.step_id, p_config ->> 'drop_folder');
  return row('next', p_config, jsonb_build_object('case_id', v_case.case_id::text, 'status', v_case.status), null)::stellwerk.outcome;
end
$$;
comment on function stellwerk.update_case_status(bigint, stellwerk.token, jsonb, boolean, boolean) is 'action.backoffice_status_update: status and note of the run''s case, which is made if there is none.';

create or replace function stellwerk.slug_of(p_tenant_id bigint, p_workflow_id bigint)
returns text language sql stable set search_path = '' as $$
  select w.slug from stellwerk.workflow w where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id
$$;
comment on function stellwerk.slug_of(bigint, bigint) is 'A workflow''s slug.';

create or replace function stellwerk.note_case_change(p_case stellwerk.backoffice_case, p_token stellwerk.token)
returns void language sql volatile set search_path = '' as $$
  insert into stellwerk.case_history (tenant_id, case_id, status, note, actor, run_id, step_id)
  values (p_case.tenant_id, p_case.case_id, p_case.status, p_case.note, 'run:' || p_token.run_id, p_token.run_id, p_token.step_id)
$$;
comment on function stellwerk.note_case_change(stellwerk.backoffice_case, stellwerk.token) is 'Writes the history of a change that a workflow made.';

create or replace function stellwerk.order_case_export(p_case stellwerk.backoffice_case, p_step_id bigint, p_folder text)
returns void language plpgsql set search_path = '' as $$
declare
  v_export_id bigint;
begin
  if coalesce(p_folder, '') = '' then
    return;
  end if;
  insert into stellwerk.case_export (tenant_id, case_id, step_id, folder) values (p_case.tenant_id, p_case.case_id, p_step_id, p_folder)
  returning export_id into v_export_id;
  update stellwerk.case_export x
     set job_id = stellwerk.enqueue_job('case.export', jsonb_build_object('t', p_case.tenant_id, 'export', v_export_id))
   where x.tenant_id = p_case.tenant_id and x.export_id = v_export_id;
end
$$;
comment on function stellwerk.order_case_export(stellwerk.backoffice_case, bigint, text) is 'Orders a CSV file of the case in a folder; a worker writes it after the commit.';

create or replace function stellwerk.begin_case_export(p_tenant_id bigint, p_export_id bigint)
returns table (folder text, file_name text, columns text[], cells text[]) language plpgsql security definer  -- workers have no right to write the table
set search_path = '' as $$
declare
  v_export stellwerk.case_export;
  v_case   stellwerk.backoffice_case;
begin
  update stellwerk.case_export x set attempts = x.attempts + 1
   where x.tenant_id = p_tenant_id and x.export_id = p_export_id and x.state = 'queued'
  returning * into v_export;
  if v_export.export_id is null then
    return;
  end if;
  select * into v_case from stellwerk.backoffice_case c where c.tenant_id = p_tenant_id and c.case_id = v_export.case_id;
  return query
    select v_export.folder, format('case-%s-%s.csv', v_case.case_id, v_export.export_id),
           array['case_id', 'run_id', 'workflow', 'status', 'note', 'summary', 'created_at', 'updated_at'] || coalesce(array_agg(f.key order by f.key), '{}'),
           array[v_case.case_id::text, v_case.run_id::text, v_case.workflow, v_case.status, v_case.note, v_case.summary,
                 to_char(v_case.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                 to_char(v_case.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')]
             || coalesce(array_agg(f.value #>> '{}' order by f.key), '{}')
      from jsonb_each(v_case.payload) f;
end
$$;
comment on function stellwerk.begin_case_export(bigint, bigint) is 'What a worker needs to write an ordered CSV file; no row when it is written already.';

create or replace function stellwerk.end_case_export(p_tenant_id bigint, p_export_id bigint, p_error text)
returns void language plpgsql security definer  -- workers have no right to write the table
set search_path = '' as $$
begin
  update stellwerk.case_export x
     set error = p_error,
         ended_at = case when p_error is null or x.attempts >= 5 then clock_timestamp() end,
         state = case when p_error is null then 'written' when x.attempts >= 5 then 'failed' else 'queued' end
   where x.tenant_id = p_tenant_id and x.export_id = p_export_id and x.state = 'queued';
end
$$;
comment on function stellwerk.end_case_export(bigint, bigint, text) is 'Records that a CSV file was written, or why not: it is tried again by tick, 5 times.';
