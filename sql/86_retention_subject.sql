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
  v_orders    bigint[];
  v_audit     bigint[];
  v_live      text;
begin
  if coalesce(v_value, '') = '' or coalesce(forget_subject.field, '') = '' then
    raise exception 'a subject is named by a field and its value' using errcode = 'SW002',
      hint = 'Such as stellwerk.forget_subject(''patient.email'', ''ada@example.org'').';
  end if;
  if include_live and not dry_run then
    perform stellwerk.unpack_event_batches(v_tenant_id, 2147483647);  -- what is packed cannot be searched row by row
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
  v_orders := array(select o.operation_id from stellwerk.bulk_operation o
                     where o.tenant_id = v_tenant_id and (stellwerk.tells(jsonb_build_array(o.filter, o.options), v_value) or stellwerk.names(o.reason, v_value))
                     order by o.operation_id);
  v_audit := array(select a.audit_id from stellwerk.audit_log a
                    where a.tenant_id = v_tenant_id
                      and (coalesce(a.before, a.after) is not null
                             and (a.subject = 'run' and a.subject_id = any (v_runs::text[])
                                  or a.subject = 'backoffice_case' and a.subject_id = any (v_cases::text[])
                                  or a.subject = 'case_appointment' and coalesce(a.after, a.before) ->> 'case_id' = any (v_cases::text[])
                                  or stellwerk.tells(jsonb_build_array(a.before, a.after), v_value))
                           or stellwerk.names(a.subject_id, v_value)));
  return query select * from stellwerk.places_of_subject(v_tenant_id, v_runs, v_cases, v_events, v_signals, v_audit);
  return query select 'webhook_delivery', d.delivery_id::text, format('%s %s: body, payload, headers', d.kind, d.source)
                 from stellwerk.webhook_delivery d where d.tenant_id = v_tenant_id and d.delivery_id = any (v_received);
  return query select * from stellwerk.other_places_of_subject(v_tenant_id, v_runs, v_orders, v_value);
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
        and (exists (select from stellwerk.event_arrival e where e.tenant_id = v_tenant_id and e.event_id = any (v_events))
             or exists (select from stellwerk.event_inbox e where e.tenant_id = v_tenant_id and e.event_id = any (v_events))
             or exists (select from stellwerk.webhook_delivery d
                         where d.tenant_id = v_tenant_id and d.delivery_id = any (v_received) and d.state = 'pending')
             or exists (select from stellwerk.event_batch b where b.tenant_id = v_tenant_id and position(v_value in b.changes::text) > 0)) then
    raise exception 'events of this subject have not been processed yet'
      using errcode = 'SW003', hint = 'Try again in a moment; include_live => true erases them as they are, and the runs they start see nothing of the row.';
  elsif not include_live
        and exists (select from stellwerk.bulk_operation o
                     where o.tenant_id = v_tenant_id and o.operation_id = any (v_orders) and o.state in ('running', 'paused')) then
    raise exception 'a bulk operation that names this subject has not ended'
      using errcode = 'SW003', hint = 'Let it end or call stellwerk.cancel_bulk_operation; include_live => true cancels it.';
  end if;
  for i in 0 .. (coalesce(cardinality(v_runs), 0) - 1) / 500 loop
    perform stellwerk.forget_runs(v_tenant_id, v_runs[i * 500 + 1:i * 500 + 500], v_value);
  end loop;
  perform stellwerk.forget_cases(v_tenant_id, v_cases, v_value);
  -- In the order in which events move: who moves one is waited for, and the next statement finds it where it has got to.
  update stellwerk.event_arrival e
     set old = case when e.old is not null then '{"forgotten": true}'::json end, new = case when e.new is not null then '{"forgotten": true}'::json end
   where e.tenant_id = v_tenant_id and e.event_id = any (v_events);
  update stellwerk.event_inbox e
     set old = case when e.old is not null then '{"forgotten": true}'::json end, new = case when e.new is not null then '{"forgotten": true}'::json end
   where e.tenant_id = v_tenant_id and e.event_id = any (v_events);
  update stellwerk.event_log e
     set old = case when e.old is not null then '{"forgotten": true}'::json end, new = case when e.new is not null then '{"forgotten": true}'::json end,
         record_id = case when position(v_value in e.record_id) > 0 then 'forgotten' else e.record_id end,
         reason = case when position(v_value in e.reason) > 0 then 'forgotten' else e.reason end
   where e.tenant_id = v_tenant_id and e.event_id = any (v_events);
  delete from stellwerk.signal s where s.tenant_id = v_tenant_id and s.signal_id = any (v_signals);
  perform stellwerk.forget_deliveries(v_tenant_id, v_received, v_value);
  perform stellwerk.forget_orders(v_tenant_id, v_orders, v_value);
  perform stellwerk.forget_messages(v_tenant_id, v_runs, v_value);
  -- The next run of such a key may start at once.
  delete from stellwerk.flow_throttle t where t.tenant_id = v_tenant_id and stellwerk.names(t.key, v_value);
  perform stellwerk.forget_in_audit(v_tenant_id, v_audit, v_value);
  perform stellwerk.note_action(v_tenant_id, 'forget_subject', 'subject', null, null, jsonb_build_object(
    'field', forget_subject.field, 'runs', coalesce(cardinality(v_runs), 0), 'cases', cardinality(v_cases), 'events', cardinality(v_events),
    'signals', cardinality(v_signals), 'deliveries', cardinality(v_received), 'bulk_operations', cardinality(v_orders), 'audit', cardinality(v_audit)));
