-- What the pages of tasks, figures and alerts ask for.

-- Lists of tasks are read in the order of their due times, one list for each way in which a task can be somebody's.
create index user_task_of_assignee_by_due on stellwerk.user_task (tenant_id, assignee, coalesce(due_at, 'infinity'::timestamptz), task_id) where state = 'open';
create index user_task_of_role_by_due on stellwerk.user_task (tenant_id, role, coalesce(due_at, 'infinity'::timestamptz), task_id)
  where state = 'open' and assignee is null;
create index user_task_claimed_by_due on stellwerk.user_task (tenant_id, claimed_by, coalesce(due_at, 'infinity'::timestamptz), task_id) where state = 'claimed';
create index user_task_by_due on stellwerk.user_task (tenant_id, due_at) where state in ('open', 'claimed') and due_at is not null;
