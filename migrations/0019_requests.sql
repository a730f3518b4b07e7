-- Requests that are sent again with the same Idempotency-Key answer what the first one did.

create table stellwerk.request_key (
  tenant_id   bigint      not null,
  actor       text        not null,
  action      text        not null,
  key         text        not null,
  digest      bytea       not null,
  result      jsonb,
  created_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, actor, action, key),
  foreign key (tenant_id) references stellwerk.tenant,
  constraint request_key_length check (length(key) between 1 and 500),
  constraint request_key_digest_length check (octet_length(digest) = 32)
);
create index request_key_age on stellwerk.request_key (tenant_id, created_at);

comment on table stellwerk.request_key is 'Requests of the last day that named an Idempotency-Key and started something other than a run, which keeps its own.';
comment on column stellwerk.request_key.tenant_id is 'The tenant.';
comment on column stellwerk.request_key.actor is 'Who sent the request; others may use the same key.';
comment on column stellwerk.request_key.action is 'What was asked for.';
comment on column stellwerk.request_key.key is 'The key that the sender chose.';
comment on column stellwerk.request_key.digest is 'SHA-256 of the request, so that the same key with another one is refused.';
comment on column stellwerk.request_key.result is 'What was answered; never null once the transaction has ended.';
comment on column stellwerk.request_key.created_at is 'When the first of them came.';
