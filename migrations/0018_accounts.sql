-- How people and programs come in: passwords, sessions, invitations and tokens. Of every secret only a digest is kept.

create table stellwerk.user_password (
  tenant_id   bigint      not null,
  user_id     bigint      not null,
  hash        text        not null,
  changed_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, user_id),
  foreign key (tenant_id, user_id) references stellwerk.app_user on delete cascade,
  constraint user_password_is_argon2 check (hash like '$argon2id$%')
);

comment on table stellwerk.user_password is 'Passwords of users; read by nobody but the verbs that look them up for the login page.';
comment on column stellwerk.user_password.tenant_id is 'The tenant.';
comment on column stellwerk.user_password.user_id is 'The user.';
comment on column stellwerk.user_password.hash is 'Argon2id, in its own notation with salt and costs.';
comment on column stellwerk.user_password.changed_at is 'When it was set.';

create table stellwerk.user_session (
  tenant_id     bigint      not null,
  session_id    bigint      not null generated always as identity,
  user_id       bigint      not null,
  digest        bytea       not null,
  address       text,
  agent         text,
  created_at    timestamptz not null default clock_timestamp(),
  last_seen_at  timestamptz not null default clock_timestamp(),
  expires_at    timestamptz not null,

  primary key (tenant_id, session_id),
  foreign key (tenant_id, user_id) references stellwerk.app_user on delete cascade,
  constraint user_session_digest_unique unique (tenant_id, digest),
  constraint user_session_digest_length check (octet_length(digest) = 32)
);
create index user_session_of_user on stellwerk.user_session (tenant_id, user_id);
create index user_session_expiry on stellwerk.user_session (expires_at);

comment on table stellwerk.user_session is 'Browsers that are logged in.';
comment on column stellwerk.user_session.tenant_id is 'The tenant.';
comment on column stellwerk.user_session.session_id is 'Opaque number.';
comment on column stellwerk.user_session.user_id is 'Who is logged in.';
comment on column stellwerk.user_session.digest is 'SHA-256 of the secret in the browser''s cookie, which names the tenant.';
comment on column stellwerk.user_session.address is 'The address that logged in.';
comment on column stellwerk.user_session.agent is 'What the browser calls itself.';
comment on column stellwerk.user_session.created_at is 'When the session began.';
comment on column stellwerk.user_session.last_seen_at is 'When it was last used, to the minute.';
comment on column stellwerk.user_session.expires_at is 'When it ends whatever happens; twelve hours without use end it earlier.';

create table stellwerk.user_invitation (
  tenant_id   bigint      not null,
  user_id     bigint      not null,
  digest      bytea       not null,
  created_at  timestamptz not null default clock_timestamp(),
  created_by  text        not null,
  expires_at  timestamptz not null,

  primary key (tenant_id, user_id),
  foreign key (tenant_id, user_id) references stellwerk.app_user on delete cascade,
  constraint user_invitation_digest_unique unique (tenant_id, digest)
);

comment on table stellwerk.user_invitation is 'Links with which users choose a password: one for each user, used once.';
comment on column stellwerk.user_invitation.tenant_id is 'The tenant.';
comment on column stellwerk.user_invitation.user_id is 'Who is invited.';
comment on column stellwerk.user_invitation.digest is 'SHA-256 of the secret in the link.';
comment on column stellwerk.user_invitation.created_at is 'When the link was made.';
comment on column stellwerk.user_invitation.created_by is 'Who made it.';
comment on column stellwerk.user_invitation.expires_at is 'When it stops working.';

create table stellwerk.api_token (
  tenant_id     bigint      not null,
  token_id      bigint      not null generated always as identity,
  name          text        not null,
  role          text        not null,
  scopes        text[]      not null,
  digest        bytea       not null,
  created_at    timestamptz not null default clock_timestamp(),
  created_by    text        not null,
  expires_at    timestamptz,
  last_used_at  timestamptz,
  revoked_at    timestamptz,

  primary key (tenant_id, token_id),
  constraint api_token_digest_unique unique (tenant_id, digest),
  constraint api_token_name_plain check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  constraint api_token_role_known check (role in ('viewer', 'staff', 'designer', 'operator', 'admin')),
  constraint api_token_scopes_known check (scopes <@ array['read', 'work', 'design', 'start', 'operate', 'manage'])
);
-- A name speaks for one program at a time; revoked ones keep theirs.
create unique index api_token_name_unique on stellwerk.api_token (tenant_id, name) where revoked_at is null;

comment on table stellwerk.api_token is 'Programs that call the HTTP API; the audit log knows them as token:<name>.';
comment on column stellwerk.api_token.tenant_id is 'The tenant.';
comment on column stellwerk.api_token.token_id is 'Opaque number.';
comment on column stellwerk.api_token.name is 'What it is for.';
comment on column stellwerk.api_token.role is 'viewer, staff, designer, operator or admin.';
comment on column stellwerk.api_token.scopes is 'What of the role''s rights it has: read, work, design, start, operate, manage.';
comment on column stellwerk.api_token.digest is 'SHA-256 of the token, which is shown once and kept nowhere.';
comment on column stellwerk.api_token.created_at is 'When it was made.';
comment on column stellwerk.api_token.created_by is 'Who made it.';
comment on column stellwerk.api_token.expires_at is 'When it stops working; null: never.';
comment on column stellwerk.api_token.last_used_at is 'When it was last used, to the minute.';
comment on column stellwerk.api_token.revoked_at is 'When it was taken back.';

-- Counted for the name and for the address, known or not: what is counted tells nobody which users there are.
create table stellwerk.login_failure (
  tenant_id   bigint      not null,
  subject     text        not null,
  failures    integer     not null,
  last_at     timestamptz not null,

  primary key (tenant_id, subject)
);
create index login_failure_last on stellwerk.login_failure (last_at);

comment on table stellwerk.login_failure is 'Logins that failed lately; they make the next one wait.';
comment on column stellwerk.login_failure.tenant_id is 'The tenant; 0 for one that does not exist and for addresses.';
comment on column stellwerk.login_failure.subject is 'user:<e-mail address> or address:<network>.';
comment on column stellwerk.login_failure.failures is 'How many in a row, with less than a quarter of an hour between them.';
comment on column stellwerk.login_failure.last_at is 'When the last one was.';

create type stellwerk.entrance as (
  tenant_id   bigint,
  tenant      text,
  actor       text,
  name        text,
  role        text,
  groups      text[],
  rights      text[],
  session_id  bigint
);
comment on type stellwerk.entrance is 'Who has come in, by a session or a token, and what they may do.';
comment on column stellwerk.entrance.tenant_id is 'The tenant.';
comment on column stellwerk.entrance.tenant is 'Its slug.';
comment on column stellwerk.entrance.actor is 'The name in the audit log: an e-mail address or token:<name>.';
comment on column stellwerk.entrance.name is 'Name for people.';
comment on column stellwerk.entrance.role is 'viewer, staff, designer, operator or admin.';
comment on column stellwerk.entrance.groups is 'The user''s groups.';
comment on column stellwerk.entrance.rights is 'read, work, design, start, operate, manage.';
comment on column stellwerk.entrance.session_id is 'The session; null for a token.';
