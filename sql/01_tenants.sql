-- A new tenant is open to the web application, which knows its users, and to workers; logins are let in by name.

create or replace function stellwerk.open_tenant()
returns trigger language plpgsql set search_path = '' as $$
begin
  insert into stellwerk.tenant_role (tenant_id, role_name)
  values (new.tenant_id, 'stellwerk_web'), (new.tenant_id, 'stellwerk_worker')
  on conflict do nothing;
  return null;
end
$$;
comment on function stellwerk.open_tenant() is 'Trigger of tenant: opens a new tenant to the roles of the web application and of the workers.';

create or replace trigger tenant_opened after insert on stellwerk.tenant
  for each row execute function stellwerk.open_tenant();
