-- Node types that run in SQL. run_node is called once per step; what it reads comes in as a context that holds
-- only the parts that the compiled node says it reads.

-- One statement for all tokens of a wave: asking for each token by itself costs ten times as much. Only tokens in loops, and
-- in runs whose nodes were renamed by a migration, look for steps and vars in more than one place.
create or replace function stellwerk.contexts(p_tenant_id bigint, p_tokens stellwerk.token[])
returns table (step_id bigint, context jsonb) language plpgsql set search_path = '' as $$
begin
  return query
    select t.step_id, jsonb_build_object(
             'trigger', case when n.reads_trigger then jsonb_build_object(
                          'payload', case when n.reads_payload then r.payload end,
                          'row', case when n.reads_row and r.source = 'row' then r.payload end,
                          'old', case when n.reads_old then r.old end,
                          'source', r.source) end,
             'steps', case when not n.reads_steps then null
                           when t.scope_id <> 0 or t.recount then stellwerk.nearest_steps(p_tenant_id, t.run_id, t.scope_id, n.read_steps, r.aliases)
                           else (
                          select jsonb_object_agg(x.node_id, jsonb_build_object('output', l.output, 'error', l.error))
                            from unnest(n.read_steps) x (node_id)
                           cross join lateral (
                             select s.output, s.error from stellwerk.step s
                              where s.tenant_id = p_tenant_id and s.run_id = t.run_id and s.node_id = x.node_id and s.scope_id = 0
                                and s.ended_at is not null
                              order by s.visit desc limit 1) l) end,
             'vars', case when not n.reads_vars then null
                          when t.scope_id <> 0 then stellwerk.nearest_variables(p_tenant_id, t.run_id, t.scope_id)
                          else (
                          select jsonb_object_agg(v.name, v.value) from stellwerk.variable v
                           where v.tenant_id = p_tenant_id and v.run_id = t.run_id and v.scope_id = 0) end)
           || case when n.reads_run then jsonb_build_object('run', jsonb_build_object(
                     'id', t.run_id::text, 'workflow', stellwerk.slug_of(p_tenant_id, t.workflow_id))) else '{}' end
           || case when n.reads_now then jsonb_build_object('now', stellwerk.clock()) else '{}' end
           || case when n.reads_item and t.scope_id <> 0 then (
                     select jsonb_build_object('item', o.item, 'index', o.position) from stellwerk.scope o
                      where o.tenant_id = p_tenant_id and o.run_id = t.run_id and o.scope_id = t.scope_id) else '{}' end
      from unnest(p_tokens) t
      -- Each node is looked up once, however many tokens stand on it.
      join (select d.workflow_id, d.version, d.node_id, x.read_steps, x.read_steps <> '{}' as reads_steps, x.reads ? 'trigger' as reads_trigger,
                   x.reads -> 'trigger' ? 'payload' as reads_payload, x.reads -> 'trigger' ? 'row' as reads_row,
                   x.reads -> 'trigger' ? 'old' as reads_old, x.reads ? 'vars' as reads_vars, x.reads ? 'run' as reads_run,
                   x.reads ? 'now' as reads_now, x.reads ? 'item' as reads_item
              from (select distinct o.workflow_id, o.version, o.node_id from unnest(p_tokens) o) d
             cross join lateral (
               select o.reads, o.read_steps from stellwerk.plan_node o
                where o.tenant_id = p_tenant_id and o.workflow_id = d.workflow_id and o.version = d.version and o.node_id = d.node_id
                  and o.reads <> '{}' offset 0) x
            offset 0) n on n.workflow_id = t.workflow_id and n.version = t.version and n.node_id = t.node_id
      -- What only the run knows.
      left join lateral (
        select x.payload, x.old, x.source, x.aliases from stellwerk.run x
         where x.tenant_id = p_tenant_id and x.run_id = t.run_id and (n.reads_trigger or n.reads_steps and (t.scope_id <> 0 or t.recount)) offset 0) r on true;
end
$$;
comment on function stellwerk.contexts(bigint, stellwerk.token[]) is 'What the expressions of each token''s node see: { trigger, steps, vars, item, index, run, now }, the parts that the node reads filled in. Tokens whose node reads nothing are left out.';

create or replace function stellwerk.nearest_steps(p_tenant_id bigint, p_run_id bigint, p_scope_id bigint, p_nodes text[], p_aliases jsonb)
returns jsonb language plpgsql stable set search_path = '' as $$
begin
  return (
    select jsonb_object_agg(x.node_id, jsonb_build_object('output', l.output, 'error', l.error))
      from unnest(p_nodes) x (node_id)
     cross join lateral (
       select f.output, f.error
         from unnest(stellwerk.scope_chain(p_tenant_id, p_run_id, p_scope_id)) with ordinality c (scope_id, place)
        cross join lateral (
          -- Under its present name first, then under the one that it had before a migration.
          select s.output, s.error from unnest(array[x.node_id, p_aliases ->> x.node_id]) with ordinality a (node_id, place)
           cross join lateral (
             select o.output, o.error from stellwerk.step o
              where o.tenant_id = p_tenant_id and o.run_id = p_run_id and o.node_id = a.node_id and o.scope_id = c.scope_id and o.ended_at is not null
              order by o.visit desc limit 1) s
           order by a.place limit 1) f
        order by c.place limit 1) l);
