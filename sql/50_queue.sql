-- The queue and the doorbell: the only file that knows pgqueuer.
--
-- A queue row is a wake-up and nothing more: what must be done, how often it was tried and by whom stands in
-- stellwerk.step. One row may stand for up to 50 steps of one type that became ready in the same transaction.

-- pgqueuer's own trigger notifies on every INSERT, DELETE and TRUNCATE, also when nobody has to hear it, and
-- each NOTIFY takes a database-wide lock at commit. stellwerk.ring() sends its message instead. An upgrade of
-- pgqueuer's schema brings the trigger back, so it is dropped whenever this file is loaded.
drop trigger if exists tg_pgqueuer_changed on stellwerk_queue.pgqueuer;

-- The doorbell (one NOTIFY, rung only when somebody sleeps)

create or replace function stellwerk.bell_key()
returns bigint language sql immutable parallel safe
return 6003366829153018465;

comment on function stellwerk.bell_key() is
'Key of the advisory lock that says whether a worker sleeps: the sleeper holds it exclusively, or waits for it; who takes it shared knows that nobody sleeps.';

create or replace function stellwerk.duty_key()
returns bigint language sql immutable parallel safe
return 6003366829153018466;

comment on function stellwerk.duty_key() is
'Key of the advisory lock that makes one worker the duty worker, which sleeps at the doorbell and ticks for all.';

create or replace function stellwerk.ring(p_what text)
returns void language plpgsql set search_path = '' as $$
begin
  -- The texts are constant, so that PostgreSQL keeps one of each per transaction, and they hold no data:
  -- every role of the database can listen.
  if p_what = 'event' then
    perform pg_notify('stellwerk', '');
  elsif p_what = 'job' then
    perform pg_notify('ch_pgqueuer',
      '{"channel":"ch_pgqueuer","operation":"insert","sent_at":"2000-01-01T00:00:00Z","table":"pgqueuer","type":"table_changed_event"}');
  elsif p_what = 'change' then
    perform pg_notify('stellwerk_live', '');
  else
    raise exception 'nobody listens for %', p_what using hint = 'Ring for an event, for a job or for a change.';
  end if;
end
$$;

comment on function stellwerk.ring(text) is
'Wake the workers, with the only NOTIFY of the engine: event (something is pending for pump), job (the queue has a new row); or the pages that are open: change. Losing it costs latency, never work.';

create or replace function stellwerk.ring_if_asleep()
returns void language plpgsql set search_path = '' as $$
begin
  -- The lock is kept to the end of the transaction: a worker that goes to sleep meanwhile gets its own lock only
  -- after that, and looks once more. So either it sees what we wrote, or we see that it sleeps.
  if not pg_try_advisory_xact_lock_shared(stellwerk.bell_key()) then
    perform stellwerk.ring('event');
  end if;
end
$$;

comment on function stellwerk.ring_if_asleep() is
'Ring for a new event if the duty worker sleeps or is about to; waits for nothing. Called by capture triggers after they have written.';

create or replace function stellwerk.take_duty()
returns boolean language sql volatile set search_path = ''
return pg_try_advisory_lock(stellwerk.duty_key());

comment on function stellwerk.take_duty() is
'Become the duty worker if there is none. The duty belongs to this session and ends with it.';

create or replace function stellwerk.fall_asleep()
returns void language plpgsql set search_path = '' as $$
begin
  -- Waits until every transaction that relied on a waking worker has ended. From the moment of the call all others
  -- fail to take the lock shared, and ring; so this may wait as long as it likes, and nothing is missed.
  perform pg_advisory_lock(stellwerk.bell_key());
end
$$;

comment on function stellwerk.fall_asleep() is
'Called by the duty worker on a session of its own before it sleeps: blocks until granted; then the worker must look once more. LISTEN comes first.';

create or replace function stellwerk.awaken()
returns boolean language sql volatile set search_path = ''
return pg_advisory_unlock(stellwerk.bell_key());

comment on function stellwerk.awaken() is
'Called by the duty worker when it wakes: from now on nobody rings. Answers whether it had slept.';

-- Jobs

create or replace function stellwerk.enqueue_steps(
  p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_types text[], p_priorities integer[], p_due timestamptz[])
returns bigint[] language plpgsql set search_path = '' as $$
declare
  v_now     timestamptz := now();
  v_count   integer := cardinality(p_step_ids);
  -- Many steps share a row; few are spread, so that several workers can take them.
  v_portion integer := least(50, greatest(1, (v_count + 3) / 4));
  v_job_ids bigint[];
  v_job_id  bigint;
