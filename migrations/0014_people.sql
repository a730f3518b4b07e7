-- People: who they are, the tasks that runs ask of them, and the mails that tell them.

create table stellwerk.app_user (
  tenant_id     bigint      not null references stellwerk.tenant,
  user_id       bigint      not null generated always as identity,
  email         text        not null,
  name          text,
  role          text        not null,
  groups        text[]      not null default '{}',
  login         text,
  active        boolean     not null default true,
  mails         boolean     not null default true,
  absent_from   timestamptz,
  absent_until  timestamptz,
  delegate      text,
  created_at    timestamptz not null default clock_timestamp(),
  created_by    text        not null,

  primary key (tenant_id, user_id),
  constraint app_user_email_unique unique (tenant_id, email),
  constraint app_user_login_unique unique (tenant_id, login),
  constraint app_user_email_plain check (email = lower(email) and length(email) between 3 and 320 and email !~ '[\s:,;<>()]' and position('@' in email) > 1),
  constraint app_user_role_known check (role in ('viewer', 'staff', 'designer', 'operator', 'admin')),
  constraint app_user_absence_ends_after check (absent_until > absent_from),
  constraint app_user_delegate_is_another check (delegate <> email)
);

comment on table stellwerk.app_user is 'The people who work with a tenant''s tasks, cases and workflows.';
comment on column stellwerk.app_user.tenant_id is 'The tenant.';
comment on column stellwerk.app_user.user_id is 'Opaque number.';
comment on column stellwerk.app_user.email is 'E-mail address in lower case: the name by which tasks, notifications and the audit log know the person.';
comment on column stellwerk.app_user.name is 'Name for people.';
comment on column stellwerk.app_user.role is 'viewer, staff, designer, operator or admin.';
comment on column stellwerk.app_user.groups is 'Further roles that tasks may be offered to, such as accounting.';
comment on column stellwerk.app_user.login is 'The database login that speaks for the person in direct connections: db:<login> is this user.';
comment on column stellwerk.app_user.active is 'False once the person has left: gets no tasks and no mails, and may decide nothing.';
comment on column stellwerk.app_user.mails is 'Whether the person wants mails beside the notifications in the application.';
comment on column stellwerk.app_user.absent_from is 'Since when, or from when, the person is away.';
comment on column stellwerk.app_user.absent_until is 'Until when; null while the end is not known.';
comment on column stellwerk.app_user.delegate is 'E-mail address of the user who acts for the person meanwhile.';
comment on column stellwerk.app_user.created_at is 'When the user was added.';
comment on column stellwerk.app_user.created_by is 'Who added the user.';

create table stellwerk.user_task (
  tenant_id     bigint      not null,
  task_id       bigint      not null generated always as identity,
  run_id        bigint      not null,
  step_id       bigint      not null,
  state         text        not null default 'open',
  title         text        not null,
  instructions  text,
  form          jsonb,
  prefill       jsonb,
  outcomes      text[],
  assignee      text,
  role          text,
  claimed_by    text,
  claimed_at    timestamptz,
  approvals     integer     not null default 1,
  allow_self    boolean     not null default true,
  due_at        timestamptz,
  reminded      text,
  ladder        jsonb       not null default '[]',
  rung          integer     not null default 0,
  draft         jsonb,
  outcome       text,
  result        jsonb,
  completed_by  text,
  reason        text,
  created_at    timestamptz not null default clock_timestamp(),
  ended_at      timestamptz,

  primary key (tenant_id, task_id),
  constraint user_task_state_known check (state in ('open', 'claimed', 'completed', 'expired', 'cancelled')),
  constraint user_task_offered_to_somebody check (coalesce(assignee, role) is not null),
  constraint user_task_claimed_by_somebody check ((state = 'claimed') <= (claimed_by is not null)),
  constraint user_task_ended_has_time check ((ended_at is not null) = (state in ('completed', 'expired', 'cancelled'))),
  constraint user_task_reminder_known check (reminded in ('due', 'overdue'))
) with (fillfactor = 80);

-- What somebody, or somebody of a role, has to do.
create index user_task_of_assignee on stellwerk.user_task (tenant_id, assignee, task_id) where state in ('open', 'claimed');
create index user_task_of_role on stellwerk.user_task (tenant_id, role, task_id) where state in ('open', 'claimed');
create index user_task_of_step on stellwerk.user_task (tenant_id, run_id, step_id, task_id);

