-- Taking in: what the web calls for each request from outside. One row is written and the doorbell rung; pump does the rest.

-- Always one row, so that the caller does the same work whether or not there is such a tenant and source.
create or replace function stellwerk.find_webhook_source(p_tenant text, p_source text)
returns table (tenant_id bigint, scheme text, secrets text[], signature_header text, timestamp_header text, headers text[], at timestamptz)
language plpgsql security definer  -- looks for the tenant that the address names, before it is known
set search_path = '' as $$
#variable_conflict use_column
begin
  return query
    select s.tenant_id, s.scheme, s.secrets, s.signature_header, s.timestamp_header,
           array(select substr(p.place, 8) from (values (s.key_at), (s.event_at), (s.correlation_at)) p (place) where p.place like 'header:%'),
           stellwerk.clock()
      from (values (1)) always (one)
      left join (stellwerk.webhook_source s join stellwerk.tenant t on t.tenant_id = s.tenant_id)
        on t.slug = p_tenant and s.source = p_source and s.enabled and stellwerk.may_act_for(s.tenant_id);
end
$$;
comment on function stellwerk.find_webhook_source(text, text) is 'How deliveries of a source prove themselves, for the web application: scheme, sealed secrets, headers to keep, and the time by the database''s clock. All but the time is null when there is no such source.';

create or replace function stellwerk.take_delivery(
  p_tenant_id bigint, p_source text, p_body bytea, p_content_type text, p_headers jsonb, p_digest bytea)
returns boolean language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_source stellwerk.webhook_source;
  v_key    text;
begin
  select * into v_source from stellwerk.webhook_source s where s.tenant_id = p_tenant_id and s.source = p_source and s.enabled;
  if v_source.source is null or not stellwerk.may_act_for(p_tenant_id) then
    return false;
  end if;
  v_key := case
    when v_source.key_at like 'body:%' then stellwerk.value_at(v_source.key_at, '{}', stellwerk.readable_body(p_body, p_content_type))
    else stellwerk.value_at(v_source.key_at, p_headers, null) end;
  if length(v_key) > 500 then
    v_key := encode(sha256(convert_to(v_key, 'UTF8')), 'hex');
  end if;
  insert into stellwerk.webhook_delivery (tenant_id, kind, source, key, digest, content_type, headers, body, created_by)
  values (p_tenant_id, 'webhook', p_source, nullif(v_key, ''), p_digest, left(p_content_type, 200), p_headers, p_body, 'hook:' || p_source)
  on conflict do nothing;
  if found then
    perform stellwerk.ring_if_asleep();
    return true;
  end if;
  return false;
end
$$;
comment on function stellwerk.take_delivery(bigint, text, bytea, text, jsonb, bytea) is 'Stores a webhook whose signature the web application has found good. Answers false when it is known already: the same key, or the same signed bytes.';

-- The same is done whether or not there is such a form: two counts, one row, one commit that reaches the disk.
create or replace function stellwerk.take_submission(
  p_tenant text, p_form text, p_fields jsonb, p_origin text, p_address text, p_key text default null)
returns double precision language plpgsql security definer  -- looks for the tenant that the address names
set search_path = '' as $$
declare
  c_per_minute    constant integer := 20;
  c_most_unwanted constant integer := 600;
  v_form     stellwerk.form;
  v_wanted   boolean;
  v_count    integer;
  v_reason   text;
  v_delivery bigint;
begin
  perform stellwerk.check_payload(p_fields, 'form');
  v_count := stellwerk.count_request(concat_ws(E'\x1f', 'address', p_address, p_tenant, p_form), interval '1 minute');
  if v_count > c_per_minute then
    return 60;
  end if;
  select f.* into v_form
    from stellwerk.form f join stellwerk.tenant t on t.tenant_id = f.tenant_id
   where t.slug = p_tenant and f.form = p_form and f.enabled and stellwerk.may_act_for(f.tenant_id);
  v_wanted := v_form.form is not null and (cardinality(v_form.origins) = 0 or coalesce(lower(p_origin), '') = any (v_form.origins));
  if v_wanted then
    v_count := stellwerk.count_request(concat_ws(E'\x1f', 'form', v_form.tenant_id, v_form.form), v_form.per);
  else
    v_count := stellwerk.count_request('unwanted', interval '1 minute');
  end if;
  if v_count > (case when v_wanted then v_form.max_count * 10 else c_most_unwanted end) then
    return null;  -- a flood: not even kept
  elsif v_wanted and v_count > v_form.max_count then
    v_reason := format('more than %s submissions within %s', v_form.max_count, v_form.per);
  elsif coalesce(p_fields ->> coalesce(v_form.honeypot, 'website'), '') <> '' then
    v_reason := format('the hidden field %s was filled in', quote_literal(v_form.honeypot));
  end if;
  insert into stellwerk.webhook_delivery (tenant_id, kind, source, key, payload, state, reason, created_by)
  values (coalesce(v_form.tenant_id, 0), 'form', p_form, encode(sha256(convert_to(p_key, 'UTF8')), 'hex'),
          p_fields - coalesce(v_form.honeypot, 'website'), case when v_wanted and v_reason is null then 'pending' else 'ignored' end,
          v_reason, 'form:' || p_form)
  on conflict do nothing
  returning delivery_id into v_delivery;
  if not v_wanted then
    delete from stellwerk.webhook_delivery d where d.tenant_id = coalesce(v_form.tenant_id, 0) and d.delivery_id = v_delivery;
  elsif v_reason is null then
    perform stellwerk.ring_if_asleep();
  end if;
  return null;
