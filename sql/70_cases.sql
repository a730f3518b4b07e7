-- Cases in the hands of staff. Every verb locks the case, checks the version that the caller saw, and writes the history.

create or replace function stellwerk.case_editor(p_tenant_id bigint)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_person stellwerk.person := stellwerk.current_person(p_tenant_id);
begin
  if not coalesce(v_person.admin or 'work' = any (stellwerk.role_rights(v_person.role)), false) then
    raise exception '% may not change cases', v_person.name
      using errcode = 'SW004', hint = 'Staff, designers, operators and admins may: stellwerk user list shows who is what.';
  end if;
  return v_person.name;
end
$$;
comment on function stellwerk.case_editor(bigint) is 'Who acts, if that person may change cases. Errors: SW004.';

create or replace function stellwerk.lock_case(p_tenant_id bigint, p_case_id bigint, p_version integer default null)
returns stellwerk.backoffice_case language plpgsql set search_path = '' as $$
declare
  v_case stellwerk.backoffice_case;
begin
  select * into v_case from stellwerk.backoffice_case c where c.tenant_id = p_tenant_id and c.case_id = p_case_id for update;
  if v_case.case_id is null then
    raise exception 'there is no case %', coalesce(p_case_id::text, 'null')
      using errcode = 'SW007', hint = 'stellwerk case list shows them.';
  elsif p_version <> v_case.version then
    raise exception 'case % has changed meanwhile: it is version % now, not %', p_case_id, v_case.version, p_version
      using errcode = 'SW005',
            detail = (select format('Last changed by %s at %s.', h.actor, stellwerk.at_text(h.changed_at)) from stellwerk.case_history h
                       where h.tenant_id = p_tenant_id and h.case_id = p_case_id and h.kind = 'change' order by h.history_id desc limit 1),
            hint = 'Look at it again, then decide.';
  end if;
  return v_case;
end
$$;
comment on function stellwerk.lock_case(bigint, bigint, integer) is 'A case, locked, if it is the version that the caller saw (null: any). Errors: SW005, SW007.';

create or replace function stellwerk.case_statuses(workflow text)
returns table ("position" integer, status text, label text, color text, final boolean, next text[])
language sql stable security definer  -- callers may not read settings of versions
set search_path = ''
begin atomic
  select s.place::integer, s.item ->> 'status', coalesce(s.item ->> 'label', s.item ->> 'status'), coalesce(s.item ->> 'color', 'grey'),
         coalesce((s.item ->> 'final')::boolean, false),
         case when jsonb_typeof(s.item -> 'next') = 'array' then array(select jsonb_array_elements_text(s.item -> 'next'))
              when (s.item ->> 'final')::boolean then '{}' end
    from stellwerk.workflow w
    join stellwerk.workflow_version v on v.tenant_id = w.tenant_id and v.workflow_id = w.workflow_id and v.version = w.active_version
   cross join lateral jsonb_array_elements(case when jsonb_typeof(v.settings -> 'case_statuses') = 'array' then v.settings -> 'case_statuses' else '[]' end)
              with ordinality s (item, place)
   where w.tenant_id = stellwerk.current_tenant_id() and w.slug = case_statuses.workflow
   order by s.place;
end;
comment on function stellwerk.case_statuses(text) is 'The statuses that a workflow''s active version declares for its cases, in their order: label, colour, whether a case is done with it, and to which ones staff may go on from it (null: any). No rows: any status will do.';

create or replace function stellwerk.check_case_status(p_case stellwerk.backoffice_case, p_status text)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_known text[] := array(select s.status from stellwerk.case_statuses(p_case.workflow) s order by s."position");
  v_next  text[];
begin
  if p_status is null or length(p_status) not between 1 and 100 then
    raise exception 'a status has 1 to 100 characters' using errcode = 'SW002';
  elsif p_status = p_case.status or cardinality(v_known) = 0 then
    return;
  elsif p_status <> all (v_known) then
    raise exception 'cases of % have no status %', p_case.workflow, quote_literal(p_status)
      using errcode = 'SW002', hint = 'There are: ' || array_to_string(v_known, ', ');
  end if;
  select s.next into v_next from stellwerk.case_statuses(p_case.workflow) s where s.status = p_case.status;
  if p_status <> all (v_next) then
    raise exception 'case % is %, from which it cannot become %', p_case.case_id, p_case.status, p_status
      using errcode = 'SW003',
            hint = case when cardinality(v_next) = 0 then 'That status is final.' else 'From here it can become: ' || array_to_string(v_next, ', ') end;
  end if;
end
$$;
comment on function stellwerk.check_case_status(stellwerk.backoffice_case, text) is 'Raises SW002 for a status that the case''s workflow does not know, SW003 for one that staff cannot go on to from the present one.';

