-- Reasons have a code beside their English sentence, so that pages can say them in other languages.

alter type stellwerk.reason add attribute code text;
comment on column stellwerk.reason.code is 'What kind of reason it is; stays the same when the sentence changes. With the values in evidence it can be said in another language.';

-- It answers a column more.
-- squawk-ignore ban-drop-function
drop function if exists stellwerk.explain_run(bigint);