end
$$;
comment on function stellwerk.take_submission(text, text, jsonb, text, text, text) is 'Stores a submitted form, if there is such a form and it may come from there. Answers null whatever became of it, or the seconds to wait when too many came from that address. Errors: SW002 for fields that cannot be stored.';

create or replace function stellwerk.count_request(p_what text, p_per interval)
returns integer language plpgsql set search_path = '' as $$
declare
  v_now    timestamptz := stellwerk.clock();
  v_bucket bytea := sha256(convert_to(p_what, 'UTF8'));
  v_count  integer;
begin
  insert into stellwerk.request_count as c (bucket, begun_at, requests) values (v_bucket, v_now, 1)
  on conflict (bucket) do update
     set requests = case when c.begun_at + p_per <= v_now then 1 else least(c.requests, 1000000000) + 1 end,
         begun_at = case when c.begun_at + p_per <= v_now then v_now else c.begun_at end
  returning c.requests into v_count;
  if random() < 0.01 then
    delete from stellwerk.request_count c
     where c.bucket in (select o.bucket from stellwerk.request_count o where o.begun_at < v_now - interval '1 day' limit 1000 for update skip locked);
  end if;
  return v_count;
end
$$;
comment on function stellwerk.count_request(text, interval) is 'Counts a request within the present interval; answers how many there were, this one included.';

create or replace function stellwerk.emit_event(name text, payload jsonb default '{}', dedupe_key text default null)
returns bigint language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  c_max_depth constant integer := 8;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_cause     text := current_setting('stellwerk.cause', true);
  v_run_id    bigint;
  v_depth     integer := 0;
  v_id        bigint;
begin
  if coalesce(length(name), 0) not between 1 and 200 then
    raise exception 'an event needs a name of 1 to 200 characters' using errcode = 'SW002';
  elsif length(dedupe_key) not between 1 and 500 then
    raise exception 'a dedupe key has 1 to 500 characters, not %', length(dedupe_key) using errcode = 'SW002', hint = 'Hash longer ones.';
  end if;
  perform stellwerk.check_payload(coalesce(payload, 'null'));
  if v_cause ~ '^[0-9]{1,18}/[0-9]{1,6}$' then
    v_run_id := split_part(v_cause, '/', 1)::bigint;
    v_depth := split_part(v_cause, '/', 2)::integer + 1;
  end if;
  insert into stellwerk.webhook_delivery as d (tenant_id, kind, source, key, payload, event, state, reason, caused_by_run_id, depth, created_by)
  values (v_tenant_id, 'event', name, dedupe_key, coalesce(payload, 'null'), name,
          case when v_depth > c_max_depth then 'ignored' else 'pending' end,
          case when v_depth > c_max_depth then 'suppressed: the chain of runs that cause each other is longer than 8' end, v_run_id, v_depth, stellwerk.asker())
  on conflict do nothing returning d.delivery_id into v_id;
  if v_id is null then
    select d.delivery_id into v_id from stellwerk.webhook_delivery d
     where d.tenant_id = v_tenant_id and d.kind = 'event' and d.source = emit_event.name and d.key = emit_event.dedupe_key;
    return v_id;
  end if;
  perform stellwerk.ring_if_asleep();
  return v_id;
end
$$;
comment on function stellwerk.emit_event(text, jsonb, text) is 'Says that something has happened, in the caller''s own transaction: workflows with a trigger.event of that name start. Only writes a row and rings; answers its number, of a known dedupe_key the first one''s. Errors: SW002.';

create or replace function stellwerk.replay_delivery(delivery_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_delivery  stellwerk.webhook_delivery;
begin
  select * into v_delivery from stellwerk.webhook_delivery d
   where d.tenant_id = v_tenant_id and d.delivery_id = replay_delivery.delivery_id for update;
  if v_delivery.delivery_id is null then
    raise exception 'there is no delivery %', coalesce(replay_delivery.delivery_id::text, 'null')
      using errcode = 'SW007', hint = 'stellwerk hook deliveries lists them.';
  elsif v_delivery.state = 'pending' then
    raise exception 'delivery % has not been processed yet', v_delivery.delivery_id using errcode = 'SW003', hint = 'A worker does it within seconds.';
  elsif v_delivery.payload is null and v_delivery.body is null then
    raise exception 'the data of delivery % have been erased', v_delivery.delivery_id using errcode = 'SW003';
  end if;
  -- What failed in part goes on where it failed; what was done or ignored is done anew.
  update stellwerk.webhook_delivery d
     set state = 'pending', reason = null, processed_at = null, replays = d.replays + (d.state <> 'failed')::integer
   where d.tenant_id = v_tenant_id and d.delivery_id = v_delivery.delivery_id;
  perform stellwerk.note_action(v_tenant_id, 'replay_delivery', 'webhook_delivery', v_delivery.delivery_id::text,
                                jsonb_build_object('state', v_delivery.state), null);
  perform stellwerk.ring_if_asleep();
end
$$;
comment on function stellwerk.replay_delivery(bigint) is 'Has a delivery, form or event looked at again: one that failed goes on with what it has not done, any other does everything anew. Errors: SW003, SW007.';