create or replace function stellwerk.check_case_edit(p_case stellwerk.backoffice_case, p_changes jsonb)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_unknown text;
begin
  perform stellwerk.check_payload(p_changes, 'change');
  if jsonb_typeof(p_changes) <> 'object' then
    raise exception 'changes are an object' using errcode = 'SW002', hint = 'Such as {"status": "done", "note": null}.';
  end if;
  select min(k.name) into v_unknown from jsonb_object_keys(p_changes) k (name) where k.name not in ('status', 'note', 'summary', 'assignee', 'payload');
  if v_unknown is not null then
    raise exception 'a case has no %', quote_literal(left(v_unknown, 100))
      using errcode = 'SW002', hint = 'status, note, summary, assignee and payload can be changed.';
  elsif exists (select from jsonb_each(p_changes) f where f.key <> 'payload' and jsonb_typeof(f.value) not in ('string', 'null'))
        or coalesce(jsonb_typeof(p_changes -> 'payload'), 'object') <> 'object' then
    raise exception 'status, note, summary and assignee are texts or null, payload is an object' using errcode = 'SW002';
  end if;
  if p_changes ? 'status' then
    perform stellwerk.check_case_status(p_case, p_changes ->> 'status');
  end if;
  if p_changes ->> 'assignee' is not null and not stellwerk.is_somebody(p_case.tenant_id, p_changes ->> 'assignee') then
    raise exception 'there is no active user %', p_changes ->> 'assignee'
      using errcode = 'SW007', hint = 'Name a user''s e-mail address, or role:NAME; stellwerk user list shows them.';
  end if;
end
$$;
comment on function stellwerk.check_case_edit(stellwerk.backoffice_case, jsonb) is 'Raises SW002, SW003 or SW007 for what cannot become of a case.';

create or replace function stellwerk.update_case(case_id bigint, changes jsonb, version integer default null, remark text default null)
returns integer language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_actor     text := stellwerk.case_editor(v_tenant_id);
  v_before    stellwerk.backoffice_case := stellwerk.lock_case(v_tenant_id, update_case.case_id, update_case.version);
  v_now       timestamptz := stellwerk.clock();
  v_after     stellwerk.backoffice_case;
begin
  perform stellwerk.check_case_edit(v_before, changes);
  v_after := v_before;
  v_after.status := case when changes ? 'status' then changes ->> 'status' else v_before.status end;
  v_after.note := case when changes ? 'note' then nullif(changes ->> 'note', '') else v_before.note end;
  v_after.summary := case when changes ? 'summary' then nullif(changes ->> 'summary', '') else v_before.summary end;
  v_after.assignee := case when changes ->> 'assignee' like 'role:%' then changes ->> 'assignee'
                           when changes ? 'assignee' then lower(changes ->> 'assignee') else v_before.assignee end;
  -- A field that is set to null goes.
  v_after.payload := (select coalesce(jsonb_object_agg(f.key, f.value), '{}')
                        from jsonb_each(v_before.payload || coalesce(changes -> 'payload', '{}')) f
                       where f.value <> 'null' or not coalesce(changes -> 'payload' ? f.key, false));
  if v_after is not distinct from v_before then
    return v_before.version;
  end if;
  update stellwerk.backoffice_case c
     set status = v_after.status, note = v_after.note, summary = v_after.summary, assignee = v_after.assignee, payload = v_after.payload,
         version = c.version + 1, updated_at = v_now
   where c.tenant_id = v_tenant_id and c.case_id = v_before.case_id
  returning c.* into v_after;
  perform stellwerk.note_case_change(v_before, v_after, v_actor, null, null, nullif(btrim(remark), ''));
  return v_after.version;
end
$$;
comment on function stellwerk.update_case(bigint, jsonb, integer, text) is 'Changes a case as staff: status, note, summary, assignee, and fields of payload (null removes one). The version is the one that the caller saw. Answers the new one, or the same where nothing would change. Errors: SW002, SW003 for a status that does not follow the present one, SW004, SW005 when somebody changed it meanwhile, SW007.';

create or replace function stellwerk.set_case_status(case_id bigint, status text, note text default null, version integer default null)
returns integer language sql volatile set search_path = ''
begin atomic
  select stellwerk.update_case(set_case_status.case_id, jsonb_build_object('status', set_case_status.status)
           || case when set_case_status.note is not null then jsonb_build_object('note', set_case_status.note) else '{}' end, set_case_status.version);
end;
comment on function stellwerk.set_case_status(bigint, text, text, integer) is 'Sets a case''s status, and its note if one is given. As update_case.';

create or replace function stellwerk.assign_case(case_id bigint, assignee text, version integer default null)
returns integer language sql volatile set search_path = ''
begin atomic
  select stellwerk.update_case(assign_case.case_id, jsonb_build_object('assignee', assign_case.assignee), assign_case.version);
end;
comment on function stellwerk.assign_case(bigint, text, integer) is 'Puts a user (by e-mail address) or role:NAME in charge of a case; null: nobody. As update_case.';

create or replace function stellwerk.add_case_note(case_id bigint, body text)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id  bigint := stellwerk.current_tenant_id();
  v_actor      text := stellwerk.case_editor(v_tenant_id);
  v_case       stellwerk.backoffice_case := stellwerk.lock_case(v_tenant_id, add_case_note.case_id);
  v_history_id bigint;
begin
  if coalesce(length(btrim(body)), 0) not between 1 and 10000 then
    raise exception 'a note has 1 to 10000 characters' using errcode = 'SW002';
  end if;
  insert into stellwerk.case_history (tenant_id, case_id, kind, status, note, remark, version, actor, changed_at)
  values (v_tenant_id, v_case.case_id, 'note', v_case.status, v_case.note, btrim(body), v_case.version, v_actor, stellwerk.clock())
  returning history_id into v_history_id;
  return v_history_id;
end
$$;
comment on function stellwerk.add_case_note(bigint, text) is 'Writes a note of staff into a case''s history; the case itself does not change. Answers its number. Errors: SW002, SW004, SW007.';
