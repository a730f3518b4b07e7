-- Saving, publishing and rolling back workflows. Documents are compiled before they come here; this file
-- stores the plan beside the document and decides what may be published.

create or replace function stellwerk.find_workflow(p_tenant_id bigint, p_slug text)
returns stellwerk.workflow language plpgsql stable set search_path = '' as $$
declare
  v_workflow stellwerk.workflow;
  v_similar  text;
begin
  select * into v_workflow from stellwerk.workflow w where w.tenant_id = p_tenant_id and w.slug = p_slug;
  if v_workflow.workflow_id is null then
    select string_agg(w.slug, ', ' order by w.slug) into v_similar
      from (select x.slug from stellwerk.workflow x
             where x.tenant_id = p_tenant_id
             order by stellwerk.likeness(x.slug, p_slug) desc, x.slug limit 3) w;
    raise exception 'there is no workflow %', coalesce(quote_literal(left(p_slug, 100)), 'null')
      using errcode = 'SW001',
            hint = case when v_similar is null then 'No workflow has been saved yet: stellwerk workflow apply FILE --publish'
                        else 'There are: ' || v_similar end;
  end if;
  return v_workflow;
end
$$;
comment on function stellwerk.find_workflow(bigint, text) is 'The workflow with a slug; SW001 with similar names when there is none.';

create or replace function stellwerk.likeness(p_a text, p_b text)
returns real language sql immutable parallel safe set search_path = '' as $$
  -- Shared pairs of letters over all pairs, so that a typing error stays near.
  select coalesce(2.0 * count(*) filter (where b.pair is not null)
                  / nullif(greatest(length(p_a) - 1, 0) + greatest(length(p_b) - 1, 0), 0), 0)::real
    from (select distinct substr(lower(p_a), i, 2) as pair from generate_series(1, length(p_a) - 1) i) a
    left join (select distinct substr(lower(left(p_b, 100)), i, 2) as pair from generate_series(1, length(left(p_b, 100)) - 1) i) b
      on b.pair = a.pair
$$;
comment on function stellwerk.likeness(text, text) is 'How alike two names are, 0 to 1, by the pairs of letters they share.';

create or replace function stellwerk.save_workflow(p_document jsonb, p_plan jsonb, p_problems jsonb default '[]')
returns table (slug text, version integer) language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_actor       text := stellwerk.actor();
  v_now         timestamptz := stellwerk.clock();
  v_slug        text := p_document ->> 'slug';
  v_workflow_id bigint;
  v_version     integer;
begin
  if v_slug is null or v_slug !~ '^[a-z][a-z0-9-]{0,62}$' then
    raise exception 'a workflow needs a slug, not %', coalesce(quote_literal(left(v_slug, 100)), 'none')
      using errcode = 'SW006', hint = 'Lower-case letters, digits and hyphens, starting with a letter, at most 63 characters.';
  end if;
  perform stellwerk.check_payload(p_document, 'document');
  insert into stellwerk.workflow as w (tenant_id, slug, name, description)
  values (v_tenant_id, v_slug, coalesce(p_document ->> 'name', v_slug), p_document ->> 'description')
  on conflict on constraint workflow_slug_unique
     do update set name = excluded.name, description = excluded.description, updated_at = v_now
  returning w.workflow_id into v_workflow_id;
  -- The row above is locked now, so two savers cannot both choose the next version.
  select d.version into v_version from stellwerk.workflow_version d
   where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow_id and d.published_at is null;
  if v_version is null then
    select coalesce(max(d.version), 0) + 1 into v_version from stellwerk.workflow_version d
     where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow_id;
    insert into stellwerk.workflow_version (tenant_id, workflow_id, version, document, settings, input_schema, problems, saved_at, saved_by)
    values (v_tenant_id, v_workflow_id, v_version, p_document, coalesce(p_document -> 'settings', '{}'),
            nullif(p_document -> 'input_schema', 'null'), p_problems, v_now, v_actor);
  else
    update stellwerk.workflow_version d
       set document = p_document, settings = coalesce(p_document -> 'settings', '{}'),
           input_schema = nullif(p_document -> 'input_schema', 'null'), problems = p_problems, saved_at = v_now, saved_by = v_actor
     where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow_id and d.version = v_version;
    delete from stellwerk.plan_node n
     where n.tenant_id = v_tenant_id and n.workflow_id = v_workflow_id and n.version = v_version;
  end if;
  perform stellwerk.store_plan(v_tenant_id, v_workflow_id, v_version, p_plan);
  return query select v_slug, v_version;
