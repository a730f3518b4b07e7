-- Finding runs: by workflow, state, time, key, and words in the payload, newest first, a page at a time.

create or replace function stellwerk.search_runs(
  workflow text default null, states text[] default null, since timestamptz default null, until timestamptz default null, key text default null,
  words text default null, before bigint default null, most integer default 50)
returns setof bigint language plpgsql stable set search_path = '' as $$
declare
  v_before bigint := before;
  v_left   integer := most;
  v_on     boolean := true;
  v_row    record;
begin
  while v_on and v_left > 0 loop
    v_on := false;
    for v_row in select * from stellwerk.look_for_runs(workflow, states, since, until, key, words, v_before, v_left, 100000) loop
      if v_row.found then
        v_left := v_left - 1;
        return next v_row.run_id;
      else
        v_on := true;
        v_before := v_row.run_id;
      end if;
    end loop;
  end loop;
end
$$;
comment on function stellwerk.search_runs(text, text[], timestamptz, timestamptz, text, text, bigint, integer) is 'The numbers of the runs that fit everything given, newest first: workflow, states, asked for from since to before until, idempotency key, words that the payload''s top-level values begin with; before is the last number of the page before, most how many. Errors: SW001, SW008.';

-- What no index finds is looked at run by run, newest first, so many for a page at most. Thus a page is there soon whatever it asks for.
create or replace function stellwerk.look_for_runs(
  workflow text default null, states text[] default null, since timestamptz default null, until timestamptz default null, key text default null,
  words text default null, before bigint default null, most integer default 50, depth integer default 2000)
returns table (run_id bigint, found boolean)
language plpgsql stable security definer  -- under row-level security the index of words would not be used
set search_path = '' set jit = off set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
  v_tenant_id   bigint := stellwerk.current_tenant_id();
  v_workflow_id bigint;
  v_query       tsquery := stellwerk.words_query(words);
  v_done        bigint := coalesce((select p.done_run_id from stellwerk.run_text_progress p where p.tenant_id = v_tenant_id), 0);
  v_first       bigint;
  v_last        bigint := coalesce(before - 1, 9223372036854775807);
  v_runs        bigint[];
  v_limited     boolean := false;
  v_portion     integer := 200;
  v_from        integer := 1;
  v_left        integer := most;
  v_count       integer;
begin
  if most not between 1 and 100000 then
    raise exception 'most is %', most using errcode = 'SW008', hint = 'It is a number from 1 to 100000.';
  end if;
  if workflow is not null then
    v_workflow_id := (stellwerk.find_workflow(v_tenant_id, workflow)).workflow_id;
  end if;
  -- Numbers follow time, but for transactions that were slow to begin with them.
  v_first := case when since is null then 0 else stellwerk.run_at_time(v_tenant_id, since - interval '10 minutes') end;
  v_last := least(v_last, case when until is null then v_last else stellwerk.run_at_time(v_tenant_id, until + interval '10 minutes') end);
  if key is not null then
    v_runs := array(
      select k.run_id from stellwerk.workflow w
       cross join lateral (select k.run_id from stellwerk.run_key k
                            where k.tenant_id = v_tenant_id and k.workflow_id = w.workflow_id and k.idempotency_key = look_for_runs.key) k
       where w.tenant_id = v_tenant_id and k.run_id between v_first and v_last
       order by 1 desc);
  elsif v_query is not null then
    v_runs := stellwerk.runs_with_words(v_tenant_id, v_query, v_first, v_last, v_done);
  end if;
  if v_runs is null then
    v_runs := stellwerk.newest_runs(v_tenant_id, v_workflow_id, states, v_first, v_last, depth);
    v_limited := cardinality(v_runs) = depth;
  end if;
  while v_left > 0 and v_from <= cardinality(v_runs) loop
    return query
      select r.run_id, true
        from unnest(v_runs[v_from:v_from + v_portion - 1]) x (run_id)
       cross join lateral (select o.* from stellwerk.run o where o.tenant_id = v_tenant_id and o.run_id = x.run_id offset 0) r
       where (v_workflow_id is null or r.workflow_id = v_workflow_id) and (states is null or r.state = any (states))
         and (since is null or r.created_at >= since) and (until is null or r.created_at < until)
         and (v_query is null
              or case when r.run_id > v_done then stellwerk.words_of(r.payload) @@ v_query
                      else exists (select from stellwerk.run_text t where t.tenant_id = v_tenant_id and t.run_id = r.run_id and t.words @@ v_query) end)
       order by r.run_id desc limit v_left;
    get diagnostics v_count = row_count;
    v_left := v_left - v_count;
    v_from := v_from + v_portion;
    v_portion := v_portion * 2;
  end loop;
  if v_limited and v_left > 0 then
    return query select v_runs[cardinality(v_runs)], false;
  end if;
