-- Tasks: what people do with them. These verbs write rows of the task and, when it is decided, a message to its run;
-- nothing here waits for a run or executes a node. Two who decide at once meet at the task's row: the second is told.

create or replace function stellwerk.lock_task(p_tenant_id bigint, p_task_id bigint)
returns stellwerk.user_task language plpgsql set search_path = '' as $$
declare
  v_task stellwerk.user_task;
begin
  select * into v_task from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.task_id = p_task_id for no key update;
  if v_task.task_id is null then
    raise exception 'there is no task %', coalesce(p_task_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk task list shows the open ones.';
  end if;
  return v_task;
end
$$;
comment on function stellwerk.lock_task(bigint, bigint) is 'A task, locked against every other change. Errors: SW007.';

create or replace function stellwerk.offered_to(p_task stellwerk.user_task, p_person stellwerk.person)
returns boolean language sql immutable set search_path = ''
return coalesce(p_person.admin
                or p_task.claimed_by = p_person.name or p_task.claimed_by = any (p_person.stands)
                or p_task.assignee = any (p_person.stands)
                or p_task.assignee is null and (p_task.role = p_person.role or p_task.role = any (p_person.groups)), false);
comment on function stellwerk.offered_to(stellwerk.user_task, stellwerk.person) is 'Whether a person may do a task: as its assignee, as a member of its role, for somebody who is away, or as an admin.';

create or replace function stellwerk.check_task_open(p_task stellwerk.user_task)
returns void language plpgsql stable set search_path = '' as $$
begin
  if p_task.state = 'completed' then
    raise exception 'task % is completed already: % decided%', p_task.task_id, p_task.completed_by, coalesce(' ' || p_task.outcome, '')
      using errcode = 'SW003', detail = format('It was decided at %s.', stellwerk.at_text(p_task.ended_at)), hint = 'Nothing was changed.';
  elsif p_task.state not in ('open', 'claimed') then
    raise exception 'task % is %', p_task.task_id, p_task.state
      using errcode = 'SW003', detail = p_task.reason, hint = format('stellwerk.why(%s) says how its run stands.', p_task.run_id);
  end if;
end
$$;
comment on function stellwerk.check_task_open(stellwerk.user_task) is 'Raises SW003 for a task that has ended, and says how.';

-- What every verb asks first.
create or replace function stellwerk.take_task(p_tenant_id bigint, p_task_id bigint, p_person stellwerk.person)
returns stellwerk.user_task language plpgsql set search_path = '' as $$
declare
  v_task stellwerk.user_task := stellwerk.lock_task(p_tenant_id, p_task_id);
begin
  if not stellwerk.offered_to(v_task, p_person) then
    perform stellwerk.check_was_offered(v_task, p_person);
  end if;
  perform stellwerk.check_task_open(v_task);
  if exists (select from stellwerk.user_task_change c where c.tenant_id = p_tenant_id and c.task_id = p_task_id and c.cancels) then
    raise exception 'task % is cancelled', v_task.task_id
      using errcode = 'SW003', detail = 'The run no longer waits for it.', hint = format('stellwerk.why(%s) says how its run stands.', v_task.run_id);
  elsif v_task.state = 'claimed' and v_task.claimed_by <> p_person.name and not v_task.claimed_by = any (p_person.stands) then
    raise exception 'task % is being worked on by %', v_task.task_id, v_task.claimed_by
      using errcode = 'SW003', detail = format('Claimed at %s.', stellwerk.at_text(v_task.claimed_at)),
            hint = format('select stellwerk.reassign_task(%s, …) gives it to somebody else.', v_task.task_id);
  end if;
  return v_task;
end
$$;
comment on function stellwerk.take_task(bigint, bigint, stellwerk.person) is 'A task that is open and offered to the person, locked. Errors: SW003, SW004, SW007.';

-- Who was offered a task and comes too late is told what became of it, not that it is none of their business.
create or replace function stellwerk.check_was_offered(p_task stellwerk.user_task, p_person stellwerk.person)
returns void language plpgsql stable set search_path = '' as $$
begin
  if p_task.role = p_person.role or p_task.role = any (p_person.groups) then
    perform stellwerk.check_task_open(p_task);
  end if;
  raise exception '% may not do task %', p_person.name, p_task.task_id
    using errcode = 'SW004', hint = format('It is for %s.', stellwerk.task_people(p_task));
end
$$;
comment on function stellwerk.check_was_offered(stellwerk.user_task, stellwerk.person) is 'Raises SW004, or SW003 for somebody of the task''s role when it has ended.';

create or replace function stellwerk.task_people(p_task stellwerk.user_task)
returns text language sql stable set search_path = ''
return coalesce(p_task.claimed_by, p_task.assignee, 'the role ' || p_task.role);
comment on function stellwerk.task_people(stellwerk.user_task) is 'For whom a task is, in a sentence.';

create or replace function stellwerk.complete_task(task_id bigint, result jsonb, outcome text default null)
returns text language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_person    stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_task      stellwerk.user_task := stellwerk.take_task(v_tenant_id, task_id, v_person);
  v_outcome   text := stellwerk.check_outcome(v_task, outcome);
  v_result    jsonb := coalesce(nullif(result, 'null'), '{}');
  v_given     integer;
begin
  if not v_task.allow_self and lower(v_person.name) = any (stellwerk.starters_of(v_tenant_id, v_task.run_id)) then
    raise exception '% started run % and may not decide about it', v_person.name, v_task.run_id
      using errcode = 'SW004', hint = format('Somebody else has to: select stellwerk.reassign_task(%s, …);', v_task.task_id);
  end if;
  perform stellwerk.check_result(v_task, v_result);
  insert into stellwerk.user_task_decision (tenant_id, task_id, actor, outcome, result)
  values (v_tenant_id, v_task.task_id, v_person.name, v_outcome, v_result)
  on conflict do nothing;
  if not found then
    raise exception '% has decided task % already', v_person.name, v_task.task_id
      using errcode = 'SW003', hint = format('It takes %s different people.', v_task.approvals);
  end if;
  if v_task.approvals > 1 and v_outcome is not distinct from v_task.outcomes[1] then
    select count(*) into v_given from stellwerk.user_task_decision d where d.tenant_id = v_tenant_id and d.task_id = v_task.task_id;
    if v_given < v_task.approvals then
      update stellwerk.user_task k
         set state = 'open', claimed_by = null, claimed_at = null, assignee = case when k.role is null then k.assignee end, drafts = null
       where k.tenant_id = v_tenant_id and k.task_id = v_task.task_id;
      return 'open';
    end if;
  end if;
  perform stellwerk.decide_task(v_task, v_outcome, v_result, v_person.name);
  return 'completed';
end
$$;
comment on function stellwerk.complete_task(bigint, jsonb, text) is 'Decides a task with its form''s result and one of its outcomes; the run goes on with the next pump. Answers completed, or open while more people must approve. Errors: SW002 when the result does not fit the form or the outcome is none of its own, SW003 when it has ended, is claimed by somebody else or was decided by the caller before, SW004, SW007.';

create or replace function stellwerk.check_outcome(p_task stellwerk.user_task, p_outcome text)
returns text language plpgsql immutable set search_path = '' as $$
begin
  if p_task.outcomes is null and p_outcome is not null then
    raise exception 'task % has no outcomes to choose from', p_task.task_id using errcode = 'SW002', hint = 'Leave the outcome out.';
  elsif p_outcome is null and cardinality(p_task.outcomes) = 1 then
    return p_task.outcomes[1];
  elsif p_task.outcomes is not null and p_outcome is null then
    raise exception 'task % needs an outcome', p_task.task_id
      using errcode = 'SW002', hint = format('Choose one of %s.', array_to_string(p_task.outcomes, ', '));
  elsif p_outcome <> all (p_task.outcomes) then
    raise exception 'task % cannot come to the outcome %', p_task.task_id, quote_literal(left(p_outcome, 100))
      using errcode = 'SW002', hint = format('Choose one of %s.', array_to_string(p_task.outcomes, ', '));
  end if;
  return p_outcome;
end
$$;
comment on function stellwerk.check_outcome(stellwerk.user_task, text) is 'The outcome, if the task has it; the only one where none is given. Errors: SW002.';

create or replace function stellwerk.check_result(p_task stellwerk.user_task, p_result jsonb)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_problems jsonb;
begin
  perform stellwerk.check_payload(p_result, 'result');
  v_problems := stellwerk.schema_problems(p_task.form, p_result);
  if v_problems <> '[]' then
    raise exception 'the result does not fit the form of task %', p_task.task_id
      using errcode = 'SW002',
            detail = (select string_agg(coalesce(nullif(p.value ->> 'path', ''), 'the result') || ' ' || (p.value ->> 'message'), E'\n' order by p.place)
                        from jsonb_array_elements(v_problems) with ordinality p (value, place)),
            hint = 'The form is a JSON Schema: select form from stellwerk.my_task.';
  end if;
end
$$;
comment on function stellwerk.check_result(stellwerk.user_task, jsonb) is 'Raises SW002 where a result departs from the task''s form; the detail has a line for each place.';

create or replace function stellwerk.starters_of(p_tenant_id bigint, p_run_id bigint)
returns text[] language plpgsql stable set search_path = '' as $$
begin
  return array(
    select lower(coalesce(u.email, n.name))
      from stellwerk.run r
     cross join lateral unnest(string_to_array(r.created_by, ' for ')) n (name)
      left join stellwerk.app_user u on u.tenant_id = p_tenant_id and 'db:' || u.login = n.name
     where r.tenant_id = p_tenant_id and r.run_id = p_run_id);
end
$$;
comment on function stellwerk.starters_of(bigint, bigint) is 'Who asked for a run, by address or db:<login>: whoever started it or changed the row that did, for whom that session said to act, and who asked for the runs that called or caused it.';

create or replace function stellwerk.decide_task(p_task stellwerk.user_task, p_outcome text, p_result jsonb, p_by text)
returns void language plpgsql set search_path = '' as $$
declare
  v_output jsonb := jsonb_build_object('outcome', p_outcome, 'result', p_result, 'completed_by', p_by, 'task_id', p_task.task_id::text);
begin
  update stellwerk.user_task k
     set state = 'completed', outcome = p_outcome, result = p_result, completed_by = p_by, ended_at = stellwerk.clock(), drafts = null
   where k.tenant_id = p_task.tenant_id and k.task_id = p_task.task_id;
  if p_task.approvals > 1 then
    v_output := v_output || jsonb_build_object('decisions', (
      select coalesce(jsonb_agg(jsonb_build_object('by', d.actor, 'outcome', d.outcome, 'result', d.result, 'at', d.decided_at) order by d.decided_at), '[]')
        from stellwerk.user_task_decision d where d.tenant_id = p_task.tenant_id and d.task_id = p_task.task_id));
  end if;
  insert into stellwerk.run_message (tenant_id, run_id, step_id, kind, data)
  values (p_task.tenant_id, p_task.run_id, p_task.step_id, 'complete',
          jsonb_build_object('task', p_task.task_id, 'port', coalesce(p_outcome, 'next'), 'output', v_output));
  perform stellwerk.ring_if_asleep();
end
$$;
comment on function stellwerk.decide_task(stellwerk.user_task, text, jsonb, text) is 'A locked task is decided, and its run told so.';

create or replace function stellwerk.claim_task(task_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_person    stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_task      stellwerk.user_task := stellwerk.take_task(v_tenant_id, task_id, v_person);
begin
  if exists (select from stellwerk.user_task_decision d
              where d.tenant_id = v_tenant_id and d.task_id = v_task.task_id and d.actor = v_person.name) then
    raise exception '% has decided task % already', v_person.name, v_task.task_id using errcode = 'SW003', hint = 'Somebody else has to go on with it.';
  elsif v_task.claimed_by is distinct from v_person.name then
    update stellwerk.user_task k set state = 'claimed', claimed_by = v_person.name, claimed_at = stellwerk.clock()
     where k.tenant_id = v_tenant_id and k.task_id = v_task.task_id;
  end if;
end
$$;
comment on function stellwerk.claim_task(bigint) is 'The caller works on a task, and nobody else of its role can decide it. Errors: SW003 when somebody else does, or it has ended; SW004, SW007.';

create or replace function stellwerk.release_task(task_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_task      stellwerk.user_task := stellwerk.take_task(v_tenant_id, task_id, stellwerk.current_person(v_tenant_id));
begin
  update stellwerk.user_task k set state = 'open', claimed_by = null, claimed_at = null
   where k.tenant_id = v_tenant_id and k.task_id = v_task.task_id and k.state = 'claimed';
end
$$;
comment on function stellwerk.release_task(bigint) is 'Gives a claimed task back to those whom it is offered to. Errors: SW003, SW004, SW007.';

create or replace function stellwerk.reassign_task(task_id bigint, assignee text)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_person    stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_task      stellwerk.user_task := stellwerk.lock_task(v_tenant_id, task_id);
begin
  if not v_person.steers and not stellwerk.offered_to(v_task, v_person) then
    perform stellwerk.check_was_offered(v_task, v_person);
  end if;
  perform stellwerk.check_task_open(v_task);
  if not stellwerk.is_somebody(v_tenant_id, assignee) then
    raise exception 'there is no active user %', coalesce(assignee, 'null')
      using errcode = 'SW007', hint = 'Name a user''s e-mail address, or role:NAME of a role that somebody has; stellwerk user list shows them.';
  end if;
  perform stellwerk.hand_over_task(v_task, assignee);
end
$$;
comment on function stellwerk.reassign_task(bigint, text) is 'Hands a task to another user (by e-mail address) or role (role:NAME), who is told. Those whom it is offered to may, operators and admins. Errors: SW003 when it has ended, SW004, SW007.';

create or replace function stellwerk.is_somebody(p_tenant_id bigint, p_assignee text)
returns boolean language sql stable set search_path = ''
begin atomic
  select exists (
    select from stellwerk.app_user u
     where u.tenant_id = p_tenant_id and u.active
       and (u.email = lower(p_assignee) or 'role:' || u.role = p_assignee or substr(p_assignee, 6) = any (u.groups) and starts_with(p_assignee, 'role:')));
end;
comment on function stellwerk.is_somebody(bigint, text) is 'Whether an e-mail address or role:NAME means at least one active user.';

create or replace function stellwerk.hand_over_task(p_task stellwerk.user_task, p_assignee text)
returns void language plpgsql set search_path = '' as $$
declare
  v_task stellwerk.user_task;
  v_role text := case when starts_with(p_assignee, 'role:') then nullif(substr(p_assignee, 6), '') end;
begin
  update stellwerk.user_task k
     set state = 'open', claimed_by = null, claimed_at = null,
         assignee = case when v_role is null then lower(p_assignee) end, role = coalesce(v_role, k.role)
   where k.tenant_id = p_task.tenant_id and k.task_id = p_task.task_id
  returning * into v_task;
  perform stellwerk.notify_task(v_task, 'arrived');
end
$$;
comment on function stellwerk.hand_over_task(stellwerk.user_task, text) is 'A locked task goes to a user or to role:NAME, who is told.';

create or replace function stellwerk.save_task_draft(task_id bigint, draft jsonb)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_person    stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_task      stellwerk.user_task := stellwerk.take_task(v_tenant_id, task_id, v_person);
begin
  perform stellwerk.check_payload(coalesce(draft, '{}'), 'draft');
  update stellwerk.user_task k
     set drafts = nullif(coalesce(k.drafts, '{}') - v_person.name
                         || case when draft <> 'null' then jsonb_build_object(v_person.name, draft) else '{}' end, '{}')
   where k.tenant_id = v_tenant_id and k.task_id = v_task.task_id;
end
$$;
comment on function stellwerk.save_task_draft(bigint, jsonb) is 'Keeps what the caller has filled in so far, beside what others have; it need not fit the form yet. Errors: SW002, SW003, SW004, SW007.';

create or replace function stellwerk.comment_task(task_id bigint, body text)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id  bigint := stellwerk.current_tenant_id();
  v_person     stellwerk.person := stellwerk.task_talker(v_tenant_id, task_id);
  v_comment_id bigint;
begin
  if coalesce(length(btrim(body, E' \t\r\n')), 0) not between 1 and 10000 then
    raise exception 'a comment has 1 to 10000 characters' using errcode = 'SW002';
  end if;
  insert into stellwerk.user_task_comment (tenant_id, task_id, actor, body) values (v_tenant_id, comment_task.task_id, v_person.name, btrim(body, E' \t\r\n'))
  returning comment_id into v_comment_id;
  return v_comment_id;
end
$$;
comment on function stellwerk.comment_task(bigint, text) is 'Writes a comment to a task, also when it has ended; answers its number. Errors: SW002, SW004, SW007.';

create or replace function stellwerk.attach_to_task(task_id bigint, name text, reference text, media_type text default null)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id     bigint := stellwerk.current_tenant_id();
  v_person        stellwerk.person := stellwerk.task_talker(v_tenant_id, task_id);
  v_attachment_id bigint;
begin
  if coalesce(length(name), 0) not between 1 and 255 or coalesce(length(reference), 0) not between 1 and 2000 then
    raise exception 'an attachment has a name of 1 to 255 characters and a reference of 1 to 2000' using errcode = 'SW002';
  elsif name ~ '[[:cntrl:]]' or reference ~ '[[:cntrl:]]' or length(media_type) > 255 or media_type ~ '[[:cntrl:]]' then
    raise exception 'an attachment''s name, reference and media type are one line each' using errcode = 'SW002';
  elsif reference ~* '^\s*[a-z][a-z0-9+.-]*:' and reference !~* '^https?://' then
    -- Pages make links of them.
    raise exception 'the reference of an attachment is an https address, a path or a number, not %', quote_literal(left(reference, 60))
      using errcode = 'SW002', hint = 'Put the file into the file store, or give its https:// address.';
  end if;
  insert into stellwerk.user_task_attachment (tenant_id, task_id, actor, name, reference, media_type)
  values (v_tenant_id, attach_to_task.task_id, v_person.name, attach_to_task.name, attach_to_task.reference, attach_to_task.media_type)
  returning attachment_id into v_attachment_id;
  return v_attachment_id;
end
$$;
comment on function stellwerk.attach_to_task(bigint, text, text, text) is 'Notes a file that belongs to a task, by a reference to where it lies; answers its number. Errors: SW002, SW004, SW007.';

create or replace function stellwerk.task_talker(p_tenant_id bigint, p_task_id bigint)
returns stellwerk.person language plpgsql set search_path = '' as $$
declare
  v_person stellwerk.person := stellwerk.current_person(p_tenant_id);
  v_task   stellwerk.user_task;
begin
  select * into v_task from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.task_id = p_task_id;
  if v_task.task_id is null then
    raise exception 'there is no task %', coalesce(p_task_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk task list shows the open ones.';
  elsif not coalesce(v_person.steers or stellwerk.offered_to(v_task, v_person) or v_task.role = v_person.role or v_task.role = any (v_person.groups), false) then
    raise exception '% may not write to task %', v_person.name, p_task_id using errcode = 'SW004', hint = format('It is for %s.', stellwerk.task_people(v_task));
  end if;
  return v_person;
end
$$;
comment on function stellwerk.task_talker(bigint, bigint) is 'Who acts, if that person may comment on the task. Errors: SW004, SW007.';
