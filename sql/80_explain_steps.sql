-- Why a live step stands where it stands: one function per kind of standing.
--
-- Ranks: 20 something is wrong and somebody must act; 30 it runs, 31 it waits to be run, 32 it waits for something outside,
-- 33 it waits for its own iterations, 34 it waits for other steps; 40 and more while the run is paused.

create or replace function stellwerk.reason_of_step(p_run stellwerk.run, p_step stellwerk.step, p_depth integer)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_reason stellwerk.reason;
  v_name   text := stellwerk.step_name(p_step);
  v_flow   record;
begin
  select f.reason, f.evidence into v_flow from stellwerk.rate_reason(p_step) f where p_step.state = 'queued' and f.reason is not null limit 1;
  case
    when p_step.state = 'running' then
      v_reason := stellwerk.reason_of_running(p_step, v_name);
    when v_flow.reason is not null then
      v_reason := row(31, null, format('%s waits: %s.', v_name, v_flow.reason), v_flow.evidence, 'step_rate_limited')::stellwerk.reason;
    when p_step.state = 'queued' and p_step.due_at is not null then
      v_reason := stellwerk.reason_of_retry(p_run, p_step, v_name);
    when p_step.state = 'queued' and p_step.runs_in = 'worker' then
      v_reason := stellwerk.reason_of_queued(p_step, v_name);
    when p_step.state = 'queued' then
      v_reason.rank := 31;
      v_reason.text := format('%s is ready since %s and waits for %s.', v_name, stellwerk.at_text(p_step.queued_at), stellwerk.who_pumps());
      v_reason.evidence := jsonb_build_object('workers', stellwerk.present_workers());
      v_reason.code := 'step_ready';
    when p_step.state = 'joining' then
      v_reason := stellwerk.reason_of_joining(p_run, p_step, v_name);
    when p_step.type = 'logic.loop' then
      v_reason := stellwerk.reason_of_loop(p_step, v_name);
    else
      v_reason := stellwerk.reason_of_waiting(p_step, v_name, p_depth);
  end case;
  v_reason.node_id := p_step.node_id;
  v_reason.evidence := jsonb_strip_nulls(jsonb_build_object('step_id', p_step.step_id::text, 'type', p_step.type, 'state', p_step.state, 'attempt', p_step.attempt,
    'queued_at', p_step.queued_at, 'scope', nullif(p_step.scope_id, 0)::text,
    'index', (select s.position from stellwerk.scope s
               where s.tenant_id = p_step.tenant_id and s.run_id = p_step.run_id and s.scope_id = p_step.scope_id and p_step.scope_id <> 0),
    'compensates', (select s.node_id from stellwerk.step s
                     where s.tenant_id = p_step.tenant_id and s.run_id = p_step.run_id and s.step_id = p_step.undoes))) || coalesce(v_reason.evidence, '{}');
  if p_run.state = 'paused' then
    v_reason.rank := v_reason.rank + 10 + case when v_reason.rank < 30 then 10 else 0 end;
  end if;
  return v_reason;
end
$$;
comment on function stellwerk.reason_of_step(stellwerk.run, stellwerk.step, integer) is 'Why a live step of a run stands where it stands.';

create or replace function stellwerk.step_name(p_step stellwerk.step)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_name text := format('step %s (%s)', p_step.node_id, p_step.type);
begin
  if p_step.scope_id <> 0 then
    v_name := v_name || coalesce((
      select ' at index ' || s.position from stellwerk.scope s
       where s.tenant_id = p_step.tenant_id and s.run_id = p_step.run_id and s.scope_id = p_step.scope_id), '');
  end if;
  if p_step.undoes is not null then
    v_name := v_name || coalesce((
      select ', which compensates ' || s.node_id || ',' from stellwerk.step s
       where s.tenant_id = p_step.tenant_id and s.run_id = p_step.run_id and s.step_id = p_step.undoes), '');
  end if;
  return v_name;
end
$$;
comment on function stellwerk.step_name(stellwerk.step) is 'A step for a sentence: node, type, the item of a loop that it belongs to, the step that it compensates.';

create or replace function stellwerk.reason_of_running(p_step stellwerk.step, p_name text)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_worker  stellwerk.worker;
  v_present boolean := stellwerk.is_present(p_step.worker_id);
  v_trouble text := '';