end
$$;
comment on function stellwerk.forget_subject(text, text, boolean, boolean) is 'Finds everything about the person whose payloads have this value in this field (a.b for a field within), and with dry_run => false erases it: data become {"forgotten": true}, states and times stay. Reads the tenant''s runs, events, cases and audit rows once. Errors: SW002, SW003 while a run of the subject or a bulk operation that names it is live, unless include_live.';

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

-- In rows that belong to no run of the subject a short value, such as a number, counts only where it stands alone: 7 is in many texts.
create or replace function stellwerk.names(p_text text, p_value text)
returns boolean language sql immutable set search_path = ''
return p_text = p_value
    or (length(p_value) >= 5 and position(p_value in p_text) > 0
        and p_text ~ ('(?<![[:alnum:]])' || regexp_replace(p_value, '([^[:alnum:][:space:]])', '\\\1', 'g') || '(?![[:alnum:]])'));
comment on function stellwerk.names(text, text) is 'Whether a text is the value, or has it as a whole among other words; the latter for values of 5 characters and more.';

create or replace function stellwerk.tells(p_data jsonb, p_value text)
returns boolean language sql immutable set search_path = ''
return position(substring(to_jsonb(p_value)::text from '^"(.*)"$') in p_data::text) > 0
   and (exists (select from jsonb_path_query(p_data, 'strict $.** ? (@.type() == "string")') s (text) where stellwerk.names(s.text #>> '{}', p_value))
        or exists (select from jsonb_path_query(p_data, 'strict $.** ? (@.type() == "object")') o (fields)
                    cross join lateral jsonb_object_keys(o.fields) k (name) where stellwerk.names(k.name, p_value)));
comment on function stellwerk.tells(jsonb, text) is 'Whether a text or a name of a field anywhere in the data is the value, or has it among other words.';

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
          union all select 'wait', x.run_id from stellwerk.wait x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs) and x.correlation is not null
          union all select 'row_timer', x.run_id from stellwerk.row_timer x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)
          union all select 'flow_wait', x.run_id from stellwerk.flow_wait x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs) and x.key is not null
          union all select 'flow_slot', x.run_id from stellwerk.flow_slot x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs) and x.key is not null
          union all select 'bulk_operation_run', x.run_id from stellwerk.bulk_operation_run x
                     where x.tenant_id = p_tenant_id and x.run_id = any (p_runs) and x.error is not null
          union all select 'notification', x.run_id from stellwerk.notification x where x.tenant_id = p_tenant_id and x.run_id = any (p_runs)) n
   group by n.place, n.run_id
  union all
  select 'backoffice_case', c.case_id::text, format('case of run %s, with its history and appointments', c.run_id)
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

