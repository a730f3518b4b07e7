-- What the clinic knows already when the contact forms arrive. May be loaded again.

insert into praxis.patient_document (patient_email, kind) values
  ('anna.berger@example.org',  'versicherungskarte'),
  ('anna.berger@example.org',  'ueberweisung'),
  ('anna.berger@example.org',  'einwilligung'),
  ('jonas.weber@example.org',  'versicherungskarte'),
  ('jonas.weber@example.org',  'ueberweisung'),
  ('jonas.weber@example.org',  'einwilligung'),
  ('mira.kowalski@example.org', 'einwilligung')
on conflict do nothing;

insert into praxis.appointment (patient_email, starts_at) values
  ('anna.berger@example.org', '2031-03-04 09:30+01'),
  ('jonas.weber@example.org', '2031-03-05 14:00+01')
on conflict do nothing;
