-- Why a step waits for a person, and for whom.

create or replace function stellwerk.reason_of_task(p_step stellwerk.step, p_name text, p_facts jsonb)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_task  stellwerk.user_task;
  v_given integer;
  v_who   text;
  v_more  text := '';
  v_rank  integer := 32;
  v_stand text;
begin
  select * into v_task from stellwerk.user_task k
   where k.tenant_id = p_step.tenant_id and k.run_id = p_step.run_id and k.step_id = p_step.step_id order by k.task_id desc limit 1;
  select count(*) into v_given from stellwerk.user_task_decision d where d.tenant_id = v_task.tenant_id and d.task_id = v_task.task_id;
  p_facts := p_facts || jsonb_strip_nulls(jsonb_build_object('task_id', v_task.task_id::text, 'title', v_task.title, 'task_state', v_task.state,
    'assignee', v_task.assignee, 'role', v_task.role, 'claimed_by', v_task.claimed_by, 'due_at', v_task.due_at,
    'approvals', case when v_task.approvals > 1 then jsonb_build_object('given', v_given, 'needed', v_task.approvals) end));
  if v_task.state = 'completed' then
    return row(31, null, format('%s was decided by %s%s and goes on with the next pump.', p_name, v_task.completed_by, coalesce(' (' || v_task.outcome || ')', '')),
               p_facts || jsonb_strip_nulls(jsonb_build_object('completed_by', v_task.completed_by, 'outcome', v_task.outcome)), 'task_decided')::stellwerk.reason;
  end if;
  if v_task.claimed_by is not null then
    v_who := format('%s, who works on it since %s', v_task.claimed_by, stellwerk.at_text(v_task.claimed_at));
  elsif v_task.assignee is not null then
    v_stand := stellwerk.stand_in(v_task.tenant_id, v_task.assignee);
    v_who := v_task.assignee || coalesce(', who is away, or ' || v_stand, '');
    if not stellwerk.is_somebody(v_task.tenant_id, v_task.assignee) then
      v_who := v_who || ', who is no active user';
      v_rank := 20;
    end if;
  else
    v_who := 'somebody with the role ' || v_task.role;
    if not stellwerk.is_somebody(v_task.tenant_id, 'role:' || v_task.role) then
      v_who := v_who || ', which no active user has';
      v_rank := 20;
    end if;
  end if;
  if v_task.approvals > 1 then
    v_more := format(', %s of %s approvals given', v_given, v_task.approvals);
  end if;
  if v_task.due_at < stellwerk.clock() then
    v_more := v_more || ', overdue since ' || stellwerk.at_text(v_task.due_at);
  elsif v_task.due_at is not null then
    v_more := v_more || ', due at ' || stellwerk.at_text(v_task.due_at);
  end if;
  return row(v_rank, null, format('%s waits for %s to do task %s (%s)%s.', p_name, v_who, v_task.task_id, v_task.title, v_more),
    p_facts || jsonb_strip_nulls(jsonb_build_object('claimed_at', v_task.claimed_at, 'stand_in', v_stand, 'nobody', v_rank = 20,
      'overdue', v_task.due_at < stellwerk.clock())), 'step_task')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_task(stellwerk.step, text, jsonb) is 'Which person a waiting step waits for, to do what, until when.';
