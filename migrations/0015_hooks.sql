-- What comes in from outside: webhooks, forms, and events that the application emits itself.

create table stellwerk.webhook_source (
  tenant_id         bigint      not null references stellwerk.tenant,
  source            text        not null,
  kind              text        not null default 'webhook',
  scheme            text        not null,
  secrets           text[]      not null default '{}',
  signature_header  text,
  timestamp_header  text,
  key_at            text,
  event_at          text,
  correlation_at    text,
  signals           jsonb       not null default '{}',
  emits             jsonb       not null default '{}',
  enabled           boolean     not null default true,
  created_at        timestamptz not null default clock_timestamp(),
  created_by        text        not null,

  primary key (tenant_id, source),
  constraint webhook_source_shape check (source ~ '^[a-z][a-z0-9_-]{0,62}$'),
  constraint webhook_source_kind_known check (kind in ('webhook', 'email')),
  constraint webhook_source_scheme_known check (scheme in ('hmac', 'standard', 'slack', 'token')),
  constraint webhook_source_two_secrets check (cardinality(secrets) <= 2)
);

comment on table stellwerk.webhook_source is 'Who may deliver webhooks at /hooks/{tenant}/{source}, how a delivery proves that it is genuine, and what it tells.';
comment on column stellwerk.webhook_source.tenant_id is 'The tenant.';
comment on column stellwerk.webhook_source.source is 'Its name, the last part of the address.';
comment on column stellwerk.webhook_source.kind is 'webhook: starts trigger.webhook nodes; email: starts trigger.email_inbound nodes.';
comment on column stellwerk.webhook_source.scheme is 'hmac: HMAC-SHA256 with a timestamp; standard: Standard Webhooks, as Svix and Resend send them; slack; token: a fixed word in a header.';
comment on column stellwerk.webhook_source.secrets is 'Sealed with STELLWERK_SECRET_KEYS: the present secret and, while it is being changed, the former. Without one every delivery is refused.';
comment on column stellwerk.webhook_source.signature_header is 'hmac and token: the header of the signature or token, in lower case.';
comment on column stellwerk.webhook_source.timestamp_header is 'hmac: the header of the timestamp; null: both stand in the signature''s header as t=…,v1=….';
comment on column stellwerk.webhook_source.key_at is 'Where the sender''s number of the delivery stands: header:NAME or body:a.b; none: there is none; null: what was signed is the key.';
comment on column stellwerk.webhook_source.event_at is 'Where the name of the event stands: header:NAME, body:a.b, or value:NAME if it is always the same.';
comment on column stellwerk.webhook_source.correlation_at is 'Where the correlation of a signal stands, in the same way.';
comment on column stellwerk.webhook_source.signals is '{ event: signal }: which signal an event sends; * stands for any other event.';
comment on column stellwerk.webhook_source.emits is '{ event: name }: which internal event it emits for trigger.event; * stands for any other event.';
comment on column stellwerk.webhook_source.enabled is 'False: every delivery is refused, as if there were no such source.';
comment on column stellwerk.webhook_source.created_at is 'When it was set up.';
comment on column stellwerk.webhook_source.created_by is 'Who set it up.';

create table stellwerk.form (
  tenant_id    bigint      not null references stellwerk.tenant,
  form         text        not null,
  workflow_id  bigint      not null,
  honeypot     text        not null default 'website',
  origins      text[]      not null default '{}',
  max_count    integer     not null default 60,
  per          interval    not null default '1 minute',
  enabled      boolean     not null default true,
  created_at   timestamptz not null default clock_timestamp(),
  created_by   text        not null,

  primary key (tenant_id, form),
  foreign key (tenant_id, workflow_id) references stellwerk.workflow on delete cascade,
  constraint form_shape check (form ~ '^[a-z][a-z0-9_-]{0,62}$'),
  constraint form_limit_positive check (max_count > 0 and per > interval '0')
);

comment on table stellwerk.form is 'Public forms: what is sent to /forms/{tenant}/{form} starts the workflow.';
comment on column stellwerk.form.tenant_id is 'The tenant.';
comment on column stellwerk.form.form is 'Its name, the last part of the address.';
comment on column stellwerk.form.workflow_id is 'The workflow that it starts, at its trigger.form_submit node.';
comment on column stellwerk.form.honeypot is 'A field that people do not see; a submission that fills it is kept and starts nothing.';
comment on column stellwerk.form.origins is 'Websites that may send it, such as https://example.org; empty: any.';
comment on column stellwerk.form.max_count is 'How many submissions may start runs within an interval; those above it are kept and start nothing.';
comment on column stellwerk.form.per is 'The length of that interval.';
comment on column stellwerk.form.enabled is 'False: what is sent is dropped.';
comment on column stellwerk.form.created_at is 'When it was set up.';
comment on column stellwerk.form.created_by is 'Who set it up.';

