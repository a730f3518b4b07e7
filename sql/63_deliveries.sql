-- What pump does with deliveries: each wakes waits, starts runs or emits an event, once, or says why not. Values from outside
-- are read as data and copied; nothing in them is evaluated.

create or replace function stellwerk.process_deliveries(p_tenant_id bigint, p_limit integer)
returns integer language plpgsql set search_path = '' as $$
declare
  v_delivery stellwerk.webhook_delivery;
  v_done     integer := 0;
begin
  for v_delivery in
    select d.* from stellwerk.webhook_delivery d
     where d.tenant_id = p_tenant_id and d.state = 'pending' order by d.delivery_id limit p_limit for update skip locked
  loop
    begin
      v_done := v_done + stellwerk.process_delivery(v_delivery)::integer;
    exception when query_canceled or others then
      perform stellwerk.note_delivery(v_delivery, format('%s (%s)', left(sqlerrm, 500), sqlstate), true);
      v_done := v_done + 1;
    end;
  end loop;
  return v_done;
end
$$;
comment on function stellwerk.process_deliveries(bigint, integer) is 'Decides about pending deliveries, forms and emitted events of a tenant; answers how many left the state pending. Those that another call holds are passed over.';

create or replace function stellwerk.process_delivery(p_delivery stellwerk.webhook_delivery)
returns boolean language plpgsql set search_path = '' as $$
declare
  v_source   stellwerk.webhook_source;
  v_delivery stellwerk.webhook_delivery := p_delivery;
  v_target   record;
  v_signal   text;
  v_emits    text;
  v_payload  jsonb;
  v_targets  integer := 0;
begin
  if p_delivery.kind = 'webhook' then
    select * into v_source from stellwerk.webhook_source s where s.tenant_id = p_delivery.tenant_id and s.source = p_delivery.source;
    if v_source.source is null then
      return stellwerk.note_delivery(v_delivery, 'the source was removed');
    end if;
    v_payload := stellwerk.read_body(p_delivery.body, p_delivery.content_type);
    v_delivery.event := stellwerk.value_at(v_source.event_at, p_delivery.headers, v_payload);
    v_delivery.correlation := stellwerk.value_at(v_source.correlation_at, p_delivery.headers, v_payload);
    v_signal := coalesce(v_source.signals ->> v_delivery.event, v_source.signals ->> '*');
    v_emits := coalesce(v_source.emits ->> v_delivery.event, v_source.emits ->> '*');
  else
    v_payload := p_delivery.payload;
  end if;
  perform stellwerk.check_payload(v_payload);
  -- First, for it may have to wait until another sender of this signal has ended, and then nothing must be done yet.
  if v_signal is not null and not stellwerk.delivery_done(v_delivery, 'signal', v_signal) then
    if coalesce(length(v_delivery.correlation), 0) not between 1 and 500 then
      v_delivery.outcomes := v_delivery.outcomes || jsonb_build_object('signal', v_signal, 'replay', v_delivery.replays, 'error',
        format('no correlation of 1 to 500 characters was found at %s', coalesce(v_source.correlation_at, 'any place: the source names none')));
    elsif not pg_try_advisory_xact_lock(stellwerk.signal_key(v_delivery.tenant_id, v_signal, v_delivery.correlation)) then
      return false;
    else
      v_delivery.outcomes := v_delivery.outcomes || jsonb_build_object('signal', v_signal, 'correlation', v_delivery.correlation, 'replay', v_delivery.replays,
        'woken', stellwerk.send_signal(v_delivery.tenant_id, v_signal, v_delivery.correlation, v_payload,
                                       format('delivery:%s:%s', v_delivery.delivery_id, v_delivery.replays)));
    end if;
    v_targets := v_targets + 1;
  end if;
  for v_target in select * from stellwerk.workflows_for(v_delivery, v_source.kind, v_payload) loop
    v_targets := v_targets + 1;
    if not stellwerk.delivery_done(v_delivery, 'workflow', v_target.slug) then
      v_delivery := stellwerk.start_delivered(v_delivery, v_target.slug, v_target.node_id, v_payload, v_source.kind);
    end if;
  end loop;
  if v_emits is not null then
    v_targets := v_targets + 1;
    if not stellwerk.delivery_done(v_delivery, 'emitted', v_emits) then
      insert into stellwerk.webhook_delivery (tenant_id, kind, source, key, payload, event, created_by, traceparent)
      values (v_delivery.tenant_id, 'event', left(v_emits, 200), format('delivery:%s:%s', v_delivery.delivery_id, v_delivery.replays), v_payload,
              left(v_emits, 200), 'hook:' || v_delivery.source, v_delivery.traceparent)
      on conflict do nothing;
      v_delivery.outcomes := v_delivery.outcomes || jsonb_build_object('emitted', v_emits, 'replay', v_delivery.replays);
    end if;
  end if;
  return stellwerk.note_delivery(v_delivery, case when v_targets = 0 then stellwerk.why_nothing(v_delivery, v_source.kind) end);
