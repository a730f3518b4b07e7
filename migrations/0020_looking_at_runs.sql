-- What the pages of runs and events look things up by.
-- A partitioned table takes no index concurrently; the one here holds few rows.
-- squawk-ignore-file require-concurrent-index-creation

-- Few runs end so, and people ask for just these; no statement that looks a run up by its key names these states together.
create index run_ended_badly on stellwerk.run (tenant_id, state, run_id) where state in ('failed', 'cancelled');

create table stellwerk.run_text (
  tenant_id  bigint   not null,
  run_id     bigint   not null,
  words      tsvector not null,

  primary key (tenant_id, run_id)
) with (autovacuum_vacuum_insert_scale_factor = 0.05);
create index run_text_words on stellwerk.run_text using gin (words);

comment on table stellwerk.run_text is 'The words of runs'' payloads, for search_runs: written by tick some seconds after a run was asked for, so that starting one costs nothing more.';
comment on column stellwerk.run_text.tenant_id is 'The tenant.';
comment on column stellwerk.run_text.run_id is 'The run.';
comment on column stellwerk.run_text.words is 'The words of the payload''s top-level texts and numbers.';

create table stellwerk.run_text_progress (
  tenant_id    bigint not null references stellwerk.tenant,
  done_run_id  bigint not null default 0,
  seen_run_id  bigint not null default 0,
  seen_xid     xid8   not null default '0',

  primary key (tenant_id)
);

comment on table stellwerk.run_text_progress is 'How far the words of runs are written.';
comment on column stellwerk.run_text_progress.tenant_id is 'The tenant.';
comment on column stellwerk.run_text_progress.done_run_id is 'Runs up to this one are done.';
comment on column stellwerk.run_text_progress.seen_run_id is 'Runs up to this one come next: the newest there was at the last look.';
comment on column stellwerk.run_text_progress.seen_xid is 'The transaction of that look; once all before it have ended, no run before seen_run_id can still turn up.';
