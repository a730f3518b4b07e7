-- Saying why a run stands where it stands.

create or replace function stellwerk.why(run_id bigint)
returns text language plpgsql stable security definer  -- callers have no right to read the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_run       stellwerk.run;
  v_step      stellwerk.step;
  v_reason    text;
begin
  select * into v_run from stellwerk.run r where r.tenant_id = v_tenant_id and r.run_id = why.run_id;
  if v_run.run_id is null then
    raise exception 'there is no run %', coalesce(run_id::text, 'null') using errcode = 'SW007', hint = 'stellwerk run list shows the latest.';
  end if;
  case v_run.state
    when 'completed' then
      return format('Run %s completed at %s.', v_run.run_id, stellwerk.at_text(v_run.ended_at));
    when 'failed' then
      return format('Run %s failed at %s%s: %s (%s).', v_run.run_id, stellwerk.at_text(v_run.ended_at),
                    coalesce(' in node ' || (v_run.error ->> 'node'), ''), v_run.error ->> 'message', v_run.error ->> 'class');
    when 'cancelled' then
      return format('Run %s was cancelled at %s: %s.', v_run.run_id, stellwerk.at_text(v_run.ended_at), rtrim(v_run.reason, '.'));
    when 'pending' then
      select f.reason into v_reason from stellwerk.flow_reason(v_run) f limit 1;
      if v_run.held and v_reason is not null then
        return format('Run %s waits: %s.', v_run.run_id, v_reason);
      end if;
      if v_run.held then
        return format('Run %s waits for its start at %s.', v_run.run_id, stellwerk.at_text(v_run.start_at));
      end if;
      return format('Run %s waits to be started by %s.', v_run.run_id, stellwerk.who_pumps());
    else null;
  end case;
  -- The step that others depend on comes first: what runs, then what waits in the queue, then what waits for other steps.
  select * into v_step from stellwerk.step s
   where s.tenant_id = v_tenant_id and s.run_id = v_run.run_id and s.state in ('queued', 'running', 'waiting', 'joining')
   order by array_position(array['running', 'queued', 'waiting', 'joining'], s.state), s.step_id limit 1;
  return format('Run %s is %s: %s', v_run.run_id, v_run.state, stellwerk.why_step(v_step));
end
$$;
comment on function stellwerk.why(bigint) is 'One sentence: what a run is waiting for, or how it ended.';

create or replace function stellwerk.why_step(p_step stellwerk.step)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_worker text;
  v_others text;
  v_reason text;
begin
  select r.reason into v_reason from stellwerk.rate_reason(p_step) r;
  case
    when p_step.step_id is null then
      return 'it has no live step and ends with the next move.';
    when p_step.state = 'running' then
      select coalesce(w.name || ' on ' || w.host, 'number ' || p_step.worker_id) into v_worker
        from (select p_step.worker_id as worker_id) x left join stellwerk.worker w using (worker_id);
      return format('step %s (%s) runs in worker %s since %s, attempt %s%s.', p_step.node_id, p_step.type, v_worker, stellwerk.at_text(p_step.started_at), p_step.attempt,
                    case when stellwerk.is_present(p_step.worker_id) then '' else '; that worker has vanished, another takes the step over within seconds' end);
    when v_reason is not null then
      return format('step %s (%s) waits: %s.', p_step.node_id, p_step.type, v_reason);
    when p_step.due_at is not null then
      return format('step %s (%s) waits until %s for its next attempt, after %s failed: %s.', p_step.node_id, p_step.type, stellwerk.at_text(p_step.due_at),
                    p_step.failures, p_step.error ->> 'message');
    when p_step.state = 'queued' and p_step.runs_in = 'worker' then
      return format('step %s waits in the queue since %s for a worker that carries out %s%s.', p_step.node_id, stellwerk.at_text(p_step.queued_at), p_step.type,
                    case when stellwerk.has_worker_for(p_step.type) then '' else '; no such worker is running (start one: stellwerk worker)' end);
    when p_step.state = 'queued' then
      return format('step %s (%s) is ready since %s and waits for %s.', p_step.node_id, p_step.type, stellwerk.at_text(p_step.queued_at), stellwerk.who_pumps());
    when p_step.state = 'joining' then
      select string_agg(distinct s.node_id, ', ') into v_others from stellwerk.step s
       where s.tenant_id = p_step.tenant_id and s.run_id = p_step.run_id and s.state in ('queued', 'running', 'waiting');
      return format('step %s waits where ways meet for %s.', p_step.node_id, v_others);
    else
      return format('step %s (%s) is %s since %s.', p_step.node_id, p_step.type, p_step.state, stellwerk.at_text(p_step.queued_at));
  end case;
end
$$;
comment on function stellwerk.why_step(stellwerk.step) is 'Why a live step stands where it stands.';

create or replace function stellwerk.at_text(p_at timestamptz)
returns text language sql stable set search_path = '' as $$
  select to_char(p_at, 'YYYY-MM-DD HH24:MI:SS TZ')
$$;
comment on function stellwerk.at_text(timestamptz) is 'A time for a sentence, in the session''s time zone.';

create or replace function stellwerk.has_worker_for(p_type text)
returns boolean language sql stable set search_path = '' as $$
  select exists (select 1 from stellwerk.worker w where p_type = any (w.types) and stellwerk.is_present(w.worker_id))
$$;
comment on function stellwerk.has_worker_for(text) is 'Whether a worker that carries out a node type is running.';

create or replace function stellwerk.who_pumps()
returns text language sql stable set search_path = '' as $$
  select case when exists (select 1 from stellwerk.worker w where stellwerk.is_present(w.worker_id)) then 'the next pump of a worker'
              else 'a pump; no worker is running (start one: stellwerk worker, or call stellwerk.pump())' end
$$;
comment on function stellwerk.who_pumps() is 'Who moves runs on, for a sentence.';
