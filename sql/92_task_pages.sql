-- Tasks as the pages show them: lists that stay fast however many tasks are open, and one task with all that belongs to it.

-- One sorted list for each way in which a task can be somebody's, merged: each reads no further than the page is long.
create or replace function stellwerk.list_my_tasks(
  which text default 'all', words text default null, after_due timestamptz default null, after_id bigint default null, page integer default 50)
returns table (id bigint, title text, instructions text, state text, assignee text, role text, claimed_by text, due_at timestamptz, overdue boolean,
               created_at timestamptz, sort_due text)
language plpgsql stable set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_me        stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_now       timestamptz := stellwerk.clock();
  v_after     timestamptz := coalesce(after_due, '-infinity');
  v_pattern   text := '%' || replace(replace(replace(nullif(btrim(words), ''), '\', '\\'), '%', '\%'), '_', '\_') || '%';
begin
  if page is null or page not between 1 and 1000 then
    raise exception 'a page has 1 to 1000 tasks' using errcode = 'SW002';
  elsif which is null or which not in ('all', 'mine', 'group', 'overdue') then
    raise exception 'there is no list of tasks %', quote_nullable(which) using errcode = 'SW002', hint = 'all, mine, group or overdue.';
  end if;
  return query
    select distinct on (k.due, k.task_id) k.task_id, k.title, k.instructions, k.state, k.assignee, k.role, k.claimed_by, k.due_at,
           coalesce(k.due_at < v_now, false), k.created_at, k.due::text
      from (
        select k.*, coalesce(k.due_at, 'infinity'::timestamptz) as due
          from (select distinct s.name from unnest(v_me.stands || v_me.name) s (name)) p
         cross join lateral (
           select * from stellwerk.user_task k
            where k.tenant_id = v_tenant_id and k.state = 'claimed' and k.claimed_by = p.name and which <> 'group'
              and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_after, coalesce(after_id, 0))
              and (which <> 'overdue' or k.due_at < v_now) and (v_pattern is null or k.title ilike v_pattern)
            order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit page) k
        union all
        select k.*, coalesce(k.due_at, 'infinity'::timestamptz) as due
          from (select distinct s.name from unnest(v_me.stands) s (name)) p
         cross join lateral (
           select * from stellwerk.user_task k
            where k.tenant_id = v_tenant_id and k.state = 'open' and k.assignee = p.name and which <> 'group'
              and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_after, coalesce(after_id, 0))
              and (which <> 'overdue' or k.due_at < v_now) and (v_pattern is null or k.title ilike v_pattern)
            order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit page) k
        union all
        select k.*, coalesce(k.due_at, 'infinity'::timestamptz) as due
          from (select distinct s.name from unnest(v_me.groups || v_me.role) s (name)) p
         cross join lateral (
           select * from stellwerk.user_task k
            where k.tenant_id = v_tenant_id and k.state = 'open' and k.assignee is null and k.role = p.name and which <> 'mine'
              and (coalesce(k.due_at, 'infinity'::timestamptz), k.task_id) > (v_after, coalesce(after_id, 0))
              and (which <> 'overdue' or k.due_at < v_now) and (v_pattern is null or k.title ilike v_pattern)
              and not exists (select from stellwerk.user_task_decision d
                               where d.tenant_id = k.tenant_id and d.task_id = k.task_id and d.actor = v_me.name)
            order by coalesce(k.due_at, 'infinity'::timestamptz), k.task_id limit page) k) k
     order by k.due, k.task_id
     limit page;
end
$$;
comment on function stellwerk.list_my_tasks(text, text, timestamptz, bigint, integer) is 'The open tasks of whoever asks, by due time (those without one last), a page at a time: after_due and after_id are sort_due and id of the last one seen. which: all, mine (asked of or claimed by oneself), group (offered to a role or group) or overdue; words: what the title holds. Errors: SW002.';

create or replace function stellwerk.task_page(task_id bigint)
returns table (id bigint, title text, instructions text, state text, assignee text, role text, claimed_by text, due_at timestamptz, overdue boolean,
               form jsonb, prefill jsonb, draft jsonb, shown jsonb, outcomes text[], outcome text, result jsonb, completed_by text, reason text,
               approvals integer, decisions integer, created_at timestamptz, ended_at timestamptz, run_id bigint, case_id bigint, case_summary text,
               may_work boolean, claimed_by_me boolean, has_decided boolean, may_hand_over boolean, may_not_decide_alone boolean)
language plpgsql stable set search_path = '' as $$
#variable_conflict use_column
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_me        stellwerk.person := stellwerk.task_talker(v_tenant_id, task_page.task_id);
  v_task      stellwerk.user_task;
  v_offered   boolean;
begin
  select * into v_task from stellwerk.user_task k where k.tenant_id = v_tenant_id and k.task_id = task_page.task_id;
  v_offered := stellwerk.offered_to(v_task, v_me);
  return query
    select v_task.task_id, v_task.title, v_task.instructions, v_task.state, v_task.assignee, v_task.role, v_task.claimed_by, v_task.due_at,
           coalesce(v_task.due_at < stellwerk.clock() and v_task.state in ('open', 'claimed'), false),
           v_task.form, v_task.prefill, v_task.drafts -> v_me.name, s.input -> 'show', v_task.outcomes, v_task.outcome, v_task.result, v_task.completed_by, v_task.reason,
           v_task.approvals, d.given, v_task.created_at, v_task.ended_at, v_task.run_id, c.case_id, c.summary,
           v_offered and v_task.state in ('open', 'claimed') and not d.mine
             and (v_task.claimed_by is null or v_task.claimed_by = v_me.name or v_task.claimed_by = any (v_me.stands)),
           coalesce(v_task.state = 'claimed' and v_task.claimed_by = v_me.name, false), d.mine,
           v_task.state in ('open', 'claimed') and (v_offered or v_me.steers),
           not v_task.allow_self and v_me.name = any (stellwerk.starters_of(v_tenant_id, v_task.run_id))
      from (select count(*)::integer as given, coalesce(bool_or(x.actor = v_me.name), false) as mine
              from stellwerk.user_task_decision x where x.tenant_id = v_tenant_id and x.task_id = v_task.task_id) d
      left join stellwerk.step s on s.tenant_id = v_tenant_id and s.run_id = v_task.run_id and s.step_id = v_task.step_id
      left join stellwerk.backoffice_case c on c.tenant_id = v_tenant_id and c.run_id = v_task.run_id;
end
$$;
comment on function stellwerk.task_page(bigint) is 'A task with what the page shows, and what whoever asks may do with it. Errors: SW004 for those whom it is not offered to, SW007.';