create or replace function stellwerk.other_places_of_subject(p_tenant_id bigint, p_runs bigint[], p_orders bigint[], p_value text)
returns table (place text, id text, what text) language sql stable set search_path = ''
begin atomic
  select 'bulk_operation', o.operation_id::text, format('%s bulk operation: %s', o.state, o.action)
    from stellwerk.bulk_operation o where o.tenant_id = p_tenant_id and o.operation_id = any (p_orders)
  union all
  select 'flow_throttle', w.slug, 'a concurrency_key that may not start again before ' || t.free_at
    from stellwerk.flow_throttle t
    join stellwerk.workflow w on w.tenant_id = t.tenant_id and w.workflow_id = t.workflow_id
   where t.tenant_id = p_tenant_id and stellwerk.names(t.key, p_value)
  union all
  select 'message', m.message_id::text, 'mail to the person'
    from stellwerk.message m where m.tenant_id = p_tenant_id and m.recipient = p_value and (m.run_id = any (p_runs)) is not true
  union all
  select 'notification', n.notification_id::text, 'notification to the person'
    from stellwerk.notification n where n.tenant_id = p_tenant_id and n.recipient = p_value and (n.run_id = any (p_runs)) is not true;
end;
comment on function stellwerk.other_places_of_subject(bigint, bigint[], bigint[], text) is 'The part of what forget_subject answers that belongs to no run of the subject: orders that name it, what is addressed to it.';

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
  perform stellwerk.rewrite_run_text(p_tenant_id, p_run_ids);
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
  update stellwerk.bulk_operation_run b set error = stellwerk.forget_error(b.error)
   where b.tenant_id = p_tenant_id and b.run_id = any (p_run_ids) and b.error is not null;
  -- What something still asks of a run that has ended comes to nothing anyway.
  delete from stellwerk.run_message m
   using (select o.run_id from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = any (p_run_ids) and o.ended_at is not null offset 0) r
   where m.tenant_id = p_tenant_id and m.run_id = r.run_id;
  perform stellwerk.forget_waiting(p_tenant_id, p_run_ids, p_value);
  perform stellwerk.forget_tasks(p_tenant_id, p_run_ids, p_value);
end
$$;
comment on function stellwerk.forget_runs(bigint, bigint[], text) is 'Blanks the data of runs and of everything that belongs to them; states, times and numbers stay.';

-- Only what lives has such rows. Keys are replaced everywhere by the same one, so that a line behind a key stays a line.
create or replace function stellwerk.forget_waiting(p_tenant_id bigint, p_run_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
declare
  c_gone  constant jsonb := '{"forgotten": true}'::jsonb;
  v_alias text := 'forgotten:' || gen_random_uuid();
begin
  update stellwerk.run_message m
     set data = case when m.data ? 'error' then jsonb_build_object('error', stellwerk.forget_error(m.data -> 'error'))
                     when m.data ? 'output' then jsonb_build_object('output', c_gone) else '{}' end
                || coalesce((select jsonb_object_agg(e.key, e.value) from jsonb_each(m.data) e
                              where e.key in ('port', 'compensate', 'by', 'child', 'task')), '{}')
   where m.tenant_id = p_tenant_id and m.run_id = any (p_run_ids);
  update stellwerk.wait w set correlation = replace(w.correlation, p_value, v_alias)
   where w.tenant_id = p_tenant_id and w.run_id = any (p_run_ids) and position(p_value in w.correlation) > 0;
  delete from stellwerk.row_timer t
   where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids) and position(p_value in t.row_key || ' ' || coalesce(t.trouble, '')) > 0;
  update stellwerk.flow_wait w set key = replace(w.key, p_value, v_alias)
   where w.tenant_id = p_tenant_id and w.run_id = any (p_run_ids) and position(p_value in w.key) > 0;
  update stellwerk.flow_slot s set key = replace(s.key, p_value, v_alias)
   where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids) and position(p_value in s.key) > 0;
