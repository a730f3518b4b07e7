-- Coming in: what the web application asks about passwords, sessions, invitations and tokens. Only digests of secrets come here.

create or replace function stellwerk.role_rights(p_role text)
returns text[] language sql immutable set search_path = ''
return case p_role
  when 'viewer' then '{read}'::text[]
  when 'staff' then '{read,work}'::text[]
  when 'designer' then '{read,work,design,start}'::text[]
  when 'operator' then '{read,work,start,operate}'::text[]
  when 'admin' then '{read,work,design,start,operate,manage}'::text[]
  else '{}'::text[] end;
comment on function stellwerk.role_rights(text) is 'What a role may do: read; work on cases and tasks; design workflows; start runs; operate (steer) runs; manage users and settings.';

-- Unknown tenants and users get a row like everybody else, so that the page does the same work for them. The attempt counts
-- as failed before the password is looked at, one after the other for a user: many at once are no way around the waiting.
create or replace function stellwerk.find_login(tenant text, email text, address text)
returns table (tenant_id bigint, user_id bigint, hash text, wait_seconds integer)
language plpgsql security definer  -- the web role may not read passwords
set search_path = '' as $$
declare
  v_tenant_id bigint := coalesce((select t.tenant_id from stellwerk.tenant t where t.slug = find_login.tenant), 0);
  v_wait      integer;
begin
  if not stellwerk.may_act_for(v_tenant_id) then
    v_tenant_id := 0;
  end if;
  perform pg_advisory_xact_lock(hashtextextended('stellwerk.login:' || lower(find_login.email), v_tenant_id));
  v_wait := stellwerk.login_wait(v_tenant_id, find_login.email, find_login.address);
  if v_wait = 0 then
    perform stellwerk.note_login_failure(v_tenant_id, find_login.email, find_login.address);
  end if;
  return query
  select v_tenant_id, u.user_id, p.hash, v_wait
    from (select 1) one
    left join stellwerk.app_user u on u.tenant_id = v_tenant_id and u.email = lower(find_login.email) and u.active
    left join stellwerk.user_password p on p.tenant_id = u.tenant_id and p.user_id = u.user_id;
end
$$;
comment on function stellwerk.find_login(text, text, text) is 'The password''s hash of an active user, or nulls, and how many seconds the login has to wait because of failures before. Where it need not wait the attempt counts as a failure until open_session takes that back.';

create or replace function stellwerk.login_wait(p_tenant_id bigint, p_email text, p_address text)
returns integer language sql stable set search_path = ''
return (
  select coalesce(ceil(max(extract(epoch from
           f.last_at + least(interval '15 minutes', interval '1 second' * power(2, least(f.failures - a.allowed, 12))) - stellwerk.clock()))), 0)::integer
    from (values (p_tenant_id, 'user:' || lower(p_email), 4), (0, 'address:' || p_address, 30)) a (tenant_id, subject, allowed)
    join stellwerk.login_failure f on f.tenant_id = a.tenant_id and f.subject = a.subject
   where f.failures >= a.allowed and f.last_at > stellwerk.clock() - interval '15 minutes');
comment on function stellwerk.login_wait(bigint, text, text) is 'How many seconds a login has to wait: after 4 failures for a user, or 30 from an address, it doubles with each, up to a quarter of an hour.';

create or replace function stellwerk.note_login_failure(p_tenant_id bigint, p_email text, p_address text)
returns void language plpgsql set search_path = '' as $$
begin
  delete from stellwerk.login_failure f where f.last_at < stellwerk.clock() - interval '1 day';
  insert into stellwerk.login_failure as f (tenant_id, subject, failures, last_at)
  values (p_tenant_id, left('user:' || lower(p_email), 400), 1, stellwerk.clock()),
         (0, left('address:' || p_address, 400), 1, stellwerk.clock())
  on conflict on constraint login_failure_pkey do update
     set failures = case when f.last_at > stellwerk.clock() - interval '15 minutes' then f.failures + 1 else 1 end, last_at = stellwerk.clock();
end
$$;
comment on function stellwerk.note_login_failure(bigint, text, text) is 'Counts a login that failed, for the user and for the address.';

create or replace function stellwerk.open_session(tenant_id bigint, user_id bigint, digest bytea, address text default null, agent text default null)
returns bigint language plpgsql security definer  -- the web role may not write sessions
set search_path = '' as $$
declare
  v_user       stellwerk.app_user;
  v_session_id bigint;
