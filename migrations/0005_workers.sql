-- Who carries out worker steps. Belongs to this database node, not to a tenant; may be lost without harm.
create table stellwerk.worker (
  worker_id   bigint      not null generated always as identity,
  name        text        not null,
  host        text        not null,
  pid         integer     not null,
  types       text[]      not null,
  started_at  timestamptz not null default clock_timestamp(),

  primary key (worker_id)
);

comment on table stellwerk.worker is 'Worker processes that have registered; whether one is there is read from the advisory lock it holds, so that idling writes nothing.';
comment on column stellwerk.worker.worker_id is 'Opaque number; the key of its advisory lock.';
comment on column stellwerk.worker.name is 'Name in logs and pages.';
comment on column stellwerk.worker.host is 'The machine it runs on, as it says.';
comment on column stellwerk.worker.pid is 'Its process number there.';
comment on column stellwerk.worker.types is 'The node types it carries out.';
comment on column stellwerk.worker.started_at is 'When it registered.';
