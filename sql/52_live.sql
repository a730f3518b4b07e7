-- The bell of those who look: web processes whose pages are open are told that something has moved, and look themselves.
--
-- A process that wants to be told holds the lock of live_key() shared, and only while it sleeps: once told it gives the lock up,
-- waits a moment, takes it again and looks. So the engine notifies only when somebody looks, a few times a second at most
-- for each web process, and only in its own transactions. Losing a notification costs a second or three, never a change: whoever
-- watches also looks without being told.

create or replace function stellwerk.live_key()
returns bigint language sql immutable parallel safe
return 6003366829153018467;

comment on function stellwerk.live_key() is
'Key of the advisory lock that says whether anybody looks at runs: who waits to be told holds it shared.';

create or replace function stellwerk.tell_watchers()
returns void language plpgsql set search_path = '' as $$
begin
  -- Taken and given back at once: of two who ask in the same instant one may notify for nothing, which harms nobody.
  if pg_try_advisory_lock(stellwerk.live_key()) then
    perform pg_advisory_unlock(stellwerk.live_key());
  else
    perform stellwerk.ring('change');
  end if;
end
$$;

comment on function stellwerk.tell_watchers() is
'Says to open pages that something has moved, if there are any. Called at the end of the engine''s own transactions, never in an application''s.';

create or replace function stellwerk.begin_watching()
returns void language plpgsql set search_path = '' as $$
begin
  perform pg_advisory_lock_shared(stellwerk.live_key());
end
$$;

comment on function stellwerk.begin_watching() is
'From now on this session is notified on channel stellwerk_live when something has moved. LISTEN comes first; then look.';

create or replace function stellwerk.end_watching()
returns boolean language sql volatile set search_path = ''
return pg_advisory_unlock_shared(stellwerk.live_key());

comment on function stellwerk.end_watching() is
'This session need not be told any more, for the time being or for good.';

create or replace function stellwerk.run_pulse(run_ids bigint[])
returns table (run_id bigint, pulse text) language sql stable set search_path = '' as $$
  select r.run_id,
         md5(concat_ws('|', r.state, r.ending, r.held, r.version, r.error is not null, r.reason,
           (select max(s.step_id) from stellwerk.step s where s.tenant_id = r.tenant_id and s.run_id = r.run_id),
           (select string_agg(concat_ws(':', s.step_id, s.state, s.attempt, s.failures, s.due_at, cardinality(s.arrived)), ',' order by s.step_id)
              from stellwerk.step s
             where s.tenant_id = r.tenant_id and s.run_id = r.run_id and s.state in ('queued', 'running', 'waiting', 'joining')),
           (select string_agg(concat_ws(':', t.task_id, t.state, t.claimed_by, t.assignee), ',' order by t.task_id)
              from stellwerk.user_task t where t.tenant_id = r.tenant_id and t.run_id = r.run_id)))
    from stellwerk.run r
   where r.tenant_id = (select stellwerk.current_tenant_id()) and r.run_id = any (run_pulse.run_ids)
$$;

comment on function stellwerk.run_pulse(bigint[]) is
'A text for each of these runs that differs when the run has moved: it reads the run, its live steps and its tasks, however long its history.';

create or replace function stellwerk.open_entrances(session_ids bigint[], tokens text[])
returns table (session_id bigint, token text) language sql stable security definer  -- the web role may not read sessions and tokens
set search_path = '' as $$
  select s.session_id, null
    from stellwerk.user_session s
    join stellwerk.app_user u on u.tenant_id = s.tenant_id and u.user_id = s.user_id
   where s.tenant_id = stellwerk.current_tenant_id() and s.session_id = any (open_entrances.session_ids) and u.active
     and s.expires_at >= stellwerk.clock() and s.last_seen_at >= stellwerk.clock() - interval '12 hours'
  union all
  select null, a.name
    from stellwerk.api_token a
   where a.tenant_id = stellwerk.current_tenant_id() and a.name = any (open_entrances.tokens) and a.revoked_at is null
     and (a.expires_at is null or a.expires_at >= stellwerk.clock())
$$;

comment on function stellwerk.open_entrances(bigint[], text[]) is
'Which of these sessions and tokens of the tenant still hold; looking at a live page does not keep a session from ending.';

create or replace function stellwerk.desk_pulse()
returns table (tasks text, cases text) language sql stable set search_path = '' as $$
  select (select concat_ws(':', count(*), max(k.task_id), count(*) filter (where k.due_at < stellwerk.clock()),
                           sum(hashtext(concat_ws('|', k.task_id, k.state, k.claimed_by, k.assignee, k.role, k.due_at))))
            from (select * from stellwerk.user_task o
                   where o.tenant_id = (select stellwerk.current_tenant_id()) and o.state in ('open', 'claimed') limit 5000) k),
         (select coalesce(max(h.history_id), 0)::text from stellwerk.case_history h where h.tenant_id = (select stellwerk.current_tenant_id()))
$$;

comment on function stellwerk.desk_pulse() is
'Two texts that differ when the tenant''s open tasks (of more than 5000 some of them), or its cases, have changed.';
