-- Three contact forms, as the clinic's website would store them: plain INSERTs, and nothing else.

insert into praxis.contact_request (name, email, phone, message, wishes, consent)
values ('Anna Berger', 'anna.berger@example.org', '+49 30 5550101',
        'Ich habe seit zwei Wochen Rückenschmerzen.', 'vormittags', true);

insert into praxis.contact_request (name, email, phone, message, wishes, consent)
values ('Mira Kowalski', 'mira.kowalski@example.org', '+49 30 5550102',
        'Neu in der Stadt und auf der Suche nach einer Hausarztpraxis.', null, true);

insert into praxis.contact_request (name, email, phone, message, wishes, consent)
values ('Jonas Weber', 'jonas.weber@example.org', '+49 30 5550103',
        'Bitte um einen Termin zur Nachkontrolle.', 'Donnerstag, wenn es geht', true);