begin
  select * into v_user from stellwerk.app_user u where u.tenant_id = open_session.tenant_id and u.user_id = open_session.user_id and u.active;
  if v_user.user_id is null or not stellwerk.may_act_for(open_session.tenant_id) then
    raise exception 'there is no such user' using errcode = 'SW007', hint = 'stellwerk user list shows them.';
  end if;
  delete from stellwerk.login_failure f where f.tenant_id = v_user.tenant_id and f.subject = 'user:' || v_user.email;
  update stellwerk.login_failure f set failures = f.failures - 1
   where f.tenant_id = 0 and f.subject = left('address:' || open_session.address, 400) and f.failures > 0;
  delete from stellwerk.user_session s where s.expires_at < stellwerk.clock();
  insert into stellwerk.user_session (tenant_id, user_id, digest, address, agent, expires_at)
  values (v_user.tenant_id, v_user.user_id, open_session.digest, open_session.address, left(open_session.agent, 300), stellwerk.clock() + interval '30 days')
  returning session_id into v_session_id;
  return v_session_id;
end
$$;
comment on function stellwerk.open_session(bigint, bigint, bytea, text, text) is 'A session of a user whose password was right. digest: SHA-256 of the cookie''s secret. Errors: SW007.';

-- One statement at the beginning of every request: who is it, and from here on everything in this transaction is theirs.
create or replace function stellwerk.enter_session(tenant_id bigint, digest bytea)
returns stellwerk.entrance language plpgsql security definer  -- the web role may not read sessions
set search_path = '' as $$
declare
  v_session  stellwerk.user_session;
  v_entrance stellwerk.entrance;
begin
  select s.* into v_session from stellwerk.user_session s where s.tenant_id = enter_session.tenant_id and s.digest = enter_session.digest;
  if v_session.session_id is null or v_session.expires_at < stellwerk.clock() or v_session.last_seen_at < stellwerk.clock() - interval '12 hours' then
    return null;
  end if;
  select u.tenant_id, t.slug, u.email, coalesce(u.name, u.email), u.role, u.groups, stellwerk.role_rights(u.role), v_session.session_id
    into v_entrance
    from stellwerk.app_user u
    join stellwerk.tenant t on t.tenant_id = u.tenant_id
   where u.tenant_id = v_session.tenant_id and u.user_id = v_session.user_id and u.active;
  if v_entrance.tenant_id is null or not stellwerk.may_act_for(v_entrance.tenant_id) then
    return null;
  end if;
  if v_session.last_seen_at < stellwerk.clock() - interval '1 minute' then
    update stellwerk.user_session s set last_seen_at = stellwerk.clock()
     where s.tenant_id = v_session.tenant_id and s.session_id = v_session.session_id;
  end if;
  perform stellwerk.act_as(v_entrance);
  return v_entrance;
end
$$;
comment on function stellwerk.enter_session(bigint, bytea) is 'Whose session it is, or null; sets stellwerk.tenant and stellwerk.actor for the rest of the transaction.';

create or replace function stellwerk.enter_token(tenant_id bigint, digest bytea)
returns stellwerk.entrance language plpgsql security definer  -- the web role may not read tokens
set search_path = '' as $$
declare
  v_token    stellwerk.api_token;
  v_entrance stellwerk.entrance;
begin
  select t.* into v_token from stellwerk.api_token t where t.tenant_id = enter_token.tenant_id and t.digest = enter_token.digest;
  if v_token.token_id is null or v_token.revoked_at is not null or v_token.expires_at < stellwerk.clock()
     or not stellwerk.may_act_for(v_token.tenant_id) then
    return null;
  end if;
  v_entrance.tenant_id := v_token.tenant_id;
  v_entrance.tenant := (select t.slug from stellwerk.tenant t where t.tenant_id = v_token.tenant_id);
  v_entrance.actor := 'token:' || v_token.name;
  v_entrance.name := v_token.name;
  v_entrance.role := v_token.role;
  v_entrance.groups := '{}';
  v_entrance.rights := array(select r from unnest(stellwerk.role_rights(v_token.role)) r where r = any (v_token.scopes));
  if v_token.last_used_at is null or v_token.last_used_at < stellwerk.clock() - interval '1 minute' then
    update stellwerk.api_token t set last_used_at = stellwerk.clock() where t.tenant_id = v_token.tenant_id and t.token_id = v_token.token_id;
  end if;
  perform stellwerk.act_as(v_entrance);
  return v_entrance;
end
$$;
comment on function stellwerk.enter_token(bigint, bytea) is 'Whose token it is, or null; sets stellwerk.tenant and stellwerk.actor for the rest of the transaction.';

create or replace function stellwerk.act_as(p_entrance stellwerk.entrance)
returns void language plpgsql set search_path = '' as $$
begin
  perform set_config('stellwerk.tenant', p_entrance.tenant, true), set_config('stellwerk.actor', p_entrance.actor, true);
