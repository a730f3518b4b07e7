-- What operators ask of all runs together. Each view shows the current tenant's rows and says in its comment what it reads.

create or replace view stellwerk.stuck_run with (security_barrier) as
select x.run_id, x.workflow, x.state, x.node_id, x.step_id, x.since, x.cause, x.reason, x.mend from stellwerk.stuck_runs() x;
comment on view stellwerk.stuck_run is 'Live runs that nothing will move for more than a minute: no worker, no queue row, an overdue timer, nothing to wait for. Reads live steps, timers and messages, and no history; stuck_runs(interval) takes another duration.';
comment on column stellwerk.stuck_run.run_id is 'The run.';
comment on column stellwerk.stuck_run.workflow is 'Slug of its workflow.';
comment on column stellwerk.stuck_run.state is 'pending, running or waiting.';
comment on column stellwerk.stuck_run.node_id is 'The node where it stands; null before it has begun.';
comment on column stellwerk.stuck_run.step_id is 'That step.';
comment on column stellwerk.stuck_run.since is 'Since when.';
comment on column stellwerk.stuck_run.cause is 'no_worker, lost_job, not_pumped, lost_worker, timer_overdue, timer_lost or waits_for_nothing.';
comment on column stellwerk.stuck_run.reason is 'The same in words.';
comment on column stellwerk.stuck_run.mend is 'What to do.';

create or replace view stellwerk.failure_cluster with (security_barrier) as
select md5(concat_ws(E'\x1f', f.workflow_id, f.version, f.node_id, f.error_class, f.message)) as fingerprint, w.slug as workflow, f.version, f.node_id,
       f.error_class, f.message, f.failures, f.first_seen, f.last_seen, f.example_runs, f.example_message
  from (select x.workflow_id, x.version, x.node_id, x.error_class, x.message, count(*) as failures, min(x.ended_at) as first_seen, max(x.ended_at) as last_seen,
               (array_agg(x.run_id order by x.ended_at desc))[:5] as example_runs, max(x.full_message) as example_message
          from (select r.run_id, r.workflow_id, r.version, r.ended_at, r.error ->> 'node' as node_id, r.error ->> 'class' as error_class,
                       stellwerk.normal_message(r.error ->> 'message') as message, left(r.error ->> 'message', 1000) as full_message
                  from stellwerk.run r
                 where r.tenant_id = (select stellwerk.current_tenant_id()) and r.state = 'failed'
                   and r.ended_at >= (select stellwerk.window_start(interval '7 days'))) x
         group by x.workflow_id, x.version, x.node_id, x.error_class, x.message) f
  join stellwerk.workflow w on w.tenant_id = (select stellwerk.current_tenant_id()) and w.workflow_id = f.workflow_id;
comment on view stellwerk.failure_cluster is 'Failed runs of the last 7 days (or of the setting stellwerk.period) that failed alike, and were not retried. Reads the failed runs of that time, by an index of their own.';
comment on column stellwerk.failure_cluster.fingerprint is 'The same for runs that failed alike: workflow, version, node, error class and normalised message.';
comment on column stellwerk.failure_cluster.workflow is 'Slug of the workflow.';
comment on column stellwerk.failure_cluster.version is 'The version that the runs were on.';
comment on column stellwerk.failure_cluster.node_id is 'The node that failed; null where the run failed as a whole.';
comment on column stellwerk.failure_cluster.error_class is 'The error''s class.';
comment on column stellwerk.failure_cluster.message is 'The error''s message with placeholders for what differs from run to run.';
comment on column stellwerk.failure_cluster.failures is 'How many runs.';
comment on column stellwerk.failure_cluster.first_seen is 'When the first of them failed.';
comment on column stellwerk.failure_cluster.last_seen is 'When the last of them failed.';
comment on column stellwerk.failure_cluster.example_runs is 'The last five of them.';
comment on column stellwerk.failure_cluster.example_message is 'The message of one of them.';

