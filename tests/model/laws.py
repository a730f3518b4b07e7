"""The laws of the engine as statements that find what breaks them: each answers rows of (law, run, what).

They hold after every transaction, whatever was done in it. `first` limits them to runs from a number on.
"""

from __future__ import annotations

from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

LIVE = "state in ('queued', 'running', 'waiting', 'joining')"

ALWAYS = f"""
with r as (select * from stellwerk.run where tenant_id = 1 and run_id >= %(first)s),
     s as (select * from stellwerk.step where tenant_id = 1 and run_id >= %(first)s),
     live as (select * from s where {LIVE}),
     t as (select * from stellwerk.timer where tenant_id = 1 and run_id >= %(first)s),
     w as (select * from stellwerk.wait where tenant_id = 1 and run_id >= %(first)s),
     m as (select * from stellwerk.run_message where tenant_id = 1 and run_id >= %(first)s),
     o as (select * from stellwerk.scope where tenant_id = 1 and run_id >= %(first)s)
select 'a run that goes on has a live step', r.run_id, r.state from r
 where r.state in ('running', 'waiting') and not exists (select from live where live.run_id = r.run_id)
union all
select 'a run that has ended or not begun has no live step', r.run_id, live.node_id || ' ' || live.state
  from r join live using (run_id) where r.state in ('pending', 'completed', 'failed', 'cancelled')
union all
select 'a run waits when nothing of it is queued or runs', r.run_id, live.node_id || ' ' || live.state
  from r join live using (run_id) where r.state = 'waiting' and live.state in ('queued', 'running')
union all
select 'ended_at is set when it has ended', r.run_id, r.state from r
 where (r.ended_at is not null) <> (r.state in ('completed', 'failed', 'cancelled'))
union all
select 'a step''s ended_at is set when it has ended', s.run_id, s.node_id || ' ' || s.state from s where (s.ended_at is null) <> ({LIVE.replace("state", "s.state")})
union all
select 'a timer belongs to a run that has not ended', t.run_id, t.kind from t join r using (run_id) where r.ended_at is not null
union all
select 'a timer belongs to a live step', t.run_id, t.kind from t
 where t.step_id is not null and not exists (select from live where live.run_id = t.run_id and live.step_id = t.step_id
                                                                and live.state = case t.kind when 'retry' then 'queued' else 'waiting' end)
union all
select 'a run has one timer of its own at most', t.run_id, min(t.kind) from t where t.step_id is null group by t.run_id having count(*) > 1
union all
select 'timers of paused runs stand still, all others do not', t.run_id, t.kind from t join r using (run_id)
 where (r.state = 'paused') <> (t.remaining is not null) or (r.state = 'paused') <> (t.due_at = stellwerk.never())
union all
select 'a wait belongs to a waiting step', w.run_id, w.kind from w
 where not exists (select from live where live.run_id = w.run_id and live.step_id = w.step_id and live.state = 'waiting')
union all
select 'a held message is one to a paused run', m.run_id, m.kind from m join r using (run_id) where m.held and r.state <> 'paused'
union all
select 'a waiting step has a timer, a wait, or iterations', live.run_id, live.node_id from live
 where live.state = 'waiting'
   and not exists (select from t where t.run_id = live.run_id and t.step_id = live.step_id)
   and not exists (select from w where w.run_id = live.run_id and w.step_id = live.step_id)
   and not exists (select from o join live l on l.run_id = o.run_id and l.scope_id = o.scope_id
                    where o.run_id = live.run_id and o.loop_step_id = live.step_id and o.state = 'running')
union all
select 'a live iteration belongs to a waiting loop', live.run_id, live.node_id from live
 where live.scope_id <> 0
   and not exists (select from r where r.run_id = live.run_id and (r.ending is not null or live.undoes is not null))
   and not exists (select from o join live l on l.run_id = o.run_id and l.step_id = o.loop_step_id
                    where o.run_id = live.run_id and o.scope_id = live.scope_id and o.state = 'running' and l.state = 'waiting')
union all
select 'a running iteration of a live loop has a live step', o.run_id, o.position::text from o
  join live on live.run_id = o.run_id and live.step_id = o.loop_step_id
 where o.state = 'running' and not exists (select from live l where l.run_id = o.run_id and l.scope_id = o.scope_id)
union all
select 'as many iterations run as may', l.run_id, l.started - l.ended || ' of ' || l.parallel from stellwerk.loop l
  join live on live.run_id = l.run_id and live.step_id = l.step_id
 where l.tenant_id = 1 and l.run_id >= %(first)s
   and (l.started - l.ended > l.parallel
        or l.started - l.ended <> (select count(*) from o where o.run_id = l.run_id and o.loop_step_id = l.step_id and o.state = 'running'))
union all
select 'a run moves by something other than meetings and loops', r.run_id, r.state from r
 where r.state in ('running', 'waiting')
   and not exists (select from live where live.run_id = r.run_id and live.state <> 'joining' and not (live.state = 'waiting' and live.type = 'logic.loop'))
union all
select 'a step that waits to be tried again has a timer or a queue row', live.run_id, live.node_id from live join r using (run_id)
 where live.state = 'queued' and live.runs_in = 'sql' and live.due_at is not null and r.state <> 'paused'
   and not exists (select from t where t.run_id = live.run_id and t.step_id = live.step_id)
union all
select 'SQL steps of a paused run are not due', live.run_id, live.node_id from live join r using (run_id)
 where r.state = 'paused' and live.state = 'queued' and live.runs_in = 'sql' and live.due_at is null
union all
select 'a running step has a worker and a lease', live.run_id, live.node_id from live
 where live.state = 'running' and (live.worker_id is null or live.lease_until is null)
union all
select 'a step fails no more often than it was tried', s.run_id, s.node_id from s where s.failures > s.attempt
union all
select 'a step is visited once per number', s.run_id, min(s.node_id) from s group by s.run_id, s.node_id, s.scope_id, s.visit having count(*) > 1
union all
select 'visits are counted without a gap', s.run_id, min(s.node_id) from s group by s.run_id, s.node_id, s.scope_id having max(s.visit) <> count(*)
union all
select 'at most one live step stands on a node of a scope where ways meet', live.run_id, min(live.node_id) from live
 where live.state = 'joining' group by live.run_id, live.node_id, live.scope_id having count(*) > 1
"""