comment on table stellwerk.user_task is 'What a run asks of a person: a form to fill in, a decision. Ended tasks stay as long as their run.';
comment on column stellwerk.user_task.tenant_id is 'The tenant that the run belongs to.';
comment on column stellwerk.user_task.task_id is 'Opaque number.';
comment on column stellwerk.user_task.run_id is 'The run.';
comment on column stellwerk.user_task.step_id is 'The step that waits for it.';
comment on column stellwerk.user_task.state is 'open, claimed (somebody of the role has taken it), completed, expired (its time was up) or cancelled (the run went another way).';
comment on column stellwerk.user_task.title is 'One line that lists show.';
comment on column stellwerk.user_task.instructions is 'What the person should do.';
comment on column stellwerk.user_task.form is 'JSON Schema of the result; null: any result.';
comment on column stellwerk.user_task.prefill is 'Values that the form begins with.';
comment on column stellwerk.user_task.outcomes is 'The decisions to choose from; null: there is nothing to choose.';
comment on column stellwerk.user_task.assignee is 'E-mail address of the person who is asked; null: anybody of the role.';
comment on column stellwerk.user_task.role is 'The role, or group of users, that it is offered to.';
comment on column stellwerk.user_task.claimed_by is 'Who has taken it.';
comment on column stellwerk.user_task.claimed_at is 'When.';
comment on column stellwerk.user_task.approvals is 'How many different people must choose the first outcome; any other outcome decides at once.';
comment on column stellwerk.user_task.allow_self is 'False: who started the run may not decide.';
comment on column stellwerk.user_task.due_at is 'When it should be done. A pause of the run moves it.';
comment on column stellwerk.user_task.reminded is 'due once people were told that the time is nearly up, overdue once they were told that it is.';
comment on column stellwerk.user_task.ladder is 'What happens while nobody decides, in order of time: [{ after, do, to, outcome }].';
comment on column stellwerk.user_task.rung is 'How many of these have happened.';
comment on column stellwerk.user_task.draft is 'What somebody has filled in so far, kept for later.';
comment on column stellwerk.user_task.outcome is 'The decision.';
comment on column stellwerk.user_task.result is 'The form as it was handed in.';
comment on column stellwerk.user_task.completed_by is 'Who decided; escalation when the ladder did.';
comment on column stellwerk.user_task.reason is 'Why it was cancelled or expired.';
comment on column stellwerk.user_task.created_at is 'When the run came to it.';
comment on column stellwerk.user_task.ended_at is 'When it was completed, expired or cancelled.';

-- The engine never waits for a person's open transaction: what it wants of a task that somebody holds stands here meanwhile.
create table stellwerk.user_task_change (
  tenant_id   bigint      not null,
  task_id     bigint      not null,
  change_id   bigint      not null generated always as identity,
  cancels     boolean     not null default false,
  moves_by    interval,
  created_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, task_id, change_id),
  constraint user_task_change_does_one_thing check (cancels = (moves_by is null))
);

comment on table stellwerk.user_task_change is 'What the engine still has to do to a task that somebody''s transaction held at the time; tick does it and removes the row.';
comment on column stellwerk.user_task_change.tenant_id is 'The tenant.';
comment on column stellwerk.user_task_change.task_id is 'The task.';
comment on column stellwerk.user_task_change.change_id is 'Opaque number that follows time.';
comment on column stellwerk.user_task_change.cancels is 'The run no longer waits for the task: nobody may decide it any more.';
comment on column stellwerk.user_task_change.moves_by is 'The due date moves by this, for the run was paused.';
comment on column stellwerk.user_task_change.created_at is 'When it was noted.';

create table stellwerk.user_task_decision (
  tenant_id   bigint      not null,
  task_id     bigint      not null,
  actor       text        not null,
  outcome     text,
  result      jsonb,
  decided_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, task_id, actor),
  foreign key (tenant_id, task_id) references stellwerk.user_task on delete cascade
);

comment on table stellwerk.user_task_decision is 'What each person said to a task; more than one row where it takes several approvals.';
comment on column stellwerk.user_task_decision.tenant_id is 'The tenant.';
comment on column stellwerk.user_task_decision.task_id is 'The task.';
comment on column stellwerk.user_task_decision.actor is 'Who; nobody decides the same task twice.';
comment on column stellwerk.user_task_decision.outcome is 'The outcome chosen.';
comment on column stellwerk.user_task_decision.result is 'The form as that person handed it in.';
comment on column stellwerk.user_task_decision.decided_at is 'When.';

create table stellwerk.user_task_comment (
  tenant_id   bigint      not null,
  task_id     bigint      not null,
  comment_id  bigint      not null generated always as identity,
  actor       text        not null,
  body        text        not null,
  created_at  timestamptz not null default clock_timestamp(),

  primary key (tenant_id, task_id, comment_id),
  foreign key (tenant_id, task_id) references stellwerk.user_task on delete cascade,
  constraint user_task_comment_of_sane_length check (length(body) between 1 and 10000)
);

comment on table stellwerk.user_task_comment is 'What people wrote to a task.';
comment on column stellwerk.user_task_comment.tenant_id is 'The tenant.';
comment on column stellwerk.user_task_comment.task_id is 'The task.';
comment on column stellwerk.user_task_comment.comment_id is 'Opaque number that follows time within a task.';
comment on column stellwerk.user_task_comment.actor is 'Who wrote it.';
comment on column stellwerk.user_task_comment.body is 'The text, 1 to 10000 characters.';
comment on column stellwerk.user_task_comment.created_at is 'When.';

