-- Setting up what may come in: webhook sources and forms. Secrets arrive here sealed; the database never sees one in clear.

create or replace function stellwerk.set_webhook_source(
  source text, scheme text, secrets text[] default null, settings jsonb default '{}')
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_settings  jsonb := coalesce(settings, '{}');
  v_unknown   text;
  v_row       stellwerk.webhook_source;
  v_place     record;
begin
  if coalesce(set_webhook_source.source, '') !~ '^[a-z][a-z0-9_-]{0,62}$' then
    raise exception '% is no name for a webhook source', coalesce(quote_literal(left(set_webhook_source.source, 100)), 'null')
      using errcode = 'SW008', hint = 'Lower-case letters, digits, - and _, beginning with a letter.';
  elsif coalesce(set_webhook_source.scheme, '') not in ('hmac', 'standard', 'slack', 'token') then
    raise exception '% is no signature scheme', coalesce(quote_literal(left(set_webhook_source.scheme, 100)), 'null')
      using errcode = 'SW008', hint = 'There are hmac, standard, slack and token.';
  elsif cardinality(set_webhook_source.secrets) > 2 then
    raise exception 'a source has at most two secrets, the present and the former' using errcode = 'SW008';
  end if;
  -- Sealed, or nothing: a secret in clear would stand in backups and logs.
  if exists (select from unnest(set_webhook_source.secrets) s (text) where s.text is null or s.text !~ '^gAAAA[A-Za-z0-9_=-]{60,}$') then
    raise exception 'a secret must be sealed before it is stored' using errcode = 'SW008', hint = 'stellwerk hook set seals it with STELLWERK_SECRET_KEYS.';
  end if;
  select string_agg(k.name, ', ') into v_unknown from jsonb_object_keys(v_settings) k (name)
   where k.name not in ('kind', 'signature_header', 'timestamp_header', 'key_at', 'event_at', 'correlation_at', 'signals', 'emits', 'enabled');
  if v_unknown is not null then
    raise exception 'unknown settings of a webhook source: %', v_unknown using errcode = 'SW008',
      hint = 'There are kind, signature_header, timestamp_header, key_at, event_at, correlation_at, signals, emits, enabled.';
  end if;
  v_row.kind := coalesce(v_settings ->> 'kind', 'webhook');
  v_row.signature_header := lower(coalesce(v_settings ->> 'signature_header',
    case set_webhook_source.scheme when 'hmac' then 'stellwerk-signature' when 'token' then 'authorization' end));
  v_row.timestamp_header := lower(v_settings ->> 'timestamp_header');
  v_row.key_at := coalesce(v_settings ->> 'key_at',
    case set_webhook_source.scheme when 'standard' then 'header:webhook-id' when 'slack' then 'body:event_id' when 'token' then 'none' end);
  v_row.event_at := coalesce(v_settings ->> 'event_at', case set_webhook_source.scheme when 'standard' then 'body:type' when 'slack' then 'body:event.type' end);
  v_row.correlation_at := v_settings ->> 'correlation_at';
  if v_row.kind not in ('webhook', 'email') then
    raise exception 'the kind of a source is webhook or email, not %', quote_literal(left(v_row.kind, 100)) using errcode = 'SW008';
  elsif coalesce(v_row.signature_header, 'x') !~ '^[a-z0-9-]{1,100}$' or coalesce(v_row.timestamp_header, 'x') !~ '^[a-z0-9-]{1,100}$' then
    raise exception 'a header''s name has letters, digits and hyphens' using errcode = 'SW008';
  end if;
  for v_place in select * from (values ('key_at', v_row.key_at), ('event_at', v_row.event_at), ('correlation_at', v_row.correlation_at)) p (name, place) loop
    if v_place.place !~ '^(header:[a-z0-9-]{1,100}|body:[^.]+(\.[^.]+)*|value:.{1,200})$' and not (v_place.name = 'key_at' and v_place.place = 'none') then
      raise exception '% cannot be %', v_place.name, quote_literal(left(v_place.place, 100)) using errcode = 'SW008',
        hint = 'Write header:NAME in lower case, or body:a.b for a field of the body; value:NAME for a fixed word.';
    elsif v_place.place in ('header:' || v_row.signature_header, 'header:authorization', 'header:cookie') then
      raise exception '% would store a secret: that header proves who sends', v_place.name using errcode = 'SW008';
    end if;
  end loop;
  if exists (select from (values (v_settings -> 'signals'), (v_settings -> 'emits')) m (map)
              where jsonb_typeof(m.map) <> 'object'
                 or jsonb_path_exists(m.map, 'strict $.* ? (@.type() != "string" || !(@ like_regex "^.{1,200}$"))', silent => true)) then
    raise exception 'signals and emits are objects { event: name }' using errcode = 'SW008';
  end if;
  insert into stellwerk.webhook_source as s (
    tenant_id, source, kind, scheme, secrets, signature_header, timestamp_header, key_at, event_at, correlation_at, signals, emits, enabled, created_by)
  values (v_tenant_id, set_webhook_source.source, v_row.kind, set_webhook_source.scheme, coalesce(set_webhook_source.secrets, '{}'), v_row.signature_header,
          v_row.timestamp_header, v_row.key_at, v_row.event_at, v_row.correlation_at, coalesce(v_settings -> 'signals', '{}'),
          coalesce(v_settings -> 'emits', '{}'), coalesce((v_settings ->> 'enabled')::boolean, true), stellwerk.actor())
  on conflict (tenant_id, source) do update
     set kind = excluded.kind, scheme = excluded.scheme, secrets = case when set_webhook_source.secrets is null then s.secrets else excluded.secrets end,
         signature_header = excluded.signature_header, timestamp_header = excluded.timestamp_header, key_at = excluded.key_at,
         event_at = excluded.event_at, correlation_at = excluded.correlation_at, signals = excluded.signals, emits = excluded.emits, enabled = excluded.enabled;
