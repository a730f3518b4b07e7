-- Tasks as the engine sees them: how a step asks, what happens while nobody answers, how the question ends.
-- The run is locked by whoever calls these; the task's row comes last in the order of locks.

create or replace function stellwerk.begin_task(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome  stellwerk.outcome := row(null, p_config, null, null);
  v_now      timestamptz := stellwerk.clock();
  v_assignee text := lower(nullif(btrim(p_config ->> 'assignee'), ''));
  v_role     text := nullif(btrim(p_config ->> 'role'), '');
  v_due      timestamptz;
  v_ladder   jsonb;
  v_task     stellwerk.user_task;
begin
  if starts_with(v_assignee, 'role:') then
    v_role := nullif(substr(v_assignee, 6), '');
    v_assignee := null;
  end if;
  if coalesce(v_assignee, v_role) is null then
    v_outcome.error := stellwerk.step_error(p_token, 'no_assignee', 'the task is for nobody: its assignee, or role, is empty', false);
    return v_outcome;
  end if;
  begin
    v_due := case when p_config ->> 'due' ~ '^P' then v_now + (p_config ->> 'due')::interval else stellwerk.instant(p_config ->> 'due') end;
    select coalesce(jsonb_agg(e.value order by v_now + (e.value ->> 'after')::interval, e.place), '[]') into v_ladder
      from jsonb_array_elements(case jsonb_typeof(p_config -> 'escalate') when 'array' then p_config -> 'escalate' else '[]' end) with ordinality e (value, place);
  exception when data_exception then
    v_outcome.error := stellwerk.step_error(p_token, 'bad_time', format('a time of the task cannot be read: %s', sqlerrm), false);
    return v_outcome;
  end;
  if v_due is null and p_config ->> 'due' <> '' then
    v_outcome.error := stellwerk.step_error(p_token, 'bad_time', format('the due date cannot be read: %s', left(p_config ->> 'due', 100)), false);
    return v_outcome;
  end if;
  insert into stellwerk.user_task (
    tenant_id, run_id, step_id, title, instructions, form, prefill, outcomes, assignee, role, approvals, allow_self, due_at, ladder)
  values (
    p_tenant_id, p_token.run_id, p_token.step_id, left(coalesce(nullif(btrim(p_config ->> 'title'), ''), 'Task'), 500), p_config ->> 'instructions',
    nullif(p_config -> 'form', 'null'), nullif(p_config -> 'prefill', 'null'),
    case jsonb_typeof(p_config -> 'outcomes') when 'array' then array(select jsonb_array_elements_text(p_config -> 'outcomes')) end,
    v_assignee, v_role, coalesce((p_config ->> 'approvals')::integer, 1), coalesce((p_config ->> 'allow_self')::boolean, true), v_due, v_ladder)
  returning * into v_task;
  insert into stellwerk.wait (tenant_id, run_id, step_id, kind) values (p_tenant_id, p_token.run_id, p_token.step_id, 'task');
  perform stellwerk.limit_wait(p_tenant_id, p_token, p_node, '{}');
  -- Who is late only loses the task where the workflow says what happens then; else it is overdue, and stays.
  insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
  select p_tenant_id, t.kind, p_token.run_id, p_token.step_id, t.due_at
    from (values ('wait_timeout', case when coalesce(p_node.edges -> 'timeout', '[]') <> '[]' then v_due end),
                 ('reminder', v_due - least((v_due - v_now) / 5, interval '1 day')),
                 ('escalation', v_now + (v_ladder -> 0 ->> 'after')::interval)) t (kind, due_at)
   where t.due_at is not null;
  perform stellwerk.notify_task(v_task, 'arrived');
  v_outcome.port := '*wait';
  return v_outcome;
end
$$;
comment on function stellwerk.begin_task(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'task.user: asks a person, sets the timers of the due date and of the escalation, and tells those who are asked.';

create or replace function stellwerk.fire_task_timer(p_timer stellwerk.timer)
returns void language plpgsql set search_path = '' as $$
declare
  v_now  timestamptz := stellwerk.clock();
  v_task stellwerk.user_task;
begin
  select * into v_task from stellwerk.user_task k
   where k.tenant_id = p_timer.tenant_id and k.run_id = p_timer.run_id and k.step_id = p_timer.step_id and k.state in ('open', 'claimed')
   order by k.task_id desc limit 1 for no key update skip locked;
  if v_task.task_id is null then
    perform stellwerk.postpone_task_timer(p_timer);
  elsif p_timer.kind = 'escalation' then
    perform stellwerk.escalate_task(v_task, p_timer);
  elsif v_task.reminded is null and v_task.due_at > v_now then
    update stellwerk.user_task k set reminded = 'due' where k.tenant_id = v_task.tenant_id and k.task_id = v_task.task_id;
    -- Where the run goes another way at the due time, nobody is told that the task is overdue.
    insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
    select v_task.tenant_id, 'reminder', v_task.run_id, v_task.step_id, v_task.due_at
     where not exists (select from stellwerk.timer t
                        where t.tenant_id = v_task.tenant_id and t.run_id = v_task.run_id and t.step_id = v_task.step_id
                          and t.kind = 'wait_timeout' and t.due_at <= v_task.due_at);
    perform stellwerk.notify_task(v_task, 'due');
  elsif v_task.reminded is distinct from 'overdue' then
    update stellwerk.user_task k set reminded = 'overdue' where k.tenant_id = v_task.tenant_id and k.task_id = v_task.task_id;
    perform stellwerk.notify_task(v_task, 'overdue');
  end if;
end
$$;
comment on function stellwerk.fire_task_timer(stellwerk.timer) is 'A reminder or a rung of the ladder of a locked run''s task is due.';

create or replace function stellwerk.escalate_task(p_task stellwerk.user_task, p_timer stellwerk.timer)
returns void language plpgsql set search_path = '' as $$
declare
  v_rung jsonb := p_task.ladder -> p_task.rung;
  v_next jsonb := p_task.ladder -> (p_task.rung + 1);
begin
  update stellwerk.user_task k set rung = k.rung + 1 where k.tenant_id = p_task.tenant_id and k.task_id = p_task.task_id;
  if v_rung ->> 'do' = 'outcome' then
    perform stellwerk.decide_task(p_task, v_rung ->> 'outcome', '{}', 'escalation');
    return;
  end if;
  if v_next is not null then
    -- Counted from this rung's own time: a late tick does not delay the next, and a pause moves all of them.
    insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
    values (p_task.tenant_id, 'escalation', p_task.run_id, p_task.step_id,
            p_timer.due_at + ((p_task.created_at + (v_next ->> 'after')::interval) - (p_task.created_at + (v_rung ->> 'after')::interval)));
  end if;
  if v_rung ->> 'do' = 'reassign' and nullif(btrim(v_rung ->> 'to'), '') is not null then
    perform stellwerk.hand_over_task(p_task, btrim(v_rung ->> 'to'));
  else
    perform stellwerk.notify_task(p_task, 'reminder');
  end if;
end
$$;
comment on function stellwerk.escalate_task(stellwerk.user_task, stellwerk.timer) is 'Takes the next rung of a task''s ladder: remind, reassign, or decide by the default outcome; and sets the timer of the one after it.';

-- Called before steps leave by timeout. A decision that was made in the same moment counts: whoever made it has been told so.
create or replace function stellwerk.expire_tasks(p_tenant_id bigint, p_timers stellwerk.timer[])
returns stellwerk.timer[] language plpgsql set search_path = '' as $$
declare
  v_expired bigint[];
begin
  if not exists (select from unnest(p_timers) t join stellwerk.wait w on w.tenant_id = p_tenant_id and w.run_id = t.run_id and w.step_id = t.step_id
                  where t.kind = 'wait_timeout' and w.kind = 'task') then
    return p_timers;
  end if;
  with late as (
    select k.task_id from unnest(p_timers) t
      join stellwerk.user_task k on k.tenant_id = p_tenant_id and k.run_id = t.run_id and k.step_id = t.step_id
     where t.kind = 'wait_timeout' and k.state in ('open', 'claimed')
       for no key update of k skip locked),
  expired as (
    update stellwerk.user_task k
       set state = 'expired', reason = 'its time was up', ended_at = stellwerk.clock(), drafts = null
     where k.tenant_id = p_tenant_id and k.task_id in (select l.task_id from late l)
    returning k.step_id)
  select coalesce(array_agg(e.step_id), '{}') into v_expired from expired e;
  perform stellwerk.postpone_task_timer(t)
     from unnest(p_timers) t
     join stellwerk.wait w on w.tenant_id = p_tenant_id and w.run_id = t.run_id and w.step_id = t.step_id
    where t.kind = 'wait_timeout' and w.kind = 'task' and t.step_id <> all (v_expired);
  return array(
    select t from unnest(p_timers) t
     where t.step_id = any (v_expired)
        or not exists (select from stellwerk.wait w where w.tenant_id = p_tenant_id and w.run_id = t.run_id and w.step_id = t.step_id and w.kind = 'task'));
end
$$;
comment on function stellwerk.expire_tasks(bigint, stellwerk.timer[]) is 'Ends the tasks whose time is up; answers the timers without those of tasks that were decided, or are being decided, meanwhile.';

create or replace function stellwerk.postpone_task_timer(p_timer stellwerk.timer)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
  select p_timer.tenant_id, p_timer.kind, p_timer.run_id, p_timer.step_id, stellwerk.clock() + interval '1 second'
    from stellwerk.user_task k
   where k.tenant_id = p_timer.tenant_id and k.run_id = p_timer.run_id and k.step_id = p_timer.step_id and k.state in ('open', 'claimed');
end
$$;
comment on function stellwerk.postpone_task_timer(stellwerk.timer) is 'Somebody is deciding the task in an open transaction: the engine does not wait for that, it looks again in a second. A task that is decided needs no timer.';

-- Both are called under the run's lock, by pump too: a task that somebody's open transaction holds is left to settle_tasks.
create or replace function stellwerk.close_tasks(p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  with free as (
    select k.task_id from stellwerk.user_task k
     where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids) and (p_step_ids is null or k.step_id = any (p_step_ids))
       and k.state in ('open', 'claimed')
       for no key update skip locked),
  closed as (
    update stellwerk.user_task k
       set state = 'cancelled', reason = 'the run no longer waits for it', ended_at = stellwerk.clock(), drafts = null
     where k.tenant_id = p_tenant_id and k.task_id in (select f.task_id from free f)
    returning k.task_id)
  insert into stellwerk.user_task_change (tenant_id, task_id, cancels)
  select p_tenant_id, k.task_id, true from stellwerk.user_task k
   where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids) and (p_step_ids is null or k.step_id = any (p_step_ids))
     and k.state in ('open', 'claimed') and k.task_id not in (select c.task_id from closed c);
end
$$;
comment on function stellwerk.close_tasks(bigint, bigint[], bigint[]) is 'Ends the open tasks of runs (of the given steps only, if any are given): the run ended, or the step was cancelled or skipped. Waits for nobody.';

create or replace function stellwerk.shift_tasks(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  with free as (
    select k.task_id, stellwerk.clock() - r.paused_at as lasted
      from stellwerk.user_task k
      join stellwerk.run r on r.tenant_id = p_tenant_id and r.run_id = k.run_id and r.paused_at is not null
     where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids) and k.state in ('open', 'claimed') and k.due_at is not null
       for no key update of k skip locked),
  moved as (
    update stellwerk.user_task k set due_at = k.due_at + f.lasted
      from free f where k.tenant_id = p_tenant_id and k.task_id = f.task_id
    returning k.task_id)
  insert into stellwerk.user_task_change (tenant_id, task_id, moves_by)
  select p_tenant_id, k.task_id, stellwerk.clock() - r.paused_at
    from stellwerk.user_task k
    join stellwerk.run r on r.tenant_id = p_tenant_id and r.run_id = k.run_id and r.paused_at is not null
   where k.tenant_id = p_tenant_id and k.run_id = any (p_run_ids) and k.state in ('open', 'claimed') and k.due_at is not null
     and k.task_id not in (select m.task_id from moved m);
end
$$;
comment on function stellwerk.shift_tasks(bigint, bigint[]) is 'The due dates of paused runs'' tasks move by the time that the pause has lasted. Waits for nobody.';

create or replace function stellwerk.settle_tasks(p_tenant_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_change stellwerk.user_task_change;
  v_done   integer := 0;
begin
  for v_change in
    select c.* from stellwerk.user_task_change c where c.tenant_id = p_tenant_id order by c.change_id limit 500 for update skip locked
  loop
    perform from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.task_id = v_change.task_id for no key update skip locked;
    -- Still held: later. Gone: there is nothing to do any more.
    continue when not found and exists (select from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.task_id = v_change.task_id);
    update stellwerk.user_task k
       set state = case when v_change.cancels then 'cancelled' else k.state end,
           reason = case when v_change.cancels then 'the run no longer waits for it' else k.reason end,
           ended_at = case when v_change.cancels then stellwerk.clock() end,
           drafts = case when not v_change.cancels then k.drafts end,
           due_at = k.due_at + coalesce(v_change.moves_by, interval '0')
     where k.tenant_id = p_tenant_id and k.task_id = v_change.task_id and k.state in ('open', 'claimed');
    delete from stellwerk.user_task_change c where c.tenant_id = p_tenant_id and c.task_id = v_change.task_id and c.change_id = v_change.change_id;
    v_done := v_done + 1;
  end loop;
  return v_done;
end
$$;
comment on function stellwerk.settle_tasks(bigint) is 'Does what close_tasks and shift_tasks had to leave, as far as nobody holds the tasks any more; answers how much of it.';

create or replace function stellwerk.notify_task(p_task stellwerk.user_task, p_what text)
returns void language plpgsql set search_path = '' as $$
declare
  c_most constant integer := 100;
  v_asked   text := case when p_what <> 'arrived' then coalesce(p_task.claimed_by, p_task.assignee) else p_task.assignee end;
  v_people  text[] := array_remove(array[v_asked, stellwerk.stand_in(p_task.tenant_id, v_asked)], null);
  v_title   text := format('%s: %s', case p_what when 'arrived' then 'Task' when 'due' then 'Due soon' when 'overdue' then 'Overdue' else 'Reminder' end, p_task.title);
  v_body    text := concat_ws(E'\n\n', nullif(p_task.instructions, ''), 'Due ' || to_char(p_task.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC.');
  v_link    text := '/tasks/' || p_task.task_id;
begin
  insert into stellwerk.notification (tenant_id, recipient, title, body, link, run_id, step_id)
  select p_task.tenant_id, r.name, v_title, nullif(v_body, ''), v_link, p_task.run_id, p_task.step_id
    from unnest(case when v_asked is null then array['role:' || p_task.role] else v_people end) r (name);
  perform stellwerk.order_messages(p_task.tenant_id, m.recipients, m.refusals, v_title, concat_ws(E'\n\n', p_task.title, nullif(v_body, '')), v_link,
                                   p_task.run_id, p_task.step_id, p_task.task_id)
     from (select array_agg(x.recipient order by x.place, x.recipient) as recipients, array_agg(x.refusal order by x.place, x.recipient) as refusals
             from (select p.place, p.name as recipient,
                          case when u.email is null then 'there is no user with this address'
                               when not u.active then 'the user is no longer active'
                               when not u.mails then 'the user wants no mails' end as refusal
                     from unnest(v_people) with ordinality p (name, place)
                     left join stellwerk.app_user u on u.tenant_id = p_task.tenant_id and u.email = p.name
                    where position('@' in p.name) > 1
                   union all
                   (select 1, u.email, null from stellwerk.app_user u
                     where v_asked is null and u.tenant_id = p_task.tenant_id and u.active and u.mails
                       and (u.role = p_task.role or p_task.role = any (u.groups))
                     order by u.user_id limit c_most)) x) m
    where m.recipients is not null;
end
$$;
comment on function stellwerk.notify_task(stellwerk.user_task, text) is 'Tells those who are asked that a task has arrived, is due soon, is overdue, or still waits (reminder): in the application, and by mail where they want that.';
