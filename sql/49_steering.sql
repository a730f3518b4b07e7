-- What people do to a run: cancel, pause, resume, skip a step, edit, retry. These verbs lock one run and write; nodes are run
-- by pump. They reach child runs through run_message.

create or replace function stellwerk.cancel_run(run_id bigint, reason text default null, compensate boolean default false)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.lock_run_in(run_id, array['pending', 'running', 'waiting', 'paused'], 'already',
    'Only a run that has not ended can be cancelled.');
begin
  if v_run.ending is not null and coalesce(compensate, false) then
    raise exception 'run % is being compensated already', v_run.run_id
      using errcode = 'SW003', hint = 'Without compensate it ends at once, and what has not been undone yet stays.';
  end if;
  perform stellwerk.note_action(v_run.tenant_id, 'cancel_run', 'run', v_run.run_id::text, jsonb_build_object('state', v_run.state),
    jsonb_build_object('reason', reason, 'compensate', coalesce(compensate, false)));
  perform stellwerk.apply_order(v_run.tenant_id, v_run.run_id, 'cancel', jsonb_build_object(
    'reason', coalesce(reason, 'cancelled by ' || stellwerk.actor()), 'compensate', coalesce(compensate, false)));
end
$$;
comment on function stellwerk.cancel_run(bigint, text, boolean) is 'Ends a run, its live steps and the runs it called as cancelled; with compensate the compensate nodes of its completed steps run first, the latest first. A step that runs in a worker may still end, and changes nothing then. Errors: SW007, SW003 when it has ended, or is to be compensated and already is.';