end
$$;
comment on function stellwerk.set_webhook_source(text, text, text[], jsonb) is 'Sets up a webhook source, or replaces its settings. secrets are sealed texts, the present one first; null leaves those that are there. settings: kind, signature_header, timestamp_header, key_at, event_at, correlation_at, signals, emits, enabled. Errors: SW008.';

create or replace function stellwerk.remove_webhook_source(source text)
returns boolean language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
#variable_conflict use_column
begin
  delete from stellwerk.webhook_source s where s.tenant_id = stellwerk.current_tenant_id() and s.source = remove_webhook_source.source;
  return found;
end
$$;
comment on function stellwerk.remove_webhook_source(text) is 'Removes a webhook source; its deliveries stay. Answers whether there was one.';

create or replace function stellwerk.set_form(form text, workflow text, settings jsonb default '{}')
returns void language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(v_tenant_id, workflow);
  v_settings  jsonb := coalesce(settings, '{}');
  v_unknown   text;
  v_origins   text[] := array(select lower(o.origin) from jsonb_array_elements_text(
                         case when jsonb_typeof(v_settings -> 'origins') = 'array' then v_settings -> 'origins' else '[]' end) o (origin));
begin
  if coalesce(set_form.form, '') !~ '^[a-z][a-z0-9_-]{0,62}$' then
    raise exception '% is no name for a form', coalesce(quote_literal(left(set_form.form, 100)), 'null')
      using errcode = 'SW008', hint = 'Lower-case letters, digits, - and _, beginning with a letter.';
  end if;
  select string_agg(k.name, ', ') into v_unknown from jsonb_object_keys(v_settings) k (name)
   where k.name not in ('honeypot', 'origins', 'max_count', 'per', 'enabled');
  if v_unknown is not null then
    raise exception 'unknown settings of a form: %', v_unknown using errcode = 'SW008', hint = 'There are honeypot, origins, max_count, per, enabled.';
  end if;
  if exists (select from unnest(v_origins) o (origin) where o.origin !~ '^https?://[a-z0-9.:\[\]-]+$') then
    raise exception 'an origin is a scheme and a host, without a path' using errcode = 'SW008', hint = 'Such as https://www.example.org.';
  elsif coalesce((v_settings ->> 'max_count')::integer, 1) < 1 or coalesce((v_settings ->> 'per')::interval, '1 minute') <= interval '0' then
    raise exception 'a form''s limit is at least one submission in some time' using errcode = 'SW008';
  end if;
  insert into stellwerk.form as f (tenant_id, form, workflow_id, honeypot, origins, max_count, per, enabled, created_by)
  values (v_tenant_id, set_form.form, v_workflow.workflow_id, coalesce(nullif(v_settings ->> 'honeypot', ''), 'website'), v_origins,
          coalesce((v_settings ->> 'max_count')::integer, 60), coalesce((v_settings ->> 'per')::interval, '1 minute'),
          coalesce((v_settings ->> 'enabled')::boolean, true), stellwerk.actor())
  on conflict (tenant_id, form) do update
     set workflow_id = excluded.workflow_id, honeypot = excluded.honeypot, origins = excluded.origins, max_count = excluded.max_count,
         per = excluded.per, enabled = excluded.enabled;
end
$$;
comment on function stellwerk.set_form(text, text, jsonb) is 'Says which workflow a public form starts, or changes that. settings: honeypot, origins, max_count, per, enabled. Errors: SW001, SW008.';

create or replace function stellwerk.remove_form(form text)
returns boolean language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
#variable_conflict use_column
begin
  delete from stellwerk.form f where f.tenant_id = stellwerk.current_tenant_id() and f.form = remove_form.form;
  return found;
end
$$;
comment on function stellwerk.remove_form(text) is 'Removes a form; what was submitted stays. Answers whether there was one.';
