-- Alerts: rules that tick looks at once a minute. Each is raised once and resolved once; both are told to people, and are events that workflows can take.

create or replace function stellwerk.set_alert_rule(
  name text, kind text, threshold double precision, workflow text default null, period interval default '1 hour',
  recipients text[] default '{role:admin}', enabled boolean default true)
returns bigint language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_unknown   text;
  v_rule_id   bigint;
begin
  perform stellwerk.require_admin(v_tenant_id);
  if name is null or name !~ '^[a-z0-9][a-z0-9._-]{0,62}$' then
    raise exception '% is no name for a rule', quote_nullable(name) using errcode = 'SW002', hint = 'Small letters, digits, dots and dashes, such as too-many-failures.';
  elsif kind is null or kind not in ('failed_share', 'stuck', 'queue_depth', 'tasks_overdue', 'no_worker') then
    raise exception 'there is no kind of alert %', quote_nullable(kind) using errcode = 'SW002', hint = 'failed_share, stuck, queue_depth, tasks_overdue or no_worker.';
  elsif threshold is null or threshold <= 0 or threshold >= 'infinity' or (kind = 'failed_share' and threshold > 1) then
    raise exception 'the threshold % cannot be reached', coalesce(threshold::text, 'null') using errcode = 'SW002', hint = 'A number above 0; a share is 1 at most.';
  elsif period is null or period not between interval '1 minute' and interval '30 days' then
    raise exception 'the period is a minute at least and 30 days at most' using errcode = 'SW002';
  elsif workflow is not null and not exists (select from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.slug = set_alert_rule.workflow) then
    raise exception 'there is no workflow %', quote_literal(workflow) using errcode = 'SW001', hint = 'stellwerk workflow list shows them.';
  end if;
  select min(r.name) into v_unknown from unnest(recipients) r (name) where not stellwerk.is_somebody(v_tenant_id, r.name) and not r.name like 'role:%';
  if v_unknown is not null then
    raise exception 'there is no active user %', v_unknown using errcode = 'SW007', hint = 'Name users'' e-mail addresses, or role:NAME; stellwerk user list shows them.';
  end if;
  insert into stellwerk.alert_rule as a (tenant_id, name, kind, workflow, threshold, period, recipients, enabled, created_by)
  values (v_tenant_id, set_alert_rule.name, set_alert_rule.kind, set_alert_rule.workflow, set_alert_rule.threshold, set_alert_rule.period,
          coalesce(set_alert_rule.recipients, '{}'), coalesce(set_alert_rule.enabled, true), stellwerk.actor())
  on conflict on constraint alert_rule_name_unique do update
     set kind = excluded.kind, workflow = excluded.workflow, threshold = excluded.threshold, period = excluded.period, recipients = excluded.recipients,
         enabled = excluded.enabled
  returning rule_id into v_rule_id;
  return v_rule_id;
end
$$;
comment on function stellwerk.set_alert_rule(text, text, double precision, text, interval, text[], boolean) is 'Makes a rule, or replaces the one of that name; answers its number. Errors: SW001, SW002, SW004, SW007.';

create or replace function stellwerk.remove_alert_rule(name text)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  perform stellwerk.require_admin(v_tenant_id);
  delete from stellwerk.alert_rule r where r.tenant_id = v_tenant_id and r.name = remove_alert_rule.name;
  if not found then
    raise exception 'there is no rule %', quote_nullable(name) using errcode = 'SW007', hint = 'stellwerk alert rules shows them.';
  end if;
end
$$;
comment on function stellwerk.remove_alert_rule(text) is 'Removes a rule and the alerts that it has raised. Errors: SW004, SW007.';

create or replace function stellwerk.measure_alert(p_rule stellwerk.alert_rule)
returns double precision language plpgsql stable set search_path = '' as $$
declare
  v_now  timestamptz := stellwerk.clock();
  v_most bigint := ceil(least(p_rule.threshold, 100000))::bigint;  -- counting further would change nothing
