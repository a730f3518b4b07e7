-- The clock, the acting person, the tenant: what every other file asks for first.

create or replace function stellwerk.shifted_clock()
returns timestamptz language plpgsql volatile parallel safe set search_path = '' as $$
begin
  if not stellwerk.acts_as((select n.nspowner::regrole::text from pg_catalog.pg_namespace n where n.nspname = 'stellwerk')) then
    return clock_timestamp();
  end if;
  return clock_timestamp() + current_setting('stellwerk.clock_shift')::interval;
end
$$;
comment on function stellwerk.shifted_clock() is 'clock() for a session that has set stellwerk.clock_shift; the setting counts for owners of the schema only.';

-- A test may let months pass in seconds: set stellwerk.clock_shift = '30 days'. Only for sessions that own the schema.
create or replace function stellwerk.clock()
returns timestamptz language sql volatile parallel safe
return case when coalesce(current_setting('stellwerk.clock_shift', true), '') = '' then clock_timestamp() else stellwerk.shifted_clock() end;
comment on function stellwerk.clock() is 'The time that the engine goes by: the database''s, moving on within a transaction. A session that owns the schema may shift it for tests: set stellwerk.clock_shift to an interval.';

-- An unprivileged role cannot speak for somebody else: only the web application, which knows its users, may name one.
create or replace function stellwerk.actor()
returns text language plpgsql stable set search_path = '' as $$
declare
  v_actor text := nullif(current_setting('stellwerk.actor', true), '');
begin
  if v_actor is not null and stellwerk.acts_as('stellwerk_web') then
    return v_actor;
  end if;
  return 'db:' || session_user;
end
$$;
comment on function stellwerk.actor() is 'Who acts: the setting stellwerk.actor where the web application speaks, otherwise db:<session user>.';

create or replace function stellwerk.acts_as(p_role text)
returns boolean language plpgsql stable set search_path = '' as $$
declare
  v_role text := current_setting('role', true);
begin
  if to_regrole(quote_ident(p_role)) is null then
    return false;
  end if;
  if v_role is null or v_role in ('', 'none') then
    v_role := session_user;
  end if;
  return pg_has_role(v_role, p_role, 'member');
end
$$;
comment on function stellwerk.acts_as(text) is 'Whether the session''s role (set role, else the login) is a member of a role; false if there is no such role.';

-- Outside roles see the tenants that tenant_role opens to them; the owner of the schema sees all.
create or replace function stellwerk.current_tenant_id()
returns bigint language plpgsql stable security definer  -- reads tenant_role, which callers may not
set search_path = '' as $$
declare
  v_slug      text := coalesce(nullif(current_setting('stellwerk.tenant', true), ''), 'default');
  v_tenant_id bigint;
begin
  select t.tenant_id into v_tenant_id from stellwerk.tenant t where t.slug = v_slug;
  if v_tenant_id is null then
    raise exception 'there is no tenant %', quote_literal(v_slug)
      using errcode = 'SW004', hint = 'set stellwerk.tenant to the slug of a tenant; select slug from stellwerk.tenant lists them.';
  end if;
  if not stellwerk.may_act_for(v_tenant_id) then
    raise exception 'role % may not act for tenant %', session_user, quote_literal(v_slug)
      using errcode = 'SW004', hint = 'The owner opens it: insert into stellwerk.tenant_role (tenant_id, role_name) values (…).';
  end if;
  return v_tenant_id;
end
$$;
comment on function stellwerk.current_tenant_id() is 'The tenant named by the setting stellwerk.tenant (default: default). Raises SW004 for one that is unknown or not opened to the caller.';

create or replace function stellwerk.may_act_for(p_tenant_id bigint)
returns boolean language plpgsql stable security definer  -- reads tenant_role, which callers may not
set search_path = '' as $$
begin
  return stellwerk.acts_as(current_user)
      or exists (select 1 from stellwerk.tenant_role g
                  where g.tenant_id = p_tenant_id and stellwerk.acts_as(g.role_name));
end
$$;
comment on function stellwerk.may_act_for(bigint) is 'Whether the session may see and change a tenant''s data: it owns the schema, or tenant_role names a role that it has.';

-- Refuses what would hurt later: very large, very deep, or numbers that grow when they are written out.
create or replace function stellwerk.check_payload(p_payload jsonb, p_what text default 'payload')
returns void language plpgsql immutable set search_path = '' as $$
declare
  c_max_bytes  constant integer := 8 * 1024 * 1024;
  c_max_depth  constant integer := 64;
  c_max_digits constant integer := 40;
  v_text  text := p_payload::text;
  v_layer jsonb[];
  v_depth integer := 0;
begin
  if p_payload is null then
    raise exception 'the % is null', p_what using errcode = 'SW002', hint = 'Use ''{}'' for an empty one.';
  end if;
  if octet_length(v_text) > c_max_bytes then
    raise exception 'the % has % bytes, more than the limit of % (8 MB)', p_what, octet_length(v_text), c_max_bytes
      using errcode = 'SW002', hint = 'Store large data in a table or file and pass its key.';
  end if;
  if v_text ~ '[0-9.]{41}' and exists (
       select 1 from jsonb_path_query(p_payload, 'strict $.** ? (@.type() == "number")') n(value)
        where length(n.value::text) > c_max_digits) then
    raise exception 'the % holds a number of more than % characters', p_what, c_max_digits
      using errcode = 'SW002', hint = 'Pass it as text.';
  end if;
  if length(v_text) - length(translate(v_text, '[{', '')) > c_max_depth then
    v_layer := array[p_payload];
    while cardinality(v_layer) > 0 loop
      v_depth := v_depth + 1;
      if v_depth > c_max_depth then
        raise exception 'the % is nested more than % levels deep', p_what, c_max_depth
          using errcode = 'SW002', hint = 'Flatten it.';
      end if;
      select coalesce(array_agg(c.child), '{}') into v_layer
        from unnest(v_layer) p(value)
       cross join lateral (
         select e.value as child from jsonb_array_elements(case when jsonb_typeof(p.value) = 'array' then p.value else '[]' end) e(value)
         union all
         select o.value from jsonb_each(case when jsonb_typeof(p.value) = 'object' then p.value else '{}' end) o(key, value)) c
       where jsonb_typeof(c.child) in ('array', 'object');
    end loop;
  end if;
end
$$;
comment on function stellwerk.check_payload(jsonb, text) is 'Raises SW002 for a value of more than 8 MB, 64 levels or a number of more than 40 characters.';

-- Not infinity: clients in many languages cannot read that.
create or replace function stellwerk.never()
returns timestamptz language sql immutable parallel safe
return '9000-01-01 00:00:00+00'::timestamptz;
comment on function stellwerk.never() is 'When timers and steps of a paused run are due.';
