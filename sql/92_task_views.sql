-- Tasks as people see them.

create or replace view stellwerk.task_overview with (security_barrier) as
select k.task_id as id, k.title, k.state, k.assignee, k.role, k.claimed_by, k.due_at,
       coalesce(k.due_at < clock_timestamp() and k.state in ('open', 'claimed'), false) as overdue,
       k.run_id, k.step_id, w.slug as workflow, k.instructions, k.form, k.prefill, k.outcomes,
       k.drafts -> (select (stellwerk.current_person(stellwerk.current_tenant_id())).name) as draft, k.outcome, k.result, k.completed_by,
       k.approvals,
       (select count(*)::integer from stellwerk.user_task_decision d where d.tenant_id = k.tenant_id and d.task_id = k.task_id) as decisions,
       k.allow_self, k.claimed_at, k.reason, k.created_at, k.ended_at
  from stellwerk.user_task k
  join stellwerk.run r on r.tenant_id = k.tenant_id and r.run_id = k.run_id
  join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id
 where k.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.task_overview is 'Every task of the tenant, whoever it is for.';
comment on column stellwerk.task_overview.id is 'The task''s number.';
comment on column stellwerk.task_overview.title is 'One line.';
comment on column stellwerk.task_overview.state is 'open, claimed, completed, expired or cancelled.';
comment on column stellwerk.task_overview.assignee is 'The person who is asked; null: anybody of the role.';
comment on column stellwerk.task_overview.role is 'The role that it is offered to.';
comment on column stellwerk.task_overview.claimed_by is 'Who works on it.';
comment on column stellwerk.task_overview.due_at is 'When it should be done.';
comment on column stellwerk.task_overview.overdue is 'Whether it should have been done by now.';
comment on column stellwerk.task_overview.run_id is 'The run that waits for it.';
comment on column stellwerk.task_overview.step_id is 'That run''s step.';
comment on column stellwerk.task_overview.workflow is 'Slug of the run''s workflow.';
comment on column stellwerk.task_overview.instructions is 'What the person should do.';
comment on column stellwerk.task_overview.form is 'JSON Schema of the result.';
comment on column stellwerk.task_overview.prefill is 'Values that the form begins with.';
comment on column stellwerk.task_overview.outcomes is 'The decisions to choose from.';
comment on column stellwerk.task_overview.draft is 'What whoever asks has filled in so far.';
comment on column stellwerk.task_overview.outcome is 'The decision.';
comment on column stellwerk.task_overview.result is 'The form as it was handed in.';
comment on column stellwerk.task_overview.completed_by is 'Who decided; escalation when the ladder did.';
comment on column stellwerk.task_overview.approvals is 'How many people must choose the first outcome.';
comment on column stellwerk.task_overview.decisions is 'How many have decided so far.';
comment on column stellwerk.task_overview.allow_self is 'Whether who started the run may decide.';
comment on column stellwerk.task_overview.claimed_at is 'Since when somebody works on it.';
comment on column stellwerk.task_overview.reason is 'Why it was cancelled or expired.';
comment on column stellwerk.task_overview.created_at is 'When the run came to it.';
comment on column stellwerk.task_overview.ended_at is 'When it was completed, expired or cancelled.';

create or replace view stellwerk.my_task with (security_barrier) as
select k.task_id as id, k.title, k.instructions, k.state, k.assignee, k.role, k.claimed_by, k.due_at,
       coalesce(k.due_at < clock_timestamp(), false) as overdue,
       k.run_id, k.form, k.prefill, k.outcomes, k.drafts -> me.name as draft, k.outcome, k.result, k.created_at
  from stellwerk.user_task k
 cross join (select t.tenant_id, (p.person).name, (p.person).role, (p.person).groups, (p.person).stands,
                    (p.person).admin and (p.person).email is null as everything
               from (select stellwerk.current_tenant_id() as tenant_id offset 0) t
              cross join lateral (select stellwerk.current_person(t.tenant_id) as person offset 0) p) me
 where k.tenant_id = me.tenant_id and k.state in ('open', 'claimed')
   and (me.everything
        or k.claimed_by = me.name or k.claimed_by = any (me.stands)
        or k.claimed_by is null and (k.assignee = any (me.stands)
                                     or k.assignee is null and (k.role = me.role or k.role = any (me.groups))))
   and not exists (select from stellwerk.user_task_decision d where d.tenant_id = k.tenant_id and d.task_id = k.task_id and d.actor = me.name)
   and not exists (select from stellwerk.user_task_change c where c.tenant_id = k.tenant_id and c.task_id = k.task_id and c.cancels);