end
$$;
comment on function stellwerk.forget_waiting(bigint, bigint[], text) is 'Blanks what live runs wait for: messages to them, correlations, followed rows, concurrency keys. A signal with the former correlation finds nobody.';

create or replace function stellwerk.forget_orders(p_tenant_id bigint, p_operation_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
declare
  c_gone constant jsonb := '{"forgotten": true}'::jsonb;
begin
  -- Without its filter nothing can be begun or gone on with.
  update stellwerk.bulk_operation o
     set state = 'cancelled', ended_at = stellwerk.clock(), ended_by = stellwerk.actor(),
         history = o.history || stellwerk.bulk_history('cancelled', stellwerk.actor())
   where o.tenant_id = p_tenant_id and o.operation_id = any (p_operation_ids) and o.ended_at is null;
  update stellwerk.bulk_operation o
     set filter = case when stellwerk.tells(o.filter, p_value) then c_gone else o.filter end,
         options = case when stellwerk.tells(o.options, p_value) then c_gone else o.options end,
         reason = case when stellwerk.names(o.reason, p_value) then 'forgotten' else o.reason end
   where o.tenant_id = p_tenant_id and o.operation_id = any (p_operation_ids);
end
$$;
comment on function stellwerk.forget_orders(bigint, bigint[], text) is 'Blanks the filters and options of bulk operations that name a person, and cancels those that have not ended.';

create or replace function stellwerk.forget_messages(p_tenant_id bigint, p_run_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
begin
  -- A mail that is still to be sent would tell of the person.
  update stellwerk.message m
     set subject = 'forgotten', body = 'forgotten', error = case when m.error is not null then 'forgotten' end,
         recipient = case when position(p_value in m.recipient) > 0 then 'forgotten' else m.recipient end,
         link = case when position(p_value in m.link) = 0 then m.link end,
         state = case m.state when 'queued' then 'suppressed' else m.state end, ended_at = coalesce(m.ended_at, stellwerk.clock())
   where m.tenant_id = p_tenant_id and (m.run_id = any (p_run_ids) or m.recipient = p_value);
  update stellwerk.notification n
     set title = 'forgotten', body = null, link = null, recipient = case when position(p_value in n.recipient) > 0 then 'forgotten' else n.recipient end
   where n.tenant_id = p_tenant_id and (n.run_id = any (p_run_ids) or n.recipient = p_value);
end
$$;
comment on function stellwerk.forget_messages(bigint, bigint[], text) is 'Blanks mails and notifications of runs, and those to a person whatever run they came from; mails that are still to be sent are not.';

create or replace function stellwerk.forget_tasks(p_tenant_id bigint, p_run_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
declare
  c_gone  constant jsonb := jsonb '{"forgotten": true}';
  v_tasks bigint[] := array(select k.task_id from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids));
begin
  update stellwerk.user_task k
     set title = 'forgotten', instructions = null, prefill = case when k.prefill is not null then c_gone end,
         drafts = case when k.drafts is not null then c_gone end, result = case when k.result is not null then c_gone end,
         form = case when position(p_value in k.form::text) = 0 then k.form end,
         ladder = case when position(p_value in k.ladder::text) > 0 then '[]' else k.ladder end,
         assignee = case when position(p_value in k.assignee) > 0 then 'forgotten' else k.assignee end,
         role = case when position(p_value in k.role) > 0 then 'forgotten' else k.role end,
         reason = case when position(p_value in k.reason) > 0 then 'forgotten' else k.reason end
   where k.tenant_id = p_tenant_id and k.task_id = any (v_tasks);
  update stellwerk.user_task_decision d set result = c_gone where d.tenant_id = p_tenant_id and d.task_id = any (v_tasks);
  update stellwerk.user_task_comment c set body = 'forgotten' where c.tenant_id = p_tenant_id and c.task_id = any (v_tasks);
  update stellwerk.user_task_attachment a set name = 'forgotten', reference = 'forgotten', media_type = null where a.tenant_id = p_tenant_id and a.task_id = any (v_tasks);
end
$$;
comment on function stellwerk.forget_tasks(bigint, bigint[], text) is 'Blanks the tasks of runs and what people wrote to them; who decided what and when stays.';

create or replace function stellwerk.forget_cases(p_tenant_id bigint, p_case_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.backoffice_case c
     set payload = '{"forgotten": true}', summary = null, note = null, updated_at = stellwerk.clock(),
         status = case when position(p_value in c.status) > 0 then 'forgotten' else c.status end,
         assignee = case when position(p_value in c.assignee) > 0 then null else c.assignee end
   where c.tenant_id = p_tenant_id and c.case_id = any (p_case_ids);
  update stellwerk.case_history h
     set note = null, changes = '{}', remark = case when h.remark is not null then 'forgotten' end,
         status = case when position(p_value in h.status) > 0 then 'forgotten' else h.status end
   where h.tenant_id = p_tenant_id and h.case_id = any (p_case_ids);
  -- A file that is still to be written would be written in a folder with the person's name.
  update stellwerk.case_export x
     set state = case when x.state = 'queued' and position(p_value in x.folder) > 0 then 'failed' else x.state end,
         ended_at = case when x.state = 'queued' and position(p_value in x.folder) > 0 then stellwerk.clock() else x.ended_at end,
         error = case when position(p_value in x.folder || ' ' || coalesce(x.error, '')) > 0 then 'forgotten' else x.error end,
         folder = case when position(p_value in x.folder) > 0 then 'forgotten' else x.folder end
   where x.tenant_id = p_tenant_id and x.case_id = any (p_case_ids);
  update stellwerk.case_appointment a
     set title = 'forgotten', location = case when a.location is not null then 'forgotten' end, key = null
   where a.tenant_id = p_tenant_id and a.case_id = any (p_case_ids);
end
$$;
comment on function stellwerk.forget_cases(bigint, bigint[], text) is 'Blanks cases, their history and their exports. The audit log is not told what was in them.';

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
     set body = null, payload = null, headers = '{}', correlation = null, content_type = null,
         event = case when position(p_value in d.event) = 0 then d.event end,
         key = case when position(p_value in d.key) = 0 then d.key end,
         reason = case when d.reason is not null then 'forgotten' end,
         outcomes = (select coalesce(jsonb_agg(o.entry - 'correlation' - 'error'), '[]') from jsonb_array_elements(d.outcomes) o (entry))
   where d.tenant_id = p_tenant_id and d.delivery_id = any (p_delivery_ids);
end
$$;
comment on function stellwerk.forget_deliveries(bigint, bigint[], text) is 'Erases what came in of a person; that something came, when, and which runs it started, stays.';

create or replace function stellwerk.forget_in_audit(p_tenant_id bigint, p_audit_ids bigint[], p_value text)
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.audit_log a
     set before = case when a.before is not null then '{"forgotten": true}'::jsonb end, after = case when a.after is not null then '{"forgotten": true}'::jsonb end,
         subject_id = case when stellwerk.names(a.subject_id, p_value) then 'forgotten' else a.subject_id end
   where a.tenant_id = p_tenant_id and a.audit_id = any (p_audit_ids);
end
$$;
comment on function stellwerk.forget_in_audit(bigint, bigint[], text) is 'Blanks what rows of the audit log tell of a person; who acted on what and when stays.';

create or replace function stellwerk.forget_error(p_error jsonb)
returns jsonb language plpgsql immutable set search_path = '' as $$
declare
  v_kept jsonb;
begin
  if jsonb_typeof(p_error) <> 'object' then
    return jsonb '{"forgotten": true}';
  elsif p_error is not null then
    select coalesce(jsonb_object_agg(e.key, e.value), '{}') || '{"message": "forgotten"}' into v_kept
      from jsonb_each(p_error) e where e.key in ('class', 'node', 'attempt', 'retryable');
    if p_error ? 'compensation' then
      v_kept := v_kept || jsonb_build_object('compensation', stellwerk.forget_error(p_error -> 'compensation'));
    end if;
  end if;
  return v_kept;
end
$$;
comment on function stellwerk.forget_error(jsonb) is 'An error without its message and details: class, node and attempt say nothing of a person.';
