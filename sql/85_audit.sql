-- The audit log: a trigger for tables that people change, and a function for verbs.
--
-- Rows are written in the transaction of the change, so there is no change without its row and no row without its change.

create or replace function stellwerk.note_action(
  p_tenant_id bigint, p_action text, p_subject text, p_subject_id text, p_before jsonb default null, p_after jsonb default null)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.audit_log (tenant_id, actor, database_user, action, subject, subject_id, before, after)
  values (p_tenant_id, stellwerk.actor(), session_user, p_action, p_subject, p_subject_id, p_before, p_after);
end
$$;
comment on function stellwerk.note_action(bigint, text, text, text, jsonb, jsonb) is 'Writes a row of the audit log: an act of steering, called by the verb that does it, in its transaction. Callers pass no secrets.';

create or replace function stellwerk.note_edit(p_tenant_id bigint, p_run stellwerk.run, p_payload jsonb, p_vars jsonb)
returns void language plpgsql set search_path = '' as $$
declare
  c_large  constant integer := 8192;
  v_before jsonb := '{}'::jsonb;
  v_after  jsonb := '{}'::jsonb;
  v_rules  jsonb := '{}'::jsonb;
begin
  if jsonb_typeof(p_run.payload) = 'object' and jsonb_typeof(p_payload) = 'object' then
    v_before := jsonb_build_object('payload', stellwerk.other_fields(p_run.payload, p_payload));
    v_after := jsonb_build_object('payload', stellwerk.other_fields(p_payload, p_run.payload));
  elsif p_payload is not null then
    v_before := jsonb_build_object('payload', p_run.payload);
    v_after := jsonb_build_object('payload', p_payload);
  end if;
  if p_vars is not null then
    v_before := v_before || jsonb_build_object('vars', (
      select coalesce(jsonb_object_agg(v.name, v.value), '{}') from stellwerk.variable v
       where v.tenant_id = p_tenant_id and v.run_id = p_run.run_id and v.scope_id = 0 and p_vars ? v.name));
    v_after := v_after || jsonb_build_object('vars', p_vars);
  end if;
  if octet_length(v_before::text) + octet_length(v_after::text) > c_large then
    v_rules := '{"hash": ["payload", "vars"]}';
  end if;
  perform stellwerk.note_action(p_tenant_id, 'edit_run', 'run', p_run.run_id::text,
    (select jsonb_object_agg(b.key, stellwerk.audit_value(v_rules, b.key, b.value)) from jsonb_each(v_before) b),
    (select jsonb_object_agg(a.key, stellwerk.audit_value(v_rules, a.key, a.value)) from jsonb_each(v_after) a));
end
$$;
comment on function stellwerk.note_edit(bigint, stellwerk.run, jsonb, jsonb) is 'Writes which fields of a run''s payload and vars somebody changes, as they were and as they will be; large ones as their hash.';

create or replace function stellwerk.other_fields(p_these jsonb, p_those jsonb)
returns jsonb language sql immutable set search_path = ''
return (select coalesce(jsonb_object_agg(f.key, f.value), '{}') from jsonb_each(p_these) f where f.value is distinct from p_those -> f.key);
comment on function stellwerk.other_fields(jsonb, jsonb) is 'The fields of one object that the other does not have, or not with this value.';

-- Put on a table like this; each argument is a word, a colon and names of columns:
--
--   create or replace trigger credential_audited after insert or update or delete on stellwerk.credential
--     for each row execute function stellwerk.audit_row('id:credential_id', 'omit:used_at', 'mask:secret');
--
--   id    the columns that make subject_id, joined by /
--   omit  columns that do not count; an update of these alone leaves no row
--   only  all others do not count
--   mask  columns whose change is told but never their value
--   hash  large columns, told as { sha256, bytes }
--   name  publish=published_at: an update that fills this column is called publish
--   skip  functions whose own changes are not told, because they are recorded elsewhere
create or replace function stellwerk.audit_row()
returns trigger language plpgsql security definer  -- who may change the table need have no right on the log
set search_path = '' as $$
declare
  v_rules  jsonb := stellwerk.audit_rules(tg_argv);
  v_row    jsonb;
  v_old    jsonb;
  v_new    jsonb;
  v_action text := lower(tg_op);
  v_stack  text;
