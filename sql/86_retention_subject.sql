-- A person's data: found, shown, erased.

create or replace function stellwerk.forget_subject(
  field text, value text, dry_run boolean default true, include_live boolean default false)
returns table (place text, id text, what text) language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' set jit = off as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_path      text[] := string_to_array(forget_subject.field, '.');
  v_value     text := forget_subject.value;
  v_runs      bigint[];
  v_cases     bigint[];
  v_events    bigint[];
  v_signals   bigint[];
  v_received  bigint[];
  v_audit     bigint[];
  v_live      text;
begin
  if coalesce(v_value, '') = '' or coalesce(forget_subject.field, '') = '' then
    raise exception 'a subject is named by a field and its value' using errcode = 'SW002',
      hint = 'Such as stellwerk.forget_subject(''patient.email'', ''ada@example.org'').';
  end if;
  v_runs := stellwerk.runs_of_subject(v_tenant_id, v_path, v_value);
  v_cases := array(select c.case_id from stellwerk.backoffice_case c
                    where c.tenant_id = v_tenant_id and (c.run_id = any (v_runs) or c.payload #>> v_path = v_value) order by c.case_id);
  v_events := array(select e.event_id from stellwerk.event e
                     where e.tenant_id = v_tenant_id and (stellwerk.json_holds(e.new, v_path, v_value) or stellwerk.json_holds(e.old, v_path, v_value))
                     union
                    select r.event_id from stellwerk.run r where r.tenant_id = v_tenant_id and r.run_id = any (v_runs) and r.event_id is not null);
  v_signals := array(select s.signal_id from stellwerk.signal s
                      where s.tenant_id = v_tenant_id and (s.correlation = v_value or s.payload #>> v_path = v_value));
  v_received := stellwerk.deliveries_of_subject(v_tenant_id, v_runs, v_path, v_value);
  v_audit := array(select a.audit_id from stellwerk.audit_log a
                    where a.tenant_id = v_tenant_id and coalesce(a.before, a.after) is not null
                      and (a.subject = 'run' and a.subject_id = any (v_runs::text[]) or a.subject = 'backoffice_case' and a.subject_id = any (v_cases::text[])
                           or jsonb_path_exists(jsonb_build_array(a.before, a.after), '$.** ? (@ == $v)', jsonb_build_object('v', v_value))));
  return query select * from stellwerk.places_of_subject(v_tenant_id, v_runs, v_cases, v_events, v_signals, v_audit);
  return query select 'webhook_delivery', d.delivery_id::text, format('%s %s: body, payload, headers', d.kind, d.source)
                 from stellwerk.webhook_delivery d where d.tenant_id = v_tenant_id and d.delivery_id = any (v_received);
  if dry_run then
    return;
  end if;
  -- Ascending, in one statement, and from here on nobody moves them.
  perform stellwerk.lock_runs(v_tenant_id, v_runs);
  select string_agg(r.run_id::text, ', ' order by r.run_id) into v_live
    from stellwerk.run r where r.tenant_id = v_tenant_id and r.run_id = any (v_runs) and r.ended_at is null;
  if v_live is not null and not include_live then
    raise exception 'runs of this subject have not ended: %', left(v_live, 200)
      using errcode = 'SW003', hint = 'Cancel them or let them end; include_live => true erases their data under them.';
  elsif not include_live
        and (exists (select from stellwerk.event e where e.tenant_id = v_tenant_id and e.event_id = any (v_events) and e.state = 'pending')
             or exists (select from stellwerk.webhook_delivery d
                         where d.tenant_id = v_tenant_id and d.delivery_id = any (v_received) and d.state = 'pending')
             or exists (select from stellwerk.event_batch b where b.tenant_id = v_tenant_id and position(v_value in b.changes::text) > 0)) then
    raise exception 'events of this subject have not been processed yet'
      using errcode = 'SW003', hint = 'Try again in a moment; include_live => true erases them as they are, and the runs they start see nothing of the row.';
  end if;
  for i in 0 .. (coalesce(cardinality(v_runs), 0) - 1) / 500 loop
    perform stellwerk.forget_runs(v_tenant_id, v_runs[i * 500 + 1:i * 500 + 500], v_value);
  end loop;
  perform stellwerk.forget_cases(v_tenant_id, v_cases);
  update stellwerk.event e
     set old = case when e.old is not null then '{"forgotten": true}'::json end, new = case when e.new is not null then '{"forgotten": true}'::json end,
         record_id = case when e.record_id = v_value then 'forgotten' else e.record_id end
   where e.tenant_id = v_tenant_id and e.event_id = any (v_events);
  delete from stellwerk.signal s where s.tenant_id = v_tenant_id and s.signal_id = any (v_signals);
  perform stellwerk.forget_deliveries(v_tenant_id, v_received, v_value);
  perform stellwerk.forget_in_audit(v_tenant_id, v_audit);
  perform stellwerk.note_action(v_tenant_id, 'forget_subject', 'subject', null, null, jsonb_build_object(
    'field', forget_subject.field, 'runs', coalesce(cardinality(v_runs), 0), 'cases', cardinality(v_cases), 'events', cardinality(v_events),
    'signals', cardinality(v_signals), 'deliveries', cardinality(v_received), 'audit', cardinality(v_audit)));
end
$$;
comment on function stellwerk.forget_subject(text, text, boolean, boolean) is 'Finds everything about the person whose payloads have this value in this field (a.b for a field within), and with dry_run => false erases it: data become {"forgotten": true}, states and times stay. Reads the tenant''s runs, events, cases and audit rows once. Errors: SW002, SW003 while a run of the subject is live, unless include_live.';

create or replace function stellwerk.runs_of_subject(p_tenant_id bigint, p_path text[], p_value text)
returns bigint[] language plpgsql stable set search_path = '' as $$
begin
  return array(
    with recursive found (run_id) as (
      select r.run_id from stellwerk.run r
       where r.tenant_id = p_tenant_id and (r.payload #>> p_path = p_value or r.old #>> p_path = p_value)
       union
      select c.run_id from stellwerk.backoffice_case c
       where c.tenant_id = p_tenant_id and c.payload #>> p_path = p_value
       union
      -- What a run hands to the runs that it calls may bear another name there.
      select r.run_id from found f join stellwerk.run r on r.tenant_id = p_tenant_id and r.parent_run_id = f.run_id)
    select f.run_id from found f order by f.run_id);
end
$$;
comment on function stellwerk.runs_of_subject(bigint, text[], text) is 'The runs whose payload, former row or case has the value at the path, and the runs that they called, ascending.';

-- json may hold what cannot be read, such as \u0000: then it does not hold the value.
create or replace function stellwerk.json_holds(p_data json, p_path text[], p_value text)
returns boolean language plpgsql immutable set search_path = '' as $$
begin
  return coalesce(p_data #>> p_path = p_value, false);
exception when data_exception then
  return false;
end
$$;
comment on function stellwerk.json_holds(json, text[], text) is 'Whether json has this text at the path.';

create or replace function stellwerk.places_of_subject(
  p_tenant_id bigint, p_runs bigint[], p_cases bigint[], p_events bigint[], p_signals bigint[], p_audit bigint[])
returns table (place text, id text, what text) language sql stable set search_path = ''
begin atomic
  select 'run', r.run_id::text, format('%s run of %s: payload, output%s', r.state, w.slug, case when r.ended_at is null then '; it is live' else '' end)
    from stellwerk.run r join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id
   where r.tenant_id = p_tenant_id and r.run_id = any (p_runs)
  union all
  select n.place, n.run_id::text, format('%s rows of run %s', count(*), n.run_id)
    from (select 'step' as place, x.run_id from stellwerk.step x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'step_attempt', x.run_id from stellwerk.step_attempt x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'scope', x.run_id from stellwerk.scope x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'variable', x.run_id from stellwerk.variable x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'run_log', x.run_id from stellwerk.run_log x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'run_message', x.run_id from stellwerk.run_message x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'user_task', x.run_id from stellwerk.user_task x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'message', x.run_id from stellwerk.message x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'notification', x.run_id from stellwerk.notification x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)) n
   group by n.place, n.run_id
  union all
  select 'backoffice_case', c.case_id::text, format('case of run %s, with its history', c.run_id)
    from stellwerk.backoffice_case c where c.tenant_id = p_tenant_id and c.case_id = any (p_cases)
  union all
  select 'event', e.event_id::text, format('%s of %s', e.operation, e.target)
    from stellwerk.event e where e.tenant_id = p_tenant_id and e.event_id = any (p_events)
  union all
  select 'signal', s.signal_id::text, format('signal %s', s.event) from stellwerk.signal s where s.tenant_id = p_tenant_id and s.signal_id = any (p_signals)
  union all
  select 'audit_log', a.audit_id::text, format('%s of %s %s', a.action, a.subject, a.subject_id)
    from stellwerk.audit_log a where a.tenant_id = p_tenant_id and a.audit_id = any (p_audit);
end;
comment on function stellwerk.places_of_subject(bigint, bigint[], bigint[], bigint[], bigint[], bigint[]) is 'What forget_subject answers: one row per thing, the parts of a run by table.';

create or replace function stellwerk.forget_runs(p_tenant_id bigint, p_run_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' set enable_seqscan = off set plan_cache_mode = force_custom_plan as $$
declare
  c_gone constant jsonb := '{"forgotten": true}'::jsonb;
begin
  delete from stellwerk.run_key k
   using (select o.workflow_id, o.idempotency_key from stellwerk.run o
           where o.tenant_id = p_tenant_id and o.run_id = any (p_run_ids) and position(p_value in o.idempotency_key) > 0 offset 0) r
   where k.tenant_id = p_tenant_id and k.workflow_id = r.workflow_id and k.idempotency_key = r.idempotency_key;
  update stellwerk.run r
     set payload = c_gone, old = case when r.old is not null then c_gone end, output = case when r.output is not null then c_gone end,
         error = stellwerk.forget_error(r.error), reason = case when position(p_value in r.reason) > 0 then 'forgotten' else r.reason end,
         idempotency_key = case when position(p_value in r.idempotency_key) = 0 then r.idempotency_key end
   where r.tenant_id = p_tenant_id and r.run_id = any (p_run_ids);
  update stellwerk.step s
     set input = case when s.input is not null then c_gone end, output = case when s.output is not null then c_gone end,
         error = stellwerk.forget_error(s.error), reason = case when position(p_value in s.reason) > 0 then 'forgotten' else s.reason end
   where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids);
  update stellwerk.step_attempt a set error = stellwerk.forget_error(a.error) where a.tenant_id = p_tenant_id and a.run_id = any (p_run_ids);
  update stellwerk.scope x
     set item = case when x.item is not null then c_gone end, output = case when x.output is not null then c_gone end, error = stellwerk.forget_error(x.error)
   where x.tenant_id = p_tenant_id and x.run_id = any (p_run_ids);
  update stellwerk.variable v set value = c_gone where v.tenant_id = p_tenant_id and v.run_id = any (p_run_ids);
  update stellwerk.run_log l set message = 'forgotten', data = case when l.data is not null then c_gone end
   where l.tenant_id = p_tenant_id and l.run_id = any (p_run_ids);
  -- What something still asks of a run that has ended comes to nothing anyway.
  delete from stellwerk.run_message m
   using (select o.run_id from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = any (p_run_ids) and o.ended_at is not null offset 0) r
   where m.tenant_id = p_tenant_id and m.run_id = r.run_id;
  update stellwerk.notification n set title = 'forgotten', body = null, link = null where n.tenant_id = p_tenant_id and n.run_id = any (p_run_ids);
  perform stellwerk.forget_tasks(p_tenant_id, p_run_ids);
end
$$;
comment on function stellwerk.forget_runs(bigint, bigint[], text) is 'Blanks the data of runs and of everything that belongs to them; states, times and numbers stay.';

create or replace function stellwerk.forget_tasks(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  c_gone  constant jsonb := jsonb '{"forgotten": true}';
  v_tasks bigint[] := array(select k.task_id from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids));
begin
  update stellwerk.user_task k
     set title = 'forgotten', instructions = null, prefill = case when k.prefill is not null then c_gone end,
         draft = case when k.draft is not null then c_gone end, result = case when k.result is not null then c_gone end
   where k.tenant_id = p_tenant_id and k.task_id = any (v_tasks);
  update stellwerk.user_task_decision d set result = c_gone where d.tenant_id = p_tenant_id and d.task_id = any (v_tasks);
  update stellwerk.user_task_comment c set body = 'forgotten' where c.tenant_id = p_tenant_id and c.task_id = any (v_tasks);
  update stellwerk.user_task_attachment a set name = 'forgotten', reference = 'forgotten' where a.tenant_id = p_tenant_id and a.task_id = any (v_tasks);
  -- A mail that is still to be sent would tell of the person.
  update stellwerk.message m
     set subject = 'forgotten', body = 'forgotten', error = case when m.error is not null then 'forgotten' end,
         state = case m.state when 'queued' then 'suppressed' else m.state end, ended_at = coalesce(m.ended_at, stellwerk.clock())
   where m.tenant_id = p_tenant_id and m.run_id = any (p_run_ids);
end
$$;
comment on function stellwerk.forget_tasks(bigint, bigint[]) is 'Blanks the tasks of runs, what people wrote to them, and the mails of runs; who decided what and when stays.';

create or replace function stellwerk.forget_cases(p_tenant_id bigint, p_case_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.backoffice_case c set payload = '{"forgotten": true}', summary = null, note = null, updated_at = stellwerk.clock()
   where c.tenant_id = p_tenant_id and c.case_id = any (p_case_ids);
  update stellwerk.case_history h set note = null where h.tenant_id = p_tenant_id and h.case_id = any (p_case_ids);
end
$$;
comment on function stellwerk.forget_cases(bigint, bigint[]) is 'Blanks cases and their history. The audit log is not told what was in them.';

create or replace function stellwerk.deliveries_of_subject(p_tenant_id bigint, p_run_ids bigint[], p_path text[], p_value text)
returns bigint[] language sql stable set search_path = ''
return array(select d.delivery_id from stellwerk.webhook_delivery d
              where d.tenant_id = p_tenant_id
                and (d.run_ids && p_run_ids or d.caused_by_run_id = any (p_run_ids) or d.correlation = p_value or d.payload #>> p_path = p_value
                     or stellwerk.readable_body(d.body, d.content_type) #>> p_path = p_value)
              order by d.delivery_id);
comment on function stellwerk.deliveries_of_subject(bigint, bigint[], text[], text) is 'The webhooks, forms and emitted events that have the value at the path or as their correlation, or that belong to these runs.';

create or replace function stellwerk.forget_deliveries(p_tenant_id bigint, p_delivery_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.webhook_delivery d
     set body = null, payload = null, headers = '{}', correlation = null,
         key = case when position(p_value in d.key) = 0 then d.key end,
         reason = case when d.reason is not null then 'forgotten' end,
         outcomes = (select coalesce(jsonb_agg(o.entry - 'correlation' - 'error'), '[]') from jsonb_array_elements(d.outcomes) o (entry))
   where d.tenant_id = p_tenant_id and d.delivery_id = any (p_delivery_ids);
end
$$;
comment on function stellwerk.forget_deliveries(bigint, bigint[], text) is 'Erases what came in of a person; that something came, when, and which runs it started, stays.';

create or replace function stellwerk.forget_in_audit(p_tenant_id bigint, p_audit_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.audit_log a
     set before = case when a.before is not null then '{"forgotten": true}'::jsonb end, after = case when a.after is not null then '{"forgotten": true}'::jsonb end
   where a.tenant_id = p_tenant_id and a.audit_id = any (p_audit_ids);
end
$$;
comment on function stellwerk.forget_in_audit(bigint, bigint[]) is 'Blanks what rows of the audit log tell of a person; who acted on what and when stays.';

create or replace function stellwerk.forget_error(p_error jsonb)
returns jsonb language sql immutable set search_path = ''
return case when jsonb_typeof(p_error) = 'object' then p_error - 'detail' || '{"message": "forgotten"}' when p_error is not null then '{"forgotten": true}' end;
comment on function stellwerk.forget_error(jsonb) is 'An error without its message and details: class, node and attempt say nothing of a person.';