-- One table for all three: each is a row that pump decides about, once, and that can be looked at and replayed.
create table stellwerk.webhook_delivery (
  tenant_id         bigint      not null,
  delivery_id       bigint      not null generated always as identity,
  kind              text        not null,
  source            text        not null,
  key               text,
  digest            bytea,
  content_type      text,
  headers           jsonb       not null default '{}',
  body              bytea,
  payload           jsonb,
  event             text,
  correlation       text,
  state             text        not null default 'pending',
  reason            text,
  outcomes          jsonb       not null default '[]',
  run_ids           bigint[]    not null default '{}',
  replays           integer     not null default 0,
  caused_by_run_id  bigint,
  depth             integer     not null default 0,
  received_at       timestamptz not null default clock_timestamp(),
  processed_at      timestamptz,
  created_by        text        not null,

  primary key (tenant_id, delivery_id),
  constraint webhook_delivery_kind_known check (kind in ('webhook', 'form', 'event')),
  constraint webhook_delivery_state_known check (state in ('pending', 'processed', 'ignored', 'failed'))
);

create index webhook_delivery_pending on stellwerk.webhook_delivery (tenant_id, delivery_id) where state = 'pending';
create unique index webhook_delivery_once on stellwerk.webhook_delivery (tenant_id, kind, source, key) where key is not null;
create unique index webhook_delivery_signed_once on stellwerk.webhook_delivery (tenant_id, source, digest) where digest is not null;
create index webhook_delivery_runs on stellwerk.webhook_delivery using gin (run_ids);
create index webhook_delivery_by_time on stellwerk.webhook_delivery (tenant_id, received_at);

comment on table stellwerk.webhook_delivery is 'What came from outside, as it came: genuine webhooks, submitted forms, and events emitted by emit_event. Pump decides what each does.';
comment on column stellwerk.webhook_delivery.tenant_id is 'The tenant.';
comment on column stellwerk.webhook_delivery.delivery_id is 'Opaque number that follows time.';
comment on column stellwerk.webhook_delivery.kind is 'webhook, form or event.';
comment on column stellwerk.webhook_delivery.source is 'The webhook source or the form it came by; of an event, its name.';
comment on column stellwerk.webhook_delivery.key is 'The sender''s number of it: a second one with the same is the same, and changes nothing.';
comment on column stellwerk.webhook_delivery.digest is 'SHA-256 of what was signed: nobody sends the same signed bytes as two deliveries.';
comment on column stellwerk.webhook_delivery.content_type is 'Media type of the body, as sent.';
comment on column stellwerk.webhook_delivery.headers is 'The headers that the source''s settings name; never those of signatures or tokens.';
comment on column stellwerk.webhook_delivery.body is 'The body of a webhook, byte for byte.';
comment on column stellwerk.webhook_delivery.payload is 'The fields of a form, or what an event carries.';
comment on column stellwerk.webhook_delivery.event is 'The event''s name, found when it was processed.';
comment on column stellwerk.webhook_delivery.correlation is 'The correlation, found when it was processed.';
comment on column stellwerk.webhook_delivery.state is 'pending; processed (outcomes says what it did); ignored or failed (reason says why).';
comment on column stellwerk.webhook_delivery.reason is 'Why it did nothing, or what failed.';
comment on column stellwerk.webhook_delivery.outcomes is 'Array: { workflow, node, run_id }, { signal, correlation, woken } or { emitted }, each with the replay it belongs to, or with error.';
comment on column stellwerk.webhook_delivery.run_ids is 'The runs that it started.';
comment on column stellwerk.webhook_delivery.replays is 'How often it was replayed anew.';
comment on column stellwerk.webhook_delivery.caused_by_run_id is 'The run whose step emitted the event; null for what came from outside.';
comment on column stellwerk.webhook_delivery.depth is 'How many runs stand in the chain of causes before it.';
comment on column stellwerk.webhook_delivery.received_at is 'When it came.';
comment on column stellwerk.webhook_delivery.processed_at is 'When it left the state pending.';
comment on column stellwerk.webhook_delivery.created_by is 'Who wrote it.';

-- Shared by all web processes. It counts requests for forms that do not exist too, so it tells nothing; lost in a crash, it begins anew.
create unlogged table stellwerk.request_count (
  bucket      bytea       not null,
  begun_at    timestamptz not null,
  requests    integer     not null,

  primary key (bucket)
);

create index request_count_by_time on stellwerk.request_count (begun_at);

comment on table stellwerk.request_count is 'How many form submissions came from one place, or for one form, in the present interval.';
comment on column stellwerk.request_count.bucket is 'SHA-256 of what is counted: the address with the form''s path, or the form.';
comment on column stellwerk.request_count.begun_at is 'When the present interval began.';
comment on column stellwerk.request_count.requests is 'How many came since.';

-- From now on new tenants are opened to the web application and the workers by themselves; those that there are, here.
insert into stellwerk.tenant_role (tenant_id, role_name)
select t.tenant_id, r.name from stellwerk.tenant t cross join (values ('stellwerk_web'), ('stellwerk_worker')) r (name)
on conflict do nothing;