end
$$;
comment on function stellwerk.act_as(stellwerk.entrance) is 'The rest of the transaction belongs to a tenant and an actor.';

create or replace function stellwerk.close_session(tenant_id bigint, digest bytea)
returns void language sql security definer  -- the web role may not write sessions
set search_path = ''
begin atomic
  delete from stellwerk.user_session s where s.tenant_id = close_session.tenant_id and s.digest = close_session.digest;
end;
comment on function stellwerk.close_session(bigint, bytea) is 'Ends a session; one that is over already is no error.';

create or replace function stellwerk.end_sessions(email text)
returns integer language plpgsql security definer  -- callers may not write sessions
set search_path = '' as $$
declare
  v_user  stellwerk.app_user := stellwerk.manageable_user(email);
  v_count integer;
begin
  delete from stellwerk.user_session s where s.tenant_id = v_user.tenant_id and s.user_id = v_user.user_id;
  get diagnostics v_count = row_count;
  perform stellwerk.note_action(v_user.tenant_id, 'end_sessions', 'app_user', v_user.email);
  return v_count;
end
$$;
comment on function stellwerk.end_sessions(text) is 'Logs a user out everywhere; answers how many sessions that were. Errors: SW004, SW007.';

create or replace function stellwerk.manageable_user(p_email text)
returns stellwerk.app_user language plpgsql stable set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_person    stellwerk.person := stellwerk.current_person(v_tenant_id);
  v_user      stellwerk.app_user;
begin
  if not v_person.admin and v_person.email is distinct from lower(p_email) then
    raise exception '% may not manage users', v_person.name using errcode = 'SW004', hint = 'Everybody may for oneself; an admin for all.';
  end if;
  select * into v_user from stellwerk.app_user u where u.tenant_id = v_tenant_id and u.email = lower(p_email);
  if v_user.user_id is null then
    raise exception 'there is no user %', p_email using errcode = 'SW007', hint = 'stellwerk user list shows them; stellwerk.add_user adds one.';
  end if;
  return v_user;
end
$$;
comment on function stellwerk.manageable_user(text) is 'A user whose account the current person may change: the own one, any for an admin. Errors: SW004, SW007.';

create or replace function stellwerk.set_password(email text, hash text)
returns void language plpgsql security definer  -- callers may not write passwords
set search_path = '' as $$
declare
  v_user stellwerk.app_user := stellwerk.manageable_user(email);
begin
  insert into stellwerk.user_password as p (tenant_id, user_id, hash) values (v_user.tenant_id, v_user.user_id, set_password.hash)
  on conflict on constraint user_password_pkey do update set hash = excluded.hash, changed_at = clock_timestamp();
  delete from stellwerk.user_session s where s.tenant_id = v_user.tenant_id and s.user_id = v_user.user_id;
  delete from stellwerk.user_invitation i where i.tenant_id = v_user.tenant_id and i.user_id = v_user.user_id;
  perform stellwerk.note_action(v_user.tenant_id, 'set_password', 'app_user', v_user.email);
end
$$;
comment on function stellwerk.set_password(text, text) is 'Sets a user''s password, given as its Argon2id hash, and ends all sessions of the user. Errors: SW004, SW007.';

create or replace function stellwerk.invite_user(email text, digest bytea, valid_for interval default '7 days')
returns void language plpgsql security definer  -- callers may not write invitations
set search_path = '' as $$
declare
  v_user stellwerk.app_user;
begin
  perform stellwerk.require_admin(stellwerk.current_tenant_id());
  v_user := stellwerk.manageable_user(email);
  if not v_user.active then
    raise exception '% is not active', v_user.email using errcode = 'SW003', hint = 'stellwerk.change_user(email, active => true) opens the account again.';
  end if;
  insert into stellwerk.user_invitation (tenant_id, user_id, digest, created_by, expires_at)
  values (v_user.tenant_id, v_user.user_id, invite_user.digest, stellwerk.actor(), stellwerk.clock() + valid_for)
  on conflict on constraint user_invitation_pkey do update
     set digest = excluded.digest, created_at = clock_timestamp(), created_by = excluded.created_by, expires_at = excluded.expires_at;
  perform stellwerk.note_action(v_user.tenant_id, 'invite_user', 'app_user', v_user.email);
end
$$;
comment on function stellwerk.invite_user(text, bytea, interval) is 'A link with which a user chooses a password; an earlier one stops working. digest: SHA-256 of the link''s secret. Errors: SW003, SW004, SW007.';

