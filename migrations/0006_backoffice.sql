-- What staff see of a run: its case; and what workflows leave behind for people: notifications and log lines.

create table stellwerk.backoffice_case (
  tenant_id   bigint      not null references stellwerk.tenant,
  case_id     bigint      not null generated always as identity,
  run_id      bigint      not null,
  workflow    text        not null,
  payload     jsonb       not null default '{}',
  summary     text,
  status      text,
  note        text,
  created_at  timestamptz not null default clock_timestamp(),
  updated_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, case_id),
  constraint backoffice_case_one_per_run unique (tenant_id, run_id)
);

create index backoffice_case_by_status on stellwerk.backoffice_case (tenant_id, status, case_id);

comment on table stellwerk.backoffice_case is 'What the backoffice sees of a run: the data that it handed over, a status, a note.';
comment on column stellwerk.backoffice_case.tenant_id is 'The tenant that the case belongs to.';
comment on column stellwerk.backoffice_case.case_id is 'Opaque number.';
comment on column stellwerk.backoffice_case.run_id is 'The run that made it; one case per run.';
comment on column stellwerk.backoffice_case.workflow is 'Slug of the run''s workflow.';
comment on column stellwerk.backoffice_case.payload is 'The data handed over, by field name.';
comment on column stellwerk.backoffice_case.summary is 'One line for people.';
comment on column stellwerk.backoffice_case.status is 'Such as vollständig or nachreichen; the workflow decides which there are.';
comment on column stellwerk.backoffice_case.note is 'Free text for people.';
comment on column stellwerk.backoffice_case.created_at is 'When the case was made.';
comment on column stellwerk.backoffice_case.updated_at is 'When it last changed.';

create table stellwerk.case_history (
  tenant_id   bigint      not null,
  history_id  bigint      not null generated always as identity,
  case_id     bigint      not null,
  status      text,
  note        text,
  actor       text        not null,
  run_id      bigint,
  step_id     bigint,
  changed_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, history_id),
  foreign key (tenant_id, case_id) references stellwerk.backoffice_case on delete cascade
);

create index case_history_of_case on stellwerk.case_history (tenant_id, case_id, history_id);

comment on table stellwerk.case_history is 'Each status and note that a case has had, and who set it.';
comment on column stellwerk.case_history.tenant_id is 'The tenant that the case belongs to.';
comment on column stellwerk.case_history.history_id is 'Opaque number that follows time within a case.';
comment on column stellwerk.case_history.case_id is 'The case.';
comment on column stellwerk.case_history.status is 'The status from then on.';
comment on column stellwerk.case_history.note is 'The note from then on.';
comment on column stellwerk.case_history.actor is 'Who set it: run:<id> for a workflow, else an application user or db:<role>.';
comment on column stellwerk.case_history.run_id is 'The run that set it, if a workflow did.';
comment on column stellwerk.case_history.step_id is 'That run''s step.';
comment on column stellwerk.case_history.changed_at is 'When.';

-- A CSV file for a drop folder is written by a worker after the commit; this row is the order for it.
create table stellwerk.case_export (
  tenant_id   bigint      not null,
  export_id   bigint      not null generated always as identity,
  case_id     bigint      not null,
  step_id     bigint      not null,
  folder      text        not null,
  state       text        not null default 'queued',
  attempts    integer     not null default 0,
  error       text,
  job_id      bigint,
  created_at  timestamptz not null default clock_timestamp(),
  ended_at    timestamptz,

  primary key (tenant_id, export_id),
  foreign key (tenant_id, case_id) references stellwerk.backoffice_case on delete cascade,
  constraint case_export_state_known check (state in ('queued', 'written', 'failed'))
);

create index case_export_queued on stellwerk.case_export (tenant_id, created_at) where state = 'queued';

comment on table stellwerk.case_export is 'Orders to write a case as a CSV file into a folder, carried out by a worker.';
comment on column stellwerk.case_export.tenant_id is 'The tenant that the case belongs to.';
comment on column stellwerk.case_export.export_id is 'Opaque number; part of the file''s name, so a repetition overwrites the same file.';
comment on column stellwerk.case_export.case_id is 'The case.';
comment on column stellwerk.case_export.step_id is 'The step that asked for it.';
comment on column stellwerk.case_export.folder is 'The folder on the worker''s machine.';
comment on column stellwerk.case_export.state is 'queued, written or failed.';
comment on column stellwerk.case_export.attempts is 'How often writing was tried.';
comment on column stellwerk.case_export.error is 'Why the last try failed.';
comment on column stellwerk.case_export.job_id is 'Its row in the queue.';
comment on column stellwerk.case_export.created_at is 'When it was ordered.';
comment on column stellwerk.case_export.ended_at is 'When it was written or given up.';

create table stellwerk.notification (
  tenant_id        bigint      not null references stellwerk.tenant,
  notification_id  bigint      not null generated always as identity,
  recipient        text        not null,
  title            text        not null,
  body             text,
  link             text,
  run_id           bigint,
  step_id          bigint,
  created_at       timestamptz not null default clock_timestamp(),
  read_at          timestamptz,

  primary key (tenant_id, notification_id)
);

create index notification_unread on stellwerk.notification (tenant_id, recipient, notification_id) where read_at is null;

comment on table stellwerk.notification is 'In-app notifications for a user or a role.';
comment on column stellwerk.notification.tenant_id is 'The tenant.';
comment on column stellwerk.notification.notification_id is 'Opaque number.';
comment on column stellwerk.notification.recipient is 'A user''s e-mail address, or role:<name>.';
comment on column stellwerk.notification.title is 'One line.';
comment on column stellwerk.notification.body is 'More, plain text.';
comment on column stellwerk.notification.link is 'Path or address to open.';
comment on column stellwerk.notification.run_id is 'The run that made it.';
comment on column stellwerk.notification.step_id is 'That run''s step.';
comment on column stellwerk.notification.created_at is 'When it was made.';
comment on column stellwerk.notification.read_at is 'When it was read; null until then.';

create table stellwerk.run_log (
  tenant_id  bigint      not null,
  log_id     bigint      not null generated always as identity,
  run_id     bigint      not null,
  step_id    bigint      not null,
  node_id    text        not null,
  level      text        not null,
  message    text        not null,
  data       jsonb,
  logged_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, run_id, log_id),
  constraint run_log_level_known check (level in ('info', 'error'))
);

create index run_log_errors on stellwerk.run_log (tenant_id, log_id) where level = 'error';

comment on table stellwerk.run_log is 'What log.write and log.error nodes wrote.';
comment on column stellwerk.run_log.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.run_log.log_id is 'Opaque number that follows time within a run.';
comment on column stellwerk.run_log.run_id is 'The run.';
comment on column stellwerk.run_log.step_id is 'The step.';
comment on column stellwerk.run_log.node_id is 'The node.';
comment on column stellwerk.run_log.level is 'info (log.write) or error (log.error).';
comment on column stellwerk.run_log.message is 'The text.';
comment on column stellwerk.run_log.data is 'More, as JSON.';
comment on column stellwerk.run_log.logged_at is 'When.';
