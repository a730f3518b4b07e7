-- A worker that pumps, or hands in results, can take the steps that become ready in that same call: they are stored as its
-- running steps, never queued. Who may take how many is passed on to where steps come to rest.

create type stellwerk.taker as (
  worker_id bigint,
  types     text[],
  room      integer
);
comment on type stellwerk.taker is 'A worker that takes steps in the call that makes them ready: of these types, at most so many.';

-- squawk-ignore ban-drop-function
drop function if exists
  stellwerk.complete_steps(bigint, bigint, jsonb),
  stellwerk.record_results(bigint, bigint, jsonb, boolean),
  stellwerk.move_runs(bigint, bigint[], stellwerk.move[], boolean),
  stellwerk.advance_runs(bigint, bigint[], stellwerk.move[], boolean, boolean),
  stellwerk.rest_queued(bigint, stellwerk.token[]),
  stellwerk.advance_some(bigint, integer, boolean),
  stellwerk.pump_tenant(bigint, integer),
  stellwerk.pump_tenants(integer),
  stellwerk.take_steps(bigint, bigint, stellwerk.token[], jsonb[], interval[], interval),
  stellwerk.begin_locked(bigint, bigint, bigint[], bigint[]),
  stellwerk.begin_ready(bigint, text[], integer, jsonb);