comment on view stellwerk.my_task is 'The open tasks of whoever asks: the own ones, those of the own role and groups that nobody has claimed, and those of people who are away. Setting outcome and result decides one, the state claimed claims it and open gives it back; setting draft keeps a draft. A login of the administrators that is no user sees all.';
comment on column stellwerk.my_task.id is 'The task''s number.';
comment on column stellwerk.my_task.title is 'One line.';
comment on column stellwerk.my_task.instructions is 'What is to be done.';
comment on column stellwerk.my_task.state is 'open or claimed; may be set to either, or to completed.';
comment on column stellwerk.my_task.assignee is 'Who is asked; null: anybody of the role.';
comment on column stellwerk.my_task.role is 'The role that it is offered to.';
comment on column stellwerk.my_task.claimed_by is 'Who works on it.';
comment on column stellwerk.my_task.due_at is 'When it should be done.';
comment on column stellwerk.my_task.overdue is 'Whether it should have been done by now.';
comment on column stellwerk.my_task.run_id is 'The run that waits for it.';
comment on column stellwerk.my_task.form is 'JSON Schema of the result.';
comment on column stellwerk.my_task.prefill is 'Values that the form begins with.';
comment on column stellwerk.my_task.outcomes is 'The decisions to choose from.';
comment on column stellwerk.my_task.draft is 'What whoever asks has filled in so far; may be set.';
comment on column stellwerk.my_task.outcome is 'To be set: the decision.';
comment on column stellwerk.my_task.result is 'To be set: what was filled in.';
comment on column stellwerk.my_task.created_at is 'When the run came to it.';

create or replace function stellwerk.update_my_task()
returns trigger language plpgsql set search_path = '' as $$
declare
  c_settable constant text[] := array['state', 'outcome', 'result', 'draft'];
  v_fixed    text;
begin
  select string_agg(n.key, ', ' order by n.key) into v_fixed
    from jsonb_each(to_jsonb(new)) n join jsonb_each(to_jsonb(old)) o on o.key = n.key
   where n.value <> o.value and n.key <> all (c_settable);
  if v_fixed is not null then
    raise exception 'a task''s % cannot be set', v_fixed
      using errcode = 'SW002', hint = 'state, outcome, result and draft can be; stellwerk.reassign_task hands a task over.';
  end if;
  if new.outcome is not null or new.result is not null or new.state = 'completed' then
    perform stellwerk.complete_task(old.id, coalesce(new.result, new.draft, '{}'), new.outcome);
    return new;
  end if;
  if new.state is distinct from old.state then
    case new.state
      when 'claimed' then perform stellwerk.claim_task(old.id);
      when 'open' then perform stellwerk.release_task(old.id);
      else
        raise exception 'a task cannot be made %', coalesce(quote_literal(left(new.state, 60)), 'null')
          using errcode = 'SW002', hint = 'Set state to claimed, open or completed.';
    end case;
  end if;
  if new.draft is distinct from old.draft then
    perform stellwerk.save_task_draft(old.id, new.draft);
  end if;
  return new;
end
$$;
comment on function stellwerk.update_my_task() is 'Trigger of my_task: outcome and result, or the state completed, decide a task, with the draft where no result is given; the state claimed claims it, open gives it back; draft alone is kept.';

create or replace trigger my_task_updated instead of update on stellwerk.my_task
  for each row execute function stellwerk.update_my_task();
