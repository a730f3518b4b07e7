-- People: who acts, whom somebody stands in for, and the verbs that manage users.

create or replace function stellwerk.current_person(p_tenant_id bigint)
returns stellwerk.person language plpgsql stable set search_path = '' as $$
declare
  v_actor  text := stellwerk.actor();
  v_direct boolean := starts_with(v_actor, 'db:');
  v_user   stellwerk.app_user;
  v_person stellwerk.person;
begin
  if v_direct then
    select * into v_user from stellwerk.app_user u where u.tenant_id = p_tenant_id and u.login = substr(v_actor, 4);
  else
    select * into v_user from stellwerk.app_user u where u.tenant_id = p_tenant_id and u.email = lower(v_actor);
  end if;
  v_person.login := case when v_user.login is not null then 'db:' || v_user.login end;
  v_person.groups := '{}';
  v_person.stands := '{}';
  v_person.steers := false;
  v_person.admin := false;
  if starts_with(v_actor, 'token:') then
    v_person.name := v_actor;
    select t.role into v_person.role from stellwerk.api_token t
     where t.tenant_id = p_tenant_id and t.name = substr(v_actor, 7) and t.revoked_at is null;
    v_person.steers := coalesce(v_person.role in ('operator', 'admin'), false);
    v_person.admin := coalesce(v_person.role = 'admin', false);
    return v_person;
  end if;
  if v_user.user_id is null then
    v_person.name := case when v_direct then v_actor else lower(v_actor) end;
    -- A database administrator who is no user acts for the operators.
    v_person.admin := v_direct and (stellwerk.acts_as('stellwerk_dba') or stellwerk.acts_as((
      select pg_catalog.pg_get_userbyid(n.nspowner)::text from pg_catalog.pg_namespace n where n.nspname = 'stellwerk')));
    v_person.steers := v_person.admin;
    if not v_direct then
      v_person.email := lower(v_actor);
      v_person.stands := array[v_person.email];
    end if;
    return v_person;
  end if;
  v_person.name := v_user.email;
  if v_user.active then
    v_person.email := v_user.email;
    v_person.role := v_user.role;
    v_person.groups := v_user.groups;
    v_person.steers := v_user.role in ('operator', 'admin');
    v_person.admin := v_user.role = 'admin';
    v_person.stands := stellwerk.stands_for(p_tenant_id, v_user.email);
  end if;
  return v_person;
end
$$;
comment on function stellwerk.current_person(bigint) is 'Who acts, as a user of the tenant: by stellwerk.actor, or by the database login that is mapped to one. A login of the administrators that is no user may do what an admin may.';

create or replace function stellwerk.stands_for(p_tenant_id bigint, p_email text)
returns text[] language plpgsql stable set search_path = '' as $$
declare
  v_now timestamptz := stellwerk.clock();
begin
  return array(
    with recursive chain (email) as (
      select p_email
       union
      -- Whose delegate is away hands on to that one's delegate.
      select u.email from chain c
        join stellwerk.app_user u on u.tenant_id = p_tenant_id and u.delegate = c.email
       where u.absent_from <= v_now and (u.absent_until is null or u.absent_until > v_now))
    select c.email from chain c);
end
$$;
comment on function stellwerk.stands_for(bigint, text) is 'Whose tasks a user may do: the own ones, and those of everybody who is away and has named this user, or one for whom this user stands in, as delegate.';

create or replace function stellwerk.stand_in(p_tenant_id bigint, p_email text)
returns text language plpgsql stable set search_path = '' as $$
declare
  v_now   timestamptz := stellwerk.clock();
  v_chain text[] := array[p_email];
  v_next  text;
begin
  loop
    select u.delegate into v_next from stellwerk.app_user u
     where u.tenant_id = p_tenant_id and u.email = v_chain[cardinality(v_chain)]
       and u.absent_from <= v_now and (u.absent_until is null or u.absent_until > v_now) and u.delegate is not null;
    exit when not found or v_next = any (v_chain);
    v_chain := v_chain || v_next;
  end loop;
  return case when cardinality(v_chain) > 1 then v_chain[cardinality(v_chain)] end;
end
$$;
comment on function stellwerk.stand_in(bigint, text) is 'Who acts for a user now; null when the user is there, or has named nobody.';

create or replace function stellwerk.require_admin(p_tenant_id bigint)
returns void language plpgsql stable set search_path = '' as $$
declare
  v_person stellwerk.person := stellwerk.current_person(p_tenant_id);
begin
  if not v_person.admin then
    raise exception '% may not manage users', v_person.name using errcode = 'SW004', hint = 'A user with the role admin may.';
  end if;
end
$$;
comment on function stellwerk.require_admin(bigint) is 'Raises SW004 unless an admin acts.';

create or replace function stellwerk.check_user(p_email text, p_role text)
returns void language plpgsql immutable set search_path = '' as $$
begin
  if p_email is null or stellwerk.schema_format_problem('email', p_email) is not null or p_email ~ '[\s:,;<>"()]' then
    raise exception '% is no e-mail address', coalesce(quote_literal(p_email), 'null') using errcode = 'SW002', hint = 'A user is known by an address such as ada@example.org.';
  elsif p_role is not null and p_role not in ('viewer', 'staff', 'designer', 'operator', 'admin') then
    raise exception 'there is no role %', quote_literal(p_role) using errcode = 'SW002', hint = 'The roles are viewer, staff, designer, operator and admin.';
  end if;
