-- Reading what comes from outside: bodies as JSON, and where in them things stand.

create or replace function stellwerk.value_at(p_place text, p_headers jsonb, p_body jsonb)
returns text language sql immutable set search_path = ''
return case split_part(p_place, ':', 1)
         when 'header' then p_headers ->> substr(p_place, 8)
         when 'body' then p_body #>> string_to_array(substr(p_place, 6), '.')
         when 'value' then substr(p_place, 7)
       end;
comment on function stellwerk.value_at(text, jsonb, jsonb) is 'The text at header:NAME or body:a.b, or the word of value:NAME; null if there is none.';

create or replace function stellwerk.url_decode(p_text text)
returns text language sql immutable set search_path = ''
return case when strpos(p_text, '%') = 0 then replace(p_text, '+', ' ')
            else convert_from((select string_agg(case when m.part[1] ~ '^%[0-9A-Fa-f]{2}$' then decode(substr(m.part[1], 2), 'hex')
                                                      else convert_to(m.part[1], 'UTF8') end, ''::bytea order by m.place)
                                 from regexp_matches(replace(p_text, '+', ' '), '%[0-9A-Fa-f]{2}|[^%]+|%', 'g') with ordinality m (part, place)), 'UTF8') end;
comment on function stellwerk.url_decode(text) is 'A text as it was before it was written into an address or a form.';

create or replace function stellwerk.form_fields(p_text text)
returns jsonb language sql immutable set search_path = ''
return (select coalesce(jsonb_object_agg(g.name, g.value), '{}')
          from (select f.name, case when count(*) = 1 then to_jsonb(min(f.value)) else jsonb_agg(f.value order by f.place) end as value
                  from (select stellwerk.url_decode(split_part(p.pair, '=', 1)) as name,
                               stellwerk.url_decode(substr(p.pair, length(split_part(p.pair, '=', 1)) + 2)) as value, p.place
                          from string_to_table(p_text, '&') with ordinality p (pair, place)
                         where p.pair <> '') f
                 group by f.name) g);
comment on function stellwerk.form_fields(text) is 'The fields of an HTML form''s body as an object of texts; a name that comes several times becomes an array.';

create or replace function stellwerk.read_body(p_body bytea, p_content_type text)
returns jsonb language plpgsql immutable set search_path = '' as $$
declare
  v_type   text := lower(btrim(split_part(coalesce(p_content_type, ''), ';', 1)));
  v_text   text := ltrim(convert_from(p_body, 'UTF8'), E'\ufeff');
  v_fields jsonb;
begin
  if v_text = '' then
    return '{}'::jsonb;
  elsif v_type = 'application/x-www-form-urlencoded' then
    v_fields := stellwerk.form_fields(v_text);
    -- A lone field that holds JSON, as Slack sends it.
    if v_fields - 'payload' = '{}' and v_fields ->> 'payload' like '{%' then
      return stellwerk.read_body(convert_to(v_fields ->> 'payload', 'UTF8'), 'application/json');
    end if;
    return v_fields;
  elsif v_type like 'text/%' then
    return jsonb_build_object('text', v_text);
  end if;
  -- A short number such as 1e99999 grows to its full length when it is written out.
  if v_text ~ '[0-9.][eE][+-]?[0-9]{4,}' and regexp_replace(v_text, '"(?:[^"\\]|\\.)*"', '""', 'g') ~ '[0-9.][eE][+-]?[0-9]{4,}' then
    raise exception 'the body holds a number with too large a power' using errcode = 'SW002';
  end if;
  return v_text::jsonb;
end
$$;
comment on function stellwerk.read_body(bytea, text) is 'A body as JSON: fields of a form become an object, plain text { text }. Raises for one that cannot be read.';

create or replace function stellwerk.readable_body(p_body bytea, p_content_type text)
returns jsonb language plpgsql immutable set search_path = '' as $$
begin
  return stellwerk.read_body(p_body, p_content_type);
exception when others then
  return null;
end
$$;
comment on function stellwerk.readable_body(bytea, text) is 'A body as JSON; null if it cannot be read.';

-- Resend's email.received and similar: the message stands in data.
create or replace function stellwerk.mail_of(p_payload jsonb)
returns jsonb language sql immutable set search_path = ''
return case when jsonb_typeof(p_payload -> 'data') = 'object' then p_payload -> 'data' else p_payload end;
comment on function stellwerk.mail_of(jsonb) is 'The message itself, of what a mail service delivers: from, to, subject, ….';

create or replace function stellwerk.mail_recipients(p_payload jsonb)
returns text[] language sql immutable set search_path = ''
return array(select lower(coalesce(substring(a.text from '<([^<>]+)>\s*$'), btrim(a.text)))
               from (values ('to'), ('cc'), ('bcc'), ('received_for')) f (name)
              cross join lateral (select stellwerk.mail_of(p_payload) -> f.name as value) v
              cross join lateral jsonb_array_elements_text(case jsonb_typeof(v.value) when 'array' then v.value when 'string' then jsonb_build_array(v.value)
                                                                                     else '[]' end) a (text));
comment on function stellwerk.mail_recipients(jsonb) is 'The addresses that a message was sent to, in lower case, without names.';
