-- Waiting: for a time, for a signal, for a child run. What a step waits for is a row in timer or wait; what ends the wait
-- from outside is a row in run_message, which pump applies under the run's lock. So no transaction reaches from one run
-- into another, and who sends a signal waits for no run.

create or replace function stellwerk.begin_wait(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
begin
  if p_node.type like 'webhook.%' then
    return stellwerk.begin_event_wait(p_tenant_id, p_token, p_node, p_config, substr(p_node.type, length('webhook.') + 1));
  elsif p_config ->> 'event' is not null then
    return stellwerk.begin_event_wait(p_tenant_id, p_token, p_node, p_config, p_config ->> 'event');
  end if;
  return stellwerk.begin_time_wait(p_tenant_id, p_token, p_node, p_config);
end
$$;
comment on function stellwerk.begin_wait(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'logic.wait, timer.* and webhook.*: sets a timer or begins to wait for a signal; goes on at once when the time has passed or the signal is there already.';

create or replace function stellwerk.signal_key(p_tenant_id bigint, p_event text, p_correlation text)
returns bigint language sql immutable parallel safe set search_path = '' as $$
  select hashtextextended(p_event || E'\x1f' || p_correlation, p_tenant_id)
$$;
comment on function stellwerk.signal_key(bigint, text, text) is 'Key of the advisory lock under which signals and waits of one event and correlation look for each other.';

create or replace function stellwerk.begin_event_wait(
  p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_config jsonb, p_event text)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome := row(null, p_config, null, null);
  v_correlation text := p_config ->> 'correlation';
  v_kept    stellwerk.signal;
begin
  if coalesce(v_correlation, '') = '' then
    v_outcome.error := stellwerk.step_error(p_token, 'no_correlation', format('the correlation of event %s is empty', p_event), false);
    return v_outcome;
  end if;
  -- Somebody is sending this very signal, perhaps in a long transaction: the engine does not wait for it, the token does.
  if not pg_try_advisory_xact_lock(stellwerk.signal_key(p_tenant_id, p_event, v_correlation)) then
    v_outcome.port := '*later';
    return v_outcome;
  end if;
  select * into v_kept from stellwerk.signal s
   where s.tenant_id = p_tenant_id and s.event = p_event and s.correlation = v_correlation and s.kept
     and s.created_at > clock_timestamp() - interval '7 days'
   order by s.signal_id limit 1;
  if found then
    update stellwerk.signal s set kept = false, taken_by = p_token.step_id where s.tenant_id = p_tenant_id and s.signal_id = v_kept.signal_id;
    v_outcome.port := 'next';
    v_outcome.output := v_kept.payload;
    return v_outcome;
  end if;
  insert into stellwerk.wait (tenant_id, run_id, step_id, kind, event, correlation)
  values (p_tenant_id, p_token.run_id, p_token.step_id, 'event', p_event, v_correlation);
  perform stellwerk.limit_wait(p_tenant_id, p_token, p_node, p_config);
  v_outcome.port := '*wait';
  return v_outcome;
end
$$;
comment on function stellwerk.begin_event_wait(bigint, stellwerk.token, stellwerk.plan_node, jsonb, text) is 'Takes a kept signal, or begins to wait for one.';

create or replace function stellwerk.limit_wait(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_config jsonb)
returns void language plpgsql set search_path = '' as $$
declare
  v_timeout interval := coalesce((p_config ->> 'timeout')::interval, p_node.timeout);
begin
  if v_timeout is not null then
    insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
    values (p_tenant_id, 'wait_timeout', p_token.run_id, p_token.step_id, stellwerk.clock() + v_timeout);
  end if;
end
$$;
comment on function stellwerk.limit_wait(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'Sets the timer of a wait''s timeout, if it has one.';

create or replace function stellwerk.signal(event text, correlation text, payload jsonb default '{}', dedupe_key text default null)
returns integer language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
begin
  if coalesce(length(event), 0) not between 1 and 200 then
    raise exception 'a signal needs the name of an event, 1 to 200 characters' using errcode = 'SW002';
  elsif coalesce(length(correlation), 0) not between 1 and 500 then
    raise exception 'signal % needs a correlation, 1 to 500 characters', quote_literal(event)
      using errcode = 'SW002', hint = 'The key by which the waiting step knows that the signal is meant for it.';
  elsif length(dedupe_key) not between 1 and 500 then
    raise exception 'a dedupe key has 1 to 500 characters, not %', length(dedupe_key) using errcode = 'SW002', hint = 'Hash longer ones.';
  end if;
  perform stellwerk.check_payload(coalesce(payload, 'null'));
  return stellwerk.send_signal(stellwerk.current_tenant_id(), event, correlation, payload, dedupe_key);
end
$$;
comment on function stellwerk.signal(text, text, jsonb, text) is 'Tells waiting steps that an event with a correlation has happened; answers how many it wakes. One that wakes nobody is kept 7 days for one later wait; a known dedupe_key changes nothing. Errors: SW002.';

create or replace function stellwerk.send_signal(p_tenant_id bigint, p_event text, p_correlation text, p_payload jsonb, p_dedupe_key text)
returns integer language plpgsql set search_path = '' as $$
declare
  v_run_ids  bigint[];
  v_step_ids bigint[];
  v_woken    integer;
begin
  perform pg_advisory_xact_lock(stellwerk.signal_key(p_tenant_id, p_event, p_correlation));
  -- A wait that another signal has woken already is not woken again.
  select array_agg(w.run_id), array_agg(w.step_id) into v_run_ids, v_step_ids
    from stellwerk.wait w
   where w.tenant_id = p_tenant_id and w.event = p_event and w.correlation = p_correlation
     and not exists (select from stellwerk.run_message m where m.tenant_id = p_tenant_id and m.run_id = w.run_id and m.step_id = w.step_id);
  v_woken := coalesce(cardinality(v_step_ids), 0);
  insert into stellwerk.signal as s (tenant_id, event, correlation, payload, dedupe_key, woken, kept, created_by)
  values (p_tenant_id, p_event, p_correlation, coalesce(p_payload, 'null'), p_dedupe_key, v_woken, v_woken = 0, stellwerk.actor())
  on conflict do nothing;
  if not found then
    select s.woken into v_woken from stellwerk.signal s
     where s.tenant_id = p_tenant_id and s.event = p_event and s.dedupe_key = p_dedupe_key;
    return v_woken;
  end if;
  if v_woken > 0 then
    insert into stellwerk.run_message (tenant_id, run_id, step_id, kind, data)
    select p_tenant_id, u.run_id, u.step_id, 'complete', jsonb_build_object('output', coalesce(p_payload, 'null'))
      from unnest(v_run_ids, v_step_ids) u (run_id, step_id);
    perform stellwerk.ring_if_asleep();
  end if;
  return v_woken;
end
$$;
comment on function stellwerk.send_signal(bigint, text, text, jsonb, text) is 'signal for one tenant, checked already.';

create or replace function stellwerk.begin_call(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  c_max_depth constant integer := 8;
  v_outcome stellwerk.outcome := row(null, p_config, null, null);
  v_order   stellwerk.run_order;
  v_parent  stellwerk.run;
  v_child   bigint;
  v_message text;
  v_state   text;
  v_detail  text;
begin
  select * into v_parent from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_token.run_id;
  if v_parent.depth >= c_max_depth then
    v_outcome.error := stellwerk.step_error(p_token, 'too_deep', format('runs call each other more than %s deep', c_max_depth), false);
    return v_outcome;
  end if;
  begin
    v_order := stellwerk.check_order(p_tenant_id, stellwerk.find_workflow(p_tenant_id, p_config ->> 'workflow'),
                                     coalesce(nullif(p_config -> 'payload', 'null'), '{}'));
  exception when others then
    get stacked diagnostics v_message = message_text, v_state = returned_sqlstate, v_detail = pg_exception_detail;
    v_outcome.error := stellwerk.step_error(p_token, v_state, v_message, false, jsonb_build_object('detail', v_detail));
    return v_outcome;
  end;
  v_order.source := 'workflow';
  v_order.depth := v_parent.depth + 1;
  v_order.caused_by_run_id := p_token.run_id;
  v_order.priority := v_parent.priority;
  v_order.parent_run_id := p_token.run_id;
  v_order.parent_step_id := p_token.step_id;
  v_child := (stellwerk.insert_runs(p_tenant_id, array[v_order]))[1];
  insert into stellwerk.wait (tenant_id, run_id, step_id, kind, child_run_id)
  values (p_tenant_id, p_token.run_id, p_token.step_id, 'child', v_child);
  perform stellwerk.limit_wait(p_tenant_id, p_token, p_node, p_config);
  v_outcome.input := p_config || jsonb_build_object('run_id', v_child::text);
  v_outcome.port := '*wait';
  return v_outcome;
end
$$;
comment on function stellwerk.begin_call(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'logic.call: starts a child run and waits for its end.';

create or replace function stellwerk.tell_parents(p_tenant_id bigint, p_run_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.run_message (tenant_id, run_id, step_id, kind, data)
  select p_tenant_id, r.parent_run_id, r.parent_step_id, case r.state when 'completed' then 'complete' else 'fail' end,
         jsonb_build_object('child', r.run_id) || case r.state
           when 'completed' then jsonb_build_object('output', coalesce(r.output, 'null'))
           when 'failed' then jsonb_build_object('error', jsonb_build_object(
             'class', 'child_failed', 'message', format('run %s failed: %s', r.run_id, r.error ->> 'message'), 'retryable', true,
             'detail', jsonb_build_object('run_id', r.run_id::text, 'error', r.error)))
           else jsonb_build_object('error', jsonb_build_object(
             'class', 'child_cancelled', 'message', format('run %s was cancelled: %s', r.run_id, r.reason), 'retryable', false,
             'detail', jsonb_build_object('run_id', r.run_id::text)))
         end
    from unnest(p_run_ids) x (run_id)
   cross join lateral (select o.* from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = x.run_id offset 0) r
   where r.parent_run_id is not null;
  if found then
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.tell_parents(bigint, bigint[]) is 'Tells the runs that called these how they ended.';

create or replace function stellwerk.drop_waits(p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[])
returns void language plpgsql set search_path = '' as $$
declare
  v_children bigint[];
  v_tasks    boolean;
begin
  with gone as (
    delete from stellwerk.wait w
     where w.tenant_id = p_tenant_id and w.run_id = any (p_run_ids) and (p_step_ids is null or w.step_id = any (p_step_ids))
    returning w.child_run_id, w.kind)
  select array_agg(g.child_run_id) filter (where g.child_run_id is not null), bool_or(g.kind = 'task') into v_children, v_tasks from gone g;
  if v_tasks then
    perform stellwerk.close_tasks(p_tenant_id, p_run_ids, p_step_ids);
  end if;
  delete from stellwerk.row_timer r
   where r.tenant_id = p_tenant_id and r.run_id = any (p_run_ids) and (p_step_ids is null or r.step_id = any (p_step_ids));
  if v_children is not null then
    insert into stellwerk.run_message (tenant_id, run_id, kind, data)
    select p_tenant_id, u.run_id, 'cancel', '{"reason": "the run that called it no longer waits for it"}' from unnest(v_children) u (run_id) order by u.run_id;
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.drop_waits(bigint, bigint[], bigint[]) is 'Ends waits of runs (of the given steps only, if any are given); their open tasks are cancelled, child runs that nobody waits for any more are asked to cancel.';

create or replace function stellwerk.complete_waits(
  p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_ports text[], p_outputs jsonb[], p_errors jsonb[])
returns integer language plpgsql set search_path = '' as $$
declare
  v_moves stellwerk.move[];
  v_gone  bigint[] := '{}'::bigint[];
begin
  v_moves := stellwerk.ended_moves(p_tenant_id, p_run_ids, p_step_ids, p_ports, p_outputs, p_errors, p_state => 'waiting');
  if cardinality(v_moves) = 0 then
    return 0;
  end if;
  for i in 1 .. cardinality(v_moves) loop
    -- An outcome that has no way of its own goes by the common one.
    if (v_moves[i]).type = 'task.user' and (v_moves[i]).port <> 'timeout' and not coalesce((v_moves[i]).edges ? (v_moves[i]).port, false) then
      v_moves[i].port := 'next';
    end if;
    -- Nobody drew the way out: the step fails.
    if (v_moves[i]).port = 'timeout' and not coalesce((v_moves[i]).edges ? 'timeout', false) then
      v_moves[i].state := 'failed';
      v_moves[i].port := null;
      v_moves[i].output := null;
      v_moves[i].error := jsonb_build_object('class', 'timeout', 'message', 'what the step waited for did not come in time',
        'node', (v_moves[i]).node_id, 'attempt', (v_moves[i]).attempt, 'retryable', false);
    elsif (v_moves[i]).port = 'gone' and not coalesce((v_moves[i]).edges ? 'gone', false) then
      v_moves[i].state := 'cancelled';
      v_moves[i].port := null;
      v_moves[i].output := null;
      v_gone := v_gone || (v_moves[i]).step_id;
    end if;
  end loop;
  delete from stellwerk.timer t
   where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids) and t.step_id = any (p_step_ids);
  -- A child that has told its end has no message to get.
  delete from stellwerk.wait w
   using stellwerk.run r
   where w.tenant_id = p_tenant_id and w.run_id = any (p_run_ids) and w.step_id = any (p_step_ids) and w.child_run_id is not null
     and r.tenant_id = p_tenant_id and r.run_id = w.child_run_id and r.ended_at is not null;
  perform stellwerk.drop_waits(p_tenant_id, p_run_ids, p_step_ids);
  perform stellwerk.apply_moves(p_tenant_id, (select array_agg(distinct m.run_id) from unnest(v_moves) m), v_moves);
  if cardinality(v_gone) > 0 then
    update stellwerk.step s set reason = 'row_deleted' where s.tenant_id = p_tenant_id and s.run_id = any (p_run_ids) and s.step_id = any (v_gone);
  end if;
  return cardinality(v_moves);
end
$$;
comment on function stellwerk.complete_waits(bigint, bigint[], bigint[], text[], jsonb[], jsonb[]) is 'Ends waiting steps of locked runs, by a port with an output or with an error, and moves the runs on. Steps that do not wait any more are passed over. Answers how many ended.';

-- What pump does with messages: candidates without locks, then the runs, then the messages that are still there.
create or replace function stellwerk.apply_messages(p_tenant_id bigint, p_limit integer)
returns integer language plpgsql set search_path = '' as $$
declare
  v_runs    bigint[];
  v_message record;
  v_done    bigint[] := '{}'::bigint[];
  v_ends    record;
begin
  select array_agg(distinct c.run_id) into v_runs
    from (select m.run_id from stellwerk.run_message m where m.tenant_id = p_tenant_id and not m.held order by m.message_id limit p_limit) c;
  if v_runs is null then
    return 0;
  end if;
  v_runs := stellwerk.lock_free_runs(p_tenant_id, v_runs);
  -- Whole runs first: what is cancelled or paused need not go on.
  for v_message in
    select m.message_id, m.run_id, m.kind, m.data, m.held, r.state
      from stellwerk.run_message m
     cross join lateral (select o.state from stellwerk.run o where o.tenant_id = p_tenant_id and o.run_id = m.run_id offset 0) r
     where m.tenant_id = p_tenant_id and m.run_id = any (v_runs) and m.kind in ('cancel', 'pause', 'resume')
     order by m.message_id
  loop
    v_done := v_done || v_message.message_id;
    perform stellwerk.apply_order(p_tenant_id, v_message.run_id, v_message.kind, v_message.data);
  end loop;
  update stellwerk.run_message m set held = true
    from stellwerk.run r
   where m.tenant_id = p_tenant_id and m.run_id = any (v_runs) and not m.held and m.kind in ('complete', 'fail')
     and r.tenant_id = p_tenant_id and r.run_id = m.run_id and r.state = 'paused';
  select array_agg(u.run_id) as runs, array_agg(u.step_id) as steps, array_agg(u.port) as ports, array_agg(u.output) as outputs,
         array_agg(u.error) as errors, array_agg(u.ids) as ids
    into v_ends
    from (select distinct on (m.run_id, m.step_id) m.run_id, m.step_id, coalesce(m.data ->> 'port', 'next') as port, m.data -> 'output' as output,
                 m.data -> 'error' as error, m.message_id as ids
            from stellwerk.run_message m
           where m.tenant_id = p_tenant_id and m.run_id = any (v_runs) and not m.held and m.kind in ('complete', 'fail')
             -- A run that was cancelled and retried waits at the same step for another child, another task: the old ones' ends are not theirs.
             and (m.data ->> 'child' is null or exists (
                   select from stellwerk.wait w where w.tenant_id = p_tenant_id and w.run_id = m.run_id and w.step_id = m.step_id
                                                  and w.child_run_id = (m.data ->> 'child')::bigint))
             and (m.data ->> 'task' is null or not exists (
                   select from stellwerk.user_task k where k.tenant_id = p_tenant_id and k.run_id = m.run_id and k.step_id = m.step_id
                                                       and k.task_id > (m.data ->> 'task')::bigint))
           -- Of several, the first counts.
           order by m.run_id, m.step_id, m.message_id) u;
  v_done := v_done || array(
    select m.message_id from stellwerk.run_message m
     where m.tenant_id = p_tenant_id and m.run_id = any (v_runs) and not m.held and m.kind in ('complete', 'fail'));
  if v_ends.runs is not null then
    perform stellwerk.complete_waits(p_tenant_id, v_ends.runs, v_ends.steps, v_ends.ports, v_ends.outputs, v_ends.errors);
  end if;
  delete from stellwerk.run_message m where m.tenant_id = p_tenant_id and m.message_id = any (v_done);
  return cardinality(v_done);
end
$$;
comment on function stellwerk.apply_messages(bigint, integer) is 'Applies messages to runs that nobody else holds, and removes them; those that would move a paused run are held. Answers how many were applied.';