end
$$;
comment on function stellwerk.look_for_runs(text, text[], timestamptz, timestamptz, text, text, bigint, integer, integer) is 'As search_runs, but looks at depth runs at most where no index knows which ones fit: a last row that is not found then says where it stopped, to be given as before. Errors: SW001, SW008.';

-- A word that stands in many runs is soon met by looking at the newest ones; the index would have to name them all.
create or replace function stellwerk.runs_with_words(p_tenant_id bigint, p_query tsquery, p_first bigint, p_last bigint, p_done bigint)
returns bigint[] language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
  c_newest   constant integer := 1000;
  c_frequent constant integer := 5;  -- of these
  c_many     constant integer := 2000;
  v_runs     bigint[];
begin
  if (select count(*) from (select t.words from stellwerk.run_text t where t.tenant_id = p_tenant_id and t.run_id between p_first and p_last
                             order by t.run_id desc limit c_newest) x where x.words @@ p_query) >= c_frequent then
    return null;
  end if;
  v_runs := array(select t.run_id from stellwerk.run_text t
                   where t.tenant_id = p_tenant_id and t.words @@ p_query and t.run_id between p_first and p_last and t.run_id <= p_done limit c_many);
  if cardinality(v_runs) = c_many then
    return null;
  end if;
  -- What has no words yet is read itself.
  v_runs := v_runs || array(select r.run_id from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id > p_done and r.run_id between p_first and p_last
                             order by r.run_id desc limit 5000);
  return array(select x.run_id from unnest(v_runs) x (run_id) order by 1 desc);
end
$$;
comment on function stellwerk.runs_with_words(bigint, tsquery, bigint, bigint, bigint) is 'Runs that have all these words, by the index, with those whose words are not written yet (later than p_done), newest first; null where the words are too frequent for that.';

create or replace function stellwerk.newest_runs(p_tenant_id bigint, p_workflow_id bigint, p_states text[], p_first bigint, p_last bigint, p_depth integer)
returns bigint[] language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
begin
  if p_states <@ array['pending', 'running', 'waiting', 'paused'] then
    return array(
      select r.run_id
        from stellwerk.workflow w
       cross join unnest(p_states) s (state)
       cross join lateral (select o.run_id from stellwerk.run o
                            where o.tenant_id = p_tenant_id and o.workflow_id = w.workflow_id and o.state = s.state and o.ended_at is null
                              and o.run_id between p_first and p_last
                            order by o.run_id desc limit p_depth) r
       where w.tenant_id = p_tenant_id and (p_workflow_id is null or w.workflow_id = p_workflow_id)
       order by 1 desc limit p_depth);
  elsif p_states <@ array['failed', 'cancelled'] then
    return array(
      select r.run_id
        from unnest(p_states) s (state)
       cross join lateral (select o.run_id from stellwerk.run o
                            where o.tenant_id = p_tenant_id and o.state = s.state and o.state in ('failed', 'cancelled') and o.run_id between p_first and p_last
                            order by o.run_id desc limit p_depth) r
       order by 1 desc limit p_depth);
  elsif p_workflow_id is not null then
    return array(select o.run_id from stellwerk.run o
                  where o.tenant_id = p_tenant_id and o.workflow_id = p_workflow_id and o.run_id between p_first and p_last
                  order by o.run_id desc limit p_depth);
  end if;
  return array(select o.run_id from stellwerk.run o
                where o.tenant_id = p_tenant_id and o.run_id between p_first and p_last order by o.run_id desc limit p_depth);
end
$$;
comment on function stellwerk.newest_runs(bigint, bigint, text[], bigint, bigint, integer) is 'The newest runs among which those of a workflow and of these states are, by the index that leaves out the most.';

create or replace function stellwerk.run_at_time(p_tenant_id bigint, p_at timestamptz)
returns bigint language plpgsql stable set search_path = '' set plan_cache_mode = force_custom_plan as $$
declare
  v_low  bigint := 0;
  v_high bigint := coalesce((select max(r.run_id) from stellwerk.run r where r.tenant_id = p_tenant_id), 0) + 1;
  v_mid  bigint;
  v_run  record;
