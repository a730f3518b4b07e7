-- What designers and operators need: reasons by their code, and moving runs to another version in bulk.

alter type stellwerk.reason add attribute code text;
comment on column stellwerk.reason.code is 'What kind of reason it is; stays the same when the sentence changes. With the values in evidence it can be said in another language.';

-- It answers a column more.
-- squawk-ignore ban-drop-function
drop function if exists stellwerk.explain_run(bigint);

-- Moving runs to another version is a bulk operation too. The table holds few rows, all of which fit.
-- squawk-ignore ban-drop-constraint
alter table stellwerk.bulk_operation drop constraint bulk_operation_action_known;
-- squawk-ignore constraint-missing-not-valid
alter table stellwerk.bulk_operation add constraint bulk_operation_action_known
  check (action in ('cancel', 'pause', 'resume', 'retry', 'skip', 'migrate'));
alter table stellwerk.bulk_operation add column verdicts jsonb;
comment on column stellwerk.bulk_operation.verdicts is 'For migrate, when it was counted: { counts: { ok, needs_map, blocked }, versions, left: [the first runs that cannot move] }; null for the others.';
comment on column stellwerk.bulk_operation.action is 'cancel, pause, resume, retry, skip or migrate.';
comment on column stellwerk.bulk_operation.options is 'For cancel { reason, compensate }, for retry { from_node, version }, for skip { output, port }, for migrate { version, node_map }.';
comment on table stellwerk.bulk_operation is 'Orders to cancel, pause, resume, retry or move to another version all runs that fit a filter, or to skip steps of them; tick carries them out in portions.';
