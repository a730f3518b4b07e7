-- What ties the application to Stellwerk: which of its tables workflows may use. The contact form's table is not
-- among them: publishing the workflow puts its trigger on it.

do $grant$
begin
  -- The engine's own role. Where the installer may not make roles, the engine works as the installer instead.
  if to_regrole('stellwerk_owner') is not null then
    grant usage on schema praxis to stellwerk_owner;
    grant select, insert, update, delete on praxis.patient_document, praxis.appointment to stellwerk_owner;
  end if;
end
$grant$;

select stellwerk.register_table('praxis.patient_document', 'patient_document');
select stellwerk.register_table('praxis.appointment', 'appointment');
