-- Partitions: made ahead of the numbers in use, dropped when they are empty.
--
-- Nobody must notice. So: at most one statement of DDL per call, as the last thing in it; a lock is waited for at most 0.1 s, and not
-- even asked for while a long transaction has the table; what fails is tried again a minute later. A row that finds no range goes to
-- the default partition, so a range that is late stops nothing. Ranges of the tables with rows of runs are the same.

create or replace function stellwerk.partition_size()
returns bigint language sql immutable parallel safe set search_path = ''
return 10000000;
comment on function stellwerk.partition_size() is 'How many numbers a new partition takes. Each partition makes every statement on its table dearer, a few large ones are cheap to search: see docs/retention.md for the figures.';

-- In the order in which ranges are dropped: what belongs to runs before the runs.
create or replace function stellwerk.partitioned_tables()
returns table (place integer, name text, key text, sequence regclass) language sql stable set search_path = ''
begin atomic
  select t.place, t.name, t.key, ('stellwerk.' || t.sequence)::regclass
    from (values (1, 'step_attempt', 'run_id', 'run_id_seq'), (2, 'scope', 'run_id', 'run_id_seq'), (3, 'loop', 'run_id', 'run_id_seq'),
                 (4, 'step', 'run_id', 'run_id_seq'), (5, 'run', 'run_id', 'run_id_seq'),
                 (6, 'event_log', 'event_id', 'event_id_seq'), (7, 'audit_log', 'audit_id', 'audit_id_seq')) t (place, name, key, sequence);
end;
comment on function stellwerk.partitioned_tables() is 'The tables with partitions, the column that decides, and the sequence that it comes from.';

create or replace function stellwerk.partitions()
returns table (parent text, partition text, lower bigint, upper bigint, is_default boolean) language sql stable set search_path = ''
begin atomic
  select p.name, c.relname::text,
         substring(b.bound from 'FROM \(''?(-?[0-9]+)''?\)')::bigint, substring(b.bound from 'TO \(''?(-?[0-9]+)''?\)')::bigint, b.bound = 'DEFAULT'
    from stellwerk.partitioned_tables() p
    join pg_inherits i on i.inhparent = ('stellwerk.' || quote_ident(p.name))::regclass
    join pg_class c on c.oid = i.inhrelid
   cross join lateral (select pg_get_expr(c.relpartbound, c.oid) as bound) b;
end;
comment on function stellwerk.partitions() is 'Every partition with its range [lower, upper); lower is null for the oldest, which begins before everything, both are null for the default.';

create or replace function stellwerk.keep_partitions()
returns text language plpgsql set search_path = '' as $$
begin
  return coalesce(stellwerk.make_next_partition(), stellwerk.drop_empty_partition());
end
$$;
comment on function stellwerk.keep_partitions() is 'Makes the next partition that is needed, or drops one that is empty: at most one statement of DDL. Answers what was done, null for nothing.';

create or replace function stellwerk.make_next_partition()
returns text language plpgsql set search_path = '' as $$
declare
  c_scan  constant bigint := 8 * 1024 * 1024;
  v_size  bigint := stellwerk.partition_size();
  v_table record;
  v_done  text;
begin
  for v_table in
    select t.name, t.key, coalesce(pg_sequence_last_value(t.sequence), 0) as used, coalesce(max(p.upper), 0) as top,
           ('stellwerk.' || quote_ident(max(p.partition) filter (where p.is_default)))::regclass as rest
      from stellwerk.partitioned_tables() t
      join stellwerk.partitions() p on p.parent = t.name
     group by t.place, t.name, t.key, t.sequence order by t.place
  loop
    continue when v_table.top - v_table.used >= v_size / 2;
    if v_table.top > v_table.used and pg_relation_size(v_table.rest) <= c_scan then
      v_done := stellwerk.make_partition(v_table.name, v_table.key, v_table.top, v_table.top + v_size);
    else
      -- There were no ranges yet, or they came too late: rows go to the default partition, and it becomes the range itself.
      v_done := stellwerk.bound_rest(v_table.name, v_table.key, v_table.rest, v_table.used, nullif(v_table.top, 0), pg_relation_size(v_table.rest) <= c_scan);
    end if;
    exit when v_done is not null;
  end loop;
  return v_done;
