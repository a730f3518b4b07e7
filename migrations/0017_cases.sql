-- Cases grow up: who is in charge, how often they changed, what exactly changed, appointments, and what a search looks at.

-- squawk-ignore-file require-concurrent-index-creation, constraint-missing-not-valid

alter table stellwerk.backoffice_case
  add column version  integer  not null default 1,
  add column assignee text,
  add column search   tsvector;

comment on column stellwerk.backoffice_case.version is 'Counts changes: who edits says which version they saw, and is told (SW005) when it is no longer that one.';
comment on column stellwerk.backoffice_case.assignee is 'Who takes care of it: a user''s e-mail address, or role:<name>.';
comment on column stellwerk.backoffice_case.search is 'The words that search_cases finds it by: summary, note, and the texts and numbers of the payload.';

update stellwerk.backoffice_case
   set search = to_tsvector('simple'::regconfig, concat_ws(' ', left(summary, 10000), left(note, 100000))) || jsonb_to_tsvector('simple'::regconfig, payload, '["string", "numeric"]')
 where octet_length(payload::text) < 200000;

create index backoffice_case_by_words on stellwerk.backoffice_case using gin (search);
create index backoffice_case_by_workflow on stellwerk.backoffice_case (tenant_id, workflow, case_id);
create index backoffice_case_by_assignee on stellwerk.backoffice_case (tenant_id, assignee, case_id) where assignee is not null;

alter table stellwerk.case_history
  add column kind    text    not null default 'change',
  add column changes jsonb   not null default '{}',
  add column remark  text,
  add column version integer,
  add constraint case_history_kind_known check (kind in ('change', 'note', 'appointment')) not valid;
alter table stellwerk.case_history validate constraint case_history_kind_known;

comment on table stellwerk.case_history is 'Everything that happened to a case: each change of status, note, data, person in charge and appointments, and what staff wrote; who, when, and by which step.';
comment on column stellwerk.case_history.kind is 'change, note (staff wrote something) or appointment.';
comment on column stellwerk.case_history.changes is 'What changed: { name: { from, to } }; fields of the payload as payload.<name>, an appointment''s as appointment.<name>.';
comment on column stellwerk.case_history.remark is 'What staff wrote: a note of their own, or the reason of a change.';
comment on column stellwerk.case_history.version is 'The case''s version from then on.';

-- A row that timers can follow. A cancelled appointment is no row any more: whoever waits for it leaves by the port gone, and the history keeps it.
create table stellwerk.case_appointment (
  tenant_id       bigint      not null,
  appointment_id  bigint      not null generated always as identity,
  case_id         bigint      not null,
  key             text,
  title           text        not null,
  starts_at       timestamptz not null,
  ends_at         timestamptz,
  location        text,
  version         integer     not null default 1,
  created_at      timestamptz not null default clock_timestamp(),
  created_by      text        not null,
  updated_at      timestamptz not null default clock_timestamp(),

  primary key (tenant_id, appointment_id),
  foreign key (tenant_id, case_id) references stellwerk.backoffice_case on delete cascade,
  constraint case_appointment_one_per_key unique (tenant_id, case_id, key),
  constraint case_appointment_ends_after_it_starts check (ends_at >= starts_at),
  constraint case_appointment_of_sane_length check (length(title) between 1 and 500 and length(location) <= 500 and length(key) <= 200)
);

create index case_appointment_by_time on stellwerk.case_appointment (tenant_id, starts_at);

comment on table stellwerk.case_appointment is 'Appointments of cases, made by workflows or staff. Register it, and waits can follow starts_at.';
comment on column stellwerk.case_appointment.tenant_id is 'The tenant.';
comment on column stellwerk.case_appointment.appointment_id is 'Opaque number.';
comment on column stellwerk.case_appointment.case_id is 'The case.';
comment on column stellwerk.case_appointment.key is 'A workflow''s own name for it, so that the same step moves it instead of making a second one; null for those of staff.';
comment on column stellwerk.case_appointment.title is 'One line.';
comment on column stellwerk.case_appointment.starts_at is 'When it begins.';
comment on column stellwerk.case_appointment.ends_at is 'When it ends, if that is known.';
comment on column stellwerk.case_appointment.location is 'Where, in words.';
comment on column stellwerk.case_appointment.version is 'Counts changes, as a case''s version does.';
comment on column stellwerk.case_appointment.created_at is 'When it was made.';
comment on column stellwerk.case_appointment.created_by is 'Who made it: run:<id> for a workflow, else an application user or db:<role>.';
comment on column stellwerk.case_appointment.updated_at is 'When it last changed.';

-- What changed in a case is told by comparing it with what it was.
-- squawk-ignore ban-drop-function
drop function if exists stellwerk.note_case_change(stellwerk.backoffice_case, stellwerk.token);