create table stellwerk.user_task_attachment (
  tenant_id      bigint      not null,
  task_id        bigint      not null,
  attachment_id  bigint      not null generated always as identity,
  actor          text        not null,
  name           text        not null,
  reference      text        not null,
  media_type     text,
  created_at     timestamptz not null default clock_timestamp(),

  primary key (tenant_id, task_id, attachment_id),
  foreign key (tenant_id, task_id) references stellwerk.user_task on delete cascade,
  constraint user_task_attachment_of_sane_length check (length(name) between 1 and 255 and length(reference) between 1 and 2000)
);

comment on table stellwerk.user_task_attachment is 'Files that belong to a task, by reference: the file itself lies elsewhere.';
comment on column stellwerk.user_task_attachment.tenant_id is 'The tenant.';
comment on column stellwerk.user_task_attachment.task_id is 'The task.';
comment on column stellwerk.user_task_attachment.attachment_id is 'Opaque number that follows time within a task.';
comment on column stellwerk.user_task_attachment.actor is 'Who attached it.';
comment on column stellwerk.user_task_attachment.name is 'The file''s name.';
comment on column stellwerk.user_task_attachment.reference is 'Where it is: an address, a path of the file store, the number of a document.';
comment on column stellwerk.user_task_attachment.media_type is 'Such as application/pdf.';
comment on column stellwerk.user_task_attachment.created_at is 'When.';

-- Mails are sent by a worker after the commit that ordered them; this row is the order and its outcome.
create table stellwerk.message (
  tenant_id   bigint      not null references stellwerk.tenant,
  message_id  bigint      not null generated always as identity,
  channel     text        not null default 'email',
  recipient   text        not null,
  subject     text,
  body        text        not null,
  link        text,
  state       text        not null default 'queued',
  attempts    integer     not null default 0,
  error       text,
  due_at      timestamptz not null default clock_timestamp(),
  job_id      bigint,
  run_id      bigint,
  step_id     bigint,
  task_id     bigint,
  created_at  timestamptz not null default clock_timestamp(),
  ended_at    timestamptz,

  primary key (tenant_id, message_id),
  constraint message_channel_known check (channel in ('email')),
  constraint message_state_known check (state in ('queued', 'sent', 'failed', 'suppressed')),
  constraint message_ended_has_time check ((ended_at is null) = (state = 'queued'))
) with (fillfactor = 80);

create index message_queued on stellwerk.message (tenant_id, due_at) where state = 'queued';
create index message_of_run on stellwerk.message (tenant_id, run_id);

comment on table stellwerk.message is 'The outbox: messages to people outside the application, and what became of them.';
comment on column stellwerk.message.tenant_id is 'The tenant.';
comment on column stellwerk.message.message_id is 'Opaque number; part of a mail''s Message-ID, so that a repetition can be recognised.';
comment on column stellwerk.message.channel is 'email.';
comment on column stellwerk.message.recipient is 'The address that it goes to.';
comment on column stellwerk.message.subject is 'One line.';
comment on column stellwerk.message.body is 'Plain text.';
comment on column stellwerk.message.link is 'Path in the application that the worker appends as a full address.';
comment on column stellwerk.message.state is 'queued, sent (the server took it), failed (given up; error says why) or suppressed (not to be sent; error says why).';
comment on column stellwerk.message.attempts is 'How often sending was tried.';
comment on column stellwerk.message.error is 'Why the last try failed, or why it was suppressed.';
comment on column stellwerk.message.due_at is 'While queued: not to be tried before; a try that is under way moves it ahead.';
comment on column stellwerk.message.job_id is 'Its row in the queue.';
comment on column stellwerk.message.run_id is 'The run that it comes from.';
comment on column stellwerk.message.step_id is 'That run''s step.';
comment on column stellwerk.message.task_id is 'The task that it tells of.';
comment on column stellwerk.message.created_at is 'When it was ordered.';
comment on column stellwerk.message.ended_at is 'When it was sent, given up or suppressed.';

-- Who changed a row that started a run may not approve it. The login is a fact; the name that a session gives itself is a claim,
-- so neither stands in for the other. The default is read by the trigger's own insert, which stays as short as it was.
alter table stellwerk.event add column login name, add column actor text;
alter table stellwerk.event alter column login set default session_user;
alter table stellwerk.event_batch add column login name, add column actor text;
alter table stellwerk.event_batch alter column login set default session_user;
comment on column stellwerk.event.login is 'The database login that changed the row.';
comment on column stellwerk.event.actor is 'For whom it said to do so: the setting stellwerk.actor of its session; null if it named nobody.';
comment on column stellwerk.event_batch.login is 'As in event.';
comment on column stellwerk.event_batch.actor is 'As in event.';

alter type stellwerk.run_order add attribute created_by text;
comment on column stellwerk.run.created_by is 'Who asked for it: a user, or db:<login>. Of a changed row "db:<login> for <actor>"; of a run that another one caused, also who asked for that one; of a called run, who asked for its caller.';

create type stellwerk.person as (
  name    text,
  login   text,
  email   text,
  role    text,
  groups  text[],
  stands  text[],
  steers  boolean,
  admin   boolean
);
comment on type stellwerk.person is 'Who acts: name as it is recorded, db:<login>, e-mail address, role and groups of the user; stands: whose tasks the person may do, its own address and those of absent people; steers: may reassign any task; admin: may decide any task and manage users.';
