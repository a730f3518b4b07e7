"""What holds in the engine's tables whenever nobody is in the middle of a move.

Each law is a query that answers what breaks it. `AT_REST` holds only when pump and tick have nothing left to do."""

from __future__ import annotations

from typing import Any

import psycopg

LIVE = "('queued', 'running', 'waiting', 'joining')"
ENDED = "('completed', 'failed', 'cancelled')"

LAWS: dict[str, str] = {
    "a run that has ended has no live step": f"""
        select r.run_id, s.node_id, s.state from stellwerk.run r
          join stellwerk.step s on s.tenant_id = r.tenant_id and s.run_id = r.run_id
         where r.state in {ENDED} and s.state in {LIVE}""",
    "a run that has begun and not ended has a live step": f"""
        select r.run_id, r.state from stellwerk.run r
         where r.state in ('running', 'waiting')
           and not exists (select from stellwerk.step s
                            where s.tenant_id = r.tenant_id and s.run_id = r.run_id and s.state in {LIVE})""",
    "a run is running while a step is queued or running, else waiting": f"""
        select r.run_id, r.state, array_agg(s.state) from stellwerk.run r
          join stellwerk.step s on s.tenant_id = r.tenant_id and s.run_id = r.run_id and s.state in {LIVE}
         where r.state in ('running', 'waiting') and r.ending is null
         group by r.run_id, r.state
        having bool_or(s.state in ('queued', 'running')) <> (r.state = 'running')""",
    "a step has an end when it has ended, and no other": f"""
        select s.run_id, s.node_id, s.state from stellwerk.step s
         where (s.ended_at is null) <> (s.state in {LIVE})""",
    "a running step has a worker, an attempt and a lease": """
        select s.run_id, s.node_id from stellwerk.step s
         where s.state = 'running' and (s.worker_id is null or s.attempt = 0 or s.lease_until is null)""",
    "a worker step that is queued has a row in the queue": """
        select s.run_id, s.node_id from stellwerk.step s
          join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
         where s.state = 'queued' and s.runs_in = 'worker' and r.state <> 'paused'
           and not exists (select from stellwerk_queue.pgqueuer q where q.id = s.job_id)""",
    "a step that is tried later has a timer, if it runs in SQL": """
        select s.run_id, s.node_id from stellwerk.step s
          join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
         where s.state = 'queued' and s.runs_in = 'sql' and s.due_at is not null and r.state <> 'paused'
           and not exists (select from stellwerk.timer t
                            where t.tenant_id = s.tenant_id and t.run_id = s.run_id and t.step_id = s.step_id)""",
    "a waiting step waits for something that has a row": """
        select s.run_id, s.node_id from stellwerk.step s
         where s.state = 'waiting'
           and not exists (select from stellwerk.timer t
                            where t.tenant_id = s.tenant_id and t.run_id = s.run_id and t.step_id = s.step_id)
           and not exists (select from stellwerk.wait w
                            where w.tenant_id = s.tenant_id and w.run_id = s.run_id and w.step_id = s.step_id)
           and not exists (select from stellwerk.scope o
                            where o.tenant_id = s.tenant_id and o.run_id = s.run_id and o.loop_step_id = s.step_id
                              and o.state = 'running')""",
    "a token that waits where ways meet has another to wait for": f"""
        select s.run_id, s.node_id from stellwerk.step s
         where s.state = 'joining'
           and not exists (select from stellwerk.step o
                            where o.tenant_id = s.tenant_id and o.run_id = s.run_id and o.scope_id = s.scope_id
                              and o.step_id <> s.step_id and o.state in {LIVE})""",
    "timers and waits belong to live steps of live runs": f"""
        select x.run_id, x.step_id, x.what, s.state from (
            select t.tenant_id, t.run_id, t.step_id, 'timer ' || t.kind as what from stellwerk.timer t
            union all
            select w.tenant_id, w.run_id, w.step_id, 'wait ' || w.kind from stellwerk.wait w) x
          left join stellwerk.run r on r.tenant_id = x.tenant_id and r.run_id = x.run_id
          left join stellwerk.step s on s.tenant_id = x.tenant_id and s.run_id = x.run_id and s.step_id = x.step_id
         where r.state is null or r.state in {ENDED}
            or (x.step_id is not null and coalesce(s.state not in {LIVE}, true))""",
    "an iteration runs only while its loop waits": """
        select o.run_id, o.scope_id, s.state from stellwerk.scope o
          left join stellwerk.step s on s.tenant_id = o.tenant_id and s.run_id = o.run_id and s.step_id = o.loop_step_id
         where o.state = 'running' and s.state is distinct from 'waiting'
           and not exists (select from stellwerk.run r
                            where r.tenant_id = o.tenant_id and r.run_id = o.run_id and r.ended_at is not null)""",
    "a loop counts its iterations": """
        select l.run_id, l.step_id, l.started, l.ended, l.item_count from stellwerk.loop l
          join stellwerk.step s on s.tenant_id = l.tenant_id and s.run_id = l.run_id and s.step_id = l.step_id
         where l.ended > l.started or l.started > l.item_count
            or l.started - l.ended > l.parallel
            or (s.state = 'completed' and l.ended <> l.item_count)""",
    "a live step stands in a running iteration, or outside of loops": f"""
        select s.run_id, s.node_id, o.state from stellwerk.step s
          left join stellwerk.scope o on o.tenant_id = s.tenant_id and o.run_id = s.run_id and o.scope_id = s.scope_id
         where s.scope_id <> 0 and s.state in {LIVE} and o.state is distinct from 'running'""",
    "visits are counted without gaps": """
        select s.run_id, s.node_id, s.scope_id from stellwerk.step s
         group by s.run_id, s.node_id, s.scope_id having max(s.visit) <> count(*)""",
}

AT_REST: dict[str, str] = {
    "no message is left but those that are held for a paused run": """
        select m.run_id, m.kind, r.state from stellwerk.run_message m
          left join stellwerk.run r on r.tenant_id = m.tenant_id and r.run_id = m.run_id
         where not m.held or r.state is distinct from 'paused'""",
    "a child has ended when its parent has": f"""
        select c.run_id, c.state, p.state from stellwerk.run c
          join stellwerk.run p on p.tenant_id = c.tenant_id and p.run_id = c.parent_run_id
         where p.state in {ENDED} and c.state not in {ENDED}""",
    "what can run now has run": """
        select s.run_id, s.node_id from stellwerk.step s
          join stellwerk.run r on r.tenant_id = s.tenant_id and r.run_id = s.run_id
         where s.state = 'queued' and s.runs_in = 'sql' and s.due_at is null and r.state in ('running', 'waiting')""",
}


def broken(db: psycopg.Connection[Any], *, at_rest: bool = False) -> list[str]:
    """The laws that do not hold, each with what breaks it."""
    laws = LAWS | AT_REST if at_rest else LAWS
    return [f"{law}: {rows}" for law, query in laws.items() if (rows := db.execute(query).fetchall())]
