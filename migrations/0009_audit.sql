-- Who changed what: definitions, watches, cases, rights, settings, and every act of steering.

create sequence stellwerk.audit_id_seq cache 1;
comment on sequence stellwerk.audit_id_seq is 'Numbers of rows of the audit log; gaps are normal.';

-- Partitioned like event, for the same reason: old years can be dropped whole.
create table stellwerk.audit_log (
  tenant_id      bigint      not null,
  audit_id       bigint      not null default nextval('stellwerk.audit_id_seq'),
  acted_at       timestamptz not null default clock_timestamp(),
  actor          text        not null,
  database_user  text        not null,
  action         text        not null,
  subject        text        not null,
  subject_id     text,
  before         jsonb,
  after          jsonb,

  primary key (tenant_id, audit_id)
) partition by range (audit_id);

create table stellwerk.audit_log_default partition of stellwerk.audit_log default;

-- The history of one thing.
create index audit_log_of_subject on stellwerk.audit_log (tenant_id, subject, subject_id, audit_id);

comment on table stellwerk.audit_log is 'Who did what, in order; rows are added and never changed. Only retention removes old ones, and forget_subject blanks a person''s data.';
comment on table stellwerk.audit_log_default is 'Rows that no partition by range takes.';
comment on column stellwerk.audit_log.tenant_id is 'The tenant that it concerns.';
comment on column stellwerk.audit_log.audit_id is 'Opaque number that follows time.';
comment on column stellwerk.audit_log.acted_at is 'When, by the database''s clock.';
comment on column stellwerk.audit_log.actor is 'Who: an application user, or db:<role> of a direct connection.';
comment on column stellwerk.audit_log.database_user is 'The login of the database connection, also where an application user acts through it.';
comment on column stellwerk.audit_log.action is 'insert, update, delete, publish, or the verb that was called: cancel_run, pause_run, …';
comment on column stellwerk.audit_log.subject is 'What kind of thing: the name of its table.';
comment on column stellwerk.audit_log.subject_id is 'Which one: its key, several columns joined by /.';
comment on column stellwerk.audit_log.before is 'The columns that changed, as they were; of a deleted row all. Secrets are masked, documents stand as their hash.';
comment on column stellwerk.audit_log.after is 'The columns that changed, as they are now; of a new row all.';