end
$$;
comment on function stellwerk.make_next_partition() is 'Makes a range for the first table whose numbers in use have come within half a range of the end; null when there is none.';

create or replace function stellwerk.make_partition(p_table text, p_key text, p_lower bigint, p_upper bigint)
returns text language plpgsql set search_path = '' as $$
declare
  v_name    text := p_table || '_' || p_lower;
  v_rest    regclass := ('stellwerk.' || quote_ident(p_table || '_default'))::regclass;
  v_options text := (select coalesce('with (' || array_to_string(c.reloptions, ', ') || ')', '') from pg_class c where c.oid = v_rest);
begin
  -- Made beside and attached: "create … partition of" would lock the whole table, this locks the default partition, where nobody writes.
  return stellwerk.try_ddl(format('made %s', v_name), v_rest, array[
    format('create table stellwerk.%I (like stellwerk.%I including defaults including constraints) %s', v_name, p_table, v_options),
    format('alter table stellwerk.%I enable row level security', v_name),
    format('comment on table stellwerk.%I is %L', v_name, format('Part of %s: %s from %s up to, but not including, %s.', p_table, p_key, p_lower, p_upper)),
    format('alter table stellwerk.%I attach partition stellwerk.%I for values from (%s) to (%s)', p_table, v_name, p_lower, p_upper)]
    || case when p_table = 'audit_log'
            then format('create trigger audit_log_whole before truncate on stellwerk.%I for each statement execute function stellwerk.refuse_audit_change()', v_name) end);
end
$$;
comment on function stellwerk.make_partition(text, text, bigint, bigint) is 'Makes and attaches an empty partition; null when the lock was not free.';

-- To make a range of a large default partition, all of it would be scanned under a lock that stops everybody, unless a constraint proves
-- where its rows lie. The constraint refuses numbers beyond the range until that is done, so the range ends far away from the numbers
-- in use, and the constraint goes again should they come near. Three calls: constraint, its check (which stops nobody), the exchange.
create or replace function stellwerk.bound_rest(p_table text, p_key text, p_rest regclass, p_used bigint, p_lower bigint, p_small boolean)
returns text language plpgsql set search_path = '' as $$
declare
  v_size  bigint := stellwerk.partition_size();
  v_upper bigint := (p_used / v_size + 3) * v_size;
  v_guard record;
begin
  select c.conname as name, c.convalidated as checked, substring(c.conname from '[0-9]+$')::bigint as upper into v_guard
    from pg_constraint c where c.conrelid = p_rest and c.contype = 'c' and c.conname ~ '_ends_before_[0-9]+$' limit 1;
  if v_guard.name is not null and v_guard.upper - p_used < v_size then
    return stellwerk.try_ddl(format('%s ends nowhere again', p_rest), p_rest, array[format('alter table %s drop constraint %I', p_rest, v_guard.name)]);
  elsif v_guard.checked is not true and not p_small and not stellwerk.may_scan(pg_relation_size(p_rest)) then
    return null;
  elsif v_guard.checked or v_guard.name is null and p_small then
    return stellwerk.exchange_rest(p_table, p_key, p_rest, p_lower, coalesce(v_guard.upper, v_upper), v_guard.name);
  elsif v_guard.name is not null then
    return stellwerk.try_ddl(format('checked that %s ends before %s', p_rest, v_guard.upper), p_rest,
      array[format('alter table %s validate constraint %I', p_rest, v_guard.name)]);
  end if;
  return stellwerk.try_ddl(format('%s ends before %s', p_rest, v_upper), p_rest, array[format(
    'alter table %s add constraint %I check (%I >= %s and %I < %s) not valid', p_rest, p_table || '_ends_before_' || v_upper,
    p_key, coalesce(p_lower, -9223372036854775808), p_key, v_upper)]);
