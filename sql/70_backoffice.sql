-- The run's case: handed over by action.backoffice_push, its status set by action.backoffice_status_update or by people.

-- The run is locked, so nobody else makes its case between the update and the insert.
create or replace function stellwerk.push_case(p_tenant_id bigint, p_token stellwerk.token, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_before  stellwerk.backoffice_case;
  v_case    stellwerk.backoffice_case;
  v_fields  jsonb := coalesce(nullif(p_config -> 'field_map', 'null'), '{}');
  v_status  text := p_config ->> 'status';
  v_now     timestamptz := stellwerk.clock();
  v_output  jsonb;
  v_trouble jsonb := coalesce(stellwerk.case_status_trouble(p_tenant_id, p_token, v_status),
                              stellwerk.case_appointment_trouble(p_tenant_id, p_token, p_config -> 'appointment'));
begin
  if v_trouble is not null then
    return row(null, p_config, null, v_trouble)::stellwerk.outcome;
  end if;
  select * into v_before from stellwerk.backoffice_case c where c.tenant_id = p_tenant_id and c.run_id = p_token.run_id for update;
  if v_before.case_id is not null then
    update stellwerk.backoffice_case c
       set payload = c.payload || v_fields, summary = coalesce(p_config ->> 'summary', c.summary), status = coalesce(v_status, c.status),
           version = c.version + 1, updated_at = v_now
     where c.tenant_id = p_tenant_id and c.case_id = v_before.case_id
    returning * into v_case;
  else
    insert into stellwerk.backoffice_case (tenant_id, run_id, workflow, payload, summary, status, created_at, updated_at)
    values (p_tenant_id, p_token.run_id, stellwerk.slug_of(p_tenant_id, p_token.workflow_id), v_fields, p_config ->> 'summary', v_status, v_now, v_now)
    returning * into v_case;
  end if;
  perform stellwerk.note_case_change(v_before, v_case, 'run:' || p_token.run_id, p_token.run_id, p_token.step_id, null);
  v_output := jsonb_build_object('case_id', v_case.case_id::text, 'created', v_before.case_id is null);
  if coalesce(p_config -> 'appointment', 'null') <> 'null' then
    v_output := v_output || jsonb_build_object('appointment_id', stellwerk.push_case_appointment(v_case, p_token, p_config -> 'appointment')::text);
  end if;
  perform stellwerk.order_case_export(v_case, p_token.step_id, p_config ->> 'drop_folder');
  return row('next', p_config, v_output, null)::stellwerk.outcome;
end
$$;
comment on function stellwerk.push_case(bigint, stellwerk.token, jsonb) is 'action.backoffice_push: creates the run''s case or adds to it; field_map is its data. Fails the step for a status that the workflow has not declared.';

create or replace function stellwerk.update_case_status(
  p_tenant_id bigint, p_token stellwerk.token, p_config jsonb, p_has_condition boolean, p_complete boolean)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_status  text := case when not p_has_condition then p_config ->> 'status'
                         when p_complete then p_config ->> 'status_complete'
                         else p_config ->> 'status_missing' end;
  v_trouble jsonb := stellwerk.case_status_trouble(p_tenant_id, p_token, v_status);
  v_now     timestamptz := stellwerk.clock();
  v_before  stellwerk.backoffice_case;
  v_case    stellwerk.backoffice_case;
begin
  if v_trouble is not null then
    return row(null, p_config, null, v_trouble)::stellwerk.outcome;
  end if;
  select * into v_before from stellwerk.backoffice_case c where c.tenant_id = p_tenant_id and c.run_id = p_token.run_id for update;
  if v_before.case_id is not null then
    update stellwerk.backoffice_case c
       set status = coalesce(v_status, c.status), note = coalesce(p_config ->> 'note', c.note), version = c.version + 1, updated_at = v_now
     where c.tenant_id = p_tenant_id and c.case_id = v_before.case_id
    returning * into v_case;
  else
    insert into stellwerk.backoffice_case (tenant_id, run_id, workflow, status, note, created_at, updated_at)
    values (p_tenant_id, p_token.run_id, stellwerk.slug_of(p_tenant_id, p_token.workflow_id), v_status, p_config ->> 'note', v_now, v_now)
    returning * into v_case;
  end if;
  perform stellwerk.note_case_change(v_before, v_case, 'run:' || p_token.run_id, p_token.run_id, p_token.step_id, null);
  perform stellwerk.order_case_export(v_case, p_token.step_id, p_config ->> 'drop_folder');
  return row('next', p_config, jsonb_build_object('case_id', v_case.case_id::text, 'status', v_case.status), null)::stellwerk.outcome;
end
$$;
comment on function stellwerk.update_case_status(bigint, stellwerk.token, jsonb, boolean, boolean) is 'action.backoffice_status_update: status and note of the run''s case, which is made if there is none. Fails the step for a status that the workflow has not declared.';

create or replace function stellwerk.slug_of(p_tenant_id bigint, p_workflow_id bigint)
returns text language sql stable set search_path = '' as $$
  select w.slug from stellwerk.workflow w where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id
$$;
comment on function stellwerk.slug_of(bigint, bigint) is 'A workflow''s slug.';

-- What a workflow has not declared it cannot set; texts that stand in the document were checked when it was compiled.
create or replace function stellwerk.case_status_trouble(p_tenant_id bigint, p_token stellwerk.token, p_status text)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_known jsonb;
begin
  if p_status is null then
    return null;
  end if;
  select v.settings -> 'case_statuses' into v_known
    from stellwerk.workflow_version v
   where v.tenant_id = p_tenant_id and v.workflow_id = p_token.workflow_id and v.version = p_token.version;
  if coalesce(v_known, 'null') = 'null' or exists (select from jsonb_array_elements(v_known) k (item) where k.item ->> 'status' = p_status) then
    return null;
  end if;
  return stellwerk.step_error(p_token, 'unknown_status', format('the workflow declares no case status %s: there are %s', quote_literal(left(p_status, 100)),
    (select string_agg(k.item ->> 'status', ', ' order by k.place) from jsonb_array_elements(v_known) with ordinality k (item, place))), false);
end
$$;
comment on function stellwerk.case_status_trouble(bigint, stellwerk.token, text) is 'The error of a step that sets a status which its workflow has not declared; null when all is well.';

create or replace function stellwerk.case_changes(p_before stellwerk.backoffice_case, p_after stellwerk.backoffice_case)
returns jsonb language sql immutable set search_path = ''
begin atomic
  select coalesce(jsonb_object_agg(f.name, jsonb_build_object('from', f.old, 'to', f.new)), '{}')
    from (select f.name, f.old, f.new
            from (values ('status', to_jsonb(p_before.status), to_jsonb(p_after.status)), ('note', to_jsonb(p_before.note), to_jsonb(p_after.note)),
                         ('summary', to_jsonb(p_before.summary), to_jsonb(p_after.summary)),
                         ('assignee', to_jsonb(p_before.assignee), to_jsonb(p_after.assignee))) f (name, old, new)
           union all
          select 'payload.' || coalesce(o.key, n.key), o.value, n.value
            from jsonb_each(coalesce(p_before.payload, '{}')) o full join jsonb_each(p_after.payload) n on n.key = o.key) f
   where f.old is distinct from f.new;
end;
comment on function stellwerk.case_changes(stellwerk.backoffice_case, stellwerk.backoffice_case) is 'What differs between two states of a case, as { name: { from, to } }.';

create or replace function stellwerk.note_case_change(
  p_before stellwerk.backoffice_case, p_after stellwerk.backoffice_case, p_actor text, p_run_id bigint, p_step_id bigint, p_remark text)
returns void language sql volatile set search_path = '' as $$
  insert into stellwerk.case_history (tenant_id, case_id, kind, status, note, changes, remark, version, actor, run_id, step_id, changed_at)
  values (p_after.tenant_id, p_after.case_id, 'change', p_after.status, p_after.note, stellwerk.case_changes(p_before, p_after), p_remark, p_after.version,
          p_actor, p_run_id, p_step_id, p_after.updated_at)
$$;
comment on function stellwerk.note_case_change(stellwerk.backoffice_case, stellwerk.backoffice_case, text, bigint, bigint, text) is 'Writes the history of a change of a case: what it was (null for a new one), what it is, who did it.';

create or replace function stellwerk.fill_case_search()
returns trigger language plpgsql set search_path = '' as $$
begin
  new.search := to_tsvector('simple'::regconfig, concat_ws(' ', left(new.summary, 10000), left(new.note, 100000)))
                || case when octet_length(new.payload::text) < 200000 then jsonb_to_tsvector('simple'::regconfig, new.payload, '["string", "numeric"]')
                          -- Once more in pieces, so that the beginning of a mail address or of a name with a hyphen finds it.
                          || to_tsvector('simple'::regconfig, (select coalesce(string_agg(translate(f.value, '@.-_/', '     '), ' '), '')
                                                                 from jsonb_each_text(new.payload) f where f.value ~ '[@.\-_/]'))
                        else ''::tsvector end;
  return new;
end
$$;
comment on function stellwerk.fill_case_search() is 'Trigger: the words that a case is found by. A payload of 200 kB and more is not searched.';

create or replace trigger backoffice_case_search before insert or update of payload, summary, note on stellwerk.backoffice_case
  for each row execute function stellwerk.fill_case_search();

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
           array['case_id', 'run_id', 'workflow', 'status', 'assignee', 'note', 'summary', 'created_at', 'updated_at'] || coalesce(array_agg(f.key order by f.key), '{}'),
           array[v_case.case_id::text, v_case.run_id::text, v_case.workflow, v_case.status, v_case.assignee, v_case.note, v_case.summary,
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
