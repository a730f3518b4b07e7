-- The outbox: mails are ordered in the transaction that they tell of, and sent by a worker after its commit.

create or replace function stellwerk.order_messages(
  p_tenant_id bigint, p_recipients text[], p_refusals text[], p_subject text, p_body text, p_link text,
  p_run_id bigint, p_step_id bigint, p_task_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  v_queued bigint[];
begin
  with ordered as (
    insert into stellwerk.message (tenant_id, recipient, subject, body, link, state, error, ended_at, run_id, step_id, task_id)
    select p_tenant_id, r.recipient, left(p_subject, 500), p_body, p_link, case when r.refusal is null then 'queued' else 'suppressed' end, r.refusal,
           case when r.refusal is not null then stellwerk.clock() end, p_run_id, p_step_id, p_task_id
      from unnest(p_recipients, p_refusals) r (recipient, refusal)
    returning message_id, state)
  select array_agg(o.message_id order by o.message_id) into v_queued from ordered o where o.state = 'queued';
  if v_queued is not null then
    perform stellwerk.queue_messages(p_tenant_id, v_queued);
  end if;
end
$$;
comment on function stellwerk.order_messages(bigint, text[], text[], text, text, text, bigint, bigint, bigint) is 'Orders one mail per recipient; a recipient with a refusal gets none, and the row says why.';

create or replace function stellwerk.mail_people(
  p_tenant_id bigint, p_recipients text[], p_subject text, p_body text, p_link text, p_run_id bigint, p_step_id bigint)
returns void language plpgsql set search_path = '' as $$
declare
  c_most   constant integer := 100;
  v_emails text[];
begin
  select array_agg(u.email order by u.user_id) into v_emails
    from (select x.user_id, x.email from stellwerk.app_user x
           where x.tenant_id = p_tenant_id and x.active and x.mails
             and (x.email = any (p_recipients) or 'role:' || x.role = any (p_recipients)
                  or exists (select from unnest(x.groups) g (name) where 'role:' || g.name = any (p_recipients)))
           order by x.user_id limit c_most) u;
  if v_emails is not null then
    perform stellwerk.order_messages(p_tenant_id, v_emails, array_fill(null::text, array[cardinality(v_emails)]), p_subject, p_body, p_link, p_run_id, p_step_id, null);
  end if;
end
$$;
comment on function stellwerk.mail_people(bigint, text[], text, text, text, bigint, bigint) is 'Orders a mail for each of the first 100 active users whom e-mail addresses and role:NAME mean, and who want mails.';

create or replace function stellwerk.queue_messages(p_tenant_id bigint, p_message_ids bigint[])
returns void language plpgsql set search_path = '' as $$
begin
  update stellwerk.message m
     set job_id = stellwerk.enqueue_job('mail.send', jsonb_build_object('t', p_tenant_id, 'message', m.message_id))
   where m.tenant_id = p_tenant_id and m.message_id = any (p_message_ids);
end
$$;
comment on function stellwerk.queue_messages(bigint, bigint[]) is 'Puts queued mails before the workers.';

create or replace function stellwerk.begin_message(p_tenant_id bigint, p_message_id bigint)
returns table (recipient text, subject text, body text, link text) language plpgsql security definer  -- workers have no right to write the table
set search_path = '' as $$
#variable_conflict use_column
begin
  return query
    update stellwerk.message m
       set attempts = m.attempts + 1, due_at = stellwerk.clock() + interval '5 minutes'
     where m.tenant_id = p_tenant_id and m.message_id = p_message_id and m.state = 'queued' and m.due_at <= stellwerk.clock()
    returning m.recipient, m.subject, m.body, m.link;
end
$$;
comment on function stellwerk.begin_message(bigint, bigint) is 'A mail that a worker is to send now; no row when it was sent, or another worker is at it. Should the worker vanish, another tries after 5 minutes.';

create or replace function stellwerk.end_message(p_tenant_id bigint, p_message_id bigint, p_outcome text, p_error text default null)
returns void language plpgsql security definer  -- workers have no right to write the table
set search_path = '' as $$
declare
  c_attempts constant integer := 8;
begin
  if p_outcome not in ('sent', 'failed', 'suppressed', 'later') then
    raise exception 'a message does not end as %', quote_literal(p_outcome) using errcode = 'SW002';
  end if;
  update stellwerk.message m
     set state = e.state, error = p_error, ended_at = case when e.state <> 'queued' then stellwerk.clock() end,
         due_at = stellwerk.clock() + least(interval '30 seconds' * power(2, m.attempts - 1), interval '1 hour')
    from (select case when p_outcome <> 'later' then p_outcome when o.attempts >= c_attempts then 'failed' else 'queued' end as state
            from stellwerk.message o where o.tenant_id = p_tenant_id and o.message_id = p_message_id) e
   where m.tenant_id = p_tenant_id and m.message_id = p_message_id and m.state = 'queued';
end
$$;
comment on function stellwerk.end_message(bigint, bigint, text, text) is 'What became of a mail: sent, failed, suppressed, or later: it is tried again, 8 times in all with pauses from 30 seconds to an hour.';

create or replace function stellwerk.requeue_messages(p_tenant_id bigint)
returns integer language plpgsql set search_path = '' as $$
declare
  v_lost bigint[];
begin
  select array_agg(l.message_id) into v_lost
    from (select m.message_id, m.job_id from stellwerk.message m
           where m.tenant_id = p_tenant_id and m.state = 'queued'
             -- A new one has its job; only a lost one is still here after a while.
             and m.due_at < stellwerk.clock() - case when m.attempts = 0 then interval '30 seconds' else interval '0' end
           order by m.due_at limit 100 for update skip locked) l
   where not exists (select from stellwerk.queue_state(array[l.job_id]) q);
  if v_lost is not null then
    perform stellwerk.queue_messages(p_tenant_id, v_lost);
  end if;
  return coalesce(cardinality(v_lost), 0);
end
$$;
comment on function stellwerk.requeue_messages(bigint) is 'Mails that are to be tried again, or whose queue row was lost, are enqueued; answers how many.';
