-- Who may do what. Functions that work for callers without rights on the tables are security definer; everything else runs
-- with the caller's own rights. Nothing is open to everybody: execute is taken from public and given to roles.

-- The tenant's rows, for every role but the owner. The policies are made anew each time this file is loaded.
do $security$
declare
  v_table text;
begin
  for v_table in
    select c.relname from pg_catalog.pg_class c
     where c.relnamespace = 'stellwerk'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
       and exists (select 1 from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id')
     order by c.relname
  loop
    execute format('alter table stellwerk.%I enable row level security', v_table);
    execute format('drop policy if exists own_tenant on stellwerk.%I', v_table);
    execute format('create policy own_tenant on stellwerk.%I using (tenant_id = (select stellwerk.current_tenant_id()))', v_table);
  end loop;
  -- A partition can be addressed directly, past its parent's policy.
  for v_table in select c.relname from pg_catalog.pg_class c where c.relnamespace = 'stellwerk'::regnamespace and c.relispartition and c.relkind = 'r' loop
    execute format('alter table stellwerk.%I enable row level security', v_table);
  end loop;
end
$security$;

revoke all on all functions in schema stellwerk from public;

-- Roles exist where whoever migrates may make them; without them everything belongs to the migrating user.
do $security$
declare
  v_public_verbs text[] := array[
    'start_run', 'take_run_request', 'cancel_run', 'pause_run', 'resume_run', 'skip_step', 'edit_run', 'retry_run', 'retry_plan', 'search_runs', 'look_for_runs', 'signal',
    'why', 'explain_run', 'run_state_at', 'diff_runs', 'stuck_runs', 'retry_event', 'retry_export',
    'start_bulk_operation', 'resume_bulk_operation', 'pause_bulk_operation', 'cancel_bulk_operation',
    'watch_table', 'unwatch_table', 'publish_workflow', 'publish_draft', 'rollback_workflow',
    'copy_version_to_draft', 'discard_draft', 'save_workflow', 'save_draft', 'migrate_runs', 'undo_migration', 'register_table', 'register_table_as', 'register_function', 'register_function_as',
    'advance', 'pump', 'tick', 'reconcile', 'keep_house', 'set_retention', 'forget_subject', 'set_rate_limit', 'remove_rate_limit',
    'complete_task', 'claim_task', 'release_task', 'reassign_task', 'save_task_draft', 'comment_task', 'attach_to_task', 'add_user', 'change_user', 'set_absence',
    'set_alert_rule', 'remove_alert_rule', 'run_totals',
    'set_password', 'end_sessions', 'invite_user', 'create_token', 'revoke_token',
    'update_case', 'set_case_status', 'set_case_statuses', 'assign_case', 'add_case_note', 'add_case_appointment', 'move_case_appointment', 'cancel_case_appointment',
    'search_cases', 'export_cases', 'case_statuses',
    'begin_request', 'end_request', 'claim_workflow', 'delete_workflow',
    'set_webhook_source', 'remove_webhook_source', 'set_form', 'remove_form', 'replay_delivery', 'emit_event',
    -- watch_table runs with the caller's rights; its inner functions ask for the session's rights themselves.
    'set_time_zone', 'set_calendar', 'remove_calendar', 'pause_schedule', 'resume_schedule', 'run_schedule', 'backfill_schedule', 'schedule_times',
    'columns_to_follow', 'plan_follow', 'confirm_follow', 'follow_as_engine', 'followed_columns_of', 'unregister_table', 'follow_triggers_of',
    'target_to_unregister', 'forget_registered_table',
    'find_row_trigger', 'plan_watch', 'confirm_watch', 'watches_of', 'triggers_of_watch', 'forget_watch', 'row_triggers', 'outdated_watches'];
  v_worker_verbs text[] := array[
    'pump', 'pump_and_begin', 'tick', 'keep_house', 'register_worker', 'hold_presence', 'leave_worker', 'begin_steps', 'complete_steps', 'extend_leases', 'release_steps',
    'begin_case_export', 'end_case_export', 'begin_message', 'end_message', 'take_duty', 'fall_asleep', 'awaken', 'queue_holds', 'next_job_seconds', 'prune_queue_log'];
  -- What the web application calls for requests from outside, having looked at their signatures.
  v_web_verbs text[] := array['find_webhook_source', 'take_delivery', 'take_submission',
    'find_login', 'open_session', 'close_session', 'enter_session', 'enter_token', 'find_invitation', 'accept_invitation', 'open_entrances'];
  v_role     text;
  v_function regprocedure;
begin
  foreach v_role in array array['stellwerk_dba', 'stellwerk_web', 'stellwerk_worker'] loop
    continue when to_regrole(v_role) is null;
    execute format('grant usage on schema stellwerk to %I', v_role);
    -- Helpers that only compute or read with the caller's own rights are open to all three.
    for v_function in
      select p.oid from pg_catalog.pg_proc p
       where p.pronamespace = 'stellwerk'::regnamespace
         and (not p.prosecdef and p.prorettype <> 'trigger'::regtype
              -- Who may put triggers on a table may watch it, and needs the functions behind the triggers; they check the rest.
              or (v_role in ('stellwerk_dba', 'stellwerk_web') and p.proname ~ '^(capture_[0-9]+_[iud]|capture_row|capture_statement|note_row_change)$')
              or p.proname in ('current_tenant_id', 'may_act_for', 'missing_rights', 'store_registered_table', 'store_registered_function')
              or (v_role in ('stellwerk_dba', 'stellwerk_web') and p.proname = any (v_public_verbs))
              or (v_role = 'stellwerk_web' and p.proname = any (v_web_verbs))
              or (v_role = 'stellwerk_worker' and p.proname = any (v_worker_verbs)))
    loop
      execute format('grant execute on function %s to %I', v_function, v_role);
    end loop;
  end loop;
  if to_regrole('stellwerk_dba') is not null then
    grant select on all tables in schema stellwerk to stellwerk_dba;
    grant insert on stellwerk.run_request to stellwerk_dba;
    grant update (state, outcome, result, draft) on stellwerk.my_task to stellwerk_dba;
  end if;
  if to_regrole('stellwerk_web') is not null then
    grant select on all tables in schema stellwerk to stellwerk_web;
    grant insert on stellwerk.run_request to stellwerk_web;
    grant update (state, outcome, result, draft) on stellwerk.my_task to stellwerk_web;
  end if;
  -- Digests and hashes of secrets are for the verbs alone.
  foreach v_role in array array['stellwerk_dba', 'stellwerk_web'] loop
    continue when to_regrole(v_role) is null;
    execute format('revoke select on stellwerk.user_password, stellwerk.user_session, stellwerk.user_invitation, stellwerk.api_token from %I', v_role);
    execute format('grant select (tenant_id, user_id, changed_at) on stellwerk.user_password to %I', v_role);
    execute format('grant select (tenant_id, session_id, user_id, address, agent, created_at, last_seen_at, expires_at) on stellwerk.user_session to %I', v_role);
    execute format('grant select (tenant_id, user_id, created_at, created_by, expires_at) on stellwerk.user_invitation to %I', v_role);
    execute format('grant select (tenant_id, token_id, name, role, scopes, created_at, created_by, expires_at, last_used_at, revoked_at) on stellwerk.api_token to %I', v_role);
  end loop;
  if to_regrole('stellwerk_worker') is not null then
    grant select on stellwerk.worker, stellwerk.worker_status to stellwerk_worker;
  end if;
end
$security$;
