-- Drafts as an editor saves them: over what it has read, and never over what somebody else has saved since.

create or replace function stellwerk.draft_tag(p_tenant_id bigint, p_workflow_id bigint)
returns text language sql stable set search_path = '' as $$
  select format('%s@%s', d.version, (extract(epoch from d.saved_at) * 1000000)::bigint)
    from stellwerk.workflow_version d
   where d.tenant_id = p_tenant_id and d.workflow_id = p_workflow_id
   order by d.version desc limit 1
$$;
comment on function stellwerk.draft_tag(bigint, bigint) is 'A mark of the newest version of a workflow, drafts included, as it was last saved; null before the first.';

create or replace function stellwerk.save_draft(p_document jsonb, p_plan jsonb, p_problems jsonb, p_tag text)
returns table (version integer, tag text) language plpgsql security definer  -- callers have no right to lock the workflow's row
set search_path = '' as $$
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint;
  v_found       text;
  v_by          text;
begin
  -- Locked, so that of two who have read the same only one saves.
  select w.workflow_id into v_workflow_id from stellwerk.workflow w
   where w.tenant_id = v_tenant_id and w.slug = p_document ->> 'slug' for update;
  v_found := stellwerk.draft_tag(v_tenant_id, v_workflow_id);
  if v_found is distinct from p_tag then
    select d.saved_by into v_by from stellwerk.workflow_version d
     where d.tenant_id = v_tenant_id and d.workflow_id = v_workflow_id order by d.version desc limit 1;
    if p_tag is null then
      raise exception 'there is a workflow % already', quote_literal(p_document ->> 'slug')
        using errcode = 'SW005', hint = 'Choose another slug, or open that workflow.';
    end if;
    raise exception 'workflow % was saved by % in the meantime', quote_literal(p_document ->> 'slug'), coalesce(v_by, 'somebody else')
      using errcode = 'SW005', hint = 'Load it again, or save over it.';
  end if;
  select s.version into save_draft.version from stellwerk.save_workflow(p_document, p_plan, p_problems) s;
  if v_workflow_id is null then
    select w.workflow_id into v_workflow_id from stellwerk.workflow w where w.tenant_id = v_tenant_id and w.slug = p_document ->> 'slug';
  end if;
  save_draft.tag := stellwerk.draft_tag(v_tenant_id, v_workflow_id);
  return next;
end
$$;
comment on function stellwerk.save_draft(jsonb, jsonb, jsonb, text) is 'save_workflow for editors: p_tag is the draft_tag that the document was read with, null for a new workflow. Answers the draft''s version and its new tag. Errors: those of save_workflow, SW005 when somebody has saved since.';
