-- Appointments of cases: made, moved and cancelled by workflows (action.backoffice_push) and by staff.

create or replace function stellwerk.case_appointment_trouble(p_tenant_id bigint, p_token stellwerk.token, p_appointment jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
declare
  v_zone   text;
  v_starts timestamptz;
begin
  if coalesce(p_appointment, 'null') = 'null' then
    return null;
  elsif jsonb_typeof(p_appointment) <> 'object' then
    return stellwerk.step_error(p_token, 'bad_value', 'appointment is no object', false);
  end if;
  v_zone := stellwerk.zone_of(p_tenant_id);
  begin
    v_starts := stellwerk.read_time(p_appointment ->> 'starts_at', v_zone);
    if stellwerk.read_time(p_appointment ->> 'ends_at', v_zone) < v_starts then
      return stellwerk.step_error(p_token, 'bad_value', 'the appointment ends before it starts', false);
    end if;
  exception when data_exception then
    return stellwerk.step_error(p_token, 'bad_value', 'starts_at or ends_at of the appointment is no time', false);
  end;
  return null;
end
$$;
comment on function stellwerk.case_appointment_trouble(bigint, stellwerk.token, jsonb) is 'The error of a step whose appointment cannot be read; null when all is well.';

create or replace function stellwerk.push_case_appointment(p_case stellwerk.backoffice_case, p_token stellwerk.token, p_appointment jsonb)
returns bigint language plpgsql set search_path = '' as $$
declare
  v_zone   text := stellwerk.zone_of(p_case.tenant_id);
  v_starts timestamptz := stellwerk.read_time(p_appointment ->> 'starts_at', v_zone);
  v_ends   timestamptz := stellwerk.read_time(p_appointment ->> 'ends_at', v_zone);
  v_key    text := left(coalesce(p_appointment ->> 'key', 'appointment'), 200);
  v_title  text := left(coalesce(nullif(p_appointment ->> 'title', ''), p_case.summary, p_case.workflow), 500);
  v_actor  text := 'run:' || p_token.run_id;
  v_now    timestamptz := stellwerk.clock();
  v_before stellwerk.case_appointment;
  v_after  stellwerk.case_appointment;
begin
  select * into v_before from stellwerk.case_appointment a
   where a.tenant_id = p_case.tenant_id and a.case_id = p_case.case_id and a.key = v_key for update;
  if v_starts is null then
    delete from stellwerk.case_appointment a where a.tenant_id = p_case.tenant_id and a.appointment_id = v_before.appointment_id;
  elsif v_before.appointment_id is null then
    insert into stellwerk.case_appointment (tenant_id, case_id, key, title, starts_at, ends_at, location, created_at, created_by, updated_at)
    values (p_case.tenant_id, p_case.case_id, v_key, v_title, v_starts, v_ends, left(p_appointment ->> 'location', 500), v_now, v_actor, v_now)
    returning * into v_after;
  else
    update stellwerk.case_appointment a
       set starts_at = v_starts, ends_at = v_ends, title = v_title, location = coalesce(left(p_appointment ->> 'location', 500), a.location),
           version = a.version + 1, updated_at = v_now
     where a.tenant_id = p_case.tenant_id and a.appointment_id = v_before.appointment_id
    returning * into v_after;
  end if;
  perform stellwerk.note_appointment(v_before, v_after, v_actor, p_token.run_id, p_token.step_id, null);
  return v_after.appointment_id;
end
$$;
comment on function stellwerk.push_case_appointment(stellwerk.backoffice_case, stellwerk.token, jsonb) is 'The appointment that a workflow keeps under a key: makes it, moves it, or cancels it where starts_at is null. Answers its number, null once it is cancelled.';

create or replace function stellwerk.note_appointment(
  p_before stellwerk.case_appointment, p_after stellwerk.case_appointment, p_actor text, p_run_id bigint, p_step_id bigint, p_remark text)
returns void language plpgsql set search_path = '' as $$
declare
  v_case    stellwerk.backoffice_case;
  v_changes jsonb;
begin
  select coalesce(jsonb_object_agg('appointment.' || f.name, jsonb_build_object('from', f.old, 'to', f.new)), '{}') into v_changes
    from (values ('title', to_jsonb(p_before.title), to_jsonb(p_after.title)), ('starts_at', to_jsonb(p_before.starts_at), to_jsonb(p_after.starts_at)),
                 ('ends_at', to_jsonb(p_before.ends_at), to_jsonb(p_after.ends_at)),
                 ('location', to_jsonb(p_before.location), to_jsonb(p_after.location))) f (name, old, new)
   where f.old is distinct from f.new;
  if v_changes = '{}' then
    return;
  end if;
  select * into v_case from stellwerk.backoffice_case c
   where c.tenant_id = coalesce(p_after.tenant_id, p_before.tenant_id) and c.case_id = coalesce(p_after.case_id, p_before.case_id);
  insert into stellwerk.case_history (tenant_id, case_id, kind, status, note, changes, remark, version, actor, run_id, step_id, changed_at)
  values (v_case.tenant_id, v_case.case_id, 'appointment', v_case.status, v_case.note,
          v_changes || jsonb_build_object('appointment', coalesce(p_after.appointment_id, p_before.appointment_id)::text), p_remark, v_case.version,
          p_actor, p_run_id, p_step_id, stellwerk.clock());
end
$$;
comment on function stellwerk.note_appointment(stellwerk.case_appointment, stellwerk.case_appointment, text, bigint, bigint, text) is 'Writes into the case''s history that an appointment was made (before is null), moved or cancelled (after is null).';

create or replace function stellwerk.add_case_appointment(
  case_id bigint, title text, starts_at timestamptz, ends_at timestamptz default null, location text default null)
returns bigint language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_actor     text := stellwerk.case_editor(v_tenant_id);
  v_case      stellwerk.backoffice_case := stellwerk.lock_case(v_tenant_id, add_case_appointment.case_id);
  v_now       timestamptz := stellwerk.clock();
  v_after     stellwerk.case_appointment;
begin
  perform stellwerk.check_appointment(title, starts_at, ends_at, location);
  insert into stellwerk.case_appointment as a (tenant_id, case_id, title, starts_at, ends_at, location, created_at, created_by, updated_at)
  values (v_tenant_id, v_case.case_id, add_case_appointment.title, add_case_appointment.starts_at, add_case_appointment.ends_at,
          add_case_appointment.location, v_now, v_actor, v_now)
  returning a.* into v_after;
  perform stellwerk.note_appointment(null, v_after, v_actor, null, null, null);
  return v_after.appointment_id;
end
$$;
comment on function stellwerk.add_case_appointment(bigint, text, timestamptz, timestamptz, text) is 'Makes an appointment of a case; answers its number. Errors: SW002, SW004, SW007.';

create or replace function stellwerk.move_case_appointment(
  appointment_id bigint, starts_at timestamptz, ends_at timestamptz default null, location text default null, version integer default null)
returns integer language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_actor     text := stellwerk.case_editor(v_tenant_id);
  v_before    stellwerk.case_appointment := stellwerk.lock_appointment(v_tenant_id, appointment_id, version);
  v_ends      timestamptz := coalesce(ends_at, v_before.ends_at + (starts_at - v_before.starts_at));
  v_now       timestamptz := stellwerk.clock();
  v_after     stellwerk.case_appointment;
begin
  perform stellwerk.check_appointment(v_before.title, starts_at, v_ends, location);
  update stellwerk.case_appointment a
     set starts_at = move_case_appointment.starts_at, ends_at = v_ends, location = coalesce(move_case_appointment.location, a.location),
         version = a.version + 1, updated_at = v_now
   where a.tenant_id = v_tenant_id and a.appointment_id = v_before.appointment_id
  returning a.* into v_after;
  perform stellwerk.note_appointment(v_before, v_after, v_actor, null, null, null);
  return v_after.version;
end
$$;
comment on function stellwerk.move_case_appointment(bigint, timestamptz, timestamptz, text, integer) is 'Moves an appointment; without ends_at it keeps its length. Timers that follow it move with it. Answers its new version. Errors: SW002, SW004, SW005 when it is no longer the version that the caller saw, SW007.';

create or replace function stellwerk.cancel_case_appointment(appointment_id bigint, reason text default null, version integer default null)
returns void language plpgsql security definer  -- callers have no right to write the tables
set search_path = '' as $$
declare
  v_tenant_id bigint := stellwerk.current_tenant_id();
  v_actor     text := stellwerk.case_editor(v_tenant_id);
  v_before    stellwerk.case_appointment := stellwerk.lock_appointment(v_tenant_id, appointment_id, version);
begin
  delete from stellwerk.case_appointment a where a.tenant_id = v_tenant_id and a.appointment_id = v_before.appointment_id;
  perform stellwerk.note_appointment(v_before, null, v_actor, null, null, reason);
end
$$;
comment on function stellwerk.cancel_case_appointment(bigint, text, integer) is 'Cancels an appointment: its row goes, the case''s history keeps it, and waits that follow it leave by the port gone. Errors: SW004, SW005, SW007.';

create or replace function stellwerk.lock_appointment(p_tenant_id bigint, p_appointment_id bigint, p_version integer)
returns stellwerk.case_appointment language plpgsql set search_path = '' as $$
declare
  v_appointment stellwerk.case_appointment;
begin
  select * into v_appointment from stellwerk.case_appointment a
   where a.tenant_id = p_tenant_id and a.appointment_id = p_appointment_id for update;
  if v_appointment.appointment_id is null then
    raise exception 'there is no appointment %', coalesce(p_appointment_id::text, 'null')
      using errcode = 'SW007', hint = 'A cancelled one stands in its case''s history: select * from stellwerk.case_timeline.';
  elsif p_version <> v_appointment.version then
    raise exception 'appointment % has changed meanwhile: it is version % now, not %', p_appointment_id, v_appointment.version, p_version
      using errcode = 'SW005', hint = 'Look at it again, then decide.';
  end if;
  return v_appointment;
end
$$;
comment on function stellwerk.lock_appointment(bigint, bigint, integer) is 'An appointment, locked, if it is the version that the caller saw (null: any). Errors: SW005, SW007.';

create or replace function stellwerk.check_appointment(p_title text, p_starts_at timestamptz, p_ends_at timestamptz, p_location text)
returns void language plpgsql immutable set search_path = '' as $$
begin
  if coalesce(length(p_title), 0) not between 1 and 500 or length(p_location) > 500 then
    raise exception 'an appointment has a title of 1 to 500 characters, and a location of at most 500' using errcode = 'SW002';
  elsif p_starts_at is null or not isfinite(p_starts_at) then
    raise exception 'an appointment needs a time at which it starts' using errcode = 'SW002', hint = 'stellwerk.cancel_case_appointment cancels one.';
  elsif p_ends_at < p_starts_at then
    raise exception 'the appointment would end before it starts' using errcode = 'SW002';
  end if;
end
$$;
comment on function stellwerk.check_appointment(text, timestamptz, timestamptz, text) is 'Raises SW002 for an appointment that cannot be.';