begin
  select * into v_worker from stellwerk.worker w where w.worker_id = p_step.worker_id;
  if not v_present then
    v_trouble := format('; that worker has vanished, another takes the step over with the next tick, its lease %s at %s',
                        case when p_step.lease_until < stellwerk.clock() then 'ran out' else 'runs out' end, stellwerk.at_text(p_step.lease_until));
  elsif p_step.lease_until < stellwerk.clock() then
    v_trouble := format('; that worker has given no sign of life, the step is taken over with the next tick, its lease ran out at %s',
                        stellwerk.at_text(p_step.lease_until));
  elsif p_step.timeout_at < stellwerk.clock() then
    v_trouble := format('; its time limit was over at %s and the attempt ends with the next tick', stellwerk.at_text(p_step.timeout_at));
  end if;
  return row(
    case when v_trouble = '' then 30 else 20 end, null,
    format('%s runs in worker %s since %s, attempt %s%s.', p_name,
           coalesce(v_worker.name || ' on ' || v_worker.host, 'number ' || p_step.worker_id), stellwerk.at_text(p_step.started_at), p_step.attempt, v_trouble),
    jsonb_strip_nulls(jsonb_build_object(
      'worker', jsonb_build_object('worker_id', p_step.worker_id::text, 'name', v_worker.name, 'host', v_worker.host, 'pid', v_worker.pid, 'present', v_present),
      'started_at', p_step.started_at, 'lease_until', p_step.lease_until, 'timeout_at', p_step.timeout_at,
      'failures', nullif(p_step.failures, 0), 'last_error', p_step.error,
      'trouble', case when v_trouble = '' then null when not v_present then 'vanished' when p_step.lease_until < stellwerk.clock() then 'silent'
                      else 'too_long' end)), 'step_running')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_running(stellwerk.step, text) is 'Which worker holds a running step, and whether it still lives.';

create or replace function stellwerk.reason_of_retry(p_run stellwerk.run, p_step stellwerk.step, p_name text)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_attempts integer;
  v_timer    stellwerk.timer;
  v_overdue  text := stellwerk.overdue_text(p_step.due_at);
  v_when     text;
begin
  select n.max_attempts into v_attempts from stellwerk.plan_node n
   where n.tenant_id = p_run.tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_step.version and n.node_id = p_step.node_id;
  select * into v_timer from stellwerk.timer t
   where t.tenant_id = p_step.tenant_id and t.run_id = p_step.run_id and t.step_id = p_step.step_id and t.kind = 'retry' limit 1;
  if p_step.due_at = stellwerk.never() then
    v_when := case when v_timer.remaining is null then 'goes on' else 'waits another ' || stellwerk.duration_words(v_timer.remaining) end || ' once the run is resumed';
  else
    v_when := 'waits until ' || stellwerk.at_text(p_step.due_at);
  end if;
  if p_step.failures > 0 then
    v_when := format('%s for attempt %s of %s, after %s failed: %s', v_when, p_step.failures + 1, v_attempts, p_step.failures,
                     coalesce(rtrim(p_step.error ->> 'message', '.'), 'it is not known why'));
  end if;
  return row(case when v_overdue = '' then 31 else 20 end, null, format('%s %s%s.', p_name, v_when, v_overdue),
    jsonb_strip_nulls(jsonb_build_object('due_at', nullif(p_step.due_at, stellwerk.never()), 'failures', p_step.failures, 'max_attempts', v_attempts,
      'last_error', p_step.error, 'timer', case when v_timer.timer_id is not null then stellwerk.timer_evidence(v_timer) end)), 'step_retry')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_retry(stellwerk.run, stellwerk.step, text) is 'When a step is tried again, and why it has to be.';

create or replace function stellwerk.reason_of_queued(p_step stellwerk.step, p_name text)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_has_worker boolean := stellwerk.has_worker_for(p_step.type);
  v_job        text := (select q.status from stellwerk.queue_state(array[p_step.job_id]) q);
  v_workers    text[] := array(select w.name || ' on ' || w.host from stellwerk.worker w
                                where p_step.type = any (w.types) and stellwerk.is_present(w.worker_id) order by w.worker_id limit 10);
  v_more       text := '';
begin
  if not v_has_worker then
    v_more := '; no such worker is running (start one: stellwerk worker)';
  elsif v_job is null then
    v_more := '; its row in the queue is lost and is put back by the next tick';
  end if;
  return row(case when v_has_worker then 31 else 20 end, null,
    -- The type stands at the end here, where it matters.
    format('%s waits in the queue since %s for a worker that carries out %s%s.', replace(p_name, ' (' || p_step.type || ')', ''),
           stellwerk.at_text(p_step.queued_at), p_step.type, v_more),
    jsonb_build_object('type', p_step.type, 'workers', v_workers, 'job', jsonb_build_object('job_id', p_step.job_id::text, 'status', v_job)),
    'step_queued')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_queued(stellwerk.step, text) is 'Why no worker has taken a step yet.';

create or replace function stellwerk.reason_of_joining(p_run stellwerk.run, p_step stellwerk.step, p_name text)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_node  stellwerk.plan_node;
  v_names text;
  v_rows  jsonb;