end
$$;
comment on function stellwerk.check_user(text, text) is 'Raises SW002 for what is no e-mail address or no role.';

create or replace function stellwerk.add_user(email text, role text, name text default null, login text default null, groups text[] default '{}')
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_user_id   bigint;
begin
  perform stellwerk.require_admin(v_tenant_id);
  perform stellwerk.check_user(email, coalesce(role, ''));
  insert into stellwerk.app_user (tenant_id, email, name, role, groups, login, created_by)
  values (v_tenant_id, lower(email), nullif(name, ''), role, coalesce(groups, '{}'), nullif(login, ''), stellwerk.actor())
  on conflict do nothing
  returning user_id into v_user_id;
  if v_user_id is null then
    raise exception '%', case when exists (select from stellwerk.app_user u where u.tenant_id = v_tenant_id and u.email = lower(add_user.email))
                              then format('%s is a user already', lower(email)) else format('the login %s belongs to another user', login) end
      using errcode = 'SW003', hint = 'stellwerk user change changes a user, stellwerk.change_user in SQL.';
  end if;
  return v_user_id;
end
$$;
comment on function stellwerk.add_user(text, text, text, text, text[]) is 'Adds a user of the current tenant: viewer, staff, designer, operator or admin. login names the database login that speaks for the user. Errors: SW002, SW003 when there is one, SW004.';

create or replace function stellwerk.change_user(
  email text, role text default null, name text default null, login text default null, groups text[] default null,
  active boolean default null, mails boolean default null)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_before    stellwerk.app_user;
begin
  perform stellwerk.require_admin(v_tenant_id);
  perform stellwerk.check_user(email, role);
  select * into v_before from stellwerk.app_user u where u.tenant_id = v_tenant_id and u.email = lower(change_user.email) for update;
  if exists (select from stellwerk.app_user u where u.tenant_id = v_tenant_id and u.login = nullif(change_user.login, '') and u.email <> lower(change_user.email)) then
    raise exception 'the login % belongs to another user', login using errcode = 'SW003', hint = 'Take it away from that one first: login => ''''.';
  end if;
  update stellwerk.app_user u
     set role = coalesce(change_user.role, u.role), name = nullif(coalesce(change_user.name, u.name), ''),
         login = nullif(coalesce(change_user.login, u.login), ''), groups = coalesce(change_user.groups, u.groups),
         active = coalesce(change_user.active, u.active), mails = coalesce(change_user.mails, u.mails)
   where u.tenant_id = v_tenant_id and u.email = lower(change_user.email);
  if not found then
    raise exception 'there is no user %', email using errcode = 'SW007', hint = 'stellwerk user list shows them; stellwerk.add_user adds one.';
  end if;
  -- Nobody goes on with what they were let in for as somebody else, nor comes back with it.
  if change_user.role <> v_before.role or not change_user.active then
    delete from stellwerk.user_session s where s.tenant_id = v_tenant_id and s.user_id = v_before.user_id;
  end if;
end
$$;
comment on function stellwerk.change_user(text, text, text, text, text[], boolean, boolean) is 'Changes what is given and leaves the rest; an empty name or login is taken away. Another role, and the end of the account, end the user''s sessions. Errors: SW002, SW003, SW004, SW007.';

create or replace function stellwerk.set_absence(
  email text, absent_until timestamptz default null, delegate text default null, absent_from timestamptz default now())
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_person    stellwerk.person := stellwerk.current_person(v_tenant_id);
begin
  if not v_person.admin and v_person.email is distinct from lower(email) then
    raise exception '% may not say when % is away', v_person.name, email using errcode = 'SW004', hint = 'Everybody may for oneself; an admin for all.';
  elsif absent_until <= absent_from then
    raise exception 'the absence ends before it begins' using errcode = 'SW002';
  elsif lower(delegate) = lower(email) then
    raise exception 'nobody stands in for oneself' using errcode = 'SW002', hint = 'Name another user, or nobody.';
  elsif delegate is not null and not exists (
          select from stellwerk.app_user u where u.tenant_id = v_tenant_id and u.email = lower(set_absence.delegate) and u.active) then
    raise exception 'there is no active user %', delegate using errcode = 'SW007', hint = 'stellwerk user list shows them.';
  end if;
  update stellwerk.app_user u
     set absent_from = set_absence.absent_from, absent_until = set_absence.absent_until, delegate = lower(set_absence.delegate)
   where u.tenant_id = v_tenant_id and u.email = lower(set_absence.email);
  if not found then
    raise exception 'there is no user %', email using errcode = 'SW007', hint = 'stellwerk user list shows them.';
  end if;
end
$$;
comment on function stellwerk.set_absence(text, timestamptz, text, timestamptz) is 'A user is away until a time, or until further notice, and the delegate may do the tasks meanwhile; absent_from => null: the user is back. Errors: SW002, SW004, SW007.';