end
$$;
comment on function stellwerk.process_delivery(stellwerk.webhook_delivery) is 'Does what one locked delivery says. Answers false, having changed nothing, while somebody else is sending the same signal. Raises for data that cannot be read.';

create or replace function stellwerk.delivery_done(p_delivery stellwerk.webhook_delivery, p_what text, p_name text)
returns boolean language sql immutable set search_path = ''
return exists (select from jsonb_array_elements(p_delivery.outcomes) o (entry)
                where o.entry ->> p_what = p_name and o.entry -> 'replay' = to_jsonb(p_delivery.replays) and not o.entry ? 'error');
comment on function stellwerk.delivery_done(stellwerk.webhook_delivery, text, text) is 'Whether a delivery has done a thing already, in its present replay.';

create or replace function stellwerk.note_delivery(p_delivery stellwerk.webhook_delivery, p_reason text, p_failed boolean default false)
returns boolean language plpgsql set search_path = '' as $$
declare
  v_errors text := (select string_agg(concat_ws(': ', coalesce(o.entry ->> 'workflow', o.entry ->> 'signal'), o.entry ->> 'error'), '; ')
                      from jsonb_array_elements(p_delivery.outcomes) o (entry)
                     where o.entry ? 'error' and o.entry -> 'replay' = to_jsonb(p_delivery.replays)
                       and not stellwerk.delivery_done(p_delivery, 'workflow', o.entry ->> 'workflow')
                       and not stellwerk.delivery_done(p_delivery, 'signal', o.entry ->> 'signal'));
begin
  update stellwerk.webhook_delivery d
     set state = case when p_failed or v_errors is not null then 'failed' when p_reason is not null then 'ignored' else 'processed' end,
         reason = left(coalesce(p_reason, v_errors), 2000), outcomes = p_delivery.outcomes, run_ids = p_delivery.run_ids,
         event = left(p_delivery.event, 500), correlation = left(p_delivery.correlation, 500), processed_at = stellwerk.clock()
   where d.tenant_id = p_delivery.tenant_id and d.delivery_id = p_delivery.delivery_id;
  return true;
end
$$;
comment on function stellwerk.note_delivery(stellwerk.webhook_delivery, text, boolean) is 'Writes what became of a delivery: processed; ignored with a reason; or failed, also when one of the things it was to do failed. Answers true.';

create or replace function stellwerk.workflows_for(p_delivery stellwerk.webhook_delivery, p_kind text, p_payload jsonb)
returns table (slug text, node_id text) language sql stable set search_path = ''
begin atomic
  -- Of several nodes that fit, the first: one delivery is one run of a workflow.
  select distinct on (w.slug) w.slug, n.node_id
    from stellwerk.workflow w
    join stellwerk.plan_node n on n.tenant_id = w.tenant_id and n.workflow_id = w.workflow_id and n.version = w.active_version
   where w.tenant_id = p_delivery.tenant_id and n.runs_in = 'trigger'
     and case p_delivery.kind
           when 'event' then n.type = 'trigger.event' and n.config ->> 'event' = p_delivery.source
           when 'form' then n.type = 'trigger.form_submit' and coalesce(n.config ->> 'form', p_delivery.source) = p_delivery.source
                            and exists (select from stellwerk.form f
                                         where f.tenant_id = p_delivery.tenant_id and f.form = p_delivery.source and f.workflow_id = w.workflow_id)
           else case p_kind
                  when 'email' then n.type = 'trigger.email_inbound'
                    and (p_delivery.event is null or p_delivery.event = 'email.received')
                    and (n.config ->> 'address' is null or lower(n.config ->> 'address') = any (stellwerk.mail_recipients(p_payload)))
                  else n.type = 'trigger.webhook' and n.config ->> 'source' = p_delivery.source
                    and (n.config ->> 'event' is null or n.config ->> 'event' = p_delivery.event)
                end
         end
   order by w.slug, n.position;