end
$$;
comment on function stellwerk.bound_rest(text, text, regclass, bigint, bigint, boolean) is 'Makes the default partition the next range and an empty one the default, one step per call where it is large; null when a lock was not free.';

create or replace function stellwerk.may_scan(p_bytes bigint)
returns boolean language sql stable set search_path = ''
return p_bytes <= 1024 * 1024 * 1024 or current_setting('statement_timeout') = '0';
comment on function stellwerk.may_scan(bigint) is 'Whether a constraint on a table of this size can be checked here: workers give each call 30 s, so more than 1 GB is left to a session without a statement_timeout.';

create or replace function stellwerk.exchange_rest(p_table text, p_key text, p_rest regclass, p_lower bigint, p_upper bigint, p_guard text)
returns text language plpgsql set search_path = '' as $$
declare
  v_old     text := p_table || '_default';
  v_new     text := p_table || '_' || coalesce(p_lower, 0);
  v_options text := (select coalesce('with (' || array_to_string(c.reloptions, ', ') || ')', '') from pg_class c where c.oid = p_rest);
begin
  return stellwerk.try_ddl(format('made %s of %s', v_new, v_old), ('stellwerk.' || quote_ident(p_table))::regclass,
    array[
      format('lock table only stellwerk.%I in access exclusive mode', p_table),
      format('alter table stellwerk.%I detach partition stellwerk.%I', p_table, v_old),
      format('alter table stellwerk.%I rename to %I', v_old, v_new)]
    || array(select format('alter index %s rename to %I', i.indexrelid::regclass, replace(c.relname, v_old, v_new))
               from pg_index i join pg_class c on c.oid = i.indexrelid
               where i.indrelid = p_rest and starts_with(c.relname, v_old))
    || array[
      format('alter table stellwerk.%I attach partition stellwerk.%I for values from (%s) to (%s)', p_table, v_new, coalesce(p_lower::text, 'minvalue'), p_upper),
      format('create table stellwerk.%I partition of stellwerk.%I default %s', v_old, p_table, v_options),
      format('alter table stellwerk.%I enable row level security', v_old),
      format('comment on table stellwerk.%I is %L', v_new, format('Part of %s: %s below %s.', p_table, p_key, p_upper)),
      format('comment on table stellwerk.%I is %L', v_old, format('Part of %s: what no range takes.', p_table)),
      case when p_guard is not null then format('alter table stellwerk.%I drop constraint %I', v_new, p_guard) end,
      case when p_table = 'audit_log'
           then format('create trigger audit_log_whole before truncate on stellwerk.%I for each statement execute function stellwerk.refuse_audit_change()', v_old) end]);
end
$$;
comment on function stellwerk.exchange_rest(text, text, regclass, bigint, bigint, text) is 'In one transaction: the default partition becomes the range from p_lower (null: from the beginning), and an empty one takes its place.';

create or replace function stellwerk.drop_empty_partition()
returns text language plpgsql set search_path = '' as $$
declare
  v_range record;
  v_empty boolean;
begin
  -- Only ranges that no number in use belongs to any more.
  for v_range in
    select t.key, p.upper, array_agg(p.partition order by t.place) as parts, array_agg(p.parent order by t.place) as parents
      from stellwerk.partitions() p
      join stellwerk.partitioned_tables() t on t.name = p.parent
     where p.upper <= pg_sequence_last_value(t.sequence)
       -- An event that still waits comes to the range of its number.
       and not (t.name = 'event_log' and (
             exists (select from stellwerk.tenant n
                      where exists (select from stellwerk.event_inbox i where i.tenant_id = n.tenant_id and i.event_id < p.upper))
             or exists (select from stellwerk.event_arrival a where a.event_id < p.upper)))
     group by t.key, p.upper order by p.upper
  loop
    v_empty := true;
    -- The last is run itself, which tells soonest.
    for i in reverse cardinality(v_range.parts) .. 1 loop
      v_empty := v_empty and not stellwerk.has_rows(v_range.parts[i], v_range.key);
      exit when not v_empty;
    end loop;
    continue when not v_empty;
    -- One table per call; run goes last, so a range that is half gone is found again.
    return stellwerk.try_ddl(
      format('dropped %s', v_range.parts[1]), format('stellwerk.%I', v_range.parents[1])::regclass,
      array[format('lock table only stellwerk.%I in access exclusive mode', v_range.parents[1]),
            format('lock table stellwerk.%I in access exclusive mode', v_range.parts[1]),
            format('drop table stellwerk.%I', v_range.parts[1])],
      v_range.parts[1], v_range.key);
  end loop;
  return null;