create or replace function stellwerk.pause_run(run_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.lock_run_in(run_id, array['pending', 'running', 'waiting'], 'and cannot be paused',
    'Only a pending, running or waiting run can be.');
begin
  perform stellwerk.note_action(v_run.tenant_id, 'pause_run', 'run', v_run.run_id::text, jsonb_build_object('state', v_run.state), null);
  perform stellwerk.apply_order(v_run.tenant_id, v_run.run_id, 'pause', jsonb_build_object('by', stellwerk.actor()));
end
$$;
comment on function stellwerk.pause_run(bigint) is 'Stops a run and the runs it called where they stand: attempts under way may end and are recorded, nothing follows them, timers keep the time they still had, signals are kept. Errors: SW007, SW003.';

create or replace function stellwerk.resume_run(run_id bigint)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.lock_run_in(run_id, array['paused'], 'and not paused', 'Only a paused run can be resumed.');
begin
  perform stellwerk.note_action(v_run.tenant_id, 'resume_run', 'run', v_run.run_id::text, jsonb_build_object('state', v_run.state), null);
  perform stellwerk.apply_order(v_run.tenant_id, v_run.run_id, 'resume', '{}');
end
$$;
comment on function stellwerk.resume_run(bigint) is 'A paused run, and the runs it called, go on: timers run again for the time they still had, held messages are applied. Errors: SW007, SW003 when it is not paused.';

create or replace function stellwerk.lock_run_in(p_run_id bigint, p_states text[], p_refusal text, p_hint text)
returns stellwerk.run language plpgsql set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.lock_run(stellwerk.current_tenant_id(), p_run_id);
begin
  if v_run.state <> all (p_states) then
    raise exception 'run % is % %', v_run.run_id, v_run.state, p_refusal using errcode = 'SW003', hint = p_hint;
  end if;
  return v_run;
end
$$;
comment on function stellwerk.lock_run_in(bigint, text[], text, text) is 'A run of the current tenant in one of the states given, locked. Errors: SW007 when there is none; SW003 in another state: run 7 is failed, and then the words and the hint given.';

create or replace function stellwerk.apply_order(p_tenant_id bigint, p_run_id bigint, p_order text, p_data jsonb)
returns void language plpgsql set search_path = '' as $$
declare
  v_state text := (select r.state from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_run_id);
begin
  if v_state in ('completed', 'failed', 'cancelled') or (p_order = 'pause' and v_state = 'paused')
     or (p_order = 'resume' and v_state <> 'paused') then
    return;
  end if;
  case p_order
    when 'cancel' then
      if coalesce((p_data ->> 'compensate')::boolean, false) then
        perform stellwerk.thaw_runs(p_tenant_id, array[p_run_id]);
        perform stellwerk.fail_run(p_tenant_id, p_run_id, 'cancelled', null, p_data ->> 'reason');
      else
        perform stellwerk.end_run(p_tenant_id, p_run_id, 'cancelled', null, null, p_data ->> 'reason');
      end if;
    when 'pause' then
      perform stellwerk.freeze_runs(p_tenant_id, array[p_run_id], coalesce(p_data ->> 'by', stellwerk.actor()));
      perform stellwerk.order_children(p_tenant_id, p_run_id, 'pause', p_data);
    when 'resume' then
      perform stellwerk.thaw_runs(p_tenant_id, array[p_run_id]);
      perform stellwerk.order_children(p_tenant_id, p_run_id, 'resume', p_data);
      update stellwerk.run_message m set held = false where m.tenant_id = p_tenant_id and m.run_id = p_run_id and m.held;
      perform stellwerk.ring_if_asleep();
    else
      raise exception 'a run cannot be told to %', p_order using errcode = 'SW008';
  end case;
end
$$;
comment on function stellwerk.apply_order(bigint, bigint, text, jsonb) is 'Carries out cancel, pause or resume on a locked run; does nothing where the run is past it.';

create or replace function stellwerk.order_children(p_tenant_id bigint, p_run_id bigint, p_order text, p_data jsonb)
returns void language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.run_message (tenant_id, run_id, kind, data)
  select p_tenant_id, w.child_run_id, p_order, p_data from stellwerk.wait w
   where w.tenant_id = p_tenant_id and w.run_id = p_run_id and w.child_run_id is not null;
  if found then
    perform stellwerk.ring_if_asleep();
  end if;
end
$$;
comment on function stellwerk.order_children(bigint, bigint, text, jsonb) is 'Asks the runs that a run waits for to pause or resume with it.';

create or replace function stellwerk.skip_step(run_id bigint, step_id bigint, output jsonb default null, port text default 'next')
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_run       stellwerk.run := stellwerk.lock_run(v_tenant_id, run_id);
  v_step      stellwerk.step;
begin
  v_step := stellwerk.skip_locked_step(v_run, step_id, output, port, 'skipped by ' || stellwerk.actor());
  perform stellwerk.note_action(v_tenant_id, 'skip_step', 'run', v_run.run_id::text, jsonb_build_object('state', v_step.state),
    jsonb_build_object('step', v_step.step_id::text, 'node', v_step.node_id, 'port', port, 'output', output));
end
$$;
comment on function stellwerk.skip_step(bigint, bigint, jsonb, text) is 'Ends a waiting or queued step as skipped, with an output as if it had come to that, by a port; pump goes on from there. Errors: SW007, SW003 for a step that is running, joining or over.';

create or replace function stellwerk.skip_locked_step(p_run stellwerk.run, p_step_id bigint, p_output jsonb, p_port text, p_reason text)
returns stellwerk.step language plpgsql set search_path = '' as $$
declare
  v_step  stellwerk.step;
  v_moves stellwerk.move[];
begin
  select * into v_step from stellwerk.step s where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.step_id = p_step_id;
  if v_step.step_id is null then
    raise exception 'run % has no step %', p_run.run_id, coalesce(p_step_id::text, 'null')
      using errcode = 'SW007', hint = format('select * from stellwerk.live_step where run_id = %s', p_run.run_id);
  elsif v_step.state not in ('waiting', 'queued') or v_step.undoes is not null or p_run.ending is not null then
    raise exception 'step % (%) is % and cannot be skipped', v_step.node_id, v_step.step_id, v_step.state
      using errcode = 'SW003', hint = 'Only a step that waits, or that nobody has begun, can be.';
  end if;
  perform stellwerk.check_payload(coalesce(p_output, 'null'));
  v_moves := stellwerk.ended_moves(
    p_run.tenant_id, array[p_run.run_id], array[v_step.step_id], array[p_port], array[p_output], array[null::jsonb]);
  if p_port <> 'next' and not coalesce((v_moves[1]).edges ? p_port, false) then
    raise exception 'no edge leaves node % by port %', v_step.node_id, quote_literal(p_port)
      using errcode = 'SW003', hint = format('Its ports are: %s.',
        coalesce((select string_agg(k.name, ', ') from jsonb_object_keys((v_moves[1]).edges) k (name)), 'next'));
  end if;
  v_moves[1].state := 'skipped';
  -- What it waited for, and the iterations below a loop, are over.
  perform stellwerk.cancel_steps(p_run.tenant_id, p_run.run_id, array[v_step.step_id], p_reason, false);
  perform stellwerk.advance_runs(p_run.tenant_id, array[p_run.run_id], v_moves, p_execute => false);
  if p_run.state = 'paused' then
    perform stellwerk.freeze_steps(p_run.tenant_id, array[p_run.run_id]);
  end if;
  return v_step;
end
$$;
comment on function stellwerk.skip_locked_step(stellwerk.run, bigint, jsonb, text, text) is 'skip_step on a locked run; answers the step as it was before.';

create or replace function stellwerk.edit_run(run_id bigint, payload jsonb default null, vars jsonb default null)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.lock_run_in(run_id, array['failed', 'cancelled', 'paused'], 'and cannot be edited',
    'Pause it first. A failed or cancelled run can be edited and then retried.');
begin
  perform stellwerk.note_edit(v_run.tenant_id, v_run, payload, vars);
  if payload is not null then
    perform stellwerk.check_payload(payload);
    update stellwerk.run r set payload = edit_run.payload where r.tenant_id = v_run.tenant_id and r.run_id = v_run.run_id;
    perform stellwerk.rewrite_run_text(v_run.tenant_id, array[v_run.run_id]);
  end if;
  if vars is not null then
    perform stellwerk.check_payload(vars);
    if jsonb_typeof(vars) <> 'object' then
      raise exception 'vars must be an object of names and values' using errcode = 'SW002', hint = 'For example {"amount": 10}.';
    end if;
    insert into stellwerk.variable (tenant_id, run_id, scope_id, name, value)
    select v_run.tenant_id, v_run.run_id, 0, v.key, v.value from jsonb_each(vars) v
    on conflict on constraint variable_pkey do update set value = excluded.value;
  end if;
end
$$;
comment on function stellwerk.edit_run(bigint, jsonb, jsonb) is 'Replaces the payload, or sets vars of the outermost scope, of a failed, cancelled or paused run. Errors: SW007, SW003, SW002.';
