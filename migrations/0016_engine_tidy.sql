-- What a review of the engine found to be there twice, or to be missing.
-- Migrations run in one transaction, so no index is dropped concurrently.
-- squawk-ignore-file require-concurrent-index-deletion

-- run_asleep holds the same rows: who wants all of a tenant's finds them by its first column, who wants a workflow's by the first two.
drop index stellwerk.run_still;