create or replace view stellwerk.dead_letter with (security_barrier) as
select 'run' as kind, r.run_id as letter_id, r.run_id, w.slug as workflow, r.error ->> 'node' as node_id, r.error ->> 'class' as error_class,
       r.error ->> 'message' as message, s.attempt as attempts, r.ended_at as failed_at, format('select stellwerk.retry_run(%s);', r.run_id) as retry
  from stellwerk.run r
  join stellwerk.workflow w on w.tenant_id = r.tenant_id and w.workflow_id = r.workflow_id
  left join lateral (
    select o.attempt from stellwerk.step o
     where o.tenant_id = r.tenant_id and o.run_id = r.run_id and o.node_id = r.error ->> 'node' order by o.step_id desc limit 1) s on true
 where r.tenant_id = (select stellwerk.current_tenant_id()) and r.state = 'failed'
union all
select 'event', e.event_id, null, w.slug, t.trigger_node, null, e.reason, null, e.processed_at, format('select stellwerk.retry_event(%s);', e.event_id)
  from stellwerk.event e
  left join stellwerk.table_watch t on t.tenant_id = e.tenant_id and t.watch_id = e.watch_id
  left join stellwerk.workflow w on w.tenant_id = t.tenant_id and w.workflow_id = t.workflow_id
 where e.tenant_id = (select stellwerk.current_tenant_id()) and e.state = 'failed'
union all
select 'export', x.export_id, c.run_id, c.workflow, s.node_id, null, x.error, x.attempts, x.ended_at, format('select stellwerk.retry_export(%s);', x.export_id)
  from stellwerk.case_export x
  join stellwerk.backoffice_case c on c.tenant_id = x.tenant_id and c.case_id = x.case_id
  left join stellwerk.step s on s.tenant_id = x.tenant_id and s.run_id = c.run_id and s.step_id = x.step_id
 where x.tenant_id = (select stellwerk.current_tenant_id()) and x.state = 'failed';
comment on view stellwerk.dead_letter is 'What was given up and waits for somebody: failed runs, row events that could start nothing, files that could not be written. Reads failures only, by indexes of their own.';
comment on column stellwerk.dead_letter.kind is 'run, event or export.';
comment on column stellwerk.dead_letter.letter_id is 'The number of the run, event or export.';
comment on column stellwerk.dead_letter.run_id is 'The run that it belongs to, if any.';
comment on column stellwerk.dead_letter.workflow is 'Slug of the workflow.';
comment on column stellwerk.dead_letter.node_id is 'The node that failed, or that the event was for.';
comment on column stellwerk.dead_letter.error_class is 'The error''s class, for runs.';
comment on column stellwerk.dead_letter.message is 'Why it was given up.';
comment on column stellwerk.dead_letter.attempts is 'How often it was tried.';
comment on column stellwerk.dead_letter.failed_at is 'When it was given up.';
comment on column stellwerk.dead_letter.retry is 'The statement that sends it on again.';

-- A range that is open at one end is taken for a third of the table, one that is closed for a small part: thus the index is used.
create or replace view stellwerk.workflow_statistics with (security_barrier) as
select w.slug as workflow, x.since, x.runs, x.pending, x.running, x.waiting, x.paused, x.completed, x.failed, x.cancelled,
       round(x.completed::numeric / nullif(x.completed + x.failed, 0), 4) as success_share,
       x.seconds[1] as p50_seconds, x.seconds[2] as p95_seconds, x.seconds[3] as p99_seconds, x.start_seconds as p95_start_seconds, x.last_started_at
  from (select r.tenant_id, r.workflow_id, (select stellwerk.window_start(interval '1 day')) as since, count(*) as runs,
               count(*) filter (where r.state = 'pending') as pending, count(*) filter (where r.state = 'running') as running,
               count(*) filter (where r.state = 'waiting') as waiting, count(*) filter (where r.state = 'paused') as paused,
               count(*) filter (where r.state = 'completed') as completed, count(*) filter (where r.state = 'failed') as failed,
               count(*) filter (where r.state = 'cancelled') as cancelled,
               percentile_cont(array[0.5, 0.95, 0.99]) within group (order by extract(epoch from r.ended_at - r.started_at))
                 filter (where r.state = 'completed') as seconds,
               percentile_cont(0.95) within group (order by extract(epoch from r.started_at - greatest(r.created_at, r.start_at))) as start_seconds,
               max(r.started_at) as last_started_at
          from stellwerk.run r
         where r.tenant_id = (select stellwerk.current_tenant_id())
           and r.run_id >= (select stellwerk.first_run_since(stellwerk.current_tenant_id(), stellwerk.window_start(interval '1 day')))
           and r.run_id <= (select 9223372036854775807)
           and r.created_at >= (select stellwerk.window_start(interval '1 day'))
         group by r.tenant_id, r.workflow_id) x
  join stellwerk.workflow w on w.tenant_id = x.tenant_id and w.workflow_id = x.workflow_id;
