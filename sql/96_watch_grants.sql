-- Whoever may put triggers on a table may watch it. watch_table runs with the caller's rights, so the roles that may call it
-- need its inner functions, which ask for the session's rights themselves, and the functions behind the triggers.
do $security$
declare
  v_role text;
begin
  foreach v_role in array array['stellwerk_dba', 'stellwerk_web'] loop
    continue when to_regrole(v_role) is null;
    execute format(
      'grant execute on function stellwerk.find_row_trigger, stellwerk.plan_watch, stellwerk.confirm_watch, stellwerk.watches_of,'
      ' stellwerk.triggers_of_watch, stellwerk.forget_watch, stellwerk.row_triggers, stellwerk.outdated_watches,'
      ' stellwerk.capture_row, stellwerk.capture_statement to %I', v_role);
    execute format('grant select on stellwerk.watch_overview to %I', v_role);
  end loop;
end
$security$;