begin
  if v_rules ? 'skip' then
    -- The first function above this one: whoever wrote the statement that fired the trigger.
    get diagnostics v_stack = pg_context;
    if v_rules -> 'skip' ? (regexp_match(v_stack, '\n(?:PL/pgSQL|SQL) function (?:stellwerk\.)?"?(\w+)"?[( ]'))[1] then
      return null;
    end if;
  end if;
  v_old := case when tg_op <> 'INSERT' then to_jsonb(old) end;
  v_new := case when tg_op <> 'DELETE' then to_jsonb(new) end;
  v_row := coalesce(v_new, v_old);
  if v_rules ? 'name' and tg_op = 'UPDATE' then
    select coalesce(max(n.word), v_action) into v_action
      from jsonb_array_elements_text(v_rules -> 'name') r (rule)
     cross join lateral (select split_part(r.rule, '=', 1) as word, split_part(r.rule, '=', 2) as filled) n
     where v_old -> n.filled = 'null' and v_new -> n.filled <> 'null';
  end if;
  select jsonb_object_agg(c.key, stellwerk.audit_value(v_rules, c.key, v_old -> c.key)) filter (where tg_op <> 'INSERT'),
         jsonb_object_agg(c.key, stellwerk.audit_value(v_rules, c.key, v_new -> c.key)) filter (where tg_op <> 'DELETE')
    into v_old, v_new
    from jsonb_object_keys(v_row) c (key)
   where v_old -> c.key is distinct from v_new -> c.key
     and (c.key <> 'tenant_id' or tg_op = 'UPDATE')
     and not coalesce(v_rules -> 'omit' ? c.key, false)
     and coalesce(v_rules -> 'only' ? c.key, true)
     and (tg_op = 'UPDATE' or v_row -> c.key <> 'null');
  if tg_op = 'UPDATE' and v_new is null then
    return null;
  end if;
  perform stellwerk.note_action(
    (v_row ->> 'tenant_id')::bigint, v_action, tg_table_name,
    (select string_agg(v_row ->> k.name, '/' order by k.place) from jsonb_array_elements_text(v_rules -> 'id') with ordinality k (name, place)),
    v_old, v_new);
  return null;
end
$$;
comment on function stellwerk.audit_row() is 'Trigger, after each row: writes who changed what into the audit log. Its arguments say which columns count, are masked or hashed; see the file.';

create or replace function stellwerk.audit_rules(p_arguments text[])
returns jsonb language sql immutable set search_path = ''
return (select coalesce(jsonb_object_agg(split_part(a.text, ':', 1), to_jsonb(string_to_array(split_part(a.text, ':', 2), ','))), '{}')
          from unnest(p_arguments) a (text));
comment on function stellwerk.audit_rules(text[]) is 'The arguments of an audit trigger as { word: [name, …] }.';

create or replace function stellwerk.audit_value(p_rules jsonb, p_column text, p_value jsonb)
returns jsonb language sql immutable set search_path = ''
return case
         when p_value is null or p_value = 'null' then p_value
         when p_rules -> 'mask' ? p_column then '"***"'
         when p_rules -> 'hash' ? p_column
           then jsonb_build_object('sha256', encode(sha256(convert_to(p_value::text, 'UTF8')), 'hex'), 'bytes', octet_length(p_value::text))
         else p_value
       end;
comment on function stellwerk.audit_value(jsonb, text, jsonb) is 'A column''s value as the audit log may hold it: masked, hashed or as it is.';

-- Append-only, also for the owner: only the two functions that answer for it get past.
create or replace function stellwerk.refuse_audit_change()
returns trigger language plpgsql set search_path = '' as $$
declare
  v_stack text;
begin
  get diagnostics v_stack = pg_context;
  if (regexp_match(v_stack, '\nPL/pgSQL function stellwerk\.(\w+)\('))[1] in ('sweep_audit', 'forget_in_audit') then
    return case tg_op when 'DELETE' then old else new end;
  end if;
  raise exception 'the audit log is append-only'
    using errcode = 'SW004', hint = 'Old rows go by retention (stellwerk.set_retention), a person''s data by stellwerk.forget_subject.';
end
$$;
comment on function stellwerk.refuse_audit_change() is 'Trigger: rows of the audit log are never changed, but by retention and forget_subject.';

create or replace trigger audit_log_stays before update or delete on stellwerk.audit_log
  for each row execute function stellwerk.refuse_audit_change();
create or replace trigger audit_log_whole before truncate on stellwerk.audit_log
  for each statement execute function stellwerk.refuse_audit_change();
do $truncate$
declare
  v_part regclass;
begin
  -- A partition can be emptied past the trigger of its parent.
  for v_part in select i.inhrelid::regclass from pg_catalog.pg_inherits i where i.inhparent = 'stellwerk.audit_log'::regclass loop
    execute format('create or replace trigger audit_log_whole before truncate on %s for each statement execute function stellwerk.refuse_audit_change()', v_part);
  end loop;
end
$truncate$;

-- What is audited. Rows that the engine writes as it goes (run, step, event, …) are not: they are their own history.
create or replace trigger workflow_audited after insert or update or delete on stellwerk.workflow
  for each row execute function stellwerk.audit_row('id:slug', 'omit:created_at,updated_at');
create or replace trigger workflow_version_audited after insert or update or delete on stellwerk.workflow_version
  for each row execute function stellwerk.audit_row(
    'id:workflow_id,version', 'omit:problems,saved_at,saved_by,published_by', 'hash:document,input_schema', 'name:publish=published_at');
