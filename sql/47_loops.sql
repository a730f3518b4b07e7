-- Loops. The step of a logic.loop waits while its iterations run; each iteration is a scope, a row made when the loop begins.
-- An iteration ends when its scope has no live token. Iterations begin in the order of the items, at most `parallel` at once.
--
-- Cost: an iteration is found by its key and counted on the loop's row, so the ten-thousandth costs what the first did;
-- items are split into rows once, and put together into the output once.

create or replace function stellwerk.begin_loop(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_context jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  c_max_items constant integer := 100000;
  v_outcome stellwerk.outcome;
  v_config  jsonb := stellwerk.render(p_node.config, stellwerk.dynamic_parts(p_node.dynamic, false), p_context);
  v_items   jsonb := v_config -> 'items';
  v_count   integer;
  v_parallel numeric;
begin
  if jsonb_typeof(v_items) is distinct from 'array' then
    v_outcome.error := stellwerk.step_error(p_token, 'not_a_list',
      format('items must be a list, not %s', coalesce(jsonb_typeof(v_items), 'null')), false);
    return v_outcome;
  end if;
  v_count := jsonb_array_length(v_items);
  if v_count > c_max_items then
    v_outcome.error := stellwerk.step_error(p_token, 'too_many_items', format('items has %s entries, more than %s', v_count, c_max_items), false);
    return v_outcome;
  end if;
  if jsonb_typeof(v_config -> 'parallel') is distinct from 'number' or (v_config ->> 'parallel')::numeric not between 1 and 1000 then
    v_outcome.error := stellwerk.step_error(p_token, 'bad_parallel',
      format('parallel must be a number from 1 to 1000, not %s', coalesce(left(v_config ->> 'parallel', 50), 'null')), false);
    return v_outcome;
  end if;
  v_parallel := trunc((v_config ->> 'parallel')::numeric);
  -- The items stand in the scopes; the step keeps only how many there are.
  v_outcome.input := (v_config - 'items' - 'collect') || jsonb_build_object('count', v_count);
  if v_count = 0 then
    v_outcome.port := 'done';
    v_outcome.output := '{"items": [], "count": 0, "errors": []}';
    return v_outcome;
  end if;
  insert into stellwerk.loop (tenant_id, run_id, step_id, parent_scope_id, item_count, parallel, on_item_error, started)
  values (p_tenant_id, p_token.run_id, p_token.step_id, p_token.scope_id, v_count, v_parallel, coalesce(v_config ->> 'on_item_error', 'fail'),
          least(v_count, v_parallel));
  insert into stellwerk.scope (tenant_id, run_id, parent_scope_id, loop_step_id, position, item, state)
  select p_tenant_id, p_token.run_id, p_token.scope_id, p_token.step_id, i.ordinality - 1, i.value,
         case when i.ordinality <= v_parallel then 'running' else 'pending' end
    from jsonb_array_elements(v_items) with ordinality i (value, ordinality);
  v_outcome.port := '*wait';
  return v_outcome;
end
$$;
comment on function stellwerk.begin_loop(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'logic.loop: splits its items into iterations and waits for them; without items it is done at once.';

create or replace function stellwerk.dynamic_parts(p_dynamic jsonb, p_collect boolean)
returns jsonb language sql immutable parallel safe set search_path = '' as $$
  select coalesce(jsonb_agg(d.value), '[]') from jsonb_array_elements(p_dynamic) d (value) where (d.value -> 'at' ->> 0 = 'collect') = p_collect
$$;
comment on function stellwerk.dynamic_parts(jsonb, boolean) is 'The computed places of a loop''s settings: those of collect, which belong to each iteration, or all others.';

create or replace function stellwerk.first_iterations(p_tenant_id bigint, p_moves stellwerk.move[], p_resting stellwerk.token[])
returns stellwerk.token[] language plpgsql set search_path = '' as $$
declare
  v_move   stellwerk.move;
  v_entry  stellwerk.move;
  v_moves  stellwerk.move[] := '{}'::stellwerk.move[];
  v_scopes bigint[];
begin
  foreach v_move in array p_moves loop
    continue when v_move.type <> 'logic.loop' or v_move.state <> 'waiting';
    v_scopes := array(
      select s.scope_id from stellwerk.scope s
       where s.tenant_id = p_tenant_id and s.run_id = v_move.run_id and s.loop_step_id = v_move.step_id
         and s.position < (select l.started from stellwerk.loop l
                            where l.tenant_id = p_tenant_id and l.run_id = v_move.run_id and l.step_id = v_move.step_id)
       order by s.position);
    for i in 1 .. cardinality(v_scopes) loop
      v_entry := v_move;
      v_entry.scope_id := v_scopes[i];
      v_entry.port := 'each';
      v_moves := v_moves || v_entry;
    end loop;
  end loop;
  return stellwerk.follow_edges(p_tenant_id, v_moves, p_resting);
end
$$;
comment on function stellwerk.first_iterations(bigint, stellwerk.move[], stellwerk.token[]) is 'The tokens of the iterations with which loops begin.';

-- p_scope_ids are iterations in which a token has ended (with its output) or failed for good (with its error). Those that
-- are over are closed: their loop goes on with the next item, is done, or fails.
create or replace function stellwerk.close_scopes(
  p_tenant_id bigint, p_run_ids bigint[], p_scope_ids bigint[], p_outputs jsonb[], p_errors jsonb[], p_live stellwerk.token[],
  out tokens stellwerk.token[], out moves stellwerk.move[], out dropped bigint[])
language plpgsql set search_path = '' as $$
declare
  v_ended record;
  v_scope stellwerk.scope;
  v_loop  stellwerk.loop;
  v_move  stellwerk.move;
  v_entry stellwerk.move;
  v_entries stellwerk.move[] := '{}'::stellwerk.move[];
begin
  moves := '{}';
  dropped := '{}';
  for v_ended in
    -- The token that ended last gives the output; any error counts before it.
    select distinct on (u.scope_id) u.run_id, u.scope_id, u.output, u.error
      from unnest(p_run_ids, p_scope_ids, p_outputs, p_errors) with ordinality u (run_id, scope_id, output, error, place)
     order by u.scope_id, (u.error is null), u.place desc
  loop
    continue when v_ended.scope_id = any (dropped);
    select * into v_scope from stellwerk.scope s
     where s.tenant_id = p_tenant_id and s.run_id = v_ended.run_id and s.scope_id = v_ended.scope_id;
    continue when v_scope.state is distinct from 'running';
    if v_ended.error is not null then
      dropped := dropped || stellwerk.cancel_scopes(p_tenant_id, v_ended.run_id, array[v_ended.scope_id], 'another step of the iteration failed', true);
    else
      continue when exists (select from unnest(p_live) t where t.scope_id = v_ended.scope_id)
                 or exists (select from stellwerk.step s
                             where s.tenant_id = p_tenant_id and s.run_id = v_ended.run_id and s.scope_id = v_ended.scope_id
                               and s.state in ('queued', 'running', 'waiting', 'joining'));
    end if;
    v_move := (stellwerk.ended_moves(p_tenant_id, array[v_scope.run_id], array[v_scope.loop_step_id], array['done'], array[null::jsonb],
                                     array[null::jsonb]))[1];
    select * into v_scope from stellwerk.finish_scope(p_tenant_id, v_scope, v_move, v_ended.output, v_ended.error);
    select * into v_loop from stellwerk.loop l
     where l.tenant_id = p_tenant_id and l.run_id = v_scope.run_id and l.step_id = v_scope.loop_step_id;
    if v_scope.error is not null and v_loop.on_item_error = 'fail' then
      dropped := dropped || stellwerk.cancel_scopes(p_tenant_id, v_scope.run_id, array(
        select o.scope_id from stellwerk.scope o
         where o.tenant_id = p_tenant_id and o.run_id = v_scope.run_id and o.parent_scope_id = v_loop.parent_scope_id and o.state = 'running'
           and o.loop_step_id = v_loop.step_id), 'another iteration of the loop failed', true);
      v_move.state := 'failed';
      v_move.port := null;
      v_move.error := jsonb_build_object('class', 'item_failed', 'message', format('item %s failed: %s', v_scope.position, v_scope.error ->> 'message'),
        'node', v_move.node_id, 'attempt', v_move.attempt, 'retryable', false,
        'detail', jsonb_build_object('index', v_scope.position, 'error', v_scope.error));
      moves := moves || v_move;
      continue;
    end if;
    update stellwerk.loop l set ended = l.ended + 1, started = least(l.started + 1, l.item_count)
     where l.tenant_id = p_tenant_id and l.run_id = v_loop.run_id and l.step_id = v_loop.step_id
    returning * into v_loop;
    if v_loop.ended = v_loop.item_count then
      v_move.output := stellwerk.loop_output(p_tenant_id, v_loop);
      moves := moves || v_move;
      continue;
    end if;
    -- Asked for in order, so that no other index seems as good as the one by position: it would read the whole loop.
    select * into v_scope from stellwerk.scope s
     where s.tenant_id = p_tenant_id and s.run_id = v_loop.run_id and s.loop_step_id = v_loop.step_id and s.position >= v_loop.started - 1
     order by s.position limit 1;
    if v_scope.position = v_loop.started - 1 and v_scope.state = 'pending' then
      update stellwerk.scope s set state = 'running'
       where s.tenant_id = p_tenant_id and s.run_id = v_scope.run_id and s.scope_id = v_scope.scope_id;
      v_entry := v_move;
      v_entry.scope_id := v_scope.scope_id;
      v_entry.port := 'each';
      v_entries := v_entries || v_entry;
    end if;
  end loop;
  -- What was begun or done before another iteration of the same call failed is over with it.
  moves := array(select m from unnest(moves) m where m.scope_id <> all (dropped));
  tokens := stellwerk.follow_edges(p_tenant_id, array(select m from unnest(v_entries) m where m.scope_id <> all (dropped)), p_live);
end
$$;
comment on function stellwerk.close_scopes(bigint, bigint[], bigint[], jsonb[], jsonb[], stellwerk.token[]) is 'Closes iterations without a live token, or with a failed one: answers the tokens of the iterations that follow, the moves of loops that are done or failed, and the scopes whose tokens are to be dropped.';

create or replace function stellwerk.finish_scope(
  p_tenant_id bigint, p_scope stellwerk.scope, p_loop_move stellwerk.move, p_output jsonb, p_error jsonb)
returns stellwerk.scope language plpgsql set search_path = '' as $$
declare
  v_scope  stellwerk.scope := p_scope;
  v_node   stellwerk.plan_node;
  v_token  stellwerk.token;
  v_output jsonb := p_output;
  v_error  jsonb := p_error;
  v_message text;
  v_state   text;
begin
  select * into v_node from stellwerk.plan_node n
   where n.tenant_id = p_tenant_id and n.workflow_id = p_loop_move.workflow_id and n.version = p_loop_move.version and n.node_id = p_loop_move.node_id;
  if v_error is null and (v_node.config -> 'collect' <> 'null' or stellwerk.dynamic_parts(v_node.dynamic, true) <> '[]') then
    v_token := (stellwerk.tokens_of(p_tenant_id, array[v_scope.run_id], array[v_scope.loop_step_id]))[1];
    v_token.scope_id := v_scope.scope_id;
    begin
      select stellwerk.render(v_node.config, stellwerk.dynamic_parts(v_node.dynamic, true), c.context) -> 'collect' into v_output
        from (select 1) one left join stellwerk.contexts(p_tenant_id, array[v_token]) c on true;
    exception when query_canceled or others then
      get stacked diagnostics v_message = message_text, v_state = returned_sqlstate;
      v_output := null;
      v_error := stellwerk.step_error(v_token, v_state, v_message, false);
    end;
  end if;
  update stellwerk.scope s
     set state = case when v_error is null then 'completed' else 'failed' end, output = v_output, error = v_error
   where s.tenant_id = p_tenant_id and s.run_id = v_scope.run_id and s.scope_id = v_scope.scope_id
  returning * into v_scope;
  return v_scope;
end
$$;
comment on function stellwerk.finish_scope(bigint, stellwerk.scope, stellwerk.move, jsonb, jsonb) is 'Ends one iteration: what collect comes to in it, by default the output of the token that ended last, or its error.';

create or replace function stellwerk.loop_output(p_tenant_id bigint, p_loop stellwerk.loop)
returns jsonb language plpgsql stable set search_path = '' as $$
begin
  return (
    select jsonb_build_object(
             'items', coalesce(jsonb_agg(coalesce(s.output, 'null') order by s.position)
                                 filter (where s.state = 'completed' or p_loop.on_item_error = 'collect'), '[]'),
             'count', p_loop.item_count,
             'errors', coalesce(jsonb_agg(jsonb_build_object('index', s.position, 'error', s.error) order by s.position)
                                  filter (where s.state = 'failed' and p_loop.on_item_error = 'collect'), '[]'))
      from stellwerk.scope s
     where s.tenant_id = p_tenant_id and s.run_id = p_loop.run_id and s.loop_step_id = p_loop.step_id);
end
$$;
comment on function stellwerk.loop_output(bigint, stellwerk.loop) is 'What a loop came to: { items, count, errors }. With skip failed items are left out; with collect they are null, and told in errors.';

create or replace function stellwerk.scope_chain(p_tenant_id bigint, p_run_id bigint, p_scope_id bigint)
returns bigint[] language plpgsql stable set search_path = '' as $$
declare
  v_chain bigint[] := array[p_scope_id];
  v_scope bigint := p_scope_id;
begin
  while v_scope <> 0 loop
    select s.parent_scope_id into v_scope from stellwerk.scope s
     where s.tenant_id = p_tenant_id and s.run_id = p_run_id and s.scope_id = v_scope;
    exit when not found;
    v_chain := v_chain || v_scope;
  end loop;
  return v_chain;
end
$$;
comment on function stellwerk.scope_chain(bigint, bigint, bigint) is 'A scope and those around it, from the inside out; the last is 0.';