comment on view stellwerk.workflow_statistics is 'Figures of each workflow over the runs asked for in the last day, or in the setting stellwerk.period. Reads the run rows of that time, found by their numbers.';
comment on column stellwerk.workflow_statistics.workflow is 'Slug of the workflow.';
comment on column stellwerk.workflow_statistics.since is 'The beginning of the window.';
comment on column stellwerk.workflow_statistics.runs is 'How many runs were asked for since then; the following columns count these by their state now.';
comment on column stellwerk.workflow_statistics.pending is 'Not begun yet.';
comment on column stellwerk.workflow_statistics.running is 'Running.';
comment on column stellwerk.workflow_statistics.waiting is 'Waiting.';
comment on column stellwerk.workflow_statistics.paused is 'Paused.';
comment on column stellwerk.workflow_statistics.completed is 'Completed.';
comment on column stellwerk.workflow_statistics.failed is 'Failed.';
comment on column stellwerk.workflow_statistics.cancelled is 'Cancelled.';
comment on column stellwerk.workflow_statistics.success_share is 'completed / (completed + failed); null while neither happened.';
comment on column stellwerk.workflow_statistics.p50_seconds is 'Half of the completed runs took no longer, from their first step to their end.';
comment on column stellwerk.workflow_statistics.p95_seconds is '95 of 100 completed runs took no longer.';
comment on column stellwerk.workflow_statistics.p99_seconds is '99 of 100 completed runs took no longer.';
comment on column stellwerk.workflow_statistics.p95_start_seconds is '95 of 100 runs waited no longer for their first step.';
comment on column stellwerk.workflow_statistics.last_started_at is 'When the last of them began.';

create or replace view stellwerk.node_statistics with (security_barrier) as
select w.slug as workflow, x.version, x.node_id, x.type, x.visits, x.live, x.completed, x.failed, x.skipped, x.cancelled, x.attempts, x.failures,
       x.seconds[1] as p50_seconds, x.seconds[2] as p95_seconds, x.seconds[3] as p99_seconds, x.queue_seconds as p95_queue_seconds
  from (select r.workflow_id, s.version, s.node_id, s.type, count(*) as visits,
               count(*) filter (where s.state in ('queued', 'running', 'waiting', 'joining')) as live,
               count(*) filter (where s.state = 'completed') as completed, count(*) filter (where s.state = 'failed') as failed,
               count(*) filter (where s.state = 'skipped') as skipped, count(*) filter (where s.state = 'cancelled') as cancelled,
               sum(s.attempt) as attempts, sum(s.failures) as failures,
               percentile_cont(array[0.5, 0.95, 0.99])
                 within group (order by extract(epoch from s.ended_at - case s.runs_in when 'worker' then s.started_at else s.queued_at end))
                 filter (where s.state = 'completed') as seconds,
               percentile_cont(0.95) within group (order by extract(epoch from s.started_at - s.queued_at))
                 filter (where s.runs_in = 'worker' and s.attempt = 1) as queue_seconds
          from stellwerk.step s
          join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
         where s.tenant_id = (select stellwerk.current_tenant_id())
           and s.run_id >= (select stellwerk.first_run_since(stellwerk.current_tenant_id(), stellwerk.window_start(interval '1 day')))
           and s.run_id <= (select 9223372036854775807)
           and r.tenant_id = (select stellwerk.current_tenant_id())
           and r.run_id >= (select stellwerk.first_run_since(stellwerk.current_tenant_id(), stellwerk.window_start(interval '1 day')))
           and r.run_id <= (select 9223372036854775807)
           and r.created_at >= (select stellwerk.window_start(interval '1 day'))
         group by r.workflow_id, s.version, s.node_id, s.type) x
  join stellwerk.workflow w on w.tenant_id = (select stellwerk.current_tenant_id()) and w.workflow_id = x.workflow_id;
