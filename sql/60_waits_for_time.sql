-- Waiting for a time: logic.wait without an event, timer.*.

create or replace function stellwerk.begin_time_wait(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome := row(null, p_config, null, null);
  v_now     timestamptz := stellwerk.clock();
  v_place   constant text := case when p_node.type like 'timer.%' then 'at' else 'of' end;
  v_of      jsonb := p_config -> v_place;
  v_name    text := p_config ->> 'calendar';
  v_calendar stellwerk.calendar;
  v_zone    text;
  v_shift   interval;
  v_due     timestamptz;
begin
  begin
    if v_name is not null then
      v_calendar := stellwerk.find_calendar(p_tenant_id, v_name);
    end if;
    v_zone := coalesce(v_calendar.time_zone, stellwerk.zone_of(p_tenant_id));
    v_shift := coalesce(-(coalesce(p_config ->> 'before', p_config ->> 'offset'))::interval, (p_config ->> 'after')::interval, '0');
    if jsonb_typeof(v_of) = 'object' and jsonb_typeof(p_node.config -> v_place) <> 'object' then
      raise data_exception using message = 'a row to follow is named in the workflow itself, not by an expression';
    elsif jsonb_typeof(v_of) = 'object' then
      return stellwerk.begin_row_wait(p_tenant_id, p_token, p_config, v_of, v_shift, v_name);
    elsif p_config ->> 'for' is not null and v_name is not null then
      v_due := stellwerk.working_time(v_calendar, v_now, (p_config ->> 'for')::interval);
    elsif p_config ->> 'for' is not null then
      v_due := stellwerk.shift_time(v_now, (p_config ->> 'for')::interval, v_zone);
    else
      v_due := stellwerk.due_time(stellwerk.read_time(coalesce(p_config ->> 'until', v_of #>> '{}'), v_zone), v_shift, v_zone, v_calendar);
    end if;
  exception
    when data_exception then
      v_outcome.error := stellwerk.step_error(p_token, 'bad_time', format('the time to wait for cannot be read: %s', sqlerrm), false);
      return v_outcome;
    when sqlstate 'SW007' then
      v_outcome.error := stellwerk.step_error(p_token, 'no_calendar', sqlerrm, false);
      return v_outcome;
  end;
  if v_due is null or v_due = 'infinity' then
    v_outcome.error := stellwerk.step_error(p_token, 'no_time', 'the time to wait for is empty', false);
  elsif v_due > v_now then
    insert into stellwerk.timer (tenant_id, kind, run_id, step_id, due_at)
    values (p_tenant_id, 'wait', p_token.run_id, p_token.step_id, v_due);
    v_outcome.port := '*wait';
  else
    v_outcome := stellwerk.pass_by(p_token, p_config, v_due, v_now);
  end if;
  return v_outcome;
end
$$;
comment on function stellwerk.begin_time_wait(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'Sets a timer for the time that the settings name; for one that has passed already does what past says.';

create or replace function stellwerk.due_time(p_at timestamptz, p_shift interval, p_zone text, p_calendar stellwerk.calendar)
returns timestamptz language sql stable set search_path = ''
return case when p_at is null or not isfinite(p_at) then p_at
            when (p_calendar).name is null then stellwerk.shift_time(p_at, p_shift, p_zone)
            else stellwerk.working_time(p_calendar, stellwerk.shift_time(p_at, p_shift, p_zone)) end;
comment on function stellwerk.due_time(timestamptz, interval, text, stellwerk.calendar) is 'A time shifted, and put off to the calendar''s next working time if there is one.';

create or replace function stellwerk.pass_by(p_token stellwerk.token, p_config jsonb, p_due timestamptz, p_now timestamptz)
returns stellwerk.outcome language plpgsql stable set search_path = '' as $$
declare
  v_outcome stellwerk.outcome := row(null, p_config, null, null);
begin
  if p_config ->> 'past' = 'fail' then
    v_outcome.error := stellwerk.step_error(p_token, 'past', format('the time to wait for has passed: %s', stellwerk.at_text(p_due)), false);
  else
    v_outcome.port := case p_config ->> 'past' when 'skip' then '*skip' else 'next' end;
    v_outcome.output := jsonb_build_object('fired_at', p_now);
  end if;
  return v_outcome;
end
$$;
comment on function stellwerk.pass_by(stellwerk.token, jsonb, timestamptz, timestamptz) is 'What a wait does whose time has passed when it begins: past fire, skip or fail.';
