-- What monitoring asks for: totals that only grow, and the trace that a run belongs to.
-- Functions that answer or take more are dropped and made anew by sql/; the column is read by functions and views of ours only.
-- squawk-ignore-file ban-drop-function, renaming-column

create table stellwerk.run_total (
  tenant_id    bigint not null references stellwerk.tenant,
  workflow_id  bigint not null,
  completed    bigint not null default 0,
  failed       bigint not null default 0,
  cancelled    bigint not null default 0,
  durations    jsonb  not null default '{}',
  told         jsonb  not null default '{}',

  primary key (tenant_id, workflow_id)
);

comment on table stellwerk.run_total is 'How many runs of a workflow have ended since it was made, in hours that are over: what run_hour has come to, also of hours that were dropped since.';
comment on column stellwerk.run_total.tenant_id is 'The tenant.';
comment on column stellwerk.run_total.workflow_id is 'The workflow.';
comment on column stellwerk.run_total.completed is 'How many have completed.';
comment on column stellwerk.run_total.failed is 'How many have failed.';
comment on column stellwerk.run_total.cancelled is 'How many were cancelled.';
comment on column stellwerk.run_total.durations is 'How long the completed ones took: counts by stellwerk.duration_bucket.';
comment on column stellwerk.run_total.told is 'The highest totals by state that monitoring was told, the present hour included: it is never told less, also when a failed run is tried again.';

insert into stellwerk.run_total (tenant_id, workflow_id, completed, failed, cancelled, durations)
select h.tenant_id, h.workflow_id, sum(h.completed), sum(h.failed), sum(h.cancelled),
       coalesce((select jsonb_object_agg(b.bucket, b.count)
                   from (select e.key as bucket, sum(e.value::bigint) as count
                           from stellwerk.run_hour x cross join lateral jsonb_each_text(x.durations) e
                          where x.tenant_id = h.tenant_id and x.workflow_id = h.workflow_id group by 1) b), '{}')
  from stellwerk.run_hour h
 group by h.tenant_id, h.workflow_id;

-- The trace of the transaction that changed the row, asked for a run or delivered something. A default, as the login is: what captures a
-- row need not name it.
alter table stellwerk.event add column traceparent text;
alter table stellwerk.event alter column traceparent set default nullif(left(current_setting('stellwerk.traceparent', true), 55), '');
alter table stellwerk.event_batch add column traceparent text;
alter table stellwerk.event_batch alter column traceparent set default nullif(left(current_setting('stellwerk.traceparent', true), 55), '');
alter table stellwerk.webhook_delivery add column traceparent text;
alter table stellwerk.webhook_delivery alter column traceparent set default nullif(left(current_setting('stellwerk.traceparent', true), 55), '');
alter table stellwerk.run add column traceparent text;
alter type stellwerk.run_order add attribute traceparent text;
comment on column stellwerk.event.traceparent is 'The trace (W3C traceparent) that the transaction named in the setting stellwerk.traceparent.';
comment on column stellwerk.event_batch.traceparent is 'As in event.';
comment on column stellwerk.webhook_delivery.traceparent is 'The trace that the request named in its header traceparent, or the transaction that emitted the event.';
comment on column stellwerk.run.traceparent is 'The trace that it belongs to: of the transaction or request that asked for it, else of the run that called or caused it. Null where none of them named one that is well formed.';

-- Answers a column more.
drop function if exists stellwerk.begin_steps(bigint, bigint, bigint[], bigint[]);

-- What each person has filled in: two who have the same task open do not write over each other.
update stellwerk.user_task set draft = jsonb_build_object(coalesce(claimed_by, assignee, ''), draft) where draft is not null;
alter table stellwerk.user_task rename column draft to drafts;
comment on column stellwerk.user_task.drafts is 'What people have filled in so far, kept for later: an object by the name of the person.';

-- These take an argument more.
drop function if exists stellwerk.search_cases(text, text[], text, text, bigint, integer);
drop function if exists stellwerk.export_cases(text, text[], text, text);
