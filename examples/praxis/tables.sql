-- The tables of a clinic's own application. Nothing here knows Stellwerk.
-- May be loaded again: what is there already stays as it is.

create schema if not exists praxis;
comment on schema praxis is 'A clinic: what its website and its front desk write down.';

create table if not exists praxis.contact_request (
  contact_request_id  bigint      primary key generated always as identity,
  name                text        not null,
  email               text        not null,
  phone               text,
  message             text        not null default '',
  wishes              text,
  consent             boolean     not null default false,
  created_at          timestamptz not null default now()
);
comment on table praxis.contact_request is 'One row per contact form that was sent.';
comment on column praxis.contact_request.wishes is 'When it would suit the patient, in their own words.';
comment on column praxis.contact_request.consent is 'Whether the patient ticked the box that allows the clinic to call back and keep the data.';

create table if not exists praxis.patient_document (
  patient_document_id  bigint      primary key generated always as identity,
  patient_email        text        not null,
  kind                 text        not null,
  received_at          timestamptz not null default now(),

  constraint patient_document_kind_known check (kind in ('versicherungskarte', 'ueberweisung', 'einwilligung')),
  constraint patient_document_once unique (patient_email, kind)
);
comment on table praxis.patient_document is 'Documents that the clinic has: insurance card, referral, form of consent.';

create table if not exists praxis.appointment (
  appointment_id  bigint      primary key generated always as identity,
  patient_email   text        not null,
  starts_at       timestamptz not null,
  status          text        not null default 'geplant',

  constraint appointment_status_known check (status in ('geplant', 'bestätigt')),
  constraint appointment_once unique (patient_email, starts_at)
);
comment on table praxis.appointment is 'The diary. An appointment that is cancelled is taken out.';
