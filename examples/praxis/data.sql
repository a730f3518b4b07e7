-- What the clinic knows already when the contact forms arrive. May be loaded again.

insert into praxis.patient_document (patient_email, kind) values
  ('anna.berger@example.org',   'versicherungskarte'),
  ('anna.berger@example.org',   'ueberweisung'),
  ('jonas.weber@example.org',   'versicherungskarte'),
  ('jonas.weber@example.org',   'ueberweisung'),
  ('mira.kowalski@example.org', 'versicherungskarte')
on conflict do nothing;