end
$$;
comment on function stellwerk.save_workflow(jsonb, jsonb, jsonb) is 'Stores a compiled document as the workflow''s draft (a new version, or over the present draft). The plan is one object per node, the problems are those of the compiler; both come from the compiler, stellwerk workflow apply.';

create or replace function stellwerk.store_plan(p_tenant_id bigint, p_workflow_id bigint, p_version integer, p_plan jsonb)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.plan_node (
    tenant_id, workflow_id, version, node_id, position, type, runs_in, executable, config, dynamic, condition, cases, reads, read_steps,
    edges, joins, upstream, cyclic, loop_node, max_attempts, retry, timeout, on_error, compensate, max_visits, may_raise, alone)
  select p_tenant_id, p_workflow_id, p_version, n.node_id, n.position, n.type, n.runs_in, n.executable, n.config, n.dynamic,
         nullif(n.condition, 'null'), nullif(n.cases, 'null'), n.reads,
         array(select jsonb_array_elements_text(coalesce(n.reads -> 'steps', '[]'))),
         n.edges, n.joins, n.upstream, n.cyclic, n.loop_node, n.max_attempts, n.retry, n.timeout, n.on_error, n.compensate, n.max_visits,
         n.may_raise, n.alone
    from jsonb_to_recordset(p_plan) n (
           node_id text, position integer, type text, runs_in text, executable boolean, config jsonb, dynamic jsonb, condition jsonb,
           cases jsonb, reads jsonb, edges jsonb, joins boolean, upstream jsonb, cyclic boolean, loop_node text, max_attempts integer,
           retry jsonb, timeout interval, on_error text, compensate text, max_visits integer, may_raise boolean, alone boolean);
end
$$;
comment on function stellwerk.store_plan(bigint, bigint, integer, jsonb) is 'Writes a compiled plan, one row per node.';

create or replace function stellwerk.publish_workflow(slug text, version integer default null)
returns integer language plpgsql set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_frozen    record;
begin
  select * into v_frozen from stellwerk.publish_draft(slug, version);
  -- Watches need the caller's own right to put a trigger on the table, so they are set outside the definer function.
  perform stellwerk.watch_published(v_tenant_id, v_frozen.workflow_id, v_frozen.version);
  perform stellwerk.follow_published(v_tenant_id, v_frozen.workflow_id, v_frozen.version);
  return v_frozen.version;
end
$$;
comment on function stellwerk.publish_workflow(text, integer) is 'Freezes the draft (which must have the version, if one is named) and starts new runs with it; sets the watches of its trigger.row nodes. Answers the version. Errors: SW001, SW003 without a draft, SW005 when the draft is another version, SW006 when the compiler found errors.';

create or replace function stellwerk.publish_draft(p_slug text, p_version integer)
returns table (workflow_id bigint, version integer) language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(v_tenant_id, p_slug);
  v_draft     stellwerk.workflow_version;
  v_errors    text;
  v_now       timestamptz := stellwerk.clock();
begin
  perform from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.workflow_id = v_workflow.workflow_id for update;
  select * into v_draft from stellwerk.workflow_version d
   where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id and d.published_at is null;
  if v_draft.version is null then
    raise exception 'workflow % has no draft to publish', quote_literal(p_slug)
      using errcode = 'SW003', hint = 'Save a changed document first: stellwerk workflow apply FILE';
  end if;
  if p_version is not null and p_version <> v_draft.version then
    raise exception 'the draft of workflow % is version %, not %', quote_literal(p_slug), v_draft.version, p_version
      using errcode = 'SW005', hint = 'Somebody saved in between, or that version is published already; look at the draft again. An old version comes back by rollback_workflow.';
  end if;
  select string_agg((p.value ->> 'path') || ': ' || (p.value ->> 'message'), E'\n' order by p.ordinality) into v_errors
    from jsonb_array_elements(v_draft.problems) with ordinality p(value, ordinality)
   where coalesce(p.value ->> 'severity', 'error') = 'error';
  if v_errors is null then
    select string_agg(format('nodes[%s].type: %s is not available in this release', n.position, n.type), E'\n' order by n.position) into v_errors
      from stellwerk.plan_node n
     where n.tenant_id = v_tenant_id and n.workflow_id = v_workflow.workflow_id and n.version = v_draft.version and not n.executable;
  end if;
  if v_errors is null and not exists (
       select 1 from stellwerk.plan_node n
        where n.tenant_id = v_tenant_id and n.workflow_id = v_workflow.workflow_id and n.version = v_draft.version and n.runs_in = 'trigger') then
    v_errors := 'nodes: a workflow needs a trigger node to start at';
  end if;
  if v_errors is not null then
    raise exception 'version % of workflow % has errors and cannot be published', v_draft.version, quote_literal(p_slug)
      using errcode = 'SW006', detail = v_errors, hint = 'Mend the document, save it, and publish again.';
  end if;
  update stellwerk.workflow_version d set published_at = v_now, published_by = stellwerk.actor()
   where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id and d.version = v_draft.version;
  update stellwerk.workflow w set active_version = v_draft.version, updated_at = v_now
   where w.tenant_id = v_tenant_id and w.workflow_id = v_workflow.workflow_id;
  perform stellwerk.set_schedules(v_tenant_id, v_workflow.workflow_id, v_draft.version);
  return query select v_workflow.workflow_id, v_draft.version;