comment on view stellwerk.node_statistics is 'Figures of each node and version over the runs asked for in the last day, or in the setting stellwerk.period. Reads the steps of those runs: with millions of them choose a shorter window.';
comment on column stellwerk.node_statistics.workflow is 'Slug of the workflow.';
comment on column stellwerk.node_statistics.version is 'The version that the steps ran under.';
comment on column stellwerk.node_statistics.node_id is 'The node.';
comment on column stellwerk.node_statistics.type is 'Its type.';
comment on column stellwerk.node_statistics.visits is 'How many steps there were on it.';
comment on column stellwerk.node_statistics.live is 'How many have not ended.';
comment on column stellwerk.node_statistics.completed is 'How many were completed.';
comment on column stellwerk.node_statistics.failed is 'How many failed for good.';
comment on column stellwerk.node_statistics.skipped is 'How many were skipped.';
comment on column stellwerk.node_statistics.cancelled is 'How many were cancelled.';
comment on column stellwerk.node_statistics.attempts is 'How many attempts they took together.';
comment on column stellwerk.node_statistics.failures is 'How many of these ended in an error.';
comment on column stellwerk.node_statistics.p50_seconds is 'Half of the completed steps took no longer: in a worker the last attempt, elsewhere from the token''s arrival.';
comment on column stellwerk.node_statistics.p95_seconds is '95 of 100 completed steps took no longer.';
comment on column stellwerk.node_statistics.p99_seconds is '99 of 100 completed steps took no longer.';
comment on column stellwerk.node_statistics.p95_queue_seconds is '95 of 100 steps waited no longer for a worker, of those whose first attempt was their last.';

create or replace view stellwerk.bulk_progress with (security_barrier) as
select o.operation_id, o.action, o.filter, o.state, o.reason, o.total, x.handled, o.done, o.skipped, o.failed, round(x.handled::numeric / nullif(o.total, 0), 4) as share,
       o.rate, round((x.handled / nullif(x.seconds, 0))::numeric, 2) as per_second,
       case when o.state = 'running' and x.handled > 0 then now() + make_interval(secs => x.seconds * (o.total - x.handled) / x.handled) end as expected_end_at,
       o.created_at, o.created_by, o.started_at, o.worked_at, o.ended_at
  from stellwerk.bulk_operation o
 cross join lateral (
   select o.done + o.skipped + o.failed as handled,
          extract(epoch from coalesce(o.ended_at, o.worked_at) - o.started_at)::double precision as seconds) x
 where o.tenant_id = (select stellwerk.current_tenant_id());
comment on view stellwerk.bulk_progress is 'How far each bulk operation has come. Reads one row for each.';
comment on column stellwerk.bulk_progress.operation_id is 'The bulk operation.';
comment on column stellwerk.bulk_progress.action is 'cancel, pause, resume, retry, skip or migrate.';
comment on column stellwerk.bulk_progress.filter is 'Which runs.';
comment on column stellwerk.bulk_progress.state is 'draft, running, paused, completed, stopped or cancelled.';
comment on column stellwerk.bulk_progress.reason is 'Why it was stopped or cancelled.';
comment on column stellwerk.bulk_progress.total is 'How many runs fitted the filter when they were counted.';
comment on column stellwerk.bulk_progress.handled is 'How many of them had their turn.';
comment on column stellwerk.bulk_progress.done is 'To how many it was done.';
comment on column stellwerk.bulk_progress.skipped is 'How many were in no state for it any more.';
comment on column stellwerk.bulk_progress.failed is 'At how many it raised.';
comment on column stellwerk.bulk_progress.share is 'handled / total.';
comment on column stellwerk.bulk_progress.rate is 'At most so many runs per second.';
comment on column stellwerk.bulk_progress.per_second is 'How many it was on average since the beginning, pauses included.';
comment on column stellwerk.bulk_progress.expected_end_at is 'When it will be done if it goes on like that.';
comment on column stellwerk.bulk_progress.created_at is 'When it was ordered.';
comment on column stellwerk.bulk_progress.created_by is 'Who ordered it.';
comment on column stellwerk.bulk_progress.started_at is 'When work began.';
comment on column stellwerk.bulk_progress.worked_at is 'When the last portion was done.';
comment on column stellwerk.bulk_progress.ended_at is 'When it ended.';
