-- Saying why a run stands where it stands: every reason with the rows that it follows from, the most pressing first.

create or replace function stellwerk.explain_run(run_id bigint)
returns table ("position" integer, node_id text, reason text, evidence jsonb, code text)
language plpgsql stable security definer  -- callers see the reasons of their own tenant's runs, not the engine's tables
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.run_to_explain(stellwerk.current_tenant_id(), run_id);
begin
  return query
    select r.ordinality::integer, r.node_id,
           case when r.ordinality = 1 then stellwerk.first_sentence(v_run, r.text) else upper(left(r.text, 1)) || substr(r.text, 2) end, r.evidence, r.code
      from stellwerk.reasons_of_run(v_run, 0) with ordinality r (rank, node_id, text, evidence, code, ordinality);
end
$$;
comment on function stellwerk.explain_run(bigint) is 'Every reason why a run stands where it stands, the most pressing first, with the rows that it follows from and a code that stays, for those who put it into words of their own; of very many live steps the first 25. Errors: SW007.';

create or replace function stellwerk.why(run_id bigint)
returns text language plpgsql stable security definer  -- as explain_run
set search_path = '' as $$
declare
  v_run stellwerk.run := stellwerk.run_to_explain(stellwerk.current_tenant_id(), run_id);
begin
  return (select stellwerk.first_sentence(v_run, r.text) from stellwerk.reasons_of_run(v_run, 0) r limit 1);
end
$$;
comment on function stellwerk.why(bigint) is 'One sentence: what a run is waiting for, or how it ended. explain_run tells all reasons.';

create or replace function stellwerk.run_to_explain(p_tenant_id bigint, p_run_id bigint)
returns stellwerk.run language plpgsql stable set search_path = '' as $$
declare
  v_run stellwerk.run;
