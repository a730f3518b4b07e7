-- Locks are taken in the subtransactions that need them; what stood between goes.

-- squawk-ignore ban-drop-function
drop function if exists stellwerk.advance_safely(bigint, bigint[], boolean), stellwerk.process_portion(bigint, bigint[]);