end
$$;
comment on function stellwerk.publish_draft(text, integer) is 'The part of publish_workflow that writes tables: checks and freezes the draft, makes it the active version.';

create or replace function stellwerk.rollback_workflow(slug text, version integer)
returns integer language plpgsql set search_path = '' as $$
declare
  v_version integer := stellwerk.copy_version_to_draft(slug, version);
begin
  return stellwerk.publish_workflow(slug, v_version);
end
$$;
comment on function stellwerk.rollback_workflow(text, integer) is 'Publishes the document of an earlier published version again, as a new version. Answers the new version. Errors: SW001, SW003 while an unpublished draft would be lost, SW005 for a version that is not published.';

create or replace function stellwerk.copy_version_to_draft(p_slug text, p_version integer)
returns integer language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(v_tenant_id, p_slug);
  v_old       stellwerk.workflow_version;
  v_version   integer;
begin
  perform from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.workflow_id = v_workflow.workflow_id for update;
  select * into v_old from stellwerk.workflow_version d
   where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id and d.version = p_version and d.published_at is not null;
  if v_old.version is null then
    raise exception 'workflow % has no published version %', quote_literal(p_slug), coalesce(p_version::text, 'null')
      using errcode = 'SW005', hint = 'select version, published_at from stellwerk.workflow_version lists them.';
  end if;
  if exists (select 1 from stellwerk.workflow_version d
              where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id and d.published_at is null) then
    raise exception 'workflow % has an unpublished draft that a roll-back would overtake', quote_literal(p_slug)
      using errcode = 'SW003', hint = 'Publish the draft or discard it: select stellwerk.discard_draft(slug).';
  end if;
  select max(d.version) + 1 into v_version from stellwerk.workflow_version d
   where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id;
  insert into stellwerk.workflow_version (tenant_id, workflow_id, version, document, settings, input_schema, problems, saved_by)
  values (v_tenant_id, v_workflow.workflow_id, v_version, v_old.document, v_old.settings, v_old.input_schema, v_old.problems, stellwerk.actor());
  insert into stellwerk.plan_node
  select (jsonb_populate_record(n, jsonb_build_object('version', v_version))).*
    from stellwerk.plan_node n
   where n.tenant_id = v_tenant_id and n.workflow_id = v_workflow.workflow_id and n.version = p_version;
  return v_version;
end
$$;
comment on function stellwerk.copy_version_to_draft(text, integer) is 'Makes a draft with the document and plan of a published version; answers its number.';

create or replace function stellwerk.discard_draft(slug text)
returns boolean language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_workflow  stellwerk.workflow := stellwerk.find_workflow(v_tenant_id, slug);
begin
  delete from stellwerk.workflow_version d
   where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow.workflow_id and d.published_at is null;
  return found;
end
$$;
comment on function stellwerk.discard_draft(text) is 'Removes the unpublished draft of a workflow; answers whether there was one.';

-- A published version never changes, whoever asks.
create or replace function stellwerk.refuse_change_of_published()
returns trigger language plpgsql set search_path = '' as $$
declare
  v_published boolean;
begin
  if tg_table_name = 'workflow_version' then
    v_published := old.published_at is not null;
  else
    v_published := exists (
      select 1 from stellwerk.workflow_version d
       where d.tenant_id = old.tenant_id and d.workflow_id = old.workflow_id and d.version = old.version and d.published_at is not null);
  end if;
  if v_published then
    raise exception 'version % is published and never changes', old.version
      using errcode = 'SW003', hint = 'Save a new draft and publish it.';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;
comment on function stellwerk.refuse_change_of_published() is 'Trigger: keeps published versions and their plans as they are.';

create or replace trigger workflow_version_frozen before update or delete on stellwerk.workflow_version
  for each row execute function stellwerk.refuse_change_of_published();
create or replace trigger plan_node_frozen before update or delete on stellwerk.plan_node
  for each row execute function stellwerk.refuse_change_of_published();