begin
  select * into v_node from stellwerk.plan_node n
   where n.tenant_id = p_run.tenant_id and n.workflow_id = p_run.workflow_id and n.version = p_step.version and n.node_id = p_step.node_id;
  -- The live steps of the same scope from which a token can still come here.
  select string_agg(distinct s.node_id, ', ' order by s.node_id),
         jsonb_agg(jsonb_build_object('node_id', s.node_id, 'step_id', s.step_id::text, 'state', s.state) order by s.step_id)
    into v_names, v_rows
    from (select * from stellwerk.step o
           where o.tenant_id = p_step.tenant_id and o.run_id = p_step.run_id and o.scope_id = p_step.scope_id
             and o.state in ('queued', 'running', 'waiting', 'joining') and o.step_id <> p_step.step_id
             and v_node.upstream -> p_run.trigger_node ? o.node_id
           order by o.step_id limit 100) s;
  return row(case when v_names is null then 20 else 34 end, null,
    format('%s waits where ways meet for %s.', replace(p_name, ' (' || p_step.type || ')', ''),
           coalesce(v_names, 'nothing that still lives, and goes on with the next pump')),
    jsonb_strip_nulls(jsonb_build_object('arrived', p_step.arrived, 'waits_for', v_rows, 'count', v_node.config -> 'count')), 'step_joining')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_joining(stellwerk.run, stellwerk.step, text) is 'For which steps a joining token waits.';

create or replace function stellwerk.reason_of_loop(p_step stellwerk.step, p_name text)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_loop stellwerk.loop;
begin
  select * into v_loop from stellwerk.loop l where l.tenant_id = p_step.tenant_id and l.run_id = p_step.run_id and l.step_id = p_step.step_id;
  if v_loop.step_id is null then
    return row(20, null, format('%s is waiting since %s, and its items are not known.', p_name, stellwerk.at_text(p_step.queued_at)), '{}', 'loop_unknown')::stellwerk.reason;
  end if;
  return row(33, null,
    format('%s is at item %s of %s with %s running, since %s.', p_name, v_loop.started, v_loop.item_count, v_loop.started - v_loop.ended,
           stellwerk.at_text(p_step.queued_at)),
    jsonb_build_object('items', v_loop.item_count, 'started', v_loop.started, 'ended', v_loop.ended, 'running', v_loop.started - v_loop.ended,
                       'parallel', v_loop.parallel), 'step_loop')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_loop(stellwerk.step, text) is 'How far a loop has come.';

create or replace function stellwerk.reason_of_waiting(p_step stellwerk.step, p_name text, p_depth integer)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_wait   stellwerk.wait;
  v_timer  stellwerk.timer;
  v_limit  text;
  v_facts  jsonb := '{}'::jsonb;
begin
  select * into v_wait from stellwerk.wait w where w.tenant_id = p_step.tenant_id and w.run_id = p_step.run_id and w.step_id = p_step.step_id;
  select * into v_timer from stellwerk.timer t
   where t.tenant_id = p_step.tenant_id and t.run_id = p_step.run_id and t.step_id = p_step.step_id and t.kind in ('wait', 'wait_timeout', 'row')
   order by t.due_at limit 1;
  if v_timer.timer_id is not null then
    v_facts := jsonb_build_object('timer', stellwerk.timer_evidence(v_timer));
    v_limit := case when v_timer.due_at = stellwerk.never() then format('another %s once the run is resumed', stellwerk.duration_words(v_timer.remaining))
                    else stellwerk.at_text(v_timer.due_at) end || stellwerk.overdue_text(v_timer.due_at);
  end if;
  if v_wait.kind = 'child' then
    return stellwerk.reason_of_child(p_step, v_wait, p_name, v_facts, p_depth);
  elsif v_wait.kind = 'task' then
    return stellwerk.reason_of_task(p_step, p_name, v_facts);
  elsif v_wait.event is not null then
    return row(case when v_limit like '%overdue%' then 20 else 32 end, null,
      format('%s waits for the event %s with the correlation %s%s, since %s.', p_name, v_wait.event, v_wait.correlation,
             coalesce(', no longer than ' || replace('until ' || v_limit, 'until another', 'another'), ''), stellwerk.at_text(v_wait.created_at)),
      v_facts || jsonb_build_object('event', v_wait.event, 'correlation', v_wait.correlation, 'since', v_wait.created_at,
        'signal', format('select stellwerk.signal(%L, %L);', v_wait.event, v_wait.correlation),
        -- A signal that came with another key explains many a wait.
        'kept_signals', (select coalesce(jsonb_agg(jsonb_build_object('correlation', k.correlation, 'created_at', k.created_at)), '[]')
                           from (select g.correlation, g.created_at from stellwerk.signal g
                                  where g.tenant_id = p_step.tenant_id and g.event = v_wait.event and g.kept limit 3) k)), 'step_event')::stellwerk.reason;
  elsif exists (select from stellwerk.row_timer r where r.tenant_id = p_step.tenant_id and r.run_id = p_step.run_id and r.step_id = p_step.step_id) then
    return stellwerk.reason_of_row_wait(p_step, p_name, v_limit, v_facts);
  elsif v_timer.timer_id is not null then
    return row(case when v_limit like '%overdue%' then 20 else 32 end, null,
      format('%s waits %s.', p_name, replace('until ' || v_limit, 'until another', 'another')), v_facts, 'step_timer')::stellwerk.reason;
  elsif v_wait.kind is not null then
    return row(32, null, format('%s waits for its %s since %s.', p_name, v_wait.kind, stellwerk.at_text(v_wait.created_at)),
      v_facts || jsonb_build_object('kind', v_wait.kind, 'since', v_wait.created_at), 'step_wait')::stellwerk.reason;
  end if;
  return row(20, null, format('%s is waiting, and nothing is known that would end that, since %s.', p_name, stellwerk.at_text(p_step.queued_at)), v_facts,
             'waits_for_nothing')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_waiting(stellwerk.step, text, integer) is 'Which event, child run or time a waiting step waits for.';

