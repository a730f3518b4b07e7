-- One change for many cases, by the rules of the single one.

create or replace function stellwerk.set_case_statuses(case_ids bigint[], status text, note text default null)
returns table (case_id bigint, version integer, code text, message text)
language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
#variable_conflict use_column
declare
  c_most      constant integer := 1000;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_actor     text := stellwerk.case_editor(v_tenant_id);
  v_now       timestamptz := stellwerk.clock();
  v_ids       bigint[] := array(select distinct i.id from unnest(case_ids) i (id) where i.id is not null order by i.id);
  v_before    stellwerk.backoffice_case[];
  v_after     stellwerk.backoffice_case[];
  v_kind      stellwerk.backoffice_case;
  v_verdicts  jsonb := '{}'::jsonb;
  v_code      text;
  v_message   text;
begin
  if cardinality(v_ids) not between 1 and c_most then
    raise exception 'a status is set for 1 to % cases at once, not %', c_most, cardinality(v_ids) using errcode = 'SW002';
  end if;
  -- In the order of their numbers, so that two who change the same ones wait for each other and not in a circle.
  v_before := array(
    select c from (select * from stellwerk.backoffice_case o where o.tenant_id = v_tenant_id and o.case_id = any (v_ids) order by o.case_id for update) c);
  -- Whether a case may go on depends on its workflow and its status alone, so it is asked once for each.
  for v_kind in select distinct on (b.workflow, b.status) b.* from unnest(v_before) b order by b.workflow, b.status, b.case_id loop
    begin
      perform stellwerk.check_case_edit(v_kind, jsonb_strip_nulls(jsonb_build_object('status', set_case_statuses.status))
                                                || case when set_case_statuses.note is not null then jsonb_build_object('note', set_case_statuses.note) else '{}' end);
      perform stellwerk.check_case_status(v_kind, set_case_statuses.status);
    exception when sqlstate 'SW002' or sqlstate 'SW003' then
      get stacked diagnostics v_code = returned_sqlstate, v_message = message_text;
      v_verdicts := v_verdicts || jsonb_build_object(jsonb_build_array(v_kind.workflow, v_kind.status)::text, jsonb_build_array(v_code,
        replace(v_message, format('case %s is ', v_kind.case_id), 'the case is ')));
    end;
  end loop;
  with changed as (
    update stellwerk.backoffice_case c
       set status = set_case_statuses.status, note = case when set_case_statuses.note is null then c.note else nullif(set_case_statuses.note, '') end,
           version = c.version + 1, updated_at = v_now
      from unnest(v_before) b
     where c.tenant_id = v_tenant_id and c.case_id = b.case_id and not v_verdicts ? jsonb_build_array(b.workflow, b.status)::text
       and (b.status, coalesce(b.note, '')) is distinct from (set_case_statuses.status, coalesce(set_case_statuses.note, b.note, ''))
    returning c)
  select array_agg(h.c order by (h.c).case_id) into v_after from changed h;
  perform stellwerk.note_case_change(b, a, v_actor, null, null, null)
     from unnest(v_after) a join unnest(v_before) b on b.case_id = a.case_id;
  return query
    select i.id, coalesce(a.version, b.version), case when b.case_id is null then 'SW007' else v.verdict ->> 0 end,
           case when b.case_id is null then format('there is no case %s', i.id) else v.verdict ->> 1 end
      from unnest(v_ids) i (id)
      left join unnest(v_before) b on b.case_id = i.id
      left join unnest(v_after) a on a.case_id = i.id
     cross join lateral (select v_verdicts -> jsonb_build_array(b.workflow, b.status)::text as verdict) v
     order by i.id;
end
$$;
comment on function stellwerk.set_case_statuses(bigint[], text, text) is 'Sets the status of many cases, and their note if one is given, as set_case_status does for one. Answers for each its version now, and a code (SW002, SW003, SW007) and message where it stays as it was. Errors: SW002 for more than 1000 cases, SW004.';

create or replace function stellwerk.open_case_statuses(p_workflow text, out open text[], out done jsonb)
language plpgsql stable set search_path = '' as $$
begin
  with known as (
    select u.status, w.workflow, coalesce(s.final, false) as final
      from stellwerk.used_case_statuses() u
      left join stellwerk.case_workflows() w on p_workflow is null or w.workflow = p_workflow
      left join lateral stellwerk.case_statuses(w.workflow) s on s.status = u.status)
  select coalesce((select array_agg(distinct k.status) from known k where not k.final), '{}'),
         coalesce((select jsonb_object_agg(jsonb_build_array(k.workflow, k.status)::text, true) from known k where k.final), '{}')
    into open, done;
end
$$;
comment on function stellwerk.open_case_statuses(text) is 'The statuses with which a case of the workflow (null: of any) is not done, and, as keys, the pairs [workflow, status] with which one is.';
