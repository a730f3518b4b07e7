-- What the HTTP API needs beside the verbs themselves: the same request twice, and two people who change one workflow.

create or replace function stellwerk.begin_request(action text, key text, digest bytea)
returns jsonb language plpgsql security definer  -- callers have no right to write the table
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_actor     text := stellwerk.actor();
  v_known     stellwerk.request_key;
begin
  if key is null or length(key) not between 1 and 500 then
    raise exception 'an idempotency key has 1 to 500 characters, not %', coalesce(length(key), 0)
      using errcode = 'SW002', hint = 'Hash longer ones.';
  end if;
  delete from stellwerk.request_key k where k.tenant_id = v_tenant_id and k.created_at < clock_timestamp() - interval '1 day';
  -- Of two at the same time the second waits here until the first one's transaction has ended.
  insert into stellwerk.request_key (tenant_id, actor, action, key, digest)
  values (v_tenant_id, v_actor, begin_request.action, begin_request.key, begin_request.digest)
  on conflict do nothing;
  if found then
    return null;
  end if;
  select * into v_known from stellwerk.request_key k
   where k.tenant_id = v_tenant_id and k.actor = v_actor and k.action = begin_request.action and k.key = begin_request.key;
  if v_known.digest <> begin_request.digest then
    raise exception 'the idempotency key % was used for another request', quote_literal(left(key, 100))
      using errcode = 'SW002', hint = 'A key belongs to one request; choose a new one for a new request.';
  end if;
  return v_known.result;
end
$$;
comment on function stellwerk.begin_request(text, text, bytea) is 'Null for a new key, and what the first request answered for one of the last day; end_request keeps it, in the same transaction. digest: SHA-256 of the request. Errors: SW002 when the key came with another request.';

create or replace function stellwerk.end_request(action text, key text, result jsonb)
returns void language sql security definer  -- callers have no right to write the table
set search_path = ''
begin atomic
  update stellwerk.request_key k set result = end_request.result
   where k.tenant_id = stellwerk.current_tenant_id() and k.actor = stellwerk.actor() and k.action = end_request.action and k.key = end_request.key
     and k.result is null;
end;
comment on function stellwerk.end_request(text, text, jsonb) is 'Keeps what a request answered that begin_request has begun.';

create or replace function stellwerk.workflow_tag(p_tenant_id bigint, p_workflow_id bigint)
returns text language sql stable set search_path = '' as $$
  select md5(concat_ws('|', w.workflow_id, w.active_version, d.version, d.published_at is null, d.saved_at, d.document))
    from stellwerk.workflow w
    join stellwerk.workflow_version d on d.tenant_id = w.tenant_id and d.workflow_id = w.workflow_id
   where w.tenant_id = p_tenant_id and w.workflow_id = p_workflow_id
   order by d.version desc limit 1
$$;
comment on function stellwerk.workflow_tag(bigint, bigint) is 'Another text whenever the newest document of a workflow, or its active version, is another.';

create or replace function stellwerk.claim_workflow(slug text, tag text default null)
returns text language plpgsql security definer  -- callers have no right to lock rows
set search_path = '' as $$
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint;
  v_tag         text;
begin
  -- By name, so that a workflow that does not exist yet can be claimed as well.
  perform pg_advisory_xact_lock(hashtextextended(format('stellwerk.workflow/%s/%s', v_tenant_id, slug), 0));
  select w.workflow_id into v_workflow_id from stellwerk.workflow w
   where w.tenant_id = v_tenant_id and w.slug = claim_workflow.slug for update;
  v_tag := stellwerk.workflow_tag(v_tenant_id, v_workflow_id);
  if tag is not null and tag is distinct from v_tag then
    raise exception 'the workflow % was changed in the meantime', quote_literal(slug)
      using errcode = 'SW005', hint = 'Read it again, and make your change to what is there now.';
  end if;
  return v_tag;
end
$$;
comment on function stellwerk.claim_workflow(text, text) is 'Keeps others from changing a workflow until the transaction ends, and answers its tag; null when there is none of this name. tag: what it is expected to be. Errors: SW005 when it is another.';

create or replace function stellwerk.delete_workflow(slug text)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(v_tenant_id, slug);
begin
  perform from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.workflow_id = v_workflow.workflow_id for update;
  if exists (select from stellwerk.workflow_version d
              where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id and d.published_at is not null) then
    raise exception 'workflow % was published, and its versions are kept for the runs that used them', quote_literal(slug)
      using errcode = 'SW003', hint = 'A draft goes by stellwerk.discard_draft(slug); publish a version without triggers of its own to start no more runs.';
  end if;
  delete from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.workflow_id = v_workflow.workflow_id;
end
$$;
comment on function stellwerk.delete_workflow(text) is 'Removes a workflow that was never published. Errors: SW001, SW003 when it was.';