begin
  case p_rule.kind
    when 'failed_share' then
      return (select sum(h.failed)::double precision / nullif(sum(h.completed) + sum(h.failed), 0)
                from stellwerk.hours_of_runs(p_rule.tenant_id, date_trunc('hour', v_now - p_rule.period + interval '1 hour', 'UTC')) h
                join stellwerk.workflow w on w.tenant_id = p_rule.tenant_id and w.workflow_id = h.workflow_id
               where p_rule.workflow is null or w.slug = p_rule.workflow);
    when 'stuck' then
      return (select count(*) from stellwerk.stuck_places(p_rule.tenant_id, v_now - p_rule.period));
    when 'queue_depth' then
      return (select count(*) from (select from stellwerk.step s
                                     where s.tenant_id = p_rule.tenant_id and s.state = 'queued' and s.runs_in = 'worker' limit v_most) q);
    when 'tasks_overdue' then
      return (select count(*) from (select from stellwerk.user_task k
                                     where k.tenant_id = p_rule.tenant_id and k.state in ('open', 'claimed') and k.due_at < v_now limit v_most) k);
    else
      return (stellwerk.present_workers() = 0)::integer;
  end case;
end
$$;
comment on function stellwerk.measure_alert(stellwerk.alert_rule) is 'What a rule compares with its threshold, now; null where there is nothing to measure.';

create or replace function stellwerk.alerts_are_due()
returns boolean language plpgsql set search_path = '' as $$
declare
  v_next text := current_setting('stellwerk.next_alerts', true);
  v_now  bigint := extract(epoch from stellwerk.clock())::bigint;
begin
  -- Kept in the session, as the time of the next housekeeping is: a database that rests writes nothing.
  if v_next ~ '^[0-9]{1,15}$' and v_next::bigint > v_now and v_next::bigint <= v_now + 60 then
    return false;
  end if;
  perform set_config('stellwerk.next_alerts', (v_now + 60)::text, false);
  return true;
end
$$;
comment on function stellwerk.alerts_are_due() is 'True once a minute in a session.';