end
$$;
comment on function stellwerk.nearest_steps(bigint, bigint, bigint, text[], jsonb) is 'The last output and error of nodes, from the nearest scope outwards: { node: { output, error } }.';

create or replace function stellwerk.nearest_variables(p_tenant_id bigint, p_run_id bigint, p_scope_id bigint)
returns jsonb language plpgsql stable set search_path = '' as $$
begin
  return (
    select jsonb_object_agg(x.name, x.value)
      from (select distinct on (v.name) v.name, v.value
              from unnest(stellwerk.scope_chain(p_tenant_id, p_run_id, p_scope_id)) with ordinality c (scope_id, place)
              join stellwerk.variable v on v.tenant_id = p_tenant_id and v.run_id = p_run_id and v.scope_id = c.scope_id
             order by v.name, c.place) x);
end
$$;
comment on function stellwerk.nearest_variables(bigint, bigint, bigint) is 'The vars that a scope sees, from the nearest scope outwards.';

create or replace function stellwerk.run_node(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_context jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome;
  v_message text;
  v_state   text;
  v_detail  text;
begin
  if p_token.visit > p_node.max_visits then
    v_outcome.error := stellwerk.step_error(p_token, 'max_visits', format('node %s was visited more than %s times in one scope', p_node.node_id, p_node.max_visits), false);
    return v_outcome;
  end if;
  if p_node.runs_in = 'trigger' then
    v_outcome.port := 'next';
    -- The payload stands on the run; it is told once more only where the trigger is all there is.
    if coalesce(p_node.edges -> 'next', '[]') = '[]' then
      select r.payload into v_outcome.output from stellwerk.run r where r.tenant_id = p_tenant_id and r.run_id = p_token.run_id;
    end if;
    return v_outcome;
  end if;
  if not p_node.may_raise then
    return stellwerk.run_logic(p_tenant_id, p_token, p_node, p_context);
  end if;
  begin
    if p_node.alone then
      v_outcome := stellwerk.run_alone(p_tenant_id, p_token, p_node, p_context);
    else
      v_outcome := stellwerk.run_logic(p_tenant_id, p_token, p_node, p_context);
    end if;
  -- "others" alone would miss a statement_timeout.
  exception when query_canceled or others then
    get stacked diagnostics v_message = message_text, v_state = returned_sqlstate, v_detail = pg_exception_detail;
    v_outcome := null;
    v_outcome.error := stellwerk.step_error(p_token, v_state, v_message, v_state !~ '^(0A|22|23|42|SW)',
      jsonb_strip_nulls(jsonb_build_object('sqlstate', v_state, 'detail', nullif(v_detail, ''))));
  end;
  return v_outcome;
end
$$;
comment on function stellwerk.run_node(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'Runs one SQL node for a token; what it raises becomes the step''s error, in a subtransaction of its own where the plan says that it may raise.';

create or replace function stellwerk.step_error(
  p_token stellwerk.token, p_class text, p_message text, p_retryable boolean, p_detail jsonb default null)
returns jsonb language sql immutable set search_path = '' as $$
  select jsonb_build_object('class', p_class, 'message', p_message, 'node', p_token.node_id, 'attempt', p_token.attempt + 1,
                            'retryable', p_retryable, 'detail', p_detail)
$$;
comment on function stellwerk.step_error(stellwerk.token, text, text, boolean, jsonb) is 'A step''s error: { class, message, node, attempt, retryable, detail }.';

create or replace function stellwerk.run_logic(p_tenant_id bigint, p_token stellwerk.token, p_node stellwerk.plan_node, p_context jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome;
  v_config  jsonb := p_node.config;
  v_case    jsonb;
  v_holds   boolean;
begin
  if p_node.type = 'logic.loop' then
    return stellwerk.begin_loop(p_tenant_id, p_token, p_node, p_context);
  end if;
  if p_node.dynamic <> '[]' then
    v_config := stellwerk.render(p_node.config, p_node.dynamic, p_context);
    v_outcome.input := v_config;
  end if;
  v_outcome.port := 'next';
  case p_node.type
    when 'logic.if' then
      v_holds := stellwerk.holds(p_node.condition, p_context);
      v_outcome.port := case when v_holds then 'true' else 'false' end;
      v_outcome.output := jsonb_build_object('result', coalesce(v_holds, false));
    when 'logic.switch' then
      v_outcome.port := 'default';
      for v_case in select c.value from jsonb_array_elements(p_node.cases) c (value) loop
        if stellwerk.holds(v_case, p_context) then
          v_outcome.port := v_case ->> 'port';
          exit;
        end if;
      end loop;
      v_outcome.output := jsonb_build_object('port', v_outcome.port);
    when 'logic.set' then
      v_outcome.output := coalesce(v_config -> 'values', '{}');
    when 'logic.transform' then
      v_outcome.output := v_config -> 'output';
    when 'logic.join' then
      v_outcome.output := jsonb_build_object('arrived', coalesce(p_token.arrived, '{}'));
      if cardinality(p_token.arrived) < (v_config ->> 'count')::integer then
        v_outcome.port := null;
        v_outcome.error := stellwerk.step_error(p_token, 'join_unsatisfied',
          format('%s of %s branches arrived, and no other can', cardinality(p_token.arrived), v_config ->> 'count'), false, v_outcome.output);
      end if;
    when 'logic.wait', 'timer.reminder_call', 'timer.precheck_docs', 'webhook.appointment_confirmed', 'webhook.esign_completed' then
      v_outcome := stellwerk.begin_wait(p_tenant_id, p_token, p_node, v_config);
    when 'task.user' then
      v_outcome := stellwerk.begin_task(p_tenant_id, p_token, p_node, v_config);
    when 'logic.call' then
      v_outcome := stellwerk.begin_call(p_tenant_id, p_token, p_node, v_config);
    when 'logic.stop' then
      v_outcome.port := null;
      v_outcome.output := v_config -> 'result';
      v_outcome.input := v_config;
    when 'log.write', 'log.error' then
      insert into stellwerk.run_log (tenant_id, run_id, step_id, node_id, level, message, data)
      values (p_tenant_id, p_token.run_id, p_token.step_id, p_token.node_id, case p_node.type when 'log.error' then 'error' else 'info' end,
              coalesce(v_config ->> 'message', ''), nullif(v_config -> 'data', 'null'));
      v_outcome.output := '{}';
    when 'notification.create' then
      v_outcome := stellwerk.create_notification(p_tenant_id, p_token, v_config);
    when 'action.backoffice_push' then
      v_outcome := stellwerk.push_case(p_tenant_id, p_token, v_config);
    when 'action.backoffice_status_update' then
      v_holds := p_node.condition is not null and stellwerk.holds(p_node.condition, p_context);
      v_outcome := stellwerk.update_case_status(p_tenant_id, p_token, v_config, p_node.condition is not null, v_holds);
    else
      v_outcome.port := null;
      v_outcome.error := stellwerk.step_error(p_token, 'unknown_type', format('this database does not know how to run %s', p_node.type), false);
  end case;
  return v_outcome;
end
$$;
comment on function stellwerk.run_logic(bigint, stellwerk.token, stellwerk.plan_node, jsonb) is 'Runs a node that touches only stellwerk''s own tables: logic.*, logs, notifications, cases.';

create or replace function stellwerk.create_notification(p_tenant_id bigint, p_token stellwerk.token, p_config jsonb)
returns stellwerk.outcome language plpgsql set search_path = '' as $$
declare
  v_outcome stellwerk.outcome := row('next', p_config, null, null);
  v_id      bigint;
begin
  if coalesce(p_config ->> 'recipient', '') = '' then
    v_outcome.port := null;
    v_outcome.error := stellwerk.step_error(p_token, 'no_recipient', 'the notification''s recipient is empty', false);
    return v_outcome;
  end if;
  insert into stellwerk.notification (tenant_id, recipient, title, body, link, run_id, step_id)
  values (p_tenant_id, p_config ->> 'recipient', coalesce(p_config ->> 'title', ''), p_config ->> 'body', p_config ->> 'link',
          p_token.run_id, p_token.step_id)
  returning notification_id into v_id;
  if p_config -> 'mail' = 'true' then
    perform stellwerk.mail_people(p_tenant_id, array[p_config ->> 'recipient'], coalesce(p_config ->> 'title', ''), coalesce(p_config ->> 'body', ''),
                                  p_config ->> 'link', p_token.run_id, p_token.step_id);
  end if;
  v_outcome.output := jsonb_build_object('notification_id', v_id::text);
  return v_outcome;
end
$$;
comment on function stellwerk.create_notification(bigint, stellwerk.token, jsonb) is 'notification.create: an in-app notification for a user or role, by mail too where that is wanted.';

-- The pause before the next attempt; after this many failures so far.
create or replace function stellwerk.retry_delay(p_retry jsonb, p_failures integer)
returns interval language plpgsql volatile set search_path = '' as $$
declare
  v_seconds double precision := extract(epoch from coalesce((p_retry ->> 'interval')::interval, interval '2 seconds'));
  v_max     double precision := extract(epoch from coalesce((p_retry ->> 'max_interval')::interval, interval '5 minutes'));
begin
  -- The exponent is bounded so that power() cannot overflow.
  v_seconds := least(v_max, v_seconds * power(coalesce((p_retry ->> 'backoff')::double precision, 2), least(greatest(p_failures - 1, 0), 60)));
  if coalesce((p_retry ->> 'jitter')::boolean, true) then
    v_seconds := v_seconds * (0.5 + random() / 2);
  end if;
  return make_interval(secs => v_seconds);
end
$$;
comment on function stellwerk.retry_delay(jsonb, integer) is 'interval × backoff^(failures - 1), at most max_interval, with jitter between half and all of it.';
