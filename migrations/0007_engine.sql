-- The rest of the engine's state: loops and their iterations, waits, signals, and what reaches a run from outside.
-- Migrations run in one transaction, so no index is made concurrently: the three here cover only what is being undone, resumed or called.
-- What is dropped is replaced: a check that knows more kinds, and functions whose parameters change and that sql/ makes anew at once.
-- squawk-ignore-file require-concurrent-index-creation, constraint-missing-not-valid, ban-drop-constraint, ban-drop-function

-- What a run and a step remember for endings, retries and migrations.
alter table stellwerk.run add column ending text;
alter table stellwerk.run add column recount boolean not null default false;
alter table stellwerk.run add column aliases jsonb;
alter table stellwerk.run add column paused_at timestamptz;
alter table stellwerk.run add column paused_by text;
comment on column stellwerk.run.ending is 'failed or cancelled while completed steps are being compensated; the state is running meanwhile.';
comment on column stellwerk.run.recount is 'True once the run was sent back to an earlier node or migrated: visits of every node are then counted, not only those on cycles.';
comment on column stellwerk.run.aliases is '{ node: earlier name } after a migration that renamed nodes; earlier outputs are found under the new names.';
comment on column stellwerk.run.paused_at is 'When it was paused.';
comment on column stellwerk.run.paused_by is 'Who paused it.';

-- What children and parents need to find each other.
create index run_of_parent on stellwerk.run (tenant_id, parent_run_id) where parent_run_id is not null;

alter table stellwerk.step add column undo text;
alter table stellwerk.step add column undoes bigint;
alter table stellwerk.step add column was text;
comment on column stellwerk.step.undo is 'The node that compensates this completed step, until it has done so.';
comment on column stellwerk.step.undoes is 'The step that this one compensates.';
comment on column stellwerk.step.was is 'The state it had when its run ended under it; retry_run begins from there.';

-- What is left to compensate, the latest first.
create index step_undo on stellwerk.step (tenant_id, run_id, ended_at, step_id) where undo is not null;

create sequence stellwerk.scope_id_seq cache 1;
comment on sequence stellwerk.scope_id_seq is 'Numbers of loop iterations; 0 is the outermost scope of every run.';

create table stellwerk.loop (
  tenant_id        bigint  not null,
  run_id           bigint  not null,
  step_id          bigint  not null,
  parent_scope_id  bigint  not null,
  item_count       integer not null,
  parallel         integer not null,
  on_item_error    text    not null,
  started          integer not null default 0,
  ended            integer not null default 0
) partition by range (run_id);
create table stellwerk.loop_default partition of stellwerk.loop default
  with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
alter table stellwerk.loop add primary key (tenant_id, run_id, step_id);

comment on table stellwerk.loop is 'How far a logic.loop step has come; one row while and after it runs.';
comment on table stellwerk.loop_default is 'All loops until partitions by range are made.';
comment on column stellwerk.loop.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.loop.run_id is 'The run.';
comment on column stellwerk.loop.step_id is 'The step of the loop node.';
comment on column stellwerk.loop.parent_scope_id is 'The scope that the loop itself stands in; 0 is the outermost.';
comment on column stellwerk.loop.item_count is 'How many items it goes through.';
comment on column stellwerk.loop.parallel is 'How many iterations may run at once.';
comment on column stellwerk.loop.on_item_error is 'fail, skip or collect: what a failed iteration does.';
comment on column stellwerk.loop.started is 'How many iterations have begun; they begin in the order of the items.';
comment on column stellwerk.loop.ended is 'How many iterations have ended.';

create table stellwerk.scope (
  tenant_id        bigint  not null,
  run_id           bigint  not null,
  scope_id         bigint  not null default nextval('stellwerk.scope_id_seq'),
  parent_scope_id  bigint  not null,
  loop_step_id     bigint  not null,
  position         integer not null,
  item             jsonb,
  state            text    not null default 'pending',
  output           jsonb,
  error            jsonb
) partition by range (run_id);
create table stellwerk.scope_default partition of stellwerk.scope default
  with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
