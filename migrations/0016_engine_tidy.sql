-- What a review of the engine found to be there twice, or to be missing.
-- Migrations run in one transaction, so no index is dropped concurrently.
-- squawk-ignore-file require-concurrent-index-deletion

-- run_asleep holds the same rows: who wants all of a tenant's finds them by its first column, who wants a workflow's by the first two.
drop index stellwerk.run_still;

-- forget_subject looks for the person's name in what these touch, and gives them the name.
-- squawk-ignore ban-drop-function
drop function if exists stellwerk.forget_tasks(bigint, bigint[]), stellwerk.forget_cases(bigint, bigint[]), stellwerk.forget_in_audit(bigint, bigint[]);