create or replace function stellwerk.find_invitation(tenant_id bigint, digest bytea)
returns table (tenant text, email text)
language sql stable security definer  -- the web role may not read invitations
set search_path = ''
begin atomic
  select t.slug, u.email
    from stellwerk.user_invitation i
    join stellwerk.app_user u on u.tenant_id = i.tenant_id and u.user_id = i.user_id and u.active
    join stellwerk.tenant t on t.tenant_id = i.tenant_id
   where i.tenant_id = find_invitation.tenant_id and i.digest = find_invitation.digest and i.expires_at > stellwerk.clock();
end;
comment on function stellwerk.find_invitation(bigint, bytea) is 'Who is invited by a link that still works.';

create or replace function stellwerk.accept_invitation(tenant_id bigint, digest bytea, hash text)
returns bigint language plpgsql security definer  -- the web role may not write passwords
set search_path = '' as $$
declare
  v_invitation stellwerk.user_invitation;
begin
  delete from stellwerk.user_invitation i where i.tenant_id = accept_invitation.tenant_id and i.digest = accept_invitation.digest and i.expires_at > stellwerk.clock() returning i.* into v_invitation;
  if v_invitation.user_id is null or not stellwerk.may_act_for(v_invitation.tenant_id) then
    raise exception 'this invitation is used up or too old' using errcode = 'SW003', hint = 'An admin makes a new one: stellwerk user invite.';
  end if;
  insert into stellwerk.user_password as p (tenant_id, user_id, hash) values (v_invitation.tenant_id, v_invitation.user_id, accept_invitation.hash)
  on conflict on constraint user_password_pkey do update set hash = excluded.hash, changed_at = clock_timestamp();
  delete from stellwerk.user_session s where s.tenant_id = v_invitation.tenant_id and s.user_id = v_invitation.user_id;
  return v_invitation.user_id;
end
$$;
comment on function stellwerk.accept_invitation(bigint, bytea, text) is 'Sets the password of an invited user, whose number it answers; the link works once. Errors: SW003.';

create or replace function stellwerk.create_token(name text, role text, digest bytea, scopes text[] default null, expires_at timestamptz default null)
returns bigint language plpgsql security definer  -- callers may not write tokens
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_rights    text[] := stellwerk.role_rights(create_token.role);
  v_token_id  bigint;
begin
  perform stellwerk.require_admin(v_tenant_id);
  if cardinality(v_rights) = 0 then
    raise exception 'there is no role %', quote_nullable(create_token.role) using errcode = 'SW002', hint = 'The roles are viewer, staff, designer, operator and admin.';
  elsif not scopes <@ v_rights then
    raise exception 'the role % has no right to %', create_token.role,
      (select string_agg(s, ', ') from unnest(scopes) s where not s = any (v_rights))
      using errcode = 'SW002', hint = format('Its rights are %s.', array_to_string(v_rights, ', '));
  elsif create_token.name is null or create_token.name !~ '^[a-z0-9][a-z0-9._-]{0,62}$' then
    raise exception '% is no name for a token', quote_nullable(create_token.name) using errcode = 'SW002', hint = 'Small letters, digits, dots and dashes, such as ci-deploy.';
  elsif create_token.expires_at <= stellwerk.clock() then
    raise exception 'the token would be expired already' using errcode = 'SW002';
  end if;
  insert into stellwerk.api_token (tenant_id, name, role, scopes, digest, created_by, expires_at)
  values (v_tenant_id, create_token.name, create_token.role, coalesce(create_token.scopes, v_rights), create_token.digest, stellwerk.actor(), create_token.expires_at)
  on conflict do nothing
  returning token_id into v_token_id;
  if v_token_id is null then
    raise exception 'there is a token % already', create_token.name using errcode = 'SW003', hint = 'Revoke that one first, or choose another name.';
  end if;
  return v_token_id;
end
$$;
comment on function stellwerk.create_token(text, text, bytea, text[], timestamptz) is 'A token for a program; digest: SHA-256 of the token. scopes: which of the role''s rights, null for all. Errors: SW002, SW003, SW004.';

create or replace function stellwerk.revoke_token(token_id bigint)
returns void language plpgsql security definer  -- callers may not write tokens
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
begin
  perform stellwerk.require_admin(v_tenant_id);
  update stellwerk.api_token t set revoked_at = stellwerk.clock()
   where t.tenant_id = v_tenant_id and t.token_id = revoke_token.token_id and t.revoked_at is null;
  if not found then
    raise exception 'there is no token % that could be revoked', token_id using errcode = 'SW007', hint = 'stellwerk token list shows them.';
  end if;
end
$$;
comment on function stellwerk.revoke_token(bigint) is 'A token works no more, from the next request on. Errors: SW004, SW007.';