begin
  if coalesce(v_count, 0) = 0 then
    return '{}'::bigint[];
  end if;
  perform stellwerk.announce_ready(p_tenant_id, p_run_ids, p_step_ids, p_types, p_due);

  if v_count = 1 then
    with job as (
      insert into stellwerk_queue.pgqueuer (priority, execute_after, status, entrypoint, payload)
      values (coalesce(p_priorities[1], 0), coalesce(p_due[1], v_now), 'queued', p_types[1],
              convert_to('{"t":' || p_tenant_id || ',"s":[[' || p_run_ids[1] || ',' || p_step_ids[1] || ']]}', 'UTF8'))
      returning id, entrypoint, priority
    ), logged as (
      insert into stellwerk_queue.pgqueuer_log (job_id, status, entrypoint, priority)
      select j.id, 'queued', j.entrypoint, j.priority from job j
    )
    select j.id into v_job_id from job j;
    perform stellwerk.ring('job');
    return array[v_job_id];
  end if;

  with step as (
    select u.position, u.run_id, u.step_id, u.type, coalesce(u.priority, 0) as priority, coalesce(u.due, v_now) as due,
           (row_number() over (partition by u.type, coalesce(u.priority, 0), coalesce(u.due, v_now)
                                          order by u.position) - 1) / v_portion as portion
      from unnest(p_run_ids, p_step_ids, p_types, p_priorities, p_due)
           with ordinality as u (run_id, step_id, type, priority, due, position)
  ), parcel as (
    select s.type, s.priority, s.due, s.portion, min(s.position) as position,
           string_agg('[' || s.run_id || ',' || s.step_id || ']', ',' order by s.position) as steps
      from step s
     group by s.type, s.priority, s.due, s.portion
  ), numbered as materialized (
    select p.*, nextval('stellwerk_queue.pgqueuer_id_seq') as job_id
      from (select * from parcel order by position) p
  ), job as (
    insert into stellwerk_queue.pgqueuer (id, priority, execute_after, status, entrypoint, payload)
    select n.job_id, n.priority, n.due, 'queued', n.type,
           convert_to('{"t":' || p_tenant_id || ',"s":[' || n.steps || ']}', 'UTF8')
      from numbered n
  ), logged as (
    insert into stellwerk_queue.pgqueuer_log (job_id, status, entrypoint, priority)
    select n.job_id, 'queued', n.type, n.priority from numbered n
  )
  select array_agg(n.job_id order by s.position) into v_job_ids
    from step s
    join numbered n on n.type = s.type and n.priority = s.priority and n.due = s.due and n.portion = s.portion;

  perform stellwerk.ring('job');
  return v_job_ids;
end
$$;

comment on function stellwerk.enqueue_steps(bigint, bigint[], bigint[], text[], integer[], timestamptz[]) is
'Put worker steps into the queue and answer the job of each, in the same order. Steps of the same type, priority and due time share jobs. A due time of null means now.';

-- A worker that pumps or completes is told in the answer which steps have just been queued, if they are few, and may begin
-- them without a look into the queue. Their queue rows stay, for the case that it dies before.
create or replace function stellwerk.announce_ready(p_tenant_id bigint, p_run_ids bigint[], p_step_ids bigint[], p_types text[], p_due timestamptz[])
returns void language plpgsql set search_path = '' as $$
declare
  c_few constant integer := 10;
  v_ready text := coalesce(current_setting('stellwerk.ready', true), '');
begin
  if cardinality(p_step_ids) > c_few or length(v_ready) > 1000 then
    return;
  end if;
  for i in 1 .. cardinality(p_step_ids) loop
    if p_due[i] is null then
      v_ready := v_ready || case when v_ready = '' then '' else ',' end
                 || '[' || to_json(p_types[i]) || ',' || p_tenant_id || ',' || p_run_ids[i] || ',' || p_step_ids[i] || ']';
    end if;
  end loop;
  perform set_config('stellwerk.ready', v_ready, true);
end
$$;

comment on function stellwerk.announce_ready(bigint, bigint[], bigint[], text[], timestamptz[]) is
'Notes for the answer of this transaction''s call which worker steps have become ready, at most about ten.';

create or replace function stellwerk.take_ready()
returns jsonb language plpgsql set search_path = '' as $$
declare
  v_ready text := current_setting('stellwerk.ready', true);
begin
  if coalesce(v_ready, '') = '' then
    return '[]'::jsonb;
  end if;
  perform set_config('stellwerk.ready', '', true);
  return ('[' || v_ready || ']')::jsonb;