end
$$;
comment on function stellwerk.drop_empty_partition() is 'Drops one partition of a range that is behind and empty in all tables that share it; null when there is none or the lock was not free.';

create or replace function stellwerk.has_rows(p_partition text, p_key text)
returns boolean language plpgsql set search_path = '' set enable_seqscan = off as $$
declare
  v_has boolean;
begin
  -- By the key: what has been removed lately is skipped in the index, and not read page by page.
  execute format('select exists (select from stellwerk.%I x where x.%I is not null order by x.tenant_id, x.%I limit 1)', p_partition, p_key, p_key) into v_has;
  return v_has;
end
$$;
comment on function stellwerk.has_rows(text, text) is 'Whether a partition has any row.';

create or replace function stellwerk.try_ddl(p_what text, p_locked regclass, p_statements text[], p_empty text default null, p_key text default null)
returns text language plpgsql set search_path = '' as $$
declare
  v_patience  text := current_setting('lock_timeout');
  v_idle      text := current_setting('idle_in_transaction_session_timeout');
  v_statement text;
  v_done      text := p_what;
begin
  if stellwerk.is_held_long(p_locked) then
    return null;
  end if;
  begin
    perform set_config('lock_timeout', '100ms', true);
    foreach v_statement in array p_statements loop
      continue when v_statement is null;
      -- A second look, now that nobody can put a row there.
      if v_statement like 'drop table %' and p_empty is not null and stellwerk.has_rows(p_empty, p_key) then
        raise object_in_use;
      end if;
      execute v_statement;
    end loop;
    -- Whoever calls this in a transaction and then goes away must not keep the lock.
    if v_idle::interval = interval '0' or v_idle::interval > interval '2 seconds' then
      perform set_config('idle_in_transaction_session_timeout', '2s', true);
    end if;
  exception
    when lock_not_available or object_in_use or deadlock_detected or query_canceled then
      v_done := null;
    when others then
      raise warning 'stellwerk: not %: %', p_what, sqlerrm;
      v_done := null;
  end;
  perform set_config('lock_timeout', v_patience, true);
  return v_done;
end
$$;
comment on function stellwerk.try_ddl(text, regclass, text[], text, text) is 'Runs DDL in a subtransaction, waiting at most 0.1 s for a lock; answers p_what, or null when it could not be done now. Whatever goes wrong is taken back and never raised. p_empty: a partition that must have no row before it is dropped.';

-- To wait for a lock makes everybody wait who comes after. So who has the table is looked at twice, and if somebody stays, the lock is not asked for.
create or replace function stellwerk.is_held_long(p_table regclass)
returns boolean language plpgsql set search_path = '' as $$
declare
  v_holders text[];
begin
  v_holders := array(select l.virtualtransaction from pg_locks l
                      where l.locktype = 'relation' and l.relation = p_table and l.pid <> pg_backend_pid()
                        and l.database = (select d.oid from pg_database d where d.datname = current_database()));
  if cardinality(v_holders) = 0 then
    return false;
  end if;
  perform pg_sleep(0.05);
  return exists (select from pg_locks l
                  where l.locktype = 'relation' and l.relation = p_table and l.virtualtransaction = any (v_holders)
                    and l.database = (select d.oid from pg_database d where d.datname = current_database()));
end
$$;
comment on function stellwerk.is_held_long(regclass) is 'Whether some other transaction has had a lock on the table for longer than 0.05 s.';