end;
comment on function stellwerk.workflows_for(stellwerk.webhook_delivery, text, jsonb) is 'The published workflows that a delivery starts, and the trigger node each starts at.';

create or replace function stellwerk.start_delivered(
  p_delivery stellwerk.webhook_delivery, p_workflow text, p_node_id text, p_payload jsonb, p_kind text)
returns stellwerk.webhook_delivery language plpgsql set search_path = '' as $$
declare
  v_delivery stellwerk.webhook_delivery := p_delivery;
  v_outcome  jsonb := jsonb_build_object('workflow', p_workflow, 'node', p_node_id, 'replay', p_delivery.replays);
  v_order    stellwerk.run_order;
  v_run_id   bigint;
  v_message  text;
  v_detail   text;
begin
  begin
    v_order := stellwerk.check_order(p_delivery.tenant_id, stellwerk.find_workflow(p_delivery.tenant_id, p_workflow),
                                     case when p_kind = 'email' then stellwerk.mail_of(p_payload) else p_payload end);
    v_order.trigger_node := p_node_id;
    v_order.source := case when p_kind = 'email' then 'email' else p_delivery.kind end;
    v_order.caused_by_run_id := p_delivery.caused_by_run_id;
    v_order.depth := p_delivery.depth;
    v_order.created_by := p_delivery.created_by;
    v_order.traceparent := p_delivery.traceparent;
    v_run_id := (stellwerk.insert_runs(p_delivery.tenant_id, array[v_order]))[1];
    v_outcome := v_outcome || jsonb_build_object('run_id', v_run_id::text);
    v_delivery.run_ids := v_delivery.run_ids || v_run_id;
  exception when others then
    get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail;
    v_outcome := v_outcome || jsonb_build_object('error', left(concat_ws(': ', v_message, nullif(v_detail, '')), 1000));
  end;
  v_delivery.outcomes := v_delivery.outcomes || v_outcome;
  return v_delivery;
end
$$;
comment on function stellwerk.start_delivered(stellwerk.webhook_delivery, text, text, jsonb, text) is 'Starts a run of one workflow for a delivery; the delivery comes back with the outcome, which may be an error.';

create or replace function stellwerk.why_nothing(p_delivery stellwerk.webhook_delivery, p_kind text)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_form text;
begin
  if p_delivery.kind = 'event' then
    return format('no published workflow has a trigger.event for %s', p_delivery.source);
  elsif p_delivery.kind = 'form' then
    select w.slug into v_form from stellwerk.form f join stellwerk.workflow w on w.tenant_id = f.tenant_id and w.workflow_id = f.workflow_id
     where f.tenant_id = p_delivery.tenant_id and f.form = p_delivery.source;
    return case when v_form is null then 'the form was removed'
                else format('workflow %s has no published version with a trigger.form_submit for form %s', v_form, p_delivery.source) end;
  end if;
  return format('no signal, internal event or published workflow with a trigger.%s is there for %s of source %s',
                case p_kind when 'email' then 'email_inbound' else 'webhook' end,
                coalesce('event ' || left(p_delivery.event, 200), 'a delivery without an event'), p_delivery.source);
end
$$;
comment on function stellwerk.why_nothing(stellwerk.webhook_delivery, text) is 'The sentence for a delivery that starts and wakes nothing.';