create or replace function stellwerk.reason_of_child(p_step stellwerk.step, p_wait stellwerk.wait, p_name text, p_facts jsonb, p_depth integer)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_child    stellwerk.run;
  v_workflow text;
  v_first    stellwerk.reason;
  v_clause   text;
begin
  select * into v_child from stellwerk.run r where r.tenant_id = p_step.tenant_id and r.run_id = p_wait.child_run_id;
  if v_child.run_id is null then
    return row(20, null, format('%s waits for child run %s, which does not exist, since %s.', p_name, p_wait.child_run_id,
      stellwerk.at_text(p_wait.created_at)), p_facts || jsonb_build_object('child_run_id', p_wait.child_run_id::text, 'since', p_wait.created_at),
      'child_missing')::stellwerk.reason;
  end if;
  select w.slug into v_workflow from stellwerk.workflow w where w.tenant_id = v_child.tenant_id and w.workflow_id = v_child.workflow_id;
  -- One level down and no further: whoever wants more asks the child.
  if p_depth = 0 then
    select r.* into v_first from stellwerk.reasons_of_run(v_child, 1) r limit 1;
    v_clause := regexp_replace(stellwerk.first_sentence(v_child, v_first.text), '^Run \d+ ', '');
  else
    v_clause := 'is ' || v_child.state || '.';
  end if;
  return row(case when v_first.rank = 20 then 20 else 32 end, null,
    format('%s waits for child run %s (%s), which %s', p_name, v_child.run_id, v_workflow, v_clause),
    p_facts || jsonb_strip_nulls(jsonb_build_object('child_run_id', v_child.run_id::text, 'workflow', v_workflow, 'child_state', v_child.state,
      'since', p_wait.created_at, 'child_node', v_first.node_id, 'child_evidence', v_first.evidence, 'child_code', v_first.code)), 'step_child')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_child(stellwerk.step, stellwerk.wait, text, jsonb, integer) is 'Which child run a step waits for, and what that one waits for.';

create or replace function stellwerk.reason_of_row_wait(p_step stellwerk.step, p_name text, p_limit text, p_facts jsonb)
returns stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_row   stellwerk.row_timer;
  v_facts jsonb;
begin
  select * into v_row from stellwerk.row_timer r where r.tenant_id = p_step.tenant_id and r.run_id = p_step.run_id and r.step_id = p_step.step_id;
  v_facts := p_facts || jsonb_build_object('row', jsonb_build_object(
    'table', v_row.slug, 'key', v_row.row_key, 'column', v_row.column_name, 'time', v_row.row_time, 'trouble', v_row.trouble));
  if v_row.trouble is not null then
    return row(20, null, format('%s cannot follow %s of row %s in table %s: %s. Mend it, then: select stellwerk.register_table(…) again.', p_name, v_row.column_name,
      v_row.row_key, v_row.slug, v_row.trouble), v_facts, 'row_unreadable')::stellwerk.reason;
  elsif p_limit is null then
    return row(32, null, format('%s waits for a time in %s of row %s in table %s, which is empty.', p_name, v_row.column_name, v_row.row_key, v_row.slug),
      v_facts, 'row_empty')::stellwerk.reason;
  end if;
  return row(case when p_limit like '%overdue%' then 20 else 32 end, null,
    format('%s waits %s, following %s of row %s in table %s.', p_name, replace('until ' || p_limit, 'until another', 'another'), v_row.column_name, v_row.row_key,
           v_row.slug), v_facts, 'step_row')::stellwerk.reason;
end
$$;
comment on function stellwerk.reason_of_row_wait(stellwerk.step, text, text, jsonb) is 'Which row a waiting step follows, and until when; that the row holds no time, or cannot be read.';
