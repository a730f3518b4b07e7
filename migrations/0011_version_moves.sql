-- Moving live runs to another version of their workflow, and back.
-- Migrations run in one transaction, so no index is made concurrently: this one covers only runs that are paused or held.
-- squawk-ignore-file require-concurrent-index-creation

create table stellwerk.version_move (
  tenant_id     bigint      not null,
  migration_id  bigint      not null generated always as identity,
  workflow_id   bigint      not null,
  from_version  integer     not null,
  to_version    integer     not null,
  node_map      jsonb       not null default '{}',
  last_run_id   bigint      not null default 0,
  started_at    timestamptz not null default clock_timestamp(),
  started_by    text        not null,
  ended_at      timestamptz,
  undone_at     timestamptz,

  primary key (tenant_id, migration_id),
  constraint version_move_goes_elsewhere check (from_version <> to_version)
);
-- One that was broken off is continued when the same is asked for again.
create index version_move_open on stellwerk.version_move (tenant_id, workflow_id, migration_id) where ended_at is null;

comment on table stellwerk.version_move is 'A migration: the order to move the live runs of a workflow from one version to another, and how far it has come. stellwerk.migration_progress counts its verdicts.';
comment on column stellwerk.version_move.tenant_id is 'The tenant that the workflow belongs to.';
comment on column stellwerk.version_move.migration_id is 'Opaque number, one for all batches.';
comment on column stellwerk.version_move.workflow_id is 'The workflow.';
comment on column stellwerk.version_move.from_version is 'The version that its runs are on.';
comment on column stellwerk.version_move.to_version is 'The version that they are moved to.';
comment on column stellwerk.version_move.node_map is '{ old node: new node } as it was given; the rest was proposed.';
comment on column stellwerk.version_move.last_run_id is 'All runs up to this one have been judged; the next batch goes on behind it.';
comment on column stellwerk.version_move.started_at is 'When its first batch was moved.';
comment on column stellwerk.version_move.started_by is 'Who asked for it: an application user or db:<role>.';
comment on column stellwerk.version_move.ended_at is 'When the last run had been judged; null while batches are still to come.';
comment on column stellwerk.version_move.undone_at is 'When it was first undone, in part or as a whole; it is not continued after that.';

-- Enough of each run's state before the migration to put it back.
create table stellwerk.run_migration (
  tenant_id     bigint      not null,
  migration_id  bigint      not null,
  run_id        bigint      not null,
  from_version  integer     not null,
  to_version    integer     not null,
  verdict       text        not null,
  reason        text,
  mapping       jsonb       not null default '{}',
  trigger_node  text,
  aliases       jsonb,
  recount       boolean,
  steps         jsonb,
  undos         jsonb,
  judged_at     timestamptz not null default clock_timestamp(),
  judged_by     text        not null,
  undone_at     timestamptz,
  undone_by     text,

  primary key (tenant_id, migration_id, run_id),
  constraint run_migration_verdict_known check (verdict in ('ok', 'needs_map', 'blocked')),
  constraint run_migration_says_why_not check ((verdict = 'ok') = (reason is null)),
  constraint run_migration_can_be_undone check (verdict <> 'ok' or (trigger_node is not null and recount is not null and steps is not null and undos is not null)),
  constraint run_migration_undone_by_someone check ((undone_at is null) = (undone_by is null) and (undone_at is null or verdict = 'ok'))
);
-- Which versions a run has been on, and whether it was moved again since.
create index run_migration_of_run on stellwerk.run_migration (tenant_id, run_id, migration_id);

comment on table stellwerk.run_migration is 'What a migration said of a run; if it moved the run: by whom, when, and what must be known to move it back.';
comment on column stellwerk.run_migration.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.run_migration.migration_id is 'The migration: a row of version_move.';
comment on column stellwerk.run_migration.run_id is 'The run.';
comment on column stellwerk.run_migration.from_version is 'The version that it was on.';
comment on column stellwerk.run_migration.to_version is 'The version that it was moved to, or would have been.';
comment on column stellwerk.run_migration.verdict is 'ok (it was moved), needs_map or blocked (it was not).';
comment on column stellwerk.run_migration.reason is 'Why it was not moved.';
comment on column stellwerk.run_migration.mapping is '{ node: node }: where its live tokens stood, and the node of the new version for each; null where there is none.';
comment on column stellwerk.run_migration.trigger_node is 'run.trigger_node before.';
comment on column stellwerk.run_migration.aliases is 'run.aliases before.';
comment on column stellwerk.run_migration.recount is 'run.recount before.';
comment on column stellwerk.run_migration.steps is 'Array of { step, node, version, state, attempt, failures, arrived }: its live steps before.';
comment on column stellwerk.run_migration.undos is 'Array of { step, undo }: the compensating nodes of its completed steps before.';
comment on column stellwerk.run_migration.judged_at is 'When it was moved, or found that it cannot be.';
comment on column stellwerk.run_migration.judged_by is 'Who moved it: an application user or db:<role>.';
comment on column stellwerk.run_migration.undone_at is 'When it was moved back; null while it was not.';
comment on column stellwerk.run_migration.undone_by is 'Who moved it back.';

-- Live runs are found by their live steps and in run_pending; here are those that may have neither.
create index run_asleep on stellwerk.run (tenant_id, workflow_id, run_id) where state = 'paused' or (state = 'pending' and held);

create type stellwerk.run_verdict as (
  run_id   bigint,
  verdict  text,
  reason   text,
  mapping  jsonb,
  steps    jsonb,
  undos    jsonb,
  joining  boolean
);
comment on type stellwerk.run_verdict is 'Whether a run can be moved to another version (ok, needs_map, blocked), with what run_migration keeps; joining: it has a step in that state.';
