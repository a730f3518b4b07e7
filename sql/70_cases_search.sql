-- Cases found and handed out: lists in pages that stay fast however many cases there are, and CSV.

create or replace function stellwerk.word_query(p_words text)
returns tsquery language sql immutable set search_path = ''
return (select to_tsquery('simple'::regconfig, string_agg('''' || replace(replace(w.word, '\', '\\'), '''', '''''') || ''':*', ' & '))
          from regexp_split_to_table(left(p_words, 500), '\s+') w (word) where w.word ~ '[[:alnum:]]');
comment on function stellwerk.word_query(text) is 'A query for everything that has words which begin like these; null where there is nothing to look for.';

create or replace view stellwerk.case_overview with (security_barrier) as
select c.case_id, c.run_id, c.workflow, c.status, s.label, s.color, s.final, c.assignee, c.summary, c.note, c.payload, c.version, c.created_at, c.updated_at
  from stellwerk.backoffice_case c
  left join lateral stellwerk.case_statuses(c.workflow) s on s.status = c.status
 where c.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.case_overview is 'The cases of the current tenant, with what their workflow declares of their status; search_cases answers the same in pages.';
comment on column stellwerk.case_overview.case_id is 'The case.';
comment on column stellwerk.case_overview.run_id is 'The run that made it.';
comment on column stellwerk.case_overview.workflow is 'Slug of that run''s workflow.';
comment on column stellwerk.case_overview.status is 'Its status.';
comment on column stellwerk.case_overview.label is 'The status as people read it; null where the workflow declares none such.';
comment on column stellwerk.case_overview.color is 'grey, blue, green, yellow, orange, red or purple.';
comment on column stellwerk.case_overview.final is 'Whether the case is done with.';
comment on column stellwerk.case_overview.assignee is 'Who takes care of it.';
comment on column stellwerk.case_overview.summary is 'One line for people.';
comment on column stellwerk.case_overview.note is 'Free text for people.';
comment on column stellwerk.case_overview.payload is 'The data handed over, by field name.';
comment on column stellwerk.case_overview.version is 'To be told when it is changed, so that nobody else''s change is lost.';
comment on column stellwerk.case_overview.created_at is 'When it was made.';
comment on column stellwerk.case_overview.updated_at is 'When it last changed.';

-- One condition per filter that was given, so that the planner sees which index serves. No value is part of the text.
create or replace function stellwerk.case_filter(p_words boolean, p_statuses boolean, p_one_status boolean, p_workflow boolean, p_assignee boolean)
returns text language sql immutable set search_path = ''
return ' c.tenant_id = $1'
       || case when p_words then ' and c.search @@ $2' else '' end
       || case when p_one_status then ' and c.status = $3[1]' when p_statuses then ' and c.status = any ($3)' else '' end
       || case when p_workflow then ' and c.workflow = $4' else '' end
       || case when p_assignee then ' and c.assignee = $5' else '' end;
comment on function stellwerk.case_filter(boolean, boolean, boolean, boolean, boolean) is 'The condition of a search for cases over $1 (tenant), $2 (words as a query), $3 (statuses), $4 (workflow), $5 (assignee).';

-- The planner knows nothing of words that are rare or not there, and would walk through all cases for them.
create or replace function stellwerk.cases_with_words(p_tenant_id bigint, p_query tsquery, p_most integer)
returns bigint[] language plpgsql stable set search_path = ''
set enable_seqscan = off set enable_indexscan = off set enable_indexonlyscan = off as $$
declare
  v_cases bigint[] := array(select c.case_id from stellwerk.backoffice_case c where c.tenant_id = p_tenant_id and c.search @@ p_query limit p_most + 1);
begin
  return case when cardinality(v_cases) <= p_most then v_cases end;
end
$$;
comment on function stellwerk.cases_with_words(bigint, tsquery, integer) is 'The cases that fit a query, by the index of words; null when they are more than so many.';

create or replace function stellwerk.search_cases(
  words text default null, statuses text[] default null, workflow text default null, assignee text default null,
  before bigint default null, page integer default 50, still_open boolean default false)
returns setof stellwerk.case_overview language plpgsql stable security definer  -- under a policy the index of words could not be used; the tenant is checked here
set search_path = '' set jit = off as $$
declare
  c_few       constant integer := 2000;
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_query     tsquery := stellwerk.word_query(words);
  v_cases     bigint[];
  v_open      text[];
  v_done      jsonb;
  v_from      text;
begin
  if page is null or page not between 1 and 1000 then
    raise exception 'a page has 1 to 1000 cases' using errcode = 'SW002', hint = 'before => the last case_id goes on with the next page.';
  end if;
  if v_query is not null then
    v_cases := stellwerk.cases_with_words(v_tenant_id, v_query, c_few);
  end if;
  v_from := 'select * from stellwerk.backoffice_case c
              where' || stellwerk.case_filter(v_query is not null and v_cases is null, statuses is not null, cardinality(statuses) = 1,
                                              search_cases.workflow is not null, search_cases.assignee is not null)
                     || case when v_cases is not null then ' and c.case_id = any ($8)' else '' end
                     || case when before is not null then ' and c.case_id < $6' else '' end;
  if still_open and statuses is null then
    select o.open, o.done into v_open, v_done from stellwerk.open_case_statuses(search_cases.workflow) o;
    -- A page of each status by the index, then the newest of these: however many cases are done with.
    v_from := 'select o.* from unnest($9) f (status) cross join lateral (' || v_from
              || ' and c.status = f.status and not $10 ? jsonb_build_array(c.workflow, c.status)::text order by c.case_id desc limit $7) o';
  end if;
  return query execute
    'select c.case_id, c.run_id, c.workflow, c.status, s.label, s.color, s.final, c.assignee, c.summary, c.note, c.payload, c.version, c.created_at, c.updated_at
       from (' || v_from || ' order by case_id desc limit $7) c
       left join lateral stellwerk.case_statuses(c.workflow) s on s.status = c.status
      order by c.case_id desc'
    using v_tenant_id, v_query, statuses, search_cases.workflow, stellwerk.assignee_name(search_cases.assignee), before, page, v_cases, v_open, v_done;
end
$$;
comment on function stellwerk.search_cases(text, text[], text, text, bigint, integer, boolean) is 'The tenant''s cases, newest first, a page at a time: before => the last case_id seen. still_open: only those that are not done with, by what their workflow says of their status; where statuses are named it says nothing. words: what all must have words beginning with, in summary, note or data. Errors: SW002.';

create or replace function stellwerk.assignee_name(p_assignee text)
returns text language sql immutable set search_path = ''
return case when starts_with(p_assignee, 'role:') then p_assignee else lower(p_assignee) end;
comment on function stellwerk.assignee_name(text) is 'An assignee as cases hold it.';

-- CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it; the full-width forms are the same to some of them.
-- A body that is parsed once needs no search_path, and without one it is put into the statement that calls it: ten times as fast.
create or replace function stellwerk.csv_cell(p_text text)
returns text language sql immutable
return case
         when p_text is null then ''
         when p_text ~ '^[-=+@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]' and p_text !~ '^-?[0-9]+(\.[0-9]+)?$'
           then case when p_text ~ '[",\r\n]' then '"''' || replace(p_text, '"', '""') || '"' else '''' || p_text end
         when p_text ~ '[",\r\n]' then '"' || replace(p_text, '"', '""') || '"'
         else p_text
       end;
comment on function stellwerk.csv_cell(text) is 'A cell of a CSV file (RFC 4180) that no spreadsheet takes for a formula; numbers, negative ones too, stay numbers.';

create or replace function stellwerk.export_cases(
  words text default null, statuses text[] default null, workflow text default null, assignee text default null,
  still_open boolean default false)
returns setof text language plpgsql stable security definer  -- as search_cases
set search_path = '' set jit = off as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_query     tsquery := stellwerk.word_query(words);
  v_assignee  text := stellwerk.assignee_name(assignee);
  v_fields    text[];
  v_open      text[];
  v_done      jsonb;
  v_filter    text := stellwerk.case_filter(v_query is not null, statuses is not null, cardinality(statuses) = 1, workflow is not null, assignee is not null);
begin
  if still_open and statuses is null then
    select o.open, o.done into v_open, v_done from stellwerk.open_case_statuses(workflow) o;
    v_filter := v_filter || ' and c.status = any ($7) and not $8 ? jsonb_build_array(c.workflow, c.status)::text';
  end if;
  execute 'select coalesce(array_agg(k.name order by k.name), ''{}'') from (
             select distinct jsonb_object_keys(c.payload) as name from stellwerk.backoffice_case c where' || v_filter || ') k'
     into v_fields using v_tenant_id, v_query, statuses, workflow, v_assignee, null::text, v_open, v_done;
  return next (select string_agg(stellwerk.csv_cell(h.name), ',' order by h.place)
                 from unnest(array['case_id', 'run_id', 'workflow', 'status', 'assignee', 'note', 'summary', 'created_at', 'updated_at'] || v_fields)
                      with ordinality h (name, place));
  return query execute
    -- An array, for a function takes no more than 100 arguments, and there may be more fields.
    'select array_to_string(array[c.case_id::text, c.run_id::text, stellwerk.csv_cell(c.workflow), stellwerk.csv_cell(c.status), stellwerk.csv_cell(c.assignee),
                      stellwerk.csv_cell(c.note), stellwerk.csv_cell(c.summary), to_char(c.created_at at time zone ''UTC'', $6), to_char(c.updated_at at time zone ''UTC'', $6)'
       || coalesce((select string_agg(format(', stellwerk.csv_cell(c.payload ->> %L)', f.name), '' order by f.place)
                      from unnest(v_fields) with ordinality f (name, place)), '') || '], '','', '''')
       from stellwerk.backoffice_case c where' || v_filter || ' order by c.case_id'
    using v_tenant_id, v_query, statuses, workflow, v_assignee, 'YYYY-MM-DD"T"HH24:MI:SS"Z"', v_open, v_done;
end
$$;
comment on function stellwerk.export_cases(text, text[], text, text, boolean) is 'The tenant''s cases as lines of CSV, the first with the names; each field of the data is a column. Filters as in search_cases.';

create or replace view stellwerk.case_timeline with (security_barrier) as
select h.case_id, h.history_id, h.changed_at, h.actor, h.kind, h.status, h.changes, h.note, h.remark, h.version, h.run_id, h.step_id, s.node_id
  from stellwerk.case_history h
  left join stellwerk.step s on s.tenant_id = h.tenant_id and s.run_id = h.run_id and s.step_id = h.step_id
 where h.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.case_timeline is 'What happened to the cases of the current tenant; order by history_id for the order in time.';
comment on column stellwerk.case_timeline.case_id is 'The case.';
comment on column stellwerk.case_timeline.history_id is 'Number of the entry; follows time within a case.';
comment on column stellwerk.case_timeline.changed_at is 'When.';
comment on column stellwerk.case_timeline.actor is 'Who: run:<id> for a workflow, else an application user or db:<role>.';
comment on column stellwerk.case_timeline.kind is 'change, note or appointment.';
comment on column stellwerk.case_timeline.status is 'The status from then on.';
comment on column stellwerk.case_timeline.changes is 'What changed, as { name: { from, to } }.';
comment on column stellwerk.case_timeline.note is 'The case''s note from then on.';
comment on column stellwerk.case_timeline.remark is 'What staff wrote.';
comment on column stellwerk.case_timeline.version is 'The case''s version from then on.';
comment on column stellwerk.case_timeline.run_id is 'The run that did it, if a workflow did.';
comment on column stellwerk.case_timeline.step_id is 'That run''s step.';
comment on column stellwerk.case_timeline.node_id is 'That step''s node, as long as the run is kept.';