begin
  select * into v_run from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_run_id;
  if v_run.run_id is null then
    raise exception 'there is no run %', coalesce(p_run_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk run list shows the latest.';
  end if;
  return v_run;
end
$$;
comment on function stellwerk.run_to_explain(bigint, bigint) is 'A run, unlocked; SW007 when there is none.';

-- Clauses about steps begin in lower case, sentences about the run with "Run".
create or replace function stellwerk.first_sentence(p_run stellwerk.run, p_text text)
returns text language sql immutable set search_path = '' as $$
  select case when p_text like 'Run %' then p_text else format('Run %s is %s: %s', p_run.run_id, p_run.state, p_text) end
$$;
comment on function stellwerk.first_sentence(stellwerk.run, text) is 'A reason as a sentence that begins with its run.';

create or replace function stellwerk.reasons_of_run(p_run stellwerk.run, p_depth integer)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
begin
  return query
    select r.* from (
      select * from stellwerk.reasons_of_state(p_run)
      union all
      select * from stellwerk.reasons_of_messages(p_run)
      union all
      select * from stellwerk.reasons_of_steps(p_run, p_depth)
      union all
      select * from stellwerk.reasons_of_timeout(p_run)) r
     order by r.rank;
end
$$;
comment on function stellwerk.reasons_of_run(stellwerk.run, integer) is 'All reasons of a run in order; with a depth above 0 children are named and not explained.';

-- What the run's own state says.
create or replace function stellwerk.reasons_of_state(p_run stellwerk.run)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  v_left integer;
begin
  case p_run.state
    when 'completed' then
      return next row(0, null, format('Run %s completed at %s.', p_run.run_id, stellwerk.at_text(p_run.ended_at)),
        jsonb_strip_nulls(jsonb_build_object('ended_at', p_run.ended_at, 'seconds', stellwerk.seconds_between(p_run.started_at, p_run.ended_at))),
        'completed')::stellwerk.reason;
    when 'failed' then
      return next row(0, p_run.error ->> 'node', format('Run %s failed at %s%s: %s (%s).', p_run.run_id, stellwerk.at_text(p_run.ended_at),
          coalesce(' in node ' || (p_run.error ->> 'node'), ''), rtrim(p_run.error ->> 'message', '.'), p_run.error ->> 'class'),
        jsonb_build_object('error', p_run.error, 'ended_at', p_run.ended_at, 'retry', format('select stellwerk.retry_run(%s);', p_run.run_id)),
        'failed')::stellwerk.reason;
      return query select * from stellwerk.reasons_of_attempts(p_run);
    when 'cancelled' then
      return next row(0, null, format('Run %s was cancelled at %s: %s.', p_run.run_id, stellwerk.at_text(p_run.ended_at), rtrim(p_run.reason, '.')),
        jsonb_build_object('reason', p_run.reason, 'ended_at', p_run.ended_at), 'cancelled')::stellwerk.reason;
    when 'pending' then
      return query select * from stellwerk.reasons_of_pending(p_run);
    when 'paused' then
      return next row(0, null, format('Run %s is paused, and its timers stand still, until it is resumed: paused by %s at %s.', p_run.run_id,
          coalesce(p_run.paused_by, 'somebody'), stellwerk.at_text(p_run.paused_at)),
        jsonb_build_object('paused_by', p_run.paused_by, 'paused_at', p_run.paused_at, 'resume', format('select stellwerk.resume_run(%s);', p_run.run_id)),
        'paused')::stellwerk.reason;
    else
      if p_run.ending is not null then
        select count(*) into v_left from stellwerk.step s where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.undo is not null;
        return next row(0, null, format('Run %s is being compensated and then ends as %s: %s steps are left to compensate%s.', p_run.run_id, p_run.ending,
            v_left, coalesce(', because ' || rtrim(coalesce(p_run.error ->> 'message', p_run.reason), '.'), '')),
          jsonb_strip_nulls(jsonb_build_object('ending', p_run.ending, 'left', v_left, 'error', p_run.error, 'reason', p_run.reason)), 'compensating')::stellwerk.reason;
      end if;
  end case;
end
$$;
comment on function stellwerk.reasons_of_state(stellwerk.run) is 'What follows from a run''s own row: how it ended, why it has not begun, who paused it, that it is being compensated.';

create or replace function stellwerk.reasons_of_pending(p_run stellwerk.run)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  c_most constant integer := 1000;
  v_timer  stellwerk.timer;
  v_higher integer;
  v_before integer;
  v_behind text := '';
begin
  return query select 0, null::text, format('Run %s waits: %s.', p_run.run_id, f.reason), f.evidence, 'flow_' || (f.evidence ->> 'gate')
      from stellwerk.flow_reason(p_run) f where p_run.held and f.reason is not null;
  if found then
    return;
  elsif p_run.held then
    select * into v_timer from stellwerk.timer t where t.tenant_id = p_run.tenant_id and t.run_id = p_run.run_id and t.kind = 'start' limit 1;
    if v_timer.timer_id is not null then
      return next row(0, null, format('Run %s waits for its start at %s%s.', p_run.run_id, stellwerk.at_text(p_run.start_at),
          stellwerk.overdue_text(v_timer.due_at)), jsonb_build_object('start_at', p_run.start_at, 'timer', stellwerk.timer_evidence(v_timer)), 'starts_later')::stellwerk.reason;
    else
      return next row(5, null, format('Run %s is held back since %s.', p_run.run_id, stellwerk.at_text(p_run.created_at)),
        jsonb_build_object('held', true, 'created_at', p_run.created_at), 'held')::stellwerk.reason;
    end if;
    return;
  end if;
  -- Counted only so far as it tells something.
  select count(*) into v_higher from (
    select from stellwerk.run r where r.tenant_id = p_run.tenant_id and r.state = 'pending' and not r.held and r.priority > p_run.priority limit c_most) x;
  select count(*) into v_before from (
    select from stellwerk.run r where r.tenant_id = p_run.tenant_id and r.state = 'pending' and not r.held and r.priority = p_run.priority
       and r.run_id < p_run.run_id limit c_most) x;
  if v_higher + v_before > 0 then
    v_behind := format(' behind %s%s of higher priority and %s%s that came before it,', v_higher, case when v_higher = c_most then ' or more' end,
                       v_before, case when v_before = c_most then ' or more' end);
  end if;
  return next row(0, null, format('Run %s waits%s since %s to be started by %s.', p_run.run_id, v_behind,
      stellwerk.at_text(coalesce(p_run.start_at, p_run.created_at)), stellwerk.who_pumps()),
    jsonb_build_object('priority', p_run.priority, 'of_higher_priority', v_higher, 'came_before', v_before, 'workers', stellwerk.present_workers(),
                       'created_at', p_run.created_at, 'since', coalesce(p_run.start_at, p_run.created_at)), 'pending')::stellwerk.reason;
end
$$;
comment on function stellwerk.reasons_of_pending(stellwerk.run) is 'Why a run has not begun.';

create or replace function stellwerk.reasons_of_attempts(p_run stellwerk.run)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
begin
  return query
    select 70, s.node_id,
           format('attempt %s of step %s %s at %s%s.', a.attempt, s.node_id,
                  case a.outcome when 'failed' then 'failed' when 'lost' then 'was lost with its worker' else 'was given back by its worker' end,
                  stellwerk.at_text(a.ended_at), coalesce(': ' || rtrim(a.error ->> 'message', '.'), '')),
           jsonb_strip_nulls(jsonb_build_object('step_id', s.step_id::text, 'attempt', a.attempt, 'outcome', a.outcome, 'error', a.error,
                                                'worker_id', a.worker_id::text, 'started_at', a.started_at, 'ended_at', a.ended_at)), 'earlier_attempt'
      from (select o.* from stellwerk.step o
             where o.tenant_id = p_run.tenant_id and o.run_id = p_run.run_id and o.node_id = p_run.error ->> 'node' and o.state = 'failed'
             order by o.step_id desc limit 1) s
     cross join lateral (
       select o.* from stellwerk.step_attempt o
        where o.tenant_id = s.tenant_id and o.run_id = s.run_id and o.step_id = s.step_id order by o.attempt desc limit 10) a
     order by a.attempt desc;
end
$$;
comment on function stellwerk.reasons_of_attempts(stellwerk.run) is 'The earlier attempts of the step at which a run failed, the last first.';

-- What somebody has asked for and nobody has applied yet.
create or replace function stellwerk.reasons_of_messages(p_run stellwerk.run)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
begin
  return query
    select case when m.held then 55 else 10 end, s.node_id,
           format('%s was written at %s and %s.',
                  case m.kind when 'complete' then 'the result of ' || coalesce('step ' || s.node_id, 'a step')
                              when 'fail' then 'the failure of ' || coalesce('step ' || s.node_id, 'a step')
                              else 'the request to ' || m.kind || ' it' end,
                  stellwerk.at_text(m.created_at),
                  case when m.held then 'is kept until the run is resumed' else 'waits to be applied by ' || stellwerk.who_pumps() end),
           jsonb_strip_nulls(jsonb_build_object('message_id', m.message_id::text, 'kind', m.kind, 'step_id', m.step_id::text, 'created_at', m.created_at,
                                                'held', m.held, 'workers', stellwerk.present_workers())), 'message'
      from (select o.* from stellwerk.run_message o
             where o.tenant_id = p_run.tenant_id and o.run_id = p_run.run_id order by o.message_id limit 5) m
      left join lateral (
        select o.node_id from stellwerk.step o where o.tenant_id = m.tenant_id and o.run_id = m.run_id and o.step_id = m.step_id offset 0) s on true
     where p_run.state not in ('completed', 'failed', 'cancelled');
end
$$;
comment on function stellwerk.reasons_of_messages(stellwerk.run) is 'Messages from outside that pump has not applied to the run yet, the first five.';

create or replace function stellwerk.reasons_of_timeout(p_run stellwerk.run)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
begin
  return query
    select case when stellwerk.overdue_text(t.due_at) = '' then 60 else 15 end, null::text,
           format('the run %s%s.', case when t.due_at = stellwerk.never() then format('may take another %s once it is resumed', stellwerk.duration_words(t.remaining))
                                        else 'fails by its time limit at ' || stellwerk.at_text(t.due_at) end, stellwerk.overdue_text(t.due_at)),
           jsonb_build_object('timer', stellwerk.timer_evidence(t)), 'run_timeout'
      from stellwerk.timer t
     where t.tenant_id = p_run.tenant_id and t.run_id = p_run.run_id and t.kind = 'run_timeout';
end
$$;
comment on function stellwerk.reasons_of_timeout(stellwerk.run) is 'When the run''s own time limit ends it.';

create or replace function stellwerk.reasons_of_steps(p_run stellwerk.run, p_depth integer)
returns setof stellwerk.reason language plpgsql stable set search_path = '' as $$
declare
  c_most constant integer := 25;
  v_step  stellwerk.step;
  v_count integer := 0;
begin
  if p_run.state not in ('running', 'waiting', 'paused') then
    return;
  end if;
  -- The steps that others depend on come first; what stands in nobody's way, such as a loop's own step, comes last.
  for v_step in
    select s.* from stellwerk.step s
     where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.state in ('queued', 'running', 'waiting', 'joining')
     order by array_position(array['running', 'queued', 'waiting', 'joining'], s.state), s.type = 'logic.loop', s.step_id limit c_most
  loop
    v_count := v_count + 1;
    return next stellwerk.reason_of_step(p_run, v_step, p_depth);
  end loop;
  if v_count = 0 then
    return next row(20, null, 'it has no live step and ends with the next move.', '{}', 'no_live_step')::stellwerk.reason;
  elsif v_count = c_most then
    select count(*) - c_most into v_count from stellwerk.step s
     where s.tenant_id = p_run.tenant_id and s.run_id = p_run.run_id and s.state in ('queued', 'running', 'waiting', 'joining');
    if v_count > 0 then
      return next row(50, null, format('%s more steps are live; stellwerk.live_step lists them all.', v_count), jsonb_build_object('more', v_count), 'more_steps')::stellwerk.reason;
    end if;
  end if;
end
$$;
comment on function stellwerk.reasons_of_steps(stellwerk.run, integer) is 'A reason for each live step, of very many for the first 25, and the number of the others.';

-- Words

create or replace function stellwerk.at_text(p_at timestamptz)
returns text language sql stable set search_path = '' as $$
  select to_char(p_at, 'YYYY-MM-DD HH24:MI:SS TZ')
$$;
comment on function stellwerk.at_text(timestamptz) is 'A time for a sentence, in the session''s time zone.';

create or replace function stellwerk.duration_words(p_duration interval)
returns text language sql immutable set search_path = '' as $$
  select case when extract(day from p_duration) <> 0 then extract(day from p_duration) || ' days ' else '' end
         || to_char(p_duration - make_interval(days => extract(day from p_duration)::integer), 'HH24:MI:SS')
$$;
comment on function stellwerk.duration_words(interval) is 'A duration for a sentence: days, hours, minutes, seconds.';

create or replace function stellwerk.seconds_between(p_from timestamptz, p_to timestamptz)
returns numeric language sql immutable set search_path = '' as $$
  select round(extract(epoch from p_to - p_from), 3)
$$;
comment on function stellwerk.seconds_between(timestamptz, timestamptz) is 'Seconds from one time to another, to the millisecond.';

create or replace function stellwerk.overdue_text(p_due_at timestamptz)
returns text language plpgsql stable set search_path = '' as $$
begin
  if p_due_at > stellwerk.clock() - interval '10 seconds' then
    return '';
  elsif stellwerk.present_workers() = 0 then
    return '; that is overdue, for no worker is running that fires timers (start one: stellwerk worker, or call stellwerk.tick())';
  end if;
  return '; that is overdue and happens with the next tick';
end
$$;
comment on function stellwerk.overdue_text(timestamptz) is 'What to add where something should have happened by now; nothing if it is not yet due.';

create or replace function stellwerk.present_workers()
returns integer language sql stable set search_path = '' as $$
  select count(*)::integer from stellwerk.worker w where stellwerk.is_present(w.worker_id)
$$;
comment on function stellwerk.present_workers() is 'How many workers are running.';

create or replace function stellwerk.has_worker_for(p_type text)
returns boolean language sql stable set search_path = '' as $$
  select exists (select 1 from stellwerk.worker w where p_type = any (w.types) and stellwerk.is_present(w.worker_id))
$$;
comment on function stellwerk.has_worker_for(text) is 'Whether a worker that carries out a node type is running.';

create or replace function stellwerk.who_pumps()
returns text language sql stable set search_path = '' as $$
  select case when stellwerk.present_workers() > 0 then 'the next pump of a worker'
              else 'a pump; no worker is running (start one: stellwerk worker, or call stellwerk.pump())' end
$$;
comment on function stellwerk.who_pumps() is 'Who moves runs on, for a sentence.';

create or replace function stellwerk.timer_evidence(p_timer stellwerk.timer)
returns jsonb language sql stable set search_path = '' as $$
  select jsonb_strip_nulls(jsonb_build_object('timer_id', p_timer.timer_id::text, 'kind', p_timer.kind,
                                              'due_at', case when p_timer.due_at < stellwerk.never() then p_timer.due_at end, 'remaining', p_timer.remaining,
                                              'overdue', case when stellwerk.overdue_text(p_timer.due_at) <> '' then true end,
                                              'workers', case when stellwerk.overdue_text(p_timer.due_at) <> '' then stellwerk.present_workers() end))
$$;
comment on function stellwerk.timer_evidence(stellwerk.timer) is 'A timer as evidence; while its run is paused with the time that it still has.';