end
$$;

comment on function stellwerk.take_ready() is
'The steps noted by announce_ready in this transaction, as [type, tenant, run, step] each, and forgets them.';

create or replace function stellwerk.enqueue_job(p_entrypoint text, p_payload jsonb)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_job_id bigint;
begin
  with job as (
    insert into stellwerk_queue.pgqueuer (priority, status, entrypoint, payload)
    values (0, 'queued', p_entrypoint, convert_to(p_payload::text, 'UTF8'))
    returning id, entrypoint, priority
  ), logged as (
    insert into stellwerk_queue.pgqueuer_log (job_id, status, entrypoint, priority)
    select j.id, 'queued', j.entrypoint, j.priority from job j
  )
  select j.id into v_job_id from job j;
  perform stellwerk.ring('job');
  return v_job_id;
end
$$;

comment on function stellwerk.enqueue_job(text, jsonb) is
'Put one internal job into the queue, such as the writing of a case''s CSV file after the commit; answers its number.';

create or replace function stellwerk.queue_state(p_job_ids bigint[])
returns table (job_id bigint, status text) language sql stable set search_path = ''
begin atomic
  select q.id, q.status::text
    from stellwerk_queue.pgqueuer q
   where q.id = any (p_job_ids);
end;

comment on function stellwerk.queue_state(bigint[]) is
'Which of these jobs are still in the queue, and whether they are queued or picked; for reconciling steps with their queue rows.';

create or replace function stellwerk.hasten_jobs(p_job_ids bigint[])
returns void language sql volatile set search_path = ''
begin atomic
  update stellwerk_queue.pgqueuer q set execute_after = now()
   where q.id = any (p_job_ids) and q.status = 'queued' and q.execute_after > now();
end;

comment on function stellwerk.hasten_jobs(bigint[]) is
'Makes queued jobs due now.';

create or replace function stellwerk.queue_holds(p_types text[], p_within_seconds double precision)
returns boolean language sql stable set search_path = ''
begin atomic
  select exists (select from stellwerk_queue.pgqueuer q
                  where q.entrypoint = any (p_types)
                    and (q.status = 'picked' or q.status = 'queued' and q.execute_after < now() + make_interval(secs => p_within_seconds)));
end;

comment on function stellwerk.queue_holds(text[], double precision) is
'Whether jobs of these types are being worked on, or are due now or within so many seconds; a draining worker ends when there are none.';

create or replace function stellwerk.next_job_seconds(p_types text[])
returns double precision language sql stable set search_path = ''
begin atomic
  select extract(epoch from (min(d.execute_after) - now()))::double precision
    from unnest(p_types) t (entrypoint)
   cross join lateral (select q.execute_after
                         from stellwerk_queue.pgqueuer q
                        where q.entrypoint = t.entrypoint and q.status = 'queued'
                        order by q.execute_after
                        limit 1) d;
end;

comment on function stellwerk.next_job_seconds(text[]) is
'In how many seconds the next queued job of these types is due: 0 or less for now, null when there is none.';

create or replace function stellwerk.prune_queue_log(p_keep interval default interval '1 hour')
returns bigint language plpgsql set search_path = '' as $$
declare
  v_before timestamptz := now() - p_keep;
  v_logged bigint;
  v_counted bigint;
begin
  -- pgqueuer writes three log rows per job and never removes one; nothing of ours reads them.
  delete from stellwerk_queue.pgqueuer_log l
   where l.id in (select o.id from stellwerk_queue.pgqueuer_log o where o.created < v_before order by o.created limit 20000);
  get diagnostics v_logged = row_count;
  delete from stellwerk_queue.pgqueuer_statistics s
   where s.id in (select o.id from stellwerk_queue.pgqueuer_statistics o where o.created < v_before order by o.id limit 20000);
  get diagnostics v_counted = row_count;
  return v_logged + v_counted;
end
$$;

comment on function stellwerk.prune_queue_log(interval) is
'Remove rows of pgqueuer''s log and statistics older than this, at most 20,000 of each per call; answers how many went.';

-- Workers run pgqueuer's own statements with their own rights.
do $grants$
begin
  if to_regrole('stellwerk_worker') is not null then
    grant usage on schema stellwerk_queue to stellwerk_worker;
    grant select, insert, update, delete on all tables in schema stellwerk_queue to stellwerk_worker;
    grant usage on all sequences in schema stellwerk_queue to stellwerk_worker;
  end if;
end
$grants$;
