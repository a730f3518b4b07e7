-- What the pages of cases offer to choose from.

create or replace function stellwerk.case_workflows()
returns table (workflow text, name text)
language sql stable set search_path = ''
begin atomic
  select w.slug, coalesce(nullif(w.name, ''), w.slug)
    from stellwerk.workflow w
   cross join lateral (select from stellwerk.backoffice_case c where c.tenant_id = w.tenant_id and c.workflow = w.slug
                       order by c.case_id limit 1) c  -- in this order it is one look into the index
   where w.tenant_id = stellwerk.current_tenant_id()
   order by 2, 1;
end;
comment on function stellwerk.case_workflows() is 'The workflows of the current tenant that have cases, with their names for people.';

-- The next status after each is found by the index, so that the number of cases does not matter.
create or replace function stellwerk.used_case_statuses()
returns table (status text, label text, color text)
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column
declare
  c_most      constant integer := 200;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_used      text[];
begin
  v_used := array(
    with recursive used (status, place) as (
      (select c.status, 1 from stellwerk.backoffice_case c where c.tenant_id = v_tenant_id and c.status is not null order by c.status limit 1)
      union all
      select (select c.status from stellwerk.backoffice_case c where c.tenant_id = v_tenant_id and c.status > u.status order by c.status limit 1), u.place + 1
        from used u where u.status is not null and u.place < c_most)
    select u.status from used u where u.status is not null);
  return query
    select x.status, coalesce(min(x.label), x.status), coalesce(min(x.color), 'grey')
      from (select u.name as status, null::text as label, null::text as color from unnest(v_used) u (name)
             union all
            select s.status, s.label, s.color from stellwerk.case_workflows() w cross join lateral stellwerk.case_statuses(w.workflow) s) x
     group by x.status
     order by 2, 1;
end
$$;
comment on function stellwerk.used_case_statuses() is 'Every status that a case has, or that a workflow with cases declares; label and colour as the first such workflow has them.';