create or replace trigger table_watch_audited after insert or update or delete on stellwerk.table_watch
  for each row execute function stellwerk.audit_row(
    'id:watch_id', 'only:watch_id,target,workflow_id,trigger_node,operations,condition,columns,bulk,published');
-- A watch goes broken and is mended by the engine's own looking; to be ended is somebody's act.
create or replace trigger table_watch_ended after update of state on stellwerk.table_watch
  for each row when ((new.state = 'disarmed') <> (old.state = 'disarmed'))
  execute function stellwerk.audit_row('id:watch_id', 'only:state,reason');
create or replace trigger registered_table_audited after insert or update or delete on stellwerk.registered_table
  for each row execute function stellwerk.audit_row('id:slug', 'omit:registered_at,registered_by');
create or replace trigger registered_function_audited after insert or update or delete on stellwerk.registered_function
  for each row execute function stellwerk.audit_row('id:name', 'omit:registered_at,registered_by');
create or replace trigger tenant_audited after insert or update or delete on stellwerk.tenant
  for each row execute function stellwerk.audit_row('id:slug', 'omit:created_at');
create or replace trigger tenant_role_audited after insert or update or delete on stellwerk.tenant_role
  for each row execute function stellwerk.audit_row('id:tenant_id,role_name');
create or replace trigger rate_limit_audited after insert or update or delete on stellwerk.rate_limit
  for each row execute function stellwerk.audit_row('id:kind,name', 'omit:set_at,set_by');
create or replace trigger api_token_audited after insert or update or delete on stellwerk.api_token
  for each row execute function stellwerk.audit_row('id:token_id', 'omit:last_used_at', 'mask:digest');
create or replace trigger app_user_audited after insert or update or delete on stellwerk.app_user
  for each row execute function stellwerk.audit_row('id:email', 'omit:created_at,created_by');
-- What people do with a task; that a run asks, and stops asking, is the run's own history.
create or replace trigger user_task_audited after update on stellwerk.user_task
  for each row execute function stellwerk.audit_row(
    'id:task_id', 'only:state,assignee,role,claimed_by,outcome,completed_by', 'skip:expire_tasks,close_tasks,settle_tasks,forget_tasks');
create or replace trigger calendar_audited after insert or update or delete on stellwerk.calendar
  for each row execute function stellwerk.audit_row('id:name', 'omit:updated_at,updated_by');
-- That a schedule comes and goes with a version is told by the publishing; to pause and to resume it is somebody's act.
create or replace trigger schedule_audited after update on stellwerk.schedule
  for each row when ((old.paused_at is null) <> (new.paused_at is null))
  execute function stellwerk.audit_row('id:schedule_id', 'only:paused_at,paused_by', 'name:pause=paused_at');
create or replace trigger webhook_source_audited after insert or update or delete on stellwerk.webhook_source
  for each row execute function stellwerk.audit_row('id:source', 'mask:secrets', 'omit:created_at,created_by');
create or replace trigger form_audited after insert or update or delete on stellwerk.form
  for each row execute function stellwerk.audit_row('id:form', 'omit:created_at,created_by');
-- What a workflow writes into its case stands in case_history under run:<id>, and in the run's steps.
create or replace trigger backoffice_case_audited after insert or update or delete on stellwerk.backoffice_case
  for each row execute function stellwerk.audit_row(
    'id:case_id', 'omit:created_at,updated_at,version,search', 'skip:push_case,update_case_status,forget_cases');
create or replace trigger case_appointment_audited after insert or update or delete on stellwerk.case_appointment
  for each row execute function stellwerk.audit_row(
    'id:appointment_id', 'omit:created_at,created_by,updated_at,version', 'skip:push_case_appointment,forget_cases');

create or replace view stellwerk.audit_overview with (security_barrier) as
select a.audit_id, a.acted_at, a.actor, a.database_user, a.action, a.subject, a.subject_id, a.before, a.after
  from stellwerk.audit_log a
 where a.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.audit_overview is 'Who did what in the current tenant; order by audit_id for the order in time.';
comment on column stellwerk.audit_overview.audit_id is 'Number of the row; follows time.';
comment on column stellwerk.audit_overview.acted_at is 'When.';
comment on column stellwerk.audit_overview.actor is 'An application user, or db:<role> of a direct connection.';
comment on column stellwerk.audit_overview.database_user is 'The login of the database connection.';
comment on column stellwerk.audit_overview.action is 'insert, update, delete, publish, or the verb that was called.';
comment on column stellwerk.audit_overview.subject is 'What kind of thing: the name of its table.';
comment on column stellwerk.audit_overview.subject_id is 'Which one.';
comment on column stellwerk.audit_overview.before is 'What changed, as it was.';
comment on column stellwerk.audit_overview.after is 'What changed, as it is now.';
