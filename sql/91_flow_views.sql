-- What flow control holds back, to be read by people.

create or replace view stellwerk.waiting_run with (security_barrier) as
select w.run_id, f.slug as workflow, w.phase, nullif(w.key, '') as key, w.priority, w.arrived_at, w.until,
       (select e.reason from stellwerk.run r cross join lateral stellwerk.flow_reason(r) e
         where r.tenant_id = w.tenant_id and r.run_id = w.run_id) as reason
  from stellwerk.flow_wait w
  join stellwerk.workflow f on f.tenant_id = w.tenant_id and f.workflow_id = w.workflow_id
 where w.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.waiting_run is 'Pending runs that max_running, concurrency_key, debounce or throttle do not let start yet.';
comment on column stellwerk.waiting_run.run_id is 'The run.';
comment on column stellwerk.waiting_run.workflow is 'Slug of its workflow.';
comment on column stellwerk.waiting_run.phase is 'arriving, quiet (debounce), behind (another run of its key goes first), timed (throttle) or ready (next when max_running allows).';
comment on column stellwerk.waiting_run.key is 'Its concurrency_key.';
comment on column stellwerk.waiting_run.priority is 'Higher goes first.';
comment on column stellwerk.waiting_run.arrived_at is 'Since when it waits.';
comment on column stellwerk.waiting_run.until is 'When a quiet or timed run may go on.';
comment on column stellwerk.waiting_run.reason is 'Why it waits, as why() says it.';

create or replace view stellwerk.rate_limit_status with (security_barrier) as
select l.kind, l.name, l.max_count, l.per, coalesce(l.max_count - u.free, 0) as begun,
       (select count(*) from stellwerk.rate_wait w where w.tenant_id = l.tenant_id and w.kind = l.kind and w.name = l.name) as waiting,
       (select min(w.due_at) from stellwerk.rate_wait w where w.tenant_id = l.tenant_id and w.kind = l.kind and w.name = l.name) as next_at,
       l.set_at, l.set_by
  from stellwerk.rate_limit l
  left join lateral (
    select a.free from stellwerk.rate_usage o cross join lateral stellwerk.usage_at(o, l, clock_timestamp()) a
     where o.tenant_id = l.tenant_id and o.kind = l.kind and o.name = l.name) u on true
 where l.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.rate_limit_status is 'The rate limits for worker steps, and how far each is used.';
comment on column stellwerk.rate_limit_status.kind is 'type (a node type) or provider.';
comment on column stellwerk.rate_limit_status.name is 'The node type or provider.';
comment on column stellwerk.rate_limit_status.max_count is 'How many steps may begin within the interval.';
comment on column stellwerk.rate_limit_status.per is 'Length of the interval.';
comment on column stellwerk.rate_limit_status.begun is 'How many have begun within the last interval.';
comment on column stellwerk.rate_limit_status.waiting is 'How many steps it has put off.';
comment on column stellwerk.rate_limit_status.next_at is 'When the first of these has its turn.';
comment on column stellwerk.rate_limit_status.set_at is 'When it was set.';
comment on column stellwerk.rate_limit_status.set_by is 'Who set it.';