begin
  while v_low < v_high loop
    v_mid := (v_low + v_high) / 2;
    select r.run_id, r.created_at into v_run from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id >= v_mid order by r.run_id limit 1;
    if v_run.run_id is null or v_run.created_at >= p_at then
      v_high := v_mid;
    else
      v_low := v_run.run_id + 1;
    end if;
  end loop;
  return v_low;
end
$$;
comment on function stellwerk.run_at_time(bigint, timestamptz) is 'The number from which on runs were asked for at that time or later, found in some twenty looks, for numbers follow time.';

-- Words

create or replace function stellwerk.words_of(p_payload jsonb)
returns tsvector language sql immutable parallel safe set search_path = '' as $$
  select to_tsvector('simple', coalesce(string_agg(regexp_replace(left(e.value #>> '{}', 500), '[^[:alnum:]]+', ' ', 'g'), ' '), ''))
    from (select x.value from jsonb_each(case jsonb_typeof(p_payload) when 'object' then p_payload else '{}' end) x
           where jsonb_typeof(x.value) in ('string', 'number') limit 100) e
$$;
comment on function stellwerk.words_of(jsonb) is 'The words of a payload''s top-level texts and numbers, of each the first 500 characters.';

create or replace function stellwerk.words_query(p_text text)
returns tsquery language sql immutable parallel safe set search_path = '' as $$
  select to_tsquery('simple', string_agg('''' || w.word || ''':*', ' & '))
    from regexp_split_to_table(trim(regexp_replace(left(p_text, 500), '[^[:alnum:]]+', ' ', 'g')), ' ') w (word)
   where w.word <> ''
$$;
comment on function stellwerk.words_query(text) is 'All words of a search must be there, each at least as the beginning of one; null when there is no word.';

create or replace function stellwerk.write_run_texts(p_tenant_id bigint, p_limit integer default 2000)
returns integer language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  v_progress stellwerk.run_text_progress;
  v_newest   bigint;
  v_last     bigint;
  v_count    integer;
begin
  select max(r.run_id) into v_newest from stellwerk.run r where r.tenant_id = p_tenant_id;
  select * into v_progress from stellwerk.run_text_progress p where p.tenant_id = p_tenant_id;
  if v_newest is null or v_newest <= v_progress.done_run_id then
    return 0;
  end if;
  insert into stellwerk.run_text_progress (tenant_id) values (p_tenant_id) on conflict do nothing;
  select * into v_progress from stellwerk.run_text_progress p where p.tenant_id = p_tenant_id for no key update skip locked;
  if v_progress.tenant_id is null then
    return 0;
  end if;
  if v_progress.seen_run_id <= v_progress.done_run_id then
    update stellwerk.run_text_progress p set seen_run_id = v_newest, seen_xid = pg_current_xact_id() where p.tenant_id = p_tenant_id;
    return 0;
  elsif pg_snapshot_xmin(pg_current_snapshot()) <= v_progress.seen_xid then
    return 0;  -- one that is older has not been committed yet, perhaps
  end if;
  with fresh as (
    select r.run_id, r.payload from stellwerk.run r
     where r.tenant_id = p_tenant_id and r.run_id > v_progress.done_run_id and r.run_id <= v_progress.seen_run_id
     order by r.run_id limit p_limit
  ), written as (
    insert into stellwerk.run_text (tenant_id, run_id, words)
    select p_tenant_id, f.run_id, stellwerk.words_of(f.payload) from fresh f
    on conflict on constraint run_text_pkey do update set words = excluded.words
  )
  select count(*), max(f.run_id) into v_count, v_last from fresh f;
  update stellwerk.run_text_progress p
     set done_run_id = case when v_count < p_limit then v_progress.seen_run_id else v_last end
   where p.tenant_id = p_tenant_id;
  return v_count;
end
$$;
comment on function stellwerk.write_run_texts(bigint, integer) is 'Writes the words of runs that have been asked for since the last call, once none before them can still turn up; answers how many.';

create or replace function stellwerk.rewrite_run_text(p_tenant_id bigint, p_run_ids bigint[])
returns void language sql volatile set search_path = '' as $$
  update stellwerk.run_text t
     set words = stellwerk.words_of((select r.payload from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = t.run_id))
   where t.tenant_id = p_tenant_id and t.run_id = any (p_run_ids)
$$;
comment on function stellwerk.rewrite_run_text(bigint, bigint[]) is 'The payloads of these runs have been changed: their words follow.';