AFTER_PUMP = f"""
with r as (select * from stellwerk.run where tenant_id = 1 and run_id >= %(first)s),
     live as (select * from stellwerk.step where tenant_id = 1 and run_id >= %(first)s and {LIVE})
select 'no message is left', m.run_id, m.kind from stellwerk.run_message m where m.tenant_id = 1 and m.run_id >= %(first)s and not m.held
union all
select 'no run is left to be started', r.run_id, '' from r where r.state = 'pending' and not r.held
union all
select 'no SQL step is left to be run', live.run_id, live.node_id from live join r using (run_id)
 where live.state = 'queued' and live.runs_in = 'sql' and live.due_at is null and r.state <> 'paused'
union all
select 'a step that waits where ways meet waits for another one', live.run_id, live.node_id from live join r using (run_id)
  join stellwerk.plan_node n on n.tenant_id = 1 and n.workflow_id = r.workflow_id and n.version = r.version and n.node_id = live.node_id
 where live.state = 'joining' and r.state <> 'paused'
   and not exists (select from live l where l.run_id = live.run_id and l.scope_id = live.scope_id and n.upstream -> r.trigger_node ? l.node_id)
union all
select 'a run that was called is waited for, or ends', r.run_id, r.state from r
 where r.parent_run_id is not null and r.ended_at is null and r.ending is null
   and not exists (select from stellwerk.wait w where w.tenant_id = 1 and w.child_run_id = r.run_id)
"""

DIGEST = """
select r.run_id, r.state, md5(r::text || coalesce((
         select string_agg(s::text, '|' order by s.step_id) from stellwerk.step s where s.tenant_id = 1 and s.run_id = r.run_id), ''))
  from stellwerk.run r where r.tenant_id = 1 and r.run_id >= %(first)s
"""


def broken(db: Connection, first: int, *, pumped: bool = False) -> list[tuple[Any, ...]]:
    """What breaks a law: (law, run, what)."""
    found = db.execute(ALWAYS, {"first": first}).fetchall()
    return found + (db.execute(AFTER_PUMP, {"first": first}).fetchall() if pumped else [])


def digests(db: Connection, first: int) -> dict[int, tuple[str, str]]:
    """State and a digest of everything that is stored of each run and its steps."""
    return {run_id: (state, digest) for run_id, state, digest in db.execute(DIGEST, {"first": first}).fetchall()}