-- Whose iterations must end when an iteration around them ends.
create index scope_running on stellwerk.scope (tenant_id, run_id, parent_scope_id) where state = 'running';
create unique index scope_position on stellwerk.scope (tenant_id, run_id, loop_step_id, position);
alter table stellwerk.scope add primary key (tenant_id, run_id, scope_id);

comment on table stellwerk.scope is 'One iteration of a loop: its item and what it came to.';
comment on table stellwerk.scope_default is 'All iterations until partitions by range are made.';
comment on column stellwerk.scope.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.scope.run_id is 'The run.';
comment on column stellwerk.scope.scope_id is 'Opaque number; stands in step.scope_id.';
comment on column stellwerk.scope.parent_scope_id is 'The scope around it; 0 is the outermost.';
comment on column stellwerk.scope.loop_step_id is 'The step of its loop node.';
comment on column stellwerk.scope.position is 'Which item, from 0: index in expressions.';
comment on column stellwerk.scope.item is 'The item itself.';
comment on column stellwerk.scope.state is 'pending, running, completed, failed or cancelled.';
comment on column stellwerk.scope.output is 'What collect came to, by default the output of the step that ended last in it.';
comment on column stellwerk.scope.error is 'Why it failed.';

create table stellwerk.wait (
  tenant_id     bigint      not null,
  run_id        bigint      not null,
  step_id       bigint      not null,
  kind          text        not null,
  event         text,
  correlation   text,
  child_run_id  bigint,
  created_at    timestamptz not null default clock_timestamp(),

  primary key (tenant_id, run_id, step_id)
);
create index wait_for_event on stellwerk.wait (tenant_id, event, correlation) where event is not null;

comment on table stellwerk.wait is 'What a waiting step waits for, beside timers; the row is removed when the wait ends.';
comment on column stellwerk.wait.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.wait.run_id is 'The run.';
comment on column stellwerk.wait.step_id is 'The step that waits.';
comment on column stellwerk.wait.kind is 'event (a signal), child (a child run), or what a later kind of step waits for.';
comment on column stellwerk.wait.event is 'Name of the signal.';
comment on column stellwerk.wait.correlation is 'The key that the signal must carry.';
comment on column stellwerk.wait.child_run_id is 'The child run.';
comment on column stellwerk.wait.created_at is 'Since when it waits.';

create table stellwerk.signal (
  tenant_id    bigint      not null,
  signal_id    bigint      not null generated always as identity,
  event        text        not null,
  correlation  text        not null,
  payload      jsonb       not null default '{}',
  dedupe_key   text,
  woken        integer     not null default 0,
  kept         boolean     not null,
  created_at   timestamptz not null default clock_timestamp(),
  created_by   text        not null,
  taken_by     bigint,

  primary key (tenant_id, signal_id)
);
create index signal_kept on stellwerk.signal (tenant_id, event, correlation, signal_id) where kept;
create unique index signal_once on stellwerk.signal (tenant_id, event, dedupe_key) where dedupe_key is not null;
create index signal_by_time on stellwerk.signal (tenant_id, created_at);

comment on table stellwerk.signal is 'Signals that arrived in the last 7 days. One that woke nobody is kept for one later wait.';
comment on column stellwerk.signal.tenant_id is 'The tenant.';
comment on column stellwerk.signal.signal_id is 'Opaque number that follows time.';
comment on column stellwerk.signal.event is 'Name of the event.';
comment on column stellwerk.signal.correlation is 'Its key.';
comment on column stellwerk.signal.payload is 'What it carries; becomes the output of the waiting step.';
comment on column stellwerk.signal.dedupe_key is 'The sender''s key: a second signal with it changes nothing.';
comment on column stellwerk.signal.woken is 'How many waiting steps it woke when it arrived.';
comment on column stellwerk.signal.kept is 'True while it woke nobody and no later wait has taken it.';
comment on column stellwerk.signal.created_at is 'When it arrived.';
comment on column stellwerk.signal.created_by is 'Who sent it.';
comment on column stellwerk.signal.taken_by is 'The later step that took it.';