create or replace function stellwerk.check_alerts(p_tenant_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_rule    stellwerk.alert_rule;
  v_alert   stellwerk.alert;
  v_value   double precision;
  v_changes integer := 0;
begin
  if not exists (select from stellwerk.alert_rule r where r.tenant_id = p_tenant_id)
     or not pg_try_advisory_xact_lock(hashtextextended('stellwerk.alerts', p_tenant_id)) then
    return 0;
  end if;
  for v_rule in select * from stellwerk.alert_rule r where r.tenant_id = p_tenant_id order by r.rule_id loop
    v_value := case when v_rule.enabled then stellwerk.measure_alert(v_rule) end;
    if coalesce(v_value >= v_rule.threshold, false) then
      insert into stellwerk.alert (tenant_id, rule_id, value, raised_at) values (p_tenant_id, v_rule.rule_id, v_value, stellwerk.clock())
      on conflict do nothing returning * into v_alert;
    else
      update stellwerk.alert a set resolved_at = stellwerk.clock()
       where a.tenant_id = p_tenant_id and a.rule_id = v_rule.rule_id and a.resolved_at is null
      returning * into v_alert;
    end if;
    if found then
      perform stellwerk.tell_alert(v_rule, v_alert, v_value);
      v_changes := v_changes + 1;
    end if;
  end loop;
  return v_changes;
end
$$;
comment on function stellwerk.check_alerts(bigint) is 'Looks at the tenant''s rules; answers how many were raised or resolved. Whoever comes while another looks does nothing.';

create or replace function stellwerk.alert_text(p_rule stellwerk.alert_rule, p_value double precision)
returns text language sql immutable set search_path = ''
return case p_rule.kind
  when 'failed_share' then format('%s %% of the runs%s failed', round((coalesce(p_value, 0) * 100)::numeric, 1), coalesce(' of ' || p_rule.workflow, ''))
  when 'stuck' then format('%s places have not moved for longer than %s', coalesce(p_value, 0), p_rule.period)
  when 'queue_depth' then format('%s steps or more wait for a worker', coalesce(p_value, 0))
  when 'tasks_overdue' then format('%s tasks or more are overdue', coalesce(p_value, 0))
  else case when p_value >= 1 then 'no worker is running' else 'workers are running' end end;
comment on function stellwerk.alert_text(stellwerk.alert_rule, double precision) is 'What was measured, in words.';

create or replace function stellwerk.tell_alert(p_rule stellwerk.alert_rule, p_alert stellwerk.alert, p_value double precision)
returns void language plpgsql set search_path = '' as $$
declare
  v_what   text := case when p_alert.resolved_at is null then 'raised' else 'resolved' end;
  v_title  text := format('Alert %s: %s', v_what, p_rule.name);
  v_body   text := stellwerk.alert_text(p_rule, p_value);
  v_before text := current_setting('stellwerk.tenant', true);
begin
  if not stellwerk.alerts_are_a_workflow(p_rule.tenant_id, 'alert.' || v_what) then
    insert into stellwerk.notification (tenant_id, recipient, title, body, link)
    select p_rule.tenant_id, r.name, v_title, v_body, '/alerts' from unnest(p_rule.recipients) r (name);
    perform stellwerk.mail_people(p_rule.tenant_id, p_rule.recipients, v_title, v_body, '/alerts', null, null);
  end if;
  perform set_config('stellwerk.tenant', (select t.slug from stellwerk.tenant t where t.tenant_id = p_rule.tenant_id), true);
  perform stellwerk.emit_event('alert.' || v_what, jsonb_build_object('alert_id', p_alert.alert_id::text, 'rule', p_rule.name, 'kind', p_rule.kind,
    'workflow', p_rule.workflow, 'value', p_value, 'threshold', p_rule.threshold, 'title', v_title, 'message', v_body, 'recipients', p_rule.recipients,
    'raised_at', p_alert.raised_at, 'resolved_at', p_alert.resolved_at), format('alert:%s:%s', p_alert.alert_id, v_what));
  perform set_config('stellwerk.tenant', coalesce(v_before, ''), true);
end
$$;
comment on function stellwerk.tell_alert(stellwerk.alert_rule, stellwerk.alert, double precision) is 'A rule was raised or resolved: workflows hear of it by the events alert.raised and alert.resolved. The one called alert-notification tells the recipients; where it is not published, they are told here, in the application and by mail.';

create or replace function stellwerk.alerts_are_a_workflow(p_tenant_id bigint, p_event text)
returns boolean language sql stable set search_path = ''
return exists (
  select from stellwerk.workflow w
    join stellwerk.plan_node n on n.tenant_id = w.tenant_id and n.workflow_id = w.workflow_id and n.version = w.active_version
   where w.tenant_id = p_tenant_id and w.slug = 'alert-notification' and n.type = 'trigger.event' and n.config ->> 'event' = p_event);
comment on function stellwerk.alerts_are_a_workflow(bigint, text) is 'Whether the workflow alert-notification is published and takes this event.';

create or replace view stellwerk.alert_overview with (security_barrier) as
select a.alert_id, r.name as rule, r.kind, r.workflow, a.value, r.threshold, stellwerk.alert_text(r, a.value) as message, a.raised_at, a.resolved_at
  from stellwerk.alert a
  join stellwerk.alert_rule r on r.tenant_id = a.tenant_id and r.rule_id = a.rule_id
 where a.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.alert_overview is 'The alerts of the current tenant.';
comment on column stellwerk.alert_overview.alert_id is 'The alert''s number.';
comment on column stellwerk.alert_overview.rule is 'Name of its rule.';
comment on column stellwerk.alert_overview.kind is 'What the rule measures.';
comment on column stellwerk.alert_overview.workflow is 'The workflow that counts; null for all.';
comment on column stellwerk.alert_overview.value is 'What was measured when it was raised.';
comment on column stellwerk.alert_overview.threshold is 'From where on the rule is raised.';
comment on column stellwerk.alert_overview.message is 'That in words.';
comment on column stellwerk.alert_overview.raised_at is 'When it was raised.';
comment on column stellwerk.alert_overview.resolved_at is 'When it was over; null while it is not.';

create or replace trigger alert_rule_audited after insert or update or delete on stellwerk.alert_rule
  for each row execute function stellwerk.audit_row('id:name', 'omit:created_at,created_by');