create table stellwerk.run_message (
  tenant_id   bigint      not null,
  message_id  bigint      not null generated always as identity,
  run_id      bigint      not null,
  step_id     bigint,
  kind        text        not null,
  data        jsonb       not null default '{}',
  held        boolean     not null default false,
  created_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, message_id)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index run_message_next on stellwerk.run_message (tenant_id, message_id) where not held;
create index run_message_of_run on stellwerk.run_message (tenant_id, run_id, step_id);

comment on table stellwerk.run_message is 'What something outside a run asks of it: verbs and other runs only write rows here, pump applies them in order and removes them.';
comment on column stellwerk.run_message.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.run_message.message_id is 'Opaque number; messages of a run are applied in this order.';
comment on column stellwerk.run_message.run_id is 'The run that it is for.';
comment on column stellwerk.run_message.step_id is 'The waiting step that it is for, if any.';
comment on column stellwerk.run_message.kind is 'complete or fail (end a waiting step: data { port, output, error }), cancel, pause, resume (the run: data { reason }).';
comment on column stellwerk.run_message.data is 'What it carries.';
comment on column stellwerk.run_message.held is 'True while its run is paused.';
comment on column stellwerk.run_message.created_at is 'When it was written.';

alter table stellwerk.timer add column remaining interval;
comment on column stellwerk.timer.remaining is 'While the run is paused: how long the timer still had; due_at is stellwerk.never() then.';
alter table stellwerk.timer drop constraint timer_kind_known;
alter table stellwerk.timer add constraint timer_kind_known
  check (kind in ('start', 'retry', 'run_timeout', 'wait', 'wait_timeout', 'reminder', 'escalation'));
comment on column stellwerk.timer.kind is 'start (a run''s start_at), retry (a SQL step''s next attempt), run_timeout (the workflow''s timeout), wait (a waiting step goes on), wait_timeout (it leaves by timeout), reminder, escalation.';
comment on column stellwerk.timer.step_id is 'The step, for all but start and run_timeout.';

alter type stellwerk.token add attribute recount boolean, add attribute ending boolean;
alter type stellwerk.move add attribute recount boolean, add attribute ending boolean, add attribute undo text;
comment on column stellwerk.token.recount is 'As run.recount.';
comment on column stellwerk.token.ending is 'True while the run is being compensated: tokens are not sent on.';
comment on column stellwerk.move.recount is 'As run.recount.';
comment on column stellwerk.move.ending is 'True while the run is being compensated: tokens are not sent on.';
comment on column stellwerk.move.undo is 'The node''s compensate.';

-- What lies behind a cycle is visited as often as the cycle is gone round: versions that were compiled before said so of the cycle only.
-- The trigger that keeps published plans as they are is set anew when sql/ is loaded, in the same transaction.
drop trigger if exists plan_node_frozen on stellwerk.plan_node;
with recursive behind (tenant_id, workflow_id, version, node_id) as (
  select n.tenant_id, n.workflow_id, n.version, n.node_id from stellwerk.plan_node n where n.cyclic
  union
  select n.tenant_id, n.workflow_id, n.version, e.target
    from behind b
    join stellwerk.plan_node n using (tenant_id, workflow_id, version, node_id)
   cross join lateral jsonb_each(n.edges) p (port, targets)
   cross join lateral jsonb_array_elements_text(p.targets) e (target))
update stellwerk.plan_node n set cyclic = true
  from behind b
 where (n.tenant_id, n.workflow_id, n.version, n.node_id) = (b.tenant_id, b.workflow_id, b.version, b.node_id) and not n.cyclic;
comment on column stellwerk.plan_node.cyclic is 'True when the node lies on or behind a cycle and can be visited more than once in a scope.';

-- Where retry_run begins.
create index step_was on stellwerk.step (tenant_id, run_id) where was is not null;

-- Functions whose parameters or results change.
drop function if exists stellwerk.release(bigint, stellwerk.token[], stellwerk.token[]);
drop function if exists stellwerk.ended_moves(bigint, bigint[], bigint[], text[], jsonb[], jsonb[], integer[], bigint);
drop function if exists stellwerk.finish_runs(bigint, stellwerk.move[]);
drop function if exists stellwerk.without_runs(stellwerk.token[], bigint[]);
